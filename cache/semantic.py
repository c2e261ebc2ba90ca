"""The semantic cache, first form: nearest neighbours in the same scope, a threshold, and a guard.

Rules of this file:
1. Scopes are walls: an entry can be found only from the scope it was put into.
2. `judge` decides, and is pure. What it lets pass is *unproven*: no bound on wrong answers stands behind it.
3. All of a SemanticCache lives on one thread, its SQLite file included; the caller sees to that.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from farthing.cache.embedder import Embedder
from farthing.cache.guard import disagreement
from farthing.cache.index import BruteIndex, FaissIndex, Index
from farthing.proxy.text import Signals, signals

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Found", "Neighbour", "SemanticCache", "judge"]

log = structlog.get_logger("farthing.semantic")

NEIGHBOURS = 8
_BRUTE_UP_TO = 256  # below this a matrix product is as fast as FAISS, and an empty FAISS index costs kilobytes
_VERSION = "1"
_REMEMBERED_VECTORS = 512


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A candidate: which entry, how alike (cosine), and what its text says."""

    entry_key: str
    similarity: float
    text: str
    signals: Signals


@dataclass(frozen=True, slots=True)
class Found:
    """The outcome of a look-up. `similarity`: the nearest neighbour's, whether or not it may serve."""

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
    """The nearest neighbour that is alike enough and that the guard lets pass. `neighbours`: best first."""
    if not neighbours:
        return Found(None, None, "no neighbour")
    nearest = neighbours[0]
    if nearest.similarity < threshold:
        return Found(None, nearest.similarity, "below threshold")
    reason = ""
    for neighbour in neighbours:
        if neighbour.similarity < threshold:
            break
        refused = disagreement(asked, neighbour.signals)
        if not refused:
            return Found(neighbour.entry_key, neighbour.similarity, "hit")
        reason = reason or refused
    return Found(None, nearest.similarity, f"guard: {reason}")


class SemanticCache:
    """See the module. Open it, use it and close it on one thread."""

    def __init__(self, embedder: Embedder, max_entries: int, conn: sqlite3.Connection | None) -> None:
        self._embedder = embedder
        self._max = max_entries
        self._conn = conn
        self._items: OrderedDict[int, _Item] = OrderedDict()  # oldest use first
        self._by_key: dict[str, int] = {}
        self._scopes: dict[str, Index] = {}
        self._vectors: OrderedDict[str, NDArray[np.float32]] = OrderedDict()
        self._next = 1

    @classmethod
    def open(cls, path: Path | None, embedder: Embedder, *, max_entries: int) -> SemanticCache:
        """Load what `path` holds (None: nothing is kept). A damaged file is moved aside and a new one begun."""
        if path is None:
            return cls(embedder, max_entries, None)
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            return cls._load(path, embedder, max_entries)
        except sqlite3.DatabaseError as error:
            number = 1
            while (aside := path.with_name(f"{path.stem}.damaged-{number}{path.suffix}")).exists():
                number += 1
            for suffix in ("", "-wal", "-shm"):
                part = path.with_name(path.name + suffix)
                if part.exists():
                    part.rename(aside.with_name(aside.name + suffix))
            log.warning("semantic index was damaged; a new one begins", kept=str(aside), error=str(error))
            return cls._load(path, embedder, max_entries)

    @classmethod
    def _load(cls, path: Path, embedder: Embedder, max_entries: int) -> SemanticCache:
        import numpy as np

        conn = sqlite3.connect(path, isolation_level=None)
        try:
            conn.execute("pragma journal_mode = wal")
            conn.execute("pragma synchronous = normal")
            conn.execute(
                "create table if not exists vectors (number integer primary key, scope text, entry_key text unique, "
                "text text, expires_s real, vector blob, checksum blob)"
            )
            conn.execute("create table if not exists meta (name text primary key, value text)")
            kept = dict(conn.execute("select name, value from meta"))
            wanted = {"version": _VERSION, "embedder": embedder.name}
            if kept != wanted:
                dropped = conn.execute("delete from vectors").rowcount
                conn.execute("delete from meta")
                conn.executemany("insert into meta values (?, ?)", wanted.items())
                if dropped:
                    log.warning("semantic index dropped: it was made by another model or version", entries=dropped)
            cache = cls(embedder, max_entries, conn)
            bad = []
            rows = conn.execute("select number, scope, entry_key, text, expires_s, vector, checksum from vectors")
            for number, scope, entry_key, text, expires_s, blob, checksum in rows.fetchall():
                if _checksum(scope, entry_key, text, blob) != checksum or len(blob) != 4 * embedder.dim:
                    bad.append((number,))
                    continue
                vector = np.frombuffer(blob, np.float32)
                cache._remember(_Item(number, scope, entry_key, text, expires_s), vector)
                cache._next = max(cache._next, number + 1)
            if bad:
                conn.executemany("delete from vectors where number = ?", bad)
                log.warning("semantic index: damaged rows dropped", rows=len(bad))
        except BaseException:
            conn.close()
            raise
        cache._shrink()
        return cache

    def __len__(self) -> int:
        return len(self._items)

    def lookup(self, scope: str, text: str, now_s: float, threshold: float) -> Found:
        """What may answer `text` in `scope`. A text beyond the model's window is matched with nothing."""
        index = self._scopes.get(scope)
        if index is None:
            return Found(None, None, "empty scope")
        vector = self._embed(text)
        if vector is None:
            return Found(None, None, "too long")
        neighbours, gone = [], []
        for number, similarity in index.search(vector, NEIGHBOURS):
            item = self._items[number]
            if item.expires_s <= now_s:
                gone.append(item.entry_key)
            else:
                neighbours.append(Neighbour(item.entry_key, similarity, item.text, signals(item.text)))
        found = judge(signals(text), neighbours, threshold)
        if found.entry_key is not None:
            self._items.move_to_end(self._by_key[found.entry_key])
        if gone:
            self.remove(gone)
        return found

    def add(self, scope: str, text: str, entry_key: str, expires_s: float) -> bool:
        """Let `text` be found in `scope`; False where it is beyond the model's window."""
        vector = self._embed(text)
        if vector is None:
            return False
        if entry_key in self._by_key:
            self.remove([entry_key])
        item = _Item(self._next, scope, entry_key, text, expires_s)
        self._next += 1
        self._remember(item, vector)
        if self._conn is not None:
            blob = vector.tobytes()
            plain = text.encode("utf-8", "replace").decode()
            self._conn.execute(
                "insert into vectors values (?, ?, ?, ?, ?, ?, ?)",
                (item.number, scope, entry_key, plain, expires_s, blob, _checksum(scope, entry_key, plain, blob)),
            )
        self._shrink()
        return True

    def remove(self, entry_keys: Iterable[str]) -> int:
        """Forget these entries; how many were there."""
        numbers = [self._by_key[key] for key in entry_keys if key in self._by_key]
        for number in numbers:
            item = self._items.pop(number)
            del self._by_key[item.entry_key]
            index = self._scopes[item.scope]
            index.remove(number)
            if not len(index):
                del self._scopes[item.scope]
        if self._conn is not None and numbers:
            self._conn.executemany("delete from vectors where number = ?", [(number,) for number in numbers])
        return len(numbers)

    def close(self) -> None:
        """Let the file go; idempotent."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _embed(self, text: str) -> NDArray[np.float32] | None:
        """The vector, remembered: a miss looks up and then adds the same text."""
        found = self._vectors.get(text)
        if found is None:
            if len(text) > 8 * self._embedder.max_tokens * 4 or self._embedder.count(text) > self._embedder.max_tokens:
                return None
            found = self._vectors[text] = self._embedder.embed([text])[0]
            if len(self._vectors) > _REMEMBERED_VECTORS:
                self._vectors.popitem(last=False)
        return found

    def _remember(self, item: _Item, vector: NDArray[np.float32]) -> None:
        index = self._scopes.get(item.scope)
        if index is None:
            index = self._scopes[item.scope] = BruteIndex(self._embedder.dim)
        elif isinstance(index, BruteIndex) and len(index) >= _BRUTE_UP_TO:
            larger = FaissIndex(self._embedder.dim)
            for number, known in index.items():
                larger.add(number, known)
            index = self._scopes[item.scope] = larger
        index.add(item.number, vector)
        self._items[item.number] = item
        self._by_key[item.entry_key] = item.number

    def _shrink(self) -> None:
        surplus = len(self._items) - self._max
        if surplus > 0:
            oldest = [item.entry_key for item, _ in zip(self._items.values(), range(surplus), strict=False)]
            self.remove(oldest)


def _checksum(scope: str, entry_key: str, text: str, blob: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for part in (scope.encode(), entry_key.encode(), text.encode("utf-8", "replace"), blob):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
