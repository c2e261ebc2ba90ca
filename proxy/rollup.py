"""Rows into roll-ups, a slice of rows at a time.

Rules of this file: a slice and its mark are one transaction; all of it is read and added up before that begins, and no
statement in it calls Python, since rows that are to be written wait for its end; what is beyond a bound goes to
`(others)` and is still in every total; a bound holds for one cut, length and start.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import numpy as np
import orjson

from farthing.proxy.figures_sql import LATENCIES, MEASURES
from farthing.proxy.figures_values import OTHERS
from farthing.proxy.repeated import Repeats
from farthing.proxy.rollup_plan import DAY_S, HOUR_S, MINUTE_S
from farthing.proxy.rollup_slice import Counted, Numbers, Reader, Slice, sums_of_groups
from farthing.proxy.rollup_tables import ANY, MOST_TAGS, WIDE, WIDE_GROUPS, marks, set_mark
from farthing.proxy.sketch import BINS, LONGEST_BYTES, PACKED_BYTES, compacted, pack
from farthing.proxy.sql_rows import Rows, Step
from farthing.proxy.sql_transaction import transaction

__all__ = ["LENGTHS_S", "MOST_KEYS", "Roller"]

LENGTHS_S: Mapping[str, tuple[int, ...]] = {"": (DAY_S, HOUR_S, MINUTE_S)}
OTHER_LENGTHS_S = (DAY_S, HOUR_S)
MOST_KEYS: Mapping[int, int] = {MINUTE_S: 1, HOUR_S: 1000, DAY_S: 2000}
"""Keys that one cut holds for one start, by length; the first to come are kept."""
LONGEST_KEY = 2000
KEPT_STARTS = 400

_GROUP_TIMES = ("latency", "overhead")
_PLACE = ("cut", "length_s", "start_s", "key")
_TIMES_PLACE = "cut, length_s, start_s, key, name"
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in MEASURES)
_UPSERT = Rows("insert into rollups", len(_PLACE) + len(MEASURES), f"on conflict do update set {_ADDED}")
_APPEND_TIMES = Rows(
    f"insert into rollup_times ({_TIMES_PLACE}, counts)",
    6,
    "on conflict do update set counts = cast(counts || excluded.counts as blob)",
)
_REPLACE_TIMES = Rows(f"insert or replace into rollup_times ({_TIMES_PLACE}, counts)", 6)
# A cross join is done in its order: each place is looked up.
_LONG_TIMES = Rows(
    f"with place ({_TIMES_PLACE}) as (",
    5,
    f") select {_TIMES_PLACE}, counts from place cross join rollup_times using ({_TIMES_PLACE}) "
    f"where length(counts) > {LONGEST_BYTES}",
)

Line = tuple[Any, ...]
"""A line of a table."""


class _Part(NamedTuple):
    """Kinds of rows for one cut: their minutes, names, sums of MEASURES and histograms."""

    cut: str
    minutes_s: Numbers
    names: Sequence[str]
    measures: Numbers
    bins: Sequence[Counted]


class _Overtaken(Exception):
    """Another process rolled up meanwhile."""


class Roller:
    """Brings roll-ups up to date on one connection. `pen`: held while it writes, and for no longer."""

    def __init__(self, conn: sqlite3.Connection, pen: AbstractContextManager[object] | None = None) -> None:
        self._conn = conn
        self._pen = pen or nullcontext()
        self._reader = Reader(conn)
        self._parsed: dict[str, dict[str, str]] = {}
        self._forget()

    def _forget(self) -> None:
        """Forget what the tables are known to hold."""
        self._known: OrderedDict[tuple[str, int, int], set[str]] = OrderedDict()
        self._tags: set[str] = set()
        self._repeats = Repeats()

    def roll(self, most_rows: int) -> int:
        """Add the next rows, at most that many, to the roll-ups, and move the mark; how many there were.

        None where another process has moved the mark meanwhile. Raises sqlite3.Error, and then nothing has changed;
        LookupError where the mark is lost.
        """
        conn = self._conn
        try:
            mark = conn.execute("select value from meta where key = 'rolled'").fetchone()
            slice = self._reader.read(marks(conn).rolled, most_rows)
            if slice is None:
                return 0
            steps = [*self._steps(slice)]
            with self._pen, transaction(conn):
                if conn.execute("select value from meta where key = 'rolled'").fetchone() != mark:
                    raise _Overtaken
                for sql, values in steps:
                    conn.execute(sql, values)
                set_mark(conn, "rolled", slice.last[0])
                set_mark(conn, "rolled_id", slice.last[1])
        except _Overtaken:
            self._forget()
            return 0
        except BaseException:
            self._forget()
            raise
        return slice.rows

    def _steps(self, slice: Slice) -> Iterator[Step]:
        """What adds the slice to the tables. It only reads."""
        having, new_tags = self._tagged(slice.tags)
        lines: list[Line] = []
        times: list[Line] = []
        for part in self._parts(slice, having):
            for its_lines, its_times in self._cut(part):
                lines += its_lines
                times += its_times
        for name in new_tags:
            yield "insert or ignore into rollup_tags values (?)", (name,)
        yield from _UPSERT.steps(lines)
        yield from _REPLACE_TIMES.steps(self._compacted(times))
        yield from _APPEND_TIMES.steps(times)
        yield from self._repeats.add(self._conn, slice.comings)

    def _parts(self, slice: Slice, having: Mapping[str, list[int]]) -> Iterator[_Part]:
        """The slice once for each cut, and for a tag's twice: by its values, and in one."""
        minutes_s, measures, bins = slice.minutes_s, slice.measures, slice.bins
        yield _Part("", minutes_s, [""] * len(minutes_s), measures, bins)
        for group, names in slice.groups.items():
            yield _Part(group, minutes_s, names, measures, bins)
        wide = zip(*(slice.groups[group] for group in WIDE_GROUPS), strict=True)
        yield _Part(WIDE, minutes_s, [orjson.dumps(each).decode() for each in wide], measures, bins)
        for name, of in having.items():
            values = [self._parsed[slice.tags[i]][name] for i in of]
            place = np.full(len(minutes_s), -1)
            place[of] = np.arange(len(of))
            tagged = [
                (place[kind][place[kind] >= 0], bin[place[kind] >= 0], count[place[kind] >= 0])
                for kind, bin, count in bins
            ]
            for keys in (values, [ANY] * len(of)):
                yield _Part(f"tag:{name}", minutes_s[of], keys, measures[of], tagged)

    def _cut(self, part: _Part) -> Iterator[tuple[list[Line], list[Line]]]:
        """What one cut's tables gain, sums and histograms, for each of its lengths."""
        cut = part.cut
        codes: dict[str, int] = {}
        coded = np.array([codes.setdefault(name, len(codes)) for name in part.names], dtype=np.int64)
        keys = [*codes]
        names_of_keys = [*keys, OTHERS]
        timed = range(len(LATENCIES)) if not cut else [[*LATENCIES].index(name) for name in _GROUP_TIMES]
        for length_s in reversed(LENGTHS_S.get(cut, OTHER_LENGTHS_S)):
            starts_s = part.minutes_s // length_s * length_s
            different_s, start = np.unique(starts_s, return_inverse=True)
            bound = np.array([self._bounded(cut, length_s, start_s, keys) for start_s in different_s.tolist()])
            codes_in_all = start * len(names_of_keys) + bound[start, coded]
            groups, where = np.unique(codes_in_all, return_inverse=True)
            summed = sums_of_groups(part.measures, where, len(groups)).tolist()
            places = [
                (cut, length_s, int(different_s[code // len(names_of_keys)]), names_of_keys[code % len(names_of_keys)])
                for code in groups.tolist()
            ]
            lines = [(*place, *sums) for place, sums in zip(places, summed, strict=True)]
            yield lines, [*self._histograms(places, where, part.bins, timed)]

    def _compacted(self, times: Iterable[Line]) -> Iterator[Line]:
        """Of the lines that are to be appended to, those which have got long."""
        for sql, values in _LONG_TIMES.steps(line[:-1] for line in times):
            for *place, packed in self._conn.execute(sql, values).fetchall():
                yield *place, compacted(packed)

    def _histograms(
        self,
        places: Sequence[tuple[str, int, int, str]],
        where: Numbers,
        bins: Sequence[Counted],
        timed: Iterable[int],
    ) -> Iterator[Line]:
        for i in timed:
            kinds, bin, count = bins[i]
            if not len(kinds):
                continue
            both, one = np.unique(where[kinds] * BINS + bin, return_inverse=True)
            counts = np.bincount(one, weights=count).astype(np.int64)
            group, packed = both // BINS, pack(both % BINS, counts)
            firsts = [0, *(np.flatnonzero(np.diff(group)) + 1).tolist()]
            name = [*LATENCIES][i]
            for place, first, last in zip(group[firsts].tolist(), firsts, [*firsts[1:], len(group)], strict=True):
                yield *places[place], name, packed[first * PACKED_BYTES : last * PACKED_BYTES]

    def _bounded(self, cut: str, length_s: int, start_s: int, keys: Sequence[str]) -> list[int]:
        """For each key its place in the list, or the list's length where there is no room for it any more."""
        place = (cut, length_s, start_s)
        known = self._known.get(place)
        if known is None:
            query = "select key from rollups where cut = ? and length_s = ? and start_s = ?"
            known = self._known[place] = {key for (key,) in self._conn.execute(query, place)} - {OTHERS, ANY}
            if len(self._known) > KEPT_STARTS:
                self._known.popitem(last=False)
        self._known.move_to_end(place)
        kept = []
        for i, key in enumerate(keys):
            if key not in known:
                if key in (ANY, OTHERS) or (len(known) < MOST_KEYS[length_s] and len(key) <= LONGEST_KEY):
                    known.add(key)
                else:
                    i = len(keys)
            kept.append(i)
        return kept

    def _tagged(self, tags: Sequence[str]) -> tuple[dict[str, list[int]], list[str]]:
        """For each tag that has a cut, the rows that have it; and those whose cut is new."""
        if len(self._parsed) > 10_000:
            self._parsed.clear()
        if not self._tags:
            self._tags = {name for (name,) in self._conn.execute("select name from rollup_tags")}
        having: dict[str, list[int]] = {}
        for i, text in enumerate(tags):
            if text not in self._parsed:
                self._parsed[text] = self._parse(text)
            for name in self._parsed[text]:
                having.setdefault(name, []).append(i)
        fresh = sorted({*having} - self._tags)
        taken = fresh[: MOST_TAGS - len(self._tags)]
        self._tags.update(taken)
        for name in fresh[len(taken) :]:
            del having[name]
        return having, taken

    def _parse(self, text: str) -> dict[str, str]:
        """Tags by name as SQLite reads them, so that rows and roll-ups tell the same; none for what is no object."""
        if text in ("", "{}"):
            return {}
        query = """
            select key, cast(json_extract(?1, '$."' || key || '"') as text) from json_each(?1)
            where typeof(key) = 'text' and key <> '' and instr(key, '"') = 0 and instr(key, char(92)) = 0
              and length(key) <= 100"""
        try:
            valid = self._conn.execute("select json_valid(?) and json_type(?) = 'object'", (text, text)).fetchone()[0]
            return {name: value for name, value in self._conn.execute(query, (text,)) if value} if valid else {}
        except sqlite3.OperationalError:  # a name that SQLite lists and won't look up: nobody can ask for it either
            return {}
