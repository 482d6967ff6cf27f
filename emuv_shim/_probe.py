# SPDX-License-Identifier: GPL-2.0-only
"""A few driver calls in a process of their own: what `emuv doctor` and `info` ask.

Run as a script, with nothing but the standard library, so that a driver that
crashes or hangs takes only this process with it:

    _probe.py card DRIVER            what cards there are; without emuV
    _probe.py budget VRAM INSIDE     under emuv-run with a cap of VRAM bytes:
                                     INSIDE bytes must be granted, then VRAM
                                     bytes refused, by every route to the driver

One line of JSON on stdout. Numbers named `code` are CUresult.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from collections.abc import Callable
from typing import Any

SUCCESS, OUT_OF_MEMORY, NO_DEVICE = 0, 2, 100
_Function = Callable[..., int]
# export, and the version by which cuGetProcAddress knows it
_NEEDED = {
    "cuInit": ("cuInit", 2000),
    "cuDeviceGet": ("cuDeviceGet", 2000),
    "cuDeviceTotalMem": ("cuDeviceTotalMem_v2", 3020),
    "cuDevicePrimaryCtxRetain": ("cuDevicePrimaryCtxRetain", 7000),
    "cuDevicePrimaryCtxRelease": ("cuDevicePrimaryCtxRelease_v2", 11000),
    "cuCtxSetCurrent": ("cuCtxSetCurrent", 4000),
    "cuMemGetInfo": ("cuMemGetInfo_v2", 3020),
    "cuMemAlloc": ("cuMemAlloc_v2", 3020),
    "cuMemFree": ("cuMemFree_v2", 3020),
}


class DriverCallError(Exception):
    """A call that had to succeed did not."""

    def __init__(self, call: str, code: int) -> None:
        super().__init__(f"{call} failed with code {code}")
        self.code = code


def _must(call: str, code: int) -> None:
    if code != SUCCESS:
        raise DriverCallError(call, code)


def _exports(library: ctypes.CDLL) -> dict[str, _Function]:
    return {name: getattr(library, export) for name, (export, _) in _NEEDED.items()}


def _by_get_proc_address(library: ctypes.CDLL) -> dict[str, _Function]:
    """The same functions, each asked of cuGetProcAddress."""
    prototype = ctypes.CFUNCTYPE(ctypes.c_int)
    found: dict[str, _Function] = {}
    for name, (_, version) in _NEEDED.items():
        pointer, status = ctypes.c_void_p(), ctypes.c_int()
        code = library.cuGetProcAddress_v2(
            name.encode(),
            ctypes.byref(pointer),
            version,
            ctypes.c_uint64(0),
            ctypes.byref(status),
        )
        if code != SUCCESS or not pointer.value:
            raise DriverCallError(f"cuGetProcAddress({name})", code)
        found[name] = prototype(pointer.value)
    return found


ROUTES: dict[str, Callable[[], dict[str, _Function]]] = {
    "by soname": lambda: _exports(ctypes.CDLL("libcuda.so.1")),
    "by absolute path": lambda: _exports(ctypes.CDLL(os.environ["EMUV_DRIVER"])),
    "by cuGetProcAddress": lambda: _by_get_proc_address(ctypes.CDLL("libcuda.so.1")),
}


def _try_budget(cuda: dict[str, _Function], vram: int, inside: int) -> dict[str, Any]:
    device, context = ctypes.c_int(), ctypes.c_void_p()
    free, total, card = ctypes.c_size_t(), ctypes.c_size_t(), ctypes.c_size_t()
    held, beyond = ctypes.c_uint64(), ctypes.c_uint64()
    _must("cuInit", cuda["cuInit"](0))
    _must("cuDeviceGet", cuda["cuDeviceGet"](ctypes.byref(device), 0))
    retain = cuda["cuDevicePrimaryCtxRetain"]
    _must("cuDevicePrimaryCtxRetain", retain(ctypes.byref(context), device))
    try:
        _must("cuCtxSetCurrent", cuda["cuCtxSetCurrent"](context))
        _must("cuDeviceTotalMem", cuda["cuDeviceTotalMem"](ctypes.byref(card), device))
        _must("cuMemGetInfo", cuda["cuMemGetInfo"](ctypes.byref(free), ctypes.byref(total)))
        alloc, give_back = cuda["cuMemAlloc"], cuda["cuMemFree"]
        granted = alloc(ctypes.byref(held), ctypes.c_size_t(inside))
        refused = alloc(ctypes.byref(beyond), ctypes.c_size_t(vram))
        for pointer in (held, beyond):
            if pointer.value:
                give_back(pointer)
    finally:
        cuda["cuDevicePrimaryCtxRelease"](device)
    return {
        "total_bytes": total.value,
        "device_total_bytes": card.value,
        "granted_code": granted,
        "refused_code": refused,
        "ok": granted == SUCCESS and refused == OUT_OF_MEMORY and total.value == card.value == vram,
    }


def _route(name: str, vram: int, inside: int) -> dict[str, Any]:
    row: dict[str, Any] = {"route": name, "ok": False, "problem": None}
    try:
        row.update(_try_budget(ROUTES[name](), vram, inside))
    except (OSError, AttributeError, KeyError, DriverCallError) as error:
        row["problem"] = str(error)
        row["code"] = getattr(error, "code", None)
    return row


def budget(vram: int, inside: int) -> dict[str, Any]:
    """Every route in turn; the caller compares emuV's own count of refusals."""
    return {"routes": [_route(name, vram, inside) for name in ROUTES]}


_UUID_PARTS = ((0, 8), (8, 12), (12, 16), (16, 20), (20, 32))


def card(path: str) -> dict[str, Any]:
    """Version and cards of the driver at `path`; `code` is what cuInit answered.

    A UUID is in hexadecimal with hyphens: CUDA does not say whose, a card's or a MIG
    instance's.
    """
    try:
        cuda = ctypes.CDLL(path)
        code = cuda.cuInit(0)
        version, count = ctypes.c_int(), ctypes.c_int()
        cuda.cuDriverGetVersion(ctypes.byref(version))
        devices = []
        if code == SUCCESS:
            _must("cuDeviceGetCount", cuda.cuDeviceGetCount(ctypes.byref(count)))
        for ordinal in range(count.value):
            device, total = ctypes.c_int(), ctypes.c_size_t()
            name = ctypes.create_string_buffer(256)
            _must("cuDeviceGet", cuda.cuDeviceGet(ctypes.byref(device), ordinal))
            _must("cuDeviceGetName", cuda.cuDeviceGetName(name, 256, device))
            _must("cuDeviceTotalMem", cuda.cuDeviceTotalMem_v2(ctypes.byref(total), device))
            # The second form names an instance of MIG; drivers before it know none.
            uuid = ctypes.create_string_buffer(16)
            of_device = getattr(cuda, "cuDeviceGetUuid_v2", cuda.cuDeviceGetUuid)
            _must("cuDeviceGetUuid", of_device(uuid, device))
            digits = uuid.raw.hex()
            devices.append(
                {
                    "device": ordinal,
                    "name": name.value.decode("utf-8", "replace"),
                    "total_bytes": total.value,
                    "uuid": "-".join(digits[a:b] for a, b in _UUID_PARTS),
                }
            )
    except (OSError, AttributeError, DriverCallError) as error:
        return {"code": getattr(error, "code", None), "problem": str(error), "devices": []}
    return {"code": code, "problem": None, "version": version.value, "devices": devices}


if __name__ == "__main__":
    answer = card(sys.argv[2]) if sys.argv[1] == "card" else budget(*map(int, sys.argv[2:4]))
    print(json.dumps(answer))
