"""What cares for the providers' prompt caches under a configuration."""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import replace

from farthing.proxy.config import Config, Upstream
from farthing.proxy.errand import Errands
from farthing.proxy.held import State
from farthing.proxy.prices import RateCard
from farthing.proxy.prompt_marking import Marker, provider_of
from farthing.proxy.prompt_warm import Warmer

__all__ = ["on_their_keys", "open_marker", "open_warmer"]


def on_their_keys(config: Config) -> tuple[Upstream, ...]:
    """All upstreams, the default one first; those with several keys keep a conversation on the one where it is warm.

    A provider's cache belongs to an account, and nobody says whether two keys are of one. Only where requests are
    marked, and where the operator hasn't chosen another way to balance.
    """
    upstreams = (config.upstream, *config.upstreams)
    if config.prompt_cache.mode != "serve":
        return upstreams
    return tuple(
        one.model_copy(update={"balance": "affinity"}) if one.balance == "least" and len(one.keys) > 1 else one
        for one in upstreams
    )


def open_marker(config: Config, held: State, rates: RateCard) -> Marker | None:
    """Who cares for the providers' prompt caches; None where that is off."""
    if config.prompt_cache.mode == "off":
        return None
    return Marker(
        config.prompt_cache,
        held.prompts,
        rates,
        held.clock,
        declared=config.compress.provider_cache,
        default_name=config.upstream.name,
        dear_writes=any(
            provider_of(one, declared) == "anthropic"
            for one, declared in (
                (config.upstream, config.compress.provider_cache),
                *((other, "auto") for other in config.upstreams),
            )
        ),
    )


def open_warmer(config: Config, held: State, rates: RateCard, calls: Errands, stack: AsyncExitStack) -> Warmer | None:
    """Who keeps hot prefixes warm, at work; None where nobody does. `calls`: how farthing calls upstream otherwise."""
    if not config.prompt_cache.keep_warm:
        return None
    errands = replace(
        calls,
        kind="warm",
        stages=calls.stages[-1:],  # it is asked as it is
        limit_pico=int(config.prompt_cache.keep_warm_daily_usd * 10**12),
        spent=held.warmed,
        barred=None,
    )
    warmer = Warmer(errands, held.prompts, rates, held.switch)
    stack.push_async_callback(warmer.stop)
    warmer.start()
    return warmer
