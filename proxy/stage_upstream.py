"""The upstream stage: one attempt or more; the answer is written to the exchange's sink as it arrives.

The only stage that opens sockets, by way of the pool's `Connections`: each attempt leases a seat, one where this
request has not failed yet if there is such a one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping
from dataclasses import dataclass, field
from functools import lru_cache, partial
from typing import Any

import structlog
from multidict import CIMultiDict

from farthing.compress.provider_cache import Kind, ProviderCache
from farthing.policies.affinity import NO_PREFIX, Prefix
from farthing.policies.retry import RetryRules, after_fault, after_status
from farthing.policies.variant import put_in
from farthing.proxy import wire
from farthing.proxy.adapt import Adapter
from farthing.proxy.adapting import OFF_LOOP_BYTES, Adapted, Outgoing, adapter_of, outgoing, styled_headers
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.config import Limits, Upstream
from farthing.proxy.deadlines import Deadline, Deadlines
from farthing.proxy.errors import UpstreamFault
from farthing.proxy.exchange import GO_ON, Attempt, Call, Endpoint, Exchange, Head, Quiet, Sink, Verdict
from farthing.proxy.header_facts import Lines
from farthing.proxy.http1 import Connection
from farthing.proxy.jsontext import find, insert_member, loads_loosely, splice
from farthing.proxy.keys import bearing
from farthing.proxy.observe import StreamObserver, decoded, loads, read_whole
from farthing.proxy.pool import Lease, Pool, Seat
from farthing.proxy.prompt_marking import Marked, without_marks
from farthing.proxy.prompt_trail import trail_of
from farthing.proxy.sse import Splitter

__all__ = ["UpstreamStage", "with_usage_asked"]

log = structlog.get_logger("farthing.upstream")

_NO_RETRIES = RetryRules(0)
_ENGINE = ProviderCache(Kind.AUTOMATIC)  # a self-hosted engine caches every prefix by itself
_EVENT_STREAM, _JSON = "text/event-stream", "application/json"


@dataclass(slots=True)
class UpstreamStage(Quiet):
    """Carries the request upstream. `no_usage_asked`: set when this upstream was seen to refuse `stream_options`.
    `foreign`: clients' credentials mean nothing to it, and it must not see them. `own_keys`: clients show farthing's
    own keys, which are nobody else's business."""

    pool: Pool
    deadlines: Deadlines
    upstream: Upstream
    limits: Limits
    clock: Clock
    randomness: Randomness
    rules: RetryRules
    passive: bool = False
    own_keys: bool = False
    no_usage_asked: bool = False
    foreign: bool = False
    name: str = field(default="upstream", init=False)
    hard: bool = field(default=True, init=False)

    async def on_request(self, ex: Exchange) -> Verdict:
        """Send, retry within the rules, relay. Raises UpstreamFault where no answer can be had or it breaks off."""
        call, sink = ex.call, ex.sink
        if call is None or sink is None:
            raise RuntimeError("the upstream stage runs inside a flight")
        call.upstream = self.upstream.name
        call.started_tick = self.clock.tick_s()
        adapter = None if self.upstream.style == "any" else adapter_of(ex, self.upstream)
        limit = self.deadlines.begin(self.upstream.first_byte_timeout_s, sink.task)
        leases: list[Lease] = []
        try:
            answer = await self._answered(ex, call, adapter, leases)
            try:
                await self._relay(ex, call, sink, answer, limit, adapter)
            except UpstreamFault:
                if ex.original.source.fault is None:
                    leases[-1].failed()
                raise
            finally:
                leases[-1].replica.connections.done(answer)
        except asyncio.CancelledError:
            call.silent = call.head is None and bool(call.attempts) and call.attempts[-1].unanswered
            if call.silent and ex.variant is not None:
                call.model_served = ex.variant.model  # which it was sent to
            if not limit.passed_alone():
                raise
            if leases:
                leases[-1].failed()
            phase = "body" if call.head else "head"
            raise UpstreamFault("the upstream sent nothing in time", phase=phase, status=504, sent=True) from None
        finally:
            self.deadlines.end(limit)
            if leases:
                leases[-1].done()
        return GO_ON

    async def _answered(self, ex: Exchange, call: Call, adapter: Adapter | None, leases: list[Lease]) -> Connection:
        """The first answer that isn't worth another attempt. `leases`: of the attempts; the last one is under way."""
        rules = _NO_RETRIES if self.passive or not ex.optimise or ex.body is None else self.rules
        body: bytes | AsyncIterator[bytes] | None = self._body(ex, call, ask_usage=adapter is None)
        styled = self.upstream.style != "any"
        prefix = self._prefix(ex) if self.pool.reads_prefixes else NO_PREFIX
        failed_at: set[Seat] = set()
        tries, suspected = 0, False
        model = ex.model if ex.variant is None else ex.variant.model
        looked = ex.marker is None
        refused: Marked | None = None
        while True:
            lease = await self._leased(prefix, failed_at, rules, model)
            leases.append(lease)
            seat, replica = lease.seat, lease.seat.replica
            target, sent = wire.upstream_target(replica.base, ex.original.target), body
            if styled:
                target, sent = await self._styled(ex, adapter, replica.base, body)
            if not looked:
                looked = True
                await self._mark(ex, adapter, sent)
            if ex.marked is not None and sent == ex.marked.plain:
                sent = ex.marked.body
            try:
                headers = self._headers(ex, adapter, seat.key)
            except ValueError as error:
                raise UpstreamFault(str(error), phase="connect", status=400) from None
            call.upstream = lease.name
            attempt = Attempt(lease.name)
            call.attempts.append(attempt)
            begun = self.clock.tick_s()
            wait_s: float | None
            try:
                answer = await replica.connections.send(
                    ex.original.method, target, headers, sent, again=rules.after_send, begun=attempt.goes_out
                )
            except UpstreamFault as fault:
                if ex.original.source.fault is not None:
                    raise ex.original.source.fault from None
                attempt.error = f"{fault.phase}: {fault.message}"
                attempt.duration_ms = (self.clock.tick_s() - begun) * 1000
                if fault.status < 500:
                    raise  # what the client sent can't be sent on
                lease.failed()
                lease.done()
                failed_at.update(self.pool.at(replica))
                elsewhere = self.pool.offers(failed_at, model)
                if elsewhere and fault.phase == "connect":
                    continue  # nothing was sent: to look elsewhere is no retry
                tries += 1
                idempotent = "Idempotency-Key" in ex.original.headers or ex.original.method in ("GET", "HEAD")
                chance = self.randomness.uniform()
                wait_s = after_fault(fault, tries, rules, chance, idempotent=idempotent, elsewhere=elsewhere)
                if wait_s is None:
                    raise
            else:
                attempt.status = answer.status
                attempt.duration_ms = (self.clock.tick_s() - begun) * 1000
                lease.answered(answer.status, answer.headers)
                if ex.marked is not None and ex.marked.changed and answer.status in (400, 422):
                    # Perhaps it is the marks that it refuses: the client's request must not fail for that.
                    self._drop(lease, answer)
                    refused, ex.marked = ex.marked, without_marks(ex.marked)
                    continue
                if refused is not None and answer.status < 400:
                    log.warning("the upstream refuses marks for its prompt cache", model=refused.model)
                    ex.marker.refused(self.upstream, refused)
                    refused = None
                if call.usage_injected and answer.status in (400, 422):
                    # Perhaps it is our own option that it refuses: the client's request must not fail for that.
                    self._drop(lease, answer)
                    call.usage_injected, suspected = False, True
                    body = self._body(ex, call, ask_usage=False)
                    continue
                if suspected and answer.status < 400 and not self.no_usage_asked:
                    log.warning("the upstream refuses stream_options; usage of streams will be counted here")
                    self.no_usage_asked = True
                if answer.status < 400:
                    return answer
                tries += 1
                # A refusal for its rate or its key concerns that key; anything else may be the machine's fault.
                failed_at.update((seat,) if answer.status in (401, 429) else self.pool.at(replica))
                wait_s = after_status(
                    answer.status,
                    CIMultiDict(answer.headers),
                    tries,
                    rules,
                    self.randomness.uniform(),
                    self.clock.now_s(),
                    elsewhere=(answer.status != 401 or seat.key is not None) and self.pool.offers(failed_at, model),
                )
                if wait_s is None:
                    return answer
                self._drop(lease, answer)
            if wait_s:
                attempt.backoff_ms = wait_s * 1000
                await asyncio.sleep(wait_s)

    async def _mark(self, ex: Exchange, adapter: Adapter | None, body: Any) -> None:
        """Decide what is added for the provider's prompt cache; a failure adds nothing."""
        try:
            ex.marked = await ex.marker.look(
                ex, self.upstream, ex.endpoint if adapter is None else adapter.upstream, body
            )
        except Exception as error:  # noqa: BLE001 - care for a cache must not fail the request
            ex.decide("prompt_cache", "error", type(error).__name__)

    async def _leased(self, prefix: Prefix, failed_at: Collection[Seat], rules: RetryRules, model: str) -> Lease:
        """A seat; waits for one as often as a request may be retried. Raises UpstreamFault."""
        refusals = 0
        while True:
            try:
                return self.pool.pick(prefix, failed_at, model)
            except UpstreamFault as fault:
                refusals += 1
                wait_s = after_fault(fault, refusals, rules, self.randomness.uniform(), idempotent=False)
                if wait_s is None:
                    raise
                await asyncio.sleep(wait_s)

    def _prefix(self, ex: Exchange) -> Prefix:
        trail = None if ex.payload is None else trail_of(ex.endpoint, ex.payload, _ENGINE, (ex.model,))
        return NO_PREFIX if trail is None else Prefix(trail.keys, trail.ends)

    async def _styled(self, ex: Exchange, adapter: Adapter | None, base_path: str, body: Any) -> Outgoing:
        """Target and body as this kind of upstream takes them. Raises ClientFault: it has no word for a field."""
        work = partial(outgoing, ex, self.upstream, adapter, base_path, body)
        large = isinstance(body, bytes) and len(body) > OFF_LOOP_BYTES
        return await asyncio.to_thread(work) if large else work()

    def _body(self, ex: Exchange, call: Call, *, ask_usage: bool = True) -> bytes | AsyncIterator[bytes] | None:
        """What is sent: the client's bytes, changed only by what the stages put in their place."""
        if ex.body is None:
            carries = "Content-Length" in ex.original.headers or "Transfer-Encoding" in ex.original.headers
            return ex.original.source.stream() if carries else None
        body = ex.body_out if ex.body_out is not None else ex.body
        if ex.variant is not None:
            body = put_in(body, ex.variant)
        if (
            ask_usage
            and ex.stream
            and not ex.asks_usage
            and ex.exact is not None
            and ex.endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS)
            and ex.optimise
            and not (self.passive or self.no_usage_asked or not self.upstream.stream_usage)
        ):
            call.usage_injected = True
            return with_usage_asked(body)  # it has a canonical form, so it can be read
        return body

    def _headers(self, ex: Exchange, adapter: Adapter | None, key: str | None) -> Lines:
        plain = adapter is not None or (ex.optimise and not self.passive and ex.endpoint is not Endpoint.OTHER)
        facts = ex.original.facts
        if self.own_keys and key is None:
            key = ""  # none at all: what the client shows is farthing's
        drop = _dropped(ex.body is not None, plain, key is not None)
        if self.own_keys:
            drop |= bearing(ex.original.headers.items())
        if self.foreign:
            key, drop = key or "", drop | wire.telling_who(tuple(ex.original.headers))
        own: tuple[tuple[str, str], ...] = ()
        if plain:
            # A stream's events must be seen as they come; a whole answer may stay compressed on its way.
            own = _ZIPPED if facts.zips and not ex.stream else _PLAIN
        if ex.marked is not None:
            own += ex.marked.headers
        if self.upstream.style != "any":
            return styled_headers(ex, self.upstream.style, key, drop, own)
        if key:  # then all that the client showed is dropped
            own += (_shown_as(ex.original.headers, key),)
        if ex.body is not None or "Content-Length" not in ex.original.headers:
            return facts.sent(drop, own)
        return Lines([*wire.forwarded(ex.original.headers.items(), drop=drop | facts.aliased), *own])

    def _drop(self, lease: Lease, answer: Connection) -> None:
        """Leave the rest of an answer unread."""
        answer.close()
        lease.replica.connections.done(answer)
        lease.done()

    async def _relay(
        self, ex: Exchange, call: Call, sink: Sink, answer: Connection, limit: Deadline, adapter: Adapter | None
    ) -> None:
        """Head, then bytes as they arrive; streams of understood endpoints in whole events."""
        tick_s = self.clock.tick_s
        now = limit.now()
        until, idle_s = now + self.upstream.total_timeout_s, self.upstream.idle_timeout_s
        limit.due = min(until, now + idle_s)
        call.head = head = Head(answer.status, wire.forwardable(answer.headers))
        kind = head.headers.get("Content-Type", "")
        call.event_stream = kind != _JSON and kind.partition(";")[0].strip().lower() == _EVENT_STREAM
        endpoint, adapted = ex.endpoint, None
        if adapter is not None:
            endpoint = adapter.upstream
            sink = adapted = Adapted(adapter, sink, call, 8 * self.limits.buffer_bytes)
        sink.open(head)
        understood = ex.endpoint is not Endpoint.OTHER
        watches = call.event_stream and understood and "Content-Encoding" not in head.headers
        splitter = Splitter(self.limits.sse_event_bytes) if watches else None
        observer = StreamObserver(endpoint) if watches else None
        cuts = adapted is not None or (ex.optimise and not self.passive)  # else bytes go on as they come
        try:
            while not answer.ended and (chunk := await answer.read()):
                if call.first_byte_tick is None:
                    call.first_byte_tick = tick_s()
                limit.due = until  # while a reader is slow the upstream is not to blame
                if splitter is None or observer is None:
                    await sink.write(chunk)
                else:
                    for piece in splitter.feed(chunk):
                        usage_only = observer.see(piece)
                        if cuts:
                            await sink.write(piece, usage_only=usage_only)
                    if not cuts:
                        await sink.write(chunk)
                limit.due = min(until, limit.now() + idle_s)
            if splitter is not None and observer is not None and (tail := splitter.rest()):
                usage_only = observer.see(tail)
                if cuts:
                    await sink.write(tail, usage_only=usage_only)
        finally:
            if observer is not None:
                call.usage, call.model_served, call.tier = observer.usage, observer.model, observer.tier
        if adapted is not None:
            try:
                await adapted.end()
            finally:
                if adapted.told is not None:  # it is paid for, whether or not the client gets it
                    call.usage, call.model_served = read_whole(endpoint, adapted.told)
            head = call.head
        call.complete = True
        if understood and (body := sink.body()) is not None:
            call.answer = decoded(body, head.headers, 8 * self.limits.buffer_bytes)
            if splitter is None and call.answer is not None:
                call.value = loads(call.answer)
                if adapted is None:
                    value = call.value
                    if value is None and 200 <= head.status < 300:  # no answer to be kept, but one that was billed
                        value = await self._read_loosely(call.answer)
                    call.usage, call.model_served = read_whole(endpoint, value)

    @staticmethod
    async def _read_loosely(answer: bytes) -> dict[str, Any] | None:
        large = len(answer) > OFF_LOOP_BYTES
        return await asyncio.to_thread(loads_loosely, answer) if large else loads_loosely(answer)


_ZIPPED = (("Accept-Encoding", "gzip"),)
_PLAIN = (("Accept-Encoding", "identity"),)


def _shown_as(headers: Mapping[str, str], key: str) -> tuple[str, str]:
    """The operator's key, in the header in which the client shows its own."""
    for name in ("x-api-key", "api-key"):
        if name in headers:
            return name, key
    return "Authorization", f"Bearer {key}"


@lru_cache(maxsize=8)
def _dropped(held: bool, plain: bool, own_key: bool) -> frozenset[str]:
    """Which of the client's headers don't go upstream as they came (lower case)."""
    drop = {"host", "expect"}
    drop |= {"content-length"} if held else set()
    drop |= {"accept-encoding", "cache-control"} if plain else set()  # Cache-Control speaks to us (contract)
    return frozenset(drop | set(wire.CREDENTIAL_HEADERS) if own_key else drop)


def with_usage_asked(body: bytes) -> bytes:
    """The body with `stream_options.include_usage` set, every other byte as it was.

    Source: OpenAI API reference, chat/create, `stream_options`.
    """
    place = find(body, ("stream_options",))
    if place is None:
        return insert_member(body, "stream_options", b'{"include_usage":true}')
    start, end = place
    options = body[start:end]
    if not options.startswith(b"{"):
        return splice(body, [(start, end, b'{"include_usage":true}')])
    inner = find(body, ("stream_options", "include_usage"))
    if inner is not None:
        return splice(body, [(*inner, b"true")])
    return splice(body, [(start, end, insert_member(options, "include_usage", b"true"))])
