"""Of a share of routed answers it is asked what the model that was asked for would have said, and how alike that is.

In the background, after the client has its answer, and within a day's money: nobody waits for it. The opinion is an
outcome of the request, metric `shadow`: 1 where both say the same, 0 where they don't or that is in doubt.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import structlog

from farthing.policies.outcome import Outcome
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.exchange import Exchange
from farthing.proxy.outcomes import Outcomes
from farthing.proxy.shadow import Shadows

__all__ = ["SHADOW", "RouteShadow"]

log = structlog.get_logger("farthing.shadow")

SHADOW = "shadow"


@dataclass(slots=True)
class RouteShadow:
    """`share`: of answers that a route had made by another model than was asked for."""

    shadows: Shadows
    share: float
    outcomes: Outcomes
    clock: Clock
    randomness: Randomness
    spawn: Callable[[Coroutine[Any, Any, None]], object]

    def ended(self, ex: Exchange) -> None:
        """A request that a route had somebody else answer has its answer. Returns at once."""
        if not ex.leads or ex.body is None:
            return
        if self.randomness.uniform() < self.share and self.shadows.may(ex):
            self.spawn(self._compare(ex, ex.body))

    async def _compare(self, ex: Exchange, body: bytes) -> None:
        if not self.shadows.comparable(ex):
            return  # an upstream in trouble isn't asked once more
        controls = replace(ex.controls, route="")
        worse = await self.shadows.worse(ex, await self.shadows.ask(ex, body, "unrouted", controls), ex.call)
        if worse is None:
            return
        now_s = self.clock.now_s()
        said = Outcome(ex.id, SHADOW, 1.0 - worse, now_s, now_s, source=SHADOW)
        try:
            await asyncio.to_thread(self.outcomes.put, [said])
        except (sqlite3.Error, OSError) as error:
            log.warning("a shadow's opinion can't be kept", id=ex.id, error=str(error))
