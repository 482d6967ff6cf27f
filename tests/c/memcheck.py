# SPDX-License-Identifier: GPL-2.0-only
"""Whole programs under valgrind's memcheck, with the libraries as they are shipped (make valgrind).

It sees what sanitizers do not: a value that was never set.  Threads that work past their
budget, forks in the middle of it, children by fork, vfork, posix_spawn and exec with the
interposer preloaded.  Leaks are the sanitizers' business (test_sanitized_sim.py): in a
forked child what belonged to other threads is lost, as it must be.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.c.programs import compile_program, sanitized_env
from tests.conftest import LIBRARY, ROOT, SIMULATOR, built, run

HERE = ROOT / "tests" / "c"
PROGRAMS = ROOT / "tests" / "integration" / "programs"
MIB = 2**20
FOUND = 99
VALGRIND = ["-q", f"--error-exitcode={FOUND}", "--trace-children=yes", "--fair-sched=yes"]


def main() -> int:
    """0: memcheck had nothing to say."""
    valgrind = shutil.which("valgrind")
    if not valgrind:
        print("emuv: error: no valgrind in PATH", file=sys.stderr)
        print("emuv: hint: apt-get install valgrind", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="emuv-memcheck-") as name:
        folder = Path(name)
        work, spawn = folder / "work", folder / "spawn"
        compile_program(HERE / "work_behind_shim.c", work, [])
        compile_program(PROGRAMS / "spawn.c", spawn, [])
        env = sanitized_env(folder) | {
            "EMUV_DRIVER": str(built(SIMULATOR)),
            "EMUV_VRAM": str(10 * MIB),
            "EMUV_VIRTUAL": str(6 * MIB),
            "EMUV_POLICY": "spill",
            "EMUV_SIM_VRAM": str(256 * MIB),
            "EMUV_QUIET": "1",
        }
        library = built(LIBRARY)
        cases = {f"threads, {end}": [str(work), str(library), end] for end in ("free", "keep")}
        for how in ("fork", "vfork", "posix", "exec"):
            cases[how] = [str(spawn), how, str(work), str(library), "free"]
        broken = 0
        for title, command in cases.items():
            preload = {} if "," in title else {"LD_PRELOAD": str(library)}
            done = run([valgrind, *VALGRIND, *command], env | preload, 300, folder)
            broken += done.returncode != 0
            said = "errors" if done.returncode else "nothing"
            print(f"memcheck: {title}: {said}", flush=True)
            if done.returncode:
                print(done.stderr[-6000:], file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    os.environ.pop("LD_PRELOAD", None)
    sys.exit(main())
