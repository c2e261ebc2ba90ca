"""What may be said of an experiment, however often somebody looks. Pure.

Rules of this file:
1. What decides was declared before the start: the metric, its kind and direction, the level, the shortest run.
2. Where the arms didn't get their shares nothing else is said: the assignment is broken, and so is every difference.
3. All intervals are confidence sequences; several candidates share the level, and so do guardrails.
4. 'Undecided' is an answer, and says about how many units are still needed.

Sources: confidence.py, cuped.py, srm.py, novelty.py name theirs. Benjamini & Hochberg (JRSS B 1995) for slices.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal, NamedTuple

from farthing.policies.confidence import (
    FEWEST,
    RatioSums,
    Sums,
    bounded_difference,
    difference,
    ratio_mean,
    sprt,
)
from farthing.policies.cuped import PairSums, adjusted
from farthing.policies.estimate import Interval
from farthing.policies.estimate import adjusted as many_adjusted
from farthing.policies.experiment_sums import ArmSums, Kind, Tracker
from farthing.policies.novelty import Novelty, Period, novelty
from farthing.policies.sequence import Evidence
from farthing.policies.sequence_pair import least as lowest
from farthing.policies.srm import mismatch_p

__all__ = [
    "SRM_LEVEL", "Effect", "GuardReading", "Measure", "Reading", "SliceReading", "Word", "effect", "guard", "lasting",
    "read", "shares_p", "slices", "units_needed",
]  # fmt: skip

Word = Literal["better", "worse", "not different enough", "undecided"]
SRM_LEVEL = 0.001  # an alarm stops everything, so it must be rare
_POWER = 0.8
_HELPS = 0.02  # share of variance from which a covariate is used
_MOST_UNITS = 10**9
_STEPS, _FASTEST = 40, 64.0
_ABOUT = 3.6  # standard errors that intervals reach


@dataclass(frozen=True, slots=True)
class Measure:
    """A metric as it was declared. `up`: more is better. `alone`: each request is its own unit. `least`: the smallest
    difference that matters; 0: none was declared."""

    kind: Kind
    up: bool
    alone: bool
    level: float = 0.05
    bounds: tuple[float, float] | None = None
    least: float = 0.0


class Effect(NamedTuple):
    """One candidate against the control. `control`, `candidate`: their values; `apart`: candidate minus control.
    `deviation`: of one unit. `gone`: share of variance that the covariate took. `method`: 'bounded', 'asymptotic'."""

    control: float
    candidate: float
    units: tuple[int, int]
    apart: Interval
    deviation: float
    gone: float
    method: str


class Reading(NamedTuple):
    """`word` of the candidate; `final`: the experiment may end with it. `needed`: further units in each arm for a
    verdict, about; None where it can't be said, 0 where there is one."""

    word: Word
    final: bool
    why: str
    needed: int | None


class GuardReading(NamedTuple):
    """A guardrail. `worse`: by how much the candidate is worse, at least, at most. `broken`: surely by too much."""

    metric: str
    worse: Interval
    at_most: float
    broken: bool


class SliceReading(NamedTuple):
    """A slice of the decision metric. `p`: adjusted for the number of slices, valid at every look."""

    name: str
    value: str
    units: tuple[int, int]
    apart: Interval
    p: float
    word: str


def shares_p(tracker: Tracker, shares: Sequence[float]) -> float:
    """The p-value that units fell into the arms by the declared shares; the least so far counts."""
    return mismatch_p([sums.units for sums in tracker.sums], shares)


def effect(measure: Measure, control: ArmSums, candidate: ArmSums, level: float) -> Effect:
    """The difference of two arms with its confidence sequence."""
    units = (control.units, candidate.units)
    if measure.kind == "ratio":
        one, other = (ratio_mean(RatioSums(*_six(sums))) for sums in (candidate, control))
        return _effect(measure, one, other, units, level, 0.0, one.mean, other.mean)
    mine, theirs = _plain(candidate), _plain(control)
    if measure.kind == "proportion" and measure.alone:
        return _bounded(measure, mine, theirs, units, level)
    one, other, gone = adjusted(PairSums(*_six(candidate)), PairSums(*_six(control)))
    if gone < _HELPS:
        one, other, gone = mine, theirs, 0.0
    return _effect(measure, one, other, units, level, gone, mine.mean, theirs.mean)


def read(measure: Measure, found: Effect, days: float, span: tuple[float, float], lasts: str = "") -> Reading:
    """What may be said after `days`; `span`: the declared least and most of them (0: no end). `lasts`: the novelty's
    word."""
    good = found.apart if measure.up else Interval(-found.apart.value, -found.apart.high, -found.apart.low)
    least, most = span
    word: Word = "undecided"
    if good.low > 0:
        word = "better"
    elif good.high < 0:
        word = "worse"
    elif measure.least and -measure.least < good.low and good.high < measure.least:
        word = "not different enough"
    over = bool(most) and days >= most
    if word == "undecided":
        why = "the longest run is over" if over else "its interval holds no difference and one that matters"
        return Reading("undecided", over, why, _still(measure, found))
    if days < least:
        return Reading("undecided", False, f"looks {word}, but {least - days:.1f} days of the shortest run are left", 0)
    if word == "better" and lasts == "decays" and not over:
        return Reading("undecided", False, "looks better, but the effect fades: it runs on", None)
    why = {
        "better": "its interval lies on the good side of no difference",
        "worse": "its interval lies on the bad side of no difference",
        "not different enough": "its interval lies within the least difference that matters",
    }[word]
    return Reading(word, True, f"{why}; but it fades" if lasts == "decays" and word == "better" else why, 0)


def guard(name: str, measure: Measure, found: Effect, at_most: float) -> GuardReading:
    """Whether a guardrail metric is surely worse than accepted."""
    apart = found.apart
    worse = Interval(-apart.value, -apart.high, -apart.low) if measure.up else apart
    return GuardReading(name, worse, at_most, worse.low > at_most)


def lasting(tracker: Tracker, candidate: int, level: float = 0.05) -> Novelty:
    """Whether a candidate's effect changes from day to day, however often that is asked."""
    periods = [
        Period(float(day), _plain(sums[candidate]), _plain(sums[0])) for day, sums in sorted(tracker.days.items())
    ]
    return novelty(periods, level)


def slices(
    measure: Measure, trackers: Mapping[tuple[str, str], Tracker], candidate: int, level: float
) -> list[SliceReading]:
    """Every slice, with p-values adjusted together. Raises ConfigFault: scipy isn't there."""
    found = []
    for (name, value), tracker in sorted(trackers.items()):
        seen = effect(measure, tracker.sums[0], tracker.sums[candidate], level)
        if min(seen.units) < 2:
            continue
        one, other = (_sums_of(measure, tracker.sums[arm]) for arm in (candidate, 0))
        p = sprt(one, other, max(measure.least, seen.deviation / 10))
        found.append(SliceReading(name, value, seen.units, seen.apart, p, ""))
    ps = many_adjusted([one.p for one in found])
    return [one._replace(p=p, word=_slice_word(measure, one, p, level)) for one, p in zip(found, ps, strict=True)]


def units_needed(measure: Measure, baseline: float, deviation: float, least: float, level: float) -> int | None:
    """Units of each arm until a difference of `least` is shown with probability 0.8, looking all the time; about.
    None: no number would do. ValueError: least isn't above 0."""
    if not least > 0:
        raise ValueError("the least difference that matters is above 0")
    power = NormalDist().inv_cdf(_POWER)
    n = max(FEWEST, min(_MOST_UNITS, math.ceil(2 * ((_ABOUT + power) * deviation / least) ** 2)))
    # What an interval reaches falls about as the root of n, so that a few steps are enough.
    for _ in range(_STEPS):
        reach = _reach(measure, baseline, deviation, least, n, level) + power * deviation * math.sqrt(2 / n)
        wanted = max(FEWEST, math.ceil(n * min(_FASTEST, reach / least) ** 2))
        if wanted > _MOST_UNITS:
            return None
        if abs(wanted - n) <= max(1, n // 50):
            return wanted
        n = wanted
    return n


def _reach(measure: Measure, baseline: float, deviation: float, least: float, n: int, level: float) -> float:
    """How far below a difference of `least` the interval of n units of each arm will reach."""
    if measure.kind == "proportion" and measure.alone:
        low, high = measure.bounds or (0.0, 1.0)
        share, more = (baseline - low) / (high - low), least / (high - low)
        one, other = (Evidence(n, n * part) for part in (share, share + more if share + more <= 1 else share - more))
        greater, smaller = (other, one) if other.bad > one.bad else (one, other)
        return least - lowest(greater, smaller, level / 2) * (high - low)
    m2 = deviation * deviation * (n - 1)
    return least - difference(Sums(n, baseline + least, m2), Sums(n, baseline, m2), level).low


def _still(measure: Measure, found: Effect) -> int | None:
    """Further units in each arm, about."""
    least = measure.least or abs(found.apart.value)
    if not (math.isfinite(found.deviation) and found.deviation > 0 and least > 0 and math.isfinite(least)):
        return None
    wanted = units_needed(measure, found.control, found.deviation, least, measure.level)
    return None if wanted is None else max(1, wanted - min(found.units))


def _six(sums: ArmSums) -> tuple[int, float, float, float, float, float]:
    return sums.units, sums.a, sums.b, sums.aa, sums.bb, sums.ab


def _plain(sums: ArmSums) -> Sums:
    n = sums.units
    return Sums(n, sums.a / n, max(0.0, sums.aa - sums.a * sums.a / n)) if n else Sums()


def _sums_of(measure: Measure, sums: ArmSums) -> Sums:
    return ratio_mean(RatioSums(*_six(sums))) if measure.kind == "ratio" else _plain(sums)


def _effect(
    measure: Measure, one: Sums, other: Sums, units: tuple[int, int], level: float, gone: float, value: float,
    control: float,
) -> Effect:  # fmt: skip
    deviation = math.sqrt((one.variance + other.variance) / 2)
    if min(one.variance, other.variance) <= _alike(one, other):
        # Nothing varied yet in an arm: an interval from its variance would have no width.
        if measure.bounds is not None and measure.kind != "ratio":
            return _bounded(measure, one, other, units, level)
        nothing = Interval(one.mean - other.mean if min(units) else math.nan, -math.inf, math.inf)
        return Effect(_told(control, units[0]), _told(value, units[1]), units, nothing, deviation, gone, "asymptotic")
    apart = difference(one, other, level)
    return Effect(_told(control, units[0]), _told(value, units[1]), units, apart, deviation, gone, "asymptotic")


def _alike(one: Sums, other: Sums) -> float:
    """What rounding leaves of a variance that is 0."""
    return 1e-9 * max(one.mean**2, other.mean**2, 1e-18) if one.count and other.count else 0.0


def _bounded(measure: Measure, one: Sums, other: Sums, units: tuple[int, int], level: float) -> Effect:
    low, high = measure.bounds or (0.0, 1.0)
    span = high - low

    def evidence(arm: Sums) -> Evidence:
        bad = arm.count * (arm.mean - low) / span
        return Evidence(float(arm.count), min(float(arm.count), max(0.0, bad)))

    found = bounded_difference(evidence(one), evidence(other), level)
    apart = Interval(found.value * span, found.low * span, found.high * span)
    deviation = math.sqrt((one.variance + other.variance) / 2)
    told = _told(other.mean, units[0]), _told(one.mean, units[1])
    return Effect(*told, units, apart, deviation, 0.0, "bounded")


def _told(value: float, units: int) -> float:
    return value if units else math.nan


def _slice_word(measure: Measure, one: SliceReading, p: float, level: float) -> str:
    if p >= level or one.apart.low <= 0 <= one.apart.high:
        return ""
    return "better" if (one.apart.value > 0) == measure.up else "worse"
