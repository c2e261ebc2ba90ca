"""What `farthing distill` reads: captured traffic or a trace, and which of its requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from farthing.policies.routes import RouteTable, facts_of
from farthing.proxy.build_routes import scopes_of
from farthing.proxy.clock import SystemRandomness
from farthing.proxy.config import Config
from farthing.proxy.config_routes import routes_of, target_of, variants_of
from farthing.proxy.distill_rows import Wanted
from farthing.proxy.errors import ConfigFault
from farthing.proxy.eval_sample import bad_ratings, from_capture, from_trace
from farthing.proxy.figures import farthing_since
from farthing.proxy.outcomes import read_only
from farthing.proxy.replay_values import Recorded
from farthing.proxy.state import local_secret
from farthing.proxy.tenants import Tenants

__all__ = ["lines_of", "wanted_of"]


def lines_of(config: Config, trace: Path | None, since_s: float) -> Iterator[tuple[int, Any]]:
    """Numbers and lines. Raises ConfigFault: there is nothing."""
    return from_capture(config, since_s) if trace is None else from_trace(trace)


def wanted_of(config: Config, route: str, model: str, since: str, now_s: float, *, refusals: bool) -> Wanted:
    """Which requests. Raises ConfigFault: `since` or `route` says nothing."""
    try:
        since_s = farthing_since(since, now_s) if since else 0.0
    except ValueError as error:
        raise ConfigFault(f"--since: {error}") from None
    bad = bad_ratings(read_only(config.state_dir))
    return Wanted(model, _of_route(config, route), bad, since_s, refusals)


def _of_route(config: Config, name: str) -> Callable[[Recorded], bool]:
    """Whether a recorded request takes the route of that name. Raises ConfigFault: there is none."""
    if not name:
        return lambda found: True
    if name not in {route.name for route in config.routes if route.mode != "off"}:
        raise ConfigFault(f"--route: the configuration has no route {name!r} that is on")
    tenants = Tenants(local_secret(config.state_dir, SystemRandomness()), config.auth, None)
    variants = variants_of(config.variants, config.upstream.name)
    table = RouteTable(routes_of(config.routes, variants, scopes_of(config, tenants)))
    never_chained = config.cache.responses_never_chained

    def accepts(found: Recorded) -> bool:
        body = dict(found.body or {})
        if isinstance(body.get("model"), str):
            body["model"] = target_of(config.aliases, body["model"])
        route = table.match(facts_of(found.endpoint, body, found.tags, found.tenant, never_chained=never_chained))
        return route is not None and route.name == name

    return accepts
