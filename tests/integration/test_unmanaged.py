# SPDX-License-Identifier: GPL-2.0-only
"""`emuv ps` and `emuv info` show who is on the cards beside emuV's programs, where NVML tells."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emuv_shim import _nvml
from tests.conftest import Compiler, Runner, run
from tests.integration.test_emuv_cli import parsed
from tests.integration.test_nvml import nvml, running

MIB = 1 << 20
ShimEnv = Callable[..., dict[str, str]]
UUID = "GPU-0badc0de-5673-416d-8a1c-0d2f5b9764c8"
# One card and the users that FAKE_USERS says: "pid:bytes" of compute, "g:pid:bytes" of graphics.
FAKE = r"""
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "nvml_abi.h"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
const int emuv_sim_nvml = 1;  /* so that pids are believed in any pid namespace */
nvmlReturn_t nvmlInit_v2(void)
{
    while (getenv("FAKE_HANGS"))
        pause();
    return getenv("FAKE_FAILS") ? NVML_ERROR_UNKNOWN : NVML_SUCCESS;
}
nvmlReturn_t nvmlShutdown(void) { return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *n) { *n = 1; return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int i, nvmlDevice_t *d)
{ (void)i; *d = (nvmlDevice_t)8; return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m)
{ (void)d; *m = (nvmlMemory_t){ 1 << 30, 1 << 30, 0 }; return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *text, unsigned int n)
{ (void)d; snprintf(text, n, "UUID"); return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t d, char *text, unsigned int n)
{ (void)d; snprintf(text, n, "a card"); return NVML_SUCCESS; }
static nvmlReturn_t list(int graphics, unsigned int *n, nvmlProcessInfo_t *rows)
{
    char text[4096], *at;
    unsigned int found = 0;
    snprintf(text, sizeof text, "%s", getenv("FAKE_USERS") ? getenv("FAKE_USERS") : "");
    for (at = strtok(text, ","); at && found < *n; at = strtok(NULL, ","))
        if ((at[0] == 'g') == graphics) {
            rows[found] = (nvmlProcessInfo_t){ 0 };
            sscanf(at + 2 * graphics, "%u:%llu", &rows[found].pid, &rows[found].usedGpuMemory);
            found++;
        }
    *n = found;
    return NVML_SUCCESS;
}
nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t d, unsigned int *n, nvmlProcessInfo_t *rows)
{ (void)d; return list(0, n, rows); }
nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t d, unsigned int *n, nvmlProcessInfo_t *rows)
{ (void)d; return list(1, n, rows); }
""".replace('"UUID"', f'"{UUID}"')  # noqa: E501


@pytest.fixture
def fake(cc: Compiler) -> Path:
    """A machine's NVML that says what it is told."""
    return cc(FAKE, shared=True, name="libnvidia-ml")


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """A process that has nothing to do with emuV."""
    program = subprocess.Popen(["sleep", "60"])
    yield program
    program.kill()
    program.wait(20)


def test_who_else_is_on_the_card(
    emuv: Runner, fake: Path, shim_env: ShimEnv, stranger: subprocess.Popen[bytes]
) -> None:
    with running(nvml(shim_env(vram=64 * MIB)), "started(); answer(pid=os.getpid())") as (_, mine):
        users = [(mine["pid"], 5 * MIB), (stranger.pid, 300 * MIB), (4194999, 2**64 - 1)]
        text = ",".join(f"{pid}:{size}" for pid, size in users) + f",g:{stranger.pid}:{2**64 - 1}"
        env = {"EMUV_NVML": str(fake), "FAKE_USERS": text}
        listing = parsed(emuv("ps", "--json", env=env).stdout, "ps")
        table = emuv("ps", env=env)
        info = parsed(emuv("info", "--sim", "--json", env=env).stdout, "info")
        shown = emuv("info", env=env)

    here = {"nvml_index": 0, "uuid": UUID}
    assert listing["unmanaged"] == [
        {"pid": stranger.pid, "name": "sleep", "used_bytes": 300 * MIB, **here},
        {"pid": 4194999, "name": "", "used_bytes": None, **here},
    ]
    assert [process["pid"] for process in listing["processes"]] == [mine["pid"]]
    for done in (table, shown):
        (line,) = (row for row in done.stdout.splitlines() if str(stranger.pid) in row)
        assert line.split() == [str(stranger.pid), "sleep", "0", "300", "MiB", "not", "managed"]
        assert sum(str(mine["pid"]) in row for row in done.stdout.splitlines()) == 1
    # The simulated machine has its own NVML, which knows emuV's programs only.
    assert info["unmanaged"] == []


def test_nobody_runs_under_emuv(
    emuv: Runner, fake: Path, stranger: subprocess.Popen[bytes]
) -> None:
    done = emuv("ps", env={"EMUV_NVML": str(fake), "FAKE_USERS": f"{stranger.pid}:{MIB}"})
    assert "no process runs under emuV" in done.stderr
    assert "not managed" in done.stdout
    quiet = emuv("ps", env={"EMUV_NVML": str(fake)})
    assert quiet.stdout == ""


@pytest.mark.parametrize("how", ["none", "fails", "bad path"])
def test_without_nvml_nothing_changes(emuv: Runner, fake: Path, how: str) -> None:
    env = {
        "none": {"LD_LIBRARY_PATH": ""},
        "fails": {"EMUV_NVML": str(fake), "FAKE_FAILS": "1"},
        "bad path": {"EMUV_NVML": "/nonexistent/libnvidia-ml.so.1"},
    }[how]
    done = emuv("ps", "--json", env=env)
    assert done.returncode == 0
    if how != "none":  # a machine that runs the tests may have one
        assert parsed(done.stdout, "ps")["unmanaged"] is None
    assert ("EMUV_NVML=" in done.stderr) == (how == "bad path")


def test_an_nvml_that_never_answers(clean_env: dict[str, str], fake: Path) -> None:
    code = f"from emuv_shim import _nvml; print(_nvml.ask({str(fake)!r}, wait_s=0.05))"
    done = run([sys.executable, "-c", code], {**clean_env, "FAKE_HANGS": "1"}, 30)
    assert (done.returncode, done.stdout) == (0, "None\n"), done.stderr


def test_it_is_the_machines_word_under_an_outer_run(emuv_run: Runner) -> None:
    # GIVEN a shell under a budget THEN emuV's own commands see the card, not the budget
    code = (
        "from emuv_shim import _nvml, _driver; import os;"
        "print(_nvml.ask(os.environ['EMUV_NVML'], users=True));"
        "print(_nvml._open(os.environ['EMUV_NVML']).nvmlShutdown())"
    )
    env = {"EMUV_SIM_VRAM": str(256 * MIB)}
    done = emuv_run("--sim", "-q", "--vram", "32MiB", "--", sys.executable, "-c", code, env=env)
    assert f"total_bytes={256 * MIB}" in done.stdout, done.stderr
    assert done.stdout.endswith("\n1\n")  # NVML_ERROR_UNINITIALIZED: nothing is left open
    inner = [sys.executable, "-m", "emuv_shim", "run", "--dry-run", "--vram", "50%", "true"]
    done = emuv_run("--sim", "-q", "--vram", "32MiB", "--", *inner, env=env)
    assert f"export EMUV_VRAM={128 * MIB}\n" in done.stdout, done.stderr


def test_pids_of_another_namespace_are_not_guessed(monkeypatch: pytest.MonkeyPatch) -> None:
    card = _nvml.Card(0, UUID, "a card", 1 << 30, (_nvml.User(os.getpid(), 5),))
    monkeypatch.setattr(_nvml, "_INIT_PID_NAMESPACE", 1)
    assert _nvml.unmanaged(_nvml.Answer((card,), False), []) is None
    assert _nvml.unmanaged(None, []) is None
    found = _nvml.unmanaged(_nvml.Answer((card,), True), [1])
    assert found is not None and [row.pid for row in found] == [os.getpid()]
    assert json.dumps(found[0].to_json())
