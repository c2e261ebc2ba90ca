"""Marks are inserted: the rest of the body stays, byte for byte, and what it says stays the same."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.adapt_shared import Refused
from farthing.proxy.adapt_to_messages import request_to_messages
from farthing.proxy.prompt_spots import inserted, own_marks, spots_of
from farthing.proxy.prompt_tools import in_first_order
from tests.fakes.two_apis import CALM, chat_requests

MARK = b'{"type":"ephemeral"}'
ADDED = (b'"cache_control":' + MARK + b",", b',"cache_control":' + MARK + b"}]", b'[{"type":"text","text":')


def unmarked(value: Any) -> Any:
    """Without marks, and with one-text lists as texts."""
    if isinstance(value, list):
        return [unmarked(one) for one in value]
    if not isinstance(value, dict):
        return value
    bare = {name: unmarked(one) for name, one in value.items() if name != "cache_control"}
    for name in ("content", "system"):
        if isinstance(bare.get(name), list) and len(bare[name]) == 1 and set(bare[name][0]) == {"type", "text"}:
            bare[name] = bare[name][0]["text"]
    return bare


@CALM
@given(chat_requests(), st.data(), st.sampled_from([None, 2]))
def test_without_what_was_added_the_body_is_what_it_was(asked: Any, data: st.DataObject, indent: int | None) -> None:
    try:
        body = json.dumps(json.loads(request_to_messages(json.dumps(asked).encode())), indent=indent).encode()
    except Refused:
        return
    payload = json.loads(body)
    spots = spots_of("messages", payload, "cache_control", ())
    free = [spot for spot in spots.spots if spot.own is None]
    chosen = data.draw(st.lists(st.sampled_from(free), unique=True, max_size=4)) if free else []
    marked = inserted(body, [(spot, MARK) for spot in chosen], "cache_control")
    assert len(_pieces(body, marked)) >= len(chosen)
    assert unmarked(json.loads(marked)) == unmarked(payload)
    assert own_marks(json.loads(marked), "cache_control") == own_marks(payload, "cache_control") + len(chosen)
    again = spots_of("messages", json.loads(marked), "cache_control", ())
    keys = {spot.key for spot in again.spots}
    assert {spot.key for spot in spots.spots} <= keys  # the prefixes are the same ones


def _pieces(body: bytes, marked: bytes) -> list[bytes]:
    """What was inserted: `marked` read against `body`, of which every byte must be there, in order."""
    found, at = [], 0
    place = 0
    while place < len(marked):
        added = next((one for one in ADDED if marked.startswith(one, place) and not body.startswith(one, at)), None)
        if added is not None:
            found.append(added)
            place += len(added)
            continue
        assert marked[place] == body[at]
        place, at = place + 1, at + 1
    assert at == len(body)
    return found


def test_the_client_marks_wherever_they_stand_are_counted() -> None:
    mark = {"cache_control": {"type": "ephemeral"}}
    payload: dict[str, Any] = {
        "tools": [{"name": "a"} | mark],
        "system": [{"type": "text", "text": "s"} | mark],
        "messages": [
            {"role": "user", "content": [{"type": "tool_result", "content": [{"type": "text", "text": "x"} | mark]}]}
        ],
    }
    assert own_marks(payload, "cache_control") == 3
    spots = spots_of("messages", payload, "cache_control", ())
    assert [spot.own is not None for spot in spots.spots] == [True, True, False]


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ("hello", ("messages", 0, "content")),
        ("", None),
        ([{"type": "text", "text": "a"}, {"type": "thinking", "thinking": "b"}], ("messages", 0, "content", 0)),
        ([{"type": "text", "text": ""}], None),
        ([{"type": "thinking", "thinking": "b"}], None),
    ],
)
def test_where_a_mark_may_stand(content: Any, path: Any) -> None:
    spots = spots_of("messages", {"messages": [{"role": "user", "content": content}]}, "cache_control", ())
    assert [spot.path for spot in spots.spots] == ([] if path is None else [path])


def test_tools_come_in_the_order_that_was_seen_first() -> None:
    orders: OrderedDict[int, tuple[int, ...]] = OrderedDict()
    first = b'{"tools": [{"name":"b"}, {"name": "a"} ],"x":1.0}'
    other = b'{"x":1.0, "tools":[{"name": "a"},{"name":"b"}]}'
    third = b'{"tools":[{"name":"a"},{"name":"b"},{"name":"c"}]}'
    assert in_first_order(first, json.loads(first), "s", orders) == first
    assert in_first_order(other, json.loads(other), "s", orders) == b'{"x":1.0, "tools":[{"name":"b"},{"name": "a"}]}'
    assert in_first_order(third, json.loads(third), "s", orders) == third
    assert in_first_order(other, json.loads(other), "other scope", orders) == other


BREAKPOINT = b'{"mode":"explicit"}'
BLOCK = {"type": "input_text", "text": "hello"}
CALL = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}


@pytest.mark.parametrize(
    ("asked", "paths"),
    [
        ({"input": "hello"}, [("input",)]),
        ({"input": [{"role": "user", "content": "hello"}]}, [("input", 0, "content")]),
        ({"input": [{"type": "message", "role": "user", "content": "hello"}]}, [("input", 0, "content")]),
        ({"input": [{"role": "user", "content": [BLOCK]}]}, [("input", 0, "content", 0)]),
        ({"instructions": "be brief", "input": "hello"}, [(), ("input",)]),
        ({"tools": [{"type": "function", "name": "f"}], "input": "hello"}, [(), ("input",)]),
        ({"input": [{"role": "user", "content": "a"}, CALL]}, [("input", 0, "content"), ()]),
        ({"input": [{"role": "assistant", "content": [{"type": "output_text", "text": "a"}]}]}, [()]),
        ({"input": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]}, [()]),
        ({"input": "hello", "previous_response_id": "resp_1"}, []),
        ({"input": [{"type": "item_reference", "id": "msg_1"}, {"role": "user", "content": "hello"}]}, []),
    ],
)  # fmt: skip
def test_where_a_response_may_be_marked(asked: dict[str, Any], paths: list[Any]) -> None:
    """Where there is no path the provider may keep it, and no mark may stand."""
    spots = spots_of("responses", asked, "prompt_cache_breakpoint", ()).spots
    assert [spot.path for spot in spots] == paths
    assert [spot.markable for spot in spots] == [bool(path) for path in paths]
    for spot in spots:
        if not spot.markable:
            with pytest.raises(ValueError, match="isn't there"):
                inserted(json.dumps(asked).encode(), [(spot, BREAKPOINT)], "prompt_cache_breakpoint")


def test_however_a_response_says_one_text_it_is_the_same_prefix_and_marked_alike() -> None:
    ways: list[Any] = [
        "hello",
        [{"role": "user", "content": "hello"}],
        [{"role": "user", "content": [BLOCK]}],
        [{"role": "user", "content": [BLOCK], "type": "message"}],
    ]
    found = [spots_of("responses", {"input": way}, "prompt_cache_breakpoint", ()).spots for way in ways]
    assert len({spots[0].key for spots in found}) == 1
    for way, spots in zip(ways, found, strict=True):
        body = json.dumps({"input": way}).encode()
        marked = json.loads(inserted(body, [(spots[0], BREAKPOINT)], "prompt_cache_breakpoint"))
        [item] = marked["input"]
        assert item["role"] == "user"
        assert item["content"] == [BLOCK | {"prompt_cache_breakpoint": {"mode": "explicit"}}]
        again = spots_of("responses", marked, "prompt_cache_breakpoint", ()).spots
        assert [spot.key for spot in again] == [spot.key for spot in spots]
        assert own_marks(marked, "prompt_cache_breakpoint") == 1
