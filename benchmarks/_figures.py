# SPDX-License-Identifier: GPL-2.0-only
"""Benchmarks of the simulated GPU itself: figures of their own units, and goals.

Nothing is compared with and without emuV here (_bench.py does that): a row is a figure and,
where one was promised, the goal that its median should meet.  benchmarks/figures.schema.json
describes the document.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from collections.abc import Callable, Sequence

import _bench
from _bench import BenchmarkError, Row, Summary


def row(
    name: str,
    unit: str,
    samples: Sequence[float],
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Row:
    """One figure: its samples in `unit`, and at most one of the two goals."""
    goal: dict[str, float] | None = None
    if at_least is not None:
        goal = {"at_least": at_least}
    elif at_most is not None:
        goal = {"at_most": at_most}
    return {"name": name, "unit": unit, "figure": Summary.of(samples).json(), "goal": goal}


def met(one: Row) -> bool | None:
    """Does the median meet the goal?  None where there is none."""
    if not one["goal"]:
        return None
    median = one["figure"]["median"]
    if "at_least" in one["goal"]:
        return bool(median >= one["goal"]["at_least"])
    return bool(median <= one["goal"]["at_most"])


def envelope(benchmark: str, question: str, rows: Sequence[Row]) -> Row:
    """A document of figures."""
    document = _bench.envelope(benchmark, question, "ns", None, rows)
    return {k: v for k, v in document.items() if k not in ("unit", "goal_added")}


def table(document: Row) -> str:
    """The rows as text, for a person."""
    width = max(len(r["name"]) for r in document["rows"])
    lines = [document["question"]]
    for r in document["rows"]:
        figure = r["figure"]
        text = f"{r['name']:{width}} {figure['median']:10.1f} {r['unit']}"
        text = f"{text:{width + 30}} ({figure['p25']:.1f} .. {figure['p75']:.1f})"
        if r["goal"]:
            (kind, value), = r["goal"].items()
            words = "at least" if kind == "at_least" else "at most"
            text += f"   goal: {words} {value:g}: {'met' if met(r) else 'MISSED'}"
        lines.append(text)
    return "\n".join(lines)


def run(measure: Callable[[argparse.Namespace], Row], options: argparse.Namespace) -> int:
    """Run one benchmark as a command: 0, or 1 with the reason on stderr."""
    try:
        document = measure(options)
        text = json.dumps(document, indent=1) + "\n"
        if options.output:
            options.output.parent.mkdir(parents=True, exist_ok=True)
            options.output.write_text(text)
    except (BenchmarkError, OSError, subprocess.SubprocessError) as error:
        print(f"emuv: error: {error}", file=sys.stderr)
        return 1
    print(text if options.json else table(document))
    return 0
