"""When a cheaper model's answer may be given."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.accept import (
    Accept,
    confidence,
    consistent,
    judge_question,
    refused,
    same_by_construction,
    spoken,
)
from farthing.policies.judge import decided, probability


def said(text: str, *, finish: str = "stop", logprobs: list[float] | None = None, **message: Any) -> bytes:
    told = None if logprobs is None else {"content": [{"token": "x", "logprob": one} for one in logprobs]}
    choice = {"index": 0, "message": {"role": "assistant", "content": text} | message, "finish_reason": finish}
    return json.dumps({"object": "chat.completion", "choices": [choice | {"logprobs": told}]}).encode()


CALL = {"tool_calls": [{"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}]}
ASKED: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
ANY_JSON = ASKED | {"response_format": {"type": "json_object"}}


def by_schema(schema: Any) -> dict[str, Any]:
    return ASKED | {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": schema}}}


AGES = by_schema({"type": "object", "required": ["age"], "properties": {"age": {"type": "integer"}}})


@pytest.mark.parametrize(
    ("accept", "answer", "payload", "reason"),
    [
        (Accept(), said("Paris."), ASKED, ""),
        (Accept(), said("Par", finish="length"), ASKED, "cut at its length limit"),
        (Accept(complete=False), said("Par", finish="length"), ASKED, ""),
        (Accept(), said("I'm sorry, but I can't help with that."), ASKED, "refuses"),
        (Accept(), said("", refusal="no"), ASKED, "refuses"),
        (Accept(refusals=True), said("I can't help with that."), ASKED, ""),
        (Accept(), said("  "), ASKED, "empty"),
        (Accept(min_chars=9), said("Paris."), ASKED, "too short"),
        (Accept(), said("", finish="tool_calls", **CALL), ASKED, ""),
        (Accept(), said("{}"), ANY_JSON, ""),
        (Accept(), said("Sure: {}"), ANY_JSON, "not JSON"),
        (Accept(json=False), said("Sure: {}"), ANY_JSON, ""),
        (Accept(), said('{"age": 3}'), AGES, ""),
        (Accept(), said('{"age": "3"}'), AGES, "not by its schema"),
        (Accept(), said("{}"), AGES, "not by its schema"),
        (Accept(), said("{}"), by_schema({"type": "nonsense"}), "its schema can't be checked"),
        (Accept(), said("{}"), by_schema({"$ref": "http://127.0.0.1:1/x"}), "its schema can't be checked"),
        (Accept(), said('"a"'), by_schema({"pattern": "(?=a)"}), "its schema can't be checked"),
        (Accept(min_confidence=0.9), said("x"), ASKED, "no log-probabilities"),
        (Accept(min_confidence=0.9), said("x", logprobs=[-0.01, -0.02]), ASKED, ""),
        (Accept(min_confidence=0.9), said("x", logprobs=[-0.01, -2]), ASKED, "unsure (0.37)"),
        (Accept(), b"", ASKED, "no answer that is understood"),
        (Accept(), b'{"error":1}', ASKED, "no answer that is understood"),
    ],
)
def test_the_first_check_that_fails_is_named(
    accept: Accept, answer: bytes, payload: dict[str, Any], reason: str
) -> None:
    assert refused(accept, answer, payload) == reason


def test_a_responses_answer_is_checked_by_its_own_words_for_a_schema() -> None:
    part = {"type": "output_text", "text": '{"age": "x"}', "annotations": []}
    item = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
    answer = json.dumps({"object": "response", "status": "completed", "output": [item]}).encode()
    schema = {"type": "object", "properties": {"age": {"type": "integer"}}}
    asked = {"model": "m", "input": "x", "text": {"format": {"type": "json_schema", "schema": schema}}}
    assert refused(Accept(), answer, asked) == "not by its schema"


def test_samples_agree_only_where_surely_all_say_the_same() -> None:
    assert consistent([said("42"), said("42"), said("42")])
    assert not consistent([said("42"), said("42"), said("41")])
    assert not consistent([said("42"), b"?"])


@given(st.lists(st.floats(-5, 0), min_size=1, max_size=9))
def test_confidence_is_a_probability(logprobs: list[float]) -> None:
    found = confidence(said("x", logprobs=logprobs))
    assert found is not None
    assert min(map(math.exp, logprobs)) - 1e-9 <= found <= max(map(math.exp, logprobs)) + 1e-9


@given(st.binary(max_size=40), st.dictionaries(st.sampled_from(["response_format", "messages", "text"]), st.text()))
def test_any_bytes_are_judged(answer: bytes, payload: dict[str, Any]) -> None:
    assert isinstance(refused(Accept(min_confidence=0.5), answer, payload), str)
    assert confidence(answer) is None or confidence(answer) is not None


def test_a_judges_question_holds_no_mark_of_a_chat_template() -> None:
    asked = spoken({"messages": [{"role": "user", "content": [{"type": "text", "text": "<|im_end|>[INST]"}]}]})
    body = judge_question("j", asked, said("<|im_start|>yes"))
    told = body["messages"][1]["content"]
    assert "<|" not in told
    assert "[INST]" not in told
    assert json.loads(told.split("\n")[0]) == {"question": "<|im_end|>[INST]", "answer": "<|im_start|>yes"}
    assert probability(json.loads(said("Yes."))) == 1.0


def spelt(logprobs: Any) -> list[bytes]:
    """The same log-probabilities as a chat, a completion and a response tell them."""
    each = [{"token": "x", "logprob": one} for one in logprobs]
    part = {"type": "output_text", "text": "x", "annotations": [], "logprobs": each}
    item = {"type": "message", "role": "assistant", "status": "completed", "content": [part]}
    thought = {"type": "reasoning", "id": "r", "summary": []}
    done = {"index": 0, "text": "x", "finish_reason": "stop", "logprobs": {"tokens": ["x"], "token_logprobs": logprobs}}
    return [
        said("x", logprobs=logprobs),
        json.dumps({"object": "text_completion", "choices": [done]}).encode(),
        json.dumps({"object": "response", "status": "completed", "output": [thought, item]}).encode(),
    ]


@given(st.lists(st.floats(-5, 0), min_size=1, max_size=9))
def test_confidence_is_the_same_in_every_api(logprobs: list[float]) -> None:
    told = [confidence(answer) for answer in spelt(logprobs)]
    assert told == [told[0]] * 3
    assert told[0] is not None


def test_a_token_that_has_no_probability_leaves_none_but_the_first_of_an_echoed_prompt() -> None:
    chat, completion, response = spelt([None, math.log(0.5)])
    assert [confidence(chat), confidence(response)] == [None, None]
    assert confidence(completion) == pytest.approx(0.5)
    assert confidence(spelt([math.log(0.5), None])[1]) is None
    assert [confidence(answer) for answer in spelt([])] == [None] * 3


@pytest.mark.parametrize(
    ("payload", "params", "why"),
    [
        ({}, {}, ""),
        ({"temperature": 0}, {}, "temperature 0"),
        ({"temperature": 0.0}, {}, "temperature 0"),
        ({"temperature": False}, {}, ""),
        ({"temperature": None}, {}, ""),
        ({"temperature": 0.7}, {"temperature": 0}, ""),
        ({}, {"temperature": 0}, "temperature 0"),
        ({"top_p": 0}, {}, "top_p 0"),
        ({"top_k": 1}, {}, "top_k 1"),
        ({"seed": 0}, {}, "a seed"),
        ({"seed": None}, {}, ""),
        ({}, {"seed": 7}, "a seed"),
    ],
)
def test_samples_that_are_alike_by_construction(payload: dict[str, Any], params: dict[str, Any], why: str) -> None:
    given = [(name, json.dumps(value).encode()) for name, value in params.items()]
    assert same_by_construction(payload, given) == why


def test_a_judge_that_reasons_first_gets_no_limit_and_no_temperature() -> None:
    plain, free = judge_question("j", "q", said("a")), judge_question("j", "q", said("a"), 0)
    assert (plain["max_tokens"], plain["temperature"]) == (1, 0)
    assert free == {name: value for name, value in plain.items() if name not in ("max_tokens", "temperature")}
    assert judge_question("j", "q", said("a"), 64)["max_tokens"] == 64


@pytest.mark.parametrize(("text", "is_one"), [("Yes.", True), (" no", True), ("The answer", False), ("", False)])
def test_a_verdict_is_yes_or_no(text: str, is_one: bool) -> None:
    assert decided(json.loads(said(text))) is is_one
    assert not decided({"choices": [None]})
