"""What is allowed in a configuration and yet may not be what was meant: told of, never refused."""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from farthing.policies.overlap import overlapping
from farthing.proxy.config import Config
from farthing.proxy.config_upstream import KNOWN_PROVIDERS

__all__ = ["tell", "warnings"]

log = structlog.get_logger("farthing.config")


def warnings(config: Config) -> list[tuple[str, str]]:
    """(path, message) each."""
    return [*_overlaps(config), *_providers(config)]


def tell(config: Config) -> None:
    """Log them."""
    for path, message in warnings(config):
        log.warning("the configuration may not mean what it says", path=path, why=message)


def _overlaps(config: Config) -> Iterator[tuple[str, str]]:
    alive = [(place, route) for place, route in enumerate(config.routes) if route.mode != "off"]
    for later, earlier in overlapping([route.conditions() for _, route in alive]):
        place, route = alive[later]
        above = " and ".join(f"routes.{alive[one][0]} ({alive[one][1].name!r})" for one in earlier)
        message = (
            f"{route.name!r} can meet the same requests as {above}, and neither is narrower than the other:"
            " the one above takes them"
        )
        yield f"routes.{place}", message


def _providers(config: Config) -> Iterator[tuple[str, str]]:
    named = [("upstream", config.upstream), *((f"upstreams.{at}", one) for at, one in enumerate(config.upstreams))]
    unknown = [(path, one.provider) for path, one in named if one.provider and one.provider not in KNOWN_PROVIDERS]
    if not unknown:
        return
    from farthing.proxy.price_table import provider_ids  # which takes long to load

    ids = provider_ids()
    for path, provider in unknown:
        if provider not in ids:
            yield (
                f"{path}.provider",
                f"nobody knows {provider!r}: no price list is its, and no prompt cache. Known: {', '.join(ids)}",
            )
