"""A deferred request, whole again: the exchange that asks for it directly, or that its answer is booked with.

Rules of this file: what must be known of a request to book it stands in its `meta`; its credential does not.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
from multidict import CIMultiDict, CIMultiDictProxy

from farthing.cache.entry import Entry
from farthing.cache.items import Case, Vector, asked_of
from farthing.cache.stage_items import reduced
from farthing.policies.budget import wanted
from farthing.policies.routes import facts_of
from farthing.policies.variant import Variant
from farthing.proxy import wire
from farthing.proxy.account import Account
from farthing.proxy.attribute import UNKNOWN, attribute_deferred
from farthing.proxy.batch_ways import Target
from farthing.proxy.body import NoBody
from farthing.proxy.budgets_asked import who_asks
from farthing.proxy.budgets_hold import Hold
from farthing.proxy.clock import Clock
from farthing.proxy.defer_hold import as_hold, hold_as
from farthing.proxy.defer_lines import as_value, as_variant
from farthing.proxy.defer_store import Kept, Texts
from farthing.proxy.errors import StoreFault
from farthing.proxy.exchange import (
    Attempt,
    Billed,
    CacheStatus,
    Call,
    Controls,
    Endpoint,
    Exchange,
    Original,
    Outcome,
    Stage,
)
from farthing.proxy.header_facts import HeaderFacts
from farthing.proxy.tenants import Caller
from farthing.proxy.usage import Usage, UsageSource

if TYPE_CHECKING:
    from farthing.proxy.routing import Routing

__all__ = ["BATCH_TIER", "Books", "known_of", "meta_of", "paid_before", "paid_of", "planned", "restored"]

BATCH_TIER = "batch"
_JSON = (("Content-Type", "application/json"),)
_BUSY_S = 5.0


def meta_of(ex: Exchange, variant: Variant | None = None, route: str = "") -> bytes:
    """What is to be known later of the request, and what it reserved; no text of it, no credential. `variant`: who is
    asked, where a route or the client names another than the model asked for."""
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
            "variant": None if variant is None else as_value(variant),
            "route": route,
            "hold": hold_as(ex.hold),
            "decisions": [[one.stage, one.action, one.reason] for one in ex.decisions],
        }
    )


def known_of(ex: Exchange) -> bytes:
    """What of its answer was stored already (embeddings, item by item); b'' where nothing."""
    case: Case | None = ex.items
    if case is None or not case.known:
        return b""
    return b"".join(
        len(one).to_bytes(4, "big") + one
        for place, (_, entry) in case.known.items()
        for one in (orjson.dumps([place, *_plain(entry)]), entry.body)
    )


def _plain(entry: Entry) -> list[Any]:
    """All of it but its body, as JSON can say it."""
    usage = None if entry.usage is None else list(entry.usage)
    return [*entry[:7], "", usage, *entry[9:]]


def _known_again(known: bytes) -> dict[int, tuple[Vector, Entry]]:
    pieces, at = [], 0
    while at < len(known):
        end = at + 4 + int.from_bytes(known[at : at + 4], "big")
        pieces.append(known[at + 4 : end])
        at = end
    found = {}
    for told, body in zip(pieces[::2], pieces[1::2], strict=True):
        place, *values = orjson.loads(told)
        entry = Entry(*values)
        usage = None if entry.usage is None else _usage(entry.usage)
        entry = entry._replace(body=body, usage=usage, tags=tuple((name, value) for name, value in entry.tags))
        found[place] = (Vector.stored(body), entry)
    return found


def _usage(values: Sequence[Any]) -> Usage:
    return Usage(*values)._replace(source=UsageSource(values[5]))


def paid_of(billed: Billed) -> bytes:
    """What was paid for an answer that can't be used, for `paid_before`."""
    return orjson.dumps([billed.model, list(billed.usage), billed.upstream])


def paid_before(own: Exchange, paid: bytes) -> None:
    """What an answer cost that couldn't be used is a part of the bill of `own`, whose call may not have begun."""
    if paid:
        model, values, upstream = orjson.loads(paid)
        billed = Billed(model, _usage(values), upstream)
        call = own.call = own.call or Call(id=own.id)
        call.others.append(billed)
        call.attempts.append(Attempt(billed.upstream, status=200, billed=billed))


def restored(kept: Kept, texts: Texts, clock: Clock, headers: Sequence[tuple[str, str]] = ()) -> Exchange:
    """The request as an exchange. `headers`: who asks, where it is to be sent."""
    known: dict[str, Any] = orjson.loads(texts.meta)
    pairs = (*headers, *_JSON)
    original = Original("POST", kept.path, CIMultiDictProxy(CIMultiDict(pairs)), NoBody(), HeaderFacts(tuple(pairs)))
    ex = Exchange(kept.id, original, kept.created_s, clock.tick_s() - max(0.0, clock.now_s() - kept.created_s))
    ex.credential, ex.tenant, ex.endpoint = kept.credential, known["tenant"], Endpoint(known["endpoint"])
    tags = tuple((name, value) for name, value in known["tags"])
    ex.controls = Controls(user=known["user"], tags=tags, scope=known["scope"], ttl_s=known["ttl_s"])
    ex.caller = None if known["caller"] is None else Caller(*known["caller"])
    ex.policy, ex.config_id, ex.key, ex.may_store = known["policy"], known["config_id"], known["key"], known["stores"]
    read = wire.read_body(texts.body)
    if not isinstance(read, str):
        ex.payload, ex.exact = read.payload, read.exact
    ex.body, ex.model = texts.body, kept.model
    ex.cache, ex.cache_reason = CacheStatus.BYPASS, "deferred"
    ex.hold = as_hold(known.get("hold"))
    ex.variant = None if known.get("variant") is None else as_variant(known["variant"])
    asked = None if known["items"] is None or ex.exact is None else asked_of(ex.exact)
    if asked is not None:
        ex.items = Case(asked, known["items"], _known_again(texts.known))
        if ex.items.reduced:
            ex.body_out = reduced(ex.body, ex.items)
    for stage, action, reason in known["decisions"]:
        ex.decide(stage, action, reason)
    return ex


def planned(own: Exchange, meta: bytes, routing: Routing | None) -> None:
    """Lead a request that is sent directly the way that it was given when it came, its route's fallbacks with it."""
    variant = own.variant
    if routing is None or variant is None or variant.name not in routing.variants or own.payload is None:
        return  # the client named a model, or the variant is no more: it goes where it was led, without a route
    from farthing.policies.choose import Choice
    from farthing.proxy.routing import Plan

    name = orjson.loads(meta).get("route")
    route = next((one for one in routing.routes.routes if one.name == name), None)
    facts = facts_of(own.endpoint, own.payload, own.controls.tags, own.tenant, never_chained=routing.never_chained)
    own.plan = Plan(facts, route, named=variant, choice=Choice((variant,), "chosen when it came"))
    own.variant = None


@dataclass(slots=True)
class Books:
    """Prices answers, keeps them in the cache, and writes their rows. `keep`: the pipeline's store stage."""

    account: Account
    keep: Stage
    clock: Clock

    async def batched(self, own: Exchange, target: Target, batch: str, *, dropped: bool) -> int:
        """Book an answer that came with a batch and stands in `own.call`; the pico-dollars that this saved.

        `dropped`: its client had cancelled it by then.
        """
        call = own.call
        assert call is not None
        own.outcome = Outcome.ABANDONED if dropped else own.outcome or Outcome.COMPLETED
        own.decide("defer", "batch", batch)
        own.ended_tick = call.ended_tick = self.clock.tick_s()
        usage = await self.account.usage_of(own)
        money = at_once = self.account.money(own, usage)
        if usage is not None and 200 <= call.status < 300:
            money = attribute_deferred(
                self.account.rates,
                money,
                model_requested=own.model,
                model_served=call.model_served or own.model,
                usage=usage,
                at_s=own.received_s,
                tier=BATCH_TIER,
                times=target.price_times,
                upstream=call.upstream,
            )
            usage = usage._replace(tier=BATCH_TIER)
            await self._keep(own)
            call.usage = usage
        self._write(own, usage, money)
        return 0 if money.cost is None or at_once.cost is None else at_once.cost - money.cost

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

    async def before(self, own: Exchange) -> int | None:
        """What the row says to have been saved that the ledger has of it already; what it reserved is ended with what
        that row cost. None: there is no row. Raises StoreFault."""
        ledger = self.account.ledger
        row = None if ledger is None else await asyncio.to_thread(_row, ledger.path, own.id)
        if row is None:
            return None
        cost_pico, saved_pico = row
        self.account.end_hold(own, cost_pico)
        return saved_pico or 0

    def never(self, own: Exchange, outcome: Outcome, why: str, *, billed: bool = False) -> None:
        """Book one that has no answer; what was paid for in vain stands in `own.call`. `billed`: a provider has it, and
        nobody can ask what it charges."""
        own.outcome, own.error = outcome, why
        own.decide("defer", outcome.value, why)
        own.ended_tick = self.clock.tick_s()
        self._write(own, None, UNKNOWN if billed else self.account.money(own, None))

    def unused(self, own: Exchange, target: Target, usage: Usage) -> Billed:
        """What a batch's answer to a part cost that can't be used. Where no price of the tier is known, it counts as
        one at once: more than it was, never less."""
        assert own.call is not None
        model = own.call.model_served or own.model
        rates = self.account.rates.at(target.upstream.name).rates(model, own.received_s)
        batched = usage._replace(tier=BATCH_TIER)
        priced = rates is not None and rates.covering(batched) is not None
        one = batched if priced else usage._replace(source=UsageSource.COUNTED)
        return Billed(model, one, target.upstream.name)

    def _write(self, own: Exchange, usage: Any, money: Any) -> None:
        if own.hold is None and self.account.spending is not None:  # kept by a version that wrote no reservations
            wants = wanted(self.account.spending.budgets, who_asks(own), own.received_s)  # where it was reserved
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


def _row(path: Path, id: str) -> tuple[int | None, int | None] | None:
    """What a request cost and saved by where it was sent, in pico-dollars, by the ledger's file. Raises StoreFault."""
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=_BUSY_S)) as conn:
            found: tuple[int | None, int | None] | None = conn.execute(
                "select cost_usd, saved_route_usd from requests where id = ?", (id,)
            ).fetchone()
            return found
    except sqlite3.Error as error:
        raise StoreFault(f"{path}: {error}") from error
