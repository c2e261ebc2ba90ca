"""A trace's lines, in blocks, from a place on: JSON lines or an array, plain or gzipped, oldest or newest first.

Rules of this file: memory is bounded by the block and the longest line, but for an array, which is read whole; a line
keeps its number in the file, whichever way the file is read.
"""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import IO, Any, NamedTuple

import orjson

from farthing.cache.exact_json import loads as exact_loads
from farthing.proxy.errors import ConfigFault

__all__ = ["Block", "Broken", "Trace", "decoded", "open_trace"]

BLOCK_BYTES = 2**20
_HEAD_BYTES = 2**16
_TOLD = 10


class Block(NamedTuple):
    """Some lines. `line`: the number of the first. `until`: where the next block begins; `share` of it all is read."""

    line: int
    lines: list[bytes]
    until: tuple[int, int]
    share: float


class Broken:
    """Lines that could not be used: the first ten with number and reason, all of them counted."""

    def __init__(self) -> None:
        self.count = 0
        self.told: list[tuple[int, str]] = []

    def add(self, line: int, reason: str) -> None:
        """One more."""
        self.count += 1
        if len(self.told) < _TOLD:
            self.told.append((line, reason))


@dataclass(frozen=True, slots=True)
class Trace:
    """A file to read. `newest_first`: its lines are read from the last to the first. `array`: one JSON array (or an
    object with the rows in `data`)."""

    path: Path
    size: int
    zipped: bool
    array: bool
    newest_first: bool
    head: bytes
    block_bytes: int = BLOCK_BYTES

    def blocks(self, begin: tuple[int, int] = (0, 1)) -> Iterator[Block]:
        """The blocks from a place on: (byte, number of the line), of `Block.until`; (0, 1) is the beginning.

        Raises ConfigFault: the file can't be read.
        """
        try:
            if self.array:
                yield from self._of_array(begin)
            elif self.newest_first:
                yield from self._backwards(begin)
            else:
                yield from self._forwards(begin)
        except (OSError, EOFError, zlib.error) as error:
            raise ConfigFault(f"can't read {self.path}: {error}") from None

    def _forwards(self, begin: tuple[int, int]) -> Iterator[Block]:
        at, number = begin
        with self.path.open("rb") as raw:
            source: Any = gzip.GzipFile(fileobj=raw) if self.zipped else raw
            source.seek(at)
            while block := source.read(self.block_bytes):
                if not block.endswith(b"\n"):
                    block += source.readline()
                lines = block.split(b"\n")
                if not lines[-1]:
                    lines.pop()
                at += len(block)
                read = raw.tell() if self.zipped else at
                yield Block(number, lines, (at, number + len(lines)), read / max(self.size, 1))
                number += len(lines)

    def _backwards(self, begin: tuple[int, int]) -> Iterator[Block]:
        """From the end: here a place's byte is where what is still to be read ends."""
        with self.path.open("rb") as source:
            end, after = begin if begin != (0, 1) else (self.size, _count_lines(source) + 1)
            while end > 0:
                start, block = _whole_lines(source, max(0, end - self.block_bytes), end)
                lines = block.split(b"\n")
                if not lines[-1]:
                    lines.pop()
                after -= len(lines)
                yield Block(after, lines, (start, after), 1 - start / max(self.size, 1))
                end = start

    def _of_array(self, begin: tuple[int, int]) -> Iterator[Block]:
        """Items in the place of lines, so that they are numbered from 1."""
        with self.path.open("rb") as raw:
            text = (gzip.GzipFile(fileobj=raw) if self.zipped else raw).read()
        try:
            value = decoded(text)
        except ValueError as error:
            raise ConfigFault(f"{self.path} looks like one JSON value and is none: {error}") from None
        rows = value.get("data") if isinstance(value, dict) else value
        items = rows if isinstance(rows, list) else [value]
        numbers = list(range(1, len(items) + 1))
        if self.newest_first:
            items, numbers = items[::-1], numbers[::-1]
        for at in range(begin[0], len(items), 1000):
            some = [orjson.dumps(item, default=str) for item in items[at : at + 1000]]
            here = numbers[at : at + 1000]
            if self.newest_first:
                some.reverse()
            yield Block(min(here), some, (at + len(some), 1), (at + len(some)) / len(items))


def open_trace(path: Path) -> Trace:
    """What kind of file it is, by its beginning. Raises ConfigFault: it can't be read, or it is empty."""
    try:
        size = path.stat().st_size
        with path.open("rb") as raw:
            zipped = raw.read(2) == b"\x1f\x8b"
            raw.seek(0)
            head = (gzip.GzipFile(fileobj=raw) if zipped else raw).read(_HEAD_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        told = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise ConfigFault(f"can't read {path}: {told}") from None
    if not head.strip():
        raise ConfigFault(f"{path} is empty")
    array = _is_array(head)
    newest_first = _goes_back(path, zipped, array, head)
    if newest_first and zipped and not array:
        raise ConfigFault(f"{path} holds the newest requests first, and can't be read from its end: unpack it first")
    return Trace(path, size, zipped, array, newest_first, head)


def decoded(line: bytes) -> Any:
    """A line's value; numbers beyond a double's range come as decimals. Raises ValueError."""
    try:
        return orjson.loads(line)
    except ValueError:
        try:
            return exact_loads(line)
        except RecursionError:
            raise ValueError("nested too deeply") from None


def _is_array(head: bytes) -> bool:
    """Whether the whole file is one JSON value: an array, or an object over several lines."""
    text = head.lstrip()
    if text[:1] == b"[":
        return True
    first, end, _ = text.partition(b"\n")
    try:
        value = orjson.loads(first)
    except ValueError:
        return text[:1] == b"{" and bool(end) and len(first.strip()) <= 1
    return isinstance(value, dict) and isinstance(value.get("data"), list) and "model" not in value


def _goes_back(path: Path, zipped: bool, array: bool, head: bytes) -> bool:
    """Whether times fall: most steps of the first lines go back, and the whole does."""
    from farthing.proxy.replay_formats import recorded
    from farthing.proxy.replay_values import NotARequest

    times = []
    if array:
        values = next(iter(Trace(path, 0, zipped, True, False, head).blocks()), Block(1, [], (0, 1), 1.0)).lines
    else:
        values = head.split(b"\n")[:-1][:1000]
    for line in values:
        try:
            ts = recorded(decoded(line)).ts
        except (NotARequest, ValueError):
            continue
        if ts is not None:
            times.append(ts)
    steps = [after - before for before, after in pairwise(times)]
    falls, rises = sum(step < 0 for step in steps), sum(step > 0 for step in steps)
    return falls > 2 * rises and falls > 1 and times[-1] < times[0]


def _count_lines(source: IO[bytes]) -> int:
    source.seek(0)
    count, last = 0, b"\n"
    while block := source.read(BLOCK_BYTES):
        count += block.count(b"\n")
        last = block[-1:]
    return count + (last != b"\n")


def _whole_lines(source: IO[bytes], start: int, end: int) -> tuple[int, bytes]:
    """What stands before `end`, from the first line that begins at `start` or after it; further back for a long one."""
    while True:
        source.seek(max(0, start - 1))
        block = source.read(end - max(0, start - 1))
        if start == 0:
            return 0, block
        cut = block.find(b"\n") + 1
        if 0 < cut < len(block):
            return start - 1 + cut, block[cut:]
        start = max(0, start - BLOCK_BYTES)
