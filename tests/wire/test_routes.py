"""Routes over real servers: who is asked, what goes on, and that the books are all the meters together."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from farthing.proxy.prices import RateCard
from farthing.proxy.rate_cards import card_of
from farthing.proxy.recompute import Verdict, recompute
from farthing.proxy.row import SAVED_COLUMNS
from tests.fakes.proxying import Proxied, chat, proxied
from tests.fakes.upstream import Script, ScriptedUpstream, scripted
from tests.proxy.test_audit import AGAIN, ASK, AUDITED, loaded
from tests.wire.test_retrieval import ON as RETRIEVING
from tests.wire.test_retrieval import asked, blob
from tests.wire.test_reuse import quiet

RATES = {"m": (4, 16), "mini": (1, 2), "tiny": (0.5, 1), "judge": (1, 1)}
PRICES = {
    "models": {
        name: {"input_usd_per_mtok": given, "cached_usd_per_mtok": given, "output_usd_per_mtok": made}
        for name, (given, made) in RATES.items()
    }
}
MINI = {"name": "mini-there", "upstream": "cheap", "model": "mini"}
TINY = {"name": "tiny-there", "upstream": "third", "model": "tiny"}
BIG = {"name": "big", "model": "m"}
JUDGE = {"name": "judge-there", "upstream": "third", "model": "judge"}


class House:
    """A proxy before three upstreams: the default one, `cheap` and `third`."""

    def __init__(self, proxy: Proxied, default: ScriptedUpstream, cheap: ScriptedUpstream, third: ScriptedUpstream):
        self.proxy, self.default, self.cheap, self.third = proxy, default, cheap, third
        self.ups = (default, cheap, third)

    async def books(self, count: int) -> list[dict[str, Any]]:
        """The rows: identity holds on each, each comes to the same again, and their sum is all meters'."""
        rows = await self.proxy.rows(count)
        card = card_of(self.proxy.services.config)
        for row in rows:
            assert row["baseline_usd"] - row["cost_usd"] == sum(row[name] for name in SAVED_COLUMNS)
            assert recomputed(row, card) is Verdict.SAME
        paid = sum(row["cost_usd"] + row["overhead_usd"] for row in rows)
        assert paid == meter(*self.ups) + sum(map(silent_pico, rows))
        return rows


def recomputed(row: dict[str, Any], card: RateCard) -> Verdict:
    class Of:
        def __getattr__(self, name: str) -> Any:
            return row[name]

    return recompute(Of(), card).verdict


def meter(*ups: ScriptedUpstream) -> int:
    """What the upstreams charge, in pico-dollars."""
    total = 0.0
    for up in ups:
        for call in up.calls:
            if call.status == 200:
                given, made = RATES[call.model]
                total += call.tokens_in * given + call.tokens_out * made
    return round(total * 10**6)


def silent_pico(row: dict[str, Any]) -> int:
    """What is booked for prompts whose answers had not begun when they were hung up: no meter counts these."""
    tries = [one for one in json.loads(row["attempts_detail"]) if one["status"] == 0 and "other" in one]
    assert not tries or row["modelled"] == 1
    return sum(round(one["other"]["usage"]["fresh"] * RATES[one["other"]["model"]][0] * 10**6) for one in tries)


@asynccontextmanager
async def house(
    tmp_path: Path, routes: list[dict[str, Any]], more: Sequence[tuple[str, str]] = (), **settings: Any
) -> AsyncIterator[House]:
    async with AsyncExitStack() as stack:
        default, cheap, third = [await stack.enter_async_context(scripted()) for _ in range(3)]
        named = [("cheap", cheap.url), ("third", third.url), *more]
        upstreams = [{"name": name, "url": url, "retries": 0, "retry_base_s": 0.01} for name, url in named]
        given: dict[str, Any] = {
            "prices": PRICES,
            "upstreams": upstreams,
            "variants": [MINI, TINY, BIG, JUDGE],
            "routes": [{"name": "r", "mode": "serve", "model": "m"} | route for route in routes],
            "upstream__retries": 0,
        }
        proxy = await stack.enter_async_context(proxied(default.url, tmp_path, **(given | settings)))
        yield House(proxy, default, cheap, third)


def why(row: dict[str, Any]) -> list[list[str]]:
    return [decision for decision in json.loads(row["decisions"]) if decision[0] == "route"]


async def test_a_fixed_route_asks_its_variant_and_leaves_all_other_bytes(tmp_path: Path) -> None:
    body = b'{ "messages":[{"role":"user","content":"h\\u00e9"}],\n "model" : "m","temperature":0.50 }'
    variant = MINI | {"params": {"top_p": 0.5, "temperature": 1}}
    async with house(tmp_path, [{"variants": ["mini-there"]}], variants=[variant]) as at:
        answer = await at.proxy.post(body)
        (row,) = await at.books(1)
    assert at.cheap.calls[0].body == (
        b'{"top_p":0.5, "messages":[{"role":"user","content":"h\\u00e9"}],\n "model" : "mini","temperature":0.50 }'
    )
    assert answer.headers["x-farthing-model"] == "mini"
    assert (row["model_requested"], row["model_served"], row["upstream"]) == ("m", "mini", "cheap")
    assert row["saved_route_usd"] > 0
    assert why(row) == [["route", "routed", "r: mini-there, fixed"]]
    assert at.default.calls == []


async def test_another_upstream_never_sees_the_clients_credentials(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["mini-there"]}]) as at:
        shown = {"api_key": "k", "Cookie": "s=1", "OpenAI_Organization": "org", "X_Auth_Token": "t"}
        await at.proxy.post(chat(), **shown)
        config = at.proxy.services.config
        for style in ("openai", "azure", "ollama"):
            styled = config.upstreams[0].model_copy(update={"style": style})
            await at.proxy.running.reload(config.model_copy(update={"upstreams": (styled, config.upstreams[1])}))
            await at.proxy.post(chat(), **shown)
    secrets = {"authorization", "api-key", "cookie", "openai-organization", "x-auth-token"}
    assert [secrets & {name.lower() for name in call.headers} for call in at.cheap.calls] == [set()] * 4


async def test_an_observing_route_sends_the_request_as_it_came_and_says_what_it_would_have_cost(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["mini-there"], "mode": "observe"}]) as at:
        await at.proxy.post(chat())
        (row,) = await at.books(1)
        hit = await at.proxy.post(chat())
    call = at.default.calls[0]
    assert call.json == chat()
    assert (row["model_served"], row["saved_route_usd"]) == ("m", 0)
    cost = (call.tokens_in * 1 + call.tokens_out * 2) / 10**6
    assert why(row) == [["route", "would route", f"r: mini-there, fixed, for ${cost:.6f}".rstrip("0")]]
    assert hit.headers["x-farthing-cache"] == "hit-exact"


async def test_an_answer_of_another_variant_is_no_hit_once_the_route_is_gone(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["mini-there"]}]) as at:
        await at.proxy.post(chat())
        assert (await at.proxy.post(chat())).headers["x-farthing-cache"] == "hit-exact"
        config = at.proxy.services.config
        await at.proxy.running.reload(config.model_copy(update={"routes": ()}))
        plain = await at.proxy.post(chat())
        assert (plain.headers["x-farthing-cache"], plain.headers["x-farthing-model"]) == ("miss", "m")
        await at.proxy.running.reload(config)
        again = await at.proxy.post(chat())
        assert (again.headers["x-farthing-cache"], again.headers["x-farthing-model"]) == ("hit-exact", "mini")
        await at.books(4)


async def test_an_answer_of_another_place_under_the_same_name_is_no_hit(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["mini-there"]}]) as at:
        await at.proxy.post(chat())
        config = at.proxy.services.config
        moved = config.upstreams[0].model_copy(update={"url": at.third.url})
        await at.proxy.running.reload(config.model_copy(update={"upstreams": (moved, config.upstreams[1])}))
        answer = await at.proxy.post(chat())
        await at.books(2)
    assert answer.headers["x-farthing-cache"] == "miss"
    assert (len(at.cheap.calls), len(at.third.calls)) == (1, 1)


async def test_an_upstream_of_another_api_and_with_replicas_serves_too(tmp_path: Path) -> None:
    async with house(tmp_path, [], upstreams=[], variants=[]) as at:
        config = at.proxy.services.config
        claude = {"name": "there", "style": "anthropic", "replicas": [at.cheap.url, at.third.url], "api_key": "sk-ant"}
        given = {
            "upstreams": [claude],
            "variants": [{"name": "claude", "upstream": "there", "model": "mini"}],
            "routes": [{"name": "r", "mode": "serve", "model": "m", "variants": ["claude"]}],
        }
        await at.proxy.running.reload(type(config).model_validate(config.model_dump() | given))
        whole = await at.proxy.post(chat("one"))
        streamed = await at.proxy.post(chat("two", stream=True))
        rows = await at.books(2)
    calls = [*at.cheap.calls, *at.third.calls]
    assert [call.path for call in calls] == ["/v1/messages"] * 2
    for call in calls:
        seen = {name.lower(): value for name, value in call.headers.items()}
        assert (seen["x-api-key"], "authorization" in seen) == ("sk-ant", False)
    assert whole.json()["object"] == "chat.completion"
    assert streamed.text.endswith("data: [DONE]\n\n")
    assert {row["upstream"].partition("/")[0] for row in rows} == {"there"}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("script", "failure"),
    [
        (Script(status=429), "429"),
        (Script(status=503), "5xx"),
        (Script(reset=True), "reset"),
        (Script(status=400, body=b'{"error":{"code":"context_length_exceeded"}}'), "context"),
    ],
)
async def test_a_declared_failure_leads_to_the_fallback(
    tmp_path: Path, script: Script, failure: str, stream: bool
) -> None:
    route = {"variants": ["mini-there"], "fallbacks": ["tiny-there"], "on": ["429", "5xx", "reset", "context"]}
    async with house(tmp_path, [route]) as at:
        at.cheap.default = script
        answer = await at.proxy.post(chat(stream=stream))
        (row,) = await at.books(1)
    assert answer.status_code == 200
    assert (at.third.calls[0].model, at.default.calls) == ("tiny", [])
    assert row["model_served"] == "tiny"
    assert ["route", "failed", f"mini-there: {failure}"] in why(row)
    attempts = json.loads(row["attempts_detail"])
    assert {(one["upstream"], one["variant"]) for one in attempts[:-1]} == {("cheap", "mini-there")}
    assert (attempts[-1]["upstream"], attempts[-1]["variant"]) == ("third", "tiny-there")


async def test_a_refused_connection_and_an_undeclared_failure_lead_to_the_asked_for_model(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{taken.getsockname()[1]}/v1"
        route = {"variants": ["gone"], "fallbacks": ["mini-there"], "on": ["connect"]}
        variants = [MINI, {"name": "gone", "upstream": "nobody", "model": "mini"}]
        async with house(tmp_path, [route], variants=variants, more=[("nobody", nobody)]) as at:
            at.cheap.script(Script(status=401))
            answer = await at.proxy.post(chat())
            (row,) = await at.proxy.rows(1)
    assert (answer.status_code, answer.headers["x-farthing-model"]) == (200, "m")
    assert [one[2] for one in why(row)[1:]] == ["gone: connect", "mini-there: status 401"]
    assert (row["attempts"], row["upstream"], row["saved_route_usd"]) == (3, "default", 0)


@pytest.mark.parametrize(
    ("limit", "script", "failure"),
    [
        ({"breaker_failures": 1, "breaker_pause_s": 60.0}, Script(status=503), "connect"),
        ({"max_in_flight": 1}, Script(wait_s=0.5), "429"),
    ],
)
async def test_an_upstream_that_is_not_asked_at_all_leads_to_the_fallback(
    tmp_path: Path, limit: dict[str, Any], script: Script, failure: str
) -> None:
    route = {"name": "r", "mode": "serve", "model": "m", "variants": ["mini-there"], "fallbacks": ["tiny-there"]}
    async with scripted() as default, scripted() as cheap, scripted() as third:
        upstreams = [{"name": "cheap", "url": cheap.url, "retries": 0} | limit, {"name": "third", "url": third.url}]
        settings = {"prices": PRICES, "upstreams": upstreams, "variants": [MINI, TINY], "routes": [route]}
        async with proxied(default.url, tmp_path, **settings) as proxy:
            cheap.default = script
            first = asyncio.create_task(proxy.post(chat("one")))
            await until(lambda: cheap.calls and (not limit.get("breaker_failures") or first.done()))
            second = await proxy.post(chat("two"))
            await first
            rows = await proxy.rows(2)
    assert (second.headers["x-farthing-model"], default.calls, len(cheap.calls)) == ("tiny", [], 1)
    assert any(["route", "failed", f"mini-there: {failure}"] in why(row) for row in rows)


async def test_where_all_fail_the_client_sees_what_the_asked_for_model_said(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["big"], "fallbacks": ["mini-there"]}]) as at:
        at.default.script(Script(status=503, body=b'{"error":"mine"}', headers={"x-own": "1"}))
        at.cheap.script(Script(status=500, body=b'{"error":"theirs"}'))
        answer = await at.proxy.post(chat())
        (row,) = await at.books(1)
    assert (answer.status_code, answer.json(), answer.headers["x-own"]) == (503, {"error": "mine"}, "1")
    assert (row["upstream"], row["attempts"], row["cost_usd"]) == ("default", 2, 0)


async def test_a_slow_answer_is_hedged_and_the_loser_is_hung_up(tmp_path: Path) -> None:
    route = {"variants": ["mini-there"], "fallbacks": ["tiny-there"], "hedge_after_ms": 50, "hedge_share": 0.05}
    async with house(tmp_path, [route]) as at:
        at.cheap.script(Script(wait_s=30))
        answer = await asyncio.wait_for(at.proxy.post(chat()), 5)
        assert answer.headers["x-farthing-model"] == "tiny"
        await until(lambda: at.cheap.calls[0].cancelled)
        at.cheap.script(Script(wait_s=0.3))
        second = await at.proxy.post(chat("more"))  # the allowance is used up
        assert second.headers["x-farthing-model"] == "mini"
        rows = await at.books(2)
    assert [one["error"] for one in json.loads(rows[0]["attempts_detail"])] == ["hung up: another was faster", ""]
    assert [silent_pico(row) > 0 for row in rows] == [True, False]
    assert len(at.third.calls) == 1


@pytest.mark.parametrize(("second", "answered"), [(200, 200), (503, 503)])
async def test_an_error_does_not_win_against_a_call_that_is_still_under_way(
    tmp_path: Path, second: int, answered: int
) -> None:
    """Without a fallback the same model is asked twice: the first one's error must not hang up the second."""
    plain = {"name": "plain", "model": "m"}
    async with house(tmp_path, [{"variants": ["plain"], "hedge_after_ms": 30}], variants=[plain]) as at:
        at.default.script(Script(status=500, wait_s=0.15), Script(status=second, wait_s=0.3))
        answer = await at.proxy.post(chat())
        (row,) = await at.books(1)
    assert answer.status_code == answered
    assert [one["status"] for one in json.loads(row["attempts_detail"])] == [500, second]


def after(first: ScriptedUpstream, other: ScriptedUpstream) -> None:
    """`other` answers once `first` has been asked, and is idle again."""
    answers = other._answer

    async def waits(*given: Any) -> Any:
        await until(lambda: first.calls and not first.at_once, 20)
        return await answers(*given)

    other._answer = waits  # type: ignore[method-assign]


@pytest.mark.parametrize("more", [[], ["judge-at-cheap"]])
async def test_a_fallback_that_failed_beside_the_first_is_not_asked_again(tmp_path: Path, more: list[str]) -> None:
    route = {"variants": ["mini-there"], "fallbacks": ["tiny-there", *more], "hedge_after_ms": 30, "on": ["5xx"]}
    variants = [MINI, TINY, {"name": "judge-at-cheap", "upstream": "cheap", "model": "judge"}]
    async with house(tmp_path, [route], variants=variants) as at:
        at.cheap.script(Script(status=503))
        at.third.default = Script(status=500)
        after(at.third, at.cheap)
        answer = await at.proxy.post(chat())
        (row,) = await at.books(1)
    assert answer.json()["model"] == ("judge" if more else "m")
    assert [one["variant"] for one in json.loads(row["attempts_detail"]) if one.get("variant")].count("tiny-there") == 1
    assert len(at.third.calls) == 1
    assert [reason for _, action, reason in why(row) if action == "failed"] == ["mini-there: 5xx", "tiny-there: 5xx"]


async def test_where_the_one_beside_fails_in_no_declared_way_the_asked_for_model_is_next(tmp_path: Path) -> None:
    route = {"variants": ["mini-there"], "fallbacks": ["tiny-there", "judge-there"], "hedge_after_ms": 30}
    async with house(tmp_path, [route]) as at:
        at.cheap.default, at.third.default = Script(status=503), Script(status=418)
        after(at.third, at.cheap)
        answer = await at.proxy.post(chat())
        await at.books(1)
    assert (answer.status_code, answer.json()["model"]) == (200, "m")
    assert [len(up.calls) for up in at.ups] == [1, 1, 1]


async def test_a_client_that_leaves_during_a_hedge_ends_both_calls(tmp_path: Path) -> None:
    route = {"variants": ["mini-there"], "fallbacks": ["tiny-there"], "hedge_after_ms": 30}
    async with house(tmp_path, [route]) as at:
        at.cheap.script(Script(wait_s=30))
        at.third.script(Script(wait_s=30))
        asking = asyncio.get_running_loop().create_task(at.proxy.post(chat()))
        await until(lambda: len(at.third.calls) == 1)
        asking.cancel()
        await until(lambda: at.cheap.calls[0].cancelled and at.third.calls[0].cancelled, 1.0)
        (row,) = await at.books(1)
    assert (row["outcome"], row["attempts"]) == ("abandoned", 2)


async def test_a_hedged_stream_comes_from_whoever_begins_first(tmp_path: Path) -> None:
    route = {"variants": ["mini-there"], "fallbacks": ["tiny-there"], "hedge_after_ms": 30}
    async with house(tmp_path, [route]) as at:
        at.cheap.script(Script(wait_s=30))
        at.third.script(Script(chunk_wait_s=0.02))
        answer = await at.proxy.post(chat(stream=True))
        await at.books(1)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert answer.text.count('"tiny"') > 3


async def test_embeddings_and_chained_responses_are_not_routed(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["mini-there"]}]) as at:
        await at.proxy.post({"model": "m", "input": "a"}, "/v1/embeddings")
        await at.proxy.post({"model": "m", "input": "a"}, "/v1/responses")
        await at.proxy.post({"model": "m", "input": "a", "store": False}, "/v1/responses")
        await at.books(3)
    assert (len(at.default.calls), len(at.cheap.calls)) == (2, 1)


async def until(holds: Any, seconds: float = 5.0) -> None:
    async with asyncio.timeout(seconds):
        while not holds():
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("strategy", ["fixed", "cascade"])
async def test_a_variant_may_ask_for_what_was_left_out_and_all_rounds_are_booked(tmp_path: Path, strategy: str) -> None:
    route: dict[str, Any] = {"variants": ["mini-there"]}
    if strategy == "cascade":
        route = {"strategy": strategy, "variants": ["mini-there", "big"], "accept": {"min_chars": 1000}}
    async with house(tmp_path, [route], **RETRIEVING) as at:
        at.cheap.default = Script(fetches=1, looks_for=(blob()[:40],))
        await at.proxy.post(asked())
        answer = await at.proxy.post(asked(turns=1))
        rows = await at.books(2)
    assert len(at.cheap.calls) >= 3
    assert at.cheap.calls[-1].json["messages"][-1]["content"] == blob()
    served = {"fixed": ("mini", 0), "cascade": ("m", 2)}[strategy]
    assert (answer.headers["x-farthing-model"], len(at.default.calls)) == served
    assert [row["model_served"] for row in rows] == [served[0]] * 2


async def test_an_audit_goes_the_way_of_its_request(tmp_path: Path) -> None:
    async with house(tmp_path, [{"variants": ["mini-there"]}], **AUDITED, semantic__audit_share=1.0) as at:
        await loaded(at.proxy)
        at.cheap.default.says = "Ask the desk."
        await at.proxy.post(chat(ASK))
        await quiet(at.proxy)
        hit = await at.proxy.post(chat(AGAIN))
        await quiet(at.proxy)
        rows = await at.books(3)
    assert hit.headers["x-farthing-cache"] == "hit-semantic"
    assert [(row["endpoint"], row["upstream"]) for row in rows if row["upstream"]] == [
        ("chat", "cheap"),
        ("audit", "cheap"),
    ]
    assert (len(at.cheap.calls), at.default.calls) == (2, [])
