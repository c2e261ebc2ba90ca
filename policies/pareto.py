"""Cheaper, faster, better: which ways of answering give nothing away, and which are beaten on every count. Pure.

Rules of this file:
1. A way is on the front where no other is at least as good on every measure and better on one (Pareto).
2. It is *surely* dominated only where another is as good or better on every measure with the intervals apart. Where
   they overlap, another sample might have said otherwise.
3. What isn't known is not a zero: a way without a measure that others have is compared with none of them.

Each interval is one of 95 % for itself; that several hold together is a little less sure.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

__all__ = ["Measure", "Point", "Verdict", "judge", "measures_of"]

Verdict = Literal["front", "dominated", "surely dominated", "unknown"]


class Measure(NamedTuple):
    """A value with its interval; an end that isn't known is infinite."""

    value: float
    low: float = -math.inf
    high: float = math.inf


class Point(NamedTuple):
    """One way of answering. `measures`: by name; None where not known. Less is better, but for the `better` ones."""

    name: str
    measures: Mapping[str, Measure | None]
    better: frozenset[str] = frozenset({"quality"})


def measures_of(points: Sequence[Point]) -> tuple[str, ...]:
    """What the points are compared by: every measure that any of them has."""
    names = dict.fromkeys(name for point in points for name in point.measures)
    return tuple(name for name in names if any(point.measures.get(name) is not None for point in points))


def judge(points: Sequence[Point]) -> list[tuple[Verdict, str]]:
    """For each point its verdict, and the name of the one that dominates it ('' where none does)."""
    names = measures_of(points)
    known = [point for point in points if all(point.measures.get(name) is not None for name in names)]
    found: list[tuple[Verdict, str]] = []
    for point in points:
        if point not in known or not names:
            found.append(("unknown", ""))
            continue
        sure = next(
            (other.name for other in known if other is not point and _beats(other, point, names, sure=True)), ""
        )
        maybe = next((other.name for other in known if other is not point and _beats(other, point, names)), "")
        found.append(("surely dominated", sure) if sure else ("dominated", maybe) if maybe else ("front", ""))
    return found


def _beats(one: Point, other: Point, names: Sequence[str], *, sure: bool = False) -> bool:
    better = False
    for name in names:
        mine, theirs = one.measures[name], other.measures[name]
        assert mine is not None and theirs is not None
        sign = -1 if name in one.better else 1
        if sure:
            worst, best = (mine.high, theirs.low) if sign == 1 else (mine.low, theirs.high)
        else:
            worst, best = mine.value, theirs.value
        if sign * worst > sign * best:
            return False
        better = better or sign * worst < sign * best
    return better
