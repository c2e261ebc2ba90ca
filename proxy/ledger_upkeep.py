"""What is done to the ledger beside writing rows: they are rolled up, those past keeping are removed and their space is
given back, and what SQLite's log holds is brought into the file.

Rules of this file: rows that wait are written between two steps, and beside all of a step but its transaction, which is
short (WRITE_S); a row is removed only when it is in the roll-ups; what fails is told once and tried again later, and
never stops the writing of rows.
"""

from __future__ import annotations

import math
import sqlite3
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import structlog

from farthing.proxy.clock import Clock
from farthing.proxy.ledger_file import is_busy, is_corrupt
from farthing.proxy.ledger_log import most_pages, pages_in
from farthing.proxy.rollup_plan import DAY_S, HOUR_S, MINUTE_S
from farthing.proxy.rollup_tables import empty, marks, set_mark
from farthing.proxy.sql_transaction import transaction

if TYPE_CHECKING:
    from farthing.proxy.rollup import Roller

__all__ = ["ROLL_EVERY_S", "ROLL_ROWS", "Upkeep", "rebuild"]

TARGET_S = 0.1
"""Processor time that rolling up one slice should take. What many rows share is paid once, so longer is cheaper (4,000
rows at a time cost half of what 500 do)."""
WRITE_S = 0.05
"""Processor time that the transaction of a step should take at most, for which rows wait."""
ROLL_EVERY_S = 60.0
ROLL_ROWS = 20_000
"""Rows are rolled up when so many are new, or that long after the last time."""
CHECKPOINT_EVERY_S = 30.0
"""How often the log is brought into the file, where it doesn't get too long before. Seldom, since the transaction after
that begins the log anew and waits for the disk."""
MANY_ROWS = 200
SWEEP_EVERY_S = 600.0
AFTER_TROUBLE_S = 60.0
_LEAST_ROWS, _MOST_ROWS = 100, 4_000
_FREED_PAGES = 100
_CHECKPOINT = "pragma wal_checkpoint(passive)"


class Upkeep:
    """`keep_days`: how long rows are kept, by whole days (UTC); 0: for ever. `pen`: held by whoever writes to the file.
    `spent_s`: this thread's processor time, by which slices are measured: the clock would make them short, and dear,
    where the machine is busy.

    `written` belongs to the writer's thread, all else to the one that keeps the ledger up.
    """

    def __init__(
        self,
        keep_days: int,
        clock: Clock,
        pen: AbstractContextManager[object] | None = None,
        spent_s: Callable[[], float] = time.thread_time,
    ) -> None:
        self._keep_days = keep_days
        self._clock = clock
        self._pen = _Pen(pen or nullcontext(), spent_s)
        self._spent_s = spent_s
        self._log = structlog.get_logger("farthing.ledger")
        self._roller: Roller | None = None
        self._conn: sqlite3.Connection | None = None
        self._written = 0  # the writer's own count
        self._rolled = 0  # what was seen of it when rows were last rolled up
        self._pages = 0  # of the log, when it was last brought into the file
        self._stepped_s = 0.0
        self._slice, self._removal = _Portion(1_000), _Portion(500)
        now_s = clock.tick_s()
        self._roll_at_s = self._sweep_at_s = now_s + ROLL_EVERY_S
        self._checkpoint_at_s = now_s + CHECKPOINT_EVERY_S
        self._behind = self._sweeping = False
        self._troubled = False

    def written(self, rows: int) -> None:
        """So many rows are new on the disk."""
        self._written += rows

    def step(self, conn: sqlite3.Connection, waiting: int = 0) -> bool:
        """Do one short piece of what is due; whether there was anything. Raises sqlite3.Error for a damaged file only.

        `waiting`: rows that wait to be written. Where there are many they go first, but for a step every second.
        Effects: writes to the ledger.
        """
        now_s = self._clock.tick_s()
        if waiting > MANY_ROWS and now_s - self._stepped_s < 1.0:
            return False
        self._stepped_s = now_s
        try:
            self._checkpoint(conn, now_s)
            if self._behind or self._written - self._rolled >= ROLL_ROWS or now_s >= self._roll_at_s:
                return self._roll(conn)
            if self._sweeping or now_s >= self._sweep_at_s:
                return self._sweep(conn)
        except (sqlite3.Error, LookupError, ValueError) as error:
            self._roller = None
            if is_corrupt(error):
                raise
            self._roll_at_s = self._sweep_at_s = now_s + (1.0 if is_busy(error) else AFTER_TROUBLE_S)
            self._rolled, self._behind, self._sweeping = self._written, False, False
            self._tell(conn, error)
        return False

    def _tell(self, conn: sqlite3.Connection, error: Exception) -> None:
        if isinstance(error, LookupError):
            self._log.error(
                "ledger_rollups_rebuilt", error=str(error), meaning="they are made anew from the rows that are kept"
            )
            with suppress(sqlite3.Error), self._pen:
                rebuild(conn)
                self._roll_at_s = self._clock.tick_s()
        elif not is_busy(error) and not self._troubled:
            self._troubled = True
            self._log.error("ledger_upkeep_failing", error=str(error))

    def _checkpoint(self, conn: sqlite3.Connection, now_s: float) -> None:
        """Bring the log into the file, where it is long or that is due.

        It begins anew only where all of it is in the file when the next row is written: with rows that come all the
        time it never would, and so they wait for the last few pages of a long one.
        """
        path = Path(conn.execute("pragma database_list").fetchone()[2])
        pages = pages_in(path)
        if pages == self._pages:  # by whichever process: nothing was written since
            return
        long = pages >= most_pages(path)
        if long or now_s >= self._checkpoint_at_s:
            self._checkpoint_at_s = now_s + CHECKPOINT_EVERY_S
            self._pages = conn.execute(_CHECKPOINT).fetchone()[1]
        if long:
            with self._pen:
                self._pages = conn.execute(_CHECKPOINT).fetchone()[1]

    def _roll(self, conn: sqlite3.Connection) -> bool:
        from farthing.proxy.rollup import Roller  # numpy, which a start needn't wait for

        if self._roller is None or self._conn is not conn:
            self._roller, self._conn = Roller(conn, self._pen), conn
        begun_s, before_s, written = self._clock.tick_s(), self._spent_s(), self._written
        rows = self._roller.roll(self._slice.rows)
        took_s = self._spent_s() - before_s
        self._behind = rows == self._slice.rows
        self._rolled = min(written, self._rolled + rows) if self._behind else written
        self._roll_at_s = begun_s + ROLL_EVERY_S
        if self._behind:
            self._slice.took(max(took_s / TARGET_S, self._pen.held_s / WRITE_S))
        if self._troubled:
            self._troubled = False
            self._log.info("ledger_upkeep_recovered")
        return rows > 0

    def _sweep(self, conn: sqlite3.Connection) -> bool:
        """Remove a slice of rows, or give back some pages; more of it is due until there is none."""
        self._sweep_at_s = self._clock.tick_s() + SWEEP_EVERY_S
        removed = freed = 0
        if self._keep_days:
            before_s = math.floor(self._clock.now_s() / DAY_S - self._keep_days) * DAY_S
            with self._pen:
                removed = remove_rows(conn, before_s, most=self._removal.rows)
            if removed == self._removal.rows:
                self._removal.took(self._pen.held_s / WRITE_S)
        if not removed:
            with self._pen:
                removed = remove_minutes(conn)
        if not removed:
            with self._pen:
                freed = free_pages(conn, _FREED_PAGES)
        self._sweeping = bool(removed or freed)
        return self._sweeping


class _Pen:
    """A pen that knows how long it was held last, by the processor time of who held it."""

    def __init__(self, pen: AbstractContextManager[object], spent_s: Callable[[], float]) -> None:
        self.held_s = 0.0
        self._pen = pen
        self._spent_s = spent_s
        self._since_s = 0.0

    def __enter__(self) -> None:
        self._pen.__enter__()
        self._since_s = self._spent_s()

    def __exit__(self, *how: Any) -> None:
        self.held_s = self._spent_s() - self._since_s
        self._pen.__exit__(*how)


class _Portion:
    """How many rows to take at once, by how long it took."""

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def took(self, share: float) -> None:
        """So much of the time that it should take."""
        better = self.rows / min(2.0, max(0.5, share))
        self.rows = round(min(_MOST_ROWS, max(_LEAST_ROWS, better)))


def remove_rows(conn: sqlite3.Connection, before_s: float, most: int) -> int:
    """Remove at most that many of the oldest rows before a moment which the roll-ups hold; how many it were.

    The last row that was rolled up stays, since the mark is on it. The moment is a whole day's beginning (UTC).
    """
    with transaction(conn):
        known = marks(conn)
        done = conn.execute(
            "delete from requests where rowid in (select rowid from requests where ts < ?1 and rowid < ?2 "
            "order by ts limit ?3)",
            (before_s, known.rolled, most),
        ).rowcount
        if done and before_s > known.swept_s:
            set_mark(conn, "swept_s", int(before_s))
    return done


def remove_minutes(conn: sqlite3.Connection) -> int:
    """Remove some hours of roll-ups by the minute that are older than the rows; how many lines it were."""
    place = f"cut = '' and length_s = {MINUTE_S} and start_s < ?"
    swept_s = marks(conn).swept_s
    first_s = conn.execute(f"select min(start_s) from rollups where {place}", (swept_s,)).fetchone()[0]
    if first_s is None:
        return 0
    before_s = min(swept_s, first_s + 6 * HOUR_S)
    with transaction(conn):
        conn.execute(f"delete from rollup_times where {place}", (before_s,))
        return conn.execute(f"delete from rollups where {place}", (before_s,)).rowcount


def free_pages(conn: sqlite3.Connection, most: int) -> int:
    """Give at most that many unused pages back to the disk; how many it were. None in a file that isn't made for it."""
    before = conn.execute("pragma freelist_count").fetchone()[0]
    if not before or conn.execute("pragma auto_vacuum").fetchone()[0] != 2:
        return 0
    conn.executescript(f"pragma incremental_vacuum({int(most)})")  # execute() would stop after one page
    return int(before - conn.execute("pragma freelist_count").fetchone()[0])


def rebuild(conn: sqlite3.Connection) -> None:
    """Forget the roll-ups of all days whose rows are kept, so that the next steps make them anew."""
    with transaction(conn):
        told = dict(conn.execute("select key, value from meta"))
        swept_s = float(told.get("swept_s", 0))
        # These are in roll-ups that stay: counted again they would be there twice.
        conn.execute("delete from requests where ts < ? and rowid <= ?", (swept_s, int(told.get("rolled", 0))))
        empty(conn, swept_s)
