"""The simulation of the reuse bound finds what it should find."""

from __future__ import annotations

import pytest

from bench.validity import e_process, least, level
from bench.validity_worlds import drift, ever_served_above, first_serve, quantile, settings


def test_a_policy_that_serves_too_soon_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """The goal's check can fail: with a level ten times too high it does."""
    from farthing.policies.standing import Rules

    honest = Rules.own_level
    monkeypatch.setattr(Rules, "own_level", lambda self, restarts: 10 * honest(self, restarts))
    chosen = settings(0.2)

    found = [ever_served_above(chosen, lambda _: 0.2, lambda _: 0.2, 100, seed) for seed in range(60)]

    assert sum(found) > 12


def test_the_e_process_alone_is_within_its_level_but_not_idle() -> None:
    assert 0 < e_process(0.05, 1.0, 400, 2_000) <= 33  # 5 % of 400 and three standard errors


def test_nobody_starts_before_the_arithmetic_allows() -> None:
    assert least(0.05, 0.0) == pytest.approx(58.4, abs=0.1)
    assert least(0.05, 0.5) > 5 * least(0.05, 0.0)
    assert first_serve(settings(0.05), lambda _: 0.0, 1_000, 1) >= least(0.05, 0.0)
    assert first_serve(settings(0.05), lambda _: 1.0, 50, 1) == 50


def test_a_drift_is_noticed() -> None:
    fate = drift(0.05, 20.0, 0.2, 5_000, 1)

    assert fate.stopped
    assert 0 < fate.wrong <= fate.served < 500


def test_the_table_has_a_row_for_every_promise() -> None:
    figures = level(lambda _, runs: runs, 1)

    assert len(figures.rows) == 11
    assert all(len(row) == len(figures.columns) for row in figures.rows)


def test_quantiles() -> None:
    assert [quantile([3, 1, 2, 4], share) for share in (0.0, 0.5, 0.9, 1.0)] == [1, 3, 4, 4]
