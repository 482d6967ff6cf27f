# SPDX-License-Identifier: GPL-2.0-only
"""Many threads at once: nothing is lost, nothing is left, nothing waits for ever."""

from __future__ import annotations

import threading
from collections.abc import Callable
from ctypes import CFUNCTYPE, byref, c_char, c_int, c_uint64, c_void_p
from random import Random

import pytest
from cuda_driver import SUCCESS, Driver, SimTable

THREADS = 8
HOST_FUNCTION = CFUNCTYPE(None, c_void_p)


def together(work: Callable[[int], None]) -> None:
    """`work(i)` in 8 threads, started at the same moment; raises the first error."""
    barrier = threading.Barrier(THREADS)
    errors: list[BaseException] = []

    def run(index: int) -> None:
        try:
            barrier.wait(30)
            work(index)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def test_streams_events_and_memory(driver: Driver, context: int) -> None:
    shared = driver.new("cuStreamCreate", 0)
    free, _ = driver.memory_info()

    def work(index: int) -> None:
        random = Random(index)
        driver.cuCtxSetCurrent(context)
        for _ in range(60):
            stream = driver.new("cuStreamCreate", random.randrange(2))
            event = driver.new("cuEventCreate", 0)
            size = random.randint(1, 100_000)
            pointer = driver.new("cuMemAlloc_v2", size)
            mark = random.randrange(256)
            driver.cuMemsetD8Async(pointer, mark, size, stream)
            driver.cuEventRecord(event, stream)
            driver.cuStreamWaitEvent(shared, event, 0)
            driver.cuEventSynchronize(event)
            buffer = (c_char * size)()
            driver.cuMemcpyDtoHAsync_v2(buffer, pointer, size, stream)
            driver.cuStreamSynchronize(stream)
            assert bytes(buffer) == bytes([mark]) * size
            driver.cuMemFree_v2(pointer)
            driver.cuEventDestroy_v2(event)
            driver.cuStreamDestroy_v2(stream)

    together(work)
    driver.cuStreamDestroy_v2(shared)
    driver.cuCtxSynchronize()
    assert driver.memory_info()[0] >= free - (4 << 20)


def test_contexts(driver: Driver) -> None:
    ids = set()

    def work(index: int) -> None:
        for _ in range(5):
            handle = driver.new("cuCtxCreate_v2", 0, 0)
            value = c_uint64()
            driver.cuCtxGetId(handle, byref(value))
            ids.add(value.value)
            driver.new("cuMemAlloc_v2", 1000)
            assert driver.new("cuCtxGetCurrent") == handle
            driver.cuCtxDestroy_v2(handle)
        assert driver.new("cuCtxGetCurrent") == 0

    together(work)
    assert len(ids) == THREADS * 5


def test_the_primary_context_is_one(driver: Driver) -> None:
    handles = set()

    def work(index: int) -> None:
        for _ in range(100):
            handles.add(driver.new("cuDevicePrimaryCtxRetain", 0))
            driver.cuDevicePrimaryCtxRelease_v2(0)

    together(work)
    active = c_int()
    driver.cuDevicePrimaryCtxGetState(0, byref(c_int()), byref(active))
    assert active.value == 0
    assert len(handles) >= 1


def test_host_functions_of_many_threads(driver: Driver, context: int) -> None:
    stream = driver.new("cuStreamCreate", 0)
    seen: list[int] = []
    functions = [HOST_FUNCTION(lambda _, i=i: seen.append(i)) for i in range(THREADS)]

    def work(index: int) -> None:
        driver.cuCtxSetCurrent(context)
        for _ in range(50):
            driver.cuLaunchHostFunc(stream, functions[index], None)

    together(work)
    driver.cuStreamSynchronize(stream)
    assert sorted(seen) == sorted(list(range(THREADS)) * 50)
    driver.cuStreamDestroy_v2(stream)


@pytest.mark.parametrize("function", ["cuCtxGetDevice", "cuMemAlloc_v2"])
def test_counts_and_faults_are_exact(
    driver: Driver, context: int, sim_table: SimTable, function: str
) -> None:
    def calls() -> int:
        value = c_uint64()
        assert sim_table.calls(function.encode(), byref(value)) == SUCCESS
        return value.value

    before = calls()
    for n in (1, 77, 400):
        assert sim_table.fail(function.encode(), n, 999) == SUCCESS
    codes: list[int] = []

    def work(index: int) -> None:
        driver.cuCtxSetCurrent(context)
        for _ in range(100):
            output = c_uint64()
            arguments = (byref(output),) if function == "cuCtxGetDevice" else (byref(output), 64)
            code = driver.code(function, *arguments)
            codes.append(code)
            if code == SUCCESS and output.value:
                driver.cuMemFree_v2(output.value)

    together(work)
    assert calls() == before + THREADS * 100
    assert sorted(codes)[-4:] == [0, 999, 999, 999]
