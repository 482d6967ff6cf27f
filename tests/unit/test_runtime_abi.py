# SPDX-License-Identifier: GPL-2.0-only
"""The libcudart stand-ins' symbols, layouts and prototypes, held against NVIDIA's.

Symbols: what each stand-in exports is what runtime_api.def lists for it, under its
version node, and the list is what the generator reads from NVIDIA's libraries.
Layouts and prototypes: as tests/unit/test_abi.py does for the driver, with the
headers of the nvidia-cuda-runtime wheels of CUDA 12 and 13.  Those wheels lack one
header that the others include (it comes with the compiler); a stand-in defines its
macros away.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import NamedTuple

import pytest
from pycparser import CParser, c_ast

from tests.conftest import ROOT, SIMULATOR, Compiler, built, run
from tests.unit.cuda_headers import MAJORS, generator, wheel
from tests.unit.test_abi import enums_as_int, members, values

CUDART = ROOT / "csrc" / "sim" / "cudart"
MADE_FROM = {12: 12090, 13: 13050}  # the CUDA versions whose libraries made the list
REAL = '#define __CUDA_INTERNAL_SKIP_CPP_HEADERS__\n#include <cuda_runtime_api.h>\n'
HOST_DEFINES = """
#define __device_builtin__
#define __cuda_builtin_vector_align8(tag, members) struct tag { members }
#define __align__(n) __attribute__((aligned(n)))
#define __builtin_align__(n) __attribute__((aligned(n)))
#define __host__
#define __device__
#define __location__(a)
#define CUDARTAPI
#define CUDARTAPI_CDECL
#define CUDART_CB
#define __cudart_builtin__
#define __CUDACC_VER_MAJOR__ 13
"""


class Headers(NamedTuple):
    major: int
    include: Path


def stand_in(major: int) -> Path:
    return built(SIMULATOR.parent / f"libcudart.so.{major}")


def listed(major: int) -> set[str]:
    """The functions that runtime_api.def gives this version."""
    text = (CUDART / "runtime_api.def").read_text()
    rows = re.findall(r"^EMUV_RUNTIME\((\w+), ([01]), ([01])\)$", text, re.M)
    return {name for name, *flags in rows if flags[major - 12] == "1"}


@pytest.fixture(scope="module", params=MAJORS)
def headers(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Headers:
    """The headers of one version, made whole."""
    major: int = request.param
    folder = tmp_path_factory.mktemp(f"cuda{major}")
    for header in (wheel(major) / "include").iterdir():
        if header.is_file():
            (folder / header.name).symlink_to(header)
    (folder / "crt").mkdir()
    (folder / "crt" / "host_defines.h").write_text(HOST_DEFINES)
    return Headers(major, folder)


@pytest.mark.parametrize("major", MAJORS)
def test_exports_are_the_list_under_one_version_node(major: int) -> None:
    node = f"libcudart.so.{major}"
    command = ["nm", "-D", "--defined-only", "--format=posix", stand_in(major)]
    done = run(command, {"PATH": "/usr/bin:/bin"}, 20)
    names = {line.split()[0] for line in done.stdout.splitlines()} - {node, f"{node}@@{node}"}

    assert names == {f"{name}@@{node}" for name in listed(major)}


@pytest.mark.parametrize("major", MAJORS)
def test_list_is_what_nvidias_library_exports(major: int) -> None:
    folder = wheel(major)
    header = (folder / "include" / "cuda_runtime_api.h").read_text()
    found = re.search(r"#define CUDART_VERSION\s+(\d+)", header)
    assert found is not None
    real = generator("runtime_api").exports(folder / "lib" / f"libcudart.so.{major}")
    assert len(real) > 400
    if int(found[1]) == MADE_FROM[major]:
        assert listed(major) == real
    elif int(found[1]) > MADE_FROM[major]:
        assert listed(major) <= real
    else:
        assert real <= listed(major)


def own_structs(major: int, tmp_path: Path) -> dict[str, list[str]]:
    """Members by structure of runtime_abi.h that the real headers have, too."""
    (tmp_path / "stddef.h").write_text("typedef unsigned long size_t;\n")
    (tmp_path / "stdint.h").write_text(
        "typedef unsigned int uint32_t; typedef unsigned long uint64_t;\n"
    )
    text = subprocess.run(
        ["gcc", "-E", "-P", "-nostdinc", f"-DRT_MAJOR={major}", f"-I{tmp_path}",
         f"-I{ROOT / 'csrc' / 'common'}", str(CUDART / "runtime_abi.h")],
        capture_output=True, text=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    found = {}
    for node in CParser().parse(text).ext:
        struct = node.type
        if isinstance(node, c_ast.Typedef):
            struct = getattr(node.type, "type", None)
        if not isinstance(struct, c_ast.Struct) or not struct.decls:
            continue
        name = node.name if isinstance(node, c_ast.Typedef) else f"struct {struct.name}"
        if re.match(r"(struct )?(cuda|dim3|uint3)", name):
            found[name] = members(struct)
    return found


def test_layouts_agree(cc: Compiler, headers: Headers, tmp_path: Path) -> None:
    structs = own_structs(headers.major, tmp_path)
    assert len(structs) > 15
    assert len(structs["struct cudaDeviceProp"]) > 70
    names = []
    for struct, fields in structs.items():
        names.append(f"sizeof({struct})")
        for field in fields:
            names.append(f"offsetof({struct}, {field})")
            names.append(f"sizeof((({struct} *)0)->{field})")
    text = (CUDART / "runtime_abi.h").read_text()
    names += list(re.findall(r"\b(cuda\w+) = \d+", text))
    names += re.findall(r"^#define (cuda\w+) ", text, re.M)
    ours = f'#define RT_MAJOR {headers.major}\n#include "{CUDART / "runtime_abi.h"}"'
    mine = values(cc, ours, names, "ours", headers.include)
    real = values(cc, f"{REAL}#include <stddef.h>", names, "real", headers.include)

    assert mine == real


def prototypes(major: int) -> dict[str, tuple[str, str]]:
    """(file, parameters) of every function that the stand-in defines, per-stream ones left out."""
    found = {}
    for path in sorted(CUDART.glob("*.c")):
        text = subprocess.run(
            ["gcc", "-E", "-P", f"-DRT_MAJOR={major}", f"-I{CUDART}",
             f"-I{ROOT / 'csrc' / 'common'}", f"-I{ROOT / 'csrc'}", str(path)],
            capture_output=True, text=True, check=True, timeout=30,
        ).stdout  # fmt: skip
        pattern = r'visibility\("default"\)\)\) cudaError_t (cuda\w+)\(([^;{}]*)\);'
        for name, parameters in re.findall(pattern, text):
            if not name.endswith(("_ptsz", "_ptds")):
                found[name] = (path.name, parameters)
    return found


def test_prototypes_agree(cc: Compiler, headers: Headers) -> None:
    found = prototypes(headers.major)
    assert len(found) > 250
    real = subprocess.run(
        ["gcc", "-E", "-P", "-isystem", str(headers.include), "-"],
        input=REAL, capture_output=True, text=True, check=True, timeout=30,
    ).stdout  # fmt: skip
    # CUDA's headers spell one type in two ways; here it has one name.
    ours = "typedef struct CUstream_st *CUstream; typedef struct CUevent_st *CUevent; "
    ours += "typedef const cudaGraphNode_t *nodes_t;"
    again = "\n".join(
        f'#line 1 "{file}: {name}"\ncudaError_t {name}({parameters});'
        for name, (file, parameters) in found.items()
    )
    plain = re.sub(r"enum cuda\w+ (?=[\w*])", "int ", enums_as_int(real))
    source = f"{plain}\n{ours}\n{again}\nint main(void) {{ return 0; }}\n"
    cc(source, flags=["-Wno-strict-prototypes", "-Wno-deprecated-declarations"], name="prototypes")


# The words of a field and those of its attribute, where they are not the same.
SPELLINGS = {
    "regs": "registers", "const": "constant", "supported": "support", "gpudirectrdma": "gpudirect",
}  # fmt: skip
OTHER_NAMES = {
    "maxThreadsDim": "maxBlockDim", "maxGridSize": "maxGridDim", "memPitch": "pitch",
    "deviceOverlap": "gpuOverlap",
}  # fmt: skip


def words(name: str) -> set[str]:
    """The words of a name in camel case."""
    return {w.lower() for w in re.findall(r"[A-Z]{2,}(?![a-z])|[A-Z]?[a-z]*\d*", name)} - {""}


@pytest.mark.parametrize("major", MAJORS)
def test_properties_are_the_attributes_that_they_are_called(major: int, tmp_path: Path) -> None:
    """Every field has a row, and each row's number is that of an attribute so named."""
    header = (wheel(major) / "include" / "driver_types.h").read_text()
    attributes = {int(n): a for a, n in re.findall(r"cudaDevAttr(\w+)\s*=\s*(\d+)", header)}
    source = (CUDART / "properties.c").read_text()
    twelve, thirteen = source[source.index("#if RT_MAJOR == 12") :].split("#else", 1)
    left_out = thirteen[: thirteen.index("#endif")] if major == 12 else twelve
    rows = re.findall(r"\b(?:ROW|AT)\((\w+), (?:\d, )?(\d+)\)", source.replace(left_out, ""))
    assert len(rows) > 90
    for field, number in rows:
        name = attributes[int(number)]
        if field == "unifiedFunctionPointers":  # a name that only the driver's has
            assert number == "129"
            continue
        asked = words(OTHER_NAMES.get(field, field)) - {"max", "enabled", "device"}
        missing = {w for w in asked if SPELLINGS.get(w, w) not in name.lower()}
        assert not missing, (field, name, missing)
    fields = {f.split(".")[0] for f in own_structs(major, tmp_path)["struct cudaDeviceProp"]}
    given = {"name", "uuid", "luid", "luidDeviceNodeMask", "totalGlobalMem"}
    assert fields - given == {field for field, _ in rows}
