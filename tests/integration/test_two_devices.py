# SPDX-License-Identifier: GPL-2.0-only
"""Two simulated cards with budgets of their own: the books of each are exact, and end at zero."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Runner
from tests.integration.shim_tools import MIB, OOM, run_child
from tests.integration.test_nvml import UUIDS

ShimEnv = Callable[..., dict[str, str]]
TWO = f"0={64 * MIB},1={32 * MIB}"


@pytest.fixture
def env(shim_env: ShimEnv) -> dict[str, str]:
    """Two cards of 256 MiB, budgets of 64 and 32 MiB, contexts of 4."""
    return shim_env(vram=TWO, EMUV_SIM_DEVICES="2", EMUV_SIM_CONTEXT=str(4 * MIB))


def test_each_device_has_its_own(env: dict[str, str]) -> None:
    code = """
        d = Driver("libcuda.so.1")
        d.cuInit(0)
        contexts = [d.new("cuDevicePrimaryCtxRetain", i) for i in range(2)]
        kept, refusals, seen = [[], []], [], []
        for i in (1, 0):
            d.cuCtxSetCurrent(contexts[i])
            p = c_uint64()
            while not (code := d.code("cuMemAlloc_v2", byref(p), 4 * MIB)):
                kept[i].append(p.value)
            refusals.append(code)
            seen.append(list(d.memory_info()))
        full = [held(0), held(1)]
        # freed on the other device's context: a pointer knows its own
        d.cuCtxSetCurrent(contexts[1])
        for p in kept[0] + kept[1]: d.cuMemFree_v2(p)
        none = [held(0), held(1)]
        for i in range(2): d.cuDevicePrimaryCtxRelease_v2(i)
        answer(refusals=refusals, seen=seen, full=full, none=none,
               pieces=[len(k) for k in kept],
               over=[books(i)["overhead_bytes"] for i in range(2)],
               cards=[card_used(d, i) for i in range(2)])
    """
    got = run_child(env, code).answer
    assert got["refusals"] == [OOM] * 2
    assert got["pieces"] == [15, 7]
    assert got["seen"] == [[0, 32 * MIB], [0, 64 * MIB]]
    assert got["full"] == [[60 * MIB, 0, 0, 15], [28 * MIB, 0, 0, 7]]
    assert got["none"] == [[0] * 4] * 2
    assert got["over"] == got["cards"] == [0, 0]


def test_threads_on_both(env: dict[str, str]) -> None:
    code = """
        import threading
        d = Driver("libcuda.so.1")
        d.cuInit(0)
        contexts = [d.new("cuDevicePrimaryCtxRetain", i) for i in range(2)]
        wrong = []
        def work(n):
            device = n % 2
            d.cuCtxSetCurrent(contexts[device])
            for _ in range(60):
                p = c_uint64()
                code = d.code("cuMemAlloc_v2", byref(p), 3 * MIB)
                free, total = d.memory_info()
                if total != (64, 32)[device] * MIB or free > total - 4 * MIB:
                    wrong.append([device, free, total])
                if code == 0:
                    d.cuMemFree_v2(p.value)
                elif code != OOM:
                    wrong.append(code)
        threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        after = [held(0), held(1)]
        peaks = [books(i)["peak_physical_bytes"] for i in range(2)]
        for i in range(2): d.cuDevicePrimaryCtxReset_v2(i)
        answer(wrong=wrong, after=after, peaks=peaks,
               physical=[books(i)["physical_bytes"] for i in range(2)],
               cards=[card_used(d, i) for i in range(2)])
    """
    got = run_child(env, code).answer
    assert got["wrong"] == []
    assert got["after"] == [[0] * 4] * 2
    assert all(4 * MIB < peak <= most * MIB for peak, most in zip(got["peaks"], (64, 32), strict=True))  # noqa: E501
    assert got["physical"] == got["cards"] == [0, 0]


def test_contexts_of_other_threads(env: dict[str, str]) -> None:
    code = """
        import threading
        d = Driver("libcuda.so.1")
        d.cuInit(0)
        made, kept, wrong = [], [], []
        lock, all_made = threading.Lock(), threading.Barrier(4, timeout=30)
        def work(n):
            mine = d.new("cuCtxCreate_v2", 0, n % 2)      # current here, and nowhere else
            p = d.new("cuMemAlloc_v2", 2 * MIB)
            with lock:
                made.append((n, mine)); kept.append((n, p))
            all_made.wait()
            other, address = [next(x for m, x in rows if m == (n + 1) % 4) for rows in (made, kept)]
            d.cuCtxPushCurrent_v2(other)                   # of another thread, on the other device
            device = d.new("cuCtxGetDevice")
            if device != (n + 1) % 2: wrong.append([n, device])
            q = d.new("cuMemAlloc_v2", MIB)
            if d.memory_info()[1] != (64, 32)[device] * MIB: wrong.append(n)
            d.cuMemFree_v2(q)
            d.cuCtxPopCurrent_v2(byref(ctypes.c_void_p()))
            all_made.wait()
            d.cuMemFree_v2(address)                        # that thread's memory, from here
            all_made.wait()
        threads = [threading.Thread(target=work, args=(n,)) for n in range(4)]
        for t in threads: t.start()
        for t in threads: t.join()
        freed = [[*held(i), books(i)["overhead_bytes"]] for i in range(2)]
        for n, context in made: d.cuCtxDestroy_v2(context)
        answer(wrong=wrong, freed=freed, left=[books(i)["physical_bytes"] for i in range(2)],
               cards=[card_used(d, i) for i in range(2)])
    """
    got = run_child(env, code).answer
    assert got["wrong"] == []
    assert got["freed"] == [[0, 0, 0, 0, 8 * MIB]] * 2
    assert got["left"] == got["cards"] == [0, 0]


@pytest.mark.parametrize("major", [12, 13])
def test_the_runtimes_device_reset(env: dict[str, str], sim: Path, major: int) -> None:
    code = f"""
        rt = ctypes.CDLL("libcudart.so.{major}")
        out, free, total = ctypes.c_void_p(), c_size_t(), c_size_t()
        seen = []
        for device in (0, 1, 0):
            rt.cudaSetDevice(device)
            seen.append(rt.cudaMalloc(byref(out), c_size_t(10 * MIB)))
            rt.cudaMemGetInfo(byref(free), byref(total))
            seen.append([free.value // MIB, total.value // MIB])
        before = [held(0), held(1)]
        rt.cudaSetDevice(1)
        seen.append(rt.cudaDeviceReset())
        one = [books(i)["physical_bytes"] // MIB for i in range(2)]
        rt.cudaSetDevice(0)
        rt.cudaDeviceReset()
        answer(seen=seen, before=before, one=one,
               both=[books(i)["physical_bytes"] for i in range(2)])
    """
    got = run_child({**env, "LD_LIBRARY_PATH": str(sim.parent)}, code).answer
    assert got["seen"] == [0, [50, 64], 0, [18, 32], 0, [40, 64], 0]
    assert got["before"] == [[20 * MIB, 0, 0, 2], [10 * MIB, 0, 0, 1]]
    assert got["one"] == [24, 0]
    assert got["both"] == [0, 0]


def test_no_current_context(env: dict[str, str]) -> None:
    code = """
        import threading
        d = started(1)
        d.new("cuMemAlloc_v2", 8 * MIB)
        answers = []
        def bare():
            p, n, m = c_uint64(), c_size_t(), c_size_t()
            pool = d.new("cuDeviceGetDefaultMemPool", 0)
            answers.extend([
                d.code("cuMemAlloc_v2", byref(p), MIB), d.code("cuMemAllocManaged", byref(p), MIB, 1),
                d.code("cuMemAllocAsync", byref(p), MIB, None),
                d.code("cuMemAllocFromPoolAsync", byref(p), MIB, pool, None),
                d.code("cuMemGetInfo_v2", byref(n), byref(m)), d.code("cuMemFree_v2", 12345),
                d.code("cuDeviceTotalMem_v2", byref(m), 1), m.value,
            ])
        t = threading.Thread(target=bare)
        t.start(); t.join()
        answer(answers=answers, held=[held(0), held(1)],
               uncounted=[books(i)["uncounted_calls"] for i in range(2)])
    """  # noqa: E501
    child = run_child(env, code)
    answers = child.answer["answers"]
    assert all(code == 201 for code in answers[:5]), answers  # CUDA_ERROR_INVALID_CONTEXT
    assert answers[5] != 0 and answers[6:] == [0, 32 * MIB]
    assert child.answer["held"] == [[0] * 4, [8 * MIB, 0, 0, 1]]
    assert child.answer["uncounted"] == [0, 0]


def test_a_reset_is_of_one_device(env: dict[str, str]) -> None:
    code = """
        d = Driver("libcuda.so.1")
        d.cuInit(0)
        for i in range(2):
            d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", i))
            d.new("cuMemAlloc_v2", 8 * MIB)
            made = d.new("cuCtxCreate_v2", 0, i)
            d.new("cuMemAlloc_v2", 2 * MIB)
        before = [[*held(i), books(i)["overhead_bytes"]] for i in range(2)]
        d.cuDevicePrimaryCtxReset_v2(0)
        reset = [[*held(i), books(i)["overhead_bytes"]] for i in range(2)]
        d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", 0))
        d.new("cuMemAlloc_v2", 20 * MIB)
        again = held(0)
        d.cuDevicePrimaryCtxReset_v2(0)
        d.cuDevicePrimaryCtxReset_v2(1)
        d.cuCtxDestroy_v2(made)
        answer(before=before, reset=reset, again=again,
               left=[[*held(i), books(i)["overhead_bytes"]] for i in range(2)],
               cards=[card_used(d, i) for i in range(2)])
    """
    got = run_child(env, code).answer
    both = [10 * MIB, 0, 0, 2, 8 * MIB]
    created = [2 * MIB, 0, 0, 1, 4 * MIB]
    assert got["before"] == [both, both]
    assert got["reset"] == [created, both]
    assert got["again"] == [22 * MIB, 0, 0, 2]
    assert got["left"] == [created, [0] * 5]
    assert got["cards"] == [6 * MIB, 0]


def test_spilled_on_one_of_two(shim_env: ShimEnv) -> None:
    code = """
        d = Driver("libcuda.so.1")
        d.cuInit(0)
        for i in range(2):
            d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", i))
            d.new("cuMemAlloc_v2", 40 * MIB)
        spilled = [held(0), held(1)]
        for i in range(2): d.cuDevicePrimaryCtxReset_v2(i)
        answer(spilled=spilled, left=[held(0), held(1)], cards=[card_used(d, i) for i in range(2)])
    """
    env = shim_env(vram=TWO, virtual=f"1={64 * MIB}", EMUV_SIM_DEVICES="2")
    got = run_child(env, code).answer
    assert got["spilled"] == [[40 * MIB, 0, 0, 1], [0, 40 * MIB, 32 * MIB, 1]]
    assert got["left"] == [[0] * 4] * 2
    assert got["cards"] == [0, 0]


@pytest.mark.parametrize(
    ("options", "visible", "expected"),
    [
        (["--vram", "GPU-11=16MiB,GPU-00=48MiB"], None, [48, 16]),
        (["--vram", "GPU-11=16MiB,GPU-00=48MiB"], "1,0", [16, 48]),
        (["--vram", f"{UUIDS[1]}=16MiB,0=48MiB"], f"{UUIDS[0]},GPU-11", [48, 16]),
        (["--vram", "GPU-11=16MiB", "--device", "1"], "0,1", [16]),
        (["--vram", "GPU-11=16MiB", "--device", "1"], None, [16]),
        (["--vram", "0=16MiB"], "1,9", [16]),
    ],
)
def test_budgets_by_uuid(
    emuv_run: Runner, options: list[str], visible: str | None, expected: list[int]
) -> None:
    code = (
        "import ctypes; d = ctypes.CDLL('libcuda.so.1'); d.cuInit(0); n = ctypes.c_int();"
        "d.cuDeviceGetCount(ctypes.byref(n)); t = ctypes.c_size_t();"
        "f = d.cuDeviceTotalMem_v2; b = ctypes.byref(t);"
        "print([f(b, i) or t.value >> 20 for i in range(n.value)])"
    )
    env = {"EMUV_SIM_DEVICES": "2", "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
    if visible:
        env["CUDA_VISIBLE_DEVICES"] = visible
    done = emuv_run("--sim", "-q", *options, "--", "python3", "-c", code, env=env)
    assert done.stdout == f"{expected}\n", done.stderr


@pytest.mark.parametrize(
    ("vram", "visible", "said"),
    [
        ("GPU-22=16MiB", None, '"GPU-22", which is none of those'),
        ("GPU-11=16MiB", "0", '"GPU-11", which is none of those'),
        ("MIG-11=16MiB", "0", '"MIG-11", which is none of those'),
        ("1=16MiB", "1,9", "CUDA_VISIBLE_DEVICES=1,9 leaves 1"),
        ("GPU-11=16MiB", "", "did not tell theirs: cuInit answered 100"),
    ],
)
def test_a_device_that_is_not_there(
    emuv_run: Runner, vram: str, visible: str | None, said: str
) -> None:
    env = {"EMUV_SIM_DEVICES": "2"}
    if visible is not None:
        env["CUDA_VISIBLE_DEVICES"] = visible
    done = emuv_run("--sim", "--vram", vram, "true", env=env)
    assert done.returncode == 125
    assert said in done.stderr
