"""The SQLite file of decisions: what each of its two threads does there. Synchronous; errors of SQLite are raised.

Rules of this file:
1. It holds texts of prompts: nobody else on this machine may read it. A row is believed only
   with its checksum. Under a seal it is closed, and what is used on is closed anew under the current key.
2. It is bounded in bytes; what was longest not used leaves first.
3. A file that is damaged, or not ours, is moved aside, told in one log line, and begun anew.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

import structlog

from farthing.compress.decided import decode, resealed
from farthing.proxy.seal import Seal, SealedElsewhere

__all__ = ["DecidedFile", "Row"]

log = structlog.get_logger("farthing.compress")

Row = tuple[bytes, float, bytes]
"""Key, when it ends in seconds since the epoch, the decision as bytes."""

_VERSION = 1
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS decided (key BLOB PRIMARY KEY, expires_s REAL NOT NULL, value BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS decided_expiry ON decided (expires_s);
PRAGMA user_version = {_VERSION};
"""
# The first decision wins, unless its time is over.
_INSERT = """
INSERT INTO decided (key, expires_s, value) VALUES (?, ?, ?)
ON CONFLICT (key) DO UPDATE SET expires_s = excluded.expires_s, value = excluded.value WHERE decided.expires_s <= ?
"""
_BUSY_S = 0.25
_PER_QUERY = 500
_EVICT_AT_ONCE = 64


class DecidedFile:
    """The file at `path`, of at most about `max_bytes`. One thread calls `read`, one all else. `seal`: what rows are
    closed with."""

    def __init__(self, path: Path, max_bytes: int, seal: Seal | None = None) -> None:
        self._path = path
        self._seal = seal
        self._max_bytes = max_bytes
        self._writing: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        # Counts the files begun anew, so that the reading thread lets go of one that was moved aside.
        self._file = 0
        self._reading_file = 0

    def open(self) -> None:
        """Open for writing."""
        self._writer()

    def read(self, keys: Sequence[bytes], now_s: float) -> list[Row]:
        """The rows under these keys that have not ended."""
        try:
            if self._reading_file != self._file:
                self._close_reading()
            if self._reading is None:
                self._reading_file = self._file
                self._reading = self._opened("rw")
            rows: list[Row] = []
            for at in range(0, len(keys), _PER_QUERY):
                part = keys[at : at + _PER_QUERY]
                marks = ",".join("?" * len(part))
                rows += self._reading.execute(
                    f"SELECT key, expires_s, CAST(value AS BLOB) FROM decided WHERE key IN ({marks}) AND expires_s > ?",
                    (*part, now_s),
                )
        except sqlite3.Error:
            self._close_reading()
            raise
        return rows

    def write(self, rows: Sequence[Row], touched: Mapping[bytes, float], now_s: float) -> dict[bytes, bytes]:
        """Add rows, move ends, and make room, in one transaction; what was there already under a row's key."""
        db = self._writer()
        before: dict[bytes, bytes] = {}
        try:
            db.execute("BEGIN IMMEDIATE")
            with db:
                db.executemany(
                    "UPDATE decided SET expires_s = max(expires_s, ?) WHERE key = ?",
                    [(expires_s, key) for key, expires_s in touched.items()],
                )
                if self._seal is not None:
                    self._reseal(db, list(touched))
                for row in rows:
                    if not db.execute(_INSERT, (*row, now_s)).rowcount:
                        found = db.execute(
                            "SELECT CAST(value AS BLOB) FROM decided WHERE key = ?", (row[0],)
                        ).fetchone()[0]
                        if not self._is_readable(row[0], found):  # damaged, or closed for good: ours takes its place
                            db.execute("REPLACE INTO decided (key, expires_s, value) VALUES (?, ?, ?)", row)
                        elif found != row[2]:
                            before[row[0]] = found
                db.execute("DELETE FROM decided WHERE expires_s <= ?", (now_s,))
                while (
                    self._used(db) > self._max_bytes
                    and db.execute(
                        "DELETE FROM decided WHERE key IN (SELECT key FROM decided ORDER BY expires_s LIMIT ?)",
                        (_EVICT_AT_ONCE,),
                    ).rowcount
                ):
                    pass
        except sqlite3.Error as error:
            self._close_writing()
            if _is_corrupt(error):
                self._move_aside(error)
            raise
        return before

    def _reseal(self, db: sqlite3.Connection, keys: Sequence[bytes]) -> None:
        for key in keys:
            row = db.execute("SELECT CAST(value AS BLOB) FROM decided WHERE key = ?", (key,)).fetchone()
            anew = None if row is None else resealed(key, row[0], self._seal)
            if anew is not None:
                db.execute("UPDATE decided SET value = ? WHERE key = ?", (anew, key))

    def _is_readable(self, key: bytes, value: bytes) -> bool:
        try:
            return decode(key, value, self._seal) is not None
        except SealedElsewhere:
            return False

    def forget(self, tag: bytes) -> None:
        """Delete all rows whose keys begin with `tag`."""
        with self._writer() as db:
            db.execute("DELETE FROM decided WHERE substr(key, 1, ?) = ?", (len(tag), tag))

    def close(self) -> None:
        """Let the file go; idempotent."""
        self._close_reading()
        self._close_writing()

    def _writer(self) -> sqlite3.Connection:
        if self._writing is None:
            try:
                self._writing = self._connect()
            except (sqlite3.Error, OSError) as error:
                if not _is_corrupt(error):
                    raise
                self._move_aside(error)
                self._writing = self._connect()
        return self._writing

    def _connect(self) -> sqlite3.Connection:
        """For writing: with the file, its rights and its schema."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        db = self._opened("rwc")
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in (0, _VERSION):
                raise _ForeignSchema(f"schema version {version}")
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA secure_delete = ON")  # what is removed or closed anew stands nowhere any more
            db.executescript(_SCHEMA)
        except BaseException:
            db.close()
            raise
        return db

    def _opened(self, mode: str) -> sqlite3.Connection:
        where = f"{self._path.resolve().as_uri()}?mode={mode}"
        return sqlite3.connect(where, uri=True, timeout=_BUSY_S, isolation_level=None, check_same_thread=False)

    @staticmethod
    def _used(db: sqlite3.Connection) -> int:
        """Bytes of the pages in use: a file doesn't shrink when rows leave it, but it doesn't grow either."""
        pages, free, size = (
            db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
        )
        return int((pages - free) * size)

    def _move_aside(self, error: Exception) -> None:
        aside = self._path.with_name(f"{self._path.name}.corrupt")
        self._path.replace(aside)
        self._file += 1
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        log.error("the file of decisions can't be read: moved aside, starting anew", reason=repr(error))

    def _close_reading(self) -> None:
        db, self._reading = self._reading, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()

    def _close_writing(self) -> None:
        db, self._writing = self._writing, None
        if db is not None:
            with contextlib.suppress(sqlite3.Error):
                db.close()


class _ForeignSchema(sqlite3.DatabaseError):
    """A database, but of another version of ours."""


def _is_corrupt(error: Exception) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return isinstance(error, _ForeignSchema) or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR"))
