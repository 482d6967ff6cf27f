# SPDX-License-Identifier: GPL-2.0-only
"""Sizes: every rule of the size grammar, and that nothing else gets through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuv_shim import _sizes
from emuv_shim._sizes import MAX_SIZE_BYTES, Sizes, format_size, parse_size, parse_sizes
from emuv_shim.errors import EmuvError, SizeError

GIB = 2**30
LETTERS = {"K": 1, "M": 2, "G": 3, "T": 4}
UNITS = {"": 1, "B": 1, "b": 1}
for letter, power in LETTERS.items():
    for suffix in (letter, f"{letter}i", f"{letter}iB", letter.lower(), f"{letter.lower()}ib"):
        UNITS[suffix] = 1024**power
    for suffix in (f"{letter}B", f"{letter.lower()}b"):
        UNITS[suffix] = 1000**power


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("8GiB", 8 * GIB),
        ("8G", 8 * GIB),
        ("8GB", 8_000_000_000),
        ("8 GiB", 8 * GIB),
        (" 8GiB\n", 8 * GIB),
        ("1.5G", 3 * GIB // 2),
        (".5K", 512),
        ("0.1K", 102),
        ("1", 1),
        ("007B", 7),
        ("192MiB", 192 * 2**20),
        (str(MAX_SIZE_BYTES), MAX_SIZE_BYTES),
        ("8388607T", 8388607 * 2**40),
    ],
)
def test_a_size_is_exact(text: str, size_bytes: int) -> None:
    assert parse_size(text) == size_bytes


@given(st.integers(1, 2**20), st.sampled_from(sorted(UNITS)))
def test_every_unit_is_a_whole_multiple(number: int, unit: str) -> None:
    assert parse_size(f"{number}{unit}") == number * UNITS[unit]


@given(st.integers(1, 10**6), st.integers(0, 10**6 - 1), st.sampled_from("KMGT"))
def test_decimals_are_cut_never_rounded_by_floating_point(
    whole: int, millionths: int, unit: str
) -> None:
    expected = (whole * 10**6 + millionths) * UNITS[unit] // 10**6
    assert parse_size(f"{whole}.{millionths:06}{unit}") == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("0", "zero"),
        ("0GiB", "zero"),
        ("0.0001K", "zero"),
        ("0%", "zero"),
        ("-1G", "negative"),
        ("-0", "negative"),
        ("\N{MINUS SIGN}1G", "negative"),
        ("+1G", "not understood"),
        ("1G!", "not understood"),
        ("1G 2", "not understood"),
        ("1G2", "not understood"),
        ("1e9", "not understood"),
        ("1_000", "not understood"),
        ("1,5G", "not understood"),
        ("0x10", "not understood"),
        ("1.G", "not understood"),
        ("1..5G", "not understood"),
        ("G", "not understood"),
        ("inf", "not understood"),
        ("nan", "not understood"),
        ("\N{ARABIC-INDIC DIGIT FOUR}G", "not understood"),
        ("8Q", "unknown unit"),
        ("8GiBs", "unknown unit"),
        ("8P", "unknown unit"),
        ("1.5", "fraction of a byte"),
        ("1.5B", "fraction of a byte"),
        (str(MAX_SIZE_BYTES + 1), "too large"),
        ("8388608T", "too large"),
        ("9" * 60 + "T", "too large"),
        ("9" * 100000, "too long"),
        ("none", "not accepted"),
        ("1.5x", "no sense here"),
    ],
)
def test_anything_else_is_an_error_that_quotes_it(text: str, says: str) -> None:
    with pytest.raises(SizeError, match=says) as caught:
        parse_size(text)
    assert isinstance(caught.value, (EmuvError, ValueError))
    assert ascii(text)[1:60] in caught.value.message
    assert len(caught.value.message) < 200
    assert caught.value.hint


@given(st.text(max_size=80))
def test_no_text_gives_anything_but_a_size_or_an_error(text: str) -> None:
    message = ""
    size: int | None = None
    try:
        size = parse_size(text, device_bytes=GIB, vram_bytes=GIB, allow_none=True)
    except SizeError as error:
        message = error.message
    assert message.isascii()
    assert message == "" or message.isprintable()
    assert size is None or 1 <= size <= MAX_SIZE_BYTES


def test_relative_sizes_need_what_they_are_relative_to() -> None:
    assert parse_size("50%", device_bytes=16 * GIB) == 8 * GIB
    assert parse_size("12.5 %", device_bytes=16 * GIB) == 2 * GIB
    assert parse_size("1.5x", vram_bytes=4 * GIB) == 6 * GIB
    assert parse_size("none", allow_none=True) is None
    with pytest.raises(SizeError, match="'50%' is a share of the device"):
        parse_size("50%")
    with pytest.raises(SizeError, match="too large"):
        parse_size("9999999999999999999x", vram_bytes=GIB)
    with pytest.raises(SizeError, match="zero"):
        parse_size("0.1%", device_bytes=10)


def test_one_size_holds_for_every_device() -> None:
    sizes = parse_sizes("4GiB")
    assert sizes == Sizes(everywhere=4 * GIB)
    assert sizes.for_device(7) == 4 * GIB
    assert sizes.to_env() == str(4 * GIB)
    assert parse_sizes("none", allow_none=True).to_env() == "none"


def test_a_list_names_its_devices() -> None:
    sizes = parse_sizes(" 1=8GiB, 0=4GiB ")
    assert sizes.to_env() == f"0={4 * GIB},1={8 * GIB}"
    assert [sizes.for_device(i) for i in range(3)] == [4 * GIB, 8 * GIB, None]
    assert parse_sizes("0=none,1=1K", allow_none=True).to_env() == "1=1024"
    assert parse_sizes("0=none", allow_none=True).to_env() == "none"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("0=4G,0=5G", "device 0 is named twice"),
        ("0=4G,00=5G", "device 0 is named twice"),
        ("4G,1=5G", "'4G' names no device"),
        ("0=4G,", "'' names no device"),
        (",", "'' names no device"),
        ("=4G", "'' is not a device"),
        ("a=4G", "'a' is not a device"),
        ("-1=4G", "'-1' is not a device"),
        ("0=", "empty"),
        ("0=4G=5G", "not understood"),
        ("32=4G", "beyond the last, 31"),
        ("0=0", "zero"),
    ],
)
def test_a_wrong_list_is_an_error(text: str, says: str) -> None:
    with pytest.raises(SizeError, match=says):
        parse_sizes(text)


def test_relative_sizes_come_out_by_device() -> None:
    cards = {0: 8 * GIB, 1: 24 * GIB}
    assert parse_sizes("50%", device_bytes=cards).to_env() == f"0={4 * GIB},1={12 * GIB}"
    assert parse_sizes("50%", device_bytes={0: GIB, 1: GIB}) == Sizes(everywhere=GIB // 2)
    assert parse_sizes("1=25%", device_bytes=cards).to_env() == f"1={6 * GIB}"
    vram = parse_sizes("0=4GiB,1=8GiB")
    assert parse_sizes("1.5x", vram=vram).to_env() == f"0={6 * GIB},1={12 * GIB}"
    assert parse_sizes("2x", vram=parse_sizes("4G")) == Sizes(everywhere=8 * GIB)
    with pytest.raises(SizeError, match="the vram is not limited"):
        parse_sizes("2x", vram=parse_sizes("none", allow_none=True))
    with pytest.raises(SizeError, match="its size is not known"):
        parse_sizes("2=50%", device_bytes=cards)


@given(st.dictionaries(st.integers(0, _sizes.MAX_DEVICES - 1), st.integers(1, MAX_SIZE_BYTES)))
def test_what_is_handed_to_the_program_reads_back(budget: dict[int, int]) -> None:
    sizes = Sizes(by_device=tuple(sorted(budget.items())))
    if budget:
        assert parse_sizes(sizes.to_env()) == sizes


def test_a_size_is_shown_in_mib() -> None:
    assert format_size(1536 * 2**20) == "1536 MiB"
    assert format_size(10**8) == "95.37 MiB (100000000 bytes)"
    assert format_size(1000) == "1000 bytes"
    assert format_size(0) == "0 MiB"
    assert format_size(None) == "unlimited"


@given(st.integers(1, 2**40))
def test_a_whole_number_of_mib_reads_back(mib: int) -> None:
    size_bytes = min(mib << 20, MAX_SIZE_BYTES >> 20 << 20)
    assert parse_size(format_size(size_bytes)) == size_bytes
