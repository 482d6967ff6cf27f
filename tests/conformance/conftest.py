# SPDX-License-Identifier: GPL-2.0-only
"""Driver behaviour, stated once: run on the simulated GPU, and on a real driver.

EMUV_CONFORMANCE_DRIVER: unset or `sim`, the simulated GPU; `real`, the system's
libcuda.so.1; a path, that library (libemuv.so in front of either, with its EMUV_*
set, must behave the same).  EMUV_CONFORMANCE_SIM: another simulated libcuda.so.1 than
the built one.  Tests that ask for `sim_table` are about the simulated GPU and are
skipped elsewhere; those that ask for `bare_sim`, about its library itself.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from cuda_driver import Driver, SimTable

ROOT = Path(__file__).resolve().parents[2]
BUILT = ROOT / "emuv_shim" / "_lib" / "sim" / "libcuda.so.1"


def library() -> str:
    """The libcuda.so.1 under test."""
    choice = os.environ.get("EMUV_CONFORMANCE_DRIVER", "sim")
    if choice == "real":
        return "libcuda.so.1"
    if choice != "sim":
        return choice
    path = Path(os.environ.get("EMUV_CONFORMANCE_SIM", BUILT))
    if not path.exists():
        pytest.fail(f"{path} is not built: run `make build`")
    return str(path)


class Script(Protocol):
    """Runs Python text in a process of its own and returns what it printed."""

    def __call__(self, text: str, status: int = 0, **env: str) -> Finished: ...


class Finished(str):
    """Standard output, stripped; `.stderr` beside it."""

    stderr: str = ""


@pytest.fixture(scope="session")
def driver_path() -> str:
    """The libcuda.so.1 under test."""
    return library()


@pytest.fixture(scope="session")
def driver(driver_path: str) -> Driver:
    """The driver under test, initialised; it has at least one device."""
    driver = Driver(driver_path)
    driver.cuInit(0)
    return driver


@pytest.fixture
def context(driver: Driver) -> Iterator[int]:
    """Device 0's primary context, current in this thread."""
    handle = driver.new("cuDevicePrimaryCtxRetain", 0)
    driver.cuCtxPushCurrent_v2(handle)
    yield handle
    driver.cuCtxSetCurrent(handle)
    driver.cuCtxSynchronize()
    driver.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
    driver.cuDevicePrimaryCtxRelease_v2(0)


@pytest.fixture
def sim_table(driver: Driver) -> SimTable:
    """The simulated GPU's own table; the test is skipped on any other driver."""
    table = driver.sim()
    if table is None:
        pytest.skip("about the simulated GPU only")
    return table


@pytest.fixture
def bare_sim(driver: Driver, sim_table: SimTable) -> SimTable:
    """`sim_table`, where nothing is in front of the simulated GPU; else a skip."""
    if not Path(driver.path).name.startswith("libcuda"):
        pytest.skip("about the simulated GPU's library only")
    return sim_table


@pytest.fixture
def script(driver_path: str) -> Script:
    """Runs Python text in a fresh process: for what a process can do only once.

    The text finds the driver, not yet initialised, as `driver`, and everything of
    cuda_driver and ctypes by name.  It must end within 60 s with `status`.
    """

    def run(text: str, status: int = 0, **env: str) -> Finished:
        head = f"""
            import os, sys, threading
            sys.path.insert(0, {str(Path(__file__).parent)!r})
            from ctypes import *
            from cuda_driver import *
            driver = Driver({driver_path!r})
        """
        code = textwrap.dedent(head) + textwrap.dedent(text)
        base = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_SIM_", "CUDA_"))}
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={**base, **env},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        assert done.returncode == status, f"status {done.returncode}\n{done.stdout}{done.stderr}"
        out = Finished(done.stdout.strip())
        out.stderr = done.stderr
        return out

    return run


@pytest.fixture
def stream(driver: Driver, context: int) -> Iterator[int]:
    """A non-blocking stream."""
    handle = driver.new("cuStreamCreate", 1)
    yield handle
    driver.code("cuStreamDestroy_v2", handle)


@pytest.fixture
def cells(driver: Driver, context: int) -> Iterator[int]:
    """64 bytes of device memory, all zero."""
    pointer = driver.new("cuMemAlloc_v2", 64)
    driver.upload(pointer, bytes(64))
    yield pointer
    driver.cuMemFree_v2(pointer)


@pytest.fixture
def graph(driver: Driver, context: int) -> Iterator[int]:
    """An empty graph."""
    handle = driver.new("cuGraphCreate", 0)
    yield handle
    driver.code("cuGraphDestroy", handle)
