# SPDX-License-Identifier: GPL-2.0-only
"""Handles of host memory: what may be created, who reaches it, what crosses the link for it."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from ctypes import byref, c_size_t, c_uint64
from pathlib import Path

import pytest
from cuda_driver import (
    INVALID_DEVICE,
    INVALID_VALUE,
    SUCCESS,
    AccessDesc,
    AllocationProp,
    Driver,
    Location,
    SimTable,
)
from memory_types import (
    DEVICE_0,
    HOST,
    HOST_NUMA,
    HOST_NUMA_CURRENT,
    MIB,
    ON_HOST,
    READ_WRITE,
    pattern,
    pinned_prop,
)
from paging_tools import BLOCK, moved, play

HANDLE_TYPE_FD = 1
HOST_NUMA_ID, HOST_NUMA_VMM_SUPPORTED, HOST_VMM_SUPPORTED = 134, 141, 145

Script = Callable[..., str]


@pytest.fixture
def node(driver: Driver, context: int) -> Location:
    """The host's NUMA node next to device 0, where handles of it can be had."""
    if not driver.attribute(HOST_NUMA_VMM_SUPPORTED):
        pytest.skip(
            f"the driver's attribute {HOST_NUMA_VMM_SUPPORTED} of device 0 says: none of a node"
        )
    return Location(HOST_NUMA, max(driver.attribute(HOST_NUMA_ID), 0))


def create_code(driver: Driver, prop: AllocationProp) -> int:
    size, handle = c_size_t(), c_uint64()
    code = driver.code("cuMemGetAllocationGranularity", byref(size), byref(prop), 0)
    code = code or driver.code("cuMemCreate", byref(handle), size.value, byref(prop), 0)
    if code == SUCCESS:
        driver.cuMemRelease(handle.value)
    return code


def test_the_host_at_large_cannot_be_shared(driver: Driver, context: int) -> None:
    if not driver.attribute(HOST_VMM_SUPPORTED):
        pytest.skip(
            f"the driver's attribute {HOST_VMM_SUPPORTED} of device 0 says: none of the host"
        )
    prop = pinned_prop(ON_HOST)
    assert create_code(driver, prop) == SUCCESS
    assert create_code(driver, pinned_prop(Location(HOST, 77))) == SUCCESS  # the id is ignored
    prop.handle_types = HANDLE_TYPE_FD
    assert create_code(driver, prop) == INVALID_VALUE


def test_a_node_is_one_that_is_there(driver: Driver, node: Location) -> None:
    assert create_code(driver, pinned_prop(node)) == SUCCESS
    for number in (-1, 999):
        code = create_code(driver, pinned_prop(Location(HOST_NUMA, number)))
        assert code in (INVALID_DEVICE, INVALID_VALUE)
    current = pinned_prop(Location(HOST_NUMA_CURRENT, 0))
    assert create_code(driver, current) == INVALID_VALUE


def test_compression_is_a_hint(sim_table: SimTable, driver: Driver, context: int) -> None:
    prop, got = pinned_prop(), AllocationProp()
    prop.compression = 1
    handle = driver.new("cuMemCreate", 2 * MIB, byref(prop), 0)
    driver.cuMemGetAllocationPropertiesFromHandle(byref(got), handle)
    assert (got.location.type, got.compression) == (DEVICE_0.type, 0)
    driver.cuMemRelease(handle)


def test_who_may_be_given_access(sim_table: SimTable, driver: Driver, node: Location) -> None:
    """The host to its memory; a node only to a node's."""
    grain = 2 * MIB
    space = driver.new("cuMemAddressReserve", 3 * grain, 0, 0, 0)
    places = [DEVICE_0, ON_HOST, node]
    for i, place in enumerate(places):
        handle = driver.new("cuMemCreate", grain, byref(pinned_prop(place)), 0)
        driver.cuMemMap(space + i * grain, grain, 0, handle, 0)
        driver.cuMemRelease(handle)
    allowed = [
        [
            driver.code(
                "cuMemSetAccess", space + i * grain, grain, byref(AccessDesc(who, READ_WRITE)), 1
            )
            == SUCCESS
            for i in range(3)
        ]
        for who in places
    ]
    assert allowed == [[True, True, True], [False, True, True], [False, False, True]]
    driver.cuMemUnmap(space, 3 * grain)
    driver.cuMemAddressFree(space, 3 * grain)


def test_device_and_host_side_by_side(driver: Driver, node: Location) -> None:
    """One range of addresses, every other piece of it on the host: one memory to the device."""
    grain = max(
        int(driver.get(c_size_t, "cuMemGetAllocationGranularity", byref(pinned_prop(place)), 0))
        for place in (DEVICE_0, node)
    )
    size = 4 * grain
    space = driver.new("cuMemAddressReserve", size, 0, 0, 0)
    for i, place in enumerate([DEVICE_0, node, DEVICE_0, node]):
        handle = driver.new("cuMemCreate", grain, byref(pinned_prop(place)), 0)
        driver.cuMemMap(space + i * grain, grain, 0, handle, 0)
        driver.cuMemRelease(handle)
    driver.cuMemSetAccess(space, size, byref(AccessDesc(DEVICE_0, READ_WRITE)), 1)
    data = pattern(size)
    driver.upload(space, data)
    assert driver.download(space, size) == data
    other = driver.new("cuMemAlloc_v2", size)
    driver.cuMemcpyDtoD_v2(other, space + 99, size - 99)
    assert driver.download(other, size - 99) == data[99:]
    driver.cuMemsetD8_v2(space + grain - 5, 7, grain + 10)
    assert driver.download(space + grain - 6, 2) == data[grain - 6 : grain - 5] + b"\7"
    assert driver.download(space + 2 * grain + 4, 2) == b"\7" + data[2 * grain + 5 : 2 * grain + 6]
    driver.cuMemFree_v2(other)
    driver.cuMemUnmap(space, size)
    driver.cuMemAddressFree(space, size)


def test_the_cpu_reaches_what_it_was_given(driver: Driver, node: Location) -> None:
    size = driver.get(c_size_t, "cuMemGetAllocationGranularity", byref(pinned_prop(node)), 0)
    space = driver.new("cuMemAddressReserve", size, 0, 0, 0)
    handle = driver.new("cuMemCreate", size, byref(pinned_prop(node)), 0)
    driver.cuMemMap(space, size, 0, handle, 0)
    both = (AccessDesc * 2)(AccessDesc(DEVICE_0, READ_WRITE), AccessDesc(node, READ_WRITE))
    driver.cuMemSetAccess(space, size, both, 2)
    driver.cuMemsetD32_v2(space, 0x01020304, size // 4)
    driver.cuCtxSynchronize()
    assert ctypes.string_at(space + size - 4, 4) == b"\4\3\2\1"
    driver.cuMemUnmap(space, size)
    driver.cuMemRelease(handle)
    driver.cuMemAddressFree(space, size)


MIXED = """
def mixed(places):
    space = driver.new("cuMemAddressReserve", len(places) * BLOCK, 0, 0, 0)
    for i, kind in enumerate(places):
        prop = pinned_prop(Location(kind, 0))
        handle = driver.new("cuMemCreate", BLOCK, byref(prop), 0)
        driver.cuMemMap(space + i * BLOCK, BLOCK, 0, handle, 0)
        driver.cuMemRelease(handle)
    desc = AccessDesc(DEVICE_0, READ_WRITE)
    driver.cuMemSetAccess(space, len(places) * BLOCK, byref(desc), 1)
    return space
space = mixed([DEVICE, HOST_NUMA, HOST, DEVICE])
"""


def test_copies_cross_the_link_for_the_pieces_on_the_host(
    sim_table: SimTable, script: Script, tmp_path: Path
) -> None:
    text = """
driver.cuMemsetD8_v2(space + BLOCK // 2, 1, 3 * BLOCK)
other = driver.new("cuMemAlloc_v2", 4 * BLOCK)
driver.cuMemcpyDtoD_v2(other, space, 4 * BLOCK)
driver.cuCtxSynchronize()
"""
    (device,) = play(script, tmp_path, MIXED + text, 16)["devices"]
    # Set: half a block, two on the host, half a block.  Copied: two of four from the host.
    assert moved(device) == {"out/copy": 2, "in/copy": 2}


def test_kernels_reach_them_over_the_link(
    sim_table: SimTable, script: Script, tmp_path: Path
) -> None:
    text = '''
text = entry("bump", "u64 base, u32 count", f"""
    setp.ge.u32 p1, i, count;
    @p1 bra END;
    {at("d1", "base", "i", 4)}
    ld.global.u32 r1, [d1]; add.u32 r1, r1, i; st.global.u32 [d1], r1;
    END:
""")
count = 4 * BLOCK // 4
driver.cuMemsetD32_v2(space, 5, count)
driver.cuCtxSynchronize()
assert Kernel(driver, text).run(count // 256, 256, c_uint64(space), c_uint32(count)) == 0
data = driver.download(space, 4 * BLOCK)
for i in [0, 1, BLOCK // 4 - 1, BLOCK // 4, 3 * BLOCK // 4 - 1, count - 1]:
    assert int.from_bytes(data[4 * i : 4 * i + 4], "little") == 5 + i
'''
    stats = play(script, tmp_path, MIXED + text, 16)
    (launch,) = stats["launches"]
    assert moved(launch) == {"in/remote": 2, "out/remote": 2}
    assert launch["faults"] == 0


def test_a_kernel_without_access_is_stopped(
    sim_table: SimTable, script: Script, tmp_path: Path
) -> None:
    text = '''
text = entry("poke", "u64 base", "st.global.u32 [base], 1;")
driver.cuMemSetAccess(space + BLOCK, BLOCK, byref(AccessDesc(DEVICE_0, 1)), 1)
assert Kernel(driver, text).run(1, 1, c_uint64(space)) == 0
assert Kernel(driver, text).run(1, 1, c_uint64(space + BLOCK)) == 700
'''
    play(script, tmp_path, MIXED + text, 16)
    assert BLOCK == 2 * MIB
