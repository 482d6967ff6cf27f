# SPDX-License-Identifier: GPL-2.0-only
"""Atomic operations: what was there, and what is there then."""

from __future__ import annotations

import random
from collections.abc import Callable

from ieee import BF16, F16, F32, F64, Format
from ptx_bench import Case, signed, width
from ptx_memory_cases import DATA, NAMES, PLACES, fill, mask, rows, vector


def halves(f: Format, op: Callable[[int, int], int]) -> Callable[[int, int], int]:
    return lambda a, b: op(a >> 16, b >> 16) << 16 | op(a & mask(16), b & mask(16))


def operations(kind: str) -> dict[str, Callable[[int, int], int]]:
    n = width(kind)
    full = mask(n)

    def value(x: int) -> int:
        return signed(x, n) if kind[0] == "s" else x

    floats: dict[str, Format] = {"f32": F32, "f64": F64, "f16": F16, "bf16": BF16}
    if kind in floats:
        return {"add": floats[kind].add}
    if kind.removesuffix("x2") in floats:
        f = floats[kind.removesuffix("x2")]
        return {"add": halves(f, f.add)}
    found: dict[str, Callable[[int, int], int]] = {}
    if kind[0] == "b":
        found = {
            "and": lambda a, b: a & b,
            "or": lambda a, b: a | b,
            "xor": lambda a, b: a ^ b,
            "exch": lambda a, b: b,
        }
        return found if n > 16 else {}
    if kind != "s64":
        found["add"] = lambda a, b: a + b & full
    found["min"] = lambda a, b: min(value(a), value(b)) & full
    found["max"] = lambda a, b: max(value(a), value(b)) & full
    if kind == "u32":
        found["inc"] = lambda a, b: 0 if a >= b else a + 1
        found["dec"] = lambda a, b: b if a == 0 or a > b else a - 1
    return found


def corners(kind: str) -> list[int]:
    n = width(kind)
    if kind == "f32":
        return [
            0,
            F32.sign,
            F32.one,
            F32.one + 1,
            F32.largest,
            F32.infinity,
            F32.one | F32.sign,
            0x42280000,
        ]
    if kind == "f64":
        return [0, F64.sign, F64.one, F64.one + 1, F64.largest, F64.one | F64.sign, 1]
    if "f16" in kind:
        f = F16 if kind.startswith("f") else BF16
        one = [0, f.one, f.one + 1, f.largest, f.sign, f.one | f.sign, 1]
        return one if n == 16 else [a << 16 | b for a in one for b in one[:3]]
    return [0, 1, 2, mask(n), mask(n) - 1, mask(n - 1), 1 << n - 1, 0x1234567890ABCDEF & mask(n)]


def rmw(
    form: str,
    kind: str,
    space: str,
    place: str,
    f: Callable[..., int],
    count: int,
    before: str = "",
    hint: str = "",
) -> Case:
    """Old and new value of a word that had {a}; operands {b} and, of cas, {c}."""
    home, c = PLACES[space], corners(kind)
    bits = f"b{width(kind)}"
    other = ", {c}" if count == 3 else ""
    red = form.startswith("red")
    text = (
        f"st.{space}.{bits} [{home}], {{a}};\n"
        f"{form}.{kind} {'' if red else '{d}, '}[{place}], {{b}}{other}{hint};\n"
        f"ld.{space}.{bits} {{{'d' if red else 'e'}}}, [{home}];"
    )
    choices = [
        (a, b, *more)
        for a in c
        for b in c
        for more in ([()] if count == 2 else [(x,) for x in c[:4]])
    ]
    chosen = random.Random(text).sample(choices, min(len(choices), 256))

    def want(a: int, *rest: int) -> object:
        new = f(a, *rest)
        return new if red else (a, new)

    register = kind if kind in ("f32", "f64") else bits
    return Case(text, (register,) * (1 if red else 2), (register,) * count, chosen, want, before)


def atomics() -> list[Case]:
    cases = []
    kinds = (
        "u32",
        "s32",
        "u64",
        "s64",
        "b32",
        "b64",
        "f32",
        "f64",
        "f16",
        "f16x2",
        "bf16",
        "bf16x2",
    )
    spaces = {**PLACES, "": "g"}
    del spaces["local"]
    for kind in kinds:
        half = ".noftz" if "f16" in kind else ""
        for op, f in operations(kind).items():
            for space, place in spaces.items():
                before = "" if space else ".reg .b64 g;\ncvta.global.u64 g, ag;\n"
                dot = f".{space}" if space else ""
                home = space or "global"
                cases.append(rmw(f"atom{dot}.{op}{half}", kind, home, place, f, 2, before))
                if op != "exch":
                    cases.append(rmw(f"red{dot}.{op}{half}", kind, home, place, f, 2, before))
    for kind in ("b16", "b32", "b64"):
        for space, place in spaces.items():
            before = "" if space else ".reg .b64 g;\ncvt.u64.u32 g, as;\ncvta.shared.u64 g, g;\n"
            dot = f".{space}" if space else ""
            cases.append(
                rmw(
                    f"atom{dot}.cas",
                    kind,
                    space or "shared",
                    place,
                    lambda a, b, c: c if a == b else a,
                    3,
                    before,
                )
            )
    for order in ("relaxed", "acquire", "release", "acq_rel"):
        for scope in ("cta", "cluster", "gpu", "sys"):
            cases.append(
                rmw(
                    f"atom.{order}.{scope}.global.add",
                    "u32",
                    "global",
                    "ag",
                    lambda a, b: a + b & mask(32),
                    2,
                )
            )
    cases += [
        rmw("atom.global.sys.add", "u32", "global", "ag", lambda a, b: a + b & mask(32), 2),
        rmw("red.relaxed.gpu.global.max", "s64", "global", "ag", operations("s64")["max"], 2),
        rmw(
            "atom.global.add.L2::cache_hint",
            "u32",
            "global",
            "ag",
            lambda a, b: a + b & mask(32),
            2,
            ".reg .b64 g;\ncreatepolicy.fractional.L2::evict_last.b64 g, 1.0;\n",
            ", g",
        ),
    ]
    return cases + wide()


def wide() -> list[Case]:
    """128 bits, and vectors (sm_90)."""
    q = ".reg .b128 old, new, was;\n"
    cases = []
    for op in ("exch", "cas"):
        for space, place in (("global", "ag"), ("shared", "as")):
            other = ", was, new" if op == "cas" else ", new"
            cases.append(
                Case(
                    fill(space)
                    + f"mov.b128 new, {{{{{{c}}, {{f}}}}}};\nmov.b128 was, {{{{{{a}}, {{b}}}}}};\n"
                    f"atom.{space}.{op}.b128 old, [{place}]{other};\n"
                    f"mov.b128 {{{{{{d}}, {{e}}}}}}, old;\n"
                    f"ld.{space}.v2.b64 {{{{{{r2}}, {{r3}}}}}}, [{place}];",
                    ("b64",) * 4,
                    DATA,
                    rows(op),
                    lambda *row: row,
                    before=q,
                )
            )
    one = F32.one
    values = [(one, one + 1, F32.sign, 0x40490FDB), (0, 1 << 23, one | F32.sign, 0x7F000000)]
    for count in (2, 4):
        names = ["{a}", "{b}", "{c}", "{f}"][:count]
        got = NAMES[:count]
        back = NAMES[count : 2 * count]

        def want(*xs: int, count: int = count) -> object:
            return (*xs[:count], *(F32.add(x, x) for x in xs[:count]))

        cases.append(
            Case(
                f"st.global.v{count}.f32 [ag], {vector(names)};\n"
                f"atom.global.v{count}.f32.add {vector(got)}, [ag], {vector(names)};\n"
                f"ld.global.v{count}.f32 {vector(back)}, [ag];",
                ("f32",) * (2 * count),
                ("f32",) * 4,
                values,
                want,
            )
        )
        cases.append(
            Case(
                f"st.global.v{count}.f32 [ag], {vector(names)};\n"
                f"red.relaxed.gpu.global.add.v{count}.f32 [ag], {vector(names)};\n"
                f"ld.global.v{count}.f32 {vector(got)}, [ag];",
                ("f32",) * count,
                ("f32",) * 4,
                values,
                lambda *xs, w=want, n=count: w(*xs)[n:],
            )
        )
    h = F16
    pairs = [(h.one << 16 | 0x3555, 0x40003C00, 0xBC000001, 0x7BFF0400)]
    for op, f in (("add", h.add), ("min", h.least), ("max", h.most)):
        for form in ("atom", "red"):
            d = "{{{d}, {e}}}, " if form == "atom" else ""
            both = halves(h, f)
            cases.append(
                Case(
                    f"st.global.v2.b32 [ag], {{{{{{a}}, {{b}}}}}};\n"
                    f"{form}.global.{op}.noftz.v2.f16x2 {d}[ag], {{{{{{c}}, {{f}}}}}};\n"
                    "ld.global.v2.b32 {{{r2}, {r3}}}, [ag];"
                    + ("" if d else "\nmov.b32 {d}, {a};\nmov.b32 {e}, {b};"),
                    ("b32",) * 4,
                    ("b32",) * 4,
                    pairs,
                    lambda a, b, c, g, both=both: (a, b, both(a, c), both(b, g)),
                )
            )
    for h in (F16, BF16):  # two halves in one go
        bits = [(h.one, h.one + 1, h.sign | 3 << h.fraction, 1)]
        for op, f in (("add", h.add), ("min", h.least), ("max", h.most)):
            cases.append(
                Case(
                    "st.global.v2.b16 [ag], {{{a}, {b}}};\n"
                    f"atom.global.{op}.noftz.v2.{h.name} {{{{{{d}}, {{e}}}}}}, "
                    "[ag], {{{c}, {f}}};\n"
                    f"red.global.{op}.noftz.v2.{h.name} [ag], {{{{{{c}}, {{f}}}}}};\n"
                    "ld.global.v2.b16 {{{r2}, {r3}}}, [ag];",
                    ("b16",) * 4,
                    ("b16",) * 4,
                    bits,
                    lambda a, b, c, g, f=f: (a, b, f(f(a, c), c), f(f(b, g), g)),
                )
            )
    return cases


CASES = atomics()
