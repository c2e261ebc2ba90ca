"""What prices lack, told by the ledger: models without one, tiers and parts of usage without rates. Reads only."""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any, NamedTuple

import orjson

from farthing.proxy.config_prices import Hosted
from farthing.proxy.prices import RateCard
from farthing.proxy.row import LONGEST_NAME
from farthing.proxy.usage import EXTRAS

__all__ = ["Lacks", "LedgerPrice", "Measured", "lacking", "measured", "priced_rows"]

_NAME = f"substr(coalesce(nullif(model_served, ''), model_requested), 1, {LONGEST_NAME})"
_UPSTREAM = "cache in ('miss', 'bypass')"


class LedgerPrice(NamedTuple):
    """The columns of a row that its price is made of (recompute.PricedRow), and its id."""

    id: str
    ts: float
    endpoint: str
    cache: str
    model_requested: str
    model_served: str
    upstream: str
    tokens_in_sent: int | None
    tokens_in_cached: int | None
    tokens_in_cache_write: int | None
    tokens_out: int | None
    tokens_reasoning: int | None
    usage_source: str
    attempts_detail: str
    cost_usd: int | None
    overhead_usd: int | None
    price_source: str
    modelled: int


@dataclass(slots=True)
class Lacks:
    """What a model of the ledger lacks. `unpriced`: of its `requests`, those that have no price in the ledger.
    `tiers`, `parts`: requests at a tier, and tokens of a part of usage, that have no rate today."""

    model: str
    requests: int = 0
    unpriced: int = 0
    source: str | None = None
    tiers: Counter[str] = field(default_factory=Counter)
    parts: Counter[str] = field(default_factory=Counter)
    as_fresh: tuple[str, ...] = ()

    @property
    def complete(self) -> bool:
        """Whether all that it was seen to use has a price."""
        return self.source is not None and not self.tiers and not self.parts

    def to_json(self) -> dict[str, Any]:
        """As plain values."""
        return {
            "model": self.model,
            "requests": self.requests,
            "requests_without_price": self.unpriced,
            "source": self.source,
            "tiers_without_price": dict(self.tiers),
            "tokens_without_price": dict(self.parts),
            "priced_as_fresh_input": list(self.as_fresh),
        }


def priced_rows(ledger: sqlite3.Connection, since_s: float) -> Iterator[LedgerPrice]:
    """Every row since that moment, oldest first."""
    columns = ", ".join(LedgerPrice._fields)
    for row in ledger.execute(f"select {columns} from requests where ts >= ? order by ts", (since_s,)):
        yield LedgerPrice(*row)


def lacking(ledger: sqlite3.Connection, card: RateCard, now_s: float, model: str | None = None) -> list[Lacks]:
    """What each model that was asked for or answered lacks today; `model`: this one alone."""
    found: dict[str, Lacks] = {}
    asked = ledger.execute(
        f"select {_NAME}, count(*), sum(cost_usd is null), sum(tokens_in_cached), sum(tokens_in_cache_write) "
        f"from requests where {_NAME} != '' group by 1"
    ).fetchall()
    for name, requests, unpriced, read, written in asked:
        lacks = found[name] = Lacks(name, requests, unpriced or 0)
        rates = card.rates(name, now_s)
        if rates is not None:
            lacks.source = rates.source
            used = {"cached": read, "cache_write": written}
            own = {row.bucket for row in card.rows(name)}
            lacks.as_fresh = tuple(part for part, tokens in used.items() if tokens and part not in own)
    for (name,) in ledger.execute(
        f"select distinct substr(model_requested, 1, {LONGEST_NAME}) from requests where model_requested != ''"
    ):
        if name not in found:
            rates = card.rates(name, now_s)
            found[name] = Lacks(name, source=None if rates is None else rates.source)
    for name, detail in ledger.execute(
        f"select {_NAME}, attempts_detail from requests where {_UPSTREAM} and instr(attempts_detail, '\"usage\":{{')"
    ):
        if name in found:
            _note(found[name], card, detail, now_s)
    return [lacks for name, lacks in sorted(found.items()) if model in (None, name)]


def _note(lacks: Lacks, card: RateCard, attempts_detail: str, now_s: float) -> None:
    rates = card.rates(lacks.model, now_s)
    try:
        used = orjson.loads(attempts_detail)[-1]["usage"]
        tier, counts = str(used.get("tier", "")), {part: int(used[part]) for part in EXTRAS if part in used}
    except (ValueError, TypeError, LookupError, AttributeError):
        return
    if rates is None:
        return
    at_tier = rates.tiers.get(tier) if tier else rates
    if at_tier is None:
        lacks.tiers[tier] += 1
        return
    for part, count in counts.items():
        if part in at_tier.unpriced:
            lacks.parts[part] += count


class Measured(NamedTuple):
    """What the ledger saw of a hosted model. `busy`: the share of the paid time in which its machines had to work,
    had they done it at full load; `usd_per_mtok`: what they cost for each million tokens that it read and made."""

    since_s: float
    tokens_in: int
    tokens_out: int
    busy: Decimal
    usd_per_mtok: Decimal


def measured(ledger: sqlite3.Connection, model: str, hosted: Hosted, since_s: float, now_s: float) -> Measured | None:
    """The average load since that moment, or since the model's first row; None where there was none."""
    first, tokens_in, tokens_out = ledger.execute(
        f"select min(ts), sum(tokens_in_sent), sum(tokens_out) from requests where {_UPSTREAM} and ts >= ?1 "
        "and (model_served = ?2 or (model_served = '' and model_requested = ?2))",
        (since_s, model),
    ).fetchone()
    paid_s = Decimal(0) if first is None else Decimal(str(round(now_s - first, 3))) * hosted.instances
    tokens = (tokens_in or 0) + (tokens_out or 0)
    if paid_s <= 0 or not tokens:
        return None
    busy = hosted.busy_s(tokens_in or 0, tokens_out or 0) / paid_s
    return Measured(first, tokens_in or 0, tokens_out or 0, busy, hosted.usd_per_s * paid_s * 10**6 / tokens)
