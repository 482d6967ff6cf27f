# SPDX-License-Identifier: GPL-2.0-only
"""`emuv doctor [PID]`: does emuV work here, and does it hold that process?

Without PID: what emuV needs, piece by piece, and then the proof: a program under
emuv-run takes memory within its budget and must be refused past it, by every
route to the driver, and the refusals must be in emuV's own count (so that a card
that happens to be full proves nothing).

With PID: is the interposer mapped there, is there a segment, was every
allocation counted.

Exit codes: 0 all well; 1 a problem; 3 no GPU.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass, field
from typing import Any

import click

from emuv_shim import __version__, _driver, _libraries, _memory, _segment
from emuv_shim._messages import printable
from emuv_shim.commands import _children, _show
from emuv_shim.controller import Controller
from emuv_shim.errors import CommandError, EmuvError, NotAttached

SCHEMA = 1
OK, PROBLEM, NO_GPU = 0, 1, 3
_NO_DEVICE = 100  # CUDA_ERROR_NO_DEVICE
_MAX_PROBE_BYTES = 2 << 30
_INSIDE_BYTES = 16 << 20
_MARKS = {"ok": ("✔", "green"), "problem": ("✘", "red"), "note": ("–", "yellow")}


@dataclass
class Findings:
    """The rows of the report, in order; `exit_code` is the worst of them."""

    rows: list[dict[str, str]] = field(default_factory=list)
    routes: list[dict[str, Any]] = field(default_factory=list)
    exit_code: int = OK

    def add(self, check: str, problem: str | None, detail: str = "") -> bool:
        """A check that passed (`problem` None) or did not; returns whether it passed."""
        status = "ok" if problem is None else "problem"
        self.rows.append({"check": check, "status": status, "detail": problem or detail})
        if problem is not None and self.exit_code == OK:
            self.exit_code = PROBLEM
        return problem is None

    def note(self, check: str, detail: str) -> None:
        """Something worth knowing that is no problem."""
        self.rows.append({"check": check, "status": "note", "detail": detail})


def _dynamic_facts(path: str) -> tuple[str, str]:
    """(SONAME, newest GLIBC_x.y that it needs) of a shared library."""
    from elftools.elf.dynamic import DynamicSection
    from elftools.elf.elffile import ELFFile
    from elftools.elf.gnuversions import GNUVerNeedSection

    soname, needs = "", (0, 0)
    with open(path, "rb") as file:
        for section in ELFFile(file).iter_sections():
            if isinstance(section, DynamicSection):
                for tag in section.iter_tags("DT_SONAME"):
                    soname = str(getattr(tag, "soname", ""))
            elif isinstance(section, GNUVerNeedSection):
                for _, versions in section.iter_versions():
                    for version in versions:
                        name = str(version.name)
                        if name.startswith("GLIBC_2."):
                            minor = name.split(".")[1]
                            needs = max(needs, (2, int(minor) if minor.isdigit() else 0))
    return soname, ".".join(map(str, needs))


def _check_library(findings: Findings) -> bool:
    path = _driver.libemuv_path()
    for library in (path, _driver.auditor_path()):
        found = _libraries.problem(library)
        if found is not None:
            return findings.add("library", f"{found[0]}; {found[1]}")
    try:
        soname, needs = _dynamic_facts(path)
    except Exception as error:  # pyelftools raises many kinds for a damaged file
        return findings.add("library", f"{path} is damaged: {error}")
    if soname != _driver.SONAME:
        return findings.add("library", f"{path} has soname {soname!r}, not {_driver.SONAME}")
    findings.add("library", None, path)
    name = "CS_GNU_LIBC_VERSION"
    running = (os.confstr(name) or "" if name in os.confstr_names else "").replace("glibc ", "")
    have = tuple(int(part) for part in running.split(".")[:2] if part.isdigit())
    need = tuple(int(part) for part in needs.split("."))
    if not have:
        return findings.add("glibc", "the C library is not glibc, which emuV's library needs")
    too_old = have < need
    return findings.add(
        "glibc",
        f"{running}, and emuV's library needs {needs}" if too_old else None,
        f"{running} (emuV needs {needs})",
    )


def _check_loader(findings: Findings, environ: dict[str, str], directory: str) -> None:
    """Whether a program that is started here loads what emuV comes in by."""
    try:
        named = _libraries.Names(directory)
    except CommandError as error:
        findings.add("loader", error.message)
        return
    preload, auditor = named(_driver.libemuv_path()), named(_driver.auditor_path())
    program = [sys.executable, "-I", "-S", "-c", "print(open('/proc/self/maps').read())"]
    ended = _children.run(program, {**environ, "LD_PRELOAD": preload, "LD_AUDIT": auditor})
    names = {os.path.basename(line.split()[-1]) for line in ended.stdout.splitlines() if line}
    for variable, path in (("LD_PRELOAD", preload), ("LD_AUDIT", auditor)):
        if os.path.basename(path) not in names:
            said = printable(ended.stderr.strip().replace("\n", "; "), 300)
            why = f": {said}" if said else "; do programs gain privileges when they start?"
            findings.add("loader", f"{variable} has no effect on {sys.executable}{why}")
            return
    findings.add("loader", None, "LD_PRELOAD and LD_AUDIT have their effect")


def _check_directory(findings: Findings) -> bool:
    try:
        directory, _ = _segment.locate_directory(create=True)
        with tempfile.NamedTemporaryFile(dir=directory, prefix=".doctor-"):
            pass
    except EmuvError as error:
        return findings.add("runtime directory", error.message)
    except OSError as error:
        return findings.add("runtime directory", f"cannot be written: {error.strerror}")
    return findings.add("runtime directory", None, str(directory))


def _check_driver(findings: Findings, environ: dict[str, str], sim: bool) -> int | None:
    """Bytes of the card that the probe may count on; None where there is none."""
    try:
        driver = _driver.find_driver(environ, sim=sim)
    except CommandError as error:
        findings.add("driver", error.message)
        findings.exit_code = NO_GPU
        return None
    try:
        if driver.is_sim:
            _driver.sim_cards(environ)
    except CommandError as error:  # said in words; the driver has only a code
        findings.add("driver", error.message)
        return None
    answer = _children.ask_cards(driver.path, environ)
    where = f"{driver.path} ({driver.found_by})"
    if answer["code"] == _NO_DEVICE or (answer["code"] == 0 and not answer["devices"]):
        findings.add("driver", f"{where} finds no GPU")
        findings.exit_code = NO_GPU
        return None
    if answer["problem"] is not None or answer["code"] != 0:
        why = answer["problem"] or f"cuInit answered {answer['code']}"
        findings.add("driver", f"{where}: {why}")
        return None
    version = answer["version"]
    kind = "simulated GPU, " if driver.is_sim else ""
    findings.add("driver", None, f"{kind}CUDA {version // 1000}.{version % 1000 // 10}, {where}")
    if not driver.is_sim:
        _check_uvm(findings)
    first = answer["devices"][0]
    findings.note("card", f"{first['name']}, {_show.brief(first['total_bytes'])}")
    return int(first["total_bytes"])


def _check_uvm(findings: Findings) -> None:
    if os.path.exists("/dev/dxg"):
        findings.note(
            "managed memory", "WSL cannot oversubscribe the GPU: caps work, spills do not"
        )
    else:
        there = os.path.exists("/dev/nvidia-uvm")
        missing = "/dev/nvidia-uvm is missing: spills will fail (modprobe nvidia-uvm)"
        findings.add("managed memory", None if there else missing, "/dev/nvidia-uvm")


def _probe(findings: Findings, environ: dict[str, str], sim: bool, card_bytes: int) -> None:
    vram = min(_MAX_PROBE_BYTES, card_bytes // 2)
    inside = min(_INSIDE_BYTES, vram // 4)
    handle, path = tempfile.mkstemp(prefix="emuv-doctor-", suffix=".json")
    os.close(handle)
    options = ["-q", "--vram", str(vram), "--policy", "cap", "--stats", path]
    options += ["--name", "emuv doctor", *(["--sim"] if sim else [])]
    program = [sys.executable, "-I", "-S", _children.PROBE, "budget", str(vram), str(inside)]
    try:
        ended = _children.run([*_children.emuv_run(*options), *program], environ)
        with open(path, encoding="utf-8") as file:
            text = file.read()
    finally:
        os.unlink(path)
    answer = _children.read_json(ended.stdout)
    if answer is None:
        how = "did not end in time" if ended.returncode is None else f"ended {ended.returncode}"
        said = printable(ended.stderr.strip().replace("\n", "; "), 500)
        findings.add("probe", f"the probe {how}: {said}")
        return
    findings.routes = answer["routes"]
    for row in findings.routes:
        findings.add(
            f"probe {row['route']}", None if row["ok"] else _why(row, vram), _granted(vram)
        )
    counted = _denials(text)
    expected = len(findings.routes)
    said = f"{counted} of {expected} refusals are in emuV's count"
    if counted != expected and ended.stderr.strip():
        said += ": " + printable(ended.stderr.strip().replace("\n", "; "), 500)
    findings.add("probe count", None if counted == expected else said, said)


def _granted(vram: int) -> str:
    return f"granted within {_show.brief(vram)}, refused past it"


def _why(row: dict[str, Any], vram: int) -> str:
    if row["problem"] is not None:
        return str(row["problem"])
    if row["granted_code"] != 0:
        return f"an allocation within the budget failed with code {row['granted_code']}"
    if row["refused_code"] == 0:
        return "an allocation past the budget was GRANTED: programs that come this way escape"
    if row["refused_code"] != 2:
        return f"an allocation past the budget failed with code {row['refused_code']}, not 2"
    return (
        f"the card is reported as {_show.brief(row['total_bytes'])} and "
        f"{_show.brief(row['device_total_bytes'])}, not as the budget, {_show.brief(vram)}"
    )


def _denials(text: str) -> int:
    try:
        processes = json.loads(text)["processes"]
        return sum(device["denials"] for process in processes for device in process["devices"])
    except (ValueError, KeyError, TypeError):
        return 0


def _check_process(findings: Findings, pid: int) -> None:
    try:
        with open(f"/proc/{pid}/maps", encoding="utf-8", errors="replace") as file:
            maps = file.read()
    except FileNotFoundError:
        findings.add("process", f"there is no process {pid}")
        return
    except OSError as error:
        findings.add("process", f"process {pid} cannot be looked at: {error.strerror}")
        return
    mapped = sorted({line.split()[-1] for line in maps.splitlines() if "/libemuv.so" in line})
    missing = "libemuv.so is not mapped: the process runs WITHOUT a budget; start it by emuv-run"
    findings.add("interposer", None if mapped else missing, ", ".join(mapped))
    if len(mapped) > 1:
        findings.add("interposer", "two emuVs are mapped; what is allocated counts twice")
    try:
        stats = Controller().stats(pid)
    except NotAttached as error:
        if mapped:
            findings.note("segment", f"{error.message}: {error.hint}")
        else:
            findings.add("segment", error.message)
        return
    except EmuvError as error:
        findings.add("segment", error.message)
        return
    findings.add("segment", None, f"written by emuV {stats.emuv_version}")
    for device in stats.devices:
        if device.seen:
            lost = device.uncounted_calls
            findings.add(
                f"device {device.device}",
                f"{lost} calls could not be counted" if lost else None,
                f"{_show.budget_text(device.vram_bytes, device.virtual_bytes)}, policy "
                f"{stats.policy}, {_show.brief(device.physical_bytes)} on the device, "
                f"{device.denials} refused",
            )


def examine(pid: int | None, sim: bool) -> Findings:
    """All checks; see the module."""
    findings = Findings()
    findings.note("emuV", f"{__version__}, Python {sys.version.split()[0]}")
    library = _check_library(findings)
    directory = _check_directory(findings)
    if pid is not None:
        _check_process(findings, pid)
        return findings
    host = _memory.host_memory()
    if host is not None:
        text = f"{_show.brief(host.bytes)} can be promised as virtual ({host.limited_by})"
        findings.note("host memory", text)
    environ = _children.plain_environ()
    if library and directory:
        _check_loader(findings, environ, str(_segment.locate_directory(create=False)[0]))
    card_bytes = _check_driver(findings, environ, sim)
    if library and directory and card_bytes is not None:
        _probe(findings, environ, sim, card_bytes)
    return findings


def _show_all(findings: Findings) -> None:
    from rich.text import Text

    console = _show.console()
    for item in findings.rows:
        mark, colour = _MARKS[item["status"]]
        line = Text(f"{mark} ", style=colour)
        line.append(f"{item['check']}: ", style="bold")
        line.append(printable(item["detail"], 600), style="")
        _show.show_line(console, line)
    verdict = {OK: "all well", PROBLEM: "there are problems", NO_GPU: "there is no GPU here"}
    hint = "; emuv doctor --sim checks with the simulated GPU" if findings.exit_code == 3 else ""
    _show.show_line(console, Text(verdict[findings.exit_code] + hint))


@click.command(name="doctor")
@click.argument("pid", type=_show.process_id, required=False, metavar="[PID]")
@click.option("--sim", is_flag=True, help="Use the simulated GPU.")
@_show.json_option
def command(pid: int | None, sim: bool, as_json: bool) -> int:
    """Does emuV work here? With PID: does it hold that process?

    Ends with a probe that must be refused. Exit codes: 0 all well; 1 a problem;
    3 no GPU.
    """
    findings = examine(pid, sim)
    if as_json:
        _show.emit_json(
            {
                "schema": SCHEMA,
                "exit_code": findings.exit_code,
                "pid": pid,
                "simulated": sim,
                "checks": findings.rows,
                "routes": findings.routes,
            }
        )
    else:
        _show_all(findings)
    return findings.exit_code
