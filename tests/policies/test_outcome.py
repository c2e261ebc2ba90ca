"""What is said of answers, as it comes in."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.outcome import MOST_ITEMS, outcome_of, outcomes_of
from farthing.proxy.errors import ClientFault

NOW_S = 1_800_000_000.0


@pytest.mark.parametrize(
    ("item", "metric", "value"),
    [
        ({"id": "far-1", "rating": "good"}, "rating", 1.0),
        ({"id": "far-1", "rating": "bad"}, "rating", 0.0),
        ({"id": "far-1", "metric": "rating", "value": 0.25}, "rating", 0.25),
        ({"id": "far-1", "metric": "click", "value": True}, "click", 1.0),
        ({"id": "far-1", "metric": "revenue.usd", "value": -12.5}, "revenue.usd", -12.5),
    ],
)
def test_a_word_is_a_number_under_a_name(item: dict[str, Any], metric: str, value: float) -> None:
    found = outcome_of(item, NOW_S)
    assert (found.request_id, found.metric, found.value, found.at_s) == ("far-1", metric, value, NOW_S)
    assert found.bad == (metric == "rating" and value < 0.5)


@pytest.mark.parametrize(
    ("at", "seconds"),
    [(1_700_000_000, 1.7e9), (0, 0.0), ("2026-11-26T12:00:00Z", 1_795_694_400.0), ("2026-11-26", 1_795_651_200.0)],
)
def test_a_word_may_come_late(at: Any, seconds: float) -> None:
    assert outcome_of({"id": "a", "rating": "bad", "at": at}, NOW_S).at_s == seconds


@pytest.mark.parametrize(
    ("item", "field"),
    [
        ({}, "id"),
        ({"id": 1, "rating": "good"}, "id"),
        ({"id": "", "rating": "good"}, "id"),
        ({"id": "x" * 129, "rating": "good"}, "id"),
        ({"id": "a"}, "metric"),
        ({"id": "a", "rating": "fine"}, "rating"),
        ({"id": "a", "rating": ["good"]}, "rating"),
        ({"id": "a", "rating": "good", "value": 1}, "rating"),
        ({"id": "a", "metric": "Click", "value": 1}, "metric"),
        ({"id": "a", "metric": "click"}, "value"),
        ({"id": "a", "metric": "click", "value": "1"}, "value"),
        ({"id": "a", "metric": "click", "value": math.inf}, "value"),
        ({"id": "a", "metric": "click", "value": 10**400}, "value"),
        ({"id": "a", "metric": "revenue", "value": 1e300}, "value"),
        ({"id": "a", "metric": "rating", "value": 2}, "value"),
        ({"id": "a", "rating": "good", "comment": 1}, "comment"),
        ({"id": "a", "rating": "good", "comment": "x" * 2001}, "comment"),
        ({"id": "a", "rating": "good", "event": 3}, "event"),
        ({"id": "a", "rating": "good", "at": "yesterday"}, "at"),
        ({"id": "a", "rating": "good", "at": NOW_S + 3600}, "at"),
        ({"id": "a", "rating": "good", "at": -1}, "at"),
        ({"id": "a", "rating": "good", "at": True}, "at"),
        ({"id": "a", "rating": "good", "colour": "red"}, "colour"),
    ],
)
def test_what_is_wrong_is_named(item: dict[str, Any], field: str) -> None:
    with pytest.raises(ClientFault) as caught:
        outcome_of(item, NOW_S)
    assert caught.value.param == field


def test_of_many_items_only_the_bad_ones_are_refused() -> None:
    items = [{"id": "a", "rating": "good"}, 7, {"id": "b"}, {"id": "c", "metric": "click", "value": 0}]
    taken, refused = outcomes_of({"items": items}, NOW_S)
    assert [one.request_id for one in taken] == ["a", "c"]
    assert [one.place for one in refused] == [1, 2]


@pytest.mark.parametrize("asked", [{"items": {}}, {"items": [], "id": "a"}, {"items": [1] * (MOST_ITEMS + 1)}])
def test_a_list_stands_alone_and_is_bounded(asked: dict[str, Any]) -> None:
    with pytest.raises(ClientFault):
        outcomes_of(asked, NOW_S)


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
_WORDS = ("id", "rating", "metric", "value", "comment", "at", "event", "items")


@given(st.dictionaries(st.sampled_from(_WORDS) | st.text(max_size=5), _JSON, max_size=6))
def test_nothing_else_ever_comes_of_it(asked: dict[str, Any]) -> None:
    try:
        taken, _ = outcomes_of(asked, NOW_S)
    except ClientFault as fault:
        assert fault.message
        return
    for one in taken:
        assert math.isfinite(one.value) and 0 <= one.at_s <= NOW_S + 300
        json.dumps(one)
