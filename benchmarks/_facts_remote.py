# SPDX-License-Identifier: GPL-2.0-only
"""Kernels on memory that stays on the host, and on memory that was promoted.

Purpose: which home for cold bytes is best to read from in place: managed memory preferred on the
CPU, VMM host memory, or pinned memory; and whether promoted managed memory is as fast as plain.

Invariants
- The first launch over a range and the launches after it are separate rows.
- GB/s count the bytes the program asked for; strided and random rows give touches a second.
- Atomics come last on each range: they alone may move pages.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from _facts_bench import Bench, big_enough
from _facts_rows import GIB, MIB

REPEATS = 5
RANDOM_TOUCHES = 1 << 20
ATOMICS = 1 << 13
HOMES = (
    "managed on the CPU, host-populated",
    "managed on the CPU, untouched",
    "managed on the CPU, prefetched to the host",
    "VMM host memory",
    "pinned memory",
)


def remote(bench: Bench) -> None:
    """The section."""
    with bench.attempt("kernels' own answers"):
        _self_check(bench)
    size = 256 * MIB
    with bench.attempt("size of the remote ranges"):
        size = big_enough(bench, size)
    for home in HOMES:
        with bench.attempt(home), _range(bench, home, size) as (address, note):
            _sweep(bench, home, address, size, note, remote=True)
    near = size
    with bench.attempt("size of the near ranges"):
        near = big_enough(bench, GIB)
    for home in ("plain device memory", "managed, promoted", "managed, promoted, no advice"):
        with bench.attempt(home), _range(bench, home, near) as (address, note):
            _sweep(bench, home, address, near, note, remote=False)


@contextmanager
def _range(bench: Bench, home: str, size: int) -> Iterator[tuple[int, str]]:
    """A range of that kind, ready for the first launch: (address, note)."""
    if home == "plain device memory":
        with bench.device_memory(size) as address:
            bench.fill(address, 1, size)
            yield address, ""
    elif home == "pinned memory":
        with bench.pinned(size) as pointer:
            ctypes.memset(pointer, 1, size)
            yield bench.pinned_address(pointer), ""
    elif home == "VMM host memory":
        with bench.host_vmm(size) as (address, grain):
            # the host has no access to it: fill it from the device
            bench.fill(address, 1, size)
            yield address, f"granularity {grain} bytes"
    else:
        with bench.managed(size, spilled="no advice" not in home) as address:
            if "prefetched to the host" in home:
                bench.cuda.prefetch(address, size, -1, bench.stream)
            elif "untouched" not in home:
                ctypes.memset(address, 1, size)
            if "promoted" in home:
                bench.cuda.prefetch(address, size, bench.device, bench.stream)
            bench.sync()
            yield address, ""


def _sweep(bench: Bench, home: str, address: int, size: int, note: str, remote: bool) -> None:
    for name, kernel, count, step, touched in (
        ("sequential reads", "read_sequential", size // 16, 0, 16),
        ("reads every 128 bytes", "read_strided", size // 128, 128, 8),
        ("reads every 4096 bytes", "read_strided", size // 4096, 4096, 8),
        ("random reads", "read_random", RANDOM_TOUCHES, size // 8 - 1, 8),
        ("sequential writes", "write_sequential", size // 16, 7, 16),
        ("writes every 128 bytes", "write_strided", size // 128, 128, 8),
        ("writes every 4096 bytes", "write_strided", size // 4096, 4096, 8),
        ("atomic adds every 4096 bytes", "atomic_strided", min(ATOMICS, size // 4096), 4096, 8),
    ):
        with bench.attempt(f"{home}: {name}"):
            bench.kernel(kernel)
            before = bench.used_bytes() if remote else 0
            first = bench.timed(kernel, address, count, step)
            times = bench.repeat(
                REPEATS,
                partial(bench.timed, kernel, address, count, step),
            )
            moved = bench.used_bytes() - before if remote else 0
            more = {"home": home, "bytes": size, "touches": count}
            if remote:
                more["device_bytes_gained"] = moved
            for label, samples in (("first", [first]), ("repeated", times)):
                if touched == 16:
                    rates = [count * 16 / 1e6 / t for t in samples if t > 0]
                    bench.row(f"{name}, {label}", "GB/s", rates, note, **more)
                else:
                    rates = [count / 1e3 / t for t in samples if t > 0]
                    bench.row(f"{name}, {label}", "million touches/s", rates, note, **more)


def _self_check(bench: Bench) -> None:
    """Each kernel's result against arithmetic: a wrong kernel must not be timed in silence."""
    words = 1 << 20
    size = words * 8
    pairs = words // 2
    ones = 0x0101010101010101
    modulus = 2**64
    with bench.device_memory(size) as address:
        bench.launch("write_sequential", address, pairs, 7)
        bench.launch("read_sequential", address, pairs)
        written = bench.sink_sum() == (pairs * (pairs - 1) // 2 + pairs * 7) % modulus
        bench.fill(address, 1, size)
        bench.launch("read_strided", address, words // 16, 128)
        strided = bench.sink_sum() == (words // 16 * ones) % modulus
        bench.launch("read_random", address, 12345, words - 1)
        random = bench.sink_sum() == (12345 * ones) % modulus
        bench.fill(address, 0, size)
        bench.launch("atomic_strided", address, words // 16, 128)
        bench.launch("atomic_strided", address, words // 16, 128)
        bench.launch("read_sequential", address, pairs)
        atomic = bench.sink_sum() == 2 * (words // 16)
        bench.launch("write_strided", address, words // 16, 128)
        bench.launch("read_strided", address, words // 16, 128)
        stores = bench.sink_sum() == (words // 16) * (words // 16 - 1) // 2
    spin_ms = bench.stream_ms(lambda: bench.spin(10.0))
    wrong = [
        name
        for name, good in (
            ("sequential", written),
            ("strided read", strided),
            ("random", random),
            ("atomic", atomic),
            ("strided write", stores),
        )
        if not good
    ]
    note = "all right" if not wrong else "WRONG: " + ", ".join(wrong)
    bench.row("kernels' own answers", "wrong kernels", [float(len(wrong))], note)
    bench.row("a spin of 10 ms", "ms", [spin_ms])
