# SPDX-License-Identifier: GPL-2.0-only
"""What does emuV add to the start of a program?

From posix_spawn to the program's end, the two sides in turns:

- `true` with libemuv.so preloaded, against `true`: what the library costs every process,
  those without CUDA included; and what `--audit`, and the simulated GPU's libcudart
  stand-ins, cost it beside that;
- a program that initialises CUDA and makes one allocation, on the simulated GPU: opening
  the driver past the preload, the books and the segment file come on top;
- `emuv-run true` against `true`: the launcher is a Python program, once a run;
- the same against Python alone (`python -I -c pass`), which is what a Python program cannot
  do without.

Figures are microseconds a process, from its spawn to its end as a clock on the wall sees it;
the JSON has the CPU time that the processes took beside it (`cpu`), which other work on the
machine does not lengthen.
"""

from __future__ import annotations

import argparse
import os
import select
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import _bench
from _bench import BenchmarkError, Row

GOAL_ADDED_US = 1000  # of the library; the launcher has no goal of its own
VRAM = 1 << 30
WAIT_SECONDS = 30

Command = tuple[Sequence[str], Mapping[str, str]]


def run_once(command: Command) -> tuple[float, float]:
    """Microseconds from the spawn of a process to its end, and of its CPU time; it must exit 0."""
    words, env = command
    actions = [(os.POSIX_SPAWN_OPEN, fd, os.devnull, os.O_RDWR, 0) for fd in (0, 1)]
    start = time.perf_counter_ns()
    pid = os.posix_spawn(words[0], list(words), dict(env), file_actions=actions)
    ended = os.pidfd_open(pid)
    try:
        if not select.select([ended], [], [], WAIT_SECONDS)[0]:
            os.kill(pid, signal.SIGKILL)
        end = time.perf_counter_ns()
        _, status, used = os.wait4(pid, 0)
    finally:
        os.close(ended)
    if status:
        raise BenchmarkError(f"{' '.join(words)} ended with status {status}")
    return (end - start) / 1000, (used.ru_utime + used.ru_stime) * 1e6


def take_turns(name: str, plain: Command, emuv: Command, rounds: int, goal: int | None) -> Row:
    """Run both `rounds` times in turns, after two runs each to warm up."""
    samples: dict[int, list[tuple[float, float]]] = {0: [], 1: []}
    for turn in range(-2, rounds):
        for side in (0, 1) if turn % 2 == 0 else (1, 0):
            took = run_once((plain, emuv)[side])
            if turn >= 0:
                samples[side].append(took)
    wall, cpu = (
        _bench.compare([s[clock] for s in samples[0]], [s[clock] for s in samples[1]])
        for clock in (0, 1)
    )
    return {"name": name, "driver": "sim", "goal_added": goal, **wall, "cpu": cpu}


def launcher() -> list[str]:
    """emuv-run as installed beside this Python, or out of the checkout."""
    script = Path(sys.executable).with_name("emuv-run")
    if script.exists():
        return [str(script)]
    code = (
        f"import sys; sys.path.insert(0, {str(_bench.ROOT)!r}); "
        "from emuv_shim.commands.run import main; sys.exit(main())"
    )
    return [sys.executable, "-c", code]


def measure(options: argparse.Namespace) -> Row:
    """All comparisons."""
    true = shutil.which("true")
    if not true:
        raise BenchmarkError("there is no `true` on the PATH")
    many, few = (3, 2) if options.quick else (400, 60)
    with _bench.programs() as compiled:
        driver = _bench.drivers(compiled, None)["sim"]
        plain = _bench.environment(driver)
        emuv = _bench.under_emuv(plain, driver, compiled.runtime, VRAM)
        # What a user types: nothing of emuV's in the environment, the simulated GPU by name.
        bare = {k: v for k, v in plain.items() if k != "LD_LIBRARY_PATH"}
        bare["EMUV_RUNTIME_DIR"] = str(compiled.runtime)
        run_true = [*launcher(), "--sim", "--vram", "1GiB", "-q", "--", true]
        python = [sys.executable, "-I", "-c", "pass"]
        cuda = [str(compiled.calls), *"pair 1 512 1 1".split()]
        auditor = {"LD_AUDIT": str(_bench.LIBRARY.with_name("libemuv-audit.so"))}
        runtimes = [str(driver.with_name(f"libcudart.so.{major}")) for major in (13, 12)]
        preload = {"LD_PRELOAD": ":".join([emuv["LD_PRELOAD"], *runtimes])}
        rows = [
            take_turns("libemuv.so in `true`", ([true], plain), ([true], emuv), many,
                       GOAL_ADDED_US),
            take_turns("--audit beside it", ([true], emuv), ([true], emuv | auditor), many, None),
            take_turns("the libcudart stand-ins beside it", ([true], emuv),
                       ([true], emuv | preload), many, None),
            take_turns("libemuv.so in a CUDA program", (cuda, plain), (cuda, emuv), many, None),
            take_turns("`emuv-run true`", ([true], bare), (run_true, bare), few, None),
            take_turns("`emuv-run true`, less Python", (python, bare), (run_true, bare), few,
                       None),
        ]
    question = "The start of a program: alone, and under emuV"
    return _bench.envelope("launcher_start", question, "µs", GOAL_ADDED_US, rows)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return _bench.arguments(__doc__)


if __name__ == "__main__":
    sys.exit(_bench.run(measure, parser().parse_args()))
