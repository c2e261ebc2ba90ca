"""What figures are made of: sums, percentiles, and how two sums become one. No IO, no SQL.

Rules of this file: money is integer pico-dollars (1e-12 dollar); an unknown price is counted and never a zero.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from farthing.proxy.row import SAVED_COLUMNS

__all__ = [
    "CAUSES",
    "FORMS",
    "GROUPS",
    "OTHERS",
    "ROW_GROUPS",
    "STATUSES",
    "TIMES",
    "Bucket",
    "Figures",
    "Group",
    "Key",
    "Percentiles",
    "Sums",
    "no_times",
    "plus",
]

CAUSES: tuple[str, ...] = tuple(column.removeprefix("saved_").removesuffix("_usd") for column in SAVED_COLUMNS)
"""What a saving may come from, in the ledger's order: exact, semantic, compress, route, prompt_cache."""

GROUPS: Mapping[str, str] = {
    "model": "model_requested",
    "model_served": "model_served",
    "tenant": "tenant",
    "endpoint": "endpoint",
    "cache": "cache",
    "compress": "compress",
    "user": "user",
}
"""What figures may be split by, next to `tag:NAME`; the values are columns."""

ROW_GROUPS: Mapping[str, str] = {
    "policy": "policy",
    "experiment": "experiment",
    "arm": "arm",
    "status": "cast(status as text)",
    "outcome": "outcome",
    "upstream": "case instr(upstream, '/') when 0 then upstream else substr(upstream, 1, instr(upstream, '/') - 1) end",
    "replica": "upstream",
}
"""The same, of which no roll-up knows anything: they are told from the rows that are left. The values are SQL.

`replica`: an upstream's with its replica and key, as the row has it; `upstream`: its name alone.
"""

FORMS = ("tidy", "recode", "squeeze")
"""What became of a request's texts, from gentle to bold: a squeezed request may be recoded and tidied too."""

STATUSES = ("hit-exact", "hit-semantic", "joined", "miss", "bypass")
TIMES = ("latency", "latency_miss", "latency_hit", "overhead", "ttft", "upstream")
"""The times whose percentiles are told; figures_sql.py says what each covers."""

OTHERS = "(others)"
"""The group of what a roll-up could not keep apart: names beyond its bound."""

Key = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Percentiles:
    """Nearest-rank percentiles of `count` values, in milliseconds; None where there are none.

    `approximate`: read from histograms, each within 2 % of the exact value (or a microsecond).
    """

    count: int = 0
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None
    approximate: bool = False


@dataclass(frozen=True, slots=True)
class Sums:
    """Counts, tokens and money over some requests. Money: pico-dollars.

    `baseline`, `cost` and `saved` cover the rows where both cost and baseline are known, so that they can be compared;
    the others are `unpriced`, and what is known of their cost is `cost_unpriced`. `overhead` covers every row where
    it is known; `overhead_unknown` counts the priced rows where it is not. Token sums leave out rows without a count.
    `tokens_saved_*`: input tokens that requests of that form were sent without. `rows`: farthing's own calls as well.
    """

    rows: int = 0
    requests: int = 0
    cache: Mapping[str, int] = field(default_factory=dict)
    errors: int = 0
    abandoned: int = 0
    unproven: int = 0
    modelled: int = 0
    tokens_in_original: int = 0
    tokens_in_sent: int = 0
    tokens_in_cached: int = 0
    tokens_out: int = 0
    tokens_saved_tidy: int = 0
    tokens_saved_recode: int = 0
    tokens_saved_squeeze: int = 0
    unpriced: int = 0
    overhead_unknown: int = 0
    baseline: int = 0
    cost: int = 0
    cost_unpriced: int = 0
    overhead: int = 0
    saved: Mapping[str, int] = field(default_factory=lambda: dict.fromkeys(CAUSES, 0))

    @property
    def answered_here(self) -> int:
        """Requests that caused no upstream call of their own: hits and joined ones."""
        return sum(self.cache.get(status, 0) for status in ("hit-exact", "hit-semantic", "joined"))

    @property
    def eligible(self) -> int:
        """Requests that a cache was allowed to answer: all but the bypassed ones."""
        return self.requests - self.cache.get("bypass", 0)

    @property
    def hit_rate_eligible(self) -> float | None:
        """Hits and joined ones, as a share of the eligible requests."""
        return self.answered_here / self.eligible if self.eligible else None

    @property
    def hit_rate_all(self) -> float | None:
        """Hits and joined ones, as a share of all requests."""
        return self.answered_here / self.requests if self.requests else None

    @property
    def has_prices(self) -> bool:
        """Whether any amount can be named at all: false where every request is of unknown price."""
        return self.unpriced < self.requests or not self.requests

    @property
    def saved_total(self) -> int:
        """The sum of the savings by cause; negative where optimising cost more than it saved."""
        return sum(self.saved.values())

    @property
    def net_saving(self) -> int:
        """What is left of the savings when farthing's own spending is paid."""
        return self.saved_total - self.overhead

    @property
    def spent(self) -> int:
        """What the comparable requests cost, farthing's own spending included."""
        return self.cost + self.overhead

    @property
    def unattributed(self) -> int:
        """Baseline less cost less savings: zero, unless the ledger's rows break their identity."""
        return self.baseline - self.cost - self.saved_total


@dataclass(frozen=True, slots=True)
class Group:
    """The figures of one group. `key`: a text for each part of `by`. `times`: see TIMES."""

    key: tuple[str, ...]
    sums: Sums
    times: Mapping[str, Percentiles]


@dataclass(frozen=True, slots=True)
class Figures:
    """What happened in [since_s, until_s), in all and by group; dearest groups first, `left_out` of them missing."""

    since_s: float
    until_s: float
    by: tuple[str, ...]
    total: Sums
    times: Mapping[str, Percentiles]
    groups: tuple[Group, ...] = ()
    left_out: int = 0


@dataclass(frozen=True, slots=True)
class Bucket:
    """The figures of one slice of time, `length_s` long."""

    start_s: float
    length_s: float
    sums: Sums
    times: Mapping[str, Percentiles]


def no_times() -> dict[str, Percentiles]:
    """Percentiles of nothing."""
    return {name: Percentiles() for name in TIMES}


def plus(a: Sums, b: Sums, *, sign: int = 1) -> Sums:
    """Two sums as one; the second subtracted where `sign` is -1."""
    added: dict[str, object] = {}
    for name in Sums.__dataclass_fields__:
        x, y = getattr(a, name), getattr(b, name)
        if isinstance(x, Mapping):
            added[name] = {key: x.get(key, 0) + sign * y.get(key, 0) for key in {**x, **y}}
        else:
            added[name] = x + sign * y
    return Sums(**added)  # type: ignore[arg-type]
