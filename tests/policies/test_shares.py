"""Watched shares: the stated rate of false alarms where nothing changes, and changes caught; by seeded simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.psi import noise, psi, words
from farthing.policies.shares import Kind, Reference, Shares, height, limit_of
from farthing.policies.watch_series import log_place

NOW = Reference(2_000, 0.0)
# One alarm a year, of two hundred series that are each observed once a second.
STEP, PATIENCE = 1 / (365.25 * 86_400) / 200, 1.0


def taught(places: np.ndarray, bins: int = 2, kind: str = Kind.NAMED, tolerance: float = 1.25) -> Shares:
    found = Shares(bins, kind, Reference(len(places), 0.0), tolerance)
    for place in places:
        found.add(int(place), 0.0, 0.0, PATIENCE)
    assert found.ready
    return found


def delay(one: Shares, places: np.ndarray, step: float = STEP) -> int | None:
    """How many observations it takes to raise the first alarm."""
    budget = one.last_budget
    for at, place in enumerate(places):
        budget += step
        if one.add(int(place), float(at), budget, PATIENCE):
            return at + 1
    return None


def alarms(one: Shares, places: np.ndarray, patience: float) -> int:
    """How many alarms there would be if each were acknowledged at once; the budget's unit is an observation."""
    count, budget = 0, one.last_budget
    for place in places:
        budget += 1.0
        raised = one.add(int(place), 0.0, budget, patience)
        one.moved = None
        count += raised is not None
    return count


def test_false_alarms_are_no_more_than_stated_at_the_edge_of_what_is_borne() -> None:
    """The worst null case: the true share lies exactly on the limit, all the time. 150,000 observations."""
    one, rng = taught(np.repeat([0, 1], [900, 100])), np.random.default_rng(1)
    limit = limit_of(100, 1_000, 1e-3 / 2, 1.25)
    found = alarms(one, rng.random(150_000) < limit, 1_000.0)
    assert 0 < found <= 150_000 / 1_000


def test_false_alarms_are_no_more_than_stated_where_observations_hang_together() -> None:
    """Days and nights: the chance goes up and down within what is borne, so that nothing is exchangeable."""
    one, rng = taught(np.repeat([0, 1], [900, 100])), np.random.default_rng(2)
    limit = limit_of(100, 1_000, 1e-3 / 2, 1.25)
    wave = 0.085 + (limit - 0.085) * (1 + np.sin(np.arange(100_000) / 300)) / 2
    assert alarms(one, rng.random(100_000) < wave, 1_000.0) <= 100_000 / 1_000


def test_a_year_without_change_is_silent_at_the_defaults() -> None:
    """Forty series with references of their own, 4,000 observations each, spread over a year."""
    rng, raised = np.random.default_rng(3), 0
    for series in range(40):
        share = rng.uniform(0.005, 0.5)
        one = taught(rng.random(2_000) < share)
        raised += delay(one, rng.random(4_000) < share, step=1 / 4_000 / 40) is not None
        assert one.moved is None, series
    assert raised == 0


LENGTH = 40


@pytest.mark.parametrize(
    ("before", "after", "within"),
    [
        pytest.param(lambda rng, n: rng.random(n) < 0.01, lambda rng, n: rng.random(n) < 0.10, 500, id="refusals"),
        pytest.param(
            lambda rng, n: rng.random(n) < 0.01, lambda rng, n: rng.random(n) < 0.05, 2_500, id="few refusals"
        ),
        pytest.param(lambda rng, n: rng.random(n) < 0.4, lambda rng, n: rng.random(n) < 0.2, 800, id="hit rate"),
        pytest.param(lambda rng, n: rng.random(n) < 0.0, lambda rng, n: rng.random(n) < 0.2, 100, id="something new"),
    ],
)
def test_a_changed_share_is_caught_soon(
    before: Callable[[np.random.Generator, int], np.ndarray],
    after: Callable[[np.random.Generator, int], np.ndarray],
    within: int,
) -> None:
    late = []
    for seed in range(10):
        rng = np.random.default_rng(seed)
        one = taught(before(rng, 2_000))
        assert delay(one, before(rng, 2_000)) is None
        late.append(delay(one, after(rng, 4 * within)))
    assert all(one is not None and one <= 2 * within for one in late)
    assert sorted(one or 0 for one in late)[5] <= within


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_changed_length_is_caught_soon_and_named(factor: float) -> None:
    for seed in range(5):
        rng = np.random.default_rng(seed)

        def lengths(n: int, median: float, rng: np.random.Generator = rng) -> np.ndarray:
            return np.array([log_place(value) for value in rng.lognormal(np.log(median), 0.9, n)])

        one = taught(lengths(2_000, 700), LENGTH, Kind.ORDERED)
        assert delay(one, lengths(2_000, 700)) is None
        found = delay(one, lengths(2_000, 700 * factor))
        assert found is not None and found <= 700
        assert one.moved is not None
        assert (one.moved.first > 0) is (factor > 1)
        assert one.moved.was < one.moved.limit


def test_an_alarm_is_told_once_and_ends_when_all_is_as_before() -> None:
    rng = np.random.default_rng(5)
    one = taught(rng.random(2_000) < 0.05)
    assert delay(one, rng.random(1_000) < 0.5) is not None
    assert one.moved is not None and one.height(PATIENCE) == 1.0
    assert delay(one, rng.random(2_000) < 0.5) is None  # it stands, and is not told again
    assert delay(one, rng.random(3_000) < 0.05) is None
    assert one.moved is None
    assert delay(one, rng.random(1_000) < 0.5) is not None


def test_a_reference_needs_its_time_as_well() -> None:
    one = Shares(2, Kind.NAMED, Reference(50, 86_400.0), 1.25)
    for at in range(60):
        one.add(0, float(at), 0.0, 1.0)
    assert not one.ready
    one.add(0, 86_401.0, 0.0, 1.0)
    assert one.ready


def test_what_is_dumped_goes_on_where_it_was() -> None:
    rng = np.random.default_rng(7)
    one = taught(rng.random(2_000) < 0.05)
    assert delay(one, rng.random(500) < 0.05) is None
    other = Shares(2, Kind.NAMED, NOW, 1.25)
    other.load(one.dump(), 7.0)
    places = rng.random(2_000) < 0.3
    assert delay(one, places) == delay(other, places)
    assert other.moved is not None and one.moved is not None
    assert other.moved.now == pytest.approx(one.moved.now, abs=1e-3)
    again = Shares(2, Kind.NAMED, NOW, 1.25)
    again.load(other.dump(), 0.0)
    assert again.moved == other.moved


@pytest.mark.parametrize("harm", [{"reference": [1]}, {"now": [1, -2]}, {"levels": "x"}, {"moved": [1]}])
def test_a_damaged_dump_is_refused(harm: dict[str, object]) -> None:
    with pytest.raises((ValueError, TypeError)):
        Shares(2, Kind.NAMED, NOW, 1.25).load(taught(np.zeros(2_000)).dump() | harm, 0.0)


@given(count=st.integers(0, 500), more=st.integers(0, 500), risk=st.floats(1e-6, 0.2), tolerance=st.floats(1, 5))
def test_a_limit_is_above_what_was_seen(count: int, more: int, risk: float, tolerance: float) -> None:
    n = count + more + 1
    limit = limit_of(count, n, risk, tolerance)
    assert count / n < limit <= 1.0
    assert limit_of(count, n, risk, 1.0) <= limit + 1e-12


def test_the_limit_covers_the_true_share() -> None:
    """Clopper-Pearson's limit lies below the true share no more often than the risk says; 20,000 references."""
    rng = np.random.default_rng(8)
    counts = rng.binomial(500, 0.03, 20_000)
    limits = {count: limit_of(int(count), 500, 0.05, 1.0) for count in np.unique(counts)}
    assert np.mean([limits[count] < 0.03 for count in counts]) <= 0.05


@pytest.mark.parametrize(
    ("before", "now", "index", "word"),
    [
        ([100, 100], [50, 50], 0.0, "alike"),
        ([500, 500], [350, 650], 0.09, "alike"),
        ([500, 500], [300, 700], 0.17, "changed somewhat"),
        ([500, 500], [100, 900], 0.87, "changed much"),
    ],
)
def test_psi(before: list[float], now: list[float], index: float, word: str) -> None:
    assert psi(before, now) == pytest.approx(index, abs=0.01)
    assert words(psi(before, now)) == word


def test_psi_is_as_large_by_chance_as_it_says() -> None:
    rng, shares = np.random.default_rng(9), np.full(10, 0.1)
    found = [psi(rng.multinomial(1_000, shares).tolist(), rng.multinomial(250, shares).tolist()) for _ in range(500)]
    assert np.mean(found) == pytest.approx(noise(1_000, 250, 10), rel=0.1)


@given(st.lists(st.tuples(st.integers(0, 999), st.integers(0, 999)), min_size=2, max_size=12))
def test_psi_is_symmetric_and_never_negative(pairs: list[tuple[int, int]]) -> None:
    before, now = [one for one, _ in pairs], [other for _, other in pairs]
    assert psi(before, now) >= -1e-12
    assert psi(before, now) == pytest.approx(psi(now, before))


def test_odd_arguments_are_refused() -> None:
    with pytest.raises(ValueError, match="two bins"):
        Shares(1, Kind.NAMED, NOW, 1.25)
    with pytest.raises(ValueError, match="same bins"):
        psi([1], [1, 2])
    assert height(0.0) == 0.0 and height(1.0) == 1.0 and height(5.0) == 1.0 and 0.4 < height(1e-6) < 0.6


@pytest.mark.parametrize("now", [3, 12])
def test_values_that_were_all_alike_are_seen_to_change(now: int) -> None:
    one = Shares(20, Kind.ORDERED, Reference(500, 0.0), 1.25)
    found = [one.add(7, at, at * 1e-6, 1.0) for at in range(1_500)]
    assert found == [None] * 1_500
    rng = np.random.default_rng(1)
    found = [one.add(now if yes else 7, at, at * 1e-6, 1.0) for at, yes in enumerate(rng.random(300) < 0.2, 1_500)]
    moved = next(each for each in found if each is not None)
    assert moved.first <= now <= moved.last and moved.was == 0.0 and moved.now > moved.limit
