"""What is sent to an upstream of another style, and the way back of its answer. No sockets.

Rules of this file:
1. The client's bytes stay as they are where the upstream speaks the client's API, but for what its style leaves out.
2. A whole answer is held until it can be turned; a stream goes on event by event.
"""

from __future__ import annotations

import asyncio
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any, NamedTuple

import orjson
from multidict import CIMultiDict

from farthing.proxy import wire
from farthing.proxy.adapt import Adapter, Adapting, Refused, adapter_for
from farthing.proxy.adapt_shared import Piece
from farthing.proxy.errors import ClientFault, UpstreamFault
from farthing.proxy.exchange import Call, Endpoint, Exchange, Head, Sink
from farthing.proxy.header_facts import Lines
from farthing.proxy.jsontext import find
from farthing.proxy.observe import decoded, loads
from farthing.proxy.styles import STYLES, StyleName, credential_of, shown_as, suited, target_of

if TYPE_CHECKING:
    from farthing.proxy.config import Upstream

__all__ = ["OFF_LOOP_BYTES", "Adapted", "Outgoing", "adapter_between", "adapter_of", "outgoing", "styled_headers"]

OFF_LOOP_BYTES = 262_144
"""Turning more than this takes milliseconds, so it leaves the event loop."""
_DEPLOYED = (Endpoint.CHAT, Endpoint.COMPLETIONS, Endpoint.EMBEDDINGS)


class Outgoing(NamedTuple):
    """What goes upstream."""

    target: str
    body: Any  # bytes, pieces, or None


def adapter_between(ex: Exchange, upstream: Upstream) -> Adapter | None:
    """What would stand between this request and this upstream, if anything."""
    options = STYLES[upstream.style].options._replace(
        max_tokens=upstream.max_tokens_default,
        budgets=upstream.thinking == "budget",
        stream_usage=upstream.stream_usage,
    )
    return adapter_for(ex.endpoint, upstream.style, created_s=int(ex.received_s), options=options)


def adapter_of(ex: Exchange, upstream: Upstream) -> Adapter | None:
    """What stands between this request and this upstream, if anything. Raises ClientFault: the body can't be read."""
    adapter = adapter_between(ex, upstream)
    if adapter is not None and ex.body is None:
        why = ex.cache_reason or "its body can't be read"
        raise ClientFault(
            f"the upstream speaks another API, and the request can't be turned: {why}", code="unsupported_body"
        )
    if adapter is not None:
        ex.decide("upstream", "adapted", f"{ex.endpoint} as {adapter.upstream}")
    return adapter


def outgoing(ex: Exchange, upstream: Upstream, adapter: Adapter | None, base_path: str, body: Any) -> Outgoing:
    """Target and body as the upstream takes them. Raises ClientFault 400: it has no word for a field."""
    target, endpoint = ex.original.target, ex.endpoint
    if adapter is not None:
        try:
            target, body = adapter.request(body)
            endpoint = adapter.upstream
        except Refused as refused:
            raise ClientFault(str(refused), code="unsupported_parameter", param=refused.param) from None
    elif not target.startswith("/v1/"):
        return Outgoing(wire.upstream_target(base_path, target), body)
    if isinstance(body, bytes):
        body = suited(upstream.style, endpoint, body)
    model = _model_in(body) if upstream.api_version and endpoint in _DEPLOYED else ""
    return Outgoing(target_of(upstream.style, base_path, target, model, upstream.api_version), body)


def _model_in(body: Any) -> str:
    """The model that a body asks for; '' where it can't be read."""
    try:
        place = find(body, ("model",)) if isinstance(body, bytes) else None
        model = None if place is None else orjson.loads(body[slice(*place)])
    except ValueError:
        return ""
    return model if isinstance(model, str) else ""


def styled_headers(
    ex: Exchange, style: StyleName, key: str | None, drop: frozenset[str], own: tuple[tuple[str, str], ...]
) -> Lines:
    """The request's headers with the key where this upstream looks for it: the operator's, or the client's own where
    `key` is None. `drop`, `own`: see HeaderFacts.sent.

    Raises ValueError: a line break in one.
    """
    kind, headers = STYLES[style], ex.original.headers
    key = credential_of(headers) if key is None else key
    own += tuple((name, value) for name, value in kind.headers if name not in headers)
    if key:
        own += (shown_as(style, key),)
    drop = _without(drop, kind.foreign, bool(key))
    if ex.body is not None or "Content-Length" not in headers:
        return ex.original.facts.sent(drop, own)
    return Lines([*wire.forwarded(headers.items(), drop=drop | ex.original.facts.aliased), *own])


@lru_cache(maxsize=32)
def _without(drop: frozenset[str], foreign: tuple[str, ...], keyed: bool) -> frozenset[str]:
    return drop | frozenset(foreign) | (frozenset(wire.CREDENTIAL_HEADERS) if keyed else frozenset())


class Adapted:
    """Between the upstream stage and the client's sink: takes the upstream's answer, gives the client's.

    `told`: the upstream's own whole answer, once it has ended, whether or not it can be turned. `write` takes whole
    events of a stream.
    """

    def __init__(self, adapter: Adapter, sink: Sink, call: Call, limit_bytes: int) -> None:
        self.task = sink.task
        self.told: dict[str, Any] | None = None
        self._adapter, self._sink, self._call = adapter, sink, call
        self._limit = limit_bytes
        self._head: Head | None = None
        self._stream: Adapting | None = None
        self._held: list[bytes] = []
        self._held_bytes = 0

    def open(self, head: Head) -> None:
        """The upstream's answer has begun; a whole one is shown once it has ended. Raises UpstreamFault."""
        self._head = head
        if not self._call.event_stream or head.status >= 400:
            self._call.event_stream = False
            return
        if "Content-Encoding" in head.headers:
            raise UpstreamFault("the upstream's stream is encoded, which wasn't asked for", phase="body", sent=True)
        self._stream = self._adapter.stream()
        self._call.usage_injected = self._adapter.client is Endpoint.CHAT  # clients that didn't ask don't see it
        self._show("text/event-stream; charset=utf-8")

    async def write(self, body: bytes, *, usage_only: bool = False) -> None:
        """Some of it. Raises UpstreamFault: it makes no sense, or is too long to be held."""
        if self._stream is not None:
            try:
                pieces = self._stream.feed(body)
            except Refused as refused:
                raise _senseless(refused) from None
            await self._pass_on(pieces)
            return
        self._held.append(body)
        self._held_bytes += len(body)
        if self._held_bytes > self._limit:
            raise UpstreamFault("the answer is too long to be turned", phase="body", sent=True)

    def body(self) -> bytes | None:
        """What the client's sink holds."""
        return self._sink.body()

    async def end(self) -> None:
        """The upstream has said all. Raises UpstreamFault: it makes no sense."""
        head = self._head
        assert head is not None
        try:
            if self._stream is not None:
                await self._pass_on(self._stream.finish())
                return
            body = decoded(b"".join(self._held), head.headers, self._limit)
            if body is None:
                raise UpstreamFault("the upstream's answer can't be decoded", phase="body", sent=True)
            self.told = loads(body)
            turn = partial(self._adapter.answer, head.status, body)
            turned = await asyncio.to_thread(turn) if len(body) > OFF_LOOP_BYTES else turn()
        except Refused as refused:
            raise _senseless(refused) from None
        self._show("application/json")
        await self._sink.write(turned)

    async def _pass_on(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            await self._sink.write(piece.body, usage_only=piece.usage_only)

    def _show(self, kind: str) -> None:
        assert self._head is not None
        headers: CIMultiDict[str] = self._head.headers.copy()
        for name in ("Content-Length", "Content-Encoding", "Content-Type"):
            headers.popall(name, None)
        headers["Content-Type"] = kind
        self._call.head = Head(self._adapter.status(self._head.status), headers)
        self._sink.open(self._call.head)


def _senseless(refused: Refused) -> UpstreamFault:
    return UpstreamFault(
        f"the upstream's answer can't be turned into the API that was called: {refused}", phase="body", sent=True
    )
