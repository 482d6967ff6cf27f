# SPDX-License-Identifier: GPL-2.0-only
"""Waiting: kernels that need no stacks for it do what the same kernels on fibers do.

Another barrier than barrier 0 is what makes a kernel take fibers.
"""

from __future__ import annotations

import pytest
from cuda_driver import Driver
from memory_types import Script
from ptx_kernel import run

THREADS = 96
FIBERS = "bar.sync 1;"

REDUCE = """
    .shared .align 4 .b32 s[128]; .reg .b32 %a, %x, %y, %k; .reg .pred %p;
    mov.u32 %a, s;
    mad.lo.u32 %a, %i, 4, %a;
    st.shared.u32 [%a], %i;
    st.shared.u32 [%a+128], 0;
    barrier.sync 0;
    mov.u32 %k, 64;
LOOP:
    setp.ge.u32 %p, %i, %k;
    @%p bra NEXT;
    mad.lo.u32 %y, %k, 4, %a;
    ld.shared.u32 %y, [%y];
    ld.shared.u32 %x, [%a];
    add.u32 %x, %x, %y;
    st.shared.u32 [%a], %x;
NEXT:
    bar.cta.sync 0;
    shr.u32 %k, %k, 1;
    setp.ne.u32 %p, %k, 0;
    @%p bra LOOP;
    ld.shared.u32 %x, [s];
    st.global.u32 [%out], %x;
"""

# Registers of every kind cross the barrier; the guard holds for all or for none.
KINDS = """
    .shared .align 8 .b64 s[96];
    .reg .b32 %a, %t; .reg .pred %p, %all; .reg .b16 %h; .reg .b64 %l; .reg .f32 %f;
    .reg .f64 %d; .reg .s32 %s; .reg .v2 .u32 %v; .reg .b128 %w; .reg .b64 %m<2>;
    setp.gt.u32 %p, %i, 40;
    setp.lt.u32 %all, %i, 1000;
    cvt.u16.u32 %h, %i;
    mul.wide.u32 %l, %i, 0x10001;
    cvt.rn.f32.u32 %f, %i;
    cvt.rn.f64.u32 %d, %i;
    neg.s32 %s, %i;
    mov.b128 %w, {%l, %l};
    mov.u32 %v.x, %i;
    add.u32 %v.y, %i, 1;
    mov.u32 %a, s;
    mad.lo.u32 %t, %i, 8, %a;
    st.shared.u64 [%t], %l;
    @%all bar.sync 0;
    xor.b32 %t, %i, 1;
    mad.lo.u32 %t, %t, 8, %a;
    ld.shared.u64 %m0, [%t];
    add.u64 %l, %l, %m0;
    mov.b128 {%m0, %m1}, %w;
    add.u64 %l, %l, %m1;
    cvt.u64.u16 %m0, %h;
    add.u64 %l, %l, %m0;
    cvt.rzi.u64.f32 %m0, %f;
    add.u64 %l, %l, %m0;
    cvt.rzi.u64.f64 %m0, %d;
    add.u64 %l, %l, %m0;
    cvt.s64.s32 %m0, %s;
    add.u64 %l, %l, %m0;
    add.u32 %v.x, %v.x, %v.y;
    cvt.u64.u32 %m0, %v.x;
    add.u64 %l, %l, %m0;
    @%p add.u64 %l, %l, 1000000;
    cvt.u32.u64 %t, %l;
    st.global.u32 [%out], %t;
"""

# Threads come to different barriers, and some have ended.
APART = """
    .shared .align 4 .b32 s[96]; .reg .b32 %a, %x, %n; .reg .pred %p, %q;
    setp.ge.u32 %p, %i, 90;
    @%p exit;
    mov.u32 %a, s;
    mad.lo.u32 %a, %i, 4, %a;
    mov.u32 %n, 3;
    and.b32 %x, %i, 1;
    setp.ne.u32 %q, %x, 0;
AGAIN:
    mad.lo.u32 %x, %i, %n, 7;
    st.shared.u32 [%a], %x;
    @%q bra ODD;
    bar.sync 0;
    ld.shared.u32 %x, [%a+4];
    bra.uni JOIN;
ODD:
    bar.sync 0;
    ld.shared.u32 %x, [%a+-4];
JOIN:
    bar.sync 0;
    sub.u32 %n, %n, 1;
    setp.ne.u32 %p, %n, 0;
    @%p bra AGAIN;
    st.global.u32 [%out], %x;
"""

CALLS = """
    .shared .align 4 .b32 s[96]; .reg .b32 %a, %x, %y;
    mov.u32 %a, s;
    mad.lo.u32 %a, %i, 4, %a;
    { .param .b32 p; .param .b32 r;
      st.param.b32 [p], %i;
      call (r), square, (p);
      ld.param.b32 %x, [r]; }
    st.shared.u32 [%a], %x;
    bar.sync 0;
    xor.b32 %y, %i, 3;
    sub.u32 %y, %y, %i;
    mad.lo.u32 %y, %y, 4, %a;
    ld.shared.u32 %y, [%y];
    { .param .b32 p; .param .b32 r;
      sub.u32 %y, %y, %x;
      st.param.b32 [p], %y;
      call (r), square, (p);
      ld.param.b32 %y, [r]; }
    st.global.u32 [%out], %y;
"""
SQUARE = """
.func (.param .b32 r) square(.param .b32 p)
{ .local .align 4 .b32 own[4]; .reg .b32 %x; ld.param.u32 %x, [p]; st.local.u32 [own+8], %x;
  ld.local.u32 %x, [own+8]; mul.lo.u32 %x, %x, %x; st.param.b32 [r], %x; ret; }
"""


# What lanes tell each other, folded into one word of each thread.
WARP = """
    .reg .b32 %x, %y, %z, %m, %n; .reg .pred %p, %q; .reg .b64 %l;
    .reg .b32 %sum, %lane;
    mov.u32 %lane, %laneid;
    mov.u32 %sum, 0;
    mul.lo.u32 %x, %i, 0x9e3779b1;
    mov.u32 %n, 4;
ROUND:
    { .reg .b32 %d;
      shfl.sync.up.b32 %y|%p, %x, %n, 0, 0xffffffff; selp.u32 %y, %y, 1, %p;
      shfl.sync.down.b32 %z, %x, 3, 31, 0xffffffff; xor.b32 %y, %y, %z;
      shfl.sync.bfly.b32 %x, %x, %n, 31, 0xffffffff; add.u32 %x, %x, %y;
      shfl.sync.idx.b32 %z, %x, %lane, 0x1807, -1; add.u32 %x, %x, %z;
      and.b32 %d, %x, 1; setp.ne.u32 %p, %d, 0;
      vote.sync.ballot.b32 %z, %p, 0xffffffff; add.u32 %x, %x, %z;
      vote.sync.any.pred %q, %p, 0xffffffff; @%q add.u32 %x, %x, 5;
      vote.sync.all.pred %q, !%p, 0xffffffff; @%q add.u32 %x, %x, 7;
      and.b32 %d, %x, 3;
      match.any.sync.b32 %z, %d, 0xffffffff; add.u32 %x, %x, %z;
      match.all.sync.b32 %z|%q, %d, 0xffffffff; @%q add.u32 %x, %x, 9; add.u32 %x, %x, %z;
      redux.sync.add.s32 %z, %x, 0xffffffff; xor.b32 %x, %x, %z;
      redux.sync.min.u32 %z, %x, 0xffffffff; add.u32 %x, %x, %z;
      activemask.b32 %z; add.u32 %x, %x, %z;
      bar.warp.sync 0xffffffff;
    }
    and.b32 %y, %lane, 1; setp.eq.u32 %p, %y, 0;
    @%p bra EVEN;
    redux.sync.max.u32 %z, %x, 0xaaaaaaaa; add.u32 %x, %x, %z;
    shfl.sync.idx.b32 %z, %x, 1, 31, 0xaaaaaaaa; add.u32 %x, %x, %z;
    bra JOIN;
EVEN:
    redux.sync.or.b32 %z, %x, 0x55555555; add.u32 %x, %x, %z;
JOIN:
    bar.red.popc.u32 %z, 0, %p; add.u32 %x, %x, %z;
    bar.red.and.pred %q, 0, %p; @%q add.u32 %x, %x, 11;
    barrier.cta.red.or.pred %q, 0, !%p; @%q add.u32 %x, %x, 13;
    sub.u32 %n, %n, 1; setp.ne.u32 %p, %n, 0; @%p bra ROUND;
    st.global.u32 [%out], %x;
"""
# A block of two whole warps and a part, of which some lanes end early.
PARTS = """
    .reg .b32 %x, %y, %lane; .reg .pred %p;
    mov.u32 %lane, %laneid;
    setp.ge.u32 %p, %i, 94; @%p exit;
    setp.eq.u32 %p, %lane, 7; @%p exit;
    shfl.sync.down.b32 %x, %i, 1, 31, 0xffffffff;
    vote.sync.ballot.b32 %y, 1, 0xffffffff;
    popc.b32 %y, %y;
    mad.lo.u32 %x, %x, 100, %y;
    setp.eq.u32 %p, %lane, 9; @%p ret;
    bar.sync 0;
    activemask.b32 %y; popc.b32 %y, %y;
    mad.lo.u32 %x, %x, 100, %y;
    st.global.u32 [%out], %x;
"""
# Each thread's local memory and its copy of the parameters outlive the barrier.
FRAMES = """
    .local .align 8 .b8 own[24]; .reg .b64 %a, %g; .reg .b32 %x, %y;
    mov.u64 %a, own;
    st.local.u32 [%a+4], %i;
    cvta.local.u64 %g, %a;
    bar.sync 0;
    ld.u32 %x, [%g+4];
    mov.b64 %a, k_in; cvta.param.u64 %a, %a; ld.u64 %a, [%a]; ld.global.u32 %y, [%a];
    add.u32 %x, %x, %y;
    { .param .b32 p; .param .b32 r; st.param.b32 [p], %x; call (r), square, (p);
      ld.param.b32 %y, [r]; }
    ld.local.u32 %x, [own+4];
    bar.sync 0;
    add.u32 %x, %x, %y;
    st.global.u32 [%out], %x;
"""


def kinds(i: int) -> int:
    long = i * 0x10001
    return (long + (i ^ 1) * 0x10001 + long + i + i + i - i + 2 * i + 1
            + (1000000 if i > 40 else 0)) % 2**32  # fmt: skip


def apart(i: int) -> int:
    other = i + 1 if i % 2 == 0 else i - 1
    return other + 7 if i < 90 else 0


def calls(i: int) -> int:
    return ((i ^ 3) ** 2 - i**2) ** 2 % 2**32


@pytest.mark.parametrize("end", ["", FIBERS], ids=["steps", "fibers"])
@pytest.mark.parametrize(
    ("body", "want"),
    [
        (REDUCE, [sum(range(THREADS))] * THREADS),
        (KINDS, [kinds(i) for i in range(THREADS)]),
        (APART, [apart(i) for i in range(THREADS)]),
        (CALLS, [calls(i) for i in range(THREADS)]),
    ],
    ids=["reduce", "kinds", "apart", "calls"],
)
def test_barriers(driver: Driver, context: int, body: str, want: list[int], end: str) -> None:
    assert run(driver, body + end, THREADS, SQUARE) == want


@pytest.mark.parametrize("barriers", ["", "bar.sync 0;"], ids=["warp", "block"])
def test_what_lanes_tell_each_other(driver: Driver, context: int, barriers: str) -> None:
    words = [run(driver, WARP + barriers + end, THREADS) for end in ("", FIBERS)]
    assert words[0] == words[1]
    assert len(set(words[0])) > THREADS // 2


@pytest.mark.parametrize("end", ["", FIBERS], ids=["steps", "fibers"])
def test_parts_of_warps(driver: Driver, context: int, end: str) -> None:
    def want(i: int) -> int:
        lane, warp = i % 32, i // 32
        if i >= 94 or lane in (7, 9):
            return 0
        here = (29 if warp == 2 else 31, 28 if warp == 2 else 30)
        below = i if lane == 31 or lane == 6 or i == 93 else i + 1
        return (below * 100 + here[0]) * 100 + here[1]

    assert run(driver, PARTS + end, THREADS) == [want(i) for i in range(THREADS)]


@pytest.mark.parametrize("end", ["", FIBERS], ids=["steps", "fibers"])
def test_frames_outlive_barriers(driver: Driver, context: int, end: str) -> None:
    words = run(driver, FRAMES + end, THREADS, SQUARE, given=[5])
    assert words == [i + (i + 5) ** 2 for i in range(THREADS)]


def test_who_never_comes(script: Script) -> None:
    """Half of the block waits for lanes that wait at the barrier: told, not hung."""
    body = """
        .reg .pred %p; .reg .b32 %x;
        setp.lt.u32 %p, %i, 16;
        @%p bra WARP;
        bar.sync 0;
        ret;
    WARP:
        shfl.sync.idx.b32 %x, %i, 20, 31, 0xffffffff;
        bar.sync 0;
    """
    for end in ("", FIBERS):
        done = script(f"""
            from ptx_kernel import run
            driver.cuInit(0)
            driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
            try:
                run(driver, {body + end!r}, 32)
            except CudaError as error:
                print(error.code)
        """)
        assert done == "719"
        assert "no thread can go on" in done.stderr
