"""JSON text by bytes: spans against a decoder, and white space removed without touching a value."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.jsontext import (
    element_spans,
    find,
    has_gaps,
    insert_member,
    loads_loosely,
    members,
    minify,
    splice,
    without,
)
from tests.fakes.examples import examples
from tests.fakes.json_texts import json_texts, spelled


@given(json_texts())
@settings(max_examples=examples(200), deadline=None)
def test_minify_keeps_every_value_and_every_spelling(text: str) -> None:
    short = minify(text)
    assert short is not None
    assert spelled(short) == spelled(text)
    assert tokens(short) == tokens(text)
    assert len(short) == sum(len(token) for token in tokens(short))  # nothing is left between the tokens
    assert minify(short) == short
    assert has_gaps(text) == (short != text)
    assert minify(text.encode()) == short.encode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "{",
        "[1, 2",
        '{"a": 1,}',
        "[1, 2,]",
        "[1 2]",
        '{"a" 1}',
        '{"a": 1, "a": 2}',
        '{"a": 1, "\\u0061": 2}',
        '[{"x": {"a": 1, "a": 1}}]',
        "[NaN]",
        "[Infinity, 1]",
        "[-Infinity]",
        "[01]",
        "[1.]",
        "[.5]",
        "[+1]",
        "[1e]",
        "[0x10]",
        "{'a': 1}",
        '["a\x1fb", 1]',
        '["a\nb"]',
        '["\x00"]',
        '["\\x41"]',
        '["\\ud83"]',
        "\ufeff[1, 2]",
        "\u00a0[1, 2]",
        "[1,\u00a02]",
        "[1,\x0c2]",
        "[1, 2] x",
        "[1, 2] [3]",
        "[1, 2] // why",
        '{"a": "b}',
        '["\ud800", 1]',
        "[ " * 201 + "]" * 201,
        '{"a": ' * 201 + "1" + "}" * 201,
        "[" * 100_000,
    ],
)
def test_what_is_not_one_plain_json_value_is_left_alone(text: str) -> None:
    assert minify(text) is None


@pytest.mark.parametrize(
    ("text", "short"),
    [
        (" 1 ", "1"),
        ("[ ]", "[]"),
        ('{ "a b" : " c  d " }', '{"a b":" c  d "}'),
        ("[1.0, 1, 1e400, -0, -0.0, 1E+2, 123456789012345678901234567890]", None),
        ('["\\ud800", "\\u0000", "\\/", "\\"", "é\\u00e9"]', None),
        ('{"a": "{ \\"b\\": 1 }"}\r\n', '{"a":"{ \\"b\\": 1 }"}'),
        ("\t[\r\n1\r]\n", "[1]"),
        ("[ " * 200 + "]" * 200, "[" * 200 + "]" * 200),
        ('["[[[[", ' + '"[",' * 300 + "1]", None),
        ('{"A": 1, "a": 2}', '{"A":1,"a":2}'),
    ],
)
def test_valid_texts_lose_only_their_gaps(text: str, short: str | None) -> None:
    assert minify(text) == (text.replace(", ", ",").replace(": ", ":") if short is None else short)


def test_bytes_that_are_not_utf_8_are_left_alone() -> None:
    assert minify(b'["\xff", 1]') is None
    assert minify(b'["\xed\xa0\x80", 1]') is None
    assert minify("[1, 2]".encode("utf-16")) is None


@given(json_texts(top="object"))
@settings(max_examples=examples(150), deadline=None)
def test_members_agree_with_a_decoder(text: str) -> None:
    raw = text.encode()
    found = {member.key: raw[member.start : member.end] for member in members(raw)}
    assert {key: spelled(value.decode()) for key, value in found.items()} == spelled(text)
    for member in members(raw):
        assert json.loads(raw[member.key_start : member.start].rstrip(b" \t\r\n:")) == member.key


@given(json_texts())
@settings(max_examples=examples(150), deadline=None)
def test_find_leads_to_every_value(text: str) -> None:
    raw = text.encode()
    for path, value in paths(spelled(text)):
        span = find(raw, path)
        assert span is not None
        assert spelled(raw[slice(*span)].decode()) == value
        assert raw[slice(*span)] == raw[slice(*span)].strip()


def test_find_gives_none_where_nothing_is() -> None:
    text = b'{"a": [1, {"b": 2}], "c": "d"}'
    for path in [("x",), ("a", 2), ("a", -1), ("a", "b"), ("c", 0), ("c", "d"), (0,), ("a", 1, "x")]:
        assert find(text, path) is None
    assert find(text, ()) == (0, len(text))
    assert find(b'{"a": 1, "a": 2}', ("a",)) == (14, 15)


def test_element_spans() -> None:
    text = b' [ 1 , "a]" , [ ] ,{"b":[2]}]'
    assert [text[a:b] for a, b in element_spans(text, (0, len(text)))] == [b"1", b'"a]"', b"[ ]", b'{"b":[2]}']
    assert element_spans(b"[ ]", (0, 3)) == []


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"[]",
        b"x",
        b"{",
        b'{"a"',
        b'{"a":',
        b'{"a":}',
        b'{"a":1',
        b'{"a":1 "b":2}',
        b'{"a":1,}',
        b'{,"a":1}',
        b"{a:1}",
        b'{"a":truee}',
        b'{"a":01}',
        b'{"a":[1}',
        b'{"a":[1}]}',
        b'{"a":"b\nc"}',
        b'{"a":["b]}',
        b'{"\xff":1}',
        b'\xef\xbb\xbf{"a":1}',
        b'{"a":' + b"[" * 201 + b"]" * 201 + b"}",
    ],
)
def test_a_malformed_object_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        list(members(text))


@pytest.mark.parametrize("text", [b"{}", b"[", b"[1", b"[1 2]", b"[,1]", b"[1,]", b"[x]"])
def test_a_malformed_array_is_refused(text: bytes) -> None:
    with pytest.raises(ValueError, match=r"."):
        element_spans(text, (0, len(text)))


@given(json_texts(top="object"), st.text(max_size=5))
@settings(max_examples=examples(100), deadline=None)
def test_an_inserted_member_comes_first_and_nothing_else_changes(text: str, name: str) -> None:
    key = "new" + name.encode("utf-8", "replace").decode()
    raw = text.encode()
    longer = insert_member(raw, key, b'{"x":1.0}')
    assert [*spelled(longer.decode()).items()] == [(key, {"x": ("1.0",)}), *spelled(text).items()]
    brace = raw.index(b"{") + 1
    assert longer.startswith(raw[:brace])
    assert longer.endswith(raw[brace:])


def test_only_an_object_takes_members() -> None:
    for text in (b"[]", b"", b"1"):
        with pytest.raises(ValueError, match="not an object"):
            insert_member(text, "a", b"1")


@given(st.binary(max_size=40), st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40), st.binary(max_size=4))))
def test_splice_replaces_spans_and_keeps_the_rest(text: bytes, edits: list[tuple[int, int, bytes]]) -> None:
    ordered = sorted(edits, key=lambda edit: edit[:2])
    sound = all(start <= end <= len(text) for start, end, _ in ordered) and all(
        left[1] <= right[0] for left, right in pairwise(ordered)
    )
    if not sound:
        with pytest.raises(ValueError, match="overlaps"):
            splice(text, edits)
        return
    expected = text
    for start, end, new in reversed(ordered):
        expected = expected[:start] + new + expected[end:]
    assert splice(text, edits) == expected


@pytest.mark.parametrize(
    "text",
    [
        '"' + "\\" * 200_000,
        '["' + '\\"' * 100_000,
        " " * 200_000 + "x",
        "[" + '"a" ' * 50_000,
        '{"a":' * 40_000,
        "-" * 200_000,
        "1" * 4_000 + "." * 100_000,
    ],
)
def test_hostile_texts_take_linear_time(text: str) -> None:
    begun = time.process_time()
    assert minify(text) is None
    with pytest.raises(ValueError, match=r"."):
        list(members(b'{"x":' + text.encode()))
    assert time.process_time() - begun < 0.5  # a quadratic scan of 200 KB takes minutes


def tokens(text: str) -> list[str]:
    """JSON tokens by the standard library's scanner, character by character; independent of the patterns tested."""
    found, at = [], 0
    while at < len(text):
        if text[at] in " \t\r\n":
            at += 1
        elif text[at] in "[]{}:,":
            found.append(text[at])
            at += 1
        else:
            _, end = json.JSONDecoder(parse_int=str, parse_float=str).raw_decode(text, at)
            found.append(text[at:end])
            at = end
    return found


def paths(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    """Every value inside `value` with the path to it."""
    yield path, value
    if isinstance(value, dict):
        for key, item in value.items():
            yield from paths(item, (*path, key))
    elif isinstance(value, list):
        for i, item in enumerate(value):
            yield from paths(item, (*path, i))


@given(
    st.dictionaries(st.sampled_from('abcdé"\\'), json_texts(), max_size=6),
    st.sets(st.sampled_from('abcdé"\\x')),
    st.data(),
)
@settings(max_examples=examples(200), deadline=None)
def test_without_takes_members_out_and_nothing_else(
    given_: dict[str, str], keys: set[str], data: st.DataObject
) -> None:
    gap = st.sampled_from(["", " ", "\n\t"])
    inner = f",{data.draw(gap)}".join(
        f"{json.dumps(key)}{data.draw(gap)}:{data.draw(gap)}{value}" for key, value in given_.items()
    )
    text = f"{data.draw(gap)}{{{data.draw(gap)}{inner}{data.draw(gap)}}}".encode()

    left = without(text, keys)

    kept = {key: value for key, value in given_.items() if key not in keys}
    assert {m.key: left[m.start : m.end] for m in members(left)} == {k: v.strip().encode() for k, v in kept.items()}
    assert without(left, keys) == left
    if kept == given_:
        assert left == text


@pytest.mark.parametrize(
    ("text", "value"),
    [
        (b'{"a":NaN}', True),
        (b'\xef\xbb\xbf{"a":1}', True),
        (b'{"a":"\xff"}', True),
        (b"[NaN]", False),
        (b"{", False),
        (b"<html>", False),
        (b"", False),
        (b'{"a":' * 5000, False),
        (b'{"a":' + b"9" * 5000 + b"}", False),
    ],
)
def test_what_is_almost_json_is_read_loosely(text: bytes, value: bool) -> None:
    assert (loads_loosely(text) is not None) == value
