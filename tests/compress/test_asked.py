"""What is asked about a text is found before it and beside it, never after it."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from farthing.compress.asked import asked_about
from farthing.compress.places import Marks, places

CHAT = {
    "messages": [
        {"role": "user", "content": "who is late?"},
        {
            "role": "assistant",
            "tool_calls": [{"id": "c1", "function": {"name": "list_orders", "arguments": '{"state": "late"}'}}],
        },
        {"role": "tool", "tool_call_id": "c1", "content": "rows"},
    ]
}
ANTHROPIC = {
    "messages": [
        {"role": "user", "content": [{"type": "text", "text": "who is late?"}]},
        {"role": "assistant", "content": [{"type": "tool_use", "id": "c1", "name": "list_orders", "input": {"a": 1}}]},
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "c1", "content": "rows"}]},
    ]
}
RESPONSES = {
    "input": [
        {"role": "user", "content": [{"type": "input_text", "text": "who is late?"}]},
        {"type": "function_call", "call_id": "c1", "name": "list_orders", "arguments": "{}"},
        {"type": "function_call_output", "call_id": "c1", "output": "rows"},
    ]
}


@pytest.mark.parametrize(("endpoint", "payload"), [("chat", CHAT), ("messages", ANTHROPIC), ("responses", RESPONSES)])
def test_a_result_is_asked_about_by_the_user_and_by_its_call(endpoint: str, payload: dict[str, Any]) -> None:
    (place,) = places(endpoint, payload)
    asked = asked_about(endpoint, payload, place)
    assert asked.startswith("who is late?")
    assert "list_orders" in asked


@pytest.mark.parametrize(("endpoint", "payload"), [("chat", CHAT), ("messages", ANTHROPIC), ("responses", RESPONSES)])
def test_what_comes_later_changes_nothing(endpoint: str, payload: dict[str, Any]) -> None:
    (place,) = places(endpoint, payload)
    longer = copy.deepcopy(payload)
    next(iter(longer.values())).extend([{"role": "assistant", "content": "a"}, {"role": "user", "content": "and now?"}])
    assert asked_about(endpoint, longer, place) == asked_about(endpoint, payload, place)


def test_of_the_message_that_holds_it_only_what_is_outside_counts() -> None:
    payload = {"messages": [{"role": "user", "content": "Read <d>passages</d> and say why."}]}
    (place,) = places("chat", payload, [Marks("<d>", "</d>")])
    assert place.text == "passages"
    assert asked_about("chat", payload, place).split() == ["Read", "<d>", "</d>", "and", "say", "why."]


@pytest.mark.parametrize(
    "turns",
    [
        [{"role": "tool", "content": "rows"}],
        [None, 3, {"role": "tool", "tool_call_id": 7, "content": "rows"}],
        [{"role": "user", "content": None}, {"role": "tool", "tool_call_id": "x", "content": "rows"}],
        [{"role": "assistant", "tool_calls": "no"}, {"role": "tool", "tool_call_id": "x", "content": "rows"}],
    ],
)
def test_where_nothing_is_asked_there_is_no_question(turns: list[Any]) -> None:
    payload = {"messages": turns}
    (place,) = places("chat", payload)
    assert asked_about("chat", payload, place) == ""
