# SPDX-License-Identifier: GPL-2.0-only
"""The stand-in for libnvidia-ml.so.1, held against NVIDIA's nvml.h and nvidia-ml-py's wrapper."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pynvml
import pytest

from tests.conftest import ROOT, SIMULATOR, Compiler, built
from tests.unit.test_abi import expressions, opaque, parsed, values

FOLDER = ROOT / "csrc" / "sim" / "nvml"
HEADER = FOLDER / "nvml_abi.h"
OURS = f'#include <stddef.h>\n#include "{HEADER}"'
REAL = "#include <stddef.h>\n#define NVML_NO_UNVERSIONED_FUNC_DEFS\n#include <nvml.h>\n"


@pytest.fixture(scope="session")
def nvml_include() -> Path:
    """The include folder of the installed nvidia-nvml-dev wheel."""
    import nvidia

    for folder in nvidia.__path__:
        for header in sorted(Path(folder).glob("*/include/nvml.h")):
            return header.parent
    pytest.fail("no nvml.h: install emuV's `test` extra (nvidia-nvml-dev)")


@pytest.fixture(scope="session")
def exported() -> set[str]:
    """What the built library exports."""
    library = built(SIMULATOR.parent / "libnvidia-ml.so.1")
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", library],
        capture_output=True, text=True, check=True, timeout=20,
    ).stdout
    return {line.split()[-1] for line in listed.splitlines()}


def test_header_agrees_with_nvml_h(cc: Compiler, nvml_include: Path, tmp_path: Path) -> None:
    tree = parsed(HEADER, tmp_path)
    skip = {f"sizeof({name})" for name in opaque(tree)}
    names = [e for e in expressions(tree, HEADER.read_text(), "nvml") if e not in skip]
    assert {"sizeof(nvmlPciInfo_t)", "NVML_ERROR_UNKNOWN", "NVML_P2P_STATUS_NOT_SUPPORTED"} < set(
        names
    )
    assert len(names) > 150, "the parser found too little of nvml_abi.h"
    ours = values(cc, OURS, names, "ours", nvml_include)
    real = values(cc, REAL, names, "real", nvml_include)
    assert ours == real


def test_versions_of_structures(cc: Compiler, nvml_include: Path) -> None:
    pairs = {
        ("nvmlMemory_v2_t", 2): "nvmlMemory_v2",
        ("nvmlPciInfoExt_v1_t", 1): "nvmlPciInfoExt_v1",
        ("nvmlProcessDetailList_v1_t", 1): "nvmlProcessDetailList_v1",
        ("nvmlUUID_v1_t", 1): "nvmlUUID_v1",
    }
    ours = [f"NVML_VERSION_OF({type_}, {version})" for type_, version in pairs]
    mine = values(cc, OURS, ours, "ours", nvml_include)
    real = values(cc, REAL, list(pairs.values()), "real", nvml_include)
    assert list(mine.values()) == list(real.values())


def test_prototypes_agree_with_nvml_h(cc: Compiler, nvml_include: Path) -> None:
    found = {}
    for source in sorted(FOLDER.glob("*.c")):
        if source.name == "stubs.c":
            continue
        text = subprocess.run(
            ["gcc", "-E", "-P", f"-I{ROOT}/csrc", f"-I{ROOT}/csrc/common", f"-I{FOLDER}", source],
            capture_output=True, text=True, check=True, timeout=20,
        ).stdout
        for result, name, rest in re.findall(
            r'visibility\("default"\)\)\)\s*((?:const )?\w+ \*?)(nvml\w+)\(([^;{}]*)\);', text
        ):
            found[name] = f'#line 1 "{source.name}"\n{result}{name}({rest});'
    assert len(found) == 55
    again = "\n".join(found.values())
    source_text = f"{REAL}\n{again}\nint main(void) {{ return 0; }}\n"
    cc(source_text, flags=["-isystem", str(nvml_include), "-Wno-deprecated-declarations"])


def test_every_name_that_programs_look_up_is_there(exported: set[str]) -> None:
    text = Path(pynvml.__file__).read_text()
    wrapped = set(re.findall(r'_nvmlGetFunctionPointer\("(nvml\w+)"\)', text))
    assert len(wrapped) > 350
    assert wrapped - exported == set()
    listed = set(re.findall(r"^NVML_NAME\((\w+)\)", (FOLDER / "nvml_names.def").read_text(), re.M))
    assert exported == listed | {"emuv_sim_nvml"}


def test_names_are_those_of_the_header(nvml_include: Path, exported: set[str]) -> None:
    text = re.sub(r"/\*.*?\*/", "", (nvml_include / "nvml.h").read_text(), flags=re.S)
    declared = set(re.findall(r"DECLDIR\s*\*?\s*(nvml[A-Z]\w+)\s*\(", text))
    wrapped = set(re.findall(r'"(nvml[A-Z]\w+)"', Path(pynvml.__file__).read_text()))
    # A header of a later CUDA has more; what we export, NVIDIA has.
    assert len(declared & exported) > 390
    assert exported - declared - wrapped - {"emuv_sim_nvml"} == set()


def test_it_is_a_plain_library_of_that_name() -> None:
    done = subprocess.run(
        ["readelf", "-dW", SIMULATOR.parent / "libnvidia-ml.so.1"],
        capture_output=True, text=True, check=True, timeout=20,
    ).stdout
    assert "Library soname: [libnvidia-ml.so.1]" in done
    needed = set(re.findall(r"Shared library: \[([^\]]+)\]", done))
    assert needed <= {"libc.so.6", "libpthread.so.0", "libdl.so.2"}
