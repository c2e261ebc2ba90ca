"""Budgets hold for all attempts of a request together: cascades, dearer variants, hedges, samples, judges, rounds."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.fakes.valkey import ValkeyProcess
from tests.wire.test_budgets import KINDS, budget, standing
from tests.wire.test_retrieval import ON, asked, begun
from tests.wire.test_routes import BIG, TINY, house, meter

LIMIT = Decimal("0.01")
REFUSES = "I'm sorry, but I can't help with that."
WORDS = 40
# Each asks for a cheap model, and a dear one is asked besides: what is reserved at first is far too little.
WAYS: dict[str, dict[str, Any]] = {
    "a dearer variant": {"variants": ["big"]},
    "a cascade": {"strategy": "cascade", "variants": ["big", "mini-there"]},
    "a fallback": {"variants": ["tiny-there"], "fallbacks": ["big"], "on": ["5xx"]},
    "samples and a judge": {
        "strategy": "cascade",
        "variants": ["big", "mini-there"],
        "accept": {"agree": 2, "judge": "judge-there"},
    },
    "a hedge": {"variants": ["big"], "fallbacks": ["tiny-there"], "hedge_after_ms": 1, "hedge_share": 0.5},
}


@pytest.mark.parametrize(
    ("way", "kind"),
    [
        pytest.param(way, kind, marks=pytest.mark.long if kind == "redis" and way != "a hedge" else ())
        for way in WAYS
        for kind in KINDS
    ],
)
async def test_200_at_once_spend_no_more_than_the_budget_whatever_is_tried(kind: str, way: str, tmp_path: Path) -> None:
    with ValkeyProcess() if kind == "redis" else nullcontext() as server:
        settings: dict[str, Any] = {"budgets": [budget(str(LIMIT))]}
        if server is not None:
            settings |= {"store__url": server.url, "spend__deadline_ms": 30_000, "store__deadline_ms": 30_000}
        async with house(tmp_path, [{"model": "mini"} | WAYS[way]], **settings) as at:
            at.proxy.client.timeout = 300
            refused = way in ("a cascade", "samples and a judge")
            at.default.default = Script(wait_s=0.05, words=WORDS, says=REFUSES if way == "a cascade" else None)
            at.cheap.default = Script(words=WORDS)
            at.third.default = Script(status=500) if way == "a fallback" else Script(says="No.")
            if way == "a hedge":  # where a loser's answer is on the way when it is hung up, its meter alone knows that
                at.third.default = Script(wait_s=2, status=503)

            async def ask(number: int) -> int:
                stream = not refused and number % 2 == 0
                body = chat(f"question {number}", model="mini", max_tokens=WORDS, stream=stream)
                return (await at.proxy.post(body)).status_code

            assert await ask(1000) == 200  # while there is room for it the dear one is asked
            assert any(call.model == "m" for call in at.default.calls)
            first = await asyncio.gather(*map(ask, range(200)))
            told = await standing(at.proxy)
            assert 200 in first and set(first) <= {200, 402, 500}
            assert 0 < meter(*at.ups) <= LIMIT * 10**12
            assert told["subjects"][0]["held_usd"] == 0
            rows = await at.proxy.rows(201)
            spent = Decimal(str(told["subjects"][0]["spent_usd"])) * 10**12
            assert spent == sum(row["cost_usd"] or 0 for row in rows) <= LIMIT * 10**12
            # What was reserved and not used can be spent after all.
            assert 200 in [await ask(number) for number in range(1001, 1020)] or spent > LIMIT * 10**12 * 9 // 10


@pytest.mark.parametrize("kind", KINDS)
async def test_a_further_round_needs_room_too(kind: str, up: ScriptedUpstream, tmp_path: Path) -> None:
    """The model asks for what was left out; there is room for the first answer alone."""
    up.default = Script(fetches=1)
    conversation = asked(turns=1, max_tokens=1000)  # $0.008 of output at most, of each round
    with ValkeyProcess() if kind == "redis" else nullcontext() as server:
        settings: dict[str, Any] = ON | {"budgets": [budget("0.015")]}
        if server is not None:
            settings |= {"store__url": server.url, "spend__deadline_ms": 30_000, "store__deadline_ms": 30_000}
        async with proxied(up.url, tmp_path, **settings) as proxy:
            await begun(proxy, conversation)
            answer = await proxy.post(conversation)
            told = await standing(proxy)
            rows = await proxy.rows(2)
    assert answer.status_code == 402 and "budgets.all" in answer.text
    assert len(up.calls) == 2
    assert Decimal(str(told["subjects"][0]["spent_usd"])) * 10**12 == sum(row["cost_usd"] for row in rows) > 0
    assert told["subjects"][0]["held_usd"] == 0


async def test_where_the_cheap_try_has_no_room_the_asked_for_model_answers(tmp_path: Path) -> None:
    route = {"model": "mini", "strategy": "cascade", "variants": ["big", "mini-there"]}
    async with house(tmp_path, [route], budgets=[budget("0.0003")]) as at:
        answer = await at.proxy.post(chat("hello", model="mini", max_tokens=50))
        (row,) = await at.books(1)
    assert answer.status_code == 200 and answer.headers["x-farthing-model"] == "mini"
    assert '"escalated","big: budget_exceeded"' in row["decisions"]
    assert at.default.calls == []


@pytest.mark.parametrize("kind", KINDS)
async def test_a_call_that_fails_leaves_what_is_held_for_the_one_beside_it(kind: str, tmp_path: Path) -> None:
    """The first call fails while the hedge's second is under way. That one says nothing, and is billed its prompt: its
    share is not the next one's."""
    route = {"model": "tiny", "variants": ["tiny-there"], "fallbacks": ["big", "as-big"], "on": ["5xx", "timeout"]}
    hedged = route | {"hedge_after_ms": 1, "hedge_share": 0.5}
    prompt = "word " * 1000  # $0.0201 of the dear one is reserved each time, and $0.004 is billed
    with ValkeyProcess() if kind == "redis" else nullcontext() as server:
        settings: dict[str, Any] = {"budgets": [budget("0.03")], "upstream__first_byte_timeout_s": 2}
        settings["variants"] = [TINY, BIG, BIG | {"name": "as-big"}]
        if server is not None:
            settings |= {"store__url": server.url, "spend__deadline_ms": 30_000, "store__deadline_ms": 30_000}
        async with house(tmp_path, [hedged], **settings) as at:
            at.third.default = Script(status=503, wait_s=1)
            at.default.by_text = {'"m"': Script(wait_s=600)}
            answer = await at.proxy.post(chat(prompt, model="tiny", max_tokens=9))
            told = await standing(at.proxy)
            (row,) = await at.proxy.rows(1)
    # There is room for one call of the dear one. Beside it the asked-for model finds what it needs.
    assert answer.status_code == 200 and answer.headers["x-farthing-model"] == "tiny"
    assert [call.model or "m" for call in at.default.calls] == ["m", "tiny"]
    assert "as-big: budget_exceeded" in row["decisions"] and "hedged" in row["decisions"]
    assert told["subjects"][0]["held_usd"] == 0
    assert Decimal(str(told["subjects"][0]["spent_usd"])) * 10**12 == row["cost_usd"] > 1000 * 4 * 10**6
