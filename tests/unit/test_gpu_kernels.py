# SPDX-License-Identifier: GPL-2.0-only
"""The PTX kernels of benchmarks/driver_facts.py: assembled, and executed by a small interpreter.

A wrong kernel would be timed on a real card without anyone noticing; the card's own check of their
answers (section `remote`) comes too late to mend anything.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ROOT, run

sys.path.insert(0, str(ROOT / "benchmarks"))

import _facts_ptx as ptx

PTXAS = shutil.which("ptxas") or next(
    (str(p) for p in sorted(Path("/usr/local").glob("cuda*/bin/ptxas"))), None
)


@pytest.mark.skipif(PTXAS is None, reason="no ptxas on this machine: only the interpreter checks")
@pytest.mark.parametrize(("version", "target"), ptx.HEADS)
def test_kernels_assemble(version: str, target: str, tmp_path: Path) -> None:
    source = tmp_path / "kernels.ptx"
    source.write_text(ptx.module_text(version, target))
    for arch in ("sm_80", "sm_90"):
        if int(arch[3:]) < int(target[3:]):
            continue
        done = run(
            [str(PTXAS), f"-arch={arch}", "-v", "-o", tmp_path / "kernels.cubin", source],
            os.environ,
        )
        assert done.returncode == 0, done.stderr
        assert done.stderr.count("0 bytes spill stores") == len(ptx.KERNELS)


_WORD = re.compile(r"[%\w.]+")
M64 = 2**64 - 1


class Machine:
    """Runs one of the kernels thread by thread: the few instructions they use, and no others."""

    def __init__(self, name: str, params: tuple[int, int, int, int], grid: tuple[int, int]) -> None:
        body = ptx.KERNELS[name].split("{", 1)[1].rsplit("}", 1)[0]
        self.code: list[str] = []
        self.labels: dict[str, int] = {}
        for line in body.splitlines():
            text = line.strip()
            if not text or text.startswith(".reg"):
                continue
            if text.endswith(":"):
                self.labels[text[:-1]] = len(self.code)
            else:
                self.code.append(text.rstrip(";"))
        fields = ("base", "count", "step", "out")
        self.params = {f"{name}_{f}": v for f, v in zip(fields, params, strict=True)}
        self.blocks, self.threads = grid
        self.memory: dict[int, int] = {}
        self.touched: list[int] = []

    def run(self) -> None:
        for block in range(self.blocks):
            for thread in range(self.threads):
                self._thread(block, thread)

    def _thread(self, block: int, thread: int) -> None:
        registers: dict[str, int] = {
            "%ctaid.x": block,
            "%ntid.x": self.threads,
            "%tid.x": thread,
            "%nctaid.x": self.blocks,
        }
        at = clock = 0
        for _ in range(100_000):
            text = self.code[at]
            at += 1
            clock += 10
            registers["%clock64"] = clock
            guard = re.match(r"@(%p\d+) (.*)", text)
            if guard:
                if not registers[guard.group(1)]:
                    continue
                text = guard.group(2)
            operation, _, rest = text.partition(" ")
            words = _WORD.findall(rest)
            if operation == "ret":
                return
            if operation == "bra":
                at = self.labels[words[0]]
            else:
                self._step(operation, words, registers)
        raise AssertionError("the kernel does not end")

    def _value(self, word: str, registers: dict[str, int]) -> int:
        return registers[word] if word.startswith("%") else int(word, 0)

    def _address(self, word: str, registers: dict[str, int], step: int = 0) -> int:
        address = registers[word] + step
        assert address % 8 == 0
        self.touched.append(address)
        return address

    def _step(self, operation: str, words: list[str], r: dict[str, int]) -> None:
        if operation == "ld.param.u64":
            r[words[0]] = self.params[words[1]]
        elif operation == "ld.global.u64":
            r[words[0]] = self.memory.get(self._address(words[1], r), 0)
        elif operation == "ld.global.v2.u64":
            assert r[words[2]] % 16 == 0
            r[words[0]] = self.memory.get(self._address(words[2], r), 0)
            r[words[1]] = self.memory.get(self._address(words[2], r, 8), 0)
        elif operation == "st.global.u64":
            self.memory[self._address(words[0], r)] = r[words[1]]
        elif operation == "st.global.v2.u64":
            assert r[words[0]] % 16 == 0
            self.memory[self._address(words[0], r)] = r[words[1]]
            self.memory[self._address(words[0], r, 8)] = r[words[2]]
        elif operation == "red.global.add.u64":
            address = self._address(words[0], r)
            self.memory[address] = (self.memory.get(address, 0) + int(words[1])) & M64
        else:
            values = [self._value(word, r) for word in words[1:]]
            r[words[0]] = _ARITHMETIC[operation](*values) & M64


_ARITHMETIC: dict[str, Callable[..., int]] = {
    "mov.u32": lambda a: a,
    "mov.u64": lambda a: a,
    "cvt.u64.u32": lambda a: a,
    "mad.wide.u32": lambda a, b, c: a * b + c,
    "mul.wide.u32": lambda a, b: a * b,
    "mad.lo.u64": lambda a, b, c: a * b + c,
    "mul.lo.u64": lambda a, b: a * b,
    "add.u64": lambda a, b: a + b,
    "sub.u64": lambda a, b: a - b,
    "shl.b64": lambda a, b: a << b,
    "shr.u64": lambda a, b: a >> b,
    "xor.b64": lambda a, b: a ^ b,
    "and.b64": lambda a, b: a & b,
    "setp.ge.u64": lambda a, b: int(a >= b),
    "setp.lt.u64": lambda a, b: int(a < b),
}
BASE, OUT = 1 << 20, 1 << 30


def machine(name: str, count: int, step: int, blocks: int = 2, threads: int = 4) -> Machine:
    return Machine(name, (BASE, count, step, OUT), (blocks, threads))


def total(m: Machine) -> int:
    """What the threads stored as their sums."""
    return sum(m.memory[OUT + 8 * t] for t in range(m.blocks * m.threads)) & M64


@pytest.mark.parametrize("count", [0, 1, 7, 8, 31, 32, 33, 100])
def test_sequential_read_touches_every_pair_once(count: int) -> None:
    m = machine("read_sequential", count, 0)
    m.memory = {BASE + 8 * i: i * i for i in range(2 * count + 64)}
    m.run()
    assert total(m) == sum(i * i for i in range(2 * count))
    reads = sorted(a for a in m.touched if a < OUT)
    assert reads == [BASE + 8 * i for i in range(2 * count)]


def test_strided_read_touches_every_step_once() -> None:
    m = machine("read_strided", 21, 128)
    m.memory = {BASE + 128 * i: i + 1 for i in range(30)}
    m.run()
    assert total(m) == sum(range(1, 22))
    assert sorted(a for a in m.touched if a < OUT) == [BASE + 128 * i for i in range(21)]


def test_random_read_stays_inside_and_spreads() -> None:
    words = 1024
    m = machine("read_random", 512, words - 1)
    m.run()
    places = {(a - BASE) // 8 for a in m.touched if a < OUT}
    assert min(places) >= 0
    assert max(places) < words
    assert len(places) > 350  # 512 draws of 1024: about 403 different ones
    neighbours = sum(p + 1 in places for p in places)
    assert neighbours < len(places) * 0.6


@pytest.mark.parametrize("count", [0, 5, 40])
def test_writes_and_atomics(count: int) -> None:
    m = machine("write_sequential", count, 7)
    m.run()
    expected = {BASE + 16 * i: i for i in range(count)}
    expected |= {BASE + 16 * i + 8: 7 for i in range(count)}
    assert {a: v for a, v in m.memory.items() if a < OUT} == expected

    m = machine("write_strided", count, 4096)
    m.run()
    assert {a: v for a, v in m.memory.items() if a < OUT} == {
        BASE + 4096 * i: i for i in range(count)
    }

    m = machine("atomic_strided", count, 4096)
    m.memory = {BASE + 4096 * i: 5 for i in range(count)}
    m.run()
    assert {a: v for a, v in m.memory.items() if a < OUT} == {
        BASE + 4096 * i: 6 for i in range(count)
    }


def test_spin_ends_by_the_clock_and_by_its_turns() -> None:
    m = machine("spin", 1000, 1_000_000, blocks=1, threads=1)
    m.run()
    assert 10 <= m.memory[OUT] <= 100  # turns of some instructions of 10 cycles
    m = machine("spin", 1 << 40, 50, blocks=1, threads=1)
    m.run()
    assert m.memory[OUT] == 50
