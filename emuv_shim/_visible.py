# SPDX-License-Identifier: GPL-2.0-only
"""CUDA_VISIBLE_DEVICES, and devices named by their UUID. Pure.

The rules are CUDA's (csrc/common/visible_devices.h has them too): entries are all
indices, all ``GPU-…`` or all ``MIG-…``, as the first one is; a UUID may be cut short as
long as it names one; an entry that names none ends the list, one that comes twice
empties it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

# A name of a device in sizes: a UUID or its beginning, or the old form of a MIG instance.
NAME = re.compile(r"(GPU|MIG)-[0-9A-Fa-f-]{1,36}|MIG-GPU-[0-9A-Fa-f-]{36}/[0-9]{1,3}/[0-9]{1,3}")
_INDEX = re.compile(r"\+?[0-9]+|-0+(?![0-9])")  # what a number begins: "1gpu" is 1


def _words(text: str) -> Iterator[str]:
    """The entries up to the first that cannot be one; an index as plain digits."""
    words = [word.strip(" \t") for word in text.split(",")]
    kind = words[0][:4] if words[0][:4] in ("GPU-", "MIG-") else ""
    for word in words:
        index = _INDEX.match(word)
        if kind and word.startswith(kind):
            yield word
        elif index and not kind:
            yield str(int(index[0]))
        else:
            return


def entries(text: str | None) -> list[str] | None:
    """The entries that may name a device, as far as the text alone tells; None: all devices."""
    if text is None:
        return None
    found = list(_words(text))
    return found if len(set(found)) == len(found) else []


def is_mig(text: str | None) -> bool:
    """Whether the devices are instances of cards, and not cards."""
    return text is not None and text.strip().startswith("MIG-")


def seen(text: str | None, uuids: Sequence[str]) -> list[int]:
    """Which of the machine's cards, of these UUIDs, are left, in the program's order."""
    if text is None:
        return list(range(len(uuids)))
    found: list[int] = []
    for name in _words(text):
        if name.startswith("GPU-"):
            matches = [i for i, u in enumerate(uuids) if u.lower().startswith(name.lower())]
        else:
            matches = [int(name)] if name.isdigit() and int(name) < len(uuids) else []
        if len(matches) != 1:
            break
        if matches[0] in found:
            return []
        found.append(matches[0])
    return found


def ordinals_named(name: str, uuids: Sequence[str], text: str | None = None) -> list[int]:
    """The devices that a name of `NAME`'s form means: none, one, or several.

    `uuids` are those of the devices that the program sees, in hexadecimal with hyphens
    and nothing before; `text` is its CUDA_VISIBLE_DEVICES, whose old form of a MIG
    instance is a name too.
    """
    if "/" in name:
        return [i for i, word in enumerate(entries(text) or []) if word.lower() == name.lower()]
    return [i for i, uuid in enumerate(uuids) if uuid.lower().startswith(name[4:].lower())]
