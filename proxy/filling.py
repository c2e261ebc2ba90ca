"""Embeddings of which some are known: ask the upstream for the others, and put the answer together.

Rules of this file:
1. An answer that can't be taken apart, or doesn't fit what is known, is never guessed at: the client's own request is
   sent as it came, and its answer goes on as it comes. What the first answer was billed with stands in the books.
2. A fault goes on unchanged, but for one that may speak of the shorter body: then the client's own is sent.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from dataclasses import dataclass, field

import structlog
from multidict import CIMultiDict

from farthing.cache.items import Answered, Case, apportioned, read_answer
from farthing.proxy.branch import branch
from farthing.proxy.exchange import GO_ON, Billed, Call, Exchange, Head, Quiet, Verdict
from farthing.proxy.leg_sink import Held
from farthing.proxy.observe import loads
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource

__all__ = ["FillingStage"]

log = structlog.get_logger("farthing.items")

_OFF_LOOP_BYTES = 65_536
_OF_THE_BODY = (400, 413, 422)  # such an answer may name a place in the body that was sent


@dataclass(slots=True)
class FillingStage(Quiet):
    """Round the upstream stage. `limit_bytes`: of an answer that is held until it is put together."""

    carrier: Quiet
    tokenizer: Tokenizer
    limit_bytes: int
    name: str = field(default="upstream", init=False)
    hard: bool = field(default=True, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Send what is missing; raises what the upstream stage raises."""
        case: Case | None = ex.items
        return self._filled(ex, case) if case is not None and case.reduced else self.carrier.on_request(ex)

    async def _filled(self, ex: Exchange, case: Case) -> Verdict:
        call, sink = ex.call, ex.sink
        assert call is not None
        assert sink is not None
        held = Held(self.limit_bytes)
        held.task = sink.task
        own = branch(ex, held)
        try:
            await self._carry(own)
        finally:
            _merge(ex, own)
        now = own.call
        assert now is not None
        body = None
        if now.status == 200 and now.complete and now.answer is not None:
            body = await self.together(ex, case, now)
        elif now.status not in (200, *_OF_THE_BODY):
            _take(call, now)
            await held.release(sink)
            return GO_ON
        if body is None:
            return await self._as_it_came(ex, case, now)
        _take(call, now)
        call.head = Head(200, _plain(now.head))
        call.answer, call.value = body, loads(body)
        sink.open(call.head)
        await sink.write(body)
        return GO_ON

    async def together(self, ex: Exchange, case: Case, now: Call) -> bytes | None:
        """The client's whole answer; None where this one can't be made a part of it."""
        answered = await self._read(now, len(case.missing))
        if answered is None or not case.fits(answered):
            return None
        usages, sent = await self._usages(ex, case, answered)
        case.fill(answered, usages)
        if now.usage is None:
            now.usage = sent
        whole = case.usage()
        body = await asyncio.to_thread(case.answer)
        if body is None or whole is None or ex.call is None:
            case.fresh.clear()
            return None
        known = max(0, whole.tokens_in - now.usage.tokens_in)
        ex.call.known = Usage(fresh=known, source=whole.source, tier=now.usage.tier)
        return body

    async def _as_it_came(self, ex: Exchange, case: Case, now: Call) -> Verdict:
        """Send the client's own request after all. What the answer before it was billed with is booked."""
        call = ex.call
        assert call is not None
        ex.decide("exact", "items asked anew", "the answer to a part can't be used" if now.status == 200 else "refused")
        if 200 <= now.status < 300:
            log.warning("an embeddings answer can't be taken apart: the whole request is sent", model=ex.model)
            usage = now.usage
            if usage is None:
                usage = await asyncio.to_thread(self.counted, ex, case)
            other = Billed(now.model_served or ex.model, usage, now.upstream)
            call.others.append(other)
            if now.attempts:
                now.attempts[-1].billed = other
        case.known.clear()
        ex.body_out = None
        before, call.attempts = call.attempts, []
        try:
            await self._carry(ex)
        finally:
            call.attempts = [*before, *call.attempts]
        return GO_ON

    async def _carry(self, ex: Exchange) -> None:
        verdict = self.carrier.on_request(ex)
        if isinstance(verdict, Awaitable):
            await verdict

    async def _read(self, call: Call, count: int) -> Answered | None:
        if len(call.answer or b"") > _OFF_LOOP_BYTES:
            return await asyncio.to_thread(read_answer, call.value, count)
        return read_answer(call.value, count)

    async def _usages(self, ex: Exchange, case: Case, answered: Answered) -> tuple[list[Usage], Usage]:
        """What each missing input used, and all of them together."""
        sent = [case.asked.unique[place] for place in case.missing]
        counted = [0]
        if len(sent) > 1 or answered.tokens is None:
            counted = await asyncio.to_thread(lambda: [self._count(ex, item) for item in sent])
        usages = apportioned(answered.tokens, counted)
        return usages, Usage(fresh=sum(one.fresh for one in usages), source=usages[0].source)

    def counted(self, ex: Exchange, case: Case) -> Usage:
        """What the missing part used, by our own count."""
        tokens = sum(self._count(ex, case.asked.unique[place]) for place in case.missing)
        return Usage(fresh=tokens, source=UsageSource.COUNTED)

    def _count(self, ex: Exchange, item: str | list[int]) -> int:
        return self.tokenizer.of(ex.tenant).count(item, ex.model) if isinstance(item, str) else len(item)


def _merge(ex: Exchange, own: Exchange) -> None:
    """The attempts and the bill of a part are the client's."""
    call, now = ex.call, own.call
    assert call is not None
    assert now is not None
    call.attempts += now.attempts
    call.others += now.others
    call.upstream, call.elsewhere = now.upstream, now.elsewhere
    call.started_tick = call.started_tick or now.started_tick
    call.first_byte_tick = call.first_byte_tick or now.first_byte_tick
    ex.variant = own.variant
    ex.decisions.extend(own.decisions)


def _take(call: Call, now: Call) -> None:
    """This is the answer that serves."""
    call.head, call.usage, call.model_served, call.tier = now.head, now.usage, now.model_served, now.tier
    call.answer, call.value, call.complete = now.answer, now.value, now.complete


def _plain(head: Head | None) -> CIMultiDict[str]:
    """The headers of the same answer in other bytes."""
    assert head is not None
    headers: CIMultiDict[str] = head.headers.copy()
    for name in ("Content-Length", "Content-Encoding"):
        headers.popall(name, None)
    return headers
