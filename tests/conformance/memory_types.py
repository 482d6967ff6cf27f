# SPDX-License-Identifier: GPL-2.0-only
"""Structures and numbers of the memory API that its tests share."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import Structure, Union, c_int, c_size_t, c_uint, c_uint64, c_void_p

from cuda_driver import AllocationProp, Driver, Location

Script = Callable[..., str]  # conftest's fixture

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30
BLOCK = 2 * MIB

DEVICE, HOST, HOST_NUMA, HOST_NUMA_CURRENT = 1, 2, 3, 4  # CUmemLocationType
CPU, NO_DEVICE_ID = -1, -2  # CU_DEVICE_CPU, CU_DEVICE_INVALID
PINNED, MANAGED = 1, 2  # CUmemAllocationType
ATTACH_GLOBAL, ATTACH_HOST, ATTACH_SINGLE = 1, 2, 4
READ, READ_WRITE = 1, 3  # CUmemAccess_flags

TYPE_HOST, TYPE_DEVICE, TYPE_ARRAY, TYPE_UNIFIED = 1, 2, 3, 4  # CUmemorytype

(
    SET_READ_MOSTLY,
    UNSET_READ_MOSTLY,
    SET_PREFERRED,
    UNSET_PREFERRED,
    SET_ACCESSED_BY,
    UNSET_ACCESSED_BY,
) = range(1, 7)

DEVICE_0 = Location(DEVICE, 0)
ON_HOST = Location(HOST, 0)


class Memcpy2D(Structure):
    """CUDA_MEMCPY2D (v2)."""

    _fields_ = [
        ("src_x", c_size_t),
        ("src_y", c_size_t),
        ("src_type", c_int),
        ("src_host", c_void_p),
        ("src_device", c_uint64),
        ("src_array", c_uint64),
        ("src_pitch", c_size_t),
        ("dst_x", c_size_t),
        ("dst_y", c_size_t),
        ("dst_type", c_int),
        ("dst_host", c_void_p),
        ("dst_device", c_uint64),
        ("dst_array", c_uint64),
        ("dst_pitch", c_size_t),
        ("width", c_size_t),
        ("height", c_size_t),
    ]


class Memcpy3D(Structure):
    """CUDA_MEMCPY3D (v2), and CUDA_MEMCPY3D_PEER, whose contexts are reserved fields here."""

    _fields_ = [
        ("src_x", c_size_t),
        ("src_y", c_size_t),
        ("src_z", c_size_t),
        ("src_lod", c_size_t),
        ("src_type", c_int),
        ("src_host", c_void_p),
        ("src_device", c_uint64),
        ("src_array", c_uint64),
        ("src_context", c_uint64),
        ("src_pitch", c_size_t),
        ("src_height", c_size_t),
        ("dst_x", c_size_t),
        ("dst_y", c_size_t),
        ("dst_z", c_size_t),
        ("dst_lod", c_size_t),
        ("dst_type", c_int),
        ("dst_host", c_void_p),
        ("dst_device", c_uint64),
        ("dst_array", c_uint64),
        ("dst_context", c_uint64),
        ("dst_pitch", c_size_t),
        ("dst_height", c_size_t),
        ("width", c_size_t),
        ("height", c_size_t),
        ("depth", c_size_t),
    ]


class CopyAttributes(Structure):
    """CUmemcpyAttributes; order 1 stream, 2 during the call, 3 any."""

    _fields_ = [
        ("order", c_int),
        ("src_hint", Location),
        ("dst_hint", Location),
        ("flags", c_uint),
    ]


class _Pointer(Structure):
    _fields_ = [
        ("ptr", c_uint64),
        ("row_length", c_size_t),
        ("layer_height", c_size_t),
        ("hint", Location),
    ]


class _InArray(Structure):
    _fields_ = [("array", c_uint64), ("x", c_size_t), ("y", c_size_t), ("z", c_size_t)]


class _Place(Union):
    _fields_ = [("pointer", _Pointer), ("array", _InArray)]


class Operand(Structure):
    """CUmemcpy3DOperand; type 1 pointer, 2 array."""

    _fields_ = [("type", c_int), ("place", _Place)]


class BatchOp3D(Structure):
    """CUDA_MEMCPY3D_BATCH_OP."""

    _fields_ = [
        ("src", Operand),
        ("dst", Operand),
        ("width", c_size_t),
        ("height", c_size_t),
        ("depth", c_size_t),
        ("order", c_int),
        ("flags", c_uint),
    ]


def pinned_prop(location: Location = DEVICE_0, handle_types: int = 0) -> AllocationProp:
    """What cuMemCreate makes memory of."""
    return AllocationProp(type=PINNED, handle_types=handle_types, location=location)


@contextmanager
def allocated(driver: Driver, size: int) -> Iterator[int]:
    """`size` bytes of device memory, freed at the end."""
    address = driver.new("cuMemAlloc_v2", size)
    try:
        yield address
    finally:
        driver.cuMemFree_v2(address)


@contextmanager
def managed(driver: Driver, size: int) -> Iterator[int]:
    """`size` bytes of managed memory, freed at the end."""
    address = driver.new("cuMemAllocManaged", size, ATTACH_GLOBAL)
    try:
        yield address
    finally:
        driver.cuMemFree_v2(address)


def pattern(size: int, seed: int = 0) -> bytes:
    """`size` bytes that differ from seed to seed, and from any power of two away."""
    turn = bytes((i * 131 + (i >> 8) * 29 + seed * 57) & 0xFF for i in range(min(size, 4093)))
    return (turn * (size // 4093 + 1))[:size]
