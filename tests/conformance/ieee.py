# SPDX-License-Identifier: GPL-2.0-only
"""Binary floating-point by exact fractions: what instructions are held against.

A value is its bits.  Arithmetic decodes them to a Fraction, computes exactly, and
rounds once, by the definition of each mode; nothing here uses the machine's own
floating point.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt

MODES = ("rn", "rz", "rm", "rp")


@dataclass(frozen=True)
class Format:
    """`fraction` bits after the point, exponents from `low` to `high`."""

    name: str
    bits: int
    fraction: int
    low: int
    high: int
    quiet: int  # the NaN that operations give

    @property
    def sign(self) -> int:
        return 1 << (self.bits - 1)

    @property
    def infinity(self) -> int:
        return (self.sign - 1) >> self.fraction << self.fraction

    @property
    def one(self) -> int:
        return -self.low + 1 << self.fraction

    @property
    def largest(self) -> int:
        return self.infinity - 1

    def is_nan(self, x: int) -> bool:
        return x & (self.sign - 1) > self.infinity

    def is_infinite(self, x: int) -> bool:
        return x & (self.sign - 1) == self.infinity

    def is_finite(self, x: int) -> bool:
        return x & self.infinity != self.infinity

    def is_zero(self, x: int) -> bool:
        return x & (self.sign - 1) == 0

    def is_subnormal(self, x: int) -> bool:
        return not self.is_zero(x) and x & self.infinity == 0

    def negative(self, x: int) -> bool:
        return x & self.sign != 0

    def value(self, x: int) -> Fraction:
        """Of a finite number."""
        exponent = (x & self.infinity) >> self.fraction
        significand = x & ((1 << self.fraction) - 1)
        if exponent:
            significand += 1 << self.fraction
        shift = max(exponent, 1) - 1 + self.low - self.fraction
        magnitude = Fraction(significand) * Fraction(2) ** shift
        return -magnitude if self.negative(x) else magnitude

    def ftz(self, x: int) -> int:
        return x & self.sign if self.is_subnormal(x) else x

    def round(self, exact: Fraction, mode: str = "rn", zero: int = 0) -> int:
        """`zero` is the sign bit of an exact zero."""
        if exact == 0:
            return zero
        sign = self.sign if exact < 0 else 0
        magnitude = abs(exact)
        exponent = magnitude.numerator.bit_length() - magnitude.denominator.bit_length()
        if Fraction(2) ** exponent > magnitude:
            exponent -= 1
        quantum = Fraction(2) ** (max(exponent, self.low) - self.fraction)
        units, rest = divmod(magnitude, quantum)
        up = {
            "rn": rest * 2 > quantum or (rest * 2 == quantum and units % 2 == 1),
            "rna": rest * 2 >= quantum,
            "rz": False,
            "rm": bool(rest) and sign != 0,
            "rp": bool(rest) and sign == 0,
        }[mode]
        rounded = (units + up) * quantum
        if rounded > self.value(self.largest):
            inward = mode == "rz" or (mode == "rm" and not sign) or (mode == "rp" and sign)
            return sign | (self.largest if inward else self.infinity)
        scaled = rounded / Fraction(2) ** (self.low - self.fraction)
        significand = int(scaled)
        if significand < 1 << self.fraction:
            return sign | significand
        shift = significand.bit_length() - 1 - self.fraction
        return sign | (shift + 1 << self.fraction) + (significand >> shift) - (1 << self.fraction)

    # ---- operations ----

    def fma(self, a: int, b: int, c: int, mode: str = "rn") -> int:
        if self.is_nan(a) or self.is_nan(b) or self.is_nan(c):
            return self.quiet
        sign = (a ^ b) & self.sign
        if self.is_infinite(a) or self.is_infinite(b):
            if self.is_zero(a) or self.is_zero(b):
                return self.quiet
            if self.is_infinite(c) and c & self.sign != sign:
                return self.quiet
            return sign | self.infinity
        if self.is_infinite(c):
            return c
        exact = self.value(a) * self.value(b) + self.value(c)
        product_is_zero = self.is_zero(a) or self.is_zero(b)
        if sign == c & self.sign and ((product_is_zero and self.is_zero(c)) or exact == 0):
            zero = sign
        else:
            zero = self.sign if mode == "rm" else 0
        return self.round(exact, mode, zero)

    def add(self, a: int, b: int, mode: str = "rn") -> int:
        return self.fma(a, self.one, b, mode)

    def sub(self, a: int, b: int, mode: str = "rn") -> int:
        return self.add(a, b ^ self.sign, mode)

    def mul(self, a: int, b: int, mode: str = "rn") -> int:
        if self.is_nan(a) or self.is_nan(b):
            return self.quiet
        sign = (a ^ b) & self.sign
        if self.is_infinite(a) or self.is_infinite(b):
            return self.quiet if self.is_zero(a) or self.is_zero(b) else sign | self.infinity
        return self.round(self.value(a) * self.value(b), mode, sign)

    def div(self, a: int, b: int, mode: str = "rn") -> int:
        if self.is_nan(a) or self.is_nan(b):
            return self.quiet
        sign = (a ^ b) & self.sign
        if self.is_infinite(a):
            return self.quiet if self.is_infinite(b) else sign | self.infinity
        if self.is_infinite(b):
            return sign
        if self.is_zero(b):
            return self.quiet if self.is_zero(a) else sign | self.infinity
        return self.round(self.value(a) / self.value(b), mode, sign)

    def sqrt(self, a: int, mode: str = "rn") -> int:
        if self.is_nan(a) or (self.negative(a) and not self.is_zero(a)):
            return self.quiet
        if self.is_zero(a) or self.is_infinite(a):
            return a
        exact = self.value(a)
        # Enough bits that the root's own tail only says whether there is one.
        scale = 2 * (self.fraction + 8 + max(0, -exact.numerator.bit_length())) + 2048
        scaled = exact * 4**scale
        root = isqrt(scaled.numerator // scaled.denominator)
        tail = Fraction(root) ** 2 != scaled
        return self.round((Fraction(root) + Fraction(1, 2) * tail) / 2**scale, mode)

    def less(self, a: int, b: int) -> bool:
        """In the order of min and max: -0 below +0.  No NaN."""

        def key(x: int) -> int:
            magnitude = x & (self.sign - 1)
            return -magnitude - 1 if self.negative(x) else magnitude

        return key(a) < key(b)

    def least(self, a: int, b: int, nan: bool = False) -> int:
        if self.is_nan(a) or self.is_nan(b):
            if nan or (self.is_nan(a) and self.is_nan(b)):
                return self.quiet
            return b if self.is_nan(a) else a
        return a if self.less(a, b) else b

    def most(self, a: int, b: int, nan: bool = False) -> int:
        if self.is_nan(a) or self.is_nan(b):
            return self.least(a, b, nan)
        return b if self.less(a, b) else a

    def saturate(self, a: int) -> int:
        """To [0, 1]; NaN to +0."""
        if self.is_nan(a) or self.negative(a) or self.is_zero(a):
            return 0
        return a if a < self.one else self.one

    def relu(self, a: int) -> int:
        return self.quiet if self.is_nan(a) else 0 if self.negative(a) else a

    def compare(self, how: str, a: int, b: int) -> bool:
        if self.is_nan(a) or self.is_nan(b):
            return how.endswith("u") or how == "nan"
        if how in ("num", "nan"):
            return how == "num"
        order = 0
        if not (self.is_zero(a) and self.is_zero(b)) and a != b:
            order = -1 if self.less(a, b) else 1
        return {
            "eq": order == 0,
            "ne": order != 0,
            "lt": order < 0,
            "le": order <= 0,
            "gt": order > 0,
            "ge": order >= 0,
        }[how.removesuffix("u") if how != "equ" and how != "neu" else how[:2]]


F16 = Format("f16", 16, 10, -14, 15, 0x7FFF)
BF16 = Format("bf16", 16, 7, -126, 127, 0x7FFF)
F32 = Format("f32", 32, 23, -126, 127, 0x7FFFFFFF)
TF32 = Format("tf32", 19, 10, -126, 127, 0x3FFFF)
F64 = Format("f64", 64, 52, -1022, 1023, 0x7FF8 << 48)
FORMATS = {f.name: f for f in (F16, BF16, F32, F64)}


def convert(x: int, of: Format, to: Format, mode: str = "rn") -> int:
    """A number of one format in another."""
    if of.is_nan(x):
        return to.quiet
    sign = to.sign if of.negative(x) else 0
    if of.is_infinite(x):
        return sign | to.infinity
    return to.round(of.value(x), mode, sign)


def whole(x: int, of: Format, mode: str) -> int:
    """A finite number as an integer, by rni, rzi, rmi, rpi."""
    exact = of.value(x)
    floor = exact.numerator // exact.denominator
    rest = exact - floor
    if mode == "rmi" or rest == 0:
        return floor
    if mode == "rpi":
        return floor + 1
    if mode == "rzi":
        return floor + (exact < 0)
    return floor + (rest > Fraction(1, 2) or (rest == Fraction(1, 2) and floor % 2 == 1))
