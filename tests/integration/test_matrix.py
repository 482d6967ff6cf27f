# SPDX-License-Identifier: GPL-2.0-only
"""Every way in which a program reaches the driver meets the budget.

Each row is a real process in front of libemuv.so: an allocation past the budget is
refused, and the segment says that emuV counted and refused it. Rows run under the preload,
under --audit (the preload and the loader's auditor), and, where the preload has no part in
it, under the auditor alone.
"""

from __future__ import annotations

import json
import os
import re
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
MODES = ["preload", "audit"]
in_modes = pytest.mark.parametrize("mode", MODES, indirect=True)
in_all_modes = pytest.mark.parametrize("mode", [*MODES, "auditor"], indirect=True)


def source(name: str) -> str:
    """A program's text, with its own headers where it is."""
    return (PROGRAMS / name).read_text()


def build(
    shared_cc: Compiler, name: str, *flags: str, libs: tuple[str, ...] = (), shared: bool = False,
    output: str | None = None,
) -> Path:  # fmt: skip
    return shared_cc(
        source(f"{name}.c"), libs=libs, flags=[f"-I{PROGRAMS}", *flags], shared=shared,
        name=output or name,
    )  # fmt: skip


def held_to_budget(child: Child, function: str = "cuMemAlloc_v2") -> None:
    """Refused past the budget, by emuV, and counted to the byte."""
    assert child.answer == {"got": BUDGET // MIB, "code": OOM, "total": BUDGET}
    counted(child, function)


def counted(child: Child, function: str = "cuMemAlloc_v2") -> None:
    """One process has counted the whole budget, and one refusal."""
    assert child.stats.is_simulated
    device = child.device()
    assert device.device_bytes == BUDGET
    assert device.live_allocations == BUDGET // MIB
    assert device.denials == 1
    assert device.calls[function] == BUDGET // MIB + 1
    assert device.uncounted_calls == 0


@pytest.fixture
def mode(request: pytest.FixtureRequest) -> str:
    """How emuV comes in."""
    return getattr(request, "param", "preload")


@pytest.fixture
def env(shim_env: ShimEnv, mode: str) -> dict[str, str]:
    """24 MiB on a card of 256; the segment stays for the test to read."""
    return shim_env(vram=BUDGET, mode=mode, EMUV_KEEP="1")


@pytest.fixture
def front(env: dict[str, str], libemuv: Path) -> dict[str, str]:
    """`env` with the launcher's search path, on which libcuda.so and libcuda.so.1 are emuV."""
    return {**env, "LD_LIBRARY_PATH": str(libemuv.parent / "front")}


@pytest.fixture
def lookup(shared_cc: Compiler) -> Path:
    """programs/lookup.c."""
    return build(shared_cc, "lookup")


def test_without_emuv_there_is_no_such_limit(lookup: Path, sim_env: dict[str, str]) -> None:
    child = finish(
        [lookup, "dlsym", "libcuda.so.1"], {**sim_env, "EMUV_SIM_VRAM": str(256 * MIB)}
    )
    assert child.answer == {"got": 256, "code": OOM, "total": 256 * MIB}
    assert child.segments == ()


@in_all_modes
@pytest.mark.parametrize("binding", ["now", "lazy"])
def test_direct_link(shared_cc: Compiler, env: dict[str, str], binding: str) -> None:
    program = build(
        shared_cc, "direct", f"-Wl,-z,{binding}", libs=("cuda",), output=f"direct-{binding}"
    )
    held_to_budget(finish([program], env))


@in_all_modes
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


@in_all_modes
def test_opened_by_a_path_with_dots(lookup: Path, env: dict[str, str], sim: Path) -> None:
    file = os.path.join(sim.parent, "..", sim.parent.name, sim.name)
    held_to_budget(finish([lookup, "dlsym", file], env))


@in_modes
def test_opened_only_if_there(lookup: Path, env: dict[str, str]) -> None:
    held_to_budget(finish([lookup, "noload", "libcuda.so.1"], env))


@in_modes
@pytest.mark.parametrize("way", ["main", "default"])
def test_found_in_the_program_itself(lookup: Path, env: dict[str, str], way: str) -> None:
    held_to_budget(finish([lookup, way], env))


@in_modes
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


@in_modes
@pytest.mark.parametrize("name", ["libcuda.so", "libcuda.so.1"])
def test_ctypes(env: dict[str, str], name: str) -> None:
    held_to_budget(finish([sys.executable, "-c", CTYPES.format(name=name)], env))


class TestPluginThatBindsToItsOwnLibrariesFirst:
    """RTLD_DEEPBIND: its dlopen is libc's own."""

    def host(self, shared_cc: Compiler, *flags: str, name: str = "lookup") -> list[str | Path]:
        libs = ("cuda",) if name == "direct" else ()
        plugin = build(
            shared_cc, name, "-DTAKE_SHARED", *flags, libs=libs, shared=True,
            output="-".join(["plugin", name, *(re.sub(r"\W", "_", flag) for flag in flags)]),
        )  # fmt: skip
        return [build(shared_cc, "plugin_host"), plugin]

    @in_modes
    @pytest.mark.parametrize("kind", ["lookup", "direct"])
    def test_by_soname(self, shared_cc: Compiler, env: dict[str, str], kind: str) -> None:
        held_to_budget(finish(self.host(shared_cc, name=kind), env))

    @in_all_modes
    def test_by_the_short_name(
        self, shared_cc: Compiler, env: dict[str, str], front: dict[str, str], mode: str
    ) -> None:
        host = self.host(shared_cc, '-DNAME="libcuda.so"')
        # The launcher's folder with that name leads to emuV.
        held_to_budget(finish(host, front))
        # Without the folder the auditor does, and else nothing, where no driver is installed.
        if mode == "preload":
            assert has_gpu() or run(host, env).returncode != 0

    @in_all_modes
    def test_by_an_absolute_path(
        self, shared_cc: Compiler, env: dict[str, str], sim: Path, mode: str
    ) -> None:
        child = finish(self.host(shared_cc, f'-DNAME="{sim}"'), env)
        if mode == "preload":  # docs/limits.md says so
            assert child.answer == {"got": 256, "code": OOM, "total": 256 * MIB}
        else:
            held_to_budget(child)


class TestNamespaces:
    """dlmopen: a copy of each library for each namespace, and one set of books."""

    @pytest.fixture
    def program(self, shared_cc: Compiler) -> Path:
        return build(shared_cc, "namespaces")

    @pytest.fixture
    def plugin(self, shared_cc: Compiler) -> Path:
        return build(
            shared_cc, "direct", "-DTAKE_SHARED", libs=("cuda",), shared=True, output="plugin"
        )

    def steps(self, program: Path, env: dict[str, str], *steps: str) -> list[int]:
        child = finish([program, *steps], env)
        assert (child.answer["code"], child.answer["total"]) == (OOM, BUDGET)
        counted(child)
        return list(child.answer["came_to"])

    @in_modes
    @pytest.mark.parametrize("file", ["libcuda.so.1", "libcuda.so", "libcuda.so.580.65.06", "path"])
    def test_the_sum_is_held(
        self, program: Path, env: dict[str, str], sim: Path, file: str
    ) -> None:
        file = str(sim) if file == "path" else file
        assert self.steps(program, env, f"base:{file}:7", f"new:{file}:9", f"base:{file}:99") == [
            7, 9, 8,
        ]  # fmt: skip

    @in_modes
    def test_the_first_is_not_the_base(self, program: Path, env: dict[str, str]) -> None:
        steps = ["new:libcuda.so.1:3", "new:libcuda.so:5", "base:libcuda.so.1:99"]
        assert self.steps(program, env, *steps) == [3, 5, 16]

    @in_modes
    def test_a_library_that_needs_the_driver(
        self, program: Path, plugin: Path, front: dict[str, str]
    ) -> None:
        # 10 MiB here; the plugin, in its own namespace, prints what it then gets
        child = finish([program, "base:libcuda.so.1:10", f"plugin:{plugin}:0"], front)
        first = json.loads(child.stdout.splitlines()[0])
        assert first == {"got": 14, "code": OOM, "total": BUDGET}
        counted(child)

    def test_without_a_search_path_it_needs_the_auditor(
        self, program: Path, plugin: Path, shim_env: ShimEnv, sim: Path
    ) -> None:
        """A library that finds the driver by an RPATH of its own, in its own namespace."""
        # (here by a search path on which emuV is not)
        for mode, got in (("preload", 256), ("audit", 14), ("auditor", 14)):
            env = shim_env(vram=BUDGET, mode=mode, LD_LIBRARY_PATH=str(sim.parent))
            child = finish([program, "base:libcuda.so.1:10", f"plugin:{plugin}:0"], env)
            assert json.loads(child.stdout.splitlines()[0])["got"] == got, mode

    @in_modes
    def test_namespaces_come_and_go(
        self, program: Path, env: dict[str, str], sim_env: dict[str, str], sim: Path
    ) -> None:
        # The loader has 16 places: none is lost for one that has gone.
        steps = ["cycle:libcuda.so.1:40", "fill:libcuda.so.1:6", "new:libcuda.so:99"]
        assert self.steps(program, env, *steps) == [40, 6, 24]
        # And as many at once as without emuV (what ends it is the C library's own TLS).
        plain = finish([program, f"fill:{sim}:99"], sim_env).answer["came_to"][0]
        child = finish([program, "fill:libcuda.so.1:99"], env)
        assert child.answer["came_to"][0] >= plain


class TestWhatDoesNotLeaveWithTheProgramsHandle:
    @pytest.mark.parametrize("mode", [*MODES, "auditor", "search path"])
    def test_the_books_outlive_a_dlclose(
        self, shim_env: ShimEnv, libemuv: Path, mode: str
    ) -> None:
        """Where nothing else keeps the library in the process, too."""
        code = CLOSED + "\nprint(json.dumps(dict(first=take(), again=take())))"
        env = shim_env(vram=BUDGET, mode=mode, EMUV_KEEP="1")
        if mode == "search path":
            env = {k: v for k, v in env.items() if k not in ("LD_PRELOAD", "LD_AUDIT")}
            env["LD_LIBRARY_PATH"] = str(libemuv.parent / "front")
        child = finish([sys.executable, "-c", code], env)
        assert child.answer == {"first": 24, "again": 0}


CLOSED = """
import _ctypes, ctypes, json
def take():
    handle = _ctypes.dlopen("libcuda.so.1", 2)
    d = ctypes.CDLL(None, handle=handle)
    c, out, got = ctypes.c_void_p(), ctypes.c_uint64(), 0
    assert d.cuInit(0) == 0 and d.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0) == 0
    assert d.cuCtxSetCurrent(c) == 0
    while not d.cuMemAlloc_v2(ctypes.byref(out), ctypes.c_size_t(1 << 20)):
        got += 1
    del d
    _ctypes.dlclose(handle)
    return got
"""


@in_modes
@pytest.mark.parametrize("how", ["exec", "fork", "vfork", "posix"])
def test_started_by_a_program(
    shared_cc: Compiler, lookup: Path, env: dict[str, str], how: str
) -> None:
    spawn = build(shared_cc, "spawn")
    held_to_budget(finish([spawn, how, lookup, "dlsym", "libcuda.so.1"], env))


@in_modes
def test_started_by_a_shell_of_a_shell(lookup: Path, env: dict[str, str]) -> None:
    command = f"sh -c '{lookup} dlsym libcuda.so.1; exit $?'"
    held_to_budget(finish(["/bin/sh", "-c", command], env))


@pytest.mark.parametrize("options", [[], ["--audit"]], ids=["preload", "audit"])
def test_under_the_launcher(
    lookup: Path, emuv_run: Runner, runtime_dir: Path, tmp_path: Path, options: list[str]
) -> None:
    stats = tmp_path / "stats.json"
    done = emuv_run(
        "--sim", "--vram", "24MiB", *options, "--stats", stats, "--",
        lookup, "runtime", "libcuda.so.1",
        env={"EMUV_SIM_VRAM": str(256 * MIB)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f'"got": {BUDGET // MIB}, "code": {OOM}' in done.stdout
    (process,) = json.loads(stats.read_text())["processes"]
    assert process["devices"][0]["device_bytes"] == BUDGET
    assert process["devices"][0]["denials"] == 1
    assert list(runtime_dir.glob("*.seg")) == []  # collected


NVML = """
import ctypes, json, sys
class Memory(ctypes.Structure):
    _fields_ = [("total", ctypes.c_uint64), ("free", ctypes.c_uint64), ("used", ctypes.c_uint64)]
def total(n):
    handle, memory = ctypes.c_void_p(), Memory()
    assert n.nvmlInit_v2() == 0
    assert n.nvmlDeviceGetHandleByIndex_v2(0, ctypes.byref(handle)) == 0
    assert n.nvmlDeviceGetMemoryInfo(handle, ctypes.byref(memory)) == 0
    return memory.total
DEEPBIND = 8
print(json.dumps([total(ctypes.CDLL(name, mode)) for name in sys.argv[1:] for mode in (2, 10)]))
"""


@pytest.mark.parametrize("options", [[], ["--audit"]], ids=["preload", "audit"])
def test_nvml_by_every_name(emuv_run: Runner, sim: Path, options: list[str]) -> None:
    names = [
        "libnvidia-ml.so.1", "libnvidia-ml.so", "libnvidia-ml.so.580.65.06",
        str(sim.with_name("libnvidia-ml.so.1")),
    ]  # fmt: skip
    done = emuv_run(
        "--sim", "--vram", "24MiB", *options, "-q", "--", sys.executable, "-c", NVML, *names
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [BUDGET] * 8


class TestWhatIsLeftAlone:
    @in_all_modes
    def test_libraries_found_by_the_callers_runpath(
        self, cc: Compiler, env: dict[str, str], tmp_path: Path
    ) -> None:
        """Elsewhere a wrapped dlopen lost the caller's RUNPATH."""
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
