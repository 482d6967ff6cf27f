# SPDX-License-Identifier: GPL-2.0-only
"""Copies to and from spilled memory: in every form the bytes that come without emuV."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, run
from tests.integration.shim_tools import MIB, Child, finish

ShimEnv = Callable[..., dict[str, str]]

FORMS = Path(__file__).with_name("copy_forms.py")
API = ROOT / "csrc" / "common" / "driver_api.def"


def exports() -> set[str]:
    """Every copy and set of CUDA 13.0 that takes 64-bit addresses."""
    found = set()
    for export, name, version in re.findall(
        r"^EMUV_API\((\w+), (\w+), (\d+), \d\)", API.read_text(), re.M
    ):
        if re.match("cuMemcpy|cuMemset", name) and int(version) <= 13000:
            found.add(export)
    # Those of before CUDA 3.2, whose addresses have 32 bits.
    return {e for e in found if not (re.search("_v2", e) is None and f"{e}_v2" in found)} | {
        e for e in found if "Batch" in e
    }


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory, sim: Path) -> dict[str, dict[str, str]]:
    """What comes without emuV."""
    env = {"LD_LIBRARY_PATH": str(sim.parent), "EMUV_SIM_VRAM": str(256 * MIB), "PATH": "/usr/bin"}
    done = run([sys.executable, FORMS, "0"], env, 120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def test_every_form_is_there(without: dict[str, dict[str, str]]) -> None:
    assert set(without["called"]) == exports()
    refused = {name: end for name, end in without["results"].items() if not end.startswith("0 ")}
    assert not refused


@pytest.mark.parametrize(
    ("filler", "vram"),
    [
        # All of it on the host, but for arrays, which cannot be.
        (7 * MIB, 8 * MIB),
        # The first ranges' first block on the device: copies begin on it and end on the host.
        (0, 7 * MIB),
    ],
    ids=["all-spilled", "heads-resident"],
)
def test_the_same_bytes(
    shim_env: ShimEnv, without: dict[str, dict[str, str]], filler: int, vram: int
) -> None:
    env = shim_env(vram=vram, virtual=128 * MIB, EMUV_KEEP="1")
    child: Child = finish([sys.executable, FORMS, str(filler)], env, timeout=120)
    device = child.device()
    wrong = {
        name: (end, without["results"][name])
        for name, end in child.answer["results"].items()
        if end != without["results"][name]
    }
    assert not wrong
    assert child.answer["called"] == without["called"]
    assert device.spilled_bytes >= 10 * 4 * MIB - 4 * MIB
    assert device.peak_physical_bytes <= vram
