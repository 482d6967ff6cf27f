# SPDX-License-Identifier: GPL-2.0-only
"""What all tests share: the built artefacts, runners with hard limits, a C compiler.

Programs run in a session of their own, which is killed whole at the limit, with
none of the caller's EMUV_*, LD_* or CUDA_* variables and a segment directory
of their own.  Nothing here loads CUDA into the test process.
"""

from __future__ import annotations

import functools
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Protocol

import pytest

ROOT = Path(__file__).resolve().parent.parent
LIBRARY = ROOT / "emuv_shim" / "_lib" / "libemuv.so"
AUDITOR = LIBRARY.with_name("libemuv-audit.so")
SIMULATOR = ROOT / "emuv_shim" / "_lib" / "sim" / "libcuda.so.1"
WARNINGS = ("-Wall", "-Wextra", "-Wshadow", "-Wmissing-prototypes", "-Wstrict-prototypes")

Completed = subprocess.CompletedProcess[str]


class Runner(Protocol):
    """Runs a command line to its end; a non-zero status is the caller's to judge."""

    def __call__(
        self, *args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> Completed: ...


class Compiler(Protocol):
    """Compiles C text with -Werror and returns the program (or, `shared`, the library).

    `libs`: "cuda" links the simulated libcuda.so.1 (by soname: the run decides
    which library that is); other names go to -l.
    """

    def __call__(
        self,
        source: str,
        libs: Sequence[str] = (),
        flags: Sequence[str] = (),
        name: str = "program",
        shared: bool = False,
    ) -> Path: ...


def has_gpu() -> bool:
    """True where an NVIDIA kernel driver is loaded (WSL: the paravirtual device)."""
    return Path("/dev/nvidiactl").exists() or Path("/dev/dxg").exists()


@pytest.fixture(scope="session", autouse=True)
def kernel_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Compiled kernels are kept for this run, and not among the user's."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip tests marked `gpu` where there is none: the only skip rule of the suite."""
    if has_gpu():
        return
    for item in items:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason="no NVIDIA GPU on this machine"))


def run(
    args: Sequence[str | Path],
    env: Mapping[str, str],
    timeout: float = 60,
    cwd: Path | None = None,
) -> Completed:
    """Run `args` with exactly `env`; kill its whole session after `timeout` seconds."""
    process = subprocess.Popen(
        [str(a) for a in args],
        env=dict(env),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        errors="replace",
        start_new_session=True,
    )
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        out, err = process.communicate(timeout=10)
        pytest.fail(f"no end after {timeout} s: {args}\nstdout: {out}\nstderr: {err}")
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def built(path: Path) -> Path:
    """`path`, which must exist: an artefact that is missing is a failure, not a skip."""
    if not path.exists():
        pytest.fail(f"{path} is not built: run `make build`")
    return path


@pytest.fixture(scope="session")
def root() -> Path:
    """The repository."""
    return ROOT


@pytest.fixture(scope="session")
def libemuv() -> Path:
    """The interposer."""
    return built(LIBRARY)


@pytest.fixture(scope="session")
def sim() -> Path:
    """The simulated GPU's libcuda.so.1."""
    return built(SIMULATOR)


@pytest.fixture
def runtime_dir(tmp_path: Path) -> Path:
    """A segment directory of this test's own."""
    path = tmp_path / "runtime"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def clean_env(runtime_dir: Path) -> dict[str, str]:
    """The caller's environment without what steers emuV, CUDA or the dynamic linker."""
    env = {
        key: value
        for key, value in os.environ.items()
        if not key.startswith(("EMUV_", "LD_", "CUDA_", "NUMBA_", "PYTHONPATH"))
    }
    env["EMUV_RUNTIME_DIR"] = str(runtime_dir)
    env["NO_COLOR"] = "1"
    env["PYTHONPATH"] = str(ROOT)
    return env


@pytest.fixture
def sim_env(clean_env: dict[str, str], sim: Path) -> dict[str, str]:
    """`clean_env` in which libcuda.so.1 is the simulated GPU, with no emuV in front."""
    return {**clean_env, "LD_LIBRARY_PATH": str(sim.parent)}


@pytest.fixture
def shim_env(clean_env: dict[str, str], libemuv: Path, sim: Path) -> Callable[..., dict[str, str]]:
    """Makes the environment that the launcher would give a program, for shim tests.

    `shim_env(vram=..., virtual=..., policy=..., card=...)`, sizes in bytes; `mode` is
    "preload", "audit" (--audit: both), or "auditor" (that alone).
    """

    def make(
        vram: int | str = "none",
        virtual: int | str = 0,
        policy: str | None = None,
        card: int = 256 << 20,
        mode: str = "preload",
        **more: str,
    ) -> dict[str, str]:
        loader = {"LD_PRELOAD": str(libemuv), "LD_AUDIT": str(built(AUDITOR))}
        if mode != "audit":
            del loader["LD_AUDIT" if mode == "preload" else "LD_PRELOAD"]
        return {
            **clean_env,
            **loader,
            "EMUV_DRIVER": str(sim),
            "EMUV_VRAM": str(vram),
            "EMUV_VIRTUAL": str(virtual),
            "EMUV_POLICY": policy or ("spill" if virtual else "cap"),
            "EMUV_ALLOCATION": "lazy",
            "EMUV_SIM_VRAM": str(card),
            **more,
        }

    return make


def entry_point(module: str, name: str) -> list[str]:
    """The command of a console script, whether or not the package is installed."""
    code = f"import sys; from {module} import main; sys.argv[0] = {name!r}; sys.exit(main())"
    return [sys.executable, "-c", code]


@pytest.fixture
def emuv_run(clean_env: dict[str, str], libemuv: Path) -> Runner:
    """`emuv-run ARGS…`; pass --sim for the simulated GPU."""

    def call(
        *args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> Completed:
        command = entry_point("emuv_shim.commands.run", "emuv-run")
        return run([*command, *args], {**clean_env, **(env or {})}, timeout)

    return call


@pytest.fixture
def emuv(clean_env: dict[str, str]) -> Runner:
    """`emuv ARGS…`, on the same segment directory as `emuv_run`."""

    def call(
        *args: str | Path, env: Mapping[str, str] | None = None, timeout: float = 60
    ) -> Completed:
        command = entry_point("emuv_shim.commands", "emuv")
        return run([*command, *args], {**clean_env, **(env or {})}, timeout)

    return call


def compile_c(
    folder: Path,
    source: str,
    libs: Sequence[str] = (),
    flags: Sequence[str] = (),
    name: str = "program",
    shared: bool = False,
) -> Path:
    """What `Compiler` does, in a folder."""
    text = folder / f"{name}.c"
    text.write_text(source)
    target = folder / (f"{name}.so" if shared else name)
    command = [
        os.environ.get("CC", shutil.which("gcc") or "cc"),
        *("-std=gnu17", "-g", "-O1", "-pthread", *WARNINGS, "-Werror"),
        f"-I{ROOT / 'csrc' / 'common'}",
        *(["-shared", "-fPIC"] if shared else []),
        *flags,
        *("-o", str(target), str(text)),
    ]
    for lib in libs:
        if lib == "cuda":
            command += [f"-L{built(SIMULATOR).parent}", "-l:libcuda.so.1"]
        else:
            command.append(f"-l{lib}")
    done = run([*command, "-ldl"], os.environ, 60)
    assert done.returncode == 0, done.stderr
    return target


@pytest.fixture
def cc(tmp_path: Path) -> Compiler:
    """A C compiler for tiny programs that call the driver."""
    return functools.partial(compile_c, tmp_path)


@pytest.fixture(scope="module")
def shared_cc(tmp_path_factory: pytest.TempPathFactory) -> Compiler:
    """The same for programs that a file's tests share: compiled once for each name."""
    folder = tmp_path_factory.mktemp("programs")
    made: dict[str, Path] = {}

    def build(
        source: str,
        libs: Sequence[str] = (),
        flags: Sequence[str] = (),
        name: str = "program",
        shared: bool = False,
    ) -> Path:
        if name not in made:
            made[name] = compile_c(folder, source, libs, flags, name, shared)
        return made[name]

    return build
