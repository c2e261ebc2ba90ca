"""Deferred requests at rest: one SQLite file under the state directory, readable by its owner only.

Rules of this file:
1. A body is kept until there is an answer, and an answer until it expires; what is removed is overwritten
   (`secure_delete`). No credential is ever written.
2. A request is on disk before its client hears that it was accepted, and so is every step from there on.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from farthing.proxy.small_db import SmallDb

__all__ = ["Batch", "DeferStore", "Kept", "Result"]

_SCHEMA = """
create table if not exists requests (
  id text primary key, account text not null, credential text not null, upstream text not null, path text not null,
  model text not null, state text not null, created_s real not null, deadline_s real not null, size integer not null,
  tries integer not null, batch text not null, ended_s real not null, booked integer not null, error text not null,
  meta blob not null, body blob, status integer not null, kind text not null, answer blob
);
create index if not exists by_state on requests (state);
create table if not exists batches (
  name text primary key, account text not null, upstream text not null, file text not null, id text not null,
  cancelled_s real not null
);
"""
_LIGHT = "id, account, credential, upstream, path, model, state, created_s, deadline_s, size, tries, batch, ended_s"
_LIGHT += ", booked, error, status"


class Kept(NamedTuple):
    """A request without its texts. `account`: whose credential sends it; `credential`: whose it is, both opaque.

    `state`: queued, sending (a batch of that name is being made), sent, direct (it is asked for by itself), completed,
    failed or cancelled. `tries`: batches that it was in. `ended_s`: 0 while it isn't over. `booked`: the ledger has its
    row. `status`: of its answer.
    """

    id: str
    account: str
    credential: str
    upstream: str
    path: str
    model: str
    state: str
    created_s: float
    deadline_s: float
    size: int
    tries: int = 0
    batch: str = ""
    ended_s: float = 0.0
    booked: int = 0
    error: str = ""
    status: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in ("completed", "failed", "cancelled")


class Batch(NamedTuple):
    """A batch of the provider's. `name`: ours; `file`, `id`: theirs, '' until they are known."""

    name: str
    account: str
    upstream: str
    file: str = ""
    id: str = ""
    cancelled_s: float = 0.0


class Result(NamedTuple):
    """An answer. `kind`: its content type."""

    status: int
    kind: str
    body: bytes


class DeferStore:
    """Over `path`, which is made where it isn't. Every method raises StoreFault."""

    def __init__(self, path: Path) -> None:
        self._db = SmallDb(path, _SCHEMA, ("synchronous = full", "secure_delete = on"))

    async def load(self) -> tuple[list[Kept], list[Batch]]:
        """All that is there."""

        def loaded(conn: sqlite3.Connection) -> tuple[list[Kept], list[Batch]]:
            requests = conn.execute(f"select {_LIGHT} from requests order by created_s, id").fetchall()
            return [Kept(*row) for row in requests], [Batch(*row) for row in conn.execute("select * from batches")]

        return await self._db.run(loaded)

    async def add(self, kept: Kept, meta: bytes, body: bytes) -> None:
        """A new one; on disk when this returns."""
        await self._db.run(
            lambda conn: conn.execute(
                f"insert into requests ({_LIGHT}, meta, body, kind) values ({', '.join('?' * (len(kept) + 3))})",
                (*kept, meta, body, ""),
            )
        )

    async def write(self, changed: Sequence[Kept], batch: Batch | None = None) -> None:
        """What became of some, and of a batch, in one transaction."""

        def written(conn: sqlite3.Connection) -> None:
            conn.executemany(
                "update requests set state = ?, tries = ?, batch = ?, ended_s = ?, booked = ?, error = ?, status = ?"
                " where id = ?",
                [(o.state, o.tries, o.batch, o.ended_s, o.booked, o.error, o.status, o.id) for o in changed],
            )
            over = [(one.id,) for one in changed if one.over and one.booked]
            conn.executemany("update requests set body = null where id = ?", over)
            if batch is not None:
                conn.execute("insert or replace into batches values (?, ?, ?, ?, ?, ?)", batch)

        await self._db.run(written)

    async def answer(self, kept: Kept, result: Result) -> None:
        """One has its answer; its body stays until the books have it (`write`)."""

        def answered(conn: sqlite3.Connection) -> None:
            conn.execute(
                "update requests set state = ?, ended_s = ?, error = ?, status = ?, kind = ?, answer = ? where id = ?",
                (kept.state, kept.ended_s, kept.error, result.status, result.kind, result.body, kept.id),
            )

        await self._db.run(answered)

    async def texts(self, ids: Sequence[str]) -> dict[str, tuple[bytes, bytes]]:
        """Meta and body of those that still have one."""

        def found(conn: sqlite3.Connection) -> dict[str, tuple[bytes, bytes]]:
            texts = {}
            for id in ids:
                row = conn.execute("select meta, body from requests where id = ?", (id,)).fetchone()
                if row is not None and row[1] is not None:
                    texts[id] = (row[0], row[1])
            return texts

        return await self._db.run(found)

    async def result(self, id: str) -> Result | None:
        """The answer, if it is there."""
        row = await self._db.run(
            lambda conn: conn.execute("select status, kind, answer from requests where id = ?", (id,)).fetchone()
        )
        return None if row is None or row[2] is None else Result(*row)

    async def ids_of(self, user: str) -> list[str]:
        """The requests that named this user. Cost: a look at each that is kept."""

        def found(conn: sqlite3.Connection) -> list[str]:
            rows = conn.execute("select id, json_extract(meta, '$.user') from requests where json_valid(meta)")
            return [id for id, whose in rows if whose == user]

        return await self._db.run(found)

    async def forget(self, ids: Sequence[str] = (), batch: str = "") -> None:
        """Remove requests, and a batch."""

        def forgotten(conn: sqlite3.Connection) -> None:
            conn.executemany("delete from requests where id = ?", [(id,) for id in ids])
            conn.execute("delete from batches where name = ?", (batch,))

        await self._db.run(forgotten)

    async def close(self) -> None:
        """Let go; idempotent."""
        await self._db.close()
