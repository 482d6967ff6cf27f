# SPDX-License-Identifier: GPL-2.0-only
"""What a process can do only once: cuInit, fork, the environment, the report at exit."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from ctypes import byref, c_int, c_uint64
from pathlib import Path

import pytest
from cuda_driver import (
    INVALID_VALUE,
    NO_DEVICE,
    NOT_FOUND,
    NOT_INITIALIZED,
    OUT_OF_MEMORY,
    SUCCESS,
    Driver,
    SimTable,
)

Script = Callable[..., str]
MIB = 1 << 20

START = """
driver.cuInit(0)
context = driver.new("cuDevicePrimaryCtxRetain", 0)
driver.cuCtxSetCurrent(context)
"""
# Says what cuInit answers in a child, through its exit status.
FORK = """
def child():
    pid = os.fork()
    if pid == 0:
        os._exit(driver.code("cuInit", 0))
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def test_before_cuinit(script: Script) -> None:
    out = script(
        """
        print(driver.code("cuDeviceGetCount", byref(c_int())))
        print(driver.code("cuCtxGetCurrent", byref(c_void_p())))
        print(driver.code("cuMemAlloc_v2", byref(c_uint64()), 1))
        print(driver.get(c_int, "cuDriverGetVersion") > 10000, driver.error_name(3))
        print(driver.code("cuInit", 7))
        """
    )
    assert out.split() == [
        *[str(NOT_INITIALIZED)] * 3,
        "True",
        "CUDA_ERROR_NOT_INITIALIZED",
        str(INVALID_VALUE),
    ]


def test_fork_before_cuinit_is_fine(script: Script) -> None:
    text = FORK + 'print(child()); driver.cuInit(0); print(driver.get(c_int, "cuDeviceGetCount"))'
    assert script(text).split()[0] == str(SUCCESS)


def test_fork_after_a_call_that_needs_no_cuinit_is_fine(script: Script) -> None:
    assert script(FORK + 'driver.get(c_int, "cuDriverGetVersion"); print(child())') == "0"


def test_fork_after_cuinit_ends_cuda_in_the_child(script: Script) -> None:
    out = script(
        START
        + FORK
        + """
pointer = driver.new("cuMemAlloc_v2", 64)
driver.upload(pointer, b"abc")
print(child())
print(driver.download(pointer, 3))
"""
    )
    assert out.split() == [str(NOT_INITIALIZED), "b'abc'"]


def test_the_childs_other_calls_fail_too(script: Script) -> None:
    out = script(
        START
        + """
pid = os.fork()
if pid == 0:
    codes = {driver.code("cuCtxGetDevice", byref(c_int())), driver.code("cuCtxSynchronize")}
    os._exit(codes.pop() if len(codes) == 1 else 99)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""
    )
    assert out == str(NOT_INITIALIZED)


def test_threads_may_initialise_at_once(script: Script) -> None:
    out = script(
        """
        codes = []
        def work():
            code = driver.code("cuInit", 0)
            codes.append((code, driver.code("cuDeviceGetCount", byref(c_int()))))
        threads = [threading.Thread(target=work) for _ in range(8)]
        for t in threads: t.start()
        for t in threads: t.join()
        print(set(codes))
        """
    )
    assert out == "{(0, 0)}"


# ---- CUDA_VISIBLE_DEVICES, with three simulated cards ----


def visible(script: Script, value: str | None) -> str:
    """The UUID prefixes of the devices that a program sees, or cuInit's code."""
    env = {"EMUV_SIM_DEVICES": "3", "EMUV_SIM_VRAM": str(64 * MIB)}
    if value is not None:
        env["CUDA_VISIBLE_DEVICES"] = value
    return script(
        """
        code = driver.code("cuInit", 0)
        if code:
            print(code)
        else:
            count = driver.get(c_int, "cuDeviceGetCount")
            uuids = [driver.get(Uuid, "cuDeviceGetUuid_v2", i).bytes for i in range(count)]
            print(",".join(f"{uuid[0]:02x}" for uuid in uuids))
        """,
        **env,
    )


@pytest.mark.parametrize(
    ("value", "seen"),
    [
        (None, "00,11,22"),
        ("0,1,2", "00,11,22"),
        ("2,0", "22,00"),
        (" 1 , 2", "11,22"),
        ("1", "11"),
        ("1,7,0", "11"),  # the first that is none ends the list
        ("0,-1,2", "00"),
        ("0,x", "00"),
        ("1gpu,2", "11,22"),
        ("GPU-22", "22"),
        ("GPU-11e34d75,GPU-00", "11,00"),
        ("gpu-22", str(NO_DEVICE)),
        ("GPU-22,0", "22"),
        ("GPU-", str(NO_DEVICE)),  # ambiguous
        ("GPU-ff", str(NO_DEVICE)),
        ("", str(NO_DEVICE)),
        ("-1", str(NO_DEVICE)),
        ("0,0", str(NO_DEVICE)),
        ("NoDevFiles", str(NO_DEVICE)),
        ("0,GPU-22", "00"),
        ("GPU-22,GPU-22e3", str(NO_DEVICE)),  # twice, by two names
        # instances of cards, of which these have none
        ("MIG-22e34d75-5673-416d-8a1c-0d2f5b9764c8", str(NO_DEVICE)),
        ("MIG-GPU-22e34d75-5673-416d-8a1c-0d2f5b9764c8/1/0", str(NO_DEVICE)),
        ("0,MIG-22e34d75-5673-416d-8a1c-0d2f5b9764c8", "00"),
    ],
)
def test_visible_devices(
    script: Script, sim_table: SimTable, value: str | None, seen: str
) -> None:
    assert visible(script, value) == seen


def test_a_card_keeps_its_identity(script: Script, sim_table: SimTable) -> None:
    out = script(
        """
        driver.cuInit(0)
        text = create_string_buffer(20)
        driver.cuDeviceGetPCIBusId(text, 20, 0)
        print(text.value.decode(), driver.get(c_int, "cuDeviceGetByPCIBusId", text.value))
        """,
        EMUV_SIM_DEVICES="3",
        CUDA_VISIBLE_DEVICES="2",
    )
    assert out == "0000:03:00.0 0"


# ---- the simulated GPU's environment ----


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMUV_SIM_VRAM", "8G"),
        ("EMUV_SIM_VRAM", "-1"),
        ("EMUV_SIM_VRAM", ""),
        ("EMUV_SIM_VRAM", "0"),
        ("EMUV_SIM_VRAM", "99999999999999999999999"),
        ("EMUV_SIM_DEVICES", "0"),
        ("EMUV_SIM_DEVICES", "17"),
        ("EMUV_SIM_DEVICES", "two"),
        ("EMUV_SIM_CONTEXT", "1.5"),
        ("EMUV_SIM_WAIT_MS", "soon"),
        ("EMUV_SIM_END_MS", "0"),
        ("EMUV_SIM_FAIL", "cuMemAlloc_v2"),
        ("EMUV_SIM_FAIL", "cuMemAlloc_v2:0:2"),
        ("EMUV_SIM_FAIL", "cuMemAlloc_v2:1:0"),
        ("EMUV_SIM_FAIL", "cuNothing:1:2"),
    ],
)
def test_bad_settings_fail_cuinit_in_words(
    script: Script, sim_table: SimTable, name: str, value: str
) -> None:
    out = script('print(driver.code("cuInit", 0))', **{name: value})
    assert out == str(INVALID_VALUE)
    (line,) = out.stderr.splitlines()  # type: ignore[attr-defined]
    assert line.startswith(f'emuv-sim: error: {name}="')
    assert value.partition(":")[0] in line


def test_the_card_and_what_a_context_takes(script: Script, sim_table: SimTable) -> None:
    out = script(
        """
        driver.cuInit(0)
        def used():
            value = c_uint64()
            driver.sim().device_used(0, byref(value))
            return value.value >> 20
        print(used())
        context = driver.new("cuDevicePrimaryCtxRetain", 0)
        driver.cuCtxSetCurrent(context)
        taken = c_uint64()
        driver.sim().context_bytes(0, byref(taken))
        print(used(), taken.value >> 20)
        free, total = driver.memory_info()
        print(free >> 20, total >> 20)
        print(driver.code("cuMemAlloc_v2", byref(c_uint64()), 61 << 20))
        driver.cuMemFree_v2(driver.new("cuMemAlloc_v2", 60 << 20))
        print(driver.code("cuCtxCreate_v2", byref(c_void_p()), 0, 0))
        driver.cuMemAlloc_v2(byref(c_uint64()), 54 << 20)
        print(driver.code("cuCtxCreate_v2", byref(c_void_p()), 0, 0))
        driver.cuDevicePrimaryCtxReset_v2(0)
        driver.sim().context_bytes(0, byref(taken))
        print(used(), taken.value >> 20)
        """,
        EMUV_SIM_VRAM=str(64 * MIB),
        EMUV_SIM_CONTEXT=str(4 * MIB),
    )
    words = [word for line in out.splitlines() for word in line.split()]
    assert words == [
        *("0", "4", "4", "60", "64"),
        str(OUT_OF_MEMORY),
        "0",
        str(OUT_OF_MEMORY),
        *("58", "4"),
    ]


def test_a_context_larger_than_the_card(script: Script, sim_table: SimTable) -> None:
    out = script(
        """
        driver.cuInit(0)
        for call in (("cuDevicePrimaryCtxRetain", 0), ("cuCtxCreate_v2", 0, 0)):
            print(driver.code(call[0], byref(c_void_p()), *call[1:]))
        """,
        EMUV_SIM_VRAM=str(64 * MIB),
        EMUV_SIM_CONTEXT=str(65 * MIB),
    )
    assert out.split() == [str(OUT_OF_MEMORY)] * 2


def test_faults_by_environment(script: Script, sim_table: SimTable) -> None:
    out = script(
        START
        + """
codes = [driver.code("cuMemAlloc_v2", byref(c_uint64()), 64) for _ in range(5)]
print(codes, driver.code("cuEventQuery", None))
""",
        EMUV_SIM_FAIL="cuMemAlloc_v2:2:2,cuMemAlloc_v2:4:46,cuEventQuery:1:999",
    )
    assert out == "[0, 2, 0, 46, 0] 999"


def test_faults_of_cuinit(script: Script, sim_table: SimTable) -> None:
    text = 'print([driver.code("cuInit", 0) for _ in range(3)])'
    assert script(text, EMUV_SIM_FAIL="cuInit:1:802") == "[802, 0, 0]"


def test_faults_by_the_table(driver: Driver, context: int, sim_table: SimTable) -> None:
    def codes(count: int) -> list[int]:
        return [driver.code("cuCtxGetDevice", byref(c_int())) for _ in range(count)]

    assert sim_table.fail(b"cuCtxGetDevice", 2, 700) == SUCCESS
    assert sim_table.fail(b"cuCtxGetDevice", 3, 2) == SUCCESS
    assert codes(5) == [0, 700, 2, 0, 0]
    assert sim_table.fail(b"cuNothing", 1, 2) == NOT_FOUND
    assert sim_table.fail(b"cuCtxGetDevice", 1, 0) == INVALID_VALUE
    assert codes(2) == [0, 0]
    # What has not struck is taken back, and nothing of other functions.
    assert sim_table.fail(b"cuCtxGetDevice", 1, 700) == SUCCESS
    assert sim_table.fail(b"cuDriverGetVersion", 1, 2) == SUCCESS
    assert sim_table.fail(b"cuCtxGetDevice", 0, 0) == SUCCESS
    assert codes(2) == [0, 0]
    assert driver.code("cuDriverGetVersion", byref(c_int())) == 2


def test_calls_are_counted(driver: Driver, context: int, sim_table: SimTable) -> None:
    def count() -> int:
        value = c_uint64()
        assert sim_table.calls(b"cuCtxGetDevice", byref(value)) == SUCCESS
        return value.value

    before = count()
    for _ in range(1000):
        driver.get(c_int, "cuCtxGetDevice")
    assert count() == before + 1000


def test_a_report_to_what_is_no_file(script: Script, sim_table: SimTable, tmp_path: Path) -> None:
    """Written to as it is: a rename would put a file where the device or the pipe was."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    script(START, EMUV_SIM_REPORT=str(pipe))
    assert json.loads(os.read(reader, 1 << 16))["version"] == 1
    os.close(reader)
    assert stat.S_ISFIFO(pipe.stat().st_mode)
    assert [entry.name for entry in tmp_path.iterdir()] == ["pipe"]


def test_the_report(script: Script, sim_table: SimTable, tmp_path: Path) -> None:
    script(
        START
        + """
kept = driver.new("cuMemAlloc_v2", 3 << 20)
driver.cuMemFree_v2(driver.new("cuMemAlloc_v2", 5 << 20))
host = driver.new("cuMemAllocHost_v2", 4096)
managed = driver.new("cuMemAllocManaged", 8192, 1)
stream = driver.new("cuStreamCreate", 0)
driver.cuStreamDestroy_v2(driver.new("cuStreamCreate", 0))
event = driver.new("cuEventCreate", 0)
driver.code("cuGraphConditionalHandleCreate", byref(c_void_p()), 0)
if os.fork() == 0:
    sys.exit(0)  # a forked child leaves its parent's report alone
os.wait()
""",
        EMUV_SIM_REPORT=str(tmp_path / "report-%p.json"),
        EMUV_SIM_VRAM=str(64 * MIB),
    )
    (path,) = tmp_path.iterdir()
    report = json.loads(path.read_text())
    assert path.name == f"report-{report['pid']}.json"
    assert report["driver_version"] == 13000
    assert report["calls"]["cuMemAlloc_v2"] == 2
    assert report["calls"]["cuInit"] == 1
    assert "cuMemcpyHtoD_v2" not in report["calls"]
    assert report["unimplemented"] == {"cuGraphConditionalHandleCreate": 1}
    assert report["leaks"] == {
        "streams": {"count": 1},
        "events": {"count": 1},
        "device_memory": {"count": 1, "bytes": 3 * MIB},
        "managed_memory": {"count": 1, "bytes": 8192},
        "host_memory": {"count": 1, "bytes": 4096},
    }
    (device,) = report["devices"]
    assert device["card_bytes"] == 64 * MIB
    assert device["used_bytes"] == 3 * MIB
    assert device["peak_bytes"] == 8 * MIB


def test_a_report_that_cannot_be_written(script: Script, sim_table: SimTable) -> None:
    out = script(START, EMUV_SIM_REPORT="/nonexistent/report.json")
    assert 'EMUV_SIM_REPORT="/nonexistent/report.json"' in out.stderr  # type: ignore[attr-defined]


def test_verbose_names_the_failure(script: Script, sim_table: SimTable) -> None:
    out = script(START + 'driver.code("cuStreamQuery", 0x1234)', EMUV_SIM_VERBOSE="1")
    assert out.stderr == "emuv-sim: 0x1234 is no stream\n"  # type: ignore[attr-defined]
    out = script(START + 'driver.code("cuStreamQuery", 0x1234)')
    assert out.stderr == ""  # type: ignore[attr-defined]


def test_closing_the_library_under_a_living_thread(script: Script, bare_sim: SimTable) -> None:
    out = script(
        START
        + """
import _ctypes
used, closed = threading.Event(), threading.Event()
def work():
    driver.cuCtxSetCurrent(context)
    driver.cuStreamSynchronize_ptsz(None)
    used.set()
    assert closed.wait(30)
thread = threading.Thread(target=work)
thread.start()
assert used.wait(30)
_ctypes.dlclose(driver.dll._handle)
mapped = "libcuda" in open("/proc/self/maps").read()
closed.set()
thread.join()
print(mapped)
"""
    )
    assert out == "False"
