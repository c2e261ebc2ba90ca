"""Does an effect last? The first days of something new are no measure of the time after. Pure.

Each period's effect (a difference of two arms with its variance) is regressed on time, weighted by what each period
knows: a slope towards zero that is surely there means that the effect decays. It may be looked at always: the slope
has a confidence sequence, and `p` is valid at every look.

Rules of this file:
1. A period counts once both arms have `FEWEST` outcomes in it: an effect's variance has to be known, not guessed.
2. Nothing is said before `FEWEST_PERIODS` periods count, and how wide bets are spread is fixed by these first ones.

Sources: Lindon, Ham, Tingley & Bojinov, Anytime-valid linear models and regression adjusted causal inference in
randomized experiments (arXiv 2210.08589), for known variances: a mixture over slopes from N(0, tau^2), an intercept
that is nothing to the purpose; Ville's inequality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from farthing.policies.confidence import FEWEST, Sums
from farthing.policies.estimate import Interval

__all__ = ["FEWEST_PERIODS", "Novelty", "Period", "novelty"]

FEWEST_PERIODS = 7


class Period(NamedTuple):
    """One period's outcomes of both arms. `at`: when, in any unit."""

    at: float
    one: Sums
    other: Sums


@dataclass(frozen=True, slots=True)
class Novelty:
    """`slope`: of the effect in a unit of time, with its confidence sequence. `p`: that there is none."""

    word: Literal["steady", "decays", "grows", "too short"]
    slope: Interval
    p: float


class _Known(NamedTuple):
    """A period's effect, and what is known of it: one over its variance."""

    at: float
    effect: float
    weight: float


def novelty(periods: Sequence[Period], level: float = 0.05) -> Novelty:
    """Whether the effect changes over time, however often one looks: P(it is ever said of a steady one) <= `level`.

    Weighted least squares, normal approximation within each period. 'decays' and 'grows' are towards and away from
    zero, by the sign of the mean effect.
    """
    known = sorted(one for one in map(_of, periods) if one is not None)
    first = _spread(known[:FEWEST_PERIODS])
    if len(known) < FEWEST_PERIODS or first <= 0:
        return Novelty("too short", Interval(math.nan, -math.inf, math.inf), 1.0)
    weight = sum(one.weight for one in known)
    middle = sum(one.weight * one.at for one in known) / weight
    effect = sum(one.weight * one.effect for one in known) / weight
    spread = _spread(known)  # one over the slope's variance
    slope = sum(one.weight * (one.at - middle) * one.effect for one in known) / spread
    # The prior's variance is that of the first periods' slope: tightest at about twice as many periods.
    grown = 1 + spread / first
    log_e = slope * slope * spread * (1 - 1 / grown) / 2 - math.log(grown) / 2
    reach = math.sqrt(2 * math.log(math.sqrt(grown) / level) / (spread * (1 - 1 / grown)))
    p = math.exp(-max(0.0, log_e))
    word: Literal["steady", "decays", "grows"] = "steady"
    if p < level:
        word = "decays" if slope * effect < 0 else "grows"
    return Novelty(word, Interval(slope, slope - reach, slope + reach), p)


def _of(period: Period) -> _Known | None:
    one, other = period.one, period.other
    if min(one.count, other.count) < FEWEST:
        return None
    variance = one.variance / one.count + other.variance / other.count
    return _Known(period.at, one.mean - other.mean, 1 / variance) if variance > 0 else None


def _spread(known: Sequence[_Known]) -> float:
    """The weighted sum of squared deviations of the periods' times."""
    weight = sum(one.weight for one in known)
    if not weight:
        return 0.0
    middle = sum(one.weight * one.at for one in known) / weight
    return sum(one.weight * (one.at - middle) ** 2 for one in known)
