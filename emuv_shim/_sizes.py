# SPDX-License-Identifier: GPL-2.0-only
"""Sizes as people write them, to bytes, and back.

The rules, all of them:

* ``K M G T``, ``Ki Mi Gi Ti`` and ``KiB MiB GiB TiB`` are powers of 1024;
  ``KB MB GB TB`` are powers of 1000; ``B`` or nothing is bytes.  Case does not
  matter.  Decimals are exact (``1.5G``), and what is left below a byte is cut.
* ``50%`` is of the physical device; ``1.5x``, where allowed, is of the vram.
* ``none``, where allowed, is unlimited (``None`` here).
* ``0=4GiB,1=8GiB`` is per device; ``GPU-1234abcd=4GiB,MIG-5678=2GiB`` names them by their
  UUIDs, or by what these begin with.
* Anything else is a :class:`SizeError` that quotes the input: zero, negative,
  beyond :data:`MAX_SIZE_BYTES`, trailing junk, empty, a device named twice.

Two sizes always add up without reaching ``EMUV_UNLIMITED`` (2**64 - 1).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from emuv_shim import _visible
from emuv_shim.errors import SizeError

MAX_SIZE_BYTES = 2**63 - 1
MAX_DEVICES = 32  # EMUV_MAX_DEVICES of the segment; tests/layout compares them

TINY_BYTES = 1 << 20  # no CUDA program runs in less

_MAX_TEXT = 64  # longest single size; keeps conversions cheap on hostile input
_UNITS = {"": 1, "b": 1}
for _power, _letter in enumerate("kmgt", start=1):
    for _suffix in (_letter, _letter + "i", _letter + "ib"):
        _UNITS[_suffix] = 1024**_power
    _UNITS[_letter + "b"] = 1000**_power

_NUMBER = re.compile(r"([0-9]+(?:\.[0-9]+)?|\.[0-9]+) *([A-Za-z%]*)")
_ACCEPTED = "give bytes, or a number with K M G T, KiB MiB GiB TiB (1024) or KB MB GB TB (1000)"


def is_tiny(text: str) -> bool:
    """Whether a size, or one of a list, has no unit and is below :data:`TINY_BYTES`.

    Such a size is understood, as bytes; whoever types ``8`` most likely means ``8G``.
    """
    parts = (part.rpartition("=")[2].strip() for part in text.split(","))
    return any(p.isdigit() and p.isascii() and 0 < int(p[:_MAX_TEXT]) < TINY_BYTES for p in parts)


def _quote(text: str) -> str:
    """The input in quotes, shortened, with control characters made visible."""
    return ascii(text if len(text) <= _MAX_TEXT else text[:_MAX_TEXT] + "...")


def _hint(percent: bool, multiplier: bool, none: bool) -> str:
    """What is accepted in this place."""
    more = [
        "50% of the device" if percent else "",
        "1.5x of the vram" if multiplier else "",
        "none for no limit" if none else "",
    ]
    return ", ".join([_ACCEPTED, *(word for word in more if word)])


@dataclass(frozen=True)
class Amount:
    """One parsed size that may still need something to be relative to.

    Exactly one of the three is set, or none of them for ``none``.
    """

    text: str
    size_bytes: int | None = None
    of_device: Fraction | None = None
    of_vram: Fraction | None = None

    @property
    def is_unlimited(self) -> bool:
        """Whether the input was ``none``."""
        return self.size_bytes is None and self.of_device is None and self.of_vram is None

    def resolve(
        self, *, device_bytes: int | None = None, vram_bytes: int | None = None
    ) -> int | None:
        """Bytes, or ``None`` for unlimited.

        Raises :class:`SizeError` where the amount is relative to a figure that
        is not given, or comes to nothing or too much.
        """
        if self.size_bytes is not None or self.is_unlimited:
            return self.size_bytes
        if self.of_device is not None:
            if device_bytes is None:
                raise SizeError(
                    f"{_quote(self.text)} is a share of the device, and its size is not known here",
                    "give an absolute size, such as 4GiB",
                )
            return _whole(self.text, self.of_device * device_bytes)
        assert self.of_vram is not None
        if vram_bytes is None:
            raise SizeError(
                f"{_quote(self.text)} is a multiple of the vram, and the vram is not limited",
                "give --vram a size, or this one an absolute size",
            )
        return _whole(self.text, self.of_vram * vram_bytes)


def _whole(text: str, amount: Fraction) -> int:
    """The whole bytes of ``amount``; an error for none and for too many."""
    size = amount.numerator // amount.denominator
    if size < 1:
        raise SizeError(f"size {_quote(text)} is zero", "a size is at least one byte")
    if size > MAX_SIZE_BYTES:
        raise SizeError(f"size {_quote(text)} is too large", f"the most is {MAX_SIZE_BYTES} bytes")
    return size


def parse_amount(
    text: str,
    *,
    allow_percent: bool = True,
    allow_multiplier: bool = False,
    allow_none: bool = False,
) -> Amount:
    """Read one size, which may be relative (see :class:`Amount`)."""
    hint = _hint(allow_percent, allow_multiplier, allow_none)
    word = text.strip(" \t\n")
    if not word:
        raise SizeError(f"the size is empty: {_quote(text)}", hint)
    if len(word) > _MAX_TEXT:
        raise SizeError(f"size {_quote(text)} is too long to be one", hint)
    if word.lower() == "none":
        if not allow_none:
            raise SizeError(f"{_quote(text)} is not accepted here", hint)
        return Amount(text)
    if word[0] in "-\u2212":
        raise SizeError(f"size {_quote(text)} is negative", hint)
    match = _NUMBER.fullmatch(word)
    if match is None:
        raise SizeError(f"size {_quote(text)} is not understood", hint)
    number, unit = Fraction(match[1]), match[2].lower()
    if unit == "%":
        if not allow_percent:
            raise SizeError(f"size {_quote(text)}: a share of the device has no sense here", hint)
        if number == 0:
            _whole(text, number)
        return Amount(text, of_device=number / 100)
    if unit == "x":
        if not allow_multiplier:
            raise SizeError(f"size {_quote(text)}: a multiple of the vram has no sense here", hint)
        if number == 0:
            _whole(text, number)
        return Amount(text, of_vram=number)
    if unit not in _UNITS:
        raise SizeError(f"size {_quote(text)} has an unknown unit, {_quote(match[2])}", hint)
    if _UNITS[unit] == 1 and "." in match[1]:
        raise SizeError(f"size {_quote(text)} is a fraction of a byte; is the unit missing?", hint)
    return Amount(text, size_bytes=_whole(text, number * _UNITS[unit]))


def parse_size(
    text: str,
    *,
    device_bytes: int | None = None,
    vram_bytes: int | None = None,
    allow_none: bool = False,
) -> int | None:
    """Read one size to bytes; ``None`` is unlimited (only with ``allow_none``).

    ``device_bytes`` is what a percentage is of.  ``vram_bytes``, where given,
    allows the multiplier form.
    """
    amount = parse_amount(text, allow_multiplier=vram_bytes is not None, allow_none=allow_none)
    return amount.resolve(device_bytes=device_bytes, vram_bytes=vram_bytes)


@dataclass(frozen=True)
class Sizes:
    """Sizes by device, resolved to bytes; ``None`` is none given.

    For a vram that is unlimited, for a virtual it is nothing beyond the vram.
    ``everywhere`` holds for every device unless ``by_device`` is not empty; then
    only the devices named there have one.
    """

    everywhere: int | None = None
    by_device: tuple[tuple[int, int | None], ...] = ()

    def for_device(self, device: int) -> int | None:
        """Bytes for one device (the ordinal the program sees)."""
        if not self.by_device:
            return self.everywhere
        return dict(self.by_device).get(device)

    def to_env(self) -> str:
        """The form the shim reads: ``N``, ``0=N,1=N`` or ``none``."""
        if not self.by_device:
            return "none" if self.everywhere is None else str(self.everywhere)
        named = [f"{device}={size}" for device, size in self.by_device if size is not None]
        return ",".join(named) or "none"


# The ordinal of a device that is named by its UUID; an error where there is none such.
DeviceNamed = Callable[[str], int]


def devices_by_name(text: str) -> list[str]:
    """The UUIDs, or beginnings of them, by which a list of sizes names devices."""
    words = (item.partition("=")[0].strip(" \t\n") for item in text.split(","))
    return [word for word in words if _visible.NAME.fullmatch(word)]


def _split_devices(text: str, named: DeviceNamed | None) -> list[tuple[int, str]]:
    """``0=4GiB,GPU-12ab=8GiB`` to pairs, in the order of the devices.

    Where nobody can say what a UUID's device is, it is one of its own, from the last down.
    """
    hint = "a list by device looks like 0=4GiB,1=8GiB or GPU-1234abcd=4GiB"
    found: dict[int, str] = {}
    names: list[str] = []
    for item in text.split(","):
        name, equals, size = item.partition("=")
        name = name.strip(" \t\n")
        if not equals:
            raise SizeError(f"sizes {_quote(text)}: {_quote(item)} names no device", hint)
        if _visible.NAME.fullmatch(name):
            if name.lower() in names:
                raise SizeError(f"sizes {_quote(text)}: device {name} is named twice", hint)
            names.append(name.lower())
            device = named(name) if named else MAX_DEVICES - len(names)
        elif not re.fullmatch("[0-9]{1,9}", name):
            raise SizeError(f"sizes {_quote(text)}: {_quote(name)} is not a device", hint)
        else:
            device = int(name)
        if not 0 <= device < MAX_DEVICES:
            raise SizeError(
                f"sizes {_quote(text)}: device {device} is beyond the last, {MAX_DEVICES - 1}", hint
            )
        if device in found:
            raise SizeError(f"sizes {_quote(text)}: device {device} is named twice", hint)
        found[device] = size
    return sorted(found.items())


def parse_sizes(
    text: str,
    *,
    device_bytes: int | Mapping[int, int] | None = None,
    vram: Sizes | None = None,
    allow_none: bool = False,
    named: DeviceNamed | None = None,
) -> Sizes:
    """Read one size for all devices, or a list by device.

    ``device_bytes`` is the physical size that percentages are of: one for all
    devices, or by device.  ``vram``, where given, allows ``1.5x`` of it.  A
    relative size comes out by device where what it is relative to differs.  ``named``
    finds the devices that the list names by UUID.
    """

    def resolve(amount: Amount, device: int) -> int | None:
        card = device_bytes.get(device) if isinstance(device_bytes, Mapping) else device_bytes
        budget = vram.for_device(device) if vram is not None else None
        return amount.resolve(device_bytes=card, vram_bytes=budget)

    def read(word: str) -> Amount:
        return parse_amount(word, allow_multiplier=vram is not None, allow_none=allow_none)

    if "=" in text or "," in text:
        items = _split_devices(text, named)
        return Sizes(
            by_device=tuple((device, resolve(read(word), device)) for device, word in items)
        )
    amount = read(text)
    devices: list[int] = []
    if amount.of_device is not None and isinstance(device_bytes, Mapping):
        devices = sorted(device_bytes)
    elif amount.of_vram is not None and vram is not None and vram.by_device:
        devices = [device for device, size in vram.by_device if size is not None]
    if not devices:
        return Sizes(everywhere=resolve(amount, 0))
    pairs = tuple((device, resolve(amount, device)) for device in devices)
    if len({size for _, size in pairs}) == 1 and amount.of_vram is None:
        return Sizes(everywhere=pairs[0][1])
    return Sizes(by_device=pairs)


def format_size(size_bytes: int | None) -> str:
    """A size for people: MiB where that is exact, else rounded with the bytes.

    >>> format_size(1536 * 2**20), format_size(10**8), format_size(None)
    ('1536 MiB', '95.37 MiB (100000000 bytes)', 'unlimited')
    """
    if size_bytes is None:
        return "unlimited"
    whole, rest = divmod(size_bytes, 2**20)
    if rest == 0:
        return f"{whole} MiB"
    if -(2**20) < size_bytes < 2**20:
        return f"{size_bytes} bytes"
    return f"{size_bytes / 2**20:.2f} MiB ({size_bytes} bytes)"
