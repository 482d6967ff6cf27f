# SPDX-License-Identifier: GPL-2.0-only
"""What programs and systems do, meaning no harm, that could leave a program without its budget.

Each is covered (the budget holds), refused at start in words, or left, as docs/limits.md
says: then the test shows that it is so. Programs are started with the environment that
emuv-run makes; it is asked for once.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import sys
import tempfile
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.conftest import LIBRARY, ROOT, SIMULATOR, Compiler, Runner, built, run
from tests.integration.cli_tools import EMUV_RUN
from tests.integration.shim_tools import MIB, OOM, with_mount
from tests.integration.test_matrix import CTYPES, MODES, build

BUDGET, CARD = 24 * MIB, 256 * MIB
HELD = {"got": BUDGET // MIB, "code": OOM, "total": BUDGET}
FREE = {"got": CARD // MIB, "code": OOM, "total": CARD}
LOADER = "/lib64/ld-linux-x86-64.so.2"
NOBODY = 65534


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder that every user can look into, as pytest's own are not."""
    with tempfile.TemporaryDirectory(prefix="emuv-test-") as name:
        os.chmod(name, 0o755)
        yield Path(name)


@pytest.fixture(scope="module")
def launched(folder: Path) -> dict[str, dict[str, str]]:
    """For each mode, the environment that a program gets from emuv-run."""
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("EMUV_", "LD_", "CUDA_"))}
    made = {}
    for mode in MODES:
        runtime = folder / f"runtime-{mode}"
        runtime.mkdir(mode=0o700)
        env = {**plain, "PYTHONPATH": str(ROOT), "EMUV_SIM_VRAM": str(CARD)}
        env["EMUV_RUNTIME_DIR"] = str(runtime)
        option = ["--audit"] if mode == "audit" else []
        words = [*EMUV_RUN, "--sim", "--vram", "24MiB", *option, "-q", "--", "env", "-0"]
        done = run(words, env)
        assert done.returncode == 0, done.stderr
        made[mode] = dict(item.split("=", 1) for item in done.stdout.split("\0") if "=" in item)
        del made[mode]["EMUV_QUIET"]  # -q's
    return made


@pytest.fixture(params=MODES)
def env(request: pytest.FixtureRequest, launched: dict[str, dict[str, str]]) -> dict[str, str]:
    """One mode's."""
    return dict(launched[request.param])


@pytest.fixture
def preloaded(launched: dict[str, dict[str, str]]) -> dict[str, str]:
    """That of the preload alone."""
    return dict(launched["preload"])


@pytest.fixture(scope="module")
def lookup(shared_cc: Compiler, folder: Path) -> Path:
    """programs/lookup.c, where every user can start it."""
    target = folder / "lookup"
    shutil.copy(build(shared_cc, "lookup"), target)
    return target


@pytest.fixture(scope="module")
def copied(folder: Path) -> Path:
    """emuV's libraries, where every user can load them, as the source tree may be closed."""
    return Path(shutil.copytree(built(LIBRARY).parent, folder / "_lib"))


def with_libraries(env: Mapping[str, str], copied: Path) -> dict[str, str]:
    """The environment of a run of emuV's that is installed there."""
    return {k: v.replace(str(LIBRARY.parent), str(copied)) for k, v in env.items()}


def answer(args: list[str | Path], env: Mapping[str, str], cwd: Path | None = None) -> object:
    """The JSON that a program prints last."""
    done = run(args, env, cwd=cwd)
    assert done.returncode == 0, f"{done.returncode}: {done.stderr}"
    return json.loads(done.stdout.splitlines()[-1])


def names(env: Mapping[str, str], *wanted: str) -> dict[str, str]:
    return {name: value for name, value in env.items() if name in wanted}


class TestCovered:
    @pytest.mark.parametrize(
        "start",
        [
            "nohup", "setsid --wait", "timeout 30", "nice", "env A=1", "stdbuf -oL",
            "sh -c '\"$@\"' sh", "bash -c 'exec \"$@\"' sh", "sh -c '\"$@\" & wait' sh",
            "xargs -a /dev/null", LOADER, f"{LOADER} --inhibit-cache",
            f"{LOADER} --preload libm.so.6", f"{LOADER} --library-path /nonexistent",
        ],
    )  # fmt: skip
    def test_by_way_of(self, lookup: Path, env: dict[str, str], start: str) -> None:
        command = f"{start} {lookup} runtime libcuda.so.1"
        assert answer(["sh", "-c", command], env) == HELD

    def test_pythons_isolation_is_of_python(self, env: dict[str, str]) -> None:
        code = CTYPES.format(name="libcuda.so.1")
        assert answer([sys.executable, "-I", "-S", "-E", "-c", code], env) == HELD

    @pytest.mark.parametrize("line", ["#!/bin/sh", "#!/usr/bin/env sh", "#!/usr/bin/env -S sh -e"])
    def test_scripts_run_by_scripts(
        self, lookup: Path, env: dict[str, str], tmp_path: Path, line: str
    ) -> None:
        inner, outer = tmp_path / "inner", tmp_path / "outer"
        inner.write_text(f"{line}\nexec {lookup} dlsym libcuda.so.1\n")
        outer.write_text(f"#!/usr/bin/env {inner}\n")
        for script in (inner, outer):
            script.chmod(0o755)
            assert answer([script], env) == HELD

    def test_a_program_without_read_permission(
        self, lookup: Path, env: dict[str, str], folder: Path, copied: Path
    ) -> None:
        """As a child: emuv-run refuses what it cannot look into, the loader needs no look."""
        program = folder / "unreadable"
        shutil.copy(lookup, program)
        program.chmod(0o111)
        become: list[str | Path] = []
        if os.geteuid() == 0:  # who can read everything
            runtime = folder / "nobody"
            runtime.mkdir(mode=0o700, exist_ok=True)
            os.chown(runtime, NOBODY, NOBODY)
            env = {**with_libraries(env, copied), "EMUV_RUNTIME_DIR": str(runtime)}
            become = ["setpriv", "--reuid", str(NOBODY), "--clear-groups"]
        assert run([*become, "cat", program], os.environ).returncode != 0
        assert answer([*become, program, "dlsym", "libcuda.so.1"], env) == HELD
        program.unlink()

    def test_a_launcher_with_almost_no_environment(self, lookup: Path, tmp_path: Path) -> None:
        """As under cron."""
        tmp_path.chmod(0o700)
        env = {"PYTHONPATH": str(ROOT), "EMUV_SIM_VRAM": str(CARD)}
        env["EMUV_RUNTIME_DIR"] = str(tmp_path)
        options = ["--sim", "--vram", "24MiB", "-q", "--"]
        assert answer([*EMUV_RUN, *options, lookup, "dlsym", "libcuda.so.1"], env) == HELD

    def test_the_loader_itself_under_the_launcher(self, emuv_run: Runner, lookup: Path) -> None:
        done = emuv_run(
            "--sim", "--vram", "24MiB", "-q", LOADER, "--inhibit-cache", lookup,
            "dlsym", "libcuda.so.1", env={"EMUV_SIM_VRAM": str(CARD)},
        )  # fmt: skip
        assert json.loads(done.stdout) == HELD

    def test_a_daemon_that_outlives_the_program(
        self, lookup: Path, env: dict[str, str], tmp_path: Path
    ) -> None:
        """Two forks and a session of its own; it goes on when its parent has been waited for."""
        code = """
            import os, sys
            if os.fork():
                sys.exit(0)
            os.setsid()
            if os.fork():
                os._exit(0)
            os.read(0, 1)  # until the parent has ended
            os.dup2(os.open(sys.argv[1], os.O_WRONLY), 1)
            os.execv(sys.argv[2], sys.argv[2:])
        """
        go_on, told = tmp_path / "go_on", tmp_path / "told"
        os.mkfifo(go_on)
        os.mkfifo(told)
        script = (
            'exec 3<>"$2" 4<>"$3"; "$0" -c "$1" "$3" "$4" dlsym libcuda.so.1 <&3; '
            'echo >&3; read line <&4; echo "$line"'
        )
        words: list[str | Path] = ["sh", "-c", script, sys.executable, textwrap.dedent(code)]
        assert answer([*words, go_on, told, lookup], env) == HELD

    @pytest.mark.parametrize("method", ["spawn", "forkserver"])
    def test_workers_under_audit(
        self, launched: dict[str, dict[str, str]], method: str, tmp_path: Path
    ) -> None:
        program = tmp_path / "program.py"
        program.write_text(f'''
from tests.integration.shim_child import *
import multiprocessing
def work(size):
    d = started()
    return [d.code("cuMemAlloc_v2", byref(c_uint64()), n * MIB) for n in (size, 20, 1)]
if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(1) as pool:
        answer(results=pool.map(work, [8], chunksize=1))
''')
        got = answer([sys.executable, program], launched["audit"])
        assert got == {"results": [[0, OOM, 0]]}


class TestLostVariables:
    """The preload is there, the run's variables are not: an ancestor's hold, or nothing starts."""

    @pytest.mark.parametrize(
        "how",
        [
            "env -i LD_PRELOAD=$LD_PRELOAD",
            "env -u EMUV_VRAM", "env EMUV_VRAM=", "env -u EMUV_DRIVER", "env EMUV_DRIVER=",
            "env -u EMUV_RUN", "env -u EMUV_RUNTIME_DIR -u EMUV_VRAM",
            "env -i LD_PRELOAD=$LD_PRELOAD sh -c '\"$@\"; exit $?' sh",
        ],
    )  # fmt: skip
    def test_the_runs_budget_holds(self, lookup: Path, env: dict[str, str], how: str) -> None:
        # (the shell in the middle has them still; the simulated card is no part of them)
        command = f"{how} EMUV_SIM_VRAM={CARD} {lookup} dlsym libcuda.so.1"
        if " sh " in how:
            command = f"{how} env EMUV_SIM_VRAM={CARD} {lookup} dlsym libcuda.so.1"
        done = run(["sh", "-c", f"{command}; exit $?"], env)
        assert json.loads(done.stdout) == HELD, done.stderr
        said = [line for line in done.stderr.splitlines() if "lost emuV's variables" in line]
        assert len(said) == (0 if "EMUV_RUN" in how.split() else 1)

    def test_it_is_the_nearest_runs(self, lookup: Path, env: dict[str, str]) -> None:
        """A run inside a run, with a smaller budget."""
        inner = {**env, "EMUV_VRAM": str(5 * MIB), "EMUV_RUN": "feedfeedfeedfeed"}
        words = ["env", *(f"{k}={v}" for k, v in inner.items()), "sh", "-c"]
        command = f"env -u EMUV_VRAM {lookup} dlsym libcuda.so.1; exit $?"
        got = answer(["sh", "-c", '"$@"; exit $?', "sh", *words, command], env)
        assert got == {"got": 5, "code": OOM, "total": 5 * MIB}

    def test_a_shared_budget_is_shared(self, lookup: Path, env: dict[str, str]) -> None:
        """By a child that has lost the variables, too, and by libraries in their namespaces."""
        code = """
            from tests.integration.shim_child import *
            import subprocess
            d = started()
            d.new("cuMemAlloc_v2", 10 * MIB)
            bare = {k: v for k, v in os.environ.items() if not k.startswith("EMUV_") or "SIM" in k}
            done = subprocess.run(sys.argv[1:], env=bare, capture_output=True, text=True)
            answer(child=json.loads(done.stdout))
        """
        words = [sys.executable, "-c", textwrap.dedent(code), lookup, "dlsym", "libcuda.so.1"]
        got = answer(words, {**env, "EMUV_SHARED": "1"})
        assert got == {"child": {**HELD, "got": 14}}

    def test_in_an_ancestors_large_environment(self, lookup: Path, env: dict[str, str]) -> None:
        """Wherever in it the variables are, and whatever else begins as they do."""
        strange = {"EMU": "1", "EMUV": "EMUV_VRAM=1", "EMUVRAM": "1", "XEMUV_VRAM": "1", "E": ""}
        large = {f"FILLER_{n}": "EMUV_VRAM=1 " * 9000 for n in range(9)}
        own = {k: v for k, v in env.items() if k.startswith("EMUV_")}
        rest = {k: v for k, v in env.items() if k not in own}
        command = f"env -u EMUV_VRAM -u EMUV_RUN {lookup} dlsym libcuda.so.1; exit $?"
        assert answer(["sh", "-c", command], {**rest, **strange, **large, **own}) == HELD
        # More of them than emuV holds is none: not read in part, nor from farther up.
        flood = [f"EMUV_FLOOD_{n}={'x' * 1000}" for n in range(17)]
        done = run(["sh", "-c", '"$@"; exit $?', "sh", "env", *flood, "sh", "-c", command], env)
        assert (done.returncode, done.stdout) == (3, "")

    def test_a_program_that_wipes_its_own(self, env: dict[str, str]) -> None:
        code = "import os; os.environ.clear()\n" + CTYPES.format(name="libcuda.so.1")
        assert answer([sys.executable, "-c", code], env) == HELD

    def test_where_no_ancestor_has_them_nothing_starts(
        self, lookup: Path, env: dict[str, str]
    ) -> None:
        bare = names(env, "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "PATH")
        for more in ({}, {"EMUV_VRAM": ""}, {"EMUV_VRAM": str(BUDGET)}, {"EMUV_RUN": "x"}):
            done = run([lookup, "dlsym", "libcuda.so.1"], {**bare, **more})
            assert (done.returncode, done.stdout) == (3, ""), more
            assert done.stderr.startswith("emuv: error: ")
            assert "\nemuv: hint: " in done.stderr

    def test_what_belongs_to_no_run_is_not_taken(self, lookup: Path, env: dict[str, str]) -> None:
        """The variables of somebody's own, in a shell whose child has lost one."""
        loader = names(env, "LD_PRELOAD", "LD_AUDIT", "LD_LIBRARY_PATH", "PATH")
        own = names(env, "EMUV_VRAM", "EMUV_DRIVER", "EMUV_RUNTIME_DIR")
        command = f"env -u EMUV_VRAM {lookup} dlsym libcuda.so.1; exit $?"
        done = run(["sh", "-c", command], {**loader, **own})
        assert (done.returncode, done.stdout) == (3, ""), done.stderr
        assert "no process above this one has a budget" in done.stderr

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_another_users_are_not_taken(
        self, lookup: Path, env: dict[str, str], copied: Path
    ) -> None:
        bare = names(with_libraries(env, copied), "LD_PRELOAD", "LD_AUDIT")
        become = f"setpriv --reuid {NOBODY} --clear-groups"
        words = " ".join(f"{k}={v}" for k, v in bare.items())
        command = f"env -i {become} env {words} {lookup} dlsym libcuda.so.1; exit $?"
        done = run(["sh", "-c", command], env)
        assert (done.returncode, done.stdout) == (3, ""), done.stderr
        assert "no process above this one has a budget" in done.stderr

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
    def test_root_takes_no_other_users(
        self, lookup: Path, env: dict[str, str], copied: Path, tmp_path: Path
    ) -> None:
        """Whose process began as root's, and may have become a parent before that."""
        env = with_libraries(env, copied)
        for name in ("go", "done"):
            os.mkfifo(tmp_path / name)
        loader = [f"{k}={v}" for k, v in names(env, "LD_PRELOAD", "LD_AUDIT").items()]
        own = [f"{k}={v}" for k, v in env.items() if k.startswith("EMUV_")]
        child = " ".join(["read _ <&8; env", *loader, f"{lookup} dlsym libcuda.so.1; echo $?"])
        become = ["setpriv", "--reuid", str(NOBODY), "--clear-groups", "env", *own]
        user = [*become, "sh", "-c", "echo >&8; read _ <&9"]
        parent = f'exec 8<>go 9<>done; ({child}; echo >&9) & exec "$@"'
        place = ["env", "-C", tmp_path, "-i", f"PATH={os.environ['PATH']}"]
        done = run([*place, "sh", "-c", parent, "sh", *user], os.environ)
        assert done.stdout == "3\n", done.stderr
        assert "no process above this one has a budget" in done.stderr

    def test_a_preload_that_another_tool_has_rewritten(
        self, lookup: Path, preloaded: dict[str, str]
    ) -> None:
        """The search path leads to emuV as well."""
        command = f"env LD_PRELOAD=libm.so.6 {lookup}"
        for file in ("libcuda.so.1", "libcuda.so"):
            assert answer(["sh", "-c", f"{command} dlsym {file}"], preloaded) == HELD
            assert answer(["sh", "-c", f"{command} runtime {file}"], preloaded) == HELD


class TestLeft:
    """What emuV cannot hold; docs/limits.md has a row for each."""

    def test_a_child_with_an_environment_of_its_own(
        self, lookup: Path, env: dict[str, str]
    ) -> None:
        code = (
            "import subprocess as s, sys; sys.exit(s.run(sys.argv[1:], "
            f"env={{'EMUV_SIM_VRAM': '{CARD}'}}).returncode)"
        )
        words = [lookup, "dlsym", SIMULATOR]
        assert answer([sys.executable, "-c", code, *words], env) == FREE
        clear = ["sh", "-c", f'env -i EMUV_SIM_VRAM={CARD} "$@"', "sh", *words]
        assert answer(clear, env) == FREE

    def test_a_library_that_has_gone(
        self, lookup: Path, preloaded: dict[str, str], tmp_path: Path
    ) -> None:
        """The loader says so, on the program's stderr, and starts it."""
        moved = {
            name: preloaded[name].replace(str(LIBRARY.parent) + "/", str(tmp_path) + "/")
            for name in ("LD_PRELOAD", "LD_LIBRARY_PATH")
        }
        done = run([lookup, "dlsym", SIMULATOR], {**preloaded, **moved})
        assert json.loads(done.stdout) == FREE
        assert "from LD_PRELOAD cannot be preloaded" in done.stderr

    @pytest.mark.skipif(os.geteuid() != 0, reason="only root can become the user who gains them")
    @pytest.mark.parametrize("how", ["setuid", "setgid", "capability"])
    def test_a_child_that_gains_privileges(
        self, lookup: Path, env: dict[str, str], folder: Path, copied: Path, how: str
    ) -> None:
        """What sudo is, too. The loader drops what it was told, for it and its children."""
        if os.statvfs(folder).f_flag & os.ST_NOSUID:
            pytest.skip(f"{folder} is mounted nosuid; TMPDIR chooses another file system")
        program = folder / how
        shutil.copy(lookup, program)
        if how == "capability" and shutil.which("setcap") is None:
            pytest.skip("no setcap (libcap2-bin)")
        if how == "capability":
            done = run(["setcap", "cap_net_raw+ep", program], os.environ)
            if done.returncode:
                pytest.skip(f"setcap: {done.stderr}")
        else:
            program.chmod(0o755 | (stat.S_ISUID if how == "setuid" else stat.S_ISGID))
        become = ["setpriv", "--reuid", str(NOBODY), "--regid", str(NOBODY), "--clear-groups"]
        env = with_libraries(env, copied)
        done = run([*become, program, "dlsym", copied / "sim" / SIMULATOR.name], env)
        # (nor does the simulated GPU read its card from such an environment)
        assert json.loads(done.stdout)["got"] == 1000, done.stderr
        assert "emuv" not in done.stderr


def test_the_doors_that_are_shut(
    emuv_run: Runner, lookup: Path, shared_cc: Compiler, folder: Path
) -> None:
    """Refused at start, exit 125, in words and with what to do."""
    main = "int main(void) { return 0; }\n"
    static = shared_cc(main, flags=["-static"], name="static")
    static_pie = shared_cc(main, flags=["-static-pie"], name="static_pie")
    script = folder / "script"
    script.write_text("#!/usr/bin/env -S -i sh\n")
    script.chmod(0o755)
    su = shutil.which("su") or pytest.fail("no su(1)")
    rows: list[tuple[list[str | Path], str, str]] = [
        ([static], "statically linked", "dynamically"),
        ([static_pie], "statically linked", "--best-effort"),
        (["env", static], "statically linked", "--best-effort"),
        ([su, "-c", "true"], "is set-uid", "put emuv-run inside"),
        (["env", "-i", "A=1", lookup], "clears the environment", "put emuv-run behind it"),
        (["env", "-", lookup], "clears the environment", "put emuv-run behind it"),
        (["env", "-u", "LD_PRELOAD", lookup], "takes away", "leave it out"),
        ([script], "clears the environment", "put emuv-run behind it"),
    ]
    for words, said, hint in rows:
        done = emuv_run("--sim", "--vram", "24MiB", "--", *words)
        assert (done.returncode, done.stdout) == (125, ""), words
        error, hinted = done.stderr.splitlines()
        assert error.startswith("emuv: error: ") and said in error, words
        assert hinted.startswith("emuv: hint: ") and hint in hinted, words


@pytest.mark.skipif(shutil.which("musl-gcc") is None, reason="no musl-gcc (musl-tools)")
class TestMusl:
    @pytest.fixture
    def program(self, tmp_path: Path) -> Path:
        source = tmp_path / "program.c"
        source.write_text("int main(void) { return 7; }\n")
        done = run(["musl-gcc", "-o", tmp_path / "program", source], os.environ)
        assert done.returncode == 0, done.stderr
        return tmp_path / "program"

    def test_refused_at_start(self, emuv_run: Runner, program: Path) -> None:
        done = emuv_run("--sim", "--vram", "24MiB", "--", program)
        assert done.returncode == 125
        assert "uses the musl C library" in done.stderr
        assert emuv_run("--sim", "--best-effort", "--", program).returncode == 7

    def test_a_child_does_not_start(self, env: dict[str, str], program: Path) -> None:
        """musl's loader ends a program whose preload it cannot resolve."""
        done = run(["sh", "-c", f"{program}; exit $?"], env)
        assert done.returncode == 127
        assert "libemuv.so" in done.stderr


@pytest.mark.skipif(shutil.which("bwrap") is None, reason="no bwrap (bubblewrap)")
class TestContainers:
    """What is inside is what is bound there."""

    @pytest.fixture
    def box(self, lookup: Path) -> list[str]:
        system = [Path("/usr"), *(p for p in map(Path, ("/lib", "/lib64", "/bin")) if p.exists())]
        words = ["bwrap", "--unshare-pid", "--proc", "/proc", "--dev", "/dev", "--tmpfs", "/tmp"]
        for path in (*system, SIMULATOR.parent, lookup.parent):
            words += ["--ro-bind", str(path), str(path)]
        if run([*words, "true"], os.environ).returncode:
            pytest.skip("bwrap is refused namespaces of its own here")
        return words

    def test_with_emuvs_files(self, box: list[str], lookup: Path, env: dict[str, str]) -> None:
        library, runtime = str(LIBRARY.parent), env["EMUV_RUNTIME_DIR"]
        inside = ["--ro-bind", library, library]
        program = [str(lookup), "dlsym", str(SIMULATOR)]
        whole = run([*box, *inside, "--bind", runtime, runtime, *program], env)
        assert json.loads(whole.stdout) == HELD
        # Without the runtime directory there are no statistics; the budget holds.
        alone = run([*box, *inside, "--tmpfs", runtime, "--remount-ro", runtime, *program], env)
        assert json.loads(alone.stdout) == HELD
        assert "no statistics and no live budget" in alone.stderr

    def test_where_proc_does_not_tell(
        self, box: list[str], lookup: Path, env: dict[str, str]
    ) -> None:
        """A child that has lost the variables finds no ancestor, and does not start."""
        library = str(LIBRARY.parent)
        inside = ["--tmpfs", "/proc", "--ro-bind", library, library, "--unsetenv", "EMUV_VRAM"]
        done = run([*box, *inside, str(lookup), "dlsym", str(SIMULATOR)], env)
        assert (done.returncode, done.stdout) == (3, "")
        assert "no process above this one has a budget" in done.stderr

    def test_without_them(self, box: list[str], lookup: Path, env: dict[str, str]) -> None:
        done = run([*box, str(lookup), "dlsym", str(SIMULATOR)], env)
        assert json.loads(done.stdout) == FREE
        assert "from LD_PRELOAD cannot be preloaded" in done.stderr


class TestWhereEmuvIs:
    @pytest.fixture
    def elsewhere(self, tmp_path: Path) -> Path:
        """emuV under a path that no list of the loader's can hold."""
        place = tmp_path / "a b:c;$d"
        place.mkdir()
        (place / "emuv_shim").symlink_to(ROOT / "emuv_shim")
        return place

    def launcher(self, place: Path) -> list[str]:
        code = f"import sys; sys.path.insert(0, {str(place)!r}); {EMUV_RUN[2]}"
        return [EMUV_RUN[0], "-c", code]

    @pytest.mark.parametrize("option", [[], ["--audit"]], ids=MODES)
    def test_under_a_path_with_blanks_and_colons(
        self, lookup: Path, clean_env: dict[str, str], elsewhere: Path, option: list[str]
    ) -> None:
        env = {**clean_env, "EMUV_SIM_VRAM": str(CARD)}
        del env["PYTHONPATH"]
        options = ["--sim", "--vram", "24MiB", *option, "-q", "--"]
        launcher = self.launcher(elsewhere)
        for _ in range(2):
            assert answer([*launcher, *options, lookup, "runtime", "libcuda.so.1"], env) == HELD
        (link,) = Path(env["EMUV_RUNTIME_DIR"]).glob("lib-*/_lib")
        assert link.readlink() == elsewhere / "emuv_shim" / "_lib"
        # A run inside it knows its outer one's libraries again.
        inner = [*options, "sh", "-c", "echo $LD_PRELOAD $LD_AUDIT"]
        text = run([*launcher, *options, *launcher, *inner], env).stdout
        assert text.count("libemuv.so") == 1 and text.count("libemuv-audit.so") == len(option)

    def test_where_there_is_no_place_for_a_link(
        self, clean_env: dict[str, str], elsewhere: Path
    ) -> None:
        runtime = elsewhere / "runtime"
        runtime.mkdir(mode=0o700)
        env = {**clean_env, "EMUV_RUNTIME_DIR": str(runtime)}
        done = run([*self.launcher(elsewhere), "--sim", "--", "true"], env)
        assert done.returncode == 125
        assert "which LD_PRELOAD cannot name" in done.stderr
        assert "hint: " in done.stderr

    def test_the_doctor_looks_at_the_loader(
        self, clean_env: dict[str, str], elsewhere: Path
    ) -> None:
        code = f"import sys; sys.path.insert(0, {str(elsewhere)!r}); "
        code += "from emuv_shim.commands import main; sys.exit(main())"
        rows = []
        for more in ({}, {"EMUV_RUNTIME_DIR": str(elsewhere / "runtime")}):
            (elsewhere / "runtime").mkdir(mode=0o700, exist_ok=True)
            words = [sys.executable, "-c", code, "doctor", "--sim", "--json"]
            done = run(words, {**clean_env, **more})
            found = {row["check"]: row for row in json.loads(done.stdout)["checks"]}
            rows.append((done.returncode, found["loader"]["status"]))
            assert found["library"]["status"] == "ok"
        assert rows == [(0, "ok"), (1, "problem")]

    @pytest.mark.parametrize("name", ["libemuv.so", "libemuv-audit.so"])
    @pytest.mark.parametrize("state", ["missing", "damaged", "empty"])
    def test_a_library_that_cannot_be_loaded_is_refused(
        self, clean_env: dict[str, str], tmp_path: Path, name: str, state: str
    ) -> None:
        package = tmp_path / "emuv_shim"
        (package / "_lib").mkdir(parents=True)
        for path in (ROOT / "emuv_shim").iterdir():
            if path.name != "_lib":
                (package / path.name).symlink_to(path)
        for path in (LIBRARY.parent).iterdir():
            (package / "_lib" / path.name).symlink_to(path)
        (package / "_lib" / name).unlink()
        if state != "missing":
            (package / "_lib" / name).write_text("no library" if state == "damaged" else "")
        code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {EMUV_RUN[2]}"
        env = {k: v for k, v in clean_env.items() if k != "PYTHONPATH"}
        done = run([EMUV_RUN[0], "-c", code, "--sim", "--audit", "--", "true"], env)
        assert done.returncode == 125, done.stderr
        assert name in done.stderr and "hint: build or install emuV again" in done.stderr
        if state == "missing" and name == "libemuv-audit.so":  # nobody needs it without --audit
            assert run([EMUV_RUN[0], "-c", code, "--sim", "--", "true"], env).returncode == 0


def test_a_file_system_without_execution(clean_env: dict[str, str], tmp_path: Path) -> None:
    """The loader would only warn, and start the program without its budget."""
    package, mounted = tmp_path / "emuv_shim", tmp_path / "mounted"
    mounted.mkdir()
    package.mkdir()
    for path in (ROOT / "emuv_shim").iterdir():
        if path.name != "_lib":
            (package / path.name).symlink_to(path)
    (package / "_lib").symlink_to(mounted)
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); {EMUV_RUN[2]}"
    env = {k: v for k, v in clean_env.items() if k != "PYTHONPATH"}
    run_it = [EMUV_RUN[0], "-c", code, "--sim", "--", "true"]
    copy = f"cp -r {built(LIBRARY).parent}/. {mounted} && exec \"$@\""
    for options, status, said in (("noexec", 125, "mounted noexec"), ("exec", 0, "")):
        where = with_mount(mounted, f"mode=700,{options}")
        done = run([*where, "sh", "-c", copy, "sh", *run_it], env)
        assert (done.returncode, said in done.stderr) == (status, True), done.stderr
