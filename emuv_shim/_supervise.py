# SPDX-License-Identifier: GPL-2.0-only
"""Staying beside the program (`emuv-run --stats`) without being noticed.

The parent forwards the signals that are meant for the program, waits for it,
and can then end exactly as it ended. Every signal is taken by sigwaitinfo while
blocked, so no handler runs and none is lost between fork and wait; the program
gets the mask and the dispositions that the launcher was started with.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, Sequence

FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
)
# Python ignores these at start; the program must not inherit that.
RESTORED = (signal.SIGPIPE, signal.SIGXFSZ)
_SI_KERNEL = 0x80  # si_code of a signal that the terminal made
_PR_SET_DUMPABLE = 4


def restore_signals() -> None:
    """Before an exec: undo what Python did to the signal dispositions."""
    for number in RESTORED:
        signal.signal(number, signal.SIG_DFL)


def _has_had_it(info: signal.struct_siginfo, child: int) -> bool:
    """True for a key press, which the terminal sent to the whole process group.

    Forwarding it as well would interrupt the program twice.
    """
    if info.si_code != _SI_KERNEL:
        return False
    try:
        return os.getpgid(child) == os.getpgrp()
    except ProcessLookupError:
        return True


def run_program(path: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Start the program, forward signals to it, and return its wait status.

    The wait has no limit: how long a program runs is its own affair. Raises
    OSError where it cannot be started.
    """
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # ignored, it would eat the status
    watched = {*FORWARDED, signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    try:
        child = os.posix_spawn(
            path, list(argv), dict(environ), setsigmask=before, setsigdef=RESTORED
        )
        while True:
            info = signal.sigwaitinfo(watched)
            if info.si_signo == signal.SIGCHLD:
                ended, status = os.waitpid(child, os.WNOHANG)
                if ended == child:
                    return status
            elif not _has_had_it(info, child):
                os.kill(child, info.si_signo)  # ours until waited for: the pid is not reused
    finally:
        # What arrived after the program's end has nobody to go to.
        for number in watched & signal.sigpending():
            signal.sigtimedwait({number}, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def end_as(status: int) -> int:
    """End like a child with wait status `status`: by the same signal, or return its code.

    No second core is written: the program's own is the one worth keeping.
    """
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, OSError, ValueError):
            stream.flush()
    _no_core()
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    return 128 + number  # only where the signal could not end this process


def _no_core() -> None:
    """A core limit of 0 does not stop a core handler behind a pipe; not being dumpable does."""
    import ctypes
    import resource

    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))
    ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)
