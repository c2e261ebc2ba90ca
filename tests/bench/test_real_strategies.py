"""Strategies at equal measured quality: on made answers whose right choice can be worked out by hand."""

from __future__ import annotations

import pytest

from bench.real_strategies import Asked, cascade, cheapest, chosen, fixed, kept

FULL = [Asked(10.0, 1.0, True)] * 4
GOOD = [Asked(4.0, 0.9, True)] * 4  # cheap, and always the same
POOR = [Asked(4.0, 0.9, True), Asked(4.0, 0.2, False)] * 2  # knows when it doesn't know


def test_a_cascade_pays_for_both_where_it_escalates() -> None:
    way = kept(FULL, POOR, 0.5)
    assert (way.cost, way.quality, way.escalated) == ((4 * 4 + 2 * 10) / 40, 1.0, 0.5)
    assert kept(FULL, POOR, 0.0).quality == 0.5
    assert kept(FULL, POOR, 2.0) == kept(FULL, FULL[:0] or POOR, 1.5)
    assert chosen(FULL, POOR, 1.0) == 0.9 and chosen(FULL, POOR, 0.5) == 0.0


def test_one_task_that_a_lesser_variant_can_do() -> None:
    tasks = {"easy": {"full": FULL, "small": GOOD}, "hard": {"full": FULL, "small": POOR}}
    assert fixed(tasks, 0.95).setting == "full" and fixed(tasks, 0.95).cost == 1.0
    assert fixed(tasks, 0.75).setting == "small" and fixed(tasks, 0.75).quality == 0.75
    way = cheapest(tasks, 0.95)
    assert (way.cost, way.quality, way.setting) == (56 / 80, 1.0, "easy: small, hard: full")
    both = cascade(tasks, 0.95)
    assert both.cost == pytest.approx((16 + 36) / 80) and both.quality == 1.0
    assert both.setting == "easy: small at 0.00, full, hard: small at 0.90, full"


def test_it_is_scored_where_it_was_not_chosen() -> None:
    turns = [Asked(4.0, 0.9, True)] * 2 + [Asked(4.0, 0.9, False)] * 2
    tasks = {"turning": {"full": FULL, "small": turns}}
    for strategy in (fixed, cheapest, cascade):
        assert strategy(tasks, 0.95).quality == 0.0
