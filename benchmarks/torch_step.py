# SPDX-License-Identifier: GPL-2.0-only
"""What does emuV add to PyTorch: to its import, and to a step of training?

    python benchmarks/torch_step.py --python .venv-torch/bin/python

Run by any Python; `--python` is one that has PyTorch (`make test-torch` makes one, 5.5 GB).
A process that imports torch, and a loop of training steps (8 layers of element-wise
arithmetic, forward, backward, SGD: some hundred launches, the caching allocator warm), the
two sides in turns.  On the simulated GPU PyTorch's kernels are machine code, which computes
nothing there and only touches its memory (EMUV_SIM_UNKNOWN_KERNELS=touch): what is measured
is the calls.  With `--driver` on a real card: the steps compute.

Figures are microseconds: of the wall for the import, of a step for the training.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import select
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import _bench
import launcher_start
from _bench import BenchmarkError, Row

VRAM = 1 << 30
STEPS = 50
ANSWER_SECONDS = 300
PROGRAM = Path(__file__).resolve().parent / "_torch_program.py"
SIM = _bench.SIMULATOR.parent


@dataclasses.dataclass(frozen=True)
class Side:
    """One way to run it."""

    name: str
    env: Mapping[str, str]


class Trainer:
    """A process that makes STEPS training steps whenever it is asked."""

    def __init__(self, python: Path, env: Mapping[str, str]) -> None:
        self.process = subprocess.Popen(
            [str(python), str(PROGRAM), str(STEPS)],
            env=dict(env), stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, text=True, bufsize=1,
        )  # fmt: skip
        self.device = self._line()

    def _line(self) -> str:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], ANSWER_SECONDS)[0]:
            self.close()
            raise BenchmarkError(f"no answer within {ANSWER_SECONDS} s")
        line = self.process.stdout.readline().strip()
        if not line:
            self.close()
            raise BenchmarkError("the PyTorch program ended: try it by hand, its stderr says why")
        return line

    def step_us(self) -> float:
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        return int(self._line()) / STEPS / 1000

    def close(self) -> None:
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def sides(driver: Path | None, runtime: Path) -> tuple[Side, list[Side]]:
    """Without emuV, and the ways with it."""
    if driver:
        plain = _bench.environment(driver)
        library = driver.parent / "libcuda.so.1"
    else:
        plain = _bench.environment(
            _bench.SIMULATOR, LD_PRELOAD=str(SIM / "libcudart.so.13"),
            EMUV_SIM_VRAM=str(4 * VRAM), EMUV_SIM_UNKNOWN_KERNELS="touch",
        )  # fmt: skip
        library = _bench.SIMULATOR
    emuv = _bench.under_emuv(plain, library, runtime, VRAM)
    emuv["LD_PRELOAD"] = ":".join(filter(None, [str(_bench.LIBRARY), plain.get("LD_PRELOAD")]))
    shared = {**emuv, "EMUV_SHARED": "1", "EMUV_RUN": f"bench-{os.getpid()}"}
    return Side("plain", plain), [Side("emuV", emuv), Side("emuV, --shared", shared)]


def training(python: Path, plain: Side, side: Side, rounds: int, batches: int) -> Row:
    """Steps in turns, in `rounds` pairs of processes."""
    samples: tuple[list[float], list[float]] = ([], [])
    device = ""
    for _ in range(rounds):
        trainers = [Trainer(python, plain.env), Trainer(python, side.env)]
        try:
            device = trainers[0].device
            for trainer in trainers:
                trainer.step_us()
            for batch in range(batches):
                for which in (0, 1) if batch % 2 == 0 else (1, 0):
                    samples[which].append(trainers[which].step_us())
        finally:
            for trainer in trainers:
                trainer.close()
    return {
        "name": f"training step, {side.name}", "driver": "sim", "device": device,
        **_bench.compare(*samples),
    }  # fmt: skip


def measure(options: argparse.Namespace) -> Row:
    """The import and the steps."""
    probe = [str(options.python), "-c", "import torch"]
    done = subprocess.run(probe, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    if done.returncode:
        raise BenchmarkError(
            f"{options.python} has no PyTorch: {done.stderr.strip().splitlines()[-1:]}; "
            "make test-torch makes one that has"
        )
    rounds, batches = (1, 2) if options.quick else (3, 12)
    with tempfile.TemporaryDirectory(prefix="emuv-bench-") as runtime:
        plain, others = sides(options.driver, Path(runtime))
        rows = [
            launcher_start.take_turns(
                "import torch", (probe, plain.env), (probe, others[0].env),
                2 if options.quick else 8, None,
            ),
            *(training(options.python, plain, side, rounds, batches) for side in others),
        ]  # fmt: skip
    for row in rows:
        row["driver"] = "real" if options.driver else "sim"
    question = "PyTorch: its import and a step of training, alone and under emuV"
    return _bench.envelope("torch_step", question, "µs", None, rows)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _bench.driver_arguments(__doc__)
    made.add_argument(
        "--python", type=Path, default=Path(".venv-torch/bin/python"), metavar="PYTHON",
        help="a Python that has PyTorch",
    )  # fmt: skip
    return made


if __name__ == "__main__":
    sys.exit(_bench.run(measure, parser().parse_args()))
