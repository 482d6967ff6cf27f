# SPDX-License-Identifier: GPL-2.0-only
"""What one section of measurements works with: driver, clock, rows, guarded memory.

Purpose: keep the section modules to what they measure.  A section is a function that takes a
Bench; it runs in a process of its own (see driver_facts.py), which may be killed at any time.

Invariants
- A failure inside Bench.attempt becomes a row with the reason; the section goes on.
- Managed memory is only to be had from Bench.managed, which holds the quarter limit and frees.
- Rows leave the process one JSON line at a time, as soon as they are known.
- No repeat starts after the section's deadline.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from ctypes import c_int, c_uint64, c_void_p
from typing import IO, Any

import _facts_cuda as cu
from _facts_nvml import Nvml
from _facts_ptx import HEADS, KERNELS, module_text
from _facts_rows import GIB, MIB, ManagedLimit, OverLimit, make_row

THREADS = 256
BLOCKS_PER_SM = 8
MASK64 = 2**64 - 1


class KernelsUnsupportedError(RuntimeError):
    """The driver cannot run kernels (a simulated GPU, for one)."""


class OutOfTimeError(RuntimeError):
    """The section's time is up."""


class Bench:
    """One section's driver on device 0, with its primary context current.

    seconds: how long the section may take.
    """

    def __init__(
        self, section: str, driver: str, seconds: float, out: IO[str] = sys.stdout
    ) -> None:
        self.section = section
        self.deadline = time.monotonic() + seconds
        self._out = out
        self.cuda = cu.Cuda(driver)
        self.device = 0
        self._functions: dict[str, c_void_p] = {}
        self._sink = 0
        self._started = False
        self.nvml: Nvml | None = None
        self.limit = ManagedLimit(0)

    def start(self) -> None:
        """cuInit, primary context, streams and events; NVML if there is one."""
        if self.cuda.start() < 1:
            raise RuntimeError("the driver sees no device")
        self.nvml = Nvml.open(self.cuda.pci_bus_id(self.device))
        self.cuda.retain(self.device)
        self.limit = ManagedLimit(self.cuda.memory()[0])
        self.stream = self.cuda.stream()
        self.other = self.cuda.stream()
        self._begin, self._end = self.cuda.event(), self.cuda.event()
        multiprocessors = self.cuda.attribute(cu.ATTR_MULTIPROCESSORS, self.device) or 1
        self.blocks = multiprocessors * BLOCKS_PER_SM
        self.clock_khz = self.cuda.attribute(cu.ATTR_CLOCK_KHZ, self.device) or 1_000_000
        self._started = True

    def warm_up(self, milliseconds: float = 300.0) -> None:
        """Work the card until its clocks are up, and load every kernel that will be timed.

        An idle card runs at a fraction of its clock; the first figures of a section would be its.
        Nothing happens where the driver runs no kernels.
        """
        size = 64 * MIB
        try:
            with self.device_memory(size) as address:
                until = time.monotonic() + milliseconds / 1e3
                while time.monotonic() < until:
                    for name in ("write_sequential", "read_sequential"):
                        self.launch(name, address, size // 16)
                    for name in ("write_strided", "read_strided", "atomic_strided"):
                        self.launch(name, address, size // 4096, 4096)
                    self.launch("read_random", address, 1 << 16, size // 8 - 1)
                    self.sync()
        except (KernelsUnsupportedError, cu.CudaError):
            self.settle()  # the section's own attempts will say so

    # Rows and time

    def row(
        self,
        name: str,
        unit: str,
        samples: list[float],
        note: str = "",
        **params: Any,
    ) -> None:
        """Hand one row out."""
        if not samples and not note:
            note = "not measured"
        row = make_row(self.section, name, unit, samples, params, note)
        self._out.write(json.dumps(row) + "\n")
        self._out.flush()

    @contextmanager
    def attempt(self, name: str, **params: Any) -> Iterator[None]:
        """Run the body; any failure becomes a row called `name` that says why."""
        try:
            yield
        except KernelsUnsupportedError:
            self.row(name, "", [], "kernels not supported", **params)
        except OutOfTimeError:
            self.row(name, "", [], "out of time", **params)
        except OverLimit as error:
            self.row(name, "", [], f"too large for this card: {error}", **params)
        except Exception as error:
            if isinstance(error, cu.CudaError) and error.code == cu.NOT_SUPPORTED:
                self.row(name, "", [], f"not supported: {error.function}", **params)
                return
            # One measurement's failure must not lose the ones after it.
            self.row(name, "", [], f"failed: {type(error).__name__}: {error}", **params)
            self.settle()

    def in_time(self) -> None:
        """OutOfTimeError once the deadline has passed; every measurement meets it at its start,
        because taking memory and waiting for the card both ask."""
        if self.left() <= 0:
            raise OutOfTimeError

    def left(self) -> float:
        """Seconds until the section's deadline."""
        return self.deadline - time.monotonic()

    def repeat(self, times: int, once: Callable[[], float | None]) -> list[float]:
        """Up to `times` samples of `once`, fewer if time runs out (at least one is tried)."""
        samples: list[float] = []
        self.in_time()
        for turn in range(times):
            if turn and self.left() <= 0:
                break
            sample = once()
            if sample is not None:
                samples.append(sample)
        return samples

    def settle(self) -> None:
        """Wait for the card; errors are left to the next call that matters."""
        if self._started:
            self.cuda.code("cuCtxSynchronize")

    def sync(self) -> None:
        """cuCtxSynchronize, raising."""
        self.in_time()
        self.cuda.call("cuCtxSynchronize")

    def host_ns(self, body: Callable[[], object]) -> float:
        """Host nanoseconds of one call of `body`."""
        begin = time.perf_counter_ns()
        body()
        return float(time.perf_counter_ns() - begin)

    def stream_ms(self, body: Callable[[], object], stream: c_void_p | None = None) -> float:
        """Milliseconds by events around what `body` puts on the stream."""
        on = self.stream if stream is None else stream
        self.cuda.call("cuEventRecord", self._begin, on)
        body()
        self.cuda.call("cuEventRecord", self._end, on)
        return self.cuda.elapsed_ms(self._begin, self._end)

    def wall_ms(self, body: Callable[[], object]) -> float:
        """Host milliseconds from an idle card until all that `body` started has ended."""
        self.sync()
        begin = time.perf_counter_ns()
        body()
        self.sync()
        return (time.perf_counter_ns() - begin) / 1e6

    # Memory, each freed at the end of its block

    @contextmanager
    def device_memory(self, size_bytes: int) -> Iterator[int]:
        """Plain device memory."""
        self.in_time()
        address = self.cuda.alloc(size_bytes)
        try:
            yield address
        finally:
            self.settle()
            self.cuda.code("cuMemFree_v2", address)

    @contextmanager
    def managed(self, size_bytes: int, spilled: bool = False) -> Iterator[int]:
        """Managed memory within the limit; spilled: advised as emuV advises a spilled range."""
        if self.cuda.attribute(cu.ATTR_CONCURRENT_MANAGED, self.device) != 1:
            raise RuntimeError("the device has no concurrent managed access")
        self.in_time()
        self.limit.take(size_bytes)
        address = 0
        try:
            address = self.cuda.alloc_managed(size_bytes)
            if spilled:
                self.advise_spilled(address, size_bytes)
            yield address
        finally:
            if address:
                self.settle()
                self.cuda.code("cuMemFree_v2", address)
            self.limit.give(size_bytes)

    def advise_spilled(self, address: int, size_bytes: int) -> None:
        """PREFERRED_LOCATION = CPU and ACCESSED_BY = the device."""
        self.cuda.advise(address, size_bytes, cu.SET_PREFERRED, cu.CPU)
        self.cuda.advise(address, size_bytes, cu.SET_ACCESSED_BY, self.device)

    @contextmanager
    def pinned(self, size_bytes: int) -> Iterator[int]:
        """Page-locked host memory, mapped for the device; its host address."""
        self.in_time()
        pointer = c_void_p()
        self.cuda.call(
            "cuMemHostAlloc", ctypes.byref(pointer), size_bytes, cu.HOSTALLOC_PORTABLE_DEVICEMAP
        )
        try:
            yield pointer.value or 0
        finally:
            self.settle()
            self.cuda.code("cuMemFreeHost", pointer)

    def pinned_address(self, pointer: int) -> int:
        """The device address of pinned memory."""
        address = c_uint64()
        self.cuda.call("cuMemHostGetDevicePointer_v2", ctypes.byref(address), pointer, 0)
        return address.value

    @contextmanager
    def host_vmm(self, size_bytes: int) -> Iterator[tuple[int, int]]:
        """Host memory by the VMM API, mapped for the device: (address, granularity)."""
        cuda = self.cuda
        if (cuda.attribute(cu.ATTR_HOST_NUMA_VMM, self.device) or 0) == 1:
            node = cuda.attribute(cu.ATTR_HOST_NUMA_ID, self.device)
            where = cu.MemLocation(cu.LOCATION_HOST_NUMA, max(node or 0, 0))
        elif (cuda.attribute(cu.ATTR_HOST_VMM, self.device) or 0) == 1:
            where = cu.MemLocation(cu.LOCATION_HOST, 0)
        else:
            raise RuntimeError("the driver offers no host memory by the VMM API")
        prop = cu.AllocationProp(type=1, requested_handle_types=0, location=where)
        granularity = ctypes.c_size_t()
        cuda.call("cuMemGetAllocationGranularity", ctypes.byref(granularity), ctypes.byref(prop), 1)
        grain = granularity.value
        size = (size_bytes + grain - 1) // grain * grain
        address, handle = c_uint64(), c_uint64()
        cuda.call("cuMemAddressReserve", ctypes.byref(address), size, 0, 0, 0)
        created = mapped = False
        try:
            cuda.call("cuMemCreate", ctypes.byref(handle), size, ctypes.byref(prop), 0)
            created = True
            cuda.call("cuMemMap", address.value, size, 0, handle.value, 0)
            mapped = True
            access = cu.AccessDesc(
                location=cu.MemLocation(cu.LOCATION_DEVICE, self.device), flags=3
            )
            cuda.call("cuMemSetAccess", address.value, size, ctypes.byref(access), 1)
            yield address.value, grain
        finally:
            self.settle()
            if mapped:
                cuda.code("cuMemUnmap", address.value, size)
            if created:
                cuda.code("cuMemRelease", handle.value)
            cuda.code("cuMemAddressFree", address.value, size)

    def fill(self, address: int, value: int, size_bytes: int) -> None:
        """Set device-accessible memory to a byte, in the section's stream, and wait for it."""
        self.cuda.call("cuMemsetD8Async", address, value, size_bytes, self.stream)
        self.cuda.call("cuStreamSynchronize", self.stream)

    def used_bytes(self) -> int:
        """Bytes in use on the card: NVML's figure, else total - free of cuMemGetInfo."""
        self.sync()
        if self.nvml is not None:
            used = self.nvml.used_bytes()
            if used is not None:
                return used
        free, total = self.cuda.memory()
        return total - free

    @property
    def used_source(self) -> str:
        """Who answers used_bytes."""
        return "NVML" if self.nvml is not None else "cuMemGetInfo"

    # Kernels

    def kernel(self, name: str) -> c_void_p:
        """A kernel of _facts_ptx; the module is compiled at the first use."""
        if not self._functions:
            self._load()
        return self._functions[name]

    def _load(self) -> None:
        problems = []
        codes = set()
        for version, target in HEADS:
            log = ctypes.create_string_buffer(4096)
            # CU_JIT_ERROR_LOG_BUFFER and its size; the size travels in the pointer itself
            options = (c_int * 2)(5, 6)
            values = (c_void_p * 2)(ctypes.addressof(log), len(log))
            module = c_void_p()
            text = ctypes.create_string_buffer(module_text(version, target).encode())
            code = self.cuda.code(
                "cuModuleLoadDataEx", ctypes.byref(module), text, 2, options, values
            )
            if code == cu.SUCCESS:
                break
            codes.add(code)
            problems.append(f"{target}: {self.cuda.error_name(code)} {log.value.decode()[:200]}")
        else:
            if codes == {cu.NOT_SUPPORTED}:
                raise KernelsUnsupportedError
            raise RuntimeError("the driver takes no form of the kernels: " + "; ".join(problems))
        functions: dict[str, c_void_p] = {}
        for name in KERNELS:
            function = c_void_p()
            code = self.cuda.code(
                "cuModuleGetFunction", ctypes.byref(function), module, name.encode()
            )
            if code == cu.NOT_SUPPORTED:
                raise KernelsUnsupportedError
            if code != cu.SUCCESS:
                raise cu.CudaError("cuModuleGetFunction", code, self.cuda.error_name(code))
            functions[name] = function
        self._sink = self.cuda.alloc(self.blocks * THREADS * 8)
        self._functions = functions

    def launch(
        self,
        name: str,
        base: int,
        count: int,
        step: int = 0,
        stream: c_void_p | None = None,
        one_thread: bool = False,
    ) -> None:
        """Launch a kernel on the section's stream (or `stream`); does not wait."""
        function = self.kernel(name)
        values = [c_uint64(v & MASK64) for v in (base, count, step, self._sink)]
        params = (c_void_p * 4)(*(ctypes.addressof(v) for v in values))
        blocks, threads = (1, 1) if one_thread else (self.blocks, THREADS)
        on = self.stream if stream is None else stream
        code = self.cuda.code(
            "cuLaunchKernel", function, blocks, 1, 1, threads, 1, 1, 0, on, params, None
        )
        if code == cu.NOT_SUPPORTED:
            raise KernelsUnsupportedError
        if code != cu.SUCCESS:
            raise cu.CudaError("cuLaunchKernel", code, self.cuda.error_name(code))

    def timed(self, name: str, base: int, count: int, step: int = 0) -> float:
        """Milliseconds of one launch, by events."""
        return self.stream_ms(lambda: self.launch(name, base, count, step))

    def spin(self, milliseconds: float, stream: c_void_p | None = None) -> None:
        """Keep a stream busy for about so long (never more than 100 ms of clock)."""
        cycles = int(min(milliseconds, 100.0) * self.clock_khz)
        self.launch("spin", 0, cycles, step=cycles, stream=stream, one_thread=True)

    def sink_sum(self) -> int:
        """The sum over all threads of what the last kernel added up, modulo 2**64."""
        threads = self.blocks * THREADS
        host = (c_uint64 * threads)()
        self.sync()
        self.cuda.call("cuMemcpyDtoH_v2", host, self._sink, threads * 8)
        return sum(host) & MASK64


def big_enough(bench: Bench, wanted: int, parts: int = 1) -> int:
    """`wanted` managed bytes, halved until `parts` of them fit the limit; at most 1 GiB each."""
    return bench.limit.fit(min(wanted, GIB), parts)


__all__ = [
    "Bench",
    "KernelsUnsupportedError",
    "OutOfTimeError",
    "OverLimit",
    "big_enough",
]
