"""Each format of logs, in the shape that its program writes, comes out as the same request and answer."""

from __future__ import annotations

import copy
from typing import Any

import orjson
import pytest

from farthing.proxy.exchange import Endpoint
from farthing.proxy.replay_formats import FORMATS, detected, recorded
from farthing.proxy.replay_values import NotARequest, endpoint_of_body, seconds, tags_of
from farthing.proxy.usage import Usage, UsageSource

BODY: dict[str, Any] = {"model": "gpt-4o-mini", "messages": [{"role": "user", "content": "hi"}], "temperature": 0}
USAGE = {
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "total_tokens": 120,
    "prompt_tokens_details": {"cached_tokens": 60},
    "completion_tokens_details": {"reasoning_tokens": 5},
}
ANSWER: dict[str, Any] = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1764000000,
    "model": "gpt-4o-mini-2024-07-18",
    "choices": [{"index": 0, "message": {"role": "assistant", "content": "hello"}, "finish_reason": "stop"}],
    "usage": USAGE,
}
AT_S = 1764000000.5
AT = "2025-11-24T16:00:00.500Z"

CAPTURE = {
    "id": "far-1",
    "ts": AT_S,
    "tenant": "t1",
    "user": "ann",
    "tags": {"team": "search"},
    "endpoint": "chat",
    "path": "/v1/chat/completions",
    "stream": False,
    "request": BODY,
    "response": ANSWER,
    "status": 200,
    "row": {"latency_ms": 800.0, "upstream_ms": 790.0, "model_served": "gpt-4o-mini-2024-07-18", "cache": "miss"},
}
LITELLM_SPEND = {
    "request_id": "chatcmpl-1",
    "call_type": "acompletion",
    "api_key": "88dc28d0f030c55ed4ab77ed8faf098196cb1c05df778539800c9f1243fe6b4b",
    "spend": 0.00003,
    "total_tokens": 120,
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "startTime": "2025-11-24 16:00:00.500000+00:00",
    "endTime": "2025-11-24T16:00:01.300000+00:00",
    "completionStartTime": "2025-11-24T16:00:01.300000+00:00",
    "model": "gpt-4o-mini-2024-07-18",
    "model_group": "gpt-4o-mini",
    "api_base": "https://api.openai.com/v1",
    "user": "default_user_id",
    "metadata": '{"user_api_key": "88dc", "usage_object": null}',
    "cache_hit": "False",
    "cache_key": "Cache OFF",
    "request_tags": '["team:search", "prod"]',
    "end_user": "ann",
    "messages": {},
    "response": ANSWER,
    "proxy_server_request": orjson.dumps(BODY).decode(),
    "status": "success",
}
LITELLM_STANDARD = {
    "id": "chatcmpl-1",
    "trace_id": "a",
    "call_type": "completion",
    "stream": False,
    "response_cost": 0.00003,
    "status": "success",
    "total_tokens": 120,
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "startTime": AT_S,
    "endTime": AT_S + 0.8,
    "completionStartTime": AT_S + 0.8,
    "model": "gpt-4o-mini",
    "model_group": None,
    "metadata": {"user_api_key_hash": "88dc", "usage_object": USAGE},
    "cache_hit": None,
    "request_tags": ["team:search"],
    "end_user": "ann",
    "messages": BODY["messages"],
    "response": {name: value for name, value in ANSWER.items() if name != "usage"},
    "model_parameters": {"temperature": 0},
}
HELICONE = {
    "response_id": "r",
    "response_created_at": "2025-11-24T16:00:01.300Z",
    "response_body": ANSWER,
    "response_status": 200,
    "response_model": "gpt-4o-mini-2024-07-18",
    "request_id": "q",
    "request_created_at": AT,
    "request_body": BODY,
    "request_path": "https://api.openai.com/v1/chat/completions",
    "request_user_id": "ann",
    "request_properties": {"team": "search"},
    "request_model": "gpt-4o-mini",
    "provider": "OPENAI",
    "delay_ms": 800,
    "prompt_tokens": 100,
    "completion_tokens": 20,
    "cost": 0.00003,
}
LANGFUSE_UI = {
    "id": "o",
    "traceId": "t",
    "type": "GENERATION",
    "name": "OpenAI-generation",
    "startTime": AT,
    "endTime": "2025-11-24T16:00:01.300Z",
    "model": "gpt-4o-mini",
    "modelParameters": {"temperature": 0},
    "input": BODY["messages"],
    "output": {"role": "assistant", "content": "hello"},
    "level": "DEFAULT",
    "usageDetails": {
        "input": 40,
        "input_cached_tokens": 60,
        "output": 15,
        "output_reasoning_tokens": 5,
        "total": 120,
    },
    "projectId": "p",
    "userId": "ann",
    "tags": ["team:search"],
}
LANGFUSE_BLOB = {
    "id": "o",
    "trace_id": "t",
    "type": "GENERATION",
    "start_time": "2025-11-24 16:00:00.500000",
    "end_time": "2025-11-24 16:00:01.300000",
    "provided_model_name": "gpt-4o-mini",
    "model_parameters": '{"temperature": 0}',
    "input": '{"messages": [{"role": "user", "content": "hi"}]}',
    "output": "hello",
    "usage_details": {"input": 40, "input_cached_tokens": 60, "output": 15, "output_reasoning_tokens": 5, "total": 120},
    "project_id": "p",
    "user_id": "ann",
    "tags": ["team:search"],
}
OPENAI_PAIR = {
    "timestamp": AT_S * 1000,
    "user": "ann",
    "tags": {"team": "search"},
    "request": BODY,
    "response": {"status_code": 200, "body": ANSWER},
    "latency_ms": 800,
}
IN_ONE = BODY | {
    "ts": AT_S,
    "user": "ann",
    "tags": ["team=search"],
    "response": ANSWER,
    "status": 200,
    "latency_s": 0.8,
}
LINES = {
    "capture": ("farthing", CAPTURE),
    "litellm spend log": ("litellm", LITELLM_SPEND),
    "litellm standard payload": ("litellm", LITELLM_STANDARD),
    "helicone": ("helicone", HELICONE),
    "langfuse from the screen": ("langfuse", LANGFUSE_UI),
    "langfuse from blob storage": ("langfuse", LANGFUSE_BLOB),
    "openai": ("openai", OPENAI_PAIR),
    "openai in one": ("openai", IN_ONE),
}


@pytest.mark.parametrize("name", LINES)
def test_every_format_says_the_same_of_one_request(name: str) -> None:
    format, line = LINES[name]
    before = copy.deepcopy(line)

    one = recorded(line)

    assert line == before
    assert (detected(line), one.format) == (format, format)
    assert one.body == BODY | ({"user": "ann"} if name == "openai in one" else {})  # an API's own member
    assert one.endpoint is Endpoint.CHAT and one.target == "/v1/chat/completions"
    assert one.ts == pytest.approx(AT_S)
    assert one.latency_s == pytest.approx(0.8)
    assert one.user == "ann"
    assert ("team", "search") in one.tags
    assert one.status == 200
    assert one.usage == Usage(fresh=40, cached=60, output=15, reasoning=5)
    assert one.response is not None
    assert one.response["choices"][0]["message"]["content"] == "hello"
    assert one.model_served in ("gpt-4o-mini-2024-07-18", "gpt-4o-mini")


@pytest.mark.parametrize("name", LINES)
def test_a_format_that_is_named_is_read_the_same(name: str) -> None:
    format, line = LINES[name]

    assert recorded(line, format) == recorded(line)


BATCH_INPUT = {"custom_id": "r-1", "method": "POST", "url": "/v1/embeddings",
               "body": {"model": "text-embedding-3-small", "input": "hi"}}  # fmt: skip


@pytest.mark.parametrize(
    ("line", "endpoint", "target"),
    [
        (BODY, Endpoint.CHAT, "/v1/chat/completions"),
        ({"body": BODY}, Endpoint.CHAT, "/v1/chat/completions"),
        ({"request": {"path": "/v1/chat/completions", "body": BODY}}, Endpoint.CHAT, "/v1/chat/completions"),
        (BATCH_INPUT, Endpoint.EMBEDDINGS, "/v1/embeddings"),
        ({"model": "text-embedding-3-small", "input": ["a"]}, Endpoint.EMBEDDINGS, "/v1/embeddings"),
        ({"model": "m", "input": "a"}, Endpoint.RESPONSES, "/v1/responses"),
        ({"model": "m", "prompt": "a"}, Endpoint.COMPLETIONS, "/v1/completions"),
        (BODY | {"system": "s"}, Endpoint.MESSAGES, "/v1/messages"),
        ({"path": "/v1/messages", "body": BODY}, Endpoint.MESSAGES, "/v1/messages"),
    ],
)
def test_what_stands_alone_is_told_by_path_or_members(line: dict[str, Any], endpoint: Endpoint, target: str) -> None:
    one = recorded(line)

    assert (one.endpoint, one.target, one.ts, one.usage, one.latency_s) == (endpoint, target, None, None, None)


ROW: dict[str, Any] = {
    "id": "far-1", "ts": AT_S, "endpoint": "chat", "status": 200, "outcome": "completed", "tenant": "t",
    "key_hash": "ab" * 16, "cache_reason": "", "cache": "hit-exact", "tags": '{"team":"search"}', "user": "ann",
    "tokens_in_original": 100, "tokens_in_sent": 0, "tokens_in_cached": 0, "tokens_in_cache_write": 0,
    "tokens_out": 20, "tokens_reasoning": 5, "usage_source": "counted", "model_served": "m-1", "latency_ms": 2.0,
}  # fmt: skip


def test_a_ledgers_row_has_a_key_and_tokens_and_no_prompt() -> None:
    one = recorded(ROW)

    assert (one.format, one.body, one.response) == ("ledger", None, None)
    assert one.usage == Usage(100, 0, 0, 15, 5, UsageSource.COUNTED)
    assert (one.latency_s, one.tags, one.row) == (0.002, (("team", "search"),), ROW)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        (CAPTURE | {"endpoint": "audit"}, "calls of farthing's own"),
        (LITELLM_SPEND | {"proxy_server_request": "{}"}, "requests whose prompt was not logged"),
        (LITELLM_STANDARD | {"messages": "redacted-by-litellm"}, "requests whose prompt was not logged"),
        (LITELLM_SPEND | {"call_type": "aimage_generation"}, "calls that are no text requests"),
        (HELICONE | {"request_body": {}}, "requests whose prompt was not exported"),
        (LANGFUSE_UI | {"type": "SPAN"}, "observations that are no generations"),
        (LANGFUSE_UI | {"input": None}, "requests whose prompt was not logged"),
        ([1, 2], ""),
        ("text", ""),
        ({}, ""),
        ({"custom_id": "r-1", "response": {"status_code": 200, "body": ANSWER}}, ""),
        (CAPTURE | {"request": None}, ""),
    ],
)
def test_what_holds_no_request_says_so(line: Any, kind: str) -> None:
    with pytest.raises(NotARequest) as error:
        recorded(line)

    assert error.value.kind == kind and str(error.value)


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(
    "value", [None, -1, "", "x", [], {}, {"a": 1}, 10**30, -(10**30), True, [None], "{", float("nan")]
)
def test_absurd_members_break_nothing(format: str, value: Any) -> None:
    """Every member of every format's line replaced by nonsense: a request or NotARequest, nothing else."""
    for name, (of, line) in {**LINES, "ledger": ("ledger", ROW)}.items():
        for member in line if of == format else ():
            try:
                one = recorded(line | {member: value}, format)
            except NotARequest:
                continue
            assert one.usage is None or min(one.usage[:5]) >= 0, (name, member)
            assert one.ts is None or 0 < one.ts < 1e11
            assert one.latency_s is None or one.latency_s >= 0


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (1764000000, 1764000000.0),
        (1764000000500, 1764000000.5),
        ("2025-11-24T16:00:00.5Z", 1764000000.5),
        ("2025-11-24 16:00:00.500000", 1764000000.5),
        ("2025-11-24T17:00:00.500+01:00", 1764000000.5),
        ("yesterday", None),
        (0, None),
        (-5, None),
        (True, None),
        (None, None),
    ],
)
def test_times(value: Any, expected: float | None) -> None:
    assert seconds(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"b": 1, "a": "x"}, (("a", "x"), ("b", "1"))),
        (["team:search", "env=prod", "beta"], (("env", "prod"), ("tag", "beta"), ("team", "search"))),
        ("team=search,feature=faq", (("feature", "faq"), ("team", "search"))),
        (None, ()),
        (7, ()),
    ],
)
def test_tags(value: Any, expected: tuple[tuple[str, str], ...]) -> None:
    assert tags_of(value) == expected


def test_a_path_that_does_not_fit_the_members_is_no_request() -> None:
    assert endpoint_of_body("/v1/responses", {"model": "m", "prompt": "a"}) is Endpoint.OTHER


def test_the_answers_service_tier_prices_it() -> None:
    at_flex = ANSWER | {"service_tier": "flex"}
    apart = {"body": BODY, "usage": USAGE, "service_tier": "priority"}
    row = {"attempts_detail": '[{"status":500},{"status":200,"usage":{"tier":"flex"}}]'}
    counts = {"tokens_in_original": 9, "tokens_in_sent": 9, "tokens_out": 2}
    found = [
        recorded(line, "").usage
        for line in (
            {"body": BODY, "response": at_flex},
            CAPTURE | {"response": at_flex},
            apart,
            CAPTURE | {"response": None, "row": CAPTURE["row"] | row | counts},
            CAPTURE | {"response": None, "row": CAPTURE["row"] | counts},
        )
    ]
    assert [usage.tier for usage in found if usage is not None] == ["flex", "flex", "priority", "flex", ""]


def test_audio_tells_itself_apart_in_a_row_and_in_langfuses_buckets() -> None:
    """Else it would be priced as text, or as nothing, where the ledger says that its price is unknown."""
    told = orjson.dumps([{"usage": {"audio_in": 30, "cache_write_1h": 5, "audio_out": 7, "tier": "flex"}}]).decode()
    row = {**ROW, "tokens_in_original": 100, "tokens_in_sent": 100, "tokens_in_cached": 60, "tokens_in_cache_write": 5}
    row |= {"tokens_out": 20, "tokens_reasoning": 5, "attempts_detail": told}
    expected = Usage(5, 60, 0, 8, 5, UsageSource.COUNTED, cache_write_1h=5, audio_in=30, audio_out=7, tier="flex")
    assert recorded(row).usage == expected
    contradicted = recorded({**row, "tokens_in_sent": 65}).usage
    assert contradicted is not None
    assert contradicted.audio_in == 0

    buckets = {"input": 10, "input_cached_tokens": 60, "input_audio_tokens": 30, "total": 120}
    buckets |= {"output": 8, "output_reasoning_tokens": 5, "output_audio_tokens": 7}
    one = recorded({**LANGFUSE_UI, "usageDetails": buckets}).usage
    assert one == Usage(10, 60, 0, 8, 5, audio_in=30, audio_out=7)


@pytest.mark.parametrize("bad", [{"input": -5}, {"output": 10**12}, {"input_cached_tokens": "many"}])
def test_a_langfuse_usage_with_an_absurd_count_is_none(bad: dict[str, Any]) -> None:
    assert recorded({**LANGFUSE_UI, "usageDetails": {"input": 10, "output": 8, **bad}}).usage is None
