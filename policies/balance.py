"""Which of several replicas gets the next request. Pure; chance is handed in.

Source: Mitzenmacher, "The Power of Two Choices in Randomized Load Balancing", IEEE TPDS 2001: of two drawn at random
the one with less to do. That is nearly as even as the least of all, and many proxies that see the same loads don't all
run to the same replica.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Load", "least", "two_of"]


class Load(NamedTuple):
    """What speaks against a choice, the weightiest first. `in_flight`: requests under way there. `used_share`: of its
    key's rate limits. `own_in_flight`: requests under way with that key."""

    in_flight: int
    used_share: float = 0.0
    own_in_flight: int = 0


def two_of(count: int, chance: float) -> tuple[int, int]:
    """Two different numbers below `count` (at least 2), every ordered pair equally likely. `chance` in [0, 1)."""
    pair = int(chance * count * (count - 1))
    first, second = divmod(pair, count - 1)
    return first, second + (second >= first)


def least(loads: Sequence[Load], chance: float) -> int:
    """The less loaded one of two drawn at random; where they are equal, the one drawn first. Raises: no loads."""
    if len(loads) == 1:
        return 0
    first, second = two_of(len(loads), chance)
    return second if loads[second] < loads[first] else first
