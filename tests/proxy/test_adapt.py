"""Between OpenAI's chats and Anthropic's messages: nothing is lost that both can say, nothing is lost in silence."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import orjson
import pytest
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st

from farthing.cache import reshape
from farthing.cache.exact_json import dumps, loads
from farthing.proxy.adapt import Adapter, adapter_for
from farthing.proxy.adapt_shared import Options, Refused
from farthing.proxy.exchange import Endpoint
from farthing.proxy.observe import StreamObserver
from farthing.proxy.sse import Splitter
from farthing.proxy.usage import Usage, from_payload
from tests.fakes.event_streams import by_words, message_events, written
from tests.fakes.two_apis import ANYTHING, chat_answers, chat_requests, message_answers

NOW_S = 1_700_000_000
BOTH = Options(cache_control=True, top_k=True)


def adapter(client: Endpoint, style: Any, options: Options | None = BOTH) -> Adapter:
    found = adapter_for(client, style, created_s=NOW_S, options=options)
    assert found is not None
    return found


TO_MESSAGES, TO_CHAT = adapter(Endpoint.CHAT, "anthropic"), adapter(Endpoint.MESSAGES, "openai")


def chat(**more: Any) -> dict[str, Any]:
    return {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]} | more


def as_messages(body: dict[str, Any], options: Options = BOTH) -> Any:
    return loads(adapter(Endpoint.CHAT, "anthropic", options).request(dumps(body))[1])


def as_chat(body: dict[str, Any], options: Options = BOTH) -> Any:
    return loads(adapter(Endpoint.MESSAGES, "openai", options).request(dumps(body))[1])


def streamed(which: Adapter, sse: bytes) -> bytes:
    """The whole stream, adapted event by event."""
    way, splitter = which.stream(), Splitter(2**20)
    pieces = [*splitter.feed(sse), splitter.rest()]
    return b"".join(piece.body for event in pieces for piece in way.feed(event)) + b"".join(
        piece.body for piece in way.finish()
    )


# -- requests


@given(chat_requests())
def test_a_request_comes_back_as_it_was(request: dict[str, Any]) -> None:
    path, there = TO_MESSAGES.request(dumps(request))
    back_path, back = TO_CHAT.request(there)

    assert (path, back_path) == ("/v1/messages", "/v1/chat/completions")
    assert loads(back) == request


@given(chat_requests())
def test_a_request_of_messages_comes_back_as_it_was(request: dict[str, Any]) -> None:
    there = TO_MESSAGES.request(dumps(request))[1]

    assert loads(TO_MESSAGES.request(TO_CHAT.request(there)[1])[1]) == loads(there)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 2),
        ("logprobs", True),
        ("top_logprobs", 3),
        ("logit_bias", {"5": 1}),
        ("seed", 7),
        ("frequency_penalty", 0.5),
        ("presence_penalty", 1),
        ("temperature", 1.5),
        ("modalities", ["text", "audio"]),
        ("audio", {"voice": "x"}),
        ("store", True),
        ("verbosity", "low"),
        ("functions", [{"name": "f"}]),
        ("function_call", "auto"),
        ("web_search_options", {}),
        ("moderation", {"model": "x"}),
        ("service_tier", "flex"),
        ("reasoning_effort", "enormous"),
        ("tool_choice", "required"),
        ("max_completion_tokens", 10),
        ("min_p", 0.1),
        ("stop", [1]),
        ("max_tokens", True),
        ("max_tokens", "9"),
        ("stream", 1),
        ("model", None),
        ("messages", {}),
    ],
)
def test_what_messages_cannot_say_is_refused_by_name(field: str, value: Any) -> None:
    with pytest.raises(Refused) as refused:
        as_messages(chat(**{field: value}))

    assert refused.value.param in (field, "max_tokens" if field == "max_completion_tokens" else field)


@pytest.mark.parametrize(
    ("param", "message"),
    [
        ("messages[0].name", {"role": "user", "content": "hi", "name": "Bob"}),
        ("messages[0].role", {"role": "function", "content": "hi"}),
        ("messages[0].content[0].type", {"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}),
        (
            "messages[0].content[0].image_url.detail",
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "https://x", "detail": "low"}}]},
        ),
        (
            "messages[0].content[0].image_url.url",
            {"role": "user", "content": [{"type": "image_url", "image_url": {"url": "ftp://x"}}]},
        ),
        (
            "messages[0].content[0].file.file_id",
            {"role": "user", "content": [{"type": "file", "file": {"file_id": "f"}}]},
        ),
        ("messages[0].weight", {"role": "user", "content": "hi", "weight": 1}),
        ("messages[0].content[0].foo", {"role": "user", "content": [{"type": "text", "text": "x", "foo": 1}]}),
        ("messages[0].content", {"role": "user"}),
        ("messages[0]", "hi"),
        ("messages", {"role": "assistant", "content": "I will go on"}),
    ],
)
def test_what_turns_cannot_say_is_refused_by_path(param: str, message: Any) -> None:
    with pytest.raises(Refused) as refused:
        as_messages(chat(messages=[message]))

    assert refused.value.param == param


@pytest.mark.parametrize(
    ("arguments", "why"), [("{", "is not JSON"), ("[1]", "must be a JSON object"), ('{"a":1,"a":2}', "is not JSON")]
)
def test_arguments_that_are_no_object_are_refused(arguments: str, why: str) -> None:
    call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": arguments}}
    with pytest.raises(Refused, match=why) as refused:
        as_messages(chat(messages=[{"role": "assistant", "tool_calls": [call]}, {"role": "user", "content": "?"}]))

    assert refused.value.param == "messages[0].tool_calls[0].function.arguments"


@pytest.mark.parametrize(
    "harmless",
    [
        {"n": 1},
        {"logprobs": False},
        {"seed": None},
        {"frequency_penalty": 0},
        {"modalities": ["text"]},
        {"store": False},
        {"metadata": {"a": "b"}},
        {"stream_options": {"include_usage": True}},
        {"prompt_cache_key": "k"},
        {"response_format": {"type": "text"}},
        {"tool_choice": "auto"},
        {"parallel_tool_calls": False},
        {"verbosity": "medium"},
    ],
)
def test_what_changes_no_answer_is_left_out(harmless: dict[str, Any]) -> None:
    assert as_messages(chat(**harmless)) == as_messages(chat())


def test_messages_need_a_limit_so_the_default_stands_in() -> None:
    body = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}

    assert as_messages(body, Options(max_tokens=777))["max_tokens"] == 777


def test_system_and_developer_messages() -> None:
    said = [
        {"role": "system", "content": "a"},
        {"role": "developer", "content": "b"},
        {"role": "user", "content": "hi"},
        {"role": "system", "content": "later"},
        {"role": "user", "content": "go"},
    ]
    out = as_messages(chat(messages=said))

    assert out["system"] == [{"type": "text", "text": "a"}, {"type": "text", "text": "b"}]
    assert [turn["role"] for turn in out["messages"]] == ["user", "system", "user"]


def test_results_of_parallel_calls_are_one_turn_and_may_hold_images() -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}
    calls = [{"id": i, "type": "function", "function": {"name": "f", "arguments": ""}} for i in ("1", "2")]
    said = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": "", "tool_calls": calls},
        {"role": "tool", "tool_call_id": "1", "content": "one"},
        {"role": "tool", "tool_call_id": "2", "content": [{"type": "text", "text": "two"}, image]},
    ]
    _, called, results = as_messages(chat(messages=said))["messages"]
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}

    assert called["content"] == [{"type": "tool_use", "id": i, "name": "f", "input": {}} for i in ("1", "2")]
    assert [block["tool_use_id"] for block in results["content"]] == ["1", "2"]
    assert results["content"][1]["content"] == [{"type": "text", "text": "two"}, {"type": "image", "source": source}]


def test_images_in_results_follow_where_a_tools_message_takes_none() -> None:
    source = {"type": "base64", "media_type": "image/png", "data": "QUJD"}
    result = {
        "type": "tool_result",
        "tool_use_id": "1",
        "is_error": True,
        "content": [{"type": "image", "source": source}],
    }
    body = chat(messages=[{"role": "user", "content": [{"type": "text", "text": "see"}, result]}])
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}}

    moved = as_chat(body)["messages"]
    kept = as_chat(body, Options(tool_images=True))["messages"]

    assert moved[0] == {"role": "tool", "tool_call_id": "1", "content": "Error: (images follow)"}
    assert moved[1]["content"] == [
        {"type": "text", "text": "Images in the result of 1:"},
        image,
        {"type": "text", "text": "see"},
    ]
    assert kept[0]["content"] == [{"type": "text", "text": "Error: "}, image]


def test_signed_thoughts_go_back_and_others_stay_behind() -> None:
    spoken = {
        "role": "assistant",
        "content": "said",
        "reasoning_content": "unsigned",
        "reasoning_details": [
            {"type": "reasoning.text", "text": "thought", "signature": "s"},
            {"type": "reasoning.encrypted", "data": "d"},
            {"type": "reasoning.text", "text": "unsigned"},
        ],
    }
    out = as_messages(chat(messages=[spoken, {"role": "user", "content": "?"}]))

    assert out["messages"][0]["content"] == [
        {"type": "thinking", "thinking": "thought", "signature": "s"},
        {"type": "redacted_thinking", "data": "d"},
        {"type": "text", "text": "said"},
    ]


@pytest.mark.parametrize(
    ("effort", "limit", "thinking"),
    [
        ("none", 9, {"type": "disabled"}),
        ("low", 100_000, {"type": "enabled", "budget_tokens": 2048}),
        ("high", 4000, {"type": "enabled", "budget_tokens": 2000}),
        ("minimal", 1025, {"type": "enabled", "budget_tokens": 1024}),
    ],
)
def test_older_models_get_a_budget(effort: str, limit: int, thinking: dict[str, Any]) -> None:
    out = as_messages(chat(reasoning_effort=effort, max_tokens=limit), Options(budgets=True))

    assert out["thinking"] == thinking
    assert "output_config" not in out


def test_a_budget_needs_room() -> None:
    with pytest.raises(Refused, match="reasoning_effort needs more than 1024"):
        as_messages(chat(reasoning_effort="low", max_tokens=1024), Options(budgets=True))


@pytest.mark.parametrize(
    ("budget", "effort"),
    [(1024, "low"), (2048, "low"), (8191, "low"), (8192, "medium"), (20_000, "high"), (10**6, "max")],
)
def test_a_budget_means_an_effort(budget: int, effort: str) -> None:
    out = as_chat(chat(thinking={"type": "enabled", "budget_tokens": budget}))

    assert out["reasoning_effort"] == effort


@pytest.mark.parametrize(
    ("param", "more"),
    [
        ("top_k", {"top_k": 5}),
        ("tools[0].type", {"tools": [{"type": "web_search_20250305", "name": "web_search"}]}),
        ("tools[0].defer_loading", {"tools": [{"name": "f", "input_schema": {}, "defer_loading": True}]}),
        ("container", {"container": "c"}),
        ("mcp_servers", {"mcp_servers": []}),
        ("context_management", {"context_management": {}}),
        ("speed", {"speed": "fast"}),
        ("metadata.tag", {"metadata": {"tag": "x"}}),
        ("thinking.type", {"thinking": {"type": "between_tools"}}),
        ("max_tokens", {"max_tokens": None}),
        ("messages", {"messages": [{"role": "assistant", "content": "The best answer is ("}]}),
        (
            "messages[0].content[0].source.type",
            {
                "messages": [
                    {"role": "user", "content": [{"type": "image", "source": {"type": "file", "file_id": "f"}}]}
                ]
            },
        ),
        (
            "messages[0].content[0].citations",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [
                            {
                                "type": "document",
                                "citations": {"enabled": True},
                                "source": {"type": "text", "media_type": "text/plain", "data": "x"},
                            }
                        ],
                    }
                ]
            },
        ),
    ],
)
def test_what_chats_cannot_say_is_refused_by_name(param: str, more: dict[str, Any]) -> None:
    with pytest.raises(Refused) as refused:
        as_chat(chat(**more), Options())

    assert refused.value.param == param


def test_marks_of_breakpoints_stay_behind_where_the_upstream_takes_none() -> None:
    block = {"type": "text", "text": "long", "cache_control": {"type": "ephemeral"}}
    body = chat(system=[block], messages=[{"role": "user", "content": [block]}], cache_control={"type": "ephemeral"})

    assert "cache_control" not in json.dumps(as_chat(body, Options()))
    assert json.dumps(as_chat(body)).count("cache_control") == 3


# -- answers


@given(message_answers())
def test_an_answer_comes_back_as_it_was(answer: dict[str, Any]) -> None:
    there = TO_MESSAGES.answer(200, dumps(answer))
    back = loads(TO_CHAT.answer(200, there))

    # A thought without a signature and a chat without counts can't be told from less; all else can.
    assert back == answer | {"usage": answer["usage"]}


@given(message_answers())
def test_both_sides_count_the_same(answer: dict[str, Any]) -> None:
    there = loads(TO_MESSAGES.answer(200, dumps(answer)))

    assert from_payload("chat", there["usage"], there.get("service_tier")) == from_payload("messages", answer["usage"])


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
            {"choices": [{"message": {"tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}}]},
            "choices[0].message.tool_calls[0].function.arguments",
        ),
    ],
)
def test_answers_that_make_no_sense_are_refused(which: Adapter, answer: dict[str, Any], param: str) -> None:
    with pytest.raises(Refused) as refused:
        which.answer(200, dumps(answer))

    assert refused.value.param == param


# -- errors


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


# -- streams


@given(message_answers(), st.booleans())
def test_a_stream_amounts_to_the_whole_answer_as_a_chat(answer: dict[str, Any], own: bool) -> None:
    sse = reshape.split(dumps(answer), "messages", include_usage=True) if own else None
    sse = sse or b"".join(written(message_events(answer, by_words), names=True, done=False))
    whole = loads(TO_MESSAGES.answer(200, dumps(answer)))
    assembled = reshape.assemble(streamed(TO_MESSAGES, sse), "chat")

    assert assembled is not None
    assert settled(loads(assembled)) == settled(whole)


@given(chat_answers())
def test_a_stream_amounts_to_the_whole_answer_as_a_message(answer: dict[str, Any]) -> None:
    sse = reshape.split(dumps(answer), "chat", include_usage=True)
    assert sse is not None
    assembled = reshape.assemble(streamed(TO_CHAT, sse), "messages")

    assert assembled is not None
    assert loads(assembled) == loads(TO_CHAT.answer(200, dumps(answer)))


@given(message_answers())
def test_a_stream_there_and_back(answer: dict[str, Any]) -> None:
    sse = b"".join(written(message_events(answer, by_words), names=True, done=False))
    back = reshape.assemble(streamed(TO_CHAT, streamed(TO_MESSAGES, sse)), "messages")

    assert back is not None
    without_tier = answer | {"usage": {k: v for k, v in answer["usage"].items() if k != "service_tier"}}
    assert loads(back) == without_tier


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


def test_a_stream_that_breaks_off_has_no_end() -> None:
    answer = {
        "id": "i",
        "type": "message",
        "role": "assistant",
        "model": "m",
        "content": [{"type": "text", "text": "x"}],
    }
    answer |= {"stop_reason": "end_turn", "stop_sequence": None, "usage": {"input_tokens": 1, "output_tokens": 2}}
    sse = b"".join(written(message_events(answer, by_words), names=True, done=False)[:-1])

    assert b"[DONE]" not in streamed(TO_MESSAGES, sse)
    assert b"message_stop" not in streamed(TO_CHAT, chunk(content="x"))


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
        (TO_MESSAGES, {"type": "novel"}),
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


# -- hostile input


DEEP = b'{"model":"m","max_tokens":1,"messages":' + b"[" * 5000 + b"]" * 5000 + b"}"
SURROGATE = b'{"model":"\\ud800","max_tokens":1,"messages":[{"role":"user","content":"\\udfff"}]}'
HUGE = b'{"model":"m","max_tokens":1e999999999,"messages":[],"temperature":1e-999999999}'


@settings(max_examples=300)
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
