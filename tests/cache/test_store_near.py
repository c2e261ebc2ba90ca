"""Memory before a real server: what another replica changes, and what the server's silence or absence does to it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest
from structlog.testing import capture_logs

from farthing.cache.entry import Entry
from farthing.cache.reading_at import At
from farthing.cache.redis_names import Names
from farthing.cache.store import Selector
from farthing.cache.store_near import HELD_S, NearStore, server_of
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock, SystemRandomness
from farthing.proxy.errors import StoreFault
from farthing.proxy.tasks import TaskGroup
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster

KEY, OTHER = "a" * 32, "b" * 32
STALE_S = 2.0


@pytest.fixture
def server() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        yield server


class Held(RedisStore):
    """A server whose answers wait, once they have been read, until the gate opens."""

    gate: asyncio.Event | None = None

    async def get(self, key: str, now_s: float, at: At | None = None) -> Entry | None:
        found = await super().get(key, now_s, at)
        if self.gate is not None:
            await self.gate.wait()
        return found


@asynccontextmanager
async def replica(
    server: ValkeyProcess | ValkeyCluster, stale_s: float = STALE_S, deadline_ms: float = 1000
) -> AsyncIterator[NearStore]:
    clock = SystemClock()
    store = NearStore(
        Held(server.url, deadline_ms=deadline_ms, clock=clock, threshold=2, pause_s=0.05),
        server.url,
        clock=clock,
        memory_bytes=10**6,
        max_entries=100,
        stale_s=stale_s,
        name=SystemRandomness().token(8),
        spawn=TaskGroup().spawn,
    )
    await store.open()
    try:
        await until(lambda: store.fresh)
        yield store
    finally:
        await store.close()


@pytest.fixture
async def two(server: ValkeyProcess) -> AsyncIterator[tuple[NearStore, NearStore]]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(replica(server)), await stack.enter_async_context(replica(server))


async def until(true: Callable[[], bool], within_s: float = 10.0) -> None:
    end = time.monotonic() + within_s
    while not true():
        assert time.monotonic() < end
        await asyncio.sleep(0.005)


def entry(key: str = KEY, body: bytes = b"{}", ttl_s: float = 600) -> Entry:
    now_s = time.time()
    return Entry(key, "t", "chat", "m", "m", "whole", "application/json", body, None, now_s, now_s + ttl_s)


async def read(store: NearStore, key: str = KEY) -> Entry | None:
    return await store.get(key, time.time())


def held(store: NearStore, key: str = KEY) -> Entry | None:
    return store.held(key, time.time())


async def test_what_was_read_lies_ready_and_is_one_object(two: tuple[NearStore, NearStore]) -> None:
    one, other = two
    await one.put(entry())
    assert held(one) is None and held(other) is None, "only what was read"
    found = await read(other)
    assert found is not None and held(other) is found and await read(other) is found
    assert (await other.get_many([OTHER, KEY], time.time())) == [None, found]
    stats = await other.stats()
    assert (stats.kind, stats.memory_entries, stats.healthy) == ("redis", 1, True) and stats.memory_bytes > 0
    assert other.held(KEY, time.time() + HELD_S) is None, "then the server is asked again"
    assert other.held(KEY, time.time() + 600) is None


@pytest.mark.parametrize("how", ["purge", "purge all", "replace", "many", "flush", "expire"])
async def test_what_another_one_changes_is_gone_from_memory(
    two: tuple[NearStore, NearStore], server: ValkeyProcess, how: str
) -> None:
    one, other = two
    await one.put_many([entry(), entry(OTHER)])
    await other.get_many([KEY, OTHER], time.time())
    assert held(other) is not None
    begun = time.monotonic()
    if how == "purge":
        assert await one.purge(Selector(key=KEY)) == (KEY,)
    elif how == "purge all":
        await one.purge(Selector())
    elif how == "replace":
        await one.put(entry(body=b"new"))
    elif how == "many":
        await one.put_many([entry(body=b"new")])
    elif how == "flush":
        server.command("FLUSHALL")
    else:
        server.command(f"PEXPIRE {Names('farthing').entry(KEY)} 1")
    await until(lambda: held(other) is None)
    if how != "expire":  # the server says so when it removes it, which may be later
        assert time.monotonic() - begun < STALE_S
    found = await read(other)
    assert (None if found is None else found.body) == (b"new" if how in ("replace", "many") else None)
    assert (held(other, OTHER) is None) is (how in ("purge all", "flush"))


async def test_what_this_one_changes_is_gone_at_once(two: tuple[NearStore, NearStore]) -> None:
    one, _ = two
    for body in (b"1", b"2", b"3"):
        await one.put(entry(body=body))
        found = await read(one)
        assert found is not None and found.body == body
    await one.purge(Selector(scope="t"))
    assert held(one) is None and await read(one) is None


async def test_a_read_that_a_change_overtook_is_not_held(two: tuple[NearStore, NearStore]) -> None:
    one, other = two
    await one.put(entry(body=b"old"))
    behind = server_of(other)
    assert isinstance(behind, Held)
    behind.gate = asyncio.Event()
    reading = asyncio.gather(read(other))
    await asyncio.sleep(0.05)
    await one.put(entry(body=b"new"))
    await asyncio.sleep(0.05)
    behind.gate.set()
    [old] = await reading
    assert old is not None and old.body == b"old", "it was read before"
    assert held(other) is None
    found = await read(other)
    assert found is not None and found.body == b"new"


async def test_a_silent_server_makes_memory_old_and_its_return_makes_it_good(server: ValkeyProcess) -> None:
    async with replica(server, stale_s := 0.6) as other:
        await other.put(entry())
        found = await read(other)
        server.freeze()
        frozen = time.monotonic()
        try:
            await until(lambda: held(other) is None)
            assert time.monotonic() - frozen < stale_s + 0.5, "a busy machine may take some time to look"
        finally:
            server.thaw()
        await until(lambda: other.fresh)
        assert held(other) is found, "nothing was missed"


async def test_what_was_purged_while_nobody_listened_is_not_served_afterwards(
    two: tuple[NearStore, NearStore], server: ValkeyProcess
) -> None:
    """The connection dies, and the purge comes before the next one is there."""
    one, other = two
    await one.put(entry())
    assert await read(other) is not None
    server.command("CLIENT KILL TYPE pubsub")
    server.command(f"UNLINK {Names('farthing').entry(KEY)}")
    await until(lambda: not other.fresh or held(other) is None)
    await until(lambda: other.fresh)
    assert held(other) is None and await read(other) is None


async def test_a_server_that_was_started_anew_has_nothing_and_memory_neither(
    two: tuple[NearStore, NearStore], server: ValkeyProcess
) -> None:
    one, other = two
    await one.put(entry())
    assert await read(other) is not None
    with capture_logs() as logs:
        server.kill()
        await until(lambda: not other.fresh)
        assert held(other) is None
        with pytest.raises(StoreFault):
            await read(other)
        server.start()
        await until(lambda: other.fresh and one.fresh)
    assert held(other) is None
    said = [line["event"] for line in logs if "follow" in line["event"]]
    assert sorted(said) == sorted(
        2 * ["the store's changes can't be followed: nothing is served from the memory in front of it",
             "the store's changes are followed again"]
    )  # fmt: skip


async def test_a_server_that_tells_nothing_is_asked_each_time() -> None:
    with ValkeyProcess() as server:
        assert b"OK" in server.command("ACL SETUSER default -client|tracking")
        clock = SystemClock()
        store = NearStore(
            RedisStore(server.url, deadline_ms=1000, clock=clock), server.url, clock=clock, memory_bytes=10**6,
            max_entries=100, stale_s=STALE_S, name="one", spawn=TaskGroup().spawn,
        )  # fmt: skip
        with capture_logs() as logs:
            await store.open()
            await until(lambda: bool(logs))
            await store.put(entry())
            assert await read(store) is not None and held(store) is None
            await store.close()
    assert len(logs) == 1 and "tracking" in logs[0]["error"]


async def test_a_user_that_may_not_listen_to_its_own_channel_hears_of_changes_and_has_no_channel() -> None:
    with ValkeyProcess() as server:
        user = "ACL SETUSER default resetchannels &__redis__:invalidate"
        assert b"OK" in server.command(user)
        async with replica(server) as store:
            await store.put(entry())
            assert await read(store) is not None and held(store) is not None
            assert server.command(f"PUBSUB NUMSUB {store.alive}").endswith(b":0\r\n")


async def test_what_others_say_on_its_channel_is_nothing_to_it() -> None:
    with ValkeyProcess() as server:
        async with replica(server) as store:
            await store.put(entry())
            assert await read(store) is not None and held(store) is not None
            assert b":1" in server.command(f"PUBLISH {store.alive} anything")
            await asyncio.sleep(STALE_S)
            assert store.fresh and held(store) is not None


async def test_what_does_not_fit_is_served_and_not_held(two: tuple[NearStore, NearStore]) -> None:
    one, other = two
    await one.put(entry(body=b"x" * 2 * 10**6))
    assert await read(other) is not None and held(other) is None


def test_names_and_keys_belong_together() -> None:
    names = Names("farthing")
    for key in (KEY, f"{KEY}.1", f"{KEY}.items", f"{KEY}.1.items"):
        assert names.key(names.entry(key)) == key
        assert names.lease(key, f"{key}/exact:c") == f"farthing:l:{{{KEY}}}{key[32:]}/exact:c"
    assert names.key("farthing:v:{x}") == names.key("") == ""
