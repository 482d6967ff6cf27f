# SPDX-License-Identifier: GPL-2.0-only
"""tests/numba/results.py: which tests count, what the list looks like, what is a regression."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.numba.results import (
    REASON_LENGTH,
    Result,
    judge,
    one_line,
    read,
    regressions,
    summary,
    write,
)  # fmt: skip

PASSED = Result("passed", "")
FAILED = Result("failed", "AssertionError")


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("nvJitLink not installed or new enough (>12.3)", "needs nvJitLink"),
        ("need more than 1 gpus", "needs several GPUs"),
        ("requires at least two GPUs", "needs several GPUs"),
        ("could not import 'cupy': No module named 'cupy'", "needs another package"),
    ],
)
def test_a_skip_for_what_is_not_simulated_does_not_apply(text: str, why: str) -> None:
    assert judge("skipped", text) == ("not-applicable", why)


def test_a_failure_is_a_failure_whatever_its_text_says() -> None:
    assert judge("failed", "needs nvJitLink").outcome == "failed"
    assert judge("skipped", "flaky").outcome == "skipped"


def test_reasons_are_one_line_with_no_addresses_and_no_paths() -> None:
    line = one_line("at 0x7f12abcd9900\n\tin /home/me/lib/python/x.py " + "long " * 100)
    assert line.startswith("at 0x… in …/x.py long")
    assert len(line) <= REASON_LENGTH


def test_the_list_is_sorted_and_read_back(tmp_path: Path) -> None:
    results = {"b.py::t": PASSED, "a.py::t": FAILED, "c.py::t": Result("not-applicable", "why")}
    write(tmp_path / "new" / "results.txt", results, "title")

    lines = (tmp_path / "new" / "results.txt").read_text().splitlines()
    assert lines[:2] == ["# title", f"# {summary(results)}"]
    assert [line.split("\t")[1] for line in lines[2:]] == ["a.py::t", "b.py::t", "c.py::t"]
    assert read(tmp_path / "new" / "results.txt") == results
    assert read(tmp_path / "none") == {}


def test_the_share_is_of_tests_that_ran() -> None:
    results = {"a": PASSED, "b": FAILED, "c": Result("skipped", "x"), "d": PASSED, "e": PASSED}
    assert summary(results).endswith("75.00 % of 4 that apply pass")


def test_a_test_that_passed_must_pass() -> None:
    before = {"a": PASSED, "b": PASSED, "gone": PASSED, "d": FAILED}
    now = {"a": PASSED, "b": FAILED, "d": FAILED, "new": FAILED}
    assert regressions(before, now) == ["b", "gone"]
    assert regressions(before, {**now, "b": Result("skipped", "x"), "gone": PASSED}) == ["b"]
    away = Result("not-applicable", "a rule's reason")
    assert regressions(before, {**now, "b": away, "gone": PASSED}) == []
