# SPDX-License-Identifier: GPL-2.0-only
"""Memory that graphs allocate and free, and user objects that live as long as graphs."""

from __future__ import annotations

import threading
from ctypes import Structure, byref, c_size_t, c_uint64, c_void_p

import pytest
from cuda_driver import (
    INVALID_VALUE,
    NOT_SUPPORTED,
    OUT_OF_MEMORY,
    SUCCESS,
    Driver,
    PoolProps,
    SimTable,
)
from memory_types import DEVICE_0, PINNED
from test_graphs import HOST_FUNCTION, copy_node, handles, instantiate, run, set_node

AUTO_FREE = 1
KIB, MIB = 1 << 10, 1 << 20


class Alloc(Structure):
    """CUDA_MEM_ALLOC_NODE_PARAMS."""

    _fields_ = [
        ("pool", PoolProps), ("access", c_void_p), ("access_count", c_size_t),
        ("size", c_size_t), ("address", c_uint64),
    ]  # fmt: skip


def alloc_node(driver: Driver, graph: int, after: list[int], size: int) -> tuple[int, int]:
    """(node, address)."""
    params = Alloc(pool=PoolProps(type=PINNED, location=DEVICE_0), size=size)
    node = driver.new("cuGraphAddMemAllocNode", graph, handles(*after), len(after), byref(params))
    return node, params.address


def memory_attribute(driver: Driver, which: int) -> int:
    value = c_uint64()
    driver.cuDeviceGetGraphMemAttribute(0, which, byref(value))
    return value.value


def test_memory_of_a_graph(driver: Driver, graph: int, stream: int, cells: int) -> None:
    used, reserved = memory_attribute(driver, 0), memory_attribute(driver, 2)
    alloc, address = alloc_node(driver, graph, [], MIB)
    fill = set_node(driver, graph, [alloc], address, 8, MIB)
    copy = copy_node(driver, graph, [fill], cells, address + MIB - 4, 4)
    free = driver.new("cuGraphAddMemFreeNode", graph, handles(copy), 1, address)
    read = Alloc()
    driver.cuGraphMemAllocNodeGetParams(alloc, byref(read))
    assert (read.address, read.size) == (address, MIB)
    found = c_uint64()
    driver.cuGraphMemFreeNodeGetParams(free, byref(found))
    assert found.value == address
    assert driver.code("cuGraphClone", byref(c_uint64()), graph) == NOT_SUPPORTED
    assert driver.code("cuGraphDestroyNode", alloc) == NOT_SUPPORTED
    exec_ = instantiate(driver, graph)
    again = driver.code("cuGraphInstantiateWithFlags", byref(c_uint64()), graph, 0)
    assert again == NOT_SUPPORTED
    free_before = driver.memory_info()[0]
    for _ in range(3):
        run(driver, exec_, stream)
        assert driver.download(cells, 4) == b"\b" * 4
    assert memory_attribute(driver, 0) == used + MIB
    assert memory_attribute(driver, 2) == reserved + MIB
    assert free_before - driver.memory_info()[0] == MIB
    driver.cuDeviceGraphMemTrim(0)
    assert driver.memory_info()[0] == free_before
    run(driver, exec_, stream)
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(graph)
    # What the graph had stays reserved for others until it is trimmed.
    assert memory_attribute(driver, 0) == used
    assert memory_attribute(driver, 2) == reserved + MIB
    assert free_before - driver.memory_info()[0] == MIB
    driver.cuDeviceGraphMemTrim(0)
    assert driver.memory_info()[0] == free_before
    assert memory_attribute(driver, 2) == reserved


def freed_in_it(driver: Driver, graph: int, size: int) -> int:
    """The graph allocates and frees `size` bytes; instantiated."""
    alloc, address = alloc_node(driver, graph, [], size)
    driver.new("cuGraphAddMemFreeNode", graph, handles(alloc), 1, address)
    return instantiate(driver, graph)


@pytest.mark.parametrize("suffix", ["", "_ptsz"])
def test_an_upload_takes_the_memory(driver: Driver, graph: int, stream: int, suffix: str) -> None:
    driver.cuDeviceGraphMemTrim(0)
    exec_ = freed_in_it(driver, graph, 3 * MIB)
    assert memory_attribute(driver, 2) == 0
    driver.check("cuGraphUpload" + suffix, exec_, stream)
    driver.cuStreamSynchronize(stream)
    assert memory_attribute(driver, 2) >= 3 * MIB
    reserved = memory_attribute(driver, 2)
    run(driver, exec_, stream)
    assert memory_attribute(driver, 2) == reserved
    driver.cuGraphExecDestroy(exec_)
    driver.cuDeviceGraphMemTrim(0)


def test_what_is_spare_is_used_again(driver: Driver, graph: int, stream: int) -> None:
    driver.cuDeviceGraphMemTrim(0)
    exec_ = freed_in_it(driver, graph, 4 * MIB)
    run(driver, exec_, stream)
    reserved = memory_attribute(driver, 2)
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(graph)
    other = driver.new("cuGraphCreate", 0)
    exec_ = freed_in_it(driver, other, 4 * MIB)
    run(driver, exec_, stream)
    assert memory_attribute(driver, 2) == reserved
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(other)
    driver.cuDeviceGraphMemTrim(0)
    assert memory_attribute(driver, 2) == 0


def test_a_trim_leaves_what_is_scheduled(
    sim_table: SimTable, driver: Driver, graph: int, stream: int
) -> None:
    exec_ = freed_in_it(driver, graph, MIB)
    run(driver, exec_, stream)
    assert sim_table.hold_stream(stream, 1) == SUCCESS
    driver.cuGraphLaunch(exec_, stream)
    driver.cuDeviceGraphMemTrim(0)
    assert memory_attribute(driver, 2) == MIB
    assert sim_table.hold_stream(stream, 0) == SUCCESS
    driver.cuStreamSynchronize(stream)
    driver.cuDeviceGraphMemTrim(0)
    assert memory_attribute(driver, 2) == 0
    driver.cuGraphExecDestroy(exec_)


def test_what_outlives_its_graph_is_reserved_until_it_is_freed(
    driver: Driver, graph: int, stream: int
) -> None:
    driver.cuDeviceGraphMemTrim(0)
    _, address = alloc_node(driver, graph, [], MIB)
    exec_ = instantiate(driver, graph)
    run(driver, exec_, stream)
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(graph)
    driver.cuDeviceGraphMemTrim(0)
    assert memory_attribute(driver, 2) >= MIB
    driver.cuMemFree_v2(address)
    driver.cuDeviceGraphMemTrim(0)
    assert memory_attribute(driver, 2) == 0


def test_memory_that_outlives_the_launch(
    driver: Driver, graph: int, stream: int, cells: int
) -> None:
    alloc, address = alloc_node(driver, graph, [], 4 * KIB)
    set_node(driver, graph, [alloc], address, 3, 4 * KIB)
    exec_ = instantiate(driver, graph)
    run(driver, exec_, stream)
    assert driver.download(address, 4) == b"\3" * 4
    assert driver.code("cuGraphLaunch", exec_, stream) == INVALID_VALUE  # not freed
    driver.cuMemFreeAsync(address, stream)
    assert driver.code("cuMemFreeAsync", address, stream) == INVALID_VALUE
    run(driver, exec_, stream)
    driver.cuMemFree_v2(address)
    driver.cuGraphExecDestroy(exec_)
    exec_ = instantiate(driver, graph, AUTO_FREE)
    flags = c_uint64()
    driver.cuGraphExecGetFlags(exec_, byref(flags))
    assert flags.value == AUTO_FREE
    for _ in range(3):
        run(driver, exec_, stream)
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(graph)
    assert driver.download(address, 4) == b"\3" * 4  # still the program's
    driver.cuMemFree_v2(address)


def test_memory_that_the_card_does_not_have(script: object, sim_table: SimTable) -> None:
    out = script(  # type: ignore[operator]
        """
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        from test_graph_memory import alloc_node
        from test_graphs import instantiate
        graph = driver.new("cuGraphCreate", 0)
        node, address = alloc_node(driver, graph, [], 64 << 20)
        driver.new("cuGraphAddMemFreeNode", graph, byref(c_uint64(node)), 1, address)
        exec_ = instantiate(driver, graph)
        plain = driver.new("cuMemAlloc_v2", 48 << 20)
        print(driver.code("cuGraphLaunch", exec_, None))
        driver.cuMemFree_v2(plain)
        driver.cuGraphLaunch(exec_, None)
        driver.cuCtxSynchronize()
        """,
        EMUV_SIM_VRAM=str(96 * MIB),
    )
    assert out == str(OUT_OF_MEMORY)


# ---- user objects ----


def test_user_objects_live_as_long_as_graphs(
    driver: Driver, graph: int, stream: int, cells: int, sim_table: SimTable
) -> None:
    ended: list[int] = []
    event = threading.Event()

    def end(data: int) -> None:
        ended.append(data)
        event.set()

    destroy = HOST_FUNCTION(end)
    thing = driver.new("cuUserObjectCreate", 0x77, destroy, 1, 1)
    driver.cuGraphRetainUserObject(graph, thing, 1, 1)  # moved
    set_node(driver, graph, [], cells, 1)
    exec_ = instantiate(driver, graph)
    driver.cuGraphDestroy(graph)
    assert ended == []
    assert sim_table.hold_stream(stream, 1) == SUCCESS
    driver.cuGraphLaunch(exec_, stream)
    driver.cuGraphExecDestroy(exec_)
    assert ended == []  # the launch is not done
    assert sim_table.hold_stream(stream, 0) == SUCCESS
    driver.cuStreamSynchronize(stream)
    assert event.wait(30)
    assert ended == [0x77]


def test_references_of_user_objects(driver: Driver, graph: int) -> None:
    ended: list[int] = []
    destroy = HOST_FUNCTION(ended.append)
    thing = driver.new("cuUserObjectCreate", 5, destroy, 2, 1)
    driver.cuUserObjectRetain(thing, 1)
    driver.cuUserObjectRelease(thing, 2)
    driver.cuGraphRetainUserObject(graph, thing, 2, 0)
    driver.cuUserObjectRelease(thing, 1)
    assert ended == []
    driver.cuGraphReleaseUserObject(graph, thing, 1)
    assert driver.code("cuGraphReleaseUserObject", graph, thing, 2) == INVALID_VALUE
    assert ended == []
    driver.cuGraphReleaseUserObject(graph, thing, 1)
    assert ended == [5]
    assert driver.code("cuUserObjectRelease", thing, 1) == INVALID_VALUE
    assert driver.code("cuUserObjectCreate", byref(c_uint64()), 0, destroy, 1, 0) == INVALID_VALUE


def test_references_of_a_graphs_are_its_own(
    driver: Driver, graph: int, sim_table: SimTable
) -> None:
    # Undefined behaviour on a real driver; the simulated one keeps count.
    ended: list[int] = []
    destroy = HOST_FUNCTION(ended.append)
    thing = driver.new("cuUserObjectCreate", 5, destroy, 1, 1)
    driver.cuGraphRetainUserObject(graph, thing, 2, 0)
    driver.cuUserObjectRelease(thing, 1)
    assert driver.code("cuUserObjectRelease", thing, 1) == INVALID_VALUE
    assert driver.code("cuGraphRetainUserObject", graph, thing, 1, 1) == INVALID_VALUE
    assert ended == []
    driver.cuGraphReleaseUserObject(graph, thing, 2)
    assert ended == [5]
