"""Lists out of the ledger: requests that match a filter, and the names that one may filter by.

Rules of this file: as in figures.py. Paging is by the last row's time and id, never by an offset, so that a page costs
the same however far back it lies and no row is shown twice while new ones arrive. No filter but an id has an index of
its own: a page looks at `MOST_LOOKED` rows at most, and says how far back it looked.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from farthing.proxy.figures import MAX_RECENT, columns
from farthing.proxy.figures_sql import ENDED, group_expressions
from farthing.proxy.figures_values import STATUSES
from farthing.proxy.row import Row

__all__ = ["ANSWERS", "MOST_LOOKED", "Filter", "Page", "Span", "filter_of", "matching", "names"]

Span = tuple[float, float]
Place = tuple[float, str]
"""The time and the id of a row."""

MOST_LOOKED = 100_000
"""Rows that one page of a filtered list looks at: a ninth of a second of a processor at most (docs/benchmarks.md)."""

ANSWERS: Mapping[str, str] = {
    "2xx": f"status between 200 and 299 and {ENDED}",
    "4xx": f"status between 400 and 499 and {ENDED}",
    "5xx": f"status >= 500 and {ENDED}",
    "abandoned": "outcome = 'abandoned'",
}
"""What a filter may ask of an answer's status."""
_FAILED = f"(outcome = 'failed' or (status >= 400 and {ENDED}))"
_SEARCHED = ("id", "user", "tenant")
_MOST_CHARS = 256
_MOST_NAMES = 100
_LOOKED_AT = 5000


@dataclass(frozen=True, slots=True)
class Filter:
    """Which requests; an empty field asks for nothing. `tag`: NAME=VALUE. `answer`: of ANSWERS. `failed`: only those.

    `text`: an id, user or tenant as it is, the beginning of a key's hash, or a part of an error.
    """

    model: str = ""
    cache: str = ""
    answer: str = ""
    tag: str = ""
    endpoint: str = ""
    text: str = ""
    failed: bool = False


def filter_of(query: Mapping[str, str]) -> Filter:
    """The filter that a query names. Raises ValueError: an answer that there isn't, a tag without a name."""
    texts = {
        name: query.get(name, "").strip()[:_MOST_CHARS]
        for name in ("model", "cache", "answer", "tag", "endpoint", "text")
    }
    if texts["cache"] and texts["cache"] not in STATUSES:
        raise ValueError(f"cache must be one of {', '.join(STATUSES)}")
    if texts["answer"] and texts["answer"] not in ANSWERS:
        raise ValueError(f"answer must be one of {', '.join(ANSWERS)}")
    if texts["tag"] and "=" not in texts["tag"]:
        raise ValueError(f"a tag looks like team=search, not {texts['tag'][:40]!r}")
    return Filter(**texts, failed=query.get("failed", "") in ("1", "true"))


class Page(NamedTuple):
    """Some rows of a list, newest first. `next`: the place that the next page begins after, None at the end.

    `looked_to_s`: how far back was looked, where that was as far as one page may and the page isn't full.
    """

    rows: tuple[Row, ...]
    next: Place | None = None
    looked_to_s: float | None = None


def matching(
    conn: sqlite3.Connection,
    wanted: Filter,
    span: Span,
    limit: int,
    before: Place | None = None,
    most_looked: int = MOST_LOOKED,
) -> Page:
    """The newest rows in [since, until) that match, at most MAX_RECENT, of the latest `most_looked`.

    `before`: the `next` of the page before. A text that is a request's id is that request, however far back: there's an
    index. Raises ValueError for a tag's odd name.
    """
    limit = max(0, min(limit, MAX_RECENT))
    where, parameters = _conditions(wanted)
    place, of_place = _place(span, before)
    by_id = bool(wanted.text) and conn.execute("select 1 from requests where id = ?", (wanted.text,)).fetchone()
    looked_to_s = None
    if by_id:
        where, parameters = ["id = ?", *where], [wanted.text, *parameters]
    elif where:
        ts = f"select ts from requests where {place} order by ts desc limit 1 offset ?"
        found = conn.execute(ts, (*of_place, most_looked - 1)).fetchone()
        looked_to_s = found and found[0]
        # Of rows of one moment all are looked at: then "before that moment" is a place to go on from.
        place, of_place = _place((span[0] if looked_to_s is None else looked_to_s, span[1]), before)
    query = f"select {columns()} from requests where {' and '.join([place, *where])} order by ts desc, id desc limit ?"
    rows = [Row(*values) for values in conn.execute(query, (*of_place, *parameters, limit + 1))]
    if len(rows) > limit > 0:
        return Page(tuple(rows[:limit]), (rows[limit - 1].ts, rows[limit - 1].id))
    if looked_to_s is None:
        return Page(tuple(rows[:limit]))
    return Page(tuple(rows), (looked_to_s, ""), looked_to_s)


def _place(span: Span, before: Place | None) -> tuple[str, list[float | str]]:
    """The rows of a span, before a place in it, as SQL that the index on `ts` bounds at both ends."""
    if before is None or before[0] >= span[1]:
        return "ts >= ? and ts < ?", [*span]
    return "ts >= ? and ts <= ? and (ts < ? or id < ?)", [span[0], before[0], *before]


def _conditions(wanted: Filter) -> tuple[list[str], list[float | str]]:
    where: list[str] = []
    parameters: list[float | str] = []
    if wanted.model:
        where.append("(model_requested = ? or model_served = ?)")
        parameters += [wanted.model, wanted.model]
    for name in ("cache", "endpoint"):
        if value := getattr(wanted, name):
            where.append(f"{name} = ?")
            parameters.append(value)
    if wanted.answer:
        where.append(f"({ANSWERS[wanted.answer]})")
    if wanted.tag:
        name, _, value = wanted.tag.partition("=")
        expressions, path = group_expressions((f"tag:{name.strip()}",))
        # A tag that was given several times holds all of its values between bars.
        where.append(f"instr('|' || {expressions[0]} || '|', '|' || ? || '|') > 0")
        parameters += [*path, value.strip()]
    if wanted.text:
        exact = " or ".join(f'"{name}" = ?' for name in _SEARCHED)
        where.append(f"({exact} or substr(key_hash, 1, ?) = ? or instr(lower(error), lower(?)) > 0)")
        parameters += [*(wanted.text for _ in _SEARCHED), len(wanted.text), wanted.text, wanted.text]
    if wanted.failed:
        where.append(_FAILED)
    return where, parameters


def names(conn: sqlite3.Connection, span: Span) -> dict[str, list[str]]:
    """What may be filtered by: models, and tags as NAME=VALUE, among the latest rows, the most frequent first."""
    latest = "select model_requested, tags from requests where ts >= ? and ts < ? order by ts desc limit ?"
    bounds = (*span, _LOOKED_AT)
    models = conn.execute(
        f"select model_requested from ({latest}) where model_requested <> '' group by 1 order by count(*) desc limit ?",
        (*bounds, _MOST_NAMES),
    )
    tags = conn.execute(
        f"""select each.key, each.value from ({latest}) as few, json_each(case when json_valid(few.tags) then few.tags
            else '{{}}' end) as each where each.type = 'text' group by 1, 2 order by count(*) desc limit ?""",
        (*bounds, _MOST_NAMES),
    )
    return {"models": [str(name) for (name,) in models], "tags": [f"{name}={value}" for name, value in tags]}
