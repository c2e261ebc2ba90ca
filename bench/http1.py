"""Just enough HTTP/1.1 to frame what the benchmark's own client and upstream exchange, at a few microseconds a message.

Content-Length and chunked bodies, keep-alive, pipelined messages. Not a parser for traffic that one doesn't trust.
Source: RFC 9112, sections 6 and 7.
"""

from __future__ import annotations

from enum import Enum

__all__ = ["END", "Framer", "Part", "status_of"]

END = b"\r\n\r\n"


class Part(Enum):
    """What a piece of a message is."""

    HEAD = "head"
    BODY = "body"
    DONE = "done"


class _Want(Enum):
    HEAD = "head"
    LENGTH = "length"
    CHUNK_SIZE = "chunk size"
    CHUNK = "chunk"
    TRAILER = "trailer"


class Framer:
    """Cuts a byte stream into heads, body pieces and message ends, however it arrives."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._want = _Want.HEAD
        self._left = 0

    def feed(self, piece: bytes) -> list[tuple[Part, bytes]]:
        """The parts that `piece` completes; body pieces come as soon as they are there.

        Raises ValueError: a chunk size that isn't hexadecimal, or a body that ends with the connection.
        """
        self._buffer += piece
        parts: list[tuple[Part, bytes]] = []
        while self._step(parts):
            pass
        return parts

    def _step(self, parts: list[tuple[Part, bytes]]) -> bool:
        """Take one part off the buffer; False where more bytes are needed."""
        buffer = self._buffer
        match self._want:
            case _Want.HEAD:
                head = self._until(END)
                if head is None:
                    return False
                parts.append((Part.HEAD, head))
                self._after_head(head, parts)
            case _Want.LENGTH | _Want.CHUNK:
                if not buffer:
                    return False
                piece = bytes(buffer[: self._left])
                del buffer[: self._left]
                self._left -= len(piece)
                parts.append((Part.BODY, piece))
                if not self._left:
                    if self._want is _Want.LENGTH:
                        self._finish(parts)
                    else:
                        self._want = _Want.CHUNK_SIZE
            case _Want.CHUNK_SIZE:
                if buffer.startswith(b"\r\n"):  # the end of the chunk before
                    del buffer[:2]
                line = self._until(b"\r\n")
                if line is None:
                    return False
                self._left = int(line.partition(b";")[0], 16)
                self._want = _Want.CHUNK if self._left else _Want.TRAILER
            case _Want.TRAILER:
                line = self._until(b"\r\n")
                if line is None:
                    return False
                if not line:
                    self._finish(parts)
        return True

    def _after_head(self, head: bytes, parts: list[tuple[Part, bytes]]) -> None:
        lower = head.lower()
        length = lower.find(b"\r\ncontent-length:")
        if length >= 0:
            self._left = int(lower[length + 17 :].partition(b"\r\n")[0])
            self._want = _Want.LENGTH
            if not self._left:
                self._finish(parts)
        elif b"\r\ntransfer-encoding: chunked" in lower:
            self._want = _Want.CHUNK_SIZE
        elif lower.startswith(b"http/"):
            raise ValueError("an answer that ends with its connection")
        else:
            self._finish(parts)

    def _finish(self, parts: list[tuple[Part, bytes]]) -> None:
        parts.append((Part.DONE, b""))
        self._want = _Want.HEAD

    def _until(self, mark: bytes) -> bytes | None:
        end = self._buffer.find(mark)
        if end < 0:
            return None
        taken = bytes(self._buffer[:end])
        del self._buffer[: end + len(mark)]
        return taken


def status_of(head: bytes) -> int:
    """The status code in an answer's head."""
    return int(head[9:12])
