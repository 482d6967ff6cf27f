# SPDX-License-Identifier: GPL-2.0-only
"""VMM handles past the budget, on the simulated GPU: what a program gets, and what it sees."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.shim_tools import MIB, OOM, Child, run_child

ShimEnv = Callable[..., dict[str, str]]

VMM = """
from cuda_driver import AccessDesc
from tests.integration.expandable import *
d = started()
def sums():
    b = books()
    return [b["device_bytes"] // MIB, b["managed_bytes"] // MIB, b["promoted_bytes"] // MIB]
def props(types=1):
    return AllocationProp(1, types, Location(1, 0), None, 0, 0, 0)
def create(size, types=1):
    return d.new("cuMemCreate", size, byref(props(types)), 0)
def grant(address, size, where=Location(1, 0), flags=3):
    d.cuMemSetAccess(address, size, byref(AccessDesc(where, flags)), 1)
"""


def vmm(shim_env: ShimEnv, code: str, vram: int = 32, virtual: int = 64, **env: str) -> Child:
    """The program in a budget of so many MiB; nothing is left when it ends."""
    child = run_child(shim_env(vram=vram * MIB, virtual=virtual * MIB, **env), VMM + code)
    d = child.device()
    assert (d.device_bytes, d.managed_bytes, d.promoted_bytes, d.live_allocations) == (0, 0, 0, 0)
    return child


def test_a_handle_past_the_budget_maps_and_works(shim_env: ShimEnv) -> None:
    child = vmm(
        shim_env,
        """
at = d.new("cuMemAddressReserve", 48 * MIB, 0, 0, 0)
h = [create(24 * MIB) for _ in range(2)]
steps = [sums(), card_used(d) // MIB]
for i in range(2):
    d.cuMemMap(at + i * 24 * MIB, 24 * MIB, 0, h[i], 0)
grant(at, 48 * MIB)
data = bytes(range(256)) * (48 * MIB // 256)
d.upload(at, data)
same = d.download(at, 48 * MIB) == data
for handle in h:
    d.cuMemRelease(handle)
steps.append(sums())
d.cuMemUnmap(at, 48 * MIB)
answer(same=same, steps=steps + [sums(), card_used(d)])
""",
    )
    assert child.answer == {"same": True, "steps": [[24, 24, 0], 24, [24, 24, 0], [0, 0, 0], 0]}
    assert (child.device().spills, child.device().spilled_bytes) == (1, 24 * MIB)
    assert child.stderr.count("first spill: 24 MiB go to host memory") == 1


def test_a_kernel_works_on_it(shim_env: ShimEnv) -> None:
    child = vmm(
        shim_env,
        '''
from ptx_kernels import Kernel, entry, at
pages = 24
segment = Segment(d, 2 * MIB)
assert segment.grow(0, pages)
middle = sums()
n = pages * 2 * MIB // 4
text = entry("bump", "u64 base, u32 count", f"""
    setp.ge.u32 p1, i, count;
    @p1 bra END;
    {at("d1", "base", "i", 4)}
    ld.global.u32 r1, [d1]; add.u32 r1, r1, i; st.global.u32 [d1], r1;
    END:
""")
kernel = Kernel(d, text)
d.cuMemsetD32_v2(segment.base, 3, n)
assert kernel.run(n // 256, 256, c_uint64(segment.base), c_uint(n)) == 0
import array
got = array.array("I", d.download(segment.base, 4 * n))
right = got == array.array("I", range(3, n + 3))
segment.close()
answer(right=right, middle=middle)
''',
    )
    assert child.answer == {"right": True, "middle": [32, 16, 0]}


@pytest.mark.parametrize("page", [2, 20])
def test_expandable_segments_run_past_the_budget(shim_env: ShimEnv, page: int) -> None:
    """All that is visible can be had, and had again, and every byte is whose it is."""
    child = vmm(
        shim_env,
        f"""
import random
generator = random.Random({page})
segment = Segment(d, {page} * MIB, rdma=1)
seeds, n = {{}}, 0
while segment.grow(n, 1):
    seeds[n] = 1
    fill(d, segment, n, 1)
    n += 1
most = [len(segment), *sums()]
assert not segment.grow(n, 3)
# As on out of memory: some pages in the middle go, others stay; then the gaps fill.
for p in generator.sample(range(n), n // 2):
    segment.shrink(p, 1)
    del seeds[p]
half = sums()
for p in [p for p in range(n) if p not in seeds]:
    assert segment.grow(p, 1)
    seeds[p] = 2
    fill(d, segment, p, 2)
again = [len(segment), *sums()]
bad = [p for p in seeds if not holds(d, segment, p, seeds[p])]
types = segment.types
segment.close()
answer(most=most, again=again, half=sum(half), types=types, bad=bad)
""",
        vram=40, virtual=80,
    )  # fmt: skip
    got = child.answer
    pages = 120 // page
    assert got["bad"] == []
    assert got["types"] == 1  # by file descriptor, after a fabric has been refused
    assert got["most"] == got["again"] == [pages, 40, 80, 0]
    assert got["half"] == pages // 2 * page
    assert child.device().spills >= pages * 2 // 3


def test_fabric_is_tried_first_past_the_budget(shim_env: ShimEnv) -> None:
    """The answer to that is the driver's, and not that memory ran out."""
    child = vmm(
        shim_env,
        """
full = create(32 * MIB)
segment = Segment(d, 2 * MIB)
grown = segment.grow(0, 4)
types = segment.types
segment.close()
d.cuMemRelease(full)
answer(grown=grown, types=types)
""",
    )
    assert child.answer == {"grown": True, "types": 1}


def test_what_the_program_is_told(shim_env: ShimEnv) -> None:
    child = vmm(
        shim_env,
        """
from ctypes import c_void_p
h = [create(32 * MIB), create(8 * MIB)]
at = d.new("cuMemAddressReserve", 40 * MIB, 0, 0, 0)
d.cuMemMap(at, 32 * MIB, 0, h[0], 0)
d.cuMemMap(at + 32 * MIB, 8 * MIB, 0, h[1], 0)
grant(at, 40 * MIB)
told = []
for i, address in enumerate((at + 5, at + 36 * MIB)):
    got = AllocationProp()
    d.cuMemGetAllocationPropertiesFromHandle(byref(got), h[i])
    out = c_uint(), c_int(9), c_void_p(1), c_uint64()
    which = (c_int * 4)(2, 9, 4, 3)
    import ctypes
    where = (ctypes.c_void_p * 4)(*[ctypes.addressof(o) for o in out])
    d.cuPointerGetAttributes(4, which, where, address)
    told.append([
        got.location.type, got.location.id, got.handle_types,
        out[0].value, out[1].value, out[2].value, out[3].value == address,
        d.code("cuPointerGetAttribute", byref(c_void_p()), 4, address),
        d.new("cuMemGetAccess", byref(Location(1, 0)), address),
        list(shared(d, h[i])),
    ])
d.cuMemUnmap(at, 40 * MIB)
for handle in h:
    d.cuMemRelease(handle)
answer(told=told)
""",
    )
    device, host = child.answer["told"]
    # Device memory of device 0, with no host pointer; accessible; shared by file descriptor.
    assert device == host == [1, 0, 1, 2, 0, None, True, 1, 3, [0, 0]]


def test_retained_by_an_address_inside(shim_env: ShimEnv) -> None:
    child = vmm(
        shim_env,
        """
full = create(32 * MIB)
h = create(8 * MIB)
at = d.new("cuMemAddressReserve", 32 * MIB, 0, 0, 0)
d.cuMemMap(at + 4 * MIB, 8 * MIB, 0, h, 0)
d.cuMemMap(at + 16 * MIB, 8 * MIB, 0, h, 0)
again = d.new("cuMemRetainAllocationHandle", at + 23 * MIB)
steps = []
for f, *a in (
    ("cuMemRelease", h), ("cuMemUnmap", at + 4 * MIB, 8 * MIB), ("cuMemRelease", again),
    ("cuMemUnmap", at + 16 * MIB, 8 * MIB),
):
    d.check(f, *a)
    steps.append(sums()[1])
d.cuMemRelease(full)
answer(same=h == again, steps=steps)
""",
    )
    assert child.answer == {"same": True, "steps": [8, 8, 8, 0]}


def test_a_full_card_spills_too(shim_env: ShimEnv) -> None:
    """48 MiB of budget on a card that has 32."""
    child = vmm(
        shim_env,
        """
h = [create(24 * MIB) for _ in range(2)]
got = sums()
for handle in h:
    d.cuMemRelease(handle)
answer(got=got)
""",
        vram=48, EMUV_SIM_VRAM=str(32 * MIB),
    )  # fmt: skip
    assert child.answer == {"got": [24, 24, 0]}
    assert child.device().driver_oom_spills == 1


def test_the_other_routes_see_it(shim_env: ShimEnv) -> None:
    """One budget: handles, plain memory and pools take from it, and cuMemGetInfo says so."""
    child = vmm(
        shim_env,
        """
def free():
    a, b = c_size_t(), c_size_t()
    d.cuMemGetInfo_v2(byref(a), byref(b))
    return a.value // MIB, b.value // MIB
steps = [free()]
h = create(40 * MIB)
steps.append(free())
a = d.new("cuMemAlloc_v2", 32 * MIB)
b = d.new("cuMemAlloc_v2", 20 * MIB)
steps.append(free())
code = d.code("cuMemCreate", byref(c_uint64()), 6 * MIB, byref(props()), 0)
d.cuMemRelease(h)
steps.append(free())
d.cuMemFree_v2(a)
d.cuMemFree_v2(b)
answer(steps=steps, code=code)
""",
    )
    assert child.answer == {"steps": [[96, 96], [56, 96], [4, 96], [44, 96]], "code": OOM}


def test_memory_for_tiles_stays(shim_env: ShimEnv) -> None:
    child = vmm(
        shim_env,
        """
tiles = AllocationProp(1, 0, Location(1, 0), None, 0, 0, 1)
codes = [d.code("cuMemCreate", byref(c_uint64()), 40 * MIB, byref(tiles), 0) for _ in range(2)]
answer(codes=codes)
""",
    )
    assert child.answer == {"codes": [OOM, OOM]}
    assert child.stderr.count("cannot be spilled: its usage flags are of device memory only") == 1


def test_the_host_must_be_able_to_back_it(shim_env: ShimEnv) -> None:
    code = """
def code(size):
    out = c_uint64()
    return d.code("cuMemCreate", byref(out), size, byref(props()), 0), out.value
codes, handle = [code(1 << 44)[0], sums()], code(40 * MIB)
d.cuMemRelease(handle[1])
answer(codes=codes, then=handle[0])
"""
    child = vmm(shim_env, code, virtual=1 << 25)
    assert child.answer == {"codes": [OOM, [0, 0, 0]], "then": 0}
    assert "the host has" in child.stderr
    assert child.device().denials == 1


def test_a_failure_on_the_way_leaves_nothing(shim_env: ShimEnv) -> None:
    """The driver has no host memory either, at each of the handles in turn."""
    child = vmm(
        shim_env,
        """
full = create(32 * MIB)
codes = []
for code in (2, 1, 801, 719):
    fail_next(d, "cuMemCreate", 1, code)
    codes.append(d.code("cuMemCreate", byref(c_uint64()), 8 * MIB, byref(props(0)), 0))
    assert sums() == [32, 0, 0], sums()
d.cuMemRelease(full)
answer(codes=codes)
""",
    )
    assert child.answer == {"codes": [OOM, OOM, OOM, 719]}


def test_threads_with_a_segment_each(shim_env: ShimEnv) -> None:
    """They take and give back what they can get; every page holds what its owner wrote."""
    child = vmm(
        shim_env,
        """
import random
from concurrent.futures import ThreadPoolExecutor
context = d.new("cuDevicePrimaryCtxRetain", 0)
def work(number):
    d.cuCtxSetCurrent(context)
    generator = random.Random(number)
    segment = Segment(d, 2 * MIB)
    seeds, n, refused = {}, 0, 0
    for turn in range(60):
        page = generator.randrange(24)
        if page not in seeds:
            if segment.grow(page, 1):
                seeds[page] = number * 1000 + turn
                fill(d, segment, page, seeds[page])
            else:
                refused += 1
        else:
            assert holds(d, segment, page, seeds[page]), (number, page)
            if generator.random() < 0.5:
                segment.shrink(page, 1)
                del seeds[page]
    for page, seed in seeds.items():
        assert holds(d, segment, page, seed), (number, page)
    segment.close()
    return refused
with ThreadPoolExecutor(4) as pool:
    refused = list(pool.map(work, range(4)))
answer(refused=sum(refused), used=card_used(d))
""",
        vram=24, virtual=48,
    )  # fmt: skip
    assert child.answer["used"] == 0
    assert child.answer["refused"] > 0
    assert child.device().denials == child.answer["refused"]
    assert child.device().spills > 0
    assert child.device().peak_physical_bytes <= 24 * MIB


def test_two_devices(shim_env: ShimEnv) -> None:
    child = run_child(
        shim_env(vram=f"0={16 * MIB},1={16 * MIB}", virtual=64 * MIB, EMUV_SIM_DEVICES="2"),
        VMM
        + """
other = Segment(d, 2 * MIB, device=1)
assert other.grow(0, 16)
both = [held(0)[:3], held(1)[:3]]
out = c_uint()
d.cuPointerGetAttribute(byref(out), 9, other.address(15))
other.close()
answer(both=both, ordinal=out.value, after=[held(0), held(1)])
""",
    )
    assert child.answer["both"] == [[0, 0, 0], [16 * MIB, 16 * MIB, 0]]
    assert child.answer["ordinal"] == 1
    assert child.answer["after"] == [[0, 0, 0, 0]] * 2
