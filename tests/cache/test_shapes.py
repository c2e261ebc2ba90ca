"""Responses, messages and legacy completions in both shapes: against the official clients, and against each other."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache import exact_json
from farthing.cache.replay import is_complete_stream, is_complete_whole, without_usage
from farthing.cache.reshape import assemble, split
from tests.fakes.event_streams import (
    Cut,
    by_words,
    completion_chunks,
    message_events,
    response_events,
    written,
)
from tests.fakes.examples import examples
from tests.fakes.whole_answers import messages, responses, text_completions

Value = dict[str, Any]
WHOLE = {"completions": text_completions(), "responses": responses(), "messages": messages()}


def streamed(endpoint: str, whole: Value, cut: Cut = by_words, *, usage: bool = True) -> list[Value]:
    """As the provider would."""
    match endpoint:
        case "completions":
            return completion_chunks(whole, cut, usage=usage and whole.get("usage") is not None)
        case "responses":
            return response_events(whole, cut)
        case _:
            return message_events(whole, cut)


def sse(endpoint: str, events: list[Value], *, ascii_only: bool = False) -> bytes:
    names = endpoint != "completions"
    return b"".join(written(events, names=names, done=not names, ascii_only=ascii_only))


@st.composite
def cuts(draw: st.DrawFn) -> Cut:
    """Texts in pieces of a size, some of them empty."""
    size, empty = draw(st.integers(1, 40)), draw(st.booleans())
    return lambda text: [text[i : i + size] for i in range(0, len(text), size)] + ([""] if empty else [])


def accumulated(endpoint: str, stream: bytes) -> Any:
    """What the official client makes of a stream; of completions, which it doesn't gather, what an app would."""
    values = [json.loads(line[6:]) for line in stream.decode().split("\n") if line.startswith("data: {")]
    match endpoint:
        case "responses":
            from openai import omit
            from openai._models import construct_type_unchecked
            from openai.lib.streaming.responses._responses import ResponseStreamState
            from openai.types.responses import ResponseStreamEvent

            state: Any = ResponseStreamState(input_tools=omit, text_format=omit)
            last: Any = None
            texts: dict[Any, str] = {}
            for value in values:
                for last in state.handle_event(construct_type_unchecked(value=value, type_=ResponseStreamEvent)):
                    if hasattr(last, "snapshot"):
                        texts[last.output_index, getattr(last, "content_index", None)] = last.snapshot
            return last.response.model_dump(), {place: text for place, text in texts.items() if text}
        case "messages":
            from anthropic.lib.streaming._messages import accumulate_event

            message: Any = None
            buffers: dict[int, bytes] = {}
            for value in values:
                if value["type"] != "ping":
                    message = accumulate_event(event=value, current_snapshot=message, json_bufs=buffers)  # type: ignore[arg-type]
            return message.model_dump()
        case _:
            from openai._models import construct_type_unchecked
            from openai.types import Completion

            choices: dict[int, Any] = {}
            usage = None
            for value in values:
                chunk = construct_type_unchecked(value=value, type_=Completion)
                usage = chunk.usage or usage
                for choice in chunk.choices:
                    known = choices.setdefault(choice.index, {"text": "", "tokens": [], "end": None})
                    known["text"] += choice.text
                    known["tokens"] += (choice.logprobs and choice.logprobs.tokens) or []
                    known["end"] = choice.finish_reason or known["end"]
            return choices, usage


@pytest.mark.parametrize("endpoint", WHOLE)
@given(st.data(), st.sampled_from([None, 2]), st.booleans())
@settings(max_examples=examples(150), deadline=None)
def test_whole_to_stream_to_whole_is_the_same_value(
    endpoint: str, data: st.DataObject, indent: int | None, ascii_only: bool
) -> None:
    answer = data.draw(WHOLE[endpoint])
    whole = json.dumps(answer, indent=indent, ensure_ascii=ascii_only).encode()
    assert is_complete_whole(whole, endpoint)
    stream = split(whole, endpoint, include_usage=True)
    assert stream is not None
    assert is_complete_stream(stream, endpoint)
    again = assemble(stream, endpoint)
    assert again is not None
    assert exact_json.loads(again) == exact_json.loads(whole)


@pytest.mark.parametrize("endpoint", WHOLE)
@given(st.data(), cuts(), st.booleans())
@settings(max_examples=examples(60), deadline=None)
def test_stream_to_whole_to_stream_is_the_same_to_the_official_client(
    endpoint: str, data: st.DataObject, cut: Cut, ascii_only: bool
) -> None:
    answer = data.draw(WHOLE[endpoint])
    stream = sse(endpoint, streamed(endpoint, answer, cut), ascii_only=ascii_only)
    assert is_complete_stream(stream, endpoint)
    whole = assemble(stream, endpoint)
    assert whole is not None
    expected = answer if answer.get("usage") is not None else {k: v for k, v in answer.items() if k != "usage"}
    assert exact_json.loads(whole) == exact_json.loads(json.dumps(expected).encode())
    again = split(whole, endpoint, include_usage=True)
    assert again is not None
    assert accumulated(endpoint, again) == accumulated(endpoint, stream)


@given(text_completions())
@settings(max_examples=examples(60), deadline=None)
def test_usage_of_completions_comes_only_when_asked_for(answer: Value) -> None:
    whole = json.dumps(answer).encode()
    with_it, without = (split(whole, "completions", include_usage=asked) for asked in (True, False))
    assert with_it is not None
    assert without is not None
    assert without_usage(with_it) == without
    left = assemble(without, "completions")
    assert left is not None
    assert exact_json.loads(left) == {name: item for name, item in answer.items() if name != "usage"}


@given(responses())
@settings(max_examples=examples(60), deadline=None)
def test_events_of_a_response_are_numbered_and_named(answer: Value) -> None:
    stream = split(json.dumps(answer).encode(), "responses", include_usage=False) or b""
    blocks = [block.split("\n") for block in stream.decode().split("\n\n")[:-1]]
    values = [json.loads(data.removeprefix("data: ")) for _, data in blocks]
    assert [value["sequence_number"] for value in values] == list(range(len(values)))
    assert [name for name, _ in blocks] == [f"event: {value['type']}" for value in values]
    assert values[0]["response"] == answer | {"status": "in_progress", "output": [], "usage": None} | (
        {"completed_at": None} if "completed_at" in answer else {}
    )


RESPONSE: Value = {
    "id": "r",
    "object": "response",
    "status": "completed",
    "output": [
        {"id": "rs", "type": "reasoning", "summary": [{"type": "summary_text", "text": "thinking hard"}]},
        {
            "id": "m",
            "type": "message",
            "role": "assistant",
            "status": "completed",
            "content": [
                {"type": "output_text", "text": "one two", "annotations": [{"type": "file_path", "file_id": "f"}]},
                {"type": "refusal", "refusal": "no more"},
            ],
        },
        {"id": "f", "type": "function_call", "call_id": "c", "name": "g", "arguments": '{"a": 1}'},
    ],
    "usage": {"input_tokens": 1, "output_tokens": 2},
}
MESSAGE: Value = {
    "id": "m",
    "type": "message",
    "role": "assistant",
    "model": "c",
    "content": [
        {"type": "thinking", "thinking": "hm hm", "signature": "s"},
        {"type": "text", "text": "one two"},
        {"type": "tool_use", "id": "t", "name": "g", "input": {"a": 1, "b": [2]}},
    ],
    "stop_reason": "tool_use",
    "stop_sequence": None,
    "usage": {"input_tokens": 5, "output_tokens": 9},
}
COMPLETION: Value = {
    "id": "c",
    "object": "text_completion",
    "created": 1,
    "model": "m",
    "choices": [
        {
            "index": i,
            "text": "one two",
            "logprobs": {"tokens": ["one ", "two"], "token_logprobs": [-1.0, -2.0], "text_offset": [3, 7]},
            "finish_reason": "stop",
        }
        for i in range(2)
    ],
    "usage": {"prompt_tokens": 1, "completion_tokens": 2},
}
PLAIN = {"responses": RESPONSE, "messages": MESSAGE, "completions": COMPLETION}


def test_the_plain_answers_of_these_tables_turn_both_ways() -> None:
    for endpoint, answer in PLAIN.items():
        assert exact_json.loads(assemble(sse(endpoint, streamed(endpoint, answer)), endpoint) or b"0") == answer
        assert split(json.dumps(answer).encode(), endpoint, include_usage=True) is not None


@pytest.mark.parametrize("endpoint", PLAIN)
def test_nothing_may_be_missing_or_come_twice(endpoint: str) -> None:
    """Without any one event the stream is another answer or the same one; never a different one for the same."""
    events = streamed(endpoint, PLAIN[endpoint])
    allowed = {"ping", "response.in_progress", "response.output_text.done", "response.content_part.done",
               "response.content_part.added", "response.refusal.done", "response.function_call_arguments.done",
               "response.reasoning_summary_part.added", "response.reasoning_summary_part.done",
               "response.reasoning_summary_text.done", "response.output_text.annotation.added",
               "response.created"}  # fmt: skip
    for i, event in enumerate(events):
        turned = assemble(sse(endpoint, events[:i] + events[i + 1 :]), endpoint)
        if event.get("type") in allowed or event.get("delta") == {"type": "input_json_delta", "partial_json": ""}:
            assert exact_json.loads(turned or b"0") == PLAIN[endpoint]
        elif turned is not None:
            assert endpoint != "responses"
            assert exact_json.loads(turned) != PLAIN[endpoint]


@pytest.mark.parametrize(
    ("endpoint", "kind", "spoil"),
    [
        ("responses", "response.output_text.delta", lambda event: event | {"delta": event["delta"].upper()}),
        ("responses", "response.output_text.delta", lambda event: event | {"item_id": "x"}),
        ("responses", "response.output_text.delta", lambda event: event | {"content_index": 1}),
        ("responses", "response.output_text.delta", lambda event: event | {"content_index": None}),
        ("responses", "response.output_text.delta", lambda event: event | {"output_index": 0}),
        ("responses", "response.output_text.delta", lambda event: event | {"delta": None}),
        ("responses", "response.output_text.delta", lambda event: event | {"vendor": 1}),
        ("responses", "response.output_text.delta", lambda event: event | {"logprobs": [{"token": "one"}]}),
        ("responses", "response.output_text.delta", lambda event: event | {"type": "response.output_speech.delta"}),
        ("responses", "response.output_text.done", lambda event: event | {"text": "other"}),
        ("responses", "response.refusal.done", lambda event: event | {"refusal": "other"}),
        ("responses", "response.content_part.done", lambda event: event | {"part": event["part"] | {"x": 1}}),
        ("responses", "response.output_item.done", lambda event: event | {"item": event["item"] | {"x": 1}}),
        ("responses", "response.output_item.added", lambda event: event | {"item": event["item"] | {"id": "x"}}),
        ("responses", "response.output_item.added", lambda event: event | {"output_index": 7}),
        ("responses", "response.output_text.annotation.added", lambda event: event | {"annotation_index": 1}),
        ("responses", "response.output_text.annotation.added", lambda event: event | {"content_index": 4}),
        ("responses", "response.created", lambda event: event | {"response": event["response"] | {"id": "x"}}),
        ("responses", "response.completed", lambda event: event | {"type": "response.incomplete"}),
        ("responses", "response.completed", lambda event: event | {"response": RESPONSE | {"status": "failed"}}),
        ("responses", "response.completed", lambda event: event | {"response": RESPONSE | {"output": None}}),
        ("responses", "response.completed", lambda event: event | {"response": RESPONSE | {"output": []}}),
        ("messages", "content_block_delta", lambda event: event | {"index": event["index"] + 1}),
        ("messages", "content_block_delta", lambda event: event | {"index": None}),
        ("messages", "content_block_delta", lambda event: event | {"vendor": 1}),
        ("messages", "content_block_delta", lambda event: event | {"delta": event["delta"] | {"vendor": 1}}),
        ("messages", "content_block_delta", lambda event: event | {"delta": {"type": "sound_delta", "sound": "x"}}),
        ("messages", "content_block_start", lambda event: event | {"index": 5}),
        ("messages", "content_block_start", lambda event: event | {"content_block": {"type": "sound", "data": "x"}}),
        ("messages", "content_block_stop", lambda event: {"type": "vendor_event"}),
        ("messages", "message_start", lambda event: {"type": "message_start"}),
        ("messages", "message_start", lambda event: event | {"message": event["message"] | {"content": [{}]}}),
        ("messages", "message_start", lambda event: event | {"message": event["message"] | {"usage": None}}),
        ("messages", "message_start", lambda event: event | {"message": event["message"] | {"stop_reason": "x"}}),
        ("messages", "message_delta", lambda event: event | {"delta": {"stop_reason": None}}),
        ("messages", "message_delta", lambda event: event | {"delta": event["delta"] | {"vendor": 1}}),
        ("messages", "message_delta", lambda event: event | {"usage": {"output_tokens": 9, "vendor_tokens": 1}}),
        ("messages", "message_stop", lambda event: {"type": "error", "error": {"type": "api_error", "message": "x"}}),
        ("messages", "message_stop", lambda event: event | {"vendor": 1}),
    ],
)
def test_an_event_that_says_otherwise_makes_a_miss(endpoint: str, kind: str, spoil: Callable[[Value], Value]) -> None:
    events = streamed(endpoint, PLAIN[endpoint])
    at = next(i for i, event in enumerate(events) if event["type"] == kind)
    assert assemble(sse(endpoint, [*events[:at], spoil(events[at]), *events[at + 1 :]]), endpoint) is None


@pytest.mark.parametrize("endpoint", ["responses", "messages"])
def test_nothing_comes_after_the_end(endpoint: str) -> None:
    events = streamed(endpoint, PLAIN[endpoint])
    stream = sse(endpoint, events)
    assert assemble(stream + b"data: [DONE]\n\n", endpoint) is not None
    assert assemble(stream + b"data: [DONE]\n\n" + sse(endpoint, events[-1:]), endpoint) is None
    assert assemble(sse(endpoint, [*events, events[-1]]), endpoint) is None
    assert assemble(b"event: error\ndata: {}\n\n" + stream, endpoint) is None
    assert assemble(stream.replace(b"event: ", b"event: x", 1), endpoint) is None
    assert assemble(b"data: {\n\n" + stream, endpoint) is None
    assert assemble(b"", endpoint) is None


def test_one_place_holds_one_kind_of_text() -> None:
    events = response_events(RESPONSE, by_words)
    at = next(i for i, event in enumerate(events) if event["type"] == "response.output_text.delta")
    other = events[at] | {"type": "response.refusal.delta", "delta": "no"}
    assert assemble(sse("responses", [*events[:at], other, *events[at:]]), "responses") is None


def test_a_ping_is_nothing_and_two_signatures_are_too_much() -> None:
    events = message_events(MESSAGE, by_words)
    pings = [one for event in events for one in (event, {"type": "ping"})]
    assert exact_json.loads(assemble(sse("messages", pings), "messages") or b"0") == MESSAGE
    signs = [
        event for event in events for _ in range(1 + (event.get("delta") or {}).get("type", "").count("signature"))
    ]
    assert len(signs) == len(events) + 1
    assert assemble(sse("messages", signs), "messages") is None


def test_counts_of_a_messages_end_go_over_those_of_its_start() -> None:
    events = message_events(MESSAGE, by_words)
    counts = {"output_tokens": 9, "input_tokens": 6, "cache_read_input_tokens": None, "server_tool_use": None}
    events[-2] = events[-2] | {"usage": counts}
    whole = exact_json.loads(assemble(sse("messages", events), "messages") or b"0")
    assert whole["usage"] == counts


@pytest.mark.parametrize(
    "logprobs",
    [
        {"tokens": ["two"], "token_logprobs": [-2.0], "text_offset": [0]},  # counts from the chunk
        {"tokens": ["two"], "token_logprobs": [-2.0, -3.0], "text_offset": [7]},
        {"tokens": ["two"], "token_logprobs": [-2.0]},
        {"tokens": ["two"], "token_logprobs": None, "text_offset": [7]},
        {"content": []},
        [],
    ],
)
def test_log_probabilities_that_may_not_belong_together_make_a_miss(logprobs: Any) -> None:
    chunks = completion_chunks(COMPLETION, by_words, usage=True)
    at = next(i for i, chunk in enumerate(chunks) if chunk["choices"][0]["text"] == "two")
    chunks[at]["choices"][0]["logprobs"] = logprobs
    assert assemble(sse("completions", chunks), "completions") is None


@pytest.mark.parametrize(
    ("endpoint", "whole"),
    [
        ("embeddings", {"object": "list", "data": [{"index": 0, "embedding": [0.5]}]}),
        ("completions", {"id": "c", "object": "chat.completion", "choices": COMPLETION["choices"]}),
        ("completions", COMPLETION | {"choices": [COMPLETION["choices"][1]]}),
        ("completions", COMPLETION | {"choices": [COMPLETION["choices"][0] | {"text": ["one"]}]}),
        ("completions", COMPLETION | {"choices": [COMPLETION["choices"][0] | {"logprobs": {"content": []}}]}),
        ("completions", COMPLETION | {"choices": [COMPLETION["choices"][0] | {"finish_reason": None}]}),
        ("responses", RESPONSE | {"status": "incomplete"}),
        ("responses", RESPONSE | {"output": None}),
        ("responses", RESPONSE | {"output": [{"id": "w", "type": "web_search_call", "status": "completed"}]}),
        ("responses", RESPONSE | {"output": [{"type": "function_call", "call_id": "c", "name": "g", "arguments": ""}]}),
        ("responses", RESPONSE | {"output": [RESPONSE["output"][1] | {"content": [{"type": "output_audio"}]}]}),
        ("responses", RESPONSE | {"output": [RESPONSE["output"][1] | {"content": "text"}]}),
        ("messages", MESSAGE | {"content": [{"type": "web_search_tool_result", "content": []}]}),
        ("messages", MESSAGE | {"content": [{"type": "text", "text": None}]}),
        ("messages", MESSAGE | {"content": [{"type": "tool_use", "id": "t", "name": "g", "input": "text"}]}),
        ("messages", MESSAGE | {"stop_reason": None}),
        ("messages", MESSAGE | {"usage": None}),
        ("messages", MESSAGE | {"content": "text"}),
    ],
)
def test_what_would_not_come_back_the_same_is_not_split(endpoint: str, whole: Value) -> None:
    assert split(json.dumps(whole).encode(), endpoint, include_usage=True) is None


def test_long_texts_come_in_a_few_pieces() -> None:
    long = "word " * 1000
    part = RESPONSE["output"][1]["content"][0] | {"text": long}
    answers = {
        "responses": RESPONSE | {"output": [RESPONSE["output"][1] | {"content": [part]}]},
        "messages": MESSAGE | {"content": [{"type": "text", "text": long}]},
        "completions": COMPLETION | {"choices": [{"index": 0, "text": long, "finish_reason": "stop"}]},
    }
    for endpoint, answer in answers.items():
        stream = split(json.dumps(answer).encode(), endpoint, include_usage=True)
        assert stream is not None
        assert 8 <= stream.count(b"data: ") <= 20
