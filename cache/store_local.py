"""The embedded store: an index of all keys and the hot bodies in memory, SQLite behind them.

Rules of this file:
1. Everything here runs on the event loop, and each step costs the same however much is stored; what must look at
   every entry (a purge by scope or model) does so in slices, and lets others run between them.
2. The index is the truth while the process runs, the disk across restarts. A key that isn't in the index never
   touches the disk.
3. Only the record that the index holds may be served: a body read for a record that was replaced or purged
   meanwhile is dropped.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import ClassVar

from farthing.cache.disk import Connect, Disk, Record, connect
from farthing.cache.entry import Entry
from farthing.cache.expiry import Expiries
from farthing.cache.store import Selector, StoreStats
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import Seal

__all__ = ["LocalStore"]

# An entry's share of the index, the LRU and the row: measured, about 900 bytes with everything but the body.
_BOOKKEEPING_BYTES = 1024
_SLICE = 512
_SWEEP_EVERY_S = 1.0
_PENDING_BYTES = 64 * 2**20


class LocalStore:
    """Store over this process's memory and, where `path` is set, one SQLite file. Call `open` first.

    `memory_bytes` bounds the bodies held in memory, `max_bytes` and `max_entries` all that is kept; the least
    recently used go first (after a restart: the longest stored). Sizes are of bodies before compression, with
    bookkeeping. `flush_ms`: how long a write may wait for others to share its transaction; a crash loses no more.
    `seal`: what bodies on the disk are sealed with.
    Where the disk fails the store goes on from memory, `stats().healthy` is False, and it recovers by itself.
    One process's store doesn't see what another one's puts or purges in the same file until it is opened anew: several
    at once need store_shared.
    """

    _opens: ClassVar[type[Disk]] = Disk

    def __init__(
        self,
        path: Path | None,
        *,
        clock: Clock,
        memory_bytes: int,
        max_bytes: int,
        max_entries: int,
        flush_ms: float = 50,
        pending_bytes: int = _PENDING_BYTES,
        connect: Connect = connect,
        seal: Seal | None = None,
    ) -> None:
        self._clock = clock
        self._memory_limit = memory_bytes
        self._max_bytes = max_bytes if path else min(max_bytes, memory_bytes)
        self._max_entries = max_entries
        self._disk: Disk | None = (
            self._opens(path, flush_ms=flush_ms, pending_bytes=pending_bytes, connect=connect, seal=seal)
            if path is not None
            else None
        )
        # Least recently used first, both.
        self._index: OrderedDict[str, Record] = OrderedDict()
        self._hot: OrderedDict[Record, None] = OrderedDict()
        self._variants: dict[str, set[str]] = {}
        self._expiries = Expiries()
        self._bytes = 0
        self._hot_bytes = 0
        self._evicted = 0
        self._sweeper: asyncio.TimerHandle | None = None
        self._opened = False
        self._closed = False

    async def open(self) -> None:
        """Load the index and begin the background work. A file that can't be read is moved aside, never raised."""
        if self._disk is not None:
            now_s = self._clock.now_s()
            for record in await asyncio.to_thread(self._disk.start):
                if record.expires_s <= now_s:
                    self._disk.forget(record)
                else:
                    self._insert(record)
        self._opened = True
        self._schedule_sweep(_SWEEP_EVERY_S)

    async def get(self, key: str, now_s: float) -> Entry | None:
        """Store.get; raises StoreFault where a body must come from a disk that fails."""
        record = self._index.get(key)
        if record is None:
            return None
        if record.expires_s <= now_s:
            self._drop(record)
            return None
        self._index.move_to_end(key)
        if (entry := record.entry) is not None:
            self._hot.move_to_end(record)
            return entry
        return await self._get_cold(record, now_s)

    async def get_many(self, keys: Sequence[str], now_s: float) -> list[Entry | None]:
        """Store.get_many; what lies in memory costs no wait."""
        return [await self.get(key, now_s) for key in keys]

    def held(self, key: str, now_s: float) -> Entry | None:
        """Store.held."""
        record = self._index.get(key)
        if record is None or record.entry is None or record.expires_s <= now_s:
            return None
        self._index.move_to_end(key)
        self._hot.move_to_end(record)
        return record.entry

    async def put(self, entry: Entry) -> None:
        """Store.put; the disk follows within `flush_ms`. Raises StoreFault where the bounds leave no room for it."""
        if not self._opened or self._closed:
            raise StoreFault("the store is not open")
        record = self._record(entry)
        old = self._index.get(entry.key)
        if old is not None:
            self._drop(old)
        if entry.expires_s <= self._clock.now_s():
            return
        queued = self._disk is not None and self._disk.offer(record, entry)
        if not queued and record.size > self._memory_limit:
            raise StoreFault("too much is waiting for the store's disk")
        self._insert(record)
        self._warm(record, entry)

    async def put_many(self, entries: Sequence[Entry]) -> None:
        """Store.put_many; the disk writes them together."""
        for entry in entries:
            await self.put(entry)

    async def purge(self, selector: Selector) -> tuple[str, ...]:
        """Store.purge: what was put before the call is gone from memory and disk when it returns.

        A key purges its variants too; a model is the one asked for or the one that served. Raises StoreFault where
        the disk fails: then it is gone from memory, and from the disk once that works again in this process.
        Cost: linear in what is stored unless a key is given, in slices.
        """
        removed = []
        for seen, record in enumerate([*self._candidates(selector.key)], 1):
            if seen % _SLICE == 0:
                await asyncio.sleep(0)
            if self._index.get(record.key) is record and selector.matches(record):
                self._drop(record)
                removed.append(record.key)
        if self._disk is not None and not self._closed:
            await self._disk.flush()
        return tuple(removed)

    async def stats(self) -> StoreStats:
        """Store.stats."""
        return StoreStats(
            kind="local" if self._disk else "memory",
            entries=len(self._index),
            bytes=self._bytes,
            memory_entries=len(self._hot),
            memory_bytes=self._hot_bytes,
            evicted=self._evicted,
            healthy=self.healthy,
        )

    @property
    def healthy(self) -> bool:
        """Store.healthy: of the file."""
        return self._disk is None or self._disk.healthy

    async def close(self) -> None:
        """Store.close; waits for the last write."""
        if self._closed:
            return
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._disk is not None:
            await asyncio.to_thread(self._disk.stop)

    async def _get_cold(self, record: Record, now_s: float) -> Entry | None:
        assert self._disk is not None, "without a disk every record is hot"
        entry = None if self._closed else await self._disk.read(record)
        current = self._index.get(record.key)
        if current is not record:
            return await self.get(record.key, now_s)
        if entry is None:
            self._drop(record)
            return None
        if record.entry is None:
            self._warm(record, entry)
        return entry

    def _record(self, entry: Entry) -> Record:
        """Of an entry that is to be kept. Raises StoreFault: it is too large."""
        size = len(entry.body) + _BOOKKEEPING_BYTES
        if size > self._max_bytes:
            raise StoreFault(f"an entry of {size} bytes is larger than the store")
        return Record(
            entry.key,
            entry.scope,
            entry.model_requested,
            entry.model_served,
            size,
            entry.expires_s,
            entry.stored_s,
            entry.tags,
            entry.namespace,
        )

    def _insert(self, record: Record, *, evict: bool = True) -> None:
        """Put the record in the index, and evict what no longer fits."""
        if (old := self._index.get(record.key)) is not None:
            self._drop(old)
        self._index[record.key] = record
        self._bytes += record.size
        self._expiries.add(record, self._clock.now_s())
        base, dot, _ = record.key.partition(".")
        if dot:
            self._variants.setdefault(base, set()).add(record.key)
        while evict and (len(self._index) > self._max_entries or self._bytes > self._max_bytes):
            self._evicted += 1
            self._drop(next(iter(self._index.values())))

    def _warm(self, record: Record, entry: Entry) -> None:
        """Hold the body in memory, and cool what no longer fits."""
        if record.size > self._memory_limit or self._index.get(record.key) is not record:
            return
        record.entry = entry
        self._hot[record] = None
        self._hot_bytes += record.size
        while self._hot_bytes > self._memory_limit:
            self._cool(next(iter(self._hot)))

    def _cool(self, record: Record) -> None:
        if record.entry is not None:
            record.entry = None
            del self._hot[record]
            self._hot_bytes -= record.size

    def _drop(self, record: Record) -> None:
        """Forget the record everywhere. Only for one that is in the index."""
        del self._index[record.key]
        self._bytes -= record.size
        self._cool(record)
        self._expiries.discard(record)
        base, dot, _ = record.key.partition(".")
        if dot and (variants := self._variants.get(base)) is not None:
            variants.discard(record.key)
            if not variants:
                del self._variants[base]
        if self._disk is not None:
            self._disk.forget(record)

    def _candidates(self, key: str) -> Iterable[Record]:
        if not key:
            return self._index.values()
        return (self._index[name] for name in (key, *sorted(self._variants.get(key, ()))) if name in self._index)

    def _schedule_sweep(self, delay_s: float) -> None:
        self._sweeper = asyncio.get_running_loop().call_later(delay_s, self._sweep)

    def _sweep(self) -> None:
        """Drop a slice of what has expired; come back at once where there is more."""
        expired, more = self._expiries.due(self._clock.now_s(), _SLICE)
        for record in expired:
            self._drop(record)
        self._schedule_sweep(0 if more else _SWEEP_EVERY_S)
