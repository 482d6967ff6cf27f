# SPDX-License-Identifier: GPL-2.0-only
"""The worker for JAX; whether it preallocates is chosen by XLA_PYTHON_CLIENT_PREALLOCATE."""

from __future__ import annotations

from functools import partial
from typing import Any

import _worker
import jax
import jax.numpy as jnp
import numpy


@partial(jax.jit, static_argnums=1)
def start(seed: Any, words: int) -> Any:
    """Word j is j * (2 * seed + 1) + seed."""
    return jnp.arange(words, dtype=jnp.uint32) * (2 * seed + 1) + seed


@partial(jax.jit, donate_argnums=0)
def combine(array: Any, other: Any) -> Any:
    """array * 3 + other, in the memory of `array`."""
    return array * jnp.uint32(3) + other


class Jax(_worker.Stack):
    """jax.numpy.uint32 arrays on the first GPU."""

    name = "jax"

    def __init__(self) -> None:
        self.device = jax.devices("gpu")[0]

    def make(self, seed: int, words: int) -> Any:
        return start(jnp.uint32(seed), words).block_until_ready()

    def mix(self, array: Any, other: Any) -> Any:
        return combine(array, other)

    def fetch(self, array: Any) -> Any:
        return numpy.ascontiguousarray(array).data

    def is_oom(self, error: BaseException) -> bool:
        return "RESOURCE_EXHAUSTED" in str(error)

    def total_bytes(self) -> int | None:
        stats = self.device.memory_stats() or {}
        limit = stats.get("bytes_limit")  # the share of the device that JAX allows itself
        return None if limit is None else int(limit)

    def wait(self) -> None:
        (jnp.zeros(8) + 1).block_until_ready()  # one stream: this is behind all before it


if __name__ == "__main__":
    _worker.main(Jax())
