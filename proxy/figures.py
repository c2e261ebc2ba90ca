"""What the ledger adds up to: questions to a read-only connection, plain values as answers.

Rules of this file: money is integer pico-dollars (1e-12 dollar), an unknown price is counted and never a zero; nothing
is written; everything that a caller's text decides (groups, tags, times) reaches SQL as a bound parameter or from a
fixed list. Sums and percentiles are SQLite's, so that a dashboard on a busy proxy doesn't hold Python's lock.
"""

from __future__ import annotations

import math
import re
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from farthing.proxy.row import COLUMNS, ERRANDS, LONGEST_NAME, SAVED_COLUMNS, Row

__all__ = [
    "CAUSES",
    "FORMS",
    "GROUPS",
    "STATUSES",
    "Bucket",
    "Figures",
    "Group",
    "Percentiles",
    "Sums",
    "farthing_since",
    "one",
    "open_ledger",
    "recent",
    "saved_by_form",
    "series",
    "summary",
]

CAUSES: tuple[str, ...] = tuple(column.removeprefix("saved_").removesuffix("_usd") for column in SAVED_COLUMNS)
"""What a saving may come from, in the ledger's order: exact, semantic, compress, route, prompt_cache."""

GROUPS: Mapping[str, str] = {
    "model": "model_requested",
    "model_served": "model_served",
    "tenant": "tenant",
    "endpoint": "endpoint",
    "cache": "cache",
    "compress": "compress",
    "user": "user",
}
"""What figures may be split by, next to `tag:NAME`; the values are columns."""

FORMS = ("tidy", "recode", "squeeze")
"""What became of a request's texts, from gentle to bold: a squeezed request may be recoded and tidied too."""

STATUSES = ("hit-exact", "hit-semantic", "joined", "miss", "bypass")
MAX_GROUPS = 200
MAX_BUCKETS = 1000
MAX_RECENT = 1000

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
}


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Exact nearest-rank percentiles of `count` values, in milliseconds; None where there are none."""

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Sums:
    """Counts, tokens and money over some requests. Money: pico-dollars.

    `baseline`, `cost` and `saved` cover the rows where both cost and baseline are known, so that they can be compared;
    the others are `unpriced`, and what is known of their cost is `cost_unpriced`. `overhead` covers every row where
    it is known; `overhead_unknown` counts the priced rows where it is not. Token sums leave out rows without a count.
    `tokens_saved_*`: input tokens that requests of that form were sent without.
    """

    requests: int = 0
    cache: Mapping[str, int] = field(default_factory=dict)
    errors: int = 0
    abandoned: int = 0
    unproven: int = 0
    modelled: int = 0
    tokens_in_original: int = 0
    tokens_in_sent: int = 0
    tokens_in_cached: int = 0
    tokens_out: int = 0
    tokens_saved_tidy: int = 0
    tokens_saved_recode: int = 0
    tokens_saved_squeeze: int = 0
    unpriced: int = 0
    overhead_unknown: int = 0
    baseline: int = 0
    cost: int = 0
    cost_unpriced: int = 0
    overhead: int = 0
    saved: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))

    @property
    def answered_here(self) -> int:
        """Requests that caused no upstream call of their own: hits and joined ones."""
        return sum(self.cache.get(status, 0) for status in ("hit-exact", "hit-semantic", "joined"))

    @property
    def eligible(self) -> int:
        """Requests that a cache was allowed to answer: all but the bypassed ones."""
        return self.requests - self.cache.get("bypass", 0)

    @property
    def hit_rate_eligible(self) -> float | None:
        """Hits and joined ones, as a share of the eligible requests."""
        return self.answered_here / self.eligible if self.eligible else None

    @property
    def hit_rate_all(self) -> float | None:
        """Hits and joined ones, as a share of all requests."""
        return self.answered_here / self.requests if self.requests else None

    @property
    def has_prices(self) -> bool:
        """Whether any amount can be named at all: false where every request is of unknown price."""
        return self.unpriced < self.requests or not self.requests

    @property
    def saved_total(self) -> int:
        """The sum of the savings by cause; negative where optimising cost more than it saved."""
        return sum(self.saved.values())

    @property
    def net_saving(self) -> int:
        """What is left of the savings when farthing's own spending is paid."""
        return self.saved_total - self.overhead

    @property
    def spent(self) -> int:
        """What the comparable requests cost, farthing's own spending included."""
        return self.cost + self.overhead

    @property
    def unattributed(self) -> int:
        """Baseline less cost less savings: zero, unless the ledger's rows break their identity."""
        return self.baseline - self.cost - self.saved_total


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of one group. `key`: a text for each part of `by`. `times`: see LATENCIES."""

    key: tuple[str, ...]
    sums: Sums
    times: Mapping[str, Percentiles]


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened in [since_s, until_s), in all and by group; dearest groups first, `left_out` of them missing."""

    since_s: float
    until_s: float
    by: tuple[str, ...]
    total: Sums
    times: Mapping[str, Percentiles]
    groups: tuple[Group, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """The figures of one slice of time, `length_s` long."""

    start_s: float
    length_s: float
    sums: Sums
    times: Mapping[str, Percentiles]


def open_ledger(path: Path) -> sqlite3.Connection:
    """A connection that can't write. Raises sqlite3.OperationalError where there is no such file."""
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True, timeout=2.0)


def summary(conn: sqlite3.Connection, since_s: float, until_s: float, by: Sequence[str] = ()) -> Figures:
    """The figures of a span of time, and by group where `by` names any of GROUPS or `tag:NAME`.

    Raises ValueError for an unknown group. Cost: a few scans and sorts of the span's rows.
    """
    expressions, parameters = group_expressions(by)
    span = (since_s, until_s)
    total = sums_by(conn, (), (), span).get((), Sums())
    times = times_by(conn, tuple(LATENCIES), (), (), span).get((), no_times())
    if not by:
        return Figures(since_s, until_s, (), total, times)
    split = sums_by(conn, expressions, parameters, span)
    dearest = sorted(split, key=lambda key: (-split[key].baseline, -split[key].requests, key))[:MAX_GROUPS]
    grouped = times_by(conn, ("latency", "overhead"), expressions, parameters, span)
    groups = tuple(Group(key, split[key], grouped.get(key, no_times())) for key in dearest)
    return Figures(since_s, until_s, tuple(by), total, times, groups, len(split) - len(groups))


def saved_by_form(conn: sqlite3.Connection, since_s: float, until_s: float) -> dict[str, int | None]:
    """What compression saved, in pico-dollars, by the form of the request; None where no price is known of any."""
    found = sums_by(conn, *group_expressions(("compress",)), (since_s, until_s))
    known = {form: found[form,] for form in FORMS if (form,) in found}
    return {form: sums.saved["compress"] if sums.has_prices else None for form, sums in known.items()}


def series(conn: sqlite3.Connection, since_s: float, until_s: float, buckets: int) -> tuple[Bucket, ...]:
    """The figures in `buckets` equal slices of time, empty slices included. Raises ValueError for an empty span."""
    if not 1 <= buckets <= MAX_BUCKETS:
        raise ValueError(f"buckets must be 1 to {MAX_BUCKETS}, not {buckets}")
    if until_s <= since_s:
        raise ValueError("the span of time is empty: since must be before now")
    length_s = (until_s - since_s) / buckets
    # The last slice takes the rounding of the division.
    expression, parameters = "min(cast((ts - ?) / ? as integer), ?)", (since_s, length_s, buckets - 1)
    split = sums_by(conn, (expression,), parameters, (since_s, until_s))
    times = times_by(conn, ("latency", "overhead"), (expression,), parameters, (since_s, until_s))
    return tuple(
        Bucket(since_s + i * length_s, length_s, split.get((str(i),), Sums(cache={})), times.get((str(i),), no_times()))
        for i in range(buckets)
    )


def recent(conn: sqlite3.Connection, limit: int = 50) -> tuple[Row, ...]:
    """The newest rows, newest first; at most MAX_RECENT."""
    limit = max(0, min(limit, MAX_RECENT))
    found = conn.execute(f"select {columns()} from requests order by ts desc, id desc limit ?", (limit,))
    return tuple(Row(*values) for values in found)


def one(conn: sqlite3.Connection, row_id: str) -> Row | None:
    """The row of that id, None where there is none."""
    values = conn.execute(f"select {columns()} from requests where id = ?", (row_id,)).fetchone()
    return Row(*values) if values else None


def columns() -> str:
    """The columns, quoted: some are words of SQL in one engine or another."""
    return ", ".join(f'"{column}"' for column in COLUMNS)


def farthing_since(text: str, now_s: float) -> float:
    """The moment that `text` means, in seconds since the epoch: `7d`, `24h`, `90m`, `30s`, `2w`, or an ISO date.

    An ISO date or time without an offset is UTC. Raises ValueError, whose message says what would do.
    """
    text = text.strip()
    if found := re.fullmatch(r"([0-9]{1,9})\s*([smhdw])", text):
        units_s = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
        if (ago_s := int(found[1]) * units_s[found[2]]) > 0:
            return max(0.0, now_s - ago_s)
    elif re.match(r"[0-9]{4}-", text):
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            pass
        else:
            moment_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
            if moment_s >= now_s:
                raise ValueError(f"{text!r} is not in the past")
            return moment_s
    raise ValueError(f"{text[:40]!r} is no span of time; write 90m, 24h, 7d, 2w, or a date such as 2026-01-31")


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
            # Ledgers from before names were cut hold whole prompts' worth of model name.
            expressions.append(f'substr("{GROUPS[part]}", 1, {LONGEST_NAME})')
        else:
            raise ValueError(f"can't split by {part[:40]!r}; known: {', '.join(GROUPS)}, tag:NAME")
    if len(set(by)) != len(by) or len(by) > 4:
        raise ValueError("split by at most four different things")
    return tuple(expressions), tuple(parameters)


Key = tuple[str, ...]
Parameters = Sequence[float | str]


def sums_by(
    conn: sqlite3.Connection, groups: Sequence[str], parameters: Parameters, span: tuple[float, float]
) -> dict[Key, Sums]:
    """Sums for each value of the group expressions, in one scan; nothing where there are no rows."""
    counts = {
        "requests": f"sum({CLIENTS})",
        "errors": f"sum((outcome = 'failed' or (status >= 400 and {ENDED})) and {CLIENTS})",
        "abandoned": f"sum(outcome = 'abandoned' and {CLIENTS})",
        "unproven": "sum(cache = 'hit-semantic' and cache_reason like '%unproven%')",
        "modelled": "sum(modelled <> 0)",
        **{
            name: f"sum(case when {CLIENTS} then {name} end)"
            for name in ("tokens_in_original", "tokens_in_sent", "tokens_in_cached", "tokens_out")
        },
        **{
            f"tokens_saved_{form}": f"sum(case when compress = '{form}' and {CLIENTS} "
            "then tokens_in_original - tokens_in_sent end)"
            for form in FORMS
        },
        "unpriced": f"sum(not {PRICED})",
        "overhead_unknown": f"sum({PRICED} and overhead_usd is null)",
    }
    money = {
        "baseline": f"case when {PRICED} then baseline_usd end",
        "cost": f"case when {PRICED} then cost_usd end",
        "cost_unpriced": f"case when not {PRICED} then cost_usd end",
        "overhead": "overhead_usd",
        **{cause: f"case when {PRICED} then saved_{cause}_usd end" for cause in CAUSES},
    }
    selected = [
        *groups,
        *counts.values(),
        *(f"sum(cache = '{status}' and {CLIENTS})" for status in STATUSES),
        # In two parts: 64 bits of pico-dollars end at 9.2 million dollars, and SQLite's sum would fail there.
        *(f"sum(({sql}) / 1000000), sum(({sql}) % 1000000)" for sql in money.values()),
    ]
    order = f" group by {', '.join(str(i + 1) for i in range(len(groups)))}" if groups else ""
    found: dict[Key, Sums] = {}
    query = f"select {', '.join(selected)} from requests where ts >= ? and ts < ?{order}"
    for values in conn.execute(query, (*parameters, *span)):
        key, rest = as_key(values[: len(groups)]), [value or 0 for value in values[len(groups) :]]
        named = dict(zip(counts, rest, strict=False))
        by_status = dict(zip(STATUSES, rest[len(counts) :], strict=False))
        halves = rest[len(counts) + len(STATUSES) :]
        amounts = {name: halves[2 * i] * 1_000_000 + halves[2 * i + 1] for i, name in enumerate(money)}
        saved = {cause: amounts.pop(cause) for cause in CAUSES}
        # NULL and '' are one group, "none"; SQL keeps them apart.
        new = Sums(**named, cache=by_status, saved=saved, **amounts)
        found[key] = plus(found[key], new) if key in found else new
    return found


def times_by(
    conn: sqlite3.Connection,
    names: Sequence[str],
    groups: Sequence[str],
    parameters: Parameters,
    span: tuple[float, float],
) -> dict[Key, dict[str, Percentiles]]:
    """Exact percentiles of each named time, for each value of the group expressions."""
    keys = [f"g{i}" for i in range(len(groups))]
    inner = "".join(f"coalesce({sql}, '') as {key}, " for sql, key in zip(groups, keys, strict=True))
    outer = "".join(f"{key}, " for key in keys)
    partition = f"partition by {', '.join(keys)}" if keys else ""
    found: dict[Key, dict[str, Percentiles]] = {}
    for name in names:
        column, condition = LATENCIES[name]
        query = f"""
            with v as (select {inner}{column} as x from requests
                       where ts >= ? and ts < ? and {column} is not null and {condition}),
            r as (select {outer}x, row_number() over (win order by x) as rank, count(*) over win as n
                  from v window win as ({partition}))
            select {outer}n, rank, x from r
            where rank in ((n * 50 + 99) / 100, (n * 95 + 99) / 100, (n * 99 + 99) / 100)"""
        ranked: dict[Key, tuple[int, dict[int, float]]] = {}
        for values in conn.execute(query, (*parameters, *span)):
            n, rank, x = values[len(keys) :]
            ranked.setdefault(as_key(values[: len(keys)]), (n, {}))[1][rank] = x
        for key, (n, at) in ranked.items():
            points = (at[math.ceil(n * percent / 100)] for percent in (50, 95, 99))
            found.setdefault(key, no_times())[name] = Percentiles(n, *points)
    return found


def no_times() -> dict[str, Percentiles]:
    """Percentiles of nothing."""
    return {name: Percentiles() for name in LATENCIES}


def as_key(values: Sequence[object]) -> Key:
    """Group values as texts; NULL is the empty text."""
    return tuple("" if value is None else str(value) for value in values)


def plus(a: Sums, b: Sums) -> Sums:
    """Two sums as one."""
    added: dict[str, object] = {}
    for name in Sums.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        added[name] = {key: x.get(key, 0) + y.get(key, 0) for key in {**x, **y}} if isinstance(x, Mapping) else x + y
    return Sums(**added)  # type: ignore[arg-type]
