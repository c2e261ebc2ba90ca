"""Figures by the hour, the day and the week. All in UTC; a week begins on Monday.

Rules of this file: by a unit of time a span is widened to whole units, so that a day means a day; `stretches` cuts the
first and the last unit instead, so that they add up to the span.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from farthing.proxy.figures_read import Reading, snapshot
from farthing.proxy.figures_values import STATUSES, TIMES, Figures, Group, Key, Sums, no_times
from farthing.proxy.rollup_plan import DAY_S, HOUR_S, Slices

__all__ = ["UNITS", "Stretch", "begin_of", "first_moment", "over_time", "stretches", "unit_in"]

UNITS = {"hour": HOUR_S, "day": DAY_S, "week": 7 * DAY_S}
"""Seconds of each unit of time by which figures may be split."""
MAX_UNITS = 1000
MAX_LINES = 1000
_MONDAY_S = 4 * DAY_S
_YEAR_2000_S = 946_684_800
_TIMES = ("latency", "overhead")


class Stretch(NamedTuple):
    """Sums of one unit of time, or of what a span holds of it."""

    start_s: float
    end_s: float
    sums: Sums


def unit_in(by: Sequence[str]) -> str:
    """The unit of time among the groups; empty where there is none. Raises ValueError for more than one."""
    units = [part for part in by if part in UNITS]
    if len(units) > 1:
        raise ValueError(f"split by one unit of time, not by {' and '.join(units)}")
    return units[0] if units else ""


def begin_of(unit: str, moment_s: float) -> int:
    """When the unit began that holds the moment."""
    offset_s = _MONDAY_S if unit == "week" else 0
    return math.floor((moment_s - offset_s) / UNITS[unit]) * UNITS[unit] + offset_s


def _end_of(unit: str, moment_s: float) -> int:
    """When the unit ends that holds what is just before the moment."""
    begin_s = begin_of(unit, moment_s)
    return begin_s if begin_s == moment_s else begin_s + UNITS[unit]


def over_time(conn: sqlite3.Connection, since_s: float, until_s: float, by: Sequence[str]) -> Figures:
    """The figures by a unit of time, and what else `by` names; in order of time, and within a unit the dearest first.

    The span is widened to whole units. By time alone empty units are there too. Raises ValueError for an unknown group
    and for more than MAX_UNITS units.
    """
    unit = unit_in(by)
    rest = tuple(part for part in by if part != unit)
    begin_s, end_s = begin_of(unit, since_s), _end_of(unit, until_s)
    count = (end_s - begin_s) // UNITS[unit]
    if count > MAX_UNITS:
        raise ValueError(
            f"{count:,} {unit}s are too many (at most {MAX_UNITS:,}): ask for a shorter time, or longer units"
        )
    with snapshot(conn):
        whole = Reading(conn, Slices(begin_s, end_s))
        total = whole.total.get(("0",), Sums(cache=dict.fromkeys(STATUSES, 0)))
        times = whole.times(TIMES, (), [("0",)]).get(("0",), no_times())
        reading = Reading(conn, Slices(begin_s, end_s, count))
        found = dict(reading.sums(rest))
        if not rest:
            found = {(str(i),): found.get((str(i),), Sums(cache=dict.fromkeys(STATUSES, 0))) for i in range(count)}

        def dearest(key: Key) -> tuple[int, int, Key]:
            return -found[key].baseline, -found[key].requests, key

        kept = sorted(sorted(found, key=dearest)[:MAX_LINES], key=lambda key: (int(key[0]), *dearest(key)))
        grouped = reading.times(_TIMES, rest, kept)
    at = by.index(unit)

    def named(key: Key) -> Key:
        name = _name(unit, begin_s + int(key[0]) * UNITS[unit])
        return (*key[1 : at + 1], name, *key[at + 1 :])

    groups = tuple(Group(named(key), found[key], grouped.get(key, no_times())) for key in kept)
    return Figures(min(float(begin_s), whole.since_s), until_s, tuple(by), total, times, groups, len(found) - len(kept))


def _name(unit: str, start_s: float) -> str:
    """A unit's name: `2026-11-23`, and `2026-11-23 14:00` for an hour. A week is called by its Monday."""
    return datetime.fromtimestamp(start_s, UTC).strftime("%Y-%m-%d %H:00" if unit == "hour" else "%Y-%m-%d")


def stretches(conn: sqlite3.Connection, unit: str, since_s: float, until_s: float) -> tuple[Stretch, ...]:
    """[since_s, until_s) by the unit, empty ones included; the first and the last are what the span holds of them."""
    if until_s <= since_s:
        return ()
    first_s, last_s = _end_of(unit, since_s), begin_of(unit, until_s)
    with snapshot(conn):
        if first_s > last_s:
            return (_one(conn, since_s, until_s),)
        found = [_one(conn, since_s, first_s)] if since_s < first_s else []
        if count := (last_s - first_s) // UNITS[unit]:
            totals = Reading(conn, Slices(first_s, last_s, count)).total
            for i in range(count):
                start_s = float(first_s + i * UNITS[unit])
                found.append(Stretch(start_s, start_s + UNITS[unit], totals.get((str(i),), Sums())))
        return (*found, _one(conn, last_s, until_s)) if last_s < until_s else tuple(found)


def _one(conn: sqlite3.Connection, since_s: float, until_s: float) -> Stretch:
    return Stretch(since_s, until_s, Reading(conn, Slices(since_s, until_s)).total.get(("0",), Sums()))


def first_moment(conn: sqlite3.Connection) -> float | None:
    """When the ledger's first request came: of its rows, or the hour of the first roll-up where those are gone.

    Moments before 2000 are those of a clock that wasn't set, and don't count.
    """
    (first_s,) = conn.execute("select min(ts) from requests where ts >= ?", (_YEAR_2000_S,)).fetchone()
    if conn.execute("select 1 from sqlite_master where type = 'table' and name = 'rollups'").fetchone():
        query = "select min(start_s) from rollups where cut = '' and length_s = ? and start_s >= ?"
        (rolled_s,) = conn.execute(query, (HOUR_S, _YEAR_2000_S)).fetchone()
        # Of an hour whose rows are there the first row tells more than its roll-up.
        if rolled_s is not None and (first_s is None or rolled_s + HOUR_S <= first_s):
            return float(rolled_s)
    return None if first_s is None else float(first_s)
