# SPDX-License-Identifier: GPL-2.0-only
"""Virtual memory management: reservations, handles, mappings, access."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import byref, c_int, c_size_t, c_uint64

import pytest
from cuda_driver import (
    INVALID_DEVICE,
    INVALID_VALUE,
    OUT_OF_MEMORY,
    SUCCESS,
    AccessDesc,
    AllocationProp,
    Driver,
    Location,
    SimTable,
)
from memory_types import (
    DEVICE,
    DEVICE_0,
    HOST,
    HOST_NUMA,
    MIB,
    ON_HOST,
    READ,
    READ_WRITE,
    Script,
    allocated,
    pattern,
    pinned_prop,
)

HANDLE_TYPE_FD = 1
HOST_NUMA_VMM_SUPPORTED, HOST_VMM_SUPPORTED = 141, 145

pytestmark = pytest.mark.usefixtures("context")


@pytest.fixture
def grain(driver: Driver) -> int:
    """The minimum granularity of device memory."""
    return int(driver.get(c_size_t, "cuMemGetAllocationGranularity", byref(pinned_prop()), 0))


@pytest.fixture
def space(driver: Driver, grain: int) -> Iterator[int]:
    """Eight grains of reserved addresses; the test unmaps what it mapped."""
    address = driver.new("cuMemAddressReserve", 8 * grain, 0, 0, 0)
    yield address
    driver.cuMemAddressFree(address, 8 * grain)


def create(driver: Driver, size: int, location: Location = DEVICE_0) -> int:
    return driver.new("cuMemCreate", size, byref(pinned_prop(location)), 0)


def grant(driver: Driver, address: int, size: int, flags: int = READ_WRITE) -> None:
    desc = AccessDesc(DEVICE_0, flags)
    driver.cuMemSetAccess(address, size, byref(desc), 1)


def used(table: SimTable) -> int:
    value = c_uint64()
    assert table.device_used(0, byref(value)) == SUCCESS
    return value.value


# ---- granularity and reservations ----


def test_granularity(driver: Driver, grain: int) -> None:
    assert grain > 0
    assert grain & (grain - 1) == 0
    size = c_size_t()
    code = driver.code("cuMemGetAllocationGranularity", byref(size), byref(pinned_prop()), 7)
    assert code == INVALID_VALUE
    nowhere = pinned_prop(Location(DEVICE, 99))
    assert driver.code("cuMemGetAllocationGranularity", byref(size), byref(nowhere), 0) != SUCCESS


def test_the_grain_is_2_mib(sim_table: SimTable, grain: int) -> None:
    assert grain == 2 * MIB


@pytest.mark.parametrize("alignment", [0, 1 << 21, 1 << 25])
def test_reservations_are_aligned(driver: Driver, grain: int, alignment: int) -> None:
    address = driver.new("cuMemAddressReserve", 2 * grain, alignment, 0, 0)
    assert address % max(grain, alignment) == 0
    driver.cuMemAddressFree(address, 2 * grain)


def test_a_free_address_is_given_when_asked_for(sim_table: SimTable, driver: Driver) -> None:
    address = driver.new("cuMemAddressReserve", 64 * MIB, 0, 0, 0)
    driver.cuMemAddressFree(address, 64 * MIB)
    assert driver.new("cuMemAddressReserve", 64 * MIB, 0, address, 0) == address
    other = driver.new("cuMemAddressReserve", 64 * MIB, 0, address, 0)  # taken: elsewhere
    assert abs(other - address) >= 64 * MIB
    driver.cuMemAddressFree(address, 64 * MIB)
    driver.cuMemAddressFree(other, 64 * MIB)


@pytest.mark.parametrize(
    ("size", "alignment", "flags"), [(0, 0, 0), (2 * MIB, 3, 0), (2 * MIB, 0, 1), (4097, 0, 0)]
)
def test_reservations_that_cannot_be(driver: Driver, size: int, alignment: int, flags: int) -> None:
    output = c_uint64()
    code = driver.code("cuMemAddressReserve", byref(output), size, alignment, 0, flags)
    assert code == INVALID_VALUE


def test_a_reservation_is_freed_whole_and_once(driver: Driver, grain: int) -> None:
    address = driver.new("cuMemAddressReserve", 4 * grain, 0, 0, 0)
    assert driver.code("cuMemAddressFree", address, grain) == INVALID_VALUE
    assert driver.code("cuMemAddressFree", address + grain, 3 * grain) == INVALID_VALUE
    driver.cuMemAddressFree(address, 4 * grain)
    assert driver.code("cuMemAddressFree", address, 4 * grain) == INVALID_VALUE


def test_a_mapped_reservation_is_not_freed(
    sim_table: SimTable, driver: Driver, space: int, grain: int
) -> None:
    handle = create(driver, grain)
    driver.cuMemMap(space, grain, 0, handle, 0)
    assert driver.code("cuMemAddressFree", space, 8 * grain) == INVALID_VALUE
    driver.cuMemUnmap(space, grain)
    driver.cuMemRelease(handle)


# ---- handles ----


def test_what_a_handle_was_made_of(driver: Driver, grain: int) -> None:
    handle = create(driver, grain)
    prop = AllocationProp()
    driver.cuMemGetAllocationPropertiesFromHandle(byref(prop), handle)
    assert (prop.type, prop.location.type, prop.location.id) == (1, DEVICE, 0)
    driver.cuMemRelease(handle)


def test_handles_that_cannot_be(driver: Driver, grain: int) -> None:
    output = c_uint64()

    def code(size: int, prop: AllocationProp | None, flags: int = 0) -> int:
        pointer = byref(prop) if prop else None
        return driver.code("cuMemCreate", byref(output), size, pointer, flags)

    assert code(0, pinned_prop()) == INVALID_VALUE
    assert code(grain + 4096, pinned_prop()) == INVALID_VALUE
    assert code(grain, None) == INVALID_VALUE
    assert code(grain, pinned_prop(), flags=1) == INVALID_VALUE
    assert code(1 << 50, pinned_prop()) == OUT_OF_MEMORY
    assert code(grain, pinned_prop(Location(DEVICE, 99))) in (INVALID_DEVICE, INVALID_VALUE)
    assert code(grain, pinned_prop(Location(0, 0))) != SUCCESS


def test_a_handle_takes_the_card_until_released(
    sim_table: SimTable, driver: Driver, grain: int
) -> None:
    before = used(sim_table)
    handle = create(driver, 3 * grain)
    assert used(sim_table) == before + 3 * grain
    driver.cuMemRelease(handle)
    assert used(sim_table) == before
    assert driver.code("cuMemRelease", handle) == INVALID_VALUE


def test_memory_lives_as_long_as_it_is_mapped(
    sim_table: SimTable, driver: Driver, space: int, grain: int
) -> None:
    before = used(sim_table)
    handle = create(driver, grain)
    driver.cuMemMap(space, grain, 0, handle, 0)
    grant(driver, space, grain)
    driver.cuMemRelease(handle)
    assert used(sim_table) == before + grain
    driver.upload(space, pattern(grain))
    assert driver.download(space, grain) == pattern(grain)
    driver.cuMemUnmap(space, grain)
    assert used(sim_table) == before


def test_a_mapping_gives_its_handle_back(driver: Driver, space: int, grain: int) -> None:
    handle = create(driver, grain)
    driver.cuMemMap(space, grain, 0, handle, 0)
    driver.cuMemRelease(handle)
    again = driver.new("cuMemRetainAllocationHandle", space + 100)
    driver.cuMemUnmap(space, grain)
    driver.cuMemMap(space + grain, grain, 0, again, 0)
    driver.cuMemUnmap(space + grain, grain)
    driver.cuMemRelease(again)
    assert driver.code("cuMemRetainAllocationHandle", byref(c_uint64()), space) == INVALID_VALUE


def test_new_memory_is_not_the_old_ones(sim_table: SimTable, driver: Driver) -> None:
    """What a released handle held is gone, and its place in the file is not used again."""
    size = 2 * MIB
    address = driver.new("cuMemAddressReserve", size, 0, 0, 0)
    for turn in range(3):
        handle = create(driver, size)
        driver.cuMemMap(address, size, 0, handle, 0)
        grant(driver, address, size)
        assert driver.download(address, size) == bytes(size)
        driver.upload(address, pattern(size, turn))
        driver.cuMemUnmap(address, size)
        driver.cuMemRelease(handle)
    driver.cuMemAddressFree(address, size)


# ---- mappings ----


def test_two_mappings_of_one_handle_are_the_same_bytes(
    driver: Driver, space: int, grain: int
) -> None:
    handle = create(driver, grain)
    for at in (space, space + 4 * grain):
        driver.cuMemMap(at, grain, 0, handle, 0)
        grant(driver, at, grain)
    driver.upload(space, pattern(grain))
    assert driver.download(space + 4 * grain, grain) == pattern(grain)
    for at in (space, space + 4 * grain):
        driver.cuMemUnmap(at, grain)
    driver.cuMemRelease(handle)


def test_copies_run_across_neighbouring_mappings(driver: Driver, space: int, grain: int) -> None:
    handles = [create(driver, grain) for _ in range(3)]
    for i, handle in enumerate(handles):
        driver.cuMemMap(space + i * grain, grain, 0, handle, 0)
    grant(driver, space, 3 * grain)
    driver.upload(space, pattern(3 * grain))
    assert driver.download(space, 3 * grain) == pattern(3 * grain)
    driver.cuMemsetD8_v2(space + grain - 10, 9, 20)
    assert driver.download(space + grain - 10, 20) == b"\t" * 20
    driver.cuMemUnmap(space, 3 * grain)
    for handle in handles:
        driver.cuMemRelease(handle)


def test_a_mapping_is_undone_whole(driver: Driver, space: int, grain: int) -> None:
    handle = create(driver, 2 * grain)
    driver.cuMemMap(space, 2 * grain, 0, handle, 0)
    assert driver.code("cuMemUnmap", space, grain) == INVALID_VALUE
    assert driver.code("cuMemUnmap", space + grain, grain) == INVALID_VALUE
    driver.cuMemUnmap(space, 2 * grain)
    driver.cuMemRelease(handle)


def test_mappings_that_cannot_be(driver: Driver, space: int, grain: int) -> None:
    handle = create(driver, grain)
    map_ = "cuMemMap"
    assert driver.code(map_, space, 2 * grain, 0, handle, 0) == INVALID_VALUE  # too small
    assert driver.code(map_, space + 4096, grain, 0, handle, 0) == INVALID_VALUE
    assert driver.code(map_, space, grain, 0, handle, 1) == INVALID_VALUE
    assert driver.code(map_, space, 0, 0, handle, 0) == INVALID_VALUE
    driver.cuMemMap(space, grain, 0, handle, 0)
    assert driver.code(map_, space, grain, 0, handle, 0) != SUCCESS  # taken
    driver.cuMemUnmap(space, grain)
    driver.cuMemRelease(handle)


def test_only_reserved_addresses_are_mapped(
    sim_table: SimTable, driver: Driver, space: int, grain: int
) -> None:
    handle = create(driver, grain)
    with allocated(driver, grain) as plain:
        assert driver.code("cuMemMap", plain, grain, 0, handle, 0) == INVALID_VALUE
    assert driver.code("cuMemMap", space + 8 * grain, grain, 0, handle, 0) == INVALID_VALUE
    assert driver.code("cuMemMap", space, grain, 0, 0xDEAD, 0) == INVALID_VALUE
    assert driver.code("cuMemUnmap", space, grain) == INVALID_VALUE
    driver.cuMemRelease(handle)


def test_the_range_of_a_mapping(driver: Driver, space: int, grain: int) -> None:
    handle = create(driver, 2 * grain)
    driver.cuMemMap(space + grain, 2 * grain, 0, handle, 0)
    grant(driver, space + grain, 2 * grain)
    base, size = c_uint64(), c_size_t()
    driver.cuMemGetAddressRange_v2(byref(base), byref(size), space + grain + 5)
    assert (base.value, size.value) == (space + grain, 2 * grain)
    driver.cuMemUnmap(space + grain, 2 * grain)
    driver.cuMemRelease(handle)


def test_many_mappings_in_one_reservation(driver: Driver, grain: int) -> None:
    """As an allocator with expandable segments has them."""
    count = 64
    space = driver.new("cuMemAddressReserve", count * grain, 0, 0, 0)
    for i in [*range(0, count, 2), *range(1, count, 2)]:
        handle = create(driver, grain)
        driver.cuMemMap(space + i * grain, grain, 0, handle, 0)
        driver.cuMemRelease(handle)
        grant(driver, space + i * grain, grain)
        driver.cuMemsetD8_v2(space + i * grain, i, grain)
    for i in range(count):
        assert driver.download(space + i * grain, 8) == bytes([i] * 8)
    for i in range(0, count, 2):
        driver.cuMemUnmap(space + i * grain, grain)
    for i in range(1, count, 2):
        assert driver.download(space + i * grain + grain - 8, 8) == bytes([i] * 8)
        driver.cuMemUnmap(space + i * grain, grain)
    driver.cuMemAddressFree(space, count * grain)


# ---- access ----


def access(driver: Driver, address: int, location: Location = DEVICE_0) -> int:
    return driver.new("cuMemGetAccess", byref(location), address)


def test_access_is_none_until_granted(driver: Driver, space: int, grain: int) -> None:
    handle = create(driver, grain)
    driver.cuMemMap(space, grain, 0, handle, 0)
    assert access(driver, space) == 0
    grant(driver, space, grain)
    assert access(driver, space + 77) == READ_WRITE
    driver.cuMemUnmap(space, grain)
    driver.cuMemMap(space, grain, 0, handle, 0)
    assert access(driver, space) == 0  # a new mapping starts without
    driver.cuMemUnmap(space, grain)
    driver.cuMemRelease(handle)


def test_access_is_of_what_is_mapped(driver: Driver, space: int, grain: int) -> None:
    desc = AccessDesc(DEVICE_0, READ_WRITE)
    assert driver.code("cuMemSetAccess", space, grain, byref(desc), 1) == INVALID_VALUE
    handle = create(driver, grain)
    driver.cuMemMap(space, grain, 0, handle, 0)
    assert driver.code("cuMemSetAccess", space, 2 * grain, byref(desc), 1) == INVALID_VALUE
    assert driver.code("cuMemSetAccess", space, grain, None, 0) == INVALID_VALUE
    far = AccessDesc(Location(DEVICE, 99), READ_WRITE)
    code = driver.code("cuMemSetAccess", space, grain, byref(far), 1)
    assert code in (INVALID_DEVICE, INVALID_VALUE)
    driver.cuMemUnmap(space, grain)
    driver.cuMemRelease(handle)


def test_copies_want_access(sim_table: SimTable, driver: Driver, space: int, grain: int) -> None:
    handle = create(driver, grain)
    buffer = (ctypes.c_char * 16)()
    driver.cuMemMap(space, grain, 0, handle, 0)
    assert driver.code("cuMemcpyDtoH_v2", buffer, space, 16) == INVALID_VALUE
    assert driver.code("cuMemsetD8_v2", space, 1, 16) == INVALID_VALUE
    grant(driver, space, grain, READ)
    assert driver.download(space, 16) == bytes(16)
    assert driver.code("cuMemcpyHtoD_v2", space, buffer, 16) == INVALID_VALUE
    grant(driver, space, grain)
    driver.upload(space, bytes(16))
    assert driver.code("cuMemcpyDtoH_v2", buffer, space + grain - 8, 16) == INVALID_VALUE
    driver.cuMemUnmap(space, grain)
    driver.cuMemRelease(handle)


# ---- host memory ----


@pytest.mark.parametrize(
    ("kind", "supported"), [(HOST, HOST_VMM_SUPPORTED), (HOST_NUMA, HOST_NUMA_VMM_SUPPORTED)]
)
def test_handles_of_host_memory(driver: Driver, kind: int, supported: int) -> None:
    if not driver.attribute(supported):
        pytest.skip(f"the driver's attribute {supported} of device 0 says: no such handles")
    prop = pinned_prop(Location(kind, 0))
    grain = driver.get(c_size_t, "cuMemGetAllocationGranularity", byref(prop), 0)
    space = driver.new("cuMemAddressReserve", grain, 0, 0, 0)
    handle = create(driver, grain, Location(kind, 0))
    driver.cuMemMap(space, grain, 0, handle, 0)
    both = (AccessDesc * 2)(
        AccessDesc(DEVICE_0, READ_WRITE), AccessDesc(Location(kind, 0), READ_WRITE)
    )
    driver.cuMemSetAccess(space, grain, both, 2)
    ctypes.memmove(space, pattern(4096), 4096)  # the CPU reaches it too
    assert driver.download(space, 4096) == pattern(4096)
    driver.cuMemUnmap(space, grain)
    driver.cuMemRelease(handle)
    driver.cuMemAddressFree(space, grain)


def test_host_memory_takes_nothing_of_the_card(
    sim_table: SimTable, driver: Driver, grain: int
) -> None:
    before = used(sim_table)
    handle = create(driver, grain, ON_HOST)
    assert used(sim_table) == before
    driver.cuMemRelease(handle)


def test_the_host_has_no_access_to_device_memory(
    sim_table: SimTable, driver: Driver, space: int, grain: int
) -> None:
    handle = create(driver, grain)
    driver.cuMemMap(space, grain, 0, handle, 0)
    desc = AccessDesc(ON_HOST, READ_WRITE)
    assert driver.code("cuMemSetAccess", space, grain, byref(desc), 1) == INVALID_VALUE
    driver.cuMemUnmap(space, grain)
    driver.cuMemRelease(handle)


def test_what_did_not_ask_is_not_exported(driver: Driver, grain: int) -> None:
    handle = create(driver, grain)
    output = c_int(-1)
    code = driver.code("cuMemExportToShareableHandle", byref(output), handle, HANDLE_TYPE_FD, 0)
    assert code == INVALID_VALUE
    driver.cuMemRelease(handle)


def test_the_card_holds_handles_too(sim_table: SimTable, script: Script) -> None:
    script(
        """
        from memory_types import pinned_prop
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        prop = byref(pinned_prop())
        held = [driver.new("cuMemCreate", 8 << 20, prop, 0) for _ in range(4)]
        assert driver.code("cuMemCreate", byref(c_uint64()), 2 << 20, prop, 0) == OUT_OF_MEMORY
        assert driver.code("cuMemAlloc_v2", byref(c_uint64()), 1) == OUT_OF_MEMORY
        driver.cuMemRelease(held.pop())
        driver.new("cuMemAlloc_v2", 8 << 20)
        """,
        EMUV_SIM_VRAM=str(32 * MIB),
    )
