# SPDX-License-Identifier: GPL-2.0-only
"""Which driver calls the real programs make at their start, and what they look up.

Purpose: counts by function of the driver calls that libcudart, PyTorch, CuPy, JAX, Triton and
numba-cuda make up to their first array, told by CUPTI's callbacks; where CUPTI is missing, the
names the dynamic linker bound for them.

Invariants
- Nothing is preloaded and nothing of emuV's is in the way: this is what a plain program does.
- Every program runs in its own process group with a time limit and is killed by that group.
"""

from __future__ import annotations

import collections
import contextlib
import ctypes
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

from _facts_bench import Bench

PROGRAMS = {
    "libcudart": """
import ctypes, glob, os, sys
names = ["libcudart.so", "libcudart.so.13", "libcudart.so.12"]
for place in sys.path:
    names += glob.glob(os.path.join(place, "nvidia", "*", "lib", "libcudart.so.*"))
names += glob.glob("/usr/local/cuda*/lib64/libcudart.so.*")
for name in names:
    try:
        rt = ctypes.CDLL(name)
        break
    except OSError:
        pass
else:
    raise ModuleNotFoundError("libcudart")
p = ctypes.c_void_p()
rt.cudaMalloc.argtypes = [ctypes.POINTER(ctypes.c_void_p), ctypes.c_size_t]
rt.cudaFree.argtypes = [ctypes.c_void_p]
if rt.cudaMalloc(ctypes.byref(p), 1 << 20) != 0:
    raise SystemExit("cudaMalloc failed")
rt.cudaFree(p)
""",
    "torch": "import torch\nassert float((torch.ones(64, device='cuda') + 1).sum()) == 128\n",
    "cupy": "import cupy\nassert float((cupy.ones(64) + 1).sum()) == 128\n",
    "jax": "import jax.numpy as jnp\nassert float((jnp.ones(64) + 1).sum()) == 128\n",
    "triton": """
import torch, triton, triton.language as tl
""",
    "numba-cuda": """
import numpy
from numba import cuda
assert cuda.to_device(numpy.ones(64)).copy_to_host().sum() == 64
""",
}

# The Triton kernel must live in a file: Triton reads its source.
TRITON = """
import torch, triton
import triton.language as tl

@triton.jit
def add(x, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + 1, mask=at < n)

x = torch.ones(1024, device="cuda")
out = torch.empty_like(x)
add[(4,)](x, out, 1024, BLOCK=256)
assert float(out.sum()) == 2048
"""

# Runs `program` with CUPTI's driver-API callbacks counted; prints one JSON line at the end.
PRELUDE = """
import collections, ctypes, glob, json, os, runpy, sys

class CallbackData(ctypes.Structure):
    _fields_ = [("site", ctypes.c_int), ("function_name", ctypes.c_char_p)]

counts = collections.Counter()
order = []

@ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_uint32, ctypes.c_void_p)
def on_call(userdata, domain, cbid, data):
    if domain == 1 and data:
        call = ctypes.cast(data, ctypes.POINTER(CallbackData)).contents
        if call.site == 0 and call.function_name:
            name = call.function_name.decode()
            if name not in counts:
                order.append(name)
            counts[name] += 1

def cupti():
    names = ["libcupti.so.13", "libcupti.so.12", "libcupti.so"]
    for place in sys.path:
        names += glob.glob(os.path.join(place, "nvidia", "*", "lib", "libcupti.so.*"))
    names += glob.glob("/usr/local/cuda*/extras/CUPTI/lib64/libcupti.so.*")
    names += glob.glob("/usr/local/cuda*/lib*/libcupti.so.*")
    for name in names:
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    return None

witness = "none"
lib = cupti()
if lib is not None:
    subscriber = ctypes.c_void_p()
    lib.cuptiSubscribe.argtypes = [ctypes.POINTER(ctypes.c_void_p), type(on_call), ctypes.c_void_p]
    lib.cuptiEnableDomain.argtypes = [ctypes.c_uint32, ctypes.c_void_p, ctypes.c_int]
    code = lib.cuptiSubscribe(ctypes.byref(subscriber), on_call, None)
    code = code or lib.cuptiEnableDomain(1, subscriber, 1)
    witness = "CUPTI" if code == 0 else "CUPTI refused: %d" % code
error = ""
try:
    runpy.run_path(sys.argv[1], run_name="__main__")
except ModuleNotFoundError as missing:
    error = "not installed: %s" % missing
except BaseException as failure:
    error = "%s: %s" % (type(failure).__name__, failure)
error = " ".join(error.split())[:300]
sys.stdout.write("\\nFACTS " + json.dumps(
    {"witness": witness, "error": error, "calls": counts, "order": order}) + "\\n")
sys.stdout.flush()
os._exit(0)
"""

_BOUND = re.compile(rb"symbol `(cu[A-Z]\w*)'")


def stacks(bench: Bench) -> None:
    """Section: one program after the other, within the section's time."""
    work = Path(os.environ.get("TMPDIR", "/tmp")) / f"emuv-facts-{os.getpid()}"
    work.mkdir(mode=0o700)
    try:
        prelude = work / "prelude.py"
        prelude.write_text(PRELUDE)
        for name, source in PROGRAMS.items():
            with bench.attempt(f"driver calls of {name}"):
                program = work / f"start_{name.replace('-', '_')}.py"
                program.write_text(TRITON if name == "triton" else source)
                _one(bench, name, prelude, program)
    finally:
        for path in work.iterdir():
            path.unlink()
        work.rmdir()


def _one(bench: Bench, name: str, prelude: Path, program: Path) -> None:
    bench.in_time()
    seconds = max(5.0, min(45.0, bench.left()))
    began = time.monotonic()
    output, _ = run_limited([sys.executable, str(prelude), str(program)], seconds, dict(os.environ))
    line = next((x for x in output.splitlines() if x.startswith(b"FACTS ")), None)
    if line is None:
        bench.row(f"driver calls of {name}", "", [], "the program ended without a report")
        return
    facts = json.loads(line[6:])
    if facts["error"]:
        bench.row(f"driver calls of {name}", "", [], facts["error"])
        return
    if facts["witness"] == "CUPTI":
        calls: dict[str, int] = facts["calls"]
        bench.row(
            f"driver calls of {name}",
            "calls",
            [float(sum(calls.values()))],
            "by CUPTI, up to the first result",
            functions=len(calls),
            calls=calls,
            first_seen=facts["order"],
            seconds=round(time.monotonic() - began, 2),
        )
        return
    environment = {**os.environ, "LD_DEBUG": "bindings"}
    _, bound = run_limited([sys.executable, str(program)], seconds, environment, _BOUND)
    bench.row(
        f"driver symbols bound for {name}",
        "symbols",
        [float(len(bound))],
        f"by LD_DEBUG; CUPTI: {facts['witness']}; cuGetProcAddress is not seen by it",
        symbols=bound,
    )


def die_with_parent() -> None:
    """In a new process: be killed when the process that started it dies (PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL), 0, 0, 0)


def run_limited(
    command: list[str],
    seconds: float,
    environment: dict[str, str],
    keep: re.Pattern[bytes] | None = None,
) -> tuple[bytes, dict[str, int]]:
    """Run a command in a process group of its own for at most `seconds`.

    Returns its standard output, and how often each match of `keep` stood on standard error (which
    is not kept: the linker's debug output has many megabytes).  TimeoutError when it had to be
    killed.
    """
    child = subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE if keep else subprocess.DEVNULL,
        env=environment,
        start_new_session=True,
        preexec_fn=die_with_parent,
    )
    found: collections.Counter[str] = collections.Counter()

    def drain() -> None:
        assert child.stderr is not None
        for line in child.stderr:
            match = keep.search(line) if keep else None
            if match:
                found[match.group(1).decode()] += 1

    late = threading.Event()

    def stop() -> None:
        late.set()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)

    timer = threading.Timer(seconds, stop)
    timer.start()
    reader = threading.Thread(target=drain, daemon=True) if keep else None
    try:
        if reader:
            reader.start()
        assert child.stdout is not None
        output = child.stdout.read()
        child.wait()
        if reader:
            reader.join(5.0)
    finally:
        timer.cancel()
        if child.poll() is None:
            stop()
            child.wait()
    if late.is_set():
        raise TimeoutError(f"not done in {seconds:.0f} s")
    return output, dict(found)
