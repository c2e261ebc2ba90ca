"""Where a prompt is to be marked for the provider's cache, and for how long it should be kept. Pure.

A mark costs: what is written is dearer than what is only read, by a quarter or, for an hour, by as much again. It earns
when a later request begins with the same prefix in time, and reads it at a tenth. Let p be the chance of that, r what
reading costs and w what writing costs, each as a share of the ordinary price. Whoever marks a prefix each time pays in
the long run p*r + (1-p)*w for it, and who doesn't pays 1. So a mark saves

    p * (1 - r) - (1 - p) * (w - 1)        a token and request

which is more than nothing from p = 0.22 on for w = 1.25, and from 0.53 on for w = 2 (r = 0.1). Prefixes lie one in the
other and the longer ones return less often; so each piece between two marks is reckoned with the chance of the mark
behind it. What the provider has now is read for certain if it is marked again.

Rules of this file:
1. The client's own marks stand. They count against what is allowed, and what they save isn't ours.
2. Never more marks than are allowed, never a longer life behind a shorter one (Anthropic refuses that).
3. A prefix below the provider's least length isn't marked: nothing would come of it.

Sources: compress/provider_cache.py, whose values are handed in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Life", "Marking", "Place", "Terms", "as_left", "mark"]

_LEAST_GAIN_TOKENS = 1.0  # less than one token's price isn't worth a changed body


class Life(NamedTuple):
    """How long something may be kept: `name` as the provider says it ('': its usual one), `window`: the number of the
    chance that applies, `write`: what writing costs, as a share of the ordinary price."""

    name: str
    window: int
    write: float


class Terms(NamedTuple):
    """The provider's. `lives`: the longest first. `read`: what reading costs, as a share of the ordinary price.
    `look_back_blocks`: how far before a mark an earlier one's prefix is found; 1: only at it."""

    minimum_tokens: int
    most_marks: int
    look_back_blocks: int
    read: float
    lives: Sequence[Life]


class Place(NamedTuple):
    """Where a mark may stand, or stands. `tokens`: of the prefix that ends there, `block`: its number, `chances`: see
    prefix_returns.Returns. `warm`: the provider has this prefix. `own`: the number of the life of the client's mark;
    None: it has none there. `markable`: whether one may stand there; if not, only the provider by itself caches it."""

    tokens: int
    block: int
    chances: Sequence[float]
    warm: bool = False
    own: int | None = None
    markable: bool = True


class Marking(NamedTuple):
    """`marks`: the places' numbers and the lives' of those that are ours. `gain_tokens`: what they are expected to
    save, in tokens at the ordinary price, against the client's own marks alone."""

    marks: tuple[tuple[int, int], ...] = ()
    gain_tokens: float = 0.0


NOTHING = Marking()


class _Way(NamedTuple):
    """A choice of marks up to some place."""

    value: float
    marks: tuple[tuple[int, int], ...] = ()


def mark(places: Sequence[Place], terms: Terms, before: float | None = None) -> Marking:
    """The marks that are expected to save most, if any do. `places`: the shortest prefix first; those that may be
    marked and those that the client marked. `before`: what the request saves as it is, in tokens; None: what the
    client's own marks do.

    Cost: the square of the number of places, some tens of microseconds for six.
    """
    own = tuple((number, place.own) for number, place in enumerate(places) if place.own is not None)
    room = terms.most_marks - len(own)
    value = _value(places, terms, own) if before is None else before
    if room <= 0 or not places:
        return NOTHING
    best = _best(places, terms, room)
    ours = tuple(one for one in best.marks if places[one[0]].own is None)
    gain = best.value - value
    return Marking(ours, gain) if gain >= _LEAST_GAIN_TOKENS and (ours or before is not None) else NOTHING


def as_left(places: Sequence[Place], terms: Terms) -> float:
    """What a provider saves that reads and writes everything by itself, in tokens: negative where it writes in vain."""
    last = terms.lives[-1]
    return sum(_piece(places, terms, number - 1, number, last) for number in range(len(places)))


def _best(places: Sequence[Place], terms: Terms, room: int) -> _Way:
    """Of all allowed choices that keep the client's marks. `ways[(last place, life, marks of ours)]`."""
    ways: dict[tuple[int, int, int], _Way] = {(-1, 0, 0): _Way(0.0)}
    must = -1  # the client's last mark so far: no way may pass it over
    all_lives = tuple(reversed(range(len(terms.lives))))  # of equals the shortest one
    for number, place in enumerate(places):
        if place.own is None and (place.tokens < terms.minimum_tokens or not place.markable):
            continue
        lives = all_lives if place.own is None else (place.own,)
        for (last, life_before, used), way in list(ways.items()):
            if last < must or (place.own is None and used == room):
                continue
            for life in lives:
                if life < life_before:
                    continue  # a longer one behind a shorter one
                value = way.value + _piece(places, terms, last, number, terms.lives[life])
                at = (number, life, used + (place.own is None))
                if at not in ways or value > ways[at].value:
                    ways[at] = _Way(value, (*way.marks, (number, life)))
        must = number if place.own is not None else must
    return max((way for at, way in ways.items() if at[0] >= must), key=lambda way: way.value, default=_Way(0.0))


def _value(places: Sequence[Place], terms: Terms, marks: Sequence[tuple[int, int]]) -> float:
    """What these marks save, in tokens."""
    befores = (-1, *(number for number, _ in marks))
    pairs = zip(befores, marks, strict=False)
    return sum(_piece(places, terms, before, number, terms.lives[life]) for before, (number, life) in pairs)


def _piece(places: Sequence[Place], terms: Terms, before: int, number: int, life: Life) -> float:
    """What the tokens between two marks save, in tokens at the ordinary price."""
    place = places[number]
    if place.tokens < terms.minimum_tokens:
        return 0.0
    start = places[before].tokens if before >= 0 else 0
    known = start
    for earlier in range(number, before, -1):
        if places[earlier].warm and place.block - places[earlier].block < terms.look_back_blocks:
            known = places[earlier].tokens
            break
    chance = place.chances[life.window]
    rate = chance * (1 - terms.read) - (1 - chance) * (life.write - 1)
    return (known - start) * (1 - terms.read) + (place.tokens - known) * rate
