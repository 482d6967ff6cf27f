# SPDX-License-Identifier: GPL-2.0-only
"""Programs in C that test C: a file names in its first lines what it is linked with.

    // link: csrc/shim/ledger.c csrc/sim/ptx/*.c      paths from the repository's root
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from tests.conftest import ROOT, WARNINGS, run

DRIVER = "libcuda.so.1"
SANITIZERS = {
    "address": "-fsanitize=address,undefined -fno-sanitize-recover=all",
    # The seqlock's fences are beyond gcc's thread sanitizer, which then warns.
    "thread": "-fsanitize=thread -Wno-tsan",
}


def listed(path: Path, key: str) -> list[str]:
    """The words after `// key:` in the head of a test."""
    lines = path.read_text().splitlines()[:12]
    return [w for line in lines if (m := re.match(rf"// {key}: (.*)", line)) for w in m[1].split()]


# What a module cannot do without; a test that includes one of them has it already.
NEEDS = {
    "csrc/shim/books.c": (
        *("csrc/shim/shared.c", "csrc/common/emuv_shared*.c", "csrc/common/emuv_environ.c"),
        *(f"csrc/common/emuv_segment_{part}.c" for part in ("control", "create", "file")),
    ),
}  # fmt: skip


def modules_of(source: Path) -> list[Path]:
    """The sources in csrc that a test is linked with."""
    names = listed(source, "link")
    names += [need for name in [*names] for need in NEEDS.get(name, ())]
    paths = dict.fromkeys(path for name in names for path in sorted(ROOT.glob(name)))
    text = source.read_text()
    return [path for path in paths if f'/{path.name}"' not in text]


@cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    """Where objects of csrc are, while the tests run: several programs want the same."""
    return tempfile.TemporaryDirectory(prefix="emuv-objects-")


@cache
def _object(source: Path, *command: str) -> Path:
    name = f"{abs(hash(command)):x}-{'_'.join(source.relative_to(ROOT).parts)}.o"
    target = Path(_folder().name, name)
    done = run([*command, "-c", source, "-o", target], os.environ, 180)
    assert done.returncode == 0, done.stderr
    return target


def _objects(sources: Sequence[Path], command: Sequence[str]) -> list[Path]:
    _folder()  # once, before threads ask: each would get one, and lose it with the next
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return list(pool.map(lambda source: _object(source, *command), sources))


def compile_program(
    source: Path,
    target: Path,
    flags: Sequence[str],
    more: Sequence[Path] = (),
    compiler: str | None = None,
) -> None:
    """Compile a test with what it is linked with, and `more`, as libemuv.so is compiled."""
    modules = modules_of(source)
    command = [
        compiler or os.environ.get("CC", "gcc"),
        *("-std=gnu17", "-g", "-O1", "-pthread", "-fno-omit-frame-pointer", *WARNINGS, "-Werror"),
        '-DEMUV_VERSION="test"',
        *("-fno-strict-aliasing", "-ftls-model=initial-exec"),
        *flags,
        *(f"-I{ROOT / 'csrc' / part}" for part in ("", "common", "shim", "sim")),
    ]
    linked = [source, *more, *_objects(modules, command), "-o", target, "-ldl", "-lm"]
    done = run([*command, *linked], os.environ, 180)
    assert done.returncode == 0, done.stderr


def compile_library(folders: Sequence[str], target: Path, flags: Sequence[str]) -> None:
    """Compile a library of csrc, of these folders and csrc/common, as setup.py does."""
    parts = [ROOT / "csrc" / part for part in (*folders, "common")]
    command = [
        os.environ.get("CC", "gcc"),
        *("-std=gnu17", "-g", "-O1", "-pthread", "-fno-omit-frame-pointer"),
        '-DEMUV_VERSION="test"',
        *("-fno-strict-aliasing", "-ftls-model=initial-exec", "-fPIC", "-fvisibility=hidden"),
        *flags,
        *(f"-I{part}" for part in (*parts, ROOT / "csrc")),
    ]
    sources = sorted(source for part in parts for source in part.glob("*.[cS]"))
    objects = _objects(sources, command)
    linked = ["-shared", "-Wl,-Bsymbolic,-z,now", f"-Wl,-soname,{DRIVER}", *objects, "-o", target]
    done = run([*command, *linked, "-ldl", "-lm"], os.environ, 120)
    assert done.returncode == 0, done.stderr


def sanitized_env(tmp_path: Path) -> dict[str, str]:
    """What such a program runs in: a report ends it."""
    return {
        **{k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_"))},
        "ASAN_OPTIONS": "detect_leaks=1:abort_on_error=0",
        "TSAN_OPTIONS": "halt_on_error=1:second_deadlock_stack=1",
        "EMUV_RUNTIME_DIR": str(tmp_path),
        "TMPDIR": str(tmp_path),
    }


def fixed_addresses(sanitizer: str) -> list[str]:
    """gcc's thread sanitizer cannot live with a widely randomised address space."""
    return [shutil.which("setarch") or "setarch", "-R"] if sanitizer == "thread" else []
