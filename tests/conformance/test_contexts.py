# SPDX-License-Identifier: GPL-2.0-only
"""Contexts: primary and created, current and stacked, destroyed and used after."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p

import pytest
from cuda_driver import (
    CONTEXT_IS_DESTROYED,
    INVALID_CONTEXT,
    INVALID_DEVICE,
    INVALID_VALUE,
    PEER_ACCESS_ALREADY_ENABLED,
    PEER_ACCESS_NOT_ENABLED,
    SUCCESS,
    UNSUPPORTED_LIMIT,
    Driver,
)


def current(driver: Driver) -> int:
    return driver.new("cuCtxGetCurrent")


def in_thread(work: Callable[[], object]) -> object:
    """`work()` in a thread of its own; its result or its exception."""
    box: list[object] = []

    def run() -> None:
        try:
            box.append(work())
        except BaseException as error:
            box.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    if isinstance(box[0], BaseException):
        raise box[0]
    return box[0]


@pytest.fixture
def created(driver: Driver) -> Iterator[int]:
    """A created context, current in this thread; destroyed after, if the test did not."""
    before = current(driver)
    handle = driver.new("cuCtxCreate_v2", 0, 0)
    yield handle
    if driver.code("cuCtxGetApiVersion", handle, byref(c_uint())) == SUCCESS:
        driver.cuCtxDestroy_v2(handle)
    driver.cuCtxSetCurrent(before)


def test_a_new_thread_has_no_current_context(driver: Driver, context: int) -> None:
    assert current(driver) == context
    assert in_thread(lambda: current(driver)) == 0
    assert in_thread(lambda: driver.code("cuCtxGetDevice", byref(c_int()))) == INVALID_CONTEXT
    assert in_thread(lambda: driver.code("cuMemAlloc_v2", byref(c_uint64()), 64)) == INVALID_CONTEXT


def test_create_makes_the_context_current(driver: Driver, context: int) -> None:
    # GIVEN a current primary context WHEN one is created THEN it lies on top of it
    handle = driver.new("cuCtxCreate_v2", 4, 0)
    assert handle not in (0, context)
    assert current(driver) == handle
    assert driver.get(c_uint, "cuCtxGetFlags") & 7 == 4
    assert driver.get(c_int, "cuCtxGetDevice") == 0
    driver.cuCtxDestroy_v2(handle)
    assert current(driver) == context


def test_the_stack(driver: Driver, context: int, created: int) -> None:
    driver.cuCtxPushCurrent_v2(context)
    driver.cuCtxPushCurrent_v2(created)
    driver.cuCtxSetCurrent(context)  # replaces the top only
    assert driver.new("cuCtxPopCurrent_v2") == context
    assert driver.new("cuCtxPopCurrent_v2") == context
    assert driver.new("cuCtxPopCurrent_v2") == created
    driver.cuCtxPushCurrent_v2(created)
    assert current(driver) == created


def test_set_current_null_pops(driver: Driver) -> None:
    def work() -> None:
        one = driver.new("cuDevicePrimaryCtxRetain", 0)
        driver.cuCtxSetCurrent(None)  # nothing there: no error
        driver.cuCtxSetCurrent(one)
        assert current(driver) == one
        driver.cuCtxSetCurrent(None)
        assert current(driver) == 0
        assert driver.code("cuCtxPopCurrent_v2", byref(c_void_p())) == INVALID_CONTEXT
        driver.cuDevicePrimaryCtxRelease_v2(0)

    in_thread(work)


def test_destroyed_elsewhere_says_so(driver: Driver, created: int) -> None:
    ready, go = threading.Event(), threading.Event()

    def work() -> tuple[int, int]:
        driver.cuCtxSetCurrent(created)
        ready.set()
        assert go.wait(30)
        return (
            driver.code("cuMemAlloc_v2", byref(c_uint64()), 64),
            driver.code("cuCtxSynchronize"),
        )

    box: list[tuple[int, int]] = []
    thread = threading.Thread(target=lambda: box.append(work()))
    thread.start()
    assert ready.wait(30)
    driver.cuCtxDestroy_v2(created)
    go.set()
    thread.join(30)
    assert box == [(CONTEXT_IS_DESTROYED, CONTEXT_IS_DESTROYED)]


def test_a_destroyed_context_is_no_context(driver: Driver) -> None:
    before = current(driver)
    handle = driver.new("cuCtxCreate_v2", 0, 0)
    driver.cuCtxDestroy_v2(handle)
    assert current(driver) == before
    for call in ("cuCtxPushCurrent_v2", "cuCtxSetCurrent", "cuCtxDestroy_v2"):
        assert driver.code(call, handle) in (INVALID_CONTEXT, CONTEXT_IS_DESTROYED), call


def test_destroying_frees_what_it_held(driver: Driver, created: int) -> None:
    free, _ = driver.memory_info()
    driver.new("cuMemAlloc_v2", 64 << 20)
    driver.new("cuStreamCreate", 0)
    driver.new("cuEventCreate", 0)
    assert driver.memory_info()[0] <= free - (64 << 20)
    driver.cuCtxDestroy_v2(created)
    again = driver.new("cuCtxCreate_v2", 0, 0)
    # The driver may keep a little of its own; not the 64 MiB.
    assert driver.memory_info()[0] >= free - (8 << 20)
    driver.cuCtxDestroy_v2(again)


def test_create_refuses_bad_arguments(driver: Driver) -> None:
    devices = driver.get(c_int, "cuDeviceGetCount")
    handle = c_void_p()
    assert driver.code("cuCtxCreate_v2", byref(handle), 0, devices) == INVALID_DEVICE
    assert driver.code("cuCtxCreate_v2", byref(handle), 0, -1) == INVALID_DEVICE
    assert driver.code("cuCtxCreate_v2", byref(handle), 0x10000, 0) == INVALID_VALUE
    assert driver.code("cuCtxCreate_v2", None, 0, 0) == INVALID_VALUE
    assert not handle.value


def test_attach_and_detach(driver: Driver) -> None:
    before = current(driver)
    handle = driver.new("cuCtxCreate_v2", 0, 0)
    assert driver.new("cuCtxAttach", 0) == handle
    driver.cuCtxDetach(handle)
    driver.cuCtxSynchronize()  # one use is left
    driver.cuCtxDetach(handle)
    assert current(driver) == before
    assert driver.code("cuCtxAttach", byref(c_void_p()), 1) == INVALID_VALUE


def test_every_version_of_create(driver: Driver) -> None:
    before = current(driver)
    for call, arguments in (
        ("cuCtxCreate_v2", (0, 0)),
        ("cuCtxCreate_v3", (None, 0, 0, 0)),
        ("cuCtxCreate_v4", (None, 0, 0)),
    ):
        handle = driver.new(call, *arguments)
        assert current(driver) == handle
        driver.cuCtxDestroy_v2(handle)
    assert current(driver) == before


def test_identity(driver: Driver, context: int, created: int) -> None:
    primary, own, now = c_uint64(), c_uint64(), c_uint64()
    driver.cuCtxGetId(context, byref(primary))
    driver.cuCtxGetId(created, byref(own))
    driver.cuCtxGetId(None, byref(now))  # the current one
    assert now.value == own.value != primary.value
    version = c_uint()
    driver.cuCtxGetApiVersion(created, byref(version))
    assert version.value >= 3010
    assert driver.get(c_int, "cuCtxGetDevice_v2", context) == 0
    driver.cuCtxSynchronize_v2(context)


def test_primary_context_is_counted(driver: Driver) -> None:
    def state() -> tuple[int, int]:
        flags, active = c_uint(), c_int()
        driver.cuDevicePrimaryCtxGetState(0, byref(flags), byref(active))
        return flags.value, active.value

    assert state()[1] == 0
    one = driver.new("cuDevicePrimaryCtxRetain", 0)
    two = driver.new("cuDevicePrimaryCtxRetain", 0)
    assert one == two
    assert state()[1] == 1
    driver.cuDevicePrimaryCtxRelease_v2(0)
    assert state()[1] == 1
    driver.cuDevicePrimaryCtxRelease_v2(0)
    assert state()[1] == 0
    assert driver.code("cuDevicePrimaryCtxRelease_v2", 0) == INVALID_CONTEXT


def test_primary_context_cannot_be_destroyed(driver: Driver, context: int) -> None:
    assert driver.code("cuCtxDestroy_v2", context) != SUCCESS
    driver.cuCtxSynchronize()


def test_reset_drops_everything_but_the_references(driver: Driver) -> None:
    def work() -> None:
        handle = driver.new("cuDevicePrimaryCtxRetain", 0)
        driver.cuCtxSetCurrent(handle)
        pointer = driver.new("cuMemAlloc_v2", 1 << 20)
        driver.cuDevicePrimaryCtxReset_v2(0)
        active = c_int()
        driver.cuDevicePrimaryCtxGetState(0, byref(c_uint()), byref(active))
        assert active.value == 0
        driver.cuDevicePrimaryCtxRelease_v2(0)
        # A new life: the old allocation is not of it.
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        assert driver.code("cuMemFree_v2", pointer) == INVALID_VALUE
        driver.cuCtxSetCurrent(None)
        driver.cuDevicePrimaryCtxRelease_v2(0)

    in_thread(work)


def test_primary_flags(driver: Driver) -> None:
    flags, active = c_uint(), c_int()
    driver.cuDevicePrimaryCtxSetFlags_v2(0, 4)
    driver.cuDevicePrimaryCtxGetState(0, byref(flags), byref(active))
    assert flags.value & 7 == 4
    driver.cuDevicePrimaryCtxSetFlags_v2(0, 0)
    assert driver.code("cuDevicePrimaryCtxSetFlags_v2", 0, 3) == INVALID_VALUE
    assert driver.code("cuDevicePrimaryCtxSetFlags_v2", 99, 0) == INVALID_DEVICE


def test_limits(driver: Driver, context: int) -> None:
    stack, granularity = 0, 5
    default = driver.get(c_size_t, "cuCtxGetLimit", stack)
    assert default >= 1024
    driver.cuCtxSetLimit(stack, 4096)
    assert driver.get(c_size_t, "cuCtxGetLimit", stack) == 4096
    driver.cuCtxSetLimit(stack, default)
    assert driver.get(c_size_t, "cuCtxGetLimit", granularity) <= 128
    assert driver.code("cuCtxSetLimit", 1000, 1) in (INVALID_VALUE, UNSUPPORTED_LIMIT)
    assert driver.code("cuCtxGetLimit", byref(c_size_t()), 1000) in (
        INVALID_VALUE,
        UNSUPPORTED_LIMIT,
    )


def test_cache_configuration(driver: Driver, context: int) -> None:
    driver.cuCtxSetCacheConfig(1)
    assert driver.get(c_int, "cuCtxGetCacheConfig") == 1
    driver.cuCtxSetCacheConfig(0)
    driver.get(c_int, "cuCtxGetSharedMemConfig")
    assert driver.code("cuCtxSetCacheConfig", 77) == INVALID_VALUE


def test_priority_range(driver: Driver, context: int) -> None:
    least, greatest = c_int(1), c_int(1)
    driver.cuCtxGetStreamPriorityRange(byref(least), byref(greatest))
    assert greatest.value <= least.value <= 0
    driver.cuCtxGetStreamPriorityRange(None, None)


def test_peer_access(script: Callable[..., str]) -> None:
    out = script(
        """
        driver.cuInit(0)
        if driver.get(c_int, "cuDeviceGetCount") < 2:
            print("one device")
            sys.exit()
        if not driver.get(c_int, "cuDeviceCanAccessPeer", 0, 1):
            print("no peers")
            sys.exit()
        one, other = (driver.new("cuDevicePrimaryCtxRetain", device) for device in (0, 1))
        driver.cuCtxSetCurrent(one)
        print(driver.code("cuCtxDisablePeerAccess", other))
        print(driver.code("cuCtxEnablePeerAccess", other, 0))
        print(driver.code("cuCtxEnablePeerAccess", other, 0))
        print(driver.code("cuCtxDisablePeerAccess", other))
        print(driver.code("cuCtxEnablePeerAccess", other, 1))
        """,
        EMUV_SIM_DEVICES="2",
    )
    if not out[0].isdigit():
        pytest.skip(out)
    assert out.split() == [
        str(PEER_ACCESS_NOT_ENABLED),
        str(SUCCESS),
        str(PEER_ACCESS_ALREADY_ENABLED),
        str(SUCCESS),
        str(INVALID_VALUE),
    ]


def test_no_peer_of_its_own_device(driver: Driver, context: int) -> None:
    assert driver.code("cuCtxEnablePeerAccess", context, 0) != SUCCESS
    assert driver.get(c_int, "cuDeviceCanAccessPeer", 0, 0) == 0
