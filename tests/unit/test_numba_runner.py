# SPDX-License-Identifier: GPL-2.0-only
"""The runner of numba-cuda's tests starts a module again after a crash, and not for ever."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import pytest

NUMBA = Path(__file__).parents[1] / "numba"


@pytest.fixture
def runner(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    from tests.numba import results

    monkeypatch.setitem(sys.modules, "results", results)
    spec = importlib.util.spec_from_file_location("numba_runner", NUMBA / "run.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def outcomes(
    runner: ModuleType,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    runs: list[tuple[int, list[dict[str, str]]]],
) -> tuple[int, dict[str, str]]:
    """(runs that were made, outcomes), where each run writes its events and ends with its code."""
    events = tmp_path / "modules" / "a.test_b" / "events"
    made = 0

    def once(*_: object) -> int:
        nonlocal made
        code, lines = runs[min(made, len(runs) - 1)]
        made += 1
        assert made < 10, "it starts it for ever"
        with events.open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
        return code

    monkeypatch.setattr(runner, "run_once", once)
    done = runner.run_modules(
        [tmp_path / "a" / "test_b.py"], tmp_path, tmp_path, False, frozenset()
    )
    return made, {test: result.outcome for test, result in done.results.items()}


def test_a_module_that_cannot_be_imported_is_not_tried_for_ever(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    error = {"id": "a/test_b.py", "outcome": "failed", "reason": "ImportError"}
    made, found = outcomes(runner, monkeypatch, tmp_path, [(2, [error])])
    assert made == 2
    assert found == {"a/test_b.py": "failed"}


def test_what_is_left_after_a_crash_is_run(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    crash = (-11, [{"start": "", "id": "one"}])
    rest = (0, [{"start": "", "id": "two"}, {"id": "two", "outcome": "passed", "reason": ""}])
    made, found = outcomes(runner, monkeypatch, tmp_path, [crash, rest])
    assert made == 2
    assert found == {"one": "failed", "two": "passed"}
