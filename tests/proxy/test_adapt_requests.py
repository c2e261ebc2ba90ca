"""Requests between OpenAI's chats and Anthropic's messages: nothing is lost that both can say, nothing in silence."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given

from farthing.cache.exact_json import dumps, loads
from farthing.proxy.adapt_shared import Options, Refused
from tests.fakes.adapters import TO_CHAT, TO_MESSAGES, as_chat, as_messages, chat
from tests.fakes.two_apis import CALM, chat_requests


@CALM
@given(chat_requests())
def test_a_request_comes_back_as_it_was(request: dict[str, Any]) -> None:
    path, there = TO_MESSAGES.request(dumps(request))
    back_path, back = TO_CHAT.request(there)

    assert (path, back_path) == ("/v1/messages", "/v1/chat/completions")
    assert loads(back) == request


@CALM
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
        ("tool_choice", {"type": "allowed_tools", "allowed_tools": {}}),
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

    assert refused.value.param.split(".")[0] == ("max_tokens" if field == "max_completion_tokens" else field)


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
    [(1024, "low"), (2048, "low"), (8191, "low"), (8192, "medium"), (20_000, "high"), (10**6, "high")],
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
        (
            "context_management.edits[1].type",
            {
                "context_management": {
                    "edits": [{"type": "clear_thinking_20251015"}, {"type": "clear_tool_uses_20250919"}]
                }
            },
        ),
        ("context_management.novel", {"context_management": {"edits": [], "novel": 1}}),
        ("thinking.budget_tokens", {"thinking": {"type": "adaptive", "budget_tokens": 5}}),
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


def test_an_empty_instruction_is_none_at_all() -> None:
    said = [{"role": "system", "content": text} for text in ("", "a", "")] + [{"role": "user", "content": "hi"}]

    assert as_messages(chat(messages=said))["system"] == "a"
    assert "system" not in as_messages(chat(messages=[said[0], said[3]]))
    assert as_messages(chat(messages=[said[3], said[0], said[3]]))["messages"] == [said[3], said[3]]


def test_what_was_only_thought_or_came_to_nothing_is_an_empty_text() -> None:
    """Null is for turns with calls; a tool's message without parts is refused."""
    turns = [
        {"role": "user", "content": "hi"},
        {"role": "assistant", "content": [{"type": "thinking", "thinking": "hm", "signature": "s"}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "1", "content": []}]},
    ]

    assert [turn["content"] for turn in as_chat(chat(messages=turns))["messages"]] == ["hi", "", ""]


def test_a_long_name_of_a_user_is_told_as_a_digest() -> None:
    names = ["u" * 64, "u" * 65, '{"device":"' + "a" * 100 + '"}']
    told = [as_chat(chat(metadata={"user_id": name}))["user"] for name in names]

    assert told[0] == names[0]
    assert [len(name) for name in told] == [64, 64, 64]
    assert len(set(told)) == 3
    assert as_chat(chat(metadata={"user_id": names[1]}))["user"] == told[1]


def test_what_agents_of_anthropics_send_with_each_request_passes() -> None:
    """Thoughts of earlier turns are cleared (none goes along anyway), and a budget of nothing."""
    more: dict[str, Any] = {
        "thinking": {"type": "adaptive", "budget_tokens": 0, "display": "omitted"},
        "context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]},
    }

    assert as_chat(chat(**more)) == as_chat(chat())


def test_a_jpeg_by_its_other_name() -> None:
    part = {"type": "image_url", "image_url": {"url": "data:image/jpg;base64,QUJD"}}
    [turn] = as_messages(chat(messages=[{"role": "user", "content": [part]}]))["messages"]

    assert turn["content"][0]["source"]["media_type"] == "image/jpeg"


def test_effort_and_thinking_are_one_question() -> None:
    both = {"reasoning_effort": "low", "thinking": {"type": "adaptive"}}
    with pytest.raises(Refused, match="reasoning_effort and thinking"):
        as_messages(chat(**both))

    assert as_messages(chat(thinking={"type": "adaptive"}))["thinking"] == {"type": "adaptive"}
