"""What can still be read of a damaged ledger, into the present one. The damaged file is only read, and a mark set
beside it.

First what SQLite reads, some hundred row numbers at a time; then the leaf pages by themselves (ledger_leaves.py), for
what stood below a damaged page.
"""

from __future__ import annotations

import sqlite3
import struct
from bisect import bisect_right
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any, BinaryIO

from farthing.proxy.errors import ConfigFault
from farthing.proxy.figures import columns
from farthing.proxy.ledger_aside import mark_salvaged
from farthing.proxy.ledger_file import INSERT, POISON
from farthing.proxy.ledger_leaves import fits, free_pages, head_of, rows_on
from farthing.proxy.row import COLUMNS

__all__ = ["salvage"]

BATCH_ROWS = 500
_FRAME_HEAD = 24
_Rows = list[tuple[Any, ...]]


def salvage(damaged: Path, ledger: Path, told: Callable[[int], None]) -> dict[str, int]:
    """Add every readable row to the ledger that isn't there yet (by its id), and count.

    `from_leaves`: of those read, without what stood above them. `unreadable`: row numbers between those that were read
    which weren't; some may have been removed before. `free_unknown`: 1 where it couldn't be told which pages were
    free, so that removed rows may be among those read. `ledger` may be in use. Raises ConfigFault where nothing can be
    read, or the ledger can't be written.
    """
    counts = {"read": 0, "added": 0, "from_leaves": 0, "unreadable": 0, "free_unknown": 0}
    seen = _Runs()
    fault = None
    try:
        with closing(sqlite3.connect(ledger, timeout=10, isolation_level=None)) as target:

            def keep(rows: _Rows) -> None:
                counts["read"] += len(rows)
                counts["added"] += _add(target, rows)
                told(len(rows))

            try:
                with closing(sqlite3.connect(f"{damaged.resolve().as_uri()}?mode=ro", uri=True)) as source:
                    names = tuple(column[1] for column in source.execute("pragma table_info(requests)"))
                    if names != COLUMNS:
                        raise ConfigFault(f"{damaged} holds no ledger of this version")
                    for rows in _readable(source, seen):
                        keep(rows)
            except sqlite3.DatabaseError as error:  # its first page is damaged
                fault = error
            with ExitStack() as files:
                pages = _File(files, damaged)
                for rows in _from_leaves(pages, seen, counts):
                    counts["from_leaves"] += len(rows)
                    keep(rows)
    except (sqlite3.Error, OSError) as error:
        raise ConfigFault(f"can't salvage {damaged}: {error}") from None
    if fault is not None and not counts["read"]:
        raise ConfigFault(f"can't salvage {damaged}: {fault}")
    counts["unreadable"] = seen.missing()
    with suppress(OSError):  # where one may read there and not write
        mark_salvaged(damaged)
    return counts


def _add(target: sqlite3.Connection, rows: _Rows) -> int:
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


class _Runs:
    """Row numbers, as runs of neighbours: in a ledger nearly all are."""

    def __init__(self) -> None:
        self._firsts: list[int] = []
        self._ends: list[int] = []

    def __contains__(self, number: object) -> bool:
        assert isinstance(number, int)
        at = bisect_right(self._firsts, number) - 1
        return at >= 0 and number < self._ends[at]

    def add(self, number: int) -> None:
        at = bisect_right(self._firsts, number)
        if at and number < self._ends[at - 1]:
            return
        joins_before = at > 0 and self._ends[at - 1] == number
        joins_after = at < len(self._firsts) and self._firsts[at] == number + 1
        if joins_before and joins_after:
            self._ends[at - 1] = self._ends.pop(at)
            del self._firsts[at]
        elif joins_before:
            self._ends[at - 1] += 1
        elif joins_after:
            self._firsts[at] = number
        else:
            self._firsts.insert(at, number)
            self._ends.insert(at, number + 1)

    def missing(self) -> int:
        """Numbers between the first and the last that aren't there."""
        return sum(first - end for first, end in zip(self._firsts[1:], self._ends, strict=False))


def _readable(source: sqlite3.Connection, seen: _Runs) -> Iterator[_Rows]:
    """Rows by row number, some hundred at a time; what stands among unreadable ones is left to the leaves."""
    source.text_factory = lambda text: text.decode("utf-8", "replace")
    try:
        last = int(source.execute("select max(rowid) from requests").fetchone()[0] or 0)
    except sqlite3.DatabaseError:
        return
    query = f"select rowid, {columns()} from requests where rowid >= ? and rowid < ?"
    for first in range(1, last + 1, BATCH_ROWS):
        found: list[tuple[Any, ...]] = []
        with suppress(sqlite3.DatabaseError):
            found.extend(source.execute(query, (first, first + BATCH_ROWS)))
        rows = [row for row in found if fits(row[1:])]
        for row in rows:
            seen.add(row[0])
        yield [row[1:] for row in rows]


def _from_leaves(file: _File, seen: _Runs, counts: dict[str, int]) -> Iterator[_Rows]:
    """Rows that weren't read yet, some hundred at a time."""
    head = head_of(file.page(1))
    free = free_pages(file.page, head, file.count)
    counts["free_unknown"] = int(not free.known)
    rows: _Rows = []
    for number in range(1, file.count + 1):
        if number in free.pages:
            continue
        for row_number, values in rows_on(number, file.page, head, lambda found: found not in seen):
            seen.add(row_number)
            rows.append(values)
        if len(rows) >= BATCH_ROWS:
            yield rows
            rows = []
    yield rows


class _File:
    """The pages of a database with those that its write-ahead log has later, up to the last transaction that ended."""

    def __init__(self, files: ExitStack, path: Path) -> None:
        self._file: BinaryIO = files.enter_context(path.open("rb"))
        self._page_bytes = head_of(self._file.read(100)).page_bytes
        self.count = path.stat().st_size // self._page_bytes
        self._later: dict[int, int] = {}
        log = Path(f"{path}-wal")
        if log.exists():
            self._log: BinaryIO = files.enter_context(log.open("rb"))
            self._read_log()

    def page(self, number: int) -> bytes:
        """The page of that number; empty where there is none."""
        if number in self._later:
            self._log.seek(self._later[number])
            return self._log.read(self._page_bytes)
        self._file.seek((number - 1) * self._page_bytes)
        return self._file.read(self._page_bytes)

    def _read_log(self) -> None:
        """Where the log's pages lie. An earlier round's have another salt. Source: sqlite.org/walformat.html."""
        head = self._log.read(32)
        if len(head) < 32 or head[:3] != b"\x37\x7f\x06" or int.from_bytes(head[8:12], "big") != self._page_bytes:
            return
        at, waiting = 32, dict[int, int]()
        while len(frame := self._log.read(_FRAME_HEAD)) == _FRAME_HEAD and frame[8:16] == head[16:24]:
            number, pages_after = struct.unpack_from(">II", frame)
            waiting[number] = at + _FRAME_HEAD
            at += _FRAME_HEAD + self._page_bytes
            self._log.seek(at)
            if pages_after:
                self._later |= waiting
                self.count = pages_after
                waiting.clear()
