"""A report, read from the ledger in one snapshot. Reads only."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from farthing.proxy.figures import summary, top_repeated
from farthing.proxy.figures_read import Reading, snapshot
from farthing.proxy.figures_time import UNITS, begin_of, first_moment, stretches, unit_in
from farthing.proxy.forecast import LOOK_BACK, Forecast, forecast
from farthing.proxy.report_text import iso
from farthing.proxy.report_values import Lacking, Peak, Repeat, Report, peak
from farthing.proxy.report_worth import read_worth
from farthing.proxy.rollup_plan import DAY_S, HOUR_S, Slices
from farthing.proxy.tradeoff import kept_runs, read_runs, read_tradeoff

__all__ = ["beside", "read_report"]

_MOST_LACKING = 10
_MOST_REPEATED = 10
_LONGEST_PEAK_S = 100 * DAY_S
_MOST_STRETCHES = 1000
_SLACK = 0.02
"""The share of the span before that may lie before the ledger's first request, and it still compares."""

_AHEAD_S = 300
"""Clocks of machines that share a ledger differ by less."""


def read_report(conn: sqlite3.Connection, since_s: float, until_s: float, by: Sequence[str] = ()) -> Report:
    """Everything there is to report on [since_s, until_s), by group as in figures.summary, whose errors it raises."""
    with snapshot(conn):
        figures = summary(conn, since_s, until_s, by)
        first_s = first_moment(conn)
        later = conn.execute("select count(*) from requests where ts > ?", (until_s + _AHEAD_S,)).fetchone()[0]
        if first_s is None or first_s >= until_s:
            return Report(figures, later=later)
        since_s = figures.since_s
        before_s = since_s - (until_s - since_s)
        reaches = first_s <= before_s + _SLACK * (until_s - since_s)
        missing = (
            "" if reaches else f"The ledger begins on {iso(first_s)}: there is no whole span before to compare with."
        )
        # Units of time have other names in the span before.
        grouped = () if unit_in(by) else by
        begin_s = max(since_s, first_s)
        unit = _unit(until_s - begin_s)
        hours = stretches(conn, "hour", max(begin_s, until_s - _LONGEST_PEAK_S), until_s)
        found: dict[str, Peak | None] = {name: peak(hours, name) for name in ("requests", "spent")}
        lacking = _lacking(conn, since_s, until_s) if figures.total.unpriced else []
        return Report(
            figures,
            summary(conn, before_s, since_s, grouped) if reaches else None,
            missing,
            unit,
            stretches(conn, unit, max(begin_s, until_s - _MOST_STRETCHES * UNITS[unit]), until_s),
            _forecast(conn, first_s, until_s),
            {name: each for name, each in found.items() if each is not None},
            lacking[:_MOST_LACKING],
            max(0, len(lacking) - _MOST_LACKING),
            [
                Repeat(each.key_hash, each.model, each.requests, each.hits, each.saved_usd, each.at_least)
                for each in top_repeated(conn, since_s, until_s, _MOST_REPEATED)
            ],
            later=later,
        )


def beside(
    conn: sqlite3.Connection, report: Report, state_dir: Path, by: Sequence[str], ways: str, runs: Sequence[Path]
) -> Report:
    """The report with what stands beside the ledger: words on answers, service levels, runs of `farthing eval`.

    `ways`: what the trade-off tells apart. Raises ValueError, sqlite3.Error, ConfigFault.
    """
    since_s, until_s = report.figures.since_s, report.figures.until_s
    groups = tuple(part for part in by if part not in UNITS)
    with snapshot(conn):
        worth = read_worth(conn, state_dir, since_s, until_s, groups)
        traded = read_tradeoff(conn, state_dir, since_s, until_s, ways)
    points = (*traded.points, *(read_runs(runs) if runs else kept_runs(state_dir)))
    return replace(report, worth=worth, tradeoff=traded._replace(points=points))


def _unit(length_s: float) -> str:
    """In what a span is drawn: at most some hundred of it."""
    if length_s <= 3 * DAY_S:
        return "hour"
    return "day" if length_s <= 120 * DAY_S else "week"


def _forecast(conn: sqlite3.Connection, first_s: float, until_s: float) -> Forecast:
    now = datetime.fromtimestamp(until_s, UTC)
    month = now.replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    begin = min(month, now.replace(hour=0, minute=0, second=0, microsecond=0) - timedelta(days=LOOK_BACK))
    days = stretches(conn, "day", max(begin.timestamp(), float(begin_of("day", first_s))), until_s)
    spent = {datetime.fromtimestamp(day.start_s, UTC).date(): day.sums.spent for day in days}
    # A ledger that began within a day doesn't know that day's spending.
    whole = datetime.fromtimestamp(begin_of("day", first_s - HOUR_S) + DAY_S, UTC).date()
    return forecast(spent, whole, now)


def _lacking(conn: sqlite3.Connection, since_s: float, until_s: float) -> list[Lacking]:
    """The models with rows of unknown price, by the name of the one that answered; the most rows first."""
    found: dict[str, Lacking] = {}
    for (_, asked, served), sums in Reading(conn, Slices(since_s, until_s)).sums(("model", "model_served")).items():
        if sums.unpriced:
            model = served or asked
            old = found.get(model, Lacking(model, 0, 0))
            found[model] = Lacking(model, old.rows + sums.unpriced, old.known + sums.cost_unpriced)
    return sorted(found.values(), key=lambda each: (-each.rows, each.model))
