# SPDX-License-Identifier: GPL-2.0-only
"""emuV's two libnvidia-ml.so.1, held against NVIDIA's nvml.h and nvidia-ml-py's wrapper.

The stand-in of the simulated machine (csrc/sim/nvml), and NVML as programs under emuV see
it (csrc/nvml).
"""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pynvml
import pytest

from tests.conftest import ROOT, SIMULATOR, Compiler, built
from tests.unit.test_abi import expressions, opaque, parsed, values

COMMON = ROOT / "csrc" / "common"
STAND_IN = ROOT / "csrc" / "sim" / "nvml"
SHOWN = ROOT / "csrc" / "nvml"
HEADER = COMMON / "nvml_abi.h"
LIBRARIES = {
    "stand-in": SIMULATOR.parent / "libnvidia-ml.so.1",
    "shown": ROOT / "emuv_shim" / "_lib" / "libemuv-nvml.so",
}
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


def exports(which: str) -> set[str]:
    """What a built library exports."""
    listed = subprocess.run(
        ["nm", "-D", "--defined-only", built(LIBRARIES[which])],
        capture_output=True, text=True, check=True, timeout=20,
    ).stdout
    return {line.split()[-1] for line in listed.splitlines()}


@pytest.fixture(scope="session")
def exported() -> set[str]:
    """What the stand-in exports."""
    return exports("stand-in")


def listed(row: str) -> set[str]:
    """The rows of nvml_names.def."""
    return set(re.findall(rf"^{row}\((\w+)\)", (COMMON / "nvml_names.def").read_text(), re.M))


def declared(nvml_include: Path) -> set[str]:
    """The functions of nvml.h."""
    text = re.sub(r"/\*.*?\*/", "", (nvml_include / "nvml.h").read_text(), flags=re.S)
    return set(re.findall(r"DECLDIR\s*\*?\s*(nvml[A-Z]\w+)\s*\(", text))


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


@pytest.mark.parametrize(("folder", "count"), [(STAND_IN, 55), (SHOWN, 13)])
def test_prototypes_agree_with_nvml_h(
    cc: Compiler, nvml_include: Path, folder: Path, count: int
) -> None:
    found = {}
    includes = [f"-I{ROOT}/csrc", f"-I{COMMON}", f"-I{folder}", f"-I{ROOT}/csrc/shim"]
    for source in sorted(folder.glob("*.c")):
        if source.name == "stubs.c":
            continue
        text = subprocess.run(
            ["gcc", "-E", "-P", *includes, source],
            capture_output=True, text=True, check=True, timeout=20,
        ).stdout
        for result, name, rest in re.findall(
            r'visibility\("default"\)\)\)\s*((?:const )?\w+ \*?)(nvml\w+)\(([^;{}]*)\);', text
        ):
            found[name] = f'#line 1 "{source.name}"\n{result}{name}({rest});'
    assert len(found) == count
    again = "\n".join(found.values())
    source_text = f"{REAL}\n{again}\nint main(void) {{ return 0; }}\n"
    cc(source_text, flags=["-isystem", str(nvml_include), "-Wno-deprecated-declarations"])


def test_what_emuv_asks_itself_is_declared_alike(cc: Compiler, nvml_include: Path) -> None:
    text = (SHOWN / "ordinal.c").read_text()
    own = re.findall(r"^nvmlReturn_t \w+\([^;{}]*\);", text, re.M)
    assert len(own) == 4
    again = "\n".join(own)
    cc(f"{REAL}\n{again}\nint main(void) {{ return 0; }}\n", flags=["-isystem", str(nvml_include)])


def test_every_name_that_programs_look_up_is_there(exported: set[str]) -> None:
    text = Path(pynvml.__file__).read_text()
    wrapped = set(re.findall(r'_nvmlGetFunctionPointer\("(nvml\w+)"\)', text))
    assert len(wrapped) > 350
    assert wrapped - exported == set()
    assert exported == listed("NVML_NAME") | {"emuv_sim_nvml"}
    assert wrapped - exports("shown") == set()


def test_names_are_those_of_the_header(nvml_include: Path, exported: set[str]) -> None:
    known = declared(nvml_include)
    wrapped = set(re.findall(r'"(nvml[A-Z]\w+)"', Path(pynvml.__file__).read_text()))
    # A header of a later CUDA has more; what we export, NVIDIA has.
    assert len(known & exported) > 390
    assert exported - known - wrapped - {"emuv_sim_nvml"} == set()


def test_every_function_is_forwarded(nvml_include: Path) -> None:
    forwarded = exports("shown")
    assert forwarded == listed("NVML_NAME") | listed("NVML_MORE") | {"emuv_nvml_library"}
    assert declared(nvml_include) - forwarded == set()
    assert "nvmlInternalGetExportTable" in forwarded
    assert not listed("NVML_NAME") & listed("NVML_MORE")


def test_every_report_of_memory_is_adjusted_or_known(nvml_include: Path) -> None:
    reports = {
        name for name in declared(nvml_include)
        if re.search(r"Memory(Info|Usage)|RunningProcess|MemSize|FBMemory|FrameBuffer", name)
    }  # fmt: skip
    adjusted = set(re.findall(r"^(?:LIST|NVML_API)\((nvml\w+)", "".join(
        (SHOWN / name).read_text() for name in ("memory.c", "processes.c")), re.M))
    left = {
        "nvmlDeviceGetBAR1MemoryInfo": "a window of the bus, not memory",
        "nvmlDeviceGetConfComputeMemSizeInfo": "how confidential computing divides a card",
        "nvmlDeviceGetConfComputeProtectedMemoryUsage": "the protected part of the whole card",
        "nvmlDeviceSetConfComputeUnprotectedMemSize": "sets it",
        "nvmlVgpuInstanceGetFbUsage": "of virtual machines",
    }
    assert len(adjusted) == 12
    assert reports - adjusted - set(left) == set()


@pytest.mark.parametrize("which", LIBRARIES)
def test_it_is_a_plain_library_of_that_name(which: str) -> None:
    done = subprocess.run(
        ["readelf", "-dW", LIBRARIES[which]],
        capture_output=True, text=True, check=True, timeout=20,
    ).stdout
    assert "Library soname: [libnvidia-ml.so.1]" in done
    needed = set(re.findall(r"Shared library: \[([^\]]+)\]", done))
    assert needed <= {"libc.so.6", "libpthread.so.0", "libdl.so.2"}
