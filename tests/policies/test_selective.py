"""The threshold of a student: how often the promise is broken, and that nothing is promised on too little."""

from __future__ import annotations

import math

import numpy as np
import pytest

from farthing.policies.selective import Scored, chosen, least_cases, outcome


def world(rng: np.random.Generator, count: int) -> Scored:
    """The higher the confidence, the rarer an error: P(wrong) = 0.3 (1 - confidence)^2, over uniform confidences."""
    confidence = rng.uniform(size=count)
    return Scored(confidence, rng.uniform(size=count) < 0.3 * (1 - confidence) ** 2)


def true_rate(threshold: float) -> float:
    return 0.1 * (1 - threshold) ** 2  # the mean of the above over what is answered


def test_the_bound_is_broken_no_more_often_than_the_level_says() -> None:
    rng = np.random.default_rng(7)
    broken = served = 0
    for _ in range(600):
        found = chosen(world(rng, 2000), world(rng, 3000), 0.02, 0.1)
        served += found is not None
        broken += found is not None and true_rate(found.threshold) > 0.02
    assert served > 500  # it promises something in most worlds
    assert broken / 600 <= 0.1 + 3 * math.sqrt(0.1 * 0.9 / 600)


def test_a_classifier_that_is_wrong_at_any_threshold_never_answers() -> None:
    rng = np.random.default_rng(8)
    passed = 0
    for _ in range(200):
        parts = [Scored(rng.uniform(size=n), rng.uniform(size=n) < 0.02) for n in (500, 1000)]
        passed += chosen(parts[0], parts[1], 0.02, 0.05) is not None
    assert passed / 200 <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / 200)


def test_nothing_is_proved_with_fewer_answers_than_a_proof_takes() -> None:
    least = least_cases(0.02, 0.05)
    assert least == 149
    right = [Scored(np.linspace(0.5, 1, n), np.zeros(n, bool)) for n in (1000, least - 1, least)]
    assert chosen(right[0], right[1], 0.02, 0.05) is None
    found = chosen(right[0], right[2], 0.02, 0.05)
    assert found is not None and found.wrong == 0 and found.upper <= 0.02


def test_what_a_threshold_does_is_told_with_its_bound() -> None:
    part = Scored(np.array([0.9, 0.8, 0.2]), np.array([False, True, True]))
    found = outcome(part, 0.5, 0.05)
    assert (found.answered, found.wrong, found.share, found.rate) == (2, 1, 2 / 3, 0.5)
    nothing = outcome(part, 0.95, 0.05)
    assert (nothing.answered, nothing.upper) == (0, 1.0) and math.isnan(nothing.rate)


@pytest.mark.parametrize(("bound", "level"), [(0.0, 0.1), (1.0, 0.1), (0.1, 0.0), (0.1, 1.0)])
def test_bound_and_level_are_shares(bound: float, level: float) -> None:
    part = Scored(np.array([0.9]), np.array([False]))
    with pytest.raises(ValueError, match="between 0 and 1"):
        chosen(part, part, bound, level)


def test_without_cases_nothing_is_chosen() -> None:
    none = Scored(np.array([]), np.array([], bool))
    assert chosen(none, none, 0.02, 0.05) is None
