# SPDX-License-Identifier: GPL-2.0-only
"""The CUDA driver by ctypes, for scripts that must run with no package installed.

Purpose: one table of signatures (SIGNATURES) and a thin class over it, so that a wrong argument
type is found on the simulated GPU and not on the first real card that comes along.

Invariants
- Every driver function that is called has its argtypes in SIGNATURES; handles are c_void_p,
  device addresses c_uint64, sizes c_size_t.  A name that is not in the table cannot be called.
- Constants are facts of the CUDA driver ABI (CUDA 11 to 13) and nothing here allocates by itself.
- A call through Cuda.call raises CudaError unless the driver answered CUDA_SUCCESS; Cuda.code
  returns the code instead.
"""

from __future__ import annotations

import ctypes
from ctypes import (
    POINTER,
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
from typing import Any

SUCCESS = 0
INVALID_VALUE = 1
OUT_OF_MEMORY = 2
NO_DEVICE = 100
NOT_SUPPORTED = 801

# CUdevice_attribute
ATTR_CLOCK_KHZ = 13
ATTR_MULTIPROCESSORS = 16
ATTR_INTEGRATED = 18
ATTR_L2_BYTES = 38
ATTR_ASYNC_ENGINES = 40
ATTR_CC_MAJOR = 75
ATTR_CC_MINOR = 76
ATTR_HOST_NATIVE_ATOMICS = 86
ATTR_PAGEABLE_ACCESS = 88
ATTR_CONCURRENT_MANAGED = 89
ATTR_PAGEABLE_HOST_PAGE_TABLES = 100
ATTR_DIRECT_MANAGED_FROM_HOST = 101
ATTR_VMM = 102
ATTR_MEMORY_POOLS = 115
ATTR_HOST_NUMA_ID = 134
ATTR_HOST_NUMA_VMM = 141
ATTR_HOST_VMM = 145
ATTRIBUTES = {
    "clock_khz": ATTR_CLOCK_KHZ,
    "multiprocessors": ATTR_MULTIPROCESSORS,
    "integrated": ATTR_INTEGRATED,
    "l2_bytes": ATTR_L2_BYTES,
    "async_engines": ATTR_ASYNC_ENGINES,
    "cc_major": ATTR_CC_MAJOR,
    "cc_minor": ATTR_CC_MINOR,
    "host_native_atomics": ATTR_HOST_NATIVE_ATOMICS,
    "pageable_memory_access": ATTR_PAGEABLE_ACCESS,
    "concurrent_managed_access": ATTR_CONCURRENT_MANAGED,
    "pageable_access_uses_host_page_tables": ATTR_PAGEABLE_HOST_PAGE_TABLES,
    "direct_managed_access_from_host": ATTR_DIRECT_MANAGED_FROM_HOST,
    "virtual_memory_management": ATTR_VMM,
    "memory_pools": ATTR_MEMORY_POOLS,
    "host_numa_id": ATTR_HOST_NUMA_ID,
    "host_numa_vmm": ATTR_HOST_NUMA_VMM,
    "host_vmm": ATTR_HOST_VMM,
}

# CUmemAttach_flags, CUmem_advise, CUmem_range_attribute, CUmemLocationType
ATTACH_GLOBAL = 1
SET_READ_MOSTLY, UNSET_READ_MOSTLY = 1, 2
SET_PREFERRED, UNSET_PREFERRED = 3, 4
SET_ACCESSED_BY, UNSET_ACCESSED_BY = 5, 6
RANGE_READ_MOSTLY, RANGE_PREFERRED, RANGE_ACCESSED_BY, RANGE_LAST_PREFETCH = 1, 2, 3, 4
LOCATION_DEVICE, LOCATION_HOST, LOCATION_HOST_NUMA = 1, 2, 3
CPU = -1  # as a "device" in the first versions of prefetch and advise, and throughout this module

STREAM_NON_BLOCKING = 1
HOSTALLOC_PORTABLE_DEVICEMAP = 3
POOL_RESERVED_CURRENT, POOL_USED_CURRENT = 5, 7
CAPTURE_MODES = {"global": 0, "thread_local": 1, "relaxed": 2}
FORMAT_U8, FORMAT_U16, FORMAT_U32, FORMAT_FLOAT = 0x01, 0x02, 0x03, 0x20


class MemLocation(ctypes.Structure):
    """CUmemLocation: passed by value to the second versions of prefetch and advise."""

    _fields_ = (("type", c_int), ("id", c_int))


class AllocFlags(ctypes.Structure):
    """The anonymous allocFlags of CUmemAllocationProp (8 bytes)."""

    _fields_ = (
        ("compression_type", c_ubyte),
        ("rdma_capable", c_ubyte),
        ("usage", c_ushort),
        ("reserved", c_ubyte * 4),
    )


class AllocationProp(ctypes.Structure):
    """CUmemAllocationProp (32 bytes)."""

    _fields_ = (
        ("type", c_int),
        ("requested_handle_types", c_int),
        ("location", MemLocation),
        ("win32_handle_meta_data", c_void_p),
        ("alloc_flags", AllocFlags),
    )


class AccessDesc(ctypes.Structure):
    """CUmemAccessDesc."""

    _fields_ = (("location", MemLocation), ("flags", c_int))


class ArrayDescriptor(ctypes.Structure):
    """CUDA_ARRAY_DESCRIPTOR."""

    _fields_ = (
        ("width", c_size_t),
        ("height", c_size_t),
        ("format", c_int),
        ("channels", c_uint),
    )


class Array3DDescriptor(ctypes.Structure):
    """CUDA_ARRAY3D_DESCRIPTOR."""

    _fields_ = (
        ("width", c_size_t),
        ("height", c_size_t),
        ("depth", c_size_t),
        ("format", c_int),
        ("channels", c_uint),
        ("flags", c_uint),
    )


class ArrayRequirements(ctypes.Structure):
    """CUDA_ARRAY_MEMORY_REQUIREMENTS."""

    _fields_ = (("size", c_size_t), ("alignment", c_size_t), ("reserved", c_uint * 4))


_handle = c_void_p
_handle_out = POINTER(c_void_p)
_address = c_uint64
_address_out = POINTER(c_uint64)
_size_out = POINTER(c_size_t)
_int_out = POINTER(c_int)
_batch = (_address_out, _size_out, c_size_t)
_locations = (POINTER(MemLocation), _size_out, c_size_t)

SIGNATURES: dict[str, tuple[Any, ...]] = {
    "cuInit": (c_uint,),
    "cuDriverGetVersion": (_int_out,),
    "cuGetErrorName": (c_int, POINTER(c_char_p)),
    "cuDeviceGetCount": (_int_out,),
    "cuDeviceGet": (_int_out, c_int),
    "cuDeviceGetName": (c_char_p, c_int, c_int),
    "cuDeviceGetAttribute": (_int_out, c_int, c_int),
    "cuDeviceTotalMem_v2": (_size_out, c_int),
    "cuDeviceGetPCIBusId": (c_char_p, c_int, c_int),
    "cuDevicePrimaryCtxRetain": (_handle_out, c_int),
    "cuDevicePrimaryCtxRelease_v2": (c_int,),
    "cuCtxSetCurrent": (_handle,),
    "cuCtxSynchronize": (),
    "cuMemGetInfo_v2": (_size_out, _size_out),
    "cuMemAlloc_v2": (_address_out, c_size_t),
    "cuMemFree_v2": (_address,),
    "cuMemAllocManaged": (_address_out, c_size_t, c_uint),
    "cuMemAllocPitch_v2": (_address_out, _size_out, c_size_t, c_size_t, c_uint),
    "cuMemHostAlloc": (_handle_out, c_size_t, c_uint),
    "cuMemFreeHost": (_handle,),
    "cuMemHostGetDevicePointer_v2": (_address_out, _handle, c_uint),
    "cuMemAllocAsync": (_address_out, c_size_t, _handle),
    "cuMemFreeAsync": (_address, _handle),
    "cuDeviceGetDefaultMemPool": (_handle_out, c_int),
    "cuMemPoolGetAttribute": (_handle, c_int, c_void_p),
    "cuMemPoolTrimTo": (_handle, c_size_t),
    "cuMemcpyHtoDAsync_v2": (_address, c_void_p, c_size_t, _handle),
    "cuMemcpyDtoHAsync_v2": (c_void_p, _address, c_size_t, _handle),
    "cuMemcpyDtoDAsync_v2": (_address, _address, c_size_t, _handle),
    "cuMemcpyHtoD_v2": (_address, c_void_p, c_size_t),
    "cuMemcpyDtoH_v2": (c_void_p, _address, c_size_t),
    "cuMemsetD8_v2": (_address, c_ubyte, c_size_t),
    "cuMemsetD8Async": (_address, c_ubyte, c_size_t, _handle),
    "cuStreamCreate": (_handle_out, c_uint),
    "cuStreamDestroy_v2": (_handle,),
    "cuStreamSynchronize": (_handle,),
    "cuEventCreate": (_handle_out, c_uint),
    "cuEventDestroy_v2": (_handle,),
    "cuEventRecord": (_handle, _handle),
    "cuEventSynchronize": (_handle,),
    "cuEventElapsedTime": (POINTER(c_float), _handle, _handle),
    "cuModuleLoadDataEx": (_handle_out, c_void_p, c_uint, _int_out, _handle_out),
    "cuModuleUnload": (_handle,),
    "cuModuleGetFunction": (_handle_out, _handle, c_char_p),
    "cuLaunchKernel": (
        _handle,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        c_uint,
        _handle,
        _handle_out,
        _handle_out,
    ),
    "cuMemPrefetchAsync": (_address, c_size_t, c_int, _handle),
    "cuMemPrefetchAsync_v2": (_address, c_size_t, MemLocation, c_uint, _handle),
    "cuMemAdvise": (_address, c_size_t, c_int, c_int),
    "cuMemAdvise_v2": (_address, c_size_t, c_int, MemLocation),
    "cuMemRangeGetAttribute": (c_void_p, c_size_t, c_int, _address, c_size_t),
    "cuMemPrefetchBatchAsync": (*_batch, *_locations, c_uint64, _handle),
    "cuMemDiscardBatchAsync": (*_batch, c_uint64, _handle),
    "cuMemDiscardAndPrefetchBatchAsync": (*_batch, *_locations, c_uint64, _handle),
    "cuMemAddressReserve": (_address_out, c_size_t, c_size_t, _address, c_uint64),
    "cuMemAddressFree": (_address, c_size_t),
    "cuMemCreate": (_address_out, c_size_t, POINTER(AllocationProp), c_uint64),
    "cuMemRelease": (c_uint64,),
    "cuMemMap": (_address, c_size_t, c_size_t, c_uint64, c_uint64),
    "cuMemUnmap": (_address, c_size_t),
    "cuMemSetAccess": (_address, c_size_t, POINTER(AccessDesc), c_size_t),
    "cuMemExportToShareableHandle": (c_void_p, c_uint64, c_int, c_uint64),
    "cuMemImportFromShareableHandle": (_address_out, c_void_p, c_int),
    "cuPointerGetAttribute": (c_void_p, c_int, _address),
    "cuMemGetAllocationGranularity": (_size_out, POINTER(AllocationProp), c_int),
    "cuArrayCreate_v2": (_handle_out, POINTER(ArrayDescriptor)),
    "cuArray3DCreate_v2": (_handle_out, POINTER(Array3DDescriptor)),
    "cuArrayDestroy": (_handle,),
    "cuArrayGetMemoryRequirements": (POINTER(ArrayRequirements), _handle, c_int),
    "cuMipmappedArrayCreate": (_handle_out, POINTER(Array3DDescriptor), c_uint),
    "cuMipmappedArrayDestroy": (_handle,),
    "cuStreamBeginCapture_v2": (_handle, c_int),
    "cuStreamEndCapture": (_handle, _handle_out),
    "cuStreamIsCapturing": (_handle, _int_out),
    "cuGraphDestroy": (_handle,),
    "cuGetProcAddress_v2": (c_char_p, _handle_out, c_int, c_uint64, _int_out),
}


class CudaError(RuntimeError):
    """A driver call answered something other than CUDA_SUCCESS."""

    def __init__(self, function: str, code: int, name: str) -> None:
        super().__init__(f"{function}: {name} ({code})")
        self.function = function
        self.code = code


class Missing(RuntimeError):
    """The driver does not export a function that a measurement needs."""


class Cuda:
    """One loaded driver, and the calls of SIGNATURES on it.

    path: what dlopen is given (``libcuda.so.1`` or an absolute path).
    Raises OSError if it cannot be loaded.
    """

    def __init__(self, path: str = "libcuda.so.1") -> None:
        self.path = path
        self.lib = ctypes.CDLL(path)
        self._functions: dict[str, Any] = {}
        self.version = 0

    def has(self, name: str) -> bool:
        """Whether the driver exports `name`."""
        return hasattr(self.lib, name)

    def function(self, name: str) -> Any:
        """The typed function `name`; Missing if the driver does not export it."""
        found = self._functions.get(name)
        if found is None:
            argtypes = SIGNATURES[name]
            try:
                found = self.lib[name]
            except AttributeError:
                raise Missing(f"the driver does not export {name}") from None
            found.argtypes = argtypes
            found.restype = c_int
            self._functions[name] = found
        return found

    def code(self, name: str, *arguments: Any) -> int:
        """Call `name`; its CUresult."""
        return int(self.function(name)(*arguments))

    def call(self, name: str, *arguments: Any) -> None:
        """Call `name`; CudaError unless it answered CUDA_SUCCESS."""
        code = self.code(name, *arguments)
        if code != SUCCESS:
            raise CudaError(name, code, self.error_name(code))

    def error_name(self, code: int) -> str:
        """CUDA_ERROR_… of a code, or its number where the driver does not know it."""
        if code == SUCCESS:
            return "CUDA_SUCCESS"
        text = c_char_p()
        if self.has("cuGetErrorName"):
            self.code("cuGetErrorName", code, ctypes.byref(text))
        return text.value.decode() if text.value else str(code)

    def start(self) -> int:
        """cuInit and the version; returns the number of devices.  CudaError if cuInit fails."""
        self.call("cuInit", 0)
        version = c_int()
        self.call("cuDriverGetVersion", ctypes.byref(version))
        self.version = version.value
        count = c_int()
        self.call("cuDeviceGetCount", ctypes.byref(count))
        return count.value

    def attribute(self, attribute: int, device: int) -> int | None:
        """A device attribute; None where the driver does not know it."""
        value = c_int()
        code = self.code("cuDeviceGetAttribute", ctypes.byref(value), attribute, device)
        return value.value if code == SUCCESS else None

    def device_name(self, device: int) -> str:
        """The card's name, as the driver gives it."""
        text = ctypes.create_string_buffer(128)
        self.call("cuDeviceGetName", text, len(text), device)
        return text.value.decode()

    def pci_bus_id(self, device: int) -> str:
        """domain:bus:device.function, as NVML takes it."""
        text = ctypes.create_string_buffer(32)
        self.call("cuDeviceGetPCIBusId", text, len(text), device)
        return text.value.decode()

    def retain(self, device: int) -> None:
        """Retain the device's primary context and make it current in this thread."""
        context = c_void_p()
        self.call("cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
        self.call("cuCtxSetCurrent", context)

    def memory(self) -> tuple[int, int]:
        """cuMemGetInfo: (free, total) in bytes."""
        free, total = c_size_t(), c_size_t()
        self.call("cuMemGetInfo_v2", ctypes.byref(free), ctypes.byref(total))
        return free.value, total.value

    def alloc(self, size_bytes: int) -> int:
        """cuMemAlloc; the address."""
        address = c_uint64()
        self.call("cuMemAlloc_v2", ctypes.byref(address), size_bytes)
        return address.value

    def free(self, address: int) -> None:
        """cuMemFree."""
        self.call("cuMemFree_v2", address)

    def alloc_managed(self, size_bytes: int) -> int:
        """cuMemAllocManaged, attached globally.  Use Bench.managed, which holds the limit."""
        address = c_uint64()
        self.call("cuMemAllocManaged", ctypes.byref(address), size_bytes, ATTACH_GLOBAL)
        return address.value

    def stream(self) -> c_void_p:
        """A new non-blocking stream."""
        stream = c_void_p()
        self.call("cuStreamCreate", ctypes.byref(stream), STREAM_NON_BLOCKING)
        return stream

    def event(self) -> c_void_p:
        """A new event that records times."""
        event = c_void_p()
        self.call("cuEventCreate", ctypes.byref(event), 0)
        return event

    def elapsed_ms(self, start: c_void_p, end: c_void_p) -> float:
        """Milliseconds between two recorded events; waits for the second."""
        self.call("cuEventSynchronize", end)
        elapsed = c_float()
        self.call("cuEventElapsedTime", ctypes.byref(elapsed), start, end)
        return elapsed.value

    def prefetch(self, address: int, size_bytes: int, where: int, stream: c_void_p) -> None:
        """Prefetch to a device ordinal or CPU, by the version the driver has."""
        code = self.prefetch_code(address, size_bytes, where, stream)
        if code != SUCCESS:
            raise CudaError("cuMemPrefetchAsync", code, self.error_name(code))

    def prefetch_code(self, address: int, size_bytes: int, where: int, stream: c_void_p) -> int:
        """As prefetch, but returns the CUresult."""
        if self.version >= 12020 and self.has("cuMemPrefetchAsync_v2"):
            return self.code(
                "cuMemPrefetchAsync_v2", address, size_bytes, location(where), 0, stream
            )
        return self.code("cuMemPrefetchAsync", address, size_bytes, where, stream)

    def advise(self, address: int, size_bytes: int, advice: int, where: int) -> None:
        """cuMemAdvise for a device ordinal or CPU, by the version the driver has."""
        if self.version >= 12020 and self.has("cuMemAdvise_v2"):
            self.call("cuMemAdvise_v2", address, size_bytes, advice, location(where))
        else:
            self.call("cuMemAdvise", address, size_bytes, advice, where)

    def range_attribute(self, address: int, size_bytes: int, attribute: int) -> int | None:
        """A managed range's attribute as an int (-1: CPU, -2: invalid); None if refused."""
        value = c_int()
        code = self.code(
            "cuMemRangeGetAttribute", ctypes.byref(value), 4, attribute, address, size_bytes
        )
        return value.value if code == SUCCESS else None


def location(where: int) -> MemLocation:
    """CUmemLocation of a device ordinal, or of the host for CPU."""
    if where == CPU:
        return MemLocation(LOCATION_HOST, 0)
    return MemLocation(LOCATION_DEVICE, where)
