# SPDX-License-Identifier: GPL-2.0-only
"""The CUDA driver API for tests: one library, opened by path, called by export name.

    driver = Driver(path)
    driver.cuInit(0)                                  # raises CudaError unless CUDA_SUCCESS
    pointer = driver.new("cuMemAlloc_v2", 1 << 20)    # the first parameter is an output
    assert driver.code("cuMemFree_v2", 3) == INVALID_VALUE

Arguments: int (any width or sign, passed in 64 bits, which the calling conventions of
x86-64 and aarch64 allow for every narrower integer and for enums and handles), float
(C float), bytes (char *), None (NULL), and any ctypes value: `byref(x)`, structures by
value, arrays, callbacks.  Import `struct`s from here, so that they are typed once.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import (
    POINTER,
    Structure,
    byref,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_size_t,
    c_ubyte,
    c_uint,
    c_uint64,
    c_ushort,
    c_void_p,
)
from pathlib import Path
from typing import Any

SUCCESS = 0
INVALID_VALUE = 1
OUT_OF_MEMORY = 2
NOT_INITIALIZED = 3
NO_DEVICE = 100
INVALID_DEVICE = 101
INVALID_IMAGE = 200
INVALID_CONTEXT = 201
NO_BINARY_FOR_GPU = 209
UNSUPPORTED_LIMIT = 215
PEER_ACCESS_UNSUPPORTED = 217
INVALID_PTX = 218
UNSUPPORTED_PTX_VERSION = 222
FILE_NOT_FOUND = 301
INVALID_HANDLE = 400
ILLEGAL_STATE = 401
NOT_FOUND = 500
NOT_READY = 600
ILLEGAL_ADDRESS = 700
LAUNCH_TIMEOUT = 702
PEER_ACCESS_ALREADY_ENABLED = 704
PEER_ACCESS_NOT_ENABLED = 705
PRIMARY_CONTEXT_ACTIVE = 708
CONTEXT_IS_DESTROYED = 709
HOST_MEMORY_ALREADY_REGISTERED = 712
HOST_MEMORY_NOT_REGISTERED = 713
NOT_PERMITTED = 800
NOT_SUPPORTED = 801

STREAM_LEGACY = 1
STREAM_PER_THREAD = 2


class CudaError(Exception):
    """A driver call that did not answer CUDA_SUCCESS; `code` is its CUresult."""

    def __init__(self, function: str, code: int, name: str) -> None:
        super().__init__(f"{function}: {name} ({code})")
        self.function = function
        self.code = code


class Location(Structure):
    """CUmemLocation; type 1 device, 2 host, 3 host NUMA node."""

    _fields_ = [("type", c_int), ("id", c_int)]


class AllocationProp(Structure):
    """CUmemAllocationProp."""

    _fields_ = [
        ("type", c_int),
        ("handle_types", c_int),
        ("location", Location),
        ("win32", c_void_p),
        ("compression", c_ubyte),
        ("rdma", c_ubyte),
        ("usage", c_ushort),
        ("reserved", c_ubyte * 4),
    ]


class AccessDesc(Structure):
    """CUmemAccessDesc; flags 1 read, 3 read and write."""

    _fields_ = [("location", Location), ("flags", c_int)]


class PoolProps(Structure):
    """CUmemPoolProps."""

    _fields_ = [
        ("type", c_int),
        ("handle_types", c_int),
        ("location", Location),
        ("win32", c_void_p),
        ("max_size", c_size_t),
        ("usage", c_ushort),
        ("reserved", c_ubyte * 54),
    ]


class ArrayDescriptor(Structure):
    """CUDA_ARRAY_DESCRIPTOR (v2)."""

    _fields_ = [
        ("width", c_size_t),
        ("height", c_size_t),
        ("format", c_int),
        ("channels", c_uint),
    ]


class Array3DDescriptor(Structure):
    """CUDA_ARRAY3D_DESCRIPTOR (v2)."""

    _fields_ = [
        ("width", c_size_t),
        ("height", c_size_t),
        ("depth", c_size_t),
        ("format", c_int),
        ("channels", c_uint),
        ("flags", c_uint),
    ]


class Uuid(Structure):
    """CUuuid."""

    _fields_ = [("bytes", c_ubyte * 16)]


_RESULT = ctypes.CFUNCTYPE(c_int, c_int)


class SimTable(Structure):
    """emuv_sim_table_t: what the simulated GPU tells and does for tests."""

    _fields_ = [
        ("size", c_size_t),
        ("device_used", ctypes.CFUNCTYPE(c_int, c_int, POINTER(c_uint64))),
        ("context_bytes", ctypes.CFUNCTYPE(c_int, c_int, POINTER(c_uint64))),
        ("resident", ctypes.CFUNCTYPE(c_int, c_uint64, c_size_t, c_int, POINTER(c_uint64))),
        ("hold_stream", ctypes.CFUNCTYPE(c_int, c_void_p, c_int)),
        ("fail", ctypes.CFUNCTYPE(c_int, c_char_p, c_uint64, c_int)),
        ("calls", ctypes.CFUNCTYPE(c_int, c_char_p, POINTER(c_uint64))),
        ("identify", ctypes.CFUNCTYPE(c_int, c_int, POINTER(c_int), POINTER(c_uint))),
    ]


SIM_TABLE_UUID = bytes.fromhex("5f0e6d3bc1424e97a81d27e9905cb644")


class Driver:
    """One libcuda.so.1.  `driver.cuName(...)` raises CudaError; `driver.code` does not."""

    def __init__(self, path: str | Path) -> None:
        self.path = str(path)
        self.dll = ctypes.CDLL(self.path)
        self._table: SimTable | None = None

    def code(self, function: str, *args: Any) -> int:
        """Call an export by name; returns its CUresult."""
        call = self.dll[function]
        call.restype = c_int
        return int(call(*map(_convert, args)))

    def check(self, function: str, *args: Any) -> None:
        """Call an export by name; raises CudaError unless it answers CUDA_SUCCESS."""
        code = self.code(function, *args)
        if code != SUCCESS:
            raise CudaError(function, code, self.error_name(code))

    def __getattr__(self, name: str) -> Callable[..., None]:
        if not name.startswith("cu"):
            raise AttributeError(name)
        return lambda *args: self.check(name, *args)

    def get(self, kind: Any, function: str, *args: Any) -> Any:
        """Call `function(&output, *args)`; returns the output, of ctypes type `kind`."""
        output = kind()
        self.check(function, byref(output), *args)
        return getattr(output, "value", output)

    def new(self, function: str, *args: Any) -> int:
        """`get` for handles, addresses and 64-bit numbers."""
        return int(self.get(c_uint64, function, *args))

    def error_name(self, code: int) -> str:
        """The driver's own name of a CUresult."""
        text = c_char_p()
        if self.code("cuGetErrorName", code, byref(text)) != SUCCESS or not text.value:
            return "unknown error"
        return text.value.decode()

    def sim(self) -> SimTable | None:
        """The simulated GPU's own table; None on any other driver."""
        if self._table is None:
            table = POINTER(SimTable)()
            uuid = (c_char * 16).from_buffer_copy(SIM_TABLE_UUID)
            if self.code("cuGetExportTable", byref(table), uuid) != SUCCESS or not table:
                return None
            self._table = table.contents
        return self._table

    # What most tests do, in one word each.

    def attribute(self, number: int, device: int = 0) -> int:
        """cuDeviceGetAttribute."""
        return int(self.get(c_int, "cuDeviceGetAttribute", number, device))

    def upload(self, address: int, data: bytes) -> None:
        """cuMemcpyHtoD."""
        self.cuMemcpyHtoD_v2(address, data, len(data))

    def download(self, address: int, size: int) -> bytes:
        """cuMemcpyDtoH of `size` bytes."""
        buffer = (c_char * size)()
        self.cuMemcpyDtoH_v2(buffer, address, size)
        return bytes(buffer)

    def memory_info(self) -> tuple[int, int]:
        """(free, total) bytes of the current context's device."""
        free, total = c_size_t(), c_size_t()
        self.cuMemGetInfo_v2(byref(free), byref(total))
        return free.value, total.value


def _convert(value: Any) -> Any:
    if isinstance(value, bool | int):
        return c_uint64(value)
    if isinstance(value, float):
        return c_float(value)
    return value
