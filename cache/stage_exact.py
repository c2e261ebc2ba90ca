"""The exact cache's two places in the pipeline: `ExactStage` looks up, `KeepStage` stores.

They stand apart because a lookup belongs to one client's request and a stored answer to the flight: an answer is kept
even when the client that asked for it has left.
"""

from __future__ import annotations

import asyncio
import threading
from collections import OrderedDict
from collections.abc import Awaitable, Callable, MutableSet, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import NamedTuple

from farthing.cache import replay, reshape
from farthing.cache.entry import Entry
from farthing.cache.key import Scope, digest_of, key_of
from farthing.cache.lease import Leases
from farthing.cache.stage_items import ItemCache
from farthing.cache.store import Store
from farthing.proxy.clock import Clock, Randomness
from farthing.proxy.errors import StoreFault
from farthing.proxy.exchange import GO_ON, CacheStatus, Call, Endpoint, Exchange, LocalReply, Quiet, Served, Verdict

__all__ = ["ID_PREFIX", "ExactStage", "KeepStage", "Renderer", "note_refusal", "scope_of", "serve", "unfit"]


# Work on more bytes than this takes milliseconds, so it leaves the event loop.
OFF_LOOP_BYTES = 65_536
_PIECES_BYTES, _PIECE_BYTES = 450, 41  # what is held beside an answer's own bytes, and for each of its pieces


def scope_of(ex: Exchange, upstream_url: str) -> Scope:
    """The request's identity apart from its body."""
    vendor = ex.original.facts.vendor
    return Scope(ex.tenant, ex.endpoint, ex.original.target, upstream_url, vendor, ex.controls, ex.lossy)


class Pieces(NamedTuple):
    """An answer's pieces in one shape, and of which entry of its key they are. `size`: bytes that are held, about."""

    stored_s: float
    template: replay.Template
    size: int


class Renderer:
    """Turns stored answers into bytes ready to send, and remembers the pieces of the latest ones.

    Of each key only those of one entry: what has been stored anew is asked for no more.
    """

    def __init__(self, limit_bytes: int = 32 * 2**20) -> None:
        self._templates: OrderedDict[tuple[str, bool, bool], Pieces] = OrderedDict()
        self._bytes = 0
        self._limit = limit_bytes
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._templates)

    def known(self, entry: Entry, *, stream: bool, usage: bool) -> replay.Template | None:
        """The pieces, if they are there already."""
        found = self._templates.get((entry.key, stream, usage))
        return found.template if found is not None and found.stored_s == entry.stored_s else None

    def render(self, entry: Entry, *, stream: bool, usage: bool, new_id: str, now_s: float) -> bytes | None:
        """The entry's answer in the shape asked for; None where it has none in that shape."""
        place = (entry.key, stream, usage)
        with self._lock:
            template = self.known(entry, stream=stream, usage=usage)
            if template is not None:
                self._templates.move_to_end(place)
        if template is None:
            shaped = reshaped(entry, stream=stream, usage=usage)
            if shaped is None:
                return None
            template = replay.prepare(shaped)
            self._hold(place, entry, template, len(shaped.body))
        return template.render(new_id, int(now_s))

    def remember(self, entry: Entry, body: bytes) -> None:
        """These bytes are the whole answer that the entry stands for, as it was put together elsewhere."""
        for usage in (False, True):
            self._hold((entry.key, False, usage), entry, replay.Template((body,)), len(body))

    def _hold(self, place: tuple[str, bool, bool], entry: Entry, template: replay.Template, length: int) -> None:
        made = Pieces(entry.stored_s, template, length + _PIECES_BYTES + _PIECE_BYTES * len(template.pieces))
        with self._lock:
            before = self._templates.pop(place, None)
            self._bytes += made.size - (0 if before is None else before.size)
            self._templates[place] = made
            while self._bytes > self._limit and len(self._templates) > 1:
                self._bytes -= self._templates.popitem(last=False)[1].size


def reshaped(entry: Entry, *, stream: bool, usage: bool) -> Entry | None:
    """The entry in the shape asked for, without the usage event where the client didn't ask for it."""
    if entry.shape == "stream" and entry.usage is None and (usage or not stream):
        return None  # it came without the usage that this client may rely on
    if (entry.shape == "stream") != stream:
        if stream:
            body = reshape.split(entry.body, entry.endpoint, include_usage=usage)
        else:
            body = reshape.assemble(entry.body, entry.endpoint)
        if body is None:
            return None
        return entry._replace(
            body=body,
            shape="stream" if stream else "whole",
            content_type="text/event-stream; charset=utf-8" if stream else "application/json",
        )
    if stream and not usage and entry.endpoint in (Endpoint.CHAT, Endpoint.COMPLETIONS):
        return entry._replace(body=replay.without_usage(entry.body))
    return entry


ID_PREFIX = {Endpoint.CHAT: "chatcmpl-", Endpoint.COMPLETIONS: "cmpl-"}


def too_old(ex: Exchange, entry: Entry, now_s: float) -> bool:
    """Whether the request asks for something newer."""
    return ex.controls.max_age_s is not None and now_s - entry.stored_s > ex.controls.max_age_s


def serve(ex: Exchange, entry: Entry, renderer: Renderer, clock: Clock, randomness: Randomness) -> LocalReply | None:
    """The entry as the answer to this request; None where it can't be had in the shape asked for."""
    now_s = clock.now_s()
    body = renderer.render(
        entry,
        stream=ex.stream,
        usage=ex.asks_usage,
        new_id=ID_PREFIX.get(ex.endpoint, "") + randomness.token(12),
        now_s=now_s,
    )
    if body is None:
        return None
    kind = "text/event-stream; charset=utf-8" if ex.stream else "application/json"
    return LocalReply(
        200,
        {
            "Content-Type": entry.content_type if (entry.shape == "stream") == ex.stream else kind,
            "Age": str(max(0, int(now_s - entry.stored_s))),
        },
        body,
        Served(
            entry.key,
            entry.usage,
            entry.model_served,
            entry.model_requested,
            entry.stored_s,
            entry.expires_s,
            tokens_saved=entry.tokens_saved,
            uncounted=body if entry.usage is None else b"",
            asks_usage=ex.asks_usage,
        ),
    )


async def served(
    ex: Exchange, entry: Entry, renderer: Renderer, clock: Clock, randomness: Randomness
) -> LocalReply | None:
    """`serve`, off the event loop where a large answer has to be taken apart first."""
    work = partial(serve, ex, entry, renderer, clock, randomness)
    if len(entry.body) > OFF_LOOP_BYTES and renderer.known(entry, stream=ex.stream, usage=ex.asks_usage) is None:
        return await asyncio.to_thread(work)
    return work()


@dataclass(slots=True)
class ExactStage(Quiet):
    """Canonical key -> stored answer. `barred`: credentials that the upstream has refused, until a success.

    `items`: embeddings are looked up input by input.
    """

    store: Store
    upstream_url: str
    variants: int
    barred: MutableSet[str]
    clock: Clock
    randomness: Randomness
    renderer: Renderer
    items: ItemCache | None = None
    name: str = field(default="exact", init=False)
    hard: bool = field(default=False, init=False)

    def on_request(self, ex: Exchange) -> Verdict | Awaitable[Verdict]:
        """Answer from the store, or say why not."""
        return GO_ON if ex.exact is None or not ex.may_store else self._look(ex)

    async def _look(self, ex: Exchange) -> Verdict:
        assert ex.exact is not None
        ex.cache = CacheStatus.MISS
        large = ex.body is not None and len(ex.body) > OFF_LOOP_BYTES
        work = partial(digest_of, ex.exact, ex.endpoint, plain=ex.plain)
        digest = await asyncio.to_thread(work) if large else work()
        scope = ex.original.facts.scope(
            (ex.tenant, ex.original.target, self.upstream_url, ex.controls.scope, ex.lossy),
            lambda: scope_of(ex, self.upstream_url).material(),
        )
        ex.key = key_of(scope, digest)
        if self.variants > 1:
            ex.key = f"{ex.key}.{int(self.randomness.uniform() * self.variants)}"
        barred = ex.may_read and ex.credential in self.barred
        if barred:
            ex.may_semantic, ex.cache_reason = False, "credential was refused upstream"
        if self.items is not None:
            known = await self.items.begin(ex, scope, read=ex.may_read and not barred)
            if known is not None or ex.items is not None:
                return known or GO_ON
        if barred or not ex.may_read:
            return GO_ON
        now_s = self.clock.now_s()
        try:
            entry = await self.store.get(ex.key, now_s)
        except StoreFault:
            ex.cache, ex.cache_reason = CacheStatus.BYPASS, "store failed"
            raise
        if entry is None:
            return GO_ON
        if too_old(ex, entry, now_s):
            ex.cache_reason = "older than max-age"
            return GO_ON
        reply = await served(ex, entry, self.renderer, self.clock, self.randomness)
        if reply is None:
            ex.cache_reason = "stored in another shape"
            return GO_ON
        ex.cache = CacheStatus.HIT_EXACT
        return reply


@dataclass(slots=True)
class KeepStage(Quiet):
    """Stores what may be stored: complete, successful, well-formed answers, and nothing else.

    `ttl_s`: how long, where the request's own `x-farthing-ttl` doesn't say: of models, endpoint, tags and answer.
    `leases`: what is kept under a lease goes through them.
    """

    store: Store
    ttl_s: Callable[[Sequence[str], str, Sequence[tuple[str, str]], bytes], int]
    max_entry_bytes: int
    barred: MutableSet[str]
    clock: Clock
    kept: Callable[[Exchange, Entry], None]
    items: ItemCache | None = None
    leases: Leases | None = None
    name: str = field(default="store", init=False)
    hard: bool = field(default=False, init=False)

    async def on_end(self, ex: Exchange) -> None:
        """Keep the flight's answer."""
        call = ex.call
        if call is None:
            return
        if not call.elsewhere:
            note_refusal(self.barred, ex.credential, call.status)
        if not ex.may_store or not ex.key or call.served is not None:
            return
        large = call.answer is not None and len(call.answer) > OFF_LOOP_BYTES
        # An answer that is kept item by item may be longer than one entry.
        most_bytes = self.max_entry_bytes if ex.items is None else len(call.answer or b"")
        asked = (call, ex.endpoint, most_bytes)
        reason = await asyncio.to_thread(unfit, *asked) if large else unfit(*asked)
        if reason:
            ex.decide(self.name, "not stored", reason)
            return
        assert call.answer is not None
        assert call.head is not None
        model_served, tags = call.model_served or ex.model, ex.controls.tags
        ttl_s = ex.controls.ttl_s
        if ttl_s is None:
            of = ((ex.model, model_served), ex.endpoint, tags, call.answer)
            ttl_s = await asyncio.to_thread(self.ttl_s, *of) if large else self.ttl_s(*of)
        if ttl_s <= 0:
            ex.decide(self.name, "not stored", "its time to live is 0")
            return
        if self.items is not None and ex.items is not None:
            if reason := await self.items.keep(ex, ttl_s, self.max_entry_bytes):
                ex.decide(self.name, "not stored", reason)
            return
        now_s = self.clock.now_s()
        entry = Entry(
            ex.key,
            ex.tenant,
            ex.endpoint,
            ex.model,
            model_served,
            "stream" if call.event_stream else "whole",
            call.head.headers.get("Content-Type", "application/json"),
            call.answer,
            call.usage,  # the last answer's: asking for what had been left out is the proxy's own way
            now_s,
            now_s + ttl_s,
            tags,
            ex.controls.scope,
            call.tokens_saved,
        )
        if ex.lease is None or self.leases is None:
            await self.store.put(entry)
        else:
            kept = await self.leases.land(ex.lease, entry)
            ex.lease.over = True
            if not kept:
                ex.decide(self.name, "not stored", "another process has taken over, and answered since")
                return
        self.kept(ex, entry)


def note_refusal(barred: MutableSet[str], credential: str, status: int) -> None:
    """After a 401 or 403 that credential gets no hits until a success: it may have been revoked."""
    if status in (401, 403):
        barred.add(credential)
    elif 200 <= status < 300:
        barred.discard(credential)


def unfit(call: Call, endpoint: Endpoint, max_bytes: int) -> str:
    """Why an answer must not be stored; '' where it may be."""
    if call.status != 200:
        return f"status {call.status}"
    if not call.complete:
        return "answer broke off"
    if call.answer is None:
        return "answer too large or in an unknown encoding"
    if len(call.answer) > max_bytes:
        return "answer larger than cache.max_entry_bytes"
    if call.event_stream:
        fit = replay.is_complete_stream(call.answer, endpoint)
    else:
        fit = call.value is not None and replay.is_complete_value(call.value, endpoint)
    return "" if fit else "answer is not well-formed"
