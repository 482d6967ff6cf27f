# SPDX-License-Identifier: GPL-2.0-only
"""Graphs that allocate: counted when they are launched, by what the driver reserves for them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.shim_tools import MIB, OOM, run_child

ShimEnv = Callable[..., dict[str, str]]

TOOLS = """
from ctypes import Structure, c_void_p
from cuda_driver import PoolProps
class Alloc(Structure):
    _fields_ = [("pool", PoolProps), ("access", c_void_p), ("access_count", c_size_t),
                ("size", c_size_t), ("address", c_uint64)]
def instantiate(d, g):
    return d.new("cuGraphInstantiateWithFlags", g, 0)
def with_memory(d, g, size, device=0):
    "Nodes that allocate and free."
    params = Alloc(pool=PoolProps(1, 0, Location(1, device), None, 0, 0), size=size)
    node = d.new("cuGraphAddMemAllocNode", g, None, 0, byref(params))
    d.new("cuGraphAddMemFreeNode", g, byref(c_uint64(node)), 1, params.address)
d = started()
s = stream(d)
most = 0
def look():
    global most
    most = max(most, card_used(d))
    b = books()
    return [card_used(d) // MIB, b["graph_bytes"] // MIB, b["physical_bytes"] // MIB]
def graph(size):
    g = d.new("cuGraphCreate", 0)
    with_memory(d, g, size)
    return g, instantiate(d, g)
def launch(e, on=s, how="cuGraphLaunch"):
    code = d.code(how, e, on)
    d.cuStreamSynchronize(on)
    look()
    return code
def captured(size, free=True, mode=0):
    "A graph made by capturing an allocation."
    d.cuStreamBeginCapture_v2(s, mode)
    out = c_uint64()
    code = d.code("cuMemAllocAsync", byref(out), size, s)
    if code == 0:
        d.cuMemsetD8Async(out.value, 5, size, s)
    if free:
        d.cuMemFreeAsync(out.value, s)
    g = c_uint64()
    d.cuStreamEndCapture(s, byref(g))
    return code, g.value, out.value
"""


def test(code: str) -> str:
    """A program after TOOLS."""
    import textwrap

    return TOOLS + textwrap.dedent(code)


test.__test__ = False  # type: ignore[attr-defined]


def test_a_graph_that_is_not_destroyed_is_counted(shim_env: ShimEnv) -> None:
    code = test("""
        g, e = graph(40 * MIB)
        fail_next(d, "cuGraphExecDestroy", 1, 1)
        refused = d.code("cuGraphExecDestroy", e)
        filler = d.new("cuMemAlloc_v2", 40 * MIB)
        full = launch(e)
        d.cuMemFree_v2(filler)
        answer(refused=refused, full=full, code=launch(e), end=look())
    """)
    got = run_child(shim_env(vram=64 * MIB), code).answer
    assert got == {"refused": 1, "full": OOM, "code": 0, "end": [40, 40, 40]}


def test_what_the_program_has_trimmed_is_taken_again(shim_env: ShimEnv) -> None:
    code = test("""
        g, e = graph(40 * MIB)
        codes = [launch(e), d.code("cuDeviceGraphMemTrim", 0)]
        trimmed = look()
        filler = d.new("cuMemAlloc_v2", 40 * MIB)
        codes.append(launch(e))
        d.cuMemFree_v2(filler)
        codes.append(launch(e))
        answer(codes=codes, trimmed=trimmed, end=look(), most=most)
    """)
    got = run_child(shim_env(vram=64 * MIB), code).answer
    assert got["codes"] == [0, 0, OOM, 0]
    assert (got["trimmed"], got["end"]) == ([0] * 3, [40] * 3)
    assert got["most"] <= 64 * MIB


def test_what_one_device_refuses_the_other_gets_back(shim_env: ShimEnv) -> None:
    # GIVEN a graph that allocates on two devices, and no room on the second one
    code = test("""
        g = d.new("cuGraphCreate", 0)
        with_memory(d, g, 20 * MIB)
        with_memory(d, g, 40 * MIB, 1)
        e = instantiate(d, g)
        code = launch(e)
        left = [books(i)["graph_bytes"] for i in (0, 1)]
        answer(code=code, left=left, whole=d.code("cuMemAlloc_v2", byref(c_uint64()), 64 * MIB))
    """)
    env = shim_env(vram=f"0={64 * MIB},1={32 * MIB}", EMUV_SIM_DEVICES="2")
    assert run_child(env, code).answer == {"code": OOM, "left": [0, 0], "whole": 0}


@pytest.mark.parametrize("how", ["cuGraphLaunch", "cuGraphLaunch_ptsz", "cuGraphUpload_ptsz"])
def test_a_launch_takes_the_memory_of_its_nodes(shim_env: ShimEnv, how: str) -> None:
    """The naive way: 100 of 64 MiB are on the card."""
    # GIVEN graphs that allocate 40 and 60 MiB, and a budget of 64
    code = test(f"""
        a, b = graph(40 * MIB), graph(60 * MIB)
        steps = [look()]
        codes = [launch(a[1], how="{how}"), launch(b[1], how="{how}")]
        steps.append(look())
        # WHEN the first goes
        d.cuGraphExecDestroy(a[1])
        d.cuGraphDestroy(a[0])
        codes.append(launch(b[1], how="{how}"))
        steps.append(look())
        codes.append(d.code("cuMemAlloc_v2", byref(c_uint64()), 8 * MIB))
        steps.append(look())
        d.cuGraphExecDestroy(b[1])
        d.cuDeviceGraphMemTrim(0)
        steps.append(look())
        answer(codes=codes, steps=steps, most=most)
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    # THEN a launch that does not fit is out of memory, and what graphs keep is had back for
    # another, but never from one that may be launched again without need
    got = child.answer
    assert got["steps"][0] == [0, 0, 0]
    assert got["codes"][:3] == [0, 0, 0]
    assert got["most"] <= 64 * MIB
    assert got["steps"][2] == [60, 60, 60]
    assert got["steps"][-1][1] == 0
    assert child.device().peak_physical_bytes <= 64 * MIB


def test_a_launch_that_does_not_fit(shim_env: ShimEnv) -> None:
    # GIVEN plain memory, and a graph that fits with none of it
    code = test("""
        plain = d.new("cuMemAlloc_v2", 32 * MIB)
        g, e = graph(40 * MIB)
        codes = [launch(e), launch(e)]
        refused = look()
        d.cuMemFree_v2(plain)
        codes.append(launch(e))
        launched = look()
        answer(codes=codes, refused=refused, launched=launched, denials=books()["denials"])
    """)
    child = run_child(shim_env(vram=64 * MIB, virtual=64 * MIB), code)
    # THEN the launch is refused, nothing is taken, and it succeeds when there is room
    assert child.answer["codes"] == [OOM, OOM, 0]
    assert child.answer["refused"] == [32, 0, 32]
    assert child.answer["launched"] == [40, 40, 40]
    assert child.answer["denials"] == 2


@pytest.mark.parametrize("virtual", [0, 64 * MIB])
def test_a_captured_allocation_is_counted_at_launch(shim_env: ShimEnv, virtual: int) -> None:
    # GIVEN a budget that is full
    code = test("""
        plain = d.new("cuMemAlloc_v2", 60 * MIB)
        code, g, address = captured(20 * MIB)
        before = [*held(), look()[1]]
        e = instantiate(d, g)
        codes = [code, launch(e)]
        d.cuMemFree_v2(plain)
        codes.append(launch(e))
        after = [*held(), look()[1]]
        answer(codes=codes, before=before, after=after, most=most)
    """)
    child = run_child(shim_env(vram=64 * MIB, virtual=virtual), code)
    # THEN the capture is none of its business: the launch is what takes memory
    assert child.answer["codes"] == [0, OOM, 0]
    assert child.answer["before"] == [60 * MIB, 0, 0, 1, 0]
    assert child.answer["after"] == [0, 0, 0, 0, 20]
    assert child.answer["most"] <= 64 * MIB


@pytest.mark.parametrize("free", ["cuMemFree_v2", "cuMemFreeAsync"])
def test_what_outlives_its_graph(shim_env: ShimEnv, free: str) -> None:
    code = test(f"""
        code, g, address = captured(20 * MIB, free=False)
        e = instantiate(d, g)
        codes = [launch(e)]
        d.cuGraphExecDestroy(e)
        d.cuGraphDestroy(g)
        alive = look()
        codes.append(d.code("cuMemAlloc_v2", byref(c_uint64()), 50 * MIB))
        row = list(d.download(address, 4))
        if "{free}" == "cuMemFree_v2":
            d.cuMemFree_v2(address)
        else:
            d.cuMemFreeAsync(address, s)
            d.cuStreamSynchronize(s)
        codes.append(d.code("cuMemAlloc_v2", byref(c_uint64()), 50 * MIB))
        answer(codes=codes, alive=alive, row=row, end=look())
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer["codes"] == [0, OOM, 0]
    assert child.answer["alive"] == [20, 20, 20]
    assert child.answer["row"] == [5] * 4
    assert child.answer["end"] == [50, 0, 50]


def test_graphs_and_pools_make_room_for_each_other(shim_env: ShimEnv) -> None:
    # GIVEN a pool that keeps 50 MiB
    code = test("""
        pool = d.new("cuDeviceGetDefaultMemPool", 0)
        d.cuMemPoolSetAttribute(pool, 4, byref(c_uint64(2**64 - 1)))
        def churn():
            a = d.new("cuMemAllocAsync", 50 * MIB, s)
            d.cuMemFreeAsync(a, s)
            d.cuStreamSynchronize(s)
            look()
        churn()
        g, e = graph(40 * MIB)
        codes, steps = [], []
        for _ in range(3):
            codes.append(launch(e))
            steps.append(look())
            churn()
            steps.append(look())
        answer(codes=codes, steps=steps, most=most, spills=books()["spills"])
    """)
    child = run_child(shim_env(vram=64 * MIB, EMUV_SIM_POOL=str(MIB)), code)
    # THEN the graph gets what the pool kept, and the pool what the graph kept
    assert child.answer["codes"] == [0, 0, 0]
    assert child.answer["most"] <= 64 * MIB
    assert child.answer["spills"] == 0


def test_a_spill_comes_before_a_graphs_memory(shim_env: ShimEnv) -> None:
    code = test("""
        g, e = graph(40 * MIB)
        launch(e)
        trims = calls(d, "cuDeviceGraphMemTrim")
        for _ in range(3):
            d.new("cuMemAlloc_v2", 30 * MIB)
            launch(e)
        answer(trims=calls(d, "cuDeviceGraphMemTrim") - trims, end=look(), **books())
    """)
    child = run_child(shim_env(vram=64 * MIB, virtual=128 * MIB), code)
    assert child.answer["trims"] == 0
    assert child.answer["spills"] == 3
    assert child.answer["graph_bytes"] == 40 * MIB
    assert child.answer["end"][0] <= 64


def test_however_it_is_instantiated(shim_env: ShimEnv) -> None:
    # GIVEN a graph that takes 80 MiB, and a budget of 64
    code = test("""
        params = (c_uint64 * 4)(0, 0, 0, 0)
        ways = {
            "cuGraphInstantiate": (None, None, 0), "cuGraphInstantiate_v2": (None, None, 0),
            "cuGraphInstantiateWithFlags": (0,),
            "cuGraphInstantiateWithParams": (byref(params),),
            "cuGraphInstantiateWithParams_ptsz": (byref(params),),
        }
        g = d.new("cuGraphCreate", 0)
        with_memory(d, g, 80 * MIB)
        codes = {}
        for way, more in ways.items():
            e = d.new(way, g, *more)
            codes[way] = launch(e)
            d.cuGraphExecDestroy(e)  # one with memory is there once at a time
        answer(codes=codes, most=most)
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    # THEN no launch takes it
    assert set(child.answer["codes"].values()) == {OOM}
    assert len(child.answer["codes"]) == 5
    assert child.answer["most"] == 0


@pytest.mark.parametrize("form", ["", "_ptsz"])
@pytest.mark.parametrize("nth", [1, 2])
def test_instantiating_with_an_upload(shim_env: ShimEnv, nth: int, form: str) -> None:
    code = test(f"""
        class Params(Structure):
            _fields_ = [("flags", c_uint64), ("stream", c_void_p), ("node", c_void_p),
                        ("result", c_int)]
        for _ in range({nth - 1}):
            d.new("cuMemAlloc_v2", 40 * MIB)
        g = d.new("cuGraphCreate", 0)
        with_memory(d, g, 30 * MIB)
        params = Params(flags=2, stream=s)
        code = d.code("cuGraphInstantiateWithParams{form}", byref(c_uint64()), g, byref(params))
        answer(code=code, end=look())
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    if nth == 1:
        assert (child.answer["code"], child.answer["end"]) == (0, [30, 30, 30])
    else:
        assert (child.answer["code"], child.answer["end"]) == (OOM, [40, 0, 40])


@pytest.mark.parametrize(
    "fails", ["cuDeviceGetGraphMemAttribute", "cuGraphLaunch", "cuGraphNodeGetType"]
)
def test_a_driver_that_refuses(shim_env: ShimEnv, fails: str) -> None:
    code = test(f"""
        g = d.new("cuGraphCreate", 0)
        with_memory(d, g, 30 * MIB)
        fail_next(d, "{fails}", 1, 2)
        e = instantiate(d, g)
        codes = [launch(e), launch(e)]
        first = look()
        d.cuGraphExecDestroy(e)
        d.cuGraphDestroy(g)
        d.cuDeviceGraphMemTrim(0)
        answer(codes=codes, first=first, end=look())
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer["codes"][1] == 0
    if fails != "cuGraphNodeGetType":  # a graph that cannot be read is not known to need any
        assert child.answer["first"][0] <= child.answer["first"][2]
        assert child.answer["end"] == [0, 0, 0]


def test_a_graph_that_runs_is_launched_again(shim_env: ShimEnv) -> None:
    # GIVEN a graph that takes most of the budget and is not done
    code = test("""
        g, e = graph(40 * MIB)
        launch(e)
        hold(d, s, True)
        codes = [d.code("cuGraphLaunch", e, s)]
        # WHEN somebody asks for room, which it cannot give up
        codes.append(d.code("cuMemAlloc_v2", byref(c_uint64()), 30 * MIB))
        # AND it is launched once more
        codes.append(d.code("cuGraphLaunch", e, s))
        during = look()
        hold(d, s, False)
        codes.append(launch(e))
        answer(codes=codes, during=during, end=look(), most=most)
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    # THEN nothing is trimmed under it, and its memory is not asked for twice
    assert child.answer["codes"] == [0, OOM, 0, 0]
    assert child.answer["during"] == child.answer["end"] == [40, 40, 40]


@pytest.mark.parametrize(
    "fails",
    ["cuGraphGetNodes", "cuGraphNodeGetType", "cuGraphMemAllocNodeGetParams",
     "cuGraphChildGraphNodeGetGraph"],
)  # fmt: skip
def test_a_graph_that_cannot_be_read_is_told(shim_env: ShimEnv, fails: str) -> None:
    # GIVEN a graph with a node that allocates, and a child, and a driver that fails to tell
    code = test(f"""
        def nested():
            g, child = d.new("cuGraphCreate", 0), d.new("cuGraphCreate", 0)
            with_memory(d, g, 8 * MIB)
            d.new("cuGraphAddChildGraphNode", g, None, 0, child)
            return g
        first, second = nested(), nested()
        known = instantiate(d, first)
        before = books()["uncounted_calls"]
        fail_next(d, "{fails}", 1, 999)
        instantiate(d, second)
        answer(before=before, after=books()["uncounted_calls"], known=launch(known))
    """)
    child = run_child(shim_env(vram=64 * MIB), code)
    # THEN it is not silent about what it has not counted
    assert child.answer == {"before": 0, "after": 1, "known": 0}
