# SPDX-License-Identifier: GPL-2.0-only
"""Options and environment in, environment and argv out."""

from __future__ import annotations

import subprocess
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from emuv_shim import _launch
from emuv_shim._launch import BudgetPlan, Machine, Plan, Request
from emuv_shim._sizes import Sizes
from emuv_shim.errors import CommandError

MIB, GIB = 1 << 20, 1 << 30
LIB = "/opt/emuv/_lib/libemuv.so"
FRONT = "/opt/emuv/_lib/front"
REAL = Machine(LIB, "/usr/lib/libcuda.so.1", None, "/run/user/0/emuv", "00ff")
SIM = Machine(LIB, "/opt/emuv/_lib/sim/libcuda.so.1", "/opt/emuv/_lib/sim", "/run/u/emuv", "00ff")


def request(**options: Any) -> Request:
    return Request(command=("prog", "a b"), **options)


def budget(environ: dict[str, str] | None = None, cards: tuple[int, ...] = (), **options: Any):  # type: ignore[no-untyped-def]
    return _launch.plan_budget(request(**options), environ or {}, cards)


def plan(environ: dict[str, str], machine: Machine = REAL, **options: Any) -> Plan:
    made = _launch.plan_budget(request(**options), environ, [8 * GIB, 8 * GIB])
    return _launch.make_plan(request(**options), environ, "/bin/prog", made, machine)


def failure(call: Any, *args: Any, **options: Any) -> CommandError:
    with pytest.raises(CommandError) as caught:
        call(*args, **options)
    return caught.value


class TestBudget:
    def test_nothing_given_is_unlimited_cap_lazy(self) -> None:
        assert budget() == BudgetPlan(Sizes(), None, "cap", "lazy")

    def test_vram_alone_caps(self) -> None:
        assert budget(vram="192MiB") == BudgetPlan(Sizes(192 * MIB), None, "cap", "lazy")

    def test_virtual_spills(self) -> None:
        made = budget(vram="192MiB", virtual="1GiB", allocation="eager")

        assert made == BudgetPlan(Sizes(192 * MIB), Sizes(GIB), "spill", "eager")

    def test_virtual_as_a_multiple_of_vram(self) -> None:
        made = budget(vram="0=2GiB,1=4GiB", virtual="1.5x")

        assert made.virtual is not None
        assert made.virtual.by_device == ((0, 3 * GIB), (1, 6 * GIB))

    def test_percent_is_of_the_card(self) -> None:
        assert budget(cards=(8 * GIB, 8 * GIB), vram="50%").vram == Sizes(4 * GIB)

    @pytest.mark.parametrize("cards", [(), (4 * GIB, 8 * GIB)])
    def test_percent_without_one_card_size_is_usage(self, cards: tuple[int, ...]) -> None:
        error = failure(budget, cards=cards, vram="50%")

        assert error.exit_code == 2
        assert "'50%'" in error.message

    def test_virtual_without_vram_begins_at_the_card(self) -> None:
        assert budget(cards=(8 * GIB,), virtual="1GiB").vram == Sizes(8 * GIB)

    @pytest.mark.parametrize(
        "options", [{"virtual": "1GiB"}, {"virtual": "1GiB", "vram": "none"}, {"virtual": "1.5x"}]
    )
    def test_virtual_with_nothing_to_begin_at_is_usage(self, options: dict[str, str]) -> None:
        assert failure(budget, **options).exit_code == 2

    def test_vram_larger_than_the_card_says_both_figures(self) -> None:
        error = failure(budget, cards=(8 * GIB, 8 * GIB), vram="0=1GiB,1=9GiB")

        assert error.exit_code == 125
        assert "9216 MiB" in error.message
        assert "8192 MiB" in error.message

    @pytest.mark.parametrize("options", [{"vram": "1=1G"}, {"vram": "1G", "virtual": "0=1G,1=1G"}])
    def test_size_of_a_device_that_is_not_there_is_125(self, options: dict[str, str]) -> None:
        error = failure(budget, cards=(8 * GIB,), **options)

        assert error.exit_code == 125
        assert "device 1" in error.message
        budget(cards=(8 * GIB, 8 * GIB), **options)
        budget(**options)  # where the cards are not known, the driver will say

    def test_vram_of_exactly_the_card_is_accepted(self) -> None:
        assert budget(cards=(8 * GIB,), vram="8GiB").vram == Sizes(8 * GIB)

    @pytest.mark.parametrize(
        "text",
        ["0", "-1", "1GB2", "", " ", "8 GiB x", "1e9", "99999999999G", "0=", "0=1G,0=2G", "x"],
    )
    def test_bad_sizes_are_usage_and_quote_the_input(self, text: str) -> None:
        if text:
            error = failure(budget, vram=text)
            assert error.exit_code == 2
            assert error.message.startswith("--vram: ")
        error = failure(budget, {"EMUV_VRAM": text or " "})
        assert error.exit_code == 2
        assert error.message.startswith("EMUV_VRAM: ")

    @pytest.mark.parametrize("text", ["none", "0", "-5"])
    def test_virtual_is_a_size(self, text: str) -> None:
        assert failure(budget, vram="1GiB", virtual=text).exit_code == 2

    def test_empty_flag_is_an_error_not_a_default(self) -> None:
        assert failure(budget, {"EMUV_VRAM": "1GiB"}, vram="").exit_code == 2

    @pytest.mark.parametrize("option", ["policy", "allocation"])
    def test_unknown_words_are_usage(self, option: str) -> None:
        by_flag = failure(budget, **{option: "bogus"})
        by_environ = failure(budget, {f"EMUV_{option.upper()}": "bogus"})

        assert by_flag.exit_code == by_environ.exit_code == 2
        assert f'--{option} "bogus"' in by_flag.message
        assert f'EMUV_{option.upper()} "bogus"' in by_environ.message


class TestPolicyPrecedence:
    def test_spill_without_virtual_is_usage(self) -> None:
        assert failure(budget, vram="1GiB", policy="spill").exit_code == 2
        assert failure(budget, {"EMUV_POLICY": "spill"}, vram="1GiB").exit_code == 2

    def test_cap_with_virtual_on_one_level_is_usage(self) -> None:
        both_flags = failure(budget, vram="1GiB", virtual="1GiB", policy="cap")
        both_variables = failure(
            budget, {"EMUV_VIRTUAL": "1GiB", "EMUV_POLICY": "cap", "EMUV_VRAM": "1GiB"}
        )

        assert both_flags.exit_code == both_variables.exit_code == 2

    def test_flag_cap_drops_the_virtual_of_the_environment(self) -> None:
        made = budget({"EMUV_VIRTUAL": "1GiB"}, vram="1GiB", policy="cap")

        assert (made.policy, made.virtual) == ("cap", None)

    def test_flag_virtual_beats_the_cap_of_the_environment(self) -> None:
        made = budget({"EMUV_POLICY": "cap"}, vram="1GiB", virtual="2GiB")

        assert (made.policy, made.virtual) == ("spill", Sizes(2 * GIB))

    def test_flags_beat_variables(self) -> None:
        environ = {"EMUV_VRAM": "1GiB", "EMUV_VIRTUAL": "1GiB", "EMUV_ALLOCATION": "eager"}
        made = budget(environ, vram="2GiB", virtual="3GiB", allocation="lazy")

        assert made == BudgetPlan(Sizes(2 * GIB), Sizes(3 * GIB), "spill", "lazy")

    def test_variables_alone(self) -> None:
        environ = {"EMUV_VRAM": "0=1GiB", "EMUV_VIRTUAL": "2GiB", "EMUV_ALLOCATION": "eager"}

        assert budget(environ).vram.to_env() == f"0={GIB}"
        assert budget(environ).policy == "spill"
        assert budget(environ).allocation == "eager"

    def test_virtual_zero_as_the_shim_writes_it_is_none(self) -> None:
        assert budget({"EMUV_VIRTUAL": "0", "EMUV_VRAM": "1GiB"}).policy == "cap"


class TestSyntax:
    def test_no_command_is_usage(self) -> None:
        error = failure(_launch.check_syntax, Request(command=()), {})

        assert error.exit_code == 2

    def test_relative_sizes_pass_before_the_machine_is_known(self) -> None:
        _launch.check_syntax(request(vram="50%", virtual="2x"), {})
        _launch.check_syntax(request(virtual="2GiB"), {})
        _launch.check_syntax(request(vram="7TiB"), {})

    @pytest.mark.parametrize("text", ["-1", "32", "x", "1.0", "²", "0x1"])
    def test_device_in_the_environment_is_checked(self, text: str) -> None:
        error = failure(_launch.check_syntax, request(), {"EMUV_DEVICE": text})

        assert error.exit_code == 2
        assert f'"{text}"' in error.message

    @pytest.mark.parametrize("name", ["", "a" * 64, "é" * 32, "a\nb", "\x1b[2J"])
    def test_bad_names_are_usage(self, name: str) -> None:
        assert failure(_launch.check_syntax, request(name=name), {}).exit_code == 2

    def test_name_of_63_bytes_is_accepted(self) -> None:
        assert _launch.program_name(request(name="é" * 31 + "x"), {}) == "é" * 31 + "x"


class TestDevice:
    def test_device_counts_within_what_was_given(self) -> None:
        assert _launch.visible_devices(request(device=1), {}) == "1"
        environ = {"CUDA_VISIBLE_DEVICES": "GPU-4, GPU-abc"}
        assert _launch.visible_devices(request(device=1), environ) == "GPU-abc"
        assert _launch.visible_devices(request(device=1), {"CUDA_VISIBLE_DEVICES": "4,2"}) == "2"
        assert _launch.visible_devices(request(), environ) is None

    def test_device_that_is_not_there(self) -> None:
        beyond = failure(
            _launch.visible_devices, request(device=2), {"CUDA_VISIBLE_DEVICES": "0,1"}
        )
        none = failure(_launch.visible_devices, request(device=0), {"CUDA_VISIBLE_DEVICES": ""})
        of_machine = failure(_launch.visible_devices, request(device=1), {}, 1)
        # An index beyond the machine's cards ends the list: CUDA sees one device.
        environ = {"CUDA_VISIBLE_DEVICES": "0,9"}
        ended = failure(_launch.visible_devices, request(device=1), environ, 1)
        twice = failure(_launch.visible_devices, request(device=0), {"CUDA_VISIBLE_DEVICES": "1,1"})

        assert beyond.exit_code == none.exit_code == of_machine.exit_code == 125
        assert ended.exit_code == twice.exit_code == 125
        assert "0,1" in beyond.message

    def test_size_for_another_device_than_the_one_seen(self) -> None:
        error = failure(budget, vram="0=1GiB,3=2GiB", device=3)

        assert error.exit_code == 2
        assert "device 3" in error.message

    def test_environ_and_plan(self) -> None:
        changes = dict(plan({"EMUV_DEVICE": "1"}, vram="1GiB").changes)

        assert changes["CUDA_VISIBLE_DEVICES"] == "1"
        assert changes["EMUV_DEVICE"] is None


class TestPlan:
    def test_everything_the_shim_reads_is_set(self) -> None:
        environ = {"HOME": "/root", "EMUV_SIM_VRAM": "1"}
        made = plan(environ, vram="192MiB", virtual="1GiB", name="job", quiet=True, keep=True)

        assert made.argv == ("prog", "a b")
        assert made.environ(environ) == {
            "HOME": "/root",
            "EMUV_SIM_VRAM": "1",
            "EMUV_VRAM": str(192 * MIB),
            "EMUV_VIRTUAL": str(GIB),
            "EMUV_POLICY": "spill",
            "EMUV_ALLOCATION": "lazy",
            "EMUV_DRIVER": "/usr/lib/libcuda.so.1",
            "EMUV_NAME": "job",
            "EMUV_RUN": "00ff",
            "EMUV_RUNTIME_DIR": "/run/user/0/emuv",
            "EMUV_KEEP": "1",
            "EMUV_QUIET": "1",
            "LD_LIBRARY_PATH": FRONT,
            "LD_PRELOAD": LIB,
        }

    def test_summary_echoes_mib_and_the_simulated_gpu(self) -> None:
        made = plan({}, SIM, vram="0=1GiB,1=200M", virtual="1x")

        assert made.summary == (
            "prog 'a b': vram 0=1024 MiB, 1=200 MiB, virtual 0=1024 MiB, 1=200 MiB, "
            "policy spill (simulated GPU)"
        )

    def test_leftovers_of_another_run_do_not_reach_the_program(self) -> None:
        environ = {"EMUV_KEEP": "1", "EMUV_RUN": "dead", "EMUV_VIRTUAL": "0"}
        made = plan(environ, vram="1GiB").environ(environ)

        assert made["EMUV_RUN"] == "00ff"
        assert "EMUV_KEEP" not in made
        assert "EMUV_VIRTUAL" not in made

    def test_nested_run_belongs_to_the_outer_one(self) -> None:
        environ = {"EMUV_RUN": "0abc", "EMUV_KEEP": "1", "LD_PRELOAD": f"{LIB}:/x.so"}
        inner = plan(environ, vram="1GiB").environ(environ)
        collecting = plan(environ, vram="1GiB", keep=True).environ(environ)

        assert (inner["EMUV_RUN"], inner["EMUV_KEEP"]) == ("0abc", "1")
        assert (collecting["EMUV_RUN"], collecting["EMUV_KEEP"]) == ("00ff", "1")
        assert inner["LD_PRELOAD"] == f"{LIB}:/x.so"

    def test_own_folders_lead_the_search_path_once_and_without_empty_items(self) -> None:
        own = f"{FRONT}:{SIM.sim_directory}"
        environ = {"LD_LIBRARY_PATH": f"/a::{SIM.sim_directory}:{FRONT}:/b"}

        assert plan({}, SIM).environ({})["LD_LIBRARY_PATH"] == own
        assert plan(environ, SIM).environ(environ)["LD_LIBRARY_PATH"] == f"{own}:/a:/b"
        assert plan(environ).environ(environ)["LD_LIBRARY_PATH"] == (
            f"{FRONT}:/a:{SIM.sim_directory}:/b"
        )

    def test_no_preload_where_it_would_stop_the_program(self) -> None:
        machine = Machine(LIB, REAL.driver, None, "/r", "1", preload=False)

        assert "LD_PRELOAD" not in plan({}, machine).environ({})

    @pytest.mark.parametrize(
        ("environ", "flag", "expected"),
        [
            ({}, True, "/opt/emuv/libemuv-audit.so"),
            ({"EMUV_AUDIT": "1"}, False, "/opt/emuv/libemuv-audit.so"),
            ({"EMUV_AUDIT": "0"}, False, None),
            ({"LD_AUDIT": "/a.so:/b.so"}, True, "/opt/emuv/libemuv-audit.so:/a.so:/b.so"),
            ({"LD_AUDIT": "/old/libemuv-audit.so:/a.so"}, False, "/a.so"),
            ({"LD_AUDIT": "/old/libemuv-audit.so"}, False, None),
            ({"LD_AUDIT": "/old/libemuv-audit.so"}, True, "/opt/emuv/libemuv-audit.so"),
        ],
    )
    def test_auditors(self, environ: dict[str, str], flag: bool, expected: str | None) -> None:
        machine = Machine(
            LIB, REAL.driver, None, "/r", "1", auditor="/opt/emuv/libemuv-audit.so"
        )
        made = plan(environ, machine, audit=flag).environ(environ)

        assert made.get("LD_AUDIT") == expected
        wanted = flag or environ.get("EMUV_AUDIT") == "1"
        assert made.get("EMUV_AUDIT") == ("1" if wanted else None)
        assert LIB in made["LD_PRELOAD"]

    def test_an_audit_that_is_neither_yes_nor_no(self) -> None:
        error = failure(_launch.check_syntax, Request(("true",)), {"EMUV_AUDIT": "please"})

        assert error.exit_code == 2
        assert '"please"' in error.message

    def test_dry_run_is_a_script_that_does_the_same(self) -> None:
        environ = {"PATH": "/usr/bin:/bin", "EMUV_DEVICE": "0", "GONE": "x"}
        weird = Plan(
            "/usr/bin/env",
            ("env",),
            (("A", 'it\'s "$x" \\ \n`b`'), ("GONE", None), ("B", "")),
        )
        script = "\n".join(_launch.dry_run_lines(weird))
        done = subprocess.run(
            ["sh", "-c", script.replace("exec env", "exec env -0")],
            env=environ, capture_output=True, text=True, timeout=20, check=True,
        )  # fmt: skip
        seen = dict(item.split("=", 1) for item in done.stdout.split("\0") if item)

        assert {k: seen.get(k) for k in ("A", "B", "GONE")} == {
            "A": weird.changes[0][1],
            "B": "",
            "GONE": None,
        }


class TestPreload:
    @pytest.mark.parametrize(
        ("existing", "made"),
        [
            (None, LIB),
            ("", LIB),
            ("/x.so", f"{LIB}:/x.so"),
            ("/x.so /y.so:libz.so", f"{LIB}:/x.so:/y.so:libz.so"),
            (LIB, LIB),
            (f"/x.so:{LIB}:/y.so", f"{LIB}:/x.so:/y.so"),
            ("/elsewhere/libemuv.so /x.so", f"{LIB}:/x.so"),
            ("/o/_lib/sim/libcudart.so.13:/x/libcudart.so.13", f"{LIB}:/x/libcudart.so.13"),
        ],
    )
    def test_first_kept_and_never_twice(self, existing: str | None, made: str) -> None:
        assert _launch.preload([LIB], existing) == made

    def test_nvml_comes_behind_emuv_where_the_machine_has_one(self) -> None:
        shown, real = "/opt/emuv/_lib/libemuv-nvml.so", "/usr/lib/libnvidia-ml.so.1"
        machine = replace(REAL, nvml=real, libemuv_nvml=shown)
        outer = plan({"LD_PRELOAD": "/x.so"}, machine).environ({})
        assert outer["LD_PRELOAD"] == f"{LIB}:{shown}:/x.so"
        assert outer["EMUV_NVML"] == real
        # A run inside it on a machine that has none, or of an emuV that was built without.
        for without in (REAL, replace(REAL, libemuv_nvml=shown), replace(REAL, nvml=real)):
            inner = plan(outer, without).environ(outer)
            assert inner["LD_PRELOAD"] == f"{LIB}:/x.so"
            assert "EMUV_NVML" not in inner

    def test_simulated_runtimes_come_behind_emuv_and_leave_with_the_simulator(self) -> None:
        runtimes = ("/s/_lib/sim/libcudart.so.13", "/s/_lib/sim/libcudart.so.12")
        outer = plan({"LD_PRELOAD": "/x.so"}, replace(SIM, runtimes=runtimes)).environ({})
        inner = plan({"LD_PRELOAD": outer["LD_PRELOAD"]}, REAL).environ({})

        assert outer["LD_PRELOAD"] == ":".join([LIB, *runtimes, "/x.so"])
        assert inner["LD_PRELOAD"] == f"{LIB}:/x.so"

    @given(st.lists(st.sampled_from(["/a.so", "b.so", LIB, "/o/libemuv.so"]), max_size=6))
    def test_one_emuv_and_all_others_in_order(self, items: list[str]) -> None:
        made = _launch.preload([LIB], ":".join(items)).split(":")

        assert made[0] == LIB
        assert made[1:] == [item for item in items if not item.endswith("libemuv.so")]


class TestHost:
    def test_virtual_beyond_the_host_says_both_figures(self) -> None:
        made = budget(vram="1GiB", virtual="64GiB")
        error = failure(_launch.check_host, made, 16 * GIB, "memory.max of cgroup /job")

        assert error.exit_code == 125
        assert "65536 MiB" in error.message
        assert "16384 MiB" in error.message
        assert "memory.max of cgroup /job" in error.message

    def test_devices_that_are_named_add_up(self) -> None:
        made = budget(vram="1GiB", virtual="0=9GiB,1=9GiB")

        assert failure(_launch.check_host, made, 16 * GIB).exit_code == 125

    def test_what_fits_and_what_is_unknown_pass(self) -> None:
        _launch.check_host(budget(vram="1GiB", virtual="16GiB"), 16 * GIB)
        _launch.check_host(budget(vram="1GiB", virtual="64GiB"), None)
        _launch.check_host(budget(vram="64GiB"), 1)


class TestDevicesByUuid:
    UUIDS = ("00e34d75-5673-416d-8a1c-0d2f5b9764c8", "00ff0000-5673-416d-8a1c-0d2f5b9764c8")

    def named(self, name: str) -> int:
        return _launch.device_named(name, self.UUIDS, None)

    def test_sizes_name_devices(self) -> None:
        request_ = request(vram="GPU-00FF=2GiB,GPU-00e3=1GiB", virtual="GPU-00ff=50%")
        assert _launch.names_devices(request_, {})
        made = _launch.plan_budget(request_, {}, (8 * GIB, 8 * GIB), self.named)

        assert made.vram.to_env() == f"0={GIB},1={2 * GIB}"
        assert made.virtual is not None and made.virtual.to_env() == f"1={4 * GIB}"

    @pytest.mark.parametrize(("name", "how"), [("GPU-00", "is several"), ("GPU-7", "is none")])
    def test_one_that_is_not_there(self, name: str, how: str) -> None:
        request_ = request(vram=f"{name}=2GiB")
        _launch.check_syntax(request_, {})
        error = failure(_launch.plan_budget, request_, {}, (8 * GIB,), self.named)

        assert error.exit_code == 125
        assert f'"{name}", which {how}' in error.message
        assert error.hint is not None and f"GPU-{self.UUIDS[1]}" in error.hint

    @pytest.mark.parametrize(
        "text", ["GPU-=1G", "GPU-xyz=1G", "gpu-12=1G", "GPU-12=", "GPU-12", "MIG-GPU-12/1/0=1G",
                 "GPU-12=1G,GPU-12=2G", "GPU-12=1G,gpu=2G"],
    )  # fmt: skip
    def test_bad_names_are_usage(self, text: str) -> None:
        assert failure(_launch.check_syntax, request(vram=text), {}).exit_code == 2

    def test_the_same_device_by_two_names_is_usage(self) -> None:
        for text in ("GPU-00e3=1G,0=2G", "GPU-00e3=1G,GPU-00e34=2G"):
            error = failure(
                _launch.plan_budget, request(vram=text), {}, (8 * GIB, 8 * GIB), self.named
            )
            assert error.exit_code == 2
            assert "device 0 is named twice" in error.message

    def test_instances_of_mig(self) -> None:
        whole = f"MIG-{self.UUIDS[0]}"
        old = f"MIG-GPU-{self.UUIDS[0]}/1/0"
        assert _launch.device_named("MIG-00e3", self.UUIDS[:1], whole) == 0
        assert _launch.device_named(old, self.UUIDS[:1], old) == 0
        error = failure(_launch.device_named, old, self.UUIDS[:1], whole)
        assert error.exit_code == 125 and error.hint == f"it sees {whole}"
        made = _launch.plan_budget(
            request(vram=f"{old}=1G"), {}, (), lambda name: _launch.device_named(name, ("x",), old)
        )
        assert made.vram.to_env() == f"0={GIB}"
