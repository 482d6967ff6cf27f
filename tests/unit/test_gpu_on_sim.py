# SPDX-License-Identifier: GPL-2.0-only
"""The scripts for a real card, run on the simulated GPU: everything in them that needs no kernel.

A card is rare and its time short: a wrong argument type or a typo must be found here.  Where the
simulated GPU cannot do something, the scripts must say so in a row and go on.
"""

from __future__ import annotations

import json
import os
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, run

sys.path.insert(0, str(ROOT / "benchmarks"))

import _facts_rows as rows
import driver_facts

FACTS = ROOT / "benchmarks" / "driver_facts.py"
CHECK = ROOT / "tests" / "gpu" / "gpu_check.py"

MEASURED = [name for name in driver_facts.SECTIONS if name != "stacks"]
EXPECTED = re.compile("kernels not supported|not supported: |too large for this card")


@pytest.fixture(scope="module")
def sim_facts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What driver_facts writes about a small simulated card."""
    sim = ROOT / "emuv_shim" / "_lib" / "sim" / "libcuda.so.1"
    output = tmp_path_factory.mktemp("facts") / "facts.json"
    env = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_", "CUDA_"))}
    done = run(
        [sys.executable, FACTS, "--driver", sim, "--output", output, "--only", ",".join(MEASURED)],
        {**env, "EMUV_SIM_VRAM": str(256 << 20), "EMUV_SIM_CONTEXT": str(8 << 20)},
        timeout=110,
    )
    assert done.returncode == 0, done.stderr
    document: dict[str, Any] = json.loads(output.read_text())
    return document


def figures(document: dict[str, Any], section: str) -> dict[str, float]:
    """The medians of a section, by name."""
    return {
        row["name"]: row["median"]
        for row in document["rows"]
        if row["section"] == section and row["median"] is not None
    }


def test_facts_document(sim_facts: dict[str, Any]) -> None:
    assert sim_facts["schema"] == driver_facts.SCHEMA
    assert sim_facts["cuda_version"] == 13000
    assert sim_facts["free_bytes"] == (256 - 8) << 20
    assert set(sim_facts["sections"]) == set(MEASURED)
    for row in sim_facts["rows"]:
        rows.check_row(row)


@pytest.mark.parametrize("section", MEASURED)
def test_section_runs_through_on_the_simulated_gpu(sim_facts: dict[str, Any], section: str) -> None:
    assert sim_facts["sections"][section]["problem"] == ""
    mine = [row for row in sim_facts["rows"] if row["section"] == section]
    assert mine
    odd = [
        (row["name"], row["note"])
        for row in mine
        if row["median"] is None and not EXPECTED.match(row["note"])
    ]
    assert odd == []


def test_facts_see_what_is_resident(sim_facts: dict[str, Any]) -> None:
    found = figures(sim_facts, "residency")
    size = next(
        row["params"]["bytes"]
        for row in sim_facts["rows"]
        if row["name"] == "spilled range: promoted"
    )
    assert size == 32 << 20
    assert found["spilled range: written by the host"] == 0
    assert found["spilled range: first half promoted"] == size / 2
    assert found["spilled range: promoted"] == size
    assert found["spilled range: demoted from the device"] == 0
    assert found["spilled range: freed"] == 0
    assert found["data after promotion and demotion"] == 1


def test_facts_see_what_things_cost(sim_facts: dict[str, Any]) -> None:
    found = figures(sim_facts, "footprint")
    assert found["cuMemAlloc of 2 MiB"] == 2 << 20
    assert found["cuMemAlloc of 1 B"] >= 1
    assert figures(sim_facts, "contexts")["context, LAZY: primary context"] == 8 << 20
    same = figures(sim_facts, "procaddress")
    assert same["cuGetProcAddress against dlsym: equal"] > 600
    assert set(same) == {
        "cuGetProcAddress against dlsym: equal",
        "cuGetProcAddress against dlsym: newer than the driver",
    }


def test_facts_see_what_host_handles_can(sim_facts: dict[str, Any]) -> None:
    found = figures(sim_facts, "vmm")
    assert found["granularity: device"] == found["granularity: node"] == 2 << 20
    refused = {name for name, value in found.items() if name.startswith("handle:") and value}
    assert refused == {"handle: host, by file descriptor"}
    assert found["access for the device, one call for host and device"] == 0
    assert found["one set and one copy over all of it"] == 1
    assert found["memory type of a mapping: device"] == 2
    assert found["memory type of a mapping: host"] == 1
    assert found["import of a handle of the node"] == 0
    assert found["page: node: create"] > 0


def test_checks_on_the_simulated_gpu(
    clean_env: dict[str, str], sim: Path, libemuv: Path, tmp_path: Path
) -> None:
    output = tmp_path / "check.json"
    done = run(
        [
            *(sys.executable, CHECK, "--driver", sim, "--output", output),
            *("--unit", str(16 << 20), "--only", "doctor,driver,live,costs,eager"),
        ],
        {**clean_env, "EMUV_SIM_VRAM": str(256 << 20), "EMUV_SIM_CONTEXT": str(4 << 20)},
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    document = json.loads(output.read_text())
    by_name = {row["name"]: row for row in document["rows"]}
    for name in (
        "context overhead",
        "doctor",
        "driver API: plain",
        "driver API: capped at 32 MiB",
        "driver API: spilled",
        "driver API: live budget change",
        "driver API: spilled, eager",
        "cost of a pair: 10 live, 4096 bytes",
    ):
        assert by_name[name]["ok"] is True, by_name[name]
    assert document["failed"] == 0
    assert by_name["context overhead"]["data"]["stages"]["primary context"] == 4 << 20
    capped = by_name["driver API: capped at 32 MiB"]["data"]
    assert capped["answer"]["held"] == (32 - 4) << 20
    spilled = by_name["driver API: spilled"]["data"]
    assert spilled["stats"]["spilled_bytes"] == (56 - 28) << 20
    assert spilled["stats"]["peak_physical_bytes"] <= 32 << 20
    pid = by_name["driver API: live budget change"]["data"]["ps"]["pid"]
    assert not Path(f"/proc/{pid}").exists()


SMI = """#!{python}
import sys
import pynvml as n
n.nvmlInit()
h = n.nvmlDeviceGetHandleByIndex(0)
m = n.nvmlDeviceGetMemoryInfo(h, n.nvmlMemory_v2)
mib = [x >> 20 for x in (m.total, m.reserved, m.used, m.free)]
if "-q" in sys.argv:
    print("Timestamp                       : now")
    print("GPU 00000000:01:00.0")
    print("    Product Name                : " + n.nvmlDeviceGetName(h){oddly})
    print("    FB Memory Usage")
    for name, value in zip(("Total", "Reserved", "Used", "Free"), mib):
        print(f"        {{name:<24}}: {{value}} MiB")
    print("    BAR1 Memory Usage")
    print("        Total                   : 256 MiB")
elif len(sys.argv) > 1:
    print(f"0, {{n.nvmlDeviceGetUUID(h)}}, {{mib[0]}}")
else:
    print(f"| {{mib[2]}}MiB / {{mib[0]}}MiB |")
"""


@pytest.mark.parametrize("oddly", ["", " + '!' * (mib[0] < 200)"])
def test_nvml_checks_on_the_simulated_gpu(
    clean_env: dict[str, str], sim: Path, tmp_path: Path, oddly: str
) -> None:
    """With a script in nvidia-smi's place, honest or not."""
    output, smi = tmp_path / "check.json", tmp_path / "bin" / "nvidia-smi"
    smi.parent.mkdir()
    smi.write_text(SMI.format(python=sys.executable, oddly=oddly))
    smi.chmod(0o755)
    env = {**clean_env, "PATH": f"{smi.parent}:{clean_env['PATH']}"}
    done = run(
        [
            *(sys.executable, CHECK, "--driver", sim, "--output", output),
            *("--unit", str(16 << 20), "--only", "nvml"),
        ],
        {**env, "EMUV_SIM_VRAM": str(256 << 20), "EMUV_SIM_CONTEXT": str(4 << 20)},
        timeout=110,
    )
    rows = {row["name"]: row for row in json.loads(output.read_text())["rows"]}
    assert rows["NVML: all that can be asked"]["ok"] is True, rows
    assert rows["NVML: functions"]["data"]["not_forwarded"] == []
    smis = rows["nvidia-smi: the same text"]
    assert smis["ok"] is (not oddly), smis
    assert done.returncode == (1 if oddly else 0), done.stdout
    if oddly:
        assert "Product Name" in smis["detail"]
    else:
        assert smis["detail"].startswith("total 96 MiB; 2 of 7")


WITHOUT_KERNELS = """
import sys
sys.path.insert(0, {benchmarks!r})
import driver_facts
from _facts_nvml import Link, Nvml
from _facts_bench import Bench

# launches that do nothing: what is left of a section is everything around them
Bench.kernel = lambda self, name: None
Bench.launch = lambda self, *a, **k: None
Bench.sink_sum = lambda self: 0
sys.exit(driver_facts.child({section!r}, {driver!r}, 60.0))
"""


@pytest.mark.parametrize("section", ["bandwidth", "remote", "residency", "waiting"])
def test_what_surrounds_the_kernels_runs_too(
    section: str, clean_env: dict[str, str], sim: Path
) -> None:
    source = WITHOUT_KERNELS.format(
        benchmarks=str(ROOT / "benchmarks"), section=section, driver=str(sim)
    )
    done = run(
        [sys.executable, "-c", source],
        {**clean_env, "EMUV_SIM_VRAM": str(256 << 20)},
        timeout=100,
    )
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for row in found:
        rows.check_row(row)
    missing = [(r["name"], r["note"]) for r in found if r["median"] is None]
    assert [m for m in missing if not m[1].startswith(("too large", "not measured"))] == []
    assert len(found) > {"bandwidth": 35, "remote": 120, "residency": 50, "waiting": 33}[section]
