"""What an experiment learns from the ledger's rows and from outcomes, whenever these come.

Rules of this file:
1. Rows come from the ledger's thread and outcomes from any; one lock guards the sums.
2. A row and what is said of it may come in either order, and a word may be replaced: all of it are differences, which
   add up the same.
3. After a restart the sums are as they were (experiment_kept.py).
"""

from __future__ import annotations

import sqlite3
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import orjson

from farthing.policies.assign import Unit
from farthing.policies.experiment_sums import DAY_S, Kind, Seen, Tracker
from farthing.policies.outcome import FRESH
from farthing.proxy.exchange import CacheStatus
from farthing.proxy.exchange import Outcome as Ended
from farthing.proxy.figures import columns, rows_of
from farthing.proxy.outcomes import FILE, Change
from farthing.proxy.rollout_rows import refused, unit_in
from farthing.proxy.row import ERRANDS, Row

__all__ = ["Data", "Wanted", "before_start"]

ROW_METRICS = ("cost_usd", "latency_ms", "error")
MOST_ROWS = 200_000  # that a covariate is made of
_PICO = 1e-12
_REMEMBERED = 100_000
_EARLY = 10_000
_FEW = 500
_MOST_SLICES = 40
_SLICE_UNITS = 10_000


class Wanted(NamedTuple):
    """A metric that is to be followed."""

    name: str
    kind: Kind
    bounds: tuple[float, float] | None


class _Known(NamedTuple):
    """A request that was counted."""

    arm: int
    unit: str
    day: int
    slices: tuple[tuple[str, str], ...]
    cost: float | None


@dataclass(slots=True)
class Data:
    """The sums of one experiment. `arms`: their names, the control first; `wanted`: metrics, the deciding one first;
    `rest`: the control is all traffic that is in no other arm (hold-outs). `ledger`: where requests that are no longer
    remembered are looked up. `before`: the covariate of the deciding metric, by unit. `last`: the id of the row that
    came last, whoever's it was."""

    name: str
    arms: tuple[str, ...]
    unit: Unit
    since_s: float
    wanted: tuple[Wanted, ...]
    most_units: int
    ledger: Path
    sliced: tuple[str, ...] = ()
    before: Mapping[str, float] = field(default_factory=dict)
    rest: bool = False
    trackers: dict[str, Tracker] = field(init=False)
    slices: dict[tuple[str, str], Tracker] = field(default_factory=dict, init=False)
    assigned: Tracker = field(init=False)
    lock: threading.Lock = field(default_factory=threading.Lock, init=False)
    last: str = field(default="", init=False)
    _known: OrderedDict[str, _Known] = field(default_factory=OrderedDict, init=False)
    _early: OrderedDict[str, list[Change]] = field(default_factory=OrderedDict, init=False)

    def __post_init__(self) -> None:
        decides = self.wanted[0].name
        self.trackers = {
            one.name: Tracker(one.kind, len(self.arms), self.alone, self.most_units, one.bounds,
                              self.before if one.name == decides else {}, with_days=one.name == decides)
            for one in self.wanted
        }  # fmt: skip
        # Whoever was assigned counts for the shares, whether or not anything was said of them.
        self.assigned = Tracker("ratio", len(self.arms), self.alone, self.most_units)

    @property
    def alone(self) -> bool:
        """Whether each request is its own unit."""
        return self.unit == "request"

    def on_rows(self, rows: Iterable[Row]) -> None:
        """Take what concerns the experiment."""
        with self.lock:
            for row in rows:
                if row.endpoint in ERRANDS:
                    self._overhead(row)
                else:
                    self._row(row)
                self.last = row.id

    def plain(self) -> dict[str, Any]:
        """All sums as plain values; the lock is the caller's."""
        return {
            "last": self.last,
            "before": dict(self.before),
            "assigned": self.assigned.plain(),
            "trackers": {name: tracker.plain() for name, tracker in self.trackers.items()},
            "slices": [[*key, tracker.plain()] for key, tracker in self.slices.items()],
        }

    def put_plain(self, plain: Mapping[str, Any]) -> None:
        """Go on from what `plain` gave. What units were like before the start stays what it was then."""
        with self.lock:
            self.last, self.before = plain["last"], plain["before"]
            self.assigned.put_plain(plain["assigned"])
            for name, tracker in self.trackers.items():
                tracker.put_plain(plain["trackers"][name])
            self.trackers[self.wanted[0].name].before = self.before
            for name, value, held in plain["slices"]:
                self._slice((name, value)).put_plain(held)

    def on_changes(self, changes: Iterable[Change]) -> None:
        """Take what was said of requests; those that nobody knows yet wait for their row."""
        ours = [one for one in changes if one.metric in self.trackers and one.metric not in ROW_METRICS]
        if not ours:
            return
        with self.lock:
            lacking = [one.request_id for one in ours if one.request_id not in self._known]
            found = self._looked_up(lacking) if lacking else {}
            for one in ours:
                known = self._known.get(one.request_id) or found.get(one.request_id)
                if known is not None:
                    self._said(known, one)
                elif one.request_id not in found:
                    self._early.setdefault(one.request_id, []).append(one)
                    if len(self._early) > _EARLY:
                        self._early.popitem(last=False)

    def _row(self, row: Row) -> None:
        known = self._place(row)
        if known is None:
            self._early.pop(row.id, None)
            return
        self.assigned.add(known.arm, known.unit, known.day, 0.0, 0, 1)
        for name, tracker in self._followed(known):
            if name in ROW_METRICS:
                value = value_of(row, name)
                if value is not None:
                    tracker.add(known.arm, known.unit, known.day, tracker.clamped(value), 1, 1)
            elif tracker.kind == "ratio":
                tracker.add(known.arm, known.unit, known.day, 0.0, 0, 1)
        self._known[row.id] = known
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        for change in self._early.pop(row.id, ()):
            self._said(known, change)

    def _overhead(self, row: Row) -> None:
        """What farthing's own call for a request cost is that request's; but not what it cost to measure the arms."""
        request_id = row.cache_reason.rpartition(" of ")[2]
        known = None if row.cache_reason.startswith(f"{FRESH} ") else self._known.get(request_id)
        if known is None or known.cost is None or not row.overhead_usd:
            return
        more = row.overhead_usd * _PICO
        for name, tracker in self._followed(known):
            if name == "cost_usd":
                was, now = tracker.clamped(known.cost), tracker.clamped(known.cost + more)
                tracker.add(known.arm, known.unit, known.day, now - was, 0, 0, Seen(was, 1, 1))
        self._known[request_id] = known._replace(cost=known.cost + more)

    def _said(self, known: _Known, change: Change) -> None:
        for name, tracker in self._followed(known):
            if name != change.metric:
                continue
            before, after = ([tracker.clamped(value) for value in values] for values in (change.before, change.after))
            requests = 1 if tracker.kind == "ratio" else 0
            was = Seen(sum(before), len(before), requests)
            more = sum(after) - sum(before), len(after) - len(before)
            tracker.add(known.arm, known.unit, known.day, *more, 0, was)

    def _followed(self, known: _Known) -> list[tuple[str, Tracker]]:
        """All sums that a request belongs to, with the metric's name."""
        found = list(self.trackers.items())
        decides = self.wanted[0].name
        return found + [(decides, self._slice(key)) for key in known.slices if self._may_slice(key)]

    def _may_slice(self, key: tuple[str, str]) -> bool:
        return key in self.slices or len(self.slices) < _MOST_SLICES

    def _slice(self, key: tuple[str, str]) -> Tracker:
        if key not in self.slices:
            decides, most = self.wanted[0], min(self.most_units, _SLICE_UNITS)
            self.slices[key] = Tracker(decides.kind, len(self.arms), self.alone, most, decides.bounds, self.before)
        return self.slices[key]

    def _place(self, row: Row) -> _Known | None:
        """Whose arm a row is in; None where it takes no part."""
        if row.ts < self.since_s:
            return None
        if row.experiment == self.name and row.arm in self.arms:
            arm = self.arms.index(row.arm)
        elif self.rest and row.experiment != self.name and row.policy not in ("", "off") and takes_part(row):
            arm = 0
        else:
            return None
        unit = "" if self.alone else unit_in(row, self.unit)
        cost = value_of(row, "cost_usd")
        return _Known(arm, unit, int((row.ts - self.since_s) // DAY_S), self._slices_of(row), cost)

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

    def _looked_up(self, ids: Sequence[str]) -> dict[str, _Known | None]:
        """Requests that the ledger knows; None for those that take no part."""
        found: dict[str, _Known | None] = {}
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
    return {name: total / count for name, (total, count) in sums.items()}
