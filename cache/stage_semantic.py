"""The semantic cache's place in the pipeline: a near-duplicate in the same scope may answer.

In *observe* the look-up runs while the upstream works, so that a miss waits for nothing, and serves nothing. In
*serve* it runs before the upstream, within a deadline; late means miss. Embedding and search live on a thread of their
own, `SemanticThread`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass, field
from typing import Any

from farthing.cache.entry import Entry
from farthing.cache.guard import unmatchable
from farthing.cache.key import neighbourhood
from farthing.cache.semantic import Found
from farthing.cache.semantic_thread import SemanticThread
from farthing.cache.stage_exact import Renderer, scope_of, served
from farthing.cache.store import Store
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.exchange import GO_ON, CacheStatus, Exchange, LocalReply, Quiet, Verdict

__all__ = ["SemanticStage"]


@dataclass(slots=True)
class SemanticStage(Quiet):
    """`serve` is only ever true together with the operator's word that the bound is unproven.

    `worth_usd`: what a hit on an entry saves, None where its price is unknown.
    """

    thread: SemanticThread | None
    store: Store
    upstream_url: str
    serve: bool
    threshold: float
    deadline_s: float
    spawn: Callable[[Coroutine[Any, Any, Any]], asyncio.Task[Any]]
    clock: Clock
    randomness: Randomness
    renderer: Renderer
    worth_usd: Callable[[Entry], float | None] = lambda entry: None
    name: str = field(default="semantic", init=False)
    hard: bool = field(default=False, init=False)

    async def on_request(self, ex: Exchange) -> Verdict:
        """Answer from a neighbour where that is allowed; otherwise look without making anybody wait."""
        if self.thread is None or not ex.may_semantic or not ex.key or ex.exact is None:
            return GO_ON
        place = neighbourhood(scope_of(ex, self.upstream_url), ex.exact)
        if isinstance(place, str):
            ex.decide(self.name, "passed by", place)
            return GO_ON
        reason = unmatchable(place[1])
        if reason:
            ex.decide(self.name, "passed by", reason)
            return GO_ON
        ex.place = place
        if not self.thread.ready:
            ex.decide(self.name, "passed by", "busy or not loaded yet")
            return GO_ON
        if not self.serve:
            ex.looking = self.spawn(self._look(ex, self.thread, place))
            return GO_ON
        try:
            async with asyncio.timeout(self.deadline_s):
                found = await self._look(ex, self.thread, place)
        except TimeoutError:
            ex.decide(self.name, "late", f"no answer within {self.deadline_s * 1000:.0f} ms")
            return GO_ON
        return await self._reply(ex, found) or GO_ON

    def learn(self, ex: Exchange, entry: Entry) -> None:
        """A new answer is in the store: let its prompt be found."""
        if self.thread is None or ex.place is None or not self.thread.ready:
            return
        scope, text = ex.place
        worth_usd = self.worth_usd(entry)
        self.spawn(self.thread.run(lambda cache: cache.add(scope, text, entry.key, entry.expires_s, worth_usd)))

    async def forget(self, entry_keys: Iterable[str]) -> None:
        """These answers are gone from the store."""
        keys = tuple(entry_keys)
        if self.thread is not None and keys:
            await self.thread.run(lambda cache: cache.remove(keys))

    async def _look(self, ex: Exchange, thread: SemanticThread, place: tuple[str, str]) -> Found:
        scope, text = place
        now_s = self.clock.now_s()
        found = await thread.lookup(scope, text, now_s, self.threshold)
        ex.similarity = found.similarity
        would = "would serve" if not self.serve and found.entry_key else "looked"
        ex.decide(self.name, would, found.verdict)
        return found

    async def _reply(self, ex: Exchange, found: Found) -> LocalReply | None:
        if found.entry_key is None:
            return None
        entry = await self.store.get(found.entry_key, self.clock.now_s())
        if entry is None or entry.scope != ex.tenant or entry.endpoint != ex.endpoint:
            await self.forget([found.entry_key])
            return None
        oldest = ex.controls.max_age_s
        if oldest is not None and self.clock.now_s() - entry.stored_s > oldest:
            ex.decide(self.name, "looked", "older than max-age")
            return None
        reply = await served(ex, entry, self.renderer, self.clock, self.randomness)
        if reply is not None:
            ex.cache, ex.cache_reason = CacheStatus.HIT_SEMANTIC, "unproven"
        return reply
