"""Deferred requests: kept, sent in batches, asked for by themselves where that fails, answered when fetched.

Rules of this file:
1. Whatever becomes of a batch, each of its requests gets an answer by its own deadline or soon after: what isn't done
   then is sent directly. Only a request whose credential nobody has any more fails.
2. Credentials are held in memory alone. After a restart a client that asks for its requests brings its own back.
3. Each step is on disk before the next one: a batch has its name before it is made, and is looked for by that name
   after a crash, so that none is paid for twice.
4. One row in the ledger for each request, when it is over.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
import structlog
from multidict import CIMultiDict

from farthing.cache.flight import Flight
from farthing.policies.defer import Group, Waiting, hurried, ready
from farthing.proxy.batch_api import BatchApi, Line, Refused, lines_in, request_line
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.config import Upstream
from farthing.proxy.config_defer import Defer
from farthing.proxy.defer_books import Books, meta_of, restored
from farthing.proxy.defer_store import Batch, DeferStore, Kept, Result
from farthing.proxy.errors import ClientFault, StoreFault, UpstreamFault, error_body
from farthing.proxy.exchange import Call, Exchange, Outcome, Stage
from farthing.proxy.pool import Pool
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.wire import callers

__all__ = ["Desk", "Works"]

log = structlog.get_logger("farthing.defer")

_JSON = "application/json"
_MOST_FILE_BYTES = 512 * 2**20
_CANCELLING_S = 600.0  # how long a provider may take to break a batch off (OpenAI API reference: up to 10 minutes)
_TRIES = 2
_AT_ONCE = 256
_ENDED = ("completed", "expired", "cancelled", "failed")


@dataclass(frozen=True, slots=True)
class Works:
    """What the configuration in force works with. `carrier`: who asks the upstream directly. `own_keys`: what clients
    show is farthing's own."""

    config: Defer
    upstream: Upstream
    pool: Pool
    carrier: Stage
    books: Books
    own_keys: bool
    buffer_bytes: int


class Desk:
    """All deferred requests of this process. `open`, `use`, then `start`; `close` leaves all as it stands."""

    def __init__(self, store: DeferStore, clock: Clock, randomness: Randomness, secret: bytes) -> None:
        self._store = store
        self._clock = clock
        self._randomness = randomness
        self._secret = secret
        self._works: Works | None = None
        self._all: dict[str, Kept] = {}
        self._batches: dict[str, Batch] = {}
        self._next_look_s: dict[str, float] = {}
        self._callers: dict[str, list[tuple[str, str]]] = {}
        self._holds: dict[str, Any] = {}
        self._asking: set[str] = set()
        self._tasks = TaskGroup()
        self._few = asyncio.Semaphore(8)

    # -- opening and closing

    async def open(self) -> None:
        """Read what is there. Raises StoreFault."""
        requests, batches = await self._store.load()
        self._all = {one.id: one for one in requests}
        self._batches = {one.name: one for one in batches}

    def use(self, works: Works) -> None:
        """Work with this configuration from now on."""
        self._works = works
        if works.upstream.keys:
            self.account_of(CIMultiDict(), works.upstream, own_keys=works.own_keys)

    def start(self) -> None:
        """Begin to work; once."""
        if not len(self._tasks):
            self._tasks.spawn(self._run(), "deferred requests")

    async def close(self) -> None:
        """Stop at once; what is under way is found again."""
        await self._tasks.drain(0)
        await self._store.close()

    @property
    def waiting(self) -> int:
        """Requests that aren't over."""
        return sum(not one.over for one in self._all.values())

    # -- what clients ask

    def account_of(self, headers: CIMultiDict[str], upstream: Upstream, *, own_keys: bool) -> str:
        """On whose account such a request is sent, with its headers remembered; '' where there is none."""
        if upstream.keys:
            pairs, named = [("Authorization", f"Bearer {upstream.keys[0]}")], "operator"
        else:
            pairs = [] if own_keys else list(callers(headers).items())
            named = hmac.new(self._secret, orjson.dumps(pairs), "sha256").hexdigest()[:32]
        if not pairs:
            return ""
        self._callers[named] = pairs
        return named

    def meet(self, headers: CIMultiDict[str]) -> None:
        """A client is there: what it shows may be what its requests wait for."""
        works = self._works
        if works is not None:
            self.account_of(headers, works.upstream, own_keys=works.own_keys)

    async def accept(self, ex: Exchange, account: str, body: bytes, wait_s: float) -> Kept:
        """Keep it; it is on disk when this returns. Raises StoreFault."""
        assert self._works is not None
        now_s = self._clock.now_s()
        kept = Kept(
            ex.id,
            account,
            ex.credential,
            self._works.upstream.identity,
            ex.original.path,
            ex.model,
            "queued",
            now_s,
            now_s + wait_s,
            len(body),
        )
        await self._store.add(kept, meta_of(ex), body)
        self._all[kept.id] = kept
        if ex.hold is not None:
            self._holds[kept.id], ex.hold = ex.hold, None
        return kept

    def of(self, credential: str) -> list[Kept]:
        """A credential's own, latest first."""
        mine = [one for one in self._all.values() if one.credential == credential]
        return sorted(mine, key=lambda one: (one.created_s, one.id), reverse=True)

    def find(self, id: str, credential: str) -> Kept | None:
        """It, if it is that credential's."""
        kept = self._all.get(id)
        return kept if kept is not None and hmac.compare_digest(kept.credential, credential) else None

    async def result(self, id: str) -> Result | None:
        """Its answer. Raises StoreFault."""
        return await self._store.result(id)

    async def cancel(self, kept: Kept) -> Kept:
        """Forget about it. What the provider has begun is paid for, and booked when it is known."""
        kept = self._all[kept.id]
        if kept.over or kept.state == "direct":
            return kept
        unsent = kept.state == "queued"
        now = kept._replace(state="cancelled", ended_s=self._clock.now_s())
        self._asking.add(kept.id)
        try:
            await self._write([now])
            if unsent:
                await self._book_never(now, Outcome.ABANDONED, "cancelled by the client")
        finally:
            self._asking.discard(kept.id)
        return self._all[kept.id]

    def status(self, kept: Kept) -> dict[str, Any]:
        """It as a client sees it."""
        batch = self._batches.get(kept.batch)
        known = kept.account in self._callers
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
                await self._survive("deferred requests can't be worked on", self._tick(works))
            pause_s = 1.0 if works is None else min(1.0, works.config.poll_s, works.config.flush_s)
            await asyncio.sleep(pause_s)

    async def _survive(self, what: str, work: Awaitable[None]) -> None:
        """A fault is told, and it is tried again at the next turn."""
        try:
            await work
        except (StoreFault, UpstreamFault, Refused) as fault:
            log.warning(what, error=str(fault))
        except Exception as error:
            log.error(what, error=type(error).__name__, exc_info=error)

    async def _tick(self, works: Works) -> None:
        now_s = self._clock.now_s()
        old = [one.id for one in self._all.values() if one.over and one.booked and now_s >= one.ended_s + self._keep_s]
        if old:
            await self._store.forget(old)
            for id in old:
                del self._all[id]
        for one in [one for one in self._all.values() if one.over and not one.booked]:
            await self._survive("a deferred request can't be booked", self._book_again(works, one))
        waiting = [
            Waiting(one.id, _group(one), one.size, one.created_s, one.deadline_s)
            for one in self._all.values()
            if one.state == "queued" and self._can_send(works, one) and now_s < one.deadline_s
        ]
        for batch in ready(waiting, works.config.rules, now_s):
            members = [self._all[one.id] for one in batch]
            await self._begin([one for one in members if one.state == "queued"])
        for name in list(self._batches):
            if now_s >= self._next_look_s.get(name, 0.0):
                self._next_look_s[name] = now_s + works.config.poll_s
                await self._survive("a batch can't be looked after", self._advance(works, self._batches[name]))
        await self._late(works, self._clock.now_s())
        for one in self._all.values():
            if one.state == "direct" and one.id not in self._asking and self._can_send(works, one):
                self._asking.add(one.id)
                self._tasks.spawn(self._survive("a deferred request can't be sent", self._directly(works, one)))

    def _can_send(self, works: Works, kept: Kept) -> bool:
        return kept.account in self._callers and kept.upstream == works.upstream.identity

    async def _late(self, works: Works, now_s: float) -> None:
        """Whose deadline has passed: sent directly, where no batch may still bring it."""
        late = []
        for one in self._all.values():
            if one.over or now_s < one.deadline_s:
                continue
            if not self._can_send(works, one) and one.id not in self._asking:
                late.append(one._replace(state="failed", ended_s=now_s, error="credential_lost"))
                continue
            batch = self._batches.get(one.batch)
            given_up = (
                batch is None or not batch.id or (batch.cancelled_s and now_s > batch.cancelled_s + _CANCELLING_S)
            )
            if one.state != "direct" and given_up:
                late.append(one._replace(state="direct", error="deadline"))
        if late:
            await self._write(late)
            for one in late:
                if one.over:
                    await self._book_never(one, Outcome.FAILED, "credential lost")

    # -- batches

    async def _begin(self, members: Sequence[Kept]) -> None:
        """Give a batch its name; `_advance` makes it."""
        if not members:
            return
        name = f"fb-{self._randomness.token(12)}"
        batch = Batch(name, members[0].account, members[0].upstream)
        await self._write([o._replace(state="sending", batch=name, tries=o.tries + 1) for o in members], batch)
        self._next_look_s.pop(name, None)

    def _members(self, name: str) -> list[Kept]:
        return [
            one for one in self._all.values() if one.batch == name and one.state in ("sending", "sent", "cancelled")
        ]

    async def _advance(self, works: Works, batch: Batch) -> None:
        pairs = self._callers.get(batch.account)
        if pairs is None or batch.upstream != works.upstream.identity:
            return
        replica = works.pool.replicas[0]
        api = BatchApi(replica.connections, replica.base, pairs, self._randomness)
        try:
            if not batch.id:
                batch = await self._make(works, api, batch)
                return
            found = await api.get(batch.id)
            status = found.get("status")
            if status in _ENDED:
                await self._collect(works, api, batch, found)
                return
            members = [one for one in self._members(batch.name) if not one.over]
            past = any(self._clock.now_s() >= one.deadline_s for one in members)
            if (past or not members) and not batch.cancelled_s and status != "cancelling":
                await api.cancel(batch.id)
                await self._note(batch._replace(cancelled_s=self._clock.now_s()))
        except Refused as refusal:
            if not refusal.lasting:
                raise
            log.warning("the upstream takes no batch: its requests are sent one by one", error=str(refusal))
            await self._dissolve(batch, "batch_refused")

    async def _make(self, works: Works, api: BatchApi, batch: Batch) -> Batch:
        """Upload and create; a batch that a crash left half made is looked for first."""
        members = [one for one in self._members(batch.name) if one.state == "sending"]
        if not members:
            await self._forget(batch)
            return batch
        found = await api.named(batch.name) if batch.file else None
        if found is None:
            if not batch.file:
                texts = await self._store.texts([one.id for one in members])
                lines = [request_line(one.id, one.path, texts[one.id][1]) for one in members if one.id in texts]
                batch = batch._replace(file=await api.upload(batch.name, lines))
                await self._note(batch)
            found = await api.create(batch.file, members[0].path, batch.name)
        batch = batch._replace(id=str(found["id"]))
        await self._write([one._replace(state="sent") for one in self._members(batch.name) if not one.over], batch)
        self._batches[batch.name] = batch
        log.info("batch sent", batch=batch.id, requests=len(members))
        return batch

    async def _collect(self, works: Works, api: BatchApi, batch: Batch, found: dict[str, Any]) -> None:
        """The batch has ended: take its answers; what has none is asked for in another way."""
        answered: set[str] = set()
        files = [file for name in ("output_file_id", "error_file_id") if isinstance(file := found.get(name), str)]
        for file in files:
            raw = await api.content(file, _MOST_FILE_BYTES)
            lines = await asyncio.to_thread(lines_in, raw)
            good = [line for line in lines if line.status and line.status != 429 and line.status < 500]
            for start in range(0, len(good), _AT_ONCE):
                answered |= await self._take(works, batch, good[start : start + _AT_ONCE])
        for one in self._members(batch.name):
            if one.state == "cancelled" and not one.booked and one.id not in answered:
                await self._book_never(one, Outcome.ABANDONED, "cancelled by the client")
        await self._dissolve(batch, f"batch_{found.get('status')}")
        for file in (batch.file, *files):
            await self._survive("a file can't be removed", api.remove(file))

    async def _take(self, works: Works, batch: Batch, lines: Sequence[Line]) -> set[str]:
        """Keep and book these answers; whose they are."""
        texts = await self._store.texts([line.id for line in lines])
        members = {one.id: one for one in self._members(batch.name)}
        taken: set[str] = set()
        booked: list[Kept] = []
        for line in lines:
            one = members.get(line.id)
            if one is None or one.booked:
                continue
            one = self._all[line.id]  # its client may have cancelled it meanwhile
            result, dropped = Result(line.status, _JSON, line.body), one.state == "cancelled"
            if not dropped:
                one = one._replace(state="completed", ended_s=self._clock.now_s(), error="", status=line.status)
                self._all[one.id] = one
                await self._store.answer(one, result)
            taken.add(one.id)
            if one.id in texts:
                own = restored(one, *texts[one.id], self._clock)
                own.hold = self._holds.pop(one.id, None)
                await works.books.batched(own, result, works.upstream.name, batch.id, dropped=dropped)
            booked.append(one._replace(booked=1))
        await self._flushed(works)
        await self._write(booked)
        return taken

    async def _dissolve(self, batch: Batch, why: str) -> None:
        """The batch is no more; its requests that have no answer go on in another way."""
        now_s = self._clock.now_s()
        left = [one for one in self._members(batch.name) if one.state in ("sending", "sent")]
        again = [
            one._replace(state="queued", batch="")
            if why in ("batch_expired", "batch_cancelled") and one.tries < _TRIES and now_s < one.deadline_s
            else one._replace(state="direct", batch="", error=why)
            for one in left
        ]
        await self._write(again)
        await self._forget(batch)

    async def _forget(self, batch: Batch) -> None:
        await self._store.forget(batch=batch.name)
        self._batches.pop(batch.name, None)
        self._next_look_s.pop(batch.name, None)

    # -- one by one

    async def _directly(self, works: Works, kept: Kept) -> None:
        """Ask for it as any request is asked for."""
        async with self._few:
            try:
                texts = await self._store.texts([kept.id])
                if kept.id not in texts:
                    return
                why = kept.error
                own = restored(kept, *texts[kept.id], self._clock, self._callers[kept.account])
                own.hold = self._holds.pop(kept.id, None)
                result = await self._asked(works, own)
                done = kept._replace(state="completed", ended_s=self._clock.now_s(), error="", status=result.status)
                self._all[kept.id] = done
                await self._store.answer(done, result)
                await works.books.direct(own, why)
                await self._flushed(works)
                await self._write([done._replace(booked=1)])
            finally:
                self._asking.discard(kept.id)

    async def _asked(self, works: Works, own: Exchange) -> Result:
        call = own.call = Call(id=own.id)
        flight = own.sink = Flight(call, stream=False, limit_bytes=works.buffer_bytes)
        items, own.items = own.items, None
        try:
            waits = works.carrier.on_request(own)
            if isinstance(waits, Awaitable):
                await waits
            own.status = call.status
        except (UpstreamFault, ClientFault) as fault:
            own.status, own.outcome, own.error = fault.status, Outcome.FAILED, fault.message
            return Result(fault.status, _JSON, error_body(fault.message, kind="upstream_error", code="upstream"))
        finally:
            own.items = items
            call.ended_tick = self._clock.tick_s()
        body = call.answer if call.answer is not None else flight.body() or b""
        kind = call.head.headers.get("Content-Type", _JSON) if call.head is not None else _JSON
        return Result(call.status, kind, body)

    # -- books

    async def _book_never(self, kept: Kept, outcome: Outcome, why: str) -> None:
        works = self._works
        texts = await self._store.texts([kept.id])
        if works is not None and kept.id in texts:
            own = restored(kept, *texts[kept.id], self._clock)
            own.hold = self._holds.pop(kept.id, None)
            works.books.never(own, outcome, why)
            await self._flushed(works)
        await self._write([self._all[kept.id]._replace(booked=1)])

    async def _book_again(self, works: Works, kept: Kept) -> None:
        """It was over, and a crash came before its row was surely written: the ledger takes a row's id but once."""
        if kept.state == "cancelled" and kept.batch in self._batches:
            return
        if kept.id in self._asking:
            return
        result = await self._store.result(kept.id)
        texts = await self._store.texts([kept.id])
        if result is not None and kept.id in texts:
            own = restored(kept, *texts[kept.id], self._clock)
            await works.books.batched(own, result, works.upstream.name, kept.batch, dropped=False)
            await self._flushed(works)
            await self._write([kept._replace(booked=1)])
        else:
            await self._book_never(kept, Outcome.ABANDONED, kept.error or "cancelled by the client")

    async def _flushed(self, works: Works) -> None:
        ledger = works.books.account.ledger
        if ledger is not None:
            await asyncio.to_thread(ledger.flush)

    async def _write(self, changed: Sequence[Kept], batch: Batch | None = None) -> None:
        """Nothing is awaited between what was read of `_all` and this, so that no step undoes another; the disk follows
        in the same order."""
        self._all |= {one.id: one for one in changed}
        if batch is not None:
            self._batches[batch.name] = batch
        await self._store.write(changed, batch)

    async def _note(self, batch: Batch) -> None:
        await self._write([], batch)


def _group(kept: Kept) -> Group:
    return Group(kept.account, kept.upstream, kept.path, kept.model, hurried=hurried(kept.deadline_s - kept.created_s))


_WORDS = {
    "credential_lost": "farthing was started anew, and nobody has shown the credential since: it can't be sent",
}
