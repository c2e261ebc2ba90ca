"""What an experiment learns from the ledger's rows and from outcomes, whenever these come, where farthing is alone.

Where replicas share a store what is placed goes through a log that all of them follow (experiment_agreed.py).

Rules of this file:
1. Rows come from the ledger's thread and outcomes from any; one lock guards the sums.
2. A row and what is said of it may come in either order, and a word may be replaced: all of it are differences, which
   add up the same.
3. After a restart the sums are as they were (experiment_kept.py).
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from farthing.policies.assign import Unit
from farthing.policies.experiment_sums import Tracker
from farthing.proxy.experiment_placing import Placing, before_start, said
from farthing.proxy.experiment_total import ROW_METRICS, Sums, Wanted
from farthing.proxy.outcomes import Change
from farthing.proxy.row import ERRANDS, Row

__all__ = ["Data", "Wanted", "before_start"]

_EARLY = 10_000


@dataclass(slots=True)
class Data:
    """The sums of one experiment, fed by this process. `arms`: their names, the control first; `wanted`: metrics, the
    deciding one first; `rest`: the control is all traffic that is in no other arm (hold-outs). `ledger`: where requests
    that are no longer remembered are looked up. `before`: the covariate of the deciding metric, by unit. `last`: the id
    of the row that came last, whoever's it was."""

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
    sums: Sums = field(init=False)
    last: str = field(default="", init=False)
    _placing: Placing = field(init=False)
    _early: OrderedDict[str, list[Change]] = field(default_factory=OrderedDict, init=False)

    def __post_init__(self) -> None:
        self.sums = Sums(self.name, self.arms, self.unit, self.since_s, self.wanted, self.most_units,
                         dict(self.before), self.rest)  # fmt: skip
        self._placing = Placing(self.name, self.arms, self.unit, self.since_s, self.ledger, self.sliced, self.rest)

    @property
    def alone(self) -> bool:
        """Whether each request is its own unit."""
        return self.sums.alone

    @property
    def lock(self) -> threading.Lock:
        """See Sums."""
        return self.sums.lock

    @property
    def trackers(self) -> dict[str, Tracker]:
        """See Sums."""
        return self.sums.trackers

    @property
    def slices(self) -> dict[tuple[str, str], Tracker]:
        """See Sums."""
        return self.sums.slices

    @property
    def assigned(self) -> Tracker:
        """See Sums."""
        return self.sums.assigned

    def on_rows(self, rows: Iterable[Row]) -> None:
        """Take what concerns the experiment."""
        with self.lock:
            for row in rows:
                placed = self._placing.row(row)
                if placed is not None:
                    self.sums.take(placed)
                if row.endpoint not in ERRANDS:
                    self._came(row.id)
                self.last = row.id

    def plain(self) -> dict[str, Any]:
        """All sums as plain values; the lock is the caller's."""
        return {"last": self.last, **self.sums.plain()}

    def put_plain(self, plain: Mapping[str, Any]) -> None:
        """Go on from what `plain` gave. What units were like before the start stays what it was then."""
        with self.lock:
            self.last = plain["last"]
            self.sums.put_plain(plain)

    def on_changes(self, changes: Iterable[Change]) -> None:
        """Take what was said of requests; those that nobody knows yet wait for their row."""
        ours = [one for one in changes if one.metric in self.trackers and one.metric not in ROW_METRICS]
        if not ours:
            return
        with self.lock:
            found = self._placing.known({one.request_id: None for one in ours})
            for one in ours:
                known = found.get(one.request_id)
                if known is not None:
                    self.sums.take(said(known, one))
                elif one.request_id not in found:
                    self._early.setdefault(one.request_id, []).append(one)
                    if len(self._early) > _EARLY:
                        self._early.popitem(last=False)

    def _came(self, request_id: str) -> None:
        early = self._early.pop(request_id, ())
        known = self._placing.remembered(request_id) if early else None
        if known is not None:
            for change in early:
                self.sums.take(said(known, change))
