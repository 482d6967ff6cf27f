# SPDX-License-Identifier: GPL-2.0-only
"""Subprocesses of the verbs: emuV's own probe, and programs under emuv-run.

Each runs in a session of its own and is killed whole at its time limit; their
output comes back as text.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from emuv_shim import _driver, _launch

PROBE = os.path.join(os.path.dirname(_driver.__file__), "_probe.py")
LIMIT_S = 60.0


@dataclass(frozen=True)
class Ended:
    """How a child ended; `returncode` is None where it was killed at its limit."""

    returncode: int | None
    stdout: str
    stderr: str


def plain_environ(given: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment without budgets, and without what an outer emuv-run put into it."""
    environ = dict(os.environ if given is None else given)
    kept = ["EMUV_SIM_", "EMUV_RUNTIME_DIR"]
    if not _launch.is_nested(environ):
        kept += ["EMUV_DRIVER", "EMUV_NVML"]
    for name in list(environ):
        if name.startswith("EMUV_") and not name.startswith(tuple(kept)):
            del environ[name]
    items = environ.pop("LD_PRELOAD", "").replace(" ", ":").split(":")
    others = [item for item in items if item and not _launch.is_own_preload(item)]
    if others:
        environ["LD_PRELOAD"] = ":".join(others)
    auditors = _launch.auditors([], environ.pop("LD_AUDIT", None))
    if auditors:
        environ["LD_AUDIT"] = auditors
    return environ


def emuv_run(*options: str) -> list[str]:
    """The start of a command line that runs the rest under this emuV."""
    root = os.path.dirname(os.path.dirname(_driver.__file__))
    code = (
        f"import sys; sys.path.append({root!r}); "
        "from emuv_shim.commands.run import main; sys.exit(main())"
    )
    return [sys.executable, "-c", code, *options, "--"]


def run(args: Sequence[str], environ: Mapping[str, str], limit_s: float = LIMIT_S) -> Ended:
    """Run `args` to its end, or kill its session after `limit_s` seconds."""
    child = subprocess.Popen(
        list(args),
        env=dict(environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = child.communicate(timeout=limit_s)
        return Ended(child.returncode, out, err)
    except subprocess.TimeoutExpired:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        out, err = child.communicate()
        return Ended(None, out, err)
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()
        raise


def read_json(text: str) -> dict[str, Any] | None:
    """The last line of `text` as a JSON object; None where it is none."""
    lines = text.strip().splitlines()
    try:
        value = json.loads(lines[-1]) if lines else None
    except ValueError:
        return None
    return value if isinstance(value, dict) else None


def ask_cards(driver: str, environ: Mapping[str, str]) -> dict[str, Any]:
    """`_probe.card` of the driver at an absolute path, without emuV in front."""
    ended = run([sys.executable, "-I", "-S", PROBE, "card", driver], environ)
    answer = read_json(ended.stdout)
    if answer is not None:
        return answer
    how = "did not answer in time" if ended.returncode is None else "crashed"
    return {"code": None, "problem": f"the driver {how}", "devices": []}
