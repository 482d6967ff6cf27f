# SPDX-License-Identifier: GPL-2.0-only
"""A pytest plugin: device 0's primary context stays up while a file of tests runs.

On a real card a context takes a good part of a second to make, and a suite whose every test makes
and destroys the primary context would take minutes.  For files that do not ask whether that
context is up.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest


@pytest.fixture(scope="session", autouse=True)
def kept_context(driver: Any) -> Iterator[None]:
    """One more reference to the primary context, from before the first test to after the last."""
    driver.new("cuDevicePrimaryCtxRetain", 0)
    yield
    driver.cuDevicePrimaryCtxRelease_v2(0)
