# SPDX-License-Identifier: GPL-2.0-only
"""Video instructions: words, halves and bytes of a register, by Python's integers."""

from __future__ import annotations

from collections.abc import Callable

from ptx_bench import Case, signed, thinned
from ptx_warp_cases import FULL, mask


def parts(x: int, bits: int, kind: str) -> list[int]:
    all_ = [x >> i & mask(bits) for i in range(0, 32, bits)]
    return [signed(p, bits) for p in all_] if kind == "s32" else all_


def clamp(x: int, bits: int, kind: str) -> int:
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if kind == "s32" else (0, mask(bits))
    return min(max(x, low), high)


def video() -> list[Case]:
    ops: dict[str, Callable[[int, int], int]] = {
        "vadd": lambda a, b: a + b,
        "vsub": lambda a, b: a - b,
        "vabsdiff": lambda a, b: abs(a - b),
        "vmin": min,
        "vmax": max,
    }
    v = [0, 1, 0x7FFFFFFF, 0x80000000, FULL, 0x80FF017F, 0x01807FFE, 0x12345678]
    rows = thinned([v, v, v[:4]], "video")
    kinds = [
        ("u32", "u32", "u32"),
        ("s32", "s32", "s32"),
        ("u32", "s32", "u32"),
        ("s32", "u32", "s32"),
    ]
    cases = []

    def one(name: str, want: Callable[[int, int, int], int], third: bool) -> None:
        text = f"{name} {{d}}, {{a}}, {{b}}" + (", {c};" if third else ";")
        cases.append(Case(text, ("b32",), ("b32",) * 3, rows, want))

    second: dict[str, Callable[[int, int], int]] = {
        "add": lambda t, c: t + c,
        "min": min,
        "max": max,
    }
    for op, f in ops.items():
        for d, at, bt in kinds:
            for sat in (False, True):
                s = ".sat" * sat

                def scalar(a: int, b: int, _: int = 0, f=f, d=d, at=at, bt=bt, sat=sat) -> int:  # type: ignore[no-untyped-def]
                    t = int(f(parts(a, 32, at)[0], parts(b, 32, bt)[0]))
                    return clamp(t, 32, d) & FULL if sat else t & FULL

                one(f"{op}.{d}.{at}.{bt}{s}", scalar, False)
                for o, g in second.items():
                    one(
                        f"{op}.{d}.{at}.{bt}{s}.{o}",
                        lambda a, b, c, h=scalar, g=g, d=d: (
                            g(parts(h(a, b), 32, d)[0], parts(c, 32, d)[0]) & FULL
                        ),
                        True,
                    )
                for bits in (16, 8):

                    def several(
                        a: int, b: int, bits=bits, f=f, d=d, at=at, bt=bt, sat=sat
                    ) -> list[int]:  # type: ignore[no-untyped-def]
                        ts = [
                            f(x, y)
                            for x, y in zip(parts(a, bits, at), parts(b, bits, bt), strict=True)
                        ]
                        return [clamp(t, bits, d) if sat else t for t in ts]

                    name = f"{op}{32 // bits}.{d}.{at}.{bt}{s}"
                    one(
                        name,
                        lambda a, b, c, h=several, n=bits: sum(
                            (t & mask(n)) << i * n for i, t in enumerate(h(a, b))
                        ),
                        True,
                    )
                    if sat:
                        continue
                    one(f"{name}.add", lambda a, b, c, h=several: sum(h(a, b)) + c & FULL, True)
    compare: dict[str, Callable[[int, int], bool]] = {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "ge": lambda a, b: a >= b,
    }
    for how, test in compare.items():
        for at, bt in (("u32", "u32"), ("s32", "s32"), ("s32", "u32")):

            def single(a: int, b: int, _: int = 0, test=test, at=at, bt=bt) -> int:  # type: ignore[no-untyped-def]
                return int(test(parts(a, 32, at)[0], parts(b, 32, bt)[0]))

            one(f"vset.{at}.{bt}.{how}", single, False)
            one(f"vset.{at}.{bt}.{how}.add", lambda a, b, c, h=single: h(a, b) + c & FULL, True)
            for bits in (16, 8):

                def flags(a: int, b: int, bits=bits, test=test, at=at, bt=bt) -> list[int]:  # type: ignore[no-untyped-def]
                    return [
                        int(test(x, y))
                        for x, y in zip(parts(a, bits, at), parts(b, bits, bt), strict=True)
                    ]

                one(
                    f"vset{32 // bits}.{at}.{bt}.{how}",
                    lambda a, b, c, h=flags, n=bits: sum(t << i * n for i, t in enumerate(h(a, b))),
                    True,
                )
                one(
                    f"vset{32 // bits}.{at}.{bt}.{how}.add",
                    lambda a, b, c, h=flags: sum(h(a, b)) + c & FULL,
                    True,
                )
    return cases


CASES = video()
