"""Leases as rows of the file that holds the answers (cache/disk_shared.py): each function is part of one transaction.

They stand in that file so that an answer and the end of its lease are one commit: who reads that the lease has landed
reads the answer too, and an answer under a smaller token than was given since is not written.
"""

from __future__ import annotations

import sqlite3

from farthing.cache.lease import REMEMBERED_S, Answer, State

__all__ = ["SCHEMA", "free", "held_by", "land", "renew", "sweep", "take"]

SCHEMA = """
CREATE TABLE IF NOT EXISTS leases (
  name TEXT PRIMARY KEY, token INTEGER NOT NULL, flight TEXT NOT NULL, until_s REAL NOT NULL, ended TEXT NOT NULL,
  ended_s REAL NOT NULL, replaced INTEGER NOT NULL) WITHOUT ROWID
"""
_FIND = "SELECT token, flight, until_s, ended, ended_s, replaced FROM leases WHERE name = ?"
_GIVE = "INSERT OR REPLACE INTO leases VALUES (?, ?, ?, ?, '', 0, ?)"
_END = "UPDATE leases SET ended = ?, ended_s = ? WHERE name = ? AND token = ? AND ended = ''"
_SWEEP = "DELETE FROM leases WHERE (ended != '' AND replaced = 0 AND ended_s < ?) OR until_s < ?"
# An ending is told for so long: workers follow each other's answers within a fifth of a second.
_ENDING_TOLD_S = 2.0


def held_by(db: sqlite3.Connection, name: str, flight: str, waited_for: str, now_s: float) -> Answer | None:
    """What `take` would answer without giving anything; None: it would give. A look that needs no lock."""
    found = db.execute(_FIND, (name,)).fetchone()
    if found is None:
        return None
    token, holder, until_s, ended, ended_s, _ = found
    if not ended:
        if holder == flight:
            return Answer(State.TAKEN, flight, token)
        return Answer(State.HELD, holder) if until_s > now_s else None
    if not 0 <= now_s - ended_s < _ENDING_TOLD_S:
        return None
    if ended == "landed":
        return Answer(State.STORED, holder)
    return Answer(State.FAILED, holder) if holder == waited_for else None


def take(db: sqlite3.Connection, name: str, flight: str, waited_for: str, now_s: float, lease_s: float) -> Answer:
    """See Leases.take."""
    if (known := held_by(db, name, flight, waited_for, now_s)) is not None:
        return known
    found = db.execute(_FIND, (name,)).fetchone()
    token = int(now_s * 1_000_000)
    replaced = 0
    if found is not None:
        token = max(token, found[0] + 1)
        replaced = int(found[5] or not found[3])
    db.execute(_GIVE, (name, token, flight, now_s + lease_s, replaced))
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
