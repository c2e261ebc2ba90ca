"""Deferred requests: kept, sent in batches, asked for by themselves where that fails, answered when fetched.

Rules of this file:
1. Whatever becomes of a batch, each of its requests gets an answer by its own deadline or soon after: what isn't done
   then is sent directly. One that is sent before that, and finds the upstream busy or away, waits and is sent again.
   Only a request whose credential nobody has any more fails, or one whose text can't be opened.
2. Credentials are held in memory alone. After a restart a client that asks for its requests brings its own back.
3. One row in the ledger for each request, when it is over.

What it works on is proxy/defer_shelf.py, what becomes of batches proxy/defer_batches.py.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Mapping
from typing import Any, NamedTuple

import structlog
from multidict import CIMultiDict, MultiMapping

from farthing.cache.flight import Flight
from farthing.policies.defer import Group, Rules, Waiting, ready
from farthing.policies.retry import AGAIN
from farthing.policies.variant import Variant
from farthing.proxy.account import dollars
from farthing.proxy.batch_ways import Kind, Target, kind_named
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.defer_batches import PART_UNUSED, Batches, line_of
from farthing.proxy.defer_books import as_billed, known_of, meta_of, planned, restored
from farthing.proxy.defer_lines import Sent, answered, answered_directly, failed_body, inputs_of
from farthing.proxy.defer_shelf import Shelf, Works, survive
from farthing.proxy.defer_store import DeferStore, Kept, Result, Texts
from farthing.proxy.errors import ClientFault, UpstreamFault
from farthing.proxy.exchange import Attempt, Call, Exchange, Outcome
from farthing.proxy.styles import STYLES
from farthing.proxy.tasks import TaskGroup

__all__ = ["Desk", "Placed"]

log = structlog.get_logger("farthing.defer")

_JSON = "application/json"
_CANCELLING_S = 600.0  # how long a provider may take to break a batch off (OpenAI API reference: up to 10 minutes)
_LONGEST_PAUSE_S = 3600.0


class Placed(NamedTuple):
    """Where a request is to wait. `variant`: who is asked, where not the model asked for at the default upstream;
    `route`: the route that chose it."""

    target: Target
    kind: Kind
    variant: Variant | None = None
    route: str = ""


class Desk:
    """All deferred requests of this process. `open`, `use`, then `start`; `close` leaves all as it stands."""

    def __init__(self, store: DeferStore, clock: Clock, randomness: Randomness, secret: bytes) -> None:
        self._shelf = Shelf(store, clock)
        self._clock = clock
        self._secret = secret
        self._works: Works | None = None
        self._batches = Batches(self._shelf, randomness)
        self._tasks = TaskGroup()
        self._few = asyncio.Semaphore(8)
        self._again: dict[str, tuple[int, float]] = {}  # of what was sent directly in vain: how often, and when next

    # -- opening and closing

    async def open(self) -> None:
        """Read what is there. Raises StoreFault."""
        await self._shelf.open()

    def use(self, works: Works) -> None:
        """There is a configuration to work with; the first one is, until `follow` says which."""
        self._works = self._works or works
        for one in self._shelf.all.values():
            target = works.by_key.get(one.upstream)
            if target is not None and target.operators and one.account.startswith("operator"):
                self._shelf.callers[one.account] = target.operators_pairs(one.account)

    def follow(self, active: Works, lanes: Mapping[str, Works]) -> None:
        """Work with this configuration from now on. `lanes`: of every policy that answers now, by its version: what
        began under one of them is worked on with its own."""
        self._works, self._shelf.lanes = active, lanes

    def start(self) -> None:
        """Begin to work; once."""
        if not len(self._tasks):
            self._tasks.spawn(self._run(), "deferred requests")

    async def close(self) -> None:
        """Stop at once; what is under way is found again."""
        await self._tasks.drain(0)
        await self._shelf.store.close()

    @property
    def waiting(self) -> int:
        """Requests that aren't over."""
        return sum(not one.over for one in self._shelf.all.values())

    @property
    def works(self) -> Works | None:
        """The configuration in force."""
        return self._works

    def standing(self) -> dict[str, Any]:
        """How many wait, are with a provider, done, failed and cancelled, of those that are kept; and by upstream."""
        counts = dict.fromkeys(("waiting", "running", "done", "failed", "cancelled"), 0)
        states = {"queued": "waiting", "completed": "done", "failed": "failed", "cancelled": "cancelled"}
        by_key = {} if self._works is None else self._works.by_key
        upstreams: dict[str, dict[str, int]] = {}
        saved_of: dict[str, int] = {}
        for one in self._shelf.all.values():
            state = states.get(one.state, "running")
            counts[state] += 1
            name = by_key[one.upstream].upstream.name if one.upstream in by_key else "no longer configured"
            of = upstreams.setdefault(name, dict.fromkeys(counts, 0))
            of[state] += 1
            saved_of[name] = saved_of.get(name, 0) + one.saved_pico
        oldest_s = min((one.created_s for one in self._shelf.all.values() if not one.over), default=None)
        return {
            **counts,
            "saved_usd": dollars(sum(saved_of.values())),
            "batches": len(self._shelf.batches),
            "oldest_s": None if oldest_s is None else max(0.0, self._clock.now_s() - oldest_s),
            "keep_s": self._keep_s,
            "upstreams": [
                {"upstream": name, **of, "saved_usd": dollars(saved_of[name])} for name, of in sorted(upstreams.items())
            ],
        }

    # -- what clients ask

    def account_of(self, headers: MultiMapping[str], target: Target) -> str:
        """On whose account such a request is sent, with what shows that remembered; '' where there is none."""
        found = target.account(headers, self._secret)
        if found is None:
            return ""
        self._shelf.callers[found[0]] = found[1]
        return found[0]

    def meet(self, headers: CIMultiDict[str]) -> None:
        """A client is there: what it shows may be what its requests wait for."""
        for target in () if self._works is None else self._works.targets.values():
            if not target.operators:
                self.account_of(headers, target)

    async def accept(self, ex: Exchange, account: str, placed: Placed, sent: Sent, wait_s: float) -> Kept:
        """Keep it; it is on disk when this returns. Raises StoreFault."""
        assert ex.body is not None
        now_s = self._clock.now_s()
        kept = Kept(ex.id, account, ex.credential, placed.target.key, ex.original.path, ex.model, "queued",
                    now_s, now_s + wait_s, len(sent.body),
                    api=placed.kind, sent_path=sent.path, sent_model=sent.model, inputs=inputs_of(ex))  # fmt: skip
        same = sent.body == ex.body
        texts = Texts(meta_of(ex, placed.variant, placed.route), ex.body, b"" if same else sent.body, known_of(ex))
        await self._shelf.store.add(kept, texts)
        self._shelf.all[kept.id] = kept
        if ex.hold is not None:
            self._shelf.holds[kept.id], ex.hold = ex.hold, None
        return kept

    def of(self, credential: str) -> list[Kept]:
        """A credential's own, latest first."""
        mine = [one for one in self._shelf.all.values() if one.credential == credential]
        return sorted(mine, key=lambda one: (one.created_s, one.id), reverse=True)

    def find(self, id: str, credential: str) -> Kept | None:
        """It, if it is that credential's."""
        kept = self._shelf.all.get(id)
        return kept if kept is not None and hmac.compare_digest(kept.credential, credential) else None

    async def result(self, id: str) -> Result | None:
        """Its answer. Raises StoreFault."""
        return await self._shelf.store.result(id)

    async def cancel(self, kept: Kept) -> Kept:
        """Forget about it. What the provider has begun is paid for, and booked when it is known."""
        shelf = self._shelf
        kept = shelf.all[kept.id]
        waits = kept.id in self._again and kept.id not in shelf.asking and kept.error != PART_UNUSED
        unsent = kept.state == "queued" or (kept.state == "direct" and waits)
        if kept.over or (kept.state == "direct" and not unsent):
            return kept
        self._again.pop(kept.id, None)
        now = kept._replace(state="cancelled", ended_s=self._clock.now_s())
        shelf.asking.add(kept.id)
        try:
            await shelf.write([now])
            if unsent:
                await shelf.book_never(self._works, now, Outcome.ABANDONED, "cancelled by the client")
        finally:
            shelf.asking.discard(kept.id)
        return shelf.all[kept.id]

    async def erase(self, user: str) -> int:
        """Cancel and forget all of a user's; how many there were. One whose bill is to come stays until it has come."""
        shelf = self._shelf
        mine = [shelf.all[id] for id in await shelf.store.ids_of(user) if id in shelf.all]
        await shelf.forget([one.id for one in [await self.cancel(kept) for kept in mine] if one.over and one.booked])
        return len(mine)

    def status(self, kept: Kept) -> dict[str, Any]:
        """It as a client sees it."""
        batch = self._shelf.batches.get(kept.batch)
        known = kept.account in self._shelf.callers
        state = {"queued": "queued", "completed": "completed", "failed": "failed", "cancelled": "cancelled"}
        return {
            "id": kept.id,
            "object": "farthing.deferred",
            "status": state.get(kept.state, "in_progress"),
            "endpoint": kept.path,
            "model": kept.model,
            "created_at": int(kept.created_s),
            "deadline_at": int(kept.deadline_s),
            "ended_at": int(kept.ended_s) or None,
            "expires_at": int(kept.ended_s + self._keep_s) if kept.over else None,
            "batch_id": batch.id or None if batch is not None else None,
            "waits_for_credential": not known and not kept.over,
            "status_code": kept.status or None,
            "result_url": f"/farthing/api/deferred/{kept.id}/result",
            "error": {"code": kept.error, "message": _WORDS.get(kept.error, "")} if kept.state == "failed" else None,
        }

    @property
    def _keep_s(self) -> float:
        return self._works.config.keep_s if self._works is not None else 0.0

    # -- the work

    async def _run(self) -> None:
        while True:
            works = self._works
            if works is not None:
                await survive("deferred requests can't be worked on", self._tick(works))
            pause_s = 1.0 if works is None else min(1.0, works.config.poll_s, works.config.flush_s)
            await asyncio.sleep(pause_s)

    async def _tick(self, works: Works) -> None:
        shelf, now_s = self._shelf, self._clock.now_s()
        old = [one.id for one in shelf.all.values() if one.over and one.booked and now_s >= one.ended_s + self._keep_s]
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
                    await shelf.book_never(works, one, Outcome.FAILED, "credential lost")

    async def _book_again(self, works: Works, kept: Kept) -> None:
        """It was over, and a crash came before its row was surely written: the ledger takes a row's id but once."""
        shelf = self._shelf
        if (kept.state == "cancelled" and kept.batch in shelf.batches) or kept.id in shelf.asking:
            return
        result = await shelf.store.result(kept.id)
        found = (await shelf.store.texts([kept.id])).get(kept.id)
        target = works.by_key.get(kept.upstream) or next(iter(works.targets.values()))
        if result is None or found is None:
            await shelf.book_never(works, kept, Outcome.ABANDONED, kept.error or "cancelled by the client")
            return
        own = restored(kept, found, self._clock)
        works = shelf.lane(own, works)
        saved = 0
        if kept.batch:
            await answered(own, target, line_of(found.said, result, kept.id), works.carrier, works.routing)
            saved = await works.books.batched(own, target, kept.batch, dropped=False)
        else:
            answered_directly(own, target, result)
            await works.books.direct(own, "before a crash")
        await shelf.flushed(works)
        await shelf.write([kept._replace(booked=1, saved_pico=saved)])

    # -- one by one

    async def _directly(self, works: Works, kept: Kept) -> None:
        """Ask for it as any request is asked for."""
        shelf = self._shelf
        async with self._few:
            try:
                texts = (await shelf.store.texts([kept.id])).get(kept.id)
                if texts is None:
                    return
                if not texts.body:
                    lost = kept._replace(state="failed", ended_s=self._clock.now_s(), error="unreadable")
                    await shelf.write([lost])
                    await shelf.book_never(works, lost, Outcome.FAILED, "sealed under a key that is not here")
                    return
                why = kept.error
                own = restored(kept, texts, self._clock, self._shown(works, kept))
                own.hold = shelf.holds.pop(kept.id, None)
                works = shelf.lane(own, works)
                planned(own, texts.meta, works.routing)
                result, again = await self._asked(works, own, texts.paid)
                if again and self._clock.now_s() < kept.deadline_s:
                    self._wait(works, kept, own)
                    return
                self._again.pop(kept.id, None)
                done = kept._replace(state="completed", ended_s=self._clock.now_s(), error="", status=result.status)
                shelf.all[kept.id] = done
                await shelf.store.answer(done, result)
                await works.books.direct(own, why)
                await shelf.flushed(works)
                await shelf.write([done._replace(booked=1)])
            finally:
                shelf.asking.discard(kept.id)

    def _wait(self, works: Works, kept: Kept, own: Exchange) -> None:
        """The upstream was busy or away: it may wait, so it is sent once more, later each time."""
        tries = self._again.get(kept.id, (0, 0.0))[0] + 1
        pause_s = min(_LONGEST_PAUSE_S, works.config.poll_s * 2.0 ** min(tries - 1, 16))
        self._again[kept.id] = (tries, self._clock.now_s() + pause_s)
        if own.hold is not None:
            self._shelf.holds[kept.id] = own.hold
        log.info("a deferred request is sent again", request=kept.id, status=own.status, pause_s=pause_s)

    def _shown(self, works: Works, kept: Kept) -> list[tuple[str, str]]:
        """What the client showed, where that means something; for messages as Anthropic's clients show it."""
        shown = CIMultiDict(self._shelf.callers[kept.account])
        if kept.path == "/v1/messages":
            shown.setdefault(*STYLES["anthropic"].headers[0])
            if works.by_key[kept.upstream].operators:
                shown.setdefault("x-api-key", "")  # where the operator's key is to be shown
        return list(shown.items())

    async def _asked(self, works: Works, own: Exchange, paid: bytes) -> tuple[Result, bool]:
        """The answer, and whether the upstream was busy or away, so that nothing was paid for."""
        call = own.call = Call(id=own.id)
        if paid:
            billed = as_billed(paid)
            call.others.append(billed)
            call.attempts.append(Attempt(billed.upstream, status=200, billed=billed))
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
            again = isinstance(fault, UpstreamFault) and not fault.sent and not paid_for()
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


_WORDS = {
    "credential_lost": "farthing was started anew, and nobody has shown the credential since: it can't be sent",
    "unreadable": "it is sealed under a key that farthing doesn't have any more",
}
