"""Feeds rows to the detector of what users say by what they do, and keeps what it finds. In the ledger's thread."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import structlog

from farthing.policies.implicit import Implicit, Seen
from farthing.policies.outcome import Outcome
from farthing.proxy.clock import Clock
from farthing.proxy.exchange import CacheStatus
from farthing.proxy.exchange import Outcome as Ended
from farthing.proxy.outcomes import Outcomes
from farthing.proxy.row import Row

__all__ = ["ImplicitRows", "Nearest"]

_REMEMBERED = 10_000

log = structlog.get_logger("farthing.outcomes")


@dataclass(slots=True)
class Nearest:
    """Which stored answer each of the latest requests was nearest to: written by the event loop, read by the ledger's
    thread once the row is there."""

    keys: OrderedDict[str, str] = field(default_factory=OrderedDict)

    def note(self, exchange_id: str, entry_key: str) -> None:
        """Remember it for as long as a row may take."""
        self.keys[exchange_id] = entry_key
        if len(self.keys) > _REMEMBERED:
            self.keys.popitem(last=False)


@dataclass(slots=True)
class ImplicitRows:
    """`on`: whether signals are looked for; a reload may change it, and the detector's span."""

    outcomes: Outcomes
    nearest: Nearest
    clock: Clock
    detector: Implicit = field(default_factory=Implicit)
    on: bool = True
    failed: bool = False

    def observe(self, rows: Sequence[Row]) -> None:
        """Look at new rows. Never raises for the disk's sake; a fault is told once."""
        if not self.on:
            return
        now_s = self.clock.now_s()
        found = [
            Outcome(signal.request_id, signal.metric, 1.0, signal.at_s, now_s, source="implicit")
            for row in rows
            for signal in self.detector.seen(self._seen(row))
        ]
        if not found:
            return
        try:
            self.outcomes.put(found)
            self.failed = False
        except (sqlite3.Error, OSError) as error:
            if not self.failed:
                log.error("outcomes_failing", error=str(error))
            self.failed = True

    def _seen(self, row: Row) -> Seen:
        return Seen(
            row.id,
            row.ts,
            row.tenant,
            row.user,
            row.key_hash,
            self.nearest.keys.get(row.id, ""),
            row.cache == CacheStatus.HIT_SEMANTIC,
            bool(row.stream) and row.outcome == Ended.ABANDONED,
        )
