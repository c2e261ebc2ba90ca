"""The watch on the wire: changes are told to the page, the metrics, a webhook and the incident log; texts never."""

from __future__ import annotations

import asyncio
import itertools
import json
from pathlib import Path
from typing import Any

import pytest

from farthing.policies.reuse import RouteKey
from tests.fakes.proxying import Proxied, chat, proxied, quiet
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_budgets import receiver
from tests.wire.test_reuse import pairs
from tests.wire.test_semantic import loaded

QUICK: dict[str, Any] = {
    "watch__per_s": 1000,
    "watch__reference_requests": 60,
    "watch__reference_days": 0,
    "watch__alarms_per_year": 1000,
}
ADMIN = {"x-farthing-admin": "1"}
USAGE = {"prompt_tokens": 8, "completion_tokens": 1, "total_tokens": 9}
REFUSAL = "I'm sorry, but I can't help with that."


async def ask(proxy: Proxied, count: int, text: str = "How do I clean thing number {}?", **headers: str) -> None:
    for number in range(count):
        assert (await proxy.post(chat(text.format(number)), **headers)).status_code == 200
    await seen(proxy)


async def seen(proxy: Proxied) -> None:
    """Wait until all that was asked has been looked at."""
    held = proxy.services.state
    await quiet(proxy)
    assert held.ledger is not None and held.watch is not None
    await asyncio.to_thread(held.ledger.flush)
    assert await asyncio.to_thread(held.watch.flush)


async def shown(proxy: Proxied) -> dict[tuple[str, str], dict[str, Any]]:
    told = (await proxy.client.get("/farthing/api/watch")).json()
    assert told["enabled"] is True
    return {(one["series"], one["slice"]): one for one in told["series"]}


async def test_refusals_that_rise_are_told_everywhere(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with (
        receiver() as (url, got),
        proxied(up.url, tmp_path, cache__mode="off", alerts__webhook=url, **QUICK) as proxy,
    ):
        taken_back = getattr(proxy.services.semantic.reuse, "on_taken_back")  # noqa: B009 - of one policy alone
        taken_back(RouteKey("tenant-of-long-name", "r"), "too many answers were wrong", {"wrong": 3})
        await ask(proxy, 70, x_farthing_tags="team=search")
        quiet_so_far = await shown(proxy)
        up.default.says = REFUSAL
        await ask(proxy, 60, x_farthing_tags="team=search")
        await quiet(proxy)
        drifting = await shown(proxy)
        metrics = (await proxy.client.get("/metrics")).text
        told = await proxy.client.post("/farthing/api/watch/rebase", json={"series": "refused"}, headers=ADMIN)
        after = await shown(proxy)
        noted = (await proxy.client.get("/farthing/api/incidents")).json()["incidents"]
    alerts = [event for event, _, _ in got if event["event"] == "drift"]
    assert {one["state"] for one in quiet_so_far.values()} == {"quiet"}
    assert quiet_so_far["language", "all"]["bins"] == [{"label": "en", "was": 1.0, "now": pytest.approx(1.0)}]
    for place in ("all", "tag:team=search", "language:en", "tools:no", "length:short"):
        assert drifting["refused", place]["state"] == "drifting", place
    assert "'refused' was 0.0% of the reference" in drifting["refused", "all"]["alarm"]
    assert drifting["empty", "all"]["state"] == drifting["failed", "all"]["state"] == "quiet"
    events = [event for event in alerts if event["series"] == "refused" and event["slice"] == "all"]
    assert len(events) == 1 and events[0]["event"] == "drift" and "semantic" in events[0]["warns"]
    assert [noted[-1][name] for name in ("kind", "what", "why", "evidence")] == [
        "observe",
        "semantic went back to observing",
        "too many answers were wrong",
        {"tenant": "tenant-o", "route": "r", "wrong": 3},
    ]
    assert ("drift", "refused of all") in {(incident["kind"], incident["what"]) for incident in noted}
    assert 'farthing_drift_evidence_ratio{series="refused"} 1.0' in metrics
    assert f"farthing_drift_alarms_total {len(alerts)}.0" in metrics
    assert told.json()["rebased"] >= 5
    assert after["refused", "all"]["state"] == "learning"


async def test_a_hit_rate_that_falls_is_caught_though_hits_go_the_short_way(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **QUICK) as proxy:
        await ask(proxy, 150, "the same {:.0f}".replace("{:.0f}", ""))
        assert (await shown(proxy))["hit", "all"]["state"] == "quiet"
        await ask(proxy, 80, "another {}")
        assert (await shown(proxy))["hit", "all"]["state"] == "drifting"


async def test_what_is_learnt_survives_a_restart_and_holds_no_text(up: ScriptedUpstream, tmp_path: Path) -> None:
    settings = QUICK | {"semantic__mode": "observe"}
    async with proxied(up.url, tmp_path, **settings) as proxy:
        await loaded(proxy)
        for question, again in itertools.islice(pairs(), 40):
            await proxy.post(chat(question))
            await proxy.post(chat(again))
            await quiet(proxy)
        await seen(proxy)
        before = await shown(proxy)
    text = (tmp_path / "watch.json").read_text("utf-8")
    assert "kettle" not in text and "repair" not in text
    assert json.loads(text)["board"]["topics"] is not None
    async with proxied(up.url, tmp_path, **settings) as proxy:
        after = await shown(proxy)
        assert after["language", "all"] == before["language", "all"]
        assert ("topic", "all") in after
        await proxy.running.reload(proxy.services.config.model_copy(update={"watch": proxy.services.config.watch}))
        assert (await shown(proxy)).keys() == after.keys()


async def test_a_damaged_file_is_turned_aside(up: ScriptedUpstream, tmp_path: Path) -> None:
    (tmp_path / "watch.json").write_text('{"board": {"version": 1}}')
    async with proxied(up.url, tmp_path, **QUICK) as proxy:
        await ask(proxy, 1)
        assert (await shown(proxy))["hit", "all"]["reference"] == 1
    assert (tmp_path / "watch.other.json").exists()


async def test_texts_of_requests_that_ask_for_nothing_to_be_kept_are_not_looked_at(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, **QUICK) as proxy:
        await ask(proxy, 3, Cache_Control="no-store")
        await ask(proxy, 3, x_farthing_off="1")
        found = await shown(proxy)
    assert ("language", "all") not in found
    assert found["input_tokens", "all"]["reference"] == 6


@pytest.mark.parametrize("off", [{"watch__enabled": False}, {"ledger__enabled": False}])
async def test_it_can_be_off(up: ScriptedUpstream, tmp_path: Path, off: dict[str, Any]) -> None:
    async with proxied(up.url, tmp_path, **QUICK | off) as proxy:
        await proxy.post(chat())
        told = (await proxy.client.get("/farthing/api/watch")).json()
    assert told["enabled"] is False and told["series"] == []


@pytest.mark.parametrize("asked", [{"series": "nothing"}, {"slice": 3}, {"what": 1}])
async def test_a_rebase_of_nothing_known_is_refused(proxy: Proxied, asked: dict[str, Any]) -> None:
    answer = await proxy.client.post("/farthing/api/watch/rebase", json=asked, headers=ADMIN)
    assert answer.status_code == 400


async def test_ratings_tell_what_token_probabilities_are_worth(up: ScriptedUpstream, tmp_path: Path) -> None:
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": "Paris"},
        "finish_reason": "stop",
        "logprobs": {"content": [{"token": "Paris", "logprob": -0.105, "bytes": None, "top_logprobs": []}]},
    }
    body = {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice], "usage": USAGE}
    up.default.answer = body
    async with proxied(up.url, tmp_path, **QUICK) as proxy:
        answer = await proxy.post(chat("What is the capital?", logprobs=True))
        await seen(proxy)
        said = {"id": answer.headers["x-farthing-id"], "rating": "bad"}
        await proxy.client.post("/farthing/api/feedback", json=said, headers=ADMIN)
        await seen(proxy)
        told = (await proxy.client.get("/farthing/api/watch")).json()["calibration"]
    assert [(one["name"], one["n"], one["wrong"], one["enough"]) for one in told] == [
        ("token probability", 1, 1, False)
    ]
    assert told[0]["bins"][0]["confidence"] == pytest.approx(0.9, abs=0.01)
