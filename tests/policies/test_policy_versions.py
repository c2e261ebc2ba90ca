"""Names of versions, their differences, and who belongs to which arm."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.assign import arm_of, point_of
from farthing.policies.version import Change, differences, version_of

leaves = st.none() | st.booleans() | st.integers(-(2**40), 2**40) | st.text(max_size=8)
values = leaves | st.lists(leaves, max_size=2) | st.dictionaries(st.text(max_size=3), leaves, max_size=2)
sections = st.dictionaries(st.sampled_from(["cache", "semantic", "routes"]), values, max_size=3)


def turned(value: Any) -> Any:
    """The same value, its keys in the opposite order."""
    if isinstance(value, dict):
        return {key: turned(inner) for key, inner in reversed(value.items())}
    return [turned(one) for one in value] if isinstance(value, list) else value


@given(sections)
def test_a_version_is_named_by_its_content_and_not_by_the_order_of_keys(value: dict[str, Any]) -> None:
    name = version_of(value)

    assert name == version_of(turned(value))
    assert name.startswith("p-")
    assert len(name) == 14


@given(sections, sections)
def test_two_versions_have_one_name_just_where_they_have_one_content(a: dict[str, Any], b: dict[str, Any]) -> None:
    assert (version_of(a) == version_of(b)) == (turned(a) == turned(b) and repr(sorted_(a)) == repr(sorted_(b)))


def sorted_(value: Any) -> Any:
    """In one order; repr of it tells True from 1, as JSON does."""
    if isinstance(value, dict):
        return [(key, sorted_(value[key])) for key in sorted(value)]
    return [sorted_(one) for one in value] if isinstance(value, list) else value


@given(sections)
def test_a_version_does_not_differ_from_itself(value: dict[str, Any]) -> None:
    assert differences(value, turned(value)) == []


@pytest.mark.parametrize(
    ("before", "after", "expected"),
    [
        ({}, {"aliases": {}}, [Change("aliases", None, {})]),
        ({"cache": {"ttl_s": 1}}, {"cache": {"ttl_s": 2}}, [Change("cache.ttl_s", 1, 2)]),
        ({"cache": {}}, {"cache": {"ttl_s": 2}}, [Change("cache.ttl_s", None, 2)]),
        (
            {"routes": [{"name": "a", "mode": "off"}]},
            {"routes": [{"name": "new", "mode": "off"}, {"name": "a", "mode": "serve"}]},
            [Change("routes[new].name", None, "new"), Change("routes[new].mode", None, "off"),
             Change("routes[a].mode", "off", "serve")],
        ),
        (
            {"routes": [{"name": "z", "variants": ["x"]}, {"name": "gone"}, {"name": "b", "variants": ["x"]}]},
            {"routes": [{"name": "z", "variants": ["y"]}, {"name": "b", "variants": ["y"]}]},
            [Change("routes[z].variants", ["x"], ["y"]), Change("routes[gone].name", "gone", None),
             Change("routes[b].variants", ["x"], ["y"])],
        ),
        ({"cache": {"freshness": [{"ttl_s": 1}]}}, {"cache": {"freshness": [{"ttl_s": 5}]}},
         [Change("cache.freshness[0].ttl_s", 1, 5)]),
        ({"semantic": {"judge_band": [0.5, 0.8]}}, {"semantic": {"judge_band": [0.5, 0.9]}},
         [Change("semantic.judge_band", [0.5, 0.8], [0.5, 0.9])]),
    ],
)  # fmt: skip
def test_what_differs_is_told_by_path(before: Any, after: Any, expected: list[Change]) -> None:
    assert differences(before, after) == expected


@given(st.text(max_size=30), st.floats(0, 1), st.floats(0, 1))
def test_an_arm_that_grows_keeps_everyone_it_had(unit: str, a: float, b: float) -> None:
    small, large = sorted((a, b))

    assert 0 <= point_of("salt", unit) < 1
    if arm_of("salt", unit, (small,)) == 0:
        assert arm_of("salt", unit, (large,)) == 0


def test_shares_are_kept_and_salts_are_independent() -> None:
    units = [f"user {number}" for number in range(20_000)]
    arms = [arm_of("one", unit, (0.1, 0.3)) for unit in units]
    again = [arm_of("two", unit, (0.1, 0.3)) for unit in units]

    for arm, share in ((0, 0.1), (1, 0.3), (2, 0.6)):
        assert arms.count(arm) / len(units) == pytest.approx(share, abs=0.012)
    both = sum(a == b == 0 for a, b in zip(arms, again, strict=True)) / len(units)
    assert both == pytest.approx(0.01, abs=0.003)


def test_a_unit_with_bytes_that_are_no_text_has_an_arm() -> None:
    assert arm_of("salt", "\udcff", (1.0,)) == 0
