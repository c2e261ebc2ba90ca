"""How high is a mean, at most and at least, however often one looks? Bets on bounded outcomes. Pure.

Shared by everything that promises a rate: reuse, compression, evaluation. The proofs are in docs/reuse-bound.md.

Rules of this file:
1. An outcome lies in [0, 1]; 1 is bad (a wrong answer). Rates are means of outcomes.
2. Evidence is two sums. Neither the order of outcomes nor the moment of looking changes what may be claimed from it.
3. Rounding goes against the claim: an upper bound is never below the exact one, a lower never above.

Sources: Waudby-Smith & Ramdas, Estimating means of bounded random variables by betting (JRSS B 2024, arXiv 2010.09686),
capital process of section 4, mixture over bets; Ville's inequality.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["NOTHING", "OVER", "UNDER", "Bets", "Comparator", "Evidence", "Test", "interval", "lower", "upper"]

# The logarithm of a bet that one bad outcome ruins; finite, since 0 * inf is no number.
_RUIN = -1e18
_STEPS = 60
_EXACT = 1e-9


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was seen: the sum of weights, and of weight times outcome.

    A weight says which share of an outcome may count where labels are seen only by chance: `floor / p`, where p is the
    probability with which this outcome's label was going to be seen, and floor is a lower bound on p that was fixed
    before the request came. Where every request has the same chance of a label, the weight is 1.
    """

    seen: float = 0.0
    bad: float = 0.0

    def add(self, outcome: float, weight: float = 1.0) -> Evidence:
        """With one more outcome. ValueError unless both lie in [0, 1]."""
        if not (0.0 <= outcome <= 1.0 and 0.0 <= weight <= 1.0):
            raise ValueError(f"outcome and weight lie in [0, 1]: {outcome!r}, {weight!r}")
        return Evidence(self.seen + weight, self.bad + weight * outcome)

    def complained(self, weight: float = 1.0) -> Evidence:
        """With a bad outcome that somebody reported: it counts against, and silence never counts for.

        Upper bounds stay valid; lower ones don't, since nobody drew it by a coin.
        """
        return Evidence(self.seen, self.bad + weight)


NOTHING = Evidence()


@dataclass(frozen=True, slots=True)
class Bets:
    """A mixture of bets: `odds` multiply the odds of a bad outcome, `shares` of the capital lie on each, and sum to 1.

    Odds below 1 win where the rate is lower than claimed, odds above 1 where it is higher; at 1 capital is kept back.
    """

    odds: tuple[float, ...]
    shares: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.odds) != len(self.shares) or not math.isclose(sum(self.shares), 1.0, abs_tol=1e-9):
            raise ValueError("one share for every bet, 1 in all")
        if any(g < 0 for g in self.odds) or any(not share > 0 for share in self.shares):
            raise ValueError("odds are at least 0, shares above 0")
        if not (all(g <= 1 for g in self.odds) or all(g >= 1 for g in self.odds)):
            raise ValueError("a mixture bets on one side")


# Half of the capital lies on 'none is bad at all': where that is true, it costs 14 % more labels than betting all of it
# (339 against 299 for 1 % at 95 %); the rest saves the bettor where it isn't. `python -m bench.validity` measures it.
UNDER = Bets((0.0, 0.1, 0.25, 0.5, 0.75, 0.9, 0.97), (0.5, 0.12, 0.12, 0.12, 0.08, 0.04, 0.02))
OVER = Bets((1.03, 1.1, 1.35, 2.0, 4.0, 10.0, 40.0), (0.04, 0.08, 0.16, 0.24, 0.24, 0.16, 0.08))


@dataclass(frozen=True, slots=True)
class Test:
    """An e-process for one claimed mean, in (0, 1): it grows large only where the mean lies on the bets' side of it.

    With UNDER the hypothesis that it speaks against is 'the mean is at least `mean`'; with OVER 'at most'.
    """

    __test__ = False  # not a test case, whatever pytest makes of the name

    mean: float
    bets: Bets = UNDER
    _terms: tuple[tuple[float, float, float], ...] = ()

    def __post_init__(self) -> None:
        if not 0.0 < self.mean < 1.0:
            raise ValueError(f"a claimed mean lies between 0 and 1: {self.mean!r}")
        terms = [(math.log(share), _log(g), math.log1p((g - 1.0) * self.mean)) for share, g in _pairs(self.bets)]
        object.__setattr__(self, "_terms", tuple(terms))

    def log_e(self, evidence: Evidence) -> float:
        """The logarithm of the e-value. Under its hypothesis P(it ever reaches ln(1/level)) <= level."""
        seen, bad = evidence.seen, evidence.bad
        return _log_sum([share + bad * log_g - seen * log_d for share, log_g, log_d in self._terms])

    def lacking(self, evidence: Evidence, goal: float) -> float:
        """With UNDER: how many more outcomes, all of them good, surely bring log_e to `goal`.

        Exact but for what the mixture's other bets add: some eight per cent too many.
        """
        needed = [(goal - share - evidence.bad * log_g) / -log_d for share, log_g, log_d in self._terms]
        return max(0.0, min(needed) - evidence.seen)


@dataclass(frozen=True, slots=True)
class Comparator:
    """What is known of whoever judged: upper bounds on its two error rates.

    `false_same`: P(called same | wrong). `false_different`: P(called different | right). Where these are estimates that
    hold with some confidence of their own, the level has to be shared with them.
    """

    false_same: float = 0.0
    false_different: float = 0.0

    def __post_init__(self) -> None:
        if not (0.0 <= self.false_same < 1.0 and 0.0 <= self.false_different < 1.0):
            raise ValueError("a comparator's error rates lie in [0, 1)")

    def seen_rate(self, rate: float) -> float:
        """The least rate of 'different' that a true wrong rate of `rate` can show."""
        return rate * (1.0 - self.false_same)

    def at_most(self, seen_rate: float) -> float:
        """The highest true wrong rate behind a rate of 'different'."""
        return min(1.0, seen_rate / (1.0 - self.false_same))

    def at_least(self, seen_rate: float) -> float:
        """The lowest true wrong rate behind a rate of 'different'."""
        return max(0.0, (seen_rate - self.false_different) / (1.0 - self.false_different))


_PERFECT = Comparator()


def upper(evidence: Evidence, level: float, comparator: Comparator = _PERFECT) -> float:
    """A mean that the true one exceeds, at any time whatever, with probability `level` at most. 1: nothing is known.

    The e-value is convex and increasing in the claimed mean, so Newton's steps come down on the root from above.
    """
    goal = math.log(1.0 / level)
    if evidence.seen <= evidence.bad:
        return 1.0
    mean, found = min(0.5, (evidence.bad + goal) / evidence.seen), 1.0
    for _ in range(_STEPS):
        value, slope = _at(evidence, UNDER, mean)
        if value >= goal:
            found = min(found, mean)
        if slope <= 0.0:
            break  # so little evidence that its slope is lost in rounding
        step = (value - goal) / slope
        if abs(step) < _EXACT * mean and value >= goal:
            break
        mean = min(mean - step, (1.0 + mean) / 2) if step < 0 else mean - step
        # Newton from above never falls below the root but by rounding; this keeps it on the right side.
        mean *= 1.0 + _EXACT / 2
        if mean >= 1.0 - _EXACT:
            break
    return comparator.at_most(found)


def lower(evidence: Evidence, level: float, comparator: Comparator = _PERFECT) -> float:
    """A mean that the true one falls short of, at any time whatever, with probability `level` at most."""
    goal = math.log(1.0 / level)
    mean, found = 0.0, 0.0
    for _ in range(_STEPS):
        value, slope = _at(evidence, OVER, mean)
        if value < goal and mean - found > 2 * _EXACT * mean:
            mean -= _EXACT * mean  # rounding took the last step too far: a hair back, not the whole step
            continue
        if value < goal or slope >= 0:
            break
        found = max(found, mean)
        step = (goal - value) / slope
        if step < _EXACT * max(mean, _EXACT):
            break
        mean += step * (1.0 - _EXACT / 2)
    return comparator.at_least(min(found, 1.0))


def interval(evidence: Evidence, level: float, comparator: Comparator = _PERFECT) -> tuple[float, float]:
    """Both sides at once: the true mean leaves it, at any time whatever, with probability `level` at most."""
    return lower(evidence, level / 2, comparator), upper(evidence, level / 2, comparator)


def _at(evidence: Evidence, bets: Bets, mean: float) -> tuple[float, float]:
    """The logarithm of the e-value at a claimed mean, and its slope there."""
    terms: list[float] = []
    slopes: list[float] = []
    for share, g in _pairs(bets):
        denominator = 1.0 + (g - 1.0) * mean
        terms.append(math.log(share) + evidence.bad * _log(g) - evidence.seen * math.log(denominator))
        slopes.append(evidence.seen * (1.0 - g) / denominator)
    total = _log_sum(terms)
    return total, sum(math.exp(term - total) * slope for term, slope in zip(terms, slopes, strict=True))


def _pairs(bets: Bets) -> zip[tuple[float, float]]:
    return zip(bets.shares, bets.odds, strict=True)


def _log(g: float) -> float:
    return math.log(g) if g > 0 else _RUIN


def _log_sum(terms: Sequence[float]) -> float:
    top = max(terms)
    return top + math.log(sum([math.exp(term - top) for term in terms]))
