# SPDX-License-Identifier: GPL-2.0-only
"""Builds and runs tests/c/test_*.c, each under two sets of sanitizers.

Each file is a program of its own; it names the modules that it is linked with
in its first lines, paths from the repository's root:

    // link: csrc/shim/ledger.c csrc/sim/ptx/*.c
    // sanitize: address                 (only these runs; default both)

It passes by exit status 0 within the limit; a sanitizer's report fails it."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.c.programs import SANITIZERS, compile_program, fixed_addresses, listed, sanitized_env
from tests.conftest import ROOT, run

HERE = ROOT / "tests" / "c"
LIMIT_S = 60


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
    compile_program(source, program, SANITIZERS[sanitizer].split())
    command = [*fixed_addresses(sanitizer), program]
    done = run(command, sanitized_env(tmp_path), LIMIT_S, cwd=tmp_path)
    assert done.returncode == 0, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
