"""Cascades over real servers: what is accepted, what escalates and why, and that all of it is booked."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from tests.fakes.proxying import chat
from tests.fakes.upstream import Script
from tests.wire.test_routes import BIG, JUDGE, MINI, house, until, why


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
    said = ["route", "passed over", "mini-there: streams aren't held back here, so not checked"]
    assert (said in json.loads(row["decisions"])) == (streams == "pass")


async def test_a_cheap_answer_whose_usage_is_not_told_is_counted(tmp_path: Path) -> None:
    async with house(tmp_path, [{"strategy": "cascade", "variants": ["mini-there", "big"]}]) as at:
        at.cheap.script(Script(says="", words=1, no_usage=True))
        await at.proxy.post(chat())
        (row,) = await at.proxy.rows(1)
    first = json.loads(row["attempts_detail"])[0]
    assert first["other"]["usage"]["source"] == "counted"
    assert row["modelled"] == 1
