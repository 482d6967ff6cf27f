# SPDX-License-Identifier: GPL-2.0-only
"""numba-cuda device, pinned, mapped and managed arrays, streams and events; prints JSON.

Takes the number of 8 MiB device arrays to keep.  Knows nothing of emuV.
"""

import hashlib
import json
import sys

import numpy as np
from numba import cuda

PIECE = 8 << 20


def digest(array: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()


def main() -> None:
    count = int(sys.argv[1])
    random = np.random.default_rng(7)
    out: dict[str, object] = {}

    pieces = [random.integers(0, 256, PIECE, dtype=np.uint8) for _ in range(count)]
    kept = [cuda.to_device(piece) for piece in pieces]
    out["device"] = [digest(array.copy_to_host()) for array in kept]
    out["sent"] = [digest(piece) for piece in pieces]

    # A copy between device arrays, and a strided view.
    copy = cuda.device_array_like(kept[0])
    copy.copy_to_device(kept[-1])
    out["device_to_device"] = digest(copy.copy_to_host())
    square = np.arange(4096, dtype=np.float64).reshape(64, 64)
    out["fortran"] = digest(cuda.to_device(np.asfortranarray(square)).copy_to_host())
    out["slice"] = digest(cuda.to_device(square)[8:16].copy_to_host())

    stream = cuda.stream()
    begin, end = cuda.event(), cuda.event()
    pinned = cuda.pinned_array(PIECE, dtype=np.uint8)
    pinned[:] = pieces[0]
    begin.record(stream)
    there = cuda.to_device(pinned, stream=stream)
    back = there.copy_to_host(stream=stream)
    end.record(stream)
    stream.synchronize()
    end.synchronize()
    out["pinned"] = digest(back)
    out["elapsed"] = cuda.event_elapsed_time(begin, end) >= 0

    managed = cuda.managed_array(100_000, dtype=np.float32)
    managed[:] = np.arange(100_000, dtype=np.float32)
    out["managed"] = digest(np.asarray(managed))
    mapped = cuda.mapped_array(1000, dtype=np.int32)
    mapped[:] = 42
    out["mapped"] = int(np.asarray(mapped).sum())

    with cuda.pinned(pieces[1]):
        out["registered"] = digest(cuda.to_device(pieces[1]).copy_to_host())
    print(json.dumps(out))


main()
