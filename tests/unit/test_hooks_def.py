# SPDX-License-Identifier: GPL-2.0-only
"""csrc/shim/hooks.def: no driver function that deals in memory is forgotten.

The driver's functions are those of csrc/common/driver_api.def.  One that allocates,
frees, imports, exports or reports memory must have a row: a hook, or an exemption
that gives its reason.  What such a function is called, RULES says.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.conftest import ROOT, Compiler, run

HOOKS = ROOT / "csrc" / "shim" / "hooks.def"
API = ROOT / "csrc" / "common" / "driver_api.def"
SEGMENT = ROOT / "csrc" / "common" / "emuv_segment.h"

# Names that deal in memory, and why; the first rule that matches decides.
RULES = (
    # Contents and hints, not amounts.
    (r"Memcpy|Memset|MemBatchDecompress|MemPrefetch|MemAdvise|MemDiscard|MemRangeGet", False),
    (r"StreamAttachMem|PointerGetAttribute|PointerSetAttribute|MemSetAccess|MemGetAccess", False),
    (r"MemPoolSetAccess|MemPoolGetAccess|MemHostGetFlags|MemGetLocationInfo", False),
    (r"GraphAddMem(cpy|set)|GraphExecMem(cpy|set)|GraphMem(cpy|set)", False),
    (r"StreamWaitValue|StreamWriteValue|StreamBatchMemOp|BatchMemOp", False),
    (r"TexRef|SurfRef|TexObject|SurfObject|TensorMap", False),
    (r"ArrayGetDescriptor|ArrayGetSparse|ArrayGetPlane|Array3DGetDescriptor", False),
    (r"GraphMem(Alloc|Free)NodeGetParams|SharedMemConfig|SMemPerBlock|LogsDumpToMemory", False),
    # Which pool a device uses, and that a library or kernel has a variable.
    (r"Get(Default)?MemPool|SetMemPool|GetManaged|GetGlobal", False),
    # Amounts.
    (r"^cuMem(Alloc|Free|Create|Release|Retain|Map|Unmap|Host|Address|Export|Import)", True),
    (r"^cuMem(Get|Pool)", True),
    (r"Array(3D)?(Create|Destroy)|MappedArray(Create|Destroy|Get)|ArrayGetMemory", True),
    (r"^cuIpc(Get|Open|Close)Mem|ExternalMemory", True),
    (r"CtxCreate|CtxDestroy|CtxDetach|PrimaryCtx(Retain|Release|Reset)", True),
    (r"TotalMem|GraphMem|GraphAddMem|GraphAddNode|Multicast(Create|Bind)", True),
    # What the driver takes for programs and their heaps.
    (r"(Module|Library)(Load|Unload)|CtxSetLimit", True),
    # Anything else with memory in its name is looked at by a person.
    (r"Mem(?!cpy|set)|Array|Pool", True),
)


def deals_in_memory(export: str) -> bool:
    """Whether hooks.def must say something about a driver function."""
    return next((verdict for rule, verdict in RULES if re.search(rule, export)), False)


def text_of(path: Path) -> str:
    """A .def file without its comments."""
    return re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)


def rows(kind: str) -> list[str]:
    return re.findall(rf"^EMUV_{kind}\((\w+),", text_of(HOOKS), re.M)


def exemptions() -> dict[str, str]:
    return dict(re.findall(r'^EMUV_EXEMPT\((\w+), "([^"]*)"\)', text_of(HOOKS), re.M))


def driver() -> dict[str, tuple[str, int, int]]:
    """Export: (name, version, per-thread flag)."""
    found = re.findall(r"^EMUV_API\((\w+), (\w+), (\d+), ([01])\)$", text_of(API), re.M)
    return {export: (name, int(version), int(flag)) for export, name, version, flag in found}


def test_every_function_that_deals_in_memory_has_a_row() -> None:
    known = {*rows("HOOK"), *exemptions()}
    concerned = {export for export in driver() if deals_in_memory(export)}
    assert len(concerned) > 80
    assert sorted(concerned - known) == []


def test_the_rules_see_every_hook() -> None:
    # A rule that misses what is hooked today would miss its next variant too.
    early = {"cuInit", "cuGetProcAddress", "cuGetProcAddress_v2"}
    assert [hook for hook in rows("HOOK") if hook not in early and not deals_in_memory(hook)] == []


def test_no_function_twice_and_none_unknown() -> None:
    every = rows("HOOK") + rows("USE") + rows("EXEMPT")
    assert sorted({row for row in every if every.count(row) > 1}) == []
    assert sorted(set(every) - driver().keys()) == []


def test_every_variant_of_a_hooked_function_is_hooked() -> None:
    """All ABI versions, and the per-thread form of each."""
    hooked = set(rows("HOOK"))
    names = {driver()[hook][0] for hook in hooked}
    variants = {export for export, (name, _, _) in driver().items() if name in names}
    assert sorted(variants - hooked) == []


@pytest.mark.parametrize("export", sorted(exemptions()))
def test_every_exemption_gives_a_reason(export: str) -> None:
    reason = exemptions()[export]
    assert len(reason.split()) >= 3, reason
    # A gap is written down where users look.
    if reason.startswith("gap"):
        assert "not counted" in reason


def test_rows_fit_the_segment() -> None:
    limit = re.search(r"#define EMUV_MAX_FUNCTIONS (\d+)", SEGMENT.read_text())
    assert limit is not None
    assert len(rows("HOOK")) <= int(limit[1])


def test_parameters_and_arguments_agree(cc: Compiler) -> None:
    """Each row's third column names its parameters, in order: hooks pass on what they got."""
    found = re.findall(
        r"^EMUV_(?:HOOK|USE)\((\w+), \(([^()]*)\), \(([^()]*)\)\)$", text_of(HOOKS), re.M
    )
    assert len(found) == len(rows("HOOK")) + len(rows("USE"))
    for export, parameters, arguments in found:
        names = [re.findall(r"\w+", part)[-1] for part in parameters.split(",")]
        assert names == [part.strip() for part in arguments.split(",")], export


def test_the_library_exports_each_driver_function_once(libemuv: Path) -> None:
    done = run(["nm", "-D", "--defined-only", "--format=posix", libemuv], {"PATH": "/usr/bin:/bin"})
    assert done.returncode == 0
    exported = [line.split()[0].split("@")[0] for line in done.stdout.splitlines()]
    assert sorted(set(exported)) == sorted(exported)
    driver_functions = {name for name in exported if name.startswith("cu")}
    assert driver_functions == driver().keys()
    # Beside the driver's own names, only the dlopen hook is to be seen.
    assert set(exported) - driver_functions == {"dlopen"}
