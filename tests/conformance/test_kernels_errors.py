# SPDX-License-Identifier: GPL-2.0-only
"""What kernels do wrong, and what they say: addresses, traps, assert, printf, time."""

from __future__ import annotations

import re
from typing import Any

import pytest
from cuda_driver import Driver
from ptx_kernels import Kernel, Memory, entry

ILLEGAL_ADDRESS, LAUNCH_TIMEOUT, MISALIGNED, LAUNCH_FAILED, ASSERT = 700, 702, 716, 719, 710

STORE = entry("store", "u64 to", "st.global.u32 [to], 1;")
LOAD = entry("load", "u64 from", "ld.global.u64 d1, [from]; st.global.u64 [from], d1;")
SHARED = entry(
    "shared",
    "u64 offset",
    "cvt.u32.u64 r1, offset; mov.u32 r2, slots; add.u32 r2, r2, r1; st.shared.u32 [r2], 1;",
    before=".shared .align 4 .b8 slots[64];\n",
)
FIBERS = entry("fibers", "u64 to", "bar.sync 0; setp.eq.u32 p1, t, 3; @p1 st.global.u32 [to], 1;")

PRELUDE = """
from ptx_kernels import Kernel, Memory, entry
driver.cuInit(0)
context = driver.new("cuDevicePrimaryCtxRetain", 0)
driver.cuCtxSetCurrent(context)
big = driver.new("cuMemAlloc_v2", 6 << 20)
def run(text, address, grid=1, block=1):
    kernel = Kernel(driver, text)
    return kernel.run(grid, block, c_uint64(address))
"""


def children(script: Any, text: str, **env: str) -> Any:
    return script(PRELUDE + text, **env)


@pytest.mark.parametrize(
    ("kernel", "address", "block", "code", "words"),
    [
        (STORE, "big + (6 << 20)", 1, 700, r"write.* 0 bytes past the end of the 6291456 bytes"),
        (STORE, "big + (7 << 20)", 1, 700, r"write.* 1048576 bytes past the end of the 6291456"),
        (STORE, "16", 1, 700, r"write of 4 bytes at 0x10: "),
        (STORE, "id(driver) & ~7", 1, 700, r"write of 4 bytes at 0x\w+: "),
        (LOAD, "2 ** 63", 1, 700, r"read of 8 bytes at 0x8000000000000000: nowhere near"),
        (LOAD, "big + 4", 1, 716, r"read of 8 bytes at 0x\w+, which is not a multiple of 8"),
        (SHARED, "0x10000", 1, 700, r"offset 0x10000 of shared memory, of which the block has 64"),
        (SHARED, "0xfffff000", 1, 700, r"offset 0xfffff000 of shared memory"),
        (FIBERS, "big + (6 << 20)", 64, 700, r"thread \(3, 0, 0\): write"),
    ],
)
def test_a_wrong_address(
    script: Any, sim_table: object, kernel: str, address: str, block: int, code: int, words: str
) -> None:
    out = children(
        script,
        f"""
print(run({kernel!r}, {address}, 1, {block}), driver.code("cuMemAlloc_v2", byref(c_uint64()), 8),
      driver.code("cuCtxSynchronize"))
driver.code("cuDevicePrimaryCtxReset_v2", 0)
driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
fresh = Memory(driver, 1)
print(run({STORE!r}, fresh.address), fresh.read())
""",
    )
    first, second = out.splitlines()
    assert first.split() == [str(code)] * 3  # it sticks to the context ...
    assert second == "0 [1]"  # ... and to nothing else
    assert re.search(words, out.stderr), out.stderr
    assert out.stderr.startswith('emuv-sim: error: kernel "')
    assert out.stderr.count("\n") == 1


def test_freed_memory_is_out_of_reach(script: Any, sim_table: object) -> None:
    out = children(script, f"driver.cuMemFree_v2(big)\nprint(run({STORE!r}, big + 4096))")
    assert out == str(ILLEGAL_ADDRESS)


def test_one_wrong_thread_of_many_blocks_ends_all(script: Any, sim_table: object) -> None:
    text = entry(
        "most",
        "u64 to",
        "setp.ne.u32 p1, i, 100000; @p1 bra END; st.global.u32 [to+16777216], 1; END:",
    )
    out = children(script, f"print(run({text!r}, big, 4096, 256))")
    assert out == str(ILLEGAL_ADDRESS)
    assert "block (390, 0, 0), thread (160, 0, 0)" in out.stderr


def test_trap(script: Any, sim_table: object) -> None:
    out = children(script, f"print(run({entry('ends', 'u64 x', 'trap;')!r}, 0))")
    assert out == str(LAUNCH_FAILED)


def test_a_fault_of_the_program_is_its_own(script: Any, sim_table: object) -> None:
    """With its own handler, and the simulator's behind it."""
    text = f"""
import faulthandler, signal
print(run({STORE!r}, big))
faulthandler.enable()
print(run({STORE!r}, big), flush=True)
string_at(64)
"""
    out = script(PRELUDE + text, status=-11)
    assert out.split() == ["0", "0"]
    assert "Fatal Python error: Segmentation fault" in out.stderr


@pytest.mark.parametrize("body", ["bra L;", "bar.sync 0; bra L;", "membar.gl; bra L;"])
def test_a_kernel_without_end(script: Any, sim_table: object, body: str) -> None:
    text = entry("endless", "u64 x", f"L: {body}")
    out = children(script, f"print(run({text!r}, 0, 3, 64))", EMUV_SIM_KERNEL_MS="300")
    assert out == str(LAUNCH_TIMEOUT)
    assert "EMUV_SIM_KERNEL_MS=300" in out.stderr


def test_a_process_ends_though_its_kernel_does_not(script: Any, sim_table: object) -> None:
    text = entry("endless", "u64 x", "L: bra L;")
    out = children(
        script, f"kernel = Kernel(driver, {text!r})\nkernel(1, 1, c_uint64(0))\nprint('leaving')"
    )
    assert out == "leaving"


def test_deep_calls_use_up_the_stack(script: Any, sim_table: object) -> None:
    text = """
    .visible .func (.param .b32 back) deep(.param .b32 x)
    {
        .local .align 8 .b8 frame[512];
        .reg .b32 r<5>; .reg .pred p1; .reg .b64 d1;
        ld.param.u32 r1, [x]; mov.u32 r2, 0; mov.u64 d1, frame;
        setp.eq.u32 p1, r1, 0; @p1 bra END; st.local.u32 [d1], r1; sub.u32 r2, r1, 1;
        { .param .b32 a; .param .b32 c; st.param.b32 [a], r2; call.uni (c), deep, (a);
          ld.param.b32 r2, [c]; }
        ld.local.u32 r1, [d1]; add.u32 r2, r2, r1;
        END: st.param.b32 [back], r2; ret;
    }
    """ + entry(
        "go",
        "u64 to",
        """
        ld.global.u32 r1, [to];
        { .param .b32 a; .param .b32 c; st.param.b32 [a], r1; call.uni (c), deep, (a);
          ld.param.b32 r2, [c]; }
        st.global.u32 [to], r2;
        """,
    )
    out = children(
        script,
        f"""
kernel, number = Kernel(driver, {text!r}, "go"), Memory(driver, 1)
for depth in (50, 1000000):
    number.write([depth])
    print(kernel.run(1, 1, number.parameter))
    if depth == 50:
        print(number.read())
""",
    )
    assert out.split() == ["0", "[1275]", str(LAUNCH_FAILED)]
    assert "stack" in out.stderr or "local memory" in out.stderr


PRINT = """
.extern .func (.param .b32 back) vprintf(.param .b64 format, .param .b64 arguments);
.global .align 1 .b8 text[64] = {%s, 0};
.global .align 1 .b8 word[5] = {119, 111, 114, 100, 0};
"""


def test_printf(script: Any, sim_table: object) -> None:
    format = r"%d|%5u|%-5d|%lld|%x|%c|%s|%8.3f|%e|%*d|%%|%q" + "\n"
    body = """
    .local .align 8 .b8 a[80]; .reg .b64 q; mov.u64 q, a; cvta.local.u64 q, q;
    st.u32 [q], i; st.u32 [q+4], 42; st.u32 [q+8], -7; st.u64 [q+16], -5000000000;
    st.u32 [q+24], 255; st.u32 [q+28], 65; mov.u64 d1, word; cvta.global.u64 d1, d1;
    st.u64 [q+32], d1; mov.f64 g1, 0d400921FB54442D18; st.f64 [q+40], g1; st.f64 [q+48], g1;
    st.u32 [q+56], 6; st.u32 [q+60], 33;
    mov.u64 d2, text; cvta.global.u64 d2, d2;
    { .param .b64 f; .param .b64 v; .param .b32 c; st.param.b64 [f], d2; st.param.b64 [v], q;
      call.uni (c), vprintf, (f, v); ld.param.b32 r1, [c]; }
    st.global.u32 [to], r1;
    """
    text = PRINT % ", ".join(str(ord(c)) for c in format)
    out = children(
        script,
        f"""
text = {text!r} + entry("says", "u64 to", {body!r})
kernel, count = Kernel(driver, text, "says"), Memory(driver, 1)
sys.stdout.write("before\\n"); sys.stdout.flush()
kernel(40, 5, count.parameter)
driver.cuCtxSynchronize()
print("after", count.read())
""",
    )
    lines = out.splitlines()
    assert lines[0] == "before"
    assert lines[-1] == "after [11]"
    rest = "   42|-7   |-5000000000|ff|A|word|   3.142|3.141593e+00|    33|%|%q"
    assert lines[1:-1] == [f"{i}|{rest}" for i in range(200)]


def test_printf_keeps_the_newest(script: Any, sim_table: object) -> None:
    """CU_LIMIT_PRINTF_FIFO_SIZE bytes of a launch; nothing comes before a synchronisation."""
    body = """
    .local .align 8 .b8 a[8]; .reg .b64 q; mov.u64 q, a; cvta.local.u64 q, q; st.u32 [q], i;
    mov.u64 d2, text; cvta.global.u64 d2, d2;
    { .param .b64 f; .param .b64 v; .param .b32 c; st.param.b64 [f], d2; st.param.b64 [v], q;
      call.uni (c), vprintf, (f, v); }
    """
    text = PRINT % ", ".join(str(ord(c)) for c in "%5d\n")
    out = children(
        script,
        f"""
import time
driver.cuCtxSetLimit(1, 6000)
text = {text!r} + entry("counts", "u64 to", {body!r})
kernel = Kernel(driver, text, "counts")
kernel(50, 100, c_uint64(0))
while driver.code("cuStreamQuery", None): time.sleep(0.001)
print("queried", flush=True)
driver.cuStreamSynchronize(None)
""",
    )
    assert out.splitlines() == ["queried", *(f"{i:5}" for i in range(4000, 5000))]


def test_a_child_prints_nothing_of_its_parent(script: Any, sim_table: object) -> None:
    body = """
    mov.u64 d1, text; cvta.global.u64 d1, d1; mov.u64 d2, 0;
    { .param .b64 f; .param .b64 v; .param .b32 c; st.param.b64 [f], d1; st.param.b64 [v], d2;
      call.uni (c), vprintf, (f, v); }
    """
    text = PRINT % ", ".join(str(ord(c)) for c in "once\n")
    out = children(
        script,
        f"""
import time
kernel = Kernel(driver, {text!r} + entry("says", "u64 to", {body!r}), "says")
kernel(1, 1, c_uint64(0))
while driver.code("cuStreamQuery", None): time.sleep(0.001)
child = os.fork()
if not child: sys.exit(0)
os.waitpid(child, 0)
""",
    )
    assert out == "once"


def test_assert(script: Any, sim_table: object) -> None:
    text = """
    .extern .func __assertfail(.param .b64 message, .param .b64 file, .param .b32 line,
        .param .b64 function, .param .b64 size);
    .global .align 1 .b8 message[6] = {120, 32, 62, 32, 48, 0};
    .global .align 1 .b8 file[5] = {97, 46, 99, 117, 0};
    """ + entry(
        "checks",
        "u64 x",
        """
        setp.ne.u32 p1, i, 35; @p1 bra END;
        mov.u64 d1, message; cvta.global.u64 d1, d1; mov.u64 d2, file; cvta.global.u64 d2, d2;
        { .param .b64 a; .param .b64 b1; .param .b32 c; .param .b64 d; .param .b64 e;
          st.param.b64 [a], d1; st.param.b64 [b1], d2; st.param.b32 [c], 12; st.param.b64 [d], d2;
          st.param.b64 [e], 1; call.uni __assertfail, (a, b1, c, d, e); }
        END:
        """,
    )
    out = children(script, f"print(run({text!r}, 0, 2, 32))")
    assert out == str(ASSERT)
    want = "emuv-sim: a.cu:12: a.cu: block: [1,0,0], thread: [3,0,0] Assertion `x > 0` failed.\n"
    assert out.stderr == want


def test_an_instruction_that_is_not_simulated(script: Any, sim_table: object) -> None:
    """It is named, once, and only where a kernel that needs it is launched."""
    text = entry("good", "u64 x", "") + entry(
        "bad", "u64 x", "wmma.mma.sync.aligned.row.col.m16n16k16.f32.f32 {f1}, {f2}, {f3}, {f4};"
    )
    out = children(
        script,
        f"""
for name in ("good", "bad", "bad"):
    kernel = Kernel(driver, {text!r}, name)
    print(kernel.code(1, 1, c_uint64(0)), driver.code("cuCtxSynchronize"))
kernel = Kernel(driver, {text!r}, "bad")
""",
    )
    assert out.splitlines()[0] == "0 0"
    assert out.splitlines()[1:] == ["801 0"] * 2
    assert "wmma" in out.stderr
    assert 'kernel "bad"' in out.stderr


def test_a_small_address_space(script: Any, sim_table: object) -> None:
    """Fewer windows of shared memory fit than threads of the host would like to have."""
    text = entry(
        "many",
        "u64 to",
        "mov.u32 r1, slots; mad.lo.u32 r2, t, 4, r1; st.shared.u32 [r2], i; bar.sync 0;"
        "ld.shared.u32 r3, [r1]; red.global.add.u32 [to], 1;",
        before=".shared .align 4 .b8 slots[1024];\n",
    )
    limit = "import resource\nresource.setrlimit(resource.RLIMIT_AS, (40 << 30, 40 << 30))\n"
    run = f"out = Memory(driver, 1)\nprint(run({text!r}, out.address, 400, 256), out.read())"
    out = script(limit + PRELUDE + run, EMUV_SIM_WORKERS="8")
    assert out == "0 [102400]"


def test_nothing_of_it_is_left_in_this_process(driver: Driver, context: int) -> None:
    out = Memory(driver, 1)
    assert Kernel(driver, STORE).run(1, 1, out.parameter) == 0
    assert out.read() == [1]
