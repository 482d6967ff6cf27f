# SPDX-License-Identifier: GPL-2.0-only
"""Compile csrc with clang, as strictly as with gcc, and run clang's static analyser over it.

    analyze.py [BUILD_FOLDER]        (make analyze)

Exit status 0: no warning, no finding.  setup.py builds and leaves each command beside
its object; the analyser gets the same command.  A source whose object has not changed
since it was found clean is not looked at again.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CLANG = os.environ.get("CLANG", "clang")
ANALYSER = ["--analyze", "--analyzer-output", "text", "-Xclang", "-analyzer-werror"]
# Checks that this code cannot pass, and why.
WITHOUT: dict[str, str] = {}


def build(folder: Path) -> int:
    """All libraries with clang -Werror, away from the tree's own."""
    places = [f"--build-temp={folder / 'temp'}", f"--build-lib={folder / 'lib'}"]
    env = {**os.environ, "CC": CLANG, "EMUV_CFLAGS": "-Werror", "EMUV_SANITIZE": ""}
    command = [sys.executable, "setup.py", "-q", "build_ext", *places]
    return subprocess.run(command, cwd=ROOT, env=env, timeout=600, check=False).returncode


def commands(folder: Path) -> dict[str, tuple[list[str], Path]]:
    """By source: the command that compiled it, without its outputs, and the object."""
    found = {}
    for record in sorted(folder.glob("temp/*/*.c.o.cmd")):
        words = shlex.split(record.read_text())
        source = words[words.index("-c") + 1]
        words = words[: words.index("-MMD")]
        if (ROOT / source).exists():
            found[source] = (words, record.with_suffix(""))
    return found


def analyse(source: str, words: list[str], made: Path) -> str:
    """What the analyser says of one source; "" is nothing."""
    mark = made.with_suffix(".clean")
    if mark.exists() and mark.stat().st_mtime_ns >= made.stat().st_mtime_ns:
        return ""
    without = [f"-analyzer-disable-checker={check}" for check in WITHOUT]
    without = [word for option in without for word in ("-Xclang", option)]
    done = subprocess.run(
        [*words, *ANALYSER, *without, source],
        cwd=ROOT, capture_output=True, text=True, timeout=300, check=False,
    )
    if done.returncode == 0 and not done.stderr:
        mark.touch()
        return ""
    return done.stderr or f"{source}: the analyser ended with {done.returncode}"


def main() -> int:
    """Build, analyse, print what there is."""
    if not shutil.which(CLANG):
        print(f"emuv: error: no '{CLANG}' in PATH", file=sys.stderr)
        print("emuv: hint: apt-get install clang", file=sys.stderr)
        return 2
    folder = Path(*sys.argv[1:] or [ROOT / "build" / "clang"])
    if status := build(folder):
        return status
    sources = commands(folder)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        said = list(pool.map(lambda source: analyse(source, *sources[source]), sources))
    findings = [text for text in said if text]
    for text in findings:
        print(text, file=sys.stderr)
    print(f"emuv: clang: {len(sources)} sources, {len(findings)} with findings", file=sys.stderr)
    return 1 if findings or not sources else 0


if __name__ == "__main__":
    sys.exit(main())
