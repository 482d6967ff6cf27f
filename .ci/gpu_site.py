# SPDX-License-Identifier: GPL-2.0-only
"""Install what emuV needs and this Python lacks into a folder beside it.

    gpu_site.py FOLDER [WHEELS]

For machines whose Python already has torch, cupy and so on, which must stay as
they are.  With WHEELS (a folder that `make wheels` filled elsewhere) nothing is
fetched.  Nothing is installed where nothing is missing.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def requirements() -> list[str]:
    """`name>=version` of emuV's run-time and build dependencies (no TOML reader needed)."""
    text = (ROOT / "pyproject.toml").read_text()
    lists = re.findall(r"^(?:requires|dependencies) = \[(.*?)\]$", text, re.M | re.S)
    return sorted(set(re.findall(r'"([\w-]+>=[\w.]+)"', "".join(lists))))


def lacks(requirement: str) -> bool:
    """True where the running Python has no such package, or an older one."""
    name, _, minimum = requirement.partition(">=")
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return True
    numbers = [[int(n) for n in re.findall(r"\d+", v)[:3]] for v in (version, minimum)]
    return numbers[0] < numbers[1]


def main() -> int:
    """Print what is missing, install it, pass pip's exit status on."""
    folder, *wheels = sys.argv[1:]
    missing = [r for r in requirements() if lacks(r)]
    print(f"emuv: {sys.executable} lacks: {', '.join(missing) or 'nothing'}", file=sys.stderr)
    if not missing:
        return 0
    if wheels and not Path(wheels[0]).is_dir():
        print(f"emuv: error: WHEELS='{wheels[0]}' is no folder", file=sys.stderr)
        print("emuv: hint: fill it on a machine with internet: make wheels", file=sys.stderr)
        return 2
    offline = ["--no-index", "--find-links", wheels[0]] if wheels else []
    command = [sys.executable, "-m", "pip", "install", "-q", "--target", folder, "--upgrade"]
    return subprocess.run([*command, *offline, *missing], timeout=110, check=False).returncode


if __name__ == "__main__":
    if sys.argv[1:] == ["--list"]:
        print(*requirements(), sep="\n")
        sys.exit(0)
    sys.exit(main())
