"""When to try again, and when to stop spending."""

from __future__ import annotations

import pytest

from farthing.policies.retry import RetryRules, after_fault, after_status
from farthing.policies.spend import DAYS, DayTotal, refuse_beyond
from farthing.proxy.errors import ClientFault, UpstreamFault

RULES = RetryRules(retries=2, base_s=0.25, longest_s=8.0)
NOW = 1_800_000_000.0


def wait(status: int, attempt: int = 1, jitter: float = 0.5, **headers: str) -> float | None:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return after_status(status, named, attempt, RULES, jitter, NOW)


@pytest.mark.parametrize("status", [408, 409, 429, 500, 502, 503, 504, 529])
def test_what_may_pass_is_tried_again(status: int) -> None:
    assert wait(status) == 0.125
    assert wait(status, jitter=0.999) == pytest.approx(0.25, abs=1e-3)
    assert wait(status, jitter=0.0) == 0.0  # full jitter: at once, too


@pytest.mark.parametrize("status", [200, 301, 400, 401, 403, 404, 413, 422])
def test_what_will_not_change_is_not(status: int) -> None:
    assert wait(status) is None


def test_back_off_doubles_and_ends() -> None:
    assert [wait(500, attempt) for attempt in (1, 2, 3)] == [0.125, 0.25, None]


def test_the_answer_may_say_so_itself() -> None:
    assert wait(429, x_should_retry="false") is None
    assert wait(400, x_should_retry="true") == 0.125


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2", 2.0),
        ("1.5", 1.5),
        ("0", 0.0),
        ("-3", 0.0),
        ("8", 8.0),
        ("9", None),
        ("nonsense", 0.0),
        ("nan", 0.0),
        ("inf", 0.0),
        ("Fri, 15 Jan 2027 08:00:03 GMT", 3.0),
    ],
)
def test_retry_after_is_honoured_and_a_long_one_left_to_the_client(value: str, expected: float | None) -> None:
    assert wait(429, jitter=0.0, retry_after=value) == expected


def test_who_were_told_the_same_do_not_come_back_together() -> None:
    assert [wait(429, jitter=jitter, retry_after="4") for jitter in (0.0, 0.5, 0.999)] == [
        4.0,
        4.5,
        pytest.approx(5.0, abs=1e-2),
    ]


def test_retry_after_ms_wins() -> None:
    assert wait(429, jitter=0.0, retry_after_ms="1500", retry_after="7") == 1.5
    assert wait(429, jitter=0.0, retry_after_ms="soon", retry_after="7") == 7.0


@pytest.mark.parametrize(
    ("sent", "idempotent", "allowed", "again"),
    [
        (False, False, False, True),
        (True, False, False, False),
        (True, True, False, True),
        (True, False, True, True),
    ],
)
def test_after_the_body_may_have_arrived_only_what_is_safe(
    sent: bool, idempotent: bool, allowed: bool, again: bool
) -> None:
    fault = UpstreamFault("x", phase="head", sent=sent)
    rules = RetryRules(after_send=allowed)

    assert (after_fault(fault, 1, rules, 0.0, idempotent=idempotent) is not None) is again
    assert after_fault(fault, 3, rules, 0.0, idempotent=True) is None


def test_the_day_turns_at_midnight_utc() -> None:
    total = DayTotal()
    total.add(5, 86_399.0)
    assert total.read(86_399.9) == 5
    assert total.read(86_400.0) == 0


def test_a_clock_that_was_wrong_comes_back_to_what_was_spent() -> None:
    total, day_s = DayTotal(), 86_400.0
    total.add(5, 20_000 * day_s)
    total.add(7, 20_001 * day_s)
    for day in (20_003, 25_000, 20_000, 20_001):
        assert total.read(day * day_s) == {20_001: 7}.get(day, 0) + (5 if day == 20_000 else 0)
    for day in range(20_002, 20_500):
        total.add(1, day * day_s)
    assert len(total.others) < DAYS
    assert (total.read(20_499 * day_s), total.read(20_497 * day_s), total.read(20_000 * day_s)) == (1, 1, 0)


def test_beyond_the_budget_the_answer_is_402_with_the_seconds_to_midnight() -> None:
    refuse_beyond(None, 10**30, 0.0)
    refuse_beyond(100, 99, 0.0)
    with pytest.raises(ClientFault) as caught:
        refuse_beyond(100, 100, 86_000.0)

    assert caught.value.status == 402
    assert caught.value.retry_after_s == 400
