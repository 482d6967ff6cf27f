# SPDX-License-Identifier: GPL-2.0-only
"""Memory that cannot be managed: VMM handles and arrays are charged, and refused past vram."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.integration.shim_tools import MIB, OOM, run_child

ShimEnv = Callable[..., dict[str, str]]

VMM = """
from cuda_driver import AccessDesc
d = started()
props = AllocationProp(1, 0, Location(1, 0), None, 0, 0, 0)
def create(size):
    return d.new("cuMemCreate", size, byref(props), 0)
def charged():
    return books()["device_bytes"] // MIB
at = d.new("cuMemAddressReserve", 64 * MIB, 0, 0, 0)
"""


def vmm(shim_env: ShimEnv, code: str) -> dict[str, object]:
    """What the program answers, in a budget of 32 MiB (virtual 64: of no use here)."""
    child = run_child(shim_env(vram=32 * MIB, virtual=64 * MIB), VMM + code)
    assert child.device().spills == 0
    return child.answer


class TestVmm:
    """The bytes live as long as a handle or a mapping of them does."""

    def test_reserving_addresses_costs_nothing(self, shim_env: ShimEnv) -> None:
        """expandable_segments reserves 9/8 of the card for each segment."""
        got = vmm(
            shim_env,
            """
big = d.new("cuMemAddressReserve", 1 << 34, 0, 0, 0)
answer(charged=charged(), live=books()["live_allocations"])
""",
        )
        assert got == {"charged": 0, "live": 0}

    def test_handle_first_then_mapping(self, shim_env: ShimEnv) -> None:
        got = vmm(
            shim_env,
            """
h = create(8 * MIB)
d.cuMemMap(at, 8 * MIB, 0, h, 0)
d.cuMemSetAccess(at, 8 * MIB, byref(AccessDesc(Location(1, 0), 3)), 1)
steps = [charged()]
d.cuMemRelease(h)
steps.append(charged())
d.upload(at + MIB, b"mapped")
row = d.download(at + MIB, 6).decode()
d.cuMemUnmap(at, 8 * MIB)
steps.append(charged())
answer(steps=steps, row=row, used=card_used(d), live=books()["live_allocations"])
""",
        )
        assert got == {"steps": [8, 8, 0], "row": "mapped", "used": 0, "live": 0}

    def test_mapping_first_then_handle(self, shim_env: ShimEnv) -> None:
        got = vmm(
            shim_env,
            """
h = create(8 * MIB)
d.cuMemMap(at, 8 * MIB, 0, h, 0)
d.cuMemUnmap(at, 8 * MIB)
steps = [charged()]
d.cuMemRelease(h)
answer(steps=steps + [charged()], used=card_used(d))
""",
        )
        assert got == {"steps": [8, 0], "used": 0}

    def test_a_retained_handle_holds_too(self, shim_env: ShimEnv) -> None:
        got = vmm(
            shim_env,
            """
h = create(8 * MIB)
d.cuMemMap(at, 8 * MIB, 0, h, 0)
again = d.new("cuMemRetainAllocationHandle", at + MIB)
steps = []
for f, *a in (("cuMemRelease", h), ("cuMemUnmap", at, 8 * MIB), ("cuMemRelease", again)):
    d.check(f, *a)
    steps.append(charged())
answer(same=h == again, steps=steps, used=card_used(d), over=d.code("cuMemRelease", again))
""",
        )
        assert got["steps"] == [8, 8, 0]
        assert got["used"] == 0
        assert got["over"] != 0

    def test_one_call_unmaps_several(self, shim_env: ShimEnv) -> None:
        got = vmm(
            shim_env,
            """
handles = [create(4 * MIB) for _ in range(4)]
for i, h in enumerate(handles):
    d.cuMemMap(at + i * 4 * MIB, 4 * MIB, 0, h, 0)
    d.cuMemRelease(h)
steps = [charged()]
d.cuMemUnmap(at + 4 * MIB, 8 * MIB)
steps.append(charged())
d.cuMemUnmap(at, 4 * MIB)
d.cuMemUnmap(at + 12 * MIB, 4 * MIB)
answer(steps=steps + [charged()], used=card_used(d))
""",
        )
        assert got == {"steps": [16, 8, 0], "used": 0}

    def test_a_refused_map_changes_nothing(self, shim_env: ShimEnv) -> None:
        got = vmm(
            shim_env,
            """
a, b = create(4 * MIB), create(4 * MIB)
d.cuMemMap(at, 4 * MIB, 0, a, 0)
refused = d.code("cuMemMap", at, 4 * MIB, 0, b, 0)
d.cuMemRelease(a)
d.cuMemRelease(b)
steps = [charged()]
d.cuMemUnmap(at, 4 * MIB)
answer(refused=refused != 0, steps=steps + [charged()])
""",
        )
        assert got == {"refused": True, "steps": [4, 0]}

    def test_a_reused_handle_is_another_allocation(self, shim_env: ShimEnv) -> None:
        got = vmm(
            shim_env,
            """
n, seen = 0, set()
for i in range(200):
    h = create(2 * MIB)
    seen.add(h)
    d.cuMemMap(at, 2 * MIB, 0, h, 0)
    d.cuMemRelease(h)
    n = max(n, charged())
    other = create(2 * MIB)  # may have the number of the released one
    d.cuMemUnmap(at, 2 * MIB)
    assert charged() == 2, i
    d.cuMemRelease(other)
answer(most=n, end=charged(), used=card_used(d))
""",
        )
        assert got == {"most": 2, "end": 0, "used": 0}

    def test_memory_on_the_host_is_not_charged(self, shim_env: ShimEnv) -> None:
        got = vmm(
            shim_env,
            """
host = AllocationProp(1, 0, Location(2, 0), None, 0, 0, 0)
codes = [d.code("cuMemCreate", byref(c_uint64()), 64 * MIB, byref(host), 0)]
answer(codes=codes, charged=charged())
""",
        )
        assert got == {"codes": [0], "charged": 0}

    def test_it_outlives_the_context(self, shim_env: ShimEnv) -> None:
        got = vmm(
            shim_env,
            """
h = create(8 * MIB)
d.cuDevicePrimaryCtxRelease_v2(0)
steps = [charged()]
d.cuMemRelease(h)
answer(steps=steps + [charged()])
""",
        )
        assert got == {"steps": [8, 0]}

    def test_with_no_context_at_all(self, shim_env: ShimEnv) -> None:
        code = """
            d = Driver("libcuda.so.1")
            d.cuInit(0)
            props = AllocationProp(1, 0, Location(1, 0), None, 0, 0, 0)
            codes = [d.code("cuMemCreate", byref(c_uint64()), n * MIB, byref(props), 0) for n in (30, 4, 2)]
            answer(codes=codes, charged=books()["device_bytes"])
        """  # noqa: E501
        child = run_child(shim_env(vram=32 * MIB), code)
        assert child.answer == {"codes": [0, OOM, 0], "charged": 32 * MIB}


class TestArrays:
    @pytest.mark.parametrize(
        ("descriptor", "levels", "size"),
        [
            ("ArrayDescriptor(65536, 0, 1, 1)", 0, 65536),  # 1-D
            ("ArrayDescriptor(1024, 1024, 0x20, 4)", 0, 16 * MIB),  # float4
            ("ArrayDescriptor(1024, 1024, 0x10, 1)", 0, 2 * MIB),  # half
            ("Array3DDescriptor(128, 128, 64, 1, 1, 0)", 0, MIB),
            ("Array3DDescriptor(1024, 0, 16, 1, 1, 1)", 0, 16 * 1024),  # 1-D layered
            ("Array3DDescriptor(256, 256, 6, 1, 1, 4)", 0, 6 * 65536),  # cube map
            ("Array3DDescriptor(1024, 1024, 0, 1, 1, 0)", 11, 1398101),  # all mip levels
        ],
    )
    def test_sizes(self, shim_env: ShimEnv, descriptor: str, levels: int, size: int) -> None:
        """Elsewhere charged in bits, and a depth of 0 as nothing."""
        create = (
            f'd.new("cuMipmappedArrayCreate", byref({descriptor}), {levels})'
            if levels
            else f'd.new("cuArray{"3D" if "3D" in descriptor else ""}Create_v2", byref({descriptor}))'  # noqa: E501
        )
        destroy = "cuMipmappedArrayDestroy" if levels else "cuArrayDestroy"
        code = f"""
            d = started()
            a = {create}
            full = books()["device_bytes"]
            d.check({destroy!r}, a)
            answer(full=full, end=held(), used=card_used(d))
        """
        child = run_child(shim_env(vram=32 * MIB), code)
        assert child.answer == {"full": size, "end": [0, 0, 0, 0], "used": 0}

    def test_destroyed_twice_and_never_made(self, shim_env: ShimEnv) -> None:
        code = """
            d = started()
            a = d.new("cuArrayCreate_v2", byref(ArrayDescriptor(1024, 1024, 1, 1)))
            codes = [d.code("cuArrayDestroy", a), d.code("cuArrayDestroy", a),
                     d.code("cuArrayDestroy", 0), d.code("cuMipmappedArrayDestroy", 12345)]
            answer(codes=[c != 0 for c in codes], held=held())
        """
        child = run_child(shim_env(vram=32 * MIB), code)
        assert child.answer == {"codes": [False, True, True, True], "held": [0, 0, 0, 0]}

    def test_descriptors_that_are_wrong(self, shim_env: ShimEnv, sim_env: dict[str, str]) -> None:
        code = """
            d = started()
            out = c_uint64()
            d3 = Array3DDescriptor
            codes = [
                d.code("cuArrayCreate_v2", byref(out), None),
                d.code("cuArrayCreate_v2", None, byref(ArrayDescriptor(16, 16, 1, 1))),
                d.code("cuArrayCreate_v2", byref(out), byref(ArrayDescriptor(0, 16, 1, 1))),
                d.code("cuArrayCreate_v2", byref(out), byref(ArrayDescriptor(16, 16, 1, 3))),
                d.code("cuArrayCreate_v2", byref(out), byref(ArrayDescriptor(16, 16, 0x7777, 1))),
                d.code("cuArray3DCreate_v2", byref(out), byref(d3(0, 0, 0, 1, 1, 0))),
                d.code("cuMipmappedArrayCreate", byref(out), byref(d3(16, 16, 0, 1, 1, 0)), 0),
                d.code("cuMipmappedArrayCreate", byref(out), None, 1),
            ]
            answer(codes=codes, held=held() if "EMUV_VRAM" in os.environ else [0, 0, 0, 0])
        """
        plain = run_child(sim_env, code)
        child = run_child(shim_env(vram=32 * MIB), code)
        assert child.answer["codes"] == plain.answer["codes"]
        if plain.answer["codes"][6]:
            assert child.answer["held"] == [0, 0, 0, 0]

    def test_too_large_to_be_a_number(self, shim_env: ShimEnv) -> None:
        code = """
            d = started()
            huge = ArrayDescriptor(1 << 40, 1 << 40, 0x20, 4)
            code = d.code("cuArrayCreate_v2", byref(c_uint64()), byref(huge))
            answer(code=code, held=held())
        """
        child = run_child(shim_env(vram=32 * MIB), code)
        assert child.answer["code"] != 0
        assert child.answer["held"] == [0, 0, 0, 0]
