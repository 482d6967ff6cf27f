# SPDX-License-Identifier: GPL-2.0-only
"""A capture never fails because of emuV, whoever captures and whoever allocates meanwhile.

One program does every kind of allocation and free while a stream is captured, in every
capture mode, by the thread that captures and by another.  It runs without emuV, where
everything fits, and with a budget that is full, where everything spills: no capture that
ends well without may end badly with.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest

from tests.integration.shim_tools import MIB, run_child

ShimEnv = Callable[..., dict[str, str]]

PROGRAM = """
import threading
d = started()
context = d.new("cuCtxGetCurrent")
captured, other = stream(d), stream(d)
POOL = d.new("cuDeviceGetDefaultMemPool", 0)
PTX = b'''.version 8.0
.target sm_80
.address_size 64
.visible .global .attribute(.managed) .align 4 .b8 both[1048576];
''' + b"\\0"
d.new("cuMemAlloc_v2", 60 * MIB)

def get(name, *args):
    out = c_uint64()
    return d.code(name, byref(out), *args), out.value

# Each gets what `before` made, outside of the capture.
def async_alloc(x): return get("cuMemAllocAsync", 20 * MIB, other)[0]
def async_ptsz(x): return get("cuMemAllocAsync_ptsz", 20 * MIB, 2)[0]
def from_pool(x): return get("cuMemAllocFromPoolAsync", 20 * MIB, POOL, other)[0]
def alloc(x): return get("cuMemAlloc_v2", 20 * MIB)[0]
def managed(x): return get("cuMemAllocManaged", 20 * MIB, 1)[0]
def async_free(x): return d.code("cuMemFreeAsync", x, other)
def free(x): return d.code("cuMemFree_v2", x)
def info(x): return d.code("cuMemGetInfo_v2", byref(c_size_t()), byref(c_size_t()))
def in_capture(x): return get("cuMemAllocAsync", 20 * MIB, captured)[0]
def free_in_capture(x): return d.code("cuMemFreeAsync", x, captured)
def load(x): return get("cuModuleLoadData", PTX)[0]
def trim(x): return d.code("cuMemPoolTrimTo", POOL, 0)
def make_pool(x):
    from cuda_driver import PoolProps
    return get("cuMemPoolCreate", byref(PoolProps(1, 0, Location(1, 0), None, 0, 0)))[0]

ACTIONS = [async_alloc, async_ptsz, from_pool, alloc, managed, async_free, free, info, in_capture,
           free_in_capture, load, trim, make_pool]
NEEDS = {async_free, free, free_in_capture}

def in_thread(action, x):
    out = []
    def body():
        d.cuCtxSetCurrent(context)
        out.append(action(x))
    thread = threading.Thread(target=body)
    thread.start()
    thread.join()
    return out[0]

rows = {}
for mode in (0, 1, 2):
    for mine in (True, False):
        for action in ACTIONS:
            x = d.new("cuMemAllocAsync", 20 * MIB, other) if action in NEEDS else 0
            d.cuStreamSynchronize(other)
            d.cuStreamBeginCapture_v2(captured, mode)
            code = action(x) if mine else in_thread(action, x)
            graph = c_uint64()
            end = d.code("cuStreamEndCapture", captured, byref(graph))
            thread = "same" if mine else "other"
            rows[f"{action.__name__} mode {mode} {thread} thread"] = [code, end]
answer(rows=rows, held=held() if "EMUV_VRAM" in os.environ else None)
"""


def outcomes(env: Mapping[str, str]) -> dict[str, Any]:
    """{what: [its code, the code of the capture's end]}."""
    return dict(run_child(env, PROGRAM).answer["rows"])


@pytest.mark.parametrize("vram", [64, 4096])
def test_no_capture_fails_because_of_emuv(
    shim_env: ShimEnv, sim_env: dict[str, str], vram: int
) -> None:
    card = {"EMUV_SIM_VRAM": str(8 << 30)}
    plain = outcomes({**sim_env, **card})
    ours = outcomes({**shim_env(vram=vram * MIB, virtual=4096 * MIB), **card})
    assert ours.keys() == plain.keys()
    worse = {k: (plain[k], v) for k, v in ours.items() if plain[k][1] == 0 and v[1] != 0}
    assert worse == {}
    # And what succeeded then succeeds now.
    assert {k: (plain[k], v) for k, v in ours.items() if plain[k][0] == 0 and v[0] != 0} == {}
    # The plain driver does refuse some: the test sees what it is about.
    assert plain["alloc mode 0 other thread"][1] != 0
    assert plain["alloc mode 1 other thread"][1] == 0
