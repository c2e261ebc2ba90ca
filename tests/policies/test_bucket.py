"""Token buckets: never more than a bucket and what ran in meanwhile; in debt they wait; nothing is lost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.bucket import AHEAD_S, Buckets, Rate, Take, give, over_rate, take, take_all
from farthing.policies.budget import Subject


def one(bucket: str, amount: int, per_min: int = 60) -> Take:
    return Take(bucket, amount, Rate(bucket, "requests", per_min, Subject("all")), "")


@given(
    per_min=st.integers(1, 600),
    steps=st.lists(st.tuples(st.floats(-5, 30), st.integers(1, 50)), max_size=60),
)
def test_never_more_than_a_bucket_and_what_ran_in(per_min: int, steps: list[tuple[float, int]]) -> None:
    level, now_s, latest_s, taken = None, 100.0, 100.0, 0
    for passed_s, asked in steps:
        amount = min(asked, per_min)
        now_s = max(now_s + passed_s, latest_s - AHEAD_S)
        latest_s = max(latest_s, now_s)
        level, wait_s = take(level, per_min, amount, now_s)
        if wait_s:
            _, again_s = take(level, per_min, amount, now_s + wait_s + 1e-6)
            assert again_s == 0  # it was told truly
        else:
            taken += amount
        assert taken <= per_min + (latest_s - 100.0 if steps else 0) * per_min / 60 + 1 + per_min / 12


@given(
    per_min=st.integers(1, 600),
    steps=st.lists(
        st.tuples(st.floats(0, 30), st.floats(-2_000_000, 2_000_000) | st.floats(-40, 40), st.integers(1, 50)),
        max_size=60,
    ),
)
def test_a_clock_that_jumps_lets_in_what_would_run_in_where_it_goes_ahead_and_nothing_where_it_goes_back(
    per_min: int, steps: list[tuple[float, float, int]]
) -> None:
    """However it went, whoever waits as told is served: by a clock that is still, which is right from then on."""
    buckets, now_s, taken, most = Buckets(), 10_000_000.0, 0, float(per_min)
    for passed_s, jump_s, asked in steps:
        amount = min(asked, per_min)
        now_s += passed_s + jump_s
        most += passed_s * per_min / 60 + min(per_min, max(0.0, jump_s) * per_min / 60)
        wanted = [one("b", amount, per_min)]
        place, wait_s = buckets.take(wanted, now_s)
        if place >= 0:
            assert wait_s <= 60 + AHEAD_S + 1e-6
            assert take_all(wanted, buckets.levels.get, now_s + wait_s + 1e-6)[0] == -1
        else:
            taken += amount
        assert taken <= most + 1e-3


def test_a_day_ahead_and_back_costs_nobody_a_day() -> None:
    """Both where it is taken from and where it was refused since: what is refused is kept too, or it never filled."""
    day_s, buckets = 86_400.0, Buckets()
    assert buckets.take([one("a", 60), one("b", 1)], day_s) == (-1, 0.0)

    assert buckets.take([one("a", 6)], 0.0) == (0, pytest.approx(6.0))
    assert buckets.take([one("a", 6), one("b", 1)], 5.0) == (0, pytest.approx(1.0))
    assert buckets.levels["b"] == (59, 5.0)
    assert buckets.take([one("a", 6)], 6.0) == (-1, 0.0)


def test_a_stamp_that_is_a_little_ahead_is_waited_for_and_that_is_told() -> None:
    level, _ = take(None, 60, 60, 100.0)

    assert take(level, 60, 6, 100.0 - AHEAD_S) == (level, AHEAD_S + 6)
    assert take(level, 60, 6, 99.0 - AHEAD_S) == ((0, 99.0 - AHEAD_S), 6)
    assert give(level, 60, 6, 90.0) == (6, 100.0)
    assert give(level, 60, 6, 80.0) == (6, 80.0)


def test_a_request_larger_than_the_bucket_passes_when_it_is_full_and_leaves_a_debt() -> None:
    level, wait_s = take(None, 60, 150, 0.0)
    assert wait_s == 0
    _, wait_s = take(level, 60, 1, 0.0)
    assert wait_s == pytest.approx(91)


def test_what_was_not_used_comes_back_and_what_was_used_besides_is_owed() -> None:
    level, _ = take(None, 60, 40, 0.0)

    assert give(level, 60, 30, 0.0).held == 50
    assert give(level, 60, -30, 0.0).held == -10
    assert give(level, 60, 500, 0.0).held == 60


def test_all_buckets_or_none_and_the_longest_wait_is_told() -> None:
    buckets = Buckets()

    assert buckets.take([one("a", 60), one("b", 1)], 0.0) == (-1, 0.0)
    assert buckets.take([one("a", 6), one("b", 1)], 0.0) == (0, pytest.approx(6.0))
    assert buckets.levels["b"].held == 59
    buckets.give([one("a", 0)], 10, 0.0)
    assert buckets.take([one("a", 6), one("b", 1)], 0.0) == (-1, 0.0)


def test_a_refusal_names_the_limit_and_the_wait() -> None:
    fault = over_rate(Take("x", 1, Rate("burst", "tokens", 500, Subject("key")), "ann"), 2.5)

    assert (fault.status, fault.retry_after_s, fault.param) == (429, 3, "rate_limits.burst")
    assert fault.message.startswith("the rate limit 'burst' for key 'ann' (500 tokens a minute) is reached")
