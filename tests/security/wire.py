"""Bytes in, bytes out; and an upstream that keeps what came on each connection, unread."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

__all__ = ["RawUpstream", "exchange", "raw_upstream", "requests_in"]

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


@dataclass
class RawUpstream:
    """`heard`: the bytes of each connection. `answer`: to each request's head."""

    url: str = ""
    heard: list[bytearray] = field(default_factory=list)
    answer: bytes = _ANSWER

    @property
    def all(self) -> bytes:
        """Everything, in the order of the connections."""
        return b"".join(bytes(one) for one in self.heard)


@asynccontextmanager
async def raw_upstream() -> AsyncIterator[RawUpstream]:
    """A server that answers each head once, whatever follows it."""
    upstream = RawUpstream()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        heard, answered = bytearray(), 0
        upstream.heard.append(heard)
        try:
            while piece := await reader.read(65_536):
                heard += piece
                whole = requests_in(bytes(heard))
                for _ in range(len(whole) - answered):
                    writer.write(upstream.answer)
                answered = len(whole)
        except (ConnectionError, ValueError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
        yield upstream


def requests_in(heard: bytes) -> list[tuple[bytes, bytes]]:
    """The complete requests, by RFC 9112 read strictly: (head, body). Raises ValueError: it can be read in two ways."""
    found = []
    while heard:
        head, blank, rest = heard.partition(b"\r\n\r\n")
        if not blank:
            break
        if head.count(b"\n") != head.count(b"\r\n") or head.count(b"\r") != head.count(b"\r\n"):
            raise ValueError("a bare CR or LF in a head")
        lines = [line.partition(b":") for line in head.split(b"\r\n")[1:]]
        names = [name.lower() for name, _, _ in lines]
        lengths = [value.strip() for name, _, value in lines if name.lower() == b"content-length"]
        if len(lengths) > 1 or (lengths and b"transfer-encoding" in names) or names.count(b"transfer-encoding") > 1:
            raise ValueError("framed twice")
        if lengths:
            if len(rest) < (size := int(lengths[0])):
                break
            body, heard = rest[:size], rest[size:]
        elif b"transfer-encoding" in names:
            unchunked = _chunks(rest)
            if unchunked is None:
                break
            body, heard = unchunked
        else:
            body, heard = b"", rest
        found.append((head, body))
    return found


def _chunks(rest: bytes) -> tuple[bytes, bytes] | None:
    body = b""
    while True:
        line, end, rest = rest.partition(b"\r\n")
        if not end:
            return None
        size = int(line, 16)
        if len(rest) < size + 2:
            return None
        if rest[size : size + 2] != b"\r\n":
            raise ValueError("a chunk of another length")
        body, rest = body + rest[:size], rest[size + 2 :]
        if size == 0:
            return body, rest


async def exchange(url: str, request: bytes, *, wait_s: float = 1.0) -> bytes:
    """What comes back until the server closes, or for that long."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    got = b""
    try:
        writer.write(request)
        async with asyncio.timeout(wait_s):
            while piece := await reader.read(65_536):
                got += piece
    except (TimeoutError, ConnectionError):
        pass
    finally:
        writer.close()
    return got
