"""May the request wait? Then it is kept for the provider's batch API, and its client hears so at once."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

import orjson
from multidict import CIMultiDict

from farthing.proxy.account import Account
from farthing.proxy.config import Config
from farthing.proxy.deferring import Desk
from farthing.proxy.exchange import GO_ON, CacheStatus, Continue, Endpoint, Exchange, LocalReply, Quiet, Stage, Verdict
from farthing.proxy.jsontext import minify
from farthing.proxy.wire import telling_who

__all__ = ["DeferStage"]

_OFF_LOOP_BYTES = 65_536
_TAKEN = (Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS, Endpoint.RESPONSES)


@dataclass(slots=True)
class DeferStage(Quiet):
    """Keeps what `x-farthing-defer` allows to wait; what can't wait goes on, with the reason as a decision.

    `desk`: None where nothing is deferred. `spend`: the stage that reserves, since nothing comes after this one.
    """

    desk: Desk | None
    config: Config
    spend: Stage
    account: Account
    name: str = field(default="defer", init=False)
    hard: bool = field(default=False, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Keep it and answer 202, or let it go on. Raises ClientFault: 402, 429 beyond a limit."""
        wait_s = ex.controls.defer_s
        if wait_s is None:
            return GO_ON
        desk = self.desk
        reason = self._obstacle(ex, desk, wait_s)
        if reason or desk is None:
            ex.decide(self.name, "at once", reason)
            return GO_ON
        account = desk.account_of(
            CIMultiDict(ex.original.headers), self.config.upstream, own_keys=self.config.auth.virtual_keys
        )
        if not account:
            ex.decide(self.name, "at once", "there is no credential to send it with")
            return GO_ON
        return self._keep(ex, desk, account, wait_s)

    def _obstacle(self, ex: Exchange, desk: Desk | None, wait_s: int) -> str:
        """Why it can't wait; ''."""
        config = self.config.defer
        if desk is None and self.config.server.workers > 1:
            return "with several workers nothing is deferred"
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
        if (ex.plan is not None and ex.plan.serves) or ex.controls.route:
            return "a route leads it elsewhere"
        headers = ex.original.headers
        for name in ex.original.facts.vendor:
            if name not in telling_who(tuple(headers)):
                return f"a batch can't carry the header {name}"
        if wait_s < config.min_s:
            return f"it may wait for less than {config.min_s:g} s (defer.min_s)"
        if len(ex.body) > config.max_bytes:
            return "it is longer than defer.max_bytes"
        if desk.waiting >= config.max_waiting:
            return "too many wait (defer.max_waiting)"
        return ""

    async def _keep(self, ex: Exchange, desk: Desk, account: str, wait_s: int) -> Verdict:
        assert ex.body is not None
        body: bytes | None = ex.body
        if b"\n" in ex.body or b"\r" in ex.body:
            large = len(ex.body) > _OFF_LOOP_BYTES
            body = await asyncio.to_thread(minify, ex.body) if large else minify(ex.body)
        if body is None:
            ex.decide(self.name, "at once", "the body doesn't go on one line")
            return GO_ON
        verdict = GO_ON if self.spend.idle else self.spend.on_request(ex)
        if not isinstance(verdict, Continue | LocalReply):
            await verdict
        ex.decide(self.name, "kept", f"for at most {wait_s} s")
        try:
            kept = await desk.accept(ex, account, body, float(wait_s))
        except BaseException:
            if ex.hold is not None:
                self.account.end_hold(ex, 0)
                ex.hold = None
            raise
        ex.deferred, ex.cache, ex.cache_reason = True, CacheStatus.BYPASS, "deferred"
        return LocalReply(
            202,
            {"Content-Type": "application/json", "Location": f"/farthing/api/deferred/{kept.id}"},
            orjson.dumps(desk.status(kept)),
        )
