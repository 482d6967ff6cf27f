# SPDX-License-Identifier: GPL-2.0-only
"""The house rules that a tool can check: ruff, mypy --strict, C without warnings, headers."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tests.conftest import ROOT, WARNINGS, run

SPDX = "SPDX-License-Identifier: GPL-2.0-only"
SOURCES = (".c", ".h", ".S", ".def", ".py")
LONGEST = 600  # lines; at this length a file has a seam


def own_files() -> list[Path]:
    """The project's sources: tracked by git, or (in an unpacked sdist) all there are."""
    if shutil.which("git") and (ROOT / ".git").exists():
        listed = subprocess.run(
            ["git", "-c", f"safe.directory={ROOT}", "ls-files", "-z"],
            cwd=ROOT, capture_output=True, text=True, check=True, timeout=20,
        ).stdout.split("\0")
        paths = [ROOT / name for name in listed if name]
    else:
        parts = ("csrc", "emuv_shim", "tests", "benchmarks", "examples", ".ci")
        paths = [p for part in parts for p in (ROOT / part).rglob("*")] + [ROOT / "setup.py"]
    return [p for p in paths if p.suffix in SOURCES and p.is_file()]


def test_ruff() -> None:
    done = run([sys.executable, "-m", "ruff", "check", "--no-cache", "."], os.environ, 60, ROOT)
    assert done.returncode == 0, done.stdout


def test_mypy_strict() -> None:
    done = run([sys.executable, "-m", "mypy"], os.environ, 110, ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def test_c_compiles_without_a_warning(tmp_path: Path) -> None:
    sources = sorted((ROOT / "csrc").rglob("*.c"))
    assert len(sources) > 5

    def warnings(source: Path) -> str:
        includes = [f"-I{ROOT / 'csrc' / part}" for part in ("", "common")]
        command = [
            os.environ.get("CC", "gcc"),
            # Some warnings need the optimiser's view; no object is kept.
            *("-std=gnu17", "-O2", "-pthread", *WARNINGS, "-Werror", "-fPIC"),
            *("-fvisibility=hidden", "-ftls-model=initial-exec", *includes, f"-I{source.parent}"),
            *("-c", str(source), "-o", str(tmp_path / f"{source.parent.name}-{source.stem}.o")),
        ]
        return run(command, os.environ, 60).stderr

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        assert [text for text in pool.map(warnings, sources) if text] == []


def test_every_source_states_its_licence() -> None:
    files = own_files()
    assert len(files) > 20
    bare = [
        str(p.relative_to(ROOT))
        for p in files
        if p.stat().st_size and SPDX not in "".join(p.read_text().splitlines()[:2])
    ]
    assert bare == []


def test_no_file_outgrows_a_head() -> None:
    # driver_api.def is generated, a list of facts.
    long = {
        str(p.relative_to(ROOT)): n
        for p in own_files()
        if p.name != "driver_api.def" and (n := p.read_text().count("\n")) > LONGEST
    }
    assert long == {}
