# SPDX-License-Identifier: GPL-2.0-only
"""What the verbs show where the terminal is narrow or knows few characters."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Compiler, Runner, entry_point, run
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


def verbs(pid: int) -> list[list[str]]:
    return [
        ["ps"], ["ps", "--json"], ["stats", str(pid)], ["info", "--sim"], ["doctor", str(pid)],
        ["set", str(pid), "--vram", "1GiB"], ["--help"],
        ["run", "--sim", "--dry-run", "--", "true"],
    ]  # fmt: skip


def test_a_stdout_that_is_closed_or_read_no_further(
    clean_env: dict[str, str], cc: Compiler, libemuv: Path
) -> None:
    """No traceback; the effect is there; and nobody takes 1 for "refused"."""
    emuv = entry_point("emuv_shim.commands", "emuv")
    with started(clean_env, build_shell(cc), "--vram", "64MiB") as running:
        assert running.ask(f"a {MIB}") == "0"
        for args in verbs(running.pid):
            closed = run(["sh", "-c", 'exec "$@" >&-', "sh", *emuv, *args], clean_env)
            assert (closed.returncode, closed.stderr) == (0, ""), args
            reader, writer = os.pipe()
            os.close(reader)
            with subprocess.Popen(
                [*emuv, *args], env=clean_env, stdout=writer, stderr=subprocess.PIPE, text=True
            ) as child:
                os.close(writer)
                said = child.communicate(timeout=30)[1]
            assert (child.returncode, said) == (141, ""), args
        done = run([*emuv, "ps", "--json"], clean_env)
        (process,) = json.loads(done.stdout)["processes"]
        assert process["stats"]["devices"][0]["vram_bytes"] == GIB


@pytest.mark.parametrize("name", ["emuv", "emuv_run"])
def test_ctrl_c_while_it_is_still_importing(
    clean_env: dict[str, str], tmp_path: Path, name: str
) -> None:
    # GIVEN a key press in the midst of the imports
    stop = "import os, signal; os.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "click.py").write_text(stop + "print('went on')\nraise SystemExit(0)\n")
    code = f"import sys; from emuv_shim._start import {name}; sys.exit({name}())"
    path = os.pathsep.join([str(tmp_path), clean_env["PYTHONPATH"]])
    env = {**clean_env, "PYTHONPATH": path}
    # THEN it ends as any program does, and says nothing
    done = run([sys.executable, "-c", code], env)
    assert (done.returncode, done.stdout, done.stderr) == (-signal.SIGINT, "", "")
    # AND not where the key is not meant for it
    done = run(["sh", "-c", 'trap "" INT; exec "$@"', "sh", sys.executable, "-c", code], env)
    assert (done.returncode, done.stdout) == (0, "went on\n")


def test_ctrl_c_once_it_has_begun(clean_env: dict[str, str], tmp_path: Path) -> None:
    code = (
        "import os, signal, sys\n"
        "from emuv_shim import _start, _segment\n"
        "_segment.locate_directory = lambda **_: os.kill(os.getpid(), signal.SIGINT)\n"
        "sys.argv = ['emuv', 'ps']\n"
        "sys.exit(_start.emuv())"
    )
    done = run([sys.executable, "-c", code], clean_env)
    assert (done.returncode, done.stderr.lstrip()) == (130, "emuv: error: interrupted\n")
