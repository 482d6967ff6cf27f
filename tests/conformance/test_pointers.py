# SPDX-License-Identifier: GPL-2.0-only
"""What the driver knows of a pointer."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from ctypes import addressof, byref, c_bool, c_char, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any, NamedTuple

import pytest
from cuda_driver import (
    INVALID_VALUE,
    SUCCESS,
    AccessDesc,
    Driver,
    SimTable,
)
from memory_types import (
    BLOCK,
    DEVICE_0,
    READ_WRITE,
    TYPE_DEVICE,
    TYPE_HOST,
    allocated,
    managed,
    pinned_prop,
)

(CONTEXT, MEMORY_TYPE, DEVICE_POINTER, HOST_POINTER, P2P, SYNC_MEMOPS, BUFFER_ID, IS_MANAGED,
 ORDINAL, IPC_CAPABLE, RANGE_START, RANGE_SIZE, MAPPED, HANDLE_TYPES, RDMA_CAPABLE, ACCESS_FLAGS,
 POOL, MAPPING_SIZE, MAPPING_BASE, BLOCK_ID, DECOMPRESS_CAPABLE) = range(1, 22)  # fmt: skip

SIZE = 10_000

pytestmark = pytest.mark.usefixtures("context")


class Kind(NamedTuple):
    """An address of SIZE bytes of one kind, and what is to be said of it."""

    address: int
    type: int
    managed: bool
    host: bool  # has a host pointer


@pytest.fixture(params=["device", "managed", "pinned", "pool"])
def memory(request: pytest.FixtureRequest, driver: Driver) -> Iterator[Kind]:
    match request.param:
        case "device":
            with allocated(driver, SIZE) as address:
                yield Kind(address, TYPE_DEVICE, False, False)
        case "managed":
            with managed(driver, SIZE) as address:
                yield Kind(address, TYPE_DEVICE, True, True)
        case "pinned":
            address = driver.new("cuMemHostAlloc", SIZE, 0)
            yield Kind(address, TYPE_HOST, False, True)
            driver.cuMemFreeHost(address)
        case "pool":
            address = driver.new("cuMemAllocAsync", SIZE, None)
            yield Kind(address, TYPE_DEVICE, False, False)
            driver.cuMemFreeAsync(address, None)


def ask(driver: Driver, which: int, address: int, kind: Any = c_uint64) -> Any:
    return driver.get(kind, "cuPointerGetAttribute", which, address)


def test_every_address_of_an_allocation(driver: Driver, memory: Kind) -> None:
    for address in (memory.address, memory.address + 1, memory.address + SIZE - 1):
        assert ask(driver, MEMORY_TYPE, address, c_uint) == memory.type
        assert ask(driver, IS_MANAGED, address, c_bool) == memory.managed
        assert ask(driver, DEVICE_POINTER, address) == address
        assert ask(driver, RANGE_START, address) == memory.address
        assert ask(driver, ORDINAL, address, c_int) == 0
        assert ask(driver, MAPPED, address, c_bool) is True


def test_its_size(sim_table: SimTable, driver: Driver, memory: Kind) -> None:
    assert ask(driver, RANGE_SIZE, memory.address, c_size_t) == SIZE
    assert ask(driver, MAPPING_SIZE, memory.address, c_size_t) == SIZE
    assert ask(driver, MAPPING_BASE, memory.address + 7) == memory.address
    assert ask(driver, ACCESS_FLAGS, memory.address, c_int) == READ_WRITE
    assert ask(driver, HANDLE_TYPES, memory.address) == 0


def test_the_host_pointer(driver: Driver, memory: Kind) -> None:
    if memory.host:
        assert ask(driver, HOST_POINTER, memory.address) == memory.address
    else:
        code = driver.code("cuPointerGetAttribute", byref(c_uint64()), HOST_POINTER, memory.address)
        assert code == INVALID_VALUE


def test_the_context(driver: Driver, context: int) -> None:
    with allocated(driver, SIZE) as address:
        assert ask(driver, CONTEXT, address) == context
    with managed(driver, SIZE) as address:
        assert ask(driver, CONTEXT, address) == context


def test_the_end_of_an_allocation(sim_table: SimTable, driver: Driver, memory: Kind) -> None:
    code = driver.code("cuPointerGetAttribute", byref(c_uint()), MEMORY_TYPE, memory.address + SIZE)
    assert code == INVALID_VALUE


def test_buffers_have_numbers_of_their_own(driver: Driver) -> None:
    numbers = set()
    for _ in range(5):
        with allocated(driver, SIZE) as address:
            numbers.add(ask(driver, BUFFER_ID, address))
    assert len(numbers) == 5


def test_a_reservation_and_its_mapping(driver: Driver) -> None:
    prop = pinned_prop()
    grain = driver.get(c_size_t, "cuMemGetAllocationGranularity", byref(prop), 0)
    space = driver.new("cuMemAddressReserve", 4 * grain, 0, 0, 0)
    handle = driver.new("cuMemCreate", grain, byref(prop), 0)
    driver.cuMemMap(space + grain, grain, 0, handle, 0)
    driver.cuMemSetAccess(space + grain, grain, byref(AccessDesc(DEVICE_0, READ_WRITE)), 1)
    inside = space + grain + 99
    assert ask(driver, RANGE_START, inside) == space
    assert ask(driver, RANGE_SIZE, inside, c_size_t) == 4 * grain
    assert ask(driver, MEMORY_TYPE, inside, c_uint) == TYPE_DEVICE
    assert ask(driver, MAPPED, inside, c_bool) is True
    assert ask(driver, IS_MANAGED, inside, c_bool) is False
    if driver.sim():
        assert ask(driver, MAPPED, space, c_bool) is False
        assert ask(driver, MAPPING_BASE, inside) == space + grain
        assert ask(driver, MAPPING_SIZE, inside, c_size_t) == grain
        code = driver.code("cuPointerGetAttribute", byref(c_uint()), MEMORY_TYPE, space)
        assert code == INVALID_VALUE
    driver.cuMemUnmap(space + grain, grain)
    driver.cuMemRelease(handle)
    driver.cuMemAddressFree(space, 4 * grain)


# ---- the program's own memory, and nobody's ----


def test_a_pointer_that_is_not_cudas(driver: Driver) -> None:
    own = (c_char * 64)()
    for which in (MEMORY_TYPE, CONTEXT, DEVICE_POINTER, IS_MANAGED):
        code = driver.code("cuPointerGetAttribute", byref(c_uint64()), which, addressof(own))
        assert code == INVALID_VALUE


def test_attributes_that_cannot_be(driver: Driver) -> None:
    with allocated(driver, SIZE) as address:
        assert driver.code("cuPointerGetAttribute", None, MEMORY_TYPE, address) == INVALID_VALUE
        assert driver.code("cuPointerGetAttribute", byref(c_uint64()), 9999, address) != SUCCESS


def several(driver: Driver, address: int, *attributes: int) -> list[int]:
    """cuPointerGetAttributes, each answer as 64 bits of a zeroed word."""
    answers = (c_uint64 * len(attributes))()
    places = (c_void_p * len(attributes))(
        *[addressof(answers) + 8 * i for i in range(len(attributes))]
    )
    numbers = (c_int * len(attributes))(*attributes)
    driver.cuPointerGetAttributes(len(attributes), numbers, places, address)
    return list(answers)


def test_several_at_once(driver: Driver, memory: Kind) -> None:
    type_, is_managed, device, start = several(
        driver, memory.address + 9, MEMORY_TYPE, IS_MANAGED, DEVICE_POINTER, RANGE_START
    )
    assert (type_, is_managed & 1) == (memory.type, memory.managed)
    assert (device, start) == (memory.address + 9, memory.address)


def test_several_of_a_pointer_that_is_not_cudas(driver: Driver) -> None:
    """Not an error: this is how programs find out."""
    own = (c_char * 64)()
    answers = several(driver, addressof(own), MEMORY_TYPE, IS_MANAGED, DEVICE_POINTER, CONTEXT)
    assert answers == [0, 0, 0, 0]


# ---- what can be set ----


def test_synchronous_operations(driver: Driver) -> None:
    with allocated(driver, SIZE) as address:
        assert ask(driver, SYNC_MEMOPS, address, c_bool) is False
        driver.cuPointerSetAttribute(byref(c_uint(1)), SYNC_MEMOPS, address)
        assert ask(driver, SYNC_MEMOPS, address, c_bool) is True
        code = driver.code("cuPointerSetAttribute", byref(c_uint(1)), MEMORY_TYPE, address)
        assert code == INVALID_VALUE
        assert driver.code("cuPointerSetAttribute", None, SYNC_MEMOPS, address) == INVALID_VALUE


# ---- other processes ----


def test_managed_memory_is_not_shared(driver: Driver) -> None:
    with managed(driver, BLOCK) as address:
        code = driver.code("cuIpcGetMemHandle", (c_char * 64)(), address)
        assert code == INVALID_VALUE


def test_who_can_be_shared_says_so(driver: Driver) -> None:
    with allocated(driver, BLOCK) as address:
        assert ask(driver, IPC_CAPABLE, address, c_bool) is True
        assert driver.code("cuIpcGetMemHandle", None, address) == INVALID_VALUE
    with managed(driver, BLOCK) as address:
        assert ask(driver, IPC_CAPABLE, address, c_bool) is False


def test_the_answer_fits_its_type(sim_table: SimTable, driver: Driver) -> None:
    """Booleans are one byte, integers four: what lies beside them is left alone."""
    widths = {SYNC_MEMOPS: 1, IS_MANAGED: 1, MAPPED: 1, MEMORY_TYPE: 4, ORDINAL: 4, ACCESS_FLAGS: 4}
    with allocated(driver, SIZE) as address:
        for which, width in widths.items():
            buffer = (ctypes.c_ubyte * 16)(*[0xEE] * 16)
            driver.cuPointerGetAttribute(buffer, which, address)
            assert bytes(buffer)[width:] == b"\xee" * (16 - width), which
