# SPDX-License-Identifier: GPL-2.0-only
"""Draw docs/demo.svg: what `emuv demo` prints, as it prints it.

    .venv/bin/python docs/picture.py [docs/demo.svg]

Runs the demo with colours into a pipe, and exports the text by rich. The file
names no font or page outside itself.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from rich._export_format import CONSOLE_SVG_FORMAT
from rich.console import Console
from rich.text import Text

WIDTH = 120  # columns
COMMAND = [sys.executable, "-m", "emuv_shim", "demo"]


def demo() -> str:
    """The demo's output with its colours; raises when the demo fails."""
    env = {**os.environ, "FORCE_COLOR": "1", "COLUMNS": str(WIDTH - 4), "TERM": "xterm-256color"}
    env.pop("NO_COLOR", None)
    done = subprocess.run(
        COMMAND, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        timeout=180, check=True,
    )  # fmt: skip
    return "\n".join(line.rstrip() for line in done.stdout.splitlines())


def template() -> str:
    """rich's SVG frame without the fonts it would fetch."""
    start = CONSOLE_SVG_FORMAT.index("@font-face")
    end = CONSOLE_SVG_FORMAT.index(".{unique_id}-matrix")
    return (CONSOLE_SVG_FORMAT[:start] + CONSOLE_SVG_FORMAT[end:]).replace("Fira Code", "monospace")


def main() -> None:
    """Write the picture."""
    target = Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent / "demo.svg")
    console = Console(record=True, width=WIDTH, file=open(os.devnull, "w"), force_terminal=True)  # noqa: SIM115
    console.print(Text("$ make demo", style="bold"))
    console.print(Text.from_ansi(demo()))
    console.save_svg(str(target), title="emuV", code_format=template(), unique_id="emuv")


if __name__ == "__main__":
    main()
