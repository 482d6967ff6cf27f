# SPDX-License-Identifier: GPL-2.0-only
"""What contexts take is charged, and what they held goes with them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.shim_tools import MIB, OOM, errors, run_child

ShimEnv = Callable[..., dict[str, str]]


def test_what_a_context_takes_is_charged(shim_env: ShimEnv) -> None:
    # GIVEN a card on which a context takes 40 MiB
    env = shim_env(vram=128 * MIB, EMUV_SIM_CONTEXT=str(40 * MIB))
    code = """
        d = started()
        first = d.memory_info()
        handles, code = routes(d)["cuMemAlloc_v2"]().grab()
        full = books()
        d.cuDevicePrimaryCtxRelease_v2(0)
        answer(first=first, got=len(handles), code=code, full=full, end=held() + [books()["overhead_bytes"]])
    """  # noqa: E501
    child = run_child(env, code)
    # THEN the program gets what is left, and the physical truth is the budget
    assert child.answer["first"] == [88 * MIB, 128 * MIB]
    assert (child.answer["got"], child.answer["code"]) == (88, OOM)
    assert child.answer["full"]["overhead_bytes"] == 40 * MIB
    assert child.answer["full"]["peak_physical_bytes"] == 128 * MIB
    # AND all of it is released with the context
    assert child.answer["end"] == [0, 0, 0, 0, 0]


@pytest.mark.parametrize("how", ["cuDevicePrimaryCtxRetain", "cuCtxCreate_v2"])

def test_a_budget_too_small_for_it_says_both_figures(shim_env: ShimEnv, how: str) -> None:
    env = shim_env(vram=30 * MIB, EMUV_SIM_CONTEXT=str(40 * MIB))
    code = f"""
        d = Driver("libcuda.so.1")
        d.cuInit(0)
        out = c_uint64(77)
        code = d.code({how!r}, byref(out), *([0, 0] if "Create" in {how!r} else [0]))
        answer(code=code, out=out.value, used=card_used(d), held=held())
    """
    child = run_child(env, code)
    assert child.answer == {"code": OOM, "out": 77, "used": 0, "held": [0, 0, 0, 0]}
    (line,) = errors(child)
    assert "30 MiB" in line
    assert "40 MiB" in line
    assert "emuv: hint: give --vram" in child.stderr


@pytest.mark.parametrize(
    "end", ["cuCtxDestroy_v2", "cuCtxDestroy", "cuCtxDetach", "primary release", "primary reset"]
)

def test_a_context_takes_what_it_held_with_it(shim_env: ShimEnv, end: str) -> None:
    # GIVEN two contexts, each with memory of every kind that belongs to a context
    code = f"""
        end = {end!r}
        d = started()
        keep = d.new("cuMemAlloc_v2", 3 * MIB)
        primary = d.new("cuCtxGetCurrent")
        if not end.startswith("primary"):
            context = d.new("cuCtxCreate_v2", 0, 0)
        all_routes = routes(d)
        for name in ("cuMemAlloc_v2", "cuMemAlloc", "cuMemAllocPitch_v2", "cuMemAllocManaged",
                     "cuArrayCreate_v2", "cuArray3DCreate_v2", "cuMipmappedArrayCreate"):
            code, _ = all_routes[name]().take(2 * MIB)
            assert code == 0, (name, code)
        d.new("cuMemAlloc_v2", 150 * MIB)  # spills
        before = held()
        # WHEN one goes
        if end == "primary release":
            d.cuDevicePrimaryCtxRelease_v2(0)
        elif end == "primary reset":
            d.cuDevicePrimaryCtxReset_v2(0)
        else:
            d.check(end, context)
            d.cuCtxSetCurrent(primary)
        answer(before=before, after=held(), used=card_used(d))
    """
    child = run_child(shim_env(vram=128 * MIB, virtual=128 * MIB), code)
    # THEN it takes what it held with it, and nothing of the other's
    kept = 0 if end.startswith("primary") else 3 * MIB
    assert child.answer["before"][0] == 17 * MIB
    assert child.answer["before"][1] == 150 * MIB
    assert child.answer["after"] == [kept, 0, 0, 1 if kept else 0]
    assert child.answer["used"] == kept


def test_the_last_release_counts(shim_env: ShimEnv) -> None:
    code = """
        d = started()
        d.new("cuDevicePrimaryCtxRetain", 0)
        d.new("cuMemAlloc_v2", MIB)
        d.cuDevicePrimaryCtxRelease_v2(0)
        first = held()
        d.cuDevicePrimaryCtxRelease_v2(0)
        answer(first=first, second=held())
    """
    child = run_child(shim_env(vram=128 * MIB), code)
    assert child.answer == {"first": [MIB, 0, 0, 1], "second": [0, 0, 0, 0]}


def test_a_wrong_device_is_the_drivers_to_refuse(
    shim_env: ShimEnv, sim_env: dict[str, str]
) -> None:
    code = """
        d = Driver("libcuda.so.1")
        d.cuInit(0)
        out = c_uint64()
        answer(codes=[
            d.code("cuCtxCreate_v2", byref(out), 0, 99), d.code("cuCtxCreate_v2", byref(out), 0, -1),
            d.code("cuCtxCreate_v2", None, 0, 0), d.code("cuDevicePrimaryCtxRetain", byref(out), 99),
            d.code("cuDevicePrimaryCtxRetain", None, 0), d.code("cuDevicePrimaryCtxRelease_v2", 99),
            d.code("cuDevicePrimaryCtxReset_v2", -1), d.code("cuCtxDestroy_v2", None),
        ])
    """  # noqa: E501
    plain = run_child(sim_env, code)
    child = run_child(shim_env(vram=128 * MIB), code)
    assert child.answer == plain.answer


def test_more_contexts_than_emuv_remembers(shim_env: ShimEnv) -> None:
    # GIVEN 300 contexts, with memory of its own in each, spilled in the last
    code = """
        d = Driver("libcuda.so.1")
        d.cuInit(0)
        contexts = []
        for _ in range(300):
            contexts.append(d.new("cuCtxCreate_v2", 0, 0))
            d.new("cuMemAlloc_v2", 4096)
        d.new("cuMemAlloc_v2", 20 * MIB)
        d.new("cuMemAllocAsync", 20 * MIB, stream(d))
        full = held()
        # WHEN all are destroyed
        for c in contexts:
            d.cuCtxDestroy_v2(c)
        answer(full=full, end=held(), overhead=books()["overhead_bytes"], used=card_used(d))
    """
    env = shim_env(vram=32 * MIB, virtual=64 * MIB, EMUV_SIM_CONTEXT=str(16384))
    child = run_child(env, code)
    # THEN nothing stays charged
    assert child.answer["full"][3] == 302
    assert child.answer["end"] == [0, 0, 0, 0]
    assert child.answer["overhead"] == 0
    assert child.answer["used"] == 0
