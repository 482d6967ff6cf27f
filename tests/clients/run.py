# SPDX-License-Identifier: GPL-2.0-only
"""Runs programs on packages of other makers, on the simulated GPU under emuv-run.

    run.py [--save] [NAME…]

Each program runs twice: with a budget that holds all it needs, and with one of 16 MiB,
past which it must spill. Each check of each run is a line of build/clients/results.txt,
which is compared with results.txt beside this file: exit code 1 where one that passed
before does not. --save (with no such check) makes the new list the one to compare with.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path.insert(0, str(ROOT))
from tests.numba import results  # noqa: E402

SECONDS = 600


class Program(NamedTuple):
    file: str
    package: str
    environment: dict[str, str]


class Budget(NamedTuple):
    name: str
    options: tuple[str, ...]
    spills: bool


PROGRAMS = {
    "drjit": Program("drjit_program.py", "drjit", {}),
    "tinygrad": Program("tinygrad_program.py", "tinygrad", {"DEV": "CUDA:PTX"}),
}
BUDGETS = (
    Budget("roomy", ("--vram", "1GiB"), False),
    Budget("tight", ("--vram", "16MiB", "--virtual", "2GiB"), True),
)


def environment(work: Path) -> dict[str, str]:
    steers = ("EMUV_", "LD_", "CUDA_", "PYTHON", "DEV")
    env = {key: value for key, value in os.environ.items() if not key.startswith(steers)}
    env["PYTHONPATH"] = f"{HERE}:{ROOT}"
    env["XDG_CACHE_HOME"] = os.environ.get("EMUV_SUITE_CACHE", str(ROOT / "build" / "cache"))
    env["EMUV_RUNTIME_DIR"] = str(work / "run")
    env["HOME"] = str(work)  # where packages keep what they compiled
    return env


def run_program(name: str, budget: Budget, work: Path) -> results.Results:
    program = PROGRAMS[name]
    label = f"{name}/{budget.name}"
    log, stats = work / f"{name}-{budget.name}.log", work / f"{name}-{budget.name}.json"
    launch = "import sys; from emuv_shim.commands.run import main; sys.exit(main())"
    line = [
        *(sys.executable, "-c", launch, "--sim", *budget.options, "--stats", str(stats), "--"),
        *(sys.executable, str(HERE / program.file)),
    ]
    with log.open("wb") as out:
        process = subprocess.Popen(
            line, env=environment(work) | program.environment, cwd=work,
            stdin=subprocess.DEVNULL, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    found: results.Results = {}
    for text in log.read_text(errors="replace").splitlines():
        word, _, rest = text.partition(" ")
        if word in ("ok", "failed"):
            check, _, reason = rest.partition(" ")
            outcome = "passed" if word == "ok" else "failed"
            found[f"{label}/{check}"] = results.judge(outcome, reason)
    if code not in (0, 1) or not found:
        end = f"signal {-code}" if code < 0 else f"exit code {code}"
        found[f"{label}/to-its-end"] = results.Result("failed", end)
    else:
        found[f"{label}/to-its-end"] = results.Result("passed", "")
    if budget.spills:
        passed = spilled(stats) > 0
        found[f"{label}/spilled"] = results.Result("passed" if passed else "failed", "")
    return found


def spilled(stats: Path) -> int:
    """Bytes of allocations that were placed beyond the budget."""
    try:
        processes = json.loads(stats.read_text())["processes"]
    except (OSError, ValueError):
        return 0
    return sum(int(device["spilled_bytes"]) for one in processes for device in one["devices"])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--save", action="store_true", help="the new list is the one to keep")
    parser.add_argument("names", nargs="*", choices=[*PROGRAMS, []], help="programs")
    arguments = parser.parse_args()
    work = ROOT / "build" / "clients"
    shutil.rmtree(work, ignore_errors=True)
    (work / "run").mkdir(parents=True, mode=0o700)
    names = arguments.names or list(PROGRAMS)
    total: results.Results = {}
    for name in names:
        for budget in BUDGETS:
            found = run_program(name, budget, work)
            n = results.counts(found)
            print(f"{name}, {budget.name}: {n['passed']} passed, {n['failed']} failed", flush=True)
            for check, result in found.items():
                if result.outcome == "failed":
                    print(f"  failed: {check}: {result.reason}")
            total.update(found)
    versions = [f"{name} {importlib.metadata.version(PROGRAMS[name].package)}" for name in names]
    title = f"{', '.join(versions)} under emuv-run --sim"
    results.write(work / "results.txt", total, title)
    kept = HERE / "results.txt"
    before = results.read(kept)
    worse = results.regressions(
        {check: old for check, old in before.items() if check.split("/")[0] in names}, total
    )
    for check in worse:
        print(f"passed before: {check}")
    print(results.summary(total))
    if worse:
        return 1
    if arguments.save and not arguments.names:
        results.write(kept, total, title)
    return 0


if __name__ == "__main__":
    sys.exit(main())
