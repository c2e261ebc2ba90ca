"""Figures in SQL: what each measure counts in a row, what groups are, and sums and percentiles straight from the rows.

Rules of this file: everything that a caller's text decides (groups, tags, times) reaches SQL as a bound parameter or
from a fixed list. A measure is one integer a row, so that sums over rows and sums over roll-ups are the same numbers.
Sums and percentiles are SQLite's, so that a dashboard on a busy proxy doesn't hold Python's lock.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from farthing.proxy.figures_values import (
    CAUSES,
    FORMS,
    GROUPS,
    ROW_GROUPS,
    STATUSES,
    Key,
    Percentiles,
    Sums,
    no_times,
    plus,
)
from farthing.proxy.row import ERRANDS, LONGEST_NAME, MONEY_COLUMNS

__all__ = [
    "LATENCIES",
    "MEASURES",
    "MICRO",
    "MOST_TOKENS",
    "PARTS",
    "PRICES",
    "SAVED_TOKENS",
    "SHAPE",
    "TOKENS",
    "VALUES",
    "Parameters",
    "Part",
    "Rows",
    "as_key",
    "group_expressions",
    "name_column",
    "sums_by",
    "sums_of",
    "times_by",
    "values_by",
]

Parameters = Sequence[float | str | None]

PRICED = "(cost_usd is not null and baseline_usd is not null)"
# A client that left cut its own time short: such a row says nothing about how long an answer takes.
ENDED = "outcome <> 'abandoned'"
CLIENTS = f"endpoint not in {ERRANDS}"
# "miss" is whatever went upstream by itself, bypassed requests too; joined ones waited for another's, so they are in
# neither. Overhead is farthing's own time: the client's waiting that was not the upstream's.
LATENCIES: Mapping[str, tuple[str, str]] = {
    "latency": ("latency_ms", f"{ENDED} and {CLIENTS}"),
    "latency_miss": ("latency_ms", f"{ENDED} and {CLIENTS} and cache in ('miss', 'bypass')"),
    "latency_hit": ("latency_ms", f"{ENDED} and cache in ('hit-exact', 'hit-semantic')"),
    "overhead": ("overhead_ms", CLIENTS),
    "ttft": ("ttft_ms", CLIENTS),
    "upstream": ("upstream_ms", f"{ENDED} and {CLIENTS}"),
}

TOKENS = ("tokens_in_original", "tokens_in_sent", "tokens_in_cached", "tokens_out")
MOST_TOKENS = 10**10
"""What is above this is no count of one request's tokens, and left out: a sum of them could end SQLite's 64 bits."""
MICRO = 1_000_000
"""Pico-dollars in a micro-dollar."""


class Part(NamedTuple):
    """A measure in two parts: where the condition holds, the value is added.

    `condition`: SQL over SHAPE and over whether the amounts of PRICES are null. `value`: one of VALUES; '': one.
    """

    condition: str
    value: str = ""

    @property
    def sql(self) -> str:
        """Both in one expression; null is nothing."""
        value = VALUES.get(self.value, "1")
        if self.condition == ALWAYS:
            return value
        return f"case when {self.condition} then {value} end" if self.value else self.condition


ALWAYS = "1"
SHAPE = ("status", "outcome", "cache_reason", "modelled", "endpoint", "cache", "compress")
PRICES = ("cost_usd", "baseline_usd", "overhead_usd")
SAVED_TOKENS = "tokens_saved"


def count_of(column: str) -> str:
    """A token count that can be one; null where it can't."""
    return f"(case when {column} between -{MOST_TOKENS} and {MOST_TOKENS} then {column} end)"


VALUES: Mapping[str, str] = {
    **{name: count_of(name) for name in TOKENS},
    SAVED_TOKENS: f"{count_of('tokens_in_original')} - {count_of('tokens_in_sent')}",
    # In two parts: 64 bits of pico-dollars end at 9.2 million dollars, and SQLite's sum would fail there.
    **{
        f"{column}_{part}": f"{column} {do} {MICRO}"
        for column in MONEY_COLUMNS
        for part, do in (("u", "/"), ("p", "%"))
    },
}
"""By name, SQL of what a measure may add. Money: whole micro-dollars (`_u`) and the pico-dollars left (`_p`)."""
COUNTS: Mapping[str, Part] = {
    "rows": Part(ALWAYS),
    "requests": Part(CLIENTS),
    "errors": Part(f"(outcome = 'failed' or (status >= 400 and {ENDED})) and {CLIENTS}"),
    "abandoned": Part(f"outcome = 'abandoned' and {CLIENTS}"),
    "unproven": Part("cache = 'hit-semantic' and cache_reason like '%unproven%'"),
    "modelled": Part("modelled <> 0"),
    **{name: Part(CLIENTS, name) for name in TOKENS},
    **{f"tokens_saved_{form}": Part(f"compress = '{form}' and {CLIENTS}", SAVED_TOKENS) for form in FORMS},
    "unpriced": Part(f"not {PRICED}"),
    "overhead_unknown": Part(f"{PRICED} and overhead_usd is null"),
}
MONEY: Mapping[str, Part] = {
    "baseline": Part(PRICED, "baseline_usd"),
    "cost": Part(PRICED, "cost_usd"),
    "cost_unpriced": Part(f"not {PRICED}", "cost_usd"),
    "overhead": Part(ALWAYS, "overhead_usd"),
    **{cause: Part(PRICED, f"saved_{cause}_usd") for cause in CAUSES},
}
PARTS: Mapping[str, Part] = {
    **COUNTS,
    **{f"is_{status.replace('-', '_')}": Part(f"cache = '{status}' and {CLIENTS}") for status in STATUSES},
    **{f"{name}_{half}": Part(part.condition, f"{part.value}_{half}") for name, part in MONEY.items() for half in "up"},
}
MEASURES: Mapping[str, str] = {name: part.sql for name, part in PARTS.items()}
"""By name, SQL of what a row adds; null is nothing."""


class Rows(NamedTuple):
    """Rows of the table: those with `ts` in one of `spans`, and only those up to a row number, or only those after it.

    `spans` don't overlap. Row numbers: SQLite's rowid.
    """

    spans: tuple[tuple[float, float], ...]
    up_to: int | None = None
    after: int | None = None

    def source(self) -> tuple[str, str, list[float]]:
        """SQL before `select`, SQL from `from` on, and the parameters: first of the one, then of the other."""
        flat = [float(edge) for span in self.spans for edge in span]
        marks = ", ".join("(?, ?)" for _ in self.spans)
        before = f"with spans(span_from, span_to) as (values {marks})"
        # Those after a row number are few, wherever in time: they are found by number (+ keeps the other index away).
        plus_sign = "+" if self.after is not None else ""
        where = f"from spans cross join requests where {plus_sign}ts >= span_from and {plus_sign}ts < span_to"
        if self.after is not None:
            where += f" and requests.rowid > {int(self.after)}"
        if self.up_to is not None:
            where += f" and requests.rowid <= {int(self.up_to)}"
        return before, where, flat


def name_column(group: str) -> str:
    """SQL for a group's column. Ledgers from before names were cut hold whole prompts' worth of model name."""
    return f'substr("{GROUPS[group]}", 1, {LONGEST_NAME})'


def group_expressions(by: Sequence[str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """SQL for each part of `by`, and the parameters it needs. Raises ValueError for a part that isn't known."""
    expressions: list[str] = []
    parameters: list[str] = []
    for part in by:
        if part.startswith("tag:"):
            name = part.removeprefix("tag:")
            if not name or '"' in name or "\\" in name or len(name) > 100:
                raise ValueError(f"{part[:40]!r} is no tag's name; write tag:team")
            # A row whose tags are no JSON must not take the whole report with it.
            expressions.append("cast(case when json_valid(tags) then json_extract(tags, ?) end as text)")
            parameters.append(f'$."{name}"')
        elif part in GROUPS:
            expressions.append(name_column(part))
        elif part in ROW_GROUPS:
            expressions.append(ROW_GROUPS[part])
        else:
            known = ", ".join([*GROUPS, *ROW_GROUPS])
            raise ValueError(f"can't split by {part[:40]!r}; known: {known}, tag:NAME, hour, day, week")
    if len(set(by)) != len(by) or len(by) > 4:
        raise ValueError("split by at most four different things")
    return tuple(expressions), tuple(parameters)


def sums_of(values: Sequence[int | None]) -> Sums:
    """Sums from the sums of each of MEASURES, in order."""
    named = dict(zip(MEASURES, (value or 0 for value in values), strict=True))
    amounts = {name: named[f"{name}_u"] * MICRO + named[f"{name}_p"] for name in MONEY}
    return Sums(
        **{name: named[name] for name in COUNTS},
        cache={status: named[f"is_{status.replace('-', '_')}"] for status in STATUSES},
        saved={cause: amounts.pop(cause) for cause in CAUSES},
        **amounts,
    )


def sums_by(conn: sqlite3.Connection, groups: Sequence[str], parameters: Parameters, rows: Rows) -> dict[Key, Sums]:
    """Sums for each value of the group expressions, in one scan; nothing where there are no rows."""
    if not rows.spans:
        return {}
    before, where, given = rows.source()
    selected = ", ".join([*groups, *(f"sum({sql})" for sql in MEASURES.values())])
    order = f"group by {', '.join(str(i + 1) for i in range(len(groups)))}" if groups else "having count(*) > 0"
    found: dict[Key, Sums] = {}
    for values in conn.execute(f"{before} select {selected} {where} {order}", (*given, *parameters)):
        # NULL and '' are one group, "none"; SQL keeps them apart.
        key, new = as_key(values[: len(groups)]), sums_of(values[len(groups) :])
        found[key] = plus(found[key], new) if key in found else new
    return found


def times_by(
    conn: sqlite3.Connection, names: Sequence[str], groups: Sequence[str], parameters: Parameters, rows: Rows
) -> dict[Key, dict[str, Percentiles]]:
    """Exact percentiles of each named time, for each value of the group expressions."""
    before, where, given = rows.source()
    keys = [f"g{i}" for i in range(len(groups))]
    inner = "".join(f"coalesce({sql}, '') as {key}, " for sql, key in zip(groups, keys, strict=True))
    outer = "".join(f"{key}, " for key in keys)
    partition = f"partition by {', '.join(keys)}" if keys else ""
    found: dict[Key, dict[str, Percentiles]] = {}
    for name in names:
        column, condition = LATENCIES[name]
        query = f"""
            {before}, v as (select {inner}{column} as x {where} and {column} is not null and {condition}),
            r as (select {outer}x, row_number() over (win order by x) as rank, count(*) over win as n
                  from v window win as ({partition}))
            select {outer}n, rank, x from r
            where rank in ((n * 50 + 99) / 100, (n * 95 + 99) / 100, (n * 99 + 99) / 100)"""
        ranked: dict[Key, tuple[int, dict[int, float]]] = {}
        for values in conn.execute(query, (*given, *parameters)):
            n, rank, x = values[len(keys) :]
            ranked.setdefault(as_key(values[: len(keys)]), (n, {}))[1][rank] = x
        for key, (n, at) in ranked.items():
            p50, p95, p99 = (at[math.ceil(n * percent / 100)] for percent in (50, 95, 99))
            found.setdefault(key, no_times())[name] = Percentiles(n, p50, p95, p99)
    return found


def values_by(
    conn: sqlite3.Connection, name: str, groups: Sequence[str], parameters: Parameters, rows: Rows
) -> Iterator[tuple[Key, float]]:
    """Each value of the named time, with its group."""
    if not rows.spans:
        return
    before, where, given = rows.source()
    column, condition = LATENCIES[name]
    selected = ", ".join([*groups, column])
    query = f"{before} select {selected} {where} and {column} is not null and {condition}"
    for values in conn.execute(query, (*given, *parameters)):
        yield as_key(values[:-1]), values[-1]


def as_key(values: Sequence[object]) -> Key:
    """Group values as texts; NULL is the empty text."""
    return tuple("" if value is None else str(value) for value in values)
