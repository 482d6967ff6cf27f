# SPDX-License-Identifier: GPL-2.0-only
"""Segments with anything in them: a sound value or a SegmentError, and nothing else."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emuv_shim import _segment
from emuv_shim._segment import View
from emuv_shim.budget import Budget
from emuv_shim.controller import Controller
from emuv_shim.errors import EmuvError, SegmentError
from emuv_shim.stats import Stats
from tests.unit.segment_tools import Writer

HEADER_BYTES = 1056  # header, control and sequence: where the structure is
Patches = list[tuple[int, bytes]]

patches = st.lists(
    st.tuples(st.integers(0, HEADER_BYTES + 1408), st.binary(min_size=1, max_size=16)),
    max_size=8,
)
words = st.lists(
    st.tuples(
        st.integers(0, HEADER_BYTES // 4).map(lambda word: 4 * word),
        st.sampled_from(
            [b"\xff" * 4, b"\0" * 4, b"\x01\0\0\0", b"\xff\xff\xff\x7f", b"\0\0\0\x80"]
        ),
    ),
    max_size=8,
)


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, bytes]]:
    """(a directory of one living process's segment, the bytes of it)."""
    directory = tmp_path_factory.mktemp("runtime")
    directory.chmod(0o700)
    with Writer(directory, devices=2) as writer:
        writer.charge(plain=100, managed=50, resident=20, overhead=7)
        yield writer.path, writer.path.read_bytes()


def look(path: Path) -> Stats | None:
    """What a reader makes of the file: its statistics, or None for a refusal."""
    said = str(path)
    stats = None
    try:
        with View(path) as view:
            stats = view.read().stats
    except SegmentError as error:
        said = error.message
    assert str(path) in said
    if stats is None:
        return None
    text = json.dumps(stats.to_json())
    assert Stats.from_json(text) == stats
    assert all(word.isprintable() for word in (stats.name, stats.command, stats.run_id))
    assert 0 < stats.pid < 2**31
    assert len(stats.devices) <= 32
    return stats


@given(edits=st.one_of(patches, words))
@example(edits=[])
@example(edits=[(512, b"\x01")])  # a controller that died
@example(edits=[(1040, b"\x01")])  # a process that died
@example(edits=[(64, b"\x1b" * 64), (128, b"\xff" * 64), (256, b"A" * 256)])
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_bytes_are_read_or_refused(sound: tuple[Path, bytes], edits: Patches) -> None:
    path, data = sound
    changed = bytearray(data)
    for at, value in edits:
        changed[at : at + len(value)] = value
    victim = path.with_name("fuzz.seg")
    victim.touch(mode=0o600)
    victim.write_bytes(changed[: len(data)])
    stats = look(victim)
    if not edits:
        assert stats is not None
        assert stats.devices[0].used_bytes == 157
    if changed[:12] != data[:12]:
        assert stats is None


@given(length=st.one_of(st.integers(0, 3000), st.integers(23580, 23590)))
@settings(max_examples=60, deadline=None)
def test_any_length_is_read_or_refused(sound: tuple[Path, bytes], length: int) -> None:
    path, data = sound
    victim = path.with_name("cut.seg")
    victim.touch(mode=0o600)
    victim.write_bytes(data)
    os.truncate(victim, length)
    assert (look(victim) is not None) == (length == len(data))


@given(edits=words)
@settings(max_examples=60, deadline=None)
def test_a_budget_set_over_any_bytes_is_the_budget_asked_for(
    sound: tuple[Path, bytes], edits: Patches
) -> None:
    path, data = sound
    directory = path.parent / "set"
    directory.mkdir(mode=0o700, exist_ok=True)
    victim = directory / path.name
    changed = bytearray(data)
    for at, value in edits:
        changed[at : at + len(value)] = value
    victim.touch(mode=0o600)
    victim.write_bytes(changed[: len(data)])
    pid = int(path.name.partition("-")[0])
    try:
        with Controller(directory) as controller:
            change = controller.set_budget(pid, Budget(2**30, 2**20))
            process = controller.get(pid)
    except EmuvError:
        assert edits
        return
    assert process.stats.budget_settled
    assert process.stats.generation == change.generation
    for row in process.stats.devices:
        assert (row.vram_bytes, row.virtual_bytes) == (2**30, 2**20)
    assert process.stats.policy == "spill"


@given(pid=st.integers(-(2**70), 2**70))
@settings(max_examples=50)
def test_any_pid_has_a_start_or_none(pid: int) -> None:
    ticks = _segment.start_ticks(pid)
    assert ticks >= 0
    if not 0 < pid < 2**31:
        assert ticks == 0


def test_a_start_is_what_the_kernel_says() -> None:
    words = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
    assert _segment.start_ticks(os.getpid()) == int(words[19])
