# SPDX-License-Identifier: GPL-2.0-only
"""What a libcudart stand-in does, case by case; run in a process of its own.

    cudart_cases.py MAJOR CASE [ARGUMENT]

Each case is a function of `rt`, the library by its soname.  A wrong answer is an
AssertionError; the last line of stdout is JSON for the test that wants to know more.
"""

from __future__ import annotations

import ctypes
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from ctypes import byref, c_char, c_float, c_int, c_size_t, c_uint, c_void_p
from typing import Any

MIB = 1 << 20
TO_DEVICE, TO_HOST, ON_DEVICE, DEFAULT = 1, 2, 3, 4
INVALID_VALUE, OUT_OF_MEMORY, NOT_READY, NOT_SUPPORTED = 1, 2, 600, 801


class Extent(ctypes.Structure):
    _fields_ = [("width", c_size_t), ("height", c_size_t), ("depth", c_size_t)]


class Pitched(ctypes.Structure):
    _fields_ = [("ptr", c_void_p), ("pitch", c_size_t), ("xsize", c_size_t), ("ysize", c_size_t)]


class Pos(ctypes.Structure):
    _fields_ = [("x", c_size_t), ("y", c_size_t), ("z", c_size_t)]


class Copy3D(ctypes.Structure):
    _fields_ = [
        ("srcArray", c_void_p), ("srcPos", Pos), ("srcPtr", Pitched),
        ("dstArray", c_void_p), ("dstPos", Pos), ("dstPtr", Pitched),
        ("extent", Extent), ("kind", c_int),
    ]  # fmt: skip


class Channels(ctypes.Structure):
    _fields_ = [(name, c_int) for name in "xyzwf"]


class Pointer(ctypes.Structure):
    _fields_ = [
        ("type", c_int), ("device", c_int), ("on_device", c_void_p), ("on_host", c_void_p),
        ("reserved", c_char * 64),
    ]  # fmt: skip


class Location(ctypes.Structure):
    _fields_ = [("type", c_int), ("id", c_int)]


class Dim(ctypes.Structure):
    _fields_ = [("x", c_uint), ("y", c_uint), ("z", c_uint)]


class Runtime:
    """libcudart; `rt.name(...)` must succeed, `rt.code("name", ...)` is its code."""

    def __init__(self, major: int) -> None:
        self.major = major
        self.dll = ctypes.CDLL(f"libcudart.so.{major}")

    def code(self, name: str, *args: Any) -> int:
        code: int = getattr(self.dll, name)(*args)
        return code

    def __getattr__(self, name: str) -> Callable[..., None]:
        def call(*args: Any) -> None:
            code = self.code(name, *args)
            assert code == 0, f"{name}: {code}"

        return call

    def malloc(self, size: int) -> c_void_p:
        out = c_void_p()
        self.cudaMalloc(byref(out), c_size_t(size))
        return out

    def upload(self, data: bytes) -> c_void_p:
        out = self.malloc(len(data))
        self.cudaMemcpy(out, data, c_size_t(len(data)), TO_DEVICE)
        return out

    def download(self, address: c_void_p, size: int) -> bytes:
        out = ctypes.create_string_buffer(size)
        self.cudaMemcpy(out, address, c_size_t(size), TO_HOST)
        return out.raw

    def free_and_total(self) -> tuple[int, int]:
        free, total = c_size_t(), c_size_t()
        self.cudaMemGetInfo(byref(free), byref(total))
        return free.value, total.value

    def last(self) -> int:
        return self.code("cudaGetLastError")


def pattern(size: int) -> bytes:
    return bytes(i * 7 % 251 for i in range(size))


def versions(rt: Runtime) -> None:
    version = c_int()
    rt.cudaRuntimeGetVersion(byref(version))
    assert version.value // 1000 == rt.major
    rt.cudaDriverGetVersion(byref(version))
    assert version.value == 13000


def devices(rt: Runtime) -> None:
    count, device, value = c_int(), c_int(7), c_int()
    rt.cudaGetDeviceCount(byref(count))
    assert count.value == 2
    rt.cudaGetDevice(byref(device))
    assert device.value == 0
    assert rt.code("cudaSetDevice", 2) == 101
    rt.cudaSetDevice(1)
    rt.cudaGetDevice(byref(device))
    assert device.value == 1
    rt.cudaDeviceGetAttribute(byref(value), 75, 1)  # compute capability, major
    assert value.value == 8
    seen = []

    def other() -> None:  # a thread begins with device 0, whatever the others chose
        mine = c_int(-1)
        rt.cudaGetDevice(byref(mine))
        seen.append(mine.value)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(10)
    assert seen == [0]
    name = ctypes.create_string_buffer(32)
    rt.cudaDeviceGetPCIBusId(name, 32, 1)
    rt.cudaDeviceGetByPCIBusId(byref(device), name)
    assert device.value == 1


def properties(rt: Runtime) -> None:
    out = ctypes.create_string_buffer(b"\xff" * 2048, 2048)
    rt.code({12: "cudaGetDeviceProperties_v2", 13: "cudaGetDeviceProperties"}[rt.major], out, 0)
    assert out.raw[:4] == b"emuV"
    assert int.from_bytes(out.raw[288:296], "little") == 256 * MIB  # totalGlobalMem
    assert rt.code("cudaGetDeviceProperties", out, 9) == 101
    if rt.major == 12:  # under the old name, the old and shorter structure
        old = ctypes.create_string_buffer(b"\xff" * 2048, 2048)
        rt.cudaGetDeviceProperties(old, 0)
        size = len(old.raw.rstrip(b"\xff"))
        assert old.raw[:712].startswith(b"emuV")
        assert 700 < size < 760


def errors_of_threads(rt: Runtime) -> None:
    assert rt.last() == 0
    assert rt.code("cudaMalloc", None, c_size_t(1)) == INVALID_VALUE
    seen: list[int] = []
    thread = threading.Thread(target=lambda: seen.append(rt.last()))
    thread.start()
    thread.join(10)
    assert seen == [0]
    assert rt.code("cudaPeekAtLastError") == INVALID_VALUE
    rt.malloc(16)  # success leaves it as it is
    assert rt.last() == INVALID_VALUE
    assert rt.last() == 0


def error_texts(rt: Runtime) -> None:
    for name in ("cudaGetErrorName", "cudaGetErrorString"):
        getattr(rt.dll, name).restype = ctypes.c_char_p
    assert rt.dll.cudaGetErrorName(2) == b"cudaErrorMemoryAllocation"
    assert rt.dll.cudaGetErrorName(700) == b"cudaErrorIllegalAddress"
    assert b"memory" in rt.dll.cudaGetErrorString(2)
    assert rt.dll.cudaGetErrorString(424242)


def memory(rt: Runtime) -> None:
    data = pattern(1000)
    a = rt.upload(data)
    b = rt.malloc(1000)
    rt.cudaMemcpy(b, a, c_size_t(1000), ON_DEVICE)
    assert rt.download(b, 1000) == data
    rt.cudaMemset(c_void_p((b.value or 0) + 10), 0xAB, c_size_t(5))
    host = ctypes.create_string_buffer(1000)
    rt.cudaMemcpy(host, b, c_size_t(1000), DEFAULT)
    assert host.raw == data[:10] + b"\xab" * 5 + data[15:]
    copy = ctypes.create_string_buffer(1000)
    rt.cudaMemcpy(copy, host, c_size_t(1000), 0)
    assert copy.raw == host.raw
    assert rt.code("cudaMemcpy", b, a, c_size_t(1000), 5) == 21  # no such direction
    assert rt.code("cudaMemcpy", b, a, c_size_t(2000), ON_DEVICE) == INVALID_VALUE
    assert rt.last() == INVALID_VALUE
    rt.cudaFree(a)
    assert rt.code("cudaFree", a) != 0
    rt.cudaFree(None)
    nothing = rt.malloc(0)
    assert not nothing.value


def account(rt: Runtime) -> None:
    free, total = rt.free_and_total()
    assert total == 256 * MIB
    a = rt.malloc(64 * MIB)
    assert rt.free_and_total() == (free - 64 * MIB, total)
    assert rt.code("cudaMalloc", byref(c_void_p()), c_size_t(256 * MIB)) == OUT_OF_MEMORY
    assert rt.last() == OUT_OF_MEMORY
    rt.cudaFree(a)
    assert rt.free_and_total() == (free, total)


def pinned(rt: Runtime) -> None:
    host, flags = c_void_p(), c_uint()
    rt.cudaHostAlloc(byref(host), c_size_t(4096), 2)
    rt.cudaHostGetFlags(byref(flags), host)
    assert flags.value & 2
    what = pointer(rt, host)
    assert (what.type, what.on_host) == (1, host.value)
    rt.cudaFreeHost(host)
    block = ctypes.create_string_buffer(8192)
    rt.cudaHostRegister(block, c_size_t(8192), 0)
    assert pointer(rt, block).type == 1
    rt.cudaHostUnregister(block)
    assert pointer(rt, block).type == 0


def pointer(rt: Runtime, address: Any) -> Pointer:
    out = Pointer()
    rt.cudaPointerGetAttributes(byref(out), address)
    return out


def pointers(rt: Runtime) -> None:
    device = rt.malloc(4096)
    managed = c_void_p()
    rt.cudaMallocManaged(byref(managed), c_size_t(4096), 1)
    inside = c_void_p((device.value or 0) + 100)
    assert (pointer(rt, inside).type, pointer(rt, inside).on_device) == (2, inside.value)
    assert pointer(rt, managed).type == 3
    assert pointer(rt, managed).on_host == managed.value
    unknown = pointer(rt, ctypes.create_string_buffer(8))
    assert (unknown.type, unknown.device, unknown.on_device) == (0, -2, None)
    ctypes.memset(managed, 7, 4096)  # host code may use it
    assert rt.download(managed, 4096) == b"\x07" * 4096


def managed_advice(rt: Runtime) -> None:
    managed, where = c_void_p(), c_int(-9)
    rt.cudaMallocManaged(byref(managed), c_size_t(4 * MIB), 1)
    if rt.major == 12:
        rt.cudaMemAdvise(managed, c_size_t(4 * MIB), 3, -1)  # preferred: the host
        rt.cudaMemPrefetchAsync(managed, c_size_t(4 * MIB), 0, None)
    else:
        rt.cudaMemAdvise(managed, c_size_t(4 * MIB), 3, Location(2, 0))
        rt.cudaMemPrefetchAsync(managed, c_size_t(4 * MIB), Location(1, 0), 0, None)
    rt.cudaDeviceSynchronize()
    size = c_size_t(4 * MIB)
    for attribute, expected in ((2, -1), (4, 0)):
        rt.cudaMemRangeGetAttribute(byref(where), c_size_t(4), attribute, managed, size)
        assert where.value == expected, attribute


def planes(rt: Runtime) -> None:
    """Two dimensions: pitched memory, and an array."""
    address, pitch = c_void_p(), c_size_t()
    rt.cudaMallocPitch(byref(address), byref(pitch), c_size_t(100), c_size_t(8))
    assert pitch.value >= 100
    data = pattern(800)
    rt.cudaMemset2D(address, pitch, 0xEE, c_size_t(100), c_size_t(8))
    rt.cudaMemcpy2D(address, pitch, data, c_size_t(100), c_size_t(100), c_size_t(7), TO_DEVICE)
    back = ctypes.create_string_buffer(800)
    rt.cudaMemcpy2D(back, c_size_t(100), address, pitch, c_size_t(100), c_size_t(8), TO_HOST)
    assert back.raw == data[:700] + b"\xee" * 100
    wide = c_size_t(pitch.value + 1)
    assert rt.code("cudaMemcpy2D", back, wide, address, pitch, wide, c_size_t(1), TO_HOST) == 12
    array, channels = c_void_p(), Channels(32, 0, 0, 0, 2)
    rt.cudaMallocArray(byref(array), byref(channels), c_size_t(16), c_size_t(4), 0)
    rt.cudaMemcpy2DToArray(
        array, c_size_t(0), c_size_t(0), data, c_size_t(64), c_size_t(64), c_size_t(4), TO_DEVICE
    )
    out = ctypes.create_string_buffer(64)
    rt.cudaMemcpy2DFromArray(
        out, c_size_t(32), array, c_size_t(32), c_size_t(1), c_size_t(32), c_size_t(2), TO_HOST
    )
    assert out.raw == data[96:128] + data[160:192]
    run = ctypes.create_string_buffer(100)  # from the middle of a row into the third one
    rt.cudaMemcpyFromArray(run, array, c_size_t(48), c_size_t(0), c_size_t(100), TO_HOST)
    assert run.raw == data[48:148]
    seen, extent, flags = Channels(), Extent(), c_uint()
    rt.cudaArrayGetInfo(byref(seen), byref(extent), byref(flags), array)
    assert [getattr(seen, n) for n in "xyzwf"] == [32, 0, 0, 0, 2]
    assert (extent.width, extent.height, extent.depth) == (16, 4, 0)
    rt.cudaFreeArray(array)


def volumes(rt: Runtime) -> None:
    """Three dimensions: an array counts x and width in elements."""
    create = rt.dll.cudaCreateChannelDesc
    create.restype = Channels
    channels = create(16, 16, 0, 0, 1)  # two unsigned shorts: 4 bytes
    array, extent = c_void_p(), Extent(8, 4, 2)
    rt.cudaMalloc3DArray(byref(array), byref(channels), extent, 0)
    data = pattern(8 * 4 * 4 * 2)
    source = ctypes.create_string_buffer(data, len(data))
    host = Pitched(ctypes.addressof(source), 32, 8, 4)
    rt.cudaMemcpy3D(byref(Copy3D(dstArray=array, srcPtr=host, extent=extent, kind=TO_DEVICE)))
    pitched = Pitched()
    rt.cudaMalloc3D(byref(pitched), Extent(32, 4, 2))
    rt.cudaMemset3D(pitched, 0, Extent(32, 4, 2))
    part = Copy3D(
        srcArray=array, srcPos=Pos(2, 1, 1), dstPtr=pitched, dstPos=Pos(4, 0, 1),
        extent=Extent(3, 2, 1), kind=ON_DEVICE,
    )  # fmt: skip
    rt.cudaMemcpy3D(byref(part))
    out = ctypes.create_string_buffer(256)
    back = Pitched(ctypes.addressof(out), 32, 32, 4)
    whole = Copy3D(srcPtr=pitched, dstPtr=back, extent=Extent(32, 4, 2), kind=TO_HOST)
    rt.cudaMemcpy3D(byref(whole))
    expected = bytearray(256)
    for row in range(2):
        at = 128 + 32 * (row + 1) + 4 * 2
        expected[128 + 32 * row + 4 : 128 + 32 * row + 16] = data[at : at + 12]
    assert out.raw == bytes(expected)
    assert rt.code("cudaMemcpy3D", byref(Copy3D(extent=extent, kind=TO_HOST))) == INVALID_VALUE


def streams(rt: Runtime) -> None:
    stream, start, end, took = c_void_p(), c_void_p(), c_void_p(), c_float(-1)
    rt.cudaStreamCreateWithFlags(byref(stream), 1)
    rt.cudaEventCreate(byref(start))
    rt.cudaEventCreate(byref(end))
    data = pattern(64)
    address = rt.malloc(64)
    rt.cudaEventRecord(start, stream)
    rt.cudaMemcpyAsync(address, data, c_size_t(64), TO_DEVICE, stream)
    rt.cudaEventRecord(end, stream)
    rt.cudaStreamWaitEvent(None, end, 0)
    rt.cudaStreamSynchronize(stream)
    rt.cudaEventSynchronize(end)
    rt.cudaStreamQuery(stream)
    rt.cudaEventElapsedTime(byref(took), start, end)
    assert 0 <= took.value < 10000
    assert rt.download(address, 64) == data
    seen: list[int] = []
    function = ctypes.CFUNCTYPE(None, c_void_p)(lambda data: seen.append(data or 0))
    callback = ctypes.CFUNCTYPE(None, c_void_p, c_int, c_void_p)(
        lambda where, status, data: seen.append(status)
    )
    rt.cudaLaunchHostFunc(stream, function, c_void_p(42))
    rt.cudaStreamAddCallback(stream, callback, None, 0)
    rt.cudaStreamSynchronize(stream)
    assert seen == [42, 0]
    rt.cudaStreamDestroy(stream)
    assert rt.code("cudaEventDestroy", start) == 0
    low, high = c_int(), c_int()
    rt.cudaDeviceGetStreamPriorityRange(byref(low), byref(high))
    assert high.value < low.value


def not_ready(rt: Runtime) -> None:
    """Work that is not finished is an answer, and no error."""
    from pathlib import Path

    sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))
    from cuda_driver import Driver

    stream = c_void_p()
    rt.cudaStreamCreateWithFlags(byref(stream), 1)
    table = Driver("libcuda.so.1").sim()
    assert table is not None
    assert table.hold_stream(stream, 1) == 0
    rt.cudaMemsetAsync(rt.malloc(64), 1, c_size_t(64), stream)
    assert rt.code("cudaStreamQuery", stream) == NOT_READY
    assert rt.last() == 0
    assert table.hold_stream(stream, 0) == 0
    rt.cudaStreamSynchronize(stream)


def per_thread_streams(rt: Runtime) -> None:
    data = pattern(32)
    address = rt.malloc(32)
    rt.cudaMemcpyAsync_ptsz(address, data, c_size_t(32), TO_DEVICE, None)
    rt.cudaStreamSynchronize_ptsz(None)
    out = ctypes.create_string_buffer(32)
    rt.cudaMemcpy_ptds(out, address, c_size_t(32), TO_HOST)
    assert out.raw == data
    rt.cudaMemset_ptds(address, 1, c_size_t(32))
    assert rt.download(address, 32) == b"\x01" * 32
    legacy, mine = ctypes.c_ulonglong(), ctypes.c_ulonglong()
    rt.cudaStreamGetId(None, byref(legacy))
    rt.cudaStreamGetId_ptsz(None, byref(mine))
    assert legacy.value != mine.value


def pools(rt: Runtime) -> None:
    stream, address, pool = c_void_p(), c_void_p(), c_void_p()
    used = ctypes.c_uint64()
    rt.cudaStreamCreate(byref(stream))
    rt.cudaMallocAsync(byref(address), c_size_t(4 * MIB), stream)
    rt.cudaMemsetAsync(address, 5, c_size_t(4 * MIB), stream)
    rt.cudaDeviceGetDefaultMemPool(byref(pool), 0)
    rt.cudaMemPoolGetAttribute(pool, 7, byref(used))
    assert used.value == 4 * MIB
    rt.cudaStreamSynchronize(stream)
    assert rt.download(address, 4) == b"\x05" * 4
    rt.cudaFreeAsync(address, stream)
    rt.cudaStreamSynchronize(stream)
    rt.cudaMemPoolTrimTo(pool, c_size_t(0))
    rt.cudaMemPoolGetAttribute(pool, 7, byref(used))
    assert used.value == 0


def own_context(rt: Runtime) -> None:
    """A context of the driver API that is current is the one that the runtime uses."""
    cuda, context, now, device = ctypes.CDLL("libcuda.so.1"), c_void_p(), c_void_p(), c_int()
    assert cuda.cuInit(0) == 0
    assert cuda.cuCtxCreate_v2(byref(context), 0, 1) == 0
    rt.malloc(64)
    rt.cudaGetDevice(byref(device))
    assert device.value == 1
    assert cuda.cuCtxGetCurrent(byref(now)) == 0
    assert now.value == context.value
    assert cuda.cuCtxDestroy_v2(context) == 0
    rt.malloc(64)  # none left: the primary one of the thread's device
    assert cuda.cuCtxGetCurrent(byref(now)) == 0
    assert now.value not in (None, context.value)


def reset(rt: Runtime) -> None:
    free, _ = rt.free_and_total()
    address = rt.malloc(32 * MIB)
    rt.cudaDeviceReset()
    assert rt.free_and_total()[0] == free
    assert rt.code("cudaFree", address) != 0
    assert rt.download(rt.upload(b"again"), 5) == b"again"


def peers(rt: Runtime) -> None:
    can, data = c_int(), pattern(256)
    rt.cudaDeviceCanAccessPeer(byref(can), 0, 1)
    assert can.value == 1
    rt.cudaDeviceEnablePeerAccess(1, 0)
    assert rt.code("cudaDeviceEnablePeerAccess", 1, 0) == 704
    source = rt.upload(data)
    rt.cudaSetDevice(1)
    target = rt.malloc(256)
    rt.cudaMemcpyPeer(target, 1, source, 0, c_size_t(256))
    assert rt.download(target, 256) == data


def entry_points(rt: Runtime) -> None:
    function, status = c_void_p(), c_int(-1)
    rt.cudaGetDriverEntryPoint(b"cuMemAlloc", byref(function), ctypes.c_ulonglong(0), byref(status))
    assert (bool(function.value), status.value) == (True, 0)
    v2 = ctypes.cast(ctypes.CDLL("libcuda.so.1").cuMemAlloc_v2, c_void_p).value
    assert function.value == v2
    rt.cudaGetDriverEntryPoint(b"cuNoSuch", byref(function), ctypes.c_ulonglong(0), byref(status))
    assert (function.value, status.value) == (None, 1)
    rt.cudaGetDriverEntryPointByVersion(
        b"cuMemPrefetchAsync", byref(function), 8000, ctypes.c_ulonglong(0), byref(status)
    )
    old = function.value
    rt.cudaGetDriverEntryPointByVersion(
        b"cuMemPrefetchAsync", byref(function), 12020, ctypes.c_ulonglong(0), byref(status)
    )
    assert old
    assert function.value not in (None, old)


def launches_that_cannot_be(rt: Runtime) -> None:
    one = Dim(1, 1, 1)
    nothing = ctypes.create_string_buffer(8)
    launch: tuple[Any, ...] = (nothing, one, one, None, c_size_t(0), None)
    assert rt.code("cudaLaunchKernel", *launch) == 98
    assert rt.last() == 98
    grid, block, size, stream = Dim(), Dim(), c_size_t(), c_void_p()
    back = (byref(grid), byref(block), byref(size), byref(stream))
    assert rt.code("__cudaPopCallConfiguration", *back) == 52
    rt.code("__cudaPushCallConfiguration", Dim(2, 3, 4), Dim(5, 6, 7), c_size_t(8), c_void_p(9))
    assert rt.code("__cudaPopCallConfiguration", *back) == 0
    assert (grid.y, block.z, size.value, stream.value) == (3, 7, 8, 9)
    assert rt.code("cudaGetSymbolAddress", byref(stream), nothing) == 13


class Handle(ctypes.Structure):
    _fields_ = [("reserved", c_char * 64)]


def between_processes(rt: Runtime, *given: str) -> None:
    """Exports memory and an event; a child, with their handles, opens and changes them."""
    memory, event = Handle(), Handle()
    if given:
        memory, event = (Handle.from_buffer_copy(bytes.fromhex(text)) for text in given)
        pointer, opened = c_void_p(), c_void_p()
        rt.cudaIpcOpenMemHandle(byref(pointer), memory, c_uint(1))
        rt.cudaIpcOpenEventHandle(byref(opened), event)
        rt.cudaMemset(pointer, 9, c_size_t(4096))
        rt.cudaEventRecord(opened, None)
        rt.cudaEventDestroy(opened)
        rt.cudaIpcCloseMemHandle(pointer)
        return
    shared, made = rt.malloc(4096), c_void_p()
    rt.cudaEventCreateWithFlags(byref(made), c_uint(6))
    rt.cudaIpcGetMemHandle(byref(memory), shared)
    rt.cudaIpcGetEventHandle(byref(event), made)
    words = [bytes(memory).hex(), bytes(event).hex()]
    subprocess.run([sys.executable, *sys.argv, *words], check=True, timeout=60)
    rt.cudaEventSynchronize(made)
    assert rt.download(shared, 4096) == b"\x09" * 4096


def refusals(rt: Runtime) -> None:
    out = c_void_p(1)
    assert rt.code("cudaCreateTextureObject", byref(out), None, None, None) == NOT_SUPPORTED
    assert rt.last() == NOT_SUPPORTED
    uuid = ctypes.create_string_buffer(16)
    assert rt.code("cudaGetExportTable", byref(out), uuid) == NOT_SUPPORTED
    assert out.value is None
    rt.cudaFree(rt.malloc(4096))


def beyond_the_budget(rt: Runtime, wanted: str) -> None:
    """Allocates 8 MiB at a time until it fails or there are `wanted`; all of them hold bytes."""
    held = []
    code = 0
    for i in range(int(wanted)):
        out = c_void_p()
        code = rt.code("cudaMalloc", byref(out), c_size_t(8 * MIB))
        if code:
            break
        rt.cudaMemset(out, i + 1, c_size_t(8 * MIB))
        held.append(out)
    for i, address in enumerate(held):
        assert rt.download(address, 16) == bytes([i + 1]) * 16
    free, total = rt.free_and_total()
    print(json.dumps({"held": len(held), "code": code, "total": total, "free": free}))


def main() -> None:
    case = globals()[sys.argv[2]]
    case(Runtime(int(sys.argv[1])), *sys.argv[3:])


if __name__ == "__main__":
    main()
