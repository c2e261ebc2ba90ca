"""Rows into roll-ups, a slice of rows at a time. numpy does the adding, since it runs beside requests.

Rules of this file: a slice and its mark are one transaction; what is beyond a bound goes to `(others)` and is still in
every total; a bound holds for one cut, length and start.
"""

from __future__ import annotations

import math
import sqlite3
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from farthing.proxy.figures_sql import LATENCIES, MEASURES
from farthing.proxy.figures_values import CAUSES, GROUPS, OTHERS
from farthing.proxy.repeated import Coming, Repeats
from farthing.proxy.rollup_plan import DAY_S, HOUR_S, MINUTE_S
from farthing.proxy.rollup_tables import ANY, MOST_TAGS, WIDE, WIDE_GROUPS, marks, row_columns, set_mark
from farthing.proxy.sketch import BINS, PACKED_BYTES, bins_of, merge, pack

__all__ = ["LENGTHS_S", "MOST_KEYS", "Roller"]

LENGTHS_S: Mapping[str, tuple[int, ...]] = {"": (DAY_S, HOUR_S, MINUTE_S)}
OTHER_LENGTHS_S = (DAY_S, HOUR_S)
MOST_KEYS: Mapping[int, int] = {MINUTE_S: 1, HOUR_S: 1000, DAY_S: 2000}
"""Keys that one cut holds for one start, by length; the first to come are kept."""
LONGEST_KEY = 2000
KEPT_STARTS = 400

_GROUP_TIMES = ("latency", "overhead")
_PLACE = ("cut", "length_s", "start_s", "key")
_UPSERT = (
    f"insert into rollups values ({', '.join('?' * (len(_PLACE) + len(MEASURES)))}) on conflict do update set "
    + ", ".join(f"{name} = {name} + excluded.{name}" for name in MEASURES)
)
_UPSERT_TIMES = (
    "insert into rollup_times values (?, ?, ?, ?, ?, ?) on conflict do update set "
    "counts = merge_counts(counts, excluded.counts)"
)
_NUMBERS = NDArray[np.int64]
_Counted = tuple[_NUMBERS, _NUMBERS, _NUMBERS]
"""Of one latency: kinds of rows, bins, and how many rows of the kind are in the bin; a pair of the first two is there
once."""


class Roller:
    """Brings roll-ups up to date on one connection, which is the ledger's writer's."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        conn.create_function("merge_counts", 2, merge, deterministic=True)
        self._known: OrderedDict[tuple[str, int, int], set[str]] = OrderedDict()
        self._tags: set[str] = set()
        self._parsed: dict[str, dict[str, str]] = {}
        self._repeats = Repeats()
        times = (f"case when {condition} then {column} end" for column, condition in LATENCIES.values())
        columns = [*row_columns(), *(f"coalesce({sql}, 0)" for sql in MEASURES.values()), *times]
        self._select = (
            f"select rowid, id, ts, key_hash, {', '.join(columns)} from requests where rowid > ? order by rowid limit ?"
        )

    def roll(self, most_rows: int) -> int:
        """Add the next rows, at most that many, to the roll-ups, and move the mark; how many there were.

        Raises sqlite3.Error, and then nothing has changed; LookupError where the mark is lost.
        """
        conn = self._conn
        conn.execute("begin immediate")
        try:
            rows = conn.execute(self._select, (marks(conn).rolled, most_rows)).fetchall()
            if rows:
                self._add(rows)
                set_mark(conn, "rolled", rows[-1][0])
                set_mark(conn, "rolled_id", rows[-1][1])
            conn.execute("commit")
        except BaseException:
            self._known.clear()
            self._tags.clear()
            self._repeats = Repeats()
            with suppress(sqlite3.Error):
                conn.execute("rollback")
            raise
        return len(rows)

    def _add(self, rows: Sequence[tuple[Any, ...]]) -> None:
        columns = [*zip(*rows, strict=True)]
        _, _, moments, key_hashes, *named = columns[: 4 + len(GROUPS) + 1]
        numbers = columns[4 + len(GROUPS) + 1 :]
        each = np.array(numbers[: len(MEASURES)], dtype=np.int64).T
        times = np.array(numbers[len(MEASURES) :], dtype=np.float64)
        moments_s = np.clip(np.array(moments, dtype=np.float64), -1e12, 1e12)
        each_minute_s = (np.floor(moments_s / MINUTE_S) * MINUTE_S).astype(np.int64)
        # Rows that agree in their minute, groups and tags are one from here on: mostly few are left.
        kinds: dict[tuple[Any, ...], int] = {}
        kind = np.array(
            [kinds.setdefault(key, len(kinds)) for key in zip(each_minute_s.tolist(), *named, strict=True)],
            dtype=np.int64,
        )
        measures = sums_of_groups(each, kind, len(kinds))
        bins = [counted(kind, values) for values in times]
        minutes, *names_of_kinds = zip(*kinds, strict=True)
        minutes_s, tags = np.array(minutes, dtype=np.int64), names_of_kinds.pop()
        groups = dict(zip(GROUPS, names_of_kinds, strict=True))
        self._cut("", minutes_s, [""] * len(kinds), measures, bins)
        for group, names in groups.items():
            self._cut(group, minutes_s, names, measures, bins)
        wide = [orjson.dumps(parts).decode() for parts in zip(*(groups[group] for group in WIDE_GROUPS), strict=True)]
        self._cut(WIDE, minutes_s, wide, measures, bins)
        for name, having in self._tagged(tags).items():
            values = [self._parsed[tags[i]][name] for i in having]
            place = np.full(len(kinds), -1)
            place[having] = np.arange(len(having))
            tagged = [
                (place[of][place[of] >= 0], bin[place[of] >= 0], count[place[of] >= 0]) for of, bin, count in bins
            ]
            for keys in (values, [ANY] * len(having)):
                self._cut(f"tag:{name}", minutes_s[having], keys, measures[having], tagged)
        hours_s = (each_minute_s // HOUR_S * HOUR_S).tolist()
        comings = self._comings(hours_s, key_hashes, moments, named[0], each)
        self._repeats.add(self._conn, comings)

    def _comings(
        self,
        hours_s: Sequence[int],
        key_hashes: Sequence[str],
        moments_s: Sequence[float],
        models: Sequence[str],
        measures: _NUMBERS,
    ) -> Iterable[Coming]:
        """The clients' requests of which the prompt is known, by hour and prompt."""
        names = [*MEASURES]
        client = measures[:, names.index("requests")].tolist()
        hits = measures[:, [names.index(name) for name in ("is_hit_exact", "is_hit_semantic", "is_joined")]].sum(axis=1)
        saved = (measures[:, [names.index(f"{cause}_{part}") for cause in CAUSES]].sum(axis=1) for part in "up")
        what = np.column_stack([np.ones(len(client), dtype=np.int64), hits, *saved])
        having = [i for i, key_hash in enumerate(key_hashes) if key_hash and client[i]]
        places: dict[tuple[int, str], int] = {}
        last: dict[int, tuple[float, str]] = {}
        place = [places.setdefault((hours_s[i], key_hashes[i]), len(places)) for i in having]
        for one, i in zip(place, having, strict=True):
            last[one] = max(last.get(one, (-math.inf, "")), (moments_s[i], models[i]))
        sums = sums_of_groups(what[having], np.array(place, dtype=np.int64), len(places)).tolist() if having else []
        for (hour_s, key_hash), one in places.items():
            requests, hits_here, saved_u, saved_p = sums[one]
            yield Coming(hour_s, key_hash, requests, hits_here, saved_u, saved_p, *last[one])

    def _cut(
        self, cut: str, minutes_s: _NUMBERS, names: Sequence[str], measures: _NUMBERS, bins: Sequence[_Counted]
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
            self._conn.executemany(_UPSERT, ((*place, *sums) for place, sums in zip(places, summed, strict=True)))
            self._conn.executemany(_UPSERT_TIMES, self._histograms(places, where, bins, timed))

    def _histograms(
        self,
        places: Sequence[tuple[str, int, int, str]],
        where: _NUMBERS,
        bins: Sequence[_Counted],
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


def sums_of_groups(values: _NUMBERS, group: _NUMBERS, count: int) -> _NUMBERS:
    """The sums of rows of `values` that have the same number in `group`; each of the `count` numbers is there."""
    order = np.argsort(group, kind="stable")
    return np.add.reduceat(values[order], np.searchsorted(group[order], np.arange(count)), axis=0)


def counted(kind: _NUMBERS, times_ms: NDArray[np.float64]) -> _Counted:
    """How many times of each kind are in each bin; those that aren't known in none."""
    has = ~np.isnan(times_ms)
    both, counts = np.unique(kind[has] * BINS + bins_of(times_ms[has]), return_counts=True)
    return both // BINS, both % BINS, counts
