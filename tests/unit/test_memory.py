# SPDX-License-Identifier: GPL-2.0-only
"""Host RAM that may be promised: /proc/meminfo and both kinds of memory cgroup."""

from __future__ import annotations

from pathlib import Path

import pytest

from emuv_shim import _memory

MIB = 1 << 20
V2_MOUNT = "30 23 0:26 {root} /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n"
V1_MOUNT = "35 31 0:32 {root} /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n"


class Host:
    """A tree that stands for "/"."""

    def __init__(self, root: Path, available_mib: int = 16000) -> None:
        self.root = root
        self.write("proc/meminfo", f"MemTotal: 1 kB\nMemAvailable:   {available_mib * 1024} kB\n")

    def write(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def v2(self, own: str, root: str = "/") -> None:
        self.write("proc/self/cgroup", f"0::{own}\n")
        self.write("proc/self/mountinfo", V2_MOUNT.format(root=root))

    def v2_group(
        self, path: str, limit: str, usage: int, cache: int = 0, high: str = "max"
    ) -> None:
        base = f"sys/fs/cgroup{path}"
        self.write(f"{base}/memory.max", limit + "\n")
        self.write(f"{base}/memory.high", high + "\n")
        self.write(f"{base}/memory.current", f"{usage}\n")
        self.write(f"{base}/memory.stat", f"anon 1\ninactive_file {cache}\nactive_file 0\n")

    def answer(self) -> _memory.HostMemory:
        found = _memory.host_memory(str(self.root))
        assert found is not None
        return found


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_without_cgroups_it_is_mem_available(host: Host) -> None:
    assert host.answer() == _memory.HostMemory(16000 * MIB, "available memory")


def test_no_meminfo_and_no_cgroup_is_unknown(tmp_path: Path) -> None:
    assert _memory.host_memory(str(tmp_path)) is None


def test_v2_limit_of_own_group(host: Host) -> None:
    host.v2("/app")
    host.v2_group("/app", str(4096 * MIB), usage=1024 * MIB)

    assert host.answer() == _memory.HostMemory(3072 * MIB, "memory.max of cgroup /app")


def test_v2_tightest_ancestor_wins(host: Host) -> None:
    host.v2("/user/1/app")
    host.v2_group("/user/1/app", "max", usage=10 * MIB)
    host.v2_group("/user/1", str(8192 * MIB), usage=1024 * MIB)
    host.v2_group("/user", str(2048 * MIB), usage=1536 * MIB)

    assert host.answer() == _memory.HostMemory(512 * MIB, "memory.max of cgroup /user")


def test_v2_file_cache_can_be_dropped_and_counts_as_room(host: Host) -> None:
    host.v2("/app")
    host.v2_group("/app", str(4096 * MIB), usage=4000 * MIB, cache=3000 * MIB)

    assert host.answer().bytes == 3096 * MIB


def test_v2_memory_high_limits_too(host: Host) -> None:
    host.v2("/app")
    host.v2_group("/app", str(4096 * MIB), usage=0, high=str(1000 * MIB))

    assert host.answer() == _memory.HostMemory(1000 * MIB, "memory.high of cgroup /app")


def test_v2_usage_above_the_limit_is_no_room_not_negative(host: Host) -> None:
    host.v2("/app")
    host.v2_group("/app", str(100 * MIB), usage=200 * MIB)

    assert host.answer().bytes == 0


def test_container_sees_its_own_group_as_the_mount(host: Host) -> None:
    # GIVEN a bind mount of the container's group (no cgroup namespace)
    host.v2("/docker/abc", root="/docker/abc")
    host.v2_group("", str(1024 * MIB), usage=24 * MIB)

    assert host.answer() == _memory.HostMemory(1000 * MIB, "memory.max of cgroup /")


def test_group_outside_the_mount_falls_back_to_the_mount(host: Host) -> None:
    host.v2("/../elsewhere", root="/docker/abc")
    host.v2_group("", str(1024 * MIB), usage=0)

    assert host.answer().bytes == 1024 * MIB


def test_v1_limit_and_its_unlimited(host: Host) -> None:
    host.write("proc/self/cgroup", "9:name=systemd:/\n4:memory:/job/7\n0::/\n")
    host.write("proc/self/mountinfo", V1_MOUNT.format(root="/"))
    base = "sys/fs/cgroup/memory"
    for path, limit, usage in (("/job/7", 2048 * MIB, 548 * MIB), ("", (1 << 63) - 4096, 0)):
        host.write(f"{base}{path}/memory.limit_in_bytes", f"{limit}\n")
        host.write(f"{base}{path}/memory.usage_in_bytes", f"{usage}\n")
    host.write(f"{base}/job/7/memory.stat", f"total_inactive_file {48 * MIB}\n")

    assert host.answer() == _memory.HostMemory(1548 * MIB, "memory limit of cgroup /job/7")


@pytest.mark.parametrize("text", ["", "garbage\n", "0::\n", ":::::\n", "4:memory\n"])
def test_malformed_files_limit_nothing(host: Host, text: str) -> None:
    host.write("proc/self/cgroup", text)
    host.write("proc/self/mountinfo", text + V2_MOUNT.format(root="/"))
    host.v2_group("", "not a number", usage=0)

    assert host.answer().bytes == 16000 * MIB


def test_this_machine_has_some() -> None:
    found = _memory.host_memory()

    assert found is not None
    assert 0 < found.bytes < 1 << 50
