# SPDX-License-Identifier: GPL-2.0-only
"""The benchmarks: their arithmetic, their guards, and that they run.  No timing is asserted."""

from __future__ import annotations

import argparse
import json
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from referencing import Registry, Resource

from tests.conftest import ROOT, WARNINGS

sys.path.insert(0, str(ROOT / "benchmarks"))

import _bench
import _figures
import alloc_free
import forwarded_call
import kernels
import launcher_start
import prefetch
import run_all
import torch_step
import vmm_round
from _bench import BenchmarkError, Calls, Programs, Summary

SCHEMA = json.loads((ROOT / "benchmarks" / "result.schema.json").read_text())
FIGURES = json.loads((ROOT / "benchmarks" / "figures.schema.json").read_text())
RESULTS = sorted(
    path
    for name in (b.__name__ for b in (*run_all.BENCHMARKS, *run_all.FIGURES, torch_step))
    for path in run_all.RESULTS.glob(f"{name}.*.json")
)


@pytest.fixture(scope="module")
def programs(libemuv: Path, sim: Path) -> Iterator[Programs]:
    with _bench.programs() as compiled:
        yield compiled


def test_summary_of_known_samples() -> None:
    assert Summary.of([5, 1, 4, 2, 3]) == Summary(3, 2, 4, 5)
    assert Summary.of([7.5]) == Summary(7.5, 7.5, 7.5, 1)
    assert Summary(1.23456, 0, 2, 9).json() == {"median": 1.235, "p25": 0, "p75": 2, "n": 9}


def test_compare_takes_differences_of_neighbours() -> None:
    # A machine that slows down in the middle: the difference stays what it is.
    compared = _bench.compare([10, 10, 100, 100], [15, 15, 105, 105])
    assert compared["added"] == {"median": 5, "p25": 5, "p75": 5, "n": 4}
    assert compared["plain"]["median"] == 55
    assert compared["ratio"] == pytest.approx(60 / 55, abs=0.001)
    with pytest.raises(ValueError, match="zip"):
        _bench.compare([1, 2], [1])


@pytest.mark.parametrize("source", ["calls.c", "kernels.c", "null_driver.c"])
def test_c_programs_compile_without_a_warning(source: str, tmp_path: Path) -> None:
    _bench.compile_c(source, tmp_path / "object.o", "-c", "-fPIC", *WARNINGS, "-Werror")


def test_a_program_that_does_not_compile_is_an_error_in_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_bench, "SOURCES", tmp_path)
    (tmp_path / "bad.c").write_text("int main(void) { return nothing; }\n")
    with pytest.raises(BenchmarkError, match=r"bad\.c(.|\n)*nothing"):
        _bench.compile_c("bad.c", tmp_path / "bad")


def test_the_emuv_side_is_under_emuv(programs: Programs) -> None:
    """A budget too small for one allocation refuses it; the plain side knows no budget."""
    plain = _bench.environment(programs.null_driver)
    with Calls(programs.calls, plain, "pair", size=512) as calls:
        wall, cpu = calls.batch()
        assert wall > 0
        assert cpu > 0
        assert (calls.device, calls.driver_version) == ("null driver", 13000)
    small = _bench.under_emuv(plain, programs.null_driver, programs.runtime, vram=511)
    with pytest.raises(BenchmarkError, match="ended with status 1"):
        Calls(programs.calls, small, "pair", size=512)
    enough = _bench.under_emuv(plain, programs.null_driver, programs.runtime, vram=1024)
    with Calls(programs.calls, enough, "pair", size=512, count=10) as calls:
        assert calls.batch()[0] > 0


def test_a_preload_that_failed_is_not_measured(
    programs: Programs, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    plain = _bench.environment(programs.null_driver)
    monkeypatch.setattr(_bench, "LIBRARY", programs.runtime / "libemuv.so")
    env = _bench.under_emuv(plain, programs.null_driver, programs.runtime, vram=1 << 30)
    with pytest.raises(BenchmarkError, match=r"libemuv\.so is not in the program"):
        Calls(programs.calls, env, "pair")
    assert "cannot be preloaded" in capfd.readouterr().err  # the loader only warned


@pytest.mark.parametrize(
    "arguments",
    [("nothing", 1, 512, 1, 1), ("pair", 1, 512, 2, 1), ("pair", 1, 0, 1, 1), ("pair",)],
    ids=["operation", "fewer-live-than-threads", "no-bytes", "too-few"],
)
def test_calls_refuses_what_it_cannot_do(
    programs: Programs, arguments: tuple[object, ...]
) -> None:
    done = subprocess.run(
        [programs.calls, *map(str, arguments)], capture_output=True, text=True, timeout=10,
        env=_bench.environment(programs.null_driver), stdin=subprocess.DEVNULL,
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr


def test_all_operations_run_on_the_simulated_gpu(programs: Programs, sim: Path) -> None:
    env = _bench.environment(sim)
    for operation in {c.operation for c in (*alloc_free.CELLS, *vmm_round.CELLS, *prefetch.CELLS)}:
        size = vmm_round.PAGE if operation.startswith("vmm") else 512
        with Calls(programs.calls, env, operation, 4, size, 2, 20) as calls:
            assert calls.batch()[0] > 0


def check(document: dict[str, Any]) -> None:
    """`document` is a result, and tells nothing of whose machine it was made on."""
    if "unit" in document:
        jsonschema.validate(document, SCHEMA)
    else:
        registry = Registry().with_resource("result.schema.json", Resource.from_contents(SCHEMA))
        jsonschema.Draft202012Validator(FIGURES, registry=registry).validate(document)
    names = [row["name"] for row in document["rows"]]
    assert len(set(names)) == len(names)
    for row in document["rows"]:
        if "figure" in row:
            assert 0 < row["figure"]["p25"] <= row["figure"]["median"] <= row["figure"]["p75"]
            continue
        for side in ("plain", "emuv"):
            assert 0 < row[side]["p25"] <= row[side]["median"] <= row[side]["p75"]
            assert row[side]["n"] == row["added"]["n"]
    text = json.dumps(document)
    assert platform.node() not in document["machine"].values()
    assert "/home/" not in text
    assert "/tmp/" not in text


@pytest.mark.parametrize("benchmark", run_all.BENCHMARKS, ids=lambda b: b.__name__)
def test_quick_run(
    benchmark: Any, libemuv: Path, sim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "results" / "out.json"
    arguments = ["--quick", "--output", str(target)]
    assert _bench.run(benchmark.measure, benchmark.parser().parse_args(arguments)) == 0
    document = json.loads(target.read_text())
    check(document)
    assert document["benchmark"] == benchmark.__name__
    shown = capsys.readouterr().out
    assert all(row["name"] in shown for row in document["rows"])


def test_quick_run_of_kernels(
    sim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    target = tmp_path / "out.json"
    arguments = ["--quick", "--output", str(target)]
    assert _figures.run(kernels.measure, kernels.parser().parse_args(arguments)) == 0
    document = json.loads(target.read_text())
    check(document)
    assert document["benchmark"] == "kernels"
    shown = capsys.readouterr().out
    assert all(row["name"] in shown for row in document["rows"])


def test_goals_are_met_or_missed() -> None:
    assert _figures.met(_figures.row("a", "ms", [1, 2, 9], at_most=2)) is True
    assert _figures.met(_figures.row("a", "ms", [1, 2.1, 9], at_most=2)) is False
    assert _figures.met(_figures.row("a", "M/s", [5], at_least=6)) is False
    assert _figures.met(_figures.row("a", "M/s", [5])) is None


def test_a_missing_driver_is_an_error_in_words(
    libemuv: Path, sim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    driver = tmp_path / "libcuda.so.580"
    arguments = ["--quick", "--driver", str(driver)]
    options = forwarded_call.parser().parse_args(arguments)
    assert _bench.run(forwarded_call.measure, options) == 1
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("emuv: error: ")
    assert str(tmp_path) in captured.err


def test_a_failing_program_is_not_timed() -> None:
    with pytest.raises(BenchmarkError, match="ended with status"):
        launcher_start.run_once((["/bin/false"], {}))


@pytest.mark.parametrize("text", ["", "Two words", "../x", "a" * 65])
def test_labels_that_are_no_file_names(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="small letters"):
        run_all.label(text)


@pytest.mark.parametrize("path", RESULTS, ids=lambda p: p.stem)
def test_committed_results(path: Path) -> None:
    document = json.loads(path.read_text())
    check(document)
    assert document["benchmark"] == path.name.split(".")[0]
    assert document["commit"]
    assert not document["commit"].endswith("-dirty")


def test_torch_step_says_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    python = tmp_path / "python"
    python.write_text("#!/bin/sh\necho 'ModuleNotFoundError: no torch' >&2\nexit 1\n")
    python.chmod(0o755)
    options = torch_step.parser().parse_args(["--quick", "--python", str(python)])
    assert _bench.run(torch_step.measure, options) == 1
    said = capsys.readouterr().err
    assert str(python) in said
    assert "no torch" in said
    assert "make test-torch" in said
