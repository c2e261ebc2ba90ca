"""Leases of several processes on one machine, in the file of their answers: every change is one transaction of it.

Rules of this file:
1. One thread, so that no request waits for another process's lock on the event loop; who gets no answer within the
   deadline goes on alone.
2. An answer is kept by the store's own writing thread, which ends the lease in the same commit (lease_rows.land).
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from farthing.cache import lease_rows
from farthing.cache.alive import Alive
from farthing.cache.disk import connect
from farthing.cache.disk_shared import Fence
from farthing.cache.entry import Entry
from farthing.cache.lease import Answer, Lease, State
from farthing.cache.store_shared import SharedStore
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault

__all__ = ["SharedLeases"]

T = TypeVar("T")

_SWEEP_EVERY_S = 10.0


class SharedLeases:
    """Leases over the file of `store`, at `path`. `alive`: this process's mark, not made yet, and those of the others.
    `lease_s`: how long a lease lasts that isn't renewed. `deadline_s`: for a look or a change."""

    def __init__(
        self, store: SharedStore, path: Path, clock: Clock, alive: Alive, *, lease_s: float, deadline_s: float
    ) -> None:
        self._store = store
        self._path = path
        self._clock = clock
        self._alive = alive
        self.lease_s = lease_s
        self._deadline_s = deadline_s
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="farthing-leases")
        self._db: sqlite3.Connection | None = None
        self._inode = 0
        self._swept_s = clock.now_s()
        self._closed = False

    async def take(self, key: str, name: str, flight: str, waited_for: str) -> Answer:
        """Leases.take."""
        now_s = self._clock.now_s()

        def ask(db: sqlite3.Connection) -> Answer:
            known = lease_rows.held_by(db, name, flight, waited_for, now_s, self._alive.dead)
            if known is not None:
                return known
            with _change(db):
                self._sweep(db)
                mark, dead = self._alive.name, self._alive.dead
                return lease_rows.take(db, name, flight, waited_for, now_s, self.lease_s, mark, dead)

        def too_late(given: Answer) -> None:
            if given.state is State.TAKEN and not self._closed:
                self._thread.submit(self._free, name, given.token)

        return await self._do(ask, too_late)

    async def get(self, key: str, now_s: float) -> Entry | None:
        """Leases.get: another worker put it."""
        await self._store.catch_up()
        return await self._store.get(key, now_s)

    async def renew(self, leases: Sequence[Lease]) -> None:
        """Leases.renew: all of them in one transaction."""
        until_s = self._clock.now_s() + self.lease_s

        def change(db: sqlite3.Connection) -> None:
            with _change(db):
                for lease in leases:
                    lease_rows.renew(db, lease.name, lease.token, until_s)
                self._sweep(db)

        await self._do(change)

    async def land(self, lease: Lease, entry: Entry) -> bool:
        """Leases.land: when this returns, the answer is in the file."""
        fence = Fence(lease.name, lease.token, self._clock.now_s())
        kept = await self._store.put_fenced(entry, fence)
        if kept is None:  # the others don't see it yet: they shall not wait for it
            with suppress(StoreFault):
                await self.free(lease)
        return kept is not False

    async def free(self, lease: Lease) -> None:
        """Leases.free."""
        await self._do(lambda db: self._end(db, lease.name, lease.token))

    async def close(self) -> None:
        """Leases.close."""
        if not self._closed:
            self._closed = True
            await asyncio.to_thread(self._thread.shutdown)
            self._alive.close()
            if self._db is not None:
                self._db.close()

    async def _do(self, what: Callable[[sqlite3.Connection], T], too_late: Callable[[T], None] | None = None) -> T:
        if self._closed:
            raise StoreFault("the leases are closed")
        running = asyncio.get_running_loop().run_in_executor(self._thread, self._at_file, what)
        try:
            await asyncio.wait({running}, timeout=self._deadline_s)
        finally:
            if not running.done():  # whoever asked has left, or leaves now
                running.add_done_callback(lambda ended: _ended(ended, too_late))
        if not running.done():
            raise StoreFault("the file of answers is busy")
        return running.result()

    # -- the thread

    def _at_file(self, what: Callable[[sqlite3.Connection], T]) -> T:
        try:
            inode = self._path.stat().st_ino
            if self._db is not None and inode != self._inode:  # another one stands in its place
                self._db.close()
                self._db = None
            if self._db is None:
                self._db, self._inode = connect(self._path), inode
                self._db.execute("PRAGMA wal_autocheckpoint = 0")  # the writing threads do that, for which nobody waits
                self._db.execute(lease_rows.SCHEMA)
                self._db.execute(lease_rows.HOLDERS)
                if not self._alive.name:
                    self._alive.begin()
            return what(self._db)
        except (sqlite3.Error, OSError) as error:
            if self._db is not None:
                self._db.close()
                self._db = None
            raise StoreFault(f"the file of answers fails: {error}") from error

    def _end(self, db: sqlite3.Connection, name: str, token: int) -> None:
        with _change(db):
            lease_rows.free(db, name, token, self._clock.now_s())
            self._sweep(db)

    def _free(self, name: str, token: int) -> None:
        with suppress(StoreFault):
            self._at_file(lambda db: self._end(db, name, token))

    def _sweep(self, db: sqlite3.Connection) -> None:
        now_s = self._clock.now_s()
        if not 0 <= now_s - self._swept_s < _SWEEP_EVERY_S:
            self._swept_s = now_s
            lease_rows.sweep(db, now_s)
            self._alive.sweep()


@contextmanager
def _change(db: sqlite3.Connection) -> Iterator[None]:
    """One transaction that writes."""
    db.execute("BEGIN IMMEDIATE")
    with db:
        yield


def _ended(running: asyncio.Future[T], too_late: Callable[[T], None] | None) -> None:
    """What nobody waits for any more has ended."""
    if not running.cancelled() and running.exception() is None and too_late is not None:
        too_late(running.result())
