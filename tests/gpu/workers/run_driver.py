# SPDX-License-Identifier: GPL-2.0-only
"""The worker for the driver API itself, by ctypes: no package and no kernel.

The one worker that also runs on the simulated GPU: nothing but allocation and copies is asked of
the driver, so `mix` moves bytes instead of adding.
"""

from __future__ import annotations

import ctypes
import sys
from array import array as words_of
from pathlib import Path
from typing import Any

import _worker

sys.path.insert(0, str(Path(__file__).resolve().parents[3] / "benchmarks"))

import _facts_cuda as cu


class Range:
    """Device memory of `size` bytes, freed with the object."""

    def __init__(self, cuda: cu.Cuda, size: int) -> None:
        self._cuda = cuda
        self.size = size
        self.address = cuda.alloc(size)

    def __del__(self) -> None:
        if hasattr(self, "address"):
            self._cuda.code("cuMemFree_v2", self.address)


class DriverApi(_worker.Stack):
    """cuMemAlloc, copies and cuMemFree."""

    name = "driver API"

    def __init__(self) -> None:
        self.cuda = cu.Cuda()
        self.cuda.start()
        self.cuda.retain(0)

    def _put(self, into: Range, data: bytes) -> None:
        self.cuda.call("cuMemcpyHtoD_v2", into.address, data, len(data))

    def make(self, seed: int, words: int) -> Any:
        out = Range(self.cuda, words * 4)
        # 1 Ki words are computed, the rest repeats them: a host loop over all would take minutes
        some = [(j * (2 * seed + 1) + seed) % _worker.WRAP for j in range(min(words, 1024))]
        data = words_of("I", some).tobytes()
        self._put(out, (data * (out.size // len(data) + 1))[: out.size])
        return out

    def mix(self, array: Any, other: Any) -> Any:
        # no kernel: `array` keeps its first half, and takes the other's first half behind it
        half = array.size // 2
        target = array.address + half
        self.cuda.call("cuMemcpyDtoDAsync_v2", target, other.address, half, None)
        self.wait()
        return array

    def fetch(self, array: Any) -> Any:
        host = ctypes.create_string_buffer(array.size)
        self.cuda.call("cuMemcpyDtoH_v2", host, array.address, array.size)
        return host

    def is_oom(self, error: BaseException) -> bool:
        return isinstance(error, cu.CudaError) and error.code == cu.OUT_OF_MEMORY

    def total_bytes(self) -> int | None:
        return self.cuda.memory()[1]

    def wait(self) -> None:
        self.cuda.call("cuCtxSynchronize")


if __name__ == "__main__":
    _worker.main(DriverApi())
