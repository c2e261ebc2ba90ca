"""Which hours of a span roll-ups answer, and which minutes are read from the rows themselves. No IO.

Rules of this file: roll-ups begin at whole multiples of their length (UTC); every moment of the span is answered once.
A slice takes a roll-up only if all of it is within; where the rows are gone, the roll-up belongs to the slice in which
it begins.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["DAY_S", "HOUR_S", "MINUTE_S", "Piece", "Plan", "Slices", "covering", "plan"]

MINUTE_S, HOUR_S, DAY_S = 60, 3600, 86_400


class Piece(NamedTuple):
    """Roll-ups of one length that begin in [start_s, end_s), for one slice."""

    slice: int
    length_s: int
    start_s: int
    end_s: int


class Plan(NamedTuple):
    """Pieces of roll-ups, and the spans of time to be read from rows."""

    pieces: tuple[Piece, ...]
    raw: tuple[tuple[float, float], ...]


@dataclass(frozen=True, slots=True)
class Slices:
    """[since_s, until_s) in `count` equal slices."""

    since_s: float
    until_s: float
    count: int = 1

    @property
    def length_s(self) -> float:
        """Of one slice."""
        return (self.until_s - self.since_s) / self.count

    @property
    def sql(self) -> tuple[str, tuple[float, ...]]:
        """SQL for the slice of a row, and its parameters: the same arithmetic as `of`."""
        if self.count == 1:
            return "0", ()
        return "min(cast((ts - ?) / ? as integer), ?)", (self.since_s, self.length_s, self.count - 1)

    def of(self, moment_s: float) -> int:
        """The slice of a moment; -1 before the first, `count` after the last."""
        if moment_s < self.since_s:
            return -1
        if moment_s >= self.until_s:
            return self.count
        # The last slice takes the rounding of the division.
        return min(int((moment_s - self.since_s) / self.length_s), self.count - 1)


def plan(slices: Slices, lengths_s: Sequence[int], gone_s: float) -> Plan:
    """How to answer for `slices`. `lengths_s`: of roll-ups, longest first; each a multiple of the next. `gone_s`: rows
    before it are there no more, nor are minutes. A whole day's beginning."""
    step_s = lengths_s[-1]
    pieces: list[Piece] = []
    for i in range(slices.count):
        nominal_s = slices.since_s + i * slices.length_s
        begin_s = _first(slices, i, nominal_s, step_s, gone_s)
        end_s = max(begin_s, _first(slices, i + 1, nominal_s + slices.length_s, step_s, gone_s))
        # Where rows are there, the unit in which the slice ends is read from them.
        if end_s > begin_s and end_s > gone_s and slices.of(math.nextafter(end_s, -math.inf)) != i:
            end_s -= step_s
        pieces += [Piece(i, *each) for each in covering(begin_s, end_s, lengths_s)]
    raw, at_s = [], max(slices.since_s, gone_s)
    for piece in sorted(pieces, key=lambda piece: piece.start_s):
        if piece.start_s > at_s:
            raw.append((at_s, float(piece.start_s)))
        at_s = max(at_s, piece.end_s)
    if at_s < slices.until_s:
        raw.append((at_s, slices.until_s))
    return Plan(tuple(pieces), tuple(raw))


def covering(begin_s: int, end_s: int, lengths_s: Sequence[int]) -> list[tuple[int, int, int]]:
    """[begin_s, end_s) in as few and as long roll-ups as can be: (length, from, to). Both multiples of the shortest."""
    if begin_s >= end_s:
        return []
    longest, *rest = lengths_s
    first, last = -(-begin_s // longest) * longest, end_s // longest * longest
    if first >= last:
        return covering(begin_s, end_s, rest)
    return [*covering(begin_s, first, rest), (longest, first, last), *covering(last, end_s, rest)]


def _first(slices: Slices, i: int, nominal_s: float, step_s: int, gone_s: float) -> int:
    """The first unit that begins within slice `i` or later; for the first slice of rows that are gone, the unit that
    holds its beginning."""
    if nominal_s < gone_s:
        step_s = max(step_s, HOUR_S)
    at = math.floor(nominal_s / step_s) - 1
    if i == 0 and slices.since_s < gone_s:
        return (at + 1) * step_s
    while slices.of(float(at * step_s)) < i:
        at += 1
    return at * step_s
