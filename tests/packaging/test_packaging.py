# SPDX-License-Identifier: GPL-2.0-only
"""What a user installs: the sdist builds, the wheel holds the artefacts, changes rebuild."""

from __future__ import annotations

import os
import re
import shutil
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, run

ARTEFACTS = {
    "emuv_shim/_native.abi3.so",
    "emuv_shim/_lib/libemuv.so",
    "emuv_shim/_lib/libemuv-audit.so",
    "emuv_shim/_lib/libemuv-nvml.so",
    "emuv_shim/_lib/sim/libcuda.so.1",
    "emuv_shim/_lib/sim/libcudart.so.12",
    "emuv_shim/_lib/sim/libcudart.so.13",
    "emuv_shim/_lib/sim/libnvidia-ml.so.1",
    "emuv_shim/_lib/front/libcuda.so",
    "emuv_shim/_lib/front/libcuda.so.1",
}
NAMES = sorted(name for name in ARTEFACTS if "/front/" in name)
BARE = "emuv_shim/_lib/libemuv-audit.so"
PLAIN = sorted(ARTEFACTS - {"emuv_shim/_native.abi3.so", BARE, *NAMES})
BUILD_LIMIT_S = 240


def environment() -> dict[str, str]:
    """The caller's, without what would change how emuV is compiled or found."""
    drop = ("EMUV_", "LD_", "PYTHONPATH", "CFLAGS", "LDFLAGS")
    return {k: v for k, v in os.environ.items() if not k.startswith(drop)}


def copy_of_tree(target: Path) -> Path:
    """The tree's sources, with nothing that was built."""
    built = shutil.ignore_patterns(
        ".git", ".venv*", "build", "dist", "*.egg-info", "_lib", "*.so", "*_cache", "__pycache__",
        ".hypothesis", ".whl",
    )  # fmt: skip
    shutil.copytree(ROOT, target, ignore=built, symlinks=True)
    return target


def build(tree: Path, *what: str) -> None:
    """`python -m build` with the packages of this environment (no network)."""
    command = [sys.executable, "-m", "build", "--no-isolation", *what, "--outdir", "out", "."]
    done = run(command, environment(), BUILD_LIMIT_S, tree)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The sdist of a copy of the tree, unpacked elsewhere: all that a packager gets."""
    base = tmp_path_factory.mktemp("sdist")
    tree = copy_of_tree(base / "tree")
    build(tree, "--sdist")
    (archive,) = (tree / "out").glob("emuv-*.tar.gz")
    tool("tar", "-xzf", archive, "-C", base)
    yield base / archive.name.removesuffix(".tar.gz")
    shutil.rmtree(base)


@pytest.fixture(scope="module")
def wheel(unpacked: Path) -> Path:
    """The wheel built from the sdist alone."""
    build(unpacked, "--wheel")
    (path,) = (unpacked / "out").glob("emuv-*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel's contents, as site-packages would hold them."""
    target = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(target)
    return target


def tool(*args: str | Path) -> str:
    """Output of a binutils program."""
    done = run(list(args), environment(), 20)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_sdist_has_all_that_contributors_need(unpacked: Path) -> None:
    wanted = ["LICENSE", "Makefile", ".ci/run", "csrc/shim/hooks.def", "tests/conftest.py"]
    if (ROOT / ".git").exists():
        listed = tool("git", "-C", ROOT, "-c", f"safe.directory={ROOT}", "ls-files", "-z")
        tracked = [name for name in listed.split("\0") if name and (ROOT / name).exists()]
        assert len(tracked) > 100
        wanted += [name for name in tracked if name != ".gitignore"]
    assert [name for name in wanted if not (unpacked / name).is_file()] == []
    assert not list(unpacked.rglob("*.so*")), "the sdist holds something built"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_wheel_holds_the_artefacts(wheel: Path) -> None:
    assert re.fullmatch(r"emuv-[\d.]+-cp310-abi3-linux_\w+\.whl", wheel.name)
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        about = {Path(n).name: archive.read(n).decode() for n in names if ".dist-info/" in n}
    assert names >= ARTEFACTS
    assert {n for n in names if ".so" in n} == ARTEFACTS
    assert "emuv_shim/py.typed" in names
    assert not [n for n in names if not n.startswith(("emuv_shim/", "emuv-"))]
    assert "License-Expression: GPL-2.0-only" in about["METADATA"]
    assert "emuv-run = emuv_shim._start:emuv_run" in about["entry_points.txt"]


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", PLAIN)
def test_plain_libraries_are_sound(installed: Path, name: str) -> None:
    dynamic = tool("readelf", "-dW", installed / name)
    sonames = {"libemuv.so": "libcuda.so.1", "libemuv-nvml.so": "libnvidia-ml.so.1"}
    soname = sonames.get(Path(name).name, Path(name).name)
    assert f"soname: [{soname}]" in dynamic
    assert "SYMBOLIC" in dynamic
    assert not re.search(r"\((?:RPATH|RUNPATH|TEXTREL)\)", dynamic)
    needed = set(re.findall(r"\(NEEDED\).*\[(\S+)\]", dynamic))
    assert needed <= {"libc.so.6", "libm.so.6", "ld-linux-x86-64.so.2"}, "the C library only"
    # Undefined symbols: the C library's, each with its version, and weak ones.
    undefined = tool("nm", "-D", "--undefined-only", installed / name).splitlines()
    strong = [line.split()[-1] for line in undefined if line.split()[0] == "U"]
    assert strong
    assert [s for s in strong if "@GLIBC_" not in s] == []
    # Preloaded into other people's processes: no executable stack, nothing but
    # functions of the driver, the runtime or NVML, and dlopen (dlmopen), visible.
    stack = re.search(r"GNU_STACK.*\s(R\w+)\s", tool("readelf", "-lW", installed / name))
    assert stack is not None
    assert "E" not in stack[1]
    defined = tool("nm", "-D", "--defined-only", "--format=posix", installed / name)
    visible = {line.split()[0].split("@")[0] for line in defined.splitlines()} - {soname}
    known = r"(?:cu|nvml|cuda|__cuda)[A-Z]\w*|dlm?open|emuv_\w+"
    assert [s for s in visible if not re.fullmatch(known, s)] == []


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("name", NAMES)
def test_the_names_are_nothing_but_names(installed: Path, name: str) -> None:
    dynamic = tool("readelf", "-dW", installed / name)
    assert "soname: [libcuda.so.1]" in dynamic
    assert not re.search(r"\((?:RPATH|RUNPATH|TEXTREL)\)", dynamic)
    needed = re.findall(r"\(NEEDED\).*\[(\S+)\]", dynamic)
    assert needed == ["$ORIGIN/../libemuv.so"]
    assert tool("nm", "-D", "--defined-only", installed / name) == ""


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_the_auditor_brings_no_second_c_library(installed: Path) -> None:
    dynamic = tool("readelf", "-dW", installed / BARE)
    assert not re.search(r"\((?:NEEDED|RPATH|RUNPATH|TEXTREL|PLTRELSZ)\)", dynamic)
    symbols = tool("nm", "-D", "--format=posix", installed / BARE)
    # No la_symbind or la_pltenter: the loader would look at every call between libraries.
    assert {line.split()[0] for line in symbols.splitlines()} == {
        "la_version", "la_objsearch", "la_objopen",
    }  # fmt: skip
    assert "TLS" not in tool("readelf", "-lW", installed / BARE)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_python_module_uses_the_stable_abi(installed: Path) -> None:
    undefined = tool("nm", "-D", "--undefined-only", installed / "emuv_shim/_native.abi3.so")
    private = re.findall(r"\b(_Py\w+)", undefined)
    # The two that the limited API's own macros use.
    assert set(private) <= {"_Py_NoneStruct", "_Py_Dealloc", "_Py_TrueStruct", "_Py_FalseStruct"}


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_installed_package_works_and_loads_no_cuda(installed: Path, tmp_path: Path) -> None:
    code = (
        "import emuv_shim, sys\n"
        "maps = open('/proc/self/maps').read()\n"
        "assert emuv_shim.__file__.startswith(sys.argv[1]), emuv_shim.__file__\n"
        "assert 'libcuda' not in maps and 'libemuv' not in maps and '.seg' not in maps\n"
        "import emuv_shim._native\n"
        "print(emuv_shim.__version__)\n"
    )
    env = {**environment(), "PYTHONPATH": str(installed)}
    done = run([sys.executable, "-c", code, installed], env, 30, tmp_path)
    assert done.returncode == 0, done.stderr
    assert re.fullmatch(r"\d+\.\d+\.\d+\n", done.stdout)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_changed_is_rebuilt_and_nothing_else(tmp_path: Path) -> None:
    tree = copy_of_tree(tmp_path / "tree")
    command = [sys.executable, "setup.py", "build_ext", "--inplace"]

    def rebuild(**env: str) -> set[str]:
        done = run(command, {**environment(), **env}, BUILD_LIMIT_S, tree)
        assert done.returncode == 0, done.stderr
        # Compiled sources, and linked targets, by name.
        text = done.stdout + done.stderr
        return set(re.findall(r" (?:-c \S*?([\w.]+\.[cS])|-o \S*?([\w.]+\.so(?:\.1)?))", text))

    def touch(name: str) -> None:
        path = tree / name
        text = path.read_text()
        path.write_text(text + ("\n" if path.suffix == ".def" else "\n/* changed */\n"))

    def names(found: set[str]) -> set[str]:
        return {part for pair in found for part in pair if part}

    first = names(rebuild())
    assert {"libemuv.so", "libcuda.so.1", "_native.abi3.so"} <= {
        n.removeprefix("emuv_shim.") for n in first
    }
    assert rebuild() == set(), "a second build has nothing to do"

    touch("csrc/shim/hooks.def")
    again = names(rebuild())
    assert "libemuv.so" in again
    assert "libcuda.so.1" not in again, "the simulated GPU does not include hooks.def"
    assert len(again) < len(first)

    touch("csrc/common/emuv_segment.h")
    again = names(rebuild())
    assert "libemuv.so" in again
    assert any("_native" in n for n in again), "the Python module reads the segment's layout"

    mapped = tree / "emuv_shim" / "_lib" / "libemuv.so"
    inode = mapped.stat().st_ino
    assert "libemuv.so" in names(rebuild(EMUV_CFLAGS="-O1"))
    assert mapped.stat().st_ino != inode, "replaced by rename: running programs keep the old file"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_editable_install_builds_into_the_tree(tmp_path: Path) -> None:
    tree = copy_of_tree(tmp_path / "tree")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-index"]
    # --ignore-installed: the emuV that this environment has stays as it is.
    options = ["--no-build-isolation", "--no-deps", "--ignore-installed"]
    prefix = ["--prefix", str(tmp_path / "prefix")]
    done = run([*pip, *options, *prefix, "-e", "."], environment(), BUILD_LIMIT_S, tree)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
    for name in ARTEFACTS:
        assert (tree / name).is_file(), name
    script = tmp_path / "prefix" / "bin" / "emuv-run"
    done = run([script, "--version"], {**environment(), "PYTHONPATH": str(tree)}, 30, tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"emuv \d+\.\d+\.\d+\n", done.stdout)
