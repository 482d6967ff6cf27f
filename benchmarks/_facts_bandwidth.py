# SPDX-License-Identifier: GPL-2.0-only
"""What crosses the link, and how fast: copies, prefetches, faults.

Purpose: the ceilings the residency engine is held against: pinned copies and prefetches each way
and both at once, in pieces of 2 MiB to 1 GiB, and demand faulting beside them.

Invariants
- GB/s are 10^9 bytes a second over all bytes moved, both directions summed where there are two.
- Times are host times from an idle card to an idle card: a prefetch to the host is done by the
  host, and an event after it may come early.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import partial

import _facts_cuda as cu
from _facts_bench import Bench, big_enough
from _facts_rows import BLOCK, GIB, MIB

PIECES = (BLOCK, 16 * MIB, 128 * MIB, GIB)
REPEATS = 4
PAGE = 4096


def bandwidth(bench: Bench) -> None:
    """The section."""
    with bench.attempt("pinned copies"):
        _copies(bench)
    with bench.attempt("device copy"):
        _device_copy(bench)
    with bench.attempt("prefetches"):
        _prefetches(bench)
    with bench.attempt("demand faults"):
        _faults(bench)


def _rate(size: float, milliseconds: float) -> float:
    return size / 1e6 / milliseconds if milliseconds > 0 else float("nan")


def _in_pieces(total: int, piece: int) -> list[tuple[int, int]]:
    return [(at, min(piece, total - at)) for at in range(0, total, piece)]


def _timed_rate(bench: Bench, size: int, body: Callable[[], None]) -> float:
    return _rate(size, bench.wall_ms(body))


def _copies(bench: Bench) -> None:
    total = min(GIB, bench.cuda.memory()[0] // 8 // BLOCK * BLOCK)
    call = bench.cuda.call
    with (
        bench.device_memory(total) as to,
        bench.device_memory(total) as source,
        bench.pinned(total) as host_in,
        bench.pinned(total) as host_out,
    ):
        ctypes.memset(host_in, 1, total)
        for piece in PIECES:
            parts = _in_pieces(total, min(piece, total))

            def up(parts: list[tuple[int, int]] = parts) -> None:
                for at, size in parts:
                    call("cuMemcpyHtoDAsync_v2", to + at, host_in + at, size, bench.stream)

            def down(parts: list[tuple[int, int]] = parts) -> None:
                for at, size in parts:
                    call("cuMemcpyDtoHAsync_v2", host_out + at, source + at, size, bench.other)

            def both(parts: list[tuple[int, int]] = parts) -> None:
                for at, size in parts:
                    call("cuMemcpyHtoDAsync_v2", to + at, host_in + at, size, bench.stream)
                    call("cuMemcpyDtoHAsync_v2", host_out + at, source + at, size, bench.other)

            for name, body, moved in (
                ("pinned copy to the device", up, total),
                ("pinned copy to the host", down, total),
                ("pinned copies both ways", both, 2 * total),
            ):
                with bench.attempt(name, piece_bytes=piece):
                    body()  # warm-up
                    samples = bench.repeat(REPEATS, partial(_timed_rate, bench, moved, body))
                    bench.row(name, "GB/s", samples, bytes=moved, piece_bytes=min(piece, total))
    link = bench.nvml.link() if bench.nvml else None
    if link:
        bench.row("PCIe generation", "", [float(link.generation)], "just after the copies")
        bench.row("PCIe lanes", "", [float(link.width)], "just after the copies")


def _device_copy(bench: Bench) -> None:
    total = min(GIB, bench.cuda.memory()[0] // 8 // BLOCK * BLOCK)
    with bench.device_memory(total) as to, bench.device_memory(total) as source:

        def copy() -> None:
            bench.cuda.call("cuMemcpyDtoDAsync_v2", to, source, total, bench.stream)

        copy()
        samples = bench.repeat(10, lambda: _rate(2.0 * total, bench.stream_ms(copy)))
        bench.row(
            "device to device copy", "GB/s", samples, "bytes read plus bytes written", bytes=total
        )


def _prefetches(bench: Bench) -> None:
    total = big_enough(bench, GIB, parts=2)
    prefetch = bench.cuda.prefetch
    device = bench.device
    with bench.managed(total, spilled=True) as one, bench.managed(total, spilled=True) as two:
        ctypes.memset(one, 1, total)
        ctypes.memset(two, 1, total)
        for piece in PIECES:
            parts = _in_pieces(total, min(piece, total))

            def move(
                base: int, where: int, stream: ctypes.c_void_p, parts: list[tuple[int, int]] = parts
            ) -> None:
                for at, size in parts:
                    prefetch(base + at, size, where, stream)

            def swap(outward: int, inward: int, parts: list[tuple[int, int]] = parts) -> None:
                for at, size in parts:
                    prefetch(outward + at, size, cu.CPU, bench.stream)
                    prefetch(inward + at, size, device, bench.other)

            with bench.attempt("prefetch one way", piece_bytes=piece):
                move(one, cu.CPU, bench.stream)
                up: list[float] = []
                down: list[float] = []
                for _ in range(REPEATS):
                    if bench.left() <= 0:
                        break
                    up.append(_timed_rate(bench, total, partial(move, one, device, bench.stream)))
                    down.append(_timed_rate(bench, total, partial(move, one, cu.CPU, bench.stream)))
                size = min(piece, total)
                bench.row("prefetch to the device", "GB/s", up, bytes=total, piece_bytes=size)
                bench.row("prefetch to the host", "GB/s", down, bytes=total, piece_bytes=size)
            with bench.attempt("prefetch both ways", piece_bytes=piece):
                move(one, device, bench.stream)
                move(two, cu.CPU, bench.stream)
                ranges = [one, two]

                def once(
                    swap: Callable[[int, int], None] = swap, ranges: list[int] = ranges
                ) -> float:
                    outward, inward = ranges
                    rate = _timed_rate(bench, 2 * total, lambda: swap(outward, inward))
                    ranges.reverse()
                    return rate

                bench.row(
                    "prefetch both ways at once",
                    "GB/s",
                    bench.repeat(REPEATS, once),
                    "two streams",
                    bytes=2 * total,
                    piece_bytes=min(piece, total),
                )


def _launch_ms(bench: Bench, kernel: str, count: int, step: int, address: int) -> float:
    return bench.timed(kernel, address, count, step)


def _faults(bench: Bench) -> None:
    size = big_enough(bench, 256 * MIB)
    pairs, pages = size // 16, size // PAGE

    def fresh(populate: bool, body: Callable[[int], float]) -> Callable[[], float]:
        def once() -> float:
            with bench.managed(size) as address:
                if populate:
                    ctypes.memset(address, 1, size)
                bench.sync()
                return body(address)

        return once

    bench.kernel("read_sequential")  # compile before the first timed fault
    for name, populate, kernel, count, step in (
        ("demand faults, kernel reads host data", True, "read_sequential", pairs, 0),
        ("demand faults, kernel reads one word a page", True, "read_strided", pages, PAGE),
        ("demand faults, kernel writes host data", True, "write_sequential", pairs, 0),
        ("demand faults, kernel reads untouched memory", False, "read_sequential", pairs, 0),
        ("demand faults, kernel writes untouched memory", False, "write_sequential", pairs, 0),
    ):
        with bench.attempt(name):
            times = bench.repeat(
                3,
                fresh(
                    populate,
                    partial(_launch_ms, bench, kernel, count, step),
                ),
            )
            bench.row(
                name,
                "GB/s",
                [_rate(size, t) for t in times],
                "no advice; page size / time",
                bytes=size,
            )
            bench.row(
                f"{name}: a page of 4 KiB", "ns", [t * 1e6 / pages for t in times], bytes=size
            )
    with bench.attempt("demand faults, host writes device data"):

        def back(address: int) -> float:
            bench.cuda.prefetch(address, size, bench.device, bench.stream)
            return bench.wall_ms(lambda: ctypes.memset(address, 2, size))

        times = bench.repeat(3, fresh(True, back))
        bench.row(
            "demand faults, host writes device data",
            "GB/s",
            [_rate(size, t) for t in times],
            "memset by one thread",
            bytes=size,
        )
    with bench.attempt("host writes untouched managed memory"):
        times = bench.repeat(
            3, fresh(False, lambda address: bench.wall_ms(lambda: ctypes.memset(address, 2, size)))
        )
        bench.row(
            "host writes untouched managed memory",
            "GB/s",
            [_rate(size, t) for t in times],
            "memset by one thread",
            bytes=size,
        )
