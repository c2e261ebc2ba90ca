"""What traffic would have cost without a proxy is what a second upstream's meter charges for it, asked directly.

Both upstreams cache prompts by one provider's rules, and both see the requests in one order and at the same times.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import pytest

from farthing.proxy.clock import FakeClock
from tests.fakes.prompt_cache import PromptCache
from tests.fakes.proxying import Proxied, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted

USD_PER_MTOK = ("2", "1", "8")  # of tests.fakes.proxying.PRICES
Turns = list[dict[str, Any]]


@dataclass(frozen=True)
class Asked:
    """A request and how long after the one before; several at once where `times` is more."""

    turns: Turns
    after_s: float = 1.0
    key: str = "sk-one"
    headers: tuple[tuple[str, str], ...] = ()
    stream: bool = False
    times: int = 1
    answer: str = "Fine."

    @property
    def body(self) -> dict[str, Any]:
        """What is posted."""
        body = {"model": "m", "messages": self.turns}
        return body | {"stream": True, "stream_options": {"include_usage": True}} if self.stream else body


@dataclass
class World:
    """The proxy and the upstream behind it, and the upstream that is asked directly."""

    proxy: Proxied
    behind: ScriptedUpstream
    direct: ScriptedUpstream
    clock: FakeClock


@asynccontextmanager
async def world(state_dir: Path, **settings: Any) -> AsyncIterator[World]:
    clock = FakeClock()
    async with scripted() as behind, scripted() as direct:
        for up in (behind, direct):
            up.prompt_cache, up.default = PromptCache(clock.now_s), Script(says="Fine.", wait_s=0.0)
        async with proxied(
            behind.url, state_dir, clock=clock, **({"compress__provider_cache": "openai"} | settings)
        ) as proxy:
            yield World(proxy, behind, direct, clock)


def words(topic: str, count: int) -> str:
    """So many words, all of one length, that no other topic begins with."""
    return " ".join([f"{topic:_<7}"] * count)


def user(topic: str, count: int) -> dict[str, str]:
    return {"role": "user", "content": words(topic, count)}


def system(topic: str, count: int) -> dict[str, str]:
    return {"role": "system", "content": words(topic, count)}


SAID = {"role": "assistant", "content": "Fine."}


async def run(w: World, traffic: Sequence[Asked], *, booked: bool = False) -> list[dict[str, Any]]:
    """Each request to both; the rows. `booked`: each when the one before is in the books, which takes a moment where
    tokens have to be counted."""
    count = 0
    async with httpx.AsyncClient(base_url=w.direct.url.removesuffix("/v1"), timeout=30) as client:
        for asked in traffic:
            w.clock.advance(asked.after_s)
            headers = {"Authorization": f"Bearer {asked.key}", **dict(asked.headers)}
            for up in (w.behind, w.direct):
                up.default = Script(says=asked.answer, wait_s=0.1 if asked.times > 1 else 0.0)
            for whom in (w.proxy.client, client):
                sent = [whom.post("/v1/chat/completions", json=asked.body, headers=headers) for _ in range(asked.times)]
                for answer in await asyncio.gather(*sent):
                    assert answer.status_code == 200
            count += asked.times
            if booked:
                await w.proxy.rows(count)
    return await w.proxy.rows(count)


def dollars(rows: Sequence[dict[str, Any]], *columns: str) -> Decimal:
    return sum((Decimal(row[column]) for row in rows for column in columns), Decimal(0)).scaleb(-12)


def agrees(w: World, rows: Sequence[dict[str, Any]]) -> None:
    """The books are both meters'."""
    assert dollars(rows, "cost_usd", "overhead_usd") == w.behind.bill(USD_PER_MTOK)
    assert dollars(rows, "baseline_usd") == w.direct.bill(USD_PER_MTOK)
    for row in rows:
        causes = ("exact", "semantic", "compress", "route", "prompt_cache")
        assert row["baseline_usd"] - row["cost_usd"] == sum(row[f"saved_{cause}_usd"] for cause in causes)


async def test_a_repeated_long_prompt_would_have_been_read_from_the_providers_cache(tmp_path: Path) -> None:
    prompt = [user("contract", 2000)]
    async with world(tmp_path) as w:
        first, *hits = rows = await run(w, [Asked(prompt), Asked(prompt), Asked(prompt, 30), Asked(prompt, 700)])
        agrees(w, rows)
    assert [row["cache"] for row in rows] == ["miss", "hit-exact", "hit-exact", "hit-exact"]
    fresh = first["baseline_usd"]
    assert [row["baseline_usd"] == row["saved_exact_usd"] for row in hits] == [True] * 3
    read = 2003 // 128 * 128 * 10**6
    assert [row["baseline_usd"] for row in hits] == [fresh - read, fresh - read, fresh]
    assert [row["modelled"] for row in rows] == [0, 1, 1, 0]


async def test_hits_answered_here_leave_the_providers_cache_cold(tmp_path: Path) -> None:
    """The hit would have kept it warm: what the next turn costs more is the proxy's doing, and shows."""
    begun = [user("contract", 1500)]
    traffic = [Asked(begun), Asked(begun, 400), Asked([*begun, SAID, user("and", 10)], 400)]
    async with world(tmp_path) as w:
        rows = await run(w, traffic)
        agrees(w, rows)
    assert [row["tokens_in_cached"] for row in rows] == [0, 0, 0]
    assert rows[2]["saved_prompt_cache_usd"] == -(1503 // 128 * 128) * 10**6
    assert rows[2]["baseline_usd"] < rows[2]["cost_usd"]


async def test_whoever_joins_would_have_found_the_cache_cold(tmp_path: Path) -> None:
    async with world(tmp_path) as w:
        rows = await run(w, [Asked([user("contract", 1500)], times=3), Asked([user("contract", 1500)])])
        agrees(w, rows)
    assert sorted(row["cache"] for row in rows) == ["hit-exact", "joined", "joined", "miss"]
    assert len({row["baseline_usd"] for row in rows}) == 2


async def test_untouched_traffic_is_as_billed(tmp_path: Path) -> None:
    """Nothing that we did could have changed it: what was billed is what it would have been, whatever we simulate."""
    off = (("x-farthing-off", "1"),)
    shared = system("rules", 1700)
    traffic = [
        Asked([shared, user(f"q{n}", 300)], 100, headers=off if n % 2 else (("Cache-Control", "no-store"),))
        for n in range(6)
    ]
    async with world(tmp_path) as w:
        w.behind.prompt_cache = PromptCache(w.clock.now_s, kept_s=50)  # this provider keeps less than it says
        rows = await run(w, traffic)
        assert dollars(rows, "baseline_usd") == dollars(rows, "cost_usd") == w.behind.bill(USD_PER_MTOK)
    assert not any(row["modelled"] or row["saved_prompt_cache_usd"] for row in rows)


async def test_a_provider_that_keeps_less_than_it_says_is_believed_less(tmp_path: Path) -> None:
    prompt, off = [user("contract", 2000)], (("Cache-Control", "no-store"),)
    async with world(tmp_path) as w:
        w.behind.prompt_cache = PromptCache(w.clock.now_s, least=10**9)
        rows = await run(w, [*[Asked(prompt, headers=off)] * 100, Asked(prompt), Asked(prompt)])
    whole = rows[0]["baseline_usd"]
    assert rows[-1]["cache"] == "hit-exact"
    promised = 2003 // 128 * 128
    believed = promised * 20_000 // (20_000 + 100 * promised)
    assert rows[-1]["baseline_usd"] == whole - believed * 10**6


async def test_header_and_row_tell_one_amount(tmp_path: Path) -> None:
    body = {"model": "m", "messages": [user("contract", 2000)]}
    told = []
    async with world(tmp_path) as w:
        for after_s in (1, 1, 1, 1, 700, 1, 50, 0.1, 61, 1):
            w.clock.advance(after_s)
            told.append((await w.proxy.post(body)).headers["x-farthing-saved-usd"])
        rows = await w.proxy.rows(10)
    assert [Decimal(text) for text in told] == [
        dollars([row], "baseline_usd") - dollars([row], "cost_usd") for row in rows
    ]
    assert len(set(told)) == 3  # of the miss, of warm hits, of the hit on a cold cache


def mixed(chance: random.Random, *, headers: bool = True, streams: bool = True) -> list[Asked]:
    """Shared system prompts, conversations that grow and branch, repeats, pauses, streams, callers, joined requests."""
    heads = [system(name, count) for name, count in (("alpha", 1700), ("beta", 2600), ("gamma", 40))]
    talks: list[Turns] = [[chance.choice(heads), user(f"t{n}", chance.choice((5, 300, 1300)))] for n in range(8)]
    traffic = []
    for number in range(120):
        at = chance.randrange(len(talks))
        if chance.random() < 0.4:
            talks[at] = [*talks[at], SAID, user(f"n{number}", chance.choice((5, 200)))]
        traffic.append(
            Asked(
                talks[at],
                chance.choice((1.0, 7.0, 45.0, 320.0, 650.0)),
                chance.choice(("sk-one", "sk-one", "sk-two")),
                chance.choice(((), (), (), (("Cache-Control", "no-cache"),), (("x-farthing-off", "1"),)))
                if headers
                else (),
                stream=chance.random() < 0.2 and streams,
                times=2 if chance.random() < 0.15 else 1,
            )
        )
    return traffic


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.long)])
async def test_a_runs_baseline_is_the_meter_of_the_same_run_without_a_proxy(tmp_path: Path, seed: int) -> None:
    traffic = mixed(random.Random(seed))
    async with world(tmp_path) as w:
        rows = await run(w, traffic)
        agrees(w, rows)
    assert {"hit-exact", "joined", "miss", "bypass"} == {row["cache"] for row in rows}
    assert any(row["saved_prompt_cache_usd"] < 0 for row in rows)
    assert sum(row["tokens_in_cached"] or 0 for row in rows) > 10_000
