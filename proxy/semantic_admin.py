"""The semantic cache seen from outside: its routes, what it met of late, why a request would be answered, ratings."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from multidict import CIMultiDict, CIMultiDictProxy

from farthing.cache.key import Place, Scope, neighbourhood
from farthing.policies.agree_measured import comparator
from farthing.policies.reuse import RouteKey, RouteState
from farthing.policies.sequence import Comparator, Evidence, interval
from farthing.proxy import wire
from farthing.proxy.config import Semantic
from farthing.proxy.errors import ClientFault
from farthing.proxy.lately import KINDS, Sighting
from farthing.proxy.stage_semantic import tool_result
from farthing.proxy.text import normalise

if TYPE_CHECKING:
    from farthing.proxy.build import Services

__all__ = ["MOST_ROUTES", "explain", "lately", "needs", "routes", "shown", "texts"]

MOST_ROUTES = 200
_FIELDS = tuple(field.name for field in fields(RouteState))
_CHARTED = 4
_TENANT_DIGITS = 8
_KEY_DIGITS = 12
_KINDS_TOLD = 4


async def routes(services: Services) -> dict[str, Any]:
    """What is promised, and each route's standing, the latest used first. Tenants are shown by their first digits.

    `interval`: between which rates of wrong answers the labels leave it, at the confidence that is promised.
    """
    semantic, judge = services.config.semantic, comparator()
    policy = services.semantic.reuse
    states, level = policy.state(MOST_ROUTES), 1.0 - semantic.confidence
    # Two hundred intervals take 20 ms: not where requests wait for it.
    listed = await asyncio.to_thread(lambda: [shown(state, level, judge) for state in states])
    return {
        "mode": semantic.shown,
        "policy": "static" if semantic.unproven else semantic.policy,
        "max_wrong": semantic.max_wrong,
        "per": semantic.per,
        "confidence": semantic.confidence,
        "audits_usd_today": services.semantic.audits_usd,
        "audit_daily_usd": float(semantic.audit_daily_usd),
        "second_stage": semantic.second_stage,
        "judge_usd_today": services.state.judged.read(services.state.clock.now_s()) * 1e-12,
        "judge_daily_usd": float(semantic.judge_daily_usd),
        "count": policy.count,
        "routes": listed,
    }


def shown(state: RouteState, level: float, judge: Comparator) -> dict[str, Any]:
    """One route as JSON values. Not by `asdict`, whose deep copies take five times as long."""
    told = {name: getattr(state, name) for name in _FIELDS} | {"route": _named(state.route)}
    return told | {"interval": interval(Evidence(state.labels, state.wrong), level, judge)}


async def lately(services: Services, asked: Mapping[str, str]) -> dict[str, Any]:
    """Hits over time, and the latest candidates of a kind with what told them apart from the request.

    `asked`: {"kind": "near" (not served) | "served" | "wrong", "route": "TENANT/NAME" or ""}. Texts, and words of
    theirs, only with `semantic.show_texts`. Raises ClientFault.
    """
    held, kind, wanted = services.semantic.lately, asked.get("kind", "near"), asked.get("route", "")
    if kind not in KINDS:
        raise ClientFault(f"kind must be one of {', '.join(KINDS)}", param="kind")
    routes = list(held.pulse.routes)
    route = None
    if wanted:
        # A route that is not known (any more) has nothing to show, and a page that asks for it goes on.
        route = next((one for one in routes if "/".join(_named(one).values()) == wanted), RouteKey("", wanted))
    texts = services.config.semantic.show_texts
    shown = [(one, found) for one in held.latest(kind, route) if (found := await _compared(services, one)) is not None]
    charted = held.pulse.busiest(_CHARTED) if route is None else [route]
    return {
        "texts": texts,
        "kind": kind,
        "counts": held.counts(),
        "routes": [_named(one) for one in routes[::-1]],
        "slot_s": held.pulse.width_s,
        "total": _columns(held.pulse.series()),
        "over_time": [{"route": _named(one), **_columns(held.pulse.series(one))} for one in charted],
        # Word by word is slow for long texts: not where requests wait for it.
        "latest": await asyncio.to_thread(lambda: [_shown(one, *found, texts=texts) for one, found in shown]),
    }


async def _compared(services: Services, one: Sighting) -> tuple[str, list[str]] | None:
    """The candidate's text, and the kinds of difference; None, and it is forgotten, where its entry is gone."""
    if one.against is not None:
        return one.against
    thread = services.thread
    if thread is None or not thread.loaded:
        return None
    candidate, now_s = one.candidate, services.state.clock.now_s()
    # One at a time, so that a look-up waits for one at most.
    found = await thread.run(
        lambda cache: cache.against(candidate.entry_key, one.route.name, one.text, candidate.cosine, now_s)
    )
    if found is None:
        services.semantic.lately.forget([candidate.entry_key])
    return found


def _shown(one: Sighting, stored: str, kinds: list[str], *, texts: bool) -> dict[str, Any]:
    from farthing.cache.differences import diff, differences  # only who asks needs it

    asked = normalise(one.text)
    against = [asdict(each) for each in differences(kinds, asked, stored)[:_KINDS_TOLD]]
    told = {
        "id": one.exchange_id,
        "at_s": one.at_s,
        "route": _named(one.route),
        "score": one.candidate.score,
        "cosine": one.candidate.cosine,
        "threshold": one.verdict.threshold,
        "bound": one.verdict.bound,
        "action": one.verdict.action.value,
        "reason": one.verdict.reason,
        "judged": one.judged,
        "asked_key": one.own_key[:_KEY_DIGITS],
        "stored_key": one.candidate.entry_key[:_KEY_DIGITS],
    }
    if not texts:
        return told | {"against": [{"kind": each["kind"]} for each in against]}
    parts = diff(asked, stored)
    return told | {"against": against, "asked": parts[0], "stored": parts[1]}


def _named(route: RouteKey) -> dict[str, str]:
    return {"tenant": route.tenant[:_TENANT_DIGITS], "name": route.name}


def _columns(slots: list[tuple[float, int, int]]) -> dict[str, list[float]]:
    return {name: [slot[at] for slot in slots] for at, name in enumerate(("start_s", "looked", "served"))}


async def texts(services: Services, entry_keys: Sequence[str]) -> Mapping[str, str]:
    """The prompts behind keys, as far as near-duplicates know them and `semantic.show_texts` lets them be shown."""
    thread = services.thread
    if not services.config.semantic.show_texts or thread is None or not thread.loaded:
        return {}
    return await thread.run(lambda cache: cache.texts(entry_keys))


async def explain(services: Services, asked: dict[str, Any]) -> dict[str, Any]:
    """The nearest entries to a request, their signals, and what the policy says of the best one.

    `asked`: {"path", "body", "headers"?} as a client would send them. Nothing is learnt. Raises ClientFault.
    """
    body, path = asked.get("body"), str(asked.get("path", "/v1/chat/completions"))
    headers = CIMultiDict({str(name): str(value) for name, value in dict(asked.get("headers") or {}).items()})
    endpoint = wire.endpoint_of("POST", path)
    if not isinstance(body, dict):
        raise ClientFault('the request must look like {"body": {...}}', param="body")
    tenant = services.admit.tenants.identify(wire.credential(headers)).tenant
    controls = wire.controls(CIMultiDictProxy(headers))
    place = neighbourhood(Scope(tenant, endpoint, path, services.config.upstream.identity, headers, controls), body)
    if isinstance(place, str):
        return {"verdict": place, "nearest": []}
    thread = services.thread
    places = services.semantic.places
    settled = places.settle(place, learn=False)
    reason = tool_result(body, endpoint) or places.refusal(settled)
    if reason or thread is None or not thread.loaded:
        return {"verdict": reason or "the semantic cache is off or not loaded yet", "nearest": []}
    return await _nearest(services, tenant, settled.place)


async def _nearest(services: Services, tenant: str, place: Place) -> dict[str, Any]:
    thread, stage = services.thread, services.semantic
    assert thread is not None
    now_s = services.state.clock.now_s()
    near = await thread.run(lambda cache: cache.explain(place.scope, place.route, place.text, now_s))
    route = RouteKey(tenant, place.route)
    state = stage.reuse.state_of(route)
    shown: dict[str, Any] = {"scope": place.scope, "route": place.route, "serving": bool(state and state.serving)}
    if place.divided:
        shown["varying"] = place.text
    if state is not None:
        shown |= {"threshold": state.threshold, "bound": state.bound, "needed": state.needed}
        shown |= {"proof": state.proof, "labels": state.labels, "own_labels": state.own_labels}
    if isinstance(near, str):
        return shown | {"verdict": near, "nearest": []}
    if not near:
        return shown | {"verdict": "no neighbour", "nearest": []}
    score = float(near[0]["score"])
    reason = state.reason if state is not None and state.reason else "not proved"
    if state is not None and state.proof and state.threshold is not None:
        passes = score >= state.threshold
        told = "would be served" if state.serving else "would be served if the mode were serve"
        reason = told if passes else "its score is below the proved threshold"
    if stage.second is not None and stage.band.holds(score):
        reason = f"its score would be put to {services.config.semantic.second_stage}, which is not asked here"
    told_apart = await asyncio.to_thread(lambda: [_told_apart(place.text, one) for one in near])
    needed = needs(services.config.semantic, state, score)
    return shown | {"verdict": reason, "needs": needed, "nearest": told_apart}


def _told_apart(text: str, near: dict[str, Any]) -> dict[str, Any]:
    from farthing.cache.differences import diff, differences

    asked, stored = normalise(text), near["text"]
    parts = diff(asked, stored, whole=True)
    against = [asdict(one) for one in differences(near["against"], asked, stored)]
    return near | {"against": against, "asked": parts[0], "stored": parts[1]}


def needs(semantic: Semantic, state: RouteState | None, score: float) -> list[str]:
    """What is still lacking for a candidate of this score to be served, in words; empty where it would be.

    `state`: its route's, None where nothing is known of it.
    """
    found = (
        [] if semantic.mode == "serve" else [f'semantic.mode = "serve": it is "{semantic.mode}", and serves nothing']
    )
    if semantic.policy == "vcache" and not semantic.unproven:
        return [*found, "labels of this very entry: the policy vcache learns for each one apart"]
    threshold = semantic.threshold if semantic.unproven else state.threshold if state is not None else None
    if not semantic.unproven and (state is None or not state.proof):
        if state is None or state.needed is None:
            why = state.reason if state is not None else "this route has had no candidate yet"
            why = why.removeprefix("choosing thresholds: ")
            found.append(f"thresholds, which the first comparisons choose ({why})")
        else:
            at_least = f" with a score of {threshold:.3f} or more" if threshold is not None else ""
            found.append(f"about {state.needed} more compared answers{at_least} that agree")
    if threshold is not None and score < threshold:
        found.append(f"a score of {threshold:.3f} or more: it is {score:.3f}")
    return found
