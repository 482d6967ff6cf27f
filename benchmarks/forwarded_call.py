# SPDX-License-Identifier: GPL-2.0-only
"""What does a driver call cost that allocates nothing?

A call that emuV does not hook goes through one jump of emuV's; cuGraphLaunch, which it hooks,
looks for memory nodes, of which the graph here has none.  Measured for a program linked to
libcuda.so.1, and by the addresses that cuGetProcAddress gives (of what is not hooked, the
driver's own), against the same program without emuV, in turns: on a driver that does nothing,
so that little but the call itself is in the figure, and on the simulated GPU.

Figures are nanoseconds of CPU time a call.
"""

from __future__ import annotations

import argparse
import sys

import _bench
from _bench import Row

CALLS = ("driver-version", "ctx-device", "stream-query", "launch", "graph-launch")
HOOKED = {"graph-launch": 20}  # goals, ns
NULL_ONLY = ("launch", "graph-launch")  # there is nothing to launch but where nothing is needed
ROUTES = ("link", "address")
VRAM = 32 << 30
GOAL_ADDED_NS = 5


def measure(options: argparse.Namespace) -> Row:
    """All calls, both ways, on all drivers."""
    rows = []
    with _bench.programs() as compiled:
        for kind, driver in _bench.drivers(compiled, options.driver).items():
            plain = _bench.environment(driver)
            emuv = _bench.under_emuv(plain, driver, compiled.runtime, VRAM)
            for route in ROUTES:
                for call in CALLS:
                    if call in NULL_ONLY and kind != "null":
                        continue
                    turns = _bench.take_turns(
                        compiled.calls, plain, emuv, f"{route}-{call}",
                        rounds=1 if options.quick else 5, batches=2 if options.quick else 12,
                        count=10_000 if options.quick else 1_000_000,
                    )
                    rows.append(turns.row(
                        f"{kind}: {call}, by {route}", kind, call=call, route=route,
                        goal_added=HOOKED.get(call, GOAL_ADDED_NS),
                    ))  # fmt: skip
    question = "A call that allocates nothing: the program alone, and under emuV"
    return _bench.envelope("forwarded_call", question, "ns", GOAL_ADDED_NS, rows)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return _bench.driver_arguments(__doc__)


if __name__ == "__main__":
    sys.exit(_bench.run(measure, parser().parse_args()))
