# SPDX-License-Identifier: GPL-2.0-only
"""The worker for Triton: its kernels on PyTorch's tensors."""

from __future__ import annotations

from typing import Any

import _worker
import torch
import triton
import triton.language as tl
from run_torch import Torch

BLOCK = 1024


@triton.jit
def start(out, factor, offset, words, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """out[j] = j * factor + offset."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, at * factor + offset, mask=at < words)


@triton.jit
def combine(out, other, words, BLOCK: tl.constexpr):  # type: ignore[no-untyped-def]
    """out = out * 3 + other."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    here = at < words
    mixed = tl.load(out + at, mask=here) * 3 + tl.load(other + at, mask=here)
    tl.store(out + at, mixed, mask=here)


class Triton(Torch):
    """Triton kernels; memory, copies and errors are PyTorch's."""

    name = "triton"

    def make(self, seed: int, words: int) -> Any:
        out = torch.empty(words, dtype=torch.int32, device="cuda")
        start[(triton.cdiv(words, BLOCK),)](out, 2 * seed + 1, seed, words, BLOCK=BLOCK)
        return out

    def mix(self, array: Any, other: Any) -> Any:
        words = array.numel()
        combine[(triton.cdiv(words, BLOCK),)](array, other, words, BLOCK=BLOCK)
        return array


if __name__ == "__main__":
    _worker.main(Triton())
