"""Rates: token buckets. Pure; time in seconds, handed in.

A bucket holds a minute's worth and fills at that pace. What is asked for beyond it waits. A single request that is
larger than the whole bucket passes when the bucket is full, and leaves it in debt: else it never could.

Clocks go wrong. One that goes ahead lets in what would run in meanwhile, a bucketful at most and what was owed; one
that goes back lets in nothing. What was stamped by a clock that was ahead waits for it `AHEAD_S` at most. That is for
one clock: two that differ by more, and stamp by turns, would let in their difference at each turn.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

from farthing.policies.budget import Subject
from farthing.proxy.errors import ClientFault

__all__ = ["AHEAD_S", "Buckets", "Level", "Rate", "Take", "give", "over_rate", "take", "take_all"]

AHEAD_S = 15.0
"""So far may a stamp be ahead of now: clocks of replicas differ by a little, and requests wait before they are counted.
Nothing runs in until now has come there. One that is further ahead was made by a clock that was wrong."""
_MINUTE_S = 60.0
_MOST_BUCKETS = 20_000

Unit = Literal["requests", "tokens"]


@dataclass(frozen=True, slots=True)
class Rate:
    """At most `per_min` of a unit in a minute, for each subject."""

    name: str
    unit: Unit
    per_min: int
    subject: Subject


class Take(NamedTuple):
    """What a request takes out of one bucket."""

    bucket: str
    amount: int
    rate: Rate
    subject: str


class Level(NamedTuple):
    """A bucket: what was in it at a moment."""

    held: float
    at_s: float


def filled(level: Level | None, per_min: int, now_s: float) -> Level:
    """The bucket now; one that is new is full. A clock that goes back fills nothing and empties nothing; from a stamp
    that is more than `AHEAD_S` ahead it goes on from now."""
    if level is None:
        return Level(float(per_min), now_s)
    at_s = now_s if misdated(level, now_s) else level.at_s
    passed_s = max(0.0, now_s - at_s)
    return Level(min(float(per_min), level.held + passed_s * per_min / _MINUTE_S), max(now_s, at_s))


def misdated(level: Level, now_s: float) -> bool:
    """Whether its stamp was made by a clock that was wrong."""
    return level.at_s > now_s + AHEAD_S


def take(level: Level | None, per_min: int, amount: int, now_s: float) -> tuple[Level, float]:
    """The bucket after `amount` was taken, and 0; or as it is, and for how many seconds to wait."""
    now = filled(level, per_min, now_s)
    lacks = min(amount, per_min) - now.held
    if lacks > 1e-9:
        return now, now.at_s - now_s + lacks * _MINUTE_S / per_min
    return Level(now.held - amount, now.at_s), 0.0


def take_all(
    takes: Sequence[Take], find: Callable[[str], Level | None], now_s: float
) -> tuple[int, float, list[tuple[str, Level]]]:
    """Take from all buckets or from none: -1 and 0, or where to wait longest and how long; then what is to be kept.

    Of a refusal that is what goes on from now: it would never fill if it were forgotten that it does.
    """
    after: list[tuple[str, Level]] = []
    anew: list[tuple[str, Level]] = []
    short, longest_s = -1, 0.0
    for place, one in enumerate(takes):
        before = find(one.bucket)
        level, wait_s = take(before, one.rate.per_min, one.amount, now_s)
        after.append((one.bucket, level))
        if before is not None and misdated(before, now_s):
            anew.append((one.bucket, filled(before, one.rate.per_min, now_s)))
        if wait_s > longest_s:
            short, longest_s = place, wait_s
    return short, longest_s, after if short < 0 else anew


def give(level: Level | None, per_min: int, amount: int, now_s: float) -> Level:
    """The bucket after `amount` came back; less than nothing: after as much more was used than was taken."""
    now = filled(level, per_min, now_s)
    return Level(min(float(per_min), now.held + amount), now.at_s)


@dataclass(slots=True)
class Buckets:
    """All buckets of one process."""

    levels: dict[str, Level] = field(default_factory=dict)

    def take(self, takes: Sequence[Take], now_s: float) -> tuple[int, float]:
        """Take from all of them or from none. Returns -1 and 0, or where to wait longest and how long."""
        short, longest_s, kept = take_all(takes, self.levels.get, now_s)
        for bucket, level in kept:
            self._put(bucket, level)
        return short, longest_s

    def give(self, takes: Sequence[Take], amount: int, now_s: float) -> None:
        """Put the same amount back into each."""
        for one in takes:
            self._put(one.bucket, give(self.levels.get(one.bucket), one.rate.per_min, amount, now_s))

    def _put(self, bucket: str, level: Level) -> None:
        # The one that was used longest ago goes: by then it is most likely full, which is what a new one is.
        self.levels.pop(bucket, None)
        self.levels[bucket] = level
        if len(self.levels) > _MOST_BUCKETS:
            del self.levels[next(iter(self.levels))]


def over_rate(one: Take, wait_s: float) -> ClientFault:
    """The 429 for a request beyond a rate: which one, how much, and when to come back."""
    rate = one.rate
    of = f" for {rate.subject.of.removeprefix('tag:')} {one.subject!r}" if one.subject else ""
    return ClientFault(
        f"the rate limit {rate.name!r}{of} ({rate.per_min} {rate.unit} a minute) is reached; "
        f"try again in {wait_s:.1f} s",
        status=429,
        code="rate_limit_exceeded",
        kind="tokens" if rate.unit == "tokens" else "requests",
        param=f"rate_limits.{rate.name}",
        retry_after_s=math.ceil(wait_s),
    )
