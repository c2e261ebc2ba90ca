"""The shared store changes an answer in one step: wherever the line is cut, nothing is left that stays for ever."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from redis.asyncio import Redis

from farthing.cache.entry import Entry
from farthing.cache.lease import Lease
from farthing.cache.leases_redis import RedisLeases
from farthing.cache.store import Selector
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.errors import StoreFault
from tests.fakes.cutting import Cutting
from tests.fakes.valkey import ValkeyProcess

KEY = "a" * 32
SMALL, LARGE = b"{}", random.Random(1).randbytes(40_000)
PIECE_BYTES = 10_000


@pytest.fixture(scope="module")
def server() -> Iterator[ValkeyProcess]:
    with ValkeyProcess() as server:
        yield server


@pytest.fixture
async def raw(server: ValkeyProcess) -> AsyncIterator[Redis]:
    async with Redis.from_url(server.url) as raw:
        await raw.flushall()
        yield raw


def entry(body: bytes, key: str = f"{KEY}.1") -> Entry:
    now_s = time.time()
    return Entry(key, "t", "chat", "m", "m", "whole", "application/json", body, None, now_s, now_s + 600)


def store_at(url: str) -> RedisStore:
    return RedisStore(url, deadline_ms=20_000, clock=SystemClock(), threshold=1000, piece_bytes=PIECE_BYTES)


async def commands_of(line: Cutting, store: RedisStore, body: bytes) -> int:
    """How many commands a put takes on a connection that is new."""
    line.after(None)
    await store.put(entry(body))
    return line.passed


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_cut_anywhere_a_put_leaves_nothing_without_an_expiry(
    body: bytes, server: ValkeyProcess, raw: Redis
) -> None:
    async with Cutting(server.port) as line:
        there = store_at(line.url)
        most = await commands_of(line, there, body)
        await there.close()
        kept = set()
        for commands in range(most + 1):
            await raw.flushall()
            store = store_at(line.url)
            line.after(commands)
            with pytest.raises(StoreFault):
                await store.put(entry(body))
            await store.close()
            names = await raw.keys("*")
            assert {name: await raw.ttl(name) for name in names if await raw.ttl(name) < 0} == {}
            line.after(None)
            after = store_at(server.url)
            kept.add(await after.get(f"{KEY}.1", time.time()) is not None)
            await after.purge(Selector(key=KEY))
            left = await raw.keys("*")
            assert all(name.startswith(b"farthing:n:") for name in left if not name.startswith(b"farthing:v:"))
            assert max([await raw.ttl(name) for name in left if name.startswith(b"farthing:n:")], default=0) <= 60
            await after.close()
        assert kept == {False, True}, "cut before it was kept, and after"


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_cut_once_anywhere_a_put_still_keeps(body: bytes, server: ValkeyProcess, raw: Redis) -> None:
    """The server has done what was asked, and the answer is lost: the same is sent once more."""
    async with Cutting(server.port) as line:
        there = store_at(line.url)
        most = await commands_of(line, there, body)
        await there.close()
        for commands in range(1, most + 1):
            await raw.flushall()
            store = store_at(line.url)
            line.after(commands, for_good=False)
            put = entry(body)
            await store.put(put)
            assert await store.get(put.key, time.time()) == put
            await store.close()


async def test_a_small_put_is_one_command(server: ValkeyProcess, raw: Redis) -> None:
    async with Cutting(server.port) as line:
        store = store_at(line.url)
        await store.get(KEY, time.time())
        for key in (KEY, f"{KEY}.1"):
            line.after(None)
            await store.put(entry(SMALL, key))
            assert line.passed == 1
        line.after(None)
        await store.put_many([entry(SMALL, f"{number:032x}.1") for number in range(9)])
        assert line.passed == 9
        await store.close()


@pytest.mark.parametrize("body", [SMALL, LARGE], ids=["small", "large"])
async def test_cut_anywhere_a_landing_leaves_nothing_without_an_expiry(
    body: bytes, server: ValkeyProcess, raw: Redis
) -> None:
    async with Cutting(server.port) as line:
        for commands in range(12):
            await raw.flushall()
            line.after(None)
            store = store_at(line.url)
            leases = RedisLeases(store, store, lease_s=30)
            found = await leases.take(f"{KEY}.1", f"{KEY}.1:c", "f", "")
            line.after(commands)
            try:
                await leases.land(Lease(f"{KEY}.1", f"{KEY}.1:c", "f", found.token), entry(body))
            except StoreFault:
                assert line.passed == commands
            await store.close()
            for name in await raw.keys("*"):
                assert await raw.ttl(name) > 0, name


async def test_a_user_with_few_rights(server: ValkeyProcess, raw: Redis) -> None:
    """docs/deployment.md says which: all that answers and leases need is among them."""
    page = (Path(__file__).parents[2] / "docs" / "deployment.md").read_text("utf-8")
    rights = page.partition("the keys `farthing:*` with `")[2].partition("`")[0]
    assert rights.startswith("+eval")
    await raw.execute_command("ACL", "SETUSER", "few", "on", ">pass", "~farthing:*", "-@all", *rights.split())
    store = store_at(server.url.replace("redis://", "redis://few:pass@"))
    leases = RedisLeases(store, store, lease_s=30)
    for body in (SMALL, LARGE, SMALL):
        await store.put(entry(body))
        found = await store.get(f"{KEY}.1", time.time())
        assert found is not None and found.body == body
        await store.put_many([entry(body, KEY)])
        assert len(await store.get_many([KEY, f"{KEY}.1"], time.time())) == 2
        assert len(await store.purge(Selector(key=KEY))) == 2
        taken = await leases.take(KEY, f"{KEY}:c", "f", "")
        lease = Lease(KEY, f"{KEY}:c", "f", taken.token)
        await leases.renew([lease])
        assert await leases.land(lease, entry(body, KEY))
        assert [one async for one in store.walk()] != []
        taken = await leases.take(f"{KEY}.1", f"{KEY}.1:c", "g", "")
        await leases.free(Lease(f"{KEY}.1", f"{KEY}.1:c", "g", taken.token))
        await store.put(entry(SMALL)._replace(expires_s=0))
        assert (await store.stats()).healthy
        assert await store.purge(Selector()) == (KEY,)
    await store.put(entry(LARGE))
    await raw.delete(f"farthing:c:{{{KEY}}}.1")
    assert await store.get(f"{KEY}.1", time.time()) is None
    while await raw.exists(f"farthing:e:{{{KEY}}}.1"):
        await asyncio.sleep(0.01)
    await store.close()
    await raw.execute_command("ACL", "DELUSER", "few")
