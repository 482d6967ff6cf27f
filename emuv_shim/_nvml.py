# SPDX-License-Identifier: GPL-2.0-only
"""What the machine's NVML says of its cards and of who uses them.

It is opened past emuV's own, so that under an emuv-run of this very process it is the
machine's word and not the budget's. It is asked in a thread with a
time limit: a driver in trouble may never answer, and what it says is worth a better
message, not more.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WAIT_S = 3.0
MOST_USERS = 1024  # of a card's list
_NOT_AVAILABLE = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE
_INIT_PID_NAMESPACE = 0xEFFFFFFC  # PROC_PID_INIT_INO
_LISTS = ("Compute", "Graphics", "MPSCompute")


@dataclass(frozen=True)
class User:
    """A process on a card; the bytes are None where the driver cannot tell."""

    pid: int
    used_bytes: int | None


@dataclass(frozen=True)
class Card:
    """A card of the machine, by NVML's order."""

    index: int
    uuid: str
    name: str
    total_bytes: int
    users: tuple[User, ...] = ()


@dataclass(frozen=True)
class Answer:
    """What an NVML said; `simulated`: it is the simulated machine's."""

    cards: tuple[Card, ...]
    simulated: bool

    def knows_processes(self) -> bool:
        """Whether its pids are those of this process's namespace."""
        if self.simulated:
            return True
        with contextlib.suppress(OSError):
            return os.stat("/proc/self/ns/pid").st_ino == _INIT_PID_NAMESPACE
        return False


class _Memory(ctypes.Structure):
    _fields_ = [(name, ctypes.c_ulonglong) for name in ("total", "free", "used")]


class _Process(ctypes.Structure):
    _fields_ = [
        ("pid", ctypes.c_uint),
        ("used", ctypes.c_ulonglong),
        ("gpu_instance", ctypes.c_uint),
        ("compute_instance", ctypes.c_uint),
    ]


class _NvmlError(Exception):
    """A call that a card's line cannot do without answered an error."""


def _open(path: str) -> Any:
    """The library past emuV's hooks, by its own spelling (csrc/common/emuv_library_name.h)."""
    folder, _, name = path.rpartition("/")
    return ctypes.CDLL(f"{folder}/.//./{name}")


def _must(code: int) -> None:
    if code != 0:
        raise _NvmlError(code)


def _text(function: Any, card: ctypes.c_void_p) -> str:
    room = ctypes.create_string_buffer(96)
    _must(function(card, room, 96))
    return room.value.decode("utf-8", "replace")


def _users(nvml: Any, card: ctypes.c_void_p) -> tuple[User, ...]:
    """Everybody on a card, once; a list that is not answered is an empty one."""
    found: dict[int, int | None] = {}
    for kind in _LISTS:
        function = getattr(nvml, f"nvmlDeviceGet{kind}RunningProcesses_v3", None)
        rows, count = (_Process * MOST_USERS)(), ctypes.c_uint(MOST_USERS)
        if function is None or function(card, ctypes.byref(count), rows) != 0:
            continue
        for row in rows[: count.value]:
            known = found.setdefault(row.pid, None)
            if row.used != _NOT_AVAILABLE:
                found[row.pid] = max(known or 0, int(row.used))
    return tuple(User(pid, used) for pid, used in sorted(found.items()))


def _ask(path: str, users: bool) -> Answer | None:
    try:
        nvml = _open(path)
        if nvml.nvmlInit_v2() != 0:
            return None
        count = ctypes.c_uint()
        _must(nvml.nvmlDeviceGetCount_v2(ctypes.byref(count)))
        cards = []
        for index in range(count.value):
            card, memory = ctypes.c_void_p(), _Memory()
            _must(nvml.nvmlDeviceGetHandleByIndex_v2(index, ctypes.byref(card)))
            _must(nvml.nvmlDeviceGetMemoryInfo(card, ctypes.byref(memory)))
            uuid, name = _text(nvml.nvmlDeviceGetUUID, card), _text(nvml.nvmlDeviceGetName, card)
            cards.append(
                Card(index, uuid, name, int(memory.total), _users(nvml, card) if users else ())
            )
        nvml.nvmlShutdown()
        return Answer(tuple(cards), hasattr(nvml, "emuv_sim_nvml"))
    except (OSError, AttributeError, _NvmlError):
        return None


def ask(path: str | None, *, users: bool = False, wait_s: float = WAIT_S) -> Answer | None:
    """The cards by the NVML at a path; None where there is none, or it does not answer in time."""
    import threading

    if path is None:
        return None
    answer: list[Answer | None] = []
    thread = threading.Thread(target=lambda: answer.append(_ask(path, users)), daemon=True)
    thread.start()
    thread.join(wait_s)
    return answer[0] if answer else None


@dataclass(frozen=True)
class Unmanaged:
    """A process on a card that is none of those that emuV knows to be under it."""

    pid: int
    name: str
    device: int
    card: str
    used_bytes: int | None

    def to_json(self) -> dict[str, Any]:
        """For :func:`json.dumps`; see schemas/ps.schema.json."""
        return {
            "pid": self.pid,
            "name": self.name,
            "nvml_index": self.device,
            "uuid": self.card,
            "used_bytes": self.used_bytes,
        }


def process_name(pid: int) -> str:
    """The last part of its program's path, as far as /proc tells; "" where it does not."""
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as line:
            first = line.read(4096).split(b"\0")[0]
        if first:
            return os.path.basename(os.fsdecode(first)) or os.fsdecode(first)
        with open(f"/proc/{pid}/comm", "rb") as comm:
            return os.fsdecode(comm.read(64)).strip()
    return ""


def unmanaged(answer: Answer | None, managed: Sequence[int]) -> list[Unmanaged] | None:
    """Who is on the cards beside the `managed` pids; None where NVML does not tell."""
    if answer is None or not answer.knows_processes():
        return None
    known = set(managed)
    return [
        Unmanaged(user.pid, process_name(user.pid), card.index, card.uuid, user.used_bytes)
        for card in answer.cards
        for user in card.users
        if user.pid not in known
    ]
