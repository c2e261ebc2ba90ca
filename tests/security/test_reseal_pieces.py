"""Large answers in Redis are sealed anew as small ones are, and nothing of their old pieces stays."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis

from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.reseal import Tally
from farthing.proxy.reseal_redis import reseal_server
from farthing.proxy.seal import Seal
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import ValkeyCluster
from tests.security.test_sealing import ONE, TWO, entry, sealer

SIZES = (40, 300_000, 2_000_000)


@pytest.fixture(scope="module", params=["one server", "cluster"])
def valkey(request: pytest.FixtureRequest) -> Iterator[ValkeyProcess | ValkeyCluster]:
    with ValkeyProcess() if request.param == "one server" else ValkeyCluster(replicas=False) as there:
        yield there


@pytest.fixture
def raw(valkey: ValkeyProcess | ValkeyCluster) -> Iterator[Any]:
    one = isinstance(valkey, ValkeyProcess)
    client: Any = redis.Redis("127.0.0.1", valkey.port) if one else redis.RedisCluster("127.0.0.1", valkey.port)
    client.flushall()
    with client:
        yield client


def at_rest(raw: Any) -> bytes:
    found = b""
    for name in raw.scan_iter("farthing:[ecn]:*"):
        kind = raw.type(name)
        found += raw.get(name) if kind == b"string" else b"".join(raw.hvals(name))
    return found


def bodies() -> list[bytes]:
    return [b"the secret " + random.Random(size).randbytes(size) for size in SIZES]


async def put(url: str, seal: Seal | None) -> None:
    store = RedisStore(url, deadline_ms=20_000, clock=SystemClock(), seal=seal)
    for number, body in enumerate(bodies()):
        made = entry(body)
        await store.put(made._replace(key=f"{number:032x}", stored_s=time.time(), expires_s=time.time() + 600))
    await store.close()


@pytest.mark.parametrize("was", [None, ONE], ids=["open", "sealed"])
async def test_large_answers_come_under_the_current_key(
    valkey: ValkeyProcess | ValkeyCluster, raw: Any, was: str | None
) -> None:
    await put(valkey.url, sealer(was) if was else None)
    lives = {name: raw.pexpiretime(name) for name in raw.scan_iter("farthing:*")}
    raw.hset("farthing:c:{nobody}", "0", "the secret")
    raw.hset("farthing:n:{nobody}:1", "0", "the secret")
    command = RedisStore(valkey.url, deadline_ms=20_000, clock=SystemClock())
    seal = sealer(TWO, ONE) if was else sealer(TWO)
    found = (await reseal_server(command, seal, "w", lambda *_: None))["redis answers"]
    assert found == Tally(resealed=3)
    again = (await reseal_server(command, seal, "w", lambda *_: None))["redis answers"]
    assert again == Tally(current=3)
    await command.close()

    assert {name: raw.pexpiretime(name) for name in raw.scan_iter("farthing:*")} == lives
    held = at_rest(raw)
    assert b"the secret" not in held and bytes.fromhex(sealer(ONE).key_ids[0]) not in held
    now = RedisStore(valkey.url, deadline_ms=20_000, clock=SystemClock(), seal=sealer(TWO))
    read = await now.get_many([f"{number:032x}" for number in range(3)], time.time())
    assert [one and one.body for one in read] == bodies()
    await now.close()


async def test_what_is_not_whole_is_removed_and_keeps_no_reseal_from_its_end(
    valkey: ValkeyProcess | ValkeyCluster, raw: Any
) -> None:
    await put(valkey.url, sealer(ONE))
    raw.delete(f"farthing:c:{{{2:032x}}}")
    command = RedisStore(valkey.url, deadline_ms=20_000, clock=SystemClock())
    found = (await reseal_server(command, sealer(TWO, ONE), "w", lambda *_: None))["redis answers"]
    assert found == Tally(resealed=2)
    assert not raw.exists(f"farthing:e:{{{2:032x}}}")
    await command.close()
