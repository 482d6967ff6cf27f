# SPDX-License-Identifier: GPL-2.0-only
"""emuV: a CUDA process with a VRAM of the size you choose.

Programs are started with ``emuv-run``; from Python, budgets are read and set
through :class:`Controller`.  Importing this package loads neither CUDA nor the
compiled module: the names below are loaded when they are first used.  It imports
nothing at all, for the commands begin with it (_start.py).
"""

from __future__ import annotations

TYPE_CHECKING = False

if TYPE_CHECKING:
    from typing import Any

    from emuv_shim.budget import Budget as Budget
    from emuv_shim.controller import BudgetChange as BudgetChange
    from emuv_shim.controller import Controller as Controller
    from emuv_shim.controller import Listing as Listing
    from emuv_shim.controller import Process as Process
    from emuv_shim.controller import SegmentWarning as SegmentWarning
    from emuv_shim.errors import BudgetTooSmall as BudgetTooSmall
    from emuv_shim.errors import CommandError as CommandError
    from emuv_shim.errors import EmuvError as EmuvError
    from emuv_shim.errors import NotAttached as NotAttached
    from emuv_shim.errors import SegmentError as SegmentError
    from emuv_shim.errors import SizeError as SizeError
    from emuv_shim.errors import Stale as Stale
    from emuv_shim.errors import StatsFileError as StatsFileError
    from emuv_shim.stats import DeviceStats as DeviceStats
    from emuv_shim.stats import Stats as Stats

__version__ = "0.1.0"

_HOMES = {
    "Budget": "budget",
    "BudgetChange": "controller",
    "BudgetTooSmall": "errors",
    "CommandError": "errors",
    "Controller": "controller",
    "DeviceStats": "stats",
    "EmuvError": "errors",
    "Listing": "controller",
    "NotAttached": "errors",
    "Process": "controller",
    "SegmentError": "errors",
    "SegmentWarning": "controller",
    "SizeError": "errors",
    "Stale": "errors",
    "Stats": "stats",
    "StatsFileError": "errors",
}

__all__ = [
    "Budget",
    "BudgetChange",
    "BudgetTooSmall",
    "CommandError",
    "Controller",
    "DeviceStats",
    "EmuvError",
    "Listing",
    "NotAttached",
    "Process",
    "SegmentError",
    "SegmentWarning",
    "SizeError",
    "Stale",
    "Stats",
    "StatsFileError",
    "__version__",
    "is_active",
]


def is_active() -> bool:
    """Whether this process runs under emuV: its interposer is mapped."""
    try:
        with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
            return any("/libemuv.so" in line for line in maps)
    except OSError:
        return False


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        import importlib

        value = getattr(importlib.import_module(f"emuv_shim.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
