"""Whether an effect lasts: what fades is found, and what lasts is left alone however often one looks."""

from __future__ import annotations

import math

import numpy as np
import pytest

from farthing.policies.confidence import Sums
from farthing.policies.experiment import lasting
from farthing.policies.experiment_sums import Tracker
from farthing.policies.novelty import FEWEST_PERIODS, Novelty, Period, novelty

DAYS, EACH = 28, 200


def most(rate: float, runs: int) -> int:
    """Exceeded with probability 1 in 1,000 where the true rate is `rate`."""
    return round(runs * rate + 3.1 * math.sqrt(runs * rate * (1 - rate)) + 1)


def arm(dice: np.random.Generator, mean: float, count: int) -> Sums:
    """Normal outcomes with a deviation of 1, by what is known of them."""
    return Sums(count, float(dice.normal(mean, 1 / math.sqrt(count))), float(dice.chisquare(count - 1)))


def looked_at(dice: np.random.Generator, effects: list[float]) -> list[Novelty]:
    """What was said at noon and at the end of each day."""
    done: list[Period] = []
    said = []
    for day, effect in enumerate(effects):
        morning = Period(day, arm(dice, effect, EACH // 2), arm(dice, 0.0, EACH // 2))
        said.append(novelty([*done, morning]))
        one, other = (
            half.merge(arm(dice, mean, EACH // 2)) for half, mean in zip(morning[1:], (effect, 0.0), strict=True)
        )
        done.append(Period(day, one, other))
        said.append(novelty(done))
    return said


def test_looking_twice_a_day_finds_no_change_where_there_is_none() -> None:
    """A test made for one look, at every look, would find one in a fifth of the worlds."""
    dice, runs, ever, fixed, missed = np.random.default_rng(8), 200, 0, 0, 0
    for _ in range(runs):
        said = looked_at(dice, [0.3] * DAYS)
        ever += any(one.word in ("decays", "grows") for one in said)
        missed += any(not one.slope.low <= 0 <= one.slope.high for one in said)
        fixed += any(abs(one.slope.value) > 1.96 * error_of(day + 1) for day, one in enumerate(said[1::2]))
    assert ever <= most(0.05, runs) and missed <= most(0.05, runs)
    assert fixed > 0.15 * runs


def error_of(days: int) -> float:
    """The standard error of the slope over so many whole days."""
    return math.sqrt(2 / EACH / ((days**3 - days) / 12)) if days > 1 else math.inf


@pytest.mark.parametrize(("fades", "word"), [(0.8, "decays"), (1.15, "grows")])
def test_an_effect_that_changes_is_found(fades: float, word: str) -> None:
    dice = np.random.default_rng(9)
    effects = [(0.6 if fades < 1 else 0.1) * fades**day for day in range(14)]
    assert [looked_at(dice, effects)[-1].word for _ in range(40)].count(word) >= 36


def test_below_seven_days_it_is_too_short_and_so_are_days_of_a_few() -> None:
    dice = np.random.default_rng(10)
    assert looked_at(dice, [0.9] * (FEWEST_PERIODS - 1))[-1].word == "too short"
    few = [Period(day, arm(dice, 1.0, 29), arm(dice, 0.0, 500)) for day in range(20)]
    assert novelty(few).word == "too short"


def test_users_who_come_every_day_make_no_change_either() -> None:
    """By user an arm's days aren't independent: whoever is in it is in it every day."""
    dice, runs, ever = np.random.default_rng(11), 60, 0
    for _ in range(runs):
        habits = dice.normal(0, 1, (2, 60))
        done: list[Period] = []
        for day in range(20):
            values = habits + dice.normal(0, 0.7, habits.shape)
            done.append(Period(day, Sums.of(values[0].tolist()), Sums.of(values[1].tolist())))
            if day >= FEWEST_PERIODS and novelty(done).word in ("decays", "grows"):
                ever += 1
                break
    assert ever <= most(0.05, runs)


def test_an_experiments_days_are_its_periods() -> None:
    dice = np.random.default_rng(3)

    def word(of_day: float, fades: float) -> str:
        tracker = Tracker("mean", 2, alone=True, most_units=1, with_days=True)
        for day in range(14):
            for number in (0, 1):
                for value in dice.normal(number * of_day * fades**day, 1, 200):
                    tracker.add(number, "", day, float(value), 1, 1)
        return lasting(tracker, 1).word

    assert word(0.8, 0.7) == "decays"
    assert word(0.8, 1.0) == "steady"
