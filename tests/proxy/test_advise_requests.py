"""Requests are read out of whatever an app or a proxy wrote; what is none is counted or refused in words."""

import json
from typing import Any

import pytest

from farthing.proxy.advise_requests import read_requests, replaced
from farthing.proxy.errors import ConfigFault

CHAT: dict[str, Any] = {
    "model": "m",
    "messages": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}, {"type": "image_url", "image_url": {}}]},
        {"role": "assistant", "content": "Hi"},
        {"role": "user", "content": "Bye"},
    ],
}
RESPONSES: dict[str, Any] = {"model": "m", "instructions": "Be brief.", "input": "Hello"}
ITEMS: dict[str, Any] = {
    "model": "m",
    "input": [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": [{"type": "input_text", "text": "Hello"}]},
    ],
}
MESSAGES: dict[str, Any] = {
    "model": "m",
    "system": [{"type": "text", "text": "Be brief."}],
    "messages": [{"role": "user", "content": "Hello"}],
}


@pytest.mark.parametrize(
    ("body", "endpoint", "texts"),
    [
        (CHAT, "chat", [("system", "Be brief."), ("user", "Hello"), ("user", "Bye")]),
        (RESPONSES, "responses", [("system", "Be brief."), ("user", "Hello")]),
        (ITEMS, "responses", [("system", "Be brief."), ("user", "Hello")]),
        (MESSAGES, "messages", [("system", "Be brief."), ("user", "Hello")]),
    ],
)
def test_who_says_what_and_where(body: dict[str, Any], endpoint: str, texts: list[tuple[str, str]]) -> None:
    (asked,), skipped = read_requests(json.dumps(body), "f")
    assert (asked.endpoint, skipped) == (endpoint, 0)
    assert [(spot.spoken, spot.text) for spot in asked.spots] == texts
    before = json.dumps(asked.body)
    for spot in asked.spots:
        changed = json.dumps(replaced(asked.body, spot.path, "OTHER"))
        assert changed == before.replace(json.dumps(spot.text), '"OTHER"', 1)
    assert json.dumps(asked.body) == before


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ({"body": CHAT, "headers": {"X-Farthing-Tags": "team=search"}}, "team=search"),
        ({"body": CHAT, "tags": {"team": "search", "a": "b"}}, "a=b, team=search"),
        ({**CHAT, "slice": "faq", "id": "7"}, "faq"),
        ({"custom_id": "1", "method": "POST", "url": "/v1/chat/completions", "body": CHAT}, ""),
        ({"request": json.dumps(CHAT)}, ""),
    ],
)
def test_lines_of_logs_and_batches(line: dict[str, Any], name: str) -> None:
    (asked,), _ = read_requests(json.dumps([line]), "f")
    assert asked.slice == name
    assert dict(asked.body) == CHAT


def test_lines_of_other_programs_logs_are_read_as_a_replay_reads_them() -> None:
    litellm = {"call_type": "acompletion", "startTime": 1.79e9, "completion_tokens": 1, "request_tags": ["team:faq"],
               "messages": CHAT["messages"], "model": "m"}  # fmt: skip
    capture = {"ts": 1.79e9, "endpoint": "chat", "request": CHAT, "tags": {"team": "faq"}, "response": None}

    found, skipped = read_requests("\n".join(map(json.dumps, (litellm, capture))), "f")

    assert (len(found), skipped) == (2, 0)
    assert {(one.endpoint, one.slice, one.model) for one in found} == {("chat", "team=faq", "m")}
    assert found[0].spots == found[1].spots


def test_lines_that_are_none_are_counted() -> None:
    text = "\n".join([json.dumps(CHAT), "", "not json", '{"input": "embed me", "model": "e"}', "7", '{"messages": []}'])
    found, skipped = read_requests(text + "\n" + json.dumps({"path": "/v1/embeddings", "body": {"input": "x"}}), "f")
    assert [asked.line for asked in found] == [1, 4]
    assert skipped == 4


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no JSON"),
        ("hello\nworld", "holds no JSON"),
        ("[]", "no JSON"),
        ('{"a": 1}', "holds no request"),
    ],
)
def test_a_file_without_requests_is_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigFault, match=said):
        read_requests(text, "f")


@pytest.mark.parametrize(("more", "may"), [({}, True), ({"previous_response_id": "r"}, False)])
def test_what_refers_to_a_stored_conversation_cant_be_asked_again(more: dict[str, str], may: bool) -> None:
    (asked,), _ = read_requests(json.dumps(RESPONSES | more), "f")
    assert asked.replayable is may
