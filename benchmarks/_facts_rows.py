# SPDX-License-Identifier: GPL-2.0-only
"""Rows, statistics and files of the measurements on a real card.

Purpose: what every measuring script shares and what can be tested with no card: a row's shape,
median and quartiles, the atomic JSON file, the budget of managed memory.

Invariants
- A row always has the keys of ROW_KEYS; a figure that was not measured is null and `note` says why.
- A report on disk is always whole: it is written beside its name and renamed onto it.
- ManagedLimit never lets the live managed bytes exceed a quarter of what was free at its start.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, TypedDict

KIB = 1024
MIB = 1024 * KIB
GIB = 1024 * MIB
BLOCK = 2 * MIB  # the unit in which GPU-resident managed pages live

ROW_KEYS = ("section", "name", "unit", "median", "p25", "p75", "n", "params", "note")


class Row(TypedDict):
    """One measured figure.  `median`, `p25`, `p75` are in `unit`; null if not measured."""

    section: str
    name: str
    unit: str
    median: float | None
    p25: float | None
    p75: float | None
    n: int
    params: dict[str, Any]
    note: str


def quantile(ordered: Sequence[float], share: float) -> float:
    """The `share` quantile (0 to 1) of an ordered, non-empty sequence, linearly interpolated."""
    place = (len(ordered) - 1) * share
    low = math.floor(place)
    high = min(low + 1, len(ordered) - 1)
    return ordered[low] + (ordered[high] - ordered[low]) * (place - low)


def spread(samples: Iterable[float]) -> tuple[float | None, float | None, float | None, int]:
    """(median, 25th percentile, 75th percentile, how many); nulls for no samples."""
    ordered = sorted(samples)
    if not ordered:
        return None, None, None, 0
    return (
        statistics.median(ordered),
        quantile(ordered, 0.25),
        quantile(ordered, 0.75),
        len(ordered),
    )


def make_row(
    section: str,
    name: str,
    unit: str,
    samples: Iterable[float],
    params: dict[str, Any] | None = None,
    note: str = "",
) -> Row:
    """A row from samples in `unit`; figures rounded to six significant digits."""
    median, p25, p75, count = spread(samples)
    return Row(
        section=section,
        name=name,
        unit=unit,
        median=_rounded(median),
        p25=_rounded(p25),
        p75=_rounded(p75),
        n=count,
        params=dict(params or {}),
        note=note,
    )


def _rounded(value: float | None) -> float | None:
    if value is None or not math.isfinite(value):
        return None
    if float(value).is_integer():
        return float(value)  # counts and bytes stay exact
    return float(f"{value:.6g}")


def check_row(row: dict[str, Any]) -> None:
    """ValueError unless `row` has a row's shape."""
    if tuple(row) != ROW_KEYS:
        raise ValueError(f"a row has the keys {tuple(row)}, not {ROW_KEYS}")
    for key in ("section", "name", "unit", "note"):
        if not isinstance(row[key], str):
            raise ValueError(f"{key} is {row[key]!r}, not text")
    for key in ("median", "p25", "p75"):
        if row[key] is not None and not isinstance(row[key], (int, float)):
            raise ValueError(f"{key} is {row[key]!r}, not a number or null")
    if not isinstance(row["n"], int) or not isinstance(row["params"], dict):
        raise ValueError("n must be a count and params an object")
    if row["median"] is None and not row["note"]:
        raise ValueError(f"row {row['name']!r} has no figure and no reason")


def write_json(path: Path, document: object) -> None:
    """Replace `path` by `document` as JSON, atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, beside = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as out:
            json.dump(document, out, indent=1)
            out.write("\n")
        Path(beside).chmod(0o644)
        Path(beside).replace(path)
    except BaseException:
        Path(beside).unlink(missing_ok=True)
        raise


def file_word(text: str) -> str:
    """`text` as one word for a file name: lower case, anything odd a dash."""
    word = "".join(c if c.isalnum() or c in "._" else "-" for c in text.lower())
    while "--" in word:
        word = word.replace("--", "-")
    return word.strip("-") or "unknown"


class OverLimit(RuntimeError):
    """A measurement asked for more managed memory than its limit allows."""


class ManagedLimit:
    """The managed bytes that may be live at once: a quarter of the free device memory.

    More managed memory than the card has free can stall the whole card, so the limit is checked
    before the driver is asked.
    """

    def __init__(self, free_bytes: int) -> None:
        self.limit_bytes = max(free_bytes, 0) // 4
        self.live_bytes = 0
        self.peak_bytes = 0

    def take(self, size_bytes: int) -> None:
        """Count `size_bytes`; OverLimit (nothing counted) if they do not fit."""
        if size_bytes < 0 or self.live_bytes + size_bytes > self.limit_bytes:
            raise OverLimit(
                f"{size_bytes} managed bytes on top of {self.live_bytes} would exceed "
                f"a quarter of the free device memory ({self.limit_bytes})"
            )
        self.live_bytes += size_bytes
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)

    def give(self, size_bytes: int) -> None:
        """Take back what take counted."""
        self.live_bytes -= size_bytes

    def fit(self, wanted_bytes: int, parts: int = 1) -> int:
        """The largest halving of `wanted_bytes` of which `parts` fit now; whole 2 MiB blocks.

        OverLimit if not even one block each does.
        """
        size = wanted_bytes
        while size >= BLOCK:
            if self.live_bytes + size * parts <= self.limit_bytes:
                return size // BLOCK * BLOCK
            size //= 2
        raise OverLimit(f"not even {parts} blocks of 2 MiB fit the limit ({self.limit_bytes})")
