"""Leases as rows of the file that holds the answers (cache/disk_shared.py): each function is part of one transaction.

Of a holder that dies the others know by its mark (alive.py), before its lease has lapsed. That stands in a table of its
own, since workers of an older version write the other one by position.

They stand in that file so that an answer and the end of its lease are one commit: who reads that the lease has landed
reads the answer too, and an answer under a smaller token than was given since is not written.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable

from farthing.cache.lease import REMEMBERED_S, Answer, State

__all__ = ["HOLDERS", "SCHEMA", "free", "held_by", "land", "renew", "sweep", "take"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
  name TEXT PRIMARY KEY, token INTEGER NOT NULL, flight TEXT NOT NULL, until_s REAL NOT NULL, ended TEXT NOT NULL,
  ended_s REAL NOT NULL, replaced INTEGER NOT NULL) WITHOUT ROWID
"""
HOLDERS = """
CREATE TABLE IF NOT EXISTS lease_holders (name TEXT PRIMARY KEY, token INTEGER NOT NULL, mark TEXT NOT NULL)
WITHOUT ROWID
"""
_FIND = "SELECT token, flight, until_s, ended, ended_s, replaced FROM leases WHERE name = ?"
_GIVE = "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, '', 0, ?)"
_END = "UPDATE leases SET ended = ?, ended_s = ? WHERE name = ? AND token = ? AND ended = ''"
_SWEEP = "DELETE FROM leases WHERE (ended != '' AND replaced = 0 AND ended_s < ?) OR until_s < ?"
_HOLDER = "SELECT mark FROM lease_holders WHERE name = ? AND token = ?"
_HOLD = "INSERT OR REPLACE INTO lease_holders VALUES (?, ?, ?)"
_SWEEP_HOLDERS = "DELETE FROM lease_holders WHERE name NOT IN (SELECT name FROM leases WHERE ended = '')"
# An ending is told for so long: workers follow each other's answers within a fifth of a second.
_ENDING_TOLD_S = 2.0


def held_by(
    db: sqlite3.Connection, name: str, flight: str, waited_for: str, now_s: float, dead: Callable[[str], bool]
) -> Answer | None:
    """What `take` would answer without giving anything; None: it would give. A look that needs no lock.

    `dead`: whether the process with that mark has ended.
    """
    found = db.execute(_FIND, (name,)).fetchone()
    if found is None:
        return None
    token, holder, until_s, ended, ended_s, _ = found
    if not ended:
        if holder == flight:
            return Answer(State.TAKEN, flight, token)
        if until_s <= now_s:
            return None
        mark = db.execute(_HOLDER, (name, token)).fetchone()
        return None if mark is not None and dead(mark[0]) else Answer(State.HELD, holder)
    if not 0 <= now_s - ended_s < _ENDING_TOLD_S:
        return None
    if ended == "landed":
        return Answer(State.STORED, holder)
    return Answer(State.FAILED, holder) if holder == waited_for else None


def take(
    db: sqlite3.Connection,
    name: str,
    flight: str,
    waited_for: str,
    now_s: float,
    lease_s: float,
    mark: str,
    dead: Callable[[str], bool],
) -> Answer:
    """See Leases.take. `mark`: of the process that asks, '' if it has none; `dead`: as of `held_by`."""
    if (known := held_by(db, name, flight, waited_for, now_s, dead)) is not None:
        return known
    found = db.execute(_FIND, (name,)).fetchone()
    token = int(now_s * 1_000_000)
    replaced = 0
    if found is not None:
        token = max(token, found[0] + 1)
        replaced = int(found[5] or not found[3])
    db.execute(_GIVE, (name, token, flight, now_s + lease_s, replaced))
    if mark:
        db.execute(_HOLD, (name, token, mark))
    return Answer(State.TAKEN, flight, token)


def renew(db: sqlite3.Connection, name: str, token: int, until_s: float) -> None:
    """See Leases.renew."""
    db.execute("UPDATE leases SET until_s = ? WHERE name = ? AND token = ? AND ended = ''", (until_s, name, token))


def land(db: sqlite3.Connection, name: str, token: int, now_s: float) -> bool:
    """End the lease with an answer; False where a larger token was given since."""
    found = db.execute("SELECT token FROM leases WHERE name = ?", (name,)).fetchone()
    if found is not None and found[0] > token:
        return False
    db.execute(_END, ("landed", now_s, name, token))
    return True


def free(db: sqlite3.Connection, name: str, token: int, now_s: float) -> None:
    """See Leases.free."""
    db.execute(_END, ("failed", now_s, name, token))


def sweep(db: sqlite3.Connection, now_s: float) -> None:
    """Forget what has ended and was told, and tokens that nobody can have any more."""
    db.execute(_SWEEP, (now_s - 2 * _ENDING_TOLD_S, now_s - REMEMBERED_S))
    db.execute(_SWEEP_HOLDERS)
