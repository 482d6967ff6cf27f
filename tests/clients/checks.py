# SPDX-License-Identifier: GPL-2.0-only
"""What the programs of this folder share: run each check, tell how it went, one line each.

A line is `ok NAME` or `failed NAME REASON`. A check that fails does not stop the others.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping

import numpy as np

MIB = 1 << 20


def close(got: object, wanted: object, tolerance: float = 1e-5) -> None:
    """Every value within `tolerance` of what NumPy says, relative to the largest."""
    have, want = np.asarray(got, dtype=np.float64), np.asarray(wanted, dtype=np.float64)
    assert have.shape == want.shape, f"{have.shape} is not {want.shape}"
    worst = float(np.max(np.abs(have - want))) if have.size else 0.0
    limit = tolerance * max(1.0, float(np.max(np.abs(want))) if want.size else 1.0)
    assert worst <= limit, f"off by {worst:.3g} (allowed {limit:.3g})"


def same(got: object, wanted: object) -> None:
    have, want = np.asarray(got), np.asarray(wanted)
    assert np.array_equal(have, want), f"{have.ravel()[:8]} is not {want.ravel()[:8]}"


def run_checks(namespace: Mapping[str, object]) -> int:
    """Runs all functions named check_…; returns the exit code."""
    checks: dict[str, Callable[[], None]] = {
        name.removeprefix("check_"): value
        for name, value in namespace.items()
        if name.startswith("check_") and callable(value)
    }
    failed = 0
    for name, check in checks.items():
        try:
            check()
        except Exception as error:
            failed += 1
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"failed {name} {text}", flush=True)
        else:
            print(f"ok {name}", flush=True)
    return 1 if failed else 0


def main(namespace: Mapping[str, object]) -> None:
    sys.exit(run_checks(namespace))
