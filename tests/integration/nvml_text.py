# SPDX-License-Identifier: GPL-2.0-only
"""All that nvidia-ml-py can ask about this machine, as text: `python nvml_text.py [cuda]`.

One line an answer, in a fixed order: the card, the call, what it answered or the error's
name.  The process's own pid is written as "self".  `cuda`: 40 MiB are held on device 0
meanwhile.  What changes from one moment to the next on a real card (readings, times) is
written as its type.
"""

from __future__ import annotations

import ctypes
import inspect
import os
import sys
from pathlib import Path
from typing import Any

import pynvml as n

MOMENTARY = (
    "Temperature", "Power", "Clock", "Utilization", "Energy", "Fan", "Throughput", "Sample",
    "Uptime", "Violation", "Margin", "Counter", "Throttle", "EventReasons", "Replay", "Time",
    "PerformanceState", "Encoder", "Decoder", "BAR1",
)  # fmt: skip
CHANGES = ("Set", "Reset", "Clear", "Create", "Destroy", "Lock", "Modify", "Remove", "Freeze")
EVERY = ("nvmlDeviceGet", "nvmlDeviceIs", "nvmlDeviceValidate", "nvmlSystemGet", "nvmlUnitGet")


def written(value: Any) -> str:
    """A value without addresses; structures by their fields."""
    if isinstance(value, ctypes.Structure):
        fields = [name for name, *_ in value._fields_]
        return "{" + ", ".join(f"{f}={written(getattr(value, f))}" for f in fields) + "}"
    if type(value).__name__ == "nvmlFriendlyObject":
        pairs = sorted(vars(value).items())
        return "{" + ", ".join(f"{k}={'self' if v == os.getpid() else v}" for k, v in pairs) + "}"
    if isinstance(value, ctypes.Array | list | tuple):
        return "[" + ", ".join(written(item) for item in value) + "]"
    if isinstance(value, ctypes._SimpleCData):
        return repr(value.value)
    if isinstance(value, ctypes._Pointer):
        return "handle"
    return repr(value)


def asked(name: str, *args: Any) -> str:
    """What a call answers; the type of what does not stand still."""
    try:
        value = getattr(n, name)(*args)
    except n.NVMLError as error:
        return type(error).__name__
    except (TypeError, ValueError, AttributeError, IndexError, ctypes.ArgumentError) as error:
        return type(error).__name__
    if any(word in name for word in MOMENTARY):
        return f"a {type(value).__name__}"
    return written(value)


def calls() -> list[tuple[str, bool]]:
    """(name, whether it takes a handle) of every call that asks and needs no more than that."""
    found = []
    for name, function in sorted(vars(n).items()):
        if not name.startswith(EVERY) or not inspect.isfunction(function):
            continue
        if any(f"Get{word}" in name or f"Device{word}" in name for word in CHANGES):
            continue
        needed = [
            p for p in inspect.signature(function).parameters.values() if p.default is p.empty
        ]
        if len(needed) <= 1:
            found.append((name, len(needed) == 1))
    return found


def main() -> None:
    """Print it."""
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))
    if "cuda" in sys.argv[1:]:
        from cuda_driver import Driver

        driver = Driver("libcuda.so.1")
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        driver.new("cuMemAlloc_v2", 20 << 20)
        driver.new("cuMemAlloc_v2", 20 << 20)
    n.nvmlInit()
    handles = [n.nvmlDeviceGetHandleByIndex(i) for i in range(n.nvmlDeviceGetCount())]
    for name, on_card in calls():
        if not on_card:
            print("machine", f"{name}:", asked(name))
        elif name.startswith("nvmlDevice"):
            for i, handle in enumerate(handles):
                print(i, f"{name}:", asked(name, handle))
    for i, handle in enumerate(handles):
        print(i, "nvmlDeviceGetMemoryInfo_v2:",
              asked("nvmlDeviceGetMemoryInfo", handle, n.nvmlMemory_v2))  # fmt: skip


if __name__ == "__main__":
    main()
