# SPDX-License-Identifier: GPL-2.0-only
"""Cubins and fat binaries, written by hand: headers and names, no machine code."""

from __future__ import annotations

import ctypes
import ctypes.util
import struct
from collections.abc import Sequence
from dataclasses import dataclass

PTX, CUBIN = 1, 2
LZ4, ZSTD = 0x2000, 0x8000


@dataclass(frozen=True)
class Kernel:
    """A kernel and the (offset, size) of each of its parameters."""

    name: str
    parameters: Sequence[tuple[int, int]] = ()
    shared: int = 0


def cubin(*kernels: Kernel, target: int = 80) -> bytes:
    """An ELF file as ptxas lays it out: per kernel a symbol, code, and .nv.info."""
    names, strings = bytearray(b"\0"), bytearray(b"\0")
    body = bytearray(64)
    sections: list[list[int]] = [[0] * 10]

    def section(name: str, kind: int, data: bytes, size: int | None = None, **more: int) -> int:
        fields = {"link": 0, "info": 0, "entry": 0, **more}
        at = len(names)
        names.extend(name.encode() + b"\0")
        offset = len(body)
        body.extend(data)
        sections.append([at, kind, 0, 0, offset, size or len(data), fields["link"],
                         fields["info"], 8, fields["entry"]])  # fmt: skip
        return len(sections) - 1

    symbols = bytearray(24)
    for kernel in kernels:
        code = section(f".text.{kernel.name}", 1, bytes(16), info=24 << 24)
        info = b"".join(
            struct.pack("<BBHIHHI", 4, 0x17, 12, 0, i, offset, size << 18)
            for i, (offset, size) in enumerate(kernel.parameters)
        )
        section(f".nv.info.{kernel.name}", 0x70000000, info, info=code)
        if kernel.shared:
            section(f".nv.shared.{kernel.name}", 8, b"", kernel.shared, info=code)
        symbols += struct.pack("<IBBHQQ", len(strings), 0x12, 0x10, code, 0, 16)
        strings.extend(kernel.name.encode() + b"\0")
    texts = section(".strtab", 3, bytes(strings))
    section(".symtab", 2, bytes(symbols), link=texts, entry=24)
    header_names = section(".shstrtab", 3, b"")
    sections[header_names][4:6] = [len(body), len(names)]
    body += names
    start = len(body)
    for fields in sections:
        body += struct.pack("<IIQQQQIIQQ", *fields)
    ident = b"\x7fELF\x02\x01\x01\x41\x07" + bytes(7)
    body[:64] = ident + struct.pack(
        "<HHIQQQIHHHHHH", 2, 190, 1, 0, 0, start, target, 64, 0, 0, 64, len(sections), header_names
    )
    return bytes(body)


def lz4(data: bytes) -> bytes:
    """An LZ4 block: a literal byte, a match that repeats it where the text begins so, the rest."""
    out, rest, run = bytearray(), data, len(data) - len(data.lstrip(data[:1]))
    if run > 19:
        count = run - 1 - 4
        out += bytes([0x1F]) + data[:1] + b"\x01\x00"
        count -= 15
        while count >= 255:
            out.append(255)
            count -= 255
        out.append(count)
        rest = data[run:]
    length = len(rest)
    out.append(0xF0 if length >= 15 else length << 4)
    if length >= 15:
        length -= 15
        while length >= 255:
            out.append(255)
            length -= 255
        out.append(length)
    return bytes(out) + rest


def zstd(data: bytes) -> bytes | None:
    """A zstd frame, by the machine's own library; None where it has none."""
    try:
        library = ctypes.CDLL("libzstd.so.1")
    except OSError:
        return None
    room = ctypes.create_string_buffer(len(data) + 1000)
    compress = library.ZSTD_compress
    compress.restype = ctypes.c_size_t
    compress.argtypes = [ctypes.c_char_p, ctypes.c_size_t, ctypes.c_char_p, ctypes.c_size_t,
                         ctypes.c_int]  # fmt: skip
    size = compress(room, len(room), data, len(data), 3)
    return room.raw[:size]


def member(
    kind: int, target: int, code: bytes, flags: int = 0, packed: bytes | None = None
) -> bytes:
    """A member of a fat binary; `packed` as `flags` say."""
    data = code if packed is None else packed
    padded = data + bytes(-len(data) % 8)
    return struct.pack(
        "<HHIQIIIIQQQQ", kind, 0x101, 64, len(padded), len(packed) if packed is not None else 0,
        0, 0, target, 0, 0x11 | flags, 0, len(code) if packed is not None else 0,
    ) + padded  # fmt: skip


def fatbin(*members: bytes) -> bytes:
    """A fat binary of members."""
    body = b"".join(members)
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body
