"""The near-duplicates of several replicas: the log in the shared store, and what is told of it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from farthing.cache.embedder import Embedder
from farthing.cache.log_redis import RedisLog
from farthing.cache.semantic_thread import SemanticThread
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.seal import Seal

__all__ = ["SharedIndex"]

_DEADLINE_MS = 5_000.0  # no request waits for any of this
_LAST_S = 1.0
_NAME_BYTES = 8


class SharedIndex:
    """`url`: of the shared store. It has connections of its own, so that its long answers keep no request waiting, and
    its failures don't shut answers out. Made on the event loop."""

    def __init__(self, url: str, *, clock: Clock, randomness: Randomness, seal: Seal | None) -> None:
        self._store = RedisStore(
            url,
            deadline_ms=_DEADLINE_MS,
            clock=clock,
            threshold=2,
            max_connections=4,
            told_as="the replicas' log of near-duplicates",
            passed_by="this replica goes on with what it holds",
        )
        self._clock = clock
        self._randomness = randomness
        self._seal = seal
        self.log: RedisLog | None = None

    def open(self, embedder: Embedder) -> RedisLog:
        """The log for this model's vectors, on whatever thread."""
        self.log = RedisLog(
            self._store,
            embedder=embedder.name,
            dim=embedder.dim,
            writer=self._randomness.token(_NAME_BYTES),
            clock=self._clock,
            noise=self._randomness.token(_NAME_BYTES),
            seal=self._seal,
        )
        return self.log

    async def look(self, thread: SemanticThread) -> None:
        """Send what was put here, and take over what the others did, until there is no more."""
        while thread.loaded and self.log is not None:
            more = await self.log.exchange()
            if thread.loaded:
                await thread.run(lambda cache: cache.follow())
            if not more:
                return

    async def close(self) -> None:
        """Send what waits, if the server takes it at once, and let go."""
        if self.log is not None:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    await self.log.exchange()
        await self._store.close()

    def gauges(self) -> dict[str, float]:
        """For /metrics."""
        if self.log is None:
            return {}
        state, compared = self.log.state, self.log.state.compared
        found: dict[str, float] = {
            "semantic_log_reached": state.reached,
            "semantic_log_generation": state.generation,
            "semantic_log_lag_changes": self.log.lag,
            "semantic_log_waiting_changes": self.log.waiting,
            "semantic_log_dropped_changes": state.dropped,
            "semantic_log_snapshots": state.snapshots,
            "semantic_replicas": compared.others + 1,
            "semantic_replicas_compared": compared.compared,
            "semantic_replicas_differing": len(compared.differing),
        }
        if state.caught_up_tick_s is not None:
            found["semantic_log_age_seconds"] = self._clock.tick_s() - state.caught_up_tick_s
        return found

    def told(self) -> dict[str, Any]:
        """For /readyz."""
        if self.log is None:
            return {"state": "loading"}
        state, compared = self.log.state, self.log.state.compared
        caught_up = state.caught_up_tick_s
        return {
            "state": "away" if not state.reached else "catching up" if caught_up is None or self.log.lag else "current",
            "generation": state.generation,
            "seq": state.seq,
            "lag_changes": self.log.lag,
            "age_s": None if caught_up is None else round(self._clock.tick_s() - caught_up, 3),
            "replicas": compared.others + 1,
            "compared": compared.compared,
            "differing": len(compared.differing),
            "compared_at_seq": compared.seq,
        }
