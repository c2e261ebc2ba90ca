"""Every answer in a local store's file, for a backup; beside a process that goes on writing it (SQLite's WAL: a reader
sees one moment, and stops nobody)."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from farthing.proxy.errors import StoreFault

__all__ = ["walk"]


def walk(path: Path) -> Iterator[bytes]:
    """Every entry as it is encoded, the longest stored first; of one key perhaps two, the later one valid. None where
    there is no file. Raises StoreFault: it can't be read."""
    if not path.exists():
        return
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as db:
            for (raw,) in db.execute("SELECT bytes FROM bodies ORDER BY id"):
                yield bytes(raw)
    except sqlite3.Error as error:
        raise StoreFault(f"can't read {path}: {error}") from None
