"""The rates of every upstream that a configuration names."""

from __future__ import annotations

from farthing.proxy.config import Config
from farthing.proxy.prices import RateCard

__all__ = ["card_of"]


def card_of(config: Config) -> RateCard:
    """The default upstream's rates; `at` gives the others'."""
    others = {one.name: (one.provider, one.url) for one in config.upstreams}
    return RateCard(config.prices.models, config.upstream.provider, config.upstream.url, others)
