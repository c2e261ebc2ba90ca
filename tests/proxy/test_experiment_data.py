"""What an experiment learns from rows and outcomes, in whatever order they come."""

from __future__ import annotations

import random
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from farthing.policies.assign import Unit
from farthing.policies.outcome import Outcome
from farthing.proxy.experiment_data import Data, Wanted, before_start
from farthing.proxy.experiment_kept import restore
from farthing.proxy.outcomes import FILE, Change, Outcomes
from farthing.proxy.row import Row
from tests.fakes.rows import DOLLAR, NOW_S, ledger, row

WANTED = (Wanted("rating", "proportion", (0.0, 1.0)), Wanted("click", "ratio", None), Wanted("cost_usd", "mean", None))


def data(folder: Path, unit: Unit = "user", **changes: Any) -> Data:
    given: dict[str, Any] = {"most_units": 1000, "ledger": folder / "ledger.db"} | changes
    return Data("trial", ("a", "b"), unit, NOW_S - 3600, WANTED, **given)


def taken(number: int, **changes: Any) -> Row:
    return row(id=f"far-{number}", ts=NOW_S - 100 + number, experiment="trial", arm="ab"[number % 2],
               user=f"u{number % 6}", cost_usd=number * DOLLAR // 1000, policy="p-1", **changes)  # fmt: skip


def sums(of: Data) -> dict[str, list[tuple[float, ...]]]:
    return {
        name: [tuple(round(value, 9) for value in (one.units, one.a, one.b, one.aa, one.ab)) for one in tracker.sums]
        for name, tracker in of.trackers.items()
    }


def all_of_it(rows: Sequence[Row], changes: Sequence[Change], at: Data, dice: random.Random) -> None:
    steps: list[Row | Change] = [*rows, *changes]
    dice.shuffle(steps)
    for step in steps:
        if isinstance(step, Change):
            at.on_changes([step])
        else:
            at.on_rows([step])


@pytest.mark.parametrize("unit", ["user", "tenant", "request"])
def test_the_order_of_rows_and_words_changes_nothing(tmp_path: Path, unit: Unit) -> None:
    rows = [taken(number) for number in range(30)]
    changes = [Change(f"far-{n}", "rating", (), (1.0,)) for n in range(0, 30, 3)]
    changes += [Change(f"far-{n}", "rating", (1.0,), (0.0,)) for n in range(0, 30, 6)]  # replaced
    changes += [Change(f"far-{n}", "click", (), (2.0, 1.0)) for n in range(5)]
    plain = data(tmp_path, unit)
    plain.on_rows(rows)
    plain.on_changes(changes)
    for seed in range(20):
        mixed = data(tmp_path, unit)
        all_of_it(rows, changes, mixed, random.Random(seed))
        assert sums(mixed) == sums(plain)
    if unit == "request":
        click = plain.trackers["click"].sums
        assert [one.units for one in click] == [15, 15]
        assert [one.a for one in click] == [9.0, 6.0]
        assert sum(one.units for one in plain.trackers["rating"].sums) == 10


def test_a_restart_finds_the_same(tmp_path: Path) -> None:
    rows = [taken(number) for number in range(40)]
    outcomes = Outcomes(tmp_path / FILE)
    live = data(tmp_path)
    outcomes.listeners.append(live.on_changes)
    ledger(tmp_path / "ledger.db", rows).close()
    live.on_rows(rows)
    with closing(outcomes):
        for number in range(0, 40, 2):
            for value in (0.0, 1.0):
                said = Outcome(f"far-{number}", "rating", value, NOW_S + value, NOW_S + value)
                outcomes.put([said])
        outcomes.put([Outcome("far-3", "click", 1.0, NOW_S, NOW_S, event=event) for event in ("x", "y")])
        outcomes.put([Outcome("far-unknown", "rating", 1.0, NOW_S, NOW_S)])
    again = data(tmp_path)
    restore(tmp_path / "none.sums", again)

    assert sums(again) == sums(live)
    assert sum(one.a for one in live.trackers["click"].sums) == 2.0


def test_requests_that_are_no_longer_remembered_are_looked_up(tmp_path: Path) -> None:
    ledger(tmp_path / "ledger.db", [taken(0), taken(1, cache="hit-exact")]).close()
    at = data(tmp_path, "request")
    at.on_changes([Change("far-1", "rating", (), (1.0,)), Change("far-none", "rating", (), (1.0,))])

    assert [one.units for one in at.trackers["rating"].sums] == [0, 1]


def test_farthings_own_call_for_a_request_is_part_of_its_cost(tmp_path: Path) -> None:
    at = data(tmp_path, "request")
    at.on_rows([taken(2)])
    errand = row(id="far-x", endpoint="audit", cache_reason="audit of far-2", overhead_usd=DOLLAR, experiment="")
    at.on_rows([errand, row(id="far-y", endpoint="audit", cache_reason="audit of far-9", overhead_usd=DOLLAR)])
    at.on_rows([errand])
    cost = at.trackers["cost_usd"].sums[0]

    assert (cost.units, cost.a, cost.aa) == (1, pytest.approx(2.002), pytest.approx(2.002**2))


def test_what_takes_no_part_is_left_out(tmp_path: Path) -> None:
    at = data(tmp_path, "request")
    before = taken(0)._replace(ts=NOW_S - 4000)
    at.on_rows(
        [before, taken(1)._replace(experiment="other"), taken(2)._replace(arm="c"), taken(3, outcome="abandoned")]
    )
    assert [one.units for one in at.assigned.sums] == [0, 1]

    rest = data(tmp_path, "request", rest=True)
    rest.on_rows([
        taken(1), taken(2)._replace(experiment=""), taken(4)._replace(experiment="rollout", arm="candidate"),
        taken(6)._replace(experiment="", policy="off"), taken(8)._replace(experiment="", cache_reason="x-farthing-off"),
    ])  # fmt: skip
    assert [one.units for one in rest.assigned.sums] == [2, 1]


def test_slices_are_bounded_and_told_apart(tmp_path: Path) -> None:
    at = data(tmp_path, "request", sliced=("tag:team", "model"))
    at.on_rows([taken(n, tags=f'{{"team":"t{n % 2}"}}') for n in range(10)])
    at.on_rows([taken(n, tags=f'{{"team":"many{n}"}}') for n in range(10, 100)])
    at.on_changes([Change(f"far-{n}", "rating", (), (1.0,)) for n in range(10)])

    assert len(at.slices) == 40
    assert [one.units for one in at.slices["tag:team", "t1"].sums] == [0, 5]
    assert [one.units for one in at.slices["model", "gpt-4o-mini"].sums] == [5, 5]


def test_the_past_is_each_units_mean_before_the_start(tmp_path: Path) -> None:
    start = NOW_S - 50
    rows = [
        row(id="1", ts=start - 100, user="u", latency_ms=100.0), row(id="2", ts=start - 10, user="u", latency_ms=300.0),
        row(id="3", ts=start + 1, user="u", latency_ms=900.0), row(id="4", ts=start - 10, user="v", status=500),
        row(id="5", ts=start - 9 * 86_400, user="w"), row(id="6", ts=start - 1, user="u", endpoint="audit"),
    ]  # fmt: skip
    ledger(tmp_path / "ledger.db", rows).close()
    with closing(Outcomes(tmp_path / FILE)) as outcomes:
        outcomes.put(
            [Outcome("1", "rating", 1.0, start - 90, start - 90), Outcome("2", "rating", 0.0, start, start + 5)]
        )
    path = tmp_path / "ledger.db"

    assert before_start(path, "latency_ms", "user", start, 7, 100) == {"t u": 200.0}
    assert before_start(path, "error", "user", start, 7, 100) == {"t u": 0.0, "t v": 1.0}
    assert before_start(path, "rating", "user", start, 7, 100) == {"t u": 1.0}
    assert before_start(path, "rating", "request", start, 7, 100) == {}
    assert len(before_start(path, "error", "user", start, 30, 1)) == 1
