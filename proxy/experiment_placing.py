"""Whose arm a row or a word belongs to, and what it adds there: see experiment_total.py for the events.

Each replica and each process knows only its own ledger, so this is what it can tell the others.
"""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from farthing.policies.assign import Unit
from farthing.policies.experiment_sums import DAY_S
from farthing.policies.outcome import FRESH
from farthing.proxy.exchange import CacheStatus
from farthing.proxy.exchange import Outcome as Ended
from farthing.proxy.experiment_total import ROW_METRICS, Placed
from farthing.proxy.figures import columns, rows_of
from farthing.proxy.outcomes import FILE, Change
from farthing.proxy.rollout_rows import refused, unit_in
from farthing.proxy.row import ERRANDS, Row

__all__ = ["Known", "Placing", "before_start", "past_of", "said"]

MOST_ROWS = 200_000  # that a covariate is made of
_PICO = 1e-12
_REMEMBERED = 100_000
_FEW = 500


class Known(NamedTuple):
    """A request that was counted."""

    arm: int
    unit: str
    day: int
    slices: tuple[tuple[str, str], ...]
    cost: float | None

    @property
    def whose(self) -> list[Any]:
        """Its arm, unit, day and slices, as events have them."""
        return [self.arm, self.unit, self.day, [list(one) for one in self.slices]]

    def placed(self, kind: str, *values: object) -> Placed:
        """An event of it."""
        return [kind, *self.whose, *values]


def said(known: Known, change: Change) -> Placed:
    """What was said of it."""
    return known.placed("said", change.metric, list(change.before), list(change.after))


def _itself(unit: str) -> str:
    return unit


@dataclass(slots=True)
class Placing:
    """Places what one ledger holds; used by one thread at a time. `named`: what units are called in events; `gaps`:
    moments (from, to) between which this ledger's requests took no part; the other fields are those of
    experiment_data.Data."""

    name: str
    arms: tuple[str, ...]
    unit: Unit
    since_s: float
    ledger: Path
    sliced: tuple[str, ...] = ()
    rest: bool = False
    named: Callable[[str], str] = _itself
    gaps: Sequence[Sequence[float]] = ()
    _known: OrderedDict[str, Known] = field(default_factory=OrderedDict, init=False)

    def row(self, row: Row) -> Placed | None:
        """What it adds; None: it takes no part. It is remembered."""
        if row.endpoint in ERRANDS:
            return self._overhead(row)
        known = self._place(row)
        if known is None:
            return None
        self._known[row.id] = known
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return known.placed("row", [value_of(row, name) for name in ROW_METRICS])

    def remembered(self, request_id: str) -> Known | None:
        """A request that was seen of late."""
        return self._known.get(request_id)

    def known(self, ids: Iterable[str]) -> dict[str, Known | None]:
        """Those of these requests that are remembered or in the ledger; None for those that take no part."""
        asked = list(ids)
        found: dict[str, Known | None] = {id: self._known[id] for id in asked if id in self._known}
        return found | self._looked_up([id for id in asked if id not in found])

    def _overhead(self, row: Row) -> Placed | None:
        """What farthing's own call for a request cost is that request's; but not what it cost to measure the arms."""
        request_id = row.cache_reason.rpartition(" of ")[2]
        known = None if row.cache_reason.startswith(f"{FRESH} ") else self._known.get(request_id)
        if known is None or known.cost is None or not row.overhead_usd:
            return None
        more = row.overhead_usd * _PICO
        self._known[request_id] = known._replace(cost=known.cost + more)
        return known.placed("more", known.cost, more)

    def _place(self, row: Row) -> Known | None:
        """Whose arm a row is in; None where it takes no part."""
        if row.ts < self.since_s or any(start <= row.ts < end for start, end in self.gaps):
            return None
        if row.experiment == self.name and row.arm in self.arms:
            arm = self.arms.index(row.arm)
        elif self.rest and row.experiment != self.name and row.policy not in ("", "off") and takes_part(row):
            arm = 0
        else:
            return None
        unit = "" if self.unit == "request" else self.named(unit_in(row, self.unit))
        cost = value_of(row, "cost_usd")
        return Known(arm, unit, int((row.ts - self.since_s) // DAY_S), self._slices_of(row), cost)

    def _slices_of(self, row: Row) -> tuple[tuple[str, str], ...]:
        found = []
        for name in self.sliced:
            if name.startswith("tag:"):
                value = str(orjson.loads(row.tags).get(name[4:], "")) if row.tags != "{}" else ""
            else:
                value = {"endpoint": row.endpoint, "model": row.model_requested, "tenant": row.tenant}[name]
            if value:
                found.append((name, value))
        return tuple(found)

    def _looked_up(self, ids: Sequence[str]) -> dict[str, Known | None]:
        """Requests that the ledger knows; None for those that take no part."""
        found: dict[str, Known | None] = {}
        if not ids:
            return found
        try:
            with closing(sqlite3.connect(f"{self.ledger.absolute().as_uri()}?mode=ro", uri=True)) as conn:
                for at in range(0, len(ids), _FEW):
                    found |= {key: self._place(row) for key, row in rows_of(conn, ids[at : at + _FEW]).items()}
        except sqlite3.Error:
            return {}
        return found


def takes_part(row: Row) -> bool:
    """Whether a row of no experiment is one that farthing's policies answered."""
    return row.cache_reason != "x-farthing-off"


def value_of(row: Row, metric: str) -> float | None:
    """A row's value; None where it says nothing of it: an unknown price, a client that left, what farthing refused, a
    failed answer's time."""
    ended = row.outcome == Ended.COMPLETED and row.status < 400
    if metric == "cost_usd":
        if row.cost_usd is None or row.cache == CacheStatus.JOINED:
            return None
        return (row.cost_usd + (row.overhead_usd or 0)) * _PICO
    if metric == "latency_ms":
        return row.latency_ms if ended else None
    if row.outcome == Ended.ABANDONED or refused(row):
        return None
    return 0.0 if ended else 1.0


def before_start(ledger: Path, metric: str, unit: Unit, since_s: float, days: float, most: int) -> dict[str, float]:
    """Each unit's mean of a metric over the days before `since_s`, of at most `MOST_ROWS` rows. Blocks.

    Empty where units have no past (sessions, requests). Raises sqlite3.Error.
    """
    return {name: total / n for name, (total, n) in past_of(ledger, metric, unit, since_s, days, most).items()}


def past_of(
    ledger: Path, metric: str, unit: Unit, since_s: float, days: float, most: int
) -> dict[str, tuple[float, int]]:
    """The same, as a sum and how many values it is of."""
    if unit not in ("user", "tenant") or not days or not ledger.is_file():
        return {}
    query = f"select {columns()} from requests where ts >= ? and ts < ? order by ts desc limit {MOST_ROWS}"
    with closing(sqlite3.connect(f"{ledger.absolute().as_uri()}?mode=ro", uri=True)) as conn:
        rows = [Row._make(row) for row in conn.execute(query, [since_s - days * DAY_S, since_s])]
    said: dict[str, float] = {}
    outcomes = ledger.with_name(FILE)
    if metric not in ROW_METRICS and outcomes.is_file():
        with closing(sqlite3.connect(f"{outcomes.absolute().as_uri()}?mode=ro", uri=True)) as conn:
            given = (metric, since_s - days * DAY_S, since_s)
            found = "select request_id, value from outcomes where metric = ? and at_s >= ? and received_s < ?"
            said = dict(conn.execute(found, given))
    sums: dict[str, tuple[float, int]] = {}
    for row in rows:
        if row.endpoint in ERRANDS:
            continue
        value = value_of(row, metric) if metric in ROW_METRICS else said.get(row.id)
        name = unit_in(row, unit)
        if value is None or (name not in sums and len(sums) >= most):
            continue
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + value, count + 1)
    return sums
