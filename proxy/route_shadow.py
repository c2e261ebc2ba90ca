"""Of a share of routed answers it is asked what the model that was asked for would have said, and how alike that is.

In the background, after the client has its answer, and within a day's money: nobody waits for it. The opinion is an
outcome of the request, metric `shadow`: 1 where both say the same, 0 where they don't or that is in doubt. The watch
sees it as a judge's score, and a route with a bound (route_standing.py) is judged by it. Of one that observes it is
asked what the route would have said.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import structlog

from farthing.policies.outcome import Outcome
from farthing.policies.routes import Route
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.exchange import Call, Exchange
from farthing.proxy.outcomes import Outcomes
from farthing.proxy.routing import Plan, Routing
from farthing.proxy.shadow import Shadows
from farthing.proxy.watching import Watching

__all__ = ["SHADOW", "RouteShadow"]

log = structlog.get_logger("farthing.shadow")

SHADOW = "shadow"


@dataclass(slots=True)
class RouteShadow:
    """`share`: of answers that a route had made by another model than was asked for. `watch`: None where none is."""

    shadows: Shadows
    share: float
    routing: Routing
    outcomes: Outcomes
    clock: Clock
    randomness: Randomness
    spawn: Callable[[Coroutine[Any, Any, None]], object]
    watch: Watching | None = None

    def ended(self, ex: Exchange) -> None:
        """A request that a route had somebody else answer has its answer. Returns at once."""
        if self._drawn(ex) and ex.body is not None:
            self.spawn(self._compare(ex, ex.body))

    def held_back(self, ex: Exchange, plan: Plan) -> None:
        """A request that would go this way, did its route with a bound not observe, has its answer."""
        if self._drawn(ex) and ex.body is not None:
            self.spawn(self._compare_way(ex, ex.body, plan))

    def _drawn(self, ex: Exchange) -> bool:
        return ex.leads and ex.body is not None and self.randomness.uniform() < self.share and self.shadows.may(ex)

    async def _compare(self, ex: Exchange, body: bytes) -> None:
        if not self.shadows.comparable(ex):
            return  # an upstream in trouble isn't asked once more
        controls = replace(ex.controls, route="")
        asked = await self.shadows.ask(ex, body, "unrouted", unrouted=controls)
        worse = await self.shadows.worse(ex, asked, ex.call)
        if worse is None:
            return
        self._learned(ex.led, worse)
        if self.watch is not None:
            self.watch.judged(1.0 - worse, (f"tenant:{ex.tenant[:8]}",))
        now_s = self.clock.now_s()
        said = Outcome(ex.id, SHADOW, 1.0 - worse, now_s, now_s, source=SHADOW)
        try:
            await asyncio.to_thread(self.outcomes.put, [said])
        except (sqlite3.Error, OSError) as error:
            log.warning("a shadow's opinion can't be kept", id=ex.id, error=str(error))

    async def _compare_way(self, ex: Exchange, body: bytes, plan: Plan) -> None:
        """No outcome of the request, whose own answer was as it was asked for; and nothing where the route itself came
        to the asked-for model."""
        if not self.shadows.comparable(ex):
            return
        routed: Call = await self.shadows.ask(ex, body, "routed", plan=plan)
        worse = await self.shadows.worse(ex, ex.call, routed)
        if worse is not None and self.routing.elsewhere(ex.model, routed):
            self._learned(plan.route, worse)

    def _learned(self, route: Route | None, worse: float) -> None:
        if route is not None and self.routing.standings is not None:
            self.routing.standings.learned(route, worse=worse >= 0.5)
