# SPDX-License-Identifier: GPL-2.0-only
"""CuPy on the simulated GPU, against NumPy."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import cupy as cp
import cupyx.scipy.ndimage
import cupyx.scipy.special
import numpy as np
import scipy.ndimage
import scipy.special
from cupyx import jit

from tests.runtime.checks import MIB, VISIBLE, NotApplicable, main, refused

N = 3000
rng = np.random.default_rng(7)
REAL = rng.uniform(0.1, 4, N)
OTHER = rng.uniform(-3, 3, N)
WHOLE = rng.integers(-100, 100, N)
TABLE = rng.uniform(-1, 1, (37, 53)).astype(np.float32)
REALS = (np.float16, np.float32, np.float64)
INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)
LIMITS = {np.float16: 4e-3, np.float32: 4e-6, np.float64: 1e-12}


def close(got: Any, wanted: Any, limit: float = 1e-6) -> None:
    have, want = cp.asnumpy(got), np.asarray(wanted)
    assert have.shape == want.shape, f"{have.shape} is not {want.shape}"
    np.testing.assert_allclose(have, want, rtol=limit, atol=limit)


def same(got: Any, wanted: Any) -> None:
    have, want = cp.asnumpy(got), np.asarray(wanted)
    assert have.dtype == want.dtype, f"{have.dtype} is not {want.dtype}"
    np.testing.assert_array_equal(have, want)


def both(function: Callable[[Any, Any], Any], *arrays: Any, limit: float = 1e-6) -> None:
    """The same expression, of CuPy's arrays and of NumPy's."""
    close(function(cp, *map(cp.asarray, arrays)), function(np, *arrays), limit)


def check_versions() -> None:
    assert cp.cuda.runtime.runtimeGetVersion() // 1000 == 12
    assert cp.cuda.runtime.driverGetVersion() == 13000
    assert cp.cuda.runtime.getDeviceCount() == 1
    about = cp.cuda.runtime.getDeviceProperties(0)
    assert b"emuV" in about["name"]
    assert about["totalGlobalMem"] == VISIBLE
    assert cp.cuda.Device(0).compute_capability == "80"


# ---- memory ----


def check_copies() -> None:
    for dtype in (*REALS, *INTEGERS, np.bool_, np.complex64, np.complex128):
        host = (WHOLE % 90).astype(dtype).reshape(60, 50)
        same(cp.asarray(host), host)
        same(cp.asarray(host).T, host.T)
        same(cp.asarray(np.asfortranarray(host)), host)


def check_memory_pool() -> None:
    pool = cp.get_default_memory_pool()
    gc.collect()
    pool.free_all_blocks()
    used = pool.used_bytes()
    free = cp.cuda.runtime.memGetInfo()[0]
    held = cp.zeros(8 * MIB, dtype=np.uint8)
    assert pool.used_bytes() == used + 8 * MIB
    assert free - cp.cuda.runtime.memGetInfo()[0] >= 8 * MIB
    del held
    pool.free_all_blocks()
    assert cp.cuda.runtime.memGetInfo()[0] == free


def check_mem_get_info() -> None:
    assert cp.cuda.runtime.memGetInfo()[1] == VISIBLE


def check_out_of_memory() -> None:
    try:
        cp.empty(VISIBLE + 64 * MIB, dtype=np.uint8)
    except cp.cuda.memory.OutOfMemoryError as error:
        words = str(error)
    else:
        raise AssertionError("more than there is was given")
    assert "Out of memory" in words
    same(cp.arange(5), np.arange(5))


def fill(piece: Callable[[int], cp.ndarray]) -> list[cp.ndarray]:
    """At most 12 pieces, until memory is out."""
    held: list[cp.ndarray] = []
    try:
        while len(held) < 12:
            held.append(piece(len(held) + 1))
    except cp.cuda.memory.OutOfMemoryError:
        pass
    return held


def check_fills_what_it_sees() -> None:
    """Pieces of 16 MiB until nothing is left: a kernel writes them, another adds them up."""
    pool = cp.get_default_memory_pool()
    warm = cp.full(4 * MIB, 1, dtype=np.int32)  # modules take a little, once
    assert int(warm.min()) == int(warm.max())
    del warm
    gc.collect()
    # What was loaded earlier is found, and charged, when little is left.
    fill(lambda value: cp.empty(4 * MIB, dtype=np.int32)).clear()
    pool.free_all_blocks()
    free = cp.cuda.runtime.memGetInfo()[0]
    held = fill(lambda value: cp.full(4 * MIB, value, dtype=np.int32))
    assert len(held) >= min(12, free // (16 * MIB) - 1), len(held)
    for i, piece in enumerate(held):
        assert int(piece.min()) == int(piece.max()) == i + 1
    del held, piece
    pool.free_all_blocks()
    after = cp.cuda.runtime.memGetInfo()[0]
    assert after == free, after - free


def check_other_allocators() -> None:
    for allocator in (
        cp.cuda.MemoryPool(cp.cuda.malloc_managed).malloc,
        cp.cuda.MemoryAsyncPool().malloc,
    ):
        with cp.cuda.using_allocator(allocator):
            x = cp.arange(1000, dtype=np.int64)
            assert int((x * 3).sum()) == 3 * 499500


def check_pinned_streams_and_events() -> None:
    host = cp.cuda.alloc_pinned_memory(8 * N)
    view = np.frombuffer(host, np.float64, N)
    view[:] = REAL
    stream, begin, end = cp.cuda.Stream(non_blocking=True), cp.cuda.Event(), cp.cuda.Event()
    with stream:
        begin.record()
        x = cp.empty(N)
        x.set(view, stream=stream)
        y = x * 2
        end.record()
    stream.synchronize()
    close(y, REAL * 2)
    assert cp.cuda.get_elapsed_time(begin, end) >= 0
    seen: list[int] = []
    stream.launch_host_func(seen.append, 5)
    stream.synchronize()
    assert seen == [5]


# ---- elementwise ----


def check_arithmetic() -> None:
    for dtype in REALS:
        a, b = REAL.astype(dtype), OTHER.astype(dtype)
        for function in (
            lambda xp, x, y: x + y * 2 - x / (y * y + 1),
            lambda xp, x, y: xp.maximum(x, y) - xp.minimum(x, y),
            lambda xp, x, y: xp.floor_divide(x, y),
            lambda xp, x, y: -xp.abs(y) + xp.sign(y) + xp.square(x),
        ):
            both(function, a, b, limit=LIMITS[dtype])


def check_functions() -> None:
    for dtype in (np.float32, np.float64):
        a, b = REAL.astype(dtype), OTHER.astype(dtype)
        for name in ("exp", "log", "sqrt", "sin", "cos", "tan", "arctan", "sinh", "cosh", "tanh",
                     "exp2", "log2", "log10", "expm1", "log1p", "cbrt", "reciprocal",
                     "floor", "ceil", "trunc", "rint"):  # fmt: skip
            both(lambda xp, x, n=name: getattr(xp, n)(x), a, limit=2 * LIMITS[dtype])
        both(lambda xp, x, y: xp.arctan2(y, x), a, b, limit=LIMITS[dtype])
        both(lambda xp, x, y: xp.hypot(y, x), a, b, limit=LIMITS[dtype])
        both(lambda xp, x, y: xp.power(x, y), a, b, limit=2e-5 if dtype is np.float32 else 1e-12)
        both(lambda xp, x: xp.arcsin(xp.cos(x)), a, limit=2e-4 if dtype is np.float32 else 1e-12)


def check_integers() -> None:
    for dtype in INTEGERS:
        a, b = WHOLE.astype(dtype), (WHOLE[::-1] % 7 + 1).astype(dtype)
        for function in (
            lambda xp, x, y: x + y * x - y,
            lambda xp, x, y: x // y,
            lambda xp, x, y: x % y,
            lambda xp, x, y: (x & y) | (x ^ y),
            lambda xp, x, y: ~x,
            lambda xp, x, y: xp.left_shift(x, y % 4),
            lambda xp, x, y: xp.gcd(x, y),
            lambda xp, x, y: x > y,
        ):
            same(function(cp, cp.asarray(a), cp.asarray(b)), function(np, a, b))


def check_complex_numbers() -> None:
    for dtype, limit in ((np.complex64, 1e-5), (np.complex128, 1e-12)):
        a = (REAL + 1j * OTHER).astype(dtype)
        both(lambda xp, x: x * x.conj() + x / (x + 1), a, limit=limit)
        both(lambda xp, x: xp.abs(xp.exp(x)) + xp.angle(x), a, limit=10 * limit)


def check_special_values() -> None:
    odd = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, 1e308, -1e-320, 5e-324])
    for name in ("isnan", "isinf", "isfinite", "signbit"):
        same(getattr(cp, name)(cp.asarray(odd)), getattr(np, name)(odd))
    with np.errstate(all="ignore"):
        both(lambda xp, x: xp.nan_to_num(x) * 0 + xp.fmax(x, 0) * 0, odd[:4] * 0)
        same(cp.fmax(cp.asarray(odd), 1.0), np.fmax(odd, 1.0))


def check_casts() -> None:
    for source in (np.float32, np.float64, np.int32, np.uint8, np.int64):
        for target in (*REALS, *INTEGERS, np.bool_):
            host = (WHOLE % 50).astype(source)
            same(cp.asarray(host).astype(target), host.astype(target))


def check_broadcasting_and_views() -> None:
    both(lambda xp, x: x[1::3, ::-2] * 2 + x[1::3, ::-2][:, :1], TABLE)
    both(lambda xp, x: x[:, None, :] - x[None, :, :], TABLE[:9])
    both(lambda xp, x: xp.where(x > 0, x, -x) + xp.clip(x, -0.5, 0.5), TABLE)


# ---- reductions and scans ----


def check_reductions() -> None:
    for name in ("sum", "prod", "min", "max", "mean", "var", "std", "argmin", "argmax"):
        for axis in (None, 0, 1):
            both(lambda xp, x, n=name, a=axis: getattr(xp, n)(x, axis=a), TABLE.astype(np.float64),
                 limit=1e-9)  # fmt: skip
            both(lambda xp, x, n=name, a=axis: getattr(xp, n)(x, axis=a), TABLE, limit=2e-5)
    whole = WHOLE.reshape(60, 50)
    for name in ("sum", "min", "max", "any", "all", "count_nonzero"):
        both(lambda xp, x, n=name: getattr(xp, n)(x, axis=1), whole)
    holes = np.where(TABLE > 0.9, np.nan, TABLE)
    for name in ("nansum", "nanmin", "nanmax", "nanmean"):
        both(lambda xp, x, n=name: getattr(xp, n)(x), holes, limit=2e-5)


def check_large_reduction() -> None:
    x = cp.arange(1 << 20, dtype=np.float64)
    assert float(x.sum()) == float(((1 << 20) - 1) << 19)
    assert int(cp.argmax(x)) == (1 << 20) - 1


def check_scans() -> None:
    both(lambda xp, x: xp.cumsum(x), WHOLE)
    both(lambda xp, x: xp.cumsum(x, axis=1), TABLE, limit=2e-5)
    both(lambda xp, x: xp.cumprod(x), REAL[:50], limit=1e-9)
    both(lambda xp, x: xp.diff(x), REAL)


def check_norms_and_products() -> None:
    both(lambda xp, x: xp.linalg.norm(x), TABLE, limit=1e-5)
    whole = WHOLE[:200].reshape(10, 20)
    both(lambda xp, x: x @ x.T, whole)  # of integers: a kernel of CuPy's own
    both(lambda xp, x: xp.outer(x, x), WHOLE[:30])


# ---- shapes and indices ----


def check_indexing() -> None:
    index = rng.integers(0, 37, 100)
    both(lambda xp, x: x[xp.asarray(index)], TABLE)
    both(lambda xp, x: x[x > 0.2], TABLE)
    both(lambda xp, x: xp.take(x, xp.asarray(index), axis=0), TABLE)
    both(lambda xp, x: xp.stack(xp.nonzero(x > 0.5)), TABLE)
    ours, theirs = cp.asarray(TABLE), TABLE.copy()
    ours[cp.asarray(index[:5]), :3] = 9
    theirs[index[:5], :3] = 9
    ours[ours < 0] = 0
    theirs[theirs < 0] = 0
    same(ours, theirs)


def check_scatter() -> None:
    index = rng.integers(0, 20, 1000)
    import cupyx

    ours, theirs = cp.zeros(20, dtype=np.int32), np.zeros(20, dtype=np.int32)

    cupyx.scatter_add(ours, cp.asarray(index), 2)
    np.add.at(theirs, index, 2)
    same(ours, theirs)
    both(lambda xp, x: xp.bincount(x), index)


def check_shapes() -> None:
    for function in (
        lambda xp, x: xp.concatenate([x, x * 2], axis=1),
        lambda xp, x: xp.stack([x, x + 1]).transpose(2, 0, 1),
        lambda xp, x: xp.pad(x, ((1, 2), (3, 4))),
        lambda xp, x: xp.tile(x, (2, 3))[:, ::5],
        lambda xp, x: xp.repeat(x, 3, axis=0),
        lambda xp, x: xp.roll(xp.flip(x, 0), 5, axis=1),
        lambda xp, x: xp.tril(x[:, :37]) + xp.diag(xp.diag(x[:, :37])),
        lambda xp, x: xp.eye(37, 53) + x,
        lambda xp, x: xp.linspace(0, 1, 37)[:, None] + x,
    ):
        both(function, TABLE)


def check_searches() -> None:
    edges = np.sort(REAL[:40])
    both(lambda xp, x, e: xp.searchsorted(e, x), REAL, edges)
    both(lambda xp, x, e: xp.digitize(x, e), REAL, edges)
    both(lambda xp, x, e: xp.interp(x, e, e * 3), REAL, edges)
    both(lambda xp, x: xp.histogram(x, bins=10)[0], REAL)
    both(lambda xp, x: xp.polyval(x[:4], x), REAL, limit=1e-9)


# ---- SciPy's words ----


def check_special_functions() -> None:
    for name in ("erf", "erfc", "gamma", "gammaln", "digamma", "j0", "j1", "y0", "y1", "i0", "i1",
                 "ndtr", "log_ndtr", "expit", "entr", "k0", "k1", "expi", "rgamma"):  # fmt: skip
        ours = getattr(cupyx.scipy.special, name)(cp.asarray(REAL))
        close(ours, getattr(scipy.special, name)(REAL), 1e-6)
    for name, arguments in (
        ("zeta", (REAL + 1.5, REAL)),
        ("gammainc", (REAL, REAL * 2)),
        ("betainc", (REAL, REAL + 1, np.abs(OTHER) / 3.01)),
        ("xlogy", (REAL, REAL)),
    ):
        ours = getattr(cupyx.scipy.special, name)(*map(cp.asarray, arguments))
        close(ours, getattr(scipy.special, name)(*arguments), 1e-6)


def check_image_filters() -> None:
    for name, options in (
        ("gaussian_filter", {"sigma": 2}),
        ("uniform_filter", {"size": 3}),
        ("median_filter", {"size": 3}),
        ("minimum_filter", {"size": 5}),
        ("percentile_filter", {"percentile": 30, "size": 3}),
        ("sobel", {}),
        ("zoom", {"zoom": 1.5, "order": 1}),
        ("rotate", {"angle": 30, "order": 1}),
        ("spline_filter", {}),
    ):
        ours = getattr(cupyx.scipy.ndimage, name)(cp.asarray(TABLE), **options)
        close(ours, getattr(scipy.ndimage, name)(TABLE, **options), 1e-4)


# ---- the user's kernels ----


def check_elementwise_kernel() -> None:
    kernel = cp.ElementwiseKernel(
        "T x, T y, float64 s", "T z", "T d = x - y; z = d * d + s * i", "distance"
    )
    close(kernel(cp.asarray(REAL), cp.asarray(OTHER), 0.5),
          (REAL - OTHER) ** 2 + 0.5 * np.arange(N), 1e-12)  # fmt: skip


def check_reduction_kernel() -> None:
    kernel = cp.ReductionKernel("T x", "T y", "x * x", "a + b", "y = sqrt(a)", "0", "length")
    close(kernel(cp.asarray(TABLE), axis=1), np.linalg.norm(TABLE, axis=1), 1e-5)


def check_raw_kernel() -> None:
    source = r"""
    extern "C" __global__ void histogram(const int *x, unsigned int *bins, int n)
    {
        __shared__ unsigned int mine[16];
        if (threadIdx.x < 16) mine[threadIdx.x] = 0;
        __syncthreads();
        for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
            atomicAdd(&mine[x[i] & 15], 1u);
        __syncthreads();
        if (threadIdx.x < 16) atomicAdd(&bins[threadIdx.x], mine[threadIdx.x]);
    }
    """
    kernel = cp.RawKernel(source, "histogram")
    bins = cp.zeros(16, dtype=np.uint32)
    kernel((8,), (128,), (cp.asarray(WHOLE.astype(np.int32)), bins, np.int32(N)))
    same(bins, np.bincount(WHOLE & 15, minlength=16).astype(np.uint32))
    assert kernel.attributes["shared_size_bytes"] == 64


def check_raw_module() -> None:
    source = r"""
    __constant__ float weights[4];
    __device__ int calls;
    template <typename T> __global__ void weigh(const T *x, T *y, int n)
    {
        extern __shared__ char room[];
        T *tile = (T *)room;
        int i = blockIdx.x * blockDim.x + threadIdx.x;
        tile[threadIdx.x] = i < n ? x[i] : T(0);
        __syncthreads();
        if (i < n) y[i] = tile[threadIdx.x] * T(weights[i % 4]);
        if (i == 0) atomicAdd(&calls, 1);
    }
    """
    module = cp.RawModule(code=source, options=("-std=c++11",), name_expressions=["weigh<double>"])
    weights = np.array([1, 10, 100, 1000], dtype=np.float32)
    pointer = module.get_global("weights")
    pointer.copy_from_host(weights.ctypes.data, 16)
    x, y = cp.asarray(REAL), cp.empty(N)
    kernel = module.get_function("weigh<double>")
    kernel((N // 128 + 1,), (128,), (x, y, np.int32(N)), shared_mem=128 * 8)
    close(y, REAL * weights[np.arange(N) % 4], 1e-12)
    calls = cp.ndarray((1,), np.int32, module.get_global("calls"))
    assert int(calls[0]) == 1


def check_warp_kernel() -> None:
    source = r"""
    extern "C" __global__ void sums(const float *x, float *y)
    {
        float v = x[blockIdx.x * 32 + threadIdx.x];
        for (int d = 16; d; d /= 2) v += __shfl_down_sync(0xffffffff, v, d);
        if (threadIdx.x == 0) y[blockIdx.x] = v;
        if (__ballot_sync(0xffffffff, threadIdx.x < 5) != 31) y[blockIdx.x] = -1;
    }
    """
    x = REAL[:320].astype(np.float32)
    y = cp.empty(10, dtype=np.float32)
    cp.RawKernel(source, "sums")((10,), (32,), (cp.asarray(x), y))
    close(y, x.reshape(10, 32).sum(1), 1e-5)


def check_fused() -> None:
    @cp.fuse()
    def f(x: Any, y: Any) -> Any:
        return cp.sum(cp.sqrt(x) * y + cp.where(x > y, x, 0.5))

    close(f(cp.asarray(REAL), cp.asarray(OTHER)),
          np.sum(np.sqrt(REAL) * OTHER + np.where(REAL > OTHER, REAL, 0.5)), 1e-10)  # fmt: skip


def check_jit() -> None:
    @jit.rawkernel()
    def scale(x: Any, y: Any, n: Any) -> None:
        i = jit.blockIdx.x * jit.blockDim.x + jit.threadIdx.x
        if i < n:
            y[i] = x[i] * 3 + i

    y = cp.empty(N)
    scale[N // 256 + 1, 256](cp.asarray(REAL), y, N)
    close(y, REAL * 3 + np.arange(N), 1e-12)


def check_vectorized() -> None:
    @cp.vectorize
    def f(x: Any, y: Any) -> Any:
        return x * x if x > y else y - 1

    close(f(cp.asarray(REAL), cp.asarray(OTHER)), np.where(REAL > OTHER, REAL**2, OTHER - 1))


# ---- what is machine code ----


def check_sort() -> None:
    refused("Thrust, machine code only", lambda: cp.sort(cp.asarray(REAL)).get(), Exception)


def check_sort_by_several_keys() -> None:
    cp.lexsort(cp.asarray(TABLE[:2]))
    raise NotApplicable("Thrust, machine code only; CuPy drops the error")


def check_matrix_product_of_reals() -> None:
    refused("cuBLAS, which has a runtime of its own inside",
            lambda: (cp.asarray(TABLE) @ cp.asarray(TABLE.T)).get(), Exception)  # fmt: skip


def check_random() -> None:
    refused("cuRAND, which has a runtime of its own inside", lambda: cp.random.random(10).get(),
            Exception)  # fmt: skip


def check_random_generator() -> None:
    # CuPy does not look whether these were launched: a line on stderr is all there is.
    cp.random.default_rng(1).random(10).get()
    raise NotApplicable("kernels of cuRAND, machine code only; CuPy drops the error")


def check_fft() -> None:
    refused("cuFFT, which has a runtime of its own inside",
            lambda: cp.fft.fft(cp.asarray(REAL)).get(), Exception)  # fmt: skip


def check_solve() -> None:
    refused("cuSOLVER, which has a runtime of its own inside",
            lambda: cp.linalg.solve(cp.eye(4), cp.ones(4)).get(), Exception)  # fmt: skip


def check_lives_on() -> None:
    """After all the refusals above, kernels run as before."""
    close(cp.asarray(REAL) + 1, REAL + 1)


if __name__ == "__main__":
    main(dict(globals()))
