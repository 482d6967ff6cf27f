# SPDX-License-Identifier: GPL-2.0-only
"""What hints and allocations cost the host, per call and per 2 MiB block.

Purpose: the price list of the residency engine: cuMemPrefetchAsync and cuMemAdvise on ranges that
are already there, on the other side, and never touched; cuMemAllocManaged beside cuMemAlloc.

Invariants
- Host times include one ctypes call; the first row measures that call by itself.
- Every sample starts from the state its row names, with the card idle.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

import _facts_cuda as cu
from _facts_bench import Bench, OutOfTimeError
from _facts_rows import BLOCK, GIB, KIB, MIB, OverLimit, spread

SIZES = (BLOCK, 16 * MIB, 64 * MIB, 256 * MIB)
REPEATS = 7


def costs(bench: Bench) -> None:
    """The section."""
    with bench.attempt("ctypes call"):
        _ctypes_call(bench)
    with bench.attempt("first use of managed memory"):
        _first_managed(bench)
    for size in (4 * KIB, BLOCK, 64 * MIB, GIB):
        for kind in ("cuMemAlloc", "cuMemAllocManaged", "managed, advised", "managed, populated"):
            with bench.attempt(f"{kind} and free", bytes=size):
                _allocate(bench, kind, size)
    for spilled in (True, False):
        _prefetches(bench, spilled)
    with bench.attempt("prefetch of scattered blocks"):
        _scattered(bench)
    _advice(bench)


def _ctypes_call(bench: Bench) -> None:
    function = bench.cuda.function("cuDriverGetVersion")
    value = ctypes.c_int()
    pointer = ctypes.byref(value)

    def hundred() -> None:
        for _ in range(100):
            function(pointer)

    samples = bench.repeat(21, lambda: bench.host_ns(hundred) / 100)
    bench.row("ctypes call", "ns", samples, "cuDriverGetVersion; part of every host time below")


def _first_managed(bench: Bench) -> None:
    """The driver sets its managed-memory machinery up at first use: keep that out of the rest."""
    cuda = bench.cuda

    def once() -> float:
        bench.limit.take(BLOCK)
        try:
            addresses: list[int] = []
            taken = bench.host_ns(lambda: addresses.append(cuda.alloc_managed(BLOCK)))
            cuda.free(addresses[0])
        finally:
            bench.limit.give(BLOCK)
        return taken

    bench.row("first use of managed memory", "ns", [once()], "cuMemAllocManaged of 2 MiB")


def _allocate(bench: Bench, kind: str, size: int) -> None:
    cuda = bench.cuda
    managed = kind != "cuMemAlloc"
    allocate = cuda.alloc_managed if managed else cuda.alloc
    taken: list[float] = []
    freed: list[float] = []
    if size > cuda.memory()[0] // 2:
        raise OverLimit(f"{size} bytes are over half of the free device memory")

    def prepare(address: int) -> None:
        if kind == "managed, advised":
            bench.advise_spilled(address, size)
        if kind == "managed, populated":
            ctypes.memset(address, 1, size)

    def once() -> float:
        if managed:
            bench.limit.take(size)
        try:
            got: list[int] = []
            ns = bench.host_ns(lambda: got.append(allocate(size)))
            if kind == "managed, advised":
                ns += bench.host_ns(lambda: prepare(got[0]))
            else:
                prepare(got[0])
            bench.sync()
            freed.append(bench.host_ns(lambda: cuda.free(got[0])))
        finally:
            if managed:
                bench.limit.give(size)
        taken.append(ns)
        return ns

    bench.repeat(30 if size <= BLOCK else 5, once)
    bench.row(f"{kind}: allocate", "ns", taken, bytes=size)
    bench.row(f"{kind}: free", "ns", freed, bytes=size)


# Prefetch


def _prefetches(bench: Bench, spilled: bool) -> None:
    advice = "preferred CPU, accessed by device" if spilled else "none"
    calls: dict[str, dict[int, float]] = {}
    for size in SIZES if spilled else SIZES[-1:]:
        for state, target in (
            ("never touched", "device"),
            ("never touched", "host"),
            ("on the device", "device"),
            ("on the device", "host"),
            ("on the host", "device"),
            ("on the host", "host"),
        ):
            name = f"prefetch to the {target}, {state}"
            with bench.attempt(name, bytes=size, advice=advice):
                median = _prefetch(bench, name, state, target, size, spilled, advice)
                if median is not None:
                    calls.setdefault(name, {})[size] = median
    for name, by_size in calls.items():
        _slope(bench, name, by_size)


def _prefetch(
    bench: Bench, name: str, state: str, target: str, size: int, spilled: bool, advice: str
) -> float | None:
    cuda = bench.cuda
    where = bench.device if target == "device" else cu.CPU
    call_ns: list[float] = []
    done_ms: list[float] = []

    def measure(address: int) -> None:
        bench.sync()
        ns = [0.0]

        def call() -> None:
            ns[0] = bench.host_ns(lambda: cuda.prefetch(address, size, where, bench.stream))

        done_ms.append(bench.wall_ms(call))
        call_ns.append(ns[0])

    if state == "never touched":
        for _ in range(REPEATS):
            with bench.managed(size, spilled) as address:
                measure(address)
    else:
        start = bench.device if state == "on the device" else cu.CPU
        with bench.managed(size, spilled) as address:
            ctypes.memset(address, 1, size)
            for _ in range(REPEATS):
                cuda.prefetch(address, size, start, bench.stream)
                measure(address)
    bench.row(f"{name}: call", "ns", call_ns, bytes=size, advice=advice)
    bench.row(f"{name}: until done", "ms", done_ms, bytes=size, advice=advice)
    return spread(call_ns)[0]


def _slope(bench: Bench, name: str, by_size: dict[int, float]) -> None:
    """The host cost of one more 2 MiB block in a call, from the smallest and the largest size."""
    if len(by_size) < 2:
        return
    small, large = min(by_size), max(by_size)
    per_block = (by_size[large] - by_size[small]) / ((large - small) / BLOCK)
    bench.row(
        f"{name}: per 2 MiB",
        "ns",
        [per_block],
        "slope of the medians",
        from_bytes=small,
        to_bytes=large,
    )


def _scattered(bench: Bench) -> None:
    """64 blocks of 2 MiB with gaps between them: a call each, and one batch call (CUDA 13)."""
    cuda, count = bench.cuda, 64
    with bench.managed(2 * count * BLOCK, spilled=True) as address:
        ctypes.memset(address, 1, 2 * count * BLOCK)
        places = [address + 2 * index * BLOCK for index in range(count)]
        starts = (ctypes.c_uint64 * count)(*places)
        sizes = (ctypes.c_size_t * count)(*([BLOCK] * count))
        to_device = cu.location(bench.device)
        first = ctypes.c_size_t(0)

        def each() -> None:
            for place in places:
                cuda.prefetch(place, BLOCK, bench.device, bench.stream)

        def batch() -> None:
            cuda.call(
                "cuMemPrefetchBatchAsync",
                starts,
                sizes,
                count,
                ctypes.byref(to_device),
                ctypes.byref(first),
                1,
                0,
                bench.stream,
            )

        for name, body in (("a call each", each), ("one batch call", batch)):
            with bench.attempt(f"prefetch of 64 scattered blocks, {name}"):
                calls: list[float] = []
                done: list[float] = []
                for _ in range(REPEATS):
                    cuda.prefetch(address, 2 * count * BLOCK, cu.CPU, bench.stream)
                    done.append(bench.wall_ms(partial(_append_ns, bench, calls, body)))
                bench.row(f"prefetch of 64 scattered blocks, {name}: calls", "ns", calls)
                bench.row(f"prefetch of 64 scattered blocks, {name}: until done", "ms", done)


def _append_ns(bench: Bench, to: list[float], body: Callable[[], object]) -> None:
    to.append(bench.host_ns(body))


# Advice

_ADVICE = (
    ("preferred location CPU", cu.SET_PREFERRED, cu.UNSET_PREFERRED, cu.CPU),
    ("accessed by the device", cu.SET_ACCESSED_BY, cu.UNSET_ACCESSED_BY, 0),
    ("read mostly", cu.SET_READ_MOSTLY, cu.UNSET_READ_MOSTLY, 0),
)


def _advice(bench: Bench) -> None:
    for label, set_it, unset_it, where in _ADVICE:
        medians: dict[str, dict[int, float]] = {}
        for size in SIZES:
            for state in ("never touched", "on the device", "on the host"):
                name = f"advise {label}, {state}"
                with bench.attempt(name, bytes=size), _in_state(bench, size, state) as address:
                    _advise(bench, name, address, size, (set_it, unset_it, where), medians)
        for name, by_size in medians.items():
            _slope(bench, name, by_size)


@contextmanager
def _in_state(bench: Bench, size: int, state: str) -> Iterator[int]:
    with bench.managed(size) as address:
        if state != "never touched":
            ctypes.memset(address, 1, size)
            where = bench.device if state == "on the device" else cu.CPU
            bench.cuda.prefetch(address, size, where, bench.stream)
        bench.sync()
        yield address


def _advise(
    bench: Bench,
    name: str,
    address: int,
    size: int,
    advice: tuple[int, int, int],
    medians: dict[str, dict[int, float]],
) -> None:
    set_it, unset_it, where = advice
    device = bench.device if where != cu.CPU else cu.CPU

    def timed(which: int) -> Callable[[], object]:
        return lambda: bench.cuda.advise(address, size, which, device)

    first = bench.host_ns(timed(set_it))
    unset: list[float] = []
    again: list[float] = []
    for _ in range(REPEATS):
        if bench.left() <= 0:
            raise OutOfTimeError
        unset.append(bench.host_ns(timed(unset_it)))
        again.append(bench.host_ns(timed(set_it)))
    bench.row(f"{name}: first", "ns", [first], bytes=size)
    bench.row(f"{name}: set", "ns", again, bytes=size)
    bench.row(f"{name}: unset", "ns", unset, bytes=size)
    median = spread(again)[0]
    if median is not None:
        medians.setdefault(name, {})[size] = median
