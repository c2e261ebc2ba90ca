"""The semantic cache: nearest neighbours in the same scope, and how safe each one is.

Rules of this file:
1. Scopes are walls: an entry can be found only from the scope it was put into, and what was worked out for one spares
   no other its time.
2. It finds and scores; whether anything is served is a policy's decision, taken elsewhere.
3. All of a SemanticCache lives on one thread, its SQLite file included; the caller sees to that.
"""

from __future__ import annotations

import heapq
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from farthing.cache.digest import Stamp, stamp_of
from farthing.cache.embedder import Embedder
from farthing.cache.following import Following, FollowingFile, FollowingReplicas
from farthing.cache.index_growing import GrowingIndex
from farthing.cache.rarity import RouteWords
from farthing.cache.scorer import GuardScorer, Scorer
from farthing.cache.semantic_disk import Row, SemanticDisk
from farthing.cache.semantic_log import SemanticLog
from farthing.cache.unmatchable import unmatchable
from farthing.cache.vectors import Vectors
from farthing.cache.worth import Worth
from farthing.proxy.seal import Seal
from farthing.proxy.text import normalise

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from farthing.cache.index_pg import PgIndex, PgVectors
    from farthing.cache.log_redis import RedisLog

__all__ = ["Found", "Neighbour", "SemanticCache", "best"]

NEIGHBOURS = 8
_MOST_ROUTES = 1_000
MAX_BYTES = 512 * 2**20
# What an entry holds besides text and vector: its places in four tables, its rank, its key and scope (measured).
_ENTRY_BYTES = 1_200
_VECTOR_BYTES = 4
# Its reading: 1.4 kB for 32 characters, 2.3 for 101, 3.5 for 208 (measured). Counted before it is read.
_READING_BYTES, _READING_BYTES_A_CHAR = 1_000, 12
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
    """The outcome of a look-up: the candidate with the best score, its cosine, its score and its text, normalised.

    `verdict`: 'candidate', or why there is none: 'empty scope', 'too long', 'freshness' and so on.
    """

    entry_key: str | None
    similarity: float | None
    score: float
    verdict: str
    text: str = ""


@dataclass(slots=True)
class _Item:
    number: int
    scope: str
    entry_key: str
    text: str
    expires_s: float
    reading: Any = None  # the scorer's, from the first time that it is a candidate


def best(neighbours: Sequence[Neighbour], scores: Sequence[float]) -> Found:
    """The neighbour with the highest score, of equals the nearest. `neighbours`: nearest first."""
    if not neighbours:
        return Found(None, None, 0.0, "no neighbour")
    at = max(range(len(neighbours)), key=lambda i: (scores[i], -i))
    found = neighbours[at]
    return Found(found.entry_key, min(found.similarity, 1.0), scores[at], "candidate", found.text)


class SemanticCache:
    """See the module. Open it, use it and close it on one thread.

    `max_entries`, `max_bytes`: beyond either the entries that save least for their bytes leave (see `Worth`).
    """

    def __init__(
        self,
        embedder: Embedder,
        scorer: Scorer[Any],
        max_entries: int,
        max_bytes: int,
        disk: SemanticDisk | None,
        following: Following | None = None,
        elsewhere: PgVectors | None = None,
    ) -> None:
        self._embedder = embedder
        self._scorer = scorer
        self._words: OrderedDict[str, RouteWords] = OrderedDict()
        self._max = max_entries
        self._max_bytes = max_bytes
        self._disk = disk
        self._following = following
        self._elsewhere = elsewhere
        self._items: dict[int, _Item] = {}
        self._by_key: dict[str, int] = {}
        self._scopes: dict[str, GrowingIndex | PgIndex] = {}
        self._restless: dict[str, None] = {}
        self._expiries: list[tuple[float, int]] = []
        self._vectors = Vectors(embedder)
        self._worth = Worth()
        self._used: dict[str, int] = {}  # uses that the file doesn't know yet, by entry key
        self._next = 1

    @classmethod
    def open(
        cls,
        path: Path | None,
        embedder: Embedder,
        *,
        max_entries: int,
        max_bytes: int = MAX_BYTES,
        scorer: Scorer[Any] | None = None,
        writer: str = "",
        replicas: RedisLog | None = None,
        elsewhere: PgVectors | None = None,
        seal: Seal | None = None,
    ) -> SemanticCache:
        """Load what `path` holds (None: nothing is kept). A file that can't be read is moved aside, never raised.

        `writer`: this process's name, where others have the file open too; then `follow` takes over what they change.
        `replicas`: what is followed in place of a file. `elsewhere`: where vectors are kept, if not in memory.
        `seal`: what closes the file's texts.
        """
        disk: SemanticDisk | None = None
        following: Following | None = None
        if replicas is not None:
            following = FollowingReplicas(replicas)
        elif path is not None and writer:
            disk = log = SemanticLog(path, embedder=embedder.name, dim=embedder.dim, writer=writer, seal=seal)
            following = FollowingFile(log)
        elif path is not None:
            disk = SemanticDisk(path, embedder=embedder.name, dim=embedder.dim, seal=seal)
        cache = cls(embedder, scorer or GuardScorer(), max_entries, max_bytes, disk, following, elsewhere)
        if following is not None:
            following.begin(cache)
        else:
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

    def warm(self, texts: Sequence[tuple[str, str]]) -> None:
        """Embed these in one call, each scope's own, so that their look-ups needn't."""
        self._vectors.all_of([(scope, normalise(text)) for scope, text in texts if not unmatchable(text)])

    def vector(self, scope: str, text: str) -> NDArray[np.float32] | None:
        """The text's vector, of length 1; None where it is matched with nothing."""
        return None if unmatchable(text) else self._vectors.of(scope, normalise(text))

    def tend(self) -> bool:
        """Do one slice of the indexes' rebuilding, some 3 ms; whether there is more. For when nobody waits."""
        scope = next(iter(self._restless), None)
        if scope is not None and not self._scopes[scope].tend():
            del self._restless[scope]
        return bool(self._restless)

    def lookup(self, scope: str, route: str, text: str, now_s: float) -> Found:
        """The safest candidate for `text` in `scope`. `route`: the family of scopes that shares its words.

        A text beyond the model's window is matched with nothing.
        """
        near = self.near(scope, text, now_s)
        if isinstance(near, str):
            return Found(None, None, 0.0, near)
        return best(near, self._scores(scope, normalise(text), near, route))

    def near(self, scope: str, text: str, now_s: float) -> list[Neighbour] | str:
        """The live neighbours, nearest first; or why none can be had."""
        self._expire(now_s)
        refused = unmatchable(text)
        if refused:
            return refused
        index = self._scopes.get(scope)
        if index is None:
            return "empty scope"
        vector = self._vectors.of(scope, normalise(text))
        if vector is None:
            return "too long"
        items = [(self._items[number], similarity) for number, similarity in index.search(vector, NEIGHBOURS)]
        return [Neighbour(one.entry_key, cosine, one.text) for one, cosine in items if one.expires_s > now_s]

    def explain(self, scope: str, route: str, text: str, now_s: float) -> list[dict[str, Any]] | str:
        """The nearest entries with score and signals, best first, for people; or why there are none."""
        near = self.near(scope, text, now_s)
        if isinstance(near, str):
            return near
        plain, words = normalise(text), self._words_of(route)
        asked = self._scorer.read(scope, plain)
        rows = [
            {
                "entry_key": one.entry_key,
                "text": one.text,
                "cosine": one.similarity,
                "score": score,
                "signals": self._scorer.explain(asked, self._reading(one.entry_key), one.similarity, words),
                "against": self._scorer.against(asked, self._reading(one.entry_key), one.similarity, words),
            }
            for one, score in zip(near, self._scores(scope, plain, near, route), strict=True)
        ]
        return sorted(rows, key=lambda row: -float(str(row["score"])))

    def against(
        self, entry_key: str, route: str, text: str, cosine: float, now_s: float
    ) -> tuple[str, list[str]] | None:
        """An entry's text, and what speaks against it as an answer to `text`; None: the entry is gone."""
        item = self._items.get(self._by_key.get(entry_key, 0))
        if item is None or item.expires_s <= now_s:
            return None
        asked = self._scorer.read(item.scope, normalise(text))
        return item.text, self._scorer.against(asked, self._reading(entry_key), cosine, self._words_of(route))

    def texts(self, entry_keys: Iterable[str]) -> dict[str, str]:
        """What is compared of these entries' prompts, of those that are there."""
        found = {key: self._items.get(self._by_key.get(key, 0)) for key in entry_keys}
        return {key: item.text for key, item in found.items() if item is not None}

    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Vectors for a comparator: float32 [len(texts), dim]. Raises ValueError: a text beyond the window."""
        return self._embedder.embed(texts)

    def used(self, entry_key: str) -> None:
        """An answer was served again."""
        if entry_key in self._by_key:
            self._use(entry_key)

    def _scores(self, scope: str, plain: str, near: Sequence[Neighbour], route: str) -> list[float]:
        return self._scorer.scores(
            self._scorer.read(scope, plain),
            [self._reading(one.entry_key) for one in near],
            [one.similarity for one in near],
            self._words_of(route),
        )

    def _reading(self, entry_key: str) -> Any:
        item = self._items[self._by_key[entry_key]]
        if item.reading is None:
            item.reading = self._scorer.read(item.scope, item.text)
        return item.reading

    def _words_of(self, route: str) -> RouteWords:
        words = self._words.pop(route, None) or RouteWords()
        self._words[route] = words
        if len(self._words) > _MOST_ROUTES:
            self._words.popitem(last=False)
        return words

    def add(
        self,
        scope: str,
        text: str,
        entry_key: str,
        expires_s: float,
        worth_usd: float | None = None,
        *,
        route: str = "",
    ) -> bool:
        """Let `text` be found in `scope`, in place of what `entry_key` stood for; False where it must not match.

        `worth_usd`: what one hit on it saves; None: unknown, and taken to be the mean.
        """
        self.remove([entry_key])
        plain = normalise(text)
        vector = None if unmatchable(text) else self._vectors.of(scope, plain)
        if vector is None:
            return False
        reading = self._scorer.read(scope, plain)
        self._scorer.learn(reading, self._words_of(route))
        row = Row(scope, entry_key, plain, expires_s, vector, worth_usd)
        self._insert(row, reading)
        if self._disk is not None:
            self._disk.put(row)
        if self._following is not None:
            self._following.put(row)
        self._shrink()
        return True

    def follow(self) -> int:
        """Take over what other processes changed; how many entries that were. Evicts nothing: whoever adds does."""
        return 0 if self._following is None else self._following.follow(self)

    def keys(self) -> frozenset[str]:
        """Every entry's key: two processes that have caught up hold the same."""
        return frozenset(self._by_key)

    def row(self, entry_key: str) -> Row | None:
        """An entry as it is kept; None where there is none."""
        item = self._items.get(self._by_key.get(entry_key, 0))
        if item is None:
            return None
        try:
            vector = self._scopes[item.scope].vector(item.number)
        except KeyError:  # it is elsewhere, and can't be had
            return None
        return Row(item.scope, entry_key, item.text, item.expires_s, vector, self._worth.usd(item.number))

    def stamp(self, entry_key: str) -> Stamp | None:
        """An entry's part of a digest."""
        item = self._items.get(self._by_key.get(entry_key, 0))
        return None if item is None else stamp_of(item)

    def take(self, rows: Iterable[Row], gone: Iterable[str]) -> int:
        """What others changed: these are as they are here, and those go; how many of the latter were there."""
        rows = list(rows)
        dropped = len(self._drop(gone))
        self._drop([row.entry_key for row in rows])
        for row in rows:
            self._insert(row)
        return dropped

    def remove(self, entry_keys: Iterable[str]) -> int:
        """Forget these entries; how many were there."""
        named = list(entry_keys)
        gone = self._drop(named)
        if self._disk is not None and (gone or self._disk.unread):
            self._disk.delete(named if self._disk.unread else [item.entry_key for item in gone])
        if self._following is not None:
            self._following.removed(gone)
        return len(gone)

    def forget_all(self) -> int:
        """Forget every entry, as `remove` does, whether or not its answer is still there; how many were there."""
        gone = self.remove(self.keys())
        if self._disk is not None and self._disk.unread:
            self._disk.clear()
        return gone

    def _drop(self, entry_keys: Iterable[str]) -> list[_Item]:
        """Let these go, but not from the file."""
        numbers = [number for key in set(entry_keys) if (number := self._by_key.pop(key, None)) is not None]
        leaving: dict[str, list[int]] = {}
        gone = [self._items.pop(number) for number in numbers]
        for item in gone:
            leaving.setdefault(item.scope, []).append(item.number)
            self._worth.drop(item.number)
            self._used.pop(item.entry_key, None)
            if self._following is not None:
                self._following.dropped(item)
        for scope, those in leaving.items():
            index = self._scopes[scope]
            index.remove(*those)
            if not len(index):
                del self._scopes[scope]
                self._restless.pop(scope, None)
            elif index.restless:
                self._restless[scope] = None
        return gone

    def clear(self) -> None:
        """Forget everything."""
        for held in (self._items, self._by_key, self._scopes, self._restless, self._expiries, self._used):
            held.clear()
        self._vectors.clear()
        self._worth.clear()
        if self._disk is not None:
            self._disk.clear()
        if self._following is not None:
            self._following.cleared()

    def close(self) -> None:
        """Let the file go; idempotent."""
        if self._disk is not None:
            self._write_uses()
            self._disk.close()
        if self._elsewhere is not None:
            self._elsewhere.close()

    def _use(self, entry_key: str) -> None:
        self._used[entry_key] = self._worth.use(self._by_key[entry_key])
        if len(self._used) >= _WRITE_USES_EVERY:
            self._write_uses()

    def _write_uses(self) -> None:
        if self._disk is not None and self._used:
            self._disk.used(self._used.items())
        self._used.clear()

    def _insert(self, row: Row, reading: Any = None) -> None:
        elsewhere = self._elsewhere
        number, self._next = self._next if elsewhere is None else elsewhere.number(row.entry_key), self._next + 1
        index = self._scopes.get(row.scope)
        if index is None:
            index = GrowingIndex(self._embedder.dim) if elsewhere is None else elsewhere.scope(row.scope)
            self._scopes[row.scope] = index
        index.add(number, row.vector)
        if index.restless:
            self._restless[row.scope] = None
        self._items[number] = _Item(number, row.scope, row.entry_key, row.text, row.expires_s, reading)
        self._by_key[row.entry_key] = number
        reads = _READING_BYTES + _READING_BYTES_A_CHAR * len(row.text)
        vector_bytes = _VECTOR_BYTES * self._embedder.dim if elsewhere is None else 0
        size = _ENTRY_BYTES + vector_bytes + sys.getsizeof(row.text) + reads
        self._worth.add(number, size, row.worth_usd, row.uses)
        heapq.heappush(self._expiries, (row.expires_s, number))
        if self._following is not None:
            self._following.inserted(row)

    def _expire(self, now_s: float) -> None:
        """Let go of some of what has expired; a look-up passes over the rest."""
        expired: list[str] = []
        while self._expiries and self._expiries[0][0] <= now_s and len(expired) < _EXPIRED_PER_LOOKUP:
            _, number = heapq.heappop(self._expiries)
            if number in self._items:
                expired.append(self._items[number].entry_key)
        if expired:
            self.remove(expired)
        if self._disk is not None:
            self._disk.sweep(now_s)
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
