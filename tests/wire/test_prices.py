"""What an answer says of its price, from the wire to the ledger: tiers, cache writes, audio, and counts that drift."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import orjson
import pytest
from rich.console import Console

from farthing.proxy.cli_prices import check, recomputed
from farthing.proxy.clock import FakeClock
from farthing.proxy.config import Config
from farthing.proxy.config_prices import Prices
from tests.fakes.proxying import chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream

USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
PRICES = {
    "models": {
        "m": {
            "input_usd_per_mtok": 2,
            "output_usd_per_mtok": 8,
            "cache_write_usd_per_mtok": 2.5,
            "cache_write_1h_usd_per_mtok": 4,
            "tiers": {"flex": {"times": 0.5}},
        }
    }
}


def whole(**more: Any) -> Script:
    choice = {"index": 0, "message": {"role": "assistant", "content": "said"}, "finish_reason": "stop"}
    answer = {"id": "c", "object": "chat.completion", "model": "m", "choices": [choice], "usage": USAGE} | more
    return Script(body=orjson.dumps(answer), headers={"Content-Type": "application/json"})


def stream(*, usage_told: bool = True, **more: Any) -> Script:
    base = {"id": "c", "object": "chat.completion.chunk", "model": "m"} | more
    chunks = [
        base | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "said"}}]},
        base | {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]},
        *([base | {"choices": [], "usage": USAGE}] if usage_told else []),
    ]
    body = b"".join(b"data: " + orjson.dumps(chunk) + b"\n\n" for chunk in chunks) + b"data: [DONE]\n\n"
    return Script(body=body, headers={"Content-Type": "text/event-stream"})


def anthropic() -> Script:
    usage = {
        "input_tokens": 10,
        "cache_read_input_tokens": 0,
        "cache_creation_input_tokens": 1500,
        "cache_creation": {"ephemeral_5m_input_tokens": 500, "ephemeral_1h_input_tokens": 1000},
        "output_tokens": 100,
        "service_tier": "standard",
    }
    content = [{"type": "text", "text": "said"}]
    answer = {"id": "msg", "type": "message", "role": "assistant", "model": "m", "content": content, "usage": usage}
    return Script(body=orjson.dumps(answer | {"stop_reason": "end_turn"}), headers={"Content-Type": "application/json"})


async def test_the_answers_tier_is_what_is_billed_and_the_ledger_says_so(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, prices=PRICES) as proxy:
        up.script(
            whole(service_tier="default"),
            whole(service_tier="flex"),
            stream(service_tier="flex"),
            whole(service_tier="scale"),
            anthropic(),
        )
        await proxy.post(chat("asked for priority, downgraded", service_tier="priority"))
        await proxy.post(chat("flex", service_tier="flex"))
        await proxy.post(chat("flex", service_tier="flex"))  # from the cache, at the tier that it was bought at
        await proxy.post(chat("streamed", service_tier="flex", stream=True))
        await proxy.post(chat("scale"))
        message = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "cached"}]}
        await proxy.post(message, "/v1/messages")
        rows = await proxy.rows(6)

    full, half = 2_800_000_000, 1_400_000_000
    written = 10 * 2_000_000 + 500 * 2_500_000 + 1000 * 4_000_000 + 100 * 8_000_000
    assert [row["cost_usd"] for row in rows] == [full, half, 0, half, None, written]
    assert [row["baseline_usd"] for row in rows] == [full, half, half, half, None, written]
    assert [row["cache"] for row in rows][2] == "hit-exact"
    told = [json.loads(row["attempts_detail"])[-1].get("usage") if row["attempts"] else None for row in rows]
    flex = {"tier": "flex"}
    assert told == [None, flex, None, flex, {"tier": "scale"}, {"cache_write_1h": 1000}]
    assert rows[5]["tokens_in_cache_write"] == 1500

    config = Config(state_dir=tmp_path, prices=Prices.model_validate(PRICES))
    out: list[Any] = []
    assert recomputed(config, "1d", out.append, Console(file=io.StringIO())) == 0
    assert out[0]["rows"]["same"]["rows"] == 5
    assert check(config, Console(file=io.StringIO()), out.append) == 1
    assert out[1][0]["tiers_without_price"] == {"scale": 1}


async def test_a_stream_without_usage_is_counted_and_costs_what_its_tier_does(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, prices=PRICES) as proxy:
        for tier in ("default", "flex"):
            up.script(stream(usage_told=False, service_tier=tier))
            await proxy.post(chat("streamed", service_tier=tier, stream=True))
        rows = await proxy.rows(2)
    assert [row["usage_source"] for row in rows] == ["counted"] * 2
    assert rows[0]["tokens_in_sent"] == rows[1]["tokens_in_sent"] > 0
    assert rows[0]["cost_usd"] == 2 * rows[1]["cost_usd"] > 0


async def test_a_total_below_its_parts_is_told_and_the_parts_are_billed(up: ScriptedUpstream, tmp_path: Path) -> None:
    sums = {"prompt_tokens": 900, "completion_tokens": 100}
    async with proxied(up.url, tmp_path, prices=PRICES) as proxy:
        for total in (1000, 500):
            up.script(whole(usage={**sums, "total_tokens": total}))
            await proxy.post(chat(f"adds up to {total}"))
        right, wrong = await proxy.rows(2)
    said = [["usage", "total below its parts", ""]]
    assert [each for each in json.loads(right["decisions"]) if each[0] == "usage"] == []
    assert [each for each in json.loads(wrong["decisions"]) if each[0] == "usage"] == said
    assert right["cost_usd"] == wrong["cost_usd"] > 0
    assert (wrong["usage_source"], wrong["modelled"]) == ("upstream", right["modelled"])


@pytest.mark.parametrize("times", [1.0, 1.2])
async def test_counts_that_drift_are_seen_in_metrics_and_readiness(
    up: ScriptedUpstream, tmp_path: Path, times: float
) -> None:
    clock = FakeClock()
    async with proxied(up.url, tmp_path, ledger__drift_sample=1.0, clock=clock) as proxy:
        tokenizer = proxy.services.state.tokenizer
        text, said = "The quick brown fox jumps over the lazy dog. " * 30, "said and done " * 99
        given, made = tokenizer.count(text, "gpt-4o-mini") + 7, tokenizer.count(said, "gpt-4o-mini")
        choice = {"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}
        for n in range(24):
            usage = {"prompt_tokens": given, "completion_tokens": round(made * times)}
            up.script(whole(model="gpt-4o-mini", usage=usage, choices=[choice]))
            clock.mono_s += 1.0  # at most one a second is counted
            await proxy.post(chat(text, model="gpt-4o-mini", seed=n))
            await proxy.rows(n + 1)  # one is counted at a time; while that lasts others go uncounted
        metrics = (await proxy.client.get("/metrics")).text
        ready = (await proxy.client.get("/readyz")).json()
    ratios = {
        line.partition("{")[2].partition(",")[0]: float(line.split()[-1])
        for line in metrics.splitlines()
        if line.startswith("farthing_usage_drift_ratio{")
    }
    assert ratios == {
        'direction="in"': 0.0,
        'direction="out"': pytest.approx(1 / times - 1, abs=0.001),
    }
    alarm = times > 1
    assert f'farthing_usage_drift_alarm{{model="gpt-4o-mini"}} {float(alarm)}' in metrics
    assert ready["usage_drift"] == (["gpt-4o-mini"] if alarm else [])
