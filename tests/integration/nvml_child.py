# SPDX-License-Identifier: GPL-2.0-only
"""For the programs of test_nvml.py: nvidia-ml-py, asked briefly."""

from __future__ import annotations

from typing import Any

import pynvml as n
from pynvml import *  # noqa: F403

from tests.integration.shim_child import *  # noqa: F403


def card(index: int) -> dict[str, Any]:
    """What NVML says of a card: [total, free, used] and [[pid, bytes], …]."""
    handle = n.nvmlDeviceGetHandleByIndex(index)
    memory = n.nvmlDeviceGetMemoryInfo(handle)
    users = n.nvmlDeviceGetComputeRunningProcesses(handle)
    return {
        "memory": [memory.total, memory.free, memory.used],
        "users": sorted([p.pid, p.usedGpuMemory] for p in users),
    }


def agreed(driver: Driver, index: int = 0) -> dict[str, Any]:  # noqa: F405
    """`card`, with what cuMemGetInfo says beside it: [total, free, used]."""
    free, total = driver.memory_info()
    return {**card(index), "cuda": [total, free, total - free]}


def text(driver: Driver, call: str, device: int = 0) -> str:  # noqa: F405
    """A text that the driver fills in."""
    room = ctypes.create_string_buffer(64)  # noqa: F405
    driver.check(call, room, 64, device)
    return room.value.decode()


def uuid(driver: Driver, device: int) -> str:  # noqa: F405
    """A device's UUID as NVML writes it."""
    raw = (ctypes.c_ubyte * 16)()  # noqa: F405
    driver.check("cuDeviceGetUuid_v2", raw, device)
    text = bytes(raw).hex()
    return "GPU-" + "-".join((text[:8], text[8:12], text[12:16], text[16:20], text[20:]))


def refusal(call: str, *args: Any) -> str:
    """The name of the error that a call ends in."""
    try:
        getattr(n, call)(*args)
    except n.NVMLError as error:
        return type(error).__name__.removeprefix("NVMLError_")
    return "none"
