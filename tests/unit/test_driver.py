# SPDX-License-Identifier: GPL-2.0-only
"""Finding the driver: order, and everything that must not be taken for one."""

from __future__ import annotations

import os
import shutil
import struct
import sys
from pathlib import Path

import pytest

from emuv_shim import _driver, _nvml
from emuv_shim.errors import CommandError
from tests.conftest import SIMULATOR


def library(path: Path, *, elf_class: int = 2, machine: int | None = None, kind: int = 3) -> Path:
    """A file with the header of a shared library, of this machine unless told."""
    own = _driver.own_identity()
    path.parent.mkdir(parents=True, exist_ok=True)
    ident = struct.pack("4sBBBB8x", b"\x7fELF", elf_class, own[1], 1, 0)
    path.write_bytes(ident + struct.pack("<HH", kind, machine or own[3]) + bytes(44))
    return path


@pytest.fixture(autouse=True)
def bare_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing in the loader's cache or the standard directories."""
    monkeypatch.setattr(_driver, "_from_ldconfig", lambda soname: [])
    monkeypatch.setattr(_driver, "_STANDARD", ())
    monkeypatch.setattr(_driver, "_WSL", "/nonexistent")
    monkeypatch.setattr(_driver.sys.implementation, "_multiarch", "", raising=False)


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A package directory with both libraries built."""
    monkeypatch.setattr(_driver, "_PACKAGE", str(tmp_path / "pkg"))
    library(tmp_path / "pkg/_lib/libemuv.so")
    library(tmp_path / "pkg/_lib/sim/libcuda.so.1")
    return tmp_path / "pkg"


def failure(environ: dict[str, str], *, sim: bool = False) -> CommandError:
    with pytest.raises(CommandError) as caught:
        _driver.find_driver(environ, sim=sim)
    assert caught.value.exit_code == 125
    assert caught.value.hint
    return caught.value


def test_nothing_found_points_at_the_simulated_gpu() -> None:
    error = failure({})

    assert "no NVIDIA driver found" in error.message
    assert "--sim" in (error.hint or "")


def test_sim_is_taken_only_where_asked_for(package: Path) -> None:
    sim = package / "_lib/sim/libcuda.so.1"

    assert _driver.find_driver({}, sim=True) == _driver.Driver(str(sim), "--sim", True)
    error = failure({"LD_LIBRARY_PATH": str(sim.parent)})
    assert "the simulated GPU" in error.message


def test_sim_that_was_not_built_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_driver, "_PACKAGE", str(tmp_path))

    assert "no such file" in failure({}, sim=True).message


def test_library_path_then_loader_cache_then_standard(
    tmp_path: Path, package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = library(tmp_path / "a/libcuda.so.1")
    cached = library(tmp_path / "b/libcuda.so.1")
    standard = library(tmp_path / "c/libcuda.so.1")
    monkeypatch.setattr(_driver, "_from_ldconfig", lambda soname: [str(cached)])
    monkeypatch.setattr(_driver, "_STANDARD", (str(standard.parent),))
    environ = {"LD_LIBRARY_PATH": f":relative:/nonexistent:{first.parent}"}

    assert _driver.find_driver(environ).path == str(first)
    assert _driver.find_driver({}) == _driver.Driver(str(cached), "the loader's cache", False)
    cached.unlink()
    assert _driver.find_driver({}).path == str(standard)


@pytest.mark.parametrize(
    "wrong",
    [{"elf_class": 1}, {"machine": 0xF0}, {"kind": 2}],
    ids=["32-bit", "foreign", "program"],
)
def test_unloadable_files_are_passed_over(
    tmp_path: Path, package: Path, wrong: dict[str, int]
) -> None:
    library(tmp_path / "bad/libcuda.so.1", **wrong)
    good = library(tmp_path / "good/libcuda.so.1")

    environ = {"LD_LIBRARY_PATH": f"{tmp_path}/bad:{good.parent}"}

    assert _driver.find_driver(environ).path == str(good)


def test_stub_and_own_library_are_no_drivers(tmp_path: Path, package: Path) -> None:
    library(tmp_path / "cuda/stubs/libcuda.so.1")
    (tmp_path / "own").mkdir()
    (tmp_path / "own/libcuda.so.1").symlink_to(package / "_lib/libemuv.so")
    (tmp_path / "copy").mkdir()
    shutil.copy(package / "_lib/libemuv.so", tmp_path / "copy/libemuv.so")
    (tmp_path / "copy/libcuda.so.1").symlink_to("libemuv.so")
    library(tmp_path / "copy/front/libcuda.so.1")  # its name on a search path

    for directory in ("cuda/stubs", "own", "copy", "copy/front"):
        failure({"LD_LIBRARY_PATH": str(tmp_path / directory)})


def test_emuv_driver_is_obeyed(tmp_path: Path, package: Path) -> None:
    mine = library(tmp_path / "mine.so")
    other = library(tmp_path / "a/libcuda.so.1")

    environ = {"EMUV_DRIVER": str(mine), "LD_LIBRARY_PATH": str(other.parent)}
    found = _driver.find_driver(environ)

    assert found == _driver.Driver(str(mine), "EMUV_DRIVER", False)


def test_emuv_driver_may_be_the_sim_and_is_known_as_such(package: Path) -> None:
    found = _driver.find_driver({"EMUV_DRIVER": str(package / "_lib/sim/libcuda.so.1")})

    assert found.is_sim


@pytest.mark.parametrize("case", ["missing", "relative", "directory", "text", "libemuv", "empty"])
def test_emuv_driver_that_cannot_be_is_refused_and_quoted(
    tmp_path: Path, package: Path, case: str
) -> None:
    (tmp_path / "text").write_text("not a library")
    (tmp_path / "empty").write_text("")
    given = {
        "missing": str(tmp_path / "nope"),
        "relative": "libcuda.so.1",
        "directory": str(tmp_path),
        "text": str(tmp_path / "text"),
        "empty": str(tmp_path / "empty"),
        "libemuv": str(package / "_lib/libemuv.so"),
    }[case]

    assert f'"{given}"' in failure({"EMUV_DRIVER": given}).message


def test_fifo_as_driver_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")

    assert "not an ELF library" in failure({"EMUV_DRIVER": str(tmp_path / "fifo")}).message


def test_ldconfig_output_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    tool = tmp_path / "ldconfig"
    tool.write_text(
        "#!/bin/sh\n"
        'echo "2 libs found in cache"\n'
        'echo "	libcuda.so.1 (libc6,x86-64) => /a/libcuda.so.1"\n'
        'echo "	libcuda.so (libc6,x86-64) => /a/libcuda.so"\n'
        'echo "	libcuda.so.1 (libc6) => /b b/libcuda.so.1"\n'
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    import subprocess

    real = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda args, **k: real([str(tool), *args[1:]], **k))

    assert _driver._from_ldconfig("libcuda.so.1") == ["/a/libcuda.so.1", "/b b/libcuda.so.1"]


class TestCards:
    SIM = _driver.Driver("/sim", "--sim", True)
    REAL = _driver.Driver("/real", "x", False)

    def seen(self, environ: dict[str, str]) -> list[int]:
        return _driver.seen_bytes(_driver.machine_cards(self.SIM, environ), environ)

    def test_defaults_and_choice(self) -> None:
        assert self.seen({}) == [8 << 30]
        environ = {"EMUV_SIM_VRAM": str(256 << 20), "EMUV_SIM_DEVICES": "3"}
        assert self.seen(environ) == [256 << 20] * 3

    @pytest.mark.parametrize(
        ("visible", "count"), [("2,0", 2), ("GPU-22", 1), ("0,7,1", 1), ("", 0), ("MIG-1", 0)]
    )
    def test_cuda_visible_devices(self, visible: str, count: int) -> None:
        environ = {"EMUV_SIM_DEVICES": "3", "CUDA_VISIBLE_DEVICES": visible}
        assert len(self.seen(environ)) == count

    @pytest.mark.parametrize("text", ["8GiB", "-1", "0", "1.5", " 1", "٣", "9" * 30])
    @pytest.mark.parametrize("name", ["EMUV_SIM_VRAM", "EMUV_SIM_DEVICES"])
    def test_what_the_sim_would_not_read_is_refused(self, name: str, text: str) -> None:
        with pytest.raises(CommandError, match=name) as caught:
            _driver.machine_cards(self.SIM, {name: text})
        assert caught.value.exit_code == 125

    def test_nvml_that_hangs_costs_a_bounded_wait(self, monkeypatch: pytest.MonkeyPatch) -> None:
        import threading

        release = threading.Event()
        monkeypatch.setattr(_nvml, "_ask", lambda path, users: release.wait(20))
        try:
            assert _nvml.ask("/nvml", wait_s=0.05) is None
        finally:
            release.set()

    def test_mig_slices_are_not_guessed(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cards = (_nvml.Card(0, "GPU-1", "a", 80 << 30), _nvml.Card(1, "GPU-2", "b", 40 << 30))
        monkeypatch.setattr(_driver, "find_nvml", lambda driver, environ: "/nvml")
        monkeypatch.setattr(_nvml, "ask", lambda path: _nvml.Answer(cards, False))
        found = _driver.machine_cards(self.REAL, {})

        assert _driver.seen_bytes(found, {"CUDA_VISIBLE_DEVICES": "MIG-1234"}) == []
        assert _driver.seen_bytes(found, {}) == [80 << 30, 40 << 30]
        assert _driver.seen_bytes(found, {"CUDA_VISIBLE_DEVICES": "GPU-2"}) == [40 << 30]

    def test_the_stand_in_is_not_believed_about_a_real_card(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        beside = str(SIMULATOR.parent / _driver.NVML_SONAME)
        monkeypatch.setattr(_driver, "find_nvml", lambda driver, environ: beside)
        answer = _nvml.ask(beside)
        assert answer is not None and answer.simulated and answer.cards[0].uuid[:6] == "GPU-00"
        assert _driver.machine_cards(self.REAL, {}) == []


class TestNvml:
    def test_the_simulated_machines_is_beside_its_driver(self) -> None:
        sim = _driver.Driver(str(SIMULATOR), "--sim", True)
        assert _driver.find_nvml(sim, {}) == str(SIMULATOR.parent / _driver.NVML_SONAME)

    def test_a_real_drivers(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_driver, "_from_ldconfig", lambda soname: [])
        monkeypatch.setattr(_driver, "_STANDARD", ())
        monkeypatch.setattr(sys.implementation, "_multiarch", "", raising=False)
        driver = _driver.Driver(str(tmp_path / "libcuda.so.1"), "x", False)
        sims = {"LD_LIBRARY_PATH": str(SIMULATOR.parent)}
        ours = str(Path(_driver.libemuv_nvml_path()))
        # None, the simulated machine's, and emuV's own: there is none.
        assert _driver.find_nvml(driver, {}) is None
        assert _driver.find_nvml(driver, sims) is None
        assert _driver.find_nvml(driver, {"EMUV_NVML": str(SIMULATOR.parent / _driver.NVML_SONAME)}) is None  # noqa: E501
        beside = tmp_path / _driver.NVML_SONAME
        shutil.copy(SIMULATOR, beside)
        assert _driver.find_nvml(driver, sims) == str(beside)
        assert _driver.find_nvml(None, {"LD_LIBRARY_PATH": str(tmp_path)}) == str(beside)
        assert _driver.find_nvml(None, {"EMUV_NVML": str(beside)}) == str(beside)
        for bad in (ours, "/nonexistent", "relative.so"):
            with pytest.raises(CommandError, match="EMUV_NVML=") as caught:
                _driver.find_nvml(driver, {"EMUV_NVML": bad})
            assert caught.value.exit_code == 125
