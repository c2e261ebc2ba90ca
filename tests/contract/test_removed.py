"""What was left out, over three stores: memory alone, SQLite, and a real Valkey."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from farthing.cache.store_redis import RedisStore
from farthing.compress.decided import tenant_tag
from farthing.compress.decided_disk import FileDecisions
from farthing.compress.decided_redis import RedisDecisions
from farthing.compress.removed import Handles, Removed
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import StoreFault
from tests.fakes.decisions import TTL_S, Opened
from tests.fakes.valkey import ValkeyProcess

ONE, TWO = Handles(b"s" * 32, "one"), Handles(b"s" * 32, "two")
LONG = "x" * 300_000
Make = Callable[[], Awaitable[Removed]]


@pytest.fixture
def make(opened: Opened) -> Make:
    async def another() -> Removed:
        store = await opened.another()
        return Removed(store, store.flush if isinstance(store, FileDecisions) else None)

    return another


async def test_what_is_kept_can_be_had_at_once_by_every_process_and_by_nobody_else(make: Make) -> None:
    store, other = await make(), await make()
    texts = ["short", LONG, "\ud800 lone", "ä\x00", ""]
    await store.keep("one", {ONE.of(text): text for text in texts})
    for text in texts:
        assert await store.get("one", ONE.of(text)) == text
        assert await other.get("one", ONE.of(text)) == text
        assert await store.get("two", ONE.of(text)) is None
        assert await store.get("two", TWO.of(text)) is None
    await store.keep("one", {ONE.of("short"): "short"})
    await store.keep("one", {})
    assert await store.get("one", ONE.of("short")) == "short"


@pytest.mark.parametrize("handle", ["", "a", "?" * 16, "A" * 16, "a" * 17, "ä" * 16, "a" * 16, "a" * 15 + "\n"])
async def test_what_is_no_handle_of_ours_gives_nothing(make: Make, handle: str) -> None:
    store = await make()
    await store.keep("one", {ONE.of("x"): "x"})
    assert await store.get("one", handle) is None


async def test_it_is_kept_for_its_time_after_the_last_use(make: Make, clock: FakeClock, valkey: Any) -> None:
    store = await make()
    await store.keep("one", {ONE.of("x"): "x", ONE.of("y"): "y"})
    if isinstance(store._store, RedisDecisions):  # the server's own clock
        name = f"farthing:d:{tenant_tag('one').hex()}{ONE.of('x').encode().hex()}"
        assert 0 < int(valkey.command(f"PTTL {name}")[1:]) <= TTL_S * 1000
        return
    for _ in range(3):
        clock.advance(0.7 * TTL_S)
        await store.keep("one", {ONE.of("x"): "x"})
    assert await store.get("one", ONE.of("x")) == "x"
    assert await store.get("one", ONE.of("y")) is None


async def test_one_tenants_pieces_are_forgotten_alone(make: Make) -> None:
    store = await make()
    await store.keep("one", {ONE.of("x"): "x"})
    await store.keep("two", {TWO.of("x"): "x"})
    await store.forget("one")
    assert await store.get("one", ONE.of("x")) is None
    assert await store.get("two", TWO.of("x")) == "x"


async def test_what_can_not_be_kept_is_said(tmp_path: Path, clock: FakeClock) -> None:
    with ValkeyProcess() as own:
        server = RedisStore(own.url, deadline_ms=300, clock=clock)
        redis = Removed(RedisDecisions(server, clock=clock, ttl_s=TTL_S, memory_bytes=0))
        await redis.keep("one", {ONE.of("x"): "x"})
        own.kill()
        with pytest.raises(StoreFault):
            await redis.keep("one", {ONE.of("y"): "y"})
        assert await redis.get("one", ONE.of("x")) is None
        await server.close()
    file = FileDecisions(
        tmp_path / "removed.db", clock=clock, ttl_s=TTL_S, max_bytes=10**7, memory_bytes=0, pending_bytes=10**5
    )
    await file.open()
    with pytest.raises(StoreFault):
        await Removed(file, file.flush).keep("one", {ONE.of(LONG): LONG})
    await file.close()


def test_a_handle_is_the_tenants_own_and_always_the_same() -> None:
    assert ONE.of("x") == Handles(b"s" * 32, "one").of("x")
    assert len({ONE.of("x"), ONE.of("y"), TWO.of("x"), Handles(b"t" * 32, "one").of("x")}) == 4
