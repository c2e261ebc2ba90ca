"""What routes need of a configuration: connections to the other upstreams, who carries to them, and the routes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from farthing.policies.retry import RetryRules
from farthing.policies.routes import RouteTable
from farthing.proxy.config import Config, Upstream
from farthing.proxy.config_routes import routes_of, variants_of
from farthing.proxy.connections import Connections
from farthing.proxy.deadlines import Deadlines
from farthing.proxy.exchange import Quiet
from farthing.proxy.held import State
from farthing.proxy.legs import Carriers, Legs
from farthing.proxy.prices import RateCard
from farthing.proxy.routing import Routing
from farthing.proxy.stage_routed import RoutedStage
from farthing.proxy.stage_upstream import UpstreamStage
from farthing.proxy.stages import Tenants

__all__ = ["Ways", "open_connections", "open_routing"]


def open_connections(
    upstream: Upstream, known: Iterable[tuple[Upstream, Connections]], held: State, stack: AsyncExitStack
) -> Connections:
    """The connections to an upstream: those `known` to lead to the very same one, else new ones."""
    for before, connections in known:
        if before == upstream:
            return connections
    connections = Connections(
        upstream.url,
        connect_timeout_s=upstream.connect_timeout_s,
        limit=upstream.max_connections,
        spawn=held.tasks.spawn,
        clock=held.clock,
    )
    stack.callback(connections.close)
    return connections


def open_routing(config: Config, held: State, rates: RateCard, tenants: Tenants, old: Routing | None) -> Routing | None:
    """The routes; None where there is nothing that could lead a request elsewhere. What `old` has seen is kept."""
    if not config.routed:
        return None
    variants = variants_of(config.variants, config.upstream.name)
    scopes = {scope.name: tenants.of_scope(scope.name) for scope in config.auth.scopes}
    return Routing(
        variants=variants,
        routes=RouteTable(routes_of(config.routes, variants, scopes)),
        aliases=config.aliases,
        rates=rates,
        clock=held.clock,
        randomness=held.randomness,
        never_chained=config.cache.responses_never_chained,
        speeds={} if old is None else old.speeds,
    )


@dataclass(frozen=True, slots=True)
class Ways:
    """Who carries requests upstream. `others`: the connections to `config.upstreams`, by name."""

    config: Config
    held: State
    connections: Connections
    others: Mapping[str, Connections]
    deadlines: Deadlines = field(default_factory=Deadlines)

    def default(self) -> UpstreamStage:
        """To the default upstream."""
        return self._to(self.config.upstream, self.connections)

    def routed(
        self, default: Quiet, routing: Routing | None, wrap: Callable[[UpstreamStage], Quiet]
    ) -> RoutedStage | None:
        """To all upstreams, by routes; None where there are none. `wrap`: what stands round each but the default."""
        if routing is None:
            return None
        others = {one.name: wrap(self._to(one, self.others[one.name], foreign=True)) for one in self.config.upstreams}
        limit_bytes = self.config.limits.buffer_bytes
        legs = Legs(Carriers(default, others), routing, self.held.tokenizer, limit_bytes)
        return RoutedStage(legs, self.held.tasks.spawn)

    def _to(self, upstream: Upstream, connections: Connections, *, foreign: bool = False) -> UpstreamStage:
        return UpstreamStage(
            connections,
            self.deadlines,
            upstream,
            self.config.limits,
            self.held.clock,
            self.held.randomness,
            RetryRules(upstream.retries, upstream.retry_base_s, upstream.retry_max_s, upstream.retry_after_send),
            passive=self.config.all_off,
            foreign=foreign,
        )
