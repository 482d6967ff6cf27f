# SPDX-License-Identifier: GPL-2.0-only
"""Where compiled kernels come from: the compiler, the cache, many at once, forks."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
import time
from ctypes import c_uint32
from pathlib import Path

import pytest
from cuda_driver import Driver
from ptx_kernels import Kernel, Memory, entry

pytestmark = pytest.mark.usefixtures("sim_table")

COMPILER_NOT_FOUND, LAUNCH_FAILED = 221, 719

PROGRAM = """
import os, sys, threading
sys.path.insert(0, {here!r})
from ctypes import *
from cuda_driver import *
from ptx_kernels import Kernel, Memory, entry
driver = Driver({path!r})
driver.cuInit(0)
driver.cuCtxSetCurrent(driver.new("cuDevicePrimaryCtxRetain", 0))
out = Memory(driver, 1)
def run(value):
    text = entry("put", "u64 out", f"st.global.u32 [out], {{value}};")
    code = Kernel(driver, text).code(1, 1, out.parameter)
    return code, driver.code("cuCtxSynchronize"), out.read()
"""


class Programs:
    """Starts processes with a cache of their own."""

    def __init__(self, driver_path: str, folder: Path) -> None:
        self.folder = folder
        self.head = PROGRAM.format(here=str(Path(__file__).parent), path=driver_path)

    def start(self, text: str, **env: str) -> subprocess.Popen[str]:
        base = {k: v for k, v in os.environ.items() if not k.startswith("EMUV_SIM_")}
        return subprocess.Popen(
            [sys.executable, "-c", self.head + text],
            env={**base, "XDG_CACHE_HOME": str(self.folder), **env},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, text: str, **env: str) -> tuple[str, str]:
        process = self.start(text, **env)
        out, error = process.communicate(timeout=60)
        assert process.returncode == 0, error
        return out.strip(), error

    def kept(self) -> list[Path]:
        return sorted((self.folder / "emuv" / "kernels").glob("*"))


@pytest.fixture
def programs(driver_path: str, tmp_path: Path) -> Programs:
    return Programs(driver_path, tmp_path / "cache")


def test_kernels_are_compiled_once(programs: Programs) -> None:
    for _ in range(2):
        assert programs.run("print(run(5))") == ("(0, 0, [5])", "")
        (kept,) = programs.kept()
        stamp = kept.stat().st_mtime_ns
    assert programs.run("print(run(5))", EMUV_SIM_CC="/bin/false")[0] != "(0, 0, [5])"
    assert kept.stat().st_mtime_ns == stamp
    assert kept.parent.stat().st_mode & 0o777 == 0o700
    assert kept.stat().st_mode & 0o777 == 0o600
    programs.run("print(run(6))")
    assert len([p for p in programs.kept() if p.suffix == ".so"]) == 2


@pytest.mark.parametrize("damage", ["cut", "foreign", "empty", "other", "link"])
def test_a_damaged_file_is_made_again(programs: Programs, damage: str, tmp_path: Path) -> None:
    programs.run("print(run(5), run(6))")
    first, second = programs.kept()
    whole = first.read_bytes()
    if damage == "cut":
        first.write_bytes(whole[:4096])
    elif damage == "foreign":
        first.write_bytes(whole[:5000] + b"\1" + whole[5001:])
    elif damage == "empty":
        first.write_bytes(b"")
    elif damage == "other":  # whole, and another kernel's
        shutil.copyfile(second, first)
    else:
        shutil.move(first, tmp_path / "elsewhere.so")
        first.symlink_to(tmp_path / "elsewhere.so")
    assert programs.run("print(run(5), run(6))") == ("(0, 0, [5]) (0, 0, [6])", "")
    assert not first.is_symlink()
    assert len(first.read_bytes()) == len(whole)


def test_a_folder_of_others_is_not_used(programs: Programs) -> None:
    folder = programs.folder / "emuv" / "kernels"
    folder.mkdir(parents=True)
    folder.chmod(0o755)
    assert programs.run("print(run(5))")[0] == "(0, 0, [5])"
    assert programs.kept() == []


def test_the_cache_is_where_it_is_wanted_or_nowhere(programs: Programs, tmp_path: Path) -> None:
    place, scratch = tmp_path / "place", tmp_path / "scratch"
    scratch.mkdir()
    assert programs.run("print(run(5))", EMUV_SIM_CACHE=str(place))[0] == "(0, 0, [5])"
    assert len(list(place.iterdir())) == 1
    out, _ = programs.run("print(run(5))", EMUV_SIM_CACHE="off", TMPDIR=str(scratch))
    assert out == "(0, 0, [5])"
    assert list(scratch.iterdir()) == []
    assert programs.kept() == []
    process = programs.start("", EMUV_SIM_CACHE="nowhere")
    assert process.communicate(timeout=60)[1]
    assert process.returncode == 1  # cuInit refuses it


def test_no_compiler(programs: Programs, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    text = "print(run(5), run(6))"
    out, error = programs.run(text, PATH=str(tmp_path / "empty"))
    assert out == f"({COMPILER_NOT_FOUND}, 0, [0]) ({COMPILER_NOT_FOUND}, 0, [0])"
    assert "needs a C compiler" in error
    assert "apt-get install gcc" in error
    out, error = programs.run("print(run(5))", EMUV_SIM_CC="/nowhere/cc")
    assert out == f"({COMPILER_NOT_FOUND}, 0, [0])"
    assert "/nowhere/cc" in error


def test_a_compiler_that_fails(programs: Programs, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text("#!/bin/sh\necho 'kernel:1: error: no such thing' >&2\nexit 1\n")
    compiler.chmod(0o755)
    out, error = programs.run("print(run(5))", EMUV_SIM_CC=str(compiler))
    assert out == f"({LAUNCH_FAILED}, 0, [0])"
    assert "kernel:1: error: no such thing" in error
    assert error.count("\n") == 1
    (source,) = programs.kept()
    assert str(source) in error
    assert "emuv_kernel" in source.read_text()


def test_the_compiler_knows_nothing_of_emuv(programs: Programs, tmp_path: Path) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(
        f"#!/bin/sh\nenv > {tmp_path}/seen\nreadlink /proc/$$/fd/0 >> {tmp_path}/seen\n"
        'exec gcc "$@"\n'
    )
    compiler.chmod(0o755)
    out, _ = programs.run("print(run(5))", EMUV_SIM_CC=f"{compiler} -g0", EMUV_VRAM="1")
    assert out == "(0, 0, [5])"
    seen = (tmp_path / "seen").read_text()
    assert "EMUV_" not in seen
    assert "LD_PRELOAD" not in seen
    assert "/dev/null" in seen.splitlines()


@pytest.mark.parametrize("handler", ["signal.SIG_IGN", "lambda *_: None"])
def test_programs_that_reap_all_their_children(programs: Programs, handler: str) -> None:
    text = f"""
import signal
signal.signal(signal.SIGCHLD, {handler})
def reap():
    while not done:
        try: os.waitpid(-1, 0)
        except ChildProcessError: pass
done = False
thread = threading.Thread(target=reap); thread.start()
try: print([run(i) for i in range(3)])
finally: done = True; thread.join()
"""
    assert programs.run(text)[0] == "[(0, 0, [0]), (0, 0, [1]), (0, 0, [2])]"


def test_many_processes_compile_at_once(programs: Programs) -> None:
    text = "sys.stdin.readline(); print([run(i)[2][0] for i in range(4)])"
    running = []
    for _ in range(5):
        running.append(
            subprocess.Popen(
                [sys.executable, "-c", programs.head + text],
                env={**os.environ, "XDG_CACHE_HOME": str(programs.folder)},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
        )
    for process in running:
        assert process.communicate("go\n", timeout=60)[0].strip() == "[0, 1, 2, 3]"
    assert len(programs.kept()) == 4
    assert all(p.suffix == ".so" for p in programs.kept())


def test_threads_launch_at_once(driver: Driver, context: int) -> None:
    """The same new kernel in four threads, each with memory and a stream of its own."""
    text = entry(
        "four",
        "u64 out, u32 step",
        "bar.sync 0; atom.global.add.u32 r1, [out], step; // of test_threads_launch_at_once",
    )
    results: dict[int, list[int]] = {}

    def work(number: int) -> None:
        driver.cuCtxSetCurrent(context)
        kernel, out = Kernel(driver, text), Memory(driver, 1)
        stream = driver.new("cuStreamCreate", 1)
        for _ in range(20):
            kernel(3, 40, out.parameter, c_uint32(number), stream=stream)
        driver.cuStreamSynchronize(stream)
        results[number] = out.read()
        driver.cuStreamDestroy_v2(stream)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == {n: [n * 20 * 120] for n in range(1, 5)}


def test_forks(programs: Programs) -> None:
    """A parent with kernels forks: the child has none, and the parent goes on."""
    text = """
print(run(1))
sys.stdout.flush()
child = os.fork()
if not child:
    print(driver.code("cuCtxSynchronize"), flush=True)
    os._exit(0)
os.waitpid(child, 0)
print(run(2), flush=True)
"""
    assert programs.run(text)[0].splitlines() == ["(0, 0, [1])", "3", "(0, 0, [2])"]


def test_the_cache_stays_small(programs: Programs) -> None:
    """Oldest first; what else lies there is left alone."""
    folder = programs.folder / "emuv" / "kernels"
    folder.mkdir(parents=True, mode=0o700)
    now = time.time()
    for number in range(5):
        old = folder / f"emuv-{number:064x}.so"
        with old.open("wb") as file:
            file.truncate(60 << 20)
        os.utime(old, (now - 1000 + number, now - 1000 + number))
    (folder / "other.so").write_bytes(b"mine")
    left_behind = folder / "emuv-0123456789abcdef-77-1.c"
    left_behind.write_text("int x;")
    os.utime(left_behind, (now - 7200, now - 7200))
    programs.run("print(run(5))")
    names = [p.name for p in programs.kept()]
    assert [f"emuv-{n:064x}.so" in names for n in range(5)] == [False, False, True, True, True]
    assert "other.so" in names
    assert left_behind.name not in names
