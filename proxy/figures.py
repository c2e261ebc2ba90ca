"""What the ledger adds up to: questions to a read-only connection, plain values as answers.

Rules of this file: nothing is written; what is asked for is checked here, and read by figures_read.py.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from farthing.proxy.figures_read import Reading, snapshot
from farthing.proxy.figures_sql import group_expressions
from farthing.proxy.figures_time import over_time, unit_in
from farthing.proxy.figures_values import (
    CAUSES,
    FORMS,
    GROUPS,
    STATUSES,
    TIMES,
    Bucket,
    Figures,
    Group,
    Percentiles,
    Sums,
    no_times,
)
from farthing.proxy.rollup_plan import Slices
from farthing.proxy.row import COLUMNS, Row

__all__ = [
    "CAUSES",
    "FORMS",
    "GROUPS",
    "STATUSES",
    "Bucket",
    "Figures",
    "Group",
    "Percentiles",
    "Repeated",
    "Sums",
    "farthing_since",
    "one",
    "open_ledger",
    "recent",
    "saved_by_form",
    "series",
    "summary",
    "top_repeated",
]

MAX_GROUPS = 200
MAX_BUCKETS = 1000
MAX_RECENT = 1000
GROUP_TIMES = ("latency", "overhead")
SERIES_TIMES = (*GROUP_TIMES, "upstream")
NOTHING = Sums(cache=dict.fromkeys(STATUSES, 0))


def open_ledger(path: Path) -> sqlite3.Connection:
    """A connection that can't write. Raises sqlite3.OperationalError where there is no such file."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)


def summary(conn: sqlite3.Connection, since_s: float, until_s: float, by: Sequence[str] = ()) -> Figures:
    """The figures of a span of time, and by group where `by` names any of GROUPS, `tag:NAME`, or hour, day or week.

    Where rows are gone the span begins with the roll-up that holds `since_s`. What a roll-up could not keep apart is
    the group `(others)`. By a unit of time: figures_time.py. Raises ValueError for an unknown group. Cost:
    figures_read.py.
    """
    unit = unit_in(by)
    group_expressions([part for part in by if part != unit])
    if until_s <= since_s:
        return Figures(since_s, until_s, tuple(by), NOTHING, no_times())
    if unit:
        return over_time(conn, since_s, until_s, by)
    with snapshot(conn):
        reading = Reading(conn, Slices(since_s, until_s))
        total = reading.total.get(("0",), NOTHING)
        times = reading.times(TIMES, (), [("0",)]).get(("0",), no_times())
        if not by:
            return Figures(reading.since_s, until_s, (), total, times)
        split = {key[1:]: sums for key, sums in reading.sums(by).items()}
        dearest = sorted(split, key=lambda key: (-split[key].baseline, -split[key].requests, key))[:MAX_GROUPS]
        grouped = reading.times(GROUP_TIMES, by, [("0", *key) for key in dearest])
        groups = tuple(Group(key, split[key], grouped.get(("0", *key), no_times())) for key in dearest)
        return Figures(reading.since_s, until_s, tuple(by), total, times, groups, len(split) - len(groups))


def saved_by_form(conn: sqlite3.Connection, since_s: float, until_s: float) -> dict[str, int | None]:
    """What compression saved, in pico-dollars, by the form of the request; None where no price is known of any."""
    if until_s <= since_s:
        return {}
    with snapshot(conn):
        found = Reading(conn, Slices(since_s, until_s)).sums(("compress",))
    known = {form: found["0", form] for form in FORMS if ("0", form) in found}
    return {form: sums.saved["compress"] if sums.has_prices else None for form, sums in known.items()}


def series(conn: sqlite3.Connection, since_s: float, until_s: float, buckets: int) -> tuple[Bucket, ...]:
    """The figures in `buckets` equal slices of time, empty slices included. Raises ValueError for an empty span."""
    if not 1 <= buckets <= MAX_BUCKETS:
        raise ValueError(f"buckets must be 1 to {MAX_BUCKETS}, not {buckets}")
    if until_s <= since_s:
        raise ValueError("the span of time is empty: since must be before now")
    slices = Slices(since_s, until_s, buckets)
    keys = [(str(i),) for i in range(buckets)]
    with snapshot(conn):
        reading = Reading(conn, slices)
        times = reading.times(SERIES_TIMES, (), keys)
    return tuple(
        Bucket(
            since_s + i * slices.length_s,
            slices.length_s,
            reading.total.get(key, Sums(cache={})),
            times.get(key, no_times()),
        )
        for i, key in enumerate(keys)
    )


class Repeated(NamedTuple):
    """A prompt that came more than once, or was answered from a cache. `saved_usd`: pico-dollars.

    `at_least`: the counts are lower bounds, from roll-ups (see repeated.py).
    """

    key_hash: str
    requests: int
    hits: int
    saved_usd: int
    last_s: float
    model: str
    at_least: bool


def top_repeated(conn: sqlite3.Connection, since_s: float, until_s: float, limit: int = 50) -> tuple[Repeated, ...]:
    """The prompts that came most often, at most MAX_RECENT. Over many rows the span is widened to whole hours."""
    limit = max(0, min(limit, MAX_RECENT))
    if until_s <= since_s:
        return ()
    with snapshot(conn):
        return tuple(Repeated(*found) for found in Reading(conn, Slices(since_s, until_s)).repeated(limit))


def recent(conn: sqlite3.Connection, limit: int = 50) -> tuple[Row, ...]:
    """The newest rows, newest first; at most MAX_RECENT."""
    limit = max(0, min(limit, MAX_RECENT))
    found = conn.execute(f"select {columns()} from requests order by ts desc, id desc limit ?", (limit,))
    return tuple(Row(*values) for values in found)


def one(conn: sqlite3.Connection, row_id: str) -> Row | None:
    """The row of that id, None where there is none."""
    values = conn.execute(f"select {columns()} from requests where id = ?", (row_id,)).fetchone()
    return Row(*values) if values else None


def rows_of(conn: sqlite3.Connection, row_ids: Sequence[str]) -> dict[str, Row]:
    """The rows of those ids that are there, by id; at most some hundred ids."""
    marks = ", ".join("?" * len(row_ids))
    found = conn.execute(f"select {columns()} from requests where id in ({marks})", list(row_ids))
    return {row.id: row for row in map(Row._make, found)}


def columns() -> str:
    """The columns, quoted: some are words of SQL in one engine or another."""
    return ", ".join(f'"{column}"' for column in COLUMNS)


def farthing_since(text: str, now_s: float) -> float:
    """The moment that `text` means, in seconds since the epoch: `7d`, `24h`, `90m`, `30s`, `2w`, or an ISO date.

    An ISO date or time without an offset is UTC. Raises ValueError, whose message says what would do.
    """
    text = text.strip()
    if found := re.fullmatch(r"([0-9]{1,9})\s*([smhdw])", text):
        units_s = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
        if (ago_s := int(found[1]) * units_s[found[2]]) > 0:
            return max(0.0, now_s - ago_s)
    elif re.match(r"[0-9]{4}-", text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            moment_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            if moment_s >= now_s:
                raise ValueError(f"{text!r} is not in the past")
            return moment_s
    raise ValueError(f"{text[:40]!r} is no span of time; write 90m, 24h, 7d, 2w, or a date such as 2026-01-31")
