"""What tokens cost, by date. Leaf.

Rates come from the configuration first, then from genai-prices' dated table (a snapshot inside the package; nothing is
fetched). Money is `Decimal` until it is rounded, once, to integer pico-dollars (1e-12 dollar), half to even. An unknown
model has no price: None, never zero.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, Protocol

from farthing.proxy.usage import Usage

__all__ = ["OwnPrice", "Price", "RateCard", "Rates", "Tiered"]

_MTOK_DIGITS = 6  # dollars per million tokens, times 10 to this, are pico-dollars per token
# Prices that depend on the time of day change on the half hour (genai-prices' TimeOfDateConstraint), so that what was
# looked up holds until the next one.
_HOLDS_S = 1800
_REMEMBERED = 4096
_LONGEST_NAME = 200  # a client may ask for a model of any name; no real one is as long as this


class OwnPrice(Protocol):
    """A price that the operator declares; see config.ModelPrice. US dollars per million tokens."""

    @property
    def input_usd_per_mtok(self) -> Decimal: ...
    @property
    def output_usd_per_mtok(self) -> Decimal: ...
    @property
    def cached_usd_per_mtok(self) -> Decimal | None: ...
    @property
    def cache_write_usd_per_mtok(self) -> Decimal | None: ...
    @property
    def reasoning_usd_per_mtok(self) -> Decimal | None: ...
    @property
    def source(self) -> str: ...


@dataclass(frozen=True, slots=True)
class Tiered:
    """A rate that steps with the request's whole input: past `start` tokens all of them cost the step's rate.

    `steps`: (start, dollars per million tokens), ascending.
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
class Rates:
    """Dollars per million tokens, for each bucket of Usage. `source`: where they come from.

    `request`: dollars per million requests, whatever they used (Perplexity's search models).
    """

    fresh: Tiered
    cached: Tiered
    cache_write: Tiered
    output: Tiered
    reasoning: Tiered
    source: str
    request: Decimal = Decimal(0)
    _ladder: tuple[tuple[int, tuple[int, ...]], ...] = field(init=False, repr=False, compare=False)
    _unit: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """The rates as integers of a `_unit`-th of a pico-dollar, exact, for each step of the input's length."""
        buckets = (self.fresh, self.cached, self.cache_write, self.output, self.reasoning)
        starts = sorted({0, *(start for rate in buckets for start, _ in rate.steps)})
        rungs = [(start, [*(rate.at(start + 1) for rate in buckets), self.request]) for start in starts]
        digits = max(0, *(-int(rate.as_tuple().exponent) - _MTOK_DIGITS for _, rates in rungs for rate in rates))
        scale = 10 ** (_MTOK_DIGITS + digits)
        exact = tuple((start, tuple(_whole(rate, scale) for rate in rates)) for start, rates in rungs)
        object.__setattr__(self, "_ladder", exact)
        object.__setattr__(self, "_unit", 10**digits)

    def pico(self, usage: Usage) -> int:
        """The price of one request's usage in pico-dollars, rounded once, half to even."""
        ladder = self._ladder
        rung = ladder[0][1]
        if len(ladder) > 1:
            whole = usage.tokens_in
            for start, rates in ladder:
                if whole > start:
                    rung = rates
        fresh, cached, cache_write, output, reasoning, request = rung
        total = usage.fresh * fresh + usage.output * output + request
        if usage.cached or usage.cache_write or usage.reasoning:
            total += usage.cached * cached + usage.cache_write * cache_write + usage.reasoning * reasoning
        unit = self._unit
        if unit == 1:
            return total
        quotient, rest = divmod(total, unit)
        return quotient + (rest * 2 > unit or (rest * 2 == unit and quotient % 2))


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
    """Looks rates up and remembers them. `provider`: genai-prices' id, '' to tell it by the upstream's address."""

    def __init__(self, own: Mapping[str, OwnPrice], provider: str = "", upstream_url: str = "") -> None:
        self._own = {model: _own_rates(price) for model, price in own.items()}
        self._provider = provider or None
        self._url = upstream_url or None
        self._known: OrderedDict[tuple[str, int], Rates | None] = OrderedDict()

    def price(self, model: str, usage: Usage, at_s: float) -> Price | None:
        """The price of `usage` on `model` at that moment (seconds since the epoch); None where it is unknown."""
        rates = self.rates(model, at_s)
        return None if rates is None else Price(rates.pico(usage), rates.source)

    def rates(self, model: str, at_s: float) -> Rates | None:
        """The rates of a model at that moment; None where they are unknown."""
        own = self._own.get(model)
        if own is not None or not model:
            return own
        place = (model, int(at_s // _HOLDS_S))
        try:
            return self._known[place]
        except KeyError:
            pass
        found = self._look_up(model, at_s)
        self._known[place] = found
        if len(self._known) > _REMEMBERED:
            self._known.popitem(last=False)
        return found

    def owns(self, model: str) -> bool:
        """Whether the configuration itself prices this model."""
        return model in self._own

    def describe(self, model: str, at_s: float) -> dict[str, Any] | None:
        """The rates as plain values for a person, with source and the table's date; None where they are unknown."""
        rates = self.rates(model, at_s)
        if rates is None:
            return None
        shown: dict[str, Any] = {"model": model}
        for name in ("fresh", "cached", "cache_write", "output", "reasoning"):
            rate: Tiered = getattr(rates, name)
            steps = "".join(f"; past {start:,} input tokens ${stepped}" for start, stepped in rate.steps)
            label = "input" if name == "fresh" else name
            shown[f"{label}_usd_per_mtok"] = f"${rate.base}{steps}"
        if rates.request:
            shown["request_usd"] = f"${rates.request / 10**6}"
        shown["source"] = rates.source
        if not self.owns(model):
            shown["table"] = _age(at_s)
        return shown

    def _look_up(self, model: str, at_s: float) -> Rates | None:
        """Searches genai-prices' table itself: the library's own look-up remembers every unknown name for ever."""
        from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

        if len(model) > _LONGEST_NAME:
            return None
        providers = get_snapshot().providers

        def by_name(name: str) -> Any:
            return next((each for each in providers if each.model_match and each.model_match.is_match(name)), None)

        model = model.lower()
        tries = [(model, find_provider_by_id(providers, self._provider))] if self._provider else []
        if self._url:
            tries.append((model, next((each for each in providers if re.match(each.api_pattern, self._url)), None)))
        tries.append((model, by_name(model)))
        prefix, _, bare = model.partition("/")
        if bare:
            tries += [(bare, find_provider_by_id(providers, prefix)), (bare, by_name(bare))]
        for name, provider in tries:
            info = provider.find_model(name, all_providers=providers) if provider is not None else None
            if info is not None:
                return _table_rates(info.get_prices(datetime.fromtimestamp(at_s, UTC)), _edition())
        return _listed_rates(providers, model, datetime.fromtimestamp(at_s, UTC))


def _listed_rates(providers: Any, model: str, at: datetime) -> Rates | None:
    """The rates of a model by its exact id, wherever that is listed: OpenAI's, else those on which all providers agree.

    Names that say nothing of their provider (`text-embedding-3-small`) have a price this way behind any address. Where
    providers differ the price is unknown; where it is known, its source names whose it is.
    """
    found = {
        provider.id: _table_rates(info.get_prices(at), f"{_edition()}, by {provider.id}")
        for provider in providers
        for info in provider.models
        if info.id.lower() == model
    }
    if "openai" in found:
        return found["openai"]
    first = next(iter(found.values()), None)
    agreed = first is not None and all(
        rates is not None and replace(rates, source=first.source) == first for rates in found.values()
    )
    return first if agreed else None


def _edition() -> str:
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"


def _age(at_s: float) -> str:
    """How old the table is, by the newest change of a price that it knows and that is in force."""
    from genai_prices.data_snapshot import get_snapshot

    today = datetime.fromtimestamp(at_s, UTC).date()
    newest = max(
        start
        for provider in get_snapshot().providers
        for model in provider.models
        if isinstance(model.prices, list)
        for conditional in model.prices
        if (start := getattr(conditional.constraint, "start_date", None)) is not None and start <= today
    )
    return f"newest change of a price {newest}, {(today - newest).days} days ago"


def _whole(rate: Decimal, scale: int) -> int:
    """rate x scale as an integer, exactly, whatever the context's precision."""
    numerator, denominator = rate.as_integer_ratio()
    return numerator * scale // denominator


def _own_rates(price: OwnPrice) -> Rates:
    def rate(value: Decimal | None, otherwise: Decimal) -> Tiered:
        return Tiered(otherwise if value is None else value)

    fresh, output = price.input_usd_per_mtok, price.output_usd_per_mtok
    return Rates(
        fresh=Tiered(fresh),
        cached=rate(price.cached_usd_per_mtok, fresh),
        cache_write=rate(price.cache_write_usd_per_mtok, fresh),
        output=Tiered(output),
        reasoning=rate(price.reasoning_usd_per_mtok, output),
        source=price.source,
    )


def _table_rates(prices: Any, source: str) -> Rates | None:
    """genai-prices' ModelPrice as rates; a missing cached or write rate is the fresh one, reasoning the output one."""

    def rate(name: str) -> Tiered | None:
        found = getattr(prices, name, None)
        if found is None:
            return None
        if isinstance(found, Decimal):
            return Tiered(found)
        return Tiered(found.base, tuple((tier.start, tier.price) for tier in found.tiers))

    fresh = rate("input_mtok")
    if fresh is None:
        return None
    output = rate("output_mtok") or Tiered(Decimal(0))
    return Rates(
        fresh=fresh,
        cached=rate("cache_read_mtok") or fresh,
        cache_write=rate("cache_write_mtok") or fresh,
        output=output,
        reasoning=rate("output_reasoning_mtok") or output,
        source=source,
        request=fee.base * 1000 if (fee := rate("requests_kcount")) is not None else Decimal(0),
    )
