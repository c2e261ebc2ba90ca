"""Calls of the retrieval tool: found, answered, taken out of answers and streams; and what names what was left out."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.forms import Form, shorten
from farthing.compress.marker import TOOL, handles, intact, marker
from farthing.compress.offer import unfit_for_tool, with_tool
from farthing.compress.removed import Handles, named_pieces
from farthing.compress.retrieval import Asked, Spoken, Wanted, continued, part, read_answer, shown, summed, wanted
from farthing.compress.retrieval_stream import stream_of
from tests.fakes.hostile_texts import any_text

NAMES = Handles(b"s" * 32, "tenant")
BLOB = base64.b64encode(random.Random(1).randbytes(3000)).decode()


def words(text: str) -> int:
    return len(text) // 4 + 1


def own(handle: str = "h", **more: Any) -> dict[str, Any]:
    return {"id": "o1", "type": "function", "function": {"name": TOOL, "arguments": f'{{"handle":"{handle}"}}'}} | more


THEIRS = {"id": "t1", "type": "function", "function": {"name": "weather", "arguments": "{}"}}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ('{"handle":"abc"}', Wanted("abc")),
        ({"handle": " abc ", "from_char": 7}, Wanted("abc", 7)),
        ({"handle": "abc", "from_char": -1}, Wanted("abc")),
        ({"handle": "abc", "from_char": True}, Wanted("abc")),
    ],
)
def test_what_a_call_asks_for(given: Any, expected: Wanted) -> None:
    assert wanted(Asked("x", given)) == expected


@pytest.mark.parametrize("given", ["", "{", "[]", None, {}, {"handle": 3}, '{"handle":null}'])
def test_a_call_that_can_not_be_understood_is_told_so(given: Any) -> None:
    assert wanted(Asked("x", given)).refusal


def test_a_long_piece_is_given_in_parts() -> None:
    piece = "".join(map(str, range(500)))
    read, at = "", 0
    while at < len(piece):
        told = part(piece, at, 400)
        read += told.partition("\n[")[0]
        at = len(read)
    assert read == piece
    assert part("abc", 0, 10) == "abc"
    assert part("abc", 9, 10) == "\n[characters 3 to 3 of 3]"


def test_an_answer_with_both_kinds_of_calls_loses_ours_alone() -> None:
    message = {"role": "assistant", "content": None, "tool_calls": [own(), THEIRS]}
    value = {"choices": [{"index": 0, "message": message, "finish_reason": "tool_calls"}], "usage": {"a": 1}}
    spoken = read_answer("chat", value)
    assert spoken is not None
    assert spoken.others
    assert shown("chat", value, None)["choices"][0]["message"]["tool_calls"] == [THEIRS]
    assert shown("chat", value, {"a": 3})["usage"] == {"a": 3}


def test_usages_are_added_member_by_member() -> None:
    one = {"prompt_tokens": 3, "details": {"cached": 1}, "tier": "a", "flag": True, "none": None}
    two = {"prompt_tokens": 4, "details": {"cached": 2}, "tier": "b", "flag": True, "none": 2}
    assert summed([one, two]) == {"prompt_tokens": 7, "details": {"cached": 3}, "tier": "b", "flag": True, "none": 2}
    assert summed([]) is None


def test_the_conversation_goes_on_behind_its_last_turn_and_no_byte_before_changes() -> None:
    body = b'{ "messages":[ {"role":"user","content":"x"} ] ,"model":"m"}'
    spoken = Spoken({"role": "assistant", "content": None, "tool_calls": [own()]}, (Asked("o1", "{}"),))
    longer = continued("chat", body, spoken, ["\ud800 piece"])
    assert longer.startswith(body[: body.index(b" ]")])
    assert longer.endswith(b',"model":"m"}')
    assert [turn["role"] for turn in json.loads(longer)["messages"]] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("tools", [None, "absent", [], [{"type": "function", "function": {"name": "a"}}]])
@pytest.mark.parametrize("endpoint", ["chat", "messages"])
def test_the_tool_stands_behind_the_clients_own(tools: Any, endpoint: str) -> None:
    payload: dict[str, Any] = {"messages": [{"role": "user", "content": "x"}]} | (
        {} if tools == "absent" else {"tools": tools}
    )
    assert unfit_for_tool(endpoint, payload) == ""
    made = json.loads(with_tool(endpoint, json.dumps(payload).encode()))
    before = tools if isinstance(tools, list) else []
    assert made["tools"][:-1] == before
    assert made | {"tools": None} == payload | {"tools": None}
    assert unfit_for_tool(endpoint, made)


@pytest.mark.parametrize(
    ("endpoint", "more"),
    [
        ("responses", {}),
        ("chat", {"n": 2}),
        ("chat", {"tool_choice": "none"}),
        ("chat", {"tool_choice": {"type": "function", "function": {"name": "a"}}}),
        ("chat", {"tools": "x"}),
        ("chat", {"functions": []}),
        ("chat", {"response_format": {"type": "json_schema"}}),
        ("messages", {"tool_choice": {"type": "any"}}),
        ("messages", {"thinking": {"type": "enabled", "budget_tokens": 9}}),
    ],
)
def test_requests_that_can_not_have_it(endpoint: str, more: dict[str, Any]) -> None:
    assert unfit_for_tool(endpoint, {"messages": []} | more)


def chat_stream(*deltas: dict[str, Any], finish: str = "tool_calls") -> list[bytes]:
    base = {"id": "a", "object": "chat.completion.chunk", "created": 1}
    made = [base | {"choices": [{"index": 0, "delta": delta, "finish_reason": None}]} for delta in deltas]
    made.append(base | {"choices": [{"index": 0, "delta": {}, "finish_reason": finish}]})
    return [b"data: " + json.dumps(one).encode() + b"\n\n" for one in made] + [b"data: [DONE]\n\n"]


def calls_of(pieces: list[bytes]) -> list[dict[str, Any]]:
    values = [json.loads(piece[6:]) for piece in pieces if piece != b"data: [DONE]\n\n"]
    return [call for value in values for call in value["choices"][0]["delta"].get("tool_calls") or ()]


def seen(pieces: list[bytes]) -> tuple[list[bytes], Spoken]:
    stream = stream_of("chat")
    out = [one.body for piece in pieces for one in stream.see(piece)]
    spoken = stream.spoken()
    return out + [one.body for one in stream.end(final=True)], spoken


def test_a_stream_without_our_calls_keeps_every_byte() -> None:
    pieces = chat_stream(
        {"role": "assistant", "content": ""}, {"content": "Hi"}, {"tool_calls": [{"index": 0} | THEIRS]}
    )
    assert b"".join(seen(pieces)[0]) == b"".join(pieces)


@pytest.mark.parametrize("order", ["ours first", "theirs first", "one index", "names late"])
def test_of_a_stream_with_both_only_theirs_is_seen(order: str) -> None:
    first, second = (own(), THEIRS) if order != "theirs first" else (THEIRS, own())
    parts = [{"index": 0} | first, {"index": 0 if order == "one index" else 1} | second]
    if order == "names late":
        parts = [
            {"index": i, **cut}
            for i, one in enumerate((first, second))
            for cut in ({"id": one["id"]}, {"function": one["function"]})
        ]
    out, spoken = seen(chat_stream({"role": "assistant", "content": None}, *({"tool_calls": [one]} for one in parts)))
    calls = calls_of(out)
    assert TOOL not in b"".join(out).decode()
    assert {call["index"] for call in calls} == {0}
    assert "".join(call.get("function", {}).get("name", "") for call in calls) == "weather"
    assert spoken.others
    assert [asked.given for asked in spoken.asked] == ['{"handle":"h"}']


def test_a_marker_that_recoding_takes_apart_is_not_used() -> None:
    blobs = [base64.b64encode(random.Random(i).randbytes(1200)).decode() for i in range(6)]
    text = json.dumps([{"name": f"file-{i}", "kind": "scan", "data": blob} for i, blob in enumerate(blobs)])
    short = shorten(text, "", Form("recode"), words, names=NAMES)
    assert short is not None
    assert "blobs" in short.rules
    assert intact(short.text)
    pieces = named_pieces(text, short.text, NAMES)
    assert pieces is not None
    assert set(pieces.values()) == set(blobs)


def test_markers_of_the_clients_own_are_none_of_ours() -> None:
    text = marker("a" * 16, "data", 3)
    assert named_pieces(text, text, NAMES) == {}
    assert named_pieces("x", text, NAMES) is None


@given(
    st.lists(any_text() | st.just(BLOB) | st.just(marker("b" * 16, "x", 1)), max_size=4).map("\n".join),
    st.sampled_from([None, 0.5]),
)
def test_every_marker_that_is_written_names_a_piece(text: str, keep: float | None) -> None:
    short = shorten(text, "what is x?", Form("f", keep=keep), words, names=NAMES)
    if short is None:
        return
    pieces = named_pieces(text, short.text, NAMES)
    assert pieces is not None
    assert set(handles(short.text)) - set(handles(text)) == pieces.keys()
    assert short.tokens_after < short.tokens_before
