# SPDX-License-Identifier: GPL-2.0-only
"""The README's example in Python, run as it stands beside a program under emuV."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

from emuv_shim import Budget
from tests.conftest import ROOT, run

PROGRAM = """
import ctypes, sys
driver = ctypes.CDLL("libcuda.so.1")
assert driver.cuInit(0) == 0
print("ready", flush=True)
sys.stdin.read()
"""


def test_the_python_example_works(clean_env: dict[str, str], libemuv: Path) -> None:
    examples = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(examples) == 1
    launcher = "from emuv_shim.commands.run import main; raise SystemExit(main())"
    options = ["--sim", "--vram", "1GiB", "--name", "nightly", "--", sys.executable, "-c", PROGRAM]
    with subprocess.Popen(
        [sys.executable, "-c", launcher, *options],
        env=clean_env,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        assert program.stdin is not None
        assert program.stdout is not None
        try:
            assert program.stdout.readline() == "ready\n"
            show = "\nprint(controller.get(process.pid).budget())\n"
            done = run([sys.executable, "-c", examples[0] + show], clean_env, 30)
        finally:
            program.stdin.close()
            status = program.wait(timeout=20)
    assert done.returncode == 0, done.stderr
    before, after = done.stdout.splitlines()
    assert before == f"{program.pid} nightly {Budget(vram='1024 MiB', policy='cap')}"
    assert after == str(Budget(vram="4096 MiB", virtual="8192 MiB", policy="spill"))
    assert status == 0
