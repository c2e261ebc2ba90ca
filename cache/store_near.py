"""Memory in front of the shared store: an answer that was read is given again without asking the server.

Rules of this file:
1. Nothing is served from memory that may have changed longer ago than `stale_s`: the server says what changed, and
   when it was last heard is known (tracking.py). Where it isn't heard in time, it is asked as if there were no memory.
2. Only what was read is held, and only where nothing was heard of its key since the reading began, and where it came
   from the server that tells of it (reading_at.py).
3. What is held for `HELD_S` is read again, so that the server's eviction sees what is used, and nothing that was never
   told is believed for ever.
4. What this process puts or purges is gone from its memory when the call returns, whatever the server said.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from farthing.cache.entry import Entry
from farthing.cache.expiry import Expiries
from farthing.cache.reading_at import At
from farthing.cache.store import Selector, Store, StoreStats
from farthing.cache.store_local import LocalStore
from farthing.cache.store_redis import RedisStore
from farthing.cache.tracking import Tracking
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault

__all__ = ["HELD_S", "NearStore", "redis_of", "server_of"]

HELD_S = 60.0
_END_S = 0.5


@dataclass(slots=True, eq=False)
class _Reading:
    """An entry is being read there. `good`: nothing was heard of its key meanwhile."""

    at: At
    good: bool = True


class _Memory(LocalStore):
    """A LocalStore without a file, which can drop and hold at once."""

    def hold(self, entry: Entry, until_s: float) -> None:
        """Keep it, if it fits, until then at most."""
        with suppress(StoreFault):
            record = self._record(entry)
            record.expires_s = min(record.expires_s, until_s)
            self._insert(record)
            self._warm(record, entry)

    def empty(self) -> None:
        """Hold nothing; at once, however much it was."""
        self._index, self._hot = OrderedDict(), OrderedDict()
        self._variants, self._expiries = {}, Expiries()
        self._bytes = self._hot_bytes = 0

    def drop(self, key: str) -> None:
        """It is held no more."""
        record = self._index.get(key)
        if record is not None:
            self._drop(record)


class NearStore:
    """Store: memory before `behind`. `url`: of that store's server. `name`: of this process alone.
    `memory_bytes`, `max_entries`: what is held here at most; `spawn`: starts what listens to the server. Call `open`
    first."""

    def __init__(
        self,
        behind: RedisStore,
        url: str,
        *,
        clock: Clock,
        memory_bytes: int,
        max_entries: int,
        stale_s: float,
        name: str,
        spawn: Callable[[Coroutine[Any, Any, None]], asyncio.Task[Any]],
    ) -> None:
        self.behind = behind
        self._clock = clock
        self._stale_s = stale_s
        self._memory = _Memory(
            None, clock=clock, memory_bytes=memory_bytes, max_bytes=memory_bytes, max_entries=max_entries
        )
        self._alive = behind.names.alive(name)
        self._readings: dict[str, set[_Reading]] = {}
        self._spawn = spawn
        self._listening: asyncio.Task[Any] | None = None
        self._tracking = Tracking(
            url,
            prefix=behind.names.entries,
            alive=self._alive,
            stale_s=stale_s,
            clock=clock,
            changed=lambda name: self.changed(behind.names.key(name)),
            lost=self.clear,
            moved=behind.hang_up,
        )

    async def open(self) -> None:
        """Begin to listen."""
        await self._memory.open()
        self._listening = self._spawn(self._tracking.run())

    @property
    def healthy(self) -> bool:
        """Store.healthy: the server's; memory has nothing that could fail."""
        return self.behind.healthy

    @property
    def fresh(self) -> bool:
        """Whether what is in memory may be served now."""
        return self._clock.tick_s() - self._tracking.as_of_tick <= self._stale_s  # Tracking.fresh, at half of its price

    @property
    def alive(self) -> str:
        """The channel that the server sees this process listen to, until it has ended; '' while it doesn't."""
        return self._alive if self.fresh else ""

    def clear(self) -> None:
        """Hold nothing any more."""
        for key in tuple(self._readings):
            self._spoil(key)
        self._memory.empty()

    def changed(self, key: str) -> None:
        """What is held or being read of this key is no good any more."""
        self._spoil(key)
        self._memory.drop(key)

    async def get(self, key: str, now_s: float) -> Entry | None:
        """Store.get."""
        found = self.held(key, now_s)
        if found is not None:
            return found
        reading = self._begin(key)
        try:
            entry = await self.behind.get(key, now_s, reading.at)
        finally:
            self._end(key, reading)
        self._hold(entry, reading, now_s)
        return entry

    async def get_many(self, keys: Sequence[str], now_s: float) -> list[Entry | None]:
        """Store.get_many: the server is asked for those that aren't here."""
        found = {key: self.held(key, now_s) for key in keys}
        lacking = [key for key, entry in found.items() if entry is None]
        readings = {key: self._begin(key) for key in lacking}
        try:
            read = await self.behind.get_many(lacking, now_s, [reading.at for reading in readings.values()])
        finally:
            for key, reading in readings.items():
                self._end(key, reading)
        for key, entry in zip(lacking, read, strict=True):
            found[key] = entry
            self._hold(entry, readings[key], now_s)
        return [found[key] for key in keys]

    def held(self, key: str, now_s: float) -> Entry | None:
        """Store.held."""
        return self._memory.held(key, now_s) if self.fresh else None

    async def put(self, entry: Entry) -> None:
        """Store.put."""
        try:
            await self.behind.put(entry)
        finally:
            self.changed(entry.key)

    async def put_many(self, entries: Sequence[Entry]) -> None:
        """Store.put_many."""
        try:
            await self.behind.put_many(entries)
        finally:
            for entry in entries:
                self.changed(entry.key)

    async def purge(self, selector: Selector) -> tuple[str, ...]:
        """Store.purge; the other replicas hear of it from the server."""
        try:
            removed = await self.behind.purge(selector)
        finally:
            for key in tuple(self._readings):
                self._spoil(key)
            await self._memory.purge(selector)
        for key in removed:
            self._memory.drop(key)
        return removed

    async def stats(self) -> StoreStats:
        """Store.stats: the server's, and this memory's."""
        there, here = await self.behind.stats(), await self._memory.stats()
        return StoreStats(
            there.kind,
            there.entries,
            there.bytes,
            here.memory_entries,
            here.memory_bytes,
            there.evicted,
            there.healthy,
        )

    async def close(self) -> None:
        """Store.close."""
        listening, self._listening = self._listening, None
        if listening is not None:
            while not listening.done():  # redis-py was seen to lose a cancellation (store_redis.py)
                listening.cancel()
                await asyncio.wait({listening}, timeout=_END_S)
        await self._tracking.close()
        await self._memory.close()
        await self.behind.close()

    def _begin(self, key: str) -> _Reading:
        reading = _Reading(self._tracking.at(self.behind.names.entry(key)))
        self._readings.setdefault(key, set()).add(reading)
        return reading

    def _end(self, key: str, reading: _Reading) -> None:
        readings = self._readings.get(key)
        if readings is not None:
            readings.discard(reading)
            if not readings:
                del self._readings[key]

    def _hold(self, entry: Entry | None, reading: _Reading, now_s: float) -> None:
        if entry is not None and reading.good and reading.at.heard and self.fresh:
            self._memory.hold(entry, now_s + HELD_S)

    def _spoil(self, key: str) -> None:
        for reading in self._readings.pop(key, ()):
            reading.good = False


def server_of(store: Store) -> RedisStore:
    """The store's way to its server; only for a store that has one."""
    found = redis_of(store)
    assert found is not None, "only asked for with store.url"
    return found


def redis_of(store: Store) -> RedisStore | None:
    """The store's way to its server, whether or not memory stands before it; None where it has none."""
    behind = store.behind if isinstance(store, NearStore) else store
    return behind if isinstance(behind, RedisStore) else None
