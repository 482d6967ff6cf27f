# SPDX-License-Identifier: GPL-2.0-only
"""Kernels: launches in all their forms, parameters, shared and module memory, attributes."""

from __future__ import annotations

import struct
from ctypes import (
    Structure,
    addressof,
    byref,
    c_char,
    c_double,
    c_float,
    c_int,
    c_int8,
    c_int64,
    c_size_t,
    c_ubyte,
    c_uint,
    c_uint32,
    c_uint64,
    c_void_p,
    cast,
    pointer,
)

import pytest
from cuda_driver import INVALID_VALUE, NOT_FOUND, Driver
from ptx_kernels import HEAD, Kernel, Memory, at, entry, load, pointers

ADD = entry(
    "add",
    "u64 x, u64 y, u64 out, u32 count",
    f"""
    setp.ge.u32 p1, i, count;
    @p1 bra END;
    {at("d1", "x", "i", 4)} {at("d2", "y", "i", 4)} {at("d3", "out", "i", 4)}
    ld.global.f32 f1, [d1]; ld.global.f32 f2, [d2]; add.f32 f3, f1, f2; st.global.f32 [d3], f3;
    END:
    """,
)
COUNT = entry("count", "u64 out", "atom.global.add.u32 r1, [out], 1;")


@pytest.mark.parametrize(("grid", "block"), [(1, 1000), (40, 32), (1000, 1), (4, (16, 16, 1))])
def test_vectors_are_added(driver: Driver, context: int, grid: int, block: object) -> None:
    size = 1000
    x, y, out = (Memory(driver, size, c_float) for _ in range(3))
    x.write([i / 3 for i in range(size)])
    y.write([i * 0.7 for i in range(size)])
    if isinstance(block, tuple):  # i counts along x only: what is beyond stays 0
        size = 4 * 16
    add = Kernel(driver, ADD)
    assert add.run(grid, block, x.parameter, y.parameter, out.parameter, c_uint32(size)) == 0
    want = [c_float(a + b).value for a, b in zip(x.read(), y.read(), strict=True)]
    assert out.read()[:size] == want[:size]
    assert not any(out.read()[size:])


def test_every_thread_of_a_grid_runs_once(driver: Driver, context: int) -> None:
    body = """
    mov.u32 r1, %nctaid.x; mov.u32 r2, %nctaid.y; mov.u32 r3, %ctaid.y; mov.u32 r4, %ctaid.z;
    mad.lo.u32 r5, r4, r2, r3; mad.lo.u32 r5, r5, r1, b;
    mov.u32 r6, %ntid.y; mov.u32 r7, %ntid.z; mov.u32 r8, %tid.y; mov.u32 r9, %tid.z;
    mul.lo.u32 r10, n, r6; mul.lo.u32 r10, r10, r7;
    mad.lo.u32 r11, r9, r6, r8; mad.lo.u32 r11, r11, n, t;
    mad.lo.u32 r5, r5, r10, r11;
    """
    text = entry("each", "u64 out", body + at("d1", "out", "r5", 4) + "red.global.add.u32 [d1], 1;")
    grid, block = (3, 5, 7), (4, 6, 8)
    out = Memory(driver, 3 * 5 * 7 * 4 * 6 * 8)
    assert Kernel(driver, text).run(grid, block, out.parameter) == 0
    assert out.read() == [1] * out.count


class Mixed(Structure):
    _fields_ = [("a", c_int8), ("b", c_double), ("c", c_int * 3)]


MIXED = """
.visible .entry mixed(.param .u8 first, .param .align 8 .b8 second[32], .param .u64 out,
    .param .s8 last)
{
    .reg .b32 r<9>; .reg .b64 d<9>; .reg .f64 g<9>; .reg .b16 h<9>;
    ld.param.u64 d1, [out];
    ld.param.u8 r1, [first]; cvt.rn.f64.u32 g1, r1; st.global.f64 [d1], g1;
    ld.param.s8 r2, [second]; cvt.rn.f64.s32 g1, r2; st.global.f64 [d1+8], g1;
    ld.param.f64 g1, [second+8]; st.global.f64 [d1+16], g1;
    ld.param.s32 r3, [second+24]; cvt.rn.f64.s32 g1, r3; st.global.f64 [d1+24], g1;
    ld.param.s8 r4, [last]; cvt.rn.f64.s32 g1, r4; st.global.f64 [d1+32], g1;
    ret;
}
"""
MIXED_WANT = [200.0, -5.0, 2.5, 33.0, -7.0]


def test_parameters_lie_by_their_types(driver: Driver, context: int) -> None:
    kernel = Kernel(driver, MIXED)
    out = Memory(driver, 5, c_double)
    second = Mixed(-5, 2.5, (c_int * 3)(11, 22, 33))
    parameters = (c_ubyte(200), second, out.parameter, c_int8(-7))
    offset, size = c_size_t(), c_size_t()
    layout = []
    for index in range(4):
        driver.cuFuncGetParamInfo(kernel.function, index, byref(offset), byref(size))
        layout.append((offset.value, size.value))
    assert layout == [(0, 1), (8, 32), (40, 8), (48, 1)]
    assert driver.code("cuFuncGetParamInfo", kernel.function, 4, byref(offset), None) == (
        INVALID_VALUE
    )
    assert kernel.run(1, 1, *parameters) == 0
    assert out.read() == MIXED_WANT


def test_parameters_come_packed_too(driver: Driver, context: int) -> None:
    kernel = Kernel(driver, MIXED)
    out = Memory(driver, 5, c_double)
    packed = struct.pack("<B7xb7xdiiiiQb", 200, -5, 2.5, 0, 0, 33, 0, out.address, -7)
    buffer = (c_char * len(packed)).from_buffer_copy(packed)
    size = c_size_t(len(packed))

    def extra(*words: object) -> object:
        return (c_void_p * len(words))(*[cast(w, c_void_p) if w else None for w in words])  # type: ignore[arg-type]

    whole = extra(1, pointer(buffer), 2, pointer(size), 0)
    shape = (1, 1, 1, 1, 1, 1, 0, 0)
    driver.cuLaunchKernel(kernel.function, *shape, None, whole)
    driver.cuCtxSynchronize()
    assert out.read() == MIXED_WANT

    call = "cuLaunchKernel"
    assert driver.code(call, kernel.function, *shape, pointers([out.parameter] * 4), whole) == (
        INVALID_VALUE
    )
    assert driver.code(call, kernel.function, *shape, None, extra(7, pointer(buffer), 0)) == (
        INVALID_VALUE
    )
    size.value = 40  # ends in front of `out`
    assert driver.code(call, kernel.function, *shape, None, whole) == INVALID_VALUE
    assert driver.code(call, kernel.function, *shape, None, None) == INVALID_VALUE


class Config(Structure):
    """CUlaunchConfig."""

    _fields_ = [("shape", c_uint * 7), ("stream", c_void_p), ("attrs", c_void_p), ("count", c_uint)]


class Attribute(Structure):
    """CUlaunchAttribute."""

    _fields_ = [("id", c_int), ("pad", c_int), ("value", c_uint * 16)]


def launch_ex(driver: Driver, kernel: Kernel, out: Memory, *attributes: tuple[int, ...]) -> int:
    array = (Attribute * max(1, len(attributes)))()
    for one, (number, *values) in zip(array, attributes, strict=False):
        one.id = number
        one.value[: len(values)] = values
    shape = (c_uint * 7)(2, 1, 1, 3, 1, 1, 0)
    config = Config(shape, None, cast(array, c_void_p), len(attributes))
    return driver.code(
        "cuLaunchKernelEx", byref(config), kernel.function, pointers([out.parameter]), None
    )


def test_launch_attributes(driver: Driver, context: int) -> None:
    kernel, out = Kernel(driver, COUNT), Memory(driver, 1)
    assert launch_ex(driver, kernel, out) == 0
    assert launch_ex(driver, kernel, out, (4, 1, 1, 1), (8, 0), (2, 1), (6, 1), (0,)) == 0
    driver.cuCtxSynchronize()
    assert out.read() == [12]


def test_launch_attributes_that_are_not_simulated(
    driver: Driver, context: int, sim_table: object
) -> None:
    kernel, out = Kernel(driver, COUNT), Memory(driver, 1)
    assert launch_ex(driver, kernel, out, (4, 2, 1, 1)) == 912  # clusters: no such card
    assert launch_ex(driver, kernel, out, (7,)) == 801
    assert launch_ex(driver, kernel, out, (99,)) == INVALID_VALUE
    driver.cuCtxSynchronize()
    assert out.read() == [0]


def test_launches_of_before_cuda_4(driver: Driver, context: int) -> None:
    kernel = Kernel(driver, ADD)
    x, y, out = (Memory(driver, 64, c_float) for _ in range(3))
    x.write(list(range(64)))
    y.write([0.5] * 64)
    assert driver.code("cuLaunch", kernel.function) == INVALID_VALUE  # no shape yet
    driver.cuFuncSetBlockShape(kernel.function, 16, 1, 1)
    driver.cuFuncSetSharedSize(kernel.function, 64)
    for offset, memory in ((0, x), (8, y), (16, out)):
        value = memory.parameter
        driver.cuParamSetv(kernel.function, offset, byref(value), 8)
    driver.cuParamSeti(kernel.function, 24, 64)
    driver.cuParamSetSize(kernel.function, 28)
    driver.cuLaunchGrid(kernel.function, 3, 1)
    driver.cuCtxSynchronize()
    assert out.read() == [i + 0.5 for i in range(48)] + [0.0] * 16
    driver.cuLaunchGridAsync(kernel.function, 4, 1, None)
    driver.cuCtxSynchronize()
    assert out.read() == [i + 0.5 for i in range(64)]
    assert driver.code("cuFuncSetBlockShape", kernel.function, 0, 1, 1) == INVALID_VALUE
    assert driver.code("cuParamSeti", kernel.function, 4094, 1) == INVALID_VALUE


SHARED = entry(
    "turn",
    "u64 out",
    f"""
    mov.u32 r1, fixed; mov.u32 r2, open;
    shl.b32 r3, t, 2; add.u32 r4, r1, r3; add.u32 r5, r2, r3;
    st.shared.u32 [r4], t; add.u32 r6, t, 100; st.shared.u32 [r5], r6;
    bar.sync 0;
    not.b32 r7, t; add.u32 r7, r7, n; shl.b32 r7, r7, 2;
    add.u32 r4, r1, r7; add.u32 r5, r2, r7;
    ld.shared.u32 r8, [r4]; ld.shared.u32 r9, [r5];
    mad.lo.u32 r10, r9, 1000, r8; {at("d1", "out", "i", 4)} st.global.u32 [d1], r10;
    """,
    before=".shared .align 4 .b8 fixed[4096];\n.extern .shared .align 4 .b8 open[];",
)


def test_static_and_dynamic_shared_memory(driver: Driver, context: int) -> None:
    kernel, out = Kernel(driver, SHARED), Memory(driver, 200)
    assert kernel.run(2, 100, out.parameter, shared=400) == 0
    assert out.read() == [(99 - t + 100) * 1000 + 99 - t for _ in range(2) for t in range(100)]
    shared, most = (driver.get(c_int, "cuFuncGetAttribute", n, kernel.function) for n in (1, 8))
    assert (shared, most) == (4096, 49152 - 4096)
    assert kernel.code(1, 32, out.parameter, shared=most) == 0
    assert kernel.code(1, 32, out.parameter, shared=most + 1) == INVALID_VALUE
    driver.cuFuncSetAttribute(kernel.function, 8, 100 << 10)
    assert kernel.code(1, 32, out.parameter, shared=100 << 10) == 0
    driver.cuCtxSynchronize()


GLOBALS = """
.visible .global .align 4 .u32 counter = 5;
.visible .const .align 4 .u32 table[3] = {10, 20, 30};
.global .align 8 .u64 where[2] = {counter, generic(counter) };
""" + entry(
    "use",
    "u64 out",
    """
    ld.global.u64 d1, [where+8]; ld.u32 r1, [d1]; add.u32 r1, r1, 1; st.global.u32 [counter], r1;
    ld.const.u32 r2, [table+8]; st.global.u32 [out], r2; st.global.u32 [out+4], r1;
    """,
)


def test_module_variables(driver: Driver, context: int) -> None:
    kernel, other = Kernel(driver, GLOBALS, "use"), Kernel(driver, GLOBALS, "use")
    out = Memory(driver, 2)
    size = c_size_t()
    kernel.run(1, 1, out.parameter)
    kernel.run(1, 1, out.parameter)
    assert out.read() == [30, 7]
    other.run(1, 1, out.parameter)  # modules do not share variables
    assert out.read() == [30, 6]
    address = c_uint64()
    driver.cuModuleGetGlobal_v2(byref(address), byref(size), kernel.module, b"counter")
    assert (size.value, struct.unpack("<I", driver.download(address.value, 4))) == (4, (7,))
    driver.upload(address.value, struct.pack("<I", 40))
    driver.cuModuleGetGlobal_v2(byref(address), None, kernel.module, b"table")
    driver.upload(address.value + 8, struct.pack("<I", 99))
    kernel.run(1, 1, out.parameter)
    assert out.read() == [99, 41]
    assert driver.code("cuModuleGetGlobal_v2", byref(address), None, kernel.module, b"no") == (
        NOT_FOUND
    )


def test_kernels_of_libraries(driver: Driver, context: int) -> None:
    library = driver.new("cuLibraryLoadData", (HEAD + COUNT).encode(), None, None, 0, None, None, 0)
    handle = driver.new("cuLibraryGetKernel", library, b"count")
    out = Memory(driver, 1)
    held = pointers([out.parameter])
    driver.cuLaunchKernel(handle, 5, 1, 1, 7, 1, 1, 0, 0, held, None)
    function = driver.new("cuKernelGetFunction", handle)
    driver.cuLaunchKernel(function, 1, 1, 1, 7, 1, 1, 0, 0, held, None)
    driver.cuCtxSynchronize()
    assert out.read() == [42]
    driver.cuLibraryUnload(library)


def test_linked_modules_call_each_other(driver: Driver, context: int) -> None:
    callee = (
        HEAD
        + """
        .visible .func (.param .b32 back) twice(.param .b32 x)
        { .reg .b32 r<3>; ld.param.u32 r1, [x]; shl.b32 r2, r1, 1; st.param.b32 [back], r2; ret; }
    """
    )
    caller = (
        HEAD
        + ".extern .func (.param .b32 back) twice(.param .b32 x);\n"
        + entry(
            "go",
            "u64 out",
            """
        { .param .b32 a; .param .b32 c; st.param.b32 [a], 21; call.uni (c), twice, (a);
          ld.param.b32 r1, [c]; }
        st.global.u32 [out], r1;
        """,
        )
    )
    handle = c_void_p()
    driver.cuLinkCreate_v2(0, None, None, byref(handle))
    state = handle.value
    for text in (caller, callee):
        data = text.encode() + b"\0"
        driver.cuLinkAddData_v2(state, 1, data, len(data), b"part", 0, None, None)
    image, size = c_void_p(), c_size_t()
    driver.cuLinkComplete(state, byref(image), byref(size))
    module = driver.new("cuModuleLoadData", image)
    driver.cuLinkDestroy(state)
    function = driver.new("cuModuleGetFunction", module, b"go")
    out = Memory(driver, 1)
    driver.cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, 0, pointers([out.parameter]), None)
    driver.cuCtxSynchronize()
    assert out.read() == [42]


def test_kernels_follow_each_other_in_a_stream(driver: Driver, context: int) -> None:
    step = entry(
        "step",
        "u64 x, u32 a",
        "ld.global.u32 r1, [x]; mad.lo.u32 r1, r1, 3, a; st.global.u32 [x], r1;",
    )
    kernel, x = Kernel(driver, step), Memory(driver, 1)
    stream = driver.new("cuStreamCreate", 1)
    want = 0
    for a in range(50):
        kernel(1, 1, x.parameter, c_uint32(a), stream=stream)
        want = (want * 3 + a) & 0xFFFFFFFF
    driver.cuStreamSynchronize(stream)
    assert x.read() == [want]
    driver.cuStreamDestroy_v2(stream)


def test_registered_host_memory_and_pinned_memory(driver: Driver, context: int) -> None:
    kernel = Kernel(driver, COUNT)
    pinned = driver.get(c_void_p, "cuMemHostAlloc", 4096, 0)
    number = c_uint32.from_address(pinned)
    number.value = 10
    assert kernel.run(1, 5, c_uint64(pinned)) == 0
    assert number.value == 15
    driver.cuMemFreeHost(pinned)
    own = (c_char * 8192)()
    start = (addressof(own) + 4095) & ~4095
    driver.cuMemHostRegister_v2(start, 4096, 0)
    assert kernel.run(1, 5, c_uint64(start)) == 0
    assert c_uint32.from_address(start).value == 5
    driver.cuMemHostUnregister(start)


def test_attributes_come_from_the_code(driver: Driver, context: int) -> None:
    text = entry(
        "local_user",
        "u64 out",
        """
        .local .align 8 .b8 frame[400]; .reg .b64 q;
        mov.u64 q, frame; cvt.u64.u32 d1, t; add.u64 q, q, d1; st.local.u8 [q], t;
        ld.local.u8 r1, [q]; st.global.u8 [out], r1;
        """,
    )
    kernel = Kernel(driver, text)
    threads, local, registers = (
        driver.get(c_int, "cuFuncGetAttribute", n, kernel.function) for n in (0, 3, 4)
    )
    assert threads == 1024
    assert local >= 400
    assert 1 <= registers <= 255
    out = Memory(driver, 1)
    assert kernel.run(1, 256, out.parameter) == 0


def test_an_unknown_extern_is_refused_at_load(driver: Driver, context: int) -> None:
    text = HEAD + ".extern .func nobody();\n" + entry("go", "u64 out", "call.uni nobody;")
    assert driver.code("cuModuleLoadData", byref(c_uint64()), text.encode()) != 0


def test_device_malloc(driver: Driver, context: int) -> None:
    text = """
    .extern .func (.param .b64 back) malloc(.param .b64 size);
    .extern .func free(.param .b64 pointer);
    """ + entry(
        "own",
        "u64 out",
        f"""
        {{ .param .b64 a; .param .b64 c; st.param.b64 [a], 64; call.uni (c), malloc, (a);
           ld.param.b64 d1, [c]; }}
        st.u32 [d1+60], i; ld.u32 r1, [d1+60];
        {at("d2", "out", "i", 4)} st.global.u32 [d2], r1;
        {{ .param .b64 a; st.param.b64 [a], d1; call.uni free, (a); }}
        """,
    )
    kernel, out = Kernel(driver, text), Memory(driver, 256)
    for _ in range(3):
        assert kernel.run(4, 64, out.parameter) == 0
    assert out.read() == list(range(256))


def test_all_of_a_large_grid(driver: Driver, context: int) -> None:
    """Blocks go to several threads of the host: none is lost, none comes twice."""
    text = entry(
        "mark",
        "u64 out",
        at("d1", "out", "i", 8)
        + """
        ld.global.u64 d2, [d1]; cvt.u64.u32 d3, i; add.u64 d2, d2, d3; st.global.u64 [d1], d2;""",
    )
    out = Memory(driver, 1 << 18, c_int64)
    kernel = Kernel(driver, text)
    for _ in range(3):
        kernel(1 << 10, 256, out.parameter)
    assert out.read() == [3 * i for i in range(1 << 18)]


def test_occupancy_of_clusters(driver: Driver, context: int, sim_table: object) -> None:
    kernel = Kernel(driver, COUNT)
    config = Config((c_uint * 7)(2, 1, 1, 32, 1, 1, 0), None, None, 0)
    size = driver.get(c_int, "cuOccupancyMaxPotentialClusterSize", kernel.function, byref(config))
    assert size == 1
    many = driver.get(c_int, "cuOccupancyMaxActiveClusters", kernel.function, byref(config))
    assert many >= 16
    assert load(driver, COUNT)
