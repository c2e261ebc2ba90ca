"""Decisions in Redis or Valkey, so that all replicas send the same bytes: the first to decide wins.

Keys: `<prefix>:d:<tenant's tag><chain hash>`, both as hex, with Redis's own expiry, prolonged by each read (GETEX,
Redis 6.2). No transaction and no script: a decision is one value, `SET NX` says who was first, and whoever was not
reads it.

Rules of this file:
1. What is read stays at hand for `hold_s`. Not for longer: should the server lose what it had, replicas that remember
   and replicas that don't would send different bytes for as long.
2. No decision is used that the server has not confirmed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Protocol, TypeVar

from farthing.compress.decided import TAG_BYTES, Decision, decode, encode, resealed
from farthing.compress.decided_store import Found, Front
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import MissingKeys, Seal, SealedElsewhere

__all__ = ["RedisDecisions", "Server"]

T = TypeVar("T")
_SCAN_COUNT = 500


class Server(Protocol):
    """A connection with a deadline and a breaker: cache.store_redis.RedisStore."""

    async def run(self, kind: str, command: Callable[[Any], Awaitable[T]]) -> T:
        """The command's result, given redis-py's client; `kind`: read or write. Raises StoreFault."""
        ...


class RedisDecisions:
    """Decisions over a Redis server, a cluster included. The server's connection belongs to whoever made it. `seal`: as
    FileDecisions has it."""

    def __init__(
        self,
        server: Server,
        *,
        clock: Clock,
        ttl_s: float,
        memory_bytes: int,
        hold_s: float = 60.0,
        prefix: str = "farthing",
        seal: Seal | None = None,
    ) -> None:
        self._server = server
        self._clock = clock
        self._ttl_ms = max(1, int(ttl_s * 1000))
        self._hold_s = min(hold_s, ttl_s / 2)
        self._prefix = prefix
        self._front = Front(memory_bytes)
        self._seal = seal
        self._missing = MissingKeys(f"{prefix}:d", "what they belong to is only tidied")

    async def get_many(self, keys: Sequence[bytes]) -> Found:
        """Decisions.get_many."""
        now_s = self._clock.now_s()
        found = {key: held[0] for key in keys if (held := self._front.get(key, now_s)) is not None}
        asked = [key for key in dict.fromkeys(keys) if key not in found]
        away = False
        if asked:
            try:
                values = await self._server.run("read", lambda client: self._read(client, asked))
            except StoreFault:
                values, away = [], True
            for key, value in zip(asked, values, strict=False):
                try:
                    decision = decode(key, value, self._seal) if value is not None else None
                except SealedElsewhere as sealed:
                    self._missing.tell(sealed)
                    away = True
                    continue
                if decision is not None:
                    found[key] = decision
                    self._front.put(key, decision, now_s + self._hold_s)
            await self._reseal(asked, values)
        return Found([found.get(key) for key in keys], away)

    async def put_many(self, decided: Sequence[tuple[bytes, Decision]]) -> list[Decision]:
        """Decisions.put_many: one exchange with the server, a second where somebody else was first."""
        now_s = self._clock.now_s()
        values = await self._server.run("write", lambda client: self._write(client, decided))
        for (key, _), decision in zip(decided, values, strict=True):
            self._front.put(key, decision, now_s + self._hold_s)
        return values

    async def forget(self, tag: bytes) -> None:
        """Decisions.forget. Cost: a walk over all of the server's keys. Other replicas remember for `hold_s`."""
        self._front.forget(tag)

        async def unlink(client: Any) -> None:
            async for name in client.scan_iter(match=f"{self._prefix}:d:{tag.hex()}*", count=_SCAN_COUNT):
                await client.unlink(name)

        await self._server.run("purge", unlink)

    async def close(self) -> None:
        """Decisions.close. The server's connection is left open."""

    def _name(self, key: bytes) -> str:
        return f"{self._prefix}:d:{key[:TAG_BYTES].hex()}{key[TAG_BYTES:].hex()}"

    async def _read(self, client: Any, keys: Sequence[bytes]) -> list[bytes | None]:
        pipe = client.pipeline(transaction=False)
        for key in keys:
            pipe.execute_command("GETEX", self._name(key), "PX", self._ttl_ms)
        values: list[bytes | None] = await pipe.execute()
        return values

    async def _reseal(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """What is used on is closed under the current key; where that fails, the next use tries again."""
        if self._seal is None:
            return
        pairs = [(key, value) for key, value in zip(keys, values, strict=False) if value is not None]
        anew = {key: closed for key, value in pairs if (closed := resealed(key, value, self._seal)) is not None}

        async def replace(client: Any) -> None:
            pipe = client.pipeline(transaction=False)
            for key, value in anew.items():
                pipe.execute_command("SET", self._name(key), value, "PX", self._ttl_ms, "XX")
            await pipe.execute()

        if anew:
            with suppress(StoreFault):
                await self._server.run("write", replace)

    async def _write(self, client: Any, decided: Sequence[tuple[bytes, Decision]]) -> list[Decision]:
        """What holds under each key after it was offered ours."""
        pipe = client.pipeline(transaction=False)
        for key, decision in decided:
            pipe.execute_command("SET", self._name(key), encode(key, decision, self._seal), "PX", self._ttl_ms, "NX")
        first = await pipe.execute()
        kept: list[Decision] = [decision for _, decision in decided]
        others = [number for number, won in enumerate(first) if not won]
        theirs = await self._read(client, [decided[number][0] for number in others]) if others else []
        for number, value in zip(others, theirs, strict=True):
            key, mine = decided[number]
            try:
                held = decode(key, value, self._seal) if value is not None else None
            except SealedElsewhere:
                held = None
            if held is not None:
                kept[number] = held
            else:  # damaged, or closed for good: ours takes its place
                await client.set(self._name(key), encode(key, mine, self._seal), px=self._ttl_ms)
        return kept
