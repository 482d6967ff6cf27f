# SPDX-License-Identifier: GPL-2.0-only
"""What calls do: do they wait, do discards save bytes, what may be called while capturing.

Purpose: the questions with a yes or no (host-synchronous copies, discard, allocation during
stream capture, cuGetProcAddress), answered by a clock or a code, not by documentation.

Invariants
- A stream is kept busy by a spin of known length; nothing waits for more than 100 ms of it.
- Each captured call gets a stream and a capture of its own; the capture is always ended.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable
from ctypes import c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import NamedTuple

import _facts_cuda as cu
from _facts_bench import Bench, big_enough
from _facts_rows import BLOCK, MIB

SPIN_MS = 20.0
COMMON = Path(__file__).resolve().parent.parent / "csrc"


# Do calls wait?


def waiting(bench: Bench) -> None:
    """Section: which calls return at once behind a busy stream, and which wait for it."""
    size = big_enough(bench, 64 * MIB, parts=2)
    cuda, stream = bench.cuda, bench.stream
    pageable = ctypes.create_string_buffer(size)
    paged = ctypes.addressof(pageable)
    with (
        bench.managed(size, spilled=True) as far,
        bench.managed(size, spilled=True) as near,
        bench.device_memory(size) as plain,
        bench.pinned(size) as pinned,
    ):
        ctypes.memset(far, 1, size)
        ctypes.memset(near, 1, size)
        cuda.prefetch(near, size, bench.device, stream)
        bench.sync()

        def copy(kind: str, to: int, source: int) -> Callable[[], None]:
            return lambda: cuda.call(f"cuMemcpy{kind}Async_v2", to, source, size, stream)

        for name, body in (
            ("copy pinned to plain device", copy("HtoD", plain, pinned)),
            ("copy plain device to pinned", copy("DtoH", pinned, plain)),
            ("copy pageable to plain device", copy("HtoD", plain, paged)),
            ("copy plain device to pageable", copy("DtoH", paged, plain)),
            ("copy pinned to managed on the host", copy("HtoD", far, pinned)),
            ("copy managed on the host to pinned", copy("DtoH", pinned, far)),
            ("copy pinned to promoted managed", copy("HtoD", near, pinned)),
            ("copy promoted managed to pinned", copy("DtoH", pinned, near)),
            ("copy plain device to managed on the host", copy("DtoD", far, plain)),
            ("copy managed on the host to plain device", copy("DtoD", plain, far)),
            ("copy between managed ranges", copy("DtoD", near, far)),
            ("set managed on the host", lambda: cuda.call("cuMemsetD8Async", far, 1, size, stream)),
            ("set promoted managed", lambda: cuda.call("cuMemsetD8Async", near, 1, size, stream)),
            ("prefetch to the device", lambda: cuda.prefetch(far, size, bench.device, stream)),
            ("prefetch to the host", lambda: cuda.prefetch(far, size, cu.CPU, stream)),
            (
                "advise accessed by",
                lambda: cuda.advise(far, size, cu.SET_ACCESSED_BY, bench.device),
            ),
        ):
            with bench.attempt(f"behind a busy stream: {name}"):
                _behind_spin(bench, name, body)
            with bench.attempt(f"on an idle card: {name}"):
                _own_work(bench, name, body, size)
        with bench.attempt("behind a busy stream: allocate and free managed"):
            _behind_spin(bench, "allocate and free managed", lambda: _alloc_free(bench, True))
        with bench.attempt("behind a busy stream: allocate and free plain"):
            _behind_spin(bench, "allocate and free plain", lambda: _alloc_free(bench, False))


def _alloc_free(bench: Bench, managed: bool) -> None:
    if managed:
        bench.limit.take(BLOCK)
    try:
        address = bench.cuda.alloc_managed(BLOCK) if managed else bench.cuda.alloc(BLOCK)
        bench.cuda.free(address)
    finally:
        if managed:
            bench.limit.give(BLOCK)


def _behind_spin(bench: Bench, name: str, body: Callable[[], object]) -> None:
    def once() -> float:
        bench.sync()
        bench.spin(SPIN_MS)
        taken = bench.host_ns(body) / 1e6
        bench.sync()
        return taken

    samples = bench.repeat(3, once)
    waits = sorted(samples)[len(samples) // 2] > SPIN_MS * 0.75
    bench.row(
        f"behind a busy stream: {name}",
        "ms the call took",
        samples,
        "waits for the stream" if waits else "returns at once",
        spin_ms=SPIN_MS,
    )


def _own_work(bench: Bench, name: str, body: Callable[[], object], size: int) -> None:
    calls: list[float] = []

    def once() -> float:
        return bench.wall_ms(lambda: calls.append(bench.host_ns(body) / 1e6))

    whole = bench.repeat(3, once)
    call = sorted(calls)[len(calls) // 2]
    done = sorted(whole)[len(whole) // 2]
    waits = call > 0.7 * done and done > 0.1
    bench.row(
        f"on an idle card: {name}",
        "ms the call took",
        calls,
        "waits for its own work" if waits else "returns before its work is done",
        until_done_ms=round(done, 4),
        bytes=size,
    )


# Discard


def discard(bench: Bench) -> None:
    """Section: does discarding a range keep its dead bytes off the link?"""
    cuda, stream = bench.cuda, bench.stream
    for name in ("cuMemDiscardBatchAsync", "cuMemDiscardAndPrefetchBatchAsync"):
        if not cuda.has(name):
            bench.row(name, "", [], f"the driver (CUDA {cuda.version}) does not export it")
    size = big_enough(bench, 512 * MIB)

    def discard_call(address: int) -> None:
        cuda.call(
            "cuMemDiscardBatchAsync",
            ctypes.byref(c_uint64(address)),
            ctypes.byref(c_size_t(size)),
            1,
            0,
            stream,
        )

    def discard_and_prefetch(address: int, where: int) -> None:
        target = cu.location(where)
        cuda.call(
            "cuMemDiscardAndPrefetchBatchAsync",
            ctypes.byref(c_uint64(address)),
            ctypes.byref(c_size_t(size)),
            1,
            ctypes.byref(target),
            ctypes.byref(c_size_t(0)),
            1,
            0,
            stream,
        )

    def moves(address: int, where: int, how: str) -> tuple[float, float]:
        """(milliseconds of the move itself, of the discard before it)."""
        before = 0.0
        if how == "discarded first":
            before = bench.wall_ms(lambda: discard_call(address))
        if how == "discard and prefetch":
            return bench.wall_ms(lambda: discard_and_prefetch(address, where)), 0.0
        return bench.wall_ms(lambda: cuda.prefetch(address, size, where, stream)), before

    plain: dict[str, float] = {}
    for direction, start, end in (
        ("to the host", bench.device, cu.CPU),
        ("to the device", cu.CPU, bench.device),
    ):
        for how in ("plain", "discarded first", "discard and prefetch"):
            name = f"prefetch {direction}, {how}"
            with bench.attempt(name), bench.managed(size, spilled=True) as address:
                times: list[float] = []
                discards: list[float] = []
                for _ in range(4):
                    if bench.left() <= 0:
                        break
                    ctypes.memset(address, 3, size)  # live bytes again
                    cuda.prefetch(address, size, start, stream)
                    bench.sync()
                    moved, discarded = moves(address, end, how)
                    times.append(moved)
                    discards.append(discarded)
                middle = sorted(times)[len(times) // 2]
                if how == "plain":
                    plain[direction] = middle
                share = middle / plain[direction] if plain.get(direction) else float("nan")
                bench.row(
                    name,
                    "ms",
                    times,
                    "share of the plain time = share of link bytes, at most",
                    bytes=size,
                    share_of_plain=round(share, 4),
                )
                if how == "discarded first":
                    bench.row(
                        f"the discard before a prefetch {direction}", "ms", discards, bytes=size
                    )
    with bench.attempt("device memory after a discard"):
        base = bench.used_bytes()
        with bench.managed(size, spilled=True) as address:
            ctypes.memset(address, 3, size)
            cuda.prefetch(address, size, bench.device, stream)
            held = bench.used_bytes() - base
            discard_call(address)
            after = bench.used_bytes() - base
            bench.row(
                "device memory after a discard",
                "bytes still held",
                [float(after)],
                f"by {bench.used_source}",
                bytes=size,
                held_before=held,
            )


# Stream capture


class _Capture(NamedTuple):
    stream: c_void_p
    other: c_void_p
    existing: int  # plain device memory allocated before the capture
    managed: int  # managed memory allocated before the capture


def capture(bench: Bench) -> None:
    """Section: what each allocation call answers while a stream captures, in each mode."""
    for mode, number in cu.CAPTURE_MODES.items():
        for name, body in _CAPTURED.items():
            with bench.attempt(f"capture {mode}: {name}"):
                _one_capture(bench, mode, number, name, body)


def _one_capture(
    bench: Bench, mode: str, number: int, name: str, body: Callable[[Bench, _Capture], int]
) -> None:
    cuda = bench.cuda
    with bench.device_memory(BLOCK) as existing, bench.managed(BLOCK) as managed:
        bench.sync()
        stream = cuda.stream()
        graph = c_void_p()
        cuda.call("cuStreamBeginCapture_v2", stream, number)
        try:
            code = body(bench, _Capture(stream, bench.other, existing, managed))
            status = c_int(-1)
            cuda.code("cuStreamIsCapturing", stream, ctypes.byref(status))
        finally:
            ended = cuda.code("cuStreamEndCapture", stream, ctypes.byref(graph))
            if graph.value:
                cuda.code("cuGraphDestroy", graph)
            cuda.code("cuStreamDestroy_v2", stream)
        for address, size in _leftovers:
            cuda.code("cuMemFree_v2", address)
            if size:
                bench.limit.give(size)
        _leftovers.clear()
        bench.row(
            f"capture {mode}: {name}",
            "CUresult",
            [float(code)],
            cuda.error_name(code),
            capture_status=status.value,
            end_capture=cuda.error_name(ended),
        )


# (address, managed bytes) allocated while capturing, to free when the capture has ended
_leftovers: list[tuple[int, int]] = []


def _keep(address: c_uint64, code: int, managed: int = 0) -> int:
    if code == cu.SUCCESS:
        _leftovers.append((address.value, managed))
    return code


def _capture_alloc(bench: Bench, at: _Capture) -> int:
    out = c_uint64()
    return _keep(out, bench.cuda.code("cuMemAlloc_v2", ctypes.byref(out), BLOCK))


def _capture_managed(bench: Bench, at: _Capture) -> int:
    out = c_uint64()
    bench.limit.take(BLOCK)
    code = bench.cuda.code("cuMemAllocManaged", ctypes.byref(out), BLOCK, cu.ATTACH_GLOBAL)
    if code != cu.SUCCESS:
        bench.limit.give(BLOCK)
    return _keep(out, code, BLOCK)


def _capture_async(bench: Bench, at: _Capture) -> int:
    # the address belongs to the graph: nothing to free
    return bench.cuda.code("cuMemAllocAsync", ctypes.byref(c_uint64()), BLOCK, at.stream)


def _capture_async_other(bench: Bench, at: _Capture) -> int:
    out = c_uint64()
    return _keep(out, bench.cuda.code("cuMemAllocAsync", ctypes.byref(out), BLOCK, at.other))


def _capture_free(bench: Bench, at: _Capture) -> int:
    out = c_uint64()
    code = bench.cuda.code("cuMemAlloc_v2", ctypes.byref(out), BLOCK)
    if code != cu.SUCCESS:
        return code
    code = bench.cuda.code("cuMemFree_v2", out.value)
    if code != cu.SUCCESS:
        _leftovers.append((out.value, 0))
    return code


def _capture_host(bench: Bench, at: _Capture) -> int:
    pointer = c_void_p()
    code = bench.cuda.code("cuMemHostAlloc", ctypes.byref(pointer), BLOCK, 0)
    if code == cu.SUCCESS:
        bench.cuda.code("cuMemFreeHost", pointer)
    return code


def _capture_info(bench: Bench, at: _Capture) -> int:
    free, total = c_size_t(), c_size_t()
    return bench.cuda.code("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))


def _capture_create(bench: Bench, at: _Capture) -> int:
    where = cu.MemLocation(cu.LOCATION_DEVICE, bench.device)
    prop = cu.AllocationProp(type=1, requested_handle_types=0, location=where)
    handle = c_uint64()
    code = bench.cuda.code("cuMemCreate", ctypes.byref(handle), BLOCK, ctypes.byref(prop), 0)
    if code == cu.SUCCESS:
        bench.cuda.code("cuMemRelease", handle.value)
    return code


def _capture_advise(bench: Bench, at: _Capture) -> int:
    try:
        bench.advise_spilled(at.managed, BLOCK)
    except cu.CudaError as error:
        return error.code
    return cu.SUCCESS


_CAPTURED: dict[str, Callable[[Bench, _Capture], int]] = {
    "nothing": lambda bench, at: cu.SUCCESS,
    "cuMemAlloc": _capture_alloc,
    "cuMemAlloc and cuMemFree": _capture_free,
    "cuMemAllocManaged": _capture_managed,
    "cuMemAllocAsync in the captured stream": _capture_async,
    "cuMemAllocAsync in another stream": _capture_async_other,
    "cuMemHostAlloc": _capture_host,
    "cuMemCreate": _capture_create,
    "cuMemGetInfo": _capture_info,
    "cuMemAdvise": _capture_advise,
    "cuMemPrefetchAsync in the captured stream": lambda bench, at: bench.cuda.prefetch_code(
        at.managed, BLOCK, bench.device, at.stream
    ),
    "cuMemPrefetchAsync in another stream": lambda bench, at: bench.cuda.prefetch_code(
        at.managed, BLOCK, bench.device, at.other
    ),
    "cuMemsetD8Async in the captured stream": lambda bench, at: bench.cuda.code(
        "cuMemsetD8Async", at.existing, 0, BLOCK, at.stream
    ),
}


# cuGetProcAddress


class Symbol(NamedTuple):
    """A row of driver_api.def."""

    export: str
    name: str
    version: int
    flag: int


def driver_symbols(path: Path | None = None) -> list[Symbol]:
    """The rows of csrc/common/driver_api.def."""
    text = (path or COMMON / "common" / "driver_api.def").read_text(encoding="utf-8")
    rows = re.findall(r"^EMUV_API\((\w+), (\w+), (\d+), (\d+)\)", text, re.MULTILINE)
    return [Symbol(export, name, int(version), int(flag)) for export, name, version, flag in rows]


def hooked_exports(path: Path | None = None) -> set[str]:
    """The exports of csrc/shim/hooks.def; empty if there is no such file."""
    place = path or COMMON / "shim" / "hooks.def"
    if not place.is_file():
        return set()
    return set(re.findall(r"^\s*EMUV_\w*HOOK\w*\(\s*(\w+)", place.read_text(), re.MULTILINE))


def procaddress(bench: Bench) -> None:
    """Section: does cuGetProcAddress return the exported address, for every symbol known?"""
    cuda = bench.cuda
    hooked = hooked_exports()
    groups: dict[str, list[str]] = {}
    get = cuda.function("cuGetProcAddress_v2")
    for symbol in driver_symbols():
        found, status = c_void_p(), c_int(-1)
        flags = 2 if symbol.flag else 0
        code = int(
            get(
                symbol.name.encode(),
                ctypes.byref(found),
                symbol.version,
                flags,
                ctypes.byref(status),
            )
        )
        exported = _export(cuda, symbol.export)
        answered = found.value if code == cu.SUCCESS else None
        if answered and exported:
            group = "equal" if answered == exported else "different address"
        elif answered:
            group = "answered, not exported"
        elif exported:
            group = "exported, not answered"
        elif symbol.version > cuda.version:
            group = "newer than the driver"
        else:
            group = "neither answered nor exported"
        mark = "*" if symbol.export in hooked else ""
        detail = "" if group in ("equal", "newer than the driver") else f" ({symbol.version})"
        groups.setdefault(group, []).append(f"{symbol.export}{detail}{mark}")
    for group, names in sorted(groups.items()):
        hooked_here = sorted(n for n in names if n.endswith("*"))
        quiet = group in ("equal", "newer than the driver")
        bench.row(
            f"cuGetProcAddress against dlsym: {group}",
            "symbols",
            [float(len(names))],
            "* marks what emuV hooks",
            driver=cuda.version,
            hooked=hooked_here if not quiet else len(hooked_here),
            symbols=[] if quiet else sorted(names),
        )


def _export(cuda: cu.Cuda, name: str) -> int | None:
    try:
        return ctypes.cast(cuda.lib[name], c_void_p).value
    except AttributeError:
        return None
