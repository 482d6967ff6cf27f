#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Write csrc/sim/cudart/runtime_api.def from two libcudart's dynamic symbol tables.

    gen_runtime_api.py libcudart.so.12 libcudart.so.13 > csrc/sim/cudart/runtime_api.def

Only names are taken, and which of the two libraries exports them.  Names that
begin with neither `cuda` nor `__cuda` are left out (the version node itself).
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path


def exports(library: Path) -> set[str]:
    """The functions that a libcudart exports."""
    text = subprocess.run(
        ["nm", "-D", "--defined-only", "--format=posix", str(library)],
        text=True,
        capture_output=True,
        check=True,
    ).stdout
    names = {line.split()[0].split("@")[0] for line in text.splitlines()}
    return {name for name in names if re.match(r"(__)?cuda[A-Z]", name)}


def rows(twelve: Path, thirteen: Path) -> list[tuple[str, int, int]]:
    """(name, is in 12, is in 13), sorted by name."""
    old, new = exports(twelve), exports(thirteen)
    return [(name, int(name in old), int(name in new)) for name in sorted(old | new)]


def main() -> None:
    """Print the list."""
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    print("/* SPDX-License-Identifier: GPL-2.0-only */")
    print("/* Made by csrc/gen_runtime_api.py.  Do not edit.")
    print(" *")
    print(" * EMUV_RUNTIME(name, in_12, in_13): which libcudart exports it. */")
    for name, in_12, in_13 in rows(Path(sys.argv[1]), Path(sys.argv[2])):
        print(f"EMUV_RUNTIME({name}, {in_12}, {in_13})")


if __name__ == "__main__":
    main()
