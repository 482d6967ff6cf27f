# SPDX-License-Identifier: GPL-2.0-only
"""libemuv-nvml.so: NVML as a program under emuV sees it, asked by nvidia-ml-py.

What it shows of a card that has a budget is what cuMemGetInfo says; everything else is
the machine's NVML, here the simulated machine's.
"""

from __future__ import annotations

import difflib
import json
import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from emuv_shim import _segment
from tests.conftest import ROOT, SIMULATOR, Compiler, Runner, built, run
from tests.integration.test_nvml import PRELUDE, UUIDS, ask, running

MIB = 1 << 20
ShimEnv = Callable[..., dict[str, str]]
SHOWN = ROOT / "emuv_shim" / "_lib" / "libemuv-nvml.so"
NVML = SIMULATOR.parent / "libnvidia-ml.so.1"
LOOK = "answer(cards=[card(i) for i in range(n.nvmlDeviceGetCount())], me=os.getpid())"
CONTEXT = {"EMUV_SIM_CONTEXT": str(4 * MIB)}


@pytest.fixture
def shown_env(shim_env: ShimEnv) -> ShimEnv:
    """`shim_env` as the launcher makes it where there is an NVML; all of them are one run."""

    def make(**options: Any) -> dict[str, str]:
        env = shim_env(**options)
        env["LD_PRELOAD"] += f":{built(SHOWN)}"
        return {**env, "EMUV_NVML": str(NVML), "EMUV_RUN": "0123456789abcdef"}

    return make


class TestOneProcess:
    def test_it_is_what_cuda_says(self, shown_env: ShimEnv) -> None:
        code = """
            first = card(0)
            loaded = any("sim/libcuda.so" in line for line in open("/proc/self/maps"))
            d = started()
            context = agreed(d)
            p = d.new("cuMemAlloc_v2", 40 * MIB)
            plain = agreed(d)
            q = d.new("cuMemAlloc_v2", 40 * MIB)
            spilled = agreed(d)
            v2 = n.nvmlDeviceGetMemoryInfo(n.nvmlDeviceGetHandleByIndex(0), n.nvmlMemory_v2)
            d.cuMemFree_v2(p); d.cuMemFree_v2(q)
            answer(first=first, loaded=loaded, context=context, plain=plain, spilled=spilled,
                   v2=[v2.total, v2.reserved, v2.free, v2.used], back=agreed(d), pid=os.getpid())
        """
        got = ask(shown_env(vram=64 * MIB, virtual=64 * MIB, **CONTEXT), code)
        pid = got["pid"]
        # Before cuInit: the budget, and no driver is loaded for it.
        assert got["first"] == {"memory": [128 * MIB, 128 * MIB, 0], "users": []}
        assert not got["loaded"]
        for moment in ("context", "plain", "spilled", "back"):
            assert got[moment]["memory"] == got[moment]["cuda"], moment
        assert got["plain"]["memory"] == [128 * MIB, 84 * MIB, 44 * MIB]
        assert got["plain"]["users"] == [[pid, 44 * MIB]]
        # Spilled: 84 MiB are used, and 64 of them are on the card.
        assert got["spilled"]["memory"] == [128 * MIB, 44 * MIB, 84 * MIB]
        assert got["spilled"]["users"] == [[pid, 64 * MIB]]
        assert got["v2"] == [128 * MIB, 0, 44 * MIB, 84 * MIB]
        assert got["back"] == got["context"]

    def test_every_version_of_the_lists(self, shown_env: ShimEnv) -> None:
        code = """
            d = started()
            d.new("cuMemAllocManaged", 80 * MIB, 1)  # more than the budget: stays on the host
            h = n.nvmlDeviceGetHandleByIndex(0)
            lists = {}
            for version in ("", "_v2", "_v3"):
                for kind in ("Compute", "Graphics", "MPSCompute"):
                    call = getattr(n.nvmlLib, f"nvmlDeviceGet{kind}RunningProcesses{version}")
                    room = (ctypes.c_uint64 * 64)()
                    count = c_uint(16)
                    code = call(h, byref(count), room)
                    lists[kind + version] = [code, count.value, room[0], room[1]]
            detail = n.nvmlDeviceGetRunningProcessDetailList(h, n.nvmlProcessDetailList_v1, 0)
            few = c_uint(0)
            answer(lists=lists, detail=[[p.pid, p.usedGpuMemory] for p in detail],
                   few=[n.nvmlLib.nvmlDeviceGetComputeRunningProcesses_v3(h, byref(few), None),
                        few.value],
                   books=books()["physical_bytes"], pid=os.getpid())
        """
        got = ask(shown_env(vram=64 * MIB, virtual=64 * MIB, **CONTEXT), code)
        mine = [got["pid"], got["books"]]
        for version in ("", "_v2", "_v3"):
            assert got["lists"]["Compute" + version] == [0, 1, *mine]
            assert got["lists"]["Graphics" + version][:2] == [0, 0]
            assert got["lists"]["MPSCompute" + version][:2] == [0, 0]
        assert got["detail"] == [mine]
        assert got["few"] == [7, 1]

    @pytest.mark.parametrize("name", ["libnvidia-ml.so", "libnvidia-ml.so.1", "the path"])
    def test_however_it_is_opened(self, shown_env: ShimEnv, name: str) -> None:
        code = """
            lib = ctypes.CDLL(os.environ["NAME"])
            h, m = ctypes.c_void_p(), n.c_nvmlMemory_t()
            codes = [lib.nvmlInit_v2(), lib.nvmlDeviceGetHandleByIndex_v2(0, byref(h)),
                     lib.nvmlDeviceGetMemoryInfo(h, byref(m))]
            answer(codes=codes, total=m.total)
        """
        path = str(NVML) if name == "the path" else name
        got = ask({**shown_env(vram=32 * MIB), "NAME": path}, code)
        assert got == {"said": "", "codes": [0, 0, 0], "total": 32 * MIB}

    def test_as_pytorch_asks(self, shown_env: ShimEnv) -> None:
        # c10's allocator, when it is out of memory: the card by CUDA's bus id, the users by
        # the first form of the list; and torch.cuda's functions, by UUID and by index.
        code = """
            d = started(1)
            d.new("cuMemAlloc_v2", 24 * MIB)
            lib = ctypes.CDLL("libnvidia-ml.so.1", ctypes.RTLD_LOCAL)
            h, rows, count = ctypes.c_void_p(), (ctypes.c_uint64 * 16)(), c_uint(8)
            bus = text(d, "cuDeviceGetPCIBusId", 1).encode()
            codes = [lib.nvmlDeviceGetHandleByPciBusId_v2(bus, byref(h)),
                     lib.nvmlDeviceGetComputeRunningProcesses(h, byref(count), rows)]
            memory = [n.nvmlDeviceGetMemoryInfo(handle) for handle in (
                n.nvmlDeviceGetHandleByUUID(uuid(d, 1)),
                n.nvmlDeviceGetHandleByPciBusId(bus.decode()), n.nvmlDeviceGetHandleByIndex(0),
            )]
            answer(codes=codes, users=list(rows[:2 * count.value]), pid=os.getpid(),
                   used=[m.used for m in memory], total=[m.total for m in memory])
        """
        env = shown_env(vram=f"0={16 * MIB},1={32 * MIB}", EMUV_SIM_DEVICES="2")
        got = ask({**env, "CUDA_VISIBLE_DEVICES": "1,0"}, code)
        assert got["codes"] == [0, 0]
        assert got["users"] == [got["pid"], 24 * MIB]
        assert got["used"] == [24 * MIB] * 3
        assert got["total"] == [32 * MIB] * 3

    def test_in_a_namespace_of_its_own(self, shown_env: ShimEnv) -> None:
        code = """
            d = started()
            d.new("cuMemAlloc_v2", 8 * MIB)
            loader = ctypes.CDLL(None)
            loader.dlmopen.restype = loader.dlsym.restype = ctypes.c_void_p
            lib = loader.dlmopen(ctypes.c_long(-1), os.environ["EMUV_NVML"].encode(), os.RTLD_NOW)
            def call(name, *args):
                at = loader.dlsym(ctypes.c_void_p(lib), name.encode())
                return ctypes.CFUNCTYPE(c_int)(at)(*args)
            h, m = ctypes.c_void_p(), n.c_nvmlMemory_t()
            codes = [call("nvmlInit_v2"), call("nvmlDeviceGetHandleByIndex_v2", 0, byref(h)),
                     call("nvmlDeviceGetMemoryInfo", h, byref(m))]
            ours = loader.dlsym(ctypes.c_void_p(lib), b"emuv_nvml_library")
            answer(codes=codes, memory=[m.total, m.free], other=ours != ctypes.addressof(
                ctypes.c_char.in_dll(n.nvmlLib, "emuv_nvml_library")))
        """
        got = ask(shown_env(vram=32 * MIB), code)
        assert got["codes"] == [0, 0, 0] and got["other"], got
        assert got["memory"] == [32 * MIB, 24 * MIB]

    def test_linked(self, shown_env: ShimEnv, cc: Compiler) -> None:
        source = """
            #include <stdio.h>
            #include "nvml_abi.h"
            nvmlReturn_t nvmlInit_v2(void);
            nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int, nvmlDevice_t *);
            nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t, nvmlMemory_t *);
            int main(void)
            {
                nvmlDevice_t device;
                nvmlMemory_t memory = { 0 };
                int codes = nvmlInit_v2() + nvmlDeviceGetHandleByIndex_v2(0, &device) +
                            nvmlDeviceGetMemoryInfo(device, &memory);
                printf("%d %llu\\n", codes, memory.total);
                return 0;
            }
        """
        flags = [f"-L{NVML.parent}", "-Wno-strict-prototypes"]
        program = cc(source, libs=[f":{NVML.name}"], flags=flags, name="linked")
        done = run([program], shown_env(vram=32 * MIB), 30)
        assert done.stdout == f"0 {32 * MIB}\n", done.stderr

    def test_errors_are_the_machines(self, shown_env: ShimEnv, sim_env: dict[str, str]) -> None:
        code = """
            h = n.nvmlDeviceGetHandleByIndex(0)
            old = n.c_nvmlMemory_v2_t(); old.version = 7
            lib, count, bad = n.nvmlLib, c_uint(3), ctypes.c_void_p(12)
            lists = [getattr(lib, f"nvmlDeviceGet{kind}RunningProcesses_v3")
                     for kind in ("Compute", "Graphics", "MPSCompute")]
            codes = [
                lib.nvmlDeviceGetMemoryInfo(h, None), lib.nvmlDeviceGetMemoryInfo_v2(h, None),
                lib.nvmlDeviceGetMemoryInfo_v2(h, byref(old)), lib.nvmlDeviceGetMemoryInfo(None, None),
                lib.nvmlDeviceGetMemoryInfo(bad, byref(n.c_nvmlMemory_t())),
                *[call(h, None, None) for call in lists], *[call(h, byref(count), None) for call in lists],
                lib.nvmlDeviceGetRunningProcessDetailList(h, None),
                lib.nvmlDeviceGetUUID(h, None, 96),
            ]
            n.nvmlShutdown()
            codes += [lib.nvmlDeviceGetMemoryInfo(h, byref(n.c_nvmlMemory_t()))]
            answer(codes=codes, words=n.nvmlErrorString(3).__str__())
        """  # noqa: E501
        got = ask(shown_env(vram=32 * MIB), code)
        assert got == ask(sim_env, code)
        assert set(got["codes"]) >= {1, 2, 25}

    def test_threads(self, shown_env: ShimEnv) -> None:
        code = """
            import threading
            d = started()
            context = d.new("cuCtxGetCurrent")
            wrong = []
            def worker():
                h = n.nvmlDeviceGetHandleByIndex(0)
                d.cuCtxSetCurrent(context)
                for _ in range(150):
                    p = d.new("cuMemAlloc_v2", MIB)
                    m = n.nvmlDeviceGetMemoryInfo(h)
                    if m.total != 64 * MIB or m.free + m.used != m.total or m.used > 12 * MIB:
                        wrong.append([m.total, m.free, m.used])
                    for p2 in n.nvmlDeviceGetComputeRunningProcesses(h):
                        if p2.usedGpuMemory > 12 * MIB: wrong.append(p2.usedGpuMemory)
                    d.cuMemFree_v2(p)
            workers = [threading.Thread(target=worker) for _ in range(8)]
            for w in workers: w.start()
            for w in workers: w.join()
            answer(wrong=wrong, after=agreed(d))
        """
        got = ask(shown_env(vram=64 * MIB, **CONTEXT), code)
        assert got["wrong"] == []
        assert got["after"]["memory"] == got["after"]["cuda"] == [64 * MIB, 60 * MIB, 4 * MIB]

    def test_a_budget_that_was_lowered(self, shown_env: ShimEnv) -> None:
        code = """
            from emuv_shim.controller import Controller
            d = started()
            d.new("cuMemAlloc_v2", 40 * MIB)
            def lower(vram):
                with Controller(os.environ["EMUV_RUNTIME_DIR"]) as c:
                    c.update_budget(os.getpid(), vram=vram)
                return agreed(d)
            answer(less=lower(48 * MIB), under=lower(16 * MIB))
        """
        got = ask(shown_env(vram=64 * MIB), code)
        assert got["less"]["memory"] == got["less"]["cuda"] == [48 * MIB, 8 * MIB, 40 * MIB]
        assert got["under"]["memory"] == got["under"]["cuda"] == [16 * MIB, 0, 16 * MIB]
        (entry,) = got["under"]["users"]
        assert entry[1] == 40 * MIB  # what is held, whatever the budget says

    def test_no_budget_is_the_whole_card(self, shown_env: ShimEnv) -> None:
        code = """
            first = card(0)
            d = started()
            d.new("cuMemAlloc_v2", 40 * MIB)
            answer(first=first, then=card(0), pid=os.getpid())
        """
        got = ask(shown_env(vram="none", card=256 * MIB), code)
        assert got["first"]["memory"] == [256 * MIB, 256 * MIB, 0]
        assert got["then"]["memory"] == [256 * MIB, 216 * MIB, 40 * MIB]
        assert got["then"]["users"] == [[got["pid"], 40 * MIB]]


class TestRuns:
    def test_a_forked_child_sees_the_run(self, shown_env: ShimEnv) -> None:
        code = """
            d = started()
            d.new("cuMemAlloc_v2", 40 * MIB)
            r, w = os.pipe()
            if os.fork() == 0:
                os.write(w, json.dumps(card(0)).encode())
                os._exit(0)
            os.wait()
            answer(child=json.loads(os.read(r, 1000)), parent=card(0), pid=os.getpid())
        """
        got = ask(shown_env(vram=64 * MIB), code)
        assert got["child"] == got["parent"]
        assert got["child"]["memory"] == [64 * MIB, 24 * MIB, 40 * MIB]
        assert got["child"]["users"] == [[got["pid"], 40 * MIB]]

    def test_a_monitor_of_the_run(self, shown_env: ShimEnv, clean_env: dict[str, str]) -> None:
        take = 'd = started(); d.new("cuMemAlloc_v2", {0} * MIB); answer(pid=os.getpid())'
        env = shown_env(vram=64 * MIB, virtual=64 * MIB)
        other = {**env, "EMUV_RUN": "another"}
        with (
            running(env, take.format(80)) as (_, first),
            running(env, take.format(20)) as (_, second),
            running(other, take.format(8)) as (_, third),
        ):
            # One of the run: its budget, what its processes use, and what they hold there.
            (inside,) = ask(env, LOOK)["cards"]
            assert inside["memory"] == [128 * MIB, 28 * MIB, 100 * MIB]
            assert inside["users"] == sorted(
                [[first["pid"], 64 * MIB], [second["pid"], 20 * MIB], [third["pid"], 8 * MIB]]
            )
            # Anybody else sees the machine.
            (outside,) = ask({**clean_env, "LD_LIBRARY_PATH": str(NVML.parent)}, LOOK)["cards"]
            assert outside["memory"] == [256 * MIB, 164 * MIB, 92 * MIB]
            # Two workers' budgets are one each: together they may hold more than one.
            (full,) = ask({**env, "EMUV_VIRTUAL": "0", "EMUV_POLICY": "cap"}, LOOK)["cards"]
            assert full["memory"] == [64 * MIB, 0, 64 * MIB]

    def test_a_shared_budget_that_was_lowered(self, shown_env: ShimEnv, emuv: Runner) -> None:
        env = {**shown_env(vram=64 * MIB), "EMUV_SHARED": "1"}
        take = 'd = started(); d.new("cuMemAlloc_v2", {0} * MIB); answer(seen=agreed(d))'
        with running(env, take.format(20)) as (_, one), running(env, take.format(12)) as (_, two):
            # Each sees what is left of the one budget, by CUDA and NVML alike.
            assert one["seen"]["memory"] == one["seen"]["cuda"] == [64 * MIB, 44 * MIB, 20 * MIB]
            assert two["seen"]["memory"] == two["seen"]["cuda"] == [64 * MIB, 32 * MIB, 32 * MIB]
            (before,) = ask(env, LOOK)["cards"]
            done = emuv("set", env["EMUV_RUN"], "--vram", "40MiB")
            assert done.returncode == 0, done.stderr
            (after,) = ask(env, LOOK)["cards"]
        assert before["memory"] == [64 * MIB, 32 * MIB, 32 * MIB]
        assert after["memory"] == [40 * MIB, 8 * MIB, 32 * MIB]
        assert sorted(size for _, size in after["users"]) == [12 * MIB, 20 * MIB]

    def test_damaged_segments_are_passed_over(
        self, shown_env: ShimEnv, runtime_dir: Path
    ) -> None:
        env = shown_env(vram=64 * MIB)
        with running(env, 'started().new("cuMemAlloc_v2", 8 * MIB); answer()'):
            (real,) = runtime_dir.glob("*.seg")
            (runtime_dir / "3-1.seg").symlink_to("/dev/zero")
            os.mkfifo(runtime_dir / "4-1.seg")
            (runtime_dir / "5-1.seg").write_bytes(b"x" * 40)
            (runtime_dir / "6-1.seg").write_bytes(real.read_bytes()[:-8])
            for name in ("5-1.seg", "6-1.seg"):
                os.chmod(runtime_dir / name, 0o600)
            (seen,) = ask(env, LOOK)["cards"]
        assert seen["memory"] == [64 * MIB, 56 * MIB, 8 * MIB]

    def test_figures_that_cannot_be_do_not_wrap(
        self, shown_env: ShimEnv, runtime_dir: Path
    ) -> None:
        env = shown_env(vram=64 * MIB, virtual=64 * MIB)
        ffi = _segment.native().ffi
        with running(env, 'started().new("cuMemAlloc_v2", 8 * MIB); answer()'):
            (real,) = runtime_dir.glob("*.seg")
            for name, value in (("device_bytes", 2**64 - 8 * MIB), ("managed_bytes", 8 * MIB)):
                at = ffi.offsetof("emuv_segment_t", "device")
                at += ffi.offsetof("emuv_device_counters_t", name)
                with real.open("r+b") as file:
                    os.pwrite(file.fileno(), value.to_bytes(8, "little"), at)
            (seen,) = ask(env, LOOK)["cards"]
        assert seen["memory"] == [128 * MIB, 0, 128 * MIB]

    def test_all_that_another_process_has_there(self, shown_env: ShimEnv) -> None:
        """Plain memory, a context, what its pool keeps, a graph."""
        code = """
            d = started()
            s = stream(d)
            d.new("cuMemAlloc_v2", 8 * MIB)
            pool = d.new("cuDeviceGetDefaultMemPool", 0)
            d.cuMemPoolSetAttribute(pool, 4, byref(c_uint64(2**64 - 1)))
            d.cuMemFreeAsync(d.new("cuMemAllocAsync", 32 * MIB, s), s)
            graph = c_uint64()
            d.cuStreamBeginCapture_v2(s, 0)
            d.cuMemFreeAsync(d.new("cuMemAllocAsync", 32 * MIB, s), s)
            d.cuStreamEndCapture(s, byref(graph))
            d.cuGraphLaunch(d.new("cuGraphInstantiateWithFlags", graph, 0), s)
            d.cuStreamSynchronize(s)
            answer(pid=os.getpid(), **books())
        """
        env = shown_env(vram=128 * MIB, **CONTEXT)
        with running(env, code) as (_, program):
            (seen,) = ask(env, LOOK)["cards"]
        parts = ("device", "overhead", "kept", "graph")
        assert [program[f"{part}_bytes"] // MIB for part in parts] == [8, 4, 32, 32]
        assert seen["users"] == [[program["pid"], 76 * MIB]]
        assert seen["memory"] == [128 * MIB, 84 * MIB, 44 * MIB]

    def test_each_card_has_its_own_use(self, shown_env: ShimEnv) -> None:
        code = """
            d = started()
            d.new("cuMemAlloc_v2", 8 * MIB)
            d = started(1)
            d.new("cuMemAlloc_v2", 20 * MIB)
            answer(pid=os.getpid())
        """
        env = shown_env(vram=64 * MIB, EMUV_SIM_DEVICES="2")
        with running(env, code) as (_, program):
            cards = ask(env, LOOK)["cards"]
        assert [card["memory"][2] for card in cards] == [8 * MIB, 20 * MIB]
        assert [card["users"] for card in cards] == [
            [[program["pid"], 8 * MIB]], [[program["pid"], 20 * MIB]]
        ]  # fmt: skip


class TestCards:
    # What the card of each index is to CUDA, and what is then shown of the four cards.
    @pytest.mark.parametrize(
        ("visible", "shown"),
        [
            (None, [16, 32, 48, 256]),
            ("2,0", [32, 256, 16, 256]),
            (f"{UUIDS[1]},GPU-22", [256, 16, 32, 256]),
            ("3,1,2,0", [256, 32, 48, 16]),
            ("1,9,0", [256, 16, 256, 256]),
            ("1,1", [256, 256, 256, 256]),
            ("", [256, 256, 256, 256]),
            ("MIG-00e34d75-5673-416d-8a1c-0d2f5b9764c8", [256, 256, 256, 256]),
            (f"MIG-{UUIDS[0]}/1/0", [256, 256, 256, 256]),
        ],
    )
    def test_budgets_by_device(
        self, shown_env: ShimEnv, visible: str | None, shown: list[int]
    ) -> None:
        code = """
            first = [c["memory"] for c in map(card, range(4))]
            d = Driver("libcuda.so.1")
            code = d.code("cuInit", 0)
            then = [c["memory"] for c in map(card, range(4))]
            cuda = {} if code else {
                uuid(d, i): d.new("cuDeviceTotalMem_v2", i) for i in range(d.new("cuDeviceGetCount"))
            }
            nvml = {n.nvmlDeviceGetUUID(h): n.nvmlDeviceGetMemoryInfo(h).total
                    for h in map(n.nvmlDeviceGetHandleByIndex, range(4))}
            answer(first=first, then=then, cuda=cuda, nvml=nvml)
        """  # noqa: E501
        env = shown_env(vram=f"0={16 * MIB},1={32 * MIB},2={48 * MIB}", EMUV_SIM_DEVICES="4")
        got = ask({**env, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}, code)
        assert got["first"] == got["then"] == [[s * MIB, s * MIB, 0] for s in shown]
        assert {k: got["nvml"][k] for k in got["cuda"]} == got["cuda"]

    def test_use_is_the_cards_own(self, shown_env: ShimEnv) -> None:
        code = """
            d = started(1)
            d.new("cuMemAlloc_v2", 8 * MIB)
            answer(one=agreed(d, 0), other=card(2)["memory"], hidden=card(1)["memory"])
        """
        env = shown_env(vram=f"0={16 * MIB},1={32 * MIB}", EMUV_SIM_DEVICES="3")
        got = ask({**env, "CUDA_VISIBLE_DEVICES": "2,0"}, code)
        assert got["one"]["memory"] == got["one"]["cuda"] == [32 * MIB, 24 * MIB, 8 * MIB]
        assert got["other"] == [16 * MIB, 16 * MIB, 0]
        assert got["hidden"] == [256 * MIB, 256 * MIB, 0]


class TestWithoutAPart:
    def test_without_libemuv_everything_passes(self, clean_env: dict[str, str]) -> None:
        env = {**clean_env, "LD_PRELOAD": str(built(SHOWN)), "EMUV_NVML": str(NVML),
               "EMUV_VRAM": str(16 * MIB), "EMUV_DRIVER": str(SIMULATOR)}  # fmt: skip
        (seen,) = ask(env, LOOK)["cards"]
        assert seen["memory"] == [8 << 30, 8 << 30, 0]

    @pytest.mark.parametrize("path", ["/nonexistent/libnvidia-ml.so.1", "x.so", "", str(SHOWN)])
    def test_without_the_machines_nvml(self, shown_env: ShimEnv, path: str) -> None:
        code = "import pynvml as n\ntry: n.nvmlInit()\nexcept n.NVMLError as e: print(type(e).__name__, e)"  # noqa: E501
        done = run([sys.executable, "-c", code], {**shown_env(vram=32 * MIB), "EMUV_NVML": path})
        assert done.stdout == "NVMLError_LibraryNotFound NVML Shared Library Not Found\n"
        assert done.stderr == ""

    def test_it_leaves_no_words_of_the_loader(self, shown_env: ShimEnv) -> None:
        code = """
            loader = ctypes.CDLL(None)
            loader.dlerror.restype = ctypes.c_char_p
            loader.dlerror()
            d = started()
            seen = [card(0)["memory"][0], n.nvmlLib.nvmlRetry_NvRmControl()]
            answer(seen=seen, words=str(loader.dlerror()))
        """
        got = ask(shown_env(vram=32 * MIB), code)
        assert got["seen"] == [32 * MIB, 13]  # the stand-in has no such function
        assert got["words"] == "None"

    def test_a_budget_that_cannot_be_read(self, shown_env: ShimEnv) -> None:
        (seen,) = ask(shown_env(vram="8GiB"), LOOK)["cards"]
        assert seen["memory"] == [256 * MIB, 256 * MIB, 0]

    def test_an_older_nvml(self, shown_env: ShimEnv, cc: Compiler) -> None:
        source = """
            int nvmlInitWithFlags(unsigned int flags);
            int nvmlInitWithFlags(unsigned int flags) { return (int)flags; }
        """
        old = cc(source, shared=True, name="libnvidia-ml")
        code = """
            answer(errors=[refusal("nvmlDeviceGetCount"), refusal("nvmlSystemGetDriverVersion")])
        """
        got = ask({**shown_env(vram=32 * MIB), "EMUV_NVML": str(old)}, code)
        assert got["errors"] == ["FunctionNotFound"] * 2


def test_what_the_machines_nvml_calls_itself_is_its_own(
    shown_env: ShimEnv, cc: Compiler
) -> None:
    # A library whose calls of its own functions lead to whoever comes first: here to emuV.
    source = """
        #include "nvml_abi.h"
        #include <string.h>
        #pragma GCC diagnostic ignored "-Wmissing-prototypes"
        nvmlReturn_t nvmlInitWithFlags(unsigned int flags) { return (nvmlReturn_t)flags; }
        nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int i, nvmlDevice_t *d)
        { *d = (nvmlDevice_t)8; return i ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS; }
        nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *n) { *n = 1; return NVML_SUCCESS; }
        nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t d, char *text, unsigned int n)
        { (void)d; strncpy(text, "UUID", n); return NVML_SUCCESS; }
        nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t d, nvmlMemory_v2_t *m)
        {
            (void)d;
            *m = (nvmlMemory_v2_t){ m->version, 1000 << 20, 100 << 20, 700 << 20, 200 << 20 };
            return NVML_SUCCESS;
        }
        nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t d, nvmlMemory_t *m)
        {
            nvmlMemory_v2_t known = { .version = 2 };
            nvmlReturn_t result = nvmlDeviceGetMemoryInfo_v2(d, &known);
            *m = (nvmlMemory_t){ known.total, known.free, known.used + known.reserved };
            return known.reserved == 100 << 20 ? result : NVML_ERROR_UNKNOWN;
        }
    """.replace('"UUID"', f'"{UUIDS[0]}"')
    real = cc(source, shared=True, name="libnvidia-ml", flags=["-fno-inline", "-O0"])
    code = """
        h = n.nvmlDeviceGetHandleByIndex(0)
        m, v2 = n.nvmlDeviceGetMemoryInfo(h), n.nvmlDeviceGetMemoryInfo(h, n.nvmlMemory_v2)
        answer(v1=[m.total, m.free, m.used], v2=[v2.total, v2.reserved, v2.free, v2.used])
    """
    got = ask({**shown_env(vram=64 * MIB), "EMUV_NVML": str(real)}, code)
    assert got["v1"] == [64 * MIB, 64 * MIB, 0]
    assert got["v2"] == [64 * MIB, 0, 64 * MIB, 0]


class TestLauncher:
    def test_it_is_preloaded(self, emuv_run: Runner) -> None:
        code = PRELUDE + textwrap.dedent("""
            d = started()
            d.new("cuMemAlloc_v2", 24 * MIB)
            d.new("cuMemAlloc_v2", 24 * MIB)
            answer(card=agreed(d), pid=os.getpid())
        """)
        done = emuv_run(
            "--sim", "--quiet", "--vram", "32MiB", "--virtual", "32MiB", "--",
            sys.executable, "-c", code, env={"EMUV_SIM_VRAM": str(256 * MIB)},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        got = json.loads(done.stdout)
        assert got["card"]["memory"] == got["card"]["cuda"] == [64 * MIB, 16 * MIB, 48 * MIB]
        assert got["card"]["users"] == [[got["pid"], 32 * MIB]]


def test_a_child_without_the_runs_environment(emuv_run: Runner) -> None:
    inner = "import pynvml as n; n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0); " \
            "print(n.nvmlDeviceGetMemoryInfo(h).total)"  # fmt: skip
    outer = (
        "import os, subprocess, sys; subprocess.run([sys.executable, '-c', sys.argv[1]], "
        "env={'LD_PRELOAD': os.environ['LD_PRELOAD']})"
    )
    done = emuv_run("--sim", "-q", "--vram", "32MiB", "--", sys.executable, "-c", outer, inner)
    assert done.stdout == f"{32 * MIB}\n", done.stderr


def text_of(env: Mapping[str, str]) -> list[str]:
    """What nvml_text.py prints, line by line."""
    done = run([sys.executable, Path(__file__).parent / "nvml_text.py", "cuda"], env, 60)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_nothing_else_changes(shown_env: ShimEnv, sim_env: dict[str, str]) -> None:
    settings = {"EMUV_SIM_DEVICES": "2", "EMUV_SIM_VRAM": str(256 * MIB)}
    plain = text_of({**sim_env, **settings})
    env = {**shown_env(vram=32 * MIB, virtual=32 * MIB), **settings}
    shown = text_of(env)
    assert len(plain) > 300
    differ = [line for line in difflib.ndiff(plain, shown) if line[0] in "+-"]
    calls = {line.split()[2].rstrip(":") for line in differ}
    assert calls == {"nvmlDeviceGetMemoryInfo", "nvmlDeviceGetMemoryInfo_v2"} | {
        f"nvmlDeviceGetComputeRunningProcesses{version}" for version in ("", "_v2", "_v3")
    }
    assert len(plain) == len(shown)
