# SPDX-License-Identifier: GPL-2.0-only
"""Each GPU package, plain, capped and spilled: same results, its own errors, NVML as witness.

Sizes are in units (1 GiB on a real card): vram 2, virtual 4, a working set of 3.5, and 3 asked for
where 3 must be refused.

Invariants
- The same unmodified program runs plain and under emuv-run.
- A spilled run counts only if its statistics show spilled bytes and its digest is the plain run's.
- Physical truth is NVML's: the card's used bytes less those before the run stay under the vram
  plus one context (measured here) plus SLACK for the driver's own tables.
"""

from __future__ import annotations

import importlib.util
import json
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _facts_nvml import Nvml
from _gpu_process import ROOT, WORKERS, Done, Target, run
from _gpu_rows import FailError, Report, SkipError, mib

SLACK_BYTES = 64 * 2**20
WORKER_SECONDS = 75.0


@dataclass(frozen=True)
class Stack:
    """One package in one configuration.

    spills: False where over budget must be refused even with virtual memory;
    asks_driver: False where a package refuses from its own pool, before the driver is asked;
    allocator: what the worker must say it uses; None: anything;
    computes: whether its kernels do the arithmetic of _worker (and so agree with the others').
    """

    name: str
    module: str
    worker: str
    env: dict[str, str] = field(default_factory=dict)
    spills: bool = True
    asks_driver: bool = True
    total_is_visible: bool = True
    computes: bool = True
    allocator: str | None = None
    group: str = "variants"


def _torch(conf: str) -> dict[str, str]:
    # Torch has renamed the variable, and some versions read one name, or one name for some keys.
    return {"PYTORCH_ALLOC_CONF": conf, "PYTORCH_CUDA_ALLOC_CONF": conf}


STACKS = (
    Stack("driver API", "ctypes", "run_driver.py", computes=False, group="driver"),
    Stack("torch", "torch", "run_torch.py", allocator="native", group="torch"),
    Stack("cupy", "cupy", "run_cupy.py", group="cupy"),
    Stack("numba-cuda", "numba_cuda", "run_numba.py", group="numba-cuda"),
    Stack("triton", "triton", "run_triton.py", group="triton"),
    Stack(
        "jax",
        "jax",
        "run_jax.py",
        asks_driver=False,
        total_is_visible=False,
        group="jax",
    ),
    Stack(
        "torch cudaMallocAsync",
        "torch",
        "run_torch.py",
        _torch("backend:cudaMallocAsync"),
        allocator="cudaMallocAsync",
    ),
    Stack(
        "torch expandable_segments",
        "torch",
        "run_torch.py",
        _torch("expandable_segments:True"),
        spills=False,
        allocator="native, expandable segments",
    ),
    Stack(
        "jax no preallocation",
        "jax",
        "run_jax.py",
        # its share is a limit of its own; the usual 0.75 can end before the budget does
        {"XLA_PYTHON_CLIENT_PREALLOCATE": "false", "XLA_CLIENT_MEM_FRACTION": "0.95"},
        total_is_visible=False,
    ),
)


@dataclass
class Bed:
    """What all stack checks share."""

    target: Target
    report: Report
    nvml: Nvml | None
    unit: int
    simulated: bool = False
    context_bytes: int = 0
    digest: str = ""

    @property
    def piece(self) -> int:
        """Bytes of one array."""
        return self.unit // 8

    @property
    def vram(self) -> int:
        """The physical budget."""
        return 2 * self.unit

    @property
    def virtual(self) -> int:
        """What may spill."""
        return 4 * self.unit

    @property
    def working_set(self) -> int:
        """What a worker holds and computes on: past vram, within visible less a context."""
        return 7 * self.unit // 2

    @property
    def too_much(self) -> int:
        """What must be refused at the cap."""
        return 3 * self.unit

    def worker(self, stack: Stack, mode: str, size: int) -> list[str]:
        """A worker's command line."""
        return [self.target.python, str(WORKERS / stack.worker), mode, str(size), str(self.piece)]


def installed(module: str) -> bool:
    """Whether a package can be imported here, without importing it."""
    return importlib.util.find_spec(module) is not None


def check_context(bed: Bed) -> None:
    """How much of the card one bare context takes; part of every later limit."""
    with bed.report.check("context overhead") as data:
        bed.report.need(5.0)
        script = ROOT / "benchmarks" / "driver_facts.py"
        driver = bed.target.driver or "libcuda.so.1"
        done = run(
            [bed.target.python, str(script), "--child", "context", "--driver", driver],
            bed.target.environment(),
            40.0,
            bed.nvml,
        )
        done.answer()
        stages = done.answers()
        bed.context_bytes = max(int(stage["bytes"]) for stage in stages)
        data["stages"] = {stage["stage"]: stage["bytes"] for stage in stages}
        data["detail"] = f"{mib(bed.context_bytes)} ({stages[0]['source']})"


def check_stack(bed: Bed, stack: Stack) -> None:
    """The plain, capped and spilled rows of one stack."""
    plain: dict[str, Any] = {}
    runs = True
    with bed.report.check(f"{stack.name}: plain") as data:
        bed.report.need(15.0)
        if not installed(stack.module):
            raise SkipError(f"{stack.module} is not installed")
        done = run(
            bed.worker(stack, "work", bed.working_set),
            bed.target.environment(stack.env),
            _limit(bed),
            bed.nvml,
        )
        data.update(done.record())
        runs = done.late or done.code == 0
        if bed.simulated and done.code != 0 and stack.group != "driver":
            raise SkipError(f"kernels not supported ({done.last_words()})")
        plain = done.answer()
        if not plain.get("digest"):
            raise FailError(f"the plain run did not finish: {plain.get('oom')}")
        data.update(answer=plain)
        _allocator(stack, plain)
        if stack.computes:
            bed.digest = bed.digest or plain["digest"]
            if plain["digest"] != bed.digest:
                raise FailError("the plain result differs from the other packages' plain results")
        data["detail"] = f"{mib(plain['held'])} held, {_seen(done)}, {done.seconds:.1f} s"
    with bed.report.check(f"{stack.name}: capped at {mib(bed.vram)}") as data:
        bed.report.need(15.0)
        if not installed(stack.module):
            raise SkipError(f"{stack.module} is not installed")
        _needs_plain(bed, plain, runs)
        _refused(bed, stack, data, ["--vram", str(bed.vram)], bed.vram)
    with bed.report.check(f"{stack.name}: spilled") as data:
        bed.report.need(15.0)
        if not installed(stack.module):
            raise SkipError(f"{stack.module} is not installed")
        options = ["--vram", str(bed.vram), "--virtual", str(bed.virtual)]
        if stack.spills:
            _needs_plain(bed, plain, runs, always=True)
            _spilled(bed, stack, data, options, plain["digest"])
        else:
            _needs_plain(bed, plain, runs)
            _refused(bed, stack, data, options, bed.vram + bed.virtual)
            data["detail"] = f"refused over budget, as documented; {data['detail']}"


def check_eager(bed: Bed, stack: Stack) -> None:
    """A spilled run with --allocation eager gives the lazy run's result."""
    with bed.report.check(f"{stack.name}: spilled, eager") as data:
        bed.report.need(20.0)
        if not installed(stack.module):
            raise SkipError(f"{stack.module} is not installed")
        plain = next(
            (
                row["data"]["answer"]["digest"]
                for row in bed.report.rows
                if row["name"] == f"{stack.name}: plain" and row["ok"]
            ),
            None,
        )
        if plain is None:
            raise SkipError("no plain result to compare with")
        options = ["--vram", str(bed.vram), "--virtual", str(bed.virtual), "--allocation", "eager"]
        _spilled(bed, stack, data, options, plain)


def _needs_plain(bed: Bed, plain: dict[str, Any], runs: bool, always: bool = False) -> None:
    if not runs:
        raise SkipError("the program fails here without emuV too: see its plain run")
    if (bed.simulated or always) and not plain.get("digest"):
        raise SkipError("no plain result to compare with")


def _limit(bed: Bed) -> float:
    return min(WORKER_SECONDS, bed.report.left())


def _budgeted(
    bed: Bed, stack: Stack, data: dict[str, Any], mode: str, size: int, options: list[str]
) -> tuple[Done, dict[str, Any]]:
    """(how it ended, device 0's statistics added up over the run's processes).

    `data` keeps the statistics as they came and how the run ended, also where this raises.
    """
    with tempfile.TemporaryDirectory(prefix="emuv-check-") as place:
        stats = Path(place) / "stats.json"
        command = bed.target.emuv_run(
            [*options, "--stats", str(stats)], bed.worker(stack, mode, size)
        )
        done = run(command, bed.target.environment(stack.env, shim=True), _limit(bed), bed.nvml)
        data.update(done.record())
        if not stats.is_file():
            if not done.late and done.code != 0:
                raise FailError(f"ended with {done.code}: {done.last_words()}")
            raise FailError("emuv-run wrote no statistics")
        data["statistics"] = json.loads(stats.read_text())
        return done, device_totals(data["statistics"])


def device_totals(document: dict[str, Any]) -> dict[str, Any]:
    """Device 0's counters of a statistics file, added up over its processes (peaks: the most)."""
    totals: dict[str, Any] = {}
    for process in document["processes"]:
        for device in process["devices"]:
            if device["device"] != 0 or not device["seen"]:
                continue
            for name in (
                "spills",
                "spilled_bytes",
                "denials",
                "denied_bytes",
                "uncounted_calls",
                "prefetch_device_bytes",
                "advised_bytes",
            ):
                totals[name] = totals.get(name, 0) + device[name]
            for name in ("peak_physical_bytes", "peak_used_bytes", "overhead_bytes"):
                totals[name] = max(totals.get(name, 0), device[name] or 0)
    if not totals:
        raise FailError("the statistics show no process that used the device: it was not hooked")
    return totals


def _refused(
    bed: Bed, stack: Stack, data: dict[str, Any], options: list[str], visible: int
) -> None:
    """The package raises its own error, and the card never holds more than the budget."""
    done, stats = _budgeted(bed, stack, data, "oom", bed.too_much, options)
    answer = done.answer()
    data.update(answer=answer, stats=stats)
    _allocator(stack, answer)
    if not answer.get("oom"):
        raise FailError(f"{mib(answer['held'])} were given at a budget of {mib(bed.vram)}")
    if answer["held"] < bed.piece:
        raise FailError(f"nothing was given: {answer['oom']}")
    if stack.asks_driver and stats["denials"] == 0:
        raise FailError("refused, but not by emuV: its statistics show no denial")
    if not answer.get("usable_after"):
        raise FailError("after the refusal not even one array could be had")
    _total(stack, answer, visible)
    physical = _physical(bed, done)
    data["detail"] = f"{answer['oom'].split(':')[0]} after {mib(answer['held'])}; {physical}"


def _spilled(
    bed: Bed, stack: Stack, data: dict[str, Any], options: list[str], expected: str
) -> None:
    """The run finishes past the budget with the plain run's result."""
    done, stats = _budgeted(bed, stack, data, "work", bed.working_set, options)
    answer = done.answer()
    data.update(answer=answer, stats=stats)
    _allocator(stack, answer)
    if answer.get("oom"):
        raise FailError(f"out of memory at {mib(answer['held'])}: {answer['oom']}")
    if stats["spilled_bytes"] == 0:
        raise FailError("finished, but nothing was spilled")
    if answer["digest"] != expected:
        raise FailError("the result differs from the plain run's")
    _total(stack, answer, bed.vram + bed.virtual)
    physical = _physical(bed, done)
    data["detail"] = (
        f"equal result, {mib(stats['spilled_bytes'])} spilled, {physical}, "
        f"compute {answer['compute_s']} s"
    )


def _allocator(stack: Stack, answer: dict[str, Any]) -> None:
    """The row must be about the allocator it names."""
    if stack.allocator is not None and answer.get("allocator") != stack.allocator:
        raise FailError(f"ran with the allocator {answer.get('allocator')!r}")


def _total(stack: Stack, answer: dict[str, Any], visible: int) -> None:
    """The package must be told the visible memory as the device's total."""
    if stack.total_is_visible and answer.get("total") != visible:
        raise FailError(f"told a total of {answer.get('total')} bytes, not {visible}")


def _physical(bed: Bed, done: Done) -> str:
    """NVML's witness in words; FailError where it saw more than the budget allows."""
    peak = done.peak
    if peak is None:
        return "no NVML"
    limit = bed.vram + bed.context_bytes + SLACK_BYTES
    if peak > limit:
        raise FailError(
            f"NVML saw {mib(peak)} in use, over vram {mib(bed.vram)} + context "
            f"{mib(bed.context_bytes)} + {mib(SLACK_BYTES)}"
        )
    within = "within the vram itself" if peak <= bed.vram else "within vram and context"
    return f"NVML peak {mib(peak)}, {within}"


def _seen(done: Done) -> str:
    return "no NVML" if done.peak is None else f"NVML peak {mib(done.peak)}"
