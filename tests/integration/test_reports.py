# SPDX-License-Identifier: GPL-2.0-only
"""What the program is told of its memory is what the budget allows."""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.shim_tools import MIB, run_child

ShimEnv = Callable[..., dict[str, str]]


def test_total_and_free_are_the_budgets(shim_env: ShimEnv) -> None:
    code = """
        d = started()
        total = d.new("cuDeviceTotalMem_v2", 0)
        first = d.memory_info()
        d.new("cuMemAlloc_v2", 100 * MIB)
        second = d.memory_info()
        d.new("cuMemAlloc_v2", 60 * MIB)
        answer(total=total, first=first, second=second, third=d.memory_info())
    """
    child = run_child(shim_env(vram=128 * MIB, virtual=64 * MIB), code)

    total = 192 * MIB
    assert child.answer == {
        "total": total, "first": [total, total], "second": [92 * MIB, total],
        "third": [32 * MIB, total],
    }  # fmt: skip


def test_null_arguments_answer_as_the_driver_does(
    shim_env: ShimEnv, sim_env: dict[str, str]
) -> None:
    code = """
        d = started()
        n, m = c_size_t(), c_size_t()
        answer(
            codes=[
                d.code("cuMemGetInfo_v2", None, None), d.code("cuMemGetInfo_v2", byref(n), None),
                d.code("cuMemGetInfo_v2", None, byref(m)), d.code("cuDeviceTotalMem_v2", None, 0),
                d.code("cuDeviceTotalMem_v2", byref(m), 7), d.code("cuMemGetInfo", None, None),
                d.code("cuDeviceTotalMem", None, 0), d.code("cuDeviceTotalMem", byref(m), -1),
            ],
            free=n.value,
        )
    """
    plain = run_child({**sim_env, "EMUV_SIM_VRAM": str(128 * MIB)}, code)
    child = run_child(shim_env(vram=128 * MIB), code)

    assert child.answer["free"] == 128 * MIB
    assert child.answer["codes"][3:] == plain.answer["codes"][3:]
    # A NULL for one figure, or both, is no reason to fall over (OptiX passes it).
    assert set(child.answer["codes"][:3]) <= {0, 1}


def test_32_bit_forms_are_clamped(shim_env: ShimEnv) -> None:
    code = """
        d = started()
        f, t, total = c_uint(), c_uint(), c_uint()
        codes = [d.code("cuMemGetInfo", byref(f), byref(t)), d.code("cuDeviceTotalMem", byref(total), 0)]
        answer(codes=codes, figures=[f.value, t.value, total.value])
    """  # noqa: E501
    env = shim_env(vram=6 << 30, virtual=2 << 30, card=8 << 30)
    child = run_child(env, code)
    assert child.answer == {"codes": [0, 0], "figures": [0xFFFFFFFF] * 3}
    child = run_child(shim_env(vram=96 * MIB), code)
    assert child.answer["figures"] == [96 * MIB] * 3


def test_unlimited_reports_the_cards_own(shim_env: ShimEnv) -> None:
    code = """
        d = started()
        d.new("cuMemAlloc_v2", 56 * MIB)
        answer(info=d.memory_info(), total=d.new("cuDeviceTotalMem_v2", 0))
    """
    child = run_child(shim_env(vram="none"), code)
    assert child.answer == {"info": [200 * MIB, 256 * MIB], "total": 256 * MIB}
