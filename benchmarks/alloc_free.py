# SPDX-License-Identifier: GPL-2.0-only
"""What does an allocation and its free cost under emuV?

cuMemAlloc and cuMemFree (and the stream-ordered pair) through the shim against the same calls
of the same program without it, in turns.  On a driver that does nothing (what the shim costs,
seen clean: every address is new) and on the simulated GPU; at 10, 1000 and 100,000 live
allocations; freeing the newest (`pair`) or the oldest (`churn`); with 1, 4 and 8 threads at
once; and what an allocation costs that is spilled (a promise of host memory is checked, hints
are given), which is no plain allocation any more and has no goal.  A table that has to search
shows at 100,000, one that the cache cannot hold shows in
`churn`, a lock that is held too long in 8 threads.

Figures are nanoseconds for one allocation and its free: of CPU time with one thread, of the
wall clock with several (the time all of them took divided by the pairs that all of them did).
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import _bench
from _bench import Programs, Row

BYTES = 512  # the smallest piece that drivers give out
VRAM = 32 << 30
CARD = 64 << 30
GOAL_ADDED_NS = 200


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination to measure.

    budget: `cap`; `spill`, which may spill and never has to; `spilling`, all of which spills.
    """

    operation: str
    live: int
    threads: int = 1
    budget: str = "cap"

    @property
    def name(self) -> str:
        """As the table shows it."""
        threads = "" if self.threads == 1 else f", {self.threads} threads"
        budget = {"cap": "", "spill": ", spill policy", "spilling": ", spilled"}[self.budget]
        return f"{self.operation}, {self.live} live{threads}{budget}"


CELLS = [
    *(Cell("pair", live) for live in (10, 1000, 100_000)),
    *(Cell("churn", live) for live in (10, 1000, 100_000)),
    *(Cell("pair", live, budget="spill") for live in (10, 100_000)),
    *(Cell("async-pair", live) for live in (10, 100_000)),
    Cell("async-pair", 10, budget="spill"),
    *(Cell("pair", 16, threads) for threads in (1, 4, 8)),
    Cell("churn", 1000, 8),
    Cell("pair", 10, budget="spilling"),
]

# Bytes of vram, and of virtual, in each budget.
BUDGETS = {"cap": (VRAM, 0), "spill": (VRAM, 1 << 30), "spilling": (1, 1 << 30)}


def cell(compiled: Programs, kind: str, driver: Path, what: Cell, quick: bool) -> Row:
    """Measure one cell on one driver."""
    # Threads have to meet, which takes longer than a time slice; a spill takes its time.
    count = 10_000 if what.threads == 1 else 200_000 // what.threads
    if quick or what.budget == "spilling":
        count = 100
    return _bench.cell(
        compiled, kind, driver, what.name, dataclasses.asdict(what),
        card=CARD, budget=BUDGETS[what.budget], size=BYTES, count=count, quick=quick,
    )  # fmt: skip


def measure(options: argparse.Namespace) -> Row:
    """All cells on all drivers."""
    with _bench.programs() as compiled:
        rows = [
            cell(compiled, kind, driver, what, options.quick)
            for kind, driver in _bench.drivers(compiled, options.driver).items()
            for what in (CELLS[::5] if options.quick else CELLS)
            # A real card holds a reserve for each of its allocations, and a context of its
            # own, for which a budget in which everything spills has no room.
            if kind != "real" or (what.live < 100_000 and what.budget != "spilling")
        ]
    question = "An allocation and its free: the program alone, and under emuV"
    return _bench.envelope("alloc_free", question, "ns", GOAL_ADDED_NS, rows)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return _bench.driver_arguments(__doc__)


if __name__ == "__main__":
    sys.exit(_bench.run(measure, parser().parse_args()))
