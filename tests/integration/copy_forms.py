# SPDX-License-Identifier: GPL-2.0-only
"""Every form of copy and set, between every sort of memory; run with and without emuV.

    copy_forms.py FILLER

Takes FILLER bytes of plain memory first, so that under a budget the rest has no room on the
device.  Prints JSON: of each form what bytes came of it, as a digest, and which driver
functions were called how often.  The bytes lie across the border of two 2 MiB blocks.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import json
import sys
from collections.abc import Iterator
from ctypes import POINTER, addressof, byref, c_char, c_size_t, c_uint64, c_void_p, cast
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))

from cuda_driver import AccessDesc, Array3DDescriptor, Driver, Location
from memory_types import (
    BLOCK,
    MIB,
    TYPE_ARRAY,
    TYPE_DEVICE,
    TYPE_HOST,
    TYPE_UNIFIED,
    BatchOp3D,
    CopyAttributes,
    Memcpy2D,
    Memcpy3D,
    pinned_prop,
)
from memory_types import pattern as made

SIZE = 4 * MIB
SPAN = 32 << 10  # of the bytes that are looked at
AT = BLOCK - SPAN // 2 + 64  # where they begin
PITCH, WIDTH, ROWS, LAYERS = 640, 480, 12, 3
pattern = functools.cache(made)


class Forms:
    """The memory, the forms, and what came of them."""

    def __init__(self, filler: int) -> None:
        self.d = Driver("libcuda.so.1")
        self.d.cuInit(0)
        self.context = self.d.new("cuDevicePrimaryCtxRetain", 0)
        self.d.cuCtxSetCurrent(self.context)
        self.stream = self.d.new("cuStreamCreate", 1)
        shape = Array3DDescriptor(WIDTH, ROWS, LAYERS, 1, 1, 0)
        self.row = self.d.new("cuArray3DCreate_v2", byref(Array3DDescriptor(SPAN, 0, 0, 1, 1, 0)))
        self.other = self.d.new("cuArray3DCreate_v2", byref(Array3DDescriptor(SPAN, 0, 0, 1, 1, 0)))
        self.block = self.d.new("cuArray3DCreate_v2", byref(shape))
        self.block2 = self.d.new("cuArray3DCreate_v2", byref(shape))
        if filler:
            self.d.new("cuMemAlloc_v2", filler)
        self.memory = {kind: (self.take(kind), self.take(kind)) for kind in KINDS}
        self.pinned = self.d.new("cuMemHostAlloc", 2 * SPAN, 0)
        self.own = (c_char * (2 * SPAN))()
        self.registered = (c_char * (2 * SPAN))()
        self.d.cuMemHostRegister_v2(self.registered, 2 * SPAN, 0)
        self.host = {
            "pageable": addressof(self.own),
            "pinned": self.pinned,
            "registered": addressof(self.registered),
        }
        self.results: dict[str, str] = {}
        self.called: dict[str, int] = {}

    def take(self, kind: str) -> int:
        """SIZE bytes of a kind of device memory; the address of what is looked at."""
        d = self.d
        if kind == "plain":
            return d.new("cuMemAlloc_v2", SIZE) + AT
        if kind == "stream":
            address = d.new("cuMemAllocAsync", SIZE, self.stream)
            d.cuStreamSynchronize(self.stream)
            return address + AT
        if kind == "managed":
            return d.new("cuMemAllocManaged", SIZE, 1) + AT
        if kind == "pitch":
            pitch = c_size_t()
            return d.new("cuMemAllocPitch_v2", byref(pitch), 4096, SIZE // 4096, 4) + AT
        handle = d.new("cuMemCreate", SIZE, byref(pinned_prop()), 0)
        address = d.new("cuMemAddressReserve", SIZE, 0, 0, 0)
        d.cuMemMap(address, SIZE, 0, handle, 0)
        d.cuMemSetAccess(address, SIZE, byref(AccessDesc(Location(1, 0), 3)), 1)
        return address + AT

    def fresh(self, a: int, b: int, host: int) -> None:
        """Known bytes in the source, the destination, the host's buffer and the arrays."""
        d = self.d
        d.cuMemcpyHtoD_v2(a, pattern(SPAN, 1), SPAN)
        d.cuMemcpyHtoD_v2(b, pattern(SPAN, 2), SPAN)
        ctypes.memmove(host, pattern(2 * SPAN, 3), 2 * SPAN)
        for number, array in enumerate((self.row, self.other)):
            d.cuMemcpyHtoA_v2(array, 0, pattern(SPAN, 4 + number), SPAN)
        for number, array in enumerate((self.block, self.block2)):
            data = (c_char * (WIDTH * ROWS * LAYERS))(*pattern(WIDTH * ROWS * LAYERS, 6 + number))
            d.cuMemcpy3D_v2(byref(Memcpy3D(
                src_type=TYPE_HOST, src_host=addressof(data), src_pitch=WIDTH, src_height=ROWS,
                dst_type=TYPE_ARRAY, dst_array=array, width=WIDTH, height=ROWS, depth=LAYERS,
            )))  # fmt: skip
        d.cuCtxSynchronize()

    def digest(self, a: int, b: int, host: int) -> str:
        """Of all that may have changed, and of the source, which must not have."""
        d, total = self.d, hashlib.sha256()
        d.cuCtxSynchronize()
        total.update(d.download(a, SPAN) + d.download(b, SPAN))
        total.update(ctypes.string_at(host, 2 * SPAN))
        back = (c_char * SPAN)()
        for array in (self.row, self.other):
            d.cuMemcpyAtoH_v2(back, array, 0, SPAN)
            total.update(back.raw)
        data = (c_char * (WIDTH * ROWS * LAYERS))()
        for array in (self.block, self.block2):
            d.cuMemcpy3D_v2(byref(Memcpy3D(
                src_type=TYPE_ARRAY, src_array=array, dst_type=TYPE_HOST,
                dst_host=addressof(data), dst_pitch=WIDTH, dst_height=ROWS,
                width=WIDTH, height=ROWS, depth=LAYERS,
            )))  # fmt: skip
            total.update(data.raw)
        return total.hexdigest()[:16]

    def run(self, name: str, a: int, b: int, host: int, function: str, *args: Any) -> None:
        """One form, from known bytes; an error is a result too."""
        self.fresh(a, b, host)
        code = self.d.code(function, *args)
        self.d.cuStreamSynchronize(self.stream)
        self.called[function] = self.called.get(function, 0) + 1
        self.results[f"{name} {function}"] = f"{code} {self.digest(a, b, host)}"


KINDS = ("plain", "stream", "managed", "pitch", "vmm")


def lines(f: Forms, a: int, b: int, h: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """One dimension: between device memory, the host and arrays."""
    n, s, x = SPAN - 1000, f.stream, f.context
    host = c_void_p(h + 7)
    plain: dict[str, tuple[Any, ...]] = {
        "cuMemcpy{}": (b + 11, a + 5, n),
        "cuMemcpyDtoD_v2{}": (b + 11, a + 5, n),
        "cuMemcpyHtoD_v2{}": (b + 11, host, n),
        "cuMemcpyDtoH_v2{}": (host, a + 5, n),
        "cuMemcpyPeer{}": (b + 11, x, a + 5, x, n),
        "cuMemcpyAtoD_v2{}": (b + 11, f.row, 9, n),
        "cuMemcpyDtoA_v2{}": (f.row, 9, a + 5, n),
        "cuMemcpyAtoH_v2{}": (host, f.row, 9, n),
        "cuMemcpyHtoA_v2{}": (f.row, 9, host, n),
        "cuMemcpyAtoA_v2{}": (f.other, 9, f.row, 3, n),
        "cuMemsetD8_v2{}": (b + 1, 0x5A, n),
        "cuMemsetD16_v2{}": (b + 2, 0x5A5B, n // 2),
        "cuMemsetD32_v2{}": (b + 4, 0x5A5B5C5D, n // 4),
        "cuMemsetD2D8_v2{}": (b + 1, PITCH, 0x5A, WIDTH, ROWS),
        "cuMemsetD2D16_v2{}": (b + 2, PITCH, 0x5A5B, WIDTH // 2, ROWS),
        "cuMemsetD2D32_v2{}": (b + 4, PITCH, 0x5A5B5C5D, WIDTH // 4, ROWS),
    }
    queued: dict[str, tuple[Any, ...]] = {
        "cuMemcpyAsync{}": (b + 11, a + 5, n, s),
        "cuMemcpyDtoDAsync_v2{}": (b + 11, a + 5, n, s),
        "cuMemcpyHtoDAsync_v2{}": (b + 11, host, n, s),
        "cuMemcpyDtoHAsync_v2{}": (host, a + 5, n, s),
        "cuMemcpyPeerAsync{}": (b + 11, x, a + 5, x, n, s),
        "cuMemcpyAtoHAsync_v2{}": (host, f.row, 9, n, s),
        "cuMemcpyHtoAAsync_v2{}": (f.row, 9, host, n, s),
        "cuMemsetD8Async{}": (b + 1, 0x5A, n, s),
        "cuMemsetD16Async{}": (b + 2, 0x5A5B, n // 2, s),
        "cuMemsetD32Async{}": (b + 4, 0x5A5B5C5D, n // 4, s),
        "cuMemsetD2D8Async{}": (b + 1, PITCH, 0x5A, WIDTH, ROWS, s),
        "cuMemsetD2D16Async{}": (b + 2, PITCH, 0x5A5B, WIDTH // 2, ROWS, s),
        "cuMemsetD2D32Async{}": (b + 4, PITCH, 0x5A5B5C5D, WIDTH // 4, ROWS, s),
    }
    for forms, suffix in ((plain, "_ptds"), (queued, "_ptsz")):
        for form, args in forms.items():
            yield form.format(""), args
            yield form.format(suffix), args


def sides(f: Forms, a: int, b: int, h: int) -> Iterator[tuple[str, dict[str, Any]]]:
    """Both ends of a box, each in the device's memory, by a unified address, the host, an array."""
    src: dict[str, dict[str, Any]] = {
        "device": {"src_type": TYPE_DEVICE, "src_device": a, "src_pitch": PITCH},
        "unified": {"src_type": TYPE_UNIFIED, "src_device": a, "src_pitch": PITCH},
        "host": {"src_type": TYPE_HOST, "src_host": h, "src_pitch": PITCH},
        "array": {"src_type": TYPE_ARRAY, "src_array": f.block},
    }
    dst: dict[str, dict[str, Any]] = {
        "device": {"dst_type": TYPE_DEVICE, "dst_device": b, "dst_pitch": PITCH},
        "unified": {"dst_type": TYPE_UNIFIED, "dst_device": b, "dst_pitch": PITCH},
        "host": {"dst_type": TYPE_HOST, "dst_host": h + SPAN, "dst_pitch": PITCH},
        "array": {"dst_type": TYPE_ARRAY, "dst_array": f.block2},
    }
    for source, one in src.items():
        for target, two in dst.items():
            yield f"{source} to {target}", {**one, **two}


def boxes(f: Forms, a: int, b: int, h: int) -> Iterator[tuple[str, str, tuple[Any, ...]]]:
    """Two and three dimensions, and those between contexts."""
    at = {"src_x": 16, "src_y": 1, "dst_x": 32, "dst_y": 2, "width": 400, "height": 8}
    for name, side in sides(f, a, b, h):
        flat = Memcpy2D(**at, **side)
        for suffix in ("_v2", "_v2_ptds"):
            yield name, "cuMemcpy2D" + suffix, (byref(flat),)
            yield name, "cuMemcpy2DUnaligned" + suffix, (byref(flat),)
        for suffix in ("_v2", "_v2_ptsz"):
            yield name, "cuMemcpy2DAsync" + suffix, (byref(flat), f.stream)
        deep = Memcpy3D(**at, **side, src_z=1, depth=2)
        for end in ("src", "dst"):
            if side[f"{end}_type"] != TYPE_ARRAY:
                setattr(deep, f"{end}_height", ROWS)
        for suffix in ("_v2", "_v2_ptds"):
            yield name, "cuMemcpy3D" + suffix, (byref(deep),)
        for suffix in ("_v2", "_v2_ptsz"):
            yield name, "cuMemcpy3DAsync" + suffix, (byref(deep), f.stream)
        peer = Memcpy3D.from_buffer_copy(deep)
        peer.src_context = peer.dst_context = f.context
        for suffix in ("", "_ptds"):
            yield name, "cuMemcpy3DPeer" + suffix, (byref(peer),)
        for suffix in ("", "_ptsz"):
            yield name, "cuMemcpy3DPeerAsync" + suffix, (byref(peer), f.stream)


def batches(f: Forms, a: int, b: int, h: int) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Several at once, all ways: to the device, from it, within it."""
    to = (c_uint64 * 3)(b, h + SPAN, b + 20000)
    of = (c_uint64 * 3)(a, a + 10000, h)
    sizes = (c_size_t * 3)(10000, 20000, 9000)
    attributes, first = CopyAttributes(order=1), c_size_t(0)
    failed = c_size_t()
    for suffix in ("", "_ptsz", "_v2", "_v2_ptsz"):
        last = [] if "_v2" in suffix else [byref(failed)]
        args = (to, of, sizes, 3, byref(attributes), byref(first), 1, *last, f.stream)
        yield "cuMemcpyBatchAsync" + suffix, args
    ops = (BatchOp3D * 3)()
    for op, (source, target) in zip(ops, ((a, b), (h, b + 16000), (a, 0)), strict=True):
        op.src.type, op.src.place.pointer.ptr = 1, source
        op.src.place.pointer.row_length, op.src.place.pointer.layer_height = PITCH, ROWS
        op.dst.type = 1 if target else 2
        if target:
            op.dst.place.pointer.ptr = target
        else:
            op.dst.place.array.array = f.block2
        op.width, op.height, op.depth, op.order = 300, 7, 2, 1
    for suffix in ("", "_ptsz", "_v2", "_v2_ptsz"):
        last = [] if "_v2" in suffix else [byref(failed)]
        args = (3, cast(ops, POINTER(BatchOp3D)), *last, 0, f.stream)
        yield "cuMemcpy3DBatchAsync" + suffix, args


def main() -> None:
    f = Forms(int(sys.argv[1]))
    for kind, (a, b) in f.memory.items():
        # The host's memory varies with the kind, but for plain memory, which meets all.
        hosts = f.host if kind == "plain" else {"pinned": f.pinned}
        for where, h in hosts.items():
            for function, args in lines(f, a, b, h):
                if where != "pageable" and function.endswith(("_ptds", "_ptsz")):
                    continue
                f.run(f"{kind} {where}", a, b, h, function, *args)
            for function, args in batches(f, a, b, h):
                f.run(f"{kind} {where}", a, b, h, function, *args)
        for name, function, args in boxes(f, a, b, h):
            # A thread's default stream changes nothing of where the bytes are.
            if kind != "plain" and function.endswith(("_ptds", "_ptsz")):
                continue
            f.run(f"{kind} {name}", a, b, h, function, *args)
    # From one kind to the next.
    for one, two in zip(KINDS, KINDS[1:] + KINDS[:1], strict=True):
        a, b = f.memory[one][0], f.memory[two][1]
        f.run(f"{one} to {two}", a, b, f.pinned, "cuMemcpyDtoD_v2", b, a, SPAN)
    print(json.dumps({"results": f.results, "called": f.called}))


if __name__ == "__main__":
    main()
