"""What is given up before an answer begins was asked all the same: its prompt is booked, and counts in every budget."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from farthing.proxy.rate_cards import card_of
from farthing.proxy.recompute import Verdict
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.wire.test_budgets import budget, standing
from tests.wire.test_routes import house, recomputed, silent_pico, until

PROMPT = "word " * 1000  # some 1,001 tokens: $0.002 of the model


async def spent_pico(proxy: Proxied) -> Decimal:
    told = await standing(proxy)
    assert told["subjects"][0]["held_usd"] == 0
    return Decimal(str(told["subjects"][0]["spent_usd"])) * 10**12


async def test_a_client_that_leaves_before_the_head_has_spent_its_prompt(up: ScriptedUpstream, tmp_path: Path) -> None:
    """Or leaving early would be a way to have a provider's work for nothing."""
    up.default = Script(wait_s=30)
    async with proxied(up.url, tmp_path, budgets=[budget("0.015")]) as proxy:  # $0.0101 is reserved each time
        for number in range(3):
            body = chat(f"{number} {PROMPT}", max_tokens=9)
            with pytest.raises(httpx.ReadTimeout):
                await proxy.client.post("/v1/chat/completions", json=body, timeout=0.3)
            await until(lambda: up.calls[-1].cancelled)
            rows = await proxy.rows(number + 1)
        spent = await spent_pico(proxy)
        refused = await proxy.post(chat(PROMPT, max_tokens=9))
        card = card_of(proxy.services.config)

    for row in rows:
        assert (row["outcome"], row["usage_source"], row["modelled"]) == ("abandoned", "counted", 1)
        assert (row["tokens_out"], row["baseline_usd"]) == (0, row["cost_usd"])
        assert recomputed(row, card) is Verdict.SAME
    assert spent == sum(row["cost_usd"] for row in rows) > 3 * 1000 * 2 * 10**6
    assert refused.status_code == 402


async def test_an_upstream_that_says_nothing_in_time_has_the_prompt(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default = Script(wait_s=30)
    async with proxied(up.url, tmp_path, budgets=[budget("1")], upstream__first_byte_timeout_s=0.2) as proxy:
        assert (await proxy.post(chat(PROMPT, max_tokens=9))).status_code == 504
        (row,) = await proxy.rows(1)
        assert await spent_pico(proxy) == row["cost_usd"] > 1000 * 2 * 10**6


async def test_who_is_never_reached_costs_nothing(tmp_path: Path) -> None:
    async with proxied("http://127.0.0.1:9", tmp_path, budgets=[budget("1")], upstream__retries=0) as proxy:
        assert (await proxy.post(chat(PROMPT, max_tokens=9))).status_code == 502
        (row,) = await proxy.rows(1)
        assert await spent_pico(proxy) == row["cost_usd"] == 0


@pytest.mark.parametrize(
    "route", [{"variants": ["mini-there"]}, {"strategy": "cascade", "variants": ["mini-there", "big"]}]
)
async def test_a_variant_that_a_client_leaves_has_the_prompt(tmp_path: Path, route: dict[str, Any]) -> None:
    async with house(tmp_path, [route], budgets=[budget("1")]) as at:
        at.cheap.script(Script(wait_s=30))
        asking = asyncio.get_running_loop().create_task(at.proxy.post(chat(PROMPT, max_tokens=9)))
        await until(lambda: len(at.cheap.calls) == 1)
        asking.cancel()
        await until(lambda: at.cheap.calls[0].cancelled)
        (row,) = await at.books(1)
        assert silent_pico(row) == row["cost_usd"] == await spent_pico(at.proxy) > 0


async def test_a_fallback_after_a_time_out_pays_for_both(tmp_path: Path) -> None:
    route = {"variants": ["big"], "fallbacks": ["mini-there"], "on": ["timeout"]}
    async with house(tmp_path, [route], budgets=[budget("1")], upstream__first_byte_timeout_s=0.3) as at:
        at.default.script(Script(wait_s=30))
        answer = await at.proxy.post(chat(PROMPT, max_tokens=9))
        (row,) = await at.books(1)
        assert answer.headers["x-farthing-model"] == "mini"
        assert 0 < silent_pico(row) < row["cost_usd"] == await spent_pico(at.proxy)


async def test_what_is_said_twice_counts_as_the_larger(up: ScriptedUpstream, tmp_path: Path) -> None:
    """Some readers take the first of two members, others the last one."""
    async with proxied(up.url, tmp_path, budgets=[budget("0.01")]) as proxy:
        for first, last in ((5, 100_000), (100_000, 5)):
            body = b'{"model":"m","max_tokens":%d,"messages":[{"role":"user","content":"x"}],"max_tokens":%d}'
            answer = await proxy.post(body % (first, last))
            assert (answer.status_code, answer.json()["error"]["code"]) == (402, "budget_exceeded")
    assert up.calls == []
