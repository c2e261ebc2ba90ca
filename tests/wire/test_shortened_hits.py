"""An answer whose request had been shortened is worth the client's own prompt to whoever gets it again."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from farthing.proxy.clock import FakeClock
from tests.fakes.proxying import Proxied, proxied
from tests.fakes.upstream import ScriptedUpstream
from tests.wire.test_compress import UNPROVEN, body, told

SHORT = body(told(count=6))  # no provider would cache it, so that nothing but its tokens makes its price
WORTH = ("tokens_in_original", "baseline_usd", "modelled")


def worth(row: dict[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in WORTH)


async def again_and_again(proxy: Proxied, payload: dict[str, Any], times: int) -> list[dict[str, Any]]:
    """Its rows. An answer is kept once its prompt is counted: until then the next one joins."""
    for number in range(times):
        await proxy.post(payload)
        rows = await proxy.rows(number + 1)
    return rows


async def test_the_pipelines_hit_the_short_ways_and_one_after_a_restart_are_worth_what_the_miss_was(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path) as proxy:
        rows = await again_and_again(proxy, SHORT, 3)
    async with proxied(up.url, tmp_path) as proxy:
        await proxy.post(SHORT)
        rows = await proxy.rows(4)
    miss, *hits = rows
    assert (miss["compress"], [row["cache"] for row in hits]) == ("tidy", ["hit-exact"] * 3)
    assert miss["tokens_in_original"] > miss["tokens_in_sent"] > 0
    assert [worth(row) for row in hits] == [worth(miss)] * 3
    for row in hits:
        assert row["saved_exact_usd"] == row["baseline_usd"] > 0 and row["cost_usd"] == row["tokens_in_sent"] == 0
        assert row["saved_compress_usd"] == 0  # one cause a dollar


async def test_a_hit_is_worth_what_it_would_be_without_compression(up: ScriptedUpstream, tmp_path: Path) -> None:
    """By a meter that counts as farthing does, to the token that joining the pieces of a text may make."""
    found = []
    for name, tidy in (("short", True), ("whole", False)):
        async with proxied(up.url, tmp_path / name, compress__tidy=tidy) as proxy:
            counted = proxy.services.state.tokenizer
            before, after = (counted.count(text) for text in (SHORT["messages"][2]["content"], tight(SHORT)))
            found.append(await again_and_again(proxy, SHORT, 2))
    (_, short), (_, whole) = found
    sent = [row["tokens_in_sent"] for row, _ in found]
    assert short["tokens_in_original"] - sent[0] == before - after > 0
    assert whole["tokens_in_original"] == sent[1]


def tight(payload: dict[str, Any]) -> str:
    return json.dumps(json.loads(payload["messages"][2]["content"]), separators=(",", ":"))


async def test_who_joins_is_worth_the_same(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default.wait_s = 0.2
    async with proxied(up.url, tmp_path) as proxy:
        await asyncio.gather(*(proxy.post(SHORT) for _ in range(3)))
        rows = await proxy.rows(3)
    assert sorted(row["cache"] for row in rows) == ["joined", "joined", "miss"]
    assert len({worth(row) for row in rows}) == 1


async def test_so_it_is_where_the_upstream_tells_no_usage(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default.no_usage, up.default.wait_s = True, 0.2
    async with proxied(up.url, tmp_path) as proxy:
        await asyncio.gather(*(proxy.post(SHORT) for _ in range(3)))
        rows = await proxy.rows(3)
    assert {row["usage_source"] for row in rows} == {"counted"}
    assert len({worth(row) for row in rows}) == 1


async def test_a_long_prompts_hit_keeps_to_its_own_reads(up: ScriptedUpstream, tmp_path: Path) -> None:
    """Recoded and beyond the provider's least length: the whole prompt is what it would have read."""
    clock = FakeClock()
    long = body(told(count=200))
    async with proxied(up.url, tmp_path, clock=clock, **(UNPROVEN | {"cache__mode": "exact"})) as proxy:
        miss, hit, again = await again_and_again(proxy, long, 3)
    assert miss["compress"] == "recode" and miss["tokens_in_original"] > 2 * miss["tokens_in_sent"]
    assert hit["tokens_in_original"] == again["tokens_in_original"] == miss["tokens_in_original"]
    assert hit["baseline_usd"] == again["baseline_usd"] > miss["cost_usd"]
    assert all(row["baseline_usd"] - row["cost_usd"] == saved(row) for row in (miss, hit, again))


def saved(row: dict[str, Any]) -> int:
    return sum(value for name, value in row.items() if name.startswith("saved_"))
