# SPDX-License-Identifier: GPL-2.0-only
"""The program's own hints about managed memory: what they move is held to the budget.

After every step the simulated card is asked what is on it: never more than vram, and never
more than the books say once what is queued is done.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import pytest

from tests.integration.shim_tools import MIB, run_child

ShimEnv = Callable[..., dict[str, str]]

PRELUDE = """
VRAM = 32 * MIB
BLOCK = 2 * MIB
CPU = -1
READ_MOSTLY, UNSET_READ_MOSTLY, PREFERRED, UNSET_PREFERRED, ACCESSED, UNSET_ACCESSED = range(1, 7)
GPU_0, HOST, NODE_0 = Location(1, 0), Location(2, 0), Location(3, 0)
d = started()
s = stream(d)
steps = []
def step(name, *ranges):
    "What the card has and what the books say, after what is queued is done."
    d.cuStreamSynchronize(s)
    d.memory_info() # takes note of what is done
    b = books()
    charged = b["device_bytes"] + b["promoted_bytes"]
    assert card_used(d) <= VRAM, (name, card_used(d))
    assert card_used(d) <= charged + 0, (name, card_used(d), charged)
    assert charged <= VRAM, (name, charged)
    steps.append([name, charged // MIB, card_used(d) // MIB, b["clipped_calls"], b["clipped_bytes"] // MIB])
def managed(size):
    return d.new("cuMemAllocManaged", size, 1)
def on(address, size):
    return resident(d, address, size) // MIB
def done(**more):
    answer(steps=steps, **more)
"""  # noqa: E501


def run(shim_env: ShimEnv, code: str, **env: Any) -> dict[str, Any]:
    child = run_child(
        shim_env(vram=32 * MIB, virtual=256 * MIB, **env), PRELUDE + "\n" + code
    )
    return {**child.answer, "stderr": child.stderr, "device": child.device()}


def test_what_fits_moves_as_it_likes(shim_env: ShimEnv) -> None:
    got = run(shim_env, """
a = managed(20 * MIB)
d.cuMemAdvise(a, 20 * MIB, PREFERRED, 0)
d.cuMemAdvise(a, 20 * MIB, READ_MOSTLY, 0)
d.cuMemPrefetchAsync(a, 20 * MIB, 0, s)
step("there")
out = (c_int * 1)()
d.cuMemRangeGetAttribute(out, 4, 2, a, 20 * MIB)
d.cuMemAdvise(a, 20 * MIB, UNSET_READ_MOSTLY, 0)
d.cuMemPrefetchAsync_v2(a, 20 * MIB, HOST, 0, s)
step("home")
done(preferred=out[0], on=on(a, 20 * MIB))
""")
    assert got["steps"] == [["there", 20, 20, 0, 0], ["home", 20, 0, 0, 0]]
    assert got["preferred"] == 0
    assert got["on"] == 0
    assert "would have broken" not in got["stderr"]


FORMS = {
    "v1": "d.cuMemPrefetchAsync({at}, {size}, {device}, s)",
    "v1 ptsz": "d.cuMemPrefetchAsync_ptsz({at}, {size}, {device}, s)",
    "v2": "d.cuMemPrefetchAsync_v2({at}, {size}, GPU_0 if {device} == 0 else HOST, 0, s)",
    "v2 ptsz": "d.cuMemPrefetchAsync_v2_ptsz({at}, {size}, GPU_0 if {device} == 0 else HOST, 0, s)",
    "batch": "batch('cuMemPrefetchBatchAsync', ({at}, {size}, {device}))",
    "batch ptsz": "batch('cuMemPrefetchBatchAsync_ptsz', ({at}, {size}, {device}))",
    "discard": "batch('cuMemDiscardAndPrefetchBatchAsync', ({at}, {size}, {device}))",
}
BATCH = """
def batch(name, *elements, on_stream=None):
    n = len(elements)
    return d.code(
        name, (c_uint64 * n)(*(e[0] for e in elements)), (c_size_t * n)(*(e[1] for e in elements)), n,
        (Location * n)(*(GPU_0 if e[2] == 0 else HOST for e in elements)),
        (c_size_t * n)(*range(n)), n, 0, s if on_stream is None else on_stream,
    )
"""  # noqa: E501


@pytest.mark.parametrize("form", FORMS)
def test_a_spilled_range_goes_as_far_as_there_is_room(shim_env: ShimEnv, form: str) -> None:
    def prefetch(at: str, size: str, device: int) -> str:
        return FORMS[form].format(at=at, size=size, device=device)

    # GIVEN 28 MiB that fill the card but for two blocks, and 40 MiB that are spilled
    got = run(shim_env, BATCH + f"""
plain = d.new("cuMemAlloc_v2", 32 * MIB)
a = managed(40 * MIB)
d.upload(a, bytes(range(256)) * 4096 * 40)
step("full")
{prefetch("a", "40 * MIB", 0)}
step("nothing fits")
d.cuMemFree_v2(plain)
plain = d.new("cuMemAlloc_v2", 20 * MIB)
# WHEN a window in the middle is asked for that is larger than the room
{prefetch("a + 10 * MIB", "20 * MIB", 0)}
step("window")
window = [on(a, 10 * MIB), on(a + 10 * MIB, 20 * MIB), on(a + 22 * MIB, 18 * MIB)]
# AND again, and goes home in part
{prefetch("a + 10 * MIB", "8 * MIB", 0)}
step("again")
{prefetch("a + 12 * MIB", "4 * MIB", -1)}
step("home")
{prefetch("a + 39 * MIB", "1 * MIB", 0)}
step("the end")
d.cuMemFree_v2(a)
step("freed")
done(window=window, held=held())
""")
    # THEN whole blocks of it come, from its start, the rest is clipped and counted
    assert got["window"] == [0, 12, 0]
    assert got["steps"] == [
        ["full", 32, 32, 0, 0],
        ["nothing fits", 32, 32, 1, 40],
        ["window", 32, 32, 2, 48],
        ["again", 32, 32, 2, 48],
        ["home", 28, 28, 2, 48],
        ["the end", 30, 30, 2, 48],
        ["freed", 20, 20, 2, 48],
    ]
    assert got["held"] == [20 * MIB, 0, 0, 1]
    # AND it is said once
    assert got["stderr"].count("would have broken the budget") == 1
    # AND the statistics name the call
    assert got["device"].clipped_calls == 2


def test_advice_that_would_let_pages_migrate_is_held_back(shim_env: ShimEnv) -> None:
    got = run(shim_env, """
plain = d.new("cuMemAlloc_v2", 30 * MIB)
a = managed(16 * MIB) # its head has room for one block
before = calls(d, "cuMemAdvise") + calls(d, "cuMemAdvise_v2")
for advice in (READ_MOSTLY, PREFERRED, UNSET_PREFERRED, UNSET_ACCESSED):
    d.cuMemAdvise(a, 16 * MIB, advice, 0)
    d.cuMemAdvise_v2(a + 4 * MIB, 4 * MIB, advice, GPU_0)
    # The device touches all of it, and writes it.
    d.cuMemsetD8_v2(a, advice, 16 * MIB)
    d.cuMemcpyDtoD_v2(a + 8 * MIB, a, 8 * MIB)
    step(f"advice {advice}")
    assert d.download(a, 16 * MIB) == bytes([advice]) * 16 * MIB
for advice, where in (
    (PREFERRED, HOST), (PREFERRED, NODE_0), (ACCESSED, GPU_0), (ACCESSED, HOST),
    (UNSET_READ_MOSTLY, GPU_0), (UNSET_ACCESSED, HOST),
):
    d.cuMemAdvise_v2(a, 16 * MIB, advice, where)
    d.cuMemsetD8_v2(a, 7, 16 * MIB)
    step(f"passes {advice} {where.type}")
errors = [
    d.code("cuMemAdvise", a, 16 * MIB, PREFERRED, 77),
    d.code("cuMemAdvise", a, 16 * MIB, 99, 0),
    d.code("cuMemAdvise", a, 0, PREFERRED, 0),
    d.code("cuMemAdvise", a, 17 * MIB, PREFERRED, 0),
    d.code("cuMemAdvise", a + MIB, 16 * MIB, READ_MOSTLY, 0),
    d.code("cuMemAdvise", plain, MIB, PREFERRED, 0),
]
done(errors=errors)
""")
    assert [row[3] for row in got["steps"]] == [2, 4, 6, 8] + [8] * 6
    assert {row[2] for row in got["steps"]} <= {30, 32}
    assert got["errors"] == [101, 1, 1, 1, 1, 1]


def test_errors_are_the_drivers(shim_env: ShimEnv) -> None:
    """Clipped to nothing or not, what the driver would refuse is refused, and nothing changes."""
    got = run(shim_env, BATCH + """
plain = d.new("cuMemAlloc_v2", 32 * MIB)
a = managed(16 * MIB)
step("before")
prefetch = lambda *args: d.code("cuMemPrefetchAsync", *args)
full = [
    prefetch(a, 16 * MIB, 0, 0xdead0), prefetch(a, 16 * MIB, 77, s), prefetch(a, 0, 0, s),
    prefetch(a, 17 * MIB, 0, s), prefetch(a + MIB, 16 * MIB, 0, s), prefetch(plain, MIB, 0, s),
    d.code("cuMemPrefetchAsync_v2", a, MIB, GPU_0, 1, s), prefetch(0, MIB, 0, s),
    prefetch(a, (1 << 64) - 1, 0, s), prefetch(a, MIB, 1, s), prefetch(1, 1, 1, s),
]
d.cuMemFree_v2(plain)
plain = d.new("cuMemAlloc_v2", 16 * MIB)
room = [
    prefetch(a, 16 * MIB, 0, 0xdead0), prefetch(a, 17 * MIB, 0, s),
    d.code("cuMemPrefetchAsync_v2", a, MIB, GPU_0, 1, s),
    batch("cuMemPrefetchBatchAsync", (a, 8 * MIB, 0), on_stream=0),
    batch("cuMemPrefetchBatchAsync", (a, 8 * MIB, 0), (a, 17 * MIB, 0)),
    batch("cuMemPrefetchBatchAsync", (a, 8 * MIB, 0), (plain, MIB, 0)),
    batch("cuMemPrefetchBatchAsync", (a, 8 * MIB, 0), (0, 0, 0)),
    d.code("cuMemPrefetchBatchAsync", None, None, 1, None, None, 0, 0, s),
]
step("after")
# A stream that is being captured takes no prefetch.
d.cuStreamBeginCapture_v2(s, 1)
captured = prefetch(a, 4 * MIB, 0, s)
graph = c_uint64()
ended = d.code("cuStreamEndCapture", s, byref(graph))
step("captured")
done(full=full, room=room, captured=[captured, ended], held=held())
""")
    full, room = got["full"], got["room"]
    assert full[1:] == [101, 1, 1, 1, 1, 1, 1, 1, 101, 101]
    assert full[0] in (1, 400)
    assert room[0] in (1, 400)
    assert all(room)
    assert got["captured"][0] == 900
    assert got["held"] == [16 * MIB, 16 * MIB, 0, 2]
    assert [row[1:4] for row in got["steps"]] == [[32, 32, 0], [16, 16, 0], [16, 16, 0]]


def test_what_is_on_its_way_is_not_taken_for_gone(shim_env: ShimEnv) -> None:
    """Streams come about in their own order: a prefetch home in one does not uncharge what
    another, which is held, will still bring; and pages that are to leave are charged until
    they have."""
    got = run(shim_env, """
plain = d.new("cuMemAlloc_v2", 16 * MIB)
other = stream(d)
a = managed(40 * MIB)  # head of 16 MiB
d.cuCtxSynchronize()  # which has arrived
d.cuMemPrefetchAsync(a, 40 * MIB, CPU, s)
step("home")
hold(d, other, True)
d.cuMemPrefetchAsync(a, 8 * MIB, 0, other) # does not come about yet
d.cuMemPrefetchAsync(a, 8 * MIB, CPU, s)
d.cuStreamSynchronize(s)
d.memory_info()
early = held()[2]
code = d.code("cuMemAlloc_v2", byref(c_uint64()), 9 * MIB) # what is charged as device?
mixed = held()
hold(d, other, False)
d.cuStreamSynchronize(other)
step("came")
# In one stream the order is known.
d.cuMemPrefetchAsync(a + 32 * MIB, 6 * MIB, 0, s)
d.cuMemPrefetchAsync(a, 40 * MIB, CPU, s)
step("both ways")
hold(d, s, True)
d.cuMemPrefetchAsync(a, 4 * MIB, 0, other)
d.cuStreamSynchronize(other)
d.cuMemPrefetchAsync(a, 4 * MIB, CPU, s)
d.memory_info()
leaving = held()[2]
hold(d, s, False)
step("left")
done(early=early, mixed=mixed, leaving=leaving)
""")
    assert got["early"] == 8 * MIB
    # 8 MiB of room are left: the 9 MiB were spilled, with a head in what there was.
    assert got["mixed"] == [16 * MIB, 49 * MIB, 16 * MIB, 3]
    assert got["leaving"] > 0
    assert got["steps"][0] == ["home", 16, 16, 0, 0]
    assert got["steps"][-1][2] <= 24


def test_batches_take_what_there_is_room_for_in_one_call(shim_env: ShimEnv) -> None:
    got = run(shim_env, BATCH + """
plain = d.new("cuMemAlloc_v2", 24 * MIB)
own = managed(2 * MIB)
a, b = managed(20 * MIB), managed(10 * MIB)
d.cuCtxSynchronize()
d.cuMemPrefetchAsync(a, 20 * MIB, CPU, s)
step("home")
before = calls(d, "cuMemPrefetchBatchAsync")
code = batch(
    "cuMemPrefetchBatchAsync",
    (own, 2 * MIB, 0), (b + 8 * MIB, 2 * MIB, 0), (a + 4 * MIB, 10 * MIB, 0), (b, 2 * MIB, CPU),
)
step("batch")
where = [
    on(own, 2 * MIB), on(a, 4 * MIB), on(a + 4 * MIB, 10 * MIB),
    on(b, 8 * MIB), on(b + 8 * MIB, 2 * MIB),
]
in_calls = calls(d, "cuMemPrefetchBatchAsync") - before
code2 = batch("cuMemPrefetchBatchAsync", (b, 2 * MIB, 0), (a, 4 * MIB, 0))
step("clipped whole")
done(code=code, code2=code2, calls=in_calls, where=where)
""")
    assert (got["code"], got["code2"], got["calls"]) == (0, 0, 1)
    assert got["where"] == [2, 0, 4, 0, 2]
    assert [row[1:] for row in got["steps"]] == [[26, 24, 0, 0], [32, 32, 1, 6], [32, 32, 2, 12]]


def test_another_device(shim_env: ShimEnv) -> None:
    """What is counted in one device's budget is not moved to another one that has a limit."""
    got = run(shim_env, """
d.new("cuDevicePrimaryCtxRetain", 1)
a, b = managed(20 * MIB), managed(20 * MIB)
d.cuMemPrefetchAsync(a, 20 * MIB, 1, s)
d.cuMemPrefetchAsync(b, 20 * MIB, 1, s)
step("asked")
there = [resident(d, a, 20 * MIB, 1), resident(d, b, 20 * MIB, 1), card_used(d, 1)]
d.cuMemPrefetchAsync(a, 20 * MIB, 0, s)
step("here")
done(there=there, second=books(1)["clipped_calls"])
""", EMUV_SIM_DEVICES="2")
    assert got["there"] == [0, 0, 0]
    assert got["second"] == 2


def test_attachment_binds_nothing(shim_env: ShimEnv) -> None:
    got = run(shim_env, """
plain = d.new("cuMemAlloc_v2", 30 * MIB)
a = d.new("cuMemAllocManaged", 16 * MIB, 2) # CU_MEM_ATTACH_HOST
for flags in (1, 2, 4):
    d.cuStreamAttachMemAsync(s, a, 0, flags)
    d.cuMemsetD8_v2(a, flags, 16 * MIB)
    step(f"attached {flags}")
done(same=d.download(a, 16) == bytes([4]) * 16)
""")
    assert got["same"] is True
    assert {row[2] for row in got["steps"]} == {32}


# Random calls on two streams, either of which may stand still for a while.
RANDOM = """
import random
seed = int(os.environ["HINTS_SEED"])
r = random.Random(seed)
VRAM = 32 * MIB
UNIT = 64 << 10
d = started()
streams = [stream(d), stream(d)]
held_now = [False, False]
ranges = {}   # address: (size, managed by the program itself)
trace = []
def check():
    b = books()
    charged = b["device_bytes"] + b["promoted_bytes"]
    used = card_used(d)
    assert used <= VRAM and charged <= VRAM, (used / MIB, charged / MIB)
    assert used <= charged, (used / MIB, charged / MIB)
def size(most):
    some = r.randrange(1, most // UNIT) * UNIT
    odd = r.randrange(1, most)
    return r.choice([UNIT, 17, 2 * MIB, some, odd, some // MIB * MIB or MIB])
def window():
    a = r.choice(list(ranges))
    n = ranges[a][0]
    low = r.choice([0, r.randrange(0, n, 4096)])
    high = r.choice([n, r.randrange(low + 1, n + 1)])
    return a + low, high - low
def place(device):
    return Location(1, 0) if device == 0 else Location(2, 0)
def alloc():
    own = r.random() < 0.6
    n = size(30 * MIB)
    out = c_uint64()
    how = ("cuMemAllocManaged", byref(out), n, 1) if own else ("cuMemAlloc_v2", byref(out), n)
    code = d.code(*how)
    if not code:
        ranges[out.value] = (n, own)
def free():
    if any(held_now):
        return  # it would wait
    a = r.choice(list(ranges))
    del ranges[a]
    d.cuMemFree_v2(a)
def prefetch():
    at, n = window()
    device = r.choice([0, 0, -1])
    s = r.choice(streams)
    if r.random() < 0.5:
        d.code("cuMemPrefetchAsync", at, n, device, s)
    else:
        d.code("cuMemPrefetchAsync_v2", at, n, place(device), 0, s)
def batch():
    e = [(*window(), r.choice([0, -1])) for _ in range(r.randrange(1, 6))]
    n = len(e)
    d.code(
        r.choice(["cuMemPrefetchBatchAsync", "cuMemDiscardAndPrefetchBatchAsync"]),
        (c_uint64 * n)(*(x[0] for x in e)), (c_size_t * n)(*(x[1] for x in e)), n,
        (Location * n)(*(place(x[2]) for x in e)), (c_size_t * n)(*range(n)), n, 0,
        r.choice(streams),
    )
def advise():
    d.code("cuMemAdvise", *window(), r.randrange(1, 7), r.choice([0, -1]))
def touch():
    at, n = window()
    d.code("cuMemsetD8Async", at, r.randrange(256), n, r.choice(streams))
def flip():
    i = r.randrange(2)
    held_now[i] = not held_now[i]
    hold(d, streams[i], held_now[i])
ops = [alloc, free, batch, flip] + [alloc, advise, touch] * 2 + [prefetch] * 4
alloc()
for n in range(int(os.environ["HINTS_STEPS"])):
    op = r.choice(ops)
    if not ranges and op not in (alloc, flip):
        continue
    trace.append(op.__name__)
    try:
        op()
        check()
    except AssertionError as e:
        print("seed", seed, "step", n, trace[-6:], e, flush=True)
        os._exit(3)
for i in range(2):
    if held_now[i]:
        hold(d, streams[i], False)
d.cuCtxSynchronize()
d.memory_info()
check()
for a in list(ranges):
    d.cuMemFree_v2(a)
d.memory_info()
answer(held=held(), clipped=books()["clipped_calls"])
"""


@pytest.mark.parametrize("seed", range(4))
def test_at_random(shim_env: ShimEnv, seed: int) -> None:
    """Whatever is asked, in whatever order streams come about: what is on the card is charged,
    and no more than vram."""
    env = shim_env(
        vram=32 * MIB, virtual=256 * MIB, HINTS_SEED=str(seed),
        HINTS_STEPS=os.environ.get("HINTS_STEPS", "250"),
    )  # fmt: skip
    child = run_child(env, RANDOM)
    assert child.answer["held"] == [0, 0, 0, 0]
    assert child.answer["clipped"] > 0
