# SPDX-License-Identifier: GPL-2.0-only
"""Two programs under emuV, and what is said of them from all sides.

A `Rig` starts the workers (worker.py), hands them operations, reads their segments
and sets their budgets; it knows nothing of right and wrong.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from emuv_shim import Budget, Controller
from emuv_shim._segment import View
from emuv_shim.stats import DeviceStats

LIMIT_S = 90
WORKER = Path(__file__).parent / "worker.py"


@dataclass(frozen=True)
class Answer:
    """What an operation came to, and every report after it."""

    code: int
    value: Any
    free: int  # cuMemGetInfo
    total: int
    card_used: int  # the simulated card's own word
    books: DeviceStats  # the segment's


class Process:
    """One worker; it ends when the rig does."""

    def __init__(self, env: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as stderr:
            self.child = subprocess.Popen(
                [sys.executable, str(WORKER)], env=dict(env), stdin=subprocess.PIPE,
                stdout=subprocess.PIPE, stderr=stderr, text=True, bufsize=1,
            )  # fmt: skip
        assert self.child.stdout is not None
        self.selector = selectors.DefaultSelector()
        self.selector.register(self.child.stdout, selectors.EVENT_READ)
        ready, self.pid = self._read()
        assert ready == "ready"
        # A killed worker's is still there, and pids come round.
        paths = Path(env["EMUV_RUNTIME_DIR"]).glob(f"{self.pid}-*.seg")
        self.view = View(max(paths, key=lambda path: path.stat().st_mtime_ns))

    def _read(self) -> list[Any]:
        assert self.child.stdout is not None
        if not self.selector.select(LIMIT_S):
            raise TimeoutError(f"no answer after {LIMIT_S} s; {self.log.read_text()[-2000:]}")
        line = self.child.stdout.readline()
        if not line:
            raise EOFError(f"the worker ended: {self.log.read_text()[-2000:]}")
        answer: list[Any] = json.loads(line)
        return answer

    def do(self, thread: int, name: str, *args: Any) -> Answer:
        assert self.child.stdin is not None
        self.child.stdin.write(json.dumps([thread, name, *args]) + "\n")
        code, value, free, total, used = self._read()
        return Answer(code, value, free, total, used, self.books())

    def books(self) -> DeviceStats:
        return self.view.read().stats.devices[0]

    def end(self, *, kill: bool) -> None:
        if kill:
            self.child.kill()
        with contextlib.suppress(BrokenPipeError):
            assert self.child.stdin is not None
            self.child.stdin.close()
        self.child.wait(30)
        assert self.child.stdout is not None
        self.child.stdout.close()
        self.selector.close()
        self.view.close()


class Rig:
    """Workers with one environment."""

    def __init__(self, env: Mapping[str, str], n: int, log: Path) -> None:
        self.env, self.log = dict(env), log
        self.processes: list[Process] = []
        for _ in range(n):
            self.processes.append(Process(self.env, log))

    def kill(self, number: int) -> None:
        """kill -9, and another one in its place."""
        self.processes[number].end(kill=True)
        self.processes[number] = Process(self.env, self.log)

    def set_budget(self, number: int, vram: int, virtual: int, policy: str) -> None:
        with Controller(self.env["EMUV_RUNTIME_DIR"]) as controller:
            budget = Budget(vram, virtual if policy == "spill" else None)
            controller.set_budget(self.processes[number].pid, budget)

    def close(self) -> None:
        for process in self.processes:
            process.end(kill=False)


def environment(
    base: Mapping[str, str], runtime: Path, libemuv: Path, sim: Path, vram: int, virtual: int,
    *, shared: bool,
) -> dict[str, str]:  # fmt: skip
    """What emuv-run would set for the workers."""
    made = {k: v for k, v in base.items() if not k.startswith(("EMUV_", "LD_", "CUDA_"))}
    made |= {
        "LD_PRELOAD": str(libemuv),
        "EMUV_DRIVER": str(sim),
        "EMUV_VRAM": str(vram),
        "EMUV_VIRTUAL": str(virtual),
        "EMUV_POLICY": "spill",
        "EMUV_RUNTIME_DIR": str(runtime),
        "EMUV_RUN": f"model-{os.getpid()}-{runtime.name}",
        "EMUV_SIM_VRAM": str(1 << 30),
        "PYTHONPATH": str(Path(__file__).resolve().parents[2]),
    }
    if shared:
        made["EMUV_SHARED"] = "1"
    return made
