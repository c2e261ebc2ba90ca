"""A store's figures for whoever asks how farthing is: the store is asked once a second at most, however many ask."""

from __future__ import annotations

import asyncio

from farthing.cache.store import Store, StoreStats
from farthing.proxy.clock import Clock
from farthing.proxy.errors import FarthingError
from farthing.proxy.tasks import TaskGroup

__all__ = ["StoreAsked"]

_SHARED_S = 1.0


class StoreAsked:
    """See the module. Lives on the event loop; what is under way when all who asked have left goes on to its end, which
    the store's deadline bounds."""

    def __init__(self, store: Store, clock: Clock, tasks: TaskGroup) -> None:
        self._store = store
        self._clock = clock
        self._tasks = tasks
        self._asked: asyncio.Task[StoreStats | FarthingError] | None = None
        self._asked_tick = 0.0

    async def stats(self) -> StoreStats:
        """Store.stats, asked within the last second, or under way since longer. Raises what it raised."""
        tick_s = self._clock.tick_s()
        if self._asked is None or (self._asked.done() and tick_s - self._asked_tick >= _SHARED_S):
            self._asked, self._asked_tick = self._tasks.spawn(self._ask(), "ask the store"), tick_s
        found = await asyncio.shield(self._asked)
        if isinstance(found, FarthingError):
            raise found
        return found

    async def _ask(self) -> StoreStats | FarthingError:
        try:
            return await self._store.stats()
        except FarthingError as fault:
            return fault
