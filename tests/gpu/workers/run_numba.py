# SPDX-License-Identifier: GPL-2.0-only
"""The worker for numba-cuda."""

from __future__ import annotations

from typing import Any

import _worker
import numpy
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError

OUT_OF_MEMORY = 2  # CUDA_ERROR_OUT_OF_MEMORY
THREADS = 256


@cuda.jit
def start(out, factor, offset):  # type: ignore[no-untyped-def]
    """out[j] = j * factor + offset."""
    at = cuda.grid(1)
    if at < out.size:
        out[at] = numpy.uint32(at) * factor + offset


@cuda.jit
def combine(out, other):  # type: ignore[no-untyped-def]
    """out = out * 3 + other."""
    at = cuda.grid(1)
    if at < out.size:
        out[at] = out[at] * numpy.uint32(3) + other[at]


class Numba(_worker.Stack):
    """numba device arrays of uint32."""

    name = "numba-cuda"

    def make(self, seed: int, words: int) -> Any:
        out = cuda.device_array(words, dtype=numpy.uint32)
        blocks = (words + THREADS - 1) // THREADS
        start[blocks, THREADS](out, numpy.uint32(2 * seed + 1), numpy.uint32(seed))
        return out

    def mix(self, array: Any, other: Any) -> Any:
        combine[(array.size + THREADS - 1) // THREADS, THREADS](array, other)
        return array

    def fetch(self, array: Any) -> Any:
        return array.copy_to_host().data

    def is_oom(self, error: BaseException) -> bool:
        if isinstance(error, CudaAPIError):
            return int(error.code) == OUT_OF_MEMORY
        return type(error).__name__ == "CUDAOutOfMemoryError"  # cuda.core's, in later versions

    def total_bytes(self) -> int | None:
        return int(cuda.current_context().get_memory_info()[1])

    def wait(self) -> None:
        cuda.synchronize()

    def release(self) -> None:
        super().release()
        cuda.current_context().deallocations.clear()


if __name__ == "__main__":
    _worker.main(Numba())
