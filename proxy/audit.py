"""Asking the upstream again, in the background, what a near-duplicate had answered: the audit of a served hit.

An audit is no client's request: its row has the endpoint `audit` and carries its price as overhead, so that the sum of
cost and overhead over all rows is what the upstream charged.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableSet
from dataclasses import dataclass, field

from farthing.cache.flight import Flight
from farthing.cache.stage_exact import note_refusal
from farthing.policies.spend import DayTotal
from farthing.proxy.account import Account
from farthing.proxy.attribute import audit_money
from farthing.proxy.clock import Clock, Randomness, new_id
from farthing.proxy.errors import ClientFault, UpstreamFault
from farthing.proxy.exchange import CacheStatus, Call, Continue, Exchange, LocalReply, Outcome, Stage

__all__ = ["Auditor"]

_CARRIED = (
    *("credential", "tenant", "controls", "endpoint", "payload", "model", "stream", "asks_usage", "body", "exact"),
    *("policy", "config_id"),
)


@dataclass(slots=True)
class Auditor:
    """Makes audit calls through the stages that a miss goes through. `spent`: today; `limit_pico`: the most a day."""

    stages: tuple[Stage, ...]
    account: Account
    limit_pico: int
    hard_limit_pico: int | None
    buffer_bytes: int
    clock: Clock
    randomness: Randomness
    barred: MutableSet[str]
    spent: DayTotal = field(default_factory=DayTotal)

    def may(self, model: str) -> bool:
        """Whether another audit may be paid for; one of unknown price may not."""
        now_s = self.clock.now_s()
        if self.account.rates.rates(model, now_s) is None:
            return False
        within = self.spent.read(now_s) < self.limit_pico
        return within and (self.hard_limit_pico is None or self.account.total.read(now_s) < self.hard_limit_pico)

    async def ask(self, ex: Exchange) -> Call:
        """Ask the upstream what `ex` asked, and write the audit's row. Never raises for the upstream's sake."""
        now_s = self.clock.now_s()
        shadow = Exchange(new_id(now_s, self.randomness), ex.original, now_s, self.clock.tick_s())
        for name in _CARRIED:
            setattr(shadow, name, getattr(ex, name))
        call = shadow.call = Call(id=self.randomness.token(8))
        flight = shadow.sink = Flight(call, stream=ex.stream, limit_bytes=self.buffer_bytes)
        shadow.cache, shadow.cache_reason = CacheStatus.BYPASS, f"audit of {ex.id}"
        try:
            for stage in self.stages:
                verdict = stage.on_request(shadow)
                if not isinstance(verdict, Continue | LocalReply):
                    await verdict
            shadow.outcome = call.outcome = Outcome.COMPLETED
        except (UpstreamFault, ClientFault) as fault:
            shadow.outcome, shadow.error = Outcome.FAILED, fault.message
        except asyncio.CancelledError:
            shadow.outcome = Outcome.ABANDONED
            raise
        finally:
            note_refusal(self.barred, ex.credential, call.status)
            if call.answer is None:
                call.answer = flight.body()  # what came of it is billed
            shadow.status = call.status
            shadow.ended_tick = call.ended_tick = self.clock.tick_s()
            await self._settle(shadow, call)
        return call

    async def _settle(self, shadow: Exchange, call: Call) -> None:
        usage = await self.account.usage_of(shadow)
        money = audit_money(self.account.rates, call.model_served or shadow.model, usage, shadow.received_s)
        now_s = self.clock.now_s()
        if money.overhead:
            self.spent.add(money.overhead, now_s)
            self.account.total.add(money.overhead, now_s)
        if self.account.ledger is not None:
            self.account.ledger.append(self.account.row(shadow, usage, money)._replace(endpoint="audit"))
