"""Reads the rows that several processes write into one ledger, each once, in the order written: for whoever learns from
all of them.

Rules of this file: rows are found by their number, which SQLite gives out in the order of commits; how far it got is
written down now and then, so that whoever follows next goes on from there (of one that was killed it may see the rows
of the last second twice). A fault of the disk is tried again, and told once.
"""

from __future__ import annotations

import sqlite3
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import structlog

from farthing.proxy.figures import columns
from farthing.proxy.row import Row

__all__ = ["LedgerFollower", "place_of"]

log = structlog.get_logger("farthing.ledger")

_EVERY_S = 0.25
_SAVE_EVERY_S = 1.0
_AT_ONCE = 2_000


def place_of(path: Path) -> Path:
    """Where it is written down how far the ledger was followed."""
    return path.with_suffix(".followed")


class LedgerFollower:
    """`on_rows` is called in a thread of this object's. Where nobody followed before, it begins with the rows that are
    written from now on.

    Effects: a thread, `PATH.followed`.
    """

    def __init__(self, path: Path, on_rows: Callable[[list[Row]], None]) -> None:
        self._path = path
        self._place = place_of(path)
        self._on_rows = on_rows
        self._conn: sqlite3.Connection | None = None
        self._last: int | None = None
        self._saved: int | None = None
        self._unsaved_s = 0.0
        self._failing = False
        self._end = threading.Event()
        with suppress(OSError, ValueError):
            self._last = int(self._place.read_text("ascii"))
        self._step()
        self._thread = threading.Thread(target=self._go_on, name="ledger-follower", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Read what is there now, and let go. Blocks; idempotent."""
        self._end.set()
        self._thread.join()

    def _go_on(self) -> None:
        while not self._end.wait(_EVERY_S):
            self._step()
        self._step()
        self._save()
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    def _step(self) -> None:
        try:
            while self._read():
                pass
        except (sqlite3.Error, OSError) as error:
            if not self._failing:
                log.error("the ledger can't be followed: what is learnt from rows waits", error=str(error))
            self._failing = True
            if self._conn is not None:
                self._conn.close()
                self._conn = None
            return
        self._failing = False
        self._unsaved_s += _EVERY_S
        if self._unsaved_s >= _SAVE_EVERY_S:
            self._save()

    def _read(self) -> bool:
        """One slice; whether there may be more."""
        if self._conn is None:
            uri = f"{self._path.absolute().as_uri()}?mode=ro"
            self._conn = sqlite3.connect(uri, uri=True, timeout=5.0, check_same_thread=False)
        newest = self._conn.execute("select coalesce(max(rowid), 0) from requests").fetchone()[0]
        if self._last is None or newest < self._last:  # the first time; or another file is in its place
            self._last = newest
        found = self._conn.execute(
            f"select rowid, {columns()} from requests where rowid > ? order by rowid limit ?", (self._last, _AT_ONCE)
        ).fetchall()
        if found:
            self._on_rows([Row._make(row[1:]) for row in found])
            self._last = found[-1][0]
        return len(found) == _AT_ONCE

    def _save(self) -> None:
        self._unsaved_s = 0.0
        if self._last is None or self._last == self._saved:
            return
        fresh = self._place.with_suffix(".followed.new")
        with suppress(OSError):
            fresh.write_text(str(self._last), "ascii")
            fresh.replace(self._place)
            self._saved = self._last
