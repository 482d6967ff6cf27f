# SPDX-License-Identifier: GPL-2.0-only
"""Statistics: figures that add up, a JSON form that holds its schema and reads back."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuv_shim.errors import StatsFileError
from emuv_shim.stats import DeviceStats, Stats, stats_from_json, stats_to_json

SCHEMA = json.loads(
    (Path(__file__).parents[2] / "emuv_shim" / "schemas" / "stats.schema.json").read_text()
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

number = st.integers(0, 2**64 - 1)
maybe = st.none() | number
device_stats = st.builds(
    DeviceStats,
    **{
        field.name: {
            "int": number,
            "int | None": maybe,
            "bool": st.booleans(),
            "str | None": st.none() | st.text(),
        }[str(field.type)]
        for field in dataclasses.fields(DeviceStats)
        if field.name != "calls"
    },
    calls=st.dictionaries(st.text(min_size=1), st.integers(1, 2**64 - 1), max_size=4),
)
stats = st.builds(
    Stats,
    pid=st.integers(1, 2**31 - 1),
    state=st.sampled_from(["running", "exited", "unknown"]),
    policy=st.sampled_from(["cap", "spill", "unknown"]),
    allocation=st.sampled_from(["lazy", "eager", "unknown"]),
    uid=number,
    start_ticks=number,
    created_ns=number,
    driver_version=number,
    generation=number,
    applied_generation=number,
    devices=st.lists(device_stats, max_size=3).map(tuple),
)


def device(**values: Any) -> DeviceStats:
    """A device with nothing on it, but for `values`."""
    empty: dict[str, Any] = {
        field.name: {"int": 0, "int | None": None, "bool": False, "str | None": None}.get(
            str(field.type), {}
        )
        for field in dataclasses.fields(DeviceStats)
    }
    return DeviceStats(**{**empty, **values})


SAMPLE = Stats(
    pid=7,
    uid=0,
    start_ticks=1,
    created_ns=2,
    state="running",
    name="",
    run_id="",
    command="",
    emuv_version="",
    is_simulated=True,
    driver_version=13000,
    policy="spill",
    allocation="lazy",
    generation=0,
    applied_generation=0,
    budget_settled=True,
    counters_settled=True,
    devices=(device(),),
)


def test_the_figures_add_up() -> None:
    row = device(
        vram_bytes=100,
        virtual_bytes=50,
        device_bytes=60,
        managed_bytes=40,
        promoted_bytes=10,
        overhead_bytes=5,
        advised_bytes=1,
        prefetch_device_bytes=2,
        prefetch_host_bytes=4,
    )
    assert (row.used_bytes, row.physical_bytes, row.visible_bytes) == (105, 75, 150)
    assert row.free_bytes == 45
    assert row.hint_bytes == 7


def test_free_is_never_negative_and_unknown_without_a_limit() -> None:
    assert device(vram_bytes=10, device_bytes=60).free_bytes == 0
    assert device(device_bytes=60).free_bytes is None
    assert device(virtual_bytes=5).visible_bytes is None
    assert device(managed_bytes=40, promoted_bytes=10).host_bytes == 30
    # Read while a range was freed whose head was leaving: nothing, not less.
    assert device(managed_bytes=10, promoted_bytes=40).host_bytes == 0
    assert device(device_bytes=60, overhead_bytes=None).used_bytes == 60


@given(stats)
def test_json_holds_its_schema_and_reads_back(value: Stats) -> None:
    document = json.loads(json.dumps(value.to_json()))
    VALIDATOR.validate(document)
    assert document["schema"] == 1
    assert Stats.from_json(document) == value
    assert Stats.from_json(json.dumps(document).encode()) == value
    assert stats_from_json(document) == (value,)


@given(st.lists(stats, max_size=3))
def test_a_run_holds_its_schema_and_reads_back(values: list[Stats]) -> None:
    document = {**stats_to_json(values), "run": {"id": "x"}}
    VALIDATOR.validate(document)
    assert stats_from_json(json.dumps(document)) == tuple(values)


def test_unknown_keys_are_for_later_versions() -> None:
    document = {**SAMPLE.to_json(), "later": [1]}
    document["devices"][0]["later"] = {}
    VALIDATOR.validate(document)
    assert Stats.from_json(document) == SAMPLE


def without(key: str) -> dict[str, Any]:
    return {name: value for name, value in SAMPLE.to_json().items() if name != key}


@pytest.mark.parametrize(
    ("data", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("[" * 100_000, "not JSON"),
        ("[]", "no JSON object"),
        ("null", "no JSON object"),
        (7, "no JSON object"),
        ("{}", "schema None"),
        ({**SAMPLE.to_json(), "schema": 2}, "schema 2"),
        ({**SAMPLE.to_json(), "schema": True}, "schema True"),
        ({**SAMPLE.to_json(), "schema": [1]}, r"schema \[1\]"),
        (without("pid"), "'pid' of the process is missing"),
        ({**SAMPLE.to_json(), "pid": "7"}, "'pid' of the process is '7'"),
        ({**SAMPLE.to_json(), "pid": True}, "'pid' of the process is True"),
        ({**SAMPLE.to_json(), "pid": -1}, "'pid' of the process is -1"),
        ({**SAMPLE.to_json(), "pid": 2**64}, "'pid' of the process is 18446744073709551616"),
        ({**SAMPLE.to_json(), "name": None}, "'name' of the process is None"),
        (without("devices"), "'devices' is no list"),
        ({**SAMPLE.to_json(), "devices": {}}, "'devices' is no list"),
        ({**SAMPLE.to_json(), "devices": [1]}, "device 0 is no JSON object"),
        (
            {**SAMPLE.to_json(), "devices": [{**device().to_json(), "spills": 1.5}]},
            "'spills' of device 0 is 1.5",
        ),
        (
            {**SAMPLE.to_json(), "devices": [{**device().to_json(), "calls": []}]},
            "'calls' of device 0 is no JSON object",
        ),
        (
            {**SAMPLE.to_json(), "devices": [{**device().to_json(), "calls": {"f": "x"}}]},
            "'f' of device 0 is 'x'",
        ),
        ({"schema": 1, "processes": 3}, "'processes' is no list"),
        ({"schema": 3, "processes": []}, "schema 3"),
    ],
)
def test_a_file_that_is_none_is_an_error(data: object, says: str) -> None:
    with pytest.raises(StatsFileError, match=says) as caught:
        stats_from_json(data)
    assert caught.value.hint
    assert len(caught.value.message) < 200


def test_statistics_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        SAMPLE.pid = 8  # type: ignore[misc]
