# SPDX-License-Identifier: GPL-2.0-only
"""The worker for CuPy."""

from __future__ import annotations

from typing import Any

import _worker
import cupy


class Cupy(_worker.Stack):
    """cupy.int32 arrays in the default memory pool."""

    name = "cupy"

    def make(self, seed: int, words: int) -> Any:
        out = cupy.arange(words, dtype=cupy.int32)
        out *= cupy.int32(2 * seed + 1)
        out += cupy.int32(seed)
        return out

    def mix(self, array: Any, other: Any) -> Any:
        array *= cupy.int32(3)
        array += other
        return array

    def fetch(self, array: Any) -> Any:
        return cupy.asnumpy(array).data

    def is_oom(self, error: BaseException) -> bool:
        return isinstance(error, cupy.cuda.memory.OutOfMemoryError)

    def total_bytes(self) -> int | None:
        return int(cupy.cuda.runtime.memGetInfo()[1])

    def wait(self) -> None:
        cupy.cuda.Device().synchronize()

    def release(self) -> None:
        super().release()
        cupy.get_default_memory_pool().free_all_blocks()


if __name__ == "__main__":
    _worker.main(Cupy())
