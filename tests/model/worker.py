# SPDX-License-Identifier: GPL-2.0-only
"""A program under emuV that does what it is told: the model test's hands.

Reads one JSON list a line, `[thread, operation, *arguments]`, has that thread do
it, and answers `[code, value, free, total, used]`: the driver's result, what it gave,
cuMemGetInfo's two figures and what the simulated card itself says is in use.
Four threads share one context; each has a stream of its own.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
from collections.abc import Callable
from ctypes import byref, c_size_t, c_ubyte, c_uint64
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "conformance"))

from cuda_driver import AccessDesc, AllocationProp, Array3DDescriptor, Driver, Location, PoolProps

THREADS = 4
LIMIT_S = 60
UINT8 = 1
ATTACH_GLOBAL = 1
DEVICE, READ_WRITE = 1, 3
CPU = -1
GRAPH_MEMORY_RESERVED = 2  # CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT
_LOCATION = Location(DEVICE, 0)
_GRANULE = 2 << 20
_TOUCH = 64  # bytes that are looked at, at each end of an allocation

Result = tuple[int, Any]


class Worker:
    """The driver, the streams and the operations; a method named `do_x` is operation x."""

    def __init__(self) -> None:
        self.driver = d = Driver("libcuda.so.1")
        d.cuInit(0)
        self.context = d.new("cuDevicePrimaryCtxRetain", 0)
        d.cuCtxSetCurrent(self.context)
        self.streams = [d.new("cuStreamCreate", 1) for _ in range(THREADS)]
        table = d.sim()
        assert table is not None
        self.table = table

    def out(self, function: str, *args: Any) -> Result:
        made = c_uint64()
        code = self.driver.code(function, byref(made), *args)
        return code, made.value if code == 0 else 0

    # Allocations; `stream` is a thread's number.

    def do_plain(self, size: int) -> Result:
        return self.out("cuMemAlloc_v2", size)

    def do_pitch(self, size: int) -> Result:
        return self.out("cuMemAllocPitch_v2", byref(c_size_t()), 1 << 20, size >> 20, 4)

    def do_managed(self, size: int) -> Result:
        return self.out("cuMemAllocManaged", size, ATTACH_GLOBAL)

    def do_async(self, size: int, stream: int) -> Result:
        return self.out("cuMemAllocAsync", size, self.streams[stream])

    def do_async_ptsz(self, size: int) -> Result:
        return self.out("cuMemAllocAsync_ptsz", size, 0)

    def do_from_pool(self, size: int, pool: int, stream: int) -> Result:
        return self.out("cuMemAllocFromPoolAsync", size, pool, self.streams[stream])

    def do_array(self, size: int) -> Result:
        made = Array3DDescriptor(4096, size >> 12, 0, UINT8, 1, 0)
        return self.out("cuArray3DCreate_v2", byref(made))

    def do_mipmap(self, size: int) -> Result:
        made = Array3DDescriptor(4096, size >> 12, 0, UINT8, 1, 0)
        return self.out("cuMipmappedArrayCreate", byref(made), 1)

    # Their ends.

    def do_free(self, address: int) -> Result:
        return self.driver.code("cuMemFree_v2", address), 0

    def do_free_async(self, address: int, stream: int) -> Result:
        return self.driver.code("cuMemFreeAsync", address, self.streams[stream]), 0

    def do_free_async_ptsz(self, address: int) -> Result:
        return self.driver.code("cuMemFreeAsync_ptsz", address, 0), 0

    def do_free_array(self, array: int) -> Result:
        return self.driver.code("cuArrayDestroy", array), 0

    def do_free_mipmap(self, mipmap: int) -> Result:
        return self.driver.code("cuMipmappedArrayDestroy", mipmap), 0

    # Pools.

    def do_pool(self) -> Result:
        return self.out("cuMemPoolCreate", byref(PoolProps(1, 0, _LOCATION)))

    def do_default_pool(self) -> Result:
        return self.out("cuDeviceGetDefaultMemPool", 0)

    def do_keep(self, pool: int, threshold: int) -> Result:
        release_threshold = 4
        return self.driver.code(
            "cuMemPoolSetAttribute", pool, release_threshold, byref(c_uint64(threshold))
        ), 0

    def do_trim(self, pool: int, keep: int) -> Result:
        return self.driver.code("cuMemPoolTrimTo", pool, keep), 0

    def do_free_pool(self, pool: int) -> Result:
        return self.driver.code("cuMemPoolDestroy", pool), 0

    # Virtual memory management.

    def do_create(self, size: int) -> Result:
        return self.out("cuMemCreate", size, byref(AllocationProp(1, 0, _LOCATION)), 0)

    def do_release(self, handle: int) -> Result:
        return self.driver.code("cuMemRelease", handle), 0

    def do_map(self, handle: int, size: int) -> Result:
        code, address = self.out("cuMemAddressReserve", size, _GRANULE, 0, 0)
        if code:
            return code, 0
        code = self.driver.code("cuMemMap", address, size, 0, handle, 0)
        if code:
            self.driver.code("cuMemAddressFree", address, size)
            return code, 0
        access = AccessDesc(_LOCATION, READ_WRITE)
        return self.driver.code("cuMemSetAccess", address, size, byref(access), 1), address

    def do_unmap(self, address: int, size: int) -> Result:
        code = self.driver.code("cuMemUnmap", address, size)
        return code or self.driver.code("cuMemAddressFree", address, size), 0

    def do_retain(self, address: int) -> Result:
        return self.out("cuMemRetainAllocationHandle", address)

    # Hints.

    def do_prefetch(self, address: int, size: int, device: int, stream: int) -> Result:
        return self.driver.code(
            "cuMemPrefetchAsync", address, size, device, self.streams[stream]
        ), 0

    def do_advise(self, address: int, size: int, advice: int, device: int) -> Result:
        return self.driver.code("cuMemAdvise", address, size, advice, device), 0

    # Graphs.

    def do_graph(self, size: int, stream: int) -> Result:
        """A graph that allocates, sets and frees: an executable one."""
        d, s = self.driver, self.streams[stream]
        relaxed = 2
        code = d.code("cuStreamBeginCapture_v2", s, relaxed)
        if code:
            return code, 0
        code, address = self.out("cuMemAllocAsync", size, s)
        if not code:
            code = d.code("cuMemsetD8Async", address, 7, min(size, 4096), s)
            code = code or d.code("cuMemFreeAsync", address, s)
        graph = c_uint64()
        ended = d.code("cuStreamEndCapture", s, byref(graph))
        if code or ended:
            return code or ended, 0
        code, ready = self.out("cuGraphInstantiateWithFlags", graph.value, 0)
        d.code("cuGraphDestroy", graph.value)
        return code, ready

    def do_launch(self, graph: int, stream: int) -> Result:
        s = self.streams[stream]
        return self.driver.code("cuGraphLaunch", graph, s) or self.driver.code(
            "cuStreamSynchronize", s
        ), 0

    def do_free_graph(self, graph: int) -> Result:
        return self.driver.code("cuGraphExecDestroy", graph), 0

    def do_graph_trim(self) -> Result:
        return self.driver.code("cuDeviceGraphMemTrim", 0), 0

    def do_graph_reserved(self) -> Result:
        return self.out("cuDeviceGetGraphMemAttribute", 0, GRAPH_MEMORY_RESERVED)

    # Contents: an allocation is marked at both ends, and looked at before it goes.

    def do_mark(self, address: int, size: int, value: int) -> Result:
        n = min(size, _TOUCH)
        d = self.driver
        code = d.code("cuMemsetD8_v2", address, value, n)
        return code or d.code("cuMemsetD8_v2", address + size - n, value ^ 0xFF, n), 0

    def do_look(self, address: int, size: int) -> Result:
        n = min(size, _TOUCH)
        ends = (c_ubyte * (2 * n))()
        d = self.driver
        code = d.code("cuMemcpyDtoH_v2", ends, address, n)
        tail = (c_ubyte * n).from_buffer(ends, n)
        code = code or d.code("cuMemcpyDtoH_v2", tail, address + size - n, n)
        return code, sorted(set(ends[:n])) + sorted(set(ends[n:]))

    # The rig's own.

    def do_fail(self, function: str, code: int) -> Result:
        return self.table.fail(function.encode(), 1, code), 0

    def do_unfail(self, function: str) -> Result:
        """Takes back a failure that no call has met."""
        return self.table.fail(function.encode(), 0, 0), 0

    def do_hold(self, stream: int, on: int) -> Result:
        return self.table.hold_stream(self.streams[stream], on), 0

    def do_settle(self) -> Result:
        return self.driver.code("cuCtxSynchronize"), 0

    def do_sync(self, stream: int) -> Result:
        return self.driver.code("cuStreamSynchronize", self.streams[stream]), 0

    def do_cycle(self, kind: str, size: int) -> Result:
        """Takes, marks, looks, gives back; the value is whether the marks were there."""
        args = [size, 0] if kind == "async" else [size]
        code, value = getattr(self, f"do_{kind}")(*args)
        if code:
            return code, 0
        if kind == "array":
            return self.do_free_array(value)[0], 1
        self.do_mark(value, size, 5)
        seen = self.do_look(value, size) == (0, [5, 0xFA])
        free = "free_async_ptsz" if kind == "async_ptsz" else "free"
        return getattr(self, f"do_{free}")(value)[0], int(seen)

    def do_nothing(self) -> Result:
        return 0, 0

    def do_total(self) -> Result:
        return self.out("cuDeviceTotalMem_v2", 0)

    def do_fork(self) -> Result:
        """A child that has no CUDA ends without harm to the parent's books."""
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        return os.waitpid(pid, 0)[1], 0


def burst(worker: Worker, orders: list[list[list[Any]]]) -> list[list[Any]]:
    """Each thread does its list of (operation, arguments), all at once; the answers."""
    answers: list[list[Any]] = [[] for _ in orders]
    gate = threading.Barrier(len(orders))

    def do(number: int) -> None:
        worker.driver.cuCtxSetCurrent(worker.context)
        gate.wait(LIMIT_S)
        for name, *args in orders[number]:
            answers[number].append(getattr(worker, f"do_{name}")(*args))

    threads = [threading.Thread(target=do, args=(n,)) for n in range(len(orders))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_S)
    return answers


class Threads:
    """The four: each does one operation at a time, on request."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker
        self.orders: list[queue.SimpleQueue[Callable[[], Result]]] = []
        self.answers: queue.SimpleQueue[Result | BaseException] = queue.SimpleQueue()
        for _ in range(THREADS):
            orders: queue.SimpleQueue[Callable[[], Result]] = queue.SimpleQueue()
            self.orders.append(orders)
            threading.Thread(target=self._serve, args=(orders,), daemon=True).start()

    def _serve(self, orders: queue.SimpleQueue[Callable[[], Result]]) -> None:
        self.worker.driver.cuCtxSetCurrent(self.worker.context)
        while True:
            order = orders.get()
            try:
                self.answers.put(order())
            except BaseException as error:  # the rig is to hear of it
                self.answers.put(error)

    def do(self, thread: int, name: str, args: list[Any]) -> Result:
        method = getattr(self.worker, f"do_{name}")
        self.orders[thread].put(lambda: method(*args))
        answer = self.answers.get(timeout=LIMIT_S)
        if isinstance(answer, BaseException):
            raise answer
        return answer


def main() -> None:
    worker = Worker()
    threads = Threads(worker)
    used = c_uint64()
    print(json.dumps(["ready", os.getpid()]), flush=True)
    for line in sys.stdin:
        thread, name, *args = json.loads(line)
        if name == "burst":
            code, value = 0, burst(worker, args[0])
        else:
            code, value = threads.do(thread, name, args)
        free, total = worker.driver.memory_info()
        worker.table.device_used(0, byref(used))
        print(json.dumps([code, value, free, total, used.value]), flush=True)


if __name__ == "__main__":
    main()
