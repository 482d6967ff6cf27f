# SPDX-License-Identifier: GPL-2.0-only
"""Hypothesis drives random sequences of driver calls against a reference of the budget.

EMUV_MODEL_STEPS is how many steps there shall be in all (`make test-deep`: 100,000);
a failure prints the shortest sequence that shows it.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import N_PROCESSES, VIRTUAL, Machine
from tests.model.rig import Rig, environment

STEPS = int(os.environ.get("EMUV_MODEL_STEPS", "700"))
STEPS_AN_EXAMPLE = 50


class Rigs:
    """The rig of all examples; after a failure, a fresh one."""

    def __init__(self, make: Callable[[], Rig]) -> None:
        self._make = make
        self._rig: Rig | None = None

    def get(self) -> Rig:
        if self._rig is None:
            self._rig = self._make()
        return self._rig

    def drop(self) -> None:
        rig, self._rig = self._rig, None
        if rig is not None:
            rig.close()


@pytest.fixture
def rigs(
    tmp_path: Path, libemuv: Path, sim: Path, request: pytest.FixtureRequest
) -> Iterator[Rigs]:
    shared: bool = request.param
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    env = environment(os.environ, runtime, libemuv, sim, 900 << 20, VIRTUAL, shared=shared)
    rigs = Rigs(lambda: Rig(env, N_PROCESSES, tmp_path / "stderr"))
    yield rigs
    rigs.drop()


@pytest.mark.parametrize(
    "rigs", [pytest.param(False, id="apart"), pytest.param(True, id="shared")], indirect=True
)
@pytest.mark.timeout(120 if STEPS < 5000 else 7200)
def test_random_programs_against_the_reference(rigs: Rigs, request: pytest.FixtureRequest) -> None:
    told: list[str] = []  # what was done in each example that failed

    class Case(Machine):
        shared = "shared" in request.node.name

        def __init__(self) -> None:
            super().__init__()
            self.rig = rigs.get()

        def teardown(self) -> None:
            # A rule's exception is on its way; hypothesis' own, which end an example, are none.
            failed = isinstance(sys.exc_info()[1], Exception)
            try:
                super().teardown()
            except BaseException:
                failed = True
                raise
            finally:
                if failed:
                    told.append("\n".join([*self.trace, repr(sys.exc_info()[1])]))
                    rigs.drop()

    try:
        run_state_machine_as_test(
            Case,
            settings=settings(
                max_examples=max(1, STEPS // 2 // STEPS_AN_EXAMPLE),
                stateful_step_count=STEPS_AN_EXAMPLE,
                deadline=None,
                database=None,
                derandomize=STEPS < 5000,
                phases=(Phase.generate,),
                suppress_health_check=list(HealthCheck),
            ),
        )
    finally:
        # The first is the one that hypothesis made smaller; a rig of its own may differ.
        print(*told[:1], sep="\n")
