# SPDX-License-Identifier: GPL-2.0-only
"""Changes of budgets, as plain values: what is to be written, and what came of it.

Nothing here opens a file; :mod:`emuv_shim.controller` does.  The processes of a
shared run are looked at as one: `combined` adds up their rows, card by card.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from emuv_shim import _segment
from emuv_shim._sizes import format_size
from emuv_shim.budget import POLICIES, Budget
from emuv_shim.errors import BudgetTooSmall, EmuvError
from emuv_shim.stats import DeviceStats, Stats

Edit = Callable[[int, Budget, "int | None"], Budget]  # device, old, card bytes -> new


@dataclass(frozen=True)
class DeviceChange:
    """One device's budget before and after, and what it did not bring back.

    ``demotable_bytes`` is what emuV may move to the host to get under the new
    vram: the part of the promoted bytes, and of the program's own managed
    memory, that lies above it.
    ``unreclaimed_bytes`` is what lies above the new vram even then, in plain
    device memory and contexts: only the program can free that.  With
    ``physical = device + promoted + overhead + graph + kept`` and ``over = max(0,
    physical − vram)``: ``demotable = min(over, promoted + movable)``, ``unreclaimed =
    over − demotable``.  Both are 0 without a limit, and both are of the moment at
    which the change had been written (and taken up, where that was waited for).
    Of a shared run they are sums over its processes.
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
    """The outcome of a change: what was written, and whether it is in force.

    ``pid`` is the process that was asked for, or the first of its run;
    ``run_id`` is set where the budget is that of a shared run.
    """

    pid: int
    generation: int
    applied: bool  # the process has taken it up (all of a shared run's); it does at its next call
    repaired: bool  # an earlier controller had been killed while it wrote
    devices: tuple[DeviceChange, ...]
    run_id: str | None = None

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
            "run_id": self.run_id,
            "generation": self.generation,
            "applied": self.applied,
            "repaired": self.repaired,
            "devices": [change.to_json() for change in self.devices],
        }


def row_of(stats: Stats, device: int) -> DeviceStats:
    """One device's row; raises :class:`EmuvError` where the process has no such device."""
    if isinstance(device, bool) or not 0 <= device < len(stats.devices):
        raise EmuvError(
            f"process {stats.pid} has no device {device}",
            f"it sees {len(stats.devices)} device(s), counted from 0",
        )
    return stats.devices[device]


def with_control(stats: Stats, control: _segment.Control) -> Stats:
    """``stats`` under the budget that a run's own control block says."""
    rows = zip(stats.devices, control.budgets, strict=False)
    unlimited = _segment.native().lib.EMUV_UNLIMITED
    return dataclasses.replace(
        stats,
        policy=_segment.word(POLICIES, control.policy),
        generation=control.generation,
        budget_settled=control.generation % 2 == 0,
        devices=tuple(
            dataclasses.replace(
                row, vram_bytes=None if vram == unlimited else vram, virtual_bytes=virtual
            )
            for row, (vram, virtual) in rows
        ),
    )


_SUMMED = (
    "device_bytes",
    "managed_bytes",
    "promoted_bytes",
    "movable_bytes",
    "graph_bytes",
    "kept_bytes",
    "live_allocations",
    "denials",
    "spills",
)


def combined(members: Sequence[Stats]) -> Stats:
    """The processes of a shared run as one: the rows of each card added up.

    The devices are those of the process that sees the most of them, by its ordinals.
    """
    first = max(members, key=lambda stats: len(stats.devices))
    rows = []
    for row in first.devices:
        same = [
            other
            for stats in members
            for other in stats.devices
            if (other.pci_bus_id, other.device if other.pci_bus_id is None else 0)
            == (row.pci_bus_id, row.device if row.pci_bus_id is None else 0)
        ]
        overheads = [other.overhead_bytes for other in same if other.overhead_bytes is not None]
        sums: dict[str, Any] = {
            name: sum(getattr(other, name) for other in same) for name in _SUMMED
        }
        rows.append(
            dataclasses.replace(
                row,
                seen=any(other.seen for other in same),
                overhead_bytes=sum(overheads) if overheads else None,
                overhead_is_upper_bound=any(other.overhead_is_upper_bound for other in same),
                others_physical_bytes=0,
                others_used_bytes=0,
                **sums,
            )
        )
    applied = min(stats.applied_generation for stats in members)
    return dataclasses.replace(first, applied_generation=applied, devices=tuple(rows))


def edited(
    stats: Stats, old: _segment.Control, edit: Edit, device: int | None
) -> tuple[dict[int, Budget], _segment.Control]:
    """The new budgets by device, and the control block that holds them."""
    budgets = [*old.budgets]
    if not stats.devices:
        raise EmuvError(f"process {stats.pid} sees no device", "there is nothing to budget")
    if device is not None:
        row_of(stats, device)
    new: dict[int, Budget] = {}
    for row in stats.devices:
        if device not in (None, row.device):
            continue
        found = Budget._as_found(row.vram_bytes, row.virtual_bytes, stats.policy)
        budget = edit(row.device, found, row.card_bytes)
        vram = budget.vram_bytes
        overhead = 0 if row.overhead_is_upper_bound else row.overhead_bytes or 0
        if vram is not None and vram < overhead:
            whose = f"run {stats.run_id}" if stats.shared else f"process {stats.pid}"
            raise BudgetTooSmall(
                f"a vram of {format_size(vram)} is less than what the contexts of {whose} "
                f"take on device {row.device}, {format_size(overhead)}",
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


def outcome(before: Stats, after: Stats, new: dict[int, Budget]) -> tuple[DeviceChange, ...]:
    """What the new budgets, by device, came to."""
    changes = []
    for device, budget in new.items():
        row, was = after.devices[device], before.devices[device]
        old = Budget._as_found(was.vram_bytes, was.virtual_bytes, before.policy)
        vram = budget.vram_bytes
        over = 0 if vram is None else max(0, row.physical_bytes - vram)
        demotable = min(over, row.promoted_bytes + row.movable_bytes)
        changes.append(
            DeviceChange(device, old, budget, row.physical_bytes, demotable, over - demotable)
        )
    return tuple(changes)


def _budget_json(budget: Budget) -> dict[str, Any]:
    return {
        "vram_bytes": budget.vram_bytes,
        "virtual_bytes": budget.virtual_bytes,
        "visible_bytes": budget.visible_bytes,
        "policy": budget.policy,
    }
