"""A sample that looks like production: stratified, and weighted where it can't be in proportion. Pure.

Each stratum gets cases in proportion to its share (largest remainders), but at least `least` as far as it has any, so
that rare kinds are seen at all. A case of stratum h then stands for N_h / n_h requests: the weighted share of every
stratum is production's exactly, and weighted means are those of production (Cochran, Sampling Techniques, 3rd ed.,
chapter 5).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from typing import NamedTuple, TypeVar

__all__ = ["Drawn", "allocation", "stratified"]

T = TypeVar("T")


class Drawn(NamedTuple):
    """`at`: the item's place in what was drawn from. `weight`: how much of production it stands for."""

    at: int
    weight: float


def allocation(sizes: Sequence[float], capacities: Sequence[int], size: int, least: int = 1) -> list[int]:
    """How many of each stratum. `sizes`: each one's share of production, in any unit; `capacities`: how many distinct
    cases it has. ValueError: a size below 0, or lists of other lengths.
    """
    if len(sizes) != len(capacities) or any(one < 0 for one in sizes):
        raise ValueError("one size of at least 0 for each stratum")
    found = [min(least, capacity) if share > 0 else 0 for share, capacity in zip(sizes, capacities, strict=True)]
    left = size - sum(found)
    if left < 0:  # not even one of each: the largest strata first
        order = sorted(range(len(sizes)), key=lambda at: (-sizes[at], at))
        found = [0] * len(sizes)
        for at in order[:size]:
            found[at] = min(1, capacities[at])
        return found
    whole = sum(sizes)
    while left > 0 and whole > 0:
        # Whoever is furthest below its proportion is next; strata that have no more cases are full.
        lacking = [
            (share / whole * size - count, -at)
            for at, (share, count) in enumerate(zip(sizes, found, strict=True))
            if count < capacities[at] and share > 0
        ]
        if not lacking:
            break
        found[-max(lacking)[1]] += 1
        left -= 1
    return found


def stratified(
    items: Sequence[T],
    stratum_of: Callable[[T], Hashable],
    share_of: Callable[[T], float],
    size: int,
    rng: random.Random,
    least: int = 1,
) -> list[Drawn]:
    """At most `size` of the items, drawn without replacement within each stratum, in the items' order.

    `share_of`: for how many requests an item stands already (repeats count). Within a stratum each item has the same
    chance, and its weight is its own share scaled so that the stratum's weights sum to the stratum's share.
    """
    strata: dict[Hashable, list[int]] = {}
    for at, item in enumerate(items):
        strata.setdefault(stratum_of(item), []).append(at)
    groups = list(strata.values())
    sizes = [sum(share_of(items[at]) for at in group) for group in groups]
    counts = allocation(sizes, [len(group) for group in groups], size, least)
    found = []
    for group, whole, count in zip(groups, sizes, counts, strict=True):
        if count:
            chosen = rng.sample(group, count)
            held = sum(share_of(items[at]) for at in chosen)
            found += [Drawn(at, share_of(items[at]) * whole / held) for at in chosen]
    return sorted(found)
