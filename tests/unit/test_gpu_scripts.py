# SPDX-License-Identifier: GPL-2.0-only
"""The scripts for a real card, as far as a machine without one can hold them to account.

What runs on a card for minutes once in a while must not fail there by a typo: the pure parts are
tested, the kernels are assembled and executed by a small interpreter, and every part that needs no
kernel runs against the simulated GPU.
"""

from __future__ import annotations

import ctypes
import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, run

sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "tests" / "gpu"))

import _facts_cuda as cu
import _facts_rows as rows
import _facts_semantics as semantics
import driver_facts
from _gpu_process import Conversation, Target
from _gpu_process import run as run_program
from _gpu_rows import FailError, Report, SkipError
from _gpu_stacks import STACKS, device_totals
from gpu_check import unit_for

FACTS = ROOT / "benchmarks" / "driver_facts.py"
CHECK = ROOT / "tests" / "gpu" / "gpu_check.py"
HAS_DRIVER = (
    subprocess.run(
        [sys.executable, "-c", "import ctypes; ctypes.CDLL('libcuda.so.1')"], capture_output=True
    ).returncode
    == 0
)


# Without a GPU


@pytest.mark.skipif(HAS_DRIVER, reason="this machine has an NVIDIA driver")
@pytest.mark.parametrize("script", [FACTS, CHECK], ids=["driver_facts", "gpu_check"])
def test_without_a_driver_says_so_and_exits_0(
    script: Path, clean_env: dict[str, str], tmp_path: Path
) -> None:
    output = tmp_path / "out.json"
    done = run([sys.executable, script, "--output", output], clean_env)
    assert done.returncode == 0
    assert re.fullmatch(r"emuv: no GPU: .*libcuda\.so\.1 cannot be loaded.*\n", done.stderr)
    assert done.stdout == ""
    assert not output.exists()


@pytest.mark.parametrize("script", [FACTS, CHECK], ids=["driver_facts", "gpu_check"])
def test_a_driver_that_is_no_library_is_no_gpu(
    script: Path, clean_env: dict[str, str], tmp_path: Path
) -> None:
    fake = tmp_path / "libcuda.so.1"
    fake.write_text("not a library")
    done = run([sys.executable, script, "--driver", fake], clean_env)
    assert done.returncode == 0
    assert "emuv: no GPU" in done.stderr


def test_unknown_section_is_a_usage_error(clean_env: dict[str, str]) -> None:
    done = run([sys.executable, FACTS, "--only", "costs,nonsense"], clean_env)
    assert done.returncode == 2
    assert "'nonsense'" in done.stderr
    assert "emuv: hint: " in done.stderr


# Rows


def test_spread_is_median_and_quartiles() -> None:
    assert rows.spread([5, 1, 4, 2, 3]) == (3, 2, 4, 5)
    assert rows.spread([1, 2, 3, 4]) == (2.5, 1.75, 3.25, 4)
    assert rows.spread([7]) == (7, 7, 7, 1)
    assert rows.spread([]) == (None, None, None, 0)


def test_row_has_its_shape_and_says_why_a_figure_is_missing() -> None:
    row = rows.make_row("s", "n", "ns", [1234567.8, 2.0], {"bytes": 1}, "note")
    assert row["median"] == 617285.0  # six digits
    assert row["n"] == 2
    rows.check_row(dict(row))
    exact = rows.make_row("s", "n", "bytes", [536870912.0])
    assert exact["median"] == 536870912  # counts are not rounded
    broken = dict(row, median="fast")
    with pytest.raises(ValueError, match="median"):
        rows.check_row(broken)
    with pytest.raises(ValueError, match="keys"):
        rows.check_row({"section": "s"})
    with pytest.raises(ValueError, match="no reason"):
        rows.check_row(dict(rows.make_row("s", "n", "ns", [])))
    rows.check_row(dict(rows.make_row("s", "n", "ns", [float("nan")], note="no time passed")))


def test_report_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "report.json"
    rows.write_json(path, {"rows": [1]})
    rows.write_json(path, {"rows": [1, 2]})
    assert json.loads(path.read_text()) == {"rows": [1, 2]}
    with pytest.raises(TypeError):
        rows.write_json(path, {"rows": [object()]})
    assert json.loads(path.read_text()) == {"rows": [1, 2]}, "a failed write lost the old report"
    assert [p.name for p in path.parent.iterdir()] == ["report.json"]


def test_file_word() -> None:
    assert rows.file_word("NVIDIA H100 80GB HBM3") == "nvidia-h100-80gb-hbm3"
    assert rows.file_word("../a/b c") == "..-a-b-c"
    assert rows.file_word("//") == "unknown"


def test_managed_memory_never_exceeds_a_quarter_of_the_free() -> None:
    limit = rows.ManagedLimit(1001)
    assert limit.limit_bytes == 250
    generator = random.Random(2)
    live: list[int] = []
    for _ in range(2000):
        if live and generator.random() < 0.4:
            limit.give(live.pop(generator.randrange(len(live))))
        else:
            size = generator.randrange(0, 120)
            fits = sum(live) + size <= 250
            try:
                limit.take(size)
                assert fits
                live.append(size)
            except rows.OverLimit:
                assert not fits
        assert limit.live_bytes == sum(live) <= 250
    assert 200 < limit.peak_bytes <= 250
    with pytest.raises(rows.OverLimit):
        limit.take(-1)


def test_fit_halves_until_all_parts_are_within_the_limit() -> None:
    limit = rows.ManagedLimit(4 * 300 * rows.MIB)
    assert limit.fit(256 * rows.MIB) == 256 * rows.MIB
    assert limit.fit(256 * rows.MIB, parts=2) == 128 * rows.MIB
    limit.take(295 * rows.MIB)
    assert limit.fit(256 * rows.MIB) == 4 * rows.MIB
    limit.take(4 * rows.MIB)
    with pytest.raises(rows.OverLimit):
        limit.fit(256 * rows.MIB)


def test_sections_fit_their_time_and_name_no_other() -> None:
    assert all(3 < seconds <= 90 for _, seconds in driver_facts.SECTIONS.values())
    assert sum(seconds for _, seconds in list(driver_facts.SECTIONS.values())[:-1]) <= 285


def ends(pid: int, seconds: float) -> bool:
    """Whether a process is gone (or a zombie of another parent) within `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
        except OSError:
            return True
        if state in "ZX":
            return True
        time.sleep(0.02)
    return False


def test_a_section_that_hangs_is_killed_with_its_children(tmp_path: Path) -> None:
    mark = tmp_path / "pid"
    source = (
        "import subprocess, sys, time\n"
        "print('first', flush=True)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)'])\n"
        f"open({str(mark)!r}, 'w').write(str(child.pid))\n"
        "print('second', flush=True)\n"
        "time.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", source], stdout=subprocess.PIPE, start_new_session=True
    )
    lines: list[bytes] = []
    began = time.monotonic()
    assert driver_facts.read_lines(process, 4, lines.append) == "killed after 4 s"
    assert time.monotonic() - began < 10
    assert lines == [b"first", b"second"]
    assert process.returncode == -signal.SIGKILL
    assert ends(int(mark.read_text()), 10)


def test_a_section_that_dies_is_said_to() -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", "print(1); raise SystemExit(7)"],
        stdout=subprocess.PIPE,
        start_new_session=True,
    )
    assert driver_facts.read_lines(process, 20, lambda line: None) == "ended with 7"


# The driver's signatures


def test_signatures_agree_with_the_list_of_driver_symbols() -> None:
    exports = {symbol.export for symbol in semantics.driver_symbols()}
    assert len(exports) > 500
    assert set(cu.SIGNATURES) <= exports
    source = "".join(p.read_text() for p in (ROOT / "benchmarks").glob("*facts*.py"))
    called = set(re.findall(r'(?:call|code|function)\(\s*"(cu\w+)"', source))
    assert len(called) > 40
    assert called <= set(cu.SIGNATURES)


def test_every_argument_has_a_fixed_type_and_handles_are_pointers() -> None:
    for name, argtypes in cu.SIGNATURES.items():
        assert all(isinstance(t, type) for t in argtypes), name
    assert ctypes.sizeof(cu.AllocationProp) == 32
    assert ctypes.sizeof(cu.MemLocation) == 8
    assert ctypes.sizeof(cu.AccessDesc) == 12
    assert ctypes.sizeof(cu.ArrayDescriptor) == 24
    assert ctypes.sizeof(cu.Array3DDescriptor) == 40
    assert ctypes.sizeof(cu.ArrayRequirements) == 32


@pytest.mark.parametrize("name", sorted(cu.SIGNATURES))
def test_signature_has_as_many_arguments_as_cuda_h(name: str) -> None:
    header = _cuda_h()
    text = header.read_text(errors="replace")
    declared = re.findall(rf"CUDAAPI\s+{name}\s*\(([^)]*)\)\s*;", text)
    base = re.sub(r"_v\d+$", "", name)
    declared += re.findall(rf"CUDAAPI\s+{base}\s*\(([^)]*)\)\s*;", text)
    assert declared, f"{name} is not in {header}"
    counts = {0 if d.strip() in ("", "void") else d.count(",") + 1 for d in declared}
    assert len(cu.SIGNATURES[name]) in counts


def _cuda_h() -> Path:
    """A real cuda.h to compare with: of a CUDA toolkit or of NVIDIA's wheels."""
    places = [*Path("/usr/local").glob("cuda*/include/cuda.h")]
    for entry in sys.path:
        places += Path(entry).glob("nvidia/cu*/include/cuda.h")
        places += Path(entry).glob("nvidia/cuda_runtime/include/cuda.h")
    if not places:
        pytest.skip("no cuda.h on this machine: nothing to compare the signatures with")
    return sorted(places)[0]


# gpu_check's own parts


def test_report_counts_and_writes_each_row(tmp_path: Path) -> None:
    report = Report({"device": "card"}, tmp_path / "r.json", 100)
    with report.check("good") as data:
        data.update(detail="fine", figure=3)
    with report.check("bad"):
        raise FailError("not so")
    with report.check("absent"):
        raise SkipError("not installed")
    with report.check("broken"):
        raise KeyError("x")
    late = Report({}, tmp_path / "late.json", 1)
    with late.check("late"):
        late.need(5)
    assert late.rows[0]["ok"] is None
    assert late.rows[0]["detail"] == "out of time"
    written = json.loads((tmp_path / "r.json").read_text())
    assert [row["ok"] for row in written["rows"]] == [True, False, None, False]
    assert written["rows"][0]["data"] == {"figure": 3}
    assert written["rows"][3]["detail"] == "KeyError: 'x'"
    assert (written["failed"], written["device"]) == (2, "card")
    assert "1 ok, 2 failed, 1 skipped" in report.table()


def test_a_program_that_hangs_is_killed_and_said_to_be() -> None:
    done = run_program([sys.executable, "-c", "import time; time.sleep(600)"], dict(os.environ), 1)
    assert done.late
    with pytest.raises(FailError, match="killed after"):
        done.answer()


def test_a_conversation_with_a_dead_program_fails_in_words() -> None:
    source = "import sys; print('{\"ready\": true}', flush=True); sys.exit('boom')"
    with Conversation([sys.executable, "-c", source], dict(os.environ), 20) as program:
        assert program.read() == {"ready": True}
        with pytest.raises(FailError, match="boom"):
            program.read()


def test_programs_get_none_of_the_callers_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMUV_VRAM", "1")
    monkeypatch.setenv("LD_PRELOAD", "/x.so")
    plain = Target("/d/libcuda.so.1").environment({"A": "b"})
    assert "EMUV_VRAM" not in plain
    assert "LD_PRELOAD" not in plain
    assert "EMUV_DRIVER" not in plain
    assert plain["LD_LIBRARY_PATH"].split(":")[0] == "/d"
    assert plain["PYTHONPATH"].split(":")[0] == str(ROOT)
    assert plain["A"] == "b"
    assert Target("/d/libcuda.so.1").environment(shim=True)["EMUV_DRIVER"] == "/d/libcuda.so.1"


def test_unit_shrinks_to_the_card() -> None:
    gib = 2**30
    assert unit_for(79 * gib, gib) == gib
    assert unit_for(7 * gib, gib) == gib // 2
    assert unit_for(3 * gib, gib) == gib // 4


def test_statistics_of_a_run_are_added_up() -> None:
    def device(number: int, seen: bool, spilled: int, peak: int | None) -> dict[str, Any]:
        counters = dict.fromkeys(
            (
                "spills",
                "denials",
                "denied_bytes",
                "uncounted_calls",
                "prefetch_device_bytes",
                "advised_bytes",
                "peak_physical_bytes",
                "peak_used_bytes",
            ),
            1,
        )
        return {
            **counters,
            "device": number,
            "seen": seen,
            "spilled_bytes": spilled,
            "overhead_bytes": peak,
        }

    document = {
        "processes": [
            {"devices": [device(0, True, 5, None), device(1, True, 100, 9)]},
            {"devices": [device(0, True, 7, 3)]},
            {"devices": [device(0, False, 900, 900)]},
        ]
    }
    totals = device_totals(document)
    assert totals["spilled_bytes"] == 12
    assert totals["overhead_bytes"] == 3
    assert totals["peak_used_bytes"] == 1
    with pytest.raises(FailError, match="not hooked"):
        device_totals({"processes": [{"devices": [device(0, False, 1, 1)]}]})


def test_every_stack_has_its_worker() -> None:
    workers = ROOT / "tests" / "gpu" / "workers"
    for stack in STACKS:
        source = (workers / stack.worker).read_text()
        compile(source, stack.worker, "exec")
        assert "_worker.main(" in source


# Everything that needs no kernel, on the simulated GPU

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


WITHOUT_KERNELS = """
import sys
sys.path.insert(0, {benchmarks!r})
import driver_facts
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
