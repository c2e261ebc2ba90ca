"""The shared store while its server is killed, frozen, started anew, emptied, full, or tampered with."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from redis.asyncio import Redis
from structlog.testing import capture_logs

from farthing.cache.entry import Entry
from farthing.cache.lease import Lease, State
from farthing.cache.leases_redis import RedisLeases
from farthing.cache.store import Selector
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.errors import ConfigFault, StoreFault
from tests.fakes.valkey import ValkeyProcess, running_valkey

KEY = "a" * 32
DEADLINE_MS = 100.0
SOON_S = 1.0  # a call that hangs takes minutes; a busy machine may take this for one that does not


@pytest.fixture
def server() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        yield server


@pytest.fixture
async def store(server: ValkeyProcess) -> AsyncIterator[RedisStore]:
    store = RedisStore(server.url, deadline_ms=DEADLINE_MS, clock=SystemClock(), threshold=3, pause_s=0.1)
    await store.get(KEY, 0)
    yield store
    before = time.perf_counter()
    await store.close()
    assert time.perf_counter() - before < 3


def entry(key: str = KEY, ttl_s: float = 60, body: bytes = b"{}") -> Entry:
    now_s = time.time()
    return Entry(key, "t", "chat", "m", "m", "whole", "application/json", body, None, now_s, now_s + ttl_s)


async def faults(store: RedisStore, calls: int) -> float:
    """Every one of so many gets must fail; the longest took so many seconds."""
    longest_s = 0.0
    for _ in range(calls):
        before = time.perf_counter()
        with pytest.raises(StoreFault):
            await store.get(KEY, time.time())
        longest_s = max(longest_s, time.perf_counter() - before)
    return longest_s


async def recovers(store: RedisStore) -> None:
    for _ in range(100):
        try:
            return await store.put(entry())
        except StoreFault:
            await asyncio.sleep(0.02)
    raise AssertionError("the store did not recover within 2 s")


async def test_killed_then_started_again(store: RedisStore, server: ValkeyProcess) -> None:
    await store.put(entry())
    with capture_logs() as logs:
        server.kill()
        assert await faults(store, 20) < SOON_S
        assert not (await store.stats()).healthy
        server.start()
        await recovers(store)
    assert (await store.get(KEY, time.time())) is not None
    assert (await store.stats()).healthy
    assert [(line["log_level"], line["event"]) for line in logs] == [
        ("error", "the store is away: answers pass it by"),
        ("warning", "the store is back"),
    ]


async def test_frozen_no_call_outlasts_the_deadline(store: RedisStore, server: ValkeyProcess) -> None:
    await store.put(entry())
    server.freeze()
    try:
        assert await faults(store, 3) < DEADLINE_MS / 1000 + 0.15
        # The breaker is open now: refused without waiting.
        assert await faults(store, 5) < 0.8 * DEADLINE_MS / 1000
    finally:
        server.thaw()
    await recovers(store)
    assert await store.get(KEY, time.time()) is not None


async def test_many_at_once_against_a_frozen_server(store: RedisStore, server: ValkeyProcess) -> None:
    server.freeze()
    try:
        before = time.perf_counter()
        answers = await asyncio.gather(*(store.get(KEY, time.time()) for _ in range(100)), return_exceptions=True)
        assert time.perf_counter() - before < 3  # without deadlines: redis-py's own, of 5 s
        assert all(isinstance(answer, StoreFault) for answer in answers)
    finally:
        server.thaw()
    await recovers(store)


async def test_more_at_once_than_connections_wait_and_are_no_outage(server: ValkeyProcess) -> None:
    store = RedisStore(server.url, deadline_ms=5000, clock=SystemClock(), threshold=1, max_connections=2)
    await store.put(entry())
    with capture_logs() as logs:
        found = await asyncio.gather(*(store.get(KEY, time.time()) for _ in range(50)))
    assert all(one is not None for one in found)
    assert logs == []
    await store.close()


async def test_who_finds_no_connection_in_time_fails_alone(server: ValkeyProcess) -> None:
    """The server answers: what has no connection is no reason to call it away."""
    store = RedisStore(server.url, deadline_ms=1000, clock=SystemClock(), threshold=1, max_connections=1)
    await store.put(entry())
    slow = asyncio.gather(store.run("purge", lambda client: client.blpop("nothing", timeout=2)))
    await asyncio.sleep(0.05)
    with capture_logs() as logs:
        with pytest.raises(StoreFault, match="all of our connections"):
            await store.get(KEY, time.time())
        await slow
        assert await store.get(KEY, time.time()) is not None
    assert logs == []
    await store.close()


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("unable to perform operation on <TCPTransport closed=True>; the handler is closed"),  # uvloop
        AttributeError("'NoneType' object has no attribute 'writelines'"),  # redis-py, where others let go of it
    ],
)
async def test_what_is_said_of_a_lost_connection_is_an_outage(error: Exception, store: RedisStore) -> None:
    async def write(client: object) -> None:
        raise error

    with capture_logs() as logs:
        for _ in range(3):
            with pytest.raises(StoreFault):
                await store.run("write", write)
    assert [line["event"] for line in logs] == ["the store is away: answers pass it by"]


async def test_a_restart_between_two_calls_is_not_even_seen(store: RedisStore, server: ValkeyProcess) -> None:
    await store.put(entry())
    server.kill()
    server.start()
    assert await store.get(KEY, time.time()) is None


async def test_flushed(store: RedisStore, server: ValkeyProcess) -> None:
    await store.put(entry())
    server.command("FLUSHALL")
    assert await store.get(KEY, time.time()) is None


async def test_foreign_cut_and_misplaced_values_are_misses(store: RedisStore, server: ValkeyProcess) -> None:
    await store.put(entry("b" * 32))
    async with Redis.from_url(server.url) as raw:
        other = await raw.get(f"farthing:e:{{{'b' * 32}}}")
        lines: list[Any] = []
        for value in (b"", b"rubbish", other, other[:-1]):
            await raw.set(f"farthing:e:{{{KEY}}}", value)
            with capture_logs() as logs:
                assert [await store.get(KEY, time.time()) for _ in range(5)] == [None] * 5
            lines += logs
        assert [line["so_far"] for line in lines] == [1, 10], "none for each of them"
        await raw.set("farthing:e:{}", b"FTH\x01 rubbish")
        await raw.set("somebody-else", b"1")
        await store.purge(Selector(scope="nobody"))
        assert not await raw.exists("farthing:e:{}")
        await store.purge(Selector())
        assert await raw.keys("*") == [b"somebody-else"]


async def test_entries_expire_on_the_server_too(store: RedisStore, server: ValkeyProcess) -> None:
    await store.put(entry(f"{KEY}.1", ttl_s=30))
    await store.put(entry(f"{KEY}.2", ttl_s=60))
    await store.put(entry(f"{KEY}.3", ttl_s=20))
    async with Redis.from_url(server.url) as raw:
        assert 29 <= await raw.ttl(f"farthing:e:{{{KEY}}}.1") <= 30
        assert 59 <= await raw.ttl(f"farthing:v:{{{KEY}}}") <= 60


async def test_a_full_server_refuses_writes_but_still_reads(store: RedisStore, server: ValkeyProcess) -> None:
    await store.put(entry())
    server.command("CONFIG SET maxmemory 1")
    with capture_logs() as logs:
        for _ in range(5):
            with pytest.raises(StoreFault, match="refused"):
                await store.put(entry("b" * 32))
            assert await store.get(KEY, time.time()) is not None
        assert not (await store.stats()).healthy
        server.command("CONFIG SET maxmemory 0")
        await store.put(entry("b" * 32))
    assert (await store.stats()).healthy
    assert [line["event"] for line in logs] == ["the store refuses a write", "the store takes a write again"]


async def test_a_password_opens_and_is_never_told() -> None:
    with running_valkey() as url:
        port = url.rpartition(":")[2]
        async with Redis.from_url(url) as raw:
            await raw.config_set("requirepass", "sesame")
        store = RedisStore(f"redis://:sesame@127.0.0.1:{port}", deadline_ms=1000, clock=SystemClock())
        await store.put(entry())
        assert await store.get(KEY, time.time()) is not None
        await store.close()
        wrong = RedisStore(f"redis://:wr0ng@127.0.0.1:{port}", deadline_ms=1000, clock=SystemClock(), threshold=1)
        with capture_logs() as logs, pytest.raises(StoreFault) as told:
            await wrong.get(KEY, 0)
        await wrong.close()
        assert "wr0ng" not in str(told.value) and "wr0ng" not in str(logs) and len(logs) == 1


async def test_a_cluster() -> None:
    with ValkeyProcess("--cluster-enabled", "yes") as server:
        assert b"OK" in server.command("CLUSTER ADDSLOTSRANGE 0 16383")
        while b"cluster_state:ok" not in server.command("CLUSTER INFO"):
            await asyncio.sleep(0.02)
        url = server.url.replace("redis://", "redis+cluster://").removesuffix("/0")
        store = RedisStore(url, deadline_ms=1000, clock=SystemClock())
        keys = [f"{number:032x}" for number in range(20)] + [f"{0:032x}.1"]
        for key in keys:
            await store.put(entry(key))
        assert await store.get(keys[7], time.time()) is not None
        assert (await store.stats()).entries == 22
        assert set(await store.purge(Selector(key=keys[0]))) == {keys[0], f"{keys[0]}.1"}
        assert len(await store.purge(Selector())) == 19

        leases, held = RedisLeases(store, store, lease_s=30), []
        for key in keys[:5]:
            found = await leases.take(key, f"{key}:c", "f", "")
            held.append(Lease(key, f"{key}:c", "f", found.token))
        await leases.renew(held)
        assert [await leases.land(lease, entry(lease.key)) for lease in held] == [True] * 5
        assert (await leases.take(keys[0], f"{keys[0]}:c", "g", "")).state is State.STORED
        await store.close()


@pytest.mark.parametrize("url", ["http://localhost", "redis://localhost:port"])
def test_a_wrong_url_is_the_operators_fault(url: str) -> None:
    with pytest.raises(ConfigFault, match=r"store\.url"):
        RedisStore(url, deadline_ms=50, clock=SystemClock())


async def test_a_walk_goes_on_though_its_connection_is_hung_up(server: ValkeyProcess) -> None:
    """As when memory before it begins to listen behind sentinels, while a purge is under way."""
    store = RedisStore(server.url, deadline_ms=30_000, clock=SystemClock())
    try:
        keys = {f"{number:032x}" for number in range(10)}
        await store.put_many([entry(key) for key in sorted(keys)])
        server.freeze()
        purging = asyncio.create_task(store.purge(Selector()))
        await asyncio.sleep(0.2)
        await store._client.connection_pool.disconnect(inuse_connections=True)
        server.thaw()
        assert set(await purging) == keys
    finally:
        await store.close()
