# SPDX-License-Identifier: GPL-2.0-only
"""csrc/shim/hooks.def: no driver function that deals in memory is forgotten.

The functions are those that NVIDIA's headers declare, of CUDA 12.9 and 13.5, every
ABI version of each.  One that allocates, frees, imports, exports or reports memory
must have a row: hooks for all its variants, or an exemption that gives its reason.
Which those are, RULES say by name, and YIELDS by the types of the parameters: what
hands out an address, an array or a handle is memory, whatever it is called.
docs/coverage.md is written from the list.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT, Compiler, run
from tests.unit.cuda_headers import MAJORS, generator, wheel

HOOKS = ROOT / "csrc" / "shim" / "hooks.def"
API = ROOT / "csrc" / "common" / "driver_api.def"
SEGMENT = ROOT / "csrc" / "common" / "emuv_segment.h"
COUNTED = {"", "bytes", "gives back", "measured", "reports", "statistic"}

# Names that deal in memory, and why; the first rule that matches decides.
RULES = (
    # Contents and hints that move nothing, not amounts.
    (r"Memcpy|Memset|MemBatchDecompress|MemDiscardBatch|MemRangeGet", False),
    (r"StreamAttachMem|PointerGetAttribute|PointerSetAttribute|MemSetAccess|MemGetAccess", False),
    (r"MemPoolSetAccess|MemPoolGetAccess|MemHostGetFlags|MemGetLocationInfo", False),
    (r"GraphAddMem(cpy|set)|GraphExecMem(cpy|set)|GraphMem(cpy|set)", False),
    (r"StreamWaitValue|StreamWriteValue|StreamBatchMemOp|BatchMemOp", False),
    (r"TexRef|SurfRef|TexObject|SurfObject|TensorMap", False),
    (r"ArrayGetDescriptor|ArrayGetSparse|ArrayGetPropert|Array3DGetDescriptor", False),
    (r"GraphMem(Alloc|Free)NodeGetParams|SharedMemConfig|SMemPerBlock|LogsDumpToMemory", False),
    (r"GraphNode(Get|Set)Params|GraphExecNodeSetParams|GraphicsResourceSetMapFlags", False),
    # Which pool a device uses.
    (r"Get(Default)?MemPool|SetMemPool", False),
    # A variable of a library or module may be managed memory.
    (r"GetManaged|GetGlobal", True),
    # What is there already: a thread's context, a kernel's library.
    (r"CtxGetCurrent|CtxPopCurrent|CtxAttach|CtxFromGreen|StreamGet(Green)?Ctx", False),
    (r"FuncGetModule|KernelGetLibrary|LibraryGetModule", False),
    (r"MulticastGetGranularity|MulticastAddDevice|LogicalEndpointGetLimits|CtxGetLimit", False),
    # Amounts.
    (r"^cuMem(Alloc|Free|Create|Release|Retain|Map|Unmap|Host|Address|Export|Import)", True),
    (r"^cuMem(Get|Pool|Advise|Prefetch|DiscardAndPrefetch)", True),
    (r"Array(3D)?(Create|Destroy)|MappedArray(Create|Destroy|Get)|ArrayGetMemory", True),
    (r"^cuIpc(Get|Open|Close)Mem|ExternalMemory", True),
    (r"CtxCreate|CtxDestroy|CtxDetach|PrimaryCtx(Retain|Release|Reset)", True),
    (r"TotalMem|GraphMem|GraphAddMem|GraphAddNode|Multicast(Create|Bind|Unbind)", True),
    (r"LogicalEndpoint(Create|Bind|Unbind|Export|Import)|DeviceRegisterAsyncNot", True),
    # A graph's memory is there from when it can run.
    (r"Graph(Instantiate|Upload|Launch|ExecDestroy)", True),
    # What the driver takes for programs and their heaps, and moves about.
    (r"(Module|Library)(Load|Unload)|CtxSetLimit|CheckpointProcess(Checkpoint|Restore)", True),
    # Anything else with memory in its name is looked at by a person.
    (r"Mem(?!cpy|set)|Array|Pool", True),
)

# Types of parameters through which a function hands out memory, takes it or describes it.
YIELDS = re.compile(
    r"(CUdeviceptr(_v1)?\*|CUarray\*|CUmipmappedArray\*|CUarrayMapInfo\*|CUeglFrame\*?"
    r"|CUmemGenericAllocationHandle\*?|CUmem\w*Prop\w*\*|CUmulticast\w+\*|CUmemAllocationHandleType"
    r"|CUmemoryPool\*?|CUmemPoolPtrExportData\*|CUexternalMemory\*?|CUDA_EXTERNAL_MEMORY_\w+\*"
    r"|CUipcMemHandle\*?|CUlogicalEndpoint(Prop\*|IpcHandleType)|CUgraphicsResource\*?"
    r"|CUDA_MEM_ALLOC_NODE_PARAMS\*|CUgraphNodeParams\*|CUgraphExec\*|CUgraphMem_attribute"
    r"|CUcontext\*|CUgreenCtx\*|CUmodule\*|CUlibrary\*|CUlimit|CUDA_ARRAY_MEMORY_REQUIREMENTS\*)"
)


def types(parameters: str) -> set[str]:
    """The types of a parameter list, without names, const and spaces."""
    plain = (re.sub(r"\bconst\b|\s", " ", part).strip() for part in parameters.split(","))
    return {re.sub(r"(?<=[\s*])\w+$", "", part).replace(" ", "") for part in plain}


def deals_in_memory(export: str, parameters: str = "") -> bool:
    """Whether hooks.def must say something about a driver function."""
    by_type = any(YIELDS.fullmatch(kind) for kind in types(parameters))
    return next((verdict for rule, verdict in RULES if re.search(rule, export)), by_type)


def text_of(path: Path) -> str:
    """A .def file without its comments."""
    return re.sub(r"/\*.*?\*/", "", path.read_text(), flags=re.S)


def rows(kind: str) -> list[str]:
    return re.findall(rf"^EMUV_{kind}\((\w+),", text_of(HOOKS), re.M)


def described(kind: str) -> list[Any]:
    """The EMUV_COVER or EMUV_EXEMPT rows as gen_coverage.py reads them."""
    found: list[Any] = generator("coverage").rows(kind)
    assert [row.name for row in found] == rows(kind), "a row that gen_coverage.py cannot read"
    return found


@cache
def driver() -> dict[str, tuple[str, int, int]]:
    """Export: (name, version, per-thread flag)."""
    found = re.findall(r"^EMUV_API\((\w+), (\w+), (\d+), ([01])\)$", text_of(API), re.M)
    return {export: (name, int(version), int(flag)) for export, name, version, flag in found}


@cache
def declared(major: int) -> dict[str, str]:
    """Export: parameters, of the headers of that CUDA version."""
    found: dict[str, str] = generator("driver_api").prototypes(wheel(major) / "include")
    return found


@pytest.mark.parametrize("major", MAJORS)
def test_every_function_that_deals_in_memory_has_a_row(major: int) -> None:
    hooked, exempt = set(rows("HOOK")), set(rows("EXEMPT"))
    concerned = {e for e, parameters in declared(major).items() if deals_in_memory(e, parameters)}
    assert len(concerned) > 150
    forgotten = {e for e in concerned - hooked if driver()[e][0] not in exempt}
    assert sorted(forgotten) == [], "hook them, or exempt them with the reason, in hooks.def"


@pytest.mark.parametrize("major", MAJORS)
def test_every_variant_of_the_headers_is_known(major: int) -> None:
    """What cuda.h declares, and what cudaTypedefs.h says of it: name, version, per-thread form."""
    assert sorted(declared(major).keys() - driver().keys()) == []
    typed = set(generator("driver_api").typed(wheel(major) / "include"))
    assert len(typed) > 600
    assert sorted(typed - {(export, *facts) for export, facts in driver().items()}) == []


def test_types_alone_find_what_a_new_name_would_hide() -> None:
    """Half of the rules by name could be wrong: what hands memory out is known by its types."""
    givers = "cuMemAlloc_v2 cuMemAllocPitch_v2 cuMemAllocManaged cuMemAllocAsync_ptsz cuMemCreate"
    givers += " cuMemPoolCreate cuArrayCreate_v2 cuArray3DCreate_v2 cuMipmappedArrayCreate"
    givers += " cuMemImportFromShareableHandle cuMemPoolImportPointer cuImportExternalMemory"
    givers += " cuExternalMemoryGetMappedBuffer cuIpcOpenMemHandle_v2 cuGraphAddMemAllocNode"
    givers += " cuGraphAddNode_v2 cuCtxCreate_v4 cuModuleLoadDataEx cuLibraryLoadData"
    for export in givers.split():
        assert deals_in_memory("cuNew", declared(13)[export]), export
    for export in ("cuLaunchKernel", "cuStreamCreate", "cuEventRecord", "cuMemsetD8_v2"):
        assert not deals_in_memory("cuNew", declared(13)[export]), export


def test_the_rules_see_every_hook_that_counts() -> None:
    # A rule that misses what is hooked today would miss its next variant too.
    counting = {row.name for row in described("COVER") if row.counted}
    hooks = [hook for hook in rows("HOOK") if driver()[hook][0] in counting]
    assert len(hooks) > 35
    assert [hook for hook in hooks if not deals_in_memory(hook)] == []


def test_no_function_twice_and_none_unknown() -> None:
    every = rows("HOOK") + rows("USE")
    assert sorted({row for row in every if every.count(row) > 1}) == []
    assert sorted(set(every) - driver().keys()) == []
    hooked = {driver()[hook][0] for hook in rows("HOOK")}
    names = rows("COVER") + rows("EXEMPT")
    assert sorted({name for name in names if names.count(name) > 1}) == []
    assert sorted(set(names) - {name for name, *_ in driver().values()}) == []
    assert sorted(hooked & set(rows("EXEMPT"))) == []


def test_every_variant_of_a_hooked_function_is_hooked() -> None:
    """All ABI versions, and the per-thread form of each."""
    hooked = set(rows("HOOK"))
    names = {driver()[hook][0] for hook in hooked}
    variants = {export for export, (name, _, _) in driver().items() if name in names}
    assert sorted(variants - hooked) == []


def test_users_are_told_of_every_hook() -> None:
    """One EMUV_COVER row a function, in the words that docs/coverage.md explains."""
    assert sorted(rows("COVER")) == sorted({driver()[hook][0] for hook in rows("HOOK")})
    for row in described("COVER"):
        assert row.counted in COUNTED, row
        assert row.spilled in ("", "yes", "no") or len(row.spilled.split()) > 1, row
        assert row.counted or row.spilled or row.notes, row
        assert bool(row.spilled) <= (row.counted in ("bytes", "measured")), row


def test_every_exemption_gives_a_reason() -> None:
    for row in described("EXEMPT"):
        assert len(row.notes.split()) >= 3, row
        # A gap is written down where users look.
        if row.notes.startswith("gap"):
            assert "not counted" in row.notes, row


def test_coverage_page_is_fresh() -> None:
    page = ROOT / "docs" / "coverage.md"
    assert page.read_text() == generator("coverage").page(), "hooks.def changed: run make coverage"


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
    # Beside the driver's own names: the loader's hooks, and emuv_reports.h for emuV's NVML.
    assert set(exported) - driver_functions == {"dlopen", "dlmopen", "emuv_reports"}
