# SPDX-License-Identifier: GPL-2.0-only
"""`--keep-device`: which allocations must not spill, as people write it, to the shim's form.

Rules between commas; an allocation that one of them holds for stays on the device or is
refused.

* ``2MiB`` or ``<=2MiB``: at most so large; ``1MiB-8MiB``: from the one to the other.
* ``libnccl``: asked for by code of a file whose name begins so.
* ``none``, alone: no rules (what an outer emuv-run or the environment said is dropped).

The shim reads ``BYTES-BYTES`` and names (csrc/shim/config.h), which this takes too.
"""

from __future__ import annotations

import re

from emuv_shim._messages import quote
from emuv_shim._sizes import parse_amount
from emuv_shim.errors import SizeError

MOST_RULES = 32  # EMUV_KEEP_RULES
NAME_BYTES = 63  # EMUV_KEEP_NAME_BYTES without its NUL

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_+\-.]*")
_HINT = (
    "a rule is a size (2MiB: at most so large), a range (1MiB-8MiB), "
    "or how the name of a library begins (libnccl)"
)


def _bytes(text: str, rule: str) -> int:
    """One size of a rule; never relative."""
    try:
        size = parse_amount(text, allow_percent=False).resolve()
    except SizeError as error:
        raise SizeError(f"rule {quote(rule)}: {error.message}", error.hint) from None
    assert size is not None
    return size


def _rule(rule: str) -> str:
    """One rule in the shim's form."""
    word = rule.strip(" \t\n")
    if not word:
        raise SizeError("a rule is empty", _HINT)
    if not (word[0].isdigit() or word[0] in "<.-="):
        if "/" in word:
            raise SizeError(
                f"rule {quote(word)} is a path", f"give the file's name: {word.rpartition('/')[2]}"
            )
        if not _NAME.fullmatch(word):
            raise SizeError(f"rule {quote(word)} is no size and no library's name", _HINT)
        if len(word) > NAME_BYTES:
            raise SizeError(f"rule {quote(word)} is longer than {NAME_BYTES} bytes", _HINT)
        return word
    if word.startswith("<="):
        return f"0-{_bytes(word[2:], word)}"
    if word.startswith("<"):
        raise SizeError(f"rule {quote(word)} is not understood", f"write <={word[1:]}")
    least, dash, most = word.partition("-")
    if not dash:
        return f"0-{_bytes(word, word)}"
    low = 0 if re.fullmatch(r" *0+ *", least) else _bytes(least, word)
    high = _bytes(most, word)
    if low > high:
        raise SizeError(f"rule {quote(word)} ends before it begins", _HINT)
    return f"{low}-{high}"


def parse_keep(text: str) -> str | None:
    """Rules in the shim's form; ``None``: none. Raises :class:`SizeError`.

    >>> parse_keep("<=2MiB,libnccl")
    '0-2097152,libnccl'
    """
    if text.strip(" \t\n").lower() == "none":
        return None
    rules = list(dict.fromkeys(_rule(rule) for rule in text.split(",")))
    if len(rules) > MOST_RULES:
        raise SizeError(f"{len(rules)} rules are more than {MOST_RULES}", "leave some out")
    return ",".join(rules)
