# SPDX-License-Identifier: GPL-2.0-only
"""Memory as PyTorch's expandable segments take it: the driver calls, in their order.

A segment reserves 9/8 of the memory that the device reports and grows in pages of one
size: a handle each, mapped, access for the device in one call over all new pages.  Out
of memory at any page: those of this step are released, and nothing has grown.  Handles
are asked for to be shared by a fabric first and then by file descriptor, and capable of
GPUDirect RDMA where the device is.
"""

from __future__ import annotations

from ctypes import byref, c_int, c_size_t, c_uint64
from typing import Any

from cuda_driver import AccessDesc, AllocationProp, Driver, Location

OOM = 2
PINNED, DEVICE, READ_WRITE = 1, 1, 3
NO_TYPE, FILE_DESCRIPTOR, FABRIC = 0, 1, 8
RDMA_WITH_VMM_SUPPORTED = 110


class Segment:
    """Addresses on `device`, some of them with memory."""

    def __init__(self, d: Driver, page: int, device: int = 0, rdma: int | None = None) -> None:
        total = c_size_t()
        d.cuDeviceTotalMem_v2(byref(total), device)
        self.d, self.page, self.device = d, page, device
        self.most = (total.value + total.value // 8 + page - 1) // page
        self.base: int = d.new("cuMemAddressReserve", page * self.most, 0, 0, 0)
        self.handles: dict[int, int] = {}
        self.types: int | None = None  # not known yet
        self.rdma = d.attribute(RDMA_WITH_VMM_SUPPORTED, device) if rdma is None else rdma

    def __len__(self) -> int:
        return len(self.handles)

    def address(self, page: int) -> int:
        return self.base + page * self.page

    def _create(self, types: int) -> tuple[int, int]:
        prop = AllocationProp(
            PINNED, types, Location(DEVICE, self.device), None, 0, int(bool(self.rdma)), 0
        )
        handle = c_uint64()
        return self.d.code("cuMemCreate", byref(handle), self.page, byref(prop), 0), handle.value

    def grow(self, first: int, count: int) -> bool:
        """Memory for pages [first, first + count); False: out of memory, and none was taken."""
        made: dict[int, int] = {}
        for page in range(first, first + count):
            if self.types is None:
                code, handle = self._create(FABRIC)
                self.types = FABRIC if code in (0, OOM) else FILE_DESCRIPTOR
                if self.types == FILE_DESCRIPTOR:
                    code, handle = self._create(FILE_DESCRIPTOR)
            else:
                code, handle = self._create(self.types)
            if code:
                assert code == OOM, f"cuMemCreate: {code}"
                for handle in made.values():
                    self.d.cuMemRelease(handle)
                return False
            made[page] = handle
        for page, handle in made.items():
            self.d.cuMemMap(self.address(page), self.page, 0, handle, 0)
        access = AccessDesc(Location(DEVICE, self.device), READ_WRITE)
        self.d.cuMemSetAccess(self.address(first), count * self.page, byref(access), 1)
        self.handles |= made
        return True

    def shrink(self, first: int, count: int) -> None:
        """Gives the memory of pages back; the addresses stay."""
        self.d.cuCtxSynchronize()
        for page in range(first, first + count):
            self.d.cuMemUnmap(self.address(page), self.page)
            self.d.cuMemRelease(self.handles.pop(page))

    def close(self) -> None:
        for page in list(self.handles):
            self.shrink(page, 1)
        self.d.cuMemAddressFree(self.base, self.page * self.most)


def fill(d: Driver, segment: Segment, page: int, seed: int) -> None:
    """Words that say whose they are, over a whole page, by the device."""
    d.cuMemsetD32_v2(segment.address(page), word(page, seed), segment.page // 4)


def word(page: int, seed: int) -> int:
    return (page * 2654435761 + seed * 40503 + 1) & 0xFFFFFFFF


def holds(d: Driver, segment: Segment, page: int, seed: int) -> bool:
    wanted = word(page, seed).to_bytes(4, "little")
    return d.download(segment.address(page), segment.page) == wanted * (segment.page // 4)


def shared(d: Driver, handle: int) -> tuple[int, int]:
    """The codes of exporting a handle and of importing it again."""
    fd, again = c_int(-1), c_uint64()
    code = d.code("cuMemExportToShareableHandle", byref(fd), handle, FILE_DESCRIPTOR, 0)
    if code:
        return code, code
    imported = d.code("cuMemImportFromShareableHandle", byref(again), fd.value, FILE_DESCRIPTOR)
    if imported == 0:
        d.cuMemRelease(again.value)
    return code, imported


__all__: list[Any] = ["Segment", "fill", "holds", "shared", "word"]
