"""The shared store: entries in Redis (6.2 or later) or Valkey: one server, one behind sentinels, or a cluster.

Keys are named in redis_names.py; entries have Redis's own expiry, and change by redis_scripts.py; large ones lie in
pieces (pieces.py). A purge by key looks its variants up; any other purge walks the key space with SCAN and reads the
labels at the front of each entry: slow, but it needs no second index that could disagree with the first.

Rules of this file: no request waits longer than the deadline; once calls fail in a row they are refused at once,
and a probe in the background, not a request, finds out when the server is back. More calls at once than there are
connections wait for one within their deadline; that is our own limit, and says nothing of the server.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, TypeVar

import structlog

from farthing.cache.breaker import Breaker, Gate
from farthing.cache.codec import decode, encode, is_head
from farthing.cache.damage import Damage
from farthing.cache.entry import Entry
from farthing.cache.pieces import PIECE_BYTES, cut, named_by
from farthing.cache.reading_at import At, read, read_many
from farthing.cache.redis_client import figures_of, find_nodes, hang_up_all, open_way, where_of
from farthing.cache.redis_names import Names
from farthing.cache.redis_pieces import COMING_MS, Cut, Found, batches, raw_of, weight, with_pieces, write_pieces
from farthing.cache.redis_purge import purge_names
from farthing.cache.redis_scripts import DROP, KEEP, LAND, REPLACE
from farthing.cache.store import Selector, StoreStats
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import MissingKeys, Seal, SealedElsewhere

__all__ = ["RedisStore"]

log = structlog.get_logger("farthing.store")

T = TypeVar("T")

# Larger bodies are compressed and checked in a thread: 64 KiB take some 0.4 ms (`python -m bench.entry_codec`).
_THREAD_FROM_BYTES = 65_536
_PROBE_S = 2.0
_PURGE_STEP_S = 5.0
_SCAN_COUNT = 500
_WALK_COUNT = 32  # whole bodies, of 8 MiB at most each
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
    `deadline_ms` bounds every get, put and stats, and of a large put each MiB, for which no request waits; a purge's
    single steps have 5 s each. `piece_bytes`: longer entries, as encoded, are cut into pieces of that length. After
    `threshold` failures in a row calls raise StoreFault at once, and every `pause_s` one of them starts a probe. Sizes
    and evictions in `stats` are the server's own, whoever uses it. Raises ConfigFault: a URL that redis-py can't read.
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
        piece_bytes: int = PIECE_BYTES,
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
        self._piece_bytes = piece_bytes
        self._missing_keys = MissingKeys()
        self._damage = Damage()
        self._stats = StoreStats("redis", 0, 0, 0, 0, 0, False)
        self._closed = False

    async def open(self) -> None:
        """Nothing: connections are made when they are needed. Here so that every store opens alike."""

    async def get(self, key: str, now_s: float, at: At | None = None) -> Entry | None:
        """Store.get. `at`: where to read it first."""

        async def found() -> list[Found]:
            raw = await read(self._client, self.names.entry(key), at)
            return await with_pieces(self._client, self.names, [key], [raw])

        return (await self._entries([key], await self._call("read", found), now_s))[0]

    async def get_many(self, keys: Sequence[str], now_s: float, ats: Sequence[At] | None = None) -> list[Entry | None]:
        """Store.get_many: all of them within one deadline. `ats`: where to read each first."""
        if not keys:
            return []

        async def found() -> list[Found]:
            raws = await read_many(self._raws, [self.names.entry(key) for key in keys], ats)
            return await with_pieces(self._client, self.names, keys, raws)

        return await self._entries(keys, await self._call("read", found), now_s)

    def held(self, key: str, now_s: float) -> Entry | None:
        """Store.held: nothing lies ready here."""
        return None

    async def put(self, entry: Entry) -> None:
        """Store.put: one round trip, but for a large entry's pieces."""
        await self.keep(entry)

    async def put_many(self, entries: Sequence[Entry]) -> None:
        """Store.put_many: within one deadline; large ones one by one."""
        entries = list({entry.key: entry for entry in entries}.values())
        if not entries:
            return
        heavy = sum(len(entry.body) for entry in entries) > _THREAD_FROM_BYTES
        written = await asyncio.to_thread(self._cut_up, entries) if heavy else self._cut_up(entries)
        for entry, (value, pieces) in zip(entries, written, strict=True):
            if pieces:
                await self._keep(entry, value, pieces, "write", None)

        async def write() -> None:
            pipe = self._client.pipeline(transaction=False)
            for entry, (value, pieces) in zip(entries, written, strict=True):
                if not pieces:
                    pipe.execute_command(*self._step_of(entry, value, pieces, None))
            await pipe.execute()

        if not all(pieces for _, pieces in written):
            await self._call("write", write)

    async def keep(self, entry: Entry, *, kind: str = "write", fence: tuple[str, int] | None = None) -> bool:
        """Store.put. `kind`: what the server may refuse. `fence`: a lease's name and its token, which ends in the same
        step; False where a larger one was given since, and then nothing is kept."""
        heavy = len(entry.body) > _THREAD_FROM_BYTES
        [(value, pieces)] = await asyncio.to_thread(self._cut_up, [entry]) if heavy else self._cut_up([entry])
        return await self._keep(entry, value, pieces, kind, fence)

    async def purge(self, selector: Selector) -> tuple[str, ...]:
        """Store.purge. Cost: one step for a key, else a walk over all of the server's keys."""
        if selector.key:
            return await self._purge_key(selector)
        removed: list[str] = []
        async for names in self._some(self.names.all_of_entries, _SCAN_COUNT):
            removed += await self._purge_names(names, selector)
        return tuple(dict.fromkeys(removed))

    async def purge_loose(self) -> None:
        """Remove pieces that no entry has, those that are being written among them. Raises StoreFault. Cost: a walk."""
        async for names in self._some(self.names.all_of_pieces, _SCAN_COUNT):
            await self._purge_names(names, Selector())

    async def walk(self) -> AsyncIterator[bytes]:
        """Every entry as it is encoded, for a backup: in no order, perhaps one twice; one that comes or goes meanwhile
        may be missing. Raises StoreFault."""
        async for names in self._some(f"{self.names.entries}*", _WALK_COUNT):
            for found in await self._step(partial(self._founds, tuple(names))):
                raw = raw_of(found)
                if raw is not None:
                    yield raw

    async def named(self, pattern: str) -> AsyncIterator[bytes]:
        """The names of all keys like this, in no order, perhaps one twice; for whoever keeps something else on this
        server. Raises StoreFault."""
        following = self._names(pattern)
        while (name := await self._step(following)) is not None:
            yield name

    async def stats(self) -> StoreStats:
        """Store.stats; never raises: while the server is away, the last known figures, not healthy."""
        try:
            entries, memory, counters = await self._call("read", lambda: figures_of(self._client))
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

    async def whole(self, key: str, head: bytes) -> bytes | None:
        """The large entry, encoded, that this head is of; None: it isn't whole, and is removed. For a command, for
        which an operator waits. Raises StoreFault."""
        raw = raw_of((await self._step(lambda: with_pieces(self._client, self.names, [key], [head])))[0])
        if raw is None:
            names = (self.names.entry(key), self.names.pieces(key))
            await self._step(lambda: self._client.eval(DROP, 2, *names, head))
        return raw

    async def replace(self, key: str, head: bytes, raw: bytes) -> bool:
        """Put another encoded entry in the place of the large one that this head is of, with the same expiry; False:
        another one came first. For a command. Raises StoreFault."""
        anew, pieces = cut(raw, min(self._piece_bytes, len(raw) - 1))
        names = self._names_of(key, anew)
        for some in batches(pieces):
            await self._step(partial(write_pieces, self._client, names[3], some, COMING_MS))
        of = (names[0], names[1], names[3])
        return bool(await self._step(lambda: self._client.eval(REPLACE, 3, *of, head, anew, len(pieces))))

    async def run(self, kind: str, command: Callable[[Any], Awaitable[T]]) -> T:
        """One command for whoever keeps something else on this server, given redis-py's client. `kind`: read, write or
        another word for what the server may refuse, within the deadline and the breaker's leave; purge, for which an
        operator waits. Raises StoreFault."""
        if kind == "purge":
            return await self._step(lambda: command(self._client))
        return await self._call(kind, lambda: command(self._client))

    async def _keep(
        self, entry: Entry, value: bytes, pieces: Sequence[bytes], kind: str, fence: tuple[str, int] | None
    ) -> bool:
        life_ms = self.life_ms(entry)
        if life_ms > 0:
            for some in batches(pieces):
                coming = self._names_of(entry.key, value)[3]
                await self._call(kind, partial(write_pieces, self._client, coming, some, life_ms))
        step = self._step_of(entry, value, pieces, fence)
        said = await self._call(kind, lambda: self._client.execute_command(*step))
        if said == b"lacking":
            raise StoreFault(f"{self._where}: a part of the entry was gone before it was kept")
        return bool(said != b"late")

    def _step_of(
        self, entry: Entry, value: bytes, pieces: Sequence[bytes], fence: tuple[str, int] | None
    ) -> tuple[Any, ...]:
        """The command that keeps it, its pieces being written; or removes what is there, where it has expired."""
        life_ms, names = self.life_ms(entry), self._names_of(entry.key, value)
        if life_ms <= 0 and fence is None:
            return ("UNLINK", *names[:2])
        said = (value, max(life_ms, 1), entry.key if "." in entry.key else "", len(pieces))
        if fence is None:
            return ("EVAL", KEEP, len(names), *names, *said)
        return ("EVAL", LAND, len(names) + 1, *names, fence[0], *said, fence[1])

    def _names_of(self, key: str, value: bytes) -> tuple[str, str, str, str]:
        """In the order that redis_scripts.py has them."""
        about = named_by(value) if is_head(value) else None
        coming = self.names.coming(key, about.version if about else "")
        return self.names.entry(key), self.names.pieces(key), self.names.variants(key.partition(".")[0]), coming

    async def _purge_key(self, selector: Selector) -> tuple[str, ...]:
        variants = await self._step(lambda: self._client.smembers(self.names.variants(selector.key)))
        keys = [selector.key, *sorted(member.decode() for member in variants)]
        met = [name(key).encode() for name in (self.names.entry, self.names.pieces) for key in keys]
        return tuple(await self._purge_names(met, selector))

    async def _purge_names(self, met: Sequence[bytes], selector: Selector) -> list[str]:
        return await purge_names(partial(self.run, "purge"), self.names, met, selector)

    async def _some(self, pattern: str, at_once: int) -> AsyncIterator[list[bytes]]:
        """The names of all keys like this, so many at once."""
        names: list[bytes] = []
        following = self._names(pattern)
        while (name := await self._step(following)) is not None:
            names.append(name)
            if len(names) >= at_once:
                yield names
                names = []
        if names:
            yield names

    def _names(self, pattern: str) -> Callable[[], Awaitable[bytes | None]]:
        """Gives the next name at each call; None after the last.

        A walk that broke off begins anew when it is asked again: a key may be named twice, as SCAN may do anyway."""
        walk = self._all(pattern)

        async def following() -> bytes | None:
            nonlocal walk
            try:
                name: bytes | None = await anext(walk, None)
            except Exception:
                walk = self._all(pattern)  # a generator that has failed ends: it would seem to be through
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

    async def _founds(self, names: Sequence[bytes]) -> list[Found]:
        keys = [self.names.key(name.decode(errors="replace")) for name in names]
        return await with_pieces(self._client, self.names, keys, await self._raws(names))

    async def _call(self, kind: str, command: Callable[[], Awaitable[T]]) -> T:
        """One command within the deadline and the breaker's leave. `kind`: read or write."""
        if self._closed:
            raise StoreFault("the store is closed")
        gate = self._breaker.ask(self._clock.tick_s())
        if gate is Gate.PROBE:
            self._aside(self._find_out())
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

    async def _entries(self, keys: Sequence[str], founds: Sequence[Found], now_s: float) -> list[Entry | None]:
        """What may be served of what was found. Large ones that aren't whole are removed: they only take place."""
        heavy = sum(map(weight, founds)) > _THREAD_FROM_BYTES
        read = await asyncio.to_thread(self._decoded, keys, founds) if heavy else self._decoded(keys, founds)
        for key, found, (_, good) in zip(keys, founds, read, strict=True):
            if not good:
                self._damage.met(key)
                if isinstance(found, Cut):
                    self._aside(self._drop(key, found.head))
        return [entry if entry is not None and entry.expires_s > now_s else None for entry, _ in read]

    def _decoded(self, keys: Sequence[str], founds: Sequence[Found]) -> list[tuple[Entry | None, bool]]:
        """The entries, and whether what was found is as it must be."""
        read: list[tuple[Entry | None, bool]] = []
        for key, found in zip(keys, founds, strict=True):
            raw = raw_of(found)
            try:
                entry = None if raw is None else decode(raw, self._seal)
            except SealedElsewhere as sealed:
                self._missing_keys.tell(sealed)
                read.append((None, True))
                continue
            # The key is compared since a connection that was cut off in mid-answer must never serve another's.
            good = entry is not None and entry.key == key
            read.append((entry if good else None, good or found is None))
        return read

    async def _drop(self, key: str, head: bytes) -> None:
        names = (self.names.entry(key), self.names.pieces(key))
        with suppress(StoreFault):  # it expires by itself
            await self._call("write", lambda: self._client.eval(DROP, 2, *names, head))

    def _cut_up(self, entries: Sequence[Entry]) -> list[tuple[bytes, list[bytes]]]:
        return [cut(encode(entry, self._seal), self._piece_bytes) for entry in entries]

    def _aside(self, work: Coroutine[Any, Any, None]) -> None:
        """Do it beside whoever caused it; `close` ends it."""
        running = asyncio.gather(work)
        self._running.add(running)
        running.add_done_callback(self._ended)

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
