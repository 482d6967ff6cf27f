# SPDX-License-Identifier: GPL-2.0-only
"""A Numba program beyond its budget: which bytes cross the link, to the byte."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import jsonschema
import pytest

from tests.conftest import ROOT, Runner

pytest.importorskip("numba.cuda")

SIZE = 8 << 20
PROGRAM = """
import numpy as np
from numba import cuda

@cuda.jit
def add(x, y, out):
    i = cuda.grid(1)
    if i < x.size:
        out[i] = x[i] + y[i]

count = 1 << 21
x = np.arange(count, dtype=np.float32)
first, second = cuda.to_device(x), cuda.to_device(2 * x)   # they fill the budget
out = cuda.device_array(count, np.float32)                 # and this is spilled
for _ in range(3):
    add[count // 256, 256](first, second, out)
print(np.array_equal(out.copy_to_host(), 3 * x))
"""


def test_spilled_memory_is_used_over_the_link(emuv_run: Runner, tmp_path: Path) -> None:
    # GIVEN a program whose third array is beyond the budget
    program = tmp_path / "add.py"
    program.write_text(PROGRAM)
    target = tmp_path / "stats-%p.json"
    env = {"EMUV_SIM_STATS": str(target), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    # WHEN it runs under emuV on the simulated GPU
    done = emuv_run(
        "--sim", "--vram", "16MiB", "--virtual", "1GiB", sys.executable, program, env=env
    )
    # THEN its result is right, and of all that it touched only that array crossed the link
    assert done.stdout == "True\n", done.stderr
    (written,) = tmp_path.glob("stats-*.json")
    stats = json.loads(written.read_text())
    schema = ROOT / "emuv_shim" / "schemas" / "sim-stats.schema.json"
    jsonschema.validate(stats, json.loads(schema.read_text()))
    (spilled,) = stats["allocations"]
    assert spilled["bytes"] == SIZE
    nothing = dict.fromkeys(spilled["to_host_bytes"], 0)
    assert spilled["to_host_bytes"] == nothing | {"remote": 3 * SIZE}  # each launch wrote it
    assert spilled["to_device_bytes"] == nothing | {"remote": SIZE}  # the download read it
    (kernel,) = stats["kernels"]
    assert kernel["launches"] == 3
    assert kernel["vram_bytes"] == 3 * 2 * SIZE
    for launch in stats["launches"]:
        read, other, out = sorted(launch["touched"], key=lambda touched: touched["kind"])
        assert (read["kind"], other["kind"], out["kind"]) == ("device", "device", "managed")
        assert read["read"] == other["read"] == out["written"] == [[0, 4]]
        assert read["written"] == other["written"] == out["read"] == []
        assert out["allocation"] == spilled["id"]
    # what the uploads brought, and what the download took, is the link's as well
    device = stats["devices"][0]
    assert device["to_device_bytes"]["copy"] == 2 * SIZE
