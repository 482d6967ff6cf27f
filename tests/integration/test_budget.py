# SPDX-License-Identifier: GPL-2.0-only
"""The physical budget, on every allocation route: how much is had, and given back."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.shim_child import SPILLING
from tests.integration.shim_tools import MIB, OOM, run_child

ShimEnv = Callable[..., dict[str, str]]

ROUTES = [
    "cuMemAlloc_v2", "cuMemAlloc", "cuMemAllocPitch_v2", "cuMemAllocPitch", "cuMemAllocManaged",
    "cuMemAllocAsync", "cuMemAllocAsync_ptsz", "cuMemAllocFromPoolAsync",
    "cuMemAllocFromPoolAsync_ptsz", "cuMemCreate", "cuArrayCreate_v2", "cuArrayCreate",
    "cuArray3DCreate_v2", "cuArray3DCreate", "cuMipmappedArrayCreate",
]  # fmt: skip

GRAB = """
d = started()
route = routes(d)[{name!r}]()
handles, code = route.grab()
full = books()
given = [route.give(h) for h in handles]
d.code("cuCtxSynchronize")
again, code_again = route.grab()
for h in again:
    route.give(h)
d.code("cuCtxSynchronize")
route.take(route.piece)  # what streams had still to free is freed by now
answer(
    got=len(handles) * route.piece, code=code, full=full, given=sorted(set(given)),
    again=len(again) * route.piece, code_again=code_again,
)
"""


@pytest.mark.parametrize("name", ROUTES)
def test_capped_to_the_byte_on_every_route(shim_env: ShimEnv, name: str) -> None:
    # GIVEN a budget of 128 MiB on a card of 256
    # WHEN a program takes pieces until it is refused, frees them and does so again
    child = run_child(shim_env(vram=128 * MIB), GRAB.format(name=name))
    # THEN it has had 128 MiB exactly, both times, and was told that memory is short
    got = child.answer
    assert (got["got"], got["code"]) == (128 * MIB, OOM)
    assert (got["again"], got["code_again"]) == (128 * MIB, OOM)
    assert got["given"] == [0]
    # AND the segment counted it: charges while held, one refusal each time, calls by name
    assert got["full"]["device_bytes"] == 128 * MIB
    assert got["full"]["denials"] == 1
    assert child.device().peak_physical_bytes == 128 * MIB
    assert child.device().denials == 2
    assert child.device().spills == 0
    assert child.device().calls[name] > 128 * 2 // 2
    assert child.device().uncounted_calls == 0


@pytest.mark.parametrize("name", ROUTES)
def test_spills_past_it_or_is_refused_on_every_route(shim_env: ShimEnv, name: str) -> None:
    # GIVEN 128 MiB of vram and 64 more of virtual
    env = shim_env(vram=128 * MIB, virtual=64 * MIB)
    # WHEN a program takes pieces until it is refused
    child = run_child(env, GRAB.format(name=name))
    # THEN what can be managed memory goes on into the host, and the rest stops at vram
    got = child.answer
    spilled = 64 * MIB if name in SPILLING else 0
    assert (got["got"], got["code"]) == (128 * MIB + spilled, OOM)
    assert (got["again"], got["code_again"]) == (128 * MIB + spilled, OOM)
    assert got["given"] == [0]
    assert got["full"]["device_bytes"] == 128 * MIB
    assert got["full"]["managed_bytes"] == spilled
    assert child.device().peak_physical_bytes == 128 * MIB
    assert child.device().peak_used_bytes == 128 * MIB + spilled
    assert (child.device().spills > 0) == (name in SPILLING)


@pytest.mark.parametrize("name", ROUTES)
def test_all_is_given_back(shim_env: ShimEnv, name: str) -> None:
    # GIVEN a program at its limit, spilled pieces included
    code = f"""
        d = started()
        before = card_used(d)
        route = routes(d)[{name!r}]()
        handles, _ = route.grab()
        # WHEN it frees everything, newest first
        for h in reversed(handles):
            assert route.give(h) == 0
        d.code("cuCtxSynchronize")
        d.check("cuMemFree_v2", d.new("cuMemAlloc_v2", 1))
        answer(held=held(), before=before, after=card_used(d))
    """
    child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB), code)
    # THEN nothing is charged, and the card has it back
    assert child.answer["held"] == [0, 0, 0, 0]
    assert child.answer["after"] == child.answer["before"]


def test_every_route_together_shares_one_budget(shim_env: ShimEnv) -> None:
    # GIVEN a program that uses all routes in turn, a piece each
    code = """
        d = started()
        made = [make() for make in routes(d).values()]
        took = 0
        for i in range(1000):
            route = made[i % len(made)]
            code, handle = route.take(route.piece)
            if code:
                break
            took += route.piece
        answer(took=took, code=code, device=books()["device_bytes"], used=card_used(d))
    """
    child = run_child(shim_env(vram=128 * MIB), code)
    # THEN their sum is held to the budget, and the card really holds no more
    assert child.answer["code"] == OOM
    assert child.answer["took"] == child.answer["device"]
    assert 126 * MIB <= child.answer["took"] <= 128 * MIB
    assert child.answer["used"] <= 128 * MIB


def test_no_budget_counts_and_lets_pass(shim_env: ShimEnv) -> None:
    # GIVEN vram `none`
    # WHEN a program fills the card
    child = run_child(shim_env(vram="none"), GRAB.format(name="cuMemAlloc_v2"))
    # THEN it gets all of it, its refusal is the driver's, and all is counted
    assert child.answer["got"] == 256 * MIB
    assert child.answer["full"]["device_bytes"] == 256 * MIB
    assert child.device().denials == 0
    assert child.device().vram_bytes is None


def test_refused_by_the_driver_is_charged_nothing(shim_env: ShimEnv) -> None:
    # GIVEN a budget larger than the card
    code = """
        d = started()
        route = routes(d)["cuMemAlloc_v2"]()
        handles, code = route.grab()
        answer(got=len(handles), code=code, device=books()["device_bytes"], info=d.memory_info())
    """
    child = run_child(shim_env(vram=1024 * MIB), code)
    # THEN the card is the limit, what is reported agrees, and the user has been told
    assert child.answer == {
        "got": 256, "code": OOM, "device": 256 * MIB, "info": [0, 256 * MIB],
    }  # fmt: skip
    assert "vram 1024 MiB is more than the card's 256 MiB" in child.stderr
    assert child.device().peak_physical_bytes == 256 * MIB


class TestDevices:
    ENV = {"EMUV_SIM_DEVICES": "2"}  # noqa: RUF012

    def test_each_has_its_own(self, shim_env: ShimEnv) -> None:
        code = """
            d = started(0)
            a, code_a = routes(d)["cuMemAlloc_v2"]().grab()
            d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", 1))
            b, code_b = routes(d)["cuMemAlloc_v2"]().grab()
            totals = [d.new("cuDeviceTotalMem_v2", i) for i in (0, 1)]
            answer(got=[len(a), len(b)], codes=[code_a, code_b], totals=totals,
                   info=d.memory_info())
        """
        env = shim_env(vram=f"0={32 * MIB},1={48 * MIB}", virtual=f"1={16 * MIB}", **self.ENV)
        child = run_child(env, code)
        assert child.answer == {
            "got": [32, 64], "codes": [OOM, OOM], "totals": [32 * MIB, 64 * MIB],
            "info": [0, 64 * MIB],
        }  # fmt: skip
        assert child.device(0).device_bytes == 32 * MIB
        assert child.device(1).device_bytes == 48 * MIB
        assert child.device(1).managed_bytes == 16 * MIB
        assert child.device(0).spills == 0

    def test_a_device_that_is_not_named_is_unlimited(self, shim_env: ShimEnv) -> None:
        code = """
            d = started(1)
            handles, _ = routes(d)["cuMemAlloc_v2"]().grab()
            answer(got=len(handles), info=d.memory_info())
        """
        child = run_child(shim_env(vram=f"0={MIB}", **self.ENV), code)
        assert child.answer == {"got": 256, "info": [0, 256 * MIB]}

    def test_the_handle_says_the_device_not_the_context(self, shim_env: ShimEnv) -> None:
        # GIVEN device 1 full, and device 0's context current
        code = """
            d = started(1)
            s = stream(d)
            a = d.new("cuMemAlloc_v2", 16 * MIB)
            d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", 0))
            out = c_uint64()
            props = AllocationProp(1, 0, Location(1, 1), None, 0, 0, 0)
            codes = [
                d.code("cuMemCreate", byref(out), 2 * MIB, byref(props), 0),
                d.code("cuMemAllocAsync", byref(out), MIB, s),
                d.code("cuMemAlloc_v2", byref(out), MIB),
                d.code("cuMemFree_v2", a),
                d.code("cuMemCreate", byref(out), 2 * MIB, byref(props), 0),
            ]
            answer(codes=codes, held=[held(0)[0], held(1)[0]])
        """
        child = run_child(shim_env(vram=f"0={16 * MIB},1={16 * MIB}", **self.ENV), code)
        # THEN memory on device 1 is charged there, and freed there
        assert child.answer == {"codes": [OOM, OOM, 0, 0, 0], "held": [MIB, 2 * MIB]}
