# SPDX-License-Identifier: GPL-2.0-only
"""Processes in a pid namespace of their own that see the outer /proc.

There getpid() answers 1 for every first process, while readers know it by another
number: segments must neither collide nor outlive their processes.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import Runner, entry_point, run

PROGRAM = """
import ctypes, sys
cu = ctypes.CDLL("libcuda.so.1")
context, device = ctypes.c_void_p(), ctypes.c_int()
assert cu.cuInit(0) == 0
assert cu.cuDevicePrimaryCtxRetain(ctypes.byref(context), device) == 0
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.fixture
def unshare(clean_env: dict[str, str]) -> list[str]:
    """The command that starts a program as process 1 of a new pid namespace."""
    command = [shutil.which("unshare") or "unshare", "--pid", "--fork", "--kill-child"]
    if run([*command, "true"], clean_env).returncode:
        pytest.skip("pid namespaces are not to be had here")
    return command


def test_each_has_a_segment_of_its_own_and_leaves_none(
    unshare: list[str], clean_env: dict[str, str], libemuv: Path, emuv: Runner
) -> None:
    # GIVEN two programs, each process 1 of its namespace, with different budgets
    launch = entry_point("emuv_shim.commands.run", "emuv-run")
    programs = [
        subprocess.Popen(
            [*unshare, *launch, "-q", "--sim", "--vram", size, "--", sys.executable, "-c", PROGRAM],
            env=clean_env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        for size in ("64MiB", "32MiB")
    ]
    try:
        for program in programs:
            assert program.stdout is not None and program.stdout.readline() == "ready\n"
        # THEN both are listed, under numbers that exist out here
        listed = json.loads(emuv("ps", "--json").stdout)["processes"]
        sizes = {entry["stats"]["devices"][0]["vram_bytes"] for entry in listed}
        assert sizes == {64 << 20, 32 << 20}
        assert all(Path(f"/proc/{entry['pid']}/stat").exists() for entry in listed)
        # WHEN one ends and one is killed
        programs[0].communicate("\n", timeout=30)
        os.killpg(programs[1].pid, signal.SIGKILL)
        programs[1].communicate(timeout=30)
        # THEN none is listed any more
        assert json.loads(emuv("ps", "--json").stdout)["processes"] == []
    finally:
        for program in programs:
            if program.poll() is None:
                os.killpg(program.pid, signal.SIGKILL)
                program.communicate(timeout=10)
