# SPDX-License-Identifier: GPL-2.0-only
"""Checks of emuV itself on the card: doctor, a live budget change, costs.

Invariants
- A live program is spoken to line by line; nothing here sleeps to wait for a state.
- Hooked and plain costs are measured in turns, in the same minute, by the same C program.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import statistics
import tempfile
from pathlib import Path
from typing import Any

from _facts_rows import spread
from _gpu_process import Conversation, run
from _gpu_rows import FailError, SkipError, mib
from _gpu_stacks import Bed, Stack, installed

LIVE_SECONDS = 60.0
# live allocations, bytes, pairs a batch, batches
COSTS = ((10, 4096, 200, 21), (10, 2 * 2**20, 50, 21), (1000, 4096, 200, 21))


def check_doctor(bed: Bed) -> None:
    """`emuv doctor --json` finds nothing wrong; its probe was refused."""
    with bed.report.check("doctor") as data:
        bed.report.need(10.0)
        done = run(
            bed.target.emuv("doctor", "--json", *(["--sim"] if bed.simulated else [])),
            bed.target.environment(shim=True),
            60.0,
        )
        try:
            found = json.loads(done.out)
        except ValueError:
            raise FailError(f"ended with {done.code}: {done.last_words()}") from None
        data["doctor"] = found
        if done.code != 0:
            raise FailError(f"ended with {done.code}: {_problems(found) or done.last_words()}")
        data["detail"] = "no problem found, and the probe past the budget was refused"


def _problems(found: Any) -> str:
    """The texts of the doctor's rows that are not well, whatever its words for that."""
    rows = found.get("checks", []) if isinstance(found, dict) else []
    bad = [
        row
        for row in rows
        if isinstance(row, dict)
        and str(row.get("status", row.get("level", "ok"))) in ("problem", "fail", "error")
    ]
    return "; ".join(json.dumps(row)[:200] for row in bad)


def check_live(bed: Bed, stack: Stack) -> None:
    """A running program's budget is raised and lowered from outside, and takes effect."""
    with bed.report.check(f"{stack.name}: live budget change") as data:
        bed.report.need(25.0)
        if not installed(stack.module):
            raise SkipError(f"{stack.module} is not installed")
        environment = bed.target.environment(stack.env, shim=True)
        command = bed.target.emuv_run(["--vram", str(bed.vram)], bed.worker(stack, "live", 0))
        limit = min(LIVE_SECONDS, bed.report.left())
        steps: list[dict[str, Any]] = []
        data["steps"] = steps
        with Conversation(command, environment, limit) as program:
            program.read()

            def alloc(units: float, refused: bool) -> None:
                size = int(units * bed.unit)
                answer = program.ask(f"alloc {size}")
                steps.append({"alloc_bytes": size, **answer})
                if bool(answer["oom"]) != refused:
                    wanted = "should have been refused" if refused else "was refused"
                    raise FailError(f"{mib(size)} on top {wanted}: {answer}")

            def set_vram(units: float, codes: tuple[int, ...] = (0,)) -> None:
                size = int(units * bed.unit)
                pid = str(program.child.pid)
                done = run(bed.target.emuv("set", pid, "--vram", str(size)), environment, 20.0)
                steps.append(
                    {"set_vram_bytes": size, "code": done.code, "said": (done.out + done.err)[:500]}
                )
                if done.code not in codes:
                    raise FailError(f"emuv set ended with {done.code}: {done.last_words()}")

            alloc(1, refused=False)
            before = program.ask("digest")
            alloc(2, refused=True)
            program.ask("free")
            alloc(1, refused=False)
            set_vram(4)
            alloc(2, refused=False)
            set_vram(3.25)
            alloc(1, refused=True)
            listed = run(bed.target.emuv("ps", "--json"), environment, 20.0)
            data["ps"] = _listed(listed.out, program.child.pid)
            # far below what is held: the program must not notice, only be told at its next wish
            set_vram(1.5, codes=(0, 1))
            alloc(1, refused=True)
            program.ask("free")
            alloc(0.5, refused=False)
            program.ask("free")
            set_vram(4)
            alloc(1, refused=False)
            if program.ask("digest")["digest"] != before["digest"]:
                raise FailError("the program's data changed")
            code = program.quit()
            if code != 0:
                raise FailError(f"the program ended with {code}: {program.last_words()}")
        data["detail"] = "raised: more was given; lowered: refused; data intact; exit 0"


def _listed(text: str, pid: int) -> dict[str, Any]:
    """The row of `pid` in what `emuv ps --json` printed."""
    try:
        rows = json.loads(text)["processes"]
    except (ValueError, KeyError, TypeError):
        raise FailError(f"emuv ps --json printed {text[:200]!r}") from None
    for row in rows:
        if row.get("pid") == pid:
            return dict(row)
    raise FailError(f"emuv ps does not list {pid}")


def check_costs(bed: Bed) -> None:
    """Nanoseconds of an allocation and its free, plain and under emuV; no verdict."""
    compiler = next(
        (
            words
            for words in (shlex.split(os.environ.get("CC", "")), ["gcc"], ["cc"])
            if words and shutil.which(words[0])
        ),
        None,
    )
    with tempfile.TemporaryDirectory(prefix="emuv-check-") as place:
        program = Path(place) / "alloc_pairs"
        for live, size, batch, batches in COSTS:
            with bed.report.check(f"cost of a pair: {live} live, {size} bytes") as data:
                bed.report.need(20.0)
                if compiler is None:
                    raise SkipError("no C compiler")
                if not program.exists():
                    source = Path(__file__).with_name("alloc_pairs.c")
                    built = run(
                        [*compiler, "-std=gnu17", "-O2", "-o", str(program), str(source), "-ldl"],
                        dict(os.environ),
                        60.0,
                    )
                    if built.code != 0:
                        raise FailError(f"does not compile: {built.last_words()}")
                command = [str(program), str(live), str(size), str(batch), str(batches)]
                hooked_command = bed.target.emuv_run(["-q", "--vram", str(bed.vram)], command)
                figures: dict[str, list[float]] = {"plain": [], "hooked": []}
                for _ in range(3):
                    figures["plain"] += _pairs(bed, command, shim=False)
                    figures["hooked"] += _pairs(bed, hooked_command, shim=True)
                for name, samples in figures.items():
                    median, p25, p75, count = spread(samples)
                    data[name] = {"median_ns": median, "p25_ns": p25, "p75_ns": p75, "n": count}
                added = statistics.median(figures["hooked"]) - statistics.median(figures["plain"])
                data["added_ns"] = added
                data["detail"] = (
                    f"{data['plain']['median_ns']:.0f} ns plain "
                    f"({data['plain']['p25_ns']:.0f} to {data['plain']['p75_ns']:.0f}), "
                    f"{data['hooked']['median_ns']:.0f} ns under emuV "
                    f"({data['hooked']['p25_ns']:.0f} to {data['hooked']['p75_ns']:.0f}): "
                    f"{added:+.0f} ns"
                )


def _pairs(bed: Bed, command: list[str], shim: bool) -> list[float]:
    done = run(command, bed.target.environment(shim=shim), min(30.0, bed.report.left()))
    if done.late or done.code != 0:
        raise FailError(f"ended with {done.code}: {done.last_words()}")
    return [float(line) for line in done.out.split()]
