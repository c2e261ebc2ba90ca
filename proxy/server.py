"""The thin shell between aiohttp's server and the pipeline: requests in, answers out.

Rules of this file: no decision about caching or money is made here; every exchange ends in `_finish`, whatever
happens; after the first byte a failure becomes a stream's error event or a cut connection, never a second answer.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping
from functools import partial

import orjson
import structlog
from aiohttp import web
from multidict import CIMultiDict

from farthing.cache import reshape
from farthing.cache.flight import CutOff, Reader
from farthing.cache.stage_exact import OFF_LOOP_BYTES
from farthing.proxy import whole
from farthing.proxy.account import Account
from farthing.proxy.adapt_errors import message_error
from farthing.proxy.afresh import Afresh
from farthing.proxy.aliases_answer import answered, without_theirs
from farthing.proxy.body import IncomingBody
from farthing.proxy.client_view import ClientView
from farthing.proxy.clock import Clock, Randomness, new_id
from farthing.proxy.config import Limits, Upstream
from farthing.proxy.errors import ClientFault, FarthingError, UpstreamFault, error_body
from farthing.proxy.exchange import REFUSED, CacheStatus, Endpoint, Exchange, Head, LocalReply, Original, Outcome
from farthing.proxy.header_facts import HeaderBook
from farthing.proxy.observe import decoded
from farthing.proxy.pipeline import Pipeline
from farthing.proxy.repeat import Repeats
from farthing.proxy.tasks import TaskGroup
from farthing.proxy.traces import Traces
from farthing.proxy.wire import endpoint_of

__all__ = ["Relay"]

log = structlog.get_logger("farthing.server")

_REPLACED = {"content-length", "cache-status"}  # farthing's own stand in their place
_REPLACED_LENGTHS = {len(name) for name in _REPLACED}
_FRAMED = {"Content-Length", "Content-Encoding"}  # nothing can be appended to such a body
_FAILED = "farthing failed on this request"
_COUNTS_USAGE = (Endpoint.CHAT, Endpoint.COMPLETIONS)


class Relay:
    """Answers one proxied request. `afresh`: compares answers with fresh ones, of `afresh_share` of the requests, which
    lanes.py sets."""

    def __init__(
        self,
        pipeline: Pipeline,
        account: Account,
        repeats: Repeats,
        tasks: TaskGroup,
        limits: Limits,
        upstream: Upstream,
        clock: Clock,
        randomness: Randomness,
        products: tuple[str, ...] = (),
        traces: Traces | None = None,
        afresh: Afresh | None = None,
    ) -> None:
        self.afresh = afresh
        self.afresh_share = 0.0
        self._pipeline = pipeline
        self._account = account
        self.repeats = repeats
        self._tasks = tasks
        self._limits = limits
        self._upstream = upstream
        self._clock = clock
        self._randomness = randomness
        self._traces = traces
        self._sent = whole.Sent()
        self._products = products
        self._headers = HeaderBook(products=products)

    async def handle(self, request: web.BaseRequest, source: IncomingBody | None = None) -> web.StreamResponse:
        """One exchange, from the client's head to the ledger. `source`: its body, where it was begun to be read."""
        begun_tick, now_s = self._clock.tick_s(), self._clock.now_s()
        source = source or IncomingBody(
            request.content, hard_bytes=self._limits.max_body_bytes, timeout_s=self._limits.body_timeout_s
        )
        drawn = bool(self.afresh_share) and self.afresh is not None and self.afresh.draws(self.afresh_share)
        known = None if drawn else self.repeats.find(request, source, now_s)
        if known is not None:
            await self.repeats.answer(request, known, begun_tick, now_s)
            return self._sent
        facts = self._headers.facts(request.headers)
        ex = Exchange(
            id=new_id(now_s, self._randomness),
            original=Original(request.method, request.raw_path, request.headers, source, facts),
            received_s=now_s,
            received_tick=begun_tick,
        )
        if drawn:
            ex.drawn = True
        if self._traces is not None:
            self._traces.note(ex.id, request.headers.get("traceparent"))
        if facts.waits and request.transport is not None:
            request.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")  # RFC 9110, 10.1.1
        try:
            response = await self._answer(request, ex)
        except asyncio.CancelledError:
            if ex.outcome is not Outcome.COMPLETED:
                ex.outcome = Outcome.ABANDONED
            self._tasks.spawn(self._finish(ex), "finish")
            raise
        except (ConnectionError, CutOff) as error:
            if ex.outcome is not Outcome.COMPLETED:
                ex.outcome = Outcome.ABANDONED
                ex.error = str(error) if isinstance(error, CutOff) else ""
            _cut(request)
            response = web.Response()
        if self._pipeline.over(ex) and not self._account.must_wait(ex):
            ex.ready = True
            await self._finish(ex)  # nothing in it waits, so nothing can cancel it
        else:
            # A client that hangs up cancels this handler; what is left to do for the books must not go with it.
            self._tasks.spawn(self._finish(ex), "finish")
        return response

    async def _finish(self, ex: Exchange) -> None:
        if ex.ended_tick is None:
            ex.ended_tick = self._clock.tick_s()
        await self._pipeline.finish(ex)
        if ex.drawn and self.afresh is not None:
            self.afresh.ended(ex)

    async def _answer(self, request: web.BaseRequest, ex: Exchange) -> web.StreamResponse:
        try:
            reply = await self._pipeline.answer(ex)
            if isinstance(reply, LocalReply):
                ex.served, ex.given = reply.served, reply.body
                response = await self._send(request, ex, reply.status, CIMultiDict(reply.headers), reply.body)
                self.repeats.learn(request, ex, reply)
                return response
            return await self._relay(request, ex, reply)
        except CutOff:
            raise
        except FarthingError as fault:
            return await self._refuse(request, ex, fault)
        except (ConnectionError, asyncio.CancelledError):
            raise
        except Exception as error:
            log.error("request failed", id=ex.id, exc_info=error)
            if ex.first_byte_tick is not None or ex.status:
                raise ConnectionResetError("farthing failed in the middle of an answer") from error
            return await self._refuse(request, ex, FarthingError(type(error).__name__))

    async def _relay(self, request: web.BaseRequest, ex: Exchange, reader: Reader) -> web.StreamResponse:
        """What the flight brings, in the shape that this client asked for."""
        head = await self._head(ex, reader)
        call = ex.call
        if call is not None and call.served is not None:
            if not ex.leads and ex.stream and call.served.asks_usage is not ex.asks_usage:
                return await self._relay(request, ex, self._pipeline.alone(ex))  # made for who started the flight
            ex.served = call.served
            if not ex.leads:
                ex.cache_reason = call.served.reuse  # it joined a flight that a near-duplicate answered
        if ex.leads and ex.endpoint is Endpoint.OTHER:
            return await self._stream(request, ex, head, reader)
        if _is_event_stream(head):
            if not ex.stream and reader.flight.stream:
                return await self._assembled(request, ex, head, reader)
            return await self._stream(request, ex, head, reader)
        if not ex.optimise:
            return await self._stream(request, ex, head, reader)
        return await self._whole(request, ex, head, reader)

    async def _head(self, ex: Exchange, reader: Reader) -> Head:
        """Wait for the head; a follower keeps its own deadline and gets its 504 alone."""
        if ex.leads:
            return await reader.head()
        try:
            async with asyncio.timeout(self._upstream.first_byte_timeout_s):
                return await reader.head()
        except TimeoutError:
            raise UpstreamFault(
                "the request that this one joined got no answer in time", phase="head", status=504
            ) from None

    async def _whole(self, request: web.BaseRequest, ex: Exchange, head: Head, reader: Reader) -> web.StreamResponse:
        """A whole answer is held until it is complete, so that its head can carry what it cost; a long one isn't."""
        pieces, held = [], 0
        while (frame := await reader.next()) is not None:
            pieces.append(frame.body)
            held += len(frame.body)
            if held > self._limits.buffer_bytes:
                response = await self._prepare(request, ex, head)
                await response.write(b"".join(pieces))
                return await self._pour(request, ex, response, reader)
        headers, body = head.headers, pieces[0] if len(pieces) == 1 else b"".join(pieces)
        if not ex.leads and not _accepts(request, headers):
            # Whoever started the flight takes this encoding; this client, who joined it, doesn't.
            plain = decoded(body, headers, 8 * self._limits.buffer_bytes)
            if plain is None:
                return await self._relay(request, ex, self._pipeline.alone(ex))
            headers = headers.copy()
            headers.popall("Content-Encoding", None)
            body = plain
        return await self._send(request, ex, head.status, headers, body)

    async def _assembled(
        self, request: web.BaseRequest, ex: Exchange, head: Head, reader: Reader
    ) -> web.StreamResponse:
        """A client that wanted a whole answer joined a stream."""
        pieces = [frame.body async for frame in reader.frames()]
        counted = ex.call is not None and ex.call.usage is not None
        sse, body = b"".join(pieces), None
        if head.status == 200 and counted:
            work = partial(reshape.assemble, sse, ex.endpoint)
            body = await asyncio.to_thread(work) if len(sse) > OFF_LOOP_BYTES else work()
        if body is None:
            own = self._pipeline.alone(ex)
            return await self._relay(request, ex, own)
        return await self._send(request, ex, 200, CIMultiDict({"Content-Type": "application/json"}), body)

    async def _stream(self, request: web.BaseRequest, ex: Exchange, head: Head, reader: Reader) -> web.StreamResponse:
        response = await self._prepare(request, ex, head)
        return await self._pour(request, ex, response, reader)

    async def _pour(
        self, request: web.BaseRequest, ex: Exchange, response: web.StreamResponse, reader: Reader
    ) -> web.StreamResponse:
        """Frames to the client as they come; usage only to a client that asked for it."""
        call = ex.call
        # Only where it was farthing, or whoever this client joined, that asked for usage.
        added = call is not None and (call.usage_injected or not ex.leads)
        understood = ex.optimise and ex.payload is not None and ex.endpoint in _COUNTS_USAGE
        hides = added and understood and not ex.asks_usage and _is_event_stream_type(response)
        view = ClientView(request, response, hides=hides)
        sent = True  # what was read has been handed over, and nobody waits for the client to take it
        try:
            while (frame := await reader.next()) is not None:
                body = view.seen(frame)
                if body is None:
                    continue
                if ex.first_byte_tick is None:
                    ex.first_byte_tick = self._clock.tick_s()
                sent = False
                await response.write(body)  # with the head, the first time
                if view.chunked:
                    sent = True
                    await reader.pour(view.take)
                    sent = False
                    await request.writer.drain()
                sent = True
        except asyncio.CancelledError:
            if sent and reader.has_all:  # clients leave at a stream's last event, and don't wait for the body's end
                ex.outcome = Outcome.COMPLETED
            raise
        except UpstreamFault as fault:
            ex.outcome, ex.error = Outcome.FAILED, fault.message
            told = None if response.headers.keys() & _FRAMED else error_event(ex.endpoint, fault.message)
            if told is not None and ex.optimise and _is_event_stream_type(response):
                await response.write(told)
                await response.write_eof()
            else:
                _cut(request)
            return response
        if reader.has_all:
            ex.outcome = Outcome.COMPLETED
        await response.write_eof()
        ex.outcome = Outcome.COMPLETED
        return response

    async def _prepare(self, request: web.BaseRequest, ex: Exchange, head: Head) -> web.StreamResponse:
        ex.status = head.status
        headers = head.headers.copy()
        own = self._account.headers_at_head(ex)
        headers.update(own)
        if self._products:
            headers.update(answered(self._products, ex, own))
        if ex.optimise and ex.endpoint is not Endpoint.OTHER:
            headers.popall("Content-Length", None)
        response = web.StreamResponse(status=head.status, headers=headers)
        await response.prepare(request)
        return response

    async def _send(
        self, request: web.BaseRequest, ex: Exchange, status: int, headers: Mapping[str, str], body: bytes
    ) -> web.StreamResponse:
        """A whole answer in one write."""
        ex.status = status
        response: web.StreamResponse = self._sent
        own = self._account.headers_at_end(ex)
        if self._products:
            headers = without_theirs(headers, self._products)
            own |= answered(self._products, ex, own)
        if whole.sendable(request, status):
            pairs = [
                pair
                for pair in headers.items()
                if len(pair[0]) not in _REPLACED_LENGTHS or pair[0].lower() not in _REPLACED
            ]
            if "Date" not in headers:
                own["Date"] = whole.date_of(int(self._clock.now_s()))
            head = whole.head_of(status, [*pairs, *own.items()], len(body))
            ex.first_byte_tick = self._clock.tick_s()
            whole.write(request, head, body)
            await whole.drained(request, body)
        else:
            out: CIMultiDict[str] = CIMultiDict(headers)
            out.popall("Content-Length", None)
            out.update(own)
            response = web.Response(status=status, headers=out, body=body)
            await response.prepare(request)
            ex.first_byte_tick = self._clock.tick_s()
            await response.write_eof()
        ex.outcome = ex.outcome or Outcome.COMPLETED
        return response

    async def _refuse(self, request: web.BaseRequest, ex: Exchange, fault: FarthingError) -> web.StreamResponse:
        """An error of our own, in the OpenAI shape; for a call of Anthropic's messages in theirs."""
        ex.outcome, ex.error = Outcome.FAILED, str(fault)
        headers: CIMultiDict[str] = CIMultiDict({"Content-Type": "application/json"})
        if isinstance(fault, ClientFault | UpstreamFault) and fault.retry_after_s is not None:
            headers["Retry-After"] = str(max(1, math.ceil(fault.retry_after_s)))
        if isinstance(fault, ClientFault):
            ex.decide(*REFUSED, fault.code)
            status, body = fault.status, error_body(fault.message, kind=fault.kind, code=fault.code, param=fault.param)
        elif isinstance(fault, UpstreamFault):
            status, body = (
                fault.status,
                error_body(fault.message, kind="upstream_error", code=f"upstream_{fault.phase}"),
            )
        else:
            status, body = 500, error_body(_FAILED, kind="proxy_error", code="internal")
        if endpoint_of(ex.original.method, ex.original.path) is Endpoint.MESSAGES:
            body = message_error(status, str(fault) if isinstance(fault, ClientFault | UpstreamFault) else _FAILED)
        if ex.cache is CacheStatus.MISS and ex.call is None:
            ex.cache = CacheStatus.BYPASS if isinstance(fault, ClientFault) and fault.code != "not_cached" else ex.cache
        return await self._send(request, ex, status, headers, body)


def _is_event_stream(head: Head) -> bool:
    return head.headers.get("Content-Type", "").startswith("text/event-stream")


def _is_event_stream_type(response: web.StreamResponse) -> bool:
    return response.headers.get("Content-Type", "").startswith("text/event-stream")


def error_event(endpoint: Endpoint, message: str) -> bytes | None:
    """An error in mid-stream as an event that the endpoint's SDKs raise on; None where there is no such event.

    Sources: openai-python (raises on a data object with `error`), Anthropic API reference, streaming, "Error events".
    """
    if endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS):
        return b"data: " + error_body(message, kind="upstream_error", code="upstream") + b"\n\n"
    if endpoint is Endpoint.MESSAGES:
        told = {"type": "error", "error": {"type": "api_error", "message": message}}
        return b"event: error\ndata: " + orjson.dumps(told) + b"\n\n"
    return None


def _accepts(request: web.BaseRequest, headers: Mapping[str, str]) -> bool:
    """Whether the client takes the answer's content encoding (RFC 9110, 12.5.3)."""
    encoding = headers.get("Content-Encoding", "identity").strip().lower()
    return encoding == "identity" or encoding in request.headers.get("Accept-Encoding", "").lower()


def _cut(request: web.BaseRequest) -> None:
    """End the connection so that the client can't take half an answer for a whole one."""
    if request.transport is not None:
        request.transport.abort()
