# SPDX-License-Identifier: GPL-2.0-only
"""Programs on real packages (numba-cuda, cuda-bindings), with and without emuV.

Each program runs plainly on the simulated GPU and under emuv-run in several
budgets; what it prints must be the same, errors included.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import Runner, run

HERE = Path(__file__).parent / "real"
MIB = 1 << 20
CARD = {"EMUV_SIM_VRAM": str(256 * MIB)}


def plain(env: dict[str, str], program: str, *args: str) -> dict[str, Any]:
    done = run([sys.executable, HERE / program, *args], {**env, **CARD}, 90)
    assert done.returncode == 0, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def under(
    emuv_run: Runner, stats: Path, options: list[str], program: str, *args: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What the program printed, and the counters of its device 0."""
    done = emuv_run(
        "--sim", *options, "--stats", stats, "--", sys.executable, HERE / program, *args,
        env=CARD, timeout=90,
    )
    assert done.returncode == 0, done.stderr
    counters = json.loads(stats.read_text())["processes"][0]["devices"][0]
    return json.loads(done.stdout), counters


@pytest.mark.parametrize("allocation", ["lazy", "eager"])
def test_numba_arrays_are_the_same_through_a_spill(
    emuv_run: Runner, sim_env: dict[str, str], tmp_path: Path, allocation: str
) -> None:
    # GIVEN a program that keeps 12 x 8 MiB on the device and uses every kind of array
    expected = plain(sim_env, "numba_arrays.py", "12")
    assert expected["device"] == expected["sent"]
    # WHEN it runs in a third of that
    options = ["--vram", "32MiB", "--virtual", "128MiB", "--allocation", allocation]
    got, counters = under(emuv_run, tmp_path / "s.json", options, "numba_arrays.py", "12")
    # THEN it computes the same, and most of its bytes were spilled
    assert got == expected
    assert counters["spilled_bytes"] >= 64 * MIB
    assert counters["peak_physical_bytes"] <= 32 * MIB
    assert counters["denials"] == 0


def test_numba_arrays_are_the_same_where_they_fit(
    emuv_run: Runner, sim_env: dict[str, str], tmp_path: Path
) -> None:
    expected = plain(sim_env, "numba_arrays.py", "4")
    got, counters = under(
        emuv_run, tmp_path / "s.json", ["--vram", "200MiB"], "numba_arrays.py", "4"
    )
    assert got == expected
    assert counters["spills"] == 0 and counters["peak_physical_bytes"] >= 32 * MIB


def test_numba_says_the_same_when_it_is_out_of_memory(
    emuv_run: Runner, sim_env: dict[str, str], tmp_path: Path
) -> None:
    # GIVEN a card of 256 MiB, and the same card capped at 128 MiB
    card = plain(sim_env, "numba_oom.py")
    capped, counters = under(emuv_run, tmp_path / "s.json", ["--vram", "128MiB"], "numba_oom.py")
    # THEN numba raises the same exception with the same words, at half the count
    assert card["said"] and capped["said"] == card["said"]
    assert (card["count"], capped["count"]) == (32, 16)
    assert (card["total"], capped["total"]) == (256 * MIB, 128 * MIB)
    # AND what was freed can be had again
    assert capped["free"] == 128 * MIB and capped["again"] == 8 * MIB
    assert counters["denials"] > 0 and counters["device_bytes"] == 0


def test_every_driver_route_through_cuda_bindings(
    emuv_run: Runner, sim_env: dict[str, str], tmp_path: Path
) -> None:
    # GIVEN five routes of 16 MiB each
    expected = plain(sim_env, "driver_calls.py", "16")
    routes = ("plain", "managed", "ordered", "pooled")
    assert all(expected[route] == expected["sent"] for route in routes)
    # WHEN only two fit the budget
    options = ["--vram", "40MiB", "--virtual", "64MiB"]
    got, counters = under(emuv_run, tmp_path / "s.json", options, "driver_calls.py", "16")
    # THEN data, errors and give-back are the same; only the sizes reported differ
    sizes = {"free", "total", "device_total"}
    assert {k: v for k, v in got.items() if k not in sizes} == {
        k: v for k, v in expected.items() if k not in sizes
    }
    assert got["total"] == got["device_total"] == got["free"] == 104 * MIB
    assert expected["given_back"] is True
    assert counters["spills"] >= 2 and counters["live_allocations"] == 0
    assert counters["device_bytes"] == counters["managed_bytes"] == 0


def test_every_report_is_the_budgets(
    emuv_run: Runner, sim_env: dict[str, str], tmp_path: Path
) -> None:
    runtimes = ("libcudart.so.12", "libcudart.so.13")
    options = ["--vram", "64MiB", "--virtual", "64MiB"]
    got, counters = under(emuv_run, tmp_path / "s.json", options, "reports.py", *runtimes)
    used = counters["peak_used_bytes"]

    assert used >= 80 * MIB
    assert len(got["then"]) == 10
    for moment, free in (("first", None), ("then", 128 * MIB - used)):
        for who, figures in got[moment].items():
            assert figures[-1] == 128 * MIB, (moment, who)
            expected = got[moment]["cuMemGetInfo"][0] if free is None else free
            assert figures[:-1] in ([], [expected]), (moment, who)
    # No attribute of a device states an amount of its memory: they are the card's own.
    assert got["attributes"] == plain(sim_env, "reports.py")["attributes"]
