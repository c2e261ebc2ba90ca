"""Batches from their name to their last answer, at whichever upstream.

Rules of this file:
1. Each step is on disk before the next one: a batch has its name, and what its making needs, before it is made, and is
   looked for after a crash, so that none is paid for twice.
2. What a batch gives no answer for goes on in another way: into another batch once, where this one was broken off;
   else it is asked for directly.
3. A batch that goes on at the provider is never given up for a refusal that may pass (a key that isn't taken for a
   while, one that has just ended when it is to be broken off): what it has answered would be paid for twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import orjson
import structlog

from farthing.proxy.batch_api import Ask, BatchApi, Job, Line, Refused
from farthing.proxy.batch_ways import Target, kind_named
from farthing.proxy.clock import Randomness
from farthing.proxy.defer_books import paid_of, restored
from farthing.proxy.defer_lines import answered
from farthing.proxy.defer_shelf import Shelf, Works, survive
from farthing.proxy.defer_store import Batch, Kept, Result, Texts
from farthing.proxy.errors import StoreFault
from farthing.proxy.exchange import Exchange, Outcome

__all__ = ["PART_UNUSED", "Batches", "line_of"]

log = structlog.get_logger("farthing.defer")

_TRIES = 2
_AT_ONCE = 256
_MAY_PASS = (401, 403)
PART_UNUSED = "items_dont_fit"  # why one is sent directly whose part a batch has answered, and billed


@dataclass(slots=True)
class Batches:
    """Makes batches of what is on the shelf, looks after them, and takes their answers."""

    shelf: Shelf
    randomness: Randomness
    _next_look_s: dict[str, float] = field(default_factory=dict)
    _unsure_s: dict[str, float] = field(default_factory=dict)  # until when one that is not there may still be made

    async def begin(self, members: Sequence[Kept]) -> None:
        """Give a batch its name; `look` makes it. Raises StoreFault."""
        if not members:
            return
        name = f"fb-{self.randomness.token(12)}"
        batch = Batch(name, members[0].account, members[0].upstream, api=members[0].api)
        await self.shelf.write([o._replace(state="sending", batch=name, tries=o.tries + 1) for o in members], batch)

    async def look(self, works: Works, now_s: float) -> None:
        """See to each batch whose turn it is."""
        for name in list(self.shelf.batches):
            if now_s >= self._next_look_s.get(name, 0.0):
                batch = self.shelf.batches[name]
                if name not in self._next_look_s and batch.file and not batch.id:
                    self._unsure_s[name] = now_s + works.config.poll_s  # who asked for it ended, perhaps just now
                self._next_look_s[name] = now_s + works.config.poll_s
                await survive("a batch can't be looked after", self._advance(works, batch))
        for known in (self._next_look_s, self._unsure_s):
            for name in known.keys() - self.shelf.batches.keys():
                del known[name]

    async def _advance(self, works: Works, batch: Batch) -> None:
        target, pairs = works.by_key.get(batch.upstream), self.shelf.shown(works, batch.account, batch.upstream)
        if pairs is None or target is None:
            return
        members = self.shelf.members(batch.name)
        api = target.api(kind_named(batch.api), pairs, self.shelf.clock, self.randomness)
        now_s = self.shelf.clock.now_s()
        try:
            if not batch.id:
                await self._make(api, batch)
                return
            job = await api.get(batch.id)
            if job.ended:
                await self._collect(works, target, api, batch, job)
                return
            left = [one for one in members if not one.over]
            past = any(now_s >= one.deadline_s for one in left)
            if (past or not left) and not batch.cancelled_s and not job.cancelling:
                await _cancelled(api, batch)
                await self.shelf.write([], batch._replace(cancelled_s=now_s))
        except Refused as refusal:
            waits = any(not one.over for one in members)
            if not refusal.lasting or (batch.id and waits and refusal.status in _MAY_PASS):
                raise
            log.warning("the upstream takes no batch: its requests are sent one by one", error=str(refusal))
            batch = self.shelf.batches.get(batch.name, batch)  # it may have been prepared meanwhile
            await self._dissolve(batch, "batch_refused")
            await self._clear(api, batch)

    async def _make(self, api: BatchApi, batch: Batch) -> None:
        """Prepare and create; a batch that a crash left half made is looked for first."""
        shelf, members = self.shelf, self.shelf.members(batch.name)
        unsent = [one for one in members if one.state == "sending"]
        job = await api.made(batch.file, batch.name, {one.id for one in members}) if batch.file else None
        if job is None and self.shelf.clock.now_s() < self._unsure_s.get(batch.name, 0.0):
            return
        if job is None and not unsent:
            await self._forget(batch)  # all were cancelled: what isn't booked yet is, at the next turn
            await self._clear(api, batch)
            return
        if job is None:
            texts = await shelf.store.texts([one.id for one in unsent])
            asks = [
                Ask(one.id, one.sent_path or one.path, body)
                for one in unsent
                if one.id in texts and (body := texts[one.id].sent or texts[one.id].body)
            ]
            if not asks:
                await self._dissolve(batch, "unreadable")
                await self._clear(api, batch)
                return
            if not batch.file:
                batch = batch._replace(file=await api.prepare(batch.name, asks))
                await shelf.write([], batch)
            job = await api.create(batch.file, batch.name, asks)
        batch = batch._replace(id=job.id)
        await shelf.write([one._replace(state="sent") for one in shelf.members(batch.name) if not one.over], batch)
        log.info("batch sent", batch=batch.id, requests=len(unsent))

    async def _clear(self, api: BatchApi, batch: Batch) -> None:
        """Remove what the provider holds of a batch that brought nothing."""
        if batch.file:
            job = Job(batch.id) if batch.id else None
            await survive("what the provider holds can't be removed", api.clear(batch.file, job))

    async def _collect(self, works: Works, target: Target, api: BatchApi, batch: Batch, job: Job) -> None:
        """The batch has ended: take its answers; what has none is asked for in another way."""
        found: set[str] = set()
        lines = await api.answers(job)
        good = [line for line in lines if line.status and line.status != 429 and line.status < 500]
        for start in range(0, len(good), _AT_ONCE):
            found |= await self._take(works, target, batch, good[start : start + _AT_ONCE])
        for one in self.shelf.members(batch.name):
            if one.state == "cancelled" and not one.booked and one.id not in found:
                await self.shelf.book_never(works, one, Outcome.ABANDONED, "cancelled by the client")
        await self._dissolve(batch, f"batch_{job.ended}")
        await survive("what the provider holds can't be removed", api.clear(batch.file, job))

    async def _take(self, works: Works, target: Target, batch: Batch, lines: Sequence[Line]) -> set[str]:
        """Keep and book these answers; whose they are."""
        texts = await self.shelf.store.texts([line.id for line in lines])
        members = {one.id: one for one in self.shelf.members(batch.name)}
        taken: set[str] = set()
        booked: list[Kept] = []
        for line in lines:
            one = members.get(line.id)
            if one is None or one.booked or one.id in taken:
                continue
            taken.add(one.id)
            if line.id in texts:
                try:
                    saved = await self._taken(works, target, batch, line, texts[line.id])
                except StoreFault:
                    raise
                except Exception as error:  # one line that can't be read must not keep the others from their answers
                    log.error("a batch's answer can't be taken", error=type(error).__name__, exc_info=error)
                    taken.discard(one.id)
                    continue
                if saved is not None:
                    booked.append(self.shelf.all[line.id]._replace(booked=1, saved_pico=saved))
            else:
                booked.append(one._replace(booked=1))
        await self.shelf.flushed(works)
        await self.shelf.write(booked)
        return taken

    async def _taken(self, works: Works, target: Target, batch: Batch, line: Line, texts: Texts) -> int | None:
        """One answer, kept and booked: what it saved, in pico-dollars; None: it can't be used, and is asked anew."""
        shelf = self.shelf
        own = restored(shelf.all[line.id], texts, shelf.clock)
        works = shelf.lane(own, works)
        result = await answered(own, target, line, works.carrier, works.routing)
        one = shelf.all[line.id]  # its client may have cancelled it meanwhile
        dropped = one.state == "cancelled"
        if result is None and not dropped:
            await self._unused(works, target, one, own)
            return None
        if not dropped and result is not None:
            one = one._replace(state="completed", ended_s=shelf.clock.now_s(), error="", status=result.status)
            said = b"" if result.body == line.body else said_of(line)
            await shelf.step(one, shelf.store.answer(one, result, said))
        return await works.books.batched(own, target, batch.id, dropped=dropped)

    async def _unused(self, works: Works, target: Target, one: Kept, own: Exchange) -> None:
        """The answer to the missing part of an embeddings request doesn't fit: its bill is noted, all is asked for."""
        assert own.call is not None
        usage = own.call.usage or works.carrier.counted(own, own.items)
        log.warning("a batch's embeddings can't be put together: the whole request is sent", model=own.model)
        again = one._replace(state="direct", batch="", error=PART_UNUSED)
        bill = paid_of(works.books.unused(own, target, usage))
        await self.shelf.step(again, self.shelf.store.unused(again, bill))

    async def _dissolve(self, batch: Batch, why: str) -> None:
        """The batch is no more; its requests that have no answer go on in another way."""
        now_s = self.shelf.clock.now_s()
        left = [one for one in self.shelf.members(batch.name) if one.state in ("sending", "sent")]
        again = [
            one._replace(state="queued", batch="")
            if why in ("batch_expired", "batch_cancelled") and one.tries < _TRIES and now_s < one.deadline_s
            else one._replace(state="direct", batch="", error=why)
            for one in left
        ]
        await self.shelf.write(again)
        await self._forget(batch)

    async def _forget(self, batch: Batch) -> None:
        await self.shelf.forget_batch(batch)


async def _cancelled(api: BatchApi, batch: Batch) -> None:
    """Break it off; one that has just ended can't be, and the next look finds its answers. Raises UpstreamFault,
    Refused."""
    try:
        await api.cancel(batch.id)
    except Refused as refusal:
        if not refusal.lasting:
            raise
        log.warning("a batch can't be broken off", batch=batch.id, error=str(refusal))


def said_of(line: Line) -> bytes:
    """A line as it came, to be booked once more after a crash."""
    return orjson.dumps([line.id, line.status]) + b"\n" + line.body


def line_of(said: bytes, result: Result, id: str) -> Line:
    """What `said_of` gave; where nothing was said, what the client got is what the batch answered."""
    if not said:
        return Line(id, result.status, result.body)
    head, _, body = said.partition(b"\n")
    name, status = orjson.loads(head)
    return Line(name, status, body)
