"""What tokens cost, by date. Leaf.

Rates come from the configuration first, then from genai-prices' dated table (a snapshot inside the package; nothing is
fetched). Money is `Decimal` until it is rounded, once, to integer pico-dollars (1e-12 dollar), half to even. An unknown
model has no price: None, never zero.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from decimal import ROUND_HALF_EVEN, Decimal
from typing import Any, Protocol

from farthing.proxy.usage import Usage

__all__ = ["OwnPrice", "Price", "RateCard", "Rates", "Tiered"]

_PICO_PER_MTOK_RATE = Decimal(10**6)  # dollars per million tokens, times this, are pico-dollars per token
# Prices that depend on the time of day change on the half hour (genai-prices' TimeOfDateConstraint), so that what was
# looked up holds until the next one.
_HOLDS_S = 1800
_REMEMBERED = 4096


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
    """Dollars per million tokens, for each bucket of Usage. `source`: where they come from."""

    fresh: Tiered
    cached: Tiered
    cache_write: Tiered
    output: Tiered
    reasoning: Tiered
    source: str

    def pico(self, usage: Usage) -> int:
        """The price of a usage in pico-dollars, rounded once."""
        whole = usage.tokens_in
        total = usage.fresh * self.fresh.at(whole) + usage.output * self.output.at(whole)
        if usage.cached:
            total += usage.cached * self.cached.at(whole)
        if usage.cache_write:
            total += usage.cache_write * self.cache_write.at(whole)
        if usage.reasoning:
            total += usage.reasoning * self.reasoning.at(whole)
        return int((total * _PICO_PER_MTOK_RATE).to_integral_value(ROUND_HALF_EVEN))


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
        return shown | {"source": rates.source}

    def _look_up(self, model: str, at_s: float) -> Rates | None:
        from genai_prices.data_snapshot import get_snapshot

        snapshot = get_snapshot()
        tries: list[tuple[str, str | None, str | None]] = [(model, self._provider, None)] if self._provider else []
        if self._url:
            tries.append((model, None, self._url))
        tries.append((model, None, None))
        provider, _, bare = model.partition("/")
        if bare:
            tries += [(bare, provider, None), (bare, None, None)]
        for name, provider_id, url in tries:
            try:
                _, info = snapshot.find_provider_model(name, None, provider_id, url)
            except LookupError:
                continue
            moment = datetime.fromtimestamp(at_s, UTC)
            return _table_rates(info.get_prices(moment), _edition())
        return None


def _edition() -> str:
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"


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
        reasoning=output,
        source=source,
    )
