# SPDX-License-Identifier: GPL-2.0-only
"""The conformance suite once more, on a simulated GPU built with ASan and UBSan.

Python itself is not instrumented, so the sanitizers' run times are preloaded
and leaks (Python's own, at exit) are not looked for.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run


def runtime(name: str) -> str:
    """Where the compiler keeps one of its sanitizers' libraries."""
    command = [os.environ.get("CC", "gcc"), f"-print-file-name={name}"]
    return subprocess.run(
        command, capture_output=True, text=True, check=True, timeout=20
    ).stdout.strip()


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_conformance_under_sanitizers(tmp_path: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_", "PYTEST_"))}
    places = [f"--build-temp={tmp_path / 'temp'}", f"--build-lib={tmp_path / 'lib'}"]
    build = [sys.executable, "setup.py", "build_ext", *places]
    flags = {"EMUV_SANITIZE": "address,undefined", "EMUV_CFLAGS": "-fno-sanitize-recover=all -O1"}
    done = run(build, {**env, **flags}, 180, ROOT)
    assert done.returncode == 0, done.stderr
    sim = tmp_path / "lib" / "emuv_shim" / "_lib" / "sim" / "libcuda.so.1"
    env |= {
        "EMUV_CONFORMANCE_SIM": str(sim),
        "LD_PRELOAD": f"{runtime('libasan.so')} {runtime('libubsan.so')}",
        # Into files: pytest holds on to what dies with it on stderr.
        "ASAN_OPTIONS": f"detect_leaks=0:log_path={tmp_path / 'report'}",
        "UBSAN_OPTIONS": f"print_stacktrace=1:log_path={tmp_path / 'report'}",
    }
    suite = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
    # NVRTC, which makes the images of test_cubins, does not compile beside ASan.
    # What generated code computes is no business of the sanitizers: it is not theirs.
    without = [f"--ignore=tests/conformance/test_{name}.py" for name in ("cubins", "ptx_numerics")]
    done = run([*suite, "tests/conformance", *without], env, 240, ROOT)
    reports = "".join(p.read_text() for p in tmp_path.glob("report.*"))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:] + reports[:4000]
    assert reports == ""
    passed = re.search(r"(\d+) passed", done.stdout)
    assert passed is not None
    assert int(passed[1]) > 100


@pytest.mark.slow
@pytest.mark.timeout(200)
def test_threads_under_the_thread_sanitizer(tmp_path: Path) -> None:
    parts = [ROOT / "csrc" / part for part in ("sim", "sim/ptx", "sim/kernel", "common")]
    library, program = tmp_path / "libcuda.so.1", tmp_path / "threads_on_sim"
    common = [os.environ.get("CC", "gcc"), "-std=gnu17", "-g", "-O1", "-w", "-fsanitize=thread"]
    common += ["-pthread", '-DEMUV_VERSION="test"', "-fno-strict-aliasing"]
    made = [*common, *(f"-I{part}" for part in parts), f"-I{ROOT / 'csrc'}", "-fPIC", "-shared"]
    made += ["-fvisibility=hidden", "-ftls-model=initial-exec", "-Wl,-Bsymbolic,-z,defs"]
    made += [str(source) for part in parts for source in sorted(part.glob("*.[cS]"))]
    done = run([*made, "-o", str(library), "-ldl", "-lm"], os.environ, 120, ROOT)
    assert done.returncode == 0, done.stderr
    source = str(ROOT / "tests/c/threads_on_sim.c")
    done = run([*common, source, "-o", str(program), "-ldl"], os.environ, 60, ROOT)
    assert done.returncode == 0, done.stderr
    env = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_"))}
    done = run([str(program), str(library)], env | {"TSAN_OPTIONS": "halt_on_error=1"}, 60)
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr[-4000:]
