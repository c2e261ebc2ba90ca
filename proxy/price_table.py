"""genai-prices' dated table as rows: a snapshot inside the package, nothing is fetched. Leaf.

What the table can say: rates in and out, of cache reads and writes (an hour's apart), audio and images, past so much
context, by date or time of day; and, since its newest versions, of other service tiers ('flex', 'priority', 'fast') and
of batches. It knows no tier's history: before the day on which somebody looked, a tier has no price here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any, NamedTuple

from farthing.proxy.price_rows import PriceRow

__all__ = ["Listed", "age", "edition", "find", "listings", "provider_ids"]

_LONGEST_NAME = 200  # a client may ask for a model of any name; no real one is as long as this
# Their keys, our buckets, and what turns their unit into a million of ours.
_KEYS = {
    "input_mtok": ("fresh", 1),
    "cache_read_mtok": ("cached", 1),
    "cache_write_mtok": ("cache_write", 1),
    "cache_write_1h_mtok": ("cache_write_1h", 1),
    "output_mtok": ("output", 1),
    "output_reasoning_mtok": ("reasoning", 1),
    "input_audio_mtok": ("audio_in", 1),
    "cache_audio_read_mtok": ("audio_cached", 1),
    "output_audio_mtok": ("audio_out", 1),
    "input_image_mtok": ("image_in", 1),
    "cache_image_read_mtok": ("image_cached", 1),
    "output_image_mtok": ("image_out", 1),
    "web_searches_kcount": ("searches", 1000),
    "requests_kcount": ("request", 1000),
}
# Which of a request's circumstances make a tier of ours; others (a route, a kind of search) aren't told by answers.
_TIERS = frozenset({"service_tier", "processing", "speed"})


class Listed(NamedTuple):
    """A model of the table: its rows, of all dates, and the provider whose list they are of."""

    provider: str
    rows: tuple[PriceRow, ...]


def provider_ids() -> tuple[str, ...]:
    """The names of all providers that have a list."""
    from genai_prices.data_snapshot import get_snapshot

    return tuple(sorted(each.id for each in get_snapshot().providers))


def find(model: str, provider: str | None, url: str | None) -> Listed | None:
    """The model by the provider's list, as it is declared, told by the upstream's address or by the model's name.

    Searches the table itself: the library's own look-up remembers every unknown name for ever.
    """
    from genai_prices.data_snapshot import find_provider_by_id, get_snapshot

    if len(model) > _LONGEST_NAME:
        return None
    providers = get_snapshot().providers

    def by_name(name: str) -> Any:
        return next((each for each in providers if each.model_match and each.model_match.is_match(name)), None)

    model = model.lower()
    tries = [(model, find_provider_by_id(providers, provider))] if provider else []
    if url:
        tries.append((model, next((each for each in providers if re.match(each.api_pattern, url)), None)))
    tries.append((model, by_name(model)))
    prefix, _, bare = model.partition("/")
    if bare:
        tries += [(bare, find_provider_by_id(providers, prefix)), (bare, by_name(bare))]
    for name, found in tries:
        info = found.find_model(name, all_providers=providers) if found is not None else None
        if found is not None and info is not None:
            # Where one provider resells another's models, its tiers are not the other's.
            own = any(info is each for each in found.models)
            rows = tuple(row for row in _rows(info, edition()) if own or not row.tier)
            return Listed(found.id, rows)
    return None


def listings(model: str) -> list[Listed]:
    """Whoever lists a model by this exact id; `source` of the rows names them."""
    from genai_prices.data_snapshot import get_snapshot

    model = model.lower()
    return [
        Listed(provider.id, tuple(_rows(info, f"{edition()}, by {provider.id}")))
        for provider in get_snapshot().providers
        for info in provider.models
        if info.id.lower() == model
    ]


def edition() -> str:
    """The table's name and version."""
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"


def age(at_s: float) -> str:
    """How old the table is, by the newest change of a price that it knows and that is in force."""
    from genai_prices.data_snapshot import get_snapshot

    today = datetime.fromtimestamp(at_s, UTC).date()
    newest = max(
        start
        for provider in get_snapshot().providers
        for model in provider.models
        for row in (model.prices if isinstance(model.prices, list) else [])
        if (start := getattr(row.constraint, "start_date", None)) is not None and start <= today
    )
    return f"newest change of a price {newest}, {(today - newest).days} days ago"


def _rows(info: Any, source: str) -> Iterator[PriceRow]:
    """The rows of a model. Of its price lists the last that holds counts, the first one where none does; of its
    variants the first that holds, for each rate by itself."""
    lists = info.prices if isinstance(info.prices, list) else [None]
    for rank, priced in enumerate(lists):
        prices = info.prices if priced is None else priced.prices
        limits = _limits(priced.constraint) if rank and priced is not None else {}
        yield from _rates(prices, source, rank=rank, **limits)
    variants = info.price_variants or ()
    for rank, variant in enumerate(reversed(variants)):
        if set(variant.when) <= _TIERS and len(variant.when) == 1:
            (tier,) = variant.when.values()
            if tier != "default":
                yield from _rates(variant.prices, source, rank=rank, tier=tier, **_limits(variant.constraint))


def _rates(prices: Any, source: str, **about: Any) -> Iterator[PriceRow]:
    for key, (bucket, times) in _KEYS.items():
        found = getattr(prices, key, None)
        if found is None:
            continue
        steps = [(0, found)] if isinstance(found, Decimal) else [(0, found.base)]
        steps += [] if isinstance(found, Decimal) else [(tier.start, tier.price) for tier in found.tiers]
        for past, usd in steps:
            yield PriceRow(bucket, usd * times, source, past=past, **about)


def _limits(constraint: Any) -> dict[str, Any]:
    """When a price holds: from a date on, or at a time of the day, in UTC."""
    start: date | None = getattr(constraint, "start_date", None)
    if start is not None:
        return {"valid_from": start}
    if constraint is not None:
        return {"hours": (_utc(constraint.start_time), _utc(constraint.end_time))}
    return {}


def _utc(moment: Any) -> Any:
    """A time of the day without its zone; the table's are UTC (a test looks)."""
    return moment.replace(tzinfo=None)
