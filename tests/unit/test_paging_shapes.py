# SPDX-License-Identifier: GPL-2.0-only
"""The benchmark of paging's shapes: its optimum, and that known shapes come out of it."""

from __future__ import annotations

import json
import sys
from itertools import combinations
from pathlib import Path

import pytest

from tests.conftest import ROOT

sys.path.insert(0, str(ROOT / "benchmarks"))

import _bench
import paging_shapes
from paging_shapes import belady


def fewest(touches: list[int], card: int) -> int:
    """Misses of the best policy, found by trying them all."""
    states = {frozenset[int](): 0}
    for block in touches:
        after: dict[frozenset[int], int] = {}
        for present, misses in states.items():
            if block in present:
                after[present] = min(misses, after.get(present, misses))
                continue
            for keep in combinations(sorted(present), min(len(present), card - 1)):
                state = frozenset((*keep, block))
                after[state] = min(misses + 1, after.get(state, misses + 1))
        states = after
    return min(states.values())


@pytest.mark.parametrize("touches", ["012301230123", "010203010203", "3210123", "000", "01233210"])
@pytest.mark.parametrize("card", [1, 2, 3])
def test_the_optimum_is_the_least(touches: str, card: int) -> None:
    order = [int(block) for block in touches]
    brought, left = belady(order, card)
    assert sum(brought) == fewest(order, card)
    assert left == sum(brought) - min(card, len(set(order)))


@pytest.mark.timeout(120)
def test_known_shapes(sim: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.json"
    options = paging_shapes.parser().parse_args(["--quick", "--output", str(target)])
    assert _bench.run(paging_shapes.measure, options, paging_shapes.table) == 0
    document = json.loads(target.read_text())
    assert document["unit"] == "blocks"
    assert "model" in capsys.readouterr().out
    rows = {(row["shape"], row["blocks"] - row["card"]): row for row in document["rows"]}
    nothing = {"fault": 0, "prefetch": 0, "eviction": 0, "copy": 0}
    for shape in paging_shapes.SHAPES:  # what fits is brought in once
        assert rows[shape, 0]["in"] == rows[shape, 0]["out"] == nothing
    fault, spilled, fixed, prefetch, copies, discard = (
        rows[shape, 1] for shape in paging_shapes.SHAPES
    )
    count, card = fault["blocks"], fault["card"]
    assert fault["in"] == nothing | {"fault": count}
    assert fault["out"] == nothing | {"eviction": count}
    assert fault["faults"] == count
    assert 0 < fault["least_in"] < 2
    assert spilled["in"] == spilled["out"] == fixed["in"] == fixed["out"] == nothing
    assert spilled["remote"] == {"read": count, "written": count}
    assert fixed["remote"] == {"read": count - card, "written": count - card}
    assert prefetch["in"] == nothing | {"prefetch": count}
    assert prefetch["faults"] == spilled["faults"] == 0
    assert copies["in"] == nothing | {"fault": count}
    assert copies["out"] == discard["in"] == discard["out"] == nothing
    assert fixed["model_ms"]["pcie4"] < prefetch["model_ms"]["pcie4"] < fault["model_ms"]["pcie4"]
