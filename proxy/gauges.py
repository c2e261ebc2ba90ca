"""Values of the moment for /metrics, by metric name without prefix; metrics.py says what each means.

Rules of this file: asked for at every scrape, on the event loop, so nothing here waits; what can't be told is left out.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from farthing.cache.store import StoreStats
from farthing.proxy import spend_admin
from farthing.proxy.capture_admin import gauges as capture_gauges
from farthing.proxy.pool_admin import gauges as replica_gauges
from farthing.proxy.semantic_admin import MOST_ROUTES

if TYPE_CHECKING:
    from farthing.proxy.build import Services
    from farthing.proxy.held import State
    from farthing.proxy.otlp import Otlp

__all__ = ["gauges"]


def gauges(services: Services, store: StoreStats | None) -> dict[str, float]:
    """All of them. `store`: what it said just now; None where it couldn't."""
    held = services.state
    ledger, breaker, tick_s = held.ledger, services.pipeline.breaker, held.clock.tick_s()
    found: dict[str, float] = {
        "in_flight_requests": held.in_flight.here,
        "ledger_pending_rows": ledger.pending if ledger else 0,
        "ledger_dropped_rows": ledger.dropped if ledger else 0,
        "ledger_aside_files": len(ledger.aside) if ledger else 0,
        "ledger_healthy": ledger is None or ledger.healthy,
        "store_healthy": store is not None and store.healthy,
        "semantic_entries": services.thread.entries if services.thread else 0,
        "optimisation_off": held.switch(),
        "stages_left_out": sum(until > tick_s for until in breaker.open_until.values()),
        **dict(held.compressed.values()),
        **dict(held.prompts.values()),
        **{f"stage_errors:{name}": count for name, count in services.pipeline.stage_errors.items()},
    }
    if store is not None:
        found |= {"store_entries": store.entries, "store_bytes": store.bytes}
    found |= {} if held.watch is None else held.watch.gauges()
    found |= held.levels.gauges()
    if services.thread is not None and services.thread.shared is not None:
        found |= services.thread.shared.gauges()
    found |= {} if held.agreement is None else held.agreement.gauges()
    found |= capture_gauges(held.capture) | _drift(held) | replica_gauges(services)
    found |= _routes(services)
    return found | _spend(services) | _near_duplicates(services) | _telemetry(held.otlp)


def _routes(services: Services) -> dict[str, float]:
    """Of routes with a bound, whether they serve, and what their shadows prove."""
    found: dict[str, float] = {}
    for name, one in ({} if services.routing is None else services.routing.bounds()).items():
        found[f"route_serving:{name}"] = float(one["state"] == "serves")
        found[f"route_max_worse_ratio:{name}"] = one["max_worse"]
        found[f"route_upper_ratio:{name}"] = one["at_most"]
    return found


def _drift(held: State) -> dict[str, float]:
    """How far our count of tokens is from the provider's, and whether that is alarming, by model."""
    found: dict[str, float] = {}
    for model, ratio in held.drift.ratios(held.clock.now_s()).items():
        for direction, share in (("in", ratio.tokens_in), ("out", ratio.tokens_out)):
            if share is not None:
                found[f"usage_drift_ratio:{direction}:{model}"] = share
        found[f"usage_drift_alarm:{model}"] = float(ratio.alarm)
    return found


def _spend(services: Services) -> dict[str, float]:
    held, limit = services.state, services.config.spend.daily_usd
    found = {"spend_today_usd": held.total.read(held.clock.now_s()) * 1e-12}
    if limit is not None:
        found["spend_limit_usd"] = float(limit)
    return found | spend_admin.gauges(services)


def _near_duplicates(services: Services) -> dict[str, float]:
    """The promise and how it is kept, by the routes used last. Two hundred of them take a millisecond."""
    policy, semantic = services.semantic.reuse, services.config.semantic
    found: dict[str, float] = {"semantic_routes": policy.count}
    if not policy.count:
        return found
    states = policy.state(MOST_ROUTES)
    bounds = [state.bound for state in states if state.serving and state.bound is not None]
    found |= {
        "semantic_routes_serving": sum(state.serving for state in states),
        "semantic_rollbacks": sum(state.taken_back for state in states),
        "semantic_drift_ratio": max(state.drift for state in states),
        "semantic_max_wrong_ratio": semantic.max_wrong,
    }
    return found | ({"semantic_bound_ratio": max(bounds)} if bounds else {})


def _telemetry(otlp: Otlp | None) -> dict[str, float]:
    if otlp is None:
        return {}
    return {"otlp_pending_spans": otlp.pending, "otlp_healthy": otlp.healthy, "otlp_dropped": otlp.dropped}
