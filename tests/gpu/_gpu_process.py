# SPDX-License-Identifier: GPL-2.0-only
"""Programs under test: started plain or by emuv-run, watched by NVML, ended for certain.

Invariants
- Every program has a session of its own and is killed by that group at its limit, and when this
  process is told to end.
- This process never opens a context on the card: what NVML says is the program's doing.
- The environment of a plain run holds none of emuV's variables.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from _facts_nvml import Nvml
from _gpu_rows import FailError

ROOT = Path(__file__).resolve().parents[2]
WORKERS = Path(__file__).resolve().parent / "workers"
SAMPLE_SECONDS = 0.05
KEPT_CHARACTERS = 4000
EMUV_RUN = ("-c", "import sys; from emuv_shim.commands.run import main; sys.exit(main())")
EMUV = ("-m", "emuv_shim")
END_SECONDS = 10.0  # for a killed program to go: one inside the kernel driver may not
# What chooses a package's allocator: the stacks choose, not the caller's shell.
ALLOCATOR_VARIABLES = (
    "PYTORCH_ALLOC_CONF",
    "PYTORCH_CUDA_ALLOC_CONF",
    "XLA_PYTHON_CLIENT_PREALLOCATE",
    "XLA_PYTHON_CLIENT_ALLOCATOR",
    "XLA_PYTHON_CLIENT_MEM_FRACTION",
    "XLA_CLIENT_MEM_FRACTION",
)


@dataclass(frozen=True)
class Target:
    """Where programs run.  driver: a driver to put in place of the system's (the simulated GPU)."""

    driver: str | None = None
    python: str = sys.executable

    def environment(self, more: dict[str, str] | None = None, shim: bool = False) -> dict[str, str]:
        """A program's environment; shim: for emuv-run and emuv."""
        env = {
            k: v
            for k, v in os.environ.items()
            if not k.startswith("EMUV_") or k.startswith("EMUV_SIM_")
        }
        for name in ("LD_PRELOAD", *ALLOCATOR_VARIABLES):
            env.pop(name, None)
        paths = [str(ROOT), *env.get("PYTHONPATH", "").split(os.pathsep)]
        env["PYTHONPATH"] = os.pathsep.join(dict.fromkeys(p for p in paths if p))
        env["PYTHONUNBUFFERED"] = "1"
        env["NO_COLOR"] = "1"
        runtime = os.environ.get("EMUV_RUNTIME_DIR")
        if runtime:
            env["EMUV_RUNTIME_DIR"] = runtime
        if self.driver:
            if shim:
                env["EMUV_DRIVER"] = self.driver
            places = [str(Path(self.driver).parent), env.get("LD_LIBRARY_PATH", "")]
            env["LD_LIBRARY_PATH"] = os.pathsep.join(p for p in places if p)
        env.update(more or {})
        return env

    def emuv_run(self, options: Sequence[str], command: Sequence[str]) -> list[str]:
        """`emuv-run OPTIONS -- COMMAND`."""
        return [self.python, *EMUV_RUN, *options, "--", *command]

    def emuv(self, *arguments: str) -> list[str]:
        """`emuv ARGUMENTS`."""
        return [self.python, *EMUV, *arguments]


@dataclass
class Done:
    """How a program ended.  `late`: it was killed at its limit."""

    code: int
    out: str
    err: str
    seconds: float
    late: bool
    samples: list[int] = field(default_factory=list)  # NVML: bytes used on the card
    baseline: int | None = None
    process_peak: int | None = None

    @property
    def peak(self) -> int | None:
        """The most bytes used on the card while it ran, less what was used before."""
        if self.baseline is None or not self.samples:
            return None
        return max(self.samples) - self.baseline

    def answers(self) -> list[dict[str, Any]]:
        """The JSON objects on its standard output."""
        found = []
        for line in self.out.splitlines():
            with contextlib.suppress(ValueError):
                value = json.loads(line)
                if isinstance(value, dict):
                    found.append(value)
        return found

    def answer(self) -> dict[str, Any]:
        """Its last JSON object; FailError if it failed or gave none."""
        if self.late:
            raise FailError(f"killed after {self.seconds:.0f} s; {self.last_words()}")
        if self.code != 0:
            raise FailError(f"ended with {self.code}: {self.last_words()}")
        found = self.answers()
        if not found:
            raise FailError(f"gave no answer; {self.last_words()}")
        return found[-1]

    def last_words(self) -> str:
        """The last line of its standard error."""
        lines = [line for line in self.err.splitlines() if line.strip()]
        return lines[-1][:300] if lines else "(silent)"

    def record(self) -> dict[str, Any]:
        """What a row keeps of it, whatever comes of the check: a card is rare."""
        return {
            "code": self.code,
            "seconds": round(self.seconds, 2),
            "killed_at_its_limit": self.late,
            "nvml_peak_bytes": self.peak,
            "nvml_process_peak_bytes": self.process_peak,
            "stderr": self.err[-KEPT_CHARACTERS:],
        }


_running: set[int] = set()
_background: list[subprocess.Popen[bytes]] = []


def end_all() -> None:
    """Kill every program still running."""
    for group in list(_running):
        kill_group(group)


def kill_group(group: int) -> None:
    """SIGKILL a program's whole session."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, signal.SIGKILL)


def warm_imports(target: Target, modules: Sequence[str], seconds: float = 120.0) -> None:
    """Import the packages once in the background, so that their files are in memory when a check
    with a limit needs them.  Importing opens no context; nobody waits for it."""
    lines = [f"try: import {module}\nexcept Exception: pass" for module in dict.fromkeys(modules)]
    child = subprocess.Popen(
        [target.python, "-c", "\n".join([f"import signal; signal.alarm({seconds:.0f})", *lines])],
        env=target.environment(),
        cwd=ROOT,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    _running.add(child.pid)
    _background.append(child)  # kept, so that its pid stays its own until end_all


class Watch:
    """NVML sampled 20 times a second in a thread, from `with` to its end."""

    def __init__(self, nvml: Nvml | None) -> None:
        self._nvml = nvml
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.samples: list[int] = []
        self.baseline: int | None = None
        self.process_peak: int | None = None
        self._before: set[int] = set()

    def _settle(self) -> int | None:
        """Used bytes once they stand still (the last program's may be going), 3 s at most."""
        if self._nvml is None:
            return None
        last = self._nvml.used_bytes()
        for _ in range(12):
            if self._stop.wait(0.25):
                break
            now = self._nvml.used_bytes()
            if now == last:
                break
            last = now
        return last

    def __enter__(self) -> Watch:
        self.baseline = self._settle()
        if self._nvml is not None:
            self._before = set(self._nvml.process_bytes())
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(5.0)

    def _sample(self) -> None:
        assert self._nvml is not None
        while not self._stop.is_set():
            used = self._nvml.used_bytes()
            if used is not None:
                self.samples.append(used)
            new = [
                size
                for pid, size in self._nvml.process_bytes().items()
                if pid not in self._before and size is not None
            ]
            if new:
                self.process_peak = max(self.process_peak or 0, sum(new))
            self._stop.wait(SAMPLE_SECONDS)


def run(
    command: Sequence[str],
    environment: dict[str, str],
    seconds: float,
    nvml: Nvml | None = None,
) -> Done:
    """Run a program to its end, `seconds` at most."""
    with Watch(nvml) as watch, tempfile.TemporaryFile() as err:
        began = time.monotonic()
        child = subprocess.Popen(
            list(command),
            env=environment,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=err,
            start_new_session=True,
        )
        _running.add(child.pid)
        late = False
        try:
            try:
                out, _ = child.communicate(timeout=max(seconds, 1.0))
            except subprocess.TimeoutExpired:
                late = True
                kill_group(child.pid)
                out, _ = child.communicate(timeout=END_SECONDS)
        finally:
            kill_group(child.pid)
            _running.discard(child.pid)
        taken = time.monotonic() - began
        err.seek(0)
        said = err.read().decode(errors="replace")
    return Done(
        child.returncode,
        out.decode(errors="replace"),
        said,
        taken,
        late,
        watch.samples,
        watch.baseline,
        watch.process_peak,
    )


class Conversation:
    """A running program that answers lines of input with JSON lines."""

    def __init__(self, command: Sequence[str], environment: dict[str, str], seconds: float) -> None:
        self._deadline = time.monotonic() + seconds
        self._err = tempfile.TemporaryFile()  # noqa: SIM115 - closed in close()
        self.child = subprocess.Popen(
            list(command),
            env=environment,
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._err,
            start_new_session=True,
        )
        _running.add(self.child.pid)
        assert self.child.stdout is not None
        self._selector = selectors.DefaultSelector()
        self._selector.register(self.child.stdout, selectors.EVENT_READ)
        self._pending = b""

    def read(self) -> dict[str, Any]:
        """Its next JSON line; FailError if none comes in time."""
        assert self.child.stdout is not None
        while True:
            line, newline, rest = self._pending.partition(b"\n")
            if newline:
                self._pending = rest
                with contextlib.suppress(ValueError):
                    value = json.loads(line)
                    if isinstance(value, dict):
                        return value
                continue
            left = self._deadline - time.monotonic()
            if left <= 0 or not self._selector.select(left):
                raise FailError(f"the program does not answer; {self.last_words()}")
            data = os.read(self.child.stdout.fileno(), 1 << 16)
            if not data:
                raise FailError(f"the program has ended; {self.last_words()}")
            self._pending += data

    def ask(self, line: str) -> dict[str, Any]:
        """Send a line, return the answer."""
        assert self.child.stdin is not None
        try:
            self.child.stdin.write(line.encode() + b"\n")
            self.child.stdin.flush()
        except BrokenPipeError:
            raise FailError(f"the program has ended; {self.last_words()}") from None
        return self.read()

    def quit(self) -> int:
        """Send "quit" and return the exit status."""
        assert self.child.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.child.stdin.write(b"quit\n")
            self.child.stdin.close()
        try:
            return self.child.wait(max(1.0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise FailError("the program does not end") from None

    def last_words(self) -> str:
        """The last line of its standard error."""
        self._err.seek(0)
        lines = [x for x in self._err.read().decode(errors="replace").splitlines() if x.strip()]
        return lines[-1][:300] if lines else "(silent)"

    def __enter__(self) -> Conversation:
        return self

    def __exit__(self, *_: object) -> None:
        kill_group(self.child.pid)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.child.wait(END_SECONDS)
        _running.discard(self.child.pid)
        self._selector.close()
        for pipe in (self.child.stdin, self.child.stdout):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        self._err.close()
