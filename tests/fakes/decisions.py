"""The three stores of decisions, opened for a contract suite: memory alone, memory over SQLite, a real Valkey."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from farthing.cache.store_redis import RedisStore
from farthing.compress.decided_disk import FileDecisions
from farthing.compress.decided_redis import RedisDecisions
from farthing.compress.decided_store import Decisions, MemoryDecisions
from farthing.proxy.clock import FakeClock
from tests.fakes.valkey import ValkeyProcess

__all__ = ["KINDS", "TTL_S", "Opened"]

KINDS = ("memory", "file", "file, nothing hot", "redis", "redis, nothing hot")
TTL_S = 1000.0


@dataclass(slots=True)
class Opened:
    """Stores of one kind, each call of `another` another process's view of the same (memory has only the one)."""

    kind: str
    path: Path
    clock: FakeClock
    valkey: ValkeyProcess
    _decisions: list[Decisions] = field(default_factory=list)
    _servers: list[RedisStore] = field(default_factory=list)

    async def another(self) -> Decisions:
        """One more of them, open."""
        self._decisions.append(await self._open())
        return self._decisions[-1]

    async def _open(self) -> Decisions:
        if self.kind == "memory":
            known = self._decisions[:1]
            return known[0] if known else MemoryDecisions(clock=self.clock, ttl_s=TTL_S, most_bytes=10**6)
        memory_bytes = 0 if "nothing" in self.kind else 10**6
        if self.kind.startswith("redis"):
            server = RedisStore(self.valkey.url, deadline_ms=2000, clock=self.clock)
            self._servers.append(server)
            return RedisDecisions(server, clock=self.clock, ttl_s=TTL_S, memory_bytes=memory_bytes)
        file = FileDecisions(
            self.path, clock=self.clock, ttl_s=TTL_S, max_bytes=10**7, memory_bytes=memory_bytes, flush_ms=1
        )
        await file.open()
        return file

    async def close(self) -> None:
        """All of them, and what they stand on."""
        for each in (*self._decisions, *self._servers):
            await each.close()
