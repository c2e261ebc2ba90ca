"""Reads entries from the very server that is listened to for them, so that memory may hold what was read.

A cluster's client follows redirections, and may be sent by an old primary to itself: whatever it reads is an answer,
but nobody knows whose. What memory holds was therefore read on a connection to the server that tells of the key's
changes, without a redirection. Where that server refuses or fails, the store's own client reads, and nothing is held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

__all__ = ["At", "Server", "read", "read_many"]


@dataclass(slots=True, eq=False)
class Server:
    """One server that is listened to. `client`: redis-py's, to it alone; `left`: nobody may begin to ask it."""

    client: Any
    left: bool = False
    _under_way: int = 0
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    @contextmanager
    def asked(self) -> Iterator[Any]:
        """Its client, for one command."""
        self._under_way += 1
        try:
            yield self.client
        finally:
            self._under_way -= 1
            if not self._under_way:
                self._idle.set()

    async def leave(self) -> None:
        """Hang up. A connection that is being made meanwhile is waited for, or it would be forgotten and stay open."""
        self.left = True
        try:
            await self.client.connection_pool.disconnect(inuse_connections=True)
            if self._under_way:
                self._idle.clear()
                await self._idle.wait()
        finally:
            await self.client.aclose()


@dataclass(slots=True, eq=False)
class At:
    """Where one entry is to be read. `server`: None where any that the store's client asks will do. `heard`: what is
    read may be held, since whoever gave it tells of its changes; made false where another had to be asked."""

    server: Server | None = None
    heard: bool = True


async def read(own: Any, name: str, at: At | None) -> bytes | None:
    """The entry as it is kept, from that server, else by `own`, redis-py's client. Raises what it raises."""
    if at is not None and at.server is not None:
        found = await _some(at.server, [name], [at])
        if found:
            return found[0]
    raw: bytes | None = await own.get(name)
    return raw


async def read_many(
    own: Callable[[Sequence[str]], Awaitable[list[bytes | None]]], names: Sequence[str], ats: Sequence[At] | None
) -> list[bytes | None]:
    """`read` for each, each server asked once and all at the same time. `own`: many by the store's client."""
    if ats is None or all(at.server is None for at in ats):
        return await own(names)
    by_server: dict[Server | None, list[int]] = {}
    for place, at in enumerate(ats):
        by_server.setdefault(at.server, []).append(place)
    found: dict[int, bytes | None] = {}

    async def ask(server: Server | None, places: list[int]) -> None:
        some = await _some(server, [names[place] for place in places], [ats[place] for place in places])
        found.update((places[number], raw) for number, raw in some.items())

    await asyncio.gather(*(ask(server, places) for server, places in by_server.items()))
    rest = [place for place in range(len(names)) if place not in found]
    if rest:
        found.update(zip(rest, await own([names[place] for place in rest]), strict=True))
    return [found[place] for place in range(len(names))]


async def _some(server: Server | None, names: Sequence[str], ats: Sequence[At]) -> dict[int, bytes | None]:
    """What that server gave, by place; the others may not be held, but where there is no server to ask."""
    from redis.exceptions import RedisError

    if server is None:
        return {}
    said: list[Any] = []
    if not server.left and all(at.heard for at in ats):
        try:
            with server.asked() as client:
                pipe = client.pipeline(transaction=False)
                for name in names:
                    pipe.get(name)
                said = await pipe.execute(raise_on_error=False)
        except (RedisError, OSError, RuntimeError, AttributeError):  # the last two: as in store_redis
            pass
    found = {place: one for place, one in enumerate(said) if not isinstance(one, Exception)}
    for place, at in enumerate(ats):
        at.heard = at.heard and place in found
    return found
