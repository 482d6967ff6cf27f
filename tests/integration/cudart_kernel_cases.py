# SPDX-License-Identifier: GPL-2.0-only
"""Kernels and variables as nvcc's host code registers them; as cudart_cases.py.

The fat binary is written by hand, as are the calls that nvcc's stubs make.
"""

from __future__ import annotations

import ctypes
import struct
import sys
from ctypes import POINTER, byref, c_char_p, c_float, c_int, c_size_t, c_uint, c_void_p
from typing import Any

from tests.integration.cudart_cases import TO_DEVICE, TO_HOST, Dim, Runtime
from tests.integration.gpu_images import CUBIN, PTX, Kernel, cubin, fatbin, member

N = 1000
TEXT = b"""
.version 8.0
.target sm_80
.address_size 64
.visible .const .align 4 .f32 factor[2];
.visible .global .align 4 .u32 counter = 7;
.visible .global .attribute(.managed) .align 4 .u32 shown = 5;
.visible .entry scale(.param .u64 values, .param .u32 n)
{
	.reg .pred %p;
	.reg .b32 %r<6>;
	.reg .f32 %f<4>;
	.reg .b64 %d<5>;
	.shared .align 4 .b8 room[256];
	mov.u32 %r1, %ctaid.x;
	mov.u32 %r2, %ntid.x;
	mov.u32 %r3, %tid.x;
	mad.lo.s32 %r1, %r1, %r2, %r3;
	ld.param.u32 %r4, [n];
	setp.ge.u32 %p, %r1, %r4;
	@%p bra DONE;
	ld.param.u64 %d1, [values];
	cvta.to.global.u64 %d1, %d1;
	mul.wide.u32 %d2, %r1, 4;
	add.s64 %d3, %d1, %d2;
	ld.global.f32 %f1, [%d3];
	st.shared.f32 [room], %f1;
	ld.const.f32 %f2, [factor+4];
	mul.f32 %f3, %f1, %f2;
	st.global.f32 [%d3], %f3;
	atom.global.add.u32 %r5, [counter], 1;
	atom.global.add.u32 %r5, [shown], 2;
DONE:
	ret;
}
\0"""


class Wrapper(ctypes.Structure):
    """What lies in .nvFatBinSegment."""

    _fields_ = [("magic", c_uint), ("version", c_uint), ("data", c_void_p), ("more", c_void_p)]


class Attributes(ctypes.Structure):
    _fields_ = [
        *((name, c_size_t) for name in ("shared", "constant", "local")),
        *((name, c_int) for name in ("max_threads", "registers", "ptx", "binary", "cache",
                                     "max_dynamic", "carveout")),
        ("more", c_int * 30),
    ]  # fmt: skip


class Config(ctypes.Structure):
    _fields_ = [("grid", Dim), ("block", Dim), ("shared", c_size_t), ("stream", c_void_p),
                ("attributes", c_void_p), ("count", c_uint)]  # fmt: skip


class Program:
    """A translation unit: its fat binary, a host function, host variables."""

    def __init__(self, rt: Runtime, *members: bytes, name: bytes = b"scale") -> None:
        self.rt, library = rt, rt.dll  # names by text: a class would change "__"
        self.image = ctypes.create_string_buffer(fatbin(*members))
        self.wrapper = Wrapper(0x466243B1, 1, ctypes.addressof(self.image), None)
        self.stub = ctypes.create_string_buffer(16)  # its address is the function's
        self.variables = {n: ctypes.create_string_buffer(16) for n in (b"factor", b"counter")}
        self.shown = c_void_p()
        self.names = [c_char_p(name), *map(c_char_p, self.variables), c_char_p(b"shown")]
        getattr(library, "__cudaRegisterFatBinary").restype = c_void_p
        getattr(library, "__cudaRegisterFatBinaryEnd").restype = None
        self.handle = c_void_p(getattr(library, "__cudaRegisterFatBinary")(byref(self.wrapper)))
        getattr(library, "__cudaRegisterFunction")(
            self.handle, self.stub, self.names[0], self.names[0], -1, *[None] * 5
        )
        register = getattr(library, "__cudaRegisterVar")
        for text, variable in zip(self.names[1:], self.variables.values(), strict=False):
            register(self.handle, variable, text, text, 0, c_size_t(8), 0, 0)
        getattr(library, "__cudaRegisterManagedVar")(
            self.handle, byref(self.shown), None, self.names[3], 0, c_size_t(4), 0, 0
        )
        getattr(library, "__cudaRegisterFatBinaryEnd")(self.handle)
        self.data = rt.upload(struct.pack(f"{N}f", *range(N)))
        self.arguments = (c_void_p(self.data.value), c_uint(N))
        self.pointers = (c_void_p * 2)(*map(ctypes.addressof, self.arguments))

    def launch(self, name: str, function: Any) -> int:
        grid = (Dim(N // 128 + 1, 1, 1), Dim(128, 1, 1))
        return self.rt.code(name, function, *grid, self.pointers, c_size_t(0), None)

    def values(self) -> list[float]:
        raw = self.rt.download(self.data, 4 * N)
        return [value for (value,) in struct.iter_unpack("f", raw)]

    def read(self, name: bytes) -> int:
        out = c_uint()
        self.rt.cudaMemcpyFromSymbol(
            byref(out), self.variables[name], c_size_t(4), c_size_t(0), TO_HOST
        )
        return out.value


def made(rt: Runtime, factor: float = 3) -> Program:
    program = Program(rt, member(PTX, 80, TEXT))
    value = c_float(factor)
    rt.cudaMemcpyToSymbol(
        program.variables[b"factor"], byref(value), c_size_t(4), c_size_t(4), TO_DEVICE
    )
    return program


def launches(rt: Runtime) -> None:
    program = made(rt)
    assert program.launch("cudaLaunchKernel", program.stub) == 0
    assert program.values() == [3.0 * i for i in range(N)]
    assert program.read(b"counter") == 7 + N
    kernel, function = c_void_p(), c_void_p()
    rt.code("__cudaGetKernel", byref(kernel), program.stub)
    assert program.launch("__cudaLaunchKernel", kernel) == 0
    assert program.launch("cudaLaunchKernel", kernel) == 0
    rt.cudaGetFuncBySymbol(byref(function), program.stub)
    assert program.launch("cudaLaunchKernel", function) == 0
    assert program.launch("cudaLaunchKernel_ptsz", program.stub) == 0
    rt.cudaDeviceSynchronize()
    assert program.values() == [3.0**5 * i for i in range(N)]
    config = Config(Dim(N // 128 + 1, 1, 1), Dim(128, 1, 1), 0, None, None, 0)
    rt.cudaLaunchKernelExC(byref(config), program.stub, program.pointers)
    assert program.launch("cudaLaunchCooperativeKernel", program.stub) == 0
    assert program.values() == [3.0**7 * i for i in range(N)]


def launches_that_cannot_be(rt: Runtime) -> None:
    program = made(rt)
    wide = (Dim(1, 1, 1), Dim(2048, 1, 1), program.pointers, c_size_t(0), None)
    assert rt.code("cudaLaunchKernel", program.stub, *wide) == 9
    assert rt.last() == 9
    missing = Program(rt, member(PTX, 80, TEXT), name=b"no_such_kernel")
    assert missing.launch("cudaLaunchKernel", missing.stub) == 98
    code = Program(rt, member(CUBIN, 80, cubin(Kernel("scale", ((0, 8), (8, 4))))))
    assert code.launch("cudaLaunchKernel", code.stub) == 209
    damaged = Program(rt, member(PTX, 80, b".version 8.0\n.target sm_80\nnonsense\0"))
    assert damaged.launch("cudaLaunchKernel", damaged.stub) == 218
    assert program.launch("cudaLaunchKernel", program.stub) == 0


def variables(rt: Runtime) -> None:
    program = made(rt)
    size, address = c_size_t(), c_void_p()
    rt.cudaGetSymbolSize(byref(size), program.variables[b"factor"])
    assert size.value == 8
    rt.cudaGetSymbolAddress(byref(address), program.variables[b"counter"])
    assert struct.unpack("I", rt.download(address, 4)) == (7,)
    too_much = (c_size_t(8), c_size_t(4), TO_DEVICE)
    assert rt.code("cudaMemcpyToSymbol", program.variables[b"factor"], b"12345678", *too_much) == 1
    getattr(rt.dll, "__cudaInitModule")(program.handle)
    shown = ctypes.cast(program.shown, POINTER(c_uint))
    assert shown[0] == 5
    shown[0] = 100
    assert program.launch("cudaLaunchKernel", program.stub) == 0
    rt.cudaDeviceSynchronize()
    assert shown[0] == 100 + 2 * N


def questions(rt: Runtime) -> None:
    program = made(rt)
    about, blocks = Attributes(), c_int()
    rt.cudaFuncGetAttributes(byref(about), program.stub)
    assert about.shared == 256
    assert about.max_threads == 1024
    assert about.registers > 0
    rt.cudaFuncSetAttribute(program.stub, 8, 40000)
    rt.cudaFuncGetAttributes(byref(about), program.stub)
    assert about.max_dynamic == 40000
    rt.cudaOccupancyMaxActiveBlocksPerMultiprocessor(
        byref(blocks), program.stub, 128, c_size_t(0)
    )
    assert blocks.value >= 1
    offset, size, name = c_size_t(), c_size_t(), c_char_p()
    rt.cudaFuncGetParamInfo(program.stub, c_size_t(1), byref(offset), byref(size))
    assert (offset.value, size.value) == (8, 4)
    rt.cudaFuncGetName(byref(name), program.stub)
    assert name.value == b"scale"


def libraries(rt: Runtime) -> None:
    program = made(rt)
    library, kernel, count, address = c_void_p(), c_void_p(), c_uint(), c_void_p()
    rt.cudaLibraryLoadData(byref(library), program.image, None, None, 0, None, None, 0)
    rt.cudaLibraryGetKernelCount(byref(count), library)
    assert count.value == 1
    rt.cudaLibraryGetKernel(byref(kernel), library, b"scale")
    size = c_size_t()
    rt.cudaLibraryGetGlobal(byref(address), byref(size), library, b"factor")
    rt.cudaMemcpy(address, struct.pack("2f", 0, 2), c_size_t(8), TO_DEVICE)
    assert program.launch("cudaLaunchKernel", kernel) == 0
    assert program.values() == [2.0 * i for i in range(N)]
    assert rt.code("cudaLibraryGetKernel", byref(kernel), library, b"other") == 500
    rt.cudaLibraryUnload(library)


def unloaded_code_is_forgotten(rt: Runtime) -> None:
    programs = [made(rt, factor) for factor in (2, 5)]
    getattr(rt.dll, "__cudaUnregisterFatBinary").restype = None
    getattr(rt.dll, "__cudaUnregisterFatBinary")(programs[0].handle)
    assert programs[0].launch("cudaLaunchKernel", programs[0].stub) == 98
    assert programs[1].launch("cudaLaunchKernel", programs[1].stub) == 0
    assert programs[1].values() == [5.0 * i for i in range(N)]


def after_a_reset(rt: Runtime) -> None:
    """Code is loaded again for the new context, with fresh variables."""
    first = made(rt)
    assert first.launch("cudaLaunchKernel", first.stub) == 0
    assert first.read(b"counter") == 7 + N
    rt.cudaDeviceReset()
    assert first.read(b"counter") == 7
    second = made(rt)
    assert second.launch("cudaLaunchKernel", second.stub) == 0
    assert second.values()[:3] == [0, 3, 6]


def many_kernels(rt: Runtime) -> None:
    """Tens of thousands are registered, as by a large library; one is used."""
    program = made(rt)
    stubs = ctypes.create_string_buffer(30000)
    start = ctypes.addressof(stubs)
    for i in range(30000):
        getattr(rt.dll, "__cudaRegisterFunction")(
            program.handle, c_void_p(start + i), None, b"scale", -1, *[None] * 5
        )
    assert program.launch("cudaLaunchKernel", c_void_p(start + 29999)) == 0
    assert program.values() == [3.0 * i for i in range(N)]


def bad_address(rt: Runtime) -> None:
    """An error of a kernel stays until the device is reset."""
    program = made(rt)
    program.arguments[0].value = 64
    assert program.launch("cudaLaunchKernel", program.stub) == 0
    assert rt.code("cudaDeviceSynchronize") == 700
    assert (rt.last(), rt.last()) == (700, 700)
    assert rt.code("cudaMalloc", byref(c_void_p()), c_size_t(64)) == 700
    rt.cudaDeviceReset()
    assert rt.last() == 0
    rt.malloc(64)


class KernelNode(ctypes.Structure):
    _fields_ = [("function", c_void_p), ("grid", Dim), ("block", Dim), ("shared", c_uint),
                ("parameters", c_void_p), ("extra", c_void_p)]  # fmt: skip


class SetNode(ctypes.Structure):
    _fields_ = [("to", c_void_p), ("pitch", c_size_t), ("value", c_uint), ("element", c_uint),
                ("width", c_size_t), ("height", c_size_t)]  # fmt: skip


def captured(rt: Runtime) -> None:
    program = made(rt)
    stream, graph, run, status = c_void_p(), c_void_p(), c_void_p(), c_int(-1)
    rt.cudaStreamCreateWithFlags(byref(stream), 1)
    rt.cudaStreamBeginCapture(stream, 0)
    rt.cudaStreamIsCapturing(stream, byref(status))
    assert status.value == 1
    grid = (Dim(N // 128 + 1, 1, 1), Dim(128, 1, 1))
    for _ in range(2):
        rt.cudaLaunchKernel(program.stub, *grid, program.pointers, c_size_t(0), stream)
    rt.cudaStreamEndCapture(stream, byref(graph))
    rt.cudaDeviceSynchronize()
    assert program.values() == [float(i) for i in range(N)]
    rt.cudaGraphInstantiate(byref(run), graph, ctypes.c_ulonglong(0))
    rt.cudaGraphLaunch(run, stream)
    rt.cudaStreamSynchronize(stream)
    assert program.values() == [9.0 * i for i in range(N)]
    count = c_size_t()
    rt.cudaGraphGetNodes(graph, None, byref(count))
    assert count.value == 2
    rt.cudaGraphExecDestroy(run)
    rt.cudaGraphDestroy(graph)


def drawn(rt: Runtime) -> None:
    """Nodes by hand: a kernel, then a copy, then a set; and what is told of them."""
    program = made(rt)
    graph, run, nodes = c_void_p(), c_void_p(), [c_void_p() for _ in range(3)]
    rt.cudaGraphCreate(byref(graph), 0)
    kernel = KernelNode(
        ctypes.addressof(program.stub), Dim(8, 1, 1), Dim(128, 1, 1), 0,
        ctypes.addressof(program.pointers), None,
    )  # fmt: skip
    rt.cudaGraphAddKernelNode(byref(nodes[0]), graph, None, c_size_t(0), byref(kernel))
    copy = rt.malloc(4 * N)
    rt.cudaGraphAddMemcpyNode1D(
        byref(nodes[1]), graph, byref(nodes[0]), c_size_t(1), copy, program.data,
        c_size_t(4 * N), 3,
    )  # fmt: skip
    zero = SetNode(program.data.value, 0, 0, 4, N, 1)
    rt.cudaGraphAddMemsetNode(byref(nodes[2]), graph, byref(nodes[1]), c_size_t(1), byref(zero))
    rt.cudaGraphInstantiateWithFlags(byref(run), graph, ctypes.c_ulonglong(0))
    rt.cudaGraphLaunch(run, None)
    rt.cudaDeviceSynchronize()
    assert rt.download(copy, 4 * N) == struct.pack(f"{N}f", *(3.0 * i for i in range(N)))
    assert program.values() == [0.0] * N
    told, what = KernelNode(), SetNode()
    rt.cudaGraphKernelNodeGetParams(nodes[0], byref(told))
    assert (told.grid.x, told.block.x) == (8, 128)
    about = Attributes()
    rt.cudaFuncGetAttributes(byref(about), c_void_p(told.function))  # a handle is as good
    assert about.shared == 256
    rt.cudaGraphMemsetNodeGetParams(nodes[2], byref(what))
    assert (what.to, what.width, what.element) == (program.data.value, N, 4)
    kinds = []
    for node in nodes:
        kind = c_int()
        rt.cudaGraphNodeGetType(node, byref(kind))
        kinds.append(kind.value)
    assert kinds == [0, 1, 2]


if __name__ == "__main__":
    globals()[sys.argv[2]](Runtime(int(sys.argv[1])))
