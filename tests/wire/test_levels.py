"""Service levels on the wire: an outage is told by the API, the metrics, the webhook and the incident log."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_budgets import receiver
from tests.wire.test_watch import ADMIN

LEVEL = {"name": "answers", "tag": "team=search", "availability": 0.99, "wrong_rate": 0.1}


async def counted(proxy: Proxied) -> dict[str, dict[str, Any]]:
    """The only level's targets by kind, when all that was asked is counted."""
    held = proxy.services.state
    await quiet(proxy)
    assert held.ledger is not None
    await asyncio.to_thread(held.ledger.flush)
    assert await asyncio.to_thread(held.levels.flush)
    await asyncio.sleep(0)
    (level,) = (await proxy.client.get("/farthing/api/levels")).json()["levels"]
    return {target["kind"]: target for target in level["targets"]}


async def test_an_outage_and_bad_ratings_are_told_everywhere(up: ScriptedUpstream, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"cache__mode": "off", "service_levels": [LEVEL], "upstream__retries": 0}
    async with receiver() as (url, got), proxied(up.url, tmp_path, alerts__webhook=url, **settings) as proxy:
        ids = []
        for number in range(20):
            answer = await proxy.post(chat(f"number {number}"), x_farthing_tags="team=search")
            ids.append(answer.headers["x-farthing-id"])
        calm = await counted(proxy)
        items = [{"id": id, "rating": "bad" if n < 2 else "good"} for n, id in enumerate(ids)]
        await proxy.client.post("/farthing/api/feedback", json={"items": items}, headers=ADMIN)
        up.default.status = 503
        for number in range(10):
            await proxy.post(chat(f"again {number}"), x_farthing_tags="team=search")
            await proxy.post(chat(f"other {number}"), x_farthing_tags="team=docs")
        burning = await counted(proxy)
        await quiet(proxy)
        metrics = (await proxy.client.get("/metrics")).text
        noted = (await proxy.client.get("/farthing/api/incidents")).json()["incidents"]
    assert (calm["availability"]["events"], calm["availability"]["bad"]) == (20, 0)
    assert calm["availability"]["verdict"] == "not enough data" and calm["wrong"]["left"] is None
    assert (burning["availability"]["events"], burning["availability"]["bad"]) == (30, 10)
    assert burning["availability"]["verdict"] == "missed"
    assert {pair["state"] for pair in burning["availability"]["pairs"]} == {"burning"}
    assert (burning["wrong"]["events"], burning["wrong"]["bad"]) == (20, 2)
    events = [event for event, _, _ in got]
    assert {(event["event"], event["level"], event["target"], event["speed"]) for event in events} == {
        ("service_level", "answers", "availability", "fast"),
        ("service_level", "answers", "availability", "slow"),
    }
    assert all(event["burning"] for event in events)
    assert {(one["kind"], one["what"]) for one in noted} == {("service level", "availability of answers")}
    assert len(noted) == len(events) == 2
    assert 'farthing_level_burning{level="answers",speed="fast",target="availability"} 1.0' in metrics
    assert 'farthing_level_attained_ratio{level="answers",target="wrong"} 0.9' in metrics
    assert 'farthing_level_burn_rate{level="answers",target="availability",window="5m"} 33.3' in metrics


async def test_nothing_is_promised_by_default(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        await proxy.post(chat())
        told = (await proxy.client.get("/farthing/api/levels")).json()
    assert told["levels"] == [] and not (tmp_path / "levels.db").exists()
