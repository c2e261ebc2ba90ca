"""The prompts that came most often, from rows or from the lines that repeated.py wrote."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from farthing.proxy.figures_sql import MEASURES, Rows
from farthing.proxy.figures_values import CAUSES

__all__ = ["top_in_lines", "top_in_rows"]

Found = tuple[str, int, int, int, float, str]
"""Hash, requests, hits, pico-dollars saved, last moment, model of the last."""

_HITS = " + ".join(f"({MEASURES[name]})" for name in ("is_hit_exact", "is_hit_semantic", "is_joined"))
_SAVED_U, _SAVED_P = (" + ".join(f"coalesce({MEASURES[f'{cause}_{part}']}, 0)" for cause in CAUSES) for part in "up")
# max() in a query with one of it takes the bare columns from the row that has it: sqlite.org/lang_select.html#bareagg
_SUMS = "sum({}) as n, sum({}) as hits, sum({}) as saved_u, sum({}) as saved_p, max({}) as last_s, {} as model"
_BEST = "order by n desc, saved_u desc, key_hash limit ?"


def top_in_rows(conn: sqlite3.Connection, rows: Rows, limit: int) -> list[Found]:
    """Exactly: prompts of clients' requests that came twice, or were answered from a cache."""
    before, where, given = rows.source()
    query = f"""{before} select key_hash, {_of_rows()} {where} and key_hash <> '' and {MEASURES["requests"]}
                group by key_hash having n > 1 or hits > 0 {_BEST}"""
    return [_found(values) for values in conn.execute(query, (*given, limit))]


def top_in_lines(
    conn: sqlite3.Connection, pieces: Sequence[tuple[int, int, int]], tail: Rows, limit: int
) -> list[Found]:
    """At least so many: from lines of (length, from, to), and the rows that aren't rolled up yet."""
    before, where, given = tail.source()
    values = ", ".join(f"({length}, {start}, {end})" for length, start, end in pieces)
    of_lines = _SUMS.format("requests", "hits", "saved_u", "saved_p", "last_s", "model")
    query = f"""
        {before}, pieces(piece_length, piece_from, piece_to) as (values {values}),
        lines as (
            select key_hash, requests, hits, saved_u, saved_p, last_s, model from pieces cross join repeated
            where length_s = piece_length and start_s >= piece_from and start_s < piece_to
            union all
            select key_hash, {_of_rows()} {where} and key_hash <> '' and {MEASURES["requests"]} group by key_hash)
        select key_hash, {of_lines} from lines group by key_hash having n > 1 or sum(hits) > 0 {_BEST}"""
    return [_found(each) for each in conn.execute(query, (*given, limit))]


def _of_rows() -> str:
    return _SUMS.format(MEASURES["requests"], _HITS, _SAVED_U, _SAVED_P, "ts", "model_requested")


def _found(values: tuple[str, int, int, int, int, float, str]) -> Found:
    key_hash, requests, hits, saved_u, saved_p, last_s, model = values
    return key_hash, requests, hits, saved_u * 1_000_000 + saved_p, last_s, model
