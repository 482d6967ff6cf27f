# SPDX-License-Identifier: GPL-2.0-only
"""Children: a forked one knows nothing of its parent's, an exec'd one starts with all of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import run
from tests.integration.shim_tools import MIB, OOM, finish, run_child

ShimEnv = Callable[..., dict[str, str]]

# A child that answers through a pipe: what it says, or None where it did not end well.
IN_CHILD = """
def in_child(work):
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read, "rb") as file:
        text = file.read()
    return [os.waitpid(pid, 0)[1], json.loads(text or "null")]
def list_segments():
    return sorted(os.listdir(os.environ["EMUV_RUNTIME_DIR"]))
"""


def test_a_child_without_exec_gets_the_drivers_answers(
    shim_env: ShimEnv, sim_env: dict[str, str]
) -> None:
    """CUDA does not survive fork: the child is told so, with and without emuV."""
    code = IN_CHILD + """
d = started()
a = d.new("cuMemAlloc_v2", MIB)
def work():
    out = c_uint64()
    return [d.code("cuInit", 0), d.code("cuMemAlloc_v2", byref(out), MIB), d.code("cuMemFree_v2", a),
            d.code("cuMemGetInfo_v2", None, None), d.code("cuDevicePrimaryCtxRetain", byref(out), 0),
            d.code("cuCtxGetCurrent", byref(out)), d.code("cuMemAllocAsync", byref(out), MIB, 0)]
answer(child=in_child(work), parent=d.code("cuMemFree_v2", a))
"""  # noqa: E501
    plain = run_child(sim_env, code)
    child = run_child(shim_env(vram=64 * MIB), code)
    assert child.answer == plain.answer
    assert child.answer["child"][0] == 0
    assert child.answer["parent"] == 0


def test_the_parents_books_are_the_parents(shim_env: ShimEnv) -> None:
    # GIVEN a parent with memory on the device and spilled
    code = IN_CHILD + """
d = started()
d.new("cuMemAlloc_v2", 30 * MIB)
spilled = d.new("cuMemAlloc_v2", 10 * MIB)
before, files = books(), list_segments()
def work():
    for _ in range(20):
        d.code("cuInit", 0)
        d.code("cuMemAlloc_v2", byref(c_uint64()), 30 * MIB)
        d.code("cuMemFree_v2", spilled)
        d.code("cuCtxDestroy_v2", 0)
        d.code("cuDevicePrimaryCtxReset_v2", 0)
    return list_segments() == files
child = in_child(work)
after = books()
# ... and a child that ends as programs do, destructors and all
pid = os.fork()
if pid == 0:
    sys.exit(0)
status = os.waitpid(pid, 0)[1]
answer(child=child, same=before == after, files=list_segments() == files, status=status,
       freed=d.code("cuMemFree_v2", spilled), end=held())
"""
    child = run_child(shim_env(vram=32 * MIB, virtual=32 * MIB), code)
    # THEN no child changes them, or makes a segment, or takes the parent's away
    assert child.answer == {
        "child": [0, True], "same": True, "files": True, "status": 0, "freed": 0,
        "end": [30 * MIB, 0, 0, 1],
    }  # fmt: skip


def test_fork_before_the_parent_starts_cuda(shim_env: ShimEnv) -> None:
    # GIVEN a parent that has opened the driver's library but not started CUDA
    code = IN_CHILD + """
d = Driver("libcuda.so.1")
version = d.get(c_int, "cuDriverGetVersion")
def work():
    e = started()
    handles, code = routes(e)["cuMemAlloc_v2"]().grab()
    return [len(handles), code, held(), len(list_segments())]
first = in_child(work)
second = in_child(work)
handles, code = routes(started())["cuMemAlloc_v2"]().grab()
answer(first=first, second=second, parent=[len(handles), code])
"""
    # (without EMUV_KEEP a segment goes with its process; os._exit leaves it for `emuv ps`)
    child = run_child(shim_env(vram=16 * MIB), code)
    # THEN each child has a budget and a segment of its own, and so has the parent
    for who, segments in (("first", 1), ("second", 2)):
        assert child.answer[who] == [0, [16, OOM, [16 * MIB, 0, 0, 16], segments]]
    assert child.answer["parent"] == [16, OOM]
    assert len({stats.pid for stats in child.segments}) == 3


def test_fork_and_exec(shim_env: ShimEnv) -> None:
    """multiprocessing's `spawn`, subprocess, torchrun: each process is held to the budget."""
    code = """
        import subprocess
        d = started()
        d.new("cuMemAlloc_v2", 10 * MIB)
        program = "\\n".join([
            "from tests.integration.shim_child import *", "d = started()",
            "handles, code = routes(d)['cuMemAlloc_v2']().grab()",
            "answer(got=len(handles), code=code)"])
        done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
        answer(child=json.loads(done.stdout), end=held())
    """  # noqa: E501
    child = run_child(shim_env(vram=16 * MIB), code)
    assert child.answer == {"child": {"got": 16, "code": OOM}, "end": [10 * MIB, 0, 0, 1]}
    sizes = sorted(stats.devices[0].device_bytes for stats in child.segments)
    assert sizes == [10 * MIB, 16 * MIB]


def test_exec_in_place_starts_new_books(shim_env: ShimEnv) -> None:
    """The same pid and start time: the image's own segment takes the old one's place."""
    code = """
        if "AGAIN" not in os.environ:
            d = started()
            d.new("cuMemAlloc_v2", 9 * MIB)
            os.execve(sys.executable, sys.orig_argv, {**os.environ, "AGAIN": "1"})
        d = started()
        d.new("cuMemAlloc_v2", 2 * MIB)
        answer(held=held())
    """
    child = run_child(shim_env(vram=16 * MIB), code)
    assert child.answer == {"held": [2 * MIB, 0, 0, 1]}
    assert child.device().device_bytes == 2 * MIB


def test_fork_while_other_threads_allocate(shim_env: ShimEnv) -> None:
    """No child inherits a lock that nobody will ever give back."""
    code = IN_CHILD + """
import threading
d = started()
context = d.new("cuCtxGetCurrent")
stop = False
def churn():
    d.cuCtxSetCurrent(context)
    s = stream(d)
    out = c_uint64()
    while not stop:
        if d.code("cuMemAllocAsync", byref(out), 3 * MIB, s) == 0:
            d.cuMemFreeAsync(out.value, s)
threads = [threading.Thread(target=churn) for _ in range(4)]
for t in threads: t.start()
ends = [in_child(lambda: [d.code("cuInit", 0), d.code("cuMemAlloc_v2", byref(c_uint64()), MIB),
                          d.code("cuMemFreeAsync", 4096, 0)]) for _ in range(25)]
stop = True
for t in threads: t.join(20)
d.code("cuCtxSynchronize")
d.cuMemFree_v2(d.new("cuMemAlloc_v2", 1))
answer(ends=[e for e in ends if e[0] or not e[1] or 0 in e[1]], n=len(ends), end=held())
"""
    child = run_child(shim_env(vram=8 * MIB, virtual=16 * MIB), code)
    assert child.answer == {"ends": [], "n": 25, "end": [0, 0, 0, 0]}


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_multiprocessing(shim_env: ShimEnv, method: str, tmp_path: Path) -> None:
    """The two ways that CUDA programs use multiprocessing: workers are under the budget too."""
    text = f'''
from tests.integration.shim_child import *
import multiprocessing
def work(size):
    d = started()
    return [d.code("cuMemAlloc_v2", byref(c_uint64()), n * MIB) for n in (size, 16, 1)]
if __name__ == "__main__":
    with multiprocessing.get_context({method!r}).Pool(2) as pool:
        answer(results=pool.map(work, [4, 4], chunksize=1))
'''
    program = tmp_path / "program.py"
    program.write_text(text)
    child = finish([sys.executable, program], shim_env(vram=16 * MIB))
    assert all(r[0] == 0 and r[1] == OOM for r in child.answer["results"]), child.answer


class TestEnd:
    def test_a_segment_goes_with_its_process(self, shim_env: ShimEnv) -> None:
        env = shim_env(vram=16 * MIB)
        code = (
            "from tests.integration.shim_child import *\n"
            "d = started(); answer(files=os.listdir(os.environ['EMUV_RUNTIME_DIR']))"
        )
        done = run([sys.executable, "-c", code], env)
        assert ".seg" in done.stdout
        assert list(Path(env["EMUV_RUNTIME_DIR"]).iterdir()) == []

    def test_exit_status_and_output_are_the_programs(self, shim_env: ShimEnv) -> None:
        child = run_child(shim_env(vram=16 * MIB), "d = started(); sys.exit(41)", status=41)
        assert child.stdout == ""
        assert child.stats.state == "exited"
