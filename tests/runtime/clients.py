# SPDX-License-Identifier: GPL-2.0-only
"""Runs programs that link libcudart on the simulated GPU, in several ways; keeps score.

Each check of each run is a line of the results file, `package/variant/mode/check`. A check
passes, fails, or is not applicable: what it asks for is machine code in the package, which
a simulated GPU cannot run (and which must then fail in words, not give a wrong answer).

    plain   without emuV: the stand-in is preloaded by hand
    roomy   under emuv-run with a budget that holds all that is needed
    tight   under emuv-run with a small budget: what exceeds it must spill
    cap     under emuv-run with a small budget and nothing beyond it
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from tests.numba import results

ROOT = Path(__file__).resolve().parents[2]
SIM = ROOT / "emuv_shim" / "_lib" / "sim"
MIB = 1 << 20
CARD_BYTES = 1024 * MIB
SECONDS = 900


class Mode(NamedTuple):
    name: str
    options: tuple[str, ...] | None  # of emuv-run; None: without it
    visible_bytes: int
    spills: bool = False


class Client(NamedTuple):
    """A program, and the ways in which it is run."""

    name: str
    folder: Path
    libcudart: str
    variants: Mapping[str, Mapping[str, str]]  # environment by name
    modes: Sequence[Mode]
    without: Mapping[tuple[str, str], str] = {}  # (variant, mode) that makes no sense: why
    environment: Mapping[str, str] = {}
    search: Sequence[Path] = ()  # folders of libraries that the package does not find by itself

    def title(self) -> str:
        import importlib.metadata as metadata

        found = [d for d in metadata.distributions() if d.name.split("-")[0] == self.name]
        return f"{found[0].name} {found[0].version} on the simulated GPU"


def environment(client: Client, mode: Mode, work: Path) -> dict[str, str]:
    steers = ("EMUV_", "LD_", "CUDA_", "CUPY_", "PYTORCH_", "PYTHON")
    env = {key: value for key, value in os.environ.items() if not key.startswith(steers)}
    env["PYTHONPATH"] = f"{ROOT}"
    env["HOME"] = str(work)  # where packages keep what they compiled
    env["XDG_CACHE_HOME"] = os.environ.get("EMUV_SUITE_CACHE", str(ROOT / "build" / "cache"))
    env["EMUV_RUNTIME_DIR"] = str(work / "run")
    env["EMUV_SIM_VRAM"] = str(CARD_BYTES)
    env["EMUV_TEST_MODE"] = mode.name
    env["EMUV_TEST_VISIBLE"] = str(mode.visible_bytes)
    search = [str(path) for path in client.search]
    if mode.options is None:
        search.insert(0, str(SIM))
        env["LD_PRELOAD"] = str(SIM / client.libcudart)
    if search:
        env["LD_LIBRARY_PATH"] = ":".join(search)
    return env | dict(client.environment)


def run_once(client: Client, variant: str, mode: Mode, work: Path) -> results.Results:
    label = f"{client.name}/{variant}/{mode.name}"
    stem = work / label.replace("/", "-")
    log, stats = Path(f"{stem}.log"), Path(f"{stem}.json")
    launch = "import sys; from emuv_shim.commands.run import main; sys.exit(main())"
    line = [sys.executable, str(client.folder / "program.py")]
    if mode.options is not None:
        line = [
            *(sys.executable, "-c", launch, "--sim", *mode.options, "--stats", str(stats), "--"),
            *line,
        ]
    env = environment(client, mode, work) | dict(client.variants[variant])
    with log.open("wb") as out:
        process = subprocess.Popen(
            line, env=env, cwd=work, stdin=subprocess.DEVNULL, stdout=out, stderr=out,
            start_new_session=True,
        )  # fmt: skip
        try:
            code = process.wait(SECONDS)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
    found = read_log(label, log)
    end = f"signal {-code}" if code < 0 else f"exit code {code}"
    ended = "passed" if code in (0, 1) and found else "failed"
    found[f"{label}/to-its-end"] = results.Result(ended, end if ended == "failed" else "")
    if mode.spills:
        outcome = "passed" if spilled(stats) > 0 else "failed"
        found[f"{label}/spilled"] = results.Result(outcome, "")
    return found


def read_log(label: str, log: Path) -> results.Results:
    words = {"ok": "passed", "failed": "failed", "n/a": "not-applicable"}
    found: results.Results = {}
    for text in log.read_text(errors="replace").splitlines():
        word, _, rest = text.partition(" ")
        if word in words:
            check, _, reason = rest.partition(" ")
            found[f"{label}/{check}"] = results.Result(words[word], results.one_line(reason))
    return found


def spilled(stats: Path) -> int:
    """Bytes of allocations that were placed beyond the budget."""
    try:
        processes = json.loads(stats.read_text())["processes"]
    except (OSError, ValueError):
        return 0
    return sum(int(device["spilled_bytes"]) for one in processes for device in one["devices"])


def main(client: Client) -> int:
    parser = argparse.ArgumentParser(description=f"Runs {client.name} on the simulated GPU.")
    parser.add_argument("--save", action="store_true", help="the new list is the one to keep")
    parser.add_argument("modes", nargs="*", help="only these modes")
    arguments = parser.parse_args()
    work = ROOT / "build" / client.name
    shutil.rmtree(work, ignore_errors=True)
    (work / "run").mkdir(parents=True, mode=0o700)
    total: results.Results = {}
    for variant in client.variants:
        for mode in client.modes:
            if arguments.modes and mode.name not in arguments.modes:
                continue
            why = client.without.get((variant, mode.name))
            if why:
                label = f"{client.name}/{variant}/{mode.name}"
                total[f"{label}/all"] = results.Result("not-applicable", why)
                continue
            found = run_once(client, variant, mode, work)
            n = results.counts(found)
            parts = f"{n['passed']} passed, {n['failed']} failed, {n['not-applicable']} n/a"
            print(f"{client.name}, {variant}, {mode.name}: {parts}", flush=True)
            for check, result in found.items():
                if result.outcome == "failed":
                    print(f"  failed: {check}: {result.reason}")
            total.update(found)
    title = client.title()
    results.write(work / "results.txt", total, title)
    kept = client.folder / "results.txt"
    before = {
        name: result
        for name, result in results.read(kept).items()
        if not arguments.modes or name.split("/")[2] in arguments.modes
    }
    worse = results.regressions(before, total)
    for check in worse:
        print(f"passed before: {check}")
    print(results.summary(total))
    if worse:
        return 1
    if arguments.save and not arguments.modes:
        results.write(kept, total, title)
    return 0
