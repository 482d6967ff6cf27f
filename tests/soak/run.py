# SPDX-License-Identifier: GPL-2.0-only
"""The soak test: processes and threads under budgets that change, their data checked.

    python tests/soak/run.py [--seconds 600] [--processes 4] [--threads 8]

All processes share one budget (`emuv-run --shared`) on a simulated GPU.  While they
allocate in every way, spill, move and check data, budgets are raised and lowered, and
every segment is read: nothing may be held above what the budget was at any moment of
the reading.  At pauses everything is given back: then nothing may be charged, the card
must be empty but for contexts, and the process's own memory as large as before.

Ends with 0, or with 1 and what went wrong; prints its figures.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT))

from emuv_shim import Budget, Controller  # noqa: E402
from emuv_shim.errors import EmuvError  # noqa: E402

MIB = 1 << 20
WORKER = Path(__file__).parent / "worker.py"
LAUNCHER = "import sys; from emuv_shim.commands.run import main; sys.exit(main())"
# What starts the processes: one run, so that they share a budget.
STARTER = """
import subprocess, sys
worker, n, threads = sys.argv[1], int(sys.argv[2]), sys.argv[3]
children = [subprocess.Popen([sys.executable, worker, threads, str(i)], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, text=True) for i in range(n)]
def ask(line, answer=True):
    for child in children:
        child.stdin.write(line + "\\n"); child.stdin.flush()
    return [child.stdout.readline() for child in children] if answer else []
print("".join(child.stdout.readline() for child in children), end="", flush=True)
for line in sys.stdin:
    print("".join(ask(line.strip(), line.strip() == "pause")), end="", flush=True)
    if line.strip() == "end":
        break
sys.exit(max(child.wait(120) for child in children))
"""
VRAM, VIRTUAL = 192 * MIB, 256 * MIB
PAUSES = 6
ANONYMOUS_SLACK = 4 * MIB


class Soak:
    """The run, and what has been seen of it."""

    def __init__(self, processes: int, threads: int, seed: int) -> None:
        self.n, self.random = processes, random.Random(seed)
        self.problems: list[str] = []
        self.samples = self.changes = 0
        self.most_physical = 0
        self.paused: list[list[dict[str, Any]]] = []
        self.directory = tempfile.TemporaryDirectory(prefix="emuv-soak-")
        runtime = Path(self.directory.name) / "runtime"
        runtime.mkdir(mode=0o700)
        self.runtime = runtime
        env = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_", "CUDA_"))}
        env |= {
            "EMUV_RUNTIME_DIR": str(runtime), "PYTHONPATH": str(ROOT),
            "EMUV_SIM_VRAM": str(2 << 30), "XDG_CACHE_HOME": self.directory.name,
        }  # fmt: skip
        self.base = 1 << 30  # contexts: found out below
        self.child = subprocess.Popen(
            [sys.executable, "-c", LAUNCHER, "--sim", "--shared", "-q",
             "--vram", str(self.base), "--virtual", str(VIRTUAL), "--",
             sys.executable, "-c", STARTER, str(WORKER), str(processes), str(threads)],
            env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )  # fmt: skip
        self.pids = [self._line("ready") for _ in range(processes)]
        self.controller = Controller(str(runtime))
        self.base = sum(self._books(pid).overhead_bytes or 0 for pid in self.pids)
        self.vram = 0
        self.set_budget(VRAM)

    def _line(self, what: str) -> Any:
        assert self.child.stdout is not None
        word, value = json.loads(self.child.stdout.readline() or '["ended", null]')
        if word != what:
            raise SystemExit(f"a process answered {word!r} instead of {what!r}")
        return value

    def _say(self, line: str) -> None:
        assert self.child.stdin is not None
        self.child.stdin.write(line + "\n")
        self.child.stdin.flush()

    def _books(self, pid: int) -> Any:
        return self.controller.get(pid).stats.devices[0]

    def set_budget(self, vram: int) -> None:
        """One write for all: they share it."""
        try:
            self.controller.set_budget(self.pids[0], Budget(self.base + vram, VIRTUAL))
        except EmuvError as error:
            self.problems.append(f"set_budget: {error}")
        self.vram = self.base + vram
        self.changes += 1

    def physical(self) -> int:
        return sum(self._books(pid).physical_bytes for pid in self.pids)

    def work(self, seconds: float) -> None:
        self._say("work")
        end = time.monotonic() + seconds
        limit = self.vram
        while time.monotonic() < end:
            if self.random.random() < 0.05:
                before = self.physical()
                self.set_budget(self.random.randrange(64, 320) * MIB)
                # What was held may stay; nothing is added to it.
                limit = max(limit if before > self.vram else 0, self.vram, before)
            # The segments are read one after the other while they change: what went from
            # one process to another in between is seen twice, and not the next time.
            seen = min(self.physical() for _ in range(5))
            self.samples += 1
            self.most_physical = max(self.most_physical, seen)
            if seen > limit:
                self.problems.append(f"{seen} bytes on the device, {limit} allowed")
            if seen <= self.vram:
                limit = self.vram
            time.sleep(0.02)

    def pause(self) -> None:
        self._say("pause")
        figures = [self._line("paused") for _ in self.pids]
        self.paused.append(figures)
        for pid, row in zip(self.pids, figures, strict=True):
            books = self._books(pid)
            left = books.device_bytes + books.managed_bytes + books.promoted_bytes
            if left or books.live_allocations:
                self.problems.append(f"{pid}: {left} bytes charged after everything was freed")
            if row["card_used"] > books.physical_bytes:
                self.problems.append(f"{pid}: the card has {row['card_used']}, charged {books}")
            if row["corrupt"] or row["errors"]:
                self.problems.append(f"{pid}: {row}")

    def flat(self) -> list[int]:
        """How much each process's anonymous memory grew after the first two pauses."""
        half = [row["anonymous"] for row in self.paused[1]]
        last = [row["anonymous"] for row in self.paused[-1]]
        return [b - a for a, b in zip(half, last, strict=True)]

    def finish(self) -> None:
        self._say("end")
        code = self.child.wait(120)
        if code:
            self.problems.append(f"the run ended with {code}")
        for growth in self.flat():
            if growth > ANONYMOUS_SLACK:
                self.problems.append(f"a process grew by {growth} bytes")
        self.controller.__exit__(None, None, None)
        self.directory.cleanup()

    def report(self, seconds: float) -> str:
        last = self.paused[-1]
        names = (
            "allocations", "refused", "checks", "checked_bytes", "moves", "kernels", "corrupt"
        )  # fmt: skip
        total = {name: sum(row[name] for row in last) for name in names}
        return "\n".join([
            f"{self.n} processes, {seconds:.0f} s, {self.changes} budgets, {self.samples} samples",
            f"allocations {total['allocations']:,}, refused {total['refused']:,}, "
            f"moves {total['moves']:,}, kernels {total['kernels']:,}",
            f"checks {total['checks']:,} ({total['checked_bytes'] / (1 << 30):.1f} GiB), "
            f"corrupt {total['corrupt']}",
            f"most on the device {self.most_physical / MIB:.0f} MiB; grown since the second pause, "
            f"KiB a process: {[growth >> 10 for growth in self.flat()]}",
        ])  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--threads", type=int, default=8)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    started = time.monotonic()
    soak = Soak(options.processes, options.threads, options.seed)
    try:
        for _ in range(PAUSES):
            soak.work(options.seconds / PAUSES)
            soak.pause()
        soak.finish()
    finally:
        if soak.child.poll() is None:
            soak.child.kill()
    print(soak.report(time.monotonic() - started))
    for problem in soak.problems[:20]:
        print("problem:", problem)
    print(f"{'1 failed' if soak.problems else '1 passed'}")
    return 1 if soak.problems else 0


if __name__ == "__main__":
    sys.exit(main())
