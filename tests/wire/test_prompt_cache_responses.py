"""Marks for the provider's prompt cache in responses, and in Anthropic's messages as in chats that become them."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from tests.fakes.marked_cache import CLAUDE, GPT, MarkedCache, marked_cache
from tests.fakes.proxying import Proxied
from tests.wire.test_prompt_cache import PRICES, SYSTEM, marks_in, serving

pytestmark = pytest.mark.clients

LONG = "a long question that nobody asks again " * 300
DEVELOPER = {"role": "developer", "content": SYSTEM}


@pytest.fixture
async def up() -> AsyncIterator[MarkedCache]:
    async with marked_cache() as server:
        yield server


def responding(up: MarkedCache, tmp_path: Path, provider: str = "openai", **settings: Any) -> Any:
    return serving(up, tmp_path, upstream__style="openai", upstream__provider=provider, **settings)


async def ask(proxy: Proxied, up: MarkedCache, *bodies: dict[str, Any]) -> list[dict[str, Any]]:
    """Each, 100 seconds after the one before; the ledger's rows."""
    for body in bodies:
        up.clock.advance(100)
        answer = await proxy.post({"model": GPT} | body, "/v1/responses")
        assert answer.status_code == 200, answer.text
    return await proxy.rows(len(bodies))


def in_the_books(up: MarkedCache, rows: list[dict[str, Any]]) -> bool:
    """Whether all rows tell what was billed, and each adds up."""
    names = ("exact", "semantic", "compress", "route", "prompt_cache")
    for row in rows:
        assert row["baseline_usd"] - row["cost_usd"] == sum(row[f"saved_{name}_usd"] for name in names)
    return bool(sum(row["cost_usd"] for row in rows) == up.billed_pico(PRICES["models"][GPT]))


@pytest.mark.parametrize("stream", [False, True])
async def test_what_is_shared_is_written_and_what_nobody_repeats_is_not(
    up: MarkedCache, tmp_path: Path, stream: bool
) -> None:
    async with (
        responding(up, tmp_path) as proxy,
        openai.AsyncOpenAI(api_key="sk-one", base_url=f"{proxy.url}/v1", max_retries=0) as client,
    ):
        for number in range(45):
            up.clock.advance(100)
            said: Any = [DEVELOPER, {"role": "user", "content": f"{number} {LONG}"}]
            if stream:
                async for _ in await client.responses.create(model=GPT, input=said, stream=True):
                    pass
            else:
                await client.responses.create(model=GPT, input=said)
        rows = await proxy.rows(45)
    assert all("prompt_cache_options" not in call.body for call in up.calls[:20])  # not by a guess
    last = up.calls[-1]
    assert last.body["prompt_cache_options"] == {"mode": "explicit"}
    assert last.body["input"][0]["content"] == [
        {"type": "input_text", "text": SYSTEM, "prompt_cache_breakpoint": {"mode": "explicit"}}
    ]
    assert last.body["input"][1] == said[1]
    assert last.read > 1024
    assert last.written == 0
    assert rows[-1]["tokens_in_cached"] == last.read
    assert rows[-1]["saved_prompt_cache_usd"] > 0
    assert in_the_books(up, rows)


async def test_instructions_cannot_be_marked_so_that_they_are_left_to_the_provider_where_it_reads_them(
    up: MarkedCache, tmp_path: Path
) -> None:
    short = " ".join(LONG.split()[:600])
    async with responding(up, tmp_path) as proxy:
        rows = await ask(proxy, up, *({"instructions": SYSTEM, "input": f"{number} {short}"} for number in range(45)))
    assert all("prompt_cache_options" not in call.body for call in up.calls)
    assert up.calls[-1].read > 1024
    assert in_the_books(up, rows)


async def test_where_nothing_returns_nothing_is_written(up: MarkedCache, tmp_path: Path) -> None:
    async with responding(up, tmp_path) as proxy:
        rows = await ask(proxy, up, *({"input": f"{number} {LONG}"} for number in range(45)))
    last = up.calls[-1]
    assert up.calls[0].written > 1024
    assert (last.body["prompt_cache_options"], last.written) == ({"mode": "explicit"}, 0)
    assert last.body["input"] == f"44 {LONG}"
    assert rows[-1]["saved_prompt_cache_usd"] > 0
    assert in_the_books(up, rows)


OWN: list[dict[str, Any]] = [
    {"prompt_cache_options": {"mode": "implicit"}},
    {"prompt_cache_retention": "24h"},
    {"previous_response_id": "resp_0"},
    {"conversation": "conv_1"},
    {"prompt": {"id": "pmpt_1"}},
]
MARKED_INPUT = [
    DEVELOPER | {"content": [{"type": "input_text", "text": SYSTEM, "prompt_cache_breakpoint": {"mode": "explicit"}}]}
]


@pytest.mark.parametrize("own", [*OWN, {"input": MARKED_INPUT}], ids=lambda own: next(iter(own)))
async def test_the_clients_own_stands_and_what_lies_elsewhere_is_not_judged(
    up: MarkedCache, tmp_path: Path, own: dict[str, Any]
) -> None:
    """After forty requests that nobody repeats, of which each alone would be marked."""
    plain = [{"input": f"{number} {LONG}"} for number in range(40)]
    async with responding(up, tmp_path) as proxy:
        await ask(proxy, up, *plain, {"input": LONG} | own)
    assert "prompt_cache_options" in up.calls[-2].body
    assert up.calls[-1].body == {"model": GPT, "input": LONG} | own


@pytest.mark.parametrize(
    ("provider", "model", "keyed"),
    [("openai", "gpt-5", True), ("x-ai", "grok-4", True), ("mistral", "mistral-large", False)],
)
async def test_a_key_in_the_body_once_reads_are_lost(
    provider: str, model: str, keyed: bool, up: MarkedCache, tmp_path: Path
) -> None:
    prices = {"models": {model: {"input_usd_per_mtok": 1, "cached_usd_per_mtok": 0.1, "output_usd_per_mtok": 8}}}
    bodies = [{"model": model, "instructions": SYSTEM, "input": f"question {number}"} for number in range(40)]
    async with responding(up, tmp_path, provider, prices=prices) as proxy:
        up.forgets = True
        await ask(proxy, up, *bodies[:4])
        up.forgets = False
        await ask(proxy, up, *bodies[4:], bodies[0] | {"prompt_cache_key": "theirs"})
    *_, ours, theirs = [call.body.get("prompt_cache_key", "") for call in up.calls]
    assert theirs == "theirs"
    assert not any(call.key for call in up.calls)  # xAI reads its header in chats alone
    assert ours.startswith("farthing-") is keyed and "clerk" not in ours


@pytest.mark.parametrize("style", ["anthropic", "any"])
async def test_messages_are_marked_as_chats_that_become_messages(up: MarkedCache, tmp_path: Path, style: str) -> None:
    """By Anthropic's own API, whether farthing knows it by its style or by its name, and by OpenAI's."""
    sent: dict[str, list[Any]] = {}
    for path in ("messages", "chat/completions") if style == "anthropic" else ("messages",):
        up.calls.clear()
        up.provider.held.clear()
        settings = {"upstream__style": style, "upstream__provider": "anthropic"}
        async with serving(up, tmp_path / path, **settings) as proxy:
            for number in range(8):
                up.clock.advance(10)
                turns = [{"role": "user", "content": f"{number // 4} " + "something long to ask " * 400}]
                for turn in range(number % 4):
                    turns += [
                        {"role": "assistant", "content": f"answer {turn}"},
                        {"role": "user", "content": f"and {turn}?"},
                    ]
                body: dict[str, Any] = {"model": CLAUDE, "max_tokens": 16}
                if path == "messages":
                    body |= {"system": SYSTEM, "messages": turns}
                else:
                    body |= {"messages": [{"role": "system", "content": SYSTEM}, *turns]}
                assert (await proxy.post(body, f"/v1/{path}")).status_code == 200
            rows = await proxy.rows(8)
        assert sum(row["cost_usd"] for row in rows) == up.billed_pico(PRICES["models"][CLAUDE])
        sent[path] = [[marks_in(part) for part in (call.body["system"], *call.body["messages"])] for call in up.calls]
    assert any(sum(marks) > 0 for marks in sent["messages"])
    assert max(sum(marks) for marks in sent["messages"]) <= 4
    assert json.dumps(sent["messages"]) == json.dumps(sent.get("chat/completions", sent["messages"]))
