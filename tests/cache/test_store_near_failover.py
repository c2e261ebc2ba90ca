"""Memory before a primary that sentinels replace: the old one goes on, and believes for seconds that it is primary."""

from __future__ import annotations

import asyncio
import time

import pytest

from farthing.cache.store import Selector
from farthing.cache.store_near import NearStore
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.tasks import TaskGroup
from tests.cache.test_store_near import KEY, entry, held, read, until
from tests.fakes.valkey_many import WatchedValkey

STALE_S = 0.5
WATCHED_S = 4.0  # sentinels leave the old primary as it is for longer; the test asserts it


@pytest.mark.chaos
async def test_what_was_purged_at_the_new_primary_is_not_served_by_one_who_hears_the_old_one() -> None:
    clock = SystemClock()
    with WatchedValkey() as watched:
        old = watched.primary
        behind = RedisStore(watched.url, deadline_ms=1000, clock=clock, threshold=2, pause_s=0.05)
        store = NearStore(
            behind,
            watched.url,
            clock=clock,
            memory_bytes=10**6,
            max_entries=100,
            stale_s=STALE_S,
            name="one",
            spawn=TaskGroup().spawn,
        )
        await store.open()
        await until(lambda: store.fresh)
        await store.put(entry())
        assert await read(store) is not None and held(store) is not None
        old.freeze()
        try:
            await asyncio.to_thread(watched.await_other, old)
        finally:
            old.thaw()
        other = RedisStore(watched.primary.url, deadline_ms=1000, clock=clock, threshold=2, pause_s=0.05)
        assert await other.purge(Selector(key=KEY)) == (KEY,)
        purged = time.monotonic()
        late: list[tuple[str, float]] = []
        while (since_s := time.monotonic() - purged) < WATCHED_S:
            if since_s > STALE_S:
                late += [("memory", since_s)] if held(store) else []
                late += [("server", since_s)] if await read(store) else []
            await asyncio.sleep(0.05)
        assert b"role:master" in old.command("INFO replication"), "else nothing was tried"
        assert late == []
        await other.put(entry(body=b"new"))
        await until(lambda: store.fresh)
        found = await read(store)
        assert found is not None and found.body == b"new" and held(store) is found, "it is followed at the new one"
        await other.close()
        await store.close()
