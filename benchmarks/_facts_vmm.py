# SPDX-License-Identifier: GPL-2.0-only
"""Handles of host memory beside those of the device: what emuV's spilled handles rest on.

Purpose: whether they are made, shared, mapped in part and given access in one call with device
memory, what the driver then says of such a pointer, and what a page costs in each home.

Invariants
- Host memory that is pinned here is never more than 64 MiB.
- A refusal is a figure too: the CUresult, by its name in the note.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_int, c_size_t, c_uint, c_uint64

import _facts_cuda as cu
from _facts_bench import Bench
from _facts_rows import BLOCK, MIB

FILE_DESCRIPTOR = 1  # CUmemAllocationHandleType
READ_WRITE = 3
MEMORY_TYPE, DEVICE_ORDINAL = 2, 9  # CUpointer_attribute
TYPE_HOST, TYPE_DEVICE = 1, 2  # CUmemorytype
REPEATS = 15


def vmm(bench: Bench) -> None:
    """The section."""
    device = cu.MemLocation(cu.LOCATION_DEVICE, bench.device)
    node = cu.MemLocation(
        cu.LOCATION_HOST_NUMA, max(bench.cuda.attribute(cu.ATTR_HOST_NUMA_ID, bench.device) or 0, 0)
    )
    homes = {"device": device, "node": node, "host": cu.MemLocation(cu.LOCATION_HOST, 0)}
    for name, where in homes.items():
        with bench.attempt(f"granularity: {name}"):
            bench.row(f"granularity: {name}", "bytes", [float(_granularity(bench, where))])
        for what, types, rdma in (
            ("plain", 0, 0), ("by file descriptor", FILE_DESCRIPTOR, 0), ("for RDMA", 0, 1),
        ):  # fmt: skip
            with bench.attempt(f"handle: {name}, {what}"):
                _made(bench, f"handle: {name}, {what}", _prop(where, types, rdma))
    with bench.attempt("host and device in one range"):
        _one_range(bench, device, node)
    with bench.attempt("sharing a handle of the node"):
        _shared(bench, node)
    for name, where in homes.items():
        for size in (BLOCK, 20 * MIB):
            with bench.attempt(f"page: {name}", bytes=size):
                _page_cost(bench, name, where, size)


def _prop(where: cu.MemLocation, types: int = 0, rdma: int = 0) -> cu.AllocationProp:
    prop = cu.AllocationProp(type=1, requested_handle_types=types, location=where)
    prop.alloc_flags.rdma_capable = rdma
    return prop


def _granularity(bench: Bench, where: cu.MemLocation) -> int:
    size = c_size_t()
    bench.cuda.call(
        "cuMemGetAllocationGranularity", ctypes.byref(size), ctypes.byref(_prop(where)), 0
    )
    return size.value


def _code_row(bench: Bench, name: str, code: int) -> None:
    bench.row(name, "CUresult", [float(code)], bench.cuda.error_name(code))


def _made(bench: Bench, name: str, prop: cu.AllocationProp) -> None:
    handle = c_uint64()
    size = max(BLOCK, _granularity(bench, prop.location))
    code = bench.cuda.code("cuMemCreate", ctypes.byref(handle), size, ctypes.byref(prop), 0)
    if code == cu.SUCCESS:
        bench.cuda.code("cuMemRelease", handle.value)
    _code_row(bench, name, code)


@contextmanager
def _handle(bench: Bench, prop: cu.AllocationProp, size: int) -> Iterator[int]:
    handle = c_uint64()
    bench.cuda.call("cuMemCreate", ctypes.byref(handle), size, ctypes.byref(prop), 0)
    try:
        yield handle.value
    finally:
        bench.cuda.code("cuMemRelease", handle.value)


@contextmanager
def _space(bench: Bench, size: int) -> Iterator[int]:
    address = c_uint64()
    bench.cuda.call("cuMemAddressReserve", ctypes.byref(address), size, 0, 0, 0)
    try:
        yield address.value
    finally:
        bench.cuda.code("cuMemAddressFree", address.value, size)


def _one_range(bench: Bench, device: cu.MemLocation, node: cu.MemLocation) -> None:
    """Three pieces: device, node, and the node's again from an offset on."""
    cuda = bench.cuda
    grain = max(_granularity(bench, device), _granularity(bench, node))
    with (
        _space(bench, 3 * grain) as space,
        _handle(bench, _prop(device), grain) as near,
        _handle(bench, _prop(node), 2 * grain) as far,
    ):
        mapped = []
        try:
            for name, at, offset, handle in (
                ("a device handle", 0, 0, near), ("a host handle", 1, 0, far),
                ("a host handle, at an offset", 2, grain, far),
            ):  # fmt: skip
                code = cuda.code("cuMemMap", space + at * grain, grain, offset, handle, 0)
                _code_row(bench, f"map: {name}", code)
                if code == cu.SUCCESS:
                    mapped.append(space + at * grain)
            size = len(mapped) * grain
            access = cu.AccessDesc(location=device, flags=READ_WRITE)
            code = cuda.code("cuMemSetAccess", space, size, ctypes.byref(access), 1)
            _code_row(bench, "access for the device, one call for host and device", code)
            if code == cu.SUCCESS:
                _used_and_asked(bench, space, size, space + grain)
        finally:
            bench.settle()
            for address in mapped:
                cuda.code("cuMemUnmap", address, grain)


def _used_and_asked(bench: Bench, space: int, size: int, far: int) -> None:
    bench.fill(space, 0x5A, size)
    back = (ctypes.c_ubyte * size)()
    bench.cuda.call("cuMemcpyDtoHAsync_v2", ctypes.addressof(back), space, size, bench.stream)
    bench.sync()
    bench.row("one set and one copy over all of it", "right", [float(set(back) == {0x5A})])
    for name, address in (("device", space), ("host", far)):
        kind, ordinal = c_uint(), c_int()
        bench.cuda.call("cuPointerGetAttribute", ctypes.byref(kind), MEMORY_TYPE, address)
        bench.row(
            f"memory type of a mapping: {name}", "CUmemorytype", [float(kind.value)],
            {TYPE_HOST: "host", TYPE_DEVICE: "device"}.get(kind.value, ""),
        )  # fmt: skip
        code = bench.cuda.code(
            "cuPointerGetAttribute", ctypes.byref(ordinal), DEVICE_ORDINAL, address
        )
        bench.row(
            f"device of a mapping: {name}", "ordinal",
            [float(ordinal.value)] if code == cu.SUCCESS else [], bench.cuda.error_name(code),
        )  # fmt: skip


def _shared(bench: Bench, node: cu.MemLocation) -> None:
    cuda = bench.cuda
    size = max(BLOCK, _granularity(bench, node))
    with _handle(bench, _prop(node, FILE_DESCRIPTOR), size) as handle:
        descriptor, again = c_int(-1), c_uint64()
        code = cuda.code(
            "cuMemExportToShareableHandle", ctypes.byref(descriptor), handle, FILE_DESCRIPTOR, 0
        )
        _code_row(bench, "export of a handle of the node", code)
        if code != cu.SUCCESS:
            return
        code = cuda.code(
            "cuMemImportFromShareableHandle", ctypes.byref(again), descriptor.value, FILE_DESCRIPTOR
        )
        _code_row(bench, "import of a handle of the node", code)
        os.close(descriptor.value)
        if code == cu.SUCCESS:
            cuda.code("cuMemRelease", again.value)


def _page_cost(bench: Bench, name: str, where: cu.MemLocation, size: int) -> None:
    """What PyTorch's expandable segments do for a page, and undo."""
    cuda = bench.cuda
    access = cu.AccessDesc(
        location=cu.MemLocation(cu.LOCATION_DEVICE, bench.device), flags=READ_WRITE
    )
    steps: dict[str, list[float]] = {"create": [], "map and access": [], "unmap and release": []}
    prop = _prop(where)
    with _space(bench, size) as space:
        for _ in range(REPEATS):
            handle = c_uint64()

            def create(handle: c_uint64 = handle) -> None:
                cuda.call("cuMemCreate", ctypes.byref(handle), size, ctypes.byref(prop), 0)

            def put(handle: c_uint64 = handle) -> None:
                cuda.call("cuMemMap", space, size, 0, handle.value, 0)
                cuda.call("cuMemSetAccess", space, size, ctypes.byref(access), 1)

            def drop(handle: c_uint64 = handle) -> None:
                cuda.call("cuMemUnmap", space, size)
                cuda.call("cuMemRelease", handle.value)

            for step, body in zip(steps, (create, put, drop), strict=True):
                steps[step].append(bench.host_ns(body) / 1000)
    for step, samples in steps.items():
        bench.row(f"page: {name}: {step}", "µs", samples[1:], bytes=size)
