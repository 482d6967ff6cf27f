#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0-only
"""Write csrc/common/driver_api.def from NVIDIA's public headers.

    gen_driver_api.py INCLUDE_DIR > csrc/common/driver_api.def

INCLUDE_DIR holds cuda.h and cudaTypedefs.h (the nvidia-cuda-runtime wheel has
them).  Only facts are taken: which symbols a driver exports, under which base
name, API version and stream flavour cuGetProcAddress knows each of them.

The rule, checked on the headers of 12.8, 13.0 and 13.5 with no exception: for
a base name and flavour, the versions in `PFN_<name>_v<version>[_ptds|_ptsz]`,
ascending, are the exports `<name>`, `<name>_v2`, … `[_ptds|_ptsz]`, ascending.
"""

from __future__ import annotations

import collections
import re
import subprocess
import sys
import tempfile
from pathlib import Path

# Types of foreign headers that the interop headers mention.
FOREIGN = """
#include <stddef.h>
typedef unsigned GLuint; typedef unsigned GLenum;
typedef void *EGLImageKHR, *EGLStreamKHR, *EGLSyncKHR; typedef int EGLint;
typedef unsigned VdpDevice, VdpVideoSurface, VdpOutputSurface; typedef int VdpGetProcAddress;
"""
HEADERS = ("cuda.h", "cudaGL.h", "cudaEGL.h", "cudaVDPAU.h")
TYPEDEFS = ("cudaTypedefs.h", "cudaGLTypedefs.h", "cudaEGLTypedefs.h",
            "cudaVDPAUTypedefs.h", "cudaProfilerTypedefs.h")
# cudaProfiler.h is not in every wheel; its three functions are documented.
PROFILER = {"cuProfilerInitialize", "cuProfilerStart", "cuProfilerStop"}


def prototypes(include: Path) -> dict[str, str]:
    """The parameters of every function that the headers declare, old ABI versions included."""
    with tempfile.TemporaryDirectory() as tmp:
        for name in ("GL/gl.h", "EGL/egl.h", "EGL/eglext.h", "vdpau/vdpau.h"):
            path = Path(tmp, name)
            path.parent.mkdir(exist_ok=True)
            path.touch()
        source = FOREIGN + "".join(f'#include "{h}"\n' for h in HEADERS)
        text = subprocess.run(
            ["cc", "-E", "-P", "-D__CUDA_API_VERSION_INTERNAL", "-I", str(include), "-I", tmp,
             "-x", "c", "-"],
            input=source, text=True, capture_output=True, check=True).stdout
    found = dict(re.findall(r"\bCUresult\s+(cu[A-Z]\w*)\s*\(([^()]*)\)", text))
    names = set(re.findall(r"\bCUresult\s+(cu[A-Z]\w*)\s*\(", text))
    if names != found.keys():
        raise SystemExit(f"parameters not understood: {sorted(names - found.keys())}")
    return found


def exports(include: Path) -> set[str]:
    """The functions that a driver of the headers' version exports."""
    return set(prototypes(include)) | PROFILER


def typed(include: Path) -> list[tuple[str, str, int, int]]:
    """rows() of the functions that have a PFN_ type: those of 12.9 leave out four."""
    known = exports(include)
    versions: dict[tuple[str, str], set[int]] = collections.defaultdict(set)
    for header in TYPEDEFS:
        text = (include / header).read_text()
        for name, version, flavour in re.findall(
                r"\(CUDAAPI \*PFN_(cu[A-Z]\w*?)_v(\d+)(_ptds|_ptsz)?\)", text):
            versions[name, flavour].add(int(version))
    out = []
    for (name, flavour), numbers in versions.items():
        pattern = re.compile(rf"{name}(?:_v(\d+))?{flavour}$")
        found = sorted((int(m[1] or 1), m[0]) for m in map(pattern.match, known) if m)
        if name.startswith("cuWGL"):  # Windows only
            continue
        if len(found) != len(numbers):
            raise SystemExit(f"{name}{flavour}: versions {sorted(numbers)} but exports {found}")
        out += [(export, name, version, int(bool(flavour)))
                for version, (_, export) in zip(sorted(numbers), found, strict=True)]
    return sorted(out)


def rows(include: Path) -> list[tuple[str, str, int, int]]:
    """(export, name, version, per-thread-stream flag), sorted by export."""
    found = typed(include)
    missing = exports(include) - {row[0] for row in found}
    if missing:
        raise SystemExit(f"exports without a version: {sorted(missing)}")
    return found


def main() -> None:
    """Print the list."""
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    include = Path(sys.argv[1])
    version = re.search(r"#define CUDA_VERSION (\d+)", (include / "cuda.h").read_text())
    assert version is not None
    print("/* SPDX-License-Identifier: GPL-2.0-only */")
    print(f"/* Made by csrc/gen_driver_api.py from CUDA {int(version[1]) // 1000}."
          f"{int(version[1]) % 1000 // 10}'s headers.  Do not edit.")
    print(" *")
    print(" * EMUV_API(export, name, version, flag): `export` is what cuGetProcAddress(name,")
    print(" * any version from `version` up to the next row's, flag) answers; flag 1 is the")
    print(" * per-thread default stream flavour (_ptds, _ptsz). */")
    for export, name, since, flag in rows(include):
        print(f"EMUV_API({export}, {name}, {since}, {flag})")


if __name__ == "__main__":
    main()
