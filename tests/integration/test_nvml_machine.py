# SPDX-License-Identifier: GPL-2.0-only
"""libemuv-nvml.so over a machine's NVML that says what the simulated one never does."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Compiler, run
from tests.integration.test_nvml import UUIDS, ask
from tests.integration.test_nvml_shown import MIB, NVML, ShimEnv, shown_env

__all__ = ["shown_env"]
Fake = Callable[..., Path]
MIG = "MIG-0badc0de-5673-416d-8a1c-0d2f5b9764c8"
# A card of 1000 MiB; in every list of users process 1, with 9 bytes, and the asking one.
SOURCE = """
#include <stdio.h>
#include <unistd.h>
#include "nvml_abi.h"
#pragma GCC diagnostic ignored "-Wmissing-prototypes"
const int emuv_sim_nvml = 1; /* so that pids are believed in any pid namespace */
nvmlReturn_t nvmlInitWithFlags(unsigned int flags) { return (nvmlReturn_t)flags; }
nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *n) { *n = 1; return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int i, nvmlDevice_t *d)
{ *d = (nvmlDevice_t)8; return i ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *text, unsigned int n)
{ (void)d; snprintf(text, n, "%s", UUID); return NVML_SUCCESS; }
nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m)
{ (void)d; *m = (nvmlMemory_t){ 1000 << 20, 900 << 20, 100 << 20 }; return NVML_SUCCESS; }
#define FILL(rows, n)                                                                  \
    do {                                                                               \
        (rows)[0].pid = 1, (rows)[0].usedGpuMemory = 9;                                \
        (rows)[1].pid = (unsigned int)getpid(), (rows)[1].usedGpuMemory = 7;           \
        (n) = 2;                                                                       \
    } while (0)
#define LIST(name, type)                                                               \
    nvmlReturn_t nvmlDeviceGet##name(nvmlDevice_t d, unsigned int *n, type *rows)      \
    { (void)d; FILL(rows, *n); return NVML_SUCCESS; }
#define LISTS(kind)                                                                    \
    LIST(kind##RunningProcesses, nvmlProcessInfo_v1_t)                                 \
    LIST(kind##RunningProcesses_v2, nvmlProcessInfo_v2_t)                              \
    LIST(kind##RunningProcesses_v3, nvmlProcessInfo_t)
LISTS(Compute)
LISTS(Graphics)
LISTS(MPSCompute)
nvmlReturn_t nvmlDeviceGetRunningProcessDetailList(nvmlDevice_t d, nvmlProcessDetailList_v1_t *list)
{ (void)d; FILL(list->procArray, list->numProcArrayEntries); return NVML_SUCCESS; }
"""


@pytest.fixture
def fake(cc: Compiler) -> Fake:
    """That NVML, whose card has a UUID."""

    def make(uuid: str) -> Path:
        text = SOURCE.replace("UUID)", f'"{uuid}")')
        return cc(text, shared=True, name="libnvidia-ml")

    return make


def test_every_list_and_version(shown_env: ShimEnv, fake: Fake) -> None:
    code = """
        d = started()
        d.new("cuMemAlloc_v2", 8 * MIB)
        h, lists = n.nvmlDeviceGetHandleByIndex(0), {}
        for version, words in (("", 2), ("_v2", 3), ("_v3", 3)):
            for kind in ("Compute", "Graphics", "MPSCompute"):
                rows, count = (ctypes.c_uint64 * 64)(), c_uint(8)
                call = getattr(n.nvmlLib, f"nvmlDeviceGet{kind}RunningProcesses{version}")
                code = call(h, byref(count), rows)
                lists[kind + version] = [code, count.value, *rows[:2], *rows[words:words + 2]]
        rows = (n.c_nvmlProcessDetail_v1_t * 8)()
        detail = n.c_nvmlProcessDetailList_v1_t(
            version=n.nvmlProcessDetailList_v1, mode=0, numProcArrayEntries=8, procArray=rows)
        code = n.nvmlLib.nvmlDeviceGetRunningProcessDetailList(h, byref(detail))
        lists["detail"] = [code, detail.numProcArrayEntries, rows[0].pid, rows[0].usedGpuMemory,
                           rows[1].pid, rows[1].usedGpuMemory]
        answer(lists=lists, pid=os.getpid())
    """
    got = ask({**shown_env(vram=64 * MIB), "EMUV_NVML": str(fake(UUIDS[0]))}, code)
    assert len(got["lists"]) == 10
    for name, answered in got["lists"].items():
        assert answered == [0, 2, 1, 9, got["pid"], 8 * MIB], name


@pytest.mark.parametrize(
    ("visible", "total"),
    [(None, 1000), (MIG, 64), (MIG[:12], 64), ("MIG-1", 1000), ("MIG-", 1000), ("0", 1000)],
)
def test_a_part_of_a_card(
    shown_env: ShimEnv, fake: Fake, visible: str | None, total: int
) -> None:
    """It has the budget where it is what the program will see."""
    env = {**shown_env(vram=64 * MIB), "EMUV_NVML": str(fake(MIG))}
    if visible is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible
    code = "m = n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex(0)); answer(total=m.total)"
    assert ask(env, code)["total"] == total * MIB


@pytest.mark.parametrize(
    ("virtual", "memory"), [(0, [950, 900, 50]), (50 * MIB, [1000, 1000, 0])], ids=["cap", "spill"]
)
def test_a_cap_has_no_more_than_the_card(
    shown_env: ShimEnv, fake: Fake, virtual: int, memory: list[int]
) -> None:
    """Others have 100 MiB of it: a spill goes to the host."""
    env = {**shown_env(vram=950 * MIB, virtual=virtual), "EMUV_NVML": str(fake(UUIDS[0]))}
    code = """
        m = n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex(0))
        answer(memory=[m.total // MIB, m.free // MIB, m.used // MIB])
    """
    assert ask(env, code)["memory"] == memory


def test_one_that_comes_later(shown_env: ShimEnv, tmp_path: Path) -> None:
    path = tmp_path / "libnvidia-ml.so.1"
    code = (
        "import ctypes, os; init = ctypes.CDLL('libnvidia-ml.so.1').nvmlInit_v2; print(init());"
        f"os.symlink({str(NVML)!r}, {str(path)!r}); print(init())"
    )
    done = run([sys.executable, "-c", code], {**shown_env(vram=64 * MIB), "EMUV_NVML": str(path)})
    assert done.stdout.split() == ["12", "0"], done.stderr
