"""Only what programs wrote may be touched; whatever a hostile request looks like, nothing else ever is."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.places import Marks, Place, places
from farthing.compress.rewrite import rewrite

DOCUMENT = {"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "doc"}}
SEARCH = {"type": "search_result", "source": "s", "title": "t", "content": [{"type": "text", "text": "found"}]}
CITED = {"citations": {"enabled": True}}
MARKS = (Marks("<d>", "</d>", ("user", "system")),)


def texts(endpoint: str, payload: dict[str, Any], marks: tuple[Marks, ...] = ()) -> list[tuple[str, str]]:
    return [(place.kind, place.text) for place in places(endpoint, payload, marks)]


def said(content: Any, role: str = "user") -> dict[str, Any]:
    return {"messages": [{"role": role, "content": content}]}


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ([DOCUMENT], ["doc"]),
        ([SEARCH], ["found"]),
        ([SEARCH | {"citations": {"enabled": False}}], ["found"]),
        ([SEARCH | CITED], []),
        ([DOCUMENT | CITED], []),
        ([DOCUMENT | {"citations": True}], []),
        ([{"type": "tool_result", "content": [SEARCH, {"type": "text", "text": "own"}]}], ["own", "found"]),
        ([{"type": "document", "source": {"type": "base64", "data": "JVBERi0"}}], []),
        ([{"type": "text", "text": "said"}], []),
        ([{"type": "thinking", "thinking": "t", "signature": "s"}], []),
    ],
)
def test_what_anthropics_api_marks_as_retrieved_is_a_place_unless_it_is_cited(content: Any, found: list[str]) -> None:
    assert [text for _, text in texts("messages", said(content))] == found
    assert texts("messages", said(content, "assistant")) == []


@pytest.mark.parametrize(
    ("content", "found"),
    [
        ("a <d>one</d> b <d>two</d> c", ["one", "two"]),
        ("a <d>open", []),
        ("</d> a <d>one</d>", ["one"]),
        ("<d></d>", []),
        ("<d>a <d>b</d> c</d>", ["a <d>b"]),
        ([{"type": "text", "text": "x <d>one</d>"}, {"type": "image_url", "text": "<d>no</d>"}], ["one"]),
    ],
)
def test_what_stands_between_the_operators_marks_is_a_place(content: Any, found: list[str]) -> None:
    for role in ("user", "system"):
        assert texts("chat", said(content, role), MARKS) == [("retrieval", text) for text in found]
    assert texts("chat", said(content, "assistant"), MARKS) == []
    assert texts("chat", said(content)) == []


def test_of_places_that_overlap_the_first_is_taken() -> None:
    nested = (Marks("<a>", "</a>"), Marks("<b>", "</b>"))
    for text, found in (
        ("<a>x <b>y</b> z</a> <b>w</b>", ["x <b>y</b> z", "w"]),
        ("<a>x <b>y</a> z</b>", ["x <b>y"]),
        ("<b>x</b><a>y</a>", ["x", "y"]),
    ):
        payload = said(text)
        assert texts("chat", payload, nested) == [("retrieval", one) for one in found]
        here = list(places("chat", payload, nested))
        assert rewrite(json.dumps(payload).encode(), payload, dict.fromkeys(here, "new")).texts == len(found)


def test_marks_never_make_a_place_of_what_an_assistant_said() -> None:
    greedy = (Marks("<d>", "</d>", ("assistant", "user")),)
    assert texts("chat", said("<d>mine</d>", "assistant"), greedy) == []


def test_outputs_of_the_responses_api() -> None:
    payload = {
        "input": [
            {"type": "function_call_output", "call_id": "c", "output": "one"},
            {"type": "custom_tool_call_output", "call_id": "c", "output": [{"type": "input_text", "text": "two"}]},
            {"type": "function_call", "arguments": "three"},
            {"type": "reasoning", "encrypted_content": "four", "summary": [{"type": "text", "text": "five"}]},
        ]
    }
    assert texts("responses", payload) == [("tool", "one"), ("tool", "two")]


WORDS = st.sampled_from(["<d>", "</d>", "x", '{"a": 1}', "\ud800", "é", " ", "\n", '"', "\\"])
SAID = st.lists(WORDS, max_size=8).map("".join)
SCALARS = st.one_of(SAID, st.none(), st.booleans(), st.integers(-3, 10**20), st.floats(allow_nan=False))
NAMES = st.sampled_from(
    [
        "role",
        "content",
        "type",
        "text",
        "tool_calls",
        "output",
        "source",
        "data",
        "citations",
        "enabled",
        "cache_control",
    ]
)
VALUES = st.sampled_from(
    ["user", "tool", "assistant", "system", "tool_result", "text", "document", "search_result", "function_call_output"]
)
HOSTILE = st.recursive(
    st.one_of(SCALARS, VALUES),
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(NAMES, inner)),
    max_leaves=25,
)


@given(st.sampled_from(["chat", "messages", "responses", "embeddings", "other"]), st.lists(HOSTILE, max_size=5))
def test_of_a_hostile_request_only_places_change_and_nothing_else(endpoint: str, turns: list[Any]) -> None:
    payload = {"messages": turns, "input": turns, "tools": turns, "system": turns}
    body = json.dumps(payload).encode()
    payload = json.loads(body)
    found = [place for place in places(endpoint, payload, MARKS) if not place.frozen]
    changed = rewrite(body, payload, dict.fromkeys(found, "NEW"))
    if changed.texts == 0:  # places overlap, or there are none
        assert changed.body is body
        return
    expected = copy.deepcopy(payload)
    for path in {place.path for place in found}:
        _put(expected, path, [place for place in found if place.path == path])
    assert json.loads(changed.body) == expected
    assert all(_by_program(payload, place) for place in found)


def _put(payload: Any, path: tuple[str | int, ...], found: list[Place]) -> None:
    for step in path[:-1]:
        payload = payload[step]
    text = payload[path[-1]]
    for place in sorted(found, key=lambda place: -place.start):
        text = text[: place.start] + "NEW" + text[place.end :]
    payload[path[-1]] = text


def _by_program(payload: Any, place: Place) -> bool:
    """A place stands in the conversation, and in no turn that the model wrote."""
    turn = payload[place.path[0]][place.turn]
    return place.path[0] in ("messages", "input") and turn.get("role") != "assistant"


def test_a_body_that_disagrees_with_its_payload_stays_as_it_is() -> None:
    payload = {"messages": [{"role": "tool", "content": "one"}]}
    (place,) = places("chat", payload)
    for body in (b'{"messages":[{"role":"tool","content":"two"}]}', b'{"messages":[]}', b"{}", b"no"):
        assert rewrite(body, payload, {place: "new"}).body is body


def test_the_other_bytes_keep_their_spelling() -> None:
    body = '{"messages" : [ {"role":"tool", "n":1.0, "content":"\\u00e9 é"} ], "temperature":1e0}'.encode()
    payload = json.loads(body)
    (place,) = places("chat", payload)
    assert rewrite(body, payload, {place: "ü"}).body == body.replace("\\u00e9 é".encode(), "ü".encode())
