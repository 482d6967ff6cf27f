#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Does emuV hold real GPU programs to their budget on this machine's card?

    python tests/gpu/gpu_check.py [--output FILE] [--only GROUP,…] [--build]

Purpose: `make gpu-check`.  Runs the doctor, the conformance suite, each installed GPU package
plain, capped and spilled, a live budget change, and the cost of an allocation; prints a table and
writes one JSON document with a row a check.  Without a GPU it says so in one line and exits 0.
The tree must be built in place (`--build` does it).

Invariants
- No step can hang: every program has a limit and is killed with its session.
- Managed memory in use stays at a few units of 1 GiB, far below what a card that can run this has
  free; a card with less than twelve units free is checked with smaller units.
- The card's settings are left as they are.

Exit status: 0 all checks passed or were skipped, or no GPU; 1 a check failed; 2 usage.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime, timezone
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
sys.path.insert(0, str(Path(__file__).resolve().parent))

from _facts_nvml import Nvml
from _gpu_conformance import check_conformance
from _gpu_live import check_costs, check_doctor, check_live
from _gpu_nvml import CHECKS as NVML_CHECKS
from _gpu_process import Target, end_all, warm_imports
from _gpu_rows import Report
from _gpu_stacks import STACKS, Bed, check_context, check_eager, check_stack
from driver_facts import commit, host, look_for_card, output_file, stop

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
UNITS_ON_CARD = 12


def checks(bed: Bed) -> dict[str, list[Callable[[], None]]]:
    """The groups of checks, in the order of what matters most."""
    by_name = {stack.name: stack for stack in STACKS}
    groups: dict[str, list[Callable[[], None]]] = {"doctor": [lambda: check_doctor(bed)]}
    for stack in STACKS:
        groups.setdefault(stack.group, []).append(partial(check_stack, bed, stack))
        if stack.name == "torch":
            groups["live"] = [
                lambda: check_live(bed, by_name["driver API"]),
                lambda: check_live(bed, by_name["torch"]),
            ]
            groups["costs"] = [lambda: check_costs(bed)]
    groups["nvml"] = [partial(check, bed) for check in NVML_CHECKS]
    groups["conformance"] = [lambda: check_conformance(bed)]
    groups["eager"] = [
        lambda: check_eager(bed, by_name["driver API"]),
        lambda: check_eager(bed, by_name["cupy"]),
    ]
    return groups


def unit_for(free_bytes: int, wanted: int) -> int:
    """`wanted`, halved until twelve of them are free on the card."""
    unit = wanted
    while unit > 2**20 and unit * UNITS_ON_CARD > free_bytes:
        unit //= 2
    return unit


def build() -> str:
    """Build the tree in place; what went wrong, or ""."""
    done = subprocess.run(
        [sys.executable, "setup.py", "-q", "build_ext", "--inplace"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    return "" if done.returncode == 0 else (done.stderr or done.stdout)[-2000:]


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Check emuV on this machine's NVIDIA GPU.")
    parser.add_argument("--output", type=Path, help="the JSON file, or a folder for it")
    parser.add_argument("--only", type=lambda text: text.split(","), help="groups, by commas")
    parser.add_argument("--build", action="store_true", help="build the tree in place first")
    parser.add_argument("--seconds", type=float, default=460.0, help="for all checks (460)")
    parser.add_argument("--driver", help="another driver, such as the simulated GPU's")
    parser.add_argument("--unit", type=int, default=GIB, help="bytes of a unit (1 GiB)")
    return parser.parse_args(argv)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    arguments = parse(argv)
    card, reason = look_for_card(arguments.driver or "libcuda.so.1")
    if card is None:
        print(f"emuv: no GPU: nothing to check ({reason})", file=sys.stderr)
        return 0
    if arguments.build:
        problem = build()
        if problem:
            print(f"emuv: error: the tree does not build: {problem}", file=sys.stderr)
            return 1
    output = output_file(arguments.output, "gpu-check", card)
    unit = unit_for(int(card["free_bytes"]), arguments.unit)
    head = {
        **card,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "unit_bytes": unit,
        "host": host(),
    }
    report = Report(head, output, arguments.seconds)
    nvml = Nvml.open(str(card["pci_bus_id"])) if card["nvml"] else None
    bed = Bed(Target(arguments.driver), report, nvml, unit, simulated="simulated" in card["device"])
    groups = checks(bed)
    unknown = [name for name in arguments.only or () if name not in groups]
    if unknown:
        print(f"emuv: error: no group {unknown[0]!r}", file=sys.stderr)
        print(f"emuv: hint: the groups are {', '.join(groups)}", file=sys.stderr)
        return 2
    signal.signal(signal.SIGTERM, stop)
    print(f"{card['device']}, driver {card['driver'] or 'unknown'}; to {output}", flush=True)
    try:
        if not bed.simulated:
            warm_imports(bed.target, [stack.module for stack in STACKS])
        check_context(bed)
        for name in arguments.only or groups:
            for check in groups[name]:
                check()
    finally:
        end_all()
        report.show()
    return 1 if report.failed() else 0


if __name__ == "__main__":
    sys.exit(main())
