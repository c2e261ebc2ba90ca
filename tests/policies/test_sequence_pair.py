"""Two bounded means apart: the bound is the bets' own, it holds at every look, and it is tighter than two intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest

from farthing.policies import sequence
from farthing.policies.sequence import Bets, Evidence
from farthing.policies.sequence_pair import FALLS, RISES, apart, least

LEVEL = 0.05


def most(rate: float, runs: int) -> int:
    """Exceeded with probability 1 in 1,000 where the true rate is `rate`."""
    return round(runs * rate + 3.1 * math.sqrt(runs * rate * (1 - rate)) + 1)


def union(one: Evidence, other: Evidence, level: float) -> tuple[float, float]:
    """Each arm's own interval at half of the level."""
    (low, high), (other_low, other_high) = (sequence.interval(arm, level / 2) for arm in (one, other))
    return max(-1.0, low - other_high), min(1.0, high - other_low)


def capital(arm: Evidence, bets: Bets, means: np.ndarray) -> np.ndarray:
    """The logarithm of the arm's capital at each claimed mean."""
    odds, shares = np.array(bets.odds)[:, None], np.array(bets.shares)[:, None]
    terms = np.log(shares) + arm.bad * np.log(odds) - arm.seen * np.log1p((odds - 1) * means)
    top = terms.max(axis=0)
    return np.asarray(top + np.log(np.exp(terms - top).sum(axis=0)))


def test_the_bound_is_the_least_difference_that_no_bets_refute() -> None:
    """Against a search over a fine grid: never above it, and hardly below."""
    dice, means = np.random.default_rng(1), np.linspace(0, 1, 1_501)
    for _ in range(80):
        counts = [int(10 ** dice.uniform(0, 5)) for _ in range(2)]
        one, other = (Evidence(n, float(dice.binomial(n, dice.beta(0.5, 0.8)))) for n in counts)
        both = capital(one, RISES, means)[:, None] + capital(other, FALLS, means)[None, :]
        left = both < math.log(1 / LEVEL)
        searched = float((means[:, None] - means[None, :])[left].min()) if left.any() else 1.0
        found = least(one, other, LEVEL)
        assert found <= searched + 1e-9, (one, other)
        assert found >= searched - 4 / 1_500, (one, other)


@pytest.mark.parametrize(
    ("rates", "counts"),
    [((0.03, 0.01), (400, 400)), ((0.1, 0.1), (1_000, 60)), ((0.5, 0.5), (500, 500)), ((0.9, 0.6), (30, 800))],
)
def test_it_holds_at_every_look(rates: tuple[float, float], counts: tuple[int, int]) -> None:
    dice, runs, missed = np.random.default_rng(2), 80, 0
    for _ in range(runs):
        sums = [np.cumsum(dice.random(n) < rate) for n, rate in zip(counts, rates, strict=True)]
        for share in (0.02, 0.06, 0.2, 0.5, 1.0):
            at = [max(1, int(n * share)) for n in counts]
            low, high = apart(*(Evidence(n, float(bad[n - 1])) for n, bad in zip(at, sums, strict=True)), LEVEL)
            if not low <= rates[0] - rates[1] <= high:
                missed += 1
                break
    assert missed <= most(LEVEL, runs)


def test_outcomes_between_nothing_and_one_are_covered_too() -> None:
    dice, runs, missed = np.random.default_rng(3), 80, 0
    for _ in range(runs):
        ones, others = np.cumsum(dice.beta(2, 6, 600)), np.cumsum(dice.beta(0.1, 0.3, 600))
        ends = [apart(Evidence(n, ones[n - 1]), Evidence(n, others[n - 1]), LEVEL) for n in (10, 40, 150, 600)]
        missed += any(not low <= 0 <= high for low, high in ends)
    assert missed <= most(LEVEL, runs)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.03, 0.01])
@pytest.mark.parametrize(("n", "m"), [(300, 300), (1_000, 1_000), (10_000, 10_000), (10_000, 300), (100_000, 1_000)])
def test_it_is_narrower_than_two_intervals(n: int, m: int, rate: float) -> None:
    """By a quarter where both arms are alike; where one is nearly known, two intervals are as good."""
    one, other = Evidence(n, round(n * rate)), Evidence(m, round(m * rate))
    (low, high), (wide_low, wide_high) = apart(one, other, LEVEL), union(one, other, LEVEL)
    assert high - low < (0.88 if n == m else 1.03) * (wide_high - wide_low)


def test_nothing_is_known_of_nothing_and_certainty_of_much() -> None:
    assert apart(Evidence(), Evidence(100, 3.0), LEVEL) == (-1.0, 1.0)
    low, high = apart(Evidence(2_000, 2_000.0), Evidence(2_000, 0.0), LEVEL)
    assert 0.98 < low < 1.0 == high
    assert apart(Evidence(500, 20.0), Evidence(300, 5.0), LEVEL) == pytest.approx(
        tuple(-end for end in apart(Evidence(300, 5.0), Evidence(500, 20.0), LEVEL)[::-1])
    )
