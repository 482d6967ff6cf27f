# SPDX-License-Identifier: GPL-2.0-only
"""Integer instructions, and what Python's integers make of them.

What the ISA leaves open is held to the hardware's answer: x / 0 is all ones, x % 0 is x.
"""

from __future__ import annotations

from collections.abc import Callable

from ptx_bench import Case, case, signed, width

INTEGERS = ("u16", "s16", "u32", "s32", "u64", "s64")


def mask(bits: int) -> int:
    return (1 << bits) - 1


def corners(kind: str) -> list[int]:
    """Bits where things go wrong."""
    n = width(kind)
    top = 1 << (n - 1)
    return [
        0,
        1,
        2,
        3,
        7,
        top - 1,
        top,
        top + 1,
        mask(n) - 1,
        mask(n),
        0x5A5A5A5A5A5A5A5A & mask(n),
        0x123456789ABCDEF & mask(n),
        0x8000_0000_0001_0000 & mask(n),
        10,
    ]


def value(kind: str, x: int) -> int:
    """The integer that the bits are in the type."""
    n = width(kind)
    return signed(x, n) if kind[0] == "s" else x & mask(n)


def lifted(kind: str, f: Callable[..., int], to: str | None = None) -> Callable[..., int]:
    """f on values of the type, cut to the result's bits."""
    bits = width(to or kind)
    return lambda *xs: f(*(value(kind, x) for x in xs)) & mask(bits)


def trunc_div(a: int, b: int) -> int:
    q = abs(a) // abs(b)
    return q if (a < 0) == (b < 0) else -q


def div(a: int, b: int) -> int:
    return -1 if b == 0 else trunc_div(a, b)


def rem(a: int, b: int) -> int:
    return a if b == 0 else a - b * trunc_div(a, b)


def clamp(x: int, kind: str) -> int:
    n = width(kind)
    low, high = (-(1 << n - 1), (1 << n - 1) - 1) if kind[0] == "s" else (0, mask(n))
    return min(max(x, low), high)


def simple() -> list[Case]:
    cases = []
    for t in INTEGERS:
        n, c = width(t), corners(t)
        two = [c, c]
        three = [c, c, c]
        ops: dict[str, Callable[[int, int], int]] = {
            "add": lambda a, b: a + b,
            "sub": lambda a, b: a - b,
            "mul.lo": lambda a, b: a * b,
            "mul.hi": lambda a, b, n=n: a * b >> n,
            "div": div,
            "rem": rem,
            "min": min,
            "max": max,
        }
        cases += [case(f"{op}.{t}", t, f"{t} {t}", two, lifted(t, f)) for op, f in ops.items()]
        cases += [
            case(f"mad.lo.{t}", t, f"{t} {t} {t}", three, lifted(t, lambda a, b, c: a * b + c)),
            case(
                f"mad.hi.{t}",
                t,
                f"{t} {t} {t}",
                three,
                lifted(t, lambda a, b, c, n=n: (a * b >> n) + c),
            ),
            case(f"sad.{t}", t, f"{t} {t} {t}", three, lifted(t, lambda a, b, c: c + abs(a - b))),
        ]
        if t[0] == "s":
            cases += [
                case(f"abs.{t}", t, t, [c], lifted(t, abs)),
                case(f"neg.{t}", t, t, [c], lifted(t, lambda a: -a)),
            ]
        if n < 64:
            w = f"{t[0]}{2 * n}"
            cases += [
                case(f"mul.wide.{t}", w, f"{t} {t}", two, lifted(t, lambda a, b: a * b, w)),
                case(
                    f"mad.wide.{t}",
                    w,
                    f"{t} {t} {w}",
                    [c, c, corners(w)],
                    lambda a, b, d, t=t, w=w: value(t, a) * value(t, b) + d & mask(width(w)),
                ),
            ]
    c = corners("s32")
    s = "s32"
    cases += [
        case("add.sat.s32", s, "s32 s32", [c, c], lifted(s, lambda a, b: clamp(a + b, s))),
        case("sub.sat.s32", s, "s32 s32", [c, c], lifted(s, lambda a, b: clamp(a - b, s))),
        case(
            "mad.hi.sat.s32",
            s,
            "s32 s32 s32",
            [c, c, c],
            lifted(s, lambda a, b, d: clamp((a * b >> 32) + d, s)),
        ),
        case("min.relu.s32", s, "s32 s32", [c, c], lifted(s, lambda a, b: max(min(a, b), 0))),
        case("max.relu.s32", s, "s32 s32", [c, c], lifted(s, lambda a, b: max(a, b, 0))),
    ]
    for t in ("u32", "s32"):

        def low24(x: int, t: str = t) -> int:
            return signed(x, 24) if t == "s32" else x & mask(24)

        c = [*corners(t), 8388608, 8388607, 16777215, 4278190081]
        for half, shift in (("lo", 0), ("hi", 16)):

            def product(a: int, b: int, f=low24, shift: int = shift) -> int:  # type: ignore[no-untyped-def]
                return f(a) * f(b) >> shift

            cases += [
                case(
                    f"mul24.{half}.{t}",
                    t,
                    f"{t} {t}",
                    [c, c],
                    lambda a, b, p=product: p(a, b) & mask(32),
                ),
                case(
                    f"mad24.{half}.{t}",
                    t,
                    f"{t} {t} {t}",
                    [c, c, c],
                    lambda a, b, d, p=product: p(a, b) + d & mask(32),
                ),
            ]
    cases.append(
        case(
            "mad24.hi.sat.s32",
            s,
            "s32 s32 s32",
            [c, c, corners(s)],
            lambda a, b, d: (
                clamp(signed((signed(a, 24) * signed(b, 24)) >> 16, 32) + signed(d, 32), s)
                & mask(32)
            ),
        )
    )
    return cases


def halves(f: Callable[[int, int], int], sign: bool) -> Callable[[int, int], int]:
    def both(a: int, b: int) -> int:
        out = 0
        for shift in (0, 16):
            x, y = a >> shift & 0xFFFF, b >> shift & 0xFFFF
            if sign:
                x, y = signed(x, 16), signed(y, 16)
            out |= (f(x, y) & 0xFFFF) << shift
        return out

    return both


def packed() -> list[Case]:
    c = [0, 1, 0x80007FFF, 0x7FFF8000, 0xFFFFFFFF, 0x0001FFFF, 0xFFFF0001, 0x12348765, 0x80008000]
    cases = []
    for t in ("u16x2", "s16x2"):
        for op, f in (("add", lambda a, b: a + b), ("min", min), ("max", max)):
            cases.append(case(f"{op}.{t}", t, f"{t} {t}", [c, c], halves(f, t[0] == "s")))
    for op, g in (("min", min), ("max", max)):
        cases.append(
            case(
                f"{op}.relu.s16x2",
                "s16x2",
                "s16x2 s16x2",
                [c, c],
                halves(lambda a, b, g=g: max(g(a, b), 0), True),
            )
        )
    return cases


def bits() -> list[Case]:
    cases = []
    for n in (32, 64):
        b, c = f"b{n}", corners(f"u{n}")
        many = c + [1 << i for i in range(0, n, 5)]
        cases += [
            case(f"popc.{b}", "u32", b, [many], lambda a: a.bit_count()),
            case(f"clz.{b}", "u32", b, [many], lambda a, n=n: n - a.bit_length()),
            case(f"brev.{b}", b, b, [many], lambda a, n=n: int(f"{a:0{n}b}"[::-1], 2)),
        ]
        for t in (f"u{n}", f"s{n}"):

            def top(a: int, t: str = t) -> int:
                v = value(t, a)
                return (~v if v < 0 else v).bit_length() - 1

            cases += [
                case(f"bfind.{t}", "u32", t, [many], lambda a, f=top: f(a) & mask(32)),
                case(
                    f"bfind.shiftamt.{t}",
                    "u32",
                    t,
                    [many],
                    lambda a, f=top, n=n: n - 1 - f(a) if f(a) >= 0 else mask(32),
                ),
            ]
            at = [0, 1, 5, 31, 32, 33, 63, 64, 100, 255, 256]

            def bfe(a: int, pos: int, length: int, t: str = t, n: int = n) -> int:
                pos, length = pos & 255, length & 255
                sign = a >> min(pos + length - 1, n - 1) & 1 if t[0] == "s" and length else 0
                out = 0
                for i in range(n):
                    bit = a >> pos + i & 1 if i < length and pos + i < n else sign
                    out |= bit << i
                return out

            cases.append(case(f"bfe.{t}", t, f"{t} u32 u32", [c, at, at], bfe))

        def bfi(a: int, b_: int, pos: int, length: int, n: int = n) -> int:
            pos, length = pos & 255, length & 255
            for i in range(length):
                if pos + i < n:
                    b_ = b_ & ~(1 << pos + i) | (a >> i & 1 if i < n else 0) << pos + i
            return b_

        cases.append(case(f"bfi.{b}", b, f"{b} {b} u32 u32", [c, c, at, at], bfi))

    def fns(m: int, base: int, offset: int) -> int:
        offset = signed(offset, 32)
        if offset == 0:
            return base if m >> base & 1 else mask(32)
        step = 1 if offset > 0 else -1
        found = [i for i in range(base, 32 if step > 0 else -1, step) if m >> i & 1]
        return found[abs(offset) - 1] if abs(offset) <= len(found) else mask(32)

    base = [0, 1, 7, 16, 30, 31]
    offset = [0, 1, 2, 5, 32, mask(32), mask(32) - 1, mask(32) - 4]
    cases.append(case("fns.b32", "b32", "b32 b32 s32", [corners("u32"), base, offset], fns))
    n32 = [0, 1, 2, 7, 8, 15, 16, 31, 32, 33, 40, 63, 64, mask(32)]
    for mode in ("clamp", "wrap"):

        def amount(x: int, mode: str = mode) -> int:
            return min(x, 32) if mode == "clamp" else x & 31

        cases.append(
            case(
                f"bmsk.{mode}.b32",
                "b32",
                "b32 b32",
                [n32, n32],
                lambda a, b, f=amount: (mask(f(b)) << f(a)) & mask(32),
            )
        )
        for t in ("u32", "s32"):

            def szext(a: int, b: int, f=amount, t: str = t) -> int:  # type: ignore[no-untyped-def]
                k = f(b)
                if k == 0:
                    return 0
                return (signed(a, k) if t == "s32" else a & mask(k)) & mask(32)

            cases.append(case(f"szext.{mode}.{t}", t, f"{t} u32", [corners(t), n32], szext))
    return cases


def dots() -> list[Case]:
    cases = []
    c = [0, 0xFF80017F, 0x80808080, 0x7F7F7F7F, 0xFFFFFFFF, 0x01020304, 0x8000FFFE]
    for at in ("u32", "s32"):
        for bt in ("u32", "s32"):

            def parts(x: int, t: str, n: int) -> list[int]:
                all_ = [x >> i & mask(n) for i in range(0, 32, n)]
                return [signed(p, n) for p in all_] if t == "s32" else all_

            def dp4a(a: int, b: int, d: int, at: str = at, bt: str = bt) -> int:
                return d + sum(
                    x * y for x, y in zip(parts(a, at, 8), parts(b, bt, 8), strict=False)
                ) & mask(32)

            cases.append(case(f"dp4a.{at}.{bt}", "b32", "b32 b32 b32", [c, c, c], dp4a))
            for half in ("lo", "hi"):

                def dp2a(
                    a: int, b: int, d: int, at: str = at, bt: str = bt, half: str = half
                ) -> int:
                    y = parts(b, bt, 8)[2 if half == "hi" else 0 :]
                    return d + sum(p * q for p, q in zip(parts(a, at, 16), y, strict=False)) & mask(
                        32
                    )

                cases.append(case(f"dp2a.{half}.{at}.{bt}", "b32", "b32 b32 b32", [c, c, c], dp2a))
    return cases


def carries() -> list[Case]:
    """Each is a pair of instructions: 2n-bit arithmetic on {b, a} and {f, c}."""
    cases = []
    for t in ("u32", "s32", "u64", "s64"):
        n, c = width(t), corners(t)

        def wide(low: int, high: int, n: int = n) -> int:
            return low | high << n

        def split(x: int, n: int = n) -> tuple[int, int]:
            return x & mask(n), x >> n & mask(n)

        rows = case("", t, f"{t} {t} {t} {t}", [c, c, c, c], lambda: 0).rows
        kinds, results = (t,) * 4, (t, t)
        cases += [
            Case(
                f"add.cc.{t} {{d}}, {{a}}, {{c}};\naddc.{t} {{e}}, {{b}}, {{f}};",
                results,
                kinds,
                rows,
                lambda a, b, x, y, w=wide, s=split: s(w(a, b) + w(x, y)),
            ),
            Case(
                f"sub.cc.{t} {{d}}, {{a}}, {{c}};\nsubc.{t} {{e}}, {{b}}, {{f}};",
                results,
                kinds,
                rows,
                lambda a, b, x, y, w=wide, s=split: s(w(a, b) - w(x, y)),
            ),
            # The carry out of the second step, by a third.
            Case(
                f"add.cc.{t} {{d}}, {{a}}, {{c}};\naddc.cc.{t} {{d}}, {{b}}, {{f}};\n"
                f"addc.{t} {{e}}, 0, 0;",
                results,
                kinds,
                rows,
                lambda a, b, x, y, w=wide, n=n: (
                    (w(a, b) + w(x, y) >> n) & mask(n),
                    w(a, b) + w(x, y) >> 2 * n,
                ),
            ),
            Case(
                f"sub.cc.{t} {{d}}, {{a}}, {{c}};\nsubc.cc.{t} {{d}}, {{b}}, {{f}};\n"
                f"subc.{t} {{e}}, 0, 0;",
                results,
                kinds,
                rows,
                lambda a, b, x, y, w=wide, n=n: (
                    (w(a, b) - w(x, y) >> n) & mask(n),
                    mask(n) * (w(a, b) < w(x, y)),
                ),
            ),
            # {e, d} = a * b + {f, c}
            Case(
                f"mad.lo.cc.{t} {{d}}, {{a}}, {{b}}, {{c}};\n"
                f"madc.hi.{t} {{e}}, {{a}}, {{b}}, {{f}};",
                results,
                kinds,
                rows,
                lambda a, b, x, y, w=wide, s=split, t=t: s(value(t, a) * value(t, b) + w(x, y)),
            ),
            Case(
                f"mad.hi.cc.{t} {{d}}, {{a}}, {{b}}, {{c}};\nmadc.lo.cc.{t} {{d}}, {{a}}, {{b}}, "
                f"{{f}};\naddc.{t} {{e}}, 0, 0;",
                results,
                kinds,
                rows,
                lambda a, b, x, y, t=t, n=n: _two_steps(value(t, a) * value(t, b), x, y, n),
            ),
        ]
    return cases


def _two_steps(product: int, x: int, y: int, n: int) -> tuple[int, int]:
    high, low = product >> n & mask(n), product & mask(n)
    second = low + y + (high + x >> n)
    return second & mask(n), second >> n


CASES = [*simple(), *packed(), *bits(), *dots(), *carries()]
