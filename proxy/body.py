"""A request's body on its way in from the client, bounded in size and time."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from aiohttp import ClientPayloadError, StreamReader, web
from aiohttp.http_exceptions import HttpProcessingError

from farthing.proxy.errors import ClientFault

__all__ = ["IncomingBody", "NoBody"]

_AT_ONCE_BYTES = 262_144
_ASIDE_BYTES = 1_048_576  # from here on bytes.join lets other threads run


class IncomingBody:
    """See exchange.BodySource. What `read` took and could not hold is given again by `stream`."""

    __slots__ = ("_content", "_hard_bytes", "_head", "_seen_bytes", "_timeout_s", "fault")

    def __init__(self, content: StreamReader, *, hard_bytes: int, timeout_s: float) -> None:
        self._content = content
        self._hard_bytes = hard_bytes
        self._timeout_s = timeout_s
        self._head: list[bytes] = []
        self._seen_bytes = 0
        self.fault: Exception | None = None  # why it was refused, for whoever was sending it on

    def arrived(self) -> bytes | None:
        """The body, if all of it is here already and within a few hundred kilobytes; `read` still gives it."""
        content = self._content
        if not content.is_eof() or content.total_bytes > _AT_ONCE_BYTES:
            return None
        if self._hard_bytes and content.total_bytes > self._hard_bytes:
            return None  # `read` says so
        self._take_what_is_here()
        if len(self._head) > 1:
            self._head = [b"".join(self._head)]
        return self._head[0] if self._head else b""

    async def read(self, limit_bytes: int) -> bytes | None:
        """The whole body, or None where it is longer than the limit."""
        content = self._content
        if content.is_eof():  # it came with the head: no timer, no task switch
            self._take_what_is_here()
        else:
            try:
                async with asyncio.timeout(self._timeout_s) as deadline:
                    while self._seen_bytes <= limit_bytes and (chunk := await self._next()):
                        self._take(chunk)
                        deadline.reschedule(asyncio.get_running_loop().time() + self._timeout_s)
            except TimeoutError:
                raise ClientFault(
                    "no more of the request body came in time", status=408, code="request_timeout"
                ) from None
        if self._seen_bytes > limit_bytes:
            return None
        if len(self._head) == 1:
            return self._head[0]
        if self._seen_bytes > _ASIDE_BYTES:
            return await asyncio.to_thread(b"".join, self._head)
        return b"".join(self._head)

    async def stream(self) -> AsyncIterator[bytes]:
        """The body in pieces: first what has been read, then the rest as it arrives."""
        while self._head:
            yield self._head.pop(0)
        while chunk := await self._next():
            self._count(chunk)
            yield chunk

    async def _next(self) -> bytes:
        """More of the body, b'' at its end."""
        try:
            return await self._content.readany()
        except (HttpProcessingError, ClientPayloadError, web.RequestPayloadError):
            # What aiohttp says of it holds bytes of the body.
            self.fault = ClientFault("the request body is not framed as RFC 9112 has it", code="bad_http")
            raise self.fault from None

    def _take_what_is_here(self) -> None:
        while chunk := self._content.read_nowait():
            self._take(chunk)

    def _take(self, chunk: bytes) -> None:
        self._count(chunk)
        self._head.append(chunk)

    def _count(self, chunk: bytes) -> None:
        self._seen_bytes += len(chunk)
        if self._hard_bytes and self._seen_bytes > self._hard_bytes:
            self.fault = ClientFault(
                f"the request body is longer than {self._hard_bytes} bytes (limits.max_body_bytes)",
                status=413,
                code="request_too_large",
            )
            raise self.fault


class NoBody:
    """A source that is not read: the body is farthing's own, or was read long ago."""

    fault: Exception | None = None

    def arrived(self) -> bytes | None:
        """Nothing."""
        return b""

    async def read(self, limit_bytes: int) -> bytes | None:
        """Nothing."""
        return b""

    async def stream(self) -> AsyncIterator[bytes]:
        """Nothing."""
        yield b""
