# SPDX-License-Identifier: GPL-2.0-only
"""PyTorch's memory on the simulated GPU: run.py [--save] [MODE…] (tests/runtime/clients.py)."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parents[1])
from tests.runtime.clients import CARD_BYTES, MIB, Client, Mode, main  # noqa: E402

TORCH = Client(
    name="torch",
    folder=HERE,
    libcudart="libcudart.so.13",
    variants={
        "caching": {},
        "cudaMallocAsync": {"PYTORCH_CUDA_ALLOC_CONF": "backend:cudaMallocAsync"},
        "expandable": {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"},
    },
    modes=(
        Mode("plain", None, CARD_BYTES),
        Mode("roomy", ("--vram", "768MiB"), 768 * MIB),
        Mode("tight", ("--vram", "64MiB", "--virtual", "448MiB"), 512 * MIB, spills=True),
        Mode("cap", ("--vram", "192MiB"), 192 * MIB),
    ),
)

if __name__ == "__main__":
    sys.exit(main(TORCH))
