# SPDX-License-Identifier: GPL-2.0-only
"""Events: recording, times, and the errors of those without."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from ctypes import byref, c_float, c_void_p

import pytest
from cuda_driver import INVALID_HANDLE, INVALID_VALUE, NOT_READY, SUCCESS, Driver, SimTable

BLOCKING_SYNC, DISABLE_TIMING, INTERPROCESS = 1, 2, 4
ELAPSED = ("cuEventElapsedTime", "cuEventElapsedTime_v2")


@pytest.fixture
def events(driver: Driver, context: int) -> Iterator[list[int]]:
    """Two events with times."""
    made = [driver.new("cuEventCreate", 0) for _ in range(2)]
    yield made
    for event in made:
        driver.code("cuEventDestroy_v2", event)


def test_an_event_that_was_never_recorded_is_done(driver: Driver, events: list[int]) -> None:
    driver.cuEventQuery(events[0])
    driver.cuEventSynchronize(events[0])
    driver.cuStreamWaitEvent(None, events[0], 0)


def test_elapsed_time(driver: Driver, events: list[int]) -> None:
    driver.cuEventRecord(events[0], None)
    driver.cuEventSynchronize(events[0])
    time.sleep(0.02)
    driver.cuEventRecord(events[1], None)
    driver.cuEventSynchronize(events[1])
    for call in ELAPSED:
        forth = driver.get(c_float, call, events[0], events[1])
        back = driver.get(c_float, call, events[1], events[0])
        assert 15 < forth < 5000  # milliseconds
        assert back == pytest.approx(-forth)
        assert driver.get(c_float, call, events[0], events[0]) == 0


def test_elapsed_time_needs_two_records(driver: Driver, events: list[int]) -> None:
    driver.cuEventRecord(events[0], None)
    driver.cuEventSynchronize(events[0])
    for call in ELAPSED:
        assert driver.code(call, byref(c_float()), *events) == INVALID_HANDLE
        assert driver.code(call, byref(c_float()), *reversed(events)) == INVALID_HANDLE
        assert driver.code(call, None, events[0], events[0]) == INVALID_VALUE


def test_elapsed_time_needs_times(driver: Driver, events: list[int]) -> None:
    bare = driver.new("cuEventCreate", DISABLE_TIMING)
    for event in (events[0], bare):
        driver.cuEventRecord(event, None)
        driver.cuEventSynchronize(event)
    for call in ELAPSED:
        assert driver.code(call, byref(c_float()), events[0], bare) == INVALID_HANDLE
    driver.cuEventDestroy_v2(bare)


def test_flags(driver: Driver, context: int) -> None:
    for flags in (0, BLOCKING_SYNC, DISABLE_TIMING, BLOCKING_SYNC | DISABLE_TIMING):
        driver.cuEventDestroy_v2(driver.new("cuEventCreate", flags))
    assert driver.code("cuEventCreate", byref(c_void_p()), 8) == INVALID_VALUE
    assert driver.code("cuEventCreate", byref(c_void_p()), INTERPROCESS) == INVALID_VALUE
    assert driver.code("cuEventCreate", None, 0) == INVALID_VALUE


def test_every_way_to_record(driver: Driver, events: list[int]) -> None:
    stream = driver.new("cuStreamCreate", 0)
    for call in ("cuEventRecord", "cuEventRecord_ptsz"):
        driver.check(call, events[0], stream)
        driver.check(call, events[0], None)
    for call in ("cuEventRecordWithFlags", "cuEventRecordWithFlags_ptsz"):
        driver.check(call, events[0], stream, 0)
        assert driver.code(call, events[0], stream, 8) == INVALID_VALUE
    driver.cuEventSynchronize(events[0])
    driver.cuStreamDestroy_v2(stream)


def test_event_and_stream_of_two_contexts(driver: Driver, events: list[int]) -> None:
    other = driver.new("cuCtxCreate_v2", 0, 0)
    stream = driver.new("cuStreamCreate", 0)
    assert driver.code("cuEventRecord", events[0], stream) == INVALID_HANDLE
    # Waiting for an event of another context is fine.
    driver.cuStreamWaitEvent(stream, events[0], 0)
    driver.cuCtxDestroy_v2(other)


def test_whole_context(driver: Driver, context: int, events: list[int]) -> None:
    driver.cuCtxRecordEvent(context, events[0])
    driver.cuCtxWaitEvent(context, events[0])
    driver.cuEventSynchronize(events[0])


def test_handles_that_are_none(driver: Driver, context: int, sim_table: SimTable) -> None:
    event = driver.new("cuEventCreate", 0)
    driver.cuEventDestroy_v2(event)
    for bad in (event, 0x1234, context, None):
        for call in ("cuEventDestroy_v2", "cuEventQuery", "cuEventSynchronize"):
            assert driver.code(call, bad) == INVALID_HANDLE, call
        assert driver.code("cuEventRecord", bad, None) == INVALID_HANDLE


def test_a_held_stream_holds_its_events(
    driver: Driver, events: list[int], sim_table: SimTable
) -> None:
    stream = driver.new("cuStreamCreate", 1)
    driver.cuEventRecord(events[0], stream)
    assert sim_table.hold_stream(stream, 1) == SUCCESS
    assert driver.code("cuEventQuery", events[0]) == SUCCESS  # recorded before
    driver.cuEventRecord(events[1], stream)
    assert driver.code("cuEventQuery", events[1]) == NOT_READY
    for call in ELAPSED:
        assert driver.code(call, byref(c_float()), *events) == NOT_READY
    time.sleep(0.02)
    assert sim_table.hold_stream(stream, 0) == SUCCESS
    driver.cuEventSynchronize(events[1])
    # The event was reached when the stream went on.
    assert driver.get(c_float, ELAPSED[0], *events) > 15
    driver.cuStreamDestroy_v2(stream)


def test_whole_context_waits_for_every_stream(
    driver: Driver, context: int, events: list[int], sim_table: SimTable
) -> None:
    stream = driver.new("cuStreamCreate", 1)
    cell = driver.new("cuMemAlloc_v2", 4)
    assert sim_table.hold_stream(stream, 1) == SUCCESS
    driver.cuMemsetD8Async(cell, 1, 4, stream)
    driver.cuCtxRecordEvent(context, events[0])
    assert driver.code("cuEventQuery", events[0]) == NOT_READY
    assert sim_table.hold_stream(stream, 0) == SUCCESS
    driver.cuEventSynchronize(events[0])
    assert driver.code("cuEventQuery", events[0]) == SUCCESS
    driver.cuMemFree_v2(cell)
    driver.cuStreamDestroy_v2(stream)


def test_synchronising_survives_the_destruction(
    driver: Driver, context: int, events: list[int], sim_table: SimTable
) -> None:
    stream = driver.new("cuStreamCreate", 1)
    assert sim_table.hold_stream(stream, 1) == SUCCESS
    driver.cuEventRecord(events[0], stream)
    codes: list[int] = []
    thread = threading.Thread(
        target=lambda: codes.append(driver.code("cuEventSynchronize", events[0]))
    )
    thread.start()
    time.sleep(0.1)
    assert codes == []
    driver.cuStreamDestroy_v2(stream)
    thread.join(30)
    assert codes == [SUCCESS]
