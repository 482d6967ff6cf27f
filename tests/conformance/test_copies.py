# SPDX-License-Identifier: GPL-2.0-only
"""Copies and sets, in one, two and three dimensions, between memory of every kind."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from ctypes import addressof, byref, c_char, c_size_t, c_uint64, memset
from itertools import zip_longest
from typing import TypeAlias

import pytest
from cuda_driver import (
    INVALID_CONTEXT,
    INVALID_HANDLE,
    INVALID_VALUE,
    SUCCESS,
    Driver,
    SimTable,
)
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from memory_types import (
    MIB,
    TYPE_DEVICE,
    TYPE_HOST,
    TYPE_UNIFIED,
    BatchOp3D,
    CopyAttributes,
    Memcpy2D,
    Memcpy3D,
    Script,
    allocated,
    managed,
    pattern,
)

pytestmark = pytest.mark.usefixtures("context")

SIZE = 100_000


@pytest.fixture
def stream(driver: Driver) -> int:
    """A stream that is not the legacy one."""
    return driver.new("cuStreamCreate", 1)


Buffer: TypeAlias = "ctypes.Array[c_char]"


def host(data: bytes) -> Buffer:
    return (c_char * len(data)).from_buffer_copy(data)


# ---- one dimension ----


@pytest.fixture(params=["device", "managed", "pool", "pinned"])
def memory(request: pytest.FixtureRequest, driver: Driver) -> Iterator[int]:
    """SIZE bytes of each kind that has a device address."""
    match request.param:
        case "device":
            with allocated(driver, SIZE) as address:
                yield address
        case "managed":
            with managed(driver, SIZE) as address:
                yield address
        case "pool":
            address = driver.new("cuMemAllocAsync", SIZE, None)
            yield address
            driver.cuMemFreeAsync(address, None)
        case "pinned":
            address = driver.new("cuMemHostAlloc", SIZE, 0)
            yield address
            driver.cuMemFreeHost(address)


TO = ["cuMemcpyHtoD_v2", "cuMemcpyHtoD_v2_ptds", "cuMemcpy", "cuMemcpy_ptds"]
TO_ASYNC = ["cuMemcpyHtoDAsync_v2", "cuMemcpyHtoDAsync_v2_ptsz", "cuMemcpyAsync"]
FROM = ["cuMemcpyDtoH_v2", "cuMemcpyDtoH_v2_ptds", "cuMemcpy"]
FROM_ASYNC = ["cuMemcpyDtoHAsync_v2", "cuMemcpyDtoHAsync_v2_ptsz", "cuMemcpyAsync_ptsz"]


@pytest.mark.parametrize(("there", "back"), list(zip_longest(TO, FROM, fillvalue=FROM[0])))
def test_there_and_back(driver: Driver, memory: int, there: str, back: str) -> None:
    source, target = host(pattern(SIZE)), (c_char * SIZE)()
    driver.check(there, memory, addressof(source), SIZE)
    driver.check(back, addressof(target), memory, SIZE)
    assert target.raw == source.raw


@pytest.mark.parametrize(("there", "back"), list(zip(TO_ASYNC, FROM_ASYNC, strict=True)))
def test_there_and_back_in_a_stream(
    driver: Driver, memory: int, stream: int, there: str, back: str
) -> None:
    source, target = host(pattern(SIZE)), (c_char * SIZE)()
    driver.check(there, memory, addressof(source), SIZE, stream)
    driver.check(back, addressof(target), memory, SIZE, stream)
    driver.cuStreamSynchronize(stream)
    assert target.raw == source.raw


@pytest.mark.parametrize("suffix", ["_v2", "_v2_ptds"])
def test_between_devices_memory(driver: Driver, memory: int, suffix: str) -> None:
    with allocated(driver, SIZE) as other:
        driver.upload(memory, pattern(SIZE))
        driver.check("cuMemcpyDtoD" + suffix, other, memory, SIZE)
        assert driver.download(other, SIZE) == pattern(SIZE)
        driver.cuMemsetD8_v2(memory, 0, SIZE)
        driver.cuMemcpyDtoDAsync_v2(memory, other, SIZE, None)
        driver.cuCtxSynchronize()
        assert driver.download(memory, SIZE) == pattern(SIZE)


def test_pieces_of_an_allocation(driver: Driver, memory: int) -> None:
    driver.upload(memory, bytes(SIZE))
    driver.upload(memory + 777, pattern(1000))
    assert driver.download(memory + 770, 1014) == bytes(7) + pattern(1000) + bytes(7)


def test_nothing_is_copied_as_well(driver: Driver, memory: int) -> None:
    driver.cuMemcpyHtoD_v2(memory, b"x", 0)
    driver.cuMemcpyDtoH_v2((c_char * 1)(), memory, 0)


def test_host_to_host(driver: Driver) -> None:
    source, target = host(pattern(4096)), (c_char * 4096)()
    driver.cuMemcpy(addressof(target), addressof(source), 4096)
    assert target.raw == source.raw


# ---- what is not an allocation's ----


@pytest.mark.parametrize("offset", [0, 1, SIZE // 2])
def test_copies_stay_inside_an_allocation(driver: Driver, offset: int) -> None:
    buffer = (c_char * (SIZE + 1))()
    with allocated(driver, SIZE) as address, allocated(driver, 4 * SIZE) as other:
        size = SIZE - offset + 1
        driver.upload(address, pattern(SIZE))
        code = driver.code("cuMemcpyDtoH_v2", buffer, address + offset, 3 * MIB)
        assert code == INVALID_VALUE
        if driver.sim():  # a real driver may see only the end of what it took from the card
            assert driver.code("cuMemcpyHtoD_v2", address + offset, buffer, size) == INVALID_VALUE
            assert driver.code("cuMemcpyDtoH_v2", buffer, address + offset, size) == INVALID_VALUE
            code = driver.code("cuMemcpyDtoD_v2", other, address + offset, size)
            assert code == INVALID_VALUE
            code = driver.code("cuMemsetD8_v2", address + offset, 0, size)
            assert code == INVALID_VALUE
        assert driver.download(address, SIZE) == pattern(SIZE)


@pytest.mark.parametrize("address", [0, 0x1000, (1 << 64) - 4096])
def test_addresses_that_are_nobodys(sim_table: SimTable, driver: Driver, address: int) -> None:
    buffer = (c_char * 8192)()
    for function, args in {
        "cuMemcpyHtoD_v2": (address, buffer, 8192),
        "cuMemcpyDtoH_v2": (buffer, address, 8192),
        "cuMemcpyDtoD_v2": (address, address, 8192),
        "cuMemsetD8_v2": (address, 1, 8192),
        "cuMemsetD32_v2": (address, 1, 8192),
    }.items():
        assert driver.code(function, *args) == INVALID_VALUE


def test_freed_memory_is_nobodys(driver: Driver) -> None:
    address = driver.new("cuMemAlloc_v2", 8 * MIB)
    driver.cuMemFree_v2(address)
    assert driver.code("cuMemcpyDtoH_v2", (c_char * 16)(), address, 16) == INVALID_VALUE


def test_null_on_the_host(driver: Driver) -> None:
    with allocated(driver, SIZE) as address:
        assert driver.code("cuMemcpyHtoD_v2", address, None, 16) == INVALID_VALUE
        assert driver.code("cuMemcpyDtoH_v2", None, address, 16) == INVALID_VALUE


@pytest.mark.parametrize("size", [1 << 40, (1 << 64) - 1, 1 << 63])
def test_sizes_that_cannot_be(sim_table: SimTable, driver: Driver, size: int) -> None:
    buffer = (c_char * 16)()
    with allocated(driver, SIZE) as address:
        assert driver.code("cuMemcpyHtoD_v2", address, buffer, size) == INVALID_VALUE
        assert driver.code("cuMemcpyDtoH_v2", buffer, address, size) == INVALID_VALUE
        assert driver.code("cuMemsetD32_v2", address, 1, size) == INVALID_VALUE
        assert driver.code("cuMemsetD2D8_v2", address, size, 1, 4, 5) == INVALID_VALUE
        assert driver.code("cuMemsetD2D8_v2", address, 8, 1, 4, size) == INVALID_VALUE


def test_a_foreign_stream_changes_nothing(sim_table: SimTable, driver: Driver) -> None:
    with allocated(driver, 16) as address:
        driver.upload(address, bytes(16))
        code = driver.code("cuMemcpyHtoDAsync_v2", address, b"y" * 16, 16, 0xDEAD00)
        assert code == INVALID_HANDLE
        assert driver.code("cuMemsetD8Async", address, 1, 16, 0xDEAD00) == INVALID_HANDLE
        assert driver.download(address, 16) == bytes(16)


def test_overlap_comes_out_as_a_move(sim_table: SimTable, driver: Driver) -> None:
    data = pattern(5000)
    with allocated(driver, 6000) as address:
        for source, target in ((0, 700), (700, 0)):
            driver.upload(address + source, data)
            driver.cuMemcpyDtoD_v2(address + target, address + source, 5000)
            assert driver.download(address + target, 5000) == data


# ---- between contexts ----


def test_peer_copies(driver: Driver, context: int, stream: int) -> None:
    with allocated(driver, SIZE) as one, allocated(driver, SIZE) as two:
        driver.upload(one, pattern(SIZE))
        driver.cuMemcpyPeer(two, context, one, context, SIZE)
        assert driver.download(two, SIZE) == pattern(SIZE)
        driver.cuMemsetD8_v2(two, 0, SIZE)
        driver.cuStreamSynchronize(None)
        driver.cuMemcpyPeerAsync(two, context, one, context, SIZE, stream)
        driver.cuStreamSynchronize(stream)
        assert driver.download(two, SIZE) == pattern(SIZE)


def test_peer_copies_between_devices(sim_table: SimTable, script: Script) -> None:
    script(
        """
        driver.cuInit(0)
        contexts, places = [], []
        for device in (0, 1):
            contexts.append(driver.new("cuDevicePrimaryCtxRetain", device))
            driver.cuCtxSetCurrent(contexts[-1])
            places.append(driver.new("cuMemAlloc_v2", 4096))
        driver.upload(places[0], b"z" * 4096)
        driver.cuMemcpyPeer(places[1], contexts[1], places[0], contexts[0], 4096)
        assert driver.download(places[1], 4096) == b"z" * 4096
        code = driver.code("cuMemcpyPeer", places[1], 0xDEAD, places[0], contexts[0], 4096)
        assert code == INVALID_CONTEXT
        """,
        EMUV_SIM_DEVICES="2",
    )


# ---- sets ----


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("suffix", ["_v2", "_v2_ptds", "Async", "Async_ptsz"])
def test_sets(driver: Driver, memory: int, stream: int, bits: int, suffix: str) -> None:
    value = 0xA1B2C3D4 & ((1 << bits) - 1)
    one = value.to_bytes(bits // 8, "little")
    in_stream = [stream] if "Async" in suffix else []
    driver.upload(memory, bytes(SIZE))
    driver.check(f"cuMemsetD{bits}{suffix}", memory + 64, value, 100, *in_stream)
    driver.cuCtxSynchronize()
    assert driver.download(memory + 60, 100 * len(one) + 8) == bytes(4) + one * 100 + bytes(4)


@pytest.mark.parametrize("bits", [8, 16, 32])
@pytest.mark.parametrize("suffix", ["_v2", "_v2_ptds", "Async", "Async_ptsz"])
def test_sets_in_two_dimensions(driver: Driver, stream: int, bits: int, suffix: str) -> None:
    value = 0xA1B2C3D4 & ((1 << bits) - 1)
    one = value.to_bytes(bits // 8, "little")
    in_stream = [stream] if "Async" in suffix else []
    with allocated(driver, 4096) as address:
        driver.upload(address, bytes(4096))
        driver.check(f"cuMemsetD2D{bits}{suffix}", address, 512, value, 10, 3, *in_stream)
        driver.cuCtxSynchronize()
        row = one * 10 + bytes(512 - 10 * len(one))
        assert driver.download(address, 2048) == row * 3 + bytes(512)


def test_sets_are_aligned(driver: Driver) -> None:
    with allocated(driver, 4096) as address:
        assert driver.code("cuMemsetD16_v2", address + 1, 1, 4) == INVALID_VALUE
        assert driver.code("cuMemsetD32_v2", address + 2, 1, 4) == INVALID_VALUE
        assert driver.code("cuMemsetD2D32_v2", address, 510, 1, 4, 4) == INVALID_VALUE


def test_a_set_of_nothing(driver: Driver) -> None:
    with allocated(driver, 512) as address:
        driver.cuMemsetD8_v2(address, 1, 0)


# ---- two dimensions ----

Run2D = Callable[[Memcpy2D], None]


@pytest.fixture(params=["cuMemcpy2D_v2", "cuMemcpy2DUnaligned_v2", "cuMemcpy2DAsync_v2",
                        "cuMemcpy2D_v2_ptds", "cuMemcpy2DAsync_v2_ptsz"])  # fmt: skip
def copy_2d(request: pytest.FixtureRequest, driver: Driver, stream: int) -> Run2D:
    """Each form of the copy, finished when it returns."""
    in_stream = [stream] if "Async" in request.param else []

    def run(what: Memcpy2D) -> None:
        driver.check(request.param, byref(what), *in_stream)
        driver.cuCtxSynchronize()

    return run


def cut(data: bytes, pitch: int, x: int, y: int, width: int, height: int) -> bytes:
    """The box's rows, one after the other."""
    rows = range(y, y + height)
    return b"".join(data[row * pitch + x : row * pitch + x + width] for row in rows)


def test_a_box_to_the_device_and_back(driver: Driver, copy_2d: Run2D) -> None:
    source, target = host(pattern(40 * 100)), (c_char * (50 * 30))()
    with allocated(driver, 64 * 60) as address:
        driver.cuMemsetD8_v2(address, 0, 64 * 60)
        copy_2d(
            Memcpy2D(
                src_type=TYPE_HOST, src_host=addressof(source), src_pitch=100, src_x=7, src_y=3,
                dst_type=TYPE_DEVICE, dst_device=address, dst_pitch=64, dst_x=5, dst_y=2,
                width=50, height=30,
            )
        )  # fmt: skip
        expected = cut(source.raw, 100, 7, 3, 50, 30)
        assert cut(driver.download(address, 64 * 60), 64, 5, 2, 50, 30) == expected
        assert driver.download(address, 64 * 2 + 5) == bytes(64 * 2 + 5)
        copy_2d(
            Memcpy2D(
                src_type=TYPE_UNIFIED, src_device=address, src_pitch=64, src_x=5, src_y=2,
                dst_type=TYPE_HOST, dst_host=addressof(target), dst_pitch=50,
                width=50, height=30,
            )
        )  # fmt: skip
        assert target.raw == expected


BOX = st.tuples(*[st.integers(1, 20)] * 2, *[st.integers(0, 8)] * 4, *[st.integers(0, 9)] * 2)


@settings(
    deadline=None,
    max_examples=60,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(box=BOX)
def test_any_box(driver: Driver, box: tuple[int, ...]) -> None:
    width, height, src_x, src_y, dst_x, dst_y, src_extra, dst_extra = box
    src_pitch, dst_pitch = src_x + width + src_extra, dst_x + width + dst_extra
    data = pattern(src_pitch * (src_y + height))
    size = dst_pitch * (dst_y + height)
    model = bytearray(size)
    for row in range(height):
        at, of = (dst_y + row) * dst_pitch + dst_x, (src_y + row) * src_pitch + src_x
        model[at : at + width] = data[of : of + width]
    with allocated(driver, len(data)) as source, allocated(driver, size) as target:
        driver.upload(source, data)
        driver.cuMemsetD8_v2(target, 0, size)
        driver.cuMemcpy2DUnaligned_v2(
            byref(
                Memcpy2D(
                    src_type=TYPE_DEVICE, src_device=source, src_pitch=src_pitch,
                    src_x=src_x, src_y=src_y,
                    dst_type=TYPE_DEVICE, dst_device=target, dst_pitch=dst_pitch,
                    dst_x=dst_x, dst_y=dst_y, width=width, height=height,
                )
            )
        )  # fmt: skip
        assert driver.download(target, size) == bytes(model)


def test_boxes_that_cannot_be(driver: Driver) -> None:
    buffer = (c_char * 4096)()

    def code(**changes: int) -> int:
        fields = {
            "src_type": TYPE_HOST, "src_host": addressof(buffer), "src_pitch": 64,
            "dst_type": TYPE_DEVICE, "dst_device": address, "dst_pitch": 64,
            "width": 64, "height": 4,
        }  # fmt: skip
        return driver.code("cuMemcpy2D_v2", byref(Memcpy2D(**{**fields, **changes})))

    with allocated(driver, 4096) as address:
        assert code() == SUCCESS
        assert code(src_pitch=63) == INVALID_VALUE
        assert code(dst_pitch=63) == INVALID_VALUE
        assert code(dst_x=1) == INVALID_VALUE
        assert code(src_type=9) == INVALID_VALUE
        assert code(dst_type=0) == INVALID_VALUE
        assert code(src_host=0) == INVALID_VALUE
        if driver.sim():
            assert code(height=65) == INVALID_VALUE
            assert code(dst_y=61) == INVALID_VALUE
            assert code(dst_device=0) == INVALID_VALUE
            assert code(height=1 << 62) == INVALID_VALUE
            assert code(dst_y=(1 << 64) - 1) == INVALID_VALUE
            assert code(dst_pitch=1 << 40) == INVALID_VALUE
            assert driver.code("cuMemcpy2D_v2", None) == INVALID_VALUE


def test_overlapping_boxes_come_out_as_a_move(sim_table: SimTable, driver: Driver) -> None:
    data = pattern(64 * 20)
    with allocated(driver, 64 * 30) as address:
        for source, target in ((0, 3), (3, 0)):
            driver.upload(address + 64 * source, data)
            box = Memcpy2D(
                src_type=TYPE_DEVICE, src_device=address, src_pitch=64, src_y=source,
                dst_type=TYPE_DEVICE, dst_device=address, dst_pitch=64, dst_y=target,
                width=64, height=20,
            )  # fmt: skip
            driver.cuMemcpy2D_v2(byref(box))
            assert driver.download(address + 64 * target, len(data)) == data


# ---- three dimensions ----


def box_3d(address: int, buffer: Buffer, **changes: int) -> Memcpy3D:
    """8 x 3 x 2 bytes of the buffer (rows of 10, slices of 4) to the device (16, 5)."""
    fields = {
        "src_type": TYPE_HOST, "src_host": addressof(buffer), "src_pitch": 10, "src_height": 4,
        "dst_type": TYPE_DEVICE, "dst_device": address, "dst_pitch": 16, "dst_height": 5,
        "dst_x": 1, "dst_y": 2, "dst_z": 1, "width": 8, "height": 3, "depth": 2,
    }  # fmt: skip
    return Memcpy3D(**{**fields, **changes})


def expected_3d(data: bytes) -> bytes:
    model = bytearray(16 * 5 * 3)
    for z in range(2):
        for y in range(3):
            at, of = ((z + 1) * 5 + y + 2) * 16 + 1, (z * 4 + y) * 10
            model[at : at + 8] = data[of : of + 8]
    return bytes(model)


@pytest.mark.parametrize(
    "function",
    ["cuMemcpy3D_v2", "cuMemcpy3D_v2_ptds", "cuMemcpy3DAsync_v2", "cuMemcpy3DAsync_v2_ptsz",
     "cuMemcpy3DPeer", "cuMemcpy3DPeer_ptds", "cuMemcpy3DPeerAsync", "cuMemcpy3DPeerAsync_ptsz"],
)  # fmt: skip
def test_a_block(driver: Driver, context: int, stream: int, function: str) -> None:
    buffer = host(pattern(80))
    peers = {"src_context": context, "dst_context": context} if "Peer" in function else {}
    with allocated(driver, 16 * 5 * 3) as address:
        driver.cuMemsetD8_v2(address, 0, 16 * 5 * 3)
        in_stream = [stream] if "Async" in function else []
        driver.check(function, byref(box_3d(address, buffer, **peers)), *in_stream)
        driver.cuCtxSynchronize()
        assert driver.download(address, 16 * 5 * 3) == expected_3d(buffer.raw)


def test_blocks_that_cannot_be(driver: Driver) -> None:
    buffer = host(pattern(80))
    with allocated(driver, 16 * 5 * 3) as address:
        for changes in (
            {"src_pitch": 7},
            {"dst_height": 4},
            {"src_height": 2},
            {"src_lod": 1},
            {"dst_lod": 1},
            {"src_type": 7},
        ):
            code = driver.code("cuMemcpy3D_v2", byref(box_3d(address, buffer, **changes)))
            assert code == INVALID_VALUE, changes


def test_blocks_past_the_end(sim_table: SimTable, driver: Driver) -> None:
    buffer = host(pattern(80))
    with allocated(driver, 16 * 5 * 3 - 16 * 5) as address:
        code = driver.code("cuMemcpy3D_v2", byref(box_3d(address, buffer)))
        assert code == INVALID_VALUE
    for changes in ({"depth": 1 << 60}, {"dst_z": 1 << 60}, {"src_height": 1 << 50, "depth": 9}):
        with allocated(driver, 4096) as address:
            code = driver.code("cuMemcpy3D_v2", byref(box_3d(address, buffer, **changes)))
            assert code == INVALID_VALUE, changes


def test_peer_blocks_name_live_contexts(sim_table: SimTable, driver: Driver) -> None:
    buffer = host(pattern(80))
    with allocated(driver, 16 * 5 * 3) as address:
        box = box_3d(address, buffer, dst_context=0xDEAD)
        assert driver.code("cuMemcpy3DPeer", byref(box)) == INVALID_CONTEXT


# ---- batches ----


@pytest.mark.parametrize("suffix", ["_v2", "_v2_ptsz", "", "_ptsz"])
def test_a_batch(driver: Driver, stream: int, suffix: str) -> None:
    function = "cuMemcpyBatchAsync" + suffix
    if not hasattr(driver.dll, function):
        pytest.skip("the driver is older than CUDA 13.0")
    source, back = host(pattern(3000)), (c_char * 3000)()
    with allocated(driver, 3000) as address:
        to = (c_uint64 * 3)(*[address + i * 1000 for i in range(3)])
        of = (c_uint64 * 3)(*[addressof(source) + i * 1000 for i in range(3)])
        sizes = (c_size_t * 3)(1000, 1000, 1000)
        attributes = (CopyAttributes * 2)(CopyAttributes(order=1), CopyAttributes(order=2))
        first = (c_size_t * 2)(0, 2)
        fail = [] if "_v2" in suffix else [byref(c_size_t())]
        driver.check(function, to, of, sizes, 3, attributes, first, 2, *fail, stream)
        driver.cuStreamSynchronize(stream)
        driver.cuMemcpyDtoH_v2(back, address, 3000)
        assert back.raw == source.raw
        attributes[1].order = 0
        code = driver.code(function, to, of, sizes, 3, attributes, first, 2, *fail, stream)
        assert code == INVALID_VALUE
        first[0] = 1
        attributes[1].order = 1
        code = driver.code(function, to, of, sizes, 3, attributes, first, 2, *fail, stream)
        assert code == INVALID_VALUE


def test_a_batch_says_which_copy_failed(sim_table: SimTable, driver: Driver, stream: int) -> None:
    source, failed = host(pattern(100)), c_size_t()
    with allocated(driver, 100) as address:
        to = (c_uint64 * 3)(address, address + 50, address + 99)
        of = (c_uint64 * 3)(*[addressof(source)] * 3)
        code = driver.code(
            "cuMemcpyBatchAsync", to, of, (c_size_t * 3)(50, 50, 2), 3,
            byref(CopyAttributes(order=1)), byref(c_size_t(0)), 1, byref(failed), stream,
        )  # fmt: skip
        assert (code, failed.value) == (INVALID_VALUE, 2)


@pytest.mark.parametrize("suffix", ["_v2", "_v2_ptsz"])
def test_a_batch_of_blocks(driver: Driver, stream: int, suffix: str) -> None:
    function = "cuMemcpy3DBatchAsync" + suffix
    if not hasattr(driver.dll, function):
        pytest.skip("the driver is older than CUDA 13.0")
    source = host(pattern(80))
    with allocated(driver, 256) as address:
        driver.cuMemsetD8_v2(address, 0, 256)
        op = BatchOp3D(width=8, height=3, depth=2, order=1)
        op.src.type = op.dst.type = 1
        op.src.place.pointer.ptr = addressof(source)
        op.src.place.pointer.row_length, op.src.place.pointer.layer_height = 10, 4
        op.dst.place.pointer.ptr = address  # tightly packed
        driver.check(function, 1, byref(op), 0, stream)
        driver.cuStreamSynchronize(stream)
        expected = cut(source.raw, 10, 0, 0, 8, 3) + cut(source.raw, 10, 0, 4, 8, 3)
        assert driver.download(address, 64) == expected + bytes(16)
        op.depth = 0
        assert driver.code(function, 1, byref(op), 0, stream) == INVALID_VALUE


def test_every_copy_wants_a_context(sim_table: SimTable, driver: Driver) -> None:
    codes: list[int] = []

    def bare() -> None:
        box, block = byref(Memcpy2D(width=1, height=1)), byref(Memcpy3D(width=1))
        codes.append(driver.code("cuMemcpy2D_v2", box))
        codes.append(driver.code("cuMemcpy3D_v2", block))
        codes.append(driver.code("cuMemcpyAsync", 1, 1, 1, None))
        codes.append(driver.code("cuMemsetD2D8_v2", 1, 1, 1, 1, 1))

    thread = threading.Thread(target=bare)
    thread.start()
    thread.join(20)
    assert codes == [INVALID_CONTEXT] * 4


def test_memory_that_a_copy_reads_is_left_alone(driver: Driver) -> None:
    buffer = (c_char * 256)()
    memset(buffer, 3, 256)
    with allocated(driver, 256) as address:
        driver.cuMemcpyHtoD_v2(address, buffer, 256)
        assert buffer.raw == b"\3" * 256
