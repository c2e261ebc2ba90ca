"""One upstream answer, read by everyone who asked for it at the same time.

Rules of this file:
1. A flight belongs to nobody's connection. It ends when its work ends, or is cancelled when its last reader has left;
   once a stream's last event has come, five seconds after that.
2. Streams join only streams; whole answers may join either.
3. A slow reader delays nobody: the writer waits only while *every* reader is behind; a reader that is behind alone by
   more than the buffer is cut off.
4. Once the buffer has overflown nobody may join any more, and nothing will be stored.
5. Flights never cross a credential: the credential is part of the flight's key.
6. A reader that has read everything may have what comes next handed to it by the writer, without a turn of its own
   task for each frame; what goes wrong with it there is its own affair, never the writer's.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple

from farthing.proxy.errors import FarthingError, UpstreamFault
from farthing.proxy.exchange import Call, Head
from farthing.proxy.sse import ends_stream

__all__ = ["CutOff", "Flight", "Flights", "Frame", "Reader", "Take"]


class CutOff(FarthingError):
    """This reader was too slow and has been left behind."""


class Frame(NamedTuple):
    """Bytes of an answer. `usage_only`: an event that only a client which asked for usage may see."""

    body: bytes
    usage_only: bool = False


_END_WITHIN_S = 5.0
Take = Callable[[Frame], bool]
"""Takes a frame at once; False: no more for now."""


class Flight:
    """An answer being written by one driver and read by any number of readers.

    The mutable state is `_frames` (what is still held), `_base` (the index of the first of them), `held_bytes`,
    `_readers` and the end marks; it changes only on the event loop, between awaits.
    """

    def __init__(self, call: Call, *, stream: bool, limit_bytes: int) -> None:
        self.call = call
        self.stream = stream
        self.head: Head | None = None
        self.fault: FarthingError | None = None
        self.ended = False
        self.overflown = False
        self.held_bytes = 0
        self.task: asyncio.Task[Any] | None = None
        self.finished = False
        self._done: asyncio.Event | None = None
        self._limit = limit_bytes
        self._frames: deque[Frame] = deque()
        self._base = 0
        self._readers: set[Reader] = set()
        self._room: asyncio.Event | None = None
        self._last = b""

    # -- the driver's side

    def open(self, head: Head) -> None:
        """The answer has begun."""
        self.head = head
        self._wake()

    async def write(self, body: bytes, *, usage_only: bool = False) -> None:
        """Append; waits while every reader is behind by more than the buffer."""
        frame = Frame(body, usage_only)
        self._frames.append(frame)
        self._last = body or self._last
        self.held_bytes += len(body)
        for reader in self._readers:
            reader.offer(frame)
        if self.held_bytes <= self._limit:
            return
        self.overflown = True
        self._trim()
        while self.held_bytes > self._limit and self._readers:
            front = max(reader.position for reader in self._readers)
            if self._bytes_from(front) <= self._limit:
                self._cut_slowest()
                self._trim()
                continue
            self._room = asyncio.Event()
            await self._room.wait()
            self._trim()

    def end(self) -> None:
        """The answer is complete."""
        self.ended = True
        self._wake()

    def fail(self, fault: FarthingError) -> None:
        """The answer can't be had, or broke off."""
        self.fault = fault
        self.ended = True
        self._wake()

    def finish(self) -> None:
        """Nothing more will be done for this flight."""
        self.finished = True
        if self._done is not None:
            self._done.set()

    async def wait_finished(self) -> None:
        """Return once it is finished."""
        if not self.finished:
            self._done = self._done or asyncio.Event()
            await self._done.wait()

    def body(self) -> bytes | None:
        """All bytes so far; None where the buffer has overflown."""
        if self.overflown:
            return None
        frames = self._frames
        return frames[0].body if len(frames) == 1 else b"".join([frame.body for frame in frames])

    @property
    def said_all(self) -> bool:
        """Whether a stream's last event has been written, so that nothing but the end of its body is to come."""
        return self.call.event_stream and ends_stream(self._last)

    def _bytes_from(self, position: int) -> int:
        skip = position - self._base
        return sum(len(frame.body) for i, frame in enumerate(self._frames) if i >= skip)

    def _cut_slowest(self) -> None:
        slowest = min(self._readers, key=lambda reader: reader.position)
        slowest.cut = True
        self._readers.discard(slowest)
        slowest.wake()

    def _trim(self) -> None:
        """Let go of what every reader has read; only after an overflow, when nobody can join any more."""
        low = min((reader.position for reader in self._readers), default=self._base + len(self._frames))
        while self._base < low:
            self.held_bytes -= len(self._frames.popleft().body)
            self._base += 1

    def _wake(self) -> None:
        for reader in self._readers:
            reader.wake()

    # -- the readers' side

    @property
    def joinable(self) -> bool:
        """Whether a new reader would get the answer from its first byte."""
        return not self.overflown and self.fault is None and not (self.task is not None and self.task.cancelling())

    @property
    def readers(self) -> int:
        """How many read it now."""
        return len(self._readers)

    def reader(self) -> Reader:
        """A new reader, from the first byte."""
        reader = Reader(self)
        self._readers.add(reader)
        return reader

    def _get(self, position: int) -> Frame | None:
        index = position - self._base
        return self._frames[index] if index < len(self._frames) else None

    def _left(self, reader: Reader) -> None:
        self._readers.discard(reader)
        self._advanced()
        if self._readers or self.ended or self.task is None:
            return
        if self.said_all:  # clients leave at the last event, and its end may be a packet away
            asyncio.get_running_loop().call_later(_END_WITHIN_S, self._give_up)
        else:
            self.task.cancel()

    def _give_up(self) -> None:
        if not self._readers and not self.ended and self.task is not None:
            self.task.cancel()

    def _advanced(self) -> None:
        if self._room is not None:
            self._room.set()


class Reader:
    """One reader's place in a flight. Close it, or the flight can't know that nobody reads any more."""

    __slots__ = ("_failed", "_take", "_waiter", "cut", "flight", "position")

    def __init__(self, flight: Flight) -> None:
        self.flight = flight
        self.position = 0
        self.cut = False
        self._waiter: asyncio.Future[None] | None = None
        self._take: Take | None = None  # set only while it waits, and has read all that there is
        self._failed: Exception | None = None

    @property
    def has_all(self) -> bool:
        """Whether it has read a stream's last event."""
        flight = self.flight
        return flight.said_all and self.position == flight._base + len(flight._frames)

    def offer(self, frame: Frame) -> None:
        """`frame` has just been written behind all others."""
        if self._take is None:
            self.wake()
            return
        self.position += 1
        try:
            more = self._take(frame)
        except Exception as error:  # noqa: BLE001 - whatever it is, it must not reach the writer
            self._failed, more = error, False
        if not more:
            self._take = None
            self.wake()

    def wake(self) -> None:
        """Something changed."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def head(self) -> Head:
        """The answer's head. Raises the flight's fault where there is no answer."""
        flight = self.flight
        while flight.head is None:
            if flight.fault is not None:
                raise flight.fault
            if flight.ended:
                raise UpstreamFault("the upstream sent no answer", phase="head")
            await self._wait()
        return flight.head

    async def next(self) -> Frame | None:
        """The next frame, None after the last one. Raises the flight's fault there where the answer broke off."""
        flight = self.flight
        while True:
            if self.cut:
                raise CutOff("this client read too slowly and was left behind")
            frame = flight._get(self.position)
            if frame is not None:
                self.position += 1
                if flight._room is not None:
                    flight._advanced()
                return frame
            if flight.ended:
                if flight.fault is not None:
                    raise flight.fault
                return None
            await self._wait()

    async def pour(self, take: Take) -> None:
        """Hand each frame to `take` as soon as it is written, until that returns False or the answer has ended.

        Raises like `next`, and what `take` raises.
        """
        flight = self.flight
        while not self.cut:
            while (frame := flight._get(self.position)) is not None:
                self.position += 1
                if flight._room is not None:
                    flight._advanced()
                if not take(frame):
                    return
            if flight.ended:
                break
            self._take = take
            try:
                await self._wait()
                handed_all = self._take is not None
            finally:
                self._take = None
            if self._failed is not None:
                raise self._failed
            if not handed_all:
                return

    async def frames(self) -> AsyncIterator[Frame]:
        """`next` until there is none."""
        while (frame := await self.next()) is not None:
            yield frame

    def close(self) -> None:
        """Leave; the last one to leave an unfinished flight cancels it. Idempotent."""
        if self in self.flight._readers:
            self.flight._left(self)

    async def _wait(self) -> None:
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None


class Flights:
    """The flights under way, by (credential, key, is it a stream)."""

    def __init__(self) -> None:
        self._flights: dict[tuple[str, str, bool], Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    def find(self, credential: str, key: str, *, stream: bool) -> Flight | None:
        """A flight that this request may join."""
        for shape in (True,) if stream else (False, True):
            flight = self._flights.get((credential, key, shape))
            if flight is not None and flight.joinable:
                return flight
        return None

    def add(self, credential: str, key: str, flight: Flight) -> None:
        """Let others find this flight."""
        self._flights[credential, key, flight.stream] = flight

    def remove(self, credential: str, key: str, flight: Flight) -> None:
        """Nobody may find it any more; a newer flight in its place stays."""
        place = (credential, key, flight.stream)
        if self._flights.get(place) is flight:
            del self._flights[place]
