# SPDX-License-Identifier: GPL-2.0-only
"""For the short programs that tests run in front of libemuv.so (shim_tools.run_child).

A program opens libcuda.so.1 as any other does, and may look at itself from
outside: the segment (`books`) and the simulated GPU (`Driver.sim`).
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))

from cuda_driver import AllocationProp, Array3DDescriptor, ArrayDescriptor, Driver, Location

MIB = 1 << 20
OOM = 2
UINT8 = 1  # CU_AD_FORMAT_UNSIGNED_INT8
ATTACH_GLOBAL = 1


class ArrayDescriptorV1(ctypes.Structure):
    """CUDA_ARRAY_DESCRIPTOR of the 3.1 ABI."""

    _fields_ = [("width", c_uint), ("height", c_uint), ("format", c_int), ("channels", c_uint)]


class Array3DDescriptorV1(ctypes.Structure):
    """CUDA_ARRAY3D_DESCRIPTOR of the 3.1 ABI."""

    _fields_ = [
        ("width", c_uint), ("height", c_uint), ("depth", c_uint),
        ("format", c_int), ("channels", c_uint), ("flags", c_uint),
    ]  # fmt: skip


def answer(**values: Any) -> None:
    """The program's answer to its test: the last line of stdout."""
    print(json.dumps(values), flush=True)


def started(device: int = 0, library: str = "libcuda.so.1") -> Driver:
    """A driver with the device's primary context current."""
    d = Driver(library)
    d.cuInit(0)
    d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", device))
    return d


def books(device: int = 0) -> dict[str, Any]:
    """What the segment says of this process now."""
    from emuv_shim.controller import Controller

    with Controller(os.environ["EMUV_RUNTIME_DIR"]) as controller:
        return controller.get(os.getpid()).stats.devices[device].to_json()


def held(device: int = 0) -> list[int]:
    """[device, managed, resident, live] of the segment: what a free must bring to 0."""
    b = books(device)
    return [b["device_bytes"], b["managed_bytes"], b["promoted_bytes"], b["live_allocations"]]


def stream(d: Driver, flags: int = 1) -> int:
    return d.new("cuStreamCreate", flags)


def resident(d: Driver, address: int, size: int, device: int = 0) -> int:
    """Bytes of a managed range on the device, by the simulated GPU's own word."""
    table, out = d.sim(), c_uint64()
    assert table is not None
    assert table.resident(address, size, device, byref(out)) == 0
    return out.value


def card_used(d: Driver, device: int = 0) -> int:
    """Bytes in use on the simulated card."""
    table, out = d.sim(), c_uint64()
    assert table is not None
    assert table.device_used(device, byref(out)) == 0
    return out.value


def calls(d: Driver, function: str) -> int:
    """How often the simulated driver was called."""
    table, out = d.sim(), c_uint64()
    assert table is not None
    assert table.calls(function.encode(), byref(out)) == 0
    return out.value


def fail_next(d: Driver, function: str, nth: int, code: int) -> None:
    table = d.sim()
    assert table is not None
    assert table.fail(function.encode(), nth, code) == 0


def hold(d: Driver, handle: int, on: bool) -> None:
    table = d.sim()
    assert table is not None
    assert table.hold_stream(handle, int(on)) == 0


class Route:
    """One way to get memory: `take(bytes)` gives (code, handle), `give(handle)` the code."""

    def __init__(
        self, d: Driver, take: Callable[[Any, int], int], free: str, piece: int,
        kind: Any = c_uint64,
    ) -> None:  # fmt: skip
        self._take, self._free, self.piece, self.d, self._kind = take, free, piece, d, kind

    def take(self, size: int) -> tuple[int, int]:
        out = self._kind()
        code = self._take(byref(out), size)
        return code, int(out.value)

    def give(self, handle: int) -> int:
        return self.d.code(self._free, handle)

    def grab(self, most: int = 600) -> tuple[list[int], int]:
        """Pieces until one is refused: handles, and the refusal's code (0: none)."""
        handles: list[int] = []
        for _ in range(most * MIB // self.piece):
            code, handle = self.take(self.piece)
            if code:
                return handles, code
            handles.append(handle)
        return handles, 0


def routes(d: Driver) -> dict[str, Callable[[], Route]]:
    """Every allocation route that emuV hooks, by the name of its driver function."""
    pitch, pitch_v1 = c_size_t(), c_uint()
    props = AllocationProp(1, 0, Location(1, 0), None, 0, 0, 0)

    def simple(name: str, free: str, *more: Any, kind: Any = c_uint64) -> Route:
        return Route(d, lambda out, n: d.code(name, out, n, *more), free, MIB, kind)

    def pool(name: str) -> Route:
        p = d.new("cuDeviceGetDefaultMemPool", 0)
        return Route(d, lambda out, n: d.code(name, out, n, p, 0), "cuMemFree_v2", MIB)

    def asynchronous(name: str) -> Route:
        free = "cuMemFreeAsync_ptsz" if name.endswith("_ptsz") else "cuMemFreeAsync"
        route = Route(d, lambda out, n: d.code(name, out, n, 0), "cuMemFree_v2", MIB)
        route.give = lambda handle: d.code(free, handle, 0)  # type: ignore[method-assign]
        return route

    def array(name: str, kind: Any) -> Route:
        return Route(
            d, lambda out, n: d.code(name, out, byref(kind(1024, n // 1024, UINT8, 1))),
            "cuArrayDestroy", MIB,
        )  # fmt: skip

    def deep(name: str, kind: Any) -> Route:
        return Route(
            d, lambda out, n: d.code(name, out, byref(kind(256, 256, n // 65536, UINT8, 1, 0))),
            "cuArrayDestroy", MIB,
        )  # fmt: skip

    def mipmap() -> Route:
        return Route(
            d,
            lambda out, n: d.code(
                "cuMipmappedArrayCreate", out,
                byref(Array3DDescriptor(1024, n // 1024, 0, UINT8, 1, 0)), 1,
            ),
            "cuMipmappedArrayDestroy", MIB,
        )  # fmt: skip

    return {
        "cuMemAlloc_v2": lambda: simple("cuMemAlloc_v2", "cuMemFree_v2"),
        "cuMemAlloc": lambda: simple("cuMemAlloc", "cuMemFree", kind=c_uint),
        "cuMemAllocPitch_v2": lambda: Route(
            d,
            lambda out, n: d.code("cuMemAllocPitch_v2", out, byref(pitch), 1024, n // 1024, 4),
            "cuMemFree_v2", MIB,
        ),
        "cuMemAllocPitch": lambda: Route(
            d,
            lambda out, n: d.code("cuMemAllocPitch", out, byref(pitch_v1), 1024, n // 1024, 4),
            "cuMemFree", MIB, c_uint,
        ),
        "cuMemAllocManaged": lambda: simple("cuMemAllocManaged", "cuMemFree_v2", ATTACH_GLOBAL),
        "cuMemAllocAsync": lambda: asynchronous("cuMemAllocAsync"),
        "cuMemAllocAsync_ptsz": lambda: asynchronous("cuMemAllocAsync_ptsz"),
        "cuMemAllocFromPoolAsync": lambda: pool("cuMemAllocFromPoolAsync"),
        "cuMemAllocFromPoolAsync_ptsz": lambda: pool("cuMemAllocFromPoolAsync_ptsz"),
        "cuMemCreate": lambda: Route(
            d, lambda out, n: d.code("cuMemCreate", out, n, byref(props), 0),
            "cuMemRelease", 2 * MIB,
        ),
        "cuArrayCreate_v2": lambda: array("cuArrayCreate_v2", ArrayDescriptor),
        "cuArrayCreate": lambda: array("cuArrayCreate", ArrayDescriptorV1),
        "cuArray3DCreate_v2": lambda: deep("cuArray3DCreate_v2", Array3DDescriptor),
        "cuArray3DCreate": lambda: deep("cuArray3DCreate", Array3DDescriptorV1),
        "cuMipmappedArrayCreate": mipmap,
    }  # fmt: skip


# Routes whose memory can be on the host instead.
SPILLING = (
    "cuMemAlloc_v2", "cuMemAllocPitch_v2", "cuMemAllocManaged", "cuMemAllocAsync",
    "cuMemAllocAsync_ptsz", "cuMemAllocFromPoolAsync", "cuMemAllocFromPoolAsync_ptsz",
    "cuMemCreate",
)  # fmt: skip
