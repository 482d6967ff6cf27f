# SPDX-License-Identifier: GPL-2.0-only
"""Devices: what they answer about themselves."""

from __future__ import annotations

import re
import uuid
from ctypes import byref, c_int, c_size_t, c_uint, create_string_buffer
from pathlib import Path

import pytest
from cuda_driver import INVALID_DEVICE, INVALID_VALUE, SUCCESS, Driver, SimTable, Uuid

MAJOR, MINOR, WARP, PCI_BUS, PCI_DEVICE, PCI_DOMAIN = 75, 76, 10, 33, 34, 50
UNIFIED, MANAGED, CONCURRENT_MANAGED, VMM, POOLS = 41, 83, 89, 102, 115
MAX_THREADS, MULTIPROCESSORS, PAGEABLE = 1, 16, 88


def test_ordinals(driver: Driver) -> None:
    count = driver.get(c_int, "cuDeviceGetCount")
    assert count >= 1
    for ordinal in range(count):
        assert driver.get(c_int, "cuDeviceGet", ordinal) == ordinal
    for bad in (-1, count, 1 << 20):
        assert driver.code("cuDeviceGet", byref(c_int()), bad) == INVALID_DEVICE
        assert driver.code("cuDeviceGetAttribute", byref(c_int()), WARP, bad) == INVALID_DEVICE
        assert driver.code("cuDeviceTotalMem_v2", byref(c_size_t()), bad) == INVALID_DEVICE
    assert driver.code("cuDeviceGet", None, 0) == INVALID_VALUE
    assert driver.code("cuDeviceGetCount", None) == INVALID_VALUE


def test_identity(driver: Driver) -> None:
    name = create_string_buffer(100)
    driver.cuDeviceGetName(name, len(name), 0)
    assert len(name.value) > 3
    short = create_string_buffer(5)
    driver.cuDeviceGetName(short, len(short), 0)
    assert short.value == name.value[:4]
    one, two = (driver.get(Uuid, call, 0) for call in ("cuDeviceGetUuid", "cuDeviceGetUuid_v2"))
    assert bytes(one.bytes) == bytes(two.bytes) != bytes(16)


def test_pci_address(driver: Driver) -> None:
    text = create_string_buffer(20)
    driver.cuDeviceGetPCIBusId(text, len(text), 0)
    found = re.fullmatch(rb"([0-9A-Fa-f]{4,8}):([0-9A-Fa-f]{2}):([0-9A-Fa-f]{2})\.0", text.value)
    assert found
    address = [int(part, 16) for part in found.groups()]
    assert address == [driver.attribute(n) for n in (PCI_DOMAIN, PCI_BUS, PCI_DEVICE)]
    assert driver.get(c_int, "cuDeviceGetByPCIBusId", text.value) == 0
    assert driver.code("cuDeviceGetByPCIBusId", byref(c_int()), b"nonsense") == INVALID_VALUE
    assert driver.code("cuDeviceGetByPCIBusId", byref(c_int()), b"7f7f:ee:1d.0") == INVALID_DEVICE


def test_compute_capability(driver: Driver) -> None:
    major, minor = c_int(), c_int()
    driver.cuDeviceComputeCapability(byref(major), byref(minor), 0)
    assert [major.value, minor.value] == [driver.attribute(MAJOR), driver.attribute(MINOR)]
    assert major.value >= 5


def test_attributes_that_programs_trust(driver: Driver) -> None:
    assert driver.attribute(WARP) == 32
    assert driver.attribute(MAX_THREADS) == 1024
    assert driver.attribute(MULTIPROCESSORS) > 0
    assert driver.attribute(UNIFIED) == 1
    assert driver.attribute(MANAGED) == 1
    for bad in (0, -1, 100000):
        assert driver.code("cuDeviceGetAttribute", byref(c_int()), bad, 0) == INVALID_VALUE


def test_properties_are_the_attributes(driver: Driver) -> None:
    properties = (c_int * 14)()
    driver.cuDeviceGetProperties(properties, 0)
    assert list(properties)[:13] == [driver.attribute(n) for n in range(1, 14)]


def test_total_memory(driver: Driver, context: int) -> None:
    total = driver.get(c_size_t, "cuDeviceTotalMem_v2", 0)
    free, all_of_it = driver.memory_info()
    assert 0 < free <= all_of_it == total
    small = driver.get(c_uint, "cuDeviceTotalMem", 0)
    assert small == min(total, 2**32 - 1)


def test_the_simulated_card(driver: Driver, sim_table: SimTable) -> None:
    name = create_string_buffer(100)
    driver.cuDeviceGetName(name, len(name), 0)
    assert name.value == b"emuV simulated GPU"
    for capability in (CONCURRENT_MANAGED, VMM, POOLS):
        assert driver.attribute(capability) == 1
    assert driver.attribute(PAGEABLE) == 0
    assert uuid.UUID(bytes=bytes(driver.get(Uuid, "cuDeviceGetUuid_v2", 0).bytes)).version == 4


def test_every_attribute_of_the_version_is_answered(driver: Driver, sim_table: SimTable) -> None:
    for number in range(1, 148):
        assert driver.code("cuDeviceGetAttribute", byref(c_int()), number, 0) == SUCCESS, number
    assert driver.code("cuDeviceGetAttribute", byref(c_int()), 148, 0) == INVALID_VALUE


def test_attribute_names_are_cuda_h_s(sim_table: SimTable) -> None:
    nvidia = pytest.importorskip("nvidia", reason="no nvidia-cuda-runtime wheel")
    headers = [h for p in nvidia.__path__ for h in sorted(Path(p).glob("*/include/cuda.h"))]
    if not headers:
        pytest.skip("no cuda.h")
    known = dict(
        re.findall(r"\bCU_DEVICE_ATTRIBUTE_(\w+)\s*=\s*(\d+)", headers[0].read_text())
    )
    ours = re.findall(
        r"^SIM_ATTRIBUTE\((\w+), (\d+),",
        (Path(__file__).parents[2] / "csrc/sim/attributes.def").read_text(),
        re.M,
    )
    assert len(ours) == 147
    assert [(name, number) for name, number in ours if known.get(name) != number] == []
