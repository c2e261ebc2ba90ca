"""This span against the one before it. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

from farthing.proxy.figures_values import Figures, Sums

__all__ = ["Change", "Kind", "changes", "per_thousand"]

Kind = Literal["count", "money", "share", "ms"]


class Change(NamedTuple):
    """A measure now and before. `better`: 1 where more is better, -1 where less is, 0 where neither.

    `kind`: a count, pico-dollars, a share of 1, or milliseconds. None where there is no value.
    """

    key: str
    name: str
    kind: Kind
    better: int
    now: float | int | None
    before: float | int | None

    @property
    def delta(self) -> float | int | None:
        """Now less before; None where either is missing."""
        return None if self.now is None or self.before is None else self.now - self.before

    @property
    def share(self) -> float | None:
        """The change as a share of what was; None from nothing, and for shares, whose change is in points."""
        if self.delta is None or not self.before or self.kind == "share":
            return None
        return self.delta / abs(self.before)

    @property
    def worse(self) -> bool:
        """Whether it got worse."""
        return self.delta is not None and self.delta * self.better < 0

    @property
    def arrow(self) -> str:
        """Which way it went; empty where that isn't known."""
        return "" if self.delta is None else "▲" if self.delta > 0 else "▼" if self.delta < 0 else "="


def changes(now: Figures, before: Figures) -> Sequence[Change]:
    """What a reader compares, in order."""
    a, b = now.total, before.total
    return (
        Change("requests", "requests", "count", 0, a.requests, b.requests),
        Change("spent", "spent", "money", 0, *_amounts("spent", a, b)),
        Change("baseline", "without farthing", "money", 0, *_amounts("baseline", a, b)),
        Change("net_saving", "net saving", "money", 1, *_amounts("net_saving", a, b)),
        Change("spent_per_1000", "spent per 1,000 requests", "money", -1, per_thousand(a), per_thousand(b)),
        Change("hit_rate", "hit rate, eligible", "share", 1, a.hit_rate_eligible, b.hit_rate_eligible),
        Change("error_rate", "error rate", "share", -1, _errors(a), _errors(b)),
        *(
            Change(f"{key}_p95", f"{name}, p95 ms", "ms", -1, now.times[key].p95, before.times[key].p95)
            for key, name in (
                ("latency_miss", "sent upstream"),
                ("latency_hit", "from cache"),
                ("overhead", "overhead"),
            )
        ),
    )


def per_thousand(sums: Sums) -> int | None:
    """What a thousand requests of known price cost, in pico-dollars; None where there are none."""
    priced = sums.rows - sums.unpriced
    return sums.spent * 1000 // priced if sums.requests and priced > 0 else None


def _amounts(name: str, a: Sums, b: Sums) -> tuple[int | None, int | None]:
    found = [getattr(sums, name) if sums.has_prices else None for sums in (a, b)]
    return found[0], found[1]


def _errors(sums: Sums) -> float | None:
    return sums.errors / sums.requests if sums.requests else None
