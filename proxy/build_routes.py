"""What leads a request upstream under a configuration: the upstreams, who carries to them, and the routes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, NamedTuple

from farthing.policies.retry import RetryRules
from farthing.policies.routes import RouteTable
from farthing.policies.variant import DEFAULT_UPSTREAM
from farthing.proxy.budgets import Spending
from farthing.proxy.config import Config, Upstream
from farthing.proxy.config_routes import is_digest, routes_of, variants_of
from farthing.proxy.deadlines import Deadlines
from farthing.proxy.exchange import Quiet
from farthing.proxy.held import State
from farthing.proxy.pool import Pool
from farthing.proxy.pool_open import Probes, open_pool
from farthing.proxy.prices import RateCard
from farthing.proxy.prompt_marking import cache_behind
from farthing.proxy.stage_upstream import UpstreamStage
from farthing.proxy.tenants import Tenants

if TYPE_CHECKING:
    from farthing.proxy.routing import Routing
    from farthing.proxy.stage_routed import RoutedStage
    from farthing.proxy.students import Students

__all__ = ["Opened", "Ways", "open_routing", "open_upstream", "scopes_of"]


class Opened(NamedTuple):
    """One upstream that is open."""

    pool: Pool
    probes: Probes


def open_upstream(upstream: Upstream, held: State, stack: AsyncExitStack, old: Opened | None) -> Opened:
    """The upstream's pool and its probes; of `old` what still fits."""
    if old is not None and old.probes.upstream == upstream:
        return old
    pool = open_pool(
        upstream,
        spawn=held.tasks.spawn,
        clock=held.clock,
        randomness=held.randomness,
        old=None if old is None else (old.probes.upstream, old.pool),
        counts=held.counts,
    )
    stack.callback(pool.close)
    probes = Probes(upstream, pool, held.clock)
    stack.push_async_callback(probes.stop)
    return Opened(pool, probes)


def open_routing(
    config: Config,
    held: State,
    rates: RateCard,
    tenants: Tenants,
    old: Routing | None,
    students: Mapping[str, str] = MappingProxyType({}),
) -> Routing | None:
    """The routes; None where there is nothing that could lead a request elsewhere. What `old` has seen is kept.

    `students`: the hashes of those that are there. No request can name one: they only answer for their teacher.
    """
    if not config.routed:
        return None
    from farthing.policies.stays import Stays
    from farthing.proxy.routing import Routing

    providers = {DEFAULT_UPSTREAM: cache_behind(config.upstream, config.compress.provider_cache)}
    providers |= {one.name: cache_behind(one, "auto") for one in config.upstreams}
    identities = {one.name: one.identity for one in config.upstreams}
    variants = variants_of(config.variants, config.upstream.name, identities, students)
    return Routing(
        variants={name: one for name, one in variants.items() if not one.student},
        routes=RouteTable(routes_of(config.routes, variants, scopes_of(config, tenants))),
        aliases=config.aliases,
        rates=rates,
        clock=held.clock,
        randomness=held.randomness,
        never_chained=config.cache.responses_never_chained,
        speeds={} if old is None else old.speeds,
        stays=Stays() if old is None else old.stays,
        providers=providers,
        standings=held.route_standings,
    )


def scopes_of(config: Config, tenants: Tenants) -> dict[str, str]:
    """What the ledger calls the tenants that the configuration names."""
    named = {scope.name for scope in config.auth.scopes}
    if config.auth.virtual_keys:
        named |= {route.tenant for route in config.routes if route.tenant and not is_digest(route.tenant)}
    return {name: tenants.of_scope(name) for name in named}


@dataclass(frozen=True, slots=True)
class Ways:
    """Who carries requests upstream. `pool`: the default one's; `others`: `config.upstreams`, by name."""

    config: Config
    held: State
    pool: Pool
    others: Mapping[str, Opened]
    spending: Spending | None = None
    deadlines: Deadlines = field(default_factory=Deadlines)

    def default(self) -> UpstreamStage:
        """To the default upstream."""
        return self._to(self.config.upstream, self.pool)

    def routed(
        self,
        default: Quiet,
        routing: Routing | None,
        wrap: Callable[[UpstreamStage], Quiet],
        students: Students | None = None,
    ) -> RoutedStage | None:
        """To all upstreams, by routes; None where there are none. `wrap`: what stands round each but the default.
        `students`: None where they may not answer."""
        if routing is None:
            return None
        from farthing.proxy.legs import Carriers, Legs
        from farthing.proxy.stage_routed import RoutedStage

        others = {
            one.name: wrap(self._to(one, self.others[one.name].pool, foreign=True)) for one in self.config.upstreams
        }
        limit_bytes = self.config.limits.buffer_bytes
        legs = Legs(Carriers(default, others), routing, self.held.tokenizer, limit_bytes, self.spending)
        return RoutedStage(legs, self.held.tasks.spawn, students)

    def _to(self, upstream: Upstream, pool: Pool, *, foreign: bool = False) -> UpstreamStage:
        return UpstreamStage(
            pool,
            self.deadlines,
            upstream,
            self.config.limits,
            self.held.clock,
            self.held.randomness,
            RetryRules(upstream.retries, upstream.retry_base_s, upstream.retry_max_s, upstream.retry_after_send),
            passive=self.config.all_off,
            own_keys=self.config.auth.virtual_keys,
            foreign=foreign,
        )
