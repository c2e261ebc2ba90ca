"""Requests that may wait, at whichever upstream they are led to: its own batch API, key, shape and price."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from anthropic import AsyncAnthropic
from openai import AsyncOpenAI

from farthing.policies.rollout import Plan
from farthing.proxy.versions import policy_version
from tests.fakes.batches import AzureBatchUpstream, BatchUpstream, listening
from tests.fakes.gemini_batches import GeminiBatchUpstream
from tests.fakes.message_batches import MessageBatchUpstream
from tests.fakes.proxying import PRICES, Proxied, chat
from tests.fakes.upstream import Script
from tests.wire.test_defer import DAY, PER_MTOK, TOGETHER, deferring, result, until

CLAUDE = {"input_usd_per_mtok": 4, "cached_usd_per_mtok": 2, "output_usd_per_mtok": 16}
CLAUDES = ("4", "2", "16")
MODELS = {"models": {**PRICES["models"], "claude": CLAUDE}}


def message(text: str = "hello there", **more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 40, "messages": [{"role": "user", "content": text}]} | more


@pytest.fixture
async def up() -> AsyncIterator[BatchUpstream]:
    async with listening(BatchUpstream()) as one:
        yield one


@pytest.fixture
async def claude() -> AsyncIterator[MessageBatchUpstream]:
    async with listening(MessageBatchUpstream()) as one:
        yield one


def two_upstreams(
    up: BatchUpstream, other: BatchUpstream, state_dir: Path, upstream: dict[str, Any], **settings: Any
) -> AbstractAsyncContextManager[Proxied]:
    """`m` goes to the default upstream, `far` to the other one, where it is called `claude`."""
    more: dict[str, Any] = {
        "upstreams": [{"name": "there", "url": other.url, "api_key": "sk-there", "batch": True} | upstream],
        "variants": [{"name": "far", "upstream": "there", "model": "claude"}],
        "routes": [{"name": "away", "model": "far-*", "variants": ["far"]}],
        "prices": MODELS,
    }
    return deferring(up, state_dir, **(more | settings))


def holds(row: dict[str, Any]) -> None:
    """The row's identity."""
    saved = sum(row[name] for name in row if name.startswith("saved_"))
    assert row["baseline_usd"] - row["cost_usd"] == saved, row


def pico(up: BatchUpstream, per_mtok: tuple[str, str, str]) -> int:
    return int(up.half_bill(per_mtok) * 10**12)


OTHERS: list[tuple[type[BatchUpstream], dict[str, Any], str]] = [
    (BatchUpstream, {}, "Bearer sk-there"),
    (BatchUpstream, {"style": "openai"}, "Bearer sk-there"),
    (AzureBatchUpstream, {"style": "azure", "api_version": "2024-10-21"}, "sk-there"),
    (MessageBatchUpstream, {"style": "anthropic"}, "sk-there"),
    (GeminiBatchUpstream, {"style": "gemini"}, "sk-there"),
]


@pytest.mark.parametrize(("kind", "upstream", "owner"), OTHERS)
async def test_a_named_variant_waits_at_its_own_upstream(
    up: BatchUpstream, tmp_path: Path, kind: type[BatchUpstream], upstream: dict[str, Any], owner: str
) -> None:
    async with listening(kind()) as other, two_upstreams(up, other, tmp_path, upstream) as proxy:
        here = (await proxy.post(chat("stay"), **DAY)).json()["id"]
        there = (await proxy.post(chat("go", model="far"), **DAY)).json()["id"]
        for id in (here, there):
            await until(proxy, id, "completed")
        got = await result(proxy, there)
        rows = {row["id"]: row for row in await proxy.rows(2)}
        while [name for name in other.files if "/batch-" not in name]:  # Gemini removes its own files by itself
            await asyncio.sleep(0.02)

    assert got.status_code == 200 and got.json()["object"] == "chat.completion"
    assert "go" in got.json()["choices"][0]["message"]["content"]
    assert [call.model for call in other.batched] == ["claude"] and [call.model for call in up.batched] == ["m"]
    assert not other.calls and not up.calls
    cleared = getattr(other, "cleared", [])
    assert {made.owner for made in [*other.batches.values(), *cleared]} == {owner}
    row = rows[there]
    assert (row["upstream"], row["model_served"]) == ("there", "claude")
    assert json.loads(row["attempts_detail"])[0]["variant"] == "far"
    assert row["cost_usd"] == pico(other, CLAUDES) and rows[here]["cost_usd"] == pico(up, PER_MTOK)
    for one in rows.values():
        holds(one)


async def test_a_route_leads_to_the_other_upstreams_batch_and_names_itself(
    up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    routes = [{"name": "away", "model": "m", "mode": "serve", "variants": ["far"]}]
    async with two_upstreams(up, claude, tmp_path, {"style": "anthropic"}, routes=routes) as proxy:
        id = (await proxy.post(chat("go"), **DAY)).json()["id"]
        await until(proxy, id, "completed")
        (row,) = await proxy.rows(1)
    assert not up.asked and len(claude.batched) == 1
    decisions = json.loads(row["decisions"])
    assert any(one[:2] == ["route", "routed"] and one[2].startswith("far") for one in decisions)
    assert row["model_requested"] == "m" and row["model_served"] == "claude"
    assert row["cost_usd"] == pico(claude, CLAUDES)
    tokens_in, tokens_out = row["tokens_in_sent"], row["tokens_out"]
    assert row["baseline_usd"] == (2 * tokens_in + 8 * tokens_out) * 10**6  # of the model that was asked for
    holds(row)


async def test_messages_wait_at_an_upstream_that_speaks_them(claude: MessageBatchUpstream, tmp_path: Path) -> None:
    async with (
        deferring(claude, tmp_path, upstream__style="anthropic") as proxy,
        AsyncAnthropic(base_url=proxy.url, api_key="sk-one", max_retries=0) as client,
    ):
        asked: Any = message("wait for me")
        raw = await client.messages.with_raw_response.create(**asked, extra_headers={"x-farthing-defer": "24h"})
        kept = json.loads(await raw.text())
        assert raw.status_code == 202 and kept["endpoint"] == "/v1/messages"
        await until(proxy, kept["id"], "completed")
        got = await result(proxy, kept["id"])
        (row,) = await proxy.rows(1)
    assert got.json()["type"] == "message" and "wait for me" in got.json()["content"][0]["text"]
    assert {made.owner for made in claude.cleared} == {"sk-one"}
    assert (row["endpoint"], row["cost_usd"]) == ("messages", pico(claude, PER_MTOK))
    assert row["baseline_usd"] == 2 * row["cost_usd"]
    holds(row)


async def test_messages_through_an_upstream_of_any_style_go_to_message_batches(
    claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    async with deferring(claude, tmp_path, upstream__api_key="sk-operator") as proxy:
        headers = {"anthropic_version": "2023-06-01"}
        id = (await proxy.post(message("wait"), "/v1/messages", **headers, **DAY)).json()["id"]
        await until(proxy, id, "completed")
        beta = await proxy.post(message("b"), "/v1/messages", anthropic_beta="x", **headers, **DAY)
        await proxy.rows(2)
        while not claude.cleared:  # what the provider holds goes once the answers are booked
            await asyncio.sleep(0.02)
    assert {made.owner for made in claude.cleared} == {"sk-operator"}
    assert beta.status_code == 200  # a batch can't carry it


async def test_messages_before_an_upstream_of_chats(up: BatchUpstream, tmp_path: Path) -> None:
    async with deferring(up, tmp_path, upstream__style="openai") as proxy:
        id = (await proxy.post(message("wait"), "/v1/messages", **DAY)).json()["id"]
        await until(proxy, id, "completed")
        got = await result(proxy, id)
        (row,) = await proxy.rows(1)
    assert got.json()["type"] == "message" and up.batched[0].path == "/v1/chat/completions"
    assert row["cost_usd"] == pico(up, PER_MTOK)
    holds(row)


async def test_a_field_that_it_has_no_word_for_is_refused_at_once(claude: MessageBatchUpstream, tmp_path: Path) -> None:
    async with deferring(claude, tmp_path, upstream__style="anthropic") as proxy:
        refused = await proxy.post(chat("x", logit_bias={"1": 2}), **DAY)
    assert refused.status_code == 400 and refused.json()["error"]["param"] == "logit_bias"


async def test_errors_of_message_batches_come_as_the_client_reads_them(
    claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    claude.statuses = {"bad": 400, "busy": 503}
    async with deferring(claude, tmp_path, upstream__style="anthropic", **TOGETHER) as proxy:
        ids = [(await proxy.post(chat(text), **DAY)).json()["id"] for text in ("good", "bad", "busy")]
        for id in ids:
            await until(proxy, id, "completed")
        got = [await result(proxy, id) for id in ids]
        rows = await proxy.rows(3)
    assert [one.status_code for one in got] == [200, 400, 200]
    assert got[1].json()["error"]["message"] == "scripted 400" and "code" in got[1].json()["error"]
    assert len(claude.calls) == 1  # the busy one was sent directly
    assert sum(row["cost_usd"] for row in rows) == pico(claude, PER_MTOK)


@pytest.mark.parametrize("ends", ["failed", "expired"])
async def test_nobody_is_left_without_an_answer(claude: MessageBatchUpstream, tmp_path: Path, ends: str) -> None:
    claude.ends, claude.answers_before_end = ends, 1
    async with deferring(claude, tmp_path, upstream__style="anthropic", **TOGETHER) as proxy:
        ids = [(await proxy.post(chat(text), **DAY)).json()["id"] for text in ("one", "two", "three")]
        for id in ids:
            assert (await until(proxy, id, "completed"))["status_code"] == 200
        rows = await proxy.rows(3)
    assert len(claude.calls) == (3 if ends == "failed" else 1)  # what expired is tried once more
    assert sum(row["cost_usd"] for row in rows) == pico(claude, PER_MTOK)
    for row in rows:
        holds(row)


@pytest.mark.parametrize("state", ["queued", "sent"])
async def test_cancel(claude: MessageBatchUpstream, tmp_path: Path, state: str) -> None:
    claude.polls = 10
    flush_s = 100 if state == "queued" else 0.05
    async with deferring(claude, tmp_path, upstream__style="anthropic", defer__flush_s=flush_s) as proxy:
        id = (await proxy.post(chat("x"), **DAY)).json()["id"]
        while state == "sent" and not claude.batches:
            await asyncio.sleep(0.02)
        await until(proxy, id, "queued" if state == "queued" else "in_progress")
        assert (await proxy.client.delete(f"/farthing/api/deferred/{id}")).json()["status"] == "cancelled"
        (row,) = await proxy.rows(1)
    assert row["outcome"] == "abandoned" and row["cost_usd"] == pico(claude, PER_MTOK)
    assert len(claude.calls) == 0


async def test_a_batch_whose_making_was_cut_off_is_not_paid_for_twice(
    claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    claude.hang_up_after_create, claude.polls = True, 10**6
    async with deferring(claude, tmp_path, upstream__style="anthropic") as proxy:
        id = (await proxy.post(chat("once"), **DAY)).json()["id"]
        while not claude.batches:
            await asyncio.sleep(0.02)
        await asyncio.sleep(0.3)
        assert len(claude.batches) == 1  # it goes on, so that nobody knows whose it is
        made, claude.polls = claude.batches["msgbatch_1"], 1
        await until(proxy, id, "completed")
        await proxy.rows(1)
    assert made.ran and len(claude.batched) == 1 and not claude.calls


async def test_a_restart_picks_up_the_batches_of_each_upstream(
    up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    up.polls = claude.polls = 10**6
    keys = {"upstream__api_key": "sk-here"}
    async with two_upstreams(up, claude, tmp_path, {"style": "anthropic"}, **keys) as proxy:
        for text, model in (("a", "m"), ("b", "far")):
            assert (await proxy.post(chat(text, model=model), **DAY)).status_code == 202
        while not (up.batches and claude.batches):
            await asyncio.sleep(0.02)
    up.polls = claude.polls = 1
    async with two_upstreams(up, claude, tmp_path, {"style": "anthropic"}, **keys) as proxy:
        rows = await proxy.rows(2)
    assert {row["upstream"] for row in rows} == {"default", "there"}
    assert len(up.batched) == len(claude.batched) == 1 and not up.calls and not claude.calls
    assert sum(row["cost_usd"] for row in rows) == pico(up, PER_MTOK) + pico(claude, CLAUDES)


async def test_an_upstream_that_is_gone_fails_its_requests_and_no_others(
    up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    async with two_upstreams(up, claude, tmp_path, {"style": "anthropic"}, defer__flush_s=100) as proxy:
        id = (await proxy.post(chat("b", model="far"), x_farthing_defer="1s")).json()["id"]
    await asyncio.sleep(1)
    async with deferring(up, tmp_path) as proxy:
        told = await until(proxy, id, "failed")
        (row,) = await proxy.rows(1)
    assert told["error"]["code"] == "credential_lost" and row["outcome"] == "failed"


async def test_a_self_hosted_upstream_answers_at_once(up: BatchUpstream, tmp_path: Path) -> None:
    async with (
        listening(BatchUpstream()) as other,
        two_upstreams(up, other, tmp_path, {"style": "vllm", "batch": None}) as proxy,
    ):
        answer = await proxy.post(chat("go", model="far"), **DAY)
        (row,) = await proxy.rows(1)
    assert answer.status_code == 200 and len(other.calls) == 1 and not other.asked
    assert ["defer", "at once", "the upstream has no batch API"] in json.loads(row["decisions"])


async def test_a_cascade_cannot_wait(up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path) -> None:
    more: dict[str, Any] = {
        "variants": [{"name": "far", "upstream": "there", "model": "claude"}, {"name": "near", "model": "m"}],
        "routes": [{"name": "r", "model": "m", "mode": "serve", "strategy": "cascade", "variants": ["near", "far"]}],
    }
    async with two_upstreams(up, claude, tmp_path, {"style": "anthropic"}, **more) as proxy:
        assert (await proxy.post(chat("go"), **DAY)).status_code == 200
        (row,) = await proxy.rows(1)
    assert ["defer", "at once", "a cascade asks one after the other"] in json.loads(row["decisions"])


async def test_each_upstream_has_its_own_discount_bounds_and_window(
    up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    own = {"style": "anthropic", "batch_price_times": 0.75, "batch_max_items": 1}
    async with two_upstreams(up, claude, tmp_path, own, defer__flush_s=0.3) as proxy:
        ids = [(await proxy.post(chat(text, model="far"), **DAY)).json()["id"] for text in "ab"]
        for id in ids:
            await until(proxy, id, "completed")
        rows = await proxy.rows(2)
    assert [len(made.lines) for made in claude.cleared] == [1, 1]
    assert sum(row["cost_usd"] for row in rows) * 2 == pico(claude, CLAUDES) * 3
    assert all(row["modelled"] for row in rows)


async def test_the_tier_of_that_upstreams_own_prices(
    up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    prices = {"models": {**MODELS["models"], "claude": CLAUDE | {"tiers": {"batch": {"times": "0.25"}}}}}
    async with two_upstreams(up, claude, tmp_path, {"style": "anthropic"}, prices=prices) as proxy:
        id = (await proxy.post(chat("a", model="claude"), x_farthing_route="far", **DAY)).json()["id"]
        await until(proxy, id, "completed")
        (row,) = await proxy.rows(1)
    assert row["cost_usd"] * 2 == pico(claude, CLAUDES)


async def test_the_models_name_alone_may_be_another(up: BatchUpstream, tmp_path: Path) -> None:
    async with deferring(up, tmp_path) as proxy:
        id = (await proxy.post(chat("x"), x_farthing_route="m-2026-01-01", **DAY)).json()["id"]
        await until(proxy, id, "completed")
        await proxy.rows(1)
    assert [call.model for call in up.batched] == ["m-2026-01-01"]


async def test_a_budget_reserves_and_settles_what_waits_elsewhere(
    up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    budgets = [{"name": "all", "usd": "0.0016", "per": "day", "hard": True}]
    more: dict[str, Any] = {"budgets": budgets, "defer__flush_s": 0.5}
    async with two_upstreams(up, claude, tmp_path, {"style": "anthropic"}, **more) as proxy:
        first = await proxy.post(chat("x", max_tokens=40, model="far"), **DAY)
        refused = await proxy.post(chat("y", max_tokens=40, model="far"), **DAY)
        assert (first.status_code, refused.status_code) == (202, 402)
        await until(proxy, first.json()["id"], "completed")
        await proxy.rows(2)
        await asyncio.sleep(0.05)
        again = await proxy.post(chat("z", max_tokens=40, model="far"), **DAY)
    assert again.status_code == 202


async def test_a_part_of_a_batch_that_fails_goes_on_along_its_route(
    up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    claude.refuses = 404
    async with two_upstreams(up, claude, tmp_path, {"style": "anthropic"}) as proxy:
        id = (await proxy.post(chat("x", model="far"), **DAY)).json()["id"]
        await until(proxy, id, "completed")
        got = await result(proxy, id)
        (row,) = await proxy.rows(1)
    assert got.json()["object"] == "chat.completion" and [call.model for call in claude.calls] == ["claude"]
    assert ["defer", "sent directly", "batch_refused"] in json.loads(row["decisions"])
    assert json.loads(row["attempts_detail"])[0]["variant"] == "far" and row["model_served"] == "claude"
    assert row["cost_usd"] == pico(claude, CLAUDES)
    holds(row)


async def test_the_official_client_reaches_the_other_upstream(
    up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    async with (
        two_upstreams(up, claude, tmp_path, {"style": "anthropic"}) as proxy,
        AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0) as client,
    ):
        raw = await client.chat.completions.with_raw_response.create(
            model="far", messages=[{"role": "user", "content": "hi"}], extra_headers={"x-farthing-defer": "1d"}
        )
        kept = json.loads(raw.text)
        await until(proxy, kept["id"], "completed")
        await proxy.rows(1)
        again = await client.chat.completions.create(model="far", messages=[{"role": "user", "content": "hi"}])
        rows = await proxy.rows(2)
    assert again.choices[0].message.content and len(claude.batched) == 1 and not claude.calls
    assert rows[1]["cache"] == "hit-exact"


async def test_while_a_candidate_is_rolled_out_each_is_served_by_the_policy_it_began_under(
    up: BatchUpstream, claude: MessageBatchUpstream, tmp_path: Path
) -> None:
    """Whom a route falls back to is another model in each policy: what waited is asked of the one its own names."""
    claude.default = Script(status=500)
    route = {"name": "r", "mode": "serve", "model": "m", "variants": ["far"], "on": ["5xx"], "fallbacks": ["one"]}
    more: dict[str, Any] = {
        "variants": [
            {"name": "far", "upstream": "there", "model": "claude"},
            {"name": "one", "model": "gpt-one"},
            {"name": "two", "model": "gpt-two"},
        ],
        "routes": [route],
        "defer__flush_s": 100,
    }
    fails = {"style": "anthropic", "retries": 0}
    async with two_upstreams(up, claude, tmp_path, fails, **more) as proxy:
        config, policies = proxy.services.config, proxy.running.policies
        other = config.routes[0].model_copy(update={"fallbacks": ("two",)})
        candidate, before = config.model_copy(update={"routes": (other,)}), policy_version(config)
        await policies.promote(candidate, now=False, plan=Plan((0.5, 1.0), 600.0, 1), unit="request")
        for number in range(24):
            answer = await proxy.post(chat(f"go {number}"), x_farthing_defer="1s")
            assert answer.status_code == 202
        rows = await proxy.rows(24)
        await policies.roll_back("", "")
        desk = proxy.services.state.deferred
        assert desk is not None and desk.works is proxy.services.deferring
    served = {(row["policy"] == before, row["model_served"]) for row in rows}
    assert served == {(True, "gpt-one"), (False, "gpt-two")}
