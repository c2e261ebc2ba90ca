"""Virtual keys in SQLite under the state directory: the command line writes, the running farthing reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path

from farthing.proxy.keys import VirtualKey, readable, written
from farthing.proxy.small_db import SmallDb

__all__ = ["FileKeys"]

_SCHEMA = "create table if not exists keys (id text primary key, created_s real not null, record blob not null)"


class FileKeys:
    """KeyStore over `path`, which is made where it isn't, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self._db = SmallDb(path, _SCHEMA)

    async def add(self, key: VirtualKey) -> None:
        """KeyStore.add."""
        row = (key.id, key.created_s, written(key))
        await self._db.run(lambda conn: conn.execute("insert into keys values (?, ?, ?)", row))

    async def revoke(self, id: str, now_s: float) -> bool:
        """KeyStore.revoke."""

        def revoked(conn: sqlite3.Connection) -> bool:
            change = "update keys set record = json_set(cast(record as text), '$.revoked_s', ?) where id = ?"
            unless = " and json_extract(cast(record as text), '$.revoked_s') = 0"
            conn.execute(change + unless, (now_s, id))
            return conn.execute("select 1 from keys where id = ?", (id,)).fetchone() is not None

        return await self._db.run(revoked)

    async def all(self) -> list[VirtualKey]:
        """KeyStore.all."""
        found = await self._db.run(lambda conn: conn.execute("select record from keys").fetchall())
        return readable(record for (record,) in found)

    async def version(self) -> str:
        """KeyStore.version: SQLite counts what other connections committed; our own changes are counted beside it."""

        def counted(conn: sqlite3.Connection) -> str:
            return f"{conn.execute('pragma data_version').fetchone()[0]}.{conn.total_changes}"

        return await self._db.run(counted)

    async def put_back(self, keys: Sequence[VirtualKey]) -> None:
        """KeyStore.put_back."""

        def put(conn: sqlite3.Connection) -> None:
            for key in keys:
                how = "replace" if key.revoked_s else "ignore"
                conn.execute(f"insert or {how} into keys values (?, ?, ?)", (key.id, key.created_s, written(key)))

        await self._db.run(put)

    async def close(self) -> None:
        """KeyStore.close."""
        await self._db.close()
