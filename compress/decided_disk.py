"""Decisions in one SQLite file, so that a restart changes no byte of what is sent; memory in front.

Rules of this file:
1. The event loop only hands over and takes back. A request waits for reading at most, and only for what memory lacks.
2. What waits to be written is bounded; while the disk fails nothing new is taken, and it is tried again with growing
   pauses. Each change is told in one log line.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import structlog

from farthing.compress.decided import Decision, decode, encode
from farthing.compress.decided_file import DecidedFile, Row
from farthing.compress.decided_store import Found, Front
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault
from farthing.proxy.seal import MissingKeys, Seal, SealedElsewhere

__all__ = ["FileDecisions"]

log = structlog.get_logger("farthing.compress")

_PAUSE_FIRST_S = 0.05
_PAUSE_MOST_S = 5.0


class FileDecisions:
    """Decisions over a file. Call `open` first.

    `flush_ms`: how long a write may wait for others to share its transaction; a crash loses no more. `memory_bytes`
    bounds what is held in memory, `max_bytes` the file, `pending_bytes` what waits to be written.
    `seal`: what the file's texts are closed with. What is closed under a key that isn't here counts as out of reach, so
    that no other decision is made in its place.
    """

    def __init__(
        self,
        path: Path,
        *,
        clock: Clock,
        ttl_s: float,
        max_bytes: int,
        memory_bytes: int,
        flush_ms: float = 50,
        pending_bytes: int = 2**24,
        seal: Seal | None = None,
    ) -> None:
        self._clock = clock
        self._ttl_s = ttl_s
        self._flush_s = flush_ms / 1000
        self._pending_limit = pending_bytes
        self._name = path.name
        self._seal = seal
        self._missing = MissingKeys(path.name, "what they belong to is only tidied")
        self._file = DecidedFile(path, max_bytes, seal)
        self._front = Front(memory_bytes)
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="farthing-decided-read")
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="farthing-decided-write")
        # What waits, and what the writing thread has taken; then the rows whose end moves.
        self._pending: dict[bytes, Row] = {}
        self._writing: dict[bytes, Row] = {}
        self._pending_bytes = 0
        self._touched: dict[bytes, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._flush: asyncio.Future[dict[bytes, bytes]] | None = None
        self._pause_s = _PAUSE_FIRST_S
        self._failing = False
        self._closed = False

    async def open(self) -> None:
        """Open the file, or begin it. One that can't be read is moved aside; a disk that fails is tried again later."""
        try:
            await self._in_writer(self._file.open)
        except (sqlite3.Error, OSError) as error:
            self._tell(error)

    async def get_many(self, keys: Sequence[bytes]) -> Found:
        """Decisions.get_many."""
        now_s = self._clock.now_s()
        found = {key: decision for key in keys if (decision := self._at_hand(key, now_s)) is not None}
        asked = [key for key in dict.fromkeys(keys) if key not in found]
        away = False
        if asked:
            try:
                loop = asyncio.get_running_loop()
                rows = await loop.run_in_executor(self._reader, self._file.read, asked, now_s)
            except (sqlite3.Error, OSError, RuntimeError) as error:  # RuntimeError: the store is closed
                self._tell(error)
                rows, away = [], True
            for key, expires_s, value in rows:
                try:
                    decision = self._at_hand(key, now_s) or decode(key, value, self._seal)
                except SealedElsewhere as sealed:
                    self._missing.tell(sealed)
                    away = True
                    continue
                if decision is not None:
                    found[key] = decision
                    self._front.put(key, decision, self._prolonged(key, expires_s, now_s))
        return Found([found.get(key) for key in keys], away)

    async def put_many(self, decided: Sequence[tuple[bytes, Decision]]) -> list[Decision]:
        """Decisions.put_many. Waits for nothing."""
        if self._closed or self._failing:
            raise StoreFault("decisions can't be written now")
        now_s = self._clock.now_s()
        kept = [self._at_hand(key, now_s) for key, _ in decided]
        rows = [
            (key, now_s + self._ttl_s, encode(key, decision, self._seal))
            for (key, decision), held in zip(decided, kept, strict=True)
            if held is None
        ]
        size = sum(len(value) for _, _, value in rows)
        if self._pending_bytes + size > self._pending_limit:
            raise StoreFault("too many decisions wait to be written")
        self._pending_bytes += size
        for row in rows:
            self._pending.setdefault(row[0], row)
        for (key, decision), held in zip(decided, kept, strict=True):
            if held is None and self._front.get(key, now_s) is None:
                self._front.put(key, decision, now_s + self._ttl_s)
        self._schedule(self._flush_s)
        return [decision if held is None else held for (_, decision), held in zip(decided, kept, strict=True)]

    async def forget(self, tag: bytes) -> None:
        """Decisions.forget."""
        self._front.forget(tag)
        self._pending, self._writing = (
            {key: row for key, row in rows.items() if not key.startswith(tag)}
            for rows in (self._pending, self._writing)
        )
        self._pending_bytes = sum(len(row[2]) for row in self._pending.values())
        try:
            await self._in_writer(self._file.forget, tag)
        except (sqlite3.Error, OSError) as error:
            raise StoreFault(f"decisions can't be removed: {error}") from error
        self._front.forget(tag)

    async def flush(self) -> None:
        """Wait until all that was handed over is on disk. Raises StoreFault where the disk fails now."""
        while self._pending or self._touched or self._flush is not None:
            self._begin()
            if self._flush is not None:
                await asyncio.wait({self._flush})
            if self._failing:
                raise StoreFault("decisions can't be written now")

    async def close(self) -> None:
        """Decisions.close: one last try to write what waits."""
        if self._closed:
            return
        self._closed = True
        try:
            await self.flush()
        except StoreFault:
            log.error("decisions lost: the file can't be written", file=self._name, decisions=len(self._pending))
        if self._timer is not None:
            self._timer.cancel()
        await asyncio.to_thread(self._reader.shutdown)
        await asyncio.to_thread(self._writer.shutdown)
        self._file.close()

    # On the event loop.

    def _at_hand(self, key: bytes, now_s: float) -> Decision | None:
        """The decision, if it lies in memory."""
        held = self._front.get(key, now_s)
        if held is not None:
            decision, expires_s = held
            if (later := self._prolonged(key, expires_s, now_s)) != expires_s:
                self._front.put(key, decision, later)
            return decision
        row = self._pending.get(key) or self._writing.get(key)
        return decode(key, row[2], self._seal) if row is not None else None

    def _prolonged(self, key: bytes, expires_s: float, now_s: float) -> float:
        """When a decision ends that is used now; written only where half of its time is over."""
        if expires_s - now_s > self._ttl_s / 2:
            return expires_s
        self._touched[key] = now_s + self._ttl_s
        self._schedule(self._flush_s)
        return now_s + self._ttl_s

    def _schedule(self, after_s: float) -> None:
        if self._timer is None and self._flush is None and not self._closed:
            self._timer = asyncio.get_running_loop().call_later(after_s, self._begin)

    def _begin(self) -> None:
        """Hand all that waits to the writing thread, unless it is still at work."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._flush is not None or not (self._pending or self._touched or self._failing):
            return
        self._writing, self._pending, self._pending_bytes = self._pending, {}, 0
        touched, self._touched = self._touched, {}
        loop = asyncio.get_running_loop()
        self._flush = loop.run_in_executor(
            self._writer, self._file.write, list(self._writing.values()), touched, self._clock.now_s()
        )
        self._flush.add_done_callback(self._flushed)

    def _flushed(self, flush: asyncio.Future[dict[bytes, bytes]]) -> None:
        self._flush = None
        written, self._writing = self._writing, {}
        error = None if flush.cancelled() else flush.exception()
        self._tell(error)
        if error is not None:
            self._pending = written | self._pending
            self._pending_bytes = sum(len(row[2]) for row in self._pending.values())
            return
        for key, value in flush.result().items():  # somebody else's decision was there first
            if (decision := decode(key, value, self._seal)) is not None:
                self._front.put(key, decision, self._clock.now_s() + self._ttl_s)
        if self._pending or self._touched:
            self._schedule(self._flush_s)

    def _tell(self, error: BaseException | None) -> None:
        """One log line for each change between working and failing; while it fails, a write is tried by and by."""
        if error is None:
            self._pause_s = _PAUSE_FIRST_S
        else:
            self._schedule(self._pause_s)
            self._pause_s = min(2 * self._pause_s, _PAUSE_MOST_S)
        if self._failing is (error is not None):
            return
        self._failing = error is not None
        if error is None:
            log.warning("decisions can be written again", file=self._name)
        else:
            log.error("the file of decisions fails: new turns are only tidied", file=self._name, error=repr(error))

    async def _in_writer(self, work: Callable[..., None], *args: object) -> None:
        await asyncio.get_running_loop().run_in_executor(self._writer, work, *args)
