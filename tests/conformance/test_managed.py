# SPDX-License-Identifier: GPL-2.0-only
"""Managed memory: what advice says, and, on the simulated GPU, where every block is."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_char, c_int, c_size_t, c_uint64, c_void_p

import pytest
from cuda_driver import (
    INVALID_DEVICE,
    INVALID_VALUE,
    OUT_OF_MEMORY,
    SUCCESS,
    Driver,
    Location,
    SimTable,
)
from memory_types import (
    ATTACH_GLOBAL,
    ATTACH_HOST,
    ATTACH_SINGLE,
    BLOCK,
    CPU,
    DEVICE,
    DEVICE_0,
    HOST,
    HOST_NUMA,
    KIB,
    NO_DEVICE_ID,
    ON_HOST,
    SET_ACCESSED_BY,
    SET_PREFERRED,
    SET_READ_MOSTLY,
    UNSET_ACCESSED_BY,
    UNSET_PREFERRED,
    UNSET_READ_MOSTLY,
    Script,
    allocated,
    managed,
    pattern,
)

pytestmark = pytest.mark.usefixtures("context")

READ_MOSTLY, PREFERRED, ACCESSED_BY, LAST_PREFETCH = 1, 2, 3, 4
PREFERRED_TYPE, PREFERRED_ID, LAST_PREFETCH_TYPE, LAST_PREFETCH_ID = 5, 6, 7, 8

Resident = Callable[..., int]


@pytest.fixture
def stream(driver: Driver) -> int:
    """A stream that is not the legacy one."""
    return driver.new("cuStreamCreate", 1)


@pytest.fixture
def resident(sim_table: SimTable) -> Resident:
    """Bytes of [address, address + size) that are on device 0."""

    def ask(address: int, size: int) -> int:
        value = c_uint64()
        assert sim_table.resident(address, size, 0, byref(value)) == SUCCESS
        return value.value

    return ask


def attribute(driver: Driver, which: int, address: int, size: int) -> int:
    value = c_int(99)
    driver.cuMemRangeGetAttribute(byref(value), 4, which, address, size)
    return value.value


def accessed_by(driver: Driver, address: int, size: int, places: int = 4) -> list[int]:
    values = (c_int * places)()
    driver.cuMemRangeGetAttribute(values, 4 * places, ACCESSED_BY, address, size)
    return [value for value in values if value != NO_DEVICE_ID]


# ---- allocation ----


@pytest.mark.parametrize("size", [1, 4096, BLOCK, 2 * BLOCK + 17])
@pytest.mark.parametrize("flags", [ATTACH_GLOBAL, ATTACH_HOST])
def test_both_sides_see_the_same_bytes(driver: Driver, size: int, flags: int) -> None:
    address = driver.new("cuMemAllocManaged", size, flags)
    data = pattern(size)
    driver.upload(address, data)
    driver.cuCtxSynchronize()
    assert ctypes.string_at(address, size) == data
    ctypes.memset(address, 5, size)
    assert driver.download(address, size) == b"\5" * size
    driver.cuMemFree_v2(address)


@pytest.mark.parametrize("flags", [0, 3, ATTACH_SINGLE, 8])
def test_other_attachments_are_refused(driver: Driver, flags: int) -> None:
    assert driver.code("cuMemAllocManaged", byref(c_uint64()), 4096, flags) == INVALID_VALUE


def test_sizes_that_cannot_be(driver: Driver) -> None:
    assert driver.code("cuMemAllocManaged", byref(c_uint64()), 0, 1) == INVALID_VALUE
    assert driver.code("cuMemAllocManaged", None, 4096, 1) == INVALID_VALUE
    assert driver.code("cuMemAllocManaged", byref(c_uint64()), 1 << 60, 1) == OUT_OF_MEMORY


def test_attaching_is_of_whole_allocations(driver: Driver, stream: int) -> None:
    with managed(driver, BLOCK) as address:
        driver.cuStreamAttachMemAsync(stream, address, 0, ATTACH_SINGLE)
        driver.cuStreamAttachMemAsync(stream, address, BLOCK, ATTACH_GLOBAL)
        code = driver.code("cuStreamAttachMemAsync", None, address, 0, ATTACH_SINGLE)
        assert code == INVALID_VALUE
        driver.cuCtxSynchronize()


# ---- advice, and what the range attributes say of it ----


def test_fresh_memory_has_no_advice(driver: Driver) -> None:
    with managed(driver, 2 * BLOCK) as address:
        for which, value in (
            (READ_MOSTLY, 0),
            (PREFERRED, NO_DEVICE_ID),
            (LAST_PREFETCH, NO_DEVICE_ID),
        ):
            assert attribute(driver, which, address, 2 * BLOCK) == value
        assert accessed_by(driver, address, 2 * BLOCK) == []


def test_the_advice_of_a_spilled_range(driver: Driver) -> None:
    """What emuV gives every range that it places in host memory."""
    with managed(driver, 3 * BLOCK) as address:
        driver.cuMemAdvise(address, 3 * BLOCK, SET_PREFERRED, CPU)
        driver.cuMemAdvise(address, 3 * BLOCK, SET_ACCESSED_BY, 0)
        assert attribute(driver, PREFERRED, address, 3 * BLOCK) == CPU
        assert accessed_by(driver, address, 3 * BLOCK) == [0]
        driver.cuMemAdvise(address, 3 * BLOCK, UNSET_PREFERRED, 0)
        driver.cuMemAdvise(address, 3 * BLOCK, UNSET_ACCESSED_BY, 0)
        assert attribute(driver, PREFERRED, address, 3 * BLOCK) == NO_DEVICE_ID
        assert accessed_by(driver, address, 3 * BLOCK) == []


def test_the_two_forms_of_advice_agree(driver: Driver) -> None:
    with managed(driver, BLOCK) as address:
        driver.cuMemAdvise_v2(address, BLOCK, SET_PREFERRED, ON_HOST)
        driver.cuMemAdvise_v2(address, BLOCK, SET_ACCESSED_BY, DEVICE_0)
        assert attribute(driver, PREFERRED, address, BLOCK) == CPU
        assert attribute(driver, PREFERRED_TYPE, address, BLOCK) == HOST
        assert accessed_by(driver, address, BLOCK) == [0]
        driver.cuMemAdvise_v2(address, BLOCK, SET_PREFERRED, DEVICE_0)
        assert attribute(driver, PREFERRED, address, BLOCK) == 0
        assert attribute(driver, PREFERRED_TYPE, address, BLOCK) == DEVICE
        assert attribute(driver, PREFERRED_ID, address, BLOCK) == 0


def test_advice_that_is_not_the_same_all_over(driver: Driver) -> None:
    with managed(driver, 2 * BLOCK) as address:
        driver.cuMemAdvise(address, BLOCK, SET_PREFERRED, CPU)
        driver.cuMemAdvise(address, BLOCK, SET_READ_MOSTLY, 0)
        driver.cuMemAdvise(address, BLOCK, SET_ACCESSED_BY, 0)
        assert attribute(driver, PREFERRED, address, BLOCK) == CPU
        assert attribute(driver, PREFERRED, address, 2 * BLOCK) == NO_DEVICE_ID
        assert attribute(driver, READ_MOSTLY, address, BLOCK) == 1
        assert attribute(driver, READ_MOSTLY, address, 2 * BLOCK) == 0
        assert accessed_by(driver, address, 2 * BLOCK) == []
        driver.cuMemAdvise(address, BLOCK, UNSET_READ_MOSTLY, 0)
        assert attribute(driver, READ_MOSTLY, address, BLOCK) == 0


def test_attributes_in_one_call(driver: Driver) -> None:
    with managed(driver, BLOCK) as address:
        driver.cuMemAdvise(address, BLOCK, SET_PREFERRED, CPU)
        preferred, devices = c_int(), (c_int * 2)(7, 7)
        data = (c_void_p * 2)(ctypes.addressof(preferred), ctypes.addressof(devices))
        driver.cuMemRangeGetAttributes(
            data, (c_size_t * 2)(4, 8), (c_int * 2)(PREFERRED, ACCESSED_BY), 2, address, BLOCK
        )
        assert preferred.value == CPU
        assert list(devices) == [NO_DEVICE_ID] * 2


@pytest.mark.parametrize("size", [0, 2, 8])
def test_attributes_want_four_bytes(driver: Driver, size: int) -> None:
    with managed(driver, BLOCK) as address:
        code = driver.code("cuMemRangeGetAttribute", (c_int * 2)(), size, PREFERRED, address, BLOCK)
        assert code == INVALID_VALUE


def test_advice_that_cannot_be_followed(driver: Driver) -> None:
    with managed(driver, BLOCK) as address, allocated(driver, BLOCK) as plain:
        assert driver.code("cuMemAdvise", address, BLOCK, 99, 0) == INVALID_VALUE
        assert driver.code("cuMemAdvise", address, BLOCK, SET_PREFERRED, 77) == INVALID_DEVICE
        assert driver.code("cuMemAdvise", address, 0, SET_PREFERRED, CPU) == INVALID_VALUE
        assert driver.code("cuMemAdvise", plain, BLOCK, SET_PREFERRED, CPU) == INVALID_VALUE
        node = Location(HOST_NUMA, 0)
        code = driver.code("cuMemAdvise_v2", address, BLOCK, SET_ACCESSED_BY, node)
        assert code == INVALID_VALUE


def test_advice_past_the_end(sim_table: SimTable, driver: Driver) -> None:
    with managed(driver, BLOCK) as address:
        assert driver.code("cuMemAdvise", address, BLOCK + 1, SET_PREFERRED, CPU) == INVALID_VALUE
        assert driver.code("cuMemAdvise", address + 1, BLOCK, SET_PREFERRED, CPU) == INVALID_VALUE


# ---- prefetch ----


def test_the_last_prefetch_is_remembered(driver: Driver, stream: int) -> None:
    with managed(driver, 2 * BLOCK) as address:
        driver.cuMemPrefetchAsync(address, BLOCK, 0, stream)
        assert attribute(driver, LAST_PREFETCH, address, BLOCK) == 0
        assert attribute(driver, LAST_PREFETCH, address, 2 * BLOCK) == NO_DEVICE_ID
        driver.cuMemPrefetchAsync_v2(address, 2 * BLOCK, ON_HOST, 0, stream)
        assert attribute(driver, LAST_PREFETCH, address, 2 * BLOCK) == CPU
        assert attribute(driver, LAST_PREFETCH_TYPE, address, 2 * BLOCK) == HOST
        driver.cuStreamSynchronize(stream)


def test_bytes_survive_the_journey(driver: Driver, stream: int) -> None:
    size = 2 * BLOCK + 999
    with managed(driver, size) as address:
        driver.upload(address, pattern(size))
        for device in (0, CPU, 0, CPU):
            driver.cuMemPrefetchAsync(address, size, device, stream)
        driver.cuStreamSynchronize(stream)
        assert ctypes.string_at(address, size) == pattern(size)


def test_prefetches_that_cannot_be(driver: Driver, stream: int) -> None:
    with managed(driver, BLOCK) as address, allocated(driver, BLOCK) as plain:
        assert driver.code("cuMemPrefetchAsync", address, BLOCK, 77, stream) == INVALID_DEVICE
        assert driver.code("cuMemPrefetchAsync", address, 0, 0, stream) == INVALID_VALUE
        assert driver.code("cuMemPrefetchAsync", plain, BLOCK, 0, stream) == INVALID_VALUE
        code = driver.code("cuMemPrefetchAsync_v2", address, BLOCK, DEVICE_0, 1, stream)
        assert code == INVALID_VALUE
        driver.cuStreamSynchronize(stream)


# ---- batches (CUDA 13.0) ----


def _batch(driver: Driver, count: int = 2) -> tuple[list[int], ctypes.Array, ctypes.Array]:  # type: ignore[type-arg]
    if not hasattr(driver.dll, "cuMemPrefetchBatchAsync"):
        pytest.skip("the driver is older than CUDA 13.0")
    live = [driver.new("cuMemAllocManaged", BLOCK, 1) for _ in range(count)]
    return live, (c_uint64 * count)(*live), (c_size_t * count)(*[BLOCK] * count)


def test_a_batch_prefetches_each_range_to_its_place(driver: Driver, stream: int) -> None:
    live, addresses, sizes = _batch(driver, 3)
    places = (Location * 2)(DEVICE_0, ON_HOST)
    driver.cuMemPrefetchBatchAsync(addresses, sizes, 3, places, (c_size_t * 2)(0, 2), 2, 0, stream)
    driver.cuStreamSynchronize(stream)
    assert [attribute(driver, LAST_PREFETCH, a, BLOCK) for a in live] == [0, 0, CPU]
    for address in live:
        driver.cuMemFree_v2(address)


def test_discarded_memory_can_be_written_again(driver: Driver, stream: int) -> None:
    live, addresses, sizes = _batch(driver)
    for address in live:
        driver.upload(address, pattern(BLOCK))
    driver.cuMemDiscardBatchAsync(addresses, sizes, 2, 0, stream)
    places = (Location * 1)(DEVICE_0)
    driver.cuMemDiscardAndPrefetchBatchAsync(
        addresses, sizes, 2, places, (c_size_t * 1)(0), 1, 0, stream
    )
    driver.cuStreamSynchronize(stream)
    for address in live:
        driver.upload(address, pattern(BLOCK, 3))
        assert driver.download(address, BLOCK) == pattern(BLOCK, 3)
        driver.cuMemFree_v2(address)


@pytest.mark.parametrize("indices", [(1,), (0, 0), (0, 2)])
def test_a_batch_whose_places_do_not_fit(
    driver: Driver, stream: int, indices: tuple[int, ...]
) -> None:
    live, addresses, sizes = _batch(driver)
    count = len(indices)
    places = (Location * count)(*[DEVICE_0] * count)
    code = driver.code(
        "cuMemPrefetchBatchAsync",
        addresses, sizes, 2, places, (c_size_t * count)(*indices), count, 0, stream,
    )  # fmt: skip
    assert code == INVALID_VALUE
    for address in live:
        driver.cuMemFree_v2(address)


def test_batches_want_a_stream(driver: Driver) -> None:
    live, addresses, sizes = _batch(driver)
    assert driver.code("cuMemDiscardBatchAsync", addresses, sizes, 2, 0, None) != SUCCESS
    for address in live:
        driver.cuMemFree_v2(address)


# ---- where the blocks are: the simulated GPU's own account ----


def test_fresh_memory_is_nowhere_and_costs_nothing(driver: Driver, resident: Resident) -> None:
    free = driver.memory_info()[0]
    with managed(driver, 4 * BLOCK) as address:
        assert resident(address, 4 * BLOCK) == 0
        assert driver.memory_info()[0] == free


def test_prefetch_books_blocks_and_gives_them_back(driver: Driver, resident: Resident) -> None:
    free = driver.memory_info()[0]
    with managed(driver, 4 * BLOCK) as address:
        driver.cuMemPrefetchAsync(address, BLOCK + 1, 0, None)
        driver.cuStreamSynchronize(None)
        assert resident(address, 4 * BLOCK) == 2 * BLOCK
        assert resident(address + BLOCK, 100) == 100
        assert driver.memory_info()[0] == free - 2 * BLOCK
        driver.cuMemPrefetchAsync(address, BLOCK, CPU, None)
        driver.cuStreamSynchronize(None)
        assert resident(address, 4 * BLOCK) == BLOCK
        assert driver.memory_info()[0] == free - BLOCK
    assert driver.memory_info()[0] == free


def test_the_last_block_costs_what_it_holds(driver: Driver, resident: Resident) -> None:
    free = driver.memory_info()[0]
    with managed(driver, BLOCK + 70 * KIB) as address:
        driver.cuMemPrefetchAsync(address, BLOCK + 70 * KIB, 0, None)
        driver.cuStreamSynchronize(None)
        assert resident(address, BLOCK + 70 * KIB) == BLOCK + 70 * KIB
        assert driver.memory_info()[0] == free - BLOCK - 128 * KIB


def test_a_devices_touch_brings_the_block(driver: Driver, resident: Resident) -> None:
    with managed(driver, 3 * BLOCK) as address:
        driver.cuMemsetD8_v2(address + BLOCK, 1, 1)
        assert [resident(address + i * BLOCK, BLOCK) for i in range(3)] == [0, BLOCK, 0]


def test_a_spilled_range_stays_on_the_host(driver: Driver, resident: Resident) -> None:
    """Preferred on the CPU, accessed by the device: only a prefetch moves it."""
    with managed(driver, 2 * BLOCK) as address:
        driver.cuMemAdvise(address, 2 * BLOCK, SET_PREFERRED, CPU)
        driver.cuMemAdvise(address, 2 * BLOCK, SET_ACCESSED_BY, 0)
        driver.upload(address, pattern(2 * BLOCK))
        assert driver.download(address, 2 * BLOCK) == pattern(2 * BLOCK)
        driver.cuMemsetD8_v2(address, 1, 2 * BLOCK)
        assert resident(address, 2 * BLOCK) == 0
        driver.cuMemPrefetchAsync(address, BLOCK, 0, None)
        driver.cuStreamSynchronize(None)
        driver.cuMemsetD8_v2(address, 2, 2 * BLOCK)
        assert resident(address, 2 * BLOCK) == BLOCK


def test_accessed_by_keeps_populated_host_memory_there(driver: Driver, resident: Resident) -> None:
    with managed(driver, BLOCK) as address:
        driver.cuMemAdvise(address, BLOCK, SET_ACCESSED_BY, 0)
        driver.cuMemPrefetchAsync(address, BLOCK, CPU, None)
        driver.cuStreamSynchronize(None)
        driver.cuMemsetD8_v2(address, 1, BLOCK)
        assert resident(address, BLOCK) == 0


def test_read_mostly_copies_and_a_write_collapses(driver: Driver, resident: Resident) -> None:
    with managed(driver, BLOCK) as address:
        driver.cuMemPrefetchAsync(address, BLOCK, CPU, None)
        driver.cuStreamSynchronize(None)
        driver.cuMemAdvise(address, BLOCK, SET_READ_MOSTLY, 0)
        driver.download(address, 16)
        assert resident(address, BLOCK) == BLOCK
        driver.cuMemPrefetchAsync(address, BLOCK, CPU, None)  # the device's copy stays
        driver.cuStreamSynchronize(None)
        assert resident(address, BLOCK) == BLOCK
        driver.cuMemAdvise(address, BLOCK, UNSET_READ_MOSTLY, 0)  # collapses to the host
        assert resident(address, BLOCK) == 0


@pytest.mark.parametrize("write", [False, True])
def test_a_copy_leaves_the_original_where_it_was(
    driver: Driver, resident: Resident, write: bool
) -> None:
    with managed(driver, BLOCK) as address:
        driver.cuMemPrefetchAsync(address, BLOCK, CPU, None)
        driver.cuStreamSynchronize(None)
        driver.cuMemAdvise(address, BLOCK, SET_READ_MOSTLY, 0)
        driver.download(address, 16)
        if write:  # by the device: its copy is the only one left
            driver.cuMemsetD8_v2(address, 1, 16)
        driver.cuMemAdvise(address, BLOCK, UNSET_READ_MOSTLY, 0)
        assert resident(address, BLOCK) == (BLOCK if write else 0)


CARD = """
    driver.cuInit(0)
    driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
    BLOCK = 2 << 20
    def resident(address, size):
        value = c_uint64()
        assert driver.sim().resident(address, size, 0, byref(value)) == 0
        return value.value // BLOCK
"""


def test_managed_memory_exceeds_the_card(sim_table: SimTable, script: Script) -> None:
    script(
        CARD
        + """
    size = 24 * BLOCK
    address = driver.new("cuMemAllocManaged", size, 1)
    driver.cuMemsetD8_v2(address, 1, size)
    assert driver.memory_info()[0] == 0
    assert [resident(address + i * BLOCK, BLOCK) for i in range(24)] == [0] * 16 + [1] * 8
    assert driver.download(address, size) == b"\\1" * size
    """,
        EMUV_SIM_VRAM=str(8 * BLOCK),
    )


def test_eviction_takes_what_came_first(sim_table: SimTable, script: Script) -> None:
    script(
        CARD
        + """
    a, b, c = (driver.new("cuMemAllocManaged", 2 * BLOCK, 1) for _ in range(3))
    driver.cuMemPrefetchAsync(a, 2 * BLOCK, 0, None)
    driver.cuStreamSynchronize(None)
    driver.cuMemPrefetchAsync(b, 2 * BLOCK, 0, None)
    driver.cuStreamSynchronize(None)
    driver.cuMemsetD8_v2(a, 1, 2 * BLOCK)                # a touch makes nothing younger
    driver.cuMemPrefetchAsync(c, BLOCK, 0, None)
    driver.cuStreamSynchronize(None)
    assert (resident(a, 2 * BLOCK), resident(b, 2 * BLOCK), resident(c, 2 * BLOCK)) == (1, 2, 1)
    driver.cuMemPrefetchAsync(a + BLOCK, BLOCK, 0, None)  # a prefetch does
    driver.cuStreamSynchronize(None)
    plain = driver.new("cuMemAlloc_v2", 2 * BLOCK)        # evicts b
    assert (resident(a, 2 * BLOCK), resident(b, 2 * BLOCK), resident(c, 2 * BLOCK)) == (1, 0, 1)
    rest = driver.new("cuMemAlloc_v2", 2 * BLOCK)
    assert resident(a, 2 * BLOCK) == resident(c, 2 * BLOCK) == 0
    assert driver.code("cuMemAlloc_v2", byref(c_uint64()), 1) == OUT_OF_MEMORY
    """,
        EMUV_SIM_VRAM=str(4 * BLOCK),
    )


def test_what_is_evicted_is_on_the_host(sim_table: SimTable, script: Script) -> None:
    script(
        CARD
        + """
    address = driver.new("cuMemAllocManaged", BLOCK, 1)
    driver.cuMemAdvise(address, BLOCK, 5, 0)           # accessed by device 0
    driver.cuMemsetD8_v2(address, 1, BLOCK)            # first touch: populated there
    assert resident(address, BLOCK) == 1
    driver.cuMemFree_v2(driver.new("cuMemAlloc_v2", 4 * BLOCK))
    driver.cuMemsetD8_v2(address, 1, BLOCK)            # populated on the host: stays
    assert resident(address, BLOCK) == 0
    """,
        EMUV_SIM_VRAM=str(4 * BLOCK),
    )


def test_what_can_never_fit_evicts_nothing(sim_table: SimTable, script: Script) -> None:
    script(
        CARD
        + """
    address = driver.new("cuMemAllocManaged", 2 * BLOCK, 1)
    driver.cuMemPrefetchAsync(address, 2 * BLOCK, 0, None)
    driver.cuStreamSynchronize(None)
    assert driver.code("cuMemAlloc_v2", byref(c_uint64()), 4 * BLOCK + 1) == OUT_OF_MEMORY
    assert resident(address, 2 * BLOCK) == 2
    """,
        EMUV_SIM_VRAM=str(4 * BLOCK),
    )


def test_a_prefetch_that_does_not_fit_leaves_the_rest_on_the_host(
    sim_table: SimTable, script: Script
) -> None:
    script(
        CARD
        + """
    plain = driver.new("cuMemAlloc_v2", BLOCK)
    other = driver.new("cuMemAllocManaged", 2 * BLOCK, 1)
    driver.cuMemPrefetchAsync(other, 2 * BLOCK, 0, None)
    driver.cuStreamSynchronize(None)
    address = driver.new("cuMemAllocManaged", 9 * BLOCK, 1)
    driver.cuMemPrefetchAsync(address, 9 * BLOCK, 0, None)
    driver.cuStreamSynchronize(None)
    assert [resident(address + i * BLOCK, BLOCK) for i in range(9)] == [1] * 3 + [0] * 6
    assert resident(other, 2 * BLOCK) == 0
    assert driver.memory_info()[0] == 0
    driver.cuMemFree_v2(plain)
    assert driver.memory_info()[0] == BLOCK
    """,
        EMUV_SIM_VRAM=str(4 * BLOCK),
    )


def test_two_devices(sim_table: SimTable, script: Script) -> None:
    script(
        CARD
        + """
    value = c_uint64()
    address = driver.new("cuMemAllocManaged", BLOCK, 1)
    driver.cuMemPrefetchAsync(address, BLOCK, 1, None)
    driver.cuStreamSynchronize(None)
    assert driver.sim().resident(address, BLOCK, 1, byref(value)) == 0 and value.value == BLOCK
    assert resident(address, BLOCK) == 0
    driver.cuMemsetD8_v2(address, 1, BLOCK)               # by device 0
    assert resident(address, BLOCK) == 1
    assert driver.sim().resident(address, BLOCK, 1, byref(value)) == 0 and value.value == 0
    assert driver.code("cuMemPrefetchAsync", address, BLOCK, 2, None) == INVALID_DEVICE
    """,
        EMUV_SIM_DEVICES="2",
    )


def test_residency_is_of_managed_memory(sim_table: SimTable, driver: Driver) -> None:
    value = c_uint64()
    with allocated(driver, BLOCK) as plain, managed(driver, BLOCK) as address:
        assert sim_table.resident(plain, BLOCK, 0, byref(value)) == INVALID_VALUE
        assert sim_table.resident(address, BLOCK + 1, 0, byref(value)) == INVALID_VALUE
        assert sim_table.resident(address, BLOCK, 99, byref(value)) == INVALID_VALUE


def test_neighbours_are_not_one_range(sim_table: SimTable, driver: Driver) -> None:
    """Ranges of two allocations are never one range, however close they lie."""
    with managed(driver, BLOCK) as low, managed(driver, BLOCK) as high:
        buffer = (c_char * (2 * BLOCK))()
        for address in (low, high):
            code = driver.code("cuMemcpyDtoH_v2", buffer, address, 2 * BLOCK)
            assert code == INVALID_VALUE
