# SPDX-License-Identifier: GPL-2.0-only
"""Threads of a kernel that wait for each other: barriers, warps, spinning, whole grids."""

from __future__ import annotations

from ctypes import c_uint32

import pytest
from cuda_driver import Driver
from ptx_kernels import Kernel, Memory, at, entry

LAUNCH_FAILED = 719
COOPERATIVE_LAUNCH_TOO_LARGE = 720

STORE = at("d9", "out", "i", 4) + "st.global.u32 [d9], r9;"


def result(
    driver: Driver, body: str, block: int = 32, grid: int = 1, before: str = ""
) -> list[int]:
    """What each thread leaves in r9."""
    out = Memory(driver, grid * block)
    kernel = Kernel(driver, entry("go", "u64 out", body + STORE, before))
    assert kernel.run(grid, block, out.parameter) == 0
    return out.read()


SLOTS = ".shared .align 4 .b8 slots[4096];\n"
# r1: the address of slots[t].
SLOT = "mov.u32 r0, slots; mad.lo.u32 r1, t, 4, r0;"


@pytest.mark.parametrize("block", [1, 31, 32, 33, 256, 1000, 1024])
def test_a_barrier_is_for_all(driver: Driver, context: int, block: int) -> None:
    body = f"""{SLOT} mov.u32 r9, 0; mov.u32 r5, 0;
    LOOP: st.shared.u32 [r1], r5; bar.sync 0;
    add.u32 r2, t, 1; rem.u32 r2, r2, n; mad.lo.u32 r2, r2, 4, r0; ld.shared.u32 r3, [r2];
    add.u32 r9, r9, r3; bar.sync 0; add.u32 r5, r5, 1; setp.lt.u32 p1, r5, 10; @p1 bra LOOP;
    """
    assert result(driver, body, block, 2, SLOTS) == [45] * block * 2


def test_threads_that_have_ended_are_not_waited_for(driver: Driver, context: int) -> None:
    body = """mov.u32 r9, 7; and.b32 r2, t, 3; setp.eq.u32 p1, r2, 1; @p1 ret;
    bar.sync 0; bar.warp.sync 0xffffffff; vote.sync.ballot.b32 r9, 1, 0xffffffff;
    """
    assert result(driver, body, 64) == [0 if t % 4 == 1 else 0xDDDDDDDD for t in range(64)]


def test_barriers_for_some_of_the_threads(driver: Driver, context: int) -> None:
    """Warps 0 and 1 make, 2 and 3 take: arrive on one side, sync on the other."""
    body = f"""{SLOT} mov.u32 r9, 0; mov.u32 r5, 0; setp.ge.u32 p1, t, 64; @p1 bra TAKE;
    MAKE: add.u32 r6, r5, t; st.shared.u32 [r1], r6; bar.arrive 1, 128; bar.sync 2, 128;
    add.u32 r5, r5, 1; setp.lt.u32 p2, r5, 5; @p2 bra MAKE; bra END;
    TAKE: bar.sync 1, 128; ld.shared.u32 r7, [r1+-256]; add.u32 r9, r9, r7; bar.sync 2, 128;
    add.u32 r5, r5, 1; setp.lt.u32 p2, r5, 5; @p2 bra TAKE;
    END:
    """
    want = [0] * 64 + [5 * t + 10 for t in range(64)]
    assert result(driver, body, 128, 1, SLOTS) == want


def test_a_partial_warp_counts_as_a_whole_one(driver: Driver, context: int) -> None:
    body = "mov.u32 r9, 1; bar.sync 3, 64; mov.u32 r9, 2;"
    assert result(driver, body, 40) == [2] * 40


def test_barriers_that_reduce(driver: Driver, context: int) -> None:
    body = """and.b32 r2, t, 3; setp.eq.u32 p1, r2, 0; setp.lt.u32 p2, t, 1000;
    bar.red.popc.u32 r3, 0, p1; bar.red.and.pred p3, 0, p1; bar.red.or.pred p4, 0, p1;
    bar.red.and.pred p5, 0, p2; barrier.red.popc.u32 r4, 1, 96, !p1;
    selp.u32 r5, 1, 0, p3; selp.u32 r6, 10, 0, p4; selp.u32 r7, 100, 0, p5;
    add.u32 r9, r5, r6; add.u32 r9, r9, r7; mad.lo.u32 r9, r3, 1000, r9;
    mad.lo.u32 r9, r4, 1000000, r9;
    """
    assert result(driver, body, 96) == [72 * 1000000 + 24 * 1000 + 110] * 96


@pytest.mark.parametrize(
    ("operation", "want"),
    [
        ("shfl.sync.up.b32 r9, t, 3, 0, -1", [max(0, t - 3) if t >= 3 else t for t in range(32)]),
        ("shfl.sync.down.b32 r9, t, 5, 31, -1", [t + 5 if t < 27 else t for t in range(32)]),
        ("shfl.sync.bfly.b32 r9, t, 16, 31, -1", [t ^ 16 for t in range(32)]),
        ("shfl.sync.idx.b32 r9, t, 9, 31, -1", [9] * 32),
        ("shfl.sync.idx.b32 r9, t, 2, 0x181f, -1", [t // 8 * 8 + 2 for t in range(32)]),
        ("vote.sync.ballot.b32 r9, p1, -1", [0x55555555] * 32),
        ("vote.sync.any.pred p2, p1, -1; selp.u32 r9, 1, 0, p2", [1] * 32),
        ("vote.sync.all.pred p2, p1, -1; selp.u32 r9, 1, 0, p2", [0] * 32),
        ("vote.sync.uni.pred p2, p1, -1; selp.u32 r9, 1, 0, p2", [0] * 32),
        ("redux.sync.add.u32 r9, t, -1", [496] * 32),
        ("redux.sync.max.s32 r9, r2, -1", [15] * 32),
        ("redux.sync.min.s32 r9, r2, -1", [0xFFFFFFF0] * 32),
        ("redux.sync.max.u32 r9, r2, -1", [0xFFFFFFFF] * 32),
        ("redux.sync.xor.b32 r9, t, -1", [0] * 32),
        ("redux.sync.or.b32 r9, t, -1", [31] * 32),
        ("match.any.sync.b32 r9, r3, -1", [0x11111111 << (t % 4) for t in range(32)]),
        ("match.all.sync.b32 r9, r4, -1", [0xFFFFFFFF] * 32),
        ("match.all.sync.b32 r9, t, -1", [0] * 32),
        ("activemask.b32 r9", [0xFFFFFFFF] * 32),
    ],
)
def test_operations_of_a_warp(
    driver: Driver, context: int, operation: str, want: list[int]
) -> None:
    body = f"""and.b32 r1, t, 1; setp.eq.u32 p1, r1, 0; sub.u32 r2, t, 16; and.b32 r3, t, 3;
    mov.u32 r4, 6; {operation};"""
    assert result(driver, body, 64)[:32] == want


def test_lanes_meet_by_mask_and_not_by_place(driver: Driver, context: int) -> None:
    """Halves of a warp go different ways; each meets its own kind, and then all meet."""
    body = """
    setp.lt.u32 p1, t, 12; @p1 bra LOW;
    vote.sync.ballot.b32 r2, 1, 0xfffff000; redux.sync.add.u32 r3, t, 0xfffff000; bra JOIN;
    LOW: setp.lt.u32 p2, t, 2; @!p2 bra LOW2; bar.warp.sync 3; shfl.sync.bfly.b32 r5, t, 1, 31, 3;
    LOW2: vote.sync.ballot.b32 r2, 1, 0xfff; redux.sync.add.u32 r3, t, 0xfff;
    JOIN: redux.sync.max.u32 r4, r3, 0xffffffff; add.u32 r9, r2, r3; add.u32 r9, r9, r4;
    """
    low, high = sum(range(12)), sum(range(12, 32))
    want = [0xFFF + low + high] * 12 + [(0xFFFFF000 + 2 * high) & 0xFFFFFFFF] * 20
    assert result(driver, body, 32) == want


def test_the_active_mask_is_of_lanes_that_go_together(driver: Driver, context: int) -> None:
    body = """mov.u32 r9, 0; and.b32 r1, t, 3; setp.eq.u32 p1, r1, 0; @!p1 bra ELSE;
    activemask.b32 r9; bra END;
    ELSE: setp.eq.u32 p2, r1, 3; @p2 bra END; activemask.b32 r9;
    END:"""
    of = {0: 0x11111111, 1: 0x66666666, 2: 0x66666666, 3: 0}
    assert result(driver, body, 64) == [of[t % 4] for t in range(64)]


def test_atomics_by_the_leader_of_active_lanes(driver: Driver, context: int) -> None:
    """The usual aggregation: one lane adds for all, with shuffles among the active ones."""
    text = entry(
        "go",
        "u64 total, u64 out",
        f"""mov.u32 r9, 0xffffffff; and.b32 r1, t, 1; setp.eq.u32 p1, r1, 0; @p1 bra END;
        activemask.b32 r2; popc.b32 r3, r2; brev.b32 r4, r2; bfind.shiftamt.u32 r4, r4;
        mov.u32 r5, %laneid; setp.ne.u32 p2, r4, r5; @p2 bra SHARE;
        atom.global.add.u32 r6, [total], r3;
        SHARE: shfl.sync.idx.b32 r6, r6, r4, 31, r2;
        mov.u32 r7, %lanemask_lt; and.b32 r7, r7, r2; popc.b32 r7, r7; add.u32 r9, r6, r7;
        END: {STORE}""",
    )
    total, out = Memory(driver, 1), Memory(driver, 256)
    assert Kernel(driver, text).run(2, 128, total.parameter, out.parameter) == 0
    assert total.read() == [128]
    assert sorted(v for v in out.read() if v != 0xFFFFFFFF) == list(range(128))


def test_lanes_spin_on_volatile_shared_memory(driver: Driver, context: int) -> None:
    """Each lane waits for the one behind it, the last goes first; no barrier anywhere."""
    body = f"""{SLOT} mov.u32 r2, 0; st.volatile.shared.u32 [r1], r2; bar.sync 0;
    add.u32 r3, t, 1; setp.eq.u32 p1, r3, n; @p1 bra GO;
    WAIT: ld.volatile.shared.u32 r4, [r1+4]; setp.eq.u32 p2, r4, 0; @p2 bra WAIT;
    GO: sub.u32 r9, n, t; st.volatile.shared.u32 [r1], r9;
    """
    assert result(driver, body, 200, 3, SLOTS) == [200 - t for t in range(200)] * 3


def test_a_lock_that_lanes_of_one_warp_take_in_turn(driver: Driver, context: int) -> None:
    text = entry(
        "go",
        "u64 lock, u64 sum",
        """AGAIN: atom.global.cas.b32 r1, [lock], 0, 1; setp.ne.u32 p1, r1, 0; @p1 bra AGAIN;
        ld.volatile.global.u32 r2, [sum]; add.u32 r2, r2, 1; st.volatile.global.u32 [sum], r2;
        membar.gl; atom.global.exch.b32 r3, [lock], 0;""",
    )
    lock, total = Memory(driver, 1), Memory(driver, 1)
    assert Kernel(driver, text).run(8, 96, lock.parameter, total.parameter) == 0
    assert (lock.read(), total.read()) == ([0], [8 * 96])


GRID = entry(
    "go",
    "u64 count, u64 data, u64 out",
    f"""
    mov.u32 r10, %nctaid.x; mov.u32 r11, 0; mov.u32 r12, 0; mul.lo.u32 r13, r10, n;
    ROUND: {at("d1", "data", "i", 4)} add.u32 r1, r11, i; st.global.u32 [d1], r1;
    bar.sync 0; setp.ne.u32 p1, t, 0; @p1 bra WAITED;
    membar.gl; atom.global.add.u32 r2, [count], 1; add.u32 r14, r11, 1; mul.lo.u32 r14, r14, r10;
    SPIN: ld.volatile.global.u32 r3, [count]; setp.lt.u32 p2, r3, r14; @p2 bra SPIN;
    WAITED: bar.sync 0;
    add.u32 r4, i, n; rem.u32 r4, r4, r13; {at("d2", "data", "r4", 4)} ld.global.u32 r5, [d2];
    add.u32 r12, r12, r5;
    bar.sync 0; setp.ne.u32 p1, t, 0; @p1 bra WAITED2;
    membar.gl; atom.global.add.u32 r2, [count+4], 1; add.u32 r14, r11, 1; mul.lo.u32 r14, r14, r10;
    SPIN2: ld.volatile.global.u32 r3, [count+4]; setp.lt.u32 p2, r3, r14; @p2 bra SPIN2;
    WAITED2: bar.sync 0;
    add.u32 r11, r11, 1; setp.lt.u32 p3, r11, 4; @p3 bra ROUND;
    mov.u32 r9, r12; {STORE}
    """,
)


@pytest.mark.parametrize("call", ["cuLaunchCooperativeKernel", "cuLaunchKernel"])
def test_blocks_of_a_grid_wait_for_each_other(driver: Driver, context: int, call: str) -> None:
    """A barrier of all blocks by atomics and spinning, as libraries make it; on a card the
    plain launch works as well where all blocks fit at once."""
    grid, block = 12, 64
    count, data, out = Memory(driver, 2), Memory(driver, grid * block), Memory(driver, grid * block)
    kernel = Kernel(driver, GRID)
    code = kernel.run(grid, block, count.parameter, data.parameter, out.parameter, call=call)
    assert code == 0
    size = grid * block
    assert out.read() == [4 * ((i + block) % size) + 6 for i in range(size)]


def test_a_cooperative_grid_must_fit(driver: Driver, context: int) -> None:
    kernel = Kernel(driver, GRID)
    memory = Memory(driver, 4)
    code = kernel.code(100000, 1024, *[memory.parameter] * 3, call="cuLaunchCooperativeKernel")
    assert code == COOPERATIVE_LAUNCH_TOO_LARGE


def test_a_large_cooperative_grid(driver: Driver, context: int) -> None:
    """256 blocks at once, each with shared memory of its own."""
    grid = 256
    text = entry(
        "go",
        "u64 count, u64 out",
        f"""{SLOT} mov.u32 r2, %nctaid.x; st.shared.u32 [r1], i; bar.sync 0;
        setp.ne.u32 p1, t, 0; @p1 bra WAITED; atom.global.add.u32 r3, [count], 1;
        SPIN: ld.volatile.global.u32 r3, [count]; setp.lt.u32 p2, r3, r2; @p2 bra SPIN;
        WAITED: bar.sync 0; not.b32 r4, t; add.u32 r4, r4, n; mad.lo.u32 r4, r4, 4, r0;
        ld.shared.u32 r9, [r4]; {STORE}""",
        before=".shared .align 4 .b8 slots[128];\n",
    )
    count, out = Memory(driver, 1), Memory(driver, grid * 32)
    kernel = Kernel(driver, text)
    code = kernel.run(grid, 32, count.parameter, out.parameter, call="cuLaunchCooperativeKernel")
    assert code == 0
    assert out.read() == [b * 32 + 31 - t for b in range(grid) for t in range(32)]


DEAD = entry(
    "dead",
    "u32 unused",
    "setp.lt.u32 p1, t, 5; @p1 bra ONE; bar.sync 1; bra END; ONE: bar.sync 2; END:",
)


def test_a_deadlock_is_named(script: object, sim_table: object) -> None:
    out = script(  # type: ignore[operator]
        f"""
        from ptx_kernels import Kernel
        driver.cuInit(0)
        driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
        kernel = Kernel(driver, {DEAD!r})
        print(kernel.run(1, 32, c_uint32(0)), driver.code("cuCtxSynchronize"))
        """
    )
    assert out.split() == [str(LAUNCH_FAILED)] * 2
    assert 'kernel "dead", block (0, 0, 0): no thread can go on' in out.stderr
    assert "32 wait at a barrier" in out.stderr


def test_kernels_of_several_streams_at_once(driver: Driver, context: int) -> None:
    """One kernel waits for what another one, in another stream, writes."""
    wait = entry(
        "wait",
        "u64 flag, u64 out",
        "SPIN: ld.volatile.global.u32 r1, [flag]; setp.eq.u32 p1, r1, 0; @p1 bra SPIN;"
        "st.global.u32 [out], r1;",
    )
    tell = entry("tell", "u64 flag, u32 value", "st.global.u32 [flag], value;")
    flag, out = Memory(driver, 1), Memory(driver, 1)
    first, second = driver.new("cuStreamCreate", 1), driver.new("cuStreamCreate", 1)
    waiting, telling = Kernel(driver, wait), Kernel(driver, tell)
    waiting(1, 1, flag.parameter, out.parameter, stream=first)
    telling(1, 1, flag.parameter, c_uint32(9), stream=second)
    driver.cuStreamSynchronize(first)
    assert out.read() == [9]
    for stream in (first, second):
        driver.cuStreamDestroy_v2(stream)
