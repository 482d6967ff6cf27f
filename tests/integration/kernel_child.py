# SPDX-License-Identifier: GPL-2.0-only
"""For programs of tests that run kernels of their own: PTX, launches."""

from __future__ import annotations

import ctypes
from typing import Any

from tests.integration.shim_child import *  # noqa: F403
from tests.integration.shim_child import Driver, byref, c_uint64

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
REGISTERS = ".reg .b32 %r<20>; .reg .b64 %rd<20>; .reg .pred %p<9>; .reg .f32 %f<9>;\n"
FOREVER = "X: bra X;"


def entry(body: str, declared: str = "") -> str:
    """A kernel `k` of one 64-bit parameter, which is in %rd1."""
    return (
        f"{HEAD}{declared}\n.visible .entry k(.param .u64 p)\n{{\n{REGISTERS}"
        f"ld.param.u64 %rd1, [p];\n{body}\nret;\n}}\n"
    )


def function(d: Driver, text: str) -> int:
    """The kernel `k` of a PTX text."""
    return d.new("cuModuleGetFunction", d.new("cuModuleLoadData", text.encode() + b"\0"), b"k")


def launch(
    d: Driver, kernel: int, value: int = 0, grid: int = 1, block: int = 1, **more: Any
) -> int:
    """What cuLaunchKernel answers."""
    argument = c_uint64(value)
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(argument))
    return d.code(
        "cuLaunchKernel", kernel, grid, 1, 1, block, 1, 1,
        more.get("shared", 0), more.get("stream"), pointers, None,
    )  # fmt: skip


def run(d: Driver, kernel: int, value: int = 0, **more: Any) -> list[int]:
    """[what the launch answered, what waiting for it did]."""
    return [launch(d, kernel, value, **more), d.code("cuCtxSynchronize")]


def counting(turns: int) -> str:
    """A kernel that counts, and then writes where it stopped."""
    return entry(
        "mov.u32 %r1, 0;\nX: add.u32 %r1, %r1, 1;\n"
        f"setp.lt.u32 %p1, %r1, {turns};\n@%p1 bra X;\nst.global.u32 [%rd1], %r1;"
    )


__all__ = [name for name in dir() if not name.startswith("__")] + ["byref"]
