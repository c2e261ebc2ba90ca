"""What the texts of one route have in common, found online: instructions, or a pasted document, before or after what
varies. Pure; deterministic in what it was shown.

A text is cut only at borders: white space after a line's end or a clause's. For each border it is counted how many
different texts of the route begin, and how many end, with the very characters up to there. What is common is long,
several texts have it, and the count did not fall along its last stretch; where it falls, texts branch.

Rules of this file:
1. Finding is a guess, dividing is exact: `prefix + varying + suffix` is the text, character for character, and
   `wall_of` hashes prefix and suffix whole. A wrong guess costs hits; it can't bring two common parts together.
2. No text is kept, only counts under numbers. Two borders under one number cost hits, as a wrong guess does.
3. Memory is bounded whatever comes: of two generations of counts the older is forgotten when the younger is full.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from zlib import crc32

__all__ = ["LEAST_CHARS", "MOST_CHARS", "Parts", "Templates", "wall_of"]

# Shorter common parts hardly dilute an embedding, and natural questions may share as much by chance.
LEAST_CHARS = 200
MOST_CHARS = 65_536
# Along this last stretch the count must hold: how questions begin is shorter. One text in five may leave, since the
# first questions about a document may all begin with one sentence; the border moves back once there are others.
_HELD_CHARS = 100
_HOLDS = 0.8
# With two or three, the rewordings of one long question would be taken for a template, each behind a wall of its own
# (measured: docs/semantic-templates.md).
_LEAST_TEXTS = 4
_MOST_BORDERS = 1_024
_MOST_COUNTS = 65_536
_BORDER = re.compile(r"[.:;?!>|\n]\s*")
_PREFIX, _SUFFIX, _ALL = range(3)


@dataclass(frozen=True, slots=True)
class Parts:
    """A text in three: `prefix + varying + suffix` is the text. Where nothing is common, all of it varies."""

    prefix: str
    varying: str
    suffix: str

    @property
    def whole(self) -> bool:
        """Whether nothing is common."""
        return not self.prefix and not self.suffix


class Templates:
    """Learns from the texts of any number of routes.

    `most_counts`: of borders remembered, some 100 bytes each. `least_texts`: how many must share what is called common.
    """

    def __init__(self, most_counts: int = _MOST_COUNTS, least_texts: int = _LEAST_TEXTS) -> None:
        self._half = max(most_counts // 2, 1)
        self._least = least_texts
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def __len__(self) -> int:
        return len(self._young) + len(self._old)

    def divide(self, route: str, text: str, *, learn: bool = True) -> Parts:
        """The text divided by what the route's texts, itself among them, have in common. O(len(text)).

        `learn`: count this text, unless it was counted before.
        """
        whole = Parts("", text, "")
        if not LEAST_CHARS < len(text) <= MOST_CHARS:
            return whole
        gaps = _gaps(text)
        if not 0 < len(gaps) <= _MOST_BORDERS:
            return whole
        size, seed = len(text), crc32(route.encode("utf-8", "surrogatepass"))
        itself = _number(_ALL, size, crc32(_raw(text), seed))
        before = [end for _, end in gaps]
        after = [start for start, _ in reversed(gaps)]
        lengths = [size - at for at in after]
        begun = _marks(_PREFIX, before, [text[one:two] for one, two in pairwise([0, *before])], seed)
        ended = _marks(_SUFFIX, lengths, [text[two:one] for one, two in pairwise([size, *after])], seed)
        new = not self._count(itself)
        head = _common(before, [self._count(mark) + new for mark in begun], self._least)
        tail = size - _common(lengths, [self._count(mark) + new for mark in ended], self._least)
        if learn and new:
            self._learn((itself, *begun, *ended))
        if tail <= head:
            tail = size
        return Parts(text[:head], text[head:tail], text[tail:])

    def _count(self, mark: int) -> int:
        return self._young.get(mark) or self._old.get(mark, 0)

    def _learn(self, marks: Sequence[int]) -> None:
        for mark in marks:
            self._young[mark] = self._count(mark) + 1
        if len(self._young) > self._half:
            self._old, self._young = self._young, {}


def wall_of(scope: str, parts: Parts) -> str:
    """The scope narrowed to one common part: 32 hex digits over scope, prefix and suffix, none of them cut."""
    digest = hashlib.sha256(b"farthing-template-1")
    for piece in (scope, parts.prefix, parts.suffix):
        raw = _raw(piece)
        digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()[:32]


def _gaps(text: str) -> list[tuple[int, int]]:
    """Where the white space of each border begins and ends; none at the text's own ends."""
    found = []
    for match in _BORDER.finditer(text):
        start, end = match.span()
        if text[start] != "\n":
            start += 1
        if 0 < start < end < len(text):
            found.append((start, end))
    return found


def _common(lengths: Sequence[int], counts: Sequence[int], least: int) -> int:
    """How much of a text is common: the longest of `lengths` (ascending) that qualifies; 0: none does.

    `counts`: how many texts share that much. `least`: how many must.
    """
    longest, near = 0, 0
    for length, count in zip(lengths, counts, strict=True):
        if count < least:
            break
        while lengths[near] < length - _HELD_CHARS:
            near += 1
        if length >= LEAST_CHARS and count >= _HOLDS * counts[near]:
            longest = length
    return longest


def _marks(side: int, lengths: Sequence[int], pieces: Sequence[str], seed: int) -> list[int]:
    """A number for each run of pieces from the first on; `lengths`: of the runs."""
    found, check = [], seed
    for length, piece in zip(lengths, pieces, strict=True):
        check = crc32(_raw(piece), check)
        found.append(_number(side, length, check))
    return found


def _number(side: int, length: int, check: int) -> int:
    return length << 34 | side << 32 | check


def _raw(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
