"""Hears from the shared store's servers which entries changed, whoever changed them: so that memory may stand before
them.

A server tells of every key under a prefix that is written, removed, evicted or expires (Redis, "Client-side caching",
broadcasting mode), in RESP2's way: on a connection that is subscribed to the channel of invalidations and redirects
them to itself. What is told comes in order on one connection, and an answer to a PING comes behind all that was told
before. So an answered PING proves that everything is known that had changed when the PING *before* it was sent; that
moment is `as_of_tick`, and whoever serves from memory looks how long ago it was. A server that hangs, or a line that
lost its other end without a word, makes what is in memory old, and not wrong. Of a cluster every primary is sent a
PING, and it counts when the last one has answered.

That holds only while the server is primary. One that was stopped or cut off while its replica took over answers PINGs
again, and believes for seconds that it is primary still, while all others write to the new one. So each PING's answer
counts only if, asked after it, the sentinels still name this server; or all of a cluster's primaries still say the same
of who has which keys (listened.py).

Rules of this file: while nothing is heard nothing is known; and after each new connection, and whenever keys went from
one server to another, all that was in memory is forgotten, since nobody says what changed meanwhile: `moved` first, so
that nothing is read any more from a server that was left, then `lost`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import structlog

from farthing.cache.listened import listened, together
from farthing.cache.reading_at import At
from farthing.cache.redis_client import where_of
from farthing.proxy.clock import Clock

__all__ = ["Tracking"]

log = structlog.get_logger("farthing.store")

_CHANNEL = "__redis__:invalidate"
_SILENT_S = 5.0  # connections are made anew where PINGs aren't answered, or servers don't agree, for so long
_PAUSE_FIRST_S, _PAUSE_MOST_S = 0.1, 5.0
_PAUSE_REFUSED_S = 60.0
_PINGS = 4  # within the time that memory may be old


class Tracking:
    """`prefix`: of the keys that are told. `alive`: a channel of this process's own, listened to on each connection so
    that the servers know whether it lives (leases_redis.py). `stale_s`: how old what is known may become before it is
    no good; four PINGs are sent in that time. `changed`: called with each key; `lost`: all of them may have changed;
    `moved`: awaited before `lost` on new connections, which may be to other servers. One connection of its own to each
    server, two to each of a cluster's. Raises ConfigFault: a URL that redis-py can't read."""

    def __init__(
        self,
        url: str,
        *,
        prefix: str,
        alive: str,
        stale_s: float,
        clock: Clock,
        changed: Callable[[str], None],
        lost: Callable[[], None],
        moved: Callable[[], Awaitable[None]],
    ) -> None:
        self._listened = listened(url)
        self._where = where_of(url)
        self._prefix = prefix
        self._alive = alive
        self._stale_s = stale_s
        self._beat_s = stale_s / _PINGS
        self._clock = clock
        self._changed = changed
        self._lost = lost
        self._moved = moved
        self._working: bool | None = None
        self.as_of_tick = -math.inf
        """Monotonic seconds: everything is known that changed before."""

    @property
    def fresh(self) -> bool:
        """Whether what is known is no older than it may be."""
        return self._clock.tick_s() - self.as_of_tick <= self._stale_s

    def at(self, name: str) -> At:
        """Where the entry of that name is to be read, if it is to be held."""
        return self._listened.at(name) if self.fresh else At(heard=False)

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
            except (RedisError, OSError, EOFError, TimeoutError, RuntimeError, AttributeError) as error:
                self._tell(repr(error))
                worked = self.as_of_tick >= heard_tick
                pause_s = _PAUSE_FIRST_S if worked else min(2 * pause_s, _PAUSE_MOST_S)
            finally:
                self._forget()
            await asyncio.sleep(pause_s)

    async def close(self) -> None:
        """Let go of the connections' pool; `run` has ended."""
        await self._listened.close()

    async def _listen(self) -> None:
        """Until a connection ends. Raises what redis-py raises."""
        async with self._listened.found() as servers:
            lines = [_Line(server.client.connection_pool.make_connection()) for server in servers]
            try:
                await together(*(self._open(line.link) for line in lines))
                begun_tick = self._clock.tick_s()
                await self._moved()
                over = asyncio.Event()
                await together(self._beat(lines, begun_tick, over), *(self._hear(line, over) for line in lines))
            finally:
                for line in lines:
                    with suppress(Exception):
                        await line.link.disconnect(nowait=True)

    async def _open(self, link: Any) -> None:
        from redis.exceptions import ResponseError

        await link.connect()
        id = await _answer(link, "CLIENT", "ID")
        await _answer(link, "CLIENT", "TRACKING", "ON", "REDIRECT", id, "BCAST", "PREFIX", self._prefix)
        await _answer(link, "SUBSCRIBE", _CHANNEL)
        with suppress(ResponseError):  # a user that may not listen to it: then leases end by themselves only
            await _answer(link, "SUBSCRIBE", self._alive)

    async def _beat(self, lines: Sequence[_Line], begun_tick: float, over: asyncio.Event) -> None:
        """A PING to each at each beat, and then whether it counts. `begun_tick`: all of them tell since then."""
        links = [line.link for line in lines]
        try:
            same = await self._listened.still(links)
            self._lost()  # what is being read now may have changed before
            known_tick = agreed_tick = begun_tick
            asked_tick: float | None = None
            while not over.is_set():
                now_tick = self._clock.tick_s()
                if same:
                    self.as_of_tick, agreed_tick = known_tick, now_tick
                    self._tell("")
                else:
                    self._forget()
                    if now_tick - agreed_tick > _SILENT_S:
                        raise OSError(f"for {_SILENT_S:.0f} s the servers did not agree on who has which keys")
                if asked_tick is not None:
                    known_tick = asked_tick
                    await asyncio.sleep(max(0.0, asked_tick + self._beat_s - now_tick))
                asked_tick = self._clock.tick_s()
                await _pinged(lines)
                same = await self._listened.still(links)
        finally:
            over.set()

    async def _hear(self, line: _Line, over: asyncio.Event) -> None:
        """What one server says, until it is over: redis-py was seen to lose a cancellation (store_redis.py)."""
        try:
            while not over.is_set():
                said = await line.link.read_response(disable_decoding=True, timeout=max(0.001, self._beat_s))
                if said is None:
                    continue
                if said[0] == b"pong":
                    line.answered.set()
                elif said[0] == b"message" and said[1] == _CHANNEL.encode():
                    self._heard(said[2])
        finally:
            over.set()

    def _forget(self) -> None:
        self.as_of_tick = -math.inf
        self._lost()

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


@dataclass(slots=True, eq=False)
class _Line:
    """A connection on which one server tells. `answered`: the last PING was."""

    link: Any
    answered: asyncio.Event = field(default_factory=asyncio.Event)


async def _pinged(lines: Sequence[_Line]) -> None:
    """Every one of them has answered a PING, which was sent after this was called. Raises TimeoutError."""
    for line in lines:
        line.answered.clear()
    try:
        async with asyncio.timeout(_SILENT_S):
            await together(*(line.link.send_command("PING") for line in lines))
            for line in lines:
                await line.answered.wait()
    except TimeoutError:
        raise TimeoutError(f"no answer for {_SILENT_S:.0f} s") from None


async def _answer(link: Any, *command: object) -> Any:
    await link.send_command(*command)
    return await link.read_response(disable_decoding=True)
