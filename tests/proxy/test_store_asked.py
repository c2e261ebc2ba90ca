"""However many ask how the store is, it is asked once a second."""

from __future__ import annotations

import asyncio

import pytest

from farthing.cache.store import StoreStats
from farthing.cache.store_local import LocalStore
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import StoreFault
from farthing.proxy.store_asked import StoreAsked
from farthing.proxy.tasks import TaskGroup


class Counting(LocalStore):
    """Answers when it is let; `asked`: how often it was."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(None, clock=clock, memory_bytes=10**6, max_bytes=10**6, max_entries=10)
        self.asked = 0
        self.may = asyncio.Event()
        self.away = False

    async def stats(self) -> StoreStats:
        self.asked += 1
        number = self.asked
        await self.may.wait()
        if self.away:
            raise StoreFault("away")
        return StoreStats("local", number, 0, 0, 0, 0, True)


async def test_one_is_under_way_at_a_time_and_its_figures_serve_a_second() -> None:
    clock = FakeClock()
    store, tasks = Counting(clock), TaskGroup()
    asked = StoreAsked(store, clock, tasks)
    waiting = [asyncio.ensure_future(asked.stats()) for _ in range(50)]
    await asyncio.sleep(0)
    clock.advance(60)  # a slow store is not asked once more meanwhile
    waiting.append(asyncio.ensure_future(asked.stats()))
    await asyncio.sleep(0)
    waiting[0].cancel()  # who asked first and left takes nobody's answer along
    store.may.set()
    found = await asyncio.gather(*waiting[1:])
    assert ({one.entries for one in found}, store.asked) == ({1}, 1)

    assert (await asked.stats()).entries == 2
    clock.advance(0.99)
    assert (await asked.stats()).entries == 2
    clock.advance(0.02)
    assert (await asked.stats()).entries == 3
    assert len(tasks) == 0


async def test_a_fault_is_told_to_all_and_serves_no_longer() -> None:
    clock = FakeClock()
    store = Counting(clock)
    asked = StoreAsked(store, clock, TaskGroup())
    store.away = True
    store.may.set()
    for _ in range(3):
        with pytest.raises(StoreFault, match="away"):
            await asked.stats()
    assert store.asked == 1
    store.away = False
    clock.advance(1)
    assert (await asked.stats()).healthy
