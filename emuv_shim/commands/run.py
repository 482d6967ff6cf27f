# SPDX-License-Identifier: GPL-2.0-only
"""`emuv-run [options] [--] COMMAND…`: start an unmodified program under a budget.

In this order: what was typed must make sense (exit code 2), the program must be
one that can be started (126, 127) and that will load the interposer, the driver
and the machine must be able to give what was asked (125). Only then something
starts. By default it replaces this process; with --stats this process stays
beside it and writes what it did.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import click

from emuv_shim import _driver, _launch, _libraries, _memory, _messages, _preflight
from emuv_shim._messages import printable, quote
from emuv_shim.commands import run_click, version_option
from emuv_shim.errors import CommandError, EmuvError

NO_SETUP, NOT_EXECUTABLE = 125, 126
_MANY_SEGMENTS = 256


@dataclass(frozen=True)
class Options:
    """The options that are not part of the budget."""

    sim: bool = False
    best_effort: bool = False
    stats: str | None = None
    dry_run: bool = False


def _set_up(
    request: _launch.Request, options: Options, environ: Mapping[str, str], path: str, preload: bool
) -> _launch.Plan:
    """The plan for starting `path` under the budget. Raises CommandError."""
    libemuv = _driver.libemuv_path()
    audited = [_driver.auditor_path()] if _launch.wants_audit(request, environ) else []
    _libraries.check(libemuv, *audited)
    driver = _driver.find_driver(environ, sim=options.sim)
    wants_sizes = any(
        (request.vram, request.virtual, environ.get("EMUV_VRAM"), environ.get("EMUV_VIRTUAL"))
    )
    machine_cards = _driver.machine_cards(driver, environ) if driver.is_sim or wants_sizes else []
    cards = _driver.seen_bytes(machine_cards, environ)
    # With no card known to be left, as with those of MIG, CUDA is the one to say so.
    n_cards = len(cards) or None
    named = None
    if _launch.names_devices(request, environ):
        named = _devices_by_uuid(request, environ, driver, n_cards)
    budget = _launch.plan_budget(request, environ, cards, named)
    if budget.virtual is not None:
        host = _memory.host_memory()
        if host is not None:
            _launch.check_host(budget, host.bytes, host.limited_by)
    from emuv_shim import _segment

    directory = str(_segment.locate_directory(create=not options.dry_run)[0])
    if not options.dry_run:
        _clean_where_many(directory)
    name_of = _libraries.Names(directory, make=not options.dry_run)
    libemuv_nvml = _driver.libemuv_nvml_path()
    machine = _launch.Machine(
        libemuv=name_of(libemuv),
        driver=driver.path,
        sim_directory=name_of(os.path.dirname(driver.path)) if driver.is_sim else None,
        runtime_directory=directory,
        run_id=os.urandom(8).hex(),
        preload=preload,
        runtimes=tuple(map(name_of, _driver.runtimes_beside(driver))),
        nvml=_driver.find_nvml(driver, environ),
        libemuv_nvml=name_of(libemuv_nvml) if os.path.exists(libemuv_nvml) else None,
        auditor=name_of(_driver.auditor_path()),
    )
    plan = _launch.make_plan(request, environ, path, budget, machine, n_cards)
    if _launch.wants_shared(request, environ) and not options.dry_run:
        _share(plan.environ(environ), budget)
    return plan


def _share(environ: Mapping[str, str], budget: _launch.BudgetPlan) -> None:
    """Makes the run's file: what cannot be shared does not start. Raises EmuvError.

    On the way the files of shared runs that have ended go: nobody else removes them.
    """
    from emuv_shim import _segment
    from emuv_shim.budget import ALLOCATIONS, POLICIES

    lib, directory = _segment.native().lib, environ["EMUV_RUNTIME_DIR"]
    with contextlib.suppress(OSError):
        for name in os.listdir(directory):
            if name.endswith(".run"):
                _segment.sweep_run(os.path.join(directory, name))
    budgets = []
    for device in range(int(lib.EMUV_MAX_DEVICES)):
        vram = budget.vram.for_device(device)
        virtual = budget.virtual.for_device(device) if budget.virtual is not None else None
        budgets.append((int(lib.EMUV_UNLIMITED) if vram is None else vram, virtual or 0))
    control = _segment.Control(
        0, POLICIES.index(budget.policy), ALLOCATIONS.index(budget.allocation), tuple(budgets)
    )
    _segment.make_run(directory, environ["EMUV_RUN"], environ.get("EMUV_NAME", ""), control)


def _devices_by_uuid(
    request: _launch.Request,
    environ: Mapping[str, str],
    driver: _driver.Driver,
    n_cards: int | None,
) -> Callable[[str], int]:
    """Finds ordinals as the program will count them: CUDA itself is asked, by a child.

    Nothing else knows its order, nor the instances of MIG.
    """
    from emuv_shim.commands import _children

    visible = _launch.visible_devices(request, environ, n_cards)
    visible = visible if visible is not None else environ.get("CUDA_VISIBLE_DEVICES")
    seen = _children.plain_environ(environ)
    if visible is not None:
        seen["CUDA_VISIBLE_DEVICES"] = visible
    answer = _children.ask_cards(driver.path, seen)
    problem = answer["problem"]
    if problem is None and answer["code"] != 0:
        problem = f"cuInit answered {answer['code']}"
    if problem is not None:
        raise CommandError(
            f"a size names a device by its UUID, and the driver did not tell theirs: {problem}",
            "name devices by their numbers: 0=4GiB,1=8GiB",
            exit_code=NO_SETUP,
        )
    uuids = [row["uuid"] for row in answer["devices"]]
    return partial(_launch.device_named, uuids=uuids, visible=visible)


def _clean_where_many(directory: str) -> None:
    """Remove what killed processes left, where nobody has called `emuv ps` for long.

    A process that dies by a signal leaves its segment, on what is mostly a tmpfs.
    """
    with contextlib.suppress(EmuvError, OSError):
        if len(os.listdir(directory)) > _MANY_SEGMENTS:
            from emuv_shim.controller import Controller

            Controller(directory).clean()


def _plan(
    request: _launch.Request, options: Options, environ: Mapping[str, str]
) -> tuple[_launch.Plan, bool]:
    """(what to start, whether the budget is in force)."""
    finding = _preflight.check(request.command[0], environ, request.command[1:])
    if finding.level == "command":
        raise CommandError(finding.message, finding.hint, exit_code=finding.exit_code)
    if finding.level == "budget" and not options.best_effort:
        raise CommandError(finding.message, finding.hint, exit_code=finding.exit_code)
    try:
        plan = _set_up(request, options, environ, finding.path, finding.preload)
    except (CommandError, EmuvError) as error:
        code = error.exit_code if isinstance(error, CommandError) else NO_SETUP
        if code != NO_SETUP or not options.best_effort:
            raise CommandError(error.message, error.hint, exit_code=code) from None
        _warn_unbudgeted(error.message)
        return _launch.Plan(finding.path, request.command), False
    if finding.level == "budget":
        _warn_unbudgeted(finding.message)
        return plan, False
    return plan, True


def _warn_unbudgeted(reason: str) -> None:
    _messages.warning(f"{reason}; started all the same (--best-effort): NO budget is in force")


def _not_started(plan: _launch.Plan, error: OSError) -> CommandError:
    """execve failed although everything looked right (noexec mount, too long, …)."""
    reason = (error.strerror or str(error)).lower()
    return CommandError(
        f"{quote(plan.argv[0])} cannot be started ({printable(plan.path)}): {reason}",
        exit_code=NOT_EXECUTABLE,
    )


def launch(
    request: _launch.Request, options: Options, environ: Mapping[str, str] | None = None
) -> int:
    """Start the program; returns only where it did not replace this process."""
    environ = dict(os.environ if environ is None else environ)
    _launch.check_syntax(request, environ)
    if options.stats is not None and not options.dry_run:
        from emuv_shim import _stats_file

        _stats_file.check_writable(options.stats)
    plan, in_force = _plan(request, options, environ)
    made = plan.environ(environ)
    if in_force:
        for line in (*_launch.tiny_sizes(request, environ), *_launch.idle_rules(request, made)):
            _messages.warning(line)
    if options.dry_run:
        for line in _launch.dry_run_lines(plan):
            click.echo(line)
        return 0
    if in_force and not request.quiet and environ.get("EMUV_QUIET") != "1":
        _messages.say(plan.summary)
    if options.stats is None:
        from emuv_shim._supervise import restore_signals

        restore_signals()
        try:
            os.execve(plan.path, list(plan.argv), made)
        except OSError as error:
            raise _not_started(plan, error) from None
    return _run_with_stats(plan, made, options.stats, in_force)


def _run_with_stats(
    plan: _launch.Plan, environ: Mapping[str, str], stats: str, in_force: bool
) -> int:
    from emuv_shim import _stats_file, _supervise

    run = _stats_file.begin(plan, environ, in_force)
    try:
        status = _supervise.run_program(plan.path, plan.argv, environ)
    except OSError as error:
        raise _not_started(plan, error) from None
    try:
        _stats_file.finish(run, status, stats)
    except (EmuvError, OSError) as error:  # the program's end is still the answer
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        _messages.error(f"no statistics in {quote(stats)}: {printable(reason.lower())}")
    return _supervise.end_as(status)


@click.command(
    name="run",
    context_settings={
        "allow_interspersed_args": False,
        "help_option_names": ["-h", "--help"],
        "max_content_width": 100,
    },
)
@click.option(
    "--vram",
    metavar="SIZE",
    help="Physical budget: 6GiB, 50%, 0=4GiB,1=8GiB or by UUID (GPU-1234=4GiB), none.",
)
@click.option(
    "--virtual", metavar="SIZE|1.5x", help="Extra bytes in host RAM, or a multiple of the vram."
)
@click.option("--policy", metavar="cap|spill", help="Past the vram: refuse, or spill to host RAM.")
@click.option("--allocation", metavar="lazy|eager", help="When host RAM is taken: touch, or now.")
@click.option(
    "--keep-device", metavar="RULE,...", help="Do not spill these: <=2MiB, 1MiB-8MiB, libnccl."
)
@click.option("--device", type=int, metavar="N", help="Give the program this device only.")
@click.option("--name", metavar="TEXT", help="A name for emuv ps, at most 63 bytes.")
@click.option("--sim", is_flag=True, help="Use emuV's simulated GPU.")
@click.option("--shared", is_flag=True, help="One budget for all processes of the run together.")
@click.option("--audit", is_flag=True, help="Lead dlmopen and RTLD_DEEPBIND to emuV, too.")
@click.option("--best-effort", is_flag=True, help="Start even where no budget can be in force.")
@click.option("--stats", metavar="FILE", help="Stay, and write what the run did as JSON.")
@click.option("--dry-run", is_flag=True, help="Check, print what would be executed, and stop.")
@click.option("-q", "--quiet", is_flag=True, help="Only errors and warnings on stderr.")
@version_option
@click.argument("command_words", metavar="COMMAND [ARGUMENT]...", nargs=-1, type=click.UNPROCESSED)
def command(
    vram: str | None,
    virtual: str | None,
    policy: str | None,
    allocation: str | None,
    keep_device: str | None,
    device: int | None,
    name: str | None,
    sim: bool,
    shared: bool,
    audit: bool,
    best_effort: bool,
    stats: str | None,
    dry_run: bool,
    quiet: bool,
    command_words: tuple[str, ...],
) -> int:
    """Start COMMAND under a budget of GPU memory.

    Sizes: K M G T and KiB MiB GiB TiB are powers of 1024, KB MB GB TB powers of
    1000, a plain number is bytes. Without --virtual the program meets an
    out-of-memory error at the vram, as on a smaller card; with it, what exceeds
    the vram goes to host RAM. Options can also come from the environment
    (EMUV_VRAM, EMUV_VIRTUAL, EMUV_POLICY, EMUV_ALLOCATION, EMUV_KEEP_DEVICE,
    EMUV_DEVICE, EMUV_NAME, EMUV_AUDIT=1, EMUV_SHARED=1); a flag wins.

    Exit codes: the program's own; 2 usage; 125 emuV could not set up; 126 not
    executable; 127 not found.
    """
    request = _launch.Request(
        command=command_words,
        vram=vram,
        virtual=virtual,
        policy=policy,
        allocation=allocation,
        keep_device=keep_device,
        device=device,
        name=name,
        quiet=quiet,
        keep=stats is not None,
        audit=audit,
        shared=shared,
    )
    return launch(request, Options(sim, best_effort, stats, dry_run))


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of `emuv-run`."""
    return run_click(command, "emuv-run", args if args is not None else sys.argv[1:])
