"""The embedded store: its bounds, its disk's failures, and what is left after kill -9."""

from __future__ import annotations

import asyncio
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from farthing.cache.codec import encode
from farthing.cache.disk import connect
from farthing.cache.entry import Entry
from farthing.cache.store import Selector
from farthing.cache.store_local import LocalStore
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import StoreFault

CLOCK = FakeClock()
NOW_S = CLOCK.now_s()
ROOM = 1024  # what an entry counts beside its body


def entry(number: int, body: bytes = b"{}", *, ttl_s: float = 60, scope: str = "t") -> Entry:
    return Entry(
        f"{number:032x}", scope, "chat", "m", "m", "whole", "application/json", body, None, NOW_S, NOW_S + ttl_s
    )


async def opened(path: Path | None, clock: FakeClock = CLOCK, **options: object) -> LocalStore:
    settings: dict[str, object] = {
        "memory_bytes": 10**7,
        "max_bytes": 10**8,
        "max_entries": 1000,
        "flush_ms": 1,
    } | options
    store = LocalStore(path, clock=clock, **settings)  # type: ignore[arg-type]
    await store.open()
    return store


async def held(store: LocalStore, *numbers: int) -> list[bool]:
    return [await store.get(f"{number:032x}", NOW_S) is not None for number in numbers]


async def until(true: Callable[[], bool], seconds: float = 5) -> None:
    for _ in range(int(seconds / 0.01)):
        if true():
            return
        await asyncio.sleep(0.01)
    raise AssertionError(f"not within {seconds} s")


def rows(path: Path) -> int:
    with sqlite3.connect(path) as db:
        (count,) = db.execute("SELECT COUNT(*) FROM entries").fetchone()
        assert db.execute("SELECT COUNT(*) FROM bodies").fetchone() == (count,)
    db.close()
    return int(count)


@pytest.mark.parametrize("on_disk", [False, True])
async def test_the_least_recently_used_goes_first(tmp_path: Path, on_disk: bool) -> None:
    store = await opened(tmp_path / "a.db" if on_disk else None, max_entries=3)
    for number in (1, 2, 3):
        await store.put(entry(number))
    await store.get(f"{1:032x}", NOW_S)
    await store.put(entry(4))
    assert await held(store, 1, 2, 3, 4) == [True, False, True, True]
    assert (await store.stats()).evicted == 1
    await store.close()
    if on_disk:
        assert rows(tmp_path / "a.db") == 3


@pytest.mark.parametrize("on_disk", [False, True])
async def test_bytes_are_bounded(tmp_path: Path, on_disk: bool) -> None:
    store = await opened(tmp_path / "a.db" if on_disk else None, max_bytes=10 * (ROOM + 100))
    for number in range(30):
        await store.put(entry(number, b"x" * 100))
        assert (await store.stats()).bytes <= 10 * (ROOM + 100)
    assert await held(store, *range(30)) == [False] * 20 + [True] * 10
    with pytest.raises(StoreFault, match="larger"):
        await store.put(entry(99, b"x" * 12_000))
    await store.close()


async def test_memory_is_bounded_and_cold_entries_come_from_disk(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db", memory_bytes=5 * (ROOM + 100))
    entries = [entry(number, bytes([number]) * 100) for number in range(20)]
    for each in entries:
        await store.put(each)
    for each in entries * 2:
        assert await store.get(each.key, NOW_S) == each
        stats = await store.stats()
        assert stats.memory_entries <= 5 and stats.memory_bytes <= 5 * (ROOM + 100) and stats.entries == 20
    await store.close()


async def test_survives_a_restart_newest_version_only(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    await store.put(entry(1, b"old"))
    await store.put(entry(2, ttl_s=5))
    await store.put(entry(3))
    await store._disk.flush()  # type: ignore[union-attr]
    await store.put(entry(1, b"new"))
    await store.purge(Selector(key=f"{3:032x}"))
    await store.close()
    store = await opened(tmp_path / "a.db", FakeClock(NOW_S + 10))
    assert (await store.stats()).entries == 1
    assert await store.get(f"{1:032x}", NOW_S) == entry(1, b"new")
    await store.close()
    assert rows(tmp_path / "a.db") == 1


async def test_expired_entries_leave_by_themselves(tmp_path: Path) -> None:
    clock = FakeClock()
    store = await opened(tmp_path / "a.db", clock)
    for number in range(700):
        await store.put(entry(number, ttl_s=30))
    await store.put(entry(700, ttl_s=3000))
    clock.advance(60)
    await until(lambda: len(store._index) == 1)
    await store.close()
    assert rows(tmp_path / "a.db") == 1


async def test_a_purge_beats_a_pending_write_and_lasts(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db", flush_ms=100)
    await store.put(entry(1))
    assert await store.purge(Selector()) == (f"{1:032x}",)
    assert rows(tmp_path / "a.db") == 0  # before the close, after the purge: durable
    await store.put(entry(1, b"again"))
    assert await held(store, 1) == [True]
    await store.close()


async def test_a_read_under_way_does_not_outlive_a_purge(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db", memory_bytes=0)
    for _ in range(50):
        await store.put(entry(1))
        await store._disk.flush()  # type: ignore[union-attr]
        reading = asyncio.gather(store.get(f"{1:032x}", NOW_S))
        await asyncio.sleep(0)
        store._drop(store._index[f"{1:032x}"])  # what purge does, at the worst moment
        assert await reading == [None]
    await store.close()


async def test_any_interleaving_gives_what_was_put_last(tmp_path: Path) -> None:
    """Against a dictionary, with a memory too small, a tiny write queue's worth of batches and a busy writer."""
    chance = random.Random(7)
    store = await opened(tmp_path / "a.db", memory_bytes=3 * (ROOM + 50), flush_ms=0.1)
    truth: dict[int, bytes] = {}
    for step in range(1500):
        number = chance.randrange(12)
        match chance.choice("ppggggx"):
            case "p":
                truth[number] = f"{number}-{step}".encode()
                await store.put(entry(number, truth[number]))
            case "g":
                found = await store.get(f"{number:032x}", NOW_S)
                assert (found and found.body) == truth.get(number)
            case _:
                if step % 5 == 0:
                    truth.pop(number, None)
                    await store.purge(Selector(key=f"{number:032x}"))
    await store.close()
    store = await opened(tmp_path / "a.db")
    assert {n: e.body for n in range(12) if (e := await store.get(f"{n:032x}", NOW_S))} == truth
    await store.close()
    assert rows(tmp_path / "a.db") == len(truth)


@pytest.mark.parametrize("damage", ["text", "cut", "version"])
async def test_a_file_that_cannot_be_read_is_moved_aside(tmp_path: Path, damage: str) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    for number in range(200):
        await store.put(entry(number, b"x" * 2000))
    await store.close()
    if damage == "text":
        path.write_bytes(b"this is no database, and long enough to be looked at" * 100)
    elif damage == "cut":
        path.write_bytes(path.read_bytes()[:8192] + b"\xff" * 60_000)
    else:
        with sqlite3.connect(path) as db:
            db.execute("PRAGMA user_version = 99")
        db.close()
    with capture_logs() as logs:
        store = await opened(path)
        await store.put(entry(7, b"fresh"))
        await store._disk.flush()  # type: ignore[union-attr]
    assert [line["event"] for line in logs] == ["the store's file can't be read: moved aside, starting anew"]
    assert (tmp_path / "a.db.corrupt").exists() and (await store.stats()).healthy
    await store.close()
    assert rows(path) == 1


async def test_a_damaged_body_is_a_miss_and_goes(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    await store.put(entry(1))
    await store.put(entry(2))
    await store.close()
    with sqlite3.connect(path) as db:
        (raw,) = db.execute("SELECT bytes FROM bodies WHERE id = 1").fetchone()
        db.execute("UPDATE bodies SET bytes = ? WHERE id = 1", (raw[:-1] + b"]",))
    db.close()
    store = await opened(path)
    with capture_logs() as logs:
        assert await held(store, 1, 2, 1) == [False, True, False]
    assert len(logs) == 1
    await store.close()
    assert rows(path) == 1


async def test_another_entrys_body_in_the_row_is_a_miss(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    await store.put(entry(1))
    await store.put(entry(2))
    await store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE bodies SET bytes = (SELECT bytes FROM bodies WHERE id = 2) WHERE id = 1")
    db.close()
    store = await opened(path)
    assert await held(store, 1, 2) == [False, True]
    await store.close()


async def test_a_locked_disk_is_told_once_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    await store.put(entry(1))
    await store._disk.flush()  # type: ignore[union-attr]
    blocker = sqlite3.connect(path, isolation_level=None)
    blocker.execute("BEGIN IMMEDIATE")
    with capture_logs() as logs:
        await store.put(entry(2))
        await until(lambda: not store._disk.healthy)  # type: ignore[union-attr]
        await store.put(entry(3))
        assert await held(store, 1, 2, 3) == [True] * 3
        assert not (await store.stats()).healthy
        with pytest.raises(StoreFault):
            await store.purge(Selector(key=f"{1:032x}"))
        assert await held(store, 1) == [False]
        blocker.execute("ROLLBACK")
        blocker.close()
        await until(lambda: store._disk.healthy, 10)  # type: ignore[union-attr]
    assert [line["log_level"] for line in logs] == ["error", "warning"]
    await store.close()
    assert rows(path) == 2


async def test_a_full_disk_is_told_once_and_recovers(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    pages = [40]

    def small_disk(where: Path) -> sqlite3.Connection:
        db = connect(where)
        db.execute(f"PRAGMA max_page_count = {pages[0]}")  # SQLite then says SQLITE_FULL, as for a full disk
        return db

    noise = random.Random(1).randbytes(20_000)
    store = await opened(path, connect=small_disk, pending_bytes=500_000)
    with capture_logs() as logs:
        for number in range(60):
            await store.put(entry(number, noise))
        await until(lambda: not store._disk.healthy)  # type: ignore[union-attr]
        for number in range(60, 100):
            await store.put(entry(number, noise))
        assert await held(store, *range(100)) == [True] * 100  # all of it, from memory
        assert store._disk._pending_bytes <= 500_000  # type: ignore[union-attr]
        pages[0] = 100_000
        await until(lambda: store._disk.healthy, 10)  # type: ignore[union-attr]
    assert [line["log_level"] for line in logs] == ["error", "warning"]
    await store.close()
    assert rows(path) > 20


async def test_a_state_directory_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "state").write_text("a file where a directory should be")
    store = await opened(tmp_path / "state" / "a.db")
    await store.put(entry(1))
    assert await held(store, 1) == [True]
    assert not (await store.stats()).healthy
    await store.close()


WRITER = """
import asyncio, sys, time
from pathlib import Path
from farthing.cache.entry import Entry
from farthing.cache.store import Selector
from farthing.cache.store_local import LocalStore
from farthing.proxy.clock import SystemClock

async def main(path, start):
    store = LocalStore(path, clock=SystemClock(), memory_bytes=10**6, max_bytes=10**7, max_entries=300, flush_ms=2)
    await store.open()
    now = time.time()
    for number in range(start, start + 10**6):
        body = f"{number % 400}:{number}|".encode() * (1 + number % 900)
        await store.put(Entry(f"{number % 400:032x}", "t", "chat", "m", "m", "whole", "t", body, None, now, now + 999))
        if number % 50 == 0:
            await store._disk.flush()
            print(number, flush=True)
        await asyncio.sleep(0)

asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2])))
"""


@pytest.mark.long  # chaos-short kills a whole farthing while it writes
async def test_killed_20_times_while_writing_nothing_wrong_is_served(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    chance = random.Random(3)
    start = 0
    for _ in range(20):
        process = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(path), str(start)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        assert process.stdout is not None and process.stderr is not None
        first = process.stdout.readline()
        time.sleep(chance.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        out, errors = process.communicate()
        assert not errors
        flushed = int((first + out).decode().rsplit("\n", 1)[0].split()[-1])
        store = await opened(path, FakeClock(time.time()))
        stats = await store.stats()
        assert 0 < stats.entries <= 300 and stats.healthy
        for number in range(400):
            found = await store.get(f"{number:032x}", time.time())
            if found is not None:
                unit = found.body[: found.body.index(b"|") + 1]
                version = int(unit[:-1].partition(b":")[2])
                assert unit == f"{number}:{version}|".encode() and found.body == unit * (1 + version % 900)
        # What was told as flushed is there.
        assert await store.get(f"{flushed % 400:032x}", time.time()) is not None
        await store.close()
        start = flushed + 1
    assert not (tmp_path / "a.db.corrupt").exists()


async def test_two_stores_on_one_file_never_mix_their_entries(tmp_path: Path) -> None:
    one = await opened(tmp_path / "a.db", memory_bytes=0)
    two = await opened(tmp_path / "a.db", memory_bytes=0)
    for number in range(100):
        await one.put(entry(number, b"one"))
        await two.put(entry(number, b"two"))
    await one._disk.flush()  # type: ignore[union-attr]
    await two._disk.flush()  # type: ignore[union-attr]
    for number in range(100):
        assert await one.get(f"{number:032x}", NOW_S) == entry(number, b"one")
        assert await two.get(f"{number:032x}", NOW_S) == entry(number, b"two")
    await one.close()
    await two.close()


async def test_a_miss_and_a_hot_hit_cost_microseconds_with_many_keys() -> None:
    store = await opened(None, max_entries=50_000, memory_bytes=10**9, max_bytes=10**9)
    for number in range(20_000):
        await store.put(entry(number))

    async def best_us(key: str) -> float:
        times = []
        for _ in range(5):
            before = time.perf_counter()
            for _ in range(2000):
                await store.get(key, NOW_S)
            times.append((time.perf_counter() - before) / 2000 * 1e6)
        return min(times)

    assert await best_us("unknown") < 2
    assert await best_us(f"{77:032x}") < 2
    await store.close()


async def test_an_entry_that_no_row_can_hold_lives_in_memory(tmp_path: Path) -> None:
    store = await opened(tmp_path / "a.db")
    odd = entry(1)._replace(scope="\udcff")
    await store.put(odd)
    await store.put(entry(2))
    await store._disk.flush()  # type: ignore[union-attr]
    assert await store.get(odd.key, NOW_S) == odd
    await store.close()
    assert rows(tmp_path / "a.db") == 1


VERSION_1 = """
CREATE TABLE entries (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, scope TEXT NOT NULL, model_requested TEXT NOT NULL,
  model_served TEXT NOT NULL, size INTEGER NOT NULL, expires_s REAL NOT NULL);
CREATE TABLE bodies (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
PRAGMA user_version = 1;
"""


async def test_a_file_of_version_1_opens_with_its_answers_their_times_and_tags(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    many = (*((f"t{n}", "x" * 250) for n in range(15)), ("source", "a"))
    tags: list[tuple[tuple[str, str], ...]] = [(), (("source", "kb-17"),), many]
    tagged = [entry(number)._replace(stored_s=NOW_S - number, tags=each) for number, each in enumerate(tags)]
    with sqlite3.connect(path) as db:
        db.executescript(VERSION_1)
        for number, one in enumerate(tagged, 1):
            labels = (one.key, one.scope, one.model_requested, one.model_served, ROOM, one.expires_s)
            db.execute("INSERT INTO entries VALUES (?, ?, ?, ?, ?, ?, ?)", (number, *labels))
            db.execute("INSERT INTO bodies VALUES (?, ?)", (number, encode(one)))
        db.execute("INSERT INTO entries VALUES (9, 'damaged', '', '', '', 1, 1e12)")
        db.execute("INSERT INTO bodies VALUES (9, x'00')")
    db.close()

    for _ in range(2):  # the second time it is of the new version
        store = await opened(path)
        assert (await store.stats()).entries == 4
        assert [await store.get(one.key, NOW_S) for one in tagged] == tagged
        await store.close()
        store = await opened(path)
        assert (await store.stats()).entries == 4
        await store.close()
    store = await opened(path)
    assert await store.purge(Selector(tags=(("source", "a"),))) == (tagged[2].key,)
    assert await store.purge(Selector(tags=(("source", "kb-17"),), stored_before_s=NOW_S)) == (tagged[1].key,)
    assert set(await store.purge(Selector(stored_before_s=NOW_S))) == {"damaged"}
    await store.close()


async def test_a_file_of_version_2_opens_and_namespaces_survive_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    await store.put(entry(1))
    await store.close()
    with sqlite3.connect(path) as db:
        db.execute("ALTER TABLE entries DROP COLUMN namespace")
        db.execute("PRAGMA user_version = 2")
    db.close()
    store = await opened(path)
    assert await store.get(f"{1:032x}", NOW_S) == entry(1)
    await store.put(entry(2)._replace(namespace="shop"))
    await store.close()
    store = await opened(path)
    assert await store.purge(Selector(namespace="shop")) == (f"{2:032x}",)
    assert (await store.stats()).entries == 1
    await store.close()


async def test_tags_survive_a_restart_and_damaged_ones_are_none(tmp_path: Path) -> None:
    path = tmp_path / "a.db"
    store = await opened(path)
    for number in range(3):
        await store.put(entry(number)._replace(tags=(("source", "kb\ud800" if number == 2 else "kb"),)))
    await store.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE entries SET tags = '{' WHERE key = ?", (f"{0:032x}",))
    db.close()
    store = await opened(path)
    assert await store.purge(Selector(tags=(("source", "kb"),))) == (f"{1:032x}",)
    assert await store.purge(Selector(tags=(("source", "kb\ud800"),))) == (f"{2:032x}",)
    await store.close()
