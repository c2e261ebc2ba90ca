"""A small SQLite file of its owner's, asked from the event loop: one connection, one command at a time, in a thread."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from farthing.proxy.errors import StoreFault

__all__ = ["SmallDb"]

T = TypeVar("T")
_BUSY_S = 2.0


class SmallDb:
    """Over `path`, which is made where it isn't, readable by its owner only, when it is first asked.

    `schema`: statements that make what isn't there. `pragmas`: beside the write-ahead log.
    """

    def __init__(self, path: Path, schema: str, pragmas: Sequence[str] = ()) -> None:
        self.path = path
        self._schema = schema
        self._pragmas = ("journal_mode = wal", *pragmas)
        self._conn: sqlite3.Connection | None = None
        self._one = asyncio.Lock()
        self._turn = threading.Lock()  # a command goes on in its thread when who asked for it is cancelled

    async def run(self, command: Callable[[sqlite3.Connection], T]) -> T:
        """The command's result, in a transaction of its own. Raises StoreFault."""
        async with self._one:
            return await asyncio.to_thread(self._now, command)

    async def close(self) -> None:
        """Let go, once what is under way has ended; idempotent."""
        async with self._one:
            await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        with self._turn:
            if self._conn is not None:
                self._conn.close()
                self._conn = None

    def _now(self, command: Callable[[sqlite3.Connection], T]) -> T:
        try:
            with self._turn, self._connection() as conn:
                return command(conn)
        except (sqlite3.Error, OSError) as error:
            raise StoreFault(f"{self.path}: {error}") from error

    def _connection(self) -> sqlite3.Connection:
        if self._conn is None:
            self._conn = self._open()
        return self._conn

    def _open(self) -> sqlite3.Connection:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self.path, os.O_CREAT | os.O_RDWR, 0o600))
        conn = sqlite3.connect(self.path, timeout=_BUSY_S, check_same_thread=False)
        for pragma in self._pragmas:
            conn.execute(f"pragma {pragma}")
        conn.executescript(self._schema)
        return conn
