# SPDX-License-Identifier: GPL-2.0-only
"""Segment files: made whole and private, read consistently, refused when unsound."""

from __future__ import annotations

import errno
import os
import pwd
import signal
import stat
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from emuv_shim import _segment
from emuv_shim._segment import View, check_directory, locate_directory
from emuv_shim.errors import SegmentError
from tests.unit.segment_tools import ROOT, Writer, build

WRITER = ROOT / "tests" / "unit" / "segment_writer.c"
KNOWN = 3  # the device was seen, and its overhead measured


def create(directory: Path, *flags: str) -> str:
    """What the writer says when it is built with `flags` and makes one segment."""
    program = build(WRITER, *flags)
    done = subprocess.run(
        [str(program), str(directory), "1", "r", "0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    return done.stdout.strip()


def wrap(tmp_path: Path, name: str, code: str) -> tuple[str, ...]:
    """Compiler flags that put `code` in front of a C library function."""
    source = tmp_path / f"wrap_{name}.c"
    source.write_text(code)
    return (f"-Wl,--wrap={name}", str(source))


# The directory


def directory_of(env: dict[str, str]) -> tuple[str, ...]:
    """Where another process would put its segments: (path, exists) or (error, hint)."""
    code = (
        "from emuv_shim._segment import *\n"
        "from emuv_shim.errors import *\n"
        "try: print(*locate_directory(), sep='\\n')\n"
        "except SegmentError as e: print(e.message, e.hint, sep='\\n')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT), **env},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    return tuple(done.stdout.splitlines())


def test_the_directory_follows_the_environment(tmp_path: Path) -> None:
    xdg = tmp_path / "xdg"
    xdg.mkdir(mode=0o755)
    assert directory_of({"XDG_RUNTIME_DIR": str(xdg)}) == (str(xdg / "emuv"), "False")
    named = {"XDG_RUNTIME_DIR": str(xdg), "EMUV_RUNTIME_DIR": str(tmp_path / "mine")}
    assert directory_of(named) == (str(tmp_path / "mine"), "False")
    fallback = directory_of({"XDG_RUNTIME_DIR": str(tmp_path / "missing")})[0]
    assert fallback in (f"/tmp/emuv-{os.geteuid()}", f"/run/emuv/{os.geteuid()}")
    message, _ = directory_of({"EMUV_RUNTIME_DIR": "relative"})
    assert message == "EMUV_RUNTIME_DIR is 'relative'"


def test_the_directory_is_made_private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EMUV_RUNTIME_DIR", str(tmp_path / "made"))
    assert locate_directory() == (tmp_path / "made", False)
    assert not (tmp_path / "made").exists()
    assert locate_directory(create=True) == (tmp_path / "made", True)
    assert stat.S_IMODE((tmp_path / "made").stat().st_mode) == 0o700
    assert locate_directory(create=True) == (tmp_path / "made", True)


@pytest.mark.parametrize("kind", ["open", "link", "file", "fifo"])
def test_an_unsafe_directory_is_refused(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "runtime"
    if kind == "open":
        target.mkdir()
        target.chmod(0o710)
    elif kind == "link":
        (tmp_path / "real").mkdir(mode=0o700)
        target.symlink_to("real")
    elif kind == "file":
        target.touch(mode=0o600)
    else:
        os.mkfifo(target)
    with pytest.raises(SegmentError, match=f"'{target}'") as caught:
        check_directory(target)
    assert caught.value.hint
    answer = create(target)
    assert answer.startswith("error -")
    assert str(target) in answer


def test_a_directory_of_someone_else_is_refused() -> None:
    """Run as another user where this one is root; else look at one of root's."""
    if os.geteuid() != 0:
        with pytest.raises(SegmentError, match="belongs to user 0"):
            check_directory(Path("/"))
        return
    nobody = pwd.getpwnam("nobody")
    program = build(WRITER)
    mine = program.parent / "roots"
    mine.mkdir(mode=0o755, exist_ok=True)
    done = subprocess.run(
        [str(program), str(mine), "1", "r", "0"],
        user=nobody.pw_uid,
        group=nobody.pw_gid,
        extra_groups=[],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert f"belongs to user 0, not to user {nobody.pw_uid}" in done.stdout
    assert list(mine.iterdir()) == []


# Creating


def test_a_segment_is_private_whole_and_named_by_pid_and_start(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer:
        status = writer.path.stat()
        assert writer.path.name == f"{writer.pid}-{_segment.start_ticks(writer.pid)}.seg"
        assert stat.S_IMODE(status.st_mode) == 0o600
        assert status.st_size == _segment.native().ffi.sizeof("emuv_segment_t")
        assert status.st_blocks * 512 >= status.st_size  # its pages exist
        assert [path.name for path in runtime_dir.iterdir()] == [writer.path.name]


def test_an_exec_replaces_the_segment_of_the_former_image(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer:
        # GIVEN a file of the process's own name, as an exec leaves it
        program = build(WRITER)
        code = (
            "import os, sys, pathlib\n"
            "stat = pathlib.Path('/proc/self/stat').read_text().rpartition(')')[2].split()\n"
            "pathlib.Path(sys.argv[2], f'{os.getpid()}-{stat[19]}.seg').write_text('old')\n"
            "os.execv(sys.argv[1], sys.argv[1:])"
        )
        # WHEN the next image makes its segment
        done = subprocess.run(
            [sys.executable, "-c", code, str(program), str(runtime_dir), "1", "r", "0"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=20,
        )
        # THEN it is a sound one
        with View(done.stdout.strip()) as view:
            assert view.read().stats.driver_version == 13000
        assert len(list(runtime_dir.iterdir())) == 2
        assert writer.tell("control").startswith("0 ")


def test_a_link_in_the_way_is_not_followed(runtime_dir: Path, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_text("precious")
    code = (
        "import os, sys, pathlib\n"
        "stat = pathlib.Path('/proc/self/stat').read_text().rpartition(')')[2].split()\n"
        "os.symlink(sys.argv[-1], f'{sys.argv[2]}/{os.getpid()}-{stat[19]}.seg')\n"
        "os.execv(sys.argv[1], sys.argv[1:-1])"
    )
    command = [str(build(WRITER)), str(runtime_dir), "1", "r", "0", str(victim)]
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert victim.read_text() == "precious"
    made = Path(done.stdout.strip())
    assert not made.is_symlink()
    assert made.stat().st_size > 20000


def test_a_full_file_system_is_an_error_and_leaves_nothing(
    runtime_dir: Path, tmp_path: Path
) -> None:
    code = (
        "#include <errno.h>\n#include <sys/types.h>\n"
        "int __wrap_posix_fallocate(int, off_t, off_t);\n"
        "int __wrap_posix_fallocate(int fd, off_t at, off_t n)\n"
        "{ (void)fd; (void)at; (void)n; return ENOSPC; }\n"
    )
    answer = create(runtime_dir, *wrap(tmp_path, "posix_fallocate", code))
    assert answer.startswith(f"error -{errno.ENOSPC} no room for the segment")
    assert "EMUV_RUNTIME_DIR" in answer
    assert list(runtime_dir.iterdir()) == []


def test_a_limit_on_file_sizes_does_not_end_the_program(runtime_dir: Path) -> None:
    done = subprocess.run(
        ["sh", "-c", 'ulimit -f 1; exec "$0" "$@"', build(WRITER), runtime_dir, "1", "r", "0"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 1
    assert done.stdout.startswith(f"error -{errno.EFBIG} segment '{runtime_dir}")
    assert list(runtime_dir.iterdir()) == []


def test_file_systems_without_nameless_files_serve_too(runtime_dir: Path, tmp_path: Path) -> None:
    code = (
        "#define _GNU_SOURCE\n#include <errno.h>\n#include <fcntl.h>\n"
        "int __real_openat(int, const char *, int, int);\n"
        "int __wrap_openat(int, const char *, int, int);\n"
        "int __wrap_openat(int at, const char *path, int flags, int mode)\n"
        "{ if ((flags & O_TMPFILE) == O_TMPFILE) { errno = EOPNOTSUPP; return -1; }\n"
        "  return __real_openat(at, path, flags, mode); }\n"
    )
    path = Path(create(runtime_dir, *wrap(tmp_path, "openat", code)))
    assert list(runtime_dir.iterdir()) == [path]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with View(path) as view:
        assert not view.read().alive


# Reading


def test_a_snapshot_says_what_was_charged(runtime_dir: Path) -> None:
    with Writer(runtime_dir, devices=2) as writer:
        writer.charge(1, plain=100, managed=50, resident=20, overhead=7, flags=KNOWN)
        with View(writer.path) as view:
            snapshot = view.read()
    stats = snapshot.stats
    assert snapshot.alive
    assert (stats.pid, stats.run_id, stats.state) == (writer.pid, "r", "running")
    assert "\033" not in stats.command
    assert "\n" not in stats.command
    first, second = stats.devices
    assert (first.seen, first.card_bytes, first.overhead_bytes) == (False, None, None)
    assert first.resident_bytes is None
    assert (second.card_bytes, second.overhead_bytes, second.resident_bytes) == (2**30, 7, 20)
    assert (second.used_bytes, second.physical_bytes) == (157, 127)
    assert second.vram_bytes is None
    assert second.free_bytes is None
    assert list(second.calls.values()) == [7]


@pytest.mark.parametrize("pause", [0, 200, 5000])
def test_a_reader_beside_a_busy_writer_never_sees_a_torn_counter(
    runtime_dir: Path, pause: int
) -> None:
    with Writer(runtime_dir, devices=4) as writer, View(writer.path) as view:
        assert writer.tell(f"hammer 800 {pause}") == "started"
        limit = time.monotonic() + 0.7
        seen: set[int] = set()
        unsettled = 0
        while time.monotonic() < limit:
            stats = view.read().stats
            if not stats.counters_settled:  # handed out, and marked
                unsettled += 1
                continue
            values = {row.device_bytes for row in stats.devices}
            for row in stats.devices:
                values |= {row.managed_bytes, row.peak_used_bytes, *row.calls.values()}
            assert len(values) == 1
            seen |= values
        assert writer.line().startswith("done ")
        assert view.read().stats.counters_settled
    assert seen or not pause  # without a pause no reading need ever settle
    if pause == 5000:  # a change in a microsecond or two: readings settle
        assert unsettled <= len(seen) / 10


def test_a_writer_that_stands_still_half_way_delays_nobody_for_long(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, View(writer.path) as view:
        writer.charge(plain=100)
        assert writer.tell("stop") == "stopping"
        os.waitid(os.P_PID, writer.pid, os.WSTOPPED | os.WNOWAIT)
        begun = time.monotonic()
        snapshot = view.read()
        assert time.monotonic() - begun < 2
        assert snapshot.alive
        assert not snapshot.stats.counters_settled
        assert snapshot.stats.devices[0].device_bytes == 100
        os.kill(writer.pid, signal.SIGCONT)
        assert writer.line() == "continued"
        assert view.read().stats.counters_settled


def test_what_a_process_killed_half_way_left_can_be_read(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer:
        writer.charge(plain=100)
        assert writer.tell("odd") == "ok"
        writer.kill()
        with View(writer.path) as view:
            snapshot = view.read()
    assert not snapshot.alive
    assert not snapshot.stats.counters_settled
    assert snapshot.stats.devices[0].device_bytes == 100


def test_a_zombie_is_not_alive(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, View(writer.path) as view:
        assert view.read().alive
        writer.process.kill()
        os.waitid(os.P_PID, writer.pid, os.WEXITED | os.WNOWAIT)
        assert Path(f"/proc/{writer.pid}/stat").exists()
        assert not view.read().alive


def test_a_change_of_something_that_changed_meanwhile_is_refused(runtime_dir: Path) -> None:
    with (
        Writer(runtime_dir) as writer,
        View(writer.path, writable=True) as one,
        View(writer.path, writable=True) as two,
    ):
        first, second = one.read().control, two.read().control
        one.replace_control(replace(first, budgets=((1000, 0), *first.budgets[1:])))
        with pytest.raises(SegmentError, match="changed the budget meanwhile") as caught:
            two.replace_control(replace(second, budgets=((7, 0), *second.budgets[1:])))
        assert caught.value.errno == errno.ESTALE
        assert writer.tell("control") == "2 0 0 1000 0"
        two.replace_control(replace(second, budgets=((7, 0), *second.budgets[1:])), force=True)
        assert writer.tell("control") == "4 0 0 7 0"


@pytest.mark.parametrize(
    "change", [{"policy": 2}, {"allocation": 2}, {"budgets": ((2**63, 2**63),) * 32}]
)
def test_an_unsound_control_block_is_not_written(runtime_dir: Path, change: Any) -> None:
    with Writer(runtime_dir) as writer, View(writer.path, writable=True) as view:
        control = view.read().control
        with pytest.raises(SegmentError) as caught:
            view.replace_control(replace(control, **change))
        assert caught.value.errno == errno.EINVAL
        assert writer.tell("control").startswith("0 0 0 ")
        with View(writer.path) as reader, pytest.raises(SegmentError, match="reading only"):
            reader.replace_control(control)


def test_cutting_the_file_off_does_not_hurt_its_reader(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer:
        writer.kill()
        with View(writer.path, writable=True) as view:
            control = view.read().control
            os.truncate(writer.path, 700)
            with pytest.raises(SegmentError, match="cut off"):
                view.read()
            with pytest.raises(SegmentError, match="cannot be changed"):
                view.replace_control(control)
            assert writer.path.stat().st_size == 700


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620])
def test_a_file_open_to_others_is_refused(runtime_dir: Path, mode: int) -> None:
    with Writer(runtime_dir) as writer:
        writer.path.chmod(mode)
        with pytest.raises(SegmentError, match="open to others"):
            View(writer.path)


def test_a_closed_view_says_so(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer:
        view = View(writer.path)
        view.close()
        view.close()
        with pytest.raises(SegmentError, match="closed"):
            view.read()
