# SPDX-License-Identifier: GPL-2.0-only
"""The interposer and the simulated GPU built with sanitizers, under whole programs.

The conformance suite runs once more on a simulated GPU with ASan and UBSan.  Python
itself is not instrumented, so the sanitizers' run times are preloaded there and leaks
(Python's own, at exit) are not looked for; programs in C are, to the last byte.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.c.programs import (
    SANITIZERS,
    compile_library,
    compile_program,
    fixed_addresses,
    sanitized_env,
)
from tests.conftest import ROOT, run

HERE = ROOT / "tests" / "c"
MIB = 2**20


class Built(NamedTuple):
    """Both libraries, under one sanitizer."""

    sanitizer: str
    shim: Path
    sim: Path


def runtime(name: str) -> str:
    """Where the compiler keeps one of its sanitizers' libraries."""
    command = [os.environ.get("CC", "gcc"), f"-print-file-name={name}"]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()


@pytest.fixture(scope="module", params=sorted(SANITIZERS))
def built(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Built:
    """The two libraries, in a folder of their own."""
    folder, sanitizer = tmp_path_factory.mktemp("sanitized"), request.param
    shim, sim = folder / "libemuv.so", folder / "sim" / "libcuda.so.1"
    sim.parent.mkdir()
    flags = SANITIZERS[sanitizer].split()
    compile_library(["shim"], shim, flags)
    compile_library(["sim", "sim/ptx", "sim/kernel"], sim, flags)
    return Built(sanitizer, shim, sim)


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("built", ["address"], indirect=True)
def test_conformance_under_sanitizers(built: Built, tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_", "PYTEST_"))}
    env |= {
        "EMUV_CONFORMANCE_SIM": str(built.sim),
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        # Into files: pytest holds on to what dies with it on stderr.
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={tmp_path / 'report'}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={tmp_path / 'report'}",
    }
    suite = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    # NVRTC, which makes the images of test_cubins, does not compile beside ASan.
    # What generated code computes is no business of the sanitizers: it is not theirs.
    without = [f"--ignore=tests/conformance/test_{name}.py" for name in ("cubins", "ptx_numerics")]
    # ASan's shadow alone is larger than the address spaces of these.
    without += ["--deselect=tests/conformance/test_kernels_errors.py::test_a_small_address_space"]
    small = ("test_a_limited_address_space", "test_an_address_space_that_is_too_small")
    without += [f"--deselect=tests/conformance/test_arena.py::{name}" for name in small]
    done = run([*suite, "tests/conformance", *without], env, 240, ROOT)
    reports = "".join(p.read_text() for p in tmp_path.glob("report.*"))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:] + reports[:4000]
    assert reports == ""
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 100


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_threads_on_the_simulated_gpu(built: Built, tmp_path: Path) -> None:
    program = tmp_path / "threads_on_sim"
    compile_program(HERE / "threads_on_sim.c", program, SANITIZERS[built.sanitizer].split())
    command = [*fixed_addresses(built.sanitizer), program, built.sim]
    done = run(command, sanitized_env(tmp_path), 60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "done\n", "")


@pytest.mark.slow
@pytest.mark.timeout(200)
@pytest.mark.parametrize("end", ["free", "keep", "free, shared"])
def test_work_behind_the_interposer(built: Built, tmp_path: Path, end: str) -> None:
    """Two processes of four threads past their budgets, or the one that they share; nothing
    races, nothing is lost at exit.

    What is still allocated at exit is the driver's: of emuV's own memory, every byte is
    freed or reachable.
    """
    program = tmp_path / "work_behind_shim"
    compile_program(HERE / "work_behind_shim.c", program, SANITIZERS[built.sanitizer].split())
    env = sanitized_env(tmp_path) | {
        "EMUV_DRIVER": str(built.sim),
        "EMUV_VRAM": str(10 * MIB),
        "EMUV_VIRTUAL": str(6 * MIB),
        "EMUV_POLICY": "spill",
        "EMUV_SIM_VRAM": str(256 * MIB),
        "EMUV_QUIET": "1",
    }
    if end.endswith("shared"):
        env |= {"EMUV_SHARED": "1", "EMUV_RUN": "both"}
    command = [*fixed_addresses(built.sanitizer), program, built.shim, end]
    done = run(command, env, 120, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-6000:]
    assert re.fullmatch(r"\d+ granted, \d+ refused\n", done.stdout)
    assert done.stderr == ""
    assert list(tmp_path.glob("*.seg")) == []
