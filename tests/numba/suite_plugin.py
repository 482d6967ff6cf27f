# SPDX-License-Identifier: GPL-2.0-only
"""The side of run.py that lives in the processes with the tests: writes down what happens.

One JSON line to $EMUV_SUITE_EVENTS when a test starts and one when it has ended, so
that a process that dies tells by its last line which test it died in. A process that
is started again with the same file goes on behind that test. A test that fails and
leaves its context unusable ends the process: those after it get a new one.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator

import pytest

UNUSABLE = 77  # exit code: the context is lost, start again
_path = os.environ["EMUV_SUITE_EVENTS"]
_only = frozenset(filter(None, os.environ.get("EMUV_SUITE_ONLY", "").split("\n")))
_worst: dict[str, tuple[str, str]] = {}
_ORDER = ("passed", "skipped", "xfailed", "failed")


@pytest.fixture(scope="class")
def initialize_from_pytest_config(request: pytest.FixtureRequest) -> None:
    """What the suite's own conftest.py, which its wheel lacks, gives to its test classes."""
    request.cls._dump_failed_filechecks = False


def _write(event: dict[str, object]) -> None:
    with open(_path, "a") as file:
        file.write(json.dumps(event) + "\n")


def _seen() -> set[str]:
    try:
        with open(_path) as file:
            return {str(json.loads(line)["id"]) for line in file}
    except FileNotFoundError:
        return set()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    seen = _seen()
    chosen = [
        item for item in items if item.nodeid not in seen and (not _only or item.nodeid in _only)
    ]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A module that cannot be imported, or is skipped whole, counts as one test."""
    if report.failed or report.skipped:
        outcome, reason = _judge(report)
        _write({"id": report.nodeid, "outcome": outcome, "reason": reason})


def pytest_runtest_logstart(nodeid: str) -> None:
    _worst[nodeid] = ("passed", "")
    _write({"id": nodeid, "start": True})


def _judge(report: pytest.CollectReport | pytest.TestReport) -> tuple[str, str]:
    """(outcome, reason on one line)."""
    if report.skipped:
        if hasattr(report, "wasxfail"):
            return "xfailed", str(report.wasxfail)
        where = report.longrepr
        text = where[2] if isinstance(where, tuple) else str(where)
        return "skipped", text.removeprefix("Skipped: ")
    if report.failed:
        text = str(getattr(report, "longreprtext", report.longrepr))
        lines = [line[1:].strip() for line in text.splitlines() if line.startswith("E ")]
        return "failed", "\n".join(lines) or text[-2000:]
    return "passed", ""


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Setup, call, teardown and each subtest report; the worst of them is the test's."""
    outcome, reason = _judge(report)
    if hasattr(report, "context") and outcome == "skipped":
        return  # a skipped subtest says nothing of the test
    if _ORDER.index(outcome) > _ORDER.index(_worst[report.nodeid][0]):
        _worst[report.nodeid] = (outcome, reason)


def pytest_runtest_logfinish(nodeid: str) -> None:
    outcome, reason = _worst.pop(nodeid)
    _write({"id": nodeid, "outcome": outcome, "reason": reason})
    if outcome == "failed" and not _usable():
        os._exit(UNUSABLE)


def _usable() -> bool:
    from cuda.bindings import driver

    (code,) = driver.cuCtxSynchronize()
    fine = (
        driver.CUresult.CUDA_SUCCESS,
        driver.CUresult.CUDA_ERROR_INVALID_CONTEXT,
        driver.CUresult.CUDA_ERROR_NOT_INITIALIZED,
    )
    return code in fine


@pytest.hookimpl(wrapper=True)
def pytest_sessionfinish() -> Iterator[None]:
    """The end is part of the record too: a process that dies after its last test has failed."""
    yield
    _write({"id": "", "end": True})
