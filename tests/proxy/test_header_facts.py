"""What request headers say, remembered: never anything else than read anew."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict, CIMultiDictProxy

from farthing.proxy import wire
from farthing.proxy.errors import ClientFault
from farthing.proxy.header_facts import HeaderBook, HeaderFacts, Lines

NAMES = st.sampled_from(
    ["Authorization", "x-api-key", "Content-Type", "Content-Encoding", "Accept-Encoding", "Cache-Control", "Expect",
     "x-farthing-tags", "x-farthing-off", "OpenAI-Beta", "Idempotency-Key", "Connection", "X-Trace", "Content-Length"]
)  # fmt: skip
VALUES = st.sampled_from(
    ["", "1", "a=b", "no-store", "gzip, br", "application/json", "text/plain", "100-Continue", "close", "12"]
)
HEADERS = st.lists(st.tuples(NAMES, VALUES), max_size=8)
DROPPED = frozenset({"host", "content-length"})


def proxied(pairs: list[tuple[str, str]]) -> CIMultiDictProxy[str]:
    return CIMultiDictProxy(CIMultiDict(pairs))


def controls_of(read: object) -> object:
    try:
        return read()  # type: ignore[operator]
    except ClientFault as fault:
        return fault.message


@given(st.lists(HEADERS, min_size=1, max_size=6))
def test_what_is_remembered_is_what_reading_them_says(requests: list[list[tuple[str, str]]]) -> None:
    book = HeaderBook(most=2)
    for pairs in [*requests, *requests]:
        headers = proxied(pairs)
        facts = book.facts(headers)
        assert facts.credential == wire.credential(headers)
        assert controls_of(facts.controls) == controls_of(lambda headers=headers: wire.controls(headers))
        vendor = wire.vendor_headers(tuple(headers))
        assert list(facts.vendor.items()) == [(name, value) for name in vendor for value in headers.getall(name)]
        sent = facts.sent(DROPPED, (("X-More", "1"),))
        assert sent.text == wire.lines_of([*wire.forwarded(headers.items(), drop=DROPPED), ("X-More", "1")])
        assert sent.keyed is ("Idempotency-Key" in headers)
        assert facts.waits is (headers.get("Expect", "").lower() == "100-continue")


def test_requests_that_differ_in_length_alone_share_their_facts_and_a_key_of_another_does_not() -> None:
    book = HeaderBook()
    first = book.facts(proxied([("Authorization", "Bearer a"), ("Content-Length", "10")]))
    assert book.facts(proxied([("Authorization", "Bearer a"), ("Content-Length", "11")])) is first
    assert book.facts(proxied([("Authorization", "Bearer b"), ("Content-Length", "10")])) is not first


def test_long_headers_and_more_than_the_bound_are_not_kept() -> None:
    book = HeaderBook(most=2)
    long = proxied([("X", "y" * 9_000)])
    assert book.facts(long) is not book.facts(long)
    kept = [book.facts(proxied([("X", str(n))])) for n in range(3)]
    assert book.facts(proxied([("X", "2")])) is kept[2]
    assert book.facts(proxied([("X", "0")])) is not kept[0]


def test_lines_cannot_hold_a_line_break() -> None:
    with pytest.raises(ValueError, match="line break"):
        Lines([("X", "a\r\nY: b")])
    with pytest.raises(ValueError, match="line break"):
        HeaderFacts((("X", "a\nb"),)).sent(DROPPED, ())
