# SPDX-License-Identifier: GPL-2.0-only
"""Barriers: kernels that need no stacks for them do what the same kernels on fibers do.

An operation of the warp at its end is what makes a kernel take fibers.
"""

from __future__ import annotations

import pytest
from cuda_driver import Driver
from ptx_kernel import run

THREADS = 96
FIBERS = "{ .reg .b32 %any; match.any.sync.b32 %any, 0, 0xffffffff; }"

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
