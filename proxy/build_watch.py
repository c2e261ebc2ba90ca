"""Whom the watch and the policies tell: the webhook, and the incident log."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any

from farthing.policies.reuse import Policy, RouteKey
from farthing.policies.verified import Verified
from farthing.policies.watch import Alarm
from farthing.proxy.alerts import Webhook
from farthing.proxy.config import Config
from farthing.proxy.held import State
from farthing.proxy.watching import threadsafe

__all__ = ["open_watch", "tell_when_taken_back"]

_TENANT_DIGITS = 8


def open_watch(config: Config, held: State) -> None:
    """Let the watch go on under `config`, and tell of its alarms as `config` says."""
    if held.watch is None:
        return
    held.watch.use(config.watch, config.semantic.model)
    webhook = Webhook(config.alerts, held.clock, lambda call: held.tasks.spawn(call, "alert"), config.upstream.name)

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
        if isinstance(policy, Verified):
            policy.on_taken_back = partial(_taken_back, held, optimiser)


def _taken_back(held: State, optimiser: str, route: RouteKey, why: str, evidence: dict[str, Any]) -> None:
    tenant, _, step = route.tenant.partition("#")
    where = {"tenant": tenant[:_TENANT_DIGITS], "route": route.name} | ({"step": step} if step else {})
    held.incidents.note("observe", f"{optimiser} went back to observing", why, where | evidence)
