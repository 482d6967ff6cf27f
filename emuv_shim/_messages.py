# SPDX-License-Identifier: GPL-2.0-only
"""What emuV says to a person: on stderr, one line a message, prefixed ``emuv: ``.

Invariants: nothing here writes to stdout, raises, or imports more than the
standard library; text that came from outside (an option, a file's contents, a
process name) goes through `printable` or `quote`, so that it cannot steer the
terminal.
"""

from __future__ import annotations

import codecs
import os
import shlex
import sys
from typing import TextIO

PREFIX = "emuv: "
_RED, _CYAN, _YELLOW, _RESET = "\x1b[1;31m", "\x1b[36m", "\x1b[33m", "\x1b[0m"


def printable(text: str, limit: int = 300) -> str:
    """`text` on one line: control and undecodable characters escaped, cut at `limit`.

    >>> printable("a\\x1b[2Jb")
    'a\\\\x1b[2Jb'
    """
    shown = "".join(
        c if c.isprintable() else c.encode("unicode_escape", "backslashreplace").decode("ascii")
        for c in text
    )
    return shown if len(shown) <= limit else shown[: limit - 1] + "…"


_PLAIN = {"✔": "+", "✘": "x", "–": "-", "→": "->", "…": "...", "█": "#", "░": ":"}
_SURROGATES = range(0xDC80, 0xDD00)  # bytes that were no text: they go out as they came


def _encode_otherwise(error: UnicodeError) -> tuple[str | bytes, int]:
    """What a stream shows for one character that its encoding does not have."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    character = error.object[error.start]
    if ord(character) in _SURROGATES:
        return bytes([ord(character) - 0xDC00]), error.start + 1
    escaped = character.encode("ascii", "backslashreplace").decode("ascii")
    return _PLAIN.get(character, escaped), error.start + 1


def tolerate(stream: TextIO | None) -> None:
    """From now on `stream` shows every character in some way (LANG=C, latin-1)."""
    codecs.register_error("emuv", _encode_otherwise)
    reconfigure = getattr(stream, "reconfigure", None)
    if reconfigure is not None:  # not where a test or a program has put its own
        reconfigure(errors="emuv")


def quote(text: str) -> str:
    """`text` in double quotes, the way an error repeats what it was given."""
    return '"' + printable(text) + '"'


def command_line(argv: list[str] | tuple[str, ...], limit: int = 120) -> str:
    """`argv` as a person would have typed it, cut at `limit` characters."""
    return printable(" ".join(shlex.quote(word) for word in argv), limit)


def use_colour() -> bool:
    """Colour only on a terminal that wants it (NO_COLOR, TERM=dumb)."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb":
        return False
    try:
        return sys.stderr.isatty()
    except (AttributeError, ValueError):  # no stderr, or a closed one
        return False


def say(text: str) -> None:
    """One line on stderr. A closed or full stderr is not the caller's problem."""
    try:
        sys.stderr.write(PREFIX + text + "\n")
        sys.stderr.flush()
    except (AttributeError, OSError, ValueError):
        pass


def _label(word: str, colour: str) -> str:
    return f"{colour}{word}:{_RESET}" if use_colour() else f"{word}:"


def warning(text: str) -> None:
    """Something the person should know; the program goes on."""
    say(f"{_label('warning', _YELLOW)} {text}")


def error(text: str, hint: str | None = None) -> None:
    """Why the command ends here and, where there is one, what to do about it."""
    say(f"{_label('error', _RED)} {text}")
    if hint:
        say(f"{_label('hint', _CYAN)} {hint}")
