# SPDX-License-Identifier: GPL-2.0-only
"""emuV's own libraries as the dynamic loader will be told of them.

The loader only warns of a library that it cannot load, and starts the program
without it: without a budget. So what can be known is asked first: is the file
there, is it a library for this machine, may it be mapped for execution.

LD_PRELOAD, LD_AUDIT and LD_LIBRARY_PATH have no way to quote. Where emuV is
installed under a path that they cannot hold, its folder is reached through a
link in the runtime directory, which is the user's own.
"""

from __future__ import annotations

import errno
import hashlib
import mmap
import os
import re

from emuv_shim import _driver
from emuv_shim._messages import quote
from emuv_shim.errors import CommandError

NO_SETUP = 125
_AGAIN = "build or install emuV again: pip install ."
_ELSEWHERE = "install emuV (its virtual environment) somewhere else"


def problem(path: str) -> tuple[str, str] | None:
    """(what keeps the loader from loading `path`, what to do); None: nothing that shows."""
    reason = _driver.refuse_reason(path, allow_sim=True)
    if reason == "no such file":
        return f"emuV's library {quote(path)} is missing", _AGAIN
    if reason is not None and not reason.startswith("emuV's own"):
        return f"emuV's library {quote(path)} cannot be loaded: {reason}", _AGAIN
    try:
        with open(path, "rb") as file:
            access = mmap.PROT_READ | mmap.PROT_EXEC
            mmap.mmap(file.fileno(), 0, mmap.MAP_PRIVATE, access).close()
    except OSError as error:
        if error.errno == errno.EPERM:
            return (
                f"emuV's library {quote(path)} may not be executed: "
                "it is on a file system that is mounted noexec",
                _ELSEWHERE,
            )
        why = (error.strerror or str(error)).lower()
        return f"emuV's library {quote(path)} cannot be loaded: {why}", _AGAIN
    return None


def check(*paths: str) -> None:
    """Raises CommandError (125) for the first that cannot be loaded."""
    for path in paths:
        found = problem(path)
        if found is not None:
            raise CommandError(*found, exit_code=NO_SETUP)


def can_be_named(path: str) -> bool:
    """Whether each of the loader's lists can hold `path`: `$` begins a token of theirs."""
    return re.search(r"[\s:;$]", path) is None


class Names:
    """The names by which a run knows emuV's libraries.

    `runtime_directory` holds the link, where one is needed; `make` False only
    says how it would be called. Raises CommandError where there is no name.
    """

    def __init__(self, runtime_directory: str, *, make: bool = True) -> None:
        self._folder = os.path.dirname(_driver.libemuv_path())
        self._named = self._folder
        if can_be_named(self._folder):
            return
        key = hashlib.sha256(os.fsencode(self._folder)).hexdigest()[:12]
        # The last part stays as it is: by it emuV knows its own libraries again.
        above = os.path.join(runtime_directory, f"lib-{key}")
        self._named = os.path.join(above, os.path.basename(self._folder))
        if not can_be_named(self._named):
            raise CommandError(
                f"emuV is installed under a path with a blank or one of : ; $, "
                f"{quote(self._folder)}, which LD_PRELOAD cannot name, and so is its runtime "
                f"directory, {quote(runtime_directory)}",
                f"{_ELSEWHERE}, or set EMUV_RUNTIME_DIR to a path without them",
                exit_code=NO_SETUP,
            )
        if make:
            self._make_link(above)

    def __call__(self, path: str) -> str:
        """The name of a library (or folder) of emuV's."""
        if path == self._folder or path.startswith(self._folder + "/"):
            return self._named + path[len(self._folder) :]
        return path

    def _make_link(self, above: str) -> None:
        try:
            if os.path.islink(self._named) and os.readlink(self._named) == self._folder:
                return
            os.makedirs(above, 0o700, exist_ok=True)
            made = f"{self._named}.{os.getpid()}"
            os.symlink(self._folder, made)
            os.replace(made, self._named)
        except OSError as error:
            raise CommandError(
                f"emuV is installed under a path that LD_PRELOAD cannot name, "
                f"{quote(self._folder)}, and no link to it can be made, {quote(self._named)}: "
                f"{(error.strerror or str(error)).lower()}",
                _ELSEWHERE,
                exit_code=NO_SETUP,
            ) from None
