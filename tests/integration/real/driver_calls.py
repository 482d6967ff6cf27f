# SPDX-License-Identifier: GPL-2.0-only
"""The driver API through cuda-bindings: every allocation route once; prints JSON.

Takes the MiB of each allocation.  Knows nothing of emuV.
"""

import hashlib
import json
import sys

import numpy as np
from cuda.bindings import driver as cu


def call(function, *args):
    """The function's values; its error, if any, as an exception that names both."""
    error, *values = function(*args)
    if error != cu.CUresult.CUDA_SUCCESS:
        raise RuntimeError(f"{function.__name__}: {error.name}")
    return values[0] if len(values) == 1 else values


def round_trip(address: int, data: np.ndarray, stream: object) -> str:
    """Digest of what comes back of `data` from device memory at `address`."""
    back = np.zeros_like(data)
    call(cu.cuMemcpyHtoDAsync, address, data.ctypes.data, data.nbytes, stream)
    call(cu.cuMemcpyDtoHAsync, back.ctypes.data, address, data.nbytes, stream)
    call(cu.cuStreamSynchronize, stream)
    return hashlib.sha256(back.tobytes()).hexdigest()


def main() -> None:
    size = int(sys.argv[1]) << 20
    data = np.random.default_rng(3).integers(0, 256, size, dtype=np.uint8)
    out: dict[str, object] = {"sent": hashlib.sha256(data.tobytes()).hexdigest()}

    call(cu.cuInit, 0)
    device = call(cu.cuDeviceGet, 0)
    call(cu.cuCtxSetCurrent, call(cu.cuDevicePrimaryCtxRetain, device))
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
    free_before, total = call(cu.cuMemGetInfo)
    out["free"], out["total"] = free_before, total
    out["device_total"] = call(cu.cuDeviceTotalMem, device)

    plain = call(cu.cuMemAlloc, size)
    out["plain"] = round_trip(plain, data, stream)
    pitched, pitch = call(cu.cuMemAllocPitch, 1000, size // 1024, 4)
    out["pitch"] = pitch
    managed = call(cu.cuMemAllocManaged, size, 1)
    out["managed"] = round_trip(managed, data, stream)
    ordered = call(cu.cuMemAllocAsync, size, stream)
    out["ordered"] = round_trip(ordered, data, stream)
    pool = call(cu.cuDeviceGetDefaultMemPool, device)
    pooled = call(cu.cuMemAllocFromPoolAsync, size, pool, stream)
    out["pooled"] = round_trip(pooled, data, stream)

    call(cu.cuMemsetD8Async, plain, 7, size, stream)
    call(cu.cuStreamSynchronize, stream)  # the NULL stream does not wait for this one
    back = np.zeros(size, np.uint8)
    call(cu.cuMemcpyDtoH, back.ctypes.data, plain, size)
    out["set"] = bool((back == 7).all())

    # The driver's own errors stay its own.
    errors = []
    for function, *args in (
        (cu.cuMemAlloc, 0),
        (cu.cuMemFree, 12345),
        (cu.cuMemAllocManaged, size, 9),
        (cu.cuMemAllocPitch, 100, 100, 3),
        (cu.cuMemAlloc, 1 << 50),
    ):
        try:
            call(function, *args)
        except RuntimeError as error:
            errors.append(str(error))
        else:
            errors.append("no error")
    out["errors"] = errors

    call(cu.cuMemFreeAsync, ordered, stream)
    call(cu.cuMemFreeAsync, pooled, stream)
    call(cu.cuStreamSynchronize, stream)
    for address in (plain, pitched, managed):
        call(cu.cuMemFree, address)
    # A pool gives back what it kept; then all that was free is free again.
    call(cu.cuMemPoolTrimTo, pool, 0)
    out["given_back"] = call(cu.cuMemGetInfo)[0] == free_before
    print(json.dumps(out))


main()
