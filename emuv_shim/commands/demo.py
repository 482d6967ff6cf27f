# SPDX-License-Identifier: GPL-2.0-only
"""`emuv demo`: a real program that does not fit its card, with and without emuV.

On a machine with no NVIDIA driver the card is emuV's simulated one, of 256 MiB,
and the demo says so. The program is an ordinary one (examples/stream_file.py,
numba-cuda), the data are shared libraries that the installed wheels ship. One more
computes (examples/terrain_light.py), on an elevation model that matplotlib ships.

Exit codes: 0 everything came out as told; 1 something did not; 125 the demo
cannot be run here.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
from typing import Any

import click

from emuv_shim import _driver, _messages, _segment
from emuv_shim._messages import printable
from emuv_shim.commands import _children, _show
from emuv_shim.commands._story import CHANGE, MIB, STREAMS, Setting, Step, change
from emuv_shim.errors import CommandError

SCHEMA = 1
NO_SETUP = 125
SIM_CARD_BYTES = 256 * MIB
_PACKAGES = ("llvmlite", "nvidia", "numpy.libs", "scipy.libs", "torch")
_HINT = "in emuV's source tree: make demo, or pip install '.[demo]'"
_SMALLEST_FILE = 32 * MIB
_LONGEST_BAR = 44  # characters
_LABEL = 42  # ... of the figures behind a bar


def examples_folder() -> str:
    """Where the demo's programs are: beside the package, in a source tree."""
    root = os.path.dirname(os.path.dirname(os.path.abspath(_driver.__file__)))
    folder = os.path.join(root, "examples")
    if not os.path.isfile(os.path.join(folder, "stream_file.py")):
        raise CommandError(
            "the demo's programs are not installed here",
            "run it from emuV's source tree: make demo",
            exit_code=NO_SETUP,
        )
    return folder


def large_files(at_least: int) -> tuple[str, ...]:
    """The fewest shared libraries of installed wheels that come to `at_least` bytes."""
    found: dict[str, int] = {}
    for entry in dict.fromkeys(map(os.path.realpath, sys.path)):
        for package in _PACKAGES:
            for folder, _, names in os.walk(os.path.join(entry, package)):
                for name in names:
                    path = os.path.realpath(os.path.join(folder, name))
                    if ".so" in name and os.path.isfile(path):
                        found[path] = os.path.getsize(path)
    chosen: list[str] = []
    total = 0
    for path, size in sorted(found.items(), key=lambda item: -item[1]):
        if total >= at_least or size < _SMALLEST_FILE:
            break
        chosen.append(path)
        total += size
    if not chosen:
        raise CommandError(
            "found no file large enough to load among the installed packages",
            _HINT,
            exit_code=NO_SETUP,
        )
    # On a real card the budget is larger than the files: load them more than once.
    return tuple(chosen * -(-at_least // total))


def make_setting(force_sim: bool, scratch: str) -> Setting:
    """Sizes and environment for the card at hand. Raises CommandError (125)."""
    examples = examples_folder()  # first: the hints below help in a source tree only
    for package, module in (("numba-cuda", "numba"), ("matplotlib", "matplotlib")):
        if importlib.util.find_spec(module) is None:
            raise CommandError(
                f"the demo's programs need {package}, which is not installed",
                _HINT,
                exit_code=NO_SETUP,
            )
    environ = _children.plain_environ()
    environ["EMUV_RUNTIME_DIR"] = str(_segment.locate_directory(create=True)[0])
    environ["PYTHONUNBUFFERED"] = "1"
    simulated = force_sim
    if not force_sim:
        try:
            _driver.find_driver(environ)
        except CommandError:
            simulated = True
    if simulated:
        environ["EMUV_SIM_VRAM"] = str(SIM_CARD_BYTES)
        sim = _driver.find_driver(environ, sim=True)
        library_path = os.path.dirname(sim.path)
        if environ.get("LD_LIBRARY_PATH"):
            library_path += ":" + environ["LD_LIBRARY_PATH"]
        return Setting(
            simulated=True,
            card_bytes=SIM_CARD_BYTES,
            vram_bytes=192 * MIB,
            compute_vram_bytes=6 * MIB,
            virtual_bytes=1024 * MIB,
            piece_bytes=48 * MIB,
            raised_bytes=240 * MIB,
            environ=environ,
            plain_environ=environ | {"LD_LIBRARY_PATH": library_path},
            examples=examples,
            files=large_files(SIM_CARD_BYTES + 32 * MIB),
            scratch=scratch,
        )
    card = _card_bytes(environ)
    # Room for a real context (some hundred MiB) and for data beside it.
    vram = 1536 * MIB
    if card < 2 * vram:
        raise CommandError(
            f"the card has {_show.brief(card)}, and the demo wants {_show.brief(2 * vram)}",
            "emuv demo --sim runs it on a simulated card",
            exit_code=NO_SETUP,
        )
    return Setting(
        simulated=False,
        card_bytes=card,
        vram_bytes=vram,
        compute_vram_bytes=vram,
        virtual_bytes=2048 * MIB,
        piece_bytes=256 * MIB,
        raised_bytes=vram + 512 * MIB,
        environ=environ,
        plain_environ=environ,
        examples=examples,
        files=large_files(vram + 256 * MIB),
        scratch=scratch,
    )


def _card_bytes(environ: dict[str, str]) -> int:
    answer = _children.ask_cards(_driver.find_driver(environ).path, environ)
    if not answer["devices"]:
        why = answer["problem"] or f"cuInit answered {answer['code']}"
        raise CommandError(
            f"the NVIDIA driver shows no GPU: {printable(str(why))}",
            "emuv demo --sim runs it on a simulated card",
            exit_code=NO_SETUP,
        )
    return int(answer["devices"][0]["total_bytes"])


def _announce(setting: Setting, data_bytes: int) -> None:
    card = _show.brief(setting.card_bytes)
    if setting.simulated:
        where = f"a simulated GPU of {card} (its memory is real; the CPU runs its kernels)"
    else:
        where = f"the GPU of this machine ({card})"
    names = ", ".join(dict.fromkeys(os.path.basename(path) for path in setting.files))
    _messages.say(f"this runs on {where}")
    _messages.say(f"the data: {_show.brief(data_bytes)}, {names}")


def _tell(setting: Setting) -> list[Step]:
    """The steps, each announced before it runs."""
    steps: list[Step] = []
    for number, (what, act) in enumerate(STREAMS, start=1):
        _messages.say(f"{number}/{len(STREAMS) + 1} {what}")
        started = time.monotonic()
        step = act(setting)
        step.wall_s = round(time.monotonic() - started, 3)
        steps.append(step)
    _messages.say(f"{len(STREAMS) + 1}/{len(STREAMS) + 1} {CHANGE}")
    return steps + change(setting)


def _picture(setting: Setting, steps: list[Step]) -> None:
    """Where the bytes were at the most: one bar a step, to one scale."""
    from rich.text import Text

    console = _show.console()
    shown = [step for step in steps if step.on_device_bytes is not None]
    totals = [(step.on_device_bytes or 0) + (step.on_host_bytes or 0) for step in shown]
    largest = max([setting.card_bytes if setting.simulated else 0, *totals, 1])
    width = max((len(step.title) for step in shown), default=0)
    bar = max(8, min(_LONGEST_BAR, console.width - width - _LABEL))
    console.print("Where the bytes were (at the most):")
    for step in shown:
        device, host = step.on_device_bytes or 0, step.on_host_bytes or 0
        on_device, on_host = round(bar * device / largest), round(bar * host / largest)
        line = Text(f"  {step.title:{width}} ")
        line.append("█" * on_device, style="green")
        line.append("░" * on_host, style="yellow")
        line.append(f" {_show.brief(device)} device")
        if host:
            line.append(f", {_show.brief(host)} host")
        console.print(line)
    console.print("  █ device   ░ host RAM")


def _table(setting: Setting, steps: list[Step], data_bytes: int) -> None:
    card = f"{_show.brief(setting.card_bytes)} {'simulated ' if setting.simulated else ''}GPU"
    title = f"One unmodified program, {_show.brief(data_bytes)} of data, a {card}"
    made = _show.table(
        ["", "what was run…", "what happened…", ">on the device", ">in host RAM", ">s"], title
    )
    for step in steps:
        _show.row(
            made,
            "✔" if step.ok else "✘",
            step.typed,
            step.outcome if step.ok else f"{step.outcome} (told: {step.expected})",
            _show.brief(step.on_device_bytes, "-"),
            _show.brief(step.on_host_bytes, "-"),
            f"{step.wall_s:.1f}",
            style=None if step.ok else "bold red",
        )
    _show.show_table(made)


@click.command(name="demo")
@click.option("--sim", is_flag=True, help="Use the simulated GPU where there is a real one too.")
@_show.json_option
def command(sim: bool, as_json: bool) -> int:
    """A program that does not fit its card: without emuV, and with it.

    Exit codes: 0 all came out as told; 1 something did not; 125 cannot be run
    here.
    """
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="emuv-demo-") as scratch:
        setting = make_setting(sim, scratch)
        data_bytes = sum(os.path.getsize(path) for path in setting.files)
        _announce(setting, data_bytes)
        steps = _tell(setting)
    ok = all(step.ok for step in steps)
    if as_json:
        value: dict[str, Any] = {
            "schema": SCHEMA,
            "ok": ok,
            "simulated": setting.simulated,
            "card_bytes": setting.card_bytes,
            "data_bytes": data_bytes,
            "files": list(setting.files),
            "wall_s": round(time.monotonic() - started, 3),
            "steps": [step.to_json() for step in steps],
        }
        _show.emit_json(value)
    else:
        _table(setting, steps, data_bytes)
        _picture(setting, steps)
    if not ok:
        _messages.error("not everything came out as told", "emuv doctor looks for the reason")
    return 0 if ok else 1
