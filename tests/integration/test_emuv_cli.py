# SPDX-License-Identifier: GPL-2.0-only
"""The verbs of `emuv`, on real processes under emuv-run and the simulated GPU."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from emuv_shim import _driver
from emuv_shim.commands import _children, demo, doctor
from emuv_shim.errors import CommandError
from tests.conftest import Compiler, Runner, has_gpu, run
from tests.integration.cli_tools import GIB, MIB, Talking, build_shell, check_schema, started


@pytest.fixture
def shell(cc: Compiler, libemuv: Path) -> Path:
    return build_shell(cc)


@pytest.fixture
def program(clean_env: dict[str, str], shell: Path) -> Iterator[Talking]:
    """cuda_shell under a cap of 64 MiB on an 8 GiB card, named "job"."""
    with started(clean_env, shell, "--vram", "64MiB", "--name", "job") as running:
        yield running


def parsed(stdout: str, name: str) -> Any:
    value = json.loads(stdout)
    check_schema(name, value)
    return value


class TestGroup:
    def test_help_version_and_nothing(self, emuv: Runner) -> None:
        assert emuv("--help").returncode == 0
        assert emuv("--version").stdout.startswith("emuv ")
        nothing = emuv()
        assert (nothing.returncode, nothing.stdout) == (2, "")
        for verb in ("ps", "stats", "set", "info", "doctor", "demo", "run"):
            assert emuv(verb, "--help").returncode == 0
            assert f"  {verb} " in nothing.stderr

    def test_unknown_verb_is_usage(self, emuv: Runner) -> None:
        done = emuv("sett")

        assert done.returncode == 2
        assert done.stderr.startswith("emuv: error: ")
        assert "'sett'" in done.stderr

    def test_run_is_emuv_run(self, emuv: Runner, libemuv: Path) -> None:
        assert emuv("run", "--sim", "-q", "--", "sh", "-c", "exit 9").returncode == 9

    def test_unsafe_directory_is_said_by_every_verb(self, emuv: Runner, tmp_path: Path) -> None:
        unsafe = tmp_path / "unsafe"
        unsafe.mkdir()
        unsafe.chmod(0o777)
        for args in (["ps"], ["stats", "1"], ["set", "1", "--vram", "1G"], ["info"]):
            done = emuv(*args, env={"EMUV_RUNTIME_DIR": str(unsafe)})
            assert done.returncode == 1, args
            assert str(unsafe) in done.stderr


class TestPs:
    def test_nothing_runs(self, emuv: Runner) -> None:
        done = emuv("ps")
        assert (done.returncode, done.stdout) == (0, "")
        assert "no process" in done.stderr

        assert parsed(emuv("ps", "--json").stdout, "ps")["processes"] == []

    def test_a_running_program_is_shown(self, emuv: Runner, program: Talking) -> None:
        assert program.ask(f"a {48 * MIB}") == "0"
        assert program.ask(f"a {48 * MIB}") == "2"
        line = next(row for row in emuv("ps").stdout.splitlines() if str(program.pid) in row)
        listing = parsed(emuv("ps", "--json").stdout, "ps")

        assert line.split()[:8] == [
            str(program.pid), "job", "0", "(sim)", "64", "MiB", "cap", "48",
        ]  # fmt: skip
        (process,) = listing["processes"]
        assert process["pid"] == program.pid
        assert process["stats"]["devices"][0]["denials"] == 1

    def test_segment_of_a_killed_process_is_removed_and_said(
        self, emuv: Runner, program: Talking, runtime_dir: Path
    ) -> None:
        os.kill(program.pid, signal.SIGKILL)
        program.child.wait(10)
        (segment,) = runtime_dir.glob("*.seg")

        done = emuv("ps", "--json")
        assert done.returncode == 0
        assert "removed 1 stale segment" in done.stderr
        assert parsed(done.stdout, "ps")["removed"] == [str(segment)]
        assert list(runtime_dir.glob("*.seg")) == []

    def test_damaged_segment_is_a_warning(
        self, emuv: Runner, program: Talking, runtime_dir: Path
    ) -> None:
        bad = runtime_dir / "1-2.seg"
        bad.write_bytes(b"\0" * 100)
        bad.chmod(0o600)
        done = emuv("ps")

        assert done.returncode == 0
        assert str(program.pid) in done.stdout
        assert f"emuv: warning: '{bad}' has 100 bytes" in done.stderr

    def test_many_files_that_are_none_are_a_few_warnings(
        self, emuv: Runner, runtime_dir: Path
    ) -> None:
        for number in range(30):
            (runtime_dir / f"junk{number}").touch()
        done = emuv("ps")

        assert done.stderr.count("is not named as a segment") == 10
        assert f"emuv: warning: 20 more files in {runtime_dir} are no segments" in done.stderr

    def test_text_of_a_stranger_does_not_reach_the_terminal(
        self, emuv: Runner, clean_env: dict[str, str], shell: Path
    ) -> None:
        evil = shell.parent / "evil\x1b[2J[bold]x"
        evil.symlink_to(shell)
        with started(clean_env, evil) as running:
            done = emuv("ps")

            assert str(running.pid) in done.stdout
            assert "\x1b" not in done.stdout
            assert "[bold]" in done.stdout


class TestStats:
    def test_of_a_process(self, emuv: Runner, program: Talking) -> None:
        program.ask(f"a {48 * MIB}")
        text = emuv("stats", str(program.pid)).stdout
        value = parsed(emuv("stats", str(program.pid), "--json").stdout, "stats")

        assert "cuMemAlloc_v2" in text
        device = value["devices"][0]
        assert device["device_bytes"] == 48 * MIB
        assert device["free_bytes"] == 16 * MIB
        assert device["calls"]["cuMemAlloc_v2"] == 1

    def test_of_a_file(self, emuv: Runner, emuv_run: Runner, shell: Path, tmp_path: Path) -> None:
        out = tmp_path / "123"
        emuv_run("--sim", "-q", "--vram", "64MiB", "--stats", out, shell, f"a {128 * MIB}")
        text = emuv("stats", str(out))
        value = parsed(emuv("stats", str(out), "--json").stdout, "stats")

        assert "1 (128 MiB)" in text.stdout
        assert value["processes"][0]["devices"][0]["denied_bytes"] == 128 * MIB
        assert value["run"] == json.loads(out.read_text())["run"]
        assert text.stdout.startswith(f"run: {shell} 'a {128 * MIB}': ended with 0 after ")

    def test_of_a_run_that_was_killed(
        self, emuv: Runner, emuv_run: Runner, tmp_path: Path, libemuv: Path
    ) -> None:
        out = tmp_path / "s.json"
        emuv_run("--sim", "-q", "--stats", out, "sh", "-c", "kill -9 $$")

        first, second = emuv("stats", str(out)).stdout.splitlines()
        assert first.startswith("run: sh -c 'kill -9 $$': killed by SIGKILL after ")
        assert second == "no process of the run used CUDA"
        out.write_text('{"schema": 1, "processes": [], "run": {"command": []}}')
        assert "'wall_s'" in emuv("stats", str(out)).stderr

    @pytest.mark.parametrize(
        "content",
        ["", "{", "[]", '{"schema": 2, "processes": []}', '{"schema": 1, "processes": [{}]}', "\0"],
    )
    def test_file_that_is_none(self, emuv: Runner, tmp_path: Path, content: str) -> None:
        path = tmp_path / "bad.json"
        path.write_text(content)
        done = emuv("stats", str(path))

        assert done.returncode == 1
        assert done.stderr.startswith("emuv: error: ")
        assert "Traceback" not in done.stderr

    @pytest.mark.parametrize("target", ["/nonexistent.json", ".", "x", "999999999", "0"])
    def test_target_that_is_not_there(self, emuv: Runner, target: str) -> None:
        done = emuv("stats", target)

        assert done.returncode == 1
        assert target in done.stderr

    def test_process_without_a_segment(self, emuv: Runner) -> None:
        done = emuv("stats", str(os.getpid()))

        assert done.returncode == 1
        assert "not started by emuv-run" in done.stderr


class TestSet:
    def test_raised_budget_takes_effect_at_the_next_allocation(
        self, emuv: Runner, program: Talking
    ) -> None:
        assert program.ask(f"a {96 * MIB}") == "2"
        done = emuv("set", str(program.pid), "--vram", "128MiB")

        assert done.returncode == 0
        assert "vram 64 MiB, cap → vram 128 MiB, cap" in done.stdout
        assert program.ask(f"a {96 * MIB}") == "0"
        assert program.ask("i") == f"{32 * MIB} {128 * MIB}"

    def test_lowered_budget_says_what_stays(self, emuv: Runner, program: Talking) -> None:
        program.ask(f"a {60 * MIB}")
        done = emuv("set", str(program.pid), "--vram", "20MiB")
        value = parsed(emuv("set", str(program.pid), "--vram", "20MiB", "--json").stdout, "set")

        assert done.returncode == 0
        assert "40 MiB above the new vram" in done.stdout
        assert value["devices"][0]["unreclaimed_bytes"] == 40 * MIB
        assert value["fits"] is False
        assert program.ask("a 1") == "2"
        assert program.ask("f") == "0"
        assert program.ask("a 1") == "0"

    def test_virtual_makes_it_spill_and_cap_drops_it(self, emuv: Runner, program: Talking) -> None:
        pid = str(program.pid)
        emuv("set", pid, "--virtual", "1x")
        assert program.ask(f"a {100 * MIB}") == "0"
        capped = emuv("set", pid, "--policy", "cap")

        assert capped.returncode == 0
        assert program.ask(f"a {100 * MIB}") == "2"
        value = parsed(emuv("stats", pid, "--json").stdout, "stats")
        assert value["policy"] == "cap"
        assert value["devices"][0]["managed_bytes"] == 100 * MIB

    def test_wait_ends_when_it_fits(self, emuv: Runner, program: Talking) -> None:
        program.ask("a 1")
        # "i" is no allocation; whether it takes the change up is the process's affair, an
        # allocation surely does. Nothing is held above 32 MiB, so only that is waited for.
        done = emuv("set", str(program.pid), "--vram", "32MiB", "--wait", "0.2")
        assert done.returncode == 1
        assert "from its next allocation" in done.stdout

        program.ask("a 1")
        again = emuv("set", str(program.pid), "--vram", "32MiB", "--wait", "0.2", "--json")
        assert parsed(again.stdout, "set")["waited_s"] >= 0.2

    def test_wait_sees_the_change_taken_up(self, emuv: Runner, program: Talking) -> None:
        # Two threads would do; here the program allocates while emuv set waits.
        import threading

        stop = threading.Event()

        def churn() -> None:
            while not stop.is_set():
                program.ask("a 1")
                program.ask("f")
                stop.wait(0.05)

        worker = threading.Thread(target=churn)
        worker.start()
        try:
            done = emuv("set", str(program.pid), "--vram", "32MiB", "--wait", "20", "--json")
        finally:
            stop.set()
            worker.join(30)
        value = parsed(done.stdout, "set")

        assert done.returncode == 0
        assert (value["applied"], value["fits"]) == (True, True)
        assert value["waited_s"] < 20

    @pytest.mark.parametrize(
        ("args", "code", "quoted"),
        [
            ([], 2, "nothing to set"),
            (["--vram", "banana"], 2, "banana"),
            (["--vram", "0"], 2, "0"),
            (["--policy", "spill"], 2, "spill"),
            (["--policy", "cap", "--virtual", "1GiB"], 2, "cap"),
            (["--policy", "bogus"], 2, "bogus"),
            (["--wait", "-1", "--vram", "1G"], 2, "-1"),
            (["--wait", "nan", "--vram", "1G"], 2, "nan"),
            (["--vram", "9GiB"], 1, "9216 MiB"),
            (["--virtual", "900TiB"], 1, str(900 << 20)),
            (["--vram", "1G", "--device", "7"], 1, "7"),
        ],
    )
    def test_bad_input_changes_nothing(
        self, emuv: Runner, program: Talking, args: list[str], code: int, quoted: str
    ) -> None:
        done = emuv("set", str(program.pid), *args)

        assert done.returncode == code, done.stderr
        assert quoted in done.stderr
        assert "Traceback" not in done.stderr
        assert program.ask(f"a {96 * MIB}") == "2"
        assert program.ask(f"a {60 * MIB}") == "0"

    @pytest.mark.parametrize("pid", ["0", "-1", "x", "99999999999", "2147483648", "٣"])
    def test_pid_that_is_none_is_usage(self, emuv: Runner, pid: str) -> None:
        for args in (["set", "--vram", "1G", "--", pid], ["doctor", "--", pid]):
            done = emuv(*args)
            if args[0] == "set" and pid == "x":  # it might be a run's name
                assert done.returncode == 1
                assert "no run 'x'" in done.stderr
                continue
            assert done.returncode == 2
            assert f'"{pid}" is no process id' in done.stderr

    def test_wait_that_is_over_says_why(self, emuv: Runner, program: Talking) -> None:
        pid = str(program.pid)
        done = emuv("set", pid, "--vram", "32MiB", "--wait", "0.1")

        assert done.returncode == 1
        assert "emuv: warning: 0.1 s are over and it is not in force" in done.stderr

    def test_no_name_is_not_the_name_of_the_nameless(
        self, emuv: Runner, clean_env: dict[str, str], shell: Path
    ) -> None:
        # As a variable that is not set gives: emuv set "$JOB" --vram 1MiB
        with started(clean_env, shell, "--vram", "64MiB") as nameless:
            assert nameless.ask(f"a {MIB}") == "0"
            for args in (["set", "", "--vram", "1MiB"], ["stats", ""]):
                done = emuv(*args)
                assert (done.returncode, done.stdout) == (1, "")
                assert done.stderr.startswith("emuv: error: ")
            assert nameless.ask(f"a {32 * MIB}") == "0"

    def test_process_that_is_not_ours(self, emuv: Runner) -> None:
        done = emuv("set", str(os.getpid()), "--vram", "1G")

        assert done.returncode == 1
        assert str(os.getpid()) in done.stderr


class TestInfo:
    def test_simulated_card_and_a_process(self, emuv: Runner, program: Talking) -> None:
        program.ask(f"a {48 * MIB}")
        text = emuv("info", "--sim")
        value = parsed(emuv("info", "--sim", "--json").stdout, "info")

        assert text.returncode == 0
        assert "8192 MiB" in text.stdout
        assert value["driver"]["simulated"] is True
        assert value["driver"]["version"] == 13000
        assert value["devices"][0]["total_bytes"] == 8 * GIB
        assert value["host"]["available_bytes"] > 0
        (row,) = value["processes"]
        assert (row["pid"], row["on_device_bytes"]) == (program.pid, 48 * MIB)

    @pytest.mark.skipif(has_gpu(), reason="there is a driver here")
    def test_no_driver_is_said_and_is_no_failure(self, emuv: Runner) -> None:
        done = emuv("info", "--json")
        value = parsed(done.stdout, "info")

        assert done.returncode == 0
        assert value["driver"] is None
        assert "no NVIDIA driver" in value["problem"]


class TestDoctor:
    def test_all_well_on_the_simulated_gpu(
        self, emuv: Runner, libemuv: Path, runtime_dir: Path
    ) -> None:
        done = emuv("doctor", "--sim", "--json")
        value = parsed(done.stdout, "doctor")

        assert (done.returncode, value["exit_code"]) == (0, 0)
        assert [(row["ok"], row["granted_code"], row["refused_code"]) for row in value["routes"]]
        assert all(
            (row["ok"], row["granted_code"], row["refused_code"]) == (True, 0, 2)
            for row in value["routes"]
        )
        assert len(value["routes"]) == 3
        assert "all well" in emuv("doctor", "--sim").stdout
        assert list(runtime_dir.iterdir()) == []

    def test_why_nothing_is_counted(self, libemuv: Path, clean_env: dict[str, str]) -> None:
        limited = ["sh", "-c", 'ulimit -f 4; exec "$@"', "sh"]  # less than a segment
        command = [*limited, sys.executable, "-m", "emuv_shim", "doctor", "--sim"]
        done = run(command, clean_env)

        assert done.returncode == 1
        (line,) = (row for row in done.stdout.splitlines() if "probe count" in row)
        assert "0 of 3 refusals" in line
        assert "cannot be made: File too large" in line

    def test_a_simulated_card_that_cannot_be_is_said_in_words(self, emuv: Runner) -> None:
        done = emuv("doctor", "--sim", env={"EMUV_SIM_VRAM": "8G"})

        assert done.returncode == 1
        assert 'driver: EMUV_SIM_VRAM="8G": not a whole number' in done.stdout

    def test_small_card(self, emuv: Runner, libemuv: Path) -> None:
        assert emuv("doctor", "--sim", env={"EMUV_SIM_VRAM": str(32 * MIB)}).returncode == 0

    @pytest.mark.skipif(has_gpu(), reason="there is a driver here")
    def test_no_gpu_is_3(self, emuv: Runner, libemuv: Path) -> None:
        done = emuv("doctor", "--json")

        assert done.returncode == 3
        assert parsed(done.stdout, "doctor")["exit_code"] == 3

    def test_a_driver_that_shows_no_device_is_3(self, emuv: Runner, libemuv: Path) -> None:
        done = emuv("doctor", "--sim", env={"CUDA_VISIBLE_DEVICES": ""})

        assert done.returncode == 3

    def test_driver_of_the_environment_is_examined(
        self, emuv: Runner, emuv_run: Runner, libemuv: Path, sim: Path
    ) -> None:
        given = emuv("doctor", "--json", env={"EMUV_DRIVER": str(sim)})
        wrong = emuv("doctor", env={"EMUV_DRIVER": "/nonexistent/libcuda.so.1"})

        assert given.returncode == 0
        assert any(str(sim) in row["detail"] for row in json.loads(given.stdout)["checks"])
        assert wrong.returncode == 3
        assert "/nonexistent/libcuda.so.1" in wrong.stdout

    def test_within_another_run(self, emuv_run: Runner, libemuv: Path) -> None:
        verb = [sys.executable, "-m", "emuv_shim", "doctor", "--sim"]
        done = emuv_run("--sim", "-q", "--vram", "8MiB", "--", *verb)

        assert done.returncode == 0, done.stdout

    def test_escape_is_found(
        self, monkeypatch: pytest.MonkeyPatch, runtime_dir: Path, libemuv: Path, sim: Path
    ) -> None:
        # GIVEN a start that forgets the interposer
        monkeypatch.setenv("EMUV_RUNTIME_DIR", str(runtime_dir))
        bare = ["env", f"LD_LIBRARY_PATH={sim.parent}", f"EMUV_DRIVER={sim}"]
        monkeypatch.setattr(_children, "emuv_run", lambda *_: bare)
        done = CliRunner().invoke(doctor.command, ["--sim", "--json"], standalone_mode=False)
        value = parsed(done.stdout, "doctor")

        # THEN every route is reported
        assert done.return_value == 1
        problems = {row["check"] for row in value["checks"] if row["status"] == "problem"}
        assert problems == {
            "probe by soname",
            "probe by absolute path",
            "probe by cuGetProcAddress",
            "probe count",
        }
        assert any("GRANTED" in row["detail"] for row in value["checks"])

    def test_missing_library_is_a_problem(
        self, monkeypatch: pytest.MonkeyPatch, runtime_dir: Path, tmp_path: Path
    ) -> None:
        monkeypatch.setenv("EMUV_RUNTIME_DIR", str(runtime_dir))
        monkeypatch.setattr(_driver, "libemuv_path", lambda: str(tmp_path / "libemuv.so"))
        done = CliRunner().invoke(doctor.command, ["--sim", "--json"], standalone_mode=False)

        assert done.return_value == 1
        assert parsed(done.stdout, "doctor")["routes"] == []

    def test_of_a_process_that_is_held(self, emuv: Runner, program: Talking) -> None:
        done = emuv("doctor", str(program.pid), "--json")
        value = parsed(done.stdout, "doctor")

        assert done.returncode == 0
        assert value["pid"] == program.pid
        assert "interposer" in {row["check"] for row in value["checks"]}

    def test_of_a_process_that_is_not(self, emuv: Runner, libemuv: Path) -> None:
        done = emuv("doctor", str(os.getpid()))
        assert done.returncode == 1
        assert "WITHOUT a budget" in done.stdout

        gone = emuv("doctor", "2147483647")
        assert gone.returncode == 1
        assert "no process 2147483647" in gone.stdout


@pytest.mark.slow
@pytest.mark.timeout(150)
class TestDemo:
    def test_everything_comes_out_as_told(
        self, emuv: Runner, libemuv: Path, runtime_dir: Path
    ) -> None:
        done = emuv("demo", "--sim", "--json", timeout=120)
        value = parsed(done.stdout, "demo")

        assert (done.returncode, value["ok"]) == (0, True), done.stdout
        assert "simulated GPU of 256 MiB" in done.stderr
        assert value["data_bytes"] > value["card_bytes"] == 256 * MIB
        assert len(value["steps"]) == 7
        plain, spill, cap, compute, grown, raised, lowered = value["steps"]
        assert plain["outcome"] == "out of memory"
        assert spill["facts"]["sha256 sent"] == spill["facts"]["sha256 received"]
        assert spill["on_device_bytes"] <= 192 * MIB
        assert spill["on_device_bytes"] + spill["on_host_bytes"] >= value["data_bytes"]
        for step in (spill, cap):  # the card's own account, which knows of no budget
            assert 0 < step["facts"]["card_peak_bytes"] <= 192 * MIB
        assert cap["facts"]["denials"] > 0
        assert compute["facts"]["equal to NumPy"] == "True"
        assert compute["on_device_bytes"] <= 6 * MIB <= int(compute["facts"]["bytes"]) / 4
        held = [step["on_device_bytes"] for step in (grown, raised, lowered)]
        assert held == [192 * MIB, 240 * MIB, 240 * MIB]
        assert lowered["facts"]["set"]["devices"][0]["unreclaimed_bytes"] == 48 * MIB
        assert list(runtime_dir.iterdir()) == []
        assert value["wall_s"] < 60

    def test_what_is_missing_is_said_with_what_helps(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Nothing of it is on a package index under emuV's name.
        monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
        with pytest.raises(CommandError) as caught:
            demo.make_setting(True, str(tmp_path))
        assert "numba-cuda" in caught.value.message
        assert "pip install '.[demo]'" in (caught.value.hint or "")
        monkeypatch.setattr(_driver, "__file__", str(tmp_path / "emuv_shim" / "_driver.py"))
        with pytest.raises(CommandError, match="the demo's programs are not installed here"):
            demo.make_setting(True, str(tmp_path))

    def test_what_did_not_come_out_is_a_failure(
        self, emuv: Runner, libemuv: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # GIVEN a driver that refuses the first allocation
        env = {"EMUV_SIM_FAIL": "cuMemAlloc_v2:1:1"}
        done = emuv("demo", "--sim", env=env, timeout=120)

        assert done.returncode == 1
        assert "not everything came out as told" in done.stderr
        assert "✘" in done.stdout
