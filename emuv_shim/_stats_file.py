# SPDX-License-Identifier: GPL-2.0-only
"""`emuv-run --stats FILE`: the segments of one run, collected into one JSON file.

The run's processes leave their segments behind (EMUV_KEEP); when the program
has ended they are read, written to FILE as schema 1 (`stats_to_json`, and beside
it what the launcher knows: command, wall time, how it ended), and removed.
Processes of the run that still live (a daemon it started) are reported as
running and keep their segments.

FILE appears complete or not at all; whether it can be written is found out
before the program starts. Something that is not a regular file (/dev/stderr, a
FIFO) is written to directly.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import stat
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from emuv_shim import _messages
from emuv_shim._launch import Plan
from emuv_shim._messages import printable, quote
from emuv_shim.errors import CommandError
from emuv_shim.stats import stats_to_json

if TYPE_CHECKING:
    from emuv_shim.controller import Process

NO_SETUP = 125
MOST_WARNINGS = 10


@dataclasses.dataclass(frozen=True)
class Run:
    """One run while it is under way: times are CLOCK_MONOTONIC seconds."""

    run_id: str
    directory: Path | None  # None: emuV is not in the environment, no segments
    command: tuple[str, ...]
    in_force: bool
    started_s: float


def _is_special(path: str) -> bool:
    """True for something that is there and is no regular file (and no directory)."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return False
    return not stat.S_ISREG(mode) and not stat.S_ISDIR(mode)


def check_writable(path: str) -> None:
    """Raises CommandError (125) where the file could not be written later."""
    reason, directory = "", os.path.dirname(path) or "."
    try:
        directory = os.path.dirname(os.path.abspath(path))
        if not path:
            reason = "it names no file"
        elif os.path.isdir(path):
            reason = "it is a directory"
        elif os.path.exists(path) and not os.access(path, os.W_OK):
            reason = "permission denied"
        elif not _is_special(path):
            handle, name = tempfile.mkstemp(prefix=".emuv-", dir=directory)
            os.close(handle)
            os.unlink(name)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
    if reason:
        raise CommandError(
            f"--stats {quote(path)} cannot be written: {reason}",
            f"choose a file that you may write; its directory is {printable(directory)}",
            exit_code=NO_SETUP,
        )


def write_json(path: str, value: object) -> None:
    """Write `value` as JSON; the file is replaced in one step. Raises OSError."""
    text = json.dumps(value, indent=2) + "\n"
    if _is_special(path):
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return
    target = os.path.realpath(path)  # through a link, not over it
    handle, name = tempfile.mkstemp(prefix=".emuv-", dir=os.path.dirname(target))
    try:
        with open(handle, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            try:
                mode = stat.S_IMODE(os.stat(target).st_mode)
            except OSError:
                umask = os.umask(0)
                os.umask(umask)
                mode = 0o666 & ~umask
            os.fchmod(handle, mode)
        os.replace(name, target)
    except BaseException:
        os.unlink(name)
        raise


def begin(plan: Plan, environ: Mapping[str, str], in_force: bool) -> Run:
    """What has to be known at the start."""
    is_set_up = any(name == "EMUV_RUN" for name, _ in plan.changes)
    directory = Path(environ["EMUV_RUNTIME_DIR"]) if is_set_up else None
    run_id = environ["EMUV_RUN"] if is_set_up else ""
    return Run(run_id, directory, plan.argv, in_force, time.monotonic())


def finish(run: Run, status: int, path: str) -> None:
    """Collect, write and remove. Raises OSError where the file cannot be written."""
    found: list[Process] = []
    if run.directory is not None:
        from emuv_shim.controller import Controller

        listing = Controller(run.directory).scan(stale=True)
        found = [process for process in listing.processes if process.stats.run_id == run.run_id]
        found.sort(key=lambda process: (process.stats.created_ns, process.pid))
        for skipped in listing.warnings[:MOST_WARNINGS]:
            _messages.warning(f"left out: {printable(skipped.message)}")
    # A process that was killed could not write its own end.
    document = stats_to_json(
        p.stats if p.alive else dataclasses.replace(p.stats, state="exited") for p in found
    )
    number = os.WTERMSIG(status) if os.WIFSIGNALED(status) else None
    document["run"] = {
        "id": run.run_id,
        "command": [printable(word, 4096) for word in run.command],
        "wall_s": round(time.monotonic() - run.started_s, 6),
        "exit_code": os.waitstatus_to_exitcode(status) if number is None else None,
        "signal": number,
        "budget_in_force": run.in_force,
    }
    write_json(path, document)
    for process in found:
        if not process.alive:
            with contextlib.suppress(OSError):  # gone already, or stale: emuv ps cleans it
                os.unlink(process.path)
