# SPDX-License-Identifier: GPL-2.0-only
"""tinygrad, tensors whose compiler writes PTX by itself, against NumPy.

Started with DEV=CUDA:PTX: the device, and the renderer that needs no other compiler.
"""

from __future__ import annotations

import numpy as np
from checks import MIB, close, main, same
from tinygrad import Context, Device, Tensor, TinyJit, dtypes
from tinygrad.nn.optim import Adam

rng = np.random.default_rng(7)


def draw(*shape: int) -> np.ndarray:
    return rng.normal(size=shape).astype(np.float32)


def check_the_device_is_the_gpu() -> None:
    assert Device.DEFAULT.startswith("CUDA"), Device.DEFAULT


def check_elementwise() -> None:
    a, b = draw(300, 41), draw(300, 41)
    close((Tensor(a) * Tensor(b) + Tensor(a).relu()).numpy(), a * b + np.maximum(a, 0))
    close(Tensor(a).sin().numpy(), np.sin(a.astype(float)), 1e-5)
    close(Tensor(a).exp().numpy(), np.exp(a.astype(float)), 1e-5)
    close(Tensor(np.abs(a) + 0.1).log().numpy(), np.log(np.abs(a.astype(float)) + 0.1), 1e-5)
    close((Tensor(np.abs(a)).sqrt() / 3).numpy(), np.sqrt(np.abs(a)) / 3, 1e-5)


def check_matrix_products() -> None:
    a, b = draw(70, 64), draw(64, 50)
    close((Tensor(a) @ Tensor(b)).numpy(), a @ b, 1e-5)
    a, b = draw(4, 32, 32), draw(4, 32, 32)
    close((Tensor(a) @ Tensor(b)).numpy(), a @ b, 1e-5)


def check_reductions() -> None:
    a = draw(64, 1000)
    close(Tensor(a).sum().numpy(), a.sum(dtype=float), 1e-4)
    close(Tensor(a).max(axis=1).numpy(), a.max(axis=1))
    close(Tensor(a).mean(axis=0).numpy(), a.mean(axis=0), 1e-5)
    close(Tensor(a).std(axis=1).numpy(), a.std(axis=1, ddof=1), 1e-5)
    same(Tensor(a).argmax(axis=1).numpy(), a.argmax(axis=1))
    close(Tensor(a[:4]).softmax(axis=1).sum(axis=1).numpy(), np.ones(4))
    close(Tensor(a[:4]).cumsum(axis=1).numpy(), a[:4].cumsum(axis=1), 1e-5)


def check_integers() -> None:
    a = rng.integers(-1000, 1000, 5000).astype(np.int32)
    b = np.where(a % 17 == 0, 5, a % 17).astype(np.int32)
    same((Tensor(a) * Tensor(b) ^ Tensor(b)).numpy(), a * b ^ b)
    same((Tensor(a) // Tensor(b)).numpy(), a // b)
    same((Tensor(a) % Tensor(b)).numpy(), a % b)
    same((Tensor(a).cast(dtypes.int64) * 1_000_003).numpy(), a.astype(np.int64) * 1_000_003)
    same(Tensor(a).cast(dtypes.int8).numpy(), a.astype(np.int8))
    same((Tensor(a) < Tensor(b)).numpy(), a < b)


def check_small_and_large_types() -> None:
    a = draw(2000)
    same(Tensor(a).cast(dtypes.float16).numpy(), a.astype(np.float16))
    wide = a.astype(np.float64)
    close((Tensor(wide) * Tensor(wide) + 1).numpy(), wide * wide + 1, 1e-15)
    half = a.astype(np.float16)
    close((Tensor(half) * Tensor(half)).numpy(), half * half, 1e-3)


def check_movement() -> None:
    a = draw(6, 8, 10)
    same(Tensor(a).permute(2, 0, 1).contiguous().numpy(), a.transpose(2, 0, 1))
    same(Tensor(a).flip(1).contiguous().numpy(), a[:, ::-1])
    same(Tensor(a)[1:5, ::2, 3].contiguous().numpy(), a[1:5, ::2, 3])
    same(Tensor(a).pad(((1, 2), None, None)).numpy(), np.pad(a, ((1, 2), (0, 0), (0, 0))))
    same(Tensor(a)[Tensor([5, 0, 3])].numpy(), a[[5, 0, 3]])
    same(Tensor.cat(Tensor(a), Tensor(a), dim=2).numpy(), np.concatenate([a, a], axis=2))


def check_sort() -> None:
    a = draw(257)
    same(Tensor(a).sort()[0].numpy(), np.sort(a))


def check_convolution() -> None:
    image, kernel = draw(2, 3, 12, 12), draw(4, 3, 3, 3)
    wanted = np.zeros((2, 4, 10, 10), np.float32)
    for y in range(10):
        for x in range(10):
            patch = image[:, None, :, y : y + 3, x : x + 3]
            wanted[:, :, y, x] = (patch * kernel[None]).sum(axis=(2, 3, 4))
    close(Tensor(image).conv2d(Tensor(kernel)).numpy(), wanted, 1e-5)


def check_captured_and_replayed() -> None:
    @TinyJit
    def step(x: Tensor) -> Tensor:
        return ((x * 2 + 1).relu().sum(axis=1) - 3).realize()

    for _ in range(5):
        a = draw(30, 40)
        close(step(Tensor(a).realize()).numpy(), np.maximum(a * 2 + 1, 0).sum(axis=1) - 3, 1e-5)


def check_training() -> None:
    """A small network learns another one: the loss falls to a twentieth."""
    x, m = draw(128, 8), draw(8, 1)
    w1, w2 = Tensor(draw(8, 16) * 0.3), Tensor(draw(16, 1) * 0.3)
    optimizer = Adam([w1.is_param_(), w2.is_param_()], lr=0.03)
    losses = []
    with Context(TRAINING=1):
        for _ in range(60):
            optimizer.zero_grad()
            loss = ((Tensor(x) @ w1).tanh() @ w2 - Tensor(np.tanh(x @ m * 0.2))).square().mean()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses[-1] < losses[0] / 20, f"{losses[0]:.4f} to {losses[-1]:.4f}"


def check_more_than_a_small_card_holds() -> None:
    """Six tensors of 8 MiB, all alive."""
    size = 2 * MIB
    whole = np.arange(size, dtype=np.int32)
    kept = [(Tensor(whole) * k).realize() for k in range(1, 7)]
    total = kept[0]
    for more in kept[1:]:
        total = total + more
    same(total.numpy(), whole * 21)


main(globals())
