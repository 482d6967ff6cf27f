# SPDX-License-Identifier: GPL-2.0-only
"""`emuv ps`: the processes that run under emuV, a row for each device they use."""

from __future__ import annotations

import dataclasses

import click

from emuv_shim import _messages
from emuv_shim._messages import printable
from emuv_shim.commands import _show
from emuv_shim.controller import Controller, Listing, Process
from emuv_shim.stats import DeviceStats

MOST_WARNINGS = 10


def warn_of_skipped(listing: Listing) -> None:
    """Say which files were no sound segments: the first few, and how many more."""
    for skipped in listing.warnings[:MOST_WARNINGS]:
        _messages.warning(printable(skipped.message))
    more = len(listing.warnings) - MOST_WARNINGS
    if more > 0:
        _messages.warning(f"{more} more files in {printable(listing.directory)} are no segments")


def devices_of(process: Process) -> list[DeviceStats]:
    """The devices that the process has used, or its first where it used none yet."""
    used = [row for row in process.stats.devices if row.seen]
    return used or list(process.stats.devices[:1])


@click.command(name="ps")
@_show.json_option
def command(as_json: bool) -> None:
    """The processes that run under emuV.

    Segments of processes that have ended are removed on the way.
    """
    controller = Controller()
    removed = controller.clean()
    listing = dataclasses.replace(controller.scan(), removed=removed)
    if removed:
        noun = "segment" if len(removed) == 1 else "segments"
        _messages.say(f"removed {len(removed)} stale {noun} of ended processes")
    warn_of_skipped(listing)
    if as_json:
        _show.emit_json(listing.to_json())
        return
    if not listing.processes:
        _messages.say("no process runs under emuV (one appears when it first uses CUDA)")
        return
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
    for process in listing.processes:
        stats = process.stats
        for device in devices_of(process):
            _show.row(
                made,
                process.pid,
                stats.name or "-",
                f"{device.device}{' (sim)' if stats.is_simulated else ''}",
                _show.budget_text(device.vram_bytes, device.virtual_bytes),
                stats.policy,
                _show.brief(device.physical_bytes),
                _show.brief(device.host_bytes),
                device.denials,
                stats.command,
            )
    _show.show_table(made)
