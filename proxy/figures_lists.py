"""Lists out of the ledger: requests that match a filter, and the names that one may filter by.

Rules of this file: as in figures.py. Paging is by the last row's time and id, never by an offset, so that a page costs
the same however far back it lies and no row is shown twice while new ones arrive.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping
from dataclasses import dataclass

from farthing.proxy.figures import MAX_RECENT, columns
from farthing.proxy.figures_sql import ENDED, group_expressions
from farthing.proxy.figures_values import STATUSES
from farthing.proxy.row import Row

__all__ = ["ANSWERS", "Filter", "Span", "filter_of", "matching", "names"]

Span = tuple[float, float]

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


def matching(
    conn: sqlite3.Connection, wanted: Filter, span: Span, limit: int, before: tuple[float, str] | None = None
) -> tuple[Row, ...]:
    """The newest rows in [since, until) that match, newest first, at most MAX_RECENT.

    `before`: time and id of the last row of the page before. Raises ValueError for a tag's odd name.
    """
    where, parameters = _conditions(wanted)
    where, parameters = ["ts >= ?", "ts < ?", *where], [*span, *parameters]
    if before is not None:
        where.append("(ts, id) < (?, ?)")
        parameters += before
    query = f"select {columns()} from requests where {' and '.join(where)} order by ts desc, id desc limit ?"
    return tuple(Row(*values) for values in conn.execute(query, (*parameters, max(0, min(limit, MAX_RECENT)))))


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
