"""A conversation stays where its prompt is warm, as long as that is worth it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from farthing.policies.choose import Standing, choose
from farthing.policies.routes import Conditions, Route
from farthing.policies.stays import Stay, Stays
from farthing.policies.variant import Needs, Variant

A, B = Variant("a", "m", tools=False), Variant("b", "n")


@pytest.mark.parametrize(
    ("strategy", "warm", "other", "needs", "stays"),
    [
        ("cheapest", {"usd": 1.0}, {"usd": 1.0}, Needs(), True),
        ("cheapest", {"usd": 1.0}, {"usd": 0.9}, Needs(), False),  # less even though all of the prompt is read anew
        ("cheapest", {"usd": None}, {"usd": 0.9}, Needs(), False),
        ("cheapest", {"usd": 0.1}, {"usd": 0.9}, Needs(tools=True), False),
        ("fastest", {"p50_s": 1.9}, {"p50_s": 1.0}, Needs(), True),
        ("fastest", {"p50_s": 2.1}, {"p50_s": 1.0}, Needs(), False),
        ("fastest", {"p50_s": None}, {"p50_s": 1.0}, Needs(), True),
        ("fastest", {"p50_s": 1.0}, {"p50_s": None}, Needs(), True),  # nobody is tried out with it
        ("fastest", {"p50_s": 1.0, "failed_s": 5.0}, {"p50_s": 1.5}, Needs(), False),
        ("balanced", {"usd": 1.0, "p50_s": 1.0}, {"usd": 0.9, "p50_s": 1.0}, Needs(), True),
        ("balanced", {"usd": 1.0, "p50_s": 1.0}, {"usd": 0.5, "p50_s": 1.0}, Needs(), False),
        ("balanced", {"usd": 1.0, "p50_s": None}, {"usd": 0.5, "p50_s": 1.0}, Needs(), True),
        ("balanced", {"usd": None, "p50_s": 1.0}, {"usd": 0.5, "p50_s": 1.0}, Needs(), False),
    ],
)
@pytest.mark.parametrize("turned", [False, True])
def test_where_a_conversation_stays(
    strategy: Any, warm: dict[str, Any], other: dict[str, Any], needs: Needs, stays: bool, turned: bool
) -> None:
    known = {"a": Standing(**warm, warm=True), "b": Standing(**other)}
    route = Route("r", Conditions(), strategy, (B, A) if turned else (A, B), usd_per_s=1.0)
    found = choose(route, needs, lambda variant: known[variant.name], 0.0, 0.0)
    assert [one.name for one in found.order] == (["a"] if stays else ["b"])


@given(st.lists(st.tuples(st.integers(0, 6), st.floats(0, 100), st.floats(0, 50)), max_size=40))
def test_memory_is_bounded_and_gives_the_latest_that_still_holds(said: list[tuple[int, float, float]]) -> None:
    stays = Stays(most=3)
    known: dict[int, Stay] = {}
    for place, (conversation, at_s, keeps_s) in enumerate(sorted(said, key=lambda one: one[1])):
        expected = known.get(conversation)
        held = stays.get(conversation, at_s)
        assert held in (expected, None)
        assert held is None or held.until_s > at_s
        known[conversation] = Stay(str(place), place, at_s + keeps_s)
        stays.put(conversation, known[conversation])
        assert len(stays.known) <= 3
        assert keeps_s <= 0 or stays.get(conversation, at_s) is known[conversation] or at_s + keeps_s <= at_s
