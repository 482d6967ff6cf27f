# SPDX-License-Identifier: GPL-2.0-only
"""Loads files onto the GPU in pieces, keeps every piece there, and reads them back.

    python stream_file.py FILE…

An ordinary numba-cuda program. Prints how much it loaded, what the card said about
its memory then, and the SHA-256 of what was read from the files and of what came
back from the GPU. Where the card is too small, numba's exception ends it.
"""

import hashlib
import sys

import numpy as np
from numba import cuda

PIECE_BYTES = 16 << 20


def main(paths: list[str]) -> int:
    """Returns 0 where what came back is what was sent."""
    sent, received = hashlib.sha256(), hashlib.sha256()
    pieces = []
    for path in paths:
        with open(path, "rb") as file:
            while data := file.read(PIECE_BYTES):
                sent.update(data)
                pieces.append(cuda.to_device(np.frombuffer(data, dtype=np.uint8)))
    free, total = cuda.current_context().get_memory_info()
    for piece in pieces:
        received.update(piece.copy_to_host())
    print(f"bytes: {sum(piece.nbytes for piece in pieces)}")
    print(f"memory free: {free}")
    print(f"memory total: {total}")
    print(f"sha256 sent: {sent.hexdigest()}")
    print(f"sha256 received: {received.hexdigest()}")
    return 0 if sent.digest() == received.digest() else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
