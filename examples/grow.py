# SPDX-License-Identifier: GPL-2.0-only
"""Takes one more piece of GPU memory for every line on stdin, and keeps them all.

    python grow.py MEBIBYTES

An ordinary numba-cuda program. Answers each line with one of its own: how much it
holds, or that it was refused, and what the card says is free. Ends with stdin.
"""

import sys

import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError


def main(piece_bytes: int) -> int:
    """Returns 0 at the end of stdin."""
    piece = np.full(piece_bytes, 0x5A, dtype=np.uint8)
    held = []
    cuda.current_context()
    print("ready", flush=True)
    for _ in sys.stdin:
        try:
            held.append(cuda.to_device(piece))
            word = "holding"
        except (CudaAPIError, MemoryError):
            word = "refused"
        free = cuda.current_context().get_memory_info().free
        print(f"{word} {len(held) * piece_bytes} free {free}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) << 20))
