# SPDX-License-Identifier: GPL-2.0-only
"""Kernels in graphs and in streams: captured, as nodes, updated, failing, in order."""

from __future__ import annotations

import ctypes
from ctypes import Structure, byref, c_char_p, c_int, c_uint, c_uint32, c_uint64, c_void_p

import pytest
from conftest import Script
from cuda_driver import ILLEGAL_ADDRESS, INVALID_VALUE, NOT_READY, SUCCESS, Driver, SimTable
from ptx_kernels import HEAD, Kernel, Memory, entry, pointers
from test_graphs import UpdateInfo, handles, instantiate, nodes_of, run

ADD = entry("add", "u64 to, u32 value", "atom.global.add.u32 r1, [to], value;")
# Writes 1 to its own flag, then waits until the other's is 1.
MEET = entry(
    "meet",
    "u64 mine, u64 other",
    "st.volatile.global.u32 [mine], 1;\n"
    "again: ld.volatile.global.u32 r1, [other]; setp.eq.u32 p1, r1, 0; @p1 bra again;",
)


class NodeV2(Structure):
    """CUDA_KERNEL_NODE_PARAMS (v2); the first version ends with `extra`."""

    _fields_ = [
        ("function", c_void_p), ("grid", c_uint * 3), ("block", c_uint * 3), ("shared", c_uint),
        ("parameters", c_void_p), ("extra", c_void_p), ("kernel", c_void_p),
        ("context", c_void_p),
    ]  # fmt: skip


def node_params(kernel: Kernel, blocks: int, *parameters: object) -> NodeV2:
    held = pointers(parameters)
    params = NodeV2(
        function=kernel.function, grid=(blocks, 1, 1), block=(1, 1, 1),
        parameters=ctypes.addressof(held),
    )  # fmt: skip
    params.held = held
    return params


@pytest.fixture
def add(driver: Driver, context: int) -> Kernel:
    return Kernel(driver, ADD)


@pytest.fixture
def total(driver: Driver, context: int) -> Memory:
    return Memory(driver, 2)


def capture(driver: Driver, stream: int) -> int:
    graph = c_uint64()
    driver.cuStreamEndCapture(stream, byref(graph))
    return graph.value


def test_launches_are_captured(driver: Driver, add: Kernel, total: Memory, stream: int) -> None:
    driver.cuStreamBeginCapture_v2(stream, 0)
    value = c_uint32(5)
    add(2, 3, total.parameter, value, stream=stream)
    value.value = 100  # the launch has its own
    add(1, 1, total.parameter, value, stream=stream)
    graph = capture(driver, stream)
    assert total.read()[0] == 0
    exec_ = instantiate(driver, graph)
    driver.cuGraphDestroy(graph)
    for turn in (1, 2):
        run(driver, exec_, stream)
        assert total.read()[0] == 130 * turn
    driver.cuGraphExecDestroy(exec_)


@pytest.mark.parametrize("version", ["", "_v2"])
def test_kernel_nodes(
    driver: Driver, add: Kernel, total: Memory, stream: int, version: str
) -> None:
    graph = driver.new("cuGraphCreate", 0)
    params = node_params(add, 4, total.parameter, c_uint32(10))
    node = driver.new(f"cuGraphAddKernelNode{version}", graph, None, 0, byref(params))
    exec_ = instantiate(driver, graph)
    run(driver, exec_, stream)
    assert total.read()[0] == 40
    read = NodeV2()
    driver.check(f"cuGraphKernelNodeGetParams{version}", node, byref(read))
    assert (read.function, list(read.grid), list(read.block)) == (add.function, [4, 1, 1], [1] * 3)
    words = (c_void_p * 2).from_address(read.parameters)
    assert c_uint64.from_address(words[0] or 0).value == total.address
    assert c_uint32.from_address(words[1] or 0).value == 10
    # What was read can be given back, with another value.
    c_uint32.from_address(words[1] or 0).value = 10
    driver.check(f"cuGraphKernelNodeSetParams{version}", node, byref(read))
    new = node_params(add, 1, total.parameter, c_uint32(2))
    driver.check(f"cuGraphExecKernelNodeSetParams{version}", exec_, node, byref(new))
    run(driver, exec_, stream)
    assert total.read()[0] == 42
    bad = node_params(add, 0, total.parameter, c_uint32(2))
    code = driver.code(
        f"cuGraphAddKernelNode{version}", byref(c_uint64()), graph, None, 0, byref(bad)
    )
    assert code == INVALID_VALUE
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(graph)


def test_a_kernel_of_a_library(driver: Driver, context: int, total: Memory, stream: int) -> None:
    text = (HEAD + ADD).encode()
    library = driver.new("cuLibraryLoadData", c_char_p(text), None, None, 0, None, None, 0)
    kernel = driver.new("cuLibraryGetKernel", library, b"add")
    held = pointers((total.parameter, c_uint32(3)))
    params = NodeV2(
        kernel=kernel, context=context, grid=(1, 1, 1), block=(2, 1, 1),
        parameters=ctypes.addressof(held),
    )  # fmt: skip
    graph = driver.new("cuGraphCreate", 0)
    node = driver.new("cuGraphAddKernelNode_v2", graph, None, 0, byref(params))
    read = NodeV2()
    driver.cuGraphKernelNodeGetParams_v2(node, byref(read))
    assert (read.kernel, read.function) == (kernel, None)
    exec_ = instantiate(driver, graph)
    run(driver, exec_, stream)
    assert total.read()[0] == 6
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(graph)
    driver.cuLibraryUnload(library)


def test_an_updated_graph(driver: Driver, add: Kernel, total: Memory, stream: int) -> None:
    graphs = []
    for value in (1, 1000):
        driver.cuStreamBeginCapture_v2(stream, 0)
        add(1, 1, total.parameter, c_uint32(value), stream=stream)
        add(1, 1, c_uint64(total.address + 4), c_uint32(value), stream=stream)
        graphs.append(capture(driver, stream))
    exec_ = instantiate(driver, graphs[0])
    run(driver, exec_, stream)
    info = UpdateInfo()
    driver.cuGraphExecUpdate_v2(exec_, graphs[1], byref(info))
    run(driver, exec_, stream)
    assert total.read() == [1001, 1001]
    for graph in graphs:
        driver.cuGraphDestroy(graph)
    driver.cuGraphExecDestroy(exec_)


def test_a_kernel_node_is_switched_off(
    driver: Driver, add: Kernel, total: Memory, stream: int
) -> None:
    graph = driver.new("cuGraphCreate", 0)
    one = driver.new("cuGraphAddKernelNode_v2", graph, None, 0,
                     byref(node_params(add, 1, total.parameter, c_uint32(1))))  # fmt: skip
    driver.new("cuGraphAddKernelNode_v2", graph, handles(one), 1,
               byref(node_params(add, 1, total.parameter, c_uint32(10))))  # fmt: skip
    exec_ = instantiate(driver, graph)
    driver.cuGraphNodeSetEnabled(exec_, one, 0)
    run(driver, exec_, stream)
    assert total.read()[0] == 10
    assert len(nodes_of(driver, graph)) == 2
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(graph)


def test_a_kernel_is_in_its_streams_order(
    driver: Driver, add: Kernel, total: Memory, stream: int, sim_table: SimTable
) -> None:
    other = driver.new("cuStreamCreate", 1)
    assert sim_table.hold_stream(stream, 1) == SUCCESS
    add(1, 1, total.parameter, c_uint32(7), stream=stream)
    add(1, 1, c_uint64(total.address + 4), c_uint32(9), stream=other)
    driver.cuStreamSynchronize(other)
    assert driver.code("cuStreamQuery", stream) == NOT_READY
    stale = (c_uint32 * 2)()
    driver.cuMemcpyDtoHAsync_v2(ctypes.addressof(stale), total.address, 8, other)
    assert list(stale) == [0, 9]  # who does not wait sees what was
    assert sim_table.hold_stream(stream, 0) == SUCCESS
    driver.cuStreamSynchronize(stream)
    assert total.read() == [7, 9]
    driver.cuStreamDestroy_v2(other)


def test_kernels_of_two_streams_wait_for_each_other(
    driver: Driver, total: Memory, stream: int
) -> None:
    meet = Kernel(driver, MEET)
    other = driver.new("cuStreamCreate", 1)
    flags = (c_uint64(total.address), c_uint64(total.address + 4))
    meet(1, 1, *flags, stream=stream)
    meet(1, 1, *reversed(flags), stream=other)
    driver.cuStreamSynchronize(stream)
    driver.cuStreamSynchronize(other)
    assert total.read() == [1, 1]
    driver.cuStreamDestroy_v2(other)


def test_an_error_in_a_graph_sticks(script: Script, sim_table: SimTable) -> None:
    out = script(
        """
        from ptx_kernels import Kernel, Memory, entry
        from test_graphs import instantiate
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        bad = Kernel(driver, entry("bad", "u64 to", "st.global.u32 [to], 1;"))
        count = Kernel(driver, entry("count", "u64 to", "atom.global.add.u32 r1, [to], 1;"))
        total = Memory(driver, 1)
        pinned = driver.new("cuMemHostAlloc", 64, 0)
        word = c_uint.from_address(pinned)
        word.value = 77
        stream = driver.new("cuStreamCreate", 1)
        driver.cuStreamBeginCapture_v2(stream, 0)
        bad(1, 1, c_uint64(16), stream=stream)
        count(1, 1, total.parameter, stream=stream)
        driver.cuMemcpyDtoHAsync_v2(pinned, total.address, 4, stream)
        graph = c_uint64()
        driver.cuStreamEndCapture(stream, byref(graph))
        exec_ = instantiate(driver, graph.value)
        driver.cuGraphLaunch(exec_, stream)
        print(driver.code("cuStreamSynchronize", stream), driver.code("cuCtxSynchronize"),
              driver.code("cuGraphLaunch", exec_, stream), word.value)
        """
    )
    # What came behind it was passed over.
    assert out.split() == [str(ILLEGAL_ADDRESS)] * 3 + ["77"]


def test_attributes_of_kernel_nodes(driver: Driver, add: Kernel, total: Memory) -> None:
    graph = driver.new("cuGraphCreate", 0)
    node = driver.new("cuGraphAddKernelNode_v2", graph, None, 0,
                      byref(node_params(add, 1, total.parameter, c_uint32(1))))  # fmt: skip
    cooperative = 2
    value = (c_int * 16)(1)
    driver.cuGraphKernelNodeSetAttribute(node, cooperative, value)
    value[0] = 0
    driver.cuGraphKernelNodeGetAttribute(node, cooperative, value)
    assert value[0] == 1
    assert driver.code("cuGraphKernelNodeGetAttribute", node, 99, value) == INVALID_VALUE
    driver.cuGraphDestroy(graph)
