# SPDX-License-Identifier: GPL-2.0-only
"""Dr.Jit, an array language that compiles what was computed to PTX by itself, against NumPy."""

from __future__ import annotations

import drjit as dr
import numpy as np
from checks import MIB, close, main, same
from drjit.cuda import Array3f, Bool, Float, Float16, Float64, Int, Int64, Matrix3f, UInt, UInt64
from drjit.cuda.ad import Float as ADFloat

N = 10_000
rng = np.random.default_rng(5)
real = rng.uniform(0.1, 4, N).astype(np.float32)
other = rng.uniform(-3, 3, N).astype(np.float32)
whole = rng.integers(-1000, 1000, N, dtype=np.int32)


def check_arithmetic() -> None:
    x, y = Float(real), Float(other)
    close(x * y + x / 3 - dr.fma(x, y, 2), real * other + real / 3 - (real * other + 2))
    close(dr.select(x > y, dr.minimum(x, 1), dr.maximum(y, 2)),
          np.where(real > other, np.minimum(real, 1), np.maximum(other, 2)))  # fmt: skip


def check_functions() -> None:
    x, y = Float(real), Float(other)
    for name in ("sin", "cos", "exp", "log", "sqrt", "tan", "tanh", "exp2", "log2"):
        close(getattr(dr, name)(x), getattr(np, name)(real.astype(np.float64)), 2e-6)
    for ours, theirs in (("abs", "abs"), ("floor", "floor"), ("ceil", "ceil"), ("trunc", "trunc")):
        close(getattr(dr, ours)(y), getattr(np, theirs)(other))
    close(dr.atan2(y, x), np.arctan2(other, real), 2e-6)
    close(dr.power(x, 2.5), real.astype(np.float64) ** 2.5, 1e-5)
    close(dr.rcp(x), 1 / real, 2e-6)
    close(dr.rsqrt(x), 1 / np.sqrt(real), 2e-6)


def check_double_precision() -> None:
    x = Float64(real.astype(np.float64))
    close(dr.exp(-x) * dr.sin(x), np.exp(-real.astype(np.float64)) * np.sin(real, dtype=float),
          1e-13)  # fmt: skip


def check_half_precision() -> None:
    x = Float16(real.astype(np.float16))
    close(x * x + x, real.astype(np.float16).astype(float) ** 2 + real.astype(np.float16), 2e-3)


def check_integers() -> None:
    x, y = Int(whole), Int(np.where(whole % 13 == 0, 7, whole % 13))
    b = np.asarray(y)
    same(x * y - (x ^ y), whole * b - (whole ^ b))
    same(x // y, np.trunc(whole / b).astype(np.int32))  # Dr.Jit divides as C does
    same((UInt(x) >> 3) & 0xFF, (whole.view(np.uint32) >> 3) & 0xFF)
    same(dr.popcnt(UInt(x)), [int(v).bit_count() for v in whole.view(np.uint32)])
    same(dr.lzcnt(UInt(x)), [32 - int(v).bit_length() for v in whole.view(np.uint32)])
    wide = UInt64(whole.view(np.uint32)) * 0x9E3779B97F4A7C15
    same(wide, whole.view(np.uint32).astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    same(Int64(x) * Int64(x), whole.astype(np.int64) ** 2)


def check_reductions() -> None:
    x = Float(other)
    close(dr.sum(x), [other.sum(dtype=float)], 1e-4)
    same(dr.max(x), [other.max()])
    same(dr.min(x), [other.min()])
    close(dr.mean(Float64(other)), [other.mean(dtype=float)], 1e-12)
    close(dr.prod(Float64(real[:50])), [np.prod(real[:50], dtype=float)], 1e-10)
    close(dr.dot(x, x), [np.dot(other.astype(float), other)], 1e-4)
    same(dr.all(Bool(real > 0)), [True])
    same(dr.any(Bool(real < 0)), [False])
    same(dr.count(Bool(other > 0)), [int((other > 0).sum())])


def check_prefix_sums_and_blocks() -> None:
    x = UInt(np.abs(whole).astype(np.uint32))
    sums = np.cumsum(np.abs(whole), dtype=np.uint32)
    same(dr.cumsum(x), sums)
    same(dr.prefix_sum(x), np.concatenate([[0], sums[:-1]]))
    same(dr.block_sum(x, 10), np.abs(whole).reshape(-1, 10).sum(1))
    same(dr.compress(Bool(other > 0)), np.flatnonzero(other > 0))


def check_gather_and_scatter() -> None:
    order = rng.permutation(N).astype(np.uint32)
    same(dr.gather(Float, Float(real), UInt(order)), real[order])
    target = dr.zeros(Float, N)
    dr.scatter(target, Float(real), UInt(order))
    wanted = np.zeros(N, np.float32)
    wanted[order] = real
    same(target, wanted)
    bins = dr.zeros(UInt, 16)
    dr.scatter_inc(bins, UInt(order) % 16)
    same(bins, np.bincount(order % 16, minlength=16))
    sums = dr.zeros(Float, 16)
    dr.scatter_reduce(dr.ReduceOp.Add, sums, Float(real), UInt(order) % 16)
    close(sums, np.bincount(order % 16, weights=real, minlength=16), 1e-4)


def check_loop_in_a_kernel() -> None:
    """Collatz: a loop whose threads end at different times."""

    @dr.syntax
    def steps(n: UInt) -> UInt:
        count = UInt(0)
        while n != 1:
            n = dr.select((n & 1) == 0, n // 2, 3 * n + 1)
            count += 1
        return count

    def collatz(n: int) -> int:
        count = 0
        while n != 1:
            n, count = (n // 2 if n % 2 == 0 else 3 * n + 1), count + 1
        return count

    same(steps(dr.arange(UInt, 1, 500)), [collatz(n) for n in range(1, 500)])


def check_functions_called_by_index() -> None:
    index = dr.arange(UInt, N) % 3
    x = Float(real)
    got = dr.switch(index, [lambda v: v * 2, lambda v: dr.sin(v), lambda v: v - 1], x)
    i = np.arange(N) % 3
    close(got, np.choose(i, [real * 2, np.sin(real), real - 1]), 2e-6)


def check_memory_of_a_thread() -> None:
    scratch = dr.alloc_local(UInt, 8, value=dr.zeros(UInt, N))
    i = dr.arange(UInt, N)
    for k in range(8):
        scratch.write(i * k, UInt(i + k) % 8)
    same(scratch.read(UInt(3)), [i * ((3 - i) % 8) for i in range(N)])


def check_vectors_and_matrices() -> None:
    v = Array3f(Float(real), Float(other), 1)
    a = np.stack([real, other, np.ones(N)]).astype(np.float64)
    close(dr.norm(v), np.linalg.norm(a, axis=0), 2e-6)
    m = Matrix3f([[2, 1, 0], [0, 3, 1], [1, 0, 4]])
    close(m @ v, np.array([[2, 1, 0], [0, 3, 1], [1, 0, 4]]) @ a, 2e-6)
    close(dr.cross(v, Array3f(0, 0, 1)), np.cross(a.T, [0, 0, 1]).T, 2e-6)


def check_gradients() -> None:
    x = ADFloat(real)
    dr.enable_grad(x)
    dr.backward(dr.sum(dr.sin(x) * dr.exp(-x)))
    d = real.astype(np.float64)
    close(dr.grad(x), np.exp(-d) * (np.cos(d) - np.sin(d)), 5e-6)


def check_random_numbers() -> None:
    """PCG32, against the same recurrence in Python integers."""
    from drjit.cuda import PCG32

    draw = PCG32(size=4).next_uint32()
    same(draw, dr.gather(UInt, PCG32(size=4).next_uint32(), dr.arange(UInt, 4)))
    u = np.asarray(PCG32(size=100_000).next_float32())
    assert 0 <= u.min() < u.max() < 1
    assert abs(u.mean() - 0.5) < 0.01


def check_more_than_a_small_card_holds() -> None:
    """Eight arrays of 8 MiB, all alive."""
    size = 2 * MIB
    kept = [dr.arange(UInt, size) * (k + 1) for k in range(8)]
    dr.eval(kept)
    total = kept[0]
    for k in kept[1:]:
        total = total + k
    same(total, np.arange(size, dtype=np.uint32) * np.uint32(36))


main(globals())
