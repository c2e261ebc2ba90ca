"""A deferred request, whole again: the exchange that asks for it directly, or that its answer is booked with.

Rules of this file: what must be known of a request to book it stands in its `meta`; its credential does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from farthing.cache.items import Case, asked_of
from farthing.policies.budget import wanted
from farthing.proxy import wire
from farthing.proxy.account import Account
from farthing.proxy.attribute import attribute_deferred
from farthing.proxy.body import NoBody
from farthing.proxy.budgets import Hold, who_asks
from farthing.proxy.clock import Clock
from farthing.proxy.defer_store import Kept, Result
from farthing.proxy.exchange import (
    Attempt,
    CacheStatus,
    Call,
    Controls,
    Endpoint,
    Exchange,
    Head,
    Original,
    Outcome,
    Stage,
)
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.observe import loads, read_whole
from farthing.proxy.tenants import Caller

__all__ = ["BATCH_TIER", "Books", "meta_of", "restored"]

BATCH_TIER = "batch"


def meta_of(ex: Exchange) -> bytes:
    """What is to be known later of the request; no text of it, no credential."""
    caller, controls = ex.caller, ex.controls
    return orjson.dumps(
        {
            "tenant": ex.tenant,
            "endpoint": ex.endpoint,
            "user": controls.user,
            "tags": controls.tags,
            "scope": controls.scope,
            "ttl_s": controls.ttl_s,
            "caller": None if caller is None else [caller.key_name, caller.tenant_name],
            "policy": ex.policy,
            "config_id": ex.config_id,
            "key": ex.key,
            "stores": ex.may_store,
            "items": None if ex.items is None else ex.items.keys,
            "decisions": [[one.stage, one.action, one.reason] for one in ex.decisions],
        }
    )


def restored(kept: Kept, meta: bytes, body: bytes, clock: Clock, headers: Sequence[tuple[str, str]] = ()) -> Exchange:
    """The request as an exchange. `headers`: who asks, where it is to be sent."""
    known: dict[str, Any] = orjson.loads(meta)
    pairs = (*headers, ("Content-Type", "application/json"))
    original = Original("POST", kept.path, CIMultiDictProxy(CIMultiDict(pairs)), NoBody(), HeaderFacts(tuple(pairs)))
    ex = Exchange(kept.id, original, kept.created_s, clock.tick_s() - max(0.0, clock.now_s() - kept.created_s))
    ex.credential, ex.tenant, ex.endpoint = kept.credential, known["tenant"], Endpoint(known["endpoint"])
    tags = tuple((name, value) for name, value in known["tags"])
    ex.controls = Controls(user=known["user"], tags=tags, scope=known["scope"], ttl_s=known["ttl_s"])
    ex.caller = None if known["caller"] is None else Caller(*known["caller"])
    ex.policy, ex.config_id, ex.key, ex.may_store = known["policy"], known["config_id"], known["key"], known["stores"]
    read = wire.read_body(body)
    if not isinstance(read, str):
        ex.payload, ex.exact = read.payload, read.exact
    ex.body, ex.model = body, kept.model
    ex.cache, ex.cache_reason = CacheStatus.BYPASS, "deferred"
    asked = None if known["items"] is None or ex.exact is None else asked_of(ex.exact)
    ex.items = None if asked is None else Case(asked, known["items"])
    for stage, action, reason in known["decisions"]:
        ex.decide(stage, action, reason)
    return ex


@dataclass(slots=True)
class Books:
    """Prices answers, keeps them in the cache, and writes their rows. `keep`: the pipeline's store stage. `times`: of
    the standard price, where the prices know no tier `batch`."""

    account: Account
    keep: Stage
    clock: Clock
    times: float

    async def batched(self, own: Exchange, result: Result | None, name: str, batch: str, *, dropped: bool) -> None:
        """Book an answer that came with a batch. `dropped`: its client had cancelled it by then; None: without one."""
        call = own.call = Call(id=own.id, upstream=name, started_tick=own.received_tick)  # all of it is waiting
        if result is not None:
            call.head = Head(result.status, CIMultiDict({"Content-Type": result.kind}))
            call.answer, call.value, call.complete = result.body, loads(result.body), True
            call.attempts.append(Attempt(name, status=result.status))
            usage, call.model_served = read_whole(own.endpoint, call.value)
            call.usage = None if usage is None else usage._replace(tier="")  # its tier is the batch's
            own.status = result.status
        own.outcome = Outcome.ABANDONED if dropped else Outcome.COMPLETED
        own.decide("defer", "batch", batch)
        own.ended_tick = call.ended_tick = self.clock.tick_s()
        usage = None if result is None else await self.account.usage_of(own)
        money = self.account.money(own, usage)
        if usage is not None and result is not None and 200 <= result.status < 300:
            money = attribute_deferred(
                self.account.rates,
                money,
                model_requested=own.model,
                model_served=call.model_served or own.model,
                usage=usage,
                at_s=own.received_s,
                tier=BATCH_TIER,
                times=self.times,
            )
            usage = usage._replace(tier=BATCH_TIER)
            await self._keep(own)
            call.usage = usage
        self._write(own, usage, money)

    async def direct(self, own: Exchange, why: str) -> None:
        """Book one that was asked for by itself after all."""
        own.decide("defer", "sent directly", why)
        own.outcome = own.outcome or Outcome.COMPLETED
        own.ended_tick = self.clock.tick_s()
        usage = await self.account.usage_of(own)
        money = self.account.money(own, usage)
        if own.call is not None and own.call.status == 200:
            await self._keep(own)
        self._write(own, usage, money)

    def never(self, own: Exchange, outcome: Outcome, why: str) -> None:
        """Book one that was never sent."""
        own.outcome, own.error = outcome, why
        own.decide("defer", outcome.value, why)
        own.ended_tick = self.clock.tick_s()
        self._write(own, None, self.account.money(own, None))

    def _write(self, own: Exchange, usage: Any, money: Any) -> None:
        if own.hold is None and self.account.spending is not None:  # a restart lost what was reserved
            wants = wanted(self.account.spending.budgets, who_asks(own), self.clock.now_s())
            own.hold = Hold(own.id, wants) if wants else None
        try:
            self.account.book(own, usage, money)
        finally:
            if own.hold is not None:
                self.account.end_hold(own, None)

    async def _keep(self, own: Exchange) -> None:
        """Into the exact cache, as an answer that came at once would be."""
        waits = self.keep.on_end(own)
        if waits is not None:
            await waits
