"""The month's forecast: by hand, its bounds for any days, and how often the interval holds the truth."""

from __future__ import annotations

import random
from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from farthing.proxy.forecast import CONFIDENCE, LEAST_DAYS, LOOK_BACK, WEEKS_FROM, forecast, student
from farthing.proxy.report_sentence import forecast_text
from tests.fakes.rows import DOLLAR

NOON = datetime(2026, 11, 26, 12, tzinfo=UTC)
TODAY = NOON.date()


def days(*amounts: int, until: date = TODAY) -> dict[date, int]:
    """Amounts of the days before `until`, the last one yesterday's."""
    return {until - timedelta(days=len(amounts) - i): amount for i, amount in enumerate(amounts)}


def test_even_days_go_on_and_leave_no_doubt() -> None:
    made = forecast({**days(*[10 * DOLLAR] * 5), TODAY: 5 * DOLLAR}, TODAY - timedelta(days=5), NOON)
    # 55 so far; the other half of today, and four more days.
    assert made.so_far == 55 * DOLLAR
    assert made.days_left == 4.5
    assert (made.low, made.expected, made.high) == (100 * DOLLAR,) * 3
    assert not made.weekdays


def test_weekdays_are_told_apart_from_fourteen_days_on() -> None:
    weekend = {
        day: (0 if day.weekday() >= 5 else 7 * DOLLAR) for day in (TODAY - timedelta(days=n) for n in range(1, 29))
    }
    whole = forecast(weekend, TODAY - timedelta(days=28), NOON)
    assert whole.weekdays
    # Thursday noon, 26th: half a Thursday, Friday, and a Monday; nothing on Saturday and Sunday.
    assert whole.expected == whole.so_far + round(2.5 * 7 * DOLLAR) == whole.low == whole.high
    short = forecast(weekend, TODAY - timedelta(days=WEEKS_FROM - 1), NOON)
    assert not short.weekdays
    assert short.low is not None
    assert short.expected is not None
    assert short.low < short.expected


@pytest.mark.parametrize("known", range(LEAST_DAYS))
def test_too_little_data_is_said(known: int) -> None:
    made = forecast({**days(*[DOLLAR] * 20), TODAY: DOLLAR}, TODAY - timedelta(days=known), NOON)
    assert made.expected is made.low is made.high is None
    assert made.so_far == 21 * DOLLAR
    assert "Too little data for a forecast" in forecast_text(made)


def test_a_day_without_traffic_is_a_day_of_nothing() -> None:
    by_day = {TODAY - timedelta(days=4): 4 * DOLLAR}
    made = forecast(by_day, TODAY - timedelta(days=4), NOON)
    assert made.expected == 4 * DOLLAR + round(4.5 * DOLLAR)


def test_the_month_alone_is_so_far_and_older_days_are_only_learnt_from() -> None:
    first = datetime(2026, 12, 1, 0, 0, tzinfo=UTC)
    made = forecast(days(*[DOLLAR] * 10, until=first.date()), date(2026, 1, 1), first)
    assert (made.month, made.so_far, made.days_left) == ("2026-12", 0, 31)
    assert made.days == LOOK_BACK
    last = datetime(2026, 12, 31, 23, 59, 59, tzinfo=UTC)
    done = forecast(days(*[DOLLAR] * 30, until=last.date()), date(2026, 1, 1), last)
    assert done.expected == pytest.approx(30 * DOLLAR, rel=1e-3)


moments = st.floats(1.7e9, 1.9e9).map(lambda moment_s: datetime.fromtimestamp(moment_s, UTC))


@given(st.lists(st.integers(-(10**12), 10**16), max_size=60), st.integers(0, 60), moments)
def test_any_days_give_an_ordered_interval(amounts: list[int], first: int, now: datetime) -> None:
    today = now.date()
    made = forecast(days(*amounts, until=today), today - timedelta(days=first), now)
    assert made.days == min(first, LOOK_BACK)
    assert 0 < made.days_left <= 31
    if made.expected is None:
        assert first < LEAST_DAYS
        return
    assert made.low is not None
    assert made.high is not None
    assert made.so_far <= made.low <= made.expected <= made.high


@pytest.mark.parametrize("known", [4, 10, 28])
def test_the_interval_holds_the_truth_about_as_often_as_it_says(known: int) -> None:
    """Independent days around a weekly rhythm: 1,000 months, so that three standard errors are 3 %."""
    dice = random.Random(7)
    now = datetime(2026, 11, 20, tzinfo=UTC)
    today, held = now.date(), 0
    for _ in range(1000):

        def spent(day: date) -> int:
            usual = 100 if known < WEEKS_FROM or day.weekday() < 5 else 20
            return round(dice.gauss(usual, 10) * DOLLAR)

        past = {day: spent(day) for day in (today - timedelta(days=n) for n in range(1, known + 1))}
        rest = sum(spent(today + timedelta(days=n)) for n in range(11))
        made = forecast(past, today - timedelta(days=known), now)
        assert made.low is not None
        assert made.high is not None
        held += made.low <= made.so_far + rest <= made.high
    assert abs(held / 1000 - CONFIDENCE) < 0.03


@pytest.mark.parametrize("freedom", [2, 3, 5, 9, 21, 27, 1000])
def test_students_quantiles_are_scipys(freedom: int) -> None:
    for probability in (0.75, 0.9, 0.95, 0.975):
        assert student(probability, freedom) == pytest.approx(t.ppf(probability, freedom), rel=0.021)
