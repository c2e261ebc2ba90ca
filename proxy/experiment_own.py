"""What one replica's own files hold for an experiment after some place in them: rows of its ledger, and words of its
outcomes. All of this blocks, and raises sqlite3.Error.

Places are plain values that are good over restarts:

    rows    [id of a row, its ts]; None: the beginning
    words   [name of the file of changes, number of a change, [request, metric] or None]; None: the beginning. With
            [request, metric] all words of requests that come before are told, as they were at that number

A row is found by its id. Where it isn't there (it was removed as too old, or another ledger is in its place) what has a
later `ts` follows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from farthing.proxy.experiment_placing import Placing
from farthing.proxy.experiment_total import Placed
from farthing.proxy.figures import columns
from farthing.proxy.outcomes import Told, Word
from farthing.proxy.row import ERRANDS, Row

__all__ = ["OwnRows", "Placements", "Said", "own_words"]

_FIRST = ["", ""]


class OwnRow(NamedTuple):
    """What a row adds, and the place after it."""

    placed: Placed
    place: Any


class Placements(NamedTuple):
    """What rows add. `ids`: of all that were looked at; `passed`: how many others lie between; `end`: the place after
    it; `full`: there may be more."""

    placed: list[OwnRow]
    ids: list[str]
    passed: int
    end: Any
    full: bool


class Said(NamedTuple):
    """Words, in order, each with a key that no other has here, and the place after them."""

    said: list[tuple[str, Told]]
    end: Any


class OwnRows:
    """Rows of one ledger after `place`, in the order in which they were written, each placed once."""

    def __init__(self, placing: Placing, place: Any, warm: int = 5_000) -> None:
        self.placing = placing
        self._place = place
        self._warm = warm
        self._row = -1  # the number of the row that was read last; -1: it has to be found
        self._after_s = float("-inf")

    def more(self, most: int) -> Placements | None:
        """The next ones; None where there are none yet."""
        ledger = self.placing.ledger
        if not ledger.is_file():
            return None
        with closing(_opened(ledger)) as conn:
            newest = conn.execute("select rowid, id, ts from requests order by rowid desc limit 1").fetchone()
            if newest is None:
                return None
            if self._row < 0 or newest[0] < self._row:
                self._find(conn)
            if newest[0] <= self._row:
                return None
            found = self._rows(conn, f"rowid > ? and rowid <= {newest[0]} order by rowid limit {most}", self._row)
        end = newest if len(found) < most else (found[-1][0], found[-1][1].id, found[-1][1].ts)
        placed = []
        for _, row in found:
            one = self.placing.row(row) if row.ts > self._after_s else None
            if one is not None:
                placed.append(OwnRow(one, [row.id, row.ts]))
        passed, self._row, self._place = end[0] - self._row - len(placed), end[0], [end[1], end[2]]
        return Placements(placed, [row.id for _, row in found], passed, self._place, len(found) == most)

    def _find(self, conn: sqlite3.Connection) -> None:
        """Where the place is in this file; what lies shortly before it is remembered, and told no more."""
        self._row, self._after_s = 0, float("-inf")
        if self._place is None:
            return
        id, ts = self._place
        found = conn.execute("select rowid from requests where id = ?", [id]).fetchone()
        if found is None:
            self._after_s = ts
            return
        self._row = found[0]
        lately = self._rows(conn, f"rowid <= ? order by rowid desc limit {self._warm}", self._row)
        for _, row in reversed(lately):
            self.placing.row(row)

    def _rows(self, conn: sqlite3.Connection, where: str, *given: Any) -> list[tuple[int, Row]]:
        errands = ", ".join(f"'{one}'" for one in ERRANDS)
        ours = "" if self.placing.rest else f"(experiment = ? or endpoint in ({errands})) and "
        names = () if self.placing.rest else (self.placing.name,)
        query = f"select rowid, {columns()} from requests where ts >= ? and {ours}{where}"
        return [(row[0], Row._make(row[1:])) for row in conn.execute(query, (self.placing.since_s, *names, *given))]


def own_words(path: Path, place: Any, metrics: Collection[str], since_s: float, most: int) -> Said | None:
    """What was said after `place`, of these metrics; None where nothing was. `path`: the outcomes' file."""
    if not path.is_file():
        return None
    with closing(_opened(path)) as conn:
        conn.execute("begin")  # all of it as it is at one moment
        try:
            mark = conn.execute("select mark from changes_mark").fetchone()
        except sqlite3.OperationalError:  # nobody wrote changes down yet
            return None
        if mark is None:
            return None
        if place is None:
            last = conn.execute("select coalesce(max(n), 0) from changes").fetchone()[0]
            place = [mark[0], last, _FIRST]
        elif place[0] != mark[0]:
            place = [mark[0], 0, None]  # another file, in which everything is new
        else:
            given = conn.execute("select seq from sqlite_sequence where name = 'changes'").fetchone()
            newest = 0 if given is None else given[0]
            if newest < place[1]:  # an older copy of the file: what it has was told, what comes now is new
                return Said([], [place[0], newest, place[2]])
        return _all_words(conn, place, metrics, since_s, most) if place[2] else _changes(conn, place, metrics, most)


def _changes(conn: sqlite3.Connection, place: Any, metrics: Collection[str], most: int) -> Said | None:
    query = "select n, request_id, metric, before, after from changes where n > ? order by n limit ?"
    found = conn.execute(query, (place[1], most)).fetchall()
    if not found:
        return None
    changes = [
        (str(n), Told(request_id, metric, _words(before), _words(after)))
        for n, request_id, metric, before, after in found
        if metric in metrics
    ]
    return Said(changes, [place[0], found[-1][0], None])


def _all_words(conn: sqlite3.Connection, place: Any, metrics: Collection[str], since_s: float, most: int) -> Said:
    mark, last, upto = place
    marks = ", ".join("?" * len(metrics))
    keys = conn.execute(
        f"""select distinct request_id, metric from outcomes where received_s >= ? and metric in ({marks})
            and (request_id, metric) > (?, ?) order by request_id, metric limit ?""",
        (since_s, *metrics, *upto, most),
    ).fetchall()
    changes = []
    for request_id, metric in keys:
        changed = conn.execute(
            "select before from changes where n > ? and request_id = ? and metric = ? order by n limit 1",
            (last, request_id, metric),
        ).fetchone()
        if changed is not None:  # since; so what it was then is what it changed from
            words = _words(changed[0])
        else:
            query = "select event, value, at_s from outcomes where request_id = ? and metric = ? order by event"
            words = tuple(Word(*held) for held in conn.execute(query, (request_id, metric)))
        if words:
            changes.append((f"{request_id} {metric}", Told(request_id, metric, (), words)))
    return Said(changes, [mark, last, list(keys[-1]) if len(keys) == most else None])


def _words(text: str) -> tuple[Word, ...]:
    return tuple(Word(*word) for word in json.loads(text))


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0, isolation_level=None)
