# SPDX-License-Identifier: GPL-2.0-only
"""How fast are kernels on the simulated GPU?

PTX is compiled at the first launch of a kernel (cold), loaded from the cache by every later
process (cached), and then runs as machine code of this CPU.

- cold and cached: from cuModuleLoadData to the end of the first launch, of each of the
  kernels below, in a process of its own, with an empty cache and with a full one;
- an empty kernel: launches one behind another;
- float32 additions and float64 exponentials, elements a second and core;
- a tiled product of two 512 x 512 matrices, multiply-adds a second and core: its threads
  wait for each other twice a tile;
- sums by shuffles: the lanes of a warp wait for each other five times an element;
- what tracking of 2 MiB blocks costs: the ratio of times with and without, in turns.

Rates are of CPU time with one worker (EMUV_SIM_WORKERS=1), which other work on the machine
does not lengthen; compiling and launching, of the clock on the wall.
"""

from __future__ import annotations

import argparse
import dataclasses
import select
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import _bench
import _figures
from _bench import BenchmarkError, Row

WAIT_SECONDS = 120
ELEMENTS = 1 << 20
SIDE = 512

HEAD = """.version 8.0
.target sm_80
.address_size 64
"""
PARAMETERS = ".param .u64 _a, .param .u64 _b, .param .u64 _out, .param .u32 _side"
START = """
    .reg .pred p<8>; .reg .b32 r<64>; .reg .b64 d<32>; .reg .f32 f<64>; .reg .f64 g<32>;
    .reg .b64 a, b, out; .reg .b32 t, n, c, i, side;
    ld.param.u64 a, [_a]; ld.param.u64 b, [_b]; ld.param.u64 out, [_out];
    ld.param.u32 side, [_side];
    cvta.to.global.u64 a, a; cvta.to.global.u64 b, b; cvta.to.global.u64 out, out;
    mov.u32 t, %tid.x; mov.u32 n, %ntid.x; mov.u32 c, %ctaid.x; mad.lo.u32 i, c, n, t;
"""


def entry(name: str, body: str, before: str = "") -> str:
    """A module with one entry of four parameters: a, b, out, side."""
    return f"{HEAD}{before}.visible .entry {name}({PARAMETERS})\n{{{START}{body}\nret;\n}}\n"


ADD = entry(
    "add",
    """
    setp.ge.u32 p1, i, side; @p1 bra END;
    mul.wide.u32 d1, i, 4; add.u64 d2, a, d1; add.u64 d3, b, d1; add.u64 d4, out, d1;
    ld.global.f32 f1, [d2]; ld.global.f32 f2, [d3]; add.f32 f3, f1, f2; st.global.f32 [d4], f3;
    END:
    """,
)
# e**x = 2**k * e**r, |r| <= ln 2 / 2, by the Taylor series up to r**11: as libraries do it.
_FACTORIALS = [1.0]
for _n in range(1, 12):
    _FACTORIALS.append(_FACTORIALS[-1] * _n)


def _bits(value: float) -> str:
    """A float64 as PTX writes it exactly."""
    return "0d" + struct.pack(">d", value).hex().upper()


EXP = entry(
    "exponential",
    f"""
    setp.ge.u32 p1, i, side; @p1 bra END;
    mul.wide.u32 d1, i, 8; add.u64 d2, a, d1; add.u64 d4, out, d1; ld.global.f64 g1, [d2];
    mul.rn.f64 g2, g1, {_bits(1.4426950408889634)}; cvt.rni.s32.f64 r1, g2; cvt.rn.f64.s32 g3, r1;
    fma.rn.f64 g4, g3, {_bits(-0.6931471805599453)}, g1;
    mov.f64 g5, {_bits(1 / _FACTORIALS[11])};
    {" ".join(f"fma.rn.f64 g5, g5, g4, {_bits(1 / f)};" for f in reversed(_FACTORIALS[:11]))}
    add.s32 r2, r1, 1023; shl.b32 r3, r2, 20; mov.b64 d5, {{0, r3}}; mov.b64 g6, d5;
    mul.rn.f64 g7, g5, g6;
    abs.f64 g8, g1; setp.gt.f64 p2, g8, {_bits(708.0)}; @!p2 bra STORE;
    setp.gt.f64 p3, g1, {_bits(0.0)}; selp.f64 g7, 0d7FF0000000000000, 0d0000000000000000, p3;
    STORE: st.global.f64 [d4], g7;
    END:
    """,
)


def matrix(tile: int) -> str:
    """out = a * b, by tiles in shared memory; the inner loop is unrolled, as compilers do."""
    inner = "".join(
        f"ld.shared.f32 f2, [r11+{4 * j}]; ld.shared.f32 f3, [r12+{4 * tile * j}];"
        "fma.rn.f32 f1, f2, f3, f1;"
        for j in range(tile)
    )
    return entry(
        f"product{tile}",
        f"""
    mov.u32 r1, %tid.y; mov.u32 r2, %ctaid.y;
    mad.lo.u32 r3, r2, {tile}, r1; mad.lo.u32 r4, c, {tile}, t;
    mov.u32 r5, left; mov.u32 r6, right;
    mad.lo.u32 r7, r1, {tile}, t; shl.b32 r7, r7, 2; add.u32 r8, r5, r7; add.u32 r9, r6, r7;
    mul.lo.u32 r10, r1, {4 * tile}; add.u32 r11, r5, r10; shl.b32 r10, t, 2; add.u32 r12, r6, r10;
    mad.lo.u32 r13, r3, side, t; mad.lo.u32 r14, r1, side, r4; mul.lo.u32 r15, side, {tile};
    mov.f32 f1, 0f00000000; mov.u32 r16, 0;
    TILE:
    mul.wide.u32 d1, r13, 4; add.u64 d1, d1, a; ld.global.f32 f4, [d1]; st.shared.f32 [r8], f4;
    mul.wide.u32 d2, r14, 4; add.u64 d2, d2, b; ld.global.f32 f5, [d2]; st.shared.f32 [r9], f5;
    bar.sync 0;
    {inner}
    bar.sync 0;
    add.u32 r13, r13, {tile}; add.u32 r14, r14, r15; add.u32 r16, r16, {tile};
    setp.lt.u32 p1, r16, side; @p1 bra TILE;
    mad.lo.u32 r17, r3, side, r4; mul.wide.u32 d3, r17, 4; add.u64 d3, d3, out;
    st.global.f32 [d3], f1;
    """,
        "".join(f".shared .align 4 .b8 {v}[{4 * tile * tile}];\n" for v in ("left", "right")),
    )


SUMS = entry(
    "sums",
    """
    setp.ge.u32 p1, i, side; mov.u32 r1, 0; @p1 bra ADDED;
    mul.wide.u32 d1, i, 4; add.u64 d1, d1, a; ld.global.u32 r1, [d1];
    ADDED:
    """
    + "".join(
        f"shfl.sync.down.b32 r2, r1, {step}, 31, -1; add.u32 r1, r1, r2;"
        for step in (16, 8, 4, 2, 1)
    )
    + """
    and.b32 r3, t, 31; setp.ne.u32 p2, r3, 0; @p2 bra END;
    shr.u32 r4, i, 5; mul.wide.u32 d2, r4, 4; add.u64 d2, d2, out; st.global.u32 [d2], r1;
    END:
    """,
)


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One kernel to measure; a launch does `work` (elements, multiply-adds)."""

    name: str
    text: str
    grid: str
    block: str
    launches: int
    side: int
    work: int
    goal: float | None = None  # millions a second

    @property
    def entry(self) -> str:
        """The entry's name in the text."""
        return self.text.split(".entry ")[1].split("(")[0]


EMPTY = Kernel("an empty kernel", entry("empty", ""), "1", "1", 2000, 0, 1)
GRID = str(ELEMENTS // 256)
PLAIN = Kernel("float32 add", ADD, GRID, "256", 4, ELEMENTS, ELEMENTS, 100)
RATES = [
    PLAIN,
    Kernel("float64 exp", EXP, GRID, "256", 4, ELEMENTS, ELEMENTS, 80),
    *(
        Kernel(
            f"512 x 512 product, {tile} x {tile} tiles", matrix(tile),
            f"{SIDE // tile},{SIDE // tile}", f"{tile},{tile}", 1, SIDE, SIDE**3, 200,
        )
        for tile in (16, 32)
    ),
    Kernel("sums by shuffles", SUMS, GRID, "256", 1, ELEMENTS, ELEMENTS),
]


class Program:
    """One running `kernels` program."""

    def __init__(self, path: Path, folder: Path, what: Kernel, **env: str) -> None:
        self.what = what
        source = folder / f"{what.entry}.ptx"
        source.write_text(what.text)
        shape = (what.grid, what.block, what.launches, ELEMENTS, what.side)
        words = (path, source, what.entry, *shape)
        self.process = subprocess.Popen(
            [str(word) for word in words],
            env=_bench.environment(_bench.SIMULATOR, **env),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1,
        )
        ready, _, took = self._line().partition(" ")
        if ready != "ready":
            raise BenchmarkError(f"{what.name}: the program said {ready!r} instead of ready")
        self.first_ns = int(took)

    def _line(self) -> str:
        assert self.process.stdout is not None
        line = ""
        if select.select([self.process.stdout], [], [], WAIT_SECONDS)[0]:
            line = self.process.stdout.readline()
        if not line:
            self.close()
            raise BenchmarkError(f"{self.what.name}: no answer within {WAIT_SECONDS} s")
        return line

    def batch(self) -> tuple[int, int]:
        """Nanoseconds of all launches: by the clock on the wall, and of CPU time."""
        assert self.process.stdin is not None
        self.process.stdin.write("\n")
        wall, cpu = self._line().split()
        return int(wall), int(cpu)

    def close(self) -> None:
        """End the program: politely, then by force."""
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.close()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()

    def __enter__(self) -> Program:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def starts(path: Path, folder: Path, some: Sequence[Kernel], rounds: int) -> Iterator[Row]:
    """Cold and cached: the time to the first launch's end."""
    cold: list[float] = []
    cached: list[float] = []
    for turn in range(rounds):
        cache = {"EMUV_SIM_CACHE": str(folder / f"cache{turn}")}
        for samples in (cold, cached):
            for what in (EMPTY, *some):
                with Program(path, folder, what, **cache) as program:
                    samples.append(program.first_ns / 1e6)
    yield _figures.row("first launch, cold", "ms", cold, at_most=300)
    yield _figures.row("first launch, cached", "ms", cached, at_most=10)


def rates(
    path: Path, folder: Path, some: Sequence[Kernel], cache: str, batches: int
) -> Iterator[Row]:
    """What an empty launch takes, and what the others do in a second."""
    with Program(path, folder, EMPTY, EMUV_SIM_CACHE=cache) as program:
        program.batch()
        took = [program.batch()[0] / EMPTY.launches / 1e3 for _ in range(batches)]
    yield _figures.row("launch of an empty kernel", "µs", took, at_most=5)
    one = {"EMUV_SIM_CACHE": cache, "EMUV_SIM_WORKERS": "1"}
    for what in some:
        with Program(path, folder, what, **one) as program:
            program.batch()
            done = [
                what.work * what.launches * 1e3 / program.batch()[1] for _ in range(batches)
            ]
        yield _figures.row(what.name, "M/s", done, at_least=what.goal)


def tracking(
    path: Path, folder: Path, some: Sequence[Kernel], cache: str, batches: int
) -> Iterator[Row]:
    """CPU time with tracking, as a multiple of that without; neighbours in turns."""
    for what in some:
        with ExitStack() as stack:
            off, on = (
                stack.enter_context(
                    Program(
                        path, folder, what,
                        EMUV_SIM_CACHE=cache, EMUV_SIM_WORKERS="1", EMUV_SIM_TRACK=track,
                    )
                )
                for track in "01"
            )
            off.batch(), on.batch()
            ratio = [on.batch()[1] / off.batch()[1] for _ in range(batches)]
        yield _figures.row(f"tracked / untracked, {what.name}", "x", ratio, at_most=2)


def measure(options: argparse.Namespace) -> Row:
    """All of the above."""
    if not _bench.SIMULATOR.exists():
        raise BenchmarkError("the simulated GPU is not built: run `make build`")
    rounds, batches = (1, 1) if options.quick else (5, 9)
    some = [PLAIN, RATES[-1]] if options.quick else RATES
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="emuv-bench-") as name:
        folder = Path(name)
        path = _bench.compile_c(
            "kernels.c", folder / "kernels",
            f"-L{_bench.SIMULATOR.parent}", "-l:libcuda.so.1", "-Wl,-z,now",
            f"-Wl,-rpath,{_bench.SIMULATOR.parent}",
        )
        cache = str(folder / "cache0")
        rows += starts(path, folder, some, rounds)
        rows += rates(path, folder, some, cache, batches)
        rows += tracking(path, folder, some, cache, batches)
    return _figures.envelope("kernels", "Kernels on the simulated GPU", rows)


def parser() -> argparse.ArgumentParser:
    """The command line."""
    return _bench.arguments(__doc__)


if __name__ == "__main__":
    sys.exit(_figures.run(measure, parser().parse_args()))
