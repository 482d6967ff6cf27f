# SPDX-License-Identifier: GPL-2.0-only
"""`emuv info`: the card, the budgets and their use at a glance."""

from __future__ import annotations

from typing import Any

import click

from emuv_shim import _driver, _memory, _messages, _nvml
from emuv_shim._messages import printable
from emuv_shim.commands import _children, _show
from emuv_shim.commands.ps import ask_nvml, devices_of, show_unmanaged, warn_of_skipped
from emuv_shim.controller import Controller
from emuv_shim.errors import CommandError

SCHEMA = 1


def gather(sim: bool) -> dict[str, Any]:
    """Everything that is shown, as schemas/info.schema.json has it."""
    environ = _children.plain_environ()
    driver: dict[str, Any] | None = None
    found: _driver.Driver | None = None
    devices: list[dict[str, Any]] = []
    problem: str | None = None
    try:
        found = _driver.find_driver(environ, sim=sim)
    except CommandError as error:
        problem = error.message
    else:
        answer = _children.ask_cards(found.path, environ)
        devices, problem = answer["devices"], answer["problem"]
        if problem is None and answer["code"] != 0:
            problem = f"cuInit answered {answer['code']}"
        driver = {
            "path": found.path,
            "found_by": found.found_by,
            "simulated": found.is_sim,
            "version": answer.get("version"),
        }
    host = _memory.host_memory()
    answered = ask_nvml(environ, found)
    controller = Controller()
    listing = controller.scan()
    others = _nvml.unmanaged(answered, [process.pid for process in listing.processes])
    warn_of_skipped(listing)
    rows = [
        {
            "pid": process.pid,
            "name": process.stats.name,
            "command": process.stats.command,
            "simulated": process.stats.is_simulated,
            "device": device.device,
            "policy": process.stats.policy,
            "vram_bytes": device.vram_bytes,
            "virtual_bytes": device.virtual_bytes,
            "on_device_bytes": device.physical_bytes,
            "on_host_bytes": device.host_bytes,
        }
        for process in listing.processes
        for device in devices_of(process.stats)
    ]
    return {
        "schema": SCHEMA,
        "driver": driver,
        "problem": problem,
        "devices": devices,
        "host": None
        if host is None
        else {"available_bytes": host.bytes, "limited_by": host.limited_by},
        "runtime_directory": str(controller.directory),
        "processes": rows,
        "unmanaged": None if others is None else [row.to_json() for row in others],
    }


def _show_all(info: dict[str, Any]) -> None:
    console = _show.console()
    brief = _show.brief
    driver, host = info["driver"], info["host"]
    if driver is not None and driver["version"] is not None:
        version = f"CUDA {driver['version'] // 1000}.{driver['version'] % 1000 // 10}"
        kind = "simulated GPU" if driver["simulated"] else "NVIDIA driver"
        _show.show_line(
            console, f"{kind}, {version}: {printable(driver['path'])} ({driver['found_by']})"
        )
    for device in info["devices"]:
        _show.show_line(
            console,
            f"  device {device['device']}: {printable(device['name'])}, "
            f"{brief(device['total_bytes'])}",
        )
    if host is not None:
        _show.show_line(
            console,
            f"host: {brief(host['available_bytes'])} can be promised as virtual "
            f"({host['limited_by']})",
        )
    if not info["processes"]:
        _show.show_line(console, "no process runs under emuV")
    else:
        _show_processes(info)
    show_unmanaged(
        [
            _nvml.Unmanaged(r["pid"], r["name"], r["nvml_index"], r["uuid"], r["used_bytes"])
            for r in info["unmanaged"] or []
        ]
    )


def _show_processes(info: dict[str, Any]) -> None:
    brief = _show.brief
    made = _show.table(
        [">PID", "NAME…", ">GPU", ">BUDGET", "POLICY", ">ON DEVICE", ">ON HOST", "COMMAND…"]
    )
    for row in info["processes"]:
        _show.row(
            made,
            row["pid"],
            row["name"] or "-",
            f"{row['device']}{' (sim)' if row['simulated'] else ''}",
            _show.budget_text(row["vram_bytes"], row["virtual_bytes"]),
            row["policy"],
            brief(row["on_device_bytes"]),
            brief(row["on_host_bytes"]),
            row["command"],
        )
    on_device = sum(row["on_device_bytes"] for row in info["processes"])
    on_host = sum(row["on_host_bytes"] for row in info["processes"])
    _show.row(made, "", "in all", "", "", "", brief(on_device), brief(on_host), "", style="bold")
    _show.show_table(made)


@click.command(name="info")
@click.option("--sim", is_flag=True, help="Show the simulated GPU.")
@_show.json_option
def command(sim: bool, as_json: bool) -> None:
    """The card, the budgets and their use at a glance."""
    info = gather(sim)
    if as_json:
        _show.emit_json(info)
        return
    _show_all(info)
    if info["problem"] is not None:
        hint = None if sim else "emuv info --sim shows the simulated GPU"
        _messages.warning(printable(info["problem"]))
        if hint and info["driver"] is None:
            _messages.say(f"hint: {hint}")
