"""Near misses, hits and wrong comparisons on the wire: seen by the admin only, and texts only where switched on."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from farthing.policies.reuse import RouteState
from farthing.proxy.config import Semantic
from farthing.proxy.semantic_admin import needs
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_reuse import LOOSE, SAYS, pairs, quiet, taught
from tests.wire.test_semantic import how, loaded

SHOWN: dict[str, Any] = {**LOOSE, "semantic__show_texts": True}
ADMIN = {"x-farthing-admin": "1"}
TWELVE, THIRTEEN = "How do I cook rice for 12 people?", "How do I cook rice for 13 people?"


async def lately(proxy: Proxied, kind: str = "near", **query: str) -> dict[str, Any]:
    answer = await proxy.client.get("/farthing/api/semantic/lately", params={"kind": kind, **query})
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    return told


async def missed(proxy: Proxied, *texts: str) -> None:
    await loaded(proxy)
    for text in texts:
        assert how(await proxy.post(chat(text))) == "miss"
        await quiet(proxy)


async def test_a_near_miss_says_what_differs(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **SHOWN) as proxy:
        await missed(proxy, TWELVE, THIRTEEN)
        told = await lately(proxy)
        rows = await proxy.rows()

    (near,) = told["latest"]
    assert told["texts"] is True
    assert told["counts"]["near"] == 1
    assert near["id"] == rows[1]["id"]
    assert near["cosine"] == pytest.approx(rows[1]["similarity"])
    assert near["cosine"] > 0.9 > near["score"] > 0
    assert near["against"][0] == {"kind": "numbers differ", "asked": ["13"], "stored": ["12"]}
    assert ["13", True] in near["asked"] and ["12", True] in near["stored"]
    assert "".join(text for text, _ in near["asked"]) == THIRTEEN
    assert near["reason"].startswith("not proved: 0 labels")
    assert near["threshold"] is None


async def test_without_the_switch_no_word_of_a_prompt_is_shown(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await missed(proxy, TWELVE, THIRTEEN)
        answer = await proxy.client.get("/farthing/api/semantic/lately")

    (near,) = answer.json()["latest"]
    assert answer.json()["texts"] is False
    assert near["against"][0] == {"kind": "numbers differ"}
    assert len(near["asked_key"]) == len(near["stored_key"]) == 12
    for word in ("rice", "cook", "people", '"12"', '"13"'):
        assert word not in answer.text


async def test_what_differs_is_never_written(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **SHOWN) as proxy:
        await missed(proxy, TWELVE, THIRTEEN)
        await lately(proxy)
    for path in (*tmp_path.glob("ledger*"), *tmp_path.glob("reuse*")):
        assert b"people" not in path.read_bytes()


@pytest.mark.parametrize("by", ["key", "all"])
async def test_a_purge_takes_the_sighting_with_it(up: ScriptedUpstream, tmp_path: Path, by: str) -> None:
    async with proxied(up.url, tmp_path, **SHOWN) as proxy:
        await missed(proxy, TWELVE, THIRTEEN)
        (held,) = proxy.services.semantic.lately.latest("near")
        selector = {"key": held.candidate.entry_key} if by == "key" else {}
        await proxy.client.post("/farthing/api/cache/purge", json=selector, headers=ADMIN)
        assert (await lately(proxy))["latest"] == []
        assert proxy.services.semantic.lately.counts()["near"] == 0


async def test_a_sighting_whose_entry_has_left_the_index_is_forgotten(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **SHOWN) as proxy:
        await missed(proxy, TWELVE, THIRTEEN)
        thread = proxy.services.thread
        assert thread is not None
        (held,) = proxy.services.semantic.lately.latest("near")
        await thread.run(lambda cache: cache.remove([held.candidate.entry_key]))
        assert (await lately(proxy))["latest"] == []
        assert proxy.services.semantic.lately.counts()["near"] == 0


async def audited_wrong(
    proxy: Proxied, up: ScriptedUpstream, asked: Iterator[tuple[str, str]]
) -> dict[str, httpx.Response]:
    """Answers by id, until an audit found one of them wrong; a proved route has only a share of its hits audited."""
    answers = {}
    for question, again in itertools.islice(asked, 20):
        up.default.says = SAYS
        await proxy.post(chat(question))
        await quiet(proxy)
        up.default.says = "Never do that."
        hit = await proxy.post(chat(again))
        answers[hit.headers["x-farthing-id"]] = hit
        for _ in range(50):  # the audit goes on behind the answer
            if proxy.services.semantic.lately.counts()["wrong"]:
                return answers
            await asyncio.sleep(0.02)
    raise AssertionError("none of 20 hits was audited")


async def test_hits_and_wrong_comparisons_are_told_apart_and_counted_over_time(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    up.default.says = SAYS
    asked = pairs()
    async with proxied(up.url, tmp_path, **SHOWN, semantic__audit_share=1.0) as proxy:
        await loaded(proxy)
        await taught(proxy, asked)
        answers = await audited_wrong(proxy, up, asked)
        served, wrong = await lately(proxy, "served"), await lately(proxy, "wrong")
        rows = await proxy.rows()

    hit = answers[wrong["latest"][0]["id"]]
    assert how(hit) == "hit-semantic"
    (latest,) = [one for one in served["latest"] if one["id"] == hit.headers["x-farthing-id"]]
    assert (latest["judged"], latest["action"]) == (False, "serve")
    assert latest["bound"] == pytest.approx(float(hit.headers["x-farthing-bound"]), abs=1e-3)
    assert latest["score"] >= latest["threshold"]
    hits = [row["cache"] for row in rows].count("hit-semantic")
    requests = len([row for row in rows if row["endpoint"] != "audit"])
    assert sum(served["total"]["served"]) == hits == served["counts"]["served"]
    assert sum(served["total"]["looked"]) == requests
    (line,) = served["over_time"]
    assert (sum(line["served"]), sum(line["looked"])) == (hits, requests)


async def test_one_route_can_be_chosen(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **SHOWN) as proxy:
        await missed(proxy, TWELVE, THIRTEEN)
        other = {"system": "Answer in verse."}
        for text in (TWELVE, THIRTEEN):
            turns = [{"role": "system", "content": other["system"]}, {"role": "user", "content": text}]
            await proxy.post({"model": "m", "messages": turns})
            await quiet(proxy)
        everything = await lately(proxy)
        route = everything["latest"][0]["route"]
        one = await lately(proxy, route=f"{route['tenant']}/{route['name']}")
        none = await lately(proxy, route="nobody/knows")
        bad = await proxy.client.get("/farthing/api/semantic/lately?kind=rumours")

    assert (len(everything["latest"]), len(everything["over_time"])) == (2, 2)
    assert {each["route"]["name"] for each in one["latest"]} == {route["name"]}
    assert len(one["over_time"]) == 1
    assert one["routes"] == everything["routes"]
    assert none["latest"] == [] and none["over_time"][0]["looked"] == []
    assert bad.status_code == 400 and "near, served, wrong" in bad.text


async def test_only_an_admin_may_ask(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **SHOWN, server__admin_token="let-me-in") as proxy:
        refused = await proxy.client.get("/farthing/api/semantic/lately")
        allowed = await proxy.client.get("/farthing/api/semantic/lately", headers={"Authorization": "Bearer let-me-in"})
    assert (refused.status_code, allowed.status_code) == (401, 200)


async def test_explain_says_what_differs_and_what_is_lacking(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **LOOSE) as proxy:
        await missed(proxy, TWELVE)
        body = {"body": chat(THIRTEEN), "headers": {"Authorization": "Bearer sk-one"}}
        told = (await proxy.client.post("/farthing/api/cache/explain", json=body, headers=ADMIN)).json()

    best = told["nearest"][0]
    assert best["against"][0] == {"kind": "numbers differ", "asked": ["13"], "stored": ["12"]}
    assert ["12", True] in best["stored"]
    assert told["needs"] == ["thresholds, which the first comparisons choose (this route has had no candidate yet)"]


PROVED = RouteState(("t", "r"), True, "own", 0.9, 0.01, 400.0, 0.0, None, 0, 3, 0.0, "")  # type: ignore[arg-type]
LACKING = RouteState(("t", "r"), False, "", 0.9, None, 87.0, 1.0, 260, 0, 0, 0.0, "not proved")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("settings", "state", "score", "said"),
    [
        ({"mode": "serve"}, PROVED, 0.95, []),
        ({"mode": "serve"}, PROVED, 0.5, ["a score of 0.900 or more: it is 0.500"]),
        ({}, PROVED, 0.95, ['semantic.mode = "serve": it is "observe", and serves nothing']),
        (
            {"mode": "serve"},
            LACKING,
            0.5,
            [
                "about 260 more compared answers with a score of 0.900 or more that agree",
                "a score of 0.900 or more: it is 0.500",
            ],
        ),
        ({"mode": "serve", "unproven": True}, None, 0.95, []),
        ({"mode": "serve", "unproven": True}, None, 0.5, ["a score of 0.920 or more: it is 0.500"]),
        (
            {"mode": "serve", "policy": "vcache", "per": "request"},
            None,
            0.95,
            ["labels of this very entry: the policy vcache learns for each one apart"],
        ),
    ],
)
def test_what_is_lacking_in_words(
    settings: dict[str, Any], state: RouteState | None, score: float, said: list[str]
) -> None:
    assert needs(Semantic(**settings), state, score) == said


@pytest.mark.parametrize("texts", [True, False])
async def test_what_repeats_is_shown_word_by_word_only_where_texts_may_be(
    up: ScriptedUpstream, tmp_path: Path, texts: bool
) -> None:
    async with proxied(up.url, tmp_path, **{**LOOSE, "semantic__show_texts": texts}) as proxy:
        await missed(proxy, TWELVE)
        await proxy.post(chat(TWELVE))
        rows = await proxy.rows(2)
        answer = await proxy.client.get("/farthing/api/repeated", params={"since": "1h"})

    (found,) = answer.json()["repeated"]
    assert (found["key_hash"], found["requests"], found["hits"]) == (rows[0]["key_hash"], 2, 1)
    assert ("cook rice" in answer.text) is texts
    assert (found["text"] is not None) is texts


async def test_health_tells_of_store_ledger_and_budget_and_no_secret(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, spend__daily_usd=5, upstream__api_key="sk-never-shown") as proxy:
        await proxy.post(chat("one"))
        rows = await proxy.rows(1)
        answer = await proxy.client.get("/farthing/api/health")

    told = answer.json()
    assert (told["store"]["healthy"], told["store"]["entries"]) == (True, 1)
    assert told["ledger"] == {"healthy": True, "pending_rows": 0, "dropped_rows": 0}
    assert told["budget"]["limit_usd"] == "5"
    assert round(float(told["budget"]["spent_usd"]) * 1e12) == rows[0]["cost_usd"]
    assert "never-shown" not in answer.text
