"""Budgets and rates on the wire: never over under 500 at once, settled once, refused in words, told to a webhook."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from decimal import Decimal
from pathlib import Path
from typing import Any

import openai
import pytest
from aiohttp import web

from farthing.proxy.budgets_hold import Hold
from farthing.proxy.clock import FakeClock
from farthing.proxy.exchange import Controls
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream
from tests.fakes.valkey import ValkeyProcess

METER = ("2", "1", "8")
KINDS = ("local", "redis")
WAYS_OUT = re.compile(r'prices\.models|spend\.unpriced = "pass"')


def budget(usd: str, **more: Any) -> dict[str, Any]:
    return {"name": "all", "usd": usd} | more


def tagged(value: str) -> dict[str, str]:
    return {"x_farthing_tags": value}


async def standing(proxy: Proxied, name: str = "all") -> dict[str, Any]:
    """A budget as the admin API tells it, once nothing is under way."""
    while len(proxy.services.state.tasks):
        await asyncio.sleep(0.02)
    told = (await proxy.client.get("/farthing/api/budgets")).json()
    found: dict[str, Any] = next(one for one in told["budgets"] if one["name"] == name)
    return found


@pytest.mark.parametrize("kind", KINDS)
async def test_500_at_once_spend_no_more_than_the_budget(kind: str, up: ScriptedUpstream, tmp_path: Path) -> None:
    """The upstream's own meter is the judge; a bound on the output makes reservations bounds. Half of them stream."""
    up.default = Script(wait_s=0.05, words=40)
    with ValkeyProcess() as server:
        store = {"store__url": server.url, "spend__deadline_ms": 5000} if kind == "redis" else {}
        limit = Decimal("0.05")
        async with proxied(up.url, tmp_path, budgets=[budget(str(limit))], **store) as proxy:
            proxy.client.timeout = 300  # a busy machine takes its time for 500

            async def ask(number: int) -> int:
                body = chat(f"question {number}", max_tokens=50, stream=number % 2 == 0)
                return (await proxy.post(body)).status_code

            first = await asyncio.gather(*map(ask, range(500)))
            told = await standing(proxy)
            meter = up.bill(METER)
            assert {200, 402} == set(first)
            assert 0 < meter <= limit
            assert Decimal(str(told["subjects"][0]["spent_usd"])) == meter
            assert told["subjects"][0]["held_usd"] == 0
            assert told["refused"] == first.count(402)
            # What was reserved and not used can be spent after all.
            second = [await ask(number) for number in range(1000, 1040)]
            assert second.count(200) > 0
            assert up.bill(METER) <= limit
            rows = await proxy.rows(540)
    assert sum(row["cost_usd"] or 0 for row in rows) == up.bill(METER) * 10**12


async def test_two_replicas_share_a_budget_over_redis(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default = Script(wait_s=0.02, words=40)
    with ValkeyProcess() as server:
        settings: dict[str, Any] = {"store__url": server.url, "spend__deadline_ms": 5000, "budgets": [budget("0.02")]}
        async with (
            proxied(up.url, tmp_path / "one", **settings) as one,
            proxied(up.url, tmp_path / "two", **settings) as two,
        ):
            asked = [(one, two)[number % 2].post(chat(f"question {number}", max_tokens=50)) for number in range(200)]
            statuses = [answer.status_code for answer in await asyncio.gather(*asked)]

            assert {200, 402} == set(statuses)
            assert up.bill(METER) <= Decimal("0.02")
            await standing(one)
            spent = (await standing(two))["subjects"][0]["spent_usd"]
            assert Decimal(str(spent)) == up.bill(METER)


async def test_a_refusal_is_an_openai_error_that_names_the_budget(up: ScriptedUpstream, tmp_path: Path) -> None:
    clock = FakeClock(1_800_000_000.0)
    async with proxied(up.url, tmp_path, clock=clock, budgets=[budget("0.0001")]) as proxy:
        client = openai.AsyncOpenAI(base_url=f"{proxy.url}/v1", api_key="sk-one", max_retries=0)
        with pytest.raises(openai.APIStatusError) as raised:
            await client.chat.completions.create(**chat("hi", max_tokens=100_000))
        await client.close()

    error = raised.value
    assert error.status_code == 402
    assert error.body["code"] == "budget_exceeded"  # type: ignore[index,call-overload]
    assert error.body["param"] == "budgets.all"  # type: ignore[index,call-overload]
    assert "this request alone may cost $0.80" in error.message
    assert "Retry-After" not in error.response.headers  # at no time is there room for it
    assert up.calls == []


async def test_a_spent_budget_says_when_it_begins_anew(up: ScriptedUpstream, tmp_path: Path) -> None:
    clock = FakeClock(1_800_000_000.0)
    async with proxied(up.url, tmp_path, clock=clock, budgets=[budget("0.001")], cache__mode="off") as proxy:
        answers = [await proxy.post(chat("hi", max_tokens=50)) for _ in range(20)]
    assert (answers[0].status_code, answers[-1].status_code) == (200, 402)
    assert int(answers[-1].headers["Retry-After"]) == 86_400 - 1_800_000_000 % 86_400


async def test_hits_joined_requests_and_failures_cost_no_budget(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with proxied(up.url, tmp_path, budgets=[budget("1")], upstream__retries=0) as proxy:
        up.script(Script(wait_s=0.1))
        await asyncio.gather(*(proxy.post(chat("same", max_tokens=9)) for _ in range(5)))
        assert (await proxy.post(chat("same", max_tokens=9))).headers["x-farthing-cache"] == "hit-exact"
        up.script(Script(status=500))
        assert (await proxy.post(chat("other", max_tokens=9))).status_code == 500
        told = await standing(proxy)

    assert Decimal(str(told["subjects"][0]["spent_usd"])) == up.bill(METER)
    assert told["subjects"][0]["held_usd"] == 0


@pytest.mark.parametrize("kind", KINDS)
async def test_a_cut_stream_settles_what_it_used(kind: str, up: ScriptedUpstream, tmp_path: Path) -> None:
    """The client leaves after some words, or the upstream breaks off: what is booked is what the ledger has."""
    with ValkeyProcess() as server:
        store = {"store__url": server.url, "spend__deadline_ms": 5000} if kind == "redis" else {}
        async with proxied(up.url, tmp_path, budgets=[budget("1")], **store) as proxy:
            up.script(Script(words=500, chunk_wait_s=0.01), Script(words=50, cut_after=2000))
            body = chat("tell me", stream=True, max_tokens=500)
            async with proxy.client.stream("POST", "/v1/chat/completions", json=body) as answer:
                async for _ in answer.aiter_lines():
                    if len(up.calls) and up.calls[0].tokens_out > 5:
                        break
            async with proxy.client.stream("POST", "/v1/chat/completions", json=chat("more", stream=True)) as answer:
                await answer.aread()
            rows = await proxy.rows(2)
            told = await standing(proxy)

    assert [row["outcome"] for row in rows] == ["abandoned", "failed"]
    assert 0 < rows[0]["tokens_out"] < 100
    assert told["subjects"][0]["held_usd"] == 0
    spent = Decimal(str(told["subjects"][0]["spent_usd"])) * 10**12
    assert spent == sum(row["cost_usd"] for row in rows) > 0


async def test_budgets_of_tags_and_models_count_apart(up: ScriptedUpstream, tmp_path: Path) -> None:
    budgets = [
        budget("0.0006", name="team", of="tag:team", only=["a*"]),
        budget("1", name="model", of="model", hard=False),
    ]
    async with proxied(up.url, tmp_path, budgets=budgets, cache__mode="off") as proxy:

        async def ask(tags: str) -> int:
            return (await proxy.post(chat(tags, max_tokens=50), **tagged(tags))).status_code

        assert [await ask("team=ads") for _ in range(4)].count(402) > 0
        assert await ask("team=art") == 200
        assert [await ask("team=search") for _ in range(4)] == [200] * 4
        assert await ask("x=y") == 200
        team, model = await standing(proxy, "team"), await standing(proxy, "model")
        assert {one["subject"] for one in team["subjects"]} == {"ads", "art"}
        assert [one["subject"] for one in model["subjects"]] == ["m"]
        assert Decimal(str(model["subjects"][0]["spent_usd"])) == up.bill(METER)


async def test_a_restart_remembers_and_a_new_window_begins_anew(up: ScriptedUpstream, tmp_path: Path) -> None:
    clock = FakeClock(1_800_000_000.0)
    settings: dict[str, Any] = {"clock": clock, "budgets": [budget("0.0004")], "cache__mode": "off"}
    async with proxied(up.url, tmp_path, **settings) as proxy:
        while (await proxy.post(chat("x", max_tokens=20))).status_code == 200:
            pass
        spent = (await standing(proxy))["subjects"][0]["spent_usd"]
    async with proxied(up.url, tmp_path, **settings) as proxy:
        assert (await standing(proxy))["subjects"][0]["spent_usd"] == spent
        assert (await proxy.post(chat("x", max_tokens=20))).status_code == 402
        clock.advance(86_400)
        assert (await proxy.post(chat("x", max_tokens=20))).status_code == 200


async def test_a_hard_budget_fails_closed_without_its_store_and_a_soft_one_open(
    up: ScriptedUpstream, tmp_path: Path
) -> None:
    with ValkeyProcess() as server:
        settings: dict[str, Any] = {"store__url": server.url, "cache__mode": "off"}
        async with (
            proxied(up.url, tmp_path / "hard", budgets=[budget("1")], **settings) as hard,
            proxied(up.url, tmp_path / "soft", budgets=[budget("1", hard=False)], **settings) as soft,
        ):
            assert (await hard.post(chat("x", max_tokens=9))).status_code == 200
            server.kill()
            refused = await hard.post(chat("x", max_tokens=9))
            assert refused.status_code == 503
            assert refused.json()["error"]["code"] == "budget_unavailable"
            assert "the hard budget 'all' can't be looked up" in refused.json()["error"]["message"]
            assert (await soft.post(chat("x", max_tokens=9))).status_code == 200
            decided = json.loads((await soft.rows(1))[-1]["decisions"])
            assert ["spend", "unchecked"] in [one[:2] for one in decided]
            told = (await hard.client.get("/farthing/api/budgets")).json()
            assert "127.0.0.1" in told["store"]
            server.start()
            for _ in range(100):
                if (await hard.post(chat("x", max_tokens=9))).status_code == 200:
                    break
                await asyncio.sleep(0.1)
            else:
                raise AssertionError("it stays closed")


@pytest.mark.parametrize(
    ("settings", "hard", "status"),
    [({"spend__unpriced": "pass"}, True, 200), ({}, True, 402), ({}, False, 200)],
)
async def test_a_hard_budget_refuses_what_has_no_price_unless_it_may_pass(
    settings: dict[str, Any], hard: bool, status: int, up: ScriptedUpstream, tmp_path: Path
) -> None:
    async with proxied(up.url, tmp_path, budgets=[budget("1", hard=hard)], **settings) as proxy:
        answer = await proxy.post(chat("x") | {"model": "nobody-knows"})
        listed = await proxy.client.get("/v1/models")

        assert (answer.status_code, listed.status_code) == (status, 200)
        if status == 402:
            assert answer.json()["error"]["code"] == "price_unknown"
            assert {"prices.models", 'spend.unpriced = "pass"'} <= set(WAYS_OUT.findall(answer.text.replace("\\", "")))
        else:
            assert "unpriced" in (await proxy.rows(2))[0]["decisions"]


@pytest.mark.parametrize("kind", KINDS)
async def test_requests_beyond_a_rate_get_429_hits_too(kind: str, up: ScriptedUpstream, tmp_path: Path) -> None:
    clock = FakeClock()
    rates = [{"name": "burst", "requests_per_min": 5, "of": "key"}]
    with ValkeyProcess() as server:
        store = {"store__url": server.url, "spend__deadline_ms": 5000} if kind == "redis" else {}
        async with proxied(up.url, tmp_path, clock=clock, rate_limits=rates, **store) as proxy:
            answers = [await proxy.post(chat("same")) for _ in range(7)]
            assert [one.status_code for one in answers] == [200] * 5 + [429] * 2
            error = answers[-1].json()["error"]
            assert (error["code"], error["param"]) == ("rate_limit_exceeded", "rate_limits.burst")
            assert int(answers[-1].headers["Retry-After"]) == 12
            assert (await proxy.post(chat("same"), Authorization="Bearer sk-two")).status_code == 200
            clock.advance(12)
            assert (await proxy.post(chat("same"))).status_code == 200
            assert 'farthing_rate_limit_refused_total{limit="burst"} 2.0' in (await proxy.client.get("/metrics")).text


@pytest.mark.parametrize("kind", KINDS)
async def test_tokens_are_taken_as_estimated_and_come_back(kind: str, up: ScriptedUpstream, tmp_path: Path) -> None:
    clock = FakeClock()
    rates = [{"name": "slow", "tokens_per_min": 1000, "of": "model"}]
    up.default = Script(words=10)
    with ValkeyProcess() as server:
        store = {"store__url": server.url, "spend__deadline_ms": 5000} if kind == "redis" else {}
        async with proxied(up.url, tmp_path, clock=clock, rate_limits=rates, **store) as proxy:
            for number in range(10):  # each takes some 800 at first, and gives back what it didn't use
                assert (await proxy.post(chat(f"x{number}", max_tokens=700))).status_code == 200
                while len(proxy.services.state.tasks):
                    await asyncio.sleep(0.01)
            up.default.wait_s = 0.5  # so that both are under way
            first, second = await asyncio.gather(*(proxy.post(chat(f"y{n}", max_tokens=700)) for n in range(2)))
            assert {first.status_code, second.status_code} == {200, 429}
            assert (await proxy.post(chat("x0", max_tokens=700))).headers["x-farthing-cache"] == "hit-exact"


@asynccontextmanager
async def receiver(*statuses: int) -> AsyncIterator[tuple[str, list[tuple[dict[str, Any], str, bytes]]]]:
    """A webhook that answers so, then 200; what it got."""
    got: list[tuple[dict[str, Any], str, bytes]] = []
    answers = list(statuses)

    async def take(request: web.BaseRequest) -> web.Response:
        body = await request.content.read()
        got.append((json.loads(body), request.headers.get("x-farthing-signature", ""), body))
        return web.Response(status=answers.pop(0) if answers else 200)

    runner = web.ServerRunner(web.Server(take))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/hook", got
    finally:
        await runner.cleanup()


async def test_thresholds_are_told_once_signed_and_tried_again(up: ScriptedUpstream, tmp_path: Path) -> None:
    up.default = Script(words=100)
    async with receiver(500) as (url, got):
        settings: dict[str, Any] = {"alerts__webhook": url, "alerts__secret": "s3", "cache__mode": "off"}
        alerting = [budget("0.004", alerts=[0.5, 0.9])]
        async with proxied(up.url, tmp_path, budgets=alerting, **settings) as proxy:
            while (await proxy.post(chat("x", max_tokens=100))).status_code == 200:
                pass
            while len(proxy.services.state.tasks):
                await asyncio.sleep(0.05)
            text = (await proxy.client.get("/metrics")).text
    shares = [event["share"] for event, _, _ in got]
    assert sorted(set(shares)) == [0.5] or sorted(set(shares)) == [0.5, 0.9]
    assert len(shares) == len(set(shares)) + 1  # the first was answered with 500
    event, signed, body = got[-1]
    assert event["budget"] == "all"
    assert event["spent_usd"] >= event["share"] * event["limit_usd"]
    at = signed.removeprefix("t=").split(",")[0]
    assert signed == f"t={at},v1={hmac.new(b's3', at.encode() + b'.' + body, 'sha256').hexdigest()}"
    assert 'farthing_budget_limit_usd{budget="all"} 0.004' in text
    assert 'farthing_budget_refused_total{budget="all"} 1.0' in text


async def test_a_soft_budget_that_is_spent_is_told_of_once(up: ScriptedUpstream, tmp_path: Path) -> None:
    async with receiver() as (url, got):
        soft = [budget("0.0001", hard=False)]
        async with proxied(up.url, tmp_path, budgets=soft, alerts__webhook=url, cache__mode="off") as proxy:
            for _ in range(5):
                assert (await proxy.post(chat("x"))).status_code == 200
            while len(proxy.services.state.tasks):
                await asyncio.sleep(0.05)
    assert [(event["budget"], event["share"], event["hard"]) for event, _, _ in got] == [("all", 1.0, False)]


async def test_a_webhook_that_is_away_delays_nobody(up: ScriptedUpstream, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"alerts__webhook": "http://127.0.0.1:9/", "alerts__tries": 1, "cache__mode": "off"}
    async with proxied(up.url, tmp_path, budgets=[budget("0.0001", hard=False, alerts=[0.1])], **settings) as proxy:
        assert [(await proxy.post(chat("x"))).status_code for _ in range(3)] == [200] * 3


async def test_farthings_own_calls_need_room_too(up: ScriptedUpstream, tmp_path: Path) -> None:
    """An audit is refused by a hard budget like any request, and the books stay right."""
    async with proxied(up.url, tmp_path, budgets=[budget("0.0005")], cache__mode="off") as proxy:
        services = proxy.services
        assert services.semantic.auditor is not None
        errands = services.semantic.auditor.errands
        await proxy.post(chat("x", max_tokens=20))
        spent = (await standing(proxy))["subjects"][0]["spent_usd"]
        own = errands.begin(original(proxy))
        own.endpoint, own.model, own.payload = own.endpoint.CHAT, "m", chat("x", max_tokens=10_000)
        own.body = json.dumps(own.payload).encode()
        call = await errands.run(own, "audit of nobody")

        assert call.status == 0
        assert "has no room" in own.error
        assert len(up.calls) == 1
        own = errands.begin(original(proxy))
        own.endpoint, own.model, own.payload = own.endpoint.CHAT, "m", chat("x", max_tokens=20)
        own.body = json.dumps(own.payload).encode()
        assert (await errands.run(own, "audit of nobody")).status == 200
        assert (await standing(proxy))["subjects"][0]["spent_usd"] > spent
        assert Decimal(str((await standing(proxy))["subjects"][0]["spent_usd"])) == up.bill(METER)


@pytest.mark.parametrize("controls", [Controls(), Controls(only_if_cached=True)])
async def test_farthings_own_calls_leave_their_clients_reservation(
    controls: Controls, up: ScriptedUpstream, tmp_path: Path
) -> None:
    """Whether no budget means them, or they fail before they could reserve."""
    teams = [budget("1", of="tag:team")]
    async with proxied(up.url, tmp_path, budgets=teams, cache__mode="off") as proxy:
        assert proxy.services.semantic.auditor is not None
        errands = proxy.services.semantic.auditor.errands
        own = errands.begin(original(proxy))
        own.endpoint, own.model, own.payload = own.endpoint.CHAT, "m", chat("x", max_tokens=20)
        own.body, own.controls = json.dumps(own.payload).encode(), controls
        clients = own.hold = Hold("its client's", pico=7)
        await errands.run(own, "audit of nobody")

    assert not clients.settled


def original(proxy: Proxied) -> Any:
    from multidict import CIMultiDict, CIMultiDictProxy

    from farthing.proxy.body import NoBody
    from farthing.proxy.exchange import Original
    from farthing.proxy.header_facts import HeaderFacts

    headers = CIMultiDictProxy(CIMultiDict({"Content-Type": "application/json"}))
    return Original("POST", "/v1/chat/completions", headers, NoBody(), HeaderFacts(tuple(headers.items())))


@pytest.mark.parametrize(
    ("before", "path", "kind"),
    [
        (b"\xef\xbb\xbf", "/v1/chat/completions", "application/json"),
        (b"", "/v1/chat/completions", "text/plain"),
        (b"", "/v1/chat/completions/", "application/json"),
    ],
)
@pytest.mark.parametrize("of", ["all", "model"])
async def test_what_cannot_be_read_is_no_way_round_a_hard_budget(
    before: bytes, path: str, kind: str, of: str, up: ScriptedUpstream, tmp_path: Path
) -> None:
    """Upstreams read what farthing doesn't: a mark before the JSON, another type, another spelling of the path."""
    async with proxied(up.url, tmp_path, budgets=[budget("0.0001", of=of)]) as proxy:
        body = before + json.dumps(chat("word " * 2000, max_tokens=5)).encode()
        answer = await proxy.client.post(path, content=body, headers={"Content-Type": kind})

    assert (answer.status_code, answer.json()["error"]["code"], up.calls) == (402, "price_unknown", [])


@pytest.mark.parametrize("of", ["key", "tenant"])
async def test_another_header_beside_a_key_is_no_way_round_its_budget(
    of: str, up: ScriptedUpstream, tmp_path: Path
) -> None:
    """Whatever may say who calls makes another credential, and another cache; the key is the same."""
    keys = [{"name": "search", "sha256": hashlib.sha256(b"sk-one").hexdigest()}]
    async with proxied(up.url, tmp_path, budgets=[budget("0.0004", of=of)], auth__client_keys=keys) as proxy:
        answers = [await proxy.post(chat("x", max_tokens=20), x_auth_token=f"{number}") for number in range(9)]
        told = await standing(proxy)

    assert answers[0].status_code == 200
    assert answers[-1].status_code == 402
    assert [one["subject"] for one in told["subjects"]] == ["search"]


@pytest.mark.parametrize(("path", "status"), [("/v1/files", 200), ("/v1/moderations", 402), ("/v1/batches", 402)])
async def test_what_surely_costs_nothing_needs_no_price(
    path: str, status: int, up: ScriptedUpstream, tmp_path: Path
) -> None:
    up.default = Script(body=b"{}")
    async with proxied(up.url, tmp_path, budgets=[budget("1"), budget("1", name="each", of="model")]) as proxy:
        answer = await proxy.client.post(path, content=b"--x--", headers={"Content-Type": "multipart/form-data"})
        (row,) = await proxy.rows(1)

    assert (answer.status_code, len(up.calls)) == (status, int(status == 200))
    assert (row["cost_usd"], row["status"]) == (0, status)


async def test_a_rate_for_each_model_refuses_what_names_none(up: ScriptedUpstream, tmp_path: Path) -> None:
    rates = [{"name": "slow", "requests_per_min": 100, "of": "model"}]
    async with proxied(up.url, tmp_path, rate_limits=rates) as proxy:
        unread = await proxy.client.post("/v1/audio/speech", content=b"?", headers={"Content-Type": "text/plain"})
        listed = await proxy.client.get("/v1/models")
        named = await proxy.post(chat("x"))
        rows = await proxy.rows(3)

    assert (unread.status_code, unread.json()["error"]["code"]) == (400, "model_unknown")
    assert "'slow'" in unread.json()["error"]["message"]
    assert (listed.status_code, named.status_code) == (200, 200)
    assert rows[0]["cost_usd"] == 0
