"""One promise, six stores: memory alone, memory over SQLite (alone, or with others), a real Valkey, one behind
sentinels, and a cluster."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from farthing.cache.entry import Entry
from farthing.cache.store import Selector, Store
from farthing.cache.store_local import LocalStore
from farthing.cache.store_near import NearStore
from farthing.cache.store_redis import RedisStore
from farthing.cache.store_shared import SharedStore
from farthing.proxy.clock import FakeClock
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import Sealer
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.usage import Usage

KEY = "a" * 32
OTHER = "b" * 32


@pytest.fixture(
    params=[
        "memory",
        "file",
        "file, shared",
        "file, nothing hot",
        "redis",
        "file, nothing hot, sealed",
        "redis, sealed",
        "redis, memory before",
        "redis sentinels",
        "redis sentinels, memory before",
        "redis cluster",
        "redis cluster, memory before",
    ]
)
async def store(request: pytest.FixtureRequest, tmp_path: Path, clock: FakeClock) -> AsyncIterator[Store]:
    made: LocalStore | RedisStore | NearStore
    seal = Sealer([b"k" * 32], os.urandom) if "sealed" in request.param else None
    if request.param.startswith("redis"):
        kind = next((one for one in ("cluster", "sentinels") if one in request.param), "")
        server = request.getfixturevalue(f"valkey_{kind}".rstrip("_"))
        nodes = {"cluster": lambda: server.nodes, "sentinels": lambda: [server.primary]}.get(kind, lambda: [server])()
        for node in nodes:
            node.command("FLUSHALL")
        made = RedisStore(server.url, deadline_ms=2000, clock=clock, seal=seal)
        if "before" in request.param:
            made = NearStore(
                made, server.url, clock=clock, memory_bytes=10**7, max_entries=1000, stale_s=1.0, name="one",
                spawn=TaskGroup().spawn,
            )  # fmt: skip
    elif "shared" in request.param:
        made = SharedStore(
            tmp_path / "state" / "cache.db",
            clock=clock,
            memory_bytes=10**7,
            max_bytes=10**8,
            max_entries=1000,
            flush_ms=1,
            spawn=TaskGroup().spawn,
        )
    else:
        made = LocalStore(
            None if request.param == "memory" else tmp_path / "state" / "cache.db",
            clock=clock,
            memory_bytes=0 if "nothing" in request.param else 10**7,
            max_bytes=10**8,
            max_entries=1000,
            flush_ms=1,
            seal=seal,
        )
    await made.open()
    yield made
    await made.close()


def entry(clock: FakeClock, key: str = KEY, *, scope: str = "t", ttl_s: float = 60, body: bytes = b"{}") -> Entry:
    return Entry(
        key=key,
        scope=scope,
        endpoint="chat",
        model_requested="small",
        model_served="small-2026",
        shape="whole",
        content_type="application/json",
        body=body,
        usage=Usage(fresh=7, output=3),
        stored_s=clock.now_s(),
        expires_s=clock.now_s() + ttl_s,
        tags=(("team", "search"),),
    )


async def test_gives_back_what_was_put(store: Store, clock: FakeClock) -> None:
    for size in (0, 2, 5000, 300_000):
        put = entry(clock, body=b"word " * (size // 5))
        await store.put(put)
        assert await store.get(KEY, clock.now_s()) == put
    assert await store.get(OTHER, clock.now_s()) is None


async def test_large_answers_are_kept_replaced_and_purged_as_small_ones(store: Store, clock: FakeClock) -> None:
    """Of bytes that don't shrink: from where the shared store cuts them into pieces."""
    sizes = (10, 262_144, 3_000_000, 10, 700_000)
    bodies = [random.Random(number).randbytes(size) for number, size in enumerate(sizes)]
    for what in bodies:
        await store.put(entry(clock, body=what))
        found = await store.get(KEY, clock.now_s())
        assert found is not None and found.body == what
    await store.put_many([entry(clock, f"{KEY}.1", body=bodies[2]), entry(clock, OTHER, body=bodies[0], scope="u")])
    many = await store.get_many([f"{KEY}.1", OTHER, KEY], clock.now_s())
    assert [one and one.body for one in many] == [bodies[2], bodies[0], bodies[4]]
    assert set(await store.purge(Selector(key=KEY))) == {KEY, f"{KEY}.1"}
    assert await store.get_many([f"{KEY}.1", KEY], clock.now_s()) == [None, None]
    assert await store.purge(Selector(scope="u")) == (OTHER,)


async def test_many_at_once_are_as_one_by_one(store: Store, clock: FakeClock) -> None:
    many = [entry(clock, f"{number:032x}", body=b"%d" % number * 1000) for number in range(40)]
    many += [entry(clock, f"{KEY}.{variant}") for variant in ("1", "items")]
    await store.put_many([*many, entry(clock, OTHER, ttl_s=0)])
    keys = [OTHER, *(each.key for each in reversed(many)), "c" * 32, many[0].key]
    assert await store.get_many(keys, clock.now_s()) == [None, *reversed(many), None, many[0]]
    for each in many:
        assert await store.get(each.key, clock.now_s()) == each
    assert set(await store.purge(Selector(key=KEY))) == {f"{KEY}.1", f"{KEY}.items"}
    assert await store.get_many(keys, clock.now_s() + 60) == [None] * len(keys)
    await store.put_many([])
    assert await store.get_many([], clock.now_s()) == []


async def test_replaces(store: Store, clock: FakeClock) -> None:
    await store.put(entry(clock, body=b"old"))
    await store.put(entry(clock, body=b"new"))
    found = await store.get(KEY, clock.now_s())
    assert found is not None and found.body == b"new"
    assert (await store.stats()).entries == 1


async def test_expires_by_the_clock_that_it_is_given(store: Store, clock: FakeClock) -> None:
    await store.put(entry(clock, ttl_s=60))
    assert await store.get(KEY, clock.now_s() + 59.9) is not None
    assert await store.get(KEY, clock.now_s() + 60) is None


async def test_keeps_nothing_that_has_expired_already(store: Store, clock: FakeClock) -> None:
    await store.put(entry(clock, body=b"old"))
    await store.put(entry(clock, ttl_s=0))
    assert await store.get(KEY, clock.now_s()) is None


@pytest.mark.parametrize(
    ("selector", "gone"),
    [
        (Selector(), {KEY, f"{KEY}.1", f"{KEY}.12", OTHER, "c" * 32}),
        (Selector(key=KEY), {KEY, f"{KEY}.1", f"{KEY}.12"}),
        (Selector(key=f"{KEY}.1"), {f"{KEY}.1"}),
        (Selector(key="d" * 32), set()),
        (Selector(scope="t"), {KEY, f"{KEY}.1", f"{KEY}.12"}),
        (Selector(model="small"), {KEY, f"{KEY}.1", f"{KEY}.12", OTHER}),
        (Selector(model="served"), {"c" * 32}),
        (Selector(model="small", scope="u"), {OTHER}),
        (Selector(key=KEY, scope="u"), set()),
        (Selector(model="sma"), set()),
    ],
)
async def test_purges_what_matches_and_nothing_else(
    store: Store, clock: FakeClock, selector: Selector, gone: set[str]
) -> None:
    everything = [
        entry(clock),
        entry(clock, f"{KEY}.1"),
        entry(clock, f"{KEY}.12"),
        entry(clock, OTHER, scope="u"),
        entry(clock, "c" * 32, scope="u")._replace(model_requested="large", model_served="served"),
    ]
    for each in everything:
        await store.put(each)
    removed = await store.purge(selector)
    assert set(removed) == gone and len(removed) == len(gone)
    for each in everything:
        assert (await store.get(each.key, clock.now_s()) is None) == (each.key in gone)
    assert await store.purge(selector) == ()


@pytest.mark.parametrize(
    ("selector", "gone"),
    [
        (Selector(namespace="shop"), {0, 1}),
        (Selector(namespace="shop", scope="t"), {0}),
        (Selector(namespace="shop", scope="nobody"), set()),
        (Selector(namespace="shop", key=f"{0:032x}"), {0}),
        (Selector(namespace="shop", tags=(("doc", "kb-17"),)), set()),
        (Selector(namespace="sho"), set()),
        (Selector(scope="t"), {0, 2, 3}),
    ],
)
async def test_purges_by_namespace(store: Store, clock: FakeClock, selector: Selector, gone: set[int]) -> None:
    kept = [("t", "shop"), ("u", "shop"), ("t", "shop 2"), ("t", "")]
    everything = [
        entry(clock, f"{number:032x}", scope=tenant)._replace(namespace=namespace)
        for number, (tenant, namespace) in enumerate(kept)
    ]
    for each in everything:
        await store.put(each)
        assert await store.get(each.key, clock.now_s()) == each
    removed = await store.purge(selector)
    assert set(removed) == {f"{number:032x}" for number in gone}
    assert (await store.stats()).entries == len(kept) - len(gone)


@pytest.mark.parametrize(
    ("selector", "gone"),
    [
        (Selector(tags=(("doc", "kb-17"),)), {0, 1, 2}),
        (Selector(tags=(("doc", "kb-1"),)), {3}),
        (Selector(tags=(("doc", "kb"),)), set()),
        (Selector(tags=(("doc", "kb-17|kb-18"),)), {1}),
        (Selector(tags=(("doc", "kb-17"), ("doc", "kb-18"))), {1, 2}),
        (Selector(tags=(("doc", "kb-17"), ("team", "search"))), {0}),
        (Selector(tags=(("source", "kb-17"),)), {4}),
        (Selector(tags=(("doc", "kb-17"),), model="other"), set()),
        (Selector(stored_before_s=1000.0), {0, 1}),
        (Selector(stored_before_s=1000.0, tags=(("doc", "kb-18"),)), {1}),
        (Selector(stored_before_s=1000.0, scope="u"), set()),
        (Selector(key=f"{0:032x}", tags=(("doc", "kb-18"),)), set()),
    ],
)
async def test_purges_by_tag_and_age(store: Store, clock: FakeClock, selector: Selector, gone: set[int]) -> None:
    """A tag may list several values, whole or as several tags; a part of a value is none."""
    tagged: list[tuple[float, tuple[tuple[str, str], ...]]] = [
        (998.0, (("doc", "kb-17"), ("team", "search"))),
        (999.9, (("doc", "kb-17|kb-18"), ("team", "shop"))),
        (1000.0, (("doc", "kb-17"), ("doc", "kb-18"))),
        (1001.0, (("doc", "kb-1"), ("note", "doc=kb-17"), ("é", "x" * 200))),
        (1002.0, (("source", "kb-17"),)),
        (1003.0, ()),
    ]
    for number, (stored_s, tags) in enumerate(tagged):
        await store.put(entry(clock, f"{number:032x}")._replace(stored_s=stored_s, tags=tags))
    removed = await store.purge(selector)
    assert set(removed) == {f"{number:032x}" for number in gone} and len(removed) == len(gone)
    for number in range(len(tagged)):
        assert (await store.get(f"{number:032x}", clock.now_s()) is None) == (number in gone)


async def test_purges_by_a_tag_behind_many_long_ones(store: Store, clock: FakeClock) -> None:
    tags = (*((f"t{n:02}", "ü" * 250) for n in range(15)), ("source", "kb-17"))
    await store.put(entry(clock)._replace(tags=tags))
    assert await store.purge(Selector(tags=(("source", "kb-17"),))) == (KEY,)


async def test_purges_entries_with_long_labels(store: Store, clock: FakeClock) -> None:
    await store.put(entry(clock)._replace(scope="s" * 3000))
    assert await store.purge(Selector(scope="s" * 3000)) == (KEY,)


async def test_purges_many(store: Store, clock: FakeClock) -> None:
    for number in range(1000):
        await store.put(entry(clock, f"{number:032x}", scope=f"t{number % 3}"))
    assert len(await store.purge(Selector(scope="t0"))) == 334
    assert (await store.stats()).entries == 666


async def test_stats_and_closing_twice(store: Store, clock: FakeClock) -> None:
    await store.put(entry(clock, body=b"x" * 1000))
    stats = await store.stats()
    assert stats.entries == 1 and stats.bytes > 1000 and stats.healthy
    await store.close()
    await store.close()
    with pytest.raises(StoreFault):
        await store.put(entry(clock, OTHER))


async def test_a_walk_over_a_server_that_is_away_is_no_empty_walk(clock: FakeClock) -> None:
    """A purge that found nobody must not say that there was nothing to remove."""
    away = RedisStore("redis://127.0.0.1:1/0", deadline_ms=2000, clock=clock)
    with pytest.raises(StoreFault):
        await away.purge(Selector())
    with pytest.raises(StoreFault):
        _ = [raw async for raw in away.walk()]
    await away.close()
