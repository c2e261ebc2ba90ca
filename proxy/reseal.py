"""Everything that is sealed at rest, sealed anew under the current key: what stood under an old one, or in the open.

Rules of this file:
1. A text is replaced only by the same text, and only where it still stands as it was read: a running farthing may
   change and remove what it likes meanwhile, and a command that is killed has changed whole texts or none.
2. Nothing is noted of how far it came: what is under the current key already is passed over. Who was killed begins
   again.
3. What can't be opened is left as it is, and counted.
4. It goes over all once more, until there is nothing to do: what it says in the end is what it then found.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from farthing.cache import codec, semantic_disk
from farthing.compress import decided
from farthing.proxy import capture_file, defer_store, replay_state, state
from farthing.proxy.build_compress import TEXT_STORES
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import Seal, SealedElsewhere
from farthing.proxy.whole_file import write_whole

__all__ = ["Done", "Tally", "Tell", "asides", "reseal_files", "until_done"]

T = TypeVar("T")
Tell = Callable[[str, int, int], None]
"""Told how far it is: where, how many, of how many."""

_AT_ONCE = 64
_AT_ONCE_BYTES = 2**20
_LOCK_WAIT_S = 5.0  # a running farthing's transactions are short, and so are those here
_MOST_PASSES = 5
_STORES = ("answers", "semantic", *TEXT_STORES, "capture", "deferred")


@dataclass
class Tally:
    """What was found in one place. `current`: sealed under the current key already; `elsewhere`: under keys that aren't
    here, by their ids; `missed`: changed by another process meanwhile."""

    current: int = 0
    resealed: int = 0
    missed: int = 0
    damaged: int = 0
    elsewhere: Counter[str] = field(default_factory=Counter)

    @property
    def entries(self) -> int:
        """All of them."""
        return self.current + self.resealed + self.missed + self.damaged + self.elsewhere.total()

    def judge(self, anew: Callable[[], T | None]) -> T | None:
        """Calls what seals one entry anew, and counts what came of it; what is to be written, if anything is."""
        try:
            found = anew()
        except SealedElsewhere as sealed:
            self.elsewhere[sealed.key_id] += 1
            return None
        except (ValueError, TypeError):
            self.damaged += 1
            return None
        if found is None:
            self.current += 1
        else:
            self.resealed += 1
        return found

    def miss(self) -> None:
        """What `judge` gave wasn't written: the entry had been changed or removed."""
        self.resealed -= 1
        self.missed += 1


class Done(NamedTuple):
    """How one place stands. `resealed`: in all passes; `found`: by the last one."""

    resealed: int
    found: Tally


async def until_done(one_pass: Callable[[], Any]) -> dict[str, Done]:
    """Passes, each of which gives a Tally for each place, until one has nothing to do any more."""
    resealed: Counter[str] = Counter()
    found: Mapping[str, Tally] = {}
    for _ in range(_MOST_PASSES):
        found = await one_pass()
        for place, tally in found.items():
            resealed[place] += tally.resealed
        if not any(tally.resealed or tally.missed for tally in found.values()):
            break
    return {place: Done(resealed[place], tally) for place, tally in found.items()}


class _Kept(NamedTuple):
    """A table that holds texts. `written`: the columns that are sealed anew; `anew`: their values out of all columns'.
    Raises as Tally.judge takes it."""

    table: str
    bound: tuple[str, ...]
    written: tuple[str, ...]
    anew: Callable[[Seal, Mapping[str, Any]], Sequence[object] | None]


def _answer(seal: Seal, row: Mapping[str, Any]) -> Sequence[object] | None:
    found = codec.resealed(row["bytes"], seal)
    return None if found is None else (found,)


def _near(seal: Seal, row: Mapping[str, Any]) -> Sequence[object] | None:
    return semantic_disk.resealed(
        seal,
        row["entry_key"],
        row["scope"],
        row["text"],
        row["expires_s"],
        row["embedder"],
        row["vector"],
        row["worth_usd"],
        row["checksum"],
    )


def _decided(seal: Seal, row: Mapping[str, Any]) -> Sequence[object] | None:
    found = decided.anew(row["key"], row["value"], seal)
    return None if found is None else (found,)


def _captured(seal: Seal, row: Mapping[str, Any]) -> Sequence[object] | None:
    found = capture_file.resealed(seal, row["id"], row["tenant"], row["user"], row["line"])
    return None if found is None else (len(found), found)


def _deferred(seal: Seal, row: Mapping[str, Any]) -> Sequence[object] | None:
    found = defer_store.resealed(seal, row["id"], row["sealed"], [row[name] for name in defer_store.SEALED])
    return None if found is None else (1, *found)


_TABLES: Mapping[str, _Kept] = {
    "answers": _Kept("bodies", (), ("bytes",), _answer),
    "semantic": _Kept(
        "texts",
        ("entry_key", "scope", "expires_s", "embedder", "worth_usd"),
        ("text", "vector", "checksum"),
        _near,
    ),
    **dict.fromkeys(TEXT_STORES, _Kept("decided", ("key",), ("value",), _decided)),
    "capture": _Kept("captured", ("id", "tenant", "user"), ("bytes", "line"), _captured),
    "deferred": _Kept("requests", ("id",), ("sealed", *defer_store.SEALED), _deferred),
}


def reseal_files(state_dir: Path, seal: Seal, tell: Tell) -> dict[str, Tally]:
    """One pass over all files of a state directory, by file. Blocks. Raises StoreFault: one can't be read or written,
    or is of an older version."""
    found: dict[str, Tally] = {}
    for name in _STORES:
        path = state_dir / f"{name}.db"
        if path.is_file():
            found[path.name] = tally = Tally()
            try:
                _reseal_table(path, _TABLES[name], seal, tally, tell)
            except (sqlite3.Error, OSError) as error:
                raise StoreFault(f"{path}: {error}") from error
    for path in sorted(state_dir.glob("*.replay-state")):
        found[path.name] = tally = Tally()
        try:
            _reseal_replay(path, state_dir / "secret", seal, tally)
        except OSError as error:
            raise StoreFault(f"{path}: {error}") from error
    return found


def empty_pages(state_dir: Path) -> bool:
    """Write `answers.db` anew, without the pages that removed answers stood in; whether that was done: not while a
    farthing runs. Blocks. Raises StoreFault."""
    path = state_dir / "answers.db"
    if not path.is_file():
        return True
    try:
        lock = state.claim(state_dir)
    except state.Held:
        return False
    try:
        with closing(_connect(path)) as db:
            db.execute("VACUUM")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
    except (sqlite3.Error, OSError) as error:
        raise StoreFault(f"{path}: {error}") from error
    finally:
        lock.close()
    return True


def asides(state_dir: Path) -> list[str]:
    """The names of files that were moved aside as damaged, and may hold texts still."""
    return sorted(
        path.name for path in state_dir.glob("*corrupt*") if path.name.partition(".")[0] in _STORES and path.is_file()
    )


def _connect(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=_LOCK_WAIT_S, isolation_level=None)
    db.execute("PRAGMA secure_delete = ON")  # what was sealed otherwise stands nowhere any more
    return db


def _reseal_table(path: Path, kept: _Kept, seal: Seal, tally: Tally, tell: Tell) -> None:
    with closing(_connect(path)) as db:
        names = (*kept.bound, *kept.written)
        there = {column[1] for column in db.execute(f"PRAGMA table_info({kept.table})")}
        if not there:
            return
        if missing := [name for name in names if name not in there]:
            raise StoreFault(f"{path} is of an older version (no {missing[0]}): start farthing once, then ask again")
        total = db.execute(f"SELECT count(*) FROM {kept.table}").fetchone()[0]
        done = 0
        for rows in _batches(db, kept.table, names):
            changed = []
            for number, *values in rows:
                row = dict(zip(names, values, strict=True))
                anew = tally.judge(lambda row=row: kept.anew(seal, row))  # type: ignore[misc]
                if anew is not None:
                    changed.append((*anew, number, *(row[name] for name in kept.written)))
            _write(db, kept, changed, tally)
            done += len(rows)
            tell(path.name, done, max(done, total))
        with suppress(sqlite3.OperationalError):  # somebody reads just now; it is emptied by and by
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


def _batches(db: sqlite3.Connection, table: str, names: Sequence[str]) -> Iterator[list[tuple[Any, ...]]]:
    """All rows in the order of their numbers, a few at once: what came meanwhile is among them."""
    query = f"SELECT rowid, {', '.join(names)} FROM {table} WHERE rowid > ? ORDER BY rowid LIMIT ?"
    after = -(2**63)
    while True:
        rows: list[tuple[Any, ...]] = []
        size = 0
        with closing(db.execute(query, (after, _AT_ONCE))) as found:
            for row in found:
                rows.append(row)
                size += sum(len(value) for value in row if isinstance(value, bytes | str))
                if size >= _AT_ONCE_BYTES:
                    break
        if not rows:
            return
        after = rows[-1][0]
        yield rows


def _write(db: sqlite3.Connection, kept: _Kept, changed: Sequence[tuple[object, ...]], tally: Tally) -> None:
    """In one transaction, each where it still stands as it was read."""
    if not changed:
        return
    sets, same = (
        joint.join(f"{name} {sign} ?" for name in kept.written) for joint, sign in ((", ", "="), (" AND ", "IS"))
    )
    db.execute("BEGIN IMMEDIATE")
    with db:
        for values in changed:
            if not db.execute(f"UPDATE {kept.table} SET {sets} WHERE rowid = ? AND {same}", values).rowcount:
                tally.miss()


def _reseal_replay(path: Path, secret_file: Path, seal: Seal, tally: Tally) -> None:
    content = path.read_bytes()
    pieces = tally.judge(lambda: replay_state.resealed(content, bytes.fromhex(secret_file.read_text("ascii")), seal))
    if pieces is None:
        return
    if path.read_bytes() != content:  # a replay was stopped just now
        tally.miss()
        return
    write_whole(path, pieces)
