"""Counting for service levels: once each, whatever restarts; which rows are meant; words that come late."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from farthing.policies.levels import Tally, Target
from farthing.policies.outcome import Outcome
from farthing.proxy import levels_tally
from farthing.proxy.clock import FakeClock
from farthing.proxy.config import load
from farthing.proxy.config_levels import ServiceLevel
from farthing.proxy.errors import ConfigFault
from farthing.proxy.levels import Burn, Levels, promises_of, window_name
from farthing.proxy.levels_tally import FILE, Promise, Tallies, promises_kept
from farthing.proxy.outcomes import Outcomes
from farthing.proxy.row import Row
from tests.fakes.rows import NOW_S, ledger, row

UP = Target("availability", 0.99)
DAY_S = 86_400.0


def promise(target: Target = UP, **where: str) -> Promise:
    return Promise("l", where, 30, target)


def rows(count: int, begin: int = 0, **changes: Any) -> list[Row]:
    return [row(id=f"r{begin + i}", **{"ts": NOW_S - 60, **changes}) for i in range(count)]


def tally(state_dir: Path, one: Promise, length_s: float = DAY_S) -> Tally:
    tallies = Tallies(state_dir)
    while tallies.count([one], NOW_S):
        pass
    found = tallies.of(one, length_s, NOW_S)
    tallies.close()
    return found


def add(state_dir: Path, more: Iterable[Row]) -> None:
    ledger(state_dir / "ledger.db", more).close()


@pytest.mark.parametrize(
    ("target", "events", "bad", "pico"),
    [
        (UP, 6, 3, 0),  # failed, 503, the upstream's 429; not the caller's own faults, nor who left
        (Target("latency", 0.99, 150.0), 3, 1, 0),
        (Target("cost", 0.0, 0.01), 4, 0, 1 + 2 + 3 + 10),
    ],
)
def test_which_rows_are_events_and_which_are_bad(
    tmp_path: Path, target: Target, events: int, bad: int, pico: int
) -> None:
    made = [
        row(id="a", latency_ms=100.0, cost_usd=1),
        row(id="b", latency_ms=150.0, cost_usd=2),
        row(id="c", latency_ms=151.0, cost_usd=3, overhead_usd=10),
        row(id="d", outcome="failed", status=502, cost_usd=None, latency_ms=9_000.0),
        row(id="e", status=503, cost_usd=None),
        row(id="f", status=429, attempts=2, cost_usd=0),
        row(id="g", outcome="abandoned", latency_ms=9_000.0),
        row(id="h", endpoint="audit", status=500),
    ]
    add(tmp_path, made)

    assert tally(tmp_path, promise(target)) == Tally(events, bad, pico)


def test_a_limit_of_the_callers_own_and_a_budgets_refusal_are_not_the_services_fault(tmp_path: Path) -> None:
    add(tmp_path, [row(id="a", status=429, attempts=0), row(id="b", status=402), row(id="c", status=400)])

    assert tally(tmp_path, promise()) == Tally(3, 0)


@pytest.mark.parametrize(
    ("where", "meant"),
    [
        ({}, 5),
        ({"model": "gpt-4o"}, 1),
        ({"model": "gpt-4o*"}, 4),
        ({"tenant": "abc*"}, 1),
        ({"endpoint": "embeddings"}, 1),
        ({"tag": "team=search"}, 1),
        ({"tag": "team=search", "model": "gpt-4o"}, 0),
        ({"route": "small"}, 1),
        ({"route": "smal"}, 0),
        ({"tag": "size=3"}, 0),
    ],
)
def test_which_requests_are_meant(tmp_path: Path, where: dict[str, str], meant: int) -> None:
    made = [
        row(id="a", model_requested="gpt-4o"),
        row(id="b", tenant="abcdef"),
        row(id="c", endpoint="embeddings", model_requested="e"),
        row(id="d", tags='{"team":"search"}'),
        row(id="e", decisions='[["route","routed","small: cheap, the cheapest"]]', tags="{broken"),
    ]
    add(tmp_path, made)

    assert tally(tmp_path, promise(**where)).events == meant


def test_every_row_is_counted_once_over_restarts_and_slices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(levels_tally, "_SLICE_ROWS", 7)
    add(tmp_path, rows(20))
    assert tally(tmp_path, promise()) == Tally(20)
    assert tally(tmp_path, promise()) == Tally(20)
    add(tmp_path, rows(3, 20, status=500))
    assert tally(tmp_path, promise()) == Tally(23, 3)
    assert tally(tmp_path, promise(), 300) == Tally(23, 3)


def test_a_ledger_that_was_moved_aside_takes_nothing_away_and_adds_what_is_new(tmp_path: Path) -> None:
    add(tmp_path, rows(20))
    assert tally(tmp_path, promise()) == Tally(20)
    (tmp_path / "ledger.db").unlink()
    add(tmp_path, rows(5, 100))
    assert tally(tmp_path, promise()) == Tally(25)


def test_windows_end_now_and_long_ones_are_read_by_the_hour(tmp_path: Path) -> None:
    ages_s = (30, 200, 2_000, 5 * 3_600, 2 * DAY_S, 29 * DAY_S, 40 * DAY_S)
    add(tmp_path, [row(id=str(age), ts=NOW_S - age) for age in ages_s])

    found = {length_s: tally(tmp_path, promise(), length_s).events for length_s in (300, 3_600, 21_600, 259_200)}
    assert found == {300: 2, 3_600: 3, 21_600: 4, 259_200: 5}
    assert tally(tmp_path, promise(), 30 * DAY_S).events == 6


def test_a_new_target_begins_with_the_latest_rows_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(levels_tally, "MOST_BACK", 4)
    add(tmp_path, rows(10))

    assert tally(tmp_path, promise()) == Tally(4)


def test_a_promise_that_went_and_came_back_is_counted_anew(tmp_path: Path) -> None:
    add(tmp_path, rows(10))
    assert tally(tmp_path, promise()) == Tally(10)
    assert tally(tmp_path, promise(model="other")) == Tally(0)
    assert tally(tmp_path, promise()) == Tally(10)
    kept = promises_kept(tmp_path)
    assert kept is not None and kept[0] == [promise()]


def said(id: str, value: float, metric: str = "rating", at_s: float = NOW_S - 600, **more: Any) -> Outcome:
    return Outcome(id, metric, value, at_s, at_s, **more)


def test_words_on_answers_count_once_and_the_last_one_stands(tmp_path: Path) -> None:
    wrong = promise(Target("wrong", 0.9), model="gpt-4o-mini")
    add(tmp_path, [*rows(4), *rows(1, 50, model_requested="other")])
    outcomes = Outcomes(tmp_path / "outcomes.db")
    outcomes.put([said("r0", 1), said("r1", 0), said("r50", 0), said("nobody", 0), said("r2", 1, "click")])
    outcomes.put([said("r3", 0, "audit", source="audit"), said("r2", 0, source="implicit")])
    assert tally(tmp_path, wrong) == Tally(3, 2)
    outcomes.put([said("r1", 1, at_s=NOW_S - 60)])
    assert tally(tmp_path, wrong) == Tally(3, 1)
    outcomes.close()


def test_a_word_that_comes_before_its_row_is_not_lost(tmp_path: Path) -> None:
    wrong = promise(Target("wrong", 0.9))
    outcomes = Outcomes(tmp_path / "outcomes.db")
    outcomes.put([said("r0", 0, at_s=NOW_S)])
    outcomes.close()
    add(tmp_path, [])
    assert tally(tmp_path, wrong) == Tally()
    add(tmp_path, rows(1))
    assert tally(tmp_path, wrong) == Tally(1, 1)


def test_a_damaged_file_is_moved_aside(tmp_path: Path) -> None:
    add(tmp_path, rows(3))
    (tmp_path / FILE).write_bytes(b"no database at all, but long enough to be taken for one" * 50)

    assert tally(tmp_path, promise()) == Tally(3)
    assert list(tmp_path.glob("levels*corrupt*"))


# -- the thread, and what it tells


@pytest.fixture
def levels(tmp_path: Path) -> Iterable[Levels]:
    made = Levels(tmp_path, FakeClock(NOW_S), every_s=60)
    yield made
    made.close()


def test_an_outage_is_told_once_and_its_end_once(tmp_path: Path, levels: Levels) -> None:
    told: list[Burn] = []
    levels.on_burn = told.append
    add(tmp_path, rows(100))
    levels.use([ServiceLevel(name="all", availability=0.99)])
    assert levels.flush() and told == []
    add(tmp_path, rows(60, 100, status=503))
    assert levels.flush() and levels.flush()
    assert {(burn.level, burn.kind, burn.speed, burn.begins) for burn in told} == {
        ("all", "availability", "fast", True),
        ("all", "availability", "slow", True),
    }
    assert len(told) == 2
    assert "availability of all burns" in told[0].what
    found = levels.told()["levels"][0]["targets"][0]
    assert (found["events"], found["bad"], found["verdict"]) == (160, 60, "missed")
    assert found["burn"]["5m"] == pytest.approx(60 / 160 / 0.01)
    gauges = levels.gauges()
    assert gauges["level_burning:fast:availability:all"] == gauges["level_burning:slow:availability:all"] == 1
    add(tmp_path, rows(9_000, 1_000))
    assert levels.flush()
    assert [burn.begins for burn in told].count(False) == 2


def test_levels_may_change_while_it_runs(tmp_path: Path, levels: Levels) -> None:
    add(tmp_path, rows(50))
    levels.use([ServiceLevel(name="a", availability=0.9)])
    assert levels.flush()
    levels.use([ServiceLevel(name="b", latency_ms=50, latency_percentile=90)])
    assert levels.flush()
    assert [(one["name"], one["targets"][0]["bad"]) for one in levels.told()["levels"]] == [("b", 50)]


def test_without_levels_there_is_no_thread_and_no_file(tmp_path: Path, levels: Levels) -> None:
    levels.use([])
    assert levels.flush() and levels.told() == {"as_of_s": None, "error": "", "levels": []}
    assert not (tmp_path / FILE).exists()


def test_a_ledger_that_cannot_be_read_is_told(tmp_path: Path, levels: Levels) -> None:
    (tmp_path / "ledger.db").write_bytes(b"rubbish that is no database" * 100)
    levels.use([ServiceLevel(name="a", availability=0.9)])
    assert levels.flush()
    assert "database" in levels.told()["error"]


def test_windows_have_short_names() -> None:
    assert [window_name(length_s) for length_s in (300, 3_600, 21_600, 259_200)] == ["5m", "1h", "6h", "3d"]


# -- the configuration


def configured(tmp_path: Path, text: str) -> str:
    path = tmp_path / "farthing.toml"
    path.write_text(text)
    try:
        load(path, {})
    except ConfigFault as fault:
        return str(fault)
    return ""


def test_a_level_of_every_kind(tmp_path: Path) -> None:
    path = tmp_path / "farthing.toml"
    path.write_text(
        """[[service_levels]]
        name = "support answers"
        tag = "team=support"
        model = "gpt-4o*"
        latency_ms = 2000
        latency_percentile = 95
        availability = 0.999
        wrong_rate = 0.02
        cost_per_request_usd = 0.01
        window_days = 7"""
    )
    (level,) = load(path, {}).service_levels
    assert level.where == {"model": "gpt-4o*", "tag": "team=support"}
    assert level.targets == (
        Target("latency", 0.95, 2000.0),
        Target("availability", 0.999),
        Target("wrong", 0.98),
        Target("cost", 0.0, 0.01),
    )
    assert level.cost_per_request_usd == Decimal("0.01")
    assert {one.window_days for one in promises_of([level])} == {7}


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("name = 'a'", "service_levels.0: a service level needs a target"),
        ("name = 'a'\navailability = 1", "service_levels.0.availability"),
        ("name = 'a'\navailabilty = 0.9", "did you mean 'availability'?"),
        ("name = 'a'\nlatency_ms = 0", "service_levels.0.latency_ms"),
        ("name = 'a'\nlatency_ms = 5\ntag = 'x'", "service_levels.0.tag"),
        ("name = 'a'\nwrong_rate = 0.9", "service_levels.0.wrong_rate"),
        ("name = 'a:b'\nwrong_rate = 0.1", "service_levels.0.name"),
        ("name = 'a'\nwindow_days = 400\nwrong_rate = 0.1", "service_levels.0.window_days"),
        ("name = 'a'\nwrong_rate = 0.1\n[[service_levels]]\nname = 'a'\nwrong_rate = 0.1", "two of the name 'a'"),
        ("name = 'a'\nwrong_rate = 0.1\n[ledger]\nenabled = false", "set ledger.enabled = true too"),
    ],
)
def test_faults_have_the_keys_path(tmp_path: Path, text: str, fault: str) -> None:
    assert fault in configured(tmp_path, f"[[service_levels]]\n{text}\n")


def test_what_is_kept_holds_no_text_of_requests(tmp_path: Path) -> None:
    add(tmp_path, rows(3, user="somebody@example.com"))
    assert tally(tmp_path, promise()) == Tally(3)
    with sqlite3.connect(tmp_path / FILE) as conn:
        dumped = "\n".join(conn.iterdump())
    conn.close()
    assert "somebody" not in dumped
