"""One promise about virtual keys, kept in SQLite and over a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from pathlib import Path

import pytest

from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import FakeClock, SystemRandomness
from farthing.proxy.keys import KeyBudget, KeyRing, KeyStore, VirtualKey, made, read_key, written
from farthing.proxy.keys_file import FileKeys
from farthing.proxy.keys_redis import RedisKeys
from farthing.proxy.tasks import TaskGroup
from tests.fakes.valkey import ValkeyProcess

Make = Callable[[], Awaitable[KeyStore]]


@pytest.fixture(params=["file", "redis"])
async def make(
    request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock, valkey: ValkeyProcess
) -> AsyncIterator[Make]:
    valkey.command("FLUSHALL")
    async with AsyncExitStack() as stack:

        async def another() -> KeyStore:
            if request.param == "file":
                store: KeyStore = FileKeys(tmp_path / "keys.db")
            else:
                server = RedisStore(valkey.url, deadline_ms=5000, clock=clock)
                stack.push_async_callback(server.close)
                store = RedisKeys(server)
            stack.push_async_callback(store.close)
            return store

        yield another


def key(name: str, created_s: float = 1.0) -> tuple[str, VirtualKey]:
    budgets = [KeyBudget(5 * 10**12, "day"), KeyBudget(10**18, "month", hard=False)]
    tricky = f'{name} "revoked_s":0.0 é'
    return made(SystemRandomness(), created_s, name=tricky, tenant="t", expires_s=9.5, models=["gpt*"], budgets=budgets)


async def test_what_is_kept_comes_back_in_order_without_the_key(make: Make) -> None:
    store = await make()
    (secret, late), (_, early) = key("late", 2.0), key("early", 1.0)

    assert await store.all() == []
    await store.add(late)
    await store.add(early)
    assert await store.all() == [early, late]
    assert await (await make()).all() == [early, late]
    assert secret not in written(late).decode()
    assert read_key(written(late)) == late


async def test_revoking_is_seen_by_others_and_lasts(make: Make) -> None:
    store, other = await make(), await make()
    _, one = key("one")
    await store.add(one)

    assert await other.revoke(one.id, 100.25)
    assert await store.revoke(one.id, 200.0)
    assert not await store.revoke("nobody", 1.0)
    (found,) = await store.all()
    assert found.revoked_s == 100.25
    assert found.state(300) == "revoked"
    assert found.name == one.name


async def test_a_version_changes_with_every_change_and_only_then(make: Make) -> None:
    store, other = await make(), await make()
    seen = [await store.version()]
    _, one = key("one")
    for change in (lambda: other.add(one), lambda: store.revoke(one.id, 5.0)):
        await change()
        seen.append(await store.version())
        assert await store.version() == seen[-1]

    assert len(set(seen)) == 3


async def test_a_ring_sees_a_change_within_its_time_and_looks_no_oftener(make: Make, clock: FakeClock) -> None:
    tasks = TaskGroup()
    store, other = await make(), await make()
    ring = KeyRing(store, clock, lambda look: tasks.spawn(look), 30.0)

    async def fresh() -> None:
        if (look := ring.refreshed()) is not None:
            await look

    await fresh()
    secret, one = made(SystemRandomness(), 1.0, name="one")
    await other.add(one)
    assert ring.refreshed() is None
    assert ring.find(secret) is None
    clock.advance(0.8)
    await fresh()
    assert ring.find(secret) == one
    assert ring.find(secret[:-1] + "0") in (None, one if secret[-1] == "0" else None)
    await other.revoke(one.id, 2.0)
    clock.advance(0.3)
    assert ring.refreshed() is None  # it looks in the background
    await asyncio.gather(*tasks._tasks)
    found = ring.find(secret)
    assert found is not None and not ring.good(found)


async def looked(ring: KeyRing, clock: FakeClock) -> None:
    clock.advance(1)
    look = ring.refreshed()
    assert look is not None
    await look


async def test_what_a_store_has_lost_is_put_back_by_those_that_know_it_and_stays_revoked(
    clock: FakeClock, valkey: ValkeyProcess
) -> None:
    valkey.command("FLUSHALL")
    tasks, link = TaskGroup(), RedisStore(valkey.url, deadline_ms=5000, clock=clock)
    store = RedisKeys(link)
    late, one, other = (KeyRing(store, clock, lambda look: tasks.spawn(look), 30.0) for _ in range(3))
    (good, first), (bad, second), (new, third) = key("first"), key("second", 2.0), key("third", 3.0)
    await store.add(first)
    await store.add(second)
    await looked(late, clock)
    await store.revoke(second.id, 7.0)
    for ring in (one, other):
        await looked(ring, clock)
    valkey.command("FLUSHALL")
    await store.add(third)

    for ring in (late, one, other, late, one):  # the first of them has never heard of the revocation
        await looked(ring, clock)
    for ring in (late, one, other):
        assert [ring.find(secret) for secret in (good, new)] == [first, third]
        revoked = ring.find(bad)
        assert revoked is not None and revoked.revoked_s == 7.0
    version = await store.version()
    for ring in (late, one, other):
        await looked(ring, clock)
    assert await store.version() == version
    await link.close()


async def test_putting_back_changes_nothing_that_is_there(make: Make) -> None:
    store = await make()
    (_, one), (_, other) = key("one"), key("other", 2.0)
    await store.add(one)
    await store.revoke(one.id, 5.0)
    seen = await store.all()

    await store.put_back([one])
    assert await store.all() == seen
    await store.put_back([other])
    assert await store.all() == [*seen, other]
    (revoked,) = seen
    await store.put_back([replace(other, revoked_s=6.0), revoked])
    assert [found.revoked_s for found in await store.all()] == [5.0, 6.0]


async def test_keys_outlive_their_store_for_a_while_and_not_for_longer(clock: FakeClock) -> None:
    tasks = TaskGroup()
    with ValkeyProcess() as server:
        link = RedisStore(server.url, deadline_ms=1000, clock=clock)
        ring = KeyRing(RedisKeys(link), clock, lambda look: tasks.spawn(look), 30.0)
        secret, one = made(SystemRandomness(), 1.0, name="one")
        await ring.store.add(one)
        clock.advance(1)
        look = ring.refreshed()
        assert look is not None
        await look
        server.kill()
        for passed_s, good in ((1.0, True), (28.0, True), (2.0, False)):
            clock.advance(passed_s)
            look = ring.refreshed()
            assert look is not None
            await look
            found = ring.find(secret)
            assert found is not None and ring.good(found) is good
        assert ring.away
        await link.close()


@pytest.mark.parametrize("damaged", ["{}", "3", "", "nonsense", b"\xff\xfe", '{"budgets": [], "digest": "no hex"}'])
async def test_a_damaged_record_costs_its_own_key_only(tmp_path: Path, damaged: str | bytes) -> None:
    import sqlite3

    store = FileKeys(tmp_path / "keys.db")
    (_, one), (_, other) = key("one"), key("other")
    await store.add(one)
    await store.add(other)
    with sqlite3.connect(tmp_path / "keys.db") as conn:
        conn.execute("update keys set record = ? where id = ?", (damaged, one.id))
    conn.close()

    assert await store.all() == [other]
    await store.close()
    assert (tmp_path / "keys.db").stat().st_mode & 0o077 == 0
