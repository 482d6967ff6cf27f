# SPDX-License-Identifier: GPL-2.0-only
"""Stream capture: what becomes a node, how streams join, and what is forbidden meanwhile."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from ctypes import CFUNCTYPE, addressof, byref, c_char, c_int, c_size_t, c_uint64, c_void_p

import pytest
from cuda_driver import ILLEGAL_STATE, INVALID_VALUE, SUCCESS, Driver
from test_graphs import HOST_FUNCTION, edges_of, instantiate, nodes_of, run

UNSUPPORTED, INVALIDATED, MERGE, UNMATCHED, UNJOINED, ISOLATION, IMPLICIT, CAPTURED_EVENT = range(
    900, 908
)
WRONG_THREAD = 908
GLOBAL, THREAD_LOCAL, RELAXED = range(3)
NONE, ACTIVE, INVALID = range(3)
MEMCPY, MEMSET, HOST, GRAPH, EMPTY, WAIT, RECORD = range(1, 8)
CALLBACK = CFUNCTYPE(None, c_void_p, c_int, c_void_p)


@pytest.fixture
def streams(driver: Driver, context: int) -> Iterator[list[int]]:
    """Three non-blocking streams."""
    made = [driver.new("cuStreamCreate", 1) for _ in range(3)]
    yield made
    for stream in made:
        driver.code("cuStreamDestroy_v2", stream)


@pytest.fixture
def event(driver: Driver, context: int) -> Iterator[int]:
    handle = driver.new("cuEventCreate", 2)
    yield handle
    driver.code("cuEventDestroy_v2", handle)


def status(driver: Driver, stream: int) -> int:
    answer = c_int(9)
    driver.cuStreamIsCapturing(stream, byref(answer))
    return answer.value


def end(driver: Driver, stream: int) -> int:
    return int(_end(driver, stream).value or 0)


def _end(driver: Driver, stream: int) -> c_uint64:
    graph = c_uint64()
    driver.cuStreamEndCapture(stream, byref(graph))
    return graph


def types(driver: Driver, graph: int) -> list[int]:
    found = []
    for node in nodes_of(driver, graph):
        kind = c_int()
        driver.cuGraphNodeGetType(node, byref(kind))
        found.append(kind.value)
    return found


def test_work_becomes_nodes(driver: Driver, streams: list[int], cells: int) -> None:
    stream = streams[0]
    pinned = driver.new("cuMemHostAlloc", 64, 0)
    seen: list[bytes] = []
    function = HOST_FUNCTION(lambda _: seen.append(bytes((c_char * 4).from_address(pinned))))
    driver.cuStreamBeginCapture_v2(stream, GLOBAL)
    assert status(driver, stream) == ACTIVE
    driver.cuMemsetD8Async(cells, 4, 4, stream)
    driver.cuMemcpyDtoHAsync_v2(pinned, cells, 4, stream)
    driver.cuLaunchHostFunc(stream, function, None)
    assert seen == []
    graph = end(driver, stream)
    assert status(driver, stream) == NONE
    assert types(driver, graph) == [MEMSET, MEMCPY, HOST]
    one, two, three = nodes_of(driver, graph)
    assert edges_of(driver, graph) == {(one, two), (two, three)}
    assert driver.download(cells, 4) == bytes(4)  # nothing has been done
    exec_ = instantiate(driver, graph)
    driver.cuGraphDestroy(graph)
    run(driver, exec_, stream)
    run(driver, exec_, stream)
    assert seen == [b"\4" * 4] * 2
    driver.cuGraphExecDestroy(exec_)
    driver.cuMemFreeHost(pinned)


def test_streams_fork_and_join(driver: Driver, streams: list[int], cells: int, event: int) -> None:
    one, two, three = streams
    joined = [driver.new("cuEventCreate", 2) for _ in range(2)]
    driver.cuStreamBeginCapture_v2(one, THREAD_LOCAL)
    driver.cuMemsetD8Async(cells, 1, 4, one)
    driver.cuEventRecord(event, one)
    for stream, offset, back in ((two, 4, joined[0]), (three, 8, joined[1])):
        driver.cuStreamWaitEvent(stream, event, 0)
        assert status(driver, stream) == ACTIVE
        driver.cuMemcpyDtoDAsync_v2(cells + offset, cells, 4, stream)
        driver.cuEventRecord(back, stream)
    for back in joined:
        driver.cuStreamWaitEvent(one, back, 0)
    driver.cuMemcpyDtoDAsync_v2(cells + 16, cells, 16, one)
    graph = end(driver, one)
    assert [status(driver, stream) for stream in streams] == [NONE] * 3
    a, b, c, d = nodes_of(driver, graph)
    # That d comes after a may be said, too.
    assert edges_of(driver, graph) - {(a, d)} == {(a, b), (a, c), (b, d), (c, d)}
    exec_ = instantiate(driver, graph)
    run(driver, exec_, two)
    assert driver.download(cells + 16, 16) == b"\1" * 12 + bytes(4)
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(graph)
    for back in joined:
        driver.cuEventDestroy_v2(back)


def test_what_is_told_of_a_capture(driver: Driver, streams: list[int], cells: int) -> None:
    stream = streams[0]
    driver.cuStreamBeginCapture_v2(stream, RELAXED)
    driver.cuMemsetD8Async(cells, 1, 4, stream)
    state, number, graph = c_int(), c_uint64(), c_uint64()
    nodes, count, data = c_void_p(), c_size_t(), c_void_p()
    driver.cuStreamGetCaptureInfo(stream, byref(state), byref(number))
    assert (state.value, number.value > 0) == (ACTIVE, True)
    driver.cuStreamGetCaptureInfo_v3(
        stream, byref(state), byref(number), byref(graph), byref(nodes), byref(data), byref(count)
    )
    (first,) = nodes_of(driver, graph.value)
    assert count.value == 1
    assert c_uint64.from_address(nodes.value or 0).value == first
    # A node that is made by hand, and the stream goes on behind it.
    empty = driver.new("cuGraphAddEmptyNode", graph.value, byref(c_uint64(first)), 1)
    driver.cuStreamUpdateCaptureDependencies(stream, byref(c_uint64(empty)), 1, 1)
    driver.cuMemsetD8Async(cells, 2, 4, stream)
    assert driver.code("cuGraphDestroy", graph.value) == INVALID_VALUE
    assert end(driver, stream) == graph.value
    third = nodes_of(driver, graph.value)[2]
    assert edges_of(driver, graph.value) == {(first, empty), (empty, third)}
    driver.cuGraphDestroy(graph.value)
    code = driver.code("cuStreamUpdateCaptureDependencies", stream, None, 0, 0)
    assert code == ILLEGAL_STATE


def test_capture_into_a_graph(driver: Driver, streams: list[int], cells: int) -> None:
    stream = streams[0]
    graph = driver.new("cuGraphCreate", 0)
    root = driver.new("cuGraphAddEmptyNode", graph, None, 0)
    driver.cuStreamBeginCaptureToGraph(stream, graph, byref(c_uint64(root)), None, 1, GLOBAL)
    driver.cuMemsetD8Async(cells, 1, 4, stream)
    assert end(driver, stream) == graph
    assert edges_of(driver, graph) == {tuple(nodes_of(driver, graph))}
    driver.cuGraphDestroy(graph)


def test_a_launch_is_captured_as_a_child(driver: Driver, streams: list[int], cells: int) -> None:
    stream = streams[0]
    driver.cuStreamBeginCapture_v2(stream, GLOBAL)
    driver.cuMemsetD8Async(cells, 3, 4, stream)
    inner = end(driver, stream)
    exec_ = instantiate(driver, inner)
    driver.cuStreamBeginCapture_v2(stream, GLOBAL)
    driver.cuGraphLaunch(exec_, stream)
    outer = end(driver, stream)
    assert types(driver, outer) == [GRAPH]
    driver.cuGraphExecDestroy(exec_)
    exec_ = instantiate(driver, outer)
    run(driver, exec_, stream)
    assert driver.download(cells, 4) == b"\3" * 4
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(inner)
    driver.cuGraphDestroy(outer)


def test_allocations_are_captured(driver: Driver, streams: list[int], cells: int) -> None:
    stream = streams[0]
    driver.cuDeviceGraphMemTrim(0)
    free = driver.memory_info()[0]
    driver.cuStreamBeginCapture_v2(stream, GLOBAL)
    memory = driver.new("cuMemAllocAsync", 1 << 20, stream)
    driver.cuMemsetD8Async(memory, 6, 1 << 20, stream)
    driver.cuMemcpyDtoDAsync_v2(cells, memory + (1 << 20) - 4, 4, stream)
    driver.cuMemFreeAsync(memory, stream)
    graph = end(driver, stream)
    assert types(driver, graph) == [10, MEMSET, MEMCPY, 11]
    exec_ = instantiate(driver, graph)
    for _ in range(2):
        run(driver, exec_, stream)
    assert driver.download(cells, 4) == b"\6" * 4
    driver.cuGraphExecDestroy(exec_)
    driver.cuGraphDestroy(graph)
    driver.cuDeviceGraphMemTrim(0)
    assert driver.memory_info()[0] == free


def test_external_events_are_nodes(
    driver: Driver, streams: list[int], cells: int, event: int
) -> None:
    stream = streams[0]
    driver.cuStreamBeginCapture_v2(stream, GLOBAL)
    driver.cuStreamWaitEvent(stream, event, 1)
    driver.cuEventRecordWithFlags(event, stream, 1)
    graph = end(driver, stream)
    assert types(driver, graph) == [WAIT, RECORD]
    driver.cuGraphDestroy(graph)


# ---- what goes wrong ----


def test_states(driver: Driver, streams: list[int]) -> None:
    stream = streams[0]
    assert driver.code("cuStreamEndCapture", stream, byref(c_uint64())) == ILLEGAL_STATE
    for legacy in (None, 1):
        assert driver.code("cuStreamBeginCapture_v2", legacy, GLOBAL) == UNSUPPORTED
    assert driver.code("cuStreamBeginCapture_v2", stream, 3) == INVALID_VALUE
    driver.cuStreamBeginCapture_v2(stream, GLOBAL)
    assert driver.code("cuStreamBeginCapture_v2", stream, GLOBAL) == ILLEGAL_STATE
    driver.cuGraphDestroy(end(driver, stream))


Calls = dict[str, Callable[[Driver, int, int], int]]
FORBIDDEN: Calls = {
    "synchronise": lambda d, s, _: d.code("cuStreamSynchronize", s),
    "query": lambda d, s, _: d.code("cuStreamQuery", s),
    "context": lambda d, s, _: d.code("cuCtxSynchronize"),
    "alloc": lambda d, s, _: d.code("cuMemAlloc_v2", byref(c_uint64()), 4),
    "managed": lambda d, s, _: d.code("cuMemAllocManaged", byref(c_uint64()), 4, 1),
    "free": lambda d, s, cells: d.code("cuMemFree_v2", cells),
    "callback": lambda d, s, _: d.code("cuStreamAddCallback", s, CALLBACK(lambda *_: None), 0, 0),
    "event": lambda d, s, _: d.code("cuEventQuery", EVENTS[0]),
}
EVENTS: list[int] = [0]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_what_is_forbidden_invalidates(
    driver: Driver, streams: list[int], cells: int, event: int, what: str
) -> None:
    EVENTS[0] = event
    stream = streams[0]
    driver.cuStreamBeginCapture_v2(stream, GLOBAL)
    driver.cuMemsetD8Async(cells, 1, 4, stream)
    assert FORBIDDEN[what](driver, stream, cells) == UNSUPPORTED
    assert status(driver, stream) == INVALID
    assert driver.code("cuMemsetD8Async", cells, 1, 4, stream) == INVALIDATED
    graph = c_uint64(1)
    assert driver.code("cuStreamEndCapture", stream, byref(graph)) == INVALIDATED
    assert graph.value == 0
    assert status(driver, stream) == NONE
    driver.cuStreamSynchronize(stream)


def test_relaxed_captures_forbid_little(driver: Driver, streams: list[int], cells: int) -> None:
    stream = streams[0]
    driver.cuStreamBeginCapture_v2(stream, RELAXED)
    driver.cuMemFree_v2(driver.new("cuMemAlloc_v2", 4))
    driver.cuGraphDestroy(end(driver, stream))
    # So does a thread that takes the risk.
    mode = c_int(RELAXED)
    driver.cuThreadExchangeStreamCaptureMode(byref(mode))
    driver.cuStreamBeginCapture_v2(stream, GLOBAL)
    driver.cuMemFree_v2(driver.new("cuMemAlloc_v2", 4))
    driver.cuThreadExchangeStreamCaptureMode(byref(mode))
    driver.cuGraphDestroy(end(driver, stream))


@pytest.mark.parametrize(("mode", "code"), [(GLOBAL, UNSUPPORTED), (THREAD_LOCAL, SUCCESS)])
def test_other_threads(
    driver: Driver, context: int, streams: list[int], mode: int, code: int
) -> None:
    stream = streams[0]
    codes: list[int] = []

    def other() -> None:
        driver.cuCtxSetCurrent(context)
        codes.append(driver.code("cuStreamEndCapture", stream, byref(c_uint64())))
        codes.append(driver.code("cuMemAlloc_v2", byref(memory), 4))

    memory = c_uint64()
    driver.cuStreamBeginCapture_v2(stream, mode)
    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    assert codes == [WRONG_THREAD, code]
    graph = c_uint64()
    ended = driver.code("cuStreamEndCapture", stream, byref(graph))
    assert ended == (INVALIDATED if code else SUCCESS)
    if not code:
        driver.cuGraphDestroy(graph.value)
        driver.cuMemFree_v2(memory.value)


def test_the_null_stream_and_blocking_streams(driver: Driver, context: int, cells: int) -> None:
    blocking = driver.new("cuStreamCreate", 0)
    driver.cuStreamBeginCapture_v2(blocking, RELAXED)
    assert driver.code("cuStreamIsCapturing", None, byref(c_int())) == IMPLICIT
    assert status(driver, blocking) == ACTIVE  # asking does no harm
    assert driver.code("cuMemsetD8Async", cells, 1, 4, None) == IMPLICIT
    assert driver.code("cuStreamEndCapture", blocking, byref(c_uint64())) == INVALIDATED
    driver.cuStreamBeginCapture_v2(blocking, RELAXED)
    assert driver.code("cuMemcpyDtoH_v2", addressof((c_char * 4)()), cells, 4) == IMPLICIT
    assert driver.code("cuStreamEndCapture", blocking, byref(c_uint64())) == INVALIDATED
    driver.cuStreamDestroy_v2(blocking)


def test_work_that_is_not_joined(
    driver: Driver, streams: list[int], cells: int, event: int
) -> None:
    one, two, _ = streams
    driver.cuStreamBeginCapture_v2(one, GLOBAL)
    driver.cuEventRecord(event, one)
    driver.cuStreamWaitEvent(two, event, 0)
    driver.cuMemsetD8Async(cells, 1, 4, two)
    assert driver.code("cuStreamEndCapture", one, byref(c_uint64())) == UNJOINED
    assert [status(driver, stream) for stream in (one, two)] == [NONE, NONE]


def test_the_end_belongs_to_the_origin(driver: Driver, streams: list[int], event: int) -> None:
    one, two, _ = streams
    driver.cuStreamBeginCapture_v2(one, GLOBAL)
    driver.cuEventRecord(event, one)
    driver.cuStreamWaitEvent(two, event, 0)
    assert driver.code("cuStreamEndCapture", two, byref(c_uint64())) == UNMATCHED
    assert driver.code("cuStreamEndCapture", one, byref(c_uint64())) == INVALIDATED


def test_captures_do_not_mix(driver: Driver, streams: list[int], cells: int, event: int) -> None:
    one, two, three = streams
    # An event of outside.
    driver.cuEventRecord(event, three)
    driver.cuStreamBeginCapture_v2(one, RELAXED)
    assert driver.code("cuStreamWaitEvent", one, event, 0) == ISOLATION
    assert driver.code("cuStreamEndCapture", one, byref(c_uint64())) == INVALIDATED
    # Two captures.
    for stream in (one, two):
        driver.cuStreamBeginCapture_v2(stream, RELAXED)
    driver.cuEventRecord(event, one)
    assert driver.code("cuStreamWaitEvent", two, event, 0) == MERGE
    for stream in (one, two):
        assert driver.code("cuStreamEndCapture", stream, byref(c_uint64())) == INVALIDATED


@pytest.mark.parametrize("call", ["cuEventQuery", "cuEventSynchronize"])
def test_captured_events(driver: Driver, streams: list[int], event: int, call: str) -> None:
    stream = streams[0]
    driver.cuStreamBeginCapture_v2(stream, RELAXED)
    driver.cuEventRecord(event, stream)
    assert driver.code(call, event) == CAPTURED_EVENT
    assert driver.code("cuStreamEndCapture", stream, byref(c_uint64())) == INVALIDATED
    driver.check(call, event)  # the capture is over


def test_destroying_the_origin_ends_the_capture(
    driver: Driver, streams: list[int], cells: int, event: int
) -> None:
    origin = driver.new("cuStreamCreate", 1)
    driver.cuStreamBeginCapture_v2(origin, GLOBAL)
    driver.cuEventRecord(event, origin)
    driver.cuStreamWaitEvent(streams[0], event, 0)
    driver.cuStreamDestroy_v2(origin)
    assert status(driver, streams[0]) == NONE
    driver.cuMemFree_v2(driver.new("cuMemAlloc_v2", 4))  # nothing forbids it any more


def test_a_stream_that_was_joined_may_go(
    driver: Driver, streams: list[int], cells: int, event: int
) -> None:
    one, helper = streams[0], driver.new("cuStreamCreate", 1)
    back = driver.new("cuEventCreate", 2)
    driver.cuStreamBeginCapture_v2(one, GLOBAL)
    driver.cuEventRecord(event, one)
    driver.cuStreamWaitEvent(helper, event, 0)
    driver.cuMemsetD8Async(cells, 1, 4, helper)
    driver.cuEventRecord(back, helper)
    driver.cuStreamWaitEvent(one, back, 0)
    driver.cuStreamDestroy_v2(helper)
    driver.cuMemsetD8Async(cells, 2, 4, one)
    graph = end(driver, one)
    assert types(driver, graph) == [MEMSET, MEMSET]
    driver.cuGraphDestroy(graph)
    driver.cuEventDestroy_v2(back)
