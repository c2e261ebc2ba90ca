"""The tables of roll-ups, and the marks that say what they hold. SQL, no threads, no log.

`rollups`: for each cut, length and start one line for each key, with the sums of figures_sql.MEASURES. `rollup_times`:
the same lines' histograms (sketch.py). `repeated`: prompts that came again (repeated.py). `rollup_tags`: the tags that
have a cut. A cut is a question that can be answered: '' (all in one), a group's name, `tag:NAME`, or `wide`: every
group but the user, as a JSON list in WIDE_GROUPS' order. A user or a tag together with another group has no cut: there
could be as many as there are rows.

The mark `rolled` in `meta` is a row number: exactly the rows up to it are in the roll-ups, whenever they happened, so
that neither a crash nor a clock that went back can count a row twice or not at all. `rolled_id` is that row's id, by
which it is found where VACUUM has numbered the rows anew. `swept_s`: rows before that moment may have been removed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import NamedTuple

from farthing.proxy.figures_sql import MEASURES
from farthing.proxy.figures_values import GROUPS, OTHERS

__all__ = [
    "ANY",
    "TABLES",
    "WIDE",
    "WIDE_GROUPS",
    "Marks",
    "create",
    "empty",
    "marks",
    "set_mark",
    "wide_expressions",
]

WIDE = "wide"
WIDE_GROUPS = tuple(group for group in GROUPS if group != "user")
ANY = "\x01"
"""The key of a tag's cut that sums all rows which have the tag; the others are the total less these."""
MOST_TAGS = 100
"""Tags that have a cut, in all; those that came later are answered from rows alone."""

TABLES = ("rollups", "rollup_times", "repeated", "rollup_tags")


class Marks(NamedTuple):
    """What the roll-ups hold. `rolled`: the last row number in them, 0 for none."""

    rolled: int = 0
    swept_s: float = 0.0


def create(conn: sqlite3.Connection) -> None:
    """Make those tables that aren't there."""
    sums = ", ".join(f"{name} integer not null" for name in MEASURES)
    place = "cut text not null, length_s integer not null, start_s integer not null, key text not null"
    conn.execute(
        f"create table if not exists rollups ({place}, {sums}, primary key (cut, length_s, start_s, key)) without rowid"
    )
    conn.execute(
        f"create table if not exists rollup_times ({place}, name text not null, counts blob not null, "
        "primary key (cut, length_s, start_s, name, key)) without rowid"
    )
    conn.execute(
        "create table if not exists repeated (length_s integer not null, start_s integer not null, "
        "key_hash text not null, requests integer not null, hits integer not null, saved_u integer not null, "
        "saved_p integer not null, last_s real not null, model text not null, "
        "primary key (length_s, start_s, key_hash)) without rowid"
    )
    conn.execute("create table if not exists rollup_tags (name text primary key) without rowid")


def marks(conn: sqlite3.Connection) -> Marks:
    """The marks; nothing rolled where there are no roll-ups. Raises LookupError where the marked row is gone."""
    names = {name for (name,) in conn.execute("select name from sqlite_master where type = 'table'")}
    if not {*TABLES, "meta"} <= names:
        return Marks()
    told = dict(conn.execute("select key, value from meta where key in ('rolled', 'rolled_id', 'swept_s')").fetchall())
    rolled, row_id = int(told.get("rolled", 0)), told.get("rolled_id", "")
    if rolled:
        found = conn.execute("select 1 from requests where rowid = ? and id = ?", (rolled, row_id)).fetchone()
        if found is None:
            rolled = conn.execute("select max(rowid) from requests where id = ?", (row_id,)).fetchone()[0]
        if rolled is None:
            raise LookupError(f"row {row_id[:80]!r}, the last one in the roll-ups, is in the ledger no more")
    return Marks(rolled, float(told.get("swept_s", 0)))


def set_mark(conn: sqlite3.Connection, name: str, value: object) -> None:
    """Set one of the marks."""
    conn.execute("insert or replace into meta values (?, ?)", (name, str(value)))


def empty(conn: sqlite3.Connection, swept_s: float) -> None:
    """Forget the roll-ups since `swept_s`, so that they are made anew from the rows; older ones stay.

    Rows before it are in those, and removed. Call it within a transaction.
    """
    for table in ("rollups", "rollup_times", "repeated"):
        conn.execute(f"delete from {table} where start_s >= ?", (swept_s,))
    set_mark(conn, "rolled", 0)
    set_mark(conn, "rolled_id", "")


def wide_expressions(by: Sequence[str]) -> tuple[str, ...]:
    """SQL for each group of `by`, over the keys of the wide cut."""
    return tuple(
        f"case when key = '{OTHERS}' then key else json_extract(key, '$[{WIDE_GROUPS.index(part)}]') end" for part in by
    )
