# SPDX-License-Identifier: GPL-2.0-only
"""For the tests of the two commands: a CUDA program on a string, schemas, answers."""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import referencing

from tests.conftest import ROOT, Compiler, entry_point

MIB, GIB = 1 << 20, 1 << 30
EMUV_RUN = entry_point("emuv_shim.commands.run", "emuv-run")
LIMIT_S = 30.0


def build_shell(cc: Compiler) -> Path:
    """cuda_shell.c, linked to libcuda.so.1."""
    source = Path(__file__).with_name("cuda_shell.c").read_text()
    return cc(source, libs=["cuda"], name="cuda_shell")


def check_schema(name: str, value: object) -> None:
    """Fails where `value` is not what schemas/NAME.schema.json publishes."""
    folder = ROOT / "emuv_shim" / "schemas"
    texts = [json.loads(path.read_text()) for path in folder.glob("*.json")]
    registry: Any = referencing.Registry().with_resources(
        (text["$id"], referencing.Resource.from_contents(text)) for text in texts
    )
    wanted = next(text for text in texts if text["$id"] == f"urn:emuv:{name}:1")
    jsonschema.Draft202012Validator(wanted, registry=registry).validate(value)


class Talking:
    """A program that answers a line with a line; killed at the end of the `with`."""

    def __init__(self, args: Sequence[str | Path], env: Mapping[str, str]) -> None:
        self.child = subprocess.Popen(
            [str(a) for a in args],
            env=dict(env),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,
        )
        self._selector = selectors.DefaultSelector()
        assert self.child.stdout is not None
        self._selector.register(self.child.stdout, selectors.EVENT_READ)

    def __enter__(self) -> Talking:
        return self

    def __exit__(self, *_: object) -> None:
        if self.child.poll() is None:
            os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait(10)
        for stream in (self.child.stdin, self.child.stdout, self.child.stderr):
            assert stream is not None
            stream.close()
        self._selector.close()

    @property
    def pid(self) -> int:
        """The program's own: emuv-run has replaced itself."""
        return self.child.pid

    def line(self) -> str:
        """Its next line."""
        assert self.child.stdout is not None
        if not self._selector.select(LIMIT_S):
            pytest.fail(f"no answer within {LIMIT_S} s")
        answer = self.child.stdout.readline()
        if not answer:
            assert self.child.stderr is not None
            self.child.wait(10)
            pytest.fail(f"ended with {self.child.returncode}: {self.child.stderr.read()}")
        return answer.strip()

    def ask(self, command: str) -> str:
        """Its answer to one command."""
        assert self.child.stdin is not None
        self.child.stdin.write(command + "\n")
        self.child.stdin.flush()
        return self.line()

    def end(self) -> int:
        """Close its stdin and wait for its end."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        return self.child.wait(LIMIT_S)


def started(
    env: Mapping[str, str], program: Path | str, *options: str, arguments: Sequence[str] = ()
) -> Talking:
    """`program` under `emuv-run OPTIONS --sim`, ready."""
    made = Talking([*EMUV_RUN, "--sim", "-q", *options, "--", program, *arguments], env)
    assert made.line() == "ready"
    return made
