"""Reads hot prefixes once more before a provider forgets them: `prompt_cache.keep_warm`.

Rules of this file:
1. Only where `policies/keep_warm.py` expects it to pay, by what is known of the prefix; never twice in a row without a
   client's request between.
2. What it costs is overhead: a row of the endpoint `warm`, within `keep_warm_daily_usd`.
3. Few are waiting at any time, the latest ones; what waits holds one prompt each.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import orjson

from farthing.compress.provider_cache import Kind
from farthing.policies.keep_warm import gain_of_keeping
from farthing.policies.variant import Variant
from farthing.proxy.branch import CARRIED
from farthing.proxy.counterfactual import loads
from farthing.proxy.errand import Errands
from farthing.proxy.exchange import Endpoint, Exchange
from farthing.proxy.jsontext import find
from farthing.proxy.prices import RateCard
from farthing.proxy.prompt_marking import Marked
from farthing.proxy.prompt_memory import WINDOWS_S, PromptMemory
from farthing.proxy.prompt_spots import Spot, inserted
from farthing.proxy.tasks import TaskGroup

__all__ = ["Warmer", "warm_body"]

_MOST = 64
_AT = 0.9  # of a life: early enough for a slow call
_TICK_S = 5.0
_ONCE, _TWICE = WINDOWS_S.index(300.0), WINDOWS_S.index(600.0)


@dataclass(slots=True)
class _Waiting:
    """A prefix that may be read again. `seen_s`: the arrival that it waits behind."""

    ex: Exchange
    marked: Marked
    spot: Spot
    tokens: int
    seen_s: float


@dataclass(slots=True)
class Warmer:
    """`errands`: straight to the upstream. Nothing is sent until `start`, or a call of `tick`, nor while
    `switched_off`."""

    errands: Errands
    memory: PromptMemory
    rates: RateCard
    switched_off: Callable[[], bool]
    waiting: OrderedDict[int, _Waiting] = field(default_factory=OrderedDict)
    tasks: TaskGroup = field(default_factory=TaskGroup)

    def after(self, ex: Exchange, marked: Marked) -> None:
        """A request was answered that left something in the cache: note the prefix that is most worth keeping."""
        if marked.cache.kind is not Kind.EXPLICIT or ex.call is None or ex.call.usage is None:
            return
        held = ex.call.usage.tokens_read + ex.call.usage.tokens_written
        best: tuple[float, Spot, int] | None = None
        read = [] if marked.reading is None else [(marked.reading[0], marked.cache.ttl_s)]
        for spot, kept_s in (*marked.cached, *read):
            tokens = min(held, self.memory.tokens(marked.model, spot.chars))
            if kept_s != marked.cache.ttl_s or tokens < marked.cache.minimum_tokens:
                continue
            gain = self._gain(marked, ex, spot, tokens)
            if gain > 0 and (best is None or gain > best[0]):
                best = gain, spot, tokens
        seen = None if best is None else self.memory.returns.get(best[1].key)
        if best is None or seen is None or seen.last_s is None:
            return
        _, spot, tokens = best
        self.waiting.pop(spot.key, None)
        self.waiting[spot.key] = _Waiting(ex, marked, spot, tokens, seen.last_s)
        if len(self.waiting) > _MOST:
            self.waiting.popitem(last=False)

    def _gain(self, marked: Marked, ex: Exchange, spot: Spot, tokens: int) -> float:
        upstream = "" if ex.call is None else ex.call.upstream
        rates = self.rates.at(upstream).rates(marked.model, self.errands.clock.now_s())
        if rates is None or not (fresh := rates.fresh.at(tokens)):
            return -1.0
        chances = self.memory.returns.chances(spot.key, ())
        read, write = rates.cached.at(tokens) / fresh, rates.cache_write.at(tokens) / fresh
        return gain_of_keeping(tokens, chances[_ONCE], chances[_TWICE], float(read), float(write))

    async def tick(self) -> None:
        """Read again what is about to be forgotten and has not returned meanwhile."""
        if self.switched_off():
            self.waiting.clear()
            return
        now_s = self.errands.clock.now_s()
        for key, one in list(self.waiting.items()):
            seen = self.memory.returns.get(key)
            if seen is None or seen.last_s is None or now_s > one.seen_s + one.marked.cache.ttl_s:
                del self.waiting[key]
            elif seen.last_s > one.seen_s:
                del self.waiting[key]  # it came again; that request has noted it where it is still worth it
            elif now_s >= one.seen_s + _AT * one.marked.cache.ttl_s:
                del self.waiting[key]
                await self._read(one)

    async def _read(self, one: _Waiting) -> None:
        if not self.errands.may(one.marked.model):
            return
        ex, marked = one.ex, one.marked
        body = warm_body(loads(marked.body), one.spot)
        if body is None:
            return
        own = self.errands.begin(ex.original._replace(target="/v1/messages"))
        for name in CARRIED:
            setattr(own, name, getattr(ex, name))
        own.endpoint, own.stream, own.plan, own.payload = Endpoint.MESSAGES, False, None, loads(body)
        own.body = body
        own.exact = own.payload
        if isinstance(ex.variant, Variant):
            own.variant = replace(ex.variant, params=())
        call = await self.errands.run(own, f"keeps warm what {ex.id} left")
        if call.usage is not None and call.usage.tokens_read + call.usage.tokens_written:
            self.memory.returns.warm(one.spot.key, self.errands.clock.now_s() + marked.cache.ttl_s)

    # -- by the clock

    def start(self) -> None:
        """Look every few seconds from now on."""
        self.tasks.spawn(self._watch(), "keep warm")

    async def stop(self) -> None:
        """No more."""
        await self.tasks.drain(0)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(_TICK_S)
            await self.tick()


def warm_body(payload: dict[str, Any], spot: Spot) -> bytes | None:
    """The shortest request that reads the prefix up to the spot, which is marked in it; None where there is none."""
    asked = {name: payload[name] for name in ("model", "tools", "system", "tool_choice") if name in payload}
    turns = payload.get("messages")
    if not isinstance(turns, list):
        return None
    if spot.turn:
        if payload.get("thinking") is not None:
            return None  # what it may think is more than one token
        turns = turns[: spot.turn]
        if turns[-1].get("role") != "user":
            return None
    else:
        turns = [{"role": "user", "content": "."}]
        asked.pop("tool_choice", None)
    body = orjson.dumps(asked | {"messages": turns, "max_tokens": 1})
    place = find(body, spot.path)
    if place is None:
        return None
    block = orjson.loads(body[slice(*place)])
    marked = isinstance(block, list) or (isinstance(block, dict) and block.get("cache_control") is not None)
    return body if marked else inserted(body, [(spot, b'{"type":"ephemeral"}')], "cache_control")
