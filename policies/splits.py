"""Training, validation and test parts in the order of time, so that nothing leaks from what came later. Pure.

What is learnt from the past must be tested on the future. A random split puts tomorrow's questions, and copies of the
same question, on both sides, and every figure looks better than it is.

Rules of this file:
1. Parts are consecutive in time.
2. Items of one group (equal, or nearly equal) stay in the part of the group's first member; those that come later, in
   another part's time, are left out.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

__all__ = ["Parts", "groups_of", "in_time"]


class Parts(NamedTuple):
    """Each part's items by their places, in the order of time. `left_out`: copies of what an earlier part holds."""

    parts: tuple[tuple[int, ...], ...]
    left_out: tuple[int, ...]


def in_time(times_s: Sequence[float], groups: Sequence[Hashable], shares: Sequence[float]) -> Parts:
    """Parts of about those shares of the items. ValueError: lists of other lengths, or shares that don't sum to 1."""
    if len(times_s) != len(groups):
        raise ValueError("one group for each item")
    if not shares or min(shares) < 0 or abs(sum(shares) - 1) > 1e-9:
        raise ValueError("shares are at least 0 and sum to 1")
    order = sorted(range(len(times_s)), key=lambda at: (times_s[at], at))
    parts: list[list[int]] = [[] for _ in shares]
    home: dict[Hashable, int] = {}
    left_out = []
    part, ends = 0, _ends(shares, len(order))
    for rank, at in enumerate(order):
        while rank >= ends[part]:
            part += 1
        if home.setdefault(groups[at], part) == part:
            parts[part].append(at)
        else:
            left_out.append(at)
    return Parts(tuple(map(tuple, parts)), tuple(left_out))


def _ends(shares: Sequence[float], count: int) -> list[int]:
    whole, ends = 0.0, []
    for share in shares:
        whole += share
        ends.append(round(whole * count))
    ends[-1] = count
    return ends


def groups_of(count: int, pairs: Iterable[tuple[int, int]]) -> list[int]:
    """Each item's group, where the items of every pair belong together (union-find); its name is its first member."""
    root = list(range(count))

    def find(at: int) -> int:
        while root[at] != at:
            root[at] = root[root[at]]
            at = root[at]
        return at

    for one, other in pairs:
        a, b = find(one), find(other)
        root[max(a, b)] = min(a, b)
    return [find(at) for at in range(count)]
