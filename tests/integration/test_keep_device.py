# SPDX-License-Identifier: GPL-2.0-only
"""--keep-device: what must not spill stays on the device, or is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.conftest import Compiler, run
from tests.integration.shim_tools import MIB, Child, finish, run_child

ShimEnv = Callable[..., dict[str, str]]

BUDGET = {"vram": 32 * MIB, "virtual": 256 * MIB}

# A library that allocates by itself, as NCCL does: straight from the driver.
NCCL = """
int cuMemAlloc_v2(unsigned long long *address, unsigned long bytes);
int take(unsigned long long *address, unsigned long bytes);
int take(unsigned long long *address, unsigned long bytes)
{
	int code = cuMemAlloc_v2(address, bytes);
	__asm__ volatile("" ::: "memory"); /* not a jump: the return address is its own */
	return code;
}
"""
# CUDA's runtime as a library of its own, between a program and the driver.
CUDART = NCCL.replace("take", "cudaMalloc")
ABOVE = """
int cudaMalloc(unsigned long long *address, unsigned long bytes);
int take(unsigned long long *address, unsigned long bytes);
int take(unsigned long long *address, unsigned long bytes)
{
	int code = cudaMalloc(address, bytes);
	__asm__ volatile("" ::: "memory");
	return code;
}
"""


def by_size(shim_env: ShimEnv, rules: str, code: str) -> Child:
    head = "d = started()\ndef take(n): return d.code('cuMemAlloc_v2', byref(c_uint64()), n)\n"
    return run_child(shim_env(**BUDGET, EMUV_KEEP_DEVICE=rules), head + code)


def test_a_size_class_takes_the_room_of_heads(shim_env: ShimEnv) -> None:
    """The large one's head fills the budget; what must stay takes it back, block by block."""
    child = by_size(
        shim_env,
        "0-2097152",
        """
big = d.new("cuMemAlloc_v2", 64 * MIB)
d.cuMemsetD8_v2(big, 7, 64 * MIB)
steps = [held()]
small = [d.new("cuMemAlloc_v2", MIB) for _ in range(5)]
steps.append(held())
same = d.download(big, 64 * MIB) == b"\\7" * (64 * MIB)
there = resident(d, big, 64 * MIB)
answer(steps=steps, same=same, there=there // MIB)
""",
    )
    (d0, m0, r0, _), (d1, m1, r1, live) = child.answer["steps"]
    assert (d0, m0, r0) == (0, 64 * MIB, 32 * MIB)
    assert (d1, m1, live) == (5 * MIB, 64 * MIB, 6)
    assert r1 == 26 * MIB  # whole blocks of 2 MiB
    assert child.answer["same"]
    assert child.answer["there"] == 26


def test_without_room_it_is_refused_and_counted(shim_env: ShimEnv) -> None:
    child = by_size(
        shim_env,
        "4194304-8388608",
        """
codes = [take(n * MIB) for n in (30, 4, 8, 3, 9)]
b = books()
answer(codes=codes, denials=b["denials"], bytes=b["denied_bytes"] // MIB, spills=b["spills"],
       physical=b["physical_bytes"] // MIB)
""",
    )
    # 30 fit; 4 and 8 must stay and cannot; 3 and 9 may spill.
    assert child.answer["codes"] == [0, 2, 2, 0, 0]
    assert (child.answer["denials"], child.answer["bytes"]) == (2, 12)
    assert child.answer["spills"] == 2
    assert child.answer["physical"] <= 32


@pytest.mark.parametrize("route", ["cuMemAllocAsync", "cuMemCreate"])
def test_other_routes_are_kept_too(shim_env: ShimEnv, route: str) -> None:
    child = by_size(
        shim_env,
        "0-8388608",
        f"""
props = byref(AllocationProp(1, 0, Location(1, 0), None, 0, 0, 0))
more = {{"cuMemAllocAsync": (None,), "cuMemCreate": (props, 0)}}["{route}"]
d.new("cuMemAlloc_v2", 30 * MIB)
codes = [d.code("{route}", byref(c_uint64()), n * MIB, *more) for n in (4, 16)]
answer(codes=codes, denials=books()["denials"])
""",
    )
    assert child.answer == {"codes": [2, 0], "denials": 1}


def test_a_pool_that_would_grow_too_much_keeps_it_from_spilling_as_well(shim_env: ShimEnv) -> None:
    """16 MiB of room, and a pool that takes 32 MiB at a time: known when it has."""
    code = """
d = started()
d.new("cuMemAlloc_v2", 48 * MIB)
codes = [d.code("cuMemAllocAsync", byref(c_uint64()), n, None) for n in (4096, 8192)]
answer(codes=codes, spills=books()["spills"], denials=books()["denials"], held=held())
"""
    env = shim_env(vram=64 * MIB, virtual=64 * MIB, EMUV_SIM_POOL=str(32 * MIB))
    child = run_child({**env, "EMUV_KEEP_DEVICE": "0-4096"}, code)
    assert child.answer["codes"] == [2, 0]
    assert (child.answer["spills"], child.answer["denials"]) == (1, 1)
    assert child.answer["held"][:2] == [48 * MIB, 8192]


def test_it_does_not_get_a_spilled_range_that_its_stream_has_freed(
    shim_env: ShimEnv, cc: Compiler
) -> None:
    source = """
int cuMemAllocAsync(unsigned long long *address, unsigned long bytes, void *stream);
int take(unsigned long long *address, unsigned long bytes);
int take(unsigned long long *address, unsigned long bytes)
{
	int code = cuMemAllocAsync(address, bytes, 0);
	__asm__ volatile("" ::: "memory");
	return code;
}
"""
    library = cc(source, libs=["cuda"], name="libnccl_test", shared=True)
    code = f"""
from ctypes import CDLL
nccl = CDLL({str(library)!r})
d = started()
d.new("cuMemAlloc_v2", 32 * MIB)
d.cuMemFreeAsync(d.new("cuMemAllocAsync", 4 * MIB, None), None)
codes = [nccl.take(byref(c_uint64()), c_size_t(4 * MIB)),
         d.code("cuMemAllocAsync", byref(c_uint64()), 4 * MIB, None)]
answer(codes=codes, held=held())
"""
    child = run_child(shim_env(**BUDGET, EMUV_KEEP_DEVICE="libnccl"), code)
    assert child.answer == {"codes": [2, 0], "held": [32 * MIB, 4 * MIB, 0, 2]}


def test_a_full_card_keeps_it_from_spilling_as_well(shim_env: ShimEnv) -> None:
    child = by_size(
        shim_env,
        "0-2097152",
        """
fail_next(d, "cuMemAlloc_v2", 1, 2)
kept = take(MIB)
fail_next(d, "cuMemAlloc_v2", 1, 2)
answer(codes=[kept, take(4 * MIB)], spills=books()["driver_oom_spills"])
""",
    )
    assert child.answer == {"codes": [2, 0], "spills": 1}


def test_no_rules_no_difference(shim_env: ShimEnv) -> None:
    child = run_child(
        shim_env(**BUDGET),
        """
d = started()
d.new("cuMemAlloc_v2", 64 * MIB)
answer(code=d.code("cuMemAlloc_v2", byref(c_uint64()), MIB), held=held())
""",
    )
    assert child.answer == {"code": 0, "held": [0, 65 * MIB, 32 * MIB, 2]}


def from_library(shim_env: ShimEnv, library: Path, rules: str, *first: Path) -> list[int]:
    """Codes of 1 MiB for the library and for the program itself, where all is taken."""
    env = shim_env(**BUDGET, EMUV_KEEP_DEVICE=rules)
    env["LD_LIBRARY_PATH"] = f"{library.parent}:{env.get('LD_LIBRARY_PATH', '')}"
    code = f"""
from ctypes import CDLL, RTLD_GLOBAL
{"".join(f"CDLL({str(path)!r}, RTLD_GLOBAL);" for path in first)}
nccl = CDLL({str(library)!r})
d = started()
d.new("cuMemAlloc_v2", 32 * MIB)
codes = [nccl.take(byref(c_uint64()), c_size_t(MIB)),
         d.code("cuMemAlloc_v2", byref(c_uint64()), MIB)]
answer(codes=codes)
"""
    codes: list[int] = run_child(env, code).answer["codes"]
    return codes


@pytest.mark.parametrize(
    ("rules", "codes"),
    [("libnccl", [2, 0]), ("libother", [0, 0]), ("libother,libnccl_t", [2, 0]), ("nccl", [0, 0])],
)
def test_a_library_is_known_by_who_calls(
    shim_env: ShimEnv, cc: Compiler, rules: str, codes: list[int]
) -> None:
    library = cc(NCCL, libs=["cuda"], name="libnccl_test", shared=True)
    assert from_library(shim_env, library, rules) == codes


def test_cudas_runtime_in_between_is_looked_past(shim_env: ShimEnv, cc: Compiler) -> None:
    """libnccl_test calls libcudart, which calls the driver; the process has libgcc_s."""
    runtime = cc(CUDART, libs=["cuda"], name="libcudart", shared=True)
    library = cc(ABOVE, name="libnccl_test", shared=True)
    gcc = Path("libgcc_s.so.1")
    assert from_library(shim_env, library, "libnccl", gcc, runtime) == [2, 0]
    assert from_library(shim_env, library, "libcudart", gcc, runtime) == [0, 0]


@pytest.mark.parametrize(
    "rules",
    ["", "2MiB", "<=5", "5", "5-", "-5", "6-5", "libnccl,", ",", "a b", "1-2;3-4", "x" * 64],
)
def test_the_shim_takes_its_own_form_only(shim_env: ShimEnv, rules: str) -> None:
    child = run_child(
        shim_env(**BUDGET, EMUV_KEEP_DEVICE=rules),
        "d = Driver('libcuda.so.1')\nanswer(code=d.code('cuInit', 0))",
    )
    assert child.answer == {"code": 800}
    assert "EMUV_KEEP_DEVICE=" in child.stderr


LAUNCH = "import sys; from emuv_shim.commands.run import main; sys.exit(main())"


@pytest.mark.parametrize(
    ("options", "rules", "warned"),
    [
        (("--keep-device", "2MiB"), "", True),
        (("--keep-device", "2MiB", "--quiet"), "", True),
        (("--keep-device", "2MiB", "--virtual", "64MiB"), "", False),
        (("--keep-device", "none"), "libnccl", False),
        ((), "libnccl", False),  # a habit of the user's, not meant for this run
    ],
)
def test_rules_that_have_no_effect_are_said(
    clean_env: dict[str, str], tmp_path: Path, options: Sequence[str], rules: str, warned: bool
) -> None:
    done = run(
        [sys.executable, "-c", LAUNCH, "--sim", "--vram", "32MiB", *options, "--", "/bin/true"],
        {**clean_env, "EMUV_RUNTIME_DIR": str(tmp_path), "EMUV_KEEP_DEVICE": rules},
    )
    assert done.returncode == 0, done.stderr
    assert ("warning: --keep-device has no effect" in done.stderr) == warned


def test_emuv_run_hands_the_rules_on(clean_env: dict[str, str], tmp_path: Path) -> None:
    code = (
        "from tests.integration.shim_child import *\n"
        "d = started()\nd.new('cuMemAlloc_v2', 32 * MIB)\n"
        "answer(codes=[d.code('cuMemAlloc_v2', byref(c_uint64()), n * MIB) for n in (1, 3)])"
    )
    options = ["--sim", "--vram", "32MiB", "--virtual", "64MiB", "--keep-device", "<=2MiB,libnccl"]
    child = finish(
        [sys.executable, "-c", LAUNCH, *options, "--", sys.executable, "-c", code],
        {**clean_env, "EMUV_RUNTIME_DIR": str(tmp_path), "EMUV_SIM_CONTEXT": "0"},
    )
    assert child.answer == {"codes": [2, 0]}
