# SPDX-License-Identifier: GPL-2.0-only
"""Segments, through the compiled accessors: the only importer of ``_native``.

Every file is opened, checked, read and written by csrc/common/emuv_segment_*.c;
this module turns what comes back into plain values and its errors into
:class:`SegmentError`.  ``_native`` is imported at the first use, not before.
"""

from __future__ import annotations

import errno
import functools
import importlib
import os
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

from emuv_shim.budget import ALLOCATIONS, POLICIES
from emuv_shim.errors import SegmentError
from emuv_shim.stats import DeviceStats, Stats

_PATH_BYTES = 4096
_STATES = {1: "running", 2: "exited"}


@functools.cache
def native() -> Any:
    """The compiled module; raises :class:`SegmentError` where it is not built."""
    try:
        return importlib.import_module("emuv_shim._native")
    except ImportError as error:
        raise SegmentError(
            f"emuV's compiled part cannot be loaded: {error}", "build it with: pip install ."
        ) from None


@functools.cache
def function_names() -> tuple[str, ...]:
    """The hooked driver functions, in the order of a segment's call counts."""
    lib, ffi = native().lib, native().ffi
    count = min(int(lib.emuv_function_count()), int(lib.EMUV_MAX_FUNCTIONS))
    return tuple(ffi.string(lib.emuv_function_name(i)).decode() for i in range(count))


def _raise(rc: int, error: Any) -> None:
    """Raises what a C function said; its sentence ends in the hint, if any."""
    text = native().ffi.string(error.text).decode(errors="replace")
    message, separator, hint = text.rpartition("; ")
    raise SegmentError(message if separator else hint, hint if separator else None, errno=-rc)


def locate_directory(*, create: bool = False) -> tuple[Path, bool]:
    """The caller's segment directory, and whether it is there.

    With ``create`` it is made (0700).  Raises :class:`SegmentError` for one that
    is a link, someone else's, or open to others.
    """
    ffi, lib = native().ffi, native().lib
    path, error = ffi.new("char[]", _PATH_BYTES), ffi.new("emuv_error_t *")
    rc = lib.emuv_segment_directory(path, _PATH_BYTES, int(create), error)
    if rc and (rc != -errno.ENOENT or create):
        _raise(rc, error)
    return Path(os.fsdecode(ffi.string(path))), rc == 0


def check_directory(path: Path) -> bool:
    """Whether a directory that the caller named is there.

    Raises :class:`SegmentError` as :func:`locate_directory`; root may look into
    another user's.
    """
    error = native().ffi.new("emuv_error_t *")
    rc = native().lib.emuv_segment_directory_check(os.fsencode(path), error)
    if rc and rc != -errno.ENOENT:
        _raise(rc, error)
    return bool(rc == 0)


def start_ticks(pid: int) -> int:
    """Field 22 of /proc/PID/stat; 0 where there is no such process."""
    if not 0 < pid < 2**31:
        return 0
    return int(native().lib.emuv_start_ticks(pid))


@dataclass(frozen=True)
class Control:
    """The control block as plain values; ``generation`` odd: not settled."""

    generation: int
    policy: int
    allocation: int
    budgets: tuple[tuple[int, int], ...]  # (vram, virtual) bytes, raw, by device


@dataclass(frozen=True)
class Snapshot:
    """One consistent reading of a segment."""

    stats: Stats
    control: Control
    alive: bool
    keep: bool  # the launcher removes the file


def _control(raw: Any) -> Control:
    return Control(
        int(raw.generation),
        int(raw.policy),
        int(raw.allocation),
        tuple((int(b.vram_bytes), int(b.virtual_bytes)) for b in raw.budget),
    )


class View:
    """An open segment; a context manager.  Not for use by two threads at once."""

    def __init__(self, path: Path | str, *, writable: bool = False) -> None:
        self._lib, self._ffi = native().lib, native().ffi
        self._error = self._ffi.new("emuv_error_t *")
        self._open, self._copy = self._of_its_kind()
        self._view = self._ffi.NULL
        made = self._ffi.new("emuv_segment_view_t **")
        rc = self._open(os.fsencode(path), int(writable), made, self._error)
        if rc:
            _raise(rc, self._error)
        self._view = made[0]

    def _of_its_kind(self) -> tuple[Any, Any]:
        """How it is opened, and what it is copied to."""
        return self._lib.emuv_segment_open, self._ffi.new("emuv_segment_t *")

    def __enter__(self) -> View:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        value: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Closes the file; twice is harmless."""
        view, self._view = self._view, self._ffi.NULL
        self._lib.emuv_segment_close(view)

    def read(self) -> Snapshot:
        """A consistent copy; see `counters_settled` for the one that is not."""
        if self._view == self._ffi.NULL:
            raise SegmentError("the segment is closed")
        rc = self._lib.emuv_segment_snapshot(self._view, self._copy, self._error)
        if rc and rc != -errno.EAGAIN:
            _raise(rc, self._error)
        raw = self._copy
        alive = bool(self._lib.emuv_segment_alive(raw))
        return Snapshot(self._stats(raw), _control(raw.control), alive, bool(raw.keep))

    def replace_control(self, control: Control, *, force: bool = False) -> None:
        """Writes a control block over the one of ``control.generation``.

        Raises :class:`SegmentError` with ESTALE where another controller came
        first; ``force`` writes whatever is there.  Waits at most
        ``EMUV_CONTROL_WAIT_MS`` for a controller that is writing.
        """
        if self._view == self._ffi.NULL:
            raise SegmentError("the segment is closed")
        raw = self._ffi.new("emuv_control_t *")
        raw.generation, raw.policy = control.generation, control.policy
        raw.allocation = control.allocation
        for i, (vram, virtual) in enumerate(control.budgets):
            raw.budget[i].vram_bytes, raw.budget[i].virtual_bytes = vram, virtual
        write = (
            self._lib.emuv_segment_set_control if force else self._lib.emuv_segment_replace_control
        )
        rc = write(self._view, raw, self._error)
        if rc:
            _raise(rc, self._error)

    def _text(self, field: Any) -> str:
        """Text from a stranger, fit for a terminal."""
        text: str = self._ffi.string(field).decode(errors="replace")
        return "".join(c if c.isprintable() else "\ufffd" for c in text)  # U+FFFD: unknown

    def _stats(self, raw: Any) -> Stats:
        control = raw.control
        return Stats(
            pid=int(raw.pid),
            uid=int(raw.uid),
            start_ticks=int(raw.start_ticks),
            created_ns=int(raw.created_ns),
            state=_STATES.get(raw.state, "unknown"),
            name=self._text(raw.name),
            run_id=self._text(raw.run_id),
            command=self._text(raw.command),
            emuv_version=self._text(raw.emuv_version),
            is_simulated=bool(raw.is_sim),
            driver_version=int(raw.driver_version),
            policy=word(POLICIES, control.policy),
            allocation=word(ALLOCATIONS, control.allocation),
            generation=int(control.generation),
            applied_generation=int(raw.applied_generation),
            budget_settled=control.generation % 2 == 0,
            counters_settled=raw.counters_seq % 2 == 0,
            shared=bool(raw.n_devices and raw.device[0].flags & self._lib.EMUV_DEVICE_SHARED),
            devices=tuple(self._device(raw, i) for i in range(raw.n_devices)),
        )

    def _device(self, raw: Any, i: int) -> DeviceStats:
        lib, row, budget = self._lib, raw.device[i], raw.control.budget[i]
        seen = bool(row.flags & lib.EMUV_DEVICE_SEEN)
        known = bool(row.flags & lib.EMUV_DEVICE_OVERHEAD_KNOWN)
        names = function_names()
        if raw.n_functions != len(names):  # another build: its rows have other names
            names = tuple(f"function {n}" for n in range(raw.n_functions))
        calls = {name: int(row.calls[n]) for n, name in enumerate(names) if row.calls[n]}
        # Managed memory of the program's own moves as the driver likes.
        moves = any(name.startswith("cuMemAllocManaged") for name in calls)
        return DeviceStats(
            device=i,
            seen=seen,
            card_bytes=int(row.card_bytes) or None,
            vram_bytes=None if budget.vram_bytes == lib.EMUV_UNLIMITED else int(budget.vram_bytes),
            virtual_bytes=int(budget.virtual_bytes),
            device_bytes=int(row.device_bytes),
            managed_bytes=int(row.managed_bytes),
            promoted_bytes=int(row.resident_bytes),
            resident_bytes=int(row.resident_bytes) if seen and not moves else None,
            overhead_bytes=int(row.overhead_bytes) if known else None,
            overhead_is_upper_bound=bool(row.flags & lib.EMUV_DEVICE_OVERHEAD_UPPER),
            peak_physical_bytes=int(row.peak_physical_bytes),
            peak_used_bytes=int(row.peak_used_bytes),
            live_allocations=int(row.live_allocations),
            spills=int(row.spills),
            spilled_bytes=int(row.spilled_bytes),
            driver_oom_spills=int(row.driver_oom_spills),
            denials=int(row.denials),
            denied_bytes=int(row.denied_bytes),
            advised_bytes=int(row.advised_bytes),
            prefetch_device_bytes=int(row.prefetch_device_bytes),
            prefetch_host_bytes=int(row.prefetch_host_bytes),
            uncounted_calls=int(row.uncounted_calls),
            calls=calls,
            kept_bytes=int(row.kept_bytes),
            graph_bytes=int(row.graph_bytes),
            imported_bytes=int(row.imported_bytes),
            pinned_bytes=int(row.pinned_bytes),
            clipped_calls=int(row.clipped_calls),
            clipped_bytes=int(row.clipped_bytes),
            movable_bytes=int(row.movable_bytes),
            others_physical_bytes=int(row.others_physical_bytes),
            others_used_bytes=int(row.others_used_bytes),
            pci_bus_id=_bus_id(int(row.pci)),
        )


@dataclass(frozen=True)
class Slot:
    """One process in a shared run's ledger; raw, for tests and the curious."""

    index: int
    owner: int
    joining: bool
    held: tuple[tuple[int, int], ...]  # (physical, used) by column
    claimed: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class RunSnapshot:
    """One reading of a shared run's file; each slot is of a moment of its own."""

    run_id: str
    name: str
    control: Control
    cards: tuple[int, ...]  # by column
    slots: tuple[Slot, ...]


class RunView(View):
    """An open file of a shared run (csrc/common/emuv_shared.h)."""

    def _of_its_kind(self) -> tuple[Any, Any]:
        return self._lib.emuv_shared_open, self._ffi.new("emuv_shared_t *")

    def __enter__(self) -> RunView:
        return self

    def read(self) -> Snapshot:
        """Not of a run: see :meth:`read_run`."""
        raise SegmentError("this is the file of a run, not of a process")

    def read_run(self, *, slots: bool = False) -> RunSnapshot:
        """The control block, consistent; with ``slots`` what each process holds."""
        if self._view == self._ffi.NULL:
            raise SegmentError("the file is closed")
        rc = self._lib.emuv_shared_snapshot(self._view, self._copy, self._error)
        if rc:
            _raise(rc, self._error)
        raw, joining = self._copy, int(self._lib.EMUV_OWNER_JOINING)
        cards = tuple(int(card) for card in raw.card if card)
        found = []
        for i in range(min(int(raw.high), int(self._lib.EMUV_SHARED_SLOTS)) if slots else 0):
            owner, rows = int(raw.owner[i]), raw.row[i]
            if owner:
                columns = [rows[column] for column in range(len(cards))]
                held = tuple((int(c.held_physical), int(c.held_used)) for c in columns)
                claimed = tuple((int(c.claimed_physical), int(c.claimed_used)) for c in columns)
                found.append(Slot(i, owner, owner >= joining, held, claimed))
        return RunSnapshot(
            self._text(raw.run_id), self._text(raw.name), _control(raw.control), cards, tuple(found)
        )


def make_run(directory: Path | str, run_id: str, name: str, control: Control) -> None:
    """Makes the file of a shared run, led by this process, unless it is there."""
    ffi, lib = native().ffi, native().lib
    start, error = ffi.new("emuv_shared_start_t *"), ffi.new("emuv_error_t *")
    start.run_id, start.name = run_id.encode(), name.encode()
    start.control.policy, start.control.allocation = control.policy, control.allocation
    for i, (vram, virtual) in enumerate(control.budgets):
        start.control.budget[i].vram_bytes, start.control.budget[i].virtual_bytes = vram, virtual
    rc = lib.emuv_shared_make(os.fsencode(directory), start, error)
    if rc:
        _raise(rc, error)


def sweep_run(path: Path | str) -> bool:
    """Removes the file of a shared run that nobody uses any more; whether it did."""
    error = native().ffi.new("emuv_error_t *")
    return bool(native().lib.emuv_shared_sweep(os.fsencode(path), error) == 1)


def _bus_id(packed: int) -> str | None:
    """0000:01:00.0, from emuv_device_counters_t.pci."""
    if not packed:
        return None
    at = packed - 1
    return f"{at >> 16:04x}:{at >> 8 & 0xFF:02x}:{at >> 3 & 0x1F:02x}.{at & 7}"


def word(words: tuple[str, ...], index: int) -> str:
    """The name of an enumeration's value."""
    return words[index] if index < len(words) else "unknown"
