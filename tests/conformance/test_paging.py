# SPDX-License-Identifier: GPL-2.0-only
"""Paging, counted: what moves, why, and in which order, on the simulated GPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_driver import SimTable
from paging_tools import BLOCK, Counted, Stats, counts, moved, play

Script = Callable[..., str]


@pytest.fixture
def counted(script: Script, sim_table: SimTable, tmp_path: Path) -> Counted:
    """Runs text on a card of `card` blocks and returns its statistics."""

    def run(text: str, card: int = 8, **env: str) -> Stats:
        return play(script, tmp_path, text, card, **env)

    return run


# ---- known shapes ----


@pytest.mark.parametrize(("blocks", "card"), [(24, 8), (9, 8), (8, 8), (3, 8)])
def test_a_cyclic_sweep(counted: Counted, blocks: int, card: int) -> None:
    """Beyond the card, each pass moves every block in and out; Belady would move blocks - card."""
    passes = 3
    stats = counted(f"a = managed({blocks})\nfor _ in range({passes}): touch(a, {blocks})", card)
    device = stats["devices"][0]
    if blocks <= card:
        assert moved(device) == {}
        assert counts(device) == (blocks, 0, 0)
        return
    touches = blocks * passes
    assert moved(device) == {
        "in/fault": touches - blocks,  # the first pass populates
        "out/eviction": touches - card,
    }
    assert counts(device)[:2] == (touches, touches - card)
    assert moved(stats["allocations"][0]) == moved(device)
    assert device["resident_bytes"] == card * BLOCK


def test_a_spilled_range_is_read_over_the_link(counted: Counted) -> None:
    stats = counted("a = managed(24, SPILLED)\nfor _ in range(2): touch(a, 24)")
    device = stats["devices"][0]
    assert moved(device) == {"out/remote": 48}  # sets write
    assert counts(device) == (24, 0, 0)  # to be mapped, once
    assert device["vram_bytes"] == device["resident_bytes"] == 0
    assert moved(stats["allocations"][0]) == {"out/remote": 48}


def test_prefetch_ahead_of_use_faults_nothing(counted: Counted) -> None:
    text = """
    a = managed(12)
    prefetch(a, 12, CPU)
    for i in range(12):
        prefetch(a + i * BLOCK, 1, 0)
        touch(a + i * BLOCK)
    """
    device = counted(text)["devices"][0]
    assert moved(device) == {"in/prefetch": 12, "out/eviction": 4}
    assert counts(device) == (0, 4, 0)


def test_what_was_not_written_is_copied_out_all_the_same(counted: Counted) -> None:
    text = "a = managed(12)\nprefetch(a, 12, CPU)\nread(a, 8)\nprefetch(a + 8 * BLOCK, 4, 0)"
    assert moved(counted(text, card=9)["devices"][0]) == {
        "in/fault": 8, "in/prefetch": 4, "out/eviction": 3,
    }  # fmt: skip


def test_copies_of_read_mostly_memory_are_dropped(counted: Counted) -> None:
    text = """
    a = managed(24, [(SET_READ_MOSTLY, 0)])
    prefetch(a, 24, CPU)
    for _ in range(2): read(a, 24)
    """
    device = counted(text, card=9)["devices"][0]
    assert moved(device) == {"in/fault": 48}
    # 512 bytes of the card are the scratch's while reading, so 8 blocks have room.
    assert counts(device)[:2] == (48, 48 - 8)


def test_a_read_mostly_block_that_only_the_card_has_is_copied_out(counted: Counted) -> None:
    text = "a = managed(2, [(SET_READ_MOSTLY, 0)])\ntouch(a)\ntouch(a + BLOCK)\nread(a)\nread(a)"
    device = counted(text, card=1, EMUV_SIM_CONTEXT="0")["devices"][0]
    # No room beside the scratch: the blocks go home, the read is remote.
    assert moved(device)["out/eviction"] == 2


def test_a_write_to_a_copy_faults_and_leaves_one(counted: Counted) -> None:
    text = """
    a = managed(1, [(SET_READ_MOSTLY, 0)])
    prefetch(a, 1, CPU)
    read(a); read(a)
    touch(a); touch(a)                   # the write collapses, the second finds one copy
    prefetch(a, 1, CPU)                  # and now the host needs it again
    """
    device = counted(text)["devices"][0]
    assert moved(device) == {"in/fault": 1, "out/prefetch": 1}
    assert counts(device) == (2, 0, 0)


# ---- discarded memory ----


def test_discarded_blocks_are_not_copied_out(counted: Counted) -> None:
    text = "a = managed(8)\nb = managed(8)\ntouch(a, 8)\ndiscard(a, 8)\ntouch(b, 8)"
    device = counted(text)["devices"][0]
    assert moved(device) == {}
    assert counts(device) == (16, 8, 0)


def test_discarded_blocks_go_first(counted: Counted) -> None:
    text = """
    a = managed(4); b = managed(4); c = managed(2)
    touch(a, 4); touch(b, 4)
    discard(b + BLOCK, 2)                # younger than all of a
    touch(c, 2)
    assert (resident(a, 4), resident(b, 4), resident(c, 2)) == (4, 2, 2)
    touch(c, 2)
    """
    device = counted(text)["devices"][0]
    assert moved(device) == {}
    assert counts(device) == (10, 2, 0)


def test_a_discarded_block_that_is_written_is_kept(counted: Counted) -> None:
    text = """
    a = managed(2)
    touch(a, 2)
    discard(a, 2)
    touch(a)                             # it is mapped anew: a fault, and nothing moves
    touch(a)
    prefetch(a, 2, CPU)
    """
    device = counted(text)["devices"][0]
    assert moved(device) == {"out/prefetch": 1}
    assert counts(device) == (3, 0, 0)


def test_discard_and_prefetch_moves_nothing(counted: Counted) -> None:
    text = """
    a = managed(4)
    prefetch(a, 4, CPU)
    discard(a, 4, DEVICE_0)
    touch(a, 4)
    discard(a, 4, ON_HOST)
    assert resident(a, 4) == 0
    """
    device = counted(text)["devices"][0]
    assert moved(device) == {}
    assert counts(device) == (0, 0, 0)


def test_only_whole_blocks_are_discarded(counted: Counted) -> None:
    text = """
    a = managed(3)
    touch(a, 3)
    what = (c_uint64 * 1)(a + 4096), (c_size_t * 1)(2 * BLOCK), 1
    stream = driver.new("cuStreamCreate", 1)
    driver.cuMemDiscardBatchAsync(*what, 0, stream)
    driver.cuStreamSynchronize(stream)
    prefetch(a, 3, CPU)
    """
    assert moved(counted(text)["devices"][0]) == {"out/prefetch": 2}


# ---- room ----


def test_plain_memory_evicts(counted: Counted) -> None:
    text = "a = managed(8)\ntouch(a, 8)\np = driver.new('cuMemAlloc_v2', 3 * BLOCK)\nread(p)"
    stats = counted(text)
    assert moved(stats["devices"][0]) == {"out/eviction": 4}  # one for the scratch of 512 bytes
    assert moved(stats["allocations"][0]) == {"out/eviction": 4}


def test_where_there_is_no_room_memory_is_used_over_the_link(counted: Counted) -> None:
    text = """
    p = driver.new("cuMemAlloc_v2", 8 * BLOCK)
    a = managed(2)
    touch(a, 2); touch(a, 2)
    """
    device = counted(text)["devices"][0]
    assert moved(device) == {"out/remote": 4}
    assert counts(device) == (2, 0, 0)


def test_blocks_that_come_back_soon_are_thrash(counted: Counted) -> None:
    stats = counted("a = managed(9)\nfor _ in range(3): touch(a, 9)")
    assert stats["thrash_window"] == 8
    # Each left when the one before it came in, which is one piece of work ago.
    assert counts(stats["devices"][0]) == (27, 19, 18)
    assert counts(stats["allocations"][0]) == (27, 19, 18)
    far = counted("a = managed(18)\nfor _ in range(3): touch(a, 18)")["devices"][0]
    assert counts(far) == (54, 46, 0)  # away for 10 pieces of work


def test_the_last_block_moves_what_it_holds(counted: Counted) -> None:
    text = """
    a = driver.new("cuMemAllocManaged", BLOCK + 70 * KIB, 1)
    driver.cuMemPrefetchAsync(a, BLOCK + 70 * KIB, CPU, None)
    driver.cuMemsetD8_v2(a, 1, BLOCK + 70 * KIB)
    driver.cuMemPrefetchAsync(a, BLOCK + 70 * KIB, CPU, None)
    driver.cuCtxSynchronize()
    """
    device = counted(text)["devices"][0]
    size = BLOCK + (128 << 10)
    assert device["to_device_bytes"]["fault"] == device["to_host_bytes"]["prefetch"] == size


# ---- the host ----


def test_what_the_program_stored_itself_is_on_the_host(counted: Counted) -> None:
    text = """
    import ctypes
    a = managed(4)
    ctypes.memset(a + BLOCK, 7, 10)
    touch(a, 4)
    """
    device = counted(text)["devices"][0]
    assert moved(device) == {"in/fault": 1}
    assert counts(device) == (4, 0, 0)


def test_copies_of_memory_that_does_not_move(counted: Counted) -> None:
    text = """
    d = driver.new("cuMemAlloc_v2", BLOCK)
    h = driver.new("cuMemHostAlloc", 2 * BLOCK, 0)
    driver.cuMemcpyHtoD_v2(d, h, BLOCK)
    driver.cuMemcpyDtoH_v2(h, d, BLOCK // 2)
    driver.cuMemcpyDtoD_v2(d, d + BLOCK // 2, BLOCK // 4)
    driver.cuMemcpy(h + BLOCK, h, BLOCK)        # the CPU's own business
    driver.cuCtxSynchronize()
    """
    device = counted(text)["devices"][0]
    assert moved(device) == {"in/copy": 1, "out/copy": 0.5}
    assert device["vram_bytes"] == BLOCK + BLOCK // 2 + BLOCK // 2


def test_rows_count_what_they_hold(counted: Counted) -> None:
    """A set of half of each row of two blocks, on the host: half of the bytes."""
    text = """
    a = managed(2, SPILLED)
    driver.cuMemsetD2D8_v2(a, 8192, 1, 4096, 2 * BLOCK // 8192)
    driver.cuCtxSynchronize()
    """
    assert moved(counted(text)["devices"][0]) == {"out/remote": 1}


# ---- two devices ----

TWO = """
driver.cuDevicePrimaryCtxRetain(byref(other := c_void_p()), 1)
def on(device):
    driver.cuCtxSetCurrent(other if device else context)
"""


@pytest.mark.parametrize("peers", [False, True])
def test_memory_that_prefers_a_peer(counted: Counted, peers: bool) -> None:
    text = TWO + f"""
a = managed(2, [(SET_PREFERRED, 1)])
if {peers}:
    driver.cuCtxEnablePeerAccess(other, 0)
touch(a, 2)
assert (resident(a, 2, 0), resident(a, 2, 1)) == ((0, 2) if {peers} else (2, 0))
"""
    devices = counted(text, EMUV_SIM_DEVICES="2")["devices"]
    assert moved(devices[0]) == ({"out/remote": 2} if peers else {})
    assert counts(devices[0]) == (2, 0, 0)


def test_memory_goes_from_device_to_device(counted: Counted) -> None:
    text = TWO + """
a = managed(3)
on(1); touch(a, 3)
on(0); touch(a, 2)
"""
    devices = counted(text, EMUV_SIM_DEVICES="2")["devices"]
    assert moved(devices[0]) == {"in/fault": 2}
    assert moved(devices[1]) == {"out/fault": 2}
    assert [device["resident_bytes"] // BLOCK for device in devices] == [2, 1]


# ---- what is kept ----


def test_ended_allocations_are_told(counted: Counted) -> None:
    text = "for i in range(3): a = managed(2); touch(a, 2); driver.cuMemFree_v2(a)"
    allocations = counted(text)["allocations"]
    assert [a["live"] for a in allocations] == [False] * 3
    assert [a["bytes"] for a in allocations] == [2 * BLOCK] * 3
    assert [a["faults"] for a in allocations] == [2] * 3
    assert len({a["id"] for a in allocations}) == 3


def test_faults_come_in_batches(counted: Counted) -> None:
    """One piece of work fills batches of 256; a block's second fault opens the next."""
    text = """
    a = managed(300)
    driver.cuMemsetD8_v2(a, 1, 300 * BLOCK)
    driver.cuCtxSynchronize()
    """
    device = counted(text, card=300)["devices"][0]
    assert (device["faults"], device["fault_batches"]) == (300, 2)
