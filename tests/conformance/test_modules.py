# SPDX-License-Identifier: GPL-2.0-only
"""Modules, libraries, linking: what is in an image, and what is not."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from ctypes import (
    byref,
    c_char,
    c_char_p,
    c_float,
    c_int,
    c_size_t,
    c_uint,
    c_uint64,
    c_void_p,
    cast,
    create_string_buffer,
    string_at,
)
from pathlib import Path
from random import Random

import pytest
from cuda_driver import (
    FILE_NOT_FOUND,
    INVALID_HANDLE,
    INVALID_IMAGE,
    INVALID_PTX,
    INVALID_VALUE,
    NO_BINARY_FOR_GPU,
    NOT_FOUND,
    SUCCESS,
    Driver,
    SimTable,
)

PTX = b"""// a comment with .entry ghost( in it
.version 7.0
.target sm_50
.address_size 64

.visible .global .align 4 .b8 table[16] = {1, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0};
.visible .global .align 8 .f64 scale = 0d3FF8000000000000;
.visible .const .align 4 .u32 limit = 0x10;
.visible .global .align 4 .s32 below = -2;
.visible .global .align 16 .b8 buffer[1000];
.extern .global .align 4 .u32 elsewhere;

.func (.param .b32 out) helper(.param .u64 .ptr .global .align 8 where, .param .b32 n)
{
	.reg .b32 %r<2>;
	ld.param.u32 %r1, [n];
	st.param.b32 [out], %r1;
	ret;
}

.visible .entry fill(
	.param .u64 .ptr .global .align 4 to,
	.param .u32 count,
	.param .align 8 .b8 packed[24]
)
.maxntid 256, 1, 1
{
	.reg .b32 %r<2>;
	{ ret; }
}
/* .entry not_here() */
.visible .entry empty() { ret; }
"""

HEAD = b".version 7.0\n.target sm_50\n.address_size 64\n"


@pytest.fixture
def module(driver: Driver, context: int) -> Iterator[int]:
    """PTX, loaded."""
    handle = driver.new("cuModuleLoadData", PTX)
    yield handle
    driver.code("cuModuleUnload", handle)


def test_functions(driver: Driver, module: int) -> None:
    fill = driver.new("cuModuleGetFunction", module, b"fill")
    assert driver.new("cuModuleGetFunction", module, b"fill") == fill
    assert driver.new("cuModuleGetFunction", module, b"empty") != fill
    for missing in (b"ghost", b"not_here", b"helper", b"table"):
        code = driver.code("cuModuleGetFunction", byref(c_void_p()), module, missing)
        assert code == NOT_FOUND, missing
    assert driver.code("cuModuleGetFunction", byref(c_void_p()), module, b"") == INVALID_VALUE
    assert driver.code("cuModuleGetFunction", byref(c_void_p()), module, None) == INVALID_VALUE
    assert driver.get(c_uint, "cuModuleGetFunctionCount", module) == 2
    handles = (c_void_p * 2)()
    driver.cuModuleEnumerateFunctions(handles, 2, module)
    names = {driver.get(c_char_p, "cuFuncGetName", handle) for handle in handles}
    assert names == {b"fill", b"empty"}
    assert driver.new("cuFuncGetModule", fill) == module


def test_function_attributes(driver: Driver, module: int) -> None:
    fill = driver.new("cuModuleGetFunction", module, b"fill")
    empty = driver.new("cuModuleGetFunction", module, b"empty")
    assert driver.get(c_int, "cuFuncGetAttribute", 0, fill) == 256
    assert driver.get(c_int, "cuFuncGetAttribute", 0, empty) == 1024
    assert driver.get(c_int, "cuFuncGetAttribute", 5, fill) == 50
    dynamic_shared = 8
    driver.cuFuncSetAttribute(fill, dynamic_shared, 1024)
    assert driver.get(c_int, "cuFuncGetAttribute", dynamic_shared, fill) == 1024
    assert driver.code("cuFuncSetAttribute", fill, dynamic_shared, 1 << 28) == INVALID_VALUE
    assert driver.code("cuFuncSetAttribute", fill, 4, 16) == INVALID_VALUE  # registers
    assert driver.code("cuFuncGetAttribute", byref(c_int()), 99, fill) == INVALID_VALUE


def test_registers_keep_to_the_limit_of_the_options(driver: Driver, context: int) -> None:
    """More values at once than 24 registers hold, by each way to load text."""
    registers = "".join(f"ld.global.u32 %r{i}, [%a+{4 * i}];\n" for i in range(200))
    sums = "".join(f"add.u32 %r0, %r0, %r{i};\n" for i in range(1, 200))
    text = (
        ".version 7.0\n.target sm_80\n.address_size 64\n.const .align 8 .b8 table[80];\n"
        ".visible .entry wide(.param .u64 p) {\n.reg .u64 %a;\n.reg .u32 %r<200>;\n"
        f"ld.param.u64 %a, [p];\n{registers}{sums}st.global.u32 [%a], %r0;\nret;\n}}\n"
    ).encode()
    const_bytes, count, limit = 2, 4, 24
    options, values = (c_int * 1)(0), (c_void_p * 1)(limit)

    def of_module(image: object, *more: object) -> int:
        made = driver.new("cuModuleLoadDataEx", image, *(more or (0, None, None)))
        function = driver.new("cuModuleGetFunction", made, b"wide")
        assert driver.get(c_int, "cuFuncGetAttribute", const_bytes, function) == 80
        return int(driver.get(c_int, "cuFuncGetAttribute", count, function))

    assert of_module(text) > limit
    assert of_module(text, 1, options, values) <= limit
    state = c_void_p()
    driver.cuLinkCreate_v2(1, options, values, byref(state))
    driver.cuLinkAddData_v2(state, 1, text, len(text) + 1, b"wide", 0, None, None)
    output, size = c_void_p(), c_size_t()
    driver.cuLinkComplete(state, byref(output), byref(size))
    assert of_module(output) <= limit
    driver.cuLinkDestroy(state)
    library = driver.new("cuLibraryLoadData", text, options, values, 1, None, None, 0)
    kernel = driver.new("cuLibraryGetKernel", library, b"wide")
    assert driver.get(c_int, "cuKernelGetAttribute", count, kernel, 0) <= limit


def test_parameters(driver: Driver, module: int) -> None:
    fill = driver.new("cuModuleGetFunction", module, b"fill")
    found = []
    for index in range(3):
        offset, size = c_size_t(), c_size_t()
        driver.cuFuncGetParamInfo(fill, index, byref(offset), byref(size))
        found.append((offset.value, size.value))
    assert found == [(0, 8), (8, 4), (16, 24)]
    code = driver.code("cuFuncGetParamInfo", fill, 3, byref(c_size_t()), byref(c_size_t()))
    assert code == INVALID_VALUE


def variable(driver: Driver, module: int, name: bytes) -> tuple[int, int]:
    """(address, bytes) of a module's variable."""
    address, size = c_uint64(), c_size_t()
    driver.cuModuleGetGlobal_v2(byref(address), byref(size), module, name)
    return address.value, size.value


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (b"table", struct.pack("<4i", 1, 2, 3, 4)),
        (b"scale", struct.pack("<d", 1.5)),
        (b"limit", struct.pack("<I", 16)),
        (b"below", struct.pack("<i", -2)),
        (b"buffer", bytes(1000)),
    ],
    ids=["table", "scale", "limit", "below", "buffer"],
)
def test_variables(driver: Driver, module: int, name: bytes, content: bytes) -> None:
    address, size = variable(driver, module, name)
    assert size == len(content)
    assert driver.download(address, size) == content
    driver.upload(address, bytes(size))
    assert variable(driver, module, name) == (address, size)
    assert driver.download(address, size) == bytes(size)


def test_variables_that_are_none(driver: Driver, module: int) -> None:
    for missing in (b"elsewhere", b"fill", b"nothing"):
        code = driver.code("cuModuleGetGlobal_v2", byref(c_uint64()), None, module, missing)
        assert code == NOT_FOUND, missing
    size = c_size_t()
    driver.cuModuleGetGlobal_v2(None, byref(size), module, b"table")
    assert size.value == 16


def test_unloading_gives_the_memory_back(
    driver: Driver, context: int, sim_table: SimTable
) -> None:
    used = c_uint64()
    sim_table.device_used(0, byref(used))
    before = used.value
    text = HEAD + b".visible .global .b8 big[8388608];\n.visible .entry k() { ret; }"
    module = driver.new("cuModuleLoadData", text)
    variable(driver, module, b"big")
    sim_table.device_used(0, byref(used))
    assert used.value == before + 8388608
    driver.cuModuleUnload(module)
    sim_table.device_used(0, byref(used))
    assert used.value == before
    assert driver.code("cuModuleUnload", module) == INVALID_HANDLE


def load(driver: Driver, image: bytes) -> int:
    module = c_uint64()
    code = driver.code("cuModuleLoadData", byref(module), image)
    if code == SUCCESS:
        driver.cuModuleUnload(module.value)
    return code


@pytest.mark.parametrize(
    "text",
    [
        b"this is no PTX",
        b".target sm_50\n",
        HEAD + b".visible .entry broken(",
        HEAD + b".visible .entry broken() { ret;",
        HEAD + b".visible .global .b8 x[",
        HEAD + b"}",
    ],
    ids=["text", "no version", "parameters", "body", "dimension", "brace"],
)
def test_broken_text(driver: Driver, context: int, text: bytes) -> None:
    assert load(driver, text) == INVALID_PTX


def test_what_is_no_image(driver: Driver, context: int) -> None:
    program = Path("/proc/self/exe").read_bytes()  # an ELF file, for another machine
    for image in (b"\x01\x02\x03\x04" + bytes(200), program):
        assert load(driver, image) == INVALID_IMAGE
    assert driver.code("cuModuleLoadData", byref(c_void_p()), None) == INVALID_VALUE
    assert driver.code("cuModuleLoadData", None, PTX) == INVALID_VALUE


def test_files(driver: Driver, context: int, tmp_path: Path) -> None:
    path = tmp_path / "kernels.ptx"
    path.write_bytes(PTX)
    module = driver.new("cuModuleLoad", str(path).encode())
    driver.new("cuModuleGetFunction", module, b"fill")
    driver.cuModuleUnload(module)
    missing = str(tmp_path / "missing").encode()
    assert driver.code("cuModuleLoad", byref(c_void_p()), missing) == FILE_NOT_FOUND
    library = driver.new(
        "cuLibraryLoadFromFile", str(path).encode(), None, None, 0, None, None, 0
    )
    driver.cuLibraryUnload(library)


ERROR_LOG, ERROR_LOG_BYTES = 5, 6


def test_the_error_log(driver: Driver, context: int) -> None:
    log = create_string_buffer(b"x" * 200, 256)
    options = (c_int * 2)(ERROR_LOG, ERROR_LOG_BYTES)
    values = (c_void_p * 2)(cast(log, c_void_p), 256)
    bad = HEAD + b"\n\n.visible .entry broken(7)"
    code = driver.code("cuModuleLoadDataEx", byref(c_void_p()), bad, 2, options, values)
    assert code == INVALID_PTX
    assert 0 < len(log.value) < 200
    assert b"line 6" in log.value
    driver.cuModuleLoadDataEx(byref(c_void_p()), PTX, 2, options, values)
    assert driver.code("cuModuleLoadDataEx", byref(c_void_p()), PTX, 2, None, None) != SUCCESS


def link(driver: Driver, *texts: bytes) -> bytes:
    """The image that comes out of cuLinkComplete."""
    state = c_uint64()
    driver.cuLinkCreate_v2(0, None, None, byref(state))
    for text in texts:
        driver.cuLinkAddData_v2(state.value, 1, text, len(text), b"text", 0, None, None)
    image, size = c_void_p(), c_size_t()
    driver.cuLinkComplete(state.value, byref(image), byref(size))
    copy = string_at(image.value or 0, size.value)
    driver.cuLinkDestroy(state.value)
    return copy


def test_linking(driver: Driver, context: int) -> None:
    image = link(driver, PTX, HEAD + b".visible .entry more(.param .u32 x) { ret; }")
    assert image[:4] == b"\x7fELF"
    assert struct.unpack_from("<H", image, 18) == (190,)
    module = driver.new("cuModuleLoadData", image)
    for name in (b"fill", b"empty", b"more"):
        driver.new("cuModuleGetFunction", module, name)
    assert driver.download(*variable(driver, module, b"table"))[:1] == b"\x01"
    driver.cuModuleUnload(module)


def test_a_library_gives_nothing_to_the_link(
    driver: Driver, context: int, tmp_path: Path
) -> None:
    """Nor does it stop it: what is missing is what the texts do not have."""
    archive = tmp_path / "library.a"
    archive.write_bytes(b"!<arch>\n")
    library = 4
    text = HEAD + b".visible .entry alone() { ret; }\n"
    state = c_uint64()
    driver.cuLinkCreate_v2(0, None, None, byref(state))
    driver.cuLinkAddData_v2(state.value, 1, text, len(text), b"text", 0, None, None)
    driver.cuLinkAddFile_v2(state.value, library, bytes(archive), 0, None, None)
    driver.cuLinkAddData_v2(state.value, library, b"!<arch>\n", 8, b"data", 0, None, None)
    bad = (state.value, library, b"!<arch", 6, b"data", 0, None, None)
    assert driver.code("cuLinkAddData_v2", *bad) == INVALID_IMAGE
    missing = (state.value, library, bytes(tmp_path / "none.a"), 0, None, None)
    assert driver.code("cuLinkAddFile_v2", *missing) == FILE_NOT_FOUND
    image, size = c_void_p(), c_size_t()
    driver.cuLinkComplete(state.value, byref(image), byref(size))
    module = driver.new("cuModuleLoadData", image)
    assert driver.new("cuModuleGetFunction", module, b"alone")


def test_linking_broken_text(driver: Driver, context: int) -> None:
    state = c_uint64()
    driver.cuLinkCreate_v2(0, None, None, byref(state))
    bad = HEAD + b".visible .entry broken("
    add = ("cuLinkAddData_v2", state.value, 1)
    assert driver.code(*add, bad, len(bad), b"bad", 0, None, None) == INVALID_PTX
    assert driver.code(*add, None, 5, b"bad", 0, None, None) == INVALID_VALUE
    assert driver.code("cuLinkAddData_v2", state.value, 99, bad, 5, None, 0, None, None) == (
        INVALID_VALUE
    )
    driver.cuLinkDestroy(state.value)


@pytest.fixture
def library(driver: Driver, context: int) -> Iterator[int]:
    """PTX as a library."""
    handle = driver.new("cuLibraryLoadData", PTX, None, None, 0, None, None, 0)
    yield handle
    driver.code("cuLibraryUnload", handle)


def test_libraries(driver: Driver, library: int) -> None:
    kernel = driver.new("cuLibraryGetKernel", library, b"fill")
    assert driver.new("cuLibraryGetKernel", library, b"fill") == kernel
    assert driver.code("cuLibraryGetKernel", byref(c_void_p()), library, b"no") == NOT_FOUND
    assert driver.get(c_uint, "cuLibraryGetKernelCount", library) == 2
    assert driver.get(c_char_p, "cuKernelGetName", kernel) == b"fill"
    assert driver.new("cuKernelGetLibrary", kernel) == library
    assert driver.get(c_int, "cuKernelGetAttribute", 0, kernel, 0) == 256
    module = driver.new("cuLibraryGetModule", library)
    function = driver.new("cuKernelGetFunction", kernel)
    assert driver.new("cuModuleGetFunction", module, b"fill") == function
    address, size = c_uint64(), c_size_t()
    driver.cuLibraryGetGlobal(byref(address), byref(size), library, b"table")
    assert (address.value, size.value) == variable(driver, module, b"table")


def test_a_librarys_module_is_each_contexts(driver: Driver, context: int, library: int) -> None:
    first = driver.new("cuLibraryGetModule", library)
    other = driver.new("cuCtxCreate_v2", 0, 0)
    second = driver.new("cuLibraryGetModule", library)
    assert first != second
    driver.cuCtxDestroy_v2(other)
    assert driver.new("cuLibraryGetModule", library) == first


def test_kernel_attributes_reach_their_functions(driver: Driver, library: int) -> None:
    kernel = driver.new("cuLibraryGetKernel", library, b"fill")
    dynamic_shared = 8
    driver.cuKernelSetAttribute(dynamic_shared, 2048, kernel, 0)
    function = driver.new("cuKernelGetFunction", kernel)
    assert driver.get(c_int, "cuFuncGetAttribute", dynamic_shared, function) == 2048
    driver.cuKernelSetAttribute(dynamic_shared, 4096, kernel, 0)
    assert driver.get(c_int, "cuFuncGetAttribute", dynamic_shared, function) == 4096


def test_unloading_a_library_ends_its_handles(
    driver: Driver, context: int, sim_table: SimTable
) -> None:
    library = driver.new("cuLibraryLoadData", PTX, None, None, 0, None, None, 0)
    kernel = driver.new("cuLibraryGetKernel", library, b"fill")
    function = driver.new("cuKernelGetFunction", kernel)
    driver.cuLibraryUnload(library)
    assert driver.code("cuLibraryUnload", library) == INVALID_HANDLE
    assert driver.code("cuKernelGetName", byref(c_char_p()), kernel) == INVALID_HANDLE
    assert driver.code("cuFuncGetName", byref(c_char_p()), function) == INVALID_HANDLE


def test_occupancy(driver: Driver, module: int) -> None:
    empty = driver.new("cuModuleGetFunction", module, b"empty")
    fill = driver.new("cuModuleGetFunction", module, b"fill")
    call = "cuOccupancyMaxActiveBlocksPerMultiprocessor"
    few, many = (driver.get(c_int, call, empty, size, 0) for size in (1024, 32))
    assert 1 <= few <= many
    grid, block = c_int(), c_int()
    driver.cuOccupancyMaxPotentialBlockSize(byref(grid), byref(block), fill, None, 0, 0)
    assert 32 <= block.value <= 256
    assert grid.value > 0
    assert driver.code(call, byref(c_int()), empty, 0, 0) == INVALID_VALUE


# ---- the simulated GPU's own ----


def launch(driver: Driver, function: int, threads: int = 32) -> int:
    return driver.code(
        "cuLaunchKernel", function, 1, 1, 1, threads, 1, 1, 0, None, (c_void_p * 3)(), None
    )


def test_bad_launches_are_refused(
    driver: Driver, module: int, sim_table: SimTable
) -> None:
    fill = driver.new("cuModuleGetFunction", module, b"fill")
    assert launch(driver, fill, 0) == INVALID_VALUE
    assert launch(driver, fill, 1025) == INVALID_VALUE
    assert launch(driver, fill, 512) == INVALID_VALUE  # .maxntid 256
    assert launch(driver, 0x1234) == INVALID_HANDLE
    assert launch(driver, fill) == INVALID_VALUE  # its parameters are NULL
    code = driver.code("cuLaunchKernel", fill, 1, 1, 1, 1, 1, 1, 0, 0x1234, None, None)
    assert code == INVALID_HANDLE


def test_fat_binaries_and_their_wrappers(
    driver: Driver, context: int, sim_table: SimTable
) -> None:
    # A member that is packed in an unknown way: any name may be in it.
    body = struct.pack("<HHIQIIIIQQQQ", 2, 0x101, 64, 8, 8, 0, 0, 80, 0, 0, 0, 0) + bytes(8)
    fat = struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body
    held = create_string_buffer(fat, len(fat))
    wrapper = struct.pack("<IIQQ", 0x466243B1, 1, cast(held, c_void_p).value or 0, 0)
    for image in (fat, wrapper):
        module = driver.new("cuModuleLoadFatBinary", image)
        function = driver.new("cuModuleGetFunction", module, b"anything")
        assert launch(driver, function) == NO_BINARY_FOR_GPU
        driver.cuModuleUnload(module)
    assert load(driver, struct.pack("<IHHQ", 0xBA55ED50, 1, 4, 8) + bytes(64)) == INVALID_IMAGE


def test_mutated_images_do_no_harm(driver: Driver, context: int, sim_table: SimTable) -> None:
    """Whatever bytes come, with their size: an answer, no crash, nothing kept."""
    random = Random(1)
    linked = link(driver, PTX)
    answers = set()
    for round_ in range(600):
        image = bytearray(linked if round_ % 2 else PTX)
        for _ in range(random.randint(1, 6)):
            at = random.randrange(len(image) if round_ % 3 else min(len(image), 300))
            if random.random() < 0.3:
                del image[at : at + random.randint(1, 40)]
            else:
                image[at] = random.choice(b"\x00\xff{}()[];,.=0\"/*\n") if round_ % 5 else (
                    random.randrange(256)
                )
            if not image:
                break
        state = c_uint64()
        driver.cuLinkCreate_v2(0, None, None, byref(state))
        data = (c_char * len(image)).from_buffer(image)
        kind = 0 if round_ % 2 else 1
        code = driver.code(
            "cuLinkAddData_v2", state.value, kind, data, len(image), b"x", 0, None, None
        )
        answers.add(code)
        driver.cuLinkDestroy(state.value)
    seen = {SUCCESS, INVALID_IMAGE, INVALID_PTX}
    assert seen <= answers <= {*seen, NO_BINARY_FOR_GPU}


def test_floats_and_vectors(driver: Driver, context: int, sim_table: SimTable) -> None:
    text = HEAD + (
        b".visible .global .f32 half = 0f3F000000;\n"
        b".visible .global .f32 decimal = 2.5;\n"
        b".visible .global .v4 .f32 four;\n"
        b".visible .global .u16 list[] = {1, 2, 3};\n"
        b".visible .global .u16 grid[2][2][3] = {{{1}, {2, 3}}, {{4, 5, 6}}};\n"
        b".visible .global .u64 address = generic(half);\n"
        b".visible .entry k() { ret; }\n"
    )
    module = driver.new("cuModuleLoadData", text)
    content = {
        name: driver.download(*variable(driver, module, name))
        for name in (b"half", b"decimal", b"four", b"list", b"grid", b"address")
    }
    driver.cuModuleUnload(module)
    assert c_float.from_buffer_copy(content[b"half"]).value == 0.5
    assert c_float.from_buffer_copy(content[b"decimal"]).value == 2.5
    assert content[b"four"] == bytes(16)
    assert content[b"list"] == struct.pack("<3H", 1, 2, 3)
    assert content[b"grid"] == struct.pack("<12H", 1, 0, 0, 2, 3, 0, 4, 5, 6, 0, 0, 0)
    assert len(content[b"address"]) == 8
