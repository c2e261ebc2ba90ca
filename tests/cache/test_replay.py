"""Replay: a new identity and hidden usage by splicing, and which answers are complete enough to be stored."""

from __future__ import annotations

import json
import time
from typing import Any

import pytest
from hypothesis import given, settings

from farthing.cache import reshape
from farthing.cache.entry import Entry, Shape
from farthing.cache.replay import (
    is_complete_stream,
    is_complete_whole,
    prepare,
    with_identity,
    without_usage,
)
from tests.fakes.completions import completions, sse, streams
from tests.fakes.examples import examples


def entry(body: bytes, shape: Shape, endpoint: str = "chat") -> Entry:
    return Entry("k", "t", endpoint, "m", "m", shape, "application/json", body, None, 0.0, 1.0)


@given(completions())
@settings(max_examples=examples(80), deadline=None)
def test_a_whole_answer_gets_a_new_identity_and_keeps_every_other_byte(answer: dict[str, Any]) -> None:
    answer["choices"][0]["message"]["note"] = {"id": answer["id"], "created": answer["created"]}
    whole = json.dumps(answer, indent=2).encode()
    renamed = with_identity(whole, "whole", 'new"1', 77)
    assert json.loads(renamed) == answer | {"id": 'new"1', "created": 77}
    assert with_identity(renamed, "whole", answer["id"], answer["created"]) == whole.replace(
        json.dumps(answer["id"]).encode(), json.dumps(answer["id"], ensure_ascii=False).encode(), 1
    )
    assert prepare(entry(whole, "whole")).render('new"1', 77) == renamed


@given(streams())
@settings(max_examples=examples(80), deadline=None)
def test_every_event_of_a_stream_gets_the_same_new_identity(chunks: list[dict[str, Any]]) -> None:
    stream = sse(chunks, newline="\r\n")
    renamed = with_identity(stream, "stream", "chatcmpl-new", 77)
    assert renamed == sse([chunk | {"id": "chatcmpl-new", "created": 77} for chunk in chunks], newline="\r\n")
    template = prepare(entry(stream, "stream"))
    assert template.render("chatcmpl-new", 77) == renamed
    assert template.render("chatcmpl-1", 1_700_000_000) == stream


def test_events_of_another_id_or_in_several_lines_are_left_alone() -> None:
    stream = (
        b': {"id":"a","created":1}\n\n'
        b'event: x\ndata: { "created" : 1, "id" : "a", "d": {"id": "a"} }\n\n'
        b'data: {"id":"b","created":1}\n\n'
        b'data: {"created":1}\n\n'
        b'data: {"id":"a",\ndata: "created":1}\n\n'
        b'data: {"id":"a"}\n\n'
        b'data: {"id":"a","created":null}\n\n'
        b"data: not json\n\n"
        b'data: {"id":"a","created":1}'
    )
    assert with_identity(stream, "stream", "n", 9) == (
        b': {"id":"a","created":1}\n\n'
        b'event: x\ndata: { "created" : 9, "id" : "n", "d": {"id": "a"} }\n\n'
        b'data: {"id":"b","created":1}\n\n'
        b'data: {"created":1}\n\n'
        b'data: {"id":"n",\ndata: "created":9}\n\n'.replace(b'"n",\ndata: "created":9', b'"a",\ndata: "created":1')
        + b'data: {"id":"n"}\n\n'
        b'data: {"id":"n","created":null}\n\n'
        b"data: not json\n\n"
        b'data: {"id":"n","created":9}'
    )


def test_a_time_that_only_begins_alike_is_replaced_as_a_whole() -> None:
    stream = b'data: {"id":"a","created":1}\n\ndata: {"id":"a","created":12}\n\ndata: {"id":"ab","created":1}\n\n'
    assert with_identity(stream, "stream", "n", 9) == (
        b'data: {"id":"n","created":9}\n\ndata: {"id":"n","created":9}\n\ndata: {"id":"ab","created":1}\n\n'
    )


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"id":null,"created":1}', b'{"id":"","created":1}', b'{"id":3}', b'{"id":"a"', b"x"]
)
def test_a_body_without_an_identity_stays_as_it_is(body: bytes) -> None:
    assert with_identity(body, "whole", "n", 9) == body
    assert with_identity(body, "stream", "n", 9) == body


@pytest.mark.parametrize("endpoint", ["embeddings", "responses", "messages", "other"])
def test_answers_that_can_be_referred_to_keep_their_id(endpoint: str) -> None:
    body = b'{"id":"a","created":1}'
    assert prepare(entry(body, "whole", endpoint)).render("n", 9) is body


def test_a_completion_gets_a_new_identity() -> None:
    assert prepare(entry(b'{"id":"a","created":1}', "whole", "completions")).render("n", 9) == b'{"id":"n","created":9}'


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b'data: {"choices":[],"usage":{"t":1}}\n\n', b""),
        (b'data: {"choices": [ ], "usage": {"t":1}}\r\n\r\n', b""),
        (b'data: {"choices":[1],"usage":null}\n\n', b'data: {"choices":[1]}\n\n'),
        (b'data: {"usage":null,"choices":[1]}\n\n', b'data: {"choices":[1]}\n\n'),
        (b'data: {"a":1 , "usage" : null , "choices":[1]}\n\n', b'data: {"a":1 , "choices":[1]}\n\n'),
        (b'data: { "usage" : null }\n\n', b"data: {  }\n\n"),
        (
            b'data: {"choices":[1],"usage":null,"obfuscation":"aB3"}\n\n',
            b'data: {"choices":[1],"obfuscation":"aB3"}\n\n',
        ),
        (b'data: {"usage":null,"x":{"a":1,"usage":null}}\n\n', b'data: {"x":{"a":1,"usage":null}}\n\n'),
        (b'data: {"a":1,"usage":null,"x":{"usage":null}}\n\n', b'data: {"a":1,"x":{"usage":null}}\n\n'),
        (b'data: {"x":{"a":1,"usage":null}}\n\n', None),
        (b'data: {"x":{"a":1,"usage":null},"b":1}\n\n', None),
        # Usage beside content is the upstream's own way, asked for or not.
        (b'data: {"choices":[1],"usage":{"t":1}}\n\n', None),
        (b'data: {"choices":[{"delta":{"content":",\\"usage\\":null"}}]}\n\n', None),
        (b'data: {"choices":[{"usage":null}]}\n\n', None),
        (b'data: {"choices":[],"note":"usage"}\n\n', None),
        (b': "usage"\n\n', None),
        (b"data: usage\n\n", None),
        (b"data: [DONE]\n\n", None),
    ],
)
def test_usage_is_hidden_and_nothing_else(before: bytes, after: bytes | None) -> None:
    around = b'data: {"choices":[2]}\n\n'
    expected = before if after is None else after
    assert without_usage(around + before + around) == around + expected + around


def test_a_repeated_hit_is_cheap() -> None:
    """Rendering is a join: far cheaper than preparing. Measured as a ratio, since the machine is shared."""
    chunk = {"id": "c", "created": 5, "choices": [{"index": 0, "delta": {"content": "word "}}]}
    stream = sse([chunk] * 500)
    begun = time.process_time()
    template = prepare(entry(stream, "stream"))
    prepared = time.process_time()
    for _ in range(10):
        template.render("n", 9)
    rendered = time.process_time()
    assert (rendered - prepared) / 10 < (prepared - begun) / 4


CHOICE: dict[str, Any] = {"index": 0, "message": {"role": "assistant", "content": "a"}, "finish_reason": "stop"}
CHAT = {"id": "c", "object": "chat.completion", "choices": [CHOICE]}
TEXT = {"id": "c", "choices": [{"index": 0, "text": "a", "finish_reason": "stop"}]}
VECTORS = {"object": "list", "data": [{"index": 0, "embedding": [0.1]}]}
RESPONSE = {"id": "r", "object": "response", "status": "completed", "error": None, "output": []}
MESSAGE = {"id": "m", "type": "message", "content": [], "stop_reason": "end_turn"}


@pytest.mark.parametrize(
    ("answer", "endpoint", "expected"),
    [
        (CHAT, "chat", True),
        (CHAT | {"error": None}, "chat", True),
        (TEXT, "completions", True),
        (VECTORS, "embeddings", True),
        (VECTORS | {"data": [{"index": 0, "embedding": "AACAPw=="}]}, "embeddings", True),
        (RESPONSE, "responses", True),
        (MESSAGE, "messages", True),
        (CHAT | {"error": {"message": "x"}}, "chat", False),
        (CHAT | {"choices": []}, "chat", False),
        (CHAT | {"choices": None}, "chat", False),
        (CHAT | {"choices": ["a"]}, "chat", False),
        (CHAT | {"choices": [CHOICE, CHOICE | {"index": 1, "finish_reason": None}]}, "chat", False),
        (CHAT | {"choices": [CHOICE | {"finish_reason": "error"}]}, "chat", False),
        (CHAT | {"choices": [CHOICE | {"error": {"code": 502}}]}, "chat", False),
        (CHAT | {"choices": [CHOICE | {"message": None}]}, "chat", False),
        (CHAT | {"choices": [{"index": 0, "message": {}}]}, "chat", False),
        (CHAT, "completions", False),
        (TEXT, "chat", False),
        (CHAT, "embeddings", False),
        (VECTORS | {"data": []}, "embeddings", False),
        (VECTORS | {"data": [{"index": 0, "embedding": [0.1]}, {"index": 1}]}, "embeddings", False),
        (RESPONSE | {"status": "incomplete"}, "responses", False),
        (RESPONSE | {"error": {"code": "x"}}, "responses", False),
        (MESSAGE | {"stop_reason": None}, "messages", False),
        ({"type": "error", "error": {"type": "overloaded_error"}}, "messages", False),
        (CHAT, "other", False),
        ([CHAT], "chat", False),
    ],
)
def test_complete_whole_answers(answer: Any, endpoint: str, expected: bool) -> None:
    body = json.dumps(answer).encode()
    assert is_complete_whole(body, endpoint) is expected
    assert not is_complete_whole(body[:-1], endpoint)
    assert not is_complete_whole(body + b"x", endpoint)


def chunk(reason: str | None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": index, "delta": {}, "finish_reason": reason} | more]}


ENDED = sse([chunk(None), chunk("stop")])
COMPLETED = (
    b'event: response.created\ndata: {"type":"response.created"}\n\n'
    b'event: response.completed\ndata: {"type":"response.completed","response":{"status":"completed","error":null}}\n\n'
)
STOPPED = (
    b'event: message_start\ndata: {"type":"message_start","message":{"stop_reason":null}}\n\n'
    b'event: ping\ndata: {"type":"ping"}\n\n'
    b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"end_turn"}}\n\n'
    b'event: message_stop\ndata: {"type":"message_stop"}\n\n'
)


@pytest.mark.parametrize(
    ("stream", "endpoint", "expected"),
    [
        (ENDED, "chat", True),
        (ENDED, "completions", True),
        (ENDED.replace(b"\n", b"\r\n"), "chat", True),
        (ENDED.rstrip(b"\n"), "chat", True),
        (ENDED + b": bye\n\n", "chat", True),
        (sse([chunk(None), chunk("stop"), {"id": "c", "choices": [], "usage": {"t": 1}}]), "chat", True),
        (sse([chunk("stop"), chunk(None, 1), chunk("length", 1)]), "chat", True),
        (sse([chunk("stop"), chunk(None)]), "chat", True),
        (COMPLETED, "responses", True),
        (STOPPED, "messages", True),
        (STOPPED + b'event: ping\ndata: {"type":"ping"}\n\n', "messages", True),
        (b"", "chat", False),
        (b"data: [DONE]\n\n", "chat", False),
        (sse([chunk(None), chunk("stop")], done=False), "chat", False),
        (sse([chunk(None)]), "chat", False),
        (sse([chunk("stop"), chunk(None, 1)]), "chat", False),
        (sse([chunk("error")]), "chat", False),
        (sse([chunk("stop", error={"code": 1})]), "chat", False),
        (sse([chunk("stop"), {"error": {"message": "x"}}]), "chat", False),
        (b"event: error\ndata: {}\n\n" + ENDED, "chat", False),
        (ENDED + b"data: {}\n\n", "chat", False),
        (b"data: {\n\n" + ENDED, "chat", False),
        (b'data: {"id":"c"}\n\n' + ENDED, "chat", False),
        (ENDED[:-20], "chat", False),
        (COMPLETED[:-30], "responses", False),
        (COMPLETED + b'data: {"type":"response.failed"}\n\n', "responses", False),
        (COMPLETED.replace(b'"completed"', b'"incomplete"'), "responses", False),
        (COMPLETED.split(b"\n\n")[0] + b"\n\n", "responses", False),
        (STOPPED[:-60], "messages", False),
        (STOPPED.replace(b'"end_turn"', b"null"), "messages", False),
        (
            STOPPED.replace(b'{"type":"ping"}', b'{"type":"error","error":{"type":"overloaded_error"}}'),
            "messages",
            False,
        ),
        (ENDED, "responses", False),
        (ENDED, "messages", False),
        (STOPPED, "chat", False),
        (ENDED, "embeddings", False),
        (ENDED, "other", False),
    ],
)
def test_complete_streams(stream: bytes, endpoint: str, expected: bool) -> None:
    assert is_complete_stream(stream, endpoint) is expected


@given(completions())
@settings(max_examples=examples(30), deadline=None)
def test_a_split_answer_takes_a_new_identity_too(answer: dict[str, Any]) -> None:
    stream = reshape.split(json.dumps(answer).encode(), "chat", include_usage=True)
    renamed = reshape.split(json.dumps(answer | {"id": "n", "created": 9}).encode(), "chat", include_usage=True)
    assert stream is not None
    assert with_identity(stream, "stream", "n", 9) == renamed
