"""What tokens cost, by date and service tier. Leaf.

Rates come from the configuration first, then from genai-prices' dated table (a snapshot inside the package; nothing is
fetched). Money is `Decimal` until it is rounded, once, to integer pico-dollars (1e-12 dollar), half to even. An unknown
model has no price: None, never zero. Nor has a tier, or a part of the usage, that is known to cost something else and
whose rate nobody has told.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from farthing.proxy import price_table
from farthing.proxy.price_rows import PriceRow, Tiered, in_force
from farthing.proxy.usage import EXTRAS, PLAIN, Usage

__all__ = ["HOLDS_S", "OwnPrice", "Price", "RateCard", "Rates", "Tiered"]

_MTOK_DIGITS = 6  # dollars per million tokens, times 10 to this, are pico-dollars per token
HOLDS_S = 1800
"""Prices that depend on the time of day change on the half hour (genai-prices' TimeOfDateConstraint), so that what was
looked up holds until the next one."""
_REMEMBERED = 4096
_FIRST_EXTRA = Usage._fields.index(EXTRAS[0])
_FIVE = Usage._fields[:5]
_NOTHING = Tiered(Decimal(0))


class OwnPrice(Protocol):
    """A price that the operator declares; see config_prices.ModelPrice."""

    def rows(self) -> Sequence[PriceRow]:
        """It as rows, of all its dates and tiers."""
        ...


@dataclass(frozen=True, slots=True)
class Rates:
    """Dollars per million tokens, for each bucket of Usage. `source`: where they come from.

    `request`: dollars per million requests, whatever they used (Perplexity's search models). `more`: the rates of other
    buckets; audio, images and writes for an hour that aren't in it are taken for text and for ordinary writes.
    `unpriced`: buckets for which that would be wrong. `tiers`: the rates of other service tiers.
    """

    fresh: Tiered
    cached: Tiered
    cache_write: Tiered
    output: Tiered
    reasoning: Tiered
    source: str
    request: Decimal = Decimal(0)
    more: Mapping[str, Tiered] = field(default_factory=dict)
    unpriced: frozenset[str] = frozenset()
    tiers: Mapping[str, Rates] = field(default_factory=dict)
    _ladder: tuple[tuple[int, tuple[int, ...]], ...] = field(init=False, repr=False, compare=False)
    _unit: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """The rates as integers of a `_unit`-th of a pico-dollar, exact, for each step of the input's length."""
        buckets = [getattr(self, name) for name in _FIVE] + [self._extra(name) for name in EXTRAS]
        starts = sorted({0, *(start for rate in buckets for start, _ in rate.steps)})
        rungs = [(start, [self.request, *(rate.at(start + 1) for rate in buckets)]) for start in starts]
        digits = max(0, *(-int(rate.as_tuple().exponent) - _MTOK_DIGITS for _, rates in rungs for rate in rates))
        scale = 10 ** (_MTOK_DIGITS + digits)
        exact = tuple((start, tuple(_whole(rate, scale) for rate in rates)) for start, rates in rungs)
        object.__setattr__(self, "_ladder", exact)
        object.__setattr__(self, "_unit", 10**digits)

    def _extra(self, name: str) -> Tiered:
        """The rate of a bucket beyond the five, its nearest relative's where it has none."""
        more = self.more
        if name in more:
            return more[name]
        if name == "cache_write_1h":
            return self.cache_write
        if name.endswith("_cached"):
            return more.get(name.replace("_cached", "_in"), self.cached)
        if name.endswith("_in"):
            return self.fresh
        return self.output if name.endswith("_out") else _NOTHING

    def covering(self, usage: Usage) -> Rates | None:
        """The rates of the tier that answered; None where it, or a part of what was used, has no known price."""
        if usage[_FIRST_EXTRA:] == PLAIN:
            return self
        rates = self.tiers.get(usage.tier) if usage.tier else self
        if rates is None or any(getattr(usage, name) for name in rates.unpriced):
            return None
        return rates

    def pico(self, usage: Usage) -> int:
        """The price of one request's usage in pico-dollars, rounded once, half to even.

        At these rates, whatever `usage.tier` says; `covering` gives those that apply.
        """
        ladder = self._ladder
        rung = ladder[0][1] if len(ladder) == 1 else self._rung(usage.tokens_in)
        total = usage.fresh * rung[1] + usage.output * rung[4] + rung[0]
        if usage.cached or usage.cache_write or usage.reasoning:
            total += usage.cached * rung[2] + usage.cache_write * rung[3] + usage.reasoning * rung[5]
        extras = usage[_FIRST_EXTRA:]
        if extras != PLAIN:
            total += sum([getattr(usage, name) * rate for name, rate in zip(EXTRAS, rung[6:], strict=True)])
        return total if self._unit == 1 else self._rounded(total)

    def pico_of_text(self, fresh: int, cached: int, output: int) -> int:
        """`pico` of an answer that used nothing else, in a third of the time: for what might be asked."""
        ladder = self._ladder
        rung = ladder[0][1] if len(ladder) == 1 else self._rung(fresh + cached)
        total = fresh * rung[1] + cached * rung[2] + output * rung[4] + rung[0]
        return total if self._unit == 1 else self._rounded(total)

    def _rung(self, tokens_in: int) -> tuple[int, ...]:
        """The rates of an input of that length."""
        rung = self._ladder[0][1]
        for start, rates in self._ladder:
            if tokens_in > start:
                rung = rates
        return rung

    def _rounded(self, total: int) -> int:
        """Whole pico-dollars, half to even."""
        quotient, rest = divmod(total, self._unit)
        return quotient + (rest * 2 > self._unit or (rest * 2 == self._unit and quotient % 2))


@dataclass(frozen=True, slots=True)
class Price:
    """An amount, and the source of its rates."""

    pico: int
    source: str

    @property
    def usd(self) -> Decimal:
        """The amount in dollars."""
        return Decimal(self.pico).scaleb(-12)


class RateCard:
    """Looks rates up and remembers them. `provider`: genai-prices' id, '' to tell it by the upstream's address.

    `elsewhere`: (provider, address) of other upstreams, by name; an own price of `UPSTREAM/MODEL` is for there.
    """

    def __init__(
        self,
        own: Mapping[str, OwnPrice],
        provider: str = "",
        upstream_url: str = "",
        elsewhere: Mapping[str, tuple[str, str]] | None = None,
    ) -> None:
        self._elsewhere = {
            name: RateCard(
                {**own, **{key.removeprefix(f"{name}/"): own[key] for key in own if key.startswith(f"{name}/")}}, *at
            )
            for name, at in (elsewhere or {}).items()
        }
        self._own_rows = {model: tuple(price.rows()) for model, price in own.items()}
        # One that always was and will be needs no look-up by date.
        self._own = {model: rates_of(rows, 0) for model, rows in self._own_rows.items() if not _dated(rows)}
        self._provider = provider or None
        self._url = upstream_url or None
        self._known: OrderedDict[tuple[str, int], Rates | None] = OrderedDict()

    def price(self, model: str, usage: Usage, at_s: float) -> Price | None:
        """The price of `usage` on `model` at that moment (seconds since the epoch); None where it is unknown."""
        rates = self.rates(model, at_s)
        covering = None if rates is None else rates.covering(usage)
        return None if covering is None else Price(covering.pico(usage), covering.source)

    def rates(self, model: str, at_s: float) -> Rates | None:
        """The rates of a model at that moment; None where they are unknown."""
        own = self._own.get(model)
        if own is not None or not model:
            return own
        place = (model, int(at_s // HOLDS_S))
        try:
            return self._known[place]
        except KeyError:
            pass
        found = self._look_up(model, at_s)
        self._known[place] = found
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found

    def at(self, upstream: str) -> RateCard:
        """The rates of the upstream of that name, or of its replica; these here, where it is none of the others."""
        if not self._elsewhere:
            return self
        return self._elsewhere.get(upstream.partition("/")[0].partition("#")[0], self)

    def owns(self, model: str) -> bool:
        """Whether the configuration itself prices this model."""
        return model in self._own_rows

    def rows(self, model: str) -> tuple[PriceRow, ...]:
        """All rows of a model, of every date: the configuration's own, and the table's where those begin some day."""
        own = self._own_rows.get(model, ())
        if not model or (own and own[0].valid_from is None):
            return own
        listed = price_table.find(model, self._provider, self._url)
        if listed is not None:
            return own + listed.rows
        others = {each.provider: each.rows for each in price_table.listings(model)}
        return own + (others["openai"] if "openai" in others else next(iter(others.values()), ()))

    def describe(self, model: str, at_s: float) -> dict[str, Any] | None:
        """The rates as plain values for a person, with source and the table's date; None where they are unknown."""
        rates = self.rates(model, at_s)
        if rates is None:
            return None
        shown: dict[str, Any] = {"model": model}
        for name in _FIVE:
            rate: Tiered = getattr(rates, name)
            label = "input" if name == "fresh" else name
            shown[f"{label}_usd_per_mtok"] = _said(rate)
        for name, rate in rates.more.items():
            if name == "searches":
                shown["search_usd"] = f"${rate.base / 10**6}"
            else:
                shown[f"{name}_usd_per_mtok"] = _said(rate)
        if rates.request:
            shown["request_usd"] = f"${rates.request / 10**6}"
        if rates.tiers:
            shown["other_tiers"] = ", ".join(rates.tiers)
        shown["source"] = rates.source
        if not self.owns(model):
            shown["table"] = price_table.age(at_s)
        return shown

    def _look_up(self, model: str, at_s: float) -> Rates | None:
        """The configuration's rows where some hold at that moment, else the table's."""
        own = rates_of(self._own_rows.get(model, ()), at_s)
        if own is not None:
            return own
        listed = price_table.find(model, self._provider, self._url)
        found = rates_of(listed.rows, at_s) if listed is not None else _listed_rates(model, at_s)
        if found is None:  # what only another upstream has costs what it costs there
            found = next((rates for card in self._elsewhere.values() if (rates := card.rates(model, at_s))), None)
        return found


def _listed_rates(model: str, at_s: float) -> Rates | None:
    """The rates of a model by its exact id, wherever that is listed: OpenAI's, else those on which all providers agree.

    Names that say nothing of their provider (`text-embedding-3-small`) have a price this way behind any address. Where
    providers differ the price is unknown; where it is known, its source names whose it is.
    """
    found = {listed.provider: rates_of(listed.rows, at_s) for listed in price_table.listings(model)}
    if "openai" in found:
        return found["openai"]
    rates = list(found.values())
    first = rates[0] if rates else None
    if first is None or any(one is None or _bare(one) != _bare(first) for one in rates):
        return None
    return first if len(rates) == 1 else replace(first, tiers={})


def _bare(rates: Rates) -> Rates:
    """The rates without what tells lists apart that agree."""
    return replace(rates, source="", tiers={})


def rates_of(rows: Sequence[PriceRow], at_s: float) -> Rates | None:
    """The rates that rows make at that moment; None where they don't price input tokens."""
    by_tier = in_force(rows, at_s)
    standard = by_tier.pop("", {})
    if "fresh" not in standard:
        return None
    at = datetime.fromtimestamp(at_s, UTC)
    source = max((row for row in rows if not row.tier and row.holds(at)), key=lambda row: row.rank).source
    tiers = {tier: _rates(costs, source) for tier, costs in by_tier.items()}
    return replace(_rates(standard, source), tiers=tiers)


def _rates(costs: Mapping[str, Tiered], source: str) -> Rates:
    """The rates of one tier. Reads and writes without a rate of their own cost what fresh input does, reasoning what
    output does; images cost what text does. Audio, images made and searches never do, nor do writes for an hour where
    writes have a rate."""
    fresh = costs["fresh"]
    output = costs.get("output", _NOTHING)
    fee = costs.get("request", _NOTHING)
    unpriced = {"audio_in", "audio_out", "image_out", "searches"}
    if "audio_in" not in costs:
        unpriced.add("audio_cached")
    if "cache_write" in costs:
        unpriced.add("cache_write_1h")
    return Rates(
        fresh=fresh,
        cached=costs.get("cached", fresh),
        cache_write=costs.get("cache_write", fresh),
        output=output,
        reasoning=costs.get("reasoning", output),
        source=source,
        request=fee.base,
        more={name: costs[name] for name in EXTRAS if name in costs},
        unpriced=frozenset(unpriced - costs.keys()),
    )


def _dated(rows: Sequence[PriceRow]) -> bool:
    return any(row.valid_from or row.valid_until or row.hours for row in rows)


def _said(rate: Tiered) -> str:
    return f"${rate.base}" + "".join(f"; past {start:,} input tokens ${stepped}" for start, stepped in rate.steps)


def _whole(rate: Decimal, scale: int) -> int:
    """rate x scale as an integer, exactly, whatever the context's precision."""
    numerator, denominator = rate.as_integer_ratio()
    return numerator * scale // denominator
