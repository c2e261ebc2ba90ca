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
from structlog.testing import capture_logs

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


async def test_a_cascade_gives_the_cheap_answer_where_it_is_accepted(tmp_path: Path) -> None:
    async with house(tmp_path, [{"strategy": "cascade", "variants": ["mini-there", "big"]}]) as at:
        answer = await at.proxy.post(chat())
        (row,) = await at.books(1)
    assert answer.headers["x-farthing-model"] == row["model_served"] == "mini"
    assert ["route", "accepted", "mini-there"] in why(row)
    assert at.default.calls == []


@pytest.mark.parametrize(
    ("said", "more", "reason"),
    [
        ("I'm sorry, but I can't help with that.", {}, "refuses"),
        ("not json", {"response_format": {"type": "json_object"}}, "not JSON"),
        (
            '{"age":"old"}',
            {
                "response_format": {
                    "type": "json_schema",
                    "json_schema": {"name": "a", "schema": {"properties": {"age": {"type": "integer"}}}},
                }
            },
            "not by its schema",
        ),
    ],
)
async def test_a_cascade_escalates_and_the_row_carries_both_costs(
    tmp_path: Path, said: str, more: dict[str, Any], reason: str
) -> None:
    answer_of = {
        "id": "c", "object": "chat.completion", "created": 1, "model": "mini",
        "choices": [{"index": 0, "message": {"role": "assistant", "content": said}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 9, "completion_tokens": 4, "total_tokens": 13},
    }  # fmt: skip
    async with house(tmp_path, [{"strategy": "cascade", "variants": ["mini-there", "big"]}]) as at:
        at.cheap.script(Script(answer=answer_of))
        answer = await at.proxy.post(chat(**more))
        (row,) = await at.books(1)
    assert answer.headers["x-farthing-model"] == "m"
    assert ["route", "escalated", f"mini-there: {reason}"] in why(row)
    assert row["saved_route_usd"] == -(9 * 1 + 4 * 2) * 10**6
    first, last = json.loads(row["attempts_detail"])
    assert first["other"] == {"model": "mini", "usage": {"fresh": 9, "output": 4}}
    assert (first["variant"], last["upstream"]) == ("mini-there", "default")


async def test_a_cascade_asks_for_more_samples_and_a_judge(tmp_path: Path) -> None:
    accept = {"agree": 3, "judge": "judge-there"}
    route = {"strategy": "cascade", "variants": ["mini-there", "big"], "accept": accept}
    async with house(tmp_path, [route]) as at:
        at.cheap.default.says = "42"
        at.third.script(Script(says="yes"), Script(says="No."))
        first = await at.proxy.post(chat("one"))
        second = await at.proxy.post(chat("two"))
        at.cheap.script(Script(says="41"))
        third = await at.proxy.post(chat("three"))
        rows = await at.books(3)
    assert [one.headers["x-farthing-model"] for one in (first, second, third)] == ["mini", "m", "m"]
    assert len(at.third.calls) == 2
    assert [why(row)[-1][1:] for row in rows] == [
        ["accepted", "mini-there"],
        ["escalated", "mini-there: the judge says no"],
        ["escalated", "mini-there: 3 samples differ"],
    ]


REFUSES = {"error": {"message": "it said: hello there", "code": "unsupported_parameter", "param": "max_tokens"}}


@pytest.mark.parametrize(
    ("script", "why_not"),
    [
        (Script(status=400, body=json.dumps(REFUSES).encode()), "can't be asked: 400 unsupported_parameter max_tokens"),
        (Script(status=400, body=b'{"error":{"code":"it said: hello there"}}'), "can't be asked: 400"),
        (Script(status=401, body=b"no"), "can't be asked: 401"),
        (Script(reset=True), "can't be asked: reset"),
        (Script(says="Well, the answer"), "says neither yes nor no"),
    ],
)
async def test_a_judge_that_cannot_be_asked_has_not_said_no(tmp_path: Path, script: Script, why_not: str) -> None:
    route = {"strategy": "cascade", "variants": ["mini-there", "big"], "accept": {"judge": "judge-there"}}
    async with house(tmp_path, [route]) as at:
        at.third.default = script
        with capture_logs() as logs:
            answers = [await at.proxy.post(chat(text)) for text in ("one", "two", "three")]
            rows = await at.books(3)
    assert [one.headers["x-farthing-model"] for one in answers] == ["m"] * 3
    assert [why(row)[-1] for row in rows] == [["route", "escalated", f"mini-there: the judge {why_not}"]] * 3
    told = [one for one in logs if one["event"].startswith("a cascade's answers aren't judged")]
    assert [(one["judge"], one["why"]) for one in told] == [("judge-there", f"the judge {why_not}")]


async def test_a_judge_that_reasons_first_is_asked_without_a_limit(tmp_path: Path) -> None:
    accept = {"judge": "judge-there", "judge_max_tokens": 0}
    judge = JUDGE | {"params": {"reasoning_effort": "low"}}
    route = {"strategy": "cascade", "variants": ["mini-there", "big"], "accept": accept}
    async with house(tmp_path, [route], variants=[MINI, BIG, judge]) as at:
        at.third.default = Script(says="yes")
        answer = await at.proxy.post(chat())
        await at.books(1)
    assert answer.headers["x-farthing-model"] == "mini"
    assert set(at.third.calls[0].json) == {"model", "messages", "reasoning_effort"}


@pytest.mark.parametrize(("more", "reason"), [({"temperature": 0}, "temperature 0"), ({"seed": 3}, "a seed")])
async def test_samples_that_would_be_alike_are_not_paid_for(tmp_path: Path, more: dict[str, Any], reason: str) -> None:
    route = {"strategy": "cascade", "variants": ["mini-there", "big"], "accept": {"agree": 3}}
    async with house(tmp_path, [route]) as at:
        at.cheap.default = Script(says="42")
        alike = await at.proxy.post(chat(**more))
        sampled = await at.proxy.post(chat(temperature=0.7))
        rows = await at.books(2)
    assert [one.headers["x-farthing-model"] for one in (alike, sampled)] == ["m", "mini"]
    assert len(at.cheap.calls) == 3
    said = f"mini-there: not asked, its samples would be alike ({reason})"
    assert why(rows[0])[-1] == ["route", "escalated", said]


@pytest.mark.parametrize("sure", [True, False])
@pytest.mark.parametrize("path", ["/v1/responses", "/v1/completions"])
async def test_how_sure_an_answer_is_counts_in_other_apis_too(tmp_path: Path, path: str, sure: bool) -> None:
    logprob = -0.01 if sure else -3.0
    usage: dict[str, Any]
    if path == "/v1/responses":
        part = {
            "type": "output_text",
            "text": "42",
            "annotations": [],
            "logprobs": [{"token": "42", "logprob": logprob}],
        }
        item = {"type": "message", "id": "m", "role": "assistant", "status": "completed", "content": [part]}
        usage = {"input_tokens": 9, "output_tokens": 1, "total_tokens": 10}
        answer = {
            "object": "response",
            "id": "r",
            "model": "mini",
            "status": "completed",
            "output": [item],
            "usage": usage,
        }
        asks = {"model": "m", "input": "six times seven", "store": False, "include": ["message.output_text.logprobs"]}
    else:
        told = {"tokens": ["42"], "token_logprobs": [logprob], "top_logprobs": None, "text_offset": [0]}
        choice = {"index": 0, "text": "42", "finish_reason": "stop", "logprobs": told}
        usage = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
        answer = {
            "object": "text_completion",
            "id": "c",
            "created": 1,
            "model": "mini",
            "choices": [choice],
            "usage": usage,
        }
        asks = {"model": "m", "prompt": "six times seven", "logprobs": 0}
    route = {"strategy": "cascade", "variants": ["mini-there", "big"], "accept": {"min_confidence": 0.8}}
    async with house(tmp_path, [route]) as at:
        at.cheap.script(Script(body=json.dumps(answer).encode(), headers={"Content-Type": "application/json"}))
        got = await at.proxy.post(asks, path)
        (row,) = await at.proxy.rows(1)
    assert got.headers["x-farthing-model"] == ("mini" if sure else "m"), why(row)


async def test_what_was_tried_is_booked_when_the_client_leaves_before_it_is_judged(tmp_path: Path) -> None:
    route = {"strategy": "cascade", "variants": ["mini-there", "big"], "accept": {"judge": "judge-there"}}
    async with house(tmp_path, [route]) as at:
        at.third.script(Script(wait_s=30))
        asking = asyncio.get_running_loop().create_task(at.proxy.post(chat()))
        await until(lambda: len(at.third.calls) == 1)
        asking.cancel()
        await until(lambda: at.third.calls[0].cancelled, 1.0)
        (row,) = await at.books(1)
    assert row["outcome"] == "abandoned"
    assert row["cost_usd"] == -row["saved_route_usd"] > 0


@pytest.mark.parametrize(("streams", "model"), [("pass", "m"), ("hold", "mini")])
async def test_a_stream_passes_a_cascade_by_or_is_held(tmp_path: Path, streams: str, model: str) -> None:
    route = {"strategy": "cascade", "variants": ["mini-there", "big"], "accept": {"streams": streams}}
    async with house(tmp_path, [route]) as at:
        answer = await at.proxy.post(chat(stream=True))
        (row,) = await at.books(1)
    assert answer.text.endswith("data: [DONE]\n\n")
    assert '"usage"' not in answer.text
    assert row["model_served"] == model


async def test_a_cheap_answer_whose_usage_is_not_told_is_counted(tmp_path: Path) -> None:
    async with house(tmp_path, [{"strategy": "cascade", "variants": ["mini-there", "big"]}]) as at:
        at.cheap.script(Script(says="", words=1, no_usage=True))
        await at.proxy.post(chat())
        (row,) = await at.proxy.rows(1)
    first = json.loads(row["attempts_detail"])[0]
    assert first["other"]["usage"]["source"] == "counted"
    assert row["modelled"] == 1


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
