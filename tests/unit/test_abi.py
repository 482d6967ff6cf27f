# SPDX-License-Identifier: GPL-2.0-only
"""emuV's own CUDA header and prototypes, held against NVIDIA's cuda.h.

csrc/common/cuda_abi.h is read by a C parser; two programs, one including ours
and one including the real header (from the nvidia-cuda-runtime wheel), print
the size of every type, the place of every member and the value of every
constant that ours names.  What both print must be the same.

Prototypes (hooks.def, SIM_API in csrc/sim) are declared a second time after the
real header: the compiler refuses a declaration that differs from the first.
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest
from pycparser import CParser, c_ast

from tests.conftest import ROOT, Compiler, run
from tests.unit.cuda_headers import wheel

OURS = ROOT / "csrc" / "common" / "cuda_abi.h"
# Declares every ABI version of a function under its own name.
REAL = """
#define __CUDA_API_VERSION_INTERNAL
#include <stddef.h>
#include <stdint.h>
#include <cuda.h>
"""
FOREIGN = """
typedef unsigned GLuint; typedef unsigned GLenum;
typedef void *EGLImageKHR, *EGLStreamKHR, *EGLSyncKHR; typedef int EGLint;
typedef unsigned VdpDevice, VdpVideoSurface, VdpOutputSurface; typedef int VdpGetProcAddress;
"""


@pytest.fixture(scope="session")
def cuda_include() -> Path:
    """The include folder of the installed nvidia-cuda-runtime wheel."""
    return wheel(13) / "include"


def parsed(header: Path, tmp_path: Path) -> c_ast.FileAST:
    """The syntax tree of our header, with stand-ins for the C library's."""
    (tmp_path / "stddef.h").write_text("typedef unsigned long size_t;\n")
    (tmp_path / "stdint.h").write_text(
        "typedef unsigned int uint32_t; typedef unsigned long uint64_t;\n"
    )
    text = subprocess.run(
        ["gcc", "-E", "-P", "-nostdinc", f"-I{tmp_path}", str(header)],
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    return CParser().parse(text)


def members(struct: c_ast.Struct, prefix: str = "") -> list[str]:
    """Dotted names of a struct's members, nested ones included, bytes kept in reserve left out."""
    names = []
    for member in struct.decls or []:
        assert member.name, "a struct of the header has an unnamed member"
        if member.name != "reserved":  # later versions take fields from it
            names.append(prefix + member.name)
        inner = getattr(member.type, "type", None)
        if isinstance(inner, c_ast.Struct | c_ast.Union) and inner.decls:
            names += members(inner, f"{prefix}{member.name}.")
    return names


def expressions(tree: c_ast.FileAST, text: str, prefix: str = "cu") -> list[str]:
    """C expressions whose values both headers must agree on; names start with `prefix`."""
    found = []
    for node in tree.ext:
        if not isinstance(node, c_ast.Typedef) or not node.name.lower().startswith(prefix):
            continue
        inner = getattr(node.type, "type", None)
        if isinstance(inner, c_ast.Enum) and inner.values:
            found += [constant.name for constant in inner.values.enumerators]
        found.append(f"sizeof({node.name})")
        if isinstance(inner, c_ast.Struct) and inner.decls:
            for member in members(inner):
                found.append(f"offsetof({node.name}, {member})")
                found.append(f"sizeof((({node.name} *)0)->{member})")
    return found + re.findall(rf"^#define ({prefix.upper()}\w+) ", text, re.M)


def opaque(tree: c_ast.FileAST) -> set[str]:
    """Types that our header only declares: they have no size here."""
    return {
        node.name
        for node in tree.ext
        if isinstance(node, c_ast.Typedef)
        and isinstance(getattr(node.type, "type", None), c_ast.Struct)
        and isinstance(node.type, c_ast.TypeDecl)
        and node.type.type.decls is None
    }


def values(cc: Compiler, header: str, names: list[str], name: str, include: Path) -> dict[str, int]:
    """What each expression is with `header` included."""
    lines = "\n".join(f'\tprintf("%s=%lld\\n", "{e}", (long long)({e}));' for e in names)
    source = f"#include <stdio.h>\n{header}\nint main(void)\n{{\n{lines}\n\treturn 0;\n}}\n"
    program = cc(source, flags=["-isystem", str(include)], name=name)
    done = run([program], {}, 10)
    assert done.returncode == 0
    pairs = (line.rpartition("=") for line in done.stdout.splitlines())
    return {key: int(value) for key, _, value in pairs}


def test_header_agrees_with_cuda_h(cc: Compiler, cuda_include: Path, tmp_path: Path) -> None:
    text = OURS.read_text()
    tree = parsed(OURS, tmp_path)
    skip = {f"sizeof({name})" for name in opaque(tree)}
    names = [e for e in expressions(tree, text) if e not in skip]
    assert len(names) > 250, "the parser found too little of cuda_abi.h"
    assert {"CUDA_ERROR_OUT_OF_MEMORY", "CU_STREAM_LEGACY", "sizeof(CUmemAllocationProp)"} < set(
        names
    )
    ours = values(cc, '#include "cuda_abi.h"', names, "ours", cuda_include)
    real = values(cc, REAL, names, "real", cuda_include)
    assert ours == real


def prototypes() -> dict[str, tuple[str, str]]:
    """(file, parameters) by function, of every hook and simulated entry point."""
    found = {}
    sources = [ROOT / "csrc/shim/hooks.def", ROOT / "csrc/sim/cudart/driver_uses.def"]
    sources += sorted((ROOT / "csrc/sim").glob("*.[ch]"))
    for path in sources:
        text = re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)
        for name, rest in re.findall(r"^EMUV_(?:HOOK|USE)\((\w+),\s*\(([^()]*)\)", text, re.M):
            found[f"{path.stem} {name}"] = (path.name, rest)
        for name, rest in re.findall(r"^SIM_API\((cu\w+),\s*([^{};#]*?)\)\s*\{", text, re.M):
            found[f"sim {name}"] = (path.name, rest)
    return found


def enums_as_int(text: str) -> str:
    """C text in which every enumeration's name is a name for int: the same on the wire."""
    text = re.sub(r"typedef (enum \w*\s*\{[^}]*\})\s*(\w+);", r"\1; typedef int \2;", text)
    return re.sub(r"typedef enum \w+ (\w+);", r"typedef int \1;", text)


def test_prototypes_agree_with_cuda_h(cc: Compiler, cuda_include: Path, tmp_path: Path) -> None:
    found = prototypes()
    assert any(key.startswith("hooks ") for key in found)
    assert sum(key.startswith("driver_uses ") for key in found) > 150
    assert sum(key.startswith("sim ") for key in found) > 100
    for header in ("GL/gl.h", "EGL/egl.h", "EGL/eglext.h", "vdpau/vdpau.h"):
        (tmp_path / header).parent.mkdir(exist_ok=True)
        (tmp_path / header).touch()
    interop = "".join(f"#include <{h}>\n" for h in ("cudaGL.h", "cudaEGL.h", "cudaVDPAU.h"))
    real = subprocess.run(
        ["gcc", "-E", "-P", f"-I{cuda_include}", f"-I{tmp_path}", "-"],
        input=FOREIGN + REAL + interop,
        capture_output=True,
        text=True,
        check=True,
        timeout=30,
    ).stdout
    again = "\n".join(
        f'#line 1 "{file}: {key}"\nCUresult {key.split()[1]}({params});'
        for key, (file, params) in found.items()
    )
    source = f"{enums_as_int(real)}\n{again}\nint main(void) {{ return 0; }}\n"
    cc(source, flags=["-Wno-strict-prototypes", "-Wno-deprecated-declarations"], name="prototypes")
