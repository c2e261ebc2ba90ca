"""The capture store's file: SQLite under the state directory, for its owner's eyes only. No threads, no log.

What is erased is overwritten (`secure_delete`), and the write-ahead log is emptied, so that nothing of it stays in the
files. Under a seal (proxy/seal.py) the line is closed, bound to whose it is; all else stays open, so that what is to be
erased or has been kept long enough is found without a key.

Source: sqlite.org/pragma.html#pragma_secure_delete, sqlite.org/wal.html.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from farthing.proxy.capture_record import Line
from farthing.proxy.ledger_file import is_corrupt, move_aside
from farthing.proxy.seal import Seal, SealedElsewhere, anew, closed, opened
from farthing.proxy.sql_transaction import transaction

__all__ = [
    "Selection",
    "Stats",
    "Unopened",
    "asides",
    "connect",
    "connect_anew",
    "erase",
    "insert",
    "lines",
    "lines_at",
    "remove_asides",
    "resealed",
    "stats",
    "sweep",
]

_LOCK_WAIT_S = 0.05
_CHECKED_BYTES = 64 * 2**20
_COLUMNS = ("id", "ts", "tenant", "user", "endpoint", "bytes", "line")
_SWEPT_AT_ONCE = 500


class Selection(NamedTuple):
    """What is to be erased; of several conditions all must be met, and none means everything."""

    user: str | None = None
    tenant: str | None = None
    before_s: float | None = None


class Stats(NamedTuple):
    """What is kept. Moments in seconds since the epoch; None where there is nothing."""

    rows: int = 0
    bytes: int = 0
    oldest_s: float | None = None
    newest_s: float | None = None


class Unopened(ValueError):
    """A record that can't be opened; the text says which, and why."""


class OtherTable(sqlite3.DatabaseError):
    """A sound database that isn't this version's capture store."""

    sqlite_errorcode = sqlite3.SQLITE_CORRUPT


def connect(path: Path, *, whole: bool = False) -> sqlite3.Connection:
    """A connection that writes; the file is made where there is none. `whole`: check all of it, however large.

    Raises sqlite3.Error, OSError.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    path.chmod(0o600)  # the log and its index are made with the file's own mode
    conn = sqlite3.connect(path, timeout=_LOCK_WAIT_S, isolation_level=None, check_same_thread=False)
    try:
        conn.execute("pragma auto_vacuum=incremental")
        conn.execute("pragma journal_mode=wal")
        conn.execute("pragma synchronous=normal")
        conn.execute("pragma secure_delete=on")
        if whole or path.stat().st_size <= _CHECKED_BYTES:
            verdict = conn.execute("pragma quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise OtherTable(verdict)
        conn.execute("begin immediate")
        found = tuple(column[1] for column in conn.execute("pragma table_info(captured)"))
        if not found:
            conn.execute(
                "create table captured (id text not null, ts real not null, tenant text not null, user text not null, "
                "endpoint text not null, bytes integer not null, line blob not null)"
            )
            conn.execute("create index captured_ts on captured (ts, bytes)")
            conn.execute("create index captured_user on captured (user, tenant)")
        elif found != _COLUMNS:
            raise OtherTable("its table is another version's")
        conn.execute("commit")
    except BaseException:
        conn.close()
        raise
    return conn


def connect_anew(path: Path, now_s: float, *, whole: bool = False) -> tuple[sqlite3.Connection, Path | None]:
    """`connect`; a file that isn't sound is moved aside before, and its new name given. Raises as `connect`."""
    try:
        return connect(path, whole=whole), None
    except sqlite3.DatabaseError as error:
        if not is_corrupt(error):
            raise
    aside = move_aside(path, f"corrupt-{int(now_s * 1000)}")
    return connect(path), aside


def insert(conn: sqlite3.Connection, records: Sequence[Line], seal: Seal | None = None) -> None:
    """All of them, in one transaction. Raises sqlite3.Error."""
    stored = [(*one[:5], closed(seal, one.text, _bound(one.id, one.tenant, one.user))) for one in records]
    with transaction(conn):
        conn.executemany(
            "insert into captured values (?, ?, ?, ?, ?, ?, ?)",
            [(*named, len(text), text) for *named, text in stored],
        )


def erase(conn: sqlite3.Connection, what: Selection) -> int:
    """Remove records for good: how many. Raises sqlite3.Error."""
    terms = {"user = ?": what.user, "tenant = ?": what.tenant, "ts < ?": what.before_s}
    chosen = {term: value for term, value in terms.items() if value is not None}
    where = " and ".join(chosen) or "true"
    with transaction(conn):
        count = conn.execute(f"delete from captured where {where}", tuple(chosen.values())).rowcount
    give_back(conn)
    return count


def sweep(conn: sqlite3.Connection, before_s: float, max_bytes: int) -> int:
    """Remove what is older, and the oldest of what is too much: how many. Raises sqlite3.Error."""
    with transaction(conn):
        count = conn.execute("delete from captured where ts < ?", (before_s,)).rowcount
        held = conn.execute("select coalesce(sum(bytes), 0) from captured indexed by captured_ts").fetchone()[0]
        while held > max_bytes:
            oldest = conn.execute(
                "select rowid, bytes from captured indexed by captured_ts order by ts limit ?", (_SWEPT_AT_ONCE,)
            ).fetchall()
            over: list[tuple[int]] = []
            for rowid, size in oldest:
                if held <= max_bytes:
                    break
                over.append((rowid,))
                held -= size
            conn.executemany("delete from captured where rowid = ?", over)
            count += len(over)
    give_back(conn)
    return count


def give_back(conn: sqlite3.Connection) -> None:
    """Empty the log, which still holds what was removed, and return pages to the disk where nobody reads just now."""
    with suppress(sqlite3.OperationalError):
        conn.execute("pragma incremental_vacuum").fetchall()
        conn.execute("pragma wal_checkpoint(truncate)").fetchall()


def stats(path: Path) -> Stats:
    """What is kept, read on a connection of its own. Raises sqlite3.Error: it can't be read."""
    if not path.exists():
        return Stats()
    with closing(_reading(path)) as conn:
        row = conn.execute(
            "select count(*), coalesce(sum(bytes), 0), min(ts), max(ts) from captured indexed by captured_ts"
        ).fetchone()
    return Stats(*row)


def lines(path: Path, since_s: float, seal: Seal | None = None) -> Iterator[bytes]:
    """Records from that moment on, oldest first, as JSON without line breaks.

    Raises sqlite3.Error: unreadable; Unopened: one is sealed under a key that `seal` hasn't, or was changed.
    """
    query = "select id, tenant, user, line from captured where ts >= ? order by ts, rowid"
    with closing(_reading(path)) as conn:
        for id, tenant, user, text in conn.execute(query, (since_s,)):
            yield _opened(seal, id, tenant, user, text)


def lines_at(path: Path, moments_s: Sequence[float], seal: Seal | None = None) -> list[bytes]:
    """Records of exactly these moments, of those that can be opened. Raises sqlite3.Error: unreadable."""
    marks = ", ".join("?" * len(moments_s))
    query = f"select id, tenant, user, line from captured indexed by captured_ts where ts in ({marks})"
    found: list[bytes] = []
    with closing(_reading(path)) as conn:
        for id, tenant, user, text in conn.execute(query, tuple(moments_s)):
            with suppress(Unopened):
                found.append(_opened(seal, id, tenant, user, text))
    return found


def asides(path: Path) -> list[Path]:
    """Damaged files of former times, which can't be searched, with their logs."""
    return sorted(found for found in path.parent.glob(f"{path.stem}.*{path.suffix}*") if found.name != path.name)


def remove_asides(path: Path, before_s: float | None = None) -> int:
    """Delete them, or those last written before that moment: how many files. Raises OSError."""
    chosen = [found for found in asides(path) if before_s is None or found.stat().st_mtime < before_s]
    for found in chosen:
        found.unlink(missing_ok=True)
    return len(chosen)


def resealed(seal: Seal, id: str, tenant: str, user: str, stored: bytes) -> bytes | None:
    """A record's line under the seal's current key; None where it is so already. Raises SealedElsewhere; ValueError: it
    was changed."""
    return anew(seal, stored, _bound(id, tenant, user))


def _opened(seal: Seal | None, id: str, tenant: str, user: str, stored: bytes) -> bytes:
    try:
        return opened(seal, stored, _bound(id, tenant, user))
    except SealedElsewhere as elsewhere:
        raise Unopened(f"request {id}: {elsewhere}: name it in store.encryption_old_keys") from None
    except ValueError as changed:
        raise Unopened(f"request {id}: {changed}") from None


def _bound(id: str, tenant: str, user: str) -> bytes:
    return "\0".join(("capture", id, tenant, user)).encode("utf-8", "surrogatepass")


def _reading(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5.0)
