# SPDX-License-Identifier: GPL-2.0-only
"""CUDA_VISIBLE_DEVICES: the launcher's reading and the C one are one."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from emuv_shim import _visible
from tests.conftest import ROOT, Compiler, run

UUIDS = [f"GPU-{i}{i}e34d75-5673-416d-8a1c-0d2f5b9764c8" for i in range(3)]
MIG = "MIG-00e34d75-5673-416d-8a1c-0d2f5b9764c8"
OLD = f"MIG-{UUIDS[0]}/1/0"
CASES = [
    (None, [0, 1, 2]), ("", []), ("0,1,2", [0, 1, 2]), ("2,0", [2, 0]), (" 1 , 2", [1, 2]),
    ("1,7,0", [1]), ("0,-1,2", [0]), ("0,x", [0]), ("1gpu,2", [1, 2]), ("0,0", []), ("+1", [1]),
    ("-0,1", [0, 1]), ("-01", []), ("-00", [0]),
    ("GPU-22", [2]), ("GPU-11e34d75,GPU-00", [1, 0]), ("GPU-22E3", [2]), ("gpu-22", []),
    ("GPU-22,0", [2]), ("0,GPU-22", [0]), ("GPU-", []), ("GPU-ff", []), ("GPU-22,GPU-22e", []),
    ("GPU-22,,GPU-11", [2]), (MIG, []), (OLD, []), (f"{MIG},0", []), ("NoDevFiles", []),
]  # fmt: skip
PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include "visible_devices.h"
#pragma GCC diagnostic ignored "-Wformat-truncation"
static bool uuid(int index, char text[EMUV_UUID_TEXT_BYTES], void *state)
{
    (void)state;
    snprintf(text, EMUV_UUID_TEXT_BYTES, "GPU-%d%de34d75-5673-416d-8a1c-0d2f5b9764c8", index,
             index);
    return true;
}
int main(void)
{
    char line[4096];
    while (fgets(line, sizeof line, stdin)) {
        int visible[3], count;
        line[strcspn(line, "\n")] = 0;
        count = emuv_visible_devices(line, 3, uuid, NULL, visible);
        for (int i = 0; i < count; i++)
            printf("%d ", visible[i]);
        printf("\n");
    }
    return 0;
}
"""


@pytest.fixture
def in_c(cc: Compiler) -> Callable[[list[str]], list[list[int]]]:
    """The C reading of many values."""
    ours = ROOT / "csrc" / "common" / "visible_devices.c"
    source = f'#define _GNU_SOURCE\n#include "{ours}"\n{PROGRAM}'
    program = cc(source, flags=["-fsanitize=address,undefined"])

    def read(values: list[str]) -> list[list[int]]:
        feed = Path(program).with_suffix(".txt")
        feed.write_text("".join(f"{value}\n" for value in values))
        done = run(["sh", "-c", f"{program} < {feed}"], {"PATH": "/bin:/usr/bin"}, 30)
        assert done.returncode == 0, done.stderr
        return [[int(i) for i in line.split()] for line in done.stdout.splitlines()]

    return read


def test_the_rules(in_c: Callable[[list[str]], list[list[int]]]) -> None:
    for text, expected in CASES:
        assert _visible.seen(text, UUIDS) == expected, text
    values = [(text, expected) for text, expected in CASES if text is not None]
    assert in_c([text for text, _ in values]) == [expected for _, expected in values]


def test_any_text_is_read_alike(in_c: Callable[[list[str]], list[list[int]]]) -> None:
    texts: list[str] = []
    uuids = ("GPU-", "GPU-11", "GPU-2", "GPU-22e34d75-5673", "gpu-1", MIG, OLD)
    words = st.sampled_from(
        ["0", "1", "2", "9", "-1", "+2", " 1", "01", "1x", "\t2", "x", "", *uuids]
    )
    anything = st.text("0129-,GPUMIG/e ", max_size=20)

    @settings(max_examples=200, deadline=None, database=None)
    @given(st.one_of(st.lists(words, max_size=4).map(",".join), anything))
    def gather(text: str) -> None:
        texts.append(text)

    gather()
    assert in_c(texts) == [_visible.seen(text, UUIDS) for text in texts]


def test_entries_and_names() -> None:
    assert _visible.entries("3, 1gpu,x,2") == ["3", "1"]
    assert _visible.entries(f"{OLD},{MIG}") == [OLD, MIG]
    assert _visible.is_mig(f" {MIG}") and not _visible.is_mig("0") and not _visible.is_mig(None)
    bare = [uuid[4:] for uuid in UUIDS]
    assert _visible.ordinals_named("GPU-11E3", bare) == [1]
    assert _visible.ordinals_named("GPU-", bare) == [0, 1, 2]
    assert _visible.ordinals_named(MIG, bare[:1], MIG) == [0]
    assert _visible.ordinals_named(OLD, bare[:1], f"0,{OLD}") == []
    for name in (MIG, OLD, "GPU-1", "MIG-ab-cd"):
        assert _visible.NAME.fullmatch(name)
    for name in ("GPU-", "GPU-g", "gpu-1", "0", "MIG-GPU-1/1/0", f"{OLD}/2"):
        assert not _visible.NAME.fullmatch(name)
