"""What the provider's prompt cache would have done for a request, had there been no proxy: an exchange's own answer.

Rules of this file: each exchange arrives in the simulation once, when its usage is known, and the answer stays with it
(`ex.would`), so that header and row tell one amount. A prompt below the provider's least length costs nothing here.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import orjson

from farthing.proxy.exchange import Call, Exchange
from farthing.proxy.prompt_trail import Trail
from farthing.proxy.provider_reads import BOTH, ProviderReads, World
from farthing.proxy.usage import Usage, UsageSource
from farthing.proxy.would import AS_BILLED, Before, Would, in_its_place, moved, unmarked

__all__ = ["Counterfactual", "loads"]

_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class Counterfactual:
    """`provider`: whose cache is behind the default upstream (config `compress.provider_cache`). `one_account`: all
    tenants use the operator's key, and so would have shared the provider's cache. `others`: the other upstreams'."""

    reads: ProviderReads
    provider: str = "auto"
    one_account: bool = False
    others: Mapping[str, str] = field(default_factory=dict)

    def of(self, ex: Exchange, usage: Usage, *, free: bool) -> Would:
        """What this exchange's prompt would have read. `usage`: behind its answer. `free`: nothing was sent for it."""
        if ex.would is None:
            trail = self._own(ex, usage, free) if ex.trails is None else ex.trails[0]
            if trail is None:  # what it reads or writes by our marks it wouldn't have
                ours = ex.marked is not None and ex.marked.remarked
                ex.would = Would(0, 0, writes=0) if ours else AS_BILLED
            elif free:
                (direct,) = self.reads.arrive(trail, usage, ex.received_s, _ready_s(ex, ex.call), (World.DIRECT,))
                ex.would = Would(self.reads.worth(ex.model, direct), None, trail.cache.charges_writes, trail)
                if trail.marks is not None and not trail.marks:
                    ex.would = ex.would._replace(writes=0)  # what the stored answer read or wrote was our marks' doing
            else:
                told = self._sent if ex.body_out is None and ex.variant is None else self._changed
                told = self._marked if ex.marked is not None and ex.marked.remarked else told
                ex.would = told(ex, trail, usage)._replace(charges_writes=trail.cache.charges_writes, trail=trail)
            ex.trails = None
        would: Would = ex.would
        return would

    def walk(self, ex: Exchange, usage: Usage) -> None:
        """Make both trails beforehand, of a prompt in whose place another was sent; for a thread, where it is long.

        `usage`: as `of` will be told.
        """
        if ex.would is None:
            ex.trails = self._own(ex, usage, free=False), self._other(ex, usage)

    def _own(self, ex: Exchange, usage: Usage, free: bool) -> Trail | None:
        """Of the client's prompt."""
        tokens_in = usage.tokens_in + (0 if free else ex.tokens_saved)
        return self._trail(ex, ex.payload, ex.model, tokens_in, self.provider)

    def _other(self, ex: Exchange, usage: Usage) -> Trail | None:
        """Of the prompt that went upstream in its place."""
        model = ex.model if ex.variant is None else ex.variant.model
        if (marked := ex.marked) is not None and marked.remarked:
            tenant = "" if self.one_account else ex.tenant
            sent = loads(marked.body)
            return self.reads.trail(marked.endpoint, sent, model, self._asked(ex), tenant, usage.tokens_in)
        payload = ex.payload if ex.body_out is None else loads(ex.body_out)
        return self._trail(ex, payload, model, usage.tokens_in, self._asked(ex))

    def _trail(
        self, ex: Exchange, payload: dict[str, Any] | None, model: str, tokens_in: int, provider: str
    ) -> Trail | None:
        tenant = "" if self.one_account else ex.tenant
        return self.reads.trail(ex.endpoint, payload, model, provider, tenant, tokens_in)

    def _asked(self, ex: Exchange) -> str:
        """Whose cache is behind the upstream that was asked."""
        return self.provider if ex.variant is None else self.others.get(ex.variant.upstream, self.provider)

    def _sent(self, ex: Exchange, trail: Trail, usage: Usage) -> Would:
        """Of a prompt that went upstream as it was: what was billed is known, and what we did to those before it."""
        direct, sent = self.reads.arrive(trail, usage, ex.received_s, _ready_s(ex, ex.call), BOTH)
        self.reads.note(ex.model, sent, usage)
        if direct == sent or not _told(ex, usage):
            return AS_BILLED
        read = moved(usage.cached, sent, direct, partial(self.reads.worth, ex.model))
        return AS_BILLED if read == usage.cached else Would(read)

    def _changed(self, ex: Exchange, trail: Trail, usage: Usage) -> Would:
        """Of a prompt in whose place another went upstream, or to another model."""
        at_s, ready_s = ex.received_s, _ready_s(ex, ex.call)
        model = ex.model if ex.variant is None else ex.variant.model
        whole = usage._replace(fresh=max(0, usage.fresh + ex.tokens_saved))
        (direct,) = self.reads.arrive(trail, whole, at_s, ready_s, (World.DIRECT,))
        other = self._other(ex, usage) if ex.trails is None else ex.trails[1]
        sent = 0 if other is None else self.reads.arrive(other, usage, at_s, ready_s, (World.SENT,))[0]
        self.reads.note(model, sent, usage)
        if not direct or not _told(ex, usage):
            return AS_BILLED
        before, worth = Before(ex.saved_before, ex.tokens_before), partial(self.reads.worth, ex.model)
        same = model == ex.model and not (ex.call is not None and ex.call.elsewhere)
        return in_its_place(direct, sent, usage.cached, usage.tokens_in, before, worth, same_model=same)

    def _marked(self, ex: Exchange, trail: Trail, usage: Usage) -> Would:
        """Of a prompt that we marked for the provider's cache."""
        at_s, ready_s = ex.received_s, _ready_s(ex, ex.call)
        model = ex.model if ex.variant is None else ex.variant.model
        whole = usage._replace(fresh=max(0, usage.fresh + ex.tokens_saved))
        (direct,) = self.reads.arrive(trail, whole, at_s, ready_s, (World.DIRECT,))
        other = self._other(ex, usage) if ex.trails is None else ex.trails[1]
        sent = 0 if other is None else self.reads.arrive(other, usage, at_s, ready_s, (World.SENT,))[0]
        self.reads.note(model, sent, usage)
        if not _told(ex, usage):
            return AS_BILLED
        before, worth = Before(ex.saved_before, ex.tokens_before), partial(self.reads.worth, ex.model)
        same = model == ex.model and not (ex.call is not None and ex.call.elsewhere)
        would = unmarked(direct, sent, usage.cached, usage.tokens_in, before, worth, same_model=same)
        return would._replace(writes=_writes(trail, usage.tokens_in, would.read or 0), hour=_hour(trail))


def _writes(trail: Trail, tokens_in: int, read: int) -> int:
    """What the prompt as the client wrote it would have written to the cache."""
    if not trail.cache.charges_writes:
        return 0
    kept = tokens_in
    if trail.marks is not None:
        kept = tokens_in * trail.ends[trail.marks[-1].at] // trail.ends[-1] if trail.marks else 0
    return max(0, kept - read) if kept >= trail.cache.minimum_tokens else 0


def _hour(trail: Trail) -> bool:
    return bool(trail.marks) and trail.marks is not None and trail.marks[-1].ttl_s >= _HOUR_S


def _told(ex: Exchange, usage: Usage) -> bool:
    """Whether the provider has said what it read of this prompt, and not of one with more in it."""
    return usage.source is UsageSource.UPSTREAM and not (ex.call is not None and ex.call.earlier)


def _ready_s(ex: Exchange, call: Call | None) -> float:
    """When the answer began, as wall time: from then on others can read what the request brought."""
    first = call.first_byte_tick if call is not None and ex.served is None else None
    return ex.received_s if first is None else ex.received_s + max(0.0, first - ex.received_tick)


def loads(body: bytes) -> dict[str, Any]:
    """A body of ours; numbers beyond a double's range, which the fast decoder refuses, are JSON all the same."""
    try:
        payload: dict[str, Any] = orjson.loads(body)
    except ValueError:
        payload = json.loads(body)
    return payload
