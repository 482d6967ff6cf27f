# SPDX-License-Identifier: GPL-2.0-only
"""Finding the CUDA driver that emuV stands in front of, and what is known of it.

The answer is an absolute path for EMUV_DRIVER. It is never emuV's own
libemuv.so (the shim would load itself), never a toolkit's stub library, and
always a file of the ELF class and machine that this Python is: another one
could not be loaded beside it. The simulated GPU is found only where it was
asked for.

No driver is loaded here. `machine_cards` asks NVML, because the answer is worth a
better error and not more than that.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

from emuv_shim import _nvml, _visible
from emuv_shim._messages import quote
from emuv_shim.errors import CommandError

SONAME = "libcuda.so.1"
NVML_SONAME = "libnvidia-ml.so.1"
DEFAULT_SIM_BYTES = 8 << 30

_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_STANDARD = (
    "/usr/lib64",
    "/usr/lib",
    "/lib64",
    "/lib",
    "/usr/lib64/nvidia",
    "/usr/lib/nvidia",
    "/usr/local/nvidia/lib64",
    "/usr/local/nvidia/lib",
    "/run/opengl-driver/lib",
)
_WSL = "/usr/lib/wsl/lib"


class DriverError(CommandError):
    """No usable driver (exit code 125); `hint` says what would help."""

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message, hint, exit_code=125)


@dataclass(frozen=True)
class Driver:
    """The driver that the shim will load, and how it was found."""

    path: str
    found_by: str
    is_sim: bool


def libemuv_path() -> str:
    """Where the package keeps the interposer (it may not have been built)."""
    return os.path.join(_PACKAGE, "_lib", "libemuv.so")


def libemuv_nvml_path() -> str:
    """Where the package keeps NVML as programs under emuV see it."""
    return os.path.join(_PACKAGE, "_lib", "libemuv-nvml.so")


def auditor_path() -> str:
    """Where the package keeps the auditor that leads the dynamic loader to the interposer."""
    return os.path.join(_PACKAGE, "_lib", "libemuv-audit.so")


def sim_path() -> str:
    """Where the package keeps the simulated GPU's driver."""
    return os.path.join(_PACKAGE, "_lib", "sim", SONAME)


def runtimes_beside(driver: Driver) -> list[str]:
    """The simulated GPU's libcudart stand-ins, newest first; none for a real driver."""
    folder = os.path.dirname(driver.path)
    paths = [os.path.join(folder, f"libcudart.so.{major}") for major in (13, 12)]
    return [path for path in paths if os.path.exists(path)] if driver.is_sim else []


def _same_file(a: str, b: str) -> bool:
    try:
        return os.path.samefile(a, b)
    except OSError:
        return False


def elf_identity(path: str) -> tuple[int, int, int, int] | None:
    """(class, byte order, type, machine) of an ELF file's header; None if it has none.

    Raises OSError where the file cannot be read.
    """
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        head = os.read(fd, 20)
    finally:
        os.close(fd)
    if len(head) < 20 or head[:4] != b"\x7fELF" or head[4] not in (1, 2) or head[5] not in (1, 2):
        return None
    kind, machine = struct.unpack(("<" if head[5] == 1 else ">") + "HH", head[16:20])
    return head[4], head[5], kind, machine


def own_identity() -> tuple[int, int, int, int]:
    """`elf_identity` of the running Python: what a loadable library must agree with."""
    identity = elf_identity("/proc/self/exe")
    if identity is None:  # not reachable on Linux; say it rather than guess
        raise DriverError("cannot read /proc/self/exe", "mount /proc")
    return identity


def refuse_reason(path: str, *, allow_sim: bool = False) -> str | None:
    """Why `path` cannot be the driver, in words; None if it can be."""
    try:
        identity = elf_identity(path)
    except FileNotFoundError:
        return "no such file"
    except OSError as error:
        return (error.strerror or "cannot be read").lower()
    if identity is None:
        return "not an ELF library"
    own = own_identity()
    if identity[:2] != own[:2] or identity[3] != own[3]:
        return "built for another kind of processor"
    if identity[2] != 3:  # ET_DYN
        return "not a shared library"
    real = os.path.realpath(path)
    folder, base = os.path.split(real)
    is_front = os.path.basename(folder) == "front" and os.path.exists(f"{folder}/../libemuv.so")
    if is_front or base in ("libemuv.so", "libemuv-nvml.so") or any(
        _same_file(path, own) for own in (libemuv_path(), libemuv_nvml_path())
    ):
        return "emuV's own interposer, not a driver"
    if "stubs" in os.path.normpath(path).split("/") or "stubs" in real.split("/"):
        return "a toolkit's stub for linking, not a driver"
    if not allow_sim and _same_file(path, sim_path()):
        return "the simulated GPU"
    return None


def _from_ldconfig(soname: str) -> list[str]:
    """What the loader's cache has under the soname, in its order."""
    import subprocess

    for tool in ("/sbin/ldconfig", "/usr/sbin/ldconfig", "ldconfig"):
        try:
            done = subprocess.run(
                [tool, "-p"],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                timeout=5,
                env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
            )
        except (OSError, subprocess.SubprocessError):
            continue
        found = []
        for line in done.stdout.decode("utf-8", "surrogateescape").splitlines():
            name, arrow, path = line.partition(" => ")
            if arrow and name.split()[:1] == [soname]:
                found.append(path.strip())
        return found
    return []


def candidates(environ: Mapping[str, str], soname: str = SONAME) -> Iterator[tuple[str, str]]:
    """(path, how it was found) of every place worth a look, best first."""
    for directory in environ.get("LD_LIBRARY_PATH", "").replace(";", ":").split(":"):
        if os.path.isabs(directory):
            yield os.path.join(directory, soname), "LD_LIBRARY_PATH"
    # Under WSL the working driver is this one, even where another is installed.
    if os.path.exists("/dev/dxg"):
        yield os.path.join(_WSL, soname), "WSL"
    for path in _from_ldconfig(soname):
        yield path, "the loader's cache"
    triplet = getattr(sys.implementation, "_multiarch", "")
    if triplet:
        yield os.path.join("/usr/lib", triplet, soname), "a standard directory"
        yield os.path.join("/lib", triplet, soname), "a standard directory"
    for directory in _STANDARD:
        yield os.path.join(directory, soname), "a standard directory"
    yield os.path.join(_WSL, soname), "WSL"


def find_driver(environ: Mapping[str, str], *, sim: bool = False) -> Driver:
    """The driver to stand in front of.

    `sim` asks for the simulated GPU. EMUV_DRIVER, where set, is obeyed or
    refused in words, never passed over. Raises DriverError.
    """
    if sim:
        reason = refuse_reason(sim_path(), allow_sim=True)
        if reason:
            raise DriverError(
                f"the simulated GPU {quote(sim_path())} is not usable: {reason}",
                "build or install emuV again: pip install .",
            )
        return Driver(sim_path(), "--sim", True)
    given = environ.get("EMUV_DRIVER")
    if given:
        # Inherited from an outer emuv-run --sim, or set by the user: both asked for it.
        reason = "not an absolute path" if not os.path.isabs(given) else None
        reason = reason or refuse_reason(given, allow_sim=True)
        if reason:
            raise DriverError(
                f"EMUV_DRIVER={quote(given)}: {reason}",
                f"give the absolute path of the driver's {SONAME}, or unset EMUV_DRIVER",
            )
        return Driver(given, "EMUV_DRIVER", _same_file(given, sim_path()))
    passed_over = ""
    for path, found_by in candidates(environ):
        reason = refuse_reason(path)
        if reason is None:
            return Driver(os.path.abspath(path), found_by, False)
        if reason != "no such file" and not passed_over:
            passed_over = f" ({path}: {reason})"
    raise DriverError(
        f"no NVIDIA driver found: no {SONAME} that can be loaded{passed_over}",
        "use --sim for the simulated GPU, or set EMUV_DRIVER to the driver's path",
    )


def find_nvml(driver: Driver | None, environ: Mapping[str, str]) -> str | None:
    """The machine's NVML, by absolute path; None where there is none that could be loaded.

    That of the simulated GPU is the one beside it. EMUV_NVML, where set, is obeyed or
    refused in words (DriverError); of a simulated machine's it is an outer emuv-run's.
    """
    beside = os.path.join(os.path.dirname(sim_path()), NVML_SONAME)
    if driver is not None and driver.is_sim:
        return beside if refuse_reason(beside) is None else None
    given = environ.get("EMUV_NVML")
    if given and not _same_file(given, beside):
        reason = "not an absolute path" if not os.path.isabs(given) else refuse_reason(given)
        if reason:
            raise DriverError(
                f"EMUV_NVML={quote(given)}: {reason}",
                f"give the absolute path of the machine's {NVML_SONAME}, or unset EMUV_NVML",
            )
        return given
    # Of the same installation as the driver, where it has one.
    folders = [] if driver is None else [os.path.dirname(os.path.abspath(driver.path))]
    near = (os.path.join(folder, NVML_SONAME) for folder in folders)
    for path in chain(near, (path for path, _ in candidates(environ, NVML_SONAME))):
        if refuse_reason(path) is None and not _same_file(path, beside):
            return os.path.abspath(path)
    return None


def sim_cards(environ: Mapping[str, str]) -> list[int]:
    """Bytes of each simulated card, as the simulated GPU will read the environment.

    Raises DriverError for a value that it would not understand.
    """
    values = []
    for name, default, most in (
        ("EMUV_SIM_VRAM", DEFAULT_SIM_BYTES, 1 << 62),
        ("EMUV_SIM_DEVICES", 1, 16),
    ):
        text = environ.get(name, "")
        if not text:
            values.append(default)
        elif text.isascii() and text.isdigit() and 0 < int(text) <= most:
            values.append(int(text))
        else:
            raise DriverError(
                f"{name}={quote(text)}: not a whole number from 1 to {most}",
                f"{name} takes plain decimal digits"
                + (" (bytes)" if name == "EMUV_SIM_VRAM" else ""),
            )
    return [values[0]] * values[1]


def machine_cards(driver: Driver, environ: Mapping[str, str]) -> list[_nvml.Card]:
    """The cards of the machine that `driver` drives, by NVML's order; [] where not known."""
    if driver.is_sim:
        return [
            _nvml.Card(index, _sim_uuid(index), "", size)
            for index, size in enumerate(sim_cards(environ))
        ]
    answer = _nvml.ask(find_nvml(driver, environ))
    # emuV's own stand-in tells of simulated cards.
    return [] if answer is None or answer.simulated else list(answer.cards)


def _sim_uuid(index: int) -> str:
    """csrc/sim/identity.h."""
    return f"GPU-{0x11 * index:02x}e34d75-5673-416d-8a1c-0d2f5b9764c8"


def seen_bytes(cards: Sequence[_nvml.Card], environ: Mapping[str, str]) -> list[int]:
    """Bytes of each of the machine's cards that CUDA_VISIBLE_DEVICES leaves; [] for "not known".

    CUDA and NVML may number unequal cards differently: a caller may use the largest to
    see that a budget fits none, and a single figure only where all agree. A slice of a
    card (MIG) has another size than NVML gives here.
    """
    text = environ.get("CUDA_VISIBLE_DEVICES")
    return [cards[i].total_bytes for i in _visible.seen(text, [card.uuid for card in cards])]
