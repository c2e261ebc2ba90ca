"""What it was worth: money and quality of each month beside what the business said of the same requests. Reads only.

Rules of this file: a word counts for the month of its request, whenever it came; words whose row is gone are in no
line; at most MOST_WORDS are looked at, the latest to come, and it is said where there were more. A good answer's cost
is what a request costs over the share of good ones among those rated: nobody rates all of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import orjson

from farthing.policies.levels import Range, Standing, Tally, assess, wilson
from farthing.policies.outcome import RATING
from farthing.proxy.figures_read import Reading
from farthing.proxy.figures_sql import CLIENTS, as_key, group_expressions
from farthing.proxy.figures_values import Key, Sums
from farthing.proxy.levels_tally import promises_kept
from farthing.proxy.rollup_plan import Slices

__all__ = ["MOST_WORDS", "Kept", "Month", "Said", "Worth", "WorthLine", "months_in", "read_worth"]

MOST_WORDS = 200_000
_MOST_MONTHS = 24
_MOST_GROUPS = 20
_IDS_AT_ONCE = 5_000
_FEWEST_RATED = 30


class Month(NamedTuple):
    """What a span holds of a calendar month (UTC). `name`: `2026-11`. `whole`: all of it."""

    name: str
    since_s: float
    until_s: float
    whole: bool


@dataclass(slots=True)
class Said:
    """One metric over some requests: words, their sum, and how many were a half or more."""

    words: int = 0
    total: float = 0.0
    good: int = 0

    @property
    def mean(self) -> float:
        """Of the values."""
        return self.total / self.words


@dataclass(slots=True)
class WorthLine:
    """A month and a group. Money in `sums`: pico-dollars."""

    month: Month
    key: Key
    sums: Sums
    metrics: dict[str, Said] = field(default_factory=dict)

    @property
    def good(self) -> Range | None:
        """The share of good ones among those rated, with its interval; None where nobody rated."""
        rated = self.metrics.get(RATING)
        return None if rated is None else wilson(rated.good, rated.words)

    @property
    def cost_per_good(self) -> int | None:
        """Pico-dollars; None with fewer than thirty ratings, without a good one, and where no price is known."""
        good, priced = self.good, self.sums.rows - self.sums.unpriced
        if good is None or not good.value or self.metrics[RATING].words < _FEWEST_RATED or priced <= 0:
            return None
        return round(self.sums.spent / priced / good.value)

    def cost_per(self, metric: str) -> int | None:
        """What was spent for each 1 of the metric (a conversion, a dollar of revenue), in pico-dollars."""
        said = self.metrics[metric]
        return round(self.sums.spent / said.total) if said.total > 0 and self.sums.has_prices else None


class Kept(NamedTuple):
    """How a service level's target was kept in a month."""

    month: Month
    level: str
    standing: Standing


class Worth(NamedTuple):
    """`lines`: by month, the dearest groups first. `cut`: there were more than MOST_WORDS words."""

    by: tuple[str, ...]
    lines: tuple[WorthLine, ...]
    levels: tuple[Kept, ...]
    cut: bool

    @property
    def metrics(self) -> tuple[str, ...]:
        """All that were said, ratings first."""
        names = {name for line in self.lines for name in line.metrics}
        return tuple(sorted(names, key=lambda name: (name != RATING, name)))


def read_worth(
    conn: sqlite3.Connection, state_dir: Path, since_s: float, until_s: float, by: Sequence[str] = ()
) -> Worth:
    """Of [since, until), by month and group. Raises ValueError for an unknown group; sqlite3.Error."""
    months = months_in(since_s, until_s)
    lines: dict[tuple[str, Key], WorthLine] = {}
    for month in months:
        found = Reading(conn, Slices(month.since_s, month.until_s)).sums(by)
        keyed = {key[1:]: sums for key, sums in found.items() if sums.requests}
        for key in sorted(keyed, key=lambda key: (-keyed[key].baseline, -keyed[key].requests, key))[:_MOST_GROUPS]:
            lines[month.name, key] = WorthLine(month, key, keyed[key])
    words, cut = _words(state_dir / "outcomes.db", since_s)
    for at_s, key, metric, value in _about(conn, words, by):
        line = next((lines.get((month.name, key)) for month in months if month.since_s <= at_s < month.until_s), None)
        if line is not None:
            said = line.metrics.setdefault(metric, Said())
            said.words, said.total, said.good = said.words + 1, said.total + value, said.good + (value >= 0.5)
    return Worth(tuple(by), tuple(lines.values()), tuple(_kept(state_dir, months)), cut)


def months_in(since_s: float, until_s: float) -> list[Month]:
    """The calendar months of [since, until), the last _MOST_MONTHS of them, cut at its ends."""
    found: list[Month] = []
    at = datetime.fromtimestamp(since_s, UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    while at.timestamp() < until_s:
        following = at.replace(year=at.year + at.month // 12, month=at.month % 12 + 1)
        begin_s, end_s = at.timestamp(), following.timestamp()
        found.append(
            Month(f"{at:%Y-%m}", max(begin_s, since_s), min(end_s, until_s), since_s <= begin_s and end_s <= until_s)
        )
        at = following
    return found[-_MOST_MONTHS:]


def _words(path: Path, since_s: float) -> tuple[dict[str, list[tuple[str, float]]], bool]:
    """What was said, by request; and whether there was more. A word is never older than its request."""
    if not path.is_file():
        return {}, False
    query = "select request_id, metric, value from outcomes where received_s >= ? order by received_s desc limit ?"
    found: dict[str, list[tuple[str, float]]] = {}
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=2.0)) as conn:
        rows = conn.execute(query, (since_s, MOST_WORDS + 1)).fetchall()
    for id, metric, value in rows[:MOST_WORDS]:
        found.setdefault(id, []).append((metric, value))
    return found, len(rows) > MOST_WORDS


def _about(
    conn: sqlite3.Connection, words: Mapping[str, Sequence[tuple[str, float]]], by: Sequence[str]
) -> Iterable[tuple[float, Key, str, float]]:
    """Each word with the moment and the group of its request."""
    groups, given = group_expressions(by)
    selected = ", ".join(["id", "ts", *groups])
    query = f"select {selected} from requests where id in (select value from json_each(?)) and {CLIENTS}"
    ids = [*words]
    for at in range(0, len(ids), _IDS_AT_ONCE):
        about = orjson.dumps(ids[at : at + _IDS_AT_ONCE]).decode()
        for id, at_s, *values in conn.execute(query, (*given, about)):
            yield from ((at_s, as_key(values), metric, value) for metric, value in words[id])


def _kept(state_dir: Path, months: Sequence[Month]) -> Iterable[Kept]:
    found = promises_kept(state_dir)
    if found is None:
        return
    promises, tallies = found
    with closing(tallies):
        for month in months:
            for promise in promises:
                tally = tallies.between(promise.key, promise.target.kind, month.since_s, month.until_s)
                yield Kept(month, promise.level, assess(promise.target, tally, lambda length_s: Tally()))
