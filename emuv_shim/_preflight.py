# SPDX-License-Identifier: GPL-2.0-only
"""Will the interposer be loaded into this program? Asked before it is started.

emuV comes in by LD_PRELOAD, which a statically linked program, one of another
ELF class or machine, one with a C library other than glibc, and one that gains
privileges at exec (set-uid, set-gid, file capabilities) never sees. Such a
program would run without its budget, silently; here it is refused in words.

`check` follows the command through PATH, `#!` lines and env(1) to the ELF file
that the kernel will map. The answer is one `Finding`:

  level "ok"        the interposer will be loaded
  level "budget"    the program can start, but not with a budget (exit code 125,
                    unless --best-effort)
  level "command"   it cannot be started at all (exit code 126, or 127)

The common case is decided by reading the ELF header and the program headers
with struct; pyelftools, whose import costs more than the rest of the launcher,
is loaded only to say what is wrong with the others.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from emuv_shim._messages import printable, quote

NOT_EXECUTABLE, NOT_FOUND, NO_SETUP = 126, 127, 125
MAX_SCRIPTS = 5  # the kernel follows no more `#!` lines than this
_SHEBANG_BYTES = 256
_PT_INTERP, _ET_EXEC, _ET_DYN = 3, 2, 3
_GLIBC_LOADERS = (b"ld-linux", b"ld64.so", b"ld.so", b"ld-2.")
_GLIBC_NEEDED = b"GLIBC_2.34\0"  # the version that a loader must know for libemuv.so
_ENV_WITH_VALUE = ("-u", "--unset", "-C", "--chdir", "-S", "--split-string")
_MACHINES = {"x86_64": 62, "aarch64": 183, "ppc64le": 21, "riscv64": 243}


@dataclass(frozen=True)
class Finding:
    """What came of looking at a command before starting it.

    `path` is the file to execve (the script itself, where it is one); "" if
    there is none. `preload` is False where LD_PRELOAD would stop the program
    from starting at all (another C library).
    """

    level: str
    path: str
    message: str = ""
    hint: str | None = None
    exit_code: int = 0
    preload: bool = True


def _command(path: str, message: str, exit_code: int, hint: str | None = None) -> Finding:
    return Finding("command", path, message, hint, exit_code)


def _budget(path: str, message: str, hint: str | None = None, *, preload: bool = True) -> Finding:
    return Finding("budget", path, message, hint, NO_SETUP, preload)


def _why_not_runnable(path: str, what: str) -> Finding | None:
    """None when `path` is a file that this user may execute."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return _command("", f"{what}: no such file", NOT_FOUND)
        reason = (error.strerror or "cannot be looked at").lower()
        return _command("", f"{what}: {reason}", NOT_EXECUTABLE)
    if stat.S_ISDIR(mode):
        return _command("", f"{what} is a directory", NOT_EXECUTABLE)
    if not stat.S_ISREG(mode):
        return _command("", f"{what} is not a regular file", NOT_EXECUTABLE)
    if not os.access(path, os.X_OK):
        return _command(
            "", f"{what} is not executable", NOT_EXECUTABLE, "chmod +x it, or name its interpreter"
        )
    return None


def _unquoted(command: str, environ: Mapping[str, str]) -> str | None:
    """A hint for a whole command line that was given as one word."""
    words = command.split()
    if len(words) < 2 or resolve(words[0], environ)[1] is not None:
        return None
    return f"without the quotes it is a command and its arguments: emuv-run -- {printable(command)}"


def resolve(command: str, environ: Mapping[str, str]) -> tuple[str, Finding | None]:
    """(path, None) of what execvp would start for `command`, or ("", why not)."""
    what = quote(command)
    if not command:
        return "", _command("", 'the command is empty ("")', NOT_FOUND)
    if "\0" in command:
        return "", _command("", f"{what} holds a NUL byte", NOT_FOUND)
    if "/" in command:
        finding = _why_not_runnable(command, what)
        if finding is not None and finding.exit_code == NOT_FOUND:
            finding = _command("", finding.message, NOT_FOUND, _unquoted(command, environ))
        return ("", finding) if finding else (command, None)
    denied: Finding | None = None
    for directory in environ.get("PATH", os.defpath).split(":"):
        path = os.path.join(directory or ".", command)
        finding = _why_not_runnable(path, what)
        if finding is None:
            return path, None
        if finding.exit_code == NOT_EXECUTABLE and denied is None:
            denied = _command(
                "", f"{what}: {printable(path)} is not executable", NOT_EXECUTABLE, finding.hint
            )
    return "", denied or _command(
        "", f"{what}: command not found", NOT_FOUND, _unquoted(command, environ)
    )


def _interpreter(first_line: bytes, environ: Mapping[str, str]) -> tuple[str, Finding | None]:
    """The program that a `#!` line names; through env(1) to what env will start."""
    line = first_line[2:].strip(b" \t").decode("utf-8", "surrogateescape")
    parts = line.replace("\t", " ").split(" ", 1)
    name, argument = parts[0], parts[1].strip() if len(parts) > 1 else ""
    if os.path.basename(name) != "env":
        return name, None
    return _behind_env(name, [argument] if argument else [], environ)


def _behind_env(
    env: str, arguments: Sequence[str], environ: Mapping[str, str]
) -> tuple[str, Finding | None]:
    """What `env ARGUMENT…` will start; env itself where that cannot be told.

    A "budget" Finding where env would take away what emuV comes in by.
    """
    made = dict(environ)
    words = list(arguments)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        if word.startswith("-S"):
            option, value = "-S", word[2:]
        elif word.startswith("-u") and len(word) > 2:
            option, value = "-u", word[2:]
        elif word.startswith("-C") and len(word) > 2:
            option, value = "-C", word[2:]
        if word in ("-", "-i", "--ignore-environment"):
            return env, _budget(
                env,
                f"env {word} clears the environment, and with it the budget",
                f"put emuv-run behind it: env {word} … emuv-run … COMMAND",
            )
        if option in _ENV_WITH_VALUE:
            if not value and words:
                value = words.pop(0)
            if option in ("-u", "--unset") and value in ("LD_PRELOAD", "LD_AUDIT"):
                return env, _budget(
                    env, f"env {option} {value} takes away what emuV comes in by", "leave it out"
                )
            if option in ("-S", "--split-string"):
                try:
                    words = [*shlex.split(value), *words]
                except ValueError:
                    return env, None
        elif not word.startswith("-") and equals:
            made[option] = value
        elif not word.startswith("-"):
            return resolve(word, made)
        elif word not in ("-0", "--null", "-v", "--debug", "--"):
            return env, None  # an option that this does not know: env's own business
    return env, None


def _quick_ok(head: bytes, fd: int) -> bool:
    """A 64-bit program of this machine that names glibc's loader: the common case."""
    try:
        return _names_glibc(head, fd)
    except (OSError, OverflowError):  # offsets that no file has
        return False


def _names_glibc(head: bytes, fd: int) -> bool:
    if len(head) < 64 or head[4] != 2 or head[5] != 1:
        return False
    kind, machine = struct.unpack_from("<HH", head, 16)
    if kind not in (_ET_EXEC, _ET_DYN) or machine != _MACHINES.get(os.uname().machine):
        return False
    (table,) = struct.unpack_from("<Q", head, 32)
    entry_bytes, entries = struct.unpack_from("<HH", head, 54)
    if entry_bytes != 56 or not 0 < entries < 1024:
        return False
    headers = os.pread(fd, entry_bytes * entries, table)
    for at in range(0, len(headers) - entry_bytes + 1, entry_bytes):
        kind32, _, offset, _, _, size = struct.unpack_from("<IIQQQQ", headers, at)
        if kind32 == _PT_INTERP and 1 < size < 4096:
            loader = os.pread(fd, size, offset).rstrip(b"\0")
            return (
                os.path.basename(loader).startswith(_GLIBC_LOADERS)
                and os.path.exists(loader)
                and _is_new_enough(loader)
            )
    return False


def _is_new_enough(loader: bytes) -> bool:
    """Whether glibc's loader is of the version that emuV's library needs.

    A program may bring an older one (a game's runtime, a tool chain's system root),
    which would only warn of the library, and go on.
    """
    try:
        if os.path.samefile(loader, _own_loader()):
            return True
        with open(loader, "rb") as file:
            return _GLIBC_NEEDED in file.read()
    except OSError:
        return False


def _own_loader() -> str:
    """The loader of the running Python, which has emuV's other compiled part in it."""
    return f"/lib64/ld-linux-{os.uname().machine.replace('_', '-')}.so.2"


def _is_loader(path: str, fd: int) -> bool:
    """glibc's loader called as a program: it loads what LD_PRELOAD names as ever."""
    names = (os.path.basename(path), os.path.basename(os.path.realpath(path)))
    return any(n.startswith(tuple(map(os.fsdecode, _GLIBC_LOADERS))) for n in names) and (
        _GLIBC_NEEDED in os.pread(fd, os.fstat(fd).st_size, 0)
    )


def _explain(path: str, fd: int, what: str) -> Finding:
    """Why an ELF file that `_quick_ok` did not accept will not load the interposer."""
    from elftools.elf.elffile import ELFFile
    from elftools.elf.segments import InterpSegment

    with open(os.dup(fd), "rb") as file:
        try:
            elf = ELFFile(file)
            kind, machine = elf.header["e_type"], elf.header["e_machine"]
            if elf.elfclass != 64:
                return _budget(path, f"{what} is a {elf.elfclass}-bit program; emuV is 64-bit")
            own = os.uname().machine
            number = struct.unpack("<H", os.pread(fd, 2, 18))[0]
            if not elf.little_endian or number != _MACHINES.get(own):
                return _budget(
                    path, f"{what} is built for {printable(str(machine))}, this machine is {own}"
                )
            if kind not in ("ET_EXEC", "ET_DYN"):
                return _command(
                    path, f"{what} is an ELF file but no program ({kind})", NOT_EXECUTABLE
                )
            loader = ""
            for segment in elf.iter_segments():
                if isinstance(segment, InterpSegment):
                    loader = segment.get_interp_name()
        except Exception as error:  # a damaged file makes pyelftools raise many kinds
            return _command(
                path, f"{what} is a damaged ELF file: {printable(str(error))}", NOT_EXECUTABLE
            )
    if not loader:
        return _budget(
            path,
            f"{what} is statically linked: no library can be put in front of its driver",
            "link it dynamically, or give --best-effort to run it without a budget",
        )
    if not os.path.exists(loader):
        return _command(
            path, f"{what} needs the loader {quote(loader)}, which is missing", NOT_EXECUTABLE
        )
    if not os.path.basename(loader).startswith(tuple(map(os.fsdecode, _GLIBC_LOADERS))):
        library = "the musl C library" if "musl" in loader else "another C library than glibc"
        return _budget(
            path,
            f"{what} uses {library} ({printable(loader)}); emuV's library needs glibc",
            "use a glibc build, or give --best-effort to run it without a budget",
            preload=False,
        )
    if not _is_new_enough(os.fsencode(loader)):
        return _budget(
            path,
            f"{what} brings a C library of its own ({printable(loader)}) that is older than "
            "glibc 2.34, which emuV's library needs",
            "run it with the system's, or give --best-effort to run it without a budget",
        )
    return Finding("ok", path)


def _gains_privileges(path: str, what: str) -> Finding | None:
    """The loader drops LD_PRELOAD for programs that gain privileges at exec."""
    mode = os.stat(path).st_mode
    found = ""
    if mode & stat.S_ISUID:
        found = "is set-uid"
    elif mode & stat.S_ISGID and mode & stat.S_IXGRP:
        found = "is set-gid"
    else:
        try:
            os.getxattr(path, "security.capability")
            found = "has file capabilities"
        except OSError:
            return None
    return _budget(
        path,
        f"{what} {found}: the system ignores LD_PRELOAD for it",
        "put emuv-run inside it (sudo emuv-run …), or give --best-effort",
    )


def check(command: str, environ: Mapping[str, str], arguments: Sequence[str] = ()) -> Finding:
    """What execve of `command` in `environ` will do to the interposer. See the module."""
    start, finding = resolve(command, environ)
    if finding is not None:
        return finding
    path, what = start, quote(command)
    if os.path.basename(start) == "env":
        # What env cannot start is env's to say; what would come in front of no budget is not.
        behind, finding = _behind_env(start, arguments, environ)
        if finding is not None and finding.level == "budget":
            return _at(finding, start)
        if finding is None and behind != start:
            path, what = behind, f"{quote(behind)} (started by {printable(command)})"
    for _ in range(MAX_SCRIPTS):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as error:
            return _budget(
                start,
                f"{what} cannot be read ({(error.strerror or '').lower()}), so emuV cannot tell "
                "whether it can hold it to a budget",
                "make it readable, or give --best-effort to run it anyway",
            )
        try:
            head = os.pread(fd, _SHEBANG_BYTES, 0)
            if head[:4] == b"\x7fELF":
                gained = _gains_privileges(path, what)
                if gained is not None:
                    return _at(gained, start)
                if _quick_ok(head, fd) or _is_loader(path, fd):
                    return Finding("ok", start)
                return _at(_explain(path, fd, what), start)
        finally:
            os.close(fd)
        if head[:2] != b"#!":
            return _command(
                start,
                f'{what} is neither a program (ELF) nor a script (no "#!" line)',
                NOT_EXECUTABLE,
                "name its interpreter, for example: emuv-run sh " + shlex.quote(printable(path)),
            )
        name, finding = _interpreter(head.split(b"\n", 1)[0], environ)
        if finding is not None and finding.level == "budget":
            return _at(finding, start)
        if finding is None:
            finding = _why_not_runnable(name, f"{what}: its interpreter {quote(name)}")
        if finding is not None:
            return _command(start, finding.message, NOT_EXECUTABLE, finding.hint)
        path, what = name, f"{quote(command)} (run by {printable(name)})"
    return _command(start, f"{quote(command)}: too many interpreters", NOT_EXECUTABLE)


def _at(finding: Finding, start: str) -> Finding:
    """`finding` about an interpreter, with the path of what is to be started."""
    return Finding(
        finding.level,
        start,
        finding.message,
        finding.hint,
        finding.exit_code,
        finding.preload,
    )
