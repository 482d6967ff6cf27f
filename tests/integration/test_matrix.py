# SPDX-License-Identifier: GPL-2.0-only
"""Every way in which a program reaches the driver meets the budget.

Each row is a real process in front of libemuv.so: an allocation past the budget is
refused, and the segment says that emuV counted and refused it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import Compiler, Runner, has_gpu, run
from tests.integration.shim_tools import MIB, OOM, Child, finish

pytestmark = pytest.mark.matrix

ShimEnv = Callable[..., dict[str, str]]
PROGRAMS = Path(__file__).parent / "programs"
BUDGET = 24 * MIB


def source(name: str) -> str:
    """A program's text, with its own headers where it is."""
    return (PROGRAMS / name).read_text()


def build(
    cc: Compiler, name: str, *flags: str, libs: tuple[str, ...] = (), shared: bool = False,
    output: str | None = None,
) -> Path:  # fmt: skip
    return cc(
        source(f"{name}.c"), libs=libs, flags=[f"-I{PROGRAMS}", *flags], shared=shared,
        name=output or name,
    )  # fmt: skip


def held_to_budget(child: Child, function: str = "cuMemAlloc_v2") -> None:
    """Refused past the budget, by emuV, and counted to the byte."""
    assert child.answer == {"got": BUDGET // MIB, "code": OOM, "total": BUDGET}
    assert child.stats.is_simulated
    device = child.device()
    assert device.device_bytes == BUDGET
    assert device.live_allocations == BUDGET // MIB
    assert device.denials == 1
    assert device.calls[function] == BUDGET // MIB + 1
    assert device.uncounted_calls == 0


@pytest.fixture
def env(shim_env: ShimEnv) -> dict[str, str]:
    """24 MiB on a card of 256; the segment stays for the test to read."""
    return shim_env(vram=BUDGET, EMUV_KEEP="1")


@pytest.fixture
def lookup(cc: Compiler) -> Path:
    """programs/lookup.c."""
    return build(cc, "lookup")


def test_without_emuv_there_is_no_such_limit(lookup: Path, sim_env: dict[str, str]) -> None:
    child = finish(
        [lookup, "dlsym", "libcuda.so.1"], {**sim_env, "EMUV_SIM_VRAM": str(256 * MIB)}
    )
    assert child.answer == {"got": 256, "code": OOM, "total": 256 * MIB}
    assert child.segments == ()


def test_direct_link(cc: Compiler, env: dict[str, str]) -> None:
    held_to_budget(finish([build(cc, "direct", libs=("cuda",))], env))


@pytest.mark.parametrize(
    "way",
    ["dlsym", "v2-first", "dlvsym", "address1", "address2", "runtime"],
)
@pytest.mark.parametrize(
    "name",
    [
        "libcuda.so.1", "libcuda.so", "libcuda.so.580.65.06",
        "/usr/lib/x86_64-linux-gnu/libcuda.so.580.65.06", "the driver's own path",
    ],
)  # fmt: skip
def test_opened_at_run_time(
    lookup: Path, env: dict[str, str], sim: Path, way: str, name: str
) -> None:
    file = str(sim) if name == "the driver's own path" else name
    held_to_budget(finish([lookup, way, file], env))


def test_opened_by_a_path_with_dots(lookup: Path, env: dict[str, str], sim: Path) -> None:
    file = os.path.join(sim.parent, "..", sim.parent.name, sim.name)
    held_to_budget(finish([lookup, "dlsym", file], env))


def test_opened_only_if_there(lookup: Path, env: dict[str, str]) -> None:
    held_to_budget(finish([lookup, "noload", "libcuda.so.1"], env))


@pytest.mark.parametrize("way", ["main", "default"])
def test_found_in_the_program_itself(lookup: Path, env: dict[str, str], way: str) -> None:
    held_to_budget(finish([lookup, way], env))


@pytest.mark.parametrize("name", ["libcuda.so.1", "libcuda.so"])
def test_per_thread_default_streams(lookup: Path, env: dict[str, str], name: str) -> None:
    held_to_budget(finish([lookup, "per-thread", name], env), "cuMemAllocAsync_ptsz")


CTYPES = """
import ctypes, json
d = ctypes.CDLL({name!r})
c, out = ctypes.c_void_p(), ctypes.c_uint64()
total = ctypes.c_size_t()
assert d.cuInit(0) == 0 and d.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0) == 0
assert d.cuCtxSetCurrent(c) == 0 and d.cuDeviceTotalMem_v2(ctypes.byref(total), 0) == 0
got = code = 0
while not code:
    code = d.cuMemAlloc_v2(ctypes.byref(out), ctypes.c_size_t(1 << 20))
    got += not code
print(json.dumps(dict(got=got, code=code, total=total.value)))
"""


@pytest.mark.parametrize("name", ["libcuda.so", "libcuda.so.1"])
def test_ctypes(env: dict[str, str], name: str) -> None:
    held_to_budget(finish([sys.executable, "-c", CTYPES.format(name=name)], env))


@pytest.mark.parametrize("kind", ["lookup", "direct"])
def test_plugin_that_binds_to_its_own_libraries_first(
    cc: Compiler, env: dict[str, str], kind: str
) -> None:
    libs = ("cuda",) if kind == "direct" else ()
    plugin = build(cc, kind, "-DTAKE_SHARED", libs=libs, shared=True, output="plugin")
    held_to_budget(finish([build(cc, "plugin_host"), plugin], env))


def test_plugin_that_binds_first_to_the_short_name(
    cc: Compiler, shim_env: ShimEnv, env: dict[str, str], libemuv: Path
) -> None:
    """Its dlopen is libc's own: the launcher's folder with that name leads to emuV."""
    flags = ("-DTAKE_SHARED", '-DNAME="libcuda.so"')
    plugin = build(cc, "lookup", *flags, shared=True, output="plugin")
    host = build(cc, "plugin_host")
    front = {"LD_LIBRARY_PATH": str(libemuv.parent / "front")}
    held_to_budget(finish([host, plugin], {**env, **front}))
    # AND without the folder it does not, where no real driver is installed
    if not has_gpu():
        assert run([host, plugin], env).returncode != 0


@pytest.mark.parametrize("how", ["exec", "fork", "vfork", "posix"])
def test_started_by_a_program(cc: Compiler, lookup: Path, env: dict[str, str], how: str) -> None:
    spawn = build(cc, "spawn")
    held_to_budget(finish([spawn, how, lookup, "dlsym", "libcuda.so.1"], env))


def test_started_by_a_shell_of_a_shell(lookup: Path, env: dict[str, str]) -> None:
    command = f"sh -c '{lookup} dlsym libcuda.so.1; exit $?'"
    held_to_budget(finish(["/bin/sh", "-c", command], env))


def test_under_the_launcher(
    lookup: Path, emuv_run: Runner, runtime_dir: Path, tmp_path: Path
) -> None:
    stats = tmp_path / "stats.json"
    done = emuv_run(
        "--sim", "--vram", "24MiB", "--stats", stats, "--", lookup, "runtime", "libcuda.so.1",
        env={"EMUV_SIM_VRAM": str(256 * MIB)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f'"got": {BUDGET // MIB}, "code": {OOM}' in done.stdout
    (process,) = json.loads(stats.read_text())["processes"]
    assert process["devices"][0]["device_bytes"] == BUDGET
    assert process["devices"][0]["denials"] == 1
    assert list(runtime_dir.glob("*.seg")) == []  # collected


class TestWhatIsLeftAlone:
    def test_libraries_found_by_the_callers_runpath(
        self, cc: Compiler, env: dict[str, str], tmp_path: Path
    ) -> None:
        """memray#212: a wrapped dlopen lost the caller's RUNPATH."""
        # GIVEN a program that finds a library by $ORIGIN only, which so finds another
        runpath = "-Wl,--enable-new-dtags,-rpath,$ORIGIN/"
        text = source("origin.c")
        inner = cc(text, flags=["-DINNER"], shared=True, name="libinner")
        middle = cc(
            text, flags=["-DFOUND", '-DOPENS="libinner.so"', runpath + "deeper"], shared=True,
            name="libmiddle",
        )  # fmt: skip
        program = cc(text, flags=['-DOPENS="libmiddle.so"', runpath + "private"], name="origin")
        (tmp_path / "private" / "deeper").mkdir(parents=True)
        inner.rename(tmp_path / "private" / "deeper" / inner.name)
        middle.rename(tmp_path / "private" / middle.name)
        # THEN it does so in front of emuV too
        assert run([program], env).returncode == 42
        # AND not where the RUNPATH does not lead
        (tmp_path / "private" / "deeper").rename(tmp_path / "private" / "elsewhere")
        assert run([program], env).returncode == 1

    def test_the_program_that_uses_no_cuda_loads_no_driver(
        self, emuv_run: Runner, libemuv: Path, sim: Path, runtime_dir: Path
    ) -> None:
        done = emuv_run("--sim", "--vram", "24MiB", "-q", "--", "cat", "/proc/self/maps")
        assert done.returncode == 0
        assert str(libemuv) in done.stdout
        assert str(sim) not in done.stdout
        assert "libnvidia-ml" not in done.stdout
        assert list(runtime_dir.iterdir()) == []

    def test_opening_the_driver_alone_does_not_load_it(
        self, env: dict[str, str], sim: Path, runtime_dir: Path
    ) -> None:
        code = "import ctypes; ctypes.CDLL('libcuda.so.1'); print(open('/proc/self/maps').read())"
        done = run([sys.executable, "-c", code], env)
        assert str(sim) not in done.stdout
        assert list(runtime_dir.iterdir()) == []

    def test_other_libraries_of_the_name_are_not_taken(
        self, cc: Compiler, env: dict[str, str]
    ) -> None:
        other = cc(
            "int answer(void);\nint answer(void) { return 7; }\n", shared=True, name="libcudart"
        )
        code = f"import ctypes; raise SystemExit(ctypes.CDLL({str(other)!r}).answer())"
        assert run([sys.executable, "-c", code], env).returncode == 7
