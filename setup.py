# SPDX-License-Identifier: GPL-2.0-only
"""Builds emuV's native artefacts, each from one row below.

    emuv_shim/_native.abi3.so      cffi module: what Python reads and writes segments with
    emuv_shim/_lib/libemuv.so      the interposer, preloaded into CUDA programs
    emuv_shim/_lib/libemuv-nvml.so   NVML as those programs see it, preloaded beside it
    emuv_shim/_lib/libemuv-audit.so  the loader's auditor that leads to it (--audit)
    emuv_shim/_lib/sim/libcuda.so.1  the simulated GPU
    emuv_shim/_lib/sim/libnvidia-ml.so.1  its NVML
    emuv_shim/_lib/front/libcuda.so, .so.1  its names for a search path
    emuv_shim/_lib/sim/libcudart.so.12, .so.13  the CUDA runtime over it

All but the first are plain shared libraries: no Python headers, no libpython, every
symbol defined.  Their objects are rebuilt when the source, a header or `.def`
that it includes (the compiler writes them down), or the command itself changed;
a library is replaced by rename, so that programs that have it mapped live on.

Environment: CC, EMUV_CFLAGS (added last), EMUV_SANITIZE (`address,undefined`).
"""

from __future__ import annotations

import filecmp
import os
import re
import shlex
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CC = shlex.split(os.environ.get("CC", "gcc"))
CFLAGS = """
    -std=gnu17 -O2 -g -Wall -Wextra -Wshadow -Wmissing-prototypes -Wstrict-prototypes
    -fPIC -fvisibility=hidden -ftls-model=initial-exec -ffunction-sections -pthread
""".split()
VERSION = re.search(r'__version__ = "(.+)"', Path("emuv_shim/__init__.py").read_text())[1]
CFLAGS += [f'-DEMUV_VERSION="{VERSION}"']
# Device memory and segments are bytes that several types look at.
CFLAGS += ["-fno-strict-aliasing"]
# Bound at load (-z now): no hook ever enters the dynamic linker to find a symbol.
# -Bsymbolic: each library calls itself, whatever is preloaded in front of it.
LDFLAGS = """
    -shared -pthread -Wl,-Bsymbolic -Wl,-z,defs -Wl,-z,now
    -Wl,-z,relro -Wl,--as-needed -Wl,--gc-sections
""".split()
DRIVER = "libcuda.so.1"
if sanitize := os.environ.get("EMUV_SANITIZE"):
    CFLAGS += [f"-fsanitize={sanitize}", "-fno-omit-frame-pointer"]
    LDFLAGS += [f"-fsanitize={sanitize}"]
CFLAGS += shlex.split(os.environ.get("EMUV_CFLAGS", ""))


# A library that goes without the C library (and so without what sanitizers call).
BARE_CFLAGS = ["-ffreestanding", "-fno-stack-protector"]
if "clang" not in CC[0]:  # which makes no call to memset of a loop where it is freestanding
    BARE_CFLAGS += ["-fno-tree-loop-distribute-patterns"]


class SharedLibrary(Extension):
    """A shared library that is no Python module: own flags, own file name.

    `sources` are those of the folders of csrc/ and of csrc/common; what a library
    does not call of the latter, the linker drops. `needs` is written down as a
    library to load with this one, although nothing there is called; `versions` is a
    version script; `bare` is for a library that needs no C library.
    """

    def __init__(
        self,
        name: str,
        filename: str,
        soname: str,
        *folders: str,
        needs: str = "",
        shared: tuple[str, ...] = (),
        define: str | None = None,
        versions: str | None = None,
        bare: bool = False,
    ) -> None:
        parts = [Path("csrc", folder) for folder in (*folders, "common")]
        compiled = parts[: len(folders)] if bare else parts
        sources = sorted(str(p) for part in compiled for p in part.glob("*.[cS]"))
        super().__init__(name, [*sources, *shared])
        self.bare = bare
        self.filename = filename
        self.needs = needs
        self.flags = [f"-I{part}" for part in (*parts, Path("csrc"))]
        self.flags += [f"-I{folder}" for folder in sorted({os.path.dirname(s) for s in shared})]
        self.flags += [f"-D{define}"] if define else []
        self.link_flags = [f"-Wl,-soname,{soname}"]
        self.link_inputs = [Path(versions)] if versions else []
        self.link_flags += [f"-Wl,--version-script={script}" for script in self.link_inputs]


class BuildExt(build_ext):
    """build_ext that also builds SharedLibrary."""

    def get_ext_filename(self, fullname: str) -> str:
        # Asked with the full name (for the path) and with its last part (for the file).
        for ext in self.extensions:
            if isinstance(ext, SharedLibrary) and fullname in (ext.name, ext.name.split(".")[-1]):
                return ext.filename if "." in fullname else os.path.basename(ext.filename)
        return super().get_ext_filename(fullname)

    def copy_file(self, infile: str, outfile: str, *args: object, **kwargs: object) -> object:
        if os.path.exists(outfile) and filecmp.cmp(infile, outfile):
            return outfile, False
        self.mkpath(os.path.dirname(outfile))
        super().copy_file(infile, f"{outfile}.new", *args, **kwargs)
        os.replace(f"{outfile}.new", outfile)
        return outfile, True

    def build_extension(self, ext: Extension) -> None:
        if not isinstance(ext, SharedLibrary):
            ext.depends = [str(p) for p in Path("csrc").rglob("*.[hd]*")]
            super().build_extension(ext)
            return
        made = Path(self.build_temp, ext.name)
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(lambda source: self.compile(ext, source, made), ext.sources))
        library = made / Path(ext.filename).name
        link = [*LDFLAGS, *ext.link_flags, *(["-nostdlib"] if ext.bare else ["-ldl", "-lm"])]
        if ext.bare:
            link = [flag for flag in link if not flag.startswith("-fsanitize")]
        if ext.needs:  # what a library is needed by is its SONAME: one that has that and no more
            needed = made / "needed.so"
            empty = ["-shared", "-nostdlib", f"-Wl,-soname,{ext.needs}", "-x", "c", os.devnull]
            self.make(needed, [*CC, *empty], [])
            link += ["-Wl,--no-as-needed", str(needed), "-Wl,--as-needed"]
        self.make(library, [*CC, *map(str, objects), *link], [*objects, *ext.link_inputs])
        self.copy_file(str(library), self.get_ext_fullpath(ext.name))

    def compile(self, ext: SharedLibrary, source: str, made: Path) -> Path:
        """Compiles one source; returns its object file."""
        target = made / source.replace("/", "_")
        depfile = target.with_suffix(f"{target.suffix}.d")
        target = target.with_suffix(f"{target.suffix}.o")
        # The last run's list of what the source includes: "object: source header ...".
        listed = depfile.read_text().replace("\\\n", " ") if depfile.exists() else ""
        inputs = [Path(p) for p in shlex.split(listed)[1:]]
        # What the assembler includes by itself, the compiler does not list.
        if source.endswith(".S"):
            inputs += map(Path, re.findall(r'\.incbin "(.+)"', Path(source).read_text()))
        cflags = CFLAGS
        if ext.bare:
            cflags = [f for f in CFLAGS if not f.startswith("-fsanitize")] + BARE_CFLAGS
        command = [*CC, *cflags, *ext.flags, "-MMD", "-MF", str(depfile), "-c", source]
        self.make(target, command, [*inputs, Path(source)])
        return target

    def make(self, target: Path, command: list[str], inputs: list[Path]) -> None:
        """Runs `command -o target`, unless it made target after the inputs last changed."""
        command = [*command, "-o", str(target)]
        record = target.with_suffix(f"{target.suffix}.cmd")
        if not self.force and target.exists() and record.exists():
            last = target.stat().st_mtime_ns
            if record.read_text() == shlex.join(command) and all(
                p.exists() and p.stat().st_mtime_ns <= last for p in inputs
            ):
                return
        self.mkpath(str(target.parent))
        self.spawn(command)
        record.write_text(shlex.join(command))


setup(
    cmdclass={"build_ext": BuildExt},
    cffi_modules=["emuv_shim/_native_build.py:ffibuilder"],
    ext_modules=[
        SharedLibrary("emuv_shim._lib.libemuv", "emuv_shim/_lib/libemuv.so", DRIVER, "shim"),
        SharedLibrary(
            "emuv_shim._lib.libemuv-nvml",
            "emuv_shim/_lib/libemuv-nvml.so",
            "libnvidia-ml.so.1",
            "nvml",
            shared=("csrc/shim/budget.c", "csrc/shim/config.c"),
        ),
        SharedLibrary(
            "emuv_shim._lib.libemuv-audit",
            "emuv_shim/_lib/libemuv-audit.so",
            "libemuv-audit.so",
            "audit",
            bare=True,
        ),
        SharedLibrary(
            "emuv_shim._lib.sim.libcuda",
            "emuv_shim/_lib/sim/libcuda.so.1",
            DRIVER,
            "sim",
            "sim/ptx",
            "sim/kernel",
        ),
        SharedLibrary(
            "emuv_shim._lib.sim.libnvidia-ml",
            "emuv_shim/_lib/sim/libnvidia-ml.so.1",
            "libnvidia-ml.so.1",
            "sim/nvml",
        ),
        *(
            SharedLibrary(
                f"emuv_shim._lib.front.{name.replace('.', '-')}",
                f"emuv_shim/_lib/front/{name}",
                DRIVER,
                "front",
                needs="$ORIGIN/../libemuv.so",
                bare=True,
            )
            for name in ("libcuda.so", DRIVER)
        ),
        *(
            SharedLibrary(
                f"emuv_shim._lib.sim.libcudart{major}",
                f"emuv_shim/_lib/sim/libcudart.so.{major}",
                f"libcudart.so.{major}",
                "sim/cudart",
                define=f"RT_MAJOR={major}",
                versions=f"csrc/sim/cudart/exports{major}.map",
            )
            for major in (12, 13)
        ),
    ],
    options={"bdist_wheel": {"py_limited_api": "cp310"}},
)
