"""Where outcomes are kept: a table of their own beside the ledger, joined with its rows by the request's id.

Outcomes come seldom and from any thread, often long after the row; so they have a file (`outcomes.db`) and a lock, and
not the ledger's writer. A comment may be personal: it is looked through as captured prompts are, or left out.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

import structlog

from farthing.policies.outcome import Outcome
from farthing.proxy.ledger_file import is_corrupt, move_aside

__all__ = ["FILE", "Change", "MetricSum", "Outcomes", "Told", "Word", "read_only"]

FILE = "outcomes.db"
_COLUMNS = "request_id, metric, event, value, at_s, received_s, comment, source"
_SCHEMA = """create table if not exists outcomes (
    request_id text not null, metric text not null, event text not null, value real not null, at_s real not null,
    received_s real not null, comment text not null, source text not null,
    primary key (request_id, metric, event)) without rowid"""
# What happened later wins; of two words of one moment the one that came later.
_PUT = f"""insert into outcomes ({_COLUMNS}) values (?, ?, ?, ?, ?, ?, ?, ?)
    on conflict (request_id, metric, event) do update set value = excluded.value, at_s = excluded.at_s,
        received_s = excluded.received_s, comment = excluded.comment, source = excluded.source
    where excluded.at_s >= at_s and (excluded.value, excluded.comment) <> (value, comment)"""
# The same word again, from later: it holds from then on, against words of the time between.
_LATER = """update outcomes set at_s = ?5 where request_id = ?1 and metric = ?2 and event = ?3
    and value = ?4 and comment = ?7 and at_s < ?5"""
# What was said when, in order, where somebody must be able to read it again: see `keep_changes`. `before` and `after`
# are lists of words, [event, value, at_s].
_CHANGES = """create table if not exists changes (
    n integer primary key autoincrement, request_id text not null, metric text not null, before text not null,
    after text not null, at_s real not null)"""
_MARK = "create table if not exists changes_mark (mark text not null)"
_FEW = 500
_SWEEP_EVERY_S = 3600.0
_CHANGES_S = 30 * 86_400

log = structlog.get_logger("farthing.outcomes")


class MetricSum(NamedTuple):
    """One metric over a span: how often it was said, and the sums of values and of their squares."""

    metric: str
    source: str
    words: int
    total: float
    squares: float


class Change(NamedTuple):
    """What is said of one request by one metric, before and after: several values where there were several events."""

    request_id: str
    metric: str
    before: tuple[float, ...]
    after: tuple[float, ...]


class Word(NamedTuple):
    """What one event says, and when that happened."""

    event: str
    value: float
    at_s: float


class Told(NamedTuple):
    """A change as it is written down: all words of one request and metric, before and after, in the order of events."""

    request_id: str
    metric: str
    before: tuple[Word, ...]
    after: tuple[Word, ...]


class Outcomes:
    """Keeps outcomes; for any thread. Opened by its first use; a damaged file is moved aside, and told.

    `keep_days`: what came longer ago goes, while something comes; 0: nothing does. `listeners`: told of every change,
    in the thread that made it; the order of changes means nothing.
    """

    def __init__(self, path: Path, keep_days: int = 0) -> None:
        self.path = path
        self.keep_days = keep_days
        self.listeners: list[Callable[[list[Change]], None]] = []
        self._mark, self._marked = "", False
        self._swept_s = 0.0
        self._lock = threading.Lock()
        self._conn: sqlite3.Connection | None = None

    def keep_changes(self, mark: str) -> None:
        """From now on write down each change too, numbered, in the step that makes it, for thirty days. `mark`: names
        this file, if it has no name yet. Blocks; a file that can't be opened now is tried again when something is
        said."""
        self._mark = mark
        with self._lock, suppress(sqlite3.Error, OSError):
            self._opened()

    def put(self, outcomes: Iterable[Outcome]) -> int:
        """Keep them; how many said something new. Raises sqlite3.Error, OSError: none of them is kept."""
        rows = [(o.request_id, o.metric, o.event, o.value, o.at_s, o.received_s, o.comment, o.source) for o in outcomes]
        with self._lock:
            conn = self._opened()
            asked = sorted({(row[0], row[1]) for row in rows}) if self.listeners or self._mark else []
            new = 0
            with conn:
                if self._mark:
                    conn.execute("begin immediate")  # what was said before is what no other process changes meanwhile
                said = self._words(conn, asked)
                for row in rows:
                    said_new = conn.execute(_PUT, row).rowcount
                    new += said_new
                    if not said_new:
                        conn.execute(_LATER, row[:7])
                now = self._words(conn, asked)
                told = [
                    Told(*key, said.get(key, ()), now.get(key, ())) for key in asked if said.get(key) != now.get(key)
                ]
                if self._mark:
                    self._write_down(conn, told, max((row[5] for row in rows), default=0.0))
            self._sweep(conn, max((row[5] for row in rows), default=0.0))
        changes = [Change(one.request_id, one.metric, _values(one.before), _values(one.after)) for one in told]
        if changes := [one for one in changes if one.before != one.after]:  # not where it was only said again
            for listener in tuple(self.listeners):
                listener(changes)
        return new

    def _write_down(self, conn: sqlite3.Connection, told: Sequence[Told], now_s: float) -> None:
        conn.executemany(
            "insert into changes (request_id, metric, before, after, at_s) values (?, ?, ?, ?, ?)",
            [(one.request_id, one.metric, json.dumps(one.before), json.dumps(one.after), now_s) for one in told],
        )

    def _words(
        self, conn: sqlite3.Connection, keys: Sequence[tuple[str, str]]
    ) -> dict[tuple[str, str], tuple[Word, ...]]:
        found: dict[tuple[str, str], tuple[Word, ...]] = {}
        ids = sorted({request_id for request_id, _ in keys})
        for at in range(0, len(ids), _FEW):
            some = ids[at : at + _FEW]
            marks = ", ".join("?" * len(some))
            columns = "request_id, metric, event, value, at_s"
            query = f"select {columns} from outcomes where request_id in ({marks}) order by event"
            for request_id, metric, *word in conn.execute(query, some):
                found[request_id, metric] = (*found.get((request_id, metric), ()), Word(*word))
        return found

    def standing(self, given: Sequence[Outcome]) -> list[Outcome]:
        """Those that say what holds now: not what a word that happened later took back. Blocks.

        Raises sqlite3.Error, OSError.
        """
        query = "select value from outcomes where request_id = ? and metric = ? and event = ?"
        with self._lock:
            conn = self._opened()
            held = [conn.execute(query, (one.request_id, one.metric, one.event)).fetchone() for one in given]
        return [one for one, found in zip(given, held, strict=True) if found is not None and found[0] == one.value]

    def erase_comments(self, request_ids: Sequence[str]) -> int:
        """Take away what was said in words of these requests, for good; how many. The figures stay. Blocks.

        Raises sqlite3.Error, OSError.
        """
        count = 0
        with self._lock:
            conn = self._opened()
            conn.execute("pragma secure_delete=on")
            with conn:
                for at in range(0, len(request_ids), _FEW):
                    some = list(request_ids[at : at + _FEW])
                    marks = ", ".join("?" * len(some))
                    erase = f"update outcomes set comment = '' where comment <> '' and request_id in ({marks})"
                    count += conn.execute(erase, some).rowcount
            conn.execute("pragma wal_checkpoint(truncate)")
        return count

    def latest(self, most: int = 50) -> list[Outcome]:
        """The latest to come, the newest first."""
        with self._lock:
            query = f"select {_COLUMNS} from outcomes order by received_s desc, request_id limit ?"
            return [outcome(row) for row in self._opened().execute(query, (most,))]

    def sums(self, since_s: float, until_s: float) -> list[MetricSum]:
        """Each metric by source, of what happened in the span."""
        query = """select metric, source, count(*), sum(value), sum(value * value) from outcomes
                   where at_s >= ? and at_s < ? group by metric, source order by metric, source"""
        with self._lock:
            return [MetricSum(*row) for row in self._opened().execute(query, (since_s, until_s))]

    def close(self) -> None:
        """Let go. Idempotent."""
        with self._lock:
            if self._conn is not None:
                self._conn.close()
                self._conn = None

    def _sweep(self, conn: sqlite3.Connection, now_s: float) -> None:
        if not (self.keep_days or self._mark) or now_s - self._swept_s < _SWEEP_EVERY_S:
            return
        self._swept_s = now_s
        with conn:
            if self._mark:
                conn.execute("delete from changes where at_s < ?", (now_s - _CHANGES_S,))
            if not self.keep_days:
                return
            conn.execute("delete from outcomes where received_s < ?", (now_s - self.keep_days * 86_400,))

    def _opened(self) -> sqlite3.Connection:
        if self._conn is None:
            try:
                self._conn = _connect(self.path)
            except sqlite3.DatabaseError as error:
                if not is_corrupt(error):
                    raise
                aside = move_aside(self.path, f"corrupt-{self.path.stat().st_mtime_ns // 10**6}")
                log.error("outcomes_corrupt", moved_to=str(aside), error=str(error))
                self._conn = _connect(self.path)
            self._marked = False
        if self._mark and not self._marked:
            with self._conn as conn:
                conn.execute(_CHANGES)
                conn.execute(_MARK)
                conn.execute(
                    "insert into changes_mark select ? where not exists (select * from changes_mark)", (self._mark,)
                )
            self._marked = True
        return self._conn


def read_only(state_dir: Path) -> list[Outcome]:
    """All outcomes of a state directory; none where nothing was ever said. Raises sqlite3.Error: it can't be read."""
    path = state_dir / FILE
    if not path.is_file():
        return []
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as conn:
        return [outcome(row) for row in conn.execute(f"select {_COLUMNS} from outcomes order by received_s")]


def outcome(row: tuple[str, str, str, float, float, float, str, str]) -> Outcome:
    """The outcome of a row of the table."""
    request_id, metric, event, value, at_s, received_s, comment, source = row
    return Outcome(request_id, metric, value, at_s, received_s, comment, event, source)


def _values(words: Sequence[Word]) -> tuple[float, ...]:
    return tuple(word.value for word in words)


def _connect(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    conn = sqlite3.connect(path, timeout=5.0, check_same_thread=False)
    try:
        conn.execute("pragma journal_mode=wal")
        conn.execute(_SCHEMA)
        conn.execute("create index if not exists outcomes_received on outcomes (received_s)")
        conn.commit()
    except BaseException:
        conn.close()
        raise
    return conn
