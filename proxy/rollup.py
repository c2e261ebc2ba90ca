"""Rows into roll-ups, a slice of rows at a time.

Rules of this file: a slice and its mark are one transaction; what is beyond a bound goes to `(others)` and is still in
every total; a bound holds for one cut, length and start.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress

import numpy as np
import orjson

from farthing.proxy.figures_sql import LATENCIES, MEASURES
from farthing.proxy.figures_values import OTHERS
from farthing.proxy.repeated import Repeats
from farthing.proxy.rollup_plan import DAY_S, HOUR_S, MINUTE_S
from farthing.proxy.rollup_slice import Counted, Numbers, Reader, Slice, sums_of_groups
from farthing.proxy.rollup_tables import ANY, MOST_TAGS, WIDE, WIDE_GROUPS, marks, set_mark
from farthing.proxy.sketch import BINS, PACKED_BYTES, merge, pack
from farthing.proxy.sql_rows import Rows

__all__ = ["LENGTHS_S", "MOST_KEYS", "Roller"]

LENGTHS_S: Mapping[str, tuple[int, ...]] = {"": (DAY_S, HOUR_S, MINUTE_S)}
OTHER_LENGTHS_S = (DAY_S, HOUR_S)
MOST_KEYS: Mapping[int, int] = {MINUTE_S: 1, HOUR_S: 1000, DAY_S: 2000}
"""Keys that one cut holds for one start, by length; the first to come are kept."""
LONGEST_KEY = 2000
KEPT_STARTS = 400

_GROUP_TIMES = ("latency", "overhead")
_PLACE = ("cut", "length_s", "start_s", "key")
_ADDED = ", ".join(f"{name} = {name} + excluded.{name}" for name in MEASURES)
_UPSERT = Rows("insert into rollups", len(_PLACE) + len(MEASURES), f"on conflict do update set {_ADDED}")
_UPSERT_TIMES = Rows(
    "insert into rollup_times", 6, "on conflict do update set counts = merge_counts(counts, excluded.counts)"
)


class Roller:
    """Brings roll-ups up to date on one connection, which is the ledger's writer's."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        conn.create_function("merge_counts", 2, merge, deterministic=True)
        self._known: OrderedDict[tuple[str, int, int], set[str]] = OrderedDict()
        self._tags: set[str] = set()
        self._parsed: dict[str, dict[str, str]] = {}
        self._repeats = Repeats()
        self._reader = Reader(conn)

    def roll(self, most_rows: int) -> int:
        """Add the next rows, at most that many, to the roll-ups, and move the mark; how many there were.

        Raises sqlite3.Error, and then nothing has changed; LookupError where the mark is lost.
        """
        conn = self._conn
        conn.execute("begin immediate")
        try:
            slice = self._reader.read(marks(conn).rolled, most_rows)
            if slice is not None:
                self._add(slice)
                set_mark(conn, "rolled", slice.last[0])
                set_mark(conn, "rolled_id", slice.last[1])
            conn.execute("commit")
        except BaseException:
            self._known.clear()
            self._tags.clear()
            self._repeats = Repeats()
            with suppress(sqlite3.Error):
                conn.execute("rollback")
            raise
        return slice.rows if slice is not None else 0

    def _add(self, slice: Slice) -> None:
        minutes_s, measures, bins = slice.minutes_s, slice.measures, slice.bins
        self._cut("", minutes_s, [""] * len(minutes_s), measures, bins)
        for group, names in slice.groups.items():
            self._cut(group, minutes_s, names, measures, bins)
        parts = (slice.groups[group] for group in WIDE_GROUPS)
        wide = [orjson.dumps(each).decode() for each in zip(*parts, strict=True)]
        self._cut(WIDE, minutes_s, wide, measures, bins)
        for name, having in self._tagged(slice.tags).items():
            values = [self._parsed[slice.tags[i]][name] for i in having]
            place = np.full(len(minutes_s), -1)
            place[having] = np.arange(len(having))
            tagged = [
                (place[of][place[of] >= 0], bin[place[of] >= 0], count[place[of] >= 0]) for of, bin, count in bins
            ]
            for keys in (values, [ANY] * len(having)):
                self._cut(f"tag:{name}", minutes_s[having], keys, measures[having], tagged)
        self._repeats.add(self._conn, slice.comings)

    def _cut(
        self, cut: str, minutes_s: Numbers, names: Sequence[str], measures: Numbers, bins: Sequence[Counted]
    ) -> None:
        """Add kinds of rows to one cut, in all its lengths."""
        codes: dict[str, int] = {}
        coded = np.array([codes.setdefault(name, len(codes)) for name in names], dtype=np.int64)
        keys = [*codes]
        names_of_keys = [*keys, OTHERS]
        timed = range(len(LATENCIES)) if not cut else [[*LATENCIES].index(name) for name in _GROUP_TIMES]
        for length_s in reversed(LENGTHS_S.get(cut, OTHER_LENGTHS_S)):
            starts_s = minutes_s // length_s * length_s
            different_s, start = np.unique(starts_s, return_inverse=True)
            bound = np.array([self._bounded(cut, length_s, start_s, keys) for start_s in different_s.tolist()])
            codes_in_all = start * len(names_of_keys) + bound[start, coded]
            groups, where = np.unique(codes_in_all, return_inverse=True)
            summed = sums_of_groups(measures, where, len(groups)).tolist()
            places = [
                (cut, length_s, int(different_s[code // len(names_of_keys)]), names_of_keys[code % len(names_of_keys)])
                for code in groups.tolist()
            ]
            _UPSERT.put(self._conn, ((*place, *sums) for place, sums in zip(places, summed, strict=True)))
            _UPSERT_TIMES.put(self._conn, self._histograms(places, where, bins, timed))

    def _histograms(
        self,
        places: Sequence[tuple[str, int, int, str]],
        where: Numbers,
        bins: Sequence[Counted],
        timed: Iterable[int],
    ) -> Iterable[tuple[str, int, int, str, str, bytes]]:
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

    def _tagged(self, tags: Sequence[str]) -> dict[str, list[int]]:
        """For each tag that has a cut, the rows that have it."""
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
        for name in sorted({*having} - self._tags):
            if len(self._tags) < MOST_TAGS:
                self._tags.add(name)
                self._conn.execute("insert or ignore into rollup_tags values (?)", (name,))
            else:
                del having[name]
        return having

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
