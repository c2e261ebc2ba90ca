"""When students are trained anew, and that a new one that is worse stays out as often as is said."""

from __future__ import annotations

import math

import numpy as np
import pytest

from farthing.policies import estimate
from farthing.policies.selective import Scored
from farthing.policies.student_again import beside
from farthing.policies.student_due import due

DAY_S = 86_400.0


@pytest.mark.parametrize(
    ("now_days", "made_days", "tried_days", "fell_back", "every_days", "why"),
    [
        (8, 0, -100, False, 7, "its schedule"),
        (6, 0, -100, False, 7, ""),
        (8, 0, 7.5, False, 7, ""),  # the last try, whatever came of it, begins the time anew
        (15, 0, 7.5, False, 7, "its schedule"),
        (1, 0, -100, True, 7, "it went back to observe"),
        (1, 0, 0.9, True, 7, ""),  # but not more often than that
        (99, 0, -100, True, 0, ""),
    ],
)
def test_it_is_due_on_schedule_and_when_it_fell_back_but_not_too_often(
    now_days: float, made_days: float, tried_days: float, fell_back: bool, every_days: float, why: str
) -> None:
    times = (now_days * DAY_S, made_days * DAY_S, tried_days * DAY_S)
    assert due(*times, fell_back=fell_back, every_s=every_days * DAY_S, least_s=DAY_S / 4) == why


def part(rng: np.random.Generator, count: int, answers: float, wrong: float) -> Scored:
    """A student that is sure of that share, and wrong in that share of what it is sure of."""
    return Scored((rng.random(count) < answers).astype(float), rng.random(count) < wrong)


def test_one_that_is_as_good_passes_and_says_so() -> None:
    rng = np.random.default_rng(1)
    same = part(rng, 600, 0.6, 0.01)
    told = beside(same, 0.5, same, 0.5, 0.02, rng)
    assert told.passed and "600 requests that it never saw it is not worse" in told.said


@pytest.mark.parametrize(("answers", "wrong"), [(0.6, 0.0436), (0.54, 0.01)])  # at a margin: 2 %, 6 % of requests less
def test_one_that_is_worse_by_the_margin_passes_in_one_of_twenty_at_most(
    answers: float, wrong: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The end of an interval is off by 0.7 points of its level then, where sixty runs tell it to 2.8.
    monkeypatch.setattr(estimate, "_RESAMPLES", 1_000)
    passed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        passed += beside(part(rng, 600, answers, wrong), 0.5, part(rng, 600, 0.6, 0.01), 0.5, 0.02, rng).passed
    assert passed <= 7  # 5 % of 60 are 3; 8 or more have a chance of 2 %


def test_few_requests_show_nothing() -> None:
    rng = np.random.default_rng(3)
    few = part(rng, 20, 1.0, 0.0)
    assert not beside(few, 0.5, few, 0.5, 0.02, rng).passed


def test_who_answers_nobody_any_more_is_nobody_to_keep_up_with() -> None:
    rng = np.random.default_rng(3)
    new, refuted = part(rng, 600, 0.7, 0.0), part(rng, 600, 1.0, 0.99)
    assert beside(new, 0.5, refuted, 0.5, 0.02, rng).answers.word == "worse"
    assert beside(new, 0.5, refuted, math.inf, 0.02, rng).passed
    assert not beside(part(rng, 600, 0.7, 0.2), 0.5, refuted, math.inf, 0.02, rng).passed
