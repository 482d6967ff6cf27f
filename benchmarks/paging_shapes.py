# SPDX-License-Identifier: GPL-2.0-only
"""Which blocks cross the link when a program sweeps over more memory than the card has?

A kernel reads and writes all of a 2 MiB block of managed memory, block after block, pass after
pass, on the simulated GPU; what each way of placing the memory costs is counted, in
blocks by pass once the first passes are over, beside the least that any policy could move
(Belady: always evict what is needed last). Counts are exact and the same on every machine. The
times are a model's (docs/paging.md): they compare policies and promise nothing about a card.
A tool: counts by cause are no samples, so its JSON has rows of its own, and none in results/.

fault      plain demand paging
spilled    preferred on the host, accessed by the device: what emuV gives a spilled range
fixed      the same, and as much as fits prefetched once: a part stays, the rest is remote
prefetch   each block prefetched before its kernel
copies     read-mostly, and only read
discard    each block discarded after its use
"""

from __future__ import annotations

import argparse
import ctypes
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path

import _bench
from _bench import Row

BLOCK = 2 << 20
HOST, DEVICE = -1, 0
SET_READ_MOSTLY, SET_PREFERRED, SET_ACCESSED_BY = 1, 3, 5
WARM, MEASURED = 2, 3  # passes
PROFILES = ("pcie3", "pcie4", "pcie5")
SHAPES = ("fault", "spilled", "fixed", "prefetch", "copies", "discard")
CHILD_SECONDS = 60

# A thread has 16 bytes of the block.
THREADS = 256
PTX = b"""
.version 8.0
.target sm_80
.address_size 64
.visible .entry use(.param .u64 at)
{ .reg .b64 d; .reg .b32 r<5>, t, n, b;
  mov.u32 t, %tid.x; mov.u32 n, %ntid.x; mov.u32 b, %ctaid.x; mad.lo.u32 t, n, b, t;
  ld.param.u64 d, [at]; mad.wide.u32 d, t, 16, d;
  ld.global.v4.u32 {r1, r2, r3, r4}, [d]; add.u32 r1, r1, 1;
  st.global.v4.u32 [d], {r1, r2, r3, r4}; ret; }
.visible .entry look(.param .u64 at)
{ .reg .b64 d; .reg .b32 r<5>, t, n, b; .reg .pred p;
  mov.u32 t, %tid.x; mov.u32 n, %ntid.x; mov.u32 b, %ctaid.x; mad.lo.u32 t, n, b, t;
  ld.param.u64 d, [at]; mad.wide.u32 d, t, 16, d;
  ld.global.v4.u32 {r1, r2, r3, r4}, [d]; setp.eq.u32 p, r1, 77; @p trap; ret; }
"""


class Program:
    """What runs on the simulated GPU: a managed array of `blocks`, and a kernel for one block."""

    def __init__(self, shape: str, blocks: int, card: int) -> None:
        self.shape, self.blocks, self.card = shape, blocks, card
        self._cuda = ctypes.CDLL(str(_bench.SIMULATOR))
        context, module, function, address = c_void_p(), c_void_p(), c_void_p(), c_uint64()
        self.call("cuInit", 0)
        self.call("cuDevicePrimaryCtxRetain", byref(context), 0)
        self.call("cuCtxSetCurrent", context)
        self.call("cuModuleLoadData", byref(module), PTX)
        name = b"look" if shape == "copies" else b"use"
        self.call("cuModuleGetFunction", byref(function), module, name)
        self.call("cuMemAllocManaged", byref(address), c_size_t(blocks * BLOCK), 1)
        self._function, self.start = function, address.value
        self._stream = c_void_p()
        self.call("cuStreamCreate", byref(self._stream), 1)
        self.prefetch(0, blocks, HOST)
        for advice, device in {
            "spilled": ((SET_PREFERRED, HOST), (SET_ACCESSED_BY, DEVICE)),
            "fixed": ((SET_PREFERRED, HOST), (SET_ACCESSED_BY, DEVICE)),
            "copies": ((SET_READ_MOSTLY, DEVICE),),
        }.get(shape, ()):
            self.call("cuMemAdvise", address, c_size_t(blocks * BLOCK), advice, device)
        if shape == "fixed":
            self.prefetch(0, min(card, blocks), DEVICE)

    def call(self, name: str, *args: object) -> None:
        """Call the driver; BenchmarkError where it fails."""
        code = getattr(self._cuda, name)(*args)
        if code:
            raise _bench.BenchmarkError(f"{name} answers {code}")

    def prefetch(self, block: int, count: int, device: int) -> None:
        """Of `count` blocks, in the stream."""
        where = c_uint64(self.start + block * BLOCK)
        self.call(
            "cuMemPrefetchAsync", where, c_size_t(count * BLOCK), c_int(device), self._stream
        )

    def sweep(self) -> None:
        """One pass over all blocks."""
        for block in range(self.blocks):
            at = c_uint64(self.start + block * BLOCK)
            if self.shape == "prefetch":
                self.prefetch(block, 1, DEVICE)
            held = (c_void_p * 1)(ctypes.addressof(at))
            shape = BLOCK // 16 // THREADS, 1, 1, THREADS, 1, 1, 0
            self.call("cuLaunchKernel", self._function, *shape, self._stream, held, None)
            if self.shape == "discard":
                size = c_size_t(BLOCK)
                self.call("cuMemDiscardBatchAsync", byref(at), byref(size), 1, 0, self._stream)
        self.call("cuStreamSynchronize", self._stream)


def belady(touches: Sequence[int], card: int) -> tuple[list[bool], int]:
    """Which touches must bring their block in, at the least, and how many blocks leave."""
    brought, present, left = [], set[int](), 0
    for i, block in enumerate(touches):
        brought.append(block not in present)
        if block in present:
            continue
        if len(present) == card:
            rest = touches[i + 1 :]
            present.remove(max(present, key=lambda b: rest.index(b) if b in rest else len(rest)))
            left += 1
        present.add(block)
    return brought, left


def least(blocks: int, card: int) -> float:
    """Blocks that come in by pass under Belady, in the long run."""
    passes = 4 * (WARM + MEASURED)
    brought, _ = belady(list(range(blocks)) * passes, card)
    half = passes // 2 * blocks
    return sum(brought[half:]) / (passes - passes // 2)


def play(shape: str, blocks: int, card: int, passes: int, profile: str) -> Row:
    """Statistics of a process of its own that makes so many passes."""
    with tempfile.TemporaryDirectory(prefix="emuv-bench-") as folder:
        target = Path(folder, "stats.json")
        env = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_"))}
        env |= {
            "EMUV_SIM_VRAM": str(card * BLOCK),
            "EMUV_SIM_STATS": str(target),
            "EMUV_SIM_STATS_LAUNCHES": "0",
            "EMUV_SIM_PROFILE": profile,
        }
        command = [sys.executable, __file__, "--play", shape, str(blocks), str(card), str(passes)]
        done = subprocess.run(
            command, env=env, capture_output=True, text=True, timeout=CHILD_SECONDS
        )
        if done.returncode:
            raise _bench.BenchmarkError(f"{shape}: {done.stderr.strip() or done.returncode}")
        stats: Row = json.loads(target.read_text())
        device: Row = stats["devices"][0]
        return device


def measure_shape(shape: str, blocks: int, card: int, profiles: Sequence[str]) -> Row:
    """One row: what a pass costs after the first ones."""
    row: Row = {
        "name": f"{shape}, {blocks} blocks on {card}",
        "shape": shape,
        "blocks": blocks,
        "card": card,
        "least_in": least(blocks, card),
        "model_ms": {},
    }
    for profile in profiles:
        before, after = (
            play(shape, blocks, card, passes, profile) for passes in (WARM, WARM + MEASURED)
        )
        row |= {
            key: (after[key] - before[key]) / MEASURED
            for key in ("faults", "evictions", "thrash")
        }
        for way, key in (("in", "to_device_bytes"), ("out", "to_host_bytes")):
            row[way] = {
                cause: (after[key][cause] - before[key][cause]) / MEASURED / BLOCK
                for cause in after[key]
            }
        taken = (after["model_end_ns"] - before["model_end_ns"]) / MEASURED
        row["model_ms"][profile] = round(taken / 1e6, 3)
    row["remote"] = {"read": row["in"].pop("remote"), "written": row["out"].pop("remote")}
    return row


def measure(options: argparse.Namespace) -> Row:
    """All shapes on all sizes."""
    card = 4 if options.quick else 16
    sizes = (card, card + 1) if options.quick else (card // 2, card, card + 1, 3 * card)
    profiles = PROFILES[1:2] if options.quick else PROFILES
    rows = [
        measure_shape(shape, blocks, card, profiles) for shape in SHAPES for blocks in sizes
    ]
    question = "Blocks that cross the link in a pass over managed memory (times are a model)"
    return _bench.envelope("paging_shapes", question, "blocks", None, rows)


def table(document: Row) -> str:
    """The rows as text, for a person."""
    width = max(len(row["name"]) for row in document["rows"])
    lines = [
        document["question"],
        f"{'':{width}} {'in':>6} {'out':>6} {'least':>6} {'faults':>7} {'remote':>7}   model ms",
    ]
    for row in document["rows"]:
        remote = sum(row["remote"].values())
        times = ", ".join(f"{name} {ms:.2f}" for name, ms in row["model_ms"].items())
        lines.append(
            f"{row['name']:{width}} {sum(row['in'].values()):6.1f} {sum(row['out'].values()):6.1f}"
            f" {row['least_in']:6.1f} {row['faults']:7.1f} {remote:7.1f}   {times}"
        )
    return "\n".join(lines)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = _bench.arguments(__doc__)
    made.add_argument("--play", nargs=4, help=argparse.SUPPRESS)
    return made


def main() -> int:
    """Measure, or (in a child) be what is measured."""
    options = parser().parse_args()
    if options.play:
        shape, blocks, card, passes = options.play
        program = Program(shape, int(blocks), int(card))
        for _ in range(int(passes)):
            program.sweep()
        return 0
    return _bench.run(measure, options, table)


if __name__ == "__main__":
    sys.exit(main())
