# SPDX-License-Identifier: GPL-2.0-only
"""What every worker program does with its GPU package: one protocol, one arithmetic.

A worker is an ordinary, unmodified GPU program as far as emuV is concerned: it never asks whether
emuV is there.  Usage: run_NAME.py MODE BYTES PIECE, sizes in bytes:

    work  hold BYTES in pieces of PIECE, compute on all of them twice, print a digest
    oom   allocate pieces until BYTES are held or the package raises its own out-of-memory error
    live  obey lines of standard input: "alloc BYTES", "free", "digest", "quit"

Invariants
- Standard output carries JSON objects, one a line, and nothing else.
- The arithmetic is on 32-bit integers that wrap around, so that results are equal to the bit.
- Only the package's own out-of-memory error counts as such; any other error is a failure.
"""

from __future__ import annotations

import gc
import hashlib
import json
import sys
import time
from abc import ABC, abstractmethod
from typing import Any

WRAP = 2**32


class Stack(ABC):
    """One GPU package.  Arrays are opaque here; all have `words` 32-bit integers."""

    name = ""

    @abstractmethod
    def make(self, seed: int, words: int) -> Any:
        """An array on the device: word j is j * (2 * seed + 1) + seed, wrapped."""

    @abstractmethod
    def mix(self, array: Any, other: Any) -> Any:
        """array * 3 + other, wrapped; may replace `array`."""

    @abstractmethod
    def fetch(self, array: Any) -> Any:
        """The array on the host, as a buffer of bytes."""

    @abstractmethod
    def is_oom(self, error: BaseException) -> bool:
        """Whether this is the package's own out-of-memory error."""

    @abstractmethod
    def total_bytes(self) -> int | None:
        """What the package is told the device has; None if it does not say."""

    @abstractmethod
    def wait(self) -> None:
        """Wait for the device."""

    def allocator(self) -> str | None:
        """Which of the package's allocators is in use; None where there is but one."""
        return None

    def release(self) -> None:
        """Give dropped arrays back to the driver; packages that cache extend this."""
        gc.collect()


def say(**answer: Any) -> None:
    """One JSON line."""
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()


def digest(stack: Stack, arrays: list[Any]) -> str:
    """SHA-256 over all arrays' bytes, in order."""
    whole = hashlib.sha256()
    for array in arrays:
        whole.update(stack.fetch(array))
    return whole.hexdigest()


def fill(stack: Stack, arrays: list[Any], size: int, piece: int) -> BaseException | None:
    """Append arrays of `piece` bytes until `size` more are held; the out-of-memory error if any."""
    held = 0
    while held < size:
        try:
            arrays.append(stack.make(len(arrays), piece // 4))
            stack.wait()
        except Exception as error:
            if not stack.is_oom(error):
                raise
            return error
        held += piece
    return None


def work(stack: Stack, size: int, piece: int) -> None:
    """Mode work."""
    began = time.monotonic()
    arrays: list[Any] = []
    error = fill(stack, arrays, size, piece)
    if error is not None:
        held = len(arrays) * piece
        say(stack=stack.name, oom=describe(error), held=held, allocator=stack.allocator())
        return
    filled = time.monotonic()
    for _ in range(2):
        for index in range(len(arrays)):
            arrays[index] = stack.mix(arrays[index], arrays[index - 1])
    stack.wait()
    computed = time.monotonic()
    say(
        stack=stack.name,
        digest=digest(stack, arrays),
        held=len(arrays) * piece,
        total=stack.total_bytes(),
        allocator=stack.allocator(),
        fill_s=round(filled - began, 3),
        compute_s=round(computed - filled, 3),
        fetch_s=round(time.monotonic() - computed, 3),
    )


def oom(stack: Stack, size: int, piece: int) -> None:
    """Mode oom."""
    arrays: list[Any] = []
    error = fill(stack, arrays, size, piece)
    held = len(arrays) * piece
    total = stack.total_bytes()
    if error is None:
        say(stack=stack.name, oom=None, held=held, total=total, allocator=stack.allocator())
        return
    # the program survives its own error: what it holds is still right, and room comes back
    kept = digest(stack, arrays[:1]) if arrays else ""
    reason = describe(error)
    del error
    del arrays[1:]
    stack.release()
    again = fill(stack, arrays, piece, piece) is None
    say(
        stack=stack.name,
        oom=reason,
        held=held,
        total=total,
        allocator=stack.allocator(),
        digest=kept,
        usable_after=again,
    )


def describe(error: BaseException) -> str:
    """The error's class and first line."""
    kind = type(error)
    text = str(error).splitlines()
    return f"{kind.__module__}.{kind.__qualname__}: {text[0][:200] if text else ''}"


def live(stack: Stack, piece: int) -> None:
    """Mode live."""
    arrays: list[Any] = []
    say(ready=True)
    for line in sys.stdin:
        words = line.split()
        if words[0] == "alloc":
            error = fill(stack, arrays, int(words[1]), piece)
            say(
                oom=None if error is None else describe(error),
                held=len(arrays) * piece,
                total=stack.total_bytes(),
            )
        elif words[0] == "free":
            arrays.clear()
            stack.release()
            say(held=0)
        elif words[0] == "digest":
            say(digest=digest(stack, arrays), held=len(arrays) * piece)
        elif words[0] == "quit":
            break


def main(stack: Stack) -> None:
    """A worker's main program."""
    mode, size, piece = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    if mode == "work":
        work(stack, size, piece)
    elif mode == "oom":
        oom(stack, size, piece)
    elif mode == "live":
        live(stack, piece)
    else:
        raise SystemExit(f"no mode {mode!r}")
