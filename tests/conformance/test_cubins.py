# SPDX-License-Identifier: GPL-2.0-only
"""Cubins and PTX as NVIDIA's own compiler (NVRTC) makes them."""

from __future__ import annotations

import ctypes
import struct
from collections.abc import Callable, Iterator
from ctypes import byref, c_char_p, c_int, c_size_t, c_uint, c_uint64, c_void_p
from pathlib import Path

import pytest
from cuda_driver import INVALID_IMAGE, NO_BINARY_FOR_GPU, NOT_FOUND, Driver

SOURCE = b"""
struct Pair { int a; double b[3]; char c; };
__device__ Pair pair = {1, {2.5, 3, 4}, 'x'};
__device__ float grid[2][3];
__device__ short list[3] = {1, 2, 3};
__constant__ double fixed = -2.5;
extern "C" int printf(const char *, ...);

extern "C" __global__ void __launch_bounds__(128)
mixed(int *p, unsigned long long t, Pair s, char c, short h, Pair s2)
{
	p[threadIdx.x] = s.a + c + s2.c + pair.a + (int)(t * fixed) + list[h % 3];
	if (p[1] == 7)
		printf("odd { \\" } %d", (int)grid[h & 1][c % 3]);
}
template <class T> __global__ void same(T *out, T value) { out[threadIdx.x] = value; }
template __global__ void same<float>(float *, float);
"""

Compile = Callable[..., bytes]


@pytest.fixture(scope="session")
def nvrtc() -> ctypes.CDLL:
    """The compiler of the nvidia-cuda-nvrtc wheel."""
    nvidia = pytest.importorskip("nvidia", reason="no nvidia-cuda-nvrtc wheel")
    found = [f for p in nvidia.__path__ for f in sorted(Path(p).glob("*/lib/libnvrtc.so.*"))]
    if not found:
        pytest.skip("no libnvrtc")
    return ctypes.CDLL(str(found[0]))


@pytest.fixture(scope="session")
def build(nvrtc: ctypes.CDLL) -> Compile:
    """`build(architecture, *options)`: SOURCE as a cubin (sm_NN) or PTX (compute_NN)."""

    def compile_(architecture: str, *options: str) -> bytes:
        program = c_void_p()
        assert nvrtc.nvrtcCreateProgram(byref(program), SOURCE, b"a.cu", 0, None, None) == 0
        words = [f"--gpu-architecture={architecture}", "-default-device", *options]
        array = (c_char_p * len(words))(*[word.encode() for word in words])
        assert nvrtc.nvrtcCompileProgram(program, len(words), array) == 0
        kind = "CUBIN" if architecture.startswith("sm_") else "PTX"
        size = c_size_t()
        getattr(nvrtc, f"nvrtcGet{kind}Size")(program, byref(size))
        text = ctypes.create_string_buffer(size.value)
        getattr(nvrtc, f"nvrtcGet{kind}")(program, text)
        nvrtc.nvrtcDestroyProgram(byref(program))
        return text.raw

    return compile_


@pytest.fixture(params=["cubin", "cubin -G", "ptx", "ptx -lineinfo", "ptx -G"])
def module(
    driver: Driver, context: int, build: Compile, request: pytest.FixtureRequest
) -> Iterator[int]:
    """SOURCE for this device, loaded."""
    kind, *options = request.param.split()
    capability = f"{driver.attribute(75)}{driver.attribute(76)}"
    image = build(f"{'sm' if kind == 'cubin' else 'compute'}_{capability}", *options)
    handle = driver.new("cuModuleLoadData", image)
    yield handle
    driver.cuModuleUnload(handle)


def test_kernels(driver: Driver, module: int) -> None:
    assert driver.get(c_uint, "cuModuleGetFunctionCount", module) == 2
    driver.new("cuModuleGetFunction", module, b"_Z4sameIfEvPT_S0_")
    mixed = driver.new("cuModuleGetFunction", module, b"mixed")
    assert driver.code("cuModuleGetFunction", byref(c_void_p()), module, b"main") == NOT_FOUND
    found = []
    for index in range(6):
        offset, size = c_size_t(), c_size_t()
        driver.cuFuncGetParamInfo(mixed, index, byref(offset), byref(size))
        found.append((offset.value, size.value))
    assert found == [(0, 8), (8, 8), (16, 40), (56, 1), (58, 2), (64, 40)]
    assert 0 < driver.get(c_int, "cuFuncGetAttribute", 4, mixed) <= 255


@pytest.mark.parametrize(
    ("name", "content"),
    [
        (b"pair", struct.pack("<i4x3dc7x", 1, 2.5, 3, 4, b"x")),
        (b"grid", bytes(24)),
        (b"list", struct.pack("<3h", 1, 2, 3)),
        (b"fixed", struct.pack("<d", -2.5)),
    ],
    ids=["pair", "grid", "list", "fixed"],
)
def test_variables(driver: Driver, module: int, name: bytes, content: bytes) -> None:
    address, size = c_uint64(), c_size_t()
    driver.cuModuleGetGlobal_v2(byref(address), byref(size), module, name)
    assert driver.download(address.value, size.value) == content


def test_a_cubin_for_another_device(driver: Driver, context: int, build: Compile) -> None:
    other = "sm_90" if driver.attribute(75) != 9 else "sm_80"
    code = driver.code("cuModuleLoadData", byref(c_void_p()), build(other))
    assert code == NO_BINARY_FOR_GPU


def test_a_cubin_cut_short(driver: Driver, context: int, build: Compile) -> None:
    image = build(f"sm_{driver.attribute(75)}{driver.attribute(76)}")
    state = c_uint64()
    driver.cuLinkCreate_v2(0, None, None, byref(state))
    for size in (len(image) // 2, 70, 20):
        code = driver.code(
            "cuLinkAddData_v2", state.value, 0, image[:size], size, b"half", 0, None, None
        )
        assert code == INVALID_IMAGE
    driver.cuLinkDestroy(state.value)
