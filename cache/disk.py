"""The local store's disk side: one SQLite file, one writing thread, one reading thread.

Rules of this file:
1. The event loop only hands over and takes back; it never waits for the disk.
2. What waits to be written is bounded. What waits to be removed is not dropped, and is bounded by what is on disk.
3. A disk that fails is told once, tried again with growing pauses, and told once more when it works.
4. A row's number is never used twice (AUTOINCREMENT), so a removed row can't come to mean another entry.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import structlog

from farthing.cache.codec import decode, encode, peek
from farthing.cache.damage import Damage
from farthing.cache.entry import Entry
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import MissingKeys, Seal, SealedElsewhere

__all__ = ["Connect", "Disk", "Record", "connect"]

log = structlog.get_logger("farthing.store")

Connect = Callable[[Path], sqlite3.Connection]
Tags = tuple[tuple[str, str], ...]

_SCHEMA_VERSION = 3
_SCHEMA = f"""
CREATE TABLE IF NOT EXISTS entries (
  id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, scope TEXT NOT NULL, model_requested TEXT NOT NULL,
  model_served TEXT NOT NULL, size INTEGER NOT NULL, expires_s REAL NOT NULL, stored_s REAL NOT NULL,
  tags TEXT NOT NULL, namespace TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS bodies (id INTEGER PRIMARY KEY, bytes BLOB NOT NULL);
PRAGMA user_version = {_SCHEMA_VERSION};
"""
_INSERT = """
INSERT INTO entries (id, key, scope, model_requested, model_served, size, expires_s, stored_s, tags, namespace)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
# A file of version 1 knows when its answers were stored, and their tags, only in the answers' own headers.
_FROM_1 = """
ALTER TABLE entries ADD COLUMN stored_s REAL NOT NULL DEFAULT 0;
ALTER TABLE entries ADD COLUMN tags TEXT NOT NULL DEFAULT '[]';
"""
# Nothing tells the namespace of an answer that version 2 stored.
_FROM_2 = "ALTER TABLE entries ADD COLUMN namespace TEXT NOT NULL DEFAULT ''"
# How long a writer waits for another process's lock before it calls the disk locked.
_BUSY_S = 0.25
_PAUSE_FIRST_S = 0.05
_PAUSE_MOST_S = 5.0
_ROWS_PER_DELETE = 500
# Most headers are shorter; the others are read with all that follows.
_HEADER_BYTES = 1_024


class Record:
    """What is known of an entry without its body. Its identity, not its key, is what is written and removed.

    `size`: bytes that count against the bounds. `row`: its number on disk, 0 before it is there; owned by the
    writing thread once offered. `entry`: set while the entry is held in memory. `bucket`, `place`: where `Expiries`
    filed it; place -1: nowhere.
    """

    __slots__ = (
        "bucket", "entry", "expires_s", "key", "model_requested", "model_served", "namespace", "place", "row", "scope",
        "size", "stored_s", "tags",
    )  # fmt: skip

    def __init__(
        self,
        key: str,
        scope: str,
        model_requested: str,
        model_served: str,
        size: int,
        expires_s: float,
        stored_s: float,
        tags: Tags = (),
        namespace: str = "",
        row: int = 0,
    ) -> None:
        self.key = key
        self.scope = scope
        self.model_requested = model_requested
        self.model_served = model_served
        self.size = size
        self.expires_s = expires_s
        self.stored_s = stored_s
        self.tags = tags
        self.namespace = namespace
        self.row = row
        self.entry: Entry | None = None
        self.bucket, self.place = 0, -1


def connect(path: Path, busy_s: float = _BUSY_S) -> sqlite3.Connection:
    """The file, opened for one thread at a time: WAL, synchronous NORMAL (a crash of the process loses nothing that
    was committed; a power cut may lose the last commits but never consistency: SQLite, "Write-Ahead Logging")."""
    db = sqlite3.connect(path, timeout=busy_s, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = NORMAL")
    except BaseException:
        db.close()
        raise
    return db


class _ForeignSchema(sqlite3.DatabaseError):
    """A database, but of another version of ours."""


def _is_corrupt(error: Exception) -> bool:
    if isinstance(error, _ForeignSchema):
        return True
    return getattr(error, "sqlite_errorname", "").startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))


def _from_version_1(db: sqlite3.Connection) -> None:
    """Give the entries their time and tags, in one transaction; those whose answer can't be read keep time 0."""
    db.execute("BEGIN IMMEDIATE")
    with db:
        for statement in _FROM_1.strip().splitlines():
            db.execute(statement)
        found = []
        for row, start in db.execute("SELECT id, substr(bytes, 1, ?) FROM bodies", (_HEADER_BYTES,)):
            labels = peek(start) or peek(db.execute("SELECT bytes FROM bodies WHERE id = ?", (row,)).fetchone()[0])
            if labels is not None:
                found.append((labels.stored_s, json.dumps(labels.tags), row))
        db.executemany("UPDATE entries SET stored_s = ?, tags = ? WHERE id = ?", found)
        db.execute("PRAGMA user_version = 2")


def _from_version_2(db: sqlite3.Connection) -> None:
    """Give the entries a namespace, in one transaction."""
    db.execute("BEGIN IMMEDIATE")
    with db:
        db.execute(_FROM_2)
        db.execute("PRAGMA user_version = 3")


def _tags(text: str) -> Tags:
    """What `_commit` wrote; a damaged one is none."""
    try:
        return tuple((str(name), str(value)) for name, value in json.loads(text))
    except (ValueError, TypeError):
        return ()


class Disk:
    """Rows of encoded entries behind a bounded queue. `seal`: what their bodies are sealed with, if they are."""

    _others: ClassVar[bool] = False  # whether other processes remove rows too

    def __init__(
        self,
        path: Path,
        *,
        flush_ms: float,
        pending_bytes: int,
        connect: Connect = connect,
        seal: Seal | None = None,
    ) -> None:
        self._path = path
        self._seal = seal
        self._flush_s = flush_ms / 1000
        self._pending_limit = pending_bytes
        self._connect = connect
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._hurry = threading.Event()
        # Under the lock: what the loop has offered, and what the writing thread has taken.
        self._puts: dict[Record, Entry] = {}
        self._removals: dict[Record, None] = {}
        self._pending_bytes = 0
        self._waiters: list[Future[None]] = []
        self._writing: dict[Record, Entry] = {}
        self._db: sqlite3.Connection | None = None
        self._reading: sqlite3.Connection | None = None
        # Counts the files begun anew, so that the reading thread lets go of one that was moved aside.
        self._file = 0
        self._reading_file = 0
        self._last_row = 0
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="farthing-store-read")
        self._thread = threading.Thread(target=self._run, name="farthing-store-write", daemon=True)
        self._ending = False
        self._ended = False
        self._corrupt = False
        self._failing: set[str] = set()
        self._missing_keys = MissingKeys()
        self._damage = Damage()

    @property
    def healthy(self) -> bool:
        """Whether the last write or read of the disk worked."""
        return not self._failing

    def start(self) -> list[Record]:
        """Open the file, begin to write, and give back every row in the order written. Blocks: call it in a thread.

        A file that is no database of ours is moved aside and told in one log line. A disk that doesn't answer is
        told too; then nothing is known of it, and writing is tried again later.
        """
        try:
            records = self._load()
        except (sqlite3.Error, OSError) as error:
            records = []
            if _is_corrupt(error):
                self._start_anew(repr(error))
            else:
                self._tell("write", error)
        self._thread.start()
        return records

    def offer(self, record: Record, entry: Entry) -> bool:
        """Queue an entry for writing; False where too much is waiting already, and then it is not written."""
        with self._lock:
            if self._pending_bytes + record.size > self._pending_limit:
                return False
            self._puts[record] = entry
            self._pending_bytes += record.size
        if not self._wake.is_set():
            self._wake.set()
        return True

    def forget(self, record: Record) -> None:
        """Take an entry out of the queue, or off the disk."""
        with self._lock:
            if self._puts.pop(record, None) is not None:
                self._pending_bytes -= record.size
                return
            if not record.row and record not in self._writing:
                return
            self._removals[record] = None
        self._wake.set()

    async def read(self, record: Record) -> Entry | None:
        """The record's entry; None where its row is gone or fails its checksum. Raises StoreFault."""
        with self._lock:
            entry = self._puts.get(record) or self._writing.get(record)
        if entry is not None:
            return entry
        return await asyncio.get_running_loop().run_in_executor(self._reader, self._read, record)

    async def flush(self) -> None:
        """Wait until all that was handed over before is on disk. Raises StoreFault where the disk fails now."""
        done: Future[None] = Future()
        with self._lock:
            if self._ended:
                raise StoreFault("the store is closed")
            self._waiters.append(done)
        self._hurry.set()
        self._wake.set()
        await asyncio.wrap_future(done)

    def stop(self) -> None:
        """Write what is waiting, one last try, and close. Blocks: call it in a thread."""
        self._ending = True
        self._hurry.set()
        self._wake.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._reader.shutdown()
        self._close()

    # The writing thread.

    def _run(self) -> None:
        pause_s = _PAUSE_FIRST_S
        while True:
            self._wake.wait()
            if not self._ending:
                self._hurry.wait(self._flush_s)
            self._hurry.clear()
            self._wake.clear()
            last = self._ending
            if self._corrupt:
                self._start_anew("a page could not be read")
            worked = self._write_batch()
            if last:
                break
            if worked:
                pause_s = _PAUSE_FIRST_S
                continue
            self._hurry.wait(pause_s)
            pause_s = min(pause_s * 2, _PAUSE_MOST_S)
            self._wake.set()
        with self._lock:
            self._ended = True
            left, self._waiters = self._waiters, []
        for waiter in left:
            if waiter.set_running_or_notify_cancel():
                waiter.set_exception(StoreFault("the store is closed"))

    def _write_batch(self) -> bool:
        """Write all that is waiting in one transaction; on failure put it back."""
        with self._lock:
            puts, removals = self._puts, self._removals
            waiters = [waiter for waiter in self._waiters if waiter.set_running_or_notify_cancel()]
            self._writing, self._puts, self._removals, self._waiters = puts, {}, {}, []
        fault: Exception | None = None
        rows: list[tuple[Record, int]] = []
        try:
            if puts or removals or self._failing:
                rows = self._commit(puts, removals)
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live, and the rows wait
            fault = error
            self._corrupt = _is_corrupt(error)
            self._close_writer()
        with self._lock:
            if fault is None:
                for record, row in rows:
                    record.row = self._last_row = row
                self._pending_bytes -= sum(record.size for record in puts)
            else:
                self._take_back(puts, removals)
            self._writing = {}
        self._tell("write", fault)
        for waiter in waiters:
            if fault is None:
                waiter.set_result(None)
            else:
                waiter.set_exception(StoreFault(f"the store's disk failed: {fault}"))
        return fault is None

    def _take_back(self, puts: dict[Record, Entry], removals: dict[Record, None]) -> None:
        """A failed batch waits again, but for what was forgotten meanwhile. Under the lock."""
        for record in list(puts):
            if record in self._removals:
                del self._removals[record], puts[record]
                self._pending_bytes -= record.size
        self._puts = puts | self._puts
        self._removals = removals | self._removals

    def _commit(self, puts: dict[Record, Entry], removals: dict[Record, None]) -> list[tuple[Record, int]]:
        if self._db is None:
            self._db = self._opened()
        db = self._db
        rows = []
        db.execute("BEGIN IMMEDIATE")
        with db:
            gone = [record.row for record in removals if record.row]
            for at in range(0, len(gone), _ROWS_PER_DELETE):
                part = gone[at : at + _ROWS_PER_DELETE]
                self._removing(db, part)
                marks = ",".join("?" * len(part))
                db.execute(f"DELETE FROM entries WHERE id IN ({marks})", part)
                db.execute(f"DELETE FROM bodies WHERE id IN ({marks})", part)
            row = db.execute("SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'entries'").fetchone()[0]
            entries, bodies = [], []
            for record, entry in self._admitted(db, puts):
                labels = (record.key, record.scope, record.model_requested, record.model_served)
                try:
                    raw = encode(entry, self._seal)
                    "".join((*labels, entry.namespace)).encode()
                    tags = json.dumps(entry.tags)
                except ValueError:  # lone surrogates, or no finite time: such an entry lives in memory only
                    continue
                row += 1
                entries.append((row, *labels, record.size, record.expires_s, record.stored_s, tags, record.namespace))
                bodies.append((row, raw))
                rows.append((record, row))
            self._adding(rows)
            db.executemany(_INSERT, entries)
            db.executemany("INSERT INTO bodies VALUES (?, ?)", bodies)
        return rows

    def _admitted(self, db: sqlite3.Connection, puts: dict[Record, Entry]) -> list[tuple[Record, Entry]]:
        """Those that may be written, in this transaction."""
        return list(puts.items())

    def _removing(self, db: sqlite3.Connection, rows: list[int]) -> None:
        """These rows are about to be removed, in this transaction."""

    def _adding(self, rows: list[tuple[Record, int]]) -> None:
        """These are about to be added, in this transaction."""

    # Either thread, at its own connection.

    def _opened(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        db = self._connect(self._path)
        try:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version not in range(_SCHEMA_VERSION + 1):
                raise _ForeignSchema(f"schema version {version}")
            if version == 1:
                _from_version_1(db)
            if version in (1, 2):
                _from_version_2(db)
            db.executescript(_SCHEMA)
            if self._file:  # records of the file that was moved aside still carry its numbers
                db.execute(
                    "INSERT INTO sqlite_sequence SELECT 'entries', ? WHERE NOT EXISTS (SELECT 1 FROM sqlite_sequence)",
                    (self._last_row,),
                )
        except BaseException:
            db.close()
            raise
        return db

    def _load(self) -> list[Record]:
        self._db = self._opened()
        rows = self._db.execute(
            "SELECT key, scope, model_requested, model_served, size, expires_s, stored_s, tags, namespace, id "
            "FROM entries ORDER BY id"
        )
        read = lru_cache(1024)(_tags)  # most entries share their tags with others
        records = [
            Record(key, scope, asked, served, size, expires_s, stored_s, read(tags), namespace, row)
            for key, scope, asked, served, size, expires_s, stored_s, tags, namespace, row in rows
        ]
        self._last_row = records[-1].row if records else 0
        return records

    def _read(self, record: Record) -> Entry | None:
        try:
            if self._reading is not None and self._reading_file != self._file:
                self._reading.close()
                self._reading = None
            if self._reading is None:
                self._reading_file = self._file
                self._reading = self._connect(self._path)
            row = self._reading.execute("SELECT bytes FROM bodies WHERE id = ?", (record.row,)).fetchone()
        except sqlite3.Error as error:
            if self._reading is not None:
                self._reading.close()
                self._reading = None
            if _is_corrupt(error):
                self._corrupt = True
                self._wake.set()
                return None
            self._tell("read", error)
            raise StoreFault(f"the store's disk failed: {error}") from error
        self._tell("read", None)
        try:
            entry = decode(row[0], self._seal) if row else None
        except SealedElsewhere as sealed:
            self._missing_keys.tell(sealed)
            return None
        if entry is not None and entry.key == record.key:
            return entry
        if record.row and (row is not None or not self._others):
            self._damage.met(record.key)
        return None

    def _start_anew(self, reason: str) -> None:
        """Move a file that can't be read aside, so that it can be looked at, and go on without it."""
        self._corrupt = False
        self._close_writer()
        aside = self._path.with_name(f"{self._path.name}.corrupt")
        try:
            self._path.replace(aside)
        except OSError as error:
            self._tell("write", error)
            return
        self._file += 1
        for suffix in ("-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        log.error("the store's file can't be read: moved aside, starting anew", moved_to=str(aside), reason=reason)

    def _tell(self, what: str, error: Exception | None) -> None:
        """One log line for each change of `what` (read or write) between working and failing."""
        if (what in self._failing) is (error is not None):
            return
        if error is None:
            self._failing.discard(what)
            log.warning(f"the store's disk can {what} again", path=str(self._path))
        else:
            self._failing.add(what)
            log.error(f"the store's disk can't {what}: going on from memory", path=str(self._path), error=repr(error))

    def _close_writer(self) -> None:
        if self._db is not None:
            with contextlib.suppress(sqlite3.Error):
                self._db.close()
            self._db = None

    def _close(self) -> None:
        self._close_writer()
        if self._reading is not None:
            self._reading.close()
            self._reading = None
