# SPDX-License-Identifier: GPL-2.0-only
"""Budget: sound when made, exact in bytes, frozen."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from emuv_shim import Budget
from emuv_shim.errors import SizeError

GIB = 2**30


def test_without_virtual_the_policy_is_cap() -> None:
    budget = Budget("4GiB")
    assert (budget.policy, budget.vram_bytes, budget.virtual_bytes) == ("cap", 4 * GIB, 0)
    assert budget.visible_bytes == 4 * GIB


def test_with_virtual_the_policy_is_spill() -> None:
    budget = Budget(vram=4 * GIB, virtual="8GiB")
    assert budget.policy == "spill"
    assert budget.visible_bytes == 12 * GIB
    assert str(budget) == "vram 4096 MiB, virtual 8GiB, spill"


def test_unlimited_stays_unlimited() -> None:
    assert Budget().visible_bytes is None
    assert Budget("none", "1GiB").visible_bytes is None
    assert Budget("none", "1GiB").virtual_bytes == GIB


def test_virtual_may_be_a_multiple_of_the_vram() -> None:
    assert Budget("4GiB", "1.5x").virtual_bytes == 6 * GIB


def test_percentages_wait_for_the_device() -> None:
    budget = Budget("50%", "2x")
    with pytest.raises(SizeError, match="share of the device"):
        _ = budget.vram_bytes
    known = budget.resolved(8 * GIB)
    assert known == Budget(4 * GIB, 8 * GIB, "spill")
    assert Budget("1GiB", "50%").resolved(8 * GIB).virtual_bytes == 4 * GIB
    with pytest.raises(SizeError, match="share of the device"):
        budget.resolved(None)


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"vram": 0}, "vram is 0 bytes"),
        ({"vram": -1}, "vram is -1 bytes"),
        ({"vram": 2**63}, "vram is 9223372036854775808 bytes"),
        ({"vram": True}, "vram is True"),
        ({"vram": 1.5}, "vram is 1.5"),
        ({"vram": "4Q"}, "vram: size '4Q'"),
        ({"vram": "2x"}, "vram: size '2x'"),
        ({"vram": "0=4G"}, "list by device"),
        ({"virtual": 0}, "virtual is 0"),
        ({"virtual": "none"}, "virtual: 'none' is not accepted"),
        ({"virtual": "2x"}, "the vram is not limited"),
        ({"vram": "4G", "virtual": "9999999999999999999x"}, "too large"),
        ({"vram": "4G", "policy": "spill"}, "there is no virtual"),
        ({"vram": "4G", "virtual": "1G", "policy": "cap"}, "policy is 'cap'"),
        ({"vram": "4G", "policy": "swap"}, "policy is 'swap'"),
    ],
)
def test_an_unsound_budget_cannot_be_made(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(SizeError, match=says) as caught:
        Budget(**fields)
    assert caught.value.hint


def test_a_budget_is_frozen_and_comparable() -> None:
    budget = Budget("4GiB")
    with pytest.raises(dataclasses.FrozenInstanceError):
        budget.vram = 1  # type: ignore[misc]
    assert budget == Budget("4GiB", policy="cap")
    assert hash(budget) == hash(Budget("4GiB"))
