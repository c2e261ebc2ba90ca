"""How far apart are two bounded means, at least, however often one looks? Bets on both arms together. Pure.

Two arms' outcomes are independent, so the capital of bets on one times the capital of bets on the other is fair money
too, whatever the two means are. A pair of means is refuted once that product reaches 1/level; the difference is at
least the least one that no pair left has. Two intervals, one for each arm at half of the level, would have to allow
that both arms are as unlucky as can be at once: this allows for bad luck in all.

Rules of this file:
1. Bets are fixed beforehand, and a share of each capital is kept back for where the other arm says all. Evidence is two
   sums (policies/sequence.py).
2. The logarithm of the capital is convex in the means, so every point has a tangent below it, and each tangent gives a
   true bound. The search only looks for the tightest: however it ends, the bound holds.

Sources: Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting (JRSS B 2024, arXiv 2010.09686):
capital processes; Turner & Grünwald, Exact anytime-valid confidence intervals for contingency tables and beyond (arXiv
2203.09785): two streams, the least over a convex set of pairs; Ville's inequality; Boyd & Vandenberghe, Convex
Optimization, 5.2: duality.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

from farthing.policies.sequence import Bets, Evidence

__all__ = ["FALLS", "RISES", "apart", "least"]

_SPLITS, _STEPS = 11, 12
_FAR = 8.0  # logarithm of odds: one arm pays less than a thousandth
_NEAR = 1e-4  # of a logarithm
_ROUNDING = 1e-9
_MOST = 1.0 - 1e-9
_STRENGTHS = (0.02, 0.05, 0.13, 0.35, 0.9, 2.3)
"""Logarithms of odds. Two and a half times apart, none is far from the best one."""
_KEPT = 0.2
_EACH = (1.0 - _KEPT) / len(_STRENGTHS)
RISES = Bets((1.0, *(math.exp(one) for one in _STRENGTHS)), (_KEPT, *(_EACH for _ in _STRENGTHS)))
FALLS = Bets((1.0, *(math.exp(-one) for one in _STRENGTHS)), (_KEPT, *(_EACH for _ in _STRENGTHS)))


def apart(one: Evidence, other: Evidence, level: float) -> tuple[float, float]:
    """The mean of `one` minus the mean of `other` leaves it, at any time whatever, with probability `level` at most."""
    return least(one, other, level / 2), -least(other, one, level / 2)


def least(one: Evidence, other: Evidence, level: float) -> float:
    """What the mean of `one` less that of `other` falls short of, at any time, with probability `level` at most."""
    if min(one.seen, other.seen) <= 0:
        return -1.0
    goal, best = math.log(1.0 / level), -1.0
    rises, falls = _Arm.of(one, RISES), _Arm.of(other, FALLS)
    # Which share of the goal `one` pays, as odds, beyond what is kept back: at the tightest both arms' slopes are
    # equal, and the more it pays the steeper its own is.
    low, high, whole = -_FAR, _FAR, goal - 2 * math.log(_KEPT)
    up, down = rises.at(rises.mean), falls.at(falls.mean)
    for _ in range(_SPLITS):
        odds = (low + high) / 2
        up = rises.where(math.log(_KEPT) + whole / (1 + math.exp(-odds)), -1.0, up.mean)
        down = falls.where(goal - up.value, 1.0, down.mean)
        if down.mean == _MOST:
            up = rises.where(goal - down.value, -1.0, up.mean)  # the other can't pay its part
        best = max(best, _bound(up, down, goal))
        low, high = (odds, high) if -up.slope < down.slope else (low, odds)
    return max(-1.0, best - _ROUNDING)


class _Point(NamedTuple):
    """A claimed mean, the logarithm of an arm's capital there, and its slope."""

    mean: float
    value: float
    slope: float


@dataclass(frozen=True, slots=True)
class _Arm:
    """An arm's mean, about how far off it may be, and of each bet: what it has at a claimed mean of 0, and its odds
    less 1."""

    seen: float
    mean: float
    error: float
    bets: tuple[tuple[float, float], ...]

    @classmethod
    def of(cls, evidence: Evidence, bets: Bets) -> _Arm:
        mean = min(_MOST, evidence.bad / evidence.seen)
        error = math.sqrt(max(mean * (1.0 - mean), 1.0 / evidence.seen) / evidence.seen)
        held = [
            (math.log(share) + evidence.bad * math.log(odds), odds - 1.0)
            for share, odds in zip(bets.shares, bets.odds, strict=True)
        ]
        return cls(evidence.seen, mean, error, tuple(held))

    def at(self, mean: float) -> _Point:
        """The capital there."""
        seen = self.seen
        terms = [
            (begins - seen * math.log(1.0 + more * mean), more / (1.0 + more * mean)) for begins, more in self.bets
        ]
        top = max([term for term, _ in terms])
        total = steep = 0.0
        for term, slope in terms:
            weight = math.exp(term - top)
            total += weight
            steep += weight * slope
        return _Point(mean, top + math.log(total), -seen * steep / total)

    def where(self, goal: float, way: float, begin: float) -> _Point:
        """About where the capital reaches the goal, looked for from `begin` on; at most the end that lies that way."""
        found, reach, end = self.at(begin), self.error / 2, _MOST if way > 0 else 0.0
        while found.value < goal and found.mean != end:
            found, reach = self.at(_inside(found.mean + way * reach)), 2.0 * reach
        for _ in range(_STEPS):  # Newton's, from where it is too much: a convex function's never go too far
            if found.value - goal < _NEAR or not found.slope:
                break
            found = self.at(_inside(found.mean - (found.value - goal) / found.slope))
        return found


def _inside(mean: float) -> float:
    return min(_MOST, max(0.0, mean))


def _bound(up: _Point, down: _Point, goal: float) -> float:
    """What the difference is at least, by the tangent at two means: for every price of capital it is a true bound."""
    found = -1.0
    for slope in (-up.slope, down.slope):
        if slope > 0:
            price = 1.0 / slope
            flat = price * (up.value + down.value - goal - up.slope * up.mean - down.slope * down.mean)
            found = max(found, flat + min(0.0, 1.0 + up.slope * price) + min(0.0, down.slope * price - 1.0))
    return found
