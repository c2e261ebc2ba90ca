"""The embedded store of several processes over one file: each has an index of its own, and follows the others.

Rules of this file:
1. What one process puts or removes, the others see within `FOLLOW_S` and the time of a flush; until then they may miss,
   or serve what was replaced or purged. Who must be sure calls `catch_up` in all of them (a purge does).
2. Of two entries under one key the one with the larger row number stays, in every process.
3. Who puts evicts; who follows doesn't, or every entry would cost one in each process.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from typing import Any, ClassVar

import structlog

from farthing.cache.disk import Disk, Record
from farthing.cache.disk_shared import Fence, News, SharedDisk, patient
from farthing.cache.entry import Entry
from farthing.cache.store_local import LocalStore
from farthing.proxy.errors import StoreFault

__all__ = ["FOLLOW_S", "SharedStore"]

log = structlog.get_logger("farthing.store")

FOLLOW_S = 0.1


class SharedStore(LocalStore):
    """See the module; call `open` first. The settings are LocalStore's, and there must be a file. `spawn`: starts looks
    at what the others did."""

    _opens: ClassVar[type[Disk]] = SharedDisk

    def __init__(self, *args: Any, spawn: Callable[[Coroutine[Any, Any, None]], object], **settings: Any) -> None:
        super().__init__(*args, **{"connect": patient} | settings)
        assert isinstance(self._disk, SharedDisk), "without a file there is nothing to share"
        self._shared = self._disk
        self._by_row: dict[int, Record] = {}
        self._landing: set[Record] = set()  # written behind a fence, and not in the index yet
        self._timer: asyncio.TimerHandle | None = None
        self._looking = asyncio.Lock()
        self._spawn = spawn
        self._failing = False

    async def open(self) -> None:
        """LocalStore.open; from then on the others are followed."""
        await super().open()
        self._by_row = {record.row: record for record in self._index.values() if record.row}
        self._later()

    async def catch_up(self) -> None:
        """See all that the others have committed until now."""
        async with self._looking:
            if self._closed:
                return
            try:
                news = await asyncio.get_running_loop().run_in_executor(self._shared.reader, self._shared.news)
            except (sqlite3.Error, OSError) as error:
                if not self._failing:
                    log.error("the other workers' answers can't be followed", error=repr(error))
                self._failing = True
                return
            self._failing = False
            if news is not None:
                self._apply(news)

    async def put_fenced(self, entry: Entry, fence: Fence) -> bool | None:
        """Keep the entry in one commit with the end of its lease; visible to `get`, here and elsewhere, when this
        returns. False where a larger token was given since; None where it is kept as `put` does, without the others
        seeing it yet: the disk fails, or too much waits for it. Raises StoreFault.

        Unlike `put` it replaces what was there only once it is written: what is refused must cost nothing.
        """
        if not self._opened or self._closed:
            raise StoreFault("the store is not open")
        record = self._record(entry)
        fenced = self._shared.behind(entry, fence)
        if entry.expires_s <= self._clock.now_s() or not self._shared.offer(record, entry):
            self._shared.beyond(entry)
            await self.put(entry)
            return None
        self._landing.add(record)
        try:
            await self._shared.flush()
            kept = fenced.kept
        except StoreFault:
            kept = None
        finally:
            there = record in self._landing  # else another process has removed it already
            self._landing.discard(record)
        known = self._index.get(entry.key)
        newer = known is not None and known.row > record.row
        if kept is None or (kept and there and not newer):
            self._insert(record)
            self._warm(record, entry)
        return kept

    async def flush(self) -> None:
        """Let the others see all that was put here until now. Raises StoreFault."""
        if not self._closed:
            await self._shared.flush()

    async def close(self) -> None:
        """Store.close."""
        if self._timer is not None:
            self._timer.cancel()
        async with self._looking:
            await super().close()
        self._shared.end()

    def _later(self) -> None:
        if not self._closed:
            self._timer = asyncio.get_running_loop().call_later(FOLLOW_S, self._look)

    def _look(self) -> None:
        self._spawn(self._look_and_again())

    async def _look_and_again(self) -> None:
        try:
            await self.catch_up()
        finally:
            self._later()

    def _apply(self, news: News) -> None:
        for row, record in news.own:
            if self._index.get(record.key) is record or record in self._landing:
                self._by_row[row] = record
        now_s = self._clock.now_s()
        for record in news.added:
            known = self._index.get(record.key)
            if record.expires_s <= now_s or (known is not None and (not known.row or known.row > record.row)):
                continue  # ours waits to be written, and will have the larger number
            self._insert(record, evict=False)
            self._by_row[record.row] = record
        gone = news.removed if news.only is None else [row for row in self._by_row if row not in news.only]
        for row in gone:
            gone_record = self._by_row.pop(row, None)
            if gone_record is None:
                continue
            self._landing.discard(gone_record)
            if self._index.get(gone_record.key) is gone_record:
                gone_record.row = 0  # there is nothing on the disk to remove
                self._drop(gone_record)
