"""Replicas of a semantic cache over a real server, each with a log of its own; driven step by step."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from farthing.cache.index_log import Changes, Snapshot
from farthing.cache.log_redis import RedisLog
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import SystemClock

__all__ = ["SentAtOnce", "a_log"]

T = TypeVar("T")


def a_log(
    url: str, writer: str, *, prefix: str = "t", dim: int = 4, deadline_ms: float = 2_000, **settings: object
) -> RedisLog:
    """One replica's log, with a connection of its own."""
    store = RedisStore(
        url,
        deadline_ms=deadline_ms,
        clock=SystemClock(),
        prefix=prefix,
        threshold=2,
        pause_s=0.05,
        told_as="the replicas' log",
        passed_by="it goes on without",
    )
    defaults: dict[str, object] = {"embedder": "e", "mark_every_s": 0.02}
    return RedisLog(
        store, dim=dim, writer=writer, clock=SystemClock(), noise=writer, prefix=prefix, **(defaults | settings)
    )  # type: ignore[arg-type]


class SentAtOnce:
    """An IndexLog that sends and fetches in every call, as a file does. `make`: the log, made on the loop it lives
    on."""

    def __init__(self, loop: asyncio.AbstractEventLoop, make: Callable[[], RedisLog]) -> None:
        self._loop = loop
        self.log = self._run(_made(make))
        self._put, self._delete, self._clear = self.log.put, self.log.delete, self.log.clear

    def _run(self, work: Awaitable[T]) -> T:
        return self._loop.run_until_complete(work)

    def _exchange(self) -> None:
        while self._run(self.log.exchange()):
            pass

    def snapshot(self) -> Snapshot:
        """IndexLog.snapshot: of now."""
        self.log.since(0)
        self.log.snapshot()
        self.log.again()
        self._exchange()
        found = self.log.snapshot()
        return Snapshot(list(found.rows), found.offset, found.begun, found.own)

    def put(self, *given: object) -> None:
        """IndexLog.put."""
        self.log.put(*given)  # type: ignore[arg-type]
        self._exchange()

    def delete(self, *given: object) -> None:
        """IndexLog.delete."""
        self.log.delete(*given)  # type: ignore[arg-type]
        self._exchange()

    def clear(self) -> None:
        """IndexLog.clear."""
        self.log.clear()
        self._exchange()

    def since(self, offset: int) -> Changes:
        """IndexLog.since, with marks passed over."""
        self.log.seek(offset)
        self._exchange()
        return self.log.since(offset)

    def close(self) -> None:
        """IndexLog.close."""
        self._run(self.log.store.close())


async def _made(make: Callable[[], RedisLog]) -> RedisLog:
    return make()
