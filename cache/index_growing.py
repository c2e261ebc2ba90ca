"""The index of one scope: exact while it is small, inverted lists when it is large, rebuilt aside while it serves.

Rules of this file:
1. `add`, `remove` and `search` never rebuild anything. Whoever owns the index calls `tend` when nobody waits; each call
   does some 2 ms of work.
2. While a new index is trained and filled aside, the old one answers; once it is there, both take every change; then
   they are swapped. So a rebuild costs memory for both, and nobody sees a half-built index.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from farthing.cache.index import BruteIndex
from farthing.cache.index_ivf import IvfIndex, Training

if TYPE_CHECKING:
    from farthing.cache.index import Vector

__all__ = ["GROW_AT", "GrowingIndex"]

# Measured (bench/index.py, docs/semantic-cache.md): here a flat look-up costs 2.5 ms, a third of embedding the prompt.
# Lists are quicker from 1,000 on, but may lose a neighbour, and a lost hit costs more than milliseconds.
# Half of it is where lists turn back.
GROW_AT = 20_000


class GrowingIndex:
    """An Index; see the module."""

    def __init__(self, dim: int, grow_at: int = GROW_AT) -> None:
        self._dim = dim
        self._grow_at = grow_at
        self._now: BruteIndex | IvfIndex = BruteIndex(dim)
        self._next: BruteIndex | IvfIndex | Training | None = None
        self._todo: list[int] = []

    def __len__(self) -> int:
        return len(self._now)

    @property
    def kind(self) -> str:
        """'flat' or 'ivf'."""
        return "ivf" if isinstance(self._now, IvfIndex) else "flat"

    @property
    def restless(self) -> bool:
        """Whether there is something to `tend`."""
        return self._next is not None or self._outgrown

    def numbers(self) -> list[int]:
        """Index.numbers."""
        return self._now.numbers()

    def add(self, number: int, vector: Vector) -> None:
        """Index.add."""
        self._now.add(number, vector)
        if isinstance(self._next, BruteIndex | IvfIndex):
            try:
                self._next.add(number, vector)
            except Exception:  # noqa: BLE001 - the old index has it; `tend` tries anew and tells
                self._next = None

    def remove(self, *numbers: int) -> None:
        """Index.remove."""
        self._now.remove(*numbers)
        if isinstance(self._next, BruteIndex | IvfIndex):
            self._next.remove(*numbers)

    def search(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        """Index.search; approximate when large (see IvfIndex)."""
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
        try:
            if self._next is None:
                self._begin()
            elif isinstance(self._next, Training):
                self._train(self._next)
            else:
                self._fill(self._next)
        except BaseException:
            self._next = None
            raise
        return self.restless

    def _begin(self) -> None:
        if not self._outgrown:
            return
        if len(self._now) < self._grow_at // 2:
            self._next, self._todo = BruteIndex(self._dim), self._now.numbers()
        else:
            self._next = Training(self._now.numbers())

    def _train(self, training: Training) -> None:
        if training.stale or not self._outgrown:  # exchanged or shrunk meanwhile
            self._next = None
        elif (trained := training.step(self._now)) is not None:
            self._next, self._todo = trained, self._now.numbers()

    def _fill(self, filled: BruteIndex | IvfIndex) -> None:
        some = self._todo[-filled.slice :]
        del self._todo[-filled.slice :]
        # Removed since, or removed and added anew, and then it is there already.
        filled.extend([(n, self._now.vector(n)) for n in some if n in self._now and n not in filled])
        if not self._todo:
            self._now, self._next = filled, None

    @property
    def _outgrown(self) -> bool:
        """Whether the index in use isn't the one for its size."""
        if isinstance(self._now, BruteIndex):
            return len(self._now) > self._grow_at
        return self._now.worn or len(self._now) < self._grow_at // 2
