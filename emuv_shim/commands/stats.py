# SPDX-License-Identifier: GPL-2.0-only
"""`emuv stats PID|FILE`: what a process did, or those of a run that has ended."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import click

from emuv_shim._messages import command_line, quote
from emuv_shim.commands import _show
from emuv_shim.controller import Controller
from emuv_shim.errors import CommandError, NotAttached
from emuv_shim.stats import DeviceStats, Stats, run_from_json, stats_from_json, stats_to_json

MAX_FILE_BYTES = 256 << 20


def read_file(path: str) -> tuple[tuple[Stats, ...], dict[str, Any] | None]:
    """(the processes, what is said of the run) in a file that `emuv-run --stats` wrote."""
    try:
        if os.path.isfile(path) and os.path.getsize(path) > MAX_FILE_BYTES:
            raise CommandError(f"{quote(path)} is too large to be a statistics file")
        if not os.path.isfile(path):
            what = "a directory" if os.path.isdir(path) else "no running process, run or file"
            raise CommandError(
                f"{quote(path)} is {what}",
                "give a process id, a run, or a file of emuv-run --stats",
            )
        data = Path(path).read_bytes()
        return stats_from_json(data), run_from_json(data)
    except OSError as error:
        raise CommandError(f"{quote(path)}: {(error.strerror or str(error)).lower()}") from None


def living(run: str) -> tuple[Stats, ...] | None:
    """The processes of a run; None where there is no such run."""
    try:
        return tuple(process.stats for process in Controller().find_run(run).processes)
    except NotAttached:
        return None


def _lines(device: DeviceStats) -> list[tuple[str, str]]:
    """The counters of one device in words."""
    size = _show.brief
    overhead = size(device.overhead_bytes, "not known")
    if device.overhead_is_upper_bound:
        overhead = f"at most {overhead}"
    lines = [
        ("budget", _show.budget_text(device.vram_bytes, device.virtual_bytes)),
        ("card", size(device.card_bytes)),
        ("on the device", size(device.device_bytes)),
        ("spilled to the host", size(device.managed_bytes)),
        ("  of it moved to the device", size(device.promoted_bytes)),
        ("  resident on the device", size(device.resident_bytes, "not known")),
        ("contexts", overhead),
        ("peak on the device", size(device.peak_physical_bytes)),
        ("peak in all", size(device.peak_used_bytes)),
        ("free, as the program sees it", size(device.free_bytes, "what the card has")),
        ("live allocations", str(device.live_allocations)),
        ("spills", f"{device.spills} ({size(device.spilled_bytes)})"),
        ("  because the card was full", str(device.driver_oom_spills)),
        ("refused", f"{device.denials} ({size(device.denied_bytes)})"),
        ("hints issued", size(device.hint_bytes)),
    ]
    extra = (
        ("kept by memory pools", device.kept_bytes),
        ("memory nodes of graphs", device.graph_bytes),
        ("held by the run's others", device.others_used_bytes),
        ("imported, charged elsewhere", device.imported_bytes),
        ("pinned host memory", device.pinned_bytes),
    )
    lines += [(what, size(bytes_)) for what, bytes_ in extra if bytes_]
    if device.clipped_calls:
        clipped = f"{device.clipped_calls} ({size(device.clipped_bytes)})"
        lines.append(("the program's hints clipped", clipped))
    if device.uncounted_calls:
        lines.append(("NOT COUNTED", f"{device.uncounted_calls} calls"))
    return lines


def run_text(run: dict[str, Any]) -> str:
    """How a run went, in one line."""
    if run["signal"] is None:
        end = f"ended with {run['exit_code']}"
    else:
        names = {number.value: number.name for number in signal.Signals}
        end = f"killed by {names.get(run['signal'], 'signal ' + str(run['signal']))}"
    budget = "" if run["budget_in_force"] else "; NO budget was in force"
    command = command_line([str(word) for word in run["command"]], 300)
    return f"run: {command}: {end} after {run['wall_s']:.1f} s{budget}"


def show(processes: tuple[Stats, ...]) -> None:
    """Tables for people."""
    console = _show.console()
    for stats in processes:
        driver = f"CUDA {stats.driver_version // 1000}.{stats.driver_version % 1000 // 10}"
        where = f"{driver}, simulated GPU" if stats.is_simulated else driver
        name = f" ({stats.name})" if stats.name else ""
        _show.show_line(console, f"process {stats.pid}{name}, {stats.state}: {stats.command}")
        _show.show_line(console, f"policy {stats.policy}, allocation {stats.allocation}, {where}")
        for device in stats.devices:
            if not device.seen and len(stats.devices) > 1:
                continue
            made = _show.table([f"device {device.device}", ">"])
            for what, value in _lines(device):
                _show.row(made, what, value)
            for function, count in sorted(device.calls.items(), key=lambda item: -item[1]):
                _show.row(made, function, count, style="dim")
            _show.show_table(made)


@click.command(name="stats")
@click.argument("target", metavar="PID|RUN|FILE")
@_show.json_option
def command(target: str, as_json: bool) -> None:
    """What a process did with its budget, by device.

    A number is the process id of a running process; anything else (./123 too) is
    a file that emuv-run --stats wrote, or where there is no such file, a run (as for
    emuv set): its living processes.
    """
    if target.isascii() and target.isdigit():
        stats = Controller().stats(int(target))
        if as_json:
            _show.emit_json(stats.to_json())
        else:
            show((stats,))
        return
    run: dict[str, Any] | None = None
    processes = None if os.path.lexists(target) else living(target)
    if processes is None:
        processes, run = read_file(target)
    if as_json:
        _show.emit_json(stats_to_json(processes) | ({"run": run} if run is not None else {}))
        return
    if run is not None:
        _show.show_line(_show.console(), run_text(run))
    if processes:
        show(processes)
    else:
        click.echo("no process of the run used CUDA")
