# SPDX-License-Identifier: GPL-2.0-only
"""Random programs under emuV, step by step against the reference (reference.py).

After every step each report is compared: the segment, cuMemGetInfo, and what the
simulated card itself says is in use.  What a pool keeps, a graph reserves and a
context takes is the driver's to decide: those figures are read, and held to the
budget; everything else is foretold.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from emuv_shim.stats import DeviceStats
from tests.model.reference import BLOCK, MIB, Books, Budget, Held, Outcome, outcomes
from tests.model.rig import Answer, Rig

OOM, UNKNOWN = 2, 999
N_PROCESSES, N_THREADS = 2, 4
VRAM, VIRTUAL = 160 * MIB, 256 * MIB  # beyond what the context takes

# kind: (may be managed instead, may be marked, the operations that free it)
KINDS: dict[str, tuple[bool, bool, tuple[str, ...]]] = {
    "plain": (True, True, ("free", "free_async")),
    "pitch": (True, True, ("free",)),
    "managed": (True, True, ("free",)),
    "async": (True, True, ("free", "free_async")),
    "async_ptsz": (True, True, ("free", "free_async_ptsz")),
    "from_pool": (True, True, ("free", "free_async")),
    "array": (False, False, ("free_array",)),
    "mipmap": (False, False, ("free_mipmap",)),
}
# What the driver is asked for on the way, and so can refuse.
FAILING = (
    "cuMemAlloc_v2", "cuMemAllocPitch_v2", "cuMemAllocManaged", "cuMemAllocAsync",
    "cuMemAllocFromPoolAsync", "cuMemCreate", "cuArray3DCreate_v2", "cuMemAdvise",
    "cuMemPrefetchAsync", "cuMemFree_v2", "cuMemFreeAsync", "cuEventRecord", "cuMemMap",
    "cuMemRelease", "cuMemUnmap", "cuCtxPushCurrent_v2", "cuStreamIsCapturing",
)  # fmt: skip

process = st.integers(0, N_PROCESSES - 1)
thread = st.integers(0, N_THREADS - 1)
size = st.integers(1, 40).map(lambda blocks: blocks * BLOCK)
pick = st.integers(0, 1 << 20)


class Machine(RuleBasedStateMachine):
    """Two processes; `shared` says whether they share a budget."""

    rig: Rig
    shared = False
    steps = 0  # of all examples

    def __init__(self) -> None:
        super().__init__()
        self.trace: list[str] = []

    @initialize()
    def begin(self) -> None:
        self.books = [Books() for _ in range(N_PROCESSES)]
        self.pools: list[list[int]] = [[] for _ in range(N_PROCESSES)]
        self.graphs: list[dict[int, int]] = [{} for _ in range(N_PROCESSES)]
        self.held_streams: list[set[int]] = [set() for _ in range(N_PROCESSES)]
        self.most: dict[int, int] = {}  # what a lowered budget leaves above it
        self.marks = 0
        overhead = []
        for number, worker in enumerate(self.rig.processes):
            overhead.append(worker.books().overhead_bytes or 0)
            pool = worker.do(0, "default_pool").value
            worker.do(0, "keep", pool, 0)
            self.pools[number].append(pool)
        own = sum(overhead) if self.shared else max(overhead)
        self.base = own
        self.budgets = [Budget(0, 0, "spill")] * (1 if self.shared else N_PROCESSES)
        for number in range(len(self.budgets)):
            self._set(number, Budget(own + VRAM, VIRTUAL, "spill"))
        for number in range(N_PROCESSES):
            self._step(number, 0, "nothing")

    # ---- the reports ----

    def _budget(self, number: int) -> Budget:
        return self.budgets[0 if self.shared else number]

    def _sharing(self, number: int) -> list[Books]:
        return self.books if self.shared else [self.books[number]]

    def _set(self, number: int, budget: Budget) -> None:
        self.rig.set_budget(number, budget.vram, budget.virtual, budget.policy)
        self.budgets[number] = budget

    def _step(self, number: int, thread: int, name: str, *args: Any) -> Answer:
        """An operation, and the driver's own figures taken up; not yet judged."""
        Machine.steps += 1
        answer = self.rig.processes[number].do(thread, name, *args)
        self.trace.append(f"{number}.{thread} {name}{args} -> {answer.code}, {answer.value!r:.80}")
        for other, books in enumerate(self.books):
            seen = self.rig.processes[other].books()
            books.overhead = seen.overhead_bytes or 0
            books.graph, books.kept = seen.graph_bytes, seen.kept_bytes
            books.resident = seen.promoted_bytes
        return answer

    def _judge(self, number: int, answer: Answer) -> None:
        """Every report against the reference."""
        books, seen, budget = self.books[number], answer.books, self._budget(number)
        self._pinned(books, seen)
        assert seen.device_bytes == books.device
        assert seen.managed_bytes == books.managed
        waiting = sum(len(held) for held in books.leaving.values())
        assert seen.live_allocations == len(books.held) + waiting
        assert seen.uncounted_calls == 0
        assert 0 <= seen.promoted_bytes <= seen.managed_bytes
        sharing = self._sharing(number)
        assert answer.total == budget.visible
        assert answer.free == max(0, budget.visible - sum(b.used for b in sharing))
        # The card's truth is never more than what is charged.
        assert answer.card_used <= seen.physical_bytes
        physical = sum(b.physical for b in sharing)
        key = 0 if self.shared else number
        limit = max(budget.vram, self.most.get(key, 0))
        assert physical <= limit, f"{physical} held, {limit} allowed: {sharing}"
        if physical <= budget.vram:
            self.most.pop(key, None)
        elif key in self.most:
            self.most[key] = physical

    @staticmethod
    def _pinned(books: Books, seen: DeviceStats) -> None:
        """A lowered budget pins the program's own managed memory to the host; which of it, the
        driver's answers decide: as much as has left the one sum is in the other."""
        left = books.device - seen.device_bytes
        if left and (books.pinned or any(h.kind == "managed" for h in books.held.values())):
            books.pinned += left
            own = sum(
                held.size for held in books.held.values()
                if held.kind == "managed" and held.placement == "device"
            )  # fmt: skip
            assert 0 <= books.pinned <= own, f"{books.pinned} pinned of {own}, {left} left, {books}"

    def _done(self, number: int, thread: int, name: str, *args: Any) -> Answer:
        """An operation that must succeed and changes nothing that is foretold."""
        answer = self._step(number, thread, name, *args)
        assert answer.code == 0, f"{name}{args}: {answer.code}"
        self._judge(number, answer)
        return answer

    # ---- allocations ----

    def _expected(self, number: int, kind: str, size: int) -> set[Outcome]:
        whole = kind == "create"
        return outcomes(
            self._budget(number), self._sharing(number), size,
            may_spill=whole or KINDS[kind][0], whole=whole,
            pooled=kind in ("async", "async_ptsz", "from_pool"),
            unsure=self._budget(number).vram // 32 if self.shared else 0,
        )  # fmt: skip

    def _waits(self, number: int, expected: set[Outcome]) -> bool:
        """Whether the request would wait for frees on a stream that stands still."""
        books = self.books[number]
        return any(books.leaving.values()) and expected != {Outcome("device")}

    def _shrinks(self, number: int) -> bool:
        """Whether a lowered budget is about to move heads to the host: more room than it seems."""
        return sum(b.physical for b in self._sharing(number)) > self._budget(number).vram

    def _shrink(self, number: int, thread: int) -> None:
        """A small request, after which a lowered budget has moved what it moves."""
        if self._shrinks(number):
            answer = self._step(number, thread, "plain", BLOCK)
            if answer.code == 0:
                assert self._step(number, thread, "free", answer.value).code == 0
            self._done(number, thread, "nothing")

    def _enter(self, number: int, answer: Answer, before: DeviceStats, held: Held) -> Outcome:
        """Enters what was granted; where, the counters say."""
        device = answer.books.device_bytes - before.device_bytes
        managed = answer.books.managed_bytes - before.managed_bytes
        assert device + managed == held.size
        held.placement = "device" if device > 0 else "managed"
        self.books[number].held[answer.value] = held
        head = answer.books.promoted_bytes - before.promoted_bytes
        return Outcome(held.placement, 0 if device > 0 else head)

    def _allocate(
        self, number: int, thread: int, kind: str, size: int, args: list[Any]
    ) -> int:
        """Allocates and marks; the handle, 0 where that was refused, as foretold."""
        if not any(self.books[number].leaving.values()):
            self._shrink(number, thread)
        before = self.rig.processes[number].books()
        expected = self._expected(number, kind, size)
        if self._waits(number, expected):
            return 0
        shrunk = self._shrinks(number)
        answer = self._step(number, thread, kind, *args)
        if answer.code:
            assert answer.code == OOM
            assert shrunk or Outcome("refused") in expected, f"refused, not {expected}"
            self._judge(number, answer)
            return 0
        held = Held(kind, size, "")
        got = self._enter(number, answer, before, held)
        # While a lowered budget moves heads out, more than one answer is right.
        assert shrunk or got in expected, f"{got}, not {expected}"
        self._judge(number, answer)
        if kind in KINDS and KINDS[kind][1]:
            self.marks = held.mark = (self.marks + 1) % 256
            self._done(number, thread, "mark", answer.value, size, held.mark)
        return int(answer.value)

    @rule(p=process, t=thread, kind=st.sampled_from([*KINDS]), size=size, stream=thread, n=pick)
    def allocate(self, p: int, t: int, kind: str, size: int, stream: int, n: int) -> None:
        args: list[Any] = [size]
        if kind in ("async", "from_pool"):
            if stream in self.held_streams[p]:
                return
            if kind == "from_pool":
                args.append(self.pools[p][n % len(self.pools[p])])
            args.append(stream)
        self._allocate(p, t, kind, size, args)

    @rule(p=process, t=thread, n=pick, way=pick, stream=thread)
    def free(self, p: int, t: int, n: int, way: int, stream: int) -> None:
        keys = [key for key, held in self.books[p].held.items() if held.kind in KINDS]
        if keys:
            self._free(p, t, keys[n % len(keys)], way, stream)

    def _look(self, p: int, t: int, key: int, held: Held) -> None:
        if held.mark is not None:
            answer = self._done(p, t, "look", key, held.size)
            assert answer.value == [held.mark, held.mark ^ 0xFF]

    def _free(self, p: int, t: int, key: int, way: int, stream: int) -> None:
        books = self.books[p]
        held = books.held[key]
        ways = KINDS[held.kind][2]
        name = ways[way % len(ways)]
        if name == "free_async" and held.kind == "plain" and held.placement == "device":
            name = "free"  # cuMemFreeAsync takes what came from pools
        self._look(p, t, key, held)
        args = [key, stream] if name == "free_async" else [key]
        waits = name == "free_async" and stream in self.held_streams[p]
        if waits and held.placement == "device":
            # The books let go at once; the card only when the stream has come there.
            return
        if not name.startswith("free_async") and any(books.leaving.values()):
            return  # it would wait for the work of the stream that stands still
        answer = self._step(p, t, name, *args)
        assert answer.code == 0
        del books.held[key]
        if waits:
            books.leaving.setdefault(stream, []).append(held)
        elif name != "free":
            self._settle(p, t)
            return
        self._judge(p, answer)

    def _settle(self, p: int, t: int) -> None:
        """Waits for the streams, and for what was freed on them."""
        if self.held_streams[p]:
            for stream in range(N_THREADS):
                if stream not in self.held_streams[p]:
                    self._step(p, t, "sync", stream)
            self._done(p, t, "nothing")
        else:
            self._step(p, t, "settle")
            self._done(p, t, "nothing")

    @rule(p=process, t=thread, kind=st.sampled_from([*KINDS, "create"]), size=size,
          function=st.sampled_from(FAILING), code=st.sampled_from([OOM, UNKNOWN]))  # fmt: skip
    def allocate_and_fail(
        self, p: int, t: int, kind: str, size: int, function: str, code: int
    ) -> None:
        """A driver call on the way fails: the program hears of it, or is served otherwise."""
        if any(self.books[p].leaving.values()) or self.held_streams[p]:
            return
        self._shrink(p, t)
        expected = self._expected(p, kind, size)
        args: list[Any] = [size]
        if kind == "from_pool":
            args.append(self.pools[p][0])
        if kind in ("async", "from_pool"):
            args.append(t)
        self._done(p, t, "fail", function, code)
        before = self.rig.processes[p].books()
        shrunk = self._shrinks(p)
        answer = self._step(p, t, kind, *args)
        self._step(p, t, "unfail", function)
        if answer.code:
            assert answer.code in (code, OOM)
        else:
            assert expected != {Outcome("refused")} or shrunk
            held = Held(kind, size, "")
            self._enter(p, answer, before, held)
        self._done(p, t, "nothing")

    # ---- pools ----

    @rule(p=process, t=thread)
    def pool(self, p: int, t: int) -> None:
        if len(self.pools[p]) < 4:
            self.pools[p].append(self._done(p, t, "pool").value)

    @rule(p=process, t=thread, n=pick, keep=st.sampled_from([0, 8 * MIB, (1 << 64) - 1]))
    def keep(self, p: int, t: int, n: int, keep: int) -> None:
        self._done(p, t, "keep", self.pools[p][n % len(self.pools[p])], keep)

    @rule(p=process, t=thread, n=pick, keep=st.sampled_from([0, 8 * MIB]))
    def trim(self, p: int, t: int, n: int, keep: int) -> None:
        self._done(p, t, "trim", self.pools[p][n % len(self.pools[p])], keep)

    # ---- virtual memory management ----

    @rule(p=process, t=thread, size=size)
    def create(self, p: int, t: int, size: int) -> None:
        self._allocate(p, t, "create", size, [size])

    def _handle(self, p: int, n: int, mapped: bool | None) -> tuple[int, Held] | None:
        found = [
            (key, held) for key, held in self.books[p].held.items()
            if held.kind == "create" and mapped in (None, bool(held.maps))
        ]  # fmt: skip
        return found[n % len(found)] if found else None

    @rule(p=process, t=thread, n=pick)
    def map(self, p: int, t: int, n: int) -> None:
        chosen = self._handle(p, n, None)
        if chosen is None or not chosen[1].handles:
            return
        key, held = chosen
        address = self._done(p, t, "map", key, held.size).value
        held.maps[address] = held.size

    @rule(p=process, t=thread, n=pick, m=pick)
    def unmap(self, p: int, t: int, n: int, m: int) -> None:
        chosen = self._handle(p, n, True)
        if chosen is None:
            return
        key, held = chosen
        address = sorted(held.maps)[m % len(held.maps)]
        self._settle(p, t)
        answer = self._step(p, t, "unmap", address, held.maps.pop(address))
        assert answer.code == 0
        if not held.maps and not held.handles:
            del self.books[p].held[key]
        self._judge(p, answer)

    @rule(p=process, t=thread, n=pick)
    def retain(self, p: int, t: int, n: int) -> None:
        chosen = self._handle(p, n, True)
        if chosen is None or not chosen[1].handles:
            return
        key, held = chosen
        answer = self._done(p, t, "retain", min(held.maps))
        assert answer.value == key
        held.handles += 1

    @rule(p=process, t=thread, n=pick)
    def release(self, p: int, t: int, n: int) -> None:
        chosen = self._handle(p, n, None)
        if chosen is None or not chosen[1].handles:
            return
        key, held = chosen
        answer = self._step(p, t, "release", key)
        assert answer.code == 0
        held.handles -= 1
        if not held.maps and not held.handles:
            del self.books[p].held[key]
        elif not held.handles:
            # The driver may give the handle's number to the next one.
            self.books[p].held[-min(held.maps)] = self.books[p].held.pop(key)
        self._judge(p, answer)

    # ---- hints ----

    @rule(p=process, t=thread, n=pick, at=st.integers(0, 39), size=size,
          device=st.sampled_from([0, -1]))  # fmt: skip
    def prefetch(self, p: int, t: int, n: int, at: int, size: int, device: int) -> None:
        """The program's own prefetch: whatever it asks, the budget holds."""
        found = [
            (key, held) for key, held in self.books[p].held.items()
            if held.kind in KINDS and (held.placement == "managed" or held.kind == "managed")
        ]  # fmt: skip
        if not found or t in self.held_streams[p]:
            return
        key, held = found[n % len(found)]
        start = min(at * BLOCK, held.size - BLOCK)
        self._step(p, t, "prefetch", key + start, min(size, held.size - start), device, t)
        self._settle(p, t)

    @rule(p=process, t=thread, n=pick, advice=st.integers(1, 6), device=st.sampled_from([0, -1]))
    def advise(self, p: int, t: int, n: int, advice: int, device: int) -> None:
        found = [
            (key, held) for key, held in self.books[p].held.items()
            if held.kind in KINDS and (held.placement == "managed" or held.kind == "managed")
        ]  # fmt: skip
        if found:
            key, held = found[n % len(found)]
            self._step(p, t, "advise", key, held.size, advice, device)
            # Touched from the device: a page that may migrate does so now.
            if held.mark is not None:
                self._done(p, t, "mark", key, held.size, held.mark)

    # ---- graphs ----

    @rule(p=process, t=thread, size=size)
    def graph(self, p: int, t: int, size: int) -> None:
        if self.held_streams[p] or any(self.books[p].leaving.values()) or len(self.graphs[p]) > 3:
            return
        answer = self._step(p, t, "graph", size, t)
        assert answer.code in (0, OOM)
        self._judge(p, answer)
        if not answer.code:
            self.graphs[p][answer.value] = size

    @rule(p=process, t=thread, n=pick)
    def launch(self, p: int, t: int, n: int) -> None:
        graphs = sorted(self.graphs[p])
        if not graphs or self.held_streams[p]:
            return
        answer = self._step(p, t, "launch", graphs[n % len(graphs)], t)
        assert answer.code in (0, OOM)
        self._judge(p, answer)

    @rule(p=process, t=thread, n=pick)
    def free_graph(self, p: int, t: int, n: int) -> None:
        graphs = sorted(self.graphs[p])
        if graphs:
            key = graphs[n % len(graphs)]
            del self.graphs[p][key]
            self._done(p, t, "free_graph", key)

    @rule(p=process, t=thread)
    def graph_trim(self, p: int, t: int) -> None:
        self._done(p, t, "graph_trim")

    # ---- streams that stand still ----

    @rule(p=process, t=thread, stream=thread)
    def hold(self, p: int, t: int, stream: int) -> None:
        if not self.held_streams[p]:
            self._settle(p, t)
            self._done(p, t, "hold", stream, 1)
            self.held_streams[p].add(stream)

    @rule(p=process, t=thread)
    def unhold(self, p: int, t: int) -> None:
        self._unhold(p, t)

    def _unhold(self, p: int, t: int) -> None:
        for stream in sorted(self.held_streams[p]):
            self._step(p, t, "hold", stream, 0)
            self.books[p].leaving.pop(stream, None)
        self.held_streams[p].clear()
        self._settle(p, t)

    # ---- the budget, and the world around ----

    @rule(p=process, vram=st.integers(8, 120), virtual=st.integers(0, 200))
    def set_budget(self, p: int, vram: int, virtual: int) -> None:
        number = 0 if self.shared else p
        sharing = self._sharing(p)
        physical = sum(books.physical for books in sharing)
        budget = Budget(
            self.base + vram * BLOCK, virtual * BLOCK, "spill" if virtual else "cap"
        )
        self.most[number] = max(physical, self.most.get(number, 0))
        self._set(number, budget)
        self._done(p, 0, "nothing")

    @rule(p=process, t=thread)
    def fork(self, p: int, t: int) -> None:
        self._done(p, t, "fork")

    @rule(p=process, t=thread)
    def total(self, p: int, t: int) -> None:
        assert self._done(p, t, "total").value == self._budget(p).visible

    @rule(p=process, kinds=st.lists(st.sampled_from(["plain", "managed", "async_ptsz", "array"]),
          min_size=4, max_size=12), size=size)  # fmt: skip
    def burst(self, p: int, kinds: list[str], size: int) -> None:
        """Four threads at once, each gives back what it got: nothing may be left."""
        if self.held_streams[p]:
            return
        orders = [
            [["cycle", kind, size // (1 + n % 2) // BLOCK * BLOCK or BLOCK] for kind in kinds]
            for n in range(N_THREADS)
        ]
        answer = self._step(p, 0, "burst", orders)
        results = {tuple(result) for answers in answer.value for result in answers}
        assert results <= {(0, 1), (OOM, 0)}, results
        assert all(len(answers) == len(kinds) for answers in answer.value)
        self._settle(p, 0)

    @rule(p=process, seldom=st.integers(0, 9))
    def kill(self, p: int, seldom: int) -> None:
        """kill -9: what it held is free for others at their next reserve."""
        if seldom:
            return
        self.rig.kill(p)
        self.books[p] = Books()
        self.graphs[p], self.held_streams[p] = {}, set()
        pool = self.rig.processes[p].do(0, "default_pool").value
        self.pools[p] = [pool]
        if not self.shared:
            self._set(p, self._budget(p))
            self.most.pop(p, None)
        self._done(p, 0, "nothing")

    def teardown(self) -> None:
        """Everything is freed, and then nothing is charged."""
        if not hasattr(self, "budgets"):
            return
        for p in range(N_PROCESSES):
            self._unhold(p, 0)
            for graph in sorted(self.graphs[p]):
                self._done(p, 0, "free_graph", graph)
            self.graphs[p].clear()
            for key in [k for k, held in self.books[p].held.items() if held.kind in KINDS]:
                self._free(p, 0, key, 0, 0)
            for key, held in list(self.books[p].held.items()):
                for address, size in held.maps.items():
                    assert self._step(p, 0, "unmap", address, size).code == 0
                for _ in range(held.handles):
                    assert self._step(p, 0, "release", key).code == 0
            self.books[p].held.clear()
            for pool in self.pools[p][1:]:
                assert self._step(p, 0, "free_pool", pool).code == 0
            self._step(p, 0, "trim", self.pools[p][0], 0)
            answer = self._done(p, 0, "graph_trim")
            assert answer.books.device_bytes == answer.books.managed_bytes == 0
            assert answer.books.live_allocations == answer.books.promoted_bytes == 0
            # The card agrees: nothing but contexts is left.
            assert answer.card_used <= answer.books.physical_bytes
