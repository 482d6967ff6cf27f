# SPDX-License-Identifier: GPL-2.0-only
"""Where the simulated GPU's memory lies: the arena, freed addresses, limits of address space."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_driver import Driver
from memory_types import BLOCK, GIB, KIB, MIB

Script = Callable[..., str]

pytestmark = pytest.mark.usefixtures("sim_table")

START = """
from memory_types import *
driver.cuInit(0)
driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
def access(address):
    "How the kernel maps the address: rw, r-, --"
    for line in open("/proc/self/maps"):
        start, end = (int(x, 16) for x in line.split()[0].split("-"))
        if start <= address < end:
            return line.split()[1][:2]
"""


@pytest.mark.parametrize("kind", ["cuMemAlloc_v2", "cuMemAllocManaged", "cuMemHostAlloc"])
def test_freed_addresses_lose_their_access(script: Script, kind: str) -> None:
    more = {"cuMemAlloc_v2": "", "cuMemAllocManaged": ", 1", "cuMemHostAlloc": ", 0"}[kind]
    free = "cuMemFreeHost" if kind == "cuMemHostAlloc" else "cuMemFree_v2"
    out = script(
        START
        + f"""
for size in 1 * MIB, BLOCK, 5 * MIB, 64 * MIB:
    a = driver.new("{kind}", size{more})
    memset(a, 1, size)
    print(access(a), access(a + size - 1), access(a + size + BLOCK - size % BLOCK))
    driver.{free}(c_void_p(a))
    print(access(a), access(a + size - 1))
    b = driver.new("{kind}", size{more})
    print(b != a, string_at(b, size) == bytes(size))
"""
    )
    assert out.split() == ["rw", "rw", "--", "--", "--", "True", "True"] * 4


def test_everything_lies_in_one_stretch(script: Script) -> None:
    """Of 4 TiB, aligned to its length."""
    out = script(
        START
        + """
addresses = [driver.new("cuMemAlloc_v2", 512), driver.new("cuMemAlloc_v2", 1 << 30),
             driver.new("cuMemAllocManaged", 1 << 30, 1), driver.new("cuMemHostAlloc", 4096, 0),
             driver.new("cuMemAddressReserve", c_size_t(1 << 40), 0, 0, 0)]
pool = driver.new("cuDeviceGetDefaultMemPool", 0)
addresses.append(driver.new("cuMemAllocAsync", 1 << 20, None))
print(len({a >> 42 for a in addresses}))
"""
    )
    assert out == "1"


@pytest.mark.usefixtures("context")
def test_reservations_at_an_address(driver: Driver) -> None:
    first = driver.new("cuMemAddressReserve", 8 * BLOCK, 0, 0, 0)
    driver.cuMemAddressFree(first, 8 * BLOCK)
    wanted = first + 2 * BLOCK
    assert driver.new("cuMemAddressReserve", 2 * BLOCK, 0, wanted, 0) == wanted
    other = driver.new("cuMemAddressReserve", 2 * BLOCK, 0, wanted, 0)  # taken
    assert other not in range(wanted - BLOCK, wanted + 2 * BLOCK)
    elsewhere = driver.new("cuMemAddressReserve", BLOCK, 0, 0x10000000, 0)  # not in the arena
    assert elsewhere != 0x10000000
    aligned = driver.new("cuMemAddressReserve", BLOCK, GIB, 0, 0)
    assert aligned % GIB == 0
    for address, size in ((wanted, 2), (other, 2), (elsewhere, 1), (aligned, 1)):
        driver.cuMemAddressFree(address, size * BLOCK)


def limited(gib: int, text: str) -> subprocess.CompletedProcess[str]:
    """Run text where the address space has so many GiB."""
    head = f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
    path = str(Path(__file__).parents[2] / "emuv_shim" / "_lib" / "sim" / "libcuda.so.1")
    head += f"from ctypes import *\nfrom cuda_driver import *\ndriver = Driver({path!r})\n"
    shell = f'ulimit -v {gib << 20}; exec "$@"'
    return subprocess.run(
        ["sh", "-c", shell, "sh", sys.executable, "-c", head + text],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


@pytest.mark.usefixtures("bare_sim")
@pytest.mark.parametrize(("gib", "room"), [(20, 10), (100, 25), (3000, 900)])
def test_a_limited_address_space(gib: int, room: int) -> None:
    text = START + f"""
a = driver.new("cuMemAddressReserve", c_size_t({room} << 30), 0, 0, 0)
print(access(a))
code = driver.code("cuMemAddressReserve", byref(c_uint64()), c_size_t({gib} << 30), 0, 0, 0)
print(driver.error_name(code))
p = driver.new("cuMemAlloc_v2", 1 << 20)
driver.upload(p, b"abc")
print(driver.download(p, 3))
"""
    done = limited(gib, text)
    assert done.stdout.split() == ["--", "CUDA_ERROR_OUT_OF_MEMORY", "b'abc'"], done.stderr


@pytest.mark.usefixtures("bare_sim")
def test_an_address_space_that_is_too_small() -> None:
    done = limited(10, "print(driver.code('cuInit', 0), driver.code('cuInit', 0))")
    assert done.stdout.split() == ["2", "2"]
    assert "ulimit -v" in done.stderr
    assert "16 GiB" in done.stderr


def test_very_many_allocations(script: Script) -> None:
    """100,000 pieces with a mapping each, freed in holes: the process keeps mappings to spare."""
    out = script(
        START
        + """
count, held = 100_000, []
for _ in range(count):
    held.append(driver.new("cuMemAlloc_v2", 1 << 20))
assert len(set(held)) == count
for address in held[::2]:
    driver.cuMemFree_v2(address)
print(sum(1 for _ in open("/proc/self/maps")) < 45_000)
again = [driver.new("cuMemAlloc_v2", 1 << 20) for _ in held[::2]]
assert not set(again) & set(held[1::2])
for address in held[1::2] + again:
    driver.cuMemFree_v2(address)
print(sum(1 for _ in open("/proc/self/maps")) < 1000)
print(driver.memory_info()[0] == 1 << 40)
""",
        EMUV_SIM_VRAM=str(1 << 40),
    )
    assert out.split() == ["True"] * 3


def test_random_pieces_do_not_overlap(script: Script) -> None:
    """Against a list of what is held: taken and freed in random order, with their bytes."""
    script(
        START
        + f"""
import random
random.seed(5)
held = {{}}
for step in range(3000):
    if held and random.random() < 0.5:
        address, (size, mark) = held.popitem() if step % 3 else next(iter(held.items()))
        held.pop(address, None)
        assert string_at(address, 64) == string_at(address + size - 64, 64) == bytes([mark]) * 64
        driver.cuMemFree_v2(address)
    else:
        size = random.choice([{4 * KIB}, {MIB}, {3 * MIB}, {BLOCK}, {21 * MIB}, {100 * MIB}])
        address = driver.new("cuMemAlloc_v2", size)
        for other, (length, _) in held.items():
            assert address + size <= other or other + length <= address
        mark = step % 251
        memset(address, mark, 64), memset(address + size - 64, mark, 64)
        held[address] = size, mark
""",
        EMUV_SIM_VRAM=str(1 << 40),
    )
