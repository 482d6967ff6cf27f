# SPDX-License-Identifier: GPL-2.0-only
"""Budgets of running programs: in force at the next allocation, and never a program's end."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from emuv_shim.budget import Budget
from emuv_shim.controller import Controller
from emuv_shim.errors import BudgetTooSmall
from tests.integration.cli_tools import Talking
from tests.integration.shim_tools import MIB, OOM, PRELUDE

ShimEnv = Callable[..., dict[str, str]]

# Answers Python expressions, a line each.
SHELL = PRELUDE + """
d = started()
out = c_uint64()
kept = {}
def alloc(name, size):
    code = d.code("cuMemAlloc_v2", byref(out), size)
    if not code:
        kept[name] = out.value
    return code
def free(name):
    return d.code("cuMemFree_v2", kept.pop(name))
print("ready", flush=True)
for line in sys.stdin:
    print(json.dumps(eval(line)), flush=True)
"""


class Program(Talking):
    """A program that evaluates what it is asked."""

    def value(self, expression: str) -> Any:
        return json.loads(self.ask(expression))


@contextmanager
def program(env: dict[str, str]) -> Iterator[Program]:
    with Program([sys.executable, "-c", SHELL], env) as made:
        assert made.line() == "ready"
        yield made


@pytest.fixture
def controller(runtime_dir: Path) -> Controller:
    return Controller(runtime_dir)


def test_raised(shim_env: ShimEnv, controller: Controller) -> None:
    # GIVEN a program at its limit
    with program(shim_env(vram=64 * MIB)) as p:
        assert p.value("alloc('a', 64 << 20)") == 0
        assert p.value("alloc('b', 1)") == OOM
        # WHEN its budget is raised
        change = controller.set_budget(p.pid, Budget(vram=96 * MIB))
        assert not change.applied
        # THEN the next allocation has it, and reports say so
        assert p.value("alloc('b', 32 << 20)") == 0
        assert p.value("alloc('c', 1)") == OOM
        assert p.value("d.memory_info()") == [0, 96 * MIB]
        assert p.value("d.new('cuDeviceTotalMem_v2', 0)") == 96 * MIB
        stats = controller.stats(p.pid)
        assert stats.applied_generation == stats.generation == change.generation


def test_reports_alone_take_it_up(shim_env: ShimEnv, controller: Controller) -> None:
    with program(shim_env(vram=64 * MIB)) as p:
        controller.set_budget(p.pid, Budget(vram=32 * MIB, virtual=16 * MIB, policy="spill"))
        assert p.value("d.memory_info()") == [48 * MIB, 48 * MIB]


def test_lowered_under_what_is_held(shim_env: ShimEnv, controller: Controller) -> None:
    # GIVEN a program with 60 MiB of plain device memory
    with program(shim_env(vram=64 * MIB)) as p:
        assert p.value("alloc('a', 60 << 20)") == 0
        assert p.value("alloc('b', 1 << 20)") == 0
        # WHEN its budget becomes less than that
        change = controller.set_budget(p.pid, Budget(vram=20 * MIB))
        # THEN the controller is told what cannot be had back
        assert change.unreclaimed_bytes[0] == 41 * MIB
        # AND the program goes on: what it holds stays, and it gets no more
        assert p.value("d.upload(kept['a'] + (59 << 20), b'x') or d.download(kept['a'], 1)[0]") == 0
        assert p.value("alloc('c', 1)") == OOM
        assert p.value("d.memory_info()") == [0, 20 * MIB]
        # AND when it frees, it comes under the budget and is held to it
        assert p.value("free('a')") == 0
        assert p.value("alloc('c', 19 << 20)") == 0
        assert p.value("alloc('d', 1)") == OOM


def test_virtual_given_and_taken(shim_env: ShimEnv, controller: Controller) -> None:
    with program(shim_env(vram=32 * MIB)) as p:
        assert p.value("alloc('a', 40 << 20)") == OOM
        controller.set_budget(p.pid, Budget(vram=32 * MIB, virtual=32 * MIB, policy="spill"))
        assert p.value("alloc('a', 40 << 20)") == 0
        assert p.value("held()") == [0, 40 * MIB, 32 * MIB, 1]
        controller.set_budget(p.pid, Budget(vram=32 * MIB))
        # What is spilled stays; under cap nothing more is.
        assert p.value("alloc('b', 1)") == OOM
        assert p.value("held()") == [0, 40 * MIB, 32 * MIB, 1]
        assert p.value("free('a')") == 0
        assert p.value("alloc('b', 32 << 20)") == 0
        assert p.value("alloc('c', 1)") == OOM


def test_heads_go_back_to_the_host_at_the_next_allocation(
    shim_env: ShimEnv, controller: Controller
) -> None:
    # GIVEN 28 MiB of a spilled range on the device
    with program(shim_env(vram=64 * MIB, virtual=128 * MIB)) as p:
        assert p.value("alloc('a', 36 << 20)") == 0
        assert p.value("alloc('b', 60 << 20)") == 0
        assert p.value("d.upload(kept['b'], b'head')") is None
        assert p.value("held()") == [36 * MIB, 60 * MIB, 28 * MIB, 2]
        assert p.value("resident(d, kept['b'], 60 << 20)") == 28 * MIB
        # WHEN vram is lowered by 21 MiB
        change = controller.set_budget(
            p.pid, Budget(vram=43 * MIB, virtual=128 * MIB, policy="spill")
        )
        (row,) = change.devices
        assert (row.demotable_bytes, row.unreclaimed_bytes) == (21 * MIB, 0)
        # THEN the very next allocation moves whole blocks back, and is placed in what is left
        assert p.value("alloc('c', 1 << 20)") == 0
        assert p.value("held()") == [37 * MIB, 60 * MIB, 6 * MIB, 3]
        assert p.value("resident(d, kept['b'], 60 << 20)") == 6 * MIB
        assert p.value("card_used(d)") == 43 * MIB
        # AND the bytes are the program's still
        assert p.value("d.download(kept['b'], 4).decode()") == "head"
        stats = controller.stats(p.pid)
        assert stats.devices[0].prefetch_host_bytes == 22 * MIB


def test_heads_of_several_devices(shim_env: ShimEnv, controller: Controller) -> None:
    """The next allocation on one device is not the last word for the other."""
    env = shim_env(vram=64 * MIB, virtual=128 * MIB, EMUV_SIM_DEVICES="2")
    with program(env) as p:
        assert p.value("[contexts := [d.new('cuCtxGetCurrent'), d.new('cuDevicePrimaryCtxRetain', 1)]][0][0] > 0")  # noqa: E501
        assert p.value("alloc('a', 100 << 20)") == 0
        assert p.value("d.cuCtxSetCurrent(contexts[1]) or alloc('b', 100 << 20)") == 0
        assert [p.value(f"held({i})[2]") for i in (0, 1)] == [64 * MIB, 64 * MIB]
        controller.set_budget(p.pid, Budget(vram=32 * MIB, virtual=160 * MIB, policy="spill"))
        assert p.value("alloc('c', 1 << 20)") == 0
        assert [p.value(f"held({i})[2]") for i in (0, 1)] == [64 * MIB, 32 * MIB]
        assert p.value("d.cuCtxSetCurrent(contexts[0]) or alloc('d', 1 << 20)") == 0
        assert [p.value(f"held({i})[2]") for i in (0, 1)] == [32 * MIB, 32 * MIB]
        assert p.value("[card_used(d, i) for i in (0, 1)]") == [32 * MIB, 32 * MIB]


def test_below_the_context_is_refused_to_the_controller(
    shim_env: ShimEnv, controller: Controller
) -> None:
    with program(shim_env(vram=64 * MIB, EMUV_SIM_CONTEXT=str(20 * MIB))) as p:
        with pytest.raises(BudgetTooSmall):
            controller.set_budget(p.pid, Budget(vram=10 * MIB))
        assert p.value("d.memory_info()") == [44 * MIB, 64 * MIB]


def test_unlimited_and_back(shim_env: ShimEnv, controller: Controller) -> None:
    with program(shim_env(vram=16 * MIB)) as p:
        controller.set_budget(p.pid, Budget(vram=None))
        assert p.value("alloc('a', 200 << 20)") == 0
        assert p.value("d.memory_info()") == [56 * MIB, 256 * MIB]
        controller.set_budget(p.pid, Budget(vram=100 * MIB))
        assert p.value("alloc('b', 1)") == OOM
        assert p.value("free('a')") == 0
        assert p.value("alloc('b', 100 << 20)") == 0


def test_a_block_that_makes_no_sense_is_not_taken_up(
    shim_env: ShimEnv, runtime_dir: Path
) -> None:
    # GIVEN a program, and somebody who scribbles over its control block
    with program(shim_env(vram=32 * MIB)) as p:
        (path,) = runtime_dir.glob("*.seg")
        with path.open("r+b") as file:
            for policy, allocation in ((7, 0), (0, 99)):
                file.seek(512)
                generation = int.from_bytes(file.read(8), "little")
                file.seek(520)
                file.write(policy.to_bytes(4, "little") + allocation.to_bytes(4, "little"))
                file.write((1 << 40).to_bytes(8, "little"))
                file.seek(512)
                file.write((generation + 2).to_bytes(8, "little"))
                file.flush()
                # THEN the budget that was in force stays
                assert p.value("alloc('a', 33 << 20)") == OOM
            # AND one whose writer never ends does not hold the program up
            file.seek(512)
            file.write((generation + 5).to_bytes(8, "little"))
            file.flush()
            assert p.value("alloc('a', 33 << 20)") == OOM
            assert p.value("alloc('a', 32 << 20)") == 0


OWN = """[
    kept.update(m=d.new('cuMemAllocManaged', {size}, 1)),
    d.cuMemAdvise(kept['m'], {size}, 3, 0), d.cuMemAdvise(kept['m'], {size}, 1, 0),
    d.cuMemPrefetchAsync(kept['m'], {size}, 0, 0), d.cuCtxSynchronize(),
    d.upload(kept['m'], bytes(range(256)) * 4096), resident(d, kept['m'], {size}),
][-1]""".replace("\n", " ")


@pytest.mark.parametrize("virtual", [0, 128 * MIB])
def test_the_programs_own_managed_memory_is_taken_back(
    shim_env: ShimEnv, controller: Controller, virtual: int
) -> None:
    # GIVEN 40 MiB of managed memory of the program's own, all of it on the device as it likes
    def budget(vram: int) -> Budget:
        if not virtual:
            return Budget(vram=vram)
        return Budget(vram=vram, virtual=virtual, policy="spill")

    with program(shim_env(vram=64 * MIB, virtual=virtual)) as p:
        assert p.value("alloc('a', 10 << 20)") == 0
        assert p.value(OWN.format(size=40 * MIB)) == 40 * MIB
        assert controller.stats(p.pid).devices[0].movable_bytes == 40 * MIB
        # WHEN vram is lowered to what leaves 14 MiB for it
        change = controller.set_budget(p.pid, budget(24 * MIB))
        # THEN none of that is called irreclaimable
        (row,) = change.devices
        assert (row.demotable_bytes, row.unreclaimed_bytes) == (26 * MIB, 0)
        # AND the next allocation finds it pinned to the host, but for what there is room for
        assert p.value("alloc('b', 1 << 40)") == OOM
        assert p.value("resident(d, kept['m'], 40 << 20)") == 14 * MIB
        assert p.value("card_used(d)") == 24 * MIB
        assert p.value("held()") == [10 * MIB, 40 * MIB, 14 * MIB, 2]
        # AND neither the device's touch nor the program's hints bring more of it
        assert p.value("d.cuMemsetD8_v2(kept['m'] + (1 << 20), 7, 39 << 20)") is None
        assert p.value("d.code('cuMemPrefetchAsync', kept['m'], 40 << 20, 0, 0)") == 0
        assert p.value("d.cuCtxSynchronize() or card_used(d)") == 24 * MIB
        assert p.value("d.download(kept['m'], 1 << 20) == bytes(range(256)) * 4096") is True
        assert p.value("d.download(kept['m'] + (1 << 20), 3)[2]") == 7
        # AND raised again, it comes back by prefetch, and goes with its free
        controller.set_budget(p.pid, budget(64 * MIB))
        assert p.value("d.code('cuMemPrefetchAsync', kept['m'], 40 << 20, 0, 0)") == 0
        assert p.value("d.cuCtxSynchronize() or card_used(d)") == 50 * MIB
        assert p.value("free('m') or held()") == [10 * MIB, 0, 0, 1]


def test_what_the_driver_does_not_pin_stays_as_it_was(
    shim_env: ShimEnv, controller: Controller
) -> None:
    with program(shim_env(vram=64 * MIB, virtual=64 * MIB)) as p:
        assert p.value(OWN.format(size=40 * MIB)) == 40 * MIB
        controller.set_budget(p.pid, Budget(vram=24 * MIB, virtual=64 * MIB, policy="spill"))
        for call in (1, 2, 3):
            p.value(f"fail_next(d, 'cuMemAdvise', {call}, 719)")
            assert p.value("alloc('b', 1 << 40)") == OOM
            assert p.value("held()") == [40 * MIB, 0, 0, 1]
            # Something has to change for it to be tried again.
            controller.set_budget(
                p.pid, Budget(vram=(24 - call) * MIB, virtual=64 * MIB, policy="spill")
            )
        assert p.value("alloc('b', 1 << 40)") == OOM
        assert p.value("card_used(d)") <= 21 * MIB
        assert p.value("free('m') or held()") == [0, 0, 0, 0]


def test_windows_of_spilled_ranges_leave_too(shim_env: ShimEnv, controller: Controller) -> None:
    """What the program itself had prefetched from the middle of a range."""
    with program(shim_env(vram=32 * MIB, virtual=128 * MIB)) as p:
        assert p.value("alloc('a', 32 << 20)") == 0
        assert p.value("alloc('b', 60 << 20)") == 0
        assert p.value("d.upload(kept['b'] + (20 << 20), b'window')") is None
        assert p.value("free('a')") == 0
        for at in (20, 40, 30):
            code = f"d.code('cuMemPrefetchAsync', kept['b'] + ({at} << 20), 6 << 20, 0, 0)"
            assert p.value(code) == 0
        assert p.value("d.cuCtxSynchronize() or held()") == [0, 60 * MIB, 18 * MIB, 1]
        controller.set_budget(p.pid, Budget(vram=9 * MIB, virtual=128 * MIB, policy="spill"))
        assert p.value("alloc('c', 1 << 20)") == 0
        # The last blocks go first.
        where = "[resident(d, kept['b'] + (at << 20), 6 << 20) >> 20 for at in (20, 30, 40)]"
        assert p.value(where) == [6, 2, 0]
        assert p.value("card_used(d)") == 9 * MIB
        assert p.value("d.download(kept['b'] + (20 << 20), 6).decode()") == "window"
        assert p.value("free('b') or held()") == [MIB, 0, 0, 1]
