"""Memory before a cluster one of whose primaries is replaced: it dies, comes back too late, or is cut off and goes on.

Every test changes the key at the new primary, by a client that knows no other, and looks at what another farthing has.
"""

from __future__ import annotations

import asyncio
import time
from contextlib import suppress

import pytest

from farthing.cache.store_near import NearStore
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.errors import StoreFault
from tests.cache.test_store_near import entry, held, read
from tests.cache.test_store_near_cluster import NAMES, keys_of, replica
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster

pytestmark = pytest.mark.chaos

STALE_S = 0.5
OLD, NEW = b"old", b"new"


class Watch:
    """Looks into memory all the time. `late`: when it had the old answer, in seconds since `changed` was called."""

    def __init__(self, store: NearStore, key: str) -> None:
        self._store, self._key = store, key
        self._changed_tick: float | None = None
        self.seen: list[bytes | None] = []
        self.late: list[float] = []

    def changed(self) -> None:
        """The key has been changed at the server."""
        self._changed_tick = time.monotonic()

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            tick = time.monotonic()
            found = held(self._store, self._key)
            self.seen.append(found and found.body)
            if self._changed_tick is not None and found is not None and found.body == OLD:
                self.late.append(tick - self._changed_tick)
            await asyncio.sleep(0.005)


async def replaced(cluster: ValkeyCluster, node: ValkeyProcess) -> ValkeyProcess:
    """The primary that has its slots now: as the others see it, whatever it believes."""
    other = next(one for one in cluster.nodes[:3] if one is not node)

    def named() -> ValkeyProcess | None:
        lines = [line.split() for line in other.command("CLUSTER NODES").decode().splitlines()]
        for line in lines:
            port = line[1].partition("@")[0].rpartition(":")[2] if len(line) > 8 else ""
            for one in cluster.nodes[3:]:
                if port == str(one.port) and "master" in line[2]:
                    return one
        return None

    end = time.monotonic() + 30
    while (found := await asyncio.to_thread(named)) is None:
        assert time.monotonic() < end
        await asyncio.sleep(0.01)
    return found


def follower_of(cluster: ValkeyCluster, node: ValkeyProcess) -> ValkeyProcess:
    """Its replica."""
    return next(one for one in cluster.nodes[3:] if f"\r\n:{node.port}\r\n".encode() in one.command("ROLE"))


async def followed(store: NearStore, key: str) -> None:
    """Memory holds what the new primary has."""
    end = time.monotonic() + 40
    while (there := held(store, key)) is None or there.body != NEW:
        assert time.monotonic() < end
        with suppress(StoreFault):
            await read(store, key)
        await asyncio.sleep(0.05)


@pytest.mark.parametrize("how", ["killed", "frozen", "cut off", "taken over"])
async def test_what_changes_at_the_new_primary_is_known_within_the_bound(how: str) -> None:
    """Frozen: it goes on once it was replaced, and believes to be primary. Cut off: farthing reaches it all the time,
    and it answers; only the other nodes don't. Taken over: its replica asks nobody, and it lives."""
    with ValkeyCluster(replicas=True) as cluster:
        async with replica(cluster, STALE_S) as store, asyncio.TaskGroup() as group:
            key = keys_of(cluster)[0]
            node = cluster.nodes[0]
            await store.put(entry(key, body=OLD))
            assert b":1" in node.command("WAIT 1 5000")
            found = await read(store, key)
            assert found is not None and held(store, key) is found
            watch = Watch(store, key)
            watching = group.create_task(watch.run())
            if how == "killed":
                node.kill()
            elif how == "frozen":
                node.freeze()
            elif how == "cut off":
                cluster.cut_off(node)
            else:
                follower = follower_of(cluster, node)
                assert b"OK" in follower.command("CLUSTER FAILOVER TAKEOVER")
            new = await replaced(cluster, node)
            if how == "frozen":
                node.thaw()
            assert new.command(f"EXISTS {NAMES.entry(key)}") == b":1\r\n"
            raw = RedisStore(new.url, deadline_ms=1000, clock=SystemClock())
            await raw.put(entry(key, body=NEW))
            watch.changed()
            if how == "cut off":
                assert b"role:master" in node.command("INFO replication"), "it believes to be primary, and answers"
            try:
                await followed(store, key)
            finally:
                await raw.close()
                watching.cancel()
            assert [late for late in watch.late if late > STALE_S] == []
            assert watch.seen[0] == OLD and NEW in watch.seen
