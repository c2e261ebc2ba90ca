"""What is allowed in a configuration and yet may not be what was meant: told of, never refused."""

from __future__ import annotations

from collections.abc import Iterator

import structlog

from farthing.proxy.config import Config
from farthing.proxy.config_upstream import KNOWN_PROVIDERS

__all__ = ["tell", "warnings"]

log = structlog.get_logger("farthing.config")


def warnings(config: Config) -> list[tuple[str, str]]:
    """(path, message) each."""
    return list(_providers(config))


def tell(config: Config) -> None:
    """Log them."""
    for path, message in warnings(config):
        log.warning("the configuration may not mean what it says", path=path, why=message)


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
