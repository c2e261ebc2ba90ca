"""The ledger's files: a SQLite table with exactly the row's columns beside its roll-ups, and JSON lines. No threads, no
log.

Rules of this file: a file that isn't a sound ledger is never deleted, only renamed; a ledger of an older schema is
brought up to date where it is.
"""

from __future__ import annotations

import os
import sqlite3
from contextlib import suppress
from pathlib import Path
from typing import Any, get_args, get_type_hints

import orjson

from farthing.proxy import rollup_tables
from farthing.proxy.row import COLUMNS, Row
from farthing.proxy.sql_rows import Rows

__all__ = [
    "INSERT",
    "INSERTS",
    "LOCK_WAIT_S",
    "POISON",
    "SCHEMA_VERSION",
    "Lines",
    "OtherSchema",
    "connect",
    "connect_beside",
    "is_busy",
    "is_corrupt",
    "move_aside",
    "washed",
]

SCHEMA_VERSION = 3
# 1 had no roll-ups; 2, never released, had none by the minute.

INSERTS = Rows("insert into requests", len(COLUMNS))
INSERT = INSERTS.one
# What SQLite raises for a row that it can't hold, rather than for a disk that it can't write.
POISON = (
    sqlite3.IntegrityError,
    sqlite3.ProgrammingError,
    sqlite3.InterfaceError,
    ValueError,
    TypeError,
    OverflowError,
)

_KINDS = {int: "integer", float: "real", str: "text"}
LOCK_WAIT_S = 0.05
_MOST_PAGES = 32_000
"""What the log may hold before a commit empties it, which takes as long as the disk does. The upkeep does that long
before, and nobody waits for it (ledger_log.py). 128 MB."""
_CHECKED_BYTES = 64 * 2**20  # a ledger up to here is checked whole when it is opened


class OtherSchema(sqlite3.DatabaseError):
    """A sound database that isn't this version's ledger."""


def connect(path: Path, *, whole: bool, wait_s: float = LOCK_WAIT_S) -> tuple[sqlite3.Connection, bool]:
    """A connection to a sound ledger, made where there is none; `whole`: check all of it, however large. `wait_s`: for
    another process's lock.

    Second: whether roll-ups that had been made are gone, and are made anew from the rows. Raises sqlite3.Error.
    """
    size_bytes = path.stat().st_size if path.exists() else 0
    conn = sqlite3.connect(path, timeout=wait_s, isolation_level=None, check_same_thread=False)
    try:
        if not size_bytes:
            conn.execute("pragma auto_vacuum=incremental")  # so that removed rows give their space back
        conn.execute("pragma journal_mode=wal")
        conn.execute("pragma synchronous=normal")
        conn.execute(f"pragma wal_autocheckpoint={_MOST_PAGES}")
        if whole or size_bytes <= _CHECKED_BYTES:
            verdict = conn.execute("pragma quick_check(1)").fetchone()[0]
            if verdict != "ok":
                error = sqlite3.DatabaseError(verdict)
                error.sqlite_errorcode = sqlite3.SQLITE_CORRUPT
                raise error
        conn.execute("begin immediate")
        found = tuple(column[1] for column in conn.execute("pragma table_info(requests)"))
        if not found:
            _create(conn)
        elif found != COLUMNS:
            raise OtherSchema(f"its table has {len(found)} columns that aren't the {len(COLUMNS)} of this version")
        lost = _with_rollups(conn)
        conn.execute("commit")
        if 0 < size_bytes <= _CHECKED_BYTES and conn.execute("pragma auto_vacuum").fetchone()[0] == 0:
            # A file of schema 1. Where others read it now, or it is large, it stays: its unused pages are used again.
            with suppress(sqlite3.Error):
                conn.execute("pragma auto_vacuum=incremental")
                conn.execute("vacuum")
    except BaseException:
        conn.close()
        raise
    return conn, lost


def connect_beside(path: Path, wait_s: float) -> sqlite3.Connection:
    """Another connection to a ledger that is open: nothing is checked or made. Raises sqlite3.Error."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    conn = sqlite3.connect(uri, uri=True, timeout=wait_s, isolation_level=None, check_same_thread=False)
    conn.execute("pragma synchronous=normal")
    conn.execute("pragma wal_autocheckpoint=0")
    return conn


def _create(conn: sqlite3.Connection) -> None:
    """The table with exactly the row's columns, what finds rows by time and id, and the schema's version."""
    columns = []
    for name, hint in get_type_hints(Row).items():
        kind, *optional = get_args(hint) or (hint,)
        columns.append(f'"{name}" {_KINDS[kind]}' + ("" if optional else " not null"))
    conn.execute(f"create table requests ({', '.join(columns)})")
    conn.execute("create index requests_ts on requests (ts)")
    conn.execute("create index requests_id on requests (id)")


def _with_rollups(conn: sqlite3.Connection) -> bool:
    """See that the roll-ups' tables are there; whether they had been, and aren't."""
    names = {name for (name,) in conn.execute("select name from sqlite_master where type = 'table'")}
    conn.execute("create table if not exists meta (key text primary key, value text not null)")
    told = conn.execute("select value from meta where key = 'schema'").fetchone()
    schema = int(told[0]) if told else 1
    if schema > SCHEMA_VERSION:
        raise OtherSchema(f"its schema is {schema}, this version knows {SCHEMA_VERSION}")
    lost = False
    if schema < SCHEMA_VERSION or not {*rollup_tables.TABLES} <= names:
        lost = conn.execute("select 1 from meta where key = 'rolled' and value > '0'").fetchone() is not None
        for table in rollup_tables.TABLES:
            conn.execute(f"drop table if exists {table}")
        rollup_tables.create(conn)
        for mark, value in (("rolled", 0), ("rolled_id", ""), ("swept_s", 0), ("schema", SCHEMA_VERSION)):
            rollup_tables.set_mark(conn, mark, value)
    return lost


def is_corrupt(error: Exception) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    return isinstance(error, OtherSchema) or code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


def is_busy(error: Exception) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)


def move_aside(path: Path, word: str) -> Path:
    """Rename the file and its log: nothing is deleted. The new name."""
    aside = path.with_name(f"{path.stem}.{word}{path.suffix}")
    path.rename(aside)
    for suffix in ("-wal", "-shm"):
        with suppress(FileNotFoundError):
            Path(f"{path}{suffix}").rename(f"{aside}{suffix}")
    return aside


def washed(row: Row) -> list[Any]:
    """The row's values as SQLite and JSON can hold them: no lone surrogates, no integer beyond 64 bits.

    A count or an amount that is too large becomes unknown rather than wrong.
    """
    washed: list[Any] = []
    for value in row:
        if isinstance(value, str):
            value = value.encode("utf-8", "replace").decode()
        elif isinstance(value, int) and not -(2**63) <= value < 2**63:
            value = None
        washed.append(value)
    return washed


class Lines:
    """The same rows as JSON lines, appended to a file. A line torn by a kill is closed before the next one."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.works = True
        self.dropped = 0

    def write(self, rows: list[Row]) -> str:
        """Append the rows; the fault, or ''. The file is opened anew each time, so that it may be rotated away."""
        lines = b"".join(map(_line, rows))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("ab+", buffering=0) as out:
                if out.seek(0, os.SEEK_END):
                    out.seek(-1, os.SEEK_END)
                    if out.read(1) != b"\n":
                        lines = b"\n" + lines
                written = out.write(lines)
            self.works = written == len(lines)
            fault = "" if self.works else "the disk is full"
        except OSError as error:
            self.works, fault = False, str(error)
        if fault:
            self.dropped += len(rows)
        return fault


def _line(row: Row) -> bytes:
    try:
        return orjson.dumps(row._asdict(), option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # orjson's word for what it can't encode
        return orjson.dumps(dict(zip(COLUMNS, washed(row), strict=True)), option=orjson.OPT_APPEND_NEWLINE)
