# SPDX-License-Identifier: GPL-2.0-only
"""What the budget says, in as few words as it can be said: the reference of the model test.

    physical = device + resident + overhead + graph + kept   at most vram
    used     = device + managed  + overhead + graph          at most vram + virtual

A request goes to the device where it fits both; else, where it can be managed and the
policy lets it, to managed memory with as much of its head on the device as fits in
whole blocks; else it is refused.  Processes that share a budget add up.

Nothing of this is taken from csrc/shim: docs/architecture.md is its source.
"""

from __future__ import annotations

from dataclasses import dataclass, field

MIB = 1 << 20
BLOCK = 2 * MIB


@dataclass
class Held:
    """An allocation that the program holds."""

    kind: str  # the operation that made it
    size: int
    placement: str  # device, managed
    mark: int | None = None  # what its ends were marked with; None: it cannot be
    maps: dict[int, int] = field(default_factory=dict)  # VMM: address -> bytes
    handles: int = 1  # VMM: references by handle


@dataclass(frozen=True)
class Outcome:
    """What a request may come to."""

    placement: str  # device, managed, refused
    head: int = 0


@dataclass
class Books:
    """One process: what it holds, by kind of bytes."""

    overhead: int = 0
    graph: int = 0
    kept: int = 0
    resident: int = 0
    pinned: int = 0  # of managed memory of the program's own that fitted: on the host by now
    held: dict[int, Held] = field(default_factory=dict)
    leaving: dict[int, list[Held]] = field(default_factory=dict)  # by the stream they wait for

    def _sum(self, placement: str) -> int:
        waiting = [h for held in self.leaving.values() for h in held]
        return sum(h.size for h in [*self.held.values(), *waiting] if h.placement == placement)

    @property
    def device(self) -> int:
        return self._sum("device") - self.pinned

    @property
    def managed(self) -> int:
        return self._sum("managed") + self.pinned

    @property
    def physical(self) -> int:
        return self.device + self.resident + self.overhead + self.graph + self.kept

    @property
    def used(self) -> int:
        return self.device + self.managed + self.overhead + self.graph


@dataclass
class Budget:
    """The limits of one process, or of all that share it."""

    vram: int
    virtual: int
    policy: str

    @property
    def visible(self) -> int:
        return self.vram + (self.virtual if self.policy == "spill" else 0)


def outcomes(
    budget: Budget, sharing: list[Books], size: int, *, may_spill: bool, whole: bool = False,
    pooled: bool = False, unsure: int = 0,
) -> set[Outcome]:  # fmt: skip
    """Where a request of `size` may end.

    `whole`: it has no head of its own (a VMM handle).  `pooled`: it comes from a pool,
    which may grow by more than is asked for, and then for too much.  `unsure`: so much of
    the room may be held for what others' pools may have grown by.

    More than one where pools keep bytes, or graphs that are not running have some
    reserved: of them some can be had back, and how many is the driver's to say.
    """
    used = sum(books.used for books in sharing)
    physical = sum(books.physical for books in sharing)
    kept = sum(books.kept for books in sharing)
    graph = sum(books.graph for books in sharing)
    found = set()
    for had_kept in {*range(0, kept + 1, BLOCK), kept}:
        for had_graph in {*range(0, graph + 1, BLOCK), graph}:
            free = max(0, budget.visible - used + had_graph)
            for taken in range(0, unsure + BLOCK, BLOCK) if unsure else (0,):
                room = max(0, budget.vram - physical + had_kept + had_graph - taken)
                fits = size <= room and size <= free
                if fits:
                    found.add(Outcome("device"))
                if fits and not (pooled and budget.policy == "spill"):
                    continue
                if may_spill and budget.policy == "spill" and size <= free:
                    head = 0 if whole else min(room, size) // BLOCK * BLOCK
                    found.add(Outcome("managed", head))
                else:
                    found.add(Outcome("refused"))
    return found
