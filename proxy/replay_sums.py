"""What a replay adds up, for one configuration: counts, tokens, money by cause, and how many reused answers were wrong.

Rules of this file: money is integer pico-dollars; an unknown price is counted and in no amount; a comparison in doubt
counts as wrong in the estimate and in its upper bound, and as right in its lower bound.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import Any

from farthing.policies.agree_measured import comparator
from farthing.policies.opinion import Agreement
from farthing.policies.sequence import Evidence, lower, upper
from farthing.proxy.attribute import Money
from farthing.proxy.figures import STATUSES
from farthing.proxy.usage import Usage

__all__ = ["Compared", "Estimate", "Sums", "Tally"]

OTHERS = "(others)"
_MOST_GROUPS = 1_000


@dataclass(slots=True)
class Compared:
    """Comparisons of an answer that was reused with the one that the trace holds for the request itself."""

    same: int = 0
    different: int = 0
    unsure: int = 0

    def add(self, agreement: Agreement) -> None:
        """One more."""
        if agreement is Agreement.SAME:
            self.same += 1
        elif agreement is Agreement.DIFFERENT:
            self.different += 1
        else:
            self.unsure += 1

    @property
    def count(self) -> int:
        """How many."""
        return self.same + self.different + self.unsure

    def estimate(self, confidence: float) -> Estimate | None:
        """The share of wrong ones; None where nothing was compared."""
        if not self.count:
            return None
        level = (1.0 - confidence) / 2
        wrong = self.different + self.unsure
        low = lower(Evidence(self.count, self.different), level)
        high = upper(Evidence(self.count, wrong), level, comparator())
        return Estimate(wrong / self.count, min(low, wrong / self.count), max(high, wrong / self.count), self.count)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A share with its interval: the truth lies outside with the confidence's complement at most, whenever one looks
    (policies/sequence.py; the comparators' measured error widens its upper end). `of`: comparisons."""

    share: float
    low: float
    high: float
    of: int


@dataclass(slots=True)
class Sums:
    """Of some requests. Statuses are the ledger's; amounts leave out `unpriced` requests."""

    requests: int = 0
    eligible: int = 0
    statuses: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STATUSES, 0))
    unpriced: int = 0
    modelled: int = 0
    baseline: int = 0
    cost: int = 0
    overhead: int = 0
    saved_exact: int = 0
    saved_semantic: int = 0
    saved_compress: int = 0
    saved_route: int = 0
    saved_prompt_cache: int = 0
    tokens_in: int = 0
    tokens_sent: int = 0
    tokens_out: int = 0
    tokens_unknown: int = 0

    @property
    def hits(self) -> int:
        """Requests that cost nothing: hits and joined ones."""
        return sum(self.statuses[name] for name in ("hit-exact", "hit-semantic", "joined"))

    @property
    def hit_rate(self) -> float | None:
        """Over all requests."""
        return self.hits / self.requests if self.requests else None

    @property
    def hit_rate_eligible(self) -> float | None:
        """Over those that may be answered from a cache."""
        return self.hits / self.eligible if self.eligible else None

    @property
    def has_prices(self) -> bool:
        """Whether any amount is known."""
        return self.requests > self.unpriced

    @property
    def saved(self) -> dict[str, int]:
        """Pico-dollars by cause."""
        names = ("exact", "semantic", "compress", "route", "prompt_cache")
        return {name: getattr(self, f"saved_{name}") for name in names}

    @property
    def net(self) -> int:
        """Pico-dollars saved, less farthing's own calls."""
        return self.baseline - self.cost - self.overhead

    @property
    def net_share(self) -> float | None:
        """Of the baseline."""
        return self.net / self.baseline if self.baseline else None

    @property
    def tokens_cut(self) -> int:
        """Input tokens that were asked for and did not go upstream."""
        return self.tokens_in - self.tokens_sent

    def add(self, status: str, eligible: bool, money: Money) -> None:
        """One request."""
        self.requests += 1
        self.eligible += eligible
        self.statuses[status] += 1
        if money.baseline is None or money.cost is None:
            self.unpriced += 1
            return
        self.modelled += money.modelled
        self.baseline += money.baseline
        self.cost += money.cost
        self.saved_exact += money.saved_exact or 0
        self.saved_semantic += money.saved_semantic or 0
        self.saved_compress += money.saved_compress or 0
        self.saved_route += money.saved_route or 0
        self.saved_prompt_cache += money.saved_prompt_cache or 0

    def count(self, original: int, sent: int, made: int) -> None:
        """One request's tokens."""
        self.tokens_in += original
        self.tokens_sent += sent
        self.tokens_out += made

    def count_usage(self, usage: Usage | None, *, free: bool, saved: int = 0) -> None:
        """One request's tokens, as the ledger's columns have them."""
        if usage is None:
            self.tokens_unknown += 1
        elif free:
            self.count(usage.tokens_in, 0, usage.tokens_out)
        else:
            self.count(max(0, usage.tokens_in + saved), usage.tokens_in, usage.tokens_out)

    def as_json(self) -> dict[str, Any]:
        """Plain values; amounts as integers of 1e-12 dollar."""
        found: dict[str, Any] = {}
        for one in fields(self):
            value = getattr(self, one.name)
            money = one.name in ("baseline", "cost", "overhead") or one.name.startswith("saved_")
            found[f"{one.name}_usd" if money else one.name] = value
        return found | {
            "hit_rate": self.hit_rate,
            "hit_rate_eligible": self.hit_rate_eligible,
            "net_saved_usd": self.net,
            "net_share": self.net_share,
            "tokens_cut": self.tokens_cut,
        }


@dataclass(slots=True)
class Tally:
    """All sums of one configuration. `groups`: by what was asked for. `wrong`: semantic hits, by (name of the slice,
    value). `noise`: exact hits whose own recorded answer is there as well: how often a model answers the same request
    in another way. `cut`: tokens that forms beyond tidy would save on what is sent."""

    total: Sums = field(default_factory=Sums)
    groups: dict[tuple[str, ...], Sums] = field(default_factory=dict)
    all_wrong: Compared = field(default_factory=Compared)
    wrong: dict[tuple[str, str], Compared] = field(default_factory=dict)
    noise: Compared = field(default_factory=Compared)
    near_unknown: int = 0
    cut: list[int] = field(default_factory=list)
    reasons: dict[str, int] = field(default_factory=dict)

    def group(self, key: tuple[str, ...]) -> Sums:
        """The group's sums; past a thousand groups those of all others."""
        found = self.groups.get(key)
        if found is None:
            if len(self.groups) >= _MOST_GROUPS:
                key = (OTHERS,) * len(key)
            found = self.groups.setdefault(key, Sums())
        return found

    def judged(self, agreement: Agreement, slices: Iterable[tuple[str, str]]) -> None:
        """A near-duplicate's answer was compared."""
        self.all_wrong.add(agreement)
        for place in slices:
            if place not in self.wrong and len(self.wrong) >= _MOST_GROUPS:
                place = (place[0], OTHERS)
            self.wrong.setdefault(place, Compared()).add(agreement)

    def why(self, reason: str) -> None:
        """Why a request could not be answered from a cache."""
        if reason not in self.reasons and len(self.reasons) >= _MOST_GROUPS:
            reason = OTHERS
        self.reasons[reason] = self.reasons.get(reason, 0) + 1

    def short(self, tokens: Iterable[int]) -> None:
        """A request that is sent, and what each form would save of it."""
        tokens = list(tokens)
        self.cut = [a + b for a, b in zip(self.cut or [0] * len(tokens), tokens, strict=True)] if tokens else self.cut
