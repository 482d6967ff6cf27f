# SPDX-License-Identifier: GPL-2.0-only
"""CUDA arrays and mipmapped arrays: descriptors, sizes, copies."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import addressof, byref, c_char, c_uint64

import pytest
from cuda_driver import (
    INVALID_HANDLE,
    INVALID_VALUE,
    NOT_SUPPORTED,
    SUCCESS,
    Array3DDescriptor,
    ArrayDescriptor,
    Driver,
    SimTable,
)
from memory_types import (
    TYPE_ARRAY,
    TYPE_DEVICE,
    TYPE_HOST,
    BatchOp3D,
    Memcpy2D,
    Memcpy3D,
    Script,
    allocated,
    pattern,
)

U8, U16, U32, S8, S16, S32, HALF, FLOAT = 1, 2, 3, 8, 9, 10, 16, 32
LAYERED, SURFACE, CUBEMAP, GATHER, SPARSE = 1, 2, 4, 8, 64

pytestmark = pytest.mark.usefixtures("context")


def described(
    width: int, height: int = 0, depth: int = 0, format_: int = FLOAT, channels: int = 1,
    flags: int = 0,
) -> Array3DDescriptor:  # fmt: skip
    return Array3DDescriptor(width, height, depth, format_, channels, flags)


@contextmanager
def array(driver: Driver, descriptor: Array3DDescriptor) -> Iterator[int]:
    handle = driver.new("cuArray3DCreate_v2", byref(descriptor))
    try:
        yield handle
    finally:
        driver.cuArrayDestroy(handle)


def used(table: SimTable) -> int:
    value = c_uint64()
    assert table.device_used(0, byref(value)) == SUCCESS
    return value.value


# ---- descriptors ----


@pytest.mark.parametrize("format_", [U8, U16, U32, S8, S16, S32, HALF, FLOAT])
@pytest.mark.parametrize("channels", [1, 2, 4])
def test_an_array_knows_its_descriptor(driver: Driver, format_: int, channels: int) -> None:
    want = described(31, 7, 0, format_, channels)
    with array(driver, want) as handle:
        got = Array3DDescriptor()
        driver.cuArray3DGetDescriptor_v2(byref(got), handle)
        assert bytes(got) == bytes(want)
        flat = ArrayDescriptor()
        driver.cuArrayGetDescriptor_v2(byref(flat), handle)
        assert (flat.width, flat.height, flat.format, flat.channels) == (31, 7, format_, channels)


def test_the_two_dimensional_form(driver: Driver) -> None:
    handle = driver.new("cuArrayCreate_v2", byref(ArrayDescriptor(100, 3, U8, 4)))
    got = Array3DDescriptor()
    driver.cuArray3DGetDescriptor_v2(byref(got), handle)
    assert (got.width, got.height, got.depth, got.flags) == (100, 3, 0, 0)
    driver.cuArrayDestroy(handle)


@pytest.mark.parametrize(
    "descriptor",
    [
        described(64),
        described(64, 64),
        described(16, 8, 4),
        described(64, 0, 3, flags=LAYERED),
        described(64, 16, 3, flags=LAYERED),
        described(32, 32, 6, flags=CUBEMAP),
        described(32, 32, 12, flags=CUBEMAP | LAYERED),
        described(64, 64, flags=GATHER),
        described(64, 64, flags=SURFACE),
    ],
    ids=lambda d: f"{d.width}x{d.height}x{d.depth}-{d.flags}",
)
def test_every_kind_of_array(driver: Driver, descriptor: Array3DDescriptor) -> None:
    with array(driver, descriptor):
        pass


@pytest.mark.parametrize(
    "descriptor",
    [
        described(0),
        described(0, 4),
        described(64, 0, 3),
        described(64, 64, 0, FLOAT, 3),
        described(64, 64, 0, FLOAT, 0),
        described(64, 64, 0, FLOAT, 8),
        described(64, 64, 0, 0x77),
        described(1 << 20, 1 << 20),
        described(1 << 20, 4, 4),
        described(64, 16, 0, flags=LAYERED),
        described(64, 64, 4, flags=LAYERED | 1 << 20),
        described(32, 16, 6, flags=CUBEMAP),
        described(32, 32, 5, flags=CUBEMAP),
        described(32, 32, 7, flags=CUBEMAP | LAYERED),
    ],
    ids=lambda d: f"{d.width}x{d.height}x{d.depth}x{d.channels}-{d.format}-{d.flags}",
)
def test_arrays_that_cannot_be(driver: Driver, descriptor: Array3DDescriptor) -> None:
    assert driver.code("cuArray3DCreate_v2", byref(c_uint64()), byref(descriptor)) == INVALID_VALUE


def test_arrays_want_somewhere_to_go(driver: Driver) -> None:
    assert driver.code("cuArray3DCreate_v2", None, byref(described(64))) == INVALID_VALUE
    assert driver.code("cuArray3DCreate_v2", byref(c_uint64()), None) == INVALID_VALUE
    assert driver.code("cuArrayCreate_v2", byref(c_uint64()), None) == INVALID_VALUE


def test_sparse_arrays_are_not_simulated(sim_table: SimTable, driver: Driver) -> None:
    wanted = described(1024, 1024, flags=SPARSE)
    code = driver.code("cuArray3DCreate_v2", byref(c_uint64()), byref(wanted))
    assert code == NOT_SUPPORTED


def test_handles_that_are_no_arrays(sim_table: SimTable, driver: Driver) -> None:
    got = Array3DDescriptor()
    handle = driver.new("cuArray3DCreate_v2", byref(described(64)))
    driver.cuArrayDestroy(handle)
    for wrong in (handle, 0, 0xDEAD):
        assert driver.code("cuArrayDestroy", wrong) == INVALID_HANDLE
        assert driver.code("cuArray3DGetDescriptor_v2", byref(got), wrong) == INVALID_HANDLE
        assert driver.code("cuMemcpyHtoA_v2", wrong, 0, b"1234", 4) == INVALID_HANDLE


# ---- what they take ----

# Format: channels, bytes of a 4 x 4 block.
COMPRESSED = {
    0x91: (4, 8), 0x95: (4, 16), 0x97: (1, 8), 0x99: (2, 16), 0x9B: (3, 16), 0x9D: (4, 16),
}  # fmt: skip


@pytest.mark.parametrize(
    ("descriptor", "size"),
    [
        (described(100, 0, 0, U8, 1), 100),
        (described(100, 50, 0, FLOAT, 4), 100 * 50 * 16),
        (described(10, 20, 30, U16, 2), 10 * 20 * 30 * 4),
        (described(10, 0, 7, HALF, 1, LAYERED), 10 * 7 * 2),
        (described(32, 32, 12, U8, 4, CUBEMAP | LAYERED), 32 * 32 * 12 * 4),
        (described(10, 20, 0, 0xC2, 4), 10 * 20 * 4),
        *[
            (described(64, 62, 0, format_, channels), 16 * 16 * block)
            for format_, (channels, block) in COMPRESSED.items()
        ],
    ],
    ids=lambda value: f"{value.format:#x}" if isinstance(value, Array3DDescriptor) else str(value),
)
def test_an_array_takes_its_bytes(
    sim_table: SimTable, driver: Driver, descriptor: Array3DDescriptor, size: int
) -> None:
    before = used(sim_table)
    with array(driver, descriptor):
        assert used(sim_table) - before == (size + 511) // 512 * 512
    assert used(sim_table) == before


def test_a_context_takes_its_arrays_with_it(sim_table: SimTable, driver: Driver) -> None:
    before = used(sim_table)
    context = driver.new("cuCtxCreate_v2", 0, 0)
    handle = driver.new("cuArray3DCreate_v2", byref(described(1000, 1000)))
    driver.new("cuMipmappedArrayCreate", byref(described(64, 64)), 3)
    driver.cuCtxDestroy_v2(context)
    assert used(sim_table) == before
    assert driver.code("cuArrayDestroy", handle) == INVALID_HANDLE


def test_the_card_holds_arrays_too(sim_table: SimTable, script: Script) -> None:
    script(
        """
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        wanted = Array3DDescriptor(1024, 1024, 0, 32, 4, 0)
        driver.new("cuArray3DCreate_v2", byref(wanted))
        code = driver.code("cuArray3DCreate_v2", byref(c_uint64()), byref(wanted))
        assert code == OUT_OF_MEMORY
        code = driver.code("cuMipmappedArrayCreate", byref(c_uint64()), byref(wanted), 4)
        assert code == OUT_OF_MEMORY
        assert driver.memory_info()[0] == 8 << 20
        """,
        EMUV_SIM_VRAM=str(24 << 20),
    )


# ---- copies ----


def host(data: bytes) -> ctypes.Array:  # type: ignore[type-arg]
    return (c_char * len(data)).from_buffer_copy(data)


def test_a_row_there_and_back(driver: Driver) -> None:
    data = pattern(4096)
    back = (c_char * 4096)()
    with array(driver, described(1024)) as one, array(driver, described(1024)) as two:
        driver.cuMemcpyHtoA_v2(one, 0, data, 4096)
        driver.cuMemcpyAtoA_v2(two, 0, one, 0, 4096)
        driver.cuMemcpyAtoH_v2(back, two, 0, 4096)
        assert back.raw == data
        driver.cuMemcpyAtoH_v2(back, two, 400, 40)
        assert back.raw[:40] == data[400:440]
        with allocated(driver, 4096) as address:
            driver.cuMemcpyAtoD_v2(address, one, 0, 4096)
            assert driver.download(address, 4096) == data
            driver.cuMemsetD8_v2(address, 7, 4096)
            driver.cuMemcpyDtoA_v2(one, 4, address, 8)
        driver.cuMemcpyAtoHAsync_v2(back, one, 0, 16, None)
        driver.cuCtxSynchronize()
        assert back.raw[:16] == data[:4] + b"\7" * 8 + data[12:16]
        driver.cuMemcpyHtoAAsync_v2(one, 0, back, 4, None)
        driver.cuCtxSynchronize()


def test_a_row_ends(driver: Driver) -> None:
    with array(driver, described(16)) as handle:
        assert driver.code("cuMemcpyHtoA_v2", handle, 0, pattern(128), 68) == INVALID_VALUE
        assert driver.code("cuMemcpyHtoA_v2", handle, 60, pattern(128), 8) == INVALID_VALUE


def test_copies_are_of_whole_elements(driver: Driver) -> None:
    with array(driver, described(16)) as handle:
        assert driver.code("cuMemcpyHtoA_v2", handle, 2, pattern(64), 4) == INVALID_VALUE


def test_a_box_in_an_array(driver: Driver) -> None:
    data, back = host(pattern(64 * 16)), (c_char * (32 * 8))()
    with array(driver, described(16, 16)) as handle:
        everything = Memcpy2D(
            src_type=TYPE_HOST, src_host=addressof(data), src_pitch=64,
            dst_type=TYPE_ARRAY, dst_array=handle, width=64, height=16,
        )  # fmt: skip
        driver.cuMemcpy2D_v2(byref(everything))
        piece = Memcpy2D(
            src_type=TYPE_ARRAY, src_array=handle, src_x=8, src_y=4,
            dst_type=TYPE_HOST, dst_host=addressof(back), dst_pitch=32, width=32, height=8,
        )  # fmt: skip
        driver.cuMemcpy2D_v2(byref(piece))
        rows = [data.raw[64 * y + 8 : 64 * y + 40] for y in range(4, 12)]
        assert back.raw == b"".join(rows)
        for field, value in (("src_x", 40), ("src_y", 9), ("src_x", 2), ("width", 30)):
            wrong = Memcpy2D.from_buffer_copy(piece)
            setattr(wrong, field, value)
            assert driver.code("cuMemcpy2D_v2", byref(wrong)) == INVALID_VALUE, field


@pytest.mark.parametrize("flags", [0, LAYERED, CUBEMAP])
def test_blocks_and_layers(driver: Driver, flags: int) -> None:
    width, height, depth = 8, 8, 6
    data, size = host(pattern(width * height * depth * 4)), width * height * depth * 4
    with (
        array(driver, described(width, height, depth, FLOAT, 1, flags)) as handle,
        allocated(driver, size) as address,
    ):
        there = Memcpy3D(
            src_type=TYPE_HOST, src_host=addressof(data), src_pitch=32, src_height=8,
            dst_type=TYPE_ARRAY, dst_array=handle, width=32, height=8, depth=6,
        )  # fmt: skip
        driver.cuMemcpy3D_v2(byref(there))
        driver.cuMemsetD8_v2(address, 0, size)
        back = Memcpy3D(
            src_type=TYPE_ARRAY, src_array=handle, src_z=2,
            dst_type=TYPE_DEVICE, dst_device=address, dst_pitch=32, dst_height=8,
            width=32, height=8, depth=3,
        )  # fmt: skip
        driver.cuMemcpy3D_v2(byref(back))
        assert driver.download(address, size)[: 3 * 256] == data.raw[2 * 256 : 5 * 256]
        back.src_z = 4
        assert driver.code("cuMemcpy3D_v2", byref(back)) == INVALID_VALUE


def test_elements_of_different_sizes_do_not_mix(driver: Driver) -> None:
    narrow, wide = described(16, 0, 0, FLOAT, 1), described(16, 0, 0, FLOAT, 2)
    with array(driver, narrow) as one, array(driver, wide) as two:
        assert driver.code("cuMemcpyAtoA_v2", two, 0, one, 0, 64) != SUCCESS


def test_a_batch_that_fills_an_array(driver: Driver) -> None:
    if not hasattr(driver.dll, "cuMemcpy3DBatchAsync_v2"):
        pytest.skip("the driver is older than CUDA 13.0")
    data, back = host(pattern(8 * 4 * 4)), (c_char * (8 * 4 * 4))()
    stream = driver.new("cuStreamCreate", 1)
    with array(driver, described(16, 16)) as handle:
        op = BatchOp3D(width=8, height=4, depth=1, order=1)
        op.src.type, op.dst.type = 1, 2
        op.src.place.pointer.ptr = addressof(data)
        op.dst.place.array.array, op.dst.place.array.x, op.dst.place.array.y = handle, 3, 5
        driver.cuMemcpy3DBatchAsync_v2(1, byref(op), 0, stream)
        driver.cuStreamSynchronize(stream)
        piece = Memcpy2D(
            src_type=TYPE_ARRAY, src_array=handle, src_x=12, src_y=5,
            dst_type=TYPE_HOST, dst_host=addressof(back), dst_pitch=32, width=32, height=4,
        )  # fmt: skip
        driver.cuMemcpy2D_v2(byref(piece))
        assert back.raw == data.raw


# ---- mipmaps ----


def test_the_levels_of_a_mipmap(driver: Driver) -> None:
    mipmap = driver.new("cuMipmappedArrayCreate", byref(described(64, 16)), 4)
    for level, (width, height) in enumerate([(64, 16), (32, 8), (16, 4), (8, 2)]):
        handle = driver.new("cuMipmappedArrayGetLevel", mipmap, level)
        got = ArrayDescriptor()
        driver.cuArrayGetDescriptor_v2(byref(got), handle)
        assert (got.width, got.height) == (width, height)
    code = driver.code("cuMipmappedArrayGetLevel", byref(c_uint64()), mipmap, 4)
    assert code == INVALID_VALUE
    driver.cuMipmappedArrayDestroy(mipmap)


def test_levels_have_bytes_of_their_own(driver: Driver) -> None:
    mipmap = driver.new("cuMipmappedArrayCreate", byref(described(16)), 3)
    levels = [driver.new("cuMipmappedArrayGetLevel", mipmap, i) for i in range(3)]
    for i, level in enumerate(levels):
        driver.cuMemcpyHtoA_v2(level, 0, pattern(64 >> i, i), 64 >> i)
    for i, level in enumerate(levels):
        back = (c_char * (64 >> i))()
        driver.cuMemcpyAtoH_v2(back, level, 0, 64 >> i)
        assert back.raw == pattern(64 >> i, i)
    driver.cuMipmappedArrayDestroy(mipmap)


def test_layers_are_not_halved(driver: Driver) -> None:
    wanted = described(16, 16, 5, FLOAT, 1, LAYERED)
    mipmap = driver.new("cuMipmappedArrayCreate", byref(wanted), 2)
    got = Array3DDescriptor()
    level = driver.new("cuMipmappedArrayGetLevel", mipmap, 1)
    driver.cuArray3DGetDescriptor_v2(byref(got), level)
    assert (got.width, got.height, got.depth) == (8, 8, 5)
    driver.cuMipmappedArrayDestroy(mipmap)


def test_a_mipmap_takes_all_its_levels(sim_table: SimTable, driver: Driver) -> None:
    before = used(sim_table)
    mipmap = driver.new("cuMipmappedArrayCreate", byref(described(64, 64)), 99)
    sizes = [max(512, (64 >> i) ** 2 * 4) for i in range(7)]
    assert used(sim_table) - before == sum(sizes)
    level = driver.new("cuMipmappedArrayGetLevel", mipmap, 6)
    assert driver.code("cuMipmappedArrayGetLevel", byref(c_uint64()), mipmap, 7) == INVALID_VALUE
    assert driver.code("cuArrayDestroy", level) == INVALID_HANDLE  # it is the mipmap's
    driver.cuMipmappedArrayDestroy(mipmap)
    assert used(sim_table) == before
    assert driver.code("cuMipmappedArrayDestroy", mipmap) == INVALID_HANDLE
    assert driver.code("cuArrayGetDescriptor_v2", byref(ArrayDescriptor()), level) == INVALID_HANDLE


# ---- what only other arrays have ----


def test_properties_that_a_plain_array_has_not(driver: Driver) -> None:
    out = (c_uint64 * 8)()
    with array(driver, described(64, 64)) as handle:
        assert driver.code("cuArrayGetSparseProperties", out, handle) == INVALID_VALUE
        assert driver.code("cuArrayGetPlane", out, handle, 0) == INVALID_VALUE
        assert driver.code("cuArrayGetMemoryRequirements", out, handle, 0) == INVALID_VALUE
