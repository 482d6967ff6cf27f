# SPDX-License-Identifier: GPL-2.0-only
"""What a process under emuV did and does, device by device.

Plain frozen values: made from a segment by :mod:`emuv_shim._segment`, or read
back from a file that ``to_json`` wrote.  All sizes are bytes.  The JSON form is
published in ``schemas/stats.schema.json``; readers ignore keys that they do not
know, so that fields can be added within schema 1.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from emuv_shim.errors import StatsFileError

SCHEMA = 1
_MAX = 2**64 - 1


@dataclass(frozen=True)
class DeviceStats:
    """One device as one process sees it; ``device`` is the process's ordinal.

    ``None`` is "not known", except in ``vram_bytes``, where it is "no limit".
    """

    device: int
    seen: bool  # the process has asked about the device
    card_bytes: int | None  # the card's own memory
    vram_bytes: int | None  # physical budget
    virtual_bytes: int  # budget beyond it, in host memory
    device_bytes: int  # charged, in plain device memory
    managed_bytes: int  # charged, in managed memory (spilled), whole ranges
    promoted_bytes: int  # of managed_bytes: what emuV moved to the device
    resident_bytes: int | None  # the same, where nothing else moves managed memory
    overhead_bytes: int | None  # contexts and modules
    overhead_is_upper_bound: bool
    peak_physical_bytes: int  # most of physical_bytes
    peak_used_bytes: int  # most of used_bytes
    live_allocations: int
    spills: int  # allocations placed in managed memory, ever
    spilled_bytes: int
    driver_oom_spills: int  # of spills: the card itself was full
    denials: int  # allocations that emuV refused
    denied_bytes: int
    advised_bytes: int  # hints issued: bytes of cuMemAdvise
    prefetch_device_bytes: int  # hints issued: bytes of prefetches to the device
    prefetch_host_bytes: int  # hints issued: bytes of prefetches to the host
    uncounted_calls: int  # allocations that emuV could not charge
    calls: Mapping[str, int]  # by driver function; only those called
    kept_bytes: int = 0  # freed into memory pools, which keep them on the device
    graph_bytes: int = 0  # reserved on the device for the memory nodes of graphs
    imported_bytes: int = 0  # opened from other processes and APIs; charged to their owners
    pinned_bytes: int = 0  # pinned or registered host memory; not GPU memory
    clipped_calls: int = 0  # the program's own hints that would have broken the budget
    clipped_bytes: int = 0  # of those: the bytes that were left where they are
    movable_bytes: int = 0  # of device_bytes: the program's own managed memory
    others_physical_bytes: int = 0  # held by the others of a shared run, as last seen
    others_used_bytes: int = 0
    pci_bus_id: str | None = None  # where the card sits: 0000:01:00.0

    @property
    def used_bytes(self) -> int:
        """What the budget counts: device + managed + overhead + graph."""
        return (
            self.device_bytes
            + self.managed_bytes
            + (self.overhead_bytes or 0)
            + self.graph_bytes
        )

    @property
    def physical_bytes(self) -> int:
        """What is held on the card, by emuV's arithmetic."""
        return (
            self.device_bytes
            + self.promoted_bytes
            + (self.overhead_bytes or 0)
            + self.graph_bytes
            + self.kept_bytes
        )

    @property
    def host_bytes(self) -> int:
        """What is held in host memory.  A range that is freed while its head leaves the
        device is off one count before the other: never negative."""
        return max(0, self.managed_bytes - self.promoted_bytes)

    @property
    def visible_bytes(self) -> int | None:
        """What the program is told the device has; ``None``: what it really has."""
        return None if self.vram_bytes is None else self.vram_bytes + self.virtual_bytes

    @property
    def free_bytes(self) -> int | None:
        """What the program is told is free; ``None`` without a limit."""
        visible = self.visible_bytes
        if visible is None:
            return None
        return max(0, visible - self.used_bytes - self.others_used_bytes)

    @property
    def hint_bytes(self) -> int:
        """Bytes of all hints issued: advice and prefetches both ways."""
        return self.advised_bytes + self.prefetch_device_bytes + self.prefetch_host_bytes

    def to_json(self) -> dict[str, Any]:
        """All fields and the derived figures, for :func:`json.dumps`."""
        row: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        row["calls"] = dict(self.calls)
        for derived in (
            "used_bytes",
            "physical_bytes",
            "visible_bytes",
            "free_bytes",
            "hint_bytes",
        ):
            row[derived] = getattr(self, derived)
        return row

    @classmethod
    def from_json(cls, data: object, where: str = "device") -> DeviceStats:
        """The inverse of :meth:`to_json`; raises :class:`StatsFileError`."""
        row = _object(data, where)
        values = {name: check(row, name, where) for name, check in _DEVICE_FIELDS.items()}
        return cls(**values)


@dataclass(frozen=True)
class Stats:
    """One process: who it is, its policy, and a row a device."""

    pid: int
    uid: int
    start_ticks: int  # /proc/PID/stat field 22: clock ticks since boot
    created_ns: int  # since the epoch
    state: str  # "running", "exited", or "unknown"
    name: str
    run_id: str
    command: str
    emuv_version: str
    is_simulated: bool  # the driver is emuV's simulated GPU
    driver_version: int  # 13000 is CUDA 13.0
    policy: str  # "cap", "spill", or "unknown"
    allocation: str  # "lazy", "eager", or "unknown"
    generation: int  # of the budget as written
    applied_generation: int  # ... and as last taken up by the process
    budget_settled: bool  # false: a controller was killed while it wrote
    counters_settled: bool  # false: figures of several moments (killed, or too fast to read)
    devices: tuple[DeviceStats, ...]
    shared: bool = False  # the budget is the whole run's

    def to_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`; see schemas/stats.schema.json."""
        head = {f.name: getattr(self, f.name) for f in fields(self) if f.name != "devices"}
        return {"schema": SCHEMA, **head, "devices": [row.to_json() for row in self.devices]}

    @classmethod
    def from_json(cls, data: object) -> Stats:
        """From text, bytes or parsed JSON; raises :class:`StatsFileError`."""
        row = _object(_parsed(data), "the file")
        _check_schema(row)
        values = {name: check(row, name, "the process") for name, check in _STATS_FIELDS.items()}
        rows = row.get("devices")
        if not isinstance(rows, list):
            raise StatsFileError("statistics: 'devices' is no list", _HINT)
        devices = tuple(DeviceStats.from_json(item, f"device {i}") for i, item in enumerate(rows))
        return cls(**values, devices=devices)


def stats_to_json(processes: Iterable[Stats]) -> dict[str, Any]:
    """The processes of one run as one JSON value: what ``--stats FILE`` holds."""
    return {"schema": SCHEMA, "processes": [stats.to_json() for stats in processes]}


def stats_from_json(data: object) -> tuple[Stats, ...]:
    """From what :func:`stats_to_json` or :meth:`Stats.to_json` made."""
    row = _object(_parsed(data), "the file")
    if "processes" not in row:
        return (Stats.from_json(row),)
    _check_schema(row)
    if not isinstance(row["processes"], list):
        raise StatsFileError("statistics: 'processes' is no list", _HINT)
    return tuple(Stats.from_json(item) for item in row["processes"])


def run_from_json(data: object) -> dict[str, Any] | None:
    """What ``emuv-run --stats`` says of the run itself; None where ``data`` is of no run."""
    row = _object(_parsed(data), "the file")
    if row.get("run") is None:
        return None
    run = dict(_object(row["run"], "'run'"))
    for name, check in _RUN_FIELDS.items():
        check(run, name, "'run'")
    return run


_HINT = "give a file that emuv-run --stats or emuv stats --json wrote"
_Check = Callable[[Mapping[str, Any], str, str], Any]
_T = TypeVar("_T")


def _parsed(data: object) -> object:
    if not isinstance(data, (str, bytes, bytearray)):
        return data
    try:
        return json.loads(data)
    except (ValueError, RecursionError) as error:
        raise StatsFileError(f"statistics are not JSON: {error}", _HINT) from None


def _object(data: object, where: str) -> Mapping[str, Any]:
    if not isinstance(data, Mapping):
        raise StatsFileError(f"statistics: {where} is no JSON object", _HINT)
    return cast(Mapping[str, Any], data)


def _check_schema(row: Mapping[str, Any]) -> None:
    schema = row.get("schema")
    if schema != SCHEMA or isinstance(schema, bool):
        raise StatsFileError(
            f"statistics have schema {schema!r}, and this emuV reads {SCHEMA}", _HINT
        )


def _field(kind: type[_T], *, optional: bool = False) -> _Check:
    """A checker for one field of a JSON object; integers are 0 to 2**64 - 1."""

    def check(row: Mapping[str, Any], name: str, where: str) -> _T | None:
        value = row.get(name, _field)
        if value is None and optional:
            return None
        sound = type(value) is kind and (kind is not int or 0 <= cast(int, value) <= _MAX)
        if not sound:
            shown = "missing" if value is _field else repr(value)[:60]
            raise StatsFileError(f"statistics: {name!r} of {where} is {shown}", _HINT)
        return cast(_T, value)

    return check


def _calls(row: Mapping[str, Any], name: str, where: str) -> dict[str, int]:
    counts = _object(row.get(name), f"{name!r} of {where}")
    number = _field(int)
    return {str(function): number(counts, function, where) for function in counts}


_int, _str, _bool, _maybe = _field(int), _field(str), _field(bool), _field(int, optional=True)


def _checks(cls: type[Any], special: Mapping[str, _Check]) -> dict[str, _Check]:
    """A checker for every field of a dataclass, by its annotation."""
    by_type = {
        "int": _int,
        "str": _str,
        "bool": _bool,
        "int | None": _maybe,
        "str | None": _field(str, optional=True),
    }
    return {f.name: special.get(f.name) or by_type[str(f.type)] for f in fields(cls)}


_DEVICE_FIELDS = _checks(DeviceStats, {"calls": _calls})
_RUN_FIELDS = {
    "command": _field(list),
    "wall_s": _field(float),
    "exit_code": _maybe,
    "signal": _maybe,
    "budget_in_force": _bool,
}
_STATS_FIELDS = _checks(Stats, {"devices": _int})
del _STATS_FIELDS["devices"]
