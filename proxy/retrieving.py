"""The upstream stage where the model may ask for what was left out: its calls are answered here, and it is asked again.

The client sees one answer. What it doesn't see: the calls of our tool, and the ends of answers in which there are such.
What it does: usage is that of all answers together.

Rules of this file:
1. A conversation without the tool takes the upstream stage's own way.
2. It comes to an end: `_MOST_ROUNDS` answers are given to what the model asks for, of `_MOST_CHARS` altogether; then
   it is told so once, and what it says then is the answer.
3. Whatever fails, fails as it would have failed at the upstream itself. An upstream that refuses the tool is asked
   again with the client's own request, and isn't offered it for that model any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, MutableSet
from dataclasses import dataclass, field
from typing import Any

import orjson
from multidict import CIMultiDict

from farthing.compress.removed import Removed
from farthing.compress.retrieval import (
    NO_MORE,
    NOTHING,
    Asked,
    Spoken,
    continued,
    part,
    read_answer,
    shown,
    summed,
    wanted,
)
from farthing.compress.retrieval_stream import Out, Stream, stream_of
from farthing.proxy.branch import branch
from farthing.proxy.budgets import Spending
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.exchange import GO_ON, Call, Exchange, Head, Quiet, Sink, Verdict
from farthing.proxy.observe import loads
from farthing.proxy.sse import blocks
from farthing.proxy.stage_upstream import UpstreamStage
from farthing.proxy.tokens import Tokenizer
from farthing.proxy.usage import Usage, UsageSource

__all__ = ["Retrieval", "RetrievingStage"]

_MOST_ROUNDS = 3
_MOST_CHARS = 262_144
_PART_CHARS = 65_536


@dataclass(slots=True)
class Retrieval:
    """What one request's model may ask for. `pieces`: what this request's own markers name, by handle; all else that
    the tenant has is in the store. `refusing`: models whose upstream takes no tools."""

    removed: Removed
    tenant: str
    pieces: dict[str, str]
    refusing: MutableSet[str]
    given_chars: int = 0

    async def tell(self, asked: Asked) -> str:
        """What the model gets for a call."""
        want = wanted(asked)
        if want.refusal:
            return want.refusal
        room = min(_PART_CHARS, _MOST_CHARS - self.given_chars)
        if room <= 0:
            return NO_MORE
        piece = self.pieces.get(want.handle)
        if piece is None:
            piece = await self.removed.get(self.tenant, want.handle)
        if piece is None:
            return NOTHING
        told = part(piece, want.from_char, room)
        self.given_chars += len(told)
        return told


@dataclass(slots=True)
class RetrievingStage(Quiet):
    """Round the upstream stage. `limit_bytes`: of a whole answer that is held until it was read. `spending`: where each
    further round has to find room."""

    carrier: UpstreamStage
    tokenizer: Tokenizer
    limit_bytes: int
    spending: Spending | None = None
    name: str = field(default="upstream", init=False)
    hard: bool = field(default=True, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Send; ask again as often as the model asks for what was left out. Raises what the upstream stage raises."""
        return self.carrier.on_request(ex) if ex.retrieval is None else self._rounds(ex, ex.retrieval)

    async def _rounds(self, ex: Exchange, retrieval: Retrieval) -> Verdict:
        call, sink = ex.call, ex.sink
        assert call is not None
        assert sink is not None
        answer = _Answer(ex, call, sink, stream_of(ex.endpoint), self.limit_bytes)
        usages: list[dict[str, Any] | None] = []
        for number in range(_MOST_ROUNDS + 2):
            await self._round(ex, call, answer)
            if number == 0 and answer.status in (400, 422) and await self._without(ex, call, answer, retrieval):
                return GO_ON
            spoken, usage = answer.read()
            usages.append(usage)
            if spoken is None or spoken.others or not spoken.asked or number > _MOST_ROUNDS:
                told_all = [usage for usage in usages if usage is not None]
                total = summed(told_all) if len(told_all) == len(usages) else None
                await answer.finish(total, sees_own=spoken is not None and bool(spoken.asked))
                break
            told = [NO_MORE if number == _MOST_ROUNDS else await retrieval.tell(asked) for asked in spoken.asked]
            await answer.go_on()
            await self._next(ex, call, answer, spoken, told)
            if self.spending is not None:
                verdict = self.spending.another(ex, beside_first=True)
                if isinstance(verdict, Awaitable):
                    await verdict
        if call.earlier:
            ex.decide("compress", "retrieved", f"{len(call.earlier)} rounds, {retrieval.given_chars} characters")
        return GO_ON

    async def _round(self, ex: Exchange, call: Call, answer: _Answer) -> None:
        """One answer of the upstream; what is to be known of it stands in the client's own call."""
        own = branch(ex, answer)
        assert own.call is not None
        call_now = answer.call_now = own.call
        call.usage = None
        try:
            await self.carrier.on_request(own)
        finally:
            call.attempts += call_now.attempts
            call.upstream = call_now.upstream
            call.started_tick = call.started_tick or call_now.started_tick
            call.first_byte_tick = call.first_byte_tick or call_now.first_byte_tick
            call.usage, call.model_served = call_now.usage, call_now.model_served or call.model_served
            call.silent = call_now.silent
            call.tier = call_now.tier
            ex.marked = own.marked

    async def _next(self, ex: Exchange, call: Call, answer: _Answer, spoken: Spoken, told: list[str]) -> None:
        """Make the next round's request of this one's answer, and note what this one used."""
        body = ex.body_out
        assert body is not None
        usage, call.usage = call.usage, None
        if usage is None:
            counted = await asyncio.to_thread(self._counted, ex, body, answer.call_now.answer)
            usage = counted._replace(tier=call.tier)
        call.earlier.append(usage)
        ex.body_out = await asyncio.to_thread(continued, ex.endpoint, body, spoken, told)

    def _counted(self, ex: Exchange, body: bytes, answer: bytes | None) -> Usage:
        given = self.tokenizer.of(ex.tenant).count_request(ex.endpoint, orjson.loads(body), ex.model)
        made = self.tokenizer.of(ex.tenant).count_text_out(ex.endpoint, answer, ex.model) if answer else 0
        return Usage(fresh=given, output=made, source=UsageSource.COUNTED)

    async def _without(self, ex: Exchange, call: Call, answer: _Answer, retrieval: Retrieval) -> bool:
        """The upstream refuses: perhaps our tool. The client's own request must not fail for that."""
        ex.retrieval, ex.body_out, ex.compress, ex.shortening = None, None, "", None
        ex.decide("compress", "left", "the upstream refused the request with the tool")
        call.usage = None
        attempts, call.attempts = call.attempts, []  # the rules for retries count anew
        try:
            await self.carrier.on_request(ex)
        finally:
            call.attempts = [*attempts, *call.attempts]
        if call.status < 400:
            retrieval.refusing.add(ex.model)
        return True


class _Answer:
    """Between the upstream stage and the client's sink: what is to be seen goes on, what isn't is held."""

    def __init__(self, ex: Exchange, call: Call, sink: Sink, stream: Stream, limit_bytes: int) -> None:
        self._ex, self._call, self._sink, self._stream = ex, call, sink, stream
        self._limit = limit_bytes
        self._opened = False
        self._head: Head | None = None
        self._held: list[bytes] = []
        self._waiting: list[Out] = []
        self._bytes = 0
        self._streams = self._loose = False
        self.call_now: Call = call
        self.task = sink.task

    @property
    def status(self) -> int:
        """The upstream's latest."""
        return self._head.status if self._head is not None else 0

    # What the upstream stage calls.

    def open(self, head: Head) -> None:
        """Sink.open: the client's own is opened when there is something to be seen."""
        if self._opened and (head.status != 200 or not self.call_now.event_stream):
            raise UpstreamFault(
                f"the upstream answered {head.status} in the middle of an answer", phase="body", status=502
            )
        self._head, self._held, self._bytes, self._waiting = head, [], 0, []
        self._streams = head.status == 200 and self.call_now.event_stream and "Content-Encoding" not in head.headers

    async def write(self, body: bytes, *, usage_only: bool = False) -> None:
        """Sink.write."""
        self._bytes += len(body)
        if self._bytes <= self._limit:
            self._held.append(body)
        if self._streams:
            for out in self._stream.see(body):
                await self._write(out.body, usage_only=out.usage_only)
        elif self._loose:
            await self._write(body)
        elif self._bytes > self._limit:  # too much to be looked at: no model's answer
            self._loose = True
            for held in (*self._held, body):
                await self._write(held)

    def body(self) -> bytes | None:
        """Sink.body: this answer's own bytes."""
        return b"".join(self._held) if self._bytes <= self._limit else None

    # What the rounds call.

    def read(self) -> tuple[Spoken | None, dict[str, Any] | None]:
        """What the upstream said, and its usage as it says it; None where that can't be known."""
        now = self.call_now
        if self._streams:
            return self._stream.spoken(), self._stream.usage()
        if self._loose or self.status != 200:
            return None, None
        if now.event_stream:
            return self._unpacked(now.answer)
        value = now.value
        if value is None:
            return None, None
        usage = value.get("usage")
        return read_answer(self._ex.endpoint, value), usage if isinstance(usage, dict) else None

    def _unpacked(self, answer: bytes | None) -> tuple[Spoken | None, dict[str, Any] | None]:
        """A stream in an encoding that wasn't asked for: told apart now that it is whole."""
        if answer is None:
            raise UpstreamFault("the upstream's stream is in an encoding that can't be read", phase="body", status=502)
        self._head, self._streams = _plain(self._head), True
        for start, end in blocks(answer):
            self._waiting += self._stream.see(answer[start:end])
        return self._stream.spoken(), self._stream.usage()

    async def go_on(self) -> None:
        """Another answer follows this one."""
        if self._streams:
            await self._write_all(self._stream.end(final=False))
            self._stream.begin()

    async def finish(self, usage: dict[str, Any] | None, *, sees_own: bool) -> None:
        """This one is the client's answer, or the end of it. `usage`: of all. `sees_own`: it has calls of ours."""
        call, now = self._call, self.call_now
        if self._streams:
            await self._write_all(self._stream.end(final=True))
            self._open()
            call.answer = self._sink.body()
        elif not self._loose:
            assert self._head is not None
            call.answer, call.value = now.answer, now.value
            body = b"".join(self._held)
            if now.value is not None and (sees_own or call.earlier) and self.status == 200:
                body = orjson.dumps(shown(self._ex.endpoint, now.value, usage))
                call.answer, call.value = body, loads(body)
                self._head = _plain(self._head)
            await self._write(body)
        call.complete = now.complete

    def _open(self) -> None:
        if not self._opened and self._head is not None:
            self._opened = True
            self._call.head, self._call.event_stream = self._head, self.call_now.event_stream
            self._call.usage_injected = self.call_now.usage_injected
            self._sink.open(self._head)

    async def _write_all(self, more: list[Out]) -> None:
        waiting, self._waiting = self._waiting, []
        for out in (*waiting, *more):
            await self._write(out.body, usage_only=out.usage_only)

    async def _write(self, body: bytes, *, usage_only: bool = False) -> None:
        self._open()
        await self._sink.write(body, usage_only=usage_only)


def _plain(head: Head | None) -> Head:
    """The head of the same answer in other bytes, without an encoding."""
    assert head is not None
    headers: CIMultiDict[str] = head.headers.copy()
    for name in ("Content-Length", "Content-Encoding"):
        headers.popall(name, None)
    return Head(head.status, headers)
