"""Archives of answers: what goes in comes out, and nothing else is believed."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.cache.archive import ArchiveFault, Reader, Writer
from farthing.cache.codec import encode
from farthing.cache.entry import Entry

SECRET, OTHER = b"s" * 32, b"o" * 32


def entry(number: int = 0, body: bytes = b"{}", key: str = "") -> Entry:
    return Entry(
        key or f"{number:032x}", "t", "chat", "m", "m", "whole", "application/json", body, None, 1.0, 9e9, (("a", "b"),)
    )


def archive(*entries: Entry, secret: bytes = SECRET) -> list[bytes]:
    writer = Writer(secret)
    return [writer.head(5.0), *(writer.line(encode(one)) for one in entries), writer.foot()]


def read(lines: list[bytes], secret: bytes = SECRET) -> list[Entry]:
    reader = Reader(secret)
    found = [one for line in lines if (one := reader.take(line)) is not None]
    assert reader.end() == len(found)
    return found


@given(st.lists(st.binary(max_size=9000), max_size=5))
def test_what_goes_in_comes_out(bodies: list[bytes]) -> None:
    entries = [entry(number, body) for number, body in enumerate(bodies)]
    assert read(archive(*entries)) == entries


def test_lines_are_json_and_no_secret_is_in_them() -> None:
    lines = archive(entry())
    assert [sorted(json.loads(line)) for line in lines] == [
        ["kind", "made_s", "secret", "version"],
        ["entry"],
        ["entries", "mac"],
    ]
    assert SECRET.hex().encode() not in b"".join(lines)


@given(st.data())
def test_no_changed_byte_goes_unseen(data: st.DataObject) -> None:
    lines = archive(entry(1), entry(2, b"x" * 5000))
    whole = bytearray(b"".join(lines)[:-1])
    at = data.draw(st.integers(0, len(whole) - 1))
    whole[at] ^= data.draw(st.integers(1, 255))
    with pytest.raises(ArchiveFault):
        read(bytes(whole).splitlines(keepends=True))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda lines: lines[:-1], "cut off"),
        (lambda lines: [], "cut off"),
        (lambda lines: [lines[0], *lines[2:]], "changed or damaged"),
        (lambda lines: [lines[0], lines[2], lines[1], lines[3]], "changed or damaged"),
        (lambda lines: [*lines, lines[1]], "had ended before"),
        (lambda lines: lines[1:], "no archive of"),
        (lambda lines: [b"\x80\x04K\x01.", *lines], "not a JSON object"),
        (lambda lines: [lines[0].replace(b'"version":1', b'"version":2'), *lines[1:]], "version 2"),
    ],
)
def test_what_is_no_whole_archive_is_refused(change: object, said: str) -> None:
    assert callable(change)
    with pytest.raises(ArchiveFault, match=said):
        read(change(archive(entry(1), entry(2))))


def test_another_secret_is_told_from_damage() -> None:
    with pytest.raises(ArchiveFault, match="under another secret"):
        read(archive(entry()), OTHER)


@pytest.mark.parametrize(
    "key", ["../../etc/passwd", "a" * 31, "A" * 32, "a" * 32 + "./x", "a" * 32 + "}:*", "/abs", ""]
)
def test_a_key_that_is_none_is_refused_even_under_the_right_secret(key: str) -> None:
    writer = Writer(SECRET)
    raw = encode(entry()._replace(key=key))
    with pytest.raises(ArchiveFault, match="line 2: no stored answer"):
        read([writer.head(1.0), writer.line(raw), writer.foot()])


def test_an_entry_that_fails_its_own_checksum_is_refused() -> None:
    writer = Writer(SECRET)
    raw = bytearray(encode(entry()))
    raw[-1] ^= 1
    with pytest.raises(ArchiveFault, match="line 2"):
        read([writer.head(1.0), writer.line(bytes(raw)), writer.foot()])
    assert base64.b64decode(json.loads(writer.line(b"x"))["entry"]) == b"x"
