# SPDX-License-Identifier: GPL-2.0-only
"""How much sunlight a landscape gets in a day, with the shadows that its hills cast.

    python terrain_light.py

An ordinary numba-cuda program. The landscape is the elevation model of the Jacksboro
fault in Tennessee (344 × 403 cells of 90 m, U.S. Geological Survey) that matplotlib
ships. For each of 44 positions of the sun a kernel makes a map of the light, walking
from each cell towards the sun; all maps stay on the GPU. Two more kernels sum them up
and count, for each number of sunny hours, the cells that have it. NumPy does the same:
the counts must be equal, the light too but for rounding.
"""

import math
import sys

import numpy as np
from numba import cuda

SUNS = 44
COUNTS = SUNS + 1  # none to all
STEPS = 40  # cells that a shadow may reach
CELL = 90.0  # metres
SKY = np.float32(0.01)  # the least light where no hill stands in the way
UNIT = 256  # of fixed-point positions and heights: 1/256 cell, 1/256 metre


def elevation() -> np.ndarray:
    """Metres, as float32, from the file that matplotlib installs."""
    import matplotlib

    path = f"{matplotlib.get_data_path()}/sample_data/jacksboro_fault_dem.npz"
    with np.load(path) as file:
        return file["elevation"].astype(np.float32)


def sun(index: int, suns: int) -> tuple[np.ndarray, np.ndarray]:
    """(steps towards the sun: x, y, height, in fixed point; its direction): east to west."""
    hour = math.pi * (index + 1) / (suns + 1)
    direction = np.array([math.cos(hour), -0.5 * math.sin(hour), 0.6 * math.sin(hour)])
    along = math.hypot(direction[0], direction[1])
    step = np.array([*(direction[:2] / along), direction[2] / along * CELL])
    return (step * UNIT).astype(np.int32), (direction / np.linalg.norm(direction)).astype("f4")


@cuda.jit
def light_map(ground, step, direction, light):
    """One thread a cell: in whole numbers whether a hill stands in the way, then how bright."""
    x, y = cuda.grid(2)
    height, width = ground.shape
    if x >= width or y >= height:
        return
    own = int(ground[y, x]) * UNIT
    for k in range(1, STEPS + 1):
        i = x + ((k * step[0] + UNIT // 2) >> 8)
        j = y + ((k * step[1] + UNIT // 2) >> 8)
        if i < 0 or i >= width or j < 0 or j >= height:
            break
        if int(ground[j, i]) * UNIT > own + k * step[2]:
            light[y, x] = 0.0
            return
    slope_x = (ground[y, min(x + 1, width - 1)] - ground[y, max(x - 1, 0)]) / np.float32(2 * CELL)
    slope_y = (ground[min(y + 1, height - 1), x] - ground[max(y - 1, 0), x]) / np.float32(2 * CELL)
    normal = math.sqrt(slope_x * slope_x + slope_y * slope_y + np.float32(1))
    bright = (direction[2] - slope_x * direction[0] - slope_y * direction[1]) / normal
    light[y, x] = max(bright, SKY)


@cuda.jit
def add_map(light, total, sunny):
    x, y = cuda.grid(2)
    if y < light.shape[0] and x < light.shape[1]:
        total[y, x] += light[y, x]
        if light[y, x] > 0:
            sunny[y, x] += 1


@cuda.jit
def count_cells(sunny, counts):
    """Counts of a block in shared memory first: one atomic a count and block."""
    own = cuda.shared.array(COUNTS, np.int32)
    thread = cuda.threadIdx.x + cuda.blockDim.x * cuda.threadIdx.y
    if thread < own.size:
        own[thread] = 0
    cuda.syncthreads()
    x, y = cuda.grid(2)
    if y < sunny.shape[0] and x < sunny.shape[1]:
        cuda.atomic.add(own, sunny[y, x], 1)
    cuda.syncthreads()
    if thread < own.size:
        cuda.atomic.add(counts, thread, own[thread])


def on_gpu(heights: np.ndarray, suns: int) -> tuple[np.ndarray, np.ndarray, int]:
    """(light of the day, cells for each number of sunny hours, bytes on the GPU)."""
    block = (16, 8)
    grid = tuple(-(-n // b) for n, b in zip(heights.shape[::-1], block, strict=True))
    ground = cuda.to_device(heights)
    total = cuda.to_device(np.zeros_like(heights))
    sunny = cuda.to_device(np.zeros(heights.shape, np.int32))
    counts = cuda.to_device(np.zeros(COUNTS, np.int32))
    maps = [cuda.device_array_like(ground) for _ in range(suns)]
    for index, light in enumerate(maps):
        step, direction = (cuda.to_device(part) for part in sun(index, suns))
        light_map[grid, block](ground, step, direction, light)
    for light in maps:
        add_map[grid, block](light, total, sunny)
    count_cells[grid, block](sunny, counts)
    held = sum(array.nbytes for array in (ground, total, sunny, counts, *maps))
    return total.copy_to_host(), counts.copy_to_host(), held


def on_cpu(heights: np.ndarray, suns: int) -> tuple[np.ndarray, np.ndarray]:
    """The same, by NumPy."""
    height, width = heights.shape
    rows, columns = np.mgrid[0:height, 0:width]
    whole = heights.astype(np.int64) * UNIT
    padded = np.pad(heights, 1, mode="edge")
    slope_x = (padded[1:-1, 2:] - padded[1:-1, :-2]) / np.float32(2 * CELL)
    slope_y = (padded[2:, 1:-1] - padded[:-2, 1:-1]) / np.float32(2 * CELL)
    normal = np.sqrt(slope_x**2 + slope_y**2 + np.float32(1))
    total, sunny = np.zeros_like(heights), np.zeros(heights.shape, np.int32)
    for index in range(suns):
        step, direction = sun(index, suns)
        shadow = np.zeros(heights.shape, bool)
        for k in range(1, STEPS + 1):
            i = columns + ((k * int(step[0]) + UNIT // 2) >> 8)
            j = rows + ((k * int(step[1]) + UNIT // 2) >> 8)
            inside = (i >= 0) & (i < width) & (j >= 0) & (j < height)
            there = whole[j.clip(0, height - 1), i.clip(0, width - 1)]
            shadow |= inside & (there > whole + k * int(step[2]))
        bright = (direction[2] - slope_x * direction[0] - slope_y * direction[1]) / normal
        light = np.where(shadow, np.float32(0), np.maximum(bright, SKY))
        total += light
        sunny += light > 0
    return total, np.bincount(sunny.ravel(), minlength=COUNTS)


def main(suns: int = SUNS) -> int:
    """Returns 0 where the GPU's result is NumPy's."""
    heights = elevation()
    total, counts, held = on_gpu(heights, suns)
    wanted_total, wanted_counts = on_cpu(heights, suns)
    difference = float(np.max(np.abs(total - wanted_total)))
    equal = np.array_equal(counts, wanted_counts) and difference < 1e-4
    print(f"bytes: {held}")
    print(f"light: {float(total.mean() / suns):.4f} of the sun's, {suns} positions")
    print(f"largest difference: {difference:.2g}")
    print(f"equal to NumPy: {equal}")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
