"""What a client sees of frames, and that a chunk goes out framed as aiohttp frames it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from farthing.cache.flight import Frame
from farthing.proxy.client_view import ClientView


class Transport:
    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closing = False

    def is_closing(self) -> bool:
        return self.closing

    def write(self, data: bytes) -> None:
        self.sent.append(data)


def view(*, hides: bool = False, coding: str | None = "chunked") -> tuple[ClientView, Any]:
    protocol: Any = SimpleNamespace(transport=Transport(), writing_paused=False)
    request: Any = SimpleNamespace(protocol=protocol)
    response: Any = SimpleNamespace(headers={} if coding is None else {"Transfer-Encoding": coding})
    return ClientView(request, response, hides=hides), protocol


def test_a_frame_is_one_chunk_and_an_empty_one_none() -> None:
    one, protocol = view()
    assert one.take(Frame(b"x" * 26))
    assert one.take(Frame(b""))

    assert protocol.transport.sent == [b"1a\r\n" + b"x" * 26 + b"\r\n"]


def test_a_client_that_did_not_ask_sees_no_usage() -> None:
    one, protocol = view(hides=True)
    assert one.take(Frame(b'data: {"usage":{}}\n\n', usage_only=True))
    assert one.take(Frame(b'data: {"a":1,"usage":null}\n\n'))
    asked, _ = view()

    assert protocol.transport.sent == [b'f\r\ndata: {"a":1}\n\n\r\n']
    assert one.seen(Frame(b"u", usage_only=True)) is None
    assert asked.seen(Frame(b'{"a":1,"usage":null}', usage_only=True)) == b'{"a":1,"usage":null}'


def test_it_says_when_what_was_sent_piles_up() -> None:
    one, protocol = view()
    protocol.writing_paused = True

    assert one.take(Frame(b"a")) is False
    assert protocol.transport.sent == [b"1\r\na\r\n"]  # taken all the same: it must not come twice


@pytest.mark.parametrize("gone", [True, False])
def test_a_client_that_has_left_is_an_error(gone: bool) -> None:
    one, protocol = view()
    protocol.transport.closing = True
    protocol.transport = None if gone else protocol.transport
    with pytest.raises(ConnectionResetError):
        one.take(Frame(b"a"))


def test_only_a_chunked_answer_takes_chunks() -> None:
    assert [view(coding=coding)[0].chunked for coding in ("chunked", "gzip", None)] == [True, False, False]
