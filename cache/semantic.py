"""The semantic cache, first form: nearest neighbours in the same scope, a threshold, and a guard.

Rules of this file:
1. Scopes are walls: an entry can be found only from the scope it was put into.
2. `judge` decides, and is pure. What it lets pass is *unproven*: no bound on wrong answers stands behind it.
3. All of a SemanticCache lives on one thread, its SQLite file included; the caller sees to that.
"""

from __future__ import annotations

import heapq
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from farthing.cache.embedder import Embedder
from farthing.cache.guard import disagreement, unmatchable
from farthing.cache.index_growing import GrowingIndex
from farthing.cache.semantic_disk import Row, SemanticDisk
from farthing.cache.vectors import Vectors
from farthing.cache.worth import Worth
from farthing.proxy.text import Signals, normalise, signals

__all__ = ["Found", "Neighbour", "SemanticCache", "judge"]

NEIGHBOURS = 8
MAX_BYTES = 512 * 2**20
# What an entry holds besides text and vector: its places in four tables, its rank, its key and scope (measured).
_ENTRY_BYTES = 1_200
_VECTOR_BYTES = 4
_WRITE_USES_EVERY = 256
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
    """See the module. Open it, use it and close it on one thread.

    `max_entries`, `max_bytes`: beyond either the entries that save least for their bytes leave (see `Worth`).
    """

    def __init__(self, embedder: Embedder, max_entries: int, max_bytes: int, disk: SemanticDisk | None) -> None:
        self._embedder = embedder
        self._max = max_entries
        self._max_bytes = max_bytes
        self._disk = disk
        self._items: dict[int, _Item] = {}
        self._by_key: dict[str, int] = {}
        self._scopes: dict[str, GrowingIndex] = {}
        self._restless: dict[str, None] = {}
        self._expiries: list[tuple[float, int]] = []
        self._vectors = Vectors(embedder)
        self._worth = Worth()
        self._used: dict[str, int] = {}  # uses that the file doesn't know yet, by entry key
        self._next = 1

    @classmethod
    def open(
        cls, path: Path | None, embedder: Embedder, *, max_entries: int, max_bytes: int = MAX_BYTES
    ) -> SemanticCache:
        """Load what `path` holds (None: nothing is kept). A file that can't be read is moved aside, never raised."""
        disk = SemanticDisk(path, embedder=embedder.name, dim=embedder.dim) if path is not None else None
        cache = cls(embedder, max_entries, max_bytes, disk)
        for row in disk.load() if disk is not None else ():
            cache._insert(row)
        cache._shrink()
        return cache

    def __len__(self) -> int:
        return len(self._items)

    @property
    def bytes(self) -> int:
        """Memory that the entries hold, estimated; while an index is rebuilt it holds some twice."""
        return self._worth.bytes

    @property
    def batch(self) -> int:
        """How many look-ups are worth embedding together."""
        return self._embedder.batch

    @property
    def restless(self) -> bool:
        """Whether there is something to `tend`."""
        return bool(self._restless)

    def warm(self, texts: Sequence[str]) -> None:
        """Embed these in one call, so that their look-ups needn't."""
        self._vectors.all_of([normalise(text) for text in texts if not unmatchable(text)])

    def tend(self) -> bool:
        """Do one slice of the indexes' rebuilding, some 3 ms; whether there is more. For when nobody waits."""
        scope = next(iter(self._restless), None)
        if scope is not None and not self._scopes[scope].tend():
            del self._restless[scope]
        return bool(self._restless)

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
        vector = self._vectors.of(plain)
        if vector is None:
            return Found(None, None, "too long")
        items = [(self._items[number], similarity) for number, similarity in index.search(vector, NEIGHBOURS)]
        live = [Neighbour(one.entry_key, cosine, one.text) for one, cosine in items if one.expires_s > now_s]
        found = judge(signals(plain), live, threshold)
        if found.entry_key is not None:
            self._use(found.entry_key)
        return found

    def add(self, scope: str, text: str, entry_key: str, expires_s: float, worth_usd: float | None = None) -> bool:
        """Let `text` be found in `scope`, in place of what `entry_key` stood for; False where it must not match.

        `worth_usd`: what one hit on it saves; None: unknown, and taken to be the mean.
        """
        self.remove([entry_key])
        plain = normalise(text)
        vector = None if unmatchable(text) else self._vectors.of(plain)
        if vector is None:
            return False
        row = Row(scope, entry_key, plain, expires_s, vector, worth_usd)
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
            self._worth.drop(item.number)
            self._used.pop(item.entry_key, None)
        for scope, those in leaving.items():
            index = self._scopes[scope]
            index.remove(*those)
            if not len(index):
                del self._scopes[scope]
                self._restless.pop(scope, None)
            elif index.restless:
                self._restless[scope] = None
        if self._disk is not None and gone:
            self._disk.delete(item.entry_key for item in gone)
        return len(gone)

    def clear(self) -> None:
        """Forget everything."""
        for held in (self._items, self._by_key, self._scopes, self._restless, self._expiries, self._used):
            held.clear()
        self._vectors.clear()
        self._worth.clear()
        if self._disk is not None:
            self._disk.clear()

    def close(self) -> None:
        """Let the file go; idempotent."""
        if self._disk is not None:
            self._write_uses()
            self._disk.close()

    def _use(self, entry_key: str) -> None:
        self._used[entry_key] = self._worth.use(self._by_key[entry_key])
        if len(self._used) >= _WRITE_USES_EVERY:
            self._write_uses()

    def _write_uses(self) -> None:
        if self._disk is not None and self._used:
            self._disk.used(self._used.items())
        self._used.clear()

    def _insert(self, row: Row) -> None:
        number, self._next = self._next, self._next + 1
        index = self._scopes.get(row.scope)
        if index is None:
            index = self._scopes[row.scope] = GrowingIndex(self._embedder.dim)
        index.add(number, row.vector)
        if index.restless:
            self._restless[row.scope] = None
        self._items[number] = _Item(number, row.scope, row.entry_key, row.text, row.expires_s)
        self._by_key[row.entry_key] = number
        size = _ENTRY_BYTES + _VECTOR_BYTES * self._embedder.dim + sys.getsizeof(row.text)
        self._worth.add(number, size, row.worth_usd, row.uses)
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
        """Keep within both bounds. A few more go at once: the file takes many as cheaply as one."""
        over, over_bytes = len(self._items) - self._max, self._worth.bytes - self._max_bytes
        if over <= 0 and over_bytes <= 0:
            return
        over += self._max // _EVICT_SHARE if over > 0 else 0
        over_bytes += self._max_bytes // _EVICT_SHARE if over_bytes > 0 else 0
        leaving: list[str] = []
        for number, size in self._worth.lowest():
            leaving.append(self._items[number].entry_key)
            over, over_bytes = over - 1, over_bytes - size
            if over <= 0 and over_bytes <= 0:
                break
        self.remove(leaving)
