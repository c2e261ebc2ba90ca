"""How good is it, and how sure is that? Intervals and tests for a sample that was drawn once and is looked at once.
Pure.

What is looked at while it grows belongs to confidence.py. p-values and quantiles are scipy's.

Rules of this file:
1. An interval never collapses because everything looked alike: where few cases tell arms apart, a bound that holds for
   every distribution takes the bootstrap's place.
2. Weights are those of a designed sample (policies/sampling.py): the weighted mean is production's.
3. 'Not shown' is an answer. Every verdict that isn't one says how many cases would be one.

Sources: Clopper & Pearson (Biometrika 1934); Efron, Better Bootstrap Confidence Intervals (JASA 1987); McNemar (1947),
exact form; Benjamini & Hochberg (JRSS B 1995); Waudby-Smith & Ramdas (JRSS B 2024) for the bound of rule 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from farthing.policies.scipy_here import stats
from farthing.policies.sequence import Evidence, interval

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray

__all__ = [
    "Interval", "NonInferiority", "adjusted", "cases_needed", "detectable", "difference", "mcnemar", "mean",
    "not_worse", "permutation", "proportion", "quantile", "ratio",
]  # fmt: skip

_RESAMPLES = 4_000
_FEW_APART = 10  # of cases that differ: fewer make no bootstrap
_POWER = 0.8


class Interval(NamedTuple):
    """An estimate with both ends of its interval."""

    value: float
    low: float
    high: float


def proportion(count: int, of: int, level: float = 0.05) -> Interval:
    """A share, with Clopper and Pearson's exact interval: it covers at least 1 - level. Nothing seen: from 0 to 1."""
    if of == 0:
        return Interval(math.nan, 0.0, 1.0)
    found = stats().binomtest(count, of).proportion_ci(1 - level, method="exact")
    return Interval(count / of, float(found.low), float(found.high))


def mean(
    values: ArrayLike,
    rng: np.random.Generator,
    weights: ArrayLike | None = None,
    level: float = 0.05,
    bounds: tuple[float, float] | None = None,
) -> Interval:
    """A weighted mean with its interval: BCa bootstrap, or where the values hardly vary and `bounds` hold them, a bound
    that holds for every distribution within these. Without bounds, values that are all alike say nothing of what others
    are like: the interval is open."""
    x, w = _columns(values, weights)
    if x.size == 0:
        return Interval(math.nan, -math.inf if bounds is None else bounds[0], math.inf if bounds is None else bounds[1])
    value = float(x @ w / w.sum())
    usual = np.unique(x, return_counts=True)[1].max()
    if bounds is not None and x.size - usual < _FEW_APART:
        return _bounded(x, w, value, bounds, level)
    if usual == x.size:
        return Interval(value, -math.inf, math.inf)
    return Interval(value, *_bca((x, w), _weighted_mean, rng, level))


def difference(
    ones: ArrayLike,
    others: ArrayLike,
    rng: np.random.Generator,
    weights: ArrayLike | None = None,
    level: float = 0.05,
    span: float = 1.0,
) -> Interval:
    """The mean of `ones - others`, case by case. `span`: each value lies between 0 and this."""
    return mean(np.subtract(ones, others, dtype=float), rng, weights, level, (-span, span))


def ratio(
    ones: ArrayLike,
    others: ArrayLike,
    rng: np.random.Generator,
    weights: ArrayLike | None = None,
    level: float = 0.05,
) -> Interval:
    """The mean of `ones` over the mean of `others` (of money: which share of the other arm's cost), paired BCa.

    Below ten cases the interval is open. Where all cases have one ratio, those that weren't seen may have another: as
    many as fit with none among these (Clopper and Pearson), each costing nothing, or as much more as the others' mean.
    """
    x, w = _columns(ones, weights)
    y, _ = _columns(others, weights)
    below = float(y @ w) if y.size else 0.0
    if below <= 0:
        return Interval(math.nan, 0.0, math.inf)
    value = float(x @ w) / below
    if x.size < _FEW_APART:
        return Interval(value, 0.0, math.inf)
    if np.allclose(x, value * y, rtol=1e-9):
        unseen = 1 - (level / 2) ** (w.max() / w.sum())
        return Interval(value, value * (1 - unseen), value + unseen * max(1.0, value))
    return Interval(value, *_bca((x, y, w), _weighted_ratio, rng, level))


def quantile(values: ArrayLike, share: float, level: float = 0.05) -> Interval:
    """A quantile (0.99 for p99) with the exact distribution-free interval by order statistics (David & Nagaraja, Order
    Statistics, 7.1). Where the sample is too small for an end it is open: infinite, or 0."""
    x = np.sort(np.asarray(values, float))
    if x.size == 0:
        return Interval(math.nan, 0.0, math.inf)
    count = stats().binom(x.size, share)
    below, above = int(count.ppf(level / 2)), int(count.ppf(1 - level / 2)) + 1
    low = 0.0 if below < 1 else float(x[below - 1])
    high = math.inf if above > x.size else float(x[above - 1])
    return Interval(float(np.quantile(x, share, method="higher")), low, high)


def mcnemar(only_one: int, only_other: int) -> float:
    """The exact p-value that two arms are right equally often: of the cases where one is right, half are each's."""
    apart = only_one + only_other
    return 1.0 if apart == 0 else float(stats().binomtest(only_one, apart).pvalue)


def permutation(ones: ArrayLike, others: ArrayLike, rng: np.random.Generator) -> float:
    """The p-value that two arms' scores of the same cases are exchangeable, by swapping them (paired permutation
    test).
    """
    a, b = np.asarray(ones, float), np.asarray(others, float)
    if a.size == 0 or np.array_equal(a, b):
        return 1.0
    apart = a != b
    if set(np.unique(np.concatenate([a[apart], b[apart]]))) <= {0.0, 1.0}:
        return mcnemar(int((a > b).sum()), int((b > a).sum()))
    found = stats().permutation_test(
        (a, b), _mean_difference, permutation_type="samples", vectorized=True, n_resamples=9_999, rng=rng
    )
    return float(found.pvalue)


def adjusted(p_values: Sequence[float]) -> list[float]:
    """Benjamini and Hochberg's adjusted p-values: of those below q, a share of q is false on average at most."""
    return [] if not p_values else [float(p) for p in stats().false_discovery_control(p_values, method="bh")]


def cases_needed(deviation: float, effect: float, level: float = 0.05, power: float = _POWER, sides: int = 2) -> int:
    """How many paired cases (or per arm, with the deviation of a difference of two) show a mean of `effect`, with
    probability `power`. Normal approximation. A deviation of 0 needs 1; an effect of 0 can't be shown: ValueError."""
    if effect <= 0:
        raise ValueError("an effect that is to be shown is above 0")
    return max(1, math.ceil((_reach(level, power, sides) * deviation / effect) ** 2))


def detectable(deviation: float, cases: int, level: float = 0.05, power: float = _POWER, sides: int = 2) -> float:
    """The least mean that so many cases would show, with probability `power`."""
    return math.inf if cases == 0 else _reach(level, power, sides) * deviation / math.sqrt(cases)


@dataclass(frozen=True, slots=True)
class NonInferiority:
    """`word`: 'not worse', 'worse' (than by the margin) or 'inconclusive'. `difference`: candidate minus baseline; its
    interval's low end is one-sided at the level. `needed`: cases in all for a verdict, 0 where there is one, None
    where no number would help, since the estimate itself lies beyond the margin."""

    word: Literal["not worse", "worse", "inconclusive"]
    difference: Interval
    margin: float
    cases: int
    needed: int | None


def not_worse(
    candidate: ArrayLike,
    baseline: ArrayLike,
    margin: float,
    rng: np.random.Generator,
    weights: ArrayLike | None = None,
    level: float = 0.05,
) -> NonInferiority:
    """Whether the candidate's mean score lies less than `margin` below the baseline's. Scores lie in [0, 1]."""
    a, b = np.asarray(candidate, float), np.asarray(baseline, float)
    found = difference(a, b, rng, weights, 2 * level)  # both ends one-sided at the level
    if a.size and found.low > -margin:
        return NonInferiority("not worse", found, margin, a.size, 0)
    if a.size and found.high < -margin:
        return NonInferiority("worse", found, margin, a.size, 0)
    room = margin + (found.value if a.size else 0.0)
    if room <= 0:
        return NonInferiority("inconclusive", found, margin, a.size, None)
    return NonInferiority("inconclusive", found, margin, a.size, max(a.size + 1, _needed(a - b, room, level)))


def _needed(apart: Any, room: float, level: float) -> int:
    """About how many cases show a loss of less than the margin, if they go on as they began: enough that differ for the
    bootstrap, or enough for the bound that holds for every distribution."""
    # Cases that all agree needn't go on agreeing: rule of three for a deviation that hasn't been seen.
    deviation = float(np.std(apart, ddof=1)) if apart.size > 1 else 0.5
    usual = max(cases_needed(deviation, room, level, sides=1), math.ceil(2 * math.log(1 / level) / room))
    differ = int(np.count_nonzero(apart))
    if differ >= _FEW_APART or not apart.size:
        return usual
    margin = room - float(apart.mean())
    gains, losses = float(np.maximum(apart, 0).mean()), float(np.maximum(-apart, 0).mean())
    size = apart.size
    while size < 64 * apart.size and (
        interval(Evidence(size, size * gains), level)[0] - interval(Evidence(size, size * losses), level)[1] <= -margin
    ):
        size += max(1, apart.size // 4)
    by_bootstrap = max(usual, math.ceil(_FEW_APART * apart.size / differ)) if differ else size
    return int(min(size, by_bootstrap))


def _reach(level: float, power: float, sides: int) -> float:
    normal = stats().norm
    return float(normal.ppf(1 - level / sides) + normal.ppf(power))


def _columns(values: ArrayLike, weights: ArrayLike | None) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    x = np.asarray(values, float)
    return x, np.ones_like(x) if weights is None else np.asarray(weights, float)


def _bounded(x: Any, w: Any, value: float, bounds: tuple[float, float], level: float) -> Interval:
    """By betting. Where values lie on both sides of zero, gains and losses are bounded apart, each at half of the
    level: together they would look like coin tosses."""
    low, high = bounds
    if low >= 0:
        ends = _sequence(low, high, x, w, level)
        return Interval(value, *ends)
    gains = _sequence(0.0, high, np.maximum(x, 0), w, level / 2)
    losses = _sequence(0.0, -low, np.maximum(-x, 0), w, level / 2)
    return Interval(value, gains[0] - losses[1], gains[1] - losses[0])


def _sequence(low: float, high: float, x: Any, w: Any, level: float) -> tuple[float, float]:
    """A case counts as the share of the heaviest that it weighs."""
    share = w / w.max()
    ends = interval(Evidence(float(share.sum()), float(share @ ((x - low) / (high - low)))), level)
    return low + (high - low) * ends[0], low + (high - low) * ends[1]


def _bca(data: tuple[Any, ...], statistic: Any, rng: np.random.Generator, level: float) -> tuple[float, float]:
    found = stats().bootstrap(
        data, statistic, paired=True, vectorized=True, n_resamples=_RESAMPLES, confidence_level=1 - level, method="BCa",
        rng=rng,
    ).confidence_interval  # fmt: skip
    return float(found.low), float(found.high)


def _weighted_mean(x: Any, w: Any, axis: int = -1) -> Any:
    return (x * w).sum(axis) / w.sum(axis)


def _weighted_ratio(x: Any, y: Any, w: Any, axis: int = -1) -> Any:
    return (x * w).sum(axis) / (y * w).sum(axis)


def _mean_difference(a: Any, b: Any, axis: int = -1) -> Any:
    return (a - b).mean(axis)
