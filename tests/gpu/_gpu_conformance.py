# SPDX-License-Identifier: GPL-2.0-only
"""tests/conformance on this machine's driver, one process and one row a file.

The suite states driver behaviour once for the simulated GPU and the real driver.  A real driver may
crash on what the suite asks of it, and an error on the card may stay with a process for good:
neither must cost the rest.

Invariants
- A test in which the process died is named, left out, and the rest of its file runs again; a file
  that was killed at its limit does not run again, and all runs of a file share one limit.
- What pytest printed is kept in the row: a card is rare, and the difference is what we came for.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Sequence
from pathlib import Path

from _gpu_process import ROOT, Done, run
from _gpu_rows import FailError, SkipError
from _gpu_stacks import Bed, installed

SUITE = ROOT / "tests" / "conformance"
FILE_SECONDS = 60.0
SUITE_SECONDS = 170.0  # the rest of the checks want their time too
CRASHES = 5  # in one file, before the rest of it is given up
KEPT_CHARACTERS = 20_000
# Files that ask whether the primary context is up: each of their tests makes its own.
OWN_CONTEXTS = ("test_contexts", "test_devices", "test_process", "test_streams", "test_threads")

_BEGUN = re.compile(r"^(\S+::\S.*?)(?: (PASSED|FAILED|ERROR|SKIPPED|XFAIL|XPASS)\b|\s*$)")


def check_conformance(bed: Bed) -> None:
    """A row for each file of the suite."""
    files = sorted(SUITE.glob("test_*.py"))
    if not files:
        with bed.report.check("conformance"):
            raise SkipError("the tree has no tests/conformance/test_*.py")
    until = time.monotonic() + SUITE_SECONDS
    for file in files:
        _check_file(bed, file, min(until, time.monotonic() + FILE_SECONDS))


def _check_file(bed: Bed, file: Path, until: float) -> None:
    with bed.report.check(f"conformance {file.stem.removeprefix('test_')}") as data:
        bed.report.need(10.0)
        if until - time.monotonic() < 5.0:
            raise SkipError("out of time: the suite has had its share")
        if not installed("pytest"):
            raise SkipError("pytest is not installed")
        crashed: list[str] = []
        while True:
            done = _pytest(bed, file, crashed, until)
            culprit = None if done.late else died_in(done)
            if culprit is None or culprit in crashed or len(crashed) == CRASHES:
                break
            crashed.append(culprit)
            if until - time.monotonic() < 5.0:
                break
        summary, failed = outcome(done.out)
        data.update(
            code=done.code,
            failed=failed,
            crashed=crashed,
            output=done.out[-KEPT_CHARACTERS:],
            stderr=done.err[-2000:],
        )
        if done.late:
            raise FailError(f"killed after {done.seconds:.0f} s in {died_in(done)}")
        if crashed:
            raise FailError(f"the process died in {', '.join(crashed)}; without: {summary}")
        if done.code != 0:
            raise FailError(f"{summary}: {', '.join(failed) or done.last_words()}")
        data["detail"] = summary


def _pytest(bed: Bed, file: Path, without: Sequence[str], until: float) -> Done:
    environment = bed.target.environment({"EMUV_CONFORMANCE_DRIVER": bed.target.driver or "real"})
    environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).parent)
    keep = () if file.stem in OWN_CONTEXTS else ("-p", "_gpu_keep")
    command = [
        bed.target.python,
        "-m",
        "pytest",
        "-v",
        "-p",
        "no:cacheprovider",
        "--tb=short",
        "--color=no",
        *keep,
        *(f"--deselect={test}" for test in without),
        os.path.relpath(file, ROOT),
    ]
    return run(command, environment, min(until - time.monotonic(), bed.report.left()))


def died_in(done: Done) -> str | None:
    """The test that was running when the process was killed; None if it ended by itself."""
    if done.code >= 0 and not done.late:
        return None
    last = None
    for line in done.out.splitlines():
        begun = _BEGUN.match(line)
        if begun:
            last = begun.group(1) if begun.group(2) is None else None
    return last


def outcome(text: str) -> tuple[str, list[str]]:
    """(pytest's last line, the names of the tests that failed) of what pytest -v printed."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    failed = [
        line.split(" ")[1].split("::", 1)[-1]
        for line in lines
        if re.match(r"(FAILED|ERROR) \S+::", line)
    ]
    return (lines[-1].strip("= ") if lines else "nothing was printed"), failed
