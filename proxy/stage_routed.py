"""The upstream stage where routes are: asks variants in turn, or several, until one's answer may go on to the client.

What an attempt does is the upstream stage's, of the upstream that the variant names; here stands between it and the
client what holds an answer back until it is known whether it serves.

Rules of this file:
1. Nothing is asked again once the client has the first byte.
2. Whatever was paid for is booked: an answer that doesn't serve goes into `Call.others`, and stands in its attempt.
3. The attempt that serves is the last one in `Call.attempts`.
4. A call that isn't wanted any more is hung up at once, and ends before this stage does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from farthing.cache.reshape import assemble
from farthing.policies.accept import Accept, consistent, judge_question, refused, spoken
from farthing.policies.cascade import Course, Leg, after_failure, course
from farthing.policies.fallback import of_answer, of_fault
from farthing.policies.judge import probability
from farthing.policies.routes import Route
from farthing.policies.variant import DEFAULT_UPSTREAM, Variant
from farthing.proxy.branch import branch
from farthing.proxy.errors import FarthingError, UpstreamFault
from farthing.proxy.exchange import GO_ON, Billed, Call, Endpoint, Exchange, Quiet, Verdict
from farthing.proxy.leg_sink import Gate, Held, Race
from farthing.proxy.routing import Plan, Routing
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource

__all__ = ["Carriers", "RoutedStage"]

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]
_OFF_LOOP_BYTES = 65_536
_MOST_JUDGED_CHARS = 16_000
_SURE = 0.5  # of a judge's yes


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
    """One leg's attempt. `own`: its exchange, `call`: that one's. `fault`: where no answer came, or it broke off."""

    leg: Leg
    own: Exchange
    call: Call
    sink: Held
    fault: FarthingError | None = None
    task: asyncio.Task[None] | None = None

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
        return self.failure or (f"status {self.sink.status}" if self.fault is None else "fault")


@dataclass(slots=True)
class RoutedStage(Quiet):
    """Round the upstream stages. `limit_bytes`: of an answer that is held back."""

    carriers: Carriers
    routing: Routing
    tokenizer: Tokenizer
    limit_bytes: int
    spawn: Spawn
    name: str = field(default="upstream", init=False)
    hard: bool = field(default=True, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Ask whom the plan names. Raises what the upstream stage raises, of the last leg."""
        plan: Plan | None = ex.plan
        if plan is None or not plan.serves or plan.choice is None or not plan.choice.order:
            return self.carriers.carry(ex)
        ex.plan = None  # it is taken: whoever asks this again asks whom it led to
        way = course(plan.route, plan.choice.order, plan.facts.needs, ex.model, stream=ex.stream)
        return self._take(ex, plan.route, way)

    async def _take(self, ex: Exchange, route: Route | None, way: Course) -> Verdict:
        assert ex.call is not None
        for variant in way.tries:
            assert route is not None
            if await self._tried(ex, variant, route.accept):
                return GO_ON
        await self._chain(ex, route, way.chain)
        return GO_ON

    # -- a cascade's tries

    async def _tried(self, ex: Exchange, variant: Variant, accept: Accept) -> bool:
        """Whether the variant's answer is accepted, and has gone on to the client."""
        tried = await self._held(ex, variant)
        answered = tried.fault is None and tried.sink.status == 200
        try:
            reason = await self._refused(ex, tried, accept) if answered else tried.said
        except asyncio.CancelledError:
            await self._beside(ex, tried)
            raise
        if reason:
            ex.decide("route", "escalated", f"{variant.name}: {reason}")
            await self._beside(ex, tried)
            return False
        ex.decide("route", "accepted", variant.name)
        self._serves(ex, tried)
        try:
            await tried.sink.release(ex.sink)
        finally:
            self._finish(ex, tried)
        return True

    async def _refused(self, ex: Exchange, tried: Tried, accept: Accept) -> str:
        payload, answer = ex.payload, self._whole(tried)
        assert payload is not None
        if answer is None:
            return "too long, or not to be read"
        check = partial(refused, accept, answer, payload)
        try:
            reason = await asyncio.to_thread(check) if len(answer) > _OFF_LOOP_BYTES else check()
        except Exception as error:  # noqa: BLE001 - an answer that can't be checked isn't accepted
            return f"the check failed: {type(error).__name__}"
        if not reason and accept.agree > 1:
            reason = await self._inconsistent(ex, tried, answer, accept.agree)
        if not reason and accept.judge:
            reason = await self._misjudged(ex, answer, self.routing.variants[accept.judge])
        return reason

    async def _inconsistent(self, ex: Exchange, tried: Tried, answer: bytes, samples: int) -> str:
        """Ask the same variant again: do all say the same?"""
        assert isinstance(tried.leg, Variant)
        answers = [answer]
        for _ in range(samples - 1):
            again = await self._held(ex, tried.leg)
            other = self._whole(again) if again.sink.status == 200 and again.fault is None else None
            await self._beside(ex, again)
            if other is None:
                return "another sample failed"
            answers.append(other)
        alike = await asyncio.to_thread(consistent, answers)
        return "" if alike else f"{samples} samples differ"

    async def _misjudged(self, ex: Exchange, answer: bytes, judge: Variant) -> str:
        assert ex.payload is not None
        if ex.endpoint is not Endpoint.CHAT:
            return "judges are asked of chat completions only"
        asked = spoken(ex.payload)
        if len(asked) + len(answer) > _MOST_JUDGED_CHARS:
            return "too long to be judged"
        question = orjson.dumps(judge_question(judge.model, asked, answer))
        judged = await self._held(ex, judge, question)
        value = judged.call.value if judged.fault is None and judged.sink.status == 200 else None
        await self._beside(ex, judged)
        return "" if value is not None and probability(value) > _SURE else "the judge says no"

    async def _held(self, ex: Exchange, variant: Variant, body: bytes | None = None) -> Tried:
        """The variant's whole answer, held back. `body`: another question than the client's."""
        tried = self._leg(ex, variant, Held(self.limit_bytes))
        if body is not None:
            tried.own.body = tried.own.body_out = body
            tried.own.stream, tried.own.retrieval = False, None
        try:
            await self._carry(tried)
        except asyncio.CancelledError:
            await self._beside(ex, tried)  # what came of it is billed
            raise
        return tried

    def _whole(self, tried: Tried) -> bytes | None:
        """The answer as one JSON value, if it is complete."""
        call = tried.call
        if not call.complete or call.answer is None or tried.sink.overflown:
            return None
        return assemble(call.answer, tried.own.endpoint) if call.event_stream else call.answer

    # -- a chain of legs

    async def _chain(self, ex: Exchange, route: Route | None, chain: tuple[Leg, ...]) -> None:
        """Ask in turn until an answer goes on. Raises what the asked-for model's leg raises, where all fail."""
        on: frozenset[str] = frozenset() if route is None else route.on
        if route is not None:
            self.routing.allowance(route).earn()
        place: int | None = 0
        asked: Tried | None = None  # the asked-for model's own failure: what is shown where nothing else helps
        while place is not None:
            leg = chain[place]
            last = asked is None and place == len(chain) - 1
            if route is not None and route.hedge_after_s and place == 0:
                tried = await self._hedged(ex, route, chain, holds=not last)
            else:
                tried = await self._alone(ex, leg, holds=not last)
            if tried.passed:
                if tried.fault is not None:
                    raise tried.fault
                return
            self._merge(ex, tried)
            if last and tried.fault is not None:
                raise tried.fault
            ex.decide("route", "failed", f"{_name(leg)}: {tried.said}")
            asked = tried if leg is None else asked
            place = after_failure(chain, place, tried.failure, on)
        assert asked is not None
        if asked.fault is not None:
            raise asked.fault
        self._show(ex, asked)
        await asked.sink.release(ex.sink)
        self._told(ex, asked)

    async def _alone(self, ex: Exchange, leg: Leg, *, holds: bool) -> Tried:
        tried = self._gated(ex, leg, holds=holds)
        try:
            await self._carry(tried)
        except asyncio.CancelledError:
            if not tried.passed:
                self._merge(ex, tried)
            raise
        finally:
            if tried.passed:
                self._finish(ex, tried)
        return tried

    async def _hedged(self, ex: Exchange, route: Route, chain: tuple[Leg, ...], *, holds: bool) -> Tried:
        """The first leg, and a second call beside it where the first doesn't answer in time: whichever answers first.

        The second is the route's first fallback, else the same variant once more.
        """
        race = Race()
        legs = [self._racing(ex, chain[0], race, holds=holds)]
        try:
            await race.wait(legs[0].work, route.hedge_after_s)
            if race.open and self.routing.allowance(route).take():
                other = chain[1] if len(chain) > 1 and chain[1] is not None else chain[0]
                ex.decide("route", "hedged", f"{_name(chain[0])} said nothing in {route.hedge_after_s * 1000:.0f} ms")
                legs.append(self._racing(ex, other, race, holds=holds))
            while race.winner is None and (running := [leg.work for leg in legs if not leg.work.done()]):
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await next((leg for leg in legs if leg.sink is race.winner), legs[0]).work
        finally:
            await self._end(legs)
            shown = next((leg for leg in legs if leg.sink is race.winner), legs[0])
            for leg in legs:
                if leg is not shown:
                    _cancelled(leg)
                    await self._beside(ex, leg)
            if shown.passed:
                self._finish(ex, shown)
        return shown

    def _racing(self, ex: Exchange, leg: Leg, race: Race, *, holds: bool) -> Tried:
        tried = self._gated(ex, leg, holds=holds, race=race)
        tried.task = tried.sink.task = race.tasks[tried.sink] = self.spawn(self._carry(tried))
        return tried

    @staticmethod
    async def _end(legs: list[Tried]) -> None:
        """Hang up what is still under way, and wait until it has ended."""
        running = [leg.work for leg in legs if not leg.work.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)

    # -- one leg

    def _gated(self, ex: Exchange, leg: Leg, *, holds: bool, race: Race | None = None) -> Tried:
        """A leg whose answer goes on to the client, unless it is a failure and another leg is left (`holds`)."""
        assert ex.sink is not None
        gate = Gate(self.limit_bytes, ex.sink, holds=holds, race=race)
        tried = self._leg(ex, leg, gate)
        gate.passes = partial(self._serves, ex, tried)
        return tried

    def _leg(self, ex: Exchange, leg: Leg, sink: Held) -> Tried:
        assert ex.sink is not None
        sink.task = ex.sink.task
        own = branch(ex, sink)
        own.variant, own.plan = leg, None
        own.retrieval, own.compress, own.shortening = ex.retrieval, ex.compress, ex.shortening
        assert own.call is not None
        return Tried(leg, own, own.call, sink)

    async def _carry(self, tried: Tried) -> None:
        """Make the attempt; what it failed with stands in it."""
        clock = self.routing.clock
        begun_tick = clock.tick_s()
        try:
            verdict = self.carriers.carry(tried.own)
            if isinstance(verdict, Awaitable):
                await verdict
        except FarthingError as fault:
            tried.fault = fault
        if tried.leg is None:
            return
        speed, call = self.routing.speed(tried.leg), tried.call
        if 200 <= call.status < 300 and tried.fault is None:
            speed.answered((call.first_byte_tick or clock.tick_s()) - begun_tick, clock.tick_s())
            if call.usage is not None:
                speed.said(call.usage.tokens_out)
        elif tried.fault is not None or call.status == 429 or call.status >= 500:
            speed.failed_tick = clock.tick_s()

    # -- the books

    def _serves(self, ex: Exchange, tried: Tried) -> None:
        """From here on this leg's answer is the client's."""
        self._show(ex, tried)
        ex.variant = tried.leg

    @staticmethod
    def _show(ex: Exchange, tried: Tried) -> None:
        call, own = ex.call, tried.call
        assert call is not None
        call.head, call.event_stream, call.usage_injected = own.head, own.event_stream, own.usage_injected
        call.elsewhere = tried.leg is not None and tried.leg.upstream != DEFAULT_UPSTREAM
        call.first_byte_tick = own.first_byte_tick

    def _finish(self, ex: Exchange, tried: Tried) -> None:
        """The serving leg has ended, in whatever way."""
        self._merge(ex, tried)
        self._told(ex, tried)

    def _told(self, ex: Exchange, tried: Tried) -> None:
        call, own = ex.call, tried.call
        assert call is not None
        call.usage, call.earlier, call.tier = own.usage, own.earlier, own.tier
        call.answer, call.value, call.complete = own.answer, own.value, own.complete
        call.first_byte_tick, call.upstream = own.first_byte_tick, own.upstream
        call.model_served = self._model(tried)
        if tried.own.retrieval is not ex.retrieval:  # its upstream took no tool of ours
            ex.retrieval, ex.body_out = tried.own.retrieval, tried.own.body_out
            ex.compress, ex.shortening = tried.own.compress, tried.own.shortening
        ex.decisions.extend(tried.own.decisions)

    def _model(self, tried: Tried) -> str:
        served = tried.call.model_served
        return served if tried.leg is None else self.routing.priced_name(tried.leg, served)

    @staticmethod
    def _merge(ex: Exchange, tried: Tried) -> None:
        """Its attempts are the client's."""
        call, own = ex.call, tried.call
        assert call is not None
        for attempt in own.attempts:
            attempt.variant = "" if tried.leg is None else tried.leg.name
        call.attempts += own.attempts
        call.upstream = own.upstream
        call.started_tick = call.started_tick or own.started_tick

    async def _beside(self, ex: Exchange, tried: Tried) -> None:
        """An attempt whose answer doesn't serve: what it was billed with is booked apart."""
        self._merge(ex, tried)
        call, own = ex.call, tried.call
        assert call is not None
        if not 200 <= own.status < 300 or not own.attempts:
            return
        usage = own.usage if own.usage is not None else await asyncio.to_thread(self._counted, tried)
        others = [Billed(self._model(tried), one, own.upstream) for one in (*own.earlier, usage)]
        call.others += others
        answered = [attempt for attempt in own.attempts if 200 <= attempt.status < 300]
        for attempt, other in zip(answered[-len(others) :], others, strict=False):
            attempt.billed = other

    def _counted(self, tried: Tried) -> Usage:
        """By our own count: what was sent, and what had come back."""
        own, model = tried.own, tried.leg.model if tried.leg is not None else tried.own.model
        body = own.body_out if own.body_out is not None else own.body
        given = self.tokenizer.count_request(own.endpoint, orjson.loads(body or b"{}"), model)
        answer = tried.call.answer or tried.sink.body()
        made = self.tokenizer.count_text_out(own.endpoint, answer, model) if answer else 0
        return Usage(fresh=given, output=made, source=UsageSource.COUNTED, tier=tried.call.tier)


def _name(leg: Leg) -> str:
    return "the asked-for model" if leg is None else leg.name


def _cancelled(tried: Tried) -> None:
    if tried.call.attempts and tried.fault is None and not tried.call.complete:
        tried.call.attempts[-1].error = "hung up: another was faster"
