"""The file of decisions where the disk fails, is full of rubbish, or has to make room."""

from __future__ import annotations

import asyncio
import sqlite3
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from pathlib import Path

import pytest

from farthing.compress.decided import Decision, chain
from farthing.compress.decided_disk import FileDecisions
from farthing.compress.decided_store import Found
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import StoreFault

KEYS = chain("t", "p", [{"content": str(n)} for n in range(2000)])
OTHERS = chain("u", "p", [{}])
SHORT = Decision(("short",), ("rows",), (5,))
Open = Callable[..., Awaitable[FileDecisions]]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "decided.db"


@pytest.fixture
async def opened(path: Path) -> AsyncIterator[Open]:
    made: list[FileDecisions] = []

    async def another(clock: FakeClock | None = None, **bounds: float) -> FileDecisions:
        sizes = {"max_bytes": 10**7, "memory_bytes": 0, "flush_ms": 1, "ttl_s": 1000} | bounds
        made.append(FileDecisions(path, clock=clock or FakeClock(), **sizes))  # type: ignore[arg-type]
        await made[-1].open()
        return made[-1]

    yield another
    for store in made:
        await store.close()


async def test_nobody_else_may_read_it(path: Path, opened: Open) -> None:
    await opened()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_what_was_put_is_there_after_a_kill_once_it_was_flushed(path: Path, opened: Open) -> None:
    store = await opened()
    await store.put_many([(KEYS[0], SHORT)])
    assert await store.get_many(KEYS[:1]) == Found([SHORT]), "before it is written"
    await store.flush()
    await store.flush()
    assert await (await opened()).get_many(KEYS[:1]) == Found([SHORT])


@pytest.mark.parametrize("rubbish", [b"no database", b"", b"SQLite format 3\x00" + b"\xff" * 5000])
async def test_a_file_that_cant_be_read_is_moved_aside(path: Path, opened: Open, rubbish: bytes) -> None:
    path.parent.mkdir()
    path.write_bytes(rubbish)
    store = await opened()
    await store.put_many([(KEYS[0], SHORT)])
    await store.flush()

    assert await (await opened()).get_many(KEYS[:1]) == Found([SHORT])
    assert path.with_name("decided.db.corrupt").exists() is bool(rubbish)


async def test_a_file_of_another_version_is_moved_aside(path: Path, opened: Open) -> None:
    path.parent.mkdir()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA user_version = 99")
    await opened()
    assert path.with_name("decided.db.corrupt").exists()


async def test_pages_that_break_while_it_runs_cost_what_was_there(path: Path, opened: Open) -> None:
    store = await opened()
    await store.put_many([(key, Decision(("x" * 5000,))) for key in KEYS[:50]])
    await store.flush()
    with closing(sqlite3.connect(path)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    with path.open("r+b") as file:
        file.write(b"\xff" * path.stat().st_size)
    other = await opened()
    await other.put_many([(KEYS[0], SHORT)])
    await other.flush()
    assert (await other.get_many(KEYS[:1])).decisions == [SHORT]


async def test_a_locked_disk_takes_nothing_new_and_works_again(path: Path, opened: Open) -> None:
    store = await opened(memory_bytes=10**6)
    await store.put_many([(KEYS[0], SHORT)])
    await store.flush()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        await store.put_many([(KEYS[1], SHORT)])
        with pytest.raises(StoreFault):
            await store.flush()
        with pytest.raises(StoreFault):
            await store.put_many([(KEYS[2], SHORT)])
        assert await store.get_many(KEYS[:3]) == Found([SHORT, SHORT, None])
        with pytest.raises(StoreFault):
            await store.forget(OTHERS[0][:8])
        other.execute("ROLLBACK")
    for _ in range(1000):
        try:
            await store.put_many([(KEYS[2], SHORT)])
            break
        except StoreFault:
            await asyncio.sleep(0.01)
    await store.flush()
    assert await (await opened()).get_many(KEYS[:3]) == Found([SHORT, SHORT, SHORT])


async def test_a_disk_that_isnt_there_is_away(path: Path, opened: Open) -> None:
    path.parent.write_text("a file where the folder should be")
    store = await opened()
    assert await store.get_many(KEYS[:2]) == Found([None, None], away=True)
    with pytest.raises(StoreFault):
        await store.put_many([(KEYS[0], SHORT)])


async def test_what_waits_is_bounded(opened: Open) -> None:
    store = await opened(pending_bytes=1000, flush_ms=10_000)
    await store.put_many([(KEYS[0], SHORT)])
    with pytest.raises(StoreFault):
        await store.put_many([(KEYS[1], Decision(("x" * 1000,)))])
    assert await store.put_many([(KEYS[0], SHORT)]) == [SHORT]


async def test_the_longest_unused_leave_when_the_file_is_full(path: Path, opened: Open) -> None:
    clock = FakeClock()
    store = await opened(clock, max_bytes=2**20)
    long = Decision(("x" * 3000,))
    for at in range(0, 1000, 50):
        await store.put_many([(key, long) for key in KEYS[at : at + 50]])
        await store.flush()
        clock.advance(1)
    found = (await store.get_many(KEYS[:1000])).decisions
    kept = [number for number, decision in enumerate(found) if decision is not None]
    assert kept == list(range(kept[0], 1000))
    assert 100 < len(kept) < 350
    assert path.stat().st_size < 2 * 2**20


async def test_time_runs_out_by_the_clock(opened: Open) -> None:
    clock = FakeClock()
    store = await opened(clock, memory_bytes=10**6)
    await store.put_many([(KEYS[0], SHORT)])
    await store.flush()
    clock.advance(999)
    assert (await store.get_many(KEYS[:1])).decisions == [SHORT]
    await store.flush()
    clock.advance(999)
    assert (await (await opened(clock)).get_many(KEYS[:1])).decisions == [SHORT]


async def test_once_closed_it_gives_and_takes_nothing(opened: Open) -> None:
    store = await opened()
    await store.close()
    assert await store.get_many(KEYS[:1]) == Found([None], away=True)
    with pytest.raises(StoreFault):
        await store.put_many([(KEYS[0], SHORT)])
