"""Every way to a Redis: URLs that are understood or refused, a primary behind sentinels, a cluster that is gone."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from structlog.testing import capture_logs

from farthing.cache.entry import Entry
from farthing.cache.redis_client import open_way, where_of
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock
from farthing.proxy.errors import ConfigFault, StoreFault
from tests.fakes.valkey import ValkeyProcess
from tests.fakes.valkey_many import WatchedValkey

KEY = "a" * 32


def entry(key: str = KEY) -> Entry:
    now_s = time.time()
    return Entry(key, "t", "chat", "m", "m", "whole", "application/json", b"{}", None, now_s, now_s + 60)


@pytest.mark.parametrize(
    ("url", "wrong"),
    [
        ("redis+sentinel://localhost:26379", "service"),
        ("redis+sentinel://localhost:26379,/answers", "address"),
        ("redis+sentinel://localhost:port/answers", "[Pp]ort"),
        ("http+sentinel://localhost/answers", "scheme"),
        ("redis+cluster://localhost:7000,localhost:x", "[Pp]ort"),
        ("redis+cluster://localhost:7000/3", "db"),
    ],
)
def test_a_wrong_url_is_the_operators_fault(url: str, wrong: str) -> None:
    with pytest.raises(ConfigFault, match=rf"store\.url: .*{wrong}"):
        open_way(url, 1)


async def test_what_a_url_says_of_sentinels_and_of_the_servers_behind_them() -> None:
    way = open_way("rediss+sentinel://me:s%40y@one:1,two,[::1]:3/an%20swers/2?ssl_cert_reqs=none&sentinel_auth=true", 7)
    pool = way.client.connection_pool
    given = pool.connection_kwargs
    asked = [one.connection_pool.connection_kwargs for one in pool.sentinel_manager.sentinels]
    await way.close()

    assert pool.service_name == "an swers" and pool.max_connections == 7
    assert (given["username"], given["password"], given["db"], given["ssl_cert_reqs"]) == ("me", "s@y", 2, "none")
    assert [(one["host"], one["port"]) for one in asked] == [("one", 1), ("two", 26379), ("::1", 3)]
    assert {(one["username"], one["password"], one["ssl_cert_reqs"]) for one in asked} == {("me", "s@y", "none")}


async def test_sentinels_get_no_password_that_is_not_theirs() -> None:
    way = open_way("redis+sentinel://:sesame@one/answers", 1)
    asked: dict[str, Any] = way.client.connection_pool.sentinel_manager.sentinels[0].connection_pool.connection_kwargs
    await way.close()

    assert not asked.get("password")
    assert where_of("redis+sentinel://:sesame@one:1,two:2/answers") == "redis+sentinel://one:1,two:2/answers"


async def test_when_the_primary_dies_its_replica_has_the_answers() -> None:
    with WatchedValkey(sentinels=1, down_ms=200) as watched:
        dead = ValkeyProcess()  # a sentinel that isn't there costs its share of a second, and then its turn
        url = watched.url.replace("://", f"://127.0.0.1:{dead.port},")
        store = RedisStore(url, deadline_ms=1000, clock=SystemClock(), threshold=3, pause_s=0.1)
        with capture_logs() as logs:
            await store.put(entry())
            old = watched.primary
            old.kill()
            with pytest.raises(StoreFault):
                await store.get(KEY, time.time())
            await asyncio.to_thread(watched.await_other, old)
            found = None
            async with asyncio.timeout(5):
                while found is None:
                    try:
                        found = await store.get(KEY, time.time())
                    except StoreFault:
                        await asyncio.sleep(0.05)
            await store.put(entry("b" * 32))
        await store.close()
        dead.close()

    assert found.key == KEY
    told = [line["event"] for line in logs]
    assert told in ([], ["the store is away: answers pass it by", "the store is back"])


async def test_a_cluster_that_is_gone_is_an_outage_like_any_other() -> None:
    with ValkeyProcess("--cluster-enabled", "yes") as node:
        node.command("CLUSTER ADDSLOTSRANGE 0 16383")
        while b"cluster_state:ok" not in node.command("CLUSTER INFO"):
            await asyncio.sleep(0.02)
        url = node.url.replace("redis://", "redis+cluster://").removesuffix("/0")
        store = RedisStore(url, deadline_ms=1000, clock=SystemClock(), threshold=3, pause_s=0.1)
        await store.put(entry())
        node.kill()
        with capture_logs() as logs:
            for _ in range(4):
                with pytest.raises(StoreFault):
                    await store.get(KEY, time.time())
        await store.close()

    assert [line["event"] for line in logs] == ["the store is away: answers pass it by"]
