# SPDX-License-Identifier: GPL-2.0-only
"""A program that nvcc built, on the simulated GPU: its PTX runs, its machine code does not."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Runner, run

SOURCE = Path(__file__).parent / "programs" / "reduce.cu"


@pytest.fixture
def program(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """reduce.cu, built for the code asked for, with libcudart as a shared library."""
    if not shutil.which("nvcc"):
        pytest.skip("no nvcc here")
    made = tmp_path / "reduce"
    command = ["nvcc", "-arch=compute_80", f"-code={request.param}", "-cudart", "shared", "-o"]
    subprocess.run([*command, made, SOURCE], check=True, timeout=100)
    return made


@pytest.fixture
def env(sim_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    return {**sim_env, "XDG_CACHE_HOME": str(tmp_path / "cache")}


@pytest.mark.parametrize("program", ["sm_80,compute_80"], indirect=True)
def test_ptx_beside_machine_code(
    program: Path, env: dict[str, str], emuv_run: Runner, tmp_path: Path
) -> None:
    done = run([program], env, 60)
    assert (done.returncode, done.stdout) == (0, "100000 right\n"), done.stderr
    # AND within a budget that takes a quarter of its memory
    done = emuv_run(
        "--sim", "--quiet", "--vram", "200KiB", "--virtual", "16MiB", "--", program,
        env={"XDG_CACHE_HOME": str(tmp_path / "cache")},
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (0, "100000 right\n"), done.stderr


@pytest.mark.parametrize("program", ["sm_80"], indirect=True)
def test_machine_code_alone(program: Path, env: dict[str, str]) -> None:
    done = run([program], env, 60)
    assert (done.returncode, done.stdout) == (1, "cudaGetLastError(): 209\n")
    assert "was not run: it is machine code of an NVIDIA GPU" in done.stderr
    done = run([program], {**env, "EMUV_SIM_UNKNOWN_KERNELS": "touch"}, 60)
    assert (done.returncode, done.stdout) == (0, "0 wrong\n")
    assert done.stderr.count("computes nothing") == 2
