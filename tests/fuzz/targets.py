# SPDX-License-Identifier: GPL-2.0-only
"""The harnesses of tests/fuzz, fuzz_*.c, and how one is built and run.

Each names what it is linked with, and where its corpus is:

    // link: csrc/shim/config.c
    // corpus: tests/fuzz/corpus/config

Two things drive them: driver.c, with gcc, anywhere; and clang's libFuzzer, which
looks for inputs that reach code that none reached before.
"""

from __future__ import annotations

import os
from pathlib import Path

from tests.c.programs import SANITIZERS, compile_program, listed, sanitized_env
from tests.conftest import ROOT, Completed, run

HERE = ROOT / "tests" / "fuzz"
HARNESSES = sorted(HERE.glob("fuzz_*.c"))


def corpora(harness: Path) -> list[Path]:
    """The folders of a harness's inputs."""
    return [ROOT / name for name in listed(harness, "corpus")]


def build(harness: Path, folder: Path, libfuzzer: bool = False) -> Path:
    """The program, under the address and undefined-behaviour sanitizers."""
    program = folder / harness.stem
    flags = SANITIZERS["address"].split()
    if libfuzzer:
        clang = os.environ.get("CLANG", "clang")
        compile_program(harness, program, [*flags, "-fsanitize=fuzzer"], compiler=clang)
    else:
        compile_program(harness, program, flags, [HERE / "driver.c"])
    return program


def fuzz(program: Path, harness: Path, seconds: float, seed: int = 1) -> Completed:
    """Run driver.c over the harness's corpus; the input at work stays in `fuzz-input`."""
    env = sanitized_env(program.parent) | {"FUZZ_SECONDS": str(seconds), "FUZZ_SEED": str(seed)}
    return run([program, *corpora(harness)], env, 60 + 2 * seconds, cwd=program.parent)
