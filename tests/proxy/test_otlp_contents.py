"""Texts that wait for their rows stay within one bound, and none of them is forgotten there."""

from __future__ import annotations

from farthing.proxy.capture_record import Said
from farthing.proxy.config_capture import Capture
from farthing.proxy.otlp_contents import Contents, size_of
from tests.fakes.rows import row

SAID = Said("/v1/chat/completions", b"r" * 500, b"a" * 476)


def test_what_waits_further_on_counts_until_it_is_let_go() -> None:
    contents = Contents(Capture(), most_bytes=2 * size_of(SAID))
    for name in "ab":
        contents.append(SAID, row(id=name))
    assert [contents.pop(name) for name in "ab"] == [SAID, SAID]
    contents.append(SAID, row(id="c"))
    assert (contents.pop("c"), contents.dropped) == (None, 1)
    contents.let_go(size_of(SAID))
    contents.append(SAID, row(id="d"))
    assert (contents.pop("d"), contents.dropped) == (SAID, 1)
    assert contents.waiting_bytes == 2 * size_of(SAID)


def test_texts_whose_rows_never_come_make_room_and_are_counted() -> None:
    contents = Contents(Capture(), most_bytes=2 * size_of(SAID))
    for name in "abc":
        contents.append(SAID, row(id=name))
    assert [contents.pop(name) for name in "abc"] == [None, SAID, SAID]
    assert contents.dropped == 1


def test_one_that_is_larger_than_all_room_takes_none() -> None:
    contents = Contents(Capture(), most_bytes=size_of(SAID) - 1)
    contents.append(SAID, row(id="a"))
    assert (contents.waiting_bytes, contents.dropped) == (0, 1)


def test_embeddings_are_not_kept() -> None:
    contents = Contents(Capture())
    contents.append(SAID, row(id="a", endpoint="embeddings"))
    assert (contents.pop("a"), contents.waiting_bytes, contents.dropped) == (None, 0, 0)
