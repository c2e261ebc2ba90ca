"""The index of one scope: exact while it is small, a graph when it is large, rebuilt aside while it serves.

Rules of this file:
1. `add`, `remove` and `search` never rebuild anything. Whoever owns the index calls `tend` when nobody waits; each call
   moves a few vectors, about 3 ms of work at most.
2. While a new index is built aside, the old one answers, and both take every change; then they are swapped. So a
   rebuild costs memory for both, and nobody sees a half-built index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from farthing.cache.index import BruteIndex
from farthing.cache.index_hnsw import HnswIndex

if TYPE_CHECKING:
    from farthing.cache.index import Vector

__all__ = ["GROW_AT", "GrowingIndex"]

# Measured (bench/index.py, docs/semantic-cache.md): here a flat look-up costs 2.5 ms, a third of embedding the prompt.
# A graph is quicker from 1,000 on, but loses some neighbours, and a lost hit costs more than milliseconds.
# Half of it is where a graph turns back.
GROW_AT = 20_000
_MOST_DEAD = 0.25
_FEW_DEAD = 256


class GrowingIndex:
    """An Index; see the module."""

    def __init__(self, dim: int, grow_at: int = GROW_AT) -> None:
        self._dim = dim
        self._grow_at = grow_at
        self._now: BruteIndex | HnswIndex = BruteIndex(dim)
        self._next: BruteIndex | HnswIndex | None = None
        self._todo: list[int] = []

    def __len__(self) -> int:
        return len(self._now)

    @property
    def kind(self) -> str:
        """'flat' or 'graph'."""
        return "graph" if isinstance(self._now, HnswIndex) else "flat"

    @property
    def restless(self) -> bool:
        """Whether there is something to `tend`."""
        return self._next is not None or self._wanted() is not None

    def numbers(self) -> list[int]:
        """Index.numbers."""
        return self._now.numbers()

    def add(self, number: int, vector: Vector) -> None:
        """Index.add."""
        self._now.add(number, vector)
        if self._next is not None:
            try:
                self._next.add(number, vector)
            except Exception:  # noqa: BLE001 - the old index has it; `tend` tries anew and tells
                self._next = None

    def remove(self, *numbers: int) -> None:
        """Index.remove."""
        self._now.remove(*numbers)
        if self._next is not None:
            self._next.remove(*numbers)

    def search(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        """Index.search; approximate when large (see HnswIndex)."""
        return self._now.search(vector, k)

    def vector(self, number: int) -> Vector:
        """Index.vector."""
        return self._now.vector(number)

    def items(self) -> list[tuple[int, Vector]]:
        """Index.items."""
        return self._now.items()

    def tend(self) -> bool:
        """Do one slice of what is to be done; whether there is more.

        Raises what the new index raises, which is given up then; the old one goes on.
        """
        if self._next is None:
            kind = self._wanted()
            if kind is None:
                return False
            self._next = kind(self._dim)
            self._todo = self._now.numbers()
        held, known = self._now, self._next
        try:
            for _ in range(min(known.slice, len(self._todo))):
                number = self._todo.pop()
                # Removed since, or removed and added anew, and then it is there already.
                if number in held and number not in known:
                    known.add(number, held.vector(number))
        except BaseException:
            self._next = None
            raise
        if not self._todo:
            self._now, self._next = known, None
        return self.restless

    def _wanted(self) -> type[BruteIndex | HnswIndex] | None:
        """The kind to build anew; None while the one in use will do."""
        size = len(self._now)
        if isinstance(self._now, BruteIndex):
            return HnswIndex if size > self._grow_at else None
        if size < self._grow_at // 2:
            return BruteIndex
        return HnswIndex if self._now.dead > max(_FEW_DEAD, _MOST_DEAD * size) else None
