# SPDX-License-Identifier: GPL-2.0-only
"""What does it cost that processes share a budget (`emuv-run --shared`)?

An allocation and its free, on a driver that does nothing: under emuV with a budget of the
process's own (`plain`) against the same with one that it shares with seven others (`emuv`), in
turns.  The others are there and do nothing, so that every claim adds up eight rows (`idle
others`); or all of them work at once, each in a process of its own (`8 processes`).

Figures are nanoseconds for one allocation and its free: of CPU time with one thread, else of the
wall clock, divided by the pairs that all of them did.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import _bench
from _bench import Calls, Programs, Row

BYTES = 512
VRAM = 32 << 30
OTHERS = 7
GOAL_ADDED_NS = 1000  # at 8 threads


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination to measure."""

    operation: str
    live: int
    threads: int = 1
    processes: int = 1

    @property
    def name(self) -> str:
        """As the table shows it."""
        if self.processes > 1:
            return f"{self.operation}, {self.live} live, {self.processes} processes"
        threads = "" if self.threads == 1 else f", {self.threads} threads"
        return f"{self.operation}, {self.live} live{threads}, idle others"


CELLS = [
    Cell("pair", 10),
    Cell("pair", 16, threads=4),
    Cell("pair", 16, threads=8),
    Cell("pair", 10, processes=2),
    Cell("pair", 10, processes=8),
]


def alone_and_shared(compiled: Programs, driver: Path) -> tuple[dict[str, str], dict[str, str]]:
    """The two environments."""
    plain = _bench.under_emuv(_bench.environment(driver), driver, compiled.runtime, VRAM)
    return plain, {**plain, "EMUV_SHARED": "1", "EMUV_RUN": "bench"}


def together(
    program: Path, env: Mapping[str, str], what: Cell, count: int, batches: int
) -> list[float]:
    """ns a pair, of `what.processes` programs that work at once; one figure a batch."""
    with contextlib.ExitStack() as stack:
        all_of_them = [
            stack.enter_context(
                Calls(program, env, what.operation, what.live, BYTES, 1, count)
            )
            for _ in range(what.processes)
        ]
        pool = stack.enter_context(ThreadPoolExecutor(what.processes))
        figures = []
        for _ in range(batches + 1):
            walls = [wall for wall, _ in pool.map(lambda one: one.batch(), all_of_them)]
            figures.append(sum(walls) / len(walls) / what.processes)
        return figures[1:]


def cell(compiled: Programs, driver: Path, what: Cell, quick: bool) -> Row:
    """Measure one cell."""
    alone, shared = alone_and_shared(compiled, driver)
    count = 100 if quick else 200_000 // max(what.threads, what.processes)
    with contextlib.ExitStack() as stack:
        if what.processes > 1:
            rounds, batches = (1, 2) if quick else (3, 6)
            plain: list[float] = []
            emuv: list[float] = []
            for _ in range(rounds):
                plain += together(compiled.calls, alone, what, count, batches)
                emuv += together(compiled.calls, shared, what, count, batches)
        else:
            for _ in range(OTHERS):
                stack.enter_context(Calls(compiled.calls, shared, "pair", 10))
            turns = _bench.take_turns(
                compiled.calls, alone, shared, what.operation,
                rounds=1 if quick else 5, batches=2 if quick else 8,
                live=what.live, size=BYTES, threads=what.threads, count=count,
            )  # fmt: skip
            plain, emuv = turns.plain, turns.emuv
    return {
        "name": f"null: {what.name}",
        "driver": "null",
        **dataclasses.asdict(what),
        **_bench.compare(plain, emuv),
    }


def measure(options: argparse.Namespace) -> Row:
    """All cells."""
    with _bench.programs() as compiled:
        rows = [
            cell(compiled, compiled.null_driver, what, options.quick)
            for what in (CELLS[::3] if options.quick else CELLS)
        ]
    question = "An allocation and its free: under a budget of one's own, and under a shared one"
    return _bench.envelope("shared_budget", question, "ns", GOAL_ADDED_NS, rows)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return _bench.arguments(__doc__)


if __name__ == "__main__":
    sys.exit(_bench.run(measure, parser().parse_args()))
