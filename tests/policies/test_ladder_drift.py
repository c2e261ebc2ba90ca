"""Thresholds tested together, and the two alarms."""

from __future__ import annotations

import math
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.drift import Fall, Rise
from farthing.policies.ladder import Book, Ladder, build, promising
from farthing.policies.sequence import Evidence, Test

THREE = Ladder((0.9, 0.6, 0.3), (0.2, 0.6, 0.2))


def book(*good: int, ladder: Ladder = THREE, per_request: bool = False) -> Book:
    """A book with that many good labels in the band of each rung, strictest first."""
    made = Book(ladder, Test(0.05), per_request=per_request)
    for threshold, count in zip(ladder.thresholds, good, strict=True):
        for _ in range(count):
            made.add(threshold, 0.0, 1.0)
    return made


@pytest.mark.parametrize(
    ("score", "rung"), [(1.0, 0), (0.9, 0), (0.89, 1), (0.6, 1), (0.31, 2), (0.3, 2), (0.29, 3), (0.0, 3)]
)
def test_which_rung_a_score_reaches(score: float, rung: int) -> None:
    assert THREE.passed(score) == rung


def test_a_label_counts_for_every_rung_at_or_below_its_score() -> None:
    made = book(1, 2, 3)

    assert [one.seen for one in made.evidence] == [1, 3, 6]


def test_per_request_a_score_below_a_rung_is_a_good_outcome_there() -> None:
    made = Book(THREE, Test(0.05), per_request=True)
    made.add(0.4, 1.0, 0.5)

    assert [(one.seen, one.bad) for one in made.evidence] == [(0.5, 0), (0.5, 0), (0.5, 0.5)]


def test_each_rung_needs_its_share_of_the_level() -> None:
    """The middle rung has three fifths of it, so it is proved first; once the upper one is, all of it is below."""

    def enough(level: float) -> int:
        return next(n for n in range(500) if Test(0.05).log_e(Evidence(n, 0.0)) >= -math.log(level))

    assert book(0, enough(0.03) - 1, 0).proved(0.05) is None
    assert book(0, enough(0.03), 0).proved(0.05) == (2, pytest.approx(0.04))  # and hands its level on
    assert book(enough(0.01), 0, 0).proved(0.05) == (2, pytest.approx(0.05))


def test_levels_are_handed_down_never_up() -> None:
    made = book(0, 0, 400)

    assert made.proved(0.05) == (2, pytest.approx(0.01))
    assert made.evidence[0].seen == 0


def test_a_rung_whose_evidence_turned_must_be_proved_anew() -> None:
    made = book(90, 0, 0)
    assert made.proved(0.05) is not None
    for _ in range(12):
        made.add(0.95, 1.0, 1.0)
    assert made.proved(0.05) is None
    before = made.now[0]
    for _ in range(40):
        made.add(0.95, 0.0, 1.0)

    assert made.now[0] > before
    assert made.proved(0.05) is None


@given(st.lists(st.tuples(st.floats(0, 1), st.sampled_from([0.0, 1.0])), min_size=1, max_size=80))
def test_a_pilot_makes_a_ladder(pilot: list[tuple[float, float]]) -> None:
    ladder = build(pilot, 0.01)

    assert ladder == build(pilot[::-1], 0.01)
    assert set(ladder.thresholds) <= {score for score, _ in pilot}
    assert ladder.thresholds[-1] == min(score for score, _ in pilot)
    clean = [t for t in ladder.thresholds if not any(bad for score, bad in pilot if score >= t)]
    assert ladder.thresholds[ladder.guess] == (min(clean) if clean else ladder.thresholds[ladder.guess])


def test_the_pilots_guess_is_the_lowest_rung_without_fault() -> None:
    pilot = [(i / 100, float(i < 45 and i % 3 == 0)) for i in range(100)]

    ladder = build(pilot, 0.01)

    assert ladder.thresholds == (0.97, 0.9, 0.75, 0.5, 0.0)
    assert ladder.guess == 3


def test_a_pilot_promises_something_where_enough_labels_are_within_the_claim() -> None:
    pilot = [(i / 100, float(i < 45)) for i in range(100)]

    assert promising(pilot, 0.01, 50)
    assert not promising(pilot, 0.01, 51)
    assert promising(pilot, 0.45, 100)
    assert not promising([], 0.01, 1)


@pytest.mark.parametrize(
    ("thresholds", "shares"),
    [((), ()), ((0.5, 0.5), (0.5, 0.5)), ((0.3, 0.5), (0.5, 0.5)), ((0.5,), (0.9,)), ((math.nan,), (1.0,))],
)
def test_no_ladder_without_order(thresholds: tuple[float, ...], shares: tuple[float, ...]) -> None:
    with pytest.raises(ValueError):
        Ladder(thresholds, shares)


def test_a_false_rung_is_rarely_called_proved_though_many_are_tested() -> None:
    """Rates rise from 2 % at the top to 10 % at the bottom; the bound of 5 % is passed at the middle rung."""
    ladder = Ladder((0.9, 0.75, 0.5, 0.25, 0.0), (0.1, 0.1, 0.6, 0.1, 0.1))
    false = 0
    runs = 300
    for seed in range(runs):
        random = Random(seed)
        made = Book(ladder, Test(0.05))
        for _ in range(400):
            score = random.random()
            made.add(score, float(random.random() < 0.2 * (1 - score)), 1.0)
            found = made.proved(0.05)
            if found is not None and found[0] >= 2:
                false += 1
                break

    assert false / runs <= 0.05


def way_to_alarm(detector: Rise, rate: float, random: Random, limit: int) -> int:
    for count in range(limit):
        if detector.add(float(random.random() < rate)):
            return count + 1
    return limit


def test_alarms_are_rare_while_the_rate_is_within_the_claim() -> None:
    ways = [way_to_alarm(Rise(0.05, 500.0), 0.05, Random(seed), 5_000) for seed in range(150)]

    assert sum(ways) / len(ways) >= 500
    assert min(ways) < 5_000  # they do come: patience is an average, not a promise


@pytest.mark.parametrize(("times", "within"), [(4, 120), (10, 30)])
def test_a_rise_is_found(times: float, within: int) -> None:
    ways = sorted(way_to_alarm(Rise(0.05, 10_000.0), times * 0.05, Random(seed), 5_000) for seed in range(50))

    assert ways[25] <= within


def test_fall_is_patient_with_steady_scores_and_quick_with_fallen_ones() -> None:
    def way(after: int, limit: int, seed: int) -> int:
        random, detector = Random(seed), Fall(5, 400.0)
        for count in range(limit):
            place = min(4, int(random.random() * 5)) if count < after else 0
            if detector.add(place, random.random()):
                return count
        return limit

    steady = [way(4_000, 4_000, seed) for seed in range(60)]
    fallen = [found - 200 for seed in range(60) if (found := way(200, 4_000, seed)) >= 200]

    assert sum(steady) / len(steady) >= 400
    assert min(steady) < 4_000  # they do come: patience is an average
    assert max(fallen) < 60


def test_risen_scores_are_no_alarm() -> None:
    random, detector = Random(1), Fall(5, 2_000.0)
    places = [int(random.random() * 5) for _ in range(500)] + [4] * 2_000

    assert not any(detector.add(place, random.random()) for place in places)
