# SPDX-License-Identifier: GPL-2.0-only
"""NVIDIA's headers and libraries (wheels among the test dependencies), and our readers of them."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest

from tests.conftest import ROOT

MAJORS = (12, 13)


def wheel(major: int) -> Path:
    """The folder of NVIDIA's runtime of that version, with include/ and lib/."""
    import nvidia

    name = {12: "cuda_runtime", 13: "cu13"}[major]
    for folder in nvidia.__path__:
        if (Path(folder) / name / "include" / "cuda_runtime_api.h").exists():
            return Path(folder) / name
    pytest.fail(f"no CUDA {major} runtime: install emuV's `test` extra")


@cache
def generator(name: str) -> ModuleType:
    """csrc/gen_<name>.py as a module."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "csrc" / f"gen_{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
