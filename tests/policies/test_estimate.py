"""Intervals and tests: known values, and what they promise, by simulation with fixed seeds."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from farthing.policies import estimate
from farthing.policies.estimate import (
    adjusted,
    cases_needed,
    detectable,
    difference,
    mcnemar,
    mean,
    not_worse,
    permutation,
    proportion,
    quantile,
    ratio,
)

RUNS = 200


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where many runs are counted, their own chance is three times that of an end that 1,000 resamples tell."""
    monkeypatch.setattr(estimate, "_RESAMPLES", 1_000)


def rng(seed: int = 1) -> np.random.Generator:
    return np.random.default_rng(seed)


def most_misses(rate: float, runs: int = RUNS) -> int:
    """So many misses are exceeded with probability 1 in 1,000 where the true rate is `rate`."""
    return round(runs * rate + 3.1 * math.sqrt(runs * rate * (1 - rate)) + 1)


@pytest.mark.parametrize(
    ("count", "of", "low", "high"),
    [(0, 10, 0.0, 0.3085), (5, 10, 0.1871, 0.8129), (10, 10, 0.6915, 1.0), (0, 0, 0.0, 1.0)],
)
def test_clopper_pearson(count: int, of: int, low: float, high: float) -> None:
    found = proportion(count, of)
    assert found.low == pytest.approx(low, abs=1e-4) and found.high == pytest.approx(high, abs=1e-4)


def test_mcnemar_is_the_binomial_of_the_cases_apart() -> None:
    assert mcnemar(0, 0) == 1.0
    assert mcnemar(1, 9) == pytest.approx(0.02148, abs=1e-5)


def test_benjamini_hochberg() -> None:
    assert adjusted([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.0533333, 0.0533333, 0.5])
    assert adjusted([]) == []


def test_sizes_and_effects_are_two_sides_of_one_thing() -> None:
    needed = cases_needed(0.5, 0.05)
    assert needed == 785
    assert detectable(0.5, needed) == pytest.approx(0.05, rel=1e-3)
    assert detectable(0.5, 0) == math.inf
    with pytest.raises(ValueError, match="above 0"):
        cases_needed(1.0, 0.0)


def test_what_never_varies_is_not_therefore_certain() -> None:
    same = np.ones(50)
    found = difference(same, same, rng())
    assert found.value == 0 and found.low < -0.04 and found.high > 0.04
    assert mean([], rng(), bounds=(0, 1))[1:] == (0, 1)


def test_an_interval_for_a_quantile_is_open_where_the_sample_ends() -> None:
    found = quantile(range(1, 101), 0.99)
    assert found.value == 100 and found.low >= 96 and found.high == math.inf
    assert quantile(range(1, 2001), 0.99).high < 2000
    assert quantile([], 0.5).low == 0.0


@pytest.mark.usefixtures("few_resamples")
def test_the_paired_bootstrap_covers_the_difference() -> None:
    dice, misses = rng(7), 0
    for _ in range(RUNS):
        base = dice.random(120) < 0.8
        other = np.where(dice.random(120) < 0.25, dice.random(120) < 0.7, base)
        found = difference(base.astype(float), other.astype(float), dice, level=0.2)
        misses += not found.low <= 0.025 <= found.high  # 0.25 x (0.8 - 0.7)
    assert misses <= most_misses(0.22)  # at 0.2, where twice as many misses can't pass for chance


def test_a_quantile_is_covered_as_often_as_it_says() -> None:
    dice, below, above = rng(12), 0, 0
    for _ in range(400):
        found = quantile(dice.exponential(1.0, 600), 0.95, level=0.2)
        below += found.high < -math.log(0.05)
        above += found.low > -math.log(0.05)
    assert below <= most_misses(0.1, 400) and above <= most_misses(0.1, 400)
    assert below + above > 20  # and it is no wider than it has to be


@pytest.mark.usefixtures("few_resamples")
def test_a_weighted_mean_covers_productions_mean() -> None:
    dice, misses = rng(8), 0
    for _ in range(RUNS):
        common, rare = dice.exponential(1.0, 60), dice.exponential(5.0, 40)
        found = mean(np.concatenate([common, rare]), dice, np.repeat([90 / 60, 10 / 40], [60, 40]))
        misses += not found.low <= 0.9 * 1 + 0.1 * 5 <= found.high
    assert misses <= most_misses(0.08)  # a bootstrap of a skewed sample of 100 is known to be a little short


@pytest.mark.usefixtures("few_resamples")
def test_a_ratio_of_costs_covers_the_truth() -> None:
    dice, misses = rng(9), 0
    for _ in range(RUNS):
        cost = dice.lognormal(0, 0.7, 150)
        found = ratio(cost * dice.uniform(0.4, 0.8, 150), cost, dice, level=0.2)
        misses += not found.low <= 0.6 <= found.high
    assert misses <= most_misses(0.23)
    assert math.isnan(ratio([1.0], [0.0], rng()).value)


def test_the_permutation_test_keeps_its_level_and_finds_a_difference() -> None:
    dice = rng(10)
    false = sum(permutation(dice.random(25), dice.random(25), dice) < 0.05 for _ in range(100))
    assert false <= most_misses(0.05, 100)
    base = dice.random(60)
    assert permutation(base + dice.normal(0.1, 0.1, 60), base, dice) < 0.01
    assert permutation(base, base, dice) == 1.0


@pytest.mark.usefixtures("few_resamples")
def test_non_inferiority_is_claimed_wrongly_at_most_at_its_level() -> None:
    dice, claimed = rng(11), 0
    for _ in range(RUNS):
        base = dice.random(200) < 0.9
        worse = base & ~(dice.random(200) < 0.05 / 0.9)  # worse by exactly the margin
        claimed += not_worse(worse.astype(float), base.astype(float), 0.05, dice).word == "not worse"
    assert claimed <= most_misses(0.07)


def test_verdicts_and_what_they_need() -> None:
    dice = rng(12)
    base = (dice.random(2_000) < 0.9).astype(float)
    alike = not_worse(base, base, 0.02, dice)
    assert (alike.word, alike.needed) == ("not worse", 0)
    bad = not_worse(base * (dice.random(2_000) < 0.8), base, 0.02, dice)
    assert (bad.word, bad.needed) == ("worse", 0)
    few = not_worse(base[:30], base[:30], 0.02, dice)
    assert few.word == "inconclusive" and few.needed is not None and few.needed > 100
    nothing = not_worse([], [], 0.02, dice)
    assert nothing.word == "inconclusive" and nothing.needed is not None


@pytest.mark.parametrize("count", [1, 2, 500])
def test_values_that_are_all_alike_have_no_interval_but_what_bounds_give(count: int) -> None:
    alike = [0.25] * count
    assert mean(alike, rng()) == (0.25, -math.inf, math.inf)
    found = mean(alike, rng(), bounds=(0.0, 1.0))
    assert 0.0 <= found.low < 0.25 < found.high <= 1.0


@pytest.mark.parametrize("shared", [0.0, 0.5])
@pytest.mark.parametrize("worse", [0, 10])
def test_of_the_slices_that_are_called_few_are_called_wrongly(worse: int, shared: float) -> None:
    """Forty slices, of which `worse` are; `shared`: of their noise, as where all are answers of one bad hour."""
    dice, runs, slices = rng(11), 2_000, 40
    truth = np.arange(slices) < worse
    noise = np.sqrt(shared) * dice.normal(size=(runs, 1)) + np.sqrt(1 - shared) * dice.normal(size=(runs, slices))
    ps = stats.norm.sf(noise + 3.0 * truth)

    def false_share(called: np.ndarray) -> np.ndarray:
        return (called & ~truth).sum(axis=1) / np.maximum(1, called.sum(axis=1))

    kept = false_share(np.array([adjusted(list(row)) for row in ps]) < 0.05)
    promised = 0.05 * (slices - worse) / slices
    error = float(kept.std()) / math.sqrt(runs)
    assert kept.mean() <= promised + 3.1 * error
    assert false_share(ps < 0.05).mean() > 2 * promised  # which is what the adjustment is for
    if not shared:  # then the promise is met exactly, and more caution would be waste
        assert kept.mean() >= promised - 3.1 * error
