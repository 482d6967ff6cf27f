# SPDX-License-Identifier: GPL-2.0-only
"""What things really cost on the card: allocations, arrays, pools, contexts.

Purpose: the difference between what a program asks for (what emuV charges) and what the card has
less of afterwards; the alignment programs may rely on; the overhead of a context.

Invariants
- Every figure is a difference of the card's used bytes over many objects of one kind, divided by
  their number: small figures are averages.
- Never more than a sixteenth of the free memory is held, and all of it is plain.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
from ctypes import c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import _facts_cuda as cu
from _facts_bench import Bench
from _facts_nvml import Nvml
from _facts_ptx import HEADS, module_text
from _facts_rows import BLOCK, KIB, MIB
from _facts_stacks import die_with_parent

CHILD_SECONDS = 25.0

# (label, bytes, how many)
ALLOCATIONS = (
    ("1 B", 1, 16384),
    ("512 B", 512, 16384),
    ("513 B", 513, 16384),
    ("4 KiB", 4 * KIB, 4096),
    ("64 KiB", 64 * KIB, 1024),
    ("512 KiB", 512 * KIB, 256),
    ("1 MiB - 1", MIB - 1, 128),
    ("1 MiB", MIB, 128),
    ("1 MiB + 1", MIB + 1, 128),
    ("1.5 MiB", 3 * MIB // 2, 128),
    ("2 MiB", BLOCK, 128),
    ("2 MiB + 1", BLOCK + 1, 64),
    ("3 MiB", 3 * MIB, 64),
    ("20 MiB", 20 * MIB, 16),
)

# (width, height, depth, format, bytes of a channel, channels, how many)
ARRAYS = (
    (1, 0, 0, cu.FORMAT_U8, 1, 1, 256),
    (4096, 0, 0, cu.FORMAT_FLOAT, 4, 1, 256),
    (100, 100, 0, cu.FORMAT_U8, 1, 1, 256),
    (1000, 1000, 0, cu.FORMAT_U8, 1, 4, 32),
    (1024, 1024, 0, cu.FORMAT_FLOAT, 4, 4, 16),
    (4096, 4096, 0, cu.FORMAT_U16, 2, 2, 4),
    (128, 128, 128, cu.FORMAT_FLOAT, 4, 1, 16),
    (100, 100, 100, cu.FORMAT_U8, 1, 1, 16),
)


def footprint(bench: Bench) -> None:
    """The section."""
    for label, size, count in ALLOCATIONS:
        for kind in ("cuMemAlloc", "cuMemAllocAsync", "cuMemCreate"):
            if kind == "cuMemCreate" and size != BLOCK:
                continue
            with bench.attempt(f"{kind} {label}"):
                _allocations(bench, kind, label, size, count)
    with bench.attempt("alignment of managed memory"):
        _managed_alignment(bench)
    with bench.attempt("pitch"):
        _pitches(bench)
    for shape in ARRAYS:
        with bench.attempt(f"array {shape[0]}x{shape[1]}x{shape[2]}"):
            _arrays(bench, shape)
    with bench.attempt("mipmapped array"):
        _mipmaps(bench)


def _alignment(addresses: list[int]) -> int:
    """The largest power of two that divides every address."""
    together = 0
    for address in addresses:
        together |= address
    return together & -together


def _affordable(bench: Bench, size: int, count: int) -> int:
    room = bench.cuda.memory()[0] // 16
    return max(1, min(count, room // max(size, 512)))


def _allocations(bench: Bench, kind: str, label: str, size: int, count: int) -> None:
    cuda = bench.cuda
    count = _affordable(bench, size, count)
    before, info_before = bench.used_bytes(), cuda.memory()[0]
    addresses: list[int] = []
    handles: list[int] = []
    try:
        for _ in range(count):
            out = c_uint64()
            if kind == "cuMemAlloc":
                cuda.call("cuMemAlloc_v2", ctypes.byref(out), size)
                addresses.append(out.value)
            elif kind == "cuMemAllocAsync":
                cuda.call("cuMemAllocAsync", ctypes.byref(out), size, bench.stream)
                addresses.append(out.value)
            else:
                where = cu.MemLocation(cu.LOCATION_DEVICE, bench.device)
                prop = cu.AllocationProp(type=1, requested_handle_types=0, location=where)
                cuda.call("cuMemCreate", ctypes.byref(out), size, ctypes.byref(prop), 0)
                handles.append(out.value)
        after, info_after = bench.used_bytes(), cuda.memory()[0]
    finally:
        for address in addresses:
            if kind == "cuMemAlloc":
                cuda.code("cuMemFree_v2", address)
            else:
                cuda.code("cuMemFreeAsync", address, bench.stream)
        for handle in handles:
            cuda.code("cuMemRelease", handle)
        bench.settle()
        if kind == "cuMemAllocAsync":
            pool = c_void_p()
            cuda.code("cuDeviceGetDefaultMemPool", ctypes.byref(pool), bench.device)
            cuda.code("cuMemPoolTrimTo", pool, 0)
    bench.row(
        f"{kind} of {label}",
        "bytes of the card each",
        [(after - before) / count],
        f"by {bench.used_source}",
        asked_bytes=size,
        allocations=count,
        by_cumemgetinfo=round((info_before - info_after) / count, 1),
        alignment=_alignment(addresses) if addresses else None,
        left_after_free=bench.used_bytes() - before,
    )


def _managed_alignment(bench: Bench) -> None:
    for label, size in (("1 B", 1), ("4 KiB", 4 * KIB), ("1 MiB", MIB), ("2 MiB + 1", BLOCK + 1)):
        addresses: list[int] = []
        taken = 0
        try:
            for _ in range(16):
                bench.limit.take(size)
                taken += size
                addresses.append(bench.cuda.alloc_managed(size))
        finally:
            for address in addresses:
                bench.cuda.code("cuMemFree_v2", address)
            bench.limit.give(taken)
        bench.row(
            f"cuMemAllocManaged of {label}",
            "bytes of alignment",
            [float(_alignment(addresses))],
            asked_bytes=size,
        )


def _pitches(bench: Bench) -> None:
    for width in (1, 100, 512, 513, 1000, 4097):
        for element in (4, 16):
            address, pitch = c_uint64(), c_size_t()
            bench.cuda.call(
                "cuMemAllocPitch_v2", ctypes.byref(address), ctypes.byref(pitch), width, 64, element
            )
            bench.cuda.code("cuMemFree_v2", address.value)
            bench.row(
                "cuMemAllocPitch",
                "bytes of pitch",
                [float(pitch.value)],
                width_bytes=width,
                element_bytes=element,
            )


def _arrays(bench: Bench, shape: tuple[int, int, int, int, int, int, int]) -> None:
    width, height, depth, kind, channel_bytes, channels, count = shape
    cuda = bench.cuda
    computed = width * max(height, 1) * max(depth, 1) * channel_bytes * channels
    count = _affordable(bench, max(computed, BLOCK), count)
    before = bench.used_bytes()
    made: list[c_void_p] = []
    required = cu.ArrayRequirements()
    try:
        for _ in range(count):
            array = c_void_p()
            if depth:
                solid = cu.Array3DDescriptor(width, height, depth, kind, channels, 0)
                cuda.call("cuArray3DCreate_v2", ctypes.byref(array), ctypes.byref(solid))
            else:
                flat = cu.ArrayDescriptor(width, height, kind, channels)
                cuda.call("cuArrayCreate_v2", ctypes.byref(array), ctypes.byref(flat))
            made.append(array)
        after = bench.used_bytes()
        known = (
            cuda.has("cuArrayGetMemoryRequirements")
            and cuda.code(
                "cuArrayGetMemoryRequirements", ctypes.byref(required), made[0], bench.device
            )
            == cu.SUCCESS
        )
    finally:
        for array in made:
            cuda.code("cuArrayDestroy", array)
        bench.settle()
    bench.row(
        f"array {width}x{height}x{depth}, {channels} of {channel_bytes} bytes",
        "bytes of the card each",
        [(after - before) / count],
        f"by {bench.used_source}",
        computed_bytes=computed,
        arrays=count,
        # what cuArrayGetMemoryRequirements says; null where it answers deferred arrays only
        required_bytes=int(required.size) if known else None,
    )


def _mipmaps(bench: Bench) -> None:
    levels, side, count = 11, 1024, 8
    computed = sum((side >> level) ** 2 * 4 for level in range(levels))
    before = bench.used_bytes()
    made: list[c_void_p] = []
    try:
        for _ in range(count):
            mipmap = c_void_p()
            descriptor = cu.Array3DDescriptor(side, side, 0, cu.FORMAT_U8, 4, 0)
            bench.cuda.call(
                "cuMipmappedArrayCreate", ctypes.byref(mipmap), ctypes.byref(descriptor), levels
            )
            made.append(mipmap)
        after = bench.used_bytes()
    finally:
        for mipmap in made:
            bench.cuda.code("cuMipmappedArrayDestroy", mipmap)
        bench.settle()
    bench.row(
        "mipmapped array 1024x1024, 4 of 1 byte, 11 levels",
        "bytes of the card each",
        [(after - before) / count],
        f"by {bench.used_source}",
        computed_bytes=computed,
        arrays=count,
    )


# Contexts: each in a process of its own


def contexts(bench: Bench) -> None:
    """Section: what a context costs, by device, by stage and by module loading mode."""
    count = ctypes.c_int()
    bench.cuda.call("cuDeviceGetCount", ctypes.byref(count))
    for device in range(count.value):
        # the second mode on the first device only: it is about the driver, not the card
        for loading in ("LAZY", "EAGER") if device == 0 else ("LAZY",):
            name = f"context, {loading}" if device == 0 else f"context on device {device}"
            with bench.attempt(name):
                bench.in_time()
                for row in _context_child(bench.cuda.path, loading, device):
                    bench.row(
                        f"{name}: {row['stage']}",
                        "bytes of the card",
                        [float(row["bytes"])],
                        row["source"],
                        device=row["device"],
                        process_bytes=row["process_bytes"],
                        by_cumemgetinfo=row["by_cumemgetinfo"],
                    )


def _context_child(driver: str, loading: str, device: int) -> list[dict[str, Any]]:
    script = Path(__file__).with_name("driver_facts.py")
    child = subprocess.Popen(
        [sys.executable, str(script), "--child", "context", "--driver", driver],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        env={**os.environ, "CUDA_MODULE_LOADING": loading, "EMUV_FACTS_DEVICE": str(device)},
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    try:
        out, _ = child.communicate(timeout=CHILD_SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise
    if child.returncode != 0:
        raise RuntimeError(f"the context's process ended with {child.returncode}")
    return [json.loads(line) for line in out.splitlines()]


def context_child(driver: str) -> int:
    """The child's side: used bytes after each stage of a program's start, as JSON lines."""
    cuda = cu.Cuda(driver)
    cuda.start()
    device = int(os.environ.get("EMUV_FACTS_DEVICE", "0"))
    nvml = Nvml.open(cuda.pci_bus_id(device))
    used = nvml.used_bytes() if nvml else None
    base = used or 0

    def say(stage: str) -> None:
        total_used = nvml.used_bytes() if nvml else None
        by_pid = nvml.process_bytes() if nvml else {}
        free, total = cuda.memory()
        print(
            json.dumps(
                {
                    "stage": stage,
                    "device": cuda.device_name(device),
                    "bytes": (total_used - base) if total_used is not None else total - free,
                    "source": "NVML"
                    if total_used is not None
                    else "cuMemGetInfo: all that is in use",
                    "process_bytes": by_pid.get(os.getpid()),
                    "by_cumemgetinfo": total - free,
                }
            ),
            flush=True,
        )

    cuda.retain(device)
    say("primary context")
    stream = cuda.stream()
    say("first stream")
    module = c_void_p()
    for version, target in HEADS:
        text = ctypes.create_string_buffer(module_text(version, target).encode())
        if cuda.code("cuModuleLoadDataEx", ctypes.byref(module), text, 0, None, None) == 0:
            break
    say("first module")
    function = c_void_p()
    ready = cuda.code("cuModuleGetFunction", ctypes.byref(function), module, b"spin") == 0
    if ready:
        sink = cuda.alloc(512)
        say("first allocation of 512 bytes")
        values = [c_uint64(v) for v in (0, 1000, 1000, sink)]
        params = (c_void_p * 4)(*(ctypes.addressof(v) for v in values))
        if cuda.code("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, stream, params, None) == 0:
            cuda.call("cuCtxSynchronize")
            say("first launch")
        address = c_uint64()
        if cuda.code("cuMemAllocManaged", ctypes.byref(address), BLOCK, cu.ATTACH_GLOBAL) == 0:
            say("first managed allocation of 2 MiB")
    cuda.code("cuDevicePrimaryCtxRelease_v2", device)
    return 0
