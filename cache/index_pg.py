"""Vectors outside of this process: an Index in PostgreSQL with pgvector, for more of them than memory holds.

One table for each model and size holds all scopes' vectors, in half precision; replicas share it. A scope that is small
is searched exactly, a large one by the table's HNSW graph: PostgreSQL chooses. What is put or removed waits in memory
and is written by `tend`, many at once; until then it isn't found, or (removed) is found and passed over.

Rules of this file:
1. The table is a copy: numbers that an index doesn't know are passed over, and what is written twice is written once.
2. No call waits longer than the deadline, even for a server that has stopped in the middle of an answer: then the
   connection is cut. After faults nothing is asked for a while: a search finds nothing, and what waits waits on.
3. It misses, but never invents: cosines are right to 0.001.

Source: pgvector 0.8, "HNSW", "Iterative index scans" (so that a filter by scope costs no neighbours).
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

import structlog

from farthing.cache.breaker import Breaker, Gate
from farthing.cache.index import check
from farthing.proxy.clock import Clock
from farthing.proxy.errors import ConfigFault

if TYPE_CHECKING:
    from farthing.cache.index import Vector

__all__ = ["PgIndex", "PgVectors"]

log = structlog.get_logger("farthing.semantic")

T = TypeVar("T")

EF_SEARCH = 128
_CONNECT_S = 2
_BUILD_S = 60.0
_AT_ONCE = 200
_MOST_WAITING = 50_000
_FETCHED_MORE = 8  # in case some of the nearest are unknown here


class PgVectors:
    """The table behind `url`, for vectors of one model. Used on one thread. Raises ConfigFault: psycopg isn't there.

    Two failures in a row open the breaker, for `pause_s`. `table`: its name.
    """

    def __init__(
        self, url: str, *, model: str, dim: int, deadline_s: float, clock: Clock, pause_s: float = 10.0
    ) -> None:
        try:
            import psycopg
        except ImportError:
            raise ConfigFault('semantic.index = "pgvector" needs the extra: pip install "farthing[pgvector]"') from None
        self._psycopg = psycopg
        self._url = url
        self.table = f"farthing_vectors_{hashlib.sha256(f'{model} {dim}'.encode()).hexdigest()[:12]}"
        self._dim = dim
        self._deadline_s = deadline_s
        self._clock = clock
        self._breaker = Breaker(threshold=2, pause_s=pause_s)
        self._connection: Any = None

    def scope(self, name: str) -> PgIndex:
        """The index of one scope."""
        return PgIndex(self, name, self._dim)

    def number(self, entry_key: str) -> int:
        """An entry's number, which is the same in every replica."""
        return int.from_bytes(hashlib.blake2b(entry_key.encode(), digest_size=8).digest(), "big") >> 1

    @property
    def away(self) -> bool:
        """Whether nothing is asked for now."""
        return not self._breaker.due(self._clock.tick_s())

    def write(self, scope: str, added: Sequence[tuple[int, Vector]], removed: Sequence[int]) -> bool:
        """Whether it is done."""

        def work(cursor: Any) -> bool:
            with cursor.connection.transaction():
                cursor.execute(f"DELETE FROM {self.table} WHERE scope = %s AND number = ANY(%s)", (scope, [*removed]))
                cursor.executemany(
                    f"INSERT INTO {self.table} (scope, number, vector) VALUES (%s, %s, %s) "
                    "ON CONFLICT (scope, number) DO UPDATE SET vector = excluded.vector",
                    [(scope, number, _text(vector)) for number, vector in added],
                )
            return True

        return self._trying(work, _BUILD_S) or False

    def search(self, scope: str, vector: Vector, k: int) -> list[tuple[int, float]]:
        """The nearest as (number, cosine); none where the server can't be asked."""

        def work(cursor: Any) -> list[tuple[int, float]]:
            query = f"SELECT number, -(vector <#> %s::halfvec) FROM {self.table} WHERE scope = %s ORDER BY "
            asked = _text(vector)
            found = cursor.execute(f"{query} vector <#> %s::halfvec LIMIT %s", (asked, scope, asked, k)).fetchall()
            return [(int(number), float(cosine)) for number, cosine in found]

        return self._trying(work, self._deadline_s) or []

    def vectors(self, scope: str, numbers: Sequence[int]) -> dict[int, Vector]:
        """Those that are there."""
        import numpy as np

        def work(cursor: Any) -> dict[int, Vector]:
            query = f"SELECT number, vector::text FROM {self.table} WHERE scope = %s AND number = ANY(%s)"
            found = cursor.execute(query, (scope, [*numbers])).fetchall()
            return {int(number): np.array(text[1:-1].split(","), np.float32) for number, text in found}

        return self._trying(work, self._deadline_s) or {}

    def close(self) -> None:
        """Let go; idempotent."""
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(self._psycopg.Error):
                connection.close()

    def _trying(self, work: Callable[[Any], T], deadline_s: float) -> T | None:
        """The work's result within the deadline; None where it fails, which is told once."""
        gate = self._breaker.ask(self._clock.tick_s())
        if gate is Gate.REFUSE:
            return None
        try:
            if self._connection is None:
                self._connection = self._open()
            with self._within(deadline_s), self._connection.cursor() as cursor:
                result = work(cursor)
        except (self._psycopg.Error, OSError) as error:
            self.close()
            if self._breaker.failed(self._clock.tick_s(), probe=gate is Gate.PROBE):
                log.error("the vectors' server is away: no near-duplicates meanwhile", error=type(error).__name__)
            return None
        if self._breaker.succeeded():
            log.warning("the vectors' server is back")
        return result

    def _open(self) -> Any:
        connection = self._psycopg.connect(self._url, autocommit=True, connect_timeout=_CONNECT_S)
        try:
            self._connection = connection
            with self._within(_BUILD_S), connection.cursor() as cursor:
                cursor.execute("SET client_min_messages = warning")
                cursor.execute("SELECT pg_advisory_lock(hashtext('farthing_vectors'))")
                cursor.execute("CREATE EXTENSION IF NOT EXISTS vector")
                cursor.execute(
                    f"CREATE TABLE IF NOT EXISTS {self.table} (scope text NOT NULL, number bigint NOT NULL, "
                    f"vector halfvec({self._dim}) NOT NULL, PRIMARY KEY (scope, number))"
                )
                cursor.execute(
                    f"CREATE INDEX IF NOT EXISTS {self.table}_graph ON {self.table} "
                    "USING hnsw (vector halfvec_ip_ops) WITH (m = 32, ef_construction = 200)"
                )
                cursor.execute("SELECT pg_advisory_unlock(hashtext('farthing_vectors'))")
                cursor.execute(f"SET hnsw.ef_search = {EF_SEARCH}")
                cursor.execute("SET hnsw.iterative_scan = strict_order")
        except BaseException:
            self.close()
            raise
        return connection

    @contextmanager
    def _within(self, deadline_s: float) -> Iterator[None]:
        """Cut the connection when the time is over. A server that has been stopped answers no cancellation, and the
        client waits for it for ever; a socket that is shut down wakes it."""
        with socket.socket(fileno=os.dup(self._connection.fileno())) as line:
            timer = threading.Timer(deadline_s, _cut, [line])
            timer.daemon = True
            timer.start()
            try:
                yield
            finally:
                timer.cancel()


class PgIndex:
    """An Index, of one scope; see the module. Made by PgVectors."""

    kind = "pgvector"

    def __init__(self, table: PgVectors, scope: str, dim: int) -> None:
        self._table = table
        self._scope = scope
        self._dim = dim
        self._numbers: dict[int, None] = {}
        self._adding: dict[int, Vector] = {}
        self._removing: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._numbers)

    def __contains__(self, number: int) -> bool:
        return number in self._numbers

    @property
    def restless(self) -> bool:
        """Whether something waits to be written, and can be."""
        return bool(self._adding or self._removing) and not self._table.away

    def add(self, number: int, vector: Vector) -> None:
        """Index.add. Where too much waits it is never written, so never found."""
        check(number, vector, self._dim, self._numbers)
        self._numbers[number] = None
        self._removing.pop(number, None)
        if len(self._adding) < _MOST_WAITING:
            self._adding[number] = vector

    def remove(self, *numbers: int) -> None:
        """Index.remove."""
        for number in numbers:
            if number in self._numbers:
                del self._numbers[number]
                self._adding.pop(number, None)
                self._removing[number] = None

    def tend(self) -> bool:
        """Write some of what waits; whether there is more."""
        added = [(number, self._adding[number]) for number in [*self._adding][:_AT_ONCE]]
        removed = [*self._removing][:_AT_ONCE]
        if (added or removed) and self._table.write(self._scope, added, removed):
            for number, _ in added:
                del self._adding[number]
            for number in removed:
                del self._removing[number]
        return self.restless

    def search(self, vector: Vector, k: int) -> list[tuple[int, float]]:
        """Index.search."""
        import numpy as np

        if not self._numbers or k <= 0 or not np.isfinite(vector).all():
            return []
        found = self._table.search(self._scope, vector, k + _FETCHED_MORE)
        known = [(number, cosine) for number, cosine in found if number in self._numbers]
        return sorted(known, key=lambda one: (-one[1], one[0]))[:k]

    def numbers(self) -> list[int]:
        """Index.numbers."""
        return list(self._numbers)

    def vector(self, number: int) -> Vector:
        """Index.vector, as rounded to half precision. Raises KeyError: also where the server can't be asked."""
        if number in self._adding:
            return self._adding[number]
        if number not in self._numbers:
            raise KeyError(number)
        return self._table.vectors(self._scope, [number])[number]

    def items(self) -> list[tuple[int, Vector]]:
        """Index.items: those that can be had."""
        stored = self._table.vectors(self._scope, [one for one in self._numbers if one not in self._adding])
        return [*stored.items(), *self._adding.items()]


def _text(vector: Vector) -> str:
    return f"[{','.join(map(str, vector.tolist()))}]"


def _cut(line: socket.socket) -> None:
    with suppress(OSError):
        line.shutdown(socket.SHUT_RDWR)
