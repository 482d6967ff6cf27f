# SPDX-License-Identifier: GPL-2.0-only
"""All that tells how much memory there is, in one process: `reports.py [LIBCUDART…]`."""

import ctypes
import json
import sys
from ctypes import byref, c_size_t

import pynvml
from cuda.bindings import driver
from numba import cuda

MIB = 1 << 20
TOTAL_AT = 288  # of totalGlobalMem in cudaDeviceProp


def runtime(name: str) -> list[list[int]]:
    rt = ctypes.CDLL(name)
    free, total, properties = c_size_t(), c_size_t(), ctypes.create_string_buffer(4096)
    assert rt.cudaMemGetInfo(byref(free), byref(total)) == 0
    call = getattr(rt, "cudaGetDeviceProperties_v2", rt.cudaGetDeviceProperties)
    assert call(properties, 0) == 0
    of_properties = int.from_bytes(properties.raw[TOTAL_AT : TOTAL_AT + 8], "little")
    return [[free.value, total.value], [of_properties]]


def reports() -> dict[str, list[int]]:
    """[free, total], or [total], by who says it."""
    memory = cuda.current_context().get_memory_info()
    raw = ctypes.CDLL("libcuda.so.1")
    free, total, whole = c_size_t(), c_size_t(), c_size_t()
    raw.cuMemGetInfo_v2(byref(free), byref(total))
    raw.cuDeviceTotalMem_v2(byref(whole), 0)
    shown = pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0))
    found = {
        "cuMemGetInfo": [free.value, total.value],
        "cuDeviceTotalMem": [whole.value],
        "numba": [memory.free, memory.total],
        "cuda-bindings": [int(value) for value in driver.cuMemGetInfo()[1:]],
        "cuda-bindings, total": [int(driver.cuDeviceTotalMem(0)[1])],
        "NVML": [shown.free, shown.total],
    }
    for name in sys.argv[1:]:
        found[name], found[f"{name}, properties"] = runtime(name)
    return found


def attributes() -> list[list[int]]:
    raw, value = ctypes.CDLL("libcuda.so.1"), ctypes.c_int()
    return [
        [number, raw.cuDeviceGetAttribute(byref(value), number, 0), value.value]
        for number in range(1, 146)
    ]


cuda.current_context()
pynvml.nvmlInit()
first = reports()
kept = [cuda.device_array(40 * MIB, dtype="u1") for _ in range(2)]
print(json.dumps({"first": first, "then": reports(), "attributes": attributes()}))
