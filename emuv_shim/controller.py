# SPDX-License-Identifier: GPL-2.0-only
"""Watching the processes that run under emuV, and changing their budgets.

A controller only reads and writes segment files; it needs no daemon and talks
to no process.  What it finds in the directory is data from strangers: a file
that is no sound segment is skipped with a :class:`SegmentWarning`, and no pid
from a file is ever signalled.  Every wait has a limit.

Processes are keyed by their pid, as the controller's pid namespace has it: a
process in a container that shares the directory but not the pids looks dead.
"""

from __future__ import annotations

import errno
import math
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Literal

from emuv_shim import _segment
from emuv_shim._sizes import format_size
from emuv_shim.budget import POLICIES, Budget, Policy
from emuv_shim.errors import BudgetTooSmall, EmuvError, NotAttached, SegmentError, Stale
from emuv_shim.stats import Stats

MAX_ENTRIES = 4096  # of a directory; more than that is not looked at
KEEP_SECONDS = 24 * 3600  # how long a dead process's segment waits for its launcher
_CHANGE_TRIES = 50
_POLL_SECONDS = 0.01
_NAME = re.compile(r"([1-9][0-9]{0,9})-([1-9][0-9]{0,19})\.seg")
_TEMPORARY = re.compile(r"\.new-" + _NAME.pattern)


class _Kept:
    """The type of :data:`KEPT`."""

    def __repr__(self) -> str:
        return "KEPT"


KEPT: Final = _Kept()  # for update_budget: leave this field as it is


@dataclass(frozen=True)
class SegmentWarning:
    """A file that was skipped, and why."""

    path: str
    message: str
    hint: str | None = None

    def to_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`."""
        return {"path": self.path, "message": self.message, "hint": self.hint}


@dataclass(frozen=True)
class Process:
    """One process under emuV, as its segment was when it was read."""

    pid: int
    start_ticks: int
    path: str
    alive: bool
    keep: bool  # its launcher collects the segment
    stats: Stats

    def budget(self, device: int = 0) -> Budget:
        """The budget of one of its devices, as it stands in the segment."""
        row = _row(self.stats, device)
        return Budget._as_found(row.vram_bytes, row.virtual_bytes, self.stats.policy)

    def to_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`; see schemas/ps.schema.json."""
        return {
            "pid": self.pid,
            "start_ticks": self.start_ticks,
            "path": self.path,
            "alive": self.alive,
            "stats": self.stats.to_json(),
        }


@dataclass(frozen=True)
class Listing:
    """What a directory holds: sound segments by pid, and what was skipped."""

    directory: str
    processes: tuple[Process, ...]
    warnings: tuple[SegmentWarning, ...]
    removed: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`; see schemas/ps.schema.json."""
        return {
            "schema": 1,
            "directory": self.directory,
            "processes": [process.to_json() for process in self.processes],
            "warnings": [warning.to_json() for warning in self.warnings],
            "removed": list(self.removed),
        }


@dataclass(frozen=True)
class DeviceChange:
    """One device's budget before and after, and what it did not bring back.

    ``demotable_bytes`` is what emuV may move to the host to get under the new
    vram: the part of the promoted bytes, and of the program's own managed
    memory, that lies above it.
    ``unreclaimed_bytes`` is what lies above the new vram even then, in plain
    device memory and contexts: only the program can free that.  With
    ``physical = device + promoted + overhead`` and ``over = max(0, physical −
    vram)``: ``demotable = min(over, promoted + movable)``, ``unreclaimed =
    over − demotable``.  Both are 0 without a limit, and both are of the moment at
    which the change had been written (and taken up, where that was waited for).
    """

    device: int
    old: Budget
    new: Budget
    physical_bytes: int
    demotable_bytes: int
    unreclaimed_bytes: int

    def to_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`."""
        return {
            "device": self.device,
            "old": _budget_json(self.old),
            "new": _budget_json(self.new),
            "physical_bytes": self.physical_bytes,
            "demotable_bytes": self.demotable_bytes,
            "unreclaimed_bytes": self.unreclaimed_bytes,
        }


@dataclass(frozen=True)
class BudgetChange:
    """The outcome of a change: what was written, and whether it is in force."""

    pid: int
    generation: int
    applied: bool  # the process has taken it up; it does at its next allocation
    repaired: bool  # an earlier controller had been killed while it wrote
    devices: tuple[DeviceChange, ...]

    @property
    def old(self) -> dict[int, Budget]:
        """The budgets before, by device."""
        return {change.device: change.old for change in self.devices}

    @property
    def new(self) -> dict[int, Budget]:
        """The budgets now, by device."""
        return {change.device: change.new for change in self.devices}

    @property
    def unreclaimed_bytes(self) -> dict[int, int]:
        """See :class:`DeviceChange`; by device."""
        return {change.device: change.unreclaimed_bytes for change in self.devices}

    def to_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`."""
        return {
            "schema": 1,
            "pid": self.pid,
            "generation": self.generation,
            "applied": self.applied,
            "repaired": self.repaired,
            "devices": [change.to_json() for change in self.devices],
        }


_Edit = Callable[[int, Budget, "int | None"], Budget]  # device, old, card bytes -> new


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
        for name in names:
            match = _NAME.fullmatch(name)
            if match is None:
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
                processes.append(process)
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
            "it was not started by emuv-run, or has not used CUDA yet",
        )

    def stats(self, pid: int) -> Stats:
        """The statistics of one living process; raises as :meth:`get`."""
        return self.get(pid).stats

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

        def edit(_device: int, old: Budget, card: int | None) -> Budget:
            kept = None if policy == "cap" else old.virtual
            return Budget(
                old.vram if isinstance(vram, _Kept) else vram,
                kept if isinstance(virtual, _Kept) else virtual,
                None if isinstance(policy, _Kept) else policy,
            ).resolved(card)

        return self._change(pid, edit, device, wait_seconds)

    # Collecting

    def clean(self) -> tuple[str, ...]:
        """Removes the segments of dead processes; returns their paths.

        One whose launcher wants to collect it (``--stats``) stays while another
        process of its run lives, and for a day.  Files that are no segments are
        left alone.
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
        for name in self._names()[0]:
            match = _TEMPORARY.fullmatch(name)
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

    def _remove(self, name: str) -> bool:
        try:
            os.unlink(self.directory / name)
        except OSError:
            return False
        return True

    def _change(
        self, pid: int, edit: _Edit, device: int | None, wait_seconds: float
    ) -> BudgetChange:
        _check_seconds("wait_seconds", wait_seconds, least=0.0)
        process = self.get(pid)
        with _segment.View(process.path, writable=True) as view:
            for attempt in range(_CHANGE_TRIES):
                before = view.read()
                if not before.alive:
                    raise Stale(f"process {pid} has ended")
                new, control = _edited(before, edit, device)
                try:
                    view.replace_control(control)
                except SegmentError as error:
                    last = attempt == _CHANGE_TRIES - 1
                    if error.errno != errno.ESTALE or last:
                        raise
                    time.sleep(_POLL_SECONDS)
                    continue
                break
            # Ours is the next even number; a later one is another controller's.
            generation = (before.control.generation | 1) + 1
            after = _wait_applied(view, generation, wait_seconds)
        stats = after.stats
        return BudgetChange(
            pid,
            generation,
            stats.applied_generation >= generation,
            not before.stats.budget_settled,
            tuple(_outcome(before.stats, stats, i, budget) for i, budget in new.items()),
        )


def _edited(
    before: _segment.Snapshot, edit: _Edit, device: int | None
) -> tuple[dict[int, Budget], _segment.Control]:
    """The new budgets by device, and the control block that holds them."""
    stats, old = before.stats, before.control
    budgets = [*old.budgets]
    if not stats.devices:
        raise EmuvError(f"process {stats.pid} sees no device", "there is nothing to budget")
    if device is not None:
        _row(stats, device)
    new: dict[int, Budget] = {}
    for row in stats.devices:
        if device not in (None, row.device):
            continue
        found = Budget._as_found(row.vram_bytes, row.virtual_bytes, stats.policy)
        budget = edit(row.device, found, row.card_bytes)
        vram = budget.vram_bytes
        overhead = 0 if row.overhead_is_upper_bound else row.overhead_bytes or 0
        if vram is not None and vram < overhead:
            raise BudgetTooSmall(
                f"a vram of {format_size(vram)} is less than what the contexts of process "
                f"{stats.pid} take on device {row.device}, {format_size(overhead)}",
                f"give at least {format_size(overhead)}",
                vram_bytes=vram,
                overhead_bytes=overhead,
            )
        new[row.device] = budget
        unlimited = _segment.native().lib.EMUV_UNLIMITED
        budgets[row.device] = (unlimited if vram is None else vram, budget.virtual_bytes)
    spills = any(virtual for _, virtual in budgets[: len(stats.devices)])
    policy: Literal["cap", "spill"] = "spill" if spills else "cap"
    allocation = old.allocation if stats.allocation != "unknown" else 0
    control = _segment.Control(old.generation, POLICIES.index(policy), allocation, tuple(budgets))
    return new, control


def _wait_applied(view: _segment.View, generation: int, wait_seconds: float) -> _segment.Snapshot:
    """The state once the process has taken the generation up, or time is out."""
    limit = time.monotonic() + wait_seconds
    while True:
        after = view.read()
        done = after.stats.applied_generation >= generation or not after.alive
        if done or time.monotonic() >= limit:
            return after
        time.sleep(min(_POLL_SECONDS, max(0.0, limit - time.monotonic())))


def _outcome(before: Stats, after: Stats, device: int, new: Budget) -> DeviceChange:
    row, was = after.devices[device], before.devices[device]
    old = Budget._as_found(was.vram_bytes, was.virtual_bytes, before.policy)
    vram = new.vram_bytes
    over = 0 if vram is None else max(0, row.physical_bytes - vram)
    demotable = min(over, row.promoted_bytes + row.movable_bytes)
    return DeviceChange(device, old, new, row.physical_bytes, demotable, over - demotable)


def _row(stats: Stats, device: int) -> Any:
    if isinstance(device, bool) or not 0 <= device < len(stats.devices):
        raise EmuvError(
            f"process {stats.pid} has no device {device}",
            f"it sees {len(stats.devices)} device(s), counted from 0",
        )
    return stats.devices[device]


def _budget_json(budget: Budget) -> dict[str, Any]:
    return {
        "vram_bytes": budget.vram_bytes,
        "virtual_bytes": budget.virtual_bytes,
        "visible_bytes": budget.visible_bytes,
        "policy": budget.policy,
    }


def _check_seconds(what: str, seconds: float, *, least: float) -> None:
    if not (math.isfinite(seconds) and least <= seconds <= 86400):
        raise EmuvError(f"{what} is {seconds!r}", f"{what} is from {least} to 86400 seconds")
