# SPDX-License-Identifier: GPL-2.0-only
"""What does a prefetch of managed memory cost under emuV?

cuMemPrefetchAsync through the shim against the same call of the same program without it, in
turns: of managed memory that fits the budget and passes (`whole`, and `inside`, whose range has
to be found by an address in its middle), with 10 and 10,000 ranges; of spilled memory for which
there is no room, so that nothing is brought (`clipped`); and of the resident head of a spilled
range, which is brought again and accounted for (`head`).  On a driver that does nothing (what
the shim costs, seen clean) and on the simulated GPU.

Figures are nanoseconds of CPU time for one call.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from pathlib import Path

import _bench
from _bench import Programs, Row

BYTES = 64 << 20
VRAM = 32 << 20
CARD = 1 << 40
GOAL_ADDED_NS = 1000


@dataclasses.dataclass(frozen=True)
class Cell:
    """One combination to measure; vram: what the budget gives."""

    what: str
    operation: str
    live: int
    vram: int
    virtual: int = 0

    @property
    def name(self) -> str:
        """As the table shows it."""
        return f"{self.what}, {self.live} ranges"


CELLS = [
    *(Cell("whole", "prefetch", live, CARD) for live in (10, 10_000)),
    *(Cell("inside", "prefetch-inside", live, CARD) for live in (10, 10_000)),
    Cell("clipped", "prefetch", 10, 1, CARD),
    Cell("head", "prefetch-head", 1, VRAM, CARD),
]


def cell(compiled: Programs, kind: str, driver: Path, what: Cell, quick: bool) -> Row:
    """Measure one cell on one driver."""
    return _bench.cell(
        compiled, kind, driver, what.name, {"threads": 1, **dataclasses.asdict(what)},
        # The memory of so many ranges is never touched; the simulated GPU's books are.
        card=CARD, budget=(what.vram, what.virtual), size=BYTES if what.live <= 10 else 64 << 10,
        count=100 if quick else 2000, quick=quick,
    )  # fmt: skip


def measure(options: argparse.Namespace) -> Row:
    """All cells on all drivers; on a real card, one range of its own size."""
    with _bench.programs() as compiled:
        rows = [
            cell(compiled, kind, driver, what, options.quick)
            for kind, driver in _bench.drivers(compiled, options.driver).items()
            for what in (CELLS[::3] if options.quick else CELLS)
            if kind != "real" or what.live == 1
        ]
    question = "A prefetch of managed memory: the program alone, and under emuV"
    return _bench.envelope("prefetch", question, "ns", GOAL_ADDED_NS, rows)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return _bench.driver_arguments(__doc__)


if __name__ == "__main__":
    sys.exit(_bench.run(measure, parser().parse_args()))
