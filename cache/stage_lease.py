"""Is another process asking the upstream the same at this moment? Then wait for its answer; else be the one who asks.

What stage_flight is within a process, this is beyond it (lease.py says how). It stands before everything that costs
money or time, and its end comes after the answer has been stored.

Rules of this file: whoever can't be sure goes on alone, at once. Nobody waits longer than `wait_s`, nor for one that
failed. A stream that is to begin at once doesn't wait for a whole answer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal

from farthing.cache.lease import Answer, Lease, Leases, State, name_of, pause_s
from farthing.cache.stage_exact import Renderer, served, too_old
from farthing.cache.stage_flight import flight_key
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.errors import StoreFault
from farthing.proxy.exchange import GO_ON, CacheStatus, Exchange, Quiet, Verdict

__all__ = ["Across", "LeaseStage"]

Across = Literal["off", "whole", "all"]

_RENEWALS = 3  # in the time that a lease lasts


@dataclass(slots=True)
class LeaseStage(Quiet):
    """`leases`: None where no other process could share an answer. `across`: which requests wait for others: those for
    a whole answer, or streams too, which then come all at once. `ttl_s`: KeepStage's."""

    leases: Leases | None
    across: Across
    wait_s: float
    clock: Clock
    randomness: Randomness
    renderer: Renderer
    spawn: Callable[[Coroutine[Any, Any, Any]], object]
    ttl_s: Callable[[Sequence[str], str, Sequence[tuple[str, str]], bytes], int]
    held: set[Lease] = field(default_factory=set)
    renewing: bool = False
    name: str = field(default="lease", init=False)
    hard: bool = field(default=False, init=False)

    @property
    def idle(self) -> bool:
        """See Stage: nothing is shared."""
        return self.leases is None or self.across == "off"

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Wait for another one's answer, or go on and be waited for."""
        if self.leases is None or not shareable(ex) or not self._will_be_kept(ex):
            return GO_ON
        return self._ask(ex, self.leases)

    def on_end(self, ex: Exchange) -> Awaitable[None] | None:
        """The answer is stored, or there is none to store."""
        lease: Lease | None = ex.lease
        if lease is None or self.leases is None:
            return None
        self.held.discard(lease)
        return None if lease.over else self._free(lease, self.leases)

    def _will_be_kept(self, ex: Exchange) -> bool:
        """Whether an answer to this request would be stored, as far as the request says."""
        if ex.controls.ttl_s is not None:
            return ex.controls.ttl_s > 0
        return self.ttl_s((ex.model,), ex.endpoint, ex.controls.tags, b"") > 0

    async def _ask(self, ex: Exchange, leases: Leases) -> Verdict:
        assert ex.call is not None
        begun, flight, waited_for = self.clock.tick_s(), ex.call.id, ""
        patience_s = self.wait_s if self.across == "all" or not ex.stream else 0.0
        lease_name = name_of(flight_key(ex), ex.credential)
        while True:
            try:
                found = await leases.take(ex.key, lease_name, flight, waited_for)
                if found.state is State.STORED:
                    return await self._given(ex, leases, begun, waited_for)
            except StoreFault as fault:
                return self._alone(ex, str(fault))
            if found.state is State.TAKEN:
                return self._leads(ex, leases, lease_name, found, waited_for)
            if found.state is State.FAILED:
                return self._alone(ex, "whom it waited for had no answer to share")
            waited_s = self.clock.tick_s() - begun
            if waited_s >= patience_s:
                said = "another asks the same" if not patience_s else f"{waited_s:.1f} s were long enough to wait"
                return self._alone(ex, said)
            waited_for = found.flight
            await asyncio.sleep(min(pause_s(waited_s), patience_s - waited_s))

    def _alone(self, ex: Exchange, why: str) -> Verdict:
        ex.decide(self.name, "alone", why)
        return GO_ON

    def _leads(self, ex: Exchange, leases: Leases, name: str, found: Answer, waited_for: str) -> Verdict:
        assert ex.call is not None
        if waited_for:
            ex.decide(self.name, "took over", "whom it waited for was heard of no more")
        ex.lease = Lease(ex.key, name, ex.call.id, found.token)
        self.held.add(ex.lease)
        self._renew_later(leases)
        return GO_ON

    async def _given(self, ex: Exchange, leases: Leases, begun: float, waited_for: str) -> Verdict:
        """The answer is stored: it is this request's, as if it had joined that flight."""
        now_s = self.clock.now_s()
        entry = await leases.get(ex.key, now_s)
        if entry is None:
            return self._alone(ex, "the answer was gone again")
        reply = (
            None if too_old(ex, entry, now_s) else await served(ex, entry, self.renderer, self.clock, self.randomness)
        )
        if reply is None or ex.call is None:
            return self._alone(ex, "the answer does not serve it")
        ex.leads, ex.cache, ex.given = False, CacheStatus.HIT_EXACT, reply.body
        if waited_for:
            ex.cache, ex.joined_tick = CacheStatus.JOINED, begun
            ex.call.id, ex.call.started_tick = waited_for, begun
        return reply

    async def _free(self, lease: Lease, leases: Leases) -> None:
        with suppress(StoreFault):  # then it ends by itself
            await leases.free(lease)

    def _renew_later(self, leases: Leases) -> None:
        if not self.renewing:
            self.renewing = True
            asyncio.get_running_loop().call_later(leases.lease_s / _RENEWALS, self._renew, leases)

    def _renew(self, leases: Leases) -> None:
        self.renewing = False
        if self.held:
            self.spawn(self._renewed(leases, tuple(self.held)))
            self._renew_later(leases)

    async def _renewed(self, leases: Leases, held: tuple[Lease, ...]) -> None:
        with suppress(StoreFault):  # the next time, or somebody takes them over
            await leases.renew(held)


def shareable(ex: Exchange) -> bool:
    """Whether another process's answer may be this request's, and its own another's: what is looked up, kept and joined
    as one answer, and of which nothing that is stored already was refused for this request."""
    return (
        ex.may_join
        and ex.may_read
        and ex.may_store
        and bool(ex.key)
        and ex.items is None
        and ex.cache is CacheStatus.MISS
        and not ex.cache_reason
        and not ex.controls.only_if_cached
    )
