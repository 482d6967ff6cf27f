# SPDX-License-Identifier: GPL-2.0-only
"""PTX in, words out: kernels of a few lines for tests of control flow and of names."""

from __future__ import annotations

from collections.abc import Sequence
from ctypes import (
    addressof,
    byref,
    c_int,
    c_uint64,
    c_void_p,
    create_string_buffer,
    string_at,
)

from cuda_driver import SUCCESS, CudaError, Driver

HEAD = ".version 8.0\n.target sm_80\n.address_size 64\n"
_ERROR_LOG, _ERROR_LOG_BYTES = 5, 6


def entry(body: str, name: str = "k", promises: str = "") -> str:
    """A kernel: thread i of the grid has i in %i and the address of its word in %out."""
    return f"""
.visible .entry {name}(.param .u64 k_out, .param .u64 k_in) {promises}
{{
    .reg .b32 %i, %block; .reg .b64 %out, %in, %base;
    mov.u32 %i, %ntid.x;
    mov.u32 %block, %ctaid.x;
    mul.lo.u32 %i, %i, %block;
    mov.u32 %block, %tid.x;
    add.u32 %i, %i, %block;
    ld.param.u64 %base, [k_out];
    mad.wide.u32 %out, %i, 4, %base;
    ld.param.u64 %in, [k_in];
    {{
{body}
    }}
    ret;
}}
"""


class Module:
    """PTX texts, loaded (linked where there are several); `run` launches one kernel."""

    def __init__(self, driver: Driver, *texts: str, head: str = HEAD) -> None:
        self.driver = driver
        image = (head + texts[0]).encode() if len(texts) == 1 else link(driver, *texts)
        self.handle = driver.new("cuModuleLoadData", image)

    def run(
        self,
        words: int,
        name: str = "k",
        given: Sequence[int] = (),
        threads: int | None = None,
        blocks: int = 1,
        shared: int = 0,
    ) -> list[int]:
        """The `words` words that the kernel wrote; `given` is what [%in] holds."""
        driver, size = self.driver, 4 * words
        out = driver.new("cuMemAlloc_v2", size)
        where = driver.new("cuMemAlloc_v2", max(4 * len(given), 4))
        driver.cuMemsetD8_v2(out, 0, size)
        if given:
            data = b"".join(x.to_bytes(4, "little") for x in given)
            driver.cuMemcpyHtoD_v2(where, data, len(data))
        function = driver.new("cuModuleGetFunction", self.handle, name.encode())
        values = (c_uint64 * 2)(out, where)
        pointers = (c_void_p * 2)(addressof(values), addressof(values) + 8)
        driver.cuLaunchKernel(
            function,
            blocks,
            1,
            1,
            words if threads is None else threads,
            1,
            1,
            shared,
            None,
            pointers,
            None,
        )
        driver.cuCtxSynchronize()
        data = driver.download(out, size)
        driver.cuMemFree_v2(out)
        driver.cuMemFree_v2(where)
        return [int.from_bytes(data[i : i + 4], "little") for i in range(0, size, 4)]

    def unload(self) -> None:
        self.driver.cuModuleUnload(self.handle)


def run(driver: Driver, body: str, words: int = 8, outside: str = "", **more: object) -> list[int]:
    """What a kernel of this body, among these functions and variables, writes."""
    module = Module(driver, outside + entry(body))
    try:
        return module.run(words, **more)  # type: ignore[arg-type]
    finally:
        module.unload()


class LinkError(Exception):
    """cuLink* refused; `code` is the CUresult, the text what the error log has."""

    def __init__(self, code: int, log: str) -> None:
        super().__init__(log)
        self.code = code


def link(driver: Driver, *texts: str) -> bytes:
    """What cuLinkComplete makes of the texts (each gets a head)."""
    log = create_string_buffer(1000)
    options = (c_int * 2)(_ERROR_LOG, _ERROR_LOG_BYTES)
    values = (c_void_p * 2)(addressof(log), 1000)
    state = c_uint64()
    driver.cuLinkCreate_v2(2, options, values, byref(state))
    try:
        for number, text in enumerate(texts):
            data = (HEAD + text).encode()
            driver.cuLinkAddData_v2(
                state.value, 1, data, len(data) + 1, f"text {number}".encode(), 0, None, None
            )
        image, size = c_void_p(), c_uint64()
        driver.cuLinkComplete(state.value, byref(image), byref(size))
        return string_at(image.value or 0, size.value)
    except CudaError as error:
        raise LinkError(error.code, log.value.decode()) from error
    finally:
        driver.cuLinkDestroy(state.value)


def load_code(driver: Driver, text: str) -> tuple[int, str]:
    """The CUresult of loading the text, and the error log."""
    log = create_string_buffer(1000)
    options = (c_int * 2)(_ERROR_LOG, _ERROR_LOG_BYTES)
    values = (c_void_p * 2)(addressof(log), 1000)
    module = c_uint64()
    code = driver.code(
        "cuModuleLoadDataEx", byref(module), (HEAD + text).encode(), 2, options, values
    )
    if code == SUCCESS:
        driver.cuModuleUnload(module.value)
    return code, log.value.decode()
