# SPDX-License-Identifier: GPL-2.0-only
"""How much host RAM may be promised as virtual VRAM.

Spilled memory lives in kernel pages that cannot be swapped, so a promise that
the host cannot keep ends in the out-of-memory killer. The figure is the
smallest of MemAvailable and, for every memory cgroup from the process's own up
to the root, limit - usage + file cache (the kernel drops the cache before it
kills). cgroup v1, v2 and hybrid hosts are read the same way, through
/proc/self/mountinfo, so that a container's view is followed too.

Everything is read from files below `root` (tests give their own tree); a file
that is missing or malformed limits nothing.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

# cgroup v1 writes "no limit" as LONG_MAX rounded down to a page
_V1_UNLIMITED = 1 << 62


@dataclass(frozen=True)
class HostMemory:
    """`bytes` that may be promised, and the words that say what limits them."""

    bytes: int
    limited_by: str


def _read(path: str) -> str | None:
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None


def _read_int(path: str) -> int | None:
    text = (_read(path) or "").strip()
    return int(text) if text.isascii() and text.isdigit() else None


def _keyed(text: str, separator: str) -> dict[str, int]:
    """`key<separator>number …` lines as a dict; other lines are skipped."""
    values: dict[str, int] = {}
    for line in text.splitlines():
        key, found, rest = line.partition(separator)
        number = rest.split()[:1]
        if found and number and number[0].isdigit():
            values[key] = int(number[0])
    return values


def mem_available(root: str = "/") -> int | None:
    """MemAvailable of /proc/meminfo in bytes; None where the kernel has none."""
    kib = _keyed(_read(os.path.join(root, "proc/meminfo")) or "", ":").get("MemAvailable")
    return None if kib is None else kib * 1024


def _unescape(path: str) -> str:
    """mountinfo writes blanks and backslashes as three octal digits."""
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        path = path.replace(code, char)
    return path


def _hierarchies(root: str) -> list[tuple[int, str, str]]:
    """(version, mount point, own directory below it) of each memory hierarchy."""
    own: dict[int, str] = {}
    for line in (_read(os.path.join(root, "proc/self/cgroup")) or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) == 3 and fields[0] == "0" and not fields[1]:
            own[2] = fields[2]
        elif len(fields) == 3 and "memory" in fields[1].split(","):
            own[1] = fields[2]
    found: list[tuple[int, str, str]] = []
    for line in (_read(os.path.join(root, "proc/self/mountinfo")) or "").splitlines():
        left, dash, right = line.partition(" - ")
        before, after = left.split(), right.split()
        if not dash or len(before) < 5 or len(after) < 3:
            continue
        if after[0] == "cgroup2":
            version = 2
        elif after[0] == "cgroup" and "memory" in after[-1].split(","):
            version = 1
        else:
            continue
        if version not in own:
            continue
        mount_root, point = _unescape(before[3]), _unescape(before[4])
        path = own[version]
        # A bind mount (a container) shows only what is below `mount_root`.
        if mount_root != "/":
            if path == mount_root or path.startswith(mount_root + "/"):
                path = path[len(mount_root) :]
            else:
                path = ""
        found.append((version, point, path.strip("/")))
    return found


def _room(version: int, directory: str) -> tuple[int, str] | None:
    """(limit - usage + file cache, name of the limit) of one cgroup, or None."""
    stat = _keyed(_read(os.path.join(directory, "memory.stat")) or "", " ")
    if version == 2:
        limits = [
            (value, name)
            for name in ("memory.max", "memory.high")
            if (value := _read_int(os.path.join(directory, name))) is not None
        ]
        usage = _read_int(os.path.join(directory, "memory.current"))
        cache = stat.get("active_file", 0) + stat.get("inactive_file", 0)
    else:
        value = _read_int(os.path.join(directory, "memory.limit_in_bytes"))
        limits = [] if value is None or value >= _V1_UNLIMITED else [(value, "memory limit")]
        usage = _read_int(os.path.join(directory, "memory.usage_in_bytes"))
        cache = stat.get("total_active_file", 0) + stat.get("total_inactive_file", 0)
    if not limits or usage is None:
        return None
    limit, name = min(limits)
    return max(limit - max(usage - cache, 0), 0), name


def host_memory(root: str = "/") -> HostMemory | None:
    """The host RAM that may be promised now; None where nothing says.

    `root` stands for "/" in every path read.
    """
    best: HostMemory | None = None
    available = mem_available(root)
    if available is not None:
        best = HostMemory(available, "available memory")
    for version, point, path in _hierarchies(root):
        base = os.path.join(root, point.lstrip("/"))
        parts = [part for part in path.split("/") if part not in ("", ".", "..")]
        for depth in range(len(parts), -1, -1):
            room = _room(version, os.path.join(base, *parts[:depth]))
            if room is not None and (best is None or room[0] < best.bytes):
                where = "/" + "/".join(parts[:depth])
                best = HostMemory(room[0], f"{room[1]} of cgroup {where}")
    return best
