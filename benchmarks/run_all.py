# SPDX-License-Identifier: GPL-2.0-only
"""All benchmarks that need no GPU, one after the other.

`--save LABEL` writes each to benchmarks/results/NAME.LABEL.json, where measurements that are
committed lie; LABEL says in a word or two what kind of machine it was (2-core-x86-64).
What a real driver does is another question: driver_facts.py.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

import _bench
import _figures
import alloc_free
import forwarded_call
import kernels
import launcher_start
import prefetch
import shared_budget
import vmm_round

BENCHMARKS = (
    forwarded_call, launcher_start, alloc_free, shared_budget, vmm_round, prefetch,
)  # fmt: skip
FIGURES = (kernels,)  # of the simulated GPU itself
RESULTS = Path(__file__).resolve().parent / "results"


def label(text: str) -> str:
    """A label that is safe in a file name, else argparse's error."""
    if not re.fullmatch(r"[a-z0-9][a-z0-9_-]{0,63}", text):
        raise argparse.ArgumentTypeError(f"{text!r}: small letters, digits, - and _ only")
    return text


def main() -> int:
    """Run all; 0, or 1 with the reason on stderr."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--save", type=label, metavar="LABEL", help="write benchmarks/results/")
    parser.add_argument("--quick", action="store_true", help="few, short rounds: a smoke test")
    _bench.driver_option(parser)
    options = parser.parse_args()
    for benchmark in (*BENCHMARKS, *FIGURES):
        name = benchmark.__name__
        target = RESULTS / f"{name}.{options.save}.json" if options.save else None
        given = argparse.Namespace(
            quick=options.quick, driver=options.driver, json=False, output=target
        )
        run = _figures.run if benchmark in FIGURES else _bench.run
        if status := run(benchmark.measure, given):
            return status
        print(flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
