# SPDX-License-Identifier: GPL-2.0-only
"""PTX as producers write it: names, numbers, initial values, linking; what is refused, and how."""

from __future__ import annotations

import struct
from ctypes import byref, c_uint64

import pytest
from cuda_driver import INVALID_PTX, NOT_SUPPORTED, SUCCESS, UNSUPPORTED_PTX_VERSION, Driver
from memory_types import Script
from ptx_kernel import LinkError, Module, entry, link, load_code, run


@pytest.fixture(autouse=True)
def _compiled_here(context: int) -> None:
    """Every test needs a context."""


# ---- spellings ----


def test_names_and_scopes(driver: Driver) -> None:
    body = """
        .reg .b32 x, %d <111>, %cast_s32_<22>, $a_b, _under; .reg.b32%r1<3>;
        .reg .v2 .u32 %v; .reg.b16 %w <4>; .reg .pred p, q;
        .loc 1 15 3
        .loc 1 15 3, function_name $L__info_string0, inlined_at 1 10 3
        .pragma "nounroll";
        mov.u32 x, 1; /* a comment
        over lines */ mov.u32 %d110, 2; mov.u32 %cast_s32_0, 3;
        mov.b32 %r10, 4; mov.b32 %r12, 5; mov.u32 $a_b, 6; mov.u32 _under, 7;
        { .reg .u32 x, %d<2>, %r1<2>;
          mov.u32 x, 100; mov.u32 %d0, 100; mov.u32 %r11, 100; mov.u32 %d110, 20;
          { .reg .u32 x; mov.u32 x, 1000; }
          add.u32 %d110, %d110, x; }
        mov.u32 %v.x, 1; mov.u32 %v.y, %v.x;
        mov.v2.u32 %v, {%v.y, 9};
        add.u32 x, x, %d110; add.u32 x, x, %cast_s32_0; add.u32 x, x, %r10;
        add.u32 x, x, %r12; add.u32 x, x, $a_b; add.u32 x, x, _under;
        add.u32 x, x, %v.x; add.u32 x, x, %v.y;
        setp.ne.u32 p|q, x, 0;
        @!p mov.u32 x, 0;
        @q mov.u32 x, 0;
        st.global.u32 [%out], x;;
    """
    assert run(driver, body, 1) == [1 + 120 + 3 + 4 + 5 + 6 + 7 + 1 + 9]


NUMBERS = [
    ("0x10", 16), ("017", 15), ("0b101", 5), ("4294967295U", 2**32 - 1), ("-1", 2**32 - 1),
    ("~0xff", 2**32 - 256), ("(1 << 4) | 3", 19), ("7 * (3 + 2) - 1", 34), ("-7 / 2", 2**32 - 3),
    ("-7 % 3", 2**32 - 1), ("-8 >> 1", 2**32 - 4), ("0xfffffff8U >> 1", 0x7FFFFFFC),
    ("1 ? 5 : 6", 5), ("2 > 1 && !0", 1), ("WARP_SZ", 32), ("WARP_SZ - 1", 31),
    ("(.u64) -1 == 0xffffffffffffffff", 1), ("3 != 3 || 4 <= 4", 1), ("6 ^ 3 & 1", 7),
]  # fmt: skip


def test_numbers_and_expressions(driver: Driver) -> None:
    body = "".join(
        f"mov.u32 %i, {text}; st.global.u32 [%out+{4 * i}], %i;"
        for i, (text, _) in enumerate(NUMBERS)
    )
    assert run(driver, body, len(NUMBERS), threads=1) == [value for _, value in NUMBERS]


def test_reals(driver: Driver) -> None:
    body = """
        .reg .f32 %f; .reg .f64 %d; .reg .b64 %l; .reg .b32 %r;
        mov.f32 %f, 0f3F800000; st.global.f32 [%out], %f;
        mov.f32 %f, 1.5; st.global.f32 [%out+4], %f;
        mov.f32 %f, -2.5e-1; st.global.f32 [%out+8], %f;
        mov.f64 %d, 0d4000000000000000; st.global.f64 [%out+16], %d;
        mov.f64 %d, 0f3F800000; st.global.f64 [%out+24], %d;
        mov.f64 %d, 1e3; st.global.f64 [%out+32], %d;
        mov.b32 %r, 0fBF800000; st.global.b32 [%out+12], %r;
    """
    words = run(driver, body, 10, threads=1)
    data = struct.pack("<10I", *words)
    assert struct.unpack("<4f", data[:16]) == (1.0, 1.5, -0.25, -1.0)
    assert struct.unpack("<3d", data[16:]) == (2.0, 1.0, 1000.0)


def test_initial_values(driver: Driver) -> None:
    outside = """
    .global .align 4 .u32 plain[2][3] = {{1, 2}, {4, 5, 6}};
    .global .align 8 .u64 where[4] = {plain, generic(plain)+8, plain+4, 0};
    .global .align 1 .b8 pieces[8] = {0xff(plain), 0xff00(plain), 0xff0000(plain),
        0xff000000(plain), 0xff00000000(plain), 0xff0000000000(plain), 0xff000000000000(plain),
        0xff00000000000000(plain)};
    .const .align 4 .f32 halves[2] = {0.5, 0f40000000};
    .global .v2 .u32 couple = {7, 8};
    .visible .global .attribute(.managed) .align 4 .u32 shared_with_host = 11;
    .func four() { ret; }
    .global .u64 of_function = four;
    """
    body = """
        .reg .b64 %p, %q; .reg .b32 %r<4>; .reg .f32 %f; .reg .pred %e;
        ld.global.u64 %p, [where+8]; ld.u32 %r0, [%p]; st.global.u32 [%out], %r0;
        ld.global.u64 %p, where[2]; ld.global.u32 %r0, [%p+8]; st.global.u32 [%out+4], %r0;
        ld.global.u64 %q, [pieces]; setp.eq.u64 %e, %q, plain; selp.u32 %r0, 1, 0, %e;
        st.global.u32 [%out+8], %r0;
        ld.const.f32 %f, halves[1]; cvt.rzi.u32.f32 %r0, %f; st.global.u32 [%out+12], %r0;
        ld.global.v2.u32 {%r0, %r1}, [couple]; add.u32 %r0, %r0, %r1;
        st.global.u32 [%out+16], %r0;
        ld.global.u32 %r0, [shared_with_host]; st.global.u32 [%out+20], %r0;
        ld.global.u64 %p, [of_function]; setp.eq.u64 %e, %p, four; selp.u32 %r0, 1, 0, %e;
        st.global.u32 [%out+24], %r0;
        ld.global.u32 %r0, [plain+8]; st.global.u32 [%out+28], %r0;
    """
    assert run(driver, body, 8, outside, threads=1) == [4 - 1 - 3, 5 - 1, 1, 2, 15, 11, 1, 0]


def test_what_only_debuggers_read(driver: Driver) -> None:
    outside = (
        '.file 1 "a.cu"\n.file 2 "b.cu", 123, 456\n# 1 "line"\n'
        ".section .debug_str { info: .b8 " + ",".join(["65"] * 200000) + " }\n"
        "@@DWARF .section whatever\n"
        ".section .debug_info\n{\n.b32 info+4\n.b8 1, 2\n$L: .b64 $L\n}\n"
    )
    assert run(driver, "st.global.u32 [%out], 3;", 1, outside) == [3]


PROMISES = (
    ".maxntid 128, 1, 1 .minnctapersm 2",
    ".reqntid 4 .maxnreg 64",
    ".explicitcluster .maxclusterrank 8",
    ".reqnctapercluster 1, 1, 1",
    '.pragma "nounroll";',
)


def test_promises_of_kernels(driver: Driver) -> None:
    text = ".func .noreturn never() { trap; }\n.weak .func maybe() { ret; }\n"
    text += "".join(entry("st.global.u32 [%out], %i;", f"k{i}", p) for i, p in enumerate(PROMISES))
    module = Module(driver, text)
    function = driver.new("cuModuleGetFunction", module.handle, b"k0")
    assert driver.get(c_uint64, "cuFuncGetAttribute", 0, function) & 0xFFFFFFFF == 128
    assert module.run(4, "k4") == [0, 1, 2, 3]
    module.unload()


# ---- linking ----

USER = ".extern .func (.param .b32 r) answer();\n.extern .global .u32 table[2];\n"
ASK = """
    .reg .b32 %r, %s; .param .b32 a;
    call (a), answer;
    ld.param.u32 %r, [a];
    ld.global.u32 %s, [table+4];
    add.u32 %r, %r, %s;
    st.global.u32 [%out], %r;
"""


def answer(value: int, how: str = ".visible") -> str:
    return (
        f"{how} .func (.param .b32 r) answer() {{ .reg .b32 %x; mov.u32 %x, {value}; "
        "st.param.b32 [r], %x; ret; }\n"
    )


def test_two_texts_are_one_module(driver: Driver) -> None:
    module = Module(
        driver, USER + entry(ASK), answer(40) + ".visible .global .u32 table[2] = {1, 2};"
    )
    assert module.run(1) == [42]
    address, size = c_uint64(), c_uint64()
    driver.cuModuleGetGlobal_v2(byref(address), byref(size), module.handle, b"table")
    assert size.value == 8
    module.unload()


def test_weak_gives_way_and_common_is_one(driver: Driver) -> None:
    body = ASK + "st.global.u32 [%out+4], %s;"
    texts = (
        answer(1, ".weak") + ".common .global .u32 table[2];\n" + entry(body),
        answer(2, ".weak") + ".common .global .u32 table[4];\n",
        answer(30),
    )
    module = Module(driver, *texts)
    assert module.run(2, threads=1) == [30, 0]
    address, size = c_uint64(), c_uint64()
    driver.cuModuleGetGlobal_v2(byref(address), byref(size), module.handle, b"table")
    assert size.value == 16
    module.unload()


def test_names_without_linkage_are_each_texts_own(driver: Driver) -> None:
    def text(name: str, value: int) -> str:
        body = ASK.replace("[table+4]", "[table]")
        return f".global .u32 table = {value};\n{answer(value * 10, '')}" + entry(body, name)

    module = Module(driver, text("a", 1), text("b", 2))
    assert module.run(1, "a") == [11]
    assert module.run(1, "b") == [22]
    module.unload()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        ((USER + entry(ASK),), "answer"),
        ((USER + entry(ASK), answer(1)), "table"),
        ((answer(1), answer(2)), "answer"),
        ((entry("", "same"), entry("", "same")), "same"),
        ((USER + entry(ASK), ".visible .func answer(.param .b64 x) { ret; }"), "answer"),
        ((".extern .const .u32 c; .visible .global .u64 p;", ".visible .global .u32 c;"), "c"),
    ],
    ids=["function", "variable", "twice", "kernel twice", "parameters", "space"],
)
def test_what_does_not_link(driver: Driver, texts: tuple[str, ...], words: str) -> None:
    with pytest.raises(LinkError) as error:
        link(driver, *texts)
    assert error.value.code == INVALID_PTX
    assert f'"{words}"' in str(error.value)


def test_a_result_that_the_function_does_not_give(driver: Driver) -> None:
    """Compilers of languages in which every function has one declare it so."""
    user = ".extern .func (.param .b64 r) store(.param .b64 at);\n"
    body = "{ .param .b64 r; .param .b64 p; st.param.b64 [p], %out; call (r), store, (p); }"
    store = (
        ".visible .func store(.param .b64 at) { .reg .b64 %a; ld.param.b64 %a, [at]; "
        "st.u32 [%a], 42; ret; }"
    )
    module = Module(driver, user + entry(body), store)
    assert module.run(1) == [42]
    module.unload()


def test_what_is_declared_and_not_used_is_not_missed(driver: Driver) -> None:
    assert load_code(driver, USER + ".extern .func vprintf(.param .b64 x);")[0] == SUCCESS
    code, log = load_code(driver, USER + entry(ASK))
    assert code == INVALID_PTX
    assert '"answer"' in log


def test_a_linked_module_links_again(driver: Driver) -> None:
    state = c_uint64()
    once = link(driver, answer(5) + ".visible .global .u32 table[2];")
    driver.cuLinkCreate_v2(0, None, None, byref(state))
    driver.cuLinkAddData_v2(state.value, 0, once, len(once), b"once", 0, None, None)
    text = (".version 8.0\n.target sm_80\n.address_size 64\n" + USER + entry(ASK)).encode()
    driver.cuLinkAddData_v2(state.value, 1, text, len(text) + 1, b"text", 0, None, None)
    image, size = c_uint64(), c_uint64()
    driver.cuLinkComplete(state.value, byref(image), byref(size))
    handle = driver.new("cuModuleLoadData", image.value)
    driver.cuLinkDestroy(state.value)
    driver.new("cuModuleGetFunction", handle, b"k")
    driver.cuModuleUnload(handle)


def test_an_alias(driver: Driver) -> None:
    text = answer(12) + ".visible .func (.param .b32 r) other();\n.alias other, answer;\n"
    body = ASK.replace("answer", "other").replace("[table+4]", "[%out]")
    assert run(driver, body, 1, text) == [12]


# ---- what is refused ----


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("add.u32 %i, %i, %nothing;", "%nothing"),
        ("bra NOWHERE;", "NOWHERE"),
        ("frobnicate.u32 %i, %i;", "frobnicate"),
        ("mov.u32 %i, 1", "expected"),
        ("ld.global.u32 %i, [unknown];", "unknown"),
        ("ld.global.u32 %i, [%in+%i];", "constant"),
        ("@%i bra X; X:", "%i"),
        ("mov.u32 %i, 1 / 0;", "zero"),
        ("mov.u32 %i, 0f123;", "0f"),
        (".reg .b32 %i2, %i2;", "%i2"),
        (".local .b8 big[0x7fffffffffffffff][4];", "large"),
        ("{" * 100, "deep"),
        ("mov.u32 %i, " + "(" * 500 + "1" + ")" * 500 + ";", "deep"),
        (".shared .b32 x = 1;", "initial"),
    ],
)
def test_errors_name_what_is_wrong(driver: Driver, body: str, words: str) -> None:
    code, log = load_code(driver, entry(body))
    assert code == INVALID_PTX
    assert words in log
    assert "PTX line " in log
    assert "\n" not in log


def test_newer_text(driver: Driver) -> None:
    handle = c_uint64()
    text = b".version 42.0\n.target sm_80\n"
    assert driver.code("cuModuleLoadData", byref(handle), text) == UNSUPPORTED_PTX_VERSION
    assert driver.code("cuModuleLoadData", byref(handle), text.replace(b"42.0", b"9.0")) == SUCCESS
    driver.cuModuleUnload(handle.value)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("mov.u32 %i, %pm0;", "%pm0"),
        ("add.u32.frob %i, %i, %i;", "add.u32.frob"),
        ("bra.frob X; X:", "bra.frob"),
        ("wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {%i}, {%i}, {%i}, {%i};", "wmma.mma"),
    ],
)
def test_a_launch_of_what_is_not_simulated(script: Script, body: str, words: str) -> None:
    """The module loads; the launch is refused, once in words."""
    done = script(f"""
        from ptx_kernel import Module, entry
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        module = Module(driver, entry({body!r}) + entry("", "fine"))
        for _ in range(2):
            try:
                module.run(1)
            except CudaError as error:
                print(error.code)
        module.run(1, "fine")
    """)
    assert done == f"{NOT_SUPPORTED}\n{NOT_SUPPORTED}"
    assert done.stderr.count(words) == 1
