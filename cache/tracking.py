"""Hears from the shared store's server which entries changed, whoever changed them: so that memory may stand before it.

The server tells of every key under a prefix that is written, removed, evicted or expires (Redis, "Client-side caching",
broadcasting mode), in RESP2's way: on a connection that is subscribed to the channel of invalidations and redirects
them to itself. What is told comes in order on one connection, and an answer to a PING comes behind all that was told
before. So an answered PING proves that everything is known that had changed when the PING *before* it was sent; that
moment is `as_of_tick`, and whoever serves from memory looks how long ago it was. A server that hangs, or a line that
lost its other end without a word, makes what is in memory old, and not wrong.

Behind sentinels that holds only while the server is primary. One that was stopped or cut off while its replica took
over answers PINGs again, and believes for seconds that it is primary still, while all others write to the new one. So
each PING's answer counts only if the sentinels, asked after it, still name this server.

Rules of this file: while nothing is heard nothing is known; and after each new connection all that was in memory is
forgotten, since nobody says what changed meanwhile: `moved` first, so that nothing is read any more from a server that
was left, then `lost`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import structlog

from farthing.cache.redis_client import open_way, still_primary, where_of
from farthing.proxy.clock import Clock

__all__ = ["Tracking"]

log = structlog.get_logger("farthing.store")

_CHANNEL = "__redis__:invalidate"
_ANSWER_S = 2.0
_SILENT_S = 5.0  # a connection on which PINGs aren't answered for so long is made anew
_PAUSE_FIRST_S, _PAUSE_MOST_S = 0.1, 5.0
_PAUSE_REFUSED_S = 60.0
_PINGS = 4  # within the time that memory may be old


class Tracking:
    """`prefix`: of the keys that are told. `stale_s`: how old what is known may become before it is no good; four PINGs
    are sent in that time. `changed`: called with each key; `lost`: all of them may have changed; `moved`: awaited
    before `lost` on a new connection, which may be to another server. One connection of its own. Raises ConfigFault: a
    URL that redis-py can't read."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        stale_s: float,
        clock: Clock,
        changed: Callable[[str], None],
        lost: Callable[[], None],
        moved: Callable[[], Awaitable[None]],
    ) -> None:
        self._client, self._hang_up = open_way(url, 1, answer_s=_ANSWER_S, protocol=2)
        self._where = where_of(url)
        self._prefix = prefix
        self._beat_s = stale_s / _PINGS
        self._clock = clock
        self._changed = changed
        self._lost = lost
        self._moved = moved
        self._working: bool | None = None
        self.as_of_tick = -math.inf
        """Monotonic seconds: everything is known that changed before."""

    async def run(self) -> None:
        """Listen until cancelled."""
        from redis.exceptions import RedisError, ResponseError

        pause_s = _PAUSE_FIRST_S
        while True:
            heard_tick = self._clock.tick_s()
            try:
                await self._listen()
            except ResponseError as error:
                self._tell(f"the server refuses: {error}")
                pause_s = _PAUSE_REFUSED_S
            except (RedisError, OSError, EOFError, TimeoutError, RuntimeError) as error:
                self._tell(repr(error))
                worked = self.as_of_tick >= heard_tick
                pause_s = _PAUSE_FIRST_S if worked else min(2 * pause_s, _PAUSE_MOST_S)
            finally:
                self.as_of_tick = -math.inf
                self._lost()
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """Let go of the connection's pool; `run` has ended."""
        await self._hang_up()

    async def _listen(self) -> None:
        """One connection's life. Raises what redis-py raises."""
        link = self._client.connection_pool.make_connection()
        try:
            await link.connect()
            id = await _answer(link, "CLIENT", "ID")
            await _answer(link, "CLIENT", "TRACKING", "ON", "REDIRECT", id, "BCAST", "PREFIX", self._prefix)
            begun_tick = self._clock.tick_s()
            await _answer(link, "SUBSCRIBE", _CHANNEL)
            await self._moved()
            self._lost()  # what is being read now may have changed before
            self.as_of_tick = begun_tick
            self._tell("")
            await self._hear(link, begun_tick)
        finally:
            with suppress(Exception):
                await link.disconnect(nowait=True)

    async def _hear(self, link: Any, known_tick: float) -> None:
        """Messages, and a PING at each beat. `known_tick`: when the PING before, or the subscription, was sent."""
        asked_tick: float | None = None  # a PING is under way
        next_tick = known_tick
        while True:
            now_tick = self._clock.tick_s()
            if asked_tick is None and now_tick >= next_tick:
                await link.send_command("PING")
                asked_tick, next_tick = now_tick, now_tick + self._beat_s
            if asked_tick is not None and now_tick - asked_tick > _SILENT_S:
                raise TimeoutError(f"no answer for {_SILENT_S:.0f} s")
            rest_s = self._beat_s if asked_tick is not None else next_tick - now_tick
            said = await link.read_response(disable_decoding=True, timeout=max(0.001, rest_s))
            if said is None:
                continue
            if said[0] == b"pong" and asked_tick is not None:
                if not await still_primary(self._client, link):
                    raise OSError("another server is primary now")
                self.as_of_tick, known_tick, asked_tick = known_tick, asked_tick, None
            elif said[0] == b"message":
                self._heard(said[2])

    def _heard(self, keys: list[bytes] | None) -> None:
        if keys is None:  # the server was emptied
            self._lost()
            return
        for key in keys:
            self._changed(key.decode(errors="replace"))

    def _tell(self, fault: str) -> None:
        """One log line for each change between hearing and not hearing."""
        if self._working is (not fault):
            return
        first, self._working = self._working is None, not fault
        if fault:
            said = "the store's changes can't be followed: nothing is served from the memory in front of it"
            log.warning(said, store=self._where, error=fault)
        elif not first:
            log.warning("the store's changes are followed again", store=self._where)


async def _answer(link: Any, *command: object) -> Any:
    await link.send_command(*command)
    return await link.read_response(disable_decoding=True)
