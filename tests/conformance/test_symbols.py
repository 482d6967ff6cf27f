# SPDX-License-Identifier: GPL-2.0-only
"""Symbols and names: exports, cuGetProcAddress, error names, export tables."""

from __future__ import annotations

import ctypes
import re
from ctypes import byref, c_char, c_char_p, c_int, c_void_p
from pathlib import Path

import pytest
from cuda_driver import INVALID_VALUE, NOT_FOUND, NOT_SUPPORTED, SUCCESS, Driver, SimTable
from elftools.elf.elffile import ELFFile

ROWS = [
    (export, name, int(version), int(flag))
    for export, name, version, flag in re.findall(
        r"^EMUV_API\((\w+), (\w+), (\d+), (\d)\)",
        (Path(__file__).parents[2] / "csrc/common/driver_api.def").read_text(),
        re.M,
    )
]
FOUND, NOT_A_SYMBOL, TOO_OLD = 0, 1, 2
DEFAULT, LEGACY, PER_THREAD = 0, 1, 2


def look_up(driver: Driver, name: str, version: int, flags: int = 0) -> tuple[int, int, int]:
    """(result, address or 0, status) of cuGetProcAddress_v2."""
    address, status = c_void_p(), c_int(-1)
    code = driver.code(
        "cuGetProcAddress_v2", name.encode(), byref(address), version, flags, byref(status)
    )
    return code, address.value or 0, status.value


def export(driver: Driver, name: str) -> int:
    """The address that dlsym gives."""
    value = ctypes.cast(driver.dll[name], c_void_p).value
    assert value
    return value


@pytest.fixture(scope="module")
def version(driver: Driver) -> int:
    """The driver's CUDA version, as in 13000."""
    return int(driver.get(c_int, "cuDriverGetVersion"))


def test_exports_are_those_of_the_version(
    driver: Driver, version: int, bare_sim: SimTable
) -> None:
    assert version == 13000
    with Path(driver.path).open("rb") as file:
        symbols = ELFFile(file).get_section_by_name(".dynsym").iter_symbols()
        exported = {s.name for s in symbols if s["st_shndx"] != "SHN_UNDEF"}
    assert exported == {row[0] for row in ROWS if row[2] <= version}


def test_every_row_is_found_at_its_version(
    driver: Driver, version: int, bare_sim: SimTable
) -> None:
    wrong = []
    for symbol, name, since, flag in ROWS:
        flags = PER_THREAD if flag else DEFAULT
        answer = look_up(driver, name, since, flags)
        if since > version:
            expected: tuple[int, int, int] = (INVALID_VALUE, 0, NOT_A_SYMBOL)
        else:
            expected = (SUCCESS, export(driver, symbol), FOUND)
        if answer != expected:
            wrong.append((symbol, answer, expected))
    assert wrong == []


def test_the_version_chooses_the_abi(driver: Driver) -> None:
    _, old, _ = look_up(driver, "cuMemAlloc", 3010)
    _, new, _ = look_up(driver, "cuMemAlloc", 3020)
    _, newer, _ = look_up(driver, "cuMemAlloc", 11000)
    assert old and new and old != new == newer
    assert look_up(driver, "cuMemAllocAsync", 11010) == (SUCCESS, 0, TOO_OLD)
    _, v1, _ = look_up(driver, "cuGetProcAddress", 11030)
    _, v2, _ = look_up(driver, "cuGetProcAddress", 12000)
    assert v1 and v2 and v1 != v2


def test_the_flavour_of_the_default_stream(driver: Driver) -> None:
    _, default, _ = look_up(driver, "cuMemcpyAsync", 12000, DEFAULT)
    _, legacy, _ = look_up(driver, "cuMemcpyAsync", 12000, LEGACY)
    _, per_thread, _ = look_up(driver, "cuMemcpyAsync", 12000, PER_THREAD)
    assert default == legacy != per_thread
    # No per-thread form: the plain one. Not yet a per-thread form at that version: the same.
    _, plain, _ = look_up(driver, "cuMemAlloc", 12000, DEFAULT)
    assert look_up(driver, "cuMemAlloc", 12000, PER_THREAD) == (SUCCESS, plain, FOUND)
    _, early, _ = look_up(driver, "cuMemcpyAsync", 6000, PER_THREAD)
    assert early == default


def test_names_that_are_none(driver: Driver, version: int) -> None:
    for name in ("", "cuNothing", "cuMemAlloc_v2", "malloc"):
        assert look_up(driver, name, version) == (SUCCESS, 0, NOT_A_SYMBOL), name
    assert look_up(driver, "", 0) == (SUCCESS, 0, NOT_A_SYMBOL)  # libcudart asks this
    address = c_void_p(5)
    assert driver.code("cuGetProcAddress_v2", b"cuInit", None, version, 0, None) == INVALID_VALUE
    assert (
        driver.code("cuGetProcAddress_v2", None, byref(address), version, 0, None)
        == INVALID_VALUE
    )
    # The status is optional.
    driver.cuGetProcAddress_v2(b"cuInit", byref(address), version, 0, None)
    assert address.value not in (None, 5)


def test_the_first_abi_answers_alike(driver: Driver, version: int) -> None:
    address = c_void_p()
    driver.cuGetProcAddress(b"cuMemAlloc", byref(address), 3020, 0)
    assert address.value == look_up(driver, "cuMemAlloc", 3020)[1]


def test_error_names(driver: Driver) -> None:
    name, text = c_char_p(), c_char_p()
    for code, want in (
        (0, b"CUDA_SUCCESS"),
        (2, b"CUDA_ERROR_OUT_OF_MEMORY"),
        (801, b"CUDA_ERROR_NOT_SUPPORTED"),
        (999, b"CUDA_ERROR_UNKNOWN"),
    ):
        driver.cuGetErrorName(code, byref(name))
        driver.cuGetErrorString(code, byref(text))
        assert name.value == want
        assert text.value
    for call, out in (("cuGetErrorName", name), ("cuGetErrorString", text)):
        assert driver.code(call, 123456, byref(out)) == INVALID_VALUE
        assert out.value is None


def test_every_code_has_a_name_and_words(driver: Driver, sim_table: SimTable) -> None:
    header = (Path(__file__).parents[2] / "csrc/common/cuda_abi.h").read_text()
    codes = re.findall(r"\b(CUDA_(?:SUCCESS|ERROR_\w+)) = (\d+),", header)
    assert len(codes) > 90
    words = set()
    for want, number in codes:
        name, text = c_char_p(), c_char_p()
        driver.cuGetErrorName(int(number), byref(name))
        driver.cuGetErrorString(int(number), byref(text))
        assert name.value == want.encode()
        words.add(text.value)
    assert len(words) == len(codes)


def test_only_our_own_export_table(driver: Driver, sim_table: SimTable) -> None:
    assert sim_table.size == ctypes.sizeof(SimTable)
    table = c_void_p(5)
    other = (c_char * 16).from_buffer_copy(bytes(range(16)))
    assert driver.code("cuGetExportTable", byref(table), other) == NOT_FOUND
    assert table.value is None
    assert driver.code("cuGetExportTable", byref(table), None) == INVALID_VALUE
    assert driver.code("cuGetExportTable", None, other) == INVALID_VALUE


def test_what_is_not_simulated_says_so(
    driver: Driver, context: int, sim_table: SimTable
) -> None:
    before = ctypes.c_uint64()
    assert sim_table.calls(b"cuGraphConditionalHandleCreate", byref(before)) == SUCCESS
    assert driver.code("cuGraphConditionalHandleCreate", byref(c_void_p()), 0) == NOT_SUPPORTED
    after = ctypes.c_uint64()
    assert sim_table.calls(b"cuGraphConditionalHandleCreate", byref(after)) == SUCCESS
    assert after.value == before.value + 1
    assert sim_table.calls(b"cuNothing", byref(after)) == NOT_FOUND
