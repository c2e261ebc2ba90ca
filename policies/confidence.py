"""How sure is it, however often one looks? Confidence sequences for means and their differences. Pure.

An interval of estimate.py covers the truth at one moment that was chosen beforehand. Who looks every day and stops
when it looks well is wrong far more often than it says. These intervals cover the truth at all moments at once, with
probability 1 - level: looking, stopping early and going on are all allowed.

Rules of this file:
1. An arm is its running sums; order and moments of looking change nothing.
2. Bounded outcomes (right or wrong, a rating) get a bound that holds for every distribution (policies/sequence.py, and
   for two arms policies/sequence_pair.py).
3. Unbounded ones (cost, latency, revenue) get the asymptotic sequence, which needs some hundred outcomes to hold, and
   says nothing before `FEWEST`.

Sources: Waudby-Smith, Arbour, Sinha, Kennedy & Ramdas, Time-uniform central limit theory and asymptotic confidence
sequences (arXiv 2103.06476), theorem 2.2; Johari, Koomen, Pekelis & Walsh, Peeking at A/B tests (KDD 2017), mixture
SPRT; the delta method for ratios: van der Vaart, Asymptotic Statistics, chapter 3.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from farthing.policies.estimate import Interval
from farthing.policies.sequence import Evidence
from farthing.policies.sequence_pair import apart

__all__ = ["FEWEST", "RatioSums", "Sums", "bounded_difference", "difference", "evidence", "mean", "ratio_mean", "sprt"]

FEWEST = 30  # outcomes of an arm, before an asymptotic sequence says anything
_TIGHTEST_AT = 1_000.0  # outcomes: where the sequence is narrowest


@dataclass(frozen=True, slots=True)
class Sums:
    """Count, mean and sum of squared deviations of one arm's outcomes (Welford), which can be merged (Chan et al.)."""

    count: int = 0
    mean: float = 0.0
    m2: float = 0.0

    def add(self, value: float) -> Sums:
        """With one more outcome. ValueError: not finite."""
        if not math.isfinite(value):
            raise ValueError(f"an outcome is a finite number: {value!r}")
        count = self.count + 1
        delta = value - self.mean
        mean = self.mean + delta / count
        return Sums(count, mean, self.m2 + delta * (value - mean))

    def merge(self, other: Sums) -> Sums:
        """Of both."""
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        return Sums(
            count,
            self.mean + delta * other.count / count,
            self.m2 + other.m2 + delta * delta * self.count * other.count / count,
        )

    @classmethod
    def of(cls, values: Iterable[float]) -> Sums:
        """Of all these."""
        found = cls()
        for value in values:
            found = found.add(value)
        return found

    @property
    def variance(self) -> float:
        """Of one outcome; 0 below two."""
        return self.m2 / (self.count - 1) if self.count > 1 else 0.0


def mean(arm: Sums, level: float = 0.05) -> Interval:
    """An arm's mean, for outcomes without bounds."""
    if arm.count < FEWEST:
        return Interval(arm.mean if arm.count else math.nan, -math.inf, math.inf)
    reach = _reach(arm.count, arm.variance, level)
    return Interval(arm.mean, arm.mean - reach, arm.mean + reach)


def difference(one: Sums, other: Sums, level: float = 0.05) -> Interval:
    """The first arm's mean minus the second's, for independent arms whose shares are fixed, outcomes without bounds."""
    if not (one.count and other.count):
        return Interval(math.nan, -math.inf, math.inf)
    value = one.mean - other.mean
    if min(one.count, other.count) < FEWEST:
        return Interval(value, -math.inf, math.inf)
    # As one mean of n outcomes with the same variance: n is the harmonic size of both arms.
    size = one.count * other.count / (one.count + other.count)
    variance = size * (one.variance / one.count + other.variance / other.count)
    reach = _reach(size, variance, level)
    return Interval(value, value - reach, value + reach)


def bounded_difference(one: Evidence, other: Evidence, level: float = 0.05) -> Interval:
    """The same for outcomes in [0, 1], for every distribution, from the first outcome: bets on both arms together."""
    return Interval(_rate(one) - _rate(other), *apart(one, other, level))


def evidence(arm: Sums) -> Evidence:
    """Of outcomes in [0, 1]: what sequence.py counts with."""
    return Evidence(float(arm.count), min(float(arm.count), max(0.0, arm.count * arm.mean)))


def sprt(one: Sums, other: Sums, scale: float) -> float:
    """An always-valid p-value that both arms have the same mean: the mixture SPRT with effects from N(0, scale^2).

    P(it ever falls to `level`) <= level, asymptotically. Looked at over time, the least one so far counts. 1 before
    `FEWEST` outcomes of each arm, or where nothing varies.
    """
    if min(one.count, other.count) < FEWEST or scale <= 0:
        return 1.0
    variance = one.variance / one.count + other.variance / other.count
    if variance <= 0:
        return 1.0
    tau = scale * scale
    effect = one.mean - other.mean
    log_e = 0.5 * math.log(variance / (variance + tau)) + effect * effect * tau / (2 * variance * (variance + tau))
    return min(1.0, math.exp(-log_e)) if log_e < 700 else 0.0


class RatioSums(NamedTuple):
    """Sums over units (users, sessions) of a ratio metric: clicks per view, cost per session."""

    units: int = 0
    above: float = 0.0
    below: float = 0.0
    above2: float = 0.0
    below2: float = 0.0
    cross: float = 0.0

    def add(self, above: float, below: float) -> RatioSums:
        """With one more unit's numerator and denominator."""
        return RatioSums(
            self.units + 1,
            self.above + above,
            self.below + below,
            self.above2 + above * above,
            self.below2 + below * below,
            self.cross + above * below,
        )


def ratio_mean(arm: RatioSums) -> Sums:
    """A ratio metric as if each unit had one outcome: its mean is the ratio, its variance the delta method's."""
    n = arm.units
    if n < 2 or arm.below == 0:
        return Sums(n, arm.above / arm.below if arm.below else math.nan, 0.0)
    ratio, below = arm.above / arm.below, arm.below / n
    squares = arm.above2 - 2 * ratio * arm.cross + ratio * ratio * arm.below2  # of above - ratio x below, mean 0
    return Sums(n, ratio, max(0.0, squares) / (below * below))


def _rate(of: Evidence) -> float:
    return of.bad / of.seen if of.seen else math.nan


def _reach(size: float, variance: float, level: float) -> float:
    """Half of the asymptotic sequence's width (theorem 2.2), narrowest at _TIGHTEST_AT outcomes."""
    tune = -2 * math.log(level)
    rho2 = (tune + math.log(tune + 1)) / _TIGHTEST_AT
    grown = size * rho2 + 1
    return math.sqrt(variance * 2 * grown / (size * size * rho2) * math.log(math.sqrt(grown) / level))
