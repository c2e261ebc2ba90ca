"""Whoever is asked, by whatever name, is who budgets and rates count and what is reserved is priced by."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.exchange import Controls
from tests.fakes.batches import BatchUpstream, batching
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.wire.test_budgets import METER, budget, original, standing
from tests.wire.test_defer import DAY, deferring, until

LIMIT = Decimal("0.05")
DEAR = {"input_usd_per_mtok": 2, "cached_usd_per_mtok": 1, "output_usd_per_mtok": 8}
CHEAP = {name: Decimal(usd) / 100 for name, usd in DEAR.items()}
PRICES = {"models": {"dear-model": DEAR, "other": DEAR, "cheap": CHEAP}}
WORDS = 2500  # $0.02 of the dear one
NAMES: dict[str, Any] = {
    "prices": PRICES,
    "aliases": {"fast": "dear-model", "there": "dear", "same": "cheap", "odd": "nobody-knows"},
    "variants": [{"name": "dear", "model": "dear-model"}],
}
FAST = {"x_farthing_route": "fast"}
BY_ROUTE = {"routes": [{"name": "r", "mode": "serve", "model": "cheap", "variants": ["dear"]}]}
# Ways to be led from the cheap one to the dear one: headers, and settings.
WAYS: dict[str, tuple[dict[str, str], dict[str, Any]]] = {
    "an alias": (FAST, {}),
    "an alias of a variant": ({"x_farthing_route": "there"}, {}),
    "a variant": ({"x_farthing_route": "dear"}, {}),
    "a model": ({"x_farthing_route": "dear-model"}, {}),
    "a route": ({}, BY_ROUTE),
}


@pytest.fixture
async def batched() -> AsyncIterator[BatchUpstream]:
    async with batching() as one:
        yield one


def held(told: dict[str, Any]) -> dict[str, float]:
    return {one["subject"]: one["held_usd"] for one in told["subjects"]}


async def told_of(proxy: Proxied, name: str) -> dict[str, Any]:
    """A budget as it stands, whatever goes on."""
    told = (await proxy.client.get("/farthing/api/budgets")).json()["budgets"]
    found: dict[str, Any] = next(one for one in told if one["name"] == name)
    return found


@pytest.mark.parametrize("way", WAYS)
async def test_what_waits_reserves_what_whoever_is_asked_may_cost(
    way: str, batched: BatchUpstream, tmp_path: Path
) -> None:
    """The upstream's own meter is the judge."""
    batched.default = Script(words=WORDS)
    headers, more = WAYS[way]
    settings = NAMES | more | {"budgets": [budget(str(LIMIT))], "defer__flush_s": 1.0}
    async with deferring(batched, tmp_path, **settings) as proxy:
        answers = [
            await proxy.post(chat(f"later {number}", model="cheap", max_tokens=WORDS), **DAY, **headers)
            for number in range(10)
        ]
        statuses = [one.status_code for one in answers]
        for one in answers:
            if one.status_code == 202:
                await until(proxy, one.json()["id"], "completed")
        told = await told_of(proxy, "all")
    assert statuses == [202] * 2 + [402] * 8
    assert "x-farthing-model" not in answers[0].headers  # nobody has answered
    assert [call.model for call in batched.batched] == ["dear-model"] * 2 and not batched.calls
    assert 0 < batched.half_bill(METER) <= LIMIT
    assert Decimal(str(told["subjects"][0]["spent_usd"])) == batched.half_bill(METER)
    assert held(told) == {"": 0}


@pytest.mark.parametrize("way", WAYS)
async def test_a_budget_for_each_model_counts_what_waits_as_what_is_asked_at_once(
    way: str, batched: BatchUpstream, tmp_path: Path
) -> None:
    """Whom the client names, by whatever name; where a route leads it elsewhere, the model that was asked for."""
    headers, more = WAYS[way]
    budgets = [budget("1", name="each", of="model")]
    async with deferring(batched, tmp_path, **(NAMES | more), budgets=budgets, defer__flush_s=600) as proxy:
        body = chat("now", model="cheap", max_tokens=WORDS)
        assert (await proxy.post(body, **headers)).status_code == 200
        (at_once,) = (await standing_now(proxy))["subjects"]
        assert (await proxy.post(chat("later", model="cheap", max_tokens=WORDS), **DAY, **headers)).status_code == 202
        later = held(await told_of(proxy, "each"))
    assert [call.model for call in batched.calls] == ["dear-model"]
    assert later == {at_once["subject"]: pytest.approx(0.02, abs=0.001)}
    assert at_once["subject"] == ("cheap" if way == "a route" else "dear-model")


async def standing_now(proxy: Proxied) -> dict[str, Any]:
    """The budget `each` once the answer is settled."""
    await proxy.rows(1)
    return await told_of(proxy, "each")


async def test_what_waits_for_a_model_without_a_price_is_refused(batched: BatchUpstream, tmp_path: Path) -> None:
    settings = NAMES | {"budgets": [budget("1")], "defer__flush_s": 600}
    async with deferring(batched, tmp_path, **settings) as proxy:
        for named in ("nobody-knows", "odd"):
            answer = await proxy.post(chat("x", model="cheap"), **DAY, x_farthing_route=named)
            assert (answer.status_code, answer.json()["error"]["code"]) == (402, "price_unknown")
        assert held(await told_of(proxy, "all")) == {}


async def off_by_header(proxy: Proxied) -> dict[str, str]:
    return {"x_farthing_off": "1"}


async def off_by_switch(proxy: Proxied) -> dict[str, str]:
    switch = proxy.services.state.switch
    switch.path.touch()
    async with asyncio.timeout(30):
        while not switch():
            await asyncio.sleep(0.02)
    return {}


async def off_by_settings(proxy: Proxied) -> dict[str, str]:
    assert proxy.services.config.all_off
    return {}


OFF: dict[str, tuple[Any, dict[str, Any]]] = {
    "x-farthing-off": (off_by_header, NAMES),
    "the emergency switch": (off_by_switch, NAMES),
    "every optimiser off": (
        off_by_settings,
        {"prices": PRICES, "cache__mode": "off", "compress__tidy": "off", "compress__recode": "off"},
    ),
}


@pytest.mark.parametrize("routed", ["other", "fast", "dear"])
@pytest.mark.parametrize("off", OFF)
async def test_a_name_that_leads_nowhere_is_no_way_round_a_models_limits(
    off: str, routed: str, up: ScriptedUpstream, tmp_path: Path
) -> None:
    """Where farthing changes nothing the request goes to the model in its body, whatever its header says."""
    turn_off, settings = OFF[off]
    limits: dict[str, Any] = {
        "budgets": [budget("0.00002", name="each", of="model", only=["cheap"])],
        "rate_limits": [{"name": "slow", "requests_per_min": 5, "of": "model"}],
    }
    async with proxied(up.url, tmp_path / "money", **settings, budgets=limits["budgets"]) as proxy:
        headers = await turn_off(proxy) | {"x_farthing_route": routed}
        asked = [await proxy.post(chat(f"x{n}", model="cheap", max_tokens=50), **headers) for n in range(40)]
        told = await standing(proxy, "each")
    assert {one.status_code for one in asked} == {200, 402}
    assert {call.model for call in up.calls} == {"cheap"}
    assert [one["subject"] for one in told["subjects"]] == ["cheap"]
    async with proxied(up.url, tmp_path / "rates", **settings, rate_limits=limits["rate_limits"]) as proxy:
        headers = await turn_off(proxy) | {"x_farthing_route": routed}
        asked = [await proxy.post(chat(f"x{n}", model="cheap"), **headers) for n in range(40)]
    assert {one.status_code for one in asked} == {200, 429}


async def test_a_name_for_the_very_model_in_the_body_is_that_model(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, **NAMES, budgets=[budget("1", name="each", of="model")]) as proxy:
        for number, route in enumerate(("same", "cheap")):
            assert (await proxy.post(chat(f"x{number}", model="cheap"), x_farthing_route=route)).status_code == 200
        assert (await proxy.post(chat("x2", model="same"), x_farthing_route="same")).status_code == 200
        told = await standing(proxy, "each")
    assert [one["subject"] for one in told["subjects"]] == ["cheap"]


async def test_nobody_teaches_lengths_of_a_model_that_is_not_asked(up: ScriptedUpstream, tmp_path: Path) -> None:
    """Short answers of one model would let another's long ones through with too little reserved."""
    up.default = Script(words=1)
    async with proxied(up.url, tmp_path, **NAMES, budgets=[budget("1")], cache__mode="off") as proxy:
        off = {"x_farthing_off": "1", "x_farthing_route": "other"}
        for _ in range(30):
            assert (await proxy.post(chat("x", model="cheap"), **off)).status_code == 200
        await standing(proxy)
        up.default = Script(wait_s=600)
        asking = asyncio.get_running_loop().create_task(proxy.post(chat("y", model="other")))
        async with asyncio.timeout(30):
            while len(up.calls) < 31:
                await asyncio.sleep(0.02)
        (told,) = (await told_of(proxy, "all"))["subjects"]
        asking.cancel()
    assert told["held_usd"] > 4096 * 8e-6  # what is assumed of a model that nobody has heard


async def test_farthings_own_calls_count_as_whoever_they_ask(up: ScriptedUpstream, tmp_path: Path) -> None:
    """An audit asks whom its client named, by whatever name."""
    async with proxied(up.url, tmp_path, **NAMES, budgets=[budget("1", name="each", of="model")]) as proxy:
        assert proxy.services.semantic.auditor is not None
        errands = proxy.services.semantic.auditor.errands
        own = errands.begin(original(proxy))
        own.endpoint, own.model, own.controls = own.endpoint.CHAT, "cheap", Controls(route="fast")
        own.payload = own.exact = chat("x", model="cheap", max_tokens=20)
        own.body = json.dumps(own.payload).encode()
        assert (await errands.run(own, "audit of nobody")).status == 200
        told = await standing(proxy, "each")
    assert [call.model for call in up.calls] == ["dear-model"]
    assert [one["subject"] for one in told["subjects"]] == ["dear-model"]
    assert Decimal(str(told["subjects"][0]["spent_usd"])) == up.bill(METER)
