"""A slice of rows as numbers: rows that agree in minute, names and shape are one kind, and each kind has its sums.

Rules of this file: SQLite reads columns as they are, which costs far less than 56 expressions a row; the conditions of
figures_sql.PARTS are asked of it once for each shape of row, so that they stand in one place; numpy does the adding,
since it runs beside requests.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import repeat
from typing import Any

import numpy as np
import orjson
from numpy.typing import NDArray

from farthing.proxy.figures_sql import (
    LATENCIES,
    MICRO,
    MOST_TOKENS,
    PARTS,
    PRICES,
    SAVED_TOKENS,
    SHAPE,
    TOKENS,
    VALUES,
)
from farthing.proxy.figures_values import CAUSES, GROUPS
from farthing.proxy.repeated import Coming
from farthing.proxy.rollup_plan import HOUR_S, MINUTE_S
from farthing.proxy.row import LONGEST_NAME, MONEY_COLUMNS
from farthing.proxy.sketch import BINS, bins_of

__all__ = ["Counted", "Numbers", "Reader", "Slice", "sums_of_groups"]

Numbers = NDArray[np.int64]
Counted = tuple[Numbers, Numbers, Numbers]
"""Of one latency: kinds of rows, bins, and how many rows of the kind are in the bin; a pair of the first two is there
once."""

_NAMES = (*GROUPS.values(), "tags")
_MORE = tuple(column for column in SHAPE if column not in _NAMES)
_TIMES = tuple(dict.fromkeys(column for column, _ in LATENCIES.values()))
_WORDS = ("ts", "key_hash", *_NAMES, *_MORE)
_NUMBERED = (*TOKENS, *MONEY_COLUMNS)
_COLUMNS = (*_WORDS, *_NUMBERED, *_TIMES)
_REAL = ("ts", *_TIMES)
_SELECT = f"""
    select rowid, {", ".join(f'"{column}"' for column in _COLUMNS)}
    from requests where rowid > ? order by rowid limit ?"""
# Each column in one value: all at once for the reason that sql_rows.py gives, and no list for each row. JSON's own
# numbers have 15 digits, too few for a moment.
_DIGITS = "iif(typeof({0}) = 'real', printf('%!.17g', {0}), json_quote({0}))"
_AS_JSON = [
    f"'[' || group_concat({_DIGITS.format(name)}) || ']'" if column in _REAL else f"json_group_array({name})"
    for column in _COLUMNS
    for name in (f'"{column}"',)
]
_SELECT_AT_ONCE = f"select max(rowid), {', '.join(_AS_JSON)} from ({_SELECT})"
_ASKED = [*(part.condition for part in PARTS.values()), *(condition for _, condition in LATENCIES.values())]
_CONDITIONS = f"""
    select {", ".join(f"coalesce({sql}, 0)" for sql in _ASKED)}
    from (select {", ".join(f"? as {column}" for column in (*SHAPE, *PRICES))})"""
_VALUE_OF = [[*VALUES].index(part.value) + 1 if part.value else 0 for part in PARTS.values()]
_MOST_SHAPES = 10_000


@dataclass(frozen=True, slots=True)
class Slice:
    """Some rows. `last`: the number and the id of the last one. Of each kind of row: its minute, its names by group,
    its tags, its sums of MEASURES (kinds, measures). `bins`: by latency. `comings`: prompts, by hour."""

    rows: int
    last: tuple[int, str]
    minutes_s: Numbers
    groups: Mapping[str, Sequence[str]]
    tags: Sequence[str]
    measures: Numbers
    bins: Sequence[Counted]
    comings: Sequence[Coming]


class Reader:
    """Reads slices on one connection."""

    def __init__(self, conn: sqlite3.Connection) -> None:
        self._conn = conn
        self._asked: dict[tuple[Any, ...], tuple[int, ...]] = {}

    def read(self, after: int, most_rows: int) -> Slice | None:
        """The next rows after a number, at most that many; None where there are none. Raises sqlite3.Error."""
        found = self._columns(after, most_rows)
        if found is None:
            return None
        rowid, read = found
        last = (rowid, self._conn.execute("select id from requests where rowid = ?", (rowid,)).fetchone()[0])
        moments_s = np.clip(np.array(read["ts"], dtype=np.float64), -1e12, 1e12)
        minute_s = (np.floor(moments_s / MINUTE_S) * MINUTE_S).astype(np.int64)
        kinds: dict[tuple[Any, ...], int] = {}
        named = [read[column] for column in (*_NAMES, *_MORE)]
        kind = np.array(
            [
                kinds.setdefault(key, len(kinds))
                for key in zip(minute_s.tolist(), *named, *(_unknown(read[name]) for name in PRICES), strict=False)
            ],
            dtype=np.int64,
        )
        minutes, *of_kinds = zip(*kinds, strict=True)
        by_name = dict(zip((*_NAMES, *_MORE, *PRICES), of_kinds, strict=True))
        holds = self._holds([by_name[name] for name in (*SHAPE, *PRICES)])
        values = _values(read)
        names = {group: [_name(value) for value in by_name[column]] for group, column in GROUPS.items()}
        hours_s = minute_s // HOUR_S * HOUR_S
        return Slice(
            rows=len(read["ts"]),
            last=last,
            minutes_s=np.array(minutes, dtype=np.int64),
            groups=names,
            tags=by_name["tags"],
            measures=sums_of_groups(values, kind, len(kinds))[:, _VALUE_OF] * holds[:, : len(PARTS)],
            bins=_bins(kind, [np.array(read[name], dtype=np.float64) for name in _TIMES], holds[:, len(PARTS) :]),
            comings=[*_comings(read, hours_s, kind, names["model"], values, holds)],
        )

    def _columns(self, after: int, most_rows: int) -> tuple[int, dict[str, Sequence[Any]]] | None:
        """The last row's number, and each column's values."""
        try:
            last, *texts = self._conn.execute(_SELECT_AT_ONCE, (after, most_rows)).fetchone()
            if last is None:
                return None
            return last, dict(zip(_COLUMNS, map(orjson.loads, texts), strict=True))
        except (sqlite3.OperationalError, orjson.JSONDecodeError):  # JSON can't hold what a damaged file may
            rows = self._conn.execute(_SELECT, (after, most_rows)).fetchall()
            if not rows:
                return None
            numbers, *columns = zip(*rows, strict=True)
            return numbers[-1], dict(zip(_COLUMNS, columns, strict=True))

    def _holds(self, shapes: Sequence[Sequence[Any]]) -> Numbers:
        """For each kind 1 where a measure's or latency's condition holds: (kinds, measures and latencies)."""
        if len(self._asked) > _MOST_SHAPES:
            self._asked.clear()
        found = []
        for shape in zip(*shapes, strict=True):
            told = self._asked.get(shape)
            if told is None:
                given = (*shape[: len(SHAPE)], *(None if unknown else 0 for unknown in shape[len(SHAPE) :]))
                told = self._asked[shape] = self._conn.execute(_CONDITIONS, given).fetchone()
            found.append(told)
        return np.array(found, dtype=np.int64)


def sums_of_groups(values: Numbers, group: Numbers, count: int) -> Numbers:
    """The sums of rows of `values` that have the same number in `group`; each of the `count` numbers is there."""
    if count == 1:
        whole: Numbers = values.sum(axis=0, keepdims=True)
        return whole
    order = np.argsort(group, kind="stable")
    return np.add.reduceat(values[order], np.searchsorted(group[order], np.arange(count)), axis=0)


def _unknown(values: Sequence[Any]) -> Iterator[bool]:
    """Whether each is null."""
    return (value is None for value in values) if None in values else repeat(False)


def _name(value: object) -> str:
    """As figures_sql.name_column has it: SQLite's substr ends at a zero character."""
    return str(value).partition("\0")[0][:LONGEST_NAME]


def _values(read: Mapping[str, Sequence[Any]]) -> Numbers:
    """One, and each of VALUES, of each row; 0 for null."""
    ones = np.ones(len(read["ts"]), dtype=np.int64)
    found, counts, can_be = [ones], {}, {}
    for name in TOKENS:
        count, known = _whole(read[name])
        can_be[name] = known & (count >= -MOST_TOKENS) & (count <= MOST_TOKENS)
        counts[name] = np.where(can_be[name], count, 0)
    saved = counts["tokens_in_original"] - counts["tokens_in_sent"]
    counts[SAVED_TOKENS] = np.where(can_be["tokens_in_original"] & can_be["tokens_in_sent"], saved, 0)
    found += counts.values()
    for name in MONEY_COLUMNS:
        pico, _ = _whole(read[name])
        left = np.fmod(pico, MICRO)  # with the sign of the amount, as SQLite's
        found += [(pico - left) // MICRO, left]
    return np.stack(found, axis=1)


def _whole(values: Sequence[Any]) -> tuple[Numbers, Any]:
    """Integers, 0 for what is none, and whether each is one."""
    try:
        return np.array(values, dtype=np.int64), True
    except (TypeError, ValueError, OverflowError):  # nulls; and a damaged file's texts and numbers
        known = [isinstance(value, int | float) and -(2**63) <= value < 2**63 for value in values]
        return np.array(
            [value if is_one else 0 for value, is_one in zip(values, known, strict=True)], dtype=np.int64
        ), (np.array(known))


def _bins(kind: Numbers, times_ms: Sequence[NDArray[np.float64]], holds: Numbers) -> list[Counted]:
    """By latency, how many times of each kind are in each bin; those that aren't known in none."""
    counted = []
    for values_ms in times_ms:
        has = ~np.isnan(values_ms)
        both, counts = np.unique(kind[has] * BINS + bins_of(values_ms[has]), return_counts=True)
        counted.append((both // BINS, both % BINS, counts))
    found = []
    for number, (column, _) in enumerate(LATENCIES.values()):
        kinds, bins, counts = counted[_TIMES.index(column)]
        within = holds[kinds, number] != 0
        found.append((kinds[within], bins[within], counts[within]))
    return found


def _comings(
    read: Mapping[str, Sequence[Any]],
    hours_s: Numbers,
    kind: Numbers,
    models: Sequence[str],
    values: Numbers,
    holds: Numbers,
) -> Iterator[Coming]:
    """The clients' requests of which the prompt is known, by hour and prompt. `models`: of kinds."""
    names, hashes = [*PARTS], read["key_hash"]
    client = holds[kind, names.index("requests")] != 0
    having = np.flatnonzero(client & np.array([bool(each) for each in hashes]))
    if not having.size:
        return
    places: dict[tuple[int, str], int] = {}
    of = having.tolist()
    place = np.array(
        [
            places.setdefault((hour_s, hashes[i]), len(places))
            for i, hour_s in zip(of, hours_s[having].tolist(), strict=True)
        ]
    )
    kind, values = kind[having], values[having]
    hits = holds[:, [names.index(name) for name in ("is_hit_exact", "is_hit_semantic", "is_joined")]].sum(axis=1)[kind]
    saved = []
    for half in "up":
        of_causes = [names.index(f"{cause}_{half}") for cause in CAUSES]
        saved.append((values[:, [_VALUE_OF[each] for each in of_causes]] * holds[kind][:, of_causes]).sum(axis=1))
    rank = {model: number for number, model in enumerate(sorted({*models}))}
    ranks = np.array([rank[model] for model in models])[kind]
    moments_s = np.array(read["ts"], dtype=np.float64)[having]
    order = np.lexsort((ranks, moments_s, place))
    firsts = np.searchsorted(place[order], np.arange(len(places)))
    lasts = order[[*(firsts[1:] - 1).tolist(), len(order) - 1]]
    what = np.column_stack([np.ones(len(of), dtype=np.int64), hits, *saved])
    sums = np.add.reduceat(what[order], firsts, axis=0).tolist()
    last_s, last_kind = moments_s[lasts].tolist(), kind[lasts].tolist()
    for (hour_s, key_hash), summed, at_s, its in zip(places, sums, last_s, last_kind, strict=True):
        requests, hits_here, saved_u, saved_p = summed
        yield Coming(hour_s, key_hash, requests, hits_here, saved_u, saved_p, at_s, models[its])
