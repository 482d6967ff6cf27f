# SPDX-License-Identifier: GPL-2.0-only
"""Pinned host memory: allocated and registered."""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterator
from ctypes import byref, c_uint, c_uint64, c_void_p

import pytest
from cuda_driver import (
    HOST_MEMORY_ALREADY_REGISTERED,
    HOST_MEMORY_NOT_REGISTERED,
    INVALID_VALUE,
    NOT_SUPPORTED,
    SUCCESS,
    Driver,
    SimTable,
)
from memory_types import KIB, MIB, allocated, pattern

PORTABLE, DEVICEMAP, WRITECOMBINED = 1, 2, 4
PAGE = mmap.PAGESIZE

pytestmark = pytest.mark.usefixtures("context")


@pytest.fixture
def pages() -> Iterator[int]:
    """Address of 16 pages that are the program's own."""
    area = mmap.mmap(-1, 16 * PAGE)
    view = (ctypes.c_char * (16 * PAGE)).from_buffer(area)
    yield ctypes.addressof(view)
    del view
    area.close()


@pytest.mark.parametrize("size", [1, 4096, 100_000, 3 * MIB])
@pytest.mark.parametrize("flags", [0, PORTABLE, DEVICEMAP, PORTABLE | DEVICEMAP | WRITECOMBINED])
def test_allocated_memory(driver: Driver, size: int, flags: int) -> None:
    address = driver.new("cuMemHostAlloc", size, flags)
    ctypes.memmove(address, pattern(size), size)
    with allocated(driver, size) as other:
        driver.cuMemcpyHtoD_v2(other, address, size)
        assert driver.download(other, size) == pattern(size)
        ctypes.memset(address, 0, size)
        driver.cuMemcpyDtoHAsync_v2(address, other, size, None)
        driver.cuCtxSynchronize()
    assert ctypes.string_at(address, size) == pattern(size)
    driver.cuMemFreeHost(address)


def test_the_short_form(driver: Driver) -> None:
    address = driver.new("cuMemAllocHost_v2", 64 * KIB)
    ctypes.memset(address, 1, 64 * KIB)
    driver.cuMemFreeHost(address)


def test_the_device_has_the_same_address(driver: Driver) -> None:
    address = driver.new("cuMemHostAlloc", 4096, DEVICEMAP)
    assert driver.new("cuMemHostGetDevicePointer_v2", address, 0) == address
    output = c_uint64()
    code = driver.code("cuMemHostGetDevicePointer_v2", byref(output), address, 1)
    assert code == INVALID_VALUE
    driver.cuMemFreeHost(address)


def test_flags_are_remembered(driver: Driver) -> None:
    address = driver.new("cuMemHostAlloc", 4096, PORTABLE | WRITECOMBINED)
    flags = driver.get(c_uint, "cuMemHostGetFlags", address)
    assert flags & PORTABLE
    assert flags & WRITECOMBINED
    driver.cuMemFreeHost(address)


def test_allocations_that_cannot_be(driver: Driver) -> None:
    output = c_void_p()
    assert driver.code("cuMemHostAlloc", byref(output), 4096, 64) == INVALID_VALUE
    assert driver.code("cuMemHostAlloc", None, 4096, 0) == INVALID_VALUE
    assert driver.code("cuMemHostAlloc", byref(output), 1 << 60, 0) != SUCCESS


def test_only_allocated_memory_is_freed(driver: Driver) -> None:
    address = driver.new("cuMemHostAlloc", 64 * KIB, 0)
    with allocated(driver, 4096) as device:
        assert driver.code("cuMemFreeHost", device) == INVALID_VALUE
    driver.cuMemFreeHost(address)
    assert driver.code("cuMemFreeHost", address) == INVALID_VALUE


def test_the_frees_are_not_each_others(sim_table: SimTable, driver: Driver, pages: int) -> None:
    address = driver.new("cuMemHostAlloc", 64 * KIB, 0)
    assert driver.code("cuMemFree_v2", address) == INVALID_VALUE
    assert driver.code("cuMemFreeHost", address + 512) == INVALID_VALUE
    assert driver.code("cuMemHostUnregister", address) == HOST_MEMORY_NOT_REGISTERED
    driver.cuMemFreeHost(address)
    driver.cuMemHostRegister_v2(pages, PAGE, 0)
    assert driver.code("cuMemFreeHost", pages) == INVALID_VALUE
    driver.cuMemHostUnregister(pages)


# ---- registered memory ----


def test_registered_memory(driver: Driver, pages: int) -> None:
    size = 4 * PAGE
    driver.cuMemHostRegister_v2(pages, size, DEVICEMAP)
    device = driver.new("cuMemHostGetDevicePointer_v2", pages, 0)
    ctypes.memmove(pages, pattern(size), size)
    with allocated(driver, size) as other:
        driver.cuMemcpyDtoD_v2(other, device, size)
        assert driver.download(other, size) == pattern(size)
    driver.cuMemHostUnregister(pages)
    assert ctypes.string_at(pages, size) == pattern(size)


@pytest.mark.parametrize(("first", "count"), [(0, 4), (1, 1), (3, 4), (2, 20)])
def test_nothing_is_registered_twice(
    sim_table: SimTable, driver: Driver, pages: int, first: int, count: int
) -> None:
    driver.cuMemHostRegister_v2(pages, 4 * PAGE, 0)
    code = driver.code("cuMemHostRegister_v2", pages + first * PAGE, count * PAGE, 0)
    assert code == HOST_MEMORY_ALREADY_REGISTERED
    driver.cuMemHostUnregister(pages)


def test_the_same_pages_again(driver: Driver, pages: int) -> None:
    driver.cuMemHostRegister_v2(pages, 4 * PAGE, 0)
    code = driver.code("cuMemHostRegister_v2", pages, 4 * PAGE, 0)
    assert code == HOST_MEMORY_ALREADY_REGISTERED
    driver.cuMemHostUnregister(pages)
    driver.cuMemHostRegister_v2(pages, 16 * PAGE, PORTABLE)
    driver.cuMemHostUnregister(pages)


def test_what_is_not_registered(driver: Driver, pages: int) -> None:
    assert driver.code("cuMemHostUnregister", pages) == HOST_MEMORY_NOT_REGISTERED
    output = c_uint64()
    code = driver.code("cuMemHostGetDevicePointer_v2", byref(output), pages, 0)
    assert code == INVALID_VALUE
    assert driver.code("cuMemHostGetFlags", byref(c_uint()), pages) == INVALID_VALUE


def test_registrations_that_cannot_be(driver: Driver, pages: int) -> None:
    assert driver.code("cuMemHostRegister_v2", None, PAGE, 0) == INVALID_VALUE
    assert driver.code("cuMemHostRegister_v2", pages, 0, 0) == INVALID_VALUE
    assert driver.code("cuMemHostRegister_v2", pages, PAGE, 64) == INVALID_VALUE


def test_memory_of_devices_is_not_mapped_here(
    sim_table: SimTable, driver: Driver, pages: int
) -> None:
    assert driver.code("cuMemHostRegister_v2", pages, PAGE, 4) == NOT_SUPPORTED


def test_a_copy_does_not_straddle_a_registration(
    sim_table: SimTable, driver: Driver, pages: int
) -> None:
    driver.cuMemHostRegister_v2(pages, 2 * PAGE, 0)
    with allocated(driver, 4 * PAGE) as device:
        code = driver.code("cuMemcpyHtoD_v2", device, pages, 4 * PAGE)
        assert code == INVALID_VALUE
        driver.cuMemcpyHtoD_v2(device, pages, 2 * PAGE)
        driver.cuMemHostUnregister(pages)
        driver.cuMemHostRegister_v2(pages + 2 * PAGE, 2 * PAGE, 0)
        assert driver.code("cuMemcpy", device, pages, 4 * PAGE) == INVALID_VALUE
        driver.cuMemcpy(device, pages, 2 * PAGE)
        driver.cuMemHostUnregister(pages + 2 * PAGE)


def test_the_old_entry_point(driver: Driver, pages: int) -> None:
    driver.cuMemHostRegister(pages, PAGE, 0)
    driver.cuMemHostUnregister(pages)
