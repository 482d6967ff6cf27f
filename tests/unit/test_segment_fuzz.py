# SPDX-License-Identifier: GPL-2.0-only
"""Segments and files of runs with anything in them: a sound value or a SegmentError, no more."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emuv_shim import _segment
from emuv_shim._segment import Control, RunView, View, make_run, sweep_run
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


RUN_HEADER_BYTES = 5760  # of csrc/common/emuv_shared.h, where the rows begin


@pytest.fixture(scope="module")
def sound_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, bytes]:
    """(the file of a shared run that this process leads, the bytes of it)."""
    directory = tmp_path_factory.mktemp("runs")
    directory.chmod(0o700)
    make_run(directory, "sound", "name", Control(0, 0, 0, ((2**30, 0),) * 32))
    path = directory / "sound.run"
    return path, path.read_bytes()


@given(
    edits=st.lists(
        st.tuples(st.integers(0, RUN_HEADER_BYTES + 4096), st.binary(min_size=1, max_size=16)),
        max_size=8,
    ),
    cut=st.one_of(st.none(), st.integers(0, 530048)),
)
@example(edits=[], cut=None)
@example(edits=[(256, b"\x01")], cut=None)  # a controller that died
@example(edits=[(32, b"\xff" * 8), (1600, b"\xff" * 8), (1664, b"\xff" * 2048)], cut=None)
@example(edits=[(40, b"\x1b" * 64), (104, b"\xff" * 64)], cut=None)
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_any_run_is_read_or_refused(
    sound_run: tuple[Path, bytes], edits: Patches, cut: int | None
) -> None:
    path, data = sound_run
    changed = bytearray(data)
    for at, value in edits:
        changed[at : at + len(value)] = value
    victim = path.with_name("fuzz.run")
    victim.touch(mode=0o600)
    victim.write_bytes(changed[:cut])
    said, run = str(victim), None
    try:
        with RunView(victim) as view:
            run = view.read_run(slots=True)
    except SegmentError as error:
        said = error.message
    assert str(victim) in said
    assert run is not None or cut is not None or changed[:16] != data[:16]
    if run is not None:
        assert run.run_id.isprintable()
        assert run.name.isprintable()
        assert len(run.slots) <= 256
        assert all(len(slot.held) == len(run.cards) <= 32 for slot in run.slots)
    # Who clears up removes what its dead have left, and nothing that it cannot read.
    removed = sweep_run(victim)
    assert removed == (not victim.exists())
    if run is None or changed[:5760] == data[:5760]:
        assert not removed


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
