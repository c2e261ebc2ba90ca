"""Bounds on a mean that hold however often one looks."""

from __future__ import annotations

import math
from random import Random

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from farthing.policies.sequence import (
    NOTHING,
    OVER,
    UNDER,
    Bets,
    Comparator,
    Evidence,
    Test,
    interval,
    lower,
    upper,
)

means = st.floats(0.001, 0.9)
outcomes = st.floats(0.0, 1.0)
weights = st.floats(0.01, 1.0)
levels = st.floats(0.001, 0.4)
evidence = st.builds(
    lambda seen, share: Evidence(seen, seen * share), st.floats(0, 1e6), st.one_of(st.just(0.0), st.floats(0, 1))
)


def learn(*pairs: tuple[float, float]) -> Evidence:
    found = NOTHING
    for outcome, weight in pairs:
        found = found.add(outcome, weight)
    return found


def paths(outcome: np.ndarray, weight: np.ndarray | float, test: Test) -> np.ndarray:
    """log e after every observation, for many runs at once. Shapes: (runs, observations)."""
    seen = np.cumsum(weight * np.ones_like(outcome), axis=1)
    bad = np.cumsum(weight * outcome, axis=1)
    ruined = np.where(bad > 0, -np.inf, 0.0)
    terms = [
        math.log(share) + (bad * math.log(g) if g else ruined) - seen * math.log1p((g - 1) * test.mean)
        for g, share in zip(test.bets.odds, test.bets.shares, strict=True)
    ]
    return np.logaddexp.reduce(terms, axis=0)


def test_nothing_seen_is_nothing_known() -> None:
    assert interval(NOTHING, 0.05) == (0.0, 1.0)
    assert Test(0.3).log_e(NOTHING) == pytest.approx(0.0)


@pytest.mark.parametrize(("claim", "labels"), [(0.05, 67), (0.02, 169), (0.01, 339), (0.005, 679)])
def test_how_many_good_labels_prove_a_claim(claim: float, labels: int) -> None:
    """The least that any bet needs is ln(20) / -ln(1 - claim): 59, 149, 299, 598."""
    test = Test(claim)

    assert test.log_e(Evidence(labels, 0.0)) >= math.log(20) > test.log_e(Evidence(labels - 1, 0.0))
    assert upper(Evidence(labels, 0.0), 0.05) <= claim < upper(Evidence(labels - 1, 0.0), 0.05)


@given(evidence, levels)
def test_bounds_enclose_what_was_seen_and_are_no_better_than_exact(seen: Evidence, level: float) -> None:
    low, high = lower(seen, level), upper(seen, level)

    assert 0.0 <= low <= high <= 1.0
    if seen.seen > 0:
        assert low <= seen.bad / seen.seen <= high
    if high < 1.0:
        assert Test(high).log_e(seen) >= math.log(1 / level) - 1e-9
    if low > 0.0:
        assert Test(low, OVER).log_e(seen) >= math.log(1 / level) - 1e-9


@given(st.floats(10, 1e5), st.floats(0, 0.9), levels)
def test_bounds_are_tight(seen: float, share: float, level: float) -> None:
    """A claim a thousandth further in is not proved."""
    found = Evidence(seen, seen * share)
    low, high = lower(found, level), upper(found, level)

    assert high == 1.0 or Test(high * 0.999).log_e(found) < math.log(1 / level)
    assert low == 0.0 or Test(min(low * 1.001, 0.999999), OVER).log_e(found) < math.log(1 / level)


def test_next_to_no_evidence_says_nothing() -> None:
    """Found by the property below: its slope is zero as a float."""
    assert upper(Evidence(1e-300, 0.0), 0.05) == 1.0
    assert lower(Evidence(1e-300, 0.0), 0.05) == 0.0


@given(evidence, levels, st.floats(1.01, 3))
def test_less_confidence_is_a_tighter_bound(seen: Evidence, level: float, more: float) -> None:
    assume(level * more < 1 - 1e-9)  # no confidence at all bounds nothing
    assert upper(seen, level * more) <= upper(seen, level)
    assert lower(seen, level * more) >= lower(seen, level)


def test_a_last_step_that_rounding_takes_too_far_is_not_thrown_away() -> None:
    """Found by the property above: the bound at the looser level came out below the one at the stricter level."""
    seen = Evidence(835542.0, 665822.53125)
    assert lower(seen, 0.375 * 1.01) > lower(seen, 0.375)


@given(evidence, means, weights)
def test_a_good_outcome_helps_and_a_bad_one_hurts(seen: Evidence, mean: float, weight: float) -> None:
    test = Test(mean)

    assert test.log_e(seen.add(1.0, weight)) < test.log_e(seen) < test.log_e(seen.add(0.0, weight))
    assert test.log_e(seen.complained(weight)) < test.log_e(seen)


@given(evidence, st.floats(0.001, 0.4), st.floats(1.01, 2))
def test_a_weaker_claim_is_easier_to_prove(seen: Evidence, mean: float, times: float) -> None:
    assert Test(mean * times).log_e(seen) >= Test(mean).log_e(seen)


@given(st.lists(st.tuples(outcomes, weights), max_size=30), st.randoms(use_true_random=False))
def test_the_order_of_outcomes_does_not_matter(pairs: list[tuple[float, float]], random: Random) -> None:
    shuffled = list(pairs)
    random.shuffle(shuffled)
    a, b = learn(*pairs), learn(*shuffled)

    assert (a.seen, a.bad) == pytest.approx((b.seen, b.bad))


@given(st.lists(st.tuples(outcomes, weights), max_size=20), means, st.sampled_from([UNDER, OVER]))
def test_two_sums_never_claim_more_than_the_bets_won(pairs: list[tuple[float, float]], mean: float, bets: Bets) -> None:
    """The proof's step: the exact winnings of every bet are at least what the sums say (concavity of the logarithm)."""
    exact = 0.0
    for g, share in zip(bets.odds, bets.shares, strict=True):
        wealth = share
        for outcome, weight in pairs:
            wealth *= 1 + weight * ((1 + (g - 1) * outcome) / (1 + (g - 1) * mean) - 1)
        exact += wealth

    assert math.exp(Test(mean, bets).log_e(learn(*pairs))) <= exact * (1 + 1e-9)


@given(means, st.floats(0, 1), st.floats(0, 1), st.floats(0.05, 1), st.sampled_from([UNDER, OVER]))
def test_one_step_is_fair_even_where_labels_hang_on_the_request(
    mean: float, band: float, tilt: float, floor: float, bets: Bets
) -> None:
    """Two kinds of requests, labelled with different chances, whose average rate is exactly the claim."""
    rate = min(1.0, mean * (1 + tilt * (1 - band) / max(band, 1e-9)))  # of the first kind, a share `band` of all
    other = (mean - band * rate) / (1 - band) if band < 1 else mean
    if not 0 <= other <= 1 or abs(band * rate + (1 - band) * other - mean) > 1e-9:
        return
    for g in bets.odds:
        expected = 0.0
        for share, p, chance in ((band, rate, floor), (1 - band, other, 1.0)):
            weight = floor / chance
            for outcome, probability in ((1.0, p), (0.0, 1 - p)):
                gain = (1 + (g - 1) * outcome) / (1 + (g - 1) * mean) - 1
                expected += share * (chance * probability * (1 + weight * gain))
            expected += share * (1 - chance)
        assert expected == pytest.approx(1.0, abs=1e-9)


@pytest.mark.parametrize("bound_times", [1.0, 1.5])
def test_looking_after_every_label_keeps_the_level(bound_times: float) -> None:
    rng = np.random.default_rng(7)
    bad = (rng.random((2_000, 1_500)) < bound_times * 0.05).astype(float)

    ever = (paths(bad, 1.0, Test(0.05)) >= math.log(20)).any(axis=1)

    # 5 % of 2,000 and three standard errors; not never, or the test could not fail.
    assert 0 < ever.sum() <= 129


def test_a_naive_bound_looked_at_now_and_then_does_not() -> None:
    """What the sequence is for: an exact binomial bound, looked at after every 50 labels, fails on the same runs."""
    from scipy.stats import beta

    rng = np.random.default_rng(7)
    bad = np.cumsum(rng.random((2_000, 1_500)) < 0.05, axis=1)[:, 49::50]
    n = np.arange(50, 1_501, 50)

    ever = (beta.ppf(0.95, bad + 1, n - bad) < 0.05).any(axis=1)

    assert ever.mean() > 0.1


def test_labels_seen_by_chance_keep_the_level_only_with_weights() -> None:
    """A never-wrong kind that is always labelled and a bad kind that rarely is: unweighted, they look harmless."""
    rng = np.random.default_rng(11)
    runs, requests, floor = 500, 3_000, 0.1
    good = rng.random((runs, requests)) < 0.5
    bad = np.where(good, 0.0, (rng.random((runs, requests)) < 0.1).astype(float))  # a mean of 5 %
    seen = good | (rng.random((runs, requests)) < floor)
    weight = np.where(good, floor, 1.0)
    test = Test(0.05)

    fair = (paths(bad, weight * seen, test) >= math.log(20)).any(axis=1)
    naive = (paths(bad, 1.0 * seen, test) >= math.log(20)).any(axis=1)

    assert fair.mean() <= 0.08 < 0.9 < naive.mean()  # 5 % and three standard errors


def test_the_lower_bound_keeps_its_level_too() -> None:
    rng = np.random.default_rng(3)
    bad = (rng.random((2_000, 1_000)) < 0.05).astype(float)

    ever = (paths(bad, 1.0, Test(0.05, OVER)) >= math.log(20)).any(axis=1)

    assert 0 < ever.sum() <= 129


@given(st.floats(0, 1), st.floats(0, 0.5), st.floats(0, 0.5))
def test_a_comparators_errors_widen_the_bounds(true: float, same: float, different: float) -> None:
    judge = Comparator(same, different)

    for a in (0.0, same):
        for b in (0.0, different):
            seen = true * (1 - a) + (1 - true) * b
            assert judge.at_least(seen) - 1e-9 <= true <= judge.at_most(seen) + 1e-9
    assert judge.seen_rate(true) <= true


def test_bounds_with_a_comparator() -> None:
    seen = Evidence(1_000, 50)

    assert upper(seen, 0.05, Comparator(false_same=0.2)) == pytest.approx(upper(seen, 0.05) / 0.8)
    assert lower(seen, 0.05, Comparator(false_different=0.1)) == 0.0


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: NOTHING.add(1.1),
        lambda: NOTHING.add(-0.1),
        lambda: NOTHING.add(math.nan),
        lambda: NOTHING.add(0.5, 1.5),
        lambda: Test(0.0),
        lambda: Test(1.0),
        lambda: Test(math.nan),
        lambda: Bets((0.5,), (0.9,)),
        lambda: Bets((0.5, 2.0), (0.5, 0.5)),
        lambda: Bets((-0.5,), (1.0,)),
        lambda: Bets((0.5, 0.6), (0.0, 1.0)),
        lambda: Comparator(1.0),
        lambda: Comparator(0.0, -0.1),
    ],
)
def test_nonsense_is_refused(wrong: object) -> None:
    assert callable(wrong)
    with pytest.raises(ValueError):
        wrong()
