# SPDX-License-Identifier: GPL-2.0-only
"""What is wrong is refused in words, by emuV or by the driver, and never ends the program."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from tests.conftest import run
from tests.integration.shim_tools import MIB, OOM, errors, run_child, with_mount

ShimEnv = Callable[..., dict[str, str]]
NOT_PERMITTED = 800

INIT = """
    d = Driver("libcuda.so.1")
    out = c_uint64()
    codes = [d.code("cuInit", 0), d.code("cuInit", 0), d.code("cuMemAlloc_v2", byref(out), MIB),
             d.code("cuDevicePrimaryCtxRetain", byref(out), 0)]
    answer(codes=codes)
"""


class TestEnvironment:
    @pytest.mark.parametrize(
        ("variable", "value"),
        [
            ("EMUV_VRAM", "4GiB"), ("EMUV_VRAM", ""), ("EMUV_VRAM", "-1"), ("EMUV_VRAM", "1.5"),
            ("EMUV_VRAM", "99999999999999999999999999"), ("EMUV_VRAM", "0=5,0=6"),
            ("EMUV_VRAM", "64=1"), ("EMUV_VIRTUAL", "none"), ("EMUV_VIRTUAL", "8G"),
            ("EMUV_POLICY", "adaptive"), ("EMUV_ALLOCATION", "later"),
        ],
    )  # fmt: skip
    def test_a_budget_that_cannot_be_read_is_not_an_unlimited_one(
        self, shim_env: ShimEnv, variable: str, value: str
    ) -> None:
        # GIVEN a value that is none
        child = run_child({**shim_env(vram=64 * MIB), variable: value}, INIT)
        # THEN CUDA does not start, and nothing of it works uncounted
        assert all(child.answer["codes"]), child.answer
        # AND the value is quoted, with what would be right
        assert f"{variable}='{value[:100]}'" in errors(child)[0]
        assert "emuv: hint: " in child.stderr
        assert child.segments == ()

    def test_no_budget_at_all(self, shim_env: ShimEnv) -> None:
        env = shim_env(vram=64 * MIB)
        del env["EMUV_VRAM"]
        child = run_child(env, INIT)
        assert all(child.answer["codes"])
        assert "EMUV_VRAM is not set" in errors(child)[0]
        assert "emuv-run --vram SIZE" in child.stderr

    def test_preloaded_by_hand_with_nothing_else(self, libemuv: Path) -> None:
        """A program that uses no CUDA is not bothered; one that does is told."""
        env = {"PATH": os.environ["PATH"], "LD_PRELOAD": str(libemuv)}
        done = run(["/bin/echo", "hello"], env)
        assert (done.stdout, done.stderr, done.returncode) == ("hello\n", "", 0)
        code = "import ctypes; print(ctypes.CDLL('libcuda.so.1').cuInit(0))"
        done = run([sys.executable, "-c", code], env)
        assert done.stdout.strip() != "0"
        assert done.stderr.startswith("emuv: error: ")
        assert "emuv: hint: " in done.stderr

    @pytest.mark.parametrize("driver", ["/nonexistent/libcuda.so.1", "libcuda.so.1", "", None])
    def test_a_driver_that_is_not_there(self, shim_env: ShimEnv, driver: str | None) -> None:
        env = shim_env(vram=64 * MIB)
        del env["EMUV_DRIVER"]
        if driver is not None:
            env["EMUV_DRIVER"] = driver
        child = run_child(env, INIT)
        assert all(child.answer["codes"])
        assert len(errors(child)) == 1  # however often it is asked
        assert "EMUV_DRIVER" in child.stderr
        assert (driver or "EMUV_DRIVER") in errors(child)[0]

    def test_a_driver_that_is_no_library(self, shim_env: ShimEnv, tmp_path: Path) -> None:
        text = tmp_path / "libcuda.so.1"
        text.write_text("not a library\n")
        child = run_child({**shim_env(vram=64 * MIB), "EMUV_DRIVER": str(text)}, INIT)
        assert all(child.answer["codes"])
        (line,) = errors(child)
        assert str(text) in line

    def test_a_driver_that_is_emuv_itself(self, shim_env: ShimEnv, libemuv: Path) -> None:
        """No endless circle: told, or answered with an error."""
        child = run_child({**shim_env(vram=64 * MIB), "EMUV_DRIVER": str(libemuv)}, INIT)
        assert all(child.answer["codes"])
        assert len(errors(child)) == 1

    def test_a_budget_of_nothing_gives_nothing(self, shim_env: ShimEnv) -> None:
        code = """
            d = started()
            answer(code=d.code("cuMemAlloc_v2", byref(c_uint64()), 1), info=d.memory_info())
        """
        child = run_child(shim_env(vram=0), code)
        assert child.answer == {"code": OOM, "info": [0, 0]}


class TestSegmentDirectory:
    """Where no file can be made, the budget holds all the same, and one line says so."""

    CODE = """
        d = started()
        handles, code = routes(d)["cuMemAlloc_v2"]().grab()
        answer(got=len(handles), code=code)
    """

    def held(self, env: dict[str, str], *words: str, inside: Sequence[str] = ()) -> None:
        child = run_child(env, self.CODE, inside=inside)
        assert child.answer == {"got": 16, "code": OOM}
        (line,) = errors(child)
        for word in ("no statistics", *words):
            assert word in line

    def test_open_to_others(self, shim_env: ShimEnv, runtime_dir: Path) -> None:
        runtime_dir.chmod(0o777)
        self.held(shim_env(vram=16 * MIB), str(runtime_dir), "777")
        assert list(runtime_dir.iterdir()) == []

    def test_someone_elses(self, shim_env: ShimEnv, runtime_dir: Path) -> None:
        # One that was given away, or, for who cannot give away, the system's own.
        directory, owner = (runtime_dir, 65534) if os.geteuid() == 0 else (Path("/usr/share"), 0)
        if owner:
            os.chown(directory, owner, owner)
        env = {**shim_env(vram=16 * MIB), "EMUV_RUNTIME_DIR": str(directory)}
        self.held(env, str(directory), str(owner))

    def test_a_link(self, shim_env: ShimEnv, runtime_dir: Path, tmp_path: Path) -> None:
        link = tmp_path / "link"
        link.symlink_to(runtime_dir)
        self.held({**shim_env(vram=16 * MIB), "EMUV_RUNTIME_DIR": str(link)}, str(link))
        assert list(runtime_dir.iterdir()) == []

    def test_a_file(self, shim_env: ShimEnv, tmp_path: Path) -> None:
        file = tmp_path / "file"
        file.touch(mode=0o600)
        self.held({**shim_env(vram=16 * MIB), "EMUV_RUNTIME_DIR": str(file)}, str(file))

    def test_not_there_and_not_to_be_made(self, shim_env: ShimEnv, tmp_path: Path) -> None:
        path = tmp_path / "a" / "b"
        self.held({**shim_env(vram=16 * MIB), "EMUV_RUNTIME_DIR": str(path)}, str(path))

    def test_a_relative_one(self, shim_env: ShimEnv) -> None:
        self.held({**shim_env(vram=16 * MIB), "EMUV_RUNTIME_DIR": "segments"}, "segments")

    def test_a_full_file_system(self, shim_env: ShimEnv, runtime_dir: Path) -> None:
        small = with_mount(runtime_dir, "size=4k,mode=700")
        left = ["sh", "-c", f'"$@" && test -z "$(ls -A {runtime_dir})"', "sh"]
        env = shim_env(vram=16 * MIB)
        self.held(env, str(runtime_dir), "No space left", inside=[*small, *left])

    def test_made_where_it_is_missing(self, shim_env: ShimEnv, tmp_path: Path) -> None:
        path = tmp_path / "new"
        env = {**shim_env(vram=16 * MIB), "EMUV_RUNTIME_DIR": str(path)}
        child = run_child(env, self.CODE)
        assert errors(child) == []
        assert path.stat().st_mode & 0o777 == 0o700
        (file,) = path.glob("*.seg")
        assert file.stat().st_mode & 0o777 == 0o600


# Calls that are wrong in every way, through every hook.
WRONG = """
    d = started()
    props = AllocationProp(1, 0, Location(1, 0), None, 0, 0, 0)
    nowhere = AllocationProp(1, 0, Location(1, 77), None, 0, 0, 0)
    out, pitch, huge = c_uint64(), c_size_t(), (1 << 64) - 1
    pool = d.new("cuDeviceGetDefaultMemPool", 0)
    def c(name, *args):
        return [name, d.code(name, *args)]
    codes = []
    for n in (0, huge, huge - 4095, 1 << 63):
        codes += [c("cuMemAlloc_v2", byref(out), n), c("cuMemAllocManaged", byref(out), n, 1)]
        codes += [c("cuMemAllocAsync" + f, byref(out), n, 0) for f in ("", "_ptsz")]
        codes += [c("cuMemAllocFromPoolAsync", byref(out), n, pool, 0)]
        codes += [c("cuMemCreate", byref(out), n & ~(2 * MIB - 1), byref(props), 0)]
        codes += [c("cuMemAllocPitch_v2", byref(out), byref(pitch), n, n, 4)]
        codes += [c("cuMemAllocPitch_v2", byref(out), byref(pitch), n, 1, 4)]
    codes += [c("cuMemAllocPitch_v2", byref(out), byref(pitch), 100, 100, e) for e in (0, 3, 32)]
    codes += [c("cuMemAllocPitch_v2", None, byref(pitch), 100, 100, 4)]
    codes += [c("cuMemAllocPitch_v2", byref(out), None, 100, 100, 4)]
    codes += [c(f, None, MIB) for f in ("cuMemAlloc_v2", "cuMemAlloc")]
    codes += [c("cuMemAllocManaged", byref(out), MIB, f) for f in (0, 3, 99)]
    codes += [c("cuMemAllocManaged", None, MIB, 1), c("cuMemAllocAsync", None, MIB, 0)]
    codes += [c("cuMemAllocAsync", byref(out), MIB, 12345), c("cuMemFreeAsync", 4096, 12345)]
    codes += [c("cuMemAllocFromPoolAsync", byref(out), MIB, p, 0) for p in (0, 12345)]
    codes += [c("cuMemCreate", None, 2 * MIB, byref(props), 0)]
    codes += [c("cuMemCreate", byref(out), MIB, None, 0)]
    codes += [c("cuMemCreate", byref(out), 2 * MIB, byref(nowhere), 0)]
    codes += [c("cuMemCreate", byref(out), 12345, byref(props), 0)]
    codes += [c("cuMemCreate", byref(out), 2 * MIB, byref(props), 1)]
    codes += [c(f, a) for f in ("cuMemFree_v2", "cuMemFree", "cuMemRelease", "cuArrayDestroy",
                                "cuMipmappedArrayDestroy", "cuMemPoolDestroy", "cuCtxDestroy_v2")
              for a in (0, 4096, 0xdead0000)]
    codes += [c("cuMemFreeAsync", a, 0) for a in (0, 4096, 0xdead0000)]
    codes += [c("cuMemUnmap", 0, 0), c("cuMemUnmap", 4096, 2 * MIB), c("cuMemMap", 0, 0, 0, 0, 0)]
    codes += [c("cuMemMap", 4096, 2 * MIB, 0, 12345, 0), c("cuMemRetainAllocationHandle", None, 0)]
    codes += [c("cuMemRetainAllocationHandle", byref(out), 4096)]
    codes += [c("cuMemPoolCreate", byref(out), None)]
    codes += [c("cuMemPoolCreate", None, None), c("cuArrayCreate_v2", None, None)]
    a = d.new("cuMemAlloc_v2", MIB)
    codes += [c("cuMemFree_v2", a + 4096), c("cuMemFree_v2", a), c("cuMemFree_v2", a)]
    under = "EMUV_VRAM" in os.environ
    answer(codes=codes, held=held() if under else None, books=books() if under else None)
"""


class TestCalls:
    def test_wrong_calls_answer_as_without_emuv(
        self, shim_env: ShimEnv, sim_env: dict[str, str]
    ) -> None:
        plain = run_child({**sim_env, "EMUV_SIM_VRAM": str(64 * MIB)}, WRONG)
        for env in (shim_env(vram=64 * MIB), shim_env(vram=64 * MIB, virtual=64 * MIB)):
            child = run_child(env, WRONG)
            pairs = enumerate(zip(plain.answer["codes"], child.answer["codes"], strict=True))
            assert [(i, a, b) for i, (a, b) in pairs if a != b] == []
            assert child.answer["held"] == [0, 0, 0, 0]
            assert child.answer["books"]["peak_used_bytes"] <= 128 * MIB
            assert child.answer["books"]["uncounted_calls"] == 0

    def test_with_no_limit_a_huge_request_leaves_no_trace(self, shim_env: ShimEnv) -> None:
        child = run_child(shim_env(vram="none"), WRONG)
        assert child.answer["held"] == [0, 0, 0, 0]
        assert child.answer["books"]["peak_physical_bytes"] <= 256 * MIB
        assert child.answer["books"]["peak_used_bytes"] <= 256 * MIB
