"""The local store's file where several processes have it open: what the others wrote and removed can be read.

Rules of this file:
1. Row numbers grow in the order of commits, whoever commits: what is new has a larger number than what was seen.
2. Removals are logged in the transaction that removes; the log is short, and who falls behind it looks at all rows.
3. A file that another process moved aside isn't moved again: the new one is taken.
4. An entry behind a fence is written only in one commit with the end of its lease (lease_rows.py), or not at all.
"""

from __future__ import annotations

import sqlite3
from concurrent.futures import Executor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from farthing.cache import lease_rows
from farthing.cache.disk import Disk, Record, _tags, connect
from farthing.cache.entry import Entry

__all__ = ["Fence", "Fenced", "News", "SharedDisk", "patient"]

_BUSY_S = 5.0
_LOGGED = 100_000
_REMOVALS = "CREATE TABLE IF NOT EXISTS removals (seq INTEGER PRIMARY KEY AUTOINCREMENT, row INTEGER NOT NULL)"


class News(NamedTuple):
    """What has come since the last look. `own`: rows that this process wrote itself. `only`: where not all removals are
    known, the rows that are left."""

    added: list[Record]
    own: list[tuple[int, Record]]
    removed: list[int]
    only: frozenset[int] | None = None


class Fence(NamedTuple):
    """A lease by its name, our token for it, and the time."""

    name: str
    token: int
    now_s: float


@dataclass(slots=True)
class Fenced:
    """An entry behind a fence. `kept`: None until it is decided."""

    entry: Entry
    fence: Fence
    kept: bool | None = None


def patient(path: Path) -> sqlite3.Connection:
    """disk.connect, but for a file that others write too. For threads that nobody waits for."""
    return connect(path, _BUSY_S)


class SharedDisk(Disk):
    """See the module."""

    _others: ClassVar[bool] = True

    def __init__(self, *args: Any, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self._mine: dict[int, Record] = {}
        self._fenced: dict[int, Fenced] = {}  # by the entry's identity
        self._following: sqlite3.Connection | None = None
        self._inode = self._followed_inode = 0
        self._seen_row = self._seen_removal = 0
        self._version = -1

    @property
    def reader(self) -> Executor:
        """The reading thread."""
        return self._reader

    def news(self) -> News | None:
        """What others did since the last call; None: nothing. For the reading thread. Raises sqlite3.Error, OSError."""
        db = self._follow()
        version = db.execute("PRAGMA data_version").fetchone()[0]
        if version == self._version:
            return None
        db.execute("BEGIN")  # one moment for both tables
        try:
            found = self._since(db)
        finally:
            db.execute("COMMIT")
        self._version = version
        return found

    def behind(self, entry: Entry, fence: Fence) -> Fenced:
        """Whatever writes this entry heeds the fence, until `beyond`."""
        fenced = self._fenced[id(entry)] = Fenced(entry, fence)
        return fenced

    def beyond(self, entry: Entry) -> None:
        """It waits to be written no more."""
        self._fenced.pop(id(entry), None)

    def end(self) -> None:
        """Let go of what `news` read from."""
        if self._following is not None:
            self._following.close()
            self._following = None

    def _since(self, db: sqlite3.Connection) -> News:
        rows = db.execute(
            "SELECT id, key, scope, model_requested, model_served, size, expires_s, stored_s, tags, namespace "
            "FROM entries WHERE id > ? ORDER BY id",
            (self._seen_row,),
        ).fetchall()
        first, last = db.execute("SELECT coalesce(min(seq), 0), coalesce(max(seq), 0) FROM removals").fetchone()
        only = None
        removed: list[int] = []
        if first > self._seen_removal + 1:
            only = frozenset(row for (row,) in db.execute("SELECT id FROM entries"))
        else:
            gone = db.execute("SELECT row FROM removals WHERE seq > ?", (self._seen_removal,))
            removed = [row for (row,) in gone]
        added, own = [], []
        for row, key, scope, asked, served, size, expires_s, stored_s, tags, namespace in rows:
            mine = self._mine.pop(row, None)
            if mine is not None:
                own.append((row, mine))
            else:
                about = (size, expires_s, stored_s, _tags(tags), namespace, row)
                added.append(Record(key, scope, asked, served, *about))
        self._seen_row = max(self._seen_row, rows[-1][0] if rows else 0)
        self._seen_removal = max(self._seen_removal, last)
        for row in [row for row in self._mine if row <= self._seen_row]:
            self._mine.pop(row, None)  # removed before it was seen
        return News(added, own, removed, only)

    def _follow(self) -> sqlite3.Connection:
        inode = self._path.stat().st_ino
        if self._following is not None and inode != self._followed_inode:
            self.end()
            self._seen_removal, self._version = -2, -1  # another file: whatever isn't in it is gone
            self._seen_row = 0
        if self._following is None:
            self._following = patient(self._path)
            self._following.execute(_REMOVALS)
            self._followed_inode = inode
        return self._following

    def _load(self) -> list[Record]:
        records = super()._load()
        assert self._db is not None, "it was opened just now"
        self._seen_row = self._last_row
        return records

    def _opened(self) -> sqlite3.Connection:
        db = super()._opened()
        try:
            db.execute(_REMOVALS)
            db.execute(lease_rows.SCHEMA)
            if not self._inode:
                # Before the rows are read: a removal that is seen twice removes nothing.
                self._seen_removal = db.execute("SELECT coalesce(max(seq), 0) FROM removals").fetchone()[0]
            self._inode = self._path.stat().st_ino
        except BaseException:
            db.close()
            raise
        return db

    def _commit(self, puts: Any, removals: Any) -> list[tuple[Record, int]]:
        before = set(self._mine)
        try:
            rows = super()._commit(puts, removals)
        except BaseException:
            for row in set(self._mine) - before:
                self._mine.pop(row, None)  # nobody's: another process may get the number
            raise
        for entry in puts.values():
            self.beyond(entry)
        return rows

    def _admitted(self, db: sqlite3.Connection, puts: dict[Record, Entry]) -> list[tuple[Record, Entry]]:
        admitted = []
        for record, entry in puts.items():
            fenced = self._fenced.get(id(entry))
            if fenced is not None:
                fenced.kept = lease_rows.land(db, *fenced.fence)
            if fenced is None or fenced.kept:
                admitted.append((record, entry))
        return admitted

    def _adding(self, rows: list[tuple[Record, int]]) -> None:
        self._mine.update({row: record for record, row in rows})

    def _removing(self, db: sqlite3.Connection, rows: list[int]) -> None:
        marks = ",".join("?" * len(rows))
        db.execute(f"INSERT INTO removals (row) SELECT id FROM entries WHERE id IN ({marks})", rows)
        db.execute("DELETE FROM removals WHERE seq <= (SELECT max(seq) FROM removals) - ?", (_LOGGED,))

    def _start_anew(self, reason: str) -> None:
        with suppress(OSError):
            if self._inode and self._path.stat().st_ino != self._inode:
                self._corrupt = False
                self._close_writer()
                self._file += 1
                return
        super()._start_anew(reason)
