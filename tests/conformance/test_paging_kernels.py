# SPDX-License-Identifier: GPL-2.0-only
"""Kernels and paging: the blocks that a launch touches, its faults, its remote bytes."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_driver import SimTable
from paging_tools import BLOCK, Counted, Stats, counts, moved, play

Script = Callable[..., str]

# Each thread loads, stores or adds at bytes base + offsets[i]; i beyond count does nothing.
KERNELS = '''
def kernel(name, body):
    text = entry(name, "u64 base, u64 offsets, u32 count", f"""
        setp.ge.u32 p1, i, count;
        @p1 bra END;
        {at("d1", "offsets", "i", 8)}
        ld.global.u64 d2, [d1];
        add.u64 d3, d2, base;
        {body}
        END:
    """)
    return Kernel(driver, text)

load_ = kernel("load", "ld.global.u32 r1, [d3]; st.global.u32 [d1], r1;")
store = kernel("store", "st.global.u32 [d3], 7;")
add = kernel("add", "red.global.add.u32 [d3], 1;")

def run(what, base, offsets, block=64):
    memory = Memory(driver, max(len(offsets), 1 << 17), c_uint64)  # a block of its own
    memory.write(offsets + [0] * (memory.count - len(offsets)))
    grid = (len(offsets) + block - 1) // block
    parameters = c_uint64(base), c_uint64(memory.address), c_uint32(len(offsets))
    assert what.run(grid, block, *parameters) == 0
    driver.cuMemFree_v2(memory.address)
'''


@pytest.fixture
def counted(script: Script, sim_table: SimTable, tmp_path: Path) -> Counted:
    """Runs text on a card of `card` blocks and returns its statistics."""

    def run(text: str, card: int = 64, **env: str) -> Stats:
        return play(script, tmp_path, KERNELS + text, card, **env)

    return run


def sets(launch: Stats, size: int) -> tuple[set[int], set[int]]:
    """The blocks read and written of the one allocation of `size` blocks."""
    (one,) = [t for t in launch["touched"] if t["bytes"] == size * BLOCK]
    read, written = (
        {block for first, end in one[key] for block in range(first, end)}
        for key in ("read", "written")
    )
    return read, written


def offsets_of(blocks: set[int], generator: random.Random) -> list[int]:
    """Several places in each of the blocks, its first and last word among them."""
    places = [b * BLOCK + o for b in blocks for o in (0, BLOCK - 4, 4 * generator.randrange(9999))]
    generator.shuffle(places)
    return places


WORDS = {
    "load": ("load_", True, False),
    "store": ("store", False, True),
    "add": ("add", True, True),
}


@pytest.mark.parametrize("memory", ["managed(40)", "managed(40, SPILLED)", "plain(40)", "host(40)"])
def test_the_sets_are_what_the_kernel_touches(counted: Counted, memory: str) -> None:
    """Strided, random and partial sets, of loads, stores and atomics."""
    generator = random.Random(memory)
    chosen = [
        set(range(0, 40, 3)),
        set(generator.sample(range(40), 11)),
        {39},
        set(range(17, 29)),
        {0, 1, 38},
    ]
    names = [generator.choice(sorted(WORDS)) for _ in chosen[3:]] + sorted(WORDS)
    text = (
        'plain = lambda n: driver.new("cuMemAlloc_v2", n * BLOCK)\n'
        'host = lambda n: driver.new("cuMemHostAlloc", n * BLOCK, 0)\n'
        f"a = {memory}\n"
    )
    for name, blocks in zip(names, chosen, strict=True):
        text += f"run({WORDS[name][0]}, a, {offsets_of(blocks, generator)})\n"
    stats = counted(text, EMUV_SIM_WORKERS="2")
    assert [launch["kernel"] for launch in stats["launches"]] == names
    for name, blocks, launch in zip(names, chosen, stats["launches"], strict=True):
        _, reads, writes = WORDS[name]
        assert sets(launch, 40) == (blocks if reads else set(), blocks if writes else set())
        assert launch["touched_complete"]
        assert launch["block"] == [64, 1, 1]
        assert launch["grid"] == [(3 * len(blocks) + 63) // 64, 1, 1]


def test_a_sweep_within_one_launch(counted: Counted) -> None:
    """One thread walks 24 blocks three times on a card with room for 8."""
    text = """
text = entry("walk", "u64 base, u32 steps, u32 blocks", '''
    mov.u32 r1, 0;
    NEXT:
    rem.u32 r2, r1, blocks;
    mul.wide.u32 d1, r2, 2097152;
    add.u64 d1, d1, base;
    ld.global.u32 r3, [d1]; add.u32 r3, r3, 1; st.global.u32 [d1], r3;
    add.u32 r1, r1, 1;
    setp.lt.u32 p1, r1, steps;
    @p1 bra NEXT;
''')
a = managed(24)
prefetch(a, 24, CPU)
assert Kernel(driver, text).run(1, 1, c_uint64(a), c_uint32(72), c_uint32(24)) == 0
assert [c_uint32.from_address(a + i * BLOCK).value for i in range(24)] == [3] * 24
    """
    stats = counted(text, card=8)
    (launch,) = stats["launches"]
    assert moved(launch) == {"in/fault": 72, "out/eviction": 64}
    assert counts(launch)[:2] == (72, 64)
    assert sets(launch, 24) == (set(range(24)), set(range(24)))
    # A block comes again when 23 others have: within one batch, so each opens the next.
    assert launch["fault_batches"] == 3


def test_remote_bytes_are_those_of_each_access(counted: Counted) -> None:
    text = """
a = managed(8, SPILLED)
prefetch(a, 8, CPU)
offsets = [4 * i for i in range(5000)]
run(load_, a, offsets); run(store, a, offsets[:70]); run(add, a, offsets[:9])
assert resident(a, 8) == 0
    """
    launches = counted(text, EMUV_SIM_WORKERS="2")["launches"]
    bytes_ = [
        (launch["to_device_bytes"]["remote"], launch["to_host_bytes"]["remote"])
        for launch in launches
    ]
    assert bytes_ == [(4 * 5000, 0), (0, 4 * 70), (4 * 9, 4 * 9)]
    assert [launch["faults"] for launch in launches] == [0, 0, 0]  # mapped by the advice
    # What is left are the offsets, which the card has: read, and written by the first.
    assert [launch["vram_bytes"] for launch in launches] == [(8 + 4) * 5000, 8 * 70, 8 * 9]


def test_instructions_are_counted_by_thread(counted: Counted) -> None:
    stats = counted("a = managed(1)\nrun(store, a, [0] * 100)\nrun(store, a, [0] * 300)")
    few, many = (launch["instructions"] for launch in stats["launches"])
    (kernel,) = stats["kernels"]
    assert few > 500
    # Threads beyond the count leave early: 28 of 128, 20 of 320.
    assert 2 < many / few < 4
    assert kernel["name"] == "store"
    assert (kernel["launches"], kernel["instructions"]) == (2, few + many)


def test_a_kernel_moves_what_it_needs(counted: Counted) -> None:
    text = """
a = managed(10)
prefetch(a, 10, CPU)
run(load_, a, [i * BLOCK for i in (1, 4, 4, 7)])
assert [resident(a + i * BLOCK, 1) for i in range(10)] == [0, 1, 0, 0, 1, 0, 0, 1, 0, 0]
prefetch(a, 5, 0)
run(store, a, [i * BLOCK for i in range(5)])
    """
    first, second = counted(text)["launches"]
    assert moved(first) == {"in/fault": 3}
    assert counts(first) == (3, 0, 0)
    assert moved(second) == {}
    assert counts(second) == (0, 0, 0)


def test_a_kernels_write_collapses_copies(counted: Counted) -> None:
    text = """
a = managed(4, [(SET_READ_MOSTLY, 0)])
prefetch(a, 4, CPU)
run(load_, a, [0, BLOCK, 2 * BLOCK])
run(store, a, [BLOCK])
driver.cuMemAdvise(a, 4 * BLOCK, UNSET_READ_MOSTLY, 0)   # copies go home, the written one stays
assert [resident(a + i * BLOCK, 1) for i in range(4)] == [0, 1, 0, 0]
    """
    first, second = counted(text)["launches"]
    assert counts(first) == (3, 0, 0)
    assert counts(second) == (1, 0, 0)
    assert moved(second) == {}


def test_small_allocations_share_blocks(counted: Counted) -> None:
    text = """
small = driver.new("cuMemAlloc_v2", 4096)
run(store, small, [0, 4092])
    """
    (launch,) = counted(text)["launches"]
    (touched,) = [t for t in launch["touched"] if t["allocation"] == 0]
    assert touched["kind"] == "small"
    assert touched["read"] == []
    ((first, end),) = touched["written"]
    assert end == first + 1


@pytest.mark.parametrize(("limit", "listed"), [("2", 2), ("0", 0), ("all", 5)])
def test_launches_are_listed_up_to_a_limit(counted: Counted, limit: str, listed: int) -> None:
    text = "a = managed(1)\nfor _ in range(5): run(store, a, [0])"
    stats = counted(text, EMUV_SIM_STATS_LAUNCHES=limit)
    assert len(stats["launches"]) == listed
    assert stats["kernels"][0]["launches"] == stats["devices"][0]["launches"] == 5
    assert stats["devices"][0]["launches_followed"] == 5


def test_nothing_is_followed_where_it_is_switched_off(counted: Counted) -> None:
    stats = counted("a = managed(1)\nrun(store, a, [0])", EMUV_SIM_TRACK="0")
    device = stats["devices"][0]
    assert (device["launches"], device["launches_followed"]) == (1, 0)
    assert stats["launches"] == stats["kernels"] == []
    assert counts(device) == (0, 0, 0)


def test_memory_of_a_peer_needs_its_access(counted: Counted) -> None:
    text = """
driver.cuDevicePrimaryCtxRetain(byref(other := c_void_p()), 1)
driver.cuCtxSetCurrent(other)
far = driver.new("cuMemAlloc_v2", 2 * BLOCK)
driver.cuCtxSetCurrent(context)
driver.cuCtxEnablePeerAccess(other, 0)
run(store, far, [0, BLOCK, BLOCK + 4])
driver.cuCtxDisablePeerAccess(other)
memory = Memory(driver, 1, c_uint64)
assert store.run(1, 1, c_uint64(far), memory.parameter, c_uint32(1)) == 700
    """
    launch = counted(text, EMUV_SIM_DEVICES="2")["launches"][0]
    assert launch["to_host_bytes"]["remote"] == 12
    assert sets(launch, 2) == (set(), {0, 1})


def test_registered_host_memory_is_remote(counted: Counted) -> None:
    text = """
import mmap
piece = mmap.mmap(-1, 1 << 16)
place = addressof(c_char.from_buffer(piece))
driver.cuMemHostRegister_v2(c_void_p(place), 1 << 16, 0)
run(store, place, [4 * i for i in range(50)])
assert c_uint32.from_address(place + 4 * 49).value == 7
    """
    (launch,) = counted(text)["launches"]
    assert launch["to_host_bytes"]["remote"] == 200


def test_in_the_order_of_submission_streams_move_the_same_in_every_run(counted: Counted) -> None:
    """Two streams sweep over a card that has room for one of them, and a half."""
    text = """
one, two = (driver.new("cuStreamCreate", 1) for _ in range(2))
a, b = managed(6), managed(6)
prefetch(a, 6, CPU); prefetch(b, 6, CPU)
offsets = Memory(driver, 1 << 17, c_uint64)
for i in range(30):
    for stream, base in ((one, a), (two, b)):
        where = c_uint64(base + i % 6 * BLOCK), c_uint64(offsets.address), c_uint32(1)
        assert store.code(1, 1, *where, stream=stream) == 0
        driver.cuMemsetD8Async(base + (i + 3) % 6 * BLOCK, 1, 4096, stream)
driver.cuCtxSynchronize()
    """
    first, second = (counted(text, card=10, EMUV_SIM_ORDER="submission") for _ in range(2))
    for stats in (first, second):  # addresses and allocations are not the same
        stats.pop("pid")
    assert first == second
    device = first["devices"][0]
    assert device["launches"] == 60
    # A block comes again when the other stream's six and its own five have: all of them fault.
    assert counts(device)[0] > 100


def test_work_that_waits_for_another_stream_ends_in_any_order(counted: Counted) -> None:
    text = """
text = entry("wait", "u64 flag", '''
    NEXT:
    ld.volatile.global.u32 r1, [flag];
    setp.eq.u32 p1, r1, 0;
    @p1 bra NEXT;
''')
flag = Memory(driver, 1 << 17, c_uint64)
one, two = (driver.new("cuStreamCreate", 1) for _ in range(2))
assert Kernel(driver, text).code(1, 1, flag.parameter, stream=one) == 0
driver.cuMemsetD8Async(flag.address, 1, 4, two)
driver.cuStreamSynchronize(one)
    """
    assert counted(text, EMUV_SIM_ORDER="submission")["devices"][0]["launches"] == 1
