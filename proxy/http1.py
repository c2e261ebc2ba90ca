"""One connection to an upstream: HTTP/1.1 as a client speaks it, one exchange at a time.

The parsing is httptools' (llhttp, compiled); this file keeps what came until it is read. It exists because aiohttp's
client took half of what a miss cost (docs/benchmarks.md); what it does is a proxy's need and no more: it follows no
redirect, keeps no cookie, decodes nothing.

Rules of this file: bytes and header values stay as they came; every way to fail becomes an UpstreamFault with its
phase; a connection that is not surely between two exchanges is closed, never used again.
Sources: RFC 9110, RFC 9112.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import cast

import httptools

from farthing.proxy.errors import UpstreamFault

__all__ = ["Connection", "request_head"]

_HEAD_BYTES = 262_144
_HELD_BYTES = 262_144
_JOINED_BYTES = 65_536  # a longer body isn't copied to be one piece with its head


def request_head(method: str, target: str, lines: str) -> bytes:
    """The request's head as bytes. `lines`: of wire.lines_of. Raises ValueError: a line break in the target."""
    if any(map(target.__contains__, "\r\n \0")):
        raise ValueError("the target holds what no target may hold")
    return f"{method} {target} HTTP/1.1\r\n{lines}\r\n".encode("utf-8", "surrogateescape")


class Connection(asyncio.Protocol):
    """Sends one request, then gives its answer: `head` first, then `read` until it is empty.

    The mutable state belongs to one exchange and begins anew with `send`; it changes only on the event loop.
    """

    def __init__(self) -> None:
        self.status = 0
        self.headers: list[tuple[str, str]] = []
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._parser: httptools.HttpResponseParser | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._uploading: asyncio.Task[None] | None = None
        self._writable: asyncio.Future[None] | None = None
        self._full = False  # the transport holds more than it wants to
        self._begin(no_body=False)

    def _begin(self, *, no_body: bool) -> None:
        self.status = 0
        self.headers = []
        self._no_body = no_body
        self._headed = self._ended = self._reusable = self._interim = self._paused = False
        self._framed = False  # the answer says itself where it ends
        self._fault: UpstreamFault | None = None
        self._chunks: list[bytes] = []
        self._held = self._head_bytes = 0

    # -- the caller's side

    @property
    def silent(self) -> bool:
        """Whether not a byte of an answer has come."""
        return not self._headed and not self._head_bytes

    @property
    def open(self) -> bool:
        """Whether another request may be sent on it."""
        return self._transport is not None and not self._transport.is_closing() and not self._full

    def send(self, head: bytes, body: bytes, *, no_body: bool) -> None:
        """Begin an exchange. `no_body`: the answer has none, whatever it says (HEAD)."""
        assert self._transport is not None
        self._begin(no_body=no_body)
        self._parser = httptools.HttpResponseParser(self)
        if len(body) > _JOINED_BYTES:
            self._transport.write(head)
            self._transport.write(body)
        else:
            self._transport.write(head + body)

    def uploading(self, task: asyncio.Task[None]) -> None:
        """That `task`, which runs `pour`, sends this exchange's body; it ends with the exchange."""
        self._uploading = task

    async def pour(self, body: AsyncIterator[bytes], *, chunked: bool) -> None:
        """Send a body piece by piece, as fast as the upstream takes it. What fails here fails the exchange."""
        try:
            async for piece in body:
                if self._transport is None or self._ended:
                    return
                if piece:
                    self._transport.write(b"%x\r\n%b\r\n" % (len(piece), piece) if chunked else piece)
                while self._full and self._transport is not None:
                    self._writable = asyncio.get_running_loop().create_future()
                    await self._writable
            if chunked and self._transport is not None:
                self._transport.write(b"0\r\n\r\n")
        except Exception as error:  # noqa: BLE001 - whatever it was, the caller waits for an answer that can't come
            self._fail(f"the request's body broke off: {type(error).__name__}")
        finally:
            self._uploading = None

    async def head(self) -> None:
        """Wait for status and headers. Raises UpstreamFault."""
        while not self._headed:
            await self._more()

    @property
    def ended(self) -> bool:
        """Whether the body is complete and all of it was read."""
        return self._ended and not self._chunks

    async def read(self) -> bytes:
        """Some of the body, b'' once it is complete. Raises UpstreamFault where it breaks off."""
        while not self._chunks:
            if self._ended:
                return b""
            await self._more()
        chunks, self._chunks = self._chunks, []
        self._held = 0
        if self._paused and self._transport is not None:
            self._paused = False
            self._transport.resume_reading()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def settle(self) -> bool:
        """End the exchange. True: the connection is between two exchanges and may be used again; else it is closed."""
        if self._ended and self._reusable and not self._chunks and self._uploading is None and self.open:
            self._parser = None
            return True
        self.close()
        return False

    def close(self) -> None:
        """Hang up. Idempotent."""
        if self._uploading is not None:
            self._uploading.cancel()
        if self._transport is not None:
            self._transport.abort()

    async def _more(self) -> None:
        if self._fault is not None:
            raise self._fault
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def _fail(self, said: str) -> None:
        if self._fault is not None:
            return
        if self._ended:
            self._reusable = False  # the answer is whole; what came behind it is nobody's
        else:
            self._fault = UpstreamFault(said, phase="body" if self._headed else "head", sent=True)
        if self._transport is not None:
            self._transport.abort()
        self._wake()

    # -- asyncio's side

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's is one in all but name

    def data_received(self, data: bytes) -> None:
        parser = self._parser
        if parser is None or self._ended:
            self._reusable = False
            self.close()  # bytes that nobody asked for (RFC 9112, 9.2)
            return
        try:
            parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(f"the upstream's answer is not HTTP: {type(error).__name__}")
            return
        if not self._headed:
            self._head_bytes += len(data)
            if self._head_bytes > _HEAD_BYTES:
                self._fail("the upstream's answer is not HTTP: its head has no end")
                return
        if self._held > _HELD_BYTES and not self._paused and self._transport is not None:
            self._paused = True
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._headed and not self._framed and exc is None and self._fault is None:
            self._ended = True  # RFC 9112, 6.3: without a length it ends with the connection
        self._fail("the upstream broke off" + (f": {type(exc).__name__}" if exc is not None else ""))
        self._wake()
        self.resume_writing()

    def pause_writing(self) -> None:
        self._full = True

    def resume_writing(self) -> None:
        self._full = False
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)

    # -- httptools' side

    def on_message_begin(self) -> None:
        if self._ended:
            self._reusable = False  # another answer, that nobody asked for

    def on_header(self, name: bytes, value: bytes) -> None:
        if not self._headed:  # what comes after the body are trailers, which end here (RFC 9110, 6.5)
            self.headers.append((name.decode("latin-1"), value.decode("utf-8", "surrogateescape")))

    def on_headers_complete(self) -> None:
        assert self._parser is not None
        status = self._parser.get_status_code()
        if 100 <= status < 200:  # but 101, which nobody asked for and which the parser refuses
            self._interim = True
            return
        self.status = status
        self._headed = True
        for name, value in self.headers:
            if len(name) in (14, 17) and _frames(name, value):
                self._framed = True
        if self._no_body:
            self._ended = True

    def on_body(self, body: bytes) -> None:
        if not self._ended:
            self._chunks.append(body)
            self._held += len(body)

    def on_message_complete(self) -> None:
        assert self._parser is not None
        if self._interim:  # 100 Continue, 103 Early Hints: the answer is still to come
            self._interim = False
            self.headers = []
        elif not self._ended:
            self._ended = True
            self._reusable = self._parser.should_keep_alive()


def _frames(name: str, value: str) -> bool:
    """Whether this header says where the body ends (RFC 9112, 6)."""
    if len(name) == 14:
        return name.lower() == "content-length"
    return len(name) == 17 and name.lower() == "transfer-encoding" and "chunked" in value.lower()
