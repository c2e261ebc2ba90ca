"""Memory before a cluster of three real nodes: what another replica changes, slots that move, nodes that are silent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from farthing.cache.redis_names import Names
from farthing.cache.store import Selector
from farthing.cache.store_near import NearStore
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.tasks import TaskGroup
from tests.cache.test_store_near import STALE_S, entry, held, read, until
from tests.cache.test_store_near import replica as near
from tests.chaos.places import Links
from tests.fakes.valkey_many import ValkeyCluster

NAMES = Names("farthing")
UNFOLLOWED = "the store's changes can't be followed: nothing is served from the memory in front of it"


@pytest.fixture(scope="module")
def shared() -> Iterator[ValkeyCluster]:
    with ValkeyCluster(replicas=False) as cluster:
        yield cluster


@pytest.fixture
def cluster(shared: ValkeyCluster) -> ValkeyCluster:
    for node in shared.nodes:
        node.command("FLUSHALL")
    return shared


def replica(cluster: ValkeyCluster, stale_s: float = STALE_S) -> AbstractAsyncContextManager[NearStore]:
    return near(cluster, stale_s, deadline_ms=5000)  # a busy machine is late with three nodes


@pytest.fixture
async def two(cluster: ValkeyCluster) -> AsyncIterator[tuple[NearStore, NearStore]]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(replica(cluster)), await stack.enter_async_context(replica(cluster))


def keys_of(cluster: ValkeyCluster) -> list[str]:
    """One key of each primary's, in the nodes' order."""
    found: dict[int, str] = {}
    for number in range(100):
        found.setdefault(cluster.owner(NAMES.entry(key := f"{number:032x}")).port, key)
    return [found[node.port] for node in cluster.nodes[:3]]


async def bodies(store: NearStore, keys: list[str]) -> list[bytes | None]:
    return [one and one.body for one in await store.get_many(keys, time.time())]


async def test_what_was_read_of_any_node_lies_ready_and_is_one_object(
    two: tuple[NearStore, NearStore], cluster: ValkeyCluster
) -> None:
    one, other = two
    keys = keys_of(cluster)
    await one.put_many([entry(key) for key in keys])
    assert [held(other, key) for key in keys] == [None, None, None], "only what was read"
    first = await read(other, keys[0])
    assert first is not None and held(other, keys[0]) is first
    found = await other.get_many([*keys, "f" * 32], time.time())
    assert found[0] is first and [held(other, key) for key in keys] == found[:3] and found[3] is None
    assert (await other.stats()).memory_entries == 3 and (await other.stats()).entries == 3


@pytest.mark.parametrize("how", ["purge", "purge all", "replace", "many", "flush one", "expire"])
async def test_what_another_one_changes_at_any_node_is_gone_from_memory(
    two: tuple[NearStore, NearStore], cluster: ValkeyCluster, how: str
) -> None:
    one, other = two
    for node, key in zip(cluster.nodes, keys := keys_of(cluster), strict=True):
        await one.put_many([entry(key) for key in keys])
        await other.get_many(keys, time.time())
        assert all(held(other, each) for each in keys)
        begun = time.monotonic()
        if how == "purge":
            assert await one.purge(Selector(key=key)) == (key,)
        elif how == "purge all":
            assert sorted(await one.purge(Selector())) == sorted(keys)
        elif how == "replace":
            await one.put(entry(key, body=b"new"))
        elif how == "many":
            await one.put_many([entry(key, body=b"new")])
        elif how == "flush one":
            node.command("FLUSHALL")
        else:
            node.command(f"PEXPIRE {NAMES.entry(key)} 1")
        await until(lambda: held(other, key) is None)  # noqa: B023
        if how != "expire":  # the server says so when it removes it, which may be later
            assert time.monotonic() - begun < STALE_S
        assert await bodies(other, [key]) == [b"new" if how in ("replace", "many") else None]


async def test_a_key_that_moves_is_forgotten_and_held_again_only_once_its_slot_has_moved(
    two: tuple[NearStore, NearStore], cluster: ValkeyCluster
) -> None:
    """The way that a cluster is resharded: SETSLOT, MIGRATE, SETSLOT."""
    one, other = two
    key = keys_of(cluster)[0]
    name, home, away = NAMES.entry(key), cluster.nodes[0], cluster.nodes[1]
    with capture_logs() as logs:
        await one.put(entry(key, body=b"old"))
        assert await read(other, key) is not None and held(other, key) is not None
        cluster.begin_move(name, away)
        assert await bodies(other, [key]) == [b"old"] and held(other, key) is not None, "it is where it was"
        cluster.carry(name, away)
        await until(lambda: held(other, key) is None)
        for _ in range(3):
            found = await read(other, key)
            assert found is not None and found.body == b"old", "redirected, it is found"
            assert await bodies(other, [key]) == [b"old"]
        assert held(other, key) is None, "whoever gave it doesn't own it"
        cluster.end_move(name, away)
        await one.put(entry(key, body=b"new"))
        put = time.monotonic()
        while time.monotonic() - put < STALE_S:
            assert held(other, key) is None or held(other, key).body == b"new"  # type: ignore[union-attr]
            await asyncio.sleep(0.02)
        await until(lambda: other.fresh and one.fresh)
        assert await bodies(other, [key]) == [b"new"]
        await until(lambda: other.fresh)
        assert held(other, key) is not None, "its new owner is listened to"
        assert await one.purge(Selector(key=key)) == (key,)
        await until(lambda: held(other, key) is None, within_s=STALE_S)
        assert [line for line in logs if line["event"] == UNFOLLOWED] == [], "a move is no fault"
    cluster.begin_move(name, home)
    cluster.end_move(name, home)


async def test_a_slot_that_goes_to_another_node_without_its_keys_is_forgotten(
    two: tuple[NearStore, NearStore], cluster: ValkeyCluster
) -> None:
    """The old owner isn't asked to tell of anything: it is given word of the new one, which has no such key."""
    one, other = two
    key = keys_of(cluster)[0]
    name, home, away = NAMES.entry(key), cluster.nodes[0], cluster.nodes[1]
    await one.put(entry(key, body=b"old"))
    assert await read(other, key) is not None and held(other, key) is not None
    cluster.begin_move(name, away)
    cluster.end_move(name, away)
    await until(lambda: held(other, key) is None, within_s=STALE_S)
    assert await read(other, key) is None
    cluster.begin_move(name, home)
    cluster.end_move(name, home)


async def test_a_primary_that_joined_is_read_counted_and_purged(tmp_path: Path) -> None:
    """The store's own client isn't sent to it by a read: what is held is read from it by those who listen to it."""
    with ValkeyCluster(replicas=False) as cluster:
        async with replica(cluster) as one, replica(cluster) as other:
            keys = keys_of(cluster)
            assert (await one.stats()).entries == 0  # its own client knows three
            joined, name = cluster.join(), NAMES.entry(keys[0])
            cluster.begin_move(name, joined)
            cluster.end_move(name, joined)
            await other.put_many([entry(key) for key in keys])

            def listened_to() -> bool:
                server = one._tracking.at(name).server
                return server is not None and server.client.connection_pool.connection_kwargs["port"] == joined.port

            await until(listened_to, within_s=20)
            assert await bodies(one, keys) == 3 * [b"{}"] and held(one, keys[0]) is not None
            assert (await one.stats()).entries == 3
            assert sorted(await one.purge(Selector())) == sorted(keys)
            assert await bodies(other, keys) == 3 * [None]


async def test_a_silent_node_makes_memory_old_and_its_return_makes_it_good(cluster: ValkeyCluster) -> None:
    with_it, without = keys_of(cluster)[1], keys_of(cluster)[0]
    async with replica(cluster, stale_s := 0.4) as store:
        await store.put_many([entry(with_it), entry(without)])
        found = await store.get_many([with_it, without], time.time())
        assert [held(store, with_it), held(store, without)] == found
        cluster.nodes[1].freeze()
        frozen = time.monotonic()
        try:
            await until(lambda: held(store, with_it) is None and held(store, without) is None)
            assert time.monotonic() - frozen < stale_s + 0.5, "a busy machine may take some time to look"
            assert await read(store, without) == found[1], "the others are asked"
        finally:
            cluster.nodes[1].thaw()
        await until(lambda: store.fresh)
        assert await bodies(store, [with_it, without]) == [b"{}", b"{}"]


async def test_what_was_purged_while_one_node_was_not_heard_is_not_served_afterwards(
    two: tuple[NearStore, NearStore], cluster: ValkeyCluster
) -> None:
    one, other = two
    key = keys_of(cluster)[2]
    await one.put(entry(key))
    assert await read(other, key) is not None
    cluster.nodes[2].command("CLIENT KILL TYPE pubsub")
    cluster.nodes[2].command(f"UNLINK {NAMES.entry(key)}")
    await until(lambda: not other.fresh or held(other, key) is None)
    await until(lambda: other.fresh)
    assert held(other, key) is None and await read(other, key) is None


async def test_of_many_commands_at_once_before_the_cluster_is_known_each_finds_its_node(cluster: ValkeyCluster) -> None:
    store = RedisStore(cluster.url, deadline_ms=5000, clock=SystemClock())
    for _ in range(2):
        assert await asyncio.gather(*(store.get(key, time.time()) for key in keys_of(cluster) * 20)) == [None] * 60
    await store.close()


@pytest.mark.parametrize("command", ["client|tracking", "cluster|nodes"])
async def test_where_one_node_does_not_tell_all_are_asked_each_time(cluster: ValkeyCluster, command: str) -> None:
    clock, keys = SystemClock(), keys_of(cluster)
    for node in cluster.nodes[1:] if "tracking" in command else cluster.nodes:
        assert b"OK" in node.command(f"ACL SETUSER default -{command}")
    try:
        store = NearStore(
            RedisStore(cluster.url, deadline_ms=5000, clock=clock), cluster.url, clock=clock, memory_bytes=10**6,
            max_entries=100, stale_s=STALE_S, name="one", spawn=TaskGroup().spawn,
        )  # fmt: skip
        with capture_logs() as logs:
            await store.open()
            await until(lambda: bool(logs))
            await store.put_many([entry(key) for key in keys])
            assert await bodies(store, keys) == 3 * [b"{}"] and [held(store, key) for key in keys] == 3 * [None]
            await store.close()
        assert len(logs) == 1 and command.partition("|")[2] in logs[0]["error"]
    finally:
        for node in cluster.nodes:
            node.command(f"ACL SETUSER default +{command}")


async def test_a_partition_between_farthing_and_one_primary(tmp_path: Path) -> None:
    """What is purged there meanwhile isn't told, so nothing is served from memory; it is followed when it is back."""
    cluster = ValkeyCluster(replicas=False)
    links = Links(tmp_path, [node.port for node in cluster.nodes])
    cluster.announce(links.ports)
    links.spawn()
    links.await_ready()
    try:
        with cluster:
            async with replica(cluster, stale_s := 0.5) as store:
                keys = keys_of(cluster)
                await store.put_many([entry(key) for key in keys])
                assert await bodies(store, keys) == 3 * [b"{}"] and all(held(store, key) for key in keys)
                links.become("hole", [0])
                cut = time.monotonic()
                for node, key in zip(cluster.nodes, keys, strict=True):
                    assert b":1" in node.command(f"UNLINK {NAMES.entry(key)}")
                late = []
                while time.monotonic() - cut < 3 * stale_s:
                    if time.monotonic() - cut > stale_s + 0.1:
                        late += [key for key in keys if held(store, key)]
                    await asyncio.sleep(0.02)
                assert late == []
                links.become("pass", [0])
                await until(lambda: store.fresh)
                assert [held(store, key) for key in keys] == 3 * [None]
                assert await bodies(store, keys) == 3 * [None]
    finally:
        links.close()
