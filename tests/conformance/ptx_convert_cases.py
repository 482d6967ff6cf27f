# SPDX-License-Identifier: GPL-2.0-only
"""cvt in every pair of types and mode, against exact fractions (ieee.py)."""

from __future__ import annotations

import random
from collections.abc import Callable
from fractions import Fraction

from ieee import BF16, F16, F32, F64, MODES, TF32, Format, convert, whole
from ptx_bench import Case, case, signed, width
from ptx_float_cases import accept, corners, near, pairs

INTEGERS = ("u8", "s8", "u16", "s16", "u32", "s32", "u64", "s64")
FLOATS = (F16, BF16, F32, F64)
WHOLES = ("rni", "rzi", "rmi", "rpi")


def mask(bits: int) -> int:
    return (1 << bits) - 1


def value(kind: str, x: int) -> int:
    return signed(x, width(kind)) if kind[0] == "s" else x & mask(width(kind))


def integers(kind: str) -> list[int]:
    """Ends of all integer types, and what rounds in each floating one."""
    n = width(kind)
    rng = random.Random(kind)
    edges = [0, 1, 2, 3]
    for b in (7, 8, 11, 15, 16, 24, 31, 32, 53, 63, 64):
        edges += [
            (1 << b) - 1,
            1 << b,
            (1 << b) + 1,
            3 << max(b - 2, 0),
            (1 << b) + (1 << max(b - 12, 0)),
        ]
    edges += [-x for x in edges] + [rng.getrandbits(64) >> rng.randrange(64) for _ in range(60)]
    return sorted({x & mask(n) for x in edges})


def bounds(kind: str) -> tuple[int, int]:
    n = width(kind)
    return (-(1 << n - 1), (1 << n - 1) - 1) if kind[0] == "s" else (0, mask(n))


def clamp(x: int, kind: str) -> int:
    low, high = bounds(kind)
    return min(max(x, low), high)


def extended(kind: str, x: int) -> int:
    """As the register holds it: at least 16 bits, filled by sign or zeros."""
    return value(kind, x) & mask(max(width(kind), 16))


def between_integers() -> list[Case]:
    cases = []
    for d in INTEGERS:
        for s in INTEGERS:
            v = integers(s)
            # An 8-bit operand is the low byte of a wider register.
            cases.append(
                case(f"cvt.{d}.{s}", d, s, [v], lambda x, d=d, s=s: extended(d, value(s, x)))
            )
            (low, high), (least, most) = bounds(d), bounds(s)
            if least < low or most > high:  # else there is no such form
                cases.append(
                    case(
                        f"cvt.sat.{d}.{s}",
                        d,
                        s,
                        [v],
                        lambda x, d=d, s=s: extended(d, clamp(value(s, x), d)),
                    )
                )
    return cases


def float_values(f: Format) -> list[int]:
    """The corners, and numbers at the ends of integer types."""
    rng = random.Random(f.name)
    v = corners(f, 40) + near(f, 40)
    for b in (0, 1, 2, 7, 8, 15, 16, 31, 32, 63, 64):
        if b <= f.high:
            e = f.round(Fraction(1 << b), "rn")
            v += [x | s for x in (e - 1, e, e + 1) for s in (0, f.sign)]
    for k in range(1, 20):  # halves
        v += [f.round(Fraction(k) / 2, "rn") | s for s in (0, f.sign)]
    rng.shuffle(v)
    return v


def to_integer(f: Format, kind: str, mode: str, ftz: bool) -> Callable[[int], int]:
    def want(x: int) -> int:
        if ftz:
            x = f.ftz(x)
        if f.is_nan(x):
            if f is not F64 and width(kind) != 64:
                return 0
            return extended(kind, 1 << width(kind) - 1)
        if f.is_infinite(x):
            low, high = bounds(kind)
            return extended(kind, low if f.negative(x) else high)
        return extended(kind, clamp(whole(x, f, mode), kind))

    return want


def with_integers() -> list[Case]:
    cases = []
    for f in FLOATS:
        v = float_values(f)
        for kind in INTEGERS if f is not BF16 else INTEGERS[2:]:
            for mode in WHOLES:
                for ftz in (False, True) if f is F32 else (False,):
                    cases.append(
                        case(
                            f"cvt.{mode}{'.ftz' * ftz}.{kind}.{f.name}",
                            kind,
                            f.name,
                            [v],
                            to_integer(f, kind, mode, ftz),
                        )
                    )
            cases.append(
                case(
                    f"cvt.rzi.sat.{kind}.{f.name}",
                    kind,
                    f.name,
                    [v],
                    to_integer(f, kind, "rzi", False),
                )
            )
            for mode in MODES:

                def of_integer(x: int, f: Format = f, kind: str = kind, mode: str = mode) -> int:
                    return f.round(Fraction(value(kind, x)), mode)

                cases.append(
                    case(f"cvt.{mode}.{f.name}.{kind}", f.name, kind, [integers(kind)], of_integer)
                )
            cases.append(
                case(
                    f"cvt.rn.sat.{f.name}.{kind}",
                    f.name,
                    kind,
                    [integers(kind)],
                    lambda x, f=f, kind=kind: f.saturate(f.round(Fraction(value(kind, x)))),
                )
            )
    return [c for c in cases if "bf16" not in c.text or ".sat" not in c.text]


def flushed(f: Format, x: int, ftz: bool) -> int:
    """.ftz of cvt is about f32."""
    return f.ftz(x) if ftz and f is F32 else x


def between_floats() -> list[Case]:
    cases = []
    for s in FLOATS:
        v = float_values(s)
        for d in FLOATS:
            wider = d.fraction > s.fraction and d.low <= s.low
            for ftz in (False, True) if F32 in (s, d) else (False,):
                z = ".ftz" * ftz
                for sat in (False, True):
                    if BF16 in (s, d) and (ftz or sat):
                        continue
                    q = ".sat" * sat

                    def want(
                        x: int,
                        mode: str,
                        s: Format = s,
                        d: Format = d,
                        ftz: bool = ftz,
                        sat: bool = sat,
                    ) -> object:
                        r = flushed(d, convert(flushed(s, x, ftz), s, d, mode), ftz)
                        return accept(d, d.saturate(r) if sat else r)

                    modes = ("",) if wider or s is d else MODES
                    for mode in modes:
                        if BF16 in (s, d) and mode in ("rm", "rp"):
                            continue
                        numbers = v
                        if s is d or (wider and s in (BF16, F32)):
                            # Whether a NaN keeps its payload here is left open.
                            numbers = [x for x in v if not s.is_nan(x) or sat]
                        dot = f".{mode}" if mode else ""
                        cases.append(
                            case(
                                f"cvt{dot}{z}{q}.{d.name}.{s.name}",
                                d.name,
                                s.name,
                                [numbers],
                                lambda x, f=want, m=mode: f(x, m or "rn"),
                            )
                        )
                    if s is d:
                        for how in WHOLES:
                            cases.append(
                                case(
                                    f"cvt.{how}{z}{q}.{d.name}.{s.name}",
                                    d.name,
                                    s.name,
                                    [v],
                                    lambda x, f=s, how=how, ftz=ftz, sat=sat: rounded(
                                        f, x, how, ftz, sat
                                    ),
                                )
                            )
    return cases


def rounded(f: Format, x: int, mode: str, ftz: bool, sat: bool) -> object:
    x = flushed(f, x, ftz)
    if f.is_nan(x):
        return accept(f, 0 if sat else f.quiet)
    if f.is_finite(x):
        r = f.round(Fraction(whole(x, f, mode)), "rn", x & f.sign)
        # A small negative number becomes -0.
        x = r | x & f.sign
    return accept(f, f.saturate(x) if sat else x)


def special() -> list[Case]:
    """Packed results, .relu, .satfinite, tf32, cvt.pack."""
    cases = []
    v = float_values(F32)
    other = pairs(v, "other")

    def finite(f: Format, x: int) -> int:
        return x - 1 if f.is_infinite(x) else x

    for f in (F16, BF16):
        for mode in ("rn", "rz"):
            for relu in (False, True):
                for satfinite in (False, True):

                    def one(
                        x: int,
                        f: Format = f,
                        mode: str = mode,
                        relu: bool = relu,
                        satfinite: bool = satfinite,
                    ) -> int:
                        r = convert(x, F32, f, mode)
                        r = finite(f, r) if satfinite else r
                        return f.relu(r) if relu else r

                    z = ".relu" * relu + ".satfinite" * satfinite
                    if z:
                        cases.append(case(f"cvt.{mode}{z}.{f.name}.f32", f.name, "f32", [v], one))
                    rows = [(x, y & mask(32)) for x, y in zip(v, other, strict=False)]
                    cases.append(
                        Case(
                            f"cvt.{mode}{z}.{f.name}x2.f32 {{d}}, {{a}}, {{b}};",
                            (f"{f.name}x2",),
                            ("f32", "f32"),
                            rows,
                            lambda a, b, one=one: one(a) << 16 | one(b),
                        )
                    )
    for mode in ("rna", "rn", "rz"):

        def tf32(x: int, mode: str = mode) -> int:
            return convert(x, F32, TF32, mode) << 13  # the low bits of an f32 are zeros

        numbers = [x for x in v if not F32.is_nan(x)]
        cases.append(case(f"cvt.{mode}.tf32.f32", "b32", "f32", [numbers], tf32))
        if mode != "rna":
            cases.append(
                case(
                    f"cvt.{mode}.relu.tf32.f32",
                    "b32",
                    "f32",
                    [numbers],
                    lambda x, f=tf32: 0 if f(x) >> 31 else f(x),
                )
            )
    w = [
        0,
        1,
        0x7F,
        0x80,
        0x7FFF,
        0x8000,
        0x10000,
        0x7FFFFFFF,
        0x80000000,
        0xFFFFFFFF,
        0xFFFFFF80,
        0xFFFFFF7F,
        0xFFFF8000,
        0xFFFF7FFF,
    ]
    for t in ("u16", "s16"):
        cases.append(
            case(
                f"cvt.pack.sat.{t}.s32",
                "b32",
                "s32 s32",
                [w, w],
                lambda a, b, t=t: (
                    (clamp(signed(a, 32), t) & mask(16)) << 16 | clamp(signed(b, 32), t) & mask(16)
                ),
            )
        )
    for t in ("u8", "s8"):
        cases.append(
            case(
                f"cvt.pack.sat.{t}.s32.b32",
                "b32",
                "s32 s32 b32",
                [w, w, [0, 0x12345678]],
                lambda a, b, c, t=t: (
                    (c & mask(16)) << 16
                    | (clamp(signed(a, 32), t) & mask(8)) << 8
                    | clamp(signed(b, 32), t) & mask(8)
                ),
            )
        )
    return cases


CASES = [*between_integers(), *with_integers(), *between_floats(), *special()]
