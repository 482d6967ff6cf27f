# SPDX-License-Identifier: GPL-2.0-only
"""The report of gpu_check: one row a check, a table for people and a JSON document for the rest.

Invariants
- A row's `ok` is True, False, or None for a check that could not be made (the detail says why).
- The document on disk is whole after every row.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))

from _facts_rows import write_json

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "emuv-gpu-check/1"
WORDS = {True: "ok", False: "FAILED", None: "skipped"}


class SkipError(Exception):
    """The check cannot be made here; the message says why."""


class FailError(Exception):
    """The check was made and what it claims is not so; the message says what is."""


class Report:
    """The rows so far.

    head: device, driver, CUDA version, commit and date; seconds: for all checks together.
    """

    def __init__(self, head: dict[str, Any], path: Path, seconds: float) -> None:
        self._began = time.monotonic()
        self._deadline = self._began + seconds
        self.path = path
        self.document: dict[str, Any] = {"schema": SCHEMA, **head, "rows": []}
        self.rows: list[dict[str, Any]] = self.document["rows"]

    def left(self) -> float:
        """Seconds until all checks must have ended."""
        return self._deadline - time.monotonic()

    def add(
        self, name: str, ok: bool | None, detail: str, seconds: float, data: dict[str, Any]
    ) -> None:
        """Add a row, say it, and write the document."""
        self.rows.append(
            {
                "name": name,
                "ok": ok,
                "detail": detail,
                "seconds": round(seconds, 3),
                "data": data,
            }
        )
        self.document["seconds"] = round(time.monotonic() - self._began, 1)
        self.document["failed"] = self.failed()
        write_json(self.path, neutral(self.document))
        print(f"{WORDS[ok]:8} {name}: {detail}", flush=True)

    def failed(self) -> int:
        """How many checks failed."""
        return sum(row["ok"] is False for row in self.rows)

    def need(self, seconds: float) -> None:
        """SkipError unless so many seconds are left; the first line of a check's body."""
        if self.left() < seconds:
            raise SkipError("out of time")

    @contextmanager
    def check(self, name: str) -> Iterator[dict[str, Any]]:
        """One check.  The body fills the dictionary it is given; "detail" becomes the detail.

        SkipError makes it skipped, any other exception makes it fail.
        """
        began = time.monotonic()
        data: dict[str, Any] = {}
        ok: bool | None = True
        try:
            yield data
            detail = str(data.pop("detail", ""))
        except SkipError as reason:
            ok, detail = None, str(reason)
        except FailError as reason:
            ok, detail = False, str(reason)
        except Exception as error:
            # a broken check must not lose the ones after it
            ok, detail = False, f"{type(error).__name__}: {error}"
        data.pop("detail", None)
        self.add(name, ok, detail, time.monotonic() - began, data)

    def table(self) -> str:
        """All rows as plain text."""
        width = max((len(row["name"]) for row in self.rows), default=0)
        lines = [
            f"{row['name']:{width}}  {WORDS[row['ok']]:8} {row['seconds']:7.1f} s  {row['detail']}"
            for row in self.rows
        ]
        counts = {word: sum(r["ok"] is ok for r in self.rows) for ok, word in WORDS.items()}
        lines.append(
            f"{counts['ok']} ok, {counts['FAILED']} failed, {counts['skipped']} skipped; "
            f"{self.document.get('device', '?')}, driver {self.document.get('driver') or '?'}; "
            f"{self.path}"
        )
        return "\n".join(lines)

    def show(self) -> None:
        """The table, by rich where it is installed."""
        try:
            from rich.console import Console
            from rich.table import Table
        except ImportError:
            print(self.table())
            return
        table = Table("check", "", "s", "detail", expand=False)
        colours = {True: "green", False: "red", None: "yellow"}
        for row in self.rows:
            colour = colours[row["ok"]]
            table.add_row(
                row["name"],
                f"[{colour}]{WORDS[row['ok']]}[/{colour}]",
                f"{row['seconds']:.1f}",
                row["detail"].replace("[", r"\["),
            )
        console = Console()
        if not console.is_terminal:
            console = Console(width=160)
        console.print(table)
        print(self.table().splitlines()[-1])


def neutral(value: Any) -> Any:
    """A JSON value with this tree's path as `.`, wherever a program said it: results are kept."""
    if isinstance(value, dict):
        return {name: neutral(inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [neutral(inner) for inner in value]
    return value.replace(str(ROOT), ".") if isinstance(value, str) else value


def mib(size_bytes: float) -> str:
    """Bytes in MiB, for a detail."""
    return f"{size_bytes / 2**20:.0f} MiB"
