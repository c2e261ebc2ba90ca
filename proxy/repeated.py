"""Prompts that came again, by `key_hash`: counted hour by hour while rows are rolled up.

Rules of this file: memory and lines are bounded, so a count is a lower bound. A prompt is written down for an hour when
it came twice in it or was answered from a cache; of more than the bound, those that came most often stay.
"""

from __future__ import annotations

import sqlite3
import sys
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from farthing.proxy.rollup_plan import DAY_S, HOUR_S
from farthing.proxy.sql_rows import Rows, Step

__all__ = ["Coming", "Repeats"]

MOST_HELD = 20_000
"""Prompts of late hours that are held in memory, to notice the second coming."""
MOST_WRITTEN = {HOUR_S: 500, DAY_S: 2000}
"""Lines that are kept for one start, by length, where a slice of rows finds more than twice as many."""

_UPSERT = Rows(
    "insert into repeated",
    9,
    "on conflict do update set requests = requests + excluded.requests, hits = hits + excluded.hits, "
    "saved_u = saved_u + excluded.saved_u, saved_p = saved_p + excluded.saved_p, "
    "model = iif(excluded.last_s >= last_s, excluded.model, model), last_s = max(last_s, excluded.last_s)",
)
_PRUNE = """
    delete from repeated where length_s = ?1 and start_s = ?2 and key_hash not in (
        select key_hash from repeated where length_s = ?1 and start_s = ?2
        order by requests desc, saved_u desc, key_hash limit ?3)"""


class Coming(NamedTuple):
    """Clients' requests with one prompt within an hour. `hits`: from a cache. `saved_u`, `saved_p`: micro-dollars, and
    pico-dollars left. `last_s`, `model`: of the last of them."""

    hour_s: int
    key_hash: str
    requests: int
    hits: int
    saved_u: int
    saved_p: int
    last_s: float
    model: str


class Repeats:
    """Counts comings and writes what repeats."""

    def __init__(self) -> None:
        self._held: dict[int, _Count] = {}  # by the hash of hour and prompt, which is small

    def add(self, conn: sqlite3.Connection, comings: Iterable[Coming]) -> Iterator[Step]:
        """Count the comings; the steps that bring the lines up to date. It only reads."""
        touched = {}
        for each in comings:
            place = (each.hour_s, each.key_hash)
            short = hash(place)
            count = self._held.get(short)
            if count is None:
                count = self._held[short] = _Count()
            count.add(each)
            touched[place] = count
        due = [(place, count) for place, count in touched.items() if count.repeated]
        for length_s in MOST_WRITTEN:
            for start_s in {hour_s // length_s * length_s for (hour_s, _), _ in due}:
                yield from self._prune(conn, length_s, start_s)
            yield from _UPSERT.steps(
                (length_s, hour_s // length_s * length_s, key_hash, *count.unwritten())
                for (hour_s, key_hash), count in due
            )
        for _, count in due:
            count.written()
        if len(self._held) > MOST_HELD:
            # The oldest go first; those that repeat have their line, and go on from there.
            for short in [*self._held][: len(self._held) - MOST_HELD // 2]:
                del self._held[short]

    def _prune(self, conn: sqlite3.Connection, length_s: int, start_s: int) -> Iterator[Step]:
        query = "select count(*) from repeated where length_s = ? and start_s = ?"
        if conn.execute(query, (length_s, start_s)).fetchone()[0] > 2 * MOST_WRITTEN[length_s]:
            yield _PRUNE, (length_s, start_s, MOST_WRITTEN[length_s])


class _Count:
    """Comings of one prompt in one hour that aren't written yet."""

    __slots__ = ("hits", "known", "last_s", "model", "requests", "saved_p", "saved_u")

    def __init__(self) -> None:
        self.requests = self.hits = self.saved_u = self.saved_p = 0
        self.last_s, self.model = 0.0, ""
        self.known = False  # it has its line

    def add(self, each: Coming) -> None:
        self.requests += each.requests
        self.hits += each.hits
        self.saved_u += each.saved_u
        self.saved_p += each.saved_p
        self.last_s, model = max((self.last_s, self.model), (each.last_s, each.model))
        self.model = sys.intern(model)  # each row brings its name as an object of its own

    @property
    def repeated(self) -> bool:
        return self.known or self.requests > 1 or self.hits > 0

    def unwritten(self) -> tuple[int, int, int, int, float, str]:
        return self.requests, self.hits, self.saved_u, self.saved_p, self.last_s, self.model

    def written(self) -> None:
        self.requests = self.hits = self.saved_u = self.saved_p = 0
        self.known = True
