"""Answers and errors between the two APIs: the same content, ends and counts."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.cache.exact_json import dumps, loads
from farthing.proxy.adapt import Adapter
from farthing.proxy.adapt_shared import Refused
from farthing.proxy.usage import Usage, from_payload
from tests.fakes.adapters import TO_CHAT, TO_MESSAGES
from tests.fakes.two_apis import CALM, chat_answers, message_answers


@CALM
@given(message_answers())
def test_an_answer_comes_back_as_it_was(answer: dict[str, Any]) -> None:
    there = TO_MESSAGES.answer(200, dumps(answer))
    back = loads(TO_CHAT.answer(200, there))

    # A thought without a signature and a chat without counts can't be told from less; all else can.
    assert back == answer | {"usage": answer["usage"]}


@CALM
@given(message_answers())
def test_both_sides_count_the_same(answer: dict[str, Any]) -> None:
    there = loads(TO_MESSAGES.answer(200, dumps(answer)))

    assert from_payload("chat", there["usage"], there.get("service_tier")) == from_payload("messages", answer["usage"])


@CALM
@given(chat_answers(), st.sampled_from(["", "default", "priority", "flex"]))
def test_both_sides_count_the_same_the_other_way(answer: dict[str, Any], tier: str) -> None:
    answer = answer | ({"service_tier": tier} if tier else {})
    there = loads(TO_CHAT.answer(200, dumps(answer)))

    assert from_payload("messages", there["usage"]) == from_payload("chat", answer["usage"], tier)


def test_writes_for_an_hour_are_writes_to_a_chat() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2, "cache_creation": {"ephemeral_1h_input_tokens": 7}}
    answer = {"id": "i", "type": "message", "model": "m", "content": [], "stop_reason": "end_turn", "usage": usage}
    there = loads(TO_MESSAGES.answer(200, dumps(answer)))

    assert from_payload("chat", there["usage"]) == Usage(fresh=1, cache_write=7, output=2)


@pytest.mark.parametrize(
    ("reason", "finish"),
    [
        ("end_turn", "stop"),
        ("stop_sequence", "stop"),
        ("max_tokens", "length"),
        ("model_context_window_exceeded", "length"),
        ("pause_turn", "length"),
        ("tool_use", "tool_calls"),
        ("refusal", "content_filter"),
        ("tired", "length"),  # whatever it means, nobody may take the answer for whole
    ],
)
def test_how_it_ended(reason: str, finish: str) -> None:
    answer = {"id": "i", "type": "message", "model": "m", "content": [], "stop_reason": reason, "usage": {}}

    assert loads(TO_MESSAGES.answer(200, dumps(answer)))["choices"][0]["finish_reason"] == finish


def test_calls_that_end_in_stop_are_a_use_of_tools() -> None:
    call = {"type": "function", "function": {"name": "f", "arguments": ""}}
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": None, "tool_calls": [call]}}
    out = loads(TO_CHAT.answer(200, dumps({"id": "g", "model": "m", "choices": [choice]})))

    assert out["stop_reason"] == "tool_use"
    assert out["content"] == [{"type": "tool_use", "id": "toolu_g_0", "name": "f", "input": {}}]
    assert out["usage"]["output_tokens"] == 0


@pytest.mark.parametrize("arguments", ['{"city":"Zü', ""])
@pytest.mark.parametrize("finish", ["length", "content_filter"])
def test_half_a_call_is_left_out_and_the_stop_reason_says_so(finish: str, arguments: str) -> None:
    calls = [
        {"id": id, "type": "function", "function": {"name": "f", "arguments": text}}
        for id, text in (("a", '{"x":1}'), ("b", arguments))
    ]
    choice = {"index": 0, "finish_reason": finish, "message": {"content": "Let me", "tool_calls": calls}}
    usage = {"prompt_tokens": 3, "completion_tokens": 9}
    out = loads(TO_CHAT.answer(200, dumps({"id": "g", "model": "m", "choices": [choice], "usage": usage})))

    assert [block.get("id") for block in out["content"]] == [None, "a"]
    assert out["stop_reason"] == {"length": "max_tokens", "content_filter": "refusal"}[finish]
    assert out["usage"]["output_tokens"] == 9


def test_a_whole_call_at_the_limit_stays() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": '{"x":1}'}}
    choice = {"index": 0, "finish_reason": "length", "message": {"content": None, "tool_calls": [call]}}
    out = loads(TO_CHAT.answer(200, dumps({"id": "g", "model": "m", "choices": [choice]})))

    assert [block["input"] for block in out["content"]] == [{"x": 1}]


def test_thoughts_and_texts_in_a_list() -> None:
    content = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "I see"}]},
        {"type": "text", "text": "yes"},
    ]
    choice = {"index": 0, "finish_reason": "stop", "message": {"content": content}}
    out = loads(TO_CHAT.answer(200, dumps({"id": "g", "model": "m", "choices": [choice]})))

    assert out["content"] == [
        {"type": "thinking", "thinking": "I see", "signature": ""},
        {"type": "text", "text": "yes"},
    ]


@pytest.mark.parametrize(
    ("which", "answer", "param"),
    [
        (TO_MESSAGES, {"type": "message", "content": [{"type": "novel"}]}, "content[0].type"),
        (TO_MESSAGES, {"choices": []}, "type"),
        (TO_CHAT, {"choices": []}, "choices"),
        (TO_CHAT, {"choices": [{"message": {}}, {"message": {}}]}, "choices"),
        (TO_CHAT, {"choices": [{"message": {}, "finish_reason": "error"}]}, "choices[0].finish_reason"),
        (
            TO_CHAT,
            {"choices": [{"message": {"content": [{"type": "reference", "reference_ids": [1]}]}}]},
            "choices[0].message.content[0].type",
        ),
        (
            TO_CHAT,
            {"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}}]},
            "choices[0].message.tool_calls[0].function.arguments",
        ),
    ],
)
def test_answers_that_make_no_sense_are_refused(which: Adapter, answer: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as refused:
        which.answer(200, dumps(answer))

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("status", "there"), [(400, 400), (401, 401), (404, 404), (413, 413), (429, 429), (500, 500), (529, 503)]
)
def test_errors_as_a_chat_has_them(status: int, there: int) -> None:
    body = {"type": "error", "error": {"type": "rate_limit_error", "message": "slow down"}, "request_id": "r"}
    error = loads(TO_MESSAGES.answer(status, dumps(body)))["error"]

    assert TO_MESSAGES.status(status) == there
    assert error == {"message": "slow down", "type": "rate_limit_error", "param": None, "code": "rate_limit_exceeded"}


@pytest.mark.parametrize(
    ("status", "there", "kind"),
    [
        (400, 400, "invalid_request_error"),
        (401, 401, "authentication_error"),
        (402, 402, "billing_error"),
        (403, 403, "permission_error"),
        (404, 404, "not_found_error"),
        (422, 422, "invalid_request_error"),
        (429, 429, "rate_limit_error"),
        (502, 502, "api_error"),
        (503, 529, "overloaded_error"),
    ],
)
def test_errors_as_messages_have_them(status: int, there: int, kind: str) -> None:
    body = {"error": {"message": "no", "type": "x", "param": "model", "code": None}}
    told = loads(TO_CHAT.answer(status, dumps(body)))

    assert TO_CHAT.status(status) == there
    assert told == {"type": "error", "error": {"type": kind, "message": "model: no"}}


@pytest.mark.parametrize("which", [TO_MESSAGES, TO_CHAT])
@pytest.mark.parametrize(
    "body", [b"", b"<html>Bad gateway</html>", b"\xff\xfe", b"[1]", b'{"error":"text"}', b'[{"error":{}}]']
)
def test_errors_of_no_shape_have_one_afterwards(which: Adapter, body: bytes) -> None:
    assert isinstance(loads(which.answer(502, body))["error"]["message"], str)
