# SPDX-License-Identifier: GPL-2.0-only
"""The segment's layout: what C asserts, what the compiler says, what Python reads."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from emuv_shim import _native_build, _segment, _sizes
from emuv_shim.budget import ALLOCATIONS, POLICIES

ROOT = Path(__file__).resolve().parents[2]
HEADER = ROOT / "csrc" / "common" / "emuv_segment.h"
STRUCTS = ("emuv_budget_t", "emuv_control_t", "emuv_device_counters_t", "emuv_segment_t")


def fields_of(text: str, struct: str) -> list[str]:
    """The fields of one struct, in order, from C text."""
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    body = re.search(rf"typedef struct \{{([^}}]*)\}} {struct};", code)
    assert body is not None, struct
    return re.findall(r"(\w+)(?:\[[\w.]*\])?;", body[1].replace("...;", ""))


@pytest.mark.parametrize("struct", STRUCTS)
def test_python_reads_every_field(struct: str) -> None:
    wanted = [name for name in fields_of(HEADER.read_text(), struct) if name != "reserved"]
    assert fields_of(_native_build.CDEF, struct) == wanted


def test_every_offset_is_asserted_in_the_header() -> None:
    text = HEADER.read_text()
    asserted = set(re.findall(r"EMUV_AT\((\w+), (\w+),", text))
    first = {("emuv_control_t", "generation")}  # at 0: nothing can come before it
    for struct in STRUCTS[1:]:
        names = {(struct, name) for name in fields_of(text, struct) if name != "reserved"}
        assert names - asserted - first == set()
    for struct in ("emuv_segment_t", "emuv_device_counters_t"):
        assert f"_Static_assert(sizeof({struct}) ==" in text


def test_the_compiled_accessors_agree_with_the_header(tmp_path: Path) -> None:
    text = HEADER.read_text()
    lines = [
        f'printf("{struct} {name} %zu\\n", offsetof({struct}, {name}));'
        for struct in STRUCTS
        for name in fields_of(text, struct)
        if name != "reserved"
    ]
    lines += [f'printf("{struct} . %zu\\n", sizeof({struct}));' for struct in STRUCTS]
    source = tmp_path / "offsets.c"
    body = "\n".join(lines)
    source.write_text(
        f'#include <stdio.h>\n#include "{HEADER}"\nint main(void)\n{{\n{body}\nreturn 0;\n}}\n'
    )
    program = tmp_path / "offsets"
    subprocess.run(["gcc", "-std=gnu17", "-o", program, source], check=True, timeout=60)
    said = subprocess.run([program], check=True, capture_output=True, text=True, timeout=20)
    ffi = _segment.native().ffi
    rows = [line.split() for line in said.stdout.splitlines()]
    assert len(rows) >= 50
    for struct, name, number in rows:
        got = ffi.sizeof(struct) if name == "." else ffi.offsetof(struct, name)
        assert (struct, name, got) == (struct, name, int(number))


def test_the_words_of_python_are_the_numbers_of_c() -> None:
    lib = _segment.native().lib
    assert _sizes.MAX_DEVICES == lib.EMUV_MAX_DEVICES
    assert 2 * _sizes.MAX_SIZE_BYTES < lib.EMUV_UNLIMITED == 2**64 - 1
    assert POLICIES[lib.EMUV_POLICY_CAP] == "cap"
    assert POLICIES[lib.EMUV_POLICY_SPILL] == "spill"
    assert ALLOCATIONS[lib.EMUV_ALLOCATION_LAZY] == "lazy"
    assert ALLOCATIONS[lib.EMUV_ALLOCATION_EAGER] == "eager"
    assert _segment._STATES == {lib.EMUV_STATE_RUNNING: "running", lib.EMUV_STATE_EXITED: "exited"}
    assert lib.EMUV_SEGMENT_MAGIC.to_bytes(8, "little") == b"EemUSEG1"


def test_function_names_are_the_rows_of_the_one_list() -> None:
    text = (ROOT / "csrc" / "shim" / "hooks.def").read_text()
    code = re.sub(r"/\*.*?\*/", "", text, flags=re.S)
    rows = re.findall(r"^EMUV_HOOK\((\w+),", code, flags=re.M)
    assert list(_segment.function_names()) == rows
    assert 0 < len(rows) <= _segment.native().lib.EMUV_MAX_FUNCTIONS


def test_the_module_compiles_all_of_the_segments_code() -> None:
    listed = _native_build.ffibuilder._assigned_source[3]["sources"]
    common = ROOT / "csrc" / "common"
    there = [*common.glob("emuv_segment_*.c"), *common.glob("emuv_shared*.c")]
    # What lists a run's segments is the NVML library's alone.
    named = [str(p.relative_to(ROOT)) for p in there if p.name != "emuv_segment_list.c"]
    assert sorted(listed) == sorted(["csrc/common/emuv_environ.c", *named])
