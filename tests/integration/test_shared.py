# SPDX-License-Identifier: GPL-2.0-only
"""`emuv-run --shared`: the processes of a run under one budget, through the shim."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from emuv_shim.budget import Budget
from emuv_shim.controller import Controller
from tests.conftest import Compiler, Runner, run
from tests.integration.cli_tools import Talking, build_shell, check_schema, started
from tests.integration.shim_tools import MIB, OOM, PRELUDE, finish, run_child
from tests.integration.test_live_budget import Program, program

ShimEnv = Callable[..., dict[str, str]]
RUN = "testrun"


@pytest.fixture
def shared_env(shim_env: ShimEnv) -> ShimEnv:
    """`shim_env` of a shared run."""

    def make(vram: int = 64 * MIB, virtual: int = 0, **more: str) -> dict[str, str]:
        return shim_env(vram=vram, virtual=virtual, EMUV_SHARED="1", EMUV_RUN=RUN, **more)

    return make


@pytest.fixture
def controller(runtime_dir: Path) -> Controller:
    return Controller(runtime_dir)


@contextmanager
def two(env: dict[str, str]) -> Iterator[tuple[Program, Program]]:
    with program(env) as first, program(env) as second:
        yield first, second


class TestOneBudget:
    def test_the_sum_counts_and_reports_say_so(self, shared_env: ShimEnv) -> None:
        with two(shared_env()) as (a, b):
            assert a.value("alloc('x', 40 << 20)") == 0
            # THEN what one holds the other has not, and both are told the same total
            assert b.value("d.memory_info()") == [24 * MIB, 64 * MIB]
            assert b.value("alloc('x', (24 << 20) + 1)") == OOM
            assert b.value("alloc('x', 24 << 20)") == 0
            assert a.value("d.memory_info()") == [0, 64 * MIB]
            assert a.value("alloc('y', 1)") == OOM
            assert a.value("free('x')") == 0
            assert b.value("alloc('y', 40 << 20)") == 0

    def test_contexts_count(self, shared_env: ShimEnv) -> None:
        with two(shared_env(EMUV_SIM_CONTEXT=str(10 * MIB))) as (a, b):
            assert a.value("d.memory_info()") == [44 * MIB, 64 * MIB]
            assert b.value("alloc('x', 44 << 20)") == 0
            # A third one's context does not fit any more.
            third = run_child(
                shared_env(EMUV_SIM_CONTEXT=str(10 * MIB)),
                "d = Driver('libcuda.so.1'); d.cuInit(0);"
                "answer(code=d.code('cuDevicePrimaryCtxRetain', byref(c_uint64()), 0))",
            )
            assert third.answer == {"code": OOM}

    def test_a_killed_ones_memory_is_had_at_the_next_call(self, shared_env: ShimEnv) -> None:
        with program(shared_env()) as b:
            for how in ("alloc('x', 64 << 20)", "d.memory_info()"):
                with program(shared_env()) as a:
                    assert a.value("alloc('x', 64 << 20)") == 0
                    assert b.value("d.memory_info()") == [0, 64 * MIB]
                    a.child.kill()
                    a.child.wait(20)
                    assert b.value(how) in (0, [64 * MIB, 64 * MIB])
                    b.value("kept and free('x')")

    def test_spilled_heads_share_the_vram(
        self, shared_env: ShimEnv, controller: Controller
    ) -> None:
        env = shared_env(virtual=256 * MIB)
        with two(env) as (a, b):
            assert a.value("alloc('x', 100 << 20)") == 0
            assert a.value("held()") == [0, 100 * MIB, 64 * MIB, 1]
            assert b.value("alloc('x', 100 << 20)") == 0
            assert b.value("held()") == [0, 100 * MIB, 0, 1]
            assert a.value("free('x')") == 0
            assert a.value("alloc('x', 30 << 20)") == 0
            assert b.value("free('x') or alloc('x', 50 << 20)") == 0
            assert b.value("held()") == [0, 50 * MIB, 34 * MIB, 1]
            # WHEN the vram is lowered by 20 MiB THEN the first to come by makes the room
            change = controller.set_budget(
                a.pid, Budget(vram=44 * MIB, virtual=256 * MIB, policy="spill")
            )
            assert change.run_id == RUN
            assert change.devices[0].demotable_bytes == 20 * MIB
            assert b.value("alloc('y', 1 << 20)") == 0
            assert b.value("held()") == [0, 51 * MIB, 14 * MIB, 2]
            assert a.value("alloc('y', 1 << 20)") == 0
            assert a.value("held()")[0] == 30 * MIB

    def test_cards_are_told_apart_by_themselves(self, shared_env: ShimEnv) -> None:
        """CUDA_VISIBLE_DEVICES gives them other numbers in each process."""
        env = shared_env(EMUV_SIM_DEVICES="2")
        with (
            program({**env, "CUDA_VISIBLE_DEVICES": "0"}) as a,
            program({**env, "CUDA_VISIBLE_DEVICES": "1"}) as b,
            program({**env, "CUDA_VISIBLE_DEVICES": "1,0"}) as c,
        ):
            assert a.value("alloc('x', 60 << 20)") == 0
            assert b.value("alloc('x', 50 << 20)") == 0
            assert c.value("alloc('x', 15 << 20)") == OOM
            assert c.value("alloc('x', 14 << 20)") == 0
            assert c.value("[d.cuCtxSetCurrent(d.new('cuDevicePrimaryCtxRetain', 1)), 1][1]") == 1
            assert c.value("d.memory_info()") == [4 * MIB, 64 * MIB]

    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_multiprocessing(self, shared_env: ShimEnv, method: str, tmp_path: Path) -> None:
        text = f'''
from tests.integration.shim_child import *
import multiprocessing
def work(barrier_and_size):
    d = started()
    return d.code("cuMemAlloc_v2", byref(c_uint64()), 24 * MIB)
if __name__ == "__main__":
    d = started()
    d.new("cuMemAlloc_v2", 24 * MIB)
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        answer(results=sorted(pool.map(work, range(2), chunksize=1)))
'''
        path = tmp_path / "program.py"
        path.write_text(text)
        child = finish([sys.executable, path], shared_env())
        # One worker may do both; it holds what it took.
        assert child.answer["results"] == [0, OOM], child.answer

    def test_exec_in_place_gives_up_what_was_held(self, shared_env: ShimEnv) -> None:
        code = """
            if "AGAIN" not in os.environ:
                d = started()
                d.new("cuMemAlloc_v2", 60 * MIB)
                os.execve(sys.executable, sys.orig_argv, {**os.environ, "AGAIN": "1"})
            d = started()
            answer(code=d.code("cuMemAlloc_v2", byref(c_uint64()), 64 * MIB))
        """
        assert run_child(shared_env(), code).answer == {"code": 0}

    def test_vfork_and_fork_leave_the_parents_slot_alone(self, shared_env: ShimEnv) -> None:
        code = """
            import subprocess
            d = started()
            d.new("cuMemAlloc_v2", 40 * MIB)
            for _ in range(5):
                subprocess.run(["true"], check=True)  # vfork, by posix_spawn or _fork_exec
                if os.fork() == 0:
                    d.code("cuInit", 0)
                    d.code("cuMemAlloc_v2", byref(c_uint64()), MIB)
                    os._exit(0)
                os.wait()
            answer(held=held(), info=d.memory_info())
        """
        child = run_child(shared_env(), code)
        assert child.answer == {"held": [40 * MIB, 0, 0, 1], "info": [24 * MIB, 64 * MIB]}

    def test_a_daemon_that_outlives_the_run(self, shared_env: ShimEnv, runtime_dir: Path) -> None:
        # GIVEN a program whose grandchild closes all descriptors, and goes on
        code = PRELUDE + """
if os.fork() == 0:
    os.setsid()
    if os.fork():
        os._exit(0)
    os.closerange(3, 4096)
    d = started()
    d.new("cuMemAlloc_v2", 50 * MIB)
    print(os.getpid(), flush=True)
    import time
    time.sleep(60)
    os._exit(0)
os.wait()
"""
        env = shared_env()
        first = subprocess.Popen(
            [sys.executable, "-c", code], env=env, stdout=subprocess.PIPE, text=True
        )
        assert first.stdout is not None
        daemon = int(first.stdout.readline())
        try:
            first.wait(30)
            # THEN its memory counts, whoever sweeps
            Controller(runtime_dir).clean()
            with program(env) as b:
                assert b.value("alloc('x', 15 << 20)") == OOM
                assert b.value("alloc('x', 14 << 20)") == 0
                os.kill(daemon, 9)
                limit = time.monotonic() + 20  # nobody of ours can wait for it
                while b.value("alloc('y', 50 << 20)") and time.monotonic() < limit:
                    time.sleep(0.01)
                assert b.value("d.memory_info()") == [0, 64 * MIB]
        finally:
            first.stdout.close()
            if Path(f"/proc/{daemon}").exists():
                os.kill(daemon, 9)
        # AND when all are gone, so is the file
        Controller(runtime_dir).clean()
        assert [*runtime_dir.glob("*.run")] == []


class TestNoBudgetNoStart:
    @pytest.mark.parametrize(
        ("more", "said"),
        [
            ({"EMUV_RUN": ""}, "EMUV_RUN='' is not the id of a run"),
            ({"EMUV_RUN": "../x"}, "EMUV_RUN='../x' is not the id of a run"),
            ({"EMUV_SHARED": "yes"}, "EMUV_SHARED='yes' is not '1' or '0'"),
            ({"EMUV_RUNTIME_DIR": "/proc/nowhere"}, "cannot join it: segment directory"),
        ],
    )
    def test_cuinit_fails(self, shared_env: ShimEnv, more: dict[str, str], said: str) -> None:
        code = PRELUDE + "d = Driver('libcuda.so.1')\n"
        code += "answer(init=d.code('cuInit', 0), then=d.code('cuDeviceGet', byref(c_int()), 0))"
        done = run([sys.executable, "-c", code], {**shared_env(), **more})
        answer = json.loads(done.stdout)
        assert answer["init"] == 800, done.stderr
        assert answer["then"] == 3  # the driver was never initialised
        assert said in done.stderr

    def test_no_room_for_the_file(self, shared_env: ShimEnv) -> None:
        code = PRELUDE + """
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
answer(init=Driver('libcuda.so.1').code('cuInit', 0))
"""
        done = run([sys.executable, "-c", code], shared_env())
        assert json.loads(done.stdout) == {"init": 800}
        assert "shared budget" in done.stderr and "File too large" in done.stderr

    def test_more_than_there_are_slots(self, shared_env: ShimEnv, runtime_dir: Path) -> None:
        with program(shared_env()) as a:
            assert a.value("alloc('x', 1)") == 0
            path = runtime_dir / f"{RUN}.run"
            with path.open("r+b") as file:  # as if this process had all of them
                file.seek(1664)
                owner = file.read(8)
                file.seek(1664)
                file.write(owner * 256)
                file.seek(1600)
                file.write((256).to_bytes(8, "little"))
            code = PRELUDE + "answer(init=Driver('libcuda.so.1').code('cuInit', 0))"
            done = run([sys.executable, "-c", code], shared_env())
            assert json.loads(done.stdout) == {"init": 800}
            assert f"256 processes share the budget of run '{RUN}'" in done.stderr


class TestSet:
    def test_one_change_for_all_and_for_those_to_come(
        self, shared_env: ShimEnv, controller: Controller
    ) -> None:
        env = shared_env()
        with ExitStack() as stack:
            a, b = stack.enter_context(two(env))
            assert a.value("alloc('x', 30 << 20)") == 0
            assert b.value("alloc('x', 30 << 20)") == 0
            (change,) = controller.update_run_budget(RUN, vram=100 * MIB)
            assert change.old[0].vram_bytes == 64 * MIB
            assert change.devices[0].physical_bytes == 60 * MIB
            assert not change.applied
            c = stack.enter_context(program(env))
            assert c.value("alloc('x', 40 << 20)") == 0
            assert a.value("d.memory_info()") == [0, 100 * MIB]
            assert b.value("d.memory_info()") == [0, 100 * MIB]
            for p in (a, b, c):
                stats = controller.stats(p.pid)
                assert stats.shared and stats.applied_generation == change.generation
                assert stats.devices[0].free_bytes == 0
            (run_,) = controller.runs()
            assert run_.shared and run_.total.devices[0].physical_bytes == 100 * MIB

    def test_what_one_run_is_set_to_is_not_anothers(
        self, shim_env: ShimEnv, controller: Controller
    ) -> None:
        env = shim_env(vram=64 * MIB, EMUV_SHARED="1", EMUV_RUN="one", EMUV_NAME="same")
        with program(env) as a, program({**env, "EMUV_RUN": "two"}) as b:
            controller.update_run_budget("one", vram=32 * MIB)
            assert a.value("d.memory_info()") == [32 * MIB, 32 * MIB]
            assert b.value("d.memory_info()") == [64 * MIB, 64 * MIB]
            with pytest.raises(Exception, match="2 runs: one, two"):
                controller.find_run("same")

    def test_a_run_that_is_not_shared(self, shim_env: ShimEnv, controller: Controller) -> None:
        env = shim_env(vram=64 * MIB, EMUV_RUN=RUN)
        with two(env) as (a, b):
            changes = controller.update_run_budget(RUN, vram=32 * MIB)
            assert [change.pid for change in changes] == sorted((a.pid, b.pid))
            for p in (a, b):
                assert p.value("alloc('x', 32 << 20)") == 0
                assert p.value("alloc('y', 1)") == OOM


@pytest.mark.parametrize("shared", [False, True])
def test_eight_controllers_at_once(
    shim_env: ShimEnv, runtime_dir: Path, shared: bool
) -> None:
    """No budget is torn, none lost, and each says exactly what it replaced."""
    sets = int(os.environ.get("EMUV_SETS", "15"))
    code = """
import sys
from emuv_shim.controller import Controller
number, pid, sets = map(int, sys.argv[2:])
controller = Controller(sys.argv[1])
for i in range(sets):
    # vram and virtual belong together: a torn budget would show
    n = number * 1000 + i
    change = controller.update_budget(pid, vram=(64 << 20) + n, virtual=(64 << 20) + 2 * n)
    old = change.old[0]
    print(change.generation, old.vram_bytes - (64 << 20), old.virtual_bytes - (64 << 20), n)
"""
    env = shim_env(
        vram=64 * MIB, virtual=64 * MIB, EMUV_RUN=RUN, **({"EMUV_SHARED": "1"} if shared else {})
    )
    clean = {**os.environ, "PYTHONPATH": env["PYTHONPATH"]}
    with two(env) as (a, b):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", code, str(runtime_dir), str(i), str(a.pid), str(sets)],
                env=clean, stdout=subprocess.PIPE, text=True,
            )
            for i in range(8)
        ]  # fmt: skip
        while any(writer.poll() is None for writer in writers):
            for p in (a, b):
                n = p.value("[alloc('x', 1 << 20) or free('x'), d.memory_info()[1]][1]") - 128 * MIB
                assert n % 3 == 0, n
        lines = []
        for writer in writers:
            out, _ = writer.communicate(timeout=60)
            assert writer.returncode == 0
            lines += [[int(word) for word in line.split()] for line in out.splitlines()]
        lines.sort()
        assert [line[0] for line in lines] == [2 * (i + 1) for i in range(8 * sets)]
        was = 0
        for _, vram, virtual, n in lines:
            assert (vram, virtual) == (was, 2 * was)
            was = n
        assert a.value("d.memory_info()[1]") == 128 * MIB + 3 * was


class TestCommands:
    def test_ps_set_stats(
        self, cc: Compiler, clean_env: dict[str, str], emuv: Runner, runtime_dir: Path
    ) -> None:
        # GIVEN a run of two processes, by emuv-run itself
        shell = build_shell(cc)
        script = (
            "import subprocess, sys\n"
            "procs = [subprocess.Popen([sys.argv[1]], stdin=subprocess.PIPE,"
            " stdout=subprocess.PIPE, text=True) for _ in range(2)]\n"
            "assert all(p.stdout.readline() == 'ready\\n' for p in procs)\n"
            "print('ready', flush=True)\n"
            "for line in sys.stdin:\n"
            "    i, text = line.split(' ', 1)\n"
            "    procs[int(i)].stdin.write(text); procs[int(i)].stdin.flush()\n"
            "    print(procs[int(i)].stdout.readline(), end='', flush=True)\n"
            "for p in procs: p.stdin.close(); p.wait()\n"
        )
        with started(
            clean_env, sys.executable, "--shared", "--vram", "96MiB", "--name", "pair",
            arguments=["-c", script, str(shell)],
        ) as p:  # fmt: skip
            assert p.ask(f"0 a {60 * MIB}") == "0"
            assert p.ask(f"1 a {60 * MIB}") == "2"
            assert p.ask(f"1 a {30 * MIB}") == "0"
            # THEN ps shows it as one
            done = emuv("ps", "--json")
            value = json.loads(done.stdout)
            check_schema("ps", value)
            (run_,) = value["runs"]
            assert len(run_["pids"]) == 2
            assert run_["devices"][0]["physical_bytes"] == 90 * MIB
            assert run_["devices"][0]["vram_bytes"] == 96 * MIB
            text = emuv("ps").stdout
            assert f"run {run_['run_id']}: shared by 2 processes" in text
            assert "90 MiB" in text
            # AND its name, or the beginning of its id, is enough to change its budget
            done = emuv("set", "pair", "--vram", "100MiB", "--json")
            change = json.loads(done.stdout)
            check_schema("set", change)
            assert change["run_id"] == run_["run_id"]
            assert change["devices"][0]["old"]["vram_bytes"] == 96 * MIB
            assert p.ask(f"1 a {10 * MIB}") == "0"
            done = emuv("set", run_["run_id"][:6], "--vram", "80MiB")
            assert done.returncode == 0, done.stderr
            assert "20 MiB above the new vram" in done.stdout
            assert p.ask("0 a 1") == "2"
            stats = json.loads(emuv("stats", "--json", "pair").stdout)
            check_schema("stats", stats)
            assert len(stats["processes"]) == 2
            assert stats["processes"][0]["shared"]
            assert p.end() == 0
        # AND what it leaves goes with the next look
        emuv("ps")
        assert [path.name for path in runtime_dir.iterdir()] == []

    def test_dry_run_makes_nothing(self, emuv_run: Runner, runtime_dir: Path) -> None:
        done = emuv_run("--sim", "--shared", "--vram", "1GiB", "--dry-run", "true")
        assert "export EMUV_SHARED=1" in done.stdout
        assert [*runtime_dir.iterdir()] == []

    def test_what_cannot_be_shared_does_not_start(self, emuv_run: Runner) -> None:
        done = emuv_run(
            "--sim", "--shared", "--vram", "1GiB", "echo", "started",
            env={"EMUV_RUNTIME_DIR": "/proc/nowhere"},
        )  # fmt: skip
        assert done.returncode == 125
        assert "started" not in done.stdout

    def test_leftovers_go_at_the_next_start(self, emuv_run: Runner, runtime_dir: Path) -> None:
        for _ in range(3):
            assert emuv_run("--sim", "-q", "--shared", "--vram", "1GiB", "true").returncode == 0
        assert len([*runtime_dir.glob("*.run")]) == 1

    def test_nested(self, emuv_run: Runner, cc: Compiler, runtime_dir: Path) -> None:
        shell = build_shell(cc)
        inner = [sys.executable, "-m", "emuv_shim", "run"]
        # WITHIN a shared run an emuv-run without sizes belongs to it
        done = emuv_run(
            "--sim", "-q", "--shared", "--vram", "64MiB",
            shell, f"a{40 * MIB}", "i",
        )  # fmt: skip
        assert done.stdout.split("\n")[-2] == f"{24 * MIB} {64 * MIB}"
        done = emuv_run(
            "--sim", "-q", "--shared", "--vram", "64MiB", *inner, "--sim", "-q", "--", shell, "i",
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert done.stdout.split("\n")[-2] == f"{64 * MIB} {64 * MIB}"
        assert len([*runtime_dir.glob("*.run")]) == 1
        # AND one with a size of its own is refused
        done = emuv_run(
            "--sim", "-q", "--shared", "--vram", "64MiB", *inner, "--vram", "1MiB", "--", shell, "i"
        )
        assert done.returncode == 2
        assert "within a shared run" in done.stderr


@pytest.mark.parametrize("pools", [False, True], ids=["plain", "pools"])
def test_random_kills(
    shared_env: ShimEnv, cc: Compiler, runtime_dir: Path, controller: Controller, pools: bool
) -> None:
    """Processes under one budget, killed at random for EMUV_KILL_SECONDS (3).

    What a pool may have grown by is held until the driver was asked, and need not fit.
    """
    import random

    from emuv_shim._segment import RunView

    seconds = float(os.environ.get("EMUV_KILL_SECONDS", "3"))
    vram, virtual = 64 * MIB, 64 * MIB
    source = Path(__file__).parent / "programs" / "churn.c"
    churn = cc(source.read_text(), libs=["cuda"], name="churn")
    env = shared_env(vram, virtual, EMUV_QUIET="1")
    if not pools:
        env["CHURN_PLAIN"] = "1"
    choose = random.Random(7)
    alive: list[Talking] = []
    kills = moments = most = 0
    try:
        for i in range(4):
            alive.append(Talking([churn, str(i), str(24 * MIB)], env))
        assert all(one.line() == "ready" for one in alive)
        with RunView(runtime_dir / f"{RUN}.run") as view:
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                for _ in range(3):
                    looks = [view.read_run(slots=True).slots for _ in range(2)]
                    if looks[0] != looks[1]:
                        continue  # not of one moment
                    held = [slot.held[0] for slot in looks[0] if not slot.joining and slot.held]
                    physical, used = (sum(row[i] for row in held) for i in (0, 1))
                    assert physical <= vram or pools
                    assert used <= vram + virtual
                    most = max(most, physical)
                    moments += 1
                victim = choose.randrange(len(alive))
                alive[victim].child.kill()
                alive[victim].child.wait(20)
                alive[victim].__exit__(None, None, None)
                alive[victim] = Talking([churn, str(100 + kills), str(24 * MIB)], env)
                kills += 1
        for one in alive:
            one.child.kill()
            one.child.wait(20)
        # THEN nothing is left of them
        with program(env) as p:
            assert p.value("d.memory_info()") == [vram + virtual, vram + virtual]
            assert p.value("alloc('all', 64 << 20)") == 0
        print(f"{kills} kills, {moments} moments, at most {most} of {vram} bytes held")
        assert kills and moments
    finally:
        for one in alive:
            one.__exit__(None, None, None)
