# SPDX-License-Identifier: GPL-2.0-only
"""Bugs that other tools of this kind had or have, one test each: emuV must not.

Each says in its first line what went wrong there.  Several are watched more
closely elsewhere (test_matrix, test_threads, test_stream_order, test_vmm_arrays).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest

from emuv_shim.controller import Controller
from tests.conftest import ROOT, Compiler, Runner, run
from tests.integration.cli_tools import Talking
from tests.integration.shim_tools import MIB, OOM, PRELUDE, errors, finish, run_child

ShimEnv = Callable[..., dict[str, str]]
PROGRAMS = Path(__file__).parent / "programs"


@pytest.fixture
def nested(cc: Compiler, sim: Path, tmp_path: Path) -> dict[str, str]:
    """The environment of a driver in two parts (nested_driver.c), the inner one the sim."""
    driver = cc(
        (PROGRAMS / "nested_driver.c").read_text(), name="libnested", shared=True,
        flags=[f"-I{ROOT / 'csrc' / 'shim'}"],
    )  # fmt: skip
    outer, inner = tmp_path / "outer" / "libcuda.so.1", tmp_path / "inner" / "libcuda.so.1.1"
    for path, target in ((outer, driver), (inner, sim)):
        path.parent.mkdir()
        path.symlink_to(target)
    return {"EMUV_DRIVER": str(outer), "EMUV_TEST_INNER": str(inner)}


class TestLookUps:
    @pytest.mark.parametrize("mode", ["preload", "audit", "auditor"])
    @pytest.mark.parametrize("when", ["load", "first"])
    def test_a_driver_that_opens_and_looks_up_itself(
        self, shim_env: ShimEnv, nested: dict[str, str], when: str, mode: str
    ) -> None:
        """The driver's own dlsym("cuInit") recursed into the hook (WSL)."""
        # GIVEN a driver that is a loader of another one, of a name like its own
        env = {**shim_env(vram=8 * MIB, mode=mode), **nested, "EMUV_TEST_WHEN": when}
        # WHEN a program uses it
        code = """
            d = started()
            handles, code = routes(d)["cuMemAlloc_v2"]().grab()
            answer(got=len(handles), code=code, denials=books()["denials"])
        """
        child = run_child(env, code)
        # THEN it finds its other part, and the budget holds
        assert child.answer == {"got": 8, "code": OOM, "denials": 1}

    def test_a_driver_that_calls_back_into_every_hook(
        self, shim_env: ShimEnv, nested: dict[str, str]
    ) -> None:
        """What the driver did by calling its own exports was counted twice, or without end."""
        # GIVEN a program that allocates by every route, past the budget, and frees
        code = """
            d = started()
            found = {}
            for name, make in routes(d).items():
                route = make()
                handles, code = route.grab()
                held_most = held()
                for handle in handles:
                    route.give(handle)
                d.cuStreamSynchronize(0)
                found[name] = [len(handles), code, held_most, held()]
            answer(found=found)
        """
        env = shim_env(vram=8 * MIB, virtual=4 * MIB)
        plain = run_child(env, code)
        # WHEN each call of the driver leads to the same call of the driver
        back = run_child({**env, **nested, "EMUV_TEST_BACK": "1"}, code)
        # THEN all is as with a driver that does not
        assert back.answer == plain.answer
        assert len(plain.answer["found"]) >= 15
        assert all(got >= 4 for got, *_ in plain.answer["found"].values())
        # AND each call was counted once
        before, after = (stats.devices[0] for stats in back.segments)
        assert after.calls == before.calls

    def test_looking_up_in_its_own_handle_does_not_recurse(self, shim_env: ShimEnv) -> None:
        """dlsym of the tool's own handle recursed until the stack was full."""
        code = """
            libc = ctypes.CDLL(None)
            libc.dlopen.restype = libc.dlsym.restype = ctypes.c_void_p
            handle = ctypes.c_void_p(libc.dlopen(os.environ["LD_PRELOAD"].encode(), 2))
            d = started()
            found = {libc.dlsym(handle, b"cuMemAlloc_v2") for _ in range(1000)}
            found |= {ctypes.cast(d.dll.cuMemAlloc_v2, ctypes.c_void_p).value}
            answer(found=len(found), null=None in found)
        """
        assert run_child(shim_env(vram=8 * MIB), code).answer == {"found": 1, "null": False}

    def test_names_that_only_begin_like_the_drivers(self, shim_env: ShimEnv) -> None:
        """Looking up `curs_set` crashed where there was no driver; RTLD_NEXT answered NULL."""
        code = """
            import threading
            libc = ctypes.CDLL(None)
            libc.dlsym.restype = ctypes.c_void_p
            asked = [b"curs_set", b"cu", b"cuNoSuchThing", b"custom_malloc"]
            answers, later = [libc.dlsym(None, n) for n in asked], []
            def many():
                later.extend(libc.dlsym(ctypes.c_void_p(-1), b"malloc") for _ in range(100))
            thread = threading.Thread(target=many)
            thread.start()
            thread.join(10)
            answer(answers=answers, next=len(set(later)), null=None in later)
        """
        env = {**shim_env(vram=8 * MIB), "EMUV_DRIVER": "/nonexistent/libcuda.so.1"}
        child = run_child(env, code)
        assert child.answer == {"answers": [None] * 4, "next": 1, "null": False}
        assert child.stderr == ""

    def test_cuda_12_programs_do_not_get_past(self, shim_env: ShimEnv) -> None:
        """What cuGetProcAddress answered was the driver's own function."""
        code = """
            d = started()
            out, refused = ctypes.c_void_p(), c_uint64()
            d.cuGetProcAddress_v2(b"cuMemAlloc", byref(out), 12000, 0, None)
            alloc = ctypes.CFUNCTYPE(c_int, ctypes.c_void_p, c_size_t)(out.value)
            answer(code=alloc(ctypes.addressof(refused), 9 * MIB), denials=books()["denials"])
        """
        assert run_child(shim_env(vram=8 * MIB), code).answer == {"code": OOM, "denials": 1}

    def test_a_failed_dlopen_says_what_was_asked_for(self, shim_env: ShimEnv) -> None:
        """A wrapped dlopen lost RPATHs, and with them cuDNN (the rest: test_matrix)."""
        code = """
            try:
                ctypes.CDLL("libno-such-library.so.9")
            except OSError as error:
                answer(error=str(error))
        """
        child = run_child(shim_env(vram=8 * MIB), code)
        assert child.answer["error"].startswith("libno-such-library.so.9: ")


class TestReports:
    def test_null_pointers(self, shim_env: ShimEnv) -> None:
        """cuMemGetInfo with NULL for free or total crashed (OptiX passes it)."""
        code = """
            d = started()
            n = c_size_t()
            d.code("cuMemGetInfo_v2", None, None), d.code("cuMemGetInfo", None, None)
            d.code("cuMemGetInfo_v2", None, byref(n)), d.code("cuDeviceTotalMem_v2", None, 0)
            answer(total=n.value)
        """
        assert run_child(shim_env(vram=8 * MIB), code).answer["total"] in (0, 8 * MIB)

    def test_no_limit_is_not_a_limit_of_zero(self, shim_env: ShimEnv) -> None:
        """cuDeviceTotalMem answered the limit even where there was none: 0."""
        code = """
            d = started()
            answer(total=d.new("cuDeviceTotalMem_v2", 0), info=d.memory_info())
        """
        child = run_child(shim_env(vram="none"), code)
        assert child.answer == {"total": 256 * MIB, "info": [256 * MIB, 256 * MIB]}

    @pytest.mark.parametrize("vram", [64 * MIB, 1024 * MIB, "none"])
    def test_free_is_never_above_total(self, shim_env: ShimEnv, vram: int | str) -> None:
        """Free memory wrapped to 2^64 on a small card; free was more than total."""
        code = """
            d = started()
            infos = [d.memory_info()]
            handles = []
            while (taken := routes(d)["cuMemAlloc_v2"]().take(7 * MIB))[0] == 0:
                handles.append(taken[1])
                infos.append(d.memory_info())
            answer(infos=infos)
        """
        for virtual in (0, 32 * MIB):
            child = run_child(shim_env(vram=vram, virtual=virtual, card=96 * MIB), code)
            infos = child.answer["infos"]
            assert all(0 <= free <= total <= 128 * MIB for free, total in infos)
            assert [free for free, _ in infos] == sorted((f for f, _ in infos), reverse=True)
            # What is said to be free can be had: less than a piece is left.
            assert infos[-1][0] < 7 * MIB

    def test_the_second_process_is_not_told_of_the_first(self, shim_env: ShimEnv) -> None:
        """A stale slot made the second process see free == total, or the first one's use."""
        env = shim_env(vram=64 * MIB)
        shell = PRELUDE + (
            "d = started(); print('ready', flush=True)\n"
            "for line in sys.stdin: print(json.dumps(eval(line)), flush=True)\n"
        )
        command = [sys.executable, "-c", shell]
        with Talking(command, env) as first, Talking(command, env) as second:
            assert [first.line(), second.line()] == ["ready", "ready"]
            first.ask("d.new('cuMemAlloc_v2', 40 << 20) and 0")
            second.ask("d.new('cuMemAlloc_v2', 10 << 20) and 0")
            assert json.loads(first.ask("d.memory_info()")) == [24 * MIB, 64 * MIB]
            assert json.loads(second.ask("d.memory_info()")) == [54 * MIB, 64 * MIB]


class TestBooks:
    def test_a_thread_without_a_context(self, shim_env: ShimEnv) -> None:
        """An allocation on a thread with no context indexed a table with garbage."""
        code = """
            import threading
            d = started()
            codes = []
            def go():
                codes.append(d.code("cuMemAlloc_v2", byref(c_uint64()), MIB))
            thread = threading.Thread(target=go)
            thread.start()
            thread.join(10)
            answer(codes=codes, held=held())
        """
        assert run_child(shim_env(vram=8 * MIB), code).answer == {
            "codes": [201], "held": [0, 0, 0, 0],
        }  # fmt: skip

    def test_use_never_wraps_below_zero(self, shim_env: ShimEnv) -> None:
        """Use underflowed to 17 TB, and then all was out of memory."""
        code = """
            d = started()
            for round in range(20):
                a = d.new("cuMemAlloc_v2", MIB)
                d.cuMemFree_v2(a)
                d.code("cuMemFree_v2", a), d.code("cuMemFree_v2", a + 512), d.code("cuMemFreeAsync", a, 0)
                d.code("cuArrayDestroy", a), d.code("cuMemRelease", a), d.code("cuMemUnmap", a, MIB)
                d.new("cuMemAlloc_v2", 2 * MIB)
                d.cuDevicePrimaryCtxReset_v2(0)
                d.cuCtxSetCurrent(d.new("cuDevicePrimaryCtxRetain", 0))
            b = books()
            handles, code = routes(d)["cuMemAlloc_v2"]().grab()
            answer(b=[b["device_bytes"], b["live_allocations"], b["overhead_bytes"]], got=len(handles))
        """  # noqa: E501
        child = run_child(shim_env(vram=8 * MIB, EMUV_SIM_CONTEXT=str(MIB)), code)
        assert child.answer == {"b": [0, 0, MIB], "got": 7}

    def test_thousands_of_live_allocations(self, shim_env: ShimEnv) -> None:
        """A table of 4096 slots let the rest go untracked; deletion lost live neighbours."""
        code = """
            import random
            random.seed(5)
            d = started()
            route = routes(d)["cuMemAlloc_v2"]()
            live = [route.take(4096)[1] for _ in range(9000)]
            full = held()
            random.shuffle(live)
            for h in live[:5000]:
                d.cuMemFree_v2(h)
            middle = held()
            for h in live[5000:]:
                d.cuMemFree_v2(h)
            answer(full=full, middle=middle, end=held())
        """
        child = run_child(shim_env(vram=64 * MIB), code)
        assert child.answer == {
            "full": [9000 * 4096, 0, 0, 9000], "middle": [4000 * 4096, 0, 0, 4000],
            "end": [0, 0, 0, 0],
        }  # fmt: skip

    def test_pitch_allocations_are_given_back(self, shim_env: ShimEnv) -> None:
        """Pitch allocations were lost for ever; arrays were charged in bits."""
        code = """
            d = started()
            for _ in range(40):
                for name in ("cuMemAllocPitch_v2", "cuArrayCreate_v2", "cuArray3DCreate_v2"):
                    code, h = (route := routes(d)[name]()).take(7 * MIB)
                    assert code == 0, name
                    route.give(h)
            answer(end=held())
        """
        assert run_child(shim_env(vram=8 * MIB), code).answer == {"end": [0, 0, 0, 0]}

    def test_managed_memory_is_not_unlimited(self, shim_env: ShimEnv) -> None:
        """Managed memory was given without end."""
        code = """
            handles, code = routes(started())["cuMemAllocManaged"]().grab()
            answer(got=len(handles), code=code)
        """
        assert run_child(shim_env(vram=8 * MIB), code).answer == {"got": 8, "code": OOM}

    def test_no_false_refusals(self, shim_env: ShimEnv) -> None:
        """A program that stays within its limit was refused all the same."""
        code = """
            import random
            random.seed(9)
            d = started()
            s = stream(d)
            live, total = [], 0
            for _ in range(3000):
                size = random.randrange(1, 3 * MIB)
                while total + size > 32 * MIB:
                    a, n = live.pop(random.randrange(len(live)))
                    d.cuMemFreeAsync(a, s) if n % 2 else d.cuMemFree_v2(a)
                    total -= n
                name = random.choice(("cuMemAlloc_v2", "cuMemAllocAsync"))
                live.append((d.new(name, size, *([s] if "Async" in name else [])), size))
                total += size
            b = books()
            answer(denials=b["denials"], spills=b["spills"], right=b["device_bytes"] == total)
        """
        child = run_child(shim_env(vram=32 * MIB, card=64 * MIB), code)
        assert child.answer == {"denials": 0, "spills": 0, "right": True}


class TestOthers:
    def test_killed_at_any_moment(
        self, cc: Compiler, shim_env: ShimEnv, runtime_dir: Path
    ) -> None:
        """Killed while it held the shared lock, a process left every other waiting for ever."""
        program = cc((PROGRAMS / "threads.c").read_text(), libs=["cuda"], name="threads")
        env = shim_env(vram=40 * MIB, EMUV_QUIET="1")
        with Talking([program, "100000000", "2"], env) as other:
            assert other.line() == "ready"
            for _ in range(5):
                with Talking([program, "100000000"], env) as victim:
                    assert victim.line() == "ready"
                    victim.child.stdin.write("go\n")  # type: ignore[union-attr]
                    victim.child.stdin.flush()  # type: ignore[union-attr]
                    controller = Controller(runtime_dir)
                    while not controller.stats(victim.pid).devices[0].live_allocations:
                        pass  # in the midst of it
                    os.kill(victim.pid, signal.SIGKILL)
                    victim.child.wait(10)
            # THEN the others start, allocate and are read as if nothing had been
            code = 'd = started(); answer(n=len(routes(d)["cuMemAlloc_v2"]().grab()[0]))'
            done = run([sys.executable, "-c", PRELUDE + code], env)
            assert json.loads(done.stdout) == {"n": 40}
            assert [p.pid for p in controller.processes()] == [other.pid]
            assert len(controller.clean()) == 5

    def test_umask_and_modes(self, shim_env: ShimEnv, runtime_dir: Path) -> None:
        """The program's umask was set to 0, and the shared file was everybody's to write."""
        code = """
            os.umask(0)
            d = started()
            (name,) = os.listdir(os.environ["EMUV_RUNTIME_DIR"])
            mode = os.stat(os.path.join(os.environ["EMUV_RUNTIME_DIR"], name)).st_mode
            answer(mode=oct(mode & 0o7777), umask=os.umask(0o22))
        """
        assert run_child(shim_env(vram=8 * MIB), code).answer == {"mode": "0o600", "umask": 0}

    def test_a_link_in_the_segments_place(
        self, shim_env: ShimEnv, tmp_path: Path
    ) -> None:
        """The shared file was opened through whatever link lay there."""
        precious = tmp_path / "precious"
        precious.write_text("mine")
        code = f"""
            from emuv_shim._segment import start_ticks
            name = f"{{os.getpid()}}-{{start_ticks(os.getpid())}}.seg"
            path = os.path.join(os.environ["EMUV_RUNTIME_DIR"], name)
            os.symlink({str(precious)!r}, path)
            d = started()
            answer(link=os.path.islink(path), size=os.path.getsize(path), held=held())
        """
        child = run_child(shim_env(vram=8 * MIB), code)
        assert child.answer["link"] is False
        assert child.answer["held"] == [0, 0, 0, 0]
        assert precious.read_text() == "mine"

    def test_what_the_program_prints_is_its_own(self, shim_env: ShimEnv) -> None:
        """Log lines on stdout broke the tools that read it; thousands of them, elsewhere."""
        code = 'd = started(); routes(d)["cuMemAlloc_v2"]().grab(); print("alone")'
        child = run_child(shim_env(vram=8 * MIB, virtual=8 * MIB), code)
        assert child.stdout == "alone\n"
        assert 0 < len(child.stderr.splitlines()) <= 4

    def test_it_leaves_no_files(
        self, shim_env: ShimEnv, runtime_dir: Path, tmp_path: Path
    ) -> None:
        """Every process left files in /tmp."""
        places = [tmp_path / name for name in ("home", "temporary", "here")]
        for place in places:
            place.mkdir()
        env = {**shim_env(vram=8 * MIB, virtual=8 * MIB, EMUV_QUIET="1"),
               "HOME": str(places[0]), "TMPDIR": str(places[1])}  # fmt: skip
        code = f"""
            os.chdir({str(places[2])!r})
            d = started()
            got = len(routes(d)["cuMemAlloc_v2"]().grab()[0])
            kept = os.listdir(os.environ["EMUV_RUNTIME_DIR"])
            answer(got=got, kept=len(kept))
        """
        done = run([sys.executable, "-c", PRELUDE + textwrap.dedent(code)], env)
        assert json.loads(done.stdout) == {"got": 16, "kept": 1}, done.stderr
        assert [list(place.iterdir()) for place in (*places, runtime_dir)] == [[]] * 4

    def test_the_host_program_is_never_ended(self, shim_env: ShimEnv) -> None:
        """`exit()` inside the host, and calls through NULL after "Hijack failed"."""
        env = {**shim_env(vram="bad"), "EMUV_DRIVER": "/nonexistent"}
        code = """
            d = Driver("libcuda.so.1")
            names = [n for n in dir(d) if n.startswith("cu")] or [
                "cuInit", "cuMemAlloc_v2", "cuMemFree_v2", "cuDeviceGetCount", "cuStreamCreate",
                "cuLaunchKernel", "cuGetProcAddress_v2", "cuDriverGetVersion", "cuGetErrorName",
                "cuGraphLaunch", "cuModuleLoadData", "cuMemGetInfo_v2", "cuCtxCreate_v4"]
            codes = [d.code(n, *[0] * 10) for n in names]
            answer(alive=True, refused=all(codes))
        """
        child = run_child(env, code)
        assert child.answer == {"alive": True, "refused": True}
        assert len(errors(child)) <= 2

    def test_sizes_are_not_misread(self, emuv_run: Runner) -> None:
        """`8GiB` was 8 bytes, `50%` was 50, `1.5G` was 1 GiB."""
        code = (
            "import ctypes; d = ctypes.CDLL('libcuda.so.1'); n = ctypes.c_size_t(); d.cuInit(0); "
            "d.cuDeviceTotalMem_v2(ctypes.byref(n), 0); print(n.value)"
        )
        for text, size in (("8GiB", 8 << 30), ("1.5G", 3 << 29), ("50%", 8 << 30)):
            done = emuv_run(
                "--sim", "--vram", text, "-q", "--", sys.executable, "-c", code,
                env={"EMUV_SIM_VRAM": str(16 << 30)},
            )  # fmt: skip
            assert (done.stdout.strip(), done.returncode) == (str(size), 0), (text, done.stderr)

    def test_ipc_of_spilled_memory_is_refused_in_the_drivers_words(
        self, shim_env: ShimEnv
    ) -> None:
        """Managed memory has no IPC handle: that must be an error, not a wrong handle."""
        code = """
            d = started()
            plain = d.new("cuMemAlloc_v2", 8 * MIB)
            spilled = d.new("cuMemAlloc_v2", 8 * MIB)
            handle = (ctypes.c_char * 64)()
            answer(plain=d.code("cuIpcGetMemHandle", handle, plain),
                   spilled=d.code("cuIpcGetMemHandle", handle, spilled))
        """
        child = run_child(shim_env(vram=8 * MIB, virtual=8 * MIB), code)
        assert child.answer["spilled"] == 1
        assert child.answer["plain"] in (0, 801)  # a driver may have no IPC

    def test_nobody_waits_while_one_waits(self, shim_env: ShimEnv) -> None:
        """A lock held over a driver call stopped all; a lock not got in 10 s was ignored."""
        # GIVEN a thread that waits in the driver, and one that waits for a free
        code = """
            import threading
            d = started()
            context = d.new("cuCtxGetCurrent")
            d.new("cuMemAlloc_v2", 6 * MIB)
            s = stream(d)
            spilled = d.new("cuMemAllocAsync", 8 * MIB, s)
            hold(d, s, True)
            d.cuMemFreeAsync(spilled, s)
            def wait_for_stream():
                d.cuCtxSetCurrent(context)
                d.code("cuStreamSynchronize", s)
            def wait_for_free():
                d.cuCtxSetCurrent(context)
                d.code("cuMemAlloc_v2", byref(c_uint64()), 8 * MIB)
            before = calls(d, "cuStreamSynchronize"), calls(d, "cuEventQuery")
            threads = [threading.Thread(target=t) for t in (wait_for_stream, wait_for_free)]
            for t in threads: t.start()
            while calls(d, "cuStreamSynchronize") == before[0] or calls(d, "cuEventQuery") < before[1] + 5:
                pass
            # WHEN others go on (with what waits for no stream: cuMemFree does)
            codes = [d.code("cuMemAlloc_v2", byref(c_uint64()), 4096) for _ in range(200)]
            waiting = [t.is_alive() for t in threads]
            hold(d, s, False)
            for t in threads: t.join(20)
            answer(codes=sum(codes), waiting=waiting, ended=not any(t.is_alive() for t in threads))
        """  # noqa: E501
        child = run_child(shim_env(vram=8 * MIB, virtual=8 * MIB), code)
        assert child.answer == {"codes": 0, "waiting": [True, True], "ended": True}

    def test_what_cannot_be_held_is_written_down(self) -> None:
        """Vulkan allocations went past the cap, and nobody had said so."""
        assert "Vulkan" in (ROOT / "docs" / "limits.md").read_text()

    def test_a_release_build_has_its_hooks(self, libemuv: Path) -> None:
        """A Release build exported no hooks at all."""
        done = finish(["nm", "-D", "--defined-only", str(libemuv)], {"PATH": os.environ["PATH"]})
        for name in ("cuMemAlloc_v2", "cuMemAllocAsync_ptsz", "cuGetProcAddress_v2", "dlopen"):
            assert f" T {name}\n" in done.stdout or f" W {name}\n" in done.stdout
