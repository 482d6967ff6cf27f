# SPDX-License-Identifier: GPL-2.0-only
"""Stream-ordered allocation and memory pools."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import byref, c_int, c_uint64

import pytest
from cuda_driver import (
    INVALID_VALUE,
    OUT_OF_MEMORY,
    SUCCESS,
    AccessDesc,
    Driver,
    Location,
    PoolProps,
    SimTable,
)
from memory_types import (
    DEVICE,
    DEVICE_0,
    HOST,
    MANAGED,
    MIB,
    ON_HOST,
    PINNED,
    READ_WRITE,
    Script,
    allocated,
    pattern,
)

(FOLLOW_EVENTS, OPPORTUNISTIC, INTERNAL, THRESHOLD) = range(1, 5)
(RESERVED, RESERVED_HIGH, USED, USED_HIGH) = range(5, 9)
POOL_HANDLE = 17  # CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE

pytestmark = pytest.mark.usefixtures("context")


@pytest.fixture
def stream(driver: Driver) -> int:
    """A stream that is not the legacy one."""
    return driver.new("cuStreamCreate", 1)


@pytest.fixture
def pool(driver: Driver) -> Iterator[int]:
    """A pool of device 0's memory; the test frees what it allocated."""
    props = PoolProps(type=PINNED, location=DEVICE_0)
    handle = driver.new("cuMemPoolCreate", byref(props))
    yield handle
    driver.cuMemPoolDestroy(handle)


def get(driver: Driver, pool: int, which: int) -> int:
    value = c_uint64()
    driver.cuMemPoolGetAttribute(pool, which, byref(value))
    return value.value


def put(driver: Driver, pool: int, which: int, value: int) -> int:
    return driver.code("cuMemPoolSetAttribute", pool, which, byref(c_uint64(value)))


def used(table: SimTable) -> int:
    value = c_uint64()
    assert table.device_used(0, byref(value)) == SUCCESS
    return value.value


# ---- allocation ----


@pytest.mark.parametrize("size", [1, 4096, MIB, 5 * MIB + 3])
def test_an_allocation_holds_its_bytes(driver: Driver, stream: int, size: int) -> None:
    address = driver.new("cuMemAllocAsync", size, stream)
    assert address % 256 == 0
    data = (ctypes.c_char * size).from_buffer_copy(pattern(size))
    driver.cuMemcpyHtoDAsync_v2(address, data, size, stream)
    driver.cuStreamSynchronize(stream)
    assert driver.download(address, size) == pattern(size)
    driver.cuMemFreeAsync(address, stream)
    driver.cuStreamSynchronize(stream)


def test_the_default_streams_allocate_too(driver: Driver) -> None:
    for suffix in ("", "_ptsz"):
        address = driver.new("cuMemAllocAsync" + suffix, 4096, None)
        driver.check("cuMemFreeAsync" + suffix, address, None)
    driver.cuCtxSynchronize()


def test_every_free_frees_every_kind(driver: Driver, stream: int) -> None:
    ordered = driver.new("cuMemAllocAsync", MIB, stream)
    driver.cuStreamSynchronize(stream)
    driver.cuMemFree_v2(ordered)
    plain = driver.new("cuMemAlloc_v2", MIB)
    driver.cuMemFreeAsync(plain, stream)
    driver.cuStreamSynchronize(stream)


def test_double_and_foreign_frees(sim_table: SimTable, driver: Driver, stream: int) -> None:
    address = driver.new("cuMemAllocAsync", MIB, stream)
    assert driver.code("cuMemFreeAsync", address + 512, stream) == INVALID_VALUE
    driver.cuMemFreeAsync(address, stream)
    assert driver.code("cuMemFreeAsync", address, stream) == INVALID_VALUE
    assert driver.code("cuMemFree_v2", address) == INVALID_VALUE
    managed = driver.new("cuMemAllocManaged", MIB, 1)
    assert driver.code("cuMemFreeAsync", managed, stream) == INVALID_VALUE
    driver.cuMemFree_v2(managed)


def test_allocations_that_cannot_be(driver: Driver, stream: int) -> None:
    output = c_uint64()
    assert driver.code("cuMemAllocAsync", byref(output), 0, stream) == INVALID_VALUE
    assert driver.code("cuMemAllocAsync", None, 512, stream) == INVALID_VALUE
    assert driver.code("cuMemAllocAsync", byref(output), 1 << 60, stream) == OUT_OF_MEMORY
    assert driver.code("cuMemAllocFromPoolAsync", byref(output), 512, None, stream) != SUCCESS


# ---- pools ----


def test_the_default_pool_is_the_current_one(driver: Driver, pool: int) -> None:
    default = driver.new("cuDeviceGetDefaultMemPool", 0)
    assert driver.new("cuDeviceGetMemPool", 0) == default
    driver.cuDeviceSetMemPool(0, pool)
    try:
        assert driver.new("cuDeviceGetMemPool", 0) == pool
        assert driver.new("cuDeviceGetDefaultMemPool", 0) == default
    finally:
        driver.cuDeviceSetMemPool(0, default)


def test_destroying_the_current_pool_brings_the_default_back(driver: Driver) -> None:
    handle = driver.new("cuMemPoolCreate", byref(PoolProps(type=PINNED, location=DEVICE_0)))
    driver.cuDeviceSetMemPool(0, handle)
    driver.cuMemPoolDestroy(handle)
    default = driver.new("cuDeviceGetDefaultMemPool", 0)
    assert driver.new("cuDeviceGetMemPool", 0) == default


def test_allocations_know_their_pool(driver: Driver, pool: int, stream: int) -> None:
    address = driver.new("cuMemAllocFromPoolAsync", MIB, pool, stream)
    other = driver.new("cuMemAllocAsync", MIB, stream)
    assert driver.new("cuPointerGetAttribute", POOL_HANDLE, address) == pool
    default = driver.new("cuDeviceGetDefaultMemPool", 0)
    assert driver.new("cuPointerGetAttribute", POOL_HANDLE, other) == default
    for each in (address, other):
        driver.cuMemFreeAsync(each, stream)
    driver.cuStreamSynchronize(stream)


def test_used_and_reserved(driver: Driver, pool: int, stream: int) -> None:
    assert (get(driver, pool, USED), get(driver, pool, RESERVED)) == (0, 0)
    first = driver.new("cuMemAllocFromPoolAsync", 4 * MIB, pool, stream)
    second = driver.new("cuMemAllocFromPoolAsync", 4 * MIB, pool, stream)
    assert get(driver, pool, USED) == 8 * MIB
    assert get(driver, pool, RESERVED) >= 8 * MIB
    driver.cuMemFreeAsync(second, stream)
    driver.cuStreamSynchronize(stream)
    assert get(driver, pool, USED) == 4 * MIB
    assert get(driver, pool, USED_HIGH) == 8 * MIB
    assert put(driver, pool, USED_HIGH, 0) == SUCCESS
    assert get(driver, pool, USED_HIGH) == 4 * MIB
    driver.cuMemFreeAsync(first, stream)
    driver.cuStreamSynchronize(stream)
    assert get(driver, pool, USED) == 0


def test_the_threshold_keeps_freed_memory(driver: Driver, pool: int, stream: int) -> None:
    assert get(driver, pool, THRESHOLD) == 0
    assert put(driver, pool, THRESHOLD, 1 << 40) == SUCCESS
    address = driver.new("cuMemAllocFromPoolAsync", 8 * MIB, pool, stream)
    reserved = get(driver, pool, RESERVED)
    driver.cuMemFreeAsync(address, stream)
    driver.cuStreamSynchronize(stream)
    assert get(driver, pool, RESERVED) == reserved
    driver.cuMemPoolTrimTo(pool, 0)
    assert get(driver, pool, RESERVED) == 0


def test_without_a_threshold_nothing_is_kept(driver: Driver, pool: int, stream: int) -> None:
    address = driver.new("cuMemAllocFromPoolAsync", 8 * MIB, pool, stream)
    driver.cuMemFreeAsync(address, stream)
    driver.cuStreamSynchronize(stream)
    assert get(driver, pool, RESERVED) == 0


def test_the_card_pays_for_what_is_reserved(
    sim_table: SimTable, driver: Driver, pool: int, stream: int
) -> None:
    before = used(sim_table)
    put(driver, pool, THRESHOLD, 4 * MIB)
    live = [driver.new("cuMemAllocFromPoolAsync", 3 * MIB, pool, stream) for _ in range(3)]
    assert used(sim_table) == before + 9 * MIB
    driver.cuMemFreeAsync(live.pop(), stream)
    assert used(sim_table) == before + 6 * MIB
    driver.cuMemFreeAsync(live.pop(), stream)
    assert used(sim_table) == before + 4 * MIB  # three used, one kept
    live.append(driver.new("cuMemAllocFromPoolAsync", MIB, pool, stream))
    assert used(sim_table) == before + 4 * MIB  # from what was kept
    for address in live:
        driver.cuMemFreeAsync(address, stream)
    driver.cuMemPoolTrimTo(pool, MIB)
    assert used(sim_table) == before + MIB
    driver.cuMemPoolTrimTo(pool, 0)
    assert used(sim_table) == before


def test_a_destroyed_pool_waits_for_its_memory(
    sim_table: SimTable, driver: Driver, stream: int
) -> None:
    before = used(sim_table)
    handle = driver.new("cuMemPoolCreate", byref(PoolProps(type=PINNED, location=DEVICE_0)))
    address = driver.new("cuMemAllocFromPoolAsync", 3 * MIB, handle, stream)
    driver.cuMemPoolDestroy(handle)
    code = driver.code("cuMemAllocFromPoolAsync", byref(c_uint64()), 512, handle, stream)
    assert code == INVALID_VALUE
    driver.upload(address, pattern(3 * MIB))
    assert used(sim_table) == before + 3 * MIB
    driver.cuMemFreeAsync(address, stream)
    assert used(sim_table) == before


def test_a_pool_has_a_size_limit(sim_table: SimTable, driver: Driver, stream: int) -> None:
    props = PoolProps(type=PINNED, location=DEVICE_0, max_size=4 * MIB)
    handle = driver.new("cuMemPoolCreate", byref(props))
    address = driver.new("cuMemAllocFromPoolAsync", 3 * MIB, handle, stream)
    output = c_uint64()
    code = driver.code("cuMemAllocFromPoolAsync", byref(output), 2 * MIB, handle, stream)
    assert code == OUT_OF_MEMORY
    driver.cuMemFreeAsync(address, stream)
    driver.cuMemPoolDestroy(handle)


def test_default_pools_stay(driver: Driver) -> None:
    default = driver.new("cuDeviceGetDefaultMemPool", 0)
    assert driver.code("cuMemPoolDestroy", default) == INVALID_VALUE


@pytest.mark.parametrize(
    "props",
    [
        PoolProps(type=0, location=DEVICE_0),
        PoolProps(type=PINNED, location=Location(0, 0)),
        PoolProps(type=PINNED, location=Location(DEVICE, 99)),
    ],
)
def test_pools_that_cannot_be(driver: Driver, props: PoolProps) -> None:
    assert driver.code("cuMemPoolCreate", byref(c_uint64()), byref(props)) != SUCCESS


def test_attributes_that_cannot_be_set(driver: Driver, pool: int) -> None:
    for which in (RESERVED, USED, 99):
        assert put(driver, pool, which, 0) == INVALID_VALUE
    assert put(driver, pool, USED_HIGH, 5) == INVALID_VALUE


def test_attributes_want_somewhere_to_go(sim_table: SimTable, driver: Driver, pool: int) -> None:
    assert driver.code("cuMemPoolGetAttribute", pool, USED, None) == INVALID_VALUE
    assert driver.code("cuMemPoolSetAttribute", pool, THRESHOLD, None) == INVALID_VALUE
    assert driver.code("cuMemPoolGetAttribute", 0xDEAD, USED, byref(c_uint64())) == INVALID_VALUE


@pytest.mark.parametrize("which", [FOLLOW_EVENTS, OPPORTUNISTIC, INTERNAL])
def test_reuse_can_be_forbidden(driver: Driver, pool: int, which: int) -> None:
    value = c_int(9)
    driver.cuMemPoolGetAttribute(pool, which, byref(value))
    assert value.value == 1
    driver.cuMemPoolSetAttribute(pool, which, byref(c_int(0)))
    driver.cuMemPoolGetAttribute(pool, which, byref(value))
    assert value.value == 0


def test_a_pools_own_device_has_access(driver: Driver, pool: int) -> None:
    place = Location(DEVICE, 0)
    assert driver.get(c_int, "cuMemPoolGetAccess", pool, byref(place)) == READ_WRITE
    desc = AccessDesc(DEVICE_0, READ_WRITE)
    driver.cuMemPoolSetAccess(pool, byref(desc), 1)
    desc.flags = 0
    assert driver.code("cuMemPoolSetAccess", pool, byref(desc), 1) != SUCCESS


def test_access_from_another_device(sim_table: SimTable, script: Script) -> None:
    script(
        """
        driver.cuInit(0)
        pool = driver.new("cuMemPoolCreate", byref(PoolProps(type=1, location=Location(1, 0))))
        other = Location(1, 1)
        assert driver.get(c_int, "cuMemPoolGetAccess", pool, byref(other)) == 0
        driver.cuMemPoolSetAccess(pool, byref(AccessDesc(other, 3)), 1)
        assert driver.get(c_int, "cuMemPoolGetAccess", pool, byref(other)) == 3
        driver.cuMemPoolSetAccess(pool, byref(AccessDesc(other, 0)), 1)
        assert driver.get(c_int, "cuMemPoolGetAccess", pool, byref(other)) == 0
        assert driver.code("cuDeviceSetMemPool", 1, pool) == INVALID_VALUE
        """,
        EMUV_SIM_DEVICES="2",
    )


# ---- pools of other memory (CUDA 13.0) ----


def since_13(driver: Driver) -> None:
    if not hasattr(driver.dll, "cuMemGetMemPool"):
        pytest.skip("the driver is older than CUDA 13.0")


def test_pools_by_location(driver: Driver) -> None:
    since_13(driver)
    place = Location(DEVICE, 0)
    default = driver.new("cuMemGetDefaultMemPool", byref(place), PINNED)
    assert default == driver.new("cuDeviceGetDefaultMemPool", 0)
    assert driver.new("cuMemGetMemPool", byref(place), PINNED) == default
    driver.cuMemSetMemPool(byref(place), PINNED, default)
    assert driver.code("cuMemGetMemPool", byref(c_uint64()), byref(place), 0) != SUCCESS


def test_managed_pools(sim_table: SimTable, driver: Driver, stream: int) -> None:
    before = used(sim_table)
    handle = driver.new("cuMemPoolCreate", byref(PoolProps(type=MANAGED, location=Location(0, 0))))
    address = driver.new("cuMemAllocFromPoolAsync", 4 * MIB, handle, stream)
    assert used(sim_table) == before
    assert get(driver, handle, USED) == 4 * MIB
    ctypes.memmove(address, pattern(MIB), MIB)
    assert driver.download(address, MIB) == pattern(MIB)
    assert used(sim_table) == before + 2 * MIB
    driver.cuMemPrefetchAsync(address, 4 * MIB, 0, stream)
    driver.cuStreamSynchronize(stream)
    assert used(sim_table) == before + 4 * MIB
    driver.cuMemFreeAsync(address, stream)
    assert used(sim_table) == before
    driver.cuMemPoolDestroy(handle)


def test_host_pools(sim_table: SimTable, driver: Driver, stream: int) -> None:
    before = used(sim_table)
    handle = driver.new("cuMemPoolCreate", byref(PoolProps(type=PINNED, location=ON_HOST)))
    address = driver.new("cuMemAllocFromPoolAsync", MIB, handle, stream)
    ctypes.memmove(address, pattern(MIB), MIB)
    with allocated(driver, MIB) as plain:
        driver.cuMemcpyDtoD_v2(plain, address, MIB)
        assert driver.download(plain, MIB) == pattern(MIB)
    assert used(sim_table) == before
    driver.cuMemFreeAsync(address, stream)
    driver.cuMemPoolDestroy(handle)
    place = Location(HOST, 0)
    assert driver.new("cuMemGetDefaultMemPool", byref(place), PINNED)


def test_the_card_holds_pools_too(sim_table: SimTable, script: Script) -> None:
    script(
        """
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        pool = driver.new("cuDeviceGetDefaultMemPool", 0)
        driver.cuMemPoolSetAttribute(pool, 4, byref(c_uint64(1 << 40)))
        address = driver.new("cuMemAllocAsync", 24 << 20, None)
        driver.cuMemFreeAsync(address, None)
        assert driver.memory_info()[0] == 8 << 20              # kept by the pool
        assert driver.code("cuMemAlloc_v2", byref(c_uint64()), 16 << 20) == OUT_OF_MEMORY
        driver.new("cuMemAllocAsync", 32 << 20, None)          # reuses what is kept
        assert driver.code("cuMemAllocAsync", byref(c_uint64()), 1, None) == OUT_OF_MEMORY
        """,
        EMUV_SIM_VRAM=str(32 * MIB),
    )


def test_a_pool_reserves_in_pieces(sim_table: SimTable, script: Script) -> None:
    script(
        """
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        pool = driver.new("cuDeviceGetDefaultMemPool", 0)
        def reserved():
            value = c_uint64()
            driver.cuMemPoolGetAttribute(pool, 5, byref(value))
            return value.value >> 20
        driver.cuMemPoolSetAttribute(pool, 4, byref(c_uint64(40 << 20)))
        a = driver.new("cuMemAllocAsync", 1, None)
        assert reserved() == 32
        b = driver.new("cuMemAllocAsync", 32 << 20, None)
        assert reserved() == 64
        assert driver.memory_info()[0] == 64 << 20
        assert driver.code("cuMemAllocAsync", byref(c_uint64()), 96 << 20, None) == OUT_OF_MEMORY
        driver.cuMemFreeAsync(b, None)
        driver.cuStreamSynchronize(None)
        assert reserved() == 64                      # 40 MiB are two pieces
        driver.cuMemPoolTrimTo(pool, 0)
        assert reserved() == 32                      # one has an allocation
        driver.cuMemFreeAsync(a, None)
        driver.cuStreamSynchronize(None)
        driver.cuMemPoolTrimTo(pool, 0)
        assert reserved() == 0
        """,
        EMUV_SIM_VRAM=str(128 * MIB),
        EMUV_SIM_POOL=str(32 * MIB),
    )
