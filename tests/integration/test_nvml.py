# SPDX-License-Identifier: GPL-2.0-only
"""libnvidia-ml.so.1 of the simulated machine, asked by nvidia-ml-py."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.conftest import SIMULATOR, run

MIB = 1 << 20
ShimEnv = Callable[..., dict[str, str]]
PRELUDE = "from tests.integration.nvml_child import *\nn.nvmlInit()\n"
UUIDS = [f"GPU-{i}{i}e34d75-5673-416d-8a1c-0d2f5b9764c8" for i in range(3)]


def ask(env: dict[str, str], code: str, *, status: int = 0) -> dict[str, Any]:
    """Runs a program; what it answered, and its stderr as `said`."""
    done = run([sys.executable, "-c", PRELUDE + textwrap.dedent(code)], env, 60)
    assert done.returncode == status, done.stderr
    lines = done.stdout.splitlines()
    return {"said": done.stderr, **(json.loads(lines[-1]) if lines else {})}


@contextmanager
def running(env: dict[str, str], code: str) -> Iterator[tuple[subprocess.Popen[str], Any]]:
    """A program that has answered and waits."""
    text = PRELUDE + textwrap.dedent(code) + "\nsys.stdin.read()\n"
    program = subprocess.Popen(
        [sys.executable, "-c", text],
        env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert program.stdout is not None
    try:
        line = program.stdout.readline()
        assert line, f"the program ended with {program.wait(20)}"
        yield program, json.loads(line)
    finally:
        program.kill()
        program.communicate(timeout=20)


def nvml(env: dict[str, str]) -> dict[str, str]:
    """The environment with the stand-in in reach, as emuv-run --sim makes it."""
    return {**env, "LD_LIBRARY_PATH": str(SIMULATOR.parent)}


class TestCards:
    def test_without_the_driver(self, sim_env: dict[str, str]) -> None:
        code = """
            h = n.nvmlDeviceGetHandleByIndex(1)
            v2 = n.nvmlDeviceGetMemoryInfo(h, version=n.nvmlMemory_v2)
            answer(
                count=n.nvmlDeviceGetCount(), cards=[card(i) for i in range(3)],
                uuids=[n.nvmlDeviceGetUUID(n.nvmlDeviceGetHandleByIndex(i)) for i in range(3)],
                v2=[v2.total, v2.reserved, v2.free, v2.used],
                same=[
                    n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByUUID(n.nvmlDeviceGetUUID(h))),
                    n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByPciBusId("00000000:02:00.0")),
                    n.nvmlDeviceGetIndex(n.nvmlDeviceGetHandleByPciBusId("0000:02:00.0")),
                ],
                versions=[n.nvmlSystemGetDriverVersion(), n.nvmlSystemGetCudaDriverVersion()],
                loaded=any("libcuda.so" in line for line in open("/proc/self/maps")),
            )
        """
        got = ask(
            {
                **sim_env,
                "EMUV_SIM_DEVICES": "3",
                "EMUV_SIM_VRAM": str(64 * MIB),
                "CUDA_VISIBLE_DEVICES": "2",  # NVML knows nothing of it
            },
            code,
        )
        empty = {"memory": [64 * MIB, 64 * MIB, 0], "users": []}
        assert (got["count"], got["cards"], got["uuids"]) == (3, [empty] * 3, UUIDS)
        assert got["v2"] == [64 * MIB, 0, 64 * MIB, 0]
        assert got["same"] == [1, 1, 1]
        assert got["versions"] == ["580.00", 13000]
        assert not got["loaded"] and got["said"] == ""

    def test_it_agrees_with_the_driver(self, sim_env: dict[str, str]) -> None:
        code = """
            d = started()
            h = n.nvmlDeviceGetHandleByPciBusId(text(d, "cuDeviceGetPCIBusId"))
            cc = [d.attribute(75), d.attribute(76)]
            answer(
                index=n.nvmlDeviceGetIndex(h),
                name=[n.nvmlDeviceGetName(h), text(d, "cuDeviceGetName")],
                cc=[list(n.nvmlDeviceGetCudaComputeCapability(h)), cc],
                bus=[n.nvmlDeviceGetMemoryBusWidth(h), d.attribute(37)],
                clock=[n.nvmlDeviceGetMaxClockInfo(h, n.NVML_CLOCK_SM) * 1000, d.attribute(13)],
                pci=n.nvmlDeviceGetPciInfo(h).bus, first=d.attribute(33),
                mode=[n.nvmlDeviceGetComputeMode(h), d.attribute(20)],
            )
        """
        got = ask({**sim_env, "EMUV_SIM_DEVICES": "3", "CUDA_VISIBLE_DEVICES": "2,0"}, code)
        assert got["index"] == 2 and got["pci"] == got["first"] == 3
        assert all(a == b for a, b in (got[k] for k in ("name", "cc", "bus", "clock", "mode")))

    def test_what_is_not_known_is_not_supported(self, sim_env: dict[str, str]) -> None:
        code = """
            h = n.nvmlDeviceGetHandleByIndex(0)
            answer(
                readings=[refusal(*call) for call in [
                    ("nvmlDeviceGetTemperature", h, 0), ("nvmlDeviceGetPowerUsage", h),
                    ("nvmlDeviceGetFanSpeed", h), ("nvmlDeviceGetClockInfo", h, 0),
                    ("nvmlDeviceGetUtilizationRates", h), ("nvmlDeviceGetBAR1MemoryInfo", h),
                    ("nvmlDeviceGetMigMode", h), ("nvmlDeviceGetPerformanceState", h),
                    ("nvmlDeviceGetNvLinkState", h, 0), ("nvmlDeviceGetSerial", h),
                    ("nvmlDeviceGetTotalEccErrors", h, 0, 0), ("nvmlEventSetCreate",),
                ]],
                fields=[f.nvmlReturn for f in n.nvmlDeviceGetFieldValues(h, [82, 138])],
                modes=[n.nvmlDeviceGetPersistenceMode(h), n.nvmlDeviceGetEccMode(h),
                       n.nvmlDeviceIsMigDeviceHandle(h).value, n.nvmlUnitGetCount()],
            )
        """
        got = ask(sim_env, code)
        assert got["readings"] == ["NotSupported"] * 12
        assert got["fields"] == [3, 3]
        assert got["modes"] == [0, [0, 0], 0, 0]

    def test_wrong_arguments(self, sim_env: dict[str, str]) -> None:
        code = """
            h = n.nvmlDeviceGetHandleByIndex(0)
            old = n.c_nvmlMemory_v2_t(); old.version = 7
            lib = n.nvmlLib
            room = ctypes.create_string_buffer(4)
            answer(
                errors=[
                    refusal("nvmlDeviceGetHandleByIndex", 1),
                    refusal("nvmlDeviceGetHandleByUUID", "GPU-1"),
                    refusal("nvmlDeviceGetHandleByPciBusId", "0000:07:00.0"),
                    refusal("nvmlDeviceGetHandleByPciBusId", "nonsense"),
                    refusal("nvmlSystemGetProcessName", 0),
                ],
                codes=[
                    lib.nvmlDeviceGetName(h, room, 4), lib.nvmlDeviceGetName(h, None, 64),
                    lib.nvmlDeviceGetMemoryInfo_v2(h, byref(old)),
                    lib.nvmlDeviceGetMemoryInfo(h, None), lib.nvmlDeviceGetCount_v2(None),
                    lib.nvmlDeviceGetIndex(ctypes.c_void_p(12), byref(c_uint())),
                ],
                words=[n.nvmlErrorString(i) for i in (0, 3, 998)],
            )
        """
        got = ask(sim_env, code)
        assert got["errors"] == [
            "InvalidArgument", "NotFound", "NotFound", "InvalidArgument", "NotFound",
        ]  # fmt: skip
        assert got["codes"] == [7, 2, 25, 2, 2, 2]
        assert got["words"] == ["it worked", "not supported by this device", "an unknown error"]

    def test_init_is_counted(self, sim_env: dict[str, str]) -> None:
        code = """
            n.nvmlInit()
            n.nvmlShutdown()
            between = n.nvmlDeviceGetCount()
            n.nvmlShutdown()
            answer(between=between, after=[
                refusal("nvmlDeviceGetCount"), refusal("nvmlShutdown"),
                refusal("nvmlEventSetCreate"),
            ])
        """
        got = ask(sim_env, code)
        assert got["between"] == 1
        assert got["after"] == ["Uninitialized"] * 3

    def test_settings_that_make_no_sense(self, sim_env: dict[str, str]) -> None:
        got = ask({**sim_env, "EMUV_SIM_VRAM": "8GiB"}, "", status=1)
        assert 'emuv-sim: error: EMUV_SIM_VRAM="8GiB" is not a number from' in got["said"]
        assert "NVMLError_Unknown" in got["said"]


class TestUsers:
    def test_a_process_sees_its_own_card(self, sim_env: dict[str, str], shim_env: ShimEnv) -> None:
        code = """
            before = card(0)
            d = started(1)
            context = [card(0), card(2)]
            p = d.new("cuMemAlloc_v2", 24 * MIB)
            full = card(0)
            free, total = d.memory_info()
            lists = [
                [(x.pid, x.usedGpuMemory) for x in getattr(n, f"nvmlDeviceGet{kind}")(
                    n.nvmlDeviceGetHandleByIndex(0))]
                for kind in ("ComputeRunningProcesses_v2", "ComputeRunningProcesses_v3",
                             "GraphicsRunningProcesses", "MPSComputeRunningProcesses")
            ]
            d.cuMemFree_v2(p)
            answer(before=before, context=context, full=full, seen=[total, free], lists=lists,
                   after=card(0), pid=os.getpid())
        """
        env = {
            "EMUV_SIM_DEVICES": "3",
            "CUDA_VISIBLE_DEVICES": "2,0",
            "EMUV_SIM_VRAM": str(64 * MIB),
            "EMUV_SIM_CONTEXT": str(4 * MIB),
        }
        # GIVEN somebody else on a simulated card of his own
        with running({**nvml(shim_env(card=64 * MIB)), **env}, "started(); answer()"):
            got = ask({**sim_env, **env}, code)
        # WHEN the process has begun THEN it is alone, and the figures are the driver's
        pid = got["pid"]
        assert got["context"] == [
            {"memory": [64 * MIB, 60 * MIB, 4 * MIB], "users": [[pid, 4 * MIB]]},
            {"memory": [64 * MIB, 64 * MIB, 0], "users": []},
        ]
        assert got["full"]["users"] == [[pid, 28 * MIB]]
        assert got["full"]["memory"][:2] == got["seen"]
        assert got["lists"] == [[[pid, 28 * MIB]]] * 2 + [[]] * 2
        assert got["after"] == got["context"][0]

    def test_a_monitor_sees_the_programs_under_emuv(
        self, clean_env: dict[str, str], shim_env: ShimEnv
    ) -> None:
        look = "answer(cards=[card(i) for i in range(n.nvmlDeviceGetCount())], me=os.getpid())"
        take = 'd = started({0}); d.new("cuMemAlloc_v2", {1} * MIB); answer(pid=os.getpid())'
        program = nvml(shim_env(vram=128 * MIB, card=128 * MIB))
        program["EMUV_SIM_DEVICES"] = "2"
        # GIVEN two programs, one of which counts the cards the other way round
        with (
            running(program, take.format(0, 100)) as (one, first),
            running({**program, "CUDA_VISIBLE_DEVICES": "1,0"}, take.format(1, 60)) as (_, second),
        ):
            # WHEN a process without settings looks
            got = ask(nvml(clean_env), look)["cards"]
            # THEN it sees both on the first card, which cannot hold more than it has
            assert got == [
                {
                    "memory": [128 * MIB, 0, 128 * MIB],
                    "users": sorted([[first["pid"], 100 * MIB], [second["pid"], 60 * MIB]]),
                },
                {"memory": [128 * MIB, 128 * MIB, 0], "users": []},
            ]
            # AND the dead vanish, though nobody cleaned up after them
            one.send_signal(signal.SIGKILL)
            one.wait(20)
            (left, _) = ask(nvml(clean_env), look)["cards"]
            assert left["users"] == [[second["pid"], 60 * MIB]]
            assert left["memory"] == [128 * MIB, 68 * MIB, 60 * MIB]

    def test_a_forked_child_is_no_user(self, shim_env: ShimEnv) -> None:
        code = """
            d = started()
            d.new("cuMemAlloc_v2", 8 * MIB)
            r, w = os.pipe()
            child = os.fork()
            if child == 0:
                os.write(w, json.dumps(card(0)["users"]).encode())
                os._exit(0)
            os.waitpid(child, 0)
            answer(seen=json.loads(os.read(r, 1000)), pid=os.getpid())
        """
        got = ask(nvml(shim_env(vram=64 * MIB)), code)
        assert got["seen"] == [[got["pid"], 8 * MIB]]

    def test_segments_are_a_strangers(
        self, clean_env: dict[str, str], shim_env: ShimEnv, runtime_dir: Path
    ) -> None:
        # GIVEN a live segment, a copy that claims more than there can be, and rubbish
        with running(nvml(shim_env(vram=64 * MIB, card=64 * MIB)), "started(); answer()"):
            (real,) = runtime_dir.glob("*.seg")
            page = bytearray(real.read_bytes())
            counters = 1056
            for at in (8, 16, 32, 40):  # card, device, resident, overhead
                struct.pack_into("<Q", page, counters + at, (1 << 64) - 1)
            (runtime_dir / "1-1.seg").write_bytes(page)
            struct.pack_into("<Q", page, counters + 144, (1 << 64) - 1)  # no such bus
            (runtime_dir / "2-1.seg").write_bytes(page)
            for name in ("1-1.seg", "2-1.seg"):
                os.chmod(runtime_dir / name, 0o600)
            (runtime_dir / "3-1.seg").symlink_to("/dev/zero")
            os.mkfifo(runtime_dir / "4-1.seg")
            (runtime_dir / "5-1.seg").write_bytes(b"x" * 40)
            # WHEN a monitor looks THEN the sizes are a card's at most, and nothing hangs
            got = ask(nvml(clean_env), "answer(count=n.nvmlDeviceGetCount(), card=card(0))")
        assert got["count"] == 1
        total, free, used = got["card"]["memory"]
        assert total == used == 1 << 44 and free == 0
        assert sorted(b for _, b in got["card"]["users"]) == [0, 1 << 44]
