# SPDX-License-Identifier: GPL-2.0-only
"""csrc/common/driver_api.def: up to date with its generator, and what the simulated GPU exports."""

from __future__ import annotations

import re
from pathlib import Path

from tests.conftest import ROOT, run
from tests.unit.cuda_headers import generator, wheel

COMMITTED = ROOT / "csrc" / "common" / "driver_api.def"
MADE_FROM = 13050  # the CUDA version whose headers made the committed list
SIM_VERSION = 13000
Row = tuple[str, str, int, int]


def committed() -> list[Row]:
    """The rows of the committed list, in order."""
    found = re.findall(r"^EMUV_API\((\w+), (\w+), (\d+), ([01])\)$", COMMITTED.read_text(), re.M)
    return [(export, name, int(version), int(flag)) for export, name, version, flag in found]


def test_committed_list_is_what_the_generator_writes() -> None:
    include = wheel(13) / "include"
    version = re.search(r"#define CUDA_VERSION (\d+)", (include / "cuda.h").read_text())
    assert version is not None
    made = generator("driver_api").rows(include)
    assert len(made) > 600
    if int(version[1]) == MADE_FROM:
        assert committed() == made
    elif int(version[1]) > MADE_FROM:  # a later toolkit adds, and takes nothing away
        assert set(committed()) <= set(made)
    else:
        assert set(made) <= set(committed())


def test_exports_are_unique_and_versions_ascend() -> None:
    rows = committed()
    assert len({row[0] for row in rows}) == len(rows)
    suffix = re.compile(r"_v(\d+)")
    by_name: dict[tuple[str, int], list[tuple[int, int]]] = {}
    for export, name, version, flag in rows:
        abi = suffix.search(export.removeprefix(name))
        by_name.setdefault((name, flag), []).append((version, int(abi[1]) if abi else 1))
    for versions in by_name.values():
        assert [abi for _, abi in sorted(versions)] == sorted(abi for _, abi in versions)


def test_simulated_gpu_exports_exactly_its_version(sim: Path) -> None:
    done = run(["nm", "-D", "--defined-only", "--format=posix", sim], {"PATH": "/usr/bin:/bin"}, 20)
    assert done.returncode == 0
    exported = {line.split()[0].split("@")[0] for line in done.stdout.splitlines()}
    # Programs give CUDA up where a name is missing, be it one of graphics or of the profiler.
    interop = {"cuGLInit", "cuGLGetDevices_v2", "cuGLMapBufferObject_v2_ptds"}
    interop |= {"cuEGLStreamConsumerConnect", "cuVDPAUCtxCreate_v2", "cuGraphicsMapResources_ptsz"}
    interop |= {"cuProfilerInitialize", "cuProfilerStart", "cuProfilerStop"}
    assert interop <= exported
    assert exported == {export for export, _, version, _ in committed() if version <= SIM_VERSION}
