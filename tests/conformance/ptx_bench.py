# SPDX-License-Identifier: GPL-2.0-only
"""Runs single instructions on many operands, hundreds of them in one kernel.

A case is an instruction, the types of what it writes and reads, its operands, and what
must come out.  Thread i of the kernel takes the i-th operands of every case.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

LANES = 256  # operand tuples of a case: threads of the block
SLOT = 8  # bytes of an operand or a result
OPERANDS = 4
RESULTS = 8
RESULT_NAMES = ("d", "e", "r2", "r3", "r4", "r5", "r6", "r7")
OPERAND_NAMES = "abcf"
SCRATCH = 32  # bytes of a thread in each space

FIXED = [(37 * i + 129) % 256 for i in range(SCRATCH)]  # what is in constant memory

Reference = Callable[..., object]


@dataclass
class Case:
    """`text` is the instruction, with {d}, {e} for results and {a} … for operands.

    `want` gets the operands' bits and gives the result's, several in a tuple, or
    something to call with what came out, which says whether that is right; None:
    whatever comes is right.  With `together` it gets the operands of all threads of the
    block, and gives a list.
    """

    text: str
    results: tuple[str, ...]
    operands: tuple[str, ...]
    rows: list[tuple[int, ...]]
    want: Reference
    before: str = ""  # declarations and instructions of its own
    together: bool = False


def width(kind: str) -> int:
    """Bits of a type."""
    if kind == "pred":
        return 1
    if kind.endswith("x2"):
        return 32
    return int("".join(c for c in kind if c.isdigit())) if kind != "bf16" else 16


def register(kind: str) -> str:
    """The type of the register that holds it."""
    if kind == "pred" or kind in ("f32", "f64"):
        return kind
    return f"b{max(width(kind), 16)}"


def signed(x: int, bits: int) -> int:
    """The integer of a two's complement."""
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> (bits - 1) else x


def case(
    name: str,
    result: str,
    operands: str,
    values: Iterable[Sequence[int]] | Sequence[int],
    want: Reference,
    **more: str,
) -> Case:
    """`name d, a, b …;`.  `values`: for each operand its choices, all combined and thinned."""
    kinds = tuple(operands.split())
    results = tuple(result.split())
    places = [f"{{{c}}}" for c in OPERAND_NAMES[: len(kinds)]]
    text = f"{name} {', '.join(['{d}', *places])};"
    return Case(text, results, kinds, thinned([list(v) for v in values], name), want, **more)


def thinned(choices: list[list[int]], seed: str, most: int = LANES) -> list[tuple[int, ...]]:
    """All combinations, or `most` of them, the same ones at each run."""
    total = 1
    for c in choices:
        total *= len(c)
    if total <= most:
        return list(itertools.product(*choices))
    rng = random.Random(seed)
    chosen = sorted(rng.sample(range(total), most))
    rows = []
    for number in chosen:
        row = []
        for c in choices:
            number, i = divmod(number, len(c))
            row.append(c[i])
        rows.append(tuple(row))
    return rows


def _load(kind: str, name: str, where: int) -> str:
    if kind == "pred":
        return f"ld.global.b32 t, [in+{where}];\nsetp.ne.b32 {name}, t, 0;\n"
    bits = max(width(kind), 16)
    if kind in ("f32", "f64"):
        return f"ld.global.{kind} {name}, [in+{where}];\n"
    return f"ld.global.b{bits} {name}, [in+{where}];\n"


def _store(kind: str, name: str, where: int) -> str:
    if kind == "pred":
        return f"selp.b32 t, 1, 0, {name};\nst.global.b32 [out+{where}], t;\n"
    bits = max(width(kind), 16)
    if kind in ("f32", "f64"):
        return f"st.global.{kind} [out+{where}], {name};\n"
    return f"st.global.b{bits} [out+{where}], {name};\n"


def kernel(cases: Sequence[Case], target: str, version: str) -> str:
    """One entry `k(in, out)` that runs every case."""
    text = [
        f".version {version}\n.target {target}\n.address_size 64\n",
        f".global .align {SCRATCH} .b8 memory[{SCRATCH * LANES}];\n",
        f".shared .align {SCRATCH} .b8 window[{SCRATCH * LANES}];\n",
        f".const .align {SCRATCH} .b8 fixed[{SCRATCH}] = {{{', '.join(map(str, FIXED))}}};\n",
        ".visible .entry k(.param .u64 p_in, .param .u64 p_out)\n{\n",
        f".local .align {SCRATCH} .b8 frame[{SCRATCH}];\n",
        ".reg .b64 in, out, at, ag, al;\n.reg .b32 t, lane, as;\n",
        "ld.param.u64 in, [p_in];\nld.param.u64 out, [p_out];\n",
        f"mov.u32 lane, %tid.x;\nmul.wide.u32 at, lane, {SLOT};\n",
        "add.s64 in, in, at;\nadd.s64 out, out, at;\n",
        f"mov.u64 ag, memory;\nmad.wide.u32 ag, lane, {SCRATCH}, ag;\n",
        f"mov.u32 as, window;\nmad.lo.u32 as, lane, {SCRATCH}, as;\nmov.u64 al, frame;\n",
    ]
    for number, c in enumerate(cases):
        text.append("{\n")
        names = {}
        for i, kind in enumerate(c.results):
            name = names[RESULT_NAMES[i]] = f"x{RESULT_NAMES[i]}"
            text.append(f".reg .{register(kind)} {name};\n")
        for i, kind in enumerate(c.operands):
            name = names[OPERAND_NAMES[i]] = f"x{OPERAND_NAMES[i]}"
            text.append(f".reg .{register(kind)} {name};\n")
            text.append(_load(kind, name, (number * OPERANDS + i) * LANES * SLOT))
        text.append(c.before)
        text.append(c.text.format(**names) + "\n")
        for i, kind in enumerate(c.results):
            where = (number * RESULTS + i) * LANES * SLOT
            text.append(_store(kind, names[RESULT_NAMES[i]], where))
        text.append("}\n")
    text.append("ret;\n}\n")
    return "".join(text)


def packed(cases: Sequence[Case]) -> bytes:
    """What the kernel reads."""
    data = bytearray(len(cases) * OPERANDS * LANES * SLOT)
    for number, c in enumerate(cases):
        for lane in range(LANES):
            for i, x in enumerate(c.rows[lane % len(c.rows)]):
                at = ((number * OPERANDS + i) * LANES + lane) * SLOT
                data[at : at + 8] = (x & (1 << 64) - 1).to_bytes(8, "little")
    return bytes(data)


def result_bytes(cases: Sequence[Case]) -> int:
    return len(cases) * RESULTS * LANES * SLOT


def _right(want: object, got: tuple[int, ...]) -> bool:
    if want is None:
        return True
    if callable(want):
        return bool(want(*got))
    return want == (got[0] if len(got) == 1 else got)


def wrong(cases: Sequence[Case], data: bytes) -> list[str]:
    """A line for the first wrong result of each case."""
    lines = []
    for number, c in enumerate(cases):
        rows = [c.rows[lane % len(c.rows)] for lane in range(LANES)]
        wants = c.want(rows) if c.together else [c.want(*row) for row in c.rows[:LANES]]
        assert isinstance(wants, list)
        for lane, (row, want) in enumerate(zip(rows, wants, strict=False)):
            got = []
            for i, kind in enumerate(c.results):
                at = ((number * RESULTS + i) * LANES + lane) * SLOT
                bits = max(width(kind), 16) if kind != "pred" else 32
                got.append(int.from_bytes(data[at : at + bits // 8], "little"))
            if not _right(want, tuple(got)):
                shown = "accepted by no rule" if callable(want) else _hex(want)
                came = f"{_hex(row)}: {_hex(tuple(got))}"
                lines.append(f"{c.text}  thread {lane} of {came}, should be {shown}")
                break
    return lines


def _hex(x: object) -> str:
    if isinstance(x, tuple):
        return ", ".join(map(_hex, x))
    return hex(x) if isinstance(x, int) and not isinstance(x, bool) else str(x)
