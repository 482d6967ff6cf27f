# SPDX-License-Identifier: GPL-2.0-only
"""cuMemAlloc and its kin, and the card's account."""

from __future__ import annotations

import random
import threading
import time
from ctypes import byref, c_size_t, c_uint, c_uint64
from itertools import pairwise

import pytest
from cuda_driver import (
    INVALID_CONTEXT,
    INVALID_VALUE,
    OUT_OF_MEMORY,
    SUCCESS,
    Driver,
    SimTable,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_types import BLOCK, KIB, MIB, Script, allocated, managed, pattern

pytestmark = pytest.mark.usefixtures("context")


def used(table: SimTable, device: int = 0) -> int:
    """Bytes taken of the simulated card."""
    value = c_uint64()
    assert table.device_used(device, byref(value)) == SUCCESS
    return value.value


@pytest.mark.parametrize("size", [1, 511, 512, 513, 4097, MIB - 1, MIB, 3 * MIB + 7])
def test_an_allocation_holds_its_bytes(driver: Driver, size: int) -> None:
    with allocated(driver, size) as address:
        data = pattern(size, size)
        driver.upload(address, data)
        assert driver.download(address, size) == data


def test_addresses_are_aligned(driver: Driver) -> None:
    with allocated(driver, 1) as small, allocated(driver, 100) as other:
        assert small % 256 == other % 256 == 0
    with allocated(driver, BLOCK) as large, allocated(driver, BLOCK + 1) as larger:
        assert large % BLOCK == larger % BLOCK == 0


@pytest.mark.parametrize(
    ("size", "code"), [(0, INVALID_VALUE), (1 << 60, OUT_OF_MEMORY), (2**64 - 1, OUT_OF_MEMORY)]
)
def test_sizes_that_cannot_be(driver: Driver, size: int, code: int) -> None:
    assert driver.code("cuMemAlloc_v2", byref(c_uint64()), size) == code


def test_an_allocation_wants_somewhere_to_say_where(driver: Driver) -> None:
    assert driver.code("cuMemAlloc_v2", None, 512) == INVALID_VALUE


def test_free_takes_null_and_the_start_of_live_memory_only(driver: Driver) -> None:
    driver.cuMemFree_v2(0)
    address = driver.new("cuMemAlloc_v2", 64 * KIB)
    assert driver.code("cuMemFree_v2", address + 512) == INVALID_VALUE
    driver.cuMemFree_v2(address)
    assert driver.code("cuMemFree_v2", address) == INVALID_VALUE
    assert driver.code("cuMemFree_v2", 0x1234) == INVALID_VALUE


def test_without_a_context_there_is_no_memory(driver: Driver) -> None:
    codes: list[int] = []

    def bare() -> None:
        for function, args in {
            "cuMemAlloc_v2": (byref(c_uint64()), 512),
            "cuMemAllocPitch_v2": (byref(c_uint64()), byref(c_size_t()), 64, 64, 4),
            "cuMemAllocManaged": (byref(c_uint64()), 512, 1),
            "cuMemGetInfo_v2": (byref(c_size_t()), byref(c_size_t())),
            "cuMemcpyHtoD_v2": (1, b"x", 1),
            "cuMemsetD8_v2": (1, 0, 1),
        }.items():
            codes.append(driver.code(function, *args))

    thread = threading.Thread(target=bare)
    thread.start()
    thread.join(20)
    assert codes == [INVALID_CONTEXT] * 6


def test_pitch(driver: Driver) -> None:
    pitch = c_size_t()
    address = driver.new("cuMemAllocPitch_v2", byref(pitch), 1000, 17, 4)
    assert pitch.value >= 1000
    assert pitch.value % 32 == 0
    driver.cuMemsetD2D8_v2(address, pitch.value, 7, 1000, 17)
    assert driver.download(address + 16 * pitch.value, 1000) == b"\7" * 1000
    driver.cuMemFree_v2(address)


@pytest.mark.parametrize("element", [0, 1, 2, 3, 5, 12, 32])
def test_pitch_wants_elements_of_4_8_or_16(driver: Driver, element: int) -> None:
    output, pitch = c_uint64(), c_size_t()
    code = driver.code("cuMemAllocPitch_v2", byref(output), byref(pitch), 64, 4, element)
    assert code == INVALID_VALUE


@pytest.mark.parametrize(("width", "height"), [(0, 4), (4, 0)])
def test_pitch_wants_an_extent(driver: Driver, width: int, height: int) -> None:
    output, pitch = c_uint64(), c_size_t()
    code = driver.code("cuMemAllocPitch_v2", byref(output), byref(pitch), width, height, 4)
    assert code == INVALID_VALUE


def test_pitch_whose_size_wraps(sim_table: SimTable, driver: Driver) -> None:
    for width, height in ((2**63, 4), (1 << 40, 1 << 40), (2**64 - 1, 1)):
        output, pitch = c_uint64(), c_size_t()
        code = driver.code("cuMemAllocPitch_v2", byref(output), byref(pitch), width, height, 4)
        assert code == OUT_OF_MEMORY


def test_address_range(driver: Driver) -> None:
    base, size = c_uint64(), c_size_t()
    with allocated(driver, 70_000) as address, managed(driver, 5000) as other:
        driver.cuMemGetAddressRange_v2(byref(base), byref(size), address + 69_999)
        assert (base.value, size.value) == (address, 70_000)
        driver.cuMemGetAddressRange_v2(byref(base), byref(size), other)
        assert (base.value, size.value) == (other, 5000)
        driver.cuMemGetAddressRange_v2(None, byref(size), address)
        driver.cuMemGetAddressRange_v2(byref(base), None, address)
    assert driver.code("cuMemGetAddressRange_v2", byref(base), byref(size), address) != SUCCESS


def test_info(driver: Driver) -> None:
    free, total = driver.memory_info()
    assert 0 < free <= total
    assert total == driver.new("cuDeviceTotalMem_v2", 0)
    with allocated(driver, 64 * MIB):
        assert driver.memory_info()[0] <= free - 64 * MIB
    driver.cuMemGetInfo_v2(None, None)


def test_info_writes_no_more_than_it_should(driver: Driver) -> None:
    words = (c_size_t * 3)(1, 1, 1)
    driver.cuMemGetInfo_v2(byref(words, 8), None)
    assert (words[0], words[2]) == (1, 1)
    assert words[1] != 1


def test_the_card_is_booked_to_the_granule(sim_table: SimTable, driver: Driver) -> None:
    before = used(sim_table)
    with allocated(driver, 1), allocated(driver, 513), allocated(driver, 5 * MIB):
        assert used(sim_table) - before == 512 + 1024 + 5 * MIB
        assert driver.memory_info()[0] == driver.memory_info()[1] - used(sim_table)
    assert used(sim_table) == before


def test_the_card_fills_exactly_and_no_further(sim_table: SimTable, script: Script) -> None:
    script(
        """
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        assert driver.memory_info() == (64 << 20, 64 << 20)
        held = [driver.new("cuMemAlloc_v2", 16 << 20) for _ in range(4)]
        assert driver.memory_info() == (0, 64 << 20)
        assert driver.code("cuMemAlloc_v2", byref(c_uint64()), 1) == OUT_OF_MEMORY
        driver.cuMemFree_v2(held.pop())
        assert driver.code("cuMemAlloc_v2", byref(c_uint64()), (16 << 20) + 1) == OUT_OF_MEMORY
        held.append(driver.new("cuMemAlloc_v2", 16 << 20))
        driver.upload(held[-1], b"x" * 4096)
        """,
        EMUV_SIM_VRAM=str(64 * MIB),
    )


def test_a_context_takes_its_memory_with_it(sim_table: SimTable, driver: Driver) -> None:
    before = used(sim_table)
    context = driver.new("cuCtxCreate_v2", 0, 0)
    plain = driver.new("cuMemAlloc_v2", 3 * MIB)
    shared = driver.new("cuMemAllocManaged", 3 * MIB, 1)
    driver.cuMemsetD8_v2(shared, 1, 3 * MIB)
    driver.new("cuMemHostAlloc", 4096, 0)
    driver.cuCtxDestroy_v2(context)
    assert used(sim_table) == before
    assert driver.code("cuMemFree_v2", plain) == INVALID_VALUE
    assert driver.code("cuMemFree_v2", shared) == INVALID_VALUE


def test_the_32_bit_calls_give_32_bit_addresses(sim_table: SimTable, driver: Driver) -> None:
    address, size = c_uint(), c_uint()
    driver.cuMemAlloc(byref(address), 10_000)
    driver.cuMemcpyHtoD(address.value, pattern(10_000), 10_000)
    assert driver.download(address.value, 10_000) == pattern(10_000)
    driver.cuMemGetAddressRange(byref(address), byref(size), address.value + 1)
    assert size.value == 10_000
    driver.cuMemFree(address.value)
    free, total = c_uint(), c_uint()
    driver.cuMemGetInfo(byref(free), byref(total))
    assert total.value == min(driver.memory_info()[1], 2**32 - 1)


RSS = """
driver.cuInit(0)
driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
def rss():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGESIZE") >> 20
before = rss()
"""


def test_memory_costs_nothing_until_touched(sim_table: SimTable, script: Script) -> None:
    script(
        RSS
        + """
whole = driver.new("cuMemAlloc_v2", 8 << 30)
more = driver.new("cuMemAllocManaged", 64 << 30, 1)
assert rss() - before < 32
driver.cuMemsetD8_v2(whole + (7 << 30), 1, 1)
assert rss() - before < 32
"""
    )


@pytest.mark.parametrize("size", [4096, 100_000, 900_000, 16 * MIB])
def test_freed_memory_goes_back(sim_table: SimTable, script: Script, size: int) -> None:
    script(
        RSS
        + f"""
live = [driver.new("cuMemAlloc_v2", {size}) for _ in range((128 << 20) // {size})]
for address in live:
    driver.cuMemsetD8_v2(address, 1, {size})
driver.cuCtxSynchronize()
assert rss() - before > 100
for address in live:
    driver.cuMemFree_v2(address)
assert rss() - before < 32
"""
    )


def test_discarded_memory_goes_back(sim_table: SimTable, script: Script) -> None:
    script(
        RSS
        + """
address = driver.new("cuMemAllocManaged", 128 << 20, 1)
driver.cuMemsetD8_v2(address, 1, 128 << 20)
stream = driver.new("cuStreamCreate", 1)
assert rss() - before > 100
driver.cuMemDiscardBatchAsync(byref(c_uint64(address)), byref(c_size_t(128 << 20)), 1, 0, stream)
driver.cuStreamSynchronize(stream)
assert rss() - before < 32
driver.cuMemsetD8_v2(address, 1, 128 << 20)
driver.cuMemDiscardBatchAsync(byref(c_uint64(address + 1)), byref(c_size_t((4 << 20) - 1)), 1, 0,
                              stream)
driver.cuStreamSynchronize(stream)
assert driver.download(address, 2 << 20) == b"\1" * (2 << 20)  # cut blocks keep their bytes
"""
    )


def test_released_handles_go_back(sim_table: SimTable, script: Script) -> None:
    script(
        RSS
        + """
from memory_types import pinned_prop
size = 128 << 20
space = driver.new("cuMemAddressReserve", size, 0, 0, 0)
for turn in range(3):
    handle = driver.new("cuMemCreate", size, byref(pinned_prop()), 0)
    driver.cuMemMap(space, size, 0, handle, 0)
    driver.cuMemSetAccess(space, size, byref(AccessDesc(Location(1, 0), 3)), 1)
    driver.cuMemsetD8_v2(space, 1, size)
    driver.cuCtxSynchronize()
    assert rss() - before > 100
    driver.cuMemUnmap(space, size)
    driver.cuMemRelease(handle)
    files = [f"/proc/self/fd/{fd}" for fd in os.listdir("/proc/self/fd")]
    file, = (f for f in files if os.path.exists(f) and "emuv-sim-vmm" in os.readlink(f))
    assert os.stat(file).st_blocks == 0
"""
    )


# Sizes on both sides of every boundary that an allocator may have.
SIZES = st.one_of(
    st.integers(1, 8 * KIB),
    st.integers(60 * KIB, 70 * KIB),
    st.integers(MIB - 2 * KIB, MIB + 2 * KIB),
    st.sampled_from([BLOCK - 1, BLOCK, BLOCK + 1, 3 * BLOCK]),
)
STEPS = st.lists(st.tuples(st.integers(0, 2**16), SIZES), max_size=60)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_any_sequence_of_allocations(driver: Driver, steps: list[tuple[int, int]]) -> None:
    """Live allocations never overlap, are found by any of their addresses, and keep their bytes."""
    live: dict[int, tuple[int, bytes]] = {}
    base, size = c_uint64(), c_size_t()
    try:
        for choice, wanted in steps:
            if live and choice % 3 == 0:
                address = sorted(live)[choice % len(live)]
                del live[address]
                driver.cuMemFree_v2(address)
                assert driver.code("cuMemFree_v2", address) == INVALID_VALUE
                continue
            address = driver.new("cuMemAlloc_v2", wanted)
            mark = choice.to_bytes(4, "little")[: min(4, wanted)]
            driver.upload(address + wanted - len(mark), mark)
            live[address] = (wanted, mark)
        order = sorted(live)
        for low, high in pairwise(order):
            assert low + live[low][0] <= high
        for address, (wanted, mark) in live.items():
            for inside in (address, address + wanted // 2, address + wanted - 1):
                driver.cuMemGetAddressRange_v2(byref(base), byref(size), inside)
                assert (base.value, size.value) == (address, wanted)
            assert driver.download(address + wanted - len(mark), len(mark)) == mark
    finally:
        for address in live:
            driver.cuMemFree_v2(address)


def test_many_allocations_are_all_found(driver: Driver) -> None:
    picks = random.Random(7)
    live = [driver.new("cuMemAlloc_v2", picks.randrange(1, 5000)) for _ in range(5000)]
    picks.shuffle(live)
    base = c_uint64()
    for address in live[:2500]:
        driver.cuMemFree_v2(address)
    for address in live[2500:]:
        driver.cuMemGetAddressRange_v2(byref(base), None, address)
        assert base.value == address
        driver.cuMemFree_v2(address)


def test_a_lookup_is_cheap_among_many(sim_table: SimTable, driver: Driver) -> None:
    """Addresses that come in order, as they do here, are the worst case of a plain tree."""
    call = driver.dll["cuMemGetAddressRange_v2"]
    base = c_uint64()

    def cost(live: list[int]) -> float:
        picks = random.Random(3).choices(live, k=2000)
        calls = [(byref(base), None, c_uint64(address)) for address in picks]
        began = time.thread_time()
        for args in calls:
            call(*args)
        return time.thread_time() - began

    live = [driver.new("cuMemAlloc_v2", 512) for _ in range(100)]
    few = min(cost(live) for _ in range(5))
    live += [driver.new("cuMemAlloc_v2", 512) for _ in range(40_000)]
    many = min(cost(live) for _ in range(5))
    for address in live:
        driver.cuMemFree_v2(address)
    assert many < 10 * few  # 1 to 4; 23 where the tree is a list


def test_threads_share_one_account(sim_table: SimTable, driver: Driver, context: int) -> None:
    before = used(sim_table)
    failures: list[BaseException] = []

    def work(seed: int) -> None:
        try:
            driver.cuCtxSetCurrent(context)
            picks = random.Random(seed)
            live: list[tuple[int, bytes]] = []
            for _ in range(300):
                if live and picks.random() < 0.5:
                    address, mark = live.pop(picks.randrange(len(live)))
                    assert driver.download(address, len(mark)) == mark
                    driver.cuMemFree_v2(address)
                else:
                    size = picks.choice([64, 4096, 70_000, MIB, 3 * MIB])
                    address = driver.new("cuMemAlloc_v2", size)
                    mark = picks.randbytes(64)
                    driver.upload(address, mark)
                    live.append((address, mark))
            for address, _ in live:
                driver.cuMemFree_v2(address)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work, args=(seed,)) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert used(sim_table) == before
