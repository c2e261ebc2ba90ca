"""The replicas' log in Redis or Valkey: an IndexLog that sends and reads beside the thread that uses it.

`put`, `delete`, `clear`, `since`, `snapshot` and `say` are the index's, on its thread, and never wait for anything.
`exchange` is the event loop's: it sends what was put, and fetches what others did.

Rules of this file:
1. The server's outage costs nobody a wait. What is put meanwhile waits here, to a bound; deletes beyond any.
2. The log has a generation. Where it has none any more (the server was emptied, or began anew without its memory)
   whoever sees it first begins the next one, and every replica puts again what it holds. What had been deleted may come
   back by that: it is found, but its answer isn't, since an answer is looked up before it is served.
3. Who has fallen behind what the stream is cut to, someone's `clear`, a difference between replicas: the snapshot
   decides.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import structlog

from farthing.cache.convergence import Compared, Held, compare, last
from farthing.cache.index_log import Changes, Mark, Own, Snapshot
from farthing.cache.log_redis_wire import APPEND, BEGIN, CLEAR, READ, TALK, Names, pack, unpack
from farthing.cache.semantic_disk import Row
from farthing.cache.store_redis import RedisStore
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import Seal

__all__ = ["LogState", "RedisLog"]

log = structlog.get_logger("farthing.semantic")

LOGGED = 100_000  # numbers: who has been away for more takes the snapshot
_MOST_WAITING = 20_000
_AT_ONCE = 256
_READ_AT_ONCE = 500
_MOST_UNREAD = 4_096
_KEEP_MARKS = 8
_TALK_EVERY_S = 2.0
_MARK_EVERY_S, _LOOK_AHEAD_S, _BELIEVED_S = 10.0, 120.0, 30.0
_MEND_EVERY_S = 300.0
# An outdated entry is deleted so long after it was outdated; who reads it later says nothing of marks around it.
_OUTDATED_S, _READ_WITHIN_S = 60.0, 30.0


class _Change(NamedTuple):
    entry_key: str  # '': all of them
    packed: bytes  # b"": it goes


class _Read(NamedTuple):
    seq: int
    writer: str
    entry_key: str
    packed: bytes
    mark: int | None


@dataclass(frozen=True, slots=True)
class _Whole:
    """A snapshot as it came. `certain`: from this number on what is held is just what the log said; before it may be
    more."""

    chunks: list[dict[bytes, bytes]]  # by entry key: number, a space, row
    offset: int
    certain: int
    begun: bool


@dataclass(slots=True)
class LogState:
    """For screens. `reached`: whether the last exchange came to its end. `seq`: the log's last number, `offset`: ours.
    `caught_up_tick_s`: when we last had all; None: never. `dropped`: what couldn't wait any longer."""

    reached: bool = False
    generation: int = 0
    seq: int = 0
    offset: int = 0
    caught_up_tick_s: float | None = None
    dropped: int = 0
    snapshots: int = 0
    compared: Compared = field(default_factory=lambda: compare({}, {}))


class RedisLog:
    """See the module. `store`: the way to the server, with its deadlines and its breaker. `writer`: this replica's
    name, that no other one has. `noise`: hex of some random bytes. Vectors of another model have a log of their own."""

    def __init__(
        self,
        store: RedisStore,
        *,
        embedder: str,
        dim: int,
        writer: str,
        clock: Clock,
        noise: str,
        seal: Seal | None = None,
        prefix: str = "farthing",
        logged: int = LOGGED,
        mark_every_s: float = _MARK_EVERY_S,
        outdated_s: float = _OUTDATED_S,
    ) -> None:
        self.store = store
        self._names = Names(prefix, embedder)
        self._dim = dim
        self._writer = writer
        self._clock = clock
        self._noise = noise
        self._seal = seal
        self._logged = logged
        self._mark_every_s = mark_every_s
        self._outdated_s = outdated_s
        self.state = LogState()
        self._generation = ""
        # The event loop's: until where it has read, and when it last talked and mended.
        self._read_to = 0
        self._talked_s = self._mended_s = float("-inf")
        self._current_s = float("-inf")  # when we last had all there was
        self._outdated: deque[tuple[float, int]] = deque()
        self._at_it = asyncio.Lock()
        # Both sides', under the lock.
        self._lock = threading.Lock()
        self._waiting: deque[_Change] = deque()
        self._sent: deque[tuple[int, str]] = deque()
        self._read: deque[_Read] = deque()
        self._whole: _Whole | None = None
        self._wanted = True  # a snapshot
        self._arrived: list[str] = []  # of changes that no number will ever be told of
        self._clears = 0  # of our own, that haven't arrived
        self._certain = 0
        self._given: Mark | None = None
        self._held: Held = {}

    # The index's side.

    @property
    def room(self) -> int:
        """How many changes may wait yet."""
        return max(_MOST_WAITING - len(self._waiting), 0)

    @property
    def waiting(self) -> int:
        """How many changes wait to be sent."""
        return len(self._waiting)

    def put(self, row: Row) -> None:
        """IndexLog.put. Where too much waits it is dropped: the others don't learn of it."""
        packed = pack(row, self._seal)
        with self._lock:
            if len(self._waiting) < _MOST_WAITING:
                self._waiting.append(_Change(row.entry_key, packed))
            else:
                self.state.dropped += 1
                self._arrived.append(row.entry_key)

    def delete(self, entry_keys: Iterable[str]) -> None:
        """IndexLog.delete."""
        with self._lock:
            self._waiting.extend(_Change(key, b"") for key in entry_keys)

    def clear(self) -> None:
        """IndexLog.clear."""
        with self._lock:
            self._waiting.append(_Change("", b""))
            self._clears += 1

    def again(self) -> None:
        """Take a snapshot at the next exchange, whatever has been followed."""
        self._wanted = True

    def seek(self, offset: int) -> None:
        """Read again from there; for whoever isn't where the last `since` ended."""
        with self._lock:
            self._read.clear()
            self._read_to = offset

    def since(self, offset: int) -> Changes:
        """IndexLog.since, of what has been fetched: up to the next mark."""
        with self._lock:
            if self._whole is not None:
                return Changes([], [], offset, lost=True)
            taken: list[_Read] = []
            mark: Mark | None = None
            while self._read and mark is None:
                one = self._read.popleft()
                taken.append(one)
                if one.mark is not None and one.seq > self._certain and not self._clears:
                    self._given = mark = Mark(one.seq, one.mark)
            offset = taken[-1].seq if taken else offset
            own = Own(self._arrived_until(offset), mark=mark)
        last_first: dict[str, _Read] = {}
        for one in reversed(taken):
            if one.mark is None:
                last_first.setdefault(one.entry_key, one)
        return self._told([*reversed(last_first.values())], offset, own)

    def _told(self, last: Sequence[_Read], offset: int, own: Own) -> Changes:
        put: list[Row] = []
        gone: list[str] = []
        echoed: dict[str, Row | None] = {}
        for one in last:
            row = unpack(one.entry_key, one.packed, self._dim, self._seal) if one.packed else None
            if one.writer == self._writer:
                echoed[one.entry_key] = row
            elif row is None:
                gone.append(one.entry_key)
            else:
                put.append(row)
        return Changes(put, gone, offset, False, own._replace(echoed=echoed))

    def snapshot(self) -> Snapshot:
        """IndexLog.snapshot: the one that was fetched last; before the first one there is nothing."""
        with self._lock:
            whole, self._whole = self._whole, None
            if whole is None:
                return Snapshot([], 0)
            self._certain = whole.certain
            self._held = {}
            own = Own(self._arrived_until(whole.offset))
        return Snapshot(self._rows(whole.chunks), whole.offset, whole.begun, own)

    def say(self, count: int, sum: str) -> None:
        """What is held at the mark that `since` told of last."""
        with self._lock:
            if self._given is not None:
                self._held = last({**self._held, self._given.seq: (count, sum)}, _KEEP_MARKS)
                self._given = None

    def close(self) -> None:
        """IndexLog.close. What waits yet is for one more `exchange`."""

    def _arrived_until(self, offset: int) -> tuple[str, ...]:
        found, self._arrived = self._arrived, []
        while self._sent and self._sent[0][0] <= offset:
            found.append(self._sent.popleft()[1])
        keys = tuple(key for key in found if key)
        self._clears -= len(found) - len(keys)
        return keys

    def _rows(self, chunks: list[dict[bytes, bytes]]) -> Iterator[Row]:
        damaged = 0
        while chunks:
            for name, numbered in chunks.pop().items():
                row = unpack(name.decode(), numbered.partition(b" ")[2], self._dim, self._seal)
                if row is None:
                    damaged += 1
                else:
                    yield row
        if damaged:
            log.warning("near-duplicates of the replicas: damaged rows, or sealed under another key", rows=damaged)

    # The event loop's side.

    @property
    def lag(self) -> int:
        """How many changes of others are known to be missing here."""
        with self._lock:
            unused = len(self._read)
        return max(self.state.seq - self._read_to, 0) + unused

    async def exchange(self) -> bool:
        """Send what waits and fetch what is new; whether there is more. A server that is away is told by `store`; then
        nothing has happened."""
        async with self._at_it:
            try:
                more = await self._exchange()
                self.state.reached = True
            except StoreFault:
                self.state.reached = False
                return False
            return more

    async def _exchange(self) -> bool:
        if self._generation and not await self._send():
            self._wanted = True  # the log isn't the one that was followed
        if self._whole is not None:
            return False  # the index has to take it first
        if self._wanted:
            await self._take_whole()
            return True
        if not await self._fetch():
            self._wanted = True
            return True
        tick_s = self._clock.tick_s()
        more = self._read_to < self.state.seq
        if not more and not self._wanted:
            self.state.caught_up_tick_s = self._current_s = tick_s
        if tick_s - self._talked_s >= min(_TALK_EVERY_S, self._mark_every_s):
            self._talked_s = tick_s
            await self._talk(tick_s)
            await self._forget_outdated(tick_s)
        return more

    async def _eval(self, script: str, keys: Sequence[str], *values: object, kind: str = "write") -> Any:
        return await self.store.run(kind, lambda client: client.eval(script, len(keys), *keys, *values))

    async def _take_whole(self) -> None:
        names = self._names
        number = int(self._generation.partition(".")[0] or 0)
        keys = (names.about, names.stream, names.told, *names.chunks)
        stands = (await self._eval(BEGIN, keys, f"{number + 1}.{self._noise}")).decode()
        before = await self._seq()
        chunks = [await self._chunk(name) for name in names.chunks]
        certain = await self._seq()
        begun = self._generation not in ("", stands)
        if begun:
            log.warning("the replicas' log was begun anew: what is held here is put again", generation=stands)
        with self._lock:
            if stands != self._generation:  # what was sent to the old one is of no account
                self._arrived += [key for _, key in self._sent]
                self._sent.clear()
                self._certain = 0
                self._outdated.clear()
            self._read.clear()
            self._read_to = before
            self._whole = _Whole(chunks, before, certain, begun)
            self._wanted = False
        self._generation = stands
        self.state.generation = int(stands.partition(".")[0])
        self.state.snapshots += 1
        self.state.offset = before

    async def _chunk(self, name: str) -> dict[bytes, bytes]:
        rows: dict[bytes, bytes] = await self.store.run("purge", lambda client: client.hgetall(name))
        return rows

    async def _seq(self) -> int:
        return int(await self.store.run("read", lambda client: client.hget(self._names.about, "seq")) or 0)

    async def _send(self) -> bool:
        """Whether the log is the one that we know."""
        while True:
            with self._lock:
                some = [self._waiting[at] for at in range(min(_AT_ONCE, len(self._waiting)))]
            if not some:
                return True
            cleared = next((at for at, one in enumerate(some) if not one.entry_key), None)
            if cleared == 0:
                keys: Sequence[str] = (self._names.about, self._names.stream, *self._names.chunks)
                some = some[:1]
                answer = await self._eval(CLEAR, keys, self._generation, self._writer)
            else:
                some = some[:cleared]
                keys = (self._names.about, self._names.stream, *(self._names.chunk(one.entry_key) for one in some))
                values = [value for one in some for value in one]
                answer = await self._eval(APPEND, keys, self._generation, self._writer, self._logged, *values)
            if answer[0].decode() != self._generation:
                return False
            with self._lock:
                for one, seq, outdated in zip(some, answer[1::2], answer[2::2], strict=True):
                    self._waiting.popleft()
                    self._sent.append((int(seq), one.entry_key))
                    if outdated:
                        self._outdated.append((self._clock.tick_s(), int(outdated)))

    async def _fetch(self) -> bool:
        """Whether the log is the one that we know. Where it can't be followed any more, a snapshot is wanted."""
        while True:
            keys = (self._names.about, self._names.stream)
            offset = self._read_to
            generation, seq, found = await self._eval(READ, keys, offset, _READ_AT_ONCE, kind="read")
            if generation.decode() != self._generation:
                return False
            self.state.seq = int(seq)
            entries = [_parsed(name, fields) for name, fields in found]
            cleared = any(one.mark is None and not one.entry_key for one in entries)
            behind = int(seq) - offset > self._logged or int(seq) < offset
            if cleared or behind or (not entries and int(seq) != offset):
                self._wanted = True
                return True
            if self._clock.tick_s() - self._current_s > _READ_WITHIN_S:
                self._certain = int(seq)  # outdated entries may have been deleted before they were read here
            with self._lock:
                self._read.extend(entries)
                if entries:
                    self._read_to = self.state.offset = entries[-1].seq
                full = len(self._read) >= _MOST_UNREAD
            if len(entries) < _READ_AT_ONCE or full:
                return True

    async def _forget_outdated(self, tick_s: float) -> None:
        ids: list[str] = []
        while self._outdated and tick_s - self._outdated[0][0] > self._outdated_s and len(ids) < _READ_AT_ONCE:
            ids.append(f"{self._outdated.popleft()[1]}-0")
        if ids:
            await self.store.run("write", lambda client: client.xdel(self._names.stream, *ids))

    async def _talk(self, tick_s: float) -> None:
        said = json.dumps({str(seq): list(held) for seq, held in self._held.items()})
        keys = (self._names.about, self._names.stream, self._names.told)
        every_ms, believed_ms = int(self._mark_every_s * 1000), int(_BELIEVED_S * 1000)
        answer = await self._eval(
            TALK, keys, self._generation, self._writer, said, every_ms, int(_LOOK_AHEAD_S), believed_ms, self._logged
        )
        all_said = {name.decode(): _held(text) for name, text in zip(answer[::2], answer[1::2], strict=True)}
        ours = all_said.pop(self._writer, {})
        before, now = self.state.compared, compare(ours, all_said)
        self.state.compared = now
        if now.differing and not before.differing:
            log.error("replicas hold different near-duplicates: the log decides", differing=len(now.differing))
        elif before.differing and not now.differing:
            log.warning("replicas hold the same near-duplicates again")
        if now.differing and tick_s - self._mended_s >= _MEND_EVERY_S:
            self._mended_s = tick_s
            self._wanted = True


def _parsed(name: bytes, fields: Sequence[bytes] | Mapping[bytes, bytes]) -> _Read:
    pairs = fields if isinstance(fields, Mapping) else dict(zip(fields[::2], fields[1::2], strict=True))
    seq = int(name.partition(b"-")[0])
    if b"m" in pairs:
        return _Read(seq, "", "", b"", int(pairs[b"m"]))
    return _Read(seq, pairs[b"w"].decode(), pairs[b"k"].decode(), pairs[b"r"], None)


def _held(text: bytes) -> Held:
    return {int(seq): (int(count), str(sum)) for seq, (count, sum) in json.loads(text).items()}
