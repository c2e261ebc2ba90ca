"""Deferred requests at rest: one SQLite file under the state directory, readable by its owner only.

Rules of this file:
1. A body is kept until there is an answer, and an answer until it expires; what is removed is overwritten
   (`secure_delete`). No credential is ever written.
2. A request is on disk before its client hears that it was accepted, and so is every step from there on.
3. Several processes may have the file open. Any of them adds and reads; whoever sees to the requests (deferring.py)
   alone changes and removes, and looks for what others have added.
4. Where stored answers are sealed (`store.encryption_key`), all texts here are too; to each is bound whose it is. What
   can't be opened, since its key isn't here, is as if it had no text. A bill (`paid`) holds no text, and lies open: it
   must be readable when the texts no longer are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import structlog

from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import MissingKeys, Seal, SealedElsewhere
from farthing.proxy.small_db import SmallDb

__all__ = ["SEALED", "Batch", "DeferStore", "Kept", "Result", "Texts", "resealed"]

log = structlog.get_logger("farthing.defer")

_SCHEMA = """
create table if not exists requests (
  id text primary key, account text not null, credential text not null, upstream text not null, path text not null,
  model text not null, state text not null, created_s real not null, deadline_s real not null, size integer not null,
  tries integer not null, batch text not null, ended_s real not null, booked integer not null, error text not null,
  meta blob not null, body blob, status integer not null, kind text not null, answer blob
);
create table if not exists batches (
  name text primary key, account text not null, upstream text not null, file text not null, id text not null,
  cancelled_s real not null
);
"""
_INDEXES = """
drop index if exists by_state;
create index if not exists by_state_account on requests (state, account);
create index if not exists by_credential on requests (credential, created_s, id);
"""
_ADDED = {  # since the first version of the file
    "api": "text not null default 'openai'",
    "sent_path": "text not null default ''",
    "sent_model": "text not null default ''",
    "saved_pico": "integer not null default 0",
    "sealed": "integer not null default 0",
    "inputs": "integer not null default 0",
    "sent": "blob",
    "known": "blob",
    "said": "blob",
    "paid": "blob",
}
_LIGHT = "id, account, credential, upstream, path, model, state, created_s, deadline_s, size, tries, batch, ended_s"
_LIGHT += ", booked, error, status, api, sent_path, sent_model, saved_pico, inputs"
_TEXTS = ("body", "sent", "known", "said", "paid")
SEALED = (*_TEXTS, "answer")
"""The columns that hold texts."""
_UNFINISHED = "state in ('queued', 'sending', 'sent', 'direct')"


class Kept(NamedTuple):
    """A request without its texts. `account`: whose credential sends it; `credential`: whose it is, both opaque.

    `state`: queued, sending (a batch of that name is being made), sent, direct (it is asked for by itself), completed,
    failed or cancelled. `tries`: batches that it was in. `ended_s`: 0 while it isn't over. `booked`: the ledger has its
    row. `status`: of its answer. `api`: the kind of batch API; `sent_path`, `sent_model`: as it is called there, '' as
    the client did. `saved_pico`: by having waited. `inputs`: texts to embed.
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
    api: str = "openai"
    sent_path: str = ""
    sent_model: str = ""
    saved_pico: int = 0
    inputs: int = 0

    @property
    def over(self) -> bool:
        """Whether nothing more becomes of it."""
        return self.state in ("completed", "failed", "cancelled")


class Batch(NamedTuple):
    """A batch of the provider's. `name`: ours; `file`: what must be known to make it (BatchApi.prepare); `id`: theirs;
    '' until they are known."""

    name: str
    account: str
    upstream: str
    file: str = ""
    id: str = ""
    cancelled_s: float = 0.0
    api: str = "openai"


class Result(NamedTuple):
    """An answer. `kind`: its content type."""

    status: int
    kind: str
    body: bytes


class Texts(NamedTuple):
    """What a request says. `body`: the client's own; `sent`: what goes into the batch, where that is another; `known`:
    what of its answer was stored already; `said`: what the batch answered, where its client gets something else;
    `paid`: what an answer cost that couldn't be used. b'' where there is none, or it can't be opened."""

    meta: bytes
    body: bytes = b""
    sent: bytes = b""
    known: bytes = b""
    said: bytes = b""
    paid: bytes = b""


class DeferStore:
    """Over `path`, which is made where it isn't. `seal`: None: texts are kept as they are. Every method raises
    StoreFault."""

    def __init__(self, path: Path, seal: Seal | None = None) -> None:
        self._db = SmallDb(path, _SCHEMA, ("synchronous = full", "secure_delete = on"))
        self._seal = seal
        self._missing = MissingKeys()
        self._version = 0  # of the file, as others had changed it when it was looked at last

    async def open(self) -> None:
        """Bring an older file up to date; before anything else."""

        def updated(conn: sqlite3.Connection) -> None:
            for table, added in (("requests", _ADDED), ("batches", {"api": _ADDED["api"]})):
                there = {row[1] for row in conn.execute(f"pragma table_info({table})")}
                for name, kind in added.items():
                    if name not in there:
                        conn.execute(f"alter table {table} add column {name} {kind}")
            conn.executescript(_INDEXES)

        await self._db.run(updated)

    async def load(self) -> tuple[list[Kept], list[Batch]]:
        """All that is there."""

        def loaded(conn: sqlite3.Connection) -> tuple[list[Kept], list[Batch]]:
            self._changed(conn)
            requests = conn.execute(f"select {_LIGHT} from requests order by created_s, id").fetchall()
            return [Kept(*row) for row in requests], [Batch(*row) for row in conn.execute("select * from batches")]

        return await self._db.run(loaded)

    async def arrived(self) -> list[Kept]:
        """What is queued, if another process has changed the file since the last look: new ones are among them."""

        def found(conn: sqlite3.Connection) -> list[Kept]:
            if not self._changed(conn):
                return []
            return [Kept(*row) for row in conn.execute(f"select {_LIGHT} from requests where state = 'queued'")]

        return await self._db.run(found)

    def _changed(self, conn: sqlite3.Connection) -> bool:
        before, self._version = self._version, conn.execute("pragma data_version").fetchone()[0]
        return before != self._version

    async def seen(self, credential: str, id: str = "", most: int = 1) -> list[tuple[Kept, str]]:
        """A credential's requests, latest first, or that one of them; each with its batch's own id, if it has one."""
        names = ", ".join(f"requests.{name}" for name in Kept._fields)
        query = (
            f"select {names}, coalesce(batches.id, '') from requests left join batches on batches.name = requests.batch"
            " where requests.credential = ?1 and (?2 = '' or requests.id = ?2)"
            " order by requests.created_s desc, requests.id desc limit ?3"
        )
        rows = await self._db.run(lambda conn: conn.execute(query, (credential, id, most)).fetchall())
        return [(Kept(*row[:-1]), row[-1]) for row in rows]

    async def waiting(self) -> int:
        """How many aren't over."""
        query = f"select count(*) from requests where {_UNFINISHED}"
        return int((await self._db.run(lambda conn: conn.execute(query).fetchone()))[0])

    async def waits_for(self, account: str) -> bool:
        """Whether any that isn't over is to be sent on that account."""
        query = f"select 1 from requests where {_UNFINISHED} and account = ? limit 1"
        return await self._db.run(lambda conn: conn.execute(query, (account,)).fetchone()) is not None

    async def add(self, kept: Kept, texts: Texts) -> None:
        """A new one; on disk when this returns."""

        def added(conn: sqlite3.Connection) -> None:
            names = f"{_LIGHT}, kind, sealed, meta, {', '.join(_TEXTS)}"
            closed = [self._closed(kept.id, name, getattr(texts, name)) for name in _TEXTS]
            conn.execute(
                f"insert into requests ({names}) values ({', '.join('?' * (len(kept) + 3 + len(_TEXTS)))})",
                (*kept, "", int(self._seal is not None), texts.meta, *closed),
            )

        await self._db.run(added)

    async def write(self, changed: Sequence[Kept], batch: Batch | None = None) -> None:
        """What became of some, and of a batch, in one transaction."""

        def written(conn: sqlite3.Connection) -> None:
            conn.executemany(
                "update requests set state = ?, tries = ?, batch = ?, ended_s = ?, booked = ?, error = ?, status = ?,"
                " saved_pico = ? where id = ?",
                [
                    (o.state, o.tries, o.batch, o.ended_s, o.booked, o.error, o.status, o.saved_pico, o.id)
                    for o in changed
                ],
            )
            over = [(one.id,) for one in changed if one.over and one.booked]
            gone = ", ".join(f"{name} = null" for name in _TEXTS)
            conn.executemany(f"update requests set {gone} where id = ?", over)
            if batch is not None:
                conn.execute("insert or replace into batches values (?, ?, ?, ?, ?, ?, ?)", batch)

        await self._db.run(written)

    async def answer(self, kept: Kept, result: Result, said: bytes = b"") -> None:
        """One has its answer; its texts stay until the books have it (`write`). `said`: see Texts."""

        def answered(conn: sqlite3.Connection) -> None:
            self._reseal(conn, kept.id)
            conn.execute(
                "update requests set state = ?, batch = ?, ended_s = ?, error = ?, status = ?, kind = ?, answer = ?,"
                " said = ? where id = ?",
                (
                    *(kept.state, kept.batch, kept.ended_s, kept.error, result.status, result.kind),
                    self._closed(kept.id, "answer", result.body),
                    self._closed(kept.id, "said", said),
                    kept.id,
                ),
            )

        await self._db.run(answered)

    async def unused(self, kept: Kept, paid: bytes) -> None:
        """A part's answer can't be used, and was paid for: all of it is to be asked for."""

        def noted(conn: sqlite3.Connection) -> None:
            self._reseal(conn, kept.id)
            conn.execute(
                "update requests set state = ?, batch = ?, error = ?, known = null, sent = null, paid = ? where id = ?",
                (kept.state, kept.batch, kept.error, self._closed(kept.id, "paid", paid), kept.id),
            )

        await self._db.run(noted)

    async def texts(self, ids: Sequence[str]) -> dict[str, Texts]:
        """Of those that still have one."""

        def found(conn: sqlite3.Connection) -> dict[str, Texts]:
            texts = {}
            for id in ids:
                names = f"meta, sealed, {', '.join(_TEXTS)}"
                row = conn.execute(f"select {names} from requests where id = ?", (id,)).fetchone()
                if row is not None and row[2] is not None:
                    opened = [
                        self._opened(id, name, value, row[1]) for name, value in zip(_TEXTS, row[2:], strict=True)
                    ]
                    texts[id] = Texts(row[0], *opened)
            return texts

        return await self._db.run(found)

    async def result(self, id: str) -> Result | None:
        """The answer, if it is there."""
        asked = "select status, kind, answer, sealed from requests where id = ?"
        row = await self._db.run(lambda conn: conn.execute(asked, (id,)).fetchone())
        if row is None or row[2] is None:
            return None
        body = self._opened(id, "answer", row[2], row[3])
        if row[3] and not body:
            raise StoreFault("the answer is sealed under a key that is not here")
        return Result(row[0], row[1], body)

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

    # -- sealing

    def _closed(self, id: str, name: str, text: bytes) -> bytes | None:
        if not text and name not in ("body", "answer"):
            return None
        return text if self._seal is None or name == "paid" else self._seal.close(text, _bound(id, name))

    def _opened(self, id: str, name: str, text: bytes | None, sealed: int) -> bytes:
        if text is None or not sealed or name == "paid":
            return text or b""
        try:
            if self._seal is None:
                raise SealedElsewhere(bytes(text[:8]).hex())
            return self._seal.open(text, _bound(id, name))
        except SealedElsewhere as elsewhere:
            self._missing.tell(elsewhere)
        except ValueError:
            log.error("a deferred request's text was changed after it had been sealed", request=id, text=name)
        return b""

    def _reseal(self, conn: sqlite3.Connection, id: str) -> None:
        """All texts of a request are sealed, or none: as it is configured now."""
        want = int(self._seal is not None)
        names = SEALED
        row = conn.execute(f"select sealed, {', '.join(names)} from requests where id = ?", (id,)).fetchone()
        if row is None or row[0] == want:
            return
        texts = [self._closed(id, name, self._opened(id, name, text, row[0])) if text is not None else None
                 for name, text in zip(names, row[1:], strict=True)]  # fmt: skip
        conn.execute(
            f"update requests set sealed = ?, {', '.join(f'{name} = ?' for name in names)} where id = ?",
            (want, *texts, id),
        )


def resealed(seal: Seal, id: str, sealed: int, texts: Sequence[bytes | None]) -> list[bytes | None] | None:
    """A request's texts, in the order of SEALED, under the seal's current key; None where all are so already.

    Raises SealedElsewhere; ValueError: one was changed.
    """
    named = list(zip(SEALED, texts, strict=True))
    if sealed and all(text is None or seal.is_current(text) for text in texts):
        return None
    plain = [text if text is None or not sealed else seal.open(text, _bound(id, name)) for name, text in named]
    return [
        None if text is None else seal.close(text, _bound(id, name)) for name, text in zip(SEALED, plain, strict=True)
    ]


def _bound(id: str, name: str) -> bytes:
    return f"deferred {id} {name}".encode()
