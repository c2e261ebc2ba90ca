"""Which entries leave first when memory is short: those that save least for the bytes they hold. Pure.

GreedyDual-Size-Frequency: an entry's rank is the age at its last use plus worth x uses / bytes; the lowest leaves, and
its rank becomes the age, so that what was worth much long ago leaves too. Ties: the least recently used first.
Source: Cherkasova, "Improving WWW proxies performance with Greedy-Dual-Size-Frequency caching policy" (1998).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass

__all__ = ["Worth"]

_STALE = 256


@dataclass(slots=True)
class _Held:
    worth_usd: float
    size: int
    uses: int
    rank: tuple[float, int]


class Worth:
    """The entries by number, with what a hit on each saves. Every operation is O(log n), amortised."""

    def __init__(self) -> None:
        self._held: dict[int, _Held] = {}
        self._heap: list[tuple[float, int, int]] = []
        self._age = 0.0
        self._turn = 0
        self._priced_usd = 0.0
        self._priced = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._held)

    def add(self, number: int, size: int, worth_usd: float | None, uses: int = 0) -> None:
        """Take note of a new entry. `size`: bytes. `worth_usd`: what one hit saves; None where nobody knows: the mean
        of those known. `uses`: its hits in an earlier life."""
        if worth_usd is not None and worth_usd > 0:
            self._priced_usd += worth_usd
            self._priced += 1
        else:
            worth_usd = self._priced_usd / self._priced if self._priced else 1.0
        self._held[number] = _Held(worth_usd, max(size, 1), uses, (0.0, 0))
        self.bytes += size
        self._rank(number)

    def use(self, number: int) -> int:
        """An entry was hit; how often by now."""
        held = self._held[number]
        held.uses += 1
        self._rank(number)
        return held.uses

    def usd(self, number: int) -> float:
        """What one hit on it saves, or is taken to save."""
        return self._held[number].worth_usd

    def drop(self, number: int) -> None:
        """An entry is gone."""
        held = self._held.pop(number, None)
        if held is not None:
            self.bytes -= held.size

    def lowest(self) -> Iterator[tuple[int, int]]:
        """Entries as (number, bytes), the one that should leave first first; those given count as leaving."""
        while self._heap:
            rank, turn, number = heapq.heappop(self._heap)
            held = self._held.get(number)
            if held is not None and held.rank == (rank, turn):
                self._age = rank
                yield number, held.size

    def clear(self) -> None:
        """Forget all entries; what is known of prices stays."""
        self._held.clear()
        self._heap.clear()
        self.bytes = 0

    def _rank(self, number: int) -> None:
        held = self._held[number]
        self._turn += 1
        held.rank = (self._age + held.worth_usd * (1 + held.uses) / held.size, self._turn)
        heapq.heappush(self._heap, (*held.rank, number))
        if len(self._heap) > 2 * len(self._held) + _STALE:
            self._heap = [(*one.rank, known) for known, one in self._held.items()]
            heapq.heapify(self._heap)
