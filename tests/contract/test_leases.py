"""Who asks the upstream, over both places that processes share: Redis (a real Valkey), and one SQLite file."""

from __future__ import annotations

import asyncio
import itertools
import os
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from farthing.cache.alive import Alive
from farthing.cache.entry import Entry
from farthing.cache.lease import Answer, Lease, Leases, State, name_of, pause_s
from farthing.cache.leases_redis import RedisLeases
from farthing.cache.leases_shared import SharedLeases
from farthing.cache.store import Selector, Store
from farthing.cache.store_near import NearStore
from farthing.cache.store_redis import RedisStore
from farthing.cache.store_shared import SharedStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.errors import StoreFault
from farthing.proxy.tasks import TaskGroup
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster

KEY = "a" * 32
NAME = name_of(KEY, "c" * 64)
LEASE_S = 0.4
LONG_S = 30.0
Process = tuple[Leases, Store]
Another = Callable[..., Awaitable[Process]]


@pytest.fixture(params=["redis", "memory before redis", "memory before a cluster", "file"])
async def another(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Another]:
    """Makes processes, each with what it has of its own."""
    clock = SystemClock()
    url = ""
    if request.param != "file":
        shared: ValkeyProcess | ValkeyCluster
        shared = request.getfixturevalue("valkey_cluster" if "cluster" in request.param else "valkey")
        for node in shared.nodes if isinstance(shared, ValkeyCluster) else [shared]:
            node.command("FLUSHALL")
        url = shared.url
    numbers = itertools.count(1)
    async with AsyncExitStack() as stack:

        async def make(lease_s: float = LONG_S) -> Process:
            name = f"process{next(numbers)}"
            if request.param != "file":
                server = RedisStore(url, deadline_ms=5000, clock=clock)
                stack.push_async_callback(server.close)
                if request.param == "redis":
                    return RedisLeases(server, server, lease_s=lease_s), server
                near = NearStore(
                    server, url, clock=clock, memory_bytes=10**7, max_entries=1000, stale_s=1.0, name=name,
                    spawn=TaskGroup().spawn,
                )  # fmt: skip
                await near.open()
                stack.push_async_callback(near.close)
                async with asyncio.timeout(20):
                    while not near.alive:
                        await asyncio.sleep(0.01)
                return RedisLeases(server, near, lease_s=lease_s), near
            path = tmp_path / "answers.db"
            store = SharedStore(
                path, clock=clock, memory_bytes=10**7, max_bytes=10**8, max_entries=1000, flush_ms=1,
                spawn=TaskGroup().spawn,
            )  # fmt: skip
            await store.open()
            stack.push_async_callback(store.close)
            alive = Alive(tmp_path / "alive", name)
            leases = SharedLeases(store, path, clock, alive, lease_s=lease_s, deadline_s=5.0)
            stack.push_async_callback(leases.close)
            return leases, store

        yield make


def entry(body: bytes = b"{}", key: str = KEY, ttl_s: float = 60) -> Entry:
    now_s = time.time()
    return Entry(key, "t", "chat", "m", "m", "whole", "application/json", body, None, now_s, now_s + ttl_s)


async def taken(leases: Leases, flight: str, key: str = KEY, name: str = NAME, waited_for: str = "") -> Lease:
    found = await leases.take(key, name, flight, waited_for)
    assert found.state is State.TAKEN and found.flight == flight and found.token > 0, found
    return Lease(key, name, flight, found.token)


async def test_one_asks_and_the_others_find_its_answer(another: Another) -> None:
    (one, _), (two, store) = await another(), await another()
    lease = await taken(one, "f1")
    assert await two.take(KEY, NAME, "f2", "") == Answer(State.HELD, "f1")
    assert (await taken(one, "f1")).token == lease.token, "asking twice is asking once"

    assert await one.land(lease, entry(b"answer"))
    found = await two.take(KEY, NAME, "f2", "f1")
    answer = await two.get(KEY, time.time())
    assert found.state is State.STORED and answer is not None and answer.body == b"answer"
    assert await store.purge(Selector(key=KEY)) == (KEY,)


async def test_of_many_at_once_one_asks(another: Another) -> None:
    processes = [(await another())[0] for _ in range(3)]
    found = await asyncio.gather(
        *(one.take(KEY, NAME, f"{at} {n}", "") for n in range(20) for at, one in enumerate(processes))
    )
    states = [one.state for one in found]
    assert states.count(State.TAKEN) == 1 and states.count(State.HELD) == 59
    assert len({one.flight for one in found}) == 1


async def test_a_holder_that_is_gone_is_replaced_by_one_and_what_it_still_brings_is_refused(another: Another) -> None:
    (gone, _), (two, store), (three, _) = await another(LEASE_S), await another(), await another()
    old = await taken(gone, "f1")
    assert (await two.take(KEY, NAME, "f2", "")).state is State.HELD
    await asyncio.sleep(LEASE_S + 0.05)
    new = await taken(two, "f2", waited_for="f1")
    assert new.token > old.token
    assert await three.take(KEY, NAME, "f3", "f1") == Answer(State.HELD, "f2"), "one of those who waited, not all"

    await gone.renew([old])
    await gone.free(old)
    assert not await gone.land(old, entry(b"stale"))
    assert await store.get(KEY, time.time()) is None
    assert await three.take(KEY, NAME, "f3", "f2") == Answer(State.HELD, "f2")

    assert await two.land(new, entry(b"newer"))
    assert not await gone.land(old, entry(b"stale"))
    found = await three.get(KEY, time.time())
    assert found is not None and found.body == b"newer"
    await store.purge(Selector(key=KEY))
    assert not await gone.land(old, entry(b"stale")), "nor after a purge"
    assert await three.get(KEY, time.time()) is None


async def test_a_holder_that_dies_is_replaced_before_its_lease_has_lapsed(another: Another) -> None:
    (gone, its_store), (two, store), (three, _) = await another(), await another(), await another()
    old = await taken(gone, "f1")
    assert await two.take(KEY, NAME, "f2", "") == Answer(State.HELD, "f1")

    await dies(gone, its_store)
    if isinstance(its_store, RedisStore):  # no memory before it, so nobody listens: there the lapse alone tells
        await asyncio.sleep(0.2)
        assert await two.take(KEY, NAME, "f2", "f1") == Answer(State.HELD, "f1")
        return
    async with asyncio.timeout(5):  # far less than LONG_S; the server hears of it when it next looks at its sockets
        while (found := await two.take(KEY, NAME, "f2", "f1")).state is State.HELD:
            await asyncio.sleep(0.01)
    assert found.state is State.TAKEN and found.token > old.token
    assert await three.take(KEY, NAME, "f3", "f1") == Answer(State.HELD, "f2"), "one of those who waited, not all"

    assert not await gone.land(old, entry(b"stale"))
    assert await two.land(Lease(KEY, NAME, "f2", found.token), entry(b"newer"))
    answer = await store.get(KEY, time.time())
    assert answer is not None and answer.body == b"newer"


async def dies(leases: Leases, store: Store) -> None:
    """What the others see of a process that is killed."""
    if isinstance(store, NearStore):
        assert store._listening is not None
        store._listening.cancel()
        await asyncio.wait([store._listening])
    elif isinstance(store, RedisStore):
        await store.close()
    else:
        assert isinstance(leases, SharedLeases) and leases._alive._lock is not None
        os.close(leases._alive._lock)
        leases._alive._lock = None


async def test_a_lapsed_lease_that_nobody_took_over_still_lands(another: Another) -> None:
    (one, store), (two, _) = await another(0.1), await another()
    lease = await taken(one, "f1")
    await asyncio.sleep(0.15)
    assert await one.land(lease, entry(b"late"))
    assert (await two.take(KEY, NAME, "f2", "")).state is State.STORED
    assert await store.get(KEY, time.time()) is not None


async def test_a_lease_that_is_renewed_lasts(another: Another) -> None:
    (one, _), (two, _) = await another(LEASE_S), await another()
    lease, other = await taken(one, "f1"), await taken(one, "f1", "b" * 32, name_of("b" * 32, "c"))
    for _ in range(3):
        await asyncio.sleep(LEASE_S * 0.6)
        await one.renew([lease, other])
    assert (await two.take(KEY, NAME, "f2", "")).state is State.HELD
    assert (await two.take(other.key, other.name, "f2", "")).state is State.HELD


async def test_who_waited_for_a_failure_goes_alone_and_who_comes_later_leads(another: Another) -> None:
    (one, _), (two, _), (three, _) = await another(), await another(), await another()
    lease = await taken(one, "f1")
    assert (await two.take(KEY, NAME, "f2", "")).state is State.HELD
    await one.free(lease)
    assert await two.take(KEY, NAME, "f2", "f1") == Answer(State.FAILED, "f1")
    assert (await taken(three, "f3")).token > lease.token
    assert await one.take(KEY, NAME, "f4", "") == Answer(State.HELD, "f3")


async def test_other_credentials_and_other_requests_are_other_leases(another: Another) -> None:
    one, _ = await another()
    names = [(KEY, name_of(KEY, "d")), (KEY, name_of(f"{KEY}/exact", "c")), ("b" * 32, name_of("b" * 32, "c"))]
    for key, name in [(KEY, NAME), *names]:
        await taken(one, f"flight of {name}", key, name)


async def test_a_variant_lands_among_its_variants(another: Another) -> None:
    one, store = await another()
    for variant in ("1", "2"):
        key = f"{KEY}.{variant}"
        lease = await taken(one, variant, key, name_of(key, "c"))
        assert await one.land(lease, entry(b"v", key))
    assert set(await store.purge(Selector(key=KEY))) == {f"{KEY}.1", f"{KEY}.2"}


async def test_an_answer_that_has_expired_ends_the_wait_and_is_not_kept(another: Another) -> None:
    (one, store), (two, _) = await another(), await another()
    lease = await taken(one, "f1")
    assert await one.land(lease, entry(ttl_s=-1))
    assert (await two.take(KEY, NAME, "f2", "f1")).state is State.FAILED
    assert await store.get(KEY, time.time()) is None


async def test_closed_leases_are_away(another: Another) -> None:
    one, store = await another()
    await one.close()
    await one.close()
    await store.close()
    with pytest.raises(StoreFault):
        await one.take(KEY, NAME, "f1", "")


@pytest.mark.parametrize(("waited_s", "pause"), [(0.0, 0.01), (0.05, 0.01), (1.0, 0.1), (60.0, 0.25)])
def test_who_waits_looks_the_less_often_the_longer_it_waits(waited_s: float, pause: float) -> None:
    assert pause_s(waited_s) == pytest.approx(pause)


def test_names_are_apart() -> None:
    pairs: list[tuple[Any, Any]] = [(KEY, "c"), (KEY, "d"), (f"{KEY}/exact", "c"), (f"{KEY}.1", "c")]
    assert len({name_of(*pair) for pair in pairs}) == len(pairs)
