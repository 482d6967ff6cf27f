# SPDX-License-Identifier: GPL-2.0-only
"""What `emuv-run` will start, worked out from options and environment.

Pure: nothing here looks at the machine. The caller says what the machine is
like (the driver, the cards, the host's memory); the answer is a `Plan`: the
changes to the environment, the argument vector, and one line for a person.

Precedence: a flag, else the EMUV_* variable, else the default. A policy and a
virtual that contradict each other are an error where both were given in the
same way; otherwise the flag drops what the environment said.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from emuv_shim import _visible
from emuv_shim._keep import parse_keep
from emuv_shim._messages import command_line, quote
from emuv_shim._sizes import (
    MAX_DEVICES,
    DeviceNamed,
    Sizes,
    devices_by_name,
    format_size,
    is_tiny,
    parse_sizes,
)
from emuv_shim.budget import ALLOCATIONS, POLICIES
from emuv_shim.errors import CommandError, SizeError

USAGE, NO_SETUP = 2, 125
NAME_BYTES = 63  # EMUV_TEXT_BYTES of the segment, without its NUL
_PRETEND_CARD = 1 << 40  # what percentages are of while only the syntax is looked at


@dataclass(frozen=True)
class Request:
    """The command line of emuv-run as given; None is "not given"."""

    command: tuple[str, ...]
    vram: str | None = None
    virtual: str | None = None
    policy: str | None = None
    allocation: str | None = None
    keep_device: str | None = None
    device: int | None = None
    name: str | None = None
    quiet: bool = False
    keep: bool = False  # --stats: the launcher collects the segments
    audit: bool = False
    shared: bool = False  # one budget for all processes of the run


@dataclass(frozen=True)
class BudgetPlan:
    """The budget in bytes, ready to be handed on."""

    vram: Sizes
    virtual: Sizes | None
    policy: str
    allocation: str

    def promised_bytes(self) -> int:
        """The most virtual that one device, or the devices named, may come to."""
        if self.virtual is None:
            return 0
        if self.virtual.by_device:
            return sum(size or 0 for _, size in self.virtual.by_device)
        return self.virtual.everywhere or 0

    def describe(self) -> str:
        """``vram 192 MiB, virtual 1024 MiB, policy spill``."""
        parts = [f"vram {_show(self.vram)}"]
        if self.virtual is not None:
            parts.append(f"virtual {_show(self.virtual)}")
        return ", ".join([*parts, f"policy {self.policy}"])


@dataclass(frozen=True)
class Machine:
    """What the launcher found out: absolute paths, and the cards' bytes if known."""

    libemuv: str
    driver: str
    sim_directory: str | None  # where the driver is the simulated GPU
    runtime_directory: str
    run_id: str
    preload: bool = True
    runtimes: tuple[str, ...] = ()  # the simulated GPU's libcudart stand-ins
    nvml: str | None = None  # the machine's NVML
    libemuv_nvml: str | None = None  # emuV's in front of it
    auditor: str = ""  # what --audit gives the dynamic loader


@dataclass(frozen=True)
class Plan:
    """What to execve: `changes` are (name, value), None to remove the variable."""

    path: str
    argv: tuple[str, ...]
    changes: tuple[tuple[str, str | None], ...] = field(default=())
    summary: str = ""

    def environ(self, environ: Mapping[str, str]) -> dict[str, str]:
        """`environ` with the changes made."""
        made = dict(environ)
        for name, value in self.changes:
            if value is None:
                made.pop(name, None)
            else:
                made[name] = value
        return made


def _show(sizes: Sizes) -> str:
    """Sizes for a person: one figure, or ``0=4096 MiB, 1=8192 MiB``."""
    if not sizes.by_device:
        return format_size(sizes.everywhere)
    return ", ".join(f"{device}={format_size(size)}" for device, size in sizes.by_device)


def tiny_size(text: str, called: str) -> str:
    """What to say of a size for which `is_tiny` holds."""
    return f"{called} {quote(text)} is in bytes; gibibytes are written with a G, as in 8G"


def _choose(flag: str | None, environ: Mapping[str, str], option: str) -> tuple[str | None, str]:
    """(value, what it is called in a message); an empty variable is as none."""
    if flag is not None:
        return flag, f"--{option}"
    variable = f"EMUV_{option.upper()}"
    return environ.get(variable) or None, variable


def _choice(
    flag: str | None, environ: Mapping[str, str], option: str, accepted: Sequence[str]
) -> str | None:
    value, called = _choose(flag, environ, option)
    if value is not None and value not in accepted:
        raise CommandError(
            f"{called} {quote(value)} is not one of: {', '.join(accepted)}", exit_code=USAGE
        )
    return value


def _sizes(
    text: str,
    called: str,
    cards: Sequence[int],
    named: DeviceNamed | None,
    *,
    vram: Sizes | None = None,
) -> Sizes:
    """`parse_sizes` with the name of the option in its error.

    With `vram` the text is a virtual: ``1.5x`` is understood, ``none`` is not.
    """
    same = cards[0] if cards and len(set(cards)) == 1 else None
    try:
        return parse_sizes(text, device_bytes=same, vram=vram, allow_none=vram is None, named=named)
    except SizeError as error:
        raise CommandError(f"{called}: {error.message}", error.hint, exit_code=USAGE) from None


def _policy_and_virtual(
    request: Request, environ: Mapping[str, str]
) -> tuple[str, str | None, str]:
    """(policy, text of the virtual or None, what it is called): UX precedence."""
    policy = _choice(request.policy, environ, "policy", POLICIES)
    virtual, called = _choose(request.virtual, environ, "virtual")
    if called == "EMUV_VIRTUAL" and virtual == "0":
        virtual = None  # the shim's way to write that there is none
    if virtual is not None and policy == "cap":
        policy_is_flag, virtual_is_flag = request.policy is not None, request.virtual is not None
        if policy_is_flag == virtual_is_flag:
            raise CommandError(
                f"policy cap and {called} {quote(virtual)} contradict each other: "
                "cap refuses what exceeds the vram, virtual is what may exceed it",
                "leave one of them out",
                exit_code=USAGE,
            )
        if policy_is_flag:
            virtual = None
        else:
            policy = "spill"
    if virtual is None and policy == "spill":
        asked = "--policy" if request.policy is not None else "EMUV_POLICY"
        raise CommandError(
            f"{asked} spill needs to know how far: there is no virtual",
            "give --virtual SIZE, for example --virtual 8GiB or --virtual 1.5x",
            exit_code=USAGE,
        )
    return ("spill" if virtual is not None else "cap"), virtual, called


def plan_budget(
    request: Request,
    environ: Mapping[str, str],
    cards: Sequence[int] = (),
    named: DeviceNamed | None = None,
) -> BudgetPlan:
    """The budget that options and environment ask for.

    `cards` are the bytes of the cards that the program will see (before --device);
    empty where not known. `named` finds a device by its UUID. Raises CommandError:
    2 for what makes no sense, 125 for what this machine's cards cannot do.
    """
    policy, virtual_text, virtual_called = _policy_and_virtual(request, environ)
    allocation = _choice(request.allocation, environ, "allocation", ALLOCATIONS) or "lazy"
    vram_text, vram_called = _choose(request.vram, environ, "vram")
    if vram_text is not None:
        vram = _sizes(vram_text, vram_called, cards, named)
    elif virtual_text is not None and len(set(cards)) == 1:
        vram = Sizes(everywhere=cards[0])  # the whole card, and the virtual beyond it
    else:
        vram = Sizes()
    virtual = None
    if virtual_text is not None:
        if not vram.by_device and vram.everywhere is None:
            raise CommandError(
                f"{virtual_called} {quote(virtual_text)} without a vram: "
                "there is no limit for it to begin at",
                "give --vram SIZE",
                exit_code=USAGE,
            )
        virtual = _sizes(virtual_text, virtual_called, cards, named, vram=vram)
    ordinals = [d for sizes in (vram, virtual) if sizes for d, _ in sizes.by_device]
    if named is None and names_devices(request, environ):
        ordinals = []  # they stand for devices that nobody has found yet
    if _device(request, environ) is not None and any(ordinals):
        raise CommandError(
            f"a size names device {max(ordinals)}, but with --device the program sees one: 0",
            "name device 0, or give one size",
            exit_code=USAGE,
        )
    if cards and any(device >= len(cards) for device in ordinals):
        visible = environ.get("CUDA_VISIBLE_DEVICES")
        among = "the machine has" if visible is None else f"CUDA_VISIBLE_DEVICES={visible} leaves"
        raise CommandError(
            f"a size names device {max(ordinals)}, and {among} {len(cards)}",
            "devices count from 0",
            exit_code=NO_SETUP,
        )
    most = max(cards, default=None)
    wanted = [s for _, s in vram.by_device] if vram.by_device else [vram.everywhere]
    largest = max((size for size in wanted if size is not None), default=0)
    if most is not None and largest > most:
        raise CommandError(
            f"{vram_called} {quote(vram_text or '')} is {format_size(largest)}, "
            f"more than the card has: {format_size(most)}",
            "give at most what the card has, and --virtual SIZE for what goes beyond it",
            exit_code=NO_SETUP,
        )
    return BudgetPlan(vram, virtual, policy, allocation)


def names_devices(request: Request, environ: Mapping[str, str]) -> bool:
    """Whether a size names a device by its UUID, so that `plan_budget` needs to know them."""
    chosen = [_choose(getattr(request, name), environ, name)[0] for name in ("vram", "virtual")]
    return any(text is not None and devices_by_name(text) for text in chosen)


def device_named(name: str, uuids: Sequence[str], visible: str | None) -> int:
    """The ordinal of the only device that a UUID, or the beginning of one, means.

    `uuids` are those of the devices that the program will see, in its order. Raises
    CommandError (125).
    """
    found = _visible.ordinals_named(name, uuids, visible)
    if len(found) == 1:
        return found[0]
    kind = "MIG-" if _visible.is_mig(visible) else "GPU-"
    those = ", ".join(kind + uuid for uuid in uuids) or "none"
    raise CommandError(
        f"a size names device {quote(name)}, which "
        + ("is several" if found else "is none")
        + " of those that the program sees",
        f"it sees {those}",
        exit_code=NO_SETUP,
    )


def tiny_sizes(request: Request, environ: Mapping[str, str]) -> list[str]:
    """A warning for each size that is a number without a unit, and hardly meant as bytes."""
    chosen = [_choose(getattr(request, name), environ, name) for name in ("vram", "virtual")]
    return [tiny_size(text, called) for text, called in chosen if text and is_tiny(text)]


def check_syntax(request: Request, environ: Mapping[str, str]) -> None:
    """Every usage error that shows without looking at the machine (exit code 2)."""
    if not request.command:
        raise CommandError(
            "no command to run", "emuv-run [options] [--] COMMAND [ARGUMENT]…", exit_code=USAGE
        )
    try:
        plan_budget(request, environ, [_PRETEND_CARD])
    except CommandError as error:
        if error.exit_code == USAGE:
            raise
    _device(request, environ)
    program_name(request, environ)
    wants_audit(request, environ)
    keep_device(request, environ)
    wants_shared(request, environ)


def _switch(flag: bool, environ: Mapping[str, str], variable: str) -> bool:
    """A flag, or a variable that is 1 or 0."""
    text = environ.get(variable, "")
    if not flag and text not in ("", "0", "1"):
        raise CommandError(f"{variable} {quote(text)} is not one of: 0, 1", exit_code=USAGE)
    return flag or text == "1"


def is_in_shared_run(environ: Mapping[str, str]) -> bool:
    """True where the launcher itself runs under an outer `emuv-run --shared`."""
    return is_nested(environ) and environ.get("EMUV_SHARED") == "1"


def wants_shared(request: Request, environ: Mapping[str, str]) -> bool:
    """--shared or EMUV_SHARED=1.

    Within a shared run everything shares the run's budget: another one is refused,
    because it would either not hold or be a hole in the run's.
    """
    wanted = _switch(request.shared, environ, "EMUV_SHARED")
    if is_in_shared_run(environ):
        for option in ("vram", "virtual", "policy", "allocation"):
            if getattr(request, option) is not None:
                raise CommandError(
                    f"--{option} within a shared run: its processes have one budget, "
                    f"that of run {environ['EMUV_RUN']}",
                    f"change that one: emuv set {environ['EMUV_RUN']} --vram SIZE",
                    exit_code=USAGE,
                )
    return wanted


def wants_audit(request: Request, environ: Mapping[str, str]) -> bool:
    """--audit or EMUV_AUDIT=1: the loader's auditor as well as the preload."""
    return _switch(request.audit, environ, "EMUV_AUDIT")


def keep_device(request: Request, environ: Mapping[str, str]) -> str | None:
    """The rules of --keep-device or EMUV_KEEP_DEVICE in the shim's form; None: none."""
    text, called = request.keep_device, "--keep-device"
    if text is None:
        text, called = environ.get("EMUV_KEEP_DEVICE") or None, "EMUV_KEEP_DEVICE"
    if text is None:
        return None
    try:
        return parse_keep(text)
    except SizeError as error:
        raise CommandError(f"{called}: {error.message}", error.hint, exit_code=USAGE) from None


def idle_rules(request: Request, made: Mapping[str, str]) -> list[str]:
    """A warning where --keep-device was given and nothing spills, in the program's environment.

    Not for rules from the environment: those may be meant for other runs.
    """
    if request.keep_device is None or "EMUV_KEEP_DEVICE" not in made:
        return []
    if made["EMUV_POLICY"] != "cap":
        return []
    return ["--keep-device has no effect: nothing spills where there is no virtual (--virtual)"]


def _device(request: Request, environ: Mapping[str, str]) -> int | None:
    """The ordinal asked for by --device or EMUV_DEVICE."""
    if request.device is not None:
        text, called = str(request.device), "--device"
    else:
        text, called = environ.get("EMUV_DEVICE", ""), "EMUV_DEVICE"
    if not text:
        return None
    if not re.fullmatch("[0-9]{1,9}", text) or int(text) >= MAX_DEVICES:
        raise CommandError(
            f"{called} {quote(text)} is not a device: 0 to {MAX_DEVICES - 1}", exit_code=USAGE
        )
    return int(text)


def program_name(request: Request, environ: Mapping[str, str]) -> str | None:
    """The name to publish, checked: printable, at most NAME_BYTES bytes of UTF-8."""
    name, called = _choose(request.name, environ, "name")
    if name is None:
        return None
    if not name.isprintable() or not 0 < len(name.encode("utf-8", "replace")) <= NAME_BYTES:
        raise CommandError(
            f"{called} {quote(name)} is not a name: 1 to {NAME_BYTES} bytes of printable text",
            exit_code=USAGE,
        )
    return name


def visible_devices(
    request: Request, environ: Mapping[str, str], n_cards: int | None = None
) -> str | None:
    """The CUDA_VISIBLE_DEVICES that --device asks for; None leaves it as it is.

    `n_cards`: how many devices the program would see without it, where that is known.

    Where the variable is set already (a scheduler gave some of the cards), the
    ordinal counts within it: emuV never reaches a card that was not given.
    """
    device = _device(request, environ)
    if device is None:
        return None
    text = environ.get("CUDA_VISIBLE_DEVICES")
    given = _visible.entries(text)
    count = n_cards if given is None or n_cards is not None else len(given)
    if count is not None and device >= count:
        among = f"CUDA_VISIBLE_DEVICES={text}" if given is not None else "the machine"
        raise CommandError(
            f"there is no device {device}: {among} has {count}",
            "devices count from 0",
            exit_code=NO_SETUP,
        )
    return given[device] if given is not None else str(device)


def check_host(budget: BudgetPlan, available_bytes: int | None, limited_by: str = "") -> None:
    """Raises CommandError (125) for a virtual that the host's RAM cannot back."""
    promised = budget.promised_bytes()
    if available_bytes is None or promised <= available_bytes:
        return
    raise CommandError(
        f"virtual is {format_size(promised)}, more than the host can back: "
        f"{format_size(available_bytes)} ({limited_by})",
        "spilled memory lives in host RAM and cannot be swapped: give a smaller --virtual",
        exit_code=NO_SETUP,
    )


def is_own_preload(item: str) -> bool:
    """True for an item of LD_PRELOAD that an emuv-run put there, of whatever installation."""
    return bool(re.search(r"(^|/)(libemuv(-nvml)?\.so|_lib/sim/libcudart\.so\.\d+)$", item))


def preload(libraries: Sequence[str], existing: str | None) -> str:
    """LD_PRELOAD with emuV's libraries first and every other one kept, in order.

    An emuV that is there already (an outer emuv-run's, maybe of another
    installation) is dropped: two of them would count everything twice.
    """
    items = re.split(r"[\s:]+", existing or "")
    return ":".join([*libraries, *(item for item in items if item and not is_own_preload(item))])


def auditors(own: Sequence[str], existing: str | None) -> str | None:
    """LD_AUDIT with `own` first, every other one kept, and an outer emuv-run's dropped."""
    items = [item for item in (existing or "").split(":") if item]
    return ":".join([*own, *(i for i in items if not i.endswith("/libemuv-audit.so"))]) or None


def _prepend_path(directory: str, existing: str | None) -> str:
    """A search path with `directory` first and once; no empty item (it means ".")."""
    others = [item for item in (existing or "").split(":") if item and item != directory]
    return ":".join([directory, *others])


def front_directory(libemuv: str) -> str:
    """Where libcuda.so and libcuda.so.1 are names for libemuv.so: beside it."""
    return libemuv.rpartition("/")[0] + "/front"


def is_nested(environ: Mapping[str, str]) -> bool:
    """True where the launcher itself was started by an outer emuv-run."""
    items = re.split(r"[\s:]+", environ.get("LD_PRELOAD", ""))
    return bool(environ.get("EMUV_RUN")) and any(i.endswith("/libemuv.so") for i in items)


def make_plan(
    request: Request,
    environ: Mapping[str, str],
    path: str,
    budget: BudgetPlan,
    machine: Machine,
    n_cards: int | None = None,
) -> Plan:
    """The Plan for starting `path` under `budget`."""
    # A nested run without --stats of its own belongs to the outer run, whose
    # launcher will collect what it leaves.  Within a shared run it does in any case,
    # and one that begins a shared run never does.
    shared = wants_shared(request, environ)
    joins = is_in_shared_run(environ)
    inherits = joins or (is_nested(environ) and not request.keep and not shared)
    keep = "1" if request.keep else (environ.get("EMUV_KEEP") if inherits else None)
    changes: list[tuple[str, str | None]] = [
        ("EMUV_VRAM", budget.vram.to_env()),
        ("EMUV_VIRTUAL", budget.virtual.to_env() if budget.virtual is not None else None),
        ("EMUV_POLICY", budget.policy),
        ("EMUV_ALLOCATION", budget.allocation),
        ("EMUV_KEEP_DEVICE", keep_device(request, environ)),
        ("EMUV_DRIVER", machine.driver),
        ("EMUV_NVML", machine.nvml if machine.libemuv_nvml else None),
        ("EMUV_NAME", program_name(request, environ)),
        ("EMUV_RUN", environ["EMUV_RUN"] if inherits else machine.run_id),
        ("EMUV_SHARED", "1" if shared else None),
        ("EMUV_RUNTIME_DIR", machine.runtime_directory),
        ("EMUV_KEEP", keep),
        ("EMUV_QUIET", "1" if request.quiet else environ.get("EMUV_QUIET")),
        ("EMUV_DEVICE", None),
    ]
    visible = visible_devices(request, environ, n_cards)
    if visible is not None:
        changes.append(("CUDA_VISIBLE_DEVICES", visible))
    search = environ.get("LD_LIBRARY_PATH")
    if machine.sim_directory is not None:
        # Programs that open the driver past libemuv.so find the simulated one too.
        search = _prepend_path(machine.sim_directory, search)
    if machine.preload:
        # The search path is not enough for libcudart: a program's own RPATH comes first.
        libraries = [machine.libemuv, *machine.runtimes]
        if machine.nvml is not None and machine.libemuv_nvml is not None:
            libraries.insert(1, machine.libemuv_nvml)
        # And those that look for the driver past it find libemuv.so (csrc/front).
        search = _prepend_path(front_directory(machine.libemuv), search)
        changes.append(("LD_PRELOAD", preload(libraries, environ.get("LD_PRELOAD"))))
        audit = wants_audit(request, environ)
        changes.append(("EMUV_AUDIT", "1" if audit else None))
        own = [machine.auditor] if audit else []
        changes.append(("LD_AUDIT", auditors(own, environ.get("LD_AUDIT"))))
    changes.append(("LD_LIBRARY_PATH", search))
    made = tuple((name, value) for name, value in changes if value != environ.get(name))
    which = " (simulated GPU)" if machine.sim_directory is not None else ""
    which += ", shared by its processes" if shared else ""
    summary = f"{command_line(request.command)}: {budget.describe()}{which}"
    return Plan(path, request.command, made, summary)


def dry_run_lines(plan: Plan) -> list[str]:
    """The plan as shell commands: what changes in the environment, then the exec."""
    import shlex

    lines = []
    for name, value in plan.changes:
        lines.append(f"unset {name}" if value is None else f"export {name}={shlex.quote(value)}")
    return [*lines, "exec " + " ".join(shlex.quote(word) for word in plan.argv)]
