"""By hour, day and week: names, whole units, and sums that are the rows'."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from farthing.proxy.figures import summary
from farthing.proxy.figures_time import UNITS, begin_of, first_moment, stretches, unit_in
from farthing.proxy.figures_values import Sums, plus
from farthing.proxy.ledger_file import INSERT, connect
from farthing.proxy.ledger_upkeep import remove_rows
from farthing.proxy.rollup import Roller
from farthing.proxy.row import Row
from tests.fakes.examples import examples
from tests.fakes.rows import DOLLAR, NOW_S, ledger, plausible, row

DAY_S = 86_400.0


def rolled(rows: Sequence[Row]) -> sqlite3.Connection:
    conn, _ = connect(Path(":memory:"), whole=True)
    conn.executemany(INSERT, rows)
    roller = Roller(conn)
    while roller.roll(1000):
        pass
    return conn


def at(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


@pytest.mark.parametrize(
    ("unit", "begin"), [("hour", "2026-11-26T13:00"), ("day", "2026-11-26"), ("week", "2026-11-23")]
)
def test_units_begin_where_a_calendar_says(unit: str, begin: str) -> None:
    assert begin_of(unit, at("2026-11-26T13:14:15")) == at(begin)
    assert begin_of(unit, at(begin)) == at(begin)


def test_by_day_the_days_are_whole_empty_ones_are_there_and_add_up() -> None:
    rows = [
        row(id="a", ts=at("2026-11-23T00:30"), cost_usd=DOLLAR, baseline_usd=DOLLAR),
        row(id="b", ts=at("2026-11-25T23:59"), cost_usd=3, baseline_usd=3, latency_ms=7.0),
        row(id="old", ts=at("2026-11-22T23:59"), cost_usd=9, baseline_usd=9),
    ]
    with closing(ledger(":memory:", rows)) as conn:
        found = summary(conn, at("2026-11-23T12:00"), at("2026-11-25T23:59:30"), ("day",))
        assert [group.key[0] for group in found.groups] == ["2026-11-23", "2026-11-24", "2026-11-25"]
        assert [group.sums.cost for group in found.groups] == [DOLLAR, 0, 3]
        assert found.groups[2].times["latency"].p50 == 7.0
        assert (found.since_s, found.total.cost) == (at("2026-11-23"), DOLLAR + 3)


@pytest.mark.parametrize("by", [("hour",), ("day", "model"), ("model", "day"), ("tag:team", "week"), ("week", "user")])
def test_groups_over_time_are_sqls_own_sums(by: tuple[str, ...]) -> None:
    rows = plausible(800, days=20)
    formats = {"hour": "%Y-%m-%d %H:00", "day": "%Y-%m-%d"}
    columns = {"model": "model_requested", "user": "user", "tag:team": "json_extract(tags, '$.team')"}
    for unit in ("hour", "day"):
        columns[unit] = f"strftime('{formats[unit]}', ts, 'unixepoch')"
    columns["week"] = "date(ts, 'unixepoch', 'weekday 0', '-6 days')"
    names = ", ".join(columns[part] for part in by)
    with closing(ledger(":memory:", rows)) as plain, closing(rolled(rows)) as conn:
        query = f"select {names}, count(*), sum(cost_usd) from requests group by {names}"
        expected = {tuple(map(str, values[: len(by)])): values[len(by) :] for values in plain.execute(query)}
        for each in (plain, conn):
            found = summary(each, NOW_S - 20 * DAY_S, NOW_S, by)
            assert found.left_out == 0
            mine = {g.key: (g.sums.requests, g.sums.cost) for g in found.groups if g.sums.requests}
            assert mine == {key: (count, cost or 0) for key, (count, cost) in expected.items()}
            keys = [group.key[by.index(next(part for part in by if part in UNITS))] for group in found.groups]
            assert keys == sorted(keys)


def test_what_makes_no_sense_is_refused() -> None:
    assert unit_in(("model", "tag:day")) == ""
    with closing(ledger(":memory:")) as conn:
        for by, said in (
            (("day", "hour"), "one unit of time"),
            (("hour",), "hours are too many"),
            (("day", "cost"), "can't split by"),
        ):
            with pytest.raises(ValueError, match=said):
                summary(conn, NOW_S - 60 * DAY_S, NOW_S, by)


spans = st.tuples(st.floats(-3 * DAY_S, 25 * DAY_S), st.floats(1, 25 * DAY_S))


@pytest.fixture(scope="module")
def twenty_days() -> Iterator[sqlite3.Connection]:
    with closing(rolled(plausible(300, days=20))) as conn:
        yield conn


@settings(max_examples=examples(40), deadline=None)
@given(spans, st.sampled_from([*UNITS]))
def test_stretches_add_up_to_the_span_and_touch(
    twenty_days: sqlite3.Connection, span: tuple[float, float], unit: str
) -> None:
    since_s = NOW_S - 20 * DAY_S + span[0]
    until_s = since_s + span[1]
    found = stretches(twenty_days, unit, since_s, until_s)
    total = summary(twenty_days, since_s, until_s).total
    assert (found[0].start_s, found[-1].end_s) == (since_s, until_s)
    assert all(a.end_s == b.start_s for a, b in pairwise(found))
    added = Sums()
    for each in found:
        added = plus(added, each.sums)
    assert (added.requests, added.spent, dict(added.saved)) == (total.requests, total.spent, dict(total.saved))
    assert stretches(twenty_days, unit, until_s, since_s) == ()


def test_the_first_moment_is_known_when_its_rows_are_gone() -> None:
    rows = plausible(300, days=20)
    with closing(rolled([*rows, row(id="unset", ts=5.0)])) as conn:
        assert first_moment(conn) == rows[0].ts
        while remove_rows(conn, (NOW_S - 5 * DAY_S) // DAY_S * DAY_S, 1000):
            pass
        assert first_moment(conn) == rows[0].ts // 3600 * 3600
    with closing(ledger(":memory:")) as conn:
        assert first_moment(conn) is None
