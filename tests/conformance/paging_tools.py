# SPDX-License-Identifier: GPL-2.0-only
"""For tests of paging: a program on a small simulated card, and its statistics."""

from __future__ import annotations

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema

BLOCK = 2 << 20
SCHEMA = json.loads(
    (Path(__file__).parents[2] / "emuv_shim" / "schemas" / "sim-stats.schema.json").read_text()
)
NOTHING = dict.fromkeys(("fault", "prefetch", "eviction", "remote", "copy"), 0)

# What the text of a test finds, beside what the `script` fixture gives it.
PROLOGUE = """
from ptx_kernels import *
from memory_types import *
driver.cuInit(0)
context = driver.new("cuDevicePrimaryCtxRetain", 0)
driver.cuCtxSetCurrent(context)

def managed(blocks, advise=()):
    address = driver.new("cuMemAllocManaged", blocks * BLOCK, 1)
    for advice, device in advise:
        driver.cuMemAdvise(address, blocks * BLOCK, advice, device)
    return address

def touch(address, blocks=1):
    for i in range(blocks):
        driver.cuMemsetD8_v2(address + i * BLOCK, 1, BLOCK)
    driver.cuCtxSynchronize()

def read(address, blocks=1):
    scratch = driver.new("cuMemAlloc_v2", 512)
    for i in range(blocks):
        driver.cuMemcpyDtoD_v2(scratch, address + i * BLOCK, 512)
    driver.cuCtxSynchronize()
    driver.cuMemFree_v2(scratch)

def prefetch(address, blocks, device):
    driver.cuMemPrefetchAsync(address, blocks * BLOCK, device, None)
    driver.cuCtxSynchronize()

def discard(address, blocks, to=None):
    stream = driver.new("cuStreamCreate", 1)
    what = (c_uint64 * 1)(address), (c_size_t * 1)(blocks * BLOCK), 1
    if to is None:
        driver.cuMemDiscardBatchAsync(*what, 0, stream)
    else:
        place = (Location * 1)(to), (c_size_t * 1)(0), 1
        driver.cuMemDiscardAndPrefetchBatchAsync(*what, *place, 0, stream)
    driver.cuStreamSynchronize(stream)
    driver.cuStreamDestroy_v2(stream)

def resident(address, blocks, device=0):
    value = c_uint64()
    assert driver.sim().resident(address, blocks * BLOCK, device, byref(value)) == 0
    return value.value // BLOCK

SPILLED = (SET_PREFERRED, CPU), (SET_ACCESSED_BY, 0)
"""

Stats = dict[str, Any]
Counted = Callable[..., Stats]


def play(script: Callable[..., str], folder: Path, text: str, card: int, **env: str) -> Stats:
    """Run `text` on cards of `card` blocks; what EMUV_SIM_STATS says, held to its schema."""
    target = folder / "stats.json"
    env = {"EMUV_SIM_VRAM": str(card * BLOCK), "EMUV_SIM_STATS": str(target), **env}
    script(PROLOGUE + textwrap.dedent(text), **env)
    stats: Stats = json.loads(target.read_text())
    jsonschema.validate(stats, SCHEMA)
    return stats


def moved(account: Stats) -> dict[str, float]:
    """Blocks that crossed the link, by direction and cause; causes without any are left out."""
    return {
        f"{way}/{cause}": size / BLOCK
        for way, key in (("in", "to_device_bytes"), ("out", "to_host_bytes"))
        for cause, size in account[key].items()
        if size
    }


def counts(account: Stats) -> tuple[int, int, int]:
    """Faults, evictions, thrash."""
    return account["faults"], account["evictions"], account["thrash"]
