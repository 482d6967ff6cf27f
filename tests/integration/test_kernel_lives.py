# SPDX-License-Identifier: GPL-2.0-only
"""Kernels and what else happens to a process: its end, fork, signals, contexts that go."""

from __future__ import annotations

import signal
import sys
import textwrap
import time
from pathlib import Path

import pytest

from tests.conftest import Completed, run
from tests.integration.shim_tools import Child, finish

ADDRESS, FAILED, TRAP, INVALID_HANDLE, NO_COMPILER = 700, 719, 719, 400, 221
PRELUDE = "from tests.integration.kernel_child import *\n"


@pytest.fixture
def env(sim_env: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """The simulated GPU with a cache of this test's own."""
    return {**sim_env, "XDG_CACHE_HOME": str(tmp_path / "cache")}


def child(env: dict[str, str], code: str, status: int | None = 0) -> Child:
    text = PRELUDE + textwrap.dedent(code)
    return finish([sys.executable, "-c", text], env, status, 60)


def plain(env: dict[str, str], code: str) -> Completed:
    return run([sys.executable, "-c", PRELUDE + textwrap.dedent(code)], env, 60)


class TestEnds:
    @pytest.mark.parametrize("body", ["X: bra X;", "X: bar.sync 0; bra X;"])
    def test_a_process_ends_while_a_kernel_runs(self, env: dict[str, str], body: str) -> None:
        code = f"""
            d = started()
            print(launch(d, function(d, entry({body!r})), grid=100, block=256))
        """
        before = time.monotonic()
        done = plain(env, code)
        assert (done.returncode, done.stdout) == (0, "0\n")
        assert "it is stopped" in done.stderr
        assert time.monotonic() - before < 20

    def test_by_a_signal(self, env: dict[str, str]) -> None:
        code = """
            import signal
            d = started()
            launch(d, function(d, entry(FOREVER)))
            os.kill(os.getpid(), signal.SIGTERM)
        """
        assert plain(env, code).returncode == -signal.SIGTERM

    def test_contexts_that_go_stop_their_kernels(self, env: dict[str, str]) -> None:
        code = """
            d = started()
            made = c_uint64()
            d.cuCtxCreate_v2(byref(made), 0, 0)
            codes = [launch(d, function(d, entry(FOREVER)))]
            codes.append(d.code("cuCtxDestroy_v2", made.value))
            d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", 0))
            codes.append(launch(d, function(d, entry(FOREVER))))
            codes.append(d.code("cuDevicePrimaryCtxReset_v2", 0))
            d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", 0))
            answer(codes=codes, after=run(d, function(d, entry(""))))
        """
        assert child(env, code).answer == {"codes": [0] * 4, "after": [0, 0]}

    def test_frees_and_unloads_wait(self, env: dict[str, str]) -> None:
        code = """
            d = started()
            p, q = d.new("cuMemAlloc_v2", 64), d.new("cuMemAlloc_v2", 4 * MIB)
            module = d.new("cuModuleLoadData", counting(30_000_000).encode() + b"\\0")
            k = d.new("cuModuleGetFunction", module, b"k")
            codes = [launch(d, k, p), d.code("cuModuleUnload", module)]
            first = int.from_bytes(d.download(p, 4), "little")
            k = function(d, counting(30_000_001))
            codes += [launch(d, k, q), d.code("cuMemFree_v2", q), d.code("cuCtxSynchronize")]
            answer(codes=codes, first=first)
        """
        assert child(env, code).answer == {"codes": [0] * 5, "first": 30_000_000}


class TestForks:
    def test_a_child_of_a_process_with_a_kernel(self, env: dict[str, str]) -> None:
        code = """
            import subprocess
            d = started()
            p = d.new("cuMemAlloc_v2", 64)
            launch(d, function(d, counting(60_000_000)), p)
            child = os.fork()
            if child == 0:
                codes = [d.code("cuCtxSynchronize"), d.code("cuMemAlloc_v2", byref(c_uint64()), 8)]
                sys.exit(codes != [3, 3])
            status = os.waitpid(child, 0)[1]
            echo = subprocess.run(["echo", "hi"], capture_output=True, text=True).stdout
            answer(status=status, echo=echo, code=d.code("cuCtxSynchronize"),
                   value=int.from_bytes(d.download(p, 4), "little"))
        """
        got = child(env, code).answer
        assert got == {"status": 0, "echo": "hi\n", "code": 0, "value": 60_000_000}

    def test_while_kernels_are_compiled(self, env: dict[str, str]) -> None:
        code = """
            import threading
            d = started()
            ended = []

            def fork_on():
                for _ in range(8):
                    child = os.fork()
                    if child == 0:
                        os._exit(0)
                    ended.append(os.waitpid(child, 0)[1])

            thread = threading.Thread(target=fork_on)
            thread.start()
            codes = [run(d, function(d, entry(f"mov.u32 %r1, {i};"))) for i in range(4)]
            thread.join()
            answer(codes=codes, ended=ended)
        """
        assert child(env, code).answer == {"codes": [[0, 0]] * 4, "ended": [0] * 8}


FAULT = """
    d = started()
    k = function(d, entry("st.global.u32 [%rd1], 1;"))
    p = d.new("cuMemAlloc_v2", 4 * MIB)
    d.cuMemFree_v2(p)
"""


class TestSignals:
    @pytest.mark.parametrize(
        "before",
        [
            "", "import faulthandler; faulthandler.enable()",
            "import signal; signal.signal(signal.SIGSEGV, signal.SIG_IGN)",
            "import signal; signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 32))",
        ],
        ids=["default", "handled", "ignored", "blocked"],
    )  # fmt: skip
    def test_a_kernels_fault_is_an_error_of_its_context(
        self, env: dict[str, str], before: str
    ) -> None:
        code = f"{before}\n{textwrap.dedent(FAULT)}\nanswer(codes=run(d, k, p))"
        got = child(env, code)
        assert got.answer["codes"] == [0, ADDRESS]
        assert 'kernel "k", block (0, 0, 0), thread (0, 0, 0): write' in got.stderr

    def test_a_fault_of_the_programs_own_stays_one(self, env: dict[str, str]) -> None:
        done = plain(env, f"{textwrap.dedent(FAULT)}\nrun(d, k, p)\nctypes.string_at(p)")
        assert done.returncode == -signal.SIGSEGV

    def test_the_programs_handler_is_called(self, env: dict[str, str]) -> None:
        code = f"""
            import faulthandler
            {textwrap.indent(textwrap.dedent(FAULT), " " * 12).strip()}
            faulthandler.enable()
            run(d, k, p)
            ctypes.string_at(0)
        """
        done = plain(env, code)
        assert done.returncode == -signal.SIGSEGV
        assert "Fatal Python error: Segmentation fault" in done.stderr


class TestContexts:
    def test_an_error_stays_in_its_context(self, env: dict[str, str]) -> None:
        code = """
            d = started()
            first = d.new("cuCtxGetCurrent")
            bad = function(d, entry("trap;"))
            other = c_uint64()
            d.cuCtxCreate_v2(byref(other), 0, 0)
            p = d.new("cuMemAlloc_v2", 64)
            good = function(d, entry("st.global.u32 [%rd1], 7;"))
            d.cuCtxSetCurrent(first)
            codes = [run(d, bad), d.code("cuMemAlloc_v2", byref(c_uint64()), 64),
                     d.code("cuStreamCreate", byref(c_uint64()), 0)]
            d.cuCtxSetCurrent(other.value)
            answer(codes=codes, other=run(d, good, p), value=d.download(p, 1)[0])
        """
        assert child(env, code).answer == {
            "codes": [[0, TRAP], TRAP, TRAP], "other": [0, 0], "value": 7,
        }  # fmt: skip

    def test_a_kernel_and_a_stream_of_two(self, env: dict[str, str]) -> None:
        code = """
            d = started()
            k = function(d, entry(""))
            d.cuCtxCreate_v2(byref(c_uint64()), 0, 0)
            d.cuCtxGetCurrent(byref(made := c_uint64()))
            stream = d.new("cuStreamCreate", 0)
            codes = [launch(d, k), launch(d, k, stream=stream)]
            d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", 0))
            answer(codes=[*codes, launch(d, k, stream=stream), *run(d, k)])
        """
        assert child(env, code).answer["codes"] == [INVALID_HANDLE] * 3 + [0, 0]

    def test_many_threads(self, env: dict[str, str]) -> None:
        code = """
            import threading
            d = started()
            context = d.new("cuCtxGetCurrent")
            k = function(d, entry("atom.global.add.u32 %r1, [%rd1], 1;"))
            p = d.new("cuMemAlloc_v2", 64)
            d.cuMemsetD32_v2(p, 0, 16)
            codes = set()

            def work():
                d.cuCtxSetCurrent(context)
                stream = d.new("cuStreamCreate", 1)
                for _ in range(200):
                    codes.add(launch(d, k, p, grid=3, block=7, stream=stream))
                codes.add(d.code("cuStreamSynchronize", stream))
                d.cuStreamDestroy_v2(stream)

            threads = [threading.Thread(target=work) for _ in range(6)]
            [t.start() for t in threads]
            [t.join() for t in threads]
            answer(codes=list(codes), count=int.from_bytes(d.download(p, 4), "little"))
        """
        assert child(env, code).answer == {"codes": [0], "count": 6 * 200 * 21}


def test_work_behind_what_a_waiter_helped_with(env: dict[str, str]) -> None:
    # GIVEN executors that are busy, so that whoever waits for a kernel runs it
    code = """
        import threading, time
        d = started()
        context = d.new("cuCtxGetCurrent")
        Host = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
        gate, started_ones, ended = threading.Event(), [], []

        def block(_):
            started_ones.append(1)
            gate.wait(30)
            ended.append(1)

        blocker, last = Host(block), Host(lambda _: ended.append("last"))
        for _ in range(8):
            d.cuLaunchHostFunc(d.new("cuStreamCreate", 1), blocker, None)
        while len(started_ones) < 8:
            time.sleep(0.001)
        flag = ctypes.c_uint32.from_address(d.new("cuMemHostAlloc", 64, 2))
        kernel = function(d, entry(
            "st.global.u32 [%rd1], 1; mov.u32 %r1, 0; X: add.u32 %r1, %r1, 1; "
            "setp.lt.u32 %p1, %r1, 300000000; @%p1 bra X; st.global.u32 [%rd1], %r1;"))
        stream, event = d.new("cuStreamCreate", 1), d.new("cuEventCreate", 0)
        launch(d, kernel, ctypes.addressof(flag), stream=stream)
        d.cuEventRecord(event, stream)

        def wait():
            d.cuCtxSetCurrent(context)
            d.cuEventSynchronize(event)

        waiter = threading.Thread(target=wait)
        waiter.start()
        while not flag.value:
            time.sleep(0.001)
        # WHEN they are done, and something comes behind the kernel that no waiter may run
        gate.set()
        d.cuLaunchHostFunc(stream, last, None)
        d.cuStreamSynchronize(stream)
        waiter.join()
        answer(ended=ended, value=flag.value)
    """
    # THEN one of them is woken for it
    got = child(env, code).answer
    assert got == {"ended": [1] * 8 + ["last"], "value": 300_000_000}


def test_without_a_compiler(env: dict[str, str]) -> None:
    code = 'd = started(); k = function(d, entry("")); answer(codes=[launch(d, k)] * 2 + run(d, k))'
    got = child({**env, "EMUV_SIM_CC": "/nowhere/cc", "EMUV_SIM_CACHE": "off"}, code)
    assert got.answer["codes"] == [NO_COMPILER] * 3 + [0]
    (line,) = got.stderr.splitlines()
    assert "needs a C compiler, and there is none (/nowhere/cc)" in line
    assert "apt-get install gcc" in line
