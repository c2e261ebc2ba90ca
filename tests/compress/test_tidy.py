"""Tidy: only tool results, only white space, never a byte before the client's cache breakpoint."""

from __future__ import annotations

import copy
import json
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.compress.places import places
from farthing.compress.tidy import tidy
from tests.fakes.examples import examples
from tests.fakes.json_texts import json_texts, spelled

LOOSE = '{ "a" : [ 1.0, 1 ],\n "b": "x  y" }'
TIGHT = '{"a":[1.0,1],"b":"x  y"}'
MARK = {"cache_control": {"type": "ephemeral"}}


def tidied(endpoint: str, payload: dict[str, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = json.loads(tidy(endpoint, payload, json.dumps(payload).encode()).body)
    return answer


def block(content: Any = LOOSE, **more: Any) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t", "content": content, **more}


CHANGED = [
    ("chat", {"messages": [{"role": "tool", "tool_call_id": "c", "content": LOOSE}]}),
    ("chat", {"messages": [{"role": "function", "name": "f", "content": LOOSE}]}),
    ("chat", {"messages": [{"role": "tool", "content": [{"type": "text", "text": LOOSE}]}]}),
    ("chat", {"messages": [None, 3, "x", {"role": "tool", "content": LOOSE}]}),
    ("responses", {"input": [{"type": "function_call_output", "call_id": "c", "output": LOOSE}]}),
    ("messages", {"messages": [{"role": "user", "content": [block()]}]}),
    ("messages", {"messages": [{"role": "user", "content": [block([{"type": "text", "text": LOOSE}])]}]}),
    ("messages", {"tools": [{"name": "t", **MARK}], "messages": [{"role": "user", "content": [block()]}]}),
    (
        "messages",
        {"system": [{"type": "text", "text": "s", **MARK}], "messages": [{"role": "user", "content": [block()]}]},
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": [{"type": "text", "text": "q", **MARK}, block()]}]},
    ),
    (
        "messages",
        {"messages": [{"role": "user", "content": [block("{}", **MARK)]}, {"role": "user", "content": [block()]}]},
    ),
]


@pytest.mark.parametrize(("endpoint", "payload"), CHANGED)
def test_a_tool_result_loses_its_white_space_and_nothing_else_changes(endpoint: str, payload: dict[str, Any]) -> None:
    after = tidied(endpoint, payload)
    assert after != payload
    assert json.loads(json.dumps(after).replace(json.dumps(TIGHT), json.dumps(LOOSE))) == payload


UNTOUCHED = [
    ("chat", {"messages": [{"role": "user", "content": LOOSE}]}),
    ("chat", {"messages": [{"role": "system", "content": LOOSE}, {"role": "developer", "content": LOOSE}]}),
    ("chat", {"messages": [{"role": "assistant", "content": LOOSE}]}),
    (
        "chat",
        {
            "messages": [
                {"role": "assistant", "tool_calls": [{"id": "c", "function": {"name": "f", "arguments": LOOSE}}]},
                {"role": "tool", "content": "plain"},
            ]
        },
    ),
    ("chat", {"messages": [{"role": "tool", "name": LOOSE, "content": "it said " + LOOSE}]}),
    ("chat", {"messages": [{"role": "tool", "content": f"```json\n{LOOSE}\n```"}]}),
    ("chat", {"messages": [{"role": "tool", "content": TIGHT}]}),
    ("chat", {"messages": [{"role": "tool", "content": ' "a  string" '}]}),
    ("chat", {"messages": [{"role": "tool", "content": " 12 "}]}),
    ("chat", {"messages": [{"role": "tool", "content": '{"a": 1, "a": 2}'}]}),
    ("chat", {"messages": [{"role": "tool", "content": '{"a": NaN}'}]}),
    ("chat", {"messages": [{"role": "tool", "content": "\ufeff" + LOOSE}]}),
    ("chat", {"messages": [{"role": "tool", "content": "\ud800" + LOOSE}]}),
    ("chat", {"messages": [{"role": "tool", "content": LOOSE + LOOSE}]}),
    ("chat", {"messages": [{"role": "tool", "content": None}, {"role": "tool"}, {"role": "tool", "content": 1}]}),
    ("chat", {"messages": [{"role": "tool", "content": [{"type": "image_url", "text": LOOSE}]}]}),
    ("chat", {"messages": LOOSE}),
    ("chat", {"input": [{"type": "function_call_output", "output": LOOSE}]}),
    ("chat", {"tools": [{"function": {"parameters": LOOSE}}], "messages": []}),
    ("responses", {"input": [{"type": "function_call", "arguments": LOOSE}, {"role": "user", "content": LOOSE}]}),
    ("responses", {"input": LOOSE}),
    ("messages", {"messages": [{"role": "assistant", "content": [block()]}]}),
    ("messages", {"messages": [{"role": "user", "content": [{"type": "text", "text": LOOSE}]}]}),
    ("messages", {"messages": [{"role": "user", "content": LOOSE}, {"role": "tool", "content": LOOSE}]}),
    ("messages", {"messages": [{"role": "user", "content": [block(**MARK)]}]}),
    ("messages", {**MARK, "messages": [{"role": "user", "content": [block()]}]}),
    ("messages", {"messages": [{"role": "user", "content": [block([{"type": "text", "text": LOOSE, **MARK}])]}]}),
    ("messages", {"messages": [{"role": "user", "content": [block(), {"type": "text", "text": "q", **MARK}]}]}),
    (
        "messages",
        {
            "messages": [
                {"role": "user", "content": [block()]},
                {"role": "assistant", "content": [{"type": "tool_use", "input": {}, **MARK}]},
            ]
        },
    ),
    ("chat", {"messages": [{"role": "tool", "content": LOOSE, **MARK}]}),
    ("chat", {"messages": [{"role": "tool", "content": [{"type": "text", "text": LOOSE, **MARK}]}]}),
    (
        "chat",
        {"messages": [{"role": "tool", "content": LOOSE}, {"role": "assistant", "tool_calls": [{"id": "c", **MARK}]}]},
    ),
    ("completions", {"prompt": LOOSE, "messages": [{"role": "tool", "content": LOOSE}]}),
    ("embeddings", {"input": [{"type": "function_call_output", "output": LOOSE}]}),
    ("other", {"messages": [{"role": "tool", "content": LOOSE}]}),
]


@pytest.mark.parametrize(("endpoint", "payload"), UNTOUCHED)
def test_everything_else_stays_byte_for_byte(endpoint: str, payload: dict[str, Any]) -> None:
    body = json.dumps(payload, indent=1).encode()
    found = tidy(endpoint, payload, body)
    assert found.body is body
    assert (found.edits, found.chars_saved, found.spans) == (0, 0, ())


@given(
    texts=st.lists(st.one_of(json_texts(), json_texts("container"), st.text(max_size=20)), min_size=1, max_size=4),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, 0, 2]),
    shape=st.sampled_from(["chat", "parts", "responses", "messages"]),
)
@settings(max_examples=examples(150), deadline=None)
def test_only_the_replaced_literals_differ_and_they_mean_the_same(
    texts: list[str], ascii_only: bool, indent: int | None, shape: str
) -> None:
    endpoint = "chat" if shape == "parts" else shape
    payload = conversation(shape, texts)
    body = json.dumps(payload, ensure_ascii=ascii_only, indent=indent).encode()
    kept = copy.deepcopy(payload)
    found = tidy(endpoint, payload, body)
    assert payload == kept
    after = json.loads(found.body)
    before_texts = [result.text for result in places(endpoint, payload)]
    after_texts = [result.text for result in places(endpoint, after)]
    for old, new in zip(before_texts, after_texts, strict=True):
        if old != new:
            assert spelled(old) == spelled(new)
    assert conversation(shape, after_texts) == after
    assert found.chars_saved == sum(map(len, before_texts)) - sum(map(len, after_texts))
    assert found.edits == sum(old != new for old, new in zip(before_texts, after_texts, strict=True))
    assert outside(found.body, tidy_spans(body, found.body, found.spans)) == outside(body, found.spans)
    again = tidy(endpoint, after, found.body)
    assert again.body is found.body


def test_a_container_is_always_tidied() -> None:
    """The property above can't pass by doing nothing."""
    found = tidy("chat", CHANGED[0][1], json.dumps(CHANGED[0][1]).encode())
    assert (found.edits, found.chars_saved) == (1, len(LOOSE) - len(TIGHT))


@given(texts=st.lists(json_texts("container"), min_size=2, max_size=5), shape=st.sampled_from(["chat", "messages"]))
@settings(max_examples=examples(60), deadline=None)
def test_a_growing_conversation_keeps_the_bytes_of_its_earlier_turns(texts: list[str], shape: str) -> None:
    bodies = []
    for n in range(1, len(texts) + 1):
        payload = conversation(shape, texts[:n])
        bodies.append(tidy(shape, payload, json.dumps(payload).encode()).body)
    for shorter, longer in pairwise(bodies):
        assert longer.startswith(shorter.removesuffix(b"]}"))


@pytest.mark.parametrize("raw", [True, False])
def test_characters_beyond_ascii_keep_their_way_of_writing(raw: bool) -> None:
    payload = {"messages": [{"role": "tool", "content": '{ "é": "😀" }'}]}
    body = json.dumps(payload, ensure_ascii=not raw).encode()
    expected = {"messages": [{"role": "tool", "content": '{"é":"😀"}'}]}
    assert tidy("chat", payload, body).body == json.dumps(expected, ensure_ascii=not raw).encode()


def test_a_body_that_disagrees_with_its_payload_is_left_alone() -> None:
    payload = {"messages": [{"role": "tool", "content": LOOSE}]}
    for other in (
        b'{"messages": []}',
        b"{}",
        b"[]",
        b"",
        b'{"messages": {"0": 1}}',
        json.dumps({"messages": [{"role": "tool", "content": LOOSE + " "}]}).encode(),
        json.dumps({"messages": [{"role": "tool", "content": 5}]}).encode(),
    ):
        assert tidy("chat", payload, other).body is other


def test_the_last_of_two_equal_keys_counts_as_it_does_in_the_decoder() -> None:
    body = b'{"messages": [], "messages": [{"role": "tool", "content": "no", "content": "[ 1 ]"}]}'
    assert tidy("chat", json.loads(body), body).body == body.replace(b"[ 1 ]", b"[1]")


def conversation(shape: str, texts: list[str]) -> dict[str, Any]:
    if shape == "responses":
        return {"model": "m", "input": [{"type": "function_call_output", "output": text} for text in texts]}
    if shape == "parts":
        turns = [{"role": "tool", "content": [{"type": "text", "text": text}]} for text in texts]
    elif shape == "messages":
        turns = [{"role": "user", "content": [block(text)]} for text in texts]
    else:
        turns = [{"role": "tool", "content": text} for text in texts]
    return {"model": "m", "messages": turns}


def outside(body: bytes, spans: tuple[tuple[int, int], ...]) -> list[bytes]:
    pieces, at = [], 0
    for start, end in sorted(spans):
        pieces.append(body[at:start])
        at = end
    return [*pieces, body[at:]]


def tidy_spans(body: bytes, after: bytes, spans: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    """Where the literals at `spans` of `body` ended up in `after`."""
    moved, shift = [], 0
    for start, end in sorted(spans):
        begin = start + shift
        _, length = json.JSONDecoder().raw_decode(after[begin:].decode())
        size = len(after[begin:].decode()[:length].encode())
        moved.append((begin, begin + size))
        shift += size - (end - start)
    return tuple(moved)
