# SPDX-License-Identifier: GPL-2.0-only
"""What PyTorch does with device memory, without computing there.

PyTorch's kernels are machine code for NVIDIA's GPUs, with no PTX beside it: a simulated
GPU cannot run them. Allocation, copies, sets to zero, pinned memory, streams, events and
errors need none.
"""

from __future__ import annotations

import gc
import io
from typing import Any

import torch

from tests.runtime.checks import MIB, MODE, VISIBLE, NotApplicable, main, refused

DEVICE = torch.device("cuda", 0)
KERNEL = "a kernel of PyTorch's, machine code only"


def filled(value: int, size: int) -> torch.Tensor:
    return torch.full((size,), value, dtype=torch.uint8).to(DEVICE)


def clean() -> None:
    gc.collect()
    torch.cuda.synchronize()
    torch.cuda.empty_cache()


def check_device() -> None:
    assert torch.cuda.is_available()
    assert torch.cuda.device_count() == 1
    assert "emuV" in torch.cuda.get_device_name(0)
    assert torch.cuda.get_device_capability(0) == (8, 0)
    seen = torch.cuda.get_device_properties(0)
    assert seen.multi_processor_count > 0
    assert seen.total_memory == VISIBLE, seen.total_memory


def check_mem_get_info() -> None:
    clean()
    free, total = torch.cuda.mem_get_info()
    assert total == VISIBLE, total
    held = torch.empty(40 * MIB, dtype=torch.uint8, device=DEVICE)
    less, _ = torch.cuda.mem_get_info()
    assert 40 * MIB <= free - less <= 64 * MIB, free - less
    del held
    clean()
    assert torch.cuda.mem_get_info()[0] == free


def check_copies_of_every_type() -> None:
    for dtype in (torch.uint8, torch.int32, torch.int64, torch.float16, torch.bfloat16,
                  torch.float32, torch.float64, torch.complex64, torch.bool):  # fmt: skip
        host = torch.arange(1000).remainder(97).to(dtype).reshape(10, 100)
        there = host.to(DEVICE)
        assert there.is_cuda
        assert torch.equal(there.cpu(), host), dtype


def check_copy_on_the_device() -> None:
    host = torch.randn(1 << 18)
    one = host.to(DEVICE)
    other = torch.empty_like(one)
    other.copy_(one)
    again = other.clone()
    one.zero_()
    assert torch.equal(again.cpu(), host)
    assert torch.equal(again[1000:2000].cpu(), host[1000:2000])
    assert again[77].item() == host[77].item()


def check_zero() -> None:
    there = filled(7, 5 * MIB)
    there[MIB : 2 * MIB].zero_()
    back = there.cpu()
    assert int(back.sum()) == 7 * 4 * MIB
    assert int(back[MIB : 2 * MIB].sum()) == 0
    assert not torch.zeros(1000, 1000, device=DEVICE).cpu().any()
    assert not torch.zeros_like(there).cpu().any()


def check_pinned_memory() -> None:
    host = torch.randn(1 << 16).pin_memory()
    assert host.is_pinned()
    assert not torch.empty(4).is_pinned()
    back = torch.empty(1 << 16, pin_memory=True)
    there = host.to(DEVICE, non_blocking=True)
    back.copy_(there, non_blocking=True)
    torch.cuda.synchronize()
    assert torch.equal(back, host)


def check_streams_and_events() -> None:
    side, begin, end = torch.cuda.Stream(), torch.cuda.Event(True), torch.cuda.Event(True)
    host = torch.arange(1 << 16).pin_memory()
    begin.record(side)
    with torch.cuda.stream(side):
        there = host.to(DEVICE, non_blocking=True)
    end.record(side)
    torch.cuda.current_stream().wait_stream(side)
    back = there.cpu()
    end.synchronize()
    assert torch.equal(back, host)
    assert end.query()
    assert side.query()
    assert begin.elapsed_time(end) >= 0
    there.record_stream(side)


def check_out_of_memory() -> None:
    clean()
    free = torch.cuda.mem_get_info()[0]
    try:
        torch.empty(VISIBLE + 64 * MIB, dtype=torch.uint8, device=DEVICE)
    except torch.cuda.OutOfMemoryError as error:
        words = str(error)
    else:
        raise AssertionError("more than there is was given")
    assert "out of memory" in words
    clean()
    assert torch.cuda.mem_get_info()[0] == free
    assert torch.equal(filled(3, 100).cpu(), torch.full((100,), 3, dtype=torch.uint8))


def check_fills_what_it_sees() -> None:
    """Pieces of 16 MiB until nothing is left: all of them are there, and hold their bytes."""
    clean()
    free = torch.cuda.mem_get_info()[0]
    held: list[torch.Tensor] = []
    try:
        while len(held) < 200:
            held.append(filled(len(held) + 1, 16 * MIB))
    except torch.cuda.OutOfMemoryError:
        pass
    assert len(held) >= free // (16 * MIB) * 3 // 4, len(held)
    assert len(held) * 16 * MIB <= VISIBLE
    for i in range(len(held)):
        back = held[i].cpu()
        assert int(back.min()) == int(back.max()) == i + 1
    held.clear()
    clean()
    assert torch.cuda.mem_get_info()[0] == free


def check_allocator_statistics() -> None:
    clean()
    before = torch.cuda.memory_allocated()
    held = torch.empty(10 * MIB, dtype=torch.uint8, device=DEVICE)
    assert torch.cuda.memory_allocated() == before + 10 * MIB
    assert torch.cuda.memory_reserved() >= 10 * MIB
    del held
    clean()
    assert torch.cuda.memory_allocated() == before
    assert "CUDA" in torch.cuda.memory_summary()


def check_share_of_the_memory() -> None:
    clean()
    torch.cuda.set_per_process_memory_fraction(0.25)
    try:
        torch.empty(VISIBLE // 3, dtype=torch.uint8, device=DEVICE)
    except torch.cuda.OutOfMemoryError:
        pass
    else:
        raise AssertionError("the fraction was not kept")
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


def check_modules_move() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(256, 512), torch.nn.Linear(512, 8))
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    model.to(DEVICE)
    assert all(value.is_cuda for value in model.parameters())
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    file.seek(0)
    for name, value in torch.load(file, map_location=DEVICE).items():
        assert value.is_cuda
        assert torch.equal(value.cpu(), weights[name])


def check_interchange() -> None:
    there = torch.arange(100, dtype=torch.float32).to(DEVICE)
    same = torch.from_dlpack(there)
    assert same.data_ptr() == there.data_ptr()
    about = there.__cuda_array_interface__
    assert about["data"][0] == there.data_ptr()
    assert about["shape"] == (100,)


def other_process(tensors: Any, done: Any) -> None:
    """Sees what it was given, and changes it."""
    tensor = tensors.get(timeout=60)
    seen = tensor.cpu()
    tensor.copy_(seen * 2)
    torch.cuda.synchronize()
    done.put(seen.tolist())
    # The sender lives until this has let go of it.
    del tensor
    gc.collect()


def check_shared_with_a_process() -> None:
    if torch.cuda.get_allocator_backend() == "cudaMallocAsync":
        raise NotApplicable("PyTorch does not share memory of pools")
    clean()
    there = torch.arange(100, dtype=torch.float32).to(DEVICE)
    context = torch.multiprocessing.get_context("spawn")
    tensors, done = context.Queue(), context.Queue()
    process = context.Process(target=other_process, args=(tensors, done))
    process.start()
    tensors.put(there)
    assert done.get(timeout=90) == [float(i) for i in range(100)]
    process.join(30)
    assert process.exitcode == 0
    assert there.cpu().tolist() == [2.0 * i for i in range(100)]
    torch.cuda.ipc_collect()


def check_runtime_by_hand() -> None:
    cudart = torch.cuda.cudart()
    assert cudart.cudaMemGetInfo(0)[1] == VISIBLE
    block = torch.zeros(1 << 16)
    assert int(cudart.cudaHostRegister(block.data_ptr(), block.nbytes, 0)) == 0
    assert block.is_pinned()
    assert int(cudart.cudaHostUnregister(block.data_ptr())) == 0


def check_graph_of_copies() -> None:
    source, target = filled(5, 1000), filled(0, 1000)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        target.copy_(source)
        source.zero_()
    assert int(target.cpu().sum()) == 0  # captured, not done
    graph.replay()
    torch.cuda.synchronize()
    assert int(target.cpu().sum()) == 5000
    assert int(source.cpu().sum()) == 0


def check_arithmetic() -> None:
    x = torch.ones(10).to(DEVICE)
    refused(KERNEL, lambda: (x + 1).cpu(), RuntimeError)


def check_fill() -> None:
    refused(KERNEL, lambda: torch.full((10,), 3.0, device=DEVICE).cpu(), RuntimeError)


def check_conversion() -> None:
    x = torch.ones(10).to(DEVICE)
    refused(KERNEL, lambda: x.to(torch.float64).cpu(), RuntimeError)


def check_strided_copy() -> None:
    x = torch.ones(10, 10).to(DEVICE)
    refused(KERNEL, lambda: x.t().contiguous().cpu(), RuntimeError)


def check_reduction() -> None:
    x = torch.ones(10).to(DEVICE)
    refused(KERNEL, lambda: x.sum().item(), RuntimeError)


def check_indexing() -> None:
    x = torch.ones(10).to(DEVICE)
    index = torch.tensor([1, 2]).to(DEVICE)
    refused(KERNEL, lambda: x[index].cpu(), RuntimeError)


def check_random() -> None:
    refused(KERNEL, lambda: torch.rand(10, device=DEVICE).cpu(), RuntimeError)


def check_matrix_product() -> None:
    x = torch.ones(16, 16).to(DEVICE)
    refused("cuBLAS, which has a runtime of its own inside", lambda: (x @ x).cpu(), RuntimeError)


def check_lives_on() -> None:
    """After all the refusals above, memory works as before."""
    assert MODE
    check_copies_of_every_type()
    check_zero()


if __name__ == "__main__":
    main(dict(globals()))
