# SPDX-License-Identifier: GPL-2.0-only
"""Calls in any order, with handles that are alive, destroyed or of another kind.

    Calls(driver, seed).make(2000)

Whatever comes, a driver answers; it does not crash, and nothing hangs.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from ctypes import CFUNCTYPE, addressof, byref, c_char, c_int, c_size_t, c_uint64, c_void_p
from typing import Any

from cuda_driver import Driver

TEXT = b"""
.version 8.0
.target sm_80
.address_size 64
.global .align 8 .b8 variable[64];
.visible .entry add(.param .u64 p)
{
    .reg .b64 %d; .reg .b32 %r;
    ld.param.u64 %d, [p]; ld.global.u32 %r, [%d]; add.u32 %r, %r, 1; st.global.u32 [%d], %r;
    ret;
}
.visible .entry turn()
{
    .reg .b32 %r; .reg .pred %p;
    mov.u32 %r, 0;
again:
    add.u32 %r, %r, 1; setp.lt.u32 %p, %r, 20000; @%p bra again;
    ret;
}
"""
_HOST = CFUNCTYPE(None, c_void_p)
_NOTHING = _HOST(lambda _: None)


class Calls:
    """A thread's calls; `context` is made current and shared with other threads."""

    def __init__(self, driver: Driver, seed: int, context: int) -> None:
        self.driver, self.random = driver, random.Random(seed)
        self.codes: Counter[int] = Counter()
        driver.cuCtxSetCurrent(context)
        self.memory = driver.new("cuMemAlloc_v2", 4096)
        self.pools: dict[str, list[int]] = {}
        self.host = (c_char * 256)()

    def pick(self, *kinds: str) -> int:
        """A handle that once was of one of the kinds; now and then of any."""
        if self.random.random() < 0.03:
            kinds = tuple(self.pools) or kinds
        pool = self.pools.get(self.random.choice(kinds))
        return self.random.choice(pool) if pool else 0

    def address(self) -> int:
        """Memory that is there, mostly."""
        return self.pick("memory", "managed") if self.random.random() < 0.2 else self.memory

    def stream(self) -> int:
        return self.random.choice([0, 1, 2, *[self.pick("stream") for _ in range(5)]])

    def call(self, name: str, *args: Any) -> bool:
        code = self.driver.code(name, *args)
        self.codes[code] += 1
        return code == 0

    def new(self, kind: str, name: str, *args: Any) -> None:
        """A call whose first parameter is an output."""
        out = c_uint64()
        if self.call(name, byref(out), *args) and out.value:
            pool = self.pools.setdefault(kind, [])
            pool.append(out.value)
            if len(pool) > 20:
                del pool[self.random.randrange(20)]

    def capture(self) -> None:
        out = c_uint64()
        if self.call("cuStreamEndCapture", self.stream(), byref(out)) and out.value:
            self.pools.setdefault("graph", []).append(out.value)

    def launch(self) -> None:
        argument = c_uint64(self.memory)
        pointers = (c_void_p * 1)(addressof(argument))
        shape = (1 + self.random.randrange(3), 1, 1, 1 + self.random.randrange(40), 1, 1, 0)
        self.call("cuLaunchKernel", self.pick("function"), *shape, self.stream(), pointers, None)

    def node(self, name: str, *args: Any) -> None:
        """cuGraphAdd…Node(&node, graph, dependencies, count, …)."""
        count = self.random.randrange(3)
        before = (c_uint64 * 3)(*[self.pick("node") for _ in range(3)])
        self.new("node", name, self.pick("graph"), before, c_size_t(count), *args)

    def edges(self, name: str) -> None:
        ends = [byref(c_uint64(self.pick("node"))) for _ in range(2)]
        self.call(name, self.pick("graph"), *ends, c_size_t(1))

    def steps(self) -> list[tuple[int, Callable[[], Any]]]:
        """(weight, what to do)."""
        r, call, new, pick, stream = self.random, self.call, self.new, self.pick, self.stream
        size = c_size_t
        return [
            (3, lambda: new("stream", "cuStreamCreate", r.randrange(2))),
            (2, lambda: call("cuStreamDestroy_v2", pick("stream"))),
            (2, lambda: call("cuStreamSynchronize", stream())),
            (2, lambda: call("cuStreamQuery", stream())),
            (3, lambda: new("event", "cuEventCreate", r.randrange(4))),
            (2, lambda: call("cuEventDestroy_v2", pick("event"))),
            (4, lambda: call("cuEventRecord", pick("event"), stream())),
            (4, lambda: call("cuStreamWaitEvent", stream(), pick("event"), 0)),
            (1, lambda: call("cuEventQuery", pick("event"))),
            (3, lambda: new("memory", "cuMemAlloc_v2", size(1 + r.randrange(1 << 22)))),
            (2, lambda: call("cuMemFree_v2", pick("memory", "managed"))),
            (3, lambda: new("managed", "cuMemAllocManaged", size(1 + r.randrange(1 << 22)), 1)),
            (2, lambda: new("memory", "cuMemAllocAsync", size(1 + r.randrange(9999)), stream())),
            (2, lambda: call("cuMemFreeAsync", pick("memory"), stream())),
            (3, lambda: call("cuMemsetD8Async", self.address(), 1, size(100), stream())),
            (3, lambda: call("cuMemcpyHtoDAsync_v2", self.address(), self.host, size(9), stream())),
            (2, lambda: call("cuMemcpyDtoDAsync_v2", self.address(), self.memory, size(9), 0)),
            (1, lambda: call("cuMemPrefetchAsync", pick("managed"), size(9), 0, stream())),
            (8, self.launch),
            (2, lambda: new("module", "cuModuleLoadData", TEXT)),
            (1, lambda: call("cuModuleUnload", pick("module"))),
            (4, lambda: new("function", "cuModuleGetFunction", pick("module"),
                            r.choice([b"add", b"turn", b"none"]))),
            (2, lambda: call("cuLaunchHostFunc", stream(), _NOTHING, None)),
            (1, lambda: call("cuStreamBeginCapture_v2", stream(), r.randrange(3))),
            (3, self.capture),
            (2, lambda: new("graph", "cuGraphCreate", 0)),
            (1, lambda: call("cuGraphDestroy", pick("graph"))),
            (2, lambda: new("graph", "cuGraphClone", pick("graph"))),
            (4, lambda: self.node("cuGraphAddEmptyNode")),
            (2, lambda: self.node("cuGraphAddChildGraphNode", pick("graph"))),
            (2, lambda: self.node("cuGraphAddEventRecordNode", pick("event"))),
            (2, lambda: self.node("cuGraphAddEventWaitNode", pick("event"))),
            (1, lambda: self.node("cuGraphAddMemFreeNode", pick("memory"))),
            (2, lambda: self.edges("cuGraphAddDependencies")),
            (1, lambda: self.edges("cuGraphRemoveDependencies")),
            (1, lambda: call("cuGraphDestroyNode", pick("node"))),
            (4, lambda: new("exec", "cuGraphInstantiateWithFlags", pick("graph"), 0)),
            (4, lambda: call("cuGraphLaunch", pick("exec"), stream())),
            (1, lambda: call("cuGraphExecDestroy", pick("exec"))),
            (1, lambda: call("cuGraphExecUpdate_v2", pick("exec"), pick("graph"), self.host)),
            (1, lambda: call("cuGraphNodeGetType", pick("node"), byref(c_int()))),
            (1, lambda: new("object", "cuUserObjectCreate", None, _NOTHING, 1, 1)),
            (1, lambda: call("cuGraphRetainUserObject", pick("graph"), pick("object"), 1, 0)),
            (1, lambda: call("cuUserObjectRelease", pick("object"), 1)),
            (1, lambda: call("cuDeviceGraphMemTrim", 0)),
            (1, lambda: call("cuCtxSynchronize")),
        ]  # fmt: skip

    def make(self, count: int) -> Counter[int]:
        """So many calls; how often each answer came."""
        weights, steps = zip(*self.steps(), strict=True)
        for step in self.random.choices(steps, weights, k=count):
            step()
        return self.codes
