# SPDX-License-Identifier: GPL-2.0-only
"""CUDA IPC: memory and events of one process in another.

On the simulated GPU. On a real card the same calls are held to the same, but for what
the documentation leaves open (marked `sim_table`).
"""

from __future__ import annotations

import os
import random
import threading
from collections.abc import Iterator
from ctypes import Structure, byref, c_char, c_int, c_uint64

import pytest
from cuda_driver import (
    INVALID_CONTEXT,
    INVALID_HANDLE,
    INVALID_VALUE,
    LAUNCH_TIMEOUT,
    NOT_READY,
    OUT_OF_MEMORY,
    PEER_ACCESS_UNSUPPORTED,
    SUCCESS,
    Driver,
    PoolProps,
    SimTable,
)
from peer import Peer

MIB = 1 << 20
LAZY = 1
INTERPROCESS = 6  # with DISABLE_TIMING

pytestmark = pytest.mark.usefixtures("context")


class Handle(Structure):
    """CUipcMemHandle, CUipcEventHandle."""

    _fields_ = [("reserved", c_char * 64)]

    @classmethod
    def of(cls, data: bytes) -> Handle:
        return cls.from_buffer_copy(data)


@pytest.fixture
def peer(driver_path: str) -> Iterator[Peer]:
    with Peer(driver_path) as peer:
        yield peer


def opened(driver: Driver, handle: bytes) -> int:
    return driver.new("cuIpcOpenMemHandle_v2", Handle.of(handle), LAZY)


def open_code(driver: Driver, handle: bytes) -> int:
    return driver.code("cuIpcOpenMemHandle_v2", byref(c_uint64()), Handle.of(handle), LAZY)


@pytest.mark.parametrize("size", [1, 4096, 100_000, 3 * MIB + 5])
def test_both_see_the_same_bytes(driver: Driver, peer: Peer, size: int) -> None:
    data = random.Random(size).randbytes(size)
    peer.run(f"p = driver.new('cuMemAlloc_v2', {size}); driver.upload(p, {data!r})")
    handle = peer.ask("handle_of(p)")
    here = opened(driver, handle)
    assert driver.download(here, size) == data
    # Both ways, and what is written after it was opened.
    driver.upload(here, b"Z")
    assert peer.ask("driver.download(p, 1)") == b"Z"
    peer.run(f"driver.cuMemsetD8_v2(p, 7, {size})")
    assert driver.download(here, size) == b"\7" * size
    driver.cuIpcCloseMemHandle(here)
    assert peer.ask(f"driver.download(p, {size})") == b"\7" * size


def test_neighbours_are_not_moved_and_not_lost(driver: Driver, peer: Peer) -> None:
    """Small allocations lie side by side; one of them is shared, before and after others come."""
    peer.run("ps = [driver.new('cuMemAlloc_v2', 700) for _ in range(40)]")
    peer.run("for i, p in enumerate(ps): driver.upload(p, bytes([i]) * 700)")
    handles = peer.ask("[handle_of(p) for p in ps[5:8]]")
    here = [opened(driver, handle) for handle in handles]
    for i, address in enumerate(here, 5):
        assert driver.download(address, 700) == bytes([i]) * 700
    peer.run("for p in ps[:5] + ps[8:]: driver.cuMemFree_v2(p)")
    peer.run("more = [driver.new('cuMemAlloc_v2', 700) for _ in range(80)]")
    peer.run("for p in more: driver.upload(p, b'x' * 700)")
    for i, address in enumerate(here, 5):
        assert driver.download(address, 700) == bytes([i]) * 700
        driver.cuIpcCloseMemHandle(address)
    assert peer.ask("all(driver.download(p, 700) == b'x' * 700 for p in more)")


def test_an_address_inside_names_the_whole(driver: Driver, peer: Peer) -> None:
    peer.run("p = driver.new('cuMemAlloc_v2', 8192); driver.upload(p, b'base')")
    here = opened(driver, peer.ask("handle_of(p + 5000)"))
    assert driver.download(here, 4) == b"base"
    base, size = c_uint64(), c_uint64()
    driver.cuMemGetAddressRange_v2(byref(base), byref(size), here)
    assert (base.value, size.value) == (here, 8192)
    driver.cuIpcCloseMemHandle(here)


def test_opened_twice_is_one_mapping(driver: Driver, peer: Peer) -> None:
    peer.run("p = driver.new('cuMemAlloc_v2', 2 << 20)")
    handle = peer.ask("handle_of(p)")
    assert handle == peer.ask("handle_of(p)")
    first = opened(driver, handle)
    assert opened(driver, handle) == first
    driver.cuIpcCloseMemHandle(first)
    driver.upload(first, b"still here")
    driver.cuIpcCloseMemHandle(first)
    assert driver.code("cuIpcCloseMemHandle", first) == INVALID_VALUE
    assert driver.code("cuMemcpyHtoD_v2", first, b"gone", 4) == INVALID_VALUE


def test_it_is_closed_not_freed(driver: Driver, peer: Peer) -> None:
    peer.run("p = driver.new('cuMemAlloc_v2', 4096)")
    here = opened(driver, peer.ask("handle_of(p)"))
    assert driver.code("cuMemFree_v2", here) == INVALID_VALUE
    assert driver.code("cuMemFreeAsync", here, None) == INVALID_VALUE
    assert driver.code("cuIpcCloseMemHandle", here + 1) == INVALID_VALUE
    assert driver.code("cuIpcGetMemHandle", (c_char * 64)(), here) == INVALID_VALUE
    driver.cuIpcCloseMemHandle(here)
    with_own = driver.new("cuMemAlloc_v2", 4096)
    assert driver.code("cuIpcCloseMemHandle", with_own) == INVALID_VALUE
    driver.cuMemFree_v2(with_own)


def test_it_takes_nothing_of_the_importers_account(
    driver: Driver, peer: Peer, sim_table: SimTable
) -> None:
    def used() -> int:
        value = c_uint64()
        sim_table.device_used(0, byref(value))
        return value.value

    before = used()
    peer.run("p = driver.new('cuMemAlloc_v2', 64 << 20)")
    here = opened(driver, peer.ask("handle_of(p)"))
    assert used() == before
    driver.cuIpcCloseMemHandle(here)
    assert used() == before


def test_what_is_freed_opens_no_more(driver: Driver, peer: Peer) -> None:
    for size in (600, 2 * MIB):
        peer.run(f"p = driver.new('cuMemAlloc_v2', {size})")
        handle = peer.ask("handle_of(p)")
        peer.run(f"driver.cuMemFree_v2(p); q = driver.new('cuMemAlloc_v2', {size})")
        assert open_code(driver, handle) == INVALID_HANDLE
        assert peer.ask("handle_of(q)") != handle


def test_mappings_outlive_the_exporter(driver: Driver, driver_path: str) -> None:
    with Peer(driver_path) as exporter:
        exporter.run("p = driver.new('cuMemAlloc_v2', 5000); driver.upload(p, b'p' * 5000)")
        exporter.run("q = driver.new('cuMemAlloc_v2', 3 << 20); driver.upload(q, b'q' * 5000)")
        handles = exporter.ask("[handle_of(p), handle_of(q)]")
        here = [opened(driver, handle) for handle in handles]
        exporter.run("driver.cuMemFree_v2(q)")
        assert driver.download(here[1], 5000) == b"q" * 5000
        exporter.kill()
        assert driver.download(here[0], 5000) == b"p" * 5000
        assert driver.download(here[1], 5000) == b"q" * 5000
        for address in here:
            driver.upload(address, b"mine")
            driver.cuIpcCloseMemHandle(address)
        assert {open_code(driver, handle) for handle in handles} == {INVALID_HANDLE}


def test_a_process_does_not_open_its_own(driver: Driver) -> None:
    address = driver.new("cuMemAlloc_v2", 4096)
    handle = Handle()
    driver.cuIpcGetMemHandle(byref(handle), address)
    assert open_code(driver, bytes(handle)) == INVALID_CONTEXT
    driver.cuMemFree_v2(address)


def test_the_flag_has_one_value(driver: Driver, peer: Peer) -> None:
    peer.run("p = driver.new('cuMemAlloc_v2', 64)")
    handle = Handle.of(peer.ask("handle_of(p)"))
    for flags in (0, 2, 3):
        code = driver.code("cuIpcOpenMemHandle_v2", byref(c_uint64()), handle, flags)
        assert code == INVALID_VALUE
    assert driver.code("cuIpcOpenMemHandle_v2", None, handle, LAZY) == INVALID_VALUE


def test_only_what_cumemalloc_made_has_a_handle(driver: Driver) -> None:
    pool = driver.new("cuDeviceGetDefaultMemPool", 0)
    pooled = driver.new("cuMemAllocFromPoolAsync", 4096, pool, None)
    pinned = driver.new("cuMemAllocHost_v2", 4096)
    plain = driver.new("cuMemAlloc_v2", 4096)
    for address in (pooled, pinned, 0, plain + 4096, id(driver)):
        assert driver.code("cuIpcGetMemHandle", (c_char * 64)(), address) == INVALID_VALUE
    assert driver.code("cuIpcGetMemHandle", None, plain) == INVALID_VALUE
    driver.cuMemFree_v2(pooled)
    driver.cuMemFreeHost(pinned)
    driver.cuMemFree_v2(plain)


def test_no_handle_is_believed(driver: Driver, peer: Peer, sim_table: SimTable) -> None:
    """Whatever bytes it is made of: an error, and nothing is opened or harmed."""
    peer.run("p = driver.new('cuMemAlloc_v2', 4096); e = driver.new('cuEventCreate', 6)")
    good = peer.ask("handle_of(p)")
    rng = random.Random(1)
    tries = [bytes(64), rng.randbytes(64), b"\xff" * 64]
    for at in range(64):
        for bit in (1, 0x80):
            changed = bytearray(good)
            changed[at] ^= bit
            tries.append(bytes(changed))
    files = len(os.listdir("/proc/self/fd"))
    for data in tries:
        assert open_code(driver, data) != SUCCESS
        event = driver.code("cuIpcOpenEventHandle", byref(c_uint64()), Handle.of(data))
        assert event in (INVALID_VALUE, INVALID_HANDLE)
    assert len(os.listdir("/proc/self/fd")) == files
    driver.cuIpcCloseMemHandle(opened(driver, good))


def test_a_context_takes_its_mappings_along(driver: Driver, peer: Peer) -> None:
    peer.run("p = driver.new('cuMemAlloc_v2', 4096)")
    handle = peer.ask("handle_of(p)")
    here = opened(driver, handle)
    other = driver.new("cuCtxCreate_v2", 0, 0)
    assert open_code(driver, handle) == INVALID_CONTEXT  # one context a device and process
    driver.cuCtxDestroy_v2(other)
    driver.cuIpcCloseMemHandle(here)
    other = driver.new("cuCtxCreate_v2", 0, 0)
    here = opened(driver, handle)
    driver.cuCtxDestroy_v2(other)
    assert driver.code("cuMemGetAddressRange_v2", None, None, here) != SUCCESS
    driver.cuIpcCloseMemHandle(opened(driver, handle))


OPEN = """
class H(Structure): _fields_ = [('x', c_char * 64)]
def opened(handle):
    out = c_uint64()
    code = driver.code("cuIpcOpenMemHandle_v2", byref(out), H.from_buffer_copy(handle), 1)
    return code, out.value
def ordinal(address):
    return driver.get(c_int, "cuPointerGetAttribute", 9, address)
"""


def test_memory_of_another_card(driver_path: str, sim_table: SimTable) -> None:
    """A card is the same one whatever number it has in a process; one that is not seen, none."""
    two = {"EMUV_SIM_DEVICES": "2"}
    with (
        Peer(driver_path, 1, **two) as exporter,
        Peer(driver_path, 0, **two) as both,
        Peer(driver_path, 0, **two, CUDA_VISIBLE_DEVICES="1,0") as turned,
        Peer(driver_path, 0, **two, CUDA_VISIBLE_DEVICES="0") as other,
    ):
        exporter.run("p = driver.new('cuMemAlloc_v2', 4096); driver.upload(p, b'of card 1')")
        handle = exporter.ask("handle_of(p)")
        for peer, number in ((both, 1), (turned, 0)):
            peer.run(OPEN + f"code, p = opened({handle!r})")
            assert peer.ask("code, driver.download(p, 9), ordinal(p)") == (0, b"of card 1", number)
        other.run(OPEN)
        assert other.ask(f"opened({handle!r})[0]") == PEER_ACCESS_UNSUPPORTED


def test_shared_while_other_threads_write(driver: Driver, peer: Peer) -> None:
    """Pages move under running work; not a byte is lost."""
    count, size = 24, 300_000
    addresses = [driver.new("cuMemAlloc_v2", size) for _ in range(count)]
    context = driver.new("cuCtxGetCurrent")
    wrong: list[int] = []

    def write(address: int, value: int) -> None:
        driver.cuCtxSetCurrent(context)
        for i in range(40):
            driver.cuMemsetD8_v2(address, (value + i) % 256, size)
            driver.cuMemcpyDtoH_v2(buffer := (c_char * size)(), address, size)
            if buffer.raw != bytes([(value + i) % 256]) * size:
                wrong.append(value)

    threads = [threading.Thread(target=write, args=(addresses[i], i)) for i in range(4)]
    for thread in threads:
        thread.start()
    handles = []
    for address in addresses:
        driver.cuIpcGetMemHandle(byref(handle := Handle()), address)
        handles.append(bytes(handle))
    for thread in threads:
        thread.join(30)
        assert not thread.is_alive()
    assert not wrong
    peer.run(f"handles = {handles[:4]!r}")
    peer.run(
        "class H(Structure): _fields_ = [('x', c_char * 64)]\n"
        "here = [driver.new('cuIpcOpenMemHandle_v2', H.from_buffer_copy(h), 1) for h in handles]"
    )
    ends = peer.ask("[set(driver.download(p, 300000)) for p in here]")
    assert ends == [{i + 39} for i in range(4)]
    for address in addresses:
        driver.cuMemFree_v2(address)


# ---- events ----


@pytest.fixture
def event(driver: Driver, peer: Peer) -> Iterator[int]:
    """An event of the peer's (`e` there), here; its stream there is `s`."""
    peer.run(
        "e = driver.new('cuEventCreate', 6); s = driver.new('cuStreamCreate', 1)\n"
        "h = (c_char * 64)(); driver.cuIpcGetEventHandle(h, e)"
    )
    here = driver.new("cuIpcOpenEventHandle", Handle.of(peer.ask("h.raw")))
    yield here
    driver.cuEventDestroy_v2(here)


HOLD = "driver.sim().hold_stream(c_void_p(s), 1)"
RELEASE = "driver.sim().hold_stream(c_void_p(s), 0)"


def test_an_event_is_asked_in_the_other_process(
    driver: Driver, peer: Peer, event: int, sim_table: SimTable
) -> None:
    assert driver.code("cuEventQuery", event) == SUCCESS  # never recorded
    peer.run(HOLD)
    peer.run("driver.cuMemsetD8Async(p := driver.new('cuMemAlloc_v2', 64), 1, 64, s)")
    peer.run("driver.cuEventRecord(e, s)")
    assert driver.code("cuEventQuery", event) == NOT_READY
    peer.run(RELEASE)
    driver.cuEventSynchronize(event)
    assert driver.code("cuEventQuery", event) == SUCCESS


def test_recorded_by_who_opened_it(
    driver: Driver, peer: Peer, event: int, sim_table: SimTable
) -> None:
    stream = driver.new("cuStreamCreate", 1)
    memory = driver.new("cuMemAlloc_v2", 64)
    sim_table.hold_stream(stream, 1)
    driver.cuMemsetD8Async(memory, 1, 64, stream)
    driver.cuEventRecord(event, stream)
    assert peer.ask("driver.code('cuEventQuery', e)") == NOT_READY
    sim_table.hold_stream(stream, 0)
    peer.run("driver.cuEventSynchronize(e)")
    assert driver.code("cuEventQuery", event) == SUCCESS
    driver.cuMemFree_v2(memory)
    driver.cuStreamDestroy_v2(stream)


def test_a_stream_waits_for_the_other_process(
    driver: Driver, peer: Peer, event: int, sim_table: SimTable
) -> None:
    """The whole of it: producer, event, consumer's stream, in each other's memory."""
    peer.run("p = driver.new('cuMemAlloc_v2', 4096)")
    here = opened(driver, peer.ask("handle_of(p)"))
    mine, stream = driver.new("cuMemAlloc_v2", 4096), driver.new("cuStreamCreate", 1)
    for value in range(1, 6):
        peer.run(HOLD)
        peer.run(f"driver.cuMemsetD8Async(p, {value}, 4096, s); driver.cuEventRecord(e, s)")
        driver.cuStreamWaitEvent(stream, event, 0)
        driver.cuMemcpyDtoDAsync_v2(mine, here, 4096, stream)
        assert driver.code("cuStreamQuery", stream) == NOT_READY
        peer.run(RELEASE)
        driver.cuStreamSynchronize(stream)
        assert driver.download(mine, 4096) == bytes([value]) * 4096
    driver.cuIpcCloseMemHandle(here)
    driver.cuMemFree_v2(mine)
    driver.cuStreamDestroy_v2(stream)


def test_a_record_counts_when_its_event_is_destroyed(
    driver: Driver, peer: Peer, event: int, sim_table: SimTable
) -> None:
    """Who opened the event may destroy its own before the record is reached."""
    stream, memory = driver.new("cuStreamCreate", 1), driver.new("cuMemAlloc_v2", 64)
    again = driver.new("cuIpcOpenEventHandle", Handle.of(peer.ask("h.raw")))
    sim_table.hold_stream(stream, 1)
    driver.cuMemsetD8Async(memory, 1, 64, stream)
    driver.cuEventRecord(again, stream)
    driver.cuEventDestroy_v2(again)
    assert peer.ask("driver.code('cuEventQuery', e)") == NOT_READY
    sim_table.hold_stream(stream, 0)
    peer.run("driver.cuEventSynchronize(e)")
    driver.cuMemFree_v2(memory)
    driver.cuStreamDestroy_v2(stream)


def test_exported_while_it_is_pending(driver: Driver, peer: Peer, sim_table: SimTable) -> None:
    peer.run("e = driver.new('cuEventCreate', 6); s = driver.new('cuStreamCreate', 1)")
    peer.run(HOLD + "; driver.cuMemsetD8Async(driver.new('cuMemAlloc_v2', 64), 1, 64, s)")
    peer.run("driver.cuEventRecord(e, s)\nh = (c_char * 64)(); driver.cuIpcGetEventHandle(h, e)")
    here = driver.new("cuIpcOpenEventHandle", Handle.of(peer.ask("h.raw")))
    assert driver.code("cuEventQuery", here) == NOT_READY
    peer.run(RELEASE)
    driver.cuEventSynchronize(here)
    driver.cuEventDestroy_v2(here)


def test_who_recorded_is_dead(driver_path: str, driver: Driver, sim_table: SimTable) -> None:
    """Its work will never be done: a wait ends with an error, and does end."""
    with Peer(driver_path) as recorder, Peer(driver_path) as waiter:
        recorder.run(
            "e = driver.new('cuEventCreate', 6); s = driver.new('cuStreamCreate', 1)\n"
            "h = (c_char * 64)(); driver.cuIpcGetEventHandle(h, e)"
        )
        recorder.run(HOLD + "; driver.cuMemsetD8Async(driver.new('cuMemAlloc_v2', 64), 1, 64, s)")
        recorder.run("driver.cuEventRecord(e, s)")
        waiter.run(
            "class H(Structure): _fields_ = [('x', c_char * 64)]\n"
            f"h = H.from_buffer_copy({recorder.ask('h.raw')!r})\n"
            "e = driver.new('cuIpcOpenEventHandle', h)\n"
            "s = driver.new('cuStreamCreate', 1); driver.cuStreamWaitEvent(s, e, 0)"
        )
        recorder.kill()
        assert waiter.ask("driver.code('cuEventSynchronize', e)") == LAUNCH_TIMEOUT
        assert waiter.ask("driver.code('cuStreamSynchronize', s)") == LAUNCH_TIMEOUT


def test_events_that_have_no_handle(driver: Driver, peer: Peer, event: int) -> None:
    handle = Handle()
    plain = driver.new("cuEventCreate", 2)
    assert driver.code("cuIpcGetEventHandle", byref(handle), plain) == INVALID_HANDLE
    assert driver.code("cuIpcGetEventHandle", byref(handle), event) == INVALID_HANDLE
    assert driver.code("cuIpcGetEventHandle", byref(handle), 12345) == INVALID_HANDLE
    assert driver.code("cuIpcGetEventHandle", None, plain) == INVALID_VALUE
    driver.cuEventDestroy_v2(plain)
    own = driver.new("cuEventCreate", INTERPROCESS)
    driver.cuIpcGetEventHandle(byref(handle), own)
    code = driver.code("cuIpcOpenEventHandle", byref(c_uint64()), handle)
    assert code == INVALID_CONTEXT
    driver.cuEventDestroy_v2(own)
    peer.run("driver.cuEventDestroy_v2(e)")
    gone = Handle.of(peer.ask("h.raw"))
    assert driver.code("cuIpcOpenEventHandle", byref(c_uint64()), gone) == INVALID_HANDLE
    peer.run("e = driver.new('cuEventCreate', 6)")


# ---- handles of cuMemCreate ----

EXPORTABLE = """
prop = AllocationProp(1, 1, Location(1, 0))
v = driver.new("cuMemCreate", {size}, byref(prop), 0)
fd = driver.get(c_int, "cuMemExportToShareableHandle", v, 1, 0)
def mapped(handle, size):
    address = driver.new("cuMemAddressReserve", size, 0, 0, 0)
    driver.cuMemMap(address, size, 0, handle, 0)
    driver.cuMemSetAccess(address, size, byref(AccessDesc(Location(1, 0), 3)), 1)
    return address
a = mapped(v, {size})
driver.upload(a, b"vmm bytes")
"""


def test_a_handle_by_file_descriptor(driver: Driver, peer: Peer) -> None:
    """Exported here, sent over a socket, imported there: the same bytes."""
    size = 4 * MIB
    names: dict[str, object] = {}
    exec("from cuda_driver import *\nfrom ctypes import *", names)
    names["driver"] = driver
    exec(EXPORTABLE.format(size=size), names)
    fd, address = names["fd"], names["a"]
    assert isinstance(fd, int) and isinstance(address, int)
    peer.send_fd(fd)
    os.close(fd)
    peer.run(EXPORTABLE.format(size=size))
    peer.run("w = driver.new('cuMemImportFromShareableHandle', fds[0], 1); os.close(fds.pop())")
    peer.run(f"b = mapped(w, {size})")
    assert peer.ask("driver.download(b, 9)") == b"vmm bytes"
    peer.run("driver.upload(b + 100, b'back')")
    assert driver.download(address + 100, 4) == b"back"
    peer.run("q = driver.get(AllocationProp, 'cuMemGetAllocationPropertiesFromHandle', w)")
    assert peer.ask("(q.type, q.handle_types, q.location.type, q.location.id)") == (1, 1, 1, 0)
    # The bytes live while anyone has them.
    driver.cuMemUnmap(address, size)
    driver.cuMemRelease(names["v"])
    driver.cuMemAddressFree(address, size)
    assert peer.ask("driver.download(b + 100, 4)") == b"back"
    peer.run(f"driver.cuMemRelease(w); driver.cuMemUnmap(b, {size})")
    assert peer.ask("driver.code('cuMemRelease', w)") == INVALID_VALUE


def test_an_imported_handle_takes_nothing_of_the_card(
    driver: Driver, peer: Peer, sim_table: SimTable
) -> None:
    prop = "prop = AllocationProp(1, 1, Location(1, 0))"
    peer.run(prop + "; v = driver.new('cuMemCreate', 8 << 20, byref(prop), 0)")
    peer.run("fd = driver.get(c_int, 'cuMemExportToShareableHandle', v, 1, 0)")
    used = "(lambda n: (driver.sim().device_used(0, byref(n)), n.value)[1])(c_uint64())"
    before = peer.ask(used)
    peer.run("w = driver.new('cuMemImportFromShareableHandle', fd, 1)")
    assert peer.ask(used) == before
    peer.run("driver.cuMemRelease(w)")
    assert peer.ask(used) == before
    peer.run("driver.cuMemRelease(v)")
    assert peer.ask(used) == before - 8 * MIB


def test_what_cannot_be_exported_or_imported(driver: Driver, peer: Peer) -> None:
    peer.run("plain = AllocationProp(1, 0, Location(1, 0))")
    peer.run("v = driver.new('cuMemCreate', 2 << 20, byref(plain), 0)")
    export = "driver.code('cuMemExportToShareableHandle', byref(c_int()), v, {}, {})"
    assert peer.ask(export.format(1, 0)) == INVALID_VALUE
    assert peer.ask(export.format(1, 1)) == INVALID_VALUE
    assert peer.ask(export.format(8, 0)) not in (SUCCESS, OUT_OF_MEMORY)
    null = os.open("/dev/zero", os.O_RDWR)
    for fd in (null, -1, 9999):
        code = driver.code("cuMemImportFromShareableHandle", byref(c_uint64()), fd, 1)
        assert code == INVALID_VALUE
    os.close(null)


# ---- pools ----

POOL = """
pool = driver.new("cuMemPoolCreate", byref(PoolProps(1, 1, Location(1, 0))))
fd = driver.get(c_int, "cuMemPoolExportToShareableHandle", pool, 1, 0)
p = driver.new("cuMemAllocFromPoolAsync", 10000, pool, None)
driver.upload(p, b"pool bytes")
data = (c_char * 64)()
driver.cuMemPoolExportPointer(data, p)
"""


def test_a_pools_memory_in_another_process(driver: Driver, peer: Peer) -> None:
    names: dict[str, object] = {}
    exec("from cuda_driver import *\nfrom ctypes import *", names)
    names["driver"] = driver
    exec(POOL, names)
    fd, address, data = names["fd"], names["p"], names["data"]
    assert isinstance(fd, int) and isinstance(address, int)
    peer.send_fd(fd)
    os.close(fd)
    peer.run("pool = driver.new('cuMemPoolImportFromShareableHandle', fds[0], 1, 0)")
    peer.run(f"data = create_string_buffer({bytes(data)!r}, 64)")  # type: ignore[call-overload]
    peer.run("b = driver.new('cuMemPoolImportPointer', pool, data)")
    assert peer.ask("driver.download(b, 10)") == b"pool bytes"
    peer.run("driver.cuMemsetD8_v2(b, 3, 10000)")
    assert driver.download(address, 10000) == b"\3" * 10000
    # Nothing is allocated in an imported pool, and it is nobody's current one.
    allocate = "driver.code('cuMemAllocFromPoolAsync', byref(c_uint64()), 64, pool, None)"
    assert peer.ask(allocate) == INVALID_VALUE
    assert peer.ask("driver.code('cuDeviceSetMemPool', 0, pool)") == INVALID_VALUE
    peer.run("driver.cuMemFreeAsync(b, None); driver.cuCtxSynchronize()")
    assert peer.ask("driver.code('cuMemFree_v2', b)") == INVALID_VALUE
    peer.run("b = driver.new('cuMemPoolImportPointer', pool, data); driver.cuMemFree_v2(b)")
    driver.cuMemFreeAsync(address, None)
    driver.cuCtxSynchronize()
    code = "driver.code('cuMemPoolImportPointer', byref(c_uint64()), pool, data)"
    assert peer.ask(code) == INVALID_VALUE
    driver.cuMemPoolDestroy(names["pool"])


def test_pools_that_are_not_shared(driver: Driver, peer: Peer) -> None:
    default = driver.new("cuDeviceGetDefaultMemPool", 0)
    export = ("cuMemPoolExportToShareableHandle", byref(c_int()))
    assert driver.code(*export, default, 1, 0) == INVALID_VALUE
    memory = driver.new("cuMemAllocFromPoolAsync", 64, default, None)
    assert driver.code("cuMemPoolExportPointer", (c_char * 64)(), memory) == INVALID_VALUE
    driver.cuMemFree_v2(memory)
    # A pointer is imported into its own pool only.
    peer.run(POOL)
    peer.run("other = driver.new('cuMemPoolCreate', byref(PoolProps(1, 1, Location(1, 0))))")
    peer.run("g = driver.get(c_int, 'cuMemPoolExportToShareableHandle', other, 1, 0)")
    peer.run("wrong = driver.new('cuMemPoolImportFromShareableHandle', g, 1, 0)")
    code = "driver.code('cuMemPoolImportPointer', byref(c_uint64()), {}, data)"
    assert peer.ask(code.format("wrong")) == INVALID_VALUE
    assert peer.ask(code.format("pool")) == INVALID_VALUE  # its owner has it already
    managed = PoolProps(3, 1)
    assert driver.code("cuMemPoolCreate", byref(c_uint64()), byref(managed)) == INVALID_VALUE
