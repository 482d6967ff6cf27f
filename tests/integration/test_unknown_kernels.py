# SPDX-License-Identifier: GPL-2.0-only
"""Kernels that are machine code: refused, or their memory touched and nothing computed."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.integration.gpu_images import CUBIN, Kernel, cubin, fatbin, member
from tests.integration.shim_tools import MIB, Child, run_child

NO_BINARY = 209
# p, {q, n, r}, k: a pointer, a structure with two of them, a number
KERNEL = Kernel("strange", [(0, 8), (8, 24), (32, 4)])
CODE = cubin(KERNEL)
# Packed in a way that nobody knows: no names, no parameters.
UNREADABLE = bytearray(fatbin(member(CUBIN, 80, CODE)))
struct.pack_into("<I", UNREADABLE, 16 + 16, len(CODE))

LAUNCH = """
    import struct
    d = started()
    module = d.new("cuModuleLoadData", open({path!r}, "rb").read())
    kernel = d.new("cuModuleGetFunction", module, b"strange")

    class Pair(ctypes.Structure):
        _fields_ = [("q", c_uint64), ("n", c_uint64), ("r", c_uint64)]

    def launch(p, q, r, kernel=kernel):
        values = [c_uint64(p), Pair(q, 7, r), c_uint(3)]
        pointers = (ctypes.c_void_p * 3)(*[ctypes.addressof(v) for v in values])
        code = d.code("cuLaunchKernel", kernel, 4, 1, 1, 32, 1, 1, 0, None, pointers, None)
        return code, d.code("cuCtxSynchronize")

    def packed(data):
        room, size = ctypes.create_string_buffer(data, len(data)), c_size_t(len(data))
        extra = (ctypes.c_void_p * 5)(1, ctypes.addressof(room), 2, ctypes.addressof(size), 0)
        code = d.code("cuLaunchKernel", kernel, 4, 1, 1, 32, 1, 1, 0, None, None, extra)
        return code, d.code("cuCtxSynchronize")

    def managed(size):
        return d.new("cuMemAllocManaged", size, 1)
"""


def program(
    env: dict[str, str], tmp_path: Path, image: bytes, code: str, **more: str
) -> tuple[Child, dict[str, Any]]:
    """Runs it; what it left, and the report."""
    path, report = tmp_path / "image", tmp_path / "report.json"
    path.write_bytes(image)
    whole = {**env, "EMUV_SIM_REPORT": str(report), "EMUV_SIM_VRAM": str(64 * MIB), **more}
    child = run_child(whole, LAUNCH.format(path=str(path)) + code)
    made: dict[str, Any] = json.loads(report.read_text())
    return child, made


def test_they_are_refused_once_in_words(sim_env: dict[str, str], tmp_path: Path) -> None:
    code = """
    p = d.new("cuMemAlloc_v2", MIB)
    answer(codes=[launch(p, p, p)[0] for _ in range(3)], after=d.code("cuCtxSynchronize"))
    """
    child, report = program(sim_env, tmp_path, CODE, code)
    assert child.answer == {"codes": [NO_BINARY] * 3, "after": 0}
    (line,) = child.stderr.splitlines()
    assert line.startswith('emuv-sim: error: kernel "strange" was not run: it is machine code')
    assert "EMUV_SIM_UNKNOWN_KERNELS=touch" in line
    assert report["kernels_not_computed"] == {"strange": {"touched": 0, "refused": 3}}


def test_touch(sim_env: dict[str, str], tmp_path: Path) -> None:
    # GIVEN three managed allocations, of which the parameters point into two
    code = """
    p, q, other = managed(6 * MIB), managed(3 * MIB), managed(4 * MIB)
    for address, size in ((p, 6 * MIB), (q, 3 * MIB), (other, 4 * MIB)):
        ctypes.memset(address, 0x5a, size)
    plain = d.new("cuMemAlloc_v2", MIB)
    d.upload(plain, b"plain")
    before = [resident(d, a, s) for a, s in ((p, 6 * MIB), (q, 3 * MIB), (other, 4 * MIB))]
    codes = launch(plain, p + 5 * MIB, q + 8), launch(plain, p, 12345)
    after = [resident(d, a, s) for a, s in ((p, 6 * MIB), (q, 3 * MIB), (other, 4 * MIB))]
    kept = ctypes.string_at(p, 6 * MIB) == b"\\x5a" * (6 * MIB)
    answer(codes=codes, before=before, after=after, kept=kept, plain=d.download(plain, 5).decode())
    """
    stats = tmp_path / "stats.json"
    child, report = program(
        sim_env, tmp_path, CODE, code,
        EMUV_SIM_UNKNOWN_KERNELS="touch", EMUV_SIM_STATS=str(stats),
    )  # fmt: skip
    # WHEN it is launched THEN whole allocations come to the device, and no byte changes
    got = child.answer
    assert got["codes"] == [[0, 0], [0, 0]]
    assert got["before"] == [0, 0, 0]
    assert got["after"] == [6 * MIB, 3 * MIB, 0]
    assert got["kept"] and got["plain"] == "plain"
    # AND everybody is told that nothing was computed
    (line,) = child.stderr.splitlines()
    assert line.startswith('emuv-sim: kernel "strange" computes nothing')
    assert report["kernels_not_computed"] == {"strange": {"touched": 2, "refused": 0}}
    launches = json.loads(stats.read_text())["launches"]
    assert [(one["kernel"], one["computed"]) for one in launches] == [("strange", False)] * 2
    # The first brought two allocations to the device; what the second touched was there.
    moved = [one["to_device_bytes"]["fault"] for one in launches]
    assert moved == [9 * MIB, 0]


def test_touch_pages_within_a_small_card(sim_env: dict[str, str], tmp_path: Path) -> None:
    # 80 MiB of managed memory, touched in turn on a card of 64: what comes must go.
    code = """
    blocks = [managed(20 * MIB) for _ in range(4)]
    for _ in range(2):
        for address in blocks:
            assert launch(address, 0, 0) == (0, 0)
    answer(resident=[resident(d, a, 20 * MIB) for a in blocks])
    """
    child, _ = program(sim_env, tmp_path, CODE, code, EMUV_SIM_UNKNOWN_KERNELS="touch")
    assert sum(child.answer["resident"]) == 64 * MIB
    assert child.answer["resident"][3] == 20 * MIB


def test_addresses_that_are_none_are_passed_over(sim_env: dict[str, str], tmp_path: Path) -> None:
    code = """
    p = managed(4 * MIB)
    freed = d.new("cuMemAlloc_v2", MIB)
    d.cuMemFree_v2(freed)
    reserved = d.new("cuMemAddressReserve", 4 * MIB, 0, 0, 0)
    end = [launch(freed, 2**64 - 1, reserved), launch(p + 4 * MIB, 8, 2**63), launch(p, p, p)]
    answer(codes=end, resident=resident(d, p, 4 * MIB))
    """
    child, _ = program(sim_env, tmp_path, CODE, code, EMUV_SIM_UNKNOWN_KERNELS="touch")
    assert child.answer["codes"] == [[0, 0]] * 3
    assert child.answer["resident"] == 4 * MIB


def test_packed_parameters(sim_env: dict[str, str], tmp_path: Path) -> None:
    code = """
    p, q = managed(2 * MIB), managed(2 * MIB)
    good = packed(struct.pack("<QQQQI", p, q, 0, 0, 1))
    short = packed(struct.pack("<QQ", p, q))
    answer(good=good, short=short, resident=[resident(d, a, 2 * MIB) for a in (p, q)])
    """
    child, _ = program(sim_env, tmp_path, CODE, code, EMUV_SIM_UNKNOWN_KERNELS="touch")
    assert child.answer == {"good": [0, 0], "short": [1, 0], "resident": [2 * MIB, 2 * MIB]}


def test_a_fat_binary_that_cannot_be_read(sim_env: dict[str, str], tmp_path: Path) -> None:
    # Its kernels' parameters are unknown: only a buffer says how many bytes there are.
    code = """
    p = managed(2 * MIB)
    refused = launch(p, p, p)[0]
    answer(refused=refused, packed=packed(struct.pack("<Q", p)), resident=resident(d, p, 2 * MIB))
    """
    child, report = program(
        sim_env, tmp_path, bytes(UNREADABLE), code, EMUV_SIM_UNKNOWN_KERNELS="touch"
    )
    assert child.answer == {"refused": NO_BINARY, "packed": [0, 0], "resident": 2 * MIB}
    assert "its parameters are not known" in child.stderr
    assert report["kernels_not_computed"] == {"strange": {"touched": 1, "refused": 1}}


@pytest.mark.parametrize("value", ["touch", "refuse", ""])
def test_values(sim_env: dict[str, str], tmp_path: Path, value: str) -> None:
    program(sim_env, tmp_path, CODE, "    answer()", EMUV_SIM_UNKNOWN_KERNELS=value)


def test_a_value_that_makes_no_sense(sim_env: dict[str, str]) -> None:
    env = {**sim_env, "EMUV_SIM_UNKNOWN_KERNELS": "guess"}
    child = run_child(env, 'answer(code=Driver("libcuda.so.1").code("cuInit", 0))')
    assert child.answer["code"] == 1
    assert 'EMUV_SIM_UNKNOWN_KERNELS="guess" is not touch or refuse' in child.stderr
