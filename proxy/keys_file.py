"""Virtual keys in SQLite under the state directory: the command line writes, the running farthing reads."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from farthing.proxy.errors import StoreFault
from farthing.proxy.keys import VirtualKey, read_key, written

__all__ = ["FileKeys"]

T = TypeVar("T")
_SCHEMA = "create table if not exists keys (id text primary key, created_s real not null, record blob not null)"
_BUSY_S = 2.0


class FileKeys:
    """KeyStore over `path`, which is made where it isn't, readable by its owner only. One connection, in a thread."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._conn: sqlite3.Connection | None = None
        self._one = asyncio.Lock()

    async def add(self, key: VirtualKey) -> None:
        """KeyStore.add."""
        row = (key.id, key.created_s, written(key))
        await self._run(lambda conn: conn.execute("insert into keys values (?, ?, ?)", row))

    async def revoke(self, id: str, now_s: float) -> bool:
        """KeyStore.revoke."""

        def revoked(conn: sqlite3.Connection) -> bool:
            change = "update keys set record = json_set(cast(record as text), '$.revoked_s', ?) where id = ?"
            unless = " and json_extract(cast(record as text), '$.revoked_s') = 0"
            conn.execute(change + unless, (now_s, id))
            return conn.execute("select 1 from keys where id = ?", (id,)).fetchone() is not None

        return await self._run(revoked)

    async def all(self) -> list[VirtualKey]:
        """KeyStore.all."""
        found = await self._run(lambda conn: conn.execute("select record from keys order by created_s, id").fetchall())
        try:
            return [read_key(record) for (record,) in found]
        except ValueError as error:
            raise StoreFault(f"{self._path}: {error}") from None

    async def version(self) -> str:
        """KeyStore.version: SQLite counts what other connections committed; our own changes are counted beside it."""

        def counted(conn: sqlite3.Connection) -> str:
            return f"{conn.execute('pragma data_version').fetchone()[0]}.{conn.total_changes}"

        return await self._run(counted)

    async def close(self) -> None:
        """KeyStore.close."""
        if self._conn is not None:
            self._conn.close()
            self._conn = None

    async def _run(self, command: Callable[[sqlite3.Connection], T]) -> T:
        async with self._one:
            return await asyncio.to_thread(self._now, command)

    def _now(self, command: Callable[[sqlite3.Connection], T]) -> T:
        try:
            if self._conn is None:
                self._conn = self._open()
            with self._conn:
                return command(self._conn)
        except (sqlite3.Error, OSError) as error:
            raise StoreFault(f"{self._path}: {error}") from error

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        conn = sqlite3.connect(self._path, timeout=_BUSY_S, check_same_thread=False)
        conn.execute("pragma journal_mode = wal")
        conn.execute(_SCHEMA)
        conn.commit()
        return conn
