# SPDX-License-Identifier: GPL-2.0-only
"""What modules take: code, globals and managed variables are in the budget."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.integration.shim_tools import MIB, OOM, run_child

ShimEnv = Callable[..., dict[str, str]]

CODE = 6 * MIB  # what a module's code takes on this simulated card

TOOLS = """
import ctypes
PTX = '''.version 8.0
.target sm_80
.address_size 64
.visible .global .align 4 .b8 table[8388608];
.visible .global .attribute(.managed) .align 4 .b8 shared_with_host[%d];
.visible .entry nothing() { ret; }
'''
d = started()
def load(managed=20 * MIB):
    return d.new("cuModuleLoadData", (PTX % managed).encode() + b"\\0")
def library(managed=20 * MIB):
    return d.new("cuLibraryLoadData", (PTX % managed).encode() + b"\\0", None, None, 0, None,
                 None, 0)
def where(call, handle, name):
    address, size = c_uint64(), c_size_t()
    d.check(call, byref(address), byref(size), handle, name)
    return address.value, size.value
def state():
    b = books()
    return [card_used(d) // MIB, b["overhead_bytes"] // MIB, b["physical_bytes"] // MIB]
"""


def program(code: str) -> str:
    """A program after TOOLS."""
    import textwrap

    return TOOLS + textwrap.dedent(code)


def test_code_and_globals_are_charged(shim_env: ShimEnv) -> None:
    """The naive way: six modules and 60 MiB are 96 of 64 MiB."""
    # GIVEN modules of 6 MiB of code and a table of 8 MiB each, on a budget of 64
    code = program("""
        steps = [state()]
        a, b = load(), load()
        steps.append(state())
        where("cuModuleGetGlobal_v2", a, b"table")
        # WHEN the program allocates all it can
        got = 0
        while d.code("cuMemAlloc_v2", byref(c_uint64()), MIB) == 0:
            got += 1
        steps.append(state())
        # AND loads one more, which nobody refuses
        c = load()
        steps.append(state())
        refused = d.code("cuMemAlloc_v2", byref(c_uint64()), 4096)
        for module in (a, b, c):
            d.cuModuleUnload(module)
        steps.append(state())
        answer(steps=steps, got=got, refused=refused)
    """)
    child = run_child(shim_env(vram=64 * MIB, EMUV_SIM_MODULE=str(CODE)), code)
    got = child.answer
    # THEN all of that is in the books, which say what the card does, and is given back
    assert got["steps"][0] == [0, 0, 0]
    assert got["steps"][1] == [12, 12, 12]
    assert got["got"] == 64 - 12 - 8
    assert got["steps"][2] == [64, 20, 64]
    assert got["steps"][3] == [70, 26, 70]
    assert got["refused"] == OOM
    assert got["steps"][4] == [44, 0, 44]


def test_heads_of_spilled_ranges_make_room_for_code(shim_env: ShimEnv) -> None:
    code = program("""
        d.new("cuMemAlloc_v2", 40 * MIB)
        spilled = d.new("cuMemAlloc_v2", 40 * MIB)
        before = [resident(d, spilled, 40 * MIB) // MIB, *state()]
        load()
        d.new("cuMemAlloc_v2", 4096)
        answer(before=before, after=[resident(d, spilled, 40 * MIB) // MIB, *state()])
    """)
    env = shim_env(vram=64 * MIB, virtual=64 * MIB, EMUV_SIM_MODULE=str(CODE))
    child = run_child(env, code)
    assert child.answer["before"] == [24, 64, 0, 64]
    assert child.answer["after"][1] <= 64
    assert child.answer["after"][2] == 6


def test_a_library_is_loaded_when_it_is_used(shim_env: ShimEnv) -> None:
    # GIVEN a library, of which the driver loads the code when a kernel is asked for
    code = program("""
        handle = library()
        steps = [state()]
        d.new("cuKernelGetFunction", d.new("cuLibraryGetKernel", handle, b"nothing"))
        # WHEN the program allocates all it can
        got = 0
        while d.code("cuMemAlloc_v2", byref(c_uint64()), MIB) == 0:
            got += 1
        steps.append(state())
        d.cuLibraryUnload(handle)
        steps.append(state())
        answer(got=got, steps=steps)
    """)
    child = run_child(shim_env(vram=64 * MIB, EMUV_SIM_MODULE=str(CODE)), code)
    # THEN the code was found before the card had more than the budget
    assert child.answer["steps"][0] == [0, 0, 0]
    assert child.answer["got"] == 58
    assert child.answer["steps"][1] == [64, 6, 64]
    assert child.answer["steps"][2] == [58, 0, 58]


def test_however_it_is_loaded(shim_env: ShimEnv, tmp_path: Path) -> None:
    # GIVEN the same code as text and in a file
    code = program(f"""
        text = (PTX % 4096).encode() + b"\\0"
        path = {str(tmp_path / "code.ptx")!r}.encode()
        open(path, "wb").write(text)
        none = (None, None, 0)
        ways = {{
            "cuModuleLoad": (path,), "cuModuleLoadData": (text,), "cuModuleLoadFatBinary": (text,),
            "cuModuleLoadDataEx": (text, 0, None, None),
            "cuLibraryLoadData": (text, *none, *none),
            "cuLibraryLoadFromFile": (path, *none, *none),
        }}
        found = {{}}
        for way, arguments in ways.items():
            handle = d.new(way, *arguments)
            if "Library" in way:
                d.new("cuKernelGetFunction", d.new("cuLibraryGetKernel", handle, b"nothing"))
            pieces = []
            while d.code("cuMemAlloc_v2", byref(piece := c_uint64()), MIB) == 0:
                pieces.append(piece.value)
            full = state()
            for piece in pieces:
                d.cuMemFree_v2(piece)
            d.check("cuLibraryUnload" if "Library" in way else "cuModuleUnload", handle)
            found[way] = [len(pieces), full, state()]
        answer(found=found)
    """)
    child = run_child(shim_env(vram=64 * MIB, EMUV_SIM_MODULE=str(CODE)), code)
    # THEN what it takes is in the budget, until it is unloaded
    for way, found in child.answer["found"].items():
        assert found == [58, [64, 6, 64], [0, 0, 0]], way
    assert len(child.answer["found"]) == 6


@pytest.mark.parametrize("route", ["module", "library", "library's global"])
def test_managed_variables(shim_env: ShimEnv, route: str) -> None:
    # GIVEN managed variables of 40 MiB each, of which one fits
    code = program(f"""
        name = b"shared_with_host"
        if "{route}" == "module":
            make, ask, drop = load, "cuModuleGetGlobal_v2", d.cuModuleUnload
        else:
            ask = "cuLibraryGetManaged" if "{route}" == "library" else "cuLibraryGetGlobal"
            make, drop = library, d.cuLibraryUnload
        modules = [make(40 * MIB) for _ in range(3)]
        found = [where(ask, m, name) for m in modules]
        again = where(ask, modules[0], name)
        full = held()
        # WHEN all of them are used on the device
        for address, size in found:
            d.cuMemsetD8_v2(address, 7, size)
        on_card = card_used(d)
        rows = [list(d.download(address + 39 * MIB, 2)) for address, _ in found]
        for m in modules:
            drop(m)
        answer(same=again == found[0], full=full, on_card=on_card, rows=rows, end=held(),
               left=card_used(d), uncounted=books()["uncounted_calls"])
    """)
    child = run_child(shim_env(vram=64 * MIB, virtual=40 * MIB), code)
    got = child.answer
    # THEN one migrates as it likes, the others stay on the host: promised to it or not
    assert got["same"]
    assert got["full"] == [40 * MIB, 40 * MIB, 24 * MIB, 2]
    assert got["on_card"] <= 64 * MIB
    assert got["rows"] == [[7, 7]] * 3
    assert got["uncounted"] == 1
    assert got["end"] == [0] * 4
    assert got["left"] == 0


def test_managed_variables_are_charged_whatever_must_stay_on_the_device(shim_env: ShimEnv) -> None:
    # GIVEN a rule for all sizes, and a variable that the device has no room for
    code = program("""
        d.new("cuMemAlloc_v2", 60 * MIB)
        where("cuModuleGetGlobal_v2", load(20 * MIB), b"shared_with_host")
        b = books()
        answer(held=held()[:2], denials=b["denials"], uncounted=b["uncounted_calls"])
    """)
    child = run_child(
        shim_env(vram=64 * MIB, virtual=40 * MIB, EMUV_KEEP_DEVICE="0-1073741824"), code
    )
    # THEN it is on the host like any other, and charged: the driver has made it already
    assert child.answer == {"held": [60 * MIB, 20 * MIB], "denials": 0, "uncounted": 0}


def test_a_context_takes_its_modules_with_it(shim_env: ShimEnv) -> None:
    code = program("""
        primary = d.new("cuCtxGetCurrent")
        context = d.new("cuCtxCreate_v2", 0, 0)
        where("cuModuleGetGlobal_v2", load(), b"shared_with_host")
        handle = library()
        d.new("cuLibraryGetModule", handle)
        full = state()
        d.cuCtxDestroy_v2(context)
        d.cuCtxSetCurrent(primary)
        middle = [*held(), *state()]
        d.cuLibraryUnload(handle)
        d.cuDevicePrimaryCtxReset_v2(0)
        answer(full=full, middle=middle, end=[*held(), *state()])
    """)
    child = run_child(shim_env(vram=64 * MIB, EMUV_SIM_MODULE=str(CODE)), code)
    assert child.answer["full"][0] == 12
    assert child.answer["middle"][:4] == [0] * 4
    assert child.answer["middle"][4] == 0
    assert child.answer["end"] == [0] * 7
