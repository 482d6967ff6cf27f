# SPDX-License-Identifier: GPL-2.0-only
"""The simulator's copy descriptors and pointer attributes, held against NVIDIA's cuda.h.

As test_abi does with csrc/common/cuda_abi.h: csrc/sim/memory_abi.h's values, sizes and
places, and the prototypes that the memory side's macros make, which the preprocessor
has to spell out first.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import ROOT, Compiler
from tests.unit.test_abi import REAL, cuda_include, enums_as_int, expressions, parsed, values

__all__ = ["cuda_include"]  # the fixture

OURS = ROOT / "csrc" / "sim" / "memory_abi.h"
GRAPHS = ROOT / "csrc" / "sim" / "graph_abi.h"
SOURCES = (
    "copy.c", "copy2d.c", "set.c", "advise.c", "pool.c", "ordered.c", "callback.c", "event.c",
    "memop.c", "stream.c", "graph.c", "graph_edges.c", "graph_calls.c", "graph_exec.c",
    "graph_update.c", "graph_memory.c", "graph_user.c", "capture.c",
)  # fmt: skip
SEARCH = ["-I", str(ROOT / "csrc/common"), "-I", str(ROOT / "csrc/sim")]


def test_header_agrees_with_cuda_h(cc: Compiler, cuda_include: Path, tmp_path: Path) -> None:
    # cuda_abi.h, which it includes, is test_abi's.
    text = OURS.read_text().replace('#include "cuda_abi.h"', "")
    alone = tmp_path / "memory_abi.h"
    alone.write_text(
        "#include <stddef.h>\n#include <stdint.h>\n"
        "typedef unsigned long long CUdeviceptr; typedef unsigned int CUdeviceptr_v1;\n"
        "typedef int CUdevice; typedef struct CUctx_st *CUcontext;\n"
        "typedef struct CUarray_st *CUarray; typedef struct { int type; int id; } CUmemLocation;\n"
        "typedef int CUmemorytype;\n"
        + text
    )
    names = [
        e
        for e in expressions(parsed(alone, tmp_path), text)
        if not re.search(r"\b(CUdevice\w*|CUcontext|CUarray|CUmemLocation|CUmemorytype)\b[,)]", e)
    ]
    assert len(names) > 225
    assert {"CU_MEMHOSTALLOC_PORTABLE", "offsetof(CUDA_MEMCPY3D, WidthInBytes)"} < set(names)
    ours = values(cc, f'#include "{OURS}"', names, "ours", cuda_include)
    assert ours == values(cc, REAL, names, "real", cuda_include)


def test_graph_header_agrees_with_cuda_h(
    cc: Compiler, cuda_include: Path, tmp_path: Path
) -> None:
    text = GRAPHS.read_text().replace('#include "memory_abi.h"', "")
    alone = tmp_path / "graph_abi.h"
    handles = ("graph", "graphNode", "stream", "event", "context", "function", "kernel")
    alone.write_text(
        "typedef unsigned long long CUdeviceptr; typedef unsigned long long cuuint64_t;\n"
        "typedef unsigned long size_t;\n"
        + "".join(f"typedef struct {name}_st *CU{name};\n" for name in handles)
        + "typedef struct a CUDA_MEMCPY3D; typedef struct b CUmemPoolProps;\n"
        "typedef struct c CUmemAccessDesc;\n"
        + text
    )
    names = [
        e
        for e in expressions(parsed(alone, tmp_path), text)
        if not re.search(rf"CU(?:{'|'.join(handles)})\b[,)]|(?:CUDA_MEMCPY3D|CUmem\w+)[,)]", e)
    ]
    names += [
        f"offsetof(CUstreamBatchMemOpParams, {member})"
        for member in ("waitValue.value64", "waitValue.flags", "writeValue.address",
                       "writeValue.value64", "writeValue.flags", "memoryBarrier.flags")
    ]  # fmt: skip
    names += [f"offsetof(CUgraphEdgeData, {member})" for member in ("to_port", "type")]
    names.append("sizeof(CUgraphEdgeData)")
    assert len(names) > 100
    ours = values(cc, f'#include "{GRAPHS}"', names, "ours", cuda_include)
    assert ours == values(cc, REAL, names, "real", cuda_include)


@pytest.mark.parametrize("source", SOURCES)
def test_prototypes_agree_with_cuda_h(cc: Compiler, cuda_include: Path, source: str) -> None:
    spelled = subprocess.run(
        ["gcc", "-E", "-P", *SEARCH, str(ROOT / "csrc/sim" / source)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    found = dict(re.findall(r"\bCUresult\s+(cu[A-Z]\w+)\(([^{};]*?)\)\s*;", spelled))
    assert len(found) > 2
    real = subprocess.run(
        ["gcc", "-E", "-P", "-I", str(cuda_include), "-"],
        input=REAL,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    known = set(re.findall(r"\b(cu[A-Z]\w+)\s*\(", real))
    assert set(found) <= known
    again = "\n".join(f"CUresult {name}({params});" for name, params in found.items())
    own = "typedef void *host_t; typedef const void *host_const_t;"
    text = f"{enums_as_int(real)}\n{own}\n{again}\nint main(void) {{ return 0; }}\n"
    cc(text, flags=["-Wno-strict-prototypes"], name="prototypes")


def test_no_attribute_states_the_memory_of_a_device(cuda_include: Path) -> None:
    # So that cuDeviceGetAttribute passes, and total is told by cuDeviceTotalMem alone.
    found = re.findall(r"\bCU_DEVICE_ATTRIBUTE_(\w+)\s*=", (cuda_include / "cuda.h").read_text())
    assert len(found) > 140
    amounts = {name for name in found if re.search("TOTAL|GLOBAL_MEM|MEMORY_SIZE|VRAM|VIDEO", name)}
    assert amounts == {"TOTAL_CONSTANT_MEMORY", "GLOBAL_MEMORY_BUS_WIDTH"}
