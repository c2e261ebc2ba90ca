"""A price as a dated row, and which rows hold at a moment. Leaf, pure.

A row says what a million units of one kind cost: of tokens in or out, of one modality, read from or written to the
provider's cache for so long, past so much context, at one service tier, from a date on, and who says so. Rows are the
only form in which prices from the configuration and from the table meet.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from decimal import Decimal
from typing import NamedTuple

__all__ = ["BUCKETS", "Kind", "PriceRow", "Tiered", "in_force"]


class Kind(NamedTuple):
    """What is priced. `unit`: token, request or search. `cache`: read, write or ''. `ttl`: of a write."""

    unit: str
    direction: str = ""
    modality: str = ""
    cache: str = ""
    ttl: str = ""


BUCKETS: Mapping[str, Kind] = {
    "fresh": Kind("token", "in", "text"),
    "cached": Kind("token", "in", "text", "read"),
    "cache_write": Kind("token", "in", "text", "write", "default"),
    "cache_write_1h": Kind("token", "in", "text", "write", "1h"),
    "output": Kind("token", "out", "text"),
    "reasoning": Kind("token", "out", "reasoning"),
    "audio_in": Kind("token", "in", "audio"),
    "audio_cached": Kind("token", "in", "audio", "read"),
    "audio_out": Kind("token", "out", "audio"),
    "image_in": Kind("token", "in", "image"),
    "image_cached": Kind("token", "in", "image", "read"),
    "image_out": Kind("token", "out", "image"),
    "searches": Kind("search"),
    "request": Kind("request"),
}
"""What each bucket of `Usage` is, and a request itself."""


@dataclass(frozen=True, slots=True)
class Tiered:
    """A rate that steps with the request's whole input: past `start` tokens all of them cost the step's rate.

    `steps`: (start, dollars per million units), ascending.
    """

    base: Decimal
    steps: tuple[tuple[int, Decimal], ...] = ()

    def at(self, tokens_in: int) -> Decimal:
        """The rate for a request with this many input tokens."""
        rate = self.base
        for start, stepped in self.steps:
            if tokens_in > start:
                rate = stepped
        return rate


@dataclass(frozen=True, slots=True)
class PriceRow:
    """US dollars for a million units of `bucket` (`BUCKETS`).

    `past`: the context floor; requests with more input tokens pay this for all of them. `tier`: '' for the standard
    one. `valid_from`, `valid_until`: UTC dates, the first one on which it holds and the first on which it doesn't.
    `hours`: the time of the day (UTC) to which it is confined. `rank`: where several hold, the highest one counts.
    """

    bucket: str
    usd: Decimal
    source: str
    past: int = 0
    tier: str = ""
    valid_from: date | None = None
    valid_until: date | None = None
    hours: tuple[time, time] | None = None
    rank: int = 0

    @property
    def kind(self) -> Kind:
        """What is priced."""
        return BUCKETS[self.bucket]

    def to_json(self) -> dict[str, object]:
        """The row as plain values; the amount as a decimal text."""
        hours = None if self.hours is None else [each.isoformat("minutes") for each in self.hours]
        return {
            **self.kind._asdict(),
            "past_tokens": self.past,
            "tier": self.tier or "standard",
            "valid_from": None if self.valid_from is None else self.valid_from.isoformat(),
            "valid_until": None if self.valid_until is None else self.valid_until.isoformat(),
            "hours_utc": hours,
            "usd_per_million": f"{self.usd:f}",
            "source": self.source,
        }

    def holds(self, at: datetime) -> bool:
        """Whether it is in force at that moment, given in UTC."""
        day = at.date()
        if (self.valid_from is not None and day < self.valid_from) or (
            self.valid_until is not None and day >= self.valid_until
        ):
            return False
        if self.hours is None:
            return True
        (start, end), clock = self.hours, at.time()
        return start <= clock < end if start <= end else clock >= start or clock < end


def in_force(rows: Sequence[PriceRow], at_s: float) -> dict[str, dict[str, Tiered]]:
    """For each service tier ('' the standard one) what each bucket costs at that moment (seconds since the epoch).

    At the standard tier the rows of the highest rank hold alone: a newer price list ends all of an older one. What
    another tier doesn't price itself costs what it does at the standard one. A tier without a row in force isn't there.
    """
    at = datetime.fromtimestamp(at_s, UTC)
    held = [row for row in rows if row.holds(at)]
    newest = max((row.rank for row in held if not row.tier), default=0)
    standard = _by_bucket(row for row in held if not row.tier and row.rank == newest)
    if not standard:
        return {}
    found = {"": standard}
    for tier in sorted({row.tier for row in held if row.tier}):
        own = [row for row in held if row.tier == tier]
        ranks: dict[str, int] = {}
        for row in own:
            ranks[row.bucket] = max(row.rank, ranks.get(row.bucket, row.rank))
        found[tier] = standard | _by_bucket(row for row in own if row.rank == ranks[row.bucket])
    return found


def _by_bucket(rows: Iterable[PriceRow]) -> dict[str, Tiered]:
    found: dict[str, dict[int, Decimal]] = {}
    for row in rows:
        found.setdefault(row.bucket, {})[row.past] = row.usd
    return {
        bucket: Tiered(rates[min(rates)], tuple(sorted((past, usd) for past, usd in rates.items() if past)))
        for bucket, rates in found.items()
    }
