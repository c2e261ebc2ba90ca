"""Stores of several processes over one file: what one does, the others see; here they are several in one process."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, closing
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from farthing.cache.entry import Entry
from farthing.cache.store import Selector
from farthing.cache.store_shared import SharedStore
from farthing.proxy.clock import FakeClock
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.usage import Usage

Another = Callable[..., Awaitable[SharedStore]]


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def another(tmp_path: Path, clock: FakeClock) -> AsyncIterator[Another]:
    async with AsyncExitStack() as stack:

        async def open_one(max_entries: int = 1000) -> SharedStore:
            store = SharedStore(
                tmp_path / "answers.db",
                clock=clock,
                memory_bytes=10**7,
                max_bytes=10**8,
                max_entries=max_entries,
                flush_ms=1,
                spawn=TaskGroup().spawn,
            )
            await store.open()
            stack.push_async_callback(store.close)
            return store

        yield open_one


def entry(clock: FakeClock, key: str, body: bytes = b"{}", scope: str = "t") -> Entry:
    at_s = clock.now_s()
    return Entry(
        key, scope, "chat", "small", "small", "whole", "application/json", body, Usage(fresh=1), at_s, at_s + 60
    )


async def settled(*stores: SharedStore) -> None:
    for one in stores:
        await one.flush()
    for one in stores:
        await one.catch_up()


async def bodies(store: SharedStore, clock: FakeClock, *keys: str) -> list[bytes | None]:
    found = await store.get_many(keys, clock.now_s())
    return [None if one is None else one.body for one in found]


async def test_what_one_puts_the_other_serves_by_itself_soon(another: Another, clock: FakeClock) -> None:
    one, other = await another(), await another()
    await one.put(entry(clock, "a" * 32, b"from one"))

    async with asyncio.timeout(20):
        while await other.get("a" * 32, clock.now_s()) is None:
            await asyncio.sleep(0.01)

    assert await bodies(other, clock, "a" * 32) == [b"from one"]
    assert other.held("a" * 32, clock.now_s()) is not None


async def test_a_purge_in_one_reaches_the_other_and_the_disk(another: Another, clock: FakeClock) -> None:
    one, other = await another(), await another()
    await one.put(entry(clock, "a" * 32))
    await other.put(entry(clock, "b" * 32, scope="u"))
    await settled(one, other)
    assert set(await one.purge(Selector())) == {"a" * 32, "b" * 32}
    await settled(one, other)
    assert await bodies(other, clock, "a" * 32, "b" * 32) == [None, None]
    assert (await other.stats()).entries == 0
    assert await bodies(await another(), clock, "a" * 32, "b" * 32) == [None, None]


async def test_what_another_one_removed_is_a_miss_before_it_is_seen_and_no_fault(
    another: Another, clock: FakeClock
) -> None:
    one, other = await another(), await another()
    await one.put(entry(clock, "a" * 32))
    await settled(one, other)
    await one.purge(Selector())
    with capture_logs() as told:
        assert await bodies(other, clock, "a" * 32) == [None]
    assert told == []


async def test_what_waits_to_be_written_elsewhere_isnt_seen_again_after_its_purge(
    another: Another, clock: FakeClock
) -> None:
    one, other = await another(), await another()
    await other.put(entry(clock, "a" * 32))
    await asyncio.gather(one.purge(Selector()), other.purge(Selector()))
    await settled(one, other)
    assert await bodies(one, clock, "a" * 32) + await bodies(other, clock, "a" * 32) == [None, None]


async def test_of_two_under_one_key_all_keep_the_same(another: Another, clock: FakeClock) -> None:
    stores = [await another() for _ in range(3)]
    for _ in range(20):
        await asyncio.gather(*(one.put(entry(clock, "a" * 32, b"%d" % i)) for i, one in enumerate(stores)))
        await settled(*stores)
        await settled(*stores)  # what lost is removed by whoever saw it
        assert len({(await bodies(one, clock, "a" * 32))[0] for one in stores}) == 1
        assert {(await one.stats()).entries for one in stores} == {1}
    assert await bodies(await another(), clock, "a" * 32) == await bodies(stores[0], clock, "a" * 32)


async def test_whoever_puts_evicts_and_nobody_else(another: Another, clock: FakeClock) -> None:
    one, other = await another(max_entries=10), await another(max_entries=10)
    for number in range(30):
        await one.put(entry(clock, f"{number:032d}"))
        await settled(one, other)
    await settled(one, other)
    assert (await one.stats()).evicted == 20 and (await other.stats()).evicted == 0
    kept = [f"{number:032d}" for number in range(20, 30)]
    assert None not in await bodies(one, clock, *kept) + await bodies(other, clock, *kept)


async def test_who_falls_behind_the_log_of_removals_looks_at_all_rows(
    another: Another, clock: FakeClock, tmp_path: Path
) -> None:
    one, other = await another(), await another()
    for key in ("a" * 32, "b" * 32):
        await one.put(entry(clock, key))
    await settled(one, other)
    with closing(sqlite3.connect(tmp_path / "answers.db", timeout=5)) as db, db:
        db.execute("delete from entries where key = ?", ("a" * 32,))
        db.executemany("insert into removals (row) values (?)", [(10**6 + at,) for at in range(5)])
        db.execute("delete from removals where seq < 5")
    await settled(other)
    assert await bodies(other, clock, "a" * 32, "b" * 32) == [None, b"{}"]


async def test_a_file_that_another_one_moved_aside_is_not_moved_again(
    another: Another, clock: FakeClock, tmp_path: Path
) -> None:
    one, other = await another(), await another()
    await one.put(entry(clock, "a" * 32, b"old"))
    await settled(one, other)
    damaged = (tmp_path / "answers.db").stat().st_ino
    for store in (one, other):
        store._shared._start_anew("as if a page could not be read")
        await store.put(entry(clock, "b" * 32, b"new"))
        await store.flush()
    await settled(one, other)
    assert (tmp_path / "answers.db.corrupt").stat().st_ino == damaged
    assert await bodies(one, clock, "b" * 32) + await bodies(other, clock, "b" * 32) == [b"new", b"new"]
