"""Confidence sequences: they hold at every look, by simulation with fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies import confidence, cuped, srm
from farthing.policies.confidence import RatioSums, Sums
from farthing.policies.sequence import Evidence

RUNS, LENGTH = 400, 3_000
LOOKS = np.unique(np.concatenate([np.arange(30, 300, 10), np.geomspace(300, LENGTH, 40).astype(int)]))


def most(rate: float, runs: int = RUNS) -> int:
    """Exceeded with probability 1 in 1,000 where the true rate is `rate`."""
    return round(runs * rate + 3.1 * math.sqrt(runs * rate * (1 - rate)) + 1)


def sums_at(values: np.ndarray, n: int) -> Sums:
    some = values[:n]
    return Sums(n, float(some.mean()), float(((some - some.mean()) ** 2).sum()))


finite = st.lists(st.floats(-1e6, 1e6), max_size=40)


@given(finite, finite)
def test_sums_merge(ones: list[float], others: list[float]) -> None:
    merged, whole = Sums.of(ones).merge(Sums.of(others)), Sums.of(ones + others)
    assert merged.count == whole.count
    assert merged.mean == pytest.approx(whole.mean, rel=1e-6, abs=1e-3)
    assert merged.m2 == pytest.approx(whole.m2, rel=1e-6, abs=1e-1)


def test_an_outcome_is_finite() -> None:
    with pytest.raises(ValueError, match="finite"):
        Sums().add(math.nan)


def test_peeking_at_a_difference_keeps_the_false_positive_rate() -> None:
    """Both arms alike, looked at 60 times: a test of fixed size would cry wolf in more than a fifth of the runs."""
    dice, sequence, fixed, sprt = np.random.default_rng(1), 0, 0, 0
    for _ in range(RUNS):
        a, b = dice.exponential(1.0, LENGTH), dice.exponential(1.0, LENGTH)
        out, crossed, rejected = False, False, False
        for n in LOOKS:
            one, other = sums_at(a, n), sums_at(b, n)
            found = confidence.difference(one, other)
            out = out or not found.low <= 0 <= found.high
            error = math.sqrt(one.variance / n + other.variance / n)
            crossed = crossed or abs(one.mean - other.mean) > 1.96 * error
            rejected = rejected or confidence.sprt(one, other, 0.2) < 0.05
        sequence, fixed, sprt = sequence + out, fixed + crossed, sprt + rejected
    assert sequence <= most(0.05) and sprt <= most(0.05)
    assert fixed > 0.15 * RUNS


def test_a_mean_is_covered_at_every_look() -> None:
    dice, missed = np.random.default_rng(2), 0
    for _ in range(RUNS):
        values = dice.lognormal(0, 0.5, LENGTH)
        truth = math.exp(0.125)
        missed += any(not low <= truth <= high for _, low, high in (confidence.mean(sums_at(values, n)) for n in LOOKS))
    assert missed <= most(0.05)


def test_a_real_difference_is_found() -> None:
    dice, found = np.random.default_rng(3), 0
    for _ in range(100):
        a, b = sums_at(dice.normal(1.0, 1, LENGTH), LENGTH), sums_at(dice.normal(0.8, 1, LENGTH), LENGTH)
        found += confidence.difference(a, b).low > 0 and confidence.sprt(a, b, 0.2) < 0.05
    assert found >= 95


def test_bounded_differences_hold_with_few_and_with_many() -> None:
    dice, missed = np.random.default_rng(4), 0
    for _ in range(RUNS // 4):
        a, b = np.cumsum(dice.random(800) < 0.03), np.cumsum(dice.random(800) < 0.01)
        looks = (5, 20, 50, 100, 200, 400, 800)
        ends = (confidence.bounded_difference(Evidence(n, a[n - 1]), Evidence(n, b[n - 1])) for n in looks)
        missed += any(not low <= 0.02 <= high for _, low, high in ends)
    assert missed <= most(0.05, RUNS // 4)
    assert confidence.bounded_difference(Evidence(), Evidence())[1:] == (-1.0, 1.0)


@pytest.mark.parametrize("rate", [0.5, 0.1, 0.03, 0.01])
@pytest.mark.parametrize("n", [300, 1_000, 3_000, 10_000])
def test_bounded_differences_are_no_wider_than_they_need_be(n: int, rate: float) -> None:
    """Two and a half times as wide as an interval for one look at most: looking always, and any distribution."""
    seen = Evidence(n, round(n * rate))
    one_look = 2 * 1.96 * math.sqrt(2 * rate * (1 - rate) / n)
    found = confidence.bounded_difference(seen, seen)
    assert one_look < found.high - found.low < 2.5 * one_look


@pytest.mark.parametrize(("better", "worse"), [(0.5, 0.6), (0.05, 0.10), (0.02, 0.06)])
def test_a_bounded_difference_is_found_nine_times_in_ten(better: float, worse: float) -> None:
    dice, n = np.random.default_rng(7), 3_000
    pairs = zip(dice.binomial(n, worse, 50).tolist(), dice.binomial(n, better, 50).tolist(), strict=True)
    assert sum(confidence.bounded_difference(Evidence(n, a), Evidence(n, b)).low > 0 for a, b in pairs) >= 45


def test_too_little_says_nothing() -> None:
    few = Sums.of([1.0] * 10)
    assert confidence.mean(few)[1:] == (-math.inf, math.inf)
    assert confidence.difference(few, few)[1:] == (-math.inf, math.inf)
    assert confidence.difference(Sums(), few)[1:] == (-math.inf, math.inf)
    assert confidence.sprt(few, few, 1.0) == 1.0


def test_a_ratio_of_sums_has_the_delta_methods_variance() -> None:
    dice, estimates, deviations = np.random.default_rng(5), [], []
    for _ in range(300):
        views = dice.poisson(5, 400) + 1
        clicks = dice.binomial(views, 0.3)
        arm = RatioSums()
        for above, below in zip(clicks.tolist(), views.tolist(), strict=True):
            arm = arm.add(above, below)
        told = confidence.ratio_mean(arm)
        estimates.append(told.mean)
        deviations.append(math.sqrt(told.variance / told.count))
    assert np.mean(estimates) == pytest.approx(0.3, abs=0.002)
    assert np.std(estimates) == pytest.approx(np.mean(deviations), rel=0.12)


def test_a_sample_ratio_mismatch_is_caught_and_right_shares_are_left_alone() -> None:
    dice, alarms, caught = np.random.default_rng(6), 0, 0
    for _ in range(RUNS):
        right, wrong = np.cumsum(dice.random(LENGTH) < 0.5), np.cumsum(dice.random(LENGTH) < 0.56)
        alarms += any(srm.mismatch_p([int(right[n - 1]), int(n - right[n - 1])], [0.5, 0.5]) < 0.01 for n in LOOKS)
        caught += srm.mismatch_p([int(wrong[-1]), int(LENGTH - wrong[-1])], [0.5, 0.5]) < 0.01
    assert alarms <= most(0.01) and caught > 0.95 * RUNS
    with pytest.raises(ValueError, match="share"):
        srm.log_e([1, 2], [0.5, 0.4])


def test_a_covariate_takes_noise_out_and_the_effect_stays() -> None:
    dice, plain, adjusted, gone = np.random.default_rng(7), [], [], []
    for _ in range(200):
        arms = []
        for effect in (0.1, 0.0):
            before = dice.normal(0, 1, 300)
            after = 0.8 * before + dice.normal(effect, 0.6, 300)
            arm = cuped.PairSums()
            for y, x in zip(after.tolist(), before.tolist(), strict=True):
                arm = arm.add(y, x)
            arms.append(arm)
        one, other, share = cuped.adjusted(*arms)
        plain.append(arms[0].y / 300 - arms[1].y / 300)
        adjusted.append(one.mean - other.mean)
        gone.append(share)
        error = math.sqrt(one.variance / 300 + other.variance / 300)
    assert np.mean(adjusted) == pytest.approx(0.1, abs=0.012)
    assert np.std(adjusted) < 0.7 * np.std(plain)
    assert error == pytest.approx(np.std(adjusted), rel=0.2)
    assert np.mean(gone) == pytest.approx(0.64, abs=0.03)
    assert cuped.adjusted(cuped.PairSums(), cuped.PairSums())[2] == 0.0
