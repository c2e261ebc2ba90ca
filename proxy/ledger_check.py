"""Whether a ledger is sound: the file, the identity of rows and roll-ups, and roll-ups against rows. It only reads."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from typing import Any

from farthing.proxy.figures_read import snapshot
from farthing.proxy.figures_sql import MEASURES, Rows, sums_by, sums_of
from farthing.proxy.figures_values import Sums
from farthing.proxy.rollup_plan import DAY_S, HOUR_S, MINUTE_S
from farthing.proxy.rollup_tables import ANY, TABLES, marks
from farthing.proxy.row import SAVED_COLUMNS

__all__ = ["checked"]

SHOWN = 20


def checked(conn: sqlite3.Connection) -> dict[str, Any]:
    """Counts, and `faults`: a sentence for each of the first few, and how many there are. Cost: scans of it all."""
    with snapshot(conn):
        faults: list[str] = []
        found: dict[str, Any] = {"rows": conn.execute("select count(*) from requests").fetchone()[0]}
        verdicts = [verdict for (verdict,) in conn.execute("pragma quick_check(5)")]
        faults += [f"the file is damaged: {verdict}" for verdict in verdicts if verdict != "ok"]
        faults += _rows(conn)
        names = {name for (name,) in conn.execute("select name from sqlite_master where type = 'table'")}
        if not {*TABLES, "meta"} <= names:
            found |= {"rolled_up": 0, "rollups": 0}
        else:
            found["rollups"] = conn.execute("select count(*) from rollups").fetchone()[0]
            try:
                known = marks(conn)
            except LookupError as error:
                found["rolled_up"] = 0
                faults.append(str(error.args[0]))
            else:
                query = "select count(*) from requests where rowid <= ?"
                found["rolled_up"] = conn.execute(query, (known.rolled,)).fetchone()[0]
                faults += _rollups(conn, known.rolled, known.swept_s)
    return {**found, "ok": not faults, "faults": faults[:SHOWN], "fault_count": len(faults)}


def _rows(conn: sqlite3.Connection) -> Iterator[str]:
    """Rows that break the identity, or know a part of what they should know whole."""
    saved = " + ".join(SAVED_COLUMNS)
    query = f"""
        select id, baseline_usd - cost_usd, {saved} from requests
        where cost_usd is not null and baseline_usd is not null and baseline_usd - cost_usd is not {saved}"""
    for row_id, difference, sum_saved in conn.execute(query):
        yield f"row {row_id!r}: baseline less cost is {difference}, the savings are {sum_saved} (pico-dollars)"


def _rollups(conn: sqlite3.Connection, rolled: int, swept_s: float) -> Iterator[str]:
    lines = _lines(conn, "cut = ''", "length_s, start_s")
    for key, sums in _lines(conn, "1", "cut, length_s, start_s, key").items():
        if sums.unattributed:
            yield f"roll-up {key}: {sums.unattributed} pico-dollars of saving without a cause"
    # Rows before `swept_s` may be gone. Each length of the whole against the rows.
    rows = Rows(((swept_s, 1e13),), up_to=rolled)
    if rolled:
        by_hour = sums_by(conn, (f"cast(ts / {HOUR_S} as integer) * {HOUR_S}",), (), rows)
        for start_s in sorted({int(key[0]) for key in by_hour} | {s for n, s in lines if n == HOUR_S and s >= swept_s}):
            if by_hour.get((str(start_s),), Sums()).rows != lines.get((HOUR_S, start_s), Sums()).rows or (
                by_hour[str(start_s),] != lines[HOUR_S, start_s]
            ):
                yield f"roll-up of the hour {start_s}: not the sum of its rows"
    for longer_s, shorter_s, since_s in ((DAY_S, HOUR_S, -1e13), (HOUR_S, MINUTE_S, swept_s)):
        added = _lines(
            conn, f"cut = '' and length_s = {shorter_s} and start_s >= {since_s}", f"start_s / {longer_s} * {longer_s}"
        )
        for (start_s,), sums in added.items():
            if lines.get((longer_s, start_s)) != sums:
                yield f"roll-up of {longer_s} s from {start_s}: not the sum of its parts"
    cuts = [cut for (cut,) in conn.execute("select distinct cut from rollups where cut <> '' and cut not like 'tag:%'")]
    for cut in cuts:
        for (length_s, start_s), sums in _lines(conn, f"cut = '{_text(cut)}'", "length_s, start_s").items():
            if lines.get((length_s, start_s)) != sums:
                yield f"roll-up by {cut} of {length_s} s from {start_s}: not the whole"
    for (cut,) in conn.execute("select distinct cut from rollups where cut like 'tag:%'").fetchall():
        place = f"cut = '{_text(cut)}' and key"
        whole = _lines(conn, f"{place} = char({ord(ANY)})", "length_s, start_s")
        if whole != _lines(conn, f"{place} <> char({ord(ANY)})", "length_s, start_s"):
            yield f"roll-up by {cut}: its values aren't the sum of what has it"


def _lines(conn: sqlite3.Connection, where: str, by: str) -> dict[tuple[Any, ...], Sums]:
    """Sums of the lines that meet `where`, by the expressions of `by`."""
    added = ", ".join(f"sum({name})" for name in MEASURES)
    count = len(by.split(", "))
    return {
        tuple(values[:count]): sums_of(values[count:])
        for values in conn.execute(f"select {by}, {added} from rollups where {where} group by {by}")
    }


def _text(text: str) -> str:
    return text.replace("'", "''")
