# SPDX-License-Identifier: GPL-2.0-only
"""What the simulated GPU makes of cubins and fat binaries."""

from __future__ import annotations

import os
import random
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Compiler, run
from tests.integration.gpu_images import CUBIN, LZ4, PTX, ZSTD, Kernel, cubin, fatbin, lz4, member
from tests.integration.gpu_images import zstd as zstd_pack
from tests.integration.shim_tools import run_child

TEXT = b"\n" * 400 + b""".version 8.0
.target sm_80
.address_size 64
.visible .entry from_ptx(.param .u64 p, .param .u32 n) { ret; }
"""
CODE = cubin(Kernel("from_cubin", [(0, 8), (8, 24), (32, 2)], shared=96), Kernel("other"))
NO_BINARY, INVALID_IMAGE, NOT_FOUND = 209, 200, 500
Load = Callable[..., dict[str, object]]

CHILD = """
    d = started()
    module = c_uint64()
    with open({path!r}, "rb") as file:
        data = file.read()
    code = d.code("cuModuleLoadData", byref(module), data)
    names, layout = [], []
    for name in ({name!r} if not code else []):
        names.append(d.code("cuModuleGetFunction", byref(c_uint64()), module, name))
    if not code and not any(names):
        function = d.new("cuModuleGetFunction", module, {name!r}[0])
        offset, size = c_size_t(), c_size_t()
        while not d.code("cuFuncGetParamInfo", function, len(layout), byref(offset), byref(size)):
            layout.append([offset.value, size.value])
        shared = d.get(c_int, "cuFuncGetAttribute", 1, function)
        layout.append(shared)
    answer(code=code, names=names, layout=layout)
"""


@pytest.fixture
def load(sim_env: dict[str, str], tmp_path: Path) -> Load:
    """`load(image, *names)`: the load's code, each look-up's, the first's parameters."""

    def load_(image: bytes, *names: str, **env: str) -> dict[str, object]:
        path = tmp_path / "image"
        path.write_bytes(image)
        wanted = [name.encode() for name in names]
        child = run_child({**sim_env, "EMUV_SIM_VERBOSE": "1", **env},
                          CHILD.format(path=str(path), name=wanted))  # fmt: skip
        return {**child.answer, "said": child.stderr}

    return load_


def test_a_cubins_kernels(load: Load) -> None:
    got = load(CODE, "from_cubin", "other")
    assert (got["code"], got["names"]) == (0, [0, 0])
    assert got["layout"] == [[0, 8], [8, 24], [32, 2], 96]


@pytest.mark.parametrize("packing", ["plain", "lz4", "zstd"])
def test_a_fat_binarys_ptx_comes_first(load: Load, packing: str) -> None:
    flags, packed = {
        "plain": (0, None), "lz4": (LZ4, lz4(TEXT)), "zstd": (ZSTD, zstd_pack(TEXT)),
    }[packing]  # fmt: skip
    if flags and packed is None:
        pytest.skip("no libzstd.so.1 here")
    image = fatbin(
        member(PTX, 50, b".version 8.0\n.target sm_50\n.address_size 64\n"),
        member(CUBIN, 80, CODE),
        member(PTX, 80, TEXT, flags, packed),
        member(PTX, 90, b"for a newer device"),
        member(8, 80, b"something else"),
    )
    got = load(image, "from_ptx")
    assert (got["code"], got["names"], got["layout"]) == (0, [0], [[0, 8], [8, 4], 0])
    assert load(image, "from_cubin")["names"] == [NOT_FOUND]


def test_without_ptx_the_cubin_is_taken(load: Load) -> None:
    packed = lz4(CODE)
    image = fatbin(
        member(CUBIN, 90, b"\x7fELF of a newer device"),
        member(CUBIN, 75, b"\x7fELF of an older one"),
        member(CUBIN, 80, CODE, LZ4, packed),
    )
    assert load(image, "from_cubin")["layout"] == [[0, 8], [8, 24], [32, 2], 96]


def test_ptx_that_is_damaged_makes_way_for_the_cubin(load: Load) -> None:
    image = fatbin(
        member(PTX, 80, TEXT, LZ4, lz4(TEXT)[:-9]),
        member(CUBIN, 80, CODE),
    )
    assert load(image, "from_cubin")["code"] == 0


def test_nothing_for_this_device(load: Load) -> None:
    got = load(fatbin(member(CUBIN, 90, b"x"), member(PTX, 100, b"y"), member(CUBIN, 75, b"z")))
    assert got["code"] == NO_BINARY
    assert "for a device of sm_80 has sm_90 compute_100 sm_75 only" in str(got["said"])


def test_what_cannot_be_unpacked_has_every_name(load: Load, tmp_path: Path) -> None:
    # Packed in a way that nobody has heard of: loaded, but nothing is known.
    strange = bytearray(member(CUBIN, 80, CODE))
    struct.pack_into("<I", strange, 16, len(CODE))  # packed, with no flag that says how
    got = load(fatbin(bytes(strange)), "anything")
    assert (got["code"], got["names"], got["layout"]) == (0, [0], [0])
    assert "the parameters of a kernel in a fat binary are not known" in str(got["said"])


def test_damaged_images_are_errors_and_no_crashes(
    sim_env: dict[str, str], tmp_path: Path
) -> None:
    # GIVEN images with a few bytes changed, or their end missing
    whole = [
        CODE, fatbin(member(PTX, 80, TEXT, LZ4, lz4(TEXT)), member(CUBIN, 80, CODE)),
        fatbin(member(CUBIN, 80, CODE, LZ4, lz4(CODE))),
    ]  # fmt: skip
    packed = zstd_pack(TEXT)
    if packed is not None:
        whole.append(fatbin(member(PTX, 80, TEXT, ZSTD, packed)))
    source = random.Random(20)
    for i in range(400):
        image = bytearray(source.choice(whole))
        for _ in range(source.choice([1, 1, 2, 5])):
            image[source.randrange(4, len(image))] = source.choice([0, 1, 0x7F, 0xFF, i & 0xFF])
        if source.random() < 0.3:
            del image[source.randrange(4, len(image)):]
        (tmp_path / f"{i}").write_bytes(image)
    # WHEN each is loaded from a file (its length is known), and asked for its kernels
    code = f"""
        d = started()
        codes = set()
        for i in range(400):
            module = c_uint64()
            result = d.code("cuModuleLoad", byref(module), f"{tmp_path}/{{i}}".encode())
            codes.add(result)
            if not result:
                count = d.get(c_uint, "cuModuleGetFunctionCount", module)
                functions = (c_uint64 * max(count, 1))()
                d.code("cuModuleEnumerateFunctions", functions, count, module)
                for function in functions[:min(count, 3)]:
                    d.code("cuFuncGetParamInfo", function, 0, byref(c_size_t()), byref(c_size_t()))
                d.cuModuleUnload(module)
        answer(codes=sorted(codes))
    """
    # THEN every answer is one that a driver gives
    got = run_child(sim_env, code).answer["codes"]
    assert 0 in got and INVALID_IMAGE in got
    assert set(got) <= {0, 2, INVALID_IMAGE, NO_BINARY, 218, 222}


@pytest.mark.parametrize("content", ["itself", "a text", "nothing"])
def test_wrappers_that_lead_nowhere(
    cc: Compiler, sim_env: dict[str, str], content: str
) -> None:
    inner = {"itself": "&wrapper", "a text": '".version 8.0"', "nothing": "0"}[content]
    program = cc(
        f"""
        #include "cuda_abi.h"
        #include <stdio.h>
        int cuInit(unsigned); int cuDevicePrimaryCtxRetain(CUcontext *, int);
        int cuCtxSetCurrent(CUcontext); int cuModuleLoadData(CUmodule *, const void *);
        static struct {{ unsigned magic, version; const void *inner, *more; }} wrapper;
        int main(void)
        {{
            CUcontext context; CUmodule module;
            wrapper.magic = 0x466243b1u; wrapper.version = 1; wrapper.inner = {inner};
            if (cuInit(0) || cuDevicePrimaryCtxRetain(&context, 0) || cuCtxSetCurrent(context))
                return 1;
            printf("%d\\n", cuModuleLoadData(&module, &wrapper));
            return 0;
        }}
        """,
        libs=["cuda"],
    )
    done = run([program], sim_env, 20)
    assert done.stdout == f"{INVALID_IMAGE}\n", done.stderr


def test_what_the_toolkit_makes(load: Load, tmp_path: Path) -> None:
    """With NVIDIA's own compiler, where there is one."""
    from shutil import which

    if not which("nvcc"):
        pytest.skip("no nvcc here")
    (tmp_path / "a.cu").write_text(
        "struct P { float *a, *b; int n; };\n"
        'extern "C" __global__ void k(P p, double f) { p.a[threadIdx.x] = f * p.b[p.n]; }\n'
    )
    for mode in ("size", "speed"):
        for form, also in (("sm_80", "sm_75"), ("compute_80", "sm_80")):
            codes = [f"-gencode=arch=compute_{x[-2:]},code={x}" for x in (form, also)]
            subprocess.run(
                ["nvcc", "-fatbin", f"--compress-mode={mode}", *codes, "-o", "a.fatbin", "a.cu"],
                cwd=tmp_path, check=True, timeout=60, env=os.environ,
            )  # fmt: skip
            got = load((tmp_path / "a.fatbin").read_bytes(), "k")
            assert (got["code"], got["names"]) == (0, [0]), (mode, form, got["said"])
            assert got["layout"] == [[0, 24], [24, 8], 0]
