"""Streams assembled and whole answers split: against openai-python's accumulator, and against each other."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache import exact_json, reshape
from farthing.cache.replay import is_complete_stream, is_complete_whole, without_usage
from tests.fakes.completions import completions, sse, streams
from tests.fakes.examples import examples
from tests.fakes.json_texts import spelled


def assemble(stream: bytes) -> bytes | None:
    return reshape.assemble(stream, "chat")


def split(whole: bytes, usage: bool) -> bytes | None:
    return reshape.split(whole, "chat", include_usage=usage)


def one(delta: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"id": "c", "object": "chat.completion.chunk", "created": 5, "model": "m"} | {
        "choices": [{"index": 0, "delta": delta, "finish_reason": None} | more]
    }


def end(**more: Any) -> dict[str, Any]:
    return one({}, finish_reason="stop") | more


@given(completions(), st.sampled_from([None, 2]), st.booleans())
@settings(max_examples=examples(200), deadline=None)
def test_what_is_split_assembles_to_the_same_value(
    answer: dict[str, Any], indent: int | None, ascii_only: bool
) -> None:
    whole = json.dumps(answer, indent=indent, ensure_ascii=ascii_only)
    assert is_complete_whole(whole.encode(), "chat")
    stream = split(whole.encode(), True)
    assert stream is not None
    assert is_complete_stream(stream, "chat")
    again = assemble(stream)
    assert again is not None
    assert spelled_value(again.decode()) == spelled_value(whole)
    assert again.decode().index('"id"') == 1


def test_an_empty_answer_keeps_its_logprobs() -> None:
    """Found by the property above: an empty token is the whole of an empty text, and still has to be sent."""
    logprobs = {"content": [{"token": "", "logprob": -0.1, "bytes": None}], "refusal": None}
    message = {"role": "assistant", "content": ""}
    choice = {"index": 0, "message": message, "logprobs": logprobs, "finish_reason": "stop"}
    whole = {"id": "c", "object": "chat.completion", "created": 5, "model": "m", "choices": [choice]}

    stream = split(json.dumps(whole).encode(), True)

    assert stream is not None
    again = assemble(stream)
    assert again is not None
    assert json.loads(again) == whole


@given(completions())
@settings(max_examples=examples(80), deadline=None)
def test_usage_comes_only_when_asked_for(answer: dict[str, Any]) -> None:
    whole = json.dumps(answer).encode()
    with_it, without = split(whole, True), split(whole, False)
    assert with_it is not None
    assert without is not None
    assert without_usage(with_it) == without
    assert b'"usage":' not in without.replace(b'\\"usage\\":', b"")
    counted = assemble(without)
    assert counted is not None
    assert json.loads(counted) == {name: item for name, item in answer.items() if name != "usage"}


@given(streams(), st.sampled_from(["\n", "\r\n"]), st.booleans())
@settings(max_examples=examples(120), deadline=None)
def test_an_openai_stream_amounts_to_what_openais_own_client_makes_of_it(
    chunks: list[dict[str, Any]], newline: str, ascii_only: bool
) -> None:
    from openai.lib.streaming.chat import ChatCompletionStreamState
    from openai.types.chat import ChatCompletion, ChatCompletionChunk

    state: ChatCompletionStreamState[None] = ChatCompletionStreamState()
    for chunk in chunks:
        state.handle_chunk(ChatCompletionChunk.model_validate(chunk))
    theirs = state.get_final_completion().model_dump(exclude_none=True, exclude={"obfuscation"})
    whole = assemble(sse(chunks, newline=newline, ascii_only=ascii_only))
    assert whole is not None
    ours = json.loads(whole)
    assert plain(ChatCompletion.model_validate(ours).model_dump(exclude_none=True)) == plain(theirs)
    assert list(ours)[:5] == ["id", "object", "created", "model", "choices"]
    for choice in ours["choices"]:
        assert choice["message"].keys() - {"tool_calls"} == {"role", "content", "refusal"}
        assert "logprobs" in choice


def plain(answer: dict[str, Any]) -> dict[str, Any]:
    """Without what the client adds for itself, and logprobs' empty lists, which it drops or keeps as it likes."""
    for choice in answer["choices"]:
        choice["message"].pop("parsed", None)
        for call in choice["message"].get("tool_calls") or []:
            call.pop("index", None)
            call["function"].pop("parsed_arguments", None)
    return answer


@pytest.mark.parametrize(
    ("deltas", "expected"),
    [
        ([{"role": "assistant"}, {"content": "a"}, {"content": "b"}], {"role": "assistant", "content": "ab"}),
        ([{"content": "a"}], {"role": "assistant", "content": "a"}),
        ([{}], {"role": "assistant", "content": None}),
        ([{"content": ""}], {"role": "assistant", "content": ""}),
        (
            [{"role": "assistant", "content": "a"}, {"role": "assistant", "content": "b"}],
            {"role": "assistant", "content": "ab"},
        ),
        (
            [
                {"content": None, "reasoning_content": "x"},
                {"content": None, "reasoning_content": "y"},
                {"content": "z", "reasoning_content": None},
            ],
            {"role": "assistant", "content": "z", "reasoning_content": "xy"},
        ),
        (
            [{"reasoning": "a", "reasoning_details": [{"text": "a"}]}, {"reasoning_details": [{"text": "b"}]}],
            {
                "role": "assistant",
                "content": None,
                "reasoning": "a",
                "reasoning_details": [{"text": "a"}, {"text": "b"}],
            },
        ),
        (
            [{"function_call": {"name": "f", "arguments": ""}}, {"function_call": {"arguments": "{}"}}],
            {"role": "assistant", "content": None, "function_call": {"name": "f", "arguments": "{}"}},
        ),
        (
            [
                {
                    "tool_calls": [
                        {"index": 1, "id": "b", "type": "function", "function": {"name": "g", "arguments": ""}}
                    ]
                },
                {
                    "tool_calls": [
                        {"index": 0, "id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}}
                    ]
                },
                {"tool_calls": [{"index": 1, "id": "", "function": {"name": None, "arguments": "2"}}]},
                {"tool_calls": [{"index": 1, "id": "b", "function": {"name": "", "arguments": "3"}}]},
            ],
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "a", "type": "function", "function": {"name": "f", "arguments": "1"}},
                    {"id": "b", "type": "function", "function": {"name": "g", "arguments": "23"}},
                ],
            },
        ),
        ([{"signature": "s"}], {"role": "assistant", "content": None, "signature": "s"}),
        ([{"signature": "s"}, {"signature": None}], {"role": "assistant", "content": None, "signature": "s"}),
        # -- what nobody can know
        ([{"signature": "s"}, {"signature": "t"}], None),
        ([{"signature": "s"}, {"signature": "s"}], None),
        ([{"role": "assistant"}, {"role": "tool"}], None),
        ([{"audio": {"id": "a", "data": "AA=="}}], None),
        ([{"content": [{"type": "text", "text": "a"}]}], None),
        ([{"content": 1}], None),
        ([{"tool_calls": [{"id": "a", "function": {"name": "f", "arguments": ""}}]}], None),
        ([{"tool_calls": [{"index": 1, "id": "a", "function": {"name": "f", "arguments": ""}}]}], None),
        ([{"tool_calls": [{"index": 0, "id": "a"}]}, {"tool_calls": [{"index": 0, "id": "b"}]}], None),
        (
            [
                {"tool_calls": [{"index": 0, "function": {"name": "get_"}}]},
                {"tool_calls": [{"index": 0, "function": {"name": "x"}}]},
            ],
            None,
        ),
        ([{"tool_calls": [3]}], None),
        ([{"content": "\ud83d"}, {"content": "\ude00"}], None),
    ],
)
def test_deltas(deltas: list[dict[str, Any]], expected: dict[str, Any] | None) -> None:
    stream = sse([*map(one, deltas), end()], ascii_only=True)
    whole = assemble(stream)
    assert (None if whole is None else json.loads(whole)["choices"][0]["message"]) == expected


GOOD = [one({"role": "assistant", "content": "a"}), end()]


@pytest.mark.parametrize(
    "chunks",
    [
        [],
        GOOD[:1],
        [*GOOD, {"error": {"message": "x"}}],
        [one({}) | {"id": "other"}, *GOOD],
        [one({}) | {"model": "other"}, *GOOD],
        [one({}) | {"object": "text_completion"}, *GOOD],
        [one({}) | {"x": 1}, one({}) | {"x": 2}, *GOOD],
        [one({}, logprobs={"tokens": []}), *GOOD],
        [one({}, text="a"), *GOOD],
        [one({}, finish_reason="length"), *GOOD],
        [one({}, index=1), *GOOD],
        [one({}, index=None), *GOOD],
        [one({}, index=2, finish_reason="stop"), *GOOD],
        [{"id": "c", "choices": None}, *GOOD],
        [{"id": "c"}, *GOOD],
        [{name: item for name, item in chunk.items() if name != "id"} for chunk in GOOD],
    ],
)
def test_a_stream_that_is_not_surely_mergeable_is_not_merged(chunks: list[dict[str, Any]]) -> None:
    assert assemble(sse(chunks)) is None


def test_the_plain_stream_of_that_table_is_mergeable() -> None:
    assert assemble(sse(GOOD)) is not None


@pytest.mark.parametrize(
    "stream",
    [
        sse(GOOD, done=False),
        sse(GOOD)[:-30],
        sse(GOOD) + b"data: {}\n\n",
        b"event: error\ndata: {}\n\n" + sse(GOOD),
        b"data: {\n\n" + sse(GOOD),
        b"data: [1]\n\n" + sse(GOOD),
        sse(GOOD).replace(b'"model":"m"', b'"model":"m","model":"m"', 1),
        b"",
        b"data: [DONE]\n\n",
    ],
)
def test_a_stream_that_is_not_complete_is_not_merged(stream: bytes) -> None:
    assert assemble(stream) is None


def test_the_spelling_of_the_stream_does_not_matter() -> None:
    plain_text = sse(GOOD)
    for stream in (
        plain_text.replace(b"\n", b"\r\n"),
        plain_text.replace(b"\n", b"\r"),
        b": comment\n\n" + plain_text + b": bye\n\n",
        plain_text.replace(b"data: {", b"data:{"),
        plain_text.replace(b"data: {", b"id: 1\nretry: 5\nevent: message\ndata: {"),
        plain_text.replace(b',"choices"', b',\ndata: "choices"'),
        plain_text.rstrip(b"\n"),
    ):
        assert assemble(stream) == assemble(plain_text)


def test_azures_first_chunk_stamps_that_differ_usage_on_the_last_chunk_and_interleaved_choices() -> None:
    filtered = {"id": "", "object": "", "created": 0, "model": "", "choices": [], "prompt_filter_results": [{"i": 0}]}
    chunks = [
        filtered,
        one({"content": "a"}),
        one({"content": "x"}, index=1),
        one({"content": "b"}) | {"created": 6, "usage": {"total_tokens": 1}},
        one({}, index=1, finish_reason="length"),
        end(usage={"total_tokens": 2}),
    ]
    whole = assemble(sse(chunks))
    assert whole is not None
    answer = json.loads(whole)
    assert [choice["message"]["content"] for choice in answer["choices"]] == ["ab", "x"]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["stop", "length"]
    assert (answer["id"], answer["created"], answer["usage"]) == ("c", 5, {"total_tokens": 2})
    assert answer["prompt_filter_results"] == [{"i": 0}]


@pytest.mark.parametrize(
    "whole",
    [
        b"",
        b"[]",
        b"{}",
        b'{"id":"c","object":"chat.completion","choices":[]}',
        b'{"id":"c","object":"text_completion","choices":[{"index":0,"text":"a","finish_reason":"stop"}]}',
        b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"a"},'
        b'"finish_reason":null}]}',
        b'{"id":"c","object":"chat.completion","choices":[{"index":1,"message":{"role":"assistant","content":"a"},'
        b'"finish_reason":"stop"}]}',
        b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":["a"]},'
        b'"finish_reason":"stop"}]}',
        b'{"id":"c","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"a",'
        b'"audio":{"id":"x"}},"finish_reason":"stop"}]}',
        b'{"error":{"message":"x"}}',
    ],
)
def test_what_would_not_come_back_the_same_is_not_split(whole: bytes) -> None:
    assert split(whole, True) is None


def test_long_texts_come_in_a_few_pieces() -> None:
    answer = json.loads(assemble(sse(GOOD)) or b"")
    answer["choices"][0]["message"]["content"] = "word " * 1000
    stream = split(json.dumps(answer).encode(), False)
    assert stream is not None
    assert 4 < stream.count(b"data: ") <= 12


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False), st.decimals(allow_nan=False)))
def test_exact_json_loses_no_digit(number: Any) -> None:
    text = str(number)
    if "Infinity" in text:
        return
    value = exact_json.loads(text.encode())
    assert exact_json.loads(exact_json.dumps(value)) == value
    assert spelled_value(exact_json.dumps(value).decode()) == spelled_value(text)


@pytest.mark.parametrize(
    "text", [b"NaN", b"[1,]", b'{"a":1,"a":1}', b"1e9999999999999999999999", b"\xff", b"-Infinity"]
)
def test_exact_json_refuses(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        exact_json.loads(text)


def spelled_value(text: str) -> Any:
    """The value with exact numbers: 1.0 and 1 are one number, 2**70 and its nearest double are two."""
    from decimal import Decimal

    def exact(value: Any) -> Any:
        if isinstance(value, tuple):
            return (Decimal(value[0]),)
        if isinstance(value, dict):
            return {name: exact(item) for name, item in value.items()}
        return [exact(item) for item in value] if isinstance(value, list) else value

    return exact(spelled(text))
