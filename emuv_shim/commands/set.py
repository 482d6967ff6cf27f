# SPDX-License-Identifier: GPL-2.0-only
"""`emuv set PID|RUN`: change the budget of a running process, or of a run.

What is not named stays. The process takes the change up at its next allocation
and never fails because of it: what it holds beyond the new budget it keeps, and
this command says how much that is. A run is named by its id, the beginning of it, or
its name. Where it shares its budget (emuv-run --shared), the change of any of its
processes is one for all of them, also for those that start later; else each of its
processes gets its own.
"""

from __future__ import annotations

import contextlib
import math
import re
import time
from typing import Any

import click

from emuv_shim import _launch, _memory, _messages
from emuv_shim._sizes import format_size, is_tiny
from emuv_shim.budget import POLICIES, Budget
from emuv_shim.commands import _show
from emuv_shim.controller import KEPT, BudgetChange, Controller, Run
from emuv_shim.errors import CommandError, EmuvError, NotAttached
from emuv_shim.stats import Stats

POLL_S = 0.05
MAX_WAIT_S = 3600.0


def check_possible(stats: Stats, device: int | None, wanted: dict[str, Any]) -> None:
    """Raises CommandError for a vram beyond the card, or a virtual beyond the host's RAM."""
    host = _memory.host_memory()
    for row in stats.devices:
        if device not in (None, row.device):
            continue
        vram = wanted.get("vram", row.vram_bytes)
        virtual = wanted.get("virtual")
        new = Budget(vram, virtual).resolved(row.card_bytes)
        if "vram" in wanted and row.card_bytes and (new.vram_bytes or 0) > row.card_bytes:
            raise CommandError(
                f"--vram is {format_size(new.vram_bytes)}, more than device {row.device} has: "
                f"{format_size(row.card_bytes)}",
                "give at most what the card has, and --virtual for what goes beyond it",
            )
        more = new.virtual_bytes - row.managed_bytes
        if virtual is not None and host is not None and more > host.bytes:
            raise CommandError(
                f"--virtual is {format_size(new.virtual_bytes)}, and the host can back "
                f"{format_size(host.bytes + row.managed_bytes)} ({host.limited_by})",
                "give a smaller --virtual",
            )


def _held(controller: Controller, change: BudgetChange) -> Stats | None:
    """The process as it is now, or its shared run as one; None when it has ended."""
    try:
        if change.run_id is not None:
            return controller.find_run(change.run_id).total
        return controller.stats(change.pid)
    except EmuvError:
        return None


def _fits(stats: Stats, change: BudgetChange) -> bool:
    """True when what is held on each changed device is within its new vram."""
    vram = {item.device: item.new.vram_bytes for item in change.devices}
    rows = [row for row in stats.devices if row.device in vram]
    limits = [(row.physical_bytes, vram[row.device]) for row in rows]
    return all(limit is None or held <= limit for held, limit in limits)


def _settle(
    controller: Controller, change: BudgetChange, until: float
) -> tuple[bool, bool, Stats | None]:
    """(taken up, fits, last statistics), polled until both hold or time is over."""
    while True:
        stats = _held(controller, change)
        if stats is None:  # it ended meanwhile: nothing is held any more
            return change.applied, True, None
        applied = stats.applied_generation >= change.generation
        fits = _fits(stats, change)
        left = until - time.monotonic()
        if (applied and fits) or left <= 0:
            return applied, fits, stats
        time.sleep(min(POLL_S, left))


def _report(change: BudgetChange, applied: bool, stats: Stats | None) -> None:
    held = {row.device: row.physical_bytes for row in stats.devices} if stats else {}
    whose = f"process {change.pid}" if change.run_id is None else f"run {change.run_id} (shared)"
    for item in change.devices:
        click.echo(f"{whose}, device {item.device}: {item.old} → {item.new}")
        limit = item.new.vram_bytes
        over = max(0, held.get(item.device, 0) - limit) if limit is not None else 0
        if over:
            click.echo(
                f"  not reclaimed: it holds {format_size(held[item.device])} on the device, "
                f"{format_size(over)} above the new vram, and keeps it until it frees"
            )
    taken = "its next allocation" if change.run_id is None else "each process's next allocation"
    click.echo("  in force" if applied else f"  in force from {taken}")


def _target(controller: Controller, text: str) -> int | Run:
    """A process id, or a run; digits that are no process under emuV may name a run."""
    with contextlib.suppress(NotAttached):
        if not re.fullmatch("[0-9]{1,10}", text):
            return controller.find_run(text)
        pid = _show.process_id(text)
        controller.get(pid)
        return pid
    # Neither: what was meant says who answers.
    if text.lstrip("-").isdigit():
        pid = _show.process_id(text)
        with contextlib.suppress(NotAttached):
            return controller.find_run(text)
        return pid
    return controller.find_run(text)


@click.command(name="set")
@click.argument("target", metavar="PID|RUN")
@click.option("--vram", metavar="SIZE", help="New physical budget; none for no limit.")
@click.option("--virtual", metavar="SIZE|1.5x", help="New bytes beyond it, in host RAM.")
@click.option("--policy", type=click.Choice(list(POLICIES)), help="cap drops the virtual.")
@click.option("--device", type=click.IntRange(0), metavar="N", help="This device only.")
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, MAX_WAIT_S),
    metavar="SEC",
    help="Wait until it is in force and what is held fits, at most so long.",
)
@_show.json_option
def command(
    target: str,
    vram: str | None,
    virtual: str | None,
    policy: str | None,
    device: int | None,
    wait_s: float | None,
    as_json: bool,
) -> int:
    """Change the budget of the running process PID, or of the processes of RUN.

    RUN is a run's name, its id, or how that begins (emuv ps shows the ids of shared
    runs, emuv ps --json all). The processes of a shared run have one budget: it
    changes for all of them.

    Exit codes: 0 done; 1 refused, or not in force (or not fitting) when --wait
    was over; 2 usage.
    """
    wanted: dict[str, Any] = {}
    if vram is not None:
        wanted["vram"] = vram
    if virtual is not None:
        wanted["virtual"] = virtual
    if policy is not None:
        wanted["policy"] = policy
    if wait_s is not None and not math.isfinite(wait_s):
        raise click.BadParameter(f"{wait_s} is no number of seconds", param_hint="--wait")
    if not wanted:
        raise click.UsageError("nothing to set: give --vram, --virtual or --policy")
    controller = Controller()
    started = time.monotonic()
    found = _target(controller, target)
    if isinstance(found, Run):
        for process in found.processes:
            check_possible(process.stats, device, wanted)
    else:
        check_possible(controller.stats(found), device, wanted)
    for called, text in (("--vram", vram), ("--virtual", virtual)):
        if text is not None and is_tiny(text):
            _messages.warning(_launch.tiny_size(text, called))
    what: dict[str, Any] = {name: wanted.get(name, KEPT) for name in ("vram", "virtual", "policy")}
    if isinstance(found, Run):
        changes = controller.update_run_budget(found.run_id, device=device, **what)
    else:
        changes = (controller.update_budget(found, device=device, **what),)
    until = started + (wait_s or 0.0)
    outcomes = [(change, *_settle(controller, change, until)) for change in changes]
    if as_json:
        waited = round(time.monotonic() - started, 3) if wait_s is not None else None
        values = [
            change.to_json() | {"applied": applied, "fits": fits, "waited_s": waited}
            for change, applied, fits, _ in outcomes
        ]
        is_many = isinstance(found, Run) and not found.shared
        _show.emit_json({"schema": 1, "changes": values} if is_many else values[0])
    else:
        for change, applied, _, stats in outcomes:
            _report(change, applied, stats)
    if wait_s is None or all(applied and fits for _, applied, fits, _ in outcomes):
        return 0
    late = not all(applied for _, applied, _, _ in outcomes)
    reason = "it is not in force: the process allocated nothing" if late else "it does not fit"
    _messages.warning(f"{wait_s:g} s are over and {reason}")
    return 1
