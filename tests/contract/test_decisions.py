"""One promise, three stores of decisions: memory alone, memory over SQLite, and a real Valkey."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from farthing.cache.store_redis import RedisStore
from farthing.compress.decided import LEFT, LOST, Decision, chain, first_new, tenant_tag
from farthing.compress.decided_disk import FileDecisions
from farthing.compress.decided_redis import RedisDecisions
from farthing.compress.decided_store import Decisions, Found, Settled, settle
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import StoreFault
from tests.fakes.decisions import TTL_S, Opened
from tests.fakes.valkey import ValkeyProcess

KEYS = chain("t", "p", [{"role": "user", "content": str(n)} for n in range(5)])
OTHERS = chain("u", "p", [{"role": "user", "content": str(n)} for n in range(5)])
SHORT = Decision(("short", None), ("rows", "table"), (12, 5))
Make = Callable[[], Awaitable[Decisions]]


@pytest.fixture
def make(opened: Opened) -> Make:
    return opened.another


async def written(store: Decisions) -> None:
    """Until others can see what was put."""
    if isinstance(store, FileDecisions):
        await store.flush()


async def test_gives_back_what_was_put_and_nothing_else(make: Make) -> None:
    store = await make()
    long = Decision(("x" * 300_000, None, "\ud800 lone", "ä\x00"), ("log",), (-3,))

    assert await store.get_many(KEYS) == Found([None] * 5)
    assert await store.put_many([(KEYS[0], SHORT), (KEYS[2], LEFT), (KEYS[3], long)]) == [SHORT, LEFT, long]
    assert await store.get_many(KEYS) == Found([SHORT, None, LEFT, long, None])
    assert await store.get_many([KEYS[2], KEYS[2]]) == Found([LEFT, LEFT])
    assert await store.get_many(OTHERS) == Found([None] * 5)
    assert await store.get_many([]) == Found([])


async def test_the_first_decision_wins(make: Make) -> None:
    store = await make()
    await store.put_many([(KEYS[0], SHORT)])

    assert await store.put_many([(KEYS[0], LOST), (KEYS[1], LOST)]) == [SHORT, LOST]
    assert await store.get_many(KEYS[:2]) == Found([SHORT, LOST])


async def test_another_process_sees_it_and_takes_it_over(make: Make) -> None:
    store = await make()
    await store.put_many([(KEYS[0], SHORT)])
    await written(store)

    other = await make()
    await other.put_many([(KEYS[0], LOST)])
    await written(other)
    assert await other.get_many(KEYS[:1]) == Found([SHORT])


async def test_two_that_race_end_with_one_decision(make: Make) -> None:
    one, two = await make(), await make()

    async def decide(store: Decisions, rule: str) -> None:
        await store.put_many([(key, Decision((rule,), (rule,))) for key in KEYS])

    await asyncio.gather(decide(one, "a"), decide(two, "b"))
    await written(one)
    await written(two)
    found = await one.get_many(KEYS)
    assert None not in found.decisions
    assert await two.get_many(KEYS) == found


async def test_replicas_that_race_send_the_same_in_every_request(make: Make) -> None:
    one, two = await make(), await make()
    if isinstance(one, FileDecisions):
        pytest.skip("one process has the file")
    turns: list[dict[str, str]] = [{"role": "user", "content": "go"}]
    sent: dict[int, Decision] = {}

    async def ask(store: Decisions, rule: str) -> dict[int, Settled]:
        async def decide(new: list[int], known: dict[int, Decision]) -> list[Decision]:
            return [Decision((f"{rule} {number}",), (rule,)) for number in new]

        results = [number for number, turn in enumerate(turns) if turn["role"] == "tool"]
        return await settle(store, chain("t", "p", turns), results, first_new("chat", turns), decide)

    for number in range(20):
        turns += [
            {"role": "assistant", "content": "a"},
            *({"role": "tool", "content": f"{number}"},) * (1 + number % 3),
        ]
        first, second = await asyncio.gather(ask(one, "a"), ask(two, "b"))
        decided = {turn: done.decision for turn, done in first.items()}
        assert decided == {turn: done.decision for turn, done in second.items()}
        assert sent == {turn: decided[turn] for turn in sent}
        sent = decided
    assert len(sent) == 39


async def test_lives_as_long_as_it_is_used_and_its_time_beyond(make: Make, clock: FakeClock, valkey: Any) -> None:
    store = await make()
    if isinstance(store, RedisDecisions):
        pytest.skip("the server's own clock: test_redis_prolongs_by_reading")
    await store.put_many([(KEYS[0], SHORT), (KEYS[1], SHORT)])
    for _ in range(5):
        await written(store)
        clock.advance(0.7 * TTL_S)
        assert (await store.get_many(KEYS[:1])).decisions == [SHORT]
    assert (await store.get_many(KEYS[1:2])).decisions == [None]
    await written(store)
    clock.advance(TTL_S)
    assert (await store.get_many(KEYS[:1])).decisions == [None]
    assert await store.put_many([(KEYS[0], LOST)]) == [LOST]
    await written(store)
    assert (await (await make()).get_many(KEYS[:1])).decisions == [LOST]


async def test_forgets_one_tenants_only(make: Make) -> None:
    store = await make()
    await store.put_many([(key, SHORT) for key in (*KEYS, *OTHERS)])
    await written(store)
    await store.put_many([])
    await store.forget(tenant_tag("t"))

    assert (await store.get_many(KEYS)).decisions == [None] * 5
    assert (await store.get_many(OTHERS)).decisions == [SHORT] * 5
    await written(store)
    assert (await (await make()).get_many((*KEYS, *OTHERS))).decisions == [None] * 5 + [SHORT] * 5


async def test_forgets_everybodys(make: Make) -> None:
    store = await make()
    await store.put_many([(key, SHORT) for key in (*KEYS, *OTHERS)])
    await store.forget(b"")

    assert (await store.get_many((*KEYS, *OTHERS))).decisions == [None] * 10
    await written(store)
    assert (await (await make()).get_many((*KEYS, *OTHERS))).decisions == [None] * 10


async def test_closes_twice(make: Make) -> None:
    store = await make()
    await store.close()
    await store.close()


async def test_redis_prolongs_by_reading_and_knows_when_it_is_away(clock: FakeClock) -> None:
    with ValkeyProcess() as own:
        server = RedisStore(own.url, deadline_ms=300, clock=clock)
        store = RedisDecisions(server, clock=clock, ttl_s=TTL_S, memory_bytes=10**6, hold_s=60)
        await store.put_many([(KEYS[0], SHORT)])
        name = f"farthing:d:{KEYS[0].hex()}"
        own.command(f"PEXPIRE {name} 5000")
        assert (await store.get_many(KEYS[:1])).decisions == [SHORT]
        assert int(own.command(f"PTTL {name}")[1:]) <= 5000, "it was at hand"
        clock.advance(61)
        assert (await store.get_many(KEYS[:1])).decisions == [SHORT]
        assert int(own.command(f"PTTL {name}")[1:]) > 5000

        own.kill()
        assert await store.get_many(KEYS[:2]) == Found([SHORT, None], away=True)
        with pytest.raises(StoreFault):
            await store.put_many([(KEYS[1], SHORT)])
        own.start()
        clock.advance(61)
        assert await store.get_many(KEYS[:2]) == Found([None, None])
        await server.close()


async def test_a_damaged_value_is_no_decision_and_makes_room(tmp_path: Path, clock: FakeClock, valkey: Any) -> None:
    import sqlite3

    valkey.command("FLUSHALL")
    valkey.command(f"SET farthing:d:{KEYS[0].hex()} rubbish")
    server = RedisStore(valkey.url, deadline_ms=2000, clock=clock)
    redis = RedisDecisions(server, clock=clock, ttl_s=TTL_S, memory_bytes=0)
    path = tmp_path / "decided.db"

    async def file() -> FileDecisions:
        made = FileDecisions(path, clock=clock, ttl_s=TTL_S, max_bytes=10**7, memory_bytes=0, flush_ms=1)
        await made.open()
        return made

    first = await file()
    await first.put_many([(KEYS[0], SHORT)])
    await first.close()
    with sqlite3.connect(path) as db:
        db.execute("UPDATE decided SET value = substr(value, 1, length(value) - 1) || x'00'")
    db.close()
    for store in (redis, await file()):
        assert await store.get_many(KEYS[:1]) == Found([None])
        assert await store.put_many([(KEYS[0], LOST)]) == [LOST]
        await written(store)
        assert await store.get_many(KEYS[:1]) == Found([LOST])
        await store.close()
    await server.close()
