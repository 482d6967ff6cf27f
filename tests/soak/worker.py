# SPDX-License-Identifier: GPL-2.0-only
"""One process of the soak test: threads that allocate, write, move and check data.

    python worker.py THREADS SEED

Says `["ready", pid]`, then obeys lines on its standard input: `work` (until the next
line), `pause` (every thread gives back all it has; then `["paused", …figures…]`),
`end`.  What a thread writes it remembers by its CRC-32, and looks for it again after
any number of moves: to other allocations, over streams, by a kernel, through the host.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import zlib
from ctypes import addressof, byref, c_char, c_int, c_size_t, c_uint64, c_void_p
from dataclasses import dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))

from cuda_driver import AccessDesc, AllocationProp, Driver, Location

MIB = 1 << 20
OOM = 2
LOCATION = Location(1, 0)
# Every 32-bit word is inverted; done twice it is as before.
KERNEL = b"""
.version 8.0
.target sm_80
.address_size 64
.visible .entry invert(.param .u64 p, .param .u32 n)
{
    .reg .b64 %d<3>; .reg .b32 %r<6>; .reg .pred %q;
    ld.param.u64 %d0, [p]; ld.param.u32 %r0, [n];
    mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
    mad.lo.u32 %r4, %r1, %r2, %r3;
    setp.ge.u32 %q, %r4, %r0;
    @%q bra done;
    mul.wide.u32 %d1, %r4, 4; add.u64 %d2, %d0, %d1;
    ld.global.u32 %r5, [%d2]; not.b32 %r5, %r5; st.global.u32 [%d2], %r5;
done:
    ret;
}
"""


@dataclass
class Buffer:
    """An allocation with known contents."""

    kind: str
    address: int
    size: int
    crc: int = 0
    handle: int = 0  # of virtual memory management


@dataclass
class Figures:
    """What a thread did."""

    allocations: int = 0
    refused: int = 0
    checks: int = 0
    checked_bytes: int = 0
    moves: int = 0
    kernels: int = 0
    corrupt: int = 0
    errors: int = 0


class Thread:
    """One thread's own stream, buffers and figures."""

    def __init__(self, d: Driver, context: int, function: int, seed: int) -> None:
        self.d, self.context, self.function = d, context, function
        self.random = random.Random(seed)
        self.figures = Figures()
        self.buffers: list[Buffer] = []
        self.first_error = ""
        d.cuCtxSetCurrent(context)
        self.stream = d.new("cuStreamCreate", 1)
        self.host = (c_char * (8 * MIB))()
        self.source = (c_char * (9 * MIB)).from_buffer_copy(self.random.randbytes(9 * MIB))

    def ok(self, function: str, *args: Any) -> bool:
        code = self.d.code(function, *args)
        if code == 0:
            return True
        if code != OOM:
            self.figures.errors += 1
            self.first_error = self.first_error or f"{function}: {self.d.error_name(code)}"
        return False

    # ---- memory ----

    def take(self) -> Buffer | None:
        kind = self.random.choice(["plain", "plain", "pitch", "managed", "async", "async", "vmm"])
        size = self.random.choice([4096, 64 << 10, 256 << 10, MIB, 2 * MIB, 8 * MIB])
        out, handle = c_uint64(), c_uint64()
        if kind == "vmm":
            size = max(2 * MIB, size // (2 * MIB) * 2 * MIB)
            prop = AllocationProp(1, 0, LOCATION)
            if not self.ok("cuMemCreate", byref(handle), size, byref(prop), 0):
                self.figures.refused += 1
                return None
            access = AccessDesc(LOCATION, 3)
            if not (
                self.ok("cuMemAddressReserve", byref(out), size, 0, 0, 0)
                and self.ok("cuMemMap", out.value, size, 0, handle.value, 0)
                and self.ok("cuMemSetAccess", out.value, size, byref(access), 1)
            ):
                return None
        else:
            done = {
                "plain": lambda: self.ok("cuMemAlloc_v2", byref(out), size),
                "pitch": lambda: self.ok(
                    "cuMemAllocPitch_v2", byref(out), byref(c_size_t()), 4096, size // 4096, 4
                ),
                "managed": lambda: self.ok("cuMemAllocManaged", byref(out), size, 1),
                "async": lambda: self.ok("cuMemAllocAsync", byref(out), size, self.stream),
            }[kind]()
            if not done:
                self.figures.refused += 1
                return None
        self.figures.allocations += 1
        return Buffer(kind, out.value, size, handle=handle.value)

    def give(self, buffer: Buffer) -> None:
        if buffer.kind == "vmm":
            self.ok("cuStreamSynchronize", self.stream)
            self.ok("cuMemUnmap", buffer.address, buffer.size)
            self.ok("cuMemAddressFree", buffer.address, buffer.size)
            self.ok("cuMemRelease", buffer.handle)
        elif buffer.kind == "async":
            self.ok("cuMemFreeAsync", buffer.address, self.stream)
        else:
            self.ok("cuStreamSynchronize", self.stream)
            self.ok("cuMemFree_v2", buffer.address)

    # ---- contents ----

    def fill(self, buffer: Buffer) -> None:
        start = self.random.randrange(len(self.source) - buffer.size)
        buffer.crc = zlib.crc32(memoryview(self.source)[start : start + buffer.size])
        self.ok(
            "cuMemcpyHtoDAsync_v2", buffer.address, c_void_p(addressof(self.source) + start),
            buffer.size, self.stream,
        )  # fmt: skip
        self.ok("cuStreamSynchronize", self.stream)

    def check(self, buffer: Buffer) -> None:
        self.ok(
            "cuMemcpyDtoHAsync_v2", c_void_p(addressof(self.host)), buffer.address,
            buffer.size, self.stream,
        )  # fmt: skip
        self.ok("cuStreamSynchronize", self.stream)
        self.figures.checks += 1
        self.figures.checked_bytes += buffer.size
        if zlib.crc32(memoryview(self.host)[: buffer.size]) != buffer.crc:
            self.figures.corrupt += 1

    def move(self, source: Buffer, target: Buffer) -> None:
        self.ok("cuMemcpyDtoDAsync_v2", target.address, source.address, source.size, self.stream)
        target.crc = source.crc
        self.figures.moves += 1

    def invert_twice(self, buffer: Buffer) -> None:
        n = buffer.size // 4
        address, count = c_uint64(buffer.address), c_int(n)
        arguments = (c_void_p * 2)(addressof(address), addressof(count))
        for _ in range(2):
            self.ok(
                "cuLaunchKernel", self.function, (n + 255) // 256, 1, 1, 256, 1, 1, 0,
                self.stream, arguments, None,
            )  # fmt: skip
        self.figures.kernels += 2

    # ---- the work ----

    def step(self) -> None:
        roll = self.random.random()
        if roll < 0.4 and len(self.buffers) < 8:
            buffer = self.take()
            if buffer is not None:
                self.fill(buffer)
                self.buffers.append(buffer)
        elif self.buffers and roll < 0.65:
            self.check(self.random.choice(self.buffers))
        elif self.buffers and roll < 0.75:
            same = [b for b in self.buffers if b.size == self.buffers[0].size]
            self.move(self.buffers[0], same[-1])
        elif self.buffers and roll < 0.8:
            self.invert_twice(min(self.buffers, key=lambda b: b.size))
        elif self.buffers:
            buffer = self.buffers.pop(self.random.randrange(len(self.buffers)))
            self.check(buffer)
            self.give(buffer)

    def drain(self) -> None:
        while self.buffers:
            buffer = self.buffers.pop()
            self.check(buffer)
            self.give(buffer)
        self.ok("cuStreamSynchronize", self.stream)


class Crew:
    """All threads of the process, which work, pause and end together."""

    def __init__(self, n: int, seed: int) -> None:
        self.d = d = Driver("libcuda.so.1")
        d.cuInit(0)
        self.context = d.new("cuDevicePrimaryCtxRetain", 0)
        d.cuCtxSetCurrent(self.context)
        module = d.new("cuModuleLoadData", KERNEL + b"\0")
        function = d.new("cuModuleGetFunction", module, b"invert")
        self.working = threading.Event()
        self.ending = False
        self.idle = threading.Barrier(n + 1)
        self.threads = [Thread(d, self.context, function, seed * 1000 + i) for i in range(n)]
        self.runners = [threading.Thread(target=self._run, args=(t,)) for t in self.threads]
        for runner in self.runners:
            runner.start()

    def _run(self, thread: Thread) -> None:
        self.d.cuCtxSetCurrent(self.context)
        while True:
            while not self.working.wait(0.05):
                if self.ending:
                    return
            while self.working.is_set():
                thread.step()
            thread.drain()
            self.idle.wait(120)

    def pause(self) -> dict[str, Any]:
        self.working.clear()
        self.idle.wait(120)
        self.d.check("cuCtxSynchronize")
        free, total = self.d.memory_info()
        used, table = c_uint64(), self.d.sim()
        if table is not None:
            table.device_used(0, byref(used))
        sums = {
            name: sum(getattr(t.figures, name) for t in self.threads)
            for name in Figures.__dataclass_fields__
        }
        errors = [t.first_error for t in self.threads if t.first_error]
        return {
            **sums, "free": free, "total": total, "card_used": used.value,
            "anonymous": anonymous_bytes(), "first_error": errors[:1],
        }  # fmt: skip


def anonymous_bytes() -> int:
    """Resident anonymous memory of the process."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) << 10
    return 0


def main() -> None:
    crew = Crew(int(sys.argv[1]), int(sys.argv[2]))
    print(json.dumps(["ready", os.getpid()]), flush=True)
    for line in sys.stdin:
        if line.strip() == "work":
            crew.working.set()
        elif line.strip() == "pause":
            print(json.dumps(["paused", crew.pause()]), flush=True)
        else:
            break
    crew.ending = True
    for runner in crew.runners:
        runner.join(60)


if __name__ == "__main__":
    main()
