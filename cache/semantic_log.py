"""The semantic cache's file where several processes have it open: an IndexLog over SQLite.

Each change names its entry in the table `changes`, in the transaction that makes it; numbers grow in the order of
commits. The log is short: who falls behind it takes a snapshot.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from farthing.cache.index_log import Changes, Snapshot
from farthing.cache.semantic_disk import FIELDS, Change, Row, SemanticDisk
from farthing.proxy.seal import Seal, SealedElsewhere

__all__ = ["SemanticLog"]

_ALL = ""
_LOGGED = 50_000
_AT_ONCE = 500
_OTHERS_WAIT_S = 5.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS changes
  (seq INTEGER PRIMARY KEY AUTOINCREMENT, entry_key TEXT NOT NULL, writer TEXT NOT NULL);
"""


class SemanticLog(SemanticDisk):
    """`writer`: this process's name, that no other one has."""

    def __init__(self, path: Path, *, embedder: str, dim: int, writer: str, seal: Seal | None = None) -> None:
        super().__init__(path, embedder=embedder, dim=dim, busy_s=_OTHERS_WAIT_S, schema=_SCHEMA, seal=seal)
        self._writer = writer
        self._version = -1

    def snapshot(self) -> Snapshot:
        """IndexLog.snapshot. Opens the file where it isn't yet."""
        if self._db is None:
            self.open()
        offset = self._span()[1]  # before the rows are read: a change that is told twice does no harm
        self._version = -1
        return Snapshot(self.rows(), offset)

    def since(self, offset: int) -> Changes:
        """IndexLog.since."""
        if self._db is None:
            return Changes([], [], offset)
        try:
            version = self._db.execute("PRAGMA data_version").fetchone()[0]
            if version == self._version:  # no other connection has committed
                return Changes([], [], offset)
            self._db.execute("BEGIN")
            try:
                found = self._since(self._db, offset)
            finally:
                self._db.execute("COMMIT")
        except sqlite3.Error as error:
            self._tell(error)
            return Changes([], [], offset)
        self._version = version
        return found

    def _since(self, db: sqlite3.Connection, offset: int) -> Changes:
        first, last = self._span()
        query = "SELECT entry_key FROM changes WHERE seq > ? AND writer <> ? GROUP BY entry_key ORDER BY max(seq)"
        keys = [key for (key,) in db.execute(query, (offset, self._writer))]
        if first > offset + 1 or last < offset or _ALL in keys:
            return Changes([], [], last, lost=True)
        found: dict[str, Row] = {}
        for at in range(0, len(keys), _AT_ONCE):
            some = keys[at : at + _AT_ONCE]
            marks = ",".join("?" * len(some))
            for fields in db.execute(f"SELECT {FIELDS} FROM texts WHERE entry_key IN ({marks})", some):
                try:
                    row = self._believed(*fields)
                except SealedElsewhere as sealed:  # another worker has another key
                    self._missing.tell(sealed)
                    continue
                if row is not None:
                    found[row.entry_key] = row
        return Changes([found[key] for key in keys if key in found], [key for key in keys if key not in found], last)

    def _span(self) -> tuple[int, int]:
        """The first number that is logged, and the last one that was given out."""
        if self._db is None:
            return 0, 0
        first = self._db.execute("SELECT coalesce(min(seq), 0) FROM changes").fetchone()[0]
        last = self._db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'changes'").fetchone()[
            0
        ]
        return first or last + 1, last

    def _noting(self, entry_keys: Iterable[str] | None) -> tuple[Change, ...]:
        keys = [_ALL] if entry_keys is None else list(entry_keys)
        return (
            ("INSERT INTO changes (entry_key, writer) VALUES (?, ?)", [(key, self._writer) for key in keys]),
            ("DELETE FROM changes WHERE seq <= (SELECT max(seq) FROM changes) - ?", [(_LOGGED,)]),
        )
