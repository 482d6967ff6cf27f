# SPDX-License-Identifier: GPL-2.0-only
"""Approximate instructions, held to the error that the ISA allows, against Python's double."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable

from ieee import BF16, F16, F32, F64, Format
from ptx_bench import Case, case
from ptx_float_cases import corners, near, pairs, widen


def f32(x: int) -> float:
    return float(struct.unpack("<f", struct.pack("<I", x))[0])


def f64(x: int) -> float:
    return float(struct.unpack("<d", struct.pack("<Q", x))[0])


def close(
    f: Format,
    exact: Callable[[float], float],
    relative: float,
    absolute: float = 0.0,
    ftz: bool = False,
) -> Callable[..., object]:
    """Within the error, and right where the result is no finite number."""
    decode = f64 if f is F64 else f32

    def value(x: int) -> float:
        if f in (F16, BF16):
            return f32(widen(f, x))
        return decode(x)

    def want(*xs: int) -> object:
        ys = [value(f.ftz(x) if ftz else x) for x in xs]
        try:
            e = exact(*ys)
        except OverflowError:
            e = math.inf
        except (ValueError, ZeroDivisionError):
            e = math.nan

        def right(got: int) -> bool:
            g = value(got)
            if math.isnan(e):
                return math.isnan(g) and (f is F64 or got == f.quiet)
            least = float(f.value(1 << f.fraction))
            if abs(e) < least * 1.01 and ftz and g == 0:
                return True
            slack = abs(e) * relative + absolute + float(f.value(1)) * (not ftz)
            if abs(e) + slack > float(f.value(f.largest)):
                return (math.isinf(g) and (g > 0) == (e > 0)) or abs(g) >= float(
                    f.value(f.largest)
                ) * (1 - relative)
            return abs(g - e) <= slack and (
                g != 0 or e != 0 or math.copysign(1, g) == math.copysign(1, e)
            )

        return right

    return want


def reciprocal(x: float) -> float:
    return math.copysign(math.inf, x) if x == 0 else 1 / x


def log2(x: float) -> float:
    return -math.inf if x == 0 else math.log2(x)


def root(x: float) -> float:
    return x if x == 0 else math.sqrt(x)


def rsqrt(x: float) -> float:
    return math.copysign(math.inf, x) if x == 0 else 1 / math.sqrt(x)


def upper(right: object) -> Callable[[int], bool]:
    """Right, and the lower half zeros."""
    assert callable(right)
    return lambda got: got & 0xFFFFFFFF == 0 and bool(right(got))


def approximate() -> list[Case]:
    v = corners(F32, 80) + near(F32, 100)
    t = "f32"
    circle = [x for x in v if not F32.is_finite(x) or abs(f32(x)) <= math.pi]
    cases = []
    for z in ("", ".ftz"):
        n = bool(z)
        cases += [
            case(f"rcp.approx{z}.f32", t, t, [v], close(F32, reciprocal, 2**-22, ftz=n)),
            case(f"sqrt.approx{z}.f32", t, t, [v], close(F32, root, 2**-22, ftz=n)),
            case(f"rsqrt.approx{z}.f32", t, t, [v], close(F32, rsqrt, 2**-22, ftz=n)),
            case(f"sin.approx{z}.f32", t, t, [circle], close(F32, math.sin, 0, 2**-20.5, n)),
            case(f"cos.approx{z}.f32", t, t, [circle], close(F32, math.cos, 0, 2**-20.5, n)),
            case(f"lg2.approx{z}.f32", t, t, [v], close(F32, log2, 2**-21, 2**-21, n)),
            case(f"ex2.approx{z}.f32", t, t, [v], close(F32, lambda x: 2.0**x, 2**-21, ftz=n)),
        ]
        for kind, error in (("approx", 2**-21), ("full", 2**-21)):
            w = near(F32, 120)
            cases.append(
                case(
                    f"div.{kind}{z}.f32",
                    t,
                    "f32 f32",
                    [w, w],
                    close(F32, lambda a, b: a / b, error, ftz=n),
                )
            )
    cases += [
        case("tanh.approx.f32", t, t, [v], close(F32, math.tanh, 2**-10.9)),
        case(
            "rsqrt.approx.f64",
            "f64",
            "f64",
            [[x for x in corners(F64, 80) + near(F64, 100) if not F64.is_subnormal(x)]],
            close(F64, rsqrt, 2**-22, ftz=True),
        ),
    ]
    for name, op in (("rcp", reciprocal), ("rsqrt", rsqrt)):
        # The lower half of the operand counts for nothing, and comes back as zeros.
        values = [x & ~0xFFFFFFFF for x in corners(F64, 80) + near(F64, 100)]
        check = close(F64, op, 2**-19, ftz=True)
        cases.append(
            case(f"{name}.approx.ftz.f64", "f64", "f64", [values], lambda a, c=check: upper(c(a)))
        )
    for f in (F16, BF16):
        h = corners(f, 60) + near(f, 60)
        z = ".ftz" if f is BF16 else ""
        error = 2**-9.9 if f is F16 else 2**-7
        cases += [
            case(
                f"ex2.approx{z}.{f.name}",
                f.name,
                f.name,
                [h],
                close(f, lambda x: 2.0**x, error, ftz=bool(z)),
            ),
            case(
                f"tanh.approx.{f.name}",
                f.name,
                f.name,
                [h],
                close(f, math.tanh, 2**-8 if f is BF16 else 2**-10.9, 2**-10.9),
            ),
        ]
        for name in (f"ex2.approx{z}", "tanh.approx"):
            # Both halves are what the single form gives: compared by running it too.
            cases.append(
                Case(
                    f"{name}.{f.name}x2 {{d}}, {{a}};\nmov.b32 {{{{l, h}}}}, {{a}};\n"
                    f"{name}.{f.name} l, l;\n{name}.{f.name} h, h;\nmov.b32 {{e}}, {{{{l, h}}}};",
                    ("b32", "b32"),
                    ("b32",),
                    [(x,) for x in pairs(h, name)],
                    lambda a: lambda d, e: d == e,
                    before=".reg .b16 l, h;\n",
                )
            )
    return cases


CASES = approximate()
