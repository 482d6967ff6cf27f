# SPDX-License-Identifier: GPL-2.0-only
"""For the tests of libemuv.so: programs in front of it, and the segments they leave."""

from __future__ import annotations

import json
import os
import sys
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from emuv_shim._segment import View
from emuv_shim.stats import DeviceStats, Stats
from tests.conftest import run

MIB = 1 << 20
OOM = 2
PRELUDE = "from tests.integration.shim_child import *\n"


@dataclass(frozen=True)
class Child:
    """How a program ended: its last line of JSON, what it said, its segments."""

    answer: dict[str, Any]
    stdout: str
    stderr: str
    returncode: int
    segments: tuple[Stats, ...]

    @property
    def stats(self) -> Stats:
        """Of the only process that used CUDA."""
        (stats,) = self.segments
        return stats

    def device(self, ordinal: int = 0) -> DeviceStats:
        """The only process's counters of a device."""
        return self.stats.devices[ordinal]


def segments(directory: Path | str) -> tuple[Stats, ...]:
    """The counters of every segment in a directory, by pid."""
    found = []
    for path in sorted(Path(directory).glob("*.seg")):
        with View(path) as view:
            found.append(view.read().stats)
    return tuple(sorted(found, key=lambda stats: stats.pid))


def run_child(
    env: Mapping[str, str],
    code: str,
    *,
    status: int | None = 0,
    timeout: float = 60,
    inside: Sequence[str] = (),
) -> Child:
    """Runs Python text after `from shim_child import *`, by the command `inside`; its segment
    is kept and read."""
    return finish(
        [*inside, sys.executable, "-c", PRELUDE + textwrap.dedent(code)],
        {**env, "EMUV_KEEP": "1"}, status, timeout,
    )  # fmt: skip


def finish(
    args: list[str | Path], env: Mapping[str, str], status: int | None = 0, timeout: float = 60
) -> Child:
    """Runs a program to its end; `status` None: any."""
    done = run(args, env, timeout)
    if status is not None:
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}\n{done.stderr}"
    lines = done.stdout.strip().splitlines()
    last = json.loads(lines[-1]) if lines and lines[-1].startswith("{") else {}
    found = segments(env["EMUV_RUNTIME_DIR"]) if "EMUV_RUNTIME_DIR" in env else ()
    return Child(last, done.stdout, done.stderr, done.returncode, found)


def with_mount(place: Path, options: str) -> list[str]:
    """The command that starts a program to which `place` is a file system in memory."""
    mount = f'mount -t tmpfs -o {options} emuv-test {place} && exec "$@"'
    users = [[], ["--user", "--map-root-user"]]
    for user in users if os.geteuid() == 0 else users[1:]:
        command = ["unshare", "--mount", *user, "sh", "-c", mount, "sh"]
        done = run([*command, "true"], os.environ)
        if done.returncode == 0:
            return command
    pytest.skip(f"neither root nor a namespace of its own may mount here: {done.stderr.strip()}")


def errors(child: Child) -> list[str]:
    """emuV's error lines."""
    return [line for line in child.stderr.splitlines() if line.startswith("emuv: error:")]
