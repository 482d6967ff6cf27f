# SPDX-License-Identifier: GPL-2.0-only
"""Every EMUV_* variable with anything in it: the program runs, or is refused in words.

The names are those that the sources read, so that a new one is tried as well.  The
program allocates on the simulated GPU behind the interposer; it ends with 0 where all
went well and with 3 where cuInit was refused.  ENVIRONMENTS (150) is how many, FUZZ_SEED
(1) repeats a run.
"""

from __future__ import annotations

import os
import random
import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from emuv_shim._sizes import MAX_SIZE_BYTES, Sizes, parse_sizes
from emuv_shim.errors import SizeError
from tests.conftest import ROOT, Compiler, run

PROGRAM = r"""
#include "cuda_abi.h"
CUresult cuInit(unsigned int), cuDevicePrimaryCtxRetain(CUcontext *, CUdevice);
CUresult cuCtxPushCurrent_v2(CUcontext), cuMemAlloc_v2(CUdeviceptr *, size_t);
CUresult cuMemFree_v2(CUdeviceptr), cuMemGetInfo_v2(size_t *, size_t *);

int main(void)
{
	size_t free_bytes, total;
	CUdeviceptr address;
	CUcontext context;

	if (cuInit(0))
		return 3;
	if (cuDevicePrimaryCtxRetain(&context, 0) || cuCtxPushCurrent_v2(context))
		return 4;
	if (cuMemGetInfo_v2(&free_bytes, &total) || free_bytes > total)
		return 5;
	if (!cuMemAlloc_v2(&address, 1 << 20) && cuMemFree_v2(address))
		return 6;
	return 0;
}
"""
WORDS = (
    *("", "0", "1", "-1", "+1", " 1", "1 ", "1,", "0x10", "1e3", "none", "off", "all", "cap"),
    *("18446744073709551615", "18446744073709551616", "9223372036854775808", "4294967296", "00"),
    *("0=1048576", "0=none", "0=1,0=2", "31=1", "32=1", "0=", "=", ",", "0=1,", "a=1", "0=-1"),
    *("/dev/null", "/dev/zero", "/dev/full", "/proc/self/mem", "/nonexistent/a", "/", "."),
    *("x" * 300, "x" * 5000, "/" + "y" * 4090, "%p%p%p", "%n%s%s", "cuMemAlloc_v2:1:2"),
    *("cuInit:1:999", "cuMemAlloc_v2:1", ":::", "\x01\x7f", "\udcff\udcfe", "\n\n", "spill"),
    *("touch", "pcie9", "virtual", "real", "1.5x", "50%", "8GiB", "$(true)", "'", '"'),
)
ENDS = {0, 3}


def names() -> list[str]:
    """The variables that the interposer, the simulated GPU and their libraries read."""
    found = set()
    for path in (ROOT / "csrc").rglob("*.[ch]"):
        found |= set(re.findall(r'"(EMUV_[A-Z_]+)"', path.read_text()))
    return sorted(found)


def value(rng: random.Random) -> str:
    """Anything that an environment can hold."""
    word = rng.choice(WORDS)
    if rng.random() < 0.2:
        word += rng.choice(WORDS)
    if rng.random() < 0.1:
        word = "".join(chr(rng.randrange(1, 127)) for _ in range(rng.randrange(40)))
    return word


def test_the_program_runs_or_is_refused_in_words(
    cc: Compiler, shim_env: Callable[..., dict[str, str]], tmp_path: Path
) -> None:
    program = cc(PROGRAM, ["cuda"])
    rng = random.Random(int(os.environ.get("FUZZ_SEED", "1")))
    known = names()
    assert {"EMUV_VRAM", "EMUV_POLICY", "EMUV_DRIVER", "EMUV_SIM_VRAM", "EMUV_SIM_FAIL"} <= {*known}
    sound = {**shim_env(vram=64 << 20, virtual=64 << 20), "EMUV_SIM_WAIT_MS": "2000"}
    changes = [{name: word} for name in known for word in ("", "\x01", "x" * 300)]
    while len(changes) < 3 * len(known) + int(os.environ.get("ENVIRONMENTS", "150")):
        changes.append({rng.choice(known): value(rng) for _ in range(rng.randrange(1, 5))})
    # Relative paths lead into it, `..` no further than into tmp_path.
    place = tmp_path / "a" / "b"
    place.mkdir(parents=True)

    def end(change: dict[str, str]) -> tuple[dict[str, str], int, str, str]:
        done = run([program], {**sound, **change}, 30, place)
        return change, done.returncode, done.stdout, done.stderr

    with ThreadPoolExecutor(3) as pool:
        ends = list(pool.map(end, changes))
    for change, status, out, err in ends:
        assert status in ENDS or ("EMUV_SIM_FAIL" in change and status < 7), (change, status, err)
        assert out == "", change
        assert status != 3 or "emuv" in err or "EMUV_SIM_FAIL" in change, (change, err)
        assert all(line.startswith(("emuv: ", "emuv-sim: ")) for line in err.split("\n") if line), (
            change, err)  # fmt: skip
    assert {status for _, status, _, _ in ends} >= ENDS


pieces = st.sampled_from([*WORDS, *"1845.kt%xB", "Ki", "MiB", "GB"])


@given(st.lists(pieces, max_size=6).map("".join))
def test_any_size_is_bytes_or_an_error_that_quotes_it(text: str) -> None:
    """What is understood is within bounds, and comes through the environment unchanged."""
    device, vram = 8 << 30, Sizes(everywhere=4 << 30)
    try:
        sizes = parse_sizes(text, device_bytes=device, vram=vram, allow_none=True)
    except SizeError as error:
        said = str(error)
    else:
        said = ""
    assert said.isprintable()
    if said:
        return
    given_ = [sizes.everywhere] if not sizes.by_device else [size for _, size in sizes.by_device]
    assert all(size is None or 0 < size <= MAX_SIZE_BYTES for size in given_)
    assert re.fullmatch(r"none|\d+|\d+=\d+(,\d+=\d+)*", sizes.to_env())
