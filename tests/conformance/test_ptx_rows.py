# SPDX-License-Identifier: GPL-2.0-only
"""The whitelist itself: every row of isa.def is exercised, and what is not there is refused."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
from ctypes import byref, c_uint64
from pathlib import Path

import ptx_approx_cases
import ptx_atomic_cases
import ptx_convert_cases
import ptx_float_cases
import ptx_integer_cases
import ptx_logic_cases
import ptx_memory_cases
import ptx_other_cases
import ptx_video_cases
import ptx_warp_cases
import pytest
from cuda_driver import Driver
from ptx_bench import kernel

ROWS = Path(__file__).resolve().parents[2] / "csrc" / "sim" / "ptx" / "isa.def"
NOT_SUPPORTED = 801
INVALID_PTX = 218
CASES = [
    *(ptx_integer_cases.CASES + ptx_logic_cases.CASES + ptx_float_cases.CASES),
    *(ptx_float_cases.NEWER + ptx_approx_cases.CASES + ptx_convert_cases.CASES),
    *(ptx_atomic_cases.CASES + ptx_other_cases.CASES),
    *(ptx_memory_cases.CASES + ptx_warp_cases.CASES + ptx_video_cases.CASES),
]
# Rows whose instructions end a kernel, or need one of their own: tested below and elsewhere.
ELSEWHERE = {("trap", ""), ("brkpt", "")}
TYPES = set(
    "pred b8 u8 s8 b16 u16 s16 f16 bf16 b32 u32 s32 f32 f16x2 bf16x2 u16x2 s16x2 b64 u64 s64"
    " f64 b128".split()
)


def rows() -> list[tuple[str, str, int]]:
    """(opcode, pattern, number of operands or -1) of each row, macros expanded."""
    macros = (
        "#define ISA(o, p, t, c, s) ROW(o, p, t)\n#define ISA_BY(o, p, f, s) ROW(o, p, 0)\n"
        "#define ISA_CODE_BY(o, p, t, c, f, s) ROW(o, p, t)\n"
        "#define ISA_FLOW(o, s)\n#define ISA_NOT(o, s)\n"
    )
    done = subprocess.run(
        ["gcc", "-E", "-P", "-x", "c", "-"],
        input=macros + ROWS.read_text(),
        capture_output=True,
        text=True,
        check=True,
        timeout=20,
    )
    found = []
    for inside in re.findall(r"ROW(\(.*?\))(?=\s*(?:ROW\(|$))", done.stdout, re.S):
        opcode, pattern, types = ast.literal_eval(inside)
        count = -1 if types == 0 else len([t for t in types.split() if t != "-"])
        found.append((opcode, pattern, count))
    return found


def matches(pattern: str, modifiers: list[str]) -> bool:
    """isa.h's rule: an element for each modifier, types in order."""
    elements = []
    for word in pattern.split():
        body = word[2:] if word[1:2] == ":" and word[0].islower() else word
        choices, mark, _ = body.partition("?")
        elements.append((choices.split("|"), bool(mark)))
    taken: set[int] = set()
    last = -1
    for modifier in modifiers:
        for i, (choices, _) in enumerate(elements):
            if i not in taken and modifier in choices:
                break
        else:
            return False
        if elements[i][0][0] in TYPES:
            if i < last:
                return False
            last = i
        taken.add(i)
    return all(optional or i in taken for i, (_, optional) in enumerate(elements))


def instructions(text: str) -> set[tuple[str, tuple[str, ...], int]]:
    """(opcode, modifiers, number of operands) of every instruction."""
    found = set()
    for line in re.split(r"[;\n]", text):
        line = re.sub(r"^\s*(?:\w+:)?\s*(?:@!?\w+\s+)?", "", line).strip()
        name, _, rest = line.partition(" ")
        if not re.fullmatch(r"[a-z]\w*(\.[\w:]+)*", name):
            continue
        flat = re.sub(r"\{[^}]*\}|\[[^]]*\]|\([^)]*\)", "x", rest)
        count = len(flat.split(",")) if flat.strip() else 0
        opcode, *modifiers = name.split(".")
        found.add((opcode, tuple(modifiers), count))
    return found


def test_every_row_is_exercised() -> None:
    used = instructions(kernel(CASES, "sm_100a", "8.8"))
    bare = []
    for opcode, pattern, count in rows():
        if (opcode, pattern) in ELSEWHERE:
            continue
        if not any(
            o == opcode and matches(pattern, list(m)) and count in (-1, n) for o, m, n in used
        ):
            bare.append(f"{opcode}: {pattern}")
    assert len(rows()) > 350
    assert not bare


ASSEMBLERS = ("ptxas", "/usr/local/cuda/bin/ptxas", "/usr/local/cuda-13.0/bin/ptxas")


@pytest.mark.skipif(not any(map(shutil.which, ASSEMBLERS)), reason="no ptxas on this machine")
def test_the_cases_are_legal_ptx(tmp_path: Path) -> None:
    """By NVIDIA's own assembler; but for the forms that no card of today has."""
    ptxas = next(filter(None, map(shutil.which, ASSEMBLERS)))
    old = {c.text for c in ptx_warp_cases.older()}
    text = tmp_path / "all.ptx"
    text.write_text(kernel([c for c in CASES if c.text not in old], "sm_100a", "8.8"))
    done = subprocess.run(
        [ptxas, "-arch", "sm_100a", "-O0", "-o", "/dev/null", str(text)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr[-2000:]


def code(driver: Driver, body: str) -> int:
    """The CUresult of loading and launching a kernel of this body."""
    text = f""".version 8.8
        .target sm_100a
        .address_size 64
        .visible .entry k() {{
            .reg .pred p, q; .reg .b16 h; .reg .b32 r; .reg .b64 d; .reg .f32 f; .reg .f64 g;
            {body}
            ret;
        }}"""
    module = c_uint64()
    loaded = driver.code("cuModuleLoadData", byref(module), text.encode() + b"\0")
    if loaded:
        return loaded
    function = driver.new("cuModuleGetFunction", module, b"k")
    return driver.code("cuLaunchKernel", function, 1, 1, 1, 1, 1, 1, 0, 0, None, None)


@pytest.mark.parametrize(
    "text",
    [
        "add.sat.u32 r, r, r;",
        "add.relu.s32 r, r, r;",
        "fma.f32 f, f, f, f;",
        "fma.rn.oob.relu.bf16 h, h, h, h;",
        "bfind.shiftamt.b32 r, r;",
        "ld.global.volatile.nc.u32 r, [d];",
        "ld.nc.u32 r, [d];",
        "div.f32 f, f, f;",
        "cvt.f32.f64 f, g;",
        "cvt.rn.u32.f32 r, f;",
        "cvt.sat.u32.u8 r, h;",
        "setp.lt.b32 p, r, r;",
        "setp.lo.s32 p, r, r;",
        "min.NaN.f64 g, g, g;",
        "shl.u32 r, r, r;",
        "atom.add.f16 h, [d], h;",
        "atom.global.inc.s32 r, [d], r;",
        "mul.s32 r, r, r;",
        "add.f32 f, f, f, f;",
        "add.f32 f, f;",
        "cvt.f16.bf16 h, h;",
        "lop3.b32 r, r, r, r, 256;",
        "tanh.approx.ftz.f32 f, f;",
        "tex.1d.v4.f32.s32 {f, f, f, f}, [d, {r}];",
        "isspacep.shared.global p, d;",
        "shfl.sync.idx.b64 d, d, 0, 31, -1;",
        "popc.u32 r, r;",
        "st.const.u32 [d], r;",
    ],
)
def test_what_is_not_listed_is_refused(
    driver: Driver, context: int, text: str, capfd: pytest.CaptureFixture[str]
) -> None:
    if driver.sim() is None:
        pytest.skip("about the simulated GPU's whitelist")
    assert code(driver, text) == NOT_SUPPORTED
    name = text.split()[0]
    assert f"{name}" in capfd.readouterr().err


def test_an_opcode_of_no_isa_is_an_error_of_the_text(driver: Driver, context: int) -> None:
    assert code(driver, "addd.f32 f, f, f;") == INVALID_PTX
