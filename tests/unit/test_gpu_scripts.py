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

from tests.conftest import ROOT, Compiler, run

sys.path.insert(0, str(ROOT / "benchmarks"))
sys.path.insert(0, str(ROOT / "tests" / "gpu"))

import _facts_cuda as cu
import _facts_rows as rows
import _facts_semantics as semantics
import driver_facts
from _facts_nvml import Link, Nvml
from _gpu_conformance import OWN_CONTEXTS, SUITE, check_conformance, died_in, outcome
from _gpu_process import ALLOCATOR_VARIABLES, Conversation, Done, Target
from _gpu_process import run as run_program
from _gpu_rows import FailError, Report, SkipError
from _gpu_stacks import STACKS, Bed, check_stack, device_totals
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


def test_a_document_says_by_its_name_what_it_is_about(tmp_path: Path) -> None:
    card = {"device": "NVIDIA H100 80GB HBM3", "driver": "580.1.2", "cuda_version": 13000}
    name = "driver-facts-nvidia-h100-80gb-hbm3-580.1.2.json"
    assert driver_facts.output_file(None, "driver-facts", card).name == name
    assert driver_facts.output_file(tmp_path, "driver-facts", card) == tmp_path / name
    file = tmp_path / "x.json"
    assert driver_facts.output_file(file, "driver-facts", card) == file
    unnamed = driver_facts.output_file(tmp_path, "gpu-check", {**card, "driver": ""})
    assert unnamed.name == "gpu-check-nvidia-h100-80gb-hbm3-13000.json"
    assert driver_facts.host()["MemAvailable"] > 0


def runs(pid: str) -> bool:
    """False also for a process that has ended and whose new parent has not asked yet."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state not in "ZX"


def test_told_to_end_the_facts_keep_what_they_have_and_leave_nobody(
    clean_env: dict[str, str], sim: Path, tmp_path: Path
) -> None:
    output = tmp_path / "facts.json"
    command = [sys.executable, FACTS, "--driver", sim, "--output", output]
    process = subprocess.Popen(
        [*map(str, command), "--only", "procaddress,bandwidth,residency"],
        env={**clean_env, "EMUV_SIM_VRAM": str(8 << 30)},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert process.stdout is not None
        for line in process.stdout:
            if line.startswith("procaddress"):
                break
        children = Path(f"/proc/{process.pid}/task/{process.pid}/children")
        until = time.monotonic() + 20
        while not (found := children.read_text().split()) and time.monotonic() < until:
            time.sleep(0.02)
        process.terminate()
        assert process.wait(20) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
        process.stdout.close()
    assert found
    until = time.monotonic() + 20
    while any(map(runs, found)) and time.monotonic() < until:
        time.sleep(0.02)
    assert not any(map(runs, found))
    document = json.loads(output.read_text())
    assert document["sections"]["procaddress"]["problem"] == ""
    assert any(row["section"] == "procaddress" for row in document["rows"])


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
        data.update(detail="fine", figure=3, said=[f"in {ROOT}/x.py"])
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
    assert written["rows"][0]["data"] == {"figure": 3, "said": ["in ./x.py"]}
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
    for name in ALLOCATOR_VARIABLES:
        monkeypatch.setenv(name, "x")
    assert not set(ALLOCATOR_VARIABLES) & set(Target().environment())
    assert Target("/d/libcuda.so.1").environment(shim=True)["EMUV_DRIVER"] == "/d/libcuda.so.1"


@pytest.mark.parametrize(("said", "ok"), [("native", True), ("cudaMallocAsync", False)])
def test_a_row_is_about_the_allocator_it_names(
    said: str, ok: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch = next(stack for stack in STACKS if stack.name == "torch")
    answer = {"digest": "d", "held": 1, "allocator": said}
    done = Done(0, json.dumps(answer), "some words", 1.0, False)
    monkeypatch.setattr("_gpu_stacks.run", lambda *a, **k: done)
    monkeypatch.setattr("_gpu_stacks.installed", lambda module: True)
    bed = Bed(Target(), Report({}, tmp_path / "r.json", 100), None, 1 << 20)
    check_stack(bed, torch)
    plain, capped, _ = bed.report.rows
    assert plain["ok"] is ok, plain
    assert ok or "cudaMallocAsync" in plain["detail"]
    # whatever became of a row, it keeps how its program ended
    assert plain["data"]["stderr"] == "some words"
    assert (capped["ok"], capped["data"]["code"]) == (False, 0)


def test_a_package_that_is_broken_here_costs_one_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numba = next(stack for stack in STACKS if stack.name == "numba-cuda")
    runs: list[Any] = []

    def pretend(*args: Any, **more: Any) -> Done:
        runs.append(args)
        return Done(1, "", "no libnvvm\n", 1.0, False)

    monkeypatch.setattr("_gpu_stacks.run", pretend)
    monkeypatch.setattr("_gpu_stacks.installed", lambda module: True)
    bed = Bed(Target(), Report({}, tmp_path / "r.json", 100), None, 1 << 20)
    check_stack(bed, numba)
    assert [row["ok"] for row in bed.report.rows] == [False, None, None]
    assert bed.report.rows[0]["detail"] == "ended with 1: no libnvvm"
    assert len(runs) == 1


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


def test_a_crash_in_the_conformance_suite_names_its_test() -> None:
    out = "tests/c/test_a.py::test_one PASSED  [ 1%]\ntests/c/test_a.py::test_two[x y] "
    assert died_in(Done(-11, out, "", 1.0, False)) == "tests/c/test_a.py::test_two[x y]"
    assert died_in(Done(-9, out + "FAILED [ 2%]\n", "", 1.0, True)) is None
    assert died_in(Done(1, out, "", 1.0, False)) is None
    text = out + "FAILED\n= short =\nFAILED t.py::test_two[x y] - Boom\n== 1 failed, 1 passed ==\n"
    assert outcome(text) == ("1 failed, 1 passed", ["test_two[x"])


def test_a_conformance_file_that_hangs_does_not_hang_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs: list[list[str]] = []
    out = "t/test_a.py::test_one PASSED  [ 1%]\nt/test_a.py::test_two "

    def pretend(command: list[str], environment: dict[str, str], seconds: float) -> Done:
        runs.append(command)
        hangs = "test_copies" in command[-1]
        crashes = "test_memory" in command[-1] and not any("--deselect" in c for c in command)
        text = out if hangs or crashes else "== 1 passed =="
        return Done(-9 if hangs else -11 if crashes else 0, text, "", 1.0, hangs)

    monkeypatch.setattr("_gpu_conformance.run", pretend)
    bed = Bed(Target(), Report({}, tmp_path / "r.json", 100), None, 1 << 20)
    check_conformance(bed)
    by_name = {row["name"].removeprefix("conformance "): row for row in bed.report.rows}
    assert sum("test_copies" in command[-1] for command in runs) == 1
    assert "killed after 1 s in t/test_a.py::test_two" in by_name["copies"]["detail"]
    assert sum("test_memory" in command[-1] for command in runs) == 2
    assert "died in t/test_a.py::test_two; without: 1 passed" in by_name["memory"]["detail"]
    assert by_name["vmm"]["ok"] is True
    kept = {Path(command[-1]).stem: "_gpu_keep" in command for command in runs}
    assert kept["test_copies"]
    assert not kept["test_contexts"]
    assert {file.stem for file in SUITE.glob("test_*.py")} >= set(OWN_CONTEXTS)


def test_every_stack_has_its_worker() -> None:
    workers = ROOT / "tests" / "gpu" / "workers"
    for stack in STACKS:
        source = (workers / stack.worker).read_text()
        compile(source, stack.worker, "exec")
        assert "_worker.main(" in source


# NVML, as far as a stand-in can show it

NVML_C = r"""
#include <stddef.h>
#include <string.h>

struct memory { unsigned long long total, free, used; };
struct process { unsigned int pid; unsigned long long used; unsigned int gi, ci; };

static unsigned long long reads;
int nvmlInit_v2(void);
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device);
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device);
int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory);
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *n, struct process *p);
int nvmlSystemGetDriverVersion(char *text, unsigned int length);
int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned int *value);
int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned int *value);

int nvmlInit_v2(void) { return 0; }
int nvmlDeviceGetHandleByPciBusId_v2(const char *id, void **device)
{
	*device = (void *)0x7700000000000001;
	return strcmp(id, "0000:01:00.0") ? 2 : 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned int index, void **device)
{
	return nvmlDeviceGetHandleByPciBusId_v2(index ? "" : "0000:01:00.0", device);
}
int nvmlDeviceGetMemoryInfo(void *device, struct memory *memory)
{
	/* stands still at first, then grows: 100, 100, 100, 101, 102, ... MiB */
	reads++;
	memory->used = (100 + (reads > 3 ? reads - 3 : 0)) << 20;
	memory->total = 80ULL << 30;
	memory->free = memory->total - memory->used;
	return device == (void *)0x7700000000000001 ? 0 : 2;
}
int nvmlDeviceGetComputeRunningProcesses_v3(void *device, unsigned int *n, struct process *p)
{
	(void)device;
	if (*n < 3)
		return 7;
	*n = reads > 3 ? 3 : 1;
	p[0] = (struct process){ 11, 5ULL << 30, 0, 0 };
	p[1] = (struct process){ 22, 3ULL << 30, 0, 0 };
	p[2] = (struct process){ 33, ~0ULL, 0, 0 };
	return 0;
}
int nvmlSystemGetDriverVersion(char *text, unsigned int length)
{
	strncpy(text, "580.1.2", length);
	return 0;
}
int nvmlDeviceGetCurrPcieLinkGeneration(void *device, unsigned int *value)
{
	(void)device;
	*value = 5;
	return 0;
}
int nvmlDeviceGetCurrPcieLinkWidth(void *device, unsigned int *value)
{
	(void)device;
	*value = 16;
	return 0;
}
"""


def test_nvml_figures_are_read_and_watched(cc: Compiler) -> None:
    library = cc(NVML_C, name="libnvidia-ml", shared=True)
    assert Nvml.open("0000:02:00.0", path=str(library)) is None
    nvml = Nvml.open("0000:01:00.0", path=str(library))
    assert nvml is not None
    assert nvml.used_bytes() == 100 << 20
    assert (nvml.driver(), nvml.link()) == ("580.1.2", Link(5, 16))
    done = run_program(
        [sys.executable, "-c", "import time; time.sleep(0.5)"], dict(os.environ), 20, nvml
    )
    assert done.baseline == 100 << 20
    assert len(done.samples) >= 5
    assert done.peak == len(done.samples) << 20
    # 11 was there before, and what 33 uses NVML does not say
    assert done.process_peak == 3 << 30
    assert nvml.process_bytes() == {11: 5 << 30, 22: 3 << 30, 33: None}


def test_no_nvml_is_no_error() -> None:
    assert Nvml.open(path="libno-such-nvml.so.1") is None
