# SPDX-License-Identifier: GPL-2.0-only
"""Stream-ordered memory: spilled or not, it is freed when its stream says so, and not before."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.shim_tools import MIB, OOM, run_child

ShimEnv = Callable[..., dict[str, str]]


@pytest.mark.parametrize("form", ["", "_ptsz"])
def test_a_spilled_range_lives_until_its_stream_is_there(shim_env: ShimEnv, form: str) -> None:
    # GIVEN a spilled range, work in its stream that is not done, and a free after it
    code = f"""
        d = started()
        d.new("cuMemAlloc_v2", 60 * MIB)
        s = stream(d)
        a = c_uint64()
        d.check("cuMemAllocAsync{form}", byref(a), 20 * MIB, s)
        d.cuMemsetD8Async(a.value, 3, 20 * MIB, s)
        hold(d, s, True)
        d.cuMemsetD8Async(a.value, 4, 20 * MIB, s)
        d.check("cuMemFreeAsync{form}", a.value, s)
        # WHEN other calls come meanwhile
        d.code("cuMemAlloc_v2", byref(c_uint64()), 1 << 40)  # cuMemFree would wait for the stream
        waiting = held()
        before = resident(d, a.value, 20 * MIB)
        row = d.download(a.value + MIB, 4)
        # THEN it is there and charged, and goes with the next call after its stream is done
        hold(d, s, False)
        d.cuStreamSynchronize(s)
        d.cuMemFree_v2(d.new("cuMemAlloc_v2", 4096))
        after = held()
        gone = d.code("cuMemsetD8_v2", a.value, 0, 1)
        answer(waiting=waiting, resident=before, row=list(row), after=after, gone=gone)
    """
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB), code)
    assert child.answer["waiting"] == [60 * MIB, 20 * MIB, 4 * MIB, 2]
    assert child.answer["resident"] == 4 * MIB
    assert child.answer["row"] == [3, 3, 3, 3]  # the second set waits
    assert child.answer["after"] == [60 * MIB, 0, 0, 1]
    assert child.answer["gone"] != 0


def test_an_allocation_waits_for_the_free_it_needs(shim_env: ShimEnv) -> None:
    # GIVEN a program at its limit whose stream holds up a free
    code = """
        import threading
        d = started()
        context = d.new("cuCtxGetCurrent")
        d.new("cuMemAlloc_v2", 64 * MIB)
        s = stream(d)
        a = c_uint64()
        d.check("cuMemAllocAsync", byref(a), 64 * MIB, s)
        hold(d, s, True)
        d.cuMemFreeAsync(a.value, s)
        asked = calls(d, "cuEventQuery")
        got = []
        def allocate():
            d.cuCtxSetCurrent(context)
            out = c_uint64()
            got.append(d.code("cuMemAlloc_v2", byref(out), 64 * MIB))
        thread = threading.Thread(target=allocate)
        thread.start()
        while calls(d, "cuEventQuery") < asked + 5:  # it is waiting by now
            pass
        early = list(got)
        # WHEN the stream gets there
        hold(d, s, False)
        thread.join(20)
        answer(early=early, got=got, held=held(), denials=books()["denials"])
    """
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB), code)
    # THEN the allocation succeeds, and nothing was refused
    assert child.answer["early"] == []
    assert child.answer["got"] == [0]
    assert child.answer["held"] == [64 * MIB, 64 * MIB, 0, 2]
    assert child.answer["denials"] == 0


@pytest.mark.parametrize("again", ["cuMemFree_v2", "cuMemFreeAsync"])
def test_a_free_that_waits_cannot_be_done_again(
    shim_env: ShimEnv, sim_env: dict[str, str], again: str
) -> None:
    # GIVEN a range whose free waits for its stream
    code = f"""
        d = started()
        under = "EMUV_VRAM" in os.environ
        d.new("cuMemAlloc_v2", 60 * MIB)
        s = stream(d)
        a = d.new("cuMemAllocAsync", 20 * MIB, s)
        if under:
            hold(d, s, True)
        d.cuMemFreeAsync(a, s)
        # WHEN the program frees it once more
        code = d.code({again!r}, a, *([s] if "Async" in {again!r} else []))
        waiting = held() if under else None
        hold(d, s, False)
        d.cuStreamSynchronize(s)
        d.cuMemFree_v2(d.new("cuMemAlloc_v2", 4096))
        answer(code=code, waiting=waiting, end=held() if under else None)
    """
    plain = run_child({**sim_env, "EMUV_SIM_VRAM": str(256 * MIB)}, code)
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB), code)
    # THEN it is refused as ever, and the range goes once, when its stream is there
    assert child.answer["code"] == plain.answer["code"] != 0
    assert child.answer["waiting"][1] == 20 * MIB
    assert child.answer["end"] == [60 * MIB, 0, 0, 1]


ALLOCATIONS = ["cuMemAlloc_v2", "cuMemAllocAsync", "cuMemAllocFromPoolAsync"]


@pytest.mark.parametrize("spilled", [False, True], ids=["on the device", "spilled"])
@pytest.mark.parametrize("free", ["cuMemFree_v2", "cuMemFreeAsync", "cuMemFreeAsync_ptsz"])
@pytest.mark.parametrize("allocate", ALLOCATIONS)
def test_every_free_takes_every_allocation_that_the_driver_lets_it(
    shim_env: ShimEnv, sim_env: dict[str, str], allocate: str, free: str, spilled: bool
) -> None:
    """Elsewhere legal frees failed and leaked, because the shim knew one list per kind."""
    code = f"""
        d = started()
        filler = d.new("cuMemAlloc_v2", 60 * MIB) if {spilled} else 0
        s = stream(d)
        p = d.new("cuDeviceGetDefaultMemPool", 0)
        more = {{"cuMemAlloc_v2": [], "cuMemAllocAsync": [s], "cuMemAllocFromPoolAsync": [p, s]}}
        a = d.new({allocate!r}, 12 * MIB, *more[{allocate!r}])
        freed = d.code({free!r}, a, *([] if {free!r} == "cuMemFree_v2" else [s]))
        d.cuStreamSynchronize(s)
        d.cuMemFree_v2(d.new("cuMemAlloc_v2", 4096))
        end = held() if "EMUV_VRAM" in os.environ else None
        answer(freed=freed, end=end, used=card_used(d))
    """
    plain = run_child({**sim_env, "EMUV_SIM_VRAM": str(256 * MIB)}, code)
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB), code)

    assert plain.answer["freed"] == 0
    assert child.answer["freed"] == 0
    left = 60 * MIB if spilled else 0
    assert child.answer["end"] == [left, 0, 0, 1 if spilled else 0]
    assert child.answer["used"] == left
    assert child.device().spills == (1 if spilled else 0)


@pytest.mark.parametrize("form", ["", "_ptsz"])
def test_a_loop_past_the_budget_waits_for_nothing(shim_env: ShimEnv, form: str) -> None:
    # GIVEN a stream with work that goes on for ever, and a loop of spills in another
    code = f"""
        d = started()
        d.new("cuMemAlloc_v2", 60 * MIB)
        busy, s = stream(d), stream(d)
        x = d.new("cuMemAlloc_v2", 4096)
        hold(d, busy, True)
        d.cuMemsetD8Async(x, 1, 4096, busy)
        def spill(stream):
            out = c_uint64()
            d.check("cuMemAllocAsync{form}", byref(out), 20 * MIB, stream)
            return out.value
        before = [calls(d, n) for n in ("cuMemAllocManaged", "cuMemFree_v2")]
        found, rows = set(), set()
        for i in range(50):
            a = spill(s)
            d.cuMemsetD8Async(a, i, 20 * MIB, s)
            d.cuMemsetD8Async(a + MIB, i + 1, 4, s)
            d.check("cuMemFreeAsync{form}", a, s)
            found.add(a)
        made, freed = (calls(d, n) - b for n, b in
                       zip(("cuMemAllocManaged", "cuMemFree_v2"), before))
        waiting = held()
        # WHEN another stream asks for as much, it gets a range of its own
        hold(d, busy, False)
        hold(d, s, True)
        a = spill(s)
        d.cuMemsetD8Async(a, 9, 20 * MIB, s)
        d.check("cuMemFreeAsync{form}", a, s)
        other = spill(busy)
        hold(d, s, False)
        spills = books()["spills"]
        for each in (s, busy):
            d.cuStreamSynchronize(each)
        d.cuMemFree_v2(other)
        d.cuMemFree_v2(d.new("cuMemAlloc_v2", 50 * MIB))
        answer(made=made, freed=freed, found=len(found), waiting=waiting, apart=other not in found,
               spills=spills, end=held())
    """
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB, EMUV_SIM_WAIT_MS="5000"), code)
    # THEN it has one range all along, and no call that waits was made for it
    assert child.answer["made"] == 1
    assert child.answer["freed"] == 0
    assert child.answer["found"] == 1
    assert child.answer["waiting"][1] == 20 * MIB
    assert child.answer["apart"]
    assert child.answer["spills"] == 52
    assert child.answer["end"] == [60 * MIB + 4096, 0, 0, 2]


def test_what_a_stream_has_freed_is_not_had_again_past_a_lowered_budget(
    shim_env: ShimEnv,
) -> None:
    code = """
        from emuv_shim.controller import Controller
        d = started()
        d.new("cuMemAlloc_v2", 60 * MIB)
        s = stream(d)
        def loop():
            out = c_uint64()
            code = d.code("cuMemAllocAsync", byref(out), 20 * MIB, s)
            if not code:
                d.cuMemFreeAsync(out.value, s)
            return code
        codes = [loop(), loop()]
        with Controller(os.environ["EMUV_RUNTIME_DIR"]) as c:
            c.update_budget(os.getpid(), virtual=MIB)
        codes.append(loop())
        answer(codes=codes, held=held())
    """
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB), code)
    assert child.answer == {"codes": [0, 0, OOM], "held": [60 * MIB, 0, 0, 1]}


@pytest.mark.parametrize("size", [12 * MIB, 80 * MIB])
def test_pools_of_the_programs_own(shim_env: ShimEnv, size: int) -> None:
    # GIVEN a pool that the program made, and one range of it, on the device or spilled
    code = f"""
        from cuda_driver import PoolProps
        d = started()
        s = stream(d)
        props = PoolProps(1, 0, Location(1, 0), None, 0, 0)
        pool = d.new("cuMemPoolCreate", byref(props))
        a = d.new("cuMemAllocFromPoolAsync", {size}, pool, s)
        full = held()
        # WHEN the pool goes first
        destroyed = d.code("cuMemPoolDestroy", pool)
        middle = held()
        freed = d.code("cuMemFreeAsync", a, s)
        d.cuStreamSynchronize(s)
        d.cuMemFree_v2(d.new("cuMemAlloc_v2", 4096))
        answer(full=full, codes=[destroyed, freed], middle=middle, end=held(), used=card_used(d))
    """
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB), code)
    # THEN its range is the program's all the same, until it is freed
    assert child.answer["codes"] == [0, 0]
    assert child.answer["full"] == child.answer["middle"]
    assert sum(child.answer["full"][:2]) == size
    assert child.answer["end"] == [0, 0, 0, 0]
    assert child.answer["used"] == 0
    assert child.device().calls["cuMemPoolCreate"] == 1


def test_a_context_goes_with_frees_that_wait(shim_env: ShimEnv) -> None:
    code = """
        d = started()
        primary = d.new("cuCtxGetCurrent")
        context = d.new("cuCtxCreate_v2", 0, 0)
        d.new("cuMemAlloc_v2", 60 * MIB)
        s = stream(d)
        for i in range(3):
            a = d.new("cuMemAllocAsync", (10 + i) * MIB, s)
            hold(d, s, True)
            d.cuMemFreeAsync(a, s)
        waiting = held()
        d.cuCtxDestroy_v2(context)
        d.cuCtxSetCurrent(primary)
        end = held()
        handles, code = routes(d)["cuMemAlloc_v2"]().grab()
        answer(waiting=waiting, end=end, got=len(handles), used=card_used(d))
    """
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB), code)
    assert child.answer["waiting"][1] == 33 * MIB
    assert child.answer["end"] == [0, 0, 0, 0]
    assert child.answer["got"] == 128
    assert child.answer["used"] == 64 * MIB


def test_a_stream_of_another_context(shim_env: ShimEnv) -> None:
    # GIVEN memory that spills in the stream of a context that is not the current one
    code = """
        d = started()
        primary = d.new("cuCtxGetCurrent")
        s = stream(d)
        d.new("cuMemAlloc_v2", 60 * MIB)
        other = d.new("cuCtxCreate_v2", 0, 0)
        a = d.new("cuMemAllocAsync", 20 * MIB, s)
        # WHEN the current one goes
        d.cuCtxDestroy_v2(other)
        d.cuCtxSetCurrent(primary)
        d.upload(a + MIB, b"still here")
        row = d.download(a + MIB, 10).decode()
        b = d.new("cuMemAllocAsync", 20 * MIB, s)
        answer(row=row, held=held(), resident=resident(d, a, 20 * MIB), used=card_used(d))
    """
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB), code)
    # THEN the memory stays, and so does what emuV needs to hint for the next
    assert child.answer["row"] == "still here"
    assert child.answer["held"] == [60 * MIB, 40 * MIB, 4 * MIB, 3]
    assert child.answer["resident"] == 4 * MIB
    assert child.answer["used"] == 64 * MIB


def test_with_no_context_current(shim_env: ShimEnv, sim_env: dict[str, str]) -> None:
    """Nothing is written past a table, nothing is let through uncounted."""
    code = """
        d = started()
        s = stream(d)
        d.cuCtxSetCurrent(0)
        out = c_uint64()
        codes = [
            d.code("cuMemAlloc_v2", byref(out), MIB),
            d.code("cuMemAllocAsync", byref(out), MIB, 0),
            d.code("cuMemAllocManaged", byref(out), MIB, ATTACH_GLOBAL),
            d.code("cuMemGetInfo_v2", byref(c_size_t()), byref(c_size_t())),
            d.code("cuMemAllocAsync", byref(out), 100 * MIB, s),
        ]
        answer(codes=codes, held=held() if "EMUV_VRAM" in os.environ else None)
    """
    plain = run_child({**sim_env, "EMUV_SIM_VRAM": str(64 * MIB)}, code)
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer["codes"] == plain.answer["codes"]
    assert child.answer["codes"][:4] == [201] * 4
    # A stream knows its context by itself: what it allocates is held to the budget.
    assert child.answer["codes"][4] in (OOM, 201)
    assert child.answer["held"] == [0, 0, 0, 0]
