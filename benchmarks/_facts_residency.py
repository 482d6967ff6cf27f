# SPDX-License-Identifier: GPL-2.0-only
"""Where managed pages are, and who moves them.

Purpose: the ground of the design: a range with PREFERRED_LOCATION = CPU and ACCESSED_BY = device
must stay on the host under every kind of access, move only by prefetch, and give its device memory
back, to other processes too, when it is demoted.

Invariants
- What is resident is told by the card's used bytes (NVML where there is one) against the bytes
  before the range was touched; nothing else may run on the card meanwhile.
- Every step is a row with the bytes gained since the start, whatever the step did.
"""

from __future__ import annotations

import ctypes
import json
import os
import selectors
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import _facts_cuda as cu
from _facts_bench import Bench, KernelsUnsupportedError, big_enough
from _facts_rows import BLOCK, MIB

ANSWER_SECONDS = 20.0
ATOMICS = 4096  # spread over a range: each may cost a fault and move its page


class Witness:
    """Another process with a context, asked for cuMemGetInfo's free bytes."""

    def __init__(self, driver: str) -> None:
        script = Path(__file__).with_name("driver_facts.py")
        self._child = subprocess.Popen(
            [sys.executable, str(script), "--child", "meminfo", "--driver", driver],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        self._selector = selectors.DefaultSelector()
        assert self._child.stdout is not None
        self._selector.register(self._child.stdout, selectors.EVENT_READ)
        self.free_bytes()  # its context is up

    def free_bytes(self) -> int:
        """What it sees free now; TimeoutError if it does not answer."""
        assert self._child.stdin is not None
        assert self._child.stdout is not None
        self._child.stdin.write(b"\n")
        self._child.stdin.flush()
        line = b""
        while not line.endswith(b"\n"):  # a line may come in parts
            if not self._selector.select(ANSWER_SECONDS):
                raise TimeoutError("the witness process does not answer")
            data = os.read(self._child.stdout.fileno(), 4096)
            if not data:
                raise RuntimeError("the witness process has ended")
            line += data
        return int(json.loads(line)["free_bytes"])

    def __enter__(self) -> Witness:
        return self

    def __exit__(self, *_: object) -> None:
        self._selector.close()
        if self._child.stdin is not None:
            self._child.stdin.close()  # it ends at the end of its input
        try:
            self._child.wait(ANSWER_SECONDS)
        except subprocess.TimeoutExpired:
            self._child.kill()
            self._child.wait()


def meminfo_child(driver: str) -> int:
    """The witness's side: one JSON line with cuMemGetInfo for each line of input."""
    cuda = cu.Cuda(driver)
    cuda.start()
    cuda.retain(0)
    for _ in sys.stdin:
        free, total = cuda.memory()
        print(json.dumps({"free_bytes": free, "total_bytes": total}), flush=True)
    return 0


def residency(bench: Bench) -> None:
    """The section."""
    with bench.attempt("which advice keeps a range on the host"):
        _advices(bench)
    with bench.attempt("a spilled range under every access"):
        _walk(bench)
    with bench.attempt("device memory given back to another process"):
        _given_back(bench)


class _Steps:
    """Rows of one range: bytes gained on the card after each step, and the range's attributes."""

    def __init__(self, bench: Bench, name: str, address: int, size: int, base: int) -> None:
        self.bench = bench
        self.name = name
        self.address = address
        self.size = size
        self.base = base

    def step(self, label: str, body: Callable[[], object]) -> None:
        """Do `body`, wait, and say where the range is."""
        bench = self.bench
        with bench.attempt(f"{self.name}: {label}"):
            wall = bench.wall_ms(body)
            gained = bench.used_bytes() - self.base
            attribute = bench.cuda.range_attribute
            bench.row(
                f"{self.name}: {label}",
                "bytes gained on the device",
                [float(gained)],
                f"by {bench.used_source}",
                bytes=self.size,
                wall_ms=round(wall, 4),
                preferred_location=attribute(self.address, self.size, cu.RANGE_PREFERRED),
                accessed_by=attribute(self.address, self.size, cu.RANGE_ACCESSED_BY),
                last_prefetch=attribute(self.address, self.size, cu.RANGE_LAST_PREFETCH),
            )


def _ready_kernels(bench: Bench) -> bool:
    """Compile the kernels, so that their module is not taken for a gain; False if unsupported."""
    try:
        bench.kernel("read_sequential")
        with bench.device_memory(BLOCK) as address:
            for name in ("read_sequential", "write_sequential"):
                bench.timed(name, address, BLOCK // 16)
            for name in ("read_strided", "atomic_strided"):
                bench.timed(name, address, BLOCK // 4096, 4096)
    except KernelsUnsupportedError:
        bench.row("kernels", "", [], "kernels not supported")
        return False
    return True


def _advices(bench: Bench) -> None:
    size = big_enough(bench, 256 * MIB)
    if not _ready_kernels(bench):
        return
    for name, advices in (
        ("no advice", ()),
        ("preferred CPU alone", ((cu.SET_PREFERRED, cu.CPU),)),
        ("accessed by alone", ((cu.SET_ACCESSED_BY, 0),)),
        ("preferred CPU and accessed by", ((cu.SET_PREFERRED, cu.CPU), (cu.SET_ACCESSED_BY, 0))),
        ("read mostly", ((cu.SET_READ_MOSTLY, 0),)),
    ):
        with bench.attempt(name):
            base = bench.used_bytes()
            with bench.managed(size) as address:
                for advice, where in advices:
                    bench.cuda.advise(address, size, advice, where)
                ctypes.memset(address, 1, size)
                steps = _Steps(bench, name, address, size, base)
                steps.step("host-populated", lambda: None)
                steps.step(
                    "kernel reads", partial(bench.launch, "read_sequential", address, size // 16)
                )
                steps.step(
                    "kernel writes",
                    partial(bench.launch, "write_sequential", address, size // 16),
                )
                steps.step(
                    "host reads again",
                    partial(_host_reads, address, size, 4096),
                )


def _host_reads(address: int, size: int, step: int) -> None:
    for at in range(0, size, step):
        ctypes.string_at(address + at, 1)


def _walk(bench: Bench) -> None:
    """One spilled range through every kind of access, then promoted, used and demoted."""
    size = big_enough(bench, 512 * MIB)
    cuda, stream = bench.cuda, bench.stream
    kernels = _ready_kernels(bench)
    pairs, apart = size // 16, size // ATOMICS // 8 * 8
    with bench.device_memory(size) as plain, bench.pinned(BLOCK) as pinned:
        base = bench.used_bytes()
        with bench.managed(size, spilled=True) as address:
            steps = _Steps(bench, "spilled range", address, size, base)
            steps.step("allocated and advised", lambda: None)
            steps.step("written by the host", lambda: ctypes.memset(address, 1, size))

            def kernel_steps(when: str) -> None:
                if not kernels:
                    return
                steps.step(
                    f"{when}: kernel reads", lambda: bench.launch("read_sequential", address, pairs)
                )
                steps.step(
                    f"{when}: kernel writes",
                    lambda: bench.launch("write_sequential", address, pairs, 3),
                )
                steps.step(
                    f"{when}: atomics all over it",
                    lambda: bench.launch("atomic_strided", address, ATOMICS, apart),
                )
                steps.step(
                    f"{when}: atomics again",
                    lambda: bench.launch("atomic_strided", address, ATOMICS, apart),
                )

            def copy_steps(when: str) -> None:
                steps.step(
                    f"{when}: copied to device memory",
                    lambda: cuda.call("cuMemcpyDtoDAsync_v2", plain, address, size, stream),
                )
                steps.step(
                    f"{when}: copied from device memory",
                    lambda: cuda.call("cuMemcpyDtoDAsync_v2", address, plain, size, stream),
                )
                steps.step(
                    f"{when}: 2 MiB copied to pinned memory",
                    lambda: cuda.call("cuMemcpyDtoHAsync_v2", pinned, address, BLOCK, stream),
                )
                steps.step(
                    f"{when}: 2 MiB copied from pinned memory",
                    lambda: cuda.call("cuMemcpyHtoDAsync_v2", address, pinned, BLOCK, stream),
                )
                steps.step(
                    f"{when}: set by cuMemsetD8Async",
                    lambda: cuda.call("cuMemsetD8Async", address, 1, size, stream),
                )

            kernel_steps("on the host")
            # a known place again, whatever the atomics did
            steps.step("demoted", lambda: cuda.prefetch(address, size, cu.CPU, stream))
            copy_steps("on the host")
            steps.step("demoted again", lambda: cuda.prefetch(address, size, cu.CPU, stream))
            half = size // 2 // BLOCK * BLOCK
            steps.step(
                "first half promoted", lambda: cuda.prefetch(address, half, bench.device, stream)
            )
            steps.step("promoted", lambda: cuda.prefetch(address, size, bench.device, stream))
            kernel_steps("promoted")
            copy_steps("promoted")
            steps.step(
                "promoted: host reads one byte of each 2 MiB",
                partial(_host_reads, address, size, BLOCK),
            )
            steps.step(
                "promoted once more", lambda: cuda.prefetch(address, size, bench.device, stream)
            )
            steps.step(
                "demoted from the device", lambda: cuda.prefetch(address, size, cu.CPU, stream)
            )
            kernel_steps("demoted")
            with bench.attempt("data after promotion and demotion"):
                cuda.call("cuMemsetD8Async", address, 0x5A, size, stream)
                for where in (bench.device, cu.CPU, bench.device, cu.CPU):
                    cuda.prefetch(address, size, where, stream)
                bench.sync()
                same = ctypes.string_at(address, size) == b"\x5a" * size
                bench.row(
                    "data after promotion and demotion",
                    "equal",
                    [float(same)],
                    "equal" if same else "DIFFERENT",
                    bytes=size,
                )
        with bench.attempt("spilled range: freed"):
            bench.row(
                "spilled range: freed",
                "bytes gained on the device",
                [float(bench.used_bytes() - base)],
                f"by {bench.used_source}",
            )


def _given_back(bench: Bench) -> None:
    """A second process's free memory while a range is promoted and demoted here."""
    size = big_enough(bench, 512 * MIB)
    with Witness(bench.cuda.path) as witness, bench.managed(size, spilled=True) as address:
        ctypes.memset(address, 1, size)
        bench.sync()
        base = witness.free_bytes()

        def say(label: str, where: int, length: int) -> None:
            bench.cuda.prefetch(address, length, where, bench.stream)
            bench.sync()
            lost = base - witness.free_bytes()
            bench.row(
                f"another process: {label}",
                "bytes it lost",
                [float(lost)],
                "its cuMemGetInfo",
                bytes=size,
            )

        say("range promoted", bench.device, size)
        say("half of it demoted", cu.CPU, size // 2 // BLOCK * BLOCK)
        say("all of it demoted", cu.CPU, size)
