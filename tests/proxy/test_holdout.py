"""Hold-outs: what each arm is without, and that arms which would change nothing are left out."""

from __future__ import annotations

from typing import Any

import pytest

from farthing.proxy.config import Config, load
from farthing.proxy.config_experiments import HoldoutSection
from farthing.proxy.holdout import arms_of, without
from farthing.proxy.versions import policy_version, sections_of, with_sections

STUDENT = {"name": "quick", "student": "intents"}
BIG, MID = {"name": "big", "model": "m"}, {"name": "mid", "model": "n"}


def config(**changes: Any) -> Config:
    routes = [
        {"name": "two", "mode": "serve", "model": "a", "strategy": "cascade", "variants": ["quick", "big"],
         "accept": {"min_chars": 2}},
        {"name": "three", "mode": "serve", "model": "b", "strategy": "cascade", "variants": ["quick", "mid", "big"],
         "accept": {"min_chars": 3}},
        {"name": "none", "mode": "serve", "model": "c", "variants": ["big"]},
    ]  # fmt: skip
    given: dict[str, Any] = {
        "variants": [STUDENT, BIG, MID],
        "routes": routes,
        "prompt_cache": {"mode": "serve", "keep_warm": True},
        "semantic": {"mode": "serve"},
        "compress": {"tidy": True},
    }
    return load(None, {}, given | changes)


def test_without_students_their_teachers_answer() -> None:
    two, three, none = without(config(), "no-student").routes
    assert (two.strategy, two.variants) == ("fixed", ("big",))
    assert (three.strategy, three.variants, three.accept.min_chars) == ("cascade", ("mid", "big"), 3)
    assert none == config().routes[2]


@pytest.mark.parametrize("name", HoldoutSection().arms)
def test_each_arm_is_a_valid_policy_that_lacks_its_optimiser_alone(name: str) -> None:
    whole = config()
    arm = without(whole, name)
    before, after = sections_of(whole), sections_of(arm)
    changed = {part for part in before if before[part] != after[part]}
    assert (
        changed
        == {
            "all-off": {"semantic", "compress", "routes", "cache", "prompt_cache"},
            "no-exact": {"cache"},
            "no-semantic": {"semantic"},
            "no-compress": {"compress"},
            "no-route": {"routes"},
            "no-student": {"routes"},
            "no-prompt-cache": {"prompt_cache"},
        }[name]
    )
    kept = arm.model_dump(mode="json", include=set(before), by_alias=True, exclude_unset=True)  # as versions are kept
    assert policy_version(with_sections(whole, kept)) == policy_version(arm)


def test_arms_that_would_change_nothing_are_left_out() -> None:
    names = HoldoutSection().arms
    assert [name for name, _ in arms_of(config(), names)] == list(names)
    plain = config(variants=[], routes=[], prompt_cache={"mode": "observe"})
    assert [name for name, _ in arms_of(plain, names)] == ["all-off", "no-exact", "no-semantic", "no-compress"]
