# SPDX-License-Identifier: GPL-2.0-only
"""cuGetProcAddress: what the driver means by name, version and flag, and emuV's where hooked."""

from __future__ import annotations

import re
from collections.abc import Callable

from tests.conftest import ROOT
from tests.integration.shim_tools import MIB, run_child

ShimEnv = Callable[..., dict[str, str]]

SIM_VERSION = 13000

# Asks for every row of the driver's list in front of emuV, and says for each whether the
# answer is in libemuv.so, in the driver, or nothing.
ASK = """
import re
class Info(ctypes.Structure):
    _fields_ = [("file", ctypes.c_char_p), ("base", ctypes.c_void_p), ("name", ctypes.c_char_p),
                ("at", ctypes.c_void_p)]
libc = ctypes.CDLL(None)
def where(pointer):
    info = Info()
    if not pointer or not libc.dladdr(ctypes.c_void_p(pointer), byref(info)):
        return None
    exact = info.name and info.at == pointer
    return [os.path.basename(info.file.decode()), info.name.decode() if exact else None]
d = started()
text = open(os.environ["EMUV_TEST_LIST"]).read()
rows = re.findall(r"^EMUV_API\\((\\w+), (\\w+), (\\d+), ([01])\\)$", text, re.M)
found = {}
for export, name, version, flag in rows:
    out, status = ctypes.c_void_p(), c_int()
    code = d.code("cuGetProcAddress_v2", name.encode(), byref(out), int(version), 2 * int(flag),
                  byref(status))
    old = ctypes.c_void_p()
    code_old = d.code("cuGetProcAddress", name.encode(), byref(old), int(version), 2 * int(flag))
    found[export] = [code, code_old, where(out.value), out.value == old.value]
answer(found=found)
"""


def rows() -> dict[str, int]:
    """Exports and the versions that introduced them."""
    text = (ROOT / "csrc" / "common" / "driver_api.def").read_text()
    found = re.findall(r"^EMUV_API\((\w+), \w+, (\d+), [01]\)$", text, re.M)
    return {export: int(version) for export, version in found}


def hooks() -> set[str]:
    text = (ROOT / "csrc" / "shim" / "hooks.def").read_text()
    return set(re.findall(r"^EMUV_HOOK\((\w+),", text, re.M))


def test_every_row_of_the_drivers_list(shim_env: ShimEnv) -> None:
    # GIVEN a program that asks for everything there is, by the version that introduced it
    listing = str(ROOT / "csrc" / "common" / "driver_api.def")
    child = run_child(shim_env(vram=64 * MIB, EMUV_TEST_LIST=listing), ASK)
    found = child.answer["found"]
    versions = rows()
    assert found.keys() == versions.keys()
    wrong = {}
    for export, (code, code_old, place, same) in found.items():
        if versions[export] > SIM_VERSION:
            continue  # the driver has it not, or answers an older one of the name
        # THEN both forms of the call answer alike: the hook where there is one, else the driver
        wanted = ["libemuv.so" if export in hooks() else "libcuda.so.1", export]
        if (code, code_old, place, same) != (0, 0, wanted, True):
            wrong[export] = (code, code_old, place, same)
    assert wrong == {}
    assert sum(export in hooks() for export in found) == len(hooks())


def test_what_the_driver_does_not_know_stays_unknown(
    shim_env: ShimEnv, sim_env: dict[str, str]
) -> None:
    code = """
        d = started()
        def ask(name, version, flags, form="_v2"):
            out, status = c_uint64(99), c_int(99)
            more = [byref(status)] if form else []
            code = d.code("cuGetProcAddress" + form, name, byref(out), version, flags, *more)
            return [code, bool(out.value), status.value if form else None]
        answer(asked=[
            ask(b"", 0, 0), ask(b"", 0, 0, ""), ask(b"curs_set", 13000, 0), ask(b"cuMemAlloc_v2", 13000, 0),
            ask(b"cuMemAllocAsync", 11010, 0), ask(b"cuMemAlloc", 1000, 0), ask(b"cuMemAlloc", 0, 0),
            ask(b"cuMemAlloc", -5, 0), ask(b"cuMemAlloc", 13000, 8), ask(b"cuMemGetLocationInfo", 13040, 0),
            ask(None, 13000, 0),
        ], null=d.code("cuGetProcAddress_v2", b"cuMemAlloc", None, 13000, 0, None))
    """  # noqa: E501
    plain = run_child(sim_env, code)
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer == plain.answer


def test_versions_choose_the_abi(shim_env: ShimEnv) -> None:
    """A program that asks with 3010 gets 32-bit pointers, and is counted in that form."""
    code = """
        d = started()
        def ask(name, version, flags=0):
            out = ctypes.c_void_p()
            assert d.code("cuGetProcAddress_v2", name, byref(out), version, flags, None) == 0
            return ctypes.CFUNCTYPE(c_int, ctypes.c_void_p, c_size_t)(out.value)
        small = c_uint()
        codes = [ask(b"cuMemAlloc", 3010)(ctypes.addressof(small), MIB)]
        large = c_uint64()
        codes += [ask(b"cuMemAlloc", v)(ctypes.addressof(large), MIB) for v in (3020, 11030, 13000)]
        codes += [ask(b"cuMemAlloc", 13000, 2)(ctypes.addressof(large), MIB)]
        answer(codes=codes, calls=books()["calls"], charged=books()["device_bytes"])
    """
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer["codes"] == [0] * 5
    assert child.answer["calls"]["cuMemAlloc"] == 1
    assert child.answer["calls"]["cuMemAlloc_v2"] == 4
    assert child.answer["charged"] == 5 * MIB


def test_before_cuinit(shim_env: ShimEnv, sim_env: dict[str, str]) -> None:
    """libcudart looks everything up, and asks the version, before it initialises."""
    code = """
        d = Driver("libcuda.so.1")
        version, out = c_int(), c_uint64()
        codes = [
            d.code("cuDriverGetVersion", byref(version)),
            d.code("cuGetProcAddress_v2", b"cuMemAlloc", byref(out), 12000, 0, None),
            d.code("cuGetProcAddress", b"cuInit", byref(out), 11030, 0),
            d.code("cuMemAlloc_v2", byref(out), MIB), d.code("cuMemFree_v2", 4096),
            d.code("cuDeviceTotalMem_v2", byref(out), 0),
            d.code("cuDeviceGetCount", byref(version)),
            d.code("cuMemGetInfo_v2", None, None), d.code("cuStreamCreate", byref(out), 0),
        ]
        codes.append(d.code("cuInit", 0))
        codes.append(d.code("cuInit", 0))  # twice is legal
        codes.append(d.code("cuInit", 5))
        answer(codes=codes)
    """
    plain = run_child(sim_env, code)
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer == plain.answer
    assert child.answer["codes"][:3] == [0, 0, 0]
    assert child.answer["codes"][3] == 3  # not initialised


def test_unhooked_functions_are_the_drivers_in_every_argument(
    shim_env: ShimEnv, sim_env: dict[str, str]
) -> None:
    # GIVEN forwarded calls: few arguments, many, on the stack, structures by pointer, floats back
    code = """
        from memory_types import Memcpy2D
        d = started()
        name = (ctypes.c_char * 64)()
        d.cuDeviceGetName(name, 64, 0)
        a = d.new("cuMemAlloc_v2", MIB)
        d.upload(a, bytes(range(256)) * 16)
        host = (ctypes.c_char * 64)()
        copy = Memcpy2D(src_type=2, src_device=a + 5, src_pitch=256, dst_type=1,
                        dst_host=ctypes.addressof(host), dst_pitch=8, width=8, height=8)
        d.cuMemcpy2D_v2(byref(copy))
        d.cuMemsetD2D32_v2(a, 512, 0x01020304, 16, 4)
        s, e, f = stream(d), d.new("cuEventCreate", 0), d.new("cuEventCreate", 0)
        d.cuEventRecord(e, s)
        d.cuEventRecord(f, s)
        d.cuStreamSynchronize(s)
        ms = ctypes.c_float(-1)
        d.cuEventElapsedTime_v2(byref(ms), e, f)
        launch = d.code("cuLaunchKernel", 0, 1, 1, 1, 1, 1, 1, 0, 0, None, None)
        answer(name=name.value.decode(), row=list(bytes(host)), memset=list(d.download(a + 512, 8)),
               ms=ms.value >= 0, launch=launch, attribute=d.attribute(16), error=d.error_name(2))
    """
    plain = run_child(sim_env, code)
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer == plain.answer
    assert child.answer["ms"] is True


def test_every_export_of_the_driver_is_there(shim_env: ShimEnv) -> None:
    """Programs disable CUDA when one look-up fails: all names exist, emuV's or the driver's."""
    code = """
        import re
        d = started()
        text = open(os.environ["EMUV_TEST_LIST"]).read()
        names = re.findall(r"^EMUV_API\\((\\w+),", text, re.M)
        missing = [n for n in names if not hasattr(d.dll, n)]
        # One that this driver is too old for answers so, and does not crash.
        newer = d.code("cuMemGetLocationInfo", 0, 0, 0, 0)
        answer(missing=missing, newer=newer)
    """
    listing = str(ROOT / "csrc" / "common" / "driver_api.def")
    child = run_child(shim_env(vram=64 * MIB, EMUV_TEST_LIST=listing), code)
    assert child.answer == {"missing": [], "newer": 36}
