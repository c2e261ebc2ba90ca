"""The upstream's side of HTTP/1.1: where an answer ends, whatever the borders of its packets; and what is no answer."""

from __future__ import annotations

import asyncio
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.proxy.errors import UpstreamFault
from farthing.proxy.header_facts import Lines
from farthing.proxy.http1 import Connection, request_head
from farthing.proxy.wire import lines_of


class Wire(asyncio.Transport):
    """A transport that keeps what was written."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False
        self.reading = True

    def write(self, data: Any) -> None:
        self.written += bytes(data)

    def abort(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True


def begun(no_body: bool = False) -> tuple[Connection, Wire]:
    connection, wire = Connection(), Wire()
    connection.connection_made(wire)
    connection.send(b"GET / HTTP/1.1\r\n\r\n", b"", no_body=no_body)
    return connection, wire


def test_a_long_body_is_not_copied_to_be_sent() -> None:
    class Kept(Wire):
        pieces: list[bytes]

        def write(self, data: Any) -> None:
            self.pieces = [*getattr(self, "pieces", []), data]

    head, long, short = b"POST / HTTP/1.1\r\n\r\n", b"x" * 65_537, b"x" * 65_536
    connection, wire = Connection(), Kept()
    connection.connection_made(wire)
    connection.send(head, long, no_body=False)
    assert wire.pieces == [head, long]
    assert wire.pieces[1] is long
    connection.send(head, short, no_body=False)
    assert wire.pieces[2:] == [head + short]


async def answer(connection: Connection) -> tuple[int, list[tuple[str, str]], bytes]:
    """The whole answer. Waits a second at the most."""
    async with asyncio.timeout(1):
        await connection.head()
        body = b""
        while chunk := await connection.read():
            body += chunk
    return connection.status, connection.headers, body


WHOLE = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: 1\r\nX-A: 2\r\n\r\nhello"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\nX-Trailer: t\r\n\r\n"


@pytest.mark.parametrize(
    ("raw", "body", "again"),
    [
        (WHOLE, b"hello", True),
        (CHUNKED, b"hello", True),
        (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True),
        (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 9\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"", True),
        (b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", b"ok", False),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + WHOLE, b"hello", True),
    ],
)
async def test_where_an_answer_ends(raw: bytes, body: bytes, again: bool) -> None:
    connection, wire = begun()
    connection.data_received(raw)
    status, headers, came = await answer(connection)

    assert came == body
    assert status == int(raw.rsplit(b"HTTP/1.", 1)[1][2:5])
    assert ("Link", "x") not in headers
    assert ("X-Trailer", "t") not in headers
    assert connection.settle() is again
    assert wire.closed is not again


@given(st.sampled_from([WHOLE, CHUNKED]), st.lists(st.integers(0, 120), max_size=6))
def test_the_borders_of_packets_mean_nothing(raw: bytes, cuts: list[int]) -> None:
    async def run() -> None:
        connection, _ = begun()
        places = [0, *sorted(cut for cut in cuts if cut < len(raw)), len(raw)]
        for start, end in pairwise(places):
            if start < end:
                connection.data_received(raw[start:end])
        assert (await answer(connection))[2] == b"hello"
        assert connection.settle()

    asyncio.run(run())


async def test_header_values_stay_as_they_came() -> None:
    connection, _ = begun()
    connection.data_received(b"HTTP/1.1 200 OK\r\nX-A: caf\xc3\xa9 \xff\r\nContent-Length: 0\r\n\r\n")
    _, headers, _ = await answer(connection)
    assert headers[0] == ("X-A", "café \udcff")
    assert "X-A: café \udcff\r\n".encode("utf-8", "surrogateescape") in request_head("GET", "/", lines_of(headers))


async def test_an_answer_to_head_has_no_body() -> None:
    connection, _ = begun(no_body=True)
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert (await answer(connection))[2] == b""


async def test_without_a_length_it_ends_with_the_connection() -> None:
    connection, _ = begun()
    connection.data_received(b"HTTP/1.1 200 OK\r\n\r\nhel")
    connection.data_received(b"lo")
    connection.connection_lost(None)
    assert (await answer(connection))[2] == b"hello"
    assert not connection.settle()


@pytest.mark.parametrize(
    ("raw", "phase"),
    [
        (b"", "head"),
        (b"SSH-2.0-OpenSSH\r\n", "head"),
        (b"HTTP/1.1 200 OK\r\nContent-Le", "head"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel", "body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "body"),
        (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", "body"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "head"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", "head"),
        (b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", "head"),
        (b"HTTP/1.1 200 OK\r\nX: " + b"a" * 300_000, "head"),
    ],
)
async def test_what_is_no_answer_says_in_which_phase(raw: bytes, phase: str) -> None:
    connection, _ = begun()
    connection.data_received(raw) if raw else None
    connection.connection_lost(None)
    with pytest.raises(UpstreamFault) as caught:
        await answer(connection)
    assert (caught.value.phase, caught.value.sent) == (phase, True)
    assert not connection.settle()


async def test_bytes_after_the_end_make_a_connection_unfit() -> None:
    connection, wire = begun()
    connection.data_received(WHOLE)
    assert (await answer(connection))[2] == b"hello"
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    assert wire.closed
    assert not connection.settle()


async def test_bytes_in_one_packet_with_the_end_never_reach_the_next_exchange() -> None:
    connection, _ = begun()
    connection.data_received(WHOLE + b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison")
    assert (await answer(connection))[2] == b"hello"
    assert not connection.settle()


@pytest.mark.parametrize("behind", [b"garbage", b"0\r\n\r\n", b"\xff\xfe"])
async def test_garbage_behind_a_whole_answer_costs_the_connection_and_not_the_answer(behind: bytes) -> None:
    connection, wire = begun()
    waiting = asyncio.get_running_loop().create_task(answer(connection))
    await asyncio.sleep(0)
    connection.data_received(WHOLE + behind)
    assert (await waiting)[2] == b"hello"
    assert wire.closed
    assert not connection.settle()


async def test_a_slow_reader_stops_the_reading() -> None:
    connection, wire = begun()
    connection.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 900000\r\n\r\n" + b"x" * 300_000)
    assert not wire.reading
    await connection.head()
    assert len(await connection.read()) == 300_000
    assert wire.reading


@pytest.mark.parametrize("target", ["/a\r\nX: y", "/a b", "/a\0"])
def test_a_target_cannot_break_the_head(target: str) -> None:
    with pytest.raises(ValueError, match="target"):
        request_head("GET", target, "")


def test_nor_can_a_header() -> None:
    with pytest.raises(ValueError, match="line break"):
        Lines([("X", "a\r\nY: b")])
