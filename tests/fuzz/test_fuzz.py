# SPDX-License-Identifier: GPL-2.0-only
"""Each harness over its whole corpus, and over changes of it for a moment.

FUZZ_SECONDS (1.5) is how long, FUZZ_SEED (1) repeats a run; `make fuzz` takes minutes.
An input that breaks something is kept in tests/fuzz/corpus when it is mended.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.fuzz.targets import HARNESSES, build, corpora, fuzz


@pytest.mark.parametrize("harness", HARNESSES, ids=lambda path: path.stem)
def test_any_input_is_read_or_refused(harness: Path, tmp_path: Path) -> None:
    assert all(any(folder.iterdir()) for folder in corpora(harness))
    seconds = float(os.environ.get("FUZZ_SECONDS", "1.5"))
    program = build(harness, tmp_path)

    done = fuzz(program, harness, seconds, int(os.environ.get("FUZZ_SEED", "1")))

    kept = tmp_path / "fuzz-input"
    assert done.returncode == 0, f"{done.stderr[-3000:]}\nthe input: {kept.read_bytes()[:300]!r}"
    files, inputs = (int(word.split()[0]) for word in done.stdout.split(",")[:2])
    assert inputs >= files > 0
