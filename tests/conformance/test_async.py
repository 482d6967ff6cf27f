# SPDX-License-Identifier: GPL-2.0-only
"""Asynchrony: what happens later, what is waited for, and what an error leaves.

Order is seen by holding streams (the simulated GPU's own table), by memory that streams
wait for, and by host functions; nothing here sleeps.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import CFUNCTYPE, addressof, byref, c_char, c_uint, c_uint64, c_void_p

import pytest
from conftest import Script
from cuda_driver import (
    ILLEGAL_ADDRESS,
    INVALID_VALUE,
    NOT_READY,
    NOT_SUPPORTED,
    SUCCESS,
    Driver,
    PoolProps,
    SimTable,
)
from memory_types import DEVICE_0, PINNED, pinned_prop

KIB, MIB = 1 << 10, 1 << 20
GEQ, EQ, AND, NOR = range(4)
HOST_FUNCTION = CFUNCTYPE(None, c_void_p)


@pytest.fixture
def pinned(driver: Driver, context: int) -> Iterator[ctypes.Array[c_char]]:
    """128 KiB of pinned memory, all zero."""
    pointer = driver.new("cuMemHostAlloc", 128 * KIB, 0)
    ctypes.memset(pointer, 0, 128 * KIB)
    yield (c_char * (128 * KIB)).from_address(pointer)
    driver.cuMemFreeHost(pointer)


@contextmanager
def held(table: SimTable, stream: int | None) -> Iterator[None]:
    """The stream does nothing that is submitted inside of the with block."""
    assert table.hold_stream(stream, 1) == SUCCESS
    try:
        yield
    finally:
        assert table.hold_stream(stream, 0) == SUCCESS


def waits(
    driver: Driver, context: int, table: SimTable, stream: int | None, call: Callable[[], object]
) -> None:
    """`call`, in another thread, returns when the held stream is released, and not before."""
    entered, done = threading.Event(), threading.Event()

    def run() -> None:
        driver.cuCtxSetCurrent(context)
        entered.set()
        call()
        done.set()

    thread = threading.Thread(target=run)
    with held(table, stream):
        driver.cuMemsetD8Async(WORK[0], 1, 4, stream)
        thread.start()
        assert entered.wait(30)
        assert not done.wait(0.1)
    assert done.wait(30)
    thread.join(30)


WORK: list[int] = [0]


@pytest.fixture(autouse=True)
def work(driver: Driver, context: int) -> Iterator[None]:
    """Memory that `waits` gives streams to do something with."""
    WORK[0] = driver.new("cuMemAlloc_v2", 4)
    yield
    driver.cuMemFree_v2(WORK[0])


# ---- copies ----


def test_pinned_memory_is_written_later(
    driver: Driver, stream: int, cells: int, pinned: ctypes.Array[c_char], sim_table: SimTable
) -> None:
    with held(sim_table, stream):
        driver.cuMemsetD8Async(cells, 7, 64, stream)
        driver.cuMemcpyDtoHAsync_v2(addressof(pinned), cells, 64, stream)
        assert pinned[:64] == bytes(64)
        assert driver.code("cuStreamQuery", stream) == NOT_READY
    driver.cuStreamSynchronize(stream)
    assert pinned[:64] == b"\7" * 64


def test_pinned_memory_is_read_later(
    driver: Driver, stream: int, cells: int, pinned: ctypes.Array[c_char], sim_table: SimTable
) -> None:
    pinned[:64] = b"a" * 64
    with held(sim_table, stream):
        driver.cuMemcpyHtoDAsync_v2(cells, addressof(pinned), 64, stream)
        pinned[:64] = b"b" * 64
    driver.cuStreamSynchronize(stream)
    assert driver.download(cells, 64) == b"b" * 64


def test_pageable_memory_is_read_at_once(
    driver: Driver, stream: int, cells: int, sim_table: SimTable
) -> None:
    source = (c_char * 64)(*b"a" * 64)
    with held(sim_table, stream):
        driver.cuMemcpyHtoDAsync_v2(cells, addressof(source), 64, stream)
        source[:64] = b"b" * 64
        assert driver.download(cells, 64) == bytes(64)
    driver.cuStreamSynchronize(stream)
    assert driver.download(cells, 64) == b"a" * 64


def test_much_pageable_memory_waits_for_the_stream(
    driver: Driver, context: int, stream: int, sim_table: SimTable
) -> None:
    size = MIB
    target = driver.new("cuMemAlloc_v2", size)
    source = (c_char * size)()
    source[:] = b"x" * size

    def copy() -> None:
        driver.cuMemcpyHtoDAsync_v2(target, addressof(source), size, stream)
        source[:] = b"y" * size

    waits(driver, context, sim_table, stream, copy)
    assert driver.download(target, size) == b"x" * size
    driver.cuMemFree_v2(target)


def test_to_pageable_memory_returns_when_it_is_there(
    driver: Driver, context: int, stream: int, cells: int, sim_table: SimTable
) -> None:
    target = (c_char * 64)()
    seen: list[bytes] = []

    def copy() -> None:
        driver.cuMemsetD8Async(cells, 9, 64, stream)
        driver.cuMemcpyDtoHAsync_v2(addressof(target), cells, 64, stream)
        seen.append(target.raw)

    waits(driver, context, sim_table, stream, copy)
    assert seen == [b"\t" * 64]


def test_between_device_memory_nobody_waits(
    driver: Driver, context: int, cells: int, sim_table: SimTable
) -> None:
    blocking = driver.new("cuStreamCreate", 0)
    with held(sim_table, blocking):
        driver.cuMemsetD8Async(WORK[0], 1, 4, blocking)
        driver.cuMemsetD8_v2(cells, 5, 32)  # on the NULL stream, behind the blocking one
        driver.cuMemcpyDtoD_v2(cells + 32, cells, 32)
        assert driver.code("cuStreamQuery", None) == NOT_READY
    assert driver.download(cells, 64) == b"\5" * 64
    driver.cuStreamDestroy_v2(blocking)


def test_setting_pinned_memory_is_waited_for(
    driver: Driver, context: int, pinned: ctypes.Array[c_char], sim_table: SimTable
) -> None:
    blocking = driver.new("cuStreamCreate", 0)
    seen: list[bytes] = []

    def fill() -> None:
        driver.cuMemsetD8_v2(addressof(pinned), 3, 8)
        seen.append(pinned[:8])

    waits(driver, context, sim_table, blocking, fill)
    assert seen == [b"\3" * 8]
    driver.cuStreamDestroy_v2(blocking)


# ---- frees ----


@pytest.mark.parametrize("what", ["free", "free-host", "unregister", "unmap", "unload"])
def test_frees_wait_for_the_context(
    driver: Driver, context: int, stream: int, sim_table: SimTable, what: str
) -> None:
    if what == "free":
        memory = driver.new("cuMemAlloc_v2", 512)
        waits(driver, context, sim_table, stream, lambda: driver.cuMemFree_v2(memory))
    elif what == "free-host":
        memory = driver.new("cuMemHostAlloc", 512, 0)
        waits(driver, context, sim_table, stream, lambda: driver.cuMemFreeHost(memory))
    elif what == "unregister":
        memory = (c_char * 8192)()
        driver.cuMemHostRegister_v2(addressof(memory), 8192, 0)
        waits(driver, context, sim_table, stream,
              lambda: driver.cuMemHostUnregister(addressof(memory)))  # fmt: skip
    elif what == "unmap":
        space = driver.new("cuMemAddressReserve", 2 * MIB, 0, 0, 0)
        handle = driver.new("cuMemCreate", 2 * MIB, byref(pinned_prop()), 0)
        driver.cuMemMap(space, 2 * MIB, 0, handle, 0)
        waits(driver, context, sim_table, stream, lambda: driver.cuMemUnmap(space, 2 * MIB))
        driver.cuMemRelease(handle)
        driver.cuMemAddressFree(space, 2 * MIB)
    else:
        text = b".version 8.0\n.target sm_80\n.address_size 64\n.visible .entry f(){ret;}\n"
        module = driver.new("cuModuleLoadData", text)
        waits(driver, context, sim_table, stream, lambda: driver.cuModuleUnload(module))


def test_a_stream_ordered_free_happens_in_its_place(
    driver: Driver, stream: int, sim_table: SimTable
) -> None:
    memory = driver.new("cuMemAllocAsync", 4 * MIB, stream)
    before = c_uint64()
    assert sim_table.device_used(0, byref(before)) == SUCCESS
    used = c_uint64()
    with held(sim_table, stream):
        driver.cuMemsetD8Async(memory, 1, 4 * MIB, stream)
        driver.cuMemFreeAsync(memory, stream)
        assert sim_table.device_used(0, byref(used)) == SUCCESS
        assert used.value == before.value
        assert driver.code("cuMemFreeAsync", memory, stream) == INVALID_VALUE
    driver.cuStreamSynchronize(stream)
    assert sim_table.device_used(0, byref(used)) == SUCCESS
    assert used.value == before.value - 4 * MIB


def test_freed_memory_is_reused_in_the_same_stream(
    driver: Driver, stream: int, sim_table: SimTable
) -> None:
    props = PoolProps(type=PINNED, location=DEVICE_0, max_size=8 * MIB)
    pool = driver.new("cuMemPoolCreate", byref(props))
    memory = driver.new("cuMemAllocFromPoolAsync", 8 * MIB, pool, stream)
    with held(sim_table, stream):
        for _ in range(3):
            driver.cuMemsetD8Async(memory, 1, 8 * MIB, stream)
            driver.cuMemFreeAsync(memory, stream)
            memory = driver.new("cuMemAllocFromPoolAsync", 8 * MIB, pool, stream)
    driver.cuMemsetD8Async(memory, 2, 8 * MIB, stream)
    driver.cuStreamSynchronize(stream)
    assert driver.download(memory + 8 * MIB - 4, 4) == b"\2" * 4
    driver.cuMemFreeAsync(memory, stream)
    driver.cuMemPoolDestroy(pool)


def test_an_allocation_waits_for_another_streams_free(
    driver: Driver, context: int, stream: int, sim_table: SimTable
) -> None:
    props = PoolProps(type=PINNED, location=DEVICE_0, max_size=8 * MIB)
    pool = driver.new("cuMemPoolCreate", byref(props))
    other = driver.new("cuStreamCreate", 1)
    memory = driver.new("cuMemAllocFromPoolAsync", 8 * MIB, pool, stream)
    got: list[int] = []

    def allocate() -> None:
        driver.cuMemFreeAsync(memory, stream)
        got.append(driver.new("cuMemAllocFromPoolAsync", 8 * MIB, pool, other))

    waits(driver, context, sim_table, stream, allocate)
    driver.cuMemFreeAsync(got[0], other)
    driver.cuStreamDestroy_v2(other)
    driver.cuMemPoolDestroy(pool)


# ---- host functions ----


def test_who_waits_leaves_host_functions_to_others(driver: Driver, stream: int, cells: int) -> None:
    """The waiting thread runs the set; nobody else may be awake then to call the function."""
    called: list[int] = []
    function = HOST_FUNCTION(lambda _: called.append(1))
    for turn in range(300):
        for _ in range(8):
            driver.cuMemsetD32Async(cells, turn, 16, stream)
        driver.cuLaunchHostFunc(stream, function, None)
        driver.cuStreamSynchronize(stream)
        assert len(called) == turn + 1


def test_host_functions_run_on_another_thread(driver: Driver, stream: int) -> None:
    seen: list[int] = []
    function = HOST_FUNCTION(lambda _: seen.append(threading.get_ident()))
    driver.cuLaunchHostFunc(stream, function, None)
    driver.cuStreamSynchronize(stream)
    assert len(seen) == 1
    assert seen[0] != threading.get_ident()


def test_a_host_function_holds_its_stream_and_no_other(
    driver: Driver, stream: int, cells: int
) -> None:
    entered, go_on = threading.Event(), threading.Event()

    def wait(_: object) -> None:
        entered.set()
        go_on.wait(30)

    function = HOST_FUNCTION(wait)
    other = driver.new("cuStreamCreate", 1)
    driver.cuLaunchHostFunc(stream, function, None)
    driver.cuMemsetD8Async(cells, 1, 4, stream)
    driver.cuMemsetD8Async(cells + 4, 2, 4, other)
    assert entered.wait(30)
    driver.cuStreamSynchronize(other)
    assert driver.code("cuStreamQuery", stream) == NOT_READY
    go_on.set()
    driver.cuStreamSynchronize(stream)
    assert driver.download(cells, 8) == b"\1\1\1\1\2\2\2\2"
    driver.cuStreamDestroy_v2(other)


def test_a_destroyed_stream_finishes_its_work(
    driver: Driver, context: int, cells: int, sim_table: SimTable
) -> None:
    first, second = (driver.new("cuStreamCreate", 1) for _ in range(2))
    event = driver.new("cuEventCreate", 2)
    with held(sim_table, first):
        driver.cuEventRecord(event, first)
        driver.cuStreamWaitEvent(second, event, 0)
        driver.cuMemsetD8Async(cells, 6, 64, second)
        driver.cuStreamDestroy_v2(second)
        assert driver.download(cells, 1) == b"\0"
    driver.cuCtxSynchronize()
    assert driver.download(cells, 64) == b"\6" * 64
    driver.cuStreamDestroy_v2(first)
    driver.cuEventDestroy_v2(event)


# ---- stream memory operations ----


def test_streams_wait_for_each_others_memory(driver: Driver, stream: int, cells: int) -> None:
    other = driver.new("cuStreamCreate", 1)
    driver.cuStreamWaitValue32_v2(stream, cells, 1, GEQ)
    driver.cuStreamWriteValue32_v2(stream, cells + 4, 1, 0)
    driver.cuStreamWriteValue32_v2(other, cells, 1, 0)
    driver.cuStreamWaitValue32_v2(other, cells + 4, 1, EQ)
    driver.cuStreamSynchronize(stream)
    driver.cuStreamSynchronize(other)
    driver.cuStreamDestroy_v2(other)


def test_any_number_of_streams_may_wait(driver: Driver, stream: int, cells: int) -> None:
    streams = [driver.new("cuStreamCreate", 1) for _ in range(20)]
    for i, one in enumerate(streams):
        driver.cuStreamWaitValue64_v2(one, cells, 20 - i, EQ)
        driver.cuStreamWriteValue64_v2(one, cells, 19 - i, 0)
    driver.cuStreamWriteValue64_v2(stream, cells, 20, 0)
    for one in streams:
        driver.cuStreamSynchronize(one)
        driver.cuStreamDestroy_v2(one)
    assert driver.download(cells, 8) == bytes(8)


@pytest.mark.parametrize(
    ("how", "want", "before", "after"),
    [
        (GEQ, 5, 4, 5),
        (GEQ, 0xFFFFFFF0, 0xFFFFFF00, 3),  # on a circle
        (EQ, 5, 6, 5),
        (AND, 0b110, 0b1001, 0b0100),
        (NOR, 0xFFFFFFF0, 0xF, 0xE),
    ],
)
def test_what_a_wait_waits_for(
    driver: Driver, stream: int, pinned: ctypes.Array[c_char], how: int, want: int,
    before: int, after: int,
) -> None:  # fmt: skip
    word = c_uint.from_buffer(pinned)
    word.value = before
    driver.cuStreamWaitValue32_v2(stream, addressof(pinned), want, how)
    assert driver.code("cuStreamQuery", stream) == NOT_READY
    word.value = after
    driver.cuStreamSynchronize(stream)


def test_memory_operations_that_cannot_be(driver: Driver, stream: int, cells: int) -> None:
    managed = driver.new("cuMemAllocManaged", 64, 1)
    for bad in (managed, cells + 1, 0):
        assert driver.code("cuStreamWaitValue32_v2", stream, bad, 0, EQ) == INVALID_VALUE
        assert driver.code("cuStreamWriteValue64_v2", stream, bad, 0, 0) == INVALID_VALUE
    assert driver.code("cuStreamWriteValue64_v2", stream, cells + 4, 0, 0) == INVALID_VALUE
    assert driver.code("cuStreamWaitValue32_v2", stream, cells, 0, 4) == INVALID_VALUE
    assert driver.code("cuStreamWaitValue32_v2", stream, cells, 0, 1 << 30) == NOT_SUPPORTED
    assert driver.code("cuStreamBatchMemOp_v2", stream, 1, None, 0) == INVALID_VALUE
    driver.cuMemFree_v2(managed)


def test_a_batch_of_memory_operations(driver: Driver, stream: int, cells: int) -> None:
    def op(kind: int, address: int, value: int, flags: int = 0) -> list[int]:
        return [kind, address, value, flags, 0, 0]

    words = op(2, cells, 1) + op(5, cells + 8, 2) + op(6, 0, 0) + op(1, cells, 1, EQ)
    driver.cuStreamBatchMemOp_v2(stream, 4, (c_uint64 * 24)(*words), 0)
    driver.cuStreamSynchronize(stream)
    assert driver.download(cells, 16) == b"\1" + bytes(7) + b"\2" + bytes(7)


# ---- errors, and ends ----


def test_an_error_of_work_sticks_to_its_context(sim_table: SimTable, script: Script) -> None:
    out = script(
        """
        driver.cuInit(0)
        other = driver.new("cuCtxCreate_v2", 0, 0)
        context = driver.new("cuCtxCreate_v2", 0, 0)
        stream, idle = driver.new("cuStreamCreate", 1), driver.new("cuStreamCreate", 1)
        event = driver.new("cuEventCreate", 0)
        memory = driver.new("cuMemAllocAsync", 4096, idle)
        driver.sim().hold_stream(stream, 1)
        driver.cuMemsetD8Async(memory, 1, 4096, stream)
        seen = []
        callback = CFUNCTYPE(None, c_void_p, c_int, c_void_p)(lambda s, code, d: seen.append(code))
        function = CFUNCTYPE(None, c_void_p)(lambda d: seen.append("called"))
        driver.cuStreamAddCallback(stream, callback, None, 0)
        driver.cuLaunchHostFunc(stream, function, None)
        driver.cuEventRecord(event, stream)
        driver.cuMemFreeAsync(memory, idle)  # the other stream still uses it
        driver.sim().hold_stream(stream, 0)
        codes = {driver.code("cuStreamSynchronize", stream)}
        for call in (["cuCtxSynchronize"], ["cuMemAlloc_v2", byref(c_uint64()), 4],
                     ["cuStreamQuery", idle], ["cuEventQuery", event], ["cuMemFree_v2", memory],
                     ["cuEventSynchronize", event], ["cuStreamDestroy_v2", idle]):
            codes.add(driver.code(*call))
        driver.cuCtxDestroy_v2(context)
        driver.cuCtxSetCurrent(other)
        driver.cuMemFree_v2(driver.new("cuMemAlloc_v2", 4))
        driver.cuCtxSynchronize()
        print(codes, seen)
        """
    )
    assert out == f"{{{ILLEGAL_ADDRESS}}} [{ILLEGAL_ADDRESS}]"


def test_a_reset_heals_the_primary_context(sim_table: SimTable, script: Script) -> None:
    out = script(
        """
        driver.cuInit(0)
        context = driver.new("cuDevicePrimaryCtxRetain", 0)
        driver.cuCtxSetCurrent(context)
        stream, idle = driver.new("cuStreamCreate", 1), driver.new("cuStreamCreate", 1)
        memory = driver.new("cuMemAllocAsync", 4096, idle)
        driver.sim().hold_stream(stream, 1)
        driver.cuMemsetD8Async(memory, 1, 4096, stream)
        driver.cuMemFreeAsync(memory, idle)
        driver.sim().hold_stream(stream, 0)
        print(driver.code("cuCtxSynchronize"))
        driver.cuDevicePrimaryCtxReset_v2(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        driver.cuMemFree_v2(driver.new("cuMemAlloc_v2", 4))
        driver.cuCtxSynchronize()
        """
    )
    assert out == str(ILLEGAL_ADDRESS)


def test_a_context_ends_although_a_stream_waits(sim_table: SimTable, script: Script) -> None:
    script(
        """
        driver.cuInit(0)
        context = driver.new("cuCtxCreate_v2", 0, 0)
        stream = driver.new("cuStreamCreate", 1)
        driver.cuStreamWaitValue32_v2(stream, driver.new("cuMemAlloc_v2", 4), 12345, 1)
        driver.cuMemsetD8Async(driver.new("cuMemAlloc_v2", 4), 1, 4, stream)
        driver.cuCtxDestroy_v2(context)
        """,
        EMUV_SIM_END_MS="200",
    )


@pytest.mark.parametrize("how", ["work", "held", "waits"])
def test_a_process_ends_with_work_queued(
    sim_table: SimTable, script: Script, how: str, tmp_path: object
) -> None:
    report = f"{tmp_path}/report.json"
    out = script(
        f"""
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        stream = driver.new("cuStreamCreate", 1)
        memory = driver.new("cuMemAlloc_v2", 16 << 20)
        driver.upload(memory, bytes(4))
        function = CFUNCTYPE(None, c_void_p)(lambda d: print("called"))
        if {how!r} == "held":
            driver.sim().hold_stream(stream, 1)
        if {how!r} == "waits":
            driver.cuStreamWaitValue32_v2(stream, memory, 12345, 1)
            driver.cuLaunchHostFunc(stream, function, None)  # not called any more
        for _ in range(20):
            driver.cuMemsetD8Async(memory, 1, 16 << 20, stream)
        """,
        EMUV_SIM_REPORT=report,
        EMUV_SIM_END_MS="300",
    )
    assert out == ""
    with open(report) as file:
        assert '"cuMemsetD8Async": 20' in file.read()


def test_a_forked_child_ends(sim_table: SimTable, script: Script) -> None:
    out = script(
        """
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        stream = driver.new("cuStreamCreate", 1)
        memory = driver.new("cuMemAlloc_v2", 4)
        driver.sim().hold_stream(stream, 1)
        for _ in range(3):
            driver.cuMemsetD8Async(memory, 1, 4, stream)
            driver.cuMemsetD8Async_ptsz(memory, 1, 4, None)
        child = os.fork()
        if not child:
            sys.exit(driver.code("cuStreamSynchronize", stream))
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        driver.sim().hold_stream(stream, 0)
        driver.cuStreamSynchronize(stream)
        print(status)
        """
    )
    assert out == "3"


def test_who_submits_faster_than_the_stream_works_waits(
    driver: Driver, stream: int, cells: int
) -> None:
    for _ in range(20_000):
        driver.cuMemsetD8Async(cells, 1, 64, stream)
    driver.cuStreamSynchronize(stream)
    assert driver.download(cells, 64) == b"\1" * 64


def test_streams_of_high_priority_go_first(
    driver: Driver, context: int, sim_table: SimTable
) -> None:
    # GIVEN as many host functions that do not return as the simulator has threads
    threads, entered, gates = 8, threading.Semaphore(0), [threading.Event() for _ in range(8)]

    def wait(gate: threading.Event) -> None:
        entered.release()
        gate.wait(30)

    busy = [driver.new("cuStreamCreateWithPriority", 1, -2) for _ in range(threads)]
    waiting = [HOST_FUNCTION(lambda _, gate=gate: wait(gate)) for gate in gates]
    for stream, function in zip(busy, waiting, strict=True):
        driver.cuLaunchHostFunc(stream, function, None)
    assert all(entered.acquire(timeout=30) for _ in busy)
    # WHEN one thread becomes free, and a stream of each priority has work for it
    seen: list[int] = []
    order = [0, -5, -2]
    functions = [HOST_FUNCTION(lambda _, level=level: seen.append(level)) for level in order]
    streams = [driver.new("cuStreamCreateWithPriority", 1, level) for level in order]
    for stream, function in zip(streams, functions, strict=True):
        driver.cuLaunchHostFunc(stream, function, None)
    assert seen == []
    gates[0].set()
    for stream in streams:
        driver.cuStreamSynchronize(stream)
    assert seen == sorted(order)
    for gate in gates:
        gate.set()
    for stream in busy + streams:
        driver.cuStreamSynchronize(stream)
        driver.cuStreamDestroy_v2(stream)
