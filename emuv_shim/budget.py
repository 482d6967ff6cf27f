# SPDX-License-Identifier: GPL-2.0-only
"""The budget of one device: what a process may hold there, and how.

A :class:`Budget` is checked when it is made, so that whoever holds one holds a
sound one.  Its fields keep what the caller wrote; the ``*_bytes`` properties
are what it comes to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, cast

from emuv_shim._sizes import MAX_SIZE_BYTES, Amount, format_size, parse_amount
from emuv_shim.errors import SizeError

Policy = Literal["cap", "spill"]
POLICIES: tuple[Policy, ...] = ("cap", "spill")  # the index is enum emuv_policy
Allocation = Literal["lazy", "eager"]
ALLOCATIONS: tuple[Allocation, ...] = ("lazy", "eager")  # enum emuv_allocation


def _amount(what: str, value: str | int | None, *, multiplier: bool, none: bool) -> Amount:
    """One field of a budget, parsed; ``None`` and ``"none"`` are the same."""
    if isinstance(value, bool) or not isinstance(value, (str, int, type(None))):
        raise SizeError(f"{what} is {value!r}", f"{what} is a string, whole bytes, or None")
    if value is None:
        return Amount("none")
    if isinstance(value, int):
        if not 0 < value <= MAX_SIZE_BYTES:
            raise SizeError(f"{what} is {value} bytes", f"{what} is from 1 to {MAX_SIZE_BYTES}")
        return Amount(str(value), size_bytes=value)
    if "=" in value or "," in value:
        raise SizeError(
            f"{what} {value!r} is a list by device",
            "a budget is for one device: set each by itself (device=N, emuv set --device N)",
        )
    try:
        return parse_amount(value, allow_multiplier=multiplier, allow_none=none)
    except SizeError as error:
        raise SizeError(f"{what}: {error.message}", error.hint) from None


@dataclass(frozen=True)
class Budget:
    """What a process may hold on one device.

    ``vram``
        the most physical bytes: ``"4GiB"``, ``4 << 30``, ``"50%"`` of the
        device; ``None`` is unlimited.
    ``virtual``
        bytes beyond it, backed by host memory; ``"1.5x"`` of the vram is
        accepted too; ``None`` is nothing beyond.
    ``policy``
        ``"cap"`` refuses what exceeds vram, ``"spill"`` places it in host
        memory.  Left out, it is spill where there is a virtual, else cap.

    Raises :class:`SizeError` for sizes that make no sense, and for a policy
    that contradicts them.
    """

    vram: str | int | None = None
    virtual: str | int | None = None
    policy: Policy | None = None

    def __post_init__(self) -> None:
        vram = _amount("vram", self.vram, multiplier=False, none=True)
        virtual = _amount("virtual", self.virtual, multiplier=True, none=False)
        policy = self.policy
        if policy is None:
            policy = "cap" if self.virtual is None else "spill"
        if policy not in POLICIES:
            raise SizeError(f"policy is {policy!r}", f"policy is one of {', '.join(POLICIES)}")
        if policy == "spill" and self.virtual is None:
            raise SizeError(
                "policy is 'spill', but there is no virtual", "give a virtual: how much may spill"
            )
        if policy == "cap" and self.virtual is not None:
            raise SizeError(
                f"policy is 'cap', but virtual is {self.virtual!r}",
                "leave virtual out, or choose policy 'spill'",
            )
        if virtual.of_vram is not None and vram.is_unlimited:
            virtual.resolve()
        object.__setattr__(self, "policy", policy)
        if vram.of_device is None:  # otherwise checked when the device is known
            virtual_is_relative = virtual.of_device is not None
            if not virtual_is_relative and self.virtual is not None:
                virtual.resolve(vram_bytes=vram.resolve())

    @property
    def vram_bytes(self) -> int | None:
        """The physical budget; ``None`` is unlimited.

        Raises :class:`SizeError` for a percentage: see :meth:`resolved`.
        """
        return _amount("vram", self.vram, multiplier=False, none=True).resolve()

    @property
    def virtual_bytes(self) -> int:
        """Bytes beyond the vram, 0 where there are none; raises as `vram_bytes`."""
        if self.virtual is None:
            return 0
        amount = _amount("virtual", self.virtual, multiplier=True, none=False)
        vram = self.vram_bytes if amount.of_vram is not None else None
        return amount.resolve(vram_bytes=vram) or 0

    @property
    def visible_bytes(self) -> int | None:
        """What the program is told the device has; ``None`` is what it really has."""
        vram = self.vram_bytes
        return None if vram is None else vram + self.virtual_bytes

    def resolved(self, device_bytes: int | None) -> Budget:
        """The same budget in bytes, percentages taken of ``device_bytes``."""
        vram = _amount("vram", self.vram, multiplier=False, none=True)
        vram_bytes = vram.resolve(device_bytes=device_bytes)
        virtual_bytes: int | None = None
        if self.virtual is not None:
            virtual = _amount("virtual", self.virtual, multiplier=True, none=False)
            virtual_bytes = virtual.resolve(device_bytes=device_bytes, vram_bytes=vram_bytes)
        return Budget(vram_bytes, virtual_bytes, self.policy)

    @classmethod
    def _as_found(cls, vram_bytes: int | None, virtual_bytes: int, policy: str) -> Budget:
        """What a segment says, sound or not: for showing, never for writing."""
        found = object.__new__(cls)
        object.__setattr__(found, "vram", vram_bytes)
        object.__setattr__(found, "virtual", virtual_bytes or None)
        object.__setattr__(found, "policy", cast(Policy, policy))
        return found

    def __str__(self) -> str:
        """For people: ``vram 4096 MiB, virtual 8192 MiB, spill``."""
        parts = [f"vram {_show(self.vram)}"]
        if self.virtual is not None:
            parts.append(f"virtual {_show(self.virtual)}")
        return ", ".join([*parts, str(self.policy)])


def _show(value: str | int | None) -> str:
    """A field for people, in MiB where it is in bytes."""
    return value if isinstance(value, str) else format_size(value)
