# SPDX-License-Identifier: GPL-2.0-only
"""What the verbs share for showing: sizes, tables, JSON. All of it goes to stdout.

rich is imported when a table is made. Text that came from a segment or a program
is shown as it is, never as markup, and never with its control characters.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from emuv_shim._messages import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

MIB = 1 << 20
PIPE_WIDTH = 200  # columns, where stdout is no terminal: nothing is cut for a reader


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


def console() -> Console:
    """A console on stdout as wide as the terminal, or as PIPE_WIDTH."""
    from rich.console import Console

    wide = None if sys.stdout.isatty() or "COLUMNS" in os.environ else PIPE_WIDTH
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
        )
    return made


def row(made: Table, *cells: object, style: str | None = None) -> None:
    """One row of plain text."""
    from rich.text import Text

    made.add_row(*(Text(printable(str(cell))) for cell in cells), style=style)


def emit_json(value: Any) -> None:
    """`value` on stdout, indented, with a newline."""
    click.echo(json.dumps(value, indent=2))


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON on stdout.")
