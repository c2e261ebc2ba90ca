"""Large answers in the shared store: whole or not at all, gone together; one server, behind sentinels, in a cluster."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import redis

from farthing.cache import store_redis
from farthing.cache.codec import encode, is_head, peek
from farthing.cache.entry import Entry
from farthing.cache.lease import Lease, State
from farthing.cache.leases_redis import RedisLeases
from farthing.cache.pieces import PIECE_BYTES, Pieces, cut, joined, named_by
from farthing.cache.store import Selector
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.errors import StoreFault
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster, WatchedValkey, until

KEY = "a" * 32
VARIANT = f"{KEY}.1"
E, C = f"farthing:e:{{{KEY}}}.1", f"farthing:c:{{{KEY}}}.1"

Servers = ValkeyProcess | ValkeyCluster | WatchedValkey


@pytest.fixture(scope="module", params=["one server", "sentinels", "cluster"])
def servers(request: pytest.FixtureRequest) -> Iterator[Servers]:
    made: dict[str, Any] = {
        "one server": ValkeyProcess,
        "sentinels": WatchedValkey,
        "cluster": lambda: ValkeyCluster(replicas=False),
    }
    with made[request.param]() as there:
        yield there


@pytest.fixture
def raw(servers: Servers) -> Iterator[Any]:
    """A client of its own, to an empty server."""
    if isinstance(servers, ValkeyCluster):
        client: Any = redis.RedisCluster("127.0.0.1", servers.port)
    else:
        client = redis.Redis("127.0.0.1", servers.port)
    client.flushall()
    with client:
        yield client


@pytest.fixture
async def store(servers: Servers, raw: Any) -> AsyncIterator[RedisStore]:
    store = RedisStore(servers.url, deadline_ms=20_000, clock=SystemClock())
    yield store
    await store.close()


def body(size: int, seed: int = 1) -> bytes:
    """Bytes that don't shrink."""
    return random.Random(seed).randbytes(size)


def entry(what: bytes, key: str = VARIANT, ttl_s: float = 600, **more: Any) -> Entry:
    now_s = time.time()
    made = Entry(key, "t", "chat", "m", "m", "whole", "application/json", what, None, now_s, now_s + ttl_s)
    return made._replace(**more)


def names(raw: Any) -> set[str]:
    return {name.decode() for name in raw.scan_iter("*")}


@pytest.mark.parametrize("size", [PIECE_BYTES, 2 * PIECE_BYTES, 8 * 2**20])
async def test_comes_back_whole_and_expires_together(size: int, store: RedisStore, raw: Any) -> None:
    put = entry(body(size))
    await store.put(put)
    assert await store.get(VARIANT, time.time()) == put
    assert await store.get_many([KEY, VARIANT], time.time()) == [None, put]
    assert names(raw) == {E, C, f"farthing:v:{{{KEY}}}"}
    assert raw.pexpiretime(E) == raw.pexpiretime(C) > 0
    assert all(len(piece) <= PIECE_BYTES for piece in raw.hvals(C)) and len(raw.get(E)) < 1000
    assert [one async for one in store.walk()] == [encode(put)]


async def test_what_replaces_it_leaves_nothing_of_it(store: RedisStore, raw: Any) -> None:
    for size in (900_000, 300_000, 2, 600_000):
        put = entry(body(size, size))
        await store.put(put)
        assert await store.get(VARIANT, time.time()) == put
        assert (C in names(raw)) is (size > 2)
        assert not any(name.startswith("farthing:n:") for name in names(raw))
    await store.put(entry(b"", ttl_s=0))
    assert names(raw) == {f"farthing:v:{{{KEY}}}"}


async def test_large_and_small_ones_at_once(store: RedisStore, raw: Any) -> None:
    some = [entry(body(400_000 if n % 2 else 10, n), f"{n:032x}{'.1' if n % 3 else ''}") for n in range(8)]
    await store.put_many(some)
    assert await store.get_many([one.key for one in some], time.time()) == some
    await store.put_many([entry(body(400_000), KEY), entry(b"later", KEY)])
    found = await store.get(KEY, time.time())
    assert found is not None and found.body == b"later"


@pytest.mark.parametrize(
    "selector", [Selector(key=KEY), Selector(), Selector(model="m"), Selector(scope="t", tags=(("user", "u"),))]
)
async def test_purged_together(selector: Selector, store: RedisStore, raw: Any) -> None:
    await store.put(entry(body(900_000), tags=(("user", "u"),)))
    await store.put(entry(body(900_000), "b" * 32, scope="other"))
    removed = await store.purge(selector)
    assert (VARIANT in removed, "b" * 32 in removed) == (True, selector in (Selector(), Selector(model="m")))
    assert not {E, C} & names(raw)


async def test_pieces_that_no_entry_has_go_with_a_purge_of_anything(store: RedisStore, raw: Any) -> None:
    await store.put(entry(body(900_000)))
    await store.put(entry(body(900_000), KEY))
    raw.delete(E)
    raw.hset(f"farthing:n:{{{KEY}}}:77", "0", "x")
    assert await store.purge(Selector(model="another")) == ()
    assert names(raw) == {f"farthing:{kind}:{{{KEY}}}" for kind in "ecv"}
    assert await store.get(KEY, time.time()) is not None
    raw.delete(f"farthing:e:{{{KEY}}}")
    assert await store.purge(Selector(key=KEY)) == ()
    assert names(raw) == {f"farthing:v:{{{KEY}}}"}


def spoil_missing(raw: Any) -> None:
    raw.hdel(C, "1")


def spoil_gone(raw: Any) -> None:
    raw.delete(C)


def spoil_bit(raw: Any) -> None:
    piece = bytearray(raw.hget(C, "2"))
    piece[77] ^= 1
    raw.hset(C, "2", bytes(piece))


def spoil_cut(raw: Any) -> None:
    raw.hset(C, "0", raw.hget(C, "0")[:-1])


def spoil_order(raw: Any) -> None:
    first, second = raw.hget(C, "0"), raw.hget(C, "1")
    raw.hset(C, mapping={"0": second, "1": first})


def spoil_kind(raw: Any) -> None:
    raw.set(C, "no hash")


def spoil_head(raw: Any) -> None:
    raw.set(E, raw.get(E)[:-1] + b"?")


@pytest.mark.parametrize(
    "spoil",
    [spoil_missing, spoil_gone, spoil_bit, spoil_cut, spoil_order, spoil_kind, spoil_head],
    ids=lambda one: one.__name__,
)
async def test_what_is_not_whole_is_a_miss_and_removed(spoil: Any, store: RedisStore, raw: Any) -> None:
    await store.put(entry(body(900_000)))
    spoil(raw)
    assert await store.get(VARIANT, time.time()) is None
    await asyncio.to_thread(until, "removed", lambda: not {E, C} & names(raw))
    assert (await store.stats()).healthy
    await store.put(entry(body(900_000)))
    assert await store.get(VARIANT, time.time()) is not None


async def test_pieces_of_two_writes_are_never_one_answer(store: RedisStore, raw: Any) -> None:
    await store.put(entry(body(900_000, 1)))
    old = raw.hgetall(C)
    await store.put(entry(body(900_000, 2)))
    raw.hset(C, "1", old[b"1"])
    assert await store.get(VARIANT, time.time()) is None


async def test_written_and_read_at_once_each_answer_is_one_that_was_written(store: RedisStore, raw: Any) -> None:
    bodies = [body(600_000, seed) for seed in range(4)] + [b"small"]
    seen: list[bytes | None] = []

    async def writes(what: bytes) -> None:
        for _ in range(6):
            await store.put(entry(what))

    async def reads() -> None:
        for _ in range(40):
            found = await store.get(VARIANT, time.time())
            seen.append(found and found.body)

    await asyncio.gather(*(writes(what) for what in bodies), reads(), reads())
    assert all(one is None or one in bodies for one in seen) and any(one in bodies for one in seen)
    found = await store.get(VARIANT, time.time())
    assert found is None or found.body in bodies
    assert not any(name.startswith("farthing:n:") for name in names(raw))


async def test_pieces_that_go_before_they_land_are_not_kept(
    store: RedisStore, raw: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = entry(body(600_000, 1))
    await store.put(there)
    write = store_redis.write_pieces

    async def evicted(client: Any, name: str, *more: Any) -> None:
        await write(client, name, *more)
        raw.delete(name)

    monkeypatch.setattr(store_redis, "write_pieces", evicted)
    with pytest.raises(StoreFault, match="gone before"):
        await store.put(entry(body(600_000, 2)))
    assert await store.get(VARIANT, time.time()) == there, "what was there stays"


async def test_a_large_answer_lands_with_its_lease_or_leaves_nothing(store: RedisStore, raw: Any) -> None:
    leases = RedisLeases(store, store, lease_s=0.001)
    first = await leases.take(VARIANT, f"{VARIANT}:c", "f", "")
    await asyncio.sleep(0.01)
    second = await leases.take(VARIANT, f"{VARIANT}:c", "g", "")
    assert (first.state, second.state) == (State.TAKEN, State.TAKEN)
    old, new = (Lease(VARIANT, f"{VARIANT}:c", "f", one.token) for one in (first, second))
    put = entry(body(600_000))
    assert not await leases.land(old, entry(body(600_000, 3)))
    assert not {name for name in names(raw) if name[9] in "ecn"}
    assert await leases.land(new, put)
    assert await store.get(VARIANT, time.time()) == put
    assert (await leases.take(VARIANT, f"{VARIANT}:c", "h", "")).state is State.STORED
    assert all(raw.pttl(name) > 0 for name in names(raw))


async def test_a_full_server_refuses_it_and_keeps_what_it_has(store: RedisStore, servers: Servers, raw: Any) -> None:
    nodes = servers.nodes if isinstance(servers, ValkeyCluster) else [servers]
    there = entry(body(600_000))
    await store.put(there)
    primaries = [one for one in nodes if isinstance(one, ValkeyProcess)] or list(servers.servers)  # type: ignore[union-attr]
    for node in primaries:
        node.command("CONFIG SET maxmemory 1")
    try:
        for what in (body(600_000, 2), b"small"):
            with pytest.raises(StoreFault, match="refused"):
                await store.put(entry(what))
            assert await store.get(VARIANT, time.time()) == there
    finally:
        for node in primaries:
            node.command("CONFIG SET maxmemory 0")
    await store.put(entry(b"small"))


def test_the_head_has_the_labels_and_names_its_pieces() -> None:
    whole = encode(entry(body(700_000)))
    head, pieces = cut(whole, PIECE_BYTES)
    about = named_by(head)
    assert about is not None and is_head(head) and peek(head[:400]) == peek(whole)
    assert joined(about, pieces) == whole and len(pieces) == about.number == 3
    assert cut(whole, len(whole)) == (whole, []) and named_by(whole) is None
    for wrong in ([*pieces, b""], pieces[:-1], [*pieces[:-1], None], pieces[::-1]):
        assert joined(about, wrong) is None


def test_every_bit_of_a_head_counts() -> None:
    head, _ = cut(encode(entry(body(700))), 300)
    for at in range(len(head)):
        for bit in range(8):
            assert named_by(head[:at] + bytes([head[at] ^ (1 << bit)]) + head[at + 1 :]) is None
    for end in range(len(head)):
        assert named_by(head[:end]) is None
    assert isinstance(named_by(head), Pieces)
