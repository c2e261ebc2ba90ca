"""Three farthing processes over one real Valkey: what one has answered, the others find near-duplicates of."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes.postgres import running_postgres
from tests.fakes.proxying import chat
from tests.fakes.upstream import ScriptedUpstream, scripted
from tests.fakes.valkey import ValkeyProcess
from tests.scenario.test_serve import serving

ASKED, ALIKE = "How do I change my delivery address?", "How can I change my delivery address?"


@dataclass
class Fleet:
    """`clients`: of each replica, in order."""

    up: ScriptedUpstream
    valkey: ValkeyProcess
    clients: list[httpx.AsyncClient]

    async def ask(self, replica: int, text: str) -> httpx.Response:
        return await self.clients[replica].post("/v1/chat/completions", json=chat(text, temperature=0))

    async def told(self, replica: int) -> dict[str, Any]:
        """What /readyz says of the shared index."""
        ready = (await self.clients[replica].get("/readyz")).json()
        return {"entries": ready["semantic_entries"], **(ready["semantic_shared"] or {})}

    async def until(self, within_s: float = 60, seq: int = 0, **wanted: Any) -> None:
        """All replicas tell these, and have read that far at least."""
        end = time.monotonic() + within_s
        while True:
            told = [await self.told(replica) for replica in range(len(self.clients))]
            far = all(one.get("seq", 0) >= seq and not one.get("lag_changes") for one in told)
            if far and all(one.get(name) == value for one in told for name, value in wanted.items()):
                return
            assert time.monotonic() < end, told
            await asyncio.sleep(0.1)

    async def purge_all(self, replica: int) -> httpx.Response:
        path, headers = "/farthing/api/cache/purge", {"x-farthing-admin": "1"}
        return await self.clients[replica].post(path, json={}, headers=headers)


@pytest.fixture(params=["memory"])  # or pgvector; or proving, by what replicas learn
async def fleet(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        valkey = stack.enter_context(ValkeyProcess())
        up = await stack.enter_async_context(scripted())
        settings = {
            "FARTHING_STORE__URL": valkey.url,
            "FARTHING_SEMANTIC__MODE": "serve",
            "FARTHING_SEMANTIC__UNPROVEN": "true",
            "FARTHING_SEMANTIC__DEADLINE_MS": "5000",
            "FARTHING_STORE__DEADLINE_MS": "5000",  # a busy machine is not what this is about
        }
        if request.param == "proving":
            settings |= {"FARTHING_SEMANTIC__UNPROVEN": "false", "FARTHING_SEMANTIC__MODE": "observe"}
        if request.param == "pgvector":
            postgres = stack.enter_context(running_postgres())
            settings |= {"FARTHING_SEMANTIC__INDEX": "pgvector", "FARTHING_SEMANTIC__INDEX_URL": postgres.url}
        clients = []
        for name in "xyz":
            cwd = tmp_path / name
            (cwd / "state").mkdir(parents=True)
            (cwd / "state" / "secret").write_text(f"{'5a' * 32}\n")  # tenants are told apart alike
            clients.append((await stack.enter_async_context(serving(up, cwd, **settings)))[1])
        fleet = Fleet(up, valkey, clients)
        await fleet.until(state="current")
        yield fleet


@pytest.mark.parametrize("fleet", ["memory", pytest.param("pgvector", marks=pytest.mark.long)], indirect=True)
async def test_three_replicas_share_near_duplicates_purges_and_what_they_say_of_it(fleet: Fleet) -> None:
    first = await fleet.ask(0, ASKED)
    assert first.headers["x-farthing-cache"] == "miss"
    await fleet.until(entries=1)
    await asyncio.sleep(1)  # in PostgreSQL it is found once it is written
    found = await fleet.ask(1, ALIKE)
    assert found.headers["x-farthing-cache"] == "hit-semantic"

    await fleet.until(replicas=3, compared=2, differing=0)
    metrics = (await fleet.clients[2].get("/metrics")).text
    assert "farthing_semantic_replicas_compared 2.0" in metrics and "farthing_semantic_log_reached 1.0" in metrics

    assert (await fleet.purge_all(2)).status_code == 200
    await fleet.until(entries=0)
    assert (await fleet.ask(1, ALIKE)).headers["x-farthing-cache"] == "miss"


async def test_an_emptied_server_costs_answers_and_serves_none_that_is_gone(fleet: Fleet) -> None:
    await fleet.ask(0, ASKED)
    await fleet.until(entries=1)
    fleet.valkey.command("FLUSHALL")
    await fleet.until(generation=2, entries=1, state="current")
    asked, seq = len(fleet.up.calls), (await fleet.told(1))["seq"]

    assert (await fleet.ask(1, ALIKE)).headers["x-farthing-cache"] == "miss"
    assert len(fleet.up.calls) == asked + 1
    await fleet.until(seq=seq + 2, replicas=3, compared=2, differing=0)
    told = [await fleet.told(replica) for replica in range(3)]
    assert len({one["entries"] for one in told}) == 1, "what had no answer may have come back, but then for all"


async def test_without_the_server_all_go_on_and_share_again_when_it_is_back(fleet: Fleet) -> None:
    await fleet.ask(0, ASKED)
    await fleet.until(entries=1)
    fleet.valkey.kill()
    await fleet.until(state="away")
    assert (await fleet.ask(1, ALIKE)).status_code == 200
    fleet.valkey.start()
    await fleet.until(generation=2, state="current")
    assert (await fleet.ask(2, "What is the refund policy?")).status_code == 200
    await fleet.until(state="current", replicas=3, compared=2, differing=0)
    told = [await fleet.told(replica) for replica in range(3)]
    assert len({one["entries"] for one in told}) == 1


@pytest.mark.parametrize("fleet", ["proving"], indirect=True)
async def test_what_one_compares_all_have_learnt(fleet: Fleet) -> None:
    """Each comparison counts once, for all, and one who comes later knows it too."""

    async def known(replica: int) -> list[tuple[str, float]]:
        told = (await fleet.clients[replica].get("/farthing/api/semantic")).json()
        return [(one["route"]["name"], one["own_labels"]) for one in told["routes"]]

    async def all_know(labels: float) -> None:
        end = time.monotonic() + 60
        while True:
            told = [await known(replica) for replica in range(3)]
            if told[0] == told[1] == told[2] and [count for _, count in told[0]] == [labels]:
                return
            assert time.monotonic() < end, told
            await asyncio.sleep(0.1)

    async def can_learn() -> bool:
        gauges = [(await client.get("/metrics")).text for client in fleet.clients]
        return all("farthing_agreed_reached 1.0" in text for text in gauges)

    end = time.monotonic() + 60
    while not await can_learn():
        assert time.monotonic() < end
        await asyncio.sleep(0.1)
    await fleet.ask(0, ASKED)
    await fleet.until(entries=1)
    for count, replica in enumerate((1, 2, 0), 1):
        await fleet.ask(replica, f"{ALIKE[:-1]}{'?' * count}")
        await all_know(float(count))
        await fleet.until(entries=1 + count)
