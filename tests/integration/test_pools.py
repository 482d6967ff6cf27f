# SPDX-License-Identifier: GPL-2.0-only
"""What memory pools keep after frees is on the device, and in the budget.

The judge is the simulated card's own figure of what is in use (card_used).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.shim_tools import MIB, OOM, run_child

ShimEnv = Callable[..., dict[str, str]]

PIECES = [512, 2 * MIB, 32 * MIB]  # what a pool reserves at a time

# A program whose pool keeps all it ever had, as PyTorch's cudaMallocAsync backend asks for.
KEEPER = """
    RESERVED, RESERVED_HIGH, USED, USED_HIGH, THRESHOLD = 5, 6, 7, 8, 4
    d = started()
    s = stream(d)
    pool = d.new("cuDeviceGetDefaultMemPool", 0)
    most = 0
    def keep(pool, bytes=2**64 - 1):
        d.cuMemPoolSetAttribute(pool, THRESHOLD, byref(c_uint64(bytes)))
    def get(which, pool=pool):
        value = c_uint64()
        d.cuMemPoolGetAttribute(pool, which, byref(value))
        return value.value
    def put(which, value, pool=pool):
        return d.code("cuMemPoolSetAttribute", pool, which, byref(c_uint64(value)))
    def look():
        global most
        most = max(most, card_used(d))
        return card_used(d)
    def take(size, stream=s):
        out = c_uint64()
        code = d.code("cuMemAllocAsync", byref(out), size, stream)
        look()
        return code, out.value
    def plain(size):
        out = c_uint64()
        code = d.code("cuMemAlloc_v2", byref(out), size)
        look()
        return code, out.value
    def give(address, stream=s):
        d.cuMemFreeAsync(address, stream)
        look()
    def settle():
        d.cuStreamSynchronize(s)
        look()
"""


def keeper(code: str) -> str:
    """The text after KEEPER's."""
    import textwrap

    return textwrap.dedent(KEEPER) + textwrap.dedent(code)


@pytest.mark.parametrize("piece", PIECES)
@pytest.mark.parametrize("virtual", [0, 512 * MIB])
def test_what_a_pool_keeps_is_held_to_the_budget(
    shim_env: ShimEnv, piece: int, virtual: int
) -> None:
    """The naive way: 96 kept by the pool, 96 by cuMemAlloc, 192 of 128 MiB on the card."""
    # GIVEN a pool that keeps all, and 96 of 128 MiB freed into it
    code = keeper("""
        keep(pool)
        pieces = [take(3 * MIB)[1] for _ in range(32)]
        for a in pieces:
            give(a)
        settle()
        kept = [card_used(d), books()["kept_bytes"], get(RESERVED)]
        free = d.memory_info()[0]
        # WHEN the same is asked for by another route
        code, other = plain(96 * MIB)
        full = [card_used(d), books()["device_bytes"], books()["spills"]]
        # AND by the pool again
        again = [take(3 * MIB)[0] for _ in range(12)]
        answer(kept=kept, free=free, code=code, full=full, again=again, most=most)
    """)
    env = shim_env(vram=128 * MIB, virtual=virtual, EMUV_SIM_POOL=str(piece))
    child = run_child(env, code)
    # THEN it is had, because the pool had to give it up, and never was the card over 128 MiB
    got = child.answer
    assert got["kept"][0] == got["kept"][1] == got["kept"][2] >= 96 * MIB
    assert got["free"] == 128 * MIB + virtual
    assert got["code"] == 0
    assert got["full"][1:] == [96 * MIB, 0]
    assert got["full"][0] <= 128 * MIB
    assert got["most"] <= 128 * MIB
    # AND what no longer fits is refused, or spilled
    assert set(got["again"][11:]) == ({0} if virtual else {OOM})
    assert child.device().peak_physical_bytes <= 128 * MIB


@pytest.mark.parametrize("piece", PIECES)
def test_a_training_steps_worth_of_pool_traffic(shim_env: ShimEnv, piece: int) -> None:
    # GIVEN PyTorch's pattern: the threshold at its most, tensors of many sizes that come and
    # go, and now and then a library's own cudaMalloc
    code = keeper("""
        import random
        rng = random.Random(7)
        keep(pool)
        live, plains, codes = [], [], set()
        for step in range(250):
            kind = rng.random()
            if kind < 0.55:
                code, a = take(rng.choice([512, 4096, MIB, 5 * MIB, 17 * MIB]))
                codes.add(code)
                if a:
                    live.append(a)
            elif kind < 0.9 and live:
                give(live.pop(rng.randrange(len(live))))
            elif kind < 0.96:
                code, a = plain(rng.choice([MIB, 8 * MIB]))
                codes.add(code)
                if a:
                    plains.append(a)
            elif plains:
                d.cuMemFree_v2(plains.pop())
            if step % 50 == 0:
                settle()
        for a in live:
            give(a)
        settle()
        for a in plains:
            d.cuMemFree_v2(a)
        d.cuMemFree_v2(plain(4096)[1])  # what streams have freed is freed
        d.cuMemPoolTrimTo(pool, 0)
        b = books()
        answer(most=most, codes=sorted(codes), end=[card_used(d), *held(), b["kept_bytes"]],
               spills=b["spills"])
    """)
    env = shim_env(vram=96 * MIB, virtual=2048 * MIB, EMUV_SIM_POOL=str(piece))
    child = run_child(env, code)
    # THEN the card is within the budget at every step, nothing is refused, all is given back
    assert child.answer["most"] <= 96 * MIB
    assert child.answer["codes"] == [0]
    assert child.answer["spills"] > 0
    assert child.answer["end"][0] == child.answer["end"][5] == 0
    assert child.answer["end"][1:5] == [0, 0, 0, 0]


def test_a_loop_asks_the_driver_rarely(shim_env: ShimEnv) -> None:
    # GIVEN a steady loop far below the budget
    code = keeper("""
        keep(pool)
        give(take(MIB)[1])
        before = calls(d, "cuMemPoolGetAttribute")
        for _ in range(2000):
            give(take(MIB)[1])
        asked = calls(d, "cuMemPoolGetAttribute") - before
        answer(asked=asked, kept=books()["kept_bytes"], used=card_used(d))
    """)
    child = run_child(shim_env(vram=128 * MIB, EMUV_SIM_POOL=str(2 * MIB)), code)
    # THEN what it keeps is known, and the driver is asked once for many allocations
    assert child.answer["kept"] == child.answer["used"] == 2 * MIB
    assert 0 < child.answer["asked"] <= 2000 / 50


@pytest.mark.parametrize("virtual", [0, 256 * MIB])
def test_a_pool_that_fills_the_budget_reuses_what_it_keeps(shim_env: ShimEnv, virtual: int) -> None:
    # GIVEN a budget that one allocation fills
    code = keeper("""
        keep(pool)
        codes = []
        for _ in range(20):
            code, a = take(60 * MIB)
            codes.append(code)
            give(a)
        answer(codes=codes, trims=calls(d, "cuMemPoolTrimTo"), most=most, **books())
    """)
    child = run_child(shim_env(vram=64 * MIB, virtual=virtual, EMUV_SIM_POOL=str(MIB)), code)
    # THEN it comes from the pool every time, and nothing is trimmed or spilled for it
    assert child.answer["codes"] == [0] * 20
    assert child.answer["spills"] == child.answer["trims"] == 0
    assert child.answer["most"] == 60 * MIB


def test_a_pool_that_would_grow_too_much(shim_env: ShimEnv) -> None:
    # GIVEN 16 MiB of room, and a pool that takes 32 MiB at a time
    code = keeper("""
        keep(pool)
        plain(48 * MIB)
        most = 0
        codes = [take(4096)[0] for _ in range(40)]
        settle()
        after = card_used(d)
        answer(codes=codes, after=after, **books())
    """)
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB, EMUV_SIM_POOL=str(32 * MIB)), code)
    # THEN its allocations are spilled, the card holds what it did, and one attempt was enough
    assert child.answer["codes"] == [0] * 40
    assert child.answer["spills"] == 40
    assert child.answer["after"] <= 64 * MIB
    assert child.device().calls["cuMemAllocAsync"] == 40


@pytest.mark.parametrize(
    ("free", "current"),
    [
        ("cuMemFree_v2", "cuDeviceSetMemPool"),
        ("cuMemFreeAsync", "cuDeviceSetMemPool"),
        ("cuMemFreeAsync", "cuMemSetMemPool"),
    ],
)
def test_streams_and_pools_of_the_programs_own(shim_env: ShimEnv, free: str, current: str) -> None:
    # GIVEN a pool of the program's own that is the device's current one
    code = keeper(f"""
        from cuda_driver import PoolProps
        own = d.new("cuMemPoolCreate", byref(PoolProps(1, 0, Location(1, 0), None, 0, 0)))
        keep(own)
        where = 0 if "{current}" == "cuDeviceSetMemPool" else (byref(Location(1, 0)), 1)
        d.check("{current}", *(where or (0,)), own)
        other = stream(d)
        # WHEN memory of one stream is freed in another, or by the other call
        _, a = take(40 * MIB)
        d.cuStreamSynchronize(s)
        if "{free}" == "cuMemFreeAsync":
            give(a, other)
        else:
            d.cuMemFree_v2(a)
        d.cuStreamSynchronize(other)
        kept = [books()["kept_bytes"], card_used(d), get(RESERVED, own), get(RESERVED)]
        # THEN it is the program's pool that keeps it, and has to give it up
        code, b = plain(60 * MIB)
        full = [books()["kept_bytes"], card_used(d), get(RESERVED, own)]
        # AND when the pool is gone, the default one is asked
        d.cuMemFree_v2(b)
        d.cuMemPoolDestroy(own)
        keep(pool)
        _, a = take(8 * MIB)
        last = [get(USED), held()[0], card_used(d)]
        give(a)
        settle()
        left = [books()["kept_bytes"], card_used(d), plain(60 * MIB)[0]]
        answer(kept=kept, code=code, full=full, last=last, left=left, most=most)
    """)
    child = run_child(shim_env(vram=64 * MIB, EMUV_SIM_POOL=str(MIB)), code)
    assert child.answer["kept"] == [40 * MIB, 40 * MIB, 40 * MIB, 0]
    assert child.answer["code"] == 0
    assert child.answer["full"] == [4 * MIB, 64 * MIB, 4 * MIB]
    assert child.answer["last"] == [8 * MIB] * 3
    assert child.answer["left"] == [8 * MIB, 8 * MIB, 0]
    assert child.answer["most"] <= 64 * MIB


def test_a_destroyed_pool_keeps_what_it_has_until_it_is_empty(shim_env: ShimEnv) -> None:
    code = keeper("""
        from cuda_driver import PoolProps
        own = d.new("cuMemPoolCreate", byref(PoolProps(1, 0, Location(1, 0), None, 0, 0)))
        keep(own)
        out = [c_uint64() for _ in range(3)]
        for each in out:
            d.cuMemAllocFromPoolAsync(byref(each), 10 * MIB, own, s)
        give(out[0].value)
        settle()
        d.cuMemPoolDestroy(own)
        steps = []
        for each in out[1:]:
            steps.append([held()[0], books()["kept_bytes"] + held()[0] >= card_used(d)])
            give(each.value)
        settle()
        answer(steps=steps, end=[*held(), books()["kept_bytes"], card_used(d)])
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer["steps"] == [[20 * MIB, True], [10 * MIB, True]]
    assert child.answer["end"] == [0] * 6


def test_a_pool_that_is_not_destroyed(shim_env: ShimEnv) -> None:
    code = keeper("""
        keep(pool)
        give(take(40 * MIB)[1])
        settle()
        refused = d.code("cuMemPoolDestroy", pool)  # the default one
        kept = books()["kept_bytes"]
        answer(refused=refused, kept=kept, code=plain(60 * MIB)[0], most=most)
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer["refused"] != 0
    assert child.answer["kept"] == 40 * MIB
    assert child.answer["code"] == 0
    assert child.answer["most"] <= 64 * MIB


def test_attributes_agree_with_the_budget(shim_env: ShimEnv) -> None:
    # GIVEN a pool of which 40 MiB fit and 40 are spilled
    code = keeper("""
        def all_of():
            return [get(w) // MIB for w in (RESERVED, RESERVED_HIGH, USED, USED_HIGH)]
        keep(pool)
        empty = all_of()
        first = [take(10 * MIB)[1] for _ in range(8)]
        full = all_of()
        b = books()
        for a in first[4:]:
            give(a)
        settle()
        plain(4096)           # what streams have freed is freed
        half = all_of()
        codes = [put(USED_HIGH, 0), put(RESERVED_HIGH, 0)]
        reset = all_of()
        for a in first[:4]:
            give(a)
        settle()
        kept = all_of()
        d.cuMemPoolTrimTo(pool, 0)
        answer(empty=empty, full=full, device=b["device_bytes"], managed=b["managed_bytes"],
               half=half, codes=codes, reset=reset, kept=kept, end=all_of(),
               books=books()["kept_bytes"])
    """)
    child = run_child(shim_env(vram=44 * MIB, virtual=64 * MIB), code)
    got = child.answer
    # THEN the pool says of both that it has them: to the program they are its own
    assert got["empty"] == [0] * 4
    assert (got["device"], got["managed"]) == (40 * MIB, 40 * MIB)
    assert got["full"] == [80, 80, 80, 80]
    assert got["half"] == [40, 80, 40, 80]
    assert got["codes"] == [0, 0]
    assert got["reset"] == [40, 40, 40, 40]
    assert got["kept"] == [40, 40, 0, 40]
    assert got["end"] == [0, 40, 0, 40]
    assert got["books"] == 0


def test_every_device_has_pools(shim_env: ShimEnv) -> None:
    code = keeper("""
        other = d.new("cuDeviceGetDefaultMemPool", 1)
        for p in (pool, other):
            keep(p)
        give(take(40 * MIB)[1])
        # From the other device's pool, in a stream of this one.
        out = c_uint64()
        d.cuMemAllocFromPoolAsync(byref(out), 30 * MIB, other, s)
        give(out.value)
        settle()
        kept = [books(i)["kept_bytes"] // MIB for i in (0, 1)]
        d.cuMemAllocFromPoolAsync(byref(out), 50 * MIB, other, s)
        used = [card_used(d, i) // MIB for i in (0, 1)]
        plain(60 * MIB)
        answer(kept=kept, used=used, after=[card_used(d, i) // MIB for i in (0, 1)])
    """)
    child = run_child(shim_env(vram=64 * MIB, EMUV_SIM_DEVICES="2", EMUV_SIM_POOL=str(MIB)), code)
    assert child.answer["kept"] == [40, 30]
    assert child.answer["used"] == [40, 50]
    assert child.answer["after"] == [64, 50]


def test_a_pool_of_managed_memory(shim_env: ShimEnv) -> None:
    # GIVEN a pool of managed memory (CUDA 13)
    code = keeper("""
        from cuda_driver import PoolProps
        own = d.new("cuMemPoolCreate", byref(PoolProps(2, 0, Location(1, 0), None, 0, 0)))
        out = [c_uint64() for _ in range(3)]
        codes = [d.code("cuMemAllocFromPoolAsync", byref(o), 40 * MIB, own, s) for o in out]
        full = held()
        # WHEN all of it is used on the device
        for o in out:
            if o.value:
                d.cuMemsetD8Async(o.value, 1, 40 * MIB, s)
        settle()
        on_card = card_used(d)
        for o in out:
            if o.value:
                give(o.value)
        settle()
        plain(4096)
        answer(codes=codes, full=full, on_card=on_card, end=held())
    """)
    child = run_child(shim_env(vram=64 * MIB, virtual=40 * MIB), code)
    # THEN what fits moves there, what does not stays on the host, and past both it is refused
    assert child.answer["codes"] == [0, 0, OOM]
    assert child.answer["full"] == [40 * MIB, 40 * MIB, 24 * MIB, 2]
    assert child.answer["on_card"] <= 64 * MIB
    assert child.answer["end"] == [4096, 0, 0, 1]


@pytest.mark.parametrize("ask", ["cuMemGetDefaultMemPool", "cuMemGetMemPool"])
def test_default_pools_of_other_memory(shim_env: ShimEnv, ask: str) -> None:
    # GIVEN the driver's own pools of host memory and of managed memory (CUDA 13)
    code = keeper(f"""
        HOST, NUMA, NOWHERE, PINNED, MANAGED = 2, 3, 0, 1, 2
        def use(where, kind):
            own = d.new("{ask}", byref(Location(where, 0)), kind)
            out = [c_uint64() for _ in range(2)]
            codes = [d.code("cuMemAllocFromPoolAsync", byref(o), 40 * MIB, own, s) for o in out]
            full = held()
            for o in out:
                if o.value:
                    give(o.value)
            settle()
            return codes, full[0], d.memory_info()[0]
        answer(host=use(HOST, PINNED), node=use(NUMA, PINNED), managed=use(NOWHERE, MANAGED),
               calls=calls(d, "{ask}"), end=held())
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    # THEN host memory is nobody's vram, and managed memory is charged
    assert child.answer["host"] == child.answer["node"] == [[0, 0], 0, 64 * MIB]
    assert child.answer["managed"] == [[0, OOM], 40 * MIB, 64 * MIB]
    assert child.answer["calls"] == 3
    assert child.answer["end"] == [0, 0, 0, 0]


@pytest.mark.parametrize("kind", [1, 2], ids=["pinned", "managed"])
def test_a_pool_of_another_device_than_the_streams(shim_env: ShimEnv, kind: int) -> None:
    code = keeper(f"""
        from cuda_driver import PoolProps
        own = d.new("cuMemPoolCreate", byref(PoolProps({kind}, 0, Location(1, 1), None, 0, 0)))
        out = c_uint64()
        d.cuMemAllocFromPoolAsync(byref(out), 8 * MIB, own, s)
        answer(charged=[books(i)["device_bytes"] for i in (0, 1)])
    """)
    child = run_child(shim_env(vram=64 * MIB, EMUV_SIM_DEVICES="2"), code)
    assert child.answer["charged"] == [0, 8 * MIB]


@pytest.mark.parametrize("fails", ["cuMemPoolGetAttribute", "cuMemPoolTrimTo"])
def test_a_pool_that_cannot_be_asked(shim_env: ShimEnv, fails: str) -> None:
    # GIVEN a driver that refuses to answer at the moment when it matters
    code = keeper(f"""
        keep(pool)
        give(take(40 * MIB)[1])
        settle()
        fail_next(d, "{fails}", 1, 1)
        code, a = plain(40 * MIB)
        now = card_used(d)
        again, b = plain(40 * MIB) if code else (code, a)
        answer(code=code, now=now, again=again, most=most)
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    # THEN the budget holds, and the next attempt finds the room
    assert child.answer["code"] in (0, OOM)
    assert child.answer["again"] == 0
    assert child.answer["most"] <= 64 * MIB


@pytest.mark.parametrize("virtual", [0, 4096 * MIB])
def test_threads_share_pools(shim_env: ShimEnv, virtual: int) -> None:
    # GIVEN threads that allocate from one pool and besides it, and one that watches the card
    code = keeper("""
        import random
        import threading
        keep(pool)
        context = d.new("cuCtxGetCurrent")
        codes, peak, stop = set(), [0], threading.Event()
        def work(seed):
            d.cuCtxSetCurrent(context)
            rng, own, live, out = random.Random(seed), stream(d), [], c_uint64()
            for _ in range(150):
                if live and rng.random() < 0.5:
                    a, ordered = live.pop(rng.randrange(len(live)))
                    codes.add(d.code("cuMemFreeAsync", a, own) if ordered
                              else d.code("cuMemFree_v2", a))
                    continue
                ordered = rng.random() < 0.7
                size = rng.choice([4096, MIB, 3 * MIB, 11 * MIB])
                code = (d.code("cuMemAllocAsync", byref(out), size, own) if ordered
                        else d.code("cuMemAlloc_v2", byref(out), size))
                codes.add(code)
                if code == 0:
                    live.append((out.value, ordered))
            for a, ordered in live:
                d.code("cuMemFreeAsync", a, own) if ordered else d.code("cuMemFree_v2", a)
            d.cuStreamSynchronize(own)
        def watch():
            while not stop.is_set():
                peak[0] = max(peak[0], card_used(d))
                stop.wait(0.001)
        threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
        watcher = threading.Thread(target=watch)
        for t in (watcher, *threads):
            t.start()
        for t in threads:
            t.join()
        stop.set()
        watcher.join()
        d.cuMemFree_v2(plain(4096)[1])
        d.cuMemPoolTrimTo(pool, 0)
        end = [*held(), books()["kept_bytes"], card_used(d)]
        answer(codes=sorted(codes), peak=peak[0], end=end)
    """)
    child = run_child(shim_env(vram=64 * MIB, virtual=virtual), code)
    # THEN the card never has more than the budget, and all is given back
    assert child.answer["peak"] <= 64 * MIB
    assert set(child.answer["codes"]) <= ({0} if virtual else {0, OOM})
    assert child.answer["end"] == [0] * 6


def test_what_cannot_be_spilled_waits_for_frees(shim_env: ShimEnv) -> None:
    # GIVEN memory that its stream will free when it gets there
    code = keeper("""
        import threading
        codes = []
        _, a = take(50 * MIB)
        hold(d, s, True)
        give(a)
        timer = threading.Timer(0.1, lambda: hold(d, s, False))
        timer.start()
        codes.append(d.code("cuMemAlloc_v2", byref(c_uint64()), 40 * MIB))
        timer.join()
        # AND when it does not get there
        _, a = take(20 * MIB)
        d.cuMemsetD8Async(a, 1, 4096, s)
        d.cuStreamSynchronize(s)
        hold(d, s, True)
        give(a)
        codes.append(d.code("cuMemAlloc_v2", byref(c_uint64()), 20 * MIB))
        hold(d, s, False)
        settle()
        codes.append(d.code("cuMemAlloc_v2", byref(c_uint64()), 20 * MIB))
        answer(codes=codes, most=most)
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    # THEN it is had when it is there, and refused when that takes too long
    assert child.answer["codes"] == [0, OOM, 0]
    assert child.answer["most"] <= 64 * MIB
