# SPDX-License-Identifier: GPL-2.0-only
"""Streams: creation, identity, order, host functions, and what capture queries answer."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from ctypes import CFUNCTYPE, Structure, byref, c_char, c_int, c_uint, c_uint64, c_void_p

import pytest
from cuda_driver import (
    INVALID_HANDLE,
    INVALID_VALUE,
    LAUNCH_TIMEOUT,
    NOT_PERMITTED,
    NOT_READY,
    STREAM_LEGACY,
    STREAM_PER_THREAD,
    SUCCESS,
    Driver,
    SimTable,
)

HOST_FUNCTION = CFUNCTYPE(None, c_void_p)
CALLBACK = CFUNCTYPE(None, c_void_p, c_int, c_void_p)


class AttributeValue(Structure):
    """CUlaunchAttributeValue, seen as a number."""

    _fields_ = [("number", c_int), ("rest", c_char * 60)]


@pytest.fixture
def stream(driver: Driver, context: int) -> Iterator[int]:
    """A blocking stream."""
    handle = driver.new("cuStreamCreate", 0)
    yield handle
    driver.code("cuStreamDestroy_v2", handle)


@pytest.fixture
def free_stream(driver: Driver, context: int) -> Iterator[int]:
    """A non-blocking stream."""
    handle = driver.new("cuStreamCreate", 1)
    yield handle
    driver.code("cuStreamDestroy_v2", handle)


def ask(driver: Driver, call: str, stream: int | None, kind: type = c_uint64) -> int:
    """What `call(stream, &output)` answers."""
    value = kind()
    driver.check(call, stream, byref(value))
    return int(value.value)


def test_a_stream_says_what_it_is(
    driver: Driver, context: int, stream: int, free_stream: int
) -> None:
    assert ask(driver, "cuStreamGetFlags", stream, c_uint) == 0
    assert ask(driver, "cuStreamGetFlags", free_stream, c_uint) == 1
    assert ask(driver, "cuStreamGetFlags", None, c_uint) == 0
    for one in (stream, free_stream, None):
        assert ask(driver, "cuStreamGetPriority", one, c_int) == 0
        assert ask(driver, "cuStreamGetCtx", one) == context
        assert ask(driver, "cuStreamGetDevice", one, c_int) == 0


def test_ids_differ(driver: Driver, stream: int, free_stream: int) -> None:
    handles = (stream, free_stream, STREAM_LEGACY, STREAM_PER_THREAD)
    assert len({ask(driver, "cuStreamGetId", handle) for handle in handles}) == 4
    legacy = ask(driver, "cuStreamGetId", STREAM_LEGACY)
    assert ask(driver, "cuStreamGetId", None) == legacy
    assert ask(driver, "cuStreamGetId_ptsz", None) != legacy


def test_threads_have_streams_of_their_own(driver: Driver, context: int) -> None:
    def own() -> int:
        driver.cuCtxSetCurrent(context)
        driver.cuStreamSynchronize_ptsz(None)
        return ask(driver, "cuStreamGetId", STREAM_PER_THREAD)

    box: list[int] = []
    thread = threading.Thread(target=lambda: box.append(own()))
    thread.start()
    thread.join(30)
    assert box != [own()]


def test_priorities_are_clamped(driver: Driver, context: int) -> None:
    least, greatest = c_int(), c_int()
    driver.cuCtxGetStreamPriorityRange(byref(least), byref(greatest))
    for asked, given in ((-1000, greatest.value), (1000, least.value), (0, 0)):
        handle = driver.new("cuStreamCreateWithPriority", 1, asked)
        assert ask(driver, "cuStreamGetPriority", handle, c_int) == given
        driver.cuStreamDestroy_v2(handle)


def test_bad_arguments(driver: Driver, context: int) -> None:
    assert driver.code("cuStreamCreate", byref(c_void_p()), 2) == INVALID_VALUE
    assert driver.code("cuStreamCreate", None, 0) == INVALID_VALUE


def test_handles_that_are_none(driver: Driver, context: int, sim_table: SimTable) -> None:
    # A real driver may crash on these; the simulated one names them.
    for bad in (0x1234, context, 2**63):
        assert driver.code("cuStreamSynchronize", bad) == INVALID_HANDLE
        assert driver.code("cuStreamDestroy_v2", bad) == INVALID_HANDLE
    assert driver.code("cuStreamDestroy_v2", None) == INVALID_HANDLE
    assert driver.code("cuStreamDestroy_v2", STREAM_LEGACY) == INVALID_HANDLE
    handle = driver.new("cuStreamCreate", 0)
    driver.cuStreamDestroy_v2(handle)
    assert driver.code("cuStreamDestroy_v2", handle) == INVALID_HANDLE


def test_idle_streams_are_ready(driver: Driver, stream: int) -> None:
    driver.cuStreamSynchronize(stream)
    assert driver.code("cuStreamQuery", stream) == SUCCESS
    driver.cuStreamSynchronize(None)
    assert driver.code("cuStreamQuery", None) == SUCCESS
    assert driver.code("cuStreamQuery_ptsz", None) == SUCCESS


def test_nothing_is_captured(driver: Driver, stream: int) -> None:
    status = c_int(7)
    driver.cuStreamIsCapturing(stream, byref(status))
    assert status.value == 0
    for call, extra in (
        ("cuStreamGetCaptureInfo", 1),
        ("cuStreamGetCaptureInfo_v2", 4),
        ("cuStreamGetCaptureInfo_v3", 5),
    ):
        status.value = 7
        driver.check(call, stream, byref(status), *[None] * extra)
        assert status.value == 0


def test_capture_mode_is_the_threads(driver: Driver, context: int) -> None:
    mode = c_int(2)
    driver.cuThreadExchangeStreamCaptureMode(byref(mode))
    assert mode.value == 0
    box: list[int] = []

    def other() -> None:
        theirs = c_int(1)
        driver.cuThreadExchangeStreamCaptureMode(byref(theirs))
        box.append(theirs.value)

    thread = threading.Thread(target=other)
    thread.start()
    thread.join(30)
    assert box == [0]
    mode.value = 0
    driver.cuThreadExchangeStreamCaptureMode(byref(mode))
    assert mode.value == 2
    mode.value = 9
    assert driver.code("cuThreadExchangeStreamCaptureMode", byref(mode)) == INVALID_VALUE


def test_attributes(driver: Driver, stream: int, free_stream: int) -> None:
    policy = 3
    value = AttributeValue(number=4)
    driver.cuStreamSetAttribute(stream, policy, byref(value))
    driver.cuStreamCopyAttributes(free_stream, stream)
    value.number = 0
    driver.cuStreamGetAttribute(free_stream, policy, byref(value))
    assert value.number == 4
    assert driver.code("cuStreamSetAttribute", stream, 12345, byref(value)) == INVALID_VALUE


def test_host_functions_run_in_order(driver: Driver, stream: int) -> None:
    seen: list[int] = []
    functions = [HOST_FUNCTION(lambda _, i=i: seen.append(i)) for i in range(20)]
    for function in functions:
        driver.cuLaunchHostFunc(stream, function, None)
    driver.cuStreamSynchronize(stream)
    assert seen == list(range(20))


def test_callbacks_are_told_the_stream_and_the_data(driver: Driver, stream: int) -> None:
    seen: list[tuple[int, int, int]] = []
    function = CALLBACK(lambda *arguments: seen.append(arguments))
    driver.cuStreamAddCallback(stream, function, 0xABC, 0)
    driver.cuStreamSynchronize(stream)
    assert seen == [(stream, SUCCESS, 0xABC)]
    assert driver.code("cuStreamAddCallback", stream, function, None, 1) == INVALID_VALUE
    assert driver.code("cuLaunchHostFunc", stream, None, None) == INVALID_VALUE


def test_a_host_function_sees_earlier_work(driver: Driver, stream: int) -> None:
    host = c_uint64()
    driver.cuMemAllocHost_v2(byref(host), 4)
    pointer = driver.new("cuMemAlloc_v2", 4)
    seen: list[bytes] = []
    function = HOST_FUNCTION(
        lambda _: seen.append(bytes((c_char * 4).from_address(host.value)))
    )
    driver.cuMemsetD8Async(pointer, 0x5A, 4, stream)
    driver.cuMemcpyDtoHAsync_v2(host.value, pointer, 4, stream)
    driver.cuLaunchHostFunc(stream, function, None)
    driver.cuStreamSynchronize(stream)
    assert seen == [b"ZZZZ"]
    driver.cuMemFree_v2(pointer)
    driver.cuMemFreeHost(host.value)


def test_a_host_function_must_not_call_cuda(
    driver: Driver, stream: int, sim_table: SimTable
) -> None:
    codes: list[int] = []
    function = HOST_FUNCTION(lambda _: codes.append(driver.code("cuCtxSynchronize")))
    driver.cuLaunchHostFunc(stream, function, None)
    driver.cuStreamSynchronize(stream)
    assert codes == [NOT_PERMITTED]
    driver.cuCtxSynchronize()


# ---- order between streams, seen by holding one ----


class Held:
    """A stream that is held inside a with block."""

    def __init__(self, table: SimTable, stream: int | None) -> None:
        self.table, self.stream = table, stream

    def __enter__(self) -> Held:
        assert self.table.hold_stream(self.stream, 1) == SUCCESS
        return self

    def __exit__(self, *_: object) -> None:
        assert self.table.hold_stream(self.stream, 0) == SUCCESS


def busy(driver: Driver, stream: int | None) -> bool:
    return driver.code("cuStreamQuery", stream) == NOT_READY


@pytest.fixture
def cell(driver: Driver, context: int) -> Iterator[int]:
    """Four bytes of device memory to give streams something to do."""
    pointer = driver.new("cuMemAlloc_v2", 4)
    yield pointer
    driver.cuMemFree_v2(pointer)


def test_work_on_a_held_stream_is_not_finished(
    driver: Driver, stream: int, cell: int, sim_table: SimTable
) -> None:
    with Held(sim_table, stream):
        assert not busy(driver, stream)  # nothing was submitted since
        driver.cuMemsetD8Async(cell, 1, 4, stream)
        assert busy(driver, stream)
    driver.cuStreamSynchronize(stream)
    assert not busy(driver, stream)
    assert sim_table.hold_stream(0x1234, 1) == INVALID_HANDLE


def test_the_null_stream_and_blocking_streams_wait_for_each_other(
    driver: Driver, stream: int, free_stream: int, cell: int, sim_table: SimTable
) -> None:
    with Held(sim_table, stream):
        driver.cuMemsetD8Async(cell, 1, 4, stream)
        driver.cuMemsetD8Async(cell, 1, 4, free_stream)
        driver.cuStreamSynchronize(free_stream)
        driver.cuMemsetD8Async(cell, 1, 4, None)
        assert busy(driver, None)
        other = driver.new("cuStreamCreate", 0)
        driver.cuMemsetD8Async(cell, 1, 4, other)
        assert busy(driver, other)  # behind the NULL stream
    driver.cuStreamSynchronize(other)
    assert not busy(driver, other)
    driver.cuStreamDestroy_v2(other)


def test_waiting_for_an_event_carries_over(
    driver: Driver, stream: int, free_stream: int, cell: int, sim_table: SimTable
) -> None:
    event = driver.new("cuEventCreate", 2)
    third = driver.new("cuStreamCreate", 1)
    with Held(sim_table, stream):
        driver.cuMemsetD8Async(cell, 1, 4, stream)
        driver.cuEventRecord(event, stream)
        driver.cuStreamWaitEvent(free_stream, event, 0)
        assert busy(driver, free_stream)
        driver.cuEventRecord(event, free_stream)
        driver.cuStreamWaitEvent(third, event, 0)
        assert busy(driver, third)
        # Destroying the one in the middle does not end what is queued in it.
        driver.cuStreamDestroy_v2(free_stream)
        assert busy(driver, third)
        assert busy(driver, stream)
    driver.cuStreamSynchronize(third)
    assert driver.code("cuEventQuery", event) == SUCCESS
    driver.cuStreamDestroy_v2(third)
    driver.cuEventDestroy_v2(event)


@pytest.mark.parametrize("whole_context", [False, True])
def test_synchronising_waits_for_the_release(
    driver: Driver,
    context: int,
    stream: int,
    cell: int,
    sim_table: SimTable,
    whole_context: bool,
) -> None:
    done = threading.Event()

    def wait() -> None:
        driver.cuCtxSetCurrent(context)
        if whole_context:
            driver.cuCtxSynchronize()
        else:
            driver.cuStreamSynchronize(stream)
        done.set()

    thread = threading.Thread(target=wait)
    with Held(sim_table, stream):
        driver.cuMemsetD8Async(cell, 1, 4, stream)
        thread.start()
        assert not done.wait(0.2)
    assert done.wait(30)
    thread.join(30)


def test_host_functions_wait_for_the_release(
    driver: Driver, stream: int, free_stream: int, sim_table: SimTable
) -> None:
    seen: list[str] = []
    functions = [HOST_FUNCTION(lambda _, name=name: seen.append(name)) for name in "abc"]
    event = driver.new("cuEventCreate", 2)
    with Held(sim_table, stream):
        driver.cuLaunchHostFunc(stream, functions[0], None)
        driver.cuEventRecord(event, stream)
        driver.cuStreamWaitEvent(free_stream, event, 0)
        driver.cuLaunchHostFunc(free_stream, functions[1], None)
        driver.cuLaunchHostFunc(stream, functions[2], None)
        assert seen == []
    driver.cuStreamSynchronize(free_stream)
    driver.cuStreamSynchronize(stream)
    assert sorted(seen) == ["a", "b", "c"]
    assert seen.index("a") < seen.index("b")
    assert seen.index("a") < seen.index("c")
    driver.cuEventDestroy_v2(event)


def test_a_wait_has_a_limit(script: object, sim_table: SimTable) -> None:
    start = time.monotonic()
    out = script(  # type: ignore[operator]
        """
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        stream = driver.new("cuStreamCreate", 0)
        driver.sim().hold_stream(stream, 1)
        driver.cuMemsetD8Async(driver.new("cuMemAlloc_v2", 4), 1, 4, stream)
        print(driver.code("cuStreamSynchronize", stream), driver.code("cuCtxSynchronize"))
        """,
        EMUV_SIM_WAIT_MS="100",
    )
    assert out.split() == [str(LAUNCH_TIMEOUT)] * 2
    assert time.monotonic() - start < 20
