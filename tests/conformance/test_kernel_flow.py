# SPDX-License-Identifier: GPL-2.0-only
"""Kernels: branches, loops, calls, parameters, local and shared memory, lanes that wait."""

from __future__ import annotations

from ctypes import addressof, c_uint64, c_void_p

import pytest
from cuda_driver import Driver
from memory_types import Script
from ptx_kernel import Module, entry, run


@pytest.fixture(autouse=True)
def _compiled_here(context: int) -> None:
    """Every test needs a context."""


# ---- branches ----


def collatz(n: int) -> int:
    steps = 0
    while n != 1:
        n = n // 2 if n % 2 == 0 else 3 * n + 1
        steps += 1
    return steps


def test_loops_and_branches(driver: Driver) -> None:
    body = """
        .reg .pred %p<3>; .reg .b32 %n<4>;
        add.u32 %n0, %i, 1;
        mov.u32 %n1, 0;
    TOP:
        setp.eq.u32 %p0, %n0, 1;
        @%p0 bra.uni DONE;
        add.u32 %n1, %n1, 1;
        and.b32 %n2, %n0, 1;
        setp.ne.u32 %p1, %n2, 0;
        @!%p1 bra EVEN;
        mad.lo.u32 %n0, %n0, 3, 1;
        bra TOP;
    EVEN:
        shr.u32 %n0, %n0, 1;
        bra TOP;
    DONE:
        st.global.u32 [%out], %n1;
    """
    assert run(driver, body, 64) == [collatz(i + 1) for i in range(64)]


def test_a_branch_by_index(driver: Driver) -> None:
    body = """
        .reg .b32 %r<3>;
        and.b32 %r0, %i, 3;
        mov.u32 %r1, 7;
        table: .branchtargets A, B, C, A;
        brx.idx.uni %r0, table;
    A:  add.u32 %r1, %r1, 100;
    B:  add.u32 %r1, %r1, 10;
    C:  add.u32 %r1, %r1, 1;
        st.global.u32 [%out], %r1;
    """
    assert run(driver, body, 8) == [118, 18, 8, 118] * 2


def test_guards_and_ends(driver: Driver) -> None:
    """ret and exit end the thread; what a guard holds back is not done."""
    body = """
        .reg .pred %odd; .reg .b32 %r;
        and.b32 %r, %i, 1;
        setp.ne.u32 %odd, %r, 0;
        @%odd st.global.u32 [%out], 1;
        setp.eq.u32 %odd, %i, 2;
        @%odd exit;
        setp.eq.u32 %odd, %i, 4;
        @%odd ret;
        @!%odd st.global.u32 [%out+0], %i;
    """
    assert run(driver, body, 8) == [0, 1, 0, 3, 0, 5, 6, 7]


def test_labels_belong_to_their_braces(driver: Driver) -> None:
    one = """
        { .reg .pred %p; .reg .b32 %r;
          mov.u32 %r, 0;
        again:
          add.u32 %r, %r, 1;
          setp.lt.u32 %p, %r, 5;
          @%p bra again;
          add.u32 %sum, %sum, %r;
        }
    """
    body = f".reg .b32 %sum; mov.u32 %sum, %i;\n{one}{one}st.global.u32 [%out], %sum;"
    assert run(driver, body, 4) == [10, 11, 12, 13]


# ---- calls ----

FUNCTIONS = """
.func (.param .b32 r) twice(.param .b32 a)
{
    .reg .b32 %x;
    ld.param.u32 %x, [a];
    shl.b32 %x, %x, 1;
    st.param.b32 [r], %x;
    ret;
}
.func (.param .align 8 .b8 r[16]) swap(.param .align 8 .b8 pair[16], .param .b32 by)
{
    .reg .b64 %a, %b; .reg .b32 %n;
    ld.param.u64 %a, [pair];
    ld.param.u64 %b, [pair+8];
    ld.param.u32 %n, [by];
    st.param.b64 [r+0], %b;
    cvt.u64.u32 %b, %n;
    add.u64 %a, %a, %b;
    st.param.b64 [r+8], %a;
    ret;
}
.func (.reg .u32 %q, .reg .u32 %m) divide(.reg .u32 %a, .reg .u32 %b)
{
    div.u32 %q, %a, %b;
    rem.u32 %m, %a, %b;
    ret;
}
.func (.param .b32 r) factorial(.param .b32 n)
{
    .reg .b32 %x, %y; .reg .pred %p;
    ld.param.u32 %x, [n];
    setp.gt.u32 %p, %x, 1;
    @%p bra MORE;
    st.param.b32 [r], 1;
    ret;
MORE:
    sub.u32 %y, %x, 1;
    { .param .b32 a; .param .b32 b;
      st.param.b32 [a], %y;
      call.uni (b), factorial, (a);
      ld.param.u32 %y, [b];
    }
    mul.lo.u32 %x, %x, %y;
    st.param.b32 [r], %x;
    ret;
}
.func leave(.param .b32 when)
{
    .reg .b32 %x; .reg .pred %p;
    ld.param.u32 %x, [when];
    setp.ne.u32 %p, %x, 0;
    @%p exit;
    ret;
}
.func nothing { }
"""


def test_calls(driver: Driver) -> None:
    body = """
        .reg .b32 %r<8>; .reg .b64 %d<4>; .reg .pred %p;
        { .param .b32 in; .param .b32 out;
          st.param.b32 [in], %i;
          call.uni (out), twice, (in);
          ld.param.b32 %r0, [out];
        }
        call nothing;
        { .param .align 8 .b8 in[16]; .param .align 8 .b8 out[16]; .param .b32 by;
          cvt.u64.u32 %d0, %r0;
          st.param.v2.b64 [in], {%d0, 1000};
          st.param.b32 [by], 5;
          call (out), swap, (in, by);
          ld.param.v2.u64 {%d1, %d2}, [out];
        }
        cvt.u32.u64 %r1, %d1;
        cvt.u32.u64 %r2, %d2;
        add.u32 %r1, %r1, %r2;
        call (%r3, %r4), divide, (%r1, 7);
        mad.lo.u32 %r1, %r3, 100, %r4;
        st.global.u32 [%out], %r1;
    """
    want = [(1000 + 2 * i + 5) // 7 * 100 + (1000 + 2 * i + 5) % 7 for i in range(8)]
    assert run(driver, body, 8, FUNCTIONS) == want


def test_recursion(driver: Driver) -> None:
    body = """
        .reg .b32 %r; .param .b32 a; .param .b32 b;
        st.param.b32 [a], %i;
        call (b), factorial, (a);
        ld.param.u32 %r, [b];
        st.global.u32 [%out], %r;
    """
    assert run(driver, body, 8, FUNCTIONS) == [1, 1, 2, 6, 24, 120, 720, 5040]


def test_a_function_that_ends_the_thread(driver: Driver) -> None:
    body = """
        .reg .b32 %r; .reg .pred %p; .param .b32 a;
        and.b32 %r, %i, 1;
        st.param.b32 [a], %r;
        call leave, (a);
        st.global.u32 [%out], 7;
    """
    assert run(driver, body, 4, FUNCTIONS) == [7, 0, 7, 0]


def failing(body: str, outside: str) -> str:
    """A program that prints the CUresult of a kernel's failure (it sticks to the context)."""
    return f"""
        from ptx_kernel import run
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        try:
            run(driver, {body!r}, 4, {outside!r})
        except CudaError as error:
            print(error.code)
    """


INDIRECT = """
.func (.param .b32 r) plus(.param .b32 a, .param .b32 b)
{ .reg .b32 %x, %y; ld.param.u32 %x, [a]; ld.param.u32 %y, [b]; add.u32 %x, %x, %y;
  st.param.b32 [r], %x; ret; }
.func (.param .b32 r) times(.param .b32 a, .param .b32 b)
{ .reg .b32 %x, %y; ld.param.u32 %x, [a]; ld.param.u32 %y, [b]; mul.lo.u32 %x, %x, %y;
  st.param.b32 [r], %x; ret; }
.func other(.param .b64 a) { ret; }
.global .align 8 .u64 operations[3] = {plus, times, other};
"""
CALL = """
    { proto: .callprototype (.param .b32 _) _ (.param .b32 _, .param .b32 _);
      .param .b32 a; .param .b32 b; .param .b32 r;
      st.param.b32 [a], %i;
      st.param.b32 [b], 10;
      call (r), %f, (a, b), proto;
      ld.param.u32 %r0, [r];
    }
    st.global.u32 [%out], %r0;
"""


def test_calls_through_a_table(driver: Driver) -> None:
    body = """
        .reg .b32 %r<2>; .reg .b64 %f;
        and.b32 %r0, %i, 1;
        ld.global.u64 %f, operations[%r0];
    """ + CALL
    assert run(driver, body, 4, INDIRECT) == [10, 10, 12, 30]


def test_calls_through_a_list_of_targets(driver: Driver) -> None:
    body = """
        .reg .b32 %r<2>; .reg .b64 %f; .reg .pred %p;
        setp.gt.u32 %p, %i, 1;
        mov.u64 %f, plus;
        @%p mov.u64 %f, times;
        { .param .b32 a; .param .b32 b; .param .b32 r;
        targets: .calltargets plus, times;
          st.param.b32 [a], %i;
          st.param.b32 [b], 10;
          call (r), %f, (a, b), targets;
          ld.param.u32 %r0, [r];
        }
        st.global.u32 [%out], %r0;
    """
    assert run(driver, body, 4, INDIRECT) == [10, 11, 20, 30]


@pytest.mark.parametrize(
    ("address", "code"),
    [("mov.u64 %f, 0;", 718), ("mov.u64 %f, other;", 718), ("mov.u64 %f, 0x1234567;", 718)],
    ids=["null", "signature", "nowhere"],
)
def test_a_call_of_no_function(script: Script, address: str, code: int) -> None:
    body = f".reg .b32 %r<2>; .reg .b64 %f; {address} {CALL}"
    assert script(failing(body, INDIRECT)) == str(code)


def test_recursion_without_an_end(script: Script) -> None:
    """Local memory runs out: the launch fails, the process goes on."""
    endless = """
    .func deeper(.param .b32 n)
    { .reg .b32 %x; .param .b32 a; ld.param.u32 %x, [n]; add.u32 %x, %x, 1;
      st.param.b32 [a], %x; call deeper, (a); ld.param.u32 %x, [a]; ret; }
    """
    body = ".param .b32 a; st.param.b32 [a], %i; call deeper, (a); st.global.u32 [%out], 1;"
    assert script(failing(body, endless)) == "719"


# ---- parameters and memory of the thread's own ----


def test_local_memory_is_each_threads_own(driver: Driver) -> None:
    body = """
        .local .align 4 .b32 own[8]; .local .align 8 .b8 bytes[3];
        .reg .b32 %n, %x; .reg .b64 %a; .reg .pred %p;
        mov.u64 %a, own;
        mov.u32 %n, 0;
    FILL:
        add.u32 %x, %n, %i;
        st.local.u32 [%a], %x;
        add.u64 %a, %a, 4;
        add.u32 %n, %n, 1;
        setp.lt.u32 %p, %n, 8;
        @%p bra FILL;
        bar.sync 0;
        st.local.u8 [bytes+2], %i;
        ld.local.u32 %x, [%a+-4];
        ld.local.u8 %n, [bytes+2];
        add.u32 %x, %x, %n;
        ld.local.u32 %n, own[3];
        add.u32 %x, %x, %n;
        st.global.u32 [%out], %x;
    """
    assert run(driver, body, 8) == [i + 7 + i + i + 3 for i in range(8)]


def test_a_parameter_whose_address_is_taken(driver: Driver) -> None:
    function = """
    .func (.param .b32 r) third(.param .align 4 .b8 list[16], .param .b32 at)
    { .reg .b64 %a, %g; .reg .b32 %n, %x;
      ld.param.u32 %n, [at];
      mov.u64 %a, list;
      mad.wide.u32 %a, %n, 4, %a;
      ld.local.u32 %x, [%a];
      st.local.u32 [%a], 50;
      ld.param.u32 %n, [list+4];
      add.u32 %x, %x, %n;
      st.param.b32 [r], %x;
      ret; }
    """
    body = """
        .reg .b32 %r; .param .align 4 .b8 list[16]; .param .b32 at; .param .b32 r;
        st.param.v4.b32 [list], {100, 200, 300, 400};
        and.b32 %r, %i, 3;
        st.param.b32 [at], %r;
        call (r), third, (list, at);
        ld.param.b32 %r, [r];
        st.global.u32 [%out], %r;
    """
    # Thread 1 overwrites what it then reads again.
    assert run(driver, body, 4, function) == [300, 250, 500, 600]


def test_a_kernels_parameters_by_address(driver: Driver) -> None:
    text = """
    .visible .entry k(.param .align 8 .b8 both[16])
    { .reg .b64 %o, %a, %g; .reg .b32 %t, %x, %y;
      ld.param.u64 %o, [both];
      mov.u32 %t, %tid.x;
      mad.wide.u32 %o, %t, 4, %o;
      mov.b64 %a, both;
      ld.param.u32 %y, [%a+8];
      cvta.param.u64 %g, %a;
      ld.u32 %x, [%g+8];
      sub.u32 %x, %x, %y;
      cvta.to.param.u64 %a, %g;
      ld.param.u64 %a, [%a+8];
      ld.global.u32 %y, [%a];
      add.u32 %x, %x, %y;
      st.global.u32 [%o], %x;
      ret; }
    """
    module = Module(driver, text)
    assert module.run(2, given=[5]) == [5, 5]
    module.unload()


SPECIAL = """
.visible .entry k(.param .u64 out)
{ .reg .b64 %o; .reg .b32 %r<20>; .reg .v4 .u32 %t, %n;
  mov.v4.u32 {%r0, %r1, %r2, _}, %tid;
  mov.u32 %r3, %ntid.x;
  mov.u32 %r4, %ntid.y;
  mad.lo.u32 %r5, %r2, %r4, %r1;
  mad.lo.u32 %r5, %r5, %r3, %r0;
  mov.u32 %r6, %laneid;
  mov.u32 %r7, %warpid;
  mad.lo.u32 %r8, %r7, 32, %r6;
  mov.u32 %r9, %nwarpid;
  mov.u32 %r10, %lanemask_lt;
  popc.b32 %r11, %r10;
  sub.u32 %r11, %r11, %r6;
  mov.u32 %r12, %nctaid.y;
  mov.u32 %r13, %ctaid.y;
  mad.lo.u32 %r14, %r13, 60, %r5;
  ld.param.u64 %o, [out];
  mad.wide.u32 %o, %r14, 4, %o;
  sub.u32 %r8, %r8, %r5;
  add.u32 %r8, %r8, %r11;
  mad.lo.u32 %r8, %r9, 10, %r8;
  mad.lo.u32 %r8, %r12, 1000, %r8;
  mov.u32 %r15, %cluster_nctarank;
  mad.lo.u32 %r8, %r15, 10000, %r8;
  st.global.u32 [%o], %r8;
  ret; }
"""


def test_special_registers(driver: Driver) -> None:
    """5 x 4 x 3 threads are two warps; lanes and warps number them x first."""
    handle = driver.new("cuModuleLoadData", b".version 8.0\n.target sm_80\n" + SPECIAL.encode())
    function = driver.new("cuModuleGetFunction", handle, b"k")
    out = driver.new("cuMemAlloc_v2", 480)
    value = c_uint64(out)
    pointers = (c_void_p * 1)(addressof(value))
    driver.cuLaunchKernel(function, 1, 2, 1, 5, 4, 3, 0, None, pointers, None)
    driver.cuCtxSynchronize()
    data = driver.download(out, 480)
    assert {int.from_bytes(data[i : i + 4], "little") for i in range(0, 480, 4)} == {12020}
    driver.cuMemFree_v2(out)
    driver.cuModuleUnload(handle)


def test_shared_memory(driver: Driver) -> None:
    """Static variables of the module and of the kernel, and what the launch adds behind them."""
    outside = ".shared .align 4 .b32 ours[8];\n.extern .shared .align 16 .b8 more[];\n"
    body = """
        .shared .align 4 .b8 mine[32]; .reg .b32 %r<6>; .reg .b64 %a;
        mov.u32 %r0, ours; mov.u32 %r1, mine; mov.u32 %r2, more;
        mad.lo.u32 %r0, %i, 4, %r0;
        mad.lo.u32 %r1, %i, 4, %r1;
        mad.lo.u32 %r2, %i, 4, %r2;
        st.shared.u32 [%r0], 1; st.shared.u32 [%r1], 20; st.shared.u32 [%r2], %i;
        barrier.sync 0;
        xor.b32 %r3, %i, 7;
        sub.u32 %r3, %r3, %i;
        mad.lo.u32 %r2, %r3, 4, %r2;
        ld.shared.u32 %r3, [%r2]; ld.shared.u32 %r4, [%r1]; ld.shared.u32 %r5, [%r0];
        add.u32 %r3, %r3, %r4; add.u32 %r3, %r3, %r5;
        mov.u32 %r4, %dynamic_smem_size;
        mad.lo.u32 %r3, %r4, 100, %r3;
        st.global.u32 [%out], %r3;
    """
    assert run(driver, body, 8, outside, shared=32) == [3221 + 7 - i for i in range(8)]


# ---- lanes that wait for each other without a barrier ----


def test_a_lane_waits_for_a_later_one(driver: Driver) -> None:
    """Thread 0 spins on what thread 40, of another warp, writes."""
    body = """
        .reg .b32 %x; .reg .pred %p;
        setp.eq.u32 %p, %i, 40;
        @%p bra WRITE;
        setp.ne.u32 %p, %i, 0;
        @%p ret;
    SPIN:
        ld.volatile.global.u32 %x, [%in];
        setp.eq.u32 %p, %x, 0;
        @%p bra SPIN;
        st.global.u32 [%out], %x;
        ret;
    WRITE:
        st.volatile.global.u32 [%in], 9;
    """
    assert run(driver, body, 64, given=[0])[0] == 9


def test_turns_are_taken_in_order(driver: Driver) -> None:
    """Each lane waits, through an atomic and a flag in a register, for the one after it."""
    body = """
        .reg .b32 %x, %want, %done; .reg .pred %p;
        mov.u32 %done, 0;
        sub.u32 %want, 31, %i;
    LOOP:
        setp.ne.u32 %p, %done, 0;
        @%p bra OUT;
        atom.global.cas.b32 %x, [%in], %want, %want;
        setp.ne.u32 %p, %x, %want;
        @%p bra LOOP;
        st.global.u32 [%out], %x;
        add.u32 %x, %x, 1;
        atom.global.exch.b32 %x, [%in], %x;
        mov.u32 %done, 1;
        bra LOOP;
    OUT:
    """
    assert run(driver, body, 32, given=[0]) == list(range(31, -1, -1))


def test_lanes_in_step(driver: Driver) -> None:
    """The reduction of before Volta: volatile shared memory, no barrier within the warp."""
    steps = "".join(
        f"""
        ld.volatile.shared.u32 %x, [%a]; ld.volatile.shared.u32 %y, [%a+{4 * step}];
        add.u32 %x, %x, %y; st.volatile.shared.u32 [%a], %x;"""
        for step in (16, 8, 4, 2, 1)
    )
    body = f"""
        .shared .align 4 .b32 sum[64]; .reg .b32 %a, %x, %y;
        mov.u32 %a, sum;
        mad.lo.u32 %a, %i, 4, %a;
        st.volatile.shared.u32 [%a+128], 0;
        st.volatile.shared.u32 [%a], %i;
        {steps}
        ld.volatile.shared.u32 %x, [sum];
        st.global.u32 [%out], %x;
    """
    assert run(driver, body, 32)[0] == sum(range(32))


def test_a_histogram(driver: Driver) -> None:
    """Atomics in a loop that goes by its own index, over blocks."""
    body = """
        .reg .b32 %n, %x; .reg .b64 %a; .reg .pred %p;
        mov.u32 %n, %i;
    LOOP:
        rem.u32 %x, %n, 5;
        mad.wide.u32 %a, %x, 4, %base;
        atom.global.add.u32 %x, [%a], 1;
        red.global.add.u32 [%a+20], 2;
        add.u32 %n, %n, 128;
        setp.lt.u32 %p, %n, 1000;
        @%p bra LOOP;
    """
    assert run(driver, body, 10, threads=32, blocks=4) == [200] * 5 + [400] * 5


def test_many_entries_of_one_module(driver: Driver) -> None:
    kernels = [
        entry(f"st.global.u32 [%out], {n};", f"k{n}", ".maxntid 64 .minnctapersm 2")
        for n in range(3)
    ]
    module = Module(driver, "".join(kernels))
    assert [module.run(2, f"k{n}") for n in range(3)] == [[n, n] for n in range(3)]
    module.unload()


def test_to_a_whole_number_and_back_loses_the_sign_of_zero(driver: Driver) -> None:
    """Compilers make one rounding of the two, which keeps it."""
    body = """
        .reg .f32 %f<2>; .reg .b32 %r;
        mad.wide.u32 %in, %i, 4, %in;
        ld.global.f32 %f0, [%in];
        cvt.rni.s32.f32 %r, %f0;
        cvt.rn.f32.s32 %f1, %r;
        st.global.f32 [%out], %f1;
    """
    minus_zero, minus_quarter, minus_one = 0x80000000, 0xBE800000, 0xBF800000
    given = [minus_zero, minus_quarter, minus_one]
    assert run(driver, body, 3, given=given) == [0, 0, minus_one]
