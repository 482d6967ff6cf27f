#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""What the CUDA driver really does: the figures emuV's design rests on, measured in minutes.

    python benchmarks/driver_facts.py [--output FILE] [--only SECTION,...] [--seconds N]

Purpose: `make gpu-facts`.  Needs an NVIDIA driver and nothing else (no package, no compiler);
writes one JSON document with a row a figure: {section, name, unit, median, p25, p75, n, params,
note}.  Without a GPU it says so in one line and exits 0.

Invariants
- Every section runs in a process of its own and may be killed: no failure or hang loses the rest,
  and none outlives this process.
- The document is rewritten whole as rows come in (of a burst, not after each: the section must
  not wait for the disk), after each section, and when this process is told to end.
- No process holds more managed memory than a quarter of what was free when it began.
- The card's settings are left as they are.

Exit status: 0 done, or no GPU; 1 no section could be measured; 2 usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone
from pathlib import Path
from types import FrameType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import _facts_bandwidth
import _facts_costs
import _facts_cuda as cu
import _facts_footprint
import _facts_remote
import _facts_residency
import _facts_semantics
import _facts_stacks
import _facts_vmm
from _facts_bench import Bench
from _facts_nvml import Nvml
from _facts_rows import check_row, file_word, make_row, write_json

ROOT = Path(__file__).resolve().parent.parent
SCHEMA = "emuv-driver-facts/1"
NO_GPU = 3  # exit status of the child that looks for a card
GRACE = 8.0  # seconds a section may overrun before it is killed
WRITE_SECONDS = 0.2
END_SECONDS = 10.0  # for a killed process to go: one inside the kernel driver may not

Section = Callable[[Bench], None]

# Sections that time kernels: the card's clocks are up before their first figure.
WARM = ("bandwidth", "remote", "waiting", "discard")

# In the order of what the design needs most; seconds each may take.
SECTIONS: dict[str, tuple[Section, float]] = {
    "residency": (_facts_residency.residency, 40),
    "bandwidth": (_facts_bandwidth.bandwidth, 40),
    "remote": (_facts_remote.remote, 40),
    "costs": (_facts_costs.costs, 35),
    "waiting": (_facts_semantics.waiting, 25),
    "discard": (_facts_semantics.discard, 25),
    "capture": (_facts_semantics.capture, 15),
    "vmm": (_facts_vmm.vmm, 12),
    "procaddress": (_facts_semantics.procaddress, 10),
    "footprint": (_facts_footprint.footprint, 20),
    "contexts": (_facts_footprint.contexts, 20),
    "stacks": (_facts_stacks.stacks, 90),
}


def describe(driver: str) -> dict[str, Any]:
    """The card, as the driver and NVML describe it.

    Raises OSError (no driver), cu.CudaError (it will not start), LookupError (no device).
    """
    cuda = cu.Cuda(driver)
    if cuda.start() < 1:
        raise LookupError("the driver sees no device")
    nvml = Nvml.open(cuda.pci_bus_id(0))
    link = nvml.link() if nvml else None
    cuda.retain(0)  # for the free bytes; this process ends at once
    return {
        "device": cuda.device_name(0),
        "pci_bus_id": cuda.pci_bus_id(0),
        "free_bytes": cuda.memory()[0],
        "total_bytes": cuda.memory()[1],
        "driver": nvml.driver() if nvml else "",
        "cuda_version": cuda.version,
        "nvml": nvml is not None,
        "used_bytes_at_start": nvml.used_bytes() if nvml else None,
        "pcie_generation": link.generation if link else None,
        "pcie_lanes": link.width if link else None,
        "attributes": {name: cuda.attribute(number, 0) for name, number in cu.ATTRIBUTES.items()},
    }


def child(kind: str, driver: str, seconds: float) -> int:
    """What a child process does; its rows go to standard output as JSON lines."""
    if kind == "describe":
        try:
            print(json.dumps(describe(driver)))
        except OSError as error:
            print(f"{driver} cannot be loaded: {error}")
            return NO_GPU
        except (cu.CudaError, cu.Missing, LookupError) as error:
            print(error)
            return NO_GPU
        return 0
    if kind == "meminfo":
        return _facts_residency.meminfo_child(driver)
    if kind == "context":
        return _facts_footprint.context_child(driver)
    bench = Bench(kind, driver, seconds)
    if kind != "stacks":  # that one only starts programs; a context here would be in their way
        with bench.attempt(kind):
            bench.start()
            if kind in WARM:
                bench.warm_up()
            SECTIONS[kind][0](bench)
        return 0
    with bench.attempt(kind):
        SECTIONS[kind][0](bench)
    return 0


def start_child(kind: str, driver: str, seconds: float = 0.0) -> subprocess.Popen[bytes]:
    """Start this script as a child in a process group of its own."""
    command = [
        sys.executable,
        str(Path(__file__).resolve()),
        "--child",
        kind,
        "--driver",
        driver,
        "--seconds",
        str(seconds),
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        start_new_session=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def read_lines(
    process: subprocess.Popen[bytes], seconds: float, take: Callable[[bytes], None]
) -> str:
    """Hand each line the child prints to `take`, for at most `seconds`.

    Returns "" when it ended well, else why not.  The child's whole group is gone afterwards.
    """
    assert process.stdout is not None
    deadline = time.monotonic() + seconds
    selector = selectors.DefaultSelector()
    selector.register(process.stdout, selectors.EVENT_READ)
    pending = b""
    try:
        while True:
            left = deadline - time.monotonic()
            if left <= 0 or not selector.select(left):
                return f"killed after {seconds:.0f} s"
            data = os.read(process.stdout.fileno(), 1 << 16)
            if not data:
                break
            *lines, pending = (pending + data).split(b"\n")
            for line in lines:
                take(line)
        try:
            code = process.wait(max(1.0, deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            return "did not end"
        return f"ended with {code}" if code else ""
    finally:
        selector.close()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_SECONDS)
        process.stdout.close()


def look_for_card(driver: str) -> tuple[dict[str, Any] | None, str]:
    """(description, "") or (None, why there is none), asked in a child so that nothing can hang."""
    process = start_child("describe", driver)
    lines: list[str] = []
    problem = read_lines(process, 60.0, lambda line: lines.append(line.decode(errors="replace")))
    said = lines[-1] if lines else ""
    if not problem:
        return json.loads(said), ""
    return None, said if problem == f"ended with {NO_GPU}" else f"{problem} {said}".strip()


def commit() -> str:
    """The commit of the tree, "+" appended where it has changes; EMUV_COMMIT where set."""
    named = os.environ.get("EMUV_COMMIT")
    if named:
        return named
    try:
        head = subprocess.run(
            ["git", "rev-parse", "HEAD"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout.strip()
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno"],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return head + ("+" if dirty.strip() else "")


def host() -> dict[str, Any]:
    """This machine, as far as it bears on the figures; bytes as they are now."""
    memory: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError, IndexError):
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name in ("MemTotal", "MemAvailable"):
                memory[name] = int(value.split()[0]) * 1024
    with contextlib.suppress(OSError):
        memory["numa_nodes"] = len(list(Path("/sys/devices/system/node").glob("node[0-9]*")))
    return {
        "kernel": platform.release(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
        **memory,
    }


def output_file(given: Path | None, kind: str, card: dict[str, Any]) -> Path:
    """Where the document goes: a file as given; in a folder, or by default in
    benchmarks/results, under the name that says kind, card and driver."""
    name = (
        f"{kind}-{file_word(card['device'])}-"
        f"{file_word(card['driver'] or str(card['cuda_version']))}.json"
    )
    if given is None:
        return ROOT / "benchmarks" / "results" / name
    return given / name if given.is_dir() else given


def stop(signum: int, frame: FrameType | None) -> None:
    """Told to end: leave by an exception, so that every child is ended too."""
    raise SystemExit(128 + signum)


def measure(arguments: argparse.Namespace, card: dict[str, Any], output: Path) -> int:
    """Run the sections; returns how many rows carry a figure."""
    began = time.monotonic()
    document: dict[str, Any] = {
        "schema": SCHEMA,
        **card,
        "commit": commit(),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "host": host(),
        "rows": [],
        "sections": {},
    }
    rows: list[Any] = document["rows"]
    written = time.monotonic()
    # Held to the end: a card that nobody has open may switch itself off between two sections.
    nvml = Nvml.open(str(card["pci_bus_id"])) if card["nvml"] else None

    def take(line: bytes) -> None:
        nonlocal written
        try:
            row = json.loads(line)
            check_row(row)
        except ValueError:
            return  # not a row: something a library printed
        rows.append(row)
        if time.monotonic() - written > WRITE_SECONDS:
            write_json(output, document)
            written = time.monotonic()

    try:
        for name in arguments.only or SECTIONS:
            left = arguments.seconds - (time.monotonic() - began)
            allowed = min(SECTIONS[name][1], left - GRACE)
            if allowed < 3:
                rows.append(make_row(name, name, "", [], note="out of time"))
                document["sections"][name] = {"seconds": 0.0, "problem": "out of time"}
                write_json(output, document)
                continue
            since = time.monotonic()
            problem = read_lines(
                start_child(name, arguments.driver, allowed), allowed + GRACE, take
            )
            if problem:
                rows.append(make_row(name, name, "", [], note=f"the section {problem}"))
            taken = round(time.monotonic() - since, 2)
            document["sections"][name] = {"seconds": taken, "problem": problem}
            if nvml:
                document["used_bytes_at_end"] = nvml.used_bytes()
            document["seconds"] = round(time.monotonic() - began, 1)
            write_json(output, document)
            figures = sum(r["section"] == name and r["median"] is not None for r in rows)
            missing = sum(r["section"] == name and r["median"] is None for r in rows)
            print(
                f"{name:12} {figures:4} figures {missing:3} not measured {taken:6.1f} s  {problem}",
                flush=True,
            )
    finally:
        write_json(output, document)
    return sum(row["median"] is not None for row in rows)


def main(argv: list[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure what the CUDA driver really does.")
    parser.add_argument("--output", type=Path, help="the JSON file, or a folder for it")
    parser.add_argument("--driver", default="libcuda.so.1", help="the driver to load")
    parser.add_argument("--only", type=lambda text: text.split(","), help="sections, by commas")
    parser.add_argument("--seconds", type=float, default=285.0, help="for all of it (285)")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if arguments.child:
        return child(arguments.child, arguments.driver, arguments.seconds)
    unknown = [name for name in arguments.only or () if name not in SECTIONS]
    if unknown:
        print(f"emuv: error: no section {unknown[0]!r}", file=sys.stderr)
        print(f"emuv: hint: the sections are {', '.join(SECTIONS)}", file=sys.stderr)
        return 2
    card, reason = look_for_card(arguments.driver)
    if card is None:
        print(f"emuv: no GPU: nothing to measure ({reason})", file=sys.stderr)
        return 0
    output = output_file(arguments.output, "driver-facts", card)
    signal.signal(signal.SIGTERM, stop)
    print(
        f"{card['device']}, driver {card['driver'] or 'unknown'}, CUDA {card['cuda_version']}; "
        f"to {output}",
        flush=True,
    )
    return 0 if measure(arguments, card, output) else 1


if __name__ == "__main__":
    sys.exit(main())
