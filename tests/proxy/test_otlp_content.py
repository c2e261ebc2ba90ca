"""What a span says of texts: the conventions' forms of every API, looked through, within a bound, whatever came."""

from __future__ import annotations

import json
import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.capture_record import Captured, Said, line_of
from farthing.proxy.clock import FakeClock, SystemClock
from farthing.proxy.config_capture import Capture, OwnPattern
from farthing.proxy.otlp_content import LEFT_OUT, Content
from farthing.proxy.redact import KINDS, Redactor
from tests.fakes.examples import examples
from tests.fakes.hostile_json import HostileJson
from tests.fakes.otel_schema import checked
from tests.fakes.rows import NOW_S, row

SECRET = b"s" * 32
INPUT, OUTPUT = "gen_ai.input.messages", "gen_ai.output.messages"
INSTRUCTIONS, TOOLS = "gen_ai.system_instructions", "gen_ai.tool.definitions"
PNG = "data:image/png;base64,iVBORw0KGgoAAAAN"


def attributes(
    request: Any, answer: Any = None, endpoint: str = "chat", most_bytes: int = 65_536, **chosen: Any
) -> dict[str, Any]:
    content = Content(most_bytes, SECRET, FakeClock(NOW_S))
    content.use(Capture(**chosen))
    body = request if isinstance(request, bytes) else json.dumps(request).encode()
    said = answer if isinstance(answer, bytes | None) else json.dumps(answer).encode()
    return dict(content.of(Said("/v1/x", body, said), row(endpoint=endpoint)))


def told(request: Any, answer: Any = None, endpoint: str = "chat", **more: Any) -> dict[str, Any]:
    return checked(attributes(request, answer, endpoint, **more))


def text(said: str) -> dict[str, str]:
    return {"type": "text", "content": said}


def sse(*events: Any) -> bytes:
    return b"".join(b"data: " + json.dumps(event).encode() + b"\n\n" for event in events)


# -- the four APIs


def test_a_chat_with_pictures_and_tools() -> None:
    request = {
        "model": "m",
        "messages": [
            {"role": "system", "content": "be brief"},
            {
                "role": "user",
                "name": "ada",
                "content": [
                    {"type": "text", "text": "what is this?"},
                    {"type": "image_url", "image_url": {"url": PNG}},
                    {"type": "image_url", "image_url": {"url": "https://me:pw@img.example/a.png?sig=secret#x"}},
                    {"type": "input_audio", "input_audio": {"data": "AAAA", "format": "wav"}},
                    {"type": "file", "file": {"file_id": "file-1"}},
                ],
            },
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"at": 1.50}'}}
                ],
            },
            {"role": "tool", "tool_call_id": "c1", "content": "a cat"},
        ],
        "tools": [{"type": "function", "function": {"name": "look", "description": "looks", "parameters": {}}}],
    }
    answer = {
        "id": "x",
        "object": "chat.completion",
        "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "A cat."}, "finish_reason": "stop"},
            {"index": 1, "message": {"role": "assistant", "content": "A c"}, "finish_reason": "length"},
        ],
    }
    found = attributes(request, answer)

    assert checked(found) == {
        INPUT: [
            {"role": "system", "parts": [text("be brief")]},
            {
                "role": "user",
                "parts": [
                    text("what is this?"),
                    {"type": "blob", "modality": "image", "mime_type": "image/png", "content": "", "bytes": 12},
                    {"type": "uri", "modality": "image", "uri": "https://img.example/a.png"},
                    {"type": "blob", "modality": "audio", "mime_type": "audio/wav", "content": "", "bytes": 3},
                    {"type": "file", "modality": "document", "file_id": "file-1"},
                ],
                "name": "ada",
            },
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": "c1", "name": "look", "arguments": {"at": 1.5}}],
            },
            {"role": "tool", "parts": [{"type": "tool_call_response", "id": "c1", "response": "a cat"}]},
        ],
        OUTPUT: [
            {"role": "assistant", "parts": [text("A cat.")], "finish_reason": "stop"},
            {"role": "assistant", "parts": [text("A c")], "finish_reason": "length"},
        ],
        TOOLS: [{"type": "function", "name": "look"}],
    }
    assert found["gen_ai.response.finish_reasons"] == ["stop", "length"]
    assert "iVBORw0" not in str(found) and "secret" not in str(found) and "pw@" not in str(found)


def test_a_response_and_its_items() -> None:
    request = {
        "model": "m",
        "instructions": "be kind",
        "input": [
            {
                "role": "user",
                "content": [{"type": "input_text", "text": "hi"}, {"type": "input_image", "image_url": PNG}],
            },
            {"type": "function_call", "call_id": "c1", "name": "look", "arguments": "{}"},
            {"type": "function_call_output", "call_id": "c1", "output": "seen"},
            {"type": "web_search_call", "id": "w", "status": "completed"},
        ],
        "tools": [{"type": "web_search"}],
    }
    answer = {
        "object": "response",
        "status": "completed",
        "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "hm"}]},
            {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "hello"}]},
            {"type": "function_call", "call_id": "c2", "name": "look", "arguments": '{"a":1}'},
        ],
    }
    found = told(request, answer, "responses")

    assert found[INSTRUCTIONS] == [text("be kind")]
    assert [message["role"] for message in found[INPUT]] == ["user", "assistant", "tool", "assistant"]
    assert found[INPUT][0]["parts"][1]["bytes"] == 12
    assert found[INPUT][3]["parts"] == [{"type": "web_search_call", "bytes": 56}]
    assert found[OUTPUT] == [
        {
            "role": "assistant",
            "parts": [
                {"type": "reasoning", "content": "hm"},
                text("hello"),
                {"type": "tool_call", "id": "c2", "name": "look", "arguments": {"a": 1}},
            ],
            "finish_reason": "tool_call",
        }
    ]
    assert found[TOOLS] == [{"type": "web_search", "name": "web_search"}]


def test_a_message_of_anthropics() -> None:
    request = {
        "model": "m",
        "system": [{"type": "text", "text": "be exact"}],
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image", "source": {"type": "base64", "media_type": "image/jpeg", "data": "AAAAAAAA"}},
                    {"type": "tool_result", "tool_use_id": "t1", "content": [{"type": "text", "text": "3"}]},
                ],
            }
        ],
        "tools": [{"name": "count", "input_schema": {}}],
    }
    answer = {
        "type": "message",
        "role": "assistant",
        "content": [
            {"type": "thinking", "thinking": "hm"},
            {"type": "tool_use", "id": "t2", "name": "count", "input": {"n": 2}},
        ],
        "stop_reason": "tool_use",
    }
    found = told(request, answer, "messages")

    assert found[INSTRUCTIONS] == [text("be exact")]
    assert found[INPUT][0]["parts"] == [
        {"type": "blob", "modality": "image", "mime_type": "image/jpeg", "content": "", "bytes": 6},
        {"type": "tool_call_response", "id": "t1", "response": [text("3")]},
    ]
    assert found[OUTPUT][0]["parts"][1] == {"type": "tool_call", "id": "t2", "name": "count", "arguments": {"n": 2}}
    assert found[OUTPUT][0]["finish_reason"] == "tool_call"
    assert found[TOOLS] == [{"type": "function", "name": "count"}]


def test_a_completion_and_what_is_none() -> None:
    answer = {"object": "text_completion", "choices": [{"text": "more", "finish_reason": "stop"}]}

    assert told({"model": "m", "prompt": ["once", [1, 2]]}, answer, "completions") == {
        INPUT: [
            {"role": "user", "parts": [text("once")]},
            {"role": "user", "parts": [{"type": "tokens", "bytes": 32}]},
        ],
        OUTPUT: [{"role": "assistant", "parts": [text("more")], "finish_reason": "stop"}],
    }
    assert attributes({"model": "m", "input": "to embed"}, {"data": []}, "embeddings") == {}
    failed = told({"messages": [{"role": "user", "content": "hi"}]}, {"error": {"message": "no"}})
    assert list(failed) == [INPUT]


# -- streams

ENDED = {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}
HEAD = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m"}
CHAT = [
    HEAD | {"choices": [{"index": 0, "delta": {"role": "assistant", "content": "Hel"}, "finish_reason": None}]},
    HEAD | {"choices": [{"index": 0, "delta": {"content": "lo"}, "finish_reason": None}]},
]
CALLS = [
    HEAD | {"choices": [{"index": 0, "delta": {"tool_calls": [
        {"index": 0, "id": "c1", "type": "function", "function": {"name": "look", "arguments": ""}}]}}]},
    HEAD | {"choices": [{"index": 0, "delta": {"tool_calls": [
        {"index": 0, "function": {"arguments": '{"a'}}]}}]},
]  # fmt: skip
MESSAGE = [
    {"type": "message_start", "message": {"type": "message", "role": "assistant", "content": []}},
    {"type": "content_block_start", "index": 0, "content_block": {"type": "thinking", "thinking": ""}},
    {"type": "content_block_delta", "index": 0, "delta": {"type": "thinking_delta", "thinking": "hm"}},
    {"type": "content_block_start", "index": 1, "content_block": {"type": "text", "text": ""}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "Hel"}},
    {"type": "content_block_delta", "index": 1, "delta": {"type": "text_delta", "text": "lo"}},
]
RESPONSE = [
    {"type": "response.created", "response": {"id": "r", "object": "response", "output": []}},
    {"type": "response.output_item.added", "output_index": 0, "item": {"type": "message"}},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "Hel"},
    {"type": "response.output_text.delta", "output_index": 0, "content_index": 0, "delta": "lo"},
]


@pytest.mark.parametrize(
    ("endpoint", "events", "parts"),
    [
        ("chat", CHAT, [text("Hello")]),
        ("chat", CALLS, [{"type": "tool_call", "id": "c1", "name": "look", "arguments": '{"a'}]),
        ("completions", [{"choices": [{"index": 0, "text": "Hello"}]}], [text("Hello")]),
        ("messages", MESSAGE, [{"type": "reasoning", "content": "hm"}, text("Hello")]),
        ("responses", RESPONSE, [text("Hello")]),
    ],
)
@pytest.mark.parametrize("torn", [b"", b'data: {"choices": [{"index": 0, "delta": {"con'])
def test_a_cut_stream_is_told_as_far_as_it_came(endpoint: str, events: Any, parts: Any, torn: bytes) -> None:
    request = {"messages": [{"role": "user", "content": "hi"}], "input": "hi", "prompt": "hi"}
    found = attributes(request, sse(*events) + torn, endpoint)

    assert checked(found)[OUTPUT] == [{"role": "assistant", "parts": parts, "finish_reason": "error"}]
    assert found["gen_ai.response.finish_reasons"] == ["error"]


def test_a_whole_stream_is_told_as_its_answer() -> None:
    request = {"messages": [{"role": "user", "content": "hi"}]}
    found = told(request, sse(*CHAT, HEAD | ENDED) + b"data: [DONE]\n\n")

    assert found[OUTPUT] == [{"role": "assistant", "parts": [text("Hello")], "finish_reason": "stop"}]


# -- redaction

SECRETS = (
    "write to ada@lovelace.example or +44 20 7946 0958, key sk-proj-abcdefghijklmnop1234, card 4111 1111 1111 1111"
)


def test_it_is_redacted_as_the_capture_store_redacts() -> None:
    own = OwnPattern(name="badge", pattern=r"B-\d{4}")
    chosen: dict[str, Any] = {"patterns": (own,)}
    request = {"messages": [{"role": "user", "content": f"{SECRETS}, badge B-1234"}]}
    answer = {"choices": [{"message": {"role": "assistant", "content": SECRETS}, "finish_reason": "stop"}]}
    redactor = Redactor(KINDS, [("badge", own.pattern)], SECRET, FakeClock(NOW_S))
    said = Said("/v1/chat/completions", json.dumps(request).encode(), json.dumps(answer).encode())
    line = line_of(Captured(said, row(endpoint="chat")), 1.0, redactor)
    assert line is not None
    captured = json.loads(line.text)
    found = told(request, answer, **chosen)

    assert found[INPUT][0]["parts"][0]["content"] == captured["request"]["messages"][0]["content"]
    assert found[OUTPUT][0]["parts"][0]["content"] == captured["response"]["choices"][0]["message"]["content"]
    for secret in ("lovelace", "7946", "abcdefghijklmnop", "4111", "B-1234"):
        assert secret not in json.dumps(found)
    assert "lovelace" in json.dumps(told(request, answer, redact=("key",)))  # the settings are heard


@pytest.mark.parametrize(
    "arguments", ['{"to": "ada@lovelace.example"}', '{"to": "ada\\u0040lovelace.example"}', '{"n": 4111111111111111}']
)
def test_a_calls_arguments_are_looked_through_before_and_after_they_are_read(arguments: str) -> None:
    made = {"id": "c", "type": "function", "function": {"name": "mail", "arguments": arguments}}
    found = json.dumps(told({"messages": [{"role": "assistant", "tool_calls": [made]}]}))

    assert "lovelace" not in found and "4111111" not in found
    assert "[email-" in found or "[card-" in found


def test_what_cannot_be_looked_through_is_left_out() -> None:
    found = attributes({"messages": [{"role": "user", "content": "x" * 4_000_001}]})

    assert found == {LEFT_OUT: "redaction"}


# -- the bound

LONG = {
    "messages": [
        {"role": "system", "content": "be brief"},
        {"role": "user", "content": "é\x00" * 500_000},
        {"role": "user", "content": "and?"},
    ]
}


@pytest.mark.parametrize("most_bytes", [1024, 65_536, 2**20])
def test_a_long_text_is_cut_with_a_mark_and_short_ones_stay(most_bytes: int) -> None:
    found = attributes(LONG, most_bytes=most_bytes)
    system, long, last = checked(found)[INPUT]
    said = long["parts"][0]["content"]

    assert (system["parts"], last["parts"]) == ([text("be brief")], [text("and?")])
    assert said.endswith(" characters]") and "[cut: " in said
    assert most_bytes * 0.9 < len(found[INPUT].encode()) <= most_bytes
    assert found["farthing.content.cut"] is True
    assert int(said.rpartition("cut: ")[2].split()[0]) + len(said.rpartition("… [cut")[0]) == 1_000_000


def test_of_too_many_messages_the_oldest_go_and_the_answer_stays() -> None:
    request = {
        "messages": [{"role": "user", "content": f"message {i}"} for i in range(5000)],
        "tools": [{"type": "function", "function": {"name": f"tool-{i}"}} for i in range(5000)],
    }
    answer = {"choices": [{"message": {"role": "assistant", "content": "the answer"}, "finish_reason": "stop"}]}
    found = attributes(request, answer, most_bytes=4096)
    messages = checked(found)

    assert messages[OUTPUT][0]["parts"] == [text("the answer")]
    mark, *kept = messages[INPUT]
    assert mark == {"role": "farthing", "parts": [{"type": "left_out", "messages": 5000 - len(kept)}]}
    assert kept[-1]["parts"] == [text("message 4999")] and len(kept) > 30
    assert sum(len(found[name].encode()) for name in messages) <= 4096


def test_arguments_of_any_shape_are_cut_too() -> None:
    made = {"type": "tool_use", "id": "t", "name": "n", "input": {f"key {i}": i for i in range(10_000)}}
    found = attributes({"messages": [{"role": "assistant", "content": [made]}]}, None, "messages", 2048)
    (part,) = checked(found)[INPUT][0]["parts"]

    assert part["name"] == "n" and part["arguments"].startswith('{"key 0":0,') and "[cut: " in part["arguments"]


# -- whatever comes

KEYS = (
    "role", "content", "type", "text", "image_url", "source", "tool_calls", "function", "name", "arguments", "input",
    "output", "summary", "file", "data", "choices", "delta", "message", "finish_reason", "index", "item",
    "content_block",
)  # fmt: skip
KINDS_OF_PARTS = (
    "text", "image_url", "input_audio", "file", "image", "tool_use", "tool_result", "function_call", "reasoning",
    "message", "refusal", "thinking", "input_image", "message_start", "content_block_start", "content_block_delta",
    "message_delta", "response.output_item.added", "response.completed",
)  # fmt: skip
ASKED = ("messages", "input", "prompt", "system", "instructions", "tools")
ANSWERED = ("choices", "output", "content", "type", "object", "status", "stop_reason")


@settings(max_examples=examples(300), deadline=None)
@given(
    st.sampled_from(["chat", "messages", "responses", "completions"]),
    st.integers(0, 2**32),
    st.integers(0, 25),
    st.booleans(),
)
def test_any_json_gives_what_the_conventions_allow_within_the_bound(
    endpoint: str, seed: int, leaves: int, streamed: bool
) -> None:
    dice = random.Random(seed)
    drawn = HostileJson(dice, KEYS, leaves)

    def one() -> Any:
        return drawn.value() if dice.random() < 0.5 else drawn.typed(KINDS_OF_PARTS)

    def asked() -> Any:
        return drawn.many(one, dice.choice((4, 40))) if dice.random() < 0.9 else drawn.value()

    def answered() -> Any:
        return drawn.many(one, 8) if dice.random() < 0.7 else dice.choice(["message", "response"])

    request = {name: asked() for name in ASKED if dice.random() < 0.7}
    answer = {name: answered() for name in ANSWERED if dice.random() < 0.7}
    if dice.random() < 0.5:
        answer |= {"type": "message", "object": "response"}  # what the others call a whole answer
    events = drawn.many(one, 5)
    found = attributes(request, sse(*events) if streamed else answer, endpoint, 1024)
    messages = checked(found)

    assert sum(len(found[name].encode()) for name in messages) <= 1024
    assert LEFT_OUT not in found or found[LEFT_OUT] == "unreadable"


@pytest.mark.parametrize(
    "body",
    [
        b'{"messages": [{"role": "user", "content": "a \\ud800 b \\u0000 c"}]}',
        rb'{"messages": [{"tool_calls": [{"function": {"name": "f", "arguments": "\"\\ud800\""}}]}]}',
    ],
)
def test_lone_surrogates_and_nul_arrive_as_what_utf_8_can_hold(body: bytes) -> None:
    found = attributes(body)

    assert checked(found)[INPUT]
    assert found[INPUT].encode().decode() == found[INPUT] and "\x00" not in found[INPUT] and "?" in found[INPUT]


@pytest.mark.parametrize(
    "body", [b"[]", b'{"a": 1, "a": 2}', b"\xff", b'{"messages": ' + b"[" * 5000 + b"]" * 5000 + b"}"]
)
def test_what_cannot_be_read_is_left_out(body: bytes) -> None:
    assert attributes(body) == {LEFT_OUT: "unreadable"}


def test_an_answer_that_was_too_long_to_be_held_is_said_to_be_missing() -> None:
    found = attributes({"messages": [{"role": "user", "content": "hi"}]}, None)

    assert found[LEFT_OUT] == "answer" and INPUT in found and OUTPUT not in found


def test_a_share_of_conversations_is_the_capture_stores() -> None:
    content = Content(65_536, SECRET, SystemClock())
    content.use(Capture(share=0.5))
    bodies = [json.dumps({"messages": [{"role": "user", "content": f"number {i}"}]}).encode() for i in range(200)]
    redactor = Redactor((), [], SECRET, SystemClock())
    for body in bodies:
        said = Said("/v1/chat/completions", body, None)
        kept = line_of(Captured(said, row(endpoint="chat")), 0.5, redactor)
        assert bool(content.of(said, row(endpoint="chat"))) == (kept is not None)
