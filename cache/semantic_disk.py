"""The semantic cache's file: one SQLite table of texts with their vectors, so that a restart forgets nothing.

Rules of this file:
1. The file is a copy: the cache is right without it, and a disk that fails costs only what a restart forgets.
2. A row is believed only with its checksum, and only if the same model made it.
3. Every change is its own transaction in WAL mode: after kill -9 each row is there whole or not at all.
4. Under a seal the text and its vector, from which much of a text can be guessed, are sealed together, bound to entry,
   scope and model. What is sealed under a key that isn't here is left where it is, until its time is over.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from farthing.proxy.seal import MissingKeys, Seal, SealedElsewhere, anew, closed, is_sealed, opened

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["FIELDS", "Change", "Row", "SemanticDisk", "forget_in", "resealed"]

log = structlog.get_logger("farthing.semantic")

Change = tuple[str, Iterable[tuple[object, ...]]]
"""A statement, and what it is done with."""
FIELDS = "entry_key, scope, text, expires_s, embedder, vector, worth_usd, checksum, uses"

_VERSION = "2"
_BUSY_S = 0.25
_UNKNOWN_WORTH = -1.0
_MOST_USES = 2**53
_LENGTH_BYTES = 4  # of a sealed text
_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value TEXT);
CREATE TABLE IF NOT EXISTS texts (id INTEGER PRIMARY KEY AUTOINCREMENT, entry_key TEXT NOT NULL UNIQUE,
  scope TEXT NOT NULL, text TEXT NOT NULL, expires_s REAL NOT NULL, embedder TEXT NOT NULL, vector BLOB NOT NULL,
  worth_usd REAL NOT NULL, checksum BLOB NOT NULL, uses INTEGER NOT NULL DEFAULT 0);
"""


@dataclass(frozen=True, slots=True)
class Row:
    """One text, whose answer is `entry_key`. `vector`: float32 [dim]. `expires_s`: seconds since the epoch.

    `worth_usd`: what one hit saves, None where unknown (a negative number in the file). `uses`: hits until now; outside
    the checksum, since a wrong count costs no more than a bad choice of what leaves first.
    """

    scope: str
    entry_key: str
    text: str
    expires_s: float
    vector: NDArray[np.float32]
    worth_usd: float | None = None
    uses: int = 0


class SemanticDisk:
    """The file at `path`, opened for one thread. Errors of the disk are told once, and never raised.

    `busy_s`: how long another process's lock is waited for. `schema`: of what lies beside the texts. `seal`: closes
    texts and vectors.
    """

    def __init__(
        self,
        path: Path,
        *,
        embedder: str,
        dim: int,
        busy_s: float = _BUSY_S,
        schema: str = "",
        seal: Seal | None = None,
    ) -> None:
        self._path = path
        self._busy_s = busy_s
        self._schema = _SCHEMA + schema
        self._embedder = embedder
        self._dim = dim
        self._seal = seal
        self._missing = MissingKeys("near-duplicates", "they are not found, and stay in the file until they expire")
        self._unread_s: list[float] = []  # when what can't be opened expires, soonest first
        self._db: sqlite3.Connection | None = None
        self._failing = False

    def load(self) -> list[Row]:
        """Open the file and give every good row, oldest first. Another model's rows and damaged ones are deleted,
        told in one line; a file that is no database of ours is moved aside, told in one line, and begun anew."""
        self.open()
        return self.rows()

    def open(self) -> None:
        """Open the file, or begin it anew."""
        self._trying(lambda db: [])

    def rows(self) -> list[Row]:
        """`load`, of a file that is open."""
        return self._trying(self._read)

    def _trying(self, read: Callable[[sqlite3.Connection], list[Row]]) -> list[Row]:
        for _ in range(2):
            try:
                if self._db is None:
                    self._db = self._connect()
                return read(self._db)
            except (sqlite3.Error, OSError) as error:
                self.close()
                if not _is_corrupt(error) or not self._move_aside(error):
                    self._tell(error)
                    break
        return []

    def put(self, row: Row) -> None:
        """Write one row, in place of the one under its entry key."""
        worth_usd = _UNKNOWN_WORTH if row.worth_usd is None else row.worth_usd
        text, vector = self._stored(row)
        values = (row.scope, text, row.expires_s, self._embedder, vector, worth_usd)
        statement = (
            "INSERT OR REPLACE INTO texts (entry_key, scope, text, expires_s, embedder, vector, worth_usd, checksum) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)"
        )
        added = [(row.entry_key, *values, _checksum(row.entry_key, *values))]
        self._change((statement, added), *self._noting([row.entry_key]))

    def delete(self, entry_keys: Iterable[str]) -> None:
        """Delete these rows, in one transaction."""
        keys = list(entry_keys)
        self._change(("DELETE FROM texts WHERE entry_key = ?", [(key,) for key in keys]), *self._noting(keys))

    def used(self, counts: Iterable[tuple[str, int]]) -> None:
        """Write how often these entries were hit, in one transaction."""
        self._change(("UPDATE texts SET uses = ? WHERE entry_key = ?", [(uses, key) for key, uses in counts]))

    def clear(self) -> None:
        """Delete every row."""
        self._unread_s = []
        self._change(("DELETE FROM texts", [()]), *self._noting(None))

    @property
    def unread(self) -> bool:
        """Whether rows are there that can't be opened: who holds the others doesn't know of them."""
        return bool(self._unread_s)

    def sweep(self, now_s: float) -> None:
        """Delete those of them whose time is over."""
        if self._unread_s and self._unread_s[0] <= now_s:
            self._change(("DELETE FROM texts WHERE expires_s <= ?", [(now_s,)]))
            self._unread_s = [one for one in self._unread_s if one > now_s]

    def close(self) -> None:
        """Let the file go; idempotent."""
        db, self._db = self._db, None
        if db is not None:
            db.close()

    def _connect(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # It holds prompts: nobody else on this machine may read it.
        os.close(os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600))
        db = sqlite3.connect(self._path, timeout=self._busy_s, isolation_level=None)
        try:
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute("PRAGMA secure_delete = ON")  # what is removed or closed anew stands nowhere any more
            db.executescript(self._schema)
            version = db.execute("SELECT value FROM meta WHERE name = 'version'").fetchone()
            if version is None:
                db.execute("INSERT INTO meta VALUES ('version', ?)", (_VERSION,))
            elif version != (_VERSION,):
                raise _ForeignSchema(f"version {version[0]!r}")
        except BaseException:
            db.close()
            raise
        return db

    def _read(self, db: sqlite3.Connection) -> list[Row]:
        rows: list[Row] = []
        dropped: list[tuple[int]] = []
        unread_s: list[float] = []
        for number, *fields in db.execute(f"SELECT id, {FIELDS} FROM texts ORDER BY id"):
            try:
                row = self._believed(*fields)
            except SealedElsewhere as sealed:
                self._missing.tell(sealed)
                unread_s.append(fields[3])
                continue
            if row is None:
                dropped.append((number,))
            else:
                rows.append(row)
        self._unread_s = sorted(unread_s)
        if dropped:
            log.warning("semantic cache: rows of another model or damaged ones dropped", rows=len(dropped))
            self._change(("DELETE FROM texts WHERE id = ?", dropped))
        return rows

    def _believed(self, key: str, *fields: object) -> Row | None:
        """The row of these columns; None: damaged, or another model's. Raises SealedElsewhere."""
        import numpy as np

        match (key, *fields):
            case (
                str(), str() as scope, str() as text, float() as expires_s, str() as model, bytes() as blob,
                float() as worth_usd, check, uses,
            ):  # fmt: skip
                if model == self._embedder and check == _checksum(key, scope, text, expires_s, model, blob, worth_usd):
                    text, blob = self._opened(key, scope, text, blob)
                    vector = np.frombuffer(blob, "<f4").astype(np.float32) if len(blob) == 4 * self._dim else None
                    if vector is not None and np.isfinite(vector).all():
                        known = worth_usd if 0 <= worth_usd < float("inf") else None
                        hits = uses if isinstance(uses, int) and 0 <= uses < _MOST_USES else 0
                        return Row(scope, key, text, expires_s, vector, known, hits)
        return None

    def _stored(self, row: Row) -> tuple[str, bytes]:
        """Text and vector as they are written: under a seal no text, and both in the place of the vector."""
        vector = row.vector.astype("<f4").tobytes()
        if self._seal is None:
            return row.text, vector
        text = row.text.encode()
        return "", closed(self._seal, _joined(text, vector), _bound(row.entry_key, row.scope, self._embedder))

    def _opened(self, key: str, scope: str, text: str, blob: bytes) -> tuple[str, bytes]:
        """Text and vector of what `_stored` gave; no vector where it was changed. Raises SealedElsewhere."""
        if text or not is_sealed(blob):
            return text, blob
        try:
            whole = opened(self._seal, blob, _bound(key, scope, self._embedder))
            end = _LENGTH_BYTES + int.from_bytes(whole[:_LENGTH_BYTES], "big")
            return whole[_LENGTH_BYTES:end].decode(), whole[end:]
        except SealedElsewhere:
            raise
        except ValueError:
            return "", b""

    def _noting(self, entry_keys: Iterable[str] | None) -> tuple[Change, ...]:
        """What else is written where these entries change; None: all of them."""
        return ()

    def _change(self, *changes: Change) -> None:
        """All of it in one transaction."""
        if self._db is None:
            return
        try:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                for statement, rows in changes:
                    self._db.executemany(statement, rows)
                self._db.execute("COMMIT")
            finally:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
        except sqlite3.Error as error:
            self._tell(error)
        else:
            self._failing = False

    def _move_aside(self, error: Exception) -> bool:
        try:
            for part in self._parts():
                if part.exists():
                    part.replace(part.with_name(f"{part.name}.corrupt"))
        except OSError:
            return False
        log.error("the semantic cache's file can't be read: moved aside, starting anew", reason=repr(error))
        return True

    def _parts(self) -> Iterator[Path]:
        for suffix in ("", "-wal", "-shm"):
            yield self._path.with_name(self._path.name + suffix)

    def _tell(self, error: Exception) -> None:
        if not self._failing:
            self._failing = True
            log.error("the semantic cache's file fails: going on from memory", path=str(self._path), error=repr(error))


def forget_in(path: Path, entry_keys: Sequence[str], *, everything: bool = False) -> int:
    """Delete these rows (or all) of a file that nobody has open; how many were there. In a file that is missing or
    can't be read there are none: it is moved aside when it is opened for use."""
    if not (entry_keys or everything) or not path.is_file():
        return 0
    try:
        with closing(sqlite3.connect(path, timeout=_BUSY_S)) as db, db:
            db.execute("PRAGMA secure_delete = ON")
            if everything:
                return db.execute("DELETE FROM texts").rowcount
            return db.executemany("DELETE FROM texts WHERE entry_key = ?", [(key,) for key in entry_keys]).rowcount
    except sqlite3.Error as error:
        log.error("the semantic cache's file can't be changed", path=str(path), error=repr(error))
        return 0


def resealed(
    seal: Seal,
    key: str,
    scope: str,
    text: str,
    expires_s: float,
    embedder: str,
    vector: bytes,
    worth_usd: float,
    checksum: bytes,
) -> tuple[str, bytes, bytes] | None:
    """A row's text, vector and checksum as they are written under the seal's current key; None: they are so already.

    Raises SealedElsewhere; ValueError: the row is damaged.
    """  # fmt: skip
    if checksum != _checksum(key, scope, text, expires_s, embedder, vector, worth_usd):
        raise ValueError("its checksum is another")
    bound = _bound(key, scope, embedder)
    if text or not is_sealed(vector):
        blob: bytes | None = closed(seal, _joined(text.encode(), vector), bound)
    else:
        blob = anew(seal, vector, bound)
    return None if blob is None else ("", blob, _checksum(key, scope, "", expires_s, embedder, blob, worth_usd))


def _joined(text: bytes, vector: bytes) -> bytes:
    return len(text).to_bytes(_LENGTH_BYTES, "big") + text + vector


def _bound(key: str, scope: str, embedder: str) -> bytes:
    return "\0".join(("near-duplicate", key, scope, embedder)).encode()


class _ForeignSchema(sqlite3.DatabaseError):
    """A database, but of another version of ours."""


def _is_corrupt(error: Exception) -> bool:
    name = getattr(error, "sqlite_errorname", "")
    return isinstance(error, _ForeignSchema) or name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB", "SQLITE_ERROR"))


def _checksum(
    key: str, scope: str, text: str, expires_s: float, embedder: str, vector: bytes, worth_usd: float
) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    numbers = struct.pack("<dd", expires_s, worth_usd)
    for part in (key.encode(), scope.encode(), text.encode(), embedder.encode(), numbers, vector):
        digest.update(len(part).to_bytes(8, "big") + part)
    return digest.digest()
