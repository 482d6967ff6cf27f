# SPDX-License-Identifier: GPL-2.0-only
"""The worker for PyTorch; its allocator is chosen by PYTORCH_ALLOC_CONF, as users do it."""

from __future__ import annotations

from typing import Any

import _worker
import torch


class Torch(_worker.Stack):
    """torch.int32 tensors on cuda:0."""

    name = "torch"

    def make(self, seed: int, words: int) -> Any:
        out = torch.arange(words, dtype=torch.int32, device="cuda")
        return out.mul_(2 * seed + 1).add_(seed)

    def mix(self, array: Any, other: Any) -> Any:
        return array.mul_(3).add_(other)

    def fetch(self, array: Any) -> Any:
        return array.cpu().numpy().data

    def is_oom(self, error: BaseException) -> bool:
        return isinstance(error, torch.cuda.OutOfMemoryError)

    def total_bytes(self) -> int | None:
        return int(torch.cuda.mem_get_info()[1])

    def wait(self) -> None:
        torch.cuda.synchronize()

    def allocator(self) -> str | None:
        backend = str(torch.cuda.get_allocator_backend())
        if backend != "native":
            return backend
        # asked of the segments themselves: some versions ignore the setting in silence
        grows = any(segment.get("is_expandable") for segment in torch.cuda.memory_snapshot())
        return "native, expandable segments" if grows else "native"

    def release(self) -> None:
        super().release()
        torch.cuda.empty_cache()


if __name__ == "__main__":
    _worker.main(Torch())
