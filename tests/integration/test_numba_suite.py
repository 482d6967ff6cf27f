# SPDX-License-Identifier: GPL-2.0-only
"""A sample of numba-cuda's own tests, on the simulated GPU under a budget that spills.

`make test-numba` runs all of them, without and with a budget.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.conftest import run
from tests.numba.results import counts, read

NUMBA = Path(__file__).parents[1] / "numba"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_a_sample_of_numbas_own_tests(
    clean_env: dict[str, str], libemuv: Path, sim: Path, tmp_path: Path
) -> None:
    sample = NUMBA / "sample.txt"
    work = tmp_path / "suite"
    done = run(
        [sys.executable, NUMBA / "run.py", "--emuv", "--only", sample, "--work", work],
        {**clean_env, "EMUV_SUITE_CACHE": str(tmp_path / "cache")},
        timeout=390,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    wanted = [line for line in sample.read_text().splitlines() if not line.startswith("#")]
    results = read(work / "results.txt")
    assert sorted(results) == sorted(wanted)
    assert counts(results) == {"passed": len(wanted)}, results
