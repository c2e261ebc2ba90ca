"""The upstream stage where routes are: asks variants in turn, or two at once, until one's answer goes on to the client.

What an attempt does is the upstream stage's, of the upstream that the variant names (`legs.py`); a cascade's tries come
first (`tries.py`).

Rules of this file:
1. Nothing is asked again once the client has the first byte.
2. A call that isn't wanted any more is hung up at once, and ends before this stage does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from farthing.policies.cascade import Course, Leg, after_failure, course
from farthing.policies.routes import Route
from farthing.policies.variant import Variant
from farthing.proxy.exchange import GO_ON, Exchange, Quiet, Verdict
from farthing.proxy.leg_sink import Gate, Race
from farthing.proxy.legs import Legs, Tried
from farthing.proxy.routing import Plan
from farthing.proxy.students import Students
from farthing.proxy.tasks import through
from farthing.proxy.tries import Tries

__all__ = ["RoutedStage"]

Spawn = Callable[[Coroutine[Any, Any, Any]], "asyncio.Task[Any]"]


@dataclass(slots=True)
class RoutedStage(Quiet):
    """Round the upstream stages. `spawn`: starts an owned task."""

    legs: Legs
    spawn: Spawn
    students: Students | None = None
    name: str = field(default="upstream", init=False)
    hard: bool = field(default=True, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Ask whom the plan names. Raises what the upstream stage raises, of the last leg."""
        plan: Plan | None = ex.plan
        if plan is None or not plan.serves or plan.choice is None or not plan.choice.order:
            if plan is not None and plan.choice is not None and self.students is not None:
                self.students.watch(ex, plan.choice.order)
            return self.legs.carriers.carry(ex)
        ex.plan = None  # it is taken: whoever asks this again asks whom it led to
        way = course(plan.route, plan.choice.order, plan.facts.needs, ex.model, stream=ex.stream)
        if way.passed_over:
            names = ", ".join(one.name for one in way.passed_over)
            ex.decide("route", "passed over", f"{names}: streams aren't held back here, so not checked")
        return self._take(ex, plan, way)

    async def _take(self, ex: Exchange, plan: Plan, way: Course) -> Verdict:
        route = plan.route
        tries = Tries(self.legs)
        for variant in way.tries:
            if variant.student:
                if self.students is not None and await self.students.answered(ex, variant, _teacher(way)):
                    return GO_ON
                continue
            assert route is not None
            if await tries.accepted(ex, variant, route.accept):
                return GO_ON
        await self._chain(ex, route, way.chain)
        self.legs.routing.answered(plan, ex)
        return GO_ON

    async def _chain(self, ex: Exchange, route: Route | None, chain: tuple[Leg, ...]) -> None:
        """Ask in turn until an answer goes on. Raises what the asked-for model's leg raises, where all fail."""
        on: frozenset[str] = frozenset() if route is None else route.on
        if route is not None:
            self.legs.routing.allowance(route).earn()
        place: int | None = 0
        asked: Tried | None = None  # the asked-for model's own failure: what is shown where nothing else helps
        while place is not None:
            leg = chain[place]
            last = asked is None and place == len(chain) - 1
            beside: Tried | None = None
            if route is not None and route.hedge_after_s and place == 0:
                tried, beside = await self._hedged(ex, route, chain, holds=not last)
            else:
                tried = await self._alone(ex, leg, holds=not last)
            if tried.passed:
                if tried.fault is not None:
                    raise tried.fault
                return
            if last and tried.fault is not None:
                raise tried.fault
            ex.decide("route", "failed", f"{_name(leg)}: {tried.said}")
            asked = tried if leg is None else asked
            place = after_failure(chain, place, tried.failure, on)
            if beside is not None:
                ex.decide("route", "failed", f"{_name(beside.leg)}: {beside.said}")
                if place is not None and chain[place] == beside.leg:
                    place = after_failure(chain, place, beside.failure, on)  # it has been asked by now
        assert asked is not None
        if asked.fault is not None:
            raise asked.fault
        self.legs.show(ex, asked)
        await asked.sink.release(ex.sink)
        self.legs.told(ex, asked)

    async def _alone(self, ex: Exchange, leg: Leg, *, holds: bool) -> Tried:
        tried = self.legs.gated(ex, leg, holds=holds)
        try:
            await self.legs.carry(tried)
            if tried.fault is None and isinstance(tried.sink, Gate):
                tried.sink.end()
        finally:
            await self._ended(ex, tried)
        return tried

    async def _ended(self, ex: Exchange, tried: Tried) -> None:
        """Note what became of the leg that answered or failed last."""
        if tried.passed:
            self.legs.finish(ex, tried)
        else:
            await self.legs.beside(ex, tried)

    async def _hedged(
        self, ex: Exchange, route: Route, chain: tuple[Leg, ...], *, holds: bool
    ) -> tuple[Tried, Tried | None]:
        """The first leg, and a second call beside it where the first doesn't answer in time: whichever answers first;
        where both fail, both.

        The second is the route's first fallback, else the same variant once more.
        """
        race = Race()
        legs = [self._racing(ex, chain[0], race, holds=holds)]
        try:
            await race.wait(legs[0].work, route.hedge_after_s)
            if race.open and self.legs.routing.allowance(route).take():
                other = chain[1] if len(chain) > 1 and chain[1] is not None else chain[0]
                ex.decide("route", "hedged", f"{_name(chain[0])} said nothing in {route.hedge_after_s * 1000:.0f} ms")
                legs.append(self._racing(ex, other, race, holds=holds))
            while race.winner is None and (running := [leg.work for leg in legs if not leg.work.done()]):
                await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            await _shown(race, legs).work
        finally:
            # A client may leave while the loser's prompt is counted: the winner's answer must be in the books.
            await through(self._settled(ex, race, legs))
        shown = _shown(race, legs)
        return shown, next((leg for leg in legs if race.winner is None and leg is not shown), None)

    async def _settled(self, ex: Exchange, race: Race, legs: list[Tried]) -> None:
        """All legs have ended, and stand in the row."""
        await self._end(legs)
        shown = _shown(race, legs)
        for leg in legs:
            if leg is not shown:
                if race.winner is not None:
                    _told_why(leg)
                await self.legs.beside(ex, leg)
        await self._ended(ex, shown)

    def _racing(self, ex: Exchange, leg: Leg, race: Race, *, holds: bool) -> Tried:
        tried = self.legs.gated(ex, leg, holds=holds, race=race)
        tried.task = tried.sink.task = race.tasks[tried.sink] = self.spawn(self.legs.carry(tried))
        return tried

    @staticmethod
    async def _end(legs: list[Tried]) -> None:
        """Hang up what is still under way, and wait until it has ended."""
        running = [leg.work for leg in legs if not leg.work.done()]
        for task in running:
            task.cancel()
        if running:
            await asyncio.gather(*running, return_exceptions=True)


def _shown(race: Race, legs: list[Tried]) -> Tried:
    """The leg whose answer goes on; the first one where none does."""
    return next((leg for leg in legs if leg.sink is race.winner), legs[0])


def _teacher(way: Course) -> Variant | None:
    """Whom a student stands for: whoever is asked where no try is accepted."""
    return way.chain[0]


def _name(leg: Leg) -> str:
    return "the asked-for model" if leg is None else leg.name


def _told_why(tried: Tried) -> None:
    """Its attempt says so where it was hung up while it was under way."""
    if tried.call.attempts and tried.fault is None and not tried.call.complete:
        tried.call.attempts[-1].error = "hung up: another was faster"
