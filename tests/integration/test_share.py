# SPDX-License-Identifier: GPL-2.0-only
"""Memory between processes under emuV: imports are told and not charged, exports explained.

The exporter is a process under emuV or a plain one; what a program asks of spilled memory
gets the driver's answer, and one line.
"""

from __future__ import annotations

from collections.abc import Callable

from tests.integration.shim_tools import MIB, Child, run_child

ShimEnv = Callable[..., dict[str, str]]

# A second process that this one asks: no emuV in it unless it inherits it.
EXPORTER = """
import os
from cuda_driver import AccessDesc, PoolProps
from ctypes import Structure, c_char, c_void_p, create_string_buffer
from peer import Peer
class Handle(Structure):
    _fields_ = [("x", c_char * 64)]
plain = os.environ["EMUV_DRIVER"]
def taken():
    b = books()
    return [b[n] // 4096 for n in ("device_bytes", "managed_bytes", "imported_bytes")]
d = started()
"""


def share(shim_env: ShimEnv, code: str, **budget: int) -> Child:
    budget = budget or {"vram": 8 * MIB, "virtual": 64 * MIB}
    return run_child(shim_env(**budget), EXPORTER + code)


def lines(child: Child) -> list[str]:
    return [line for line in child.stderr.splitlines() if "--keep-device" in line]


def test_opened_memory_is_told_and_not_charged(shim_env: ShimEnv) -> None:
    """32 MiB of another process in a budget of 8: opened twice, closed twice."""
    child = share(
        shim_env,
        """
with Peer(plain, LD_PRELOAD="") as peer:
    peer.run("p = driver.new('cuMemAlloc_v2', 32 << 20); driver.upload(p, b'theirs')")
    handle = Handle.from_buffer_copy(peer.ask("handle_of(p)"))
    steps = [taken()]
    here = d.new("cuIpcOpenMemHandle_v2", handle, 1)
    steps.append(taken())
    again = d.new("cuIpcOpenMemHandle", handle, 1)
    steps.append(taken())
    text = d.download(here, 6).decode()
    free = d.memory_info()[0]
    d.cuIpcCloseMemHandle(again)
    steps.append(taken())
    d.cuIpcCloseMemHandle(here)
    steps.append(taken())
    code = d.code("cuIpcCloseMemHandle", here)
answer(steps=steps, text=text, free=free, code=code, same=here == again)
""",
    )
    held = [0, 0, 32 * 256]
    assert child.answer["steps"] == [[0, 0, 0], held, held, held, [0, 0, 0]]
    assert child.answer["text"] == "theirs"
    assert child.answer["free"] == 72 * MIB
    assert (child.answer["code"], child.answer["same"]) == (1, True)
    assert not lines(child)


def test_a_context_ends_and_its_imports_with_it(shim_env: ShimEnv) -> None:
    child = share(
        shim_env,
        """
with Peer(plain, LD_PRELOAD="") as peer:
    peer.run("p = driver.new('cuMemAlloc_v2', 4 << 20)")
    context = d.new("cuCtxCreate_v2", 0, 0)
    here = d.new("cuIpcOpenMemHandle_v2", Handle.from_buffer_copy(peer.ask("handle_of(p)")), 1)
    pinned = d.new("cuMemHostAlloc", 4096, 0)
    steps = [taken(), books()["pinned_bytes"]]
    d.cuCtxDestroy_v2(context)
    steps += [taken(), books()["pinned_bytes"]]
answer(steps=steps)
""",
    )
    assert child.answer["steps"] == [[0, 0, 1024], 4096, [0, 0, 0], 0]


def test_device_memory_of_a_program_under_emuv_is_shared(shim_env: ShimEnv) -> None:
    """The peer is plain and opens what this one, under its budget, has on the device."""
    child = share(
        shim_env,
        """
with Peer(plain, LD_PRELOAD="") as peer:
    p = d.new("cuMemAlloc_v2", MIB)
    d.upload(p, b"shared")
    handle = Handle()
    d.cuIpcGetMemHandle(byref(handle), p)
    peer.run(f"h = create_string_buffer({bytes(handle)!r}, 64)")
    peer.run("class H(Structure): _fields_ = [('x', c_char * 64)]")
    peer.run("q = driver.new('cuIpcOpenMemHandle_v2', H.from_buffer_copy(h), 1)")
    text = peer.ask("driver.download(q, 6)").decode()
answer(text=text, steps=taken())
""",
    )
    assert child.answer == {"text": "shared", "steps": [256, 0, 0]}


def test_spilled_memory_has_no_handle_and_one_line_says_why(shim_env: ShimEnv) -> None:
    child = share(
        shim_env,
        """
d.new("cuMemAlloc_v2", 7 * MIB)
p = d.new("cuMemAlloc_v2", 16 * MIB)
handle = Handle()
codes = [d.code("cuIpcGetMemHandle", byref(handle), p + at) for at in (0, 4096)]
codes.append(d.code("cuPointerSetAttribute", byref(c_uint(1)), 6, p))
q = d.new("cuMemAllocAsync", 16 * MIB, None)
codes.append(d.code("cuMemPoolExportPointer", byref(handle), q))
codes.append(d.code("cuMemGetHandleForAddressRange", byref(c_int()), p, 4096, 1, 0))
answer(codes=codes, calls=books()["calls"]["cuIpcGetMemHandle"])
""",
    )
    assert child.answer["codes"][:4] == [1, 1, 1, 1]
    assert child.answer["codes"][4] != 0
    assert child.answer["calls"] == 2
    (line,) = lines(child)
    assert line == (
        "emuv: cuIpcGetMemHandle: the driver refused memory that was spilled to the host; "
        "a larger --vram, or --keep-device, keeps it on the device"
    )


def test_what_fails_for_another_reason_is_not_explained(shim_env: ShimEnv) -> None:
    child = share(
        shim_env,
        """
pinned = d.new("cuMemAllocHost_v2", 4096)
managed = d.new("cuMemAllocManaged", 4096, 1)
handle = Handle()
codes = [d.code("cuIpcGetMemHandle", byref(handle), a) for a in (pinned, managed, 0, 12345)]
answer(codes=codes)
""",
    )
    assert child.answer == {"codes": [1, 1, 1, 1]}
    assert not lines(child)


MAPPED = """
def mapped(handle, size):
    at = d.new("cuMemAddressReserve", size, 0, 0, 0)
    d.cuMemMap(at, size, 0, handle, 0)
    d.cuMemSetAccess(at, size, byref(AccessDesc(Location(1, 0), 3)), 1)
    return at
prop = AllocationProp(1, 1, Location(1, 0))
"""


def test_an_imported_handle_is_told_when_it_is_mapped(shim_env: ShimEnv) -> None:
    """It has no size before; its bytes go with the last handle and the last mapping."""
    child = share(
        shim_env,
        MAPPED
        + """
own = d.new("cuMemCreate", 2 * MIB, byref(prop), 0)
fd = d.get(c_int, "cuMemExportToShareableHandle", own, 1, 0)
handle = d.new("cuMemImportFromShareableHandle", fd, 1)
os.close(fd)
steps = [taken()]
a, b = mapped(handle, 2 * MIB), mapped(handle, 2 * MIB)
steps.append(taken())
d.upload(a, b"same")
text = d.download(b, 4).decode()
d.cuMemRelease(handle)
d.cuMemUnmap(a, 2 * MIB)
steps.append(taken())
d.cuMemUnmap(b, 2 * MIB)
steps.append(taken())
d.cuMemRelease(own)
steps.append(taken())
answer(steps=steps, text=text)
""",
    )
    own, both = [512, 0, 0], [512, 0, 512]
    assert child.answer["steps"] == [own, both, both, own, [0, 0, 0]]
    assert child.answer["text"] == "same"


def test_pool_memory_of_another_process(shim_env: ShimEnv) -> None:
    child = share(
        shim_env,
        """
with Peer(plain, LD_PRELOAD="") as peer:
    peer.run('''
pool = driver.new("cuMemPoolCreate", byref(PoolProps(1, 1, Location(1, 0))))
p = driver.new("cuMemAllocFromPoolAsync", 24 << 20, pool, None)
driver.upload(p, b"pooled")
data = (c_char * 64)()
driver.cuMemPoolExportPointer(data, p)
fd = driver.get(c_int, "cuMemPoolExportToShareableHandle", pool, 1, 0)
socket.send_fds(link, [b"x"], [fd])
''')
    fds = __import__("socket").recv_fds(peer.link, 1, 1)[1]
    pool = d.new("cuMemPoolImportFromShareableHandle", fds[0], 1, 0)
    data = create_string_buffer(peer.ask("data.raw"), 64)
    steps = []
    for free in ("cuMemFree_v2", "cuMemFreeAsync"):
        p = d.new("cuMemPoolImportPointer", pool, data)
        steps.append(taken())
        text = d.download(p, 6).decode()
        d.code(free, p, None)
        d.cuCtxSynchronize()
        steps.append(taken())
answer(steps=steps, text=text)
""",
    )
    assert child.answer["steps"] == [[0, 0, 6144], [0, 0, 0]] * 2
    assert child.answer["text"] == "pooled"


def test_pinned_memory_is_told(shim_env: ShimEnv) -> None:
    child = share(
        shim_env,
        """
page = 4096
def pinned():
    return books()["pinned_bytes"] // page
a = d.new("cuMemAllocHost_v2", 2 * page)
b = d.new("cuMemHostAlloc", 3 * page, 0)
c = d.new("cuMemAllocHost", 4 * page)
own = create_string_buffer(9 * page)
d.cuMemHostRegister_v2(own, 5 * page, 0)
steps = [pinned()]
refused = d.code("cuMemHostRegister_v2", own, page, 0), d.code("cuMemFreeHost", own)
steps.append(pinned())
d.cuMemFreeHost(c_void_p(a)); steps.append(pinned())
d.cuMemFreeHost(c_void_p(b)); steps.append(pinned())
d.cuMemFreeHost(c_void_p(c)); steps.append(pinned())
d.cuMemHostUnregister(own); steps.append(pinned())
answer(steps=steps, refused=[bool(code) for code in refused], free=d.memory_info()[0])
""",
    )
    assert child.answer["steps"] == [14, 14, 12, 9, 5, 0]
    assert child.answer["refused"] == [True, True]
    assert child.answer["free"] == 72 * MIB
