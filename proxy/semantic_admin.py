"""The semantic cache seen from outside: its routes, why a request would or wouldn't be answered, and ratings."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict, CIMultiDictProxy

from farthing.cache.key import Place, Scope, neighbourhood
from farthing.cache.store import Selector
from farthing.policies.reuse import Candidate, RouteKey, RouteState
from farthing.proxy import wire
from farthing.proxy.errors import ClientFault
from farthing.proxy.stage_semantic import refused

if TYPE_CHECKING:
    from farthing.proxy.app import Services

__all__ = ["MOST_ROUTES", "explain", "rate", "routes", "shown"]

MOST_ROUTES = 200
_FIELDS = tuple(field.name for field in fields(RouteState))


def routes(services: Services) -> dict[str, Any]:
    """What is promised, and each route's standing, the latest used first. Tenants are shown by their first digits."""
    semantic = services.config.semantic
    policy = services.semantic.reuse
    return {
        "mode": semantic.shown,
        "policy": "static" if semantic.unproven else semantic.policy,
        "max_wrong": semantic.max_wrong,
        "per": semantic.per,
        "confidence": semantic.confidence,
        "audits_usd_today": services.semantic.audits_usd,
        "audit_daily_usd": float(semantic.audit_daily_usd),
        "count": policy.count,
        "routes": [shown(state) for state in policy.state(MOST_ROUTES)],
    }


def shown(state: RouteState) -> dict[str, Any]:
    """One route as JSON values. Not by `asdict`, whose deep copies take five times as long."""
    route = {"tenant": state.route.tenant[:8], "name": state.route.name}
    return {name: getattr(state, name) for name in _FIELDS} | {"route": route}


async def explain(services: Services, asked: dict[str, Any]) -> dict[str, Any]:
    """The nearest entries to a request, their signals, and what the policy says of the best one.

    `asked`: {"path", "body", "headers"?} as a client would send them. Nothing is learnt. Raises ClientFault.
    """
    body, path = asked.get("body"), str(asked.get("path", "/v1/chat/completions"))
    headers = CIMultiDict({str(name): str(value) for name, value in dict(asked.get("headers") or {}).items()})
    endpoint = wire.endpoint_of("POST", path)
    if not isinstance(body, dict):
        raise ClientFault('the request must look like {"body": {...}}', param="body")
    _, tenant = services.admit.tenants.identify(headers)
    controls = wire.controls(CIMultiDictProxy(headers))
    place = neighbourhood(Scope(tenant, endpoint, path, services.config.upstream.url, headers, controls), body)
    if isinstance(place, str):
        return {"verdict": place, "nearest": []}
    thread = services.thread
    reason = refused(body, endpoint, place.text)
    if reason or thread is None or not thread.loaded:
        return {"verdict": reason or "the semantic cache is off or not loaded yet", "nearest": []}
    return await _nearest(services, tenant, place)


async def _nearest(services: Services, tenant: str, place: Place) -> dict[str, Any]:
    thread, stage = services.thread, services.semantic
    assert thread is not None
    now_s = services.state.clock.now_s()
    near = await thread.run(lambda cache: cache.explain(place.scope, place.route, place.text, now_s))
    route = RouteKey(tenant, place.route)
    state = stage.reuse.state_of(route)
    shown: dict[str, Any] = {"scope": place.scope, "route": place.route, "serving": bool(state and state.serving)}
    if state is not None:
        shown |= {"threshold": state.threshold, "bound": state.bound, "needed": state.needed}
        shown |= {"proof": state.proof, "labels": state.labels, "own_labels": state.own_labels}
    if isinstance(near, str):
        return shown | {"verdict": near, "nearest": []}
    best = near[0] if near else None
    if best is None:
        return shown | {"verdict": "no neighbour", "nearest": []}
    candidate = Candidate(str(best["entry_key"]), float(best["score"]), float(best["cosine"]))
    reason = state.reason if state is not None and state.reason else "not proved"
    if state is not None and state.proof and state.threshold is not None:
        passes = candidate.score >= state.threshold
        told = "would be served" if state.serving else "would be served if the mode were serve"
        reason = told if passes else "its score is below the proved threshold"
    return shown | {"verdict": reason, "nearest": near}


async def rate(services: Services, asked: dict[str, Any]) -> dict[str, Any]:
    """A rating of an answer by its `x-farthing-id`: a bad one purges the entry and counts as evidence.

    Raises ClientFault where the body isn't {"id": ..., "rating": "good"|"bad"}.
    """
    exchange_id, rating = asked.get("id"), asked.get("rating")
    if not isinstance(exchange_id, str) or rating not in ("good", "bad"):
        raise ClientFault('feedback must look like {"id": "far-...", "rating": "good" or "bad"}', param="rating")
    entry_key = services.semantic.rate(exchange_id, wrong=rating == "bad")
    purged = 0
    if entry_key is not None and rating == "bad":
        keys = await services.state.store.purge(Selector(key=entry_key))
        await services.semantic.forget([entry_key, *keys])
        purged = len(keys)
    return {"known": entry_key is not None, "purged": purged}
