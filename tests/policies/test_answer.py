"""What an answer says, out of all the shapes that a cache holds."""

from __future__ import annotations

import json
from decimal import Decimal
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.policies.answer import Answer, Call, exact_json, read
from tests.fakes.examples import examples


def chat(message: dict[str, Any], finish: str | None = "stop") -> bytes:
    return json.dumps({"object": "chat.completion", "choices": [{"index": 0, "message": message,
                       "finish_reason": finish}]}).encode()  # fmt: skip


def sse(*events: dict[str, Any], done: bool = True) -> bytes:
    text = "".join(f"data: {json.dumps(event)}\n\n" for event in events)
    return (text + ("data: [DONE]\n\n" if done else "")).encode()


def delta(finish: str | None = None, index: int = 0, **said: Any) -> dict[str, Any]:
    return {"object": "chat.completion.chunk", "choices": [{"index": index, "delta": said, "finish_reason": finish}]}


CALL = {"id": "call_1", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
RESPONSE = {
    "object": "response",
    "status": "completed",
    "output": [{"type": "reasoning", "summary": []},
               {"type": "message", "content": [{"type": "output_text", "text": "Rome"}]}],
}  # fmt: skip
MESSAGE_STREAM: list[dict[str, Any]] = [
    {"type": "message_start", "message": {"content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "Ro"}},
    {"type": "ping"},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "me"}},
    {"type": "content_block_start", "index": 1,
     "content_block": {"type": "tool_use", "id": "t", "name": "f", "input": {}}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": '{"a"'}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "input_json_delta", "partial_json": ": 1}"}},
    {"type": "message_delta", "delta": {"stop_reason": "tool_use"}},
    {"type": "message_stop"},
]  # fmt: skip


@pytest.mark.parametrize(
    ("body", "answer"),
    [
        (chat({"role": "assistant", "content": "Rome"}), Answer("Rome")),
        (chat({"content": "Ro"}, "length"), Answer("Ro", finish="length")),
        (chat({"content": None, "refusal": "No."}), Answer("", refusal="No.")),
        (chat({"content": ""}, "content_filter"), Answer("", finish="refusal")),
        (chat({"content": [{"type": "text", "text": "Ro"}, {"type": "text", "text": "me"}]}), Answer("Rome")),
        (chat({"content": "Rome", "reasoning_content": "hm"}), Answer("Rome")),
        (chat({"content": None, "audio": {"id": "x"}}), Answer("", other=True)),
        (chat({"content": None, "tool_calls": [CALL]}, "tool_calls"),
         Answer("", (Call("f", '{"a": 1}'),), finish="calls")),
        (chat({"content": None, "function_call": CALL["function"]}, "function_call"),
         Answer("", (Call("f", '{"a": 1}'),), finish="calls")),
        (json.dumps({"choices": [{"index": 0, "text": "Rome", "finish_reason": "stop"}]}).encode(), Answer("Rome")),
        (json.dumps({"type": "message", "content": [{"type": "thinking", "thinking": "hm"},
                     {"type": "text", "text": "Rome"}], "stop_reason": "end_turn"}).encode(), Answer("Rome")),
        (json.dumps({"type": "message", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"a": 1}}],
                     "stop_reason": "tool_use"}).encode(), Answer("", (Call("f", {"a": 1}),), finish="calls")),
        (json.dumps(RESPONSE).encode(), Answer("Rome")),
        (json.dumps(RESPONSE | {"status": "incomplete", "incomplete_details":
                    {"reason": "max_output_tokens"}}).encode(), Answer("Rome", finish="length")),
        (sse(delta(role="assistant", content=""), delta(content="Ro"), delta(content="me"), delta("stop")),
         Answer("Rome")),
        (sse(delta(tool_calls=[{"index": 0, "id": "c", "function": {"name": "f", "arguments": ""}}]),
             delta(tool_calls=[{"index": 0, "function": {"arguments": '{"a"'}}]),
             delta(tool_calls=[{"index": 0, "function": {"arguments": ": 1}"}}]), delta("tool_calls")),
         Answer("", (Call("f", '{"a": 1}'),), finish="calls")),
        (sse(*MESSAGE_STREAM, done=False), Answer("Rome", (Call("f", '{"a": 1}'),), finish="calls")),
        (sse({"type": "response.output_text.delta", "delta": "Ro"},
             {"type": "response.completed", "response": RESPONSE}, done=False), Answer("Rome")),
    ],
)  # fmt: skip
def test_every_shape_reads_alike(body: bytes, answer: Answer) -> None:
    found = read(body)

    assert found is not None
    assert len(found) == 1
    assert (found[0].text, found[0].calls, found[0].refusal, found[0].other) == (
        answer.text, answer.calls, answer.refusal, answer.other
    )  # fmt: skip
    assert found[0].finish in (answer.finish, "calls" if answer.calls else answer.finish)
    assert found[0].finish != "unknown"


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{}", b"[]", b"null", b"{", b"\xff\xfe", b"data: {\n\n", b"[" * 100_000, b'{"a":' * 100_000,
        b'{"choices": []}', b'{"choices": [1]}', b'{"choices": [{"message": "text"}]}', chat({"content": 5}),
        chat({"content": "Rome"}, None), chat({"content": "Rome"}, "paused"), chat({"tool_calls": [{"index": "x"}]}),
        b'{"error": {"message": "no"}}', b'{"choices": [{"index": 0, "index": 1}]}',
        sse(delta(content="Ro")), sse(delta(content="Rome"), {"error": {"message": "gone"}}),
        b'{"object": "response", "output": ["text"]}', b'{"type": "message", "content": [1]}',
        sse({"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": "x"}}),
        b'{"choices": [{"index": 0, "message": {"content": "x"}, "finish_reason": NaN}]}',
    ],
)  # fmt: skip
def test_what_is_no_whole_answer_is_none(body: bytes) -> None:
    assert read(body) is None


def test_choices_come_in_their_order_whatever_the_stream_did() -> None:
    found = read(sse(delta(index=1, content="b"), delta(content="a"), delta("stop"), delta("stop", index=1)))

    assert found is not None
    assert [one.text for one in found] == ["a", "b"]


def test_numbers_keep_all_their_digits() -> None:
    assert exact_json("[0.10000000000000000001, 1]") == [Decimal("0.10000000000000000001"), 1]


@settings(max_examples=examples(150), deadline=None)
@given(st.binary(max_size=200) | st.binary(max_size=100).map(lambda text: b'{"choices":[' + text))
def test_no_bytes_make_it_raise(body: bytes) -> None:
    read(body)


@settings(max_examples=examples(100), deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=60), st.lists(st.integers(0, 60), max_size=5))
def test_a_stream_cut_anywhere_says_what_the_whole_says(text: str, cuts: list[int]) -> None:
    places = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    pieces = [text[a:b] for a, b in pairwise(places)]

    assert read(sse(*(delta(content=piece) for piece in pieces), delta("stop"))) == read(chat({"content": text}))
