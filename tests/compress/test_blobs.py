"""Blobs are cut out where their marker can be followed; hashes, keys, words and paths never are."""

from __future__ import annotations

import base64
import json
import random
import textwrap

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.compress.blobs import cut_blobs, find_blobs
from farthing.compress.marker import TOOL, handles, marker
from tests.fakes.hostile_texts import BAD_TEXTS, any_text, texts_of
from tests.fakes.steps import steps

NOISE = random.Random(7).randbytes(3000)
PNG = b"\x89PNG\r\n\x1a\n" + NOISE
B64 = base64.b64encode(PNG).decode()
WRAPPED = "\n".join(textwrap.wrap(B64, 76))
PEM_WIDTH = "\r\n".join(textwrap.wrap(B64, 64))
SVG = "%3Csvg%20xmlns=%22http:%2F%2Fwww.w3.org%22%3E" * 40
JWT = ".".join(
    base64.urlsafe_b64encode(part).decode().rstrip("=") for part in (b'{"alg":"RS256"}', b'{"a":' + NOISE, NOISE)
)

FOUND = [
    (B64, "base64", "PNG image in base64"),
    (WRAPPED, "base64", "PNG image in base64"),
    (PEM_WIDTH, "base64", "PNG image in base64"),
    (json.dumps(WRAPPED)[1:-1], "base64", "PNG image in base64"),
    (base64.urlsafe_b64encode(NOISE).decode(), "base64", "data in base64"),
    (NOISE.hex(), "hex", "data in hex"),
    (PNG.hex().upper(), "hex", "data in hex"),
    (f"data:image/png;base64,{B64}", "data url", "image/png as a data URL"),
    (f"data:;base64,{B64}", "data url", "PNG image as a data URL"),
    (f"data:image/svg+xml;charset=utf8,{SVG}", "data url", "image/svg+xml as a data URL"),
]
AROUND = [
    ("", ""),
    ('{"a": "x\\n', '\\nword"}'),
    ('{"a": "\\u00e9', '"}'),
    ("C:\\", ""),
    ('{"a": "', '", "b": 1}'),
    ("see ", " above"),
    ("![x](", ")\nmore"),
    ("line\n", "\nword\n"),
]


@pytest.mark.parametrize(("blob", "kind", "what"), FOUND)
@pytest.mark.parametrize(("before", "after"), AROUND)
def test_a_blob_is_found_whole(blob: str, kind: str, what: str, before: str, after: str) -> None:
    text = before + blob + after

    (piece,) = find_blobs(text)

    assert text[piece.start : piece.end] == blob
    assert (piece.kind, piece.what) == (kind, what)


def test_the_size_is_that_of_the_bytes() -> None:
    assert [find_blobs(text)[0].size_bytes for text in (B64, WRAPPED, NOISE.hex())] == [len(PNG), len(PNG), len(NOISE)]


HASHES = "\n".join(random.Random(i).randbytes(32).hex() for i in range(200))
LEFT = {
    "short": B64[:1000],
    "sha-256 in lines": HASHES,
    "sha-512": random.Random(1).randbytes(64).hex(),
    "ids": " ".join(random.Random(i).randbytes(16).hex() for i in range(300)),
    "token": f"Authorization: Bearer {JWT}",
    "one letter": "A" * 5000,
    "rule": "-" * 5000,
    "sequence": "ACGTTGCA" * 700,
    "digits": "31415926535897932384" * 200,
    "words": "ThisIsAVeryLongIdentifier" * 100,
    "path": "/usr/lib/python/site-packages" * 100,
    "hex zeros": "0" * 4000 + "f",
    "base64 of a json object": base64.b64encode(b'{"a":' + NOISE).decode(),
    "lines of other widths": "\n".join(textwrap.wrap(B64, 57)),
}


@pytest.mark.parametrize("text", LEFT.values(), ids=LEFT)
def test_what_may_be_read_or_compared_is_left(text: str) -> None:
    assert find_blobs(text) == ()
    assert cut_blobs(text, lambda *_: "") is None


def test_what_is_cut_can_be_put_back_by_its_marker() -> None:
    text = f"a {B64} b\n{NOISE.hex()} c data:image/svg+xml,{SVG} d"
    kept: dict[str, str] = {}

    def keep(blob: str, _: str) -> str:
        handle = f"h{len(kept):07}"
        kept[handle] = blob
        return marker(handle, "data", 1)

    result = cut_blobs(text, keep)
    assert result is not None
    short, pieces = result

    assert len(pieces) == 3
    assert handles(short) == tuple(kept)
    for handle, blob in kept.items():
        short = short.replace(marker(handle, "data", 1), blob)
    assert short == text


def test_a_marker_that_is_longer_isnt_written() -> None:
    assert cut_blobs(B64, lambda blob, _: blob) is None


def test_a_marker_fits_into_a_json_string_and_names_the_tool() -> None:
    mark = marker("7f3a09c2", 'a "thing"\n[x]', 12)

    assert json.loads(f'"{mark}"') == mark
    assert mark == f"[a  thing   x , 12 tokens, left out: {TOOL} gives it, handle 7f3a09c2]"
    assert handles(f"{mark} and {marker('abcdef', 'x', 1)}{mark}") == ("7f3a09c2", "abcdef")


@pytest.mark.parametrize("handle", ["", "short", "UPPER123", "a" * 65, "with space", 'q"uote1'])
def test_a_handle_that_couldnt_be_read_back_is_refused(handle: str) -> None:
    with pytest.raises(ValueError, match="handle"):
        marker(handle, "x", 1)


@given(st.text(st.sampled_from("abcdefgh0123456789"), min_size=6, max_size=64), st.text(), st.integers(0, 10**9))
def test_every_marker_is_read_back(handle: str, what: str, tokens: int) -> None:
    mark = marker(handle, what, tokens)

    assert handles(mark) == (handle,)
    assert not set('"\\\n') & set(mark)


@pytest.mark.parametrize("text", BAD_TEXTS)
def test_bad_texts_do_no_harm(text: str) -> None:
    for piece in find_blobs(text):
        assert 0 <= piece.start < piece.end <= len(text)


@given(st.one_of(any_text(), texts_of(B64[:1200], NOISE.hex(), "data:", ";base64,", "\\n", "=", B64[:76] + "\n", JWT)))
def test_pieces_lie_in_order_and_what_is_between_stays(text: str) -> None:
    at, rest = 0, ""
    pieces = find_blobs(text)
    for piece in pieces:
        assert at <= piece.start < piece.end <= len(text)
        assert piece.end - piece.start >= 1024
        rest += text[at : piece.start] + "#"
        at = piece.end
    result = cut_blobs(text, lambda *_: "#")

    assert (result or (text, ())) == (rest + text[at:], pieces)


PATHOLOGICAL = {
    "heads": lambda n: "data:image/png;" * n,
    "heads in base64": lambda n: "data:image/png;base64," * n,
    "open heads": lambda n: "data:" + "a" * n + "data:a/" * n,
    "lines": lambda n: (B64[:76] + "\n") * n,
    "almost lines": lambda n: (B64[:76] + "\n" + B64[:75] + "\n") * n,
    "one run": lambda n: B64[:77] * n,
    "equals": lambda n: "=" * n + "A" * 55 + "=" * n,
}


@pytest.mark.parametrize("make", PATHOLOGICAL.values(), ids=PATHOLOGICAL)
def test_twice_the_text_is_at_most_little_more_than_twice_the_work(make: object) -> None:
    assert callable(make)
    small, large = make(1500), make(3000)

    assert steps(lambda: find_blobs(large)) <= 2.2 * steps(lambda: find_blobs(small)) + 2000
    find_blobs(make(60_000))
