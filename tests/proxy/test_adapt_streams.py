"""Streams between the two APIs amount to the whole answer; hostile input raises nothing but Refused."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from farthing.cache import reshape
from farthing.cache.exact_json import dumps, loads
from farthing.proxy.adapt import Adapter, adapter_for
from farthing.proxy.adapt_shared import Refused
from farthing.proxy.exchange import Endpoint
from farthing.proxy.observe import StreamObserver
from farthing.proxy.sse import Splitter
from tests.fakes.adapters import TO_CHAT, TO_MESSAGES
from tests.fakes.event_streams import by_words, message_events, written
from tests.fakes.examples import examples
from tests.fakes.two_apis import ANYTHING, CALM, chat_answers, message_answers


def streamed(which: Adapter, sse: bytes) -> bytes:
    """The whole stream, adapted event by event."""
    way, splitter = which.stream(), Splitter(2**20)
    pieces = [*splitter.feed(sse), splitter.rest()]
    return b"".join(piece.body for event in pieces for piece in way.feed(event)) + b"".join(
        piece.body for piece in way.finish()
    )


@CALM
@given(message_answers(), st.booleans())
def test_a_stream_amounts_to_the_whole_answer_as_a_chat(answer: dict[str, Any], own: bool) -> None:
    sse = reshape.split(dumps(answer), "messages", include_usage=True) if own else None
    sse = sse or b"".join(written(message_events(answer, by_words), names=True, done=False))
    whole = loads(TO_MESSAGES.answer(200, dumps(answer)))
    assembled = reshape.assemble(streamed(TO_MESSAGES, sse), "chat")

    assert assembled is not None
    assert settled(loads(assembled)) == settled(whole)


@CALM
@given(chat_answers())
def test_a_stream_amounts_to_the_whole_answer_as_a_message(answer: dict[str, Any]) -> None:
    sse = reshape.split(dumps(answer), "chat", include_usage=True)
    assert sse is not None
    assembled = reshape.assemble(streamed(TO_CHAT, sse), "messages")

    assert assembled is not None
    assert loads(assembled) == loads(TO_CHAT.answer(200, dumps(answer)))


@CALM
@given(message_answers())
def test_a_stream_there_and_back(answer: dict[str, Any]) -> None:
    sse = b"".join(written(message_events(answer, by_words), names=True, done=False))
    back = reshape.assemble(streamed(TO_CHAT, streamed(TO_MESSAGES, sse)), "messages")

    assert back is not None
    without_tier = answer | {"usage": {k: v for k, v in answer["usage"].items() if k != "service_tier"}}
    assert loads(back) == without_tier


@CALM
@given(message_answers())
def test_the_ledger_counts_an_adapted_stream_the_same(answer: dict[str, Any]) -> None:
    sse = b"".join(written(message_events(answer, by_words), names=True, done=False))
    theirs, ours = StreamObserver(Endpoint.MESSAGES), StreamObserver(Endpoint.CHAT)
    theirs.see(sse)
    ours.see(streamed(TO_MESSAGES, sse))
    assume(answer["usage"]["output_tokens"])  # a stream that produced nothing has counted its first token

    assert ours.usage == theirs.usage


def settled(chat: dict[str, Any]) -> dict[str, Any]:
    """The same with arguments read, since a provider may space them as it likes."""
    for choice in chat["choices"]:
        for call in choice["message"].get("tool_calls") or []:
            call["function"]["arguments"] = loads(call["function"]["arguments"].encode())
    return chat


def test_only_the_usage_is_for_those_who_asked() -> None:
    usage = {"input_tokens": 1, "output_tokens": 2}
    answer = {
        "id": "i",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "x"}],
    }
    answer |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": usage}
    way = TO_MESSAGES.stream()
    pieces = [
        piece
        for event in written(message_events(answer, by_words), names=True, done=False)
        for piece in way.feed(event)
    ]

    assert [b'"usage"' in piece.body for piece in pieces] == [piece.usage_only for piece in pieces]
    assert sum(piece.usage_only for piece in pieces) == 1


def test_a_stream_that_breaks_off_is_refused_at_its_end() -> None:
    answer = {
        "id": "i",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "x"}],
    }
    answer |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 2}}
    sse = b"".join(written(message_events(answer, by_words), names=True, done=False)[:-1])

    for which, broken in ((TO_MESSAGES, sse), (TO_CHAT, chunk(content="x")), (TO_MESSAGES, b""), (TO_CHAT, b"")):
        with pytest.raises(Refused, match="stream broke off"):
            streamed(which, broken)


def chunk(finish: str | None = None, **delta: Any) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": finish}
    return b"data: " + dumps({"id": "c", "model": "m", "choices": [choice]}) + b"\n\n"


def test_a_stream_that_told_its_end_is_complete_without_done() -> None:
    assert streamed(TO_CHAT, chunk(content="x") + chunk("stop")).endswith(b'data: {"type":"message_stop"}\n\n')


def test_calls_without_index_or_id() -> None:
    calls = [{"function": {"name": name, "arguments": "{}"}} for name in "fg"]
    out = reshape.assemble(streamed(TO_CHAT, chunk(tool_calls=calls) + chunk("stop")), "messages")

    assert out is not None
    assert [block["id"] for block in loads(out)["content"]] == ["toolu_c_0", "toolu_c_1"]
    assert loads(out)["stop_reason"] == "tool_use"


def arguing(index: int | None, id: str, name: str, arguments: str, finish: str | None = None) -> bytes:
    call = {"index": index, "id": id, "type": "function", "function": {"name": name, "arguments": arguments}}
    return chunk(finish, tool_calls=[{name: item for name, item in call.items() if item not in (None, "")}])


def test_calls_that_share_an_index_are_told_apart_by_their_ids() -> None:
    """Ollama gives every call of an answer index 0."""
    sse = arguing(0, "a", "f", '{"x":1}') + arguing(0, "b", "g", '{"x":2}') + chunk("tool_calls")
    out = reshape.assemble(streamed(TO_CHAT, sse), "messages")

    assert out is not None
    assert [(block["id"], block["name"], block["input"]) for block in loads(out)["content"]] == [
        ("a", "f", {"x": 1}),
        ("b", "g", {"x": 2}),
    ]


def test_a_call_that_says_its_name_with_each_piece_is_one_call() -> None:
    sse = arguing(0, "a", "f", '{"x"') + arguing(0, "a", "f", ":1}") + chunk("tool_calls")
    out = reshape.assemble(streamed(TO_CHAT, sse), "messages")

    assert out is not None
    assert [block["input"] for block in loads(out)["content"]] == [{"x": 1}]


@pytest.mark.parametrize(
    "sse",
    [
        arguing(0, "a", "f", '{"x":') + chunk("tool_calls"),
        arguing(0, "a", "f", '{"x":') + arguing(1, "b", "g", "{}"),
        arguing(0, "a", "f", '{"x":') + arguing(1, "b", "g", "{}") + chunk("length"),
        arguing(0, "a", "f", "[1]") + chunk("stop"),
        arguing(0, "", "f", '{"x":1}') + arguing(0, "", "g", '{"x":2}') + chunk("tool_calls"),
    ],
)
def test_arguments_that_are_no_object_end_the_stream_in_an_error(sse: bytes) -> None:
    with pytest.raises(Refused, match=r"tool_calls\[0\].function.arguments"):
        streamed(TO_CHAT, sse)


def test_half_a_call_is_cut_short_and_says_so() -> None:
    sse = streamed(TO_CHAT, arguing(0, "a", "f", '{"x":') + chunk("length"))

    assert b'"stop_reason":"max_tokens"' in sse and b"message_stop" in sse
    assert reshape.assemble(sse, "messages") is None  # so it is never stored


def test_events_of_an_unknown_kind_are_passed_by() -> None:
    """The API may add some at any time, and asks its readers to bear it."""
    answer = {
        "id": "i",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "x"}],
    }
    answer |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 2}}
    events = written(message_events(answer, by_words), names=True, done=False)
    novel = b'event: weather\ndata: {"type":"weather","sky":"blue"}\n\n'

    assert streamed(TO_MESSAGES, novel.join([b"", *events, b""])) == streamed(TO_MESSAGES, b"".join(events))


def test_thoughts_and_texts_in_a_list() -> None:
    """Mistral's."""
    thinking = [{"type": "thinking", "thinking": [{"type": "text", "text": "I "}, {"type": "text", "text": "see"}]}]
    sse = chunk(content=thinking) + chunk(content=[{"type": "text", "text": "y"}]) + chunk(content="es")
    out = reshape.assemble(streamed(TO_CHAT, sse + chunk("model_length")), "messages")

    assert out is not None
    assert loads(out)["content"] == [
        {"type": "thinking", "thinking": "I see", "signature": ""},
        {"type": "text", "text": "yes"},
    ]
    assert loads(out)["stop_reason"] == "model_context_window_exceeded"


def test_signatures_that_come_behind_their_thought() -> None:
    sse = chunk(reasoning="I ", reasoning_details=[{"type": "reasoning.text", "text": "I "}])
    sse += chunk(reasoning="see", reasoning_details=[{"type": "reasoning.text", "text": "see"}])
    sse += chunk(reasoning_details=[{"type": "reasoning.text", "text": "", "signature": "s"}])
    out = reshape.assemble(streamed(TO_CHAT, sse + chunk(content="yes") + chunk("stop")), "messages")

    assert out is not None
    assert loads(out)["content"] == [
        {"type": "thinking", "thinking": "I see", "signature": "s"},
        {"type": "text", "text": "yes"},
    ]


def test_errors_in_mid_stream() -> None:
    theirs = b'event: error\ndata: {"type":"error","error":{"type":"overloaded_error","message":"busy"}}\n\n'
    ours = b'data: {"error":{"message":"busy","type":"server_error"}}\n\n'

    assert loads(streamed(TO_MESSAGES, theirs)[6:])["error"]["message"] == "busy"
    assert streamed(TO_CHAT, ours) == (
        b'event: error\ndata: {"type":"error","error":{"type":"api_error","message":"busy"}}\n\n'
    )


@pytest.mark.parametrize(
    ("which", "event"),
    [
        (TO_MESSAGES, {"type": "content_block_novel"}),
        (TO_MESSAGES, {"kind": "novel"}),
        (TO_MESSAGES, {"type": "content_block_delta", "index": 0, "delta": {}}),
        (TO_MESSAGES, {"type": "message_stop"}),
        (TO_CHAT, {"choices": [{"index": 1, "delta": {}}]}),
        (TO_CHAT, {"choices": [{"delta": {"tool_calls": [{"index": 3, "function": {"arguments": "x"}}]}}]}),
        (TO_CHAT, {"choices": {}, "id": "x"}),
    ],
)
def test_streams_that_make_no_sense_are_refused(which: Adapter, event: dict[str, Any]) -> None:
    with pytest.raises(Refused):
        which.stream().feed(b"data: " + dumps(event) + b"\n\n")


DEEP = b'{"model":"m","max_tokens":1,"messages":' + b"[" * 5000 + b"]" * 5000 + b"}"
SURROGATE = b'{"model":"\\ud800","max_tokens":1,"messages":[{"role":"user","content":"\\udfff"}]}'
HUGE = b'{"model":"m","max_tokens":1e999999999,"messages":[],"temperature":1e-999999999}'


@settings(CALM, max_examples=examples(300))
@given(ANYTHING.map(dumps) | st.binary(max_size=64))
@example(DEEP)
@example(SURROGATE)
@example(HUGE)
@example(b"")
@example(b"null")
def test_nothing_but_refused_is_raised(body: bytes) -> None:
    for which in (TO_MESSAGES, TO_CHAT):
        for work in (
            lambda which=which: which.request(body),
            lambda which=which: which.answer(200, body),
            lambda which=which: which.answer(500, body),
            lambda which=which: which.stream().feed(b"data: " + body + b"\n\n"),
        ):
            try:
                work()
            except Refused as refused:
                assert refused.param


@CALM
@given(st.lists(ANYTHING.map(dumps), max_size=6))
def test_streams_raise_nothing_but_refused(events: list[bytes]) -> None:
    starts = {
        TO_MESSAGES: {"type": "message_start", "message": {"id": "i", "usage": {}}},
        TO_CHAT: {"id": "c", "choices": [{"delta": {"content": "x"}}]},
    }
    for which, start in starts.items():
        way = which.stream()
        for event in [orjson.dumps(start), *events]:
            try:
                way.feed(b"data: " + event + b"\n\n")
            except Refused:
                break
        with suppress(Refused):
            way.finish()


def test_same_api_on_both_sides_needs_no_adapter() -> None:
    for style in ("any", "openai", "azure", "gemini", "vllm", "ollama"):
        assert adapter_for(Endpoint.CHAT, style, created_s=0) is None  # type: ignore[arg-type]
    assert adapter_for(Endpoint.MESSAGES, "anthropic", created_s=0) is None
    assert adapter_for(Endpoint.MESSAGES, "any", created_s=0) is None
    assert adapter_for(Endpoint.EMBEDDINGS, "anthropic", created_s=0) is None
