"""Whether replicas hold the same: what each says of the last marks, compared. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

__all__ = ["Compared", "Held", "compare"]

Held = Mapping[int, tuple[int, str]]
"""By mark: how many entries, and the sum of their stamps."""


class Compared(NamedTuple):
    """How many others there are, how many of them were at a mark of ours, which ones then held something else, and the
    last mark at which anything could be compared."""

    others: int
    compared: int
    differing: frozenset[str]
    seq: int


def compare(ours: Held, others: Mapping[str, Held]) -> Compared:
    """Each of the others at the last mark that both of us have."""
    compared: list[int] = []
    differing: set[str] = set()
    for name, theirs in others.items():
        both = ours.keys() & theirs.keys()
        if both:
            compared.append(max(both))
            if ours[compared[-1]] != theirs[compared[-1]]:
                differing.add(name)
    return Compared(len(others), len(compared), frozenset(differing), max(compared, default=0))


def last(held: Held, most: int) -> Held:
    """The last few marks."""
    kept: Iterable[int] = sorted(held)[-most:]
    return {seq: held[seq] for seq in kept}
