# SPDX-License-Identifier: GPL-2.0-only
"""A few seconds of the soak test (`make test-soak` is ten minutes of it)."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.conftest import ROOT, run


def test_some_seconds(libemuv: Path, sim: Path) -> None:
    env = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_", "CUDA_"))}
    script = ROOT / "tests" / "soak" / "run.py"
    done = run(
        [sys.executable, script, "--seconds", "4", "--processes", "2", "--threads", "4"], env, 100
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "corrupt 0" in done.stdout
