"""How far apart are two bounded means, at least, however often one looks? Bets on both arms together. Pure.

Two arms' outcomes are independent, so the capital of bets on one times the capital of bets on the other is fair money
too, whatever the two means are. A pair of means is refuted once that product reaches 1/level; the difference is at
least the least one that no pair left has. Two intervals, one for each arm at half of the level, would have to allow that
both arms are as unlucky as can be at once: this allows for bad luck in all.

Rules of this file:
1. Bets are fixed beforehand, and a share of each capital is kept back for where the other arm says all. Evidence is two
   sums (policies/sequence.py).
2. The logarithm of the capital is convex in the means, so every point has a tangent below it, and each tangent gives a
   true bound. Newton's steps only look for the tightest: however they end, the bound holds.

Sources: Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting (JRSS B 2024, arXiv 2010.09686):
capital processes; Turner & Grünwald, Exact anytime-valid confidence intervals for contingency tables and beyond (arXiv
2203.09785): two streams, the least over a convex set of pairs; Ville's inequality; Boyd & Vandenberghe, Convex
Optimization, 5.2: duality.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from farthing.policies.sequence import Bets, Evidence

__all__ = ["FALLS", "RISES", "apart", "least"]

_STEPS = 40
_NEAR = 1e-7
_ROUNDING = 1e-9
_MOST = 1.0 - 1e-9  # a bet on 'none is bad' divides by nothing at 1
_BEGINS = 3.5  # standard errors: near where bounds lie
_STRENGTHS = (0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Logarithms of odds. Twice apart, none is far from the best one."""
_KEPT = 0.25
_EACH = (1.0 - _KEPT) / len(_STRENGTHS)
RISES = Bets((1.0, *(math.exp(one) for one in _STRENGTHS)), (_KEPT, *(_EACH for _ in _STRENGTHS)))
FALLS = Bets((1.0, *(math.exp(-one) for one in _STRENGTHS)), (_KEPT, *(_EACH for _ in _STRENGTHS)))


def apart(one: Evidence, other: Evidence, level: float) -> tuple[float, float]:
    """The mean of `one` minus the mean of `other` leaves it, at any time whatever, with probability `level` at most."""
    return least(one, other, level / 2), -least(other, one, level / 2)


def least(one: Evidence, other: Evidence, level: float) -> float:
    """What the mean of `one` minus the mean of `other` falls short of, at any time, with probability `level` at most."""
    if min(one.seen, other.seen) <= 0:
        return -1.0
    goal, best = math.log(1.0 / level), -1.0
    high, low = _begin(one, other)
    for _ in range(_STEPS):
        up, down = _at(one, RISES, high), _at(other, FALLS, low)
        found = _bound(up, down, high, low, goal)
        if found > best and found - best < _NEAR:
            best = found
            break
        best = max(best, found)
        # The two slopes equal, the capital at its goal: Newton's step in both means.
        excess = up.value + down.value - goal
        bends = up.bend - down.bend * up.slope / down.slope if down.slope > 0 else 0.0
        if not bends > 0:
            break
        step = (down.bend * excess / down.slope - up.slope - down.slope) / bends
        high_to = min(_MOST, max(0.0, high + step))
        low_to = low - (excess + up.slope * (high_to - high)) / down.slope
        high, low = high_to, min(_MOST, max(0.0, low_to))
    return max(-1.0, best - _ROUNDING)


class _Point(NamedTuple):
    """The logarithm of an arm's capital at a claimed mean, its slope there and its bend."""

    value: float
    slope: float
    bend: float


def _at(evidence: Evidence, bets: Bets, mean: float) -> _Point:
    terms, slopes = [], []
    for share, odds in zip(bets.shares, bets.odds, strict=True):
        held = 1.0 + (odds - 1.0) * mean
        terms.append(math.log(share) + evidence.bad * math.log(odds) - evidence.seen * math.log(held))
        slopes.append((1.0 - odds) / held)
    top = max(terms)
    weights = [math.exp(term - top) for term in terms]
    total = sum(weights)
    seen = evidence.seen
    first = sum(weight * slope for weight, slope in zip(weights, slopes, strict=True)) / total
    second = sum(weight * slope * slope for weight, slope in zip(weights, slopes, strict=True)) / total
    bend = seen * second + seen * seen * (second - first * first)
    return _Point(top + math.log(total), seen * first, bend)


def _bound(up: _Point, down: _Point, high: float, low: float, goal: float) -> float:
    """What the difference is at least, by the tangent at (high, low): for every price of capital it is a true bound."""
    found = -1.0
    for slope in (-up.slope, down.slope):
        if slope > 0:
            price = 1.0 / slope
            flat = price * (up.value + down.value - goal - up.slope * high - down.slope * low)
            found = max(found, flat + min(0.0, 1.0 + up.slope * price) + min(0.0, down.slope * price - 1.0))
    return found


def _begin(one: Evidence, other: Evidence) -> tuple[float, float]:
    """Means that are about as unlucky as the goal allows."""
    errors, means = [], []
    for arm in (one, other):
        mean = min(1.0, arm.bad / arm.seen)
        means.append(mean)
        errors.append(max(mean * (1.0 - mean), 1.0 / arm.seen) / arm.seen)
    reach = _BEGINS / math.sqrt(sum(errors))
    return min(_MOST, max(0.0, means[0] - reach * errors[0])), min(_MOST, max(0.0, means[1] + reach * errors[1]))
