"""Lines that stand in an earlier message already, by a reference to them that decodes to the same characters. Pure.

    [The 12 lines from “def load(path):” to “return rows” of message 3 above, again.]

Rules of this file:
1. A text is looked at in the light of the texts before it and of nothing else, so what was written stays as it is while
   the conversation grows.
2. A reference can be followed by its words: it begins at the one line of that message that reads so. Where no line of a
   block reads like no other, the block stays.
3. Whole lines only, and at least `least_tokens` of them: a reference costs some thirty.
4. A text that holds such a reference of its own is left alone.

Linear in all texts together: a line is looked up in at most four places.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

__all__ = ["decode_repeats", "encode_repeats"]

_REFERENCE = re.compile(
    r"\[The (?:line “([^”\n]{1,80})”|([1-9][0-9]{0,6}) lines from “([^”\n]{1,80})” to “([^”\n]{0,80})”)"
    r" of message ([1-9][0-9]{0,6}) above, again\.\]"
)
_QUOTED_CHARS = 56
_FEWEST_QUOTED_CHARS = 8
_FEWEST_CHARS = 160  # shorter blocks aren't worth a count
_MOST_PLACES = 4


class _Block(NamedTuple):
    """Lines `start` to `start + lines` of the text number `message`, from 0."""

    message: int
    start: int
    lines: int


def encode_repeats(
    text: str, earlier: Sequence[str], count: Callable[[str], int], least_tokens: int = 64
) -> str | None:
    """The text with references in place of lines that `earlier` holds; None where there are none worth it.

    `earlier`: the texts of the messages before it, in order, as the model sees them; message 1 is the first. `count`:
    tokens of a text.
    """
    if len(text) < _FEWEST_CHARS or not earlier:
        return None
    lines = text.split("\n")
    if any(map(_REFERENCE.fullmatch, lines)):
        return None
    sources = list(map(_source, earlier))
    places = _places(sources)
    short: list[str] = []
    at = 0
    while at < len(lines):
        block = _longest(lines, at, sources, places)
        if block is not None:
            same = "\n".join(lines[at : at + block.lines])
            reference = _reference(block, sources[block.message].lines)
            if len(same) >= _FEWEST_CHARS and count(same) >= max(least_tokens, count(reference) + 1):
                short.append(reference)
                at += block.lines
                continue
        short.append(lines[at])
        at += 1
    written = "\n".join(short)
    return written if written != text and decode_repeats(written, earlier) == text else None


def decode_repeats(short: str, earlier: Sequence[str]) -> str | None:
    """The text that the references stand in; None where one can't be followed."""
    sources: dict[int, _Source] = {}
    out: list[str] = []
    for line in short.split("\n"):
        found = _REFERENCE.fullmatch(line)
        if found is None:
            out.append(line)
            continue
        message = int(found[5])
        if message > len(earlier):
            return None
        if message not in sources:
            sources[message] = _source(earlier[message - 1])
        block = _followed(found, sources[message])
        if block is None:
            return None
        out += block
    return "\n".join(out)


class _Source(NamedTuple):
    """An earlier text. `starts`: where the line with these first words is, -1 where several lines begin so."""

    lines: Sequence[str]
    starts: dict[str, int]


def _source(text: str) -> _Source:
    lines = text.split("\n")
    starts: dict[str, int] = {}
    for i, line in enumerate(lines):
        words = _words(line)
        starts[words] = -1 if words in starts else i
    return _Source(lines, starts)


def _followed(found: re.Match[str], source: _Source) -> Sequence[str] | None:
    """The lines that a reference names."""
    only, lines, first, last, _ = found.groups()
    start = source.starts.get(only or first, -1)
    if start < 0:
        return None
    block = source.lines[start : start + int(lines or 1)]
    return block if only or (len(block) == int(lines) and _words(block[-1]) == last) else None


def _places(sources: Sequence[_Source]) -> dict[str, list[tuple[int, int]]]:
    """Of each line that reads like no other of its message, where it stands: (message, line)."""
    places: dict[str, list[tuple[int, int]]] = {}
    for message, source in enumerate(sources):
        for words, start in source.starts.items():
            if start >= 0 and len(words) >= _FEWEST_QUOTED_CHARS and "”" not in words:
                known = places.setdefault(source.lines[start], [])
                if len(known) < _MOST_PLACES:
                    known.append((message, start))
    return places


def _words(line: str) -> str:
    """What a reference quotes of a line: its beginning, at a word's end where there is one."""
    bare = line.strip()
    if len(bare) <= _QUOTED_CHARS:
        return bare
    return bare[: _QUOTED_CHARS + 1].rpartition(" ")[0].rstrip() or bare[:_QUOTED_CHARS]


def _longest(
    lines: Sequence[str], at: int, sources: Sequence[_Source], places: dict[str, list[tuple[int, int]]]
) -> _Block | None:
    """The longest run of lines from `at` on that an earlier text holds; of equal ones the earliest."""
    best: _Block | None = None
    for message, start in places.get(lines[at], ()):
        same = sum(1 for _ in _same(lines, at, sources[message].lines, start))
        while same > 1 and "”" in _words(lines[at + same - 1]):
            same -= 1
        if best is None or same > best.lines:
            best = _Block(message, start, same)
    return best


def _same(lines: Sequence[str], at: int, source: Sequence[str], start: int) -> Iterator[int]:
    while at < len(lines) and start < len(source) and lines[at] == source[start]:
        yield at
        at += 1
        start += 1


def _reference(block: _Block, source: Sequence[str]) -> str:
    first = _words(source[block.start])
    if block.lines == 1:
        return f"[The line “{first}” of message {block.message + 1} above, again.]"
    last = _words(source[block.start + block.lines - 1])
    return f"[The {block.lines} lines from “{first}” to “{last}” of message {block.message + 1} above, again.]"
