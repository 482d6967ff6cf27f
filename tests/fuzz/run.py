# SPDX-License-Identifier: GPL-2.0-only
"""Fuzz for minutes (make fuzz): every harness, FUZZ_SECONDS (60) each, or those that are named.

    run.py [fuzz_ptx …]

With clang and its libFuzzer where they are installed, else with driver.c.  What is found
on the way stays in build/fuzz; an input that breaks something is there as crash-… (or,
of driver.c, fuzz-input).  Mend it, and keep the input in tests/fuzz/corpus.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent.parent))

from tests.c.programs import sanitized_env
from tests.conftest import ROOT, run
from tests.fuzz.targets import HARNESSES, build, corpora, fuzz

# Longer inputs are slow and find nothing that shorter ones do not.
LONGEST = 20000
SLOWEST_S = 20


def clang_fuzz(program: Path, harness: Path, seconds: float) -> tuple[int, str]:
    """libFuzzer's exit status, and what it said last."""
    found = program.parent / "corpus"
    found.mkdir(exist_ok=True)
    command = [str(program), f"-max_total_time={seconds:.0f}", f"-max_len={LONGEST}",
               f"-timeout={SLOWEST_S}", "-rss_limit_mb=4096", "-print_final_stats=1",
               "-verbosity=0", str(found), *map(str, corpora(harness))]  # fmt: skip
    done = run(command, sanitized_env(program.parent), seconds + 120, cwd=program.parent)
    return done.returncode, done.stderr


def main() -> int:
    """0: nothing broke."""
    seconds = float(os.environ.get("FUZZ_SECONDS", "60"))
    wanted = sys.argv[1:]
    broken = []
    for harness in HARNESSES:
        if wanted and harness.stem not in wanted:
            continue
        folder = ROOT / "build" / "fuzz" / harness.stem
        folder.mkdir(parents=True, exist_ok=True)
        try:
            program, by = build(harness, folder, libfuzzer=True), "libFuzzer"
            status, said = clang_fuzz(program, harness, seconds)
            inputs = [line.split()[-1] for line in said.splitlines() if "executed_units" in line]
            figures = f"{inputs[-1] if inputs else 0} inputs"
        except (AssertionError, FileNotFoundError):  # no clang, or it has no libFuzzer
            program, by = build(harness, folder), "driver.c"
            done = fuzz(program, harness, seconds, seed=time.time_ns())
            status, said, figures = done.returncode, done.stderr, done.stdout.strip()
        print(f"{harness.stem}: {figures} ({by}){'' if status == 0 else ', broken'}", flush=True)
        if status:
            print(said[-6000:], file=sys.stderr)
            broken.append(harness.stem)
    print(f"broken: {', '.join(broken) or 'nothing'}")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
