# SPDX-License-Identifier: GPL-2.0-only
"""Checks of NVML under emuV on the card: nvidia-smi's text, and all that nvidia-ml-py can ask.

Invariants
- Only queries.
- What is compared are lines: those of two plain runs that agree, against a run under emuV.  A
  line may differ only where it says how much memory there is, or is a reading of a moment.
"""

from __future__ import annotations

import ctypes
import re
import shutil
from collections.abc import Callable, Sequence

from _gpu_process import ROOT, run
from _gpu_rows import FailError, SkipError, mib
from _gpu_stacks import Bed, installed

SECONDS = 60.0
TEXT = ROOT / "tests" / "integration" / "nvml_text.py"
# Of `nvidia-smi -q`: readings, which two runs need not share.
READINGS = re.compile(
    r"Timestamp|Temp|Power|Draw|Clock|Graphics|^SM|^Memory$|Video|Utilization|^Gpu|Encoder|Decoder"
    r"|JPEG|OFA|Fan|Throughput|Performance State|Reasons|Counters|Energy|Violation|Idle|Margin"
    r"|Average|Uptime|Latency|Sessions|FPS|Requested|Slowdown|T.Limit|SRAM|Retr|Replay"
)
MEMORY = re.compile(r"^FB Memory Usage/(Total|Reserved|Used|Free)$|Used GPU Memory$")
CALLS = re.compile(r"nvmlDeviceGet(MemoryInfo|\w*RunningProcess\w*)")
FIELDS = "index,name,uuid,pci.bus_id,driver_version,compute_cap,memory.total"


def keyed(text: str) -> list[tuple[str, str]]:
    """`nvidia-smi -q` as (section/key, value), the sections by their indentation."""
    found: list[tuple[str, str]] = []
    above: list[tuple[int, str]] = []
    for line in text.splitlines():
        if not line.strip():
            continue
        indent = len(line) - len(line.lstrip())
        key, colon, value = (part.strip() for part in line.partition(" : "))
        above = [section for section in above if section[0] < indent]
        if colon:
            section = above[-1][1] + "/" if above else ""
            found.append((section + key, value))
        else:
            above.append((indent, key))
    return found


def differing(plain: Sequence[Sequence[str]], shown: Sequence[str]) -> list[tuple[str, str]]:
    """(plain line, line under emuV) where two plain runs agree and the third does not."""
    first, second = plain
    if not len(first) == len(second) == len(shown):
        raise FailError(f"{len(first)}, {len(second)} and under emuV {len(shown)} lines")
    rows = zip(first, second, shown, strict=True)
    return [(a, c) for a, b, c in rows if a == b and a != c]


def _three(bed: Bed, command: Sequence[str]) -> list[str]:
    """What a command prints plainly, again, and under emuV."""
    plain, under = bed.target.environment(), bed.target.environment(shim=True)
    budget = ["-q", "--vram", str(bed.vram), "--virtual", str(bed.virtual)]
    runs = [(list(command), plain)] * 2 + [(bed.target.emuv_run(budget, command), under)]
    said = []
    for line, environment in runs:
        done = run(line, environment, SECONDS)
        if done.code != 0 or done.late:
            raise FailError(f"ended with {done.code}: {done.last_words()}")
        said.append(done.out)
    return said


def check_nvidia_smi(bed: Bed) -> None:
    """nvidia-smi under emuv-run prints the same text, but for the amounts of memory."""
    with bed.report.check("nvidia-smi: the same text") as data:
        bed.report.need(20.0)
        smi = shutil.which("nvidia-smi")
        if smi is None:
            raise SkipError("there is no nvidia-smi")
        queried = [keyed(text) for text in _three(bed, [smi, "-q"])]
        differ = differing(
            [["\t".join(row) for row in rows] for rows in queried[:2]],
            ["\t".join(row) for row in queried[2]],
        )
        changed = [(a.split("\t"), c.split("\t")) for a, c in differ]
        data["changed"] = [[*a, c[-1]] for a, c in changed]
        odd = [
            f"{a[0]}: {a[-1]!r}, under emuV {c[-1]!r}"
            for a, c in changed
            if a[0] != c[0]
            or not (MEMORY.search(a[0]) or READINGS.search(a[0].rsplit("/")[-1]))
        ]
        if odd:
            raise FailError("; ".join(odd[:5]))
        query = [smi, f"--query-gpu={FIELDS}", "--format=csv,noheader,nounits"]
        first, _, shown = (text.splitlines() for text in _three(bed, query))
        data["query"] = [first, shown]
        visible = (bed.vram + bed.virtual) >> 20
        for before, after in zip(first, shown, strict=True):
            head, _, total = after.rpartition(",")
            if head != before.rpartition(",")[0] or int(total) not in (
                visible, int(before.rpartition(",")[2]),
            ):  # fmt: skip
                raise FailError(f"{before!r}, under emuV {after!r}")
        if not any(int(line.rpartition(",")[2]) == visible for line in shown):
            raise FailError(f"no card of {visible} MiB: {shown}")
        # Its table, with the figures masked: the same shape, and nothing more or less.
        tables = _three(bed, [smi])
        masked = [re.sub(r"[0-9]+|N/A", "#", text) for text in tables]
        shapes = [re.sub(r" +", " ", text).splitlines() for text in masked]
        if len(shapes[0]) == len(shapes[1]) and len(shapes[0]) != len(shapes[2]):
            raise FailError(f"its table has {len(shapes[2])} lines, and {len(shapes[0])} plainly")
        data["detail"] = f"total {visible} MiB; {len(changed)} of {len(queried[2])} lines changed"


def check_nvml_text(bed: Bed) -> None:
    """nvidia-ml-py is answered the same in a process under emuV, but for the amounts of memory."""
    with bed.report.check("NVML: all that can be asked") as data:
        bed.report.need(20.0)
        if not installed("pynvml"):
            raise SkipError("nvidia-ml-py is not installed")
        texts = [t.splitlines() for t in _three(bed, [bed.target.python, str(TEXT), "cuda"])]
        differ = differing(texts[:2], texts[2])
        data["changed"] = differ
        odd = [f"{a!r}, under emuV {c!r}" for a, c in differ if not CALLS.search(a)]
        if odd:
            raise FailError("; ".join(odd[:5]))
        total = f"total={bed.vram + bed.virtual}"
        if not any(total in c for _, c in differ):
            raise FailError(f"nothing says {total}: {differ[:4]}")
        data["detail"] = f"total {mib(bed.vram + bed.virtual)}; {len(texts[2])} lines"


def check_names(bed: Bed) -> None:
    """Every function of the machine's NVML is forwarded by emuV's."""
    with bed.report.check("NVML: functions") as data:
        from emuv_shim import _driver

        driver = _driver.find_driver(bed.target.environment(shim=True))
        path = _driver.find_nvml(driver, bed.target.environment())
        if path is None:
            raise SkipError("there is no NVML")
        tool = shutil.which("nm")
        if tool is None:
            raise SkipError("there is no nm")
        ours, real = (
            _exports(tool, library, bed) for library in (_driver.libemuv_nvml_path(), path)
        )
        data["not_forwarded"] = sorted(real - ours)
        data["not_there"] = len(ours - real)
        data["detail"] = f"{len(real)} there, {len(real - ours)} not known to emuV"
        ctypes.CDLL(_driver.libemuv_nvml_path())  # it loads by itself


def _exports(tool: str, library: str, bed: Bed) -> set[str]:
    done = run([tool, "-D", "--defined-only", library], bed.target.environment(), 20.0)
    names = {line.split()[-1].partition("@")[0] for line in done.out.splitlines()}
    return {name for name in names if name.startswith("nvml")}


CHECKS: tuple[Callable[[Bed], None], ...] = (check_nvml_text, check_nvidia_smi, check_names)
