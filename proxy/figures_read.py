"""One question to the ledger, answered from roll-ups where they reach and from rows where they don't.

Rules of this file: whatever is asked is read in one snapshot; sums are the same whichever way they come; percentiles
are exact where at most EXACT_ROWS rows are asked about and all of them are there, or where no roll-up can help; else
from histograms.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import orjson

from farthing.proxy.figures_sql import (
    MEASURES,
    Parameters,
    Rows,
    as_key,
    group_expressions,
    sums_by,
    sums_of,
    times_by,
    values_by,
)
from farthing.proxy.figures_values import GROUPS, OTHERS, Key, Percentiles, Sums, no_times, plus
from farthing.proxy.repeated_read import top_in_lines, top_in_rows
from farthing.proxy.rollup_plan import DAY_S, HOUR_S, MINUTE_S, Piece, Plan, Slices, covering, plan
from farthing.proxy.rollup_tables import ANY, MOST_TAGS, WIDE, WIDE_GROUPS, Marks, marks, wide_expressions

__all__ = ["EXACT_ROWS", "Reading", "snapshot"]

EXACT_ROWS = 20_000
_ALL_LENGTHS_S, _LENGTHS_S = (DAY_S, HOUR_S, MINUTE_S), (DAY_S, HOUR_S)


@contextmanager
def snapshot(conn: sqlite3.Connection) -> Iterator[None]:
    """What is read within is one state of the ledger, whatever is written meanwhile."""
    mine = not conn.in_transaction
    if mine:
        conn.execute("begin")
    try:
        yield
    finally:
        if mine:
            conn.execute("rollback")


class _Way(NamedTuple):
    """How a grouping is answered: a cut of the roll-ups with what to group by in it; and the same in rows."""

    cut: str
    groups: tuple[str, ...]
    row_groups: tuple[str, ...]
    row_given: tuple[str, ...]
    plan: Plan


class Reading:
    """Sums and times of `slices`, keyed by slice and group. Make and use it within one `snapshot`."""

    def __init__(self, conn: sqlite3.Connection, slices: Slices) -> None:
        self._conn = conn
        self._slices = slices
        try:
            self._marks = marks(conn)
        except LookupError:
            self._marks = Marks()  # the roll-ups can't be trusted; the rows that are there can
        self._slice_sql, self._slice_given = slices.sql
        self._whole = self._way(())
        self.total = self._sums(self._whole)
        self._exact = (
            sum(sums.rows for sums in self.total.values()) <= EXACT_ROWS and slices.since_s >= self._marks.swept_s
        )

    @property
    def since_s(self) -> float:
        """When the span really begins: earlier than asked for where only whole roll-ups are left."""
        return min([self._slices.since_s, *(float(piece.start_s) for piece in self._whole.plan.pieces)])

    def sums(self, by: Sequence[str]) -> dict[Key, Sums]:
        """By slice and group; slices and groups without rows are missing. Raises ValueError for an unknown group."""
        return self._sums(self._way(tuple(by))) if by else self.total

    def times(
        self, names: Sequence[str], by: Sequence[str], wanted: Iterable[Key]
    ) -> dict[Key, dict[str, Percentiles]]:
        """Percentiles of the named times, of the `wanted` keys alone."""
        way = self._way(tuple(by))
        if self._exact or not way.plan.pieces:
            # Where no roll-up answers, all rows are read anyway.
            rows = Rows(((self._slices.since_s, self._slices.until_s),))
            groups, given = self._in_rows(way)
            return times_by(self._conn, names, groups, given, rows)
        from farthing.proxy.sketch import Tally, percentiles

        keys = [*wanted]
        tally = Tally(keys)
        asked = {key[1] for key in keys} | {ANY} if by else ()
        for name in names:
            for rows in self._rows(way):
                tally.add_values(name, values_by(self._conn, name, *self._in_rows(way), rows))
            for key, packed in self._packed(way, name, asked):
                if key[1:] == (ANY,):
                    tally.add_packed(name, (key[0], ""), packed, sign=-1)
                else:
                    tally.add_packed(name, key, packed)
            if way.cut.startswith("tag:"):
                for key, packed in self._packed(way._replace(cut="", groups=()), name, ()):
                    tally.add_packed(name, (*key, ""), packed)
        found: dict[Key, dict[str, Percentiles]] = {}
        for (key, name), counts in tally.counts().items():
            found.setdefault(key, no_times())[name] = percentiles(counts)
        return found

    def repeated(self, limit: int) -> list[tuple[str, int, int, int, float, str, bool]]:
        """The prompts that came most often: hash, requests, hits, pico-dollars saved, last moment, model, and whether
        the counts are lower bounds. Where the roll-ups answer, the span is widened to whole hours."""
        if self._exact or not self._marks.rolled:
            whole = Rows(((self._slices.since_s, self._slices.until_s),))
            return [(*found, False) for found in top_in_rows(self._conn, whole, limit)]
        begin_s = int(self._slices.since_s // HOUR_S * HOUR_S)
        end_s = int(-(-self._slices.until_s // HOUR_S) * HOUR_S)
        pieces = covering(begin_s, end_s, _LENGTHS_S)
        tail = Rows(((float(begin_s), float(end_s)),), after=self._marks.rolled)
        return [(*found, True) for found in top_in_lines(self._conn, pieces, tail, limit)]

    # -- the way

    def _way(self, by: tuple[str, ...]) -> _Way:
        row_groups, row_given = group_expressions(by)
        gone_s = self._marks.swept_s
        if not self._marks.rolled:
            return _Way("", (), row_groups, row_given, Plan((), ((self._slices.since_s, self._slices.until_s),)))
        lengths_s = _LENGTHS_S if by else _ALL_LENGTHS_S
        whole = plan(self._slices, lengths_s, gone_s)
        if not by:
            return _Way("", (), (), (), whole)
        if len(by) == 1 and self._has_cut(by[0]):
            return _Way(by[0], ("key",), row_groups, row_given, whole)
        kept = self._without_rollups(whole)
        if not {*by} <= {*WIDE_GROUPS}:
            # No roll-up keeps these apart: the rows that are left do, and what was before them is `(others)`.
            others = tuple(f"'{OTHERS}'" for _ in by)
            return _Way("", others, row_groups, row_given, kept)
        if self._others_in_wide(whole):
            whole = kept
        return _Way(WIDE, wide_expressions(by), row_groups, row_given, whole)

    def _has_cut(self, part: str) -> bool:
        """Whether roll-ups know that group; a tag which never had a value is known too, while there is room for it."""
        if not part.startswith("tag:"):
            return part in GROUPS
        names = {name for (name,) in self._conn.execute("select name from rollup_tags")}
        return part.removeprefix("tag:") in names or len(names) < MOST_TAGS

    def _without_rollups(self, whole: Plan) -> Plan:
        """The same, but from rows wherever they are."""
        gone_s = self._marks.swept_s
        clipped = (piece._replace(end_s=min(piece.end_s, int(gone_s))) for piece in whole.pieces)
        begin_s = max(self._slices.since_s, gone_s)
        pieces = tuple(piece for piece in clipped if piece.start_s < piece.end_s)
        return Plan(pieces, ((begin_s, self._slices.until_s),) if begin_s < self._slices.until_s else ())

    def _others_in_wide(self, whole: Plan) -> bool:
        """Whether the wide cut overflowed within the span, where rows could tell more."""
        query = "select 1 from rollups where cut = ? and length_s = ? and start_s >= ? and start_s < ? and key = ?"
        return any(
            self._conn.execute(f"{query} limit 1", (WIDE, *piece[1:], OTHERS)).fetchone() for piece in whole.pieces
        )

    def _rows(self, way: _Way) -> list[Rows]:
        """What is to be read from rows: those in no roll-up, and those at the edges."""
        up_to = self._marks.rolled
        if not up_to:
            return [Rows(way.plan.raw)]
        tail = Rows(((self._slices.since_s, self._slices.until_s),), after=up_to)
        return [Rows(way.plan.raw, up_to=up_to), tail]

    def _in_rows(self, way: _Way) -> tuple[tuple[str, ...], Parameters]:
        """What to group rows by, with the slice in front."""
        return (self._slice_sql, *way.row_groups), (*self._slice_given, *way.row_given)

    # -- sums

    def _sums(self, way: _Way) -> dict[Key, Sums]:
        found: dict[Key, Sums] = {}
        for rows in self._rows(way):
            _merge(found, sums_by(self._conn, *self._in_rows(way), rows).items())
        for key, sums in self._rolled_sums(way):
            if key[1:] != (ANY,):
                _merge(found, [(key, sums)])
                continue
            # Rows without the tag are all rows but those that have it.
            _merge(found, [((key[0], ""), plus(Sums(), sums, sign=-1))])
        if way.cut.startswith("tag:"):
            _merge(found, (((*key, ""), sums) for key, sums in self._rolled_sums(way._replace(cut="", groups=()))))
        return {key: sums for key, sums in found.items() if sums.rows}

    def _rolled_sums(self, way: _Way) -> Iterator[tuple[Key, Sums]]:
        if not way.plan.pieces:
            return
        groups = ", ".join(["piece_slice", *way.groups])
        order = ", ".join(str(i + 1) for i in range(len(way.groups) + 1))
        sums = ", ".join(f"sum({name})" for name in MEASURES)
        query = f"{_pieces(way.plan.pieces)} select {groups}, {sums} {_ROLLUPS.format('rollups')} group by {order}"
        for values in self._conn.execute(query, (way.cut,)):
            yield as_key(values[: len(way.groups) + 1]), sums_of(values[len(way.groups) + 1 :])

    # -- times

    def _packed(self, way: _Way, name: str, wanted: Iterable[str]) -> Iterator[tuple[Key, bytes]]:
        if not way.plan.pieces:
            return
        groups = ", ".join(["piece_slice", *way.groups])
        query = f"{_pieces(way.plan.pieces)} select {groups}, counts {_ROLLUPS.format('rollup_times')} and name = ?"
        given: Parameters = (way.cut, name)
        if way.groups == ("key",):
            query += " and key in (select value from json_each(?))"
            given = (*given, orjson.dumps([*wanted]).decode())
        for values in self._conn.execute(query, given):
            yield as_key(values[:-1]), values[-1]


_ROLLUPS = (
    "from pieces cross join {} where cut = ? and length_s = piece_length and start_s >= piece_from "
    "and start_s < piece_to"
)


def _pieces(pieces: Iterable[Piece]) -> str:
    """The pieces as a table of SQL."""
    values = ", ".join(f"({', '.join(str(int(part)) for part in piece)})" for piece in pieces)
    return f"with pieces(piece_slice, piece_length, piece_from, piece_to) as (values {values})"


def _merge(found: dict[Key, Sums], more: Iterable[tuple[Key, Sums]]) -> None:
    """Add sums to those that are there. NULL and '' are one key, which SQL keeps apart."""
    for key, sums in more:
        found[key] = plus(found[key], sums) if key in found else sums
