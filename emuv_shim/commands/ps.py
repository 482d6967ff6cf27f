# SPDX-License-Identifier: GPL-2.0-only
"""`emuv ps`: the processes that run under emuV, a row for each device they use.

Below them the processes on the machine's cards that emuV does not manage, where NVML tells.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import click

from emuv_shim import _driver, _messages, _nvml
from emuv_shim._messages import printable
from emuv_shim.commands import _show
from emuv_shim.controller import Controller, Listing
from emuv_shim.errors import CommandError
from emuv_shim.stats import DeviceStats, Stats

if TYPE_CHECKING:
    from rich.table import Table

MOST_WARNINGS = 10


def warn_of_skipped(listing: Listing) -> None:
    """Say which files were no sound segments: the first few, and how many more."""
    for skipped in listing.warnings[:MOST_WARNINGS]:
        _messages.warning(printable(skipped.message))
    more = len(listing.warnings) - MOST_WARNINGS
    if more > 0:
        _messages.warning(f"{more} more files in {printable(listing.directory)} are no segments")


def devices_of(stats: Stats) -> list[DeviceStats]:
    """The devices that a process, or a run, has used, or its first where it used none yet."""
    used = [row for row in stats.devices if row.seen]
    return used or list(stats.devices[:1])


def ask_nvml(environ: Mapping[str, str], driver: _driver.Driver | None) -> _nvml.Answer | None:
    """Who is on the cards; None where there is no NVML. Ask before listing segments: a
    process has its segment before it has anything on a card.
    """
    if driver is None and environ.get("EMUV_DRIVER") == _driver.sim_path():
        driver = _driver.Driver(_driver.sim_path(), "EMUV_DRIVER", True)
    try:
        path = _driver.find_nvml(driver, environ)
    except CommandError as error:
        _messages.warning(error.message)
        return None
    return _nvml.ask(path, users=True)


def show_unmanaged(rows: list[_nvml.Unmanaged] | None) -> None:
    """A table of them, if there are any."""
    if not rows:
        return
    made = _show.table([">PID", "NAME…", ">CARD", ">ON DEVICE", "BUDGET"])
    for row in rows:
        _show.row(
            made, row.pid, row.name or "?", row.device, _show.brief(row.used_bytes), "not managed"
        )
    _show.show_table(made)


@click.command(name="ps")
@_show.json_option
def command(as_json: bool) -> None:
    """The processes that run under emuV, and who else is on the machine's cards.

    Segments of processes that have ended are removed on the way.
    """
    answer = ask_nvml(os.environ, None)
    controller = Controller()
    removed = controller.clean()
    listing = dataclasses.replace(controller.scan(), removed=removed)
    if removed:
        noun = "segment" if len(removed) == 1 else "segments"
        _messages.say(f"removed {len(removed)} stale {noun} of ended processes")
    warn_of_skipped(listing)
    others = _nvml.unmanaged(answer, [process.pid for process in listing.processes])
    if as_json:
        rows = None if others is None else [row.to_json() for row in others]
        _show.emit_json({**listing.to_json(), "unmanaged": rows})
        return
    if listing.processes:
        _show_managed(listing)
    else:
        _messages.say("no process runs under emuV (one appears when it first uses CUDA)")
    show_unmanaged(others)


def _show_managed(listing: Listing) -> None:
    made = _show.table(
        [
            ">PID",
            "NAME…",
            ">GPU",
            ">BUDGET",
            "POLICY",
            ">ON DEVICE",
            ">ON HOST",
            ">DENIED",
            "COMMAND…",
        ]
    )
    shared = {run.processes[0].pid: run for run in listing.runs if run.shared}
    grouped = [p for run in shared.values() for p in run.processes]
    for process in [*grouped, *(p for p in listing.processes if p not in grouped)]:
        if process.pid in shared:  # first the budget that these share, and their sums
            run, n = shared[process.pid], len(shared[process.pid].processes)
            noun = "process" if n == 1 else "processes"
            _add_rows(made, "run", run.total, f"run {run.run_id}: shared by {n} {noun}")
        _add_rows(made, process.pid, process.stats, process.stats.command)
    _show.show_table(made)


def _add_rows(made: Table, who: object, stats: Stats, what: str) -> None:
    for device in devices_of(stats):
        _show.row(
            made,
            who,
            stats.name or "-",
            f"{device.device}{' (sim)' if stats.is_simulated else ''}",
            _show.budget_text(device.vram_bytes, device.virtual_bytes),
            stats.policy,
            _show.brief(device.physical_bytes),
            _show.brief(device.host_bytes),
            device.denials,
            what,
        )
