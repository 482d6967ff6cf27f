# SPDX-License-Identifier: GPL-2.0-only
"""Kernels for tests: PTX text by hand, and launching it.

    text = entry("fill", "u64 out", "cvta.to.global.u64 d1, out; st.global.u32 [d1], 7;")
    kernel = Kernel(driver, text)                  # the module's first entry
    kernel(1, 32, c_uint64(address))               # grid, block, parameters
    driver.cuCtxSynchronize()

In a body, r0.. are 32-bit registers, d0.. 64-bit ones, f0.. floats, g0.. doubles, p0..
predicates; t, n, b and i are tid.x, ntid.x, ctaid.x and the thread's place in a grid of
one dimension; each parameter's name is a register that holds it.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from ctypes import c_size_t, c_uint64, c_void_p
from typing import Any

from cuda_driver import Driver

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"

_REGISTERS = """
    .reg .pred p<16>; .reg .b32 r<32>; .reg .b64 d<32>; .reg .f32 f<16>; .reg .f64 g<16>;
    .reg .b32 t, n, b, i;
    mov.u32 t, %tid.x; mov.u32 n, %ntid.x; mov.u32 b, %ctaid.x; mad.lo.u32 i, b, n, t;
"""
# out[i] (or of another register) as an address: `at("d1", "out", "i", 4)`.


def at(to: str, base: str, index: str, size: int) -> str:
    """PTX: `to` is the address of element `index` (32 bits) of `base`."""
    return f"mul.wide.u32 {to}, {index}, {size}; add.u64 {to}, {to}, {base};"


def entry(name: str, parameters: str, body: str, before: str = "") -> str:
    """An entry's text; `parameters` as in "u64 out, u32 count", `before`: module scope."""
    pairs = [p.split() for p in parameters.split(",") if p.strip()]
    listed = ", ".join(f".param .{kind} _{name}" for kind, name in pairs)
    loads = "".join(
        f".reg .{kind} {name}; ld.param.{kind} {name}, [_{name}];\n" for kind, name in pairs
    )
    return f"{before}\n.visible .entry {name}({listed})\n{{{_REGISTERS}{loads}{body}\nret;\n}}\n"


def load(driver: Driver, text: str) -> int:
    """A module of PTX text without its head."""
    return driver.new("cuModuleLoadData", (HEAD + text).encode())


class Kernel:
    """One entry of a module of its own, ready to be launched."""

    def __init__(self, driver: Driver, text: str, name: str | None = None) -> None:
        self.driver = driver
        self.module = load(driver, text)
        name = name or text.split(".entry ")[1].split("(")[0]
        self.function = driver.new("cuModuleGetFunction", self.module, name.encode())

    def code(
        self,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        *parameters: Any,
        shared: int = 0,
        stream: int = 0,
        call: str = "cuLaunchKernel",
    ) -> int:
        """Launch with ctypes values as parameters; the launch's CUresult."""
        shape = [*_three(grid), *_three(block), shared, stream]
        held = pointers(parameters)
        extra = [None] if call == "cuLaunchKernel" else []
        return self.driver.code(call, self.function, *shape, held, *extra)

    def __call__(self, *args: Any, **more: Any) -> None:
        code = self.code(*args, **more)
        assert code == 0, self.driver.error_name(code)

    def run(self, *args: Any, **more: Any) -> int:
        """Launch and wait; the CUresult of waiting."""
        self(*args, **more)
        return self.driver.code("cuCtxSynchronize")


def _three(shape: int | Sequence[int]) -> tuple[int, ...]:
    return (shape, 1, 1) if isinstance(shape, int) else tuple(shape)


def pointers(parameters: Sequence[Any]) -> Any:
    """The array of addresses that cuLaunchKernel takes."""
    array = (c_void_p * (len(parameters) + 1))()
    for index, value in enumerate(parameters):
        array[index] = ctypes.addressof(value)
    array.held = parameters  # type: ignore[attr-defined]
    return array


class Memory:
    """Device memory of 32-bit or 64-bit numbers, as a parameter and as a list."""

    def __init__(self, driver: Driver, count: int, kind: Any = ctypes.c_uint32) -> None:
        self.driver, self.count, self.kind = driver, count, kind
        self.size = count * ctypes.sizeof(kind)
        self.address = driver.new("cuMemAlloc_v2", self.size)
        driver.cuMemsetD8_v2(self.address, 0, self.size)

    @property
    def parameter(self) -> c_uint64:
        return c_uint64(self.address)

    def write(self, values: Sequence[Any]) -> None:
        array = (self.kind * self.count)(*values)
        self.driver.cuMemcpyHtoD_v2(self.address, array, self.size)

    def read(self) -> list[Any]:
        array = (self.kind * self.count)()
        self.driver.cuMemcpyDtoH_v2(array, self.address, c_size_t(self.size))
        return list(array)

    def __del__(self) -> None:
        self.driver.code("cuMemFree_v2", self.address)
