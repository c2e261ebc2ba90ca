"""Farthing's own calls upstream, in the background: their money, their books. An audit is one, a judgement another.

An errand is no client's request: its row has an endpoint of its own (`ERRANDS`) and carries its price as overhead, so
that the sum of cost and overhead over all rows is what the upstream charged.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableSet
from dataclasses import dataclass, field
from typing import Literal

from farthing.cache.flight import Flight
from farthing.cache.stage_exact import note_refusal
from farthing.policies.spend import DayTotal
from farthing.proxy.account import Account
from farthing.proxy.attribute import overhead_money
from farthing.proxy.clock import Clock, Randomness, new_id
from farthing.proxy.errors import ClientFault, UpstreamFault
from farthing.proxy.exchange import CacheStatus, Call, Continue, Exchange, LocalReply, Original, Outcome, Stage

__all__ = ["Errands"]


@dataclass(slots=True)
class Errands:
    """Makes calls of one kind through `stages`. `spent`: on them today; `limit_pico`: the most a day, which calls that
    are under way when it is reached may exceed by what they cost. `barred`: whom the upstream refuses; None where a
    refusal may mean the model, and says nothing of the credential."""

    kind: Literal["audit", "judge", "shadow", "warm"]
    stages: tuple[Stage, ...]
    account: Account
    limit_pico: int
    hard_limit_pico: int | None
    buffer_bytes: int
    clock: Clock
    randomness: Randomness
    barred: MutableSet[str] | None
    spent: DayTotal = field(default_factory=DayTotal)

    def may(self, model: str) -> bool:
        """Whether another call may be paid for; one of unknown price may not."""
        now_s = self.clock.now_s()
        if self.account.rates.rates(model, now_s) is None:
            return False
        within = self.spent.read(now_s) < self.limit_pico
        return within and (self.hard_limit_pico is None or self.account.total.read(now_s) < self.hard_limit_pico)

    def begin(self, original: Original) -> Exchange:
        """An exchange of farthing's own, for the caller to fill in."""
        now_s = self.clock.now_s()
        return Exchange(new_id(now_s, self.randomness), original, now_s, self.clock.tick_s())

    async def run(self, own: Exchange, reason: str) -> Call:
        """Make the call and write its row. Never raises for the upstream's sake."""
        call = own.call = Call(id=self.randomness.token(8))
        flight = own.sink = Flight(call, stream=own.stream, limit_bytes=self.buffer_bytes)
        own.cache, own.cache_reason = CacheStatus.BYPASS, reason
        own.hold = None  # what its client's request holds is not for this to end
        try:
            for stage in self.stages[:-1]:
                await _through(stage, own)
            await self._reserve(own)  # by now it is known whom it asks
            await _through(self.stages[-1], own)
            own.outcome = call.outcome = Outcome.COMPLETED
        except (UpstreamFault, ClientFault) as fault:
            own.outcome, own.error = Outcome.FAILED, fault.message
        except asyncio.CancelledError:
            own.outcome = Outcome.ABANDONED
            raise
        finally:
            if self.barred is not None and not call.elsewhere:
                note_refusal(self.barred, own.credential, call.status)
            if call.answer is None:
                call.answer = flight.body()  # what came of it is billed
            own.status = call.status
            own.ended_tick = call.ended_tick = self.clock.tick_s()
            await self._settle(own, call)
        return call

    async def _reserve(self, own: Exchange) -> None:
        """Raises ClientFault: a hard budget has no room for it."""
        if self.account.spending is not None:
            verdict = self.account.spending.reserve(own)
            if not isinstance(verdict, Continue | LocalReply):
                await verdict

    async def _settle(self, own: Exchange, call: Call) -> None:
        try:
            await self._book(own, call)
        finally:
            if own.hold is not None:
                self.account.end_hold(own, None)

    async def _book(self, own: Exchange, call: Call) -> None:
        usage = await self.account.usage_of(own)
        model, rates = call.model_served or own.model, self.account.rates
        money = overhead_money(rates, model, usage, own.received_s, call.upstream, call.others)
        now_s = self.clock.now_s()
        if own.hold is not None:
            self.account.end_hold(own, money.overhead if 200 <= call.status < 300 or call.silent else 0, usage)
        if money.overhead:
            self.spent.add(money.overhead, now_s)
            self.account.total.add(money.overhead, now_s)
        if self.account.ledger is not None:
            self.account.ledger.append(self.account.row(own, usage, money)._replace(endpoint=self.kind))


async def _through(stage: Stage, own: Exchange) -> None:
    verdict = stage.on_request(own)
    if not isinstance(verdict, Continue | LocalReply):
        await verdict
