"""One leg of a routed request: an attempt at a variant, what stands between it and the client, and its books.

Rules of this file:
1. Whatever was paid for is booked: an answer that doesn't serve goes into `Call.others`, and stands in its attempt.
2. The attempt that serves is the last one in `Call.attempts`: a leg that serves is merged after those that don't.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from farthing.policies.cascade import Leg
from farthing.policies.fallback import of_answer, of_fault
from farthing.policies.variant import DEFAULT_UPSTREAM, Variant
from farthing.proxy.branch import branch
from farthing.proxy.budgets import Spending
from farthing.proxy.budgets_hold import Share
from farthing.proxy.errors import ClientFault, FarthingError, UpstreamFault
from farthing.proxy.exchange import Billed, Call, Exchange, Quiet, Verdict
from farthing.proxy.leg_sink import Gate, Held, Race
from farthing.proxy.routing import Routing
from farthing.proxy.tasks import through
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource

__all__ = ["Carriers", "Legs", "Tried"]


class Carriers:
    """Who carries a request to the upstream that a variant names. A pool of replicas may stand behind each."""

    def __init__(self, default: Quiet, others: Mapping[str, Quiet]) -> None:
        self._by_name = {DEFAULT_UPSTREAM: default} | dict(others)

    def carry(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Send the exchange to where `ex.variant` says. Raises UpstreamFault."""
        upstream = DEFAULT_UPSTREAM if ex.variant is None else ex.variant.upstream
        return self._by_name[upstream].on_request(ex)


@dataclass(slots=True)
class Tried:
    """One leg's attempt. `own`: its exchange, `call`: that one's. `fault`: where no answer came, or it broke off.

    `asks`: another question than the client's. `share`: of what the request holds.
    """

    leg: Leg
    own: Exchange
    call: Call
    sink: Held
    fault: FarthingError | None = None
    task: asyncio.Task[None] | None = None
    asks: Mapping[str, Any] | None = None
    share: Share = field(default_factory=Share)

    @property
    def work(self) -> asyncio.Task[None]:
        """The task that it runs in, of those that race."""
        assert self.task is not None
        return self.task

    @property
    def passed(self) -> bool:
        """Whether its answer has begun to go on."""
        return isinstance(self.sink, Gate) and self.sink.passed

    @property
    def failure(self) -> str:
        """The class of its failure."""
        if isinstance(self.fault, UpstreamFault):
            return of_fault(self.fault)
        return of_answer(self.sink.status, self.sink.body() or b"")

    @property
    def said(self) -> str:
        """Its failure in words."""
        if isinstance(self.fault, ClientFault):
            return self.fault.code
        return self.failure or (f"status {self.sink.status}" if self.fault is None else "fault")


@dataclass(frozen=True, slots=True)
class Legs:
    """Makes legs and keeps their books. `limit_bytes`: of an answer that is held back.

    `spending`: where each leg has to find room; None: no budget is set.
    """

    carriers: Carriers
    routing: Routing
    tokenizer: Tokenizer
    limit_bytes: int
    spending: Spending | None = None

    def gated(self, ex: Exchange, leg: Leg, *, holds: bool, race: Race | None = None) -> Tried:
        """A leg whose answer goes on to the client, unless it is a failure and another leg is left (`holds`)."""
        assert ex.sink is not None
        gate = Gate(self.limit_bytes, ex.sink, holds=holds, race=race)
        tried = self._leg(ex, leg, gate)
        gate.passes = partial(self.serves, ex, tried)
        return tried

    async def held(self, ex: Exchange, variant: Variant, asks: Mapping[str, Any] | None = None) -> Tried:
        """The variant's whole answer, held back. `asks`: another question than the client's."""
        tried = self._leg(ex, variant, Held(self.limit_bytes))
        if asks is not None:
            tried.asks, tried.own.body = asks, orjson.dumps(asks)
            tried.own.body_out = tried.own.body
            tried.own.stream, tried.own.retrieval = False, None
        try:
            await self.carry(tried)
        except asyncio.CancelledError:
            await self.beside(ex, tried)  # what came of it is billed
            raise
        return tried

    def _leg(self, ex: Exchange, leg: Leg, sink: Held) -> Tried:
        assert ex.sink is not None
        sink.task = ex.sink.task
        own = branch(ex, sink)
        own.variant, own.plan = leg, None
        own.retrieval, own.compress, own.shortening = ex.retrieval, ex.compress, ex.shortening
        assert own.call is not None
        return Tried(leg, own, own.call, sink)

    async def carry(self, tried: Tried) -> None:
        """Make the attempt; what it failed with stands in it."""
        clock, own = self.routing.clock, tried.own
        call = tried.call
        try:
            try:
                await self._find_room(tried)
            except ClientFault as fault:
                tried.fault = fault  # nobody was asked
                return
            begun_tick = clock.tick_s()
            try:
                verdict = self.carriers.carry(own)
                if isinstance(verdict, Awaitable):
                    await verdict
            except FarthingError as fault:
                tried.fault = fault
        finally:  # hung up, it may not have been billed either
            if self.spending is not None and not (200 <= call.status < 300 or call.earlier or call.silent):
                self.spending.unbilled(own, tried.share)
        variant = tried.leg or self.routing.plain(own.model)
        if variant is None:
            return
        speed = self.routing.speed(variant)
        if 200 <= call.status < 300 and tried.fault is None:
            speed.answered((call.first_byte_tick or clock.tick_s()) - begun_tick, clock.tick_s())
            if call.usage is not None:
                speed.said(call.usage.tokens_out)
        elif tried.fault is not None or call.status == 429 or call.status >= 500:
            speed.failed_tick = clock.tick_s()

    async def _find_room(self, tried: Tried) -> None:
        """Raises ClientFault: a hard budget has none for this leg too."""
        if self.spending is not None:
            verdict = self.spending.another(tried.own, tried.asks, tried.share)
            if isinstance(verdict, Awaitable):
                await verdict

    def serves(self, ex: Exchange, tried: Tried) -> None:
        """From here on this leg's answer is the client's."""
        self.show(ex, tried)
        ex.variant = tried.leg

    @staticmethod
    def show(ex: Exchange, tried: Tried) -> None:
        """Its head is what the client sees."""
        call, own = ex.call, tried.call
        assert call is not None
        call.head, call.event_stream, call.usage_injected = own.head, own.event_stream, own.usage_injected
        call.elsewhere = tried.leg is not None and tried.leg.upstream != DEFAULT_UPSTREAM
        call.first_byte_tick = own.first_byte_tick

    def finish(self, ex: Exchange, tried: Tried) -> None:
        """The serving leg has ended, in whatever way."""
        self.merge(ex, tried)
        self.told(ex, tried)

    def told(self, ex: Exchange, tried: Tried) -> None:
        """What it says is what the client's request was answered with."""
        call, own = ex.call, tried.call
        assert call is not None
        call.usage, call.earlier, call.tier = own.usage, own.earlier, own.tier
        call.answer, call.value, call.complete = own.answer, own.value, own.complete
        call.first_byte_tick, call.upstream = own.first_byte_tick, own.upstream
        call.model_served = self._model(tried)
        if tried.own.retrieval is not ex.retrieval:  # its upstream took no tool of ours
            ex.retrieval, ex.body_out = tried.own.retrieval, tried.own.body_out
            ex.compress, ex.shortening = tried.own.compress, tried.own.shortening
        ex.marked = tried.own.marked
        ex.decisions.extend(tried.own.decisions)

    def _model(self, tried: Tried) -> str:
        served = tried.call.model_served
        return served or tried.own.model if tried.leg is None else self.routing.priced_name(tried.leg, served)

    @staticmethod
    def merge(ex: Exchange, tried: Tried) -> None:
        """Its attempts are the client's."""
        call, own = ex.call, tried.call
        assert call is not None
        for attempt in own.attempts:
            attempt.variant = "" if tried.leg is None else tried.leg.name
        call.attempts += own.attempts
        call.upstream = own.upstream
        call.started_tick = call.started_tick or own.started_tick

    async def beside(self, ex: Exchange, tried: Tried) -> None:
        """An attempt whose answer doesn't serve: what it was billed with is booked apart. Of a silent one that is
        its prompt's price (`Call.silent`), and the row is modelled. A client that leaves meanwhile changes nothing."""
        self.merge(ex, tried)
        own = tried.call
        if not own.attempts or not (own.silent or 200 <= own.status < 300):
            return
        if own.usage is not None:
            self._billed(ex, tried, own.usage)
        else:
            await through(self._counts(ex, tried))

    async def _counts(self, ex: Exchange, tried: Tried) -> None:
        self._billed(ex, tried, await asyncio.to_thread(self._counted, tried))

    def _billed(self, ex: Exchange, tried: Tried, usage: Usage) -> None:
        call, own = ex.call, tried.call
        assert call is not None
        others = [Billed(self._model(tried), one, own.upstream) for one in (*own.earlier, usage)]
        call.others += others
        answered = own.attempts[-1:] if own.silent else [one for one in own.attempts if 200 <= one.status < 300]
        for attempt, other in zip(answered[-len(others) :], others, strict=False):
            attempt.billed = other

    def _counted(self, tried: Tried) -> Usage:
        """By our own count: what was sent, and what had come back."""
        own, model = tried.own, tried.leg.model if tried.leg is not None else tried.own.model
        body = own.body_out if own.body_out is not None else own.body
        tokenizer = self.tokenizer.of(own.tenant)
        given = tokenizer.count_request(own.endpoint, orjson.loads(body or b"{}"), model)
        answer = tried.call.answer or tried.sink.body()
        made = tokenizer.count_text_out(own.endpoint, answer, model) if answer else 0
        return Usage(fresh=given, output=made, source=UsageSource.COUNTED, tier=tried.call.tier)
