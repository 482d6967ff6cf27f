# SPDX-License-Identifier: GPL-2.0-only
"""Runs numba-cuda's own test suite, as its wheel installs it, on the simulated GPU.

    run.py [--emuv] [--save] [--only FILE] [NAME…]

One process for each module of the suite (with --only, as many processes as there are
cores), two at a time, each test with a time limit. The outcome of each test goes to
build/numba-suite*/results.txt and is compared with results.txt beside this file: exit
code 1 where a test that passed before does not. --save (with no such test) makes the
new list the one to compare with. --emuv runs the suite under `emuv-run --vram 16MiB
--virtual 2GiB` and fails, too, where nothing spilled. --only: names of tests, one a
line; NAME: modules, as cudapy.test_sm.
"""

from __future__ import annotations

import argparse
import concurrent.futures
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import results

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SIM = ROOT / "emuv_shim" / "_lib" / "sim"
TEST_SECONDS = 120
MODULE_SECONDS = 1200
BUDGET = ("--vram", "16MiB", "--virtual", "2GiB")
ENDS = (0, 1, 5)  # pytest's exit codes for: passed, failed, nothing left to run


class Outcome(NamedTuple):
    results: results.Results
    log: str
    spilled_bytes: int
    seconds: float


def suite_folder() -> Path:
    """numba_cuda/numba/cuda/tests of the installed wheel."""
    wheel = importlib.metadata.distribution("numba-cuda")
    return Path(str(wheel.locate_file("numba_cuda"))) / "numba" / "cuda" / "tests"


def environment(work: Path, emuv: bool) -> dict[str, str]:
    """A clean one, with the simulated GPU as libcuda.so.1 and caches under `work`."""
    steers = ("EMUV_", "LD_", "CUDA_", "NUMBA_", "PYTHON")
    env = {key: value for key, value in os.environ.items() if not key.startswith(steers)}
    env["PYTHONPATH"] = f"{HERE}:{ROOT}"
    env["PYTHONDONTWRITEBYTECODE"] = "1"
    env["XDG_CACHE_HOME"] = os.environ.get("EMUV_SUITE_CACHE", str(ROOT / "build" / "cache"))
    env["EMUV_RUNTIME_DIR"] = str(work / "run")
    if not emuv:
        env["LD_LIBRARY_PATH"] = str(SIM)
    return env


def command(modules: list[Path], suite: Path, stats: Path | None) -> list[str]:
    pytest = ["-m", "pytest", "-c", str(HERE / "suite.ini"), f"--rootdir={suite}"]
    line = [sys.executable, *pytest, f"--timeout={TEST_SECONDS}", *map(str, modules)]
    if stats is None:
        return line
    launch = "import sys; from emuv_shim.commands.run import main; sys.exit(main())"
    return [sys.executable, "-c", launch, "--sim", *BUDGET, "--stats", str(stats), "--", *line]


def run_once(line: list[str], env: dict[str, str], log: Path, limit: float) -> int:
    """The exit code; minus the signal that ended it; the limit kills it whole."""
    with log.open("ab") as out:
        process = subprocess.Popen(
            line, env=env, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            return process.wait(max(1.0, limit))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()


def spilled(stats: Path) -> int:
    """Bytes of allocations that were placed beyond the budget, of all processes of a run."""
    try:
        report = json.loads(stats.read_text())
    except (OSError, ValueError):
        return 0
    return sum(
        int(device["spilled_bytes"])
        for process in report.get("processes", [])
        for device in process.get("devices", [])
    )


def run_modules(
    modules: list[Path], suite: Path, work: Path, emuv: bool, only: frozenset[str]
) -> Outcome:
    """All tests of the modules, in as many processes as their crashes make necessary."""
    name = ".".join(modules[0].relative_to(suite).with_suffix("").parts)
    folder = work / "modules" / name
    folder.mkdir(parents=True)
    events, log, stats = folder / "events", folder / "log", folder / "stats.json"
    env = environment(work, emuv) | {"EMUV_SUITE_EVENTS": str(events)}
    env["EMUV_SUITE_ONLY"] = "\n".join(only)
    started = time.monotonic()
    found: results.Results = {}
    bytes_spilled = 0
    while True:
        left = MODULE_SECONDS - (time.monotonic() - started)
        known = len(found)
        code = run_once(command(modules, suite, stats if emuv else None), env, log, left)
        bytes_spilled += spilled(stats)
        ended, current = read_events(events)
        if current is not None:
            reason = f"the process ended in it ({describe(code, log)})"
            event = {"id": current, "outcome": "failed", "reason": reason}
            with events.open("a") as file:
                file.write(json.dumps(event) + "\n")
            ended[current] = ("failed", reason)
        found = {test: results.judge(*outcome) for test, outcome in ended.items()}
        if code in ENDS or left <= 1:
            break
        if len(found) == known:
            found[f"{modules[0].relative_to(suite)}"] = results.Result(
                "failed", f"the process came to nothing ({describe(code, log)})"
            )
            break
    text = log.read_text(errors="replace") if log.exists() else ""
    return Outcome(found, text, bytes_spilled, time.monotonic() - started)


def read_events(path: Path) -> tuple[dict[str, tuple[str, str]], str | None]:
    """({test: (outcome, reason)}, the test that started and did not end)."""
    ended: dict[str, tuple[str, str]] = {}
    current: str | None = None
    if path.exists():
        for line in path.read_text().splitlines():
            event = json.loads(line)
            if "start" in event:
                current = event["id"]
            elif "outcome" in event:
                ended[event["id"]] = (event["outcome"], event["reason"])
                current = None
    return ended, current


def describe(code: int, log: Path) -> str:
    text = log.read_text(errors="replace")[-20000:] if log.exists() else ""
    if re.search(r"\+ Timeout \+", text):
        return f"no end after {TEST_SECONDS} s"
    return f"signal {-code}" if code < 0 else f"exit code {code}"


def modules(suite: Path, names: list[str], only: frozenset[str]) -> list[Path]:
    """The largest first: they take longest. Benchmarks are no tests."""
    found = sorted(suite.rglob("test_*.py"), key=lambda path: (-path.stat().st_size, str(path)))
    chosen = []
    for path in found:
        relative = path.relative_to(suite)
        name = ".".join(relative.with_suffix("").parts)
        if relative.parts[0] == "benchmarks" or (names and name not in names):
            continue
        if only and not any(test.startswith(f"{relative}::") for test in only):
            continue
        chosen.append(path)
    return chosen


def run_all(
    groups: list[list[Path]],
    suite: Path,
    work: Path,
    emuv: bool,
    only: frozenset[str],
    jobs: int,
) -> tuple[results.Results, int]:
    total: results.Results = {}
    bytes_spilled = 0
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        futures = {
            pool.submit(run_modules, group, suite, work, emuv, only): group[0].relative_to(suite)
            for group in groups
        }
        for done, future in enumerate(concurrent.futures.as_completed(futures), start=1):
            outcome = future.result()
            total.update(outcome.results)
            bytes_spilled += outcome.spilled_bytes
            n = results.counts(outcome.results)
            print(
                f"[{done}/{len(groups)}] {futures[future]}: "
                f"{n['passed']} passed, {n['failed']} failed, {outcome.seconds:.0f} s",
                flush=True,
            )
    return total, bytes_spilled


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--emuv", action="store_true", help="under emuv-run, with a budget")
    parser.add_argument("--save", action="store_true", help="the new list is the one to keep")
    parser.add_argument("--only", type=Path, help="file with names of tests, one a line")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1))
    parser.add_argument("--work", type=Path, help="folder for logs and the new list")
    parser.add_argument("names", nargs="*", help="modules, as cudapy.test_sm")
    arguments = parser.parse_args()
    only: frozenset[str] = frozenset()
    if arguments.only:
        lines = arguments.only.read_text().splitlines()
        only = frozenset(line for line in lines if line and not line.startswith("#"))
    suite = suite_folder()
    label = "numba-suite-emuv" if arguments.emuv else "numba-suite"
    work: Path = arguments.work or ROOT / "build" / label
    shutil.rmtree(work, ignore_errors=True)
    (work / "run").mkdir(parents=True, mode=0o700)
    chosen = modules(suite, arguments.names, only)
    # Starting a process takes longer than a few tests.
    jobs = arguments.jobs
    groups = [chosen[i::jobs] for i in range(jobs)] if only else [[path] for path in chosen]
    groups = [group for group in groups if group]
    total, bytes_spilled = run_all(groups, suite, work, arguments.emuv, only, jobs)
    title = f"numba-cuda {importlib.metadata.version('numba-cuda')}, its own tests"
    results.write(work / "results.txt", total, title)
    kept = HERE / "results.txt"
    before = results.read(kept)
    if arguments.names or only:
        ran = {path.relative_to(suite).as_posix() for path in chosen}
        before = {
            test: result
            for test, result in before.items()
            if (test in only if only else test.split("::")[0] in ran)
        }
    return report(arguments, total, before, bytes_spilled, kept, title)


def report(
    arguments: argparse.Namespace,
    total: results.Results,
    before: results.Results,
    bytes_spilled: int,
    kept: Path,
    title: str,
) -> int:
    worse = results.regressions(before, total)
    for test in worse:
        print(f"passed before: {test}: {total.get(test, ('gone', ''))[1] or 'gone'}")
    print(results.summary(total))
    if arguments.emuv:
        print(f"spilled beyond the budget: {bytes_spilled} bytes")
        if not bytes_spilled:
            print("nothing spilled: the budget was not in force")
            return 1
    if worse:
        return 1
    if arguments.save:
        whole = not (arguments.names or arguments.only or arguments.emuv)
        results.write(kept, total if whole else results.read(kept) | total, title)
    return 0


if __name__ == "__main__":
    sys.exit(main())
