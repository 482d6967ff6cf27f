# SPDX-License-Identifier: GPL-2.0-only
"""Where the console scripts begin.

Most of a start is importing. Until that is over Ctrl-C has its default effect, because
nobody is there yet to turn it into words; where it is ignored (nohup) it stays ignored.
"""

from __future__ import annotations

import importlib
import signal


def _start(module: str) -> int:
    is_taken = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if is_taken:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    main = importlib.import_module(module).main
    if is_taken:
        signal.signal(signal.SIGINT, signal.default_int_handler)
    status: int = main()
    return status


def emuv() -> int:
    """`emuv`."""
    return _start("emuv_shim.commands")


def emuv_run() -> int:
    """`emuv-run`."""
    return _start("emuv_shim.commands.run")
