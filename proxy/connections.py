"""The connections to one upstream: kept open, bounded in number, opened to whichever of its addresses answers first."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any
from urllib.parse import unquote, urlsplit

from aiohappyeyeballs import AddrInfoType, start_connection

from farthing.proxy.clock import Clock
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.header_facts import Lines
from farthing.proxy.http1 import Connection, request_head

__all__ = ["Connections"]

_IDLE_S = 4.0  # shorter than what servers keep, so that seldom a request meets a connection that is just closing
_ADDRESSES_HOLD_S = 60.0
_STAGGER_S = 0.25  # RFC 8305, 5
_IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
_NEEDS_LENGTH = frozenset({"POST", "PUT", "PATCH"})

Spawn = Callable[[Coroutine[Any, Any, None]], "asyncio.Task[None]"]


def _nobody() -> None:
    """Nobody wants to know."""


class Connections:
    """A pool for the origin of `url`. `limit`: connections at once, 0 for no limit. `spawn`: starts an owned task.

    Source: RFC 9112, 9.3 (persistence); RFC 8305 (racing addresses).
    """

    def __init__(self, url: str, *, connect_timeout_s: float, limit: int, spawn: Spawn, clock: Clock) -> None:
        parts = urlsplit(url)
        self._host = parts.hostname or ""
        self._tls = ssl.create_default_context() if parts.scheme == "https" else None
        self._port = parts.port or (443 if self._tls else 80)
        usual = self._port == (443 if self._tls else 80)
        bracketed = f"[{self._host}]" if ":" in self._host else self._host
        self._host_header = bracketed if usual else f"{bracketed}:{self._port}"
        self._host_line = f"Host: {self._host_header}\r\n"
        self._basic = ""
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
            self._basic = f"Basic {base64.b64encode(secret).decode()}"
        self._timeout_s = connect_timeout_s
        self._places = asyncio.Semaphore(limit) if limit else None
        self._spawn = spawn
        self._clock = clock
        self._idle: list[Connection] = []  # the one used last is used first, so that a surplus grows old
        self._addresses: tuple[list[AddrInfoType], float] = ([], 0.0)

    async def send(
        self,
        method: str,
        target: str,
        headers: Lines,
        body: bytes | AsyncIterator[bytes] | None,
        *,
        again: bool = False,
        begun: Callable[[], None] = _nobody,
    ) -> Connection:
        """Send a request; the connection, with its answer's head come. End with `done`.

        `headers`: without Host and, where the whole body is given, without a length. `again`: the operator allows that
        it is sent twice. `begun`: called once it goes out. Raises UpstreamFault.
        """
        if self._places is not None:
            await self._places.acquire()
        connection = self._take()
        stale = connection is not None and _repeatable(method, headers, body, again=again)
        try:
            while True:
                connection = connection or await self._connect()
                connection.send(*self._framed(method, target, headers, body), no_body=method == "HEAD")
                begun()
                if body is not None and not isinstance(body, bytes):
                    chunked = not headers.framed
                    connection.uploading(self._spawn(connection.pour(body, chunked=chunked)))
                try:
                    await connection.head()
                    break
                except UpstreamFault:
                    if not stale or not connection.silent:
                        raise
                    # The server closed the idle connection just then (RFC 9110, 9.2.2): once more, on a fresh one.
                    stale, connection = False, None
        except BaseException:
            if connection is not None:
                connection.close()
            if self._places is not None:
                self._places.release()
            raise
        return connection

    def done(self, connection: Connection) -> None:
        """The exchange is over; keep the connection where it may be used again."""
        if connection.settle():
            now = connection.idle_since = self._clock.tick_s()
            self._idle.append(connection)
            if now - self._idle[0].idle_since > _IDLE_S:
                self._idle.pop(0).close()
        if self._places is not None:
            self._places.release()

    def close(self) -> None:
        """Hang up what is idle; exchanges under way end with their flights."""
        while self._idle:
            self._idle.pop().close()

    def _take(self) -> Connection | None:
        oldest = self._clock.tick_s() - _IDLE_S
        while self._idle:
            connection = self._idle.pop()
            if connection.open and connection.idle_since >= oldest:
                return connection
            connection.close()
        return None

    def _framed(
        self, method: str, target: str, headers: Lines, body: bytes | AsyncIterator[bytes] | None
    ) -> tuple[bytes, bytes]:
        """Head and, where it is here already, body."""
        own = self._host_line
        if self._basic and not headers.authorised:
            own += f"Authorization: {self._basic}\r\n"
        if isinstance(body, bytes):
            own += f"Content-Length: {len(body)}\r\n"
        elif body is None:
            own += "Content-Length: 0\r\n" if method in _NEEDS_LENGTH else ""
        elif not headers.framed:
            own += "Transfer-Encoding: chunked\r\n"
        try:
            return request_head(method, target, own + headers.text), body if isinstance(body, bytes) else b""
        except ValueError as error:
            raise UpstreamFault(str(error), phase="connect", status=400) from None

    async def _connect(self) -> Connection:
        try:
            async with asyncio.timeout(self._timeout_s):
                loop = asyncio.get_running_loop()
                open_socket = await start_connection(await self._resolved(), happy_eyeballs_delay=_STAGGER_S)
                open_socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                name = self._host if self._tls else None
                _, connection = await loop.create_connection(
                    Connection, sock=open_socket, ssl=self._tls, server_hostname=name
                )
                return connection
        except TimeoutError:
            said = f"no connection within {self._timeout_s:g} s"
        except ssl.SSLCertVerificationError as error:
            said = f"its certificate is not valid: {error.verify_message}"
        except UnicodeError:
            said = "that is no host's name"
        except OSError as error:
            self._addresses = ([], 0.0)
            said = error.strerror or type(error).__name__
        raise UpstreamFault(f"can't reach the upstream {self._host_header}: {said}", phase="connect")

    async def _resolved(self) -> list[AddrInfoType]:
        addresses, until = self._addresses
        now = self._clock.tick_s()
        if not addresses or now > until:
            loop = asyncio.get_running_loop()
            addresses = list(await loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM))
            self._addresses = (addresses, now + _ADDRESSES_HOLD_S)
        return addresses


def _repeatable(method: str, headers: Lines, body: bytes | AsyncIterator[bytes] | None, *, again: bool) -> bool:
    """Whether sending the request twice does no more than once (RFC 9110, 9.2.2), and it can be sent twice."""
    return (again or method in _IDEMPOTENT or headers.keyed) and (body is None or isinstance(body, bytes))
