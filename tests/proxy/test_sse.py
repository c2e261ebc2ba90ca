"""The SSE splitter makes no assumption on chunk borders, and never loses or invents a byte."""

from __future__ import annotations

import itertools
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.sse import Splitter, blocks, ends_stream, events

LINES = st.lists(
    st.sampled_from([b"data: a", b"data:b", b": comment", b"event: x", b"data", b"id: 1", b'data: {"k":"\\n"}', b""]),
    max_size=12,
)
ENDS = st.sampled_from([b"\n", b"\r\n", b"\r"])


@st.composite
def streams(draw: st.DrawFn) -> bytes:
    end = draw(ENDS)
    return end.join(draw(LINES)) + draw(st.sampled_from([b"", end, end + end]))


def cut(text: bytes, borders: list[int]) -> list[bytes]:
    places = sorted({min(border, len(text)) for border in borders} | {0, len(text)})
    return [text[a:b] for a, b in itertools.pairwise(places)]


@given(streams(), st.lists(st.integers(0, 120), max_size=8))
def test_splitting_keeps_every_byte_wherever_the_borders_fall(text: bytes, borders: list[int]) -> None:
    splitter = Splitter(10_000)
    pieces = [piece for chunk in cut(text, borders) for piece in splitter.feed(chunk)]

    assert b"".join([*pieces, splitter.rest()]) == text


@given(streams(), st.lists(st.integers(0, 120), max_size=8))
def test_events_are_the_same_wherever_the_borders_fall(text: bytes, borders: list[int]) -> None:
    splitter = Splitter(10_000)
    pieces = [piece for chunk in cut(text, borders) for piece in splitter.feed(chunk)]
    pieces.append(splitter.rest())
    found = [(event.name, event.data) for piece in pieces for event in events(piece)]

    assert found == [(event.name, event.data) for event in events(text)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"data: a\n\n", [("", b"a")]),
        (b"data: a\r\n\r\ndata: b\r\n\r\n", [("", b"a"), ("", b"b")]),
        (b"data: a\rdata: b\r\r", [("", b"a\nb")]),
        (b": ping\n\n", []),
        (b"event: done\ndata: {}\n\n", [("done", b"{}")]),
        (b"data:  two spaces\n\n", [("", b" two spaces")]),
        (b"data: no blank line", [("", b"no blank line")]),
        (b"", []),
    ],
)
def test_what_the_standard_says(text: bytes, expected: list[tuple[str, bytes]]) -> None:
    assert [(event.name, event.data) for event in events(text)] == expected


def test_spans_point_at_the_bytes() -> None:
    text = b": x\n\ndata: a\n\nevent: e\ndata: b\n\n"

    assert [text[event.start : event.end] for event in events(text)] == [b"data: a\n\n", b"event: e\ndata: b\n\n"]


def test_an_oversized_event_is_passed_on_uncut_and_the_splitter_stops_cutting() -> None:
    splitter = Splitter(100)

    assert splitter.feed(b"data: " + b"x" * 200) == [b"data: " + b"x" * 200]
    assert splitter.overflown
    assert splitter.feed(b"more\n\nand more") == [b"more\n\nand more"]
    assert splitter.rest() == b""


@given(st.lists(st.sampled_from([b"a", b"\n", b"\n\n", b"data: x"]), max_size=20))
def test_what_has_no_carriage_return_is_cut_where_the_pattern_for_all_line_ends_cuts_it(parts: list[bytes]) -> None:
    data = b"".join(parts)
    ends = [match.end() for match in re.finditer(rb"\r\n\r\n|\r\n\n|\r\n\r|\n\n|\n\r\n|\n\r|\r\r\n|\r\r", data)]

    assert [end for _, end in blocks(data)] == ends + [len(data)] * (ends[-1:] != [len(data)] and bool(data))


@pytest.mark.parametrize(
    ("piece", "ends"),
    [
        (b"data: [DONE]\n\n", True),
        (b"data:[DONE]\r\n\r\n", True),
        (b'data: {"a":1}\n\ndata: [DONE]\n\n', True),
        (b"data: [DONE]\n", False),
        (b'data: [DONE]\n\ndata: {"a":1}\n\n', False),
        (b'data: {"choices":[{"delta":{"content":"data: [DONE]"}}]}\n\n', False),
        (b'event: message_stop\ndata: {"type":"message_stop"}\n\n', True),
        (b'event: content_block_delta\ndata: {"type":"content_block_delta","text":"message_stop"}\n\n', False),
        (b'event: response.completed\ndata: {"type":"response.completed","response":{}}\n\n', True),
        (b'event: response.failed\ndata: {"type":"response.failed","response":{}}\n\n', True),
        (b'data: {"type":"response.completed"\n\n', False),
        (b": a comment\n\n", False),
        (b"", False),
    ],
)
def test_after_which_event_none_comes(piece: bytes, ends: bool) -> None:
    assert ends_stream(piece) is ends
