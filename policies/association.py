"""Do features still hang together as they did: longer requests with tools, hits with one language? Pure.

Requests are taken in twos, each request in one of them. Of two that differ in both features, both go the same way (the
one that is longer has tools) or against each other. The share that goes the same way says how features hang together:
one half is not at all, and 2 x share - 1 is Goodman and Kruskal's gamma, a rank correlation from -1 to 1. For two
features of two values each the share is odds ratio / (1 + odds ratio), and for a length and one of two values the
chance that a random request of the one sort is longer than one of the other. So more tools alone, or more hits alone,
move nothing here: only how they go together does.

Rules of this file:
1. Twos don't overlap, and a tie in either feature is no observation: kept waiting for a better partner, a request would
   make the share depend on how frequent each value is.
2. Each observation is a bin of a series of two (watch_series.py), watched as all others are: the false-alarm rate is
   theirs (shares.py), whatever the order and however the series hang together.
3. Languages have no order; that of `LANGUAGES` is as good as any as long as it stays.

Source: Goodman & Kruskal, Measures of association for cross classifications (JASA 49, 1954); for 2 x 2 it is Yule's Q
(1900), a function of the odds ratio alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations
from typing import NamedTuple

__all__ = ["FEATURES", "PAIRS", "Pairing", "Traits", "gamma", "series_of"]

FEATURES = ("length", "tools", "language", "hit")
PAIRS = tuple(combinations(FEATURES, 2))


class Traits(NamedTuple):
    """Of one request: tokens, whether it offers tools, its language's place, whether a cache answered. None: unknown,
    or it couldn't have been."""

    length: int | None
    tools: int | None
    language: int | None
    hit: int | None


def series_of(one: str, other: str) -> str:
    """The name of the series of two features."""
    return f"{one}_with_{other}"


def gamma(share: float) -> float:
    """The rank correlation, of the share that goes the same way."""
    return 2.0 * share - 1.0


class Pairing:
    """Takes requests in twos. One thread at a time; a restart loses half a pair."""

    def __init__(self) -> None:
        self._waiting: Traits | None = None

    def add(self, traits: Traits) -> Iterator[tuple[str, int]]:
        """The observations that are complete with this request: series and bin, 1 for the same way."""
        first, self._waiting = self._waiting, traits if self._waiting is None else None
        if first is None:
            return
        ways = {name: _way(getattr(first, name), getattr(traits, name)) for name in FEATURES}
        for one, other in PAIRS:
            if ways[one] * ways[other]:
                yield series_of(one, other), int(ways[one] == ways[other])


def _way(before: int | None, after: int | None) -> int:
    return 0 if before is None or after is None else (after > before) - (after < before)
