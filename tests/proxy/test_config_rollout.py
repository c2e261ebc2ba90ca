"""`[rollout]`: what is taken, what is refused, and what it means to the roll-out and its guard."""

from __future__ import annotations

import pytest

from farthing.policies.guard import Bounds
from farthing.policies.rollout import Plan
from farthing.proxy.config import Config, load
from farthing.proxy.errors import ConfigFault


def test_the_defaults_are_those_of_the_guard_and_the_steps() -> None:
    assert Config().rollout.bounds == Bounds()
    assert Config().rollout.plan == Plan()


def test_every_bound_reaches_the_guard() -> None:
    given = {"level": 0.01, "error_ratio": 2, "error_points": 0.1, "latency_ratio": 3, "cost_ratio": 4,
             "rating_ratio": 5, "rating_points": 0.2}  # fmt: skip
    found = load(
        None, {"FARTHING_ROLLOUT__STEPS": "[0.2, 1]"}, {f"rollout.{name}": value for name, value in given.items()}
    )

    assert found.rollout.bounds == Bounds(**given)
    assert found.rollout.plan.steps == (0.2, 1.0)


@pytest.mark.parametrize(
    ("key", "value", "says"),
    [
        ("steps", [0.5, 0.1, 1], "shares that rise"),
        ("steps", [0.5], "shares that rise"),
        ("hold_s", -1, "rollout.hold_s"),
        ("min_requests", 0, "rollout.min_requests"),
        ("unit", "planet", "rollout.unit"),
        ("level", 0, "rollout.level"),
        ("cost_ratio", 0.9, "rollout.cost_ratio"),
        ("step", [1], "did you mean 'steps'"),
    ],
)
def test_what_makes_no_sense_is_refused(key: str, value: object, says: str) -> None:
    with pytest.raises(ConfigFault, match=says):
        load(None, {}, {f"rollout.{key}": value})
