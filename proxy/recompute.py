"""Does yesterday's ledger come to the same cent? Prices a row again from what it says it used. Pure.

Prices are dated, so a row costs today what it cost on its day. Where it doesn't, either the rates that it was priced
at have changed under the same name (somebody rewrote history), or its counts have. A row whose rates come from
elsewhere now (another edition of the table, an own price declared since) may differ, and is told apart.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple, Protocol

from farthing.proxy.attribute import all_of, billed, covering, rates_of_one, same_model
from farthing.proxy.exchange import CacheStatus, Endpoint
from farthing.proxy.prices import RateCard
from farthing.proxy.row import ERRANDS
from farthing.proxy.usage_row import RowOfUsage, billed_by

__all__ = ["Again", "PricedRow", "Verdict", "recompute"]


class PricedRow(RowOfUsage, Protocol):
    """The columns that a price is made of, and the price."""

    @property
    def ts(self) -> float: ...
    @property
    def endpoint(self) -> str: ...
    @property
    def cache(self) -> str: ...
    @property
    def model_requested(self) -> str: ...
    @property
    def model_served(self) -> str: ...
    @property
    def upstream(self) -> str: ...
    @property
    def cost_usd(self) -> int | None: ...
    @property
    def overhead_usd(self) -> int | None: ...
    @property
    def price_source(self) -> str: ...
    @property
    def modelled(self) -> int: ...


class Verdict(StrEnum):
    """What became of a row's price."""

    SAME = "same"
    DIFFERS = "differs"
    OTHER_SOURCE = "other source"
    MODELLED = "modelled, differs"
    UNPRICED = "no price then"
    UNREADABLE = "unreadable"


class Again(NamedTuple):
    """A row priced again. Amounts in pico-dollars: what the row says and what it comes to now, None where unknown."""

    verdict: Verdict
    then: int | None
    now: int | None
    source: str = ""


def recompute(row: PricedRow, card: RateCard) -> Again:
    """The price of a row by its own counts and the rates of its moment, beside the one that was booked."""
    errand = row.endpoint in ERRANDS
    then = row.overhead_usd if errand else row.cost_usd
    if then is None:
        return Again(Verdict.UNPRICED, None, None)
    try:
        now, source = _now(row, card)
    except (ValueError, TypeError, ArithmeticError, OSError):  # the last two: a moment that no calendar has
        return Again(Verdict.UNREADABLE, then, None)
    if now == then:
        return Again(Verdict.SAME, then, now, source)
    if source != row.price_source:
        return Again(Verdict.OTHER_SOURCE, then, now, source)
    return Again(Verdict.MODELLED if row.modelled else Verdict.DIFFERS, then, now, source)


def _now(row: PricedRow, card: RateCard) -> tuple[int | None, str]:
    """Pico-dollars and whose rates they are. Raises ValueError where the row makes no sense."""
    errand = row.endpoint in ERRANDS
    if not errand and (row.cache not in (CacheStatus.MISS, CacheStatus.BYPASS) or row.endpoint == Endpoint.OTHER):
        return 0, row.price_source  # nothing was sent, or nothing that has a price
    used = billed_by(row)
    asked, served = row.model_requested, row.model_served or row.model_requested
    there = card.at(row.upstream)
    # Status 0 and an answer's usage: its prompt, of which nobody said more (exchange.Call.silent).
    answer = used.answer if errand or used.status == 0 or 200 <= used.status < 300 else None
    if answer is None and not errand:
        rates = card.rates(asked, row.ts)  # what failed has no model that served it (attribute_failure)
    elif there is card and same_model(asked, served) and not errand:
        rates = rates_of_one(card, asked, served, row.ts)
    else:
        rates = there.rates(served, row.ts)
    besides, _ = all_of(card, used.others, row.ts)
    usages = [*used.earlier, *([] if answer is None else [answer])]
    if not usages:
        return besides, row.price_source
    source, own = covering(rates, usages[-1]), billed(rates, usages)
    return None if own is None or besides is None else own + besides, "" if source is None else source.source
