# SPDX-License-Identifier: GPL-2.0-only
"""What the verbs show where the terminal is narrow or knows few characters."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Compiler, Runner
from tests.integration.cli_tools import GIB, MIB, build_shell, started

NAME = "a name of some length"


@pytest.mark.parametrize("columns", [1, 20, 40, 80])
def test_no_pid_and_no_size_is_cut(
    emuv: Runner, clean_env: dict[str, str], cc: Compiler, libemuv: Path, columns: int
) -> None:
    program = build_shell(cc)
    with started(
        clean_env, program, "--vram", "64MiB", "--virtual", "1GiB", "--name", NAME
    ) as running:
        assert running.ask(f"a {48 * MIB}") == "0"
        narrow = {"COLUMNS": str(columns)}
        shown = emuv("ps", env=narrow).stdout, emuv("info", env=narrow).stdout
        stats = emuv("stats", str(running.pid), env=narrow).stdout

    for table in shown:
        (line,) = (row for row in table.splitlines() if f"{running.pid} " in row)
        for cell in ("0 (sim)", "64 MiB + 1024 MiB", "spill", "48 MiB"):
            assert f" {cell} " in line
        assert set(NAME.split()) <= set(table.split())  # folded, not cut
    assert "64 MiB + 1024 MiB" in stats
    assert "free, as the program sees it" in stats
    assert f"{GIB // MIB + 16} MiB" in stats


def test_a_wide_terminal_is_used(
    emuv: Runner, clean_env: dict[str, str], cc: Compiler, libemuv: Path
) -> None:
    with started(clean_env, build_shell(cc), "--vram", "64MiB", "--name", NAME) as running:
        assert running.ask(f"a {MIB}") == "0"
        (line,) = (r for r in emuv("ps").stdout.splitlines() if str(running.pid) in r)

    assert f"   {NAME}   " in line


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8:strict"])
def test_few_characters_are_no_failure(
    emuv: Runner,
    emuv_run: Runner,
    clean_env: dict[str, str],
    cc: Compiler,
    libemuv: Path,
    encoding: str,
) -> None:
    few = {"PYTHONIOENCODING": encoding}
    with started(clean_env, build_shell(cc), "--vram", "64MiB", "--name", "a→b") as running:
        assert running.ask(f"a {MIB}") == "0"
        pid = str(running.pid)
        asked = [("ps",), ("info", "--sim"), ("stats", pid), ("doctor", pid)]
        asked += [("set", pid, "--vram", "65MiB"), ("doctor", "--sim")]
        for args in asked:
            done = emuv(*args, env=few)
            assert (done.returncode, "Traceback" in done.stderr) == (0, False), args
            assert done.stdout
    plan = emuv_run("--dry-run", "--sim", "echo", "→\udcff", env=few)

    assert plan.returncode == 0, plan.stderr
    assert "exec echo " in plan.stdout
