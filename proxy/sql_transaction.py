"""A transaction of SQLite, for connections that begin theirs themselves (`isolation_level=None`)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["transaction"]


@contextmanager
def transaction(conn: sqlite3.Connection) -> Iterator[None]:
    """All that is written within, or nothing where anything is raised. It is a writer's from its beginning, so that
    what it has read is still so when it writes. Raises sqlite3.Error."""
    conn.execute("begin immediate")
    try:
        yield
        conn.execute("commit")
    except BaseException:
        with suppress(sqlite3.Error):
            conn.execute("rollback")
        raise
