"""Marks for the provider's prompt cache, by the official clients, over an upstream that caches by Anthropic's rules."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from farthing.proxy.prompt_marking import Marker
from farthing.proxy.stage_prompt_cache import PromptCacheStage
from tests.fakes.marked_cache import CLAUDE, GPT, MarkedCache, Turn, marked_cache
from tests.fakes.proxying import Proxied, proxied

pytestmark = pytest.mark.clients

SYSTEM = "You are a clerk who answers politely. " * 200
"""1,400 words: more than the least length, as the fake counts."""
PRICES = {
    "models": {
        CLAUDE: {
            "input_usd_per_mtok": 2,
            "cached_usd_per_mtok": 0.2,
            "cache_write_usd_per_mtok": 2.5,
            "cache_write_1h_usd_per_mtok": 4,
            "output_usd_per_mtok": 10,
        },
        GPT: {
            "input_usd_per_mtok": 4,
            "cached_usd_per_mtok": 0.4,
            "cache_write_usd_per_mtok": 5,
            "output_usd_per_mtok": 20,
        },
    }
}


@pytest.fixture
async def up() -> AsyncIterator[MarkedCache]:
    async with marked_cache() as server:
        yield server


def serving(up: MarkedCache, tmp_path: Path, **settings: Any) -> Any:
    base: dict[str, Any] = {"upstream__style": "anthropic", "prompt_cache__mode": "serve", "prices": PRICES}
    return proxied(up.url, tmp_path, clock=up.clock, **(base | {"cache__mode": "off"} | settings))


async def ask(proxy: Proxied, number: int, **more: Any) -> anthropic.types.Message:
    async with anthropic.AsyncAnthropic(api_key="sk-ant", base_url=proxy.url, max_retries=0) as client:
        turns: Any = [{"role": "user", "content": f"question {number}"}]
        asked: Any = {"model": CLAUDE, "max_tokens": 16, "system": SYSTEM, "messages": turns} | more
        return await client.messages.create(**asked)


def marks_in(value: Any) -> int:
    return json.dumps(value).count('"cache_control"')


async def test_a_shared_system_prompt_is_marked_once_it_is_seen_to_return(up: MarkedCache, tmp_path: Path) -> None:
    async with serving(up, tmp_path) as proxy:
        for number in range(6):
            up.clock.advance(10)
            await ask(proxy, number)
        rows = await proxy.rows(6)

    sent = [call.body for call in up.calls]
    assert marks_in(sent[0]) == 0  # nobody knows whether it returns
    assert [block["cache_control"] for block in sent[-1]["system"]] == [{"type": "ephemeral"}]
    assert marks_in(sent[-1]) == 1  # the questions never return
    assert up.calls[-1].read > 1024
    assert sum(row["cost_usd"] for row in rows) == up.billed_pico(PRICES["models"][CLAUDE])
    for row in rows:
        saved = sum(row[f"saved_{name}_usd"] for name in ("exact", "semantic", "compress", "route", "prompt_cache"))
        assert row["baseline_usd"] - row["cost_usd"] == saved
    plain = [call.plain_pico(PRICES["models"][CLAUDE]) for call in up.calls]
    assert [row["baseline_usd"] for row in rows] == plain  # without marks all of it would have been paid in full
    first = next(number for number, call in enumerate(up.calls) if call.written)
    assert rows[first]["saved_prompt_cache_usd"] < 0 < rows[-1]["saved_prompt_cache_usd"]
    assert ["prompt_cache", "marked"] in [one[:2] for one in json.loads(rows[-1]["decisions"])]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_chat_client_gets_it_too(up: MarkedCache, tmp_path: Path, stream: bool) -> None:
    async with (
        serving(up, tmp_path) as proxy,
        openai.AsyncOpenAI(api_key="sk-one", base_url=f"{proxy.url}/v1", max_retries=0) as client,
    ):
        for number in range(6):
            up.clock.advance(10)
            said: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"question {number}"}]
            if stream:
                async for _ in await client.chat.completions.create(model=CLAUDE, messages=said, stream=True):
                    pass
            else:
                await client.chat.completions.create(model=CLAUDE, messages=said)
        rows = await proxy.rows(6)

    assert up.calls[-1].read > 1024
    assert rows[-1]["tokens_in_cached"] == up.calls[-1].read
    assert sum(row["cost_usd"] for row in rows) == up.billed_pico(PRICES["models"][CLAUDE])


async def test_a_conversation_is_read_on_where_it_was_left(up: MarkedCache, tmp_path: Path) -> None:
    """Once conversations are seen to go on, their ends are marked, and each turn reads all before it."""
    async with serving(up, tmp_path) as proxy:
        for conversation in range(12):
            turns: list[Turn] = [{"role": "user", "content": f"{conversation} " + "something long to ask " * 400}]
            for number in range(4):
                up.clock.advance(20)
                answer = await ask(proxy, 0, messages=list(turns), system="Be brief.")
                turns += [
                    {"role": "assistant", "content": answer.content[0].text},  # type: ignore[union-attr]
                    {"role": "user", "content": f"and {number}?"},
                ]
    last = up.calls[-3:]
    assert all(call.read > 1500 for call in last)
    assert all(marks_in(call.body) <= 4 for call in up.calls)


async def test_observing_tells_and_changes_nothing(up: MarkedCache, tmp_path: Path) -> None:
    async with serving(up, tmp_path, prompt_cache__mode="observe") as proxy:
        for number in range(5):
            up.clock.advance(10)
            await ask(proxy, number)
        rows = await proxy.rows(5)
        metrics = (await proxy.client.get("/metrics")).text

    assert all(marks_in(call.body) == 0 for call in up.calls)
    decisions = json.loads(rows[-1]["decisions"])
    assert any(one[1] == "would mark" and "1 breakpoint, expected saving $0.00" in one[2] for one in decisions)
    assert rows[-1]["saved_prompt_cache_usd"] == 0
    assert 'farthing_prompt_cache_breakpoints_total{mode="observed"}' in metrics


@pytest.mark.parametrize(
    "headers, settings", [({"x-farthing-off": "1"}, {}), ({}, {"prompt_cache__mode": "off"})], ids=["header", "config"]
)
async def test_off_is_off(up: MarkedCache, tmp_path: Path, headers: Any, settings: Any) -> None:
    async with serving(up, tmp_path, **settings) as proxy:
        for number in range(5):
            up.clock.advance(10)
            await ask(proxy, number, extra_headers=headers)
    assert all(marks_in(call.body) == 0 for call in up.calls)


async def test_the_clients_own_marks_stand(up: MarkedCache, tmp_path: Path) -> None:
    own = [{"type": "text", "text": SYSTEM, "cache_control": {"type": "ephemeral"}}]
    async with serving(up, tmp_path) as proxy:
        for number in range(5):
            up.clock.advance(10)
            await ask(proxy, number, system=own)
        rows = await proxy.rows(5)
    assert all(call.body["system"] == own and marks_in(call.body) == 1 for call in up.calls)
    assert all(row["saved_prompt_cache_usd"] == 0 for row in rows)


async def test_an_upstream_that_refuses_marks_gets_the_request_as_it_was(up: MarkedCache, tmp_path: Path) -> None:
    up.refuses_marks = True
    async with serving(up, tmp_path) as proxy:
        for number in range(8):
            up.clock.advance(10)
            await ask(proxy, number)
        rows = await proxy.rows(8)
    refused = [call for call in up.calls if call.status == 400]
    assert len(refused) == 1  # and then it is left alone
    assert all(row["status"] == 200 for row in rows)
    assert any(one[:2] == ["prompt_cache", "left"] for row in rows for one in json.loads(row["decisions"]))


async def test_one_off_prompts_are_not_written_where_writing_is_charged(up: MarkedCache, tmp_path: Path) -> None:
    """GPT-5.6 writes all by itself, for a quarter more: explicit breakpoints write the shared part alone."""
    async with (
        serving(up, tmp_path, upstream__style="openai", upstream__provider="openai") as proxy,
        openai.AsyncOpenAI(api_key="sk-one", base_url=f"{proxy.url}/v1", max_retries=0) as client,
    ):
        for number in range(45):
            up.clock.advance(100)
            text = f"{number} " + "a long question that nobody asks again " * 300
            said: Any = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": text}]
            await client.chat.completions.create(model=GPT, messages=said)
        rows = await proxy.rows(45)
    assert all("prompt_cache_options" not in call.body for call in up.calls[:20])  # not by a guess
    last = up.calls[-1]
    assert last.body["prompt_cache_options"] == {"mode": "explicit"}
    assert last.body["messages"][0]["content"][0]["prompt_cache_breakpoint"] == {"mode": "explicit"}
    assert last.read > 1024
    assert last.written == 0
    assert sum(row["cost_usd"] for row in rows) == up.billed_pico(PRICES["models"][GPT])
    assert rows[-1]["saved_prompt_cache_usd"] > 0


async def test_each_leg_gets_marks_of_its_own(up: MarkedCache, tmp_path: Path) -> None:
    """The first variant's upstream is of no provider that is known: it sees no foreign field, the second one marks."""
    other = {"name": "claude", "url": up.url, "style": "anthropic", "api_key": "sk-other"}
    settings: dict[str, Any] = {
        "upstreams": [other],
        "variants": [{"name": "big", "model": CLAUDE, "upstream": "claude"}, {"name": "small", "model": "mini"}],
        "routes": [
            {"name": "r", "mode": "serve", "model": "m", "variants": ["small"], "fallbacks": ["big"], "on": ["5xx"]}
        ],
        "prices": {
            "models": PRICES["models"]
            | {name: {"input_usd_per_mtok": 1, "output_usd_per_mtok": 1} for name in ("m", "mini")}
        },
    }
    up.fails_models = ("mini",)
    async with serving(up, tmp_path, upstream__style="any", **settings) as proxy:
        for number in range(6):
            up.clock.advance(10)
            said = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"question {number}"}]
            answer = await proxy.post({"model": "m", "messages": said})
            assert answer.status_code == 200, answer.text
        rows = await proxy.rows(6)
    plain, marked = up.calls[-2:]
    assert (plain.status, marks_in(plain.body)) == (500, 0)
    assert "prompt_cache_key" not in plain.body
    assert (marked.status, marks_in(marked.body)) == (200, 1)
    assert marked.read > 1024
    assert any(one[:2] == ["prompt_cache", "marked"] for one in json.loads(rows[-1]["decisions"]))
    for row in rows:
        saved = sum(row[f"saved_{name}_usd"] for name in ("exact", "semantic", "compress", "route", "prompt_cache"))
        assert row["baseline_usd"] - row["cost_usd"] == saved
    assert rows[-1]["saved_prompt_cache_usd"] > 0


async def test_a_hit_saves_what_would_have_been_paid_without_marks(up: MarkedCache, tmp_path: Path) -> None:
    async with serving(up, tmp_path, cache__mode="exact") as proxy:
        for number in range(4):
            up.clock.advance(10)
            await ask(proxy, number)
        await ask(proxy, 3)
        rows = await proxy.rows(5)
    assert rows[-1]["cache"] == "hit-exact"
    assert rows[-1]["saved_exact_usd"] == up.calls[-1].plain_pico(PRICES["models"][CLAUDE])


async def test_a_failing_marker_fails_no_request(
    up: MarkedCache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(*_: Any) -> None:
        raise RuntimeError("broken")

    monkeypatch.setattr(Marker, "look", fails)
    async with serving(up, tmp_path) as proxy:
        await ask(proxy, 0)
        [row] = await proxy.rows(1)
    assert row["status"] == 200
    assert ["prompt_cache", "error", "RuntimeError"] in json.loads(row["decisions"])


async def test_a_hot_prefix_is_kept_warm_and_paid_for(up: MarkedCache, tmp_path: Path) -> None:
    """Requests that come every six minutes never find what five minutes keep, unless it is read once between."""
    settings: dict[str, Any] = {"prompt_cache__keep_warm": True, "prompt_cache__one_hour": False}
    async with serving(up, tmp_path, **settings) as proxy:
        warmer = stage_of(proxy).warmer
        assert warmer is not None
        for number in range(12):
            for quick in range(3):  # so that marks pay at all
                up.clock.advance(10)
                await ask(proxy, 10 * number + quick)
            for _ in range(12):
                up.clock.advance(30)
                await warmer.tick()
        rows = await proxy.rows()
    warm = [row for row in rows if row["endpoint"] == "warm"]
    asked = [row for row in rows if row["endpoint"] != "warm"]
    assert 1 <= len(warm) <= 12
    assert all(row["overhead_usd"] > 0 and row["cost_usd"] in (0, None) for row in warm)
    assert up.calls[-3].read > 1024  # the first one after the pause, six minutes later
    billed = up.billed_pico(PRICES["models"][CLAUDE])
    assert sum(row["cost_usd"] for row in asked) + sum(row["overhead_usd"] for row in warm) == billed


async def test_nothing_is_kept_warm_while_all_is_switched_off(up: MarkedCache, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"prompt_cache__keep_warm": True, "prompt_cache__one_hour": False}
    async with serving(up, tmp_path, **settings) as proxy:
        warmer = stage_of(proxy).warmer
        assert warmer is not None
        number = 0
        while not warmer.waiting and number < 60:  # until one is worth it
            up.clock.advance(10 if number % 3 else 360)
            await ask(proxy, number)
            number += 1
        assert warmer.waiting
        proxy.services.state.switch.set(off=True)
        for _ in range(12):
            up.clock.advance(30)
            await warmer.tick()
        rows = await proxy.rows(number)
    assert not [row for row in rows if row["endpoint"] == "warm"]


async def test_a_conversation_stays_on_its_key(up: MarkedCache, tmp_path: Path) -> None:
    keys = ["sk-a", "sk-b", "sk-c"]
    async with serving(up, tmp_path, upstream__api_keys=keys) as proxy:
        for number in range(9):
            up.clock.advance(10)
            await ask(proxy, number)
    assert len({call.key for call in up.calls}) == 1
    up.calls.clear()
    async with serving(up, tmp_path, upstream__api_keys=keys, prompt_cache__mode="observe") as proxy:
        for number in range(30):
            up.clock.advance(10)
            await ask(proxy, number)
    assert len({call.key for call in up.calls}) == 3


async def test_tools_come_in_one_order_where_that_is_asked_for(up: MarkedCache, tmp_path: Path) -> None:
    tools: Any = [{"name": name, "input_schema": {"type": "object"}, "description": "word " * 600} for name in "abc"]
    async with serving(up, tmp_path, prompt_cache__stable_tools=True) as proxy:
        for number in range(8):
            up.clock.advance(10)
            await ask(proxy, number, tools=tools[number % 3 :] + tools[: number % 3])
        rows = await proxy.rows(8)
    assert [tool["name"] for tool in up.calls[-1].body["tools"]] == ["a", "b", "c"]
    assert up.calls[-1].read > 1024
    assert rows[-1]["saved_prompt_cache_usd"] > 0


async def test_budgets_reserve_for_writes(up: MarkedCache, tmp_path: Path) -> None:
    """A body of 7.5 kB is reserved as 7,500 tokens: $0.030 written for an hour, $0.015 at the ordinary price."""
    budgets = [{"name": "small", "usd": 0.022, "per": "day"}]
    statuses = {}
    for mode in ("observe", "serve"):
        async with serving(up, tmp_path / mode, budgets=budgets, prompt_cache__mode=mode) as proxy:
            body = {"model": CLAUDE, "max_tokens": 1, "system": SYSTEM, "messages": [{"role": "user", "content": "?"}]}
            statuses[mode] = (await proxy.post(body, "/v1/messages")).status_code
    assert statuses == {"observe": 200, "serve": 402}


@pytest.mark.parametrize(
    ("provider", "model", "in_header"),
    [("openai", "gpt-5", False), ("mistral", "mistral-large", False), ("x-ai", "grok-4", True)],
)
async def test_a_key_spreads_conversations_once_reads_are_lost(
    provider: str, model: str, in_header: bool, up: MarkedCache, tmp_path: Path
) -> None:
    """An automatic cache that has nothing of what it should have gets a key; that key names no text."""
    prices = {"models": {model: {"input_usd_per_mtok": 1, "cached_usd_per_mtok": 0.1, "output_usd_per_mtok": 8}}}
    up.forgets = True
    async with serving(up, tmp_path, upstream__style="openai", upstream__provider=provider, prices=prices) as proxy:
        for number in range(40):
            up.clock.advance(1)
            said = [{"role": "system", "content": SYSTEM}, {"role": "user", "content": f"question {number}"}]
            assert (await proxy.post({"model": model, "messages": said})).status_code == 200
            if number == 3:
                up.forgets = False
        own = await proxy.post({"model": model, "messages": said}, x_grok_conv_id="theirs")
    assert own.status_code == 200
    *ours, theirs = [call.key or call.body.get("prompt_cache_key") for call in up.calls]
    assert ours[0] is None
    assert ours[-1].startswith("farthing-")
    assert "clerk" not in ours[-1]
    assert theirs == "theirs"
    assert all("prompt_cache_options" not in call.body for call in up.calls)
    assert ("prompt_cache_key" in up.calls[-2].body) is not in_header


def stage_of(proxy: Proxied) -> PromptCacheStage:
    [stage] = [one for one, _, _ in proxy.services.pipeline._back_ways if isinstance(one, PromptCacheStage)]
    return stage
