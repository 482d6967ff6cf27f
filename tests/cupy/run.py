# SPDX-License-Identifier: GPL-2.0-only
"""CuPy 12 on the simulated GPU: run.py [--save] [MODE…] (tests/runtime/clients.py).

CUPY_COMPILE_WITH_PTX lets it hand PTX text to the driver. CUPY_ACCELERATORS is empty:
the reductions of CUB that it would take otherwise are machine code, and CuPy does not
look whether they ran.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[0] = str(HERE.parents[1])
from tests.runtime.clients import CARD_BYTES, MIB, Client, Mode, main  # noqa: E402

LIBRARIES = ("cublas", "cuda_nvrtc", "cufft", "curand", "cusolver", "cusparse", "nvjitlink")


def search() -> list[Path]:
    """Where the wheels of CUDA's libraries have them: CuPy 12 does not look there."""
    spec = importlib.util.find_spec("nvidia")
    folders = [Path(folder) for folder in (spec.submodule_search_locations or [])] if spec else []
    return [folder / name / "lib" for folder in folders for name in LIBRARIES]


def cuda_path() -> str:
    """CUDA's headers, for what NVRTC compiles."""
    return str(search()[0].parents[1] / "cuda_runtime") if search() else ""


CUPY = Client(
    name="cupy",
    folder=HERE,
    libcudart="libcudart.so.12",
    variants={"ptx": {}},
    modes=(
        Mode("plain", None, CARD_BYTES),
        Mode("roomy", ("--vram", "768MiB"), 768 * MIB),
        Mode("tight", ("--vram", "16MiB", "--virtual", "496MiB"), 512 * MIB, spills=True),
        Mode("cap", ("--vram", "192MiB"), 192 * MIB),
    ),
    environment={
        "CUPY_COMPILE_WITH_PTX": "1",
        "CUPY_ACCELERATORS": "",
        "CUDA_PATH": cuda_path(),
    },
    search=search(),
)

if __name__ == "__main__":
    sys.exit(main(CUPY))
