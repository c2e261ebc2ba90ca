"""What `farthing compress` shows: figures, reasons and both sides."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
from rich.console import Console

from farthing.compress.forms import Form
from farthing.compress.tidy import tidy
from farthing.compress.view import View, inspect

LOOSE, TIGHT = '{ "a" : [ 1, 2 ] }', '{"a":[1,2]}'


def count(text: str, model: str) -> int:
    """A character is a token; the model must arrive."""
    assert model == "m"
    return len(text)


def shown(view: View, *, diff: bool = False) -> str:
    console = Console(file=io.StringIO(), width=140, force_terminal=False)
    console.print(view.render(diff=diff))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def request(*contents: Any) -> str:
    return json.dumps({"model": "m", "messages": [{"role": "tool", "content": content} for content in contents]})


def test_a_request_is_counted_by_its_tool_results() -> None:
    text = request(LOOSE, "plain", TIGHT)
    view = inspect(text, "m", count)
    assert view.kind == "chat"
    assert [(change.place, change.rule, change.reason) for change in view.changes] == [
        ("messages[0].content", "tidy", ""),
        ("messages[1].content", "", "not a JSON object or array"),
        ("messages[2].content", "", "already compact"),
    ]
    assert (view.changes[0].before, view.changes[0].after) == (LOOSE, TIGHT)
    saved = len(LOOSE) - len(TIGHT)
    assert view.tokens_before - view.tokens_after == saved
    assert view.bytes_after == len(tidy("chat", json.loads(text), text.encode()).body) == len(text) - saved


@pytest.mark.parametrize(
    ("text", "kind", "saved"),
    [
        (LOOSE, "tool result", 7),
        ("[ 1 ]", "tool result", 2),
        ("plain text", "text", 0),
        ('{"a": 1,}', "text", 0),
        (" 12 ", "tool result", 0),
        ("", "text", 0),
        (json.dumps({"model": "m", "input": [{"type": "function_call_output", "output": LOOSE}]}), "responses", 7),
        (
            json.dumps({"messages": [{"role": "user", "content": [{"type": "tool_result", "content": LOOSE}]}]}),
            "messages",
            7,
        ),
        (json.dumps({"system": "s", "messages": [{"role": "user", "content": LOOSE}]}), "messages", 0),
        (json.dumps({"messages": [{"role": "user", "content": LOOSE}]}), "chat", 0),
        (json.dumps({"input": [1]}, separators=(",", ":")), "tool result", 0),
        ('{ "messages" : "none" }', "tool result", 4),
    ],
)
def test_what_a_file_is_taken_for(text: str, kind: str, saved: int) -> None:
    view = inspect(text, "m", count)
    assert (view.kind, view.bytes_before - view.bytes_after) == (kind, saved)
    assert view.tokens_before - view.tokens_after == saved


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{ not json", "not valid JSON"),
        ('{"a": 1, "a": 2}', "already compact, or ambiguous JSON"),
        ("plain", "not a JSON object or array"),
        ([{"type": "text", "text": LOOSE, "cache_control": {"type": "ephemeral"}}], "at or before a cache breakpoint"),
    ],
)
def test_the_reason_why_nothing_was_done(content: Any, reason: str) -> None:
    view = inspect(request(content), "m", count)
    assert [(change.rule, change.reason) for change in view.changes] == [("", reason)]
    assert view.bytes_before == view.bytes_after
    assert reason in shown(view)
    assert "Nothing to save" in shown(view)


ROWS = json.dumps([{"order_id": f"A-{i:04d}", "state": "shipped", "total": i} for i in range(40)], indent=1)


def test_the_rules_of_each_text_are_named_and_how_far_they_may_go_is_asked() -> None:
    (recoded,) = inspect(request(ROWS), "m", count).changes
    assert recoded.rule == "tidy+rows"
    (tidied,) = inspect(request(ROWS), "m", count, None).changes
    assert (tidied.rule, tidied.after) == ("tidy", json.dumps(json.loads(ROWS), separators=(",", ":")))
    bold = inspect(ROWS, "m", count, Form("squeeze", keep=0.3), "Where is A-0017?")
    assert "squeeze" in bold.changes[0].rule
    assert "A-0017" in bold.changes[0].after
    assert bold.tokens_after < recoded.tokens_after < tidied.tokens_after
    assert "leave things out" in shown(bold)


def test_json_carries_figures_and_no_text() -> None:
    value = inspect(request(LOOSE), "m", count).to_json()
    assert value["tool_results"] == [
        {
            "place": "messages[0].content",
            "rule": "tidy",
            "reason": None,
            "bytes_before": len(LOOSE),
            "bytes_after": len(TIGHT),
            "tokens_before": len(LOOSE),
            "tokens_after": len(TIGHT),
        }
    ]
    assert (value["tokens_before"], value["tokens_after"]) == (len(LOOSE), len(TIGHT))
    assert LOOSE not in json.dumps(value)


def test_the_table_says_what_was_saved_and_the_diff_shows_both_sides() -> None:
    view = inspect(request(LOOSE), "m", count)
    assert "7 tokens saved" in shown(view)
    assert "38.9%" in shown(view)
    assert "[ 1, 2 ]" not in shown(view)
    both = shown(view, diff=True)
    assert LOOSE in both
    assert TIGHT in both
    assert "No tool results" in shown(inspect(json.dumps({"messages": []}), "m", count))


def test_a_file_can_neither_steer_the_terminal_nor_write_markup() -> None:
    hostile = json.dumps({"[bold]x[/nothing]": "\u009b31m \x7f"}, ensure_ascii=False)
    both = shown(inspect(request(hostile), "m", count), diff=True)
    assert "[bold]x[/nothing]" in both
    assert "\\x9b31m" in both
    assert "\x9b" not in both
    assert "\x7f" not in both


def test_lone_surrogates_are_counted_and_left_alone() -> None:
    view = inspect(request("[ 1 ]\ud800"), "m", count)
    assert view.bytes_before == view.bytes_after
    assert shown(view, diff=True)
