# SPDX-License-Identifier: GPL-2.0-only
"""The house rules that a tool can check: ruff, mypy --strict, C without warnings, headers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT, run

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


@pytest.mark.timeout(400)
def test_c_compiles_without_a_warning(tmp_path: Path) -> None:
    # By setup.py itself: with the very flags that are shipped.  Where the build at hand was
    # made so (.ci/run), that is what it shows; else one is made elsewhere.
    built = "-Werror" in os.environ.get("EMUV_CFLAGS", "")
    folder = ROOT / "build" if built else tmp_path
    options = ["--inplace"] if built else [f"--build-temp={folder}", f"--build-lib={folder}"]
    env = {**os.environ, "EMUV_CFLAGS": "-Werror", "EMUV_SANITIZE": ""}
    done = run([sys.executable, "setup.py", "build_ext", *options], env, 360, ROOT)
    assert done.returncode == 0, done.stderr
    objects = {p.name for p in folder.rglob("*.c.o")}
    sources = {"_".join(p.relative_to(ROOT).parts) for p in (ROOT / "csrc").rglob("*.c")}
    assert {f"{name}.o" for name in sources} - objects == set()


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


def test_links_between_documents_lead_somewhere() -> None:
    def anchors(path: Path) -> set[str]:
        titles = re.findall(r"^#+ (.+)$", path.read_text(), re.M)
        words = (re.sub(r"[^\w\- ]", "", title.lower()) for title in titles)
        return {word.replace(" ", "-") for word in words}

    broken = []
    for page in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")]:
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            name, _, anchor = link.partition("#")
            target = (page.parent / name).resolve() if name else page
            if "://" in link:
                continue
            if not target.exists() or (anchor and anchor not in anchors(target)):
                broken.append(f"{page.name}: {link}")
    assert broken == []
