# SPDX-License-Identifier: GPL-2.0-only
"""Builds and runs tests/c/test_*.c, each under two sets of sanitizers.

Each file is a program of its own; it names the modules that it is linked with
in its first lines, paths from the repository's root:

    // link: csrc/shim/ledger.c csrc/sim/ptx/*.c
    // sanitize: address                 (only these runs; default both)

It passes by exit status 0 within the limit; a sanitizer's report fails it.
FUZZ_SECONDS (4): how long those run that try random things.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.conftest import ROOT, WARNINGS, run

HERE = ROOT / "tests" / "c"
SANITIZERS = {
    "address": "-fsanitize=address,undefined -fno-sanitize-recover=all",
    # The seqlock's fences are beyond gcc's thread sanitizer, which then warns.
    "thread": "-fsanitize=thread -Wno-tsan",
}
LIMIT_S = 60


def listed(path: Path, key: str) -> list[str]:
    """The words after `// key:` in the head of a test."""
    lines = path.read_text().splitlines()[:12]
    return [w for line in lines if (m := re.match(rf"// {key}: (.*)", line)) for w in m[1].split()]


def cases() -> list[tuple[Path, str]]:
    """Every (test, sanitizer)."""
    return [
        (path, name)
        for path in sorted(HERE.glob("test_*.c"))
        for name in SANITIZERS
        if name in (listed(path, "sanitize") or SANITIZERS)
    ]


@pytest.mark.parametrize(("source", "sanitizer"), cases(), ids=lambda v: getattr(v, "stem", v))
def test_c_module(source: Path, sanitizer: str, tmp_path: Path) -> None:
    program = tmp_path / source.stem
    modules = [path for name in listed(source, "link") for path in sorted(ROOT.glob(name))]
    includes = [f"-I{ROOT / 'csrc' / part}" for part in ("", "common", "shim", "sim")]
    command = [
        os.environ.get("CC", "gcc"),
        *("-std=gnu17", "-g", "-O1", "-pthread", "-fno-omit-frame-pointer", *WARNINGS, "-Werror"),
        # As libemuv.so is built: what is tested is what is shipped.
        '-DEMUV_VERSION="test"',
        *("-fno-strict-aliasing", "-ftls-model=initial-exec"),
        *SANITIZERS[sanitizer].split(),
        *includes,
        *map(str, [source, *modules]),
        *("-o", str(program), "-ldl", "-lm"),
    ]
    done = run(command, os.environ, 120)
    assert done.returncode == 0, done.stderr
    # gcc's thread sanitizer cannot live with a widely randomised address space.
    fixed = [shutil.which("setarch") or "setarch", "-R"] if sanitizer == "thread" else []
    env = {
        **{k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_"))},
        "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
        "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
        "EMUV_RUNTIME_DIR": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }
    limit = LIMIT_S + float(os.environ.get("FUZZ_SECONDS", "0"))
    done = run([*fixed, program], env, limit, cwd=tmp_path)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
