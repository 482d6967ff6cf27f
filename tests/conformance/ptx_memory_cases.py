# SPDX-License-Identifier: GPL-2.0-only
"""Loads and stores, in every space, type and modifier."""

from __future__ import annotations

import random

from ptx_bench import FIXED, SCRATCH, Case, signed, width

TYPES = (
    *("b8", "u8", "s8", "b16", "u16", "s16", "b32", "u32", "s32", "f32"),
    *("b64", "u64", "s64", "f64"),
)
FEW = ("s8", "u16", "b32", "f64")  # where what is tested is the space
PLACES = {"global": "ag", "shared": "as", "local": "al"}
HINTS = (
    "L1::evict_normal",
    "L1::evict_unchanged",
    "L1::evict_first",
    "L1::evict_last",
    "L1::no_allocate",
)
DATA = ("b64",) * 4


def mask(bits: int) -> int:
    return (1 << bits) - 1


def rows(seed: str, count: int = 16) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.getrandbits(64) for _ in DATA) for _ in range(count)]


def joined(row: tuple[int, ...]) -> bytes:
    return b"".join(x.to_bytes(8, "little") for x in row)


def fill(space: str) -> str:
    """Puts the operands into the thread's memory of the space."""
    to = PLACES[space]
    return (
        f"st.{space}.v2.b64 [{to}], {{{{{{a}}, {{b}}}}}};\n"
        f"st.{space}.v2.b64 [{to}+16], {{{{{{c}}, {{f}}}}}};\n"
    )


def elements(data: bytes, kind: str, count: int) -> tuple[int, ...]:
    """As 64-bit registers hold them: filled by sign or zeros."""
    size = width(kind) // 8
    out = []
    for i in range(count):
        x = int.from_bytes(data[i * size : (i + 1) * size], "little")
        out.append(signed(x, 8 * size) & mask(64) if kind[0] == "s" else x)
    return tuple(out)


def vector(names: list[str]) -> str:
    return names[0] if len(names) == 1 else "{{" + ", ".join(names) + "}}"


NAMES = ["{d}", "{e}", "{r2}", "{r3}", "{r4}", "{r5}", "{r6}", "{r7}"]


def ld(form: str, kind: str, count: int, place: str, space: str, more: str = "") -> Case:
    """`form`.v<count>.<kind> from `place`, after the thread's `space` was filled."""
    v = f".v{count}" if count > 1 else ""
    register = kind if kind[0] == "f" else "b64"
    text = f"{form}{v}.{kind} {vector(NAMES[:count])}, [{place}]{more};"
    before = fill(space) if space in PLACES else ""
    data = (lambda row: bytes(FIXED)) if space == "const" else joined

    def want(*row: int) -> object:
        got = elements(data(row), kind, count)
        return got[0] if count == 1 else got

    return Case(before + text, (register,) * count, DATA, rows(text), want)


def loads() -> list[Case]:
    cases = []
    for kind in TYPES:
        for count in (1, 2, 4):
            if count * width(kind) > 128:
                continue
            for space, place in {**PLACES, "const": "fixed"}.items():
                if space != "global" and kind not in FEW:
                    continue
                cases.append(ld(f"ld.{space}", kind, count, place, space))
        cases.append(ld("ld", kind, 1, "ag", "global"))
        cases.append(ld("ldu.global", kind, 1, "ag", "global"))
    for kind in ("b32", "f32", "u32"):
        cases.append(ld("ld.global", kind, 8, "ag", "global"))
    cases.append(ld("ld.global", "b64", 4, "ag", "global"))
    for form in (
        *(
            f"ld.global.{c}"
            for c in ("ca", "cg", "cs", "lu", "cv", "nc", "nc.ca", "cg.nc", "cs.nc")
        ),
        *(f"ld.global.{h}" for h in HINTS),
        *(f"ld.global.nc.{h}.L2::128B" for h in HINTS),
        *(f"ld.global.L2::{n}B" for n in (64, 128, 256)),
        "ld.weak.global",
        "ld.global.weak.cg",
        *(
            f"ld.{o}.{s}.global"
            for o in ("relaxed", "acquire")
            for s in ("cta", "cluster", "gpu", "sys")
        ),
        "ld.relaxed.gpu.global.L1::no_allocate",
        "ld.mmio.relaxed.sys.global",
        "ld.volatile.global",
        "ld.volatile.global.L2::64B",
        "ldu.global",
        "ld.volatile",
        "ld.relaxed.gpu",
        "ld.weak.ca",
    ):
        for kind in ("s16", "f32"):
            count = 2 if kind == "f32" and "mmio" not in form else 1
            cases.append(ld(form, kind, count, "ag", "global"))
    for form in (
        "ld.shared::cta",
        "ld.shared::cluster",
        "ld.volatile.shared",
        "ld.relaxed.cta.shared",
        "ld.acquire.cta.shared::cta",
        "ld.shared.ca",
    ):
        cases.append(ld(form, "s32", 2, "as", "shared"))
    for form in ("ld.local.ca", "ld.local.cs"):
        cases.append(ld(form, "s32", 2, "al", "local"))
    policy = ".reg .b64 policy;\ncreatepolicy.fractional.L2::evict_first.b64 policy, 1.0;\n"
    for form in (
        "ld.global.L2::cache_hint",
        "ld.global.nc.L1::evict_last.L2::cache_hint.L2::256B",
        "ld.global.ca.L2::cache_hint",
    ):
        c = ld(form, "u32", 4, "ag", "global", ", policy")
        cases.append(Case(c.text, c.results, c.operands, c.rows, c.want, before=policy))
    for space in PLACES:  # by a generic address
        to = {
            "global": "cvta.global.u64 g, ag",
            "shared": "cvt.u64.u32 g, as;\ncvta.shared.u64 g, g",
            "local": "cvta.local.u64 g, al",
        }[space]
        c = ld("ld", "b32", 4, "g", space)
        cases.append(
            Case(c.text, c.results, c.operands, c.rows, c.want, before=f".reg .b64 g;\n{to};\n")
        )
    # Half of a 128-bit register each.
    for form, place, space in (
        ("ld.global", "ag", "global"),
        ("ld.shared", "as", "shared"),
        ("ld.volatile.global", "ag", "global"),
        ("ld.global.nc", "ag", "global"),
    ):
        cases.append(
            Case(
                fill(space) + f"{form}.b128 q, [{place}+16];\nmov.b128 {{{{{{d}}, {{e}}}}}}, q;",
                ("b64", "b64"),
                DATA,
                rows(form),
                lambda *row: row[2:],
                before=".reg .b128 q;\n",
            )
        )
    return cases


def st(
    form: str, kind: str, count: int, place: str, space: str, more: str = "", before: str = ""
) -> Case:
    """The operands by `form`, into memory filled with bytes that must stay as they are."""
    v = f".v{count}" if count > 1 else ""
    given = ["{a}", "{b}", "{c}", "{f}"] * 2
    operands = (kind,) * 4 if kind[0] == "f" else DATA
    size = width(kind) // 8
    home = PLACES[space]
    text = (
        f"mov.b64 full, 0xEEEEEEEEEEEEEEEE;\nst.{space}.v2.b64 [{home}], {{{{full, full}}}};\n"
        f"st.{space}.v2.b64 [{home}+16], {{{{full, full}}}};\n"
        f"{form}{v}.{kind} [{place}], {vector(given[:count])}{more};\n"
        f"ld.{space}.v2.b64 {{{{{{d}}, {{e}}}}}}, [{home}];\n"
        f"ld.{space}.v2.b64 {{{{{{r2}}, {{r3}}}}}}, [{home}+16];"
    )

    def want(*row: int) -> object:
        data = bytearray(b"\xee" * SCRATCH)
        for i in range(count):
            data[i * size : (i + 1) * size] = (row[i % 4] & mask(8 * size)).to_bytes(size, "little")
        return tuple(int.from_bytes(data[i : i + 8], "little") for i in range(0, SCRATCH, 8))

    values = [tuple(x & mask(width(operands[0])) for x in row) for row in rows(form + kind + v)]
    return Case(text, ("b64",) * 4, operands, values, want, before=".reg .b64 full, g;\n" + before)


def stores() -> list[Case]:
    cases = []
    for kind in TYPES:
        for count in (1, 2, 4):
            if count * width(kind) > 128:
                continue
            for space, place in PLACES.items():
                if space != "global" and kind not in FEW:
                    continue
                cases.append(st(f"st.{space}", kind, count, place, space))
    cases += [st("st.global", "b32", 8, "ag", "global"), st("st.global", "b64", 4, "ag", "global")]
    for form in (
        *(f"st.global.{c}" for c in ("wb", "cg", "cs", "wt")),
        *(f"st.global.{h}" for h in HINTS),
        *(
            f"st.{o}.{s}.global"
            for o in ("relaxed", "release")
            for s in ("cta", "cluster", "gpu", "sys")
        ),
        "st.weak.global",
        "st.volatile.global",
        "st.mmio.relaxed.sys.global",
        "st.weak.global.cs",
        "st",
        "st.volatile",
        "st.release.sys",
    ):
        for kind in ("u8", "f64"):
            cases.append(st(form, kind, 1, "ag", "global"))
    policy = "createpolicy.fractional.L2::evict_last.b64 g, 0.5;\n"
    for form in ("st.global.cs.L2::cache_hint", "st.global.L1::no_allocate.L2::cache_hint"):
        cases.append(st(form, "u32", 4, "ag", "global", ", g", policy))
    for form in ("st.shared::cta", "st.volatile.shared", "st.relaxed.cta.shared::cluster"):
        cases.append(st(form, "u16", 2, "as", "shared"))
    cases.append(
        st("st", "b32", 4, "g", "shared", "", "cvt.u64.u32 g, as;\ncvta.shared.u64 g, g;\n")
    )
    cases.append(st("st", "b32", 4, "g", "local", "", "cvta.local.u64 g, al;\n"))
    for space in PLACES:
        cases.append(
            Case(
                f"mov.b128 q, {{{{{{a}}, {{b}}}}}};\nst.{space}.b128 [{PLACES[space]}], q;\n"
                f"ld.{space}.v2.b64 {{{{{{d}}, {{e}}}}}}, [{PLACES[space]}];",
                ("b64", "b64"),
                DATA,
                rows(space),
                lambda *row: row[:2],
                before=".reg .b128 q;\n",
            )
        )
    return cases


CASES = [*loads(), *stores()]
