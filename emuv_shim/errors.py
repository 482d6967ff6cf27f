# SPDX-License-Identifier: GPL-2.0-only
"""Every error that emuV's Python face raises on purpose.

One base class, so that a caller can catch the lot; a message that quotes the
bad input; and, where there is something to do, a hint that says what.  The
commands print them as ``emuv: error: …`` and ``emuv: hint: …``.
"""

from __future__ import annotations


class EmuvError(Exception):
    """Base of all errors of emuV: ``message``, and a ``hint`` or ``None``."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message


class CommandError(EmuvError):
    """A command cannot go on; ``exit_code`` is what the shell shall see.

    2 is for usage, 125 for a set-up that failed, 126 and 127 for a program
    that cannot be run or found, 1 for the rest.
    """

    def __init__(self, message: str, hint: str | None = None, *, exit_code: int = 1) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code


class SizeError(EmuvError, ValueError):
    """A size or a budget that emuV does not accept."""


class BudgetTooSmall(EmuvError):
    """A budget below what the process's contexts take by themselves.

    ``vram_bytes`` is the budget asked for, ``overhead_bytes`` what is taken.
    """

    def __init__(
        self, message: str, hint: str | None = None, *, vram_bytes: int, overhead_bytes: int
    ) -> None:
        super().__init__(message, hint)
        self.vram_bytes = vram_bytes
        self.overhead_bytes = overhead_bytes


class NotAttached(EmuvError):
    """No segment for the process: it does not run under emuV, or uses no CUDA yet."""


class Stale(EmuvError):
    """There is a segment, but the process that wrote it has ended."""


class SegmentError(EmuvError):
    """A segment or its directory is unusable: foreign, damaged, busy, too new.

    ``errno`` is the positive number of the failed operation, 0 where none.
    """

    def __init__(self, message: str, hint: str | None = None, *, errno: int = 0) -> None:
        super().__init__(message, hint)
        self.errno = errno


class StatsFileError(EmuvError, ValueError):
    """A statistics file that is not one, or of a schema this emuV cannot read."""
