# SPDX-License-Identifier: GPL-2.0-only
"""Graphs: nodes and edges, instantiation, launches, updates, memory, user objects."""

from __future__ import annotations

import ctypes
from ctypes import (
    CFUNCTYPE,
    Structure,
    addressof,
    byref,
    c_int,
    c_longlong,
    c_size_t,
    c_uint,
    c_uint64,
    c_void_p,
)
from pathlib import Path

from cuda_driver import (
    INVALID_VALUE,
    NOT_READY,
    NOT_SUPPORTED,
    SUCCESS,
    Driver,
    SimTable,
)

UPDATE_FAILURE = 910
KERNEL, MEMCPY, MEMSET, HOST, GRAPH, EMPTY, WAIT, RECORD = range(8)
MEM_ALLOC, MEM_FREE, MEM_OP = 10, 11, 12
ON_HOST, ON_DEVICE = 1, 2
KIB, MIB = 1 << 10, 1 << 20
HOST_FUNCTION = CFUNCTYPE(None, c_void_p)


class Memset(Structure):
    """CUDA_MEMSET_NODE_PARAMS."""

    _fields_ = [
        ("dst", c_uint64), ("pitch", c_size_t), ("value", c_uint), ("element", c_uint),
        ("width", c_size_t), ("height", c_size_t), ("context", c_void_p),
    ]  # fmt: skip


class Memcpy3D(Structure):
    """CUDA_MEMCPY3D."""

    _fields_ = [
        field
        for side in ("src", "dst")
        for field in (
            (f"{side}_x", c_size_t), (f"{side}_y", c_size_t), (f"{side}_z", c_size_t),
            (f"{side}_lod", c_size_t), (f"{side}_type", c_int), (f"{side}_host", c_void_p),
            (f"{side}_device", c_uint64), (f"{side}_array", c_void_p),
            (f"{side}_reserved", c_void_p), (f"{side}_pitch", c_size_t),
            (f"{side}_height", c_size_t),
        )
    ] + [("width", c_size_t), ("height", c_size_t), ("depth", c_size_t)]  # fmt: skip


class Host(Structure):
    """CUDA_HOST_NODE_PARAMS."""

    _fields_ = [("function", HOST_FUNCTION), ("data", c_void_p)]


class NodeParams(Structure):
    """CUgraphNodeParams; the parameters of the type lie at `words`."""

    _fields_ = [
        ("type", c_int), ("reserved", c_int * 3), ("words", c_longlong * 29),
        ("more", c_longlong),
    ]  # fmt: skip


class UpdateInfo(Structure):
    """CUgraphExecUpdateResultInfo."""

    _fields_ = [("result", c_int), ("node", c_void_p), ("from_node", c_void_p)]


def handles(*values: int) -> ctypes.Array[c_uint64] | None:
    return (c_uint64 * len(values))(*values) if values else None


def set_node(driver: Driver, graph: int, after: list[int], dst: int, value: int,
             count: int = 4) -> int:  # fmt: skip
    """A node that sets `count` bytes."""
    params = Memset(dst=dst, value=value, element=1, width=count, height=1)
    return driver.new(
        "cuGraphAddMemsetNode", graph, handles(*after), len(after), byref(params), None
    )


def copy_params(dst: int, src: int, size: int) -> Memcpy3D:
    return Memcpy3D(
        src_type=ON_DEVICE, src_device=src, dst_type=ON_DEVICE, dst_device=dst,
        width=size, height=1, depth=1,
    )  # fmt: skip


def copy_node(driver: Driver, graph: int, after: list[int], dst: int, src: int, size: int) -> int:
    params = copy_params(dst, src, size)
    return driver.new(
        "cuGraphAddMemcpyNode", graph, handles(*after), len(after), byref(params), None
    )


def instantiate(driver: Driver, graph: int, flags: int = 0) -> int:
    return driver.new("cuGraphInstantiateWithFlags", graph, flags)


def run(driver: Driver, exec_: int, stream: int) -> None:
    driver.cuGraphLaunch(exec_, stream)
    driver.cuStreamSynchronize(stream)


def nodes_of(driver: Driver, graph: int, call: str = "cuGraphGetNodes") -> list[int]:
    count = c_size_t()
    driver.check(call, graph, None, byref(count))
    found = (c_uint64 * (count.value + 1))()
    driver.check(call, graph, found, byref(count))
    return list(found[: count.value])


def edges_of(driver: Driver, graph: int) -> set[tuple[int, int]]:
    count = c_size_t()
    driver.cuGraphGetEdges(graph, None, None, byref(count))
    pairs = [(c_uint64 * (count.value + 1))() for _ in range(2)]
    driver.cuGraphGetEdges(graph, *pairs, byref(count))
    return set(zip(pairs[0][: count.value], pairs[1][: count.value], strict=True))


# ---- structure ----


def test_nodes_and_edges(driver: Driver, graph: int, cells: int) -> None:
    one = set_node(driver, graph, [], cells, 1)
    two = set_node(driver, graph, [one], cells, 2)
    three = copy_node(driver, graph, [one, two], cells + 8, cells, 4)
    assert nodes_of(driver, graph) == [one, two, three]
    assert nodes_of(driver, graph, "cuGraphGetRootNodes") == [one]
    assert edges_of(driver, graph) == {(one, two), (one, three), (two, three)}
    assert nodes_of(driver, three, "cuGraphNodeGetDependencies") == [one, two]
    assert nodes_of(driver, one, "cuGraphNodeGetDependentNodes") == [two, three]
    types = []
    for node in (one, three):
        kind = c_int()
        driver.cuGraphNodeGetType(node, byref(kind))
        types.append(kind.value)
    assert types == [MEMSET, MEMCPY]
    driver.cuGraphRemoveDependencies(graph, handles(one), handles(three), 1)
    assert edges_of(driver, graph) == {(one, two), (two, three)}
    gone = driver.code("cuGraphRemoveDependencies", graph, handles(one), handles(three), 1)
    assert gone == INVALID_VALUE
    driver.cuGraphAddDependencies(graph, handles(one), handles(three), 1)
    assert driver.code("cuGraphAddDependencies", graph, handles(one), handles(three), 1) != SUCCESS
    driver.cuGraphDestroyNode(two)
    assert nodes_of(driver, graph) == [one, three]
    assert edges_of(driver, graph) == {(one, three)}


def test_handles_that_are_none(driver: Driver, graph: int, cells: int, sim_table: SimTable) -> None:
    node = set_node(driver, graph, [], cells, 1)
    driver.cuGraphDestroyNode(node)
    for bad in (node, 0x1234, graph):
        assert driver.code("cuGraphDestroyNode", bad) == INVALID_VALUE
    assert driver.code("cuGraphDestroy", 0x1234) == INVALID_VALUE
    assert driver.code("cuGraphLaunch", graph, None) == INVALID_VALUE
    assert driver.code("cuGraphInstantiateWithFlags", byref(c_uint64()), 0x1234, 0) != SUCCESS
    assert driver.code("cuGraphCreate", byref(c_uint64()), 1) == INVALID_VALUE


def test_a_cycle_is_not_instantiated(driver: Driver, graph: int, cells: int) -> None:
    one = set_node(driver, graph, [], cells, 1)
    two = set_node(driver, graph, [one], cells, 2)
    driver.cuGraphAddDependencies(graph, handles(two), handles(one), 1)
    assert driver.code("cuGraphInstantiateWithFlags", byref(c_uint64()), graph, 0) == INVALID_VALUE
    params = (c_uint64 * 4)()
    code = driver.code("cuGraphInstantiateWithParams", byref(c_uint64()), graph, params)
    assert code == INVALID_VALUE
    assert params[3] & 0xFFFFFFFF == 2  # invalid structure


def test_a_clone_is_a_graph_of_its_own(driver: Driver, graph: int, cells: int, stream: int) -> None:
    node = set_node(driver, graph, [], cells, 1)
    clone = driver.new("cuGraphClone", graph)
    twin = driver.new("cuGraphNodeFindInClone", node, clone)
    assert twin != node
    assert nodes_of(driver, clone) == [twin]
    driver.cuGraphMemsetNodeSetParams(
        twin, byref(Memset(dst=cells, value=9, element=1, width=4, height=1))
    )
    for made_of, value in ((graph, 1), (clone, 9)):
        exec_ = instantiate(driver, made_of)
        run(driver, exec_, stream)
        assert driver.download(cells, 4) == bytes([value]) * 4
        driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(clone)
    assert driver.code("cuGraphNodeGetType", twin, byref(c_int())) == INVALID_VALUE


def test_parameters_read_back(driver: Driver, graph: int, cells: int, context: int) -> None:
    node = set_node(driver, graph, [], cells, 5, 16)
    params = Memset()
    driver.cuGraphMemsetNodeGetParams(node, byref(params))
    assert (params.dst, params.value, params.element, params.width, params.height) == (
        cells, 5, 1, 16, 1,
    )  # fmt: skip
    copy = copy_node(driver, graph, [], cells + 32, cells, 8)
    box = Memcpy3D()
    driver.cuGraphMemcpyNodeGetParams(copy, byref(box))
    assert (box.src_type, box.src_device, box.dst_device, box.width) == (2, cells, cells + 32, 8)
    function = HOST_FUNCTION(lambda _: None)
    host = driver.new("cuGraphAddHostNode", graph, None, 0, byref(Host(function, 0xABC)))
    read = Host()
    driver.cuGraphHostNodeGetParams(host, byref(read))
    assert read.data == 0xABC
    event = driver.new("cuEventCreate", 2)
    for call in ("EventRecord", "EventWait"):
        node = driver.new(f"cuGraphAdd{call}Node", graph, None, 0, event)
        found = c_uint64()
        driver.check(f"cuGraph{call}NodeGetEvent", node, byref(found))
        assert found.value == event
    assert driver.code("cuGraphMemsetNodeGetParams", copy, byref(params)) == INVALID_VALUE
    driver.cuEventDestroy_v2(event)


def test_parameters_that_cannot_be(driver: Driver, graph: int, cells: int) -> None:
    bad = [
        Memset(dst=cells, value=1, element=3, width=4, height=1),
        Memset(dst=0, value=1, element=1, width=4, height=1),
        Memset(dst=cells + 1, value=1, element=4, width=4, height=1),
    ]
    for params in bad:
        code = driver.code("cuGraphAddMemsetNode", byref(c_uint64()), graph, None, 0,
                           byref(params), None)  # fmt: skip
        assert code == INVALID_VALUE
    box = copy_params(cells, cells + 60, 8)  # runs past the end
    code = driver.code("cuGraphAddMemcpyNode", byref(c_uint64()), graph, None, 0, byref(box), None)
    assert code == INVALID_VALUE
    other = driver.new("cuGraphCreate", 0)
    stranger = set_node(driver, other, [], cells, 1)
    code = driver.code("cuGraphAddEmptyNode", byref(c_uint64()), graph, handles(stranger), 1)
    assert code == INVALID_VALUE
    driver.cuGraphDestroy(other)
    assert nodes_of(driver, graph) == []


def test_what_is_not_simulated_says_so(driver: Driver, graph: int, sim_table: SimTable) -> None:
    for kind in (8, 9, 13):  # external semaphores, conditionals
        params = NodeParams(type=kind)
        code = driver.code("cuGraphAddNode_v2", byref(c_uint64()), graph, None, None, 0,
                           byref(params))  # fmt: skip
        assert code == NOT_SUPPORTED


def test_nodes_of_any_type(driver: Driver, graph: int, cells: int, stream: int) -> None:
    params = NodeParams(type=MEMSET)
    ctypes.memmove(
        params.words, byref(Memset(dst=cells, value=3, element=1, width=4, height=1)), 56
    )
    one = driver.new("cuGraphAddNode", graph, None, 0, byref(params))
    params.type = EMPTY
    driver.new("cuGraphAddNode_v2", graph, handles(one), None, 1, byref(params))
    exec_ = instantiate(driver, graph)
    run(driver, exec_, stream)
    assert driver.download(cells, 4) == b"\3" * 4
    params.type = MEMSET
    ctypes.memmove(
        params.words, byref(Memset(dst=cells, value=4, element=1, width=4, height=1)), 56
    )
    driver.cuGraphExecNodeSetParams(exec_, one, byref(params))
    run(driver, exec_, stream)
    assert driver.download(cells, 4) == b"\4" * 4
    driver.cuGraphExecDestroy(exec_)


# ---- launches ----


def test_nodes_run_after_what_they_depend_on(
    driver: Driver, graph: int, cells: int, stream: int
) -> None:
    last = driver.new("cuGraphAddEmptyNode", graph, None, 0)
    seen: list[str] = []
    functions = {name: HOST_FUNCTION(lambda _, name=name: seen.append(name)) for name in "abcd"}
    made = {
        name: driver.new("cuGraphAddHostNode", graph, None, 0, byref(Host(function)))
        for name, function in reversed(functions.items())
    }
    order = [("a", "b"), ("a", "c"), ("b", "d"), ("c", "d")]
    for first, second in order:
        driver.cuGraphAddDependencies(graph, handles(made[first]), handles(made[second]), 1)
    driver.cuGraphAddDependencies(graph, handles(made["d"]), handles(last), 1)
    exec_ = instantiate(driver, graph)
    for _ in range(3):
        seen.clear()
        run(driver, exec_, stream)
        assert sorted(seen) == list("abcd")
        for first, second in order:
            assert seen.index(first) < seen.index(second)
    driver.cuGraphExecDestroy(exec_)


def test_a_launch_takes_its_place_in_the_stream(
    driver: Driver, graph: int, cells: int, stream: int, sim_table: SimTable
) -> None:
    copy_node(driver, graph, [], cells + 4, cells, 4)
    exec_ = instantiate(driver, graph)
    assert sim_table.hold_stream(stream, 1) == SUCCESS
    driver.cuMemsetD8Async(cells, 1, 4, stream)
    driver.cuGraphLaunch(exec_, stream)
    driver.cuMemsetD8Async(cells, 2, 4, stream)
    assert driver.code("cuStreamQuery", stream) == NOT_READY
    # What happens to the graphs now does not matter to what is queued.
    driver.cuGraphExecDestroy(exec_)
    assert sim_table.hold_stream(stream, 0) == SUCCESS
    driver.cuStreamSynchronize(stream)
    assert driver.download(cells, 8) == b"\2\2\2\2\1\1\1\1"


def test_launches_of_one_graph_come_after_one_another(
    driver: Driver, graph: int, cells: int, stream: int, sim_table: SimTable
) -> None:
    set_node(driver, graph, [], cells, 1)
    exec_ = instantiate(driver, graph)
    other = driver.new("cuStreamCreate", 1)
    assert sim_table.hold_stream(stream, 1) == SUCCESS
    driver.cuGraphLaunch(exec_, stream)
    driver.cuGraphLaunch(exec_, other)
    assert driver.code("cuStreamQuery", other) == NOT_READY
    assert sim_table.hold_stream(stream, 0) == SUCCESS
    driver.cuStreamSynchronize(other)
    assert driver.code("cuStreamQuery", stream) == SUCCESS
    driver.cuStreamDestroy_v2(other)
    driver.cuGraphExecDestroy(exec_)


def test_child_graphs(driver: Driver, graph: int, cells: int, stream: int) -> None:
    child = driver.new("cuGraphCreate", 0)
    inner = set_node(driver, child, [], cells, 1)
    first = set_node(driver, graph, [], cells + 4, 2)
    node = driver.new("cuGraphAddChildGraphNode", graph, handles(first), 1, child)
    copy_node(driver, graph, [node], cells + 8, cells, 8)
    inside = c_uint64()
    driver.cuGraphChildGraphNodeGetGraph(node, byref(inside))
    assert inside.value != child  # it is a clone
    assert driver.code("cuGraphDestroy", inside.value) == INVALID_VALUE
    exec_ = instantiate(driver, graph)
    run(driver, exec_, stream)
    assert driver.download(cells, 16) == b"\1\1\1\1\2\2\2\2" * 2
    driver.cuGraphMemsetNodeSetParams(
        inner, byref(Memset(dst=cells, value=7, element=1, width=4, height=1))
    )
    driver.cuGraphExecChildGraphNodeSetParams(exec_, node, child)
    run(driver, exec_, stream)
    assert driver.download(cells + 8, 4) == b"\7" * 4
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(child)


def test_events_in_graphs(
    driver: Driver, graph: int, cells: int, stream: int, sim_table: SimTable
) -> None:
    other = driver.new("cuStreamCreate", 1)
    before, after = (driver.new("cuEventCreate", 0) for _ in range(2))
    wait = driver.new("cuGraphAddEventWaitNode", graph, None, 0, before)
    node = set_node(driver, graph, [wait], cells, 1)
    driver.new("cuGraphAddEventRecordNode", graph, handles(node), 1, after)
    exec_ = instantiate(driver, graph)
    assert sim_table.hold_stream(other, 1) == SUCCESS
    driver.cuEventRecord(before, other)
    driver.cuGraphLaunch(exec_, stream)
    assert driver.code("cuEventQuery", after) == NOT_READY
    assert sim_table.hold_stream(other, 0) == SUCCESS
    driver.cuEventSynchronize(after)
    assert driver.download(cells, 4) == b"\1" * 4
    driver.cuStreamSynchronize(stream)
    driver.cuGraphExecDestroy(exec_)
    driver.cuStreamDestroy_v2(other)
    for event in (before, after):
        driver.cuEventDestroy_v2(event)


def test_nodes_are_switched_off(driver: Driver, graph: int, cells: int, stream: int) -> None:
    first = set_node(driver, graph, [], cells, 1)
    second = set_node(driver, graph, [first], cells, 2)
    exec_ = instantiate(driver, graph)
    driver.cuGraphNodeSetEnabled(exec_, second, 0)
    run(driver, exec_, stream)
    assert driver.download(cells, 4) == b"\1" * 4
    on = c_uint(7)
    driver.cuGraphNodeGetEnabled(exec_, second, byref(on))
    assert on.value == 0
    driver.cuGraphNodeSetEnabled(exec_, second, 1)
    run(driver, exec_, stream)
    assert driver.download(cells, 4) == b"\2" * 4
    driver.cuGraphExecDestroy(exec_)


def test_memory_operations_in_graphs(driver: Driver, graph: int, cells: int, stream: int) -> None:
    class Batch(Structure):
        _fields_ = [("context", c_void_p), ("count", c_uint), ("ops", c_void_p), ("flags", c_uint)]

    ops = (c_uint64 * 12)(2, cells, 5, 0, 0, 0, 1, cells, 5, 1, 0, 0)
    params = Batch(count=2, ops=addressof(ops))
    node = driver.new("cuGraphAddBatchMemOpNode", graph, None, 0, byref(params))
    set_node(driver, graph, [node], cells + 4, 1)
    exec_ = instantiate(driver, graph)
    for _ in range(2):
        run(driver, exec_, stream)
    assert driver.download(cells, 8) == b"\5\0\0\0\1\1\1\1"
    driver.cuGraphExecDestroy(exec_)


# ---- updates ----


def test_parameters_of_an_instantiated_graph(
    driver: Driver, graph: int, cells: int, stream: int
) -> None:
    node = set_node(driver, graph, [], cells, 1)
    copy = copy_node(driver, graph, [node], cells + 8, cells, 4)
    exec_ = instantiate(driver, graph)
    new = Memset(dst=cells, value=6, element=1, width=4, height=1)
    driver.cuGraphExecMemsetNodeSetParams(exec_, node, byref(new), None)
    driver.cuGraphExecMemcpyNodeSetParams(
        exec_, copy, byref(copy_params(cells + 12, cells, 4)), None
    )
    run(driver, exec_, stream)
    assert driver.download(cells + 8, 8) == bytes(4) + b"\6" * 4
    old = Memset()
    driver.cuGraphMemsetNodeGetParams(node, byref(old))
    assert old.value == 1  # the graph's own node is as it was
    late = set_node(driver, graph, [], cells, 1)
    code = driver.code("cuGraphExecMemsetNodeSetParams", exec_, late, byref(new), None)
    assert code == INVALID_VALUE
    driver.cuGraphExecDestroy(exec_)


def test_whole_graph_update(driver: Driver, graph: int, cells: int, stream: int) -> None:
    first = set_node(driver, graph, [], cells, 1)
    copy_node(driver, graph, [first], cells + 8, cells, 4)
    exec_ = instantiate(driver, graph)
    same = driver.new("cuGraphCreate", 0)
    twin = set_node(driver, same, [], cells, 7)
    other_copy = copy_node(driver, same, [twin], cells + 16, cells, 4)
    info = UpdateInfo()
    driver.cuGraphExecUpdate_v2(exec_, same, byref(info))
    assert info.result == 0
    run(driver, exec_, stream)
    assert driver.download(cells + 8, 12) == bytes(8) + b"\7" * 4
    # More nodes, other edges, another type.
    driver.cuGraphRemoveDependencies(same, handles(twin), handles(other_copy), 1)
    assert driver.code("cuGraphExecUpdate_v2", exec_, same, byref(info)) == UPDATE_FAILURE
    assert (info.result, info.node) == (2, other_copy)
    driver.cuGraphDestroyNode(other_copy)
    assert driver.code("cuGraphExecUpdate_v2", exec_, same, byref(info)) == UPDATE_FAILURE
    assert info.result == 2
    empty = driver.new("cuGraphAddEmptyNode", same, handles(twin), 1)
    why, node = c_int(), c_uint64()
    code = driver.code("cuGraphExecUpdate", exec_, same, byref(node), byref(why))
    assert code == UPDATE_FAILURE
    assert (why.value, node.value) == (3, empty)
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(same)


def test_a_graph_as_text(driver: Driver, graph: int, cells: int, tmp_path: Path) -> None:
    node = set_node(driver, graph, [], cells, 1)
    copy_node(driver, graph, [node], cells + 8, cells, 4)
    path = tmp_path / "graph.dot"
    driver.cuGraphDebugDotPrint(graph, str(path).encode(), 0)
    text = path.read_text()
    assert text.startswith("digraph")
    assert text.count("->") == 1
    assert "MEMCPY" in text
