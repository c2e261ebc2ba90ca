"""Many rows in few steps of SQLite.

The interpreter's lock is given up and asked for anew with each step of a statement, and with `executemany` or a
`fetchall` each row is one. Where requests keep the lock busy, a step may wait as long as the switch interval (5 ms),
and rows come faster than they are written (`python -m bench.saturated`).
Source: docs.python.org/3/library/sys.html#sys.setswitchinterval, sqlite.org/lang_insert.html.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

__all__ = ["Rows", "Step"]

Step = tuple[str, Sequence[Any]]
"""A statement and what it is given."""

_AT_ONCE = 128
"""A power of two. Of 60 columns these are a quarter of the values that SQLite takes by default (32,766)."""


class Rows:
    """A statement that puts rows in: `head`, the values of `columns` columns each, `tail`."""

    def __init__(self, head: str, columns: int, tail: str = "") -> None:
        one = f"({', '.join('?' * columns)})"
        counts = [1 << power for power in range(_AT_ONCE.bit_length())]
        self._by_count = {count: f"{head} values {', '.join([one] * count)} {tail}" for count in counts}
        self.one = self._by_count[1]

    def put(self, conn: sqlite3.Connection, rows: Iterable[Sequence[Any]]) -> None:
        """Put them in, in their order. Raises what `execute` does; then some of them may be in."""
        for sql, values in self.steps(rows):
            conn.execute(sql, values)

    def steps(self, rows: Iterable[Sequence[Any]]) -> Iterator[Step]:
        """What puts them in, in their order, to be run when the caller likes."""
        given = [*rows]
        for first, count in _portions(len(given)):
            yield self._by_count[count], [*chain.from_iterable(given[first : first + count])]


def _portions(count: int) -> Iterator[tuple[int, int]]:
    """Where each begins and how long it is: of few lengths, since SQLite prepares a statement for each."""
    first, size = 0, _AT_ONCE
    while first < count:
        while size > count - first:
            size //= 2
        yield first, size
        first += size
