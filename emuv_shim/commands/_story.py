# SPDX-License-Identifier: GPL-2.0-only
"""The steps of `emuv demo`: what is run, and what has to come out.

Everything that a step claims is read from the programs' own output, from the
statistics that `emuv-run --stats` wrote, or from `emuv set --json`; nothing is
assumed. A step that came out otherwise is not ok, and says how.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Any

from emuv_shim.commands import _children, _show
from emuv_shim.errors import CommandError

MIB = 1 << 20
STEP_LIMIT_S = 45.0
LINE_LIMIT_S = 30.0


@dataclass(frozen=True)
class Setting:
    """The sizes of the story, and where it takes place."""

    simulated: bool
    card_bytes: int
    vram_bytes: int
    compute_vram_bytes: int  # of the program that computes: a quarter of what it needs, if it can
    virtual_bytes: int
    piece_bytes: int  # of the program that grows
    raised_bytes: int  # its budget after it was raised
    environ: Mapping[str, str]  # for every program of the story
    plain_environ: Mapping[str, str]  # the same, for those without emuV
    examples: str  # folder of the programs
    files: tuple[str, ...]
    scratch: str  # folder for statistics


@dataclass
class Step:
    """One step: the command as a person would type it, and what came of it."""

    title: str
    typed: str
    expected: str
    outcome: str = ""
    ok: bool = False
    wall_s: float = 0.0
    on_device_bytes: int | None = None
    on_host_bytes: int | None = None
    facts: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """As schemas/demo.schema.json has it."""
        return asdict(self)


def size_option(size_bytes: int) -> str:
    """A size as a person types it: ``192MiB``, ``1GiB``."""
    if size_bytes % (1 << 30) == 0:
        return f"{size_bytes >> 30}GiB"
    return f"{size_bytes >> 20}MiB"


def _facts(stdout: str) -> dict[str, str]:
    """``key: value`` lines of stream_file.py."""
    pairs = (line.split(": ", 1) for line in stdout.splitlines() if ": " in line)
    return dict(pairs)


def _last_line(text: str) -> str:
    lines = [line for line in text.strip().splitlines() if not line.startswith("emuv: ")]
    return lines[-1].strip() if lines else ""


def _is_oom(text: str) -> bool:
    return "OUT_OF_MEMORY" in text or "MemoryError" in text


def _device_row(path: str) -> dict[str, Any]:
    """The first device of the first process in a --stats file; {} where there is none."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        with open(path, encoding="utf-8") as file:
            row = json.load(file)["processes"][0]["devices"][0]
        if isinstance(row, dict):
            return row
    return {}


def _stream(setting: Setting, options: Sequence[str] | None, stats: str) -> _children.Ended:
    """Run stream_file.py plainly (`options` None) or under emuv-run."""
    return _example(setting, ["stream_file.py", *setting.files], options, stats)


def _example(
    setting: Setting, words: Sequence[str], options: Sequence[str] | None, stats: str
) -> _children.Ended:
    program = [sys.executable, os.path.join(setting.examples, words[0]), *words[1:]]
    report = {"EMUV_SIM_REPORT": stats + ".card"} if setting.simulated else {}
    if options is None:
        return _children.run(program, {**setting.plain_environ, **report}, STEP_LIMIT_S)
    start = _children.emuv_run(
        "-q", *options, "--stats", stats, *(["--sim"] if setting.simulated else [])
    )
    return _children.run([*start, *program], {**setting.environ, **report}, STEP_LIMIT_S)


def _card_peak(step: Step, stats: str) -> int | None:
    """What the simulated card itself saw at the most; it knows nothing of budgets."""
    with suppress(OSError, ValueError, LookupError, TypeError):
        with open(stats + ".card", encoding="utf-8") as file:
            peak = int(json.load(file)["devices"][0]["peak_bytes"])
        step.facts["card_peak_bytes"] = peak
        return peak
    return None


def _typed(options: str = "") -> str:
    program = "python stream_file.py FILE…"
    return f"emuv-run {options} {program}" if options else program


def _same_bytes(step: Step, ended: _children.Ended) -> bool:
    """True where the program finished and what came back is what was sent."""
    facts = _facts(ended.stdout)
    step.facts.update(facts)
    sent = facts.get("sha256 sent")
    return ended.returncode == 0 and sent is not None and sent == facts.get("sha256 received")


def _failed(ended: _children.Ended) -> str:
    if ended.returncode is None:
        return f"no end within {STEP_LIMIT_S:.0f} s"
    return f"ended with {ended.returncode}: {_last_line(ended.stderr)}"


def plain(setting: Setting) -> Step:
    """The program as it is: too large for the simulated card, at home on a real one."""
    finishes = not setting.simulated
    step = Step(
        "plain",
        _typed(),
        "finishes: the card is large" if finishes else "out of memory: the card is too small",
    )
    stats = os.path.join(setting.scratch, "plain.json")
    ended = _stream(setting, None, stats)
    same = _same_bytes(step, ended)
    step.on_device_bytes = _card_peak(step, stats)
    step.on_host_bytes = None if step.on_device_bytes is None else 0
    if finishes:
        step.ok = same
        step.outcome = "finished, SHA-256 equal" if same else _failed(ended)
    else:
        step.ok = ended.returncode not in (0, None) and _is_oom(ended.stderr)
        step.outcome = "out of memory" if step.ok else _failed(ended)
        step.facts["error"] = _last_line(ended.stderr)
    return step


def spill(setting: Setting) -> Step:
    """Under a budget with a virtual: finishes, part of it on the host."""
    vram, virtual = size_option(setting.vram_bytes), size_option(setting.virtual_bytes)
    step = Step(
        "budget and virtual",
        _typed(f"--vram {vram} --virtual {virtual}"),
        "finishes: what exceeds the budget is in host RAM",
    )
    stats = os.path.join(setting.scratch, "spill.json")
    ended = _stream(setting, ["--vram", vram, "--virtual", virtual], stats)
    same = _same_bytes(step, ended)
    row = _device_row(stats)
    peak = int(row.get("peak_physical_bytes", 0))
    spilled = int(row.get("peak_used_bytes", 0)) - peak
    step.facts.update(spills=row.get("spills"), spilled_bytes=row.get("spilled_bytes"))
    step.on_device_bytes, step.on_host_bytes = peak, spilled
    loaded = int(step.facts.get("bytes", 0) or 0)
    card_peak = _card_peak(step, stats)
    within = 0 < peak <= setting.vram_bytes and (card_peak or 0) <= setting.vram_bytes
    adds_up = peak + spilled >= loaded > setting.vram_bytes
    step.ok = same and within and spilled > 0 and adds_up and bool(row.get("spills"))
    step.outcome = "finished, SHA-256 equal" if same else _failed(ended)
    if same and not step.ok:
        seen = "" if card_peak is None else f" (the card saw {card_peak})"
        step.outcome += f", but {peak} bytes on the device{seen} and {spilled} on the host"
    return step


def cap(setting: Setting) -> Step:
    """Under a budget alone: refused at it, and by emuV."""
    vram = size_option(setting.vram_bytes)
    step = Step("budget alone", _typed(f"--vram {vram}"), "refused at the budget, by emuV")
    stats = os.path.join(setting.scratch, "cap.json")
    ended = _stream(setting, ["--vram", vram], stats)
    row = _device_row(stats)
    peak, denials = int(row.get("peak_physical_bytes", 0)), int(row.get("denials", 0))
    step.on_device_bytes, step.on_host_bytes = peak, 0
    step.facts.update(denials=denials, error=_last_line(ended.stderr))
    refused = ended.returncode not in (0, None) and _is_oom(ended.stderr)
    card_peak = _card_peak(step, stats)
    within = 0 < peak <= setting.vram_bytes and (card_peak or 0) <= setting.vram_bytes
    step.ok = refused and denials > 0 and within
    if step.ok:
        step.outcome = "out of memory at the budget, refused by emuV"
    elif refused:
        step.outcome = f"out of memory, but emuV refused {denials} at {peak} bytes"
    else:
        step.outcome = _failed(ended)
    return step


def compute(setting: Setting) -> Step:
    """Kernels under a budget of a quarter of what they work on: NumPy's result."""
    vram, virtual = size_option(setting.compute_vram_bytes), size_option(setting.virtual_bytes)
    step = Step(
        "a program that computes",
        f"emuv-run --vram {vram} --virtual {virtual} python terrain_light.py",
        "NumPy's result, most of its memory on the host" if setting.simulated else "NumPy's result",
    )
    stats = os.path.join(setting.scratch, "compute.json")
    options = ["--vram", vram, "--virtual", virtual]
    ended = _example(setting, ["terrain_light.py"], options, stats)
    step.facts.update(_facts(ended.stdout))
    row = _device_row(stats)
    peak = int(row.get("peak_physical_bytes", 0))
    spilled = int(row.get("peak_used_bytes", 0)) - peak
    step.facts.update(spills=row.get("spills"), spilled_bytes=row.get("spilled_bytes"))
    step.on_device_bytes, step.on_host_bytes = peak, spilled
    equal = ended.returncode == 0 and step.facts.get("equal to NumPy") == "True"
    # On a real card what the context takes is charged too: there the budget is no quarter.
    quarter = int(step.facts.get("bytes", 0) or 0) >= 4 * setting.compute_vram_bytes
    within = 0 < peak <= setting.compute_vram_bytes and quarter and spilled > 0
    step.ok = equal and (within or not setting.simulated)
    step.outcome = "finished, equal to NumPy's" if equal else _failed(ended)
    if equal and not step.ok:
        step.outcome += f", but {peak} bytes on the device and {spilled} on the host"
    return step


class _Growing:
    """grow.py under emuv-run: one line in, one line out, each with a limit."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdout is not None
        assert child.stdin is not None
        self.child, self.stdin, self.stdout = child, child.stdin, child.stdout
        self._selector = selectors.DefaultSelector()
        self._selector.register(child.stdout, selectors.EVENT_READ)

    def line(self) -> str:
        """Its next line. The program answers a line with a line, so none waits unread."""
        if not self._selector.select(LINE_LIMIT_S):
            raise CommandError(f"grow.py did not answer within {LINE_LIMIT_S:.0f} s")
        answer = self.stdout.readline()
        if not answer:
            self.child.wait(LINE_LIMIT_S)
            raise CommandError(f"grow.py ended with {self.child.returncode}")
        return answer.strip()

    def ask(self) -> tuple[str, int]:
        """Have it take one more piece: ("holding" or "refused", bytes that it holds)."""
        self.stdin.write("\n")
        self.stdin.flush()
        words = self.line().split()
        return words[0], int(words[1])


@contextmanager
def _growing(setting: Setting) -> Iterator[_Growing]:
    start = _children.emuv_run(
        "-q",
        "--vram",
        size_option(setting.vram_bytes),
        *(["--sim"] if setting.simulated else []),
    )
    program = [os.path.join(setting.examples, "grow.py"), str(setting.piece_bytes >> 20)]
    with open(os.path.join(setting.scratch, "grow.err"), "wb") as errors:
        child = subprocess.Popen(
            [*start, sys.executable, *program],
            env=dict(setting.environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
    try:
        yield _Growing(child)
        assert child.stdin is not None
        child.stdin.close()
        child.wait(LINE_LIMIT_S)
    finally:
        if child.poll() is None:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait()


def _set(setting: Setting, pid: int, vram_bytes: int) -> dict[str, Any]:
    """`emuv set PID --vram …` in a process of its own, as from another terminal."""
    root = os.path.dirname(os.path.dirname(_children.__file__))
    code = (
        f"import sys; sys.path.append({os.path.dirname(root)!r}); "
        "from emuv_shim.commands import main; sys.exit(main())"
    )
    ended = _children.run(
        [sys.executable, "-c", code, "set", str(pid), "--vram", size_option(vram_bytes), "--json"],
        setting.environ,
        LINE_LIMIT_S,
    )
    try:
        value = json.loads(ended.stdout)
    except ValueError:
        value = None
    if ended.returncode != 0 or not isinstance(value, dict):
        raise CommandError(f"emuv set {_failed(ended)}")
    return value


def change(setting: Setting) -> list[Step]:
    """A running program's budget, raised and then lowered from outside."""
    low, high = size_option(setting.vram_bytes), size_option(setting.raised_bytes)
    steps = [
        Step(
            "a program that grows",
            f"emuv-run --vram {low} python grow.py {setting.piece_bytes >> 20}",
            "refused at the budget, and goes on",
        ),
        Step("raised while it runs", f"emuv set PID --vram {high}", "the next piece is granted"),
        Step(
            "lowered while it runs",
            f"emuv set PID --vram {low}",
            "keeps what it holds; the next piece is refused",
        ),
    ]
    done = 0
    started = time.monotonic()
    try:
        with _growing(setting) as program:
            if program.line() != "ready":
                raise CommandError("grow.py did not start as it should")
            for step, act in zip(steps, (_fill, _raise, _lower), strict=True):
                act(setting, program, step)
                step.wall_s = round(time.monotonic() - started, 3)
                started = time.monotonic()
                done += 1
    except (CommandError, OSError, ValueError, subprocess.TimeoutExpired) as error:
        with suppress(OSError):
            with open(os.path.join(setting.scratch, "grow.err"), encoding="utf-8") as file:
                said = _last_line(file.read())
            for step in steps[done:]:
                step.outcome, step.ok = f"{error} {said}".strip(), False
    return steps


def _fill(setting: Setting, program: _Growing, step: Step) -> None:
    """Until it is refused, which must be when one piece more would not fit."""
    word, held = "holding", 0
    for _ in range(setting.vram_bytes // setting.piece_bytes + 2):
        word, held = program.ask()
        if word == "refused":
            break
    step.on_device_bytes, step.on_host_bytes = held, 0
    step.ok = word == "refused" and 0 < held <= setting.vram_bytes
    step.outcome = f"refused while it held {_show.brief(held)}" if step.ok else f"{word} {held}"


def _raise(setting: Setting, program: _Growing, step: Step) -> None:
    answer = _set(setting, program.child.pid, setting.raised_bytes)
    word, held = program.ask()
    step.on_device_bytes, step.on_host_bytes = held, 0
    step.facts["set"] = answer
    step.ok = word == "holding" and held <= setting.raised_bytes
    step.outcome = f"granted: it holds {_show.brief(held)}" if step.ok else f"{word} at {held}"


def _lower(setting: Setting, program: _Growing, step: Step) -> None:
    answer = _set(setting, program.child.pid, setting.vram_bytes)
    row = answer["devices"][0]
    over, physical = int(row["unreclaimed_bytes"]), int(row["physical_bytes"])
    word, held = program.ask()
    step.on_device_bytes, step.on_host_bytes = held, 0
    step.facts["set"] = answer
    # A real context counts too, so what is above the budget is told by all that is held.
    step.ok = word == "refused" and held > 0 and over == physical - setting.vram_bytes > 0
    if step.ok:
        step.outcome = f"refused; {_show.brief(over)} above the budget stay until it frees"
    else:
        step.outcome = f"{word}, it holds {held}, emuv set told of {over} above the budget"


STREAMS: tuple[tuple[str, Callable[[Setting], Step]], ...] = (
    ("the program as it is", plain),
    ("under a budget that may spill to host RAM", spill),
    ("under the budget alone", cap),
    ("a program with kernels of its own, under a budget of a quarter of its memory", compute),
)
CHANGE = "a running program's budget, changed from another process"
