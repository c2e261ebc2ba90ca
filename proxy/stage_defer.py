"""May the request wait? Then it is kept for its upstream's batch API, and its client hears so at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING

import orjson
from multidict import CIMultiDict

from farthing.policies.variant import DEFAULT_UPSTREAM, Variant
from farthing.proxy.account import Account
from farthing.proxy.batch_ways import kind_of
from farthing.proxy.config import Config
from farthing.proxy.config_routes import target_of
from farthing.proxy.defer_lines import Sent, to_send
from farthing.proxy.defer_shelf import Works
from farthing.proxy.deferring import Caller, Desk, Placed
from farthing.proxy.errors import ClientFault
from farthing.proxy.exchange import GO_ON, CacheStatus, Continue, Endpoint, Exchange, LocalReply, Quiet, Stage, Verdict
from farthing.proxy.styles import STYLES
from farthing.proxy.wire import telling_who

if TYPE_CHECKING:
    from farthing.proxy.routing import Plan, Routing

__all__ = ["DeferStage"]

_OFF_LOOP_BYTES = 65_536
_TAKEN = frozenset({Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RESPONSES, Endpoint.MESSAGES})


@dataclass(slots=True)
class DeferStage(Quiet):
    """Keeps what `x-farthing-defer` allows to wait; what can't wait goes on, with the reason as a decision.

    `desk`: None where nothing is deferred. `spend`: the stage that reserves, since nothing comes after this one.
    `works`: what the desk sees requests through with that began here.
    """

    desk: Desk | None
    config: Config
    routing: Routing | None
    spend: Stage
    account: Account
    works: Works | None = None
    name: str = field(default="defer", init=False)
    hard: bool = field(default=False, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Keep it and answer 202, or let it go on. Raises ClientFault: 402, 429 beyond a limit."""
        wait_s = ex.controls.defer_s
        if wait_s is None:
            return GO_ON
        desk = self.desk
        placed = self._obstacle(ex, desk, wait_s) or self._placed(ex)
        if isinstance(placed, str) or desk is None:
            ex.decide(self.name, "at once", str(placed))
            return GO_ON
        caller = desk.caller_of(CIMultiDict(ex.original.headers), placed.target)
        if caller is None:
            ex.decide(self.name, "at once", "there is no credential to send it with")
            return GO_ON
        return self._keep(ex, desk, caller, placed, wait_s)

    def _obstacle(self, ex: Exchange, desk: Desk | None, wait_s: int) -> str:
        """Why it can't wait, whoever would be asked; ''."""
        config = self.config.defer
        if desk is None:
            return "the upstream has no batch API" if config.enabled else "defer.enabled is false"
        if not ex.optimise:
            return ex.cache_reason or "optimisation is off"
        if ex.endpoint not in _TAKEN or ex.original.target != ex.original.path:
            return "a batch doesn't take this endpoint"
        if ex.payload is None or ex.body is None or not ex.model:
            return "the body is not understood"
        if ex.stream:
            return "a stream can't wait"
        if ex.payload.get("background"):
            return "it is answered in the background already"
        if ex.controls.only_if_cached:
            return "only what is cached was asked for"
        if wait_s < config.min_s:
            return f"it may wait for less than {config.min_s:g} s (defer.min_s)"
        if len(ex.body) > config.max_bytes:
            return "it is longer than defer.max_bytes"
        return ""

    def _placed(self, ex: Exchange) -> Placed | str:
        """Whose batch it goes into; or why into none."""
        assert self.desk is not None
        assert self.desk.works is not None
        led = self._led(ex)
        if isinstance(led, str):
            return led
        variant, route = led
        target = self.desk.works.targets.get(DEFAULT_UPSTREAM if variant is None else variant.upstream)
        kind = None if target is None else kind_of(target.upstream, ex.endpoint)
        if target is None or kind is None:
            return "the upstream has no batch API"
        foreign = STYLES[target.upstream.style].foreign
        for name in ex.original.facts.vendor:
            version = name == "anthropic-version" and kind == "anthropic"
            if name not in foreign and not version and name not in telling_who(tuple(ex.original.headers)):
                return f"a batch can't carry the header {name}"
        if len(ex.body or b"") > target.rules(kind).max_bytes:
            return "it is longer than what a batch of this upstream takes"
        return Placed(target, kind, variant, route)

    def _led(self, ex: Exchange) -> tuple[Variant | None, str] | str:
        """Who is asked, where not the model asked for, and by which route; or why it can't wait."""
        plan: Plan | None = ex.plan
        if plan is not None and plan.serves and self.routing is not None:
            plan.choice = plan.choice or self.routing.choose(ex, plan)
            order, route = plan.choice.order, plan.route
            if not order:
                return None, ""
            if order[0].student:
                return "a student may answer it"
            if route is not None and route.strategy == "cascade":
                return "a cascade asks one after the other"
            ex.decide("route", "routed", f"{order[0].name}, {plan.choice.why}")
            return (None if order[0].is_plainly(ex.model) else order[0]), "" if route is None else route.name
        wanted = ex.controls.route
        if wanted and self.routing is not None:
            wanted = target_of(self.routing.aliases, wanted)
        return (Variant(wanted, wanted) if wanted and wanted != ex.model else None), ""

    async def _keep(self, ex: Exchange, desk: Desk, caller: Caller, placed: Placed, wait_s: int) -> Verdict:
        assert ex.body is not None
        work = partial(to_send, ex, placed.target, placed.variant)
        sent: Sent | None
        try:
            sent = await asyncio.to_thread(work) if len(ex.body) > _OFF_LOOP_BYTES else work()
        except ClientFault as fault:
            ex.decide(self.name, "at once", fault.code or "refused")  # it is refused in the same words there
            return GO_ON
        if sent is None:
            ex.decide(self.name, "at once", "the body doesn't go on one line")
            return GO_ON
        if await desk.waiting() >= self.config.defer.max_waiting:
            ex.decide(self.name, "at once", "too many wait (defer.max_waiting)")
            return GO_ON
        await self._reserve(ex, placed)
        ex.decide(self.name, "kept", f"for at most {wait_s} s")
        try:
            told = await desk.accept(ex, caller, placed, sent, float(wait_s))
        except BaseException:
            if ex.hold is not None:
                self.account.end_hold(ex, 0)
                ex.hold = None
            raise
        ex.cache, ex.cache_reason = CacheStatus.BYPASS, "deferred"
        return LocalReply(
            202,
            {"Content-Type": "application/json", "Location": f"/farthing/api/deferred/{ex.id}"},
            orjson.dumps(told),
        )

    async def _reserve(self, ex: Exchange, placed: Placed) -> None:
        """As for whoever is going to be asked: the route stage, which would say so, is never come to. Raises
        ClientFault."""
        if self.spend.idle:
            return
        ex.variant = placed.variant
        try:
            verdict = self.spend.on_request(ex)
            if not isinstance(verdict, Continue | LocalReply):
                await verdict
        finally:
            ex.variant = None  # where it can't be kept it takes the way of all others
