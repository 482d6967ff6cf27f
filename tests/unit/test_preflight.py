# SPDX-License-Identifier: GPL-2.0-only
"""Which programs will load the interposer, and which are refused, in words."""

from __future__ import annotations

import os
import shutil
import struct
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from emuv_shim import _preflight

TRUE = shutil.which("true") or "/bin/true"


def environ(*directories: Path | str) -> dict[str, str]:
    return {"PATH": ":".join(map(str, directories))}


def executable(path: Path, content: str | bytes) -> Path:
    path.write_bytes(content.encode() if isinstance(content, str) else content)
    path.chmod(0o755)
    return path


def patched_true(path: Path, at: int, value: bytes) -> Path:
    """A copy of true(1) with some header bytes replaced."""
    data = bytearray(Path(TRUE).read_bytes())
    data[at : at + len(value)] = value
    return executable(path, bytes(data))


def with_loader(path: Path, loader: bytes) -> Path:
    """A copy of true(1) that asks for another program loader (of no greater length)."""
    data = bytearray(Path(TRUE).read_bytes())
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for at in range(table, table + size * count, size):
        kind, _, offset, _, _, length = struct.unpack_from("<IIQQQQ", data, at)
        if kind == 3:
            assert len(loader) < length
            data[offset : offset + length] = loader.ljust(length, b"\0")
    return executable(path, bytes(data))


def test_ordinary_program_is_found_in_path() -> None:
    found = _preflight.check("true", environ("/nonexistent", os.path.dirname(TRUE)))

    assert (found.level, found.path, found.exit_code) == ("ok", TRUE, 0)


def test_ordinary_program_needs_no_pyelftools(tmp_path: Path) -> None:
    with open(TRUE, "rb") as file:
        assert _preflight._quick_ok(file.read(256), file.fileno())


@pytest.mark.parametrize("command", ["no-such-command-here", "/no/such/file", "./no/such", ""])
def test_missing_command_is_127(command: str) -> None:
    found = _preflight.check(command, environ("/usr/bin"))

    assert (found.level, found.exit_code) == ("command", 127)
    assert f'"{command}"' in found.message


def test_directory_is_126(tmp_path: Path) -> None:
    found = _preflight.check(str(tmp_path), environ())

    assert found.exit_code == 126
    assert "is a directory" in found.message


def test_no_exec_bit_is_126_by_path_and_by_name(tmp_path: Path) -> None:
    (tmp_path / "prog").write_text("#!/bin/sh\n")

    by_path = _preflight.check(str(tmp_path / "prog"), environ())
    by_name = _preflight.check("prog", environ(tmp_path))

    assert by_path.exit_code == by_name.exit_code == 126
    assert "not executable" in by_path.message
    assert "not executable" in by_name.message


def test_later_path_entry_wins_over_an_unusable_one(tmp_path: Path) -> None:
    (tmp_path / "true").write_text("no exec bit")

    found = _preflight.check("true", environ(tmp_path, os.path.dirname(TRUE)))

    assert (found.level, found.path) == ("ok", TRUE)


def test_fifo_and_device_are_126(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o755)

    assert _preflight.check(str(tmp_path / "fifo"), environ()).exit_code == 126
    assert _preflight.check("/dev/null", environ()).exit_code == 126


@pytest.mark.parametrize(
    "content",
    ["echo hello\n", "", "#", "\x7fEL", "MZ\x90\x00"],
    ids=["text", "empty", "#", "E", "MZ"],
)
def test_neither_program_nor_script_is_126(tmp_path: Path, content: str) -> None:
    found = _preflight.check(str(executable(tmp_path / "it", content)), environ())

    assert (found.level, found.exit_code) == ("command", 126)
    assert found.hint is not None


@pytest.mark.parametrize("size", [4, 19, 63, 64, 200])
def test_truncated_elf_is_126(tmp_path: Path, size: int) -> None:
    path = executable(tmp_path / "cut", Path(TRUE).read_bytes()[:size])

    found = _preflight.check(str(path), environ())

    assert (found.level, found.exit_code) in {("command", 126), ("budget", 125)}


def test_static_program_is_refused_and_can_be_forced(tmp_path: Path) -> None:
    # GIVEN a program whose PT_INTERP is no more: what a static link looks like
    data = bytearray(Path(TRUE).read_bytes())
    (table,) = struct.unpack_from("<Q", data, 32)
    size, count = struct.unpack_from("<HH", data, 54)
    for at in range(table, table + size * count, size):
        if struct.unpack_from("<I", data, at)[0] == 3:
            struct.pack_into("<I", data, at, 0)
    path = executable(tmp_path / "static", bytes(data))

    found = _preflight.check(str(path), environ())

    assert (found.level, found.exit_code, found.path) == ("budget", 125, str(path))
    assert "statically linked" in found.message
    assert found.preload


def test_32_bit_and_foreign_programs_are_refused(tmp_path: Path) -> None:
    # 52-byte ELF32 header with one PT_INTERP-less program header table
    header = struct.pack(
        "<4sBBBB8xHHIIIIIHHHHHH",
        b"\x7fELF", 1, 1, 1, 0, 2, 3, 1, 0, 52, 0, 0, 52, 32, 0, 40, 0, 0,
    )  # fmt: skip
    small = _preflight.check(str(executable(tmp_path / "i386", header)), environ())
    foreign = _preflight.check(
        str(patched_true(tmp_path / "sparc", 18, struct.pack("<H", 43))), environ()
    )

    assert (small.level, small.exit_code) == ("budget", 125)
    assert "32-bit" in small.message
    assert (foreign.level, foreign.exit_code) == ("budget", 125)
    assert "EM_SPARCV9" in foreign.message


def test_relocatable_object_is_126(tmp_path: Path) -> None:
    path = patched_true(tmp_path / "object", 16, struct.pack("<H", 1))

    found = _preflight.check(str(path), environ())

    assert (found.level, found.exit_code) == ("command", 126)


def test_musl_program_is_refused_and_never_preloaded(tmp_path: Path) -> None:
    loader = tmp_path / "ld-musl.so"
    loader.write_bytes(b"")
    if len(str(loader)) > 26:
        loader = Path(f"/tmp/ld-musl-{os.getpid()}")
        loader.write_bytes(b"")
    try:
        path = with_loader(tmp_path / "prog", os.fsencode(loader))
        found = _preflight.check(str(path), environ())
    finally:
        loader.unlink()

    assert (found.level, found.exit_code, found.preload) == ("budget", 125, False)
    assert "musl" in found.message


def test_missing_loader_is_126(tmp_path: Path) -> None:
    path = with_loader(tmp_path / "prog", b"/nonexistent/ld-linux.so")

    found = _preflight.check(str(path), environ())

    assert (found.level, found.exit_code) == ("command", 126)
    assert "/nonexistent/ld-linux.so" in found.message


@pytest.mark.parametrize(("mode", "word"), [(0o4755, "set-uid"), (0o2755, "set-gid")])
def test_programs_that_gain_privileges_are_refused(tmp_path: Path, mode: int, word: str) -> None:
    path = Path(shutil.copy(TRUE, tmp_path / "prog"))
    path.chmod(mode)

    found = _preflight.check(str(path), environ())

    assert (found.level, found.exit_code) == ("budget", 125)
    assert word in found.message


def test_file_capabilities_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Path(shutil.copy(TRUE, tmp_path / "prog"))
    monkeypatch.setattr(os, "getxattr", lambda *_: b"\1\0\0\2")

    found = _preflight.check(str(path), environ())

    assert (found.level, found.exit_code) == ("budget", 125)
    assert "file capabilities" in found.message


def test_unreadable_program_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Root reads everything, so the refusal of open(2) is given here.
    path = Path(shutil.copy(TRUE, tmp_path / "prog"))
    path.chmod(0o711)

    def refuse(*_: object) -> int:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(os, "open", refuse)
    found = _preflight.check(str(path), environ())

    assert (found.level, found.exit_code, found.path) == ("budget", 125, str(path))
    assert "cannot be read" in found.message


def test_a_program_that_brings_an_older_glibc_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = Path(f"/tmp/ld-linux-{os.getpid()}")
    loader.write_bytes(b"GLIBC_2.33\0")
    try:
        path = with_loader(tmp_path / "prog", os.fsencode(loader))
        old = _preflight.check(str(path), environ())
        loader.write_bytes(b"GLIBC_2.33\0GLIBC_2.34\0")
        new = _preflight.check(str(path), environ())
    finally:
        loader.unlink()

    assert (old.level, old.exit_code) == ("budget", 125)
    assert "older than glibc 2.34" in old.message
    assert new.level == "ok"


def test_the_loader_called_as_a_program(tmp_path: Path) -> None:
    loader = "/lib64/ld-linux-x86-64.so.2"
    static = executable(tmp_path / "ld-linux.so.2", b"\x7fELF" + bytes(60))

    assert _preflight.check(loader, environ()).level == "ok"
    assert _preflight.check(str(static), environ()).level != "ok"


class TestEnv:
    """env(1) as the command: what it will start is looked at."""

    @pytest.mark.parametrize(
        "arguments",
        [
            [], ["A=1", "true"], ["-u", "HOME", "true"], ["-uHOME", "true"], ["-C", "/", "true"],
            ["--unset=HOME", "true"], ["-S", "A=1 true -x"], ["--split-string=true -x"], ["-0"],
            ["--block-signal=INT", "nothing"], ["no-such-command-here"], ["-S", "'"],
            ["-v", "true"],
        ],
    )  # fmt: skip
    def test_it_is_followed_or_left_to_itself(self, arguments: list[str]) -> None:
        found = _preflight.check("env", environ("/usr/bin", "/bin"), arguments)

        assert (found.level, os.path.basename(found.path)) == ("ok", "env"), found.message

    @pytest.mark.parametrize(
        "arguments",
        [
            ["-i", "true"], ["-", "true"], ["--ignore-environment"], ["A=1", "-i", "true"],
            ["-u", "LD_PRELOAD", "true"], ["-uLD_AUDIT", "true"], ["--unset=LD_PRELOAD", "true"],
            ["-S", "-i true"],
        ],
    )  # fmt: skip
    def test_what_takes_the_budget_away_is_refused(self, arguments: list[str]) -> None:
        found = _preflight.check("env", environ("/usr/bin", "/bin"), arguments)

        assert (found.level, found.exit_code) == ("budget", 125)
        assert os.path.basename(found.path) == "env"
        assert found.hint

    def test_what_it_would_start_is_refused_in_its_place(self, tmp_path: Path) -> None:
        path = Path(shutil.copy(TRUE, tmp_path / "prog"))
        path.chmod(0o4755)
        found = _preflight.check("env", environ("/usr/bin", "/bin"), ["A=1", str(path)])

        assert (found.level, os.path.basename(found.path)) == ("budget", "env")
        assert "set-uid" in found.message and str(path) in found.message


class TestScripts:
    @pytest.mark.parametrize(
        "line",
        [
            "#!{true}",
            "#! {true} -x  y",
            "#!\t{true}\t-x",
            "#!/usr/bin/env true",
            "#!/usr/bin/env -S true -x y",
            "#!/usr/bin/env -Strue",
            "#!/usr/bin/env A=1",
            "#!/usr/bin/env -S -u FOO true",
            "#!/usr/bin/env -S --block-signal=INT no-such-command-here",
        ],
    )
    def test_interpreter_is_followed(self, tmp_path: Path, line: str) -> None:
        path = executable(tmp_path / "script", line.format(true=TRUE) + "\nbody\n")

        found = _preflight.check(str(path), environ(os.path.dirname(TRUE)))

        assert (found.level, found.path) == ("ok", str(path)), found.message

    def test_script_run_by_a_script(self, tmp_path: Path) -> None:
        inner = executable(tmp_path / "inner", f"#!{TRUE}\n")
        outer = executable(tmp_path / "outer", f"#!{inner}\n")

        assert _preflight.check(str(outer), environ()).level == "ok"

    def test_static_interpreter_is_refused_and_the_script_stays_the_target(
        self, tmp_path: Path
    ) -> None:
        interpreter = Path(shutil.copy(TRUE, tmp_path / "interpreter"))
        interpreter.chmod(0o4755)
        script = executable(tmp_path / "script", f"#!{interpreter}\n")

        found = _preflight.check(str(script), environ())

        assert (found.level, found.path) == ("budget", str(script))
        assert str(interpreter) in found.message

    @pytest.mark.parametrize(
        "line",
        [
            "#!/no/such/interpreter",
            "#!/bin/sh\r",
            "#!",
            "#!/usr/bin/env no-such-command-here",
            "#!/",
        ],
    )
    def test_unusable_interpreter_is_126(self, tmp_path: Path, line: str) -> None:
        path = executable(tmp_path / "script", line + "\n")

        found = _preflight.check(str(path), environ("/usr/bin", "/bin"))

        assert (found.level, found.exit_code) == ("command", 126)

    def test_a_script_that_names_itself_ends(self, tmp_path: Path) -> None:
        path = tmp_path / "loop"
        executable(path, f"#!{path}\n")

        found = _preflight.check(str(path), environ())

        assert found.exit_code == 126
        assert "too many interpreters" in found.message


@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(st.tuples(st.integers(0, 800), st.sampled_from([0, 1, 3, 127, 255])), max_size=6),
    st.one_of(st.none(), st.integers(0, 4096)),
)
def test_no_header_is_too_damaged_for_an_answer(
    tmp_path: Path, changes: list[tuple[int, int]], cut: int | None
) -> None:
    data = bytearray(Path(TRUE).read_bytes())
    for at, value in changes:
        data[at] = value
    found = _preflight.check(str(executable(tmp_path / "it", bytes(data[:cut]))), environ("/bin"))

    assert (found.level, found.exit_code) in {
        ("ok", 0),
        ("budget", 125),
        ("command", 126),
    }
    assert found.message or found.level == "ok"


def test_messages_do_not_carry_escape_sequences() -> None:
    found = _preflight.check("evil\x1b[2J", environ("/usr/bin"))

    assert "\x1b" not in found.message
