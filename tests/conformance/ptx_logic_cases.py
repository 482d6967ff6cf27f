# SPDX-License-Identifier: GPL-2.0-only
"""Logic, shifts, permutations, selections and integer comparisons, by Python's integers."""

from __future__ import annotations

from collections.abc import Callable

from ptx_bench import Case, case, signed
from ptx_integer_cases import INTEGERS, corners, mask, value


def logic() -> list[Case]:
    cases = []
    for n in (16, 32, 64):
        b, c = f"b{n}", corners(f"u{n}")
        at = [0, 1, n // 2, n - 1, n, n + 1, 2 * n, 255, 256, mask(32)]
        cases += [
            case(f"and.{b}", b, f"{b} {b}", [c, c], lambda x, y: x & y),
            case(f"or.{b}", b, f"{b} {b}", [c, c], lambda x, y: x | y),
            case(f"xor.{b}", b, f"{b} {b}", [c, c], lambda x, y: x ^ y),
            case(f"not.{b}", b, b, [c], lambda x, n=n: ~x & mask(n)),
            case(f"cnot.{b}", b, b, [c], lambda x: int(x == 0)),
            case(f"shl.{b}", b, f"{b} u32", [c, at], lambda x, k, n=n: (x << min(k, n)) & mask(n)),
        ]
        for t in (b, f"u{n}", f"s{n}"):
            cases.append(
                case(
                    f"shr.{t}",
                    t,
                    f"{t} u32",
                    [c, at],
                    lambda x, k, t=t, n=n: value(t, x) >> min(k, n) & mask(n),
                )
            )
        for t in (b, f"u{n}", f"s{n}"):
            cases += [
                case(
                    f"selp.{t}", t, f"{t} {t} pred", [c, c, [0, 1]], lambda x, y, p: x if p else y
                ),
                case(
                    f"slct.{t}.s32",
                    t,
                    f"{t} {t} s32",
                    [c[:5], c[:5], corners("s32")],
                    lambda x, y, z: x if signed(z, 32) >= 0 else y,
                ),
                case(f"mov.{t}", t, t, [c], lambda x: x),
            ]
    pred = [0, 1]
    cases += [
        case("and.pred", "pred", "pred pred", [pred, pred], lambda a, b: a & b),
        case("or.pred", "pred", "pred pred", [pred, pred], lambda a, b: a | b),
        case("xor.pred", "pred", "pred pred", [pred, pred], lambda a, b: a ^ b),
        case("not.pred", "pred", "pred", [pred], lambda a: 1 - a),
        case("mov.pred", "pred", "pred", [pred], lambda a: a),
        Case(
            "and.pred {d}, {a}, !{b};",
            ("pred",),
            ("pred", "pred"),
            [(0, 0), (0, 1), (1, 0), (1, 1)],
            lambda a, b: a & (1 - b),
        ),
    ]
    a, b_, c_ = 0xF0F0F0F0, 0xCCCCCCCC, 0xAAAAAAAA
    rows = [(a, b_, c_), (0, 0, 0), (0x12345678, 0x9ABCDEF0, 0x0F1E2D3C)]

    def lut(x: int, y: int, z: int, table: int) -> int:
        return sum(
            (table >> (4 * (x >> i & 1) + 2 * (y >> i & 1) + (z >> i & 1)) & 1) << i
            for i in range(32)
        )

    for table in range(0, 256, 1):
        if table % 7 in (0, 3):
            cases.append(
                Case(
                    f"lop3.b32 {{d}}, {{a}}, {{b}}, {{c}}, {table};",
                    ("b32",),
                    ("b32",) * 3,
                    rows,
                    lambda x, y, z, k=table: lut(x, y, z, k),
                )
            )
    for how in ("or", "and"):
        cases.append(
            Case(
                f"lop3.{how}.b32 {{d}}|{{e}}, {{a}}, {{b}}, {{c}}, 0x80, {{f}};",
                ("b32", "pred"),
                ("b32", "b32", "b32", "pred"),
                [(*r, p) for r in rows for p in (0, 1)],
                lambda x, y, z, q, how=how: (
                    x & y & z,
                    int((x & y & z) != 0 or q) if how == "or" else int((x & y & z) != 0 and q),
                ),
            )
        )
    c = corners("u32")
    at = [0, 1, 16, 31, 32, 33, 63, 64, mask(32)]
    for mode in ("clamp", "wrap"):

        def shift(k: int, mode: str = mode) -> int:
            return min(k, 32) if mode == "clamp" else k & 31

        cases += [
            case(
                f"shf.l.{mode}.b32",
                "b32",
                "b32 b32 u32",
                [c, c, at],
                lambda x, y, k, f=shift: (y << 32 | x) << f(k) >> 32 & mask(32),
            ),
            case(
                f"shf.r.{mode}.b32",
                "b32",
                "b32 b32 u32",
                [c, c, at],
                lambda x, y, k, f=shift: (y << 32 | x) >> f(k) & mask(32),
            ),
        ]
    return cases + permutations()


def permutations() -> list[Case]:
    def pick(a: int, b: int, selectors: list[int]) -> int:
        from_ = (b << 32 | a).to_bytes(8, "little")
        out = []
        for s in selectors:
            byte = from_[s & 7]
            out.append((255 if byte & 128 else 0) if s & 8 else byte)
        return int.from_bytes(bytes(out), "little")

    modes: dict[str, list[list[int]]] = {  # the ISA's tables, from selector 0 to 3, byte 0 first
        "f4e": [[0, 1, 2, 3], [1, 2, 3, 4], [2, 3, 4, 5], [3, 4, 5, 6]],
        "b4e": [[0, 7, 6, 5], [1, 0, 7, 6], [2, 1, 0, 7], [3, 2, 1, 0]],
        "rc8": [[0] * 4, [1] * 4, [2] * 4, [3] * 4],
        "ecl": [[0, 1, 2, 3], [1, 1, 2, 3], [2, 2, 2, 3], [3, 3, 3, 3]],
        "ecr": [[0, 0, 0, 0], [0, 1, 1, 1], [0, 1, 2, 2], [0, 1, 2, 3]],
        "rc16": [[0, 1, 0, 1], [2, 3, 2, 3], [0, 1, 0, 1], [2, 3, 2, 3]],
    }
    words = [0x83828180, 0x03020100, 0x77665544, 0xFFEEDDCC, 0]
    picks = [0x3210, 0x7654, 0xFEDC, 0x0000, 0x8421, 0x1B2C, 0xFFFF, 0x123456789 & mask(32)]
    cases = [
        case(
            "prmt.b32",
            "b32",
            "b32 b32 b32",
            [words, words, picks],
            lambda a, b, c: pick(a, b, [c >> s & 15 for s in (0, 4, 8, 12)]),
        )
    ]
    for name, table in modes.items():
        cases.append(
            case(
                f"prmt.b32.{name}",
                "b32",
                "b32 b32 b32",
                [words, words, [0, 1, 2, 3, 4, 7]],
                lambda a, b, c, t=table: pick(a, b, t[c & 3]),
            )
        )
    return cases


def comparisons() -> list[Case]:
    order: dict[str, Callable[[int, int], bool]] = {
        "eq": lambda a, b: a == b,
        "ne": lambda a, b: a != b,
        "lt": lambda a, b: a < b,
        "le": lambda a, b: a <= b,
        "gt": lambda a, b: a > b,
        "ge": lambda a, b: a >= b,
    }
    unsigned = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
    join: dict[str, Callable[[int, int], int]] = {
        "and": lambda p, q: p & q,
        "or": lambda p, q: p | q,
        "xor": lambda p, q: p ^ q,
    }
    cases = []
    for t in (*INTEGERS, "b16", "b32", "b64"):
        names = dict(order)
        if t[0] == "b":
            names = {k: order[k] for k in ("eq", "ne")}
        elif t[0] == "u":
            names |= {k: order[v] for k, v in unsigned.items()}
        c = corners(t)
        for how, f in names.items():

            def want(a: int, b: int, f=f, t=t) -> int:  # type: ignore[no-untyped-def]
                return int(f(value(t, a), value(t, b)))

            cases.append(case(f"setp.{how}.{t}", "pred", f"{t} {t}", [c, c], want))
            for s in ("u32", "s32", "f32"):
                true = 0x3F800000 if s == "f32" else mask(32)
                cases.append(
                    case(
                        f"set.{how}.{s}.{t}",
                        s,
                        f"{t} {t}",
                        [c, c],
                        lambda a, b, w=want, true=true: true * w(a, b),
                    )
                )
        for k, g in join.items():

            def both(a: int, b: int, p: int, g=g, t=t) -> tuple[int, int]:  # type: ignore[no-untyped-def]
                r = int(value(t, a) != value(t, b))
                return g(r, p), g(1 - r, p)

            rows = case("", "pred", f"{t} {t} pred", [c, c, [0, 1]], lambda: 0).rows
            cases += [
                Case(
                    f"setp.ne.{k}.{t} {{d}}|{{e}}, {{a}}, {{b}}, {{c}};",
                    ("pred", "pred"),
                    (t, t, "pred"),
                    rows,
                    both,
                ),
                Case(
                    f"setp.ne.{k}.{t} {{d}}, {{a}}, {{b}}, !{{c}};",
                    ("pred",),
                    (t, t, "pred"),
                    rows,
                    lambda a, b, p, f=both: f(a, b, 1 - p)[0],
                ),
                Case(
                    f"set.ne.{k}.u32.{t} {{d}}, {{a}}, {{b}}, {{c}};",
                    ("u32",),
                    (t, t, "pred"),
                    rows,
                    lambda a, b, p, f=both: mask(32) * f(a, b, p)[0],
                ),
            ]
    return cases


CASES = [*logic(), *comparisons()]
