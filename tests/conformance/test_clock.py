# SPDX-License-Identifier: GPL-2.0-only
"""The virtual clock: what a model card would have taken, to the nanosecond; its profiles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from cuda_driver import INVALID_VALUE, SimTable
from paging_tools import BLOCK, Counted, Stats, play

Script = Callable[..., str]

PROFILES = Path(__file__).parents[2] / "csrc" / "sim" / "profiles"
MODEL = {
    "name": "round numbers",
    "link_to_device": 10,
    "link_to_host": 10,
    "link_both": 12,
    "remote_read": 5,
    "remote_write": 2.5,
    "vram": 100,
    "instructions": 0.001,
    "launch": 1,
    "fault_batch": 10,
    "fault": 2,
    "eviction": 3,
}


def text_of(model: dict[str, object]) -> str:
    return "".join(f"{key} = {value}\n" for key, value in model.items())


def ns(amount: int, billions: float) -> int:
    """The time of so many bytes at a rate, rounded up."""
    return -(-amount * 1000 // int(billions * 1000))


@pytest.fixture
def counted(script: Script, sim_table: SimTable, tmp_path: Path) -> Counted:
    """Runs text on a card of `card` blocks of the model MODEL; its statistics."""
    profile = tmp_path / "round.ini"
    profile.write_text(text_of(MODEL))

    def run(text: str, card: int = 8, **env: str) -> Stats:
        env = {"EMUV_SIM_PROFILE": str(profile), "EMUV_SIM_CLOCK": "virtual", **env}
        return play(script, tmp_path, text, card, **env)

    return run


def end(stats: Stats) -> int:
    value = stats["devices"][0]["model_end_ns"]
    assert isinstance(value, int)
    return value


# ---- what each thing takes ----


def test_a_prefetch_takes_its_bytes(counted: Counted) -> None:
    stats = counted("a = managed(8)\nprefetch(a, 8, CPU)\nprefetch(a, 8, 0)")
    assert end(stats) == 1000 + ns(8 * BLOCK, 10)
    assert stats["profile"]["name"] == "round numbers"
    assert stats["profile"]["link_both_per_s"] == 12 * 10**9
    assert stats["profile"]["fault_batch_ns"] == 10_000


def test_a_fault_takes_the_batch_the_block_and_its_bytes(counted: Counted) -> None:
    stats = counted("a = managed(8)\nprefetch(a, 8, CPU)\ntouch(a)")
    assert end(stats) == 1000 + 10_000 + 2000 + ns(BLOCK, 10) + ns(BLOCK, 100)


def test_an_eviction_goes_out_before_the_block_comes_in(counted: Counted) -> None:
    stats = counted("a = managed(2)\nprefetch(a, 1, 0)\nprefetch(a + BLOCK, 1, CPU)\ntouch(a)\n"
                    "touch(a + BLOCK)", card=1)  # fmt: skip
    first = 1000 + ns(BLOCK, 100)  # a set of what is there
    second = 1000 + 10_000 + 2000 + 3000 + 2 * ns(BLOCK, 10) + ns(BLOCK, 100)
    assert end(stats) == first + second


def test_remote_bytes_go_at_their_own_rate(counted: Counted) -> None:
    assert end(counted("a = managed(2, SPILLED)\nprefetch(a, 2, CPU)\ntouch(a)")) == (
        1000 + ns(BLOCK, 2.5)
    )


def test_copies_between_host_and_device(counted: Counted) -> None:
    text = """
    d, h = driver.new("cuMemAlloc_v2", BLOCK), driver.new("cuMemHostAlloc", BLOCK, 0)
    driver.cuMemcpyHtoD_v2(d, h, BLOCK)
    driver.cuMemcpyDtoH_v2(h, d, BLOCK)
    """
    assert end(counted(text)) == 2 * (1000 + ns(BLOCK, 10) + ns(BLOCK, 100))


KERNEL = """
text = entry("spin", "u32 times", '''
    mov.u32 r1, 0;
    NEXT:
    add.u32 r1, r1, 1;
    setp.lt.u32 p1, r1, times;
    @p1 bra NEXT;
''')
spin = Kernel(driver, text)
"""


def test_a_kernel_takes_its_instructions(counted: Counted) -> None:
    text = KERNEL + "assert spin.run(1, 1, c_uint32(1000)) == spin.run(1, 1, c_uint32(2000)) == 0"
    first, second = counted(text)["launches"]
    for launch in (first, second):
        taken = launch["model_end_ns"] - launch["model_start_ns"]
        assert taken == 1000 + ns(launch["instructions"], 0.001)
    assert second["model_start_ns"] == first["model_end_ns"]
    assert second["instructions"] - first["instructions"] in range(3000, 3003)


def test_copies_overlap_with_kernels(counted: Counted) -> None:
    text = KERNEL + """
a = managed(8)
prefetch(a, 8, CPU)
other = driver.new("cuStreamCreate", 1)
assert spin.code(1, 1, c_uint32(3000)) == 0            # 9 ms and more
driver.cuMemPrefetchAsync(a, 8 * BLOCK, 0, other)      # 1.7 ms
driver.cuCtxSynchronize()
"""
    stats = counted(text)
    (launch,) = stats["launches"]
    assert launch["model_start_ns"] == 0
    assert end(stats) == launch["model_end_ns"]
    assert launch["model_end_ns"] == 1000 + ns(launch["instructions"], 0.001)


def test_kernels_share_the_processors(counted: Counted) -> None:
    text = KERNEL + """
for _ in range(2):
    spin(1, 1, c_uint32(1000), stream=driver.new("cuStreamCreate", 1))
driver.cuCtxSynchronize()
"""
    first, second = counted(text)["launches"]
    assert second["model_start_ns"] == first["model_end_ns"]


def test_both_directions_share_the_link(counted: Counted) -> None:
    """What comes second gets the 2 that the first leaves of 12, until that is done."""
    text = """
    a, b = managed(4), managed(4)
    prefetch(a, 4, CPU)
    touch(b, 4)
    """
    before = end(counted(text))
    text += """
    one, two = (driver.new("cuStreamCreate", 1) for _ in range(2))
    driver.cuMemPrefetchAsync(a, 4 * BLOCK, 0, one)
    driver.cuMemPrefetchAsync(b, 4 * BLOCK, CPU, two)
    driver.cuCtxSynchronize()
    """
    size = 4 * BLOCK
    alone = ns(size, 10)
    rest = size - alone * 2
    want = before + 1000 + alone + ns(rest, 10)
    assert end(counted(text)) == pytest.approx(want, abs=3)


def test_waiting_for_another_stream_costs_its_time(counted: Counted) -> None:
    text = """
    a, b = managed(4), managed(4)
    prefetch(a, 4, CPU); prefetch(b, 4, CPU)
    one, two = (driver.new("cuStreamCreate", 1) for _ in range(2))
    event = driver.new("cuEventCreate", 2)
    driver.cuMemPrefetchAsync(a, 4 * BLOCK, 0, one)
    driver.cuEventRecord(event, one)
    driver.cuStreamWaitEvent(two, event, 0)
    driver.cuMemPrefetchAsync(a, 4 * BLOCK, CPU, two)
    driver.cuCtxSynchronize()
    """
    assert end(counted(text)) == 2 * (1000 + ns(4 * BLOCK, 10))


def test_events_answer_virtual_times(counted: Counted) -> None:
    text = """
    a = managed(8)
    prefetch(a, 8, CPU)
    start, stop = driver.new("cuEventCreate", 0), driver.new("cuEventCreate", 0)
    driver.cuEventRecord(start, None)
    driver.cuMemPrefetchAsync(a, 8 * BLOCK, 0, None)
    driver.cuEventRecord(stop, None)
    driver.cuEventSynchronize(stop)
    taken = c_float()
    driver.cuEventElapsedTime(byref(taken), start, stop)
    want = 1000 + 8 * BLOCK / 10
    assert abs(taken.value * 1e6 - want) < 2, (taken.value, want)
    """
    counted(text)


# ---- profiles ----


@pytest.mark.parametrize("name", ["pcie3", "pcie4", "pcie5"])
def test_profiles_that_are_built_in(counted: Counted, name: str) -> None:
    stats = counted("a = managed(8)\nprefetch(a, 8, CPU)\nprefetch(a, 8, 0)", EMUV_SIM_PROFILE=name)
    file = dict(
        line.split(" = ")
        for line in (PROFILES / f"{name}.ini").read_text().splitlines()
        if " = " in line and not line.startswith("#")
    )
    assert stats["profile"]["name"] == file["name"]
    rate = float(file["link_to_device"])
    assert end(stats) == pytest.approx(float(file["launch"]) * 1000 + 8 * BLOCK / rate, abs=2)
    # Each number says where it is from: a comment stands above it, or above its group.
    for part in (PROFILES / f"{name}.ini").read_text().split("\n\n")[2:]:
        assert part.startswith("# ")


BAD = {
    "a key that there is not": (text_of(MODEL) + "speed = 3\n", 13, "speed"),
    "twice": (text_of(MODEL) + "vram = 3\n", 13, "second time"),
    "no equals sign": ("# a\n\nname\n", 3, "key = value"),
    "no number": (text_of({**MODEL, "vram": "fast"}), 7, "fast"),
    "hexadecimal": (text_of({**MODEL, "vram": "0x10"}), 7, "0x10"),
    "infinite": (text_of({**MODEL, "vram": "inf"}), 7, "inf"),
    "not a number": (text_of({**MODEL, "vram": "nan"}), 7, "nan"),
    "negative": (text_of({**MODEL, "vram": "-1"}), 7, "-1"),
    "zero": (text_of({**MODEL, "vram": 0}), 7, "from"),
    "huge": (text_of({**MODEL, "vram": "1e300"}), 7, "from"),
    "two numbers": (text_of({**MODEL, "vram": "1 2"}), 7, "1 2"),
    "empty": ("", 1, "link_to_device"),
    "one missing": (text_of({k: v for k, v in MODEL.items() if k != "fault"}), 12, '"fault"'),
    "quotes in the name": ('name = "x"\n', 1, "quotes"),
    "no text": ("name = \0x\n", None, "no text"),
    "too long": ("#" * 70_000, None, "64 KiB"),
}


@pytest.mark.parametrize("kind", BAD)
def test_bad_profiles_fail_cuinit_with_the_line(
    script: Script, sim_table: SimTable, tmp_path: Path, kind: str
) -> None:
    text, line, words = BAD[kind]
    path = tmp_path / "p.ini"
    path.write_text(text)
    out = script('print(driver.code("cuInit", 0))', EMUV_SIM_PROFILE=str(path))
    assert out == str(INVALID_VALUE)
    said = out.stderr  # type: ignore[attr-defined]
    assert "EMUV_SIM_PROFILE" in said
    assert words in said
    if line:
        assert f"line {line}:" in said
    assert said.count("\n") == 1


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("EMUV_SIM_PROFILE", "pcie6"),
        ("EMUV_SIM_PROFILE", ""),
        ("EMUV_SIM_PROFILE", "/nowhere/p.ini"),
        ("EMUV_SIM_PROFILE", "/"),
        ("EMUV_SIM_CLOCK", "fast"),
        ("EMUV_SIM_TRACK", "2"),
        ("EMUV_SIM_ORDER", "random"),
        ("EMUV_SIM_STATS_LAUNCHES", "many"),
        ("EMUV_SIM_STATS_LAUNCHES", "-1"),
        ("EMUV_SIM_STATS", "x" * 2000),
    ],
)
def test_bad_settings_fail_cuinit_in_words(
    script: Script, sim_table: SimTable, name: str, value: str
) -> None:
    out = script('print(driver.code("cuInit", 0))', **{name: value})
    assert out == str(INVALID_VALUE)
    said = out.stderr  # type: ignore[attr-defined]
    assert name in said
    assert said.count("\n") == 1
