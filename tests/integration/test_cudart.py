# SPDX-License-Identifier: GPL-2.0-only
"""The libcudart stand-ins: what they do (cudart_cases.py), and how programs come by them."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.conftest import ROOT, Compiler, Runner, run
from tests.integration.cli_tools import MIB

CASES = ROOT / "tests" / "integration" / "cudart_cases.py"
KERNEL_CASES = CASES.with_name("cudart_kernel_cases.py")
NEED_AN_ARGUMENT = {"beyond_the_budget"}
NAMES = [
    name
    for name in re.findall(r"^def (\w+)\(rt: Runtime", CASES.read_text(), re.M)
    if name not in {"pointer", *NEED_AN_ARGUMENT}
]
KERNEL_NAMES = [
    name
    for name in re.findall(r"^def (\w+)\(rt: Runtime", KERNEL_CASES.read_text(), re.M)
    if name != "made"
]
MAJORS = (12, 13)


def in_child(env: Mapping[str, str], major: int, case: str, file: Path = CASES) -> str:
    """Runs a case; its stderr."""
    done = run([sys.executable, str(file), str(major), case], env, 60)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stderr


@pytest.fixture
def two_cards(sim_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """Two simulated cards of 256 MiB; the stand-ins by the search path."""
    return {
        **sim_env,
        "EMUV_SIM_DEVICES": "2",
        "EMUV_SIM_VRAM": str(256 * MIB),
        "XDG_CACHE_HOME": str(tmp_path / "cache"),
    }


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("case", NAMES)
def test_case(two_cards: dict[str, str], major: int, case: str) -> None:
    in_child(two_cards, major, case)


@pytest.fixture(scope="module")
def compiled(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A cache for the one kernel of all cases: who comes first compiles it."""
    return str(tmp_path_factory.mktemp("kernels"))


@pytest.mark.parametrize("major", MAJORS)
@pytest.mark.parametrize("case", KERNEL_NAMES)
def test_kernel_case(two_cards: dict[str, str], compiled: str, major: int, case: str) -> None:
    said = in_child({**two_cards, "XDG_CACHE_HOME": compiled}, major, case, KERNEL_CASES)

    lines = [line for line in said.splitlines() if "machine code" in line]
    assert len(lines) == (case == "launches_that_cannot_be"), said


@pytest.mark.parametrize("major", MAJORS)
def test_report_counts_what_was_called(
    two_cards: dict[str, str], tmp_path: Path, major: int
) -> None:
    env = {**two_cards, "EMUV_SIM_CUDART_REPORT": str(tmp_path / "%v.json")}
    in_child(env, major, "refusals")
    report = json.loads((tmp_path / f"{major}.json").read_text())

    assert report["runtime_version"] // 1000 == major
    assert report["calls"]["cudaMalloc"] == 1
    assert report["unimplemented"] == {"cudaCreateTextureObject": 1}
    assert [p.name for p in tmp_path.glob("*.json")] == [f"{major}.json"], "used ones report"


def test_no_driver_has_its_own_error(
    sim: Path, clean_env: dict[str, str], tmp_path: Path
) -> None:
    (tmp_path / "libcudart.so.13").symlink_to(sim.parent / "libcudart.so.13")
    code = (
        "import ctypes as c; r = c.CDLL('libcudart.so.13'); n = c.c_int(5); v = c.c_int(5)\n"
        "print(r.cudaGetDeviceCount(c.byref(n)), n.value, r.cudaGetLastError(),\n"
        "      r.cudaDriverGetVersion(c.byref(v)), v.value)"
    )
    done = run([sys.executable, "-c", code], {**clean_env, "LD_LIBRARY_PATH": str(tmp_path)}, 30)

    assert done.stdout.split() == ["35", "0", "35", "0", "0"]


class TestUnderEmuvRun:
    @pytest.mark.parametrize("major", MAJORS)
    def test_budget_is_an_out_of_memory_error(self, emuv_run: Runner, major: int) -> None:
        done = emuv_run(
            "--sim", "-q", "--vram", "64MiB", "--", sys.executable, CASES, str(major),
            "beyond_the_budget", "20",
        )  # fmt: skip
        answer = json.loads(done.stdout)

        assert (answer["held"], answer["code"]) == (8, 2)
        assert (answer["total"], answer["free"]) == (64 * MIB, 0)

    @pytest.mark.parametrize("major", MAJORS)
    def test_what_exceeds_it_spills(
        self, emuv_run: Runner, tmp_path: Path, major: int
    ) -> None:
        stats = tmp_path / "stats.json"
        done = emuv_run(
            "--sim", "-q", "--vram", "64MiB", "--virtual", "64MiB", "--stats", stats, "--",
            sys.executable, CASES, str(major), "beyond_the_budget", "20",
        )  # fmt: skip
        answer = json.loads(done.stdout)
        (process,) = json.loads(stats.read_text())["processes"]

        assert (answer["held"], answer["code"]) == (16, 2)
        assert process["devices"][0]["spilled_bytes"] == 64 * MIB

    def test_stand_in_comes_before_a_programs_own_rpath(
        self, emuv_run: Runner, cc: Compiler, tmp_path: Path
    ) -> None:
        script = tmp_path / "versions.map"
        script.write_text("libcudart.so.13 { global: cuda*; local: *; };\n")
        other = cc(
            "int cudaRuntimeGetVersion(int *v);\n"
            "int cudaRuntimeGetVersion(int *v) { *v = -1; return 0; }\n",
            flags=["-Wl,-soname,libcudart.so.13", f"-Wl,--version-script={script}"],
            name="other", shared=True,
        )  # fmt: skip
        (tmp_path / "libcudart.so.13").symlink_to(other)
        program = cc(
            "#include <stdio.h>\nint cudaRuntimeGetVersion(int *v);\n"
            'int main(void) { int v = 0; cudaRuntimeGetVersion(&v); printf("%d", v); return 0; }\n',
            flags=[f"-L{tmp_path}", "-Wl,-rpath", f"-Wl,{tmp_path}", "-Wl,--disable-new-dtags"],
            libs=[":libcudart.so.13"],
        )  # fmt: skip

        assert run([program], os.environ, 10).stdout == "-1"
        assert emuv_run("--sim", "-q", program).stdout == "13000"

    def test_both_versions_in_one_process_are_two_libraries(self, emuv_run: Runner) -> None:
        code = (
            "import ctypes as c; v = c.c_int()\n"
            "for n in (12, 13):\n"
            "    c.CDLL(f'libcudart.so.{n}').cudaRuntimeGetVersion(c.byref(v)); print(v.value)"
        )
        done = emuv_run("--sim", "-q", "--", sys.executable, "-c", code)

        assert [int(line) // 1000 for line in done.stdout.split()] == [12, 13]

    def test_program_without_cuda_loads_no_driver(self, emuv_run: Runner, sim: Path) -> None:
        maps = emuv_run("--sim", "-q", "cat", "/proc/self/maps").stdout

        assert str(sim.parent / "libcudart.so.13") in maps
        assert str(sim) not in maps

    def test_dry_run_names_them(self, emuv_run: Runner, sim: Path) -> None:
        shown = emuv_run("--sim", "--dry-run", "true").stdout

        (line,) = [line for line in shown.splitlines() if "LD_PRELOAD" in line]
        assert str(sim.parent / "libcudart.so.12") in line

