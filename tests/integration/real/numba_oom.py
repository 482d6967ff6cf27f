# SPDX-License-Identifier: GPL-2.0-only
"""Allocates 8 MiB device arrays until the driver refuses; prints what numba said."""

import json

import numpy as np
from numba import cuda
from numba.cuda.cudadrv.driver import CudaAPIError

total = cuda.current_context().get_memory_info().total
kept = []
try:
    while len(kept) < 10_000:
        kept.append(cuda.device_array(8 << 20, dtype=np.uint8))
except CudaAPIError as error:
    said = [type(error).__name__, str(error)]
else:
    said = []
count = len(kept)
kept.clear()
cuda.current_context().deallocations.clear()
free = cuda.current_context().get_memory_info().free
again = cuda.device_array(8 << 20, dtype=np.uint8).nbytes
print(json.dumps({"total": total, "count": count, "said": said, "free": free, "again": again}))
