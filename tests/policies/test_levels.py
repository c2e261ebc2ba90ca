"""Budgets and burn rates, worked out by hand; alarms that chance doesn't raise and outages do."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.levels import LENGTHS_S, PAIRS, Pair, Tally, Target, assess, rate, shown, wilson

THREE_NINES = Target("availability", 0.999)
CENT = Target("cost", 0.0, 0.01)
NOTHING = dict.fromkeys(LENGTHS_S, Tally())


def test_the_pairs_are_the_workbooks() -> None:
    assert [(pair.short_s, pair.long_s, pair.rate) for pair in PAIRS] == [
        (300, 3600, 14.4),
        (1800, 21600, 6.0),
        (7200, 86400, 3.0),
        (21600, 259200, 1.0),
    ]
    used = [round(pair.rate * pair.long_s / (30 * 86_400), 3) for pair in PAIRS]
    assert used == [0.02, 0.05, 0.1, 0.1]


@pytest.mark.parametrize(
    ("target", "tally", "burn"),
    [
        (THREE_NINES, Tally(10_000, 10), 1.0),
        (THREE_NINES, Tally(1_000, 144), 144.0),
        (THREE_NINES, Tally(), None),
        (Target("latency", 0.99, 2000), Tally(200, 1), 0.5),
        (CENT, Tally(100, 0, 2 * 10**12), 2.0),
        (CENT, Tally(), None),
    ],
)
def test_a_burn_rate_is_what_was_used_over_what_was_allowed(target: Target, tally: Tally, burn: float | None) -> None:
    assert rate(target, tally) == (None if burn is None else pytest.approx(burn))


def test_a_budget_in_events() -> None:
    found = assess(THREE_NINES, Tally(100_000, 25), NOTHING.__getitem__)
    assert (found.allowed, found.used, found.left) == (pytest.approx(100), 25, pytest.approx(0.75))
    assert found.verdict == "kept" and found.burning == ()
    assert found.attained is not None and found.attained.low < 0.99975 < found.attained.high
    assert {each.state for each in found.pairs} == {"not enough data"}


def test_a_budget_in_money() -> None:
    found = assess(CENT, Tally(1_000, 0, 9 * 10**12), NOTHING.__getitem__)
    assert (found.mean_usd, found.allowed, found.used) == (0.009, pytest.approx(10), 9)
    assert found.left == pytest.approx(0.1) and found.attained is None and found.verdict == "kept"
    assert assess(CENT, Tally(1_000, 0, 11 * 10**12), NOTHING.__getitem__).verdict == "missed"
    assert assess(CENT, Tally(29, 0, 11 * 10**12), NOTHING.__getitem__).verdict == "not enough data"


@pytest.mark.parametrize(
    ("tally", "verdict"),
    [
        (Tally(), "not enough data"),
        (Tally(500, 0), "not enough data"),  # half an event is allowed
        (Tally(500, 1), "not enough data"),  # one bad event shows nothing
        (Tally(5_000, 0), "kept"),
        (Tally(5_000, 6), "not enough data"),
        (Tally(5_000, 20), "missed"),
        (Tally(20, 20), "missed"),
    ],
)
def test_too_little_data_is_said(tally: Tally, verdict: str) -> None:
    assert assess(THREE_NINES, tally, NOTHING.__getitem__).verdict == verdict


def pairs_that_burn(**by_length: Tally) -> list[Pair]:
    tallies = NOTHING | {int(name[1:]): tally for name, tally in by_length.items()}
    return list(assess(THREE_NINES, Tally(100_000, 0), tallies.__getitem__).burning)


def test_both_windows_must_burn() -> None:
    burning, calm = Tally(10_000, 200), Tally(10_000, 10)
    assert pairs_that_burn(_300=burning, _3600=burning) == [PAIRS[0]]
    assert pairs_that_burn(_300=calm, _3600=burning) == []  # it is over
    assert pairs_that_burn(_300=burning, _3600=calm) == []  # it does not matter yet
    assert pairs_that_burn(_21600=burning, _259200=burning) == [PAIRS[3]]


def test_one_failure_at_night_is_no_alarm_and_an_outage_is_one() -> None:
    assert pairs_that_burn(_300=Tally(1, 1), _3600=Tally(5, 1)) == []
    assert pairs_that_burn(_300=Tally(4, 4), _3600=Tally(5, 4)) == [PAIRS[0]]


def test_chance_raises_an_alarm_less_than_once_in_a_hundred_windows() -> None:
    rng = random.Random(3)
    windows, alarms = 4_000, 0
    for _ in range(windows):
        events = rng.choice([5, 50, 500, 1500])
        alarms += shown(THREE_NINES, Tally(events, sum(rng.random() < 0.001 for _ in range(events))))
    assert alarms / windows < 0.01


@given(st.integers(0, 1_000), st.integers(1, 1_000))
def test_an_interval_holds_its_share_and_stays_within_0_and_1(bad: int, of: int) -> None:
    found = wilson(min(bad, of), of)
    assert 0 <= found.low <= found.value <= found.high <= 1


def test_wilsons_interval_is_the_published_one() -> None:
    # Newcombe (1998), table I: 81 of 263.
    found = wilson(81, 263)
    assert (round(found.low, 4), round(found.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 0)[1:] == (0.0, 1.0)


@given(st.integers(1, 10**6), st.integers(0, 10**6))
def test_more_bad_events_never_leave_more_of_the_budget(events: int, bad: int) -> None:
    bad = min(bad, events - 1)
    less, more = (assess(THREE_NINES, Tally(events, each), NOTHING.__getitem__) for each in (bad, bad + 1))
    assert less.left is not None and more.left is not None and less.left > more.left
