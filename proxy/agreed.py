"""A state that replicas agree upon: a log in Redis or Valkey, whose events every replica applies in the same order.

What one replica tells comes back to all, itself among them, and nobody's state changes by anything else. So equal logs
make equal states, without anybody who is in charge.

Rules of this file:
1. Nobody waits for the server. What is told while it is away waits, to a bound (`full`), and is sent when it is back:
   once, whatever was cut off.
2. Now and then somebody marks a place in the log. Whoever comes by keeps a digest of its state there; whoever marked
   keeps the state itself in the server. Who begins anew, was away for longer than the log reaches back, or has another
   digest than the state that was kept, takes that state.
3. A server that has lost everything, or a part of it, is given the state of whoever sees that first, for all.
4. A state is made up slice by slice, and nothing is applied in between; others have their turns.
5. It is sent in pieces under a name of its own (agreed_pieces.py), one at each exchange, and becomes the kept one when
   all are there, unless another one was kept meanwhile. So no command is long, and what is told isn't held up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Protocol

import orjson
import structlog

from farthing.proxy.agreed_pieces import PIECE_BYTES, Coming, Pieces
from farthing.proxy.agreed_wire import (
    APPEND,
    BEGIN,
    FORGET,
    KEEP,
    LOOK,
    MARK,
    READ,
    Id,
    Names,
    Packed,
    id_of,
    pack,
    told,
    unpack,
)  # fmt: skip
from farthing.proxy.clock import Clock
from farthing.proxy.errors import StoreFault
from farthing.proxy.every import Every
from farthing.proxy.tasks import TaskGroup

if TYPE_CHECKING:
    from farthing.cache.store_redis import RedisStore

__all__ = ["Agreed", "AgreedState", "Machine"]

log = structlog.get_logger("farthing.agreed")

_LOOK_EVERY_S = 0.25
_MARK_EVERY_S = 60.0
_MARK_AFTER = 5_000  # events
_MARKS = 256  # a state may be long on its way
_MOST_WAITING = 20_000
_AT_ONCE = 256
_READ_AT_ONCE = 500
_TURN_S = 0.005
_LAST_S = 1.0
_PATIENCE = 4  # looks
_BEGINNING = Id(0, 0)


class Machine(Protocol):
    """A state that events change: the same ones in the same order make the same state. All on the event loop."""

    def apply(self, event: Any, *, own: bool) -> None:
        """Take in one event, a JSON value; `own`: told here. What can't be understood (another farthing's) is passed
        by."""
        ...

    def slices(self) -> Iterator[Any]:
        """The state as JSON values, a little at a time; equal states give equal slices."""
        ...

    async def put(self, slices: Sequence[Any]) -> None:
        """Be that state. Raises ValueError: it is none; then nothing is changed."""
        ...

    async def stands(self, slices: Callable[[], Sequence[Any]], waiting: Callable[[], list[Any]]) -> None:
        """This is the state now, after `put` or at a mark. `slices`: gives it, anew each time, and takes a while: for
        another thread. `waiting`: what was told here and hasn't come back."""
        ...


@dataclass(slots=True)
class AgreedState:
    """For screens. `reached`: whether the last exchange came to its end; `current`: whether this replica has had all
    that was in the log since it took a state. `applied`, `dropped`: events. `taken`: how often it took the kept state;
    `differed`: how often, because its own was another."""

    reached: bool = False
    current: bool = False
    applied: int = 0
    dropped: int = 0
    taken: int = 0
    differed: int = 0


class Agreed:
    """See the module. `name`: of the state. `teller`: this replica's name, that no other one has. `noise`: some random
    characters. `mark_every_s`: how often the state is kept, where there is something new. `piece_bytes`: the most of
    it, and of the log, that one command carries."""

    def __init__(
        self,
        store: RedisStore,
        name: str,
        machine: Machine,
        *,
        teller: str,
        noise: str,
        clock: Clock,
        mark_every_s: float = _MARK_EVERY_S,
        piece_bytes: int = PIECE_BYTES,
    ) -> None:
        self.store = store
        self.state = AgreedState()
        self.name = name
        self._names = Names(name)
        self._machine = machine
        self._teller = teller
        self._noise = noise
        self._clock = clock
        self._mark_every_s = mark_every_s
        self._generation = ""
        self._begun = 0
        self._piece_bytes = piece_bytes
        self._pieces = Pieces(self._names, self._eval, piece_bytes)
        self._first: Coming | None = None  # on its way, where there was none
        self._coming: Coming | None = None  # on its way, of a mark
        self._at = _BEGINNING  # what has been applied
        self._marks: dict[Id, str] = {}  # the last ones that were passed, with the digest of the state there
        self._since_mark = 0
        self._marked_tick_s = clock.tick_s()
        self._number = 0
        self._waiting: deque[tuple[int, bytes]] = deque()
        self._sent: deque[tuple[int, bytes]] = deque()  # in the log, and not back yet
        self._at_it = asyncio.Lock()
        self._looks: Every | None = None
        self._closed = False

    @property
    def full(self) -> bool:
        """Whether no more may wait: what is told now is dropped."""
        return len(self._waiting) >= _MOST_WAITING

    @property
    def closed(self) -> bool:
        """Whether it is followed no more."""
        return self._closed

    @property
    def waiting(self) -> int:
        """How many events the log doesn't have yet."""
        return len(self._waiting)

    def begin(self, tasks: TaskGroup) -> None:
        """Exchange now and then from now on."""
        self._looks = Every(_LOOK_EVERY_S, tasks, self._look, f"what replicas agree upon: {self.name}")

    def tell(self, event: Any, *, always: bool = False) -> None:
        """Let all replicas apply it. `always`: though too much waits."""
        if self.full and not always:
            self.state.dropped += 1
            return
        self._number += 1
        self._waiting.append((self._number, orjson.dumps(event)))

    async def exchange(self) -> bool:
        """Send what waits, and apply what there is; whether more may have come. A server that is away is told by
        `store`, and it goes on later."""
        async with self._at_it:
            try:
                more = await self._step()
                self.state.reached = True
            except StoreFault:
                self.state.reached = False
                return False
            return more

    async def close(self) -> None:
        """Send what waits, if the server takes it at once, and follow no more. Idempotent."""
        self._closed = True
        if self._looks is not None:
            self._looks.stop()
        if self._waiting:
            with suppress(TimeoutError):
                async with asyncio.timeout(_LAST_S):
                    await self.exchange()

    async def forget(self) -> None:
        """Nobody needs it any more. Raises StoreFault."""
        self._closed = True
        if self._looks is not None:
            self._looks.stop()
        async with self._at_it:
            names = self._names
            await self._eval(FORGET, (names.about, names.log, names.state, names.before, names.claim))

    async def _look(self) -> None:
        more = True
        while more:
            more = await self.exchange()

    async def _step(self) -> bool:
        """One round; whether there may be more to do."""
        if not self._generation:
            await self._join()
        if not await self._send():
            await self._join()
            return True
        generation, at, digest, since, last, found = await self._read()
        # Another one, one that is cut behind what was read here, or one that has lost what was read here.
        if generation != self._generation or not since <= self._at <= (found[-1][0] if found else last):
            await self._join()
            return self._at >= since
        self._first = None  # what was begun elsewhere, or here before, stands
        if self._marks.get(at, digest) != digest:
            self.state.differed += 1
            log.warning("a state that replicas agree upon differed here: it is taken anew", state=self.name)
            await self._join()
            return True
        turn_s = self._clock.tick_s()
        for id, fields in found:
            await self._entry(id, fields, at)
            if self._clock.tick_s() - turn_s > _TURN_S:
                await asyncio.sleep(0)
                turn_s = self._clock.tick_s()
        await self._mark_now_and_then()
        more = bool(found) and found[-1][0] < last
        self.state.current |= not more
        return await self._keep_on(at) or more or bool(self._waiting)

    async def _send(self) -> bool:
        """False: the log isn't the one that was followed."""
        while self._waiting:
            some = self._some()
            keys = (self._names.about, self._names.log, self._names.state, self._names.told(self._teller))
            stands = await self._eval(APPEND, keys, self._generation, self._teller, *told(some))
            if stands.decode() != self._generation:
                return False
            for one in some:
                self._waiting.popleft()
                self._sent.append(one)
        return True

    def _some(self) -> list[tuple[int, bytes]]:
        """Of what waits, what one command carries."""
        some: list[tuple[int, bytes]] = []
        size = 0
        for one in islice(self._waiting, _AT_ONCE):
            size += len(one[1])
            if some and size > self._piece_bytes:
                break
            some.append(one)
        return some

    async def _read(self) -> tuple[str, Id, str, Id, Id, list[tuple[Id, dict[bytes, bytes]]]]:
        keys = (self._names.about, self._names.log, self._names.state)
        asked = (str(self._at), _READ_AT_ONCE, self._piece_bytes)
        generation, at, digest, since, last, found = await self._eval(READ, keys, *asked, kind="read")
        entries = [(id_of(id), dict(zip(fields[::2], fields[1::2], strict=True))) for id, fields in found]
        return generation.decode(), id_of(at), digest.decode(), id_of(since), id_of(last), entries

    async def _entry(self, id: Id, fields: dict[bytes, bytes], kept: Id) -> None:
        self._at = id
        marker = fields.get(b"m")
        if marker is not None:
            await self._pass(id, marker.decode(), kept)
            return
        own = False  # what had come back before is read again after a state was taken, which didn't hold it
        if fields[b"w"].decode() == self._teller:
            number = int(fields[b"n"])
            while self._sent and self._sent[0][0] <= number:
                self._sent.popleft()
                own = True
        self._machine.apply(orjson.loads(fields[b"e"]), own=own)
        self.state.applied += 1
        self._since_mark += 1

    async def _pass(self, id: Id, marker: str, kept: Id) -> None:
        """Come by a mark."""
        lines = await self._lines()
        packed = await asyncio.to_thread(pack, lines)
        self._marks[id], self._since_mark = packed.digest, 0
        if len(self._marks) > _MARKS:
            del self._marks[next(iter(self._marks))]
        self._marked_tick_s = self._clock.tick_s()
        # Else a later one is kept, or an earlier one is still on its way.
        if marker == self._teller and kept < id and self._coming is None:
            self._coming = Coming(f"{self._generation}:{id}", packed, id, kept)
        await self._machine.stands(lambda: [orjson.loads(line) for line in lines], self._own)

    async def _keep_on(self, kept: Id) -> bool:
        """Send a piece of the state that is to be kept, and keep it when all are there; whether there are more."""
        coming = self._coming
        if coming is None:
            return False
        if coming.after != kept:  # another one came first, or this one is kept
            self._coming = None
            return False
        if not await self._pieces.write(coming):
            return True
        names = self._names
        keys = (names.about, names.log, names.state, names.before, names.coming(coming.name))
        asked = (self._generation, str(coming.at), str(coming.after), coming.packed.digest)
        await self._eval(KEEP, keys, *asked, self._pieces.count(coming))
        self._coming = None
        return False

    async def _lines(self) -> list[bytes]:
        lines: list[bytes] = []
        for part in self._machine.slices():
            lines.append(orjson.dumps(part))
            await asyncio.sleep(0)
        return lines

    def _own(self) -> list[Any]:
        """What was told here and hasn't come back."""
        return [orjson.loads(event) for _, event in (*self._sent, *self._waiting)]

    async def _join(self) -> None:
        """Take the state that is kept; where there is none, this one's becomes it."""
        self._coming = None
        generation, at, digest, body = await self._kept()
        try:
            slices = await asyncio.to_thread(unpack, body)
            await self._machine.put(slices)
        except ValueError as error:
            log.warning("what replicas agree upon is damaged: it is begun anew", state=self.name, error=str(error))
            await self._begin(generation)
            self._first = None
            raise StoreFault(f"{self.name}: what replicas agree upon can't be read: {error}") from error
        if generation != self._generation:
            self._sent.clear()  # of a log that isn't there any more
        self._generation, self._at, self._first = generation, at, None
        self._marks, self._since_mark = {at: digest}, 0
        self.state.current = False
        await self._machine.stands(lambda: slices, self._own)
        self.state.taken += 1

    async def _kept(self) -> tuple[str, Id, str, bytes]:
        """Generation, place and digest of the state that is kept, and itself.

        Who has never had one gives the others a moment to begin to put theirs, which is worth more."""
        names = self._names
        keys = (names.about, names.log, names.state, names.claim)
        patience = 0 if self._generation else _PATIENCE
        while True:
            generation, at, digest, count, claimed = await self._eval(LOOK, keys, kind="read")
            if generation:
                body = await self._pieces.read(generation.decode(), id_of(at), count)
                if body is None:  # another one is kept
                    continue
                return generation.decode(), id_of(at), digest.decode(), body
            if patience:
                patience -= not claimed
                await asyncio.sleep(_LOOK_EVERY_S)
                continue
            await self._begin("")

    async def _begin(self, useless: str) -> None:
        """Let this one's state be the one that is kept, where there is none, or that generation's. It doesn't change
        until one is taken, so what was sent of it before a failure is good."""
        names = self._names
        if self._first is None:
            mine: Packed = await asyncio.to_thread(pack, await self._lines())
            self._begun += 1
            self._first = Coming(f"{self._noise}.{self._begun}", mine, _BEGINNING, _BEGINNING)
        first = self._first
        while not await self._pieces.write(first, claim=True):
            pass
        keys = (names.about, names.log, names.state, names.before, names.claim, names.coming(first.name))
        begun = await self._eval(BEGIN, keys, first.name, first.packed.digest, self._pieces.count(first), useless)
        if begun == -1:
            self._first = None
            raise StoreFault(f"{self.name}: a part of what replicas agree upon was gone before it was kept")

    async def _mark_now_and_then(self) -> None:
        if not self._since_mark:
            return
        due = self._clock.tick_s() - self._marked_tick_s >= self._mark_every_s
        if not due and self._since_mark < _MARK_AFTER:
            return
        every_ms = self._mark_every_s * 1000 if due else 1000
        self._marked_tick_s = self._clock.tick_s()
        keys = (self._names.about, self._names.log)
        await self._eval(MARK, keys, self._generation, self._teller, int(every_ms))

    async def _eval(self, script: str, keys: Sequence[str], *values: object, kind: str = "write") -> Any:
        return await self.store.run(kind, lambda client: client.eval(script, len(keys), *keys, *values))
