# SPDX-License-Identifier: GPL-2.0-only
"""Past the budget: where spilled bytes are, that they are the program's, what is said of it."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.shim_tools import MIB, OOM, run_child

ShimEnv = Callable[..., dict[str, str]]

# Patterns that differ in every 8 bytes, and copies every way.
PATTERN = """
import array
def pattern(size, seed):
    return array.array("Q", range(seed << 40, (seed << 40) + size // 8)).tobytes()
"""


@pytest.mark.parametrize("allocation", ["lazy", "eager"])
def test_spilled_bytes_are_the_programs(shim_env: ShimEnv, allocation: str) -> None:
    # GIVEN one range on the device, one that straddles the budget, one wholly on the host
    code = PATTERN + """
sizes = [10 * MIB, 12 * MIB, 9 * MIB + 4096]
d = started()
at = [d.new("cuMemAlloc_v2", n) for n in sizes]
data = [pattern(n, i + 1) for i, n in enumerate(sizes)]
# WHEN they are written from the host, copied among one another and set in part
for a, b in zip(at, data):
    d.upload(a, b)
same = [d.download(a, len(b)) == b for a, b in zip(at, data)]
d.cuMemcpyDtoD_v2(at[2], at[1], 9 * MIB)
d.cuMemcpyDtoD_v2(at[1], at[0], 10 * MIB)
d.cuMemsetD8_v2(at[0] + 3, 0x5a, MIB)
s = stream(d)
staged = (ctypes.c_char * (2 * MIB))()
d.cuMemcpyDtoHAsync_v2(staged, at[1] + 7 * MIB, 2 * MIB, s)
d.cuStreamSynchronize(s)
moved = [
    d.download(at[2], 9 * MIB) == data[1][:9 * MIB], d.download(at[1], 10 * MIB) == data[0],
    d.download(at[1] + 10 * MIB, 2 * MIB) == data[1][10 * MIB:],
    d.download(at[0], 4 + MIB) == data[0][:3] + bytes([0x5a]) * MIB + data[0][MIB + 3:MIB + 4],
    bytes(staged) == data[0][7 * MIB:9 * MIB],
]
answer(same=same, moved=moved, books=books(), used=card_used(d))
"""
    env = shim_env(vram=16 * MIB, virtual=64 * MIB, EMUV_ALLOCATION=allocation)
    child = run_child(env, code)
    # THEN every byte is where the program put it
    assert child.answer["same"] == [True] * 3
    assert child.answer["moved"] == [True] * 5
    # AND all that time the device held no more than its budget
    assert child.answer["books"]["managed_bytes"] == 21 * MIB + 4096
    assert child.answer["used"] <= 16 * MIB
    assert child.device().peak_physical_bytes <= 16 * MIB


class TestHints:
    CODE = """
        d = started()
        filler = d.new("cuMemAlloc_v2", {filler})
        before = {{f: calls(d, f) for f in ("cuMemAdvise", "cuMemPrefetchAsync", "cuMemAllocManaged")}}
        a = d.new("cuMemAlloc_v2", {size})
        after = {{f: calls(d, f) - n for f, n in before.items()}}
        def attribute(number):
            out = (c_int * 1)()
            d.cuMemRangeGetAttribute(out, 4, number, a, {size})
            return out[0]
        answer(
            calls=after, preferred=attribute(2), accessed=attribute(3), last=attribute(4),
            resident=resident(d, a, {size}), head=resident(d, a, {head} or 1), books=books(),
        )
    """  # noqa: E501

    @pytest.mark.parametrize(
        ("filler", "size", "head"),
        [
            (128 * MIB, 20 * MIB, 0),  # no room
            (127 * MIB, 20 * MIB, 0),  # less than a block
            (100 * MIB, 64 * MIB, 28 * MIB),
            (99 * MIB, 64 * MIB, 28 * MIB),  # whole blocks only
            (MIB, 160 * MIB, 126 * MIB),  # three quarters of the visible memory in one call
        ],
    )
    def test_lazy(self, shim_env: ShimEnv, filler: int, size: int, head: int) -> None:
        # GIVEN a range of which so much of the head has room
        code = self.CODE.format(filler=filler, size=size, head=head)
        child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB), code)
        got = child.answer
        # THEN the driver was told once that it lives on the host and is used by the device
        assert got["calls"]["cuMemAllocManaged"] == 1
        assert got["calls"]["cuMemAdvise"] == 2
        assert (got["preferred"], got["accessed"]) == (-1, 0)
        assert got["books"]["advised_bytes"] == 2 * size
        # AND the head is on the device, charged, and nothing else is there
        assert got["calls"]["cuMemPrefetchAsync"] == (1 if head else 0)
        assert got["resident"] == head
        assert got["head"] == head
        assert got["books"]["promoted_bytes"] == head
        assert got["books"]["prefetch_device_bytes"] == head
        assert got["books"]["prefetch_host_bytes"] == 0
        assert got["books"]["spilled_bytes"] == size
        assert got["books"]["spills"] == 1

    def test_eager_populates_the_rest_on_the_host(self, shim_env: ShimEnv) -> None:
        code = self.CODE.format(filler=100 * MIB, size=64 * MIB, head=28 * MIB)
        env = shim_env(vram=128 * MIB, virtual=64 * MIB, EMUV_ALLOCATION="eager")
        got = run_child(env, code).answer
        assert got["calls"]["cuMemPrefetchAsync"] == 2
        assert got["books"]["prefetch_host_bytes"] == 36 * MIB
        assert got["resident"] == 28 * MIB

    def test_eager_without_a_head(self, shim_env: ShimEnv) -> None:
        code = self.CODE.format(filler=128 * MIB, size=20 * MIB, head=0)
        env = shim_env(vram=128 * MIB, virtual=64 * MIB, EMUV_ALLOCATION="eager")
        got = run_child(env, code).answer
        assert got["books"]["prefetch_host_bytes"] == 20 * MIB
        assert (got["last"], got["resident"]) == (-1, 0)

    def test_nothing_moves_by_being_used(self, shim_env: ShimEnv) -> None:
        """What the whole budget rests on: copies leave residency as it is."""
        code = """
            d = started()
            d.new("cuMemAlloc_v2", 100 * MIB)
            a = d.new("cuMemAlloc_v2", 64 * MIB)
            first = resident(d, a, 64 * MIB)
            for _ in range(3):
                d.cuMemsetD8_v2(a, 1, 64 * MIB)
                d.download(a + 30 * MIB, 4096)
                d.upload(a + 60 * MIB, bytes(4096))
            answer(first=first, last=resident(d, a, 64 * MIB), used=card_used(d))
        """
        child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB), code)
        assert child.answer == {"first": 28 * MIB, "last": 28 * MIB, "used": 128 * MIB}


class TestPitchedAndManaged:
    def test_pitch_of_a_spilled_range(self, shim_env: ShimEnv) -> None:
        # GIVEN rows that the driver pads
        code = """
            d = started()
            pitch, spilled = c_size_t(), c_size_t()
            a, b = c_uint64(), c_uint64()
            d.cuMemAllocPitch_v2(byref(a), byref(pitch), 1000, 8192, 4)
            d.cuMemAllocPitch_v2(byref(b), byref(spilled), 1000, 8192, 4)
            d.cuMemsetD2D8_v2(b.value, spilled.value, 7, 1000, 8192)
            row = d.download(b.value + 8191 * spilled.value, 1000)
            answer(pitch=[pitch.value, spilled.value], row=row == bytes([7]) * 1000, books=books())
        """
        child = run_child(shim_env(vram=9 * MIB, virtual=64 * MIB), code)
        # THEN a spilled range is padded alike, and charged with its padding
        pitch, spilled = child.answer["pitch"]
        assert pitch == spilled == 1024
        assert child.answer["row"]
        assert child.answer["books"]["device_bytes"] == 8 * MIB
        assert child.answer["books"]["managed_bytes"] == 8 * MIB

    def test_managed_memory_of_the_programs_own(self, shim_env: ShimEnv) -> None:
        # GIVEN managed memory within the budget, and past it
        code = """
            d = started()
            within = d.new("cuMemAllocManaged", 100 * MIB, ATTACH_GLOBAL)
            past = d.new("cuMemAllocManaged", 60 * MIB, ATTACH_GLOBAL)
            n = calls(d, "cuMemAdvise")
            ctypes.memset(past, 9, 60 * MIB)
            row = d.download(past + 59 * MIB, 10)
            code = d.code("cuMemAllocManaged", byref(c_uint64()), 60 * MIB, ATTACH_GLOBAL)
            full = books()
            d.cuMemFree_v2(past)
            d.cuMemFree_v2(within)
            answer(advised=n, row=list(row), code=code, full=full, end=held())
        """
        child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB), code)
        # THEN what is within is charged as on the device; what is past it is kept on the host
        full = child.answer["full"]
        assert full["device_bytes"] == 100 * MIB
        assert full["managed_bytes"] == 60 * MIB
        assert full["promoted_bytes"] == 28 * MIB
        assert child.answer["advised"] == 2
        assert child.answer["row"] == [9] * 10
        assert child.answer["code"] == OOM
        assert child.answer["end"] == [0, 0, 0, 0]


class TestCardFull:
    """The card has less than the budget says: another process has the rest."""

    @pytest.mark.parametrize(
        "name",
        ["cuMemAlloc_v2", "cuMemAllocPitch_v2", "cuMemAllocAsync", "cuMemAllocFromPoolAsync"],
    )
    def test_spills_below_the_budget(self, shim_env: ShimEnv, name: str) -> None:
        # GIVEN a driver that has no memory, although the budget has room
        code = f"""
            d = started()
            route = routes(d)[{name!r}]()
            first, _ = route.take(4 * MIB)
            fail_next(d, {name!r}, 1, OOM)
            code, a = route.take(8 * MIB)
            on_device = resident(d, a, 8 * MIB)
            full = books()
            route.give(a)
            d.code("cuCtxSynchronize")
            again, b = route.take(4 * MIB)
            answer(codes=[first, code, again], resident=on_device, full=full, end=held())
        """
        child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB), code)
        # THEN the program is served from the host, no part of it on the full card
        assert child.answer["codes"] == [0, 0, 0]
        assert child.answer["resident"] == 0
        assert child.answer["full"]["managed_bytes"] == 8 * MIB
        assert child.answer["full"]["driver_oom_spills"] == 1
        assert child.answer["full"]["spills"] == 1
        # AND afterwards the budget is as it was
        assert child.answer["end"] == [8 * MIB, 0, 0, 2]

    def test_under_cap_it_is_the_drivers_refusal(self, shim_env: ShimEnv) -> None:
        code = """
            d = started()
            fail_next(d, "cuMemAlloc_v2", 1, OOM)
            code = d.code("cuMemAlloc_v2", byref(c_uint64()), MIB)
            answer(code=code, held=held(), denials=books()["denials"])
        """
        child = run_child(shim_env(vram=128 * MIB), code)
        assert child.answer == {"code": OOM, "held": [0, 0, 0, 0], "denials": 0}

    def test_a_card_shared_with_others(self, shim_env: ShimEnv) -> None:
        # GIVEN a card smaller than the budget of the process
        code = """
            d = started()
            handles, code = routes(d)["cuMemAlloc_v2"]().grab()
            answer(got=len(handles), code=code, books=books(), used=card_used(d), info=d.memory_info())
        """  # noqa: E501
        child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB, card=96 * MIB), code)
        # THEN it gets the card and the virtual, and no more is reported than that
        assert child.answer["got"] == 160
        assert child.answer["code"] == OOM
        assert child.answer["books"]["device_bytes"] == 96 * MIB
        assert child.answer["books"]["managed_bytes"] == 64 * MIB
        assert child.answer["used"] == 96 * MIB
        assert child.answer["info"] == [0, 160 * MIB]

    def test_no_vram_limit_but_virtual(self, shim_env: ShimEnv) -> None:
        code = """
            d = started()
            handles, code = routes(d)["cuMemAlloc_v2"]().grab()
            answer(got=len(handles), code=code, info=d.memory_info())
        """
        child = run_child(shim_env(vram="none", virtual=64 * MIB), code)
        assert child.answer == {"got": 320, "code": OOM, "info": [0, 320 * MIB]}


class TestFaults:
    """Whatever the driver refuses on the way of a spill, the books are as before."""

    @pytest.mark.parametrize(
        ("function", "nth"),
        [("cuMemAllocManaged", 1), ("cuMemAdvise", 1), ("cuMemAdvise", 2)],
    )
    def test_a_spill_that_cannot_be(self, shim_env: ShimEnv, function: str, nth: int) -> None:
        code = f"""
            d = started()
            d.new("cuMemAlloc_v2", 120 * MIB)
            before, used = held(), card_used(d)
            fail_next(d, {function!r}, {nth}, 999)
            code = d.code("cuMemAlloc_v2", byref(c_uint64()), 40 * MIB)
            after = held()
            again = d.code("cuMemAlloc_v2", byref(c_uint64()), 40 * MIB)
            answer(code=code, same=before == after, used=card_used(d) - used, again=again)
        """
        child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB), code)
        assert child.answer["code"] in (OOM, 999)
        assert child.answer["same"]
        assert child.answer["again"] == 0
        assert child.answer["used"] == 8 * MIB  # the head of the second

    @pytest.mark.parametrize("function", ["cuMemPrefetchAsync", "cuStreamCreate"])
    def test_a_hint_that_fails_costs_speed_only(self, shim_env: ShimEnv, function: str) -> None:
        code = f"""
            d = started()
            d.new("cuMemAlloc_v2", 120 * MIB)
            fail_next(d, {function!r}, 1, 999)
            a = d.new("cuMemAlloc_v2", 40 * MIB)
            d.upload(a + 39 * MIB, b"here")
            answer(data=d.download(a + 39 * MIB, 4).decode(), used=card_used(d), held=held())
        """
        child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB), code)
        assert child.answer["data"] == "here"
        assert child.answer["used"] <= 128 * MIB
        assert child.answer["held"][1] == 40 * MIB

    def test_a_refused_free_stays_charged(self, shim_env: ShimEnv) -> None:
        code = """
            d = started()
            d.new("cuMemAlloc_v2", 120 * MIB)
            a = d.new("cuMemAlloc_v2", 40 * MIB)
            before = held()
            fail_next(d, "cuMemFree_v2", 1, 700)
            code = d.code("cuMemFree_v2", a)
            middle = held()
            answer(code=code, same=before == middle, again=d.code("cuMemFree_v2", a), end=held())
        """
        child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB), code)
        assert child.answer == {
            "code": 700, "same": True, "again": 0, "end": [120 * MIB, 0, 0, 1],
        }  # fmt: skip


def test_the_host_must_be_able_to_back_it(shim_env: ShimEnv) -> None:
    # GIVEN a virtual that no host has
    code = """
        d = started()
        before = held()
        codes = [d.code("cuMemAlloc_v2", byref(c_uint64()), 1 << 44) for _ in range(3)]
        after = held()
        codes.append(d.code("cuMemAlloc_v2", byref(c_uint64()), 40 * MIB))
        answer(codes=codes, same=before == after)
    """
    child = run_child(shim_env(vram=16 * MIB, virtual=1 << 45), code)
    # THEN memory is not promised that is not there, and that is said
    assert child.answer == {"codes": [OOM] * 3 + [0], "same": True}
    assert "the host has" in child.stderr
    assert child.device().denials == 3


class TestSaid:
    def test_first_spill_and_first_refusal_are_said_once(self, shim_env: ShimEnv) -> None:
        code = """
            d = started()
            for _ in range(3):
                handles, _ = routes(d)["cuMemAlloc_v2"]().grab()
                for h in handles:
                    d.cuMemFree_v2(h)
            answer()
        """
        child = run_child(shim_env(vram=16 * MIB, virtual=16 * MIB), code)
        said = [line for line in child.stderr.splitlines() if line.startswith("emuv: ")]
        assert len([line for line in said if "spill" in line]) == 1
        assert len([line for line in said if "refused 1 MiB" in line]) == 1
        assert len(said) == 2
        assert child.device().spills == 48
        assert child.device().denials == 3
        assert "emuv:" not in child.stdout

    def test_quiet_says_nothing_and_counts_all_the_same(self, shim_env: ShimEnv) -> None:
        code = 'd = started(); routes(d)["cuMemAlloc_v2"]().grab(); answer()'
        child = run_child(shim_env(vram=16 * MIB, virtual=16 * MIB, EMUV_QUIET="1"), code)
        assert child.stderr == ""
        assert (child.device().spills, child.device().denials) == (16, 1)

    def test_an_error_loop_does_not_bury_the_program(self, shim_env: ShimEnv) -> None:
        code = """
            d = Driver("libcuda.so.1")
            for _ in range(500):
                d.code("cuInit", 0)
            answer()
        """
        child = run_child(shim_env(vram="4GiB"), code)
        lines = child.stderr.splitlines()
        assert len(lines) <= 65
        assert lines[-1] == "emuv: (no further messages from this process)"
