"""Of a random share of the requests of each arm of a hold-out: does a fresh answer say what the client was told?

A fresh answer is the asked-for model's to the request as it came, with nothing stored, routed, shortened or marked. The
opinion is an outcome of the request, metric `fresh`: 1 where both say the same, 0 where they don't or that is in doubt.
Models contradict themselves too, so no arm's share says anything alone. Two arms' difference does: what the optimiser
that one of them is without does to answers.

Rules of this file:
1. Every arm is measured alike: the draw comes before anything is known of the request, whatever answers it then, and
   all arms share one instrument, the active policy's. Which requests can be asked again is a matter of the request.
2. In the background, after the client has its answer, within the money of the day's shadows.
3. What the comparison costs is nobody's: it isn't in the costs of an arm.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, replace
from typing import Any

import structlog

from farthing.policies.eligibility import Rules, eligible
from farthing.policies.outcome import FRESH, Outcome
from farthing.proxy.capture_record import answer_of
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.config import Config
from farthing.proxy.exchange import Endpoint, Exchange
from farthing.proxy.exchange import Outcome as Ended
from farthing.proxy.held import State
from farthing.proxy.outcomes import Outcomes
from farthing.proxy.shadow import Shadows

__all__ = ["Afresh", "open_afresh"]

log = structlog.get_logger("farthing.shadow")


@dataclass(frozen=True, slots=True)
class Afresh:
    """`rules`: what of a request may be asked again, whether or not an arm has a cache."""

    shadows: Shadows
    rules: Rules
    outcomes: Outcomes
    clock: Clock
    randomness: Randomness
    spawn: Callable[[Coroutine[Any, Any, None]], object]

    def draws(self, share: float) -> bool:
        """Whether the next request is one of the share."""
        return self.randomness.uniform() < share

    def ended(self, ex: Exchange) -> None:
        """A request that was drawn has its answer. Returns at once."""
        answer = answer_of(ex)
        if answer is None or ex.body is None or ex.status != 200 or ex.outcome is not Ended.COMPLETED:
            return
        if self._may_ask_again(ex) and self.shadows.may(ex):
            self.spawn(self._compare(ex, ex.body, answer))

    def _may_ask_again(self, ex: Exchange) -> bool:
        named = bool(ex.controls.route) or "|variant " in ex.lossy  # the client's own way is no optimiser's
        if not ex.optimise or named or ex.controls.only_if_cached or ex.endpoint is Endpoint.EMBEDDINGS:
            return False
        return eligible(ex.endpoint, ex.payload, ex.controls, self.rules, plain=ex.plain).store

    async def _compare(self, ex: Exchange, body: bytes, answer: bytes) -> None:
        call = await self.shadows.ask(ex, body, FRESH, unrouted=replace(ex.controls, route=""))
        worse = await self.shadows.differ(ex, answer, call)
        if worse is None:
            return
        now_s = self.clock.now_s()
        said = Outcome(ex.id, FRESH, 1.0 - worse, now_s, now_s, source=FRESH)
        try:
            await asyncio.to_thread(self.outcomes.put, [said])
        except (sqlite3.Error, OSError) as error:
            log.warning("a fresh answer's opinion can't be kept", id=ex.id, error=str(error))


def open_afresh(config: Config, held: State, shadows: Shadows) -> Afresh:
    """The instrument of one configuration."""
    rules = Rules(True, True, config.cache.remote_urls, config.cache.responses_never_chained)
    return Afresh(
        shadows, rules, held.outcomes, held.clock, held.randomness, lambda work: held.tasks.spawn(work, "shadow")
    )
