"""The shared store: entries in Redis (6.2 or later) or Valkey: one server, one behind sentinels, or a cluster.

Keys are named in redis_names.py; entries have Redis's own expiry. A purge by key looks its
variants up; any other purge walks the key space with SCAN and reads the labels at the front of each entry: slow, but
it needs no second index that could disagree with the first.

Rules of this file: no request waits longer than the deadline; once calls fail in a row they are refused at once,
and a probe in the background, not a request, finds out when the server is back. More calls at once than there are
connections wait for one within their deadline; that is our own limit, and says nothing of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from functools import partial
from typing import Any, TypeVar

import structlog

from farthing.cache.breaker import Breaker, Gate
from farthing.cache.codec import Labels, decode, encode, peek
from farthing.cache.damage import Damage
from farthing.cache.entry import Entry
from farthing.cache.reading_at import At, read, read_many
from farthing.cache.redis_client import everywhere, find_nodes, hang_up_all, open_way, where_of
from farthing.cache.redis_names import Names
from farthing.cache.store import Selector, StoreStats
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import MissingKeys, Seal, SealedElsewhere

__all__ = ["RedisStore"]

log = structlog.get_logger("farthing.store")

T = TypeVar("T")

# Larger bodies are deflated and checked in a thread: 64 KiB take some 0.6 ms.
_THREAD_FROM_BYTES = 65_536
_PROBE_S = 2.0
_PURGE_STEP_S = 5.0
_SCAN_COUNT = 500
_WALK_COUNT = 32  # whole bodies, of 8 MiB at most each
# Covers the labels of any entry but those with very long tags; those are then read whole.
_LABELS_BYTES = 1024
# What is raised on writing to a connection that has just been lost, where asyncio raises an OSError or nothing: the
# first by uvloop; the second by redis-py (8.1), whose cluster client lets go of everybody's connections when somebody
# is told that the cluster is down.
_Closed = (RuntimeError, AttributeError)


class _NoPlace(Exception):
    """The time was over before a connection was free."""


class RedisStore:
    """Store over a Redis URL (redis_client.py).

    `seal`: what bodies are sealed with, if they are. `told_as`, `passed_by`: what it is in the log's lines, and what
    happens without it.
    `deadline_ms` bounds every get, put and stats; a purge's single steps have 5 s each. After `threshold` failures
    in a row calls raise StoreFault at once, and every `pause_s` one of them starts a probe. Sizes and evictions in
    `stats` are the server's own, whoever uses it. Raises ConfigFault: a URL that redis-py can't read.
    """

    def __init__(
        self,
        url: str,
        *,
        deadline_ms: float,
        clock: Clock,
        prefix: str = "farthing",
        threshold: int = 5,
        pause_s: float = 1.0,
        max_connections: int = 128,
        seal: Seal | None = None,
        told_as: str = "the store",
        passed_by: str = "answers pass it by",
    ) -> None:
        self._told_as, self._passed_by = told_as, passed_by
        self._client, self._hang_up = open_way(url, max_connections)
        self._places = asyncio.Semaphore(max_connections)
        self._where = where_of(url)
        self._deadline_s = deadline_ms / 1000
        self._clock = clock
        self.names = Names(prefix)
        self._breaker = Breaker(threshold=threshold, pause_s=pause_s)
        # What is under way, stragglers and probe among it; ended by `close`.
        self._running: set[asyncio.Future[Any]] = set()
        self._refused: set[str] = set()
        self._answers = True  # as its last call found it
        self._seal = seal
        self._missing_keys = MissingKeys()
        self._damage = Damage()
        self._stats = StoreStats("redis", 0, 0, 0, 0, 0, False)
        self._closed = False

    async def open(self) -> None:
        """Nothing: connections are made when they are needed. Here so that every store opens alike."""

    async def get(self, key: str, now_s: float, at: At | None = None) -> Entry | None:
        """Store.get. `at`: where to read it first."""
        raw = await self._call("read", lambda: read(self._client, self.names.entry(key), at))
        if raw is None:
            return None
        try:
            large = len(raw) > _THREAD_FROM_BYTES
            entry = await asyncio.to_thread(decode, raw, self._seal) if large else decode(raw, self._seal)
        except SealedElsewhere as sealed:
            self._missing_keys.tell(sealed)
            return None
        # The key is compared since a connection that was cut off in mid-answer must never serve another's.
        if entry is None or entry.key != key:
            self._damage.met(key)
            return None
        return entry if entry.expires_s > now_s else None

    async def get_many(self, keys: Sequence[str], now_s: float, ats: Sequence[At] | None = None) -> list[Entry | None]:
        """Store.get_many: all of them within one deadline. `ats`: where to read each first."""
        if not keys:
            return []

        names = [self.names.entry(key) for key in keys]
        raws = await self._call("read", lambda: read_many(self._raws, names, ats))
        large = sum(len(raw) for raw in raws if raw is not None) > _THREAD_FROM_BYTES
        entries = await asyncio.to_thread(self._decoded, raws) if large else self._decoded(raws)
        return [
            entry if entry is not None and entry.key == key and entry.expires_s > now_s else None
            for key, entry in zip(keys, entries, strict=True)
        ]

    def held(self, key: str, now_s: float) -> Entry | None:
        """Store.held: nothing lies ready here."""
        return None

    async def put(self, entry: Entry) -> None:
        """Store.put."""
        ttl_ms, name = self.life_ms(entry), self.names.entry(entry.key)
        if ttl_ms <= 0:
            await self._call("write", lambda: self._client.unlink(name))
            return
        raw = await self.encoded(entry)
        base, dot, _ = entry.key.partition(".")
        if not dot:
            await self._call("write", lambda: self._client.set(name, raw, px=ttl_ms))
            return

        async def write() -> None:
            # The set lives as long as its longest-lived member: it only ever grows older here.
            variants = self.names.variants(base)
            pipe = self._client.pipeline(transaction=False)
            pipe.set(name, raw, px=ttl_ms)
            pipe.sadd(variants, entry.key)
            pipe.pttl(variants)
            left_ms = (await pipe.execute())[2]
            if left_ms < ttl_ms:
                await self._client.pexpire(variants, ttl_ms)

        await self._call("write", write)

    async def put_many(self, entries: Sequence[Entry]) -> None:
        """Store.put_many: plain entries within one deadline; variants one by one."""
        plain = [entry for entry in entries if "." not in entry.key]
        for entry in entries:
            if "." in entry.key:
                await self.put(entry)
        lives_ms = [self.life_ms(entry) for entry in plain]
        large = sum(len(entry.body) for entry in plain) > _THREAD_FROM_BYTES
        raws = await asyncio.to_thread(self._encoded, plain) if large else self._encoded(plain)
        if not plain:
            return

        async def write() -> None:
            pipe = self._client.pipeline(transaction=False)
            for entry, raw, ttl_ms in zip(plain, raws, lives_ms, strict=True):
                name = self.names.entry(entry.key)
                if ttl_ms > 0:
                    pipe.set(name, raw, px=ttl_ms)
                else:
                    pipe.execute_command("UNLINK", name)
            await pipe.execute()

        await self._call("write", write)

    async def purge(self, selector: Selector) -> tuple[str, ...]:
        """Store.purge. Cost: one step for a key, else a walk over all of the server's keys."""
        if selector.key:
            return await self._purge_key(selector)
        removed: list[str] = []
        names: list[bytes] = []
        following = self._names(f"{self.names.entries}*")
        while True:
            name = await self._step(following)
            if name is not None:
                names.append(name)
            if names and (name is None or len(names) >= _SCAN_COUNT):
                removed += await self._purge_names(names, selector)
                names = []
            if name is None:
                return tuple(dict.fromkeys(removed))

    async def walk(self) -> AsyncIterator[bytes]:
        """Every entry as it is encoded, for a backup: in no order, perhaps one twice; one that comes or goes meanwhile
        may be missing. Raises StoreFault."""
        names: list[bytes] = []
        following = self._names(f"{self.names.entries}*")
        while True:
            name = await self._step(following)
            if name is not None:
                names.append(name)
            if names and (name is None or len(names) >= _WALK_COUNT):
                for raw in await self._step(partial(self._raws, tuple(names))):
                    if raw is not None:
                        yield raw
                names = []
            if name is None:
                return

    async def named(self, pattern: str) -> AsyncIterator[bytes]:
        """The names of all keys like this, in no order, perhaps one twice; for whoever keeps something else on this
        server. Raises StoreFault."""
        following = self._names(pattern)
        while (name := await self._step(following)) is not None:
            yield name

    async def stats(self) -> StoreStats:
        """Store.stats; never raises: while the server is away, the last known figures, not healthy."""
        try:
            entries, memory, counters = await self._call("read", self._figures)
        except StoreFault:
            old = self._stats
            return StoreStats("redis", old.entries, old.bytes, 0, 0, old.evicted, False)
        self._stats = StoreStats("redis", entries, memory, 0, 0, counters, self.healthy)
        return self._stats

    @property
    def healthy(self) -> bool:
        """Store.healthy: the server answered the last call, and takes what it last refused."""
        return self._answers and not self._refused

    async def hang_up(self) -> None:
        """Ask the sentinels, where there are some, before the next command; one that is under way may fail."""
        await hang_up_all(self._client)

    async def close(self) -> None:
        """Store.close."""
        if self._closed:
            return
        self._closed = True
        for running in self._running:
            running.cancel()
        if self._running:
            await asyncio.wait(set(self._running), timeout=_PROBE_S)
        await self._hang_up()

    def life_ms(self, entry: Entry) -> int:
        """How long it has still to live; 0 or less: it has expired."""
        return int((entry.expires_s - self._clock.now_s()) * 1000)

    async def encoded(self, entry: Entry) -> bytes:
        """The entry as it is kept here."""
        long = len(entry.body) > _THREAD_FROM_BYTES
        return await asyncio.to_thread(encode, entry, self._seal) if long else encode(entry, self._seal)

    async def run(self, kind: str, command: Callable[[Any], Awaitable[T]]) -> T:
        """One command for whoever keeps something else on this server, given redis-py's client. `kind`: read, write or
        another word for what the server may refuse, within the deadline and the breaker's leave; purge, for which an
        operator waits. Raises StoreFault."""
        if kind == "purge":
            return await self._step(lambda: command(self._client))
        return await self._call(kind, lambda: command(self._client))

    async def _purge_key(self, selector: Selector) -> tuple[str, ...]:
        variants = await self._step(lambda: self._client.smembers(self.names.variants(selector.key)))
        keys = [selector.key, *sorted(member.decode() for member in variants)]
        removed = await self._purge_names([self.names.entry(key).encode() for key in keys], selector)
        return tuple(removed)

    async def _purge_names(self, names: list[bytes], selector: Selector) -> list[str]:
        """Remove those of the named entries that the selector matches; their keys."""

        async def starts() -> list[bytes]:
            pipe = self._client.pipeline(transaction=False)
            for name in names:
                pipe.getrange(name, 0, _LABELS_BYTES - 1)
            found: list[bytes] = await pipe.execute()
            return found

        matching: list[tuple[bytes, str]] = []
        for name, start in zip(names, await self._step(starts), strict=True):
            if not start:
                continue
            labels = peek(start) or await self._labels(name)
            if labels is None or selector.matches(labels):  # what can't be read can't be served: away with it
                matching.append((name, labels.key if labels else name.decode(errors="replace")))

        async def unlink() -> list[int]:
            pipe = self._client.pipeline(transaction=False)
            for name, _ in matching:
                pipe.execute_command("UNLINK", name)  # the cluster client's unlink can't be queued
            counts: list[int] = await pipe.execute()
            return counts

        if not matching:
            return []
        return [key for (_, key), count in zip(matching, await self._step(unlink), strict=True) if count]

    def _names(self, pattern: str) -> Callable[[], Awaitable[bytes | None]]:
        """Gives the next name at each call; None after the last."""
        walk = self._all(pattern)
        fault: Exception | None = None

        async def following() -> bytes | None:
            nonlocal fault
            if fault is not None:  # a generator that has failed ends: asked again, it would seem to be through
                raise fault
            try:
                name: bytes | None = await anext(walk, None)
            except Exception as error:
                fault = error
                raise
            return name

        return following

    async def _all(self, pattern: str) -> AsyncGenerator[bytes, None]:
        await find_nodes(self._client)
        async for name in self._client.scan_iter(match=pattern, count=_SCAN_COUNT):
            yield name

    async def _raws(self, names: Sequence[bytes] | Sequence[str]) -> list[bytes | None]:
        pipe = self._client.pipeline(transaction=False)
        for name in names:
            pipe.get(name)
        found: list[bytes | None] = await pipe.execute()
        return found

    async def _labels(self, name: bytes) -> Labels | None:
        raw: bytes | None = await self._step(lambda: self._client.get(name))
        return peek(raw) if raw else None

    async def _figures(self) -> tuple[int, int, int]:
        """Keys, bytes and evictions of the server; of all its primaries where it is a cluster."""
        await find_nodes(self._client)
        entries = await self._client.dbsize(**everywhere(self._client))
        info = await self._client.info(**everywhere(self._client))
        nodes = [info] if "used_memory" in info else list(info.values())
        return (
            int(entries),
            sum(int(node["used_memory"]) for node in nodes),
            sum(int(node["evicted_keys"]) for node in nodes),
        )

    async def _call(self, kind: str, command: Callable[[], Awaitable[T]]) -> T:
        """One command within the deadline and the breaker's leave. `kind`: read or write."""
        if self._closed:
            raise StoreFault("the store is closed")
        gate = self._breaker.ask(self._clock.tick_s())
        if gate is Gate.PROBE:
            probe = asyncio.gather(self._find_out())
            self._running.add(probe)
            probe.add_done_callback(self._ended)
        if gate is not Gate.PASS:
            raise StoreFault(f"{self._where} is away")
        return await self._guarded(kind, command, self._deadline_s)

    async def _step(self, command: Callable[[], Awaitable[T]]) -> T:
        """One step of a purge: it is tried whatever the breaker says, since an operator waits for it."""
        if self._closed:
            raise StoreFault("the store is closed")
        return await self._guarded("write", command, _PURGE_STEP_S)

    async def _guarded(self, kind: str, command: Callable[[], Awaitable[T]], deadline_s: float) -> T:
        """Translate redis-py's errors, and tell the breaker. An error *answer* (out of memory, read-only, no
        permission) is a fault too, but the server is there: it opens no breaker."""
        from redis.exceptions import ConnectionError as RedisGone
        from redis.exceptions import MaxConnectionsError, RedisClusterException, RedisError, ResponseError
        from redis.exceptions import TimeoutError as RedisSlow

        try:
            result = await self._within(deadline_s, command)
        except (_NoPlace, MaxConnectionsError) as error:
            raise StoreFault(f"{self._where}: all of our connections are in use") from error
        except (RedisGone, RedisSlow, RedisClusterException, OSError, TimeoutError, *_Closed) as error:
            self._failed(error)
            raise StoreFault(f"{self._where} failed: {type(error).__name__}") from error
        except (RedisError, ResponseError) as error:
            self._worked(kind, error)
            raise StoreFault(f"{self._where} refused: {error}") from error
        self._worked(kind, None)
        return result

    async def _within(self, deadline_s: float, command: Callable[[], Awaitable[T]]) -> T:
        """The command's result, or TimeoutError when the time is over, whatever the command does then.

        Not by `asyncio.timeout`: redis-py (8.1) was seen to lose a cancellation that came while it connected, and
        then to wait on for its own 5 to 10 s. Here the wait ends at the deadline, and the straggler is cancelled,
        held until it has ended, and bounded by redis-py's socket timeouts.
        """
        from redis.exceptions import ConnectionError as RedisGone
        from redis.exceptions import MaxConnectionsError

        begun = False

        async def twice() -> T:
            nonlocal begun
            async with self._places:
                begun = True
                try:
                    return await command()
                except MaxConnectionsError:
                    raise
                except (RedisGone, OSError, *_Closed):  # once more: a pooled connection may have died meanwhile
                    return await command()

        running = asyncio.gather(twice())
        self._running.add(running)
        running.add_done_callback(self._ended)
        try:
            await asyncio.wait({running}, timeout=deadline_s)
            if not running.done():
                raise TimeoutError if begun else _NoPlace
            if running.cancelled():  # by `close`, not by our caller
                raise StoreFault("the store is closed")
            return running.result()[0]
        finally:
            running.cancel()

    def _decoded(self, raws: Sequence[bytes | None]) -> list[Entry | None]:
        found: list[Entry | None] = []
        for raw in raws:
            try:
                found.append(None if raw is None else decode(raw, self._seal))
            except SealedElsewhere as sealed:
                self._missing_keys.tell(sealed)
                found.append(None)
        return found

    def _encoded(self, entries: Sequence[Entry]) -> list[bytes]:
        return [encode(entry, self._seal) for entry in entries]

    def _ended(self, running: asyncio.Future[Any]) -> None:
        self._running.discard(running)
        if not running.cancelled():
            running.exception()  # looked at, so that a straggler's end is no warning

    def _failed(self, error: Exception, *, probe: bool = False) -> None:
        self._answers = False
        if self._breaker.failed(self._clock.tick_s(), probe=probe):
            log.error(f"{self._told_as} is away: {self._passed_by}", store=self._where, error=repr(error))

    def _worked(self, kind: str, refusal: Exception | None) -> None:
        """The server answered. One log line for each change, of the connection or of what it refuses."""
        self._answers = True
        if self._breaker.succeeded():
            log.warning(f"{self._told_as} is back", store=self._where)
        if (kind in self._refused) is (refusal is not None):
            return
        if refusal is None:
            self._refused.discard(kind)
            log.warning(f"{self._told_as} takes a {kind} again", store=self._where)
        else:
            self._refused.add(kind)
            log.error(f"{self._told_as} refuses a {kind}", store=self._where, error=str(refusal))

    async def _find_out(self) -> None:
        """The probe: longer than a request may wait, so that a slow TLS handshake can come to its end."""
        from redis.exceptions import RedisClusterException, RedisError

        try:
            await self._within(_PROBE_S, self._client.ping)
        except (RedisError, RedisClusterException, OSError, TimeoutError, *_Closed, _NoPlace) as error:
            self._failed(error, probe=True)
        else:
            self._worked("read", None)
