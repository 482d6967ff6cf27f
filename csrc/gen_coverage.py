#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Write docs/coverage.md from csrc/shim/hooks.def, the list of interposed functions.

    gen_coverage.py > docs/coverage.md        (make coverage)

hooks.def says what emuV does about a function; driver_api.def, which ABI
variants of it a driver exports, and since which CUDA version.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

CSRC = Path(__file__).resolve().parent
HOOKS = CSRC / "shim" / "hooks.def"
API = CSRC / "common" / "driver_api.def"

HEAD = """\
# Coverage

What emuV does about each function of the CUDA driver that allocates, frees, imports, exports or
reports memory. Programs that use the runtime (`cudaMalloc`, …) arrive here: it calls these.

Made by `make coverage` from `csrc/shim/hooks.def`, from which the interposer itself is made. Tests
hold that list against the `cuda.h` of CUDA 12.9 and 13.5: a function that deals in memory, by its
name or by the types of its parameters, is in one of the tables below. All other functions reach
the driver untouched. What no function tells of is in
[limits.md](limits.md#what-is-charged-and-what-is-not).

**Variants** are the ABI versions that drivers export under that name, `_ptsz` and `_ptds` those of
per-thread default streams; `-` is the name itself. All of them are treated alike, where the notes
do not say otherwise.
"""
HOOKED = """
## Interposed

**Counted**: `bytes` are charged to the budget when they are allocated; `gives back` takes a charge
away; `measured` charges what the driver took; `reports` answers from the budget. **Spilled**:
whether it goes on past `--vram`, into host memory.
"""
EXEMPT = """
## Let pass

Not counted by emuV, and why.
"""


class Function(NamedTuple):
    """One row of hooks.def.  An exemption has only notes."""

    section: str
    name: str
    counted: str
    spilled: str
    notes: str


def rows(kind: str, text: str | None = None) -> list[Function]:
    """The EMUV_COVER or EMUV_EXEMPT rows, each with the heading that it stands under."""
    section, found = "", []
    for line in (HOOKS.read_text() if text is None else text).splitlines():
        if heading := re.fullmatch(r"/\* (?:let pass: )?(.+?)(?:: \w+\.c(?:, \w+\.c)*)? \*/", line):
            section = heading[1]
        if row := re.fullmatch(rf"EMUV_{kind}\((\w+), (\"[^\"]*\"(?:, \"[^\"]*\")*)\)", line):
            columns = re.findall(r'"([^"]*)"', row[2])
            found.append(Function(section, row[1], *["", "", *columns][-3:]))
    return found


def variants() -> dict[str, list[str]]:
    """By function: the suffixes of its exports, oldest first."""
    found: dict[str, list[tuple[int, int, str]]] = {}
    for export, name, version, flag in re.findall(
        r"^EMUV_API\((\w+), (\w+), (\d+), ([01])\)$", API.read_text(), re.M
    ):
        found.setdefault(name, []).append((int(version), int(flag), export.removeprefix(name)))
    return {name: [suffix for *_, suffix in sorted(each)] for name, each in found.items()}


def table(functions: list[Function], columns: tuple[str, ...]) -> list[str]:
    """A table for each section, in the list's order."""
    known, lines = variants(), []
    for section in dict.fromkeys(function.section for function in functions):
        title = section[0].upper() + section[1:]
        title = title.replace("docs/limits.md", "[limits](limits.md)")
        head = ("function", "variants", *columns)
        lines += ["", f"### {title}", "", f"| {' | '.join(head)} |", "|---" * len(head) + "|"]
        for function in functions:
            if function.section == section:
                suffixes = (f"`{suffix}`" if suffix else "-" for suffix in known[function.name])
                cells = [f"`{function.name}`", " ".join(suffixes), *function[-len(columns) :]]
                lines.append("|" + "".join(f" {cell} |".replace("  ", " ") for cell in cells))
    return lines


def page() -> str:
    """The whole document."""
    hooked = table(rows("COVER"), ("counted", "spilled", "notes"))
    exempt = table(rows("EXEMPT"), ("why",))
    return "\n".join([HEAD + HOOKED.rstrip("\n"), *hooked, EXEMPT.rstrip("\n"), *exempt, ""])


if __name__ == "__main__":
    print(page(), end="")
