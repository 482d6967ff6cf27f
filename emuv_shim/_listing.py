# SPDX-License-Identifier: GPL-2.0-only
"""What a directory of segments holds, as plain values: processes, runs, what was skipped.

Nothing here opens a file; :mod:`emuv_shim.controller` does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from emuv_shim import _changes
from emuv_shim.budget import Budget
from emuv_shim.stats import Stats


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
        row = _changes.row_of(self.stats, device)
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
class Run:
    """The living processes of one `emuv-run`; ``shared``: under one budget."""

    run_id: str
    name: str
    shared: bool
    processes: tuple[Process, ...]

    @property
    def total(self) -> Stats:
        """Its processes as one: the rows of each card added up."""
        return _changes.combined([process.stats for process in self.processes])

    def to_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`; see schemas/ps.schema.json."""
        total = self.total
        return {
            "run_id": self.run_id,
            "name": self.name,
            "shared": self.shared,
            "pids": [process.pid for process in self.processes],
            "devices": [
                {
                    "device": row.device,
                    "pci_bus_id": row.pci_bus_id,
                    "vram_bytes": row.vram_bytes,
                    "virtual_bytes": row.virtual_bytes,
                    "used_bytes": row.used_bytes,
                    "physical_bytes": row.physical_bytes,
                }
                for row in total.devices
            ],
        }


@dataclass(frozen=True)
class Listing:
    """What a directory holds: sound segments by pid, and what was skipped."""

    directory: str
    processes: tuple[Process, ...]
    warnings: tuple[SegmentWarning, ...]
    removed: tuple[str, ...] = ()

    @property
    def runs(self) -> tuple[Run, ...]:
        """Its living processes by run, in the order of their first processes."""
        by_id: dict[str, list[Process]] = {}
        for process in self.processes:
            if process.alive and process.stats.run_id:
                by_id.setdefault(process.stats.run_id, []).append(process)
        return tuple(
            Run(
                run_id,
                members[0].stats.name,
                any(member.stats.shared for member in members),
                tuple(members),
            )
            for run_id, members in by_id.items()
        )

    def to_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`; see schemas/ps.schema.json."""
        return {
            "schema": 1,
            "directory": self.directory,
            "processes": [process.to_json() for process in self.processes],
            "runs": [run.to_json() for run in self.runs if run.shared],
            "warnings": [warning.to_json() for warning in self.warnings],
            "removed": list(self.removed),
        }
