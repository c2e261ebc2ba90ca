"""Keeps the rows: SQLite in WAL mode, one writer thread, batches; the event loop only appends to a queue.

Rules of this file: `append` never blocks. Rows wait in a bounded queue while the disk fails and are counted as dropped
beyond it. One log line for each change of health. Killed at any moment, the file is whole and at most `flush_ms` of
rows are lost (synchronous=NORMAL in WAL mode survives the death of the process).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, astuple
from pathlib import Path

import orjson
import structlog

from farthing.proxy.row import COLUMNS, MONEY_COLUMNS, Row

__all__ = ["SCHEMA_VERSION", "Ledger", "create"]

log = structlog.get_logger("farthing.ledger")

SCHEMA_VERSION = 1
_BATCH_ROWS = 2000
_REAL = {"ts", "similarity", "p_wrong", "latency_ms", "ttft_ms", "upstream_ms", "overhead_ms"}
_INTEGER = {"status", "stream", "attempts", "modelled", *MONEY_COLUMNS} | {
    name for name in COLUMNS if name.startswith("tokens_")
}
_INSERT = f"insert or replace into requests values ({','.join('?' * len(COLUMNS))})"


def create(conn: sqlite3.Connection) -> None:
    """The table `requests`, its indexes and the schema's version, where they are missing."""

    def kind(name: str) -> str:
        return "real" if name in _REAL else "integer" if name in _INTEGER else "text"

    columns = ", ".join(f'"{name}" {kind(name)}{" primary key" if name == "id" else ""}' for name in COLUMNS)
    conn.execute(f"create table if not exists requests ({columns})")
    conn.execute("create index if not exists requests_ts on requests (ts)")
    conn.execute("create table if not exists meta (name text primary key, value text)")
    conn.execute("insert or ignore into meta values ('schema', ?)", (str(SCHEMA_VERSION),))


class Ledger:
    """See the module. `on_rows` sees every row exactly once, on the writer's thread, whether or not the disk works."""

    def __init__(
        self,
        path: Path,
        *,
        flush_ms: float = 50.0,
        buffer_rows: int = 10_000,
        jsonl: Path | None = None,
        on_rows: Callable[[list[Row]], None] | None = None,
    ) -> None:
        self.path = path
        self.dropped = 0
        self.healthy = True
        self._limit = buffer_rows
        self._flush_s = flush_ms / 1000
        self._jsonl = jsonl
        self._on_rows = on_rows
        self._fresh: deque[Row] = deque()  # not yet seen by on_rows
        self._waiting: deque[Row] = deque()  # seen, not yet on the disk; touched by the writer only
        self._conn: sqlite3.Connection | None = None
        self._wake = threading.Event()
        self._closing = False
        self._work = threading.Lock()
        path.parent.mkdir(parents=True, exist_ok=True)
        self._conn = self._open_first()
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)
        self._thread.start()

    # -- the event loop's side

    def append(self, row: Row) -> None:
        """Queue a row. Never blocks; beyond the bound the row is dropped and counted."""
        if len(self._fresh) + len(self._waiting) >= self._limit:
            self.dropped += 1
            return
        self._fresh.append(row)

    @property
    def pending(self) -> int:
        """Rows that are not on the disk yet."""
        return len(self._fresh) + len(self._waiting)

    def flush(self) -> bool:
        """Write what is queued, now, in the caller's thread. False where the disk refused."""
        with self._work:
            return self._write()

    def close(self) -> None:
        """Write what is queued and let go; idempotent."""
        if not self._closing:
            self._closing = True
            self._wake.set()
            self._thread.join()
            self.flush()
            if self.pending:
                log.error("ledger closed with rows unwritten", rows=self.pending)
            with self._work:
                if self._conn is not None:
                    self._conn.close()
                    self._conn = None

    def spent_since(self, since_s: float) -> int:
        """Pico-dollars of all rows since that moment."""
        with closing(sqlite3.connect(self.path, timeout=1.0)) as conn:
            total = conn.execute("select sum(cost_usd) from requests where ts >= ?", (since_s,)).fetchone()[0]
        return int(total or 0)

    # -- the writer's side

    def _run(self) -> None:
        while not self._closing:
            self._wake.wait(self._flush_s)
            if self._fresh or self._waiting:
                self.flush()

    def _write(self) -> bool:
        batch: list[Row] = []
        while self._fresh:
            batch.append(self._fresh.popleft())
        if batch:
            self._waiting.extend(batch)
            if self._on_rows is not None:
                try:
                    self._on_rows(batch)
                except Exception:
                    log.exception("metrics failed on a batch of rows")
        while self._waiting:
            part = [self._waiting[index] for index in range(min(_BATCH_ROWS, len(self._waiting)))]
            try:
                self._store(part)
            except (sqlite3.Error, OSError) as error:
                self._ill(error)
                return False
            for _ in part:
                self._waiting.popleft()
            self._well()
        return True

    def _store(self, rows: list[Row]) -> None:
        if self._conn is None:
            self._conn = self._open()
        with self._conn:
            self._conn.executemany(_INSERT, [astuple(row) for row in rows])
        if self._jsonl is not None:
            with self._jsonl.open("ab") as out:
                out.write(b"".join(orjson.dumps(asdict(row)) + b"\n" for row in rows))

    def _ill(self, error: Exception) -> None:
        if self.healthy:
            self.healthy = False
            log.error("ledger can't be written; rows wait", path=str(self.path), error=str(error))

    def _well(self) -> None:
        if not self.healthy:
            self.healthy = True
            log.info("ledger is written again", dropped=self.dropped)

    def _open_first(self) -> sqlite3.Connection | None:
        try:
            return self._open()
        except sqlite3.DatabaseError as error:
            if not _damaged(error):
                self._ill(error)
                return None
            return self._begin_anew(error)
        except OSError as error:
            self._ill(error)
            return None

    def _open(self) -> sqlite3.Connection:
        conn = sqlite3.connect(self.path, timeout=0.5, check_same_thread=False)
        try:
            conn.execute("pragma journal_mode = wal")
            conn.execute("pragma synchronous = normal")
            with conn:
                create(conn)
            found = [row[1] for row in conn.execute("pragma table_info(requests)")]
            if tuple(found) != COLUMNS:
                raise sqlite3.DatabaseError("malformed: the columns are not this version's")
        except BaseException:
            conn.close()
            raise
        return conn

    def _begin_anew(self, error: Exception) -> sqlite3.Connection:
        """The damaged file is kept beside the new one, under the first free name."""
        number = 1
        while (aside := self.path.with_name(f"{self.path.stem}.damaged-{number}{self.path.suffix}")).exists():
            number += 1
        for suffix in ("", "-wal", "-shm"):
            part = self.path.with_name(self.path.name + suffix)
            if part.exists():
                part.rename(aside.with_name(aside.name + suffix))
        log.error("ledger was damaged; a new one begins", kept=str(aside), error=str(error))
        return self._open()


def _damaged(error: sqlite3.DatabaseError) -> bool:
    return any(word in str(error) for word in ("malformed", "not a database", "corrupt"))
