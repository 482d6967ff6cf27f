# SPDX-License-Identifier: GPL-2.0-only
"""Every instruction on corner cases, against integers and exact fractions.

Some 3000 forms, up to 256 operand tuples each, forty forms a kernel.
"""

from __future__ import annotations

import ctypes
import re
from concurrent.futures import ThreadPoolExecutor

import ptx_approx_cases
import ptx_atomic_cases
import ptx_convert_cases
import ptx_float_cases
import ptx_integer_cases
import ptx_logic_cases
import ptx_memory_cases
import ptx_other_cases
import ptx_video_cases
import ptx_warp_cases
import pytest
from cuda_driver import Driver
from ptx_bench import LANES, Case, kernel, packed, result_bytes, wrong

VERSION = "8.8"  # of the PTX ISA: knows all of them
A_KERNEL = 40  # cases in one: compilers take more than twice as long for twice as many
COMPUTE_MAJOR, COMPUTE_MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_*

# What a card must be for a form; the simulated one takes them all.
NEEDS = (
    (1000, r"(shfl\.(bfly|down)|vote\.(any|ballot))\."),
    (100, r"(min|max)[.\w]*\.f32 {d}, {a}, {b}, {c}|(add|sub|fma)[.\w]*\.f32\.b?f16 "),
    (90, r"bf16|u16x2|s16x2|relu\.s32|\.(rn|rz)(\.relu)?\.tf32"),
    (86, r"xorsign"),
)


def needs(case: Case) -> int:
    return next((target for target, form in NEEDS if re.match(r".*?" + form, case.text)), 80)


def run(driver: Driver, context: int, cases: list[Case], target: str) -> list[str]:
    """Lines about what came out wrong."""
    driver.cuCtxSetCurrent(context)
    text = kernel(cases, target, VERSION).encode() + b"\0"
    module = driver.new("cuModuleLoadData", text)
    function = driver.new("cuModuleGetFunction", module, b"k")
    data = packed(cases)
    given = driver.new("cuMemAlloc_v2", len(data))
    made = driver.new("cuMemAlloc_v2", result_bytes(cases))
    try:
        driver.upload(given, data)
        driver.cuMemsetD8_v2(made, 0, result_bytes(cases))
        values = [ctypes.c_uint64(given), ctypes.c_uint64(made)]
        arguments = (ctypes.c_void_p * 2)(*(ctypes.addressof(v) for v in values))
        driver.cuLaunchKernel(function, 1, 1, 1, LANES, 1, 1, 0, 0, arguments, 0)
        driver.cuCtxSynchronize()
        return wrong(cases, driver.download(made, result_bytes(cases)))
    finally:
        driver.cuMemFree_v2(given)
        driver.cuMemFree_v2(made)
        driver.cuModuleUnload(module)


@pytest.fixture(autouse=True, scope="module")
def _cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Translated kernels are kept with the test's own files."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EMUV_SIM_CACHE", str(tmp_path_factory.mktemp("kernels")))
        yield


KINDS = {
    "integer": ptx_integer_cases.CASES,
    "logic": ptx_logic_cases.CASES,
    "float": ptx_float_cases.CASES,
    "newer": ptx_float_cases.NEWER,
    "approx": ptx_approx_cases.CASES,
    "convert": ptx_convert_cases.CASES,
    "memory": ptx_memory_cases.CASES,
    "atomic": ptx_atomic_cases.CASES,
    "other": ptx_other_cases.CASES,
    "warp": ptx_warp_cases.CASES,
    "video": ptx_video_cases.CASES,
}


@pytest.mark.parametrize("kind", KINDS)
def test_instructions(driver: Driver, context: int, kind: str) -> None:
    sim = driver.sim() is not None
    target = 10 * driver.attribute(COMPUTE_MAJOR) + driver.attribute(COMPUTE_MINOR)
    cases = [c for c in KINDS[kind] if sim or needs(c) <= target]
    if not cases:
        oldest = min(map(needs, KINDS[kind]))
        pytest.skip(f"each of them needs a card of sm_{oldest} at least; this one is sm_{target}")
    groups = [cases[i : i + A_KERNEL] for i in range(0, len(cases), A_KERNEL)]
    name = "sm_100a" if sim or target == 100 else f"sm_{target}"
    with ThreadPoolExecutor(2) as pool:
        lines = list(pool.map(lambda g: run(driver, context, g, name), groups))
    assert not [line for group in lines for line in group]


def test_the_bench_sees_a_wrong_result() -> None:
    case = ptx_integer_cases.CASES[0]
    assert wrong([case], bytes(result_bytes([case])))
