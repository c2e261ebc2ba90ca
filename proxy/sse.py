"""Server-sent events: an incremental splitter that makes no assumption on chunk borders. Leaf-like, no IO.

Source: WHATWG HTML, "Server-sent events", 9.2.5-9.2.6. Lines end in LF, CRLF or CR; an empty line ends an event;
a line that begins with a colon is a comment. Bytes are kept as they came.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple

import orjson

__all__ = ["DONE", "Event", "Splitter", "blocks", "ends_stream", "events"]

DONE = b"[DONE]"
_BLANK = re.compile(rb"\r\n\r\n|\r\n\n|\r\n\r|\n\n|\n\r\n|\n\r|\r\r\n|\r\r")
_LAST = (b"message_stop", b"response.completed", b"response.incomplete", b"response.failed")
_NEWLINE = re.compile(rb"\r\n|\n|\r")


class Event(NamedTuple):
    """One event: its `event:` name ('' if none), its `data:` lines joined by LF, and its byte span with the blank
    line that ends it."""

    name: str
    data: bytes
    start: int
    end: int


def parse(block: bytes, start: int, end: int) -> Event:
    """The event whose lines are `block`."""
    if block.startswith(b"data: ") and b"\n" not in (line := block.rstrip(b"\r\n")) and b"\r" not in line:
        return Event("", line[6:], start, end)  # the usual case: one data line
    name, lines = b"", []
    for line in _NEWLINE.split(block):
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            lines.append(value)
        elif field == b"event":
            name = value
    return Event(name.decode("utf-8", "replace"), b"\n".join(lines), start, end)


def blocks(data: bytes) -> Iterator[tuple[int, int]]:
    """The byte spans of the events in `data`; a last one without its blank line is given too."""
    start = 0
    for end in _ends(data, 0):
        yield start, end
        start = end
    if start < len(data):
        yield start, len(data)


def _ends(data: bytes, start: int) -> Iterator[int]:
    """Where events end in `data`, just behind the blank line, from `start` on."""
    if b"\r" in data:
        for match in _BLANK.finditer(data, start):
            yield match.end()
        return
    while (found := data.find(b"\n\n", start)) >= 0:  # several times faster, and what nearly all streams have
        start = found + 2
        yield start


def events(data: bytes) -> Iterator[Event]:
    """The events of a complete stream, comments and empty blocks left out."""
    for start, end in blocks(data):
        event = parse(data[start:end], start, end)
        if event.data or event.name:
            yield event


def ends_stream(piece: bytes) -> bool:
    """Whether the last event in `piece` is whole, and one after which none comes.

    Sources: OpenAI API reference, chat streaming (`[DONE]`) and Responses streaming events; Anthropic API reference,
    streaming messages (`message_stop`).
    """
    if not piece.endswith((b"\n\n", b"\r\n\r\n", b"\r\r")):
        return False
    last = None
    for event in events(piece):
        last = event
    if last is None or last.data.strip() == DONE:
        return last is not None
    if not any(name in last.data for name in _LAST):
        return False
    try:
        value = orjson.loads(last.data)
    except ValueError:
        return False
    return isinstance(value, dict) and str(value.get("type")).encode() in _LAST


class Splitter:
    """Cuts an incoming stream into pieces that end where an event ends.

    `feed` returns whole events as they become complete; an incomplete tail waits for its end, up to `limit_bytes`:
    then `overflown` is set and all bytes go on uncut.
    """

    def __init__(self, limit_bytes: int) -> None:
        self._tail = b""
        self._limit = limit_bytes
        self.overflown = False

    def feed(self, chunk: bytes) -> list[bytes]:
        """The events completed by `chunk`, each with its blank line."""
        if self.overflown:
            return [chunk]
        if not self._tail and 1 < chunk.find(b"\n\n") + 2 == len(chunk) and b"\r" not in chunk:
            return [chunk]  # the usual case: a whole event, and nothing else
        text = self._tail + chunk if self._tail else chunk
        # A boundary may straddle the border by up to three bytes, so only the new part and those are searched.
        pieces, start = [], 0
        for end in _ends(text, max(0, len(self._tail) - 3)):
            pieces.append(text[start:end])
            start = end
        self._tail = text[start:] if start else text
        if len(self._tail) > self._limit:
            self.overflown = True
            pieces.append(self.rest())
        return pieces

    def rest(self) -> bytes:
        """What is held at the end of the stream: an event without its blank line, or nothing."""
        tail, self._tail = self._tail, b""
        return tail
