"""What can still be read of a damaged ledger, into the present one. The damaged file is only read."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from farthing.proxy.errors import ConfigFault
from farthing.proxy.figures import columns
from farthing.proxy.ledger_file import INSERT, POISON
from farthing.proxy.row import COLUMNS

__all__ = ["salvage"]

BATCH_ROWS = 500


def salvage(damaged: Path, ledger: Path, told: Callable[[int], None]) -> dict[str, int]:
    """Add every readable row to the ledger that isn't there yet (by its id), and count.

    `ledger` may be in use. Raises ConfigFault where nothing can be read, or the ledger can't be written.
    """
    counts = {"read": 0, "added": 0, "unreadable": 0}
    try:
        with (
            closing(sqlite3.connect(f"{damaged.resolve().as_uri()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(ledger, timeout=10, isolation_level=None)) as target,
        ):
            if tuple(column[1] for column in source.execute("pragma table_info(requests)")) != COLUMNS:
                raise ConfigFault(f"{damaged} holds no ledger of this version")
            for rows, unreadable in _readable(source):
                counts["unreadable"] += unreadable
                counts["read"] += len(rows)
                counts["added"] += _add(target, rows)
                told(len(rows) + unreadable)
    except sqlite3.Error as error:
        raise ConfigFault(f"can't salvage {damaged}: {error}") from None
    return counts


def _add(target: sqlite3.Connection, rows: list[tuple[Any, ...]]) -> int:
    target.execute("begin immediate")
    added = 0
    for row in rows:
        known = target.execute("select 1 from requests where id = ?", (row[0],)).fetchone()
        if known is None:
            try:
                added += target.execute(INSERT, row).rowcount
            except POISON:  # damaged within: a column that must be known isn't
                continue
    target.execute("commit")
    return added


def _readable(source: sqlite3.Connection) -> Iterator[tuple[list[tuple[Any, ...]], int]]:
    """Rows by row number, some hundred at a time, and how many numbers couldn't be read among them."""
    source.text_factory = lambda text: text.decode("utf-8", "replace")
    last = _last(source)
    waiting = [(first, min(first + BATCH_ROWS, last + 1)) for first in range(1, last + 1, BATCH_ROWS)][::-1]
    query = f"select {columns()} from requests where rowid >= ? and rowid < ?"
    while waiting:
        first, end = waiting.pop()
        try:
            yield source.execute(query, (first, end)).fetchall(), 0
        except sqlite3.DatabaseError:
            if end - first == 1:
                yield [], 1
                continue
            middle = (first + end) // 2
            waiting += [(middle, end), (first, middle)]


def _last(source: sqlite3.Connection) -> int:
    """A row number that no row is beyond: the last one, else as many as the file could hold."""
    try:
        return int(source.execute("select max(rowid) from requests").fetchone()[0] or 0)
    except sqlite3.DatabaseError:
        pages = source.execute("pragma page_count").fetchone()[0]
        return int(pages) * 20
