"""The semantic cache, first form: nearest neighbours in the same scope, a threshold, and a guard.

Rules of this file:
1. Scopes are walls: an entry can be found only from the scope it was put into.
2. `judge` decides, and is pure. What it lets pass is *unproven*: no bound on wrong answers stands behind it.
3. All of a SemanticCache lives on one thread, its SQLite file included; the caller sees to that.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from farthing.cache.embedder import Embedder
from farthing.cache.guard import disagreement, unmatchable
from farthing.cache.index import BruteIndex, FaissIndex, Index
from farthing.cache.semantic_disk import Row, SemanticDisk
from farthing.proxy.text import Signals, normalise, signals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Found", "Neighbour", "SemanticCache", "judge"]

NEIGHBOURS = 8
# Measured (384 dimensions, one thread): up to 4,000 vectors a matrix product is as fast as FAISS (0.14 ms), and
# removing from it costs 10 µs instead of 0.5 ms; at 10,000 FAISS needs 0.6 ms, and the product wants every core.
BRUTE_UP_TO = 4_000
_REMEMBERED_VECTORS = 512
_EXPIRED_PER_LOOKUP = 256
_EVICT_SHARE = 100


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A candidate: which entry, how alike (cosine), and its text, normalised."""

    entry_key: str
    similarity: float
    text: str


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a look-up. `similarity`: the nearest neighbour's cosine, or the hit's, whichever may serve or not.

    `verdict`: 'hit', 'below threshold', 'guard: numbers differ', 'empty scope', 'too long', 'freshness' and so on.
    """

    entry_key: str | None
    similarity: float | None
    verdict: str


@dataclass(slots=True)
class _Item:
    number: int
    scope: str
    entry_key: str
    text: str
    expires_s: float


def judge(asked: Signals, neighbours: Sequence[Neighbour], threshold: float) -> Found:
    """The nearest neighbour that is alike enough and that the guard lets pass. `neighbours`: nearest first."""
    if not neighbours:
        return Found(None, None, "no neighbour")
    reason = ""
    for neighbour in neighbours:
        # Written so that a similarity or a threshold that is no number never passes.
        if not neighbour.similarity >= threshold:
            break
        refused = disagreement(asked, signals(neighbour.text))
        if not refused:
            return Found(neighbour.entry_key, min(neighbour.similarity, 1.0), "hit")
        reason = reason or refused
    return Found(None, min(neighbours[0].similarity, 1.0), f"guard: {reason}" if reason else "below threshold")


class SemanticCache:
    """See the module. Open it, use it and close it on one thread. `max_entries`: the least recently used go first."""

    def __init__(self, embedder: Embedder, max_entries: int, disk: SemanticDisk | None) -> None:
        self._embedder = embedder
        self._max = max_entries
        self._disk = disk
        self._items: OrderedDict[int, _Item] = OrderedDict()  # oldest use first
        self._by_key: dict[str, int] = {}
        self._scopes: dict[str, Index] = {}
        self._expiries: list[tuple[float, int]] = []
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._next = 1

    @classmethod
    def open(cls, path: Path | None, embedder: Embedder, *, max_entries: int) -> SemanticCache:
        """Load what `path` holds (None: nothing is kept). A file that can't be read is moved aside, never raised."""
        disk = SemanticDisk(path, embedder=embedder.name, dim=embedder.dim) if path is not None else None
        cache = cls(embedder, max_entries, disk)
        for row in disk.load() if disk is not None else ():
            cache._insert(row)
        cache._shrink()
        return cache

    def __len__(self) -> int:
        return len(self._items)

    def lookup(self, scope: str, text: str, now_s: float, threshold: float) -> Found:
        """What may answer `text` in `scope`. A text beyond the model's window is matched with nothing."""
        self._expire(now_s)
        refused = unmatchable(text)
        if refused:
            return Found(None, None, refused)
        index = self._scopes.get(scope)
        if index is None:
            return Found(None, None, "empty scope")
        plain = normalise(text)
        vector = self._embed(plain)
        if vector is None:
            return Found(None, None, "too long")
        items = [(self._items[number], similarity) for number, similarity in index.search(vector, NEIGHBOURS)]
        live = [Neighbour(one.entry_key, cosine, one.text) for one, cosine in items if one.expires_s > now_s]
        found = judge(signals(plain), live, threshold)
        if found.entry_key is not None:
            self._items.move_to_end(self._by_key[found.entry_key])
        return found

    def add(self, scope: str, text: str, entry_key: str, expires_s: float) -> bool:
        """Let `text` be found in `scope`, in place of what `entry_key` stood for; False where it must not match."""
        self.remove([entry_key])
        plain = normalise(text)
        vector = None if unmatchable(text) else self._embed(plain)
        if vector is None:
            return False
        row = Row(scope, entry_key, plain, expires_s, vector)
        self._insert(row)
        if self._disk is not None:
            self._disk.put(row)
        self._shrink()
        return True

    def remove(self, entry_keys: Iterable[str]) -> int:
        """Forget these entries; how many were there."""
        numbers = [number for key in set(entry_keys) if (number := self._by_key.pop(key, None)) is not None]
        leaving: dict[str, list[int]] = {}
        gone = [self._items.pop(number) for number in numbers]
        for item in gone:
            leaving.setdefault(item.scope, []).append(item.number)
        for scope, those in leaving.items():
            index = self._scopes[scope]
            index.remove(*those)
            if not len(index):
                del self._scopes[scope]
        if self._disk is not None and gone:
            self._disk.delete(item.entry_key for item in gone)
        return len(gone)

    def clear(self) -> None:
        """Forget everything."""
        for held in (self._items, self._by_key, self._scopes, self._expiries, self._vectors):
            held.clear()
        if self._disk is not None:
            self._disk.clear()

    def close(self) -> None:
        """Let the file go; idempotent."""
        if self._disk is not None:
            self._disk.close()

    def _embed(self, plain: str) -> NDArray[np.float32] | None:
        """The vector, remembered: a miss looks up and then adds the same text. None beyond the model's window."""
        found = self._vectors.get(plain)
        if found is None:
            if self._embedder.count(plain) > self._embedder.max_tokens:
                return None
            found = self._vectors[plain] = self._embedder.embed([plain])[0]
            if len(self._vectors) > _REMEMBERED_VECTORS:
                self._vectors.popitem(last=False)
        return found

    def _insert(self, row: Row) -> None:
        number, self._next = self._next, self._next + 1
        index = self._scopes.get(row.scope)
        if index is None:
            index = self._scopes[row.scope] = BruteIndex(self._embedder.dim)
        elif isinstance(index, BruteIndex) and len(index) >= BRUTE_UP_TO:
            larger = FaissIndex(self._embedder.dim)
            for known, vector in index.items():
                larger.add(known, vector)
            index = self._scopes[row.scope] = larger
        index.add(number, row.vector)
        self._items[number] = _Item(number, row.scope, row.entry_key, row.text, row.expires_s)
        self._by_key[row.entry_key] = number
        heapq.heappush(self._expiries, (row.expires_s, number))

    def _expire(self, now_s: float) -> None:
        """Let go of some of what has expired; a look-up passes over the rest."""
        expired: list[str] = []
        while self._expiries and self._expiries[0][0] <= now_s and len(expired) < _EXPIRED_PER_LOOKUP:
            _, number = heapq.heappop(self._expiries)
            if number in self._items:
                expired.append(self._items[number].entry_key)
        if expired:
            self.remove(expired)
        if len(self._expiries) > 2 * len(self._items) + _EXPIRED_PER_LOOKUP:
            self._expiries = [(item.expires_s, number) for number, item in self._items.items()]
            heapq.heapify(self._expiries)

    def _shrink(self) -> None:
        """Keep within the bound. One in a hundred go together: leaving a large index costs the same for one or many."""
        if len(self._items) > self._max:
            surplus = len(self._items) - self._max + self._max // _EVICT_SHARE
            oldest = [item.entry_key for item, _ in zip(self._items.values(), range(surplus), strict=False)]
            self.remove(oldest)
