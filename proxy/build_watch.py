"""Whom the watch, the service levels and the policies tell: the webhook, and the incident log."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial
from typing import Any

import structlog

from farthing.policies.outcome import Outcome
from farthing.policies.reuse import Policy, RouteKey
from farthing.policies.verified import TakesBack
from farthing.policies.watch import Alarm
from farthing.proxy.alerts import Webhook
from farthing.proxy.config import Config
from farthing.proxy.held import State
from farthing.proxy.levels import Burn
from farthing.proxy.watching import threadsafe

__all__ = ["keep_audit", "open_watch", "tell_when_taken_back"]

log = structlog.get_logger("farthing")

_TENANT_DIGITS = 8


def open_watch(config: Config, held: State) -> None:
    """Let the watch and the service levels go on under `config`, and tell of their alarms as it says."""
    webhook = Webhook(config.alerts, held.clock, lambda call: held.tasks.spawn(call, "alert"), config.upstream.name)

    held.levels.on_burn = threadsafe(asyncio.get_running_loop(), partial(_burns, held, webhook))
    held.levels.use(config.service_levels if held.keeper else ())
    if held.watch is None:
        return
    held.watch.use(config.watch, config.semantic.model)

    def tell(alarm: Alarm) -> None:
        evidence = {name: getattr(alarm, name) for name in ("series", "slice", "was", "limit", "now", "psi")}
        webhook.send({"event": "drift", "what": alarm.what, "warns": list(alarm.warns), **evidence})
        where = f"{alarm.series} of {alarm.slice}"
        told = evidence | {"warns": list(alarm.warns)}
        held.incidents.note("drift", where, alarm.what, told, alert=False)  # an event of its own has told it

    held.watch.on_alarm = threadsafe(asyncio.get_running_loop(), tell)


def tell_when_taken_back(held: State, policies: dict[str, Policy]) -> None:
    """Note it where a route of one of these optimisers goes back to observing by itself."""
    for optimiser, policy in policies.items():
        if isinstance(policy, TakesBack):
            policy.on_taken_back = partial(_taken_back, held, optimiser)


def keep_audit(held: State, exchange_id: str, wrong: bool) -> None:
    """Keep what an audit said of a served answer as an outcome, `audit`: 1 for right, 0 for wrong."""
    now_s = held.clock.now_s()
    said = Outcome(exchange_id, "audit", float(not wrong), now_s, now_s, source="audit")

    async def keep() -> None:
        try:
            await asyncio.to_thread(held.outcomes.put, [said])
        except (sqlite3.Error, OSError) as error:
            log.warning("an audit's verdict can't be kept", fault=type(error).__name__)

    held.tasks.spawn(keep(), "audit outcome")


def _burns(held: State, webhook: Webhook, burn: Burn) -> None:
    about = {"level": burn.level, "target": burn.kind, "speed": burn.speed}
    webhook.send({"event": "service_level", "burning": burn.begins, "what": burn.what, **about, **burn.evidence})
    told = {**about, **burn.evidence}
    held.incidents.note("service level", f"{burn.kind} of {burn.level}", burn.what, told, alert=False)  # as above


def _taken_back(held: State, optimiser: str, route: RouteKey, why: str, evidence: dict[str, Any]) -> None:
    tenant, _, step = route.tenant.partition("#")
    where = {"tenant": tenant[:_TENANT_DIGITS], "route": route.name} | ({"step": step} if step else {})
    held.incidents.note("observe", f"{optimiser} went back to observing", why, where | evidence)
