# SPDX-License-Identifier: GPL-2.0-only
"""emuv-run: what starts, what is refused, and how it ends."""

from __future__ import annotations

import json
import os
import pty
import shlex
import shutil
import signal
import struct
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from tests.conftest import Compiler, Runner, has_gpu, run
from tests.integration.cli_tools import EMUV_RUN, MIB, Talking, build_shell, check_schema

PID_AT, START_TICKS_AT = 16, 24  # in a segment; tests/layout holds the header to them
FORWARDED = ["INT", "TERM", "HUP", "QUIT", "USR1", "USR2", "WINCH"]
# Says which signal it got, by number, and ends with it as its status.
WAITER = (
    "import signal as s; a = [getattr(s, 'SIG' + n) for n in "
    f"{FORWARDED!r}]; s.pthread_sigmask(s.SIG_BLOCK, a); print('ready', flush=True); "
    "n = s.sigtimedwait(a, 20).si_signo; print(n, flush=True); raise SystemExit(n)"
)


def environ_of(text: str) -> dict[str, str]:
    return dict(item.split("=", 1) for item in text.split("\0") if "=" in item)


def preloads(libemuv: Path, sim: Path) -> str:
    """LD_PRELOAD as emuv-run --sim sets it."""
    ours = (libemuv, libemuv.parent / "libemuv-nvml.so")
    return ":".join(map(str, (*ours, *(sim.parent / f"libcudart.so.{n}" for n in (13, 12)))))


class TestExec:
    @pytest.mark.parametrize("code", [0, 1, 7, 125, 255])
    def test_exit_status_is_the_programs_own(self, emuv_run: Runner, code: int) -> None:
        assert emuv_run("--sim", "-q", "sh", "-c", f"exit {code}").returncode == code

    @pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "PIPE"])
    def test_death_by_signal_is_the_programs_own(self, emuv_run: Runner, name: str) -> None:
        done = emuv_run("--sim", "-q", "sh", "-c", f"kill -{name} $$")

        assert done.returncode == -getattr(signal, f"SIG{name}")

    def test_pid_is_the_launchers(self, clean_env: dict[str, str], libemuv: Path) -> None:
        child = subprocess.Popen(
            [*EMUV_RUN, "--sim", "-q", "sh", "-c", "echo $$"],
            env=clean_env, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        out, _ = child.communicate(timeout=30)

        assert int(out) == child.pid

    def test_arguments_arrive_as_they_are(self, emuv_run: Runner) -> None:
        words = ["a b", "--vram", "-q", "", "*", "$HOME", "é\n"]
        script = "import sys, json; print(json.dumps(sys.argv[1:]))"
        done = emuv_run("--sim", "-q", "--", sys.executable, "-c", script, *words)

        assert json.loads(done.stdout) == words

    def test_dispositions_and_descriptors_are_not_changed(
        self, emuv_run: Runner, clean_env: dict[str, str]
    ) -> None:
        script = "grep -E 'SigIgn|SigBlk' /proc/self/status; ls /proc/self/fd"
        plain = run(["sh", "-c", script], clean_env)
        under = emuv_run("--sim", "-q", "sh", "-c", script)

        assert under.stdout == plain.stdout

    def test_a_program_with_address_sanitizer_needs_its_option(
        self, emuv_run: Runner, cc: Compiler
    ) -> None:
        program = cc("int main(void) { return 7; }\n", flags=["-fsanitize=address"])
        option = {"ASAN_OPTIONS": "verify_asan_link_order=0"}

        assert "ASan runtime does not come first" in emuv_run("--sim", "-q", program).stderr
        assert emuv_run("--sim", "-q", program, env=option).returncode == 7

    @pytest.mark.parametrize("left", [100, 300])
    def test_what_killed_programs_left_is_removed_where_it_is_much(
        self,
        emuv_run: Runner,
        clean_env: dict[str, str],
        cc: Compiler,
        runtime_dir: Path,
        left: int,
    ) -> None:
        with Talking([*EMUV_RUN, "--sim", "-q", build_shell(cc)], clean_env) as program:
            assert program.line() == "ready"
            (living,) = runtime_dir.glob("*.seg")
            for number in range(left):  # of pids that the kernel does not give
                dead = runtime_dir / f"{2**30 + number}-7.seg"
                content = bytearray(living.read_bytes())
                struct.pack_into("<i", content, PID_AT, 2**30 + number)
                struct.pack_into("<Q", content, START_TICKS_AT, 7)
                dead.write_bytes(content)
                dead.chmod(0o600)
            assert emuv_run("--sim", "-q", "true").returncode == 0

            assert living.exists()
            assert len(list(runtime_dir.glob("*-7.seg"))) == (left if left < 256 else 0)

    def test_library_is_mapped_and_other_preloads_are_kept(
        self, emuv_run: Runner, cc: Compiler, libemuv: Path
    ) -> None:
        other = cc("int emuv_test_other = 1;\n", name="other", shared=True)
        done = emuv_run(
            "--sim", "-q", "cat", "/proc/self/maps", env={"LD_PRELOAD": f"{other} {libemuv}"}
        )

        mapped = {line.split()[-1] for line in done.stdout.splitlines() if ".so" in line}
        assert {str(other), str(libemuv)} <= mapped

    def test_environment_is_the_contract(
        self, emuv_run: Runner, libemuv: Path, sim: Path, runtime_dir: Path
    ) -> None:
        done = emuv_run(
            "--sim", "-q", "--vram", "192MiB", "--virtual", "1GiB", "--allocation", "eager",
            "--name", "a job", "env", "-0",
        )  # fmt: skip
        seen = environ_of(done.stdout)

        assert {k: v for k, v in seen.items() if k.startswith(("EMUV_", "LD_"))} == {
            "EMUV_VRAM": str(192 * MIB),
            "EMUV_VIRTUAL": str(1024 * MIB),
            "EMUV_POLICY": "spill",
            "EMUV_ALLOCATION": "eager",
            "EMUV_DRIVER": str(sim),
            "EMUV_NVML": str(sim.parent / "libnvidia-ml.so.1"),
            "EMUV_NAME": "a job",
            "EMUV_RUN": seen["EMUV_RUN"],
            "EMUV_RUNTIME_DIR": str(runtime_dir),
            "EMUV_QUIET": "1",
            "LD_LIBRARY_PATH": f"{libemuv.parent / 'front'}:{sim.parent}",
            "LD_PRELOAD": preloads(libemuv, sim),
        }
        assert int(seen["EMUV_RUN"], 16) >= 0

    def test_device_limits_what_cuda_shows(self, emuv_run: Runner) -> None:
        env = {"EMUV_SIM_DEVICES": "4", "CUDA_VISIBLE_DEVICES": "1,3"}
        done = emuv_run("--sim", "-q", "--device", "1", "env", "-0", env=env)
        beyond = emuv_run("--sim", "--device", "4", "true", env={"EMUV_SIM_DEVICES": "4"})

        assert environ_of(done.stdout)["CUDA_VISIBLE_DEVICES"] == "3"
        assert beyond.returncode == 125

    def test_nested_run_is_one_library_and_the_inner_budget(
        self, emuv_run: Runner, libemuv: Path, sim: Path
    ) -> None:
        inner = [*EMUV_RUN, "-q", "--vram", "64MiB", "--", "env", "-0"]
        done = emuv_run("--sim", "-q", "--vram", "192MiB", "--virtual", "1GiB", "--", *inner)
        seen = environ_of(done.stdout)

        assert seen["LD_PRELOAD"] == preloads(libemuv, sim)
        assert seen["EMUV_VRAM"] == str(64 * MIB)
        assert seen["EMUV_POLICY"] == "spill"

    def test_summary_is_one_line_on_stderr_and_quiet_is_none(self, emuv_run: Runner) -> None:
        options = ["--sim", "--vram", "192MiB", "--virtual", "1GiB"]
        loud = emuv_run(*options, "echo", "a b")
        quiet = emuv_run(*options, "-q", "echo", "a b")

        assert (loud.stdout, quiet.stdout, quiet.stderr) == ("a b\n", "a b\n", "")
        assert loud.stderr == (
            "emuv: echo 'a b': vram 192 MiB, virtual 1024 MiB, policy spill (simulated GPU)\n"
        )

    def test_the_budget_is_in_force(self, emuv_run: Runner, cc: Compiler) -> None:
        shell = build_shell(cc)
        done = emuv_run(
            "--sim", "-q", "--vram", "64MiB", shell, f"a {60 * MIB}", f"a {8 * MIB}", "i"
        )

        assert done.stdout.split("\n")[:4] == ["ready", "0", "2", f"{4 * MIB} {64 * MIB}"]


class TestUsage:
    @pytest.mark.parametrize(
        ("args", "quoted"),
        [
            ([], ""),
            (["--vram"], "--vram"),
            (["--bogus", "true"], "--bogus"),
            (["--vram", "banana", "true"], "banana"),
            (["--vram", "-1", "true"], "-1"),
            (["--vram", "0", "true"], "0"),
            (["--vram", "8GiBx", "true"], "8GiBx"),
            (["--vram", "99999999999999999999", "true"], "99999999999999999999"),
            (["--vram", "1GiB", "--virtual", "none", "true"], "none"),
            (["--policy", "spill", "--vram", "1GiB", "true"], "spill"),
            (["--policy", "cap", "--vram", "1G", "--virtual", "1G", "true"], "cap"),
            (["--policy", "best", "true"], "best"),
            (["--allocation", "sometimes", "true"], "sometimes"),
            (["--device", "x", "true"], "x"),
            (["--device", "-1", "true"], "-1"),
            (["--name", "n" * 64, "true"], "n" * 64),
        ],
    )
    def test_usage_is_2_and_quotes_the_input(
        self, emuv_run: Runner, args: list[str], quoted: str
    ) -> None:
        done = emuv_run("--sim", *args)

        assert done.returncode == 2
        assert done.stdout == ""
        lines = done.stderr.splitlines()
        assert all(line.startswith("emuv: ") for line in lines)
        assert lines[0].startswith("emuv: error: ")
        assert quoted in lines[0]

    def test_usage_comes_before_the_machine(self, emuv_run: Runner) -> None:
        done = emuv_run("--vram", "banana", "no-such-program", env={"EMUV_DRIVER": "/nonexistent"})

        assert done.returncode == 2

    def test_help_and_version_are_data(self, emuv_run: Runner) -> None:
        for option in ("--help", "--version"):
            done = emuv_run(option)
            assert (done.returncode, done.stderr) == (0, "")
            assert done.stdout


class TestRefusals:
    @pytest.mark.parametrize("case", ["vram", "list", "environment"])
    def test_a_size_in_bytes_that_was_hardly_meant_so_is_warned_of(
        self, emuv_run: Runner, case: str
    ) -> None:
        options = {"vram": ["--vram", "8"], "list": ["--vram", "0=8"], "environment": []}[case]
        env = {"EMUV_VRAM": "8"} if case == "environment" else {}
        done = emuv_run("--sim", *options, "sh", "-c", "exit 3", env=env)
        meant = emuv_run("--sim", "--vram", str(64 * MIB), "--virtual", "1K", "true")

        assert done.returncode == 3
        assert "emuv: warning: " in done.stderr and "as in 8G" in done.stderr
        assert "warning" not in meant.stderr

    def test_a_command_line_in_one_word_has_a_hint(self, emuv_run: Runner) -> None:
        for words in ("sh -c true", "/bin/sh -c true"):
            done = emuv_run("--sim", words)
            assert done.returncode == 127
            assert f"it is a command and its arguments: emuv-run -- {words}\n" in done.stderr
        assert "hint" not in emuv_run("--sim", "nothing of this kind").stderr

    def test_missing_program_is_127_and_unusable_126(
        self, emuv_run: Runner, tmp_path: Path
    ) -> None:
        (tmp_path / "text").write_text("echo hello\n")
        (tmp_path / "text").chmod(0o755)
        (tmp_path / "plain").write_text("#!/bin/sh\n")

        assert emuv_run("--sim", "no-such-program-here").returncode == 127
        assert emuv_run("--sim", tmp_path / "nope").returncode == 127
        for path in (tmp_path, tmp_path / "text", tmp_path / "plain"):
            done = emuv_run("--sim", path)
            assert done.returncode == 126
            assert str(path) in done.stderr

    def test_static_and_set_uid_are_125_unless_best_effort(
        self, emuv_run: Runner, tmp_path: Path, cc: Compiler
    ) -> None:
        static = cc("int main(void) { return 9; }\n", flags=["-static"], name="static")
        suid = Path(shutil.copy(cc("int main(void) { return 9; }\n"), tmp_path / "suid"))
        suid.chmod(0o4755)
        for path in (static, suid):
            refused = emuv_run("--sim", path)
            forced = emuv_run("--sim", "-q", "--best-effort", path)

            assert refused.returncode == 125
            assert str(path) in refused.stderr
            assert forced.returncode == 9
            assert "NO budget is in force" in forced.stderr

    def test_vram_beyond_the_card_says_both(self, emuv_run: Runner) -> None:
        done = emuv_run("--sim", "--vram", "257MiB", "true", env={"EMUV_SIM_VRAM": str(256 * MIB)})

        assert done.returncode == 125
        assert "257 MiB" in done.stderr
        assert "256 MiB" in done.stderr

    def test_virtual_beyond_the_host_says_both(self, emuv_run: Runner) -> None:
        done = emuv_run("--sim", "--vram", "1GiB", "--virtual", "900TiB", "true")

        assert done.returncode == 125
        assert f"{900 << 20} MiB" in done.stderr
        assert "the host can back" in done.stderr

    @pytest.mark.skipif(has_gpu(), reason="there is a driver here")
    def test_no_driver_is_125_with_a_hint_and_best_effort_runs_plainly(
        self, emuv_run: Runner
    ) -> None:
        refused = emuv_run("--vram", "1GiB", "true")
        forced = emuv_run("--vram", "1GiB", "--best-effort", "env", "-0")

        assert refused.returncode == 125
        assert "emuv: hint: use --sim" in refused.stderr
        assert forced.returncode == 0
        assert "NO budget is in force" in forced.stderr
        assert "LD_PRELOAD" not in environ_of(forced.stdout)

    def test_driver_that_is_none_is_125(self, emuv_run: Runner, libemuv: Path) -> None:
        for path in ("/nonexistent/libcuda.so.1", "libcuda.so.1", "/etc/passwd", str(libemuv)):
            done = emuv_run("true", env={"EMUV_DRIVER": path})
            assert done.returncode == 125
            assert f'"{path}"' in done.stderr

    @pytest.mark.parametrize("case", ["open", "link", "file"])
    def test_unsafe_runtime_directory_is_125(
        self, emuv_run: Runner, tmp_path: Path, case: str
    ) -> None:
        path = tmp_path / "unsafe"
        if case == "open":
            path.mkdir()
            path.chmod(0o777)
        elif case == "link":
            (tmp_path / "target").mkdir(mode=0o700)
            path.symlink_to(tmp_path / "target")
        else:
            path.write_text("")
        done = emuv_run("--sim", "true", env={"EMUV_RUNTIME_DIR": str(path)})

        assert done.returncode == 125
        assert str(path) in done.stderr

    def test_sim_variables_that_are_no_numbers_are_125(self, emuv_run: Runner) -> None:
        done = emuv_run("--sim", "true", env={"EMUV_SIM_VRAM": "8GiB"})

        assert done.returncode == 125
        assert '"8GiB"' in done.stderr


class TestDryRun:
    def test_prints_what_would_be_done_and_does_nothing(
        self, emuv_run: Runner, clean_env: dict[str, str], tmp_path: Path
    ) -> None:
        mark = tmp_path / "mark"
        options = ["--sim", "--vram", "50%", "--virtual", "1.5x", "--device", "0"]
        dry = emuv_run(*options, "--dry-run", "sh", "-c", f"touch {mark}; env -0")
        assert dry.returncode == 0
        assert not mark.exists()

        # The printed lines are a script that does what emuv-run would have done.
        scripted = environ_of(run(["sh", "-c", dry.stdout], clean_env).stdout)
        real = environ_of(emuv_run(*options, "-q", "sh", "-c", "env -0").stdout)
        for variable in ("EMUV_RUN", "EMUV_QUIET", "_", "PWD", "OLDPWD", "SHLVL"):
            scripted.pop(variable, None)
            real.pop(variable, None)
        assert scripted == real
        assert scripted["EMUV_VIRTUAL"] == str(6 << 30)

    def test_warnings_are_those_of_a_start(self, emuv_run: Runner) -> None:
        done = emuv_run("--sim", "--dry-run", "--vram", "8", "true")

        assert "export EMUV_VRAM=8\n" in done.stdout
        assert "as in 8G" in done.stderr

    def test_checks_are_made_all_the_same(self, emuv_run: Runner) -> None:
        assert emuv_run("--sim", "--dry-run", "no-such-program").returncode == 127
        assert emuv_run("--sim", "--dry-run", "--vram", "9GiB", "true").returncode == 125


class TestStats:
    def test_one_file_for_the_run_and_no_segment_left(
        self, emuv_run: Runner, cc: Compiler, tmp_path: Path, runtime_dir: Path
    ) -> None:
        out = tmp_path / "stats.json"
        out.write_text("old")
        done = emuv_run(
            "--sim", "-q", "--vram", "64MiB", "--name", "job", "--stats", out, build_shell(cc),
            f"a {60 * MIB}", f"a {8 * MIB}", "x", "q 5",
        )  # fmt: skip
        document = json.loads(out.read_text())

        assert done.returncode == 5
        check_schema("stats", document)
        assert document["run"]["exit_code"] == 5
        assert document["run"]["budget_in_force"] is True
        first, child = document["processes"]
        assert first["name"] == child["name"] == "job"
        assert first["run_id"] == child["run_id"] == document["run"]["id"]
        assert first["state"] == child["state"] == "exited"
        assert first["devices"][0]["denials"] == 1
        assert first["devices"][0]["device_bytes"] == 60 * MIB
        assert child["devices"][0]["device_bytes"] == 0
        assert list(runtime_dir.glob("*")) == []
        assert sorted(p.name for p in tmp_path.glob("*.json*")) == ["stats.json"]

    def test_a_program_without_cuda_has_no_processes(
        self, emuv_run: Runner, tmp_path: Path
    ) -> None:
        out = tmp_path / "stats.json"
        emuv_run("--sim", "-q", "--stats", out, "true")

        document = json.loads(out.read_text())
        check_schema("stats", document)
        assert document["processes"] == []

    @pytest.mark.parametrize("name", ["KILL", "SEGV", "TERM", "PIPE"])
    def test_ends_by_the_same_signal_and_says_so(
        self, emuv_run: Runner, tmp_path: Path, name: str
    ) -> None:
        out = tmp_path / "stats.json"
        done = emuv_run("--sim", "-q", "--stats", out, "sh", "-c", f"ulimit -c 0; kill -{name} $$")

        number = getattr(signal, f"SIG{name}")
        assert done.returncode == -number
        assert json.loads(out.read_text())["run"]["signal"] == number
        assert json.loads(out.read_text())["run"]["exit_code"] is None

    def test_a_killed_cuda_program_is_reported_as_ended(
        self, clean_env: dict[str, str], cc: Compiler, tmp_path: Path, runtime_dir: Path
    ) -> None:
        out = tmp_path / "stats.json"
        command = [*EMUV_RUN, "--sim", "-q", "--stats", out, "--", build_shell(cc)]
        with Talking(command, clean_env) as launcher:
            assert launcher.line() == "ready"
            (segment,) = runtime_dir.glob("*.seg")
            pid = int(segment.name.split("-")[0])
            assert pid != launcher.pid
            os.kill(pid, signal.SIGKILL)

            assert launcher.child.wait(30) == -signal.SIGKILL
        (process,) = json.loads(out.read_text())["processes"]
        assert (process["pid"], process["state"]) == (pid, "exited")
        assert list(runtime_dir.glob("*.seg")) == []

    @pytest.mark.parametrize("name", FORWARDED)
    def test_signals_are_forwarded(
        self, clean_env: dict[str, str], libemuv: Path, tmp_path: Path, name: str
    ) -> None:
        number = getattr(signal, f"SIG{name}")
        out = tmp_path / "stats.json"
        command = [*EMUV_RUN, "--sim", "-q", "--stats", out, "--", sys.executable, "-c", WAITER]
        with Talking(command, clean_env) as program:
            assert program.line() == "ready"
            os.kill(program.pid, number)  # the launcher's, which has stayed

            assert program.line() == str(number)
            assert program.end() == number
        assert out.exists()

    def test_ctrl_c_reaches_the_program_once(
        self, clean_env: dict[str, str], libemuv: Path, tmp_path: Path
    ) -> None:
        # GIVEN a terminal, whose key press goes to the whole process group
        script = (
            "import signal as s; s.pthread_sigmask(s.SIG_BLOCK, [s.SIGINT]); "
            "print('ready', flush=True); s.sigtimedwait([s.SIGINT], 20); "
            "print('again' if s.sigtimedwait([s.SIGINT], 0.5) else 'once', flush=True)"
        )
        args = ["--sim", "-q", "--stats", str(tmp_path / "s.json"), "--", sys.executable]
        pid, terminal = pty.fork()
        if pid == 0:
            os.execve(EMUV_RUN[0], [*EMUV_RUN, *args, "-c", script], clean_env)
        attributes = termios.tcgetattr(terminal)
        attributes[3] |= termios.ISIG
        termios.tcsetattr(terminal, termios.TCSANOW, attributes)
        seen = b""
        try:
            # WHEN Ctrl-C is pressed
            while b"ready" not in seen:
                seen += os.read(terminal, 100)
            os.write(terminal, b"\x03")
            # THEN the program gets it from the terminal and not from emuv-run as well
            while b"once" not in seen and b"again" not in seen:
                seen += os.read(terminal, 100)
        finally:
            _, status = os.waitpid(pid, 0)
            os.close(terminal)
        assert b"once" in seen
        assert os.waitstatus_to_exitcode(status) == 0

    def test_in_a_folder_that_is_gone_is_125(
        self, clean_env: dict[str, str], libemuv: Path, tmp_path: Path
    ) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        line = f'rmdir "{gone}" && exec "$@"'
        command = ["sh", "-c", line, "sh", *EMUV_RUN, "--sim", "--stats", "s.json", "true"]
        done = run(command, clean_env, 60, cwd=gone)

        assert done.returncode == 125
        assert 'emuv: error: --stats "s.json" cannot be written: ' in done.stderr

    def test_a_full_device_is_said_in_words(self, emuv_run: Runner) -> None:
        done = emuv_run("--sim", "-q", "--stats", "/dev/full", "sh", "-c", "exit 3")

        assert done.returncode == 3
        assert done.stderr == 'emuv: error: no statistics in "/dev/full": no space left on device\n'

    @pytest.mark.parametrize("case", ["missing folder", "directory", "file as folder"])
    def test_unwritable_file_is_125_before_anything_starts(
        self, emuv_run: Runner, tmp_path: Path, case: str
    ) -> None:
        (tmp_path / "file").write_text("")
        out = {
            "missing folder": tmp_path / "nope" / "s.json",
            "directory": tmp_path,
            "file as folder": tmp_path / "file" / "s.json",
        }[case]
        done = emuv_run("--sim", "--stats", out, "sh", "-c", f"touch {tmp_path}/started")

        assert done.returncode == 125
        assert f'"{out}"' in done.stderr
        assert not (tmp_path / "started").exists()

    def test_no_name_of_a_file_is_125(self, emuv_run: Runner) -> None:
        done = emuv_run("--sim", "--stats", "", "echo", "started")

        assert (done.returncode, done.stdout) == (125, "")
        assert '--stats "" cannot be written' in done.stderr

    def test_a_fifo_is_written_to_and_not_replaced(
        self, clean_env: dict[str, str], libemuv: Path, tmp_path: Path
    ) -> None:
        fifo = tmp_path / "fifo"
        os.mkfifo(fifo)
        child = subprocess.Popen([*EMUV_RUN, "--sim", "-q", "--stats", fifo, "true"], env=clean_env)
        try:
            assert json.loads(run(["cat", fifo], clean_env, 30).stdout)["processes"] == []
            assert child.wait(30) == 0
        finally:
            child.kill()
            child.wait()

    def test_best_effort_without_a_budget_says_so_in_the_file(
        self, emuv_run: Runner, tmp_path: Path
    ) -> None:
        out = tmp_path / "s.json"
        env = {"EMUV_DRIVER": "/nonexistent"}
        done = emuv_run("--best-effort", "--stats", out, "sh", "-c", "exit 4", env=env)

        assert done.returncode == 4
        assert json.loads(out.read_text())["run"]["budget_in_force"] is False


def test_best_effort_does_not_excuse_bad_input(emuv_run: Runner) -> None:
    assert emuv_run("--sim", "--best-effort", "--vram", "x", "true").returncode == 2
    assert emuv_run("--sim", "--best-effort", "no-such-program").returncode == 127


def test_damaged_program_is_126_not_a_traceback(emuv_run: Runner, tmp_path: Path) -> None:
    path = tmp_path / "cut"
    path.write_bytes(struct.pack("<4sBBB9xHHI", b"\x7fELF", 2, 1, 1, 3, 62, 1))
    path.chmod(0o755)
    done = emuv_run("--sim", path)

    assert done.returncode == 126
    assert "Traceback" not in done.stderr
    assert shlex.quote(str(path)) in done.stderr
