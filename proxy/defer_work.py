"""What is done for deferred requests, by the one process that sees to them: sent in batches, asked for by themselves
where that fails, cancelled, forgotten, booked.

Rules of this file:
1. Whatever becomes of a batch, each of its requests gets an answer by its own deadline or soon after: what isn't done
   then is sent directly. One that is sent before that, and finds the upstream busy or away, waits and is sent again.
   Only a request whose credential nobody has any more fails, or one whose text can't be opened.
2. One row in the ledger for each request, when it is over.

What it works on is proxy/defer_shelf.py, what becomes of batches proxy/defer_batches.py.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Any

import structlog
from multidict import CIMultiDict

from farthing.cache.flight import Flight
from farthing.policies.defer import Group, Rules, Waiting, ready
from farthing.policies.retry import AGAIN
from farthing.proxy.account import dollars
from farthing.proxy.batch_ways import Target, kind_named
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.defer_batches import PART_UNUSED, Batches, line_of
from farthing.proxy.defer_books import paid_before, planned, restored
from farthing.proxy.defer_lines import answered, failed_body
from farthing.proxy.defer_shelf import Shelf, Works, survive
from farthing.proxy.defer_store import Kept, Result
from farthing.proxy.errors import ClientFault, StoreFault, UpstreamFault
from farthing.proxy.exchange import Call, Exchange, Outcome
from farthing.proxy.styles import STYLES
from farthing.proxy.tasks import TaskGroup

__all__ = ["Work"]

log = structlog.get_logger("farthing.defer")

_JSON = "application/json"
_CANCELLING_S = 600.0  # how long a provider may take to break a batch off (OpenAI API reference: up to 10 minutes)
_WHY = {"credential_lost": "credential lost", "unreadable": "sealed under a key that is not here"}
_LONGEST_PAUSE_S = 3600.0
_ENDS_WITHIN_S = 10.0  # what is being asked for directly when this process ends: whoever follows would pay for it again


class Work:
    """See the module."""

    def __init__(self, shelf: Shelf, clock: Clock, randomness: Randomness) -> None:
        self._shelf = shelf
        self._clock = clock
        self._batches = Batches(shelf, randomness)
        self._tasks = TaskGroup()
        self._few = asyncio.Semaphore(8)
        self._again: dict[str, tuple[int, float]] = {}  # of what was sent directly in vain: how often, and when next

    async def close(self) -> None:
        """Stop; what is under way with a provider's batch API is found again."""
        await self._tasks.drain(_ENDS_WITHIN_S)

    # -- what others ask

    async def cancel(self, works: Works, id: str) -> None:
        """Forget about it. What the provider has begun is paid for, and booked when it is known. Raises StoreFault."""
        shelf = self._shelf
        kept = shelf.all.get(id)
        if kept is None or kept.over:
            return
        waits = id in self._again and id not in shelf.asking and kept.error != PART_UNUSED
        unsent = kept.state == "queued" or (kept.state == "direct" and waits)
        if kept.state == "direct" and not unsent:
            return
        now = kept._replace(state="cancelled", ended_s=self._clock.now_s())
        shelf.asking.add(id)
        try:
            await shelf.write([now])
            if unsent:
                await shelf.book_never(works, now, Outcome.ABANDONED, "cancelled by the client")
        finally:
            shelf.asking.discard(id)

    async def erase(self, works: Works, user: str) -> int:
        """Cancel and forget all of a user's; how many there were. One whose bill is to come stays until it has come.
        Raises StoreFault."""
        shelf = self._shelf
        mine = [id for id in await shelf.store.ids_of(user) if id in shelf.all]
        for id in mine:
            await self.cancel(works, id)
        await shelf.forget([id for id in mine if shelf.all[id].over and shelf.all[id].booked])
        return len(mine)

    def standing(self, works: Works) -> dict[str, Any]:
        """How many wait, are with a provider, done, failed and cancelled, of those that are kept; and by upstream."""
        shelf = self._shelf
        counts = dict.fromkeys(("waiting", "running", "done", "failed", "cancelled"), 0)
        states = {"queued": "waiting", "completed": "done", "failed": "failed", "cancelled": "cancelled"}
        upstreams: dict[str, dict[str, int]] = {}
        saved_of: dict[str, int] = {}
        for one in shelf.all.values():
            state = states.get(one.state, "running")
            counts[state] += 1
            target = works.by_key.get(one.upstream)
            name = "no longer configured" if target is None else target.upstream.name
            of = upstreams.setdefault(name, dict.fromkeys(counts, 0))
            of[state] += 1
            saved_of[name] = saved_of.get(name, 0) + one.saved_pico
        oldest_s = min((one.created_s for one in shelf.all.values() if not one.over), default=None)
        return {
            **counts,
            "saved_usd": dollars(sum(saved_of.values())),
            "batches": len(shelf.batches),
            "oldest_s": None if oldest_s is None else max(0.0, self._clock.now_s() - oldest_s),
            "keep_s": works.config.keep_s,
            "upstreams": [
                {"upstream": name, **of, "saved_usd": dollars(saved_of[name])} for name, of in sorted(upstreams.items())
            ],
        }

    # -- the work

    async def turn(self, works: Works) -> None:
        """Do what is due. Raises StoreFault."""
        shelf, now_s = self._shelf, self._clock.now_s()
        for id in [id for id in self._again if (known := shelf.all.get(id)) is None or known.over]:
            del self._again[id]
        keep_s = works.config.keep_s
        old = [one.id for one in shelf.all.values() if one.over and one.booked and now_s >= one.ended_s + keep_s]
        if old:
            await shelf.forget(old)
        for one in [one for one in shelf.all.values() if one.over and not one.booked]:
            await survive("a deferred request can't be booked", self._book_again(works, one))
        waiting = [
            Waiting(
                one.id, _group(one, works.by_key[one.upstream]), one.size, one.created_s, one.deadline_s, one.inputs
            )
            for one in shelf.all.values()
            if one.state == "queued" and shelf.can_send(works, one) and now_s < one.deadline_s
        ]
        for batch in ready(waiting, lambda group: _rules(works, group), now_s):
            members = [shelf.all[one.id] for one in batch]
            await self._batches.begin([one for one in members if one.state == "queued"])
        await self._batches.look(works, now_s)
        await self._late(works, self._clock.now_s())
        for one in shelf.all.values():
            ready_s = min(one.deadline_s, self._again.get(one.id, (0, 0.0))[1])
            if one.state == "direct" and now_s >= ready_s and one.id not in shelf.asking and shelf.can_send(works, one):
                shelf.asking.add(one.id)
                self._tasks.spawn(survive("a deferred request can't be sent", self._directly(works, one)))

    async def _late(self, works: Works, now_s: float) -> None:
        """Whose deadline has passed: sent directly, where no batch may still bring it."""
        shelf, late = self._shelf, []
        for one in shelf.all.values():
            if one.over or now_s < one.deadline_s:
                continue
            if not shelf.can_send(works, one) and one.id not in shelf.asking:
                late.append(one._replace(state="failed", ended_s=now_s, error="credential_lost"))
                continue
            batch = shelf.batches.get(one.batch)
            # Where the batch API is away it can't even be broken off: that is waited for no longer than a breaking off.
            since_s = one.deadline_s if batch is None else batch.cancelled_s or one.deadline_s
            given_up = batch is None or not batch.id or now_s > since_s + _CANCELLING_S
            if one.state != "direct" and given_up:
                late.append(one._replace(state="direct", batch="", error="deadline"))
        if late:
            await shelf.write(late)
            for one in late:
                if one.over:
                    await shelf.book_never(works, one, Outcome.FAILED, _WHY[one.error])

    async def _book_again(self, works: Works, kept: Kept) -> None:
        """It was over, and whoever saw to it ended before it was surely booked: once, whether the ledger has its row by
        now or not."""
        shelf = self._shelf
        if (kept.state == "cancelled" and kept.batch in shelf.batches) or kept.id in shelf.asking:
            return
        result = await shelf.store.result(kept.id)
        found = (await shelf.store.texts([kept.id])).get(kept.id)
        target = works.by_key.get(kept.upstream) or next(iter(works.targets.values()))
        own = None if found is None else restored(kept, found, self._clock)
        saved = None if own is None else await works.books.before(own)
        if saved is not None:
            await shelf.write([kept._replace(booked=1, saved_pico=saved)])
            return
        if result is None or found is None or own is None:
            outcome = Outcome.FAILED if kept.state == "failed" else Outcome.ABANDONED
            await shelf.book_never(works, kept, outcome, _WHY.get(kept.error, "cancelled by the client"))
            return
        works = shelf.lane(own, works)
        line, saved = line_of(found.said, result, kept.id), 0
        await answered(own, target, line, works.carrier, works.routing, given=not kept.batch)
        if kept.batch:
            saved = await works.books.batched(own, target, kept.batch, dropped=False)
        else:
            paid_before(own, found.paid)
            await works.books.direct(own, "before the process ended that asked")
        await shelf.flushed(works)
        await shelf.write([kept._replace(booked=1, saved_pico=saved)])

    # -- one by one

    async def _directly(self, works: Works, kept: Kept) -> None:
        """Ask for it as any request is asked for."""
        shelf = self._shelf
        async with self._few:
            try:
                texts = (await shelf.store.texts([kept.id])).get(kept.id)
                if texts is None or not texts.body:
                    lost = kept._replace(state="failed", ended_s=self._clock.now_s(), error="unreadable")
                    await shelf.write([lost])
                    await shelf.book_never(works, lost, Outcome.FAILED, _WHY[lost.error])
                    return
                why = kept.error
                own = restored(kept, texts, self._clock, self._shown(works, kept))
                works = shelf.lane(own, works)
                planned(own, texts.meta, works.routing)
                result, again = await self._asked(works, own, texts.paid)
                if again and self._clock.now_s() < kept.deadline_s:
                    self._wait(works, kept, own)
                    return
                done = kept._replace(state="completed", ended_s=self._clock.now_s(), error="", status=result.status)
                await self._answered(works, done, result)
                await works.books.direct(own, why)
                await shelf.flushed(works)
                await shelf.write([done._replace(booked=1)])
            finally:
                shelf.asking.discard(kept.id)

    async def _answered(self, works: Works, done: Kept, result: Result) -> None:
        """Its answer is kept, however often the disk fails: it was paid for, and would be again."""
        while True:
            try:
                await self._shelf.step(done, self._shelf.store.answer(done, result))
                return
            except StoreFault as fault:
                log.warning("a deferred request's answer can't be kept yet", request=done.id, error=str(fault))
            await asyncio.sleep(works.config.poll_s)

    def _wait(self, works: Works, kept: Kept, own: Exchange) -> None:
        """The upstream was busy or away: it may wait, so it is sent once more, later each time."""
        tries = self._again.get(kept.id, (0, 0.0))[0] + 1
        pause_s = min(_LONGEST_PAUSE_S, works.config.poll_s * 2.0 ** min(tries - 1, 16))
        self._again[kept.id] = (tries, self._clock.now_s() + pause_s)
        log.info("a deferred request is sent again", request=kept.id, status=own.status, pause_s=pause_s)

    def _shown(self, works: Works, kept: Kept) -> list[tuple[str, str]]:
        """What the client showed, where that means something; for messages as Anthropic's clients show it."""
        shown = CIMultiDict(self._shelf.shown(works, kept.account, kept.upstream) or ())
        if kept.path == "/v1/messages":
            shown.setdefault(*STYLES["anthropic"].headers[0])
            if works.by_key[kept.upstream].operators:
                shown.setdefault("x-api-key", "")  # where the operator's key is to be shown
        return list(shown.items())

    async def _asked(self, works: Works, own: Exchange, paid: bytes) -> tuple[Result, bool]:
        """The answer, and whether it may be had later: the upstream was busy or away, or a rate had no room, so that
        nothing was paid for."""
        call = own.call = Call(id=own.id)
        paid_before(own, paid)
        before = len(call.others)

        def paid_for() -> bool:
            return len(call.others) > before

        flight = own.sink = Flight(call, stream=False, limit_bytes=works.buffer_bytes)
        try:
            waits = works.carrier.on_request(own)
            if isinstance(waits, Awaitable):
                await waits
            own.status = call.status
        except (UpstreamFault, ClientFault) as fault:
            own.status, own.outcome, own.error = fault.status, Outcome.FAILED, fault.message
            # A ClientFault of that status is a rate of farthing's own.
            busy = not fault.sent if isinstance(fault, UpstreamFault) else fault.status == 429
            again = busy and not paid_for()
            return Result(fault.status, _JSON, failed_body(own, fault.status, fault.message)), again
        finally:
            call.ended_tick = self._clock.tick_s()
        body = call.answer if call.answer is not None else flight.body() or b""
        kind = call.head.headers.get("Content-Type", _JSON) if call.head is not None else _JSON
        again = (call.status in AGAIN or call.status >= 500) and not paid_for()
        return Result(call.status, kind, body), again


def _group(kept: Kept, target: Target) -> Group:
    hurried = kept.deadline_s - kept.created_s < target.upstream.batch_window_s
    path, model = kept.sent_path or kept.path, kept.sent_model or kept.model
    return Group(kept.account, kept.upstream, path, model, hurried, kept.api)


def _rules(works: Works, group: Group) -> Rules:
    return works.by_key[group.upstream].rules(kind_named(group.kind))
