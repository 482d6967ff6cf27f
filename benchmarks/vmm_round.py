# SPDX-License-Identifier: GPL-2.0-only
"""What does a page of virtual memory management cost under emuV?

A handle made, mapped, unmapped and released (`round`), as PyTorch's expandable segments do for
each of their pages; and the handle found again by an address inside of a mapping (`find`), for
which emuV looks into its own books: through the shim against the same calls of the same program
without it, in turns, with 10, 1000 and 10,000 pages mapped.  On a driver that does nothing
(what the shim costs, seen clean) and on the simulated GPU; within the budget, and past it, where
each page is made of host memory.  A list of mappings that has to be walked shows at 10,000.

Figures are nanoseconds of CPU time for one round: four calls, or two.  No goal: a real driver
takes microseconds to milliseconds for these.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import _bench
from _bench import Programs, Row

PAGE = 2 << 20
VRAM = 32 << 30
CARD = 64 << 30


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination to measure; `spilling`: every page is past the budget."""

    operation: str
    live: int
    spilling: bool = False

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.operation}, {self.live} mapped{', spilled' if self.spilling else ''}"


CELLS = [
    *(Cell("vmm-round", live) for live in (10, 1000, 10_000)),
    *(Cell("vmm-find", live) for live in (10, 1000, 10_000)),
    *(Cell("vmm-round", live, spilling=True) for live in (10, 1000)),
]


def cell(compiled: Programs, kind: str, driver: Path, what: Cell, quick: bool) -> Row:
    """Measure one cell on one driver."""
    return _bench.cell(
        compiled, kind, driver, what.name, {"threads": 1, **dataclasses.asdict(what)},
        card=CARD, budget=(1, VRAM) if what.spilling else (VRAM, 0), size=PAGE,
        count=100 if quick else 2000, quick=quick,
    )  # fmt: skip


def measure(options: argparse.Namespace) -> Row:
    """All cells on all drivers; on a real card, what its memory holds."""
    with _bench.programs() as compiled:
        rows = [
            cell(compiled, kind, driver, what, options.quick)
            for kind, driver in _bench.drivers(compiled, options.driver).items()
            for what in (CELLS[::3] if options.quick else CELLS)
            if kind != "real" or (what.live <= 1000 and not what.spilling)
        ]
    question = "A page made, mapped, unmapped and released: the program alone, and under emuV"
    return _bench.envelope("vmm_round", question, "ns", None, rows)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return _bench.driver_arguments(__doc__)


if __name__ == "__main__":
    sys.exit(_bench.run(measure, parser().parse_args()))
