"""Farthings over a real cluster, with memory before it: workers, and replicas of which one purges and erases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import httpx
import pytest

from farthing.cache.store_near import NearStore
from tests.fakes.crew import ask, crew_of
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import scripted
from tests.fakes.valkey_many import ValkeyCluster

ADMIN = {"x-farthing-admin": "1"}


@pytest.fixture(scope="module")
def cluster() -> Iterator[ValkeyCluster]:
    with ValkeyCluster(replicas=False) as cluster:
        yield cluster


def reads(cluster: ValkeyCluster) -> int:
    """How many GETs its nodes have answered."""
    found = 0
    for node in cluster.nodes:
        for line in node.command("INFO commandstats").decode().splitlines():
            if line.startswith("cmdstat_get:calls="):
                found += int(line.partition("=")[2].partition(",")[0])
    return found


async def statuses(clients: list[httpx.AsyncClient], count: int) -> list[str]:
    return [(await ask(one, f"stored {at}")).headers["x-farthing-cache"] for one in clients for at in range(count)]


async def test_workers_have_memory_each_and_a_purge_empties_all(cluster: ValkeyCluster, tmp_path: Path) -> None:
    settings = {"FARTHING_STORE__DEADLINE_MS": "5000", "FARTHING_STORE__URL": cluster.url}
    settings["FARTHING_STORE__STALE_S"] = "30"  # a busy machine may leave nobody time to listen
    async with scripted() as up, crew_of(2, up, tmp_path, **settings) as crew:
        async with crew.fresh() as client:
            assert await statuses([client], 8) == ["miss"] * 8
        clients = await crew.spread(4)
        for _ in range(3):  # each worker reads, and once it listens it holds
            assert await statuses(clients, 8) == ["hit-exact"] * 32
            await asyncio.sleep(0.5)
        before = reads(cluster)
        assert await statuses(clients, 8) == ["hit-exact"] * 32
        assert reads(cluster) == before, "nobody asked the cluster"

        purged = await crew.admin("cache/purge")
        again = [(await ask(one, f"stored {at}")).headers["x-farthing-cache"] for at, one in enumerate(clients)]
        assert purged.json()["purged"] == 8, purged.text
        assert again == ["miss"] * 4


@pytest.mark.parametrize("call", ["cache/purge", "erase"])
async def test_what_one_replica_removes_another_does_not_serve(
    cluster: ValkeyCluster, tmp_path: Path, call: str
) -> None:
    async with AsyncExitStack() as stack:
        up = await stack.enter_async_context(scripted())
        proxies: list[Proxied] = []
        for name in ("one", "other"):
            state_dir = tmp_path / name
            state_dir.mkdir()
            (state_dir / "secret").write_text(f"{'5a' * 32}\n")  # tenants are told apart alike
            settings = {"store__url": cluster.url, "store__deadline_ms": 5000}
            proxies.append(await stack.enter_async_context(proxied(up.url, state_dir, **settings)))
        one, other = proxies
        store = other.services.state.store
        assert isinstance(store, NearStore)
        named = {"x_farthing_user": "u-one", "x_farthing_tags": "user=u-one"}
        for number in range(6):
            await other.post(chat(f"number {number}"), **named)
        async with asyncio.timeout(20):
            while (await store.stats()).memory_entries < 6:
                for number in range(6):
                    assert (await other.post(chat(f"number {number}"))).headers["x-farthing-cache"] == "hit-exact"
        asked = {"user": "u-one"} if call == "erase" else {"tags": ["user=u-one"]}
        answer = await one.client.post(f"/farthing/api/{call}", json=asked, headers=ADMIN)
        assert answer.status_code == 200, answer.text
        async with asyncio.timeout(other.services.config.store.stale_s + 5):  # the machine may be busy
            for number in range(6):
                while (await other.post(chat(f"number {number}"), Cache_Control="only-if-cached")).status_code != 504:
                    await asyncio.sleep(0.02)
        assert (await store.stats()).memory_entries == 0


async def test_where_it_is_turned_off_there_is_none(cluster: ValkeyCluster, tmp_path: Path) -> None:
    async with scripted() as up, proxied(up.url, tmp_path, store__url=cluster.url, store__stale_s=0) as proxy:
        assert not isinstance(proxy.services.state.store, NearStore)
