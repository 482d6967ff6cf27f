# SPDX-License-Identifier: GPL-2.0-only
"""What the benchmarks share: the C programs, taking turns, statistics, the JSON envelope.

Purpose: a benchmark file says what it measures; how is here, once.

Invariants
- What is compared is measured in turns, A B A B, in one run: a machine that slows down in
  between slows both.  A difference is formed of neighbours, then summarised.
- Every figure has its median, quartiles and number of samples.
- A result names device, driver, commit, date and the kind of machine; no host name, no path.
- Every child process has a time limit and is ended with the benchmark.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import json
import os
import platform
import select
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "emuv_shim" / "_lib" / "libemuv.so"
SIMULATOR = ROOT / "emuv_shim" / "_lib" / "sim" / "libcuda.so.1"
SOURCES = Path(__file__).resolve().parent / "c"
CFLAGS = "-std=gnu17 -O2 -Wall -Wextra -Wshadow -Wmissing-prototypes -pthread".split()

SCHEMA_VERSION = 1
COMPILE_SECONDS = 60
BATCH_SECONDS = 60

Row = dict[str, Any]


class BenchmarkError(RuntimeError):
    """A benchmark could not run; the text says why."""


# Statistics


@dataclasses.dataclass(frozen=True)
class Summary:
    """Median and quartiles of samples, in the samples' unit."""

    median: float
    p25: float
    p75: float
    n: int

    @classmethod
    def of(cls, samples: Sequence[float]) -> Summary:
        """Summarise at least one sample."""
        if len(samples) == 1:
            return cls(samples[0], samples[0], samples[0], 1)
        p25, median, p75 = statistics.quantiles(samples, n=4, method="inclusive")
        return cls(median, p25, p75, len(samples))

    def json(self) -> dict[str, float]:
        """As a JSON object; three decimals, which is below any clock's resolution."""
        return {
            "median": round(self.median, 3),
            "p25": round(self.p25, 3),
            "p75": round(self.p75, 3),
            "n": self.n,
        }


def compare(plain: Sequence[float], emuv: Sequence[float]) -> Row:
    """Compare samples taken in turns; plain[i] and emuv[i] are neighbours, in one unit."""
    base = Summary.of(plain)
    with_emuv = Summary.of(emuv)
    return {
        "plain": base.json(),
        "emuv": with_emuv.json(),
        "added": Summary.of([b - a for a, b in zip(plain, emuv, strict=True)]).json(),
        "ratio": round(with_emuv.median / base.median, 3) if base.median else None,
    }


# The C programs


def compile_c(source: str, target: Path, *flags: str) -> Path:
    """Compile benchmarks/c/`source` to `target`; BenchmarkError with the compiler's words."""
    compiler = os.environ.get("CC") or shutil.which("gcc") or "cc"
    command = [compiler, *CFLAGS, f"-I{ROOT / 'csrc' / 'common'}", "-o", str(target)]
    target.parent.mkdir(parents=True, exist_ok=True)
    done = subprocess.run(
        [*command, str(SOURCES / source), *flags],
        capture_output=True,
        text=True,
        timeout=COMPILE_SECONDS,
    )
    if done.returncode:
        raise BenchmarkError(f"{compiler} does not compile {source}:\n{done.stderr}")
    return target


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled C programs and a private segment directory, all in one folder."""

    calls: Path
    null_driver: Path
    runtime: Path


@contextlib.contextmanager
def programs() -> Iterator[Programs]:
    """Compile the C programs into a folder that goes away afterwards."""
    if not LIBRARY.exists():
        raise BenchmarkError("libemuv.so is not built: run `make build`")
    with tempfile.TemporaryDirectory(prefix="emuv-bench-") as name:
        folder = Path(name)
        null = compile_c(
            "null_driver.c",
            folder / "null" / "libcuda.so.1",
            *("-fPIC", "-shared", "-fvisibility=hidden", "-ftls-model=initial-exec"),
            "-Wl,-soname,libcuda.so.1",
        )
        # Linked by soname: the environment says which libcuda.so.1 it is.
        calls = compile_c(
            "calls.c", folder / "calls", "-Wl,-z,now", f"-L{null.parent}", "-l:libcuda.so.1"
        )
        runtime = folder / "runtime"
        runtime.mkdir(mode=0o700)
        yield Programs(calls, null, runtime)


def environment(driver: Path, **more: str) -> dict[str, str]:
    """The environment of a program that meets `driver` without emuV."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_"))}
    return {**env, "LD_LIBRARY_PATH": str(driver.parent), **more}


def under_emuv(
    env: Mapping[str, str], driver: Path, runtime: Path, vram: int, virtual: int = 0
) -> dict[str, str]:
    """`env` as emuv-run would give it to a program; budgets in bytes, no virtual: cap."""
    return {
        **env,
        "LD_PRELOAD": str(LIBRARY),
        "EMUV_DRIVER": str(driver),
        "EMUV_VRAM": str(vram),
        "EMUV_VIRTUAL": str(virtual),
        "EMUV_POLICY": "spill" if virtual else "cap",
        "EMUV_ALLOCATION": "lazy",
        "EMUV_RUNTIME_DIR": str(runtime),
        "EMUV_QUIET": "1",
    }


class Calls:
    """One running `calls` program, which measures a batch whenever it is asked."""

    def __init__(
        self,
        program: Path,
        env: Mapping[str, str],
        operation: str,
        live: int = 1,
        size: int = 512,
        threads: int = 1,
        count: int = 1000,
    ) -> None:
        self.count = count
        self.threads = threads
        self._process = subprocess.Popen(
            [str(a) for a in (program, operation, live, size, threads, count)],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
        )
        words = self._line().split(maxsplit=2)
        if len(words) != 3 or words[0] != "ready":
            self.close()
            raise BenchmarkError(f"{operation}: the program said {words!r} instead of ready")
        # The loader only warns of a preload it cannot open: then this would compare like with like.
        maps = Path(f"/proc/{self._process.pid}/maps").read_text()
        if (str(LIBRARY) in maps) != ("LD_PRELOAD" in env):
            self.close()
            raise BenchmarkError(f"libemuv.so is {'not ' * ('LD_PRELOAD' in env)}in the program")
        self.driver_version = int(words[1])
        self.device = words[2].strip()

    def _line(self) -> str:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], BATCH_SECONDS)[0]:
            self.close()
            raise BenchmarkError(f"no answer within {BATCH_SECONDS} s")
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise BenchmarkError(f"ended with status {self._process.returncode}")
        return line

    def batch(self) -> tuple[float, float]:
        """One batch: ns an operation, by the wall clock and in CPU time of its thread."""
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        wall, cpu = (int(word) for word in self._line().split())
        return wall / (self.count * self.threads), cpu / self.count

    def close(self) -> None:
        """End the program: politely, by the end of its input, then by force."""
        assert self._process.stdin is not None and self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def __enter__(self) -> Calls:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


@dataclasses.dataclass
class Turns:
    """What `take_turns` measured: ns an operation, plain[i] and emuv[i] neighbours.

    One thread: of its CPU time, in which other work on the machine does not count.  Several:
    of the wall clock, in which waiting for one another does.
    """

    plain: list[float]
    emuv: list[float]
    device: str
    driver_version: int

    def row(self, name: str, driver: str, **more: object) -> Row:
        """A row of a result: what was measured, where, and how the two compare."""
        return {
            "name": name,
            "driver": driver,
            "device": self.device,
            "driver_version": self.driver_version,
            **more,
            **compare(self.plain, self.emuv),
        }


def take_turns(
    program: Path,
    plain: Mapping[str, str],
    emuv: Mapping[str, str],
    operation: str,
    *,
    rounds: int,
    batches: int,
    **options: int,
) -> Turns:
    """Measure `operation` plain and under emuV in turns.

    `rounds` pairs of processes (each with its own address layout), `batches` batches of
    each process; the first of each pair of processes is a warm-up and dropped.  Which of
    the two goes first alternates.
    """
    turns = Turns([], [], "", 0)
    clock = 0 if options.get("threads", 1) > 1 else 1
    for _ in range(rounds):
        with (
            Calls(program, plain, operation, **options) as a,
            Calls(program, emuv, operation, **options) as b,
        ):
            turns.device, turns.driver_version = a.device, a.driver_version
            a.batch(), b.batch()
            for batch in range(batches):
                first, second = (a, b) if batch % 2 == 0 else (b, a)
                results = {first: first.batch()[clock], second: second.batch()[clock]}
                turns.plain.append(results[a])
                turns.emuv.append(results[b])
    return turns


def cell(
    compiled: Programs,
    kind: str,
    driver: Path,
    name: str,
    what: Row,
    *,
    card: int,
    budget: tuple[int, int],
    size: int,
    count: int,
    quick: bool,
) -> Row:
    """One combination on one driver: its row, which says `what` it was.

    `what` has the operation, how much is live, and the threads; `budget` is (vram, virtual)
    bytes; `card` is what the simulated GPU has.
    """
    plain = environment(driver, EMUV_SIM_VRAM=str(card))
    emuv = under_emuv(plain, driver, compiled.runtime, *budget)
    turns = take_turns(
        compiled.calls, plain, emuv, what["operation"],
        rounds=1 if quick else 5, batches=2 if quick else 12 if what["threads"] == 1 else 6,
        live=what["live"], size=size, threads=what["threads"], count=count,
    )  # fmt: skip
    return turns.row(f"{kind}: {name}", kind, **what)


# The envelope


def _output(*command: str) -> str:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, cwd=ROOT)
        if done.returncode == 0:
            return done.stdout.strip()
    return ""


def commit() -> str:
    """The commit, `-dirty` where what is built from differs from it; "" outside a checkout."""
    head = _output("git", "rev-parse", "--short=12", "HEAD")
    changed = _output("git", "status", "--porcelain", "-uno", "--", "csrc", "setup.py")
    return f"{head}-dirty" if head and changed else head


def machine() -> Row:
    """The kind of machine: nothing that names it."""
    model = "unknown"
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "architecture": platform.machine(),
        "processor": model,
        "cores": os.cpu_count(),
        "memory_gib": round(memory / 2**30, 1),
        "kernel": platform.release().split("-")[0],
        "libc": " ".join(platform.libc_ver()),
        "load_average": round(os.getloadavg()[0], 2),
    }


def envelope(
    benchmark: str, question: str, unit: str, goal_added: float | None, rows: Sequence[Row]
) -> Row:
    """A result document, as benchmarks/result.schema.json describes it.

    goal_added: what emuV should add at most, in `unit`; the rows it holds for say so.
    """
    now = datetime.datetime.now(datetime.timezone.utc)
    return {
        "schema_version": SCHEMA_VERSION,
        "benchmark": benchmark,
        "question": question,
        "unit": unit,
        "goal_added": goal_added,
        "date": now.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "commit": commit(),
        "machine": machine(),
        "rows": list(rows),
    }


def table(document: Row) -> str:
    """The rows as text, for a person."""
    width = max(len(r["name"]) for r in document["rows"])
    unit = document["unit"]
    lines = [
        document["question"],
        f"{'':{width}} {'plain':>10} {'emuV':>10} {'added':>10}   quartiles of added, {unit}",
    ]
    for r in document["rows"]:
        plain, emuv, added = (r[key]["median"] for key in ("plain", "emuv", "added"))
        lines.append(
            f"{r['name']:{width}} {plain:10.1f} {emuv:10.1f} {added:10.1f}"
            f"   {r['added']['p25']:.1f} .. {r['added']['p75']:.1f}"
        )
    if document["goal_added"] is not None:
        lines.append(f"goal: at most {document['goal_added']} {unit} added")
    return "\n".join(lines)


def arguments(description: str | None) -> argparse.ArgumentParser:
    """The options that all benchmarks have."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument("--output", type=Path, metavar="FILE", help="write JSON to FILE")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    parser.add_argument("--quick", action="store_true", help="few, short rounds: a smoke test")
    return parser


def driver_option(parser: argparse.ArgumentParser) -> None:
    """`--driver`: a real libcuda.so.1 to measure too."""
    parser.add_argument(
        "--driver", type=Path, metavar="LIBCUDA", help="measure on this driver as well"
    )


def driver_arguments(description: str | None) -> argparse.ArgumentParser:
    """The options of a benchmark that measures on drivers."""
    parser = arguments(description)
    driver_option(parser)
    return parser


def drivers(compiled: Programs, real: Path | None) -> dict[str, Path]:
    """The drivers to measure on, by kind; BenchmarkError where one is missing."""
    found = {"null": compiled.null_driver, "sim": SIMULATOR}
    if real:
        # Programs find it as libcuda.so.1 in its folder, as they find the others.
        found["real"] = real.parent / "libcuda.so.1"
    for path in found.values():
        if not path.exists():
            raise BenchmarkError(f"there is no driver {path}")
    return found


def run(
    measure: Callable[[argparse.Namespace], Row],
    options: argparse.Namespace,
    show: Callable[[Row], str] = table,
) -> int:
    """Run one benchmark as a command: 0, or 1 with the reason on stderr."""
    try:
        finish(measure(options), options, show)
    except (BenchmarkError, OSError, subprocess.SubprocessError) as error:
        print(f"emuv: error: {error}", file=sys.stderr)
        return 1
    return 0


def finish(
    document: Row, options: argparse.Namespace, show: Callable[[Row], str] = table
) -> None:
    """Print, and write where `--output` says."""
    text = json.dumps(document, indent=1) + "\n"
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        options.output.write_text(text)
    if options.json:
        sys.stdout.write(text)
    else:
        print(show(document))
