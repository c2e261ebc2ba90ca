"""The prices' part of the configuration: own rates, by date, tier and context, and what own machines cost."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from decimal import ROUND_HALF_EVEN, Decimal
from itertools import pairwise
from typing import Any

from pydantic import Field, model_validator

from farthing.proxy.config_section import Section
from farthing.proxy.price_rows import PriceRow

__all__ = ["Hosted", "ModelPrice", "Prices"]

# Keys of the configuration, our buckets, and what makes them dollars per million units.
_KEYS = {
    "input_usd_per_mtok": ("fresh", 1),
    "cached_usd_per_mtok": ("cached", 1),
    "cache_write_usd_per_mtok": ("cache_write", 1),
    "cache_write_1h_usd_per_mtok": ("cache_write_1h", 1),
    "output_usd_per_mtok": ("output", 1),
    "reasoning_usd_per_mtok": ("reasoning", 1),
    "audio_input_usd_per_mtok": ("audio_in", 1),
    "audio_cached_usd_per_mtok": ("audio_cached", 1),
    "audio_output_usd_per_mtok": ("audio_out", 1),
    "image_input_usd_per_mtok": ("image_in", 1),
    "image_cached_usd_per_mtok": ("image_cached", 1),
    "image_output_usd_per_mtok": ("image_out", 1),
    "search_usd": ("searches", 10**6),
    "request_usd": ("request", 10**6),
}
_FINEST = Decimal("1e-12")  # a machine's hour doesn't divide evenly: dollars per million tokens are rounded to this


class _Rates(Section):
    """US dollars per million tokens; `search_usd` for each web search, `request_usd` for each request."""

    input_usd_per_mtok: Decimal | None = Field(None, ge=0)
    output_usd_per_mtok: Decimal | None = Field(None, ge=0)
    cached_usd_per_mtok: Decimal | None = Field(None, ge=0)
    cache_write_usd_per_mtok: Decimal | None = Field(None, ge=0)
    cache_write_1h_usd_per_mtok: Decimal | None = Field(None, ge=0)
    reasoning_usd_per_mtok: Decimal | None = Field(None, ge=0)
    audio_input_usd_per_mtok: Decimal | None = Field(None, ge=0)
    audio_cached_usd_per_mtok: Decimal | None = Field(None, ge=0)
    audio_output_usd_per_mtok: Decimal | None = Field(None, ge=0)
    image_input_usd_per_mtok: Decimal | None = Field(None, ge=0)
    image_cached_usd_per_mtok: Decimal | None = Field(None, ge=0)
    image_output_usd_per_mtok: Decimal | None = Field(None, ge=0)
    search_usd: Decimal | None = Field(None, ge=0)
    request_usd: Decimal | None = Field(None, ge=0)

    def costs(self) -> dict[str, Decimal]:
        """What is declared, by bucket, in dollars per million units."""
        found = {bucket: (getattr(self, key), times) for key, (bucket, times) in _KEYS.items()}
        return {bucket: rate * times for bucket, (rate, times) in found.items() if rate is not None}


class Past(_Rates):
    """What a request with more than `tokens` of input costs, all of it."""

    tokens: int = Field(ge=1)


class Tier(_Rates):
    """What another service tier costs: `times` the standard rates, but for the rates declared here."""

    times: Decimal | None = Field(None, ge=0)
    past: tuple[Past, ...] = ()


class Hosted(Section):
    """What one's own machines cost, and what they do for it.

    One of `usd_per_hour` (of an instance) and `usd_per_gpu_second`. `tokens_per_s`: output tokens that one instance
    makes in a second at full load, as a load test measured it; `input_tokens_per_s`: input tokens that it reads, as
    fast if nothing is said. `busy`: the average share of the paid time in which it works.
    """

    usd_per_hour: Decimal | None = Field(None, gt=0)
    usd_per_gpu_second: Decimal | None = Field(None, gt=0)
    gpus: int = Field(1, ge=1, description="of an instance")
    instances: int = Field(1, ge=1)
    tokens_per_s: Decimal = Field(gt=0)
    input_tokens_per_s: Decimal | None = Field(None, gt=0)
    busy: Decimal = Field(Decimal(1), gt=0, le=1)

    @model_validator(mode="after")
    def _one_cost(self) -> Hosted:
        if (self.usd_per_hour is None) == (self.usd_per_gpu_second is None):
            raise ValueError("a hosted model costs either usd_per_hour or usd_per_gpu_second")
        return self

    @property
    def usd_per_s(self) -> Decimal:
        """What an instance costs a second."""
        if self.usd_per_hour is not None:
            return self.usd_per_hour / 3600
        return (self.usd_per_gpu_second or Decimal(0)) * self.gpus

    def costs(self, *, peak: bool = False) -> dict[str, Decimal]:
        """Dollars per million tokens read and made: on the average, or what one more costs at full load (`peak`)."""
        return {
            "fresh": self._per_mtok(self.input_tokens_per_s or self.tokens_per_s, peak=peak),
            "output": self._per_mtok(self.tokens_per_s, peak=peak),
        }

    def busy_s(self, tokens_in: int, tokens_out: int) -> Decimal:
        """How long one instance works at full load for so many tokens."""
        return tokens_in / (self.input_tokens_per_s or self.tokens_per_s) + tokens_out / self.tokens_per_s

    def _per_mtok(self, per_s: Decimal, *, peak: bool) -> Decimal:
        usd = self.usd_per_s * 10**6 / per_s / (1 if peak else self.busy)
        return usd.quantize(_FINEST, ROUND_HALF_EVEN).normalize()


class _PriceList(_Rates):
    """What a model costs from a day on. With `hosted` its rates follow from what the machines cost."""

    hosted: Hosted | None = None
    past: tuple[Past, ...] = ()
    tiers: dict[str, Tier] = Field(default_factory=dict)
    source: str = "config"

    @model_validator(mode="after")
    def _has_a_price(self) -> _PriceList:
        if self.input_usd_per_mtok is None and self.hosted is None:
            raise ValueError("a price needs input_usd_per_mtok, or hosted")
        return self

    def _rows(self, **when: Any) -> Iterator[PriceRow]:
        costs = (self.hosted.costs() if self.hosted is not None else {}) | self.costs()
        yield from _steps("", costs, self.past, self.source, when)
        for name, tier in self.tiers.items():
            times = tier.times
            scaled = {} if times is None else {bucket: usd * times for bucket, usd in costs.items()}
            steps = tier.past or tuple(_times(step, times) for step in self.past if times is not None)
            yield from _steps(name.lower(), scaled | tier.costs(), steps, self.source, when)


class Change(_PriceList):
    """What it costs from a later day on; nothing of the list before it holds any longer."""

    valid_from: date


class ModelPrice(_PriceList):
    """An own price for a model. `valid_from`: before that day (UTC) the table's price holds. `changes`: later ones."""

    valid_from: date | None = None
    changes: tuple[Change, ...] = ()

    @model_validator(mode="after")
    def _in_order(self) -> ModelPrice:
        days = [*([self.valid_from] if self.valid_from else []), *(change.valid_from for change in self.changes)]
        if any(late <= early for early, late in pairwise(days)):
            raise ValueError("changes must come in the order of their days, each on a day of its own")
        return self

    def rows(self) -> tuple[PriceRow, ...]:
        """It as rows, of all its dates and tiers."""
        lists: list[tuple[_PriceList, date | None]] = [(self, self.valid_from)]
        lists += [(change, change.valid_from) for change in self.changes]
        ends = [start for _, start in lists[1:]] + [None]
        return tuple(
            row
            for rank, ((prices, start), end) in enumerate(zip(lists, ends, strict=True))
            for row in prices._rows(valid_from=start, valid_until=end, rank=rank)
        )


class Prices(Section):
    """Overrides of the price table, by model name as the answer or the request names it."""

    models: dict[str, ModelPrice] = Field(default_factory=dict)


def _steps(
    tier: str, costs: dict[str, Decimal], past: tuple[Past, ...], source: str, when: dict[str, Any]
) -> Iterator[PriceRow]:
    for start, rates in [(0, costs), *((step.tokens, step.costs()) for step in past)]:
        for bucket, usd in rates.items():
            yield PriceRow(bucket, usd, source, past=start, tier=tier, **when)


def _times(step: Past, times: Decimal) -> Past:
    declared = {key: rate * times for key in _KEYS if (rate := getattr(step, key)) is not None}
    return Past(tokens=step.tokens, **declared)
