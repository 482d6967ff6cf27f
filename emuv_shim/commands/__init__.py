# SPDX-License-Identifier: GPL-2.0-only
"""The commands: `emuv-run` (run.py) and `emuv` with one file a verb.

A verb's module is imported when the verb is called, so that `emuv-run` and
`emuv set` do not pay for tables and probes. Each module has one click command
named `command`.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
from collections.abc import Callable, Sequence

import click

from emuv_shim import _messages
from emuv_shim.errors import CommandError, EmuvError, SizeError

VERBS = {
    "ps": "The processes that run under emuV.",
    "stats": "What a process did with its budget: counters by device.",
    "set": "Change the budget of a running process.",
    "info": "The card, the budgets and their use at a glance.",
    "doctor": "Does emuV work here? Ends with a probe that must be refused.",
    "demo": "A program that does not fit, with and without emuV.",
    "run": "Start a program under a budget (the same as emuv-run).",
}


class Verbs(click.Group):
    """A group whose commands are modules, imported on use."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(VERBS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in VERBS:
            return None
        module = importlib.import_module(f"emuv_shim.commands.{cmd_name}")
        command = module.command
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(VERBS.items()))


def show_version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    """The callback of --version: data, so on stdout."""
    if value and not ctx.resilient_parsing:
        from emuv_shim import __version__

        click.echo(f"emuv {__version__}")
        ctx.exit()


def version_option(command: Callable[..., object]) -> Callable[..., object]:
    """`--version` without importlib.metadata, which costs more than the launcher."""
    return click.option(
        "--version",
        is_flag=True,
        expose_value=False,
        is_eager=True,
        callback=show_version,
        help="Show the version and exit.",
    )(command)


def _fail(message: str, hint: str | None, exit_code: int) -> int:
    _messages.error(message, hint)
    return exit_code


def run_click(command: click.Command, program: str, args: Sequence[str] | None = None) -> int:
    """Run a click command; every error becomes emuV's form. Returns the exit code.

    Unexpected exceptions pass: a traceback is what a bug report needs.
    """
    if sys.stdout is None:  # closed: what is shown goes nowhere
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        _messages.tolerate(stream)
    try:
        result = command.main(
            args=None if args is None else list(args), prog_name=program, standalone_mode=False
        )
        sys.stdout.flush()
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx is not None else program
        return _fail(error.format_message(), f"{where} --help shows what is accepted", 2)
    except click.ClickException as error:
        return _fail(error.format_message(), None, error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _fail("interrupted", None, 130)
    except CommandError as error:
        return _fail(error.message, error.hint, error.exit_code)
    except SizeError as error:
        return _fail(error.message, error.hint, 2)
    except EmuvError as error:
        return _fail(error.message, error.hint, 1)
    except (OSError, SystemExit) as error:
        # Most likely stdout: full, or its reader (head, less) has gone. The
        # interpreter must not fail again when it flushes at exit.
        with contextlib.suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        # click and rich know the latter, and ask for an exit.
        if isinstance(error, (BrokenPipeError, SystemExit)):
            return 141
        where = f"{_messages.quote(str(error.filename))}: " if error.filename else ""
        return _fail(where + (error.strerror or str(error)).lower(), None, 1)


@click.group(
    cls=Verbs,
    invoke_without_command=True,
    no_args_is_help=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
@version_option
@click.pass_context
def command(ctx: click.Context) -> None:
    """Budgets of GPU memory for unmodified CUDA programs."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help(), err=True)
        ctx.exit(2)


def main(args: Sequence[str] | None = None) -> int:
    """Entry point of `emuv`."""
    return run_click(command, "emuv", args if args is not None else sys.argv[1:])
