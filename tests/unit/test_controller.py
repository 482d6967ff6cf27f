# SPDX-License-Identifier: GPL-2.0-only
"""The controller: who runs, live budgets, several controllers at once, hostile files."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
import subprocess
import sys
import time
from pathlib import Path

import jsonschema
import pytest
import referencing

from emuv_shim import _segment
from emuv_shim.budget import Budget
from emuv_shim.controller import Controller
from emuv_shim.errors import (
    BudgetTooSmall,
    EmuvError,
    NotAttached,
    SegmentError,
    SizeError,
    Stale,
)
from tests.unit.segment_tools import ROOT, Writer, build

MIB = 2**20
GIB = 2**30
CONTROL_AT = 512  # tests/layout holds this against the header
UNLIMITED = 2**64 - 1


def schema(name: str) -> jsonschema.Draft202012Validator:
    folder = ROOT / "emuv_shim" / "schemas"
    texts = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    registry = referencing.Registry().with_resources(
        (text["$id"], referencing.Resource.from_contents(text)) for text in texts
    )
    wanted = next(text for text in texts if text["$id"] == f"urn:emuv:{name}:1")
    return jsonschema.Draft202012Validator(wanted, registry=registry)


# Who runs


def test_a_missing_directory_holds_no_processes(tmp_path: Path) -> None:
    with Controller(tmp_path / "missing") as controller:
        assert controller.processes() == []
        assert controller.clean() == ()
        with pytest.raises(NotAttached):
            controller.get(os.getpid())


def test_processes_are_listed_and_found_by_pid(runtime_dir: Path) -> None:
    with (
        Writer(runtime_dir) as one,
        Writer(runtime_dir, devices=3) as two,
        Controller(runtime_dir) as controller,
    ):
        found = controller.processes()
        assert {process.pid for process in found} == {one.pid, two.pid}
        assert controller.warnings == ()
        assert len(controller.stats(two.pid).devices) == 3
        assert controller.get(one.pid).budget() == Budget()
        document = controller.scan().to_json()
    schema("ps").validate(json.loads(json.dumps({**document, "unmanaged": None})))
    assert len(document["processes"]) == 2


def test_one_that_wrote_its_end_is_dead_although_its_pid_lives(runtime_dir: Path) -> None:
    # As a killed pid namespace leaves it: pid 1, and the start of the outer pid 1.
    with Writer(runtime_dir, keep=True) as writer, Controller(runtime_dir) as controller:
        assert controller.get(writer.pid).alive
        state_at = _segment.native().ffi.offsetof("emuv_segment_t", "state")
        with writer.path.open("r+b") as file:
            file.seek(state_at)
            file.write(struct.pack("<I", 2))  # EMUV_STATE_EXITED
        assert controller.processes() == []
        (process,) = controller.scan(stale=True).processes
        assert (process.alive, process.stats.state) == (False, "exited")
        with pytest.raises(Stale):
            controller.get(writer.pid)


@pytest.mark.parametrize("pid", [None, True, "4242", 1.0])
def test_what_is_no_pid_reaches_no_process(runtime_dir: Path, pid: object) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        with pytest.raises(EmuvError, match="the process id is"):
            controller.set_budget(pid, Budget(vram="1GiB"))  # type: ignore[arg-type]
        with pytest.raises(EmuvError, match="the process id is"):
            controller.get(pid)  # type: ignore[arg-type]
        assert controller.get(writer.pid).budget() == Budget()
        with pytest.raises(EmuvError, match="the budget is '1GiB'"):
            controller.set_budget(writer.pid, "1GiB")  # type: ignore[arg-type]


def test_a_process_is_found_among_more_files_than_are_listed(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        monkeypatch.setattr("emuv_shim.controller.MAX_ENTRIES", 0)
        assert controller.processes() == []
        assert "more than 0 entries" in controller.warnings[0].message
        assert controller.get(writer.pid).pid == writer.pid
        controller.set_budget(writer.pid, Budget(vram="1GiB"))
        assert controller.get(writer.pid).budget() == Budget(vram=GIB)


def test_errors_say_why_a_process_is_not_there(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        with pytest.raises(NotAttached, match=f"process {os.getpid()} has no segment") as caught:
            controller.get(os.getpid())
        assert "emuv-run" in (caught.value.hint or "")
        with pytest.raises(NotAttached, match="there is no process 2147483646"):
            controller.get(2147483646)
        writer.kill()
        with pytest.raises(Stale, match=f"process {writer.pid} has ended"):
            controller.get(writer.pid)
        with pytest.raises(Stale):
            controller.set_budget(writer.pid, Budget("1GiB"))
        assert controller.processes() == []
        assert len(controller.scan(stale=True).processes) == 1


def test_a_reused_pid_is_not_taken_for_the_process(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        # GIVEN a segment of this pid by a process that started earlier
        start = _segment.start_ticks(writer.pid)
        old = runtime_dir / f"{writer.pid}-{start - 1}.seg"
        data = bytearray(writer.path.read_bytes())
        data[24:32] = struct.pack("=Q", start - 1)
        old.touch(mode=0o600)
        old.write_bytes(data)
        # THEN the living one is found, and the other is stale
        assert controller.get(writer.pid).start_ticks == start
        assert controller.clean() == (str(old),)
        assert writer.path.exists()


def test_watch_yields_listings_and_ends(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        seen = []
        for listing in controller.watch(0.02, count=3):
            seen.append(listing.processes[0].stats.devices[0].device_bytes)
            writer.charge(plain=seen[-1] + 1)
        assert seen == [0, 1, 2]
        with pytest.raises(EmuvError, match="interval is nan"):
            next(controller.watch(float("nan")))


# Live budgets


def test_a_budget_reaches_the_process(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        change = controller.set_budget(writer.pid, Budget("4GiB", "8GiB"))
        assert change.old == {0: Budget()}
        assert change.new == {0: Budget(4 * GIB, 8 * GIB)}
        assert (change.generation, change.applied, change.repaired) == (2, False, False)
        assert writer.tell("control") == f"2 1 0 {4 * GIB} {8 * GIB}"
        assert writer.tell("apply") == "ok"
        change = controller.set_budget(writer.pid, Budget(), wait_seconds=0.0)
        assert change.old == {0: Budget(4 * GIB, 8 * GIB)}
        assert writer.tell("control") == f"4 0 0 {UNLIMITED} 0"
        assert controller.get(writer.pid).stats.applied_generation == 2
        assert json.loads(json.dumps(change.to_json()))["devices"][0]["new"]["vram_bytes"] is None


def test_percentages_are_of_the_card(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        with pytest.raises(SizeError, match="size is not known"):
            controller.set_budget(writer.pid, Budget("50%"))
        writer.charge(plain=0)
        change = controller.set_budget(writer.pid, Budget("50%", "1.5x"))
        assert change.new == {0: Budget(512 * MIB, 768 * MIB)}


def test_one_device_of_several(runtime_dir: Path) -> None:
    with Writer(runtime_dir, devices=2) as writer, Controller(runtime_dir) as controller:
        controller.set_budget(writer.pid, Budget("1GiB", "1GiB"))
        change = controller.set_budget(writer.pid, Budget("2GiB"), device=1)
        assert list(change.new) == [1]
        process = controller.get(writer.pid)
        assert process.budget(0) == Budget(GIB, GIB)
        assert process.budget(1).vram_bytes == 2 * GIB
        assert process.stats.devices[1].virtual_bytes == 0
        assert process.stats.policy == "spill"  # the first still does
        for device in (-1, 2, 99):
            with pytest.raises(EmuvError, match=f"has no device {device}"):
                controller.set_budget(writer.pid, Budget("2GiB"), device=device)


def test_an_update_leaves_the_rest_alone(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        controller.set_budget(writer.pid, Budget("1GiB", "2GiB"))
        assert controller.update_budget(writer.pid, vram="3GiB").new == {
            0: Budget(3 * GIB, 2 * GIB)
        }
        assert controller.update_budget(writer.pid, policy="cap").new == {0: Budget(3 * GIB)}
        assert controller.update_budget(writer.pid, virtual="1x").new == {
            0: Budget(3 * GIB, 3 * GIB)
        }
        with pytest.raises(SizeError, match="policy is 'cap', but virtual is '1GiB'"):
            controller.update_budget(writer.pid, virtual="1GiB", policy="cap")


def test_what_cannot_be_reclaimed_is_said(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        writer.charge(plain=300, managed=900, resident=100, overhead=50)
        cases = {460: (0, 0), 400: (50, 0), 350: (100, 0), 200: (100, 150)}
        for vram, (demotable, unreclaimed) in cases.items():
            (row,) = controller.set_budget(writer.pid, Budget(vram, 1000)).devices
            assert row.physical_bytes == 450
            assert (row.demotable_bytes, row.unreclaimed_bytes) == (demotable, unreclaimed)
        assert controller.set_budget(writer.pid, Budget()).unreclaimed_bytes == {0: 0}


def test_a_budget_below_the_contexts_is_refused(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        writer.charge(overhead=300 * MIB)
        with pytest.raises(BudgetTooSmall, match=r"200 MiB is less than .* 300 MiB") as caught:
            controller.set_budget(writer.pid, Budget("200MiB"))
        assert (caught.value.vram_bytes, caught.value.overhead_bytes) == (200 * MIB, 300 * MIB)
        assert writer.tell("control").startswith("0 ")
        controller.set_budget(writer.pid, Budget("300MiB"))
        writer.charge(overhead=300 * MIB, flags=7)  # only an upper bound: no reason to refuse
        controller.set_budget(writer.pid, Budget("200MiB"))


def test_waiting_ends_when_the_process_takes_it_up_and_at_the_limit(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        begun = time.monotonic()
        assert not controller.set_budget(writer.pid, Budget(GIB), wait_seconds=0.2).applied
        assert 0.2 <= time.monotonic() - begun < 5
        with pytest.raises(EmuvError, match="wait_seconds is inf"):
            controller.set_budget(writer.pid, Budget(GIB), wait_seconds=float("inf"))
        code = (
            "import sys; from emuv_shim.controller import *; from emuv_shim.budget import *\n"
            f"c = Controller({str(runtime_dir)!r}); pid = {writer.pid}\n"
            "print(c.set_budget(pid, Budget(5), wait_seconds=20).applied)"
        )
        waiting = subprocess.Popen(
            [sys.executable, "-c", code],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        limit = time.monotonic() + 20
        while not writer.tell("control").startswith("4 "):
            assert time.monotonic() < limit
        writer.tell("apply")
        assert waiting.communicate(timeout=20)[0].strip() == "True"


# Several controllers


HAMMER = """
import sys
from emuv_shim.controller import Controller
from emuv_shim.budget import Budget
directory, pid, first, times = sys.argv[1], *map(int, sys.argv[2:])
print("ready", flush=True)
sys.stdin.readline()
with Controller(directory) as controller:
    for n in range(times):
        size = (first << 32) + (first << 16) + n % 9 + 1
        controller.set_budget(pid, Budget(size, size))
"""


def test_two_controllers_and_a_reader_never_mix_their_budgets(runtime_dir: Path) -> None:
    with Writer(runtime_dir, devices=32) as writer, Controller(runtime_dir) as controller:
        controller.set_budget(writer.pid, Budget(1, 1))
        before, times = controller.get(writer.pid).stats.generation, 40
        assert writer.tell("watch") == "started"
        command = [sys.executable, "-c", HAMMER, str(runtime_dir), str(writer.pid)]
        hammers = [
            subprocess.Popen(
                [*command, str(first), str(times)],
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for first in (5, 1000)
        ]
        assert [hammer.stdout.readline() for hammer in hammers if hammer.stdout] == ["ready\n"] * 2
        for hammer in hammers:
            assert hammer.stdin is not None
            print(file=hammer.stdin, flush=True)
        for hammer in hammers:
            hammer.communicate(timeout=60)
        assert [hammer.returncode for hammer in hammers] == [0, 0]
        words = writer.tell("").split()
        counts = dict(zip(words[::2], map(int, words[1::2]), strict=True))
        assert counts["torn"] == 0
        assert counts["changes"] > 10
        # every change is there: none was lost, none was counted twice
        assert controller.get(writer.pid).stats.generation == before + 2 * 2 * times


def test_a_controller_killed_half_way_is_repaired_by_the_next(
    runtime_dir: Path, tmp_path: Path
) -> None:
    # GIVEN a controller that dies after the first of its two halves
    source = tmp_path / "killed.c"
    source.write_text(
        "#include <signal.h>\n#include <stdlib.h>\n#include <sys/types.h>\n"
        '#include "emuv_segment_file.h"\n'
        "ssize_t __real_pwrite(int, const void *, size_t, off_t);\n"
        "ssize_t __wrap_pwrite(int, const void *, size_t, off_t);\n"
        "ssize_t __wrap_pwrite(int fd, const void *p, size_t n, off_t at)\n"
        "{ static int calls; if (++calls == 3) raise(SIGKILL);\n"
        "  return __real_pwrite(fd, p, n, at); }\n"
        "int main(int argc, char **argv)\n"
        "{ emuv_segment_view_t *view; emuv_control_t control = { 0 }; emuv_error_t error;\n"
        "  (void)argc; control.budget[0].vram_bytes = 77;\n"
        "  if (emuv_segment_open(argv[1], 1, &view, &error)) return 1;\n"
        "  return emuv_segment_set_control(view, &control, &error); }\n"
    )
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        program = build(source, "-Wl,--wrap=pwrite")
        assert subprocess.run([program, writer.path], timeout=20).returncode == -9
        # THEN the process keeps what it had, and readers are told
        assert writer.tell("control") == f"rc {-errno.EAGAIN}"
        stats = controller.get(writer.pid).stats
        assert not stats.budget_settled
        assert stats.generation == 1
        # WHEN the next controller writes
        change = controller.set_budget(writer.pid, Budget("1GiB"))
        # THEN all is well again
        assert change.repaired
        assert change.generation == 2
        assert writer.tell("control") == f"2 0 0 {GIB} 0"
        assert controller.get(writer.pid).stats.budget_settled


def test_a_controller_that_holds_the_lock_delays_others_for_a_second(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        with writer.path.open("r+b") as held:
            lock = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
            fcntl.fcntl(held, 37, lock)  # F_OFD_SETLK
            begun = time.monotonic()
            with pytest.raises(SegmentError, match="another controller has held it") as caught:
                controller.set_budget(writer.pid, Budget("1GiB"))
            assert 0.9 < time.monotonic() - begun < 5
            assert caught.value.errno == errno.ETIMEDOUT
        controller.set_budget(writer.pid, Budget("1GiB"))


# Collecting


def test_only_the_dead_are_removed(runtime_dir: Path) -> None:
    with (
        Writer(runtime_dir) as alive,
        Writer(runtime_dir) as dead,
        Writer(runtime_dir, run_id="other", keep=True) as kept,
        Controller(runtime_dir) as controller,
    ):
        dead.kill()
        kept.kill()
        (runtime_dir / ".new-1-1.seg").touch()
        (runtime_dir / "notes.txt").touch()
        assert controller.clean() == (str(dead.path), str(runtime_dir / ".new-1-1.seg"))
        names = {path.name for path in runtime_dir.iterdir()}
        assert names == {alive.path.name, kept.path.name, "notes.txt"}
        # a day later its launcher will not come back
        with kept.path.open("r+b") as file:
            file.seek(32)
            file.write(struct.pack("=Q", time.time_ns() - 25 * 3600 * 10**9))
        assert controller.clean() == (str(kept.path),)


def test_what_another_emuv_left_goes_after_a_day(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as alive, Controller(runtime_dir) as controller:
        theirs = runtime_dir / f"{alive.pid}-1.seg"
        running = runtime_dir / f"{os.getpid()}-{_segment.start_ticks(os.getpid())}.seg"
        for path in (theirs, running):
            path.touch(mode=0o600)
            path.write_bytes(b"another layout")
        assert controller.clean() == ()
        day_ago = time.time() - 25 * 3600
        for path in (theirs, running, alive.path):
            os.utime(path, (day_ago, day_ago))
        assert controller.clean() == (str(theirs),)
        assert {path.name for path in runtime_dir.iterdir()} == {running.name, alive.path.name}


@pytest.mark.parametrize("longer", [0, 4096], ids=["same size", "other size"])
def test_a_living_process_of_another_layout_is_not_to_be_removed(
    runtime_dir: Path, longer: int
) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        with writer.path.open("r+b") as file:
            file.seek(8)
            file.write(struct.pack("=I", 99))
            file.truncate(writer.path.stat().st_size + longer)
        assert controller.processes() == []
        (warning,) = controller.warnings
        assert "has version 99" in warning.message
        assert warning.hint == "use the emuV that the process runs under"


def test_no_name_names_no_run(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as nameless, Controller(runtime_dir) as controller:
        assert controller.get(nameless.pid).stats.name == ""
        for text in ("", "  "):
            with pytest.raises(NotAttached):
                controller.update_run_budget(text, vram="1GiB")
        assert controller.get(nameless.pid).budget() == Budget()


# Hostile files


def test_hostile_files_are_skipped_with_a_warning(runtime_dir: Path) -> None:
    with Writer(runtime_dir) as writer, Controller(runtime_dir) as controller:
        sound = writer.path.read_bytes()
        name = iter(f"{n}-{n}.seg" for n in range(1000, 2000))

        def plant(data: bytes) -> None:
            path = runtime_dir / next(name)
            path.touch(mode=0o600)
            path.write_bytes(data)

        def patched(at: int, value: bytes) -> bytes:
            return sound[:at] + value + sound[at + len(value) :]

        (runtime_dir / "garbage").write_bytes(b"\0" * 10)
        plant(b"")
        plant(b"\xff" * len(sound))
        plant(os.urandom(len(sound)))
        plant(sound[:-1])
        plant(sound + b"\0")
        plant(patched(8, struct.pack("=I", 99)))  # version
        plant(patched(12, struct.pack("=I", 2**32 - 1)))  # size
        plant(patched(16, struct.pack("=i", -1)))  # pid
        plant(patched(48, struct.pack("=I", 33)))  # devices
        plant(patched(56, struct.pack("=I", 2**31)))  # functions
        plant(sound)  # of another process than its name says
        huge = runtime_dir / next(name)
        huge.touch(mode=0o600)
        os.truncate(huge, 2**40)
        os.mkfifo(runtime_dir / next(name), 0o600)
        (runtime_dir / next(name)).symlink_to(writer.path)
        (runtime_dir / next(name)).symlink_to("/dev/zero")
        (runtime_dir / next(name)).mkdir(mode=0o700)
        (runtime_dir / "sub").mkdir()
        planted = len(list(runtime_dir.iterdir())) - 1

        begun = time.monotonic()
        assert [process.pid for process in controller.processes()] == [writer.pid]
        assert time.monotonic() - begun < 5
        assert len(controller.warnings) == planted
        assert all(str(runtime_dir) in warning.path for warning in controller.warnings)
        said = [warning.message for warning in controller.warnings]
        assert sum("is a link" in message for message in said) == 2
        assert sum("no regular file" in message for message in said) == 2  # FIFO, directory
        schema("ps").validate({**controller.scan().to_json(), "unmanaged": None})
        assert controller.clean() == ()
        assert len(list(runtime_dir.iterdir())) == planted + 1
        with pytest.raises(SegmentError, match="no segment of emuV"):
            controller.get(1001)


def test_a_directory_full_of_files_is_not_read_to_its_end(
    runtime_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("emuv_shim.controller.MAX_ENTRIES", 10)
    for n in range(11):
        (runtime_dir / f".{n}").touch()
    controller = Controller(runtime_dir)
    assert controller.processes() == []
    assert "more than 10 entries" in controller.warnings[0].message


def test_a_directory_opened_to_others_meanwhile_is_refused(runtime_dir: Path) -> None:
    controller = Controller(runtime_dir)
    runtime_dir.chmod(0o770)
    with pytest.raises(SegmentError, match="open to others"):
        controller.processes()


# The package


def test_importing_the_package_loads_nothing_native() -> None:
    code = (
        "import sys, emuv_shim\n"
        "assert 'emuv_shim._native' not in sys.modules\n"
        "assert emuv_shim.is_active() is False\n"
        "from emuv_shim import *\n"
        "assert Controller and Budget and 'emuv_shim._native' not in sys.modules\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert 'libcuda' not in maps and '_native' not in maps\n"
        "assert sorted(dir(emuv_shim)) == sorted(emuv_shim.__all__)\n"
        "try: emuv_shim.nonsense\n"
        "except AttributeError as error: print(error)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stderr == ""
    assert done.stdout.strip() == "module 'emuv_shim' has no attribute 'nonsense'"


def test_is_active_where_the_interposer_is_mapped(tmp_path: Path) -> None:
    library = tmp_path / "libemuv.so"
    empty = tmp_path / "empty.c"
    empty.write_text("int emuv_test_nothing;\n")
    subprocess.run(["gcc", "-shared", "-fPIC", "-o", library, empty], check=True, timeout=60)
    done = subprocess.run(
        [sys.executable, "-c", "import emuv_shim; print(emuv_shim.is_active())"],
        env={"PYTHONPATH": str(ROOT), "LD_PRELOAD": str(library)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout.strip() == "True"
