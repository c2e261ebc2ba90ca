"""What a key has left of its limits, by what answers told."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.headroom import Headroom, KeyLimits, reset_in_s, told_rates

NOW_S = 1_800_000_000.0


def openai(kind: str, limit: int, left: int, reset: str) -> dict[str, str]:
    return {
        f"x-ratelimit-limit-{kind}": str(limit),
        f"x-ratelimit-remaining-{kind}": str(left),
        f"x-ratelimit-reset-{kind}": reset,
    }


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1s", 1.0),
        ("6m0s", 360.0),
        ("120ms", 0.12),
        ("1h2m3.5s", 3723.5),
        ("7.66s", 7.66),
        ("12", 12.0),
        ("-3", 0.0),
        ("2027-01-15T08:00:30Z", 30.0),
        ("2027-01-15T08:00:30+00:00", 30.0),
        ("2020-01-01T00:00:00Z", 0.0),
        ("2027-01-15T08:00:30", None),
        ("soon", None),
        ("", None),
        ("nan", None),
        ("inf", None),
    ],
)
def test_resets_as_providers_write_them(text: str, seconds: float | None) -> None:
    assert reset_in_s(text, NOW_S) == (None if seconds is None else pytest.approx(seconds))


@given(st.text(max_size=40))
def test_no_reset_breaks_it(text: str) -> None:
    found = reset_in_s(text, NOW_S)

    assert found is None or found >= 0


def test_only_headers_that_speak_of_rates_are_read() -> None:
    pairs = [("X-RateLimit-Remaining-Requests", "3"), ("Retry-After", "1"), ("Content-Type", "x"), ("X-Other", "y")]

    assert told_rates(pairs) == {"x-ratelimit-remaining-requests": "3", "retry-after": "1"}


def test_nothing_told_means_free() -> None:
    headroom = Headroom()
    headroom.take()

    assert (headroom.wait_s(0), headroom.share(0)) == (0, 1)


def test_an_empty_bucket_waits_for_the_next_request_not_for_all() -> None:
    """60 a minute, none left: one flows in each second."""
    headroom = Headroom()
    headroom.learn(200, openai("requests", 60, 0, "60s"), 0.0, NOW_S)

    assert headroom.wait_s(0.0) == pytest.approx(1.0)
    assert headroom.wait_s(1.0) == 0
    assert headroom.share(30.0) == pytest.approx(0.5)
    assert headroom.share(1000.0) == 1


def test_requests_under_way_count_before_their_answers_tell() -> None:
    headroom = Headroom()
    headroom.learn(200, openai("requests", 60, 2, "58s"), 0.0, NOW_S)
    headroom.take()
    assert headroom.wait_s(0.0) == 0
    headroom.take()

    assert headroom.wait_s(0.0) > 0


def test_anthropics_headers_and_times() -> None:
    full = (datetime.fromtimestamp(NOW_S, UTC) + timedelta(seconds=50)).isoformat()
    headroom = Headroom()
    headroom.learn(
        200,
        {
            "anthropic-ratelimit-requests-limit": "50",
            "anthropic-ratelimit-requests-remaining": "0",
            "anthropic-ratelimit-requests-reset": full,
        },
        5.0,
        NOW_S,
    )

    assert headroom.wait_s(5.0) == pytest.approx(1.0)


def test_tokens_that_are_nearly_gone_park_it() -> None:
    headroom = Headroom()
    headroom.learn(200, openai("tokens", 10_000, 20, "60s"), 0.0, NOW_S)

    assert 0 < headroom.wait_s(0.0) < 1
    assert headroom.wait_s(1.0) == 0


@pytest.mark.parametrize(
    ("rates", "wait_s"), [({"retry-after": "7"}, 7.0), ({"retry-after-ms": "1500"}, 1.5), ({}, 1.0)]
)
def test_a_refusal_parks_it(rates: dict[str, str], wait_s: float) -> None:
    headroom = Headroom()
    headroom.learn(429, rates, 10.0, NOW_S)

    assert headroom.wait_s(10.0) == wait_s
    assert headroom.wait_s(10.0 + wait_s) == 0


def test_refusals_without_a_word_park_it_longer_each_time() -> None:
    headroom, waits = Headroom(), []
    for _ in range(8):
        headroom.learn(429, {}, 0.0, NOW_S)
        waits.append(headroom.wait_s(0.0))
    headroom.learn(200, {}, 100.0, NOW_S)
    headroom.learn(429, {}, 100.0, NOW_S)

    assert waits == [1, 2, 4, 8, 16, 32, 60, 60]
    assert headroom.wait_s(100.0) == 1


def test_a_key_that_the_provider_does_not_know_is_left_alone_for_a_minute_whatever_the_model() -> None:
    limits = KeyLimits()
    limits.learn("m", 401, {}, 0.0, NOW_S)

    assert [limits.wait_s(model, 0.0) for model in ("m", "n", "")] == [60, 60, 60]
    assert limits.wait_s("n", 60.0) == 0


def test_what_one_model_was_told_says_nothing_of_another() -> None:
    limits = KeyLimits()
    limits.learn("m", 429, {"retry-after": "3600"}, 0.0, NOW_S)
    limits.learn("n", 200, openai("requests", 10, 4, "600s"), 0.0, NOW_S)
    limits.take("n")

    assert [limits.wait_s(model, 1.0) for model in ("m", "n", "o")] == [3599, 0, 0]
    assert [limits.share(model, 0.0) for model in ("m", "n", "o")] == [1, pytest.approx(0.3), 1]
    assert limits.worst(1.0) == (3599, pytest.approx(0.3, abs=1e-2))


def test_models_that_nobody_heard_of_for_long_are_forgotten() -> None:
    limits = KeyLimits()
    for number in range(66):
        limits.learn(f"m{number}", 429, {"retry-after": "60"}, 0.0, NOW_S)
        limits.learn("m1", 429, {}, 0.0, NOW_S)

    assert [limits.wait_s(f"m{number}", 0.0) > 0 for number in (0, 1, 2, 3, 65)] == [False, True, False, True, True]


@given(
    st.integers(0, 10**9),
    st.integers(0, 10**9),
    st.sampled_from(["0s", "1ms", "6m0s", "junk"]),
    st.floats(0, 1e5),
)
def test_once_it_has_waited_it_is_free(limit: int, left: int, reset: str, tick_s: float) -> None:
    headroom = Headroom()
    headroom.learn(200, openai("requests", limit, left, reset), 0.0, NOW_S)

    assert 0 <= headroom.share(tick_s) <= 1
    if limit >= 1:
        assert headroom.wait_s(tick_s + headroom.wait_s(tick_s) + 1e-3) == 0
