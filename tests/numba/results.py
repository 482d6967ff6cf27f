# SPDX-License-Identifier: GPL-2.0-only
"""What a run of numba-cuda's tests came to: the rules, the file, the comparison.

The file has one line a test, `outcome TAB name TAB reason`, sorted by name; a
comment in front has the counts. Outcomes: passed, failed, skipped (by the suite, and
it could have run here), xfailed (the suite expects the failure), not-applicable (it
needs what a simulated GPU does not offer, or what the suite's wheel does not ship).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

REASON_LENGTH = 160


class Result(NamedTuple):
    outcome: str
    reason: str


Results = dict[str, Result]

# (outcome, what its text has, why the test does not apply). Text of skips and of
# failures only; the first rule that matches gives the reason.
_RULES: tuple[tuple[str, str, str], ...] = (
    ("skipped", r"nvjitlink|Numbast generated bindings", "needs nvJitLink"),
    ("skipped", r"(more than 1|multiple|two different) ?(gpu|cc)", "needs several GPUs"),
    ("skipped", r"requires at least two|peer access", "needs several GPUs"),
    ("skipped", r"binaries (are )?not |TEST_BIN_DIR", "needs binaries that are not shipped"),
    ("skipped", r"cudasim|simulator", "for numba's own simulator"),
    ("skipped", r"Windows only", "for another operating system"),
    ("skipped", r"conda", "for another installation"),
    ("skipped", r"nvdisasm", "needs nvdisasm"),
    ("skipped", r"cudadevrt", "needs dynamic parallelism"),
    ("skipped", r"could not import '|requires CuPy", "needs another package"),
    # emuV's own libcudart (emuv-run --sim) is another version than the installed one.
    ("skipped", r"CUDA_DEBUG_POLY|Uses old union format", "for another CUDA runtime"),
    ("skipped", r"cc >= |CC 9|FP8 is not supported", "needs a newer GPU"),
)


def judge(outcome: str, text: str) -> Result:
    """The result of a test that ended in `outcome`, with `text` to tell why."""
    for wanted, pattern, why in _RULES:
        if outcome == wanted and re.search(pattern, text, re.IGNORECASE):
            return Result("not-applicable", why)
    return Result(outcome, one_line(text))


def one_line(text: str) -> str:
    """`text` without what differs from run to run: addresses, paths, times."""
    line = " ".join(text.split())
    line = re.sub(r"0x[0-9a-fA-F]{6,}", "0x…", line)
    line = re.sub(r"(?:/[\w.+-]+){2,}/", "…/", line)
    return line[:REASON_LENGTH].rstrip()


def counts(results: Results) -> Counter[str]:
    return Counter(result.outcome for result in results.values())


def summary(results: Results) -> str:
    n = counts(results)
    ran = n["passed"] + n["failed"]
    share = 100 * n["passed"] / ran if ran else 0.0
    parts = ", ".join(f"{n[k]} {k}" for k in sorted(n))
    return f"{len(results)} tests: {parts}; {share:.2f} % of {ran} that apply pass"


def write(path: Path, results: Results, title: str) -> None:
    lines = [f"# {title}", f"# {summary(results)}"]
    lines += [f"{r.outcome}\t{name}\t{r.reason}".rstrip() for name, r in sorted(results.items())]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")


def read(path: Path) -> Results:
    results: Results = {}
    if path.exists():
        for line in path.read_text().splitlines():
            if not line.startswith("#"):
                outcome, name, *reason = line.split("\t")
                results[name] = Result(outcome, reason[0] if reason else "")
    return results


def regressions(before: Mapping[str, Result], now: Mapping[str, Result]) -> list[str]:
    """Names of tests that passed and do not any more. One that is gone counts.

    One that does not apply does not: a rule above says why.
    """
    fine = {name for name, new in now.items() if new.outcome in ("passed", "not-applicable")}
    return sorted(
        name for name, old in before.items() if old.outcome == "passed" and name not in fine
    )
