# SPDX-License-Identifier: GPL-2.0-only
"""Eight threads at once: never a byte over the budget, never a byte lost, watched from outside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from emuv_shim._segment import View
from emuv_shim.budget import Budget
from emuv_shim.controller import Controller
from emuv_shim.errors import SegmentError
from emuv_shim.stats import DeviceStats
from tests.conftest import Compiler
from tests.integration.cli_tools import Talking
from tests.integration.shim_tools import MIB, run_child, segments

ShimEnv = Callable[..., dict[str, str]]
PROGRAM = Path(__file__).parent / "programs" / "threads.c"
VRAM, VIRTUAL = 40 * MIB + 4097, 24 * MIB + 1
STEPS = "5000"


@pytest.fixture
def threads(cc: Compiler) -> Path:
    return cc(PROGRAM.read_text(), libs=["cuda"], name="threads")


def check(device: DeviceStats, vram: int, visible: int) -> None:
    """What holds at every consistent moment."""
    overhead = device.overhead_bytes or 0
    assert device.device_bytes + device.promoted_bytes + overhead <= vram
    assert device.device_bytes + device.managed_bytes + overhead <= visible
    assert device.promoted_bytes <= device.managed_bytes
    assert device.promoted_bytes % (2 * MIB) == 0


@pytest.mark.parametrize("virtual", [0, VIRTUAL], ids=["cap", "spill"])
def test_never_over_never_lost(
    shim_env: ShimEnv, threads: Path, runtime_dir: Path, tmp_path: Path, virtual: int
) -> None:
    # GIVEN a program whose eight threads allocate and free at random
    report = tmp_path / "sim.json"
    env = shim_env(
        vram=VRAM, virtual=virtual, EMUV_KEEP="1", EMUV_QUIET="1", EMUV_SIM_REPORT=str(report),
        EMUV_SIM_CONTEXT=str(3 * MIB),
    )  # fmt: skip
    seen = 0
    with Talking([threads, STEPS, "3"], env) as program:
        assert program.line() == "ready"
        (path,) = runtime_dir.glob("*.seg")
        program.child.stdin.write("go\n")  # type: ignore[union-attr]
        program.child.stdin.flush()  # type: ignore[union-attr]
        # WHEN its segment is read all the time
        with View(path) as view:
            while program.child.poll() is None:
                try:
                    stats = view.read().stats
                except SegmentError:  # it never stands still for long
                    continue
                if stats.counters_settled:
                    # THEN no reading is ever over the budget
                    check(stats.devices[0], VRAM, VRAM + virtual)
                    seen += 1
        tally = json.loads(program.line())
        assert program.end() == 0
    assert seen > 20
    assert tally["granted"] > 1000
    assert tally["refused"] > 20
    # AND in the end nothing is charged but the context, and every call was counted
    (stats,) = segments(runtime_dir)
    device = stats.devices[0]
    assert (device.device_bytes, device.managed_bytes, device.promoted_bytes) == (0, 0, 0)
    assert device.live_allocations == 0
    assert device.denials == tally["refused"]
    assert device.uncounted_calls == 0
    assert device.peak_physical_bytes <= VRAM
    assert device.peak_used_bytes <= VRAM + virtual
    assert (device.spills > 0) == bool(virtual)
    # AND the card says the same: it never held more, and holds nothing
    told = json.loads(report.read_text())
    assert told["devices"][0]["peak_bytes"] <= VRAM
    assert told["devices"][0]["used_bytes"] == 3 * MIB
    assert {kind for kind in told["leaks"] if "memory" in kind or "events" in kind} == set()


def test_budgets_that_change_all_the_time(
    shim_env: ShimEnv, threads: Path, runtime_dir: Path
) -> None:
    # GIVEN the same program
    env = shim_env(vram=VRAM, virtual=VIRTUAL, EMUV_KEEP="1", EMUV_QUIET="1")
    with Talking([threads, STEPS, "4"], env) as program:
        assert program.line() == "ready"
        program.child.stdin.write("go\n")  # type: ignore[union-attr]
        program.child.stdin.flush()  # type: ignore[union-attr]
        controller = Controller(runtime_dir)
        # WHEN its budget goes up and down under it
        for i in range(60):
            vram = (40, 12, 64, 24)[i % 4] * MIB
            if program.child.poll() is not None:
                break
            controller.set_budget(program.pid, Budget(vram=vram, virtual=VIRTUAL, policy="spill"))
        tally = json.loads(program.line())
        # THEN it ends as always
        assert program.end() == 0
    assert i > 10
    assert tally["granted"] > 500
    (stats,) = segments(runtime_dir)
    device = stats.devices[0]
    assert (device.device_bytes, device.managed_bytes, device.promoted_bytes) == (0, 0, 0)
    assert device.live_allocations == 0
    assert device.peak_physical_bytes <= 64 * MIB


def test_threads_that_start_cuda_together(shim_env: ShimEnv) -> None:
    """All wait for the books to be open; the context is charged once."""
    code = """
        import threading
        d = Driver("libcuda.so.1")
        barrier = threading.Barrier(8)
        results = []
        def go(i):
            barrier.wait(20)
            out, context = c_uint64(), c_uint64()
            codes = [d.code("cuInit", 0), d.code("cuDevicePrimaryCtxRetain", byref(context), 0),
                     d.code("cuCtxSetCurrent", context.value)]
            while not (code := d.code("cuMemAlloc_v2", byref(out), 64 << 10)):
                pass
            results.append(codes + [code])
        threads = [threading.Thread(target=go, args=(i,)) for i in range(8)]
        for t in threads: t.start()
        for t in threads: t.join(30)
        answer(results=results, books=books(), used=card_used(d))
    """
    child = run_child(shim_env(vram=20 * MIB, EMUV_SIM_CONTEXT=str(4 * MIB)), code)
    assert child.answer["results"] == [[0, 0, 0, 2]] * 8
    assert child.answer["books"]["overhead_bytes"] == 4 * MIB
    assert child.answer["books"]["device_bytes"] == 16 * MIB
    assert child.answer["books"]["denials"] == 8
    assert child.answer["used"] == 20 * MIB
