"""Where rows go: SQLite, through one writer thread, so that no request ever waits for a disk.

Rules of this file: `append` only puts a row into a bounded buffer; the thread writes what has gathered in one
transaction every `flush_ms`, before anybody is told of it, and leaves the upkeep to a thread of its own
(ledger_keeper.py). A disk that fails or is locked keeps the rows in the buffer and is tried again; what no longer fits
is counted as dropped. Trouble and its end are each logged once.

WAL with synchronous=NORMAL: a killed process loses what wasn't flushed yet and never tears a row; a power cut may lose
the last transactions too, but not the database. Source: sqlite.org/wal.html, sqlite.org/pragma.html#pragma_synchronous.
"""

from __future__ import annotations

import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path

import structlog

from farthing.proxy.clock import Clock, SystemClock
from farthing.proxy.ledger_aside import aside
from farthing.proxy.ledger_file import (
    INSERT,
    INSERTS,
    LOCK_WAIT_S,
    POISON,
    Lines,
    OtherSchema,
    connect,
    is_busy,
    is_corrupt,
    move_aside,
    washed,
)
from farthing.proxy.ledger_keeper import Keeper
from farthing.proxy.ledger_upkeep import Upkeep
from farthing.proxy.row import Row
from farthing.proxy.sql_transaction import transaction

__all__ = ["Ledger"]

_RETRY_S = 0.25  # between attempts on a disk that failed
_LAST_TRY_S, _LAST_TRIES = 1.0, 20  # how long, and how often, `close` goes on trying
_BATCH_ROWS = 5_000
_LOOK_S = 5.0  # between looks at what lies beside the ledger
_OVERRUN_S = 10.0  # without a row refused, until the rows are said to be kept up with again


class Ledger:
    """Keeps rows. `append` belongs to the event loop, everything else to any thread.

    `flush_ms`: the longest that a row waits, but for the disk and for a transaction of the upkeep. `buffer_rows`: the
    most that wait for the disk, and the most that may come between two flushes; beyond it rows are dropped (the oldest,
    or the new one) and counted. `jsonl`: a file to which each row is appended as well; what it doesn't take is not
    tried again. `keep_days`: how long rows are kept, beside roll-ups that stay (ledger_upkeep.py); 0: for ever.
    `on_rows`: called from the writer's thread with each batch, once for every row that got into the buffer, whether or
    not the disk works. Several processes may write one ledger: each waits up to `lock_wait_s` for the others, and
    `upkeep` (rolling up, removing) is one's alone.

    Opening never fails: a damaged file is moved aside (`NAME.corrupt-MILLISECONDS.db`), one of another schema likewise
    (`NAME.other-...`), and where nothing can be opened the ledger is unhealthy and tries again.
    Effects: a thread, files beside `path`.
    """

    def __init__(
        self,
        path: Path,
        *,
        flush_ms: float = 50.0,
        buffer_rows: int = 10_000,
        jsonl: Path | None = None,
        keep_days: int = 0,
        on_rows: Callable[[list[Row]], None] | None = None,
        lock_wait_s: float = LOCK_WAIT_S,
        upkeep: bool = True,
        clock: Clock | None = None,
    ) -> None:
        self.path = path
        self._flush_s = flush_ms / 1000
        self._most = buffer_rows
        self._lines = Lines(jsonl) if jsonl is not None else None
        self._on_rows = on_rows
        self._clock = clock or SystemClock()
        self._lock_wait_s = lock_wait_s
        self._pen = threading.Lock()  # whoever in this process writes to the file has it
        self._upkeep = Upkeep(keep_days, self._clock, self._pen)
        self._keeps_up = upkeep
        self._keeper = Keeper(path, self._upkeep, lambda: len(self._fresh), lock_wait_s)
        self._log = structlog.get_logger("farthing.ledger")
        self._conn: sqlite3.Connection | None = None
        self.aside: tuple[str, ...] = ()
        """Names of damaged ledgers beside this one that nobody has salvaged (ledger_aside.py)."""
        self._look_at_s = 0.0
        self._works = True
        self._suspect = False
        self._fresh: deque[Row] = deque()  # appended, not yet seen by the thread
        self._kept: deque[Row] = deque()  # the thread's own: told to on_rows, waiting for the disk
        self._refused = self._lost = 0  # two counters, since two threads count
        self._seen = 0  # of the refused
        self._overrun_s: float | None = None  # when the last of them was seen; None: they are kept up with
        self._wake = threading.Event()
        self._round = threading.Condition()
        self._asked = self._done = 0
        self._closing = False
        try:
            self._open()
        except (sqlite3.Error, OSError) as error:
            self._fail(error)
        self._look()
        self._thread = threading.Thread(target=self._write_on, name="ledger", daemon=True)
        self._thread.start()

    @property
    def healthy(self) -> bool:
        """Whether the last thing written got where it should, and nothing was refused lately."""
        return self._works and self._overrun_s is None and (self._lines is None or self._lines.works)

    @property
    def dropped(self) -> int:
        """Rows that are lost to the table."""
        return self._refused + self._lost

    @property
    def pending(self) -> int:
        """Rows that wait to be written."""
        return len(self._fresh) + len(self._kept)

    def append(self, row: Row) -> None:
        """Take a row. Never waits, never raises. After `close` it is dropped."""
        if self._closing or len(self._fresh) >= self._most:
            self._refused += 1
            return
        self._fresh.append(row)

    def flush(self, timeout_s: float = 5.0) -> bool:
        """Wait until every row appended so far has been tried; whether none is left waiting. Blocks."""
        with self._round:
            self._asked += 1
            mine = self._asked
            self._wake.set()
            self._round.wait_for(lambda: self._done >= mine or not self._thread.is_alive(), timeout_s)
            return self._done >= mine and not self._kept

    def close(self) -> None:
        """Write what waits and let go; blocks for some two seconds at most where the disk fails. Idempotent."""
        self._closing = True
        self._keeper.end()
        self._wake.set()
        self._thread.join()
        self._keeper.close()

    def spent_since(self, at_s: float, *, overhead_of: str = "") -> int:
        """Pico-dollars of `cost_usd` on disk from that moment on (seconds since the epoch); 0 where it can't be read.

        `overhead_of`: an endpoint of farthing's own; then its overhead instead.

        For a budget that outlives a restart. Reads on a connection of its own; never makes a file.
        """
        query = "select coalesce(sum(cost_usd), 0) from requests where ts >= ?"
        given: tuple[float | str, ...] = (at_s,)
        if overhead_of:
            query = "select coalesce(sum(overhead_usd), 0) from requests where ts >= ? and endpoint = ?"
            given = (at_s, overhead_of)
        try:
            with closing(sqlite3.connect(f"{self.path.absolute().as_uri()}?mode=ro", uri=True)) as conn:
                return int(conn.execute(query, given).fetchone()[0])
        except sqlite3.Error as error:
            self._log.warning("ledger_unreadable", path=str(self.path), error=str(error))
            return 0

    # -- the writer's thread

    def _write_on(self) -> None:
        rest = tries = 0  # rounds to let a failing disk rest; tries since the end was asked for
        while True:
            ending = self._closing
            self._wake.wait(self._flush_s if not ending else 0 if self._works else _LAST_TRY_S / _LAST_TRIES)
            self._wake.clear()
            asked = self._asked
            if not ending:  # what comes after that is refused too, and no overrun
                self._tell_overrun()
            taken = self._take()
            rest -= 1
            if self._works or ending or asked > self._done or rest <= 0:
                self._try()
                rest = round(_RETRY_S / self._flush_s)
            self._tell(taken)
            with self._round:
                self._done = asked
                self._round.notify_all()
            if (fault := self._keeper.fault()) is not None:
                self._fail(fault)
            if self._clock.tick_s() >= self._look_at_s:
                self._look()
            tries += ending
            if ending and not self._fresh and (not self._kept or tries > _LAST_TRIES):
                break
        self._lost += len(self._kept)
        self._kept.clear()
        self._let_go()

    def _look(self) -> None:
        self._look_at_s = self._clock.tick_s() + _LOOK_S
        self.aside = aside(self.path)

    def _tell_overrun(self) -> None:
        """More came between two rounds than may wait: said at once, and its end when none was refused for a while."""
        now_s, refused = self._clock.tick_s(), self._refused
        if refused > self._seen:
            if self._overrun_s is None:
                self._log.error(
                    "ledger_overrun", path=str(self.path), dropped=self.dropped, bound=self._most,
                    meaning="rows come faster than they are written", remedy="server.workers, or ledger.buffer_rows",
                )  # fmt: skip
            self._seen, self._overrun_s = refused, now_s
        elif self._overrun_s is not None and now_s - self._overrun_s >= _OVERRUN_S:
            self._overrun_s = None
            self._log.info("ledger_overrun_ended", path=str(self.path), dropped=self.dropped)

    def _take(self) -> list[Row]:
        """Move what has come to what is kept, and drop the oldest beyond the bound; what has come."""
        taken = [self._fresh.popleft() for _ in range(len(self._fresh))]
        self._kept.extend(taken)
        while len(self._kept) > self._most:
            self._kept.popleft()
            self._lost += 1
        return taken

    def _tell(self, taken: list[Row]) -> None:
        """Tell others of the rows, whether or not the disk works."""
        if not taken:
            return
        if self._on_rows is not None:
            try:
                self._on_rows(taken)
            except Exception:  # noqa: BLE001 - a listener must not cost a row
                self._log.exception("ledger_listener_failed")
        if self._lines is not None:
            before, fault = self._lines.works, self._lines.write(taken)
            if before and fault:
                self._log.error("ledger_jsonl_failing", path=str(self._lines.path), error=fault)
            elif not before and not fault:
                self._log.info("ledger_jsonl_recovered", path=str(self._lines.path), dropped=self._lines.dropped)

    def _try(self) -> None:
        """Write what is kept; what fails stays kept."""
        if self._works and not self._kept:
            return
        try:
            conn = self._conn or self._open()
            while self._kept:
                count = min(len(self._kept), _BATCH_ROWS)
                with self._pen:
                    self._insert(conn, [self._kept[i] for i in range(count)])
                self._upkeep.written(count)
                for _ in range(count):
                    self._kept.popleft()
        except Exception as error:  # noqa: BLE001 - whatever it is, the thread must live
            self._fail(error)
            return
        if not self._works:
            self._works = True
            self._log.info("ledger_recovered", path=str(self.path), dropped=self.dropped)

    def _insert(self, conn: sqlite3.Connection, rows: list[Row]) -> None:
        """All rows in one transaction; where one of them can't be stored, the others are all the same."""
        with transaction(conn):
            try:
                INSERTS.put(conn, rows)
            except POISON:
                conn.execute("rollback")
                conn.execute("begin immediate")
                for row in rows:
                    try:
                        conn.execute(INSERT, washed(row))
                    except POISON as error:
                        self._lost += 1
                        self._log.error("ledger_row_refused", row_id=repr(row.id)[:80], error=str(error)[:200])

    def _fail(self, error: Exception) -> None:
        if self._works:
            self._works = False
            self._log.error("ledger_failing", path=str(self.path), error=str(error), waiting=len(self._kept))
        if not is_busy(error):
            # Begin anew with whatever stands there then: it may be repaired, replaced or moved aside.
            self._suspect = self._suspect or is_corrupt(error)
            self._let_go()

    def _let_go(self) -> None:
        self._keeper.let_go()
        if self._conn is not None:
            with suppress(sqlite3.Error):
                self._conn.close()
            self._conn = None

    def _open(self) -> sqlite3.Connection:
        """Open the file, after moving aside one that isn't a sound ledger. Raises sqlite3.Error, OSError."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._conn, lost = connect(self.path, whole=self._suspect, wait_s=self._lock_wait_s)
        except sqlite3.DatabaseError as error:
            if not is_corrupt(error):
                raise
            word = "other" if isinstance(error, OtherSchema) else "corrupt"
            aside = move_aside(self.path, f"{word}-{int(self._clock.now_s() * 1000)}")
            self._log.error(
                f"ledger_{word}",
                path=str(self.path),
                moved_to=str(aside),
                error=str(error),
                meaning="a new ledger is begun; reports and budgets no longer see what the old one holds",
                remedy="farthing ledger salvage saves what can be read of it",
            )
            self._conn, lost = connect(self.path, whole=False, wait_s=self._lock_wait_s)
            self._look()
        self._suspect = False
        if self._keeps_up:
            self._keeper.open()
        if lost:
            self._log.error(
                "ledger_rollups_lost",
                path=str(self.path),
                meaning="roll-ups are made anew from the rows that are kept; figures of older days are gone",
            )
        return self._conn
