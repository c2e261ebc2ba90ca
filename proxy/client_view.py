"""What one client sees of a flight's frames, and the shortest way for them to its connection.

aiohttp's writer takes five calls and a coroutine for each chunk, in a turn of the client's own task. Once the head is
out a chunk needs none of that: `take` frames it and hands it to the transport in the moment that it comes.
"""

from __future__ import annotations

import re

from aiohttp import hdrs, web

from farthing.cache.flight import Frame

__all__ = ["ClientView"]

_NULL_USAGE = re.compile(rb',\s*"usage"\s*:\s*null')


class ClientView:
    """`hides`: usage is shown only to a client that asked for it, and this one didn't."""

    __slots__ = ("_hides", "_protocol", "chunked")

    def __init__(self, request: web.BaseRequest, response: web.StreamResponse, *, hides: bool) -> None:
        self._hides = hides
        self._protocol = request.protocol
        self.chunked = response.headers.get(hdrs.TRANSFER_ENCODING) == "chunked"

    def seen(self, frame: Frame) -> bytes | None:
        """The bytes of it that this client gets; None: it isn't for this client."""
        body = frame.body
        if self._hides:
            if frame.usage_only:
                return None
            if b'"usage"' in body:
                return _NULL_USAGE.sub(b"", body)
        return body

    def take(self, frame: Frame) -> bool:
        """Send it as a chunk (RFC 9112, 7.1), whose head must be out. False: what was sent piles up.

        Raises ConnectionResetError: the client has left.
        """
        protocol = self._protocol
        body = self.seen(frame)
        if body:  # an empty chunk would end the answer
            transport = protocol.transport
            if transport is None or transport.is_closing():
                raise ConnectionResetError("the client has left")
            transport.write(b"%x\r\n%b\r\n" % (len(body), body))
        return not protocol.writing_paused
