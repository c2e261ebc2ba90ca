"""Rates of tokens hold for all attempts of a request that are billed, whichever of them serves."""

from __future__ import annotations

import asyncio
import time
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.clock import FakeClock
from tests.fakes.batches import batching
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.fakes.valkey import ValkeyProcess
from tests.wire.test_budgets import KINDS
from tests.wire.test_defer import DAY, deferring, until
from tests.wire.test_retrieval import ON, asked, begun
from tests.wire.test_routes import BIG, PRICES, House, house

RATE = 4000
REFUSES = "I'm sorry, but I can't help with that."
WORDS = 40


def tokens(*ups: ScriptedUpstream) -> int:
    """What the upstreams' own meters say was used."""
    return sum(call.tokens_in + call.tokens_out for up in ups for call in up.calls if call.status == 200)


def a_cascade(at: House) -> None:
    at.third.default = Script(words=WORDS, says=REFUSES)


def samples_and_a_judge(at: House) -> None:
    at.default.default = Script(words=WORDS)
    at.third.default = Script(says="No.")


def tries_before_a_failure(at: House) -> None:
    """What serves in the end fails: nothing is billed for that, but the tries were."""
    a_cascade(at)
    at.cheap.default = at.default.default = Script(status=500)


# How the upstreams answer, the route, and the statuses beside 429.
WAYS: dict[str, tuple[Any, dict[str, Any], set[int]]] = {
    "a cascade": (a_cascade, {"strategy": "cascade", "variants": ["tiny-there", "mini-there"]}, {200}),
    "samples and a judge": (
        samples_and_a_judge,
        {
            "strategy": "cascade",
            "variants": ["big", "mini-there"],
            "accept": {"agree": 2, "judge": "judge-there"},
            "model": "mini",
        },
        {200},
    ),
    "tries before a failure": (
        tries_before_a_failure,
        {"strategy": "cascade", "variants": ["tiny-there", "mini-there"], "on": ["5xx"]},
        {500},
    ),
}


async def settled(proxy: Proxied, count: int) -> None:
    """Until so many rows are written, and what comes back has come back."""
    await proxy.rows(count)
    async with asyncio.timeout(30):
        while len(proxy.services.state.tasks):
            await asyncio.sleep(0.01)


CASES = [
    pytest.param(way, kind, marks=pytest.mark.long if kind == "redis" and way != "a cascade" else ())
    for way in WAYS
    for kind in KINDS
]


@pytest.mark.parametrize(("way", "kind"), CASES)
async def test_all_that_is_billed_counts(kind: str, way: str, tmp_path: Path) -> None:
    """No time passes, so the meters may never say more than a minute's worth; nor is much less let through. On the
    server its own time passes, and fills the bucket."""
    answers, route, beside = WAYS[way]
    rates = [{"name": "slow", "tokens_per_min": RATE}]
    with ValkeyProcess() if kind == "redis" else nullcontext() as server:
        settings: dict[str, Any] = {"clock": FakeClock(), "rate_limits": rates, "cache__mode": "off"}
        if server is not None:
            settings |= {"store__url": server.url, "spend__deadline_ms": 30_000, "store__deadline_ms": 30_000}
        async with house(tmp_path, [route], **settings) as at:
            answers(at)
            statuses: list[int] = []
            begun_s = time.monotonic()
            while 429 not in statuses and len(statuses) < 400:
                body = chat(f"question {len(statuses)}", model=route.get("model", "m"), max_tokens=WORDS)
                statuses.append((await at.proxy.post(body)).status_code)
                await settled(at.proxy, len(statuses))
            used, passed_s = tokens(*at.ups), time.monotonic() - begun_s
    assert set(statuses) == beside | {429}
    assert RATE // 2 < used <= RATE + (RATE / 60 * passed_s if kind == "redis" else 0)


@pytest.mark.parametrize("kind", KINDS)
async def test_what_was_not_billed_comes_back(kind: str, tmp_path: Path) -> None:
    """A leg that fails leaves its tokens to the next one, and what serves is all that counts."""
    route = {"variants": ["tiny-there"], "fallbacks": ["mini-there"], "on": ["5xx"]}
    rates = [{"name": "slow", "tokens_per_min": RATE}]
    with ValkeyProcess() if kind == "redis" else nullcontext() as server:
        settings: dict[str, Any] = {"clock": FakeClock(), "rate_limits": rates, "cache__mode": "off"}
        if server is not None:
            settings |= {"store__url": server.url, "spend__deadline_ms": 30_000, "store__deadline_ms": 30_000}
        async with house(tmp_path, [route], **settings) as at:
            at.third.default, at.cheap.default = Script(status=503), Script(words=WORDS)
            # Each takes more than half of the bucket: two legs of one request would never find room.
            bodies = [chat(f"question {number}", max_tokens=RATE * 2 // 3) for number in range(4)]
            statuses = []
            for number, body in enumerate(bodies):
                statuses.append((await at.proxy.post(body)).status_code)
                await settled(at.proxy, number + 1)
    assert statuses == [200] * 4


async def test_a_leg_beyond_the_rate_is_left_out(tmp_path: Path) -> None:
    """As where a budget has no room: the second sample isn't asked, so the try isn't accepted, and nor is the next one
    asked; its client is told to come back."""
    route = {"strategy": "cascade", "variants": ["tiny-there", "mini-there"], "accept": {"agree": 2}}
    rates = [{"name": "slow", "tokens_per_min": RATE}]
    async with house(tmp_path, [route], clock=FakeClock(), rate_limits=rates) as at:
        answer = await at.proxy.post(chat("hello", max_tokens=RATE * 2 // 3))
        (row,) = await at.books(1)
        metrics = (await at.proxy.client.get("/metrics")).text
    assert answer.status_code == 429 and int(answer.headers["Retry-After"]) > 0
    assert answer.json()["error"]["param"] == "rate_limits.slow"
    assert '"escalated","tiny-there: another sample failed"' in row["decisions"]
    assert [len(up.calls) for up in at.ups] == [0, 0, 1]
    assert row["cost_usd"] > 0
    assert 'farthing_rate_limit_refused_total{limit="slow"}' in metrics


async def test_a_hedge_finds_no_tokens_and_the_first_call_answers(tmp_path: Path) -> None:
    route = {"variants": ["big"], "fallbacks": ["mini-there"], "hedge_after_ms": 1, "hedge_share": 0.5}
    rates = [{"name": "slow", "tokens_per_min": RATE}]
    async with house(tmp_path, [route], clock=FakeClock(), rate_limits=rates) as at:
        at.default.default = Script(wait_s=0.5)
        answer = await at.proxy.post(chat("hello", max_tokens=RATE * 2 // 3))
    assert answer.status_code == 200
    assert [len(up.calls) for up in at.ups] == [1, 0, 0]


@pytest.mark.parametrize("kind", KINDS)
async def test_a_further_round_needs_tokens_too(kind: str, up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default = Script(fetches=1)
    with ValkeyProcess() if kind == "redis" else nullcontext() as server:
        settings: dict[str, Any] = ON | {"clock": FakeClock(), "cache__mode": "off"}
        if server is not None:
            settings |= {"store__url": server.url, "spend__deadline_ms": 30_000, "store__deadline_ms": 30_000}
        rates = [{"name": "slow", "tokens_per_min": 10**6}]
        async with proxied(up.url, tmp_path, rate_limits=rates, **settings) as proxy:
            conversation = asked(turns=1, max_tokens=10**5 * 4)  # there is room for two of it
            await begun(proxy, conversation)
            await settled(proxy, 1)
            whole = await proxy.post(conversation)
            await settled(proxy, 2)
            assert (whole.status_code, len(up.calls)) == (200, 3)
            refused = await proxy.post(conversation | {"max_tokens": 10**5 * 6})
            assert (refused.status_code, len(up.calls)) == (429, 4)


async def test_what_may_wait_waits_for_its_rate_too(tmp_path: Path) -> None:
    """Sent directly after all, it may use more than was taken when it came, since answers have become longer."""
    rates = [{"name": "slow", "tokens_per_min": 60_000}]
    settings: dict[str, Any] = {
        "prices": PRICES,
        "variants": [BIG | {"params": {"top_p": 0.5}}],
        "rate_limits": rates,
        "spend__output_tokens": 100,
        "defer__flush_s": 1.0,
    }
    async with batching() as up, deferring(up, tmp_path, **settings) as proxy:
        up.refuse_create, up.default = 400, Script(wait_s=0.5)
        kept = [await proxy.post(chat(f"hello {number}", model="big"), **DAY) for number in range(2)]
        assert [one.status_code for one in kept] == [202, 202]
        assert proxy.services.spending is not None
        for _ in range(20):  # by now there is room for one at a time
            proxy.services.spending.learned.learn("m", 31_000)
        done = [await until(proxy, one.json()["id"], "completed") for one in kept]
    assert [one["status_code"] for one in done] == [200, 200] and len(up.calls) == 2
