# SPDX-License-Identifier: GPL-2.0-only
"""NVML by ctypes: what the card itself says is in use.

Purpose: an independent witness of physical memory (card and process), with no package installed.

Invariants
- Only queries; nothing here changes a setting of the card.
- Nvml.open answers None where the library or the card is missing; callers then fall back to
  cuMemGetInfo and say so in the row.
"""

from __future__ import annotations

import ctypes
from ctypes import POINTER, c_char_p, c_int, c_uint, c_ulonglong, c_void_p
from dataclasses import dataclass
from typing import Any

NOT_AVAILABLE = 2**64 - 1  # NVML_VALUE_NOT_AVAILABLE
_BUFFER_TOO_SMALL = 7
_MAX_PROCESSES = 256


class _Memory(ctypes.Structure):
    """nvmlMemory_t."""

    _fields_ = (("total", c_ulonglong), ("free", c_ulonglong), ("used", c_ulonglong))


class _Process(ctypes.Structure):
    """nvmlProcessInfo_t of the _v3 calls."""

    _fields_ = (
        ("pid", c_uint),
        ("used_gpu_memory", c_ulonglong),
        ("gpu_instance_id", c_uint),
        ("compute_instance_id", c_uint),
    )


_SIGNATURES: dict[str, tuple[Any, ...]] = {
    "nvmlInit_v2": (),
    "nvmlDeviceGetHandleByPciBusId_v2": (c_char_p, POINTER(c_void_p)),
    "nvmlDeviceGetHandleByIndex_v2": (c_uint, POINTER(c_void_p)),
    "nvmlDeviceGetMemoryInfo": (c_void_p, POINTER(_Memory)),
    "nvmlDeviceGetComputeRunningProcesses_v3": (c_void_p, POINTER(c_uint), POINTER(_Process)),
    "nvmlSystemGetDriverVersion": (c_char_p, c_uint),
    "nvmlDeviceGetCurrPcieLinkGeneration": (c_void_p, POINTER(c_uint)),
    "nvmlDeviceGetCurrPcieLinkWidth": (c_void_p, POINTER(c_uint)),
}


@dataclass(frozen=True)
class Link:
    """The PCIe link as it is now: generation and width; 0 where unknown."""

    generation: int
    width: int


class Nvml:
    """One card, through NVML."""

    def __init__(self, lib: ctypes.CDLL, device: c_void_p) -> None:
        self._lib = lib
        self._device = device

    @classmethod
    def open(cls, bus_id: str | None = None, path: str = "libnvidia-ml.so.1") -> Nvml | None:
        """The card at `bus_id` (the first one if None); None where there is no NVML or card."""
        try:
            lib = ctypes.CDLL(path)
            for name, argtypes in _SIGNATURES.items():
                function = getattr(lib, name)
                function.argtypes = argtypes
                function.restype = c_int
        except (OSError, AttributeError):
            return None
        if lib.nvmlInit_v2() != 0:
            return None
        device = c_void_p()
        if bus_id is not None:
            code = lib.nvmlDeviceGetHandleByPciBusId_v2(bus_id.encode(), ctypes.byref(device))
        else:
            code = lib.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(device))
        return cls(lib, device) if code == 0 else None

    def used_bytes(self) -> int | None:
        """Bytes in use on the card, by everybody; None if NVML refuses."""
        memory = _Memory()
        code = self._lib.nvmlDeviceGetMemoryInfo(self._device, ctypes.byref(memory))
        return int(memory.used) if code == 0 else None

    def process_bytes(self) -> dict[int, int | None]:
        """Bytes by pid of the processes with a context; None where NVML does not tell."""
        count = c_uint(_MAX_PROCESSES)
        table = (_Process * _MAX_PROCESSES)()
        code = self._lib.nvmlDeviceGetComputeRunningProcesses_v3(
            self._device, ctypes.byref(count), table
        )
        if code not in (0, _BUFFER_TOO_SMALL):
            return {}
        found: dict[int, int | None] = {}
        for row in table[: min(count.value, _MAX_PROCESSES)]:
            used = int(row.used_gpu_memory)
            found[int(row.pid)] = None if used == NOT_AVAILABLE else used
        return found

    def driver(self) -> str:
        """The driver's version, such as 580.95.05; "" if unknown."""
        text = ctypes.create_string_buffer(96)
        code = self._lib.nvmlSystemGetDriverVersion(text, len(text))
        return text.value.decode() if code == 0 else ""

    def link(self) -> Link:
        """The PCIe link's present generation and width (they drop when the card is idle)."""
        generation, width = c_uint(), c_uint()
        self._lib.nvmlDeviceGetCurrPcieLinkGeneration(self._device, ctypes.byref(generation))
        self._lib.nvmlDeviceGetCurrPcieLinkWidth(self._device, ctypes.byref(width))
        return Link(generation.value, width.value)
