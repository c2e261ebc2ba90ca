"""Sentences that say again what another passage says: overlapping chunks, versions of one document. Pure.

Two sentences of different passages are twins where they are the same but for white space and the point at the end: even
a single letter can be what tells group A from group I. Of twins, the one in the newest version stays, or the first
where the titles name no versions. A sentence is superseded where a newer version has the same one with other numbers.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from farthing.compress.outliers import make_of
from farthing.compress.units import Unit

__all__ = ["Twins", "twins"]

_FEWEST_WORDS = 5  # shorter sentences ('Yes, it does.') mean what they mean by their place
_VERSION = re.compile(
    r"\b(?:v|ver|version|rev|revision|release|edition|draft)[ .:#]?(\d{1,9}(?:\.\d{1,9}){0,4})\b", re.I
)
_DATE = re.compile(r"\b(\d{4})[-/.](\d{1,2})(?:[-/.](\d{1,2}))?\b")


class Twins(NamedTuple):
    """Indices of units: `repeats` can go without loss of a sentence; `superseded` are of an older version."""

    repeats: frozenset[int]
    superseded: frozenset[int]


def twins(units: Sequence[Unit]) -> Twins:
    """Cost: linear in the text."""
    newness = _newness(units)
    same: dict[str, list[int]] = {}
    alike: dict[str, list[int]] = {}
    for i, unit in enumerate(units):
        if unit.role != "item":
            continue
        words = unit.text.split()
        if len(words) >= _FEWEST_WORDS:
            plain = " ".join(words).rstrip(".!?;, ")
            same.setdefault(plain, []).append(i)
            if newness.get(unit.passage):
                alike.setdefault(make_of(plain.casefold()), []).append(i)
    repeats: set[int] = set()
    for group in same.values():
        if len(group) > 1:
            passage = units[_keeper(group, units, newness)].passage
            repeats |= {i for i in group if units[i].passage != passage}
    superseded: set[int] = set()
    for group in alike.values():
        if len({units[i].passage for i in group}) > 1:
            newest = max(newness[units[i].passage] for i in group)
            superseded |= {i for i in group if newness[units[i].passage] < newest}
    return Twins(frozenset(repeats), frozenset(superseded))


def _keeper(group: list[int], units: Sequence[Unit], newness: dict[int, tuple[int, ...]]) -> int:
    ranks = [newness.get(units[i].passage, ()) for i in group]
    if all(ranks) and len({*ranks}) > 1:
        return max(zip(ranks, group, strict=True))[1]
    return group[0]


def _newness(units: Sequence[Unit]) -> dict[int, tuple[int, ...]]:
    """The version or the date in each passage's title, as comparable numbers; nothing where no two titles differ."""
    versions: dict[int, tuple[int, ...]] = {}
    dates: dict[int, tuple[int, ...]] = {}
    for unit in units:
        if unit.role == "head":
            version = _VERSION.search(unit.text)
            date = _DATE.search(unit.text)
            if version:
                versions[unit.passage] = tuple(map(int, version[1].split(".")))
            if date:
                dates[unit.passage] = tuple(int(part or 0) for part in date.groups())
    return versions if len({*versions.values()}) > 1 else dates if len({*dates.values()}) > 1 else {}
