"""An entry survives the trip as it was, or not at all."""

from __future__ import annotations

import hashlib
import math
import tracemalloc
import zlib
from typing import Any

import orjson
import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.cache.codec import Labels, decode, encode, peek
from farthing.cache.entry import Entry
from farthing.proxy.usage import EXTRAS, Usage, UsageSource
from tests.fakes.examples import examples

text = st.text(st.characters(), max_size=20)  # surrogates among them: raw header bytes come so
counts = st.integers(0, 2**70)
entries = st.builds(
    Entry,
    key=text,
    scope=text,
    endpoint=text,
    model_requested=text,
    model_served=text,
    shape=st.sampled_from(["whole", "stream"]),
    content_type=text,
    body=st.one_of(st.binary(max_size=200), st.binary(min_size=1, max_size=9).map(lambda part: part * 3000)),
    usage=st.one_of(
        st.none(),
        st.builds(
            Usage,
            fresh=counts,
            cached=counts,
            cache_write=counts,
            output=counts,
            reasoning=counts,
            source=st.sampled_from(UsageSource),
            **{name: st.just(0) | counts for name in EXTRAS},
            tier=st.sampled_from(["", "flex"]),
        ),
    ),
    stored_s=st.floats(0, 4e9),
    expires_s=st.floats(0, 4e9),
    tags=st.lists(st.tuples(text, text), max_size=3).map(tuple),
    namespace=text,
    tokens_saved=st.just(0) | st.integers(-(2**40), 2**40),
)

ENTRY = Entry(
    key="0" * 32,
    scope="tenant-a",
    endpoint="chat",
    model_requested="small",
    model_served="small-2026",
    shape="whole",
    content_type="application/json",
    body=b'{"choices":[]}' * 600,
    usage=Usage(fresh=3, cached=1, output=9),
    stored_s=1_800_000_000.25,
    expires_s=1_800_086_400.5,
    tags=(("team", "search"),),
    namespace="shop",
)


@settings(max_examples=examples(150), deadline=None)
@given(entries)
def test_comes_back_the_same(entry: Entry) -> None:
    assert decode(encode(entry)) == entry


@settings(max_examples=examples(300), deadline=None)
@given(entry=entries, where=st.floats(0, 1, exclude_max=True), flip=st.integers(1, 255))
def test_a_changed_byte_is_never_an_entry(entry: Entry, where: float, flip: int) -> None:
    raw = bytearray(encode(entry))
    raw[int(where * len(raw))] ^= flip
    assert decode(bytes(raw)) is None


def test_every_single_bit_of_one_entry_counts() -> None:
    raw = encode(ENTRY._replace(body=b"{}"))
    for at in range(len(raw)):
        for bit in range(8):
            assert decode(raw[:at] + bytes([raw[at] ^ (1 << bit)]) + raw[at + 1 :]) is None


@settings(max_examples=examples(100), deadline=None)
@given(entry=entries, cut=st.floats(0, 1, exclude_max=True), extra=st.binary(min_size=1, max_size=5))
def test_a_cut_or_longer_value_is_never_an_entry(entry: Entry, cut: float, extra: bytes) -> None:
    raw = encode(entry)
    assert decode(raw[: int(cut * len(raw))]) is None
    assert decode(raw + extra) is None


@given(st.binary(max_size=400))
def test_foreign_bytes_are_never_an_entry(raw: bytes) -> None:
    assert decode(raw) is None
    assert decode(b"FTH\x01" + raw) is None
    assert peek(raw) is None
    peek(b"FTH\x01" + raw)  # must not raise


def forged(header: object, body: bytes = b"", version: bytes = b"\x01") -> bytes:
    """A value whose checksum is right and whose header may be anything."""
    packed = orjson.dumps(header)
    rest = len(packed).to_bytes(4, "big") + packed + body
    return b"FTH" + version + hashlib.blake2b(b"FTH" + version + rest, digest_size=16).digest() + rest


GOOD = ["k", "s", "m", "m", "chat", "whole", "t", 1.0, 2.0, None, []]


@pytest.mark.parametrize(
    ("header", "body"),
    [
        ({}, b""),
        (None, b""),
        ([], b""),
        ([*GOOD, 3, 0], b"12"),
        ([*GOOD, 2, 1], b"12"),
        ([*GOOD, 10, 1], zlib.compress(b"x" * 1_000_000)),
        ([*GOOD, "2", 1], zlib.compress(b"12")),
        ([*GOOD, -5, 1], zlib.compress(b"12")),
        ([*GOOD[:5], "other", *GOOD[6:], 2, 0], b"12"),
        ([*GOOD[:9], [1], [], 2, 0], b"12"),
        ([*GOOD[:9], [1, 2, 3, 4, 5, "nobody"], [], 2, 0], b"12"),
        ([*GOOD[:10], [["a"]], 2, 0], b"12"),
    ],
)
def test_a_right_checksum_over_a_wrong_header_is_no_entry(header: object, body: bytes) -> None:
    assert decode(forged(header, body)) is None


@pytest.mark.parametrize(
    ("size", "packed", "body"),
    [
        (10, 2, zstandard.compress(b"x" * 1_000_000)),
        (1_000_000, 2, zstandard.compress(b"x" * 1_000_000)[:-1]),
        (1_000_000, 2, zstandard.compress(b"x" * 1_000_000) + b"!"),
        (1_000_000, 2, zstandard.compress(b"x" * 1_000_000) * 2),
        (1_000, 2, zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 1_000)),
        ("2", 2, zstandard.compress(b"12")),
        (-1, 2, zstandard.compress(b"12")),
        (2.0, 2, zstandard.compress(b"12")),
        (2, 2, b"12"),
        (2, 2, zlib.compress(b"12")),
        (2, 1, zstandard.compress(b"12")),
        (2, 3, b"12"),
        (2, "2", zstandard.compress(b"12")),
        (2, -1, b"12"),
        (2, None, b"12"),
    ],
)
def test_a_compressed_body_is_just_what_its_header_says_or_nothing(size: object, packed: object, body: bytes) -> None:
    assert decode(forged([*GOOD, size, packed], body)) is None


@pytest.mark.parametrize(("packed", "shrunk"), [(1, zlib.compress), (2, zstandard.compress)], ids=["deflate", "zstd"])
def test_either_way_to_compress_is_read(packed: int, shrunk: Any) -> None:
    """Former versions deflated."""
    found = decode(forged([*GOOD, 9000, packed], shrunk(b"an answer" * 1000)))
    assert found is not None and found.body == b"an answer" * 1000


def without_a_size(body: bytes) -> bytes:
    return zstandard.ZstdCompressor(write_content_size=False).compress(body)


@pytest.mark.parametrize(
    ("packed", "shrunk"),
    [(1, zlib.compress), (2, zstandard.compress), (2, without_a_size)],
    ids=["deflate", "zstd", "zstd without a size"],
)
@pytest.mark.parametrize("said", [100, 2**28 + 1, 2**40, 2**63])
def test_a_bomb_takes_no_more_than_its_header_may_say(packed: int, shrunk: Any, said: int) -> None:
    bomb = forged([*GOOD, said, packed], shrunk(bytes(100_000_000)))
    tracemalloc.start()
    try:
        assert decode(bomb) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000 + 4 * len(bomb)
    finally:
        tracemalloc.stop()


def test_a_frame_that_promises_more_than_there_is_takes_nothing() -> None:
    """What a frame of zstd says of its size is set aside at once."""
    frame = bytearray(zstandard.compress(bytes(300_000_000), 1))
    assert int.from_bytes(frame[6:10], "little") == 300_000_000
    frame[6:10] = (2**32 - 1).to_bytes(4, "little")
    tracemalloc.start()
    try:
        for said in (10, 300_000_000, 2**32 - 1):
            assert decode(forged([*GOOD, said, 2], bytes(frame))) is None
        assert tracemalloc.get_traced_memory()[1] < 1_000_000
    finally:
        tracemalloc.stop()


def test_the_forger_can_make_a_good_one_but_not_of_another_version() -> None:
    assert decode(forged([*GOOD, 2, 0], b"12")) is not None
    assert decode(forged([*GOOD, 2, 0], b"12", version=b"\x02")) is None


def test_compresses_only_where_it_pays() -> None:
    assert len(encode(ENTRY)) < 1000
    noise = b"".join(hashlib.sha256(bytes([n])).digest() for n in range(250))
    assert len(encode(ENTRY._replace(body=noise))) > len(noise)
    short = b"a" * 4096
    assert short in encode(ENTRY._replace(body=short))


def test_peek_reads_the_labels_from_the_start() -> None:
    raw = encode(ENTRY)
    labels = Labels("0" * 32, "tenant-a", "small", "small-2026", ENTRY.stored_s, ENTRY.tags, "shop")
    assert peek(raw[:400]) == peek(raw) == labels
    assert peek(raw[:60]) is None


@pytest.mark.parametrize("when", [math.inf, -math.inf, math.nan])
def test_times_must_be_finite(when: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        encode(ENTRY._replace(expires_s=when))
