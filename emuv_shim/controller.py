# SPDX-License-Identifier: GPL-2.0-only
"""Watching the processes that run under emuV, and changing their budgets.

A controller only reads and writes segment files; it needs no daemon and talks
to no process.  What it finds in the directory is data from strangers: a file
that is no sound segment is skipped with a :class:`SegmentWarning`, and no pid
from a file is ever signalled.  Every wait has a limit.

Processes are keyed by their pid, as the controller's pid namespace has it: a
process in a container that shares the directory but not the pids looks dead.
Those of one `emuv-run` are a :class:`Run`; where it shares its budget, a change for
any of them is one for all, also for those that start later.
"""

from __future__ import annotations

import dataclasses
import errno
import math
import os
import random
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Final

from emuv_shim import _changes, _segment
from emuv_shim._changes import BudgetChange as BudgetChange
from emuv_shim._changes import DeviceChange as DeviceChange
from emuv_shim._listing import Listing as Listing
from emuv_shim._listing import Process as Process
from emuv_shim._listing import Run as Run
from emuv_shim._listing import SegmentWarning as SegmentWarning
from emuv_shim.budget import Budget, Policy
from emuv_shim.errors import EmuvError, NotAttached, SegmentError, Stale
from emuv_shim.stats import Stats

MAX_ENTRIES = 4096  # of a directory; more than that is not looked at
KEEP_SECONDS = 24 * 3600  # how long a dead process's segment waits for its launcher
_CHANGE_TRIES = 200
_POLL_SECONDS = 0.01
_COLLISION_SECONDS = 0.004  # between two tries to be the one who changes a budget
_NAME = re.compile(r"([1-9][0-9]{0,9})-([1-9][0-9]{0,19})\.seg")
_RUN = re.compile(r"[A-Za-z0-9_-]{1,63}")
_TEMPORARY = re.compile(r"\.new-([1-9][0-9]{0,9})-([1-9][0-9]{0,19})(\.seg|-[\w-]+\.run)", re.A)


class _Kept:
    """The type of :data:`KEPT`."""

    def __repr__(self) -> str:
        return "KEPT"


KEPT: Final = _Kept()  # for update_budget: leave this field as it is


class Controller:
    """Reads segments and sets budgets; use it as a context manager.

    ``directory`` is where the segments are: by default the caller's own, the
    one that the programs he starts use.  Raises :class:`SegmentError` for a
    directory that is not safe to use; one that is not there holds no processes.
    """

    def __init__(self, directory: str | os.PathLike[str] | None = None) -> None:
        if directory is None:
            self.directory, _ = _segment.locate_directory()
        else:
            self.directory = Path(directory)
            _segment.check_directory(self.directory)
        self.warnings: tuple[SegmentWarning, ...] = ()

    def __enter__(self) -> Controller:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is held between calls, so there is nothing to give back."""

    # Reading

    def scan(self, *, stale: bool = False, pid: int | None = None) -> Listing:
        """Everything in the directory; with ``stale`` dead processes too."""
        names, warnings = self._names()
        if pid is not None:  # known by name, also beyond MAX_ENTRIES
            ticks = _segment.start_ticks(pid)
            name = f"{pid}-{ticks}.seg"
            names += [name] if ticks and name not in names else []
        processes: list[Process] = []
        runs: dict[str, _segment.Control | None] = {}
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None:
                if name.endswith(".run") and _RUN.fullmatch(name[:-4]):
                    continue  # read with the processes that share it
                if not name.startswith("."):
                    warnings.append(self._warning(name, "is not named as a segment"))
                continue
            if pid is not None and int(match[1]) != pid:
                continue
            try:
                process = self._read(name)
            except SegmentError as error:
                if error.errno != errno.ENOENT:  # gone since: its process ended
                    path = str(self.directory / name)
                    warnings.append(SegmentWarning(path, error.message, error.hint))
                continue
            if process.alive or stale:
                processes.append(self._under_its_run(process, runs))
        processes.sort(key=lambda process: (process.pid, process.start_ticks))
        self.warnings = tuple(warnings)
        return Listing(str(self.directory), tuple(processes), self.warnings)

    def processes(self) -> list[Process]:
        """The living processes, by pid; ``warnings`` says what was skipped."""
        return [*self.scan().processes]

    def get(self, pid: int) -> Process:
        """One living process.

        Raises :class:`NotAttached` where it has no segment, :class:`Stale` where
        it has ended, :class:`SegmentError` where its segment cannot be used.
        """
        if isinstance(pid, bool) or not isinstance(pid, int):  # None would be anyone's
            raise EmuvError(f"the process id is {pid!r}", "a process id is a whole number")
        found = self.scan(stale=True, pid=pid).processes
        alive = [process for process in found if process.alive]
        if alive:
            return alive[-1]
        if found:
            raise Stale(f"process {pid} has ended", "its segment goes with: emuv ps")
        prefix = f"{self.directory}{os.sep}{pid}-"
        for warning in self.warnings:
            if warning.path.startswith(prefix):
                raise SegmentError(warning.message, warning.hint)
        if _segment.start_ticks(pid) == 0:
            raise NotAttached(f"there is no process {pid}", "emuv ps lists those under emuV")
        raise NotAttached(
            f"process {pid} has no segment in {self.directory}",
            "it was not started by emuv-run, has not used CUDA yet, or has another "
            "EMUV_RUNTIME_DIR (each user has one of his own)",
        )

    def stats(self, pid: int) -> Stats:
        """The statistics of one living process; raises as :meth:`get`."""
        return self.get(pid).stats

    def runs(self) -> list[Run]:
        """The runs that have a living process."""
        return [*self.scan().runs]

    def find_run(self, text: str) -> Run:
        """The run with this id, or its beginning (four characters at least), or this name.

        Raises :class:`NotAttached` where there is none, or more than one.
        """
        runs = self.runs()
        found = [run for run in runs if run.run_id == text] or [
            run
            for run in runs
            # An empty text is the name of those that have none: it names nothing.
            if (text and run.name == text) or (len(text) >= 4 and run.run_id.startswith(text))
        ]
        if len(found) == 1:
            return found[0]
        if found:
            ids = ", ".join(run.run_id for run in found)
            raise NotAttached(f"{text!r} is {len(found)} runs: {ids}", "give one of these")
        raise NotAttached(f"no run {text!r} has a living process", "emuv ps lists them")

    def watch(self, interval: float = 1.0, *, count: int | None = None) -> Iterator[Listing]:
        """A listing every ``interval`` seconds, ``count`` times or until dropped."""
        _check_seconds("interval", interval, least=0.01)
        due = time.monotonic()
        done = 0
        while count is None or done < count:
            yield self.scan()
            done += 1
            if done == count:
                return
            due = max(due + interval, time.monotonic())
            time.sleep(max(0.0, due - time.monotonic()))

    # Changing

    def set_budget(
        self, pid: int, budget: Budget, device: int | None = None, *, wait_seconds: float = 0.0
    ) -> BudgetChange:
        """Replaces the budget of one device, or of all, of a running process.

        It takes effect at the process's next allocation; with ``wait_seconds``
        that is waited for.  What is held already stays: the result says how much
        of it lies above the new vram.  Percentages are of the device's memory.

        Of a process in a shared run it is the run's budget that is set.

        The policy is the process's: it spills while any of its devices has a
        virtual, and a device without one is capped either way.

        Raises :class:`BudgetTooSmall` where the contexts alone take more, and as
        :meth:`get`.
        """
        if not isinstance(budget, Budget):
            raise EmuvError(f"the budget is {budget!r}", 'give a Budget, as in Budget(vram="4GiB")')
        return self._change(
            pid, lambda _device, _old, card: budget.resolved(card), device, wait_seconds
        )

    def update_budget(
        self,
        pid: int,
        *,
        vram: str | int | _Kept | None = KEPT,
        virtual: str | int | _Kept | None = KEPT,
        policy: Policy | _Kept = KEPT,
        device: int | None = None,
        wait_seconds: float = 0.0,
    ) -> BudgetChange:
        """As :meth:`set_budget`, but leaves alone what is not named.

        Policy ``cap`` drops the virtual; ``None`` for virtual does too.
        """

        return self._change(pid, _editor(vram, virtual, policy), device, wait_seconds)

    def update_run_budget(
        self,
        run: str,
        *,
        vram: str | int | _Kept | None = KEPT,
        virtual: str | int | _Kept | None = KEPT,
        policy: Policy | _Kept = KEPT,
        device: int | None = None,
        wait_seconds: float = 0.0,
    ) -> tuple[BudgetChange, ...]:
        """As :meth:`update_budget`, of a run (see :meth:`find_run`).

        Where its budget is shared that is one change, which holds for processes that
        start later too; else one for each of its living processes.
        """
        found = self.find_run(run)
        edit = _editor(vram, virtual, policy)
        if found.shared:
            first = next(process for process in found.processes if process.stats.shared)
            return (self._change(first.pid, edit, device, wait_seconds),)
        changes: list[BudgetChange] = []
        until = time.monotonic() + wait_seconds
        for process in found.processes:
            left = max(0.0, until - time.monotonic())
            try:
                changes.append(self._change(process.pid, edit, device, left))
            except (NotAttached, Stale):  # it ended meanwhile
                continue
        if not changes:
            raise Stale(f"run {found.run_id} has ended", "emuv ps lists those that run")
        return tuple(changes)

    # Collecting

    def clean(self) -> tuple[str, ...]:
        """Removes the segments of dead processes; returns their paths.

        One whose launcher wants to collect it (``--stats``) stays while another
        process of its run lives, and for a day; so does one that cannot be read (of
        another emuV).  Files that are no segments are left alone.
        """
        listing = self.scan(stale=True)
        runs = {process.stats.run_id for process in listing.processes if process.alive}
        removed: list[str] = []
        for process in listing.processes:
            if process.alive:
                continue
            age_seconds = time.time() - process.stats.created_ns / 1e9
            if process.keep and (process.stats.run_id in runs or age_seconds < KEEP_SECONDS):
                continue
            if self._remove(Path(process.path).name):
                removed.append(process.path)
        sound = {Path(process.path).name for process in listing.processes}
        for name in self._names()[0]:
            if name.endswith(".run") and _RUN.fullmatch(name[:-4]):
                _segment.sweep_run(self.directory / name)
                continue
            match = _TEMPORARY.fullmatch(name)
            if match is None and name not in sound and self._is_old(name):
                match = _NAME.fullmatch(name)
            if match is None or _segment.start_ticks(int(match[1])) == int(match[2]):
                continue
            if self._remove(name):
                removed.append(str(self.directory / name))
        return tuple(removed)

    # Inside

    def _names(self) -> tuple[list[str], list[SegmentWarning]]:
        """The names in the directory, sorted; checked anew at every look."""
        names: list[str] = []
        if not _segment.check_directory(self.directory):
            return names, []
        try:
            with os.scandir(self.directory) as entries:
                for entry in entries:
                    if len(names) == MAX_ENTRIES:
                        more = f"has more than {MAX_ENTRIES} entries; the rest was not looked at"
                        return sorted(names), [self._warning("", more)]
                    names.append(entry.name)
        except FileNotFoundError:
            return [], []
        except OSError as error:
            raise SegmentError(
                f"segment directory '{self.directory}' cannot be read: {error.strerror}",
                errno=error.errno or 0,
            ) from None
        return sorted(names), []

    def _warning(self, name: str, what: str) -> SegmentWarning:
        path = str(self.directory / name)
        return SegmentWarning(path, f"{path!r} {what}")

    def _read(self, name: str) -> Process:
        path = self.directory / name
        with _segment.View(path) as view:
            snapshot = view.read()
        stats = snapshot.stats
        if name != f"{stats.pid}-{stats.start_ticks}.seg":
            raise SegmentError(
                f"segment '{path}' is of process {stats.pid}, which its name is not of",
                "remove it",
            )
        # The pid of one that wrote its own end may be another's by now, to the tick
        # where it lived in a pid namespace without a /proc of its own.
        alive = snapshot.alive and stats.state != "exited"
        return Process(stats.pid, stats.start_ticks, str(path), alive, snapshot.keep, stats)

    def _is_old(self, name: str) -> bool:
        try:
            changed = os.lstat(self.directory / name).st_mtime
        except OSError:
            return False
        return time.time() - changed >= KEEP_SECONDS

    def _remove(self, name: str) -> bool:
        try:
            os.unlink(self.directory / name)
        except OSError:
            return False
        return True

    def _run_path(self, run_id: str) -> Path:
        if not _RUN.fullmatch(run_id):
            raise SegmentError(f"the run is called {run_id!r}, which names no file")
        return self.directory / f"{run_id}.run"

    def _under_its_run(
        self, process: Process, runs: dict[str, _segment.Control | None]
    ) -> Process:
        """With the budget as it stands in its run's file, where that is shared."""
        run_id = process.stats.run_id
        if not process.stats.shared or not process.alive:
            return process
        if run_id not in runs:
            try:
                with _segment.RunView(self._run_path(run_id)) as view:
                    runs[run_id] = view.read_run().control
            except SegmentError:
                runs[run_id] = None  # removed by hand: what the process last took up is left
        control = runs[run_id]
        if control is None:
            return process
        return dataclasses.replace(process, stats=_changes.with_control(process.stats, control))

    def _change(
        self, pid: int, edit: _changes.Edit, device: int | None, wait_seconds: float
    ) -> BudgetChange:
        _check_seconds("wait_seconds", wait_seconds, least=0.0)
        process = self.get(pid)
        if process.stats.shared:
            return self._change_run(process, edit, device, wait_seconds)
        with _segment.View(process.path, writable=True) as view:

            def look() -> tuple[Stats, _segment.Control]:
                before = view.read()
                if not before.alive:
                    raise Stale(f"process {pid} has ended")
                return before.stats, before.control

            before, new, generation = _write(view, look, edit, device)
            after = _wait_applied(view, generation, wait_seconds)
        return BudgetChange(
            pid,
            generation,
            after.stats.applied_generation >= generation,
            not before.budget_settled,
            _changes.outcome(before, after.stats, new),
        )

    def _change_run(
        self, process: Process, edit: _changes.Edit, device: int | None, wait_seconds: float
    ) -> BudgetChange:
        run_id = process.stats.run_id

        def total() -> Stats:
            found = [p.stats for p in self.scan().processes if p.stats.run_id == run_id]
            members = [stats for stats in found if stats.shared]
            if not members:
                raise Stale(f"run {run_id} has ended")
            return _changes.combined(members)

        with _segment.RunView(self._run_path(run_id), writable=True) as view:

            def look() -> tuple[Stats, _segment.Control]:
                control = view.read_run().control
                return _changes.with_control(total(), control), control

            before, new, generation = _write(view, look, edit, device)
        limit = time.monotonic() + wait_seconds
        while (after := total()).applied_generation < generation and time.monotonic() < limit:
            time.sleep(min(_POLL_SECONDS, max(0.0, limit - time.monotonic())))
        return BudgetChange(
            process.pid,
            generation,
            after.applied_generation >= generation,
            not before.budget_settled,
            _changes.outcome(before, after, new),
            run_id,
        )


def _editor(
    vram: str | int | _Kept | None, virtual: str | int | _Kept | None, policy: Policy | _Kept
) -> _changes.Edit:
    """Leaves alone what is KEPT."""

    def edit(_device: int, old: Budget, card: int | None) -> Budget:
        kept = None if policy == "cap" else old.virtual
        return Budget(
            old.vram if isinstance(vram, _Kept) else vram,
            kept if isinstance(virtual, _Kept) else virtual,
            None if isinstance(policy, _Kept) else policy,
        ).resolved(card)

    return edit


def _write(
    view: _segment.View,
    look: Callable[[], tuple[Stats, _segment.Control]],
    edit: _changes.Edit,
    device: int | None,
) -> tuple[Stats, dict[int, Budget], int]:
    """Writes a change over exactly what it was worked out from.

    (what was there, the new budgets, the generation written.)  Other controllers may
    come between: then what they wrote is what is changed.
    """
    for attempt in range(_CHANGE_TRIES):
        before, old = look()
        new, control = _changes.edited(before, old, edit, device)
        try:
            view.replace_control(control)
        except SegmentError as error:
            if error.errno != errno.ESTALE or attempt == _CHANGE_TRIES - 1:
                raise
            time.sleep(random.uniform(0.0, _COLLISION_SECONDS))
            continue
        # Ours is the next even number; a later one is another controller's.
        return before, new, (old.generation | 1) + 1
    raise AssertionError("not reached")


def _wait_applied(view: _segment.View, generation: int, wait_seconds: float) -> _segment.Snapshot:
    """The state once the process has taken the generation up, or time is out."""
    limit = time.monotonic() + wait_seconds
    while True:
        after = view.read()
        done = after.stats.applied_generation >= generation or not after.alive
        if done or time.monotonic() >= limit:
            return after
        time.sleep(min(_POLL_SECONDS, max(0.0, limit - time.monotonic())))


def _check_seconds(what: str, seconds: float, *, least: float) -> None:
    if not (math.isfinite(seconds) and least <= seconds <= 86400):
        raise EmuvError(f"{what} is {seconds!r}", f"{what} is from {least} to 86400 seconds")
