# SPDX-License-Identifier: GPL-2.0-only
"""The program that torch_step.py measures: `_torch_program.py STEPS`.

Says the device's name, then, for each line on its standard input, the nanoseconds that
STEPS training steps took.  Element-wise layers only: cuBLAS links libcudart statically,
which does not work on a simulated GPU.
"""

import sys
import time

import torch

LAYERS, WIDTH, BATCH = 8, 4096, 64


class Layer(torch.nn.Module):
    """tanh(x * w + b)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(WIDTH, device="cuda"))
        self.bias = torch.nn.Parameter(torch.zeros(WIDTH, device="cuda"))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.tanh(x * self.weight + self.bias)


def main() -> None:
    """Obeys until the input ends."""
    steps = int(sys.argv[1])
    model = torch.nn.Sequential(*(Layer() for _ in range(LAYERS)))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    x = torch.ones(BATCH, WIDTH, device="cuda")
    target = torch.zeros(BATCH, WIDTH, device="cuda")
    print(torch.cuda.get_device_name(), flush=True)
    for _ in sys.stdin:
        torch.cuda.synchronize()
        start = time.perf_counter_ns()
        for _ in range(steps):
            optimizer.zero_grad(set_to_none=True)
            loss = ((model(x) - target) ** 2).mean()
            loss.backward()
            optimizer.step()
        torch.cuda.synchronize()
        print(time.perf_counter_ns() - start, flush=True)


if __name__ == "__main__":
    main()
