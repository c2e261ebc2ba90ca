"""The server's outermost layer: what is no HTTP gets an error in the OpenAI shape, and no byte of it is logged.

aiohttp would answer in plain text and log the offending line, which may hold a key or a prompt.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_parser import RawRequestMessage
from aiohttp.web_protocol import RequestHandler

from farthing.proxy.errors import error_body

__all__ = ["FrontServer", "not_http", "well_coded"]

log = structlog.get_logger("farthing.server")


class _Connection(RequestHandler):
    """One client's connection."""

    def resume_reading(self, resume_parser: bool = True) -> None:
        """Go on with what was paused, if it was: else aiohttp parses nothing at all after every body that is read."""
        if getattr(self, "_reading_paused", True):
            super().resume_reading(resume_parser)

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """The answer to what could not be read, or to a fault of our own that nothing else caught."""
        if request.writer.output_size > 0:
            raise ConnectionError("an answer is under way already")
        log.warning("a request could not be read", status=status, fault=type(exc).__name__)
        if status < 500:
            return not_http(status)
        return _last(status, error_body("farthing failed on this request", kind="proxy_error", code="internal"))

    def log_exception(self, *args: Any, **kwargs: Any) -> None:
        """The kind of fault alone."""
        log.error("a connection failed", fault=type(kwargs.get("exc_info")).__name__)


def well_coded(request: web.BaseRequest) -> bool:
    """Whether its transfer coding is chunked alone, or none, as everybody reads it: an empty one, an empty element of
    the list, and another coding before it (which nobody would undo) are not (RFC 9112, 6.1)."""
    if "Transfer-Encoding" not in request.headers:
        return True
    return [each.strip(" \t").lower() for each in request.headers.getall("Transfer-Encoding")] == ["chunked"]


def not_http(status: int = 400) -> web.Response:
    """The answer to what is no HTTP/1.0 or 1.1, after which the connection ends."""
    said = "this is not HTTP/1.1 as RFC 9112 has it"
    return _last(status, error_body(said, kind="invalid_request_error", code="bad_http"))


def _last(status: int, body: bytes) -> web.Response:
    answer = web.Response(status=status, body=body, content_type="application/json")
    answer.force_close()
    return answer


class FrontServer(web.Server):
    """aiohttp's low-level server with connections of ours. `leaving`: each connection ends with its next answer;
    `sheds`: so many of them do. `counted`: told how many are open whenever that changes."""

    leaving = False
    sheds = 0
    counted: Callable[[int], None] | None = None

    def connection_made(self, handler: RequestHandler, transport: asyncio.Transport) -> None:
        """One more."""
        super().connection_made(handler, transport)
        self._count()

    def connection_lost(self, handler: RequestHandler, exc: BaseException | None = None) -> None:
        """One fewer, if it isn't still being answered."""
        super().connection_lost(handler, exc)
        self._count()

    def _make_request(self, message: RawRequestMessage, *rest: Any) -> web.BaseRequest:
        if self.leaving or self.sheds > 0:
            self.sheds -= 1
            message = message._replace(should_close=True)
        return super()._make_request(message, *rest)

    def _count(self) -> None:
        if self.counted is not None:
            self.counted(len(self._connections))

    def __call__(self) -> RequestHandler:
        return _Connection(self, loop=self._loop, **self._kwargs)
