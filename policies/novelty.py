"""Does an effect last? The first days of something new are no measure of the time after. Pure.

Each period's effect (a difference of two arms with its variance) is regressed on time, weighted by what each period
knows: a slope towards zero that is surely there means that the effect decays. The verdict is looked at once, at the
end of the declared run; while it runs this says nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from farthing.policies.confidence import FEWEST, Sums
from farthing.policies.estimate import Interval
from farthing.policies.scipy_here import stats

__all__ = ["Novelty", "Period", "novelty"]

FEWEST_PERIODS = 7


class Period(NamedTuple):
    """One period's outcomes of both arms. `at`: when, in any unit."""

    at: float
    one: Sums
    other: Sums


@dataclass(frozen=True, slots=True)
class Novelty:
    """`slope`: of the effect in a unit of time. `settled`: the effect of the second half alone."""

    word: Literal["steady", "decays", "grows", "too short"]
    slope: Interval
    p: float
    settled: Interval


def novelty(periods: Sequence[Period], level: float = 0.05) -> Novelty:
    """Whether the effect changes over time. Weighted least squares; p from the normal approximation.

    'decays' and 'grows' are towards and away from zero, by the sign of the mean effect. Periods of fewer than `FEWEST`
    outcomes of an arm are left out: their variances are too uncertain to be weights.
    """
    told = [one for one in periods if min(one.one.count, one.other.count) >= FEWEST]
    known = [(one.at, *_effect(one)) for one in told]
    usable = [(at, effect, 1 / variance) for at, effect, variance in known if variance > 0]
    nothing = Interval(math.nan, -math.inf, math.inf)
    if len(usable) < FEWEST_PERIODS:
        return Novelty("too short", nothing, 1.0, nothing)
    weight = sum(w for _, _, w in usable)
    middle = sum(w * at for at, _, w in usable) / weight
    effect = sum(w * e for _, e, w in usable) / weight
    spread = sum(w * (at - middle) ** 2 for at, _, w in usable)
    if spread <= 0:
        return Novelty("too short", nothing, 1.0, nothing)
    slope = sum(w * (at - middle) * e for at, e, w in usable) / spread
    normal = stats().norm
    error = 1 / math.sqrt(spread)
    p = float(2 * normal.sf(abs(slope) / error))
    reach = float(normal.ppf(1 - level / 2)) * error
    word: Literal["steady", "decays", "grows"] = "steady"
    if p < level:
        word = "decays" if slope * effect < 0 else "grows"
    return Novelty(word, Interval(slope, slope - reach, slope + reach), p, _settled(usable, level))


def _effect(one: Period) -> tuple[float, float]:
    return one.one.mean - one.other.mean, one.one.variance / one.one.count + one.other.variance / one.other.count


def _settled(usable: Sequence[tuple[float, float, float]], level: float) -> Interval:
    late = sorted(usable)[len(usable) // 2 :]
    weight = sum(w for _, _, w in late)
    effect = sum(w * e for _, e, w in late) / weight
    reach = float(stats().norm.ppf(1 - level / 2)) / math.sqrt(weight)
    return Interval(effect, effect - reach, effect + reach)
