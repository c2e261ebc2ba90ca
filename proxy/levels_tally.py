"""Good and bad events of service levels, counted from the ledger's new rows and kept by the minute and the hour.

Rules of this file: every row is read once for a target, by SQLite, in slices; a target that is new is counted from the
latest MOST_BACK rows on. Words on answers (ratings, audits) come later than rows: each is kept by itself, since it may
be said again otherwise. No text of a request is ever here. One thread uses it.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import orjson
import structlog

from farthing.policies.levels import Tally, Target
from farthing.proxy.figures_sql import CLIENTS, ENDED
from farthing.proxy.ledger_file import is_corrupt, move_aside

__all__ = ["FILE", "MOST_BACK", "Promise", "Tallies", "matching", "promise_of", "promises_kept"]

FILE = "levels.db"
MOST_BACK = 1_000_000
"""Rows that a new target is counted from."""
_SLICE_ROWS = 100_000
_SLICE_WORDS = 5_000
_MINUTE_S, _HOUR_S, _DAY_S = 60, 3_600, 86_400
_MINUTES_KEPT_S = _DAY_S
_KEPT_S = 400 * _DAY_S
_BY_MINUTE_S = 6 * _HOUR_S
_AGAIN_S = 60.0  # a word may come before its row is written
WORDS = ("rating", "audit")
"""Metrics that say whether an answer was right: 1 for right, below a half for wrong."""

_TABLES = """
create table if not exists tallies (target text not null, length_s integer not null, start_s integer not null,
    events integer not null, bad integer not null, pico integer not null,
    primary key (target, length_s, start_s)) without rowid;
create table if not exists words (target text not null, subject text not null, at_s real not null, bad integer not null,
    primary key (target, subject)) without rowid;
create index if not exists words_at on words (target, at_s);
create table if not exists promises (target text primary key, told text not null, row integer not null,
    row_id text not null, word_s real not null) without rowid;
"""
# Which rows are events, and which of them are bad. `:limit` is bound.
_EVENTS: Mapping[str, tuple[str, str, str]] = {
    "latency": ("outcome = 'completed' and status < 400", "latency_ms > :limit", "0"),
    "availability": (ENDED, "outcome = 'failed' or status >= 500 or (status = 429 and attempts > 0)", "0"),
    "cost": (f"{ENDED} and cost_usd is not null", "0", "cost_usd + coalesce(overhead_usd, 0)"),
}

log = structlog.get_logger("farthing.levels")


class Promise(NamedTuple):
    """One target of one level. `where`: as config_levels.ServiceLevel has it."""

    level: str
    where: Mapping[str, str]
    window_days: int
    target: Target

    @property
    def key(self) -> str:
        """Names what is counted. Another share or window of the same counts afterwards, too."""
        kind, _, limit = self.target
        told = orjson.dumps([self.level, sorted(self.where.items()), kind, limit])
        return hashlib.sha256(told).hexdigest()[:16]

    @property
    def told(self) -> bytes:
        """The promise as JSON, for whoever reads the tallies without the configuration."""
        return orjson.dumps([self.level, dict(self.where), self.window_days, *self.target])


def matching(where: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """SQL that is true of the rows that are meant, and its named parameters."""
    parts, given = [CLIENTS], {}
    for name, column in (("model", "model_requested"), ("tenant", "tenant")):
        if name in where:
            parts.append(f"{column} glob :{name}")
            given[name] = where[name]
    if "endpoint" in where:
        parts.append("endpoint = :endpoint")
        given["endpoint"] = where["endpoint"]
    if "tag" in where:
        name, _, value = where["tag"].partition("=")
        parts.append("case when json_valid(tags) then json_extract(tags, :tag_path) = :tag_value else 0 end")
        given |= {"tag_path": f'$."{name}"', "tag_value": value}
    if "route" in where:
        parts.append("instr(decisions, :route) > 0")
        given["route"] = '["route","routed",' + orjson.dumps(f"{where['route']}: ").decode()[:-1]
    return " and ".join(parts), given


def promise_of(told: str) -> Promise:
    """The promise that `told` tells. Raises ValueError, TypeError: it isn't one."""
    level, where, window_days, *target = orjson.loads(told)
    return Promise(level, where, window_days, Target(*target))


class Tallies:
    """See the module. Raises sqlite3.Error where a file can't be used; a damaged one of its own is moved aside.

    `read_only`: for who only reads what another process counts.
    """

    def __init__(self, state_dir: Path, *, read_only: bool = False) -> None:
        self._read_only = read_only
        self._ledger, self._outcomes = state_dir / "ledger.db", state_dir / "outcomes.db"
        self._path = state_dir / FILE
        self._conn: sqlite3.Connection | None = None

    def count(self, promises: Sequence[Promise], now_s: float) -> bool:
        """Add what is new, at most one slice of rows and of words for each; whether there may be more."""
        conn = self._opened()
        more = False
        self._forget_all_but(conn, {promise.key for promise in promises})
        if not self._ledger.is_file():
            return False
        with closing(_read_only(self._ledger)) as ledger:
            if ledger.execute("select 1 from sqlite_master where name = 'requests'").fetchone() is None:
                return False
            for promise in promises:
                with conn:
                    conn.execute(
                        "insert into promises values (?, ?, -1, '', 0) on conflict do update set told = excluded.told",
                        (promise.key, promise.told.decode()),
                    )
                    add = self._add_words if promise.target.kind == "wrong" else self._add_rows
                    more = add(conn, ledger, promise, now_s) or more
        with conn:
            conn.execute("delete from tallies where length_s = ? and start_s < ?", (_MINUTE_S, now_s - _MINUTES_KEPT_S))
            conn.execute("delete from tallies where start_s < ?", (now_s - _KEPT_S,))
            conn.execute("delete from words where at_s < ?", (now_s - _KEPT_S,))
        return more

    def of(self, promise: Promise, length_s: float, now_s: float) -> Tally:
        """Of the latest so many seconds: from a whole minute on, or a whole hour for what is longer than six hours."""
        return self.between(promise.key, promise.target.kind, now_s - length_s, now_s + _HOUR_S, length_s)

    def between(self, key: str, kind: str, since_s: float, until_s: float, length_s: float = _DAY_S) -> Tally:
        """Of [since_s, until_s), widened at its beginning as `of` says."""
        conn = self._opened()
        if kind == "wrong":
            query = "select count(*), coalesce(sum(bad), 0) from words where target = ? and at_s >= ? and at_s < ?"
            return Tally(*conn.execute(query, (key, since_s, until_s)).fetchone())
        unit_s = _MINUTE_S if length_s <= _BY_MINUTE_S else _HOUR_S
        query = """select events, bad, pico from tallies
                   where target = ? and length_s = ? and start_s >= ? and start_s < ?"""
        found = conn.execute(query, (key, unit_s, since_s // unit_s * unit_s, until_s)).fetchall()
        return Tally(*map(sum, zip(*found, strict=True))) if found else Tally()

    def close(self) -> None:
        """Let go. Idempotent."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _forget_all_but(self, conn: sqlite3.Connection, keys: set[str]) -> None:
        """What nobody promises any more would be counted on top of itself if it came back."""
        gone = [(key,) for (key,) in conn.execute("select target from promises") if key not in keys]
        if gone:
            with conn:
                for table in ("tallies", "words", "promises"):
                    conn.executemany(f"delete from {table} where target = ?", gone)

    def _add_rows(self, conn: sqlite3.Connection, ledger: sqlite3.Connection, promise: Promise, now_s: float) -> bool:
        key, (kind, _, limit) = promise.key, promise.target
        last = ledger.execute("select coalesce(max(rowid), 0) from requests").fetchone()[0]
        mark, mark_id = conn.execute("select row, row_id from promises where target = ?", (key,)).fetchone()
        there = ledger.execute("select id from requests where rowid = ?", (mark,)).fetchone()
        if mark > last or (there is not None and there[0] != mark_id):
            mark = 0  # another ledger
        if mark < 0:
            mark = max(0, last - MOST_BACK)
        up_to = min(last, mark + _SLICE_ROWS)
        if up_to <= mark:
            return False
        event, bad, pico = _EVENTS[kind]
        where, given = matching(promise.where)
        query = f"""
            select cast(ts / {_MINUTE_S} as integer) * {_MINUTE_S}, count(*), sum({bad}),
                sum({pico})
            from requests where rowid > :mark and rowid <= :up_to and ts >= :begin and ts <= :now and {event}
            and {where} group by 1"""
        begin_s = now_s - promise.window_days * _DAY_S - _HOUR_S
        bounds = {"mark": mark, "up_to": up_to, "begin": begin_s, "now": now_s + _HOUR_S, "limit": limit}
        for start_s, *sums in ledger.execute(query, {**given, **bounds}):
            for length_s in (_MINUTE_S, _HOUR_S):
                conn.execute(
                    """insert into tallies values (?, ?, ?, ?, ?, ?) on conflict do update set
                       events = events + excluded.events, bad = bad + excluded.bad, pico = pico + excluded.pico""",
                    (key, length_s, start_s // length_s * length_s, *sums),
                )
        (mark_id,) = ledger.execute("select id from requests where rowid = ?", (up_to,)).fetchone() or ("",)
        conn.execute("update promises set row = ?, row_id = ? where target = ?", (up_to, mark_id, key))
        return bool(up_to < last)

    def _add_words(self, conn: sqlite3.Connection, ledger: sqlite3.Connection, promise: Promise, now_s: float) -> bool:
        if not self._outcomes.is_file():
            return False
        (mark_s,) = conn.execute("select word_s from promises where target = ?", (promise.key,)).fetchone()
        query = f"""select request_id, metric || ':' || event, value < 0.5, received_s from outcomes
            where received_s > ? and metric in ({", ".join("?" * len(WORDS))}) and source <> 'implicit'
            order by received_s limit {_SLICE_WORDS}"""
        with closing(_read_only(self._outcomes)) as outcomes:
            if outcomes.execute("select 1 from sqlite_master where name = 'outcomes'").fetchone() is None:
                return False
            found = outcomes.execute(query, (mark_s, *WORDS)).fetchall()
        if not found:
            return False
        where, given = matching(promise.where)
        about = orjson.dumps(sorted({word[0] for word in found})).decode()
        meant = {
            id
            for (id,) in ledger.execute(
                f"select id from requests where id in (select value from json_each(:about)) and {where}",
                {**given, "about": about},
            )
        }
        conn.executemany(
            "insert or replace into words values (?, ?, ?, ?)",
            [(promise.key, f"{id}:{said}", at_s, bad) for id, said, bad, at_s in found if id in meant],
        )
        # What is newer than that is looked at again, for its row may not have been there.
        reached_s = max(mark_s, min(found[-1][3], now_s - _AGAIN_S))
        conn.execute("update promises set word_s = ? where target = ?", (reached_s, promise.key))
        return len(found) == _SLICE_WORDS and reached_s > mark_s

    def _opened(self) -> sqlite3.Connection:
        if self._conn is None and self._read_only:
            self._conn = _read_only(self._path)
        if self._conn is None:
            try:
                self._conn = _connect(self._path)
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
                aside = move_aside(self._path, f"corrupt-{self._path.stat().st_mtime_ns // 10**6}")
                log.error("levels_corrupt", moved_to=str(aside), error=str(error))
                self._conn = _connect(self._path)
        return self._conn


def promises_kept(state_dir: Path) -> tuple[list[Promise], Tallies] | None:
    """What is promised by the latest configuration that served, and how it was kept; None where nothing ever was.

    Raises sqlite3.Error.
    """
    path = state_dir / FILE
    if not path.is_file():
        return None
    with closing(_read_only(path)) as conn:
        found = [promise_of(told) for (told,) in conn.execute("select told from promises order by told")]
    return found, Tallies(state_dir, read_only=True)


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    conn = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        conn.execute("pragma journal_mode=wal")
        conn.execute("pragma synchronous=normal")
        conn.executescript(_TABLES)
    except BaseException:
        conn.close()
        raise
    return conn


def _read_only(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)
