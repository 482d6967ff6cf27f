# SPDX-License-Identifier: GPL-2.0-only
"""f32, f64, f16 and bf16 instructions against exact fractions (ieee.py).

NaN results of f32 and of the half types are the canonical ones; of f64, any NaN.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from ieee import BF16, F16, F32, F64, MODES, Format
from ptx_bench import Case, case

Bits = Callable[..., int]


def corners(f: Format, extra: int = 12) -> list[int]:
    """Zeros, ends of ranges, halves between numbers, infinities, NaNs, and some random."""
    one, tiny, least = f.one, 1, 1 << f.fraction
    positive = [
        0,
        tiny,
        2,
        least - 1,
        least,
        least + 1,
        one - 1,
        one,
        one + 1,
        one + (1 << f.fraction - 1),
        f.one + (1 << f.fraction),
        f.largest,
        f.infinity,
        f.infinity | 1,
        f.infinity | 1 << f.fraction - 1,
        f.largest - (1 << f.fraction),
    ]
    rng = random.Random(f.name)
    return (
        positive + [x | f.sign for x in positive] + [rng.getrandbits(f.bits) for _ in range(extra)]
    )


def near(f: Format, count: int) -> list[int]:
    """Around one, where operations round and do not overflow."""
    rng = random.Random(f.name + "near")
    spread = 6 << f.fraction
    return [
        (f.one + rng.randint(-spread, spread)) | f.sign * rng.getrandbits(1) for _ in range(count)
    ]


def accept(f: Format, bits: int) -> object:
    """What a result must be: these bits, or for a NaN of f64 any NaN."""
    if f is F64 and f.is_nan(bits):
        return f.is_nan
    return bits


def wrapped(
    f: Format, op: Bits, ftz: bool = False, sat: bool = False, relu: bool = False
) -> Callable[..., object]:
    def want(*xs: int) -> object:
        if ftz:
            xs = tuple(f.ftz(x) for x in xs)
        r = op(*xs)
        if ftz:
            r = f.ftz(r)
        if relu:
            r = f.relu(r)
        if sat:
            r = f.saturate(r)
        return accept(f, r)

    return want


def both(f: Format, one: Callable[..., object]) -> Callable[..., object]:
    """Of a pair of halves: each by the operation of one."""

    def want(*xs: int) -> object:
        low = one(*(x & 0xFFFF for x in xs))
        high = one(*(x >> 16 for x in xs))
        assert isinstance(low, int) and isinstance(high, int)
        return high << 16 | low

    return want


def pairs(values: Sequence[int], seed: str) -> list[int]:
    rng = random.Random(seed)
    other = list(values)
    rng.shuffle(other)
    return [a << 16 | b for a, b in zip(values, other, strict=False)]


def rounded(f: Format) -> list[Case]:
    """add sub mul fma mad div rcp sqrt in every mode, .ftz and .sat."""
    t = f.name
    ops: list[tuple[str, int, Callable[[str], Bits], bool]] = [
        ("add", 2, lambda m: lambda a, b: f.add(a, b, m), True),
        ("sub", 2, lambda m: lambda a, b: f.sub(a, b, m), True),
        ("mul", 2, lambda m: lambda a, b: f.mul(a, b, m), True),
        ("fma", 3, lambda m: lambda a, b, c: f.fma(a, b, c, m), True),
        ("mad", 3, lambda m: lambda a, b, c: f.fma(a, b, c, m), True),
        ("div", 2, lambda m: lambda a, b: f.div(a, b, m), False),
        ("rcp", 1, lambda m: lambda a: f.div(f.one, a, m), False),
        ("sqrt", 1, lambda m: lambda a: f.sqrt(a, m), False),
    ]
    cases = []
    for name, count, make, sats in ops:
        values = corners(f, 40 if count == 1 else 12) + near(f, 60 if count == 1 else 24)
        for mode in MODES:
            for ftz in (False, True) if f is F32 else (False,):
                for sat in (False, True) if f is F32 and sats else (False,):
                    text = f"{name}.{mode}{'.ftz' * ftz}{'.sat' * sat}.{t}"
                    cases.append(
                        case(
                            text,
                            t,
                            f"{t} " * count,
                            [values] * count,
                            wrapped(f, make(mode), ftz, sat),
                        )
                    )
        if name in ("add", "sub", "mul"):
            cases.append(case(f"{name}.{t}", t, f"{t} {t}", [values] * 2, wrapped(f, make("rn"))))
    # Sums that cancel, and products and sums that lie far apart.
    rng = random.Random(t)
    rows = []
    for _ in range(256):
        a, b = (rng.randrange(f.largest) | f.sign * rng.getrandbits(1) for _ in "ab")
        c = f.mul(a, b) ^ f.sign
        rows.append((a, b, c if f.is_finite(c) else f.one))
    for mode in MODES:
        cases.append(
            Case(
                f"fma.{mode}.{t} {{d}}, {{a}}, {{b}}, {{c}};",
                (t,),
                (t,) * 3,
                rows,
                wrapped(f, lambda a, b, c, m=mode: f.fma(a, b, c, m)),
            )
        )
    return cases


def plain(f: Format) -> list[Case]:
    """abs neg min max copysign testp setp set selp slct mov."""
    t = f.name
    v = corners(f) + near(f, 8)
    cases = [
        case(f"copysign.{t}", t, f"{t} {t}", [v, v], lambda a, b: a & f.sign | b & (f.sign - 1)),
        case(f"selp.{t}", t, f"{t} {t} pred", [v, v, [0, 1]], lambda a, b, p: a if p else b),
        case(f"mov.{t}", t, t, [v], lambda a: a),
        case(
            f"slct.{t}.f32",
            t,
            f"{t} {t} f32",
            [v[:4], v[:4], corners(F32)],
            lambda a, b, c: a if F32.compare("ge", c, 0) else b,
        ),
        case(
            f"slct.{t}.s32",
            t,
            f"{t} {t} s32",
            [v[:6], v[:6], [0, 1, (1 << 32) - 1, 1 << 31]],
            lambda a, b, c: b if c >> 31 else a,
        ),
    ]
    # What abs and neg make of a NaN is left open.
    numbers = [x for x in v if not f.is_nan(x)]
    for ftz in (False, True) if f is F32 else (False,):
        z = ".ftz" * ftz
        cases += [
            case(f"abs{z}.{t}", t, t, [numbers], wrapped(f, lambda a: a & (f.sign - 1), ftz)),
            case(f"neg{z}.{t}", t, t, [numbers], wrapped(f, lambda a: a ^ f.sign, ftz)),
        ]
        for name, op in (("min", f.least), ("max", f.most)):
            for nan in (False, True) if f is F32 else (False,):
                n = ".NaN" * nan
                cases.append(
                    case(
                        f"{name}{z}{n}.{t}",
                        t,
                        f"{t} {t}",
                        [v, v],
                        wrapped(f, lambda a, b, op=op, n=nan: op(a, b, n), ftz),
                    )
                )
    tests: dict[str, Callable[[int], bool]] = {
        "finite": f.is_finite,
        "infinite": f.is_infinite,
        "number": lambda a: not f.is_nan(a),
        "notanumber": f.is_nan,
        "subnormal": f.is_subnormal,
        "normal": lambda a: f.is_finite(a) and not f.is_zero(a) and not f.is_subnormal(a),
    }
    for name, test in tests.items():
        cases.append(case(f"testp.{name}.{t}", "pred", t, [v], lambda a, test=test: int(test(a))))
    return cases + compared(f, t, v)


ORDERS = (
    "eq",
    "ne",
    "lt",
    "le",
    "gt",
    "ge",
    "equ",
    "neu",
    "ltu",
    "leu",
    "gtu",
    "geu",
    "num",
    "nan",
)


def compared(f: Format, t: str, v: list[int]) -> list[Case]:
    cases = []
    half = f.bits == 16
    trues = {"u32": 0xFFFFFFFF, "s32": 0xFFFFFFFF, "f32": F32.one, "f16": F16.one}
    if half:
        trues = {"u16": 0xFFFF, "s16": 0xFFFF, "u32": 0xFFFFFFFF, "s32": 0xFFFFFFFF, t: f.one}
    for how in ORDERS:
        for ftz in (False, True) if f in (F32, F16) else (False,):

            def want(a: int, b: int, how: str = how, ftz: bool = ftz) -> int:
                return int(f.compare(how, f.ftz(a) if ftz else a, f.ftz(b) if ftz else b))

            z = ".ftz" * ftz
            cases.append(case(f"setp.{how}{z}.{t}", "pred", f"{t} {t}", [v, v], want))
            if how in ("lt", "neu"):
                for s, true in trues.items():
                    cases.append(
                        case(
                            f"set.{how}{z}.{s}.{t}",
                            s,
                            f"{t} {t}",
                            [v, v],
                            lambda a, b, w=want, true=true: true * w(a, b),
                        )
                    )
    rows = case("x", "pred", f"{t} {t} pred", [v, v, [0, 1]], lambda: 0).rows
    if not half:
        cases.append(
            Case(
                f"setp.lt.or.{t} {{d}}|{{e}}, {{a}}, {{b}}, {{c}};",
                ("pred", "pred"),
                (t, t, "pred"),
                rows,
                lambda a, b, p: (
                    int(f.compare("lt", a, b)) | p,
                    int(not f.compare("lt", a, b)) | p,
                ),
            )
        )
    cases += [
        Case(
            f"setp.gtu.and.{t} {{d}}, {{a}}, {{b}}, {{c}};",
            ("pred",),
            (t, t, "pred"),
            rows,
            lambda a, b, p: int(f.compare("gtu", a, b)) & p,
        ),
        Case(
            f"set.leu.xor.u32.{t} {{d}}, {{a}}, {{b}}, {{c}};",
            ("u32",),
            (t, t, "pred"),
            rows,
            lambda a, b, p: 0xFFFFFFFF * (int(f.compare("leu", a, b)) ^ p),
        ),
    ]
    return cases


def newer() -> list[Case]:
    """f32 min and max with .xorsign.abs (sm_86) and of three (sm_100); narrow operands (sm_100)."""
    f, t, v = F32, "f32", corners(F32)
    cases = []

    def xorsign(op: Bits) -> Bits:
        def want(a: int, b: int) -> int:
            r = op(a & ~f.sign, b & ~f.sign)
            return r if f.is_nan(r) else r & ~f.sign | (a ^ b) & f.sign

        return want

    for ftz in (False, True):
        for nan in (False, True):
            z = ".ftz" * ftz + ".NaN" * nan
            for name, op in (("min", f.least), ("max", f.most)):

                def two(a: int, b: int, op=op, nan: bool = nan) -> int:  # type: ignore[no-untyped-def]
                    return int(op(a, b, nan))

                cases += [
                    case(
                        f"{name}{z}.xorsign.abs.f32",
                        t,
                        "f32 f32",
                        [v, v],
                        wrapped(f, xorsign(two), ftz),
                    ),
                    case(
                        f"{name}{z}.f32",
                        t,
                        "f32 f32 f32",
                        [v, v, v],
                        wrapped(f, lambda a, b, c, g=two: g(g(a, b), c), ftz),
                    ),
                    case(
                        f"{name}{z}.abs.f32",
                        t,
                        "f32 f32 f32",
                        [v, v, v],
                        wrapped(
                            f,
                            lambda a, b, c, g=two: g(g(a & ~f.sign, b & ~f.sign), c & ~f.sign),
                            ftz,
                        ),
                    ),
                ]
    for h in (F16, BF16):
        hv = corners(h)
        for mode in MODES:
            for sat in (False, True):
                s = ".sat" * sat
                ops: list[tuple[str, str, Bits]] = [
                    ("add", f"{h.name} f32", lambda a, b, m=mode, h=h: f.add(widen(h, a), b, m)),
                    ("sub", f"{h.name} f32", lambda a, b, m=mode, h=h: f.sub(widen(h, a), b, m)),
                    (
                        "fma",
                        f"{h.name} {h.name} f32",
                        lambda a, b, c, m=mode, h=h: f.fma(widen(h, a), widen(h, b), c, m),
                    ),
                ]
                for name, kinds, op in ops:
                    choices = [hv if k != "f32" else v for k in kinds.split()]
                    cases.append(
                        case(
                            f"{name}.{mode}{s}.f32.{h.name}",
                            t,
                            kinds,
                            choices,
                            wrapped(f, op, False, sat),
                        )
                    )
    return cases


def widen(h: Format, x: int) -> int:
    if h.is_nan(x):
        return F32.quiet
    if h.is_infinite(x):
        return F32.infinity | (F32.sign if h.negative(x) else 0)
    return F32.round(h.value(x), "rn", F32.sign if h.negative(x) else 0)


def halves(f: Format) -> list[Case]:
    cases: list[Case] = []
    v = corners(f) + near(f, 24)
    ops: list[tuple[str, int, Bits, tuple[str, ...]]] = [
        ("add", 2, f.add, ("ftz", "sat")),
        ("sub", 2, f.sub, ("ftz", "sat")),
        ("mul", 2, f.mul, ("ftz", "sat")),
        ("fma.rn", 3, f.fma, ("ftz", "sat", "relu")),
        ("min", 2, f.least, ("ftz",)),
        ("max", 2, f.most, ("ftz",)),
        ("min.NaN", 2, lambda a, b: f.least(a, b, True), ("ftz",)),
        ("max.NaN", 2, lambda a, b: f.most(a, b, True), ("ftz",)),
    ]
    for name, op in (("min", f.least), ("max", f.most)):
        for nan in (False, True):

            def xorsign(a: int, b: int, op=op, nan: bool = nan) -> int:  # type: ignore[no-untyped-def]
                r = op(a & 0x7FFF, b & 0x7FFF, nan)
                return int(r if f.is_nan(r) else r & 0x7FFF | (a ^ b) & 0x8000)

            ops.append((f"{name}{'.NaN' * nan}.xorsign.abs", 2, xorsign, ("ftz",)))
    for name, count, op, extras in ops:
        forms: list[tuple[str, ...]] = [(), *((e,) for e in extras)]
        if f is F16 and "sat" in extras:
            forms.append(("ftz", "sat"))
        if f is F16 and "relu" in extras:
            forms.append(("ftz", "relu"))
        if f is BF16:
            forms = [x for x in forms if "ftz" not in x and "sat" not in x]
        for form in forms:
            text = ".".join([name, *form])
            one = wrapped(f, op, *(w in form for w in ("ftz", "sat", "relu")))
            cases += [
                case(f"{text}.{f.name}", f.name, f"{f.name} " * count, [v] * count, one),
                case(
                    f"{text}.{f.name}x2",
                    f"{f.name}x2",
                    f"{f.name}x2 " * count,
                    [pairs(v, text + str(i)) for i in range(count)],
                    both(f, one),
                ),
            ]
    numbers = [x for x in v if not f.is_nan(x)]
    for z in ("", ".ftz") if f is F16 else ("",):
        for name, op in (("neg", lambda a: a ^ 0x8000), ("abs", lambda a: a & 0x7FFF)):
            one = wrapped(f, op, bool(z))
            cases += [
                case(f"{name}{z}.{f.name}", f.name, f.name, [numbers], one),
                case(
                    f"{name}{z}.{f.name}x2",
                    f"{f.name}x2",
                    f"{f.name}x2",
                    [pairs(numbers, name)],
                    both(f, one),
                ),
            ]
    cases += compared(f, f.name, v)
    x2 = f"{f.name}x2"
    p = pairs(v, "setp")
    q = pairs(v, "other")
    for how in ("lt", "neu", "num"):
        cases += [
            Case(
                f"setp.{how}.{x2} {{d}}|{{e}}, {{a}}, {{b}};",
                ("pred", "pred"),
                (x2, x2),
                list(zip(p, q, strict=False)),
                lambda a, b, how=how: (
                    int(f.compare(how, a & 0xFFFF, b & 0xFFFF)),
                    int(f.compare(how, a >> 16, b >> 16)),
                ),
            ),
            case(
                f"set.{how}.{x2}.{x2}",
                x2,
                f"{x2} {x2}",
                [p, q],
                both(f, lambda a, b, how=how: f.one * f.compare(how, a, b)),
            ),
        ]
    return cases


CASES = [c for f in (F32, F64) for c in (*rounded(f), *plain(f))]
CASES += [c for f in (F16, BF16) for c in halves(f)]
NEWER = newer()
