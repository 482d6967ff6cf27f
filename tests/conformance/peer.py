# SPDX-License-Identifier: GPL-2.0-only
"""A second process that uses the driver, told by the test what to do, line by line.

    with Peer(driver_path) as peer:
        peer.run("pointer = driver.new('cuMemAlloc_v2', 4096)")
        handle = peer.ask("handle_of(pointer)")      # any literal, by its repr

Nothing waits longer than LIMIT seconds. `send_fd` passes a file descriptor, which the
peer finds in `fds`.
"""

from __future__ import annotations

import ast
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

LIMIT = 30

_CHILD = """
import os, socket, sys
sys.path.insert(0, {here!r})
from ctypes import *
from cuda_driver import *
driver = Driver({driver!r})
driver.cuInit(0)
context = driver.new("cuDevicePrimaryCtxRetain", {device})
driver.cuCtxSetCurrent(context)
link = socket.socket(fileno={fd})
fds = []
def handle_of(address):
    handle = (c_char * 64)()
    driver.cuIpcGetMemHandle(handle, address)
    return handle.raw
for line in sys.stdin:
    kind, text = eval(line)
    try:
        if kind == "fd":
            data, got, _, _ = socket.recv_fds(link, 1, 1)
            fds += got
            answer = (True, None)
        elif kind == "run":
            exec(text)
            answer = (True, None)
        else:
            answer = (True, eval(text))
    except Exception as error:
        answer = (False, repr(error))
    print(repr(answer), flush=True)
"""


class Peer:
    """The process; it has device 0's primary context current."""

    def __init__(self, driver: str, device: int = 0, **env: str) -> None:
        self.link, theirs = socket.socketpair()
        here = str(Path(__file__).parent)
        code = _CHILD.format(here=here, driver=driver, device=device, fd=theirs.fileno())
        self.process = subprocess.Popen(
            [sys.executable, "-c", code],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={**os.environ, **env},
            text=True,
        )
        theirs.close()

    def _tell(self, kind: str, text: str) -> Any:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(repr((kind, text)) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self.process.stdout
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
        assert ready, "the peer does not answer"
        line = self.process.stdout.readline()
        assert line, f"the peer ended with {self.process.wait(LIMIT)}"
        good, value = ast.literal_eval(line)
        assert good, value
        return value

    def run(self, text: str) -> None:
        """Execute statements."""
        self._tell("run", text)

    def ask(self, text: str) -> Any:
        """Evaluate an expression."""
        return self._tell("ask", text)

    def send_fd(self, fd: int) -> None:
        """Pass a file descriptor: the peer appends its own to `fds`."""
        socket.send_fds(self.link, [b"x"], [fd])
        self._tell("fd", "")

    def kill(self) -> None:
        """End the process at once."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(LIMIT)

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, *_: object) -> None:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        try:
            self.process.wait(LIMIT)
        finally:
            self.process.kill()
            self.process.stdout.close()
            self.link.close()
