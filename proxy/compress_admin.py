"""Compression seen from outside: what is on, what each rule saved, how far each route's proof has got."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from farthing.policies.reuse import RouteKey, RouteState
from farthing.proxy.compress_counts import MODES, RULES, CompressCounts, RouteCount
from farthing.proxy.compressing import Compressing, Track
from farthing.proxy.figures import saved_by_form
from farthing.proxy.report import dollars

if TYPE_CHECKING:
    from farthing.proxy.build import Services
    from farthing.proxy.dashboard import Dashboard

__all__ = ["told"]

_MOST_ROUTES = 100
_DAY_S = 86_400
_STEP = ("serving", "proof", "labels", "wrong", "bound", "needed", "epoch", "reason")
_NOTHING = RouteState(RouteKey("", ""), False, "", None, None, 0.0, 0.0, None, 0, 0, 0.0, "nothing compared yet")


async def told(services: Services, dashboard: Dashboard) -> dict[str, Any]:
    """All of it, routes by their latest use. Counts are since the start; dollars are of today (UTC), texts of every
    digit, None where the ledger can't be read or no price is known. No text of a prompt."""
    compress, held = services.config.compress, services.state
    now_s, counts = held.clock.now_s(), held.compressed
    try:
        saved = await dashboard.read(lambda conn: saved_by_form(conn, now_s // _DAY_S * _DAY_S, now_s + 1))
    except sqlite3.Error:
        saved = {}
    return {
        **compress.shown,
        "unproven": compress.unproven,
        "max_worse": compress.max_worse,
        "confidence": compress.confidence,
        "shadows_usd_today": held.shadowed.read(now_s) * 1e-12,
        "shadow_daily_usd": float(compress.shadow_daily_usd),
        "saved_usd_today": {form: None if pico is None else dollars(pico) for form, pico in saved.items()},
        "rules": _rules(counts),
        "left": dict(counts.left),
        **_routes(services.compress.beyond, counts),
    }


def _rules(counts: CompressCounts) -> list[dict[str, Any]]:
    """Those that did something, with what they did in each mode."""
    return [
        {"rule": rule}
        | {mode: {"tokens": counts.tokens[rule, mode], "texts": counts.texts[rule, mode]} for mode in MODES}
        for rule in RULES
        if any(counts.texts[rule, mode] or counts.tokens[rule, mode] for mode in MODES)
    ]


def _routes(beyond: Compressing | None, counts: CompressCounts) -> dict[str, Any]:
    """The routes met since the start, then those that only the evidence knows."""
    tracks = beyond.tracks if beyond is not None else ()
    known = dict.fromkeys(reversed(counts.routes))
    for track in tracks:
        known |= dict.fromkeys(track.chain.routes(_MOST_ROUTES))
    listed = [_route(route, tracks, counts.routes.get(route, RouteCount())) for route in [*known][:_MOST_ROUTES]]
    return {"count": len(known), "routes": listed}


def _route(route: RouteKey, tracks: Sequence[Track], count: RouteCount) -> dict[str, Any]:
    steps = [_step(name, state) for track in tracks for name, state in track.chain.states(route)]
    serves = ""
    for track in tracks:
        if track.serves and (proved := track.chain.proved(route)):
            serves = track.forms[proved - 1].name
    return {
        "route": {"tenant": route.tenant[:8], "name": route.name},
        "serves": serves,
        "tokens": asdict(count),
        "steps": steps,
    }


def _step(name: str, state: RouteState | None) -> dict[str, Any]:
    return {"name": name} | {field: getattr(state or _NOTHING, field) for field in _STEP}
