# SPDX-License-Identifier: GPL-2.0-only
"""Segments for tests: real ones, made by a process of their own with the real C code."""

from __future__ import annotations

import functools
import os
import select
import subprocess
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMMON = ROOT / "csrc" / "common"
SOURCES = [COMMON / "emuv_environ.c", *sorted(COMMON.glob("emuv_segment_*.c"))]
LIMIT_S = 20.0


@functools.cache
def _folder() -> tempfile.TemporaryDirectory[str]:
    folder = tempfile.TemporaryDirectory(prefix="emuv-test-")
    os.chmod(folder.name, 0o755)  # another user runs the programs too
    return folder


@functools.cache
def build(source: Path, *flags: str) -> Path:
    """A program of `source` and the segment's C code; built once a session."""
    name = f"{source.stem}-{abs(hash(flags))}"
    target = Path(_folder().name, name)
    command = [os.environ.get("CC", "gcc"), "-std=gnu17", "-g", "-O1", "-Wall", "-Wextra"]
    command += ["-Werror", f"-I{COMMON}", *flags, "-o", str(target), str(source)]
    subprocess.run([*command, *map(str, SOURCES)], check=True, timeout=60)
    return target


class Writer:
    """A process that has a segment; a context manager that ends it."""

    def __init__(
        self, directory: Path, *, devices: int = 1, run_id: str = "r", keep: bool = False
    ) -> None:
        program = build(Path(__file__).with_name("segment_writer.c"))
        self.process = subprocess.Popen(
            [str(program), str(directory), str(devices), run_id, str(int(keep))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
        )
        self._rest = b""
        self.path = Path(self.line())

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next line of its answers, within the limit."""
        assert self.process.stdout is not None
        while b"\n" not in self._rest:
            ready, _, _ = select.select([self.process.stdout], [], [], LIMIT_S)
            assert ready, f"no answer within {LIMIT_S} s"
            got = os.read(self.process.stdout.fileno(), 4096)
            assert got, "the writer has ended"
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\n")
        return line.decode()

    def tell(self, line: str) -> str:
        """One order and its answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(line.encode() + b"\n")
        return self.line()

    def charge(
        self,
        device: int = 0,
        *,
        plain: int = 0,
        managed: int = 0,
        resident: int = 0,
        overhead: int = 0,
        flags: int = 3,
    ) -> None:
        """Sets the counters of one device."""
        words = (device, plain, managed, resident, overhead, flags)
        assert self.tell("charge " + " ".join(map(str, words))) == "ok"

    def kill(self) -> None:
        """Ends it at once; its segment stays."""
        self.process.kill()
        self.process.wait(LIMIT_S)

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
