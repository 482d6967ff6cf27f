# SPDX-License-Identifier: GPL-2.0-only
"""--keep-device: the rules as people write them."""

from __future__ import annotations

import pytest

from emuv_shim import _launch
from emuv_shim._keep import MOST_RULES, parse_keep
from emuv_shim.errors import CommandError, SizeError


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("2MiB", "0-2097152"),
        ("<=2MiB", "0-2097152"),
        ("<= 2 MiB", "0-2097152"),
        ("1MiB-8MiB", "1048576-8388608"),
        ("1K - 1K", "1024-1024"),
        ("0-2097152", "0-2097152"),
        ("libnccl", "libnccl"),
        (" libnccl , <=64K ", "libnccl,0-65536"),
        ("libfoo-1.2+x.so.3,_x", "libfoo-1.2+x.so.3,_x"),
        ("2MiB,<=2MiB", "0-2097152"),
        ("0-2097152,libnccl", "0-2097152,libnccl"),  # its own form again
        ("none", None),
    ],
)
def test_rules(text: str, form: str | None) -> None:
    assert parse_keep(text) == form


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "a rule is empty"),
        ("libnccl,", "a rule is empty"),
        ("8MiB-1MiB", "ends before it begins"),
        ("2MX", "unknown unit"),
        ("0", "is zero"),
        ("<2MiB", "is not understood"),
        ("50%", "share of the device"),
        ("-5", "is empty"),
        ("1MiB-", "is empty"),
        ("/usr/lib/libnccl.so.2", "is a path"),
        ("lib nccl", "no library's name"),
        ("none,libnccl", None),
        ("lib\x1b[31m", "no library's name"),
        ("x" * 64, "longer than 63"),
        (",".join(f"lib{i}" for i in range(MOST_RULES + 1)), "more than 32"),
    ],
)
def test_mistakes_are_quoted(text: str, said: str | None) -> None:
    if said is None:
        assert parse_keep(text) == text  # a library may be called none…
        return
    with pytest.raises(SizeError, match=said) as caught:
        parse_keep(text)
    assert "\x1b" not in caught.value.message


def test_a_flag_wins_and_a_mistake_is_a_usage_error() -> None:
    request = _launch.Request(("true",), keep_device="libnccl")
    assert _launch.keep_device(request, {"EMUV_KEEP_DEVICE": "1K"}) == "libnccl"
    request = _launch.Request(("true",))
    assert _launch.keep_device(request, {"EMUV_KEEP_DEVICE": "1K"}) == "0-1024"
    assert _launch.keep_device(request, {"EMUV_KEEP_DEVICE": ""}) is None
    with pytest.raises(CommandError, match="EMUV_KEEP_DEVICE: rule") as caught:
        _launch.check_syntax(request, {"EMUV_KEEP_DEVICE": "1Q"})
    assert caught.value.exit_code == 2
