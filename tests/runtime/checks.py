# SPDX-License-Identifier: GPL-2.0-only
"""What the programs of tests/torch and tests/cupy share: checks, one line each.

A line is `ok NAME`, `failed NAME REASON` or `n/a NAME REASON`.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from typing import Any

MIB = 1 << 20
MODE = os.environ.get("EMUV_TEST_MODE", "plain")
VISIBLE = int(os.environ.get("EMUV_TEST_VISIBLE", "0"))


class NotApplicable(Exception):
    """What was asked for needs machine code, and was refused as it must be."""


def refused(why: str, call: Callable[[], Any], *errors: type[Exception]) -> None:
    """`call` needs machine code: it must end in one of `errors`, and in no result."""
    try:
        answer = call()
    except errors as error:
        raise NotApplicable(f"{why}: {type(error).__name__}") from None
    raise AssertionError(f"an answer without a computation: {answer!r}")


def main(namespace: Mapping[str, object]) -> None:
    """Runs all functions named check_…; exits with 1 where one failed."""
    failed = 0
    for name, check in namespace.items():
        if not name.startswith("check_") or not callable(check):
            continue
        name = name.removeprefix("check_").replace("_", "-")
        try:
            check()
        except NotApplicable as reason:
            print(f"n/a {name} {reason}", flush=True)
        except Exception as error:
            failed += 1
            text = " ".join(f"{type(error).__name__}: {error}".split())
            print(f"failed {name} {text}", flush=True)
        else:
            print(f"ok {name}", flush=True)
    sys.exit(1 if failed else 0)
