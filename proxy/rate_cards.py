"""The rates of every upstream that a configuration names."""

from __future__ import annotations

from decimal import Decimal

from farthing.policies.variant import STUDENT
from farthing.proxy.config import Config
from farthing.proxy.config_prices import ModelPrice
from farthing.proxy.prices import OwnPrice, RateCard

__all__ = ["card_of"]


def card_of(config: Config) -> RateCard:
    """The default upstream's rates; `at` gives the others'."""
    others = {one.name: (one.provider, one.url) for one in config.upstreams}
    own: dict[str, OwnPrice] = {
        f"{STUDENT}{one.student_name}": ModelPrice(input_usd_per_mtok=Decimal(0), output_usd_per_mtok=Decimal(0))
        for one in config.variants
        if one.student
    }  # what runs in this process costs what the operator says it does, else nothing
    return RateCard(own | dict(config.prices.models), config.upstream.provider, config.upstream.url, others)
