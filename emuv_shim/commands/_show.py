# SPDX-License-Identifier: GPL-2.0-only
"""What the verbs share for showing: sizes, tables, JSON. All of it goes to stdout.

rich is imported when a table is made. Text that came from a segment or a program
is shown as it is, never as markup, and never with its control characters.
"""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from emuv_shim._messages import printable, quote

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MIB = 1 << 20
PIPE_WIDTH = 200  # columns, where stdout is no terminal: nothing is cut for a reader
FOLDED_WIDTH = 8  # columns that what folds keeps at least
_ANY_WIDTH = 10_000


def brief(size_bytes: int | None, unknown: str = "?") -> str:
    """A size in few characters: ``192 MiB``, ``95.4 MiB``, ``120.5 GiB``, ``12 bytes``."""
    if size_bytes is None:
        return unknown
    if size_bytes == 0:
        return "0"
    if size_bytes < MIB // 10:
        return f"{size_bytes} bytes"
    unit, name = (1 << 30, "GiB") if size_bytes >= 64 << 30 else (MIB, "MiB")
    whole, rest = divmod(size_bytes, unit)
    return f"{whole} {name}" if rest == 0 else f"{size_bytes / unit:.1f} {name}"


def budget_text(vram_bytes: int | None, virtual_bytes: int) -> str:
    """``192 MiB + 1024 MiB``: the vram, and the virtual where there is one."""
    text = brief(vram_bytes, "no limit")
    return f"{text} + {brief(virtual_bytes)}" if virtual_bytes else text


def console(wide: int | None = None) -> Console:
    """A console on stdout as wide as the terminal, or as PIPE_WIDTH, or as told."""
    from rich.console import Console

    if wide is None and not sys.stdout.isatty() and "COLUMNS" not in os.environ:
        wide = PIPE_WIDTH
    return Console(highlight=False, markup=False, emoji=False, width=wide)


def table(columns: Sequence[str], title: str | None = None) -> Table:
    """An empty table; a column whose name starts with ">" is set right, "…" may fold."""
    from rich import box
    from rich.table import Table

    made = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", pad_edge=False)
    for name in columns:
        folds = name.endswith("…")
        made.add_column(
            name.strip(">…"),
            justify="right" if name.startswith(">") else "left",
            no_wrap=not folds,
            overflow="fold",
            min_width=len(name.strip(">…")),
        )
    return made


def row(made: Table, *cells: object, style: str | None = None) -> None:
    """One row of plain text; columns that do not fold become as wide as it needs."""
    from rich.text import Text

    texts = [Text(printable(str(cell))) for cell in cells]
    for column, text in zip(made.columns, texts, strict=True):
        wide = text.cell_len if column.no_wrap else min(text.cell_len, FOLDED_WIDTH)
        column.min_width = max(column.min_width or 0, wide)
    made.add_row(*texts, style=style)


def show_table(made: Table) -> None:
    """The table on stdout, whole: a pid or a size that is cut is a wrong one.

    Where the terminal is too narrow the columns move together, and then the lines
    go on past its edge, as those of ps(1) do.
    """
    from rich.measure import Measurement

    target = console()
    if _least_width(made, target) > target.width:
        made.padding, made.show_edge = (0, 0), False
    needed = _least_width(made, target)
    if made.title is not None:
        needed = max(needed, Measurement.get(target, target.options, made.title).minimum)
    if needed > target.width:
        target = console(needed)
    target.print(made)


def _least_width(made: Table, target: Console) -> int:
    """The columns that `made` needs when what can fold is folded."""
    from rich.measure import Measurement

    return Measurement.get(target, target.options.update_width(_ANY_WIDTH), made).minimum


def show_line(target: Console, line: object) -> None:
    """A line that the terminal may wrap, so that a path in it can be copied."""
    target.print(line, soft_wrap=True)


def emit_json(value: Any) -> None:
    """`value` on stdout, indented, with a newline."""
    click.echo(json.dumps(value, indent=2))


def process_id(text: str) -> int:
    """The type of an argument that is a process id."""
    if re.fullmatch("[0-9]{1,10}", text) and 0 < int(text) < 2**31:
        return int(text)
    raise click.BadParameter(f"{quote(text)} is no process id; emuv ps shows them")


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
