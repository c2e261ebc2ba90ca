"""What an experiment has seen, as running sums: of each unit while it may change, of each arm for ever. Pure.

Rules of this file:
1. A unit (a user, a session, a request) is what was assigned, so a unit is what counts as one: its requests together
   are one observation, or the noise would be underrated.
2. A word that is replaced is taken out and put in again; order changes nothing but the last digit.
3. Memory is bounded: units beyond the cap are told and left out, whichever arm they are in. A request that is its own
   unit needs no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, Literal, NamedTuple

__all__ = ["ArmSums", "Kind", "Seen", "Tracker"]

Kind = Literal["mean", "proportion", "ratio"]
DAY_S = 86_400.0
_MOST_DAYS = 400
_AT_ONCE = 1000


class Seen(NamedTuple):
    """What is known of one unit: the sum of its values and how many there are, and its requests."""

    total: float = 0.0
    words: int = 0
    requests: int = 0

    def plus(self, total: float, words: int, requests: int) -> Seen:
        """With more, or less."""
        return Seen(self.total + total, self.words + words, self.requests + requests)


@dataclass(slots=True)
class ArmSums:
    """Sums over units of two quantities and their products: outcome and covariate of a mean, numerator and denominator
    of a ratio."""

    units: int = 0
    a: float = 0.0
    b: float = 0.0
    aa: float = 0.0
    bb: float = 0.0
    ab: float = 0.0

    def put(self, a: float, b: float, sign: int) -> None:
        """One unit more (`sign` 1), or one less (-1)."""
        self.units += sign
        self.a += sign * a
        self.b += sign * b
        self.aa += sign * a * a
        self.bb += sign * b * b
        self.ab += sign * a * b


@dataclass(slots=True)
class Tracker:
    """One metric over all arms. `alone`: each request is its own unit. `before`: each unit's metric of the time before
    the start (the covariate), which nobody changes any more. `bounds`: what values are to be clamped to."""

    kind: Kind
    arms: int
    alone: bool
    most_units: int
    bounds: tuple[float, float] | None = None
    before: Mapping[str, float] = field(default_factory=dict)
    with_days: bool = False
    sums: list[ArmSums] = field(init=False)
    left_out: int = field(default=0, init=False)
    days: dict[int, list[ArmSums]] = field(default_factory=dict, init=False)
    _units: dict[tuple[int, str], Seen] = field(default_factory=dict, init=False)
    _today: dict[tuple[int, str], Seen] = field(default_factory=dict, init=False)
    _day: int = field(default=-1, init=False)

    def __post_init__(self) -> None:
        self.sums = [ArmSums() for _ in range(self.arms)]

    def clamped(self, value: float) -> float:
        """One value within the declared bounds."""
        return value if self.bounds is None else min(self.bounds[1], max(self.bounds[0], value))

    def add(
        self, arm: int, unit: str, day: int, total: float, words: int, requests: int, was: Seen | None = None
    ) -> None:
        """What a unit is known by changes by so much. `was`: before this, where each request is its own unit. `day`:
        number of the day since the start."""
        key = (arm, unit)
        if self.alone:
            before = was or Seen()
        else:
            found = self._units.get(key)
            if found is None and len(self._units) >= self.most_units:
                self.left_out += 1
                return
            before = found or Seen()
        now = before.plus(total, words, requests)
        self._move(self.sums[arm], unit, before, now)
        if not self.alone:
            self._units[key] = now
        if self.with_days:
            self._of_day(key, day, Seen(total, words, requests), was)

    def _move(self, sums: ArmSums, unit: str, before: Seen, now: Seen) -> None:
        for seen, sign in ((before, -1), (now, 1)):
            pair = self._pair(unit, seen)
            if pair is not None:
                sums.put(*pair, sign)

    def _pair(self, unit: str, seen: Seen) -> tuple[float, float] | None:
        """What a unit counts with; None where it doesn't count yet."""
        if self.kind == "ratio":
            return (seen.total, float(seen.requests)) if seen.requests > 0 else None
        return (seen.total / seen.words, self.before.get(unit, 0.0)) if seen.words > 0 else None

    def plain(self) -> dict[str, Any]:
        """All that was seen, as plain values."""
        return {
            "sums": [_listed(one) for one in self.sums],
            "left_out": self.left_out,
            "days": [[day, [_listed(one) for one in sums]] for day, sums in self.days.items()],
            "units": [[*key, *seen] for key, seen in self._units.items()],
            "today": [[*key, *seen] for key, seen in self._today.items()],
            "day": self._day,
        }

    def pieces(self) -> Iterator[list[Any]]:
        """The same as `plain`, at most a thousand units at a time."""
        yield ["sums", [_listed(one) for one in self.sums], self.left_out, self._day]
        for day, sums in self.days.items():
            yield ["day", day, [_listed(one) for one in sums]]
        for name, held in (("units", self._units), ("today", self._today)):
            found = iter(held.items())
            while some := [[*key, *seen] for key, seen in islice(found, _AT_ONCE)]:
                yield [name, some]

    def put_piece(self, piece: Sequence[Any]) -> None:
        """One of what `pieces` gave, into a new one. Raises TypeError, ValueError: it is something else."""
        kind, *rest = piece
        if kind == "sums":
            self.sums, self.left_out, self._day = [ArmSums(*one) for one in rest[0]], rest[1], rest[2]
        elif kind == "day":
            self.days[rest[0]] = [ArmSums(*one) for one in rest[1]]
        elif kind in ("units", "today"):
            held = self._units if kind == "units" else self._today
            held.update({(arm, unit): Seen(*seen) for arm, unit, *seen in rest[0]})
        else:
            raise ValueError(f"there is no piece {kind!r}")

    def still(self) -> Tracker:
        """A copy to be read, without what is remembered of units."""
        copy = replace(self)
        copy.left_out = self.left_out
        copy.sums = [replace(one) for one in self.sums]
        copy.days = {day: [replace(one) for one in sums] for day, sums in self.days.items()}
        return copy

    def take_out(self, unit: str) -> None:
        """What is known of a unit counts no more, until it is put back: its covariate is about to change."""
        self._count(unit, -1)

    def put_back(self, unit: str) -> None:
        """It counts again, with the covariate as it is now."""
        self._count(unit, 1)

    def _count(self, unit: str, sign: int) -> None:
        for arm in range(self.arms):
            seen = self._units.get((arm, unit))
            pair = None if seen is None else self._pair(unit, seen)
            if pair is not None:
                self.sums[arm].put(*pair, sign)

    def put_plain(self, plain: Mapping[str, Any]) -> None:
        """See what `plain` gave."""
        self.sums = [ArmSums(*one) for one in plain["sums"]]
        self.left_out, self._day = plain["left_out"], plain["day"]
        self.days = {day: [ArmSums(*one) for one in sums] for day, sums in plain["days"]}
        self._units = {(arm, unit): Seen(*seen) for arm, unit, *seen in plain["units"]}
        self._today = {(arm, unit): Seen(*seen) for arm, unit, *seen in plain["today"]}

    def _of_day(self, key: tuple[int, str], day: int, more: Seen, was: Seen | None) -> None:
        """A day's effect counts each unit once, by what is known of it that day; the latest day is still open. What
        comes late, of a unit whose day isn't remembered any more, counts as a unit of its own."""
        if day > self._day:
            self._today.clear()
            self._day = day
        if day not in self.days:
            if len(self.days) >= _MOST_DAYS:
                return
            self.days[day] = [ArmSums() for _ in range(self.arms)]
        if self.alone:
            before = was or Seen()
        elif day < self._day:
            before = Seen()
        else:
            if key not in self._today and len(self._today) >= self.most_units:
                return
            before = self._today.get(key, Seen())
            self._today[key] = before.plus(*more)
        for seen, sign in ((before, -1), (before.plus(*more), 1)):
            if self.kind == "ratio" and (seen.words or seen.requests):
                self.days[day][key[0]].put(seen.total, float(seen.requests), sign)
            elif self.kind != "ratio" and seen.words > 0:
                self.days[day][key[0]].put(seen.total / seen.words, 0.0, sign)


def _listed(sums: ArmSums) -> list[float]:
    return [sums.units, sums.a, sums.b, sums.aa, sums.bb, sums.ab]
